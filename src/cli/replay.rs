//! `replay`: the decisions on old logs, by their own times.
//!
//! The lines walk through the rooms of `run`, with three things put in their places: the clock is the latest time that
//! any line has told so far, bans are only remembered, and nobody is spared for what is true of this host today (its own
//! addresses, who is logged in). A line that comes out of order counts at the clock, and so does one whose time cannot
//! be read; times count to the millisecond.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Local};
use serde::Serialize;

use super::{Done, Failure, Outcome, ReplayArgs, each_line, explain, usable};
use crate::act::Act;
use crate::config::{Backend, Config, Mode};
use crate::decide::BanFor;
use crate::exempt::{Exempt, Target};
use crate::filter;
use crate::frame::{Framed, Trust};
use crate::hit::{Arrival, JailId};
use crate::judge::{self, Decision, Judge, Reader};
use crate::parse::{Format, Misfit};

/// How much of a file is read at once, bytes.
const CHUNK_BYTES: usize = 256 * 1024;
/// How a file begins that gzip wrote (RFC 1952).
const GZIP: &[u8] = &[0x1f, 0x8b];

/// `f2b-pipe replay LOG...`. `--json`: one object for each decision, in the order of their times: `{"time": 1480000000.0,
/// "jail": "apache-dos", "ip": "192.0.2.7", "action": "ban", "until": 1480000600.0, "hits": 100}`.
///
/// - `time`: the clock; of an `unban` the end of the ban. Seconds since the epoch.
/// - `ip`: an IPv6 client as its set lists him, the first address of his prefix: `2001:db8:1:2::`.
/// - `action`: `ban`; `prolong`: a ban that stands gets a later end; `unban`: once the clock is past the end.
/// - `until`: the end of the ban; of an `unban` its `time`; `null`: for ever.
/// - `hits`: how many of them within findtime, at most maxretry; of an `unban` 0.
///
/// Limits that ban nobody (mode observe, ignoreip, a proxy) are told to people only.
///
/// # Errors
/// The configuration, the format or a log cannot be used, or the output cannot be written.
pub fn replay(args: &ReplayArgs, out: &mut dyn Write) -> Done {
    let format = Format::compile(&args.format)
        .map_err(|error| Failure::Usage(format!("--format: {error}")))?;
    if !format.has_time() {
        return Err(Failure::Usage(
            "--format: it has no time that could be read back, so nobody can tell when its lines were written; replay needs \
             %t, or a %{...}t of digits such as %{usec}t or %{%Y-%m-%d %H:%M:%S}t"
                .into(),
        ));
    }
    let mut config = usable(&args.place)?;
    config.firewall.backend = Backend::DryRun;
    // All of them first: a typing error in the last name should not cost the time of the others.
    let logs: Vec<Log> = args.logs.iter().map(open).collect::<Result<_, _>>()?;
    let mut replay = Replay::new(config, format, args.json, out)?;
    for log in logs {
        replay.log(log)?;
    }
    replay.end()
}

/// A log, opened.
struct Log {
    name: String,
    input: BufReader<Box<dyn Read>>,
}

fn open(path: &PathBuf) -> Result<Log, Failure> {
    let name = path.display().to_string();
    let opened: io::Result<Box<dyn Read>> = if name == "-" {
        Ok(Box::new(io::stdin()))
    } else {
        File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let mut input = opened
        .map(|input| BufReader::with_capacity(CHUNK_BYTES, input))
        .map_err(|error| unreadable(&name, &error))?;
    let begin = input
        .fill_buf()
        .map_err(|error| unreadable(&name, &error))?;
    if begin.starts_with(GZIP) {
        let text = format!("{name}: is compressed; write zcat {name} | f2b-pipe replay -");
        return Err(Failure::Usage(text));
    }
    Ok(Log { name, input })
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::Usage(format!("{name}: cannot be read: {error}"))
}

/// What people are told where a jail only observes.
const WOULD_BAN: &str = "would ban";

/// What is told of a decision.
struct Told {
    jail: JailId,
    who: Target,
    hits: u32,
    what: What,
}

enum What {
    Ban(BanFor),
    Prolong(BanFor),
    /// Nobody is banned: in a word, and why.
    Not(&'static str, String),
}

impl From<Decision<'_>> for Told {
    fn from(decision: Decision<'_>) -> Self {
        let what = match decision.outcome {
            judge::Outcome::Banned { ban_for, .. } => What::Ban(ban_for),
            judge::Outcome::Prolonged(ban_for) => What::Prolong(ban_for),
            judge::Outcome::Observed => What::Not(WOULD_BAN, "mode = \"observe\"".into()),
            judge::Outcome::Spared(spared) => What::Not("spare", spared.to_string()),
            judge::Outcome::Proxied(peer) => What::Not(
                "cannot ban",
                format!("comes through {peer}, and a packet filter sees only that"),
            ),
            judge::Outcome::Off => What::Not("cannot ban", "switched off".into()),
            judge::Outcome::Failed(error) => What::Not("cannot ban", error.to_string()),
        };
        Self {
            jail: decision.id,
            who: decision.who,
            hits: decision.hits,
            what,
        }
    }
}

/// One line of output.
struct Row<'a> {
    /// Microseconds since the epoch.
    time: i64,
    action: &'a str,
    jail: JailId,
    who: Target,
    hits: u32,
    /// Microseconds since the epoch.
    until: Option<i64>,
    /// For people.
    text: &'a str,
}

