//! One datepattern: its text to an expression, where it may stand, and how its time is read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::codes;
use super::matcher::Matcher;
use super::matcher::{EDGE_END, EDGE_START};
use super::read::Fields;
use crate::pattern::ast::word;
use crate::pattern::parse::parse;

/// Pattern and template pairs kept for the next jail with the same patterns.
const SHARED_MAX: usize = 1000;

const LINE_BEGIN: &str = "{^LN-BEG}";
const UNBOUND: &str = "{UNB}";

/// How the time of a match is read.
#[derive(Debug)]
pub(super) enum Reader {
    /// Named groups.
    Fields(Fields),
    /// Seconds since the epoch in this group; `long`: or milliseconds or microseconds, by its length.
    Epoch {
        group: u32,
        long: bool,
    },
    Tai64n,
}

/// One pattern, ready to be looked for.
#[derive(Debug)]
pub(super) struct Template {
    /// The pattern's text in one spelling: what makes two patterns the same.
    pub(super) key: String,
    /// What a report calls it.
    pub(super) name: String,
    /// The text before its codes were replaced; none for epochs and TAI64N.
    pattern: Option<String>,
    /// Matches at the start or the end of a line only.
    pub(super) anchored: bool,
    pub(super) reader: Reader,
    expression: String,
    matcher: OnceLock<Matcher>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    Anywhere,
    Word,
    Line,
}

impl Template {
    /// The text before its codes were replaced.
    pub(super) fn pattern(&self) -> Option<&str> {
        self.pattern.as_deref()
    }

    /// Compiled when it is first looked for: of 31 default patterns a log needs two or three.
    pub(super) fn matcher(&self) -> Option<&Matcher> {
        if let Some(matcher) = self.matcher.get() {
            return Some(matcher);
        }
        let parsed = parse(&self.expression, false).ok()?;
        let made = Matcher::new(&parsed).ok()?;
        Some(self.matcher.get_or_init(|| made))
    }

    fn new(
        key: String,
        name: String,
        pattern: Option<&str>,
        bound: Bound,
        reader: Option<Reader>,
    ) -> Result<Self, String> {
        let parsed = parse(&bound.text, false).map_err(|error| error.to_string())?;
        let reader = reader.unwrap_or_else(|| Reader::Fields(Fields::new(&parsed.names)));
        Ok(Template {
            key,
            name,
            pattern: pattern.map(str::to_owned),
            anchored: bound.anchored,
            reader,
            expression: bound.text,
            matcher: OnceLock::new(),
        })
    }

