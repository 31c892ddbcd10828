//! What is changed while the program runs: a jail switched off or made to observe, an address that is never banned, a
//! setting of a jail, what is told.
//!
//! ```text
//! f2b-pipe jail, ignore, ... ─┐
//! fail2ban-client set ...    ─┼─> Change ─> the file of changes ─> every process: configuration + changes = Config
//! f2b-pipe reload, SIGHUP    ─┘                                    ─> its rooms go on with that
//! ```
//!
//! There is one way: a new [`Config`], which the rooms of every process go on with, without losing a count, a ban, a place
//! in a log or a line. Changes last until the next reload, which reads the configuration anew.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::bans::Written;
use crate::config::place::{self, Who};
use crate::config::{
    self, Config, FINDTIME_MAX, Jail, MATCHES_MAX, Problem, Raw, Severity, suggest,
};
use crate::decide::BanFor;
use crate::fail2ban::{IgnoreCache, LogPath, UseDns};
use crate::failregex::{MAXLINES_MAX, Matcher, Refused, Rules};
use crate::source::tail::Encoding;

pub(crate) mod course; // the configuration of a process, and how it comes to another one
mod kept; // the file
pub(crate) mod orders; // what the thread that counts httpd's hits is to do

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A jail bans, only observes, or is not there.
    Mode {
        /// Its name.
        jail: String,
        /// What it does from now on.
        mode: Mode,
    },
    /// Another value of a jail's setting.
    Set {
        /// Its name.
        jail: String,
        /// Which, and the value.
        to: Setting,
    },
    /// Addresses, networks (`192.0.2.0/24`) or host names that are never banned; in all jails, bans by hand too, if none is
    /// named.
    Ignore {
        /// Only there.
        jail: Option<String>,
        /// Who.
        who: Vec<String>,
    },
    /// No more. What the configuration says is taken back, too; what is in no list changes nothing.
    Unignore {
        /// Only there.
        jail: Option<String>,
        /// Who, as it stands in the list.
        who: Vec<String>,
    },
    /// What is told.
    LogLevel(Level),
}

/// What a jail does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It bans.
    On,
    /// It counts and tells, and bans nobody; who is banned gets in again.
    Observe,
    /// It is not there. What it counted and whom it banned is remembered, and holds again once it is.
    Off,
}

/// How much is told, as fail2ban and syslog name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// What keeps something from working.
    Error,
    /// The same, and what may.
    Warning,
    /// The same, and bans: the normal one.
    Info,
    /// The same, and what is otherwise too much.
    Debug,
    /// All there is.
    Trace,
}

