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
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::cli::RunArgs;
use crate::config::{Backend, Config, RuntimePaths};
use crate::notify::logfile;
use crate::privilege::{self, Entered};
use crate::say;
use crate::source::stdin::{CHUNK_BYTES, Chunk, Stdin, Woken};
use crate::tee::Tee;

mod engine;

pub(crate) use engine::keep_fresh;
use engine::{Engine, Plan};

/// httpd's first copy of us at start lives for 3 ms and sees no line; nothing with side effects happens before this.
const QUIET_START: Duration = Duration::from_millis(100);
/// An ErrorLog program's pipe never ends by itself (the access loggers hold it): after SIGTERM and this long without a
/// line it is over. httpd kills it after 3 s.
const ERROR_LOG_END: Duration = Duration::from_millis(200);
/// Lines come fast when this many small reads in a row had to wait less than `FAST` each.
const STREAK: u32 = 3;
const FAST: Duration = Duration::from_micros(200);
const SMALL_BYTES: usize = 64 * 1024;
/// Then a pause collects some fifty lines for the price of one wake-up. A lone line never waits.
const PAUSE: Duration = Duration::from_millis(1);
/// How often numbers are told while there are new ones.
const REPORT: Duration = Duration::from_secs(2);

/// Reads httpd's lines until the pipe ends.
#[must_use]
pub fn run(args: &RunArgs) -> ExitCode {
    match Signals::take() {
        Ok(signals) => {
            release();
            stay(args, &signals, None)
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
            stay(&args, &signals, Some(&trouble))
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

fn stay(args: &RunArgs, signals: &Signals, trouble: Option<&str>) -> ExitCode {
    let mut stdin = match Stdin::open(args.tee.is_some(), args.single_writer) {
        Ok(stdin) => stdin,
        Err(error) => {
            say::direct();
            log::error!("stdin: {error}; httpd starts me as CustomLog \"|/usr/bin/f2b-pipe ...\"");
            return ExitCode::from(2);
        }
    };
    let mut buffer = vec![0; CHUNK_BYTES].into_boxed_slice();
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
    let tee = tee.map(|path| Tee::start(path, true));
    let engine = match (plan, entered) {
        (Some(plan), Some(Entered::Confined)) => {
            let gauge = tee.as_ref().map(Tee::gauge);
            guarded(|| Engine::start(args, plan, gauge, signals.waker())).flatten()
        }
        _ => None,
    };
    let mut hot = Hot {
        stdin,
        tee,
        engine,
        buffer: Arc::new(buffer),
        begun: 0,
        began: (Instant::now(), monotonic_us()),
        reported: Instant::now(),
    };
    hot.until_the_end(args, signals, chunk);
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

/// The hot thread.
struct Hot {
    stdin: Stdin,
    tee: Option<Tee>,
    engine: Option<Engine>,
    /// Shared with the tee's writer while it writes.
    buffer: Arc<Box<[u8]>>,
    /// Bytes at its beginning that belong to the next chunk.
    begun: usize,
    /// A moment, and the same on the clock that all processes share, microseconds.
    began: (Instant, u64),
    reported: Instant,
}

impl Hot {
    fn until_the_end(&mut self, args: &RunArgs, signals: &Signals, mut chunk: Option<Chunk>) {
        let mut streak = 0;
        let mut last_line = Instant::now();
        loop {
            if let Some(chunk) = chunk.take() {
                self.pass_on(chunk, streak >= STREAK);
                last_line = Instant::now();
                if chunk.end {
                    break;
                }
            }
            let now_us = self.now_us(Instant::now());
            if let Some(engine) = &mut self.engine {
                engine.tend(now_us);
            }
            let ends = args.error_log && signals.ended();
            let timeout = if ends {
                Some(ERROR_LOG_END)
            } else {
                self.due(now_us)
            };
            let beside = self.engine.as_ref().and_then(Engine::fd);
            let waited = Instant::now();
            match self.stdin.wait(signals.fd(), beside, timeout) {
                Ok(Woken::Readable) => match self.read() {
                    Ok(read) => {
                        let fast = read.lines < SMALL_BYTES && waited.elapsed() < FAST;
                        streak = if fast { streak + 1 } else { 0 };
                        chunk = Some(read);
                    }
                    Err(error) => self.trouble("reading stdin", &error),
                },
                Ok(Woken::Signal) => signals.drain(),
                Ok(Woken::Timeout) if ends && last_line.elapsed() >= ERROR_LOG_END => break,
                Ok(Woken::Beside | Woken::Timeout) => {}
                Err(error) => self.trouble("poll", &error),
            }
            self.report();
        }
        if let Some(tee) = self.tee.take() {
            tee.finish();
        }
        if let Some(engine) = self.engine.take() {
            engine.finish();
        }
        logfile::flush();
        privilege::end();
        say::flush();
    }

    /// A moment on the clock that all processes share.
    fn now_us(&self, now: Instant) -> u64 {
        let (began, began_us) = self.began;
        let since = now.saturating_duration_since(began).as_micros();
        began_us.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// When there is something to do though no line comes.
    fn due(&self, now_us: u64) -> Option<Duration> {
        let engine = self.engine.as_ref()?;
        let report = if engine.has_news() {
            Some(REPORT.saturating_sub(self.reported.elapsed()))
        } else {
            engine.watches().then_some(REPORT)
        };
        [report, engine.due(now_us)].into_iter().flatten().min()
    }

    /// To the log, to the judge, and only then out of the pipe. `fast`: with a pause to collect the next lines, during
    /// which the log's writer gets done, so that it need not be waited for.
    fn pass_on(&mut self, chunk: Chunk, fast: bool) {
        let arrived = Instant::now();
        let now_us = self.now_us(arrived);
        if chunk.lines > 0 {
            if let Some(tee) = &mut self.tee {
                tee.push(Arc::clone(&self.buffer), chunk.lines);
            }
            if let (Some(engine), Some(lines)) = (&mut self.engine, self.buffer.get(..chunk.lines))
            {
                engine.judge(lines, chunk.trust, arrived, now_us);
                engine.settle();
            }
            if fast && !chunk.end {
                thread::sleep(PAUSE);
            }
            if let Some(tee) = &mut self.tee {
                tee.settle();
            }
            if let Err(error) = self.stdin.take(chunk.lines) {
                self.trouble("taking lines from stdin", &error);
            }
        }
        let kept = chunk.lines..chunk.lines + chunk.begun;
        self.begun = chunk.begun;
        if let Some(buffer) = Arc::get_mut(&mut self.buffer) {
            buffer.copy_within(kept, 0);
        } else {
            // The writer still has it: a disk that hangs.
            let mut buffer = vec![0; CHUNK_BYTES].into_boxed_slice();
            if let (Some(to), Some(from)) = (buffer.get_mut(..chunk.begun), self.buffer.get(kept)) {
                to.copy_from_slice(from);
            }
            self.buffer = Arc::new(buffer);
        }
    }

    fn read(&mut self) -> io::Result<Chunk> {
        match Arc::get_mut(&mut self.buffer) {
            Some(buffer) => self.stdin.read(buffer, self.begun),
            // `pass_on` left it with one owner.
            None => Err(io::ErrorKind::ResourceBusy.into()),
        }
    }

    /// Says it, and does not spin.
    fn trouble(&self, what: &str, error: &io::Error) {
        log::error!("{what}: {error}; trying again");
        thread::sleep(Duration::from_millis(100));
    }

    /// Tells what there is to tell now and then.
    fn report(&mut self) {
        if let Some(engine) = &mut self.engine
            && engine.has_news()
            && self.reported.elapsed() >= REPORT
        {
            self.reported = Instant::now();
            engine.report();
        }
    }
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
