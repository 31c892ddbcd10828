//! What a line must have for a pattern to match at all, and near what: most patterns want a time of day.
//!
//! A log without dates, or with its dates at another place in each line, makes every pattern look at the whole of every line.
//! Times of day are rare and found fast, and tell where a match can begin.

use super::matcher::{EDGE_END, EDGE_START};
use crate::pattern::ast::{Kind, Node, Set, digit};

/// Digits in a row that are no time of day and no address.
const LONG: usize = 8;
/// Times of day in one line that are remembered; a line with more is searched from end to end.
const CLOCKS_MAX: usize = 32;

/// Widths, bytes of an ASCII line; a maximum of `usize::MAX` is none.
type Width = (usize, usize);

/// What every match of a pattern contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    /// A time of day, whose first colon comes so many bytes behind the beginning.
    Clock(Width),
    /// A long row of digits.
    Long,
    /// An `@`.
    At,
}

/// What a line has.
#[derive(Debug, Default)]
pub(super) struct Traits {
    /// Where the first colons of times of day are.
    clocks: Vec<usize>,
    long: bool,
    at: bool,
    /// Whether widths are no bytes here: not ASCII.
    wide: bool,
    /// Nothing is known: other scripts' digits, or too many times of day.
    open: bool,
}

impl Traits {
    /// Looks at a line.
    pub(super) fn see(&mut self, line: &str, ascii: bool) {
        let bytes = line.as_bytes();
        self.clocks.clear();
        self.wide = !ascii;
        // Digits of other scripts make times too.
        self.open = !ascii && line.chars().any(|c| !c.is_ascii() && digit(c).is_some());
        if self.open {
            return;
        }
        let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
        for colon in memchr::memchr_iter(b':', bytes) {
            if colon == 0 || !digit(colon - 1) || !digit(colon + 1) {
                continue;
            }
            let next = colon + 2 + usize::from(digit(colon + 2));
            if bytes.get(next) == Some(&b':') && digit(next + 1) {
                if self.clocks.len() == CLOCKS_MAX {
                    self.open = true;
                    return;
                }
                self.clocks.push(colon);
            }
        }
        self.at = memchr::memchr(b'@', bytes).is_some();
        // A long row has a digit at one of every LONG places.
        self.long = (LONG - 1..bytes.len()).step_by(LONG).any(|at| {
            digit(at) && {
                let before = bytes.get(..at).unwrap_or_default();
                let behind = bytes.get(at..).unwrap_or_default();
                before
                    .iter()
                    .rev()
                    .take_while(|b| b.is_ascii_digit())
                    .count()
                    + behind.iter().take_while(|b| b.is_ascii_digit()).count()
                    >= LONG
            }
        });
    }

    /// Where a match can begin.
    pub(super) fn starts(&self, need: Need) -> Starts<'_> {
        let everywhere = match need {
            Need::Nothing => true,
            Need::Clock(width) if !self.open && !self.wide => {
                return Starts::Near(&self.clocks, width);
            }
            Need::Clock(_) => self.open || !self.clocks.is_empty(),
            Need::Long => self.open || self.long,
            Need::At => self.open || self.at,
        };
        if everywhere {
            Starts::Everywhere
        } else {
            Starts::Nowhere
        }
    }
}

/// Places of a line where a match can begin.
#[derive(Clone, Copy, Debug)]
pub(super) enum Starts<'l> {
    Everywhere,
    Nowhere,
    /// So many bytes before one of these.
    Near(&'l [usize], Width),
}

