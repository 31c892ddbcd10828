//! httpd's pipe.
//!
//! Out: a chunk of whole lines at a time, and whether they can be believed. With a tee the bytes are looked at with
//! tee(2) first and taken out of the pipe only when they stand in the log: httpd's parent keeps the pipe over our death,
//! so a SIGKILL can repeat lines, but never lose one. Without a tee (or where stdin is no pipe) they are simply read.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice, tee};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::frame::Trust;
use crate::sys::waiting;

/// Bytes read in one go, as many as the pipe holds: each time a writer is woken that waits for room.
pub const CHUNK_BYTES: usize = 1 << 20;
/// The same with a tee, whose write would find the first of more in no cache any more.
const PEEKED_BYTES: usize = CHUNK_BYTES / 2;
/// The pipe we ask for; more than /proc/sys/fs/pipe-max-size (this, by default) needs CAP_SYS_RESOURCE.
const PIPE_BYTES: i32 = 1 << 20;
/// How long a tear's tail may lag behind its head: it comes when its writer runs again.
const DOUBT: Duration = Duration::from_secs(2);
/// A pipe with less than half its capacity in it has a free page: neighbouring pages hold more than one page's worth
/// together, or they would have been merged (pipe_write, fs/pipe.c). Two pages of margin for the one we took half of
/// and the one being filled.
const MARGIN_BYTES: usize = 2 * 4096;

/// How a chunk came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes of the buffer that are whole lines; or a piece of a line that is longer than the buffer or the pipe.
    pub lines: usize,
    /// Bytes behind them that must stand at the beginning of the buffer at the next read.
    pub begun: usize,
    /// Can the lines be believed?
    pub trust: Trust,
    /// Nothing will follow: `lines` is all that is left.
    pub end: bool,
}

/// Why `wait` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Bytes, or the end.
    Readable,
    /// A signal came.
    Signal,
    /// What was to be waited for beside has something to say, or has ended.
    Beside,
    /// None of these, in time.
    Timeout,
}

/// The source.
#[derive(Debug)]
pub struct Stdin {
    fd: OwnedFd,
    kind: Kind,
    single_writer: bool,
    doubt_until: Option<Instant>,
    /// Of the pipe when what is in it now was written.
    capacity: usize,
    enlarged: usize,
    /// The beginning of a line that was seen and not taken, bytes.
    tail: usize,
    stalled: u32,
}

#[derive(Debug)]
enum Kind {
    /// Looked at through the second pipe, and taken by a splice to /dev/null.
    Peeked {
        scratch: (File, OwnedFd),
        null: File,
    },
    /// Read; what is behind the last newline is kept in the buffer.
    Read,
}

impl Stdin {
    /// Takes over fd 0. `keep_until_written`: for a tee.
    ///
    /// # Errors
    /// fd 0 is closed.
    pub fn open(keep_until_written: bool, single_writer: bool) -> io::Result<Self> {
        let fd = io::stdin().as_fd().try_clone_to_owned()?;
        Self::new(fd, keep_until_written, single_writer)
    }

    fn new(fd: OwnedFd, keep_until_written: bool, single_writer: bool) -> io::Result<Self> {
        let before = pipe_size(fd.as_fd());
        let (mut kind, mut capacity, mut enlarged) = (Kind::Read, usize::MAX, usize::MAX);
        // Only a pipe tears lines.
        let single_writer = single_writer || before.is_none();
        let mut doubt_until = None;
        if let Some(before) = before {
            // Refused (EPERM) when the user's pipes are many already: a smaller pipe works, too.
            let asked = fcntl(&fd, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).ok();
            enlarged = pipe_size(fd.as_fd()).unwrap_or(before);
            capacity = before;
            if keep_until_written {
                kind = Self::scratch(enlarged).unwrap_or(Kind::Read);
            }
            // Found enlarged: an earlier process of ours died on this pipe, which may have been full since. Where it may
            // not be enlarged nobody can tell.
            if asked.is_none() || before == enlarged {
                doubt_until = Some(Instant::now() + DOUBT);
            }
        }
        Ok(Self {
            fd,
            kind,
            single_writer,
            doubt_until,
            capacity,
            enlarged,
            tail: 0,
            stalled: 0,
        })
    }

