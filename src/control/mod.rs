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
use std::time::Duration;

use serde::Serialize;

use crate::changes::Mode;
use crate::config::{self, Problem};
use crate::judge::JailTally;
use crate::key::Key;

pub mod client; // the commands' side of the control socket
pub(crate) mod events; // hits and bans as they happen
pub mod fail2ban; // fail2ban's own clients
mod host; // the process in charge
pub(crate) mod running; // a process at work: rooms that go on, sockets that answer
pub(crate) mod socket; // the control socket
pub mod wire; // what goes over it

pub use host::Host;
pub(crate) use host::Parts;

/// How long a room is waited for. It may be busy with a log that is read from its beginning.
pub const PATIENCE: Duration = Duration::from_secs(10);

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
