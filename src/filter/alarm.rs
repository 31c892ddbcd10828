//! Is there anything in a line that a jail could be looking for? One search through all texts of a line, as they stand
//! there, for everything that any of these jails cannot do without; on most lines it finds nothing, and no pattern and no
//! field is looked at.

use aho_corasick::{AhoCorasick, AhoCorasickKind, packed};

use super::literals::{self, fragments};
use crate::config::{Field, Jail};
use crate::parse::Access;

/// The search.
#[derive(Debug)]
pub(super) enum Alarm {
    /// SIMD, for some sixty fragments at most.
    Packed(packed::Searcher),
    Automaton(AhoCorasick),
    /// For what can only stand there encoded.
    Nothing,
}

/// An ordinary answer. Jails that are not open to it have few lines to look at, and would cost all others a longer search.
const ORDINARY: u16 = 200;

impl Alarm {
    /// What `jail` cannot do without in one of the texts that clients write; `None`: there is no such thing.
    pub(super) fn wants(jail: &Jail) -> Option<Vec<Vec<u8>>> {
        let open_to = &jail.rule.all.status;
        if !open_to.is_empty() && !super::within(open_to, ORDINARY) {
            return None;
        }
        let one = |(field, patterns): &(Field, Vec<String>)| {
            let written = match field {
                Field::Path | Field::Query | Field::Request | Field::Agent | Field::Referer => true,
                Field::Method | Field::User | Field::Vhost | Field::Message => false,
            };
            let all: Option<Vec<_>> = patterns.iter().map(|p| fragments(p)).collect();
            let mut all = all?.concat();
            // These are looked for anyway.
            let encoded = matches!(field, Field::Path | Field::Query);
            all.retain(|f| !(f.contains(&b'\\') || encoded && f.contains(&b'%')));
            written.then_some(all)
        };
        let shortest = |set: &Vec<Vec<u8>>| set.iter().map(Vec::len).min();
        let in_all = jail.rule.all.text.iter().filter_map(one);
        let any = &jail.rule.any;
        let only_texts = !any.text.is_empty()
            && any.status.is_empty()
            && any.bytes.is_empty()
            && any.duration.is_empty()
            && any.is_static.is_none();
        let in_any = only_texts.then(|| any.text.iter().map(one).collect::<Option<Vec<_>>>());
        let in_any = in_any.flatten().map(|sets| sets.concat());
        in_all.chain(in_any).max_by_key(shortest)
    }

    /// `None`: too much to look for.
    pub(super) fn new(mut wanted: Vec<Vec<u8>>) -> Option<Self> {
        wanted.sort_by_key(Vec::len);
        // Where `/.env` is `/.` is found, too.
        let mut few: Vec<Vec<u8>> = Vec::new();
        for fragment in wanted {
            let stands_in = |short: &Vec<u8>| memchr::memmem::find(&fragment, short).is_some();
            if !few.iter().any(stands_in) {
                few.push(fragment);
            }
        }
        if few.is_empty() {
            return Some(Self::Nothing);
        }
        let automaton = || {
            AhoCorasick::builder()
                .kind(Some(AhoCorasickKind::DFA))
                .build(&few)
                .ok()
        };
        packed::Searcher::new(in_buckets(&few))
            .map(Self::Packed)
            .or_else(|| automaton().map(Self::Automaton))
    }

    /// Could something be found in the texts of this line?
    #[inline]
    pub(super) fn rings(&self, access: &Access<'_>) -> bool {
        // Escapes and percent-encoding may hide what a jail is looking for.
        if access.texts.is_empty() || access.encoded {
            return true;
        }
        match self {
            Self::Packed(packed) => packed.find(access.texts).is_some(),
            Self::Automaton(all) => all.is_match(access.texts),
            Self::Nothing => false,
        }
    }
}

/// Buckets of the SIMD search (Teddy, in `packed`): fragment n is in bucket n mod 8.
const BUCKETS: usize = 8;

/// Sorts the fragments so that those share a bucket which ordinary lines do not take for each other: of a bucket only the
/// half-bytes of all its fragments' first two bytes are looked for, and what is found so costs a second look.
fn in_buckets(fragments: &[Vec<u8>]) -> Vec<&[u8]> {
    let mut buckets: Vec<Vec<&[u8]>> = vec![Vec::new(); BUCKETS];
    for (n, fragment) in fragments.iter().enumerate() {
        // All are filled to the same height.
        let height = n / BUCKETS;
        let cost =
            |bucket: &&mut Vec<&[u8]>| mistaken(bucket.iter().copied().chain([&fragment[..]]));
        let low = buckets.iter_mut().filter(|bucket| bucket.len() == height);
        if let Some(bucket) = low.min_by_key(cost) {
            bucket.push(fragment);
        }
    }
    // The fuller ones first: so the last few go there, too.
    buckets.sort_by_key(|bucket| std::cmp::Reverse(bucket.len()));
    let heights = 0..fragments.len().div_ceil(BUCKETS);
    let layers = heights.flat_map(|height| buckets.iter().filter_map(move |b| b.get(height)));
    layers.copied().collect()
}

/// How often an ordinary line is taken for one of these.
fn mistaken<'f>(fragments: impl Iterator<Item = &'f [u8]>) -> usize {
    // Low and high halves of the first byte, of the second.
    let mut halves = [0u16; 4];
    for fragment in fragments {
        for (half, value) in halves.iter_mut().zip(fragment.iter().flat_map(halved)) {
            *half |= 1 << value;
        }
    }
    let pairs = literals::ORDINARY.as_bytes().windows(2);
    let fits = |pair: &&[u8]| {
        let mut both = halves.iter().zip(pair.iter().flat_map(halved));
        both.all(|(half, value)| half & 1 << value != 0)
    };
    pairs.filter(fits).count()
}

fn halved(byte: &u8) -> [u8; 2] {
    [byte & 15, byte >> 4]
}
