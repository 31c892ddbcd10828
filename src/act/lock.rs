//! The lock that makes one process the keeper of the chain.
//!
//! It is held for as long as the process lives; the kernel gives it back, however the process ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

/// The lock, held.
#[derive(Debug)]
pub struct Lock(Held);

#[derive(Debug)]
enum Held {
    File(Flock<File>),
    /// A name that one process of a network has at a time, where no file can be made.
    Name(#[expect(dead_code, reason = "held, not used")] UnixDatagram),
}

/// Takes the lock without a file, for where none can be made (a /run that is read-only, say), or `None` if another process
/// has it. Any user could have the name before, which costs no more than a keeper; so only for need.
///
/// # Errors
/// The path is longer than a name may be (107 bytes).
pub fn try_name(path: &Path) -> io::Result<Option<Lock>> {
    let name = SocketAddr::from_abstract_name(path.as_os_str().as_encoded_bytes())?;
    match UnixDatagram::bind_addr(&name) {
        Ok(socket) => Ok(Some(Lock(Held::Name(socket)))),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the lock, or `None` if another process has it.
///
/// # Errors
/// The file cannot be made or locked.
pub fn try_lock(path: &Path) -> io::Result<Option<Lock>> {
    // Twice is enough: a file that is exchanged all the time is not a lock.
    for _ in 0..2 {
        let (file, written) = open(path)?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        // Somebody may have taken the file away between open and lock (systemd does that to a RuntimeDirectory=); then the
        // next one makes a new file and locks that, too.
        let ours = file.metadata()?;
        match std::fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
                if written {
                    file.set_len(0)?;
                    writeln!(file, "{}", std::process::id())?;
                }
                return Ok(Some(Lock(Held::File(file))));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The file, made if it is not there, and whether it can be written: of a folder that came after this process began it may
/// be that it is only read ([`crate::privilege`]), and read is enough to lock it.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .mode(0o600);
    match options.clone().write(true).create(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            options.open(path).map(|file| (file, false))
        }
        opened => opened.map(|file| (file, true)),
    }
}

impl Lock {
    /// Is it one without a file?
    #[must_use]
    pub fn is_name(&self) -> bool {
        matches!(self.0, Held::Name(_))
    }

    /// Whether the file at `path` is still the one that is locked. One by name is to be taken anew each time: there may be a
    /// file by now.
    #[must_use]
    pub fn holds(&self, path: &Path) -> bool {
        let Held::File(file) = &self.0 else {
            return false;
        };
        match (file.metadata(), std::fs::metadata(path)) {
            (Ok(ours), Ok(there)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_has_it_and_a_deletedfile_is_no_lock() {
        let dir = std::env::temp_dir().join(format!("f2b-pipe-lock-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("lock");
        let first = try_lock(&path).unwrap().unwrap();
        assert!(try_lock(&path).unwrap().is_none());
        assert!(first.holds(&path));
        std::fs::remove_file(&path).unwrap();
        assert!(!first.holds(&path));
        let second = try_lock(&path).unwrap().unwrap();
        drop(first);
        assert!(try_lock(&path).unwrap().is_none());
        drop(second);
        assert!(try_lock(&path).unwrap().is_some());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn without_a_file_the_name_is_the_lock() {
        let path = std::env::temp_dir().join(format!("f2b-pipe-name-{}", std::process::id()));
        let first = try_name(&path).unwrap().unwrap();
        assert!(try_name(&path).unwrap().is_none());
        assert!(!path.exists());
        drop(first);
        assert!(try_name(&path).unwrap().is_some());
    }
}
