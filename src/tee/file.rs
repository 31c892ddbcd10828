//! The access log as a file: followed through rotations, shared with our other processes, and mended where one of them was
//! killed inside a write.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::privilege::helper;
use crate::silence::board;

/// How often the path is compared with the open file.
const LOOK: Duration = Duration::from_millis(250);
/// logrotate renames, then creates. Who re-creates the file at once breaks it, so write on to the old one for this long.
const ROTATION: Duration = Duration::from_secs(5);
/// For another process of ours that appends just now.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);
const LOCK_STEP: Duration = Duration::from_micros(200);

/// The file, and what we know of its end.
#[derive(Debug)]
pub(super) struct Log {
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
    /// It is opened (and created, 0640) with the first chunk. `resumed`: that may have been written in part by a process
    /// that died on this pipe.
    pub(super) fn new(path: &Path, resumed: bool) -> Self {
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
    pub(super) fn append(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.follow()?;
        // Between our processes (an old one drains beside the new one at each graceful), so that nobody takes another's
        // line in the making for a cut one. Whoever does not get the lock does not ask about the seam.
        let alone = self.file.as_ref().is_some_and(lock);
        let done = self.mend(chunk, alone).and_then(|()| self.write(chunk));
        if let Some(mut file) = self.file.as_ref() {
            // Where it ends if nobody else writes; after an error nobody knows.
            self.end = match done {
                Ok(()) => file.stream_position().unwrap_or(u64::MAX),
                Err(_) => u64::MAX,
            };
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
        // A pipe has no end.
        let size = file.seek(SeekFrom::End(0)).unwrap_or(0);
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

    /// The chunk at hand is lost: the next one begins anew.
    pub(super) fn give_up(&mut self) {
        self.offset = 0;
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

    /// It refuses.
    pub(super) fn ill(&mut self, error: &io::Error) {
        let what = match error.raw_os_error() {
            Some(nix::libc::ENOSPC | nix::libc::EDQUOT) => "make room there",
            Some(nix::libc::ENOENT) => "make that directory",
            _ => "see that it can be written",
        };
        let text = format!("{error}; {what}. Lines wait in memory (16 MiB at most), bans go on");
        board().set(&self.about(), &Err::<(), _>(text));
    }

    /// It took lines. `dropped`: of all that were ever dropped.
    pub(super) fn well(&mut self, caught_up: bool, dropped: u64) {
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
    use std::thread;

    use super::super::tests::{Dir, text};
    use super::*;

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
}
