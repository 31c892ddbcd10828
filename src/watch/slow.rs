//! What has to be asked before a failure counts, and may take long: the addresses of a host name, and `ignorecommand`.
//!
//! Each jail that asks has a thread for it, so that it delays no other; its failures keep their order. A look-up has a
//! limit; the thread that waits for the resolver is left behind then, and only so many are.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::News;
use crate::act::command::Ticket;
use crate::failregex::Failure;
use crate::notify::logfile;
use crate::privilege::Ignore;

/// Failures of one jail that may wait.
const WAITING: usize = 1000;
/// How long a name is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Look-ups of the whole process under way, those that nobody waits for any more among them.
const LOOKING: usize = 8;
/// Names that are remembered by a jail, and for how long: as fail2ban does.
const NAMES: usize = 1000;
const REMEMBERED: Duration = Duration::from_secs(5 * 60);
/// Addresses of one name that count.
const ADDRESSES: usize = 16;

/// Where answers go.
#[derive(Debug)]
pub(super) struct Back {
    pub(super) news: SyncSender<News>,
    pub(super) wake: UnixStream,
}

/// A failure that counts.
#[derive(Debug)]
pub(super) struct Ready {
    /// By name: numbers may have changed meanwhile.
    pub(super) jail: Arc<str>,
    pub(super) failure: Failure,
    /// Seconds since the epoch.
    pub(super) when: f64,
}

/// The way to a jail's thread, which begins with the first failure that is asked about: most jails never have one.
#[derive(Debug)]
pub(super) struct Slow {
    asks_command: bool,
    /// Until the thread begins.
    asker: Option<Asker>,
    to: Option<SyncSender<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    failure: Failure,
    ticket: Ticket,
    when: f64,
}

impl Slow {
    pub(super) fn new(name: &str, ignore: Option<Ignore>, back: &Arc<Back>) -> Self {
        Self {
            asks_command: ignore.is_some(),
            asker: Some(Asker {
                name: name.into(),
                ignore,
                back: Arc::clone(back),
                names: HashMap::new(),
            }),
            to: None,
        }
    }

    /// Must this failure be asked about?
    pub(super) fn wants(&self, failure: &Failure) -> bool {
        failure.unresolved || self.asks_command
    }

    /// Asks; false: too many wait already, or there is no thread, and it is not counted.
    pub(super) fn ask(&mut self, failure: Failure, ticket: Ticket, when: f64) -> bool {
        if let Some(asker) = self.asker.take() {
            self.to = asker.begin();
        }
        let waiting = Waiting {
            failure,
            ticket,
            when,
        };
        self.to
            .as_ref()
            .is_some_and(|to| to.try_send(waiting).is_ok())
    }
}

#[derive(Debug)]
struct Asker {
    name: Arc<str>,
    ignore: Option<Ignore>,
    back: Arc<Back>,
    names: HashMap<String, (Instant, Vec<IpAddr>)>,
}

impl Asker {
    fn begin(mut self) -> Option<SyncSender<Waiting>> {
        let (to, from) = sync_channel(WAITING);
        let started = thread::Builder::new().name("ask".into()).spawn(move || {
            crate::sys::stand_back();
            self.stay(&from);
        });
        let failed = started.inspect_err(|error| {
            log::error!("cannot start a thread: {error}; what must be asked about does not count")
        });
        failed.is_ok().then_some(to)
    }

    fn stay(&mut self, from: &Receiver<Waiting>) {
        while let Ok(Waiting {
            failure,
            mut ticket,
            when,
        }) = from.recv()
        {
            let ids = if failure.unresolved {
                self.addresses(&failure.id)
                    .iter()
                    .map(ToString::to_string)
                    .collect()
            } else {
                vec![failure.id.clone()]
            };
            for id in ids {
                if let Some(ignore) = &self.ignore {
                    ticket.id.clone_from(&id);
                    ticket.ip.clone_from(&id);
                    if ignore.ask(&ticket) {
                        logfile::ignored(&self.name, &id, "command");
                        continue;
                    }
                }
                let failure = Failure {
                    id,
                    unresolved: false,
                    ..failure.clone()
                };
                let ready = Ready {
                    jail: Arc::clone(&self.name),
                    failure,
                    when,
                };
                if self.back.news.send(News::Ready(Box::new(ready))).is_err() {
                    return;
                }
                super::wake(&self.back.wake);
            }
        }
    }

    fn addresses(&mut self, name: &str) -> Vec<IpAddr> {
        if let Some((since, known)) = self.names.get(name)
            && since.elapsed() < REMEMBERED
        {
            return known.clone();
        }
        if self.names.len() >= NAMES {
            self.names
                .retain(|_, (since, _)| since.elapsed() < REMEMBERED);
        }
        if self.names.len() >= NAMES {
            self.names.clear();
        }
        let found = look_up(name);
        self.names
            .insert(name.to_owned(), (Instant::now(), found.clone()));
        found
    }
}

/// Addresses of a name; none, if there are none in time.
fn look_up(name: &str) -> Vec<IpAddr> {
    static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
    if UNDER_WAY.fetch_add(1, Ordering::Relaxed) >= LOOKING {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
        return Vec::new();
    }
    let (answer, answered) = sync_channel(1);
    let asked = name.to_owned();
    let started = thread::Builder::new()
        .name("resolve".into())
        .spawn(move || {
            crate::sys::stand_back();
            let found = (asked.as_str(), 0).to_socket_addrs();
            UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
            answer
                .send(found.map(|all| all.map(|addr| addr.ip().to_canonical()).collect::<Vec<_>>()))
                .ok();
        });
    if started.is_err() {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
        return Vec::new();
    }
    let mut found = match answered.recv_timeout(PATIENCE) {
        Ok(Ok(found)) => found,
        Ok(Err(_)) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Vec::new(),
    };
    found.sort_unstable();
    found.dedup();
    found.truncate(ADDRESSES);
    found
}
