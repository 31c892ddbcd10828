//! Which logs a jail reads on this host, for people: what `logpath` and `journalmatch` come to here and now.

use std::collections::HashSet;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::config::{LineSource, Raw};
use crate::source::tail;

/// What a jail reads.
#[derive(Debug, Default)]
pub(super) struct Logs {
    /// Files that are there.
    pub(super) files: Vec<PathBuf>,
    /// Entries of logpath that no file fits yet.
    pub(super) waits_for: Vec<String>,
    /// What fits, and is no file that lines can be read from; what it is.
    pub(super) odd: Vec<(PathBuf, &'static str)>,
    /// What of the journal, as fail2ban-client writes it.
    pub(super) journal: Option<String>,
}

impl Logs {
    /// Looks.
    pub(super) fn of(raw: &Raw) -> Self {
        let mut logs = Self::default();
        if raw.counts_bans {
            return logs;
        }
        if raw.backend != LineSource::Journal {
            let mut seen = HashSet::new();
            for log in &raw.logs {
                let found = tail::expand(&log.glob);
                if found.is_empty() {
                    logs.waits_for.push(log.glob.clone());
                }
                for path in found {
                    match odd(&path) {
                        Some(what) => logs.odd.push((path, what)),
                        None if seen.contains(&path) => {}
                        None => {
                            seen.insert(path.clone());
                            logs.files.push(path);
                        }
                    }
                }
            }
        }
        if raw.backend == LineSource::Journal {
            logs.journal = Some(matches(raw));
        }
        logs
    }
}

/// `_SYSTEMD_UNIT=ssh.service + _COMM=sshd`; empty: all of it.
fn matches(raw: &Raw) -> String {
    let lines: Vec<String> = raw
        .journalmatch
        .iter()
        .map(|words| words.join(" "))
        .collect();
    lines.join(" + ")
}

/// What something is that is no regular file; a link is what it leads to.
fn odd(path: &Path) -> Option<&'static str> {
    let kind = std::fs::metadata(path).ok()?.file_type();
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_fifo() {
        Some("a FIFO")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}