    fn scratch(size: usize) -> Option<Kind> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).ok()?;
        fcntl(&write, FcntlArg::F_SETPIPE_SZ(i32::try_from(size).ok()?)).ok();
        // Refused when the user's pipes are many (pipe-user-pages-soft). A line that does not fit into a smaller scratch
        // would never be seen whole: better to read, and to lose what is in hand at a SIGKILL.
        if pipe_size(write.as_fd())? < size {
            return None;
        }
        let null = File::options().write(true).open("/dev/null").ok()?;
        Some(Kind::Peeked {
            scratch: (read.into(), write),
            null,
        })
    }

    /// How much [`read`](Self::read) wants room for.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        match self.kind {
            Kind::Peeked { .. } => PEEKED_BYTES,
            Kind::Read => CHUNK_BYTES,
        }
    }

    /// Is a chunk taken away only by [`take`](Self::take)?
    #[must_use]
    pub fn is_kept_until_taken(&self) -> bool {
        matches!(self.kind, Kind::Peeked { .. })
    }

    /// Waits for bytes, a signal (`signals` is readable), `beside` (for bytes on it, or only for its end), or `timeout`.
    ///
    /// # Errors
    /// Of poll(2).
    pub fn wait(
        &mut self,
        signals: BorrowedFd<'_>,
        beside: Option<(BorrowedFd<'_>, bool)>,
        timeout: Option<Duration>,
    ) -> io::Result<Woken> {
        // The beginning of a line that stays in the pipe would wake us for ever: look again a little later each time.
        if self.stalled > 0 {
            std::thread::sleep(Duration::from_millis(1 << self.stalled.min(4)));
        }
        let timeout = match timeout {
            Some(timeout) => PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        let (beside, reads) = match beside {
            Some((fd, true)) => (fd, PollFlags::POLLIN),
            Some((fd, false)) => (fd, PollFlags::empty()),
            None => (signals, PollFlags::empty()),
        };
        let mut fds = [
            PollFd::new(self.fd.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals, PollFlags::POLLIN),
            PollFd::new(beside, reads),
        ];
        match poll(&mut fds, timeout) {
            Ok(0) => return Ok(Woken::Timeout),
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Woken::Signal),
            Err(error) => return Err(error.into()),
        }
        let [stdin, signal, _] = &fds;
        Ok(if stdin.any().unwrap_or(true) {
            Woken::Readable
        } else if signal.any().unwrap_or(true) {
            Woken::Signal
        } else {
            Woken::Beside
        })
    }

    /// Fills `buffer` (of [`chunk_bytes`](Self::chunk_bytes)) with what is there. `kept`: bytes at its beginning that an
    /// earlier chunk left behind its lines; a pipe that is only looked at shows them again, and `kept` is 0.
    ///
    /// # Errors
    /// Of the pipe. The end is not an error.
    pub fn read(&mut self, buffer: &mut [u8], kept: usize) -> io::Result<Chunk> {
        let (got, more) = self.fill(buffer, kept)?;
        let trust = self.trust(got);
        let seen = buffer.get(..got).unwrap_or_default();
        let lines = memchr::memrchr(b'\n', seen).map_or(0, |at| at + 1);
        // A line that fills the buffer or the pipe is passed on in pieces, or nobody could write the rest of it.
        let stuffed = got == buffer.len()
            || got + MARGIN_BYTES >= self.enlarged / 2
            || (lines == 0
                && self.is_kept_until_taken()
                && waiting(&self.fd).is_ok_and(|all| all > got));
        let lines = if !more || (lines == 0 && stuffed) {
            got
        } else {
            lines
        };
        self.tail = got - lines;
        self.stalled = if lines == 0 && more && self.is_kept_until_taken() {
            self.stalled + 1
        } else {
            0
        };
        let begun = if self.is_kept_until_taken() {
            0
        } else {
            self.tail
        };
        Ok(Chunk {
            lines,
            begun,
            trust,
            end: !more,
        })
    }

    /// Bytes in `buffer`, and whether more can come.
    fn fill(&mut self, buffer: &mut [u8], kept: usize) -> io::Result<(usize, bool)> {
        match &self.kind {
            Kind::Read => {
                let room = buffer.get_mut(kept..).unwrap_or_default();
                let got = loop {
                    match nix::unistd::read(&self.fd, room) {
                        Err(Errno::EINTR) => {}
                        other => break other?,
                    }
                };
                Ok((kept + got, got > 0))
            }
            Kind::Peeked {
                scratch: (scratch_out, scratch_in),
                ..
            } => {
                let seen = match tee(
                    &self.fd,
                    scratch_in,
                    buffer.len(),
                    SpliceFFlags::SPLICE_F_NONBLOCK,
                ) {
                    Ok(seen) => seen,
                    // Nothing there after all.
                    Err(Errno::EAGAIN | Errno::EINTR) => return Ok((0, true)),
                    Err(error) => return Err(error.into()),
                };
                let mut out: &File = scratch_out;
                out.read_exact(buffer.get_mut(..seen).unwrap_or_default())?;
                // tee(2) says 0 at the end only when nothing is left; a last line without a newline is left.
                let grown = seen > self.tail || seen == buffer.len();
                // The last writer may have finished its line just before it went.
                let more =
                    grown || !self.is_hung_up()? || waiting(&self.fd).is_ok_and(|all| all > seen);
                Ok((seen, more))
            }
        }
    }

    fn is_hung_up(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO)?;
        let [stdin] = &fds;
        Ok(stdin
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLHUP)))
    }

    /// Whole, unless the pipe may have been full since it was read last. It only fills between two reads, so what it held
    /// just now is the most it held since then; [`take`](Self::take) looks at what comes between look and take.
    fn trust(&mut self, got: usize) -> Trust {
        if self.single_writer {
            return Trust::Whole;
        }
        let left = waiting(&self.fd).unwrap_or(usize::MAX);
        let held = if self.is_kept_until_taken() {
            left.max(got)
        } else {
            left.saturating_add(got)
        };
        let full = held.saturating_add(MARGIN_BYTES) >= self.capacity / 2;
        self.capacity = self.enlarged;
        if full {
            self.doubt_until = Some(Instant::now() + DOUBT);
        }
        match self.doubt_until {
            Some(until) if Instant::now() < until => Trust::Doubtful,
            Some(_) => {
                self.doubt_until = None;
                Trust::Whole
            }
            None => Trust::Whole,
        }
    }

    /// Takes `bytes` that were looked at out of the pipe.
    ///
    /// # Errors
    /// Of the pipe: the bytes will be seen again.
    pub fn take(&mut self, bytes: usize) -> io::Result<()> {
        let Kind::Peeked { null, .. } = &self.kind else {
            return Ok(());
        };
        // It went on filling since it was looked at: a slow disk may have taken half a second.
        if waiting(&self.fd)
            .unwrap_or(usize::MAX)
            .saturating_add(MARGIN_BYTES)
            >= self.capacity / 2
        {
            self.doubt_until = Some(Instant::now() + DOUBT);
        }
        let mut left = bytes;
        while left > 0 {
            match splice(&self.fd, None, null, None, left, SpliceFFlags::empty()) {
                Ok(0) => break,
                Ok(taken) => left -= taken.min(left),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn pipe_size(fd: BorrowedFd<'_>) -> Option<usize> {
    fcntl(fd, FcntlArg::F_GETPIPE_SZ)
        .ok()
        .and_then(|size| usize::try_from(size).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn pipe(kept: bool, single: bool) -> (Stdin, File) {
        let (read, write) = nix::unistd::pipe().unwrap();
        (Stdin::new(read, kept, single).unwrap(), write.into())
    }

    #[test]
    fn a_begun_line_waits_and_an_unfinished_last_one_is_handed_on() {
        for kept in [true, false] {
            let (mut stdin, mut write) = pipe(kept, false);
            let mut buffer = vec![0; stdin.chunk_bytes()];
            let mut begun = 0;
            let mut lines = Vec::new();
            let mut step = |stdin: &mut Stdin| {
                let chunk = stdin.read(&mut buffer, begun).unwrap();
                lines.extend_from_slice(&buffer[..chunk.lines]);
                stdin.take(chunk.lines).unwrap();
                buffer.copy_within(chunk.lines..chunk.lines + chunk.begun, 0);
                begun = chunk.begun;
                chunk
            };
            write.write_all(b"one\ntw").unwrap();
            assert_eq!(step(&mut stdin).lines, 4);
            write.write_all(b"o\nthr").unwrap();
            assert_eq!(step(&mut stdin).lines, 4);
            if kept {
                let again = Chunk {
                    lines: 0,
                    begun: 0,
                    trust: Trust::Whole,
                    end: false,
                };
                assert_eq!(step(&mut stdin), again);
            }
            drop(write);
            while !step(&mut stdin).end {}
            assert_eq!(lines, b"one\ntwo\nthr");
        }
    }

    fn seen(stdin: &mut Stdin) -> (Chunk, Vec<u8>) {
        let mut buffer = vec![0; stdin.chunk_bytes()];
        let chunk = stdin.read(&mut buffer, 0).unwrap();
        buffer.truncate(chunk.lines);
        (chunk, buffer)
    }

    #[test]
    fn a_pipe_that_may_have_been_full_is_doubtful() {
        for (bytes, single, trust) in [
            (100_000, false, Trust::Doubtful), // more than half of the 64 KiB it had
            (10_000, false, Trust::Whole),
            (60_000, true, Trust::Whole),
        ] {
            let (read, write) = nix::unistd::pipe().unwrap();
            let mut write = File::from(write);
            let size = usize::try_from(fcntl(&read, FcntlArg::F_GETPIPE_SZ).unwrap()).unwrap();
            write.write_all(&vec![b'\n'; bytes.min(size)]).unwrap();
            let mut stdin = Stdin::new(read, false, single).unwrap();
            assert_eq!(seen(&mut stdin).0.trust, trust, "{bytes}");
        }
    }

    #[test]
    fn a_pipe_found_enlarged_is_doubtful_at_first() {
        let (read, write) = nix::unistd::pipe().unwrap();
        fcntl(&read, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).unwrap();
        File::from(write).write_all(b"a\n").unwrap();
        let mut stdin = Stdin::new(read, true, false).unwrap();
        assert_eq!(seen(&mut stdin).0.trust, Trust::Doubtful);
    }

    #[test]
    fn a_pipe_that_fills_between_look_and_take_is_doubtful_afterwards() {
        let (mut stdin, mut write) = pipe(true, false);
        write.write_all(b"one\n").unwrap();
        assert_eq!(seen(&mut stdin).0.trust, Trust::Whole);
        let half = vec![b'\n'; stdin.enlarged / 2];
        let behind = std::thread::spawn(move || write.write_all(&half).map(|()| write));
        let mut write = behind.join().unwrap().unwrap();
        stdin.take(4 + stdin.enlarged / 2).unwrap();
        write.write_all(b"two\n").unwrap();
        assert_eq!(seen(&mut stdin).0.trust, Trust::Doubtful);
    }

    #[test]
    fn what_is_not_taken_is_seen_again() {
        let (mut stdin, mut write) = pipe(true, false);
        write.write_all(b"one\ntwo\n").unwrap();
        for _ in 0..3 {
            assert_eq!(seen(&mut stdin).0.lines, 8);
        }
        stdin.take(4).unwrap();
        assert_eq!(seen(&mut stdin).1, b"two\n");
    }
}
