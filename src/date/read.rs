//! From the pieces of a date to its time.

use std::ops::Range;

use super::zone::{self, LocalZone, Unknown};
use crate::pattern::ast::digit;

const DAY: i64 = 86_400;

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const DAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];

/// What a named group says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Year2,
    Year,
    Month,
    MonthName,
    MonthShort,
    Day,
    Hour,
    Hour12,
    Minute,
    Second,
    DayName,
    DayShort,
    Weekday,
    Yearday,
    WeekFromSunday,
    WeekFromMonday,
    Zone,
}

/// The groups of a pattern that a time is made of, in their order.
#[derive(Debug)]
pub(super) struct Fields {
    fields: Vec<(Field, u32)>,
    half: Option<u32>,
}

/// Why a date is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// 30 February, second 60, a name that is none: the line goes on without a date.
    Impossible,
    /// fail2ban gives the line up.
    Stumble,
}

use Fault::{Impossible, Stumble};

/// What a time depends on beside its text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Seconds since the epoch.
    pub(super) now: i64,
    /// logtimezone, seconds east of UTC.
    pub(super) zone: Option<i64>,
}

/// A time that was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Time {
    pub(super) epoch: f64,
    /// Whether a part of it was taken from the clock.
    pub(super) by_clock: bool,
}

impl Fields {
    pub(super) fn new(names: &[(Box<str>, u32)]) -> Self {
        let mut half = None;
        let fields = names.iter().filter_map(|(name, group)| {
            let field = match &**name {
                "y" => Field::Year2,
                "Y" => Field::Year,
                "m" => Field::Month,
                "B" => Field::MonthName,
                "b" => Field::MonthShort,
                "d" => Field::Day,
                "H" => Field::Hour,
                "I" => Field::Hour12,
                "M" => Field::Minute,
                "S" => Field::Second,
                "A" => Field::DayName,
                "a" => Field::DayShort,
                "w" => Field::Weekday,
                "j" => Field::Yearday,
                "U" => Field::WeekFromSunday,
                "W" => Field::WeekFromMonday,
                "z" | "Z" => Field::Zone,
                "p" => {
                    half = Some(*group);
                    return None;
                }
                _ => return None,
            };
            Some((field, *group))
        });
        Fields {
            fields: fields.collect(),
            half,
        }
    }

    /// Reads the groups.
    pub(super) fn read<'t>(
        &self,
        group: impl Fn(u32) -> Option<&'t str>,
        clock: Clock,
        local: &mut LocalZone,
    ) -> Result<Time, Fault> {
        let (mut year, mut month, mut day) = (None, None, None);
        let (mut hour, mut minute, mut second) = (0, 0, 0);
        let (mut weekday, mut yearday, mut week, mut offset) = (None, None, None, None);
        for &(field, index) in &self.fields {
            let Some(text) = group(index) else { continue };
            match field {
                Field::Year2 => {
                    let short = number(text)?;
                    year = Some(if short <= 2000 { short + 2000 } else { short });
                }
                Field::Year => year = Some(number(text)?),
                Field::Month => month = Some(number(text)?),
                Field::MonthName => month = Some(name(&MONTHS, text, None)? + 1),
                Field::MonthShort => month = Some(name(&MONTHS, text, Some(3))? + 1),
                Field::Day => day = Some(number(text)?),
                Field::Hour => hour = number(text)?,
                Field::Hour12 => {
                    hour = number(text)?;
                    let half = match self.half {
                        // A group that is there but took no part makes fail2ban stumble.
                        Some(group_p) => group(group_p).ok_or(Stumble)?,
                        None => "",
                    };
                    if half.is_empty() || half.eq_ignore_ascii_case("am") {
                        hour = if hour == 12 { 0 } else { hour };
                    } else if half.eq_ignore_ascii_case("pm") && hour != 12 {
                        hour += 12;
                    }
                }
                Field::Minute => minute = number(text)?,
                Field::Second => second = number(text)?,
                Field::DayName => weekday = Some(name(&DAYS, text, None)?),
                Field::DayShort => weekday = Some(name(&DAYS, text, Some(3))?),
                Field::Weekday => {
                    let from_sunday = number(text)?;
                    weekday = Some(if from_sunday < 1 { 6 } else { from_sunday - 1 });
                }
                Field::Yearday => yearday = Some(number(text)?),
                Field::WeekFromSunday => week = Some((number(text)?, 6)),
                Field::WeekFromMonday => week = Some((number(text)?, 0)),
                Field::Zone => {
                    offset = Some(match text {
                        "Z" | "UTC" | "GMT" => 0,
                        other => zone::offset(other).map_err(|unknown| match unknown {
                            Unknown::Form => Impossible,
                            Unknown::Name => Stumble,
                        })?,
                    });
                }
            }
        }

        // Beyond 32 bits Python's datetime raises another error than for the 32nd of a month.
        let whole = |value: i64| i32::try_from(value).map(|_| ()).map_err(|_| Stumble);
        for value in [year, yearday].into_iter().flatten() {
            whole(value)?;
        }
        let local_now = |local: &mut LocalZone| clock.now + local.offset(clock.now);
        let this_year = year.is_none();
        let mut year = match year {
            Some(year) => year,
            None => civil(local_now(local).div_euclid(DAY)).0,
        };
        if month.is_none() || day.is_none() {
            if let (None, Some((week, starts)), Some(weekday)) = (yearday, week, weekday) {
                yearday = Some(day_of_week(year, week, weekday, starts)?);
            }
            if let Some(yearday) = yearday {
                let (y, m, d) = civil(days(year, 1, 1).ok_or(Impossible)? + yearday - 1);
                if !(1..=9999).contains(&y) {
                    return Err(Impossible);
                }
                (year, month, day) = (y, Some(m), Some(d));
            }
        }
        let today = month.is_none() && day.is_none();
        if today {
            let (_, m, d) = civil(local_now(local).div_euclid(DAY));
            (month, day) = (Some(m), Some(d));
        }
        // One of the two alone is a programming error in fail2ban.
        let (Some(month), Some(day)) = (month, day) else {
            return Err(Stumble);
        };

        for value in [month, day, hour, minute, second] {
            whole(value)?;
        }
        let in_range =
            (0..24).contains(&hour) && (0..60).contains(&minute) && (0..60).contains(&second);
        let first = days(year, month, day)
            .filter(|_| in_range)
            .ok_or(Impossible)?;
        let mut date = first * DAY + hour * 3600 + minute * 60 + second;
        let offset = offset.or(clock.zone);
        if let Some(offset) = offset {
            date -= offset;
            if !(1..=9999).contains(&civil(date.div_euclid(DAY)).0) {
                return Err(Stumble);
            }
        }
        if today && date > local_now(local) {
            date -= DAY;
        }
        if this_year && date > local_now(local) + DAY {
            let first = days(year - 1, month, day).ok_or(Impossible)?;
            date = first * DAY + date.rem_euclid(DAY);
        }
        let epoch = match offset {
            Some(_) => date,
            None => local.epoch_of(date),
        };
        Ok(Time {
            epoch: float(epoch),
            by_clock: this_year || today,
        })
    }
}

