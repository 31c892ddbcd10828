//! Test hook: tries from inside what F2B_PIPE_TEST_REACH asks for, and tells what came of it: `reach write /etc/x: ...`.
//!
//! Attempts are separated by commas: `write PATH` (opens it for appending, and makes it), `read PATH`, `remove PATH`,
//! `exec PATH`, `signal PID`, and the calls named in [`calls::try_call`]. Nothing is written into a file, so whoever could set the
//! variable learns what he may do, and gains nothing.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::process::{Command, Stdio};

use super::calls;

const ASKED: &str = "F2B_PIPE_TEST_REACH";

/// From a thread of its own, as the rooms have: what it may do they may.
pub(super) fn begin() {
    let Ok(asked) = std::env::var(ASKED) else {
        return;
    };
    let ask = move || {
        for attempt in asked.split(',') {
            let word = match attempt_at(attempt) {
                Ok(()) => "done".to_owned(),
                Err(error) => error.to_string(),
            };
            log::info!("reach {attempt}: {word}");
        }
    };
    let started = std::thread::Builder::new().name("probe".into()).spawn(ask);
    if let Err(error) = started {
        log::error!("cannot start a thread: {error}");
    }
}

fn attempt_at(attempt: &str) -> io::Result<()> {
    let (what, whom) = attempt.split_once(' ').unwrap_or((attempt, ""));
    match what {
        "write" => {
            let mut options = OpenOptions::new();
            options.append(true).create(true).open(whom).map(drop)
        }
        "read" => File::open(whom).map(drop),
        "remove" => fs::remove_file(whom),
        "exec" => {
            let mut command = Command::new(whom);
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            child?.wait().map(drop)
        }
        call => calls::try_call(call, whom),
    }
}
