//! The date in a line of a log: found, read, and cut out.
//!
//! In: a line without its end, and the clock. Out: [`Find`], the bytes that regular expressions must not see and the time
//! they say. It decides as fail2ban 1.0.2 does, with its order memory: which pattern is tried first, and which of several
//! dates in a line is taken, depends on the lines before. So every jail has a [`Detector`] of its own; what a pattern
//! compiles to is shared by all of them.
//!
//! ```text
//! codes     %d, %ExY and the default patterns ─┐
//! template  a pattern: bounds, group, kind ────┤
//! pattern   Python's expressions to a tree ────┼─> Detector: order memory ─> Find
//! needs     what a line must have ─────────────┤
//! matcher   the tree, looked for in a line ────┤
//! read      pieces to a time, zone: offsets ───┘
//! ```
//!
//! Most lines of a log begin like the one before: where all bytes that the last search looked at are the same again, so is
//! its result.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

mod codes;
mod matcher;
mod needs;
mod read;
mod template;
mod zone;

use matcher::Search;
use needs::{Starts, Traits};
use read::{Clock, Fault};
use template::{Reader, Template};

use crate::pattern::ast::word;

/// Seconds since the epoch, by the system's clock.
#[must_use]
pub(crate) fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// No match yet.
const FAR: usize = 0x7fff_ffff;
/// Seconds without a match after which a pattern loses its place.
const UNUSED_SECS: f64 = 300.0;
/// Longest text that is compared with the line before, bytes.
const MEMO_MAX: usize = 128;

/// What was found in a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Find {
    /// No date.
    None,
    /// A date. `cut` is the bytes of the line that no other expression sees; `time` in seconds since the epoch.
    At {
        /// The date's bytes.
        cut: Range<usize>,
        /// Seconds since the epoch.
        time: f64,
    },
    /// Something of a date's form that is none (30 February, second 60): the last known time and the whole line if that
    /// is younger than a minute, else the clock and the line without `cut`.
    Impossible {
        /// The bytes of its text.
        cut: Range<usize>,
    },
    /// fail2ban gives such a line up (a zone name that it does not know, in capitals).
    Stumble,
    /// The pattern says that there is no date (`{NONE}`, or an optional one that is not there): the last known time if that
    /// is younger than a minute, else the clock; the whole line either way.
    NoDate,
}

/// What is wrong with the patterns or the zone of a jail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DateError {
    /// A pattern that is no expression, or has a code that does not exist.
    Pattern {
        /// As it was given.
        pattern: String,
        /// What is wrong with it.
        what: String,
    },
    /// The same pattern twice.
    Twice {
        /// As it was given.
        pattern: String,
    },
    /// A zone that is not known.
    Zone {
        /// As it was given.
        zone: String,
    },
}

impl fmt::Display for DateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DateError::Pattern { pattern, what } => {
                write!(f, "datepattern: \"{}\": {what}", pattern.escape_debug())
            }
            DateError::Twice { pattern } => {
                write!(
                    f,
                    "datepattern: \"{}\" is there twice; leave one out",
                    pattern.escape_debug()
                )
            }
            DateError::Zone { zone } => write!(
                f,
                "logtimezone: \"{}\" is no zone I know; write UTC+0100, -0330 or an abbreviation such as CET",
                zone.escape_debug()
            ),
        }
    }
}

impl std::error::Error for DateError {}

/// A template in its place, with what is remembered of it.
#[derive(Clone, Debug)]
struct Place {
    template: Arc<Template>,
    weight: f64,
    /// Lines that it won.
    hits: u32,
    /// Lines that it matched, also where another one won.
    matches: u32,
    /// When it won last, seconds since the epoch of the real clock.
    used: f64,
    /// Where it won last, characters.
    distance: usize,
}

impl Place {
    #[allow(clippy::cast_precision_loss, reason = "a distance is below 2^52")]
    fn rank(&self) -> f64 {
        f64::from(self.hits) * self.weight / self.distance.max(1) as f64
    }
}

/// Where a line's match was, in characters, and what stood at its ends.
#[derive(Clone, Copy, Debug)]
struct Last {
    place: usize,
    start: usize,
    end: usize,
    before: Option<char>,
    first: Option<char>,
    last: Option<char>,
    behind: Option<char>,
}

