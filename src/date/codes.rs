//! The codes of a datepattern (`%d`, `%ExY`) and the patterns that are tried where none is given.

use std::sync::OnceLock;

use chrono::{Datelike, Local};

/// Zone abbreviations: one capital, or three to five.
const ABBREVIATION: &str = "[A-Z](?:[A-Z]{2,4})?";
/// `+02`, `-0330`, `+05:30`.
const OFFSET: &str = r"[-+][01]\d(?::?\d{2})?";

const DAY: &str = "(?P<a>mon|tue|wed|thu|fri|sat|sun)";
const MONTH: &str = "(?P<b>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)";

/// The patterns tried where none is given, in this order.
pub(super) const DEFAULTS: [&str; 17] = [
    // 2026-11-25T08:10:11.123456+01:00, with - / or . and with T, one or two blanks
    r"%ExY(?P<_sep>[./-])%m(?P=_sep)%d(?:T| {1,2})%H:%M:%S(?:[,.]%f)?(?:\s*%z)?",
    // Wed Nov 25 08:10:11.123 2026
    r"(?:%a )?%b %d %k:%M:%S(?:[.]%f)?(?: %ExY)?",
    // Wed Nov 25 2026 08:10:11.123
    r"(?:%a )?%b %d %ExY %k:%M:%S(?:[.]%f)?",
    // 25/11/2026 08:10:11, 25-11-26 08:10:11
    r"%d(?P<_sep>[/-])%m(?P=_sep)(?:%ExY|%Exy) %k:%M:%S",
    // 25/Nov/2026:08:10:11 +0100 (httpd), 25-Nov-2026 08:10:11.123 (named)
    r"%d(?P<_sep>[/-])%b(?P=_sep)%ExY[: ]?%H:%M:%S(?:[.]%f)?(?: %z)?",
    // 11/25/2026:08:10:11
    r"%m/%d/%ExY:%H:%M:%S",
    // 11-25-2026 08:10:11.123
    r"%m-%d-%ExY %k:%M:%S(?:[.]%f)?",
    "EPOCH",
    // 08:10:11
    r"{^LN-BEG}%H:%M:%S",
    // <11/25/26@08:10:11>
    r"^<%m/%d/%Exy@%H:%M:%S>",
    // 261125  8:10:11
    r"%Exy%Exm%Exd {1,2}%H:%M:%S",
    // Nov 25, 2026 8:10:11 AM
    r"%b %d, %ExY %I:%M:%S %p",
    // Nov-25-26 08:10:11
    r"^%b-%d-%Exy %k:%M:%S",
    // 20261125T081011.123Z
    r"%ExY%Exm%Exd(?:T| {1,2})%ExH%ExM%ExS(?:[,.]%f)?(?:\s*%z)?",
    // CET Nov 25 08:10:11
    r"(?:%Z )?(?:%a )?%b %d %k:%M:%S(?:[.]%f)?(?: %ExY)?",
    // +01:00 Nov 25 08:10:11
    r"(?:%z )?(?:%a )?%b %d %k:%M:%S(?:[.]%f)?(?: %ExY)?",
    "TAI64N",
];

