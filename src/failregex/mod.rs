//! Lines of any log to failures, as fail2ban's filters judge them (rules 30 to 46 and 56 to 58 of its behaviour).
//!
//! In: the lines of one log in their order, the clock, and how far it counts. Out: failures, each with whom it is about.
//! What is remembered from line to line is the last known date, the last lines (of filters with `maxlines`), and the
//! connections that lines belong to. Numbers in comments are those rules'.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::date::{Detector, Find};
use crate::fail2ban::{FilterRules, UseDns};
use crate::pattern::{self, Found, Options, Pattern, PatternError, Patterns};

mod groups; // what named groups matched
mod id; // addresses in their normal form
mod session; // lines of one connection

use groups::{CIDR, CONTENT, DNS, FID, IP, IP4, IP6, MLFID, NOFAIL, Names, Recipe, Values};
pub use groups::{Groups, Kept, Value};
use id::Form;
use session::{Fail, Sessions};

/// What the expressions of a filter may not be without: one of these says whom a failure is about (27).
const IDENTITIES: [&str; 5] = ["fid", "ip4", "ip6", "dns", "mlfid"];
/// A last known date is good for lines without one this long, seconds (57).
const LAST_DATE_SECS: f64 = 60.0;
/// A date further away than this from the clock is not believed while the log is followed, seconds (57).
const ODD_SECS: f64 = 60.0;

/// The expressions of a filter, all tags of configuration replaced, those of expressions (`<HOST>`) not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Must be found first, and may say which part of the line (`<F-CONTENT>`) the others look at.
    pub prefregex: Option<String>,
    /// The first that is found decides.
    pub failregex: Vec<String>,
    /// What is no failure after all.
    pub ignoreregex: Vec<String>,
    /// Where the date stands; empty: everywhere that is known.
    pub datepattern: Vec<String>,
    /// Lines that expressions may span, at least 1.
    pub maxlines: usize,
    /// Host names.
    pub usedns: UseDns,
    /// The zone of dates that name none.
    pub logtimezone: Option<String>,
}

impl Rules {
    /// Those of a filter; `logtimezone` is a jail's.
    #[must_use]
    pub fn of(filter: &FilterRules, logtimezone: Option<String>) -> Self {
        Self {
            prefregex: filter.prefregex.clone(),
            failregex: filter.failregex.clone(),
            ignoreregex: filter.ignoreregex.clone(),
            datepattern: filter.datepattern.clone(),
            maxlines: filter.maxlines as usize,
            usedns: filter.usedns,
            logtimezone,
        }
    }
}

/// A filter that cannot run.
#[derive(Debug)]
pub enum Refused {
    /// No expression at all.
    Empty,
    /// One is not Python's syntax.
    Pattern {
        /// `failregex`, `ignoreregex` or `prefregex`.
        key: &'static str,
        /// Counted from 1.
        number: usize,
        /// The expression.
        source: String,
        /// What is wrong.
        error: PatternError,
    },
    /// One finds nobody.
    Nobody {
        /// Counted from 1.
        number: usize,
        /// The expression.
        source: String,
    },
    /// datepattern or logtimezone.
    Date(crate::date::DateError),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => {
                f.write_str("failregex: there is none; write one with <HOST> in it, or a filter")
            }
            Self::Pattern {
                key,
                number,
                source,
                error,
            } => {
                write!(f, "{key} {number}: {error}: {source}")
            }
            Self::Nobody { number, source } => write!(
                f,
                "failregex {number}: it finds nobody; write <HOST> where the address stands: {source}"
            ),
            Self::Date(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refused {}

/// How a line tells its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stamp {
    /// Somewhere in its text.
    InText,
    /// It came with the line (journal entries), seconds since the epoch.
    Known(f64),
}

/// What a line tells of its time.
#[derive(Clone, Debug)]
pub enum When {
    /// It came with it, seconds since the epoch.
    Known(f64),
    /// That was found in its text.
    Found(Find),
}

impl When {
    /// Seconds since the epoch.
    #[must_use]
    pub fn time(&self) -> Option<f64> {
        match self {
            Self::Known(at) => Some(*at),
            Self::Found(Find::At { time, .. }) => Some(*time),
            Self::Found(Find::None | Find::Impossible { .. } | Find::NoDate | Find::Stumble) => {
                None
            }
        }
    }
}

/// Which lines count by their time (56 to 58).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// All; nothing is compared with the clock.
    Timeless,
    /// What was in the log before it is followed: not what is older than so many seconds.
    Reading(f64),
    /// The log is followed: a line is new, whatever time it tells.
    Following,
}

