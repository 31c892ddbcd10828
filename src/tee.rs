//! The same bytes on to the access log, before anything else looks at them.
//!
//! A write to a file cannot be made non-blocking, and a hanging disk would stop httpd with it, so a thread of its own
//! writes. Normally each chunk is waited for before it is taken out of the pipe (a SIGKILL then loses nothing); when the
//! disk takes longer than [`PATIENCE`] the chunks queue up, to [`QUEUE_BYTES`]; beyond that whole chunks are dropped,
//! counted and said. Nothing else ever drops a byte.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::privilege::helper;
use crate::silence::board;

/// How long a chunk may take before the pipe is read on without it. The pipe takes thousands of lines meanwhile; less, and
/// a machine that is merely busy would give up what a SIGKILL must not lose.
const PATIENCE: Duration = Duration::from_millis(500);
/// `tee_buffer`: what may wait for a full or hanging disk.
const QUEUE_BYTES: usize = 16 << 20;
/// Between two tries on a disk that refuses.
const RETRY: Duration = Duration::from_millis(500);
/// How often the path is compared with the open file.
const LOOK: Duration = Duration::from_millis(250);
/// logrotate renames, then creates. Who re-creates the file at once breaks it, so write on to the old one for this long.
const ROTATION: Duration = Duration::from_secs(5);
/// For another process of ours that appends just now.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);
const LOCK_STEP: Duration = Duration::from_micros(200);
/// At the end nobody waits for us, and systemd may kill.
const FAREWELL: Duration = Duration::from_millis(1500);

/// Hands chunks to the writer.
#[derive(Debug)]
pub struct Tee {
    shared: Arc<Shared>,
    writer: Option<thread::JoinHandle<()>>,
    /// Without a writer.
    own: Option<Log>,
}

/// A look at the tee from another thread.
#[derive(Clone, Debug)]
pub struct Gauge(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    done: Condvar,
    /// A chunk took longer than [`PATIENCE`], and the log has not caught up since.
    lagging: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Batch>,
    /// Waiting, the one being written with them.
    bytes: usize,
    ended: bool,
    /// Lines are being dropped, and that was said.
    dropping: bool,
    /// The reader waits for `done`: waking nobody costs a system call, too.
    awaited: bool,
    /// The writer gave up at the end, or died.
    gone: bool,
    stats: Stats,
}

/// Bytes that the reader and the writer share while both are at work on them.
#[derive(Clone, Debug)]
struct Batch {
    buffer: Arc<Box<[u8]>>,
    len: usize,
}

impl Batch {
    fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
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

impl Tee {
    /// Starts the writer for `path`, which is opened (and created, 0640) with the first chunk. `resumed`: the first chunk
    /// may have been written in part by a process that died on this pipe. Where no thread can be had the caller's writes.
    #[must_use]
    pub fn start(path: &Path, resumed: bool) -> Self {
        let shared = Arc::new(Shared::default());
        let writer = {
            let log = Log::new(path, resumed);
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("tee".into())
                .spawn(move || write_all(&shared, log))
        };
        let own = writer.as_ref().err().map(|error| {
            log::error!("tee: no thread to be had ({error}); a hanging disk would hold up httpd");
            Log::new(path, resumed)
        });
        Self {
            shared,
            writer: writer.ok(),
            own,
        }
    }

    /// For who wants to know how it does.
    #[must_use]
    pub fn gauge(&self) -> Gauge {
        Gauge(Arc::clone(&self.shared))
    }

