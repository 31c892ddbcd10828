//! The shape of a logged time (checked on every line), and its value (only `replay` asks for it).

use std::cell::Cell;

use chrono::{DateTime, FixedOffset, Local, NaiveDate, TimeZone};

/// What one byte of a time may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Digit,
    /// `%e`: a digit or a blank.
    DigitOrBlank,
    Letter,
    Sign,
    /// Exactly this byte.
    Byte(u8),
}

/// What a run of bytes says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Year,
    ShortYear,
    Month,
    MonthName,
    Day,
    Hour,
    Minute,
    Second,
    /// Epoch in units of this many microseconds.
    Epoch(u64),
    /// A fraction of a second in units of this many microseconds.
    Fraction(u32),
    Offset,
    /// Nothing that a value needs (`%a`, `%j`).
    Other,
}

/// Longest time that is remembered, bytes.
const LAST_BYTES: usize = 32;

/// A time whose bytes can be checked one by one: every strftime code in it has a fixed width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeShape {
    /// The last text that fitted: many lines have the same second.
    last: Cell<([u8; LAST_BYTES], usize)>,
    classes: Vec<Class>,
    parts: Vec<(Part, std::ops::Range<usize>)>,
    /// An epoch count has no fixed width: this many digits at least.
    pub digits_only: bool,
}

impl TimeShape {
    /// httpd's `%t`: `[22/Nov/2026:20:02:28 +0000]`.
    #[must_use]
    pub fn common() -> Self {
        Self::compile("[%d/%b/%Y:%H:%M:%S %z]").unwrap_or_else(|| Self::number(1_000_000))
    }

    /// `%{sec}t`, `%{msec}t`, `%{usec}t`: a count since the epoch in units of `micros` microseconds.
    #[must_use]
    pub fn number(micros: u64) -> Self {
        Self {
            last: Cell::default(),
            classes: Vec::new(),
            parts: vec![(Part::Epoch(micros), 0..0)],
            digits_only: true,
        }
    }

    /// `%{msec_frac}t`, `%{usec_frac}t`: `digits` digits of a fraction.
    #[must_use]
    pub fn fraction(digits: usize) -> Self {
        let unit = if digits == 3 { 1000 } else { 1 };
        Self {
            last: Cell::default(),
            classes: vec![Class::Digit; digits],
            parts: vec![(Part::Fraction(unit), 0..digits)],
            digits_only: false,
        }
    }

