//! Everything behind the tee: what judges lines and carries out bans, and what is told of it. A panic in here costs the
//! counts, never a line.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use chrono::Utc;

use super::{guarded, monotonic_us};
use crate::act::Act;
use crate::act::keeper::Keeper;
use crate::changes::course::Course;
use crate::changes::orders::{Order, Orders, Renewed};
use crate::cli::RunArgs;
use crate::config::{Backend, Config, Jail, Loaded, Mode, RuntimePaths};
use crate::control::running::{Rooms, Running};
use crate::exempt::{Exempt, Refresher};
use crate::feed::wire::Named;
use crate::feed::{self, Feeder, PATIENCE};
use crate::filter::{self, CompileError};
use crate::frame::{Framer, Trust};
use crate::hit::{Arrival, Batch};
use crate::judge::{self, JailTally, Judge, Outcome};
use crate::notify::logfile;
use crate::notify::measure;
use crate::notify::state::State;
use crate::notify::told::Told;
use crate::parse::{Format, FormatError};
use crate::sift::{Reader, Sifter};
use crate::silence::{self, Silence};
use crate::tee;
use crate::watch::{Setting, Watch};

/// An administrator who has just logged in is safe after this long.
const FRESH: Duration = Duration::from_secs(2);
/// After so many looks the start is over, and what only it needed can go.
const RESTS_AFTER: u32 = 2;
/// Panics after which a judge is not made anew.
const PANICS_MAX: u32 = 10;

/// Without a `watch` for so long the lock is for whoever comes first: one that is restarted finds it free.
const LOCK_AFTER: Duration = Duration::from_secs(3);

/// What this process is to do.
pub(super) struct Plan {
    course: Arc<Course>,
    paths: RuntimePaths,
    loaded: Loaded,
    reader: Result<Reader, FormatError>,
    /// Compiled before a helper shares this process's memory, where each page that is written has to be copied.
    sifter: Option<Result<Sifter, CompileError>>,
}

impl Plan {
    /// Reads the configuration.
    pub(super) fn of(args: &RunArgs) -> Self {
        let reader = match args.error_log {
            true => Ok(Reader::ErrorLog),
            false => Format::compile(&args.format).map(Reader::Access),
        };
        let paths = RuntimePaths::new(&args.place.runtime_dir, &args.place.config);
        let (dry_run, format) = (args.dry_run, reader.clone().ok());
        let (course, loaded) = Course::begin(&args.place.config, &paths, move |config| {
            if dry_run {
                config.firewall.backend = Backend::DryRun;
            }
            if let Some(Reader::Access(format)) = &format {
                filter::observe_blind(&mut config.jails, format);
            }
        });
        let compiled = |reader: &Reader| Sifter::new(&course.config(), reader.clone());
        Self {
            sifter: reader.as_ref().ok().map(compiled),
            course,
            paths,
            loaded,
            reader,
        }
    }

    pub(super) fn config(&self) -> Arc<Config> {
        self.course.config()
    }
}

/// What lines of `format` cannot show of what jails ask for.
fn say_lacks(config: &mut Config, format: &Format) {
    for (jail, lacks) in filter::observe_blind(&mut config.jails, format) {
        log::warn!(
            "jail {jail} has exceptions by {lacks}, which is not in --format: so that nobody is banned who should \
             be excepted, it only observes"
        );
    }
    for (jail, lacks) in filter::unmeetable(&config.jails, format) {
        log::warn!(
            "jail {jail} needs {lacks}, which is not in --format; nothing will count for it"
        );
    }
}

/// What judges.
pub(super) struct Engine {
    config: Arc<Config>,
    reader: Reader,
    exempt: Exempt,
    framer: Framer,
    /// `None` after too many panics.
    sifter: Option<Sifter>,
    /// To `f2b-pipe watch`; `None`: nothing is banned in truth, so it is not told.
    feeder: Option<Feeder>,
    /// While no `watch` counts.
    alone: Option<Alone>,
    /// When that last began, if a `watch` was there before.
    alone_since: Option<Instant>,
    /// Of earlier times alone.
    before: judge::Tally,
    keeper: Option<Keeper>,
    /// Judges by expressions, on a thread of its own.
    watch: Option<Arc<Watch>>,
    /// Follows changes, and answers.
    running: Option<Running>,
    /// What is to be done between two chunks.
    orders: Arc<Orders>,
    off: Arc<AtomicBool>,
    silence: Option<Silence>,
    state: State,
    /// Of distinct values.
    key: u64,
    panics: u32,
    shed: u64,
    /// The jails were told of in fail2ban's log.
    started: bool,
    /// Test hook: every batch panics (F2B_PIPE_TEST_PANIC=filter).
    panic_always: bool,
}