/// The same with `--json`.
#[derive(Serialize)]
struct Object<'a> {
    time: f64,
    jail: &'a str,
    ip: String,
    action: &'a str,
    until: Option<f64>,
    hits: u32,
}

struct Replay<'o> {
    config: Arc<Config>,
    format: Format,
    judge: Judge,
    json: bool,
    out: &'o mut dyn Write,
    /// The first time of all, and the latest so far; microseconds since the epoch.
    times: Option<(i64, i64)>,
    /// When the bans that stand end; `None`: never.
    ends: HashMap<(JailId, Target), Option<i64>>,
    /// By jail: whom it banned, or would have.
    caught: Vec<HashSet<Target>>,
    /// Of what bans nobody each is told once.
    told: HashSet<(JailId, Target, &'static str)>,
    /// The first line that does not fit, for people.
    misfit: Option<String>,
    /// Lines that fit, and whose time is none (the 31st of February).
    undated: u64,
}

impl<'o> Replay<'o> {
    fn new(
        mut config: Config,
        format: Format,
        json: bool,
        out: &'o mut dyn Write,
    ) -> Result<Self, Failure> {
        for (jail, lacks) in filter::observe_blind(&mut config.jails, &format) {
            log::warn!(
                "jail {jail} has exceptions by {lacks}, which is not in --format: it only observes"
            );
        }
        for (jail, lacks) in filter::unmeetable(&config.jails, &format) {
            log::warn!(
                "jail {jail} needs {lacks}, which is not in --format; nothing will count for it"
            );
        }
        let named: BTreeSet<&String> = config
            .jails
            .iter()
            .flat_map(|jail| &jail.ignoreip_names)
            .collect();
        for name in named {
            log::warn!(
                "ignoreip: {name} is not looked up: what it means today says nothing of an old log; write its address"
            );
        }
        let config = Arc::new(config);
        let judge = Judge::new(
            Arc::clone(&config),
            Reader::Access(format.clone()),
            Exempt::of_config_only(&config),
            Act::new(&config),
            Arc::default(),
        )
        .map_err(|error| Failure::Usage(format!("the patterns of all jails together: {error}")))?;
        Ok(Self {
            caught: vec![HashSet::new(); config.jails.len()],
            config,
            format,
            judge,
            json,
            out,
            times: None,
            ends: HashMap::new(),
            told: HashSet::new(),
            misfit: None,
            undated: 0,
        })
    }

