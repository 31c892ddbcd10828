//! `watch`'s side: the counts of all native jails, on a thread that nothing else works on.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::{Deserialize, Serialize};

use super::PATIENCE;
use super::wire::{self, Named, Said};
use crate::act::Act;
use crate::changes::orders::{Order, Orders, Renewed};
use crate::client::Client;
use crate::config::{Config, Mode};
use crate::exempt::Exempt;
use crate::hit::{Arrival, Batch, JailId};
use crate::judge::{JailTally, Judge, Outcome};
use crate::notify::measure;
use crate::notify::told::Told;
use crate::run::{guarded, monotonic_us};
use crate::silence;
use crate::sys::file_at;

/// How often numbers are told, and the socket is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Loggers at a time: two for each of some hundred CustomLogs during a graceful restart, and as many again.
const RUNS_MAX: usize = 512;
/// Bytes taken from one logger before the others have their turn.
const TURN: usize = 64 * 1024;
/// A logger has said who it is after this long.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// A clock that is this far ahead of ours is another one (a time namespace).
const AHEAD_US: u64 = 1_000_000;
/// What a logger that has ended left in its socket counts if it is not older than that: it counts as if it came now.
const LEGACY_MAX: Duration = Duration::from_secs(1);
/// Unknown jails that are told by name.
const UNKNOWN_MAX: usize = 64;
/// Hits for unknown jails are told for so long after the last.
const UNKNOWN_TOLD: Duration = Duration::from_secs(60);
/// Panics after which there is no counting here any more; each `run` counts by itself then.
const PANICS_MAX: u32 = 10;

/// What the counting works with.
pub struct Setting {
    /// All jails.
    pub config: Arc<Config>,
    /// The socket.
    pub path: PathBuf,
    /// Who is never banned.
    pub exempt: Exempt,
    /// `f2b-pipe off`.
    pub off: Arc<AtomicBool>,
    /// Who is told.
    pub(crate) told: Told,
    /// What is to be done between two batches.
    pub(crate) orders: Arc<Orders>,
}

/// A hold on the thread. Dropping it ends the thread, and every `run` counts by itself.
#[derive(Debug)]
pub struct Counting {
    shared: Arc<Shared>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// By name.
    pub jails: BTreeMap<String, JailTally>,
    /// Clients in the table.
    pub clients: usize,
    /// Clients forgotten at the table's bound although they had hits within findtime.
    pub evicted: u64,
    /// Limits reached by clients that are never banned.
    pub spared: u64,
    /// Who feeds.
    pub feed: Feeds,
}

/// Who feeds, for the state file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Feeds {
    /// Processes of loggers that are connected.
    pub runs: Vec<u32>,
    /// Frames that came too late, and were counted by the logger itself.
    pub late: u64,
    /// Hits for jails that are not in this process's configuration, by their names there.
    pub unknown: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    fed: Mutex<Fed>,
}

impl Counting {
    /// Starts the thread, which binds the socket at once, and again should it vanish.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(setting: Setting) -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        setting.orders.wake_by(wake.try_clone()?);
        // No `stand_back`: a line waits for this one.
        let thread = std::thread::Builder::new()
            .name("feed".into())
            .spawn(move || {
                for _ in 0..PANICS_MAX {
                    if guarded(|| Room::new(&setting, &theirs).stay(&woken)).is_some() {
                        return;
                    }
                }
                log::error!(
                    "{PANICS_MAX} internal errors: hits are not counted here any more, but in each logger of httpd"
                );
            })?;
        Ok(Self {
            shared,
            wake,
            thread: Some(thread),
        })
    }

    /// What was counted, at most a second ago.
    #[must_use]
    pub fn fed(&self) -> Fed {
        let fed = self.shared.fed.lock();
        fed.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        (&self.wake).write_all(&[0]).ok();
        if let Some(thread) = self.thread.take() {
            // A panic was told where it happened.
            thread.join().ok();
        }
    }
}

/// The thread's side.
struct Room<'s> {
    setting: &'s Setting,
    shared: &'s Shared,
    /// With the file it made.
    listener: Option<(UnixListener, (u64, u64))>,
    runs: Vec<Run>,
    judges: Judges<'s>,
    /// What kept it from listening was told.
    complained: bool,
}

