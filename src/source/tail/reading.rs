//! One file that is read as it grows: a chunk to whole lines, and where the next one begins.
//!
//! Nothing of an unfinished line is kept; it is read again when there is more of it. So a file costs some hundred bytes,
//! and a position is always where a line begins. The bytes before the position are compared at every read: a file that
//! was truncated and written anew is found out whatever its size, and without a race between looking and reading.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use nix::fcntl::OFlag;

use super::encoding::Encoding;
use super::position::{BEFORE_BYTES, Position, first_line, hash, identity};
use crate::frame::LINE_MAX_BYTES;

/// Bytes read in one go.
const CHUNK_BYTES: usize = 64 * 1024;
/// For the longest line and what stands before it.
pub(super) const BUFFER_BYTES: usize = BEFORE_BYTES + LINE_MAX_BYTES + CHUNK_BYTES;
/// Undated lines that a search looks at in one place, bytes.
const PROBE_BYTES: u64 = 256 * 1024;

/// One generation of a log.
#[derive(Debug)]
pub(super) struct Reading {
    /// st_dev and st_ino.
    pub(super) id: (u64, u64),
    /// `None`: closed for a while, since too many are open.
    pub(super) file: Option<File>,
    pub(super) offset: u64,
    /// Inside of a line that is too long.
    pub(super) in_line: bool,
    before: Before,
    first_line: Option<u64>,
    /// Nothing more was there at the last look, but for an unfinished line.
    pub(super) at_end: bool,
    /// It may be read: what came before it has been.
    pub(super) begun: bool,
    pub(super) found: Instant,
    pub(super) grown: Instant,
}

/// The last bytes that were handed out.
#[derive(Debug, Default)]
struct Before {
    bytes: Vec<u8>,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is more.
    More,
    /// For now there is not.
    End,
    /// What was read is not there any more: begun again.
    Rewritten {
        /// The first line is still the old one: rather cut or edited than rotated.
        same_first_line: bool,
    },
}

/// Opens a regular file; `None`: there is none.
///
/// # Errors
/// Of open(2), and for what is no regular file: a FIFO would wait, a device may do anything.
pub(super) fn open(path: &Path) -> io::Result<Option<File>> {
    let meta = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    refuse(&meta)?;
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    // It may have been replaced between the two.
    refuse(&file.metadata()?)?;
    Ok(Some(file))
}

