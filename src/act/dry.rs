//! Who would be banned: remembers bans without a kernel, for `--dry-run`, `replay` and `explain`.
//!
//! The clock is the caller's, in milliseconds: a log that is replayed has its own. It must not go back. A ban still
//! stands at the very moment of its end, as in fail2ban: who is hit then has it prolonged.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::{ActError, Ban, Banned, jails, place_of};
use crate::config::Config;
use crate::decide::BanFor;
use crate::exempt::Target;
use crate::hit::JailId;

/// A ban that has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whose.
    pub jail: JailId,
    /// Who was banned.
    pub who: Target,
    /// When it ended, on the caller's clock.
    pub at_ms: u64,
}

/// Bans and when they end.
#[derive(Debug)]
pub struct Dry {
    /// IPv6 prefix of each jail that bans.
    prefixes: HashMap<JailId, u8>,
    /// `None`: never.
    ends: HashMap<(JailId, Target), Option<u64>>,
    /// The ends in order; those of bans that were prolonged or taken away since are still here, and disagree with `ends`.
    order: BinaryHeap<Reverse<(u64, JailId, Target)>>,
}

impl Dry {
    /// Nobody is banned.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            prefixes: jails(config)
                .map(|(id, jail)| (id, jail.ipv6_prefix))
                .collect(),
            ends: HashMap::new(),
            order: BinaryHeap::new(),
        }
    }

    /// As [`super::Act::ban`].
    ///
    /// # Errors
    /// No such jail.
    pub fn ban(&mut self, ban: &Ban<'_>, now_ms: u64) -> Result<Banned, ActError> {
        let key = self.key(ban.jail, ban.who.target())?;
        if self.holds(key, now_ms) {
            return Ok(Banned::Already);
        }
        self.put(key, ban.ban_for, now_ms);
        Ok(Banned::New)
    }

    /// As [`super::Act::prolong`].
    ///
    /// # Errors
    /// No such jail.
    pub fn prolong(&mut self, ban: &Ban<'_>, now_ms: u64) -> Result<(), ActError> {
        let key = self.key(ban.jail, ban.who.target())?;
        self.put(key, ban.ban_for, now_ms);
        Ok(())
    }

    /// As [`super::Act::unban`].
    ///
    /// # Errors
    /// No such jail.
    pub fn unban(&mut self, jail: JailId, who: Target, now_ms: u64) -> Result<bool, ActError> {
        let key = self.key(jail, who)?;
        let held = self.holds(key, now_ms);
        self.ends.remove(&key);
        Ok(held)
    }

    /// The next ban that ended before `now_ms`, the earliest first; each is given once.
    pub fn ended(&mut self, now_ms: u64) -> Option<Ended> {
        loop {
            let Reverse((at_ms, jail, who)) = *self.order.peek()?;
            if at_ms >= now_ms {
                return None;
            }
            self.order.pop();
            if self.ends.get(&(jail, who)) == Some(&Some(at_ms)) {
                self.ends.remove(&(jail, who));
                return Some(Ended { jail, who, at_ms });
            }
        }
    }

    fn key(&self, jail: JailId, who: Target) -> Result<(JailId, Target), ActError> {
        let prefix = self.prefixes.get(&jail).ok_or(ActError::NoJail(jail))?;
        Ok((jail, place_of(who, *prefix).1))
    }

    fn holds(&self, key: (JailId, Target), now_ms: u64) -> bool {
        match self.ends.get(&key) {
            None => false,
            Some(None) => true,
            Some(Some(end)) => *end >= now_ms,
        }
    }

    fn put(&mut self, key: (JailId, Target), ban_for: BanFor, now_ms: u64) {
        let end = match ban_for {
            BanFor::Timed(secs) => Some(now_ms.saturating_add(u64::from(secs.get()) * 1000)),
            BanFor::Forever => None,
        };
        self.ends.insert(key, end);
        if let Some(end) = end {
            self.order.push(Reverse((end, key.0, key.1)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use crate::exempt::Bannable;
    use std::time::Duration;

    fn ban(who: &str, secs: u64) -> Ban<'static> {
        let client = Client::parse(who.as_bytes()).unwrap();
        Ban {
            jail: 0,
            who: Bannable::forced(Target::Client(client)),
            ban_for: BanFor::timed(Duration::from_secs(secs)).unwrap(),
            reason: "",
        }
    }

    #[test]
    fn a_ban_stands_until_its_end_on_the_callers_clock() {
        let mut dry = Dry::new(&Config::default());
        assert_eq!(dry.ban(&ban("192.0.2.7", 10), 1_000), Ok(Banned::New));
        assert_eq!(dry.ban(&ban("192.0.2.7", 10), 11_000), Ok(Banned::Already));
        assert_eq!(dry.ban(&ban("192.0.2.7", 10), 11_001), Ok(Banned::New));
        assert_eq!(dry.ban(&ban("2001:db8::1", 10), 11_000), Ok(Banned::New));
        assert_eq!(
            dry.ban(&ban("2001:db8::2", 10), 11_000),
            Ok(Banned::Already)
        );
        let who = ban("192.0.2.7", 1).who.target();
        assert_eq!(dry.unban(0, who, 12_000), Ok(true));
        assert_eq!(dry.unban(0, who, 12_000), Ok(false));
        assert!(
            dry.ban(
                &Ban {
                    jail: 999,
                    ..ban("192.0.2.7", 1)
                },
                0
            )
            .is_err()
        );
    }

    #[test]
    fn ends_are_told_once_in_order_and_not_of_what_was_prolonged() {
        let mut dry = Dry::new(&Config::default());
        for (who, secs) in [("192.0.2.1", 30), ("192.0.2.2", 10), ("192.0.2.3", 20)] {
            assert_eq!(dry.ban(&ban(who, secs), 0), Ok(Banned::New));
        }
        dry.prolong(&ban("192.0.2.2", 60), 5_000).unwrap();
        let forever = Ban {
            ban_for: BanFor::Forever,
            ..ban("192.0.2.4", 1)
        };
        assert_eq!(dry.ban(&forever, 0), Ok(Banned::New));
        assert_eq!(dry.ended(20_000), None);
        let ended: Vec<_> = std::iter::from_fn(|| dry.ended(1_000_000))
            .map(|e| (e.at_ms, e.who.to_string()))
            .collect();
        assert_eq!(
            ended,
            [
                (20_000, "192.0.2.3".to_owned()),
                (30_000, "192.0.2.1".to_owned()),
                (65_000, "192.0.2.2".to_owned()),
            ]
        );
        assert_eq!(dry.ban(&forever, u64::MAX), Ok(Banned::Already));
    }
}
