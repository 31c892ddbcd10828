//! `f2b-pipe watch`: other logs without httpd's pipe, for systemd.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use chrono::Utc;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{Setting, Watch};
use crate::act::keeper::Keeper;
use crate::changes::course::Course;
use crate::changes::orders::Orders;
use crate::cli::WatchArgs;
use crate::config::{Backend, Config, Loaded, RuntimePaths};
use crate::control::running::Rooms;
use crate::exempt::Exempt;
use crate::feed::{self, Counting, Fed};
use crate::notify::logfile;
use crate::notify::state::State;
use crate::notify::told::Told;
use crate::privilege::{self, Entered};
use crate::run::{keep_fresh, say_panics};
use crate::say;
use crate::silence::{self, Silence};

/// How often signals are looked for and numbers told.
const LOOK: Duration = Duration::from_millis(200);

/// Watches logs until SIGTERM; SIGHUP reads the configuration anew.
#[must_use]
pub fn run(args: &WatchArgs) -> ExitCode {
    say_panics();
    let (end, again) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    for (signal, flag) in [(SIGTERM, &end), (SIGINT, &end), (SIGHUP, &again)] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(flag)) {
            say::direct();
            log::error!("cannot catch signals: {error}");
            return ExitCode::from(1);
        }
    }
    let dry_run = args.dry_run;
    let paths = RuntimePaths::new(&args.place.runtime_dir, &args.place.config);
    let (course, loaded) = Course::begin(&args.place.config, &paths, move |config| {
        if dry_run {
            config.firewall.backend = Backend::DryRun;
        }
    });
    // Before the first thread, and so before anything is said.
    let entered = privilege::enter(&needs(args, &paths, &course.config()));
    say::start();
    privilege::begin();
    if entered == Entered::Closed {
        say::flush();
        return ExitCode::from(1);
    }
    let done = watch(&paths, &course, &loaded, &end, &again);
    logfile::flush();
    privilege::end();
    say::flush();
    match done {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    }
}

/// What this process needs.
fn needs<'a>(
    args: &'a WatchArgs,
    paths: &'a RuntimePaths,
    config: &'a Config,
) -> privilege::Setting<'a> {
    privilege::Setting {
        config,
        config_path: &args.place.config,
        paths,
        tee: None,
    }
}

/// False: it cannot be.
fn watch(
    paths: &RuntimePaths,
    course: &Arc<Course>,
    loaded: &Loaded,
    end: &AtomicBool,
    again: &AtomicBool,
) -> bool {
    for problem in loaded.told() {
        log::warn!("{problem}");
    }
    let config = course.config();
    if config.firewall.backend != Backend::DryRun {
        logfile::start(config.fail2ban_log.as_deref());
    }
    logfile::server_started();
    let keeper = match Keeper::start(Arc::clone(&config), paths.clone()) {
        Ok(keeper) => keeper,
        Err(error) => {
            log::error!("cannot start the keeper of the chain: {error}");
            return false;
        }
    };
    let exempt = Exempt::new(&config);
    keep_fresh(exempt.refresher());
    let silence = Silence::start(silence::Setting {
        config: Arc::clone(&config),
        paths: paths.clone(),
        keeper: Some(keeper.hand()),
        tee: None,
        state: State {
            pid: std::process::id(),
            started: Utc::now().timestamp(),
            format: "watch".to_owned(),
            ..State::default()
        },
    });
    let silence = silence
        .inspect_err(|error| log::error!("cannot start a thread: {error}; status shows nothing"))
        .ok();
    let setting = Setting {
        config: Arc::clone(&config),
        paths: paths.clone(),
        exempt: exempt.clone(),
        off: keeper.off(),
        keeper: keeper.hand(),
        piped: None,
        silence: silence.as_ref().map(Silence::hand),
    };
    let watch = match Watch::start(setting) {
        Ok(watch) => Arc::new(watch),
        Err(error) => {
            log::error!("cannot start a thread: {error}; no log is watched");
            return false;
        }
    };
    let orders = Arc::new(Orders::default());
    let counting = counting(&config, paths, &keeper, &exempt, &silence, &watch, &orders);
    if config.jails.iter().all(|jail| jail.raw.is_none()) {
        log::info!(
            "no jail judges other logs than httpd's; write one with `filter` and `logpath`, or enable one in fail2ban's folder"
        );
    }
    let rooms = Rooms {
        course: Arc::clone(course),
        paths: paths.clone(),
        tee: None,
        keeper: keeper.hand(),
        silence: silence.as_ref().map(Silence::hand),
        watch: Arc::clone(&watch),
        exempt,
        orders,
        sifts: false,
    };
    let running = rooms.open();
    let mut counted = Fed::default();
    while !end.load(Ordering::Relaxed) {
        if again.swap(false, Ordering::Relaxed)
            && let Err(problems) = course.reload(None)
        {
            for problem in problems {
                log::error!("{problem}");
            }
            log::error!("the configuration is bad now; the old one goes on");
        }
        let fed = counting.as_ref().map(Counting::fed).unwrap_or_default();
        let news = watch.has_news() || fed != counted;
        if let (Some(silence), true) = (&silence, news) {
            let tallies = watch.tallies();
            let told = silence.counted(|state| {
                state.clients = fed.clients;
                state.evicted = fed.evicted;
                state.spared = fed.spared;
                state.feed = Some(fed.feed.clone());
                state.jails = fed.jails.clone();
                state.jails.extend(tallies);
            });
            match told {
                true => counted = fed,
                false => watch.untold(),
            }
        }
        thread::sleep(LOOK);
    }
    drop(running);
    drop(counting);
    drop(watch);
    drop(silence);
    logfile::server_ended();
    true
}

/// Takes hits of httpd's loggers, where bans are real.
fn counting(
    config: &Arc<Config>,
    paths: &RuntimePaths,
    keeper: &Keeper,
    exempt: &Exempt,
    silence: &Option<Silence>,
    watch: &Watch,
    orders: &Arc<Orders>,
) -> Option<Counting> {
    if config.firewall.backend == Backend::DryRun {
        return None;
    }
    let setting = feed::Setting {
        config: Arc::clone(config),
        path: paths.feed(),
        exempt: exempt.clone(),
        off: keeper.off(),
        told: Told {
            keeper: Some(keeper.hand()),
            watch: watch.teller(),
            silence: silence.as_ref().map(Silence::hand),
            dry: false,
        },
        orders: Arc::clone(orders),
    };
    Counting::start(setting)
        .inspect_err(|error| {
            log::error!("cannot start a thread: {error}; each logger of httpd counts by itself")
        })
        .ok()
}
