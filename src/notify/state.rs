//! What `status` shows of a running process: a JSON file in the runtime directory, written every few seconds while there
//! is something new, by the thread that speaks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::judge::JailTally;

/// What one process counted since it began.
#[derive(Clone, Debug, Default, Serialize)]
pub struct State {
    /// Process id.
    pub pid: u32,
    /// Epoch seconds.
    pub started: i64,
    /// LogFormat.
    pub format: String,
    /// File of `--tee`.
    pub tee: Option<PathBuf>,
    /// Lines read.
    pub lines: u64,
    /// Lines that do not fit the format.
    pub unparsed: u64,
    /// Lines not judged because the pipe may have been full.
    pub doubtful: u64,
    /// Lines not judged because a room panicked.
    pub shed: u64,
    /// Lines that the tee lost to a full or hanging disk.
    pub tee_dropped: u64,
    /// Bytes that wait for it now.
    pub tee_waiting: u64,
    /// Clients in the table.
    pub clients: usize,
    /// Clients forgotten at the table's bound although they had hits within findtime.
    pub evicted: u64,
    /// Limits reached by clients that are never banned.
    pub spared: u64,
    /// Messages that could not be told.
    pub messages_lost: u64,
    /// The chain and the sets.
    pub act: crate::act::keeper::Health,
    /// By name.
    pub jails: BTreeMap<String, JailTally>,
}

/// A state, and where it goes.
#[derive(Debug)]
pub struct StateFile {
    /// `RuntimePaths::state`.
    pub path: PathBuf,
    /// `None`: the process ends, the file goes.
    pub state: Option<State>,
}

impl StateFile {
    /// Written beside and renamed, so that a reader sees one state or the next. Without a runtime directory there is no
    /// file: `check` says so.
    pub(crate) fn write(&self) {
        let Some(state) = &self.state else {
            drop(std::fs::remove_file(&self.path));
            return;
        };
        let Ok(text) = serde_json::to_vec(state) else {
            return;
        };
        let beside = self.path.with_extension("new");
        if std::fs::write(&beside, text).is_ok() && std::fs::rename(&beside, &self.path).is_err() {
            drop(std::fs::remove_file(&beside));
        }
    }
}