/// A match, in bytes.
#[derive(Clone, Debug)]
struct Match {
    start: usize,
    end: usize,
    cut: Option<Range<usize>>,
    /// The part of the line it was found in, if another search may have overwritten its groups.
    again: Option<(usize, usize)>,
}

/// A result that holds for every line with the same bytes at the same place.
#[derive(Clone, Debug)]
struct Memo {
    from: usize,
    /// The length of the line, where its end was looked at.
    len: Option<usize>,
    /// Whether the bytes before must be counted as characters.
    ascii_before: bool,
    find: Find,
    /// From when to when, by the clock.
    holds: Option<(i64, i64)>,
}

/// Finds the dates of one log.
pub struct Detector {
    places: Vec<Place>,
    zone: Option<i64>,
    last: Option<Last>,
    first_unused: usize,
    local: zone::LocalZone,
    search: Search,
    traits: Traits,
    memo: Option<Memo>,
    /// The memo's bytes.
    same: Vec<u8>,
}

impl fmt::Debug for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detector")
            .field("templates", &self.templates().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Clone for Detector {
    /// A detector of the same patterns; its memory goes along.
    fn clone(&self) -> Self {
        Detector {
            places: self.places.clone(),
            zone: self.zone,
            last: self.last,
            first_unused: self.first_unused,
            local: self.local.clone(),
            search: Search::default(),
            traits: Traits::default(),
            memo: self.memo.clone(),
            same: self.same.clone(),
        }
    }
}

/// The default templates: the twins that are held to the start of a line, then the 17.
struct Defaults {
    twins: Vec<Arc<Template>>,
    plain: Vec<Arc<Template>>,
}

fn defaults() -> Result<&'static Defaults, String> {
    static DEFAULTS: OnceLock<Result<Defaults, String>> = OnceLock::new();
    DEFAULTS
        .get_or_init(|| {
            let plain: Result<Vec<_>, String> = codes::DEFAULTS
                .iter()
                .map(|pattern| Template::named_pattern(pattern))
                .collect();
            let plain = plain?;
            let twins = plain
                .iter()
                .filter(|template| {
                    !template.name.starts_with("{^LN-BEG}") && !template.name.starts_with('^')
                })
                .map(|template| template.wrapped(|text| format!("{{^LN-BEG}}{text}")));
            Ok(Defaults {
                twins: twins.collect::<Result<_, String>>()?,
                plain,
            })
        })
        .as_ref()
        .map_err(Clone::clone)
}

impl Detector {
    /// A detector for datepatterns (one each; none: the default list) and a logtimezone.
    ///
    /// # Errors
    /// A pattern or the zone cannot be used; such a jail does not load in fail2ban, or fails at every line.
    pub fn new(patterns: &[String], zone: Option<&str>) -> Result<Self, DateError> {
        let zone = match zone {
            Some(name) => Some(zone::offset(name).map_err(|_| DateError::Zone {
                zone: name.to_owned(),
            })?),
            None => None,
        };
        let mut detector = Detector {
            places: Vec::new(),
            zone,
            last: None,
            first_unused: 0,
            local: zone::LocalZone::default(),
            search: Search::default(),
            traits: Traits::default(),
            memo: None,
            same: Vec::new(),
        };
        let mut weighed = false;
        let wrong = |pattern: &str, what| DateError::Pattern {
            pattern: pattern.to_owned(),
            what,
        };
        for pattern in patterns
            .iter()
            .map(|pattern| pattern.trim())
            .filter(|pattern| !pattern.is_empty())
        {
            weighed |= detector.add(pattern)?;
        }
        if detector.places.is_empty() {
            let defaults = defaults().map_err(|what| wrong("{DEFAULT}", what))?;
            for template in defaults.twins.iter().chain(&defaults.plain) {
                detector.put(template, "{DEFAULT}", false)?;
            }
            weighed = true;
        }
        if weighed {
            // A twin goes ahead of what was found elsewhere in a line.
            let twins = &defaults().map_err(|what| wrong("{DEFAULT}", what))?.twins;
            for place in &mut detector.places {
                if twins.iter().any(|twin| twin.key == place.template.key) {
                    place.weight = 100.0;
                }
            }
        }
        Ok(detector)
    }