/// One `run`.
struct Run {
    stream: UnixStream,
    since: Instant,
    pid: u32,
    /// By the numbers it uses; `None`: it has not said hello.
    jails: Option<Vec<Mapped>>,
    input: Vec<u8>,
    /// Counted, and not told yet.
    owed: Option<u64>,
}

/// What a jail of a `run` is here.
struct Mapped {
    name: String,
    /// `None`: unknown.
    id: Option<JailId>,
    /// Hits of this logger must ban nobody.
    observes: bool,
    /// Nor do they, though it bans here.
    blind: bool,
}

/// Whoever is to be left, and why.
type Leave = String;

impl<'s> Room<'s> {
    fn new(setting: &'s Setting, shared: &'s Shared) -> Self {
        Self {
            setting,
            shared,
            listener: None,
            runs: Vec::new(),
            judges: Judges::new(setting),
            complained: false,
        }
    }

    fn stay(mut self, woken: &UnixStream) {
        let mut next_tick = Instant::now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= next_tick {
                next_tick = now + TICK;
                self.tick();
            }
            let ready = self.wait(woken, next_tick.saturating_duration_since(now));
            let mut bytes = [0; 64];
            let mut wakes = woken;
            while wakes.read(&mut bytes).is_ok_and(|n| n > 0) {}
            self.obey();
            let mut at = 0;
            self.runs.retain_mut(|run| {
                let is_ready = ready.get(at).copied().unwrap_or(false);
                at += 1;
                if !is_ready {
                    return true;
                }
                match run.serve(&mut self.judges) {
                    Ok(stays) => stays,
                    Err(why) => {
                        log::warn!("the logger {} is not heard any more: {why}", run.pid);
                        false
                    }
                }
            });
            self.accept();
        }
        self.tick();
        if let Some((_, file)) = self.listener
            && file_at(&self.setting.path) == Some(file)
        {
            fs::remove_file(&self.setting.path).ok();
        }
    }

    /// Does what there is to do between two batches.
    fn obey(&mut self) {
        for order in self.setting.orders.take() {
            match order {
                Order::Renew(renewed) => {
                    let Renewed {
                        config,
                        exempt,
                        act,
                        filter: _,
                    } = *renewed;
                    self.judges.renew(config, exempt, act);
                    for run in &mut self.runs {
                        if let Some(jails) = &mut run.jails {
                            self.judges.map_anew(jails);
                        }
                    }
                }
                Order::Attempt { jail, who, times } => self.judges.attempt(&jail, who, times),
            }
        }
    }

    /// Which of the runs have something to say.
    fn wait(&self, woken: &UnixStream, left: Duration) -> Vec<bool> {
        let mut fds: Vec<BorrowedFd<'_>> = self.runs.iter().map(|run| run.stream.as_fd()).collect();
        fds.push(woken.as_fd());
        let listener = self
            .listener
            .as_ref()
            .filter(|_| self.runs.len() < RUNS_MAX);
        fds.extend(listener.map(|(listener, _)| listener.as_fd()));
        let mut fds: Vec<PollFd<'_>> = fds
            .into_iter()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let left =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, left).is_err() {
            std::thread::sleep(Duration::from_millis(1));
            return Vec::new();
        }
        fds.iter()
            .take(self.runs.len())
            .map(|fd| fd.any().unwrap_or(true))
            .collect()
    }

    fn tick(&mut self) {
        if self
            .listener
            .as_ref()
            .is_some_and(|(_, file)| file_at(&self.setting.path) != Some(*file))
        {
            // The directory was removed, or somebody else has put his socket there.
            self.listener = None;
        }
        if self.listener.is_none() {
            match self.listen() {
                Ok(listener) => {
                    self.listener = Some(listener);
                    self.complained = false;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.complained, true) {
                        log::error!(
                            "{}: {error}; until that is well each logger of httpd counts by itself",
                            self.setting.path.display()
                        );
                    }
                }
            }
        }
        let waits = |run: &Run| run.jails.is_some() || run.since.elapsed() < SILENT_MAX;
        self.runs.retain(waits);
        for run in &mut self.runs {
            run.tell_counted().ok();
        }
        self.judges.tick();
        let mut runs: Vec<u32> = self.runs.iter().map(|run| run.pid).collect();
        runs.sort_unstable();
        let fed = self.judges.fed(runs);
        *self
            .shared
            .fed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = fed;
    }

    /// Makes the socket. Only its own user and root can connect (unix(7): connecting takes the right to write).
    fn listen(&self) -> io::Result<(UnixListener, (u64, u64))> {
        let path = &self.setting.path;
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        if path.exists() {
            if UnixStream::connect(path).is_ok() {
                return Err(io::Error::other("another f2b-pipe watch listens there"));
            }
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok((listener, file_at(path).unwrap_or_default()))
    }

    fn accept(&mut self) {
        let Some((listener, _)) = &self.listener else {
            return;
        };
        while self.runs.len() < RUNS_MAX
            && let Ok((stream, _)) = listener.accept()
        {
            let Ok(peer) = getsockopt(&stream, PeerCredentials) else {
                continue;
            };
            let ours = nix::unistd::geteuid().as_raw();
            if ![0, ours].contains(&peer.uid()) || stream.set_nonblocking(true).is_err() {
                continue;
            }
            self.runs.push(Run {
                stream,
                since: Instant::now(),
                pid: u32::try_from(peer.pid()).unwrap_or(0),
                jails: None,
                input: Vec::new(),
                owed: None,
            });
        }
    }
}

