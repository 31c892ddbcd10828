//! Other logs: sshd's, mail servers', whatever jails judge by expressions.
//!
//! ```text
//! tail, journal, httpd's pipe ─> failregex ─> exempt ─> bans (count, how long) ─> act, actions, ledger, notify
//! ```
//!
//! All of it on one thread of its own: imported expressions are not bounded as the way of httpd's lines is, and must never
//! delay it. What may wait for others (names to be looked up, commands that are asked) is on further ones. It reads logs
//! only in the process that holds the lock in the runtime directory; lines that httpd pipes are judged in the process that
//! gets them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::act::keeper::Hand;
use crate::bans::{Decision, What};
use crate::config::{Config, Origin, RuntimePaths};
use crate::exempt::{Exempt, Target};
use crate::failregex::{Clock, Phase, Stamp};
use crate::frame::{Framed, Framer, Trust};
use crate::hit::JailId;
use crate::judge::JailTally;
use crate::key::Key;
use crate::ledger::{Ledger, Limits};
use crate::notify::logfile;
use crate::run::guarded;

mod desk; // what becomes of a failure
mod exchange; // what other processes tell
mod jail; // one jail: its expressions, its bans, its actions
mod neighbour; // a fail2ban-server beside us
mod slow; // names and commands that are asked before a failure counts
mod sources; // logs and journals, and which jails read them
mod standalone; // `f2b-pipe watch`

use desk::Desk;
use exchange::Exchange;
use jail::Jail;
use neighbour::Lookout;
pub use neighbour::fail2ban_runs;
use sources::{Sources, Told};
pub use standalone::run;

/// Chunks of httpd's lines that may wait; a chunk is a megabyte at most, and mostly far less.
const FEED: usize = 16;
/// Bans of other threads and answers that may wait.
const NEWS: usize = 10_000;
/// How often ends of bans are looked at, and whether the lock is ours.
const TICK: Duration = Duration::from_secs(1);
/// The same at the beginning, for as long as [`EAGER`], until logs are read.
const EARLY_TICK: Duration = Duration::from_millis(50);
const EAGER: Duration = Duration::from_secs(3);
/// How often a fail2ban-server is looked for.
const LOOK: Duration = Duration::from_secs(3);
/// How often positions in logs are written down.
const NOTE: Duration = Duration::from_secs(10);
/// Panics after which logs are not watched anew.
const PANICS_MAX: u32 = 10;
/// How long commands of actions may go on after the end.
const FAREWELL: Duration = Duration::from_secs(3);

/// What a watch works with.
#[derive(Clone)]
pub struct Setting {
    /// All jails.
    pub config: Arc<Config>,
    /// Lock and state.
    pub paths: RuntimePaths,
    /// Who is never banned.
    pub exempt: Exempt,
    /// Who keeps sets and chain.
    pub keeper: Hand,
    /// `f2b-pipe off`.
    pub off: Arc<AtomicBool>,
    /// The log whose lines come through [`Watch::feed`]: `--tee`.
    pub piped: Option<PathBuf>,
}

/// A hold on the thread. Dropping it ends the thread.
#[derive(Debug)]
pub struct Watch {
    feed: SyncSender<(Vec<u8>, Trust)>,
    news: SyncSender<News>,
    wake: UnixStream,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Some jail wants what httpd pipes.
    wants_feed: bool,
}

/// What the thread tells.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Lines of httpd's pipe that found no room.
    shed: AtomicU64,
    tallies: Mutex<BTreeMap<String, JailTally>>,
    /// They changed since they were asked for.
    counted: AtomicBool,
}

/// What other threads tell this one.
#[derive(Debug)]
enum News {
    /// A jail of httpd's lines has banned somebody: recidive counts that.
    Banned(JailId, Key),
    /// A failure whose name was looked up, and that no command wants ignored.
    Ready(Box<slow::Ready>),
}

