//! What a regular expression means, one node a construct, as Python reads it.

use std::ops::Range;

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

/// One construct and where it stands in the text of the pattern.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) span: Range<usize>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// Nothing at all: matches everywhere.
    Empty,
    Char(char),
    Set(Box<Set>),
    At(At),
    Concat(Vec<Node>),
    /// Ordered: the first that leads to a match.
    Either(Vec<Node>),
    Repeat {
        body: Box<Node>,
        min: u32,
        /// `None`: as often as it goes.
        max: Option<u32>,
        greed: Greed,
    },
    /// A group that captures; its number counts from 1.
    Group(u32, Box<Node>),
    Look {
        not: bool,
        /// Looks back by so many characters; `None`: looks ahead.
        behind: Option<u32>,
        body: Box<Node>,
    },
    /// What it matched first is not given back.
    Atomic(Box<Node>),
    /// The text of a group again.
    Back {
        group: u32,
        fold: bool,
    },
    /// One of two, by whether a group took part.
    If {
        group: u32,
        yes: Box<Node>,
        no: Box<Node>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greed {
    Most,
    Least,
    /// Most, and gives nothing back.
    Own,
}

/// A place between two characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Start,
    LineStart,
    End,
    LineEnd,
    /// The end, or before the newline that is the last character.
    LastLineEnd,
    Bound {
        not: bool,
        ascii: bool,
    },
}

/// A set of characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Set {
    /// Those below 128, as they are: `not` is worked in.
    ascii: u128,
    /// Of the others: in order, without overlap.
    wide: Vec<(char, char)>,
    /// Of the others: classes that are too long to write down.
    classes: u8,
    not: bool,
}

/// Whether a set of bytes below 128 holds one: 64 bits are looked at, which costs half of what 128 do.
#[inline]
#[allow(
    clippy::cast_possible_truncation,
    reason = "the half of the bits that is wanted"
)]
pub(crate) fn holds(bits: u128, byte: u8) -> bool {
    let (low, high) = (bits as u64, (bits >> 64) as u64);
    let half = if byte < 64 { low } else { high };
    byte < 128 && half >> (byte & 63) & 1 != 0
}

/// A class of characters; the complement is the bit above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Word = 1,
    NotWord = 2,
    Digit = 4,
    NotDigit = 8,
    Space = 16,
    NotSpace = 32,
}

/// What a set is put together from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Item {
    Range(char, char),
    Class(Class),
}

impl Set {
    /// `fold`: letters of either case. `ascii`: classes hold only characters below 128.
    pub(crate) fn new(items: &[Item], not: bool, fold: bool, ascii: bool) -> Set {
        let mut set = Set::default();
        let mut wide: Vec<ClassUnicodeRange> = Vec::new();
        for item in items {
            match *item {
                Item::Range(from, to) => {
                    for c in from..=to.min('\x7f') {
                        set.ascii |= 1 << u32::from(c);
                    }
                    if to > '\x7f' {
                        wide.push(ClassUnicodeRange::new(from.max('\u{80}'), to));
                    }
                }
                Item::Class(class) => {
                    // The four separators are white space in Unicode's words only.
                    let has = |c: char| match (class, c) {
                        (Class::Space, '\x1c'..='\x1f') if ascii => false,
                        (Class::NotSpace, '\x1c'..='\x1f') if ascii => true,
                        (_, c) => class.has(c),
                    };
                    for c in ('\0'..='\x7f').filter(|&c| has(c)) {
                        set.ascii |= 1 << u32::from(c);
                    }
                    if !ascii {
                        set.classes |= class as u8;
                    } else if matches!(class, Class::NotWord | Class::NotDigit | Class::NotSpace) {
                        wide.push(ClassUnicodeRange::new('\u{80}', char::MAX));
                    }
                }
            }
        }
        if fold {
            set.fold(&mut wide, ascii);
        }
        let wide = ClassUnicode::new(wide);
        set.wide = wide
            .ranges()
            .iter()
            .map(|range| (range.start(), range.end()))
            .collect();
        if not {
            set.ascii = !set.ascii;
            set.not = true;
        }
        set
    }

    /// Just this character.
    pub(crate) fn one(c: char) -> Set {
        Set::new(&[Item::Range(c, c)], false, false, false)
    }