/// Has the other side of it been closed, whatever is left to be read?
fn has_ended(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    let asked = poll(&mut fds, PollTimeout::ZERO);
    let [fd] = fds;
    asked.is_ok()
        && fd
            .revents()
            .is_some_and(|so| so.contains(PollFlags::POLLHUP))
}

impl Run {
    /// Takes what is there, a bounded part of it. `false`: it has ended.
    fn serve(&mut self, judges: &mut Judges<'_>) -> Result<bool, Leave> {
        let before = self.input.len();
        self.input.resize(before + TURN, 0);
        let room = self.input.get_mut(before..).unwrap_or_default();
        let got = match (&self.stream).read(room) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.input.truncate(before);
                return Ok(true);
            }
            Err(_) => return Ok(false),
        };
        self.input.truncate(before + got);
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        loop {
            match wire::read(rest) {
                Ok(None) => break,
                Ok(Some((said, after))) => {
                    rest = after;
                    if !self.hear(said, judges)? {
                        return Ok(false);
                    }
                }
                Err(wire::Odd::Version(other)) => {
                    // It hears our version, and says what to do.
                    (&self.stream).write_all(&wire::welcome()).ok();
                    return Err(format!(
                        "it speaks version {other} of the feed, this process {}; restart httpd",
                        wire::VERSION
                    ));
                }
                Err(wire::Odd::Malformed) => return Err("it speaks nonsense".to_owned()),
            }
        }
        // Whatever is left is less than a frame.
        self.input = rest.to_vec();
        self.tell_counted()?;
        Ok(got > 0)
    }

    /// `false`: it does the work itself from now on.
    fn hear(&mut self, said: Said<'_>, judges: &mut Judges<'_>) -> Result<bool, Leave> {
        match said {
            Said::Hello { pid, jails } if self.jails.is_none() => {
                self.pid = pid;
                self.jails = Some(judges.map(jails));
                let welcome = wire::welcome();
                match (&self.stream).write(&welcome) {
                    Ok(n) if n == welcome.len() => Ok(true),
                    // It has ended, which is seen when it is read.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
                    _ => Err("it does not listen".to_owned()),
                }
            }
            // Its configuration is another one now.
            Said::Hello { jails, .. } => {
                self.jails = Some(judges.map(jails));
                Ok(true)
            }
            Said::Hits {
                number,
                at_us,
                batch,
            } => {
                let Some(jails) = &self.jails else {
                    return Err("it has not said who it is".to_owned());
                };
                if !judges.count(jails, batch, at_us, || has_ended(&self.stream))? {
                    return Ok(false);
                }
                self.owed = Some(number);
                Ok(true)
            }
            Said::Welcome | Said::Counted(_) => Err("it speaks nonsense".to_owned()),
        }
    }

    /// Says up to where is counted. What finds no room is said later.
    fn tell_counted(&mut self) -> Result<(), Leave> {
        let Some(number) = self.owed else {
            return Ok(());
        };
        let words = wire::counted(number);
        match (&self.stream).write(&words) {
            Ok(n) if n == words.len() => {
                self.owed = None;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            // It has ended, which is seen when it is read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Ok(_) | Err(_) => Err("it does not listen".to_owned()),
        }
    }
}