    /// The pattern behind a key, made once for all detectors.
    pub(super) fn shared(pattern: &str, key: &str) -> Result<Arc<Self>, String> {
        static SHARED: OnceLock<Mutex<HashMap<String, Arc<Template>>>> = OnceLock::new();
        let shared = SHARED.get_or_init(Mutex::default);
        if let Some(known) = shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
        {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(Self::of(pattern, key)?);
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.len() < SHARED_MAX {
            shared.insert(key.to_owned(), Arc::clone(&made));
        }
        Ok(made)
    }

    fn of(pattern: &str, key: &str) -> Result<Self, String> {
        if key.contains("EPOCH") {
            let long = key.contains("LEPOCH");
            if let Some(text) = with_epoch(pattern, long) {
                let bound = bound(&format!("({text})"), Begin::Word, true);
                let reader = Reader::Epoch { group: 2, long };
                return Self::new(
                    key.to_owned(),
                    pattern.to_owned(),
                    None,
                    bound,
                    Some(reader),
                );
            }
            let (begin, bare) = match key.strip_prefix(LINE_BEGIN).or(key.strip_prefix('^')) {
                Some(bare) => (Begin::Line, bare),
                None => (Begin::Anywhere, key),
            };
            if bare == "EPOCH" || bare == "LEPOCH" {
                return Self::epoch(key, begin, bare == "LEPOCH");
            }
        }
        if matches!(key, "TAI64N" | "{^LN-BEG}TAI64N" | "^TAI64N") {
            let begin = if key == "TAI64N" {
                Begin::Anywhere
            } else {
                Begin::Line
            };
            let bound = bound("@[0-9a-f]{24}", begin, true);
            let name = named("TAI64N", &bound);
            return Self::new(key.to_owned(), name, None, bound, Some(Reader::Tai64n));
        }
        let (mut inner, mut begin, mut end) = (pattern, Begin::Word, true);
        if let Some(rest) = inner.strip_prefix(UNBOUND) {
            (inner, begin, end) = (rest, Begin::Anywhere, false);
        } else if let Some(rest) = inner.strip_prefix(LINE_BEGIN) {
            (inner, begin) = (rest, Begin::Line);
        }
        let (mut text, name) = with_codes(inner)?;
        if has_letter_code(inner) {
            text.insert_str(0, "(?iu)");
        }
        let bound = bound(&text, begin, end);
        let name = named(&name, &bound);
        Self::new(key.to_owned(), name, Some(pattern), bound, None)
    }

    /// Ten or eleven digits at the start of the line, or in brackets there, or in SELinux' `audit(`.
    fn epoch(key: &str, begin: Begin, long: bool) -> Result<Self, String> {
        let number = epoch_number(long);
        let (name, text) = (
            if long { "LongEpoch" } else { "Epoch" },
            match begin {
                Begin::Line => format!("({number})"),
                Begin::Anywhere | Begin::Word => {
                    format!(r"((?:\A|(?<=\A\[)|(?<=\baudit[(])){number})")
                }
            },
        );
        let bound = bound(&text, begin, true);
        let name = named(name, &bound);
        Self::new(
            key.to_owned(),
            name,
            None,
            bound,
            Some(Reader::Epoch { group: 1, long }),
        )
    }

    /// The same with something around it (`{^LN-BEG}`, or a pattern that has `{DATE}` in it).
    pub(super) fn wrapped(&self, wrap: impl Fn(&str) -> String) -> Result<Arc<Self>, String> {
        match &self.pattern {
            Some(pattern) => {
                let pattern = wrap(pattern);
                Self::shared(&pattern, &pattern)
            }
            None => Self::named_pattern(&wrap(&self.name)),
        }
    }

    /// A pattern under the key that it has by itself: names are the same in any case.
    pub(super) fn named_pattern(pattern: &str) -> Result<Arc<Self>, String> {
        Self::shared(pattern, &key(pattern))
    }

    /// Puts `{DATE}` of `around` in its place: `inner` without what says where it may stand.
    pub(super) fn put_into(around: &str, inner: &str) -> String {
        let inner = inner.strip_prefix(UNBOUND).unwrap_or(inner);
        let inner = inner.strip_prefix(LINE_BEGIN).unwrap_or(inner);
        replace_tag(around, &["{DATE}"], inner).unwrap_or_else(|| around.to_owned())
    }
}

/// What tells patterns apart.
pub(super) fn key(pattern: &str) -> String {
    if pattern.contains('%') {
        pattern.to_owned()
    } else {
        pattern.to_uppercase()
    }
}

fn epoch_number(long: bool) -> &'static str {
    if long {
        r"\d{10,11}(?:\d{3}(?:[.]\d{1,6}|\d{3})?)?"
    } else {
        r"\d{10,11}\b(?:[.]\d{3,6})?"
    }
}

/// Replaces `{EPOCH}` and `{LEPOCH}` by their numbers; `None`: there is none.
fn with_epoch(pattern: &str, long: bool) -> Option<String> {
    replace_tag(
        pattern,
        &["{EPOCH}", "{LEPOCH}"],
        &format!("({})", epoch_number(long)),
    )
}

