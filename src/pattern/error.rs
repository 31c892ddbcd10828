//! What is wrong with a pattern, and where.

use std::fmt;

/// A pattern that does not load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    /// Byte offset in the source of the pattern.
    pub at: usize,
    /// What is wrong there.
    pub mistake: Mistake,
}

/// What Python, fail2ban or a bound of ours refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each says it in Display")]
pub enum Mistake {
    Empty,
    NoId,
    TooLong { max: usize },
    TooDeep { max: u32 },
    TooLarge,
    Unclosed,
    Unopened,
    UnclosedClass,
    BadRange,
    LoneBackslash,
    BadEscape(String),
    NothingToRepeat,
    RepeatedTwice,
    MinAboveMax,
    Count { max: u32 },
    NoSuchGroup(String),
    OpenGroup,
    NameTwice(String),
    BadName(String),
    ThirdBranch,
    BehindVaries,
    UnknownExtension,
    LateFlags,
}

impl PatternError {
    pub(super) fn new(at: usize, mistake: Mistake) -> PatternError {
        PatternError { at, mistake }
    }
}

impl std::error::Error for PatternError {}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = matches!(
            self.mistake,
            Mistake::Empty | Mistake::NoId | Mistake::TooLong { .. } | Mistake::TooLarge
        );
        self.mistake.fmt(f)?;
        if !whole {
            write!(f, " at column {}", self.at + 1)?;
        }
        Ok(())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mistake::Empty => write!(f, "the pattern is empty"),
            Mistake::NoId => write!(
                f,
                "nothing in it says who is meant; write <HOST>, <ADDR>, <F-ID>...</F-ID> or another tag of an address"
            ),
            Mistake::TooLong { max } => {
                write!(f, "longer than {max} bytes with its tags written out")
            }
            Mistake::TooDeep { max } => write!(f, "more than {max} groups within each other"),
            Mistake::TooLarge => write!(
                f,
                "its repetitions make it too large; repeat smaller pieces, or less often"
            ),
            Mistake::Unclosed => write!(f, "unclosed group; escape a literal \"(\" as \"\\(\""),
            Mistake::Unopened => write!(
                f,
                "a \")\" that closes nothing; escape a literal one as \"\\)\""
            ),
            Mistake::UnclosedClass => {
                write!(f, "unclosed class; escape a literal \"[\" as \"\\[\"")
            }
            Mistake::BadRange => write!(
                f,
                "a range that is none; escape a literal \"-\" as \"\\-\" or put it last"
            ),
            Mistake::LoneBackslash => write!(
                f,
                "a backslash with nothing behind it; write \"\\\\\" for a literal one"
            ),
            Mistake::BadEscape(escape) => write!(f, "Python knows no escape \"\\{escape}\""),
            Mistake::NothingToRepeat => {
                write!(f, "nothing to repeat; escape a literal sign with \"\\\"")
            }
            Mistake::RepeatedTwice => {
                write!(f, "repeated twice; put (?:...) around what is repeated")
            }
            Mistake::MinAboveMax => write!(f, "repeated at least more often than at most"),
            Mistake::Count { max } => write!(f, "repeated more than {max} times"),
            Mistake::NoSuchGroup(group) => write!(f, "there is no group \"{group}\""),
            Mistake::OpenGroup => write!(f, "refers to a group that is not closed yet"),
            Mistake::NameTwice(name) => write!(f, "a second group of the name \"{name}\""),
            Mistake::BadName(name) => write!(f, "\"{name}\" is no name for a group"),
            Mistake::ThirdBranch => write!(f, "a condition has two branches at most"),
            Mistake::BehindVaries => write!(f, "looks back over texts of different lengths"),
            Mistake::UnknownExtension => write!(f, "Python knows no such group"),
            Mistake::LateFlags => write!(
                f,
                "flags for all of the pattern must stand first; write (?i:...) for a part of it"
            ),
        }
    }
}
