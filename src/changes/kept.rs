//! The file of changes in the runtime directory: what every process goes by, and how it notices that there is something new.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Change;

/// The version of what follows.
const VERSION: u32 = 1;
/// A larger file is none of ours: ten thousand changes have room.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What is kept until the next reload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    version: u32,
    /// One more with every change and every reload.
    pub(super) generation: u64,
    /// One more with every reload.
    pub(super) reloads: u64,
    /// What our own files said at the last one ([`crate::config::fingerprint`]); 0: not known.
    #[serde(default)]
    pub(super) text: u64,
    /// In their order.
    pub(super) changes: Vec<Change>,
}

impl Kept {
    /// What the file says; nothing, if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is of another version.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut text)?;
        let kept: Self = serde_json::from_slice(&text)?;
        match kept.version {
            VERSION => Ok(kept),
            other => Err(io::Error::other(format!(
                "version {other} of another f2b-pipe, and this one writes {VERSION}; f2b-pipe reload makes it anew"
            ))),
        }
    }

    /// Written beside and renamed: whoever reads sees the old or the new.
    ///
    /// # Errors
    /// It cannot be; nothing has changed.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let kept = Self {
            version: VERSION,
            ..self.clone()
        };
        let text = serde_json::to_vec(&kept)?;
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let beside = path.with_extension("changes.new");
        let mut options = fs::OpenOptions::new();
        // Expressions may be nobody's business.
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&beside)?;
        file.write_all(&text)?;
        drop(file);
        fs::rename(&beside, path)
    }
}
