//! Python's regular expressions with fail2ban's tags, judged exactly as Python judges them.
//!
//! ```text
//! source ──> tags ──> parse ──> tree ──> program ──> machine     exact, with every group
//!            written            └──────> approx                  linear, never misses a match: for lines that are hard
//!            out                └──────> literals                of all patterns of a filter in one search
//! ```
//!
//! At the start a pattern is only read, for its mistakes and its names. Its program is made when the first line comes, the
//! linear test when the first hard line comes: most hosts never compile it.
//!
//! Not `fancy-regex`: it has other semantics than Python (`$`, `\<`, classes) and no bound but a step limit, which a stranger
//! reaches with a long line. A machine of our own has Python's order by construction and remembers where it failed.

mod approx;
pub(crate) mod ast;
mod error;
mod literals;
mod machine;
mod needs;
pub(crate) mod parse;
pub(crate) mod program;
mod tags;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::OnceLock;

use aho_corasick::automaton::Automaton as _;
use aho_corasick::dfa::DFA;
use aho_corasick::{Anchored, MatchKind, StartKind};
use memchr::memmem::Finder;
use regex::bytes::Regex;

pub use self::error::{Mistake, PatternError};

use self::approx::Texts;
use self::machine::{Scratch, Search, TooHard};
use self::parse::{Parsed, parse};
use self::program::Program;
use self::tags::{Expanded, expand};

/// How a pattern is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// `<HOST>` may be a name. `false` is `usedns = no`: addresses only.
    pub names: bool,
    /// `^` and `$` also at every line: failregexes with `maxlines` above 1.
    pub multiline: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            names: true,
            multiline: false,
        }
    }
}

/// Whether a text matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Found {
    /// It does not.
    No,
    /// It does; the groups say where.
    Yes,
    /// Given up after some 30 ms; to be counted as "no", and to be said once.
    TooHard,
}

/// How far the best attempt came on a text that does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Byte offset in the text: all before it was matched.
    pub at: usize,
    /// The piece that would have had to match there, in `Pattern::source`. Empty and at its end: nothing is missing.
    pub piece: Range<usize>,
}

/// A pattern that loads.
#[derive(Debug)]
pub struct Pattern {
    source: Box<str>,
    options: Options,
    /// In the order they open.
    names: Box<[Box<str>]>,
    /// Their numbers.
    numbers: Box<[u32]>,
    literals: Option<Vec<Vec<u8>>>,
    /// Without it there is no match.
    needle: Option<Finder<'static>>,
    program: OnceLock<Option<Program>>,
    ascii: OnceLock<Option<Regex>>,
    all: OnceLock<Option<Regex>>,
}

/// Where a match is; and the memory of a search, kept from line to line.
#[derive(Debug, Default)]
pub struct Groups {
    whole: Range<usize>,
    named: Vec<Option<Range<usize>>>,
    scratch: Scratch,
}

impl Groups {
    /// The whole match, as byte offsets in the text.
    #[must_use]
    pub fn whole(&self) -> Range<usize> {
        self.whole.clone()
    }

    /// A named group, by its place in `Pattern::groups`; `None` when it took no part.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Range<usize>> {
        self.named.get(index).cloned().flatten()
    }

    /// All named groups, in the order of `Pattern::groups`.
    #[must_use]
    pub fn named(&self) -> &[Option<Range<usize>>] {
        &self.named
    }
}

/// Steps after which failed states are remembered: a line of a log takes some hundred.
const EASY: u64 = 2_000;
/// Steps after which the linear test is asked whether to go on.
const MIDDLING: u64 = 20_000;

/// Bytes of all literals of a filter together; each takes some hundred when they are looked for. With more, all patterns
/// are tried on every line. The largest of fail2ban's own filters has 2 KiB.
const LITERALS_MAX: usize = 64 * 1024;

/// What of a literal is looked for, bytes: enough to tell what lines are about.
const HEAD_BYTES: usize = 16;

fn head(literal: &[u8]) -> &[u8] {
    literal.get(..HEAD_BYTES).unwrap_or(literal)
}