fn refuse(meta: &std::fs::Metadata) -> io::Result<()> {
    let kind = meta.file_type();
    let name = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a folder; write a glob of the files in it, as in FOLDER/*.log"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(io::Error::other(format!(
        "is no regular file but {name}; not followed"
    )))
}

impl Reading {
    pub(super) fn new(file: File, now: Instant) -> io::Result<Self> {
        Ok(Self {
            id: identity(&file)?,
            file: Some(file),
            offset: 0,
            in_line: false,
            before: Before::default(),
            first_line: None,
            at_end: false,
            begun: false,
            found: now,
            grown: now,
        })
    }

    /// Closes it for a while, if it was open; it is known again by its first line.
    pub(super) fn close(&mut self) -> bool {
        if let Some(file) = self.file.take() {
            self.first_line = first_line(&file).ok().or(self.first_line);
            return true;
        }
        false
    }

    /// The first bytes, where a byte order mark may be.
    pub(super) fn mark(&self) -> [u8; 2] {
        let mut mark = [0; 2];
        match &self.file {
            Some(file) if file.read_exact_at(&mut mark, 0).is_ok() => mark,
            _ => [0; 2],
        }
    }

    /// Goes on where it had been left.
    pub(super) fn go_on(&mut self, position: &Position) -> io::Result<()> {
        self.go_to(position.offset)?;
        self.in_line = position.in_line;
        Ok(())
    }

    /// Goes to the end. What is there of an unfinished line is passed over with the rest of it.
    pub(super) fn go_to_end(&mut self, encoding: Encoding) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let unit = encoding.unit() as u64;
        let size = file.metadata()?.size() / unit * unit;
        self.go_to(size)?;
        let unit = encoding.unit();
        let last = self.before.bytes.len().saturating_sub(unit);
        let last = self.before.bytes.get(last..).unwrap_or_default();
        self.in_line = !last.is_empty() && encoding.newline(last).is_none();
        Ok(())
    }

    fn go_to(&mut self, offset: u64) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let from = offset.saturating_sub(BEFORE_BYTES as u64);
        let mut bytes = vec![0; usize::try_from(offset - from).unwrap_or(BEFORE_BYTES)];
        file.read_exact_at(&mut bytes, from)?;
        self.first_line = first_line(file).ok();
        self.before.bytes = bytes;
        self.offset = offset;
        self.in_line = false;
        self.at_end = false;
        Ok(())
    }

    /// Reads a chunk and hands its lines, without their ends, to `take`.
    pub(super) fn turn(
        &mut self,
        encoding: Encoding,
        buffer: &mut [u8],
        now: Instant,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<Turn> {
        let Some(file) = &self.file else {
            self.at_end = true;
            return Ok(Turn::End);
        };
        let back = self.before.bytes.len();
        let from = self.offset - back as u64;
        let mut want = back + CHUNK_BYTES;
        let mut got = read_at(file, buffer.get_mut(..want).unwrap_or_default(), from)?;
        let seen = buffer.get(..got).unwrap_or_default();
        if seen.get(..back) != Some(&self.before.bytes) {
            return self.begin_again();
        }
        let fresh = seen.get(back..).unwrap_or_default();
        if got == want && encoding.newline(fresh).is_none() {
            want = buffer.len();
            let more = buffer.get_mut(got..).unwrap_or_default();
            got += read_at(file, more, from + got as u64)?;
        }
        let seen = buffer.get(..got).unwrap_or_default();
        let fresh = seen.get(back..).unwrap_or_default();
        let used = cut(encoding, fresh, &mut self.in_line, &mut take);
        if used > 0 {
            self.offset += used as u64;
            self.grown = now;
            let end = back + used;
            let last = seen.get(end.saturating_sub(BEFORE_BYTES)..end);
            self.before.bytes.clear();
            self.before
                .bytes
                .extend_from_slice(last.unwrap_or_default());
        }
        if from == 0 && used > 0 {
            self.first_line = first_line(file).ok();
        }
        self.at_end = got < want;
        Ok(if self.at_end { Turn::End } else { Turn::More })
    }

    fn begin_again(&mut self) -> io::Result<Turn> {
        let now_first = match &self.file {
            Some(file) if file.metadata()?.size() > 0 => first_line(file).ok(),
            _ => None,
        };
        let same_first_line = now_first.is_some() && now_first == self.first_line;
        self.offset = 0;
        self.in_line = false;
        self.at_end = false;
        self.before.bytes.clear();
        self.first_line = None;
        Ok(Turn::Rewritten { same_first_line })
    }

    /// How far it was read.
    pub(super) fn position(&self, path: &Path, encoding: Encoding, from_end: bool) -> Position {
        Position {
            path: path.to_owned(),
            encoding: encoding.name().to_owned(),
            from_end,
            device: self.id.0,
            inode: self.id.1,
            offset: self.offset,
            in_line: self.in_line,
            first_line: self
                .file
                .as_ref()
                .and_then(|file| first_line(file).ok())
                .or(self.first_line)
                .unwrap_or_else(|| hash(b"")),
            before: hash(&self.before.bytes),
        }
    }

    /// Goes to the first line that is not older than `since`, by halving. `time` of a line: `None` has no date. Undated
    /// lines belong to the dated one before them.
    pub(super) fn seek(
        &mut self,
        encoding: Encoding,
        buffer: &mut [u8],
        since: f64,
        time: &mut dyn FnMut(&str) -> Option<f64>,
    ) -> io::Result<u64> {
        let Some(file) = &self.file else {
            return Ok(self.offset);
        };
        let encoding = encoding.of_file(|| self.mark());
        let mut scratch = String::new();
        let mut dated = |line: &[u8]| time(encoding.line(line, &mut scratch));
        // Every dated line before `low` is too old; at `high` begins none that is.
        let (mut low, mut high) = (0, file.metadata()?.size());
        while high > low {
            let middle = low + (high - low) / 2;
            match first_dated(file, encoding, buffer, middle, high, &mut dated)? {
                Some((_, end, at)) if at < since => low = end,
                Some(_) => high = middle,
                // No date up to `high`: nothing to learn on the right of the middle.
                None => high = middle,
            }
        }
        // `low` is where the last line that is too old ends.
        let size = file.metadata()?.size();
        let start = match first_dated(file, encoding, buffer, low, size, &mut dated)? {
            Some((start, _, at)) if at >= since => start,
            _ => low,
        };
        self.go_to(start)?;
        Ok(start)
    }
}

/// Hands out the lines of `bytes` and says how many bytes that was. One of more than [`LINE_MAX_BYTES`] is left out: whoever
/// wrote it chose where its head ends, and so what an expression's `$`, or the last address in it, would be.
fn cut(
    encoding: Encoding,
    bytes: &[u8],
    in_line: &mut bool,
    take: &mut impl FnMut(&[u8]),
) -> usize {
    let unit = encoding.unit();
    let mut rest = bytes;
    loop {
        // The hole that copytruncate leaves before what a writer without O_APPEND goes on with.
        while let ([0, after @ ..], 1, false) = (rest, unit, *in_line) {
            rest = after;
        }
        if let Some(end) = encoding.newline(rest) {
            if !std::mem::take(in_line) && end <= LINE_MAX_BYTES {
                take(rest.get(..end).unwrap_or_default());
            }
            rest = rest.get(end + unit..).unwrap_or_default();
            continue;
        }
        let whole_units = rest.len() / unit * unit;
        if !*in_line && whole_units > LINE_MAX_BYTES {
            *in_line = true;
        }
        if *in_line {
            rest = rest.get(whole_units..).unwrap_or_default();
        }
        return bytes.len() - rest.len();
    }
}

/// The first dated line that begins at or behind `from` and before `until`: where it begins and ends, and its time.
fn first_dated(
    file: &File,
    encoding: Encoding,
    buffer: &mut [u8],
    from: u64,
    until: u64,
    dated: &mut dyn FnMut(&[u8]) -> Option<f64>,
) -> io::Result<Option<(u64, u64, f64)>> {
    let unit = encoding.unit();
    let mut at = from / unit as u64 * unit as u64;
    let stop = until.min(from + PROBE_BYTES);
    // A line that begins just here is one: so look from the unit before.
    let mut in_line = at > 0;
    if in_line {
        at -= unit as u64;
    }
    while at < stop {
        let got = read_at(file, buffer, at)?;
        let mut rest = buffer.get(..got).unwrap_or_default();
        let mut moved = false;
        while let Some(end) = encoding.newline(rest) {
            let line = rest.get(..end).unwrap_or_default();
            let next = at + (end + unit) as u64;
            if !std::mem::take(&mut in_line) {
                if at >= stop {
                    return Ok(None);
                }
                if let Some(time) = dated(line.get(..LINE_MAX_BYTES).unwrap_or(line)) {
                    return Ok(Some((at, next, time)));
                }
            }
            rest = rest.get(end + unit..).unwrap_or_default();
            at = next;
            moved = true;
        }
        if got < buffer.len() {
            break;
        }
        if !moved {
            at += got as u64;
            in_line = true;
        }
    }
    Ok(None)
}

fn read_at(file: &File, buffer: &mut [u8], from: u64) -> io::Result<usize> {
    let mut got = 0;
    while let Some(room) = buffer.get_mut(got..).filter(|room| !room.is_empty()) {
        match file.read_at(room, from + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