/// What time it is, seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// What times of lines are compared with.
    pub now: f64,
    /// What decides the year or the day of a date that has none. The same, but for old logs, whose own times are the
    /// clock: there it is the present, since a line of January does not know that the one before was of December.
    pub today: f64,
}

/// Somebody failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The failregex, counted from 0.
    pub regex: usize,
    /// Whom it is counted for, in normal form.
    pub id: String,
    /// `id` is a host name that is yet to be looked up, and the failure counts for each of its addresses.
    pub unresolved: bool,
    /// The address or name as written; where there is none, the id.
    pub host: String,
    /// Seconds since the epoch; `None`: unknown, which only [`Phase::Timeless`] lets through.
    pub time: Option<f64>,
    /// What groups matched, over all lines of the connection.
    pub groups: Groups,
    /// Users that the connection tried.
    pub users: Vec<Kept>,
    /// The lines.
    pub matches: Vec<String>,
}

impl Failure {
    /// One without a line of a log: `id` at the time `at`, as `text` says.
    #[must_use]
    pub fn of(id: &str, at: f64, text: String) -> Self {
        Self {
            regex: 0,
            id: id.to_owned(),
            unresolved: false,
            host: id.to_owned(),
            time: Some(at),
            groups: Groups::none(),
            users: Vec::new(),
            matches: vec![text],
        }
    }

    /// Its expression says that it is none by itself (`<F-NOFAIL>`), but the filter has no connections to which it could
    /// belong: fail2ban counts it, and leaves it out when a filter is tested.
    #[must_use]
    pub fn is_nofail(&self) -> bool {
        self.groups.has(NOFAIL)
    }
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Failures were told.
    Failed,
    /// No expression was found.
    Missed,
    /// An ignoreregex was found: which, counted from 0.
    Ignored(usize),
    /// A failregex was found, and is no failure by itself, or waits for its address: which, counted from 0.
    Noted(usize),
    /// Older than findtime, or with a date that fail2ban stumbles over.
    Dropped,
}

/// A line cut in three: what is before the date, the date, and what is behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cut {
    before: String,
    date: String,
    after: String,
    /// Some failregex could be looking for something in it.
    worth: bool,
}

impl Cut {
    fn whole(&self) -> String {
        [self.before.as_str(), &self.date, &self.after].concat()
    }
}

/// One filter on one stream of lines.
#[derive(Debug)]
pub struct Matcher {
    pre: Option<Pattern>,
    fail: Patterns,
    ignore: Patterns,
    names: Arc<[Box<str>]>,
    /// For the groups of `pre`, and of each of `fail`.
    pre_recipe: Option<Recipe>,
    recipes: Vec<Recipe>,
    maxlines: usize,
    /// What an expression cannot be found without is in one line, and nothing else is looked for.
    by_line: bool,
    usedns: UseDns,
    detector: Detector,
    last_date: Option<f64>,
    last_date_text: String,
    /// The last lines; only of filters with `maxlines`.
    lines: Vec<Cut>,
    sessions: Sessions,
    /// The line at hand without its date, and a newline.
    text: String,
    /// Whether the prefregex was found in it, if it was asked.
    passed: Option<bool>,
    /// The part that the prefregex found in it, and a newline.
    content: String,
    /// What a failregex found, joined with what the prefregex found.
    found: Fail,
    pre_found: Values,
    groups: pattern::Groups,
    pre_groups: pattern::Groups,
    ignore_groups: pattern::Groups,
    candidates: Vec<usize>,
    too_hard: Option<String>,
}

/// How many lines `maxlines` may be: each is kept, and searched again with every new one.
pub const MAXLINES_MAX: usize = 1000;

