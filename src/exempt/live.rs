//! What changes while we run: own addresses, logins, the addresses of host names.
//!
//! One thread looks them up and publishes the whole as a new generation; the hot thread compares generations, and takes
//! the new one only if that needs no waiting. So it may act on what was true a moment ago, and never stands still.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::{Range, Ranges, Spared, bits, host};
use crate::silence::board;

/// How long the addresses of a host name are trusted.
const NAMES_EVERY: Duration = Duration::from_secs(300);

/// One state of it all.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) own: Ranges,
    pub(super) logged_in: Ranges,
    names: BTreeMap<Arc<str>, Vec<IpAddr>>,
}

impl Live {
    /// Without host names: nothing here waits.
    pub(super) fn of_this_host() -> Self {
        let single = |addr: IpAddr, spared: fn(IpAddr) -> Spared| (IpNet::from(addr), spared(addr));
        Self {
            own: host::own_addresses()
                .into_iter()
                .map(|addr| single(addr, Spared::Own))
                .collect(),
            logged_in: host::logins()
                .into_iter()
                .map(|addr| single(addr, Spared::LoggedIn))
                .collect(),
            names: BTreeMap::new(),
        }
    }

    /// Whether one of the host's addresses is in `range`.
    pub(super) fn named(&self, name: &Arc<str>, (first, last): Range) -> Option<Spared> {
        let addrs = self.names.get(name)?;
        let inside = addrs
            .iter()
            .find(|addr| (first..=last).contains(&bits(**addr)))?;
        Some(Spared::IgnoredName(Arc::clone(name), *inside))
    }
}

/// The newest state, between its writer and its readers.
#[derive(Debug)]
pub(super) struct Shared {
    generation: AtomicU64,
    newest: Mutex<Arc<Live>>,
    /// Host names that are to be looked up.
    wanted: Mutex<BTreeSet<Arc<str>>>,
}

impl Shared {
    pub(super) fn new(live: Arc<Live>) -> Self {
        Self {
            generation: AtomicU64::new(0),
            newest: Mutex::new(live),
            wanted: Mutex::default(),
        }
    }

    /// These host names are to be looked up from now on, and no others.
    pub(super) fn want(&self, names: BTreeSet<Arc<str>>) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    fn wanted(&self) -> BTreeSet<Arc<str>> {
        let wanted = self.wanted.lock();
        wanted.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Brings a reader up to date; if the writer is just at work, next time.
    pub(super) fn update(&self, seen: &mut (u64, Arc<Live>)) {
        let generation = self.generation.load(Ordering::Acquire);
        if seen.0 == generation {
            return;
        }
        if let Ok(newest) = self.newest.try_lock() {
            *seen = (generation, Arc::clone(&newest));
        }
    }

    fn publish(&self, live: Live) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
        self.generation.fetch_add(1, Ordering::Release);
    }
}

/// Looks up what changes. For a background thread, which calls [`Refresher::refresh`] at once and then every second or
/// two: who has just logged in should be spared soon.
#[derive(Debug)]
pub struct Refresher {
    shared: Arc<Shared>,
    names: BTreeMap<Arc<str>, Name>,
}

/// What is known of a host name.
#[derive(Debug, Default)]
struct Name {
    addrs: Vec<IpAddr>,
    resolved: Option<Instant>,
}

impl Refresher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            names: BTreeMap::new(),
        }
    }

    /// Is anybody left who asks? Where a configuration is read anew, nobody asks by the old one any more.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    /// Publishes own addresses and logins as they are now, and the addresses of host names: those that are five minutes
    /// old are asked for again, which may take as long as DNS takes. A name that cannot be resolved keeps its addresses
    /// and is tried again at the next call; this is said once.
    pub fn refresh(&mut self) {
        self.refresh_by(Instant::now(), resolve);
    }

    fn refresh_by(&mut self, now: Instant, resolve: impl Fn(&str) -> io::Result<Vec<IpAddr>>) {
        let wanted = self.shared.wanted();
        self.names.retain(|name, _| wanted.contains(name));
        for name in wanted {
            self.names.entry(name).or_default();
        }
        // Names may take their time: own addresses and logins are told before.
        self.publish();
        let mut changed = false;
        for (name, known) in &mut self.names {
            if known
                .resolved
                .is_some_and(|at| now.saturating_duration_since(at) < NAMES_EVERY)
            {
                continue;
            }
            match resolve(name) {
                Ok(addrs) => {
                    board().over(&about(name), "can be resolved again");
                    changed = true;
                    *known = Name {
                        addrs,
                        resolved: Some(now),
                    };
                }
                Err(error) => {
                    let then = if known.addrs.is_empty() {
                        "it is not spared yet"
                    } else {
                        "its last addresses are kept"
                    };
                    let text = format!("cannot be resolved: {error}; {then}, trying again");
                    board().tell(&about(name), text);
                }
            }
        }
        if changed {
            self.publish();
        }
    }

    fn publish(&self) {
        let names = self
            .names
            .iter()
            .map(|(name, known)| (Arc::clone(name), known.addrs.clone()));
        self.shared.publish(Live {
            names: names.collect(),
            ..Live::of_this_host()
        });
    }
}

fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    let addrs = (name, 0).to_socket_addrs()?;
    Ok(addrs.map(|addr| addr.ip().to_canonical()).collect())
}

/// What troubles with a name are about.
fn about(name: &str) -> String {
    format!("ignoreip: {name}")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;

    use super::*;
    use crate::client::Client;
    use crate::config::from_text;
    use crate::exempt::{Exempt, Target};

    #[test]
    fn a_host_name_is_spared_once_resolved_and_keeps_its_addresses_when_dns_fails() {
        let loaded = from_text(
            Path::new("my.toml"),
            "[defaults]\nignoreip = 'monitor.example.org'\n",
        );
        let exempt = Exempt::new(&loaded.config);
        let mut refresher = exempt.refresher();
        let who = |addr: &str| Target::Client(Client::parse(addr.as_bytes()).unwrap());
        let spared = |addr: &str| {
            exempt
                .check(who(addr), Some(0))
                .err()
                .map(|spared| spared.to_string())
        };
        let answer: Cell<Option<&str>> = Cell::new(Some("192.0.2.7"));
        let asked = Cell::new(0);
        let resolve = |_: &str| {
            asked.set(asked.get() + 1);
            let addr = answer
                .get()
                .ok_or_else(|| io::Error::other("no such host"))?;
            Ok(vec![addr.parse().unwrap()])
        };

        assert_eq!(spared("192.0.2.7"), None);
        let start = Instant::now();
        refresher.refresh_by(start, resolve);
        let reason = "ignoreip has monitor.example.org, which is 192.0.2.7";
        assert_eq!(spared("192.0.2.7").as_deref(), Some(reason));

        answer.set(None);
        refresher.refresh_by(start + Duration::from_secs(10), resolve);
        assert_eq!(asked.get(), 1, "fresh names are not asked for again");
        refresher.refresh_by(start + NAMES_EVERY, resolve);
        assert_eq!(
            (asked.get(), spared("192.0.2.7").as_deref()),
            (2, Some(reason))
        );

        answer.set(Some("192.0.2.8"));
        refresher.refresh_by(start + NAMES_EVERY, resolve);
        assert_eq!(spared("192.0.2.7"), None);
        assert!(spared("192.0.2.8").is_some());
    }
}
