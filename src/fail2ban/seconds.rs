//! Durations and other numbers that may be written as arithmetic: `1d12h`, `1h 30m`, `2*7d`.

use super::ini::{blank, shown};

/// A quarter of the days of four years.
const YEAR: f64 = 365.25 * 86_400.0;

/// Brackets within brackets.
const MAX_DEPTH: u8 = 32;

/// Units and their seconds. `m` is a minute, `mo` a month.
const UNITS: &[(&[&str], f64)] = &[
    (&["s", "ss", "se", "sec", "second", "seconds"], 1.0),
    (&["m", "mm", "mi", "min", "minute", "minutes"], 60.0),
    (&["h", "hh", "ho", "hou", "hour", "hours"], 3600.0),
    (&["d", "dd", "da", "day", "days"], 86_400.0),
    (&["w", "ww", "we", "wee", "week", "weeks"], 604_800.0),
    (&["mo", "mon", "month", "months"], YEAR / 12.0),
    (&["y", "yy", "ye", "yea", "year", "years"], YEAR),
];

/// Reads a duration.
///
/// # Errors
/// What is wrong; what to write.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let mut reader = Reader {
        rest: text,
        depth: 0,
    };
    let value = reader
        .sum()
        .filter(|value| reader.skip().is_empty() && value.is_finite());
    value.ok_or_else(|| {
        let text = text.trim_matches(blank);
        if text.is_empty() {
            return "no value; write 10m, 600 or 1h".to_owned();
        }
        format!(
            "\"{}\" is no duration; write 10m, 600 or 1d 12h",
            shown(text)
        )
    })
}

/// Sums of products, as Python evaluates them.
struct Reader<'a> {
    rest: &'a str,
    depth: u8,
}

impl<'a> Reader<'a> {
    /// What is left, blanks and a comment skipped.
    fn skip(&mut self) -> &'a str {
        self.rest = self.rest.trim_start_matches(blank);
        if self.rest.starts_with('#') {
            self.rest = "";
        }
        self.rest
    }

    fn take(&mut self, sign: &str) -> bool {
        let taken = self.skip().strip_prefix(sign);
        self.rest = taken.unwrap_or(self.rest);
        taken.is_some()
    }

    /// Terms with `+`, `-` or nothing between them.
    fn sum(&mut self) -> Option<f64> {
        let mut sum = self.product()?;
        loop {
            if self.take("+") {
                sum += self.product()?;
            } else if self.take("-") {
                sum -= self.product()?;
            } else if self.skip().starts_with(|c: char| c.is_ascii_digit()) {
                sum += self.product()?;
            } else {
                return Some(sum);
            }
        }
    }

    fn product(&mut self) -> Option<f64> {
        let mut product = self.value()?;
        loop {
            if self.take("//") {
                product = (product / self.value()?).floor();
            } else if self.take("/") {
                product /= self.value()?;
            } else if !self.skip().starts_with("**") && self.take("*") {
                product *= self.value()?;
            } else {
                return Some(product);
            }
        }
    }

    /// A number with its unit, or something in brackets.
    fn value(&mut self) -> Option<f64> {
        self.depth = self
            .depth
            .checked_add(1)
            .filter(|depth| *depth <= MAX_DEPTH)?;
        let value = if self.take("-") {
            self.value().map(|v| -v)
        } else if self.take("+") {
            self.value()
        } else if self.take("(") {
            self.sum().filter(|_| self.take(")"))
        } else {
            self.number()
        };
        self.depth -= 1;
        value
    }

    fn number(&mut self) -> Option<f64> {
        let text = self.skip();
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (digits, behind) = text.split_at_checked(end)?;
        let number: f64 = digits.parse().ok()?;
        self.rest = behind;
        let unit = self.skip();
        let end = unit
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(unit.len());
        let (unit, behind) = unit.split_at_checked(end)?;
        if unit.is_empty() {
            return Some(number);
        }
        let unit = unit.to_ascii_lowercase();
        let (_, seconds) = UNITS
            .iter()
            .find(|(names, _)| names.contains(&unit.as_str()))?;
        self.rest = behind;
        Some(number * seconds)
    }
}

/// Reads a whole number as Python does: a sign, and `_` between digits.
///
/// # Errors
/// What is wrong; what to write.
pub(crate) fn whole(text: &str) -> Result<i64, String> {
    let text = text.trim_matches(blank);
    let bare = text.trim_start_matches(['+', '-']);
    let tidy =
        !bare.is_empty() && !bare.starts_with('_') && !bare.ends_with('_') && !bare.contains("__");
    let number = text.replace('_', "").parse().ok().filter(|_| tidy);
    number.ok_or_else(|| {
        let digits = text.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        let rest = text.get(digits.len()..).unwrap_or_default().trim_start_matches(blank);
        if !digits.is_empty() && rest.starts_with('#') {
            return format!("\"{}\": behind a value # begins no remark; write {digits}, and the remark in a line of its own", shown(text));
        }
        format!("\"{}\" is no whole number; write digits only", shown(text))
    })
}

/// fail2ban's words for true; everything else is false to it. `None`: a word that is neither.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "1" | "on" | "true" | "yes" => Some(true),
        "" | "0" | "off" | "false" | "no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_arithmetic() {
        for (text, value) in [
            ("600", 600.0),
            ("10m", 600.0),
            ("1d12h30m", 131_400.0),
            ("1y 6mo", 47_336_400.0),
            ("1hour+30min", 5400.0),
            ("1year-6mo", 15_778_800.0),
            ("1.5H", 5400.0),
            ("-1", -1.0),
            ("2*7d", 1_209_600.0),
            ("(1h 30m)/2", 2700.0),
            ("3600 # an hour", 3600.0),
            ("1 week\n1 day", 691_200.0),
            ("2.0 / 4", 0.5),
        ] {
            assert_eq!(seconds(text), Ok(value), "{text}");
        }
        for text in ["", "10 minuts", "m", "1/0", "2**9", "1h)", "ten", "((1)"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_pythons() {
        assert_eq!(whole(" 1_000\n"), Ok(1000));
        assert_eq!(whole("-3"), Ok(-3));
        assert!(whole("6 # six").unwrap_err().contains("write 6,"));
        for text in ["", "5m", "1__0", "_1", "5.0"] {
            assert!(whole(text).is_err(), "{text}");
        }
    }
}
