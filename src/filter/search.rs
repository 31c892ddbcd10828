//! All patterns that are asked about one field at the same occasion, in one pass.

use aho_corasick::{AhoCorasick, packed};
use regex::bytes::{RegexSet, RegexSetBuilder};

use super::literals;

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
}

#[derive(Debug, Default)]
struct Patterns {
    set: RegexSet,
    places: Vec<usize>,
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
    pub(super) fn compile(&mut self) -> Result<(), regex::Error> {
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
        for half in [&mut self.lettered, &mut self.blind] {
            let patterns = half
                .places
                .iter()
                .filter_map(|place| self.patterns.get(*place));
            half.set = RegexSetBuilder::new(patterns)
                .unicode(false)
                .size_limit(SET_SIZE_MAX)
                .build()?;
        }
        self.found = vec![false; self.patterns.len()];
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

    /// Looks for all patterns in `text`.
    pub(super) fn search(&mut self, text: &[u8], lower: &mut Vec<u8>) {
        if self.any {
            self.found.fill(false);
            self.any = false;
        }
        if self.literals.may_be_in(text, lower) {
            self.any |= self.lettered.mark(text, &mut self.found);
        }
        if !self.blind.places.is_empty() {
            self.any |= self.blind.mark(text, &mut self.found);
        }
    }
}

impl Literals {
    fn new(mut all: Vec<Vec<u8>>) -> Self {
        all.sort_by_key(Vec::len);
        // Where `.env.` is `.env` is found, too.
        let mut few: Vec<Vec<u8>> = Vec::new();
        for literal in all {
            if !few
                .iter()
                .any(|short| memchr::memmem::find(&literal, short).is_some())
            {
                few.push(literal);
            }
        }
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
    fn mark(&self, text: &[u8], found: &mut [bool]) -> bool {
        let mut any = false;
        for n in self.set.matches(text) {
            if let Some(mark) = self.places.get(n).and_then(|place| found.get_mut(*place)) {
                *mark = true;
                any = true;
            }
        }
        any
    }
}
