//! What the ledger is told of bans that nobody else tells it of: by jails of httpd's lines, of whichever process, and by
//! hand. The kernel's sets are the truth, and the keeper reads them; after a reboot they are empty, and the ledger is
//! asked.

use std::collections::{HashMap, HashSet};

use super::jail;
use crate::bans::Standing;
use crate::config::{Config, Jail};
use crate::date::now;
use crate::exempt::Target;
use crate::hit::JailId;
use crate::key::Key;
use crate::ledger::Pen;

/// Ends that differ by this much are the same, seconds: the kernel tells whole ones, rounded.
const SAME: f64 = 5.0;

/// What the ledger knows, by the names of jails: whom, and the end, seconds since the epoch (none: never).
pub type Noted = HashMap<String, HashMap<Target, Option<f64>>>;

/// The ledger's knowledge, and what is to be told it.
#[derive(Debug, Default)]
pub(super) struct Records {
    pen: Option<Pen>,
    noted: Noted,
    /// Of whom the ledger knows something else than the keeper.
    pending: HashSet<(JailId, Target)>,
}

impl Records {
    /// There is a ledger, and this is what it knows.
    pub(super) fn open(&mut self, (pen, noted): (Pen, Noted)) {
        self.pen = Some(pen);
        self.noted = noted;
    }

    /// The same for a configuration in which jails may have other numbers; what is still to be told is found by comparing.
    pub(super) fn renewed(&mut self) -> Self {
        self.pending.clear();
        std::mem::take(self)
    }

    /// Something about this ban has changed.
    pub(super) fn changed(&mut self, config: &Config, key: (JailId, Target)) {
        if self.pen.is_some() && jail(config, key.0).is_some_and(is_ours) {
            self.pending.insert(key);
        }
    }

    /// Compares all that is known with the bans that run; `base` is when their ends count from.
    pub(super) fn compare(
        &mut self,
        config: &Config,
        ends: &HashMap<(JailId, Target), u32>,
        base: f64,
    ) {
        if self.pen.is_none() {
            return;
        }
        let ours: Vec<(JailId, &Jail)> = super::jails(config).filter(|(_, j)| is_ours(j)).collect();
        let mut noted: HashMap<JailId, &HashMap<Target, Option<f64>>> = HashMap::new();
        for (id, jail) in &ours {
            noted.extend(self.noted.get(&jail.name).map(|noted| (*id, noted)));
        }
        for (key @ (id, who), end) in ends {
            let known = noted.get(id).and_then(|noted| noted.get(who));
            if known.is_some_and(|known| same(*known, epoch(*end, base))) {
                continue;
            }
            if ours.iter().any(|(ours, _)| ours == id) {
                self.pending.insert(*key);
            }
        }
        for (id, noted) in noted {
            let over = noted.keys().filter(|who| !ends.contains_key(&(id, **who)));
            self.pending.extend(over.map(|who| (id, *who)));
        }
    }

    /// Tells the ledger, as long as it has room.
    pub(super) fn tell(
        &mut self,
        config: &Config,
        ends: &HashMap<(JailId, Target), u32>,
        base: f64,
    ) {
        let Some(pen) = self.pen.as_ref().filter(|_| !self.pending.is_empty()) else {
            return;
        };
        let now = now();
        let mut told = Vec::new();
        for key @ (id, who) in &self.pending {
            let Some(jail) = jail(config, *id) else {
                told.push(*key);
                continue;
            };
            let noted = self.noted.entry(jail.name.clone()).or_default();
            let of = Key::from(*who).counted(jail.ipv6_prefix);
            let written = match ends.get(key) {
                Some(end) => {
                    let until = epoch(*end, base);
                    let standing = Standing {
                        start: now,
                        bantime: until.map(|until| until - now),
                    };
                    let known = noted.get(who).is_some_and(|known| same(*known, until));
                    let written = known || pen.ban(&jail.name, of, standing, now);
                    if written {
                        noted.insert(*who, until);
                    }
                    written
                }
                None => {
                    let written = !noted.contains_key(who) || pen.unban(&jail.name, of, now);
                    if written {
                        noted.remove(who);
                    }
                    written
                }
            };
            if !written {
                // It has no room; the rest has time.
                break;
            }
            told.push(*key);
        }
        for key in told {
            self.pending.remove(&key);
        }
    }
}

/// Nobody else tells of its bans.
fn is_ours(jail: &Jail) -> bool {
    jail.raw.is_none()
}

fn epoch(end: u32, base: f64) -> Option<f64> {
    (end != u32::MAX).then(|| base + f64::from(end))
}

fn same(one: Option<f64>, other: Option<f64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() < SAME,
        (one, other) => one.is_none() && other.is_none(),
    }
}