impl Watch {
    /// Starts the thread, if any jail needs it.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(setting: Setting) -> std::io::Result<Option<Self>> {
        if setting.config.jails.iter().all(|jail| jail.raw.is_none()) {
            return Ok(None);
        }
        let (feed, fed) = sync_channel(FEED);
        let (news, told) = sync_channel(NEWS);
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let shared = Arc::new(Shared::default());
        let wants_feed = setting.piped.as_deref().is_some_and(|path| {
            let raws = setting
                .config
                .jails
                .iter()
                .filter_map(|jail| jail.raw.as_ref());
            raws.into_iter().any(|raw| raw.reads(path))
        });
        let back = Arc::new(slow::Back {
            news: news.clone(),
            wake: wake.try_clone()?,
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || {
                crate::sys::stand_back();
                for _ in 0..PANICS_MAX {
                    let room = || stay(&setting, &back, &theirs, &woken, &fed, &told);
                    if guarded(room).is_some() {
                        return;
                    }
                    // Nobody knows what state the rooms are in; they begin anew.
                    std::thread::sleep(TICK);
                }
                log::error!(
                    "{PANICS_MAX} internal errors: other logs are not watched any more until the next restart"
                );
            })?;
        Ok(Some(Self {
            feed,
            news,
            wake,
            shared,
            thread: Some(thread),
            wants_feed,
        }))
    }

    /// Hands over bytes that httpd piped. Never waits: what finds no room is counted in [`shed`](Self::shed).
    pub fn feed(&self, chunk: &[u8], trust: Trust) {
        if !self.wants_feed {
            return;
        }
        if self.feed.try_send((chunk.to_vec(), trust)).is_err() {
            let lines = memchr::memchr_iter(b'\n', chunk).count();
            self.shared
                .shed
                .fetch_add(u64::try_from(lines).unwrap_or(0), Ordering::Relaxed);
            return;
        }
        self.wake();
    }

    /// Tells of a ban by another jail. Never waits.
    pub fn banned(&self, jail: JailId, key: Key) {
        // One that is lost while ten thousand wait is missed by recidive only.
        if self.news.try_send(News::Banned(jail, key)).is_ok() {
            self.wake();
        }
    }

    /// Lines of httpd's pipe that found no room.
    #[must_use]
    pub fn shed(&self) -> u64 {
        self.shared.shed.load(Ordering::Relaxed)
    }

    /// Have jails counted anything since [`tallies`](Self::tallies) was asked?
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.shared.counted.load(Ordering::Relaxed)
    }

    /// What jails counted, by name.
    #[must_use]
    pub fn tallies(&self) -> BTreeMap<String, JailTally> {
        self.shared.counted.store(false, Ordering::Relaxed);
        let tallies = self.shared.tallies.lock();
        tallies.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wake(&self) {
        wake(&self.wake);
    }
}

/// Bans were lifted by hand: in `jail` or all, of `who` or all. Without this they would be back after a restart.
///
/// # Errors
/// Nobody runs to be told, and what is remembered cannot be changed.
pub fn lifted(
    config: &Config,
    paths: &RuntimePaths,
    jail: Option<&str>,
    who: Option<Target>,
) -> std::io::Result<()> {
    let told = exchange::Told::Unban {
        jail: jail.map(str::to_owned),
        key: who.map(Key::from),
    };
    if Exchange::new(paths.bans()).send(&told) || !paths.ledger().exists() {
        return Ok(());
    }
    let now = now();
    let (ledger, past) = Ledger::open(&paths.ledger(), Limits::default(), now)?;
    for (name, remembered) in past.bans {
        let prefix = config.jails.iter().find(|jail| jail.name == name);
        let prefix = prefix.map_or(128, |jail| jail.ipv6_prefix);
        let same = |who| Key::from(who).counted(prefix) == remembered.key;
        if jail.is_none_or(|jail| jail == name) && who.is_none_or(same) {
            let key = remembered.key;
            let what = What::Unban { at: now };
            ledger.forget(&name, &key, now);
            ledger.decided(&name, &Decision { key, what }, now);
        }
    }
    match ledger.close(FAREWELL) {
        true => Ok(()),
        false => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

/// Makes the thread look. A pipe that is full wakes it all the same.
fn wake(wake: &UnixStream) {
    let mut wake = wake;
    wake.write_all(&[0]).ok();
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // A panic was told where it happened.
            thread.join().ok();
        }
    }
}

