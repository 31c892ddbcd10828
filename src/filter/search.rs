//! All patterns that are asked about one field at the same occasion, in one pass.

use std::hash::BuildHasher as _;

use aho_corasick::{AhoCorasick, packed};
use foldhash::fast::RandomState;
use regex_automata::meta::{Config, Regex};
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind, PatternSet};

use super::{CompileError, literals};

/// Compiled size of one search's patterns, bytes; one pattern alone has 10 MiB in the regex crate.
const SET_SIZE_MAX: usize = 64 << 20;

/// Patterns of one field.
#[derive(Debug, Default)]
pub(super) struct Search {
    pub(super) patterns: Vec<String>,
    literals: Literals,
    /// The patterns with literals.
    lettered: Patterns,
    /// Those without: tried on every text that a rule asks about.
    blind: Patterns,
    /// Patterns that match the text at hand.
    found: Vec<bool>,
    any: bool,
    /// The line that `found` is about.
    pub(super) line: u64,
    harmless: Harmless,
}

/// Texts in which nothing was found: agents, referers and paths come again and again, and to recognise one takes a third
/// of the time that looking through it takes. Only their hashes are kept. Nobody outside knows the key; two texts with
/// the same 64 bits would let one line pass, and ban nobody.
#[derive(Debug)]
struct Harmless {
    hasher: RandomState,
    /// By the hash's last bits.
    known: Vec<u64>,
}

/// Hashes kept for each search: 32 KiB.
const HARMLESS: usize = 4096;
/// Shorter texts are looked through as fast.
const MEMORABLE_BYTES: usize = 16;

impl Default for Harmless {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            known: vec![0; HARMLESS],
        }
    }
}

impl Harmless {
    fn hash(&self, text: &[u8]) -> u64 {
        // 0 is an empty place.
        self.hasher.hash_one(text).max(1)
    }

    fn knows(&self, hash: u64) -> bool {
        self.known.get(Self::place(hash)) == Some(&hash)
    }

    fn learn(&mut self, hash: u64) {
        if let Some(known) = self.known.get_mut(Self::place(hash)) {
            *known = hash;
        }
    }

    fn place(hash: u64) -> usize {
        usize::try_from(hash % HARMLESS as u64).unwrap_or(0)
    }
}

#[derive(Debug, Default)]
struct Patterns {
    places: Vec<usize>,
    compiled: Option<Compiled>,
}

/// Compiled patterns: milliseconds and a megabyte. Those of exceptions wait for the first text that is worth a look.
#[derive(Debug)]
enum Compiled {
    Together(Regex, PatternSet),
    /// All of them at once are too large, each alone was not. With their places.
    Apart(Vec<(usize, Regex)>),
}

/// The SIMD search needs texts of a certain length, and looks at shorter ones byte by byte; most paths are shorter. They
/// are filled up with zeros to this, which can only mean that a pattern is tried in vain.
const PACKED_MIN: usize = 64;

/// What the patterns cannot match without.
#[derive(Debug, Default)]
struct Literals {
    finder: Finder,
    shortest: usize,
    /// Some hold letters, so the text has to be lower-cased.
    letters: bool,
}

#[derive(Debug, Default)]
enum Finder {
    #[default]
    Nothing,
    /// SIMD, for up to some sixty.
    Packed(packed::Searcher),
    Automaton(Box<AhoCorasick>),
}

impl Search {
    /// Adds patterns; their places.
    pub(super) fn add(&mut self, patterns: impl Iterator<Item = String>) -> (usize, usize) {
        let from = self.patterns.len();
        self.patterns.extend(patterns);
        (from, self.patterns.len())
    }

    /// Makes it ready, once all patterns are there.
    /// `at_once`: also its patterns, so that the first line that one of them fits is judged as soon as any other.
    pub(super) fn compile(&mut self, at_once: bool) -> Result<(), CompileError> {
        let mut all = Vec::new();
        for (place, pattern) in self.patterns.iter().enumerate() {
            match literals::required(pattern) {
                Some(set) => {
                    all.extend(set);
                    self.lettered.places.push(place);
                }
                None => self.blind.places.push(place),
            }
        }
        self.literals = Literals::new(all);
        if matches!(self.literals.finder, Finder::Nothing) {
            self.blind.places.append(&mut self.lettered.places);
        }
        self.found = vec![false; self.patterns.len()];
        for half in [&mut self.lettered, &mut self.blind] {
            if at_once && !half.places.is_empty() {
                half.compiled = Some(together(&half.places, &self.patterns)?);
            }
        }
        Ok(())
    }

