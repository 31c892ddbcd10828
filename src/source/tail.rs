//! Logs that others write, line by line as they grow.
//!
//! In: globs. Out: [`Event::Line`], decoded, in the order of each file. A log that is rotated is read to its end before
//! the new one is begun; nothing is lost or handed out twice while we run, and with [`Tail::positions`] kept, nothing is
//! over a restart either. What is lost: a whole file that came and went between two looks (some milliseconds, a second
//! when polling, or while we are not there), and what is written between the copy and the truncation of copytruncate.
//!
//! inotify says what has grown; a stat(2) a second does where it cannot (network file systems, watches used up), and a
//! slower round for all catches what no event tells, as a link that leads to another folder.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::WatchDescriptor;

mod encoding;
mod paths;
mod position;
mod reading;
mod watch;

pub use encoding::{Encoding, UnknownEncoding};
pub use paths::expand;
pub use position::Position;

use paths::Glob;
use reading::{BUFFER_BYTES, Reading, Turn};
use watch::{Change, Watches};

/// Files followed at once. A folder that grows without end must not take all memory.
const FILES_MAX: usize = 50_000;
/// Files kept open while nothing is to be read from them; others are opened for each turn.
const OPEN_MAX: usize = 512;
/// Generations of one log that are read at once. It takes eight rotations in a second to come here.
const GENERATIONS_MAX: usize = 8;
/// Generations of one log that are held open at all: someone who renames faster than we read loses the oldest.
const GENERATIONS_LIMIT: usize = 64;
/// Between two looks at files that inotify does not serve.
const POLL: Duration = Duration::from_secs(1);
/// Between two looks at all files and globs.
const ROUND: Duration = Duration::from_secs(10);
/// Between two looks at logs that are being rotated.
const SETTLE: Duration = Duration::from_millis(100);
/// A rotated log that has not grown for so long is done, and the new one is begun.
const QUIET: Duration = Duration::from_secs(1);
/// The new one is begun in any case: the old one's writer may go on for long (httpd's children after a graceful).
const AT_LAST: Duration = Duration::from_secs(5);
/// A rotated or removed log is still read for so long after it grew.
const LINGER: Duration = Duration::from_secs(60);
/// Files that are read before the caller gets a word in.
const SLICE: Duration = Duration::from_millis(50);
/// A busy log wakes us for each write: the rest of a burst may come in this time.
const GATHER: Duration = Duration::from_millis(2);

/// A log or many.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As in `logpath`: absolute, with `*`, `?` and `[..]`. Without these it names one file, which is waited for.
    pub glob: String,
    /// Begin at the end of what is there now (`tail`), not at its beginning (`head`).
    pub from_end: bool,
    /// `logencoding`.
    pub encoding: Encoding,
    /// Whom the lines are for, in the caller's numbering.
    pub owners: Vec<usize>,
}

/// What else to know at the beginning.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Of [`Tail::positions`] in an earlier life.
    pub positions: Vec<Position>,
    /// Never rely on inotify.
    pub polling: bool,
}

/// A followed path, for as long as it is followed; a rotated log keeps it. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(u64);

/// A followed path. One that is read in two encodings, or from its end for some and not for others, is two.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Its number.
    pub id: FileId,
    /// Its name.
    pub path: PathBuf,
    /// Of all entries that lead to it.
    pub owners: Vec<usize>,
}

/// Where a file is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Where it was left in an earlier life.
    Stored,
    /// At its end.
    End,
    /// At its beginning; [`Tail::seek`] goes nearer to what matters.
    Beginning,
}

/// What there is to tell.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A file was found; its first line comes in the next [`Tail::wait`].
    Found {
        /// Which.
        file: &'a Followed,
        /// From where it will be read.
        start: Start,
    },
    /// A line.
    Line {
        /// Of which file.
        file: &'a Followed,
        /// Without its end; what could not be decoded is U+FFFD. The first 128 KiB of a longer one.
        text: &'a str,
        /// Its end had been reached before: the line is new ("in operation", rule 57).
        live: bool,
    },
    /// The end of what was there at the start. Again when a file was shortened or edited and is read anew.
    ReachedEnd {
        /// Of which file.
        file: &'a Followed,
    },
    /// A new file has its name, or it was truncated. Lines of the old one may still follow.
    Rotated {
        /// Which.
        file: &'a Followed,
    },
    /// It is not followed any more: removed for a minute, and only a glob led to it.
    Gone {
        /// Which.
        file: &'a Followed,
    },
    /// Something does not work; said once until it changes.
    Trouble {
        /// Where.
        path: &'a Path,
        /// What is wrong.
        text: &'a str,
    },
}