    /// A strftime string; `None` if a code in it has no fixed width (`%A`, `%c`): then it can only be taken as text.
    #[must_use]
    pub fn compile(strftime: &str) -> Option<Self> {
        use Class::{Byte, Digit, DigitOrBlank, Letter, Sign};
        let mut shape = Self {
            last: Cell::default(),
            classes: Vec::new(),
            parts: Vec::new(),
            digits_only: false,
        };
        let mut add = |part: Part, classes: &[Class]| {
            let from = shape.classes.len();
            shape.classes.extend_from_slice(classes);
            shape.parts.push((part, from..shape.classes.len()));
        };
        let colon = Byte(b':');
        let mut bytes = strftime.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'%' {
                add(Part::Other, &[Byte(byte)]);
                continue;
            }
            match bytes.next()? {
                b'Y' => add(Part::Year, &[Digit; 4]),
                b'y' => add(Part::ShortYear, &[Digit; 2]),
                b'm' => add(Part::Month, &[Digit; 2]),
                b'b' | b'h' => add(Part::MonthName, &[Letter; 3]),
                b'd' => add(Part::Day, &[Digit; 2]),
                b'e' => add(Part::Day, &[DigitOrBlank, Digit]),
                b'H' => add(Part::Hour, &[Digit; 2]),
                b'M' => add(Part::Minute, &[Digit; 2]),
                b'S' => add(Part::Second, &[Digit; 2]),
                b'z' => add(Part::Offset, &[Sign, Digit, Digit, Digit, Digit]),
                b'a' => add(Part::Other, &[Letter; 3]),
                b'j' => add(Part::Other, &[Digit; 3]),
                b'F' => {
                    add(Part::Year, &[Digit; 4]);
                    add(Part::Other, &[Byte(b'-')]);
                    add(Part::Month, &[Digit; 2]);
                    add(Part::Other, &[Byte(b'-')]);
                    add(Part::Day, &[Digit; 2]);
                }
                b'T' => {
                    add(Part::Hour, &[Digit; 2]);
                    add(Part::Other, &[colon]);
                    add(Part::Minute, &[Digit; 2]);
                    add(Part::Other, &[colon]);
                    add(Part::Second, &[Digit; 2]);
                }
                b'D' => {
                    add(Part::Month, &[Digit; 2]);
                    add(Part::Other, &[Byte(b'/')]);
                    add(Part::Day, &[Digit; 2]);
                    add(Part::Other, &[Byte(b'/')]);
                    add(Part::ShortYear, &[Digit; 2]);
                }
                b'R' => {
                    add(Part::Hour, &[Digit; 2]);
                    add(Part::Other, &[colon]);
                    add(Part::Minute, &[Digit; 2]);
                }
                b'%' => add(Part::Other, &[Byte(b'%')]),
                _ => return None,
            }
        }
        (!shape.classes.is_empty()).then_some(shape)
    }

    /// Bytes a time of this shape takes; of a count, as many digits as stand there at the beginning (`from_end`: at the end).
    pub(crate) fn width(&self, text: &[u8], from_end: bool) -> usize {
        if !self.digits_only {
            return self.classes.len();
        }
        let digit = |b: &&u8| b.is_ascii_digit();
        if from_end {
            text.iter().rev().take_while(digit).count()
        } else {
            text.iter().take_while(digit).count()
        }
    }

    /// Is `text`, exactly, a time of this shape?
    #[must_use]
    pub fn fits(&self, text: &[u8]) -> bool {
        if self.digits_only {
            return !text.is_empty() && text.len() <= 20 && text.iter().all(u8::is_ascii_digit);
        }
        let (last, len) = self.last.get();
        if len > 0 && last.get(..len) == Some(text) {
            return true;
        }
        // No early exit: a fixed run without branches is faster than a stop that never comes.
        let mut good = text.len() == self.classes.len();
        for (&byte, &class) in text.iter().zip(&self.classes) {
            good &= match class {
                Class::Digit => byte.is_ascii_digit(),
                Class::DigitOrBlank => byte == b' ' || byte.is_ascii_digit(),
                Class::Letter => byte.is_ascii_alphabetic(),
                Class::Sign => byte == b'+' || byte == b'-',
                Class::Byte(want) => byte == want,
            };
        }
        let mut last = [0; LAST_BYTES];
        if let (true, Some(place)) = (good, last.get_mut(..text.len())) {
            place.copy_from_slice(text);
            self.last.set((last, text.len()));
        }
        good
    }

    /// What the time says, added to what earlier times of the same line said (a format may split date and fraction).
    pub fn value(&self, text: &[u8], moment: &mut Moment) {
        for (part, range) in &self.parts {
            let piece = if self.digits_only {
                text
            } else {
                text.get(range.clone()).unwrap_or_default()
            };
            moment.take(*part, piece);
        }
    }
}

/// A logged moment, put together from the times of one line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    epoch_micros: Option<i64>,
    date: (i32, u32, u32),
    clock: (u32, u32, u32),
    micros: i64,
    offset_secs: Option<i32>,
}

