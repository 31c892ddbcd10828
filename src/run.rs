//! What happens to a line, and in which order: the process that httpd starts.
//!
//! It never ends while httpd holds the pipe, whatever is wrong: a logger that dies at start wedges the whole server. What
//! cannot be done is said, and the lines go on to the log.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::cli::RunArgs;
use crate::config::{Backend, Config, RuntimePaths};
use crate::privilege::{self, Entered};
use crate::say;
use crate::source::stdin::{Chunk, Stdin, Woken};
use crate::sys;
use crate::tee::Tee;

mod engine;
mod hot;

pub(crate) use engine::keep_fresh;
use engine::{Engine, Plan};
use hot::Hot;

/// httpd's first copy of us at start lives for 3 ms and sees no line; nothing with side effects happens before this.
const QUIET_START: Duration = Duration::from_millis(100);

/// Reads httpd's lines until the pipe ends.
#[must_use]
pub fn run(args: &RunArgs) -> ExitCode {
    sys::share_heap();
    match Signals::take() {
        Ok(signals) => {
            release();
            stay(args, signals, None)
        }
        Err(error) => {
            say::direct();
            log::error!(
                "cannot catch signals: {error}; the access log ends with the next graceful restart"
            );
            ExitCode::from(1)
        }
    }
}

/// Signals that do not end a logger wait from now until [`release`], when it catches them: httpd that is restarted twice in
/// a moment ends it before it has read its command line, and with it whatever is in the pipe already.
pub fn hold() {
    // Without it all is as it was before.
    held().thread_block().ok();
}

/// They come.
pub fn release() {
    held().thread_unblock().ok();
}

fn held() -> SigSet {
    [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1]
        .into_iter()
        .collect()
}

/// The command line cannot be used. For httpd that is no reason to stop: the lines go on to `--tee`, if that much can be
/// read.
#[must_use]
pub fn despite(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
    let mut words = std::env::args_os().skip(1);
    let for_httpd = words
        .next()
        .is_none_or(|first| first == "run" || first.as_encoded_bytes().starts_with(b"-"));
    let asked = matches!(error.kind(), DisplayHelp | DisplayVersion);
    if asked || !for_httpd || io::stdin().is_terminal() {
        release();
        error.print().ok();
        return ExitCode::from(if asked { 0 } else { 2 });
    }
    let args = RunArgs {
        tee: salvaged_tee(),
        ..RunArgs::default()
    };
    let text = error.to_string();
    let first = text
        .lines()
        .next()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned();
    let trouble =
        format!("{first}; see f2b-pipe run --help. Nobody is banned, lines only go on to --tee");
    match Signals::take() {
        Ok(signals) => {
            release();
            stay(&args, signals, Some(&trouble))
        }
        Err(_) => ExitCode::from(2),
    }
}

fn salvaged_tee() -> Option<PathBuf> {
    let mut words = std::env::args_os();
    while let Some(word) = words.next() {
        if word == "--tee" {
            return words.next().map(PathBuf::from);
        }
        if let Some(path) = word.as_encoded_bytes().strip_prefix(b"--tee=") {
            return Some(PathBuf::from(String::from_utf8_lossy(path).into_owned()));
        }
    }
    None
}