impl Level {
    /// All of them by name.
    pub const NAMES: &[(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warning", Self::Warning),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];

    /// For the `log` crate.
    #[must_use]
    pub fn filter(self) -> log::LevelFilter {
        match self {
            Self::Error => log::LevelFilter::Error,
            Self::Warning => log::LevelFilter::Warn,
            Self::Info => log::LevelFilter::Info,
            Self::Debug => log::LevelFilter::Debug,
            Self::Trace => log::LevelFilter::Trace,
        }
    }
}

/// A setting of a jail, and what it is to be.
///
/// What is executed is none of them: `ignorecommand` and the commands of actions stand in the configuration alone, where the
/// process that runs them reads them ([`crate::privilege`]).
///
/// Those of expressions and logs are for jails that have them ([`Jail::raw`]); for a jail of httpd's lines they are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// Failures that are a ban, 1 to 100,000.
    MaxRetry(u32),
    /// Seconds, more than 0; 28 days at most where httpd's lines are counted.
    FindTime(f64),
    /// Seconds; `None`: for ever.
    BanTime(Option<f64>),
    /// `bantime.*`, all of them.
    Increment(Written),
    /// Lines kept for each address, 0 to 1000.
    MaxMatches(u32),
    /// Lines looked at together, at least 1.
    MaxLines(u32),
    /// What is done with names.
    UseDns(UseDns),
    /// Lines of `datepattern`; none: everything that is known.
    DatePattern(Vec<String>),
    /// The zone of dates without one; empty: the host's.
    LogTimeZone(String),
    /// The encoding of lines, or `auto`.
    LogEncoding(String),
    /// Own addresses are not banned.
    IgnoreSelf(bool),
    /// How long its answers are kept.
    IgnoreCache(Option<IgnoreCache>),
    /// What every line must match.
    PrefRegex(Option<String>),
    /// Expressions of failures, all of them. With none the jail finds nothing.
    FailRegex(Vec<String>),
    /// Expressions of what is no failure, all of them.
    IgnoreRegex(Vec<String>),
    /// One more log; one that is read already changes nothing.
    AddLogPath {
        /// Its path, a pattern of the shell.
        path: String,
        /// From its end on.
        tail: bool,
    },
    /// A log less.
    DelLogPath(String),
    /// What is read of the journal, all of it.
    JournalMatch(Vec<Vec<String>>),
    /// It counts nothing for a while: lines that come meanwhile are not looked at.
    Idle(bool),
}

impl Setting {
    /// Its key in the configuration.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::MaxRetry(_) => "maxretry",
            Self::FindTime(_) => "findtime",
            Self::BanTime(_) => "bantime",
            Self::Increment(_) => "bantime.increment",
            Self::MaxMatches(_) => "maxmatches",
            Self::MaxLines(_) => "maxlines",
            Self::UseDns(_) => "usedns",
            Self::DatePattern(_) => "datepattern",
            Self::LogTimeZone(_) => "logtimezone",
            Self::LogEncoding(_) => "logencoding",
            Self::IgnoreSelf(_) => "ignoreself",
            Self::IgnoreCache(_) => "ignorecache",
            Self::PrefRegex(_) => "prefregex",
            Self::FailRegex(_) => "failregex",
            Self::IgnoreRegex(_) => "ignoreregex",
            Self::AddLogPath { .. } | Self::DelLogPath(_) => "logpath",
            Self::JournalMatch(_) => "journalmatch",
            Self::Idle(_) => "idle",
        }
    }

    /// A later one of the same key says all that this one said.
    fn is_whole(&self) -> bool {
        !matches!(self, Self::AddLogPath { .. } | Self::DelLogPath(_))
    }
}

/// Most changes that are kept until a reload.
const CHANGES_MAX: usize = 10_000;
/// Most hits that a jail can want, as in the configuration.
const MAXRETRY_MAX: u32 = 100_000;

/// Adds `new` to changes that are kept. What a later one takes the place of goes.
///
/// # Errors
/// There are too many.
pub fn add(kept: &mut Vec<Change>, new: &[Change]) -> Result<(), Problem> {
    for change in new {
        kept.retain(|old| !replaces(change, old));
        kept.push(change.clone());
    }
    match kept.len() <= CHANGES_MAX {
        true => Ok(()),
        false => Err(problem(
            "",
            format!(
                "{} changes since the last reload, {CHANGES_MAX} are kept; write them into the configuration, and f2b-pipe reload",
                kept.len()
            ),
        )),
    }
}

fn replaces(new: &Change, old: &Change) -> bool {
    match (new, old) {
        (Change::Mode { jail, .. }, Change::Mode { jail: other, .. }) => jail == other,
        (
            Change::Set { jail, to },
            Change::Set {
                jail: other,
                to: was,
            },
        ) => jail == other && to.is_whole() && to.key() == was.key(),
        (Change::LogLevel(_), Change::LogLevel(_)) => true,
        _ => new == old,
    }
}

/// Makes the changes, in their order. One that cannot be is left out, and what is wrong with it returned.
pub fn apply(config: &mut Config, changes: &[Change]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut modes: Vec<(&str, Mode)> = Vec::new();
    for change in changes {
        let done = match change {
            Change::Mode { jail, mode } => named(config, jail).map(|_| {
                modes.retain(|(name, _)| name != jail);
                modes.push((jail, *mode));
            }),
            Change::Set { jail, to } => named(config, jail).and_then(|jail| {
                let name = jail.name.clone();
                set(jail, to).map_err(|text| problem(&format!("jail.{name}.{}", to.key()), text))
            }),
            Change::Ignore { jail, who } => ignore(config, jail.as_deref(), who, true),
            Change::Unignore { jail, who } => ignore(config, jail.as_deref(), who, false),
            Change::LogLevel(level) => {
                config.log_level = level.filter();
                Ok(())
            }
        };
        problems.extend(done.err());
    }
    for (name, mode) in modes {
        let Ok(jail) = named(config, name) else {
            continue;
        };
        match mode {
            Mode::On => jail.mode = config::Mode::Ban,
            Mode::Observe => jail.mode = config::Mode::Observe,
            Mode::Off => {
                config.jails.retain(|jail| jail.name != name);
                config.switched_off.push(name.to_owned());
            }
        }
    }
    problems
}