/// How a path is read: what tells two streams apart.
type Key = (PathBuf, Encoding, bool);

/// One path, through its rotations.
#[derive(Debug)]
struct Stream {
    followed: Followed,
    encoding: Encoding,
    from_end: bool,
    /// An entry names it, so it is waited for.
    literal: bool,
    /// The oldest first; the last is what the path leads to.
    generations: VecDeque<Generation>,
    /// Was told.
    found: bool,
    live: bool,
    /// Waits for its turn.
    queued: bool,
    gone: Option<Instant>,
    trouble: Option<String>,
}

#[derive(Debug)]
struct Generation {
    reading: Reading,
    /// `None`: polled.
    watch: Option<WatchDescriptor>,
    /// Size and time of the last change at the last look.
    stamp: (u64, i64, i64),
}

/// Follows logs.
#[derive(Debug)]
pub struct Tail {
    entries: Vec<(Entry, Glob)>,
    streams: HashMap<FileId, Stream>,
    keys: HashMap<Key, FileId>,
    by_path: HashMap<PathBuf, Vec<FileId>>,
    watches: Watches,
    /// The oldest generation of each first.
    stored: HashMap<(PathBuf, String, bool), Vec<Position>>,
    /// The same of one way in which each file was read, whichever: a log whose encoding is another one now was read all the
    /// same. Until all were found.
    otherwise: HashMap<PathBuf, Vec<Position>>,
    polling: bool,
    started: bool,
    /// Found in this call, read from the next.
    fresh: Vec<FileId>,
    ready: VecDeque<FileId>,
    settling: HashSet<FileId>,
    troubles: Vec<(PathBuf, String)>,
    told: HashSet<(PathBuf, String)>,
    last_id: u64,
    open: usize,
    next_settle: Instant,
    next_poll: Instant,
    next_round: Instant,
    walk: bool,
    buffer: Vec<u8>,
    scratch: String,
}

impl Tail {
    /// Follows `entries`. Nothing is opened before the first [`wait`](Self::wait), which finds the files. What is wrong
    /// with an entry is told there, too, and the others are followed.
    ///
    /// # Errors
    /// No inotify instance (fs.inotify.max_user_instances), unless polling was asked for.
    pub fn new(entries: Vec<Entry>, options: Options) -> io::Result<Self> {
        let now = Instant::now();
        let mut troubles = Vec::new();
        let mut good = Vec::new();
        for entry in entries {
            match Glob::new(&entry.glob) {
                Ok(glob) => good.push((entry, glob)),
                Err(text) => troubles.push((PathBuf::from(entry.glob), text)),
            }
        }
        let mut stored: HashMap<_, Vec<Position>> = HashMap::new();
        for position in options.positions {
            let key = (
                position.path.clone(),
                position.encoding.clone(),
                position.from_end,
            );
            stored.entry(key).or_default().push(position);
        }
        let otherwise = stored
            .iter()
            .map(|((path, _, _), positions)| (path.clone(), positions.clone()))
            .collect();
        Ok(Self {
            entries: good,
            streams: HashMap::new(),
            keys: HashMap::new(),
            by_path: HashMap::new(),
            watches: Watches::new(options.polling)?,
            stored,
            otherwise,
            polling: options.polling,
            started: false,
            fresh: Vec::new(),
            ready: VecDeque::new(),
            settling: HashSet::new(),
            troubles,
            told: HashSet::new(),
            last_id: 0,
            open: 0,
            next_settle: now,
            next_poll: now + POLL,
            next_round: now + ROUND,
            walk: true,
            buffer: vec![0; BUFFER_BYTES],
            scratch: String::new(),
        })
    }