    /// Adds what a pattern stands for; says whether that was the default list.
    fn add(&mut self, pattern: &str) -> Result<bool, DateError> {
        let wrong = |what| DateError::Pattern {
            pattern: pattern.to_owned(),
            what,
        };
        let later = !self.places.is_empty();
        let key = template::key(pattern);
        // Beside other patterns {DEFAULT} adds nothing, and alone it leaves the list empty, which is the default list.
        if key == "{DEFAULT}" {
            return Ok(true);
        }
        if key == "{^LN-BEG}" {
            let defaults = defaults().map_err(wrong)?;
            let all = defaults.twins.iter().chain(&defaults.plain);
            for template in all.filter(|template| template.anchored) {
                self.put(template, pattern, later)?;
            }
            return Ok(true);
        }
        if key.contains("{DATE}") {
            for template in &defaults().map_err(wrong)?.plain {
                let around = template
                    .wrapped(|inner| Template::put_into(pattern, inner))
                    .map_err(wrong)?;
                self.put(&around, pattern, later)?;
            }
            return Ok(false);
        }
        let template = match key.as_str() {
            "{NONE}" => Template::shared("{UNB}^", &key),
            _ => Template::shared(pattern, &key),
        };
        let template = template.map_err(wrong)?;
        if template.matcher().is_none() {
            return Err(wrong("too large an expression".to_owned()));
        }
        self.put(&template, pattern, false)?;
        Ok(false)
    }

    fn put(
        &mut self,
        template: &Arc<Template>,
        pattern: &str,
        ignore_twice: bool,
    ) -> Result<(), DateError> {
        if self
            .places
            .iter()
            .any(|place| place.template.name == template.name)
        {
            if ignore_twice {
                return Ok(());
            }
            return Err(DateError::Twice {
                pattern: pattern.to_owned(),
            });
        }
        self.places.push(Place {
            template: Arc::clone(template),
            weight: 1.0,
            hits: 0,
            matches: 0,
            used: 0.0,
            distance: FAR,
        });
        Ok(())
    }

    /// The templates in their present order: name, and how many lines each decided.
    pub fn templates(&self) -> impl Iterator<Item = (&str, u32)> {
        self.places
            .iter()
            .map(|place| (place.template.name.as_str(), place.hits))
    }

    /// Where few templates were asked for, the first: its pattern, if it has codes, and its name. `None`: there are many.
    pub fn first(&self) -> Option<(Option<&str>, &str)> {
        match self.places.as_slice() {
            [first] | [first, _] => Some((first.template.pattern(), first.template.name.as_str())),
            _ => None,
        }
    }

    /// Finds the date of a line that has no line end. `now` is the clock, in seconds since the epoch: it completes dates
    /// without year or day.
    pub fn find(&mut self, line: &str, now: f64) -> Find {
        // Some milliseconds late, and a tenth of the price.
        let real = clock_gettime(ClockId::CLOCK_REALTIME_COARSE)
            .map_or(0.0, |since| Duration::from(since).as_secs_f64());
        self.find_at(line, now, real)
    }