/// What is wrong with a change; `key` may be empty.
pub(crate) fn problem(key: &str, text: String) -> Problem {
    Problem {
        key: key.to_owned(),
        ..Problem::of_file(Severity::Error, std::path::Path::new("live change"), text)
    }
}

/// No jail is called `name`: which was meant?
pub(crate) fn unknown_jail<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let known: Vec<&str> = known.collect();
    let advice = match suggest::nearest(name, &known) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("there are: {}", known.join(", ")),
    };
    format!("no jail is called {name}; {advice}")
}

fn named<'c>(config: &'c mut Config, name: &str) -> Result<&'c mut Jail, Problem> {
    let names = || config.jails.iter().map(|jail| jail.name.as_str());
    let Some(at) = names().position(|known| known == name) else {
        return Err(problem("", unknown_jail(name, names())));
    };
    let jail = config.jails.get_mut(at);
    jail.ok_or_else(|| problem("", String::new()))
}

fn ignore(
    config: &mut Config,
    jail: Option<&str>,
    who: &[String],
    add: bool,
) -> Result<(), Problem> {
    let (mut nets, mut names) = (Vec::new(), Vec::new());
    for word in who {
        match place::who(word) {
            Ok(Who::Net(net) | Who::Masked(net)) => nets.push(net),
            Ok(Who::Name(name)) => names.push(name),
            Err(wrong) => return Err(problem("ignoreip", wrong.text)),
        }
    }
    let mut all = match jail {
        Some(name) if name == config.manual.name => vec![&mut config.manual],
        Some(name) => vec![named(config, name)?],
        None => config
            .jails
            .iter_mut()
            .chain([&mut config.manual])
            .collect(),
    };
    for jail in &mut all {
        each(&mut jail.ignoreip, &nets, add);
        each(&mut jail.ignoreip_names, &names, add);
    }
    Ok(())
}

fn each<T: PartialEq + Clone>(list: &mut Vec<T>, those: &[T], add: bool) {
    for one in those {
        let there = list.contains(one);
        if add && !there {
            list.push(one.clone());
        } else if !add && there {
            list.retain(|known| known != one);
        }
    }
}

