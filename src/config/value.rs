//! Readers of single values: what is written to what it means, or what to write instead.

use std::time::Duration;

use regex_automata::nfa::thompson;
use regex_syntax::ast::ErrorKind;

use crate::decide::BanFor;

use super::Field;
use super::problem::Wrong;
use super::text::Value;

/// Largest compiled expression, bytes. An expression is searched in every line, and one of a megabyte is a mistake.
const REGEX_SIZE_MAX: usize = 1 << 20;

/// Longest window: stamps are 32 bits of milliseconds.
pub(crate) const FINDTIME_MAX: Duration = Duration::from_secs(28 * 24 * 60 * 60);

/// fail2ban's units; a month is a twelfth of a year of 365.25 days, as there.
const UNITS: &[(&[&str], f64)] = &[
    (&["ms", "msec", "millisecond", "milliseconds"], 0.001),
    (&["s", "ss", "sec", "second", "seconds"], 1.0),
    (&["m", "mm", "min", "minute", "minutes"], 60.0),
    (&["h", "hh", "hou", "hour", "hours"], 3600.0),
    (&["d", "dd", "da", "day", "days"], 86_400.0),
    (&["w", "ww", "wee", "week", "weeks"], 604_800.0),
    (&["mo", "mon", "month", "months"], 2_629_800.0),
    (&["y", "yy", "yea", "year", "years"], 31_557_600.0),
];

type Read<T> = Result<T, Wrong>;

fn wrong<T>(text: String) -> Read<T> {
    Err(text.into())
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value) -> Read<bool> {
    if let Value::Bool(b) = value {
        return Ok(*b);
    }
    let shown = value.shown();
    let meant = match shown.trim_matches('"').to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => "true",
        "false" | "no" | "off" | "0" => "false",
        _ => "true or false",
    };
    wrong(format!("{shown} is neither true nor false; write {meant}"))
}

/// A whole number from `min` to `max`.
pub(super) fn number(value: &Value, min: u32, max: u32) -> Read<u32> {
    let shown = value.shown();
    let in_range = |n: &u32| (min..=max).contains(n);
    if let Some(n) = value.int() {
        let n = u32::try_from(n).ok().filter(in_range);
        return n.ok_or_else(|| format!("{shown} is out of range; write {min} to {max}").into());
    }
    let meant = value.text().and_then(|text| text.trim().parse().ok());
    wrong(match meant.filter(in_range) {
        Some(n) => format!("{shown} is text; write the number {n} without quotes"),
        None => format!("{shown} is no whole number; write {min} to {max}"),
    })
}

/// One of some words.
pub(super) fn word<T: Copy>(value: &Value, words: &[(&str, T)]) -> Read<T> {
    let known = words.iter().find(|(word, _)| value.text() == Some(word));
    if let Some((_, meaning)) = known {
        return Ok(*meaning);
    }
    let all: Vec<String> = words
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    wrong(format!(
        "{} is not known here; write {}",
        value.shown(),
        all.join(" or ")
    ))
}

/// Text.
pub(super) fn text(value: &Value) -> Read<&str> {
    let wrong = || format!("{} is no text; write it in 'single quotes'", value.shown());
    value.text().ok_or_else(|| wrong().into())
}

/// `"1h 30m"`, or seconds.
pub(super) fn duration(value: &Value) -> Read<Duration> {
    if let Some(text) = value.text() {
        return duration_of(text).map_err(Wrong::from);
    }
    let seconds = if let Value::Float(n) = value {
        Some(*n)
    } else {
        value
            .int()
            .and_then(|n| u32::try_from(n).ok())
            .map(f64::from)
    };
    let wrong = || {
        format!(
            "{} is no duration; write \"10m\", or a number of seconds",
            value.shown()
        )
    };
    seconds
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .ok_or_else(|| wrong().into())
}