/// Replaces tags, in any case, not behind a backslash.
fn replace_tag(text: &str, tags: &[&str], with: &str) -> Option<String> {
    let mut done = String::new();
    let mut found = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let tag = tags.iter().find(|tag| {
            !done.ends_with('\\')
                && rest
                    .get(..tag.len())
                    .is_some_and(|t| t.eq_ignore_ascii_case(tag))
        });
        let width = match tag {
            Some(tag) => {
                done.push_str(with);
                found = true;
                tag.len()
            }
            None => {
                done.push(c);
                c.len_utf8()
            }
        };
        rest = rest.get(width..).unwrap_or_default();
    }
    found.then_some(done)
}

/// Codes to expressions and to the words of a report.
fn with_codes(pattern: &str) -> Result<(String, String), String> {
    let (mut text, mut name) = (String::new(), String::new());
    let mut rest = pattern;
    while let Some((before, behind)) = rest.split_once('%') {
        text.push_str(before);
        name.push_str(before);
        let Some((len, expression, word)) = codes::code(behind) else {
            let bad: String = behind.chars().take(1).collect();
            return Err(format!(
                "%{bad} is no code I know; a percent sign is written %%"
            ));
        };
        text.push_str(&expression);
        name.push_str(word);
        rest = behind.get(len..).unwrap_or_default();
    }
    text.push_str(rest);
    name.push_str(rest);
    Ok((text, name))
}

/// Whether a code is there that reads letters, so that case is ignored.
fn has_letter_code(pattern: &str) -> bool {
    let bytes = pattern.as_bytes();
    bytes.windows(2).enumerate().any(|(at, pair)| {
        matches!(pair, [b'%', b'a' | b'A' | b'b' | b'B' | b'p' | b'c'])
            && at.checked_sub(1).and_then(|before| bytes.get(before)) != Some(&b'%')
    })
}

/// A report shows where a pattern is held to the start of the line.
fn named(name: &str, bound: &Bound) -> String {
    if bound.at_line_begin && !name.starts_with(LINE_BEGIN) {
        format!("{LINE_BEGIN}{name}")
    } else {
        name.to_owned()
    }
}

/// An expression with its bounds.
struct Bound {
    text: String,
    /// `{^LN-BEG}` was put ahead.
    at_line_begin: bool,
    anchored: bool,
}

/// Sets bounds around an expression, and a group around all of it when it has none.
fn bound(text: &str, begin: Begin, word_end: bool) -> Bound {
    let mut text = text.trim().to_owned();
    let flags = take_flags(&mut text);
    let bound_begin = begin != Begin::Anywhere && !begins_unbound(&text);
    let bound_end = word_end && !ends_unbound(&text);
    if !has_group(&text) {
        text = grouped(&text);
    }
    let at_line_begin = bound_begin && begin == Begin::Line;
    let anchored =
        at_line_begin || !bound_begin && begins_at_line(&text) || !bound_end && ends_at_line(&text);
    text = without_stars(text, bound_begin, bound_end);
    if bound_end {
        text.push(EDGE_END);
    }
    if at_line_begin {
        text.insert_str(0, r"^\W{0,2}");
    } else if bound_begin {
        text.insert(0, EDGE_START);
    }
    text.insert_str(0, &flags);
    Bound {
        text,
        at_line_begin,
        anchored,
    }
}

/// The length of `(?iu)` at the start; 0: none.
fn flags_len(text: &str, letter: impl Fn(char) -> bool) -> usize {
    let Some(inside) = text.strip_prefix("(?") else {
        return 0;
    };
    let len: usize = inside
        .chars()
        .take_while(|&c| letter(c))
        .map(char::len_utf8)
        .sum();
    if len > 0 && inside.get(len..).is_some_and(|rest| rest.starts_with(')')) {
        len + 3
    } else {
        0
    }
}

/// Takes out the first `(?flags)`, wherever it stands, as flags hold for the whole.
fn take_flags(text: &mut String) -> String {
    let found = text.match_indices("(?").map(|(at, _)| at).find_map(|at| {
        let len = flags_len(text.get(at..)?, |c| c.is_ascii_lowercase());
        let group_name = at > 0 && text.get(..at).is_some_and(|t| t.ends_with("<\\"));
        (len > 0 && !group_name).then_some(at..at + len)
    });
    match found {
        Some(range) => {
            let flags = text.get(range.clone()).unwrap_or_default().to_owned();
            text.replace_range(range, "");
            flags
        }
        None => String::new(),
    }
}