    /// Is one of the patterns `from..to` found in the text of the last [`search`](Self::search)?
    pub(super) fn has(&self, from: usize, to: usize) -> bool {
        self.any
            && self
                .found
                .get(from..to)
                .is_some_and(|found| found.contains(&true))
    }

    /// Looks for all patterns in a text: `raw` as it stands in the line, decoded by `decode` if it was not seen before.
    pub(super) fn search<'t>(
        &mut self,
        raw: &'t [u8],
        decode: impl FnOnce(&'t [u8]) -> &'t [u8],
        lower: &mut Vec<u8>,
    ) {
        if self.any {
            self.found.fill(false);
            self.any = false;
        }
        if raw.len() < self.literals.shortest && self.blind.places.is_empty() {
            return;
        }
        let hash = (raw.len() >= MEMORABLE_BYTES).then(|| self.harmless.hash(raw));
        if hash.is_some_and(|hash| self.harmless.knows(hash)) {
            return;
        }
        let text = decode(raw);
        if self.literals.may_be_in(text, lower) {
            self.any |= self.lettered.mark(&self.patterns, text, &mut self.found);
        }
        if !self.blind.places.is_empty() {
            self.any |= self.blind.mark(&self.patterns, text, &mut self.found);
        }
        if let (false, Some(hash)) = (self.any, hash) {
            self.harmless.learn(hash);
        }
    }
}

impl Literals {
    fn new(all: Vec<Vec<u8>>) -> Self {
        let few = literals::few(all);
        let finder = if few.is_empty() {
            Finder::Nothing
        } else if let Some(packed) = packed::Searcher::new(&few) {
            Finder::Packed(packed)
        } else {
            AhoCorasick::new(&few).map_or(Finder::Nothing, |all| Finder::Automaton(Box::new(all)))
        };
        Self {
            finder,
            shortest: few.first().map_or(0, Vec::len),
            letters: few.iter().flatten().any(u8::is_ascii_alphabetic),
        }
    }

    fn may_be_in(&self, text: &[u8], lower: &mut Vec<u8>) -> bool {
        if text.len() < self.shortest {
            return false;
        }
        let short = text.len() < PACKED_MIN && matches!(self.finder, Finder::Packed(_));
        let text = if self.letters || short {
            lower.clear();
            lower.extend_from_slice(text);
            if short {
                lower.resize(PACKED_MIN, 0);
            }
            lower.make_ascii_lowercase();
            lower
        } else {
            text
        };
        match &self.finder {
            Finder::Nothing => false,
            Finder::Packed(packed) => packed.find(text).is_some(),
            Finder::Automaton(all) => all.is_match(text),
        }
    }
}

impl Patterns {
    /// Marks those of `all` that are found in `text`; is there one?
    fn mark(&mut self, all: &[String], text: &[u8], found: &mut [bool]) -> bool {
        let Self { places, compiled } = self;
        let mut any = false;
        let mut mark = |place: &usize| {
            if let Some(mark) = found.get_mut(*place) {
                *mark = true;
                any = true;
            }
        };
        match compiled.get_or_insert_with(|| Compiled::new(places, all)) {
            Compiled::Together(all, found) => {
                found.clear();
                all.which_overlapping_matches(&Input::new(text), found);
                let found = found.iter().filter_map(|n| places.get(n.as_usize()));
                found.for_each(mark);
            }
            Compiled::Apart(each) => each
                .iter()
                .filter(|(_, pattern)| pattern.is_match(text))
                .for_each(|(place, _)| mark(place)),
        }
        any
    }
}

impl Compiled {
    fn new(places: &[usize], all: &[String]) -> Self {
        let one = |place: &usize| {
            let pattern = compiled(&[all.get(*place)?], MatchKind::LeftmostFirst);
            Some((*place, pattern.ok()?))
        };
        together(places, all)
            .unwrap_or_else(|_| Self::Apart(places.iter().filter_map(one).collect()))
    }
}

fn together(places: &[usize], all: &[String]) -> Result<Compiled, CompileError> {
    let patterns: Vec<&String> = places.iter().filter_map(|place| all.get(*place)).collect();
    let compiled = compiled(&patterns, MatchKind::All)?;
    let found = PatternSet::new(patterns.len());
    Ok(Compiled::Together(compiled, found))
}

/// Without literals to look for first: only texts come here in which some were found, and the automata for them would take
/// half a megabyte each.
fn compiled(patterns: &[&String], kind: MatchKind) -> Result<Regex, CompileError> {
    let config = Config::new()
        .match_kind(kind)
        .utf8_empty(false)
        .auto_prefilter(false)
        .nfa_size_limit(Some(SET_SIZE_MAX));
    Regex::builder()
        .configure(config)
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .build_many(patterns)
        .map_err(Box::new)
}
