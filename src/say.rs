//! All output to people.
//!
//! Rooms say their troubles through the `log` crate. While `run` is at work they go into a bounded queue and a thread of
//! their own carries them out, since both ends can block: stderr is httpd's error log (perhaps a pipe), and syslog's
//! socket is full after a few lines that nobody reads. The hot thread never waits for either. What is dropped is counted.
//!
//! error, warn: stderr and syslog. info: stderr. Bans and unbans ([`crate::notify`]): syslog.
//! stderr gets one line each, `f2b-pipe: ` first; the same text again within a minute is counted instead.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use chrono::Local;
use log::{Level, LevelFilter, Log, Metadata, Record};
use lru::LruCache;

use crate::cli::Failure;
use crate::notify::measure::MESSAGES;
use crate::notify::state::StateFile;
use crate::notify::syslog::Syslog;

/// Messages that may wait. At a ban each millisecond that is a second's worth.
const QUEUE: usize = 1024;
/// How long the same text is counted and not repeated.
const REPEAT: Duration = Duration::from_secs(60);
/// Different texts remembered for that.
const TEXTS: std::num::NonZeroUsize = std::num::NonZeroUsize::MIN.saturating_add(255);
/// Before waiting for the next message: to wake who waits costs the one with a line in hand more than the message does,
/// and in an attack there is one at every other line. A ban takes the hot thread ten microseconds, so fewer come meanwhile
/// than may wait.
const COLLECT: Duration = Duration::from_millis(5);
/// At the end, what is queued has this long to get out.
const FAREWELL: Duration = Duration::from_millis(200);

static VOICE: OnceLock<Voice> = OnceLock::new();

/// What waits to be told.
#[derive(Debug)]
pub(crate) enum Message {
    /// Somebody should know.
    Trouble { level: Level, text: String },
    /// A ban or its end, for syslog.
    Notice(String),
    /// What `status` shows of this process.
    State(Box<StateFile>),
    /// Answer when everything before this is out.
    Flush(SyncSender<()>),
}

/// The way to the thread.
#[derive(Debug)]
struct Voice {
    queue: SyncSender<Message>,
    lost: AtomicU64,
    /// The same, that reached this room and not syslog.
    unheard: AtomicU64,
}

/// Starts the thread. Before, and in commands that never call this, messages go straight to stderr.
pub fn start() {
    let (queue, messages) = sync_channel(QUEUE);
    let started = thread::Builder::new().name("voice".into()).spawn(move || {
        crate::sys::stand_back();
        Mouth::new().speak(&messages);
    });
    if started.is_err() {
        // No thread to be had: everything is said at once, and may have to wait for whoever reads stderr.
        return direct();
    }
    if started.is_ok()
        && VOICE
            .set(Voice {
                queue,
                lost: AtomicU64::new(0),
                unheard: AtomicU64::new(0),
            })
            .is_ok()
    {
        direct();
    }
}

/// Lets rooms' messages through, to stderr as long as no thread was started.
pub fn direct() {
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Sends a message, or counts it as lost.
pub(crate) fn send(message: Message) {
    match VOICE.get() {
        Some(voice) => {
            MESSAGES.put();
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
                voice.queue.try_send(message)
            {
                MESSAGES.took();
                voice.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        None => {
            if let Message::Trouble { text, .. } = message {
                stderr_line(&text);
            }
        }
    }
}

/// Messages that could not be told so far.
#[must_use]
pub fn lost() -> u64 {
    VOICE.get().map_or(0, |voice| {
        voice.lost.load(Ordering::Relaxed) + voice.unheard.load(Ordering::Relaxed)
    })
}

/// Waits a moment for what is queued.
pub fn flush() {
    let Some(voice) = VOICE.get() else { return };
    let (done, out) = sync_channel(1);
    if voice.queue.try_send(Message::Flush(done)).is_ok() {
        // Not in time: whoever does not read us loses the rest.
        out.recv_timeout(FAREWELL).ok();
    }
}

/// Prints why a command could not do what it was asked.
pub fn failure(failure: &Failure) {
    match failure {
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Failure::Usage(_) | Failure::Output(_) => {
            // Complete lines, each with its place; only a single one needs a name before it.
            let text = failure.to_string();
            if text.contains('\n') {
                stderr_text(&text)
            } else {
                stderr_line(&text)
            }
        }
    }
}

fn stderr_line(text: &str) {
    stderr_text(&format!("f2b-pipe: {}", one_line(text)));
}

fn stderr_text(text: &str) {
    // One write, so that lines of several processes stay whole; a closed stderr is nobody's loss.
    let line = format!("{}\n", text.trim_end());
    io::stderr().write_all(line.as_bytes()).ok();
}

/// Line ends and control bytes as `\x0a`: nobody writes a second line into the error log, or colours a terminal.
pub(crate) fn one_line(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| {
            if c.is_control() {
                format!("\\x{:02x}", u32::from(c))
            } else {
                c.to_string()
            }
        })
        .collect()
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            send(Message::Trouble {
                level: record.level(),
                text: record.args().to_string(),
            });
        }
    }

    fn flush(&self) {}
}

