//! Everything behind the tee: what judges lines and carries out bans, and what is told of it. A panic in here costs the
//! counts, never a line.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use chrono::Utc;

use super::guarded;
use crate::act::Act;
use crate::act::keeper::Keeper;
use crate::cli::RunArgs;
use crate::config::{self, Backend, Config, Jail, Mode, RuntimePaths};
use crate::exempt::{Exempt, Refresher};
use crate::filter;
use crate::frame::{Framer, Trust};
use crate::hit::Arrival;
use crate::judge::{Judge, Outcome};
use crate::notify::logfile;
use crate::notify::measure;
use crate::notify::state::State;
use crate::notify::told::Told;
use crate::parse::Format;
use crate::sift::{Reader, Sifter};
use crate::silence::{self, Silence};
use crate::tee;
use crate::watch::{Setting, Watch};

/// An administrator who has just logged in is safe after this long.
const FRESH: Duration = Duration::from_secs(2);
/// Panics after which a judge is not made anew.
const PANICS_MAX: u32 = 10;

/// What judges.
pub(super) struct Engine {
    config: Arc<Config>,
    reader: Reader,
    exempt: Exempt,
    framer: Framer,
    /// `None` after too many panics.
    rooms: Option<Rooms>,
    keeper: Option<Keeper>,
    /// Judges by expressions, on a thread of its own.
    watch: Option<Watch>,
    off: Arc<AtomicBool>,
    silence: Option<Silence>,
    state: State,
    panics: u32,
    shed: u64,
    /// Test hook: every batch panics (F2B_PIPE_TEST_PANIC=filter).
    panic_always: bool,
}

/// From lines to decisions.
struct Rooms {
    sifter: Sifter,
    judge: Judge,
    told: Told,
}

