//! Everything behind the tee: what judges lines and carries out bans, and what is told of it. A panic in here costs the
//! counts, never a line.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use chrono::Utc;

use super::guarded;
use crate::act::keeper::{BanEvent, Keeper};
use crate::act::{Act, Banned};
use crate::cli::RunArgs;
use crate::config::{self, Backend, Config, Jail, Mode, RuntimePaths};
use crate::exempt::{Exempt, Refresher, Target};
use crate::filter;
use crate::frame::{Framer, Trust};
use crate::hit::Arrival;
use crate::judge::{Decision, Judge, Outcome, Reader};
use crate::key::Key;
use crate::notify;
use crate::notify::logfile;
use crate::notify::state::{State, StateFile};
use crate::parse::Format;
use crate::say::{self, Message, send};
use crate::tee;
use crate::watch::{Setting, Watch};

/// After so many lines none of which fit the format something is wrong with the format, not with the lines.
const NONE_FIT: u64 = 20;
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
    judge: Option<Judge>,
    keeper: Option<Keeper>,
    /// Judges by expressions, on a thread of its own.
    watch: Option<Watch>,
    off: Arc<AtomicBool>,
    told: Told,
    state: State,
    path: PathBuf,
    panics: u32,
    shed: u64,
    /// Test hook: every batch panics (F2B_PIPE_TEST_PANIC=filter).
    panic_always: bool,
}

/// What is said once.
#[derive(Debug, Default)]
struct Told {
    doubtful: bool,
    none_fits: bool,
    names: bool,
}