/// The number of an epoch's digits.
pub(super) fn epoch(text: &str, long: bool) -> Result<f64, Fault> {
    let ascii: String = if text.is_ascii() {
        text.to_owned()
    } else {
        text.chars()
            .map(|c| digit(c).and_then(|d| char::from_digit(d, 10)).unwrap_or(c))
            .collect()
    };
    let value: f64 = ascii.trim().parse().map_err(|_| Impossible)?;
    let length = text.chars().count();
    Ok(match length {
        16.. if long && !text.contains('.') => value / 1_000_000.0,
        13.. if long => value / 1000.0,
        _ => value,
    })
}

/// Seconds of a TAI64N label, as if TAI had no leap seconds.
pub(super) fn tai64n(label: &str) -> Result<f64, Fault> {
    let seconds = label.get(2..17).ok_or(Impossible)?;
    i64::from_str_radix(seconds, 16)
        .map(float)
        .map_err(|_| Impossible)
}

/// Seconds fit into 53 bits for the next million years.
#[allow(
    clippy::cast_precision_loss,
    reason = "whole seconds of dates up to the year 9999 are exact"
)]
fn float(seconds: i64) -> f64 {
    seconds as f64
}

/// Python's `int()`: blanks around, a sign, digits of any script, single underscores between.
fn number(text: &str) -> Result<i64, Fault> {
    if let [a @ b'0'..=b'9'] = text.as_bytes() {
        return Ok(i64::from(a - b'0'));
    }
    if let [a @ b'0'..=b'9', b @ b'0'..=b'9'] = text.as_bytes() {
        return Ok(i64::from(a - b'0') * 10 + i64::from(b - b'0'));
    }
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut value = 0i64;
    let mut between = false;
    for c in digits.chars() {
        if c == '_' && between {
            between = false;
            continue;
        }
        let digit = digit(c).ok_or(Impossible)?;
        // Beyond any date, and then only larger.
        value = (value * 10 + i64::from(digit)).min(1_000_000_000_000);
        between = true;
    }
    if between {
        Ok(sign * value)
    } else {
        Err(Impossible)
    }
}

fn name(names: &[&str], text: &str, letters: Option<usize>) -> Result<i64, Fault> {
    let found = names.iter().position(|name| {
        name.get(..letters.unwrap_or(name.len()))
            .is_some_and(|n| n.eq_ignore_ascii_case(text))
    });
    found
        .and_then(|at| i64::try_from(at).ok())
        .ok_or(Impossible)
}

/// Days since 1970-01-01; `None`: no such day, or not in the years 1 to 9999.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=9999).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    // Years from March on, so that the leap day is the last.
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// Year, month and day of a day since 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// The day of the year, from 1, of a weekday (from Monday, 0) in a week; weeks begin on Monday (0) or Sunday (6), and those
/// before the first full one are week 0.
fn day_of_week(year: i64, week: i64, weekday: i64, starts: i64) -> Result<i64, Fault> {
    // 1970-01-01 was a Thursday.
    let first = (days(year, 1, 1).ok_or(Impossible)? + 3).rem_euclid(7);
    let shift = i64::from(starts == 6);
    let (first, weekday) = ((first + shift) % 7, (weekday + shift) % 7);
    Ok(if week == 0 {
        1 + weekday - first
    } else {
        1 + (7 - first) % 7 + 7 * (week - 1) + weekday
    })
}

/// The text of a range of a line.
pub(super) fn piece(line: &str, range: Option<Range<usize>>) -> Option<&str> {
    line.get(range?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_each_others_inverse() {
        for day in (-719_162..2_932_896).step_by(17) {
            let (y, m, d) = civil(day);
            assert_eq!(days(y, m, d), Some(day));
        }
        assert_eq!(days(2023, 2, 29), None);
        assert_eq!(days(2024, 2, 29), Some(19_782));
        assert_eq!(civil(0), (1970, 1, 1));
    }

    #[test]
    fn numbers_are_read_as_python_reads_them() {
        assert_eq!(number(" 7"), Ok(7));
        assert_eq!(number("1_2"), Ok(12));
        assert_eq!(number("٣"), Ok(3));
        assert_eq!(number("1__2"), Err(Impossible));
        assert_eq!(number("x"), Err(Impossible));
        assert_eq!(number(""), Err(Impossible));
    }
}