impl Matcher {
    /// Compiles the expressions.
    ///
    /// # Errors
    /// What fail2ban refuses, too, and what is wrong with it.
    pub fn new(rules: &Rules) -> Result<Self, Refused> {
        let multiline = rules.maxlines > 1;
        let names = rules.usedns != UseDns::No;
        let compile = |key, number, source: &str, multiline| {
            Pattern::new(source, Options { names, multiline }).map_err(|error| Refused::Pattern {
                key,
                number,
                source: source.to_owned(),
                error,
            })
        };
        let all = |key, sources: &[String], multiline| {
            let patterns = sources.iter().enumerate();
            patterns
                .map(|(n, source)| compile(key, n + 1, source, multiline))
                .collect::<Result<Vec<_>, _>>()
        };
        let pre = rules
            .prefregex
            .as_deref()
            .map(|source| compile("prefregex", 1, source, false));
        let pre = pre.transpose()?;
        let fail = all("failregex", &rules.failregex, multiline)?;
        let ignore = all("ignoreregex", &rules.ignoreregex, false)?;
        if fail.is_empty() {
            return Err(Refused::Empty);
        }
        let names_somebody = |pattern: &Pattern| {
            pattern
                .groups()
                .iter()
                .any(|group| IDENTITIES.contains(&&**group))
        };
        if !pre.as_ref().is_some_and(names_somebody)
            && let Some(at) = fail.iter().position(|pattern| !names_somebody(pattern))
        {
            return Err(Refused::Nobody {
                number: at + 1,
                source: fail
                    .get(at)
                    .map(|pattern| pattern.source().to_owned())
                    .unwrap_or_default(),
            });
        }
        let mut names = Names::default();
        let pre_recipe = pre.as_ref().map(|pre| Recipe::new(pre, &mut names));
        let recipes = fail.iter().map(|pattern| Recipe::new(pattern, &mut names));
        let (recipes, fail, ignore) = (
            recipes.collect(),
            Patterns::new(fail),
            Patterns::new(ignore),
        );
        Ok(Self {
            recipes,
            pre_recipe,
            names: names.all(),
            by_line: pre.is_none() && ignore.all().is_empty() && fail.seek_in_lines(),
            pre,
            fail,
            ignore,
            maxlines: rules.maxlines.clamp(1, MAXLINES_MAX),
            usedns: rules.usedns,
            detector: Detector::new(&rules.datepattern, rules.logtimezone.as_deref())
                .map_err(Refused::Date)?,
            last_date: None,
            last_date_text: String::new(),
            lines: Vec::new(),
            sessions: Sessions::default(),
            text: String::new(),
            passed: None,
            content: String::new(),
            found: Fail::default(),
            pre_found: Values::default(),
            groups: pattern::Groups::default(),
            pre_groups: pattern::Groups::default(),
            ignore_groups: pattern::Groups::default(),
            candidates: Vec::new(),
            too_hard: None,
        })
    }

    /// The dates it looks for, and how often each was found.
    #[must_use]
    pub fn detector(&self) -> &Detector {
        &self.detector
    }

    /// The failregexes.
    #[must_use]
    pub fn failregexes(&self) -> &[Pattern] {
        self.fail.all()
    }

    /// The ignoreregexes.
    #[must_use]
    pub fn ignoreregexes(&self) -> &[Pattern] {
        self.ignore.all()
    }

    /// The prefregex.
    #[must_use]
    pub fn prefregex(&self) -> Option<&Pattern> {
        self.pre.as_ref()
    }

    /// The line that was judged last without its date: what expressions saw.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The time that a line tells, seconds since the epoch.
    pub fn time_of(&mut self, line: &str, today: f64) -> Option<f64> {
        self.when(line, Stamp::InText, today).time()
    }