    /// The same with the real clock, by which the order of patterns ages.
    #[doc(hidden)]
    pub fn find_at(&mut self, line: &str, now: f64, real: f64) -> Find {
        let now = whole_seconds(now);
        if let Some(find) = self.as_before(line, now, real) {
            return find;
        }
        self.memo = None;
        let text = Text {
            line,
            ascii: line.is_ascii(),
        };
        let Some((found, index, memo_from)) = self.search(&text) else {
            return Find::None;
        };
        if !self.win(&text, &found, index, real) {
            return Find::Stumble;
        }
        let Some(place) = self.last.and_then(|last| self.places.get(last.place)) else {
            return Find::Stumble;
        };
        let template = Arc::clone(&place.template);
        let mut far = self.search.far;
        if let Some((from, to)) = found.again {
            let Some(matcher) = template.matcher() else {
                return Find::None;
            };
            matcher.find(line, (from, to), Starts::Everywhere, &mut self.search);
            far = self.search.far;
        }
        let cut = found.cut.clone().filter(|cut| !cut.is_empty());
        let Some(cut) = cut else { return Find::NoDate };
        let ahead = self.local.ahead;
        let (find, by_clock) = self.read(&template, line, &cut, now);
        let holds = by_clock.then(|| {
            // What is true at both ends of a stretch without a step of the clock is true between.
            let end = now - now.rem_euclid(zone::QUARTER) + zone::QUARTER - 1;
            let after = std::mem::replace(&mut self.local.ahead, ahead);
            let (later, _) = self.read(&template, line, &cut, end);
            self.local.ahead = after;
            if later == find {
                (now, end)
            } else {
                (now, now)
            }
        });
        if let Some(from) = memo_from {
            self.remember(line, from, far, text.ascii, &find, holds);
        }
        find
    }

    /// The result of the line before, if this one is the same wherever that was looked at.
    fn as_before(&mut self, line: &str, now: i64, real: f64) -> Option<Find> {
        let memo = self.memo.as_ref()?;
        let bytes = line.as_bytes();
        let same = bytes.get(memo.from..memo.from + self.same.len()) == Some(self.same.as_slice())
            && memo.len.is_none_or(|len| len == bytes.len())
            && memo.holds.is_none_or(|(from, to)| from <= now && now <= to)
            && (!memo.ascii_before || bytes.get(..memo.from).is_some_and(<[u8]>::is_ascii));
        if !same {
            return None;
        }
        let find = memo.find.clone();
        let last = self.last?;
        let place = self.places.get_mut(last.place)?;
        place.hits = place.hits.saturating_add(1);
        place.matches = place.matches.saturating_add(1);
        place.used = real;
        Some(find)
    }

    fn remember(
        &mut self,
        line: &str,
        from: usize,
        far: usize,
        ascii: bool,
        find: &Find,
        holds: Option<(i64, i64)>,
    ) {
        let bytes = line.as_bytes();
        let mut to = far.min(bytes.len());
        // A character that was looked at, was looked at whole.
        while bytes.get(to).is_some_and(|byte| byte & 0xc0 == 0x80) {
            to += 1;
        }
        let Some(bytes) = bytes.get(from..to).filter(|bytes| bytes.len() <= MEMO_MAX) else {
            return;
        };
        if from > 0 && !ascii {
            return;
        }
        self.same.clear();
        self.same.extend_from_slice(bytes);
        self.memo = Some(Memo {
            from,
            len: (far > line.len()).then_some(line.len()),
            ascii_before: from > 0,
            find: find.clone(),
            holds,
        });
    }

    fn read(
        &mut self,
        template: &Template,
        line: &str,
        cut: &Range<usize>,
        now: i64,
    ) -> (Find, bool) {
        let search = &self.search;
        let group = |group: u32| read::piece(line, search.group(group as usize));
        let (time, by_clock) = match &template.reader {
            Reader::Fields(fields) => {
                match fields.read(
                    group,
                    Clock {
                        now,
                        zone: self.zone,
                    },
                    &mut self.local,
                ) {
                    Ok(time) => (Ok(time.epoch), time.by_clock),
                    Err(fault) => (Err(fault), true),
                }
            }
            Reader::Epoch {
                group: number,
                long,
            } => match group(*number) {
                Some(digits) => (read::epoch(digits, *long), false),
                None => (Err(Fault::Stumble), false),
            },
            Reader::Tai64n => (group(1).ok_or(Fault::Stumble).and_then(read::tai64n), false),
        };
        let find = match time {
            Ok(time) => Find::At {
                cut: cut.clone(),
                time,
            },
            Err(Fault::Impossible) => Find::Impossible { cut: cut.clone() },
            Err(Fault::Stumble) => Find::Stumble,
        };
        (find, by_clock)
    }

