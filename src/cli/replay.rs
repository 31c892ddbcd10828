//! `replay`: the decisions on old logs, by their own times.
//!
//! The lines walk through the rooms of `run` and of `watch`, with three things put in their places: the clock is the latest
//! time that any line has told so far, bans are only remembered, and nobody is spared or looked up by what is true of this
//! host today (its own addresses, who is logged in, what the DNS says). A line that comes out of order counts at the clock
//! for jails of httpd's lines, and so does one whose time cannot be read; for jails that judge by expressions, as a log
//! that is followed counts for fail2ban.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Done, Failure, Outcome, ReplayArgs, each_line, usable_with};
use crate::config::{Backend, Config, Mode};
use crate::date::now;
use crate::failregex::Stamp;
use crate::frame::Framed;
use crate::hit::JailId;
use crate::judge::{self, JailTally};
use crate::key::Key;
use crate::parse::Format;
use crate::sift;

mod expressions; // jails that judge by expressions
pub(super) mod log; // what is read
pub(super) mod native; // jails that judge httpd's lines
pub(super) mod told; // what is told of a decision

use expressions::{Readers, Wards};
use log::{Log, unreadable};
use native::Native;
use told::{Told, WOULD_BAN, What, day_and_time};

/// `f2b-pipe replay LOG...`. The shape of `--json`, and which jails judge which log: `conf/man/replay.roff`.
///
/// # Errors
/// The configuration, the format or a log cannot be used, or the output cannot be written.
pub fn replay(args: &ReplayArgs, out: &mut dyn Write) -> Done {
    let format = Format::compile(&args.format)
        .map_err(|error| Failure::Usage(format!("--format: {error}")))?;
    let mut config = usable_with(&args.place, args.config_dir.as_deref())?;
    for broken in &config.broken {
        ::log::warn!("{}", broken.problem);
    }
    config.firewall.backend = Backend::DryRun;
    // All of them first: a typing error in the last name should not cost the time of the others.
    let logs: Vec<Log> = args
        .logs
        .iter()
        .map(|path| Log::open(path))
        .collect::<Result<_, _>>()?;
    let has_time = format.has_time();
    if has_time {
        native::adapt(&mut config, &format);
    }
    let config = Arc::new(config);
    let mut wards = Wards::new(&config);
    let paths: Vec<&[PathBuf]> = logs.iter().map(|log| log.paths.as_slice()).collect();
    let readers = wards.readers(&paths);
    let judged = readers.iter().any(|readers| !readers.is_empty());
    if !has_time && !args.stamped {
        let why = "--format: it has no time that could be read back, so nobody can tell when its lines were written";
        if !judged {
            return Err(Failure::Usage(format!(
                "{why}; replay needs %t, or a %{{...}}t of digits such as %{{usec}}t or %{{%Y-%m-%d %H:%M:%S}}t"
            )));
        }
        ::log::warn!("{why}; only jails with expressions take part");
    }
    let named: BTreeSet<&String> = config
        .jails
        .iter()
        .flat_map(|jail| &jail.ignoreip_names)
        .collect();
    for name in named {
        ::log::warn!(
            "ignoreip: {name} is not looked up: what it means today says nothing of an old log; write its address"
        );
    }
    let native = if has_time || args.stamped {
        Some(Native::new(&config, format)?)
    } else {
        None
    };
    let mut replay = Replay {
        caught: vec![HashSet::new(); config.jails.len()],
        config,
        native,
        wards,
        judged,
        by_path: readers.iter().any(|readers| readers.by_path),
        stamped: args.stamped,
        json: args.json,
        today: args.now.unwrap_or_else(now),
        out,
        times: None,
        readings: Vec::new(),
        lines: 0,
        told: HashSet::new(),
    };
    for (log, readers) in logs.into_iter().zip(&readers) {
        replay.log(log, readers)?;
    }
    replay.end()
}

struct Replay<'o> {
    config: Arc<Config>,
    /// `None`: nobody can tell when lines of `--format` were written.
    native: Option<Native>,
    wards: Wards,
    /// Some jail judges some log by expressions.
    judged: bool,
    /// Because of its path.
    by_path: bool,
    stamped: bool,
    json: bool,
    /// What decides the year of a date that has none, seconds since the epoch.
    today: f64,
    out: &'o mut dyn Write,
    /// The first time of all, and the latest so far; seconds since the epoch.
    times: Option<(f64, f64)>,
    /// Times that the line at hand tells.
    readings: Vec<f64>,
    lines: u64,
    /// By jail: whom it banned, or would have.
    caught: Vec<HashSet<Key>>,
    /// Of what bans nobody each is told once.
    told: HashSet<(JailId, Key, &'static str)>,
}