/// Seconds since the epoch.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// The thread's work. When a fail2ban-server comes or goes, the room is left and entered anew with other jails: what was
/// banned and how far logs were read is remembered, as over a restart.
fn stay(
    setting: &Setting,
    back: &Arc<slow::Back>,
    shared: &Arc<Shared>,
    woken: &UnixStream,
    fed: &Receiver<(Vec<u8>, Trust)>,
    told: &Receiver<News>,
) {
    let imported: Vec<&str> = setting
        .config
        .jails
        .iter()
        .filter(|jail| {
            let raw = jail.raw.as_ref();
            raw.is_some_and(|raw| raw.origin == Origin::Fail2ban)
        })
        .map(|jail| jail.name.as_str())
        .collect();
    let lookout = RefCell::new(Lookout::default());
    let look = |before| !imported.is_empty() && lookout.borrow_mut().sees(before);
    let mut beside = look(false);
    while !shared.stop.load(Ordering::Relaxed) {
        if beside {
            log::warn!(
                "fail2ban-server runs on this host, so its jails stand back here until it has ended: {}",
                imported.join(", ")
            );
        }
        let room = Room::new(setting, back, Arc::clone(shared), beside);
        room.stay(woken, fed, told, &|| look(beside) == beside);
        if beside {
            log::info!("fail2ban-server has ended");
        }
        beside = !beside;
    }
}

/// The thread's side.
struct Room {
    jails: Vec<Jail>,
    desk: Desk,
    sources: Sources,
    /// Lines of httpd's pipe.
    framer: Framer,
    piped: Option<PathBuf>,
    shared: Arc<Shared>,
    shed: u64,
    next_look: Instant,
    next_note: Instant,
}

impl Room {
    /// `beside`: a fail2ban-server runs, and has its own jails.
    fn new(setting: &Setting, back: &Arc<slow::Back>, shared: Arc<Shared>, beside: bool) -> Self {
        let Setting {
            config,
            paths,
            exempt,
            keeper,
            off,
            piped,
        } = setting.clone();
        let exchange = Exchange::new(paths.bans());
        let desk = Desk::new(Arc::clone(&config), exempt, keeper, off, exchange);
        let jails = Jail::all(&config, back, &|raw| {
            !(beside && raw.origin == Origin::Fail2ban)
        });
        let sources = Sources::new(&config, paths, piped.clone());
        let mut room = Self {
            jails,
            desk,
            sources,
            framer: Framer::default(),
            piped,
            shared,
            shed: 0,
            next_look: Instant::now() + LOOK,
            next_note: Instant::now() + NOTE,
        };
        if let Some(path) = &room.piped {
            for jail in &mut room.jails {
                jail.compile_if(|raw| raw.reads(path));
            }
        }
        room
    }

    /// Until the end, or until things are not `as_before`.
    fn stay(
        mut self,
        woken: &UnixStream,
        fed: &Receiver<(Vec<u8>, Trust)>,
        told: &Receiver<News>,
        as_before: &dyn Fn() -> bool,
    ) {
        let begun = Instant::now();
        let mut next_tick = begun;
        while !self.shared.stop.load(Ordering::Relaxed) {
            if Instant::now() >= next_tick {
                self.tick();
                let early = !self.sources.is_open() && begun.elapsed() < EAGER;
                next_tick = Instant::now() + if early { EARLY_TICK } else { TICK };
            }
            if Instant::now() >= self.next_look {
                self.next_look = Instant::now() + LOOK;
                if !as_before() {
                    break;
                }
            }
            let left = next_tick.saturating_duration_since(Instant::now());
            let pause = left.min(self.sources.pause());
            self.rest(woken, pause);
            while let Ok((chunk, trust)) = fed.try_recv() {
                self.piped(&chunk, trust);
            }
            while let Ok(news) = told.try_recv() {
                match news {
                    News::Banned(by, key) => self.desk.banned(&mut self.jails, by, &key, now()),
                    News::Ready(ready) => self.desk.ready(&mut self.jails, *ready, now()),
                }
            }
            self.desk.hear(&mut self.jails, now());
            self.read();
            // What is banned must not be counted once more after a crash.
            if self.desk.take_decided() {
                self.sources.note(self.desk.ledger(), now());
            }
        }
        self.end();
    }