    /// Tries one template on a part of the line; `seen`: the line's traits are known.
    fn matched(
        &mut self,
        line: &str,
        index: usize,
        part: (usize, usize),
        seen: bool,
    ) -> Option<Match> {
        let place = self.places.get_mut(index)?;
        let matcher = place.template.matcher()?;
        let starts = if seen {
            self.traits.starts(matcher.need)
        } else {
            Starts::Everywhere
        };
        if !matcher.find(line, part, starts, &mut self.search) {
            return None;
        }
        place.matches = place.matches.saturating_add(1);
        let whole = self.search.group(0)?;
        Some(Match {
            start: whole.start,
            end: whole.end,
            cut: self.search.group(1),
            again: None,
        })
    }

    /// The match that decides, whose it is, and from where on the search looked at the line if its result can be kept.
    fn search(&mut self, text: &Text) -> Option<(Match, usize, Option<usize>)> {
        let line = text.line;
        let count = self.places.len();
        let mut reserve: Option<(Match, usize)> = None;
        let mut skip = None;
        let mut traits_seen = false;
        if let Some(last) = self.last
            && let Some(place) = self.places.get(last.place)
        {
            let anchored = place.template.anchored;
            let fixed = place
                .template
                .matcher()
                .is_some_and(matcher::Matcher::anchored);
            let looks_behind = place
                .template
                .matcher()
                .is_none_or(matcher::Matcher::looks_behind);
            let part = !anchored && text.fits(&last);
            let (from, to) = if part {
                (text.byte(last.start), text.byte(last.end))
            } else {
                skip = Some(last.place);
                (0, line.len())
            };
            let seen = !part && !fixed;
            if seen {
                self.traits.see(line, text.ascii);
            }
            traits_seen = seen;
            let found = self.matched(line, last.place, (from, to), seen);
            if let Some(found) = found {
                let (start, end) = (text.char(found.start), text.char(found.end));
                let same = start == last.start && end == last.end;
                if count == 1 || anchored || same {
                    let from = if anchored && fixed {
                        Some(0)
                    } else if part && same && !looks_behind {
                        // The characters on both sides were compared too.
                        self.search.far = (found.end + 1).min(line.len() + 1);
                        Some(found.start.saturating_sub(1))
                    } else {
                        None
                    };
                    return Some((found, last.place, from));
                }
                reserve = Some((
                    Match {
                        again: Some((from, to)),
                        ..found
                    },
                    last.place,
                ));
            }
        }
        if !traits_seen {
            self.traits.see(line, text.ascii);
        }
        for index in (0..count).filter(|&index| Some(index) != skip) {
            let Some(found) = self.matched(line, index, (0, line.len()), true) else {
                continue;
            };
            let Some(place) = self.places.get(index) else {
                continue;
            };
            let start = text.char(found.start);
            let fixed = place
                .template
                .matcher()
                .is_some_and(matcher::Matcher::anchored);
            let next_unused = self
                .places
                .get(index + 1)
                .is_none_or(|next| next.matches == 0);
            let before = self.last.map_or(1, |last| last.start);
            let wins = index + 1 >= count
                || place.template.anchored
                || start == 0 && place.hits > 0 && next_unused
                || start <= place.distance && start <= before;
            if wins {
                return Some((
                    found,
                    index,
                    (place.template.anchored && fixed).then_some(0),
                ));
            }
            if reserve
                .as_ref()
                .is_none_or(|(best, _)| found.start < best.start)
            {
                reserve = Some((
                    Match {
                        again: Some((0, line.len())),
                        ..found
                    },
                    index,
                ));
            }
        }
        reserve.map(|(found, index)| (found, index, None))
    }

    /// Notes a win; `false`: fail2ban stumbles over a match at the very end.
    fn win(&mut self, text: &Text, found: &Match, index: usize, real: f64) -> bool {
        let (start, end) = (text.char(found.start), text.char(found.end));
        if let Some(place) = self.places.get_mut(index) {
            place.hits = place.hits.saturating_add(1);
            place.used = real;
            place.distance = start;
        }
        if self.first_unused == index {
            self.first_unused += 1;
        }
        let Some(first) = text.at(found.start) else {
            return false;
        };
        let last_place = self.last.map_or(FAR, |last| last.place);
        let last = match end {
            0 => text.before(text.line.len()),
            _ => text.before(found.end),
        };
        let place = if index > 0 && index != last_place {
            self.move_up(index)
        } else {
            index
        };
        self.last = Some(Last {
            place,
            start,
            end,
            before: text.before(found.start),
            first: Some(first),
            last,
            behind: text.at(found.end),
        });
        true
    }