pub(super) fn duration_of(text: &str) -> Result<Duration, String> {
    let bad = |what: &str| format!("\"{text}\" {what}; write \"10m\", \"600s\" or \"1h 30m\"");
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return Err(bad("is no duration"));
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, behind) = rest.split_at(digits.unwrap_or(rest.len()));
        let number: f64 = number.parse().map_err(|_| bad("is no duration"))?;
        let behind = behind.trim_start();
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic());
        let (unit, behind) = behind.split_at(letters.unwrap_or(behind.len()));
        let unit = unit.to_ascii_lowercase();
        let factor = match unit.as_str() {
            "" if behind.is_empty() => 1.0,
            unit => UNITS
                .iter()
                .find(|(names, _)| names.contains(&unit))
                .map(|(_, factor)| *factor)
                .ok_or_else(|| bad("has no unit I know"))?,
        };
        total += number * factor;
        rest = behind.trim_start();
    }
    Duration::try_from_secs_f64(total).map_err(|_| bad("is too long"))
}

/// `findtime`.
pub(super) fn findtime(value: &Value) -> Read<Duration> {
    let d = duration(value)?;
    if (Duration::from_millis(1)..=FINDTIME_MAX).contains(&d) {
        return Ok(d);
    }
    wrong(format!(
        "{} is out of range; write \"1ms\" to \"28d\"",
        value.shown()
    ))
}

/// `bantime`.
pub(super) fn bantime(value: &Value) -> Read<BanFor> {
    let ever = value.int() == Some(-1) || value.text().is_some_and(|text| text.trim() == "-1");
    if ever {
        return Ok(BanFor::Forever);
    }
    if value.int().is_some_and(|n| n < 0) {
        let shown = value.shown();
        return wrong(format!(
            "{shown} is no duration; write -1 for ever, or \"10m\""
        ));
    }
    let d = duration(value)?;
    BanFor::timed(d).map_or_else(
        || wrong("0 is no ban, and 136 years are too many; write \"10m\", -1 for ever, or mode = \"observe\"".to_owned()),
        Ok,
    )
}

/// `401`, `"4xx"`, `"500-599"`.
pub(super) fn status(value: &Value) -> Read<(u16, u16)> {
    let valid = |n: u16| (100..=999).contains(&n);
    let one = |text: &str| text.trim().parse().ok().filter(|n| valid(*n));
    let written = match value.text() {
        Some(text) => text.to_owned(),
        None => value.int().map_or_else(String::new, |n| n.to_string()),
    };
    let range = match written.split_once('-') {
        Some((from, to)) => one(from).zip(one(to)).filter(|(from, to)| from <= to),
        None => match written.strip_suffix("xx").or(written.strip_suffix("XX")) {
            Some(hundreds) => one(&format!("{hundreds}00")).map(|n| (n, n + 99)),
            None => one(&written).map(|n| (n, n)),
        },
    };
    range.ok_or_else(|| {
        format!(
            "{} is no status; write 404, \"4xx\" or \"500-599\"",
            value.shown()
        )
        .into()
    })
}

/// `0`, `">=1000000"`, `"<100"`, `"100-200"`.
pub(super) fn bytes(value: &Value) -> Read<(u64, u64)> {
    let range = match value.text() {
        Some(text) => range(text, |n| n.parse().ok()),
        None => value
            .int()
            .and_then(|n| u64::try_from(n).ok())
            .map(|n| (n, n)),
    };
    range.ok_or_else(|| {
        format!(
            "{} is no number of bytes; write 0, \">=1000000\", \"<100\" or \"100-200\"",
            value.shown()
        )
        .into()
    })
}

/// `">5s"`, `"<10ms"`, `"100ms-2s"`, as microseconds.
pub(super) fn request_time(value: &Value) -> Read<(u64, u64)> {
    let micros = |text: &str| u64::try_from(duration_of(text).ok()?.as_micros()).ok();
    let range = value.text().and_then(|text| range(text, micros));
    // A request that took exactly so many microseconds is nobody's question.
    let range = range.filter(|(from, to)| from < to);
    range.ok_or_else(|| {
        format!(
            "{} is no range of time; write \">5s\", \"<10ms\" or \"100ms-2s\"",
            value.shown()
        )
        .into()
    })
}