/// From hits to decisions, in this process.
struct Alone {
    judge: Judge,
    told: Told,
}

impl Alone {
    fn judge(&mut self, batch: &mut Batch<'_>, now: Arrival, arrived: Instant) {
        let Self { judge, told } = self;
        judge.judge(batch, now, &mut |decision| {
            if let Outcome::Banned { .. } = decision.outcome {
                measure::banned(arrived);
            }
            told.tell(&decision);
        });
    }
}

impl Engine {
    /// Takes up the work that the configuration says; `None`: that cannot be, and why was said.
    pub(super) fn start(
        args: &RunArgs,
        plan: Plan,
        tee: Option<tee::Gauge>,
        waker: Option<UnixStream>,
    ) -> Option<Self> {
        let Plan {
            course,
            paths,
            mut loaded,
            reader,
            sifter,
        } = plan;
        for problem in loaded.told() {
            log::warn!("{problem}");
        }
        let reader = reader
            .inspect_err(|error| {
                log::error!("--format: {error}. Nobody is banned, lines only go on to --tee");
            })
            .ok()?;
        if let Reader::Access(format) = &reader {
            say_lacks(&mut loaded.config, format);
        }
        drop(loaded);
        let config = course.config();
        // What is only tried is nothing that other programs should act on.
        if config.firewall.backend != Backend::DryRun {
            logfile::start(config.fail2ban_log.as_deref());
        }
        let pid = std::process::id();
        let keeper = Keeper::start(Arc::clone(&config), paths.clone());
        let keeper = keeper
            .inspect_err(|error| log::error!("cannot start the keeper of the chain: {error}"))
            .ok();
        let off = keeper
            .as_ref()
            .map(|keeper| keeper.off())
            .unwrap_or_default();
        let exempt = Exempt::new(&config);
        keep_fresh(exempt.refresher());
        let state = State {
            pid,
            started: Utc::now().timestamp(),
            format: if args.error_log {
                "error log".into()
            } else {
                args.format.clone()
            },
            tee: args.tee.clone(),
            sealed: matches!(&reader, Reader::Access(format) if format.is_sealed()),
            ..State::default()
        };
        let silence = Silence::start(silence::Setting {
            config: Arc::clone(&config),
            paths: paths.clone(),
            keeper: keeper.as_ref().map(|keeper| keeper.hand()),
            tee,
            state: state.clone(),
        });
        let silence = silence
            .inspect_err(|error| {
                log::error!("cannot start a thread: {error}; status shows nothing")
            })
            .ok();
        let watch = keeper.as_ref().and_then(|keeper| {
            let setting = Setting {
                config: Arc::clone(&config),
                paths: paths.clone(),
                exempt: exempt.clone(),
                off: keeper.off(),
                keeper: keeper.hand(),
                piped: args.tee.clone(),
                silence: silence.as_ref().map(Silence::hand),
            };
            let started = Watch::start(setting);
            started
                .inspect_err(|error| {
                    log::error!("cannot start a thread: {error}; no other log is watched")
                })
                .ok()
        });
        let watch = watch.map(Arc::new);
        let orders = Arc::new(Orders::default());
        if let Some(waker) = waker {
            orders.wake_by(waker);
        }
        let running = keeper.as_ref().zip(watch.as_ref()).map(|(keeper, watch)| {
            let rooms = Rooms {
                course,
                paths: paths.clone(),
                tee: args.tee.clone(),
                keeper: keeper.hand(),
                silence: silence.as_ref().map(Silence::hand),
                watch: Arc::clone(watch),
                exempt: exempt.clone(),
                orders: Arc::clone(&orders),
                sifts: true,
            };
            rooms.open()
        });
        let feeder = (config.firewall.backend != Backend::DryRun)
            .then(|| Feeder::new(paths.feed(), &named(&config)));
        let mut engine = Self {
            config,
            reader,
            exempt,
            framer: Framer::default(),
            sifter: None,
            feeder,
            alone: None,
            alone_since: None,
            before: judge::Tally::default(),
            keeper,
            watch,
            running,
            orders,
            off,
            silence,
            state,
            key: feed::key(&paths.key()),
            panics: 0,
            shed: 0,
            started: false,
            panic_always: std::env::var_os("F2B_PIPE_TEST_PANIC").is_some(),
        };
        engine.take_sifter(sifter);
        let names: Vec<&str> = engine
            .config
            .jails
            .iter()
            .map(|jail| jail.name.as_str())
            .collect();
        let dry = if engine.config.firewall.backend == Backend::DryRun {
            " (dry run)"
        } else {
            ""
        };
        log::info!("at work{dry}; jails: {}", names.join(", "));
        engine.tend(monotonic_us());
        Some(engine)
    }

