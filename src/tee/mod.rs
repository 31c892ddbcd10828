//! The same bytes on to the access log.
//!
//! A write to a file cannot be made non-blocking, and a hanging disk would stop httpd with it. So there are two threads.
//! The writer does everything while the disk takes what it gets: it reads, judges and writes, as what was just read is in
//! its processor's cache (a writer on another one paid twice for every byte). During each write it puts the [`Reading`]
//! aside. When that write takes longer than [`PATIENCE`], or fails, the stand-in takes over where it lies: bans go on, and
//! chunks queue up for the writer, to [`QUEUE_BYTES`]; beyond that whole chunks are dropped, counted and said. Nothing else
//! ever drops a byte. When the log has caught up, the writer gets the reading back.
//!
//! ```text
//! writer    reads ── puts aside ── writes ── reads ── puts aside ── writes . . . the queue ── reads ──
//! stand-in                                                              takes over ── reads ── gives back
//! ```
//!
//! A chunk is taken out of the pipe once it is written, or waits in memory: a SIGKILL before loses nothing.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

mod file;

use file::Log;
pub use file::open;

/// How long a write may take before the pipe is read on without it. The pipe takes thousands of lines meanwhile; less, and
/// a machine that is merely busy would give up what a SIGKILL must not lose.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the stand-in looks while there are writes. Without any it sleeps.
const LOOK: Duration = Duration::from_millis(100);
/// `tee_buffer`: what may wait for a full or hanging disk.
const QUEUE_BYTES: usize = 16 << 20;
/// Between two tries on a disk that refuses.
const RETRY: Duration = Duration::from_millis(500);
/// At the end nobody waits for us, and systemd may kill.
const FAREWELL: Duration = Duration::from_millis(1500);

/// Where lines come from, and what judges them; goes from hand to hand.
pub trait Reading: Send + 'static {
    /// Waits for lines, and judges them. `None`: the end.
    fn next(&mut self) -> Option<Bytes>;

    /// The last lines that came are in the log, or wait in memory: they can be taken out of the pipe.
    fn settle(&mut self);
}

/// Bytes that who reads and who writes may share.
#[derive(Clone, Debug)]
pub struct Bytes {
    /// They stand at its beginning.
    pub buffer: Arc<Box<[u8]>>,
    /// So many.
    pub len: usize,
}

impl Bytes {
    fn get(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    fn lines(&self) -> u64 {
        let lines = memchr::memchr_iter(b'\n', self.get()).count();
        u64::try_from(lines).unwrap_or(u64::MAX)
    }
}

/// What became of the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes in the log.
    pub written: u64,
    /// Bytes that wait for a disk that is full, hanging or gone.
    pub waiting: u64,
    /// Lines that never will be in the log.
    pub dropped: u64,
    /// The disk refuses, and that was told.
    pub refused: bool,
}

#[derive(Debug, Default)]
struct Meter {
    written: AtomicU64,
    waiting: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicBool,
}

/// A look at the tee from another thread.
#[derive(Clone, Debug)]
pub struct Gauge(Arc<Meter>);

impl Gauge {
    /// What became of the bytes so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let Meter {
            written,
            waiting,
            dropped,
            refused,
        } = &*self.0;
        Stats {
            written: written.load(Ordering::Relaxed),
            waiting: waiting.load(Ordering::Relaxed),
            dropped: dropped.load(Ordering::Relaxed),
            refused: refused.load(Ordering::Relaxed),
        }
    }
}

/// A log that lines are to go to.
#[derive(Debug)]
pub struct Tee {
    path: PathBuf,
    resumed: bool,
    meter: Arc<Meter>,
}

impl Tee {
    /// For `path`, which is opened (and created, 0640) with the first chunk. `resumed`: that may have been written in part
    /// by a process that died on this pipe.
    #[must_use]
    pub fn new(path: &Path, resumed: bool) -> Self {
        Self {
            path: path.to_owned(),
            resumed,
            meter: Arc::default(),
        }
    }

    /// For who wants to know how it does.
    #[must_use]
    pub fn gauge(&self) -> Gauge {
        Gauge(Arc::clone(&self.meter))
    }