/// An inclusive range.
fn range(text: &str, read: impl Fn(&str) -> Option<u64>) -> Option<(u64, u64)> {
    let text = text.trim();
    let read = |text: &str| read(text.trim());
    if let Some(n) = text.strip_prefix(">=") {
        Some((read(n)?, u64::MAX))
    } else if let Some(n) = text.strip_prefix('>') {
        Some((read(n)?.checked_add(1)?, u64::MAX))
    } else if let Some(n) = text.strip_prefix("<=") {
        Some((0, read(n)?))
    } else if let Some(n) = text.strip_prefix('<') {
        Some((0, read(n)?.checked_sub(1)?))
    } else if let Some((from, to)) = text.split_once('-') {
        Some((read(from)?, read(to)?)).filter(|(from, to)| from <= to)
    } else {
        let n = read(text)?;
        Some((n, n))
    }
}

/// Text fields by their key.
pub(super) const FIELDS: &[(&str, Field)] = &[
    ("method", Field::Method),
    ("path", Field::Path),
    ("query", Field::Query),
    ("request", Field::Request),
    ("agent", Field::Agent),
    ("referer", Field::Referer),
    ("user", Field::User),
    ("vhost", Field::Vhost),
    ("message", Field::Message),
];

/// A regular expression on bytes that compiles.
pub(super) fn regex(value: &Value) -> Read<String> {
    let pattern = text(value)?;
    if pattern.is_empty() {
        return wrong("an empty expression fits everything; leave the key out".to_owned());
    }
    // "\b" in double quotes is TOML's backspace, and no field of a line holds one as it stands.
    if let Some(control) = pattern.chars().find(|c| c.is_control()) {
        return wrong(format!(
            "holds the control character {}, which double quotes make of an escape; write it in 'single quotes'",
            control.escape_debug()
        ));
    }
    let syntax = regex_syntax::ParserBuilder::new()
        .utf8(false)
        .unicode(false)
        .build()
        .parse(pattern);
    let hir = syntax.map_err(|error| regex_wrong(pattern, &error))?;
    // Only its size: a search for it is made of all patterns together.
    let limit = thompson::Config::new().nfa_size_limit(Some(REGEX_SIZE_MAX));
    thompson::Compiler::new()
        .configure(limit.utf8(false))
        .build_from_hir(&hir)
        .map(|_| pattern.to_owned())
        .map_err(|_| {
            format!(
                "too large once compiled (over {REGEX_SIZE_MAX} bytes); write smaller repetitions"
            )
            .into()
        })
}

/// The column of a mistake in an expression, with what to write.
fn regex_wrong(pattern: &str, error: &regex_syntax::Error) -> Wrong {
    let (column, what, advice) = match error {
        regex_syntax::Error::Parse(e) => {
            let end = matches!(e.kind(), ErrorKind::GroupNameUnexpectedEof);
            let at = if end { &e.span().end } else { &e.span().start };
            (at.column, e.kind().to_string(), regex_advice(e.kind()))
        }
        regex_syntax::Error::Translate(e) => (
            e.span().start.column,
            e.kind().to_string(),
            "an expression sees bytes: write letters beyond ASCII outside of [ ]",
        ),
        _ => (
            1,
            error.to_string(),
            "see docs.rs/regex for what can stand here",
        ),
    };
    Wrong {
        text: format!("{what} at column {column}; {advice}"),
        cited: Some(format!(
            "{pattern}\n{}^",
            " ".repeat(column.saturating_sub(1))
        )),
    }
}

fn regex_advice(kind: &ErrorKind) -> &'static str {
    if matches!(kind, ErrorKind::GroupUnclosed) {
        "escape a literal \"(\" as \"\\(\""
    } else if matches!(kind, ErrorKind::GroupUnopened) {
        "escape a literal \")\" as \"\\)\""
    } else if matches!(kind, ErrorKind::ClassUnclosed) {
        "escape a literal \"[\" as \"\\[\""
    } else if matches!(kind, ErrorKind::RepetitionMissing) {
        "escape a literal \"*\", \"+\" or \"?\" with a \"\\\""
    } else if matches!(kind, ErrorKind::UnsupportedLookAround) {
        "write what must not be there under not = { ... }"
    } else if matches!(
        kind,
        ErrorKind::RepetitionCountUnclosed
            | ErrorKind::RepetitionCountDecimalEmpty
            | ErrorKind::RepetitionCountInvalid
    ) {
        "escape a literal \"{\" as \"\\{\""
    } else {
        "see docs.rs/regex for what can stand here"
    }
}
