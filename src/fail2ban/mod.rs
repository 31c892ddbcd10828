//! The host's fail2ban configuration, as it stands in /etc/fail2ban, to jails.
//!
//! In: a folder like /etc/fail2ban. Out: every enabled jail with all it needs to run, nothing left to be looked up: its
//! filter's expressions, its times, its actions' commands; every jail that cannot run, and why; and what is probably not
//! meant as it is written, of which fail2ban itself says nothing.
//!
//! Values go through four steps, one file each: `ini` (one file's syntax), `library` (files over files), `percent`
//! (`%(name)s`, asked when a value is asked for) and `tags` (`<name>`, in filters and actions). Two steps of replacing
//! cannot become one: what a `%(name)s` brings in may hold tags, and the same tag has other values in another jail.
//! Tags that are known only when there is a ban (`<ip>`, `<matches>`) stay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::{Place, Problem};

pub mod database; // what a fail2ban-server remembers

mod action; // action.d, and which of it our own sets replace
mod definition; // a file of filter.d or action.d with its parameters
mod filter; // a filter, alone or in a jail
mod ini; // one file's text to sections
mod jail; // a section to a jail
mod keys; // keys that nobody knows or uses
mod library; // files over files
mod percent; // %(name)s
mod seconds; // durations, numbers
mod tags; // <name>
mod words; // name[option=value], lists of words

pub use action::{Action, Block, Family};
pub(crate) use jail::ignorecache;
pub(crate) use seconds::{seconds, whole};

/// What `%(fail2ban_version)s` is: the version whose ways these are.
const VERSION: &str = "1.0.2";

/// Everything a folder says.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    /// Jails that are enabled and can run, in fail2ban's order.
    pub jails: Vec<Jail>,
    /// Jails that are enabled, or meant to be, and cannot run.
    pub broken: Vec<Broken>,
    /// What else is wrong, or probably not meant so.
    pub problems: Vec<Problem>,
    /// Every file that was read, each once, in the order of reading.
    pub files: Vec<PathBuf>,
}

impl Folder {
    /// Reads a folder such as /etc/fail2ban. Without a `jail.conf` or `jail.local` in it there are no jails, which is
    /// no problem: then there is no fail2ban here.
    #[must_use]
    pub fn read(dir: &Path) -> Self {
        jail::Reader::new(&[dir]).folder()
    }
}

/// A jail that cannot run. The others go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its name.
    pub jail: String,
    /// Why, and where.
    pub problem: Problem,
}

/// A jail with everything resolved.
#[derive(Clone, Debug)]
pub struct Jail {
    /// The section's name.
    pub name: String,
    /// Where its section begins first.
    pub written: Place,
    /// `backend`.
    pub backend: Backend,
    /// What is looked for in its lines.
    pub rules: FilterRules,
    /// `logpath`; empty where the journal is read.
    pub logpath: Vec<LogPath>,
    /// `logencoding`: `auto`, or the name of an encoding.
    pub logencoding: String,
    /// `logtimezone`: the zone of stamps that have none.
    pub logtimezone: Option<String>,
    /// Failures within findtime that make a ban.
    pub maxretry: u32,
    /// Seconds.
    pub findtime: f64,
    /// How long a ban is.
    pub bantime: BanTime,
    /// `bantime.*`: how bans grow.
    pub increment: Increment,
    /// Lines kept for each address, for reports.
    pub maxmatches: u32,
    /// Words of `ignoreip`: addresses, networks, names.
    pub ignoreip: Vec<String>,
    /// Own addresses are not banned.
    pub ignoreself: bool,
    /// A command that says by exit code 0 who is not to be banned; tags as they are.
    pub ignorecommand: Option<String>,
    /// How long its answers are kept.
    pub ignorecache: Option<IgnoreCache>,
    /// `port` as written, taken apart at commas and blanks.
    pub ports: Vec<String>,
    /// `protocol` as written; `tcp` if nowhere.
    pub protocol: String,
    /// The chain, `INPUT` if nowhere.
    pub chain: String,
    /// What is done about a ban, in order.
    pub actions: Vec<Action>,
}

