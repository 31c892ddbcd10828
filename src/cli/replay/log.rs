//! An old log: opened, unpacked if gzip packed it, and the names by which a jail may know it.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;

use crate::cli::Failure;

/// How much of a file is read at once, bytes.
const CHUNK_BYTES: usize = 256 * 1024;
/// How a file begins that gzip wrote (RFC 1952).
const GZIP: &[u8] = &[0x1f, 0x8b];

/// A log, opened.
pub(in crate::cli) struct Log {
    /// As it was given.
    pub(in crate::cli) name: String,
    pub(in crate::cli) input: BufReader<Box<dyn Read>>,
    /// Where it is, and where it was before it was rotated; none of stdin.
    pub(super) paths: Vec<PathBuf>,
    /// Its size, bytes; 0: not known.
    pub(in crate::cli) size: u64,
    /// Of these so many were read.
    pub(in crate::cli) read: Rc<Cell<u64>>,
}

/// What is read, and how much of it so far: packed logs are as long as they are on the disk.
struct Counted {
    file: File,
    read: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let many = self.file.read(room)?;
        self.read.set(self.read.get() + many as u64);
        Ok(many)
    }
}

impl Log {
    /// # Errors
    /// It cannot be read.
    pub(in crate::cli) fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let is_stdin = name == "-";
        let read = Rc::new(Cell::new(0));
        let mut size = 0;
        let opened: io::Result<Box<dyn Read>> = if is_stdin {
            Ok(Box::new(io::stdin()))
        } else {
            File::open(path).map(|file| {
                size = file.metadata().map_or(0, |about| about.len());
                let read = Rc::clone(&read);
                Box::new(Counted { file, read }) as Box<dyn Read>
            })
        };
        let mut input = opened
            .map(|input| BufReader::with_capacity(CHUNK_BYTES, input))
            .map_err(|error| unreadable(&name, &error))?;
        let begin = input
            .fill_buf()
            .map_err(|error| unreadable(&name, &error))?;
        if begin.starts_with(GZIP) {
            // Rotated logs that were put together have several members.
            let unpacked: Box<dyn Read> = Box::new(MultiGzDecoder::new(input));
            input = BufReader::with_capacity(CHUNK_BYTES, unpacked);
        }
        let paths = if is_stdin { Vec::new() } else { paths(path) };
        Ok(Self {
            name,
            input,
            paths,
            size,
            read,
        })
    }
}

pub(in crate::cli) fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::Usage(format!("{name}: cannot be read: {error}"))
}

/// The path as given, in full, and without links, each also as it was before rotation.
fn paths(given: &Path) -> Vec<PathBuf> {
    let mut paths = vec![given.to_path_buf()];
    paths.extend(std::path::absolute(given));
    paths.extend(std::fs::canonicalize(given));
    let before: Vec<PathBuf> = paths.iter().filter_map(|path| unrotated(path)).collect();
    paths.extend(before);
    paths
}

/// `auth.log` of `auth.log.1`, `auth.log.2.gz`, `auth.log-20261101` and `auth-20261101.log` (logrotate's names).
fn unrotated(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let mut bare = name;
    for packed in [".gz", ".xz", ".bz2", ".zst"] {
        bare = bare.strip_suffix(packed).unwrap_or(bare);
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // A day, or a day and an hour.
    let is_day = |text: &str| is_number(text) && (8..=10).contains(&text.len());
    let found = if let Some((before, _)) = bare.rsplit_once('.').filter(|(_, n)| is_number(n)) {
        before.to_owned()
    } else if let Some((before, _)) = bare.rsplit_once('-').filter(|(_, day)| is_day(day)) {
        before.to_owned()
    } else if let Some((before, ending)) = bare.rsplit_once('.')
        && let Some((before, _)) = before.rsplit_once('-').filter(|(_, day)| is_day(day))
    {
        format!("{before}.{ending}")
    } else {
        bare.to_owned()
    };
    (found != name && !found.is_empty()).then(|| path.with_file_name(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_log_is_known_by_the_name_it_had() {
        for (name, before) in [
            ("/var/log/auth.log.1", Some("/var/log/auth.log")),
            ("/var/log/auth.log.2.gz", Some("/var/log/auth.log")),
            ("/var/log/auth.log-20261101", Some("/var/log/auth.log")),
            ("/var/log/auth.log-2026110113.gz", Some("/var/log/auth.log")),
            ("/var/log/auth-20261101.log", Some("/var/log/auth.log")),
            ("secure.gz", Some("secure")),
            ("/var/log/auth.log", None),
            ("site-7.log", None),
            ("/var/log/.1", None),
        ] {
            let found = unrotated(Path::new(name));
            assert_eq!(found.as_deref(), before.map(Path::new), "{name}");
        }
    }
}