/// `^` or `**` ahead, within any brackets.
fn begins_unbound(text: &str) -> bool {
    let inside = text.trim_start_matches('(');
    let opened = inside.len() < text.len();
    let starts = |rest: &str| {
        let deeper = rest.trim_start_matches('(');
        rest.starts_with('^')
            || deeper.starts_with("**")
            || rest.starts_with("(^")
            || rest.starts_with("(?:^")
    };
    if starts(inside) {
        return true;
    }
    let Some(last) = text.len().checked_sub(inside.len() + 1).filter(|_| opened) else {
        return false;
    };
    let last = text.get(last..).unwrap_or_default();
    let flags = flags_len(last, word);
    starts(last) || flags > 0 && starts(last.get(flags..).unwrap_or_default())
}

/// `$`, `\b`, `\s` or `**` at the end.
fn ends_unbound(text: &str) -> bool {
    let free = |before: &str| !before.ends_with('\\');
    text.strip_suffix("$)").is_some_and(free)
        || text.strip_suffix('$').is_some_and(free)
        || text.strip_suffix(r"\b").is_some_and(free)
        || text.strip_suffix(r"\s").is_some_and(free)
        || text
            .trim_end_matches(')')
            .strip_suffix("**")
            .is_some_and(free)
}

fn has_group(text: &str) -> bool {
    text.match_indices('(').any(|(at, _)| {
        let before = text.get(..at).unwrap_or_default();
        let behind = text.get(at + 1..).unwrap_or_default();
        !behind.starts_with('?') && !before.ends_with('\\') && !before.ends_with("(?")
    })
}

/// A group around all but flags, `^` and `$`.
fn grouped(text: &str) -> String {
    let mut head = flags_len(text, word);
    head += usize::from(text.get(head..).is_some_and(|rest| rest.starts_with('^')));
    head += flags_len(text.get(head..).unwrap_or_default(), word);
    let (head, rest) = text.split_at(head);
    match rest.strip_suffix('$') {
        Some(rest) => format!("{head}({rest})$"),
        None => format!("{head}({rest})"),
    }
}

fn begins_at_line(text: &str) -> bool {
    let text = text.get(flags_len(text, word)..).unwrap_or_default();
    let inside = text.strip_prefix("(?:^").or(text.strip_prefix("(^"));
    text.starts_with('^') || inside.is_some_and(|rest| !rest.starts_with('|'))
}

fn ends_at_line(text: &str) -> bool {
    let free = |before: &str| !before.ends_with(['\\', '|']);
    text.strip_suffix("$)").is_some_and(free) || text.strip_suffix('$').is_some_and(free)
}

/// Takes `**` away at both ends.
fn without_stars(mut text: String, bound_begin: bool, bound_end: bool) -> String {
    if !bound_begin {
        let brackets = text.len() - text.trim_start_matches('(').len();
        let flags = brackets
            .checked_sub(1)
            .map_or(0, |at| flags_len(text.get(at..).unwrap_or_default(), word));
        let head = if flags > 0 {
            brackets - 1 + flags
        } else {
            brackets
        };
        let rest = text.get(head..).unwrap_or_default();
        let head = head + rest.len() - rest.trim_start_matches('(').len();
        if text.get(head..).is_some_and(|rest| rest.starts_with("**")) {
            text.replace_range(head..head + 2, "");
        }
    }
    if !bound_end {
        let kept = text.trim_end_matches(')').len();
        if let Some(before) = text.get(..kept).and_then(|t| t.strip_suffix("**"))
            && !before.ends_with('\\')
        {
            text.replace_range(before.len()..kept, "");
        }
    }
    text
}