    /// Carries all lines of `reading` to the log, and returns it at their end; `None`: it was lost to a panic, which was
    /// said. Where no thread can be had this one writes.
    #[must_use]
    pub fn carry<R: Reading>(self, reading: R) -> Option<R> {
        let relay = Arc::new(Relay {
            state: Mutex::new(State::new(reading)),
            changed: Condvar::new(),
            meter: self.meter,
        });
        let log = Log::new(&self.path, self.resumed);
        let writer = {
            let relay = Arc::clone(&relay);
            thread::Builder::new()
                .name("lines".into())
                .spawn(move || relay.write(log))
        };
        let Err(error) = writer else {
            // The writer is not joined: in a hanging write it would not end.
            return relay.stand_by();
        };
        log::error!("tee: no thread to be had ({error}); a hanging disk would hold up httpd");
        let At::ForWriter(reading, _) = std::mem::replace(&mut relay.lock().at, At::StandIn) else {
            return None;
        };
        Some(relay.write_alone(Log::new(&self.path, self.resumed), reading))
    }
}

/// What the two threads share.
#[derive(Debug)]
struct Relay<R> {
    state: Mutex<State<R>>,
    changed: Condvar,
    meter: Arc<Meter>,
}

#[derive(Debug)]
struct State<R> {
    at: At<R>,
    /// For the writer while the stand-in reads; the one being written is the first.
    queue: VecDeque<Bytes>,
    /// In the queue.
    bytes: usize,
    /// Lines are being dropped, and that was said.
    dropping: bool,
    /// Writes begun.
    writes: u64,
    /// The stand-in looks after them.
    watched: bool,
    /// Nothing more will come.
    over: bool,
    /// The writer gave up at the end, or died.
    gone: bool,
}

/// Where the reading is.
#[derive(Debug)]
enum At<R> {
    /// Lies there for the writer, with the lines that came last if these are still to be written.
    ForWriter(R, Option<Bytes>),
    /// The writer reads.
    Writer,
    /// Lies there while the writer writes these bytes, since then.
    Aside(R, Bytes, Instant),
    /// Lies there for the stand-in, as the log refused the last lines: they are in the queue.
    ForStandIn(R),
    /// The stand-in reads.
    StandIn,
    /// It has come to its end.
    Over(R),
}

impl<R> State<R> {
    fn new(reading: R) -> Self {
        Self {
            at: At::ForWriter(reading, None),
            queue: VecDeque::new(),
            bytes: 0,
            dropping: false,
            writes: 0,
            watched: false,
            over: false,
            gone: false,
        }
    }

    fn enqueue(&mut self, bytes: Bytes) {
        self.bytes += bytes.len;
        self.queue.push_back(bytes);
    }
}

