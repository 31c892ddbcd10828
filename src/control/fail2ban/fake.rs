//! A program that does nothing but remember, for tests of what clients are told.

use std::path::Path;
use std::sync::Arc;

use super::commands::answer;
use super::pickle::{Exception, Value};
use super::python::repr;
use super::server::{Ban, General, Jail, Server, unknown};
use crate::changes::Setting;
use crate::config::{self, Config};
use crate::control::Lines;
use crate::fail2ban::Action;

/// Its jails, and what it was asked to do.
pub(super) struct Fake {
    jails: Vec<(config::Jail, Vec<Ban>)>,
    pub(super) said: Vec<String>,
}

const TOML: &str = r#"
[jail.door]
failregex = ['^door: refused <HOST>$', '^door: wrong key <F-USER>\S+</F-USER> from <ADDR>$']
ignoreregex = ['^door: ok']
logpath = ["/var/log/door.log"]
ignoreip = ["203.0.113.5", "198.51.100.0/24", "host.example.org"]
[jail.gate]
failregex = ['^gate: <ADDR>$']
logpath = ["/var/log/gate.log"]
bantime = -1
[fail2ban]
config = ""
"#;

impl Fake {
    pub(super) fn new() -> Self {
        let config: Config = config::from_text(Path::new("f2b-pipe.toml"), TOML).config;
        let jails = config.jails.into_iter().filter(|jail| jail.raw.is_some());
        let with_action = |mut jail: config::Jail| {
            let commands = [("actionban".to_owned(), "echo <ip>".to_owned())];
            jail.raw.as_mut().unwrap().actions.push(Action {
                name: "note".to_owned(),
                commands: commands.into(),
                ..Action::default()
            });
            jail
        };
        Self {
            jails: jails.map(|jail| (with_action(jail), Vec::new())).collect(),
            said: Vec::new(),
        }
    }

    pub(super) fn of(&mut self, name: &str) -> Result<&mut (config::Jail, Vec<Ban>), Exception> {
        let jail = self.jails.iter_mut().find(|(jail, _)| jail.name == name);
        jail.ok_or_else(|| unknown(name))
    }

    /// What a client shows: the value, or `!` and the exception.
    pub(super) fn says(&mut self, words: &[&str]) -> String {
        let command = Value::texts(words.iter().copied());
        let answer = answer(&command, self);
        let Some([Value::Int(code), value]) = answer.items() else {
            panic!("{answer:?}");
        };
        if let (1, Value::Exception(exception)) = (code, value) {
            let args = Value::Tuple(exception.args.clone());
            return format!("!{} {}", exception.class, repr(&args));
        }
        assert_eq!(*code, 0);
        repr(value)
    }
}

impl Server for Fake {
    fn jails(&mut self) -> Result<Vec<String>, Exception> {
        Ok(self
            .jails
            .iter()
            .map(|(jail, _)| jail.name.clone())
            .collect())
    }

    fn jail(&mut self, name: &str) -> Result<Jail, Exception> {
        let (config, bans) = self.of(name)?;
        let logs = &config.raw.as_ref().unwrap().logs;
        Ok(Jail {
            config: Arc::new(config.clone()),
            failed: 2,
            failed_in_all: 7,
            banned_in_all: bans.len() as u64,
            lines: Lines::Files(logs.iter().map(|log| log.glob.clone()).collect()),
        })
    }

    fn bans(&mut self, jail: &str) -> Result<Vec<Ban>, Exception> {
        Ok(self.of(jail)?.1.clone())
    }

    fn ban(&mut self, jail: &str, who: &[String]) -> Result<usize, Exception> {
        let bans = &mut self.of(jail)?.1;
        let before = bans.len();
        for who in who {
            let key = crate::key::Key::parse(who).to_string();
            if bans.iter().all(|ban| ban.key != key) {
                bans.push(Ban {
                    key,
                    since: 1000.0,
                    until: Some(1600.0),
                });
            }
        }
        Ok(bans.len() - before)
    }

    fn unban(&mut self, jail: &str, who: &str) -> Result<bool, Exception> {
        let bans = &mut self.of(jail)?.1;
        let before = bans.len();
        bans.retain(|ban| ban.key != who);
        Ok(bans.len() < before)
    }

    fn unban_all(&mut self, jail: Option<&str>) -> Result<usize, Exception> {
        let mut lifted = 0;
        for (known, bans) in &mut self.jails {
            if jail.is_none_or(|jail| jail == known.name) {
                lifted += std::mem::take(bans).len();
            }
        }
        Ok(lifted)
    }

    fn attempt(&mut self, jail: &str, who: &str, lines: &[String]) -> Result<(), Exception> {
        self.of(jail)?;
        self.said.push(format!("attempt {jail} {who} {lines:?}"));
        Ok(())
    }

    fn set(&mut self, jail: &str, setting: Setting) -> Result<(), Exception> {
        self.said.push(format!("set {jail} {setting:?}"));
        let config = &mut self.of(jail)?.0;
        let raw = config.raw.as_mut().unwrap();
        if let Setting::MaxRetry(n) = setting {
            config.maxretry = n;
        } else if let Setting::FailRegex(all) = setting {
            raw.rules.failregex = all;
        } else if let Setting::UseDns(usedns) = setting {
            raw.rules.usedns = usedns;
        } else if let Setting::Increment(written) = setting {
            raw.increment = written;
        } else if let Setting::DatePattern(all) = setting {
            raw.rules.datepattern = all;
        }
        Ok(())
    }

    fn ignore(&mut self, jail: &str, who: Vec<String>, add: bool) -> Result<(), Exception> {
        self.of(jail)?;
        self.said.push(format!("ignore {jail} {who:?} {add}"));
        Ok(())
    }

    fn switch(&mut self, jail: &str, on: bool) -> Result<(), Exception> {
        self.of(jail)?;
        self.said.push(format!("switch {jail} {on}"));
        Ok(())
    }

    fn reload(&mut self, jail: Option<&str>) -> Result<(), Exception> {
        self.said.push(format!("reload {jail:?}"));
        Ok(())
    }

    fn flush_logs(&mut self) -> Result<(), Exception> {
        Ok(())
    }

    fn general(&mut self) -> General {
        General {
            log_level: "INFO".to_owned(),
            log_target: "/var/log/fail2ban.log".to_owned(),
            ledger: "/var/lib/f2b-pipe/f2b-pipe.sqlite3".to_owned(),
            ledger_age: 86_400.0,
        }
    }

    fn set_log_level(&mut self, level: &str) -> Result<(), Exception> {
        self.said.push(format!("loglevel {level}"));
        Ok(())
    }
}
