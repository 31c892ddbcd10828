//! Who was banned before, how often, and when last: what makes a ban longer than the one before it.
//!
//! One for all jails, since a jail may count what others banned (`bantime.overalljails`). The ledger keeps the same on
//! disk; this is what is asked. Bounded: the key whose last ban is longest ago is forgotten first.

use lru::LruCache;

use crate::hit::JailId;
use crate::key::Key;

/// What is known of a key that was banned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bad {
    /// When its last ban began, whole seconds since the epoch.
    pub last: f64,
    /// How long that ban was, seconds; `None`: for ever.
    pub bantime: Option<f64>,
    /// How many bans there were.
    pub count: u32,
}

/// What the history may grow to, and for how long it holds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Keys, each about 200 bytes.
    pub keys: usize,
    /// Seconds (`dbpurgeage`). A key is forgotten this long after three times its last bantime has gone by since the ban
    /// began; one that is banned for ever is not.
    pub age: f64,
}

impl Default for Bounds {
    /// 500,000 keys, a day.
    fn default() -> Self {
        Self {
            keys: 500_000,
            age: 86_400.0,
        }
    }
}

/// The bans of all jails, by key.
#[derive(Debug)]
pub struct History {
    keys: LruCache<Key, Vec<(JailId, Bad)>>,
    bounds: Bounds,
}

impl History {
    /// Nobody was ever banned.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            keys: LruCache::unbounded(),
            bounds,
        }
    }

    /// What is known of `key` in `jail`.
    pub fn of(&mut self, key: &Key, jail: JailId, now: f64) -> Option<Bad> {
        self.fresh(key, now)
            .iter()
            .find(|(of, _)| *of == jail)
            .map(|(_, bad)| *bad)
    }

    /// The same of all jails together: the sum of bans, the latest last one.
    pub fn overall(&mut self, key: &Key, now: f64) -> Option<Bad> {
        self.fresh(key, now)
            .iter()
            .map(|(_, bad)| *bad)
            .reduce(|one, other| Bad {
                count: one.count.saturating_add(other.count),
                ..if other.last > one.last { other } else { one }
            })
    }

    /// Notes a ban in the place of what was known.
    pub fn put(&mut self, key: &Key, jail: JailId, bad: Bad) {
        let known = self.keys.get_or_insert_mut_ref(key, Vec::new);
        match known.iter_mut().find(|(of, _)| *of == jail) {
            Some((_, old)) => *old = bad,
            None => known.push((jail, bad)),
        }
        while self.keys.len() > self.bounds.keys {
            self.keys.pop_lru();
        }
    }

    /// Forgets what `jail` knows of `key`, as an unban by hand does.
    pub fn forget(&mut self, key: &Key, jail: JailId) {
        if let Some(known) = self.keys.peek_mut(key) {
            known.retain(|(of, _)| *of != jail);
            if known.is_empty() {
                self.keys.pop(key);
            }
        }
    }

    /// Jails have other numbers from now on: `to` by the old ones; what is known by one that is gone is forgotten.
    pub fn renumber(&mut self, to: &[Option<JailId>]) {
        let mut gone = Vec::new();
        for (key, known) in &mut self.keys {
            known.retain_mut(|(jail, _)| match to.get(usize::from(*jail)) {
                Some(Some(new)) => {
                    *jail = *new;
                    true
                }
                Some(None) | None => false,
            });
            if known.is_empty() {
                gone.push(key.clone());
            }
        }
        for key in gone {
            self.keys.pop(&key);
        }
    }

    /// Keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nobody is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Frees what has had its time; to be called every hour or so.
    pub fn purge(&mut self, now: f64) {
        let (age, mut gone) = (self.bounds.age, Vec::new());
        for (key, known) in &mut self.keys {
            known.retain(|(_, bad)| !is_over(bad, age, now));
            if known.is_empty() {
                gone.push(key.clone());
            }
        }
        for key in gone {
            self.keys.pop(&key);
        }
    }

    /// What holds at `now`, as if the last purge had been just then.
    fn fresh(&mut self, key: &Key, now: f64) -> &[(JailId, Bad)] {
        let age = self.bounds.age;
        let Some(known) = self.keys.peek_mut(key) else {
            return &[];
        };
        known.retain(|(_, bad)| !is_over(bad, age, now));
        known
    }
}

fn is_over(bad: &Bad, age: f64, now: f64) -> bool {
    let before = now.trunc() - age;
    bad.bantime
        .is_some_and(|bantime| bad.last < before && bad.last + bantime * 3.0 < before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(last: f64, count: u32) -> Bad {
        Bad {
            last,
            bantime: Some(600.0),
            count,
        }
    }

    #[test]
    fn jails_are_apart_and_can_be_summed() {
        let mut history = History::new(Bounds::default());
        let key = Key::parse("192.0.2.7");
        history.put(&key, 1, bad(1000.0, 2));
        history.put(&key, 2, bad(900.0, 3));
        history.put(&key, 2, bad(950.0, 4));
        assert_eq!(history.of(&key, 2, 1000.0), Some(bad(950.0, 4)));
        assert_eq!(history.of(&key, 3, 1000.0), None);
        assert_eq!(history.overall(&key, 1000.0), Some(bad(1000.0, 6)));
        history.forget(&key, 2);
        assert_eq!(history.overall(&key, 1000.0), Some(bad(1000.0, 2)));
        history.forget(&key, 1);
        assert!(history.is_empty());
    }

    #[test]
    fn a_key_is_forgotten_an_age_after_three_bantimes() {
        let mut history = History::new(Bounds::default());
        let (key, ever) = (Key::parse("192.0.2.7"), Key::parse("192.0.2.8"));
        history.put(&key, 0, bad(1000.0, 1));
        history.put(
            &ever,
            0,
            Bad {
                bantime: None,
                ..bad(1000.0, 1)
            },
        );
        let end = 1000.0 + 3.0 * 600.0 + 86_400.0;
        history.purge(end);
        assert!(history.of(&key, 0, end).is_some());
        assert_eq!(history.of(&key, 0, end + 1.0), None);
        history.purge(end + 1.0);
        assert_eq!(history.len(), 1);
        assert!(history.of(&ever, 0, 1e12).is_some());
    }

    #[test]
    fn at_the_bound_the_ban_longest_ago_is_forgotten() {
        let mut history = History::new(Bounds {
            keys: 2,
            ..Bounds::default()
        });
        let keys = ["a", "b", "c"].map(Key::parse);
        history.put(&keys[0], 0, bad(1.0, 1));
        history.put(&keys[1], 0, bad(2.0, 1));
        history.put(&keys[0], 0, bad(3.0, 2));
        history.put(&keys[2], 0, bad(4.0, 1));
        assert_eq!(history.of(&keys[1], 0, 5.0), None);
        assert!(history.of(&keys[0], 0, 5.0).is_some());
    }
}