impl Pattern {
    /// # Errors
    /// What Python's `re` or fail2ban would not load, and what is beyond the bounds of length, depth and size.
    pub fn new(source: &str, options: Options) -> Result<Pattern, PatternError> {
        let expanded = expand(source, options);
        if expanded.text.trim_start().is_empty() {
            return Err(PatternError::new(0, Mistake::Empty));
        }
        let placed = |error: PatternError| PatternError {
            at: expanded.source(error.at..error.at).start,
            ..error
        };
        let parsed = parse(&expanded.text, options.multiline).map_err(placed)?;
        if program::size(&parsed.root) > u64::from(program::STEPS_MAX) {
            return Err(PatternError::new(0, Mistake::TooLarge));
        }
        let literals = literals::required(&parsed.root);
        let needle = literals::needle(&parsed.root).map(|needle| Finder::new(&needle).into_owned());
        let (names, numbers): (Vec<_>, Vec<_>) = parsed.names.into_iter().unzip();
        Ok(Pattern {
            source: source.into(),
            options,
            names: names.into(),
            numbers: numbers.into(),
            literals,
            needle,
            program: OnceLock::new(),
            ascii: OnceLock::new(),
            all: OnceLock::new(),
        })
    }

    /// As it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What Python would be given: the tags written out.
    #[must_use]
    pub fn expanded(&self) -> String {
        self.expand().text
    }

    /// The named groups, in the order they open.
    #[must_use]
    pub fn groups(&self) -> &[Box<str>] {
        &self.names
    }

    /// Whether the groups of this pattern, or else of its filter's prefregex, say who is meant.
    ///
    /// # Errors
    /// `Mistake::NoId`: fail2ban does not load such a failregex.
    pub fn identifies(&self, prefix: Option<&Pattern>) -> Result<(), PatternError> {
        let id = |name: &str| matches!(name, "fid" | "ip4" | "ip6" | "dns" | "mlfid");
        let prefix = prefix.map_or(&[][..], Pattern::groups);
        if self.names.iter().chain(prefix).any(|name| id(name)) {
            return Ok(());
        }
        Err(PatternError::new(0, Mistake::NoId))
    }

    /// The first match in a text, wherever it begins.
    pub fn find(&self, text: &str, at: &mut Groups) -> Found {
        self.search(text, at, machine::WORK_MAX)
    }

    /// The same, given up after a tenth of a millisecond: for what another pattern has taken its time for already.
    pub fn find_quickly(&self, text: &str, at: &mut Groups) -> Found {
        self.search(text, at, MIDDLING)
    }

    fn search(&self, text: &str, at: &mut Groups, most: u64) -> Found {
        if let Some(needle) = &self.needle
            && needle.find(text.as_bytes()).is_none()
        {
            return Found::No;
        }
        let Some(program) = self.program() else {
            return Found::TooHard;
        };
        let found = Search::<false, false>::new(program, text, &mut at.scratch).find(EASY);
        let mut anew = |work| Search::<true, false>::new(program, text, &mut at.scratch).find(work);
        let found = found.or_else(|TooHard| anew(MIDDLING));
        let found = found.or_else(|TooHard| match self.can_match(text) {
            true => anew(most),
            false => Ok(false),
        });
        match found {
            Ok(true) => {}
            Ok(false) => return Found::No,
            Err(TooHard) => return Found::TooHard,
        }
        let slots = &at.scratch.slots;
        let span = |group: u32| {
            let slot = group as usize * 2;
            let (from, to) = (*slots.get(slot)?, *slots.get(slot + 1)?);
            (from <= to && to <= text.len()).then_some(from..to)
        };
        at.whole = span(0).unwrap_or_default();
        at.named.clear();
        at.named
            .extend(self.numbers.iter().map(|&number| span(number)));
        Found::Yes
    }

    /// How far the best attempt came, for a text that does not match. It is cut off after a few milliseconds.
    #[must_use]
    pub fn reach(&self, text: &str) -> Reach {
        let Some(program) = self.program() else {
            return Reach { at: 0, piece: 0..0 };
        };
        let far = Search::<true, true>::new(program, text, &mut Scratch::default()).reach();
        let span = program
            .spans
            .get(far.pc as usize)
            .cloned()
            .unwrap_or_default();
        Reach {
            at: far.pos,
            piece: self.expand().source(span.start as usize..span.end as usize),
        }
    }

    fn expand(&self) -> Expanded {
        expand(&self.source, self.options)
    }

    fn parsed(&self) -> Option<Parsed> {
        parse(&self.expand().text, self.options.multiline).ok()
    }

