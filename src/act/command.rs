//! fail2ban's actions that are commands: mail, cloudflare, abuseipdb, scripts of the host's own.
//!
//! ```text
//! Spec ─> Action ─> Script ─> child
//! what    when      text and  sh -c, in a session
//! the     to run    values    of its own, with a
//! files   which     apart     bounded life
//! say
//! ```
//!
//! A [`Jail`] is what the rest of the program holds: its functions put an order into a bounded queue and return at once.
//! The threads of a [`Pool`] carry orders out: one [`Spec`]'s in order, different ones side by side, so a script that
//! hangs keeps only its own kind waiting.
//!
//! Commands see what they would see under fail2ban: the same tags, the same words, the same exit-code rules. What
//! strangers wrote (`<matches>`, `<F-USER>`, `<ip-host>`) never becomes part of a command's text if the shell could take
//! any of it for more than a word: it is handed over in a shell variable (see [`tags`]).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::fail2ban::Action;

pub mod action; // when which command runs
pub mod child; // one command
pub mod ignore; // ignorecommand
pub mod names; // host names, for <ip-host> and <fq-hostname>
pub mod pool; // who waits for whom
pub mod tags; // <tags> to text and values
pub mod ticket; // what is known of a ban

pub use ignore::{IgnoreCache, IgnoreCommand};
pub use pool::{Health, Jail, Pool, Settings};
pub use ticket::{Counts, Merged, Ticket};

/// fail2ban's own, for a command whose action says nothing else.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// One action of one jail, as its files and the jail's parameters say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The jail's name.
    pub jail: String,
    /// The action's name within the jail (`actname`).
    pub action: String,
    /// The file in action.d it comes from, without `.conf`. Actions of one file never run at the same time, whatever jail
    /// they belong to: under fail2ban nothing does, and files such as /etc/hosts.deny are edited in the belief. A path that
    /// ends in `.py` is a python class: `properties` are then its arguments, and each event calls its method in a python3 of
    /// its own, so an object that remembers bans from one event to the next does not work.
    pub file: String,
    /// `[Definition]`, `[Init]` and parameters, by fail2ban's names (`actionban`, `name`, `actname`, `blocktype`), values with
    /// their tags. What holds for one family is named `blocktype?family=inet6`.
    pub properties: BTreeMap<String, String>,
    /// `actionstart_on_demand`; `None`: it depends on whether a family has values of its own, as under fail2ban.
    pub start_on_demand: Option<bool>,
    /// Not for bans that are only restored.
    pub norestored: bool,
    /// `actionrepair_on_unban`.
    pub repair_on_unban: bool,
    /// The longest that one command may take.
    pub timeout: Duration,
}

impl Spec {
    /// A spec without properties.
    #[must_use]
    pub fn new(jail: &str, action: &str, file: &str) -> Self {
        Self {
            jail: jail.to_owned(),
            action: action.to_owned(),
            file: file.to_owned(),
            properties: BTreeMap::new(),
            start_on_demand: None,
            norestored: false,
            repair_on_unban: false,
            timeout: TIMEOUT,
        }
    }

    /// An action of a jail as the configuration's files say.
    #[must_use]
    pub fn of(jail: &str, action: &Action) -> Self {
        let file = match &action.python {
            Some(file) => file.display().to_string(),
            None => action.file.clone(),
        };
        let mut spec = Self::new(jail, &action.name, &file);
        spec.properties.extend(action.params.clone());
        spec.properties.extend(action.commands.clone());
        spec.start_on_demand = action
            .commands
            .get("actionstart_on_demand")
            .map(|text| text == "true");
        spec.norestored = action.is_on("norestored");
        spec.repair_on_unban = action.is_on("actionrepair_on_unban");
        spec.timeout = Duration::try_from_secs_f64(action.timeout()).unwrap_or(spec.timeout);
        spec
    }

    /// What in it could let strangers run commands, though we hand over their text safely; for `check` to tell.
    #[must_use]
    pub fn risk(&self) -> Option<String> {
        let commands = tags::Commands::new(self).ok()?;
        let risky = Op::ALL.into_iter().find(|&op| {
            let text = commands.text(op, Family::Inet4);
            // GNU mailutils' mail obeys lines of its input that begin with a tilde, even from a pipe.
            let mut words = text.split([' ', '\t', '\n', '|', ';', '(', '`']);
            words.any(|word| matches!(word, "mail" | "/usr/bin/mail"))
                && !text.contains("set escape")
        })?;
        Some(format!(
            "jail {}, action {}: {}: mail runs lines that begin with ~! if it is that of GNU mailutils (CVE-2021-32749), and \
             log lines and whois answers are strangers' text; write mail -E 'set escape' -s ...",
            self.jail,
            self.action,
            risky.option()
        ))
    }

    fn is_python(&self) -> bool {
        self.file.ends_with(".py")
    }

    fn property(&self, name: &str) -> &str {
        self.properties.get(name).map_or("", String::as_str)
    }
}

/// The address family that a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Neither: an action without differences, or a ban of something that is no address.
    Any,
    /// IPv4.
    Inet4,
    /// IPv6.
    Inet6,
}

impl Family {
    /// As fail2ban writes it; `Any` is empty.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Inet4 => "inet4",
            Self::Inet6 => "inet6",
        }
    }
}

/// The commands of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "fail2ban's names")]
pub enum Op {
    Start,
    Stop,
    Check,
    Repair,
    Flush,
    Reload,
    Ban,
    Reban,
    Prolong,
    Unban,
}

impl Op {
    const ALL: [Self; 10] = [
        Self::Start,
        Self::Stop,
        Self::Check,
        Self::Repair,
        Self::Flush,
        Self::Reload,
        Self::Ban,
        Self::Reban,
        Self::Prolong,
        Self::Unban,
    ];

    /// The option that holds it.
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            Self::Start => "actionstart",
            Self::Stop => "actionstop",
            Self::Check => "actioncheck",
            Self::Repair => "actionrepair",
            Self::Flush => "actionflush",
            Self::Reload => "actionreload",
            Self::Ban => "actionban",
            Self::Reban => "actionreban",
            Self::Prolong => "actionprolong",
            Self::Unban => "actionunban",
        }
    }
}

/// Why an action cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpecError {
    /// A tag needs itself, or grows without end.
    Endless {
        /// Of which jail.
        jail: String,
        /// Of which action.
        action: String,
        /// The option with the tag.
        option: String,
        /// The tag.
        tag: String,
    },
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endless {
                jail,
                action,
                option,
                tag,
            } => write!(
                f,
                "jail {jail}, action {action}: {option}: <{tag}> needs itself and cannot be resolved; give it a value that \
                 does not contain <{tag}>"
            ),
        }
    }
}

impl std::error::Error for SpecError {}

/// Whether this host has an IPv6 address, as fail2ban's `allowipv6 = auto` asks: without one, actions that start with their
/// jail are started for IPv4 only.
#[must_use]
pub fn host_has_ipv6() -> bool {
    std::fs::read_to_string("/proc/net/if_inet6").is_ok_and(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_that_obeys_tildes_is_a_risk() {
        let mut spec = Spec::new("sshd", "mail", "mail");
        let mut risk = |ban: &str| {
            spec.properties.insert("actionban".into(), ban.into());
            spec.risk()
        };
        assert!(risk("echo \"<matches>\" | <mailcmd> root").is_none());
        assert!(risk("whois <ip>|mail -s x root").is_some_and(|risk| risk.contains("actionban")));
        assert!(risk("whois <ip>|mail -E 'set escape' -s x root").is_none());
    }
}