    /// Hands the first `len` bytes of `buffer` over.
    pub fn push(&mut self, buffer: Arc<Box<[u8]>>, len: usize) {
        let mut chunk = Batch { buffer, len };
        if let Some(log) = &mut self.own {
            let result = log.append(chunk.bytes());
            let mut queue = self.shared.lock();
            match result {
                Ok(()) => queue.stats.written += u64::try_from(len).unwrap_or(u64::MAX),
                Err(error) => {
                    let lines = memchr::memchr_iter(b'\n', chunk.bytes()).count();
                    queue.stats.dropped += u64::try_from(lines).unwrap_or(u64::MAX);
                    log.ill(&error);
                    log.offset = 0;
                }
            }
            return;
        }
        if self.shared.lagging.load(Ordering::Relaxed) {
            // It may wait for long, and a large buffer must not be kept for one line.
            chunk.buffer = Arc::new(chunk.bytes().into());
        }
        let mut queue = self.shared.lock();
        if queue.bytes + len > QUEUE_BYTES || queue.gone {
            let lines = memchr::memchr_iter(b'\n', chunk.bytes()).count();
            let first = !queue.dropping;
            queue.dropping = true;
            queue.stats.dropped += u64::try_from(lines).unwrap_or(u64::MAX);
            drop(queue);
            if first {
                log::error!(
                    "tee: 16 MiB of lines wait for the disk; from now on lines are missing in the access log"
                );
            }
            return;
        }
        queue.bytes += len;
        queue.chunks.push_back(chunk);
        drop(queue);
        self.shared.work.notify_one();
    }

    /// Waits until all that was pushed is in the log, but not longer than the disk deserves. When this returns the
    /// chunk may be taken out of the pipe: it is written, or waits in memory.
    pub fn settle(&mut self) {
        let lagging = &self.shared.lagging;
        let patience = match lagging.load(Ordering::Relaxed) {
            true => Duration::ZERO,
            false => PATIENCE,
        };
        let lags = self.shared.drained(patience).bytes > 0;
        lagging.store(lags, Ordering::Relaxed);
    }

    /// What became of the bytes so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.gauge().stats()
    }

    /// No more will come: waits for what is there, a moment longer than usual.
    pub fn finish(mut self) {
        self.shared.lock().ended = true;
        self.shared.work.notify_one();
        let queue = self.shared.drained(FAREWELL);
        let lost: usize = queue
            .chunks
            .iter()
            .map(|chunk| memchr::memchr_iter(b'\n', chunk.bytes()).count())
            .sum();
        let hanging = queue.bytes > 0;
        drop(queue);
        if lost > 0 {
            log::error!("tee: the disk did not take the last {lost} lines before the end");
        }
        // A writer in a hanging write cannot be joined; the process ends without it.
        if let (false, Some(writer)) = (hanging, self.writer.take()) {
            drop(writer.join());
        }
    }
}

impl Gauge {
    /// What became of the bytes so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let queue = self.0.lock();
        let waiting = match self.0.lagging.load(Ordering::Relaxed) {
            true => queue.bytes,
            false => 0,
        };
        Stats {
            waiting: u64::try_from(waiting).unwrap_or(u64::MAX),
            ..queue.stats
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue when it is empty, or as it is after `patience`.
    fn drained(&self, patience: Duration) -> MutexGuard<'_, Queue> {
        let mut queue = self.lock();
        if queue.bytes == 0 || patience.is_zero() {
            return queue;
        }
        queue.awaited = true;
        let waited = self
            .done
            .wait_timeout_while(queue, patience, |queue| queue.bytes > 0 && !queue.gone);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.awaited = false;
        queue
    }
}

/// The writer's life.
fn write_all(shared: &Shared, mut log: Log) {
    // A panic here must not leave the reader waiting for ever.
    struct Gone<'a>(&'a Shared);
    impl Drop for Gone<'_> {
        fn drop(&mut self) {
            self.0.lock().gone = true;
            self.0.done.notify_all();
        }
    }
    let _gone = Gone(shared);
    loop {
        let queue = shared.lock();
        let waited = shared
            .work
            .wait_while(queue, |queue| queue.chunks.is_empty() && !queue.ended);
        let queue = waited.unwrap_or_else(PoisonError::into_inner);
        let Some(chunk) = queue.chunks.front().cloned() else {
            return;
        };
        drop(queue);

        let result = log.append(chunk.bytes());
        let mut queue = shared.lock();
        match result {
            Ok(()) => {
                let len = chunk.len;
                // The reader wants its buffer back: let go of it before it is told.
                drop(chunk);
                queue.chunks.pop_front();
                queue.bytes -= len;
                queue.stats.written += u64::try_from(len).unwrap_or(u64::MAX);
                queue.dropping &= queue.bytes > 0;
                queue.stats.refused = false;
                let (empty, awaited, dropped) =
                    (queue.bytes == 0, queue.awaited, queue.stats.dropped);
                drop(queue);
                if empty && awaited {
                    shared.done.notify_one();
                }
                log.well(empty, dropped);
            }
            Err(error) => {
                let ended = queue.ended;
                queue.stats.refused = true;
                drop(queue);
                log.ill(&error);
                if ended {
                    return;
                }
                thread::sleep(RETRY);
            }
        }
    }
}