/// Who counts.
struct Judges<'s> {
    setting: &'s Setting,
    config: Arc<Config>,
    exempt: Exempt,
    judge: Judge,
    /// For jails whose hits must ban nobody, as the format lacks what their exceptions look at. Made when there are any.
    blind: Option<Judge>,
    by_name: BTreeMap<String, JailId>,
    /// Never goes back: what a few milliseconds more or less on the socket has overtaken came at the same time.
    now: Arrival,
    late: u64,
    unknown: BTreeMap<String, (u64, Instant)>,
}

impl<'s> Judges<'s> {
    fn new(setting: &'s Setting) -> Self {
        let (config, exempt) = (Arc::clone(&setting.config), setting.exempt.clone());
        Self {
            setting,
            judge: judge(setting, Arc::clone(&config), &exempt),
            blind: None,
            by_name: numbers(&config),
            config,
            exempt,
            now: Arrival(0),
            late: 0,
            unknown: BTreeMap::new(),
        }
    }

    /// Another configuration from now on; what was counted stays.
    fn renew(&mut self, config: Arc<Config>, exempt: Exempt, act: Act) {
        if let Some(blind) = &mut self.blind {
            let config = observing(&config);
            let act = Act::new(&config);
            blind.renew(config, exempt.clone(), act);
        }
        self.judge.renew(Arc::clone(&config), exempt.clone(), act);
        self.by_name = numbers(&config);
        (self.config, self.exempt) = (config, exempt);
    }

    /// Counts hits by hand, as if they came now.
    fn attempt(&mut self, jail: &str, who: Client, times: u32) {
        self.now = self.now.max(Arrival(monotonic_us() / 1000));
        let told = &self.setting.told;
        let mut each = |decision: crate::judge::Decision<'_>| told.tell(&decision);
        self.judge.attempt((jail, who), times, self.now, &mut each);
    }

    fn map(&self, jails: Vec<Named>) -> Vec<Mapped> {
        let unmapped = |Named { name, observes }| Mapped {
            name,
            id: None,
            observes,
            blind: false,
        };
        let mut jails: Vec<Mapped> = jails.into_iter().map(unmapped).collect();
        self.map_anew(&mut jails);
        jails
    }

    fn map_anew(&self, jails: &mut [Mapped]) {
        for jail in jails {
            jail.id = self.by_name.get(&jail.name).copied();
            let bans = jail
                .id
                .and_then(|id| self.config.jails.get(usize::from(id)))
                .is_some_and(|jail| jail.mode == Mode::Ban);
            jail.blind = jail.observes && bans;
        }
    }

