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

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::act::keeper::Hand;
use crate::bans::{Decision, What};
use crate::config::{self, Config, Origin, RuntimePaths};
use crate::date::now;
use crate::exempt::{Exempt, Target};
use crate::failregex::{Clock, Phase, Stamp};
use crate::frame::{Framed, Framer, Trust};
use crate::hit::JailId;
use crate::judge::JailTally;
use crate::key::Key;
use crate::ledger::{Ledger, Limits};
use crate::notify::logfile;
use crate::notify::measure;
use crate::run::guarded;
use crate::silence;

mod desk; // what becomes of a failure
mod exchange; // what other processes tell
mod hand; // what commands ask
mod jail; // one jail: its expressions, its bans, its actions
mod neighbour; // a fail2ban-server beside us
mod slow; // names and commands that are asked before a failure counts
mod sources; // logs and journals, and which jails read them
mod standalone; // `f2b-pipe watch`

use desk::Desk;
use exchange::Exchange;
pub use hand::View;
use jail::Jail;
use neighbour::Lookout;
pub(crate) use neighbour::connect;
pub use neighbour::fail2ban_runs;
use sources::{Sources, Told};
pub use standalone::run;

/// Chunks of httpd's lines that may wait; a chunk is a megabyte at most, and mostly far less.
const FEED: usize = 16;
/// Bans of other threads and answers that may wait.
const NEWS: usize = 4_096;
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
/// How long the thread is waited for when it is asked: it may have a thousand lines to read first.
const ANSWER: Duration = Duration::from_secs(10);
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
    /// Who is told what is wrong.
    pub silence: Option<silence::Hand>,
}

/// A hold on the thread. Dropping it ends the thread.
#[derive(Debug)]
pub struct Watch {
    feed: SyncSender<(Vec<u8>, Trust)>,
    news: SyncSender<News>,
    wake: UnixStream,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Tells the thread of bans by jails of httpd's lines: recidive counts them.
#[derive(Debug)]
pub struct Teller {
    news: SyncSender<News>,
    wake: UnixStream,
    shared: Arc<Shared>,
}

impl Teller {
    /// Never waits.
    pub fn banned(&self, jail: JailId, key: Key) {
        // One that is lost while so many wait is missed by recidive only.
        if self.news.try_send(News::Banned(jail, key)).is_ok()
            && !self.shared.bans_wait.swap(true, Ordering::AcqRel)
        {
            wake(&self.wake);
        }
    }
}

/// Bans come in bursts: being woken for each would cost more than what is done about it.
const COLLECT: Duration = Duration::from_millis(1);

/// What the thread tells.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Lines of httpd's pipe that found no room.
    shed: AtomicU64,
    tallies: Mutex<BTreeMap<String, JailTally>>,
    /// They changed since they were asked for.
    counted: AtomicBool,
    /// Some jail wants what httpd pipes.
    wants_feed: AtomicBool,
    /// The thread was woken for bans, and has not looked at them since.
    bans_wait: AtomicBool,
    /// What took the place of the configuration that the thread began with.
    renewed: Mutex<Option<(Arc<Config>, Exempt)>>,
}

/// What other threads tell this one.
#[derive(Debug)]
enum News {
    /// A jail of httpd's lines has banned somebody: recidive counts that.
    Banned(JailId, Key),
    /// A failure whose name was looked up, and that no command wants ignored.
    Ready(Box<slow::Ready>),
    /// Something is asked of the thread, or to be done by it.
    Ask(Question),
}

/// What is asked of the thread: it answers by itself.
struct Question(Box<dyn FnOnce(&mut Room) + Send>);

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question")
    }
}

impl Shared {
    /// Does some jail want what httpd pipes?
    fn note_wishes(&self, config: &Config, piped: Option<&Path>) {
        let reads = |path| {
            let mut raws = config.jails.iter().filter_map(|jail| jail.raw.as_ref());
            raws.any(|raw| raw.reads(path))
        };
        self.wants_feed
            .store(piped.is_some_and(reads), Ordering::Relaxed);
    }
}

