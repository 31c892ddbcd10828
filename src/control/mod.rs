//! Who asks and changes while the program runs: the commands, fail2ban's clients, whoever speaks JSON to the control socket.
//!
//! ```text
//! f2b-pipe status, ban, ... ─> control socket ─┐
//! fail2ban-client           ─> fail2ban socket ─┴─> Host ─> the rooms of the process in charge
//! ```
//!
//! In: questions and orders, each answered within a stated time. Nothing that bans or reads a line ever waits for one: a
//! room takes orders between two pieces of its work, and whoever asked waits.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use serde::Serialize;

use crate::changes::{Change, Mode};
use crate::config::{self, Config, Problem, RuntimePaths};
use crate::decide::BanFor;
use crate::judge::JailTally;
use crate::key::Key;

pub mod fail2ban; // fail2ban's own clients

/// How long a room is waited for. It may be busy with a log that is read from its beginning.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A hold on the process in charge, for as many threads as want one. Every call may be made from a thread that nobody waits
/// for only: it takes up to [`PATIENCE`], or as long as the kernel takes to list its sets.
#[derive(Clone, Debug)]
pub struct Host {
    paths: RuntimePaths,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq)]
pub enum ControlError {
    /// No jail has this name.
    UnknownJail {
        /// As it was given.
        name: String,
        /// Which was meant, or which there are.
        advice: String,
    },
    /// The jail is there, and cannot do that (bans by one that only observes or is off).
    NotNow(String),
    /// What was asked for cannot be. All that is wrong; nothing has changed.
    Refused(Vec<Problem>),
    /// The rooms are busy, or end.
    NoAnswer,
    /// The kernel or a file says no.
    Failed(String),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownJail { name, advice } => write!(f, "no jail is called {name}; {advice}"),
            Self::NotNow(text) | Self::Failed(text) => f.write_str(text),
            Self::Refused(problems) => {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::NoAnswer => write!(
                f,
                "f2b-pipe runs, and does not answer within {} s; try again",
                PATIENCE.as_secs()
            ),
        }
    }
}

impl std::error::Error for ControlError {}

/// A jail as it is now.
#[derive(Clone, Debug)]
pub struct JailView {
    /// As configured and changed.
    pub config: Arc<config::Jail>,
    /// What it does. A jail that is off has the configuration it had, and nothing else.
    pub mode: Mode,
    /// Where its lines come from.
    pub lines: Lines,
    /// Addresses with failures within findtime (`Currently failed`).
    pub failed: usize,
    /// Since the start of this process: failures are `hits`, bans `bans`.
    pub tally: JailTally,
    /// Bans that stand.
    pub bans: usize,
}

/// Where a jail's lines come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lines {
    /// httpd's pipes.
    Httpd,
    /// These files, as they are being read at the moment (not patterns).
    Files(Vec<String>),
    /// Of the journal what fits one of these.
    Journal(Vec<Vec<String>>),
    /// Bans of other jails (recidive).
    Bans,
}

/// A ban that stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BannedView {
    /// Whose.
    pub jail: String,
    /// Who: `192.0.2.7`, `2001:db8::/64`.
    pub key: String,
    /// Since when, seconds since the epoch. The kernel does not know: of a jail of httpd's lines, its end less the bantime.
    pub since: f64,
    /// Until when; `None`: for ever.
    pub until: Option<f64>,
    /// Packets that were turned away.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why.
    pub reason: String,
}

/// What came of a ban by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Banned from now on.
    Banned,
    /// He was, and it ends when the new ban does.
    Prolonged,
    /// He is never banned, and why.
    Spared(String),
    /// It could not be done, and why.
    Failed(String),
}

/// What came of lifting bans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifted {
    /// Bans, in all jails together.
    pub bans: usize,
    /// Who was banned nowhere.
    pub not_banned: Vec<Key>,
}

/// Something happened; `subscribe` tells it as one JSON object a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A line counted.
    Hit {
        /// Seconds since the epoch.
        time: f64,
        /// For this jail.
        jail: String,
        /// Against him.
        ip: String,
    },
    /// Somebody is banned.
    Ban {
        /// Seconds since the epoch.
        time: f64,
        /// By this jail.
        jail: String,
        /// Who.
        ip: String,
    },
    /// A jail that observes would have banned.
    WouldBan {
        /// Seconds since the epoch.
        time: f64,
        /// This jail.
        jail: String,
        /// Whom.
        ip: String,
    },
    /// A ban is over.
    Unban {
        /// Seconds since the epoch.
        time: f64,
        /// By this jail.
        jail: String,
        /// Whose.
        ip: String,
    },
    /// Whoever listens was too slow, and this many events were not told.
    Lost {
        /// How many.
        events: u64,
    },
}

