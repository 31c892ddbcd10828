//! What the commands ask of the program. There is one answer to it, the process in charge, and one in tests.

use std::fmt;
use std::sync::Arc;

use chrono::{Local, TimeZone as _};

use super::pickle::{Exception, Value};
use crate::changes::Setting;
use crate::config;
use crate::control::Lines;

/// The program, as far as fail2ban's clients know it. Jails are those that run, ours and fail2ban's.
pub trait Server {
    /// Names of jails, in the order of the configuration.
    ///
    /// # Errors
    /// The process in charge does not answer.
    fn jails(&mut self) -> Result<Vec<String>, Exception>;

    /// A jail as it is now.
    ///
    /// # Errors
    /// There is none of this name ([`unknown`]).
    fn jail(&mut self, name: &str) -> Result<Jail, Exception>;

    /// Who is banned in a jail that is known, the longest banned first.
    ///
    /// # Errors
    /// The process in charge does not answer.
    fn bans(&mut self, jail: &str) -> Result<Vec<Ban>, Exception>;

    /// Bans by hand; how many were not banned before.
    ///
    /// # Errors
    /// There is no such jail, or it cannot be done.
    fn ban(&mut self, jail: &str, who: &[String]) -> Result<usize, Exception>;

    /// Lifts the ban of one of [`bans`](Self::bans), and forgets it; false: there was none.
    ///
    /// # Errors
    /// There is no such jail.
    fn unban(&mut self, jail: &str, who: &str) -> Result<bool, Exception>;

    /// Lifts all bans of a jail, or of all; how many there were.
    ///
    /// # Errors
    /// There is no such jail.
    fn unban_all(&mut self, jail: Option<&str>) -> Result<usize, Exception>;

    /// Counts a failure by hand for each line, or one.
    ///
    /// # Errors
    /// There is no such jail.
    fn attempt(&mut self, jail: &str, who: &str, lines: &[String]) -> Result<(), Exception>;

    /// Changes a setting of a jail that is known, until the next reload.
    ///
    /// # Errors
    /// It cannot be so.
    fn set(&mut self, jail: &str, setting: Setting) -> Result<(), Exception>;

    /// Adds to who is never banned in a jail that is known, or takes away from it.
    ///
    /// # Errors
    /// It is no address, network or name.
    fn ignore(&mut self, jail: &str, who: Vec<String>, add: bool) -> Result<(), Exception>;

    /// Begins or ends a jail.
    ///
    /// # Errors
    /// There is no such jail.
    fn switch(&mut self, jail: &str, on: bool) -> Result<(), Exception>;

    /// Reads the configuration anew, of all jails or one.
    ///
    /// # Errors
    /// It is bad, and the old one goes on.
    fn reload(&mut self, jail: Option<&str>) -> Result<(), Exception>;

    /// Opens logs anew.
    ///
    /// # Errors
    /// The process in charge does not answer.
    fn flush_logs(&mut self) -> Result<(), Exception>;

    /// What is the same for all jails.
    fn general(&mut self) -> General;

    /// Sets `loglevel`.
    ///
    /// # Errors
    /// The process in charge does not answer.
    fn set_log_level(&mut self, level: &str) -> Result<(), Exception>;
}

/// A jail as it is now.
#[derive(Clone, Debug)]
pub struct Jail {
    /// As configured and changed.
    pub config: Arc<config::Jail>,
    /// Addresses that have failed within findtime.
    pub failed: u64,
    /// Failures since the start.
    pub failed_in_all: u64,
    /// Bans since the start.
    pub banned_in_all: u64,
    /// Where its lines come from.
    pub lines: Lines,
}

/// A ban that stands.
#[derive(Clone, Debug)]
pub struct Ban {
    /// Who.
    pub key: String,
    /// Since when, seconds since the epoch.
    pub since: f64,
    /// Until when; `None`: for ever.
    pub until: Option<f64>,
}

/// What is the same for all jails.
#[derive(Clone, Debug)]
pub struct General {
    /// As it was set: `INFO`.
    pub log_level: String,
    /// Where the log goes: a path, or `SYSLOG`.
    pub log_target: String,
    /// Where bans are remembered.
    pub ledger: String,
    /// How long, seconds.
    pub ledger_age: f64,
}

/// There is no such jail.
pub fn unknown(name: &str) -> Exception {
    Exception {
        module: "fail2ban.exceptions",
        class: "UnknownJailException",
        args: vec![Value::text(name)],
    }
}

/// A time as fail2ban shows it: local, whole seconds; what never comes is the end of the year 9999.
pub(super) struct Shown(pub(super) f64);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the cast saturates, and what is too far is told so"
        )]
        let whole = self.0.floor() as i64;
        let time = Local.timestamp_opt(whole, 0).single();
        match time.filter(|_| self.0 < 253_402_214_400.0) {
            Some(time) => write!(f, "{}", time.format("%Y-%m-%d %H:%M:%S")),
            None => write!(f, "9999-12-31 23:59:59"),
        }
    }
}