/// `backend`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// `auto`, `pyinotify`, `gamin`, `polling`, `systemd`.
    pub name: String,
    /// `systemd[journalflags=1]`.
    pub options: BTreeMap<String, String>,
}

impl Backend {
    /// Lines come from the journal.
    #[must_use]
    pub fn is_journal(&self) -> bool {
        self.name.starts_with("systemd")
    }
}

/// A line of `logpath`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPath {
    /// A pattern of the shell.
    pub glob: String,
    /// Begin at the end of the file: what is in it already is not looked at.
    pub tail: bool,
}

/// `bantime`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BanTime {
    /// At least 0.
    Seconds(f64),
    /// Written as -1.
    Forever,
}

/// `bantime.*`.
#[derive(Clone, Debug, PartialEq)]
pub struct Increment {
    /// `bantime.increment`.
    pub on: bool,
    /// `bantime.factor`, 1 if nowhere.
    pub factor: f64,
    /// `bantime.formula`, an expression of Python.
    pub formula: Option<String>,
    /// `bantime.multipliers`; empty: the formula counts.
    pub multipliers: Vec<i64>,
    /// `bantime.maxtime`, seconds.
    pub maxtime: Option<f64>,
    /// `bantime.rndtime`, seconds.
    pub rndtime: Option<f64>,
    /// `bantime.overalljails`.
    pub overalljails: bool,
}

/// `ignorecache = key="<ip>", max-count=100, max-time=5m`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct IgnoreCache {
    /// What an answer is kept under; tags as they are.
    pub key: String,
    /// Answers.
    pub max_count: u32,
    /// Seconds.
    pub max_time: f64,
}

/// `usedns`: what is done with a name where an address is expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UseDns {
    /// It is resolved.
    Yes,
    /// It is resolved, with a warning.
    #[default]
    Warn,
    /// It is no match.
    No,
    /// It is counted as it is.
    Raw,
}

/// What a filter looks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterRules {
    /// The filter without its options: `sshd`; `None`: the jail has expressions only.
    pub filter: Option<String>,
    /// What it was given: `mode=aggressive`.
    pub options: BTreeMap<String, String>,
    /// What every line must match first.
    pub prefregex: Option<String>,
    /// In order, at least one of them unless a problem says so.
    pub failregex: Vec<String>,
    /// In order.
    pub ignoreregex: Vec<String>,
    /// Empty: fail2ban's own list.
    pub datepattern: Vec<String>,
    /// Lines looked at together; at least 1.
    pub maxlines: u32,
    /// What is asked of the journal, as words of journalctl; several are alternatives.
    pub journalmatch: Vec<Vec<String>>,
    /// See there.
    pub usedns: UseDns,
}

/// Reads one filter: `sshd`, `sshd[mode=aggressive]`, the path of a file, or the name of a jail of the last of `folders`.
/// A name is looked for in the `filter.d` of each of `folders`, which are like /etc/fail2ban; what is nowhere included
/// from one is looked for in the others. `backend` decides which prefix the lines have (`systemd`: the journal's).
///
/// # Errors
/// There is no such filter, or it cannot be read.
pub fn read_filter(folders: &[&Path], spec: &str, backend: &str) -> Result<FilterRules, Problem> {
    jail::Reader::new(folders).filter(spec, backend)
}

/// The jail `name` of the folder `dir` as it is when it reads the journal, whatever its `backend` says: the lines of the
/// journal begin otherwise than those of files. `None`: it cannot.
#[must_use]
pub fn in_journal(dir: &Path, name: &str) -> Option<Jail> {
    jail::Reader::new(&[dir]).in_journal(name)
}

#[cfg(test)]
mod tests;