impl Moment {
    fn take(&mut self, part: Part, piece: &[u8]) {
        let number = piece
            .iter()
            .filter(|b| b.is_ascii_digit())
            .try_fold(0i64, |n, b| {
                n.checked_mul(10)?.checked_add(i64::from(b - b'0'))
            });
        let Some(number) = number else { return };
        let small = u32::try_from(number).unwrap_or(u32::MAX);
        match part {
            Part::Year => self.date.0 = i32::try_from(number).unwrap_or(0),
            // POSIX: 69 to 99 are 1969 to 1999.
            Part::ShortYear => {
                self.date.0 =
                    i32::try_from(number).unwrap_or(0) + if number < 69 { 2000 } else { 1900 }
            }
            Part::Month => self.date.1 = small,
            Part::MonthName => {
                const NAMES: &[u8] = b"janfebmaraprmayjunjulaugsepoctnovdec";
                let name = piece.to_ascii_lowercase();
                self.date.1 = NAMES
                    .chunks(3)
                    .zip(1..)
                    .find(|(n, _)| *n == name)
                    .map_or(0, |(_, month)| month);
            }
            Part::Day => self.date.2 = small,
            Part::Hour => self.clock.0 = small,
            Part::Minute => self.clock.1 = small,
            Part::Second => self.clock.2 = small,
            Part::Epoch(micros) => {
                self.epoch_micros = i64::try_from(micros)
                    .ok()
                    .and_then(|unit| number.checked_mul(unit));
            }
            Part::Fraction(micros) => self.micros = number.saturating_mul(i64::from(micros)),
            Part::Offset => {
                let (hours, minutes) = (small / 100, small % 100);
                let secs = i32::try_from(hours * 3600 + minutes * 60).unwrap_or(0);
                self.offset_secs = Some(if piece.first() == Some(&b'-') {
                    -secs
                } else {
                    secs
                });
            }
            Part::Other => {}
        }
    }

    /// Microseconds since the epoch; a time without a zone is local. `None`: no such day or hour.
    #[must_use]
    pub fn epoch_micros(&self) -> Option<i64> {
        if let Some(epoch) = self.epoch_micros {
            return Some(epoch.saturating_add(if self.date.0 == 0 { self.micros } else { 0 }));
        }
        let (year, month, day) = self.date;
        let (hour, minute, second) = self.clock;
        // 23:59:60 is a leap second: the last moment of the minute.
        let naive =
            NaiveDate::from_ymd_opt(year, month, day)?.and_hms_opt(hour, minute, second.min(59))?;
        let epoch = match self.offset_secs {
            Some(offset) => FixedOffset::east_opt(offset)?
                .from_local_datetime(&naive)
                .single()?
                .timestamp(),
            // In the repeated hour of autumn the earlier one; the hour that spring leaves out does not exist.
            None => Local
                .from_local_datetime(&naive)
                .earliest()
                .map(|t: DateTime<Local>| t.timestamp())?,
        };
        epoch.checked_mul(1_000_000)?.checked_add(self.micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(shape: &TimeShape, text: &str) -> Option<i64> {
        assert!(shape.fits(text.as_bytes()), "{text}");
        let mut moment = Moment::default();
        shape.value(text.as_bytes(), &mut moment);
        moment.epoch_micros()
    }

    #[test]
    fn common_time_has_its_value() {
        let common = TimeShape::common();
        assert_eq!(
            epoch(&common, "[22/Nov/2026:20:02:28 +0000]"),
            Some(1_795_377_748_000_000)
        );
        assert_eq!(
            epoch(&common, "[22/Nov/2026:20:02:28 +0130]"),
            Some(1_795_377_748_000_000 - 5_400_000_000)
        );
        assert_eq!(epoch(&common, "[31/Feb/2026:20:02:28 +0000]"), None);
    }

    #[test]
    fn a_shape_is_strict() {
        let common = TimeShape::common();
        for bad in [
            "",
            "[22/Nov/2026:20:02:28 +0000",
            "[22/Nov/2026:20:02:28 +00000]",
            "[22/11./2026:20:02:28 +0000]",
            "[2x/Nov/2026:20:02:28 +0000]",
            "[22/Nov/2026 20:02:28 +0000]",
        ] {
            assert!(!common.fits(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn counts_fractions_and_own_formats() {
        assert_eq!(
            epoch(&TimeShape::number(1), "1795377748000001"),
            Some(1_795_377_748_000_001)
        );
        assert_eq!(
            epoch(&TimeShape::number(1000), "1795377748001"),
            Some(1_795_377_748_001_000)
        );
        let own = TimeShape::compile("%Y/%m/%d:%H:%M:%S %z").unwrap();
        assert_eq!(
            epoch(&own, "2026/11/22:20:02:28 +0000"),
            Some(1_795_377_748_000_000)
        );
        assert_eq!(TimeShape::compile("%A"), None);
    }
}