impl Host {
    /// The configuration that runs: what was read, and changed since. What is the same for all jails stands here
    /// (`log_level`, `fail2ban_log`); `jails` are those that run.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::new(Config::default())
    }

    /// Where files are: the ledger (`get dbfile`), the sockets.
    #[must_use]
    pub fn paths(&self) -> &RuntimePaths {
        &self.paths
    }

    /// All jails in the order of the configuration, those that are switched off last: `status`, `get J OPTION` for every
    /// option.
    ///
    /// # Errors
    /// No answer.
    pub fn jails(&self) -> Result<Vec<JailView>, ControlError> {
        Err(ControlError::NoAnswer)
    }

    /// One of them: `status J`, `get J ...`.
    ///
    /// # Errors
    /// There is none of this name; no answer.
    pub fn jail(&self, name: &str) -> Result<JailView, ControlError> {
        let _ = name;
        Err(ControlError::NoAnswer)
    }

    /// Bans that stand, in one jail or all: `banned`, `get J banip`, `get J banned`. Of a jail that acts by commands only,
    /// what it knows; else what the kernel says.
    ///
    /// # Errors
    /// There is no such jail; the kernel cannot be asked.
    pub fn banned(&self, jail: Option<&str>) -> Result<Vec<BannedView>, ControlError> {
        let _ = jail;
        Err(ControlError::NoAnswer)
    }

    /// Bans by hand: `set J banip`, `ban`. `ban_for`: the jail's bantime if not given; `force`: even who is never banned.
    /// One fate for each key, in their order.
    ///
    /// # Errors
    /// There is no such jail, or it does not ban now; no answer.
    pub fn ban(
        &self,
        jail: &str,
        keys: &[Key],
        ban_for: Option<BanFor>,
        force: bool,
    ) -> Result<Vec<Fate>, ControlError> {
        let _ = (jail, keys, ban_for, force);
        Err(ControlError::NoAnswer)
    }

    /// Lifts bans of `keys` (`None`: of all) in one jail or all, and forgets them: `unban`, `set J unbanip`.
    ///
    /// # Errors
    /// There is no such jail; the kernel cannot be asked.
    pub fn unban(&self, jail: Option<&str>, keys: Option<&[Key]>) -> Result<Lifted, ControlError> {
        let _ = (jail, keys);
        Err(ControlError::NoAnswer)
    }

    /// Counts a failure by hand for each line, or one if there is none: `set J attempt`. How many were counted.
    ///
    /// # Errors
    /// There is no such jail; no answer.
    pub fn attempt(&self, jail: &str, key: &Key, lines: &[String]) -> Result<u32, ControlError> {
        let _ = (jail, key, lines);
        Err(ControlError::NoAnswer)
    }

    /// Changes something until the next reload, in all processes: `set J OPTION`, `start J`, `stop J`, `jail J observe`.
    /// When it returns, this process goes on with it; the others do within a second.
    ///
    /// # Errors
    /// [`ControlError::Refused`]: then none of the changes are made.
    pub fn change(&self, changes: &[Change]) -> Result<(), ControlError> {
        let _ = changes;
        Err(ControlError::NoAnswer)
    }

    /// Reads the configuration anew, in all processes, and forgets changes: all, or those of one jail. Switches bans on
    /// again after `off`. Nothing that was counted, banned or read is lost.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with all that is wrong: then the old one goes on, and changes are kept.
    pub fn reload(&self, jail: Option<&str>) -> Result<(), ControlError> {
        let _ = jail;
        Err(ControlError::NoAnswer)
    }

    /// The panic button: every set is emptied, nobody is banned until it is taken back. How many bans were taken away.
    ///
    /// # Errors
    /// The file that says so cannot be written, or the kernel cannot be asked.
    pub fn off(&self, off: bool) -> Result<usize, ControlError> {
        let _ = off;
        Err(ControlError::NoAnswer)
    }

    /// Opens fail2ban's log anew: `flushlogs`.
    pub fn flush_logs(&self) {}

    /// As `f2b-pipe metrics` prints them.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn metrics(&self) -> Result<String, ControlError> {
        Err(ControlError::NoAnswer)
    }

    /// Hits and bans from now on. A listener that is too slow loses events, and hears how many ([`Event::Lost`]).
    #[must_use]
    pub fn subscribe(&self) -> Receiver<Event> {
        std::sync::mpsc::channel().1
    }
}
