//! What the end-to-end tests stand on: a private network, a real httpd in it, clients, and the kernel's own word.
//!
//! Everything here asks the system (the kernel's sets, `ss`, a curl that must fail) and never the program under test.
//! A [`World`] takes down what it put up when it is dropped, also when the test fails, and ends processes by their id.

mod client;
mod host;
mod httpd;
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

pub(crate) use client::{Connection, Load, Request, http2};
pub(crate) use host::{Host, Login};
pub(crate) use httpd::{Httpd, Mpm, Setup, shim};
pub(crate) use world::{Piped, SERVER, World, alive, proc_state, signal};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_f2b-pipe");

/// The tree's top.
pub(crate) fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The configuration that is installed.
pub(crate) fn shipped_config() -> PathBuf {
    tree().join("conf/f2b-pipe.toml")
}

/// Runs to the end and panics with all its output if it did not succeed.
#[track_caller]
pub(crate) fn must(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Polls until `so`, and panics with `what` if that does not come within `limit`.
#[track_caller]
pub(crate) fn wait_until(what: &str, limit: Duration, mut so: impl FnMut() -> bool) {
    if !comes_true(limit, &mut so) {
        panic!("waited {limit:?} in vain for: {what}");
    }
}

/// Polls until `so` or `limit` is over; says which.
pub(crate) fn comes_true(limit: Duration, mut so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if so() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `n` seconds.
pub(crate) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A file's bytes; none if it is not there.
pub(crate) fn bytes_of(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_default()
}

/// A file as text; empty if it is not there.
pub(crate) fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&bytes_of(path)).into_owned()
}

/// The lines, sorted, without their newlines. What stands behind the last newline is a line, too: a cut one.
pub(crate) fn sorted_lines(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = bytes.split(|&b| b == b'\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    lines.sort_unstable();
    lines
}

/// The difference of two logs as multisets of lines: what only `a` has, what only `b` has.
pub(crate) fn difference(a: &[u8], b: &[u8]) -> (Vec<String>, Vec<String>) {
    let (a, b) = (sorted_lines(a), sorted_lines(b));
    let (mut only_a, mut only_b) = (Vec::new(), Vec::new());
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        let order = match (a.get(i), b.get(j)) {
            (Some(x), Some(y)) => x.cmp(y),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, _) => std::cmp::Ordering::Greater,
        };
        match order {
            std::cmp::Ordering::Equal => {
                i += 1;
                j += 1;
            }
            std::cmp::Ordering::Less => {
                only_a.push(shown(a[i]));
                i += 1;
            }
            std::cmp::Ordering::Greater => {
                only_b.push(shown(b[j]));
                j += 1;
            }
        }
    }
    (only_a, only_b)
}

/// A line for people: its beginning and end.
pub(crate) fn shown(line: &[u8]) -> String {
    let text = line.escape_ascii().to_string();
    if text.len() <= 240 {
        return text;
    }
    format!(
        "{} ... {} ({} bytes)",
        &text[..120],
        &text[text.len() - 100..],
        line.len()
    )
}

/// Panics unless both logs have the same lines, each as often.
#[track_caller]
pub(crate) fn assert_same_lines(tee: &[u8], oracle: &[u8]) {
    let (only_tee, only_oracle) = difference(tee, oracle);
    assert!(
        only_tee.is_empty() && only_oracle.is_empty(),
        "tee: {} bytes, oracle: {} bytes\nonly in the tee ({}): {:#?}\nonly in the oracle ({}): {:#?}",
        tee.len(),
        oracle.len(),
        only_tee.len(),
        &only_tee[..only_tee.len().min(5)],
        only_oracle.len(),
        &only_oracle[..only_oracle.len().min(5)]
    );
}