    /// The names of the jails that judge here, and ban.
    fn native(&self) -> impl Iterator<Item = &str> {
        let ban = |jail: &&Jail| jail.mode == Mode::Ban;
        let native = self.config.native().iter().filter(ban);
        native.map(|jail| jail.name.as_str())
    }

    fn take_sifter(&mut self, sifter: Option<Result<Sifter, CompileError>>) {
        let said = |error: &CompileError| {
            log::error!("the patterns of all jails together: {error}; nobody is banned")
        };
        self.sifter = sifter.and_then(|sifter| sifter.inspect_err(said).ok());
        if let Some(sifter) = &mut self.sifter {
            sifter.set_key(self.key);
        }
    }

    /// Somebody has to count: this process.
    fn judge_alone(&mut self) {
        let mut judge = Judge::new(
            Arc::clone(&self.config),
            self.exempt.clone(),
            Act::new(&self.config),
            Arc::clone(&self.off),
        );
        judge.tell_hits();
        if self.config.firewall.backend != Backend::DryRun {
            judge.notice_who_still_comes();
        }
        self.alone = Some(Alone {
            judge,
            told: Told {
                keeper: self.keeper.as_ref().map(|keeper| keeper.hand()),
                watch: self.watch.as_deref().and_then(Watch::teller),
                silence: self.silence.as_ref().map(Silence::hand),
                dry: self.config.firewall.backend == Backend::DryRun,
            },
        });
        if !std::mem::replace(&mut self.started, true) {
            self.native().for_each(logfile::jail_started);
        }
    }

    /// Looks who counts: `watch`, or nobody else, so this process. To be asked whenever [`due`](Self::due) says, and after
    /// lines.
    pub(super) fn tend(&mut self, now_us: u64) {
        self.obey(now_us);
        let Some(feeder) = &mut self.feeder else {
            if self.alone.is_none() {
                self.judge_alone();
            }
            return;
        };
        let was_fed = feeder.is_fed();
        feeder.tend(now_us);
        let (fed, hopeful) = (feeder.is_fed(), feeder.is_hopeful());
        if fed && !was_fed {
            self.alone_since = None;
            if let Some(keeper) = &self.keeper {
                keeper.yields(true);
            }
            self.leave_to_watch();
        }
        if was_fed && !fed {
            self.alone_since = Some(Instant::now());
        }
        if self
            .alone_since
            .is_some_and(|since| since.elapsed() >= LOCK_AFTER)
        {
            self.alone_since = None;
            if let Some(keeper) = &self.keeper {
                keeper.yields(false);
            }
        }
        if self.alone.is_none() && !hopeful {
            self.judge_alone();
            if let (Some(alone), Some(feeder)) = (&mut self.alone, &mut self.feeder) {
                let now = Instant::now();
                feeder.take_back(|batch, at, at_us| {
                    let age = Duration::from_micros(now_us.saturating_sub(at_us));
                    alone.judge(batch, at, now.checked_sub(age).unwrap_or(now));
                });
            }
        }
    }

    /// `watch` counts from now on: what was needed for that is given back.
    fn leave_to_watch(&mut self) {
        let Some(Alone { judge, told }) = self.alone.take() else {
            return;
        };
        self.before.add(judge.tally());
        // To free the windows of many clients takes milliseconds.
        tidy((judge, told));
    }

    /// Does what there is to do between two chunks.
    fn obey(&mut self, now_us: u64) {
        for order in self.orders.take() {
            let done = guarded(|| match order {
                Order::Renew(renewed) => self.renew(*renewed, now_us),
                Order::Attempt { jail, who, times } => {
                    if let Some(Alone { judge, told }) = &mut self.alone {
                        let hits = (jail.as_str(), who);
                        judge.attempt(hits, times, Arrival(now_us / 1000), &mut |decision| {
                            told.tell(&decision);
                        });
                    }
                }
            });
            if done.is_none() {
                self.begin_anew();
            }
        }
    }