impl Engine {
    /// Reads the configuration and takes up the work; `None`: that cannot be, and why was said.
    pub(super) fn start(args: &RunArgs) -> Option<Self> {
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
        let path = paths.state(pid);
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
        let watch = keeper.as_ref().and_then(|keeper| {
            let setting = Setting {
                config: Arc::clone(&config),
                paths: paths.clone(),
                exempt: exempt.clone(),
                off: keeper.off(),
                keeper: keeper.hand(),
                piped: args.tee.clone(),
            };
            let started = Watch::start(setting);
            started
                .inspect_err(|error| {
                    log::error!("cannot start a thread: {error}; no other log is watched")
                })
                .ok()
                .flatten()
        });
        let state = State {
            pid,
            started: Utc::now().timestamp(),
            format: if args.error_log {
                "error log".into()
            } else {
                args.format.clone()
            },
            tee: args.tee.clone(),
            ..State::default()
        };
        let mut engine = Self {
            config,
            reader,
            exempt,
            framer: Framer::default(),
            judge: None,
            keeper,
            watch,
            off,
            told: Told::default(),
            state,
            path,
            panics: 0,
            shed: 0,
            panic_always: std::env::var_os("F2B_PIPE_TEST_PANIC").is_some(),
        };
        engine.make_judge();
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

    fn make_judge(&mut self) {
        let (config, reader, exempt) = (
            Arc::clone(&self.config),
            self.reader.clone(),
            self.exempt.clone(),
        );
        let judge = Judge::new(
            config,
            reader,
            exempt,
            Act::new(&self.config),
            Arc::clone(&self.off),
        );
        let said = |error: &regex::Error| {
            log::error!("the patterns of all jails together: {error}; nobody is banned")
        };
        self.judge = judge.inspect_err(said).ok();
        if let Some(judge) = &mut self.judge {
            judge.tell_hits();
        }
    }

    /// Judges a chunk. Never panics.
    pub(super) fn judge(&mut self, chunk: &[u8], trust: Trust, now: Arrival) {
        if let Some(watch) = &self.watch {
            watch.feed(chunk, trust);
        }
        let done = guarded(|| self.judge_all(chunk, trust, now));
        if done.is_some() {
            return;
        }
        // Nobody knows what state the rooms are in; they begin anew.
        self.shed += u64::try_from(memchr::memchr_iter(b'\n', chunk).count()).unwrap_or(0);
        self.panics += 1;
        self.framer = Framer::after(chunk);
        self.judge = None;
        if self.panics < PANICS_MAX {
            guarded(|| self.make_judge());
        } else if self.panics == PANICS_MAX {
            log::error!(
                "{PANICS_MAX} internal errors: judging stops, lines only go on to the log until the next restart of httpd"
            );
        }
    }

    fn judge_all(&mut self, chunk: &[u8], trust: Trust, now: Arrival) {
        assert!(!self.panic_always, "asked for by F2B_PIPE_TEST_PANIC");
        let Self {
            config,
            reader,
            framer,
            judge,
            keeper,
            watch,
            told,
            ..
        } = self;
        let Some(judge) = judge else { return };
        let sealed = matches!(reader, Reader::Access(format) if format.is_sealed());
        let dry = config.firewall.backend == Backend::DryRun;
        framer.feed(chunk, trust, |lines, trust| {
            judge.lines(lines, trust, now, &mut |decision| {
                tell(&decision, keeper.as_ref(), watch.as_ref(), dry)
            });
        });
        let tally = judge.tally();
        if let (false, Some((misfit, line))) = (told.none_fits, judge.first_misfit())
            && tally.unparsed >= NONE_FIT
            && tally.unparsed == tally.lines
        {
            told.none_fits = true;
            log::warn!(
                "none of {} lines fits --format: at column {} there should be {}: {line} (f2b-pipe explain shows more; \
                 f2b-pipe check compares with httpd.conf)",
                tally.lines,
                misfit.at + 1,
                misfit.wants
            );
        }
        if judge.has_names() && !told.names {
            told.names = true;
            log::error!(
                "HostnameLookups are on, so %h is the name that a client's own DNS gives him, and that can be anybody's \
                 address. Nobody is banned by these lines: write %a instead of %h in the LogFormat (and in --format), or \
                 HostnameLookups Off, and reload httpd"
            );
        }
        if tally.doubtful > 0 && !told.doubtful && !told.names && !sealed {
            told.doubtful = true;
            log::warn!(
                "httpd's pipe was nearly full, so lines may be torn, and a client can choose where: lines are not judged for \
                 two seconds. The format f2b has no such gap (README, \"The format\")"
            );
        }
    }

    /// Was something counted since the last report?
    pub(super) fn has_news(&self) -> bool {
        self.judge.as_ref().map_or(0, |judge| judge.tally().lines) != self.state.lines
            || self.shed != self.state.shed
            || self.watch.as_ref().is_some_and(Watch::has_news)
    }

    /// Are other logs watched, so that there can be news without a line?
    pub(super) fn watches(&self) -> bool {
        self.watch.is_some()
    }

    /// Writes the state file; `last` takes it away.
    pub(super) fn report(&mut self, tee: tee::Stats, last: bool) {
        if let Some(judge) = &self.judge {
            let tally = judge.tally();
            self.state.lines = tally.lines;
            self.state.unparsed = tally.unparsed;
            self.state.doubtful = tally.doubtful;
            self.state.spared = tally.spared;
            self.state.clients = judge.counter().clients();
            self.state.evicted = judge.counter().evicted();
            for (jail, counts) in self.config.jails.iter().zip(&tally.jails) {
                self.state.jails.insert(jail.name.clone(), *counts);
            }
        }
        if let Some(watch) = &self.watch {
            self.state.jails.extend(watch.tallies());
            self.state.shed = self.shed + watch.shed();
        } else {
            self.state.shed = self.shed;
        }
        self.state.tee_dropped = tee.dropped;
        self.state.tee_waiting = tee.waiting;
        self.state.messages_lost = say::lost() + logfile::lost();
        self.state.act = self
            .keeper
            .as_ref()
            .map(|keeper| keeper.health())
            .unwrap_or_default();
        let state = (!last).then(|| self.state.clone());
        send(Message::State(Box::new(StateFile {
            path: self.path.clone(),
            state,
        })));
    }

    /// The end of the pipe.
    pub(super) fn finish(mut self) {
        self.native().for_each(logfile::jail_stopped);
        drop(self.watch.take());
        drop(self.keeper.take());
        // The process ends: to free the windows of fifty thousand clients one by one would take twenty milliseconds.
        std::mem::forget(self.judge.take());
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

/// Tells everybody who should know.
fn tell(decision: &Decision<'_>, keeper: Option<&Keeper>, watch: Option<&Watch>, dry: bool) {
    let Decision {
        jail,
        id,
        who,
        hits,
        outcome,
    } = decision;
    let shown = who.shown(jail.ipv6_prefix);
    let name = &jail.name;
    match outcome {
        Outcome::Banned { ban_for, new_set } => {
            if dry {
                log::info!(
                    "would ban client={shown} jail={name} hits={hits} for={ban_for} (dry run)"
                );
                return;
            }
            notify::ban(name, &shown);
            if let (Some(watch), Target::Client(client)) = (watch, who) {
                watch.banned(*id, Key::Client(*client));
            }
            log::info!("ban client={shown} jail={name} hits={hits} for={ban_for}");
            if let Some(keeper) = keeper {
                let banned = if *new_set {
                    Banned::NewSet
                } else {
                    Banned::New
                };
                keeper.banned(BanEvent {
                    jail: *id,
                    who: *who,
                    ban_for: *ban_for,
                    banned,
                });
            }
        }
        // Connections that are still open end, and the end of the ban is known.
        Outcome::Prolonged(ban_for) => {
            if let Some(keeper) = keeper {
                keeper.banned(BanEvent {
                    jail: *id,
                    who: *who,
                    ban_for: *ban_for,
                    banned: Banned::Already,
                });
            }
        }
        Outcome::Observed => {
            notify::observed(name, &shown);
            log::info!("would ban client={shown} jail={name} hits={hits} (mode observe)");
        }
        Outcome::Spared(spared) => log::info!("spared client={shown} jail={name}: {spared}"),
        Outcome::Proxied(peer) => log::warn!(
            "jail {name}: {shown} cannot be held here: it comes through {peer}, and a packet filter sees only that; block it at \
             {peer}, or with Require not ip in httpd"
        ),
        Outcome::Off => log::info!(
            "not banned client={shown} jail={name}: switched off (f2b-pipe reload switches on)"
        ),
        Outcome::Failed(error) => {
            if let Some(keeper) = keeper {
                keeper.failed(error);
            }
        }
    }
}