    /// Counts hits that arrived at `at_us`; `false`: they are too old, and the logger counts by itself now, what follows,
    /// too.
    /// One that `has_ended` (SIGKILL) counts nothing any more.
    fn count(
        &mut self,
        jails: &[Mapped],
        batch: Batch<'_>,
        at_us: u64,
        has_ended: impl FnOnce() -> bool,
    ) -> Result<bool, Leave> {
        let now_us = monotonic_us();
        if at_us > now_us.saturating_add(AHEAD_US) {
            return Err("its clock is another one (a time namespace?)".to_owned());
        }
        let age = Duration::from_micros(now_us.saturating_sub(at_us));
        if age >= PATIENCE && !(age < LEGACY_MAX && has_ended()) {
            self.late += 1;
            return Ok(false);
        }
        let arrived = Instant::now().checked_sub(age);
        self.now = self.now.max(Arrival(at_us / 1000));
        let mut seeing = Batch::default();
        let mut blind = Batch::default();
        let mut hits = batch.hits.iter();
        for party in &batch.parties {
            let (mut sees, mut is_blind) = (0, 0);
            for hit in hits.by_ref().take(party.hits) {
                let Some(jail) = jails.get(usize::from(hit.jail)) else {
                    return Err("it counts for a jail that it did not name".to_owned());
                };
                let Some(id) = jail.id else {
                    self.unknown(&jail.name);
                    continue;
                };
                let mut hit = *hit;
                hit.jail = id;
                let (to, n) = match jail.blind {
                    false => (&mut seeing.hits, &mut sees),
                    true => (&mut blind.hits, &mut is_blind),
                };
                to.push(hit);
                *n += 1;
            }
            for (to, hits) in [(&mut seeing, sees), (&mut blind, is_blind)] {
                if hits > 0 {
                    to.parties.push(crate::hit::Party { hits, ..*party });
                }
            }
        }
        let Self {
            setting,
            config,
            exempt,
            judge,
            now,
            ..
        } = self;
        let mut each = |decision: crate::judge::Decision<'_>| {
            if let (Outcome::Banned { .. }, Some(arrived)) = (&decision.outcome, arrived) {
                measure::banned(arrived);
            }
            setting.told.tell(&decision);
        };
        judge.judge(&mut seeing, *now, &mut each);
        if !blind.hits.is_empty() {
            let judge = self
                .blind
                .get_or_insert_with(|| self::judge(setting, observing(config), exempt));
            judge.judge(&mut blind, *now, &mut each);
        }
        if let Some(silence) = &setting.told.silence {
            self.judge
                .take_suspects()
                .for_each(|suspect| silence.suspect(suspect));
        }
        Ok(true)
    }

    fn unknown(&mut self, name: &str) {
        if let Some((n, last)) = self.unknown.get_mut(name) {
            (*n, *last) = (*n + 1, Instant::now());
        } else if self.unknown.len() < UNKNOWN_MAX {
            self.unknown.insert(name.to_owned(), (1, Instant::now()));
        }
    }

    fn tick(&self) {
        let board = silence::board();
        for (name, (n, last)) in &self.unknown {
            let about = format!("jail {name} of httpd's loggers");
            if last.elapsed() < UNKNOWN_TOLD {
                board.tell(
                    &about,
                    format!(
                        "it is not in the configuration that f2b-pipe watch runs with, so {n} hits count for nobody; \
                         f2b-pipe reload, and give both the same --config"
                    ),
                );
            } else {
                board.over(&about, "no more hits for it");
            }
        }
    }

    fn fed(&self, runs: Vec<u32>) -> Fed {
        let tally = self.judge.tally();
        let mut jails: BTreeMap<String, JailTally> = BTreeMap::new();
        let blind = self.blind.as_ref().map(Judge::tally);
        for (at, jail) in self.config.native().iter().enumerate() {
            let mut sum = tally.jails.get(at).copied().unwrap_or_default();
            if let Some(blind) = blind.and_then(|blind| blind.jails.get(at)) {
                sum.hits += blind.hits;
                sum.not_banned += blind.not_banned;
            }
            jails.insert(jail.name.clone(), sum);
        }
        Fed {
            jails,
            clients: self.judge.counter().clients(),
            evicted: self.judge.counter().evicted(),
            spared: tally.spared,
            feed: Feeds {
                runs,
                late: self.late,
                unknown: self
                    .unknown
                    .iter()
                    .map(|(name, (n, _))| (name.clone(), *n))
                    .collect(),
            },
        }
    }
}

fn numbers(config: &Config) -> BTreeMap<String, JailId> {
    let jails = (0..).zip(config.native());
    jails.map(|(id, jail)| (jail.name.clone(), id)).collect()
}

fn judge(setting: &Setting, config: Arc<Config>, exempt: &Exempt) -> Judge {
    let act = Act::new(&config);
    let mut judge = Judge::new(config, exempt.clone(), act, Arc::clone(&setting.off));
    judge.tell_hits();
    judge.notice_who_still_comes();
    judge
}

/// The same jails, none of which bans.
fn observing(config: &Config) -> Arc<Config> {
    let mut config = config.clone();
    for jail in &mut config.jails {
        jail.mode = Mode::Observe;
    }
    Arc::new(config)
}
