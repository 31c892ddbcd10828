//! The counters of one jail whose failures have logged times: a bounded table by key, in either way of counting.
//!
//! At a bound the key that was quiet longest is forgotten, and counted if it still mattered.

use std::hash::Hash;

use lru::LruCache;

use super::estimate::Estimate;
use super::logged::Window;

/// A way to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// fail2ban's estimate by the rate (`count = "fail2ban"`).
    #[default]
    Estimate,
    /// An exact sliding window (`count = "window"`).
    Window,
}

/// What a jail asks of its counters.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// How to count.
    pub way: Way,
    /// Seconds.
    pub findtime: f64,
    /// Failures that are enough, at least 1.
    pub maxretry: u32,
    /// Lines kept of a key, the latest.
    pub maxmatches: usize,
}

/// What the table may grow to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Keys; each takes about 150 bytes, and a text what it is long.
    pub keys: usize,
    /// Bytes of lines and windows of all keys together.
    pub bytes: usize,
}

impl Default for Bounds {
    /// 250,000 keys, 64 MiB.
    fn default() -> Self {
        Self {
            keys: 250_000,
            bytes: 64 << 20,
        }
    }
}

/// How much of a line is kept, bytes. Enough to see what was tried; a syslog line seldom has half of it.
const LINE_MAX_BYTES: usize = 1024;
/// Keys that are looked at for having had their time, at each failure: two, so that the table shrinks.
const SWEPT: usize = 2;

/// The counters.
#[derive(Debug)]
pub struct Keyed<K: Hash + Eq> {
    table: LruCache<K, Entry>,
    rule: Rule,
    bounds: Bounds,
    bytes: usize,
    evicted: u64,
}

#[derive(Debug)]
struct Entry {
    tally: Tally,
    /// Failures that came, whatever they count.
    failures: u32,
    bans_before: u32,
    lines: Vec<Box<str>>,
}

#[derive(Debug)]
enum Tally {
    Estimate(Estimate),
    Window(Window),
}

/// What was counted of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// What `maxretry` is compared with.
    pub count: u32,
    /// Failures that came, without regard to findtime.
    pub failures: u32,
    /// When the latest was, seconds since the epoch.
    pub last: f64,
    /// How many bans were known when the first failure came and counted more for them; else 0.
    pub bans_before: u32,
    /// The latest lines.
    pub lines: Vec<Box<str>>,
}

impl<K: Hash + Eq + Clone> Keyed<K> {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new(rule: Rule, bounds: Bounds) -> Self {
        Self {
            table: LruCache::unbounded(),
            rule,
            bounds,
            bytes: 0,
            evicted: 0,
        }
    }

    /// Another rule from now on; a key that was counted in another way begins anew.
    pub fn set_rule(&mut self, rule: Rule) {
        if rule.way != self.rule.way {
            self.table.clear();
            self.bytes = 0;
        }
        self.rule = rule;
    }

    /// Keys in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nobody is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Keys forgotten at a bound although they still mattered.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Counts a failure of `key` at `at` (seconds since the epoch, not later than `now`) and returns the count.
    pub fn add(&mut self, key: &K, at: f64, now: f64, line: Option<&str>) -> u32 {
        self.sweep(now);
        self.drop_if_over(key, now);
        let Rule { maxmatches, .. } = self.rule;
        let entry = match self.table.get_mut(key) {
            Some(entry) => {
                self.bytes -= entry.bytes();
                entry.tally.add(at, now, 1, &self.rule);
                entry
            }
            None => self.table.get_or_insert_mut(key.clone(), || Entry {
                tally: Tally::new(at, now, &self.rule),
                failures: 0,
                bans_before: 0,
                lines: Vec::new(),
            }),
        };
        entry.failures = entry.failures.saturating_add(1);
        if let Some(line) = line
            && maxmatches > 0
        {
            let surplus = (entry.lines.len() + 1).saturating_sub(maxmatches);
            entry.lines.drain(..surplus);
            entry.lines.push(cut(line).into());
        }
        self.bytes += entry.bytes();
        let count = entry.tally.count();
        while self.table.len() > self.bounds.keys || self.bytes > self.bounds.bytes {
            if !self.evict(now) {
                break;
            }
        }
        count
    }

    /// Has the failure at `at` that was just added count `weight` times more, because of `bans` before, if the key still
    /// has a counter.
    pub fn add_weight(
        &mut self,
        key: &K,
        at: f64,
        now: f64,
        weight: u32,
        bans: u32,
    ) -> Option<u32> {
        self.drop_if_over(key, now);
        let entry = self.table.get_mut(key)?;
        self.bytes -= entry.bytes();
        entry.tally.add(at, now, weight, &self.rule);
        if entry.failures == 1 {
            entry.bans_before = bans;
        }
        self.bytes += entry.bytes();
        Some(entry.tally.count())
    }

    /// Takes the counter of `key` away: after a ban counting starts from nothing.
    pub fn take(&mut self, key: &K) -> Option<Counted> {
        let entry = self.table.pop(key)?;
        self.bytes -= entry.bytes();
        Some(Counted {
            count: entry.tally.count(),
            failures: entry.failures,
            bans_before: entry.bans_before,
            last: entry.tally.last()?,
            lines: entry.lines,
        })
    }

    fn drop_if_over(&mut self, key: &K, now: f64) {
        let findtime = self.rule.findtime;
        if let Some(entry) = self.table.peek(key)
            && entry.tally.is_over(now, findtime)
        {
            self.bytes -= entry.bytes();
            self.table.pop(key);
        }
    }

