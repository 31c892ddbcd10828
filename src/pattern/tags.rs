//! fail2ban's tags in a regular expression, written out in Python's syntax.
//!
//! The expressions behind the tags are made of named groups only; which of them took part says what kind of address it is.

use std::ops::Range;

use super::Options;

/// One or two address parts are spelled once and joined here.
const IP4: &str = r"(?:::f{4,6}:)?(?P<ip4>\d{1,3}(?:\.\d{1,3}){3})";
/// Each piece ends in a colon, so that "a colon right after a colon" is any colon there.
const IP6: &str = r"(?P<ip6>(?:[0-9A-Fa-f]{1,4}::?|::){1,7}(?:[0-9A-Fa-f]{1,4}|:))";
const DNS: &str = r"(?P<dns>[-\w.^]*\w)";
const CIDR: &str = r"(?P<cidr>\d+)";

/// A pattern whose tags are written out, and where each of its pieces came from.
pub(super) struct Expanded {
    pub(super) text: String,
    /// In order, without gaps.
    pieces: Vec<Piece>,
}

struct Piece {
    /// Where it begins in `text`.
    start: usize,
    source: Range<usize>,
    /// Copied as it was: offsets inside it can be told apart.
    verbatim: bool,
}

impl Expanded {
    /// The part of the source that stands behind a part of the text; of a tag, the whole tag.
    pub(super) fn source(&self, text: Range<usize>) -> Range<usize> {
        let last = text.end.saturating_sub(1).max(text.start);
        let start = self.at(text.start).map_or(0, |(piece, offset)| {
            piece.source.start + if piece.verbatim { offset } else { 0 }
        });
        let end = self.at(last).map_or(start, |(piece, offset)| {
            if piece.verbatim {
                piece.source.start + offset + usize::from(!text.is_empty())
            } else {
                piece.source.end
            }
        });
        start..end.max(start)
    }

    fn at(&self, offset: usize) -> Option<(&Piece, usize)> {
        let next = self.pieces.partition_point(|piece| piece.start <= offset);
        let piece = self.pieces.get(next.checked_sub(1)?)?;
        Some((piece, offset - piece.start))
    }

    fn push(&mut self, written: &str, source: Range<usize>, verbatim: bool) {
        self.pieces.push(Piece {
            start: self.text.len(),
            source,
            verbatim,
        });
        self.text.push_str(written);
    }
}

/// Writes the tags out, and turns flags right after an opening parenthesis into that group's own.
pub(super) fn expand(source: &str, options: Options) -> Expanded {
    let mut expanded = Expanded {
        text: String::with_capacity(source.len() * 2),
        pieces: Vec::new(),
    };
    let mut open: Vec<&str> = Vec::new();
    let mut lines = 0;
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = source
        .get(at..)
        .and_then(|rest| rest.find(['<', '(']))
        .map(|offset| at + offset)
    {
        let rest = source.get(found..).unwrap_or_default();
        let replaced = if rest.starts_with('<') {
            tag(rest)
                .and_then(|(name, len)| Some((written(name, options, &mut open, &mut lines)?, len)))
        } else if source.get(..found).is_some_and(|head| head.ends_with('\\')) {
            None
        } else {
            own_flags(rest)
        };
        match replaced {
            Some((text, len)) => {
                expanded.push(
                    source.get(copied..found).unwrap_or_default(),
                    copied..found,
                    true,
                );
                expanded.push(&text, found..found + len, false);
                at = found + len;
                copied = at;
            }
            None => at = found + skipped(rest),
        }
    }
    expanded.push(
        source.get(copied..).unwrap_or_default(),
        copied..source.len(),
        true,
    );
    expanded
}

/// How much of what was not replaced cannot be the start of something else: an unknown tag as a whole.
fn skipped(rest: &str) -> usize {
    tag(rest).map_or(1, |(_, len)| len)
}

/// `<name>`, `</name>`, `<name/>`: what stands between the angles, and the length of all of it.
fn tag(rest: &str) -> Option<(&str, usize)> {
    let inner = rest.strip_prefix('<')?;
    let end = inner.find('>')?;
    let name = inner.get(..end)?;
    let bare = name.strip_prefix('/').unwrap_or(name);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let word = |c: char| c == '-' || c == '_' || c.is_alphanumeric();
    (!bare.is_empty() && bare.chars().all(word)).then_some((name, end + 2))
}

/// `((?i)` and `(?:(?i)`: the flags hold for that group, which captures nothing.
fn own_flags(rest: &str) -> Option<(String, usize)> {
    let inner = rest
        .strip_prefix("(?:")
        .or_else(|| rest.strip_prefix('('))?;
    let flags = inner.strip_prefix("(?")?;
    let end = flags.find(|c: char| !c.is_ascii_lowercase())?;
    if end == 0 || !flags.get(end..)?.starts_with(')') {
        return None;
    }
    let len = rest.len() - flags.len() + end + 1;
    Some((format!("(?{}:", flags.get(..end)?), len))
}

fn written<'s>(
    name: &'s str,
    options: Options,
    open: &mut Vec<&'s str>,
    lines: &mut u32,
) -> Option<String> {
    let address = || format!(r"\[?(?:{IP4}|{IP6})\]?");
    Some(match name {
        "HOST" if options.names => format!("(?:{}|{DNS})", address()),
        "HOST" | "ADDR" | "F-ADDR/" => address(),
        "IP4" | "F-IP4/" => IP4.into(),
        "IP6" | "F-IP6/" => IP6.into(),
        "DNS" | "F-DNS/" => DNS.into(),
        "CIDR" | "F-CIDR/" => CIDR.into(),
        "SUBNET" | "F-SUBNET/" => format!(r"\[?(?:{IP4}|{IP6})(?:/{CIDR})?\]?"),
        "F-ID/" => r"(?P<fid>\S+)".into(),
        "F-PORT/" => r"(?P<fport>\w+)".into(),
        "SKIPLINES" => {
            *lines += 1;
            format!(r"\n(?P<skiplines{}>(?:.*\n)*?)", *lines - 1)
        }
        _ => return own(name, open),
    })
}

/// `<F-NAME>` and `</F-NAME>`: a group of the filter's own.
fn own<'s>(name: &'s str, open: &mut Vec<&'s str>) -> Option<String> {
    let (closing, name) = match name.strip_prefix('/') {
        Some(name) => (true, name),
        None => (false, name),
    };
    let name = name.strip_prefix("F-")?;
    let fits = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if name.is_empty() || !name.bytes().all(fits) {
        return None;
    }
    if closing {
        return open.contains(&name).then(|| ")".into());
    }
    if !open.contains(&name) {
        open.push(name);
    }
    Some(match name {
        "ID" => "(?P<fid>".into(),
        "PORT" => "(?P<fport>".into(),
        _ => format!("(?P<{}>", name.to_ascii_lowercase()),
    })
}