    fn program(&self) -> Option<&Program> {
        let made = self
            .program
            .get_or_init(|| Some(program::compile(&self.parsed()?)));
        made.as_ref()
    }

    /// The linear test. `true` when there is none.
    fn can_match(&self, text: &str) -> bool {
        let (test, texts) = if text.is_ascii() {
            (&self.ascii, Texts::Ascii)
        } else {
            (&self.all, Texts::All)
        };
        let test = test.get_or_init(|| approx::compile(&self.parsed()?.root, texts));
        test.as_ref()
            .is_none_or(|test| test.is_match(text.as_bytes()))
    }
}

/// The patterns of a filter, in order.
#[derive(Debug)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    /// Patterns without a literal: candidates always.
    always: Vec<usize>,
    /// Each literal's pattern.
    owners: Vec<usize>,
    literals: OnceLock<Option<DFA>>,
}

impl Patterns {
    /// In the order in which they are tried.
    #[must_use]
    pub fn new(patterns: Vec<Pattern>) -> Patterns {
        let mut always = Vec::new();
        let mut owners = Vec::new();
        for (i, pattern) in patterns.iter().enumerate() {
            match &pattern.literals {
                Some(literals) => owners.extend(literals.iter().map(|_| i)),
                None => always.push(i),
            }
        }
        Patterns {
            patterns,
            always,
            owners,
            literals: OnceLock::new(),
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Whether the candidates of several lines are those of each line together.
    #[must_use]
    pub fn seek_in_lines(&self) -> bool {
        let literals = self.patterns.iter().filter_map(|p| p.literals.as_ref());
        self.always.is_empty() && !literals.flatten().any(|literal| literal.contains(&b'\n'))
    }

    /// Those that a text may match, by their places in order: never leaves out one that does. Nor one that matches a part
    /// of the text with a newline behind it: so a whole line can be asked before its prefregex is tried.
    pub fn candidates(&self, text: &str, out: &mut Vec<usize>) {
        out.clear();
        let Some(literals) = self.literals() else {
            out.extend(0..self.patterns.len());
            return;
        };
        out.extend_from_slice(&self.always);
        let Ok(start) = literals.start_state(Anchored::No) else {
            return;
        };
        let mut note = |state| {
            if !literals.is_match(state) {
                return;
            }
            for n in 0..literals.match_len(state) {
                let literal = literals.match_pattern(state, n).as_usize();
                match self.owners.get(literal) {
                    Some(owner) if !out.contains(owner) => out.push(*owner),
                    _ => {}
                }
            }
        };
        // Each step waits for the one before, so two halves side by side take half as long. The second one begins early
        // enough to hold what stands across the middle.
        let across = literals.max_pattern_len().saturating_sub(1);
        let middle = (text.len() + across).div_ceil(2);
        let (first, second) = match text.len() > 2 * across {
            true => (
                text.as_bytes().get(..middle),
                text.as_bytes().get(middle - across..),
            ),
            false => (Some(text.as_bytes()), None),
        };
        let (first, second) = (first.unwrap_or_default(), second.unwrap_or_default());
        let next = |state, byte: &u8| literals.next_state(Anchored::No, state, *byte);
        let (mut one, mut other) = (start, start);
        let mut halves = first.iter().zip(second);
        for (byte, behind) in halves.by_ref() {
            (one, other) = (next(one, byte), next(other, behind));
            if literals.is_special(one) || literals.is_special(other) {
                note(one);
                note(other);
            }
        }
        for byte in first.get(second.len()..).unwrap_or_default() {
            one = next(one, byte);
            if literals.is_special(one) {
                note(one);
            }
        }
        out.sort_unstable();
    }

    /// `None`: too many of them.
    fn literals(&self) -> Option<&DFA> {
        let made = self.literals.get_or_init(|| {
            let all = self.patterns.iter().filter_map(|p| p.literals.as_ref());
            let all: Vec<&[u8]> = all.flatten().map(|literal| head(literal)).collect();
            if all.iter().map(|literal| literal.len()).sum::<usize>() > LITERALS_MAX {
                return None;
            }
            let mut builder = DFA::builder();
            builder
                .match_kind(MatchKind::Standard)
                .start_kind(StartKind::Unanchored)
                .ascii_case_insensitive(true);
            builder.build(all).ok()
        });
        made.as_ref()
    }
}
