//! Who is banned until when, in one jail. Pure: firewalls are somebody else's.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use crate::key::Key;

/// One ban. Its end is what [`Standing::end`] computes and nothing else: start and length are kept, as in fail2ban, so
/// that fractions of seconds round alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// When it began: the time of the last failure, seconds since the epoch.
    pub start: f64,
    /// How long it is, seconds; `None`: for ever.
    pub bantime: Option<f64>,
}

impl Standing {
    /// When it ends, seconds since the epoch; `None`: never. A ban still stands at the very moment of its end.
    #[must_use]
    pub fn end(&self) -> Option<f64> {
        self.bantime.map(|bantime| self.start + bantime)
    }

    /// Whether it has ended before `now`.
    #[must_use]
    pub fn is_over(&self, now: f64) -> bool {
        self.end().is_some_and(|end| end < now)
    }
}

/// The bans that stand.
#[derive(Debug, Default)]
pub(super) struct Bans {
    standing: HashMap<Key, (Standing, u64)>,
    /// By their ends, those without one last; of equal ones the first made.
    order: BTreeMap<(Moment, u64), Key>,
    made: u64,
}

impl Bans {
    pub(super) fn len(&self) -> usize {
        self.standing.len()
    }

    pub(super) fn get(&self, key: &Key) -> Option<Standing> {
        self.standing.get(key).map(|(standing, _)| *standing)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, Standing)> {
        self.standing.iter().map(|(key, (ban, _))| (key, *ban))
    }

    /// Makes a ban, or changes one.
    pub(super) fn put(&mut self, key: &Key, ban: Standing) {
        let place = match self.standing.get(key) {
            Some((old, place)) => {
                self.order.remove(&(Moment::of(old), *place));
                *place
            }
            None => {
                self.made += 1;
                self.made
            }
        };
        self.order.insert((Moment::of(&ban), place), key.clone());
        self.standing.insert(key.clone(), (ban, place));
    }

    pub(super) fn remove(&mut self, key: &Key) -> bool {
        let Some((ban, place)) = self.standing.remove(key) else {
            return false;
        };
        self.order.remove(&(Moment::of(&ban), place));
        true
    }

    /// The end that comes first.
    pub(super) fn next_end(&self) -> Option<f64> {
        let ((end, _), _) = self.order.first_key_value()?;
        end.0.is_finite().then_some(end.0)
    }

    /// Takes away the ban that ends first, and tells its end.
    pub(super) fn pop(&mut self) -> Option<(Key, f64)> {
        let ((end, _), key) = self.order.pop_first()?;
        self.standing.remove(&key);
        Some((key, end.0))
    }
}

/// Seconds since the epoch, in order.
#[derive(Clone, Copy, Debug)]
struct Moment(f64);

impl Moment {
    fn of(ban: &Standing) -> Self {
        Self(ban.end().unwrap_or(f64::INFINITY))
    }
}

impl Ord for Moment {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Moment {}