    /// Waits until there is something to do.
    fn rest(&self, woken: &UnixStream, pause: Duration) {
        if !pause.is_zero() {
            let mut fds: Vec<BorrowedFd<'_>> = vec![woken.as_fd()];
            fds.extend(self.sources.fds());
            fds.extend(self.desk.fd());
            let mut fds: Vec<PollFd<'_>> = fds
                .into_iter()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            // Rounded up, or the last millisecond is spent in a loop.
            let timeout =
                PollTimeout::try_from(pause + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            if poll(&mut fds, timeout).is_err() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let mut bytes = [0; 64];
        let mut woken = woken;
        while woken.read(&mut bytes).is_ok_and(|n| n > 0) {}
    }

    /// Lines of logs and journals.
    fn read(&mut self) {
        let Self {
            jails,
            desk,
            sources,
            ..
        } = self;
        sources.read(&mut |told, owners| {
            let now = now();
            let clock = Clock { now, today: now };
            match told {
                Told::Line { text, stamp, live } => {
                    for owner in owners {
                        let Some(jail) = jails.get_mut(*owner) else {
                            continue;
                        };
                        let phase = if live {
                            Phase::Following
                        } else {
                            Phase::Reading(jail.findtime())
                        };
                        jail.line(text, stamp, phase, clock);
                    }
                    desk.failed(jails, owners, now);
                }
                Told::Old { line } => {
                    let first = owners.first().and_then(|owner| jails.get_mut(*owner));
                    return first.and_then(|jail| jail.time_of(line, now));
                }
            }
            None
        });
    }

    /// Lines that httpd piped.
    fn piped(&mut self, chunk: &[u8], trust: Trust) {
        let shed = self.shared.shed.load(Ordering::Relaxed);
        if shed != self.shed {
            // A chunk is missing: the line that had begun has not this end.
            self.shed = shed;
            self.framer = Framer::default();
        }
        let Some(path) = self.piped.clone() else {
            return;
        };
        let owners: Vec<usize> = (0..self.jails.len())
            .filter(|at| self.jails.get(*at).is_some_and(|jail| jail.reads(&path)))
            .collect();
        let Self {
            jails,
            desk,
            framer,
            ..
        } = self;
        framer.feed(chunk, trust, |lines, trust| {
            if trust == Trust::Doubtful {
                return;
            }
            for line in lines {
                // A client may have chosen where the head of a longer one ends.
                let Framed::Line(line) = line else { continue };
                let now = now();
                let clock = Clock { now, today: now };
                for owner in &owners {
                    let Some(jail) = jails.get_mut(*owner) else {
                        continue;
                    };
                    jail.bytes(line, Stamp::InText, Phase::Following, clock);
                }
                desk.failed(jails, &owners, now);
            }
        });
    }

    fn tick(&mut self) {
        let now = now();
        let owner = self.desk.owns();
        if owner && !self.sources.is_open() {
            let past = self.sources.open(&mut self.jails, now);
            self.desk.remember(&mut self.jails, past, now);
            let running = self.jails.iter().filter(|jail| jail.runs());
            let names: Vec<&str> = running.map(Jail::name).collect();
            log::info!("watching logs; jails: {}", names.join(", "));
            names.into_iter().for_each(logfile::jail_started);
        }
        for at in 0..self.jails.len() {
            self.desk.advance(&mut self.jails, at, now);
        }
        if Instant::now() >= self.next_note {
            self.next_note = Instant::now() + NOTE;
            self.sources.note(self.desk.ledger(), now);
        }
        let tallies: BTreeMap<String, JailTally> = self
            .jails
            .iter()
            .map(|jail| (jail.name().to_owned(), jail.tally))
            .collect();
        let told = self.shared.tallies.lock();
        let mut told = told.unwrap_or_else(PoisonError::into_inner);
        if *told != tallies {
            *told = tallies;
            self.shared.counted.store(true, Ordering::Relaxed);
        }
    }

    fn end(mut self) {
        let now = now();
        self.sources.note(self.desk.ledger(), now);
        let jails = std::mem::take(&mut self.jails);
        if self.sources.is_open() {
            let running = jails.iter().filter(|jail| jail.runs());
            running.map(Jail::name).for_each(logfile::jail_stopped);
        }
        self.desk.end(jails, FAREWELL);
    }
}