    /// Judges all lines of a log, also a last one without a newline.
    fn log(&mut self, Log { name, input }: Log) -> Result<(), Failure> {
        let mut number = 0;
        let take = |framed: Framed<'_>| {
            number += 1;
            Ok(self.line(framed, &name, number)?)
        };
        each_line(input, take, |error| unreadable(&name, &error))
    }

    fn line(&mut self, framed: Framed<'_>, name: &str, number: u64) -> io::Result<()> {
        let logged = self.format.logged(framed.bytes());
        if let Some(at) = logged {
            let (first, clock) = self.times.unwrap_or((at, at));
            self.times = Some((first, clock.max(at)));
        }
        self.unban()?;
        let mut decisions = Vec::new();
        let now = Arrival(millis(self.clock()));
        let result = self.judge.line(framed, Trust::Whole, now, &mut |decision| {
            decisions.push(Told::from(decision));
        });
        match result {
            Ok(()) if logged.is_none() => self.undated += 1,
            Err(misfit) if self.misfit.is_none() => {
                self.misfit = Some(first_misfit(name, number, framed.bytes(), misfit));
            }
            Ok(()) | Err(_) => {}
        }
        // As the jails stand in the configuration.
        decisions.sort_by_key(|told| told.jail);
        decisions.iter().try_for_each(|told| self.decided(told))
    }

    fn clock(&self) -> i64 {
        self.times.map_or(0, |(_, clock)| clock)
    }

    /// Tells the bans that ended before the clock.
    fn unban(&mut self) -> io::Result<()> {
        let now = millis(self.clock());
        while let Some(ended) = self.judge.act().ended(now) {
            let Some(Some(end)) = self.ends.remove(&(ended.jail, ended.who)) else {
                continue;
            };
            self.tell(&Row {
                time: end,
                action: "unban",
                jail: ended.jail,
                who: ended.who,
                hits: 0,
                until: Some(end),
                text: "",
            })?;
        }
        Ok(())
    }

    fn decided(&mut self, told: &Told) -> io::Result<()> {
        let Told {
            jail, who, hits, ..
        } = *told;
        let mut row = Row {
            time: self.clock(),
            action: "",
            jail,
            who,
            hits,
            until: None,
            text: "",
        };
        let ban_for = match &told.what {
            What::Ban(ban_for) => {
                row.action = "ban";
                ban_for
            }
            What::Prolong(ban_for) => {
                row.action = "prolong";
                ban_for
            }
            What::Not(word, why) => {
                if *word == WOULD_BAN {
                    self.catch(jail, who);
                }
                if self.json || !self.told.insert((jail, who, *word)) {
                    return Ok(());
                }
                (row.action, row.text) = (word, why);
                return self.tell(&row);
            }
        };
        self.catch(jail, who);
        row.until = match ban_for {
            BanFor::Timed(secs) => Some(row.time + i64::from(secs.get()) * 1_000_000),
            BanFor::Forever => None,
        };
        // Prolonged within the same moment, or for ever again: no end has moved.
        if self.ends.insert((jail, who), row.until) == Some(row.until) {
            return Ok(());
        }
        let until = row.until.map_or_else(
            || "for ever".to_owned(),
            |end| format!("until {}", day_and_time(end)),
        );
        row.text = &until;
        self.tell(&row)
    }

    fn catch(&mut self, jail: JailId, who: Target) {
        if let Some(caught) = self.caught.get_mut(usize::from(jail)) {
            caught.insert(who);
        }
    }

    fn tell(&mut self, row: &Row<'_>) -> io::Result<()> {
        let jail = self.config.jails.get(usize::from(row.jail));
        let jail = jail.map_or("", |jail| &jail.name);
        let ip = row.who.to_string();
        if self.json {
            let object = Object {
                time: secs(row.time),
                jail,
                ip,
                action: row.action,
                until: row.until.map(secs),
                hits: row.hits,
            };
            return writeln!(self.out, "{}", serde_json::to_string(&object)?);
        }
        let hits = match row.hits {
            0 => String::new(),
            n => format!("{n} hits"),
        };
        let line = format!(
            "{}  {:<10}  {ip:<20}  {jail:<20}  {hits:>11}  {}",
            day_and_time(row.time),
            row.action,
            row.text
        );
        writeln!(self.out, "{}", line.trim_end())
    }

    /// What it all came to.
    fn end(self) -> Done {
        let tally = self.judge.tally();
        let none_fits = tally.lines > 0 && tally.unparsed == tally.lines;
        match (&self.misfit, self.json) {
            (Some(misfit), true) if none_fits => {
                log::warn!("none of {} lines fits the format; {misfit}", tally.lines);
            }
            (_, true) => {}
            (_, false) => self.summary()?,
        }
        Ok(if none_fits {
            Outcome::NotSo
        } else {
            Outcome::Fine
        })
    }

    fn summary(self) -> io::Result<()> {
        let tally = self.judge.tally();
        let out = self.out;
        if !self.ends.is_empty() || self.caught.iter().any(|caught| !caught.is_empty()) {
            writeln!(out)?;
        }
        write!(out, "{} lines", tally.lines)?;
        if let Some((first, last)) = self.times {
            write!(out, ", {} to {}", day_and_time(first), day_and_time(last))?;
        }
        match tally.unparsed {
            0 => {}
            n if n == tally.lines => write!(out, "; none of them fits the format")?,
            n => write!(out, "; {n} do not fit the format and count for nobody")?,
        }
        if self.undated > 0 {
            write!(
                out,
                "; {} have no time that could be, and count at the time of the line before",
                self.undated
            )?;
        }
        writeln!(out)?;
        if let Some(misfit) = &self.misfit {
            writeln!(out, "  {misfit}")?;
        }
        writeln!(
            out,
            "\n{:<20}  {:>9}  {:>7}  {:>7}",
            "jail", "hits", "bans", "clients"
        )?;
        for ((jail, counts), caught) in self.config.jails.iter().zip(&tally.jails).zip(&self.caught)
        {
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
        let standing = self.ends.len();
        writeln!(out, "\n{standing} bans still stand at the end of the log")?;
        if tally.spared > 0 {
            writeln!(
                out,
                "{} limits were reached by clients that are never banned",
                tally.spared
            )?;
        }
        if self.judge.counter().evicted() > 0 {
            writeln!(
                out,
                "{} clients with hits were forgotten, because there were too many of them",
                self.judge.counter().evicted()
            )?;
        }
        Ok(())
    }
}

fn first_misfit(name: &str, number: u64, line: &[u8], misfit: Misfit) -> String {
    let cited = explain::around(line, misfit.at);
    let hint = explain::nickname(line)
        .map_or_else(String::new, |name| format!(" (--format {name} would fit)"));
    format!(
        "{name}:{number}: at column {} there should be {}{hint}: {cited}",
        misfit.at + 1,
        misfit.wants
    )
}

fn millis(micros: i64) -> u64 {
    u64::try_from(micros / 1000).unwrap_or(0)
}

fn secs(micros: i64) -> f64 {
    micros as f64 / 1e6
}

fn day_and_time(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).map_or_else(
        || "?".to_owned(),
        |time| {
            time.with_timezone(&Local)
                .format("%Y-%m-%d %H:%M:%S")
                .to_string()
        },
    )
}