    /// What failregexes saw of it: the content that prefregex found in it, if it found one.
    #[must_use]
    pub fn searched(&self) -> Cow<'_, str> {
        let content = self.pre.as_ref().and_then(|pre| {
            let mut groups = pattern::Groups::default();
            let at = pre.groups().iter().position(|name| &**name == "content")?;
            let found = pre.find(&self.text, &mut groups) == Found::Yes;
            self.text
                .get(groups.get(at).filter(|span| found && !span.is_empty())?)
        });
        content.map_or(Cow::Borrowed(&self.text), |content| {
            Cow::Owned(format!("{content}\n"))
        })
    }

    /// Is the prefregex, if there is one, found in that line?
    #[must_use]
    pub fn passes(&self) -> bool {
        let found = |pre: &Pattern| pre.find(&self.text, &mut pattern::Groups::default());
        self.passed
            .unwrap_or_else(|| self.pre.as_ref().is_none_or(|pre| found(pre) == Found::Yes))
    }

    /// An expression that was given up on a line since this was asked last, because it would have taken too long.
    pub fn take_too_hard(&mut self) -> Option<String> {
        self.too_hard.take()
    }

    /// Judges one line, without its newline.
    /// `failures` are added to.
    pub fn line(
        &mut self,
        line: &str,
        stamp: Stamp,
        phase: Phase,
        Clock { now, today }: Clock,
        failures: &mut Vec<Failure>,
    ) -> Seen {
        let when = self.when(line, stamp, today);
        self.line_of(line, when, phase, now, failures)
    }

    /// The first half of [`line`](Self::line): what the line tells of its time. For clocks that go by that.
    pub fn when(&mut self, line: &str, stamp: Stamp, today: f64) -> When {
        match stamp {
            Stamp::Known(at) => When::Known(at),
            Stamp::InText => When::Found(self.detector.find(line, today)),
        }
    }

    /// The second half, for the same line at once.
    pub fn line_of(
        &mut self,
        line: &str,
        when: When,
        phase: Phase,
        now: f64,
        failures: &mut Vec<Failure>,
    ) -> Seen {
        let recent = self.last_date.filter(|last| *last > now - LAST_DATE_SECS);
        let (mut date, mut place) = match when {
            When::Known(at) => {
                self.last_date = Some(at);
                self.last_date_text.clear();
                (Some(at), Dated::Nowhere)
            }
            When::Found(found) => match found {
                Find::None => (None, Dated::Nowhere),
                Find::At { cut, time } => {
                    self.last_date = Some(time);
                    self.last_date_text.clear();
                    self.last_date_text
                        .push_str(line.get(cut.clone()).unwrap_or_default());
                    (Some(time), Dated::Here(cut))
                }
                // 30 February: no time, but cut out all the same (53).
                Find::Impossible { cut } => (None, Dated::Here(cut)),
                Find::NoDate if recent.is_some() => (recent, Dated::Before),
                Find::NoDate => (Some(now), Dated::Nowhere),
                Find::Stumble => return Seen::Dropped,
            },
        };
        if date.is_none() {
            if recent.is_some() {
                (date, place) = (recent, Dated::Before);
            } else if phase == Phase::Following {
                date = Some(now);
            }
        }
        match (phase, date) {
            (Phase::Following, Some(at)) if (at - now).trunc().abs() > ODD_SECS => {
                date = Some(now);
                self.last_date = date;
            }
            (Phase::Reading(findtime), Some(at)) if at < now - findtime => return Seen::Dropped,
            (Phase::Following | Phase::Reading(_) | Phase::Timeless, _) => {}
        }
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        self.passed = None;
        let last_date_text = std::mem::take(&mut self.last_date_text);
        let (before, dated, after) = match &place {
            Dated::Here(cut) => (
                line.get(..cut.start).unwrap_or_default(),
                line.get(cut.clone()).unwrap_or_default(),
                line.get(cut.end..).unwrap_or_default(),
            ),
            Dated::Before => ("", last_date_text.as_str(), line),
            Dated::Nowhere => ("", "", line),
        };
        text.push_str(before);
        text.push_str(after);
        text.push('\n');
        let cut = [before, dated, after];
        let whole: &dyn Fn() -> String = &|| cut.concat();
        let seen = if self.maxlines > 1 && !self.keep(cut, &mut text) {
            Seen::Missed
        } else {
            self.judge(&text, whole, date, phase, failures)
        };
        self.text = text;
        self.last_date_text = last_date_text;
        seen
    }

    /// Keeps a line, of which `text` is what expressions see, and makes that the text of all lines that are kept. False:
    /// none of them holds anything that one of the expressions looks for, as nearly always.
    fn keep(&mut self, line: [&str; 3], text: &mut String) -> bool {
        let mut cut = match self.lines.len() >= self.maxlines {
            true => self.lines.remove(0),
            false => Cut::default(),
        };
        let parts = [&mut cut.before, &mut cut.date, &mut cut.after];
        for (kept, part) in parts.into_iter().zip(line) {
            kept.clear();
            kept.push_str(part);
        }
        cut.worth = !self.by_line || {
            self.fail.candidates(text, &mut self.candidates);
            !self.candidates.is_empty()
        };
        self.lines.push(cut);
        if !self.lines.iter().any(|cut| cut.worth) {
            return false;
        }
        text.clear();
        join(text, &self.lines);
        true
    }

    /// What the expressions say of `text`: the line, or with `maxlines` the last lines. `whole`: the line with its date.
    fn judge(
        &mut self,
        text: &str,
        whole: &dyn Fn() -> String,
        date: Option<f64>,
        phase: Phase,
        failures: &mut Vec<Failure>,
    ) -> Seen {
        // Early, where that costs less than all failregexes (33).
        if self.ignore.all().len() + 2 < self.fail.all().len()
            && let Some(ignored) = self.ignored(text)
        {
            return Seen::Ignored(ignored);
        }
        // What a failregex cannot be found without is in the content only if it is in the text.
        let mut candidates = std::mem::take(&mut self.candidates);
        self.fail.candidates(text, &mut candidates);
        let seen = self.judge_by(&mut candidates, text, whole, date, phase, failures);
        self.candidates = candidates;
        seen
    }

    fn judge_by(
        &mut self,
        candidates: &mut Vec<usize>,
        text: &str,
        whole: &dyn Fn() -> String,
        date: Option<f64>,
        phase: Phase,
        failures: &mut Vec<Failure>,
    ) -> Seen {
        // With `maxlines` a prefregex changes what later lines are judged with.
        if candidates.is_empty() && (self.maxlines == 1 || self.pre.is_none()) {
            return Seen::Missed;
        }
        let mut has_content = false;
        if let Some(pre) = &self.pre {
            let found = pre.find(text, &mut self.pre_groups);
            self.passed = Some(found == Found::Yes);
            match found {
                Found::Yes => {}
                Found::No => return Seen::Missed,
                Found::TooHard => {
                    self.too_hard = Some(pre.source().to_owned());
                    return Seen::Missed;
                }
            }
            let part = self
                .pre_recipe
                .as_ref()
                .and_then(|recipe| text.get(self.pre_groups.get(recipe.group(CONTENT)?)?));
            if let Some(part) = part.filter(|part| !part.is_empty()) {
                has_content = true;
                self.content.clear();
                self.content.push_str(part);
                self.content.push('\n');
            }
        }
        let content = std::mem::take(&mut self.content);
        let part = has_content.then_some(content.as_str());
        let seen = self.judge_part(candidates, text, part, whole, date, phase, failures);
        self.content = content;
        seen
    }

    /// The same of the part of `text` that the prefregex found, if it found one.
    #[allow(
        clippy::too_many_arguments,
        reason = "what is known of one line, handed on"
    )]
    fn judge_part(
        &mut self,
        candidates: &mut Vec<usize>,
        text: &str,
        content: Option<&str>,
        whole: &dyn Fn() -> String,
        date: Option<f64>,
        phase: Phase,
        failures: &mut Vec<Failure>,
    ) -> Seen {
        // What a multi-line expression covers are the last lines as they were, even where only the content is searched.
        let mut lines = Vec::new();
        if self.maxlines > 1 {
            lines.clone_from(&self.lines);
            if let Some(content) = content {
                self.lines = vec![Cut {
                    after: content.trim_end_matches('\n').to_owned(),
                    ..Cut::default()
                }];
            }
        }
        let mut searched = Cow::Borrowed(content.unwrap_or(text));
        let mut seen = Seen::Missed;
        let mut hard = false;
        let mut next = 0;
        while let Some(regex) = candidates.get(next).copied() {
            next += 1;
            let (Some(pattern), Some(recipe)) =
                (self.fail.all().get(regex), self.recipes.get(regex))
            else {
                continue;
            };
            // Together they take no longer than one may.
            let found = match hard {
                false => pattern.find(&searched, &mut self.groups),
                true => pattern.find_quickly(&searched, &mut self.groups),
            };
            match found {
                Found::Yes => {}
                Found::No => continue,
                Found::TooHard => {
                    self.too_hard.get_or_insert(pattern.source().to_owned());
                    hard = true;
                    continue;
                }
            }
            let groups = &mut self.found.groups;
            groups.read(recipe, &self.groups, &searched);
            let covered = (self.maxlines > 1).then(|| {
                let skipped = recipe.skipped.iter().filter_map(|name| groups.text(*name));
                Covered::by(
                    self.groups.whole(),
                    &skipped.collect::<String>(),
                    &searched,
                    &lines,
                )
            });
            let matching = covered.as_ref().map(|covered| joined(&covered.matched));
            if let Some(ignored) = self.ignored(matching.as_deref().unwrap_or(&searched)) {
                if let Some(covered) = covered {
                    self.lines = covered.left;
                }
                seen = Seen::Ignored(ignored);
                break;
            }
            if date.is_none() && phase != Phase::Timeless {
                continue;
            }
            let matched = |lines: &mut Vec<String>| match &covered {
                Some(covered) => lines.extend(covered.matched.iter().map(Cut::whole)),
                None => lines.push(whole()),
            };
            // In 1.0.2 a group of the failregex that took no part hides the one of prefregex (35).
            if let Some(recipe) = &self.pre_recipe {
                self.pre_found.read(recipe, &self.pre_groups, text);
                self.pre_found.remove(CONTENT);
                self.found.groups.complete(&self.pre_found);
            }
            // All of these took no part: fail2ban goes on to the next one, too, with what this one left of the lines.
            if [MLFID, IP4, IP6, DNS, FID]
                .iter()
                .all(|name| self.found.groups.get(*name).is_none())
            {
                self.lines = covered.map(|covered| covered.left).unwrap_or_default();
                searched = Cow::Owned(joined(&self.lines));
                candidates.truncate(next);
                candidates.extend(regex + 1..self.fail.all().len());
                continue;
            }
            seen = self.fail(regex, &matched, date, failures);
            if let Some(covered) = covered {
                self.lines = covered.left;
            }
            break;
        }
        seen
    }

    /// The first ignoreregex that is found.
    fn ignored(&mut self, text: &str) -> Option<usize> {
        if self.ignore.all().is_empty() {
            return None;
        }
        let mut candidates = Vec::new();
        self.ignore.candidates(text, &mut candidates);
        let groups = &mut self.ignore_groups;
        candidates.into_iter().find(|n| {
            let pattern = self.ignore.all().get(*n);
            pattern.is_some_and(|pattern| pattern.find(text, groups) == Found::Yes)
        })
    }

    /// A failregex was found: whom is it about, and is it a failure by itself? (36, 42 to 46)
    fn fail(
        &mut self,
        regex: usize,
        matched: &dyn Fn(&mut Vec<String>),
        time: Option<f64>,
        failures: &mut Vec<Failure>,
    ) -> Seen {
        let mut fail = std::mem::take(&mut self.found);
        fail.forget();
        let seen = if fail.groups.text(MLFID).is_none() {
            matched(&mut fail.matches);
            self.told(regex, &fail, time, failures)
        } else {
            let place = self.sessions.merge(&mut fail, matched, Instant::now());
            let seen = if fail.is_nofail() {
                Seen::Noted(regex)
            } else if [IP4, IP6, DNS, FID]
                .iter()
                .all(|name| fail.groups.get(*name).is_none())
            {
                fail.pending = true;
                Seen::Noted(regex)
            } else {
                self.told(regex, &fail, time, failures)
            };
            if let Some(place) = place {
                self.sessions.keep(place, &mut fail);
            }
            seen
        };
        self.found = fail;
        seen
    }

    /// Adds the failure.
    fn told(
        &self,
        regex: usize,
        fail: &Fail,
        time: Option<f64>,
        failures: &mut Vec<Failure>,
    ) -> Seen {
        let any = if self.usedns == UseDns::Raw {
            Form::Raw
        } else {
            Form::Any
        };
        let bits = || {
            fail.groups
                .text(CIDR)
                .filter(|bits| !bits.is_empty())
                .map(|bits| bits.parse().ok())
        };
        let fid = fail.groups.get(FID);
        let (host, form) = if let Some(ip4) = fail.groups.text(IP4) {
            (
                Some(ip4),
                bits().map_or(Some(Form::V4), |bits| bits.map(Form::Cidr)),
            )
        } else if let Some(ip6) = fail.groups.text(IP6) {
            (
                Some(ip6),
                bits().map_or(Some(Form::V6), |bits| bits.map(Form::Cidr)),
            )
        } else {
            (fail.groups.text(DNS), Some(any))
        };
        // A name; whatever else says who it is does not count then (36).
        let name = host.filter(|_| form == Some(any) && any == Form::Any);
        let looked_up = matches!(self.usedns, UseDns::Yes | UseDns::Warn);
        let (id, unresolved) = match (name, host, fid) {
            (Some(name), _, _) => match id::address(name, looked_up) {
                Some(addr) => (Some(addr), false),
                None => (looked_up.then(|| name.to_owned()), looked_up),
            },
            (None, _, Some(fid @ Value::Tuple(_))) => (Some(fid.to_string()), false),
            (None, Some(host), Some(Value::Text(fid))) if fid != host => {
                (id::normal(fid, any), false)
            }
            (None, Some(host), _) => (form.and_then(|form| id::normal(host, form)), false),
            (None, None, Some(Value::Text(fid))) => (id::normal(fid, any), false),
            (None, None, None) => (None, false),
        };
        let Some(id) = id else {
            return Seen::Dropped;
        };
        // Where something else than the address is counted, fail2ban keeps the address under this name.
        let elsewhere = name.is_none()
            && host.is_some()
            && fid.is_some_and(|fid| Some(fid) != host.map(Value::Text));
        let mut groups = Groups::new(&self.names, &fail.groups);
        if elsewhere {
            groups.remove(IP);
        }
        failures.push(Failure {
            regex,
            host: host.map_or_else(|| id.clone(), str::to_owned),
            id,
            unresolved,
            time,
            groups,
            users: fail.users.clone(),
            matches: fail.matches.clone(),
        });
        Seen::Failed
    }
}