impl Engine {
    /// Reads the configuration and takes up the work; `None`: that cannot be, and why was said.
    pub(super) fn start(args: &RunArgs, tee: Option<tee::Gauge>) -> Option<Self> {
        let loaded = config::load(&args.place.config);
        for problem in loaded.told() {
            log::warn!("{problem}");
        }
        let mut config = loaded.config;
        if args.dry_run {
            config.firewall.backend = Backend::DryRun;
        }
        let reader = if args.error_log {
            Reader::ErrorLog
        } else {
            match Format::compile(&args.format) {
                Ok(format) => Reader::Access(format),
                Err(error) => {
                    log::error!("--format: {error}. Nobody is banned, lines only go on to --tee");
                    return None;
                }
            }
        };
        if let Reader::Access(format) = &reader {
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
        let config = Arc::new(config);
        // What is only tried is nothing that other programs should act on.
        if config.firewall.backend != Backend::DryRun {
            logfile::start(config.fail2ban_log.as_deref());
        }
        let paths = RuntimePaths::new(&args.place.runtime_dir, &args.place.config);
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
        let mut engine = Self {
            config,
            reader,
            exempt,
            framer: Framer::default(),
            rooms: None,
            keeper,
            watch,
            off,
            silence,
            state,
            panics: 0,
            shed: 0,
            panic_always: std::env::var_os("F2B_PIPE_TEST_PANIC").is_some(),
        };
        engine.make_rooms();
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
        engine.native().for_each(logfile::jail_started);
        Some(engine)
    }

    /// The names of the jails that judge here, and ban.
    fn native(&self) -> impl Iterator<Item = &str> {
        let ban = |jail: &&Jail| jail.mode == Mode::Ban;
        let native = self.config.native().iter().filter(ban);
        native.map(|jail| jail.name.as_str())
    }

    fn make_rooms(&mut self) {
        let sifter = Sifter::new(&self.config, self.reader.clone());
        let said = |error: &regex::Error| {
            log::error!("the patterns of all jails together: {error}; nobody is banned")
        };
        let Ok(sifter) = sifter.inspect_err(said) else {
            return;
        };
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
        self.rooms = Some(Rooms {
            sifter,
            judge,
            told: Told {
                keeper: self.keeper.as_ref().map(|keeper| keeper.hand()),
                watch: self.watch.as_ref().and_then(Watch::teller),
                silence: self.silence.as_ref().map(Silence::hand),
                dry: self.config.firewall.backend == Backend::DryRun,
            },
        });
    }

    /// Judges a chunk. Never panics.
    pub(super) fn judge(&mut self, chunk: &[u8], trust: Trust, arrived: Instant, now: Arrival) {
        if let Some(watch) = &self.watch {
            watch.feed(chunk, trust);
        }
        let done = guarded(|| self.judge_all(chunk, trust, arrived, now));
        if done.is_some() {
            return;
        }
        // Nobody knows what state the rooms are in; they begin anew.
        self.shed += u64::try_from(memchr::memchr_iter(b'\n', chunk).count()).unwrap_or(0);
        self.panics += 1;
        self.framer = Framer::after(chunk);
        self.rooms = None;
        if self.panics < PANICS_MAX {
            guarded(|| self.make_rooms());
        } else if self.panics == PANICS_MAX {
            log::error!(
                "{PANICS_MAX} internal errors: judging stops, lines only go on to the log until the next restart of httpd"
            );
        }
    }

    fn judge_all(&mut self, chunk: &[u8], trust: Trust, arrived: Instant, now: Arrival) {
        assert!(!self.panic_always, "asked for by F2B_PIPE_TEST_PANIC");
        let Self {
            framer,
            rooms,
            silence,
            ..
        } = self;
        let Some(Rooms {
            sifter,
            judge,
            told,
        }) = rooms
        else {
            return;
        };
        framer.feed(chunk, trust, |lines, trust| {
            sifter.lines(lines, trust, &mut |batch| {
                judge.judge(batch, now, &mut |decision| {
                    if let Outcome::Banned { .. } = decision.outcome {
                        measure::banned(arrived);
                    }
                    told.tell(&decision);
                });
            });
        });
        for suspect in judge.take_suspects() {
            if let Some(silence) = silence {
                silence.suspect(suspect);
            }
        }
    }

    /// Was something counted since the last report?
    pub(super) fn has_news(&self) -> bool {
        self.rooms
            .as_ref()
            .map_or(0, |rooms| rooms.sifter.tally().lines)
            != self.state.lines
            || self.shed + self.watch.as_ref().map_or(0, Watch::shed) != self.state.shed
            || self.watch.as_ref().is_some_and(Watch::has_news)
    }

    /// Are other logs watched, so that there can be news without a line?
    pub(super) fn watches(&self) -> bool {
        self.watch.is_some()
    }

    /// Tells what was counted.
    pub(super) fn report(&mut self) {
        let mut state = self.state.clone();
        if let Some(Rooms { sifter, judge, .. }) = &self.rooms {
            let (read, tally) = (sifter.tally(), judge.tally());
            state.lines = read.lines;
            state.unparsed = read.unparsed;
            state.doubtful = read.doubtful;
            state.spared = tally.spared;
            state.clients = judge.counter().clients();
            state.evicted = judge.counter().evicted();
            state.names = sifter.has_names();
            state.misfit = sifter.first_misfit().map(|(misfit, line)| {
                let (column, wants) = (misfit.at + 1, misfit.wants);
                format!("at column {column} there should be {wants}: {line}")
            });
            state.jails.clear();
            for (jail, counts) in self.config.native().iter().zip(&tally.jails) {
                state.jails.insert(jail.name.clone(), *counts);
            }
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
        self.native().for_each(logfile::jail_stopped);
        drop(self.watch.take());
        drop(self.silence.take());
        drop(self.keeper.take());
        // The process ends: to free the windows of fifty thousand clients one by one would take twenty milliseconds.
        std::mem::forget(self.rooms.take());
    }
}

/// Looks up who is logged in, own addresses and host names, for as long as anybody asks.
pub(crate) fn keep_fresh(mut refresher: Refresher) {
    let refresh = move || {
        crate::sys::stand_back();
        while refresher.is_wanted() {
            refresher.refresh();
            thread::sleep(FRESH);
        }
    };
    let started = thread::Builder::new().name("exempt".into()).spawn(refresh);
    if let Err(error) = started {
        log::error!("cannot start a thread: {error}; host names in ignoreip are unknown");
    }
}