impl Starts<'_> {
    /// The next places from `start` on: the first and the last of a row.
    pub(super) fn next(&self, start: usize) -> Option<(usize, usize)> {
        match self {
            Starts::Everywhere => Some((start, usize::MAX)),
            Starts::Nowhere => None,
            // In the order of the line, so the first that is not over is the next.
            Starts::Near(clocks, (min, max)) => clocks.iter().find_map(|clock| {
                let last = clock.checked_sub(*min)?;
                let first = clock.saturating_sub(*max);
                (start <= last).then_some((start.max(first), last))
            }),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Digits,
    Colon,
    At,
    Other,
}

/// What every match of an expression contains.
pub(super) fn of(node: &Node) -> Need {
    let mut pieces = Vec::new();
    let mut groups = Vec::new();
    flatten(node, &mut pieces, &mut groups);
    // Digits beside digits are one row.
    let mut rows: Vec<(Piece, Width)> = Vec::new();
    for (kind, width) in pieces {
        match rows.last_mut() {
            Some((Piece::Digits, row)) if kind == Piece::Digits => *row = sum(*row, width),
            _ if width == (0, 0) => {}
            _ => rows.push((kind, width)),
        }
    }
    let mut before = (0, 0);
    for (at, (_, width)) in rows.iter().enumerate() {
        if let [
            (Piece::Digits, (1.., _)),
            (Piece::Colon, _),
            (Piece::Digits, (1.., ..=2)),
            (Piece::Colon, _),
            (Piece::Digits, (1.., _)),
            ..,
        ] = rows.get(at..).unwrap_or_default()
        {
            return Need::Clock(sum(before, *width));
        }
        before = sum(before, *width);
    }
    if rows
        .iter()
        .any(|(kind, width)| *kind == Piece::Digits && width.0 >= LONG)
    {
        Need::Long
    } else if rows.iter().any(|(kind, _)| *kind == Piece::At) {
        Need::At
    } else {
        Need::Nothing
    }
}

fn sum(a: Width, b: Width) -> Width {
    (a.0.saturating_add(b.0), a.1.saturating_add(b.1))
}

fn flatten(node: &Node, pieces: &mut Vec<(Piece, Width)>, groups: &mut Vec<(u32, Width)>) {
    match &node.kind {
        Kind::Concat(nodes) => nodes.iter().for_each(|node| flatten(node, pieces, groups)),
        Kind::Group(group, inner) => {
            let from = pieces.len();
            flatten(inner, pieces, groups);
            let width = pieces
                .iter()
                .skip(from)
                .fold((0, 0), |all, (_, width)| sum(all, *width));
            groups.push((*group, width));
        }
        Kind::Char(':') => pieces.push((Piece::Colon, (1, 1))),
        Kind::Char('@') => pieces.push((Piece::At, (1, 1))),
        Kind::Empty
        | Kind::Char(_)
        | Kind::Set(_)
        | Kind::Either(_)
        | Kind::Repeat { .. }
        | Kind::At(_)
        | Kind::Look { .. }
        | Kind::Atomic(_)
        | Kind::Back { .. }
        | Kind::If { .. } => {
            let piece = if digits(node) {
                Piece::Digits
            } else {
                Piece::Other
            };
            pieces.push((piece, width(node, groups)));
        }
    }
}

/// Whether it matches rows of digits only.
fn digits(node: &Node) -> bool {
    match &node.kind {
        Kind::Char(c) => c.is_ascii_digit(),
        Kind::Set(set) => only_digits(set),
        Kind::Concat(nodes) | Kind::Either(nodes) => nodes.iter().all(digits),
        Kind::Group(_, node) | Kind::Repeat { body: node, .. } => digits(node),
        Kind::Empty
        | Kind::At(_)
        | Kind::Look { .. }
        | Kind::Atomic(_)
        | Kind::Back { .. }
        | Kind::If { .. } => false,
    }
}

fn only_digits(set: &Set) -> bool {
    (0u8..128).all(|byte| byte.is_ascii_digit() || !set.has_byte(byte))
}

fn width(node: &Node, groups: &mut Vec<(u32, Width)>) -> Width {
    match &node.kind {
        Kind::Char(EDGE_START | EDGE_END) => (0, 0),
        Kind::Char(_) | Kind::Set(_) => (1, 1),
        Kind::Concat(nodes) => nodes
            .iter()
            .fold((0, 0), |all, node| sum(all, width(node, groups))),
        Kind::Either(nodes) => {
            let widths: Vec<_> = nodes.iter().map(|node| width(node, groups)).collect();
            let min = widths.iter().map(|width| width.0).min().unwrap_or(0);
            (
                min,
                widths
                    .iter()
                    .map(|width| width.1)
                    .max()
                    .unwrap_or(usize::MAX),
            )
        }
        Kind::Group(group, node) => {
            let inner = width(node, groups);
            groups.push((*group, inner));
            inner
        }
        Kind::Atomic(node) => width(node, groups),
        Kind::Repeat { body, min, max, .. } => {
            let inner = width(body, groups);
            let max = max.map_or(usize::MAX, |max| max as usize);
            (
                inner.0.saturating_mul(*min as usize),
                inner.1.saturating_mul(max),
            )
        }
        Kind::Back { group, .. } => {
            let found = groups.iter().rev().find(|(known, _)| known == group);
            (0, found.map_or(usize::MAX, |(_, width)| width.1))
        }
        Kind::If { yes, no, .. } => {
            let (yes, no) = (width(yes, groups), width(no, groups));
            (yes.0.min(no.0), yes.1.max(no.1))
        }
        Kind::Empty | Kind::At(_) | Kind::Look { .. } => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::parse::parse;

    fn need(expression: &str) -> Need {
        of(&parse(expression, false).unwrap().root)
    }

    #[test]
    fn a_time_of_day_is_seen_in_an_expression() {
        assert_eq!(
            need(r"(\d{4})-(\d\d) ([01]?\d|2[0-3]):([0-5]?\d):([0-5]?\d)"),
            Need::Clock((9, 10))
        );
        assert_eq!(
            need(r"x*([01]?\d|2[0-3]):([0-5]?\d):(?P<S>[0-5]?\d)"),
            Need::Clock((1, usize::MAX))
        );
        assert_eq!(need(r"(?:\d\d:\d\d:\d\d)?"), Need::Nothing);
        assert_eq!(need(r"\d\d:\d\d"), Need::Nothing);
        assert_eq!(need(r"\d+:\d+:\d+"), Need::Nothing);
        assert_eq!(need(r"20[012]\d0[1-9][0-3]\d"), Need::Long);
        assert_eq!(need("(@[0-9a-f]{24})"), Need::At);
    }

    #[test]
    fn a_line_says_where_its_times_are() {
        let mut traits = Traits::default();
        traits.see("a 1:2:3 b 12:34 c 12:34:56 00:11:22:33", true);
        assert_eq!(traits.clocks, [3, 20, 29, 32]);
        assert!(!traits.long && !traits.at);
        traits.see("x 12345678", true);
        assert!(traits.long && traits.clocks.is_empty());
        traits.see("x 1234567 1234567", true);
        assert!(!traits.long);
    }

    #[test]
    fn matches_begin_so_far_before_a_time() {
        let starts = Starts::Near(&[10, 40], (3, 5));
        assert_eq!(starts.next(0), Some((5, 7)));
        assert_eq!(starts.next(6), Some((6, 7)));
        assert_eq!(starts.next(8), Some((35, 37)));
        assert_eq!(starts.next(38), None);
    }
}