/// Gives a jail's setting another value.
fn set(jail: &mut Jail, to: &Setting) -> Result<(), String> {
    match to {
        Setting::MaxRetry(n) => {
            if !(1..=MAXRETRY_MAX).contains(n) {
                return Err(format!("{n} is out of range; write 1 to {MAXRETRY_MAX}"));
            }
            jail.maxretry = *n;
            if let Some(raw) = &mut jail.raw {
                raw.terms.rule.maxretry = *n;
            }
        }
        Setting::FindTime(secs) => {
            let findtime = Duration::try_from_secs_f64(*secs)
                .ok()
                .filter(|time| *time >= Duration::from_millis(1))
                .ok_or_else(|| format!("{secs} is no such time; write more than 0 seconds"))?;
            match &mut jail.raw {
                Some(raw) => raw.terms.rule.findtime = *secs,
                None if findtime > FINDTIME_MAX => {
                    return Err(format!(
                        "{secs} s is more than 28 days, the longest there is"
                    ));
                }
                None => {}
            }
            jail.findtime = findtime;
        }
        Setting::BanTime(secs) => {
            jail.bantime = match secs {
                None => BanFor::Forever,
                Some(secs) => BanFor::of_secs(*secs)
                    .ok_or_else(|| format!("{secs} is no ban; write seconds, or -1 for ever"))?,
            };
            if let Some(raw) = &mut jail.raw {
                raw.terms.bantime = *secs;
            }
        }
        Setting::IgnoreSelf(is) => jail.ignoreself = *is,
        Setting::Idle(is) => jail.idle = *is,
        Setting::MaxLines(n) => {
            let most = u32::try_from(MAXLINES_MAX).unwrap_or(u32::MAX);
            if !(1..=most).contains(n) {
                return Err(format!("{n} is out of range; write 1 to {most}"));
            }
            rules(jail, to, |rules| rules.maxlines = *n as usize)?;
        }
        Setting::UseDns(usedns) => rules(jail, to, |rules| rules.usedns = *usedns)?,
        Setting::DatePattern(all) => rules(jail, to, |rules| rules.datepattern.clone_from(all))?,
        Setting::LogTimeZone(zone) => rules(jail, to, |rules| {
            rules.logtimezone = Some(zone.clone()).filter(|zone| !zone.is_empty());
        })?,
        Setting::PrefRegex(prefix) => rules(jail, to, |rules| rules.prefregex.clone_from(prefix))?,
        Setting::FailRegex(all) => rules(jail, to, |rules| rules.failregex.clone_from(all))?,
        Setting::IgnoreRegex(all) => rules(jail, to, |rules| rules.ignoreregex.clone_from(all))?,
        Setting::Increment(written) => {
            let increment = written.increment(&jail.name);
            let increment = increment.map_err(|error| error.to_string())?;
            let raw = raw(jail, to)?;
            raw.terms.increment = increment;
            raw.increment.clone_from(written);
        }
        Setting::MaxMatches(n) => {
            raw(jail, to)?.terms.rule.maxmatches = (*n as usize).min(MATCHES_MAX);
        }
        Setting::LogEncoding(encoding) => {
            Encoding::named(encoding).map_err(|error| error.to_string())?;
            raw(jail, to)?.encoding.clone_from(encoding);
        }
        Setting::IgnoreCache(cache) => raw(jail, to)?.ignorecache.clone_from(cache),
        Setting::AddLogPath { path, tail } => {
            let raw = raw(jail, to)?;
            if raw.logs.iter().all(|log| log.glob != *path) {
                let (glob, tail) = (path.clone(), *tail);
                raw.logs.push(LogPath { glob, tail });
            }
        }
        Setting::DelLogPath(path) => raw(jail, to)?.logs.retain(|log| log.glob != *path),
        Setting::JournalMatch(all) => raw(jail, to)?.journalmatch.clone_from(all),
    }
    Ok(())
}

/// What a jail has that judges by expressions.
fn raw<'j>(jail: &'j mut Jail, to: &Setting) -> Result<&'j mut Raw, String> {
    let name = &jail.name;
    jail.raw.as_deref_mut().ok_or_else(|| {
        let key = to.key();
        format!("jail {name} judges httpd's lines by conditions, so it has no {key}")
    })
}

/// Changes expressions, if what comes of it can be used.
fn rules(jail: &mut Jail, to: &Setting, change: impl FnOnce(&mut Rules)) -> Result<(), String> {
    let raw = raw(jail, to)?;
    let mut rules = raw.rules.clone();
    change(&mut rules);
    match Matcher::new(&rules) {
        Ok(_) | Err(Refused::Empty) => raw.rules = rules,
        Err(refused) => return Err(refused.to_string()),
    }
    Ok(())
}

/// The configuration with what was changed since, for a command that looks beside the running processes.
pub(crate) fn live(config: &mut Config, paths: &config::RuntimePaths) {
    if let Ok(kept) = kept::Kept::read(&paths.changes()) {
        // What cannot be any more is told by the processes.
        apply(config, &kept.changes);
    }
}

/// As `ignore list` shows it: networks, then names.
#[must_use]
pub fn ignored(jail: &Jail) -> Vec<String> {
    let shown = |net: &IpNet| match net.prefix_len() == net.max_prefix_len() {
        true => net.addr().to_string(),
        false => net.to_string(),
    };
    let nets = jail.ignoreip.iter().map(shown);
    nets.chain(jail.ignoreip_names.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_are_kept_have_a_bound() {
        let ignore = |n: usize| Change::Ignore {
            jail: None,
            who: vec![n.to_string()],
        };
        let mut kept: Vec<Change> = (0..CHANGES_MAX).map(ignore).collect();
        // The same once more is no more.
        assert_eq!(add(&mut kept, &[ignore(0)]), Ok(()));
        assert_eq!(kept.len(), CHANGES_MAX);
        let error = add(&mut kept, &[ignore(CHANGES_MAX)]).unwrap_err();
        assert!(error.to_string().contains("f2b-pipe reload"), "{error}");
    }
}