impl Watch {
    /// Starts the thread. Jails may come to it later, by a reload.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(setting: Setting) -> std::io::Result<Self> {
        let (feed, fed) = sync_channel(FEED);
        let (news, told) = sync_channel(NEWS);
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let shared = Arc::new(Shared::default());
        shared.note_wishes(&setting.config, setting.piped.as_deref());
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
        Ok(Self {
            feed,
            news,
            wake,
            shared,
            thread: Some(thread),
        })
    }

    /// Hands over bytes that httpd piped. Never waits: what finds no room is counted in [`shed`](Self::shed).
    pub fn feed(&self, chunk: &[u8], trust: Trust) {
        if !self.shared.wants_feed.load(Ordering::Relaxed) {
            return;
        }
        measure::FEED.put();
        if self.feed.try_send((chunk.to_vec(), trust)).is_err() {
            measure::FEED.took();
            let lines = memchr::memchr_iter(b'\n', chunk).count();
            self.shared
                .shed
                .fetch_add(u64::try_from(lines).unwrap_or(0), Ordering::Relaxed);
            return;
        }
        self.wake();
    }

    /// For who bans on another thread; `None`: the system has no file descriptor left.
    #[must_use]
    pub fn teller(&self) -> Option<Teller> {
        Some(Teller {
            news: self.news.clone(),
            wake: self.wake.try_clone().ok()?,
            shared: Arc::clone(&self.shared),
        })
    }

    /// Asks the thread, and waits for the answer as long as [`ANSWER`]; `None`: there was none.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Room) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = sync_channel(1);
        let ask = Question(Box::new(move |room| {
            answer.try_send(question(room)).ok();
        }));
        self.news.try_send(News::Ask(ask)).ok()?;
        self.wake();
        answered.recv_timeout(ANSWER).ok()
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

    /// What [`tallies`](Self::tallies) gave was not told after all.
    pub fn untold(&self) {
        self.shared.counted.store(true, Ordering::Relaxed);
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
        let mut jails = config.jails.iter().chain([&config.manual]);
        let prefix = jails.find(|jail| jail.name == name);
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

/// Bans were put into the ledger: whether a process that watches logs was told, and puts them in force.
#[must_use]
pub fn remembered(paths: &RuntimePaths) -> bool {
    Exchange::new(paths.bans()).send(&exchange::Told::Remembered)
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
    let lookout = RefCell::new(Lookout::default());
    let look = |config: &Config, before| {
        imported(config).next().is_some() && lookout.borrow_mut().sees(before)
    };
    let current = || {
        let renewed = shared.renewed.lock();
        let renewed = renewed.unwrap_or_else(PoisonError::into_inner).clone();
        renewed.map_or_else(
            || setting.clone(),
            |(config, exempt)| Setting {
                config,
                exempt,
                ..setting.clone()
            },
        )
    };
    let mut beside = look(&setting.config, false);
    while !shared.stop.load(Ordering::Relaxed) {
        let setting = current();
        let keeper = setting.keeper.clone();
        if beside {
            let names: Vec<&str> = imported(&setting.config).collect();
            log::warn!(
                "fail2ban-server runs on this host, so its jails stand back here until it has ended: {}",
                names.join(", ")
            );
        }
        let room = Room::new(setting, back, Arc::clone(shared), beside);
        let changed = Cell::new(false);
        room.stay(woken, fed, told, &|config| {
            changed.set(look(config, beside) != beside);
            !changed.get()
        });
        keeper.in_use(false);
        if !changed.get() {
            // Another process has the lock now, or this is the end.
            continue;
        }
        if beside {
            log::info!("fail2ban-server has ended");
        }
        beside = !beside;
    }
}

/// The names of fail2ban's own jails.
fn imported(config: &Config) -> impl Iterator<Item = &str> {
    let imported = |jail: &&config::Jail| {
        let raw = jail.raw.as_ref();
        raw.is_some_and(|raw| raw.origin == Origin::Fail2ban)
    };
    let jails = config.jails.iter().filter(imported);
    jails.map(|jail| jail.name.as_str())
}

/// The thread's side.
struct Room {
    config: Arc<Config>,
    back: Arc<slow::Back>,
    /// A fail2ban-server runs, and has its own jails.
    beside: bool,
    jails: Vec<Jail>,
    desk: Desk,
    sources: Sources,
    /// Lines of httpd's pipe.
    framer: Framer,
    piped: Option<PathBuf>,
    shared: Arc<Shared>,
    shed: u64,
    begun: Instant,
    next_look: Instant,
    next_note: Instant,
}

impl Room {
    fn new(setting: Setting, back: &Arc<slow::Back>, shared: Arc<Shared>, beside: bool) -> Self {
        let Setting {
            config,
            paths,
            exempt,
            keeper,
            off,
            piped,
            silence,
        } = setting;
        let exchange = Exchange::new(paths.bans());
        let desk = Desk::new(Arc::clone(&config), exempt, keeper, silence, off, exchange);
        let jails = Jail::all(&config, back, &|raw| {
            !(beside && raw.origin == Origin::Fail2ban)
        });
        let sources = Sources::new(&config, paths, piped.clone());
        let mut room = Self {
            config,
            back: Arc::clone(back),
            beside,
            jails,
            desk,
            sources,
            framer: Framer::default(),
            piped,
            shared,
            shed: 0,
            begun: Instant::now(),
            next_look: Instant::now() + LOOK,
            next_note: Instant::now() + NOTE,
        };
        room.compile_piped();
        room
    }

    /// Expressions for what httpd pipes are ready before the first line comes.
    fn compile_piped(&mut self) {
        if let Some(path) = &self.piped {
            for jail in &mut self.jails {
                jail.compile_if(|raw| raw.reads(path));
            }
        }
    }

    /// Another configuration from now on. Jails that stay keep counts, bans and places in logs.
    fn renew(&mut self, config: &Arc<Config>, exempt: Exempt, now: f64) {
        let wanted = |raw: &config::Raw| !(self.beside && raw.origin == Origin::Fail2ban);
        let mut jails = Jail::all(config, &self.back, &wanted);
        let mut old: BTreeMap<String, Jail> = std::mem::take(&mut self.jails)
            .into_iter()
            .map(|jail| (jail.name().to_owned(), jail))
            .collect();
        let mut fresh = Vec::new();
        for jail in &mut jails {
            match old.remove(jail.name()) {
                Some(old) => jail.take_over(old),
                None => fresh.push(jail.name().to_owned()),
            }
        }
        for gone in old.into_values() {
            self.desk.close(gone, now);
        }
        self.desk.renew(config, exempt.clone());
        for jail in &mut jails {
            self.desk.renew_actions(jail);
        }
        self.jails = jails;
        self.config = Arc::clone(config);
        self.shared.note_wishes(config, self.piped.as_deref());
        let renewed = self.shared.renewed.lock();
        *renewed.unwrap_or_else(PoisonError::into_inner) = Some((Arc::clone(config), exempt));
        self.compile_piped();
        self.sources.renew(config, &mut self.jails, now);
        if self.sources.is_open() {
            fresh.iter().for_each(|name| logfile::jail_started(name));
        }
        self.tick();
    }

    /// Until the end, or until things are not `as_before`.
    fn stay(
        mut self,
        woken: &UnixStream,
        fed: &Receiver<(Vec<u8>, Trust)>,
        told: &Receiver<News>,
        as_before: &dyn Fn(&Config) -> bool,
    ) {
        let begun = self.begun;
        let mut next_tick = begun;
        while !self.shared.stop.load(Ordering::Relaxed) {
            if Instant::now() >= next_tick {
                if !self.tick() {
                    break;
                }
                let early = !self.sources.is_open() && begun.elapsed() < EAGER;
                next_tick = Instant::now() + if early { EARLY_TICK } else { TICK };
            }
            if Instant::now() >= self.next_look {
                self.next_look = Instant::now() + LOOK;
                if !as_before(&self.config) {
                    break;
                }
            }
            let left = next_tick.saturating_duration_since(Instant::now());
            let pause = left.min(self.sources.pause());
            self.rest(woken, pause);
            self.desk.arrived = Instant::now();
            while let Ok((chunk, trust)) = fed.try_recv() {
                measure::FEED.took();
                self.piped(&chunk, trust);
            }
            let bans_wait = self.shared.bans_wait.swap(false, Ordering::AcqRel);
            while let Ok(news) = told.try_recv() {
                match news {
                    News::Banned(by, key) => self.desk.banned(&mut self.jails, by, &key, now()),
                    News::Ready(ready) => self.desk.ready(&mut self.jails, *ready, now()),
                    News::Ask(Question(ask)) => ask(&mut self),
                }
            }
            self.desk.hear(&mut self.jails, now());
            self.read();
            // What is banned must not be counted once more after a crash.
            if self.desk.take_decided() {
                self.sources.note(self.desk.ledger(), now());
            }
            if bans_wait {
                std::thread::sleep(COLLECT);
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
        // Whoever is in charge reads this log as a file: what both judge would count twice.
        let charged = self.desk.owns() || self.begun.elapsed() < EAGER;
        let Some(path) = self.piped.clone().filter(|_| charged) else {
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

    /// `false`: what was opened is for another process from now on.
    fn tick(&mut self) -> bool {
        let now = now();
        let owner = self.desk.owns();
        if !owner && self.sources.is_open() {
            log::info!("f2b-pipe watch reads the logs from now on");
            return false;
        }
        if owner && !self.sources.is_open() {
            self.desk.takes_charge();
            let past = self.sources.open(&mut self.jails, now);
            self.desk.remember(&mut self.jails, past, now);
            let running = self.jails.iter().filter(|jail| jail.runs());
            let names: Vec<&str> = running.map(Jail::name).collect();
            if self.config.jails.iter().any(|jail| jail.raw.is_some()) {
                log::info!("watching logs; jails: {}", names.join(", "));
            }
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
        true
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