    /// Moves a template towards the front if it outweighs, or outlived, what is there; says where it is then.
    fn move_up(&mut self, index: usize) -> usize {
        let outdoes = |to: usize| match (self.places.get(index), self.places.get(to)) {
            (Some(place), Some(other)) => {
                place.rank() > other.rank() || place.used - UNUSED_SECS > other.used
            }
            _ => false,
        };
        let mut to = if self.first_unused < index {
            self.first_unused
        } else {
            index / 2
        };
        if !outdoes(to) {
            if to == index - 1 {
                return index;
            }
            to = index - 1;
            if !outdoes(to) {
                return index;
            }
        }
        if let Some(moved) = self.places.get_mut(to..=index) {
            moved.rotate_right(1);
        }
        while self
            .places
            .get(self.first_unused)
            .is_some_and(|place| place.hits > 0)
        {
            self.first_unused += 1;
        }
        to
    }
}

/// A line, whose places are told in characters where fail2ban remembers them.
struct Text<'l> {
    line: &'l str,
    ascii: bool,
}

impl Text<'_> {
    fn char(&self, byte: usize) -> usize {
        if self.ascii {
            return byte;
        }
        self.line
            .get(..byte)
            .map_or(byte, |before| before.chars().count())
    }

    fn byte(&self, char: usize) -> usize {
        if self.ascii {
            return char.min(self.line.len());
        }
        self.line
            .char_indices()
            .nth(char)
            .map_or(self.line.len(), |(byte, _)| byte)
    }

    /// The character that begins at a byte.
    fn at(&self, byte: usize) -> Option<char> {
        self.line.get(byte..)?.chars().next()
    }

    /// The character that ends at a byte.
    fn before(&self, byte: usize) -> Option<char> {
        self.line.get(..byte)?.chars().next_back()
    }

    /// Whether a date may stand where the last one stood: the characters outside are the same ones, or else the first or
    /// last one inside is, and belongs to no word.
    fn fits(&self, last: &Last) -> bool {
        let plain = |c: Option<char>| c.is_some_and(|c| c == '_' || !word(c));
        let char_at = |index: Option<usize>| match (index, self.ascii) {
            (None, _) => None,
            (Some(index), true) => self
                .line
                .as_bytes()
                .get(index)
                .map(|&byte| char::from(byte)),
            (Some(index), false) => self.line.chars().nth(index),
        };
        let begin = char_at(last.start.checked_sub(1)) == last.before
            || char_at(Some(last.start)) == last.first && plain(last.first);
        let end = char_at(Some(last.end)) == last.behind
            || char_at(last.end.checked_sub(1)) == last.last && plain(last.last);
        begin && end
    }
}