    /// Goes on with another configuration, without losing a count. All of it was made by another thread.
    fn renew(&mut self, renewed: Renewed, now_us: u64) {
        let Renewed {
            config,
            exempt,
            act,
            filter,
        } = renewed;
        let to = judge::renumbered(&self.config, &config);
        self.before = self.before.renumbered(&to, config.jails.len());
        if let Some(Alone { judge, .. }) = &mut self.alone {
            judge.renew(Arc::clone(&config), exempt.clone(), act);
        }
        if let Some(feeder) = &mut self.feeder {
            feeder.rename(&named(&config), now_us);
        }
        let old_filter = self.sifter.as_mut().zip(filter).map(|(sifter, filter)| {
            let old = sifter.renew(filter);
            sifter.set_key(self.key);
            old
        });
        self.exempt = exempt;
        let old = std::mem::replace(&mut self.config, config);
        if self.started {
            let runs = |config: &Config, name: &str| {
                let mut all = config.native().iter();
                all.any(|jail| jail.mode == Mode::Ban && jail.name == name)
            };
            let gone = old.native().iter().map(|jail| jail.name.as_str());
            gone.filter(|name| runs(&old, name) && !runs(&self.config, name))
                .for_each(logfile::jail_stopped);
            self.native()
                .filter(|name| !runs(&old, name))
                .for_each(logfile::jail_started);
        }
        tidy((old, old_filter));
    }

    /// Nobody knows what state the rooms are in after a panic.
    fn begin_anew(&mut self) {
        self.panics += 1;
        self.sifter = None;
        if self.alone.take().is_some() {
            self.judge_alone();
        }
        if self.panics < PANICS_MAX {
            let sifter = guarded(|| Sifter::new(&self.config, self.reader.clone()));
            self.take_sifter(sifter);
        } else if self.panics == PANICS_MAX {
            log::error!(
                "{PANICS_MAX} internal errors: judging stops, lines only go on to the log until the next restart of httpd"
            );
        }
    }

    /// Something to wait for beside lines, see [`Feeder::fd`].
    pub(super) fn fd(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.feeder.as_ref().and_then(Feeder::fd)
    }

    /// When [`tend`](Self::tend) is to be called though nothing comes.
    pub(super) fn due(&self, now_us: u64) -> Option<Duration> {
        let lock = self.alone_since;
        let lock = lock.map(|since| LOCK_AFTER.saturating_sub(since.elapsed()));
        let feeder = self.feeder.as_ref().and_then(|feeder| feeder.due(now_us));
        [lock, feeder].into_iter().flatten().min()
    }

    /// Judges a chunk that arrived at `now_us`. Never panics.
    pub(super) fn judge(&mut self, chunk: &[u8], trust: Trust, arrived: Instant, now_us: u64) {
        self.obey(now_us);
        if let Some(watch) = &self.watch {
            watch.feed(chunk, trust);
        }
        let done = guarded(|| self.judge_all(chunk, trust, arrived, now_us));
        if done.is_some() {
            return;
        }
        self.shed += u64::try_from(memchr::memchr_iter(b'\n', chunk).count()).unwrap_or(0);
        self.framer = Framer::after(chunk);
        self.begin_anew();
    }

    fn judge_all(&mut self, chunk: &[u8], trust: Trust, arrived: Instant, now_us: u64) {
        assert!(!self.panic_always, "asked for by F2B_PIPE_TEST_PANIC");
        let Self {
            framer,
            sifter,
            feeder,
            alone,
            silence,
            ..
        } = self;
        let Some(sifter) = sifter else { return };
        framer.feed(chunk, trust, |lines, trust| {
            sifter.lines(
                lines,
                trust,
                &mut |batch| match (&mut *alone, &mut *feeder) {
                    (Some(alone), _) => alone.judge(batch, Arrival(now_us / 1000), arrived),
                    (None, Some(feeder)) => feeder.put(batch, now_us),
                    // `tend` makes one of them.
                    (None, None) => batch.clear(),
                },
            );
        });
        match (alone, feeder) {
            (Some(alone), _) => {
                for suspect in alone.judge.take_suspects() {
                    if let Some(silence) = silence {
                        silence.suspect(suspect);
                    }
                }
            }
            (None, Some(feeder)) => feeder.flush(),
            (None, None) => {}
        }
    }

    /// Was something counted since the last report?
    pub(super) fn has_news(&self) -> bool {
        self.lines() != self.state.lines
            || self.is_fed() != self.state.fed
            || self.shed + self.watch.as_deref().map_or(0, Watch::shed) != self.state.shed
            || self.watch.as_deref().is_some_and(Watch::has_news)
    }

    fn lines(&self) -> u64 {
        let sifter = self.sifter.as_ref();
        sifter.map_or(self.state.lines, |sifter| sifter.tally().lines)
    }