/// The file, and what we know of its end.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: Option<File>,
    /// Where the file should end if nobody else wrote.
    end: u64,
    /// Our last write did not end in a newline.
    mid_line: bool,
    /// Bytes of the first chunk in the queue that are written already.
    offset: usize,
    resumed: bool,
    looked: Option<Instant>,
    missing_since: Option<Instant>,
    dropped_said: u64,
}

impl Log {
    fn new(path: &Path, resumed: bool) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
            end: 0,
            mid_line: false,
            offset: 0,
            resumed,
            looked: None,
            missing_since: None,
            dropped_said: 0,
        }
    }

    /// Appends the chunk, or goes on where an earlier try stopped.
    fn append(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.follow()?;
        // Between our processes (an old one drains beside the new one at each graceful), so that nobody takes another's
        // line in the making for a cut one. Whoever does not get the lock does not ask about the seam.
        let alone = self.file.as_ref().is_some_and(lock);
        let done = self.mend(chunk, alone).and_then(|()| self.write(chunk));
        if let Some(file) = &self.file {
            // Where it ends if nobody else writes; after an error nobody knows.
            self.end = file
                .metadata()
                .ok()
                .filter(|_| done.is_ok())
                .map_or(u64::MAX, |file| file.len());
            file.unlock().ok();
        }
        done?;
        self.mid_line = chunk.last() != Some(&b'\n');
        self.offset = 0;
        Ok(())
    }

    /// Sees that no line is glued to the end of another, if somebody else wrote, or this is the first write.
    fn mend(&mut self, chunk: &[u8], alone: bool) -> io::Result<()> {
        let Some(mut file) = self.file.as_ref() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if self.offset > 0 {
            return Ok(());
        }
        let size = file.metadata()?.len();
        if size != self.end && alone && !self.mid_line {
            match seam(file, size, if self.resumed { chunk } else { b"" })? {
                Seam::Clean => {}
                Seam::Resume(at) => self.offset = at,
                Seam::Cut => file.write_all(b"\n")?,
            }
        }
        self.resumed = false;
        Ok(())
    }

    /// Writes the chunk from `offset` on.
    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        let Some(mut file) = self.file.as_ref() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        while let Some(rest) = chunk.get(self.offset..).filter(|rest| !rest.is_empty()) {
            match file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.offset += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Opens the file, and opens it anew when the path has become another one. Not in the middle of a line.
    fn follow(&mut self) -> io::Result<()> {
        let between_lines = !self.mid_line && self.offset == 0;
        let due = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        if self.file.is_none() || (between_lines && due) {
            self.look()
        } else {
            Ok(())
        }
    }

    fn look(&mut self) -> io::Result<()> {
        self.looked = Some(Instant::now());
        if let Some(file) = &self.file {
            match std::fs::metadata(&self.path) {
                Ok(now) => {
                    self.missing_since = None;
                    let open = file.metadata()?;
                    if (now.dev(), now.ino()) == (open.dev(), open.ino()) {
                        return Ok(());
                    }
                }
                Err(_)
                    if self
                        .missing_since
                        .get_or_insert_with(Instant::now)
                        .elapsed()
                        < ROTATION =>
                {
                    return Ok(());
                }
                Err(_) => {}
            }
        }
        let opened = open(&self.path).or_else(|error| match (error.kind(), helper()) {
            // It is not root's, or its folder is not.
            (io::ErrorKind::PermissionDenied, Some(helper)) => helper.tee().map_err(|_| error),
            _ => Err(error),
        });
        match (opened, &self.file) {
            (Ok(file), _) => {
                self.end = u64::MAX;
                self.file = Some(file);
                self.missing_since = None;
                Ok(())
            }
            // The directory is gone, say: the old file still takes the lines.
            (Err(_), Some(_)) => Ok(()),
            (Err(error), None) => Err(error),
        }
    }

    /// What troubles are about.
    fn about(&self) -> String {
        format!("tee {}", self.path.display())
    }

    fn ill(&mut self, error: &io::Error) {
        let what = match error.raw_os_error() {
            Some(nix::libc::ENOSPC | nix::libc::EDQUOT) => "make room there",
            Some(nix::libc::ENOENT) => "make that directory",
            _ => "see that it can be written",
        };
        let text = format!("{error}; {what}. Lines wait in memory (16 MiB at most), bans go on");
        board().set(&self.about(), &Err::<(), _>(text));
    }

    fn well(&mut self, caught_up: bool, dropped: u64) {
        if !caught_up {
            return;
        }
        let (about, lost) = (self.about(), dropped - self.dropped_said);
        self.dropped_said = dropped;
        let words = format!("writes again; {lost} lines were lost");
        if lost > 0 && !board().has(&about) {
            log::warn!("{about}: {words}");
        }
        board().over(&about, &words);
    }
}

