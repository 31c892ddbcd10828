//! Has a source of lines gone quiet? Judged by its own past. Pure: the clock is an argument, seconds since the epoch.
//!
//! What is ordinary differs by five orders of magnitude: a busy site has a line each millisecond, a small one none from
//! midnight to six, an office's none from Friday to Monday. So nothing is told of a source that has not been known for a
//! day, with its night; and then only of a silence several times as long as the longest of the last two weeks.

use serde::{Deserialize, Serialize};

/// Shorter silences are never told, seconds: a reboot of a router, a slow deployment.
pub const FLOOR_SECS: f64 = 600.0;
/// Known for less: nobody knows its nights.
const YOUNG_SECS: f64 = 86_400.0;
/// Known for less: nobody knows its weekends. Office hours leave gaps of 14 hours in a week and of 62 at its end, so the
/// longest so far may grow by that much.
const WEEK_SECS: f64 = 8.0 * 86_400.0;
const YOUNG_FACTOR: f64 = 10.0;
/// Later: a holiday of three days behind a weekend is not four times as long as that.
const FACTOR: f64 = 4.0;
/// Fewer lines are no past.
const LINES: u64 = 100;
/// Days that are remembered: two weekends.
const DAYS: usize = 14;
/// Nobody looked for this long (the machine slept, the process was away): that is no silence of the source, seconds.
const AWAY_SECS: f64 = 60.0;

/// A source that nobody looked at for so long is gone, seconds: [`DAYS`].
const FORGOTTEN_SECS: f64 = 14.0 * 86_400.0;

/// What is known of a source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Past {
    /// When it was seen first.
    first: f64,
    /// When its last line came.
    last: f64,
    /// When it was looked at last.
    looked: f64,
    /// Lines so far.
    lines: u64,
    /// By day, oldest first: the longest time between two lines that ended on it, seconds.
    days: Vec<(u64, f64)>,
}

/// A silence that is not ordinary, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quiet {
    /// How long it has lasted.
    pub silent: f64,
    /// The longest one before.
    pub longest: f64,
    /// How long the source had been known then.
    pub known: f64,
}

impl Past {
    /// Nobody has looked at it for so long that what is known of it is of no use.
    #[must_use]
    pub fn is_forgotten(&self, now: f64) -> bool {
        now - self.looked > FORGOTTEN_SECS
    }

    /// Looks at the source: `lines` came since the last look. Some: it has gone quiet.
    pub fn look(&mut self, lines: u64, now: f64, floor: f64) -> Option<Quiet> {
        if self.first == 0.0 {
            (self.first, self.last, self.looked) = (now, now, now);
        }
        let since = now - self.looked;
        if !(0.0..=AWAY_SECS).contains(&since) {
            self.first += since;
            self.last += since;
        }
        self.looked = now;
        if lines > 0 {
            // Not the time before its first line.
            if self.lines > 0 {
                self.gap(now, now - self.last);
            }
            self.last = now;
            self.lines = self.lines.saturating_add(lines);
            return None;
        }
        let longest = self.days.iter().map(|(_, gap)| *gap).fold(0.0, f64::max);
        // Up to its last line: a day of lines holds a night, whenever it began.
        let (silent, known) = (now - self.last, self.last - self.first);
        let factor = match known < WEEK_SECS {
            true => YOUNG_FACTOR,
            false => FACTOR,
        };
        let long = silent > floor.max(longest * factor);
        (long && known >= YOUNG_SECS && self.lines >= LINES).then_some(Quiet {
            silent,
            longest,
            known,
        })
    }

    fn gap(&mut self, now: f64, gap: f64) {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "days since the epoch; a cast of a float saturates"
        )]
        let today = (now / 86_400.0) as u64;
        match self.days.last_mut() {
            Some((day, longest)) if *day == today => *longest = longest.max(gap),
            _ => {
                self.days.push((today, gap));
                let many = self.days.len().saturating_sub(DAYS);
                self.days.drain(..many);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: f64 = 3600.0;
    const DAY: f64 = 24.0 * HOUR;

    /// A source with a line every `pause` seconds at the hours that `busy` says, from day 3 (a Sunday) on; the hours into
    /// which a word about its silence fell.
    fn told(days: u32, pause: f64, busy: impl Fn(u32, u32) -> bool) -> Vec<(u32, u32)> {
        let (mut past, mut told) = (Past::default(), Vec::new());
        let start = 3.0 * DAY;
        let (mut now, mut next) = (start, start);
        while now < start + f64::from(days) * DAY {
            let day = ((now - start) / DAY) as u32;
            let hour = ((now % DAY) / HOUR) as u32;
            let mut lines = 0;
            if busy(day, hour) && now >= next {
                lines = 1;
                next = now + pause;
            }
            if past.look(lines, now, FLOOR_SECS).is_some() && told.last() != Some(&(day, hour)) {
                told.push((day, hour));
            }
            now += 30.0;
        }
        told
    }

    #[test]
    fn a_small_server_s_nights_are_ordinary() {
        let told = told(30, 240.0, |_, hour| (6..23).contains(&hour));
        assert_eq!(told, []);
    }

    #[test]
    fn an_office_s_first_weekend_is_ordinary() {
        // Begun on a Monday, so that the weekend comes when little is known.
        let told = told(40, 60.0, |day, hour| day % 7 < 5 && (8..18).contains(&hour));
        assert_eq!(told, []);
    }

    #[test]
    fn a_visitor_a_day_is_ordinary() {
        assert_eq!(told(40, 20.0, |day, hour| hour == (day * 7) % 24), []);
    }

    #[test]
    fn a_busy_site_that_stops_is_told_within_a_quarter_of_an_hour() {
        let told = told(9, 30.0, |day, hour| day < 8 || hour < 3);
        assert_eq!(told.first(), Some(&(8, 3)));
    }

    #[test]
    fn a_small_site_that_stops_is_told_after_some_nights_worth() {
        let told = told(16, 240.0, |day, hour| day < 12 && (6..23).contains(&hour));
        // Its nights have seven hours.
        assert_eq!(told.first(), Some(&(13, 3)));
    }

    #[test]
    fn the_sleep_of_a_laptop_is_no_silence() {
        let mut past = Past::default();
        let mut now = DAY;
        for _ in 0..(3 * 2880) {
            assert_eq!(past.look(1, now, FLOOR_SECS), None);
            now += 30.0;
        }
        now += 5.0 * DAY;
        assert_eq!(past.look(0, now, FLOOR_SECS), None);
        // The clock was set back.
        now -= 2.0 * DAY;
        assert_eq!(past.look(0, now, FLOOR_SECS), None);
        // And then it does go quiet.
        let mut quiet = None;
        for _ in 0..30 {
            now += 30.0;
            quiet = quiet.or(past.look(0, now, FLOOR_SECS));
        }
        assert!(quiet.is_some_and(|quiet| quiet.longest < 31.0), "{quiet:?}");
    }
}
