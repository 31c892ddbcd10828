//! How far a file has been read, in a form that outlives us: known again by what it holds, not by its name.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Bytes before the position that must still be the same.
pub(super) const BEFORE_BYTES: usize = 64;
/// Bytes of the first line that are hashed.
const FIRST_LINE_BYTES: usize = 512;
/// Names that are opened in search of a copy.
const COPIES_MAX: usize = 16;

/// How far a file has been read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// As it is followed.
    pub path: PathBuf,
    /// In which encoding: two jails may read one file in two ways.
    pub encoding: String,
    /// Was it to be begun at its end?
    pub from_end: bool,
    /// st_dev of the file.
    pub device: u64,
    /// st_ino of the file.
    pub inode: u64,
    /// Bytes that were handed out.
    pub offset: u64,
    /// `offset` is inside of a line that is too long.
    #[serde(default)]
    pub in_line: bool,
    /// Hash of the first line, or of the beginning of a long one.
    pub first_line: u64,
    /// Hash of the bytes before `offset`.
    pub before: u64,
}

impl Position {
    /// Is `file` what was read, or a copy of it?
    pub(super) fn is_in(&self, file: &File) -> bool {
        let from = self.offset.saturating_sub(BEFORE_BYTES as u64);
        let mut bytes = [0; BEFORE_BYTES];
        let want = usize::try_from(self.offset - from).unwrap_or(BEFORE_BYTES);
        let Some(bytes) = bytes.get_mut(..want) else {
            return false;
        };
        file.read_exact_at(bytes, from).is_ok()
            && hash(bytes) == self.before
            && (self.says_nothing() || first_line(file).is_ok_and(|hash| hash == self.first_line))
    }

    /// The file was empty: any may be it.
    fn says_nothing(&self) -> bool {
        self.offset == 0 && self.first_line == hash(b"")
    }

    /// The file that was read, which has another name since it was rotated.
    pub(super) fn find_moved(&self) -> Option<File> {
        if self.says_nothing() {
            return None;
        }
        std::fs::read_dir(self.path.parent()?)
            .ok()?
            .flatten()
            .filter(|entry| entry.ino() == self.inode)
            .filter_map(|entry| regular(&entry.path()))
            .find(|file| self.is_in(file))
    }

    /// What was copied away before the file was truncated: `NAME.1`, `NAME-20260101`.
    pub(super) fn find_copy(&self) -> Option<File> {
        if self.says_nothing() {
            return None;
        }
        let name = self.path.file_name()?.as_encoded_bytes();
        std::fs::read_dir(self.path.parent()?)
            .ok()?
            .flatten()
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(name))
            .map(|entry| entry.path())
            .filter(|path| *path != self.path)
            .take(COPIES_MAX)
            .filter_map(|path| regular(&path))
            .find(|file| self.is_in(file))
    }
}

/// Opens `path` where it is a regular file.
fn regular(path: &Path) -> Option<File> {
    super::reading::open(path).ok().flatten()
}

pub(super) fn identity(file: &File) -> io::Result<(u64, u64)> {
    let meta = file.metadata()?;
    Ok((meta.dev(), meta.ino()))
}

pub(super) fn first_line(file: &File) -> io::Result<u64> {
    let mut bytes = [0; FIRST_LINE_BYTES];
    let got = file.read_at(&mut bytes, 0)?;
    let head = bytes.get(..got).unwrap_or_default();
    let end = memchr::memchr(b'\n', head).map_or(got, |at| at + 1);
    Ok(hash(head.get(..end).unwrap_or(head)))
}

/// FNV-1a: the same in every version of ours, since it is stored.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