/// Finds the code at the start of the text behind a `%`: its length, what it matches, and what a report calls it.
/// `None`: no code.
pub(super) fn code(behind: &str) -> Option<(usize, String, &'static str)> {
    if let Some(letter) = behind
        .strip_prefix("Ex")
        .and_then(|rest| rest.chars().next())
    {
        let exact = match letter {
            'Y' => Some((years().to_owned(), "ExYear")),
            'y' => Some((r"(?P<y>\d{2})".to_owned(), "ExYear2")),
            'm' => Some(("(?P<m>0[1-9]|1[0-2])".to_owned(), "ExMonth")),
            'd' => Some((r"(?P<d>[12]\d|0[1-9]|3[01])".to_owned(), "ExDay")),
            'H' => Some((r"(?P<H>[01]\d|2[0-3])".to_owned(), "Ex24hour")),
            'k' => Some((r" ?(?P<H>[01]?\d|2[0-3])".to_owned(), "Ex%k")),
            'l' => Some((r" ?(?P<I>1[0-2]|\d)".to_owned(), "%Exl")),
            'M' => Some((r"(?P<M>[0-5]\d)".to_owned(), "ExMinute")),
            'S' => Some((r"(?P<S>[0-5]\d|6[01])".to_owned(), "ExSecond")),
            'Z' => Some((format!("(?P<Z>{ABBREVIATION})"), "ExZone name")),
            'z' => Some((
                format!("(?P<z>(?:{ABBREVIATION})?{OFFSET}|{ABBREVIATION})"),
                "ExZone offset",
            )),
            _ => None,
        };
        if let Some((text, name)) = exact {
            return Some((3, text, name));
        }
    }
    let (text, name): (String, _) = match behind.chars().next()? {
        '%' => ("%".into(), "%"),
        'a' => (DAY.into(), "DAY"),
        'A' => ("(?P<A>wednesday|thursday|saturday|tuesday|monday|friday|sunday)".into(), "DAYNAME"),
        'b' => (MONTH.into(), "MON"),
        'B' => (
            "(?P<B>september|february|november|december|january|october|august|march|april|june|july|may)"
                .into(),
            "MONTH",
        ),
        'd' => (r"(?P<d>[12]\d|[0 ]?[1-9]|3[01])".into(), "Day"),
        'f' => (r"(?P<f>[0-9]{1,6})".into(), "Microseconds"),
        'G' => (r"(?P<G>\d{4})".into(), "%G"),
        'H' => (r"(?P<H>[01]?\d|2[0-3])".into(), "24hour"),
        'I' => ("(?P<I>1[0-2]|0?[1-9])".into(), "12hour"),
        'j' => (
            r"(?P<j>36[0-6]|3[0-5]\d|[12]\d\d|0[1-9]\d|00[1-9]|[1-9]\d|0?[1-9])".into(),
            "Yearday",
        ),
        'k' => (r" ?(?P<H>[0-2]?\d)".into(), "%k"),
        'l' => (r" ?(?P<I>1?\d)".into(), "%l"),
        'm' => ("(?P<m>0?[1-9]|1[0-2])".into(), "Month"),
        'M' => (r"(?P<M>[0-5]?\d)".into(), "Minute"),
        'p' => ("(?P<p>[ap]m)".into(), "AMPM"),
        'S' => (r"(?P<S>[0-5]?\d|6[01])".into(), "Second"),
        'u' => ("(?P<u>[1-7])".into(), "%u"),
        'U' => (r"(?P<U>5[0-3]|[0-4]?\d)".into(), "Yearweek"),
        'V' => (r"(?P<V>5[0-3]|0[1-9]|[1-4]\d|\d)".into(), "%V"),
        'w' => ("(?P<w>[0-6])".into(), "Weekday"),
        'W' => (r"(?P<W>5[0-3]|[0-4]?\d)".into(), "Yearweek"),
        'y' => (r"(?P<y>\d{2})".into(), "Year2"),
        'Y' => (r"(?P<Y>\d{4})".into(), "Year"),
        'z' => (format!("(?P<z>Z|UTC|GMT|{OFFSET})"), "Zone offset"),
        'Z' => ("(?P<Z>Z|[A-Z]{3,5})".into(), "Zone name"),
        // Date and time as the C locale writes them; these take the longest number first.
        'c' => (
            format!(
                r"{DAY}\s+{MONTH}\s+(?P<d>3[01]|[12]\d|[0 ]?[1-9])\s+(?P<H>2[0-3]|[01]?\d):(?P<M>[0-5]?\d):(?P<S>6[01]|[0-5]?\d)\s+(?P<Y>\d{{4}})"
            ),
            "%c",
        ),
        'x' => (r"(?P<m>1[0-2]|0?[1-9])/(?P<d>3[01]|[12]\d|[0 ]?[1-9])/(?P<y>\d{2})".into(), "%x"),
        'X' => (r"(?P<H>2[0-3]|[01]?\d):(?P<M>[0-5]?\d):(?P<S>6[01]|[0-5]?\d)".into(), "%X"),
        _ => return None,
    };
    Some((1, text, name))
}

/// The years that `%ExY` takes: from 2000 up to this decade, or the next one when it begins within three years. By the
/// real clock at the first use, whatever clock a run is given.
fn years() -> &'static str {
    static YEARS: OnceLock<String> = OnceLock::new();
    YEARS.get_or_init(|| years_at(Local::now().year()))
}

fn years_at(year: i32) -> String {
    // Every third year from 2000 to this one, the year before it and the one three years on.
    let mut decades: Vec<_> = (2000..=year)
        .step_by(3)
        .chain([year - 1, year + 3])
        .map(|y| y.div_euclid(10))
        .collect();
    decades.sort_unstable();
    decades.dedup();
    if decades.iter().all(|decade| (200..210).contains(decade)) {
        let digits: String = decades
            .iter()
            .map(|decade| (decade - 200).to_string())
            .collect();
        return format!(r"(?P<Y>20[{digits}]\d)");
    }
    let all: Vec<_> = decades.iter().map(ToString::to_string).collect();
    format!(r"(?P<Y>(?:{})\d)", all.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_decade_is_taken_when_it_is_three_years_away() {
        assert_eq!(years_at(2026), r"(?P<Y>20[012]\d)");
        assert_eq!(years_at(2027), r"(?P<Y>20[0123]\d)");
        assert_eq!(years_at(2030), r"(?P<Y>20[0123]\d)");
    }
}
