//! Is there anything in a line that a jail could be looking for? One search through all texts of a line, as they stand
//! there, for everything that any of these jails cannot do without; on most lines it finds nothing, and no pattern and no
//! field is looked at.

use aho_corasick::{AhoCorasick, AhoCorasickKind, packed};

use super::literals::{self, few, fragments};
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
    pub(super) fn new(wanted: Vec<Vec<u8>>) -> Option<Self> {
        let few = few(wanted);
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

/// How many exchanges are tried; a dozen fragments need some two hundred.
const TRIES: usize = 1_000;

/// Sorts the fragments so that those share a bucket which ordinary lines do not take for each other: of a bucket only the
/// half-bytes of all its fragments' first two bytes are looked for, and what is found so costs a second look, a third of the
/// whole search if every line has one.
fn in_buckets(fragments: &[Vec<u8>]) -> Vec<&[u8]> {
    let mut buckets: Vec<Vec<&[u8]>> = vec![Vec::new(); BUCKETS];
    for (fragment, bucket) in fragments.iter().zip((0..BUCKETS).cycle()) {
        if let Some(bucket) = buckets.get_mut(bucket) {
            bucket.push(fragment);
        }
    }
    let mut left = TRIES;
    while exchange(&mut buckets, &mut left) {}
    let heights = 0..fragments.len().div_ceil(BUCKETS);
    let layers = heights.flat_map(|height| buckets.iter().filter_map(move |b| b.get(height)));
    layers.copied().collect()
}

/// Exchanges fragments of different buckets wherever that is better; was there one?
fn exchange(buckets: &mut [Vec<&[u8]>], left: &mut usize) -> bool {
    let mut better = false;
    for second in 1..buckets.len() {
        let (before, after) = buckets.split_at_mut(second);
        let Some(b) = after.first_mut() else { break };
        for a in before {
            let mut cost = mistaken(a) + mistaken(b);
            let (in_a, in_b) = (a.len(), b.len());
            let places = (0..in_a).flat_map(|n| (0..in_b).map(move |m| (n, m)));
            for (n, m) in places {
                if cost == 0 || *left == 0 {
                    break;
                }
                *left -= 1;
                swap(a, b, (n, m));
                let exchanged = mistaken(a) + mistaken(b);
                if exchanged < cost {
                    (cost, better) = (exchanged, true);
                } else {
                    swap(a, b, (n, m));
                }
            }
        }
    }
    better
}

fn swap<'f>(a: &mut [&'f [u8]], b: &mut [&'f [u8]], (n, m): (usize, usize)) {
    if let (Some(a), Some(b)) = (a.get_mut(n), b.get_mut(m)) {
        std::mem::swap(a, b);
    }
}

/// How often ordinary lines are taken for one of these.
fn mistaken(fragments: &[&[u8]]) -> usize {
    // Low and high halves of the first byte, of the second.
    let mut halves = [0u16; 4];
    for fragment in fragments {
        for (half, value) in halves.iter_mut().zip(fragment.iter().flat_map(halved)) {
            *half |= 1 << value;
        }
    }
    let fits = |pair: &[u8; 2]| {
        let mut both = halves.iter().zip(pair.iter().flat_map(halved));
        both.all(|(half, value)| half & 1 << value != 0)
    };
    let pairs = literals::PAIRS.iter();
    pairs
        .map(|(pair, times)| if fits(pair) { *times } else { 0 })
        .sum()
}

fn halved(byte: &u8) -> [u8; 2] {
    [byte & 15, byte >> 4]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    #[test]
    fn ordinary_lines_are_seldom_looked_at_twice() {
        let config = config::from_text(Path::new("none"), "").config;
        let wanted: Vec<_> = config.native().iter().filter_map(Alarm::wants).collect();
        let mut all = few(wanted.concat());
        let sorted = in_buckets(&all);
        let bucket = |n: usize| sorted.iter().copied().skip(n).step_by(BUCKETS);
        let twice = |n| mistaken(&bucket(n).collect::<Vec<_>>());
        assert!((0..BUCKETS).map(twice).sum::<usize>() < 10);
        let mut sorted: Vec<Vec<u8>> = sorted.into_iter().map(<[u8]>::to_vec).collect();
        sorted.sort();
        all.sort();
        assert_eq!(sorted, all);
    }
}