/// Opens a log, and makes it where it is not there.
///
/// # Errors
/// Of open(2).
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .read(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

/// flock(2), which only our own processes take. One that hangs in a write holds it, so this waits a moment only.
fn lock(file: &File) -> bool {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return true,
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                thread::sleep(LOCK_STEP)
            }
            // A file system without locks has one of our processes after the other, as it were: ask about the seam.
            Err(TryLockError::Error(_)) => return true,
            Err(TryLockError::WouldBlock) => return false,
        }
    }
}

/// How the log's end and the next chunk fit together.
#[derive(Debug, PartialEq, Eq)]
enum Seam {
    /// The log ends in a newline, or is empty.
    Clean,
    /// Its last line is cut, and is the beginning of a line of the chunk: go on at this byte of the chunk.
    Resume(usize),
    /// Its last line is cut, and the rest is not here.
    Cut,
}

/// A SIGKILL inside an append leaves a cut line, whose bytes are still in the pipe: somewhere in the chunk a line begins
/// with that piece, and the log ends with the whole chunk up to there. The smallest such place is right: a larger one could
/// lose lines that are repeated word for word, a smaller one does not exist.
fn seam(file: &File, size: u64, chunk: &[u8]) -> io::Result<Seam> {
    let want = chunk
        .len()
        .max(1)
        .min(usize::try_from(size).unwrap_or(usize::MAX));
    let mut tail = vec![0; want];
    file.read_exact_at(
        &mut tail,
        size.saturating_sub(u64::try_from(want).unwrap_or(0)),
    )?;
    if tail.last().is_none_or(|last| *last == b'\n') {
        return Ok(Seam::Clean);
    }
    let piece_starts = memchr::memrchr(b'\n', &tail).map_or(0, |at| at + 1);
    let piece = tail.get(piece_starts..).unwrap_or_default();
    let line_starts = std::iter::once(0).chain(memchr::memchr_iter(b'\n', chunk).map(|at| at + 1));
    for start in line_starts {
        let at = start + piece.len();
        let Some(head) = chunk.get(..at) else {
            continue;
        };
        if tail.ends_with(head) {
            return Ok(Seam::Resume(at));
        }
    }
    Ok(Seam::Cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
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

    fn text(path: &Path) -> String {
        String::from_utf8(std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn a_cut_line_is_completed_and_never_glued() {
        let dir = Dir::new("seam");
        let path = dir.0.join("log");
        for (before, chunk, after) in [
            ("", "a\nb\n", "a\nb\n"),
            ("x\n", "a\nb\n", "x\na\nb\n"),
            ("x\na\nbb", "a\nbbb\nc\n", "x\na\nbbb\nc\n"),
            ("x\na", "abc\nd\n", "x\nabc\nd\n"),
            ("x 1", "1 2\n", "x 1\n1 2\n"),
            ("lost pie", "a\nb\n", "lost pie\na\nb\n"),
            // One repeated line was written, or two: where nobody can tell none may be lost.
            ("x\na\na", "a\na\na\nz\n", "x\na\na\na\na\nz\n"),
        ] {
            std::fs::write(&path, before).unwrap();
            let mut log = Log::new(&path, true);
            log.append(chunk.as_bytes()).unwrap();
            assert_eq!(text(&path), after, "{before:?} + {chunk:?}");
        }
    }

    #[test]
    fn a_cut_left_by_another_process_is_not_glued_either() {
        let dir = Dir::new("other");
        let path = dir.0.join("log");
        let mut log = Log::new(&path, false);
        log.append(b"a\n").unwrap();
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"cut")
            .unwrap();
        log.append(b"b\n").unwrap();
        assert_eq!(text(&path), "a\ncut\nb\n");
    }

    #[test]
    fn several_processes_append_and_no_line_is_broken_or_added() {
        let dir = Dir::new("several");
        let path = dir.0.join("log");
        thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    // Begun anew now and then, as at each graceful restart, and each time after a death, for all it knows.
                    for start in 0..30 {
                        let mut log = Log::new(path, true);
                        for batch in 0..10 {
                            let line = format!(
                                "192.0.2.{writer} start {start} batch {batch} {}\n",
                                "x".repeat(900)
                            );
                            log.append(line.repeat(40).as_bytes()).unwrap();
                        }
                    }
                });
            }
        });
        let text = text(&path);
        assert_eq!(text.lines().count(), 4 * 30 * 10 * 40);
        let whole =
            |line: &str| line.starts_with("192.0.2.") && line.len() > 900 && line.ends_with("xxx");
        assert_eq!(text.lines().find(|line| !whole(line)), None);
    }

    #[test]
    fn a_renamed_file_is_followed_when_the_new_one_is_there() {
        let dir = Dir::new("rename");
        let (path, old) = (dir.0.join("log"), dir.0.join("log.1"));
        let mut log = Log::new(&path, false);
        log.append(b"1\n").unwrap();
        std::fs::rename(&path, &old).unwrap();
        log.looked = None;
        log.append(b"2\n").unwrap();
        assert!(!path.exists(), "logrotate is about to create it");
        std::fs::write(&path, "").unwrap();
        log.looked = None;
        log.append(b"3\n").unwrap();
        assert_eq!(
            (text(&old).as_str(), text(&path).as_str()),
            ("1\n2\n", "3\n")
        );
        std::fs::remove_file(&path).unwrap();
        log.missing_since = Some(Instant::now() - ROTATION);
        log.looked = None;
        log.append(b"4\n").unwrap();
        assert_eq!(text(&path), "4\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    }

    #[test]
    fn what_a_missing_directory_refuses_is_written_when_it_is_there() {
        let dir = Dir::new("missing");
        let path = dir.0.join("sub/log");
        let mut tee = Tee::start(&path, false);
        tee.push(Arc::new(Box::new(*b"1\n")), 2);
        tee.settle();
        assert_eq!(tee.stats().waiting, 2);
        std::fs::create_dir(dir.0.join("sub")).unwrap();
        let begun = Instant::now();
        while tee.stats().written == 0 && begun.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(20));
        }
        tee.push(Arc::new(Box::new(*b"2\n")), 2);
        tee.finish();
        assert_eq!(text(&path), "1\n2\n");
    }

    #[test]
    fn beyond_the_buffer_lines_are_dropped_and_counted() {
        let dir = Dir::new("beyond");
        let mut tee = Tee::start(&dir.0.join("none/log"), false);
        let chunk = Arc::new(vec![b'\n'; 1 << 20].into_boxed_slice());
        for _ in 0..17 {
            tee.push(Arc::clone(&chunk), 1 << 20);
            tee.settle();
        }
        assert_eq!(
            tee.stats(),
            Stats {
                written: 0,
                waiting: 16 << 20,
                dropped: 1 << 20,
                refused: true,
            }
        );
        tee.finish();
    }
}