/// Whole seconds; a clock that is no number is 1970.
#[allow(
    clippy::cast_possible_truncation,
    reason = "`as` saturates, and no clock is near the ends"
)]
fn whole_seconds(now: f64) -> i64 {
    now.floor() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: f64 = 1_780_000_000.0;

    fn detector(patterns: &[&str]) -> Detector {
        let patterns: Vec<_> = patterns.iter().map(|&p| p.to_owned()).collect();
        Detector::new(&patterns, Some("UTC")).unwrap()
    }

    #[test]
    fn an_iso_date_is_cut_out_and_read() {
        let mut detector = detector(&[]);
        let find = detector.find("2026-01-23T21:59:59.123456+01:00 host sshd: x", NOW);
        assert_eq!(
            find,
            Find::At {
                cut: 0..32,
                time: 1_769_201_999.0
            }
        );
    }

    #[test]
    fn httpds_date_is_found_behind_its_bracket() {
        let mut detector = detector(&[]);
        let line = "192.0.2.7 - - [23/Jan/2026:21:59:59 +0100] \"GET / HTTP/1.1\" 200 5";
        assert_eq!(
            detector.find(line, NOW),
            Find::At {
                cut: 15..41,
                time: 1_769_201_999.0
            }
        );
        assert_eq!(
            detector.find(line, NOW),
            Find::At {
                cut: 15..41,
                time: 1_769_201_999.0
            }
        );
        assert_eq!(
            detector.find(line, NOW),
            Find::At {
                cut: 15..41,
                time: 1_769_201_999.0
            }
        );
    }

    fn at(detector: &mut Detector, line: &str) -> f64 {
        let find = detector.find(line, NOW);
        let Find::At { time, .. } = find else {
            panic!("{line}: {find:?}")
        };
        time
    }

    #[test]
    fn a_date_without_year_is_of_this_year_or_the_last() {
        // 28 May 2026
        let mut detector = detector(&["^%b %d %H:%M:%S"]);
        assert_eq!(at(&mut detector, "May 28 00:00:00 x"), 1_779_926_400.0);
        assert_eq!(at(&mut detector, "May 29 00:00:00 x"), 1_780_012_800.0);
        assert_eq!(at(&mut detector, "May 30 00:00:00 x"), 1_748_563_200.0);
    }

    #[test]
    fn the_same_text_is_read_anew_when_the_year_has_changed() {
        let mut detector = detector(&["^%b %d %H:%M:%S"]);
        let line = "May 28 00:00:00 x";
        for (now, time) in [
            (NOW, 1_779_926_400.0),
            (NOW + 1.0, 1_779_926_400.0),
            (NOW + 31_536_000.0, 1_811_462_400.0),
        ] {
            assert_eq!(detector.find(line, now), Find::At { cut: 0..15, time });
        }
    }

    #[test]
    fn what_has_only_the_form_of_a_date_is_told_from_none() {
        let mut detector = detector(&[]);
        assert_eq!(
            detector.find("2026-02-30 00:00:00 x", NOW),
            Find::Impossible { cut: 0..19 }
        );
        assert_eq!(detector.find("2026-02-20 24:00:00 x", NOW), Find::None);
        assert_eq!(detector.find("FOO Jan 23 21:59:59 x", NOW), Find::Stumble);
        assert_eq!(detector.find("no date", NOW), Find::None);
    }

    #[test]
    fn no_date_may_be_asked_for() {
        assert_eq!(
            detector(&["{NONE}"]).find("2026-02-20 21:00:00 x", NOW),
            Find::NoDate
        );
    }

    #[test]
    fn a_group_says_what_is_cut_out() {
        let line = "192.0.2.7 - - [23/Jan/2026:21:59:59 +0000] \"GET";
        let cut = |pattern: &str| {
            let find = detector(&[pattern]).find(line, NOW);
            let Find::At { cut, .. } = find else {
                panic!("{find:?}")
            };
            line[cut].to_owned()
        };
        assert_eq!(
            cut(r"^[^\[]*(\[{DATE}\s*\])"),
            "[23/Jan/2026:21:59:59 +0000]"
        );
    }

    #[test]
    fn messages_say_what_to_write() {
        let wrong = |pattern: &str| {
            Detector::new(&[pattern.to_owned()], None)
                .unwrap_err()
                .to_string()
        };
        assert!(wrong("100% %H").contains("a percent sign is written %%"));
        assert!(wrong("(%H").contains("unclosed group"));
        let zone = Detector::new(&[], Some("Europe/Paris"))
            .unwrap_err()
            .to_string();
        assert!(zone.contains("UTC+0100"), "{zone}");
    }

    #[test]
    fn a_pattern_that_goes_back_too_often_gives_up() {
        let mut detector = detector(&["(?:a|aa)+b%H"]);
        assert_eq!(detector.find(&"a".repeat(5000), NOW), Find::None);
    }

    #[test]
    fn lines_of_any_bytes_do_no_harm() {
        let mut detector = detector(&[]);
        for line in [
            "",
            "\u{e4}",
            "\0",
            "[[[",
            "\u{661}\u{662}:\u{663}\u{664}:\u{665}\u{666}",
            "\u{f8f0}",
            "::::",
            "@",
        ] {
            detector.find(line, NOW);
            detector.find(&line.repeat(1000), f64::NAN);
        }
    }
}