/// The thread's side.
struct Mouth {
    syslog: Syslog,
    said: LruCache<String, Said>,
    /// Of messages that were lost, how many were told of, and when last.
    lost: u64,
    told_lost: Option<Instant>,
}

struct Said {
    at: Instant,
    again: u32,
    level: Level,
}

impl Mouth {
    fn new() -> Self {
        Self {
            syslog: Syslog::new(),
            said: LruCache::new(TEXTS),
            lost: 0,
            told_lost: None,
        }
    }

    fn speak(mut self, messages: &Receiver<Message>) {
        loop {
            let next = messages.try_recv().or_else(|_| {
                thread::sleep(COLLECT);
                messages.recv_timeout(self.syslog.patience().min(REPEAT / 4))
            });
            if matches!(
                next,
                Ok(Message::Trouble { .. } | Message::Notice(_) | Message::State(_))
            ) {
                MESSAGES.took();
            }
            match next {
                Ok(Message::Trouble { level, text }) => self.trouble(level, text),
                Ok(Message::Notice(text)) => self.syslog.send(Level::Info, text),
                Ok(Message::State(file)) => file.write(),
                Ok(Message::Flush(done)) => {
                    self.repeats(Duration::ZERO);
                    self.syslog.flush();
                    done.try_send(()).ok();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.repeats(REPEAT);
            self.syslog.flush();
            if let Some(voice) = VOICE.get() {
                voice.unheard.store(self.syslog.lost(), Ordering::Relaxed);
            }
            let lost = lost();
            let told_lately = self.told_lost.is_some_and(|at| at.elapsed() < REPEAT);
            if lost > self.lost && !told_lately {
                let now = lost - self.lost;
                self.lost = lost;
                self.told_lost = Some(Instant::now());
                write_stderr(
                    Level::Warn,
                    &format!(
                        "{now} messages to syslog or to this log were lost: nobody reads /dev/log"
                    ),
                );
            }
        }
    }

    fn trouble(&mut self, level: Level, text: String) {
        // Without moving it to the front: the order is that of the first time.
        if let Some(said) = self.said.peek_mut(&text) {
            said.again += 1;
            return;
        }
        write_stderr(level, &text);
        if level <= Level::Warn {
            self.syslog.send(level, text.clone());
        }
        if let Some((text, said)) = self.said.push(
            text,
            Said {
                at: Instant::now(),
                again: 0,
                level,
            },
        ) {
            again(&text, &said);
        }
    }

    /// Tells how often texts came again, `age` after they were said.
    fn repeats(&mut self, age: Duration) {
        while self
            .said
            .peek_lru()
            .is_some_and(|(_, said)| said.at.elapsed() >= age)
        {
            let Some((text, said)) = self.said.pop_lru() else {
                return;
            };
            again(&text, &said);
        }
    }
}

fn again(text: &str, said: &Said) {
    if said.again > 0 {
        write_stderr(said.level, &format!("{text} (again, {} more)", said.again));
    }
}

fn write_stderr(level: Level, text: &str) {
    let name = match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info | Level::Debug | Level::Trace => "info",
    };
    stderr_line(&format!(
        "{} {name}: {text}",
        Local::now().format("%Y-%m-%d %H:%M:%S")
    ));
}