impl Replay<'_> {
    /// Judges all lines of a log, also a last one without a newline.
    fn log(&mut self, log: Log, readers: &Readers) -> Result<(), Failure> {
        let Log { name, input, .. } = log;
        let mut number = 0;
        let take = |framed: Framed<'_>| {
            number += 1;
            self.line(framed, readers, &name, number)
        };
        each_line(input, take, |error| unreadable(&name, &error))
    }

    fn line(
        &mut self,
        framed: Framed<'_>,
        readers: &Readers,
        name: &str,
        number: u64,
    ) -> Result<(), Failure> {
        self.lines += 1;
        let (framed, stamp) = match self.stamped {
            true => unstamped(framed, name, number)?,
            false => (framed, Stamp::InText),
        };
        let line = framed.bytes();
        let own = match stamp {
            Stamp::Known(at) => Some(at),
            Stamp::InText => self.native.as_ref().and_then(|native| native.time(line)),
        };
        self.readings.clear();
        self.readings.extend(own);
        self.wards
            .times(line, stamp, readers, self.today, &mut self.readings);
        if let Some(at) = agreed(&mut self.readings) {
            let (first, clock) = self.times.unwrap_or((at, at));
            self.times = Some((first, clock.max(at)));
        }
        let clock = self.times.map(|(_, clock)| clock);
        let mut told = Vec::new();
        if let Some(clock) = clock {
            if let Some(native) = &mut self.native {
                native.advance(clock, &mut told);
            }
            self.wards.advance(clock, &mut told);
            told.sort_by(|a, b| a.time.total_cmp(&b.time).then(a.jail.cmp(&b.jail)));
        }
        if let Some(native) = &mut self.native {
            let mut reached = Vec::new();
            let place = (!readers.by_path).then_some((name, number));
            let clock = clock.unwrap_or(0.0);
            native.line(framed, own.is_some(), clock, place, &mut reached);
            for decision in reached {
                let banned = matches!(decision.what, What::Ban(_));
                let (by, who) = (decision.jail, decision.who.clone());
                told.push(decision);
                if banned {
                    self.wards.banned(by, &who, clock, &mut told);
                }
            }
        }
        if matches!(framed, Framed::Line(_)) {
            self.wards.line(line, readers, clock, self.today, &mut told);
        }
        Ok(told.iter().try_for_each(|told| self.tell(told))?)
    }

    fn tell(&mut self, told: &Told) -> io::Result<()> {
        let caught = match &told.what {
            What::Ban(_) | What::Prolong(_) => true,
            What::Not(word, _) => *word == WOULD_BAN,
            What::Unban => false,
        };
        let at = usize::from(told.jail);
        if let (true, Some(all)) = (caught, self.caught.get_mut(at)) {
            all.insert(told.who.clone());
        }
        if let What::Not(word, _) = &told.what {
            let once = (told.jail, told.who.clone(), *word);
            if self.json || !self.told.insert(once) {
                return Ok(());
            }
        }
        let jail = self.config.jails.get(at).map_or("", |jail| &jail.name);
        match self.json {
            true => told.write_json(jail, self.out),
            false => told.write(jail, self.out),
        }
    }

    /// What it all came to.
    fn end(self) -> Done {
        let tally = self.native.as_ref().map(|native| native.sifter.tally());
        let none_fits = tally.is_none_or(|tally| tally.unparsed == tally.lines) && self.lines > 0;
        let none_fits = none_fits && !self.by_path && self.wards.hits() == 0;
        if self.json {
            let misfit = self
                .native
                .as_ref()
                .and_then(|native| native.misfit.as_ref());
            if let (true, Some(misfit)) = (none_fits, misfit) {
                ::log::warn!("none of {} lines fits the format; {misfit}", self.lines);
            }
            for (text, many) in self.left_out() {
                ::log::warn!("{many} {text}");
            }
        } else {
            self.summary()?;
        }
        Ok(if none_fits {
            Outcome::NotSo
        } else {
            Outcome::Fine
        })
    }

    /// Failures that count for nobody, and how many.
    fn left_out(&self) -> Vec<(&'static str, u64)> {
        let all = [
            (
                "failures are of host names, which are not looked up: what they mean today says nothing of an old log",
                self.wards.named,
            ),
            (
                "failures came before any line that tells a time, and count for nobody",
                self.wards.timeless,
            ),
        ];
        all.into_iter().filter(|(_, many)| *many > 0).collect()
    }

    fn summary(self) -> io::Result<()> {
        let left_out = self.left_out();
        let out = self.out;
        let nothing = judge::Tally::default();
        let native = self.native.as_ref();
        let tally = native.map_or(&nothing, |native| native.judge.tally());
        let read = native.map_or(sift::Tally::default(), |native| native.sifter.tally());
        let standing = native.map_or(0, |native| native.ends.len()) + self.wards.standing();
        if standing > 0 || self.caught.iter().any(|caught| !caught.is_empty()) {
            writeln!(out)?;
        }
        write!(out, "{} lines", self.lines)?;
        if let Some((first, last)) = self.times {
            write!(out, ", {} to {}", day_and_time(first), day_and_time(last))?;
        }
        match (read.unparsed, self.judged) {
            (0, _) => {}
            (n, false) if n == read.lines => write!(out, "; none of them fits the format")?,
            (n, false) => write!(out, "; {n} do not fit the format and count for nobody")?,
            (n, true) => write!(
                out,
                "; {n} do not fit --format, and count only for jails with expressions"
            )?,
        }
        let undated = native.map_or(0, |native| native.undated);
        if undated > 0 {
            write!(
                out,
                "; {undated} have no time that could be, and count at the time of the line before"
            )?;
        }
        writeln!(out)?;
        if let Some(misfit) = native.and_then(|native| native.misfit.as_ref()) {
            writeln!(out, "  {misfit}")?;
        }
        writeln!(
            out,
            "\n{:<20}  {:>9}  {:>7}  {:>7}",
            "jail", "hits", "bans", "clients"
        )?;
        for (at, (jail, caught)) in (0..).zip(self.config.jails.iter().zip(&self.caught)) {
            let counts: Option<JailTally> = match jail.raw {
                None => native.and_then(|_| tally.jails.get(usize::from(at)).copied()),
                Some(_) => self.wards.tally(at),
            };
            let Some(counts) = counts else { continue };
            let note = match jail.mode {
                Mode::Ban => "",
                Mode::Observe => "  would be banned (mode = \"observe\")",
            };
            let row = format!(
                "{:<20}  {:>9}  {:>7}  {:>7}{note}",
                jail.name,
                counts.hits,
                counts.bans,
                caught.len()
            );
            writeln!(out, "{row}")?;
        }
        writeln!(out, "\n{standing} bans still stand at the end of the log")?;
        if tally.spared > 0 {
            writeln!(
                out,
                "{} limits were reached by clients that are never banned",
                tally.spared
            )?;
        }
        let evicted = native.map_or(0, |native| native.judge.counter().evicted());
        let evicted = evicted + self.wards.evicted();
        if evicted > 0 {
            writeln!(
                out,
                "{evicted} clients with hits were forgotten, because there were too many of them"
            )?;
        }
        for (text, many) in left_out {
            writeln!(out, "{many} {text}")?;
        }
        Ok(())
    }
}