    /// Frees what nobody will ask for again; those that were quiet longest are over first, or nearly.
    fn sweep(&mut self, now: f64) {
        for _ in 0..SWEPT {
            match self.table.peek_lru() {
                Some((_, entry)) if entry.tally.is_over(now, self.rule.findtime) => {
                    self.bytes -= entry.bytes();
                    self.table.pop_lru();
                }
                _ => return,
            }
        }
    }

    fn evict(&mut self, now: f64) -> bool {
        let Some((_, entry)) = self.table.pop_lru() else {
            return false;
        };
        self.bytes -= entry.bytes();
        self.evicted += u64::from(!entry.tally.is_over(now, self.rule.findtime));
        true
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        let window = match &self.tally {
            Tally::Estimate(_) => 0,
            Tally::Window(window) => window.bytes(),
        };
        let lines: usize = self.lines.iter().map(|line| line.len()).sum();
        window + lines + self.lines.capacity() * size_of::<Box<str>>()
    }
}

impl Tally {
    fn new(at: f64, now: f64, rule: &Rule) -> Self {
        match rule.way {
            Way::Estimate => Self::Estimate(Estimate::new(at, 1)),
            Way::Window => {
                let mut window = Self::Window(Window::default());
                window.add(at, now, 1, rule);
                window
            }
        }
    }

    fn add(&mut self, at: f64, now: f64, weight: u32, rule: &Rule) {
        match self {
            Self::Estimate(estimate) => estimate.add(at, rule.findtime, weight),
            Self::Window(window) => window.add(at, now, rule.findtime, weight, rule.maxretry),
        }
    }

    fn count(&self) -> u32 {
        match self {
            Self::Estimate(estimate) => estimate.count(),
            Self::Window(window) => window.count(),
        }
    }

    fn last(&self) -> Option<f64> {
        match self {
            Self::Estimate(estimate) => Some(estimate.last()),
            Self::Window(window) => window.last(),
        }
    }

    fn is_over(&self, now: f64, findtime: f64) -> bool {
        match self {
            Self::Estimate(estimate) => estimate.is_over(now, findtime),
            Self::Window(window) => window.is_over(now, findtime),
        }
    }
}

fn cut(line: &str) -> &str {
    let mut end = line.len().min(LINE_MAX_BYTES);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(way: Way) -> Rule {
        Rule {
            way,
            findtime: 600.0,
            maxretry: 5,
            maxmatches: 3,
        }
    }

    #[test]
    fn a_counter_that_is_over_is_not_used() {
        let mut keyed = Keyed::new(rule(Way::Estimate), Bounds::default());
        assert_eq!(keyed.add(&1, 0.0, 0.0, None), 1);
        assert_eq!(keyed.add(&1, 599.0, 599.0, None), 2);
        assert_eq!(keyed.add(&1, 1199.0, 1199.0, None), 1);
        let mut keyed = Keyed::new(rule(Way::Window), Bounds::default());
        assert_eq!(keyed.add(&1, 0.0, 0.0, None), 1);
        assert_eq!(keyed.add(&1, 600.0, 600.0, None), 2);
        assert_eq!(keyed.add(&1, 1200.0, 1200.0, None), 2);
        assert_eq!(keyed.add(&1, 1800.5, 1800.5, None), 1);
    }

    #[test]
    fn a_million_keys_do_not_take_more_than_the_bounds() {
        for (way, keys) in [(Way::Estimate, 1_000_000u32), (Way::Window, 50_000)] {
            let bounds = Bounds {
                keys: 5_000,
                bytes: 400_000,
            };
            let mut keyed = Keyed::new(rule(way), bounds);
            let line = "x".repeat(300);
            for key in 0..keys {
                keyed.add(
                    &key,
                    f64::from(key) / 1000.0,
                    f64::from(key) / 1000.0,
                    Some(&line),
                );
                assert!(keyed.len() <= bounds.keys && keyed.bytes <= bounds.bytes);
            }
            assert!(keyed.evicted() > u64::from(keys) * 4 / 5);
            while let Some((key, _)) = keyed.table.peek_lru() {
                let key = *key;
                keyed.take(&key);
            }
            assert_eq!(keyed.bytes, 0);
        }
    }

    #[test]
    fn keys_that_are_over_leave_by_themselves() {
        let mut keyed = Keyed::new(rule(Way::Estimate), Bounds::default());
        for key in 0..100_000u32 {
            keyed.add(&key, f64::from(key), f64::from(key), None);
        }
        assert!(keyed.len() <= 601);
        assert_eq!(keyed.evicted(), 0);
    }

    #[test]
    fn the_latest_lines_are_kept_and_cut() {
        let mut keyed = Keyed::new(rule(Way::Estimate), Bounds::default());
        for line in ["one", "two", "three", &"ä".repeat(2000)] {
            keyed.add(&1, 0.0, 0.0, Some(line));
        }
        assert_eq!(keyed.add_weight(&1, 0.0, 0.0, 4, 1), Some(8));
        let counted = keyed.take(&1).unwrap();
        assert_eq!((counted.count, counted.failures), (8, 4));
        assert_eq!(*counted.lines[0], *"two");
        assert_eq!(counted.lines[2].len(), LINE_MAX_BYTES);
        assert_eq!(keyed.add_weight(&1, 0.0, 0.0, 4, 1), None);
    }
}