/// Where the date of a line is.
enum Dated {
    /// It has none.
    Nowhere,
    /// There, and it is cut out.
    Here(Range<usize>),
    /// It has none, and the last known one is put before it.
    Before,
}

/// The last lines, parted by a multi-line expression (40).
struct Covered {
    /// Those it covers, without those that SKIPLINES took.
    matched: Vec<Cut>,
    /// The others.
    left: Vec<Cut>,
}

impl Covered {
    fn by(span: Range<usize>, skipped: &str, text: &str, lines: &[Cut]) -> Self {
        if lines.len() <= 1 {
            return Self {
                matched: lines.to_vec(),
                left: Vec::new(),
            };
        }
        let bytes = text.as_bytes();
        // The newline that an expression begins with belongs to the line before it.
        let from = bytes.get(..=span.start).map_or(0, |head| {
            memchr::memrchr(b'\n', head).map_or(0, |at| at + 1)
        });
        let to = span
            .end
            .checked_sub(1)
            .and_then(|last| memchr::memchr(b'\n', bytes.get(last..)?).map(|at| last + at + 1));
        let to = to.unwrap_or(text.len());
        let count =
            |end: usize| memchr::memchr_iter(b'\n', bytes.get(..end).unwrap_or_default()).count();
        let (first, behind) = (count(from).min(lines.len()), count(to).min(lines.len()));
        let mut matched: Vec<Cut> = lines.get(first..behind).unwrap_or_default().to_vec();
        let mut left: Vec<Cut> = lines.get(..first).unwrap_or_default().to_vec();
        let mut from = 0;
        for line in skipped.lines() {
            let found = matched.iter().skip(from).position(|cut| {
                line.strip_prefix(cut.before.as_str())
                    .is_some_and(|rest| rest == cut.after)
            });
            if let Some(at) = found {
                left.push(matched.remove(from + at));
                from += at;
            }
        }
        left.extend(lines.get(behind..).unwrap_or_default().iter().cloned());
        Self { matched, left }
    }
}

/// Lines without their dates, each with a newline; a newline at least.
fn joined(lines: &[Cut]) -> String {
    let mut text = String::new();
    join(&mut text, lines);
    if lines.is_empty() {
        text.push('\n');
    }
    text
}

/// Lines without their dates, each with a newline.
fn join(text: &mut String, lines: &[Cut]) {
    for line in lines {
        text.push_str(&line.before);
        text.push_str(&line.after);
        text.push('\n');
    }
}

#[cfg(test)]
mod tests;