/// When a line was written, if jails read different dates in it: what most of them read, and of several such the latest.
/// One jail's pattern that finds a date of the next century in some number must not move the clock there for all.
fn agreed(readings: &mut [f64]) -> Option<f64> {
    readings.sort_unstable_by(f64::total_cmp);
    let runs = readings.chunk_by(|a, b| a == b);
    runs.max_by_key(|run| run.len())?.first().copied()
}

/// The text of a line that begins with its time, as journal entries do.
fn unstamped<'l>(
    framed: Framed<'l>,
    name: &str,
    number: u64,
) -> Result<(Framed<'l>, Stamp), Failure> {
    let line = framed.bytes();
    let (stamp, text) = match memchr::memchr(b'\t', line) {
        Some(at) => line.split_at(at),
        None => (line, &b""[..]),
    };
    let text = text.strip_prefix(b"\t").unwrap_or(text);
    let at = std::str::from_utf8(stamp)
        .ok()
        .and_then(|stamp| stamp.parse().ok());
    let Some(at) = at.filter(|at: &f64| at.is_finite()) else {
        return Err(Failure::Usage(format!(
            "{name}:{number}: --stamped: \"{}\" is no time; each line is seconds since the epoch, a tab, and the text",
            stamp.escape_ascii()
        )));
    };
    let framed = match framed {
        Framed::Line(_) => Framed::Line(text),
        Framed::Head(_) => Framed::Head(text),
    };
    Ok((framed, Stamp::Known(at)))
}
