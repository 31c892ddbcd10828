//! `ignorecommand`: a command that says whether somebody is never banned.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::child;
use super::names::Runner;
use super::tags::{Script, fill};
use super::{TIMEOUT, Ticket};
use crate::config::Raw;

/// Most answers remembered, whatever `max-count` says.
const COUNT_MAX: usize = 100_000;

/// `ignorecache`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoreCache {
    /// `key`, with tags: tickets of the same key get the same answer.
    pub key: String,
    /// `max-count`; 100 if not set.
    pub max_count: usize,
    /// `max-time`; 5 minutes if not set.
    pub max_time: Duration,
}

/// A jail's `ignorecommand`.
#[derive(Debug)]
pub struct IgnoreCommand {
    jail: String,
    command: String,
    cache: Option<Mutex<Answers>>,
    runner: Runner,
}

#[derive(Debug)]
struct Answers {
    key: String,
    max_time: Duration,
    known: LruCache<Vec<String>, (bool, Instant)>,
}

impl IgnoreCommand {
    /// A command with its tags, and where answers are remembered. `path` is its `$PATH` ([`super::Settings::path`]).
    #[must_use]
    pub fn new(jail: &str, command: &str, cache: Option<IgnoreCache>, path: &str) -> Self {
        let answers = |cache: IgnoreCache| {
            let count = NonZeroUsize::new(cache.max_count.min(COUNT_MAX));
            Mutex::new(Answers {
                key: cache.key,
                max_time: cache.max_time,
                known: LruCache::new(count.unwrap_or(NonZeroUsize::MIN)),
            })
        };
        Self {
            jail: jail.to_owned(),
            command: command.to_owned(),
            cache: cache.map(answers),
            runner: Runner::new(path),
        }
    }

    /// That of a jail, if it has one.
    #[must_use]
    pub fn of(jail: &str, raw: &Raw) -> Option<Self> {
        let cache = raw.ignorecache.as_ref().map(|cache| IgnoreCache {
            key: cache.key.clone(),
            max_count: cache.max_count as usize,
            max_time: Duration::try_from_secs_f64(cache.max_time).unwrap_or(Duration::MAX),
        });
        let path = super::Settings::default().path;
        Some(Self::new(jail, raw.ignorecommand.as_ref()?, cache, &path))
    }

    /// Whether whoever the ticket is about is not to be banned. Takes as long as the command, at most 60 seconds, so never
    /// ask where a line waits. A command that fails or hangs (told) ignores nobody.
    #[must_use]
    pub fn ask(&self, ticket: &Ticket) -> bool {
        let mut ticket = ticket.clone();
        ticket.bound();
        let key = self.cache.as_ref().map(|cache| {
            let answers = cache.lock().unwrap_or_else(PoisonError::into_inner);
            let Script { text, mut values } = self.script(&answers.key, &ticket);
            values.push(text);
            values
        });
        if let (Some(cache), Some(key)) = (&self.cache, &key) {
            let mut answers = cache.lock().unwrap_or_else(PoisonError::into_inner);
            let max_time = answers.max_time;
            if let Some((answer, at)) = answers.known.get(key)
                && at.elapsed() < max_time
            {
                return *answer;
            }
        }
        let answer = self.run(&ticket);
        if let (Some(cache), Some(key)) = (&self.cache, key) {
            let mut answers = cache.lock().unwrap_or_else(PoisonError::into_inner);
            answers.known.put(key, (answer, Instant::now()));
        }
        answer
    }

    fn script(&self, text: &str, ticket: &Ticket) -> Script {
        let value = |tag: &str| match tag {
            "ip-host" => Some(
                self.runner
                    .host(&ticket.ip)
                    .unwrap_or_else(|| "None".to_owned())
                    .into(),
            ),
            "jail.name" => Some(self.jail.as_str().into()),
            "fq-hostname" => Some(self.runner.full().into()),
            "sh-hostname" => Some(self.runner.short().into()),
            _ => ticket.value(tag),
        };
        fill(text, value, |name| ticket.capture(name))
    }

    fn run(&self, ticket: &Ticket) -> bool {
        let script = self.script(&self.command, ticket);
        let jail = &self.jail;
        match child::run(&script, &self.runner.path, TIMEOUT, &self.runner.abort) {
            Ok(ended) => match ended.code() {
                Some(0) => true,
                Some(1) => false,
                Some(_) | None => {
                    log::error!("jail '{jail}': ignorecommand for {} {ended}", ticket.ip);
                    false
                }
            },
            Err(error) => {
                log::error!("jail '{jail}': ignorecommand could not be started: {error}");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/usr/bin:/bin";

    #[test]
    fn exit_0_ignores_and_everything_else_does_not() {
        let ask = |command: &str| {
            IgnoreCommand::new("j", command, None, PATH).ask(&Ticket::of("192.0.2.7"))
        };
        assert!(ask("test <ip> = 192.0.2.7"));
        assert!(!ask("test <ip> = 192.0.2.8"));
        assert!(!ask("exit 2"));
        assert!(!ask("/nonexistent/command"));
    }

    #[test]
    fn an_answer_is_remembered_by_its_key() {
        let log = std::env::temp_dir().join(format!("f2b-pipe-ignore-{}", std::process::id()));
        let cache = IgnoreCache {
            key: "<F-USER>".into(),
            max_count: 10,
            max_time: Duration::from_secs(60),
        };
        let command = format!("echo <ip> >> {}; exit 1", log.display());
        let ignore = IgnoreCommand::new("j", &command, Some(cache), PATH);
        for (ip, user) in [("192.0.2.1", "a"), ("192.0.2.2", "a"), ("192.0.2.3", "$b")] {
            let mut ticket = Ticket::of(ip);
            ticket.captures.insert("user".into(), user.into());
            assert!(!ignore.ask(&ticket));
        }
        assert_eq!(
            std::fs::read_to_string(&log).unwrap(),
            "192.0.2.1\n192.0.2.3\n"
        );
        std::fs::remove_file(log).unwrap();
    }
}