    /// Adds the other case. Python folds further than the tables of the `regex` crate at one letter: the dotted capital
    /// and the dotless small i belong to `i`.
    fn fold(&mut self, wide: &mut Vec<ClassUnicodeRange>, ascii: bool) {
        let upper = self.ascii & (((1 << 26) - 1) << 65);
        let lower = self.ascii & (((1 << 26) - 1) << 97);
        self.ascii |= (upper << 32) | (lower >> 32);
        if ascii {
            return;
        }
        let mut all = ClassUnicode::new(wide.iter().copied());
        if !all.ranges().is_empty() {
            // A table that is not compiled in cannot fold: then nothing is added.
            if all.try_case_fold_simple().is_err() {
                return;
            }
        }
        let dotted = |c: char| {
            all.ranges()
                .iter()
                .any(|range| range.start() <= c && c <= range.end())
        };
        if dotted('\u{130}') || dotted('\u{131}') {
            all.push(ClassUnicodeRange::new('i', 'i'));
            all.push(ClassUnicodeRange::new('I', 'I'));
        }
        for range in all.ranges() {
            for c in range.start()..=range.end().min('\x7f') {
                self.ascii |= 1 << u32::from(c);
            }
        }
        *wide = all
            .ranges()
            .iter()
            .filter(|range| range.end() > '\x7f')
            .map(|range| ClassUnicodeRange::new(range.start().max('\u{80}'), range.end()))
            .collect();
        for (letter, others) in [('i', "\u{130}\u{131}"), ('k', "\u{212a}"), ('s', "\u{17f}")] {
            if self.ascii & (1 << u32::from(letter)) != 0 {
                wide.extend(others.chars().map(|c| ClassUnicodeRange::new(c, c)));
            }
        }
    }

    pub(crate) fn has(&self, c: char) -> bool {
        if c.is_ascii() {
            return self.ascii & (1 << u32::from(c)) != 0;
        }
        self.has_wide(c)
    }

    #[cold]
    fn has_wide(&self, c: char) -> bool {
        let next = self.wide.partition_point(|&(from, _)| from <= c);
        let listed = next
            .checked_sub(1)
            .and_then(|i| self.wide.get(i))
            .is_some_and(|&(_, to)| c <= to);
        (listed
            || self.classes != 0
                && Class::ALL
                    .iter()
                    .any(|&class| self.classes & class as u8 != 0 && class.has(c)))
            != self.not
    }

    /// Its characters below 128, bit by bit.
    pub(crate) fn ascii(&self) -> u128 {
        self.ascii
    }

    /// Whether it holds this byte as a character: none above 127 is one.
    #[inline]
    pub(crate) fn has_byte(&self, byte: u8) -> bool {
        holds(self.ascii, byte)
    }

    /// The one character below 128 that it does not hold, while it holds all others.
    pub(crate) fn lacks_only(&self) -> Option<u8> {
        let all_wide = self.not && self.classes == 0 && self.wide.is_empty();
        let lacks = u8::try_from((!self.ascii).trailing_zeros()).ok()?;
        (all_wide && self.ascii.count_zeros() == 1).then_some(lacks)
    }

    /// May hold a character above 127.
    pub(crate) fn any_wide(&self) -> bool {
        self.not || self.classes != 0 || !self.wide.is_empty()
    }
}

impl Class {
    const ALL: [Class; 6] = [
        Class::Word,
        Class::NotWord,
        Class::Digit,
        Class::NotDigit,
        Class::Space,
        Class::NotSpace,
    ];

    pub(crate) fn has(self, c: char) -> bool {
        match self {
            Class::Word => word(c),
            Class::NotWord => !word(c),
            Class::Digit => digit(c).is_some(),
            Class::NotDigit => digit(c).is_none(),
            Class::Space => space(c),
            Class::NotSpace => !space(c),
        }
    }
}

/// Python's `\w`: letters, numbers of all kinds and the underscore; no combining marks.
pub(crate) fn word(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    tables::WORD.row(c).is_some()
}

/// Python's `\d`: the value of a decimal digit of any script.
pub(crate) fn digit(c: char) -> Option<u32> {
    if c.is_ascii() {
        return c.to_digit(10);
    }
    // Digits come in rows of ten.
    let zero = tables::DIGIT.row(c)?;
    Some((u32::from(c) - u32::from(zero)) % 10)
}

/// Python's `\s`: white space, and the four separators of ASCII.
fn space(c: char) -> bool {
    matches!(c, '\t'..='\r' | '\x1c'..='\x1f' | ' ') || !c.is_ascii() && c.is_whitespace()
}

/// Unicode's categories, read from `regex-syntax` when a character above 127 first asks for them.
mod tables {
    use std::sync::OnceLock;

    use regex_syntax::hir::HirKind;

    pub(super) static WORD: Table = Table::of(r"[\p{L}\p{N}]");
    pub(super) static DIGIT: Table = Table::of(r"\p{Nd}");

    pub(super) struct Table {
        class: &'static str,
        ranges: OnceLock<Vec<(char, char)>>,
    }

    impl Table {
        const fn of(class: &'static str) -> Table {
            Table {
                class,
                ranges: OnceLock::new(),
            }
        }

        /// The first character of the row that holds it.
        pub(super) fn row(&self, c: char) -> Option<char> {
            let ranges = self.ranges.get_or_init(|| read(self.class));
            let next = ranges.partition_point(|&(from, _)| from <= c);
            let &(from, to) = ranges.get(next.checked_sub(1)?)?;
            (c <= to).then_some(from)
        }
    }

    fn read(class: &str) -> Vec<(char, char)> {
        let Ok(hir) = regex_syntax::parse(class) else {
            return Vec::new(); // the classes are those above, and a test asks them
        };
        let HirKind::Class(regex_syntax::hir::Class::Unicode(class)) = hir.kind() else {
            return Vec::new();
        };
        let ranges = class.ranges().iter();
        ranges.map(|r| (r.start(), r.end())).collect()
    }
}