fn stay(args: &RunArgs, signals: Signals, trouble: Option<&str>) -> ExitCode {
    let mut stdin = match Stdin::open(args.tee.is_some(), args.single_writer) {
        Ok(stdin) => stdin,
        Err(error) => {
            say::direct();
            log::error!("stdin: {error}; httpd starts me as CustomLog \"|/usr/bin/f2b-pipe ...\"");
            return ExitCode::from(2);
        }
    };
    let mut buffer = vec![0; stdin.chunk_bytes()].into_boxed_slice();
    let mut chunk: Option<Chunk> = None;
    let begun = Instant::now();
    while chunk.is_none() && begun.elapsed() < QUIET_START {
        match stdin.wait(
            signals.fd(),
            None,
            Some(QUIET_START.saturating_sub(begun.elapsed())),
        ) {
            Ok(Woken::Readable) => chunk = stdin.read(&mut buffer, 0).ok(),
            // The first copy gets SIGTERM before the end of its pipe.
            Ok(Woken::Signal) => signals.drain(),
            Ok(Woken::Beside | Woken::Timeout) | Err(_) => break,
        }
        if chunk.is_some_and(|chunk| chunk.end && chunk.lines == 0) {
            return ExitCode::SUCCESS;
        }
    }
    say_panics();
    let plan = match trouble {
        Some(_) => None,
        None => guarded(|| Plan::of(args)),
    };
    // Before the first thread, and so before anything is said.
    let entered = guarded(|| confine(args, plan.as_ref().map(Plan::config).as_deref()));
    say::start();
    privilege::begin();
    if let Some(trouble) = trouble {
        log::error!("{trouble}");
    }
    if io::stdin().is_terminal() {
        log::info!(
            "reading access lines from this terminal (Ctrl-D ends); httpd starts me by a GlobalLog or \
             CustomLog \"|/usr/bin/f2b-pipe ...\" line, see f2b-pipe --help"
        );
    }
    let tee = args.tee.as_ref();
    let tee = tee.map(|path| Tee::new(path, true));
    let engine = match (plan, entered) {
        (Some(plan), Some(Entered::Confined)) => {
            let gauge = tee.as_ref().map(Tee::gauge);
            guarded(|| Engine::start(args, plan, gauge, signals.waker())).flatten()
        }
        _ => None,
    };
    let hot = Hot::new(stdin, signals, engine, (buffer, chunk), args.error_log);
    let hot = match tee {
        Some(tee) => tee.carry(hot),
        None => Some(hot.until_the_end()),
    };
    let Some(hot) = hot else {
        return ExitCode::from(1);
    };
    hot.finish();
    ExitCode::SUCCESS
}

/// Gives up what this process does not need; without a configuration that is all but the log.
fn confine(args: &RunArgs, config: Option<&Config>) -> Entered {
    let nothing = || {
        let mut nothing = Config::default();
        nothing.firewall.backend = Backend::DryRun;
        Cow::Owned(nothing)
    };
    let place = &args.place;
    privilege::enter(&privilege::Setting {
        config: &config.map_or_else(nothing, Cow::Borrowed),
        config_path: &place.config,
        paths: &RuntimePaths::new(&place.runtime_dir, &place.config),
        tee: args.tee.as_deref(),
    })
}

/// Microseconds of CLOCK_MONOTONIC, which is one clock for all processes of a host.
pub(crate) fn monotonic_us() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    // It has no error on Linux.
    now.map_or(0, |now| {
        u64::try_from(Duration::from(now).as_micros()).unwrap_or(u64::MAX)
    })
}

/// Runs `room`; a panic in it is said and is `None`.
pub(crate) fn guarded<T>(room: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(room)).ok()
}

/// A panic is one line in the error log, not a dump.
pub(crate) fn say_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let what = (payload.downcast_ref::<&str>().copied())
            .or(payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        log::error!("internal error at {place}: {what}; the work goes on. Please report this");
    }));
}

/// Signals do not end a logger: httpd sends SIGTERM while lines still come (graceful), prefork twice and SIGHUP before.
struct Signals {
    woken: UnixStream,
    wake: UnixStream,
    term: Arc<AtomicBool>,
}

impl Signals {
    fn take() -> io::Result<Self> {
        let (woken, wake) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let term = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGTERM, Arc::clone(&term))?;
        // Who reads a terminal by hand may end that with Ctrl-C.
        let by_hand = io::stdin().is_terminal();
        for signal in [SIGTERM, SIGHUP, SIGUSR1, SIGINT] {
            if !(by_hand && signal == SIGINT) {
                signal_hook::low_level::pipe::register(signal, wake.try_clone()?)?;
            }
        }
        Ok(Self { woken, wake, term })
    }

    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.woken.as_fd()
    }

    /// A byte to it makes the loop look around as a signal does.
    fn waker(&self) -> Option<UnixStream> {
        self.wake.try_clone().ok()
    }

    fn ended(&self) -> bool {
        self.term.load(Ordering::Relaxed)
    }

    fn drain(&self) {
        let mut bytes = [0; 64];
        while io::Read::read(&mut (&self.woken), &mut bytes).is_ok_and(|n| n > 0) {}
    }
}
