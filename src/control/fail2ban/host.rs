//! What fail2ban's commands ask, asked of the process in charge.

use super::pickle::Exception;
use super::python::{error, value_error};
use super::server::{Ban, General, Jail, Server, unknown};
use crate::changes::{Change, Level, Mode, Setting};
use crate::control::{ControlError, Fate, Host, JailView};
use crate::key::Key;
use crate::ledger::Limits;

/// The process in charge, as fail2ban's clients know it.
#[derive(Debug)]
pub struct InCharge {
    host: Host,
    /// `loglevel` as it was set here; fail2ban has more names than we have levels.
    log_level: Option<String>,
}

impl InCharge {
    /// Answers for `host`.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self {
            host,
            log_level: None,
        }
    }

    fn known(&self, name: &str) -> Result<JailView, Exception> {
        let jail = self.host.jail(name).map_err(told)?;
        // To fail2ban a jail that was stopped is not there any more.
        if jail.mode == Mode::Off {
            return Err(unknown(name));
        }
        Ok(jail)
    }
}

/// An error as fail2ban has it, or in our own words where it has none.
fn told(wrong: ControlError) -> Exception {
    match wrong {
        ControlError::UnknownJail { name, .. } => unknown(&name),
        ControlError::Refused(_) => value_error(wrong.to_string()),
        ControlError::NotNow(_) | ControlError::NoAnswer | ControlError::Failed(_) => {
            error(wrong.to_string())
        }
    }
}

impl Server for InCharge {
    fn jails(&mut self) -> Result<Vec<String>, Exception> {
        let jails = self.host.jails().map_err(told)?;
        let on = jails.iter().filter(|jail| jail.mode != Mode::Off);
        Ok(on.map(|jail| jail.config.name.clone()).collect())
    }

    fn jail(&mut self, name: &str) -> Result<Jail, Exception> {
        let jail = self.known(name)?;
        Ok(Jail {
            config: jail.config,
            failed: u64::try_from(jail.failed).unwrap_or(u64::MAX),
            failed_in_all: jail.tally.hits,
            banned_in_all: jail.tally.bans,
            lines: jail.lines,
        })
    }

    fn bans(&mut self, jail: &str) -> Result<Vec<Ban>, Exception> {
        let mut bans = self.host.banned(Some(jail)).map_err(told)?;
        bans.sort_by(|a, b| a.since.total_cmp(&b.since));
        let bans = bans.into_iter().map(|ban| Ban {
            key: ban.key,
            since: ban.since,
            until: ban.until,
        });
        Ok(bans.collect())
    }

    fn ban(&mut self, jail: &str, who: &[String]) -> Result<usize, Exception> {
        let keys: Vec<Key> = who.iter().map(|who| Key::parse(who)).collect();
        let fates = self.host.ban(jail, &keys, None, false).map_err(told)?;
        let mut banned = 0;
        for (key, fate) in keys.iter().zip(fates) {
            match fate {
                Fate::Banned => banned += 1,
                Fate::Prolonged => {}
                Fate::Spared(why) => {
                    return Err(value_error(format!(
                        "{key} is not banned: {why}; write `f2b-pipe ban --force` if it must be"
                    )));
                }
                Fate::Failed(why) => return Err(error(format!("{key} is not banned: {why}"))),
            }
        }
        Ok(banned)
    }

    fn unban(&mut self, jail: &str, who: &str) -> Result<bool, Exception> {
        let keys = [Key::parse(who)];
        let lifted = self.host.unban(Some(jail), Some(&keys)).map_err(told)?;
        Ok(lifted.bans > 0)
    }

    fn unban_all(&mut self, jail: Option<&str>) -> Result<usize, Exception> {
        Ok(self.host.unban(jail, None).map_err(told)?.bans)
    }

    fn attempt(&mut self, jail: &str, who: &str, lines: &[String]) -> Result<(), Exception> {
        let counted = self.host.attempt(jail, &Key::parse(who), lines);
        counted.map(drop).map_err(told)
    }

    fn set(&mut self, jail: &str, setting: Setting) -> Result<(), Exception> {
        let change = Change::Set {
            jail: jail.to_owned(),
            to: setting,
        };
        self.host.change(&[change]).map_err(told)
    }

    fn ignore(&mut self, jail: &str, who: Vec<String>, add: bool) -> Result<(), Exception> {
        let jail = Some(jail.to_owned());
        let change = match add {
            true => Change::Ignore { jail, who },
            false => Change::Unignore { jail, who },
        };
        self.host.change(&[change]).map_err(told)
    }

    fn switch(&mut self, jail: &str, on: bool) -> Result<(), Exception> {
        let view = self.host.jail(jail).map_err(told)?;
        let mode = match (on, view.mode) {
            (false, Mode::Off) => return Err(unknown(jail)),
            // One that only observes goes on doing so.
            (true, Mode::On | Mode::Observe) => return Ok(()),
            (true, Mode::Off) => Mode::On,
            (false, Mode::On | Mode::Observe) => Mode::Off,
        };
        let change = Change::Mode {
            jail: jail.to_owned(),
            mode,
        };
        self.host.change(&[change]).map_err(told)
    }

    fn reload(&mut self, jail: Option<&str>) -> Result<(), Exception> {
        self.log_level = None;
        self.host.reload(jail).map_err(told)
    }

    fn flush_logs(&mut self) -> Result<(), Exception> {
        self.host.flush_logs();
        Ok(())
    }

    fn general(&mut self) -> General {
        let config = self.host.config();
        let level = config.log_level.as_str();
        let level = match level {
            "WARN" => "WARNING",
            "TRACE" => "TRACEDEBUG",
            level => level,
        };
        let log = config.fail2ban_log.as_ref();
        General {
            log_level: self.log_level.clone().unwrap_or_else(|| level.to_owned()),
            log_target: log.map_or("SYSLOG".to_owned(), |path| path.display().to_string()),
            ledger: self.host.paths().ledger().display().to_string(),
            ledger_age: Limits::default().age,
        }
    }

    fn set_log_level(&mut self, level: &str) -> Result<(), Exception> {
        let number = level.parse::<u32>().ok();
        let to = match (level, number) {
            ("CRITICAL" | "ERROR", _) | (_, Some(36..)) => Level::Error,
            ("WARNING", _) | (_, Some(26..=35)) => Level::Warning,
            ("NOTICE" | "INFO", _) | (_, Some(11..=25)) => Level::Info,
            ("DEBUG", _) | (_, Some(8..=10)) => Level::Debug,
            _ => Level::Trace,
        };
        self.host.change(&[Change::LogLevel(to)]).map_err(told)?;
        self.log_level = Some(level.to_owned());
        Ok(())
    }
}
