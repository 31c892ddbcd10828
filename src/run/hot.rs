//! The hot thread's loop: waits for lines, has them judged, and takes them out of the pipe.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::{Signals, monotonic_us};
use crate::notify::logfile;
use crate::source::stdin::{Chunk, Stdin, Woken};
use crate::tee::{Bytes, Reading};
use crate::{privilege, say};

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

/// What it takes to read lines and judge them; with a tee it goes from thread to thread ([`Reading`]).
pub(super) struct Hot {
    stdin: Stdin,
    signals: Signals,
    engine: Option<Engine>,
    /// Shared with who writes it to the log.
    buffer: Arc<Box<[u8]>>,
    /// Bytes at its beginning that belong to the next chunk.
    begun: usize,
    /// What was read while the process began.
    first: Option<Chunk>,
    /// What is in the buffer, until it is settled.
    chunk: Option<Chunk>,
    ended: bool,
    /// Of small reads that came fast.
    streak: u32,
    is_error_log: bool,
    last_line: Instant,
    /// A moment, and the same on the clock that all processes share, microseconds.
    began: (Instant, u64),
    reported: Instant,
}

impl Hot {
    /// `read`: a buffer as large as [`Stdin::chunk_bytes`] says, and what stands in it already.
    pub(super) fn new(
        stdin: Stdin,
        signals: Signals,
        engine: Option<Engine>,
        (buffer, first): (Box<[u8]>, Option<Chunk>),
        is_error_log: bool,
    ) -> Self {
        let now = Instant::now();
        Self {
            stdin,
            signals,
            engine,
            buffer: Arc::new(buffer),
            begun: 0,
            first,
            chunk: None,
            ended: false,
            streak: 0,
            is_error_log,
            last_line: now,
            began: (now, monotonic_us()),
            reported: now,
        }
    }

    /// Reads to the end, where the lines go nowhere else.
    pub(super) fn until_the_end(mut self) -> Self {
        while self.next().is_some() {
            self.settle();
        }
        self
    }

    /// Nothing more will come.
    pub(super) fn finish(mut self) {
        if let Some(engine) = self.engine.take() {
            engine.finish();
        }
        logfile::flush();
        privilege::end();
        say::flush();
    }

    /// Waits for bytes, and does what else there is to do meanwhile. `None`: there are none yet, or [`ended`](Self::ended).
    fn wait(&mut self) -> Option<Chunk> {
        let now_us = self.now_us(Instant::now());
        if let Some(engine) = &mut self.engine {
            engine.tend(now_us);
        }
        let ends = self.is_error_log && self.signals.ended();
        let timeout = if ends {
            Some(ERROR_LOG_END)
        } else {
            self.due(now_us)
        };
        let beside = self.engine.as_ref().and_then(Engine::fd);
        let waited = Instant::now();
        let mut chunk = None;
        match self.stdin.wait(self.signals.fd(), beside, timeout) {
            Ok(Woken::Readable) => match self.read() {
                Ok(read) => {
                    let fast = read.lines < SMALL_BYTES && waited.elapsed() < FAST;
                    self.streak = if fast { self.streak + 1 } else { 0 };
                    chunk = Some(read);
                }
                Err(error) => self.trouble("reading stdin", &error),
            },
            Ok(Woken::Signal) => self.signals.drain(),
            Ok(Woken::Timeout) if ends && self.last_line.elapsed() >= ERROR_LOG_END => {
                self.ended = true;
            }
            Ok(Woken::Beside | Woken::Timeout) => {}
            Err(error) => self.trouble("poll", &error),
        }
        self.report();
        chunk
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

    fn read(&mut self) -> io::Result<Chunk> {
        match Arc::get_mut(&mut self.buffer) {
            Some(buffer) => self.stdin.read(buffer, self.begun),
            // `settle` left it with one owner.
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

impl Reading for Hot {
    fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            let chunk = match self.first.take() {
                Some(first) => first,
                None => match self.wait() {
                    Some(chunk) => chunk,
                    None => continue,
                },
            };
            self.ended = chunk.end;
            let arrived = Instant::now();
            self.last_line = arrived;
            let now_us = self.now_us(arrived);
            self.chunk = Some(chunk);
            if chunk.lines == 0 {
                self.settle();
                continue;
            }
            if let (Some(engine), Some(lines)) = (&mut self.engine, self.buffer.get(..chunk.lines))
            {
                engine.judge(lines, chunk.trust, arrived, now_us);
            }
            return Some(Bytes {
                buffer: Arc::clone(&self.buffer),
                len: chunk.lines,
            });
        }
    }

    fn settle(&mut self) {
        let Some(chunk) = self.chunk.take() else {
            return;
        };
        if chunk.lines > 0 {
            if let Some(engine) = &mut self.engine {
                engine.settle();
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
            let mut buffer = vec![0; self.stdin.chunk_bytes()].into_boxed_slice();
            if let (Some(to), Some(from)) = (buffer.get_mut(..chunk.begun), self.buffer.get(kept)) {
                to.copy_from_slice(from);
            }
            self.buffer = Arc::new(buffer);
        }
        if chunk.lines > 0 && self.streak >= STREAK && !chunk.end {
            thread::sleep(PAUSE);
        }
    }
}