    fn is_fed(&self) -> bool {
        self.feeder.as_ref().is_some_and(Feeder::is_fed)
    }

    /// Are other logs watched, so that there can be news without a line?
    pub(super) fn watches(&self) -> bool {
        self.watch.is_some()
    }

    /// Tells what was counted.
    pub(super) fn report(&mut self) {
        let mut state = self.state.clone();
        if let Some(sifter) = &self.sifter {
            let read = sifter.tally();
            state.lines = read.lines;
            state.unparsed = read.unparsed;
            state.doubtful = read.doubtful;
            state.names = sifter.has_names();
            state.misfit = sifter.first_misfit().map(|(misfit, line)| {
                let (column, wants) = (misfit.at + 1, misfit.wants);
                format!("at column {column} there should be {wants}: {line}")
            });
        }
        let mut tally = self.before.clone();
        let mut counter = (0, 0);
        if let Some(Alone { judge, .. }) = &self.alone {
            tally.add(judge.tally());
            counter = (judge.counter().clients(), judge.counter().evicted());
        }
        state.fed = self.is_fed();
        state.spared = tally.spared;
        (state.clients, state.evicted) = counter;
        state.jails.clear();
        let zero = JailTally::default();
        let counts = tally.jails.iter().chain(std::iter::repeat(&zero));
        for (jail, counts) in self.config.native().iter().zip(counts) {
            state.jails.insert(jail.name.clone(), *counts);
        }
        state.shed = self.shed;
        if let Some(watch) = &self.watch {
            state.jails.extend(watch.tallies());
            state.shed += watch.shed();
        }
        // Else it is said with the next line, or two seconds later.
        if let Some(silence) = &self.silence
            && silence.counted(|told| told.clone_from(&state))
        {
            self.state = state;
        }
    }

    /// The end of the pipe.
    pub(super) fn finish(mut self) {
        self.say_goodbye();
        if self.started {
            self.native().for_each(logfile::jail_stopped);
        }
        drop(self.running.take());
        drop(self.watch.take());
        drop(self.silence.take());
        drop(self.keeper.take());
        // The process ends: to free the windows of fifty thousand clients one by one would take twenty milliseconds.
        std::mem::forget(self.alone.take());
    }

    /// Hits that `watch` has not counted yet get the time they would have, and are counted here if that was not enough.
    fn say_goodbye(&mut self) {
        self.wait_while(Feeder::is_pending);
    }

    /// The lines are about to leave the pipe: hits that nobody but this process knows of, as it is not known yet whether
    /// there is a `watch`, would be lost by a SIGKILL. So that is waited for, [`PATIENCE`] at the most, which happens once,
    /// at the start.
    pub(super) fn settle(&mut self) {
        self.wait_while(Feeder::is_alone_with_hits);
    }

    fn wait_while(&mut self, so: impl Fn(&Feeder) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.alone.is_none() && self.feeder.as_ref().is_some_and(&so) {
            let now_us = match Instant::now() < deadline {
                true => monotonic_us(),
                false => u64::MAX,
            };
            self.tend(now_us);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Frees what takes a while, as lines may be waiting.
fn tidy(what: impl Send + 'static) {
    let free = move || {
        crate::sys::stand_back();
        drop(what);
        crate::sys::rest();
    };
    let started = thread::Builder::new().name("tidy".into()).spawn(free);
    // Else it is freed here.
    started.ok();
}

/// The jails as `watch` is told of them.
fn named(config: &Config) -> Vec<Named> {
    let native = config.native().iter();
    native
        .map(|jail| Named {
            name: jail.name.clone(),
            observes: jail.mode == Mode::Observe,
        })
        .collect()
}

/// Looks up who is logged in, own addresses and host names, for as long as anybody asks.
pub(crate) fn keep_fresh(mut refresher: Refresher) {
    let refresh = move || {
        crate::sys::stand_back();
        let mut looks = 0u32;
        while refresher.is_wanted() {
            refresher.refresh();
            thread::sleep(FRESH);
            looks += 1;
            if looks == RESTS_AFTER {
                crate::sys::rest();
            } else if looks > RESTS_AFTER && looks.is_power_of_two() {
                // The first lines may have come since, or the first bans. To trim the heap would hold up who counts.
                crate::sys::forget_programs();
            }
        }
    };
    let started = thread::Builder::new().name("exempt".into()).spawn(refresh);
    if let Err(error) = started {
        log::error!("cannot start a thread: {error}; host names in ignoreip are unknown");
    }
}
