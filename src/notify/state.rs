//! What `status` shows of a running process: a JSON file in the runtime directory, written every few seconds while there
//! is something new, by the thread that speaks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::measure::Measured;
use crate::config::RuntimePaths;
use crate::judge::JailTally;

/// What one process counted since it began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Process id.
    pub pid: u32,
    /// Epoch seconds.
    pub started: i64,
    /// LogFormat.
    pub format: String,
    /// File of `--tee`.
    pub tee: Option<PathBuf>,
    /// What is wrong, and what to do.
    pub troubles: Vec<String>,
    /// Its hits are counted by `watch`.
    pub fed: bool,
    /// Of `watch`: who feeds it.
    pub feed: Option<crate::feed::Feeds>,
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
    /// Latencies, queues, netlink.
    pub measured: Measured,
    /// The chain and the sets.
    pub act: crate::act::keeper::Health,
    /// What it gave up.
    pub privileges: crate::privilege::Report,
    /// By name.
    pub jails: BTreeMap<String, JailTally>,
    /// Where the first line that does not fit the format stops to fit, and the line.
    #[serde(skip)]
    pub misfit: Option<String>,
    /// The disk refuses, and that was told.
    #[serde(skip)]
    pub tee_refused: bool,
    /// Host names stand where addresses should.
    #[serde(skip)]
    pub names: bool,
    /// Torn lines of this format are known.
    #[serde(skip)]
    pub sealed: bool,
}

/// A state, and where it goes.
#[derive(Debug)]
pub struct StateFile {
    /// `RuntimePaths::state`.
    pub path: PathBuf,
    /// `RuntimePaths::state_else`: where it goes while it cannot go there.
    pub otherwise: PathBuf,
    /// `None`: the process ends, the file goes.
    pub state: Option<State>,
}

impl StateFile {
    /// Written beside and renamed, so that a reader sees one state or the next. Where neither folder can be written to there is
    /// no file: `status` says so.
    pub(crate) fn write(&self) {
        let text = self.state.as_ref().map(serde_json::to_vec);
        let (first, second) = (&self.path, &self.otherwise);
        let written = match &text {
            Some(Ok(text)) if put(first, text).is_ok() => Some(first),
            Some(Ok(text)) if put(second, text).is_ok() => Some(second),
            Some(_) => return,
            None => None,
        };
        for path in [first, second] {
            if written.is_none_or(|written| written != path) {
                drop(std::fs::remove_file(path));
            }
        }
    }
}

fn put(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    // It names clients. tmpfiles.d makes the directory root's alone; a host without it has what umask says.
    let written = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(text))
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        drop(std::fs::remove_file(&beside));
    }
    written
}

/// The state files of processes that live, by process id. One that cannot be read is not there: it may be going.
#[must_use]
pub fn running(paths: &RuntimePaths) -> BTreeMap<u32, Value> {
    let files = [paths.lock(), paths.ledger()];
    let folders: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    let entries = folders
        .into_iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok());
    let mut states = BTreeMap::new();
    for entry in entries.flatten().flatten() {
        let path = entry.path();
        let pid = path
            .file_stem()
            .and_then(|stem| Path::new(stem).extension()?.to_str()?.parse::<u32>().ok());
        let ours = |pid: &u32| paths.state(*pid) == path || paths.state_else(*pid) == path;
        let Some(pid) = pid.filter(ours) else {
            continue;
        };
        let lives = Path::new("/proc").join(pid.to_string()).exists();
        let state = std::fs::read(&path).ok();
        if let Some(state) = state.filter(|_| lives)
            && let Ok(state) = serde_json::from_slice(&state)
        {
            states.insert(pid, state);
        }
    }
    states
}

/// The same but for `pid`, as this program writes them; one that another version wrote may lack something.
#[must_use]
pub fn others(paths: &RuntimePaths, pid: u32) -> Vec<State> {
    let others = running(paths)
        .into_iter()
        .filter(|(other, _)| *other != pid);
    others
        .filter_map(|(_, state)| serde_json::from_value(state).ok())
        .collect()
}
