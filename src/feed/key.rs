//! The key of distinct values: one for the host, so that the counts of several processes agree, and nobody outside knows
//! which values share a hash.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The key in the file at `path`, which is made if it is not there. Where that cannot be the key is this process's own:
/// it counts rightly by itself, and only the same value seen by another process counts twice.
#[must_use]
pub fn key(path: &Path) -> u64 {
    let own = RandomState::new().hash_one(std::process::id());
    shared(path, own).unwrap_or(own)
}

fn shared(path: &Path, own: u64) -> io::Result<u64> {
    if let Ok(key) = read(path) {
        return Ok(key);
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    // Beside it and linked, so that whoever comes at the same moment reads a whole key or none, and both use the first.
    let beside = path.with_extension(format!("key.{}", std::process::id()));
    let mut options = fs::File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(&own.to_le_bytes())?;
    let linked = fs::hard_link(&beside, path);
    fs::remove_file(&beside)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => read(path),
    }
}

fn read(path: &Path) -> io::Result<u64> {
    let bytes = fs::read(path)?;
    let key = bytes.as_slice().try_into();
    Ok(u64::from_le_bytes(
        key.map_err(|_| io::ErrorKind::InvalidData)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_ask_get_the_key_of_the_first() {
        let dir = std::env::temp_dir().join(format!("f2b-key-{}", std::process::id()));
        let path = dir.join("f2b-pipe.key");
        let first = key(&path);
        assert_eq!([key(&path), key(&path)], [first; 2]);
        fs::remove_file(&path).unwrap();
        assert_ne!(key(&path), first);
        fs::remove_dir_all(&dir).unwrap();
        // No place for a file: each has its own.
        let nowhere = Path::new("/proc/self/nowhere/f2b-pipe.key");
        assert_ne!(key(nowhere), key(nowhere));
    }
}