    /// Readable when something happened; also call [`wait`](Self::wait) when [`pause`](Self::pause) is over. `None` when
    /// polling.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.watches.fd()
    }

    /// How long nothing needs to be done unless [`fd`](Self::fd) is readable.
    #[must_use]
    pub fn pause(&self) -> Duration {
        if !self.ready.is_empty() || !self.fresh.is_empty() || self.walk {
            return Duration::ZERO;
        }
        let mut next = self.next_poll.min(self.next_round);
        if !self.settling.is_empty() {
            next = next.min(self.next_settle);
        }
        next.saturating_duration_since(Instant::now())
    }

    /// Waits for something to tell, at most `timeout` (and about 50 ms where there is much), and tells it.
    ///
    /// # Errors
    /// Of poll(2). What is wrong with a file is an event.
    pub fn wait(&mut self, timeout: Duration, on: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        self.rest(timeout)?;
        for id in std::mem::take(&mut self.fresh) {
            self.queue(id);
        }
        let now = Instant::now();
        for change in self.watches.changes() {
            self.heed(change, now, on);
        }
        self.look_around(now, on);
        self.take_turns(now, on);
        for (path, text) in std::mem::take(&mut self.troubles) {
            on(Event::Trouble {
                path: &path,
                text: &text,
            });
        }
        Ok(())
    }

    fn rest(&self, timeout: Duration) -> io::Result<()> {
        let pause = timeout.min(self.pause());
        if pause.is_zero() {
            return Ok(());
        }
        let Some(fd) = self.fd() else {
            std::thread::sleep(pause);
            return Ok(());
        };
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        // Rounded up, or the last millisecond is spent in a loop.
        let pause = pause + Duration::from_millis(1);
        match poll(
            &mut fds,
            PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(0) | Err(Errno::EINTR) => Ok(()),
            Ok(_) => {
                std::thread::sleep(GATHER.min(timeout));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where all files would have to be gone on with, for [`Options::positions`]; in this order, since a log that is being
    /// rotated has one for each file that is not read to its end.
    #[must_use]
    pub fn positions(&self) -> Vec<Position> {
        let mut positions = Vec::new();
        for stream in self.streams.values() {
            let unread = stream
                .generations
                .iter()
                .position(|generation| !generation.reading.at_end)
                .unwrap_or(stream.generations.len().saturating_sub(1));
            let path = &stream.followed.path;
            positions.extend(stream.generations.iter().skip(unread).map(|generation| {
                let reading = &generation.reading;
                reading.position(path, stream.encoding, stream.from_end)
            }));
        }
        // Of files that are waited for. What a glob does not find any more is forgotten, or it would pile up.
        let awaited = self
            .entries
            .iter()
            .filter(|(_, glob)| glob.is_literal())
            .map(|(entry, _)| Path::new(&entry.glob))
            .collect::<HashSet<_>>();
        let absent = self.stored.values().flatten();
        positions.extend(
            absent
                .filter(|position| !self.started || awaited.contains(position.path.as_path()))
                .cloned(),
        );
        // Stable: generations stay in their order.
        positions.sort_by(|a, b| {
            (&a.path, &a.encoding, a.from_end).cmp(&(&b.path, &b.encoding, b.from_end))
        });
        positions
    }

    /// All paths that are followed now, the ones that are waited for among them.
    pub fn followed(&self) -> impl Iterator<Item = &Followed> {
        self.streams.values().map(|stream| &stream.followed)
    }

    /// Goes to the first line of `file` that is not older than `since` (epoch seconds), by halving: for a file that was
    /// [`Found`](Event::Found) with [`Start::Beginning`], before the next [`wait`](Self::wait). `time` says how old a line
    /// is, `None` if it has no date. Returns the offset.
    ///
    /// # Errors
    /// Of reading the file.
    pub fn seek(
        &mut self,
        file: FileId,
        since: f64,
        time: &mut dyn FnMut(&str) -> Option<f64>,
    ) -> io::Result<u64> {
        let Some(stream) = self.streams.get_mut(&file) else {
            return Ok(0);
        };
        let encoding = stream.encoding;
        match stream.generations.back_mut() {
            Some(generation) => {
                let reading = &mut generation.reading;
                let reopened = reading.file.is_none();
                if reopened {
                    reading.file = reading::open(&stream.followed.path)?;
                }
                let sought = reading.seek(encoding, &mut self.buffer, since, time);
                if reopened {
                    reading.file = None;
                }
                sought
            }
            None => Ok(0),
        }
    }

    fn queue(&mut self, id: FileId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.queued, true)
        {
            self.ready.push_back(id);
        }
    }

    fn heed(&mut self, change: Change, now: Instant, on: &mut dyn FnMut(Event<'_>)) {
        match change {
            Change::File(id) => self.queue(id),
            Change::Entry { path, folder } => {
                if let Some(ids) = self.by_path.get(&path).cloned() {
                    for id in ids {
                        self.look(id, now, on);
                        self.queue(id);
                    }
                } else if folder {
                    self.walk = true;
                } else {
                    self.adopt(&path, now, on);
                }
            }
            Change::Folder | Change::Anything => {
                self.walk = true;
                self.next_round = now;
            }
        }
    }

    /// A path that has just appeared, if a glob leads to it.
    fn adopt(&mut self, path: &Path, now: Instant, on: &mut dyn FnMut(Event<'_>)) {
        for at in 0..self.entries.len() {
            if self
                .entries
                .get(at)
                .is_some_and(|(_, glob)| glob.matches(path))
            {
                self.follow(at, path, now, on);
            }
        }
    }

    fn look_around(&mut self, now: Instant, on: &mut dyn FnMut(Event<'_>)) {
        let round = now >= self.next_round;
        if round {
            self.next_round = now + ROUND;
        }
        if round || std::mem::take(&mut self.walk) || (self.polling && now >= self.next_poll) {
            self.walk = false;
            self.walk_all(now, on);
        }
        if now >= self.next_poll || round {
            self.next_poll = now + POLL;
            let ids: Vec<FileId> = self
                .streams
                .values()
                .filter(|stream| round || stream.is_polled())
                .map(|stream| stream.followed.id)
                .collect();
            for id in ids {
                if self.look(id, now, on) {
                    self.queue(id);
                }
            }
        }
        if now >= self.next_settle && !self.settling.is_empty() {
            self.next_settle = now + SETTLE;
            let ids: Vec<FileId> = self.settling.iter().copied().collect();
            for id in ids {
                self.look(id, now, on);
                self.queue(id);
            }
        }
    }

    /// Expands all globs.
    fn walk_all(&mut self, now: Instant, on: &mut dyn FnMut(Event<'_>)) {
        let mut folders = BTreeSet::new();
        for at in 0..self.entries.len() {
            let Some((entry, glob)) = self.entries.get(at).cloned() else {
                continue;
            };
            let mut found = glob.walk();
            // A folder is watched before it is read: what appears in between is told.
            let mut anew = false;
            for folder in &found.folders {
                anew |= self.watch_folder(folder);
            }
            if anew {
                found = glob.walk();
            }
            let literal = PathBuf::from(&entry.glob);
            if found.cut {
                self.tell(&literal, "more files than can be followed; some are not");
            }
            folders.append(&mut found.folders);
            if glob.is_literal() {
                self.follow(at, &literal, now, on);
            } else {
                for path in found.paths {
                    self.follow(at, &path, now, on);
                }
            }
        }
        self.watches.keep_folders(|path| folders.contains(path));
        self.started = true;
        self.otherwise = HashMap::new();
    }

    /// Has it looked for the files?
    pub fn has_looked(&self) -> bool {
        self.started
    }

    /// Is it watched from now on?
    fn watch_folder(&mut self, folder: &Path) -> bool {
        match self.watches.folder(folder) {
            Ok(anew) => anew,
            Err(error) => {
                let text = format!("cannot be watched for new logs: {error}; looking every 10 s");
                self.tell(folder, &text);
                false
            }
        }
    }

    fn tell(&mut self, path: &Path, text: &str) {
        if self.told.len() < FILES_MAX && self.told.insert((path.to_owned(), text.to_owned())) {
            self.troubles.push((path.to_owned(), text.to_owned()));
        }
    }

    /// A path that an entry leads to.
    fn follow(&mut self, at: usize, path: &Path, now: Instant, on: &mut dyn FnMut(Event<'_>)) {
        let Some((entry, glob)) = self.entries.get(at) else {
            return;
        };
        let key = (path.to_owned(), entry.encoding, entry.from_end);
        let literal = glob.is_literal();
        if let Some(stream) = self.keys.get(&key).and_then(|id| self.streams.get_mut(id)) {
            stream.literal |= literal;
            for owner in &entry.owners {
                if !stream.followed.owners.contains(owner) {
                    stream.followed.owners.push(*owner);
                }
            }
            return;
        }
        if self.streams.len() >= FILES_MAX {
            let glob = PathBuf::from(&entry.glob);
            return self.tell(&glob, "more files than can be followed; some are not");
        }
        self.last_id += 1;
        let id = FileId(self.last_id);
        let stream = Stream {
            followed: Followed {
                id,
                path: path.to_owned(),
                owners: entry.owners.clone(),
            },
            encoding: entry.encoding,
            from_end: entry.from_end,
            literal,
            generations: VecDeque::new(),
            found: false,
            live: false,
            queued: false,
            gone: None,
            trouble: None,
        };
        self.streams.insert(id, stream);
        self.keys.insert(key, id);
        self.by_path.entry(path.to_owned()).or_default().push(id);
        self.look(id, now, on);
    }

    /// Looks where the path of a stream leads to now. Is there something to read?
    fn look(&mut self, id: FileId, now: Instant, on: &mut dyn FnMut(Event<'_>)) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        match std::fs::metadata(&stream.followed.path) {
            Ok(meta) => {
                stream.gone = None;
                if let Some(last) = stream.generations.back_mut()
                    && last.reading.id == (meta.dev(), meta.ino())
                {
                    let stamp = (meta.size(), meta.mtime(), meta.mtime_nsec());
                    let changed = std::mem::replace(&mut last.stamp, stamp) != stamp;
                    // NFS asks its server at an open, and what overlayfs has copied up is another file under the number.
                    if changed
                        && last.watch.is_none()
                        && last.reading.file.is_some()
                        && let Ok(Some(file)) = reading::open(&stream.followed.path)
                        && position::identity(&file).is_ok_and(|id| id == last.reading.id)
                    {
                        last.reading.file = Some(file);
                    }
                    return changed || !last.reading.at_end;
                }
                self.open_new(id, now, on)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                stream.gone.get_or_insert(now);
                if !stream.generations.is_empty() {
                    self.settling.insert(id);
                } else if !stream.literal && !stream.followed.path.is_symlink() {
                    // A glob's file that went before it could be opened.
                    self.forget(id, on);
                }
                true
            }
            Err(error) => {
                self.trouble(id, Some(error.to_string()));
                false
            }
        }
    }

    /// Another file has the path of a stream.
    fn open_new(&mut self, id: FileId, now: Instant, on: &mut dyn FnMut(Event<'_>)) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        let first = !stream.found;
        let path = stream.followed.path.clone();
        let opened = reading::open(&path).and_then(|file| {
            let Some(file) = file else {
                return Ok(None);
            };
            let key = (
                path.clone(),
                stream.encoding.name().to_owned(),
                stream.from_end,
            );
            let mut readings = Vec::new();
            let mut start = Start::Beginning;
            let stored = if first {
                let same = self.stored.remove(&key);
                same.or_else(|| self.otherwise.get(&path).cloned())
            } else {
                None
            };
            let mut newest = Reading::new(file, now)?;
            if stored.is_none() && first && stream.from_end && !self.started {
                newest.go_to_end(stream.encoding)?;
                start = Start::End;
            }
            for stored in stored.unwrap_or_default() {
                let is_newest = newest.file.as_ref().is_some_and(|file| stored.is_in(file));
                let moved = if is_newest && stored.inode == newest.id.1 {
                    None
                } else {
                    stored.find_moved()
                };
                if let Some(moved) = moved {
                    let mut older = Reading::new(moved, now)?;
                    older.go_on(&stored)?;
                    readings.push(older);
                } else if is_newest {
                    newest.go_on(&stored)?;
                } else if let Some(copy) = stored.find_copy() {
                    let mut older = Reading::new(copy, now)?;
                    older.go_on(&stored)?;
                    readings.push(older);
                } else {
                    continue;
                }
                start = Start::Stored;
            }
            readings.push(newest);
            Ok(Some((readings, start)))
        });
        let (readings, start) = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return false,
            Err(error) => {
                self.trouble(id, Some(error.to_string()));
                return false;
            }
        };
        for reading in readings {
            self.add_generation(id, reading);
        }
        self.trouble(id, None);
        if self
            .streams
            .get(&id)
            .is_some_and(|stream| stream.generations.len() > GENERATIONS_LIMIT)
        {
            self.drop_generation(id);
            let text = "is rotated faster than it can be read: lines were lost".to_owned();
            self.trouble(id, Some(text));
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        stream.found = true;
        if stream.generations.len() > 1 {
            self.settling.insert(id);
        }
        let file = &stream.followed;
        if first {
            on(Event::Found { file, start });
            self.fresh.push(id);
            return false;
        }
        on(Event::Rotated { file });
        true
    }

    fn add_generation(&mut self, id: FileId, mut reading: Reading) {
        let watch = match reading
            .file
            .as_ref()
            .map(|file| self.watches.file(file, id))
        {
            Some(Ok(watch)) => watch,
            Some(Err(error)) => {
                let text = if error == Errno::ENOSPC {
                    "inotify has no watches left (raise fs.inotify.max_user_watches); looking every second".to_owned()
                } else {
                    format!("cannot be watched: {error}; looking every second")
                };
                self.tell(Path::new("/proc/sys/fs/inotify"), &text);
                None
            }
            None => None,
        };
        if self.open >= OPEN_MAX && reading.offset == 0 {
            reading.close();
        }
        self.open += usize::from(reading.file.is_some());
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.generations.push_back(Generation {
                reading,
                watch,
                stamp: (0, 0, 0),
            });
        }
    }

    fn drop_generation(&mut self, id: FileId) {
        let gone = self
            .streams
            .get_mut(&id)
            .and_then(|stream| stream.generations.pop_front());
        if let Some(Generation { reading, watch, .. }) = gone {
            self.open -= usize::from(reading.file.is_some());
            if let Some(watch) = watch {
                self.watches.drop_file(watch, id);
            }
        }
    }

    fn forget(&mut self, id: FileId, on: &mut dyn FnMut(Event<'_>)) {
        while self
            .streams
            .get(&id)
            .is_some_and(|stream| !stream.generations.is_empty())
        {
            self.drop_generation(id);
        }
        self.settling.remove(&id);
        if let Some(stream) = self.streams.remove(&id) {
            let path = &stream.followed.path;
            self.keys
                .remove(&(path.clone(), stream.encoding, stream.from_end));
            if let Some(ids) = self.by_path.get_mut(path) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.by_path.remove(path);
                }
            }
            if stream.found {
                on(Event::Gone {
                    file: &stream.followed,
                });
            }
        }
    }

    fn trouble(&mut self, id: FileId, text: Option<String>) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.trouble != text
        {
            if let Some(text) = &text {
                let path = stream.followed.path.clone();
                self.troubles.push((path, text.clone()));
            }
            stream.trouble = text;
        }
    }

    /// A chunk of each that waits, for a while.
    fn take_turns(&mut self, now: Instant, on: &mut dyn FnMut(Event<'_>)) {
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else {
                return;
            };
            self.take_turn(id, now, on);
            if now.elapsed() >= SLICE {
                return;
            }
        }
    }

    fn take_turn(&mut self, id: FileId, now: Instant, on: &mut dyn FnMut(Event<'_>)) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.queued = false;
        // Found by this very look: the caller may want to seek in it first.
        if self.fresh.contains(&id) {
            return;
        }
        let mut more = false;
        let mut trouble = None;
        let mut lost = Vec::new();
        for at in 0..stream.generations.len() {
            if !stream.may_begin(at, now) {
                break;
            }
            let last = at + 1 == stream.generations.len();
            let Some(generation) = stream.generations.get_mut(at) else {
                break;
            };
            let reading = &mut generation.reading;
            reading.begun = true;
            if reading.file.is_none() {
                match reopen(reading, &stream.followed.path, stream.encoding, last) {
                    Ok(true) => self.open += 1,
                    Ok(false) => {
                        if !last {
                            lost.push(at);
                        }
                        reading.at_end = true;
                        continue;
                    }
                    Err(error) => {
                        trouble = Some(error.to_string());
                        reading.at_end = true;
                        continue;
                    }
                }
            }
            let (followed, live) = (&stream.followed, stream.live);
            let encoding = stream.encoding.of_file(|| reading.mark());
            let scratch = &mut self.scratch;
            let turn = reading.turn(encoding, &mut self.buffer, now, |line| {
                on(Event::Line {
                    file: followed,
                    text: encoding.line(line, scratch),
                    live,
                });
            });
            match turn {
                Ok(Turn::More) => more = true,
                Ok(Turn::End) => {}
                Ok(Turn::Rewritten { same_first_line }) => {
                    on(Event::Rotated { file: followed });
                    // Its old lines once more: their own times say how old they are.
                    stream.live &= !same_first_line;
                    more = true;
                }
                Err(error) => {
                    // ESTALE and the like: the next look opens it again.
                    trouble = Some(error.to_string());
                    reading.at_end = true;
                    reading.file = None;
                    self.open -= 1;
                }
            }
            let single = stream.generations.len() == 1;
            if let Some(generation) = stream.generations.get_mut(at)
                && self.open > OPEN_MAX
                && single
                && generation.reading.at_end
                && generation.reading.close()
            {
                self.open -= 1;
            }
        }
        let all_read = !stream.generations.is_empty()
            && stream
                .generations
                .iter()
                .all(|generation| generation.reading.begun && generation.reading.at_end);
        if all_read && !more && !std::mem::replace(&mut stream.live, true) {
            on(Event::ReachedEnd {
                file: &stream.followed,
            });
        }
        if trouble.is_some() {
            self.trouble(id, trouble);
        }
        self.settle(id, now, on);
        if more {
            self.queue(id);
        }
    }

    /// Lets go of generations that are done.
    fn settle(&mut self, id: FileId, now: Instant, on: &mut dyn FnMut(Event<'_>)) {
        loop {
            let Some(stream) = self.streams.get(&id) else {
                return;
            };
            let gone = stream
                .gone
                .is_some_and(|gone| now.duration_since(gone) >= LINGER);
            let Some(front) = stream.generations.front() else {
                self.settling.remove(&id);
                if gone && !stream.literal && !stream.followed.path.is_symlink() {
                    self.forget(id, on);
                }
                return;
            };
            let next = stream.generations.get(1);
            if next.is_none() && stream.gone.is_none() {
                self.settling.remove(&id);
                return;
            }
            let quiet = now.duration_since(front.reading.grown) >= LINGER;
            let done = match next {
                Some(next) => {
                    next.reading.begun
                        && (front.reading.file.is_none()
                            || stream.generations.len() > GENERATIONS_MAX
                            || (quiet && now.duration_since(next.reading.found) >= LINGER))
                }
                None => gone && (quiet || front.reading.file.is_none()),
            };
            if !(done && front.reading.at_end) {
                return;
            }
            self.drop_generation(id);
        }
    }
}

impl Stream {
    fn is_polled(&self) -> bool {
        self.generations.is_empty()
            || self
                .generations
                .iter()
                .any(|generation| generation.watch.is_none())
    }

    /// May the generation `at` be read, or does an older one come first?
    fn may_begin(&self, at: usize, now: Instant) -> bool {
        let Some(this) = self.generations.get(at).map(|this| &this.reading) else {
            return false;
        };
        if this.begun {
            return true;
        }
        let Some(older) = at
            .checked_sub(1)
            .and_then(|at| self.generations.get(at))
            .map(|older| &older.reading)
        else {
            return true;
        };
        let crowded = self.generations.len() > GENERATIONS_MAX;
        let quiet = now.duration_since(older.grown.max(this.found)) >= QUIET;
        (older.at_end && (quiet || crowded)) || now.duration_since(this.found) >= AT_LAST
    }
}

/// Opens what was closed for a while, under the name it has now. Is it still there?
fn reopen(reading: &mut Reading, path: &Path, encoding: Encoding, last: bool) -> io::Result<bool> {
    let here = match reading::open(path) {
        Ok(here) => here,
        Err(error) if last => return Err(error),
        Err(_) => None,
    };
    reading.file = match here {
        Some(file) if position::identity(&file).is_ok_and(|id| id == reading.id) => Some(file),
        _ => reading.position(path, encoding, false).find_moved(),
    };
    Ok(reading.file.is_some())
}
