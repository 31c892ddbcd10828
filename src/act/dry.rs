//! Who would be banned: remembers bans without a kernel, for `--dry-run`, `replay` and `explain`.
//!
//! The clock is the caller's, in milliseconds: a log that is replayed has its own. It must not go back.

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

    /// The next ban that has ended by `now_ms`, the earliest first; each is given once.
    pub fn ended(&mut self, now_ms: u64) -> Option<Ended> {
        loop {
            let Reverse((at_ms, jail, who)) = *self.order.peek()?;
            if at_ms > now_ms {
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
            Some(Some(end)) => *end > now_ms,
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