impl<R: Reading> Relay<R> {
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer's life.
    fn write(&self, mut log: Log) {
        // A panic here must not leave the stand-in asleep for ever.
        struct Gone<'a, R: Reading>(&'a Relay<R>);
        impl<R: Reading> Drop for Gone<'_, R> {
            fn drop(&mut self) {
                self.0.lock().gone = true;
                self.0.changed.notify_all();
            }
        }
        let _gone = Gone(self);
        while let Some((mut reading, mut unwritten)) = self.catch_up(&mut log) {
            loop {
                let Some(bytes) = unwritten.take().or_else(|| reading.next()) else {
                    self.lock().at = At::Over(reading);
                    return;
                };
                self.put_aside(reading, bytes.clone());
                let result = log.append(bytes.get());
                drop(bytes);
                match self.pick_up(result, &mut log) {
                    Some(picked_up) => reading = picked_up,
                    None => break,
                }
                reading.settle();
            }
        }
    }

    fn put_aside(&self, reading: R, bytes: Bytes) {
        let mut state = self.lock();
        state.at = At::Aside(reading, bytes, Instant::now());
        state.writes += 1;
        if !std::mem::replace(&mut state.watched, true) {
            drop(state);
            self.changed.notify_all();
        }
    }

    /// After a write of what the reading had; `None`: the stand-in has it now.
    fn pick_up(&self, result: std::io::Result<()>, log: &mut Log) -> Option<R> {
        let mut state = self.lock();
        match (std::mem::replace(&mut state.at, At::Writer), result) {
            (At::Aside(reading, bytes, _), Ok(())) => {
                self.written(&bytes);
                Some(reading)
            }
            (At::Aside(reading, bytes, _), Err(error)) => {
                state.enqueue(bytes);
                self.waits(&state);
                state.at = At::ForStandIn(reading);
                drop(state);
                self.changed.notify_all();
                self.refused(&error, log);
                None
            }
            (elsewhere, result) => {
                state.at = elsewhere;
                drop(state);
                self.first_done(result, log);
                None
            }
        }
    }

    /// Writes the queue, until the reading comes back; `None`: it will not.
    fn catch_up(&self, log: &mut Log) -> Option<(R, Option<Bytes>)> {
        loop {
            let nothing_to_do = |state: &mut State<R>| {
                state.queue.is_empty() && !state.over && !matches!(state.at, At::ForWriter(..))
            };
            let waited = self.changed.wait_while(self.lock(), nothing_to_do);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            if let Some(first) = state.queue.front().cloned() {
                drop(state);
                let result = log.append(first.get());
                let refused = result.is_err();
                drop(first);
                self.first_done(result, log);
                if refused && self.lock().over {
                    return None;
                }
                continue;
            }
            match std::mem::replace(&mut state.at, At::Writer) {
                At::ForWriter(reading, unwritten) => return Some((reading, unwritten)),
                elsewhere @ (At::Writer
                | At::Aside(..)
                | At::ForStandIn(_)
                | At::StandIn
                | At::Over(_)) => state.at = elsewhere,
            }
            if state.over {
                return None;
            }
        }
    }

    /// What became of the first in the queue.
    fn first_done(&self, result: std::io::Result<()>, log: &mut Log) {
        match result {
            Ok(()) => {
                let mut state = self.lock();
                if let Some(first) = state.queue.pop_front() {
                    state.bytes -= first.len;
                    self.written(&first);
                }
                state.dropping &= state.bytes > 0;
                self.waits(&state);
                let caught_up = state.queue.is_empty();
                drop(state);
                self.changed.notify_all();
                self.meter.refused.store(false, Ordering::Relaxed);
                log.well(caught_up, self.meter.dropped.load(Ordering::Relaxed));
            }
            Err(error) => self.refused(&error, log),
        }
    }

    /// Says it, and waits until the next try.
    fn refused(&self, error: &std::io::Error, log: &mut Log) {
        self.meter.refused.store(true, Ordering::Relaxed);
        log.ill(error);
        let over = |state: &mut State<R>| !state.over;
        drop(self.changed.wait_timeout_while(self.lock(), RETRY, over));
    }

    fn written(&self, bytes: &Bytes) {
        let len = u64::try_from(bytes.len).unwrap_or(u64::MAX);
        self.meter.written.fetch_add(len, Ordering::Relaxed);
    }

    fn waits(&self, state: &State<R>) {
        let waiting = u64::try_from(state.bytes).unwrap_or(u64::MAX);
        self.meter.waiting.store(waiting, Ordering::Relaxed);
    }

    /// The stand-in's life: looks whether a write takes too long while there are any, and returns the reading at its end.
    fn stand_by(&self) -> Option<R> {
        let mut state = self.lock();
        loop {
            match std::mem::replace(&mut state.at, At::StandIn) {
                At::Over(reading) => return Some(reading),
                At::Aside(reading, bytes, since) if state.gone || since.elapsed() >= PATIENCE => {
                    state.enqueue(bytes);
                    self.waits(&state);
                    drop(state);
                    if let Some(reading) = self.stand_in(reading) {
                        return Some(reading);
                    }
                    state = self.lock();
                    continue;
                }
                At::ForStandIn(reading) => {
                    drop(state);
                    if let Some(reading) = self.stand_in(reading) {
                        return Some(reading);
                    }
                    state = self.lock();
                    continue;
                }
                elsewhere @ (At::ForWriter(..) | At::Writer | At::Aside(..) | At::StandIn) => {
                    state.at = elsewhere
                }
            }
            if state.gone {
                return None;
            }
            state = if state.watched {
                let writes = state.writes;
                let waited = self.changed.wait_timeout(state, LOOK);
                let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                let quiet = state.writes == writes && !matches!(state.at, At::Aside(..));
                state.watched = !(waited.timed_out() && quiet);
                state
            } else {
                let waited = self.changed.wait(state);
                waited.unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// Reads on until the writer has caught up and can have the reading back (`None`), or until the end.
    fn stand_in(&self, mut reading: R) -> Option<R> {
        loop {
            reading.settle();
            let Some(bytes) = reading.next() else {
                self.farewell();
                return Some(reading);
            };
            let mut state = self.lock();
            if state.queue.is_empty() && !state.gone {
                state.at = At::ForWriter(reading, Some(bytes));
                drop(state);
                self.changed.notify_all();
                return None;
            }
            if state.bytes + bytes.len <= QUEUE_BYTES && !state.gone {
                // It may wait for long, and a large buffer must not be kept for one line.
                state.enqueue(Bytes {
                    buffer: Arc::new(bytes.get().into()),
                    len: bytes.len,
                });
                self.waits(&state);
                drop(state);
                self.changed.notify_all();
                continue;
            }
            let first = !std::mem::replace(&mut state.dropping, true);
            drop(state);
            self.meter
                .dropped
                .fetch_add(bytes.lines(), Ordering::Relaxed);
            if first {
                log::error!(
                    "tee: 16 MiB of lines wait for the disk; from now on lines are missing in the access log"
                );
            }
        }
    }

    /// No more will come: waits for what is in the queue, a moment longer than usual.
    fn farewell(&self) {
        let mut state = self.lock();
        state.over = true;
        self.changed.notify_all();
        let waits = |state: &mut State<R>| !state.queue.is_empty() && !state.gone;
        let waited = self.changed.wait_timeout_while(state, FAREWELL, waits);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let lost: u64 = state.queue.iter().map(Bytes::lines).sum();
        if lost > 0 {
            log::error!("tee: the disk did not take the last {lost} lines before the end");
        }
    }

    /// Without a second thread.
    fn write_alone(&self, mut log: Log, mut reading: R) -> R {
        while let Some(bytes) = reading.next() {
            match log.append(bytes.get()) {
                Ok(()) => self.written(&bytes),
                Err(error) => {
                    self.meter
                        .dropped
                        .fetch_add(bytes.lines(), Ordering::Relaxed);
                    log.ill(&error);
                    log.give_up();
                }
            }
            drop(bytes);
            reading.settle();
        }
        reading
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt as _;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    pub(super) struct Dir(pub(super) PathBuf);

    impl Dir {
        pub(super) fn new(name: &str) -> Self {
            let dir =
                std::env::temp_dir().join(format!("f2b-pipe-tee-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    pub(super) fn text(path: &Path) -> String {
        String::from_utf8(std::fs::read(path).unwrap()).unwrap()
    }

    /// Gives what it is sent, and tells what was settled and by which thread.
    struct Pipe {
        from: Receiver<Vec<u8>>,
        settled: Sender<String>,
    }

    impl Reading for Pipe {
        fn next(&mut self) -> Option<Bytes> {
            let bytes = self.from.recv().ok()?;
            Some(Bytes {
                len: bytes.len(),
                buffer: Arc::new(bytes.into()),
            })
        }

        fn settle(&mut self) {
            let thread = thread::current().name().unwrap_or_default().to_owned();
            self.settled.send(thread).unwrap();
        }
    }

    /// A tee at work, the lines it gets, and what it settled.
    struct Carried {
        to: Option<Sender<Vec<u8>>>,
        settled: Receiver<String>,
        gauge: Gauge,
        end: thread::JoinHandle<bool>,
    }

    impl Carried {
        fn to(path: &Path) -> Self {
            let (to, from) = channel();
            let (settles, settled) = channel();
            let pipe = Pipe {
                from,
                settled: settles,
            };
            let tee = Tee::new(path, false);
            let gauge = tee.gauge();
            let carry = move || tee.carry(pipe).is_some();
            Self {
                to: Some(to),
                settled,
                gauge,
                end: thread::Builder::new()
                    .name("stand-in".into())
                    .spawn(carry)
                    .unwrap(),
            }
        }

        /// The thread that settled them.
        fn send(&self, bytes: &[u8]) -> String {
            self.to.as_ref().unwrap().send(bytes.to_vec()).unwrap();
            self.settled.recv_timeout(Duration::from_secs(10)).unwrap()
        }

        fn wait_for(&self, so: impl Fn(Stats) -> bool) {
            let begun = Instant::now();
            while !so(self.gauge.stats()) {
                assert!(
                    begun.elapsed() < Duration::from_secs(10),
                    "{:?}",
                    self.gauge
                );
                thread::sleep(Duration::from_millis(10));
            }
        }

        fn finish(mut self) -> Stats {
            self.to = None;
            assert!(self.end.join().unwrap());
            self.gauge.stats()
        }
    }

    #[test]
    fn what_a_missing_directory_refuses_is_written_when_it_is_there() {
        let dir = Dir::new("missing");
        let path = dir.0.join("sub/log");
        let tee = Carried::to(&path);
        assert_eq!(tee.send(b"1\n"), "stand-in");
        // The writer says it, and another thread settled the lines.
        tee.wait_for(|stats| stats.waiting == 2 && stats.refused);
        std::fs::create_dir(dir.0.join("sub")).unwrap();
        tee.wait_for(|stats| stats.written == 2 && stats.waiting == 0 && !stats.refused);
        assert_eq!(tee.send(b"2\n"), "lines");
        assert_eq!(tee.finish().written, 4);
        assert_eq!(text(&path), "1\n2\n");
    }

    #[test]
    fn beyond_the_buffer_lines_are_dropped_and_counted() {
        let dir = Dir::new("beyond");
        let tee = Carried::to(&dir.0.join("none/log"));
        for _ in 0..17 {
            tee.send(&vec![b'\n'; 1 << 20]);
        }
        let stats = Stats {
            written: 0,
            waiting: 16 << 20,
            dropped: 1 << 20,
            refused: true,
        };
        assert_eq!(tee.gauge.stats(), stats);
        assert_eq!(tee.finish().dropped, 1 << 20);
    }

    /// A disk that hangs: a FIFO that nobody reads takes 64 KiB.
    #[test]
    fn while_a_write_hangs_another_thread_reads_on_and_no_byte_is_lost() {
        let dir = Dir::new("hangs");
        let path = dir.0.join("log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(std::fs::metadata(&path).unwrap().file_type().is_fifo());
        // Opened to read and write, so that nobody waits for the other side.
        let disk = open(&path).unwrap();
        let tee = Carried::to(&path);
        let chunk = |n: usize| format!("{n:04}\n").repeat(4000).into_bytes();
        let mut by = Vec::new();
        for n in 0..8 {
            by.push(tee.send(&chunk(n)));
        }
        assert_eq!(by, [["lines"; 3].as_slice(), &["stand-in"; 5]].concat());
        assert_eq!(tee.gauge.stats().waiting, 5 * 20_000);
        let read = thread::spawn(move || {
            let mut all = vec![0; 12 * 20_000];
            std::io::Read::read_exact(&mut &disk, &mut all).unwrap();
            all
        });
        tee.wait_for(|stats| stats.waiting == 0);
        for n in 8..12 {
            by.push(tee.send(&chunk(n)));
        }
        assert_eq!(by.last().unwrap(), "lines");
        let all: Vec<u8> = (0..12).flat_map(chunk).collect();
        assert_eq!(read.join().unwrap(), all);
        tee.finish();
    }

    #[test]
    fn lines_come_in_their_order_whoever_reads() {
        let dir = Dir::new("order");
        let path = dir.0.join("log");
        let tee = Carried::to(&path);
        let mut all = String::new();
        for n in 0..3000 {
            let line = format!("line {n}\n");
            tee.send(line.as_bytes());
            all += &line;
        }
        assert_eq!(usize::try_from(tee.finish().written).unwrap(), all.len());
        assert_eq!(text(&path), all);
    }
}
