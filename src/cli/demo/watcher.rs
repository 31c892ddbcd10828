//! Looks for bans: in the kernel's sets, twice a millisecond; in a dry run in what f2b-pipe says.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{ChildStderr, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::actors::Play;
use super::board::{Board, lock};

/// Where bans are seen.
pub(super) enum Bans {
    /// In the kernel's sets.
    Kernel,
    /// On stderr of a dry run.
    Told(ChildStderr),
}

/// How long the kernel is left alone between two looks.
const PAUSE: Duration = Duration::from_micros(500);

/// Notes bans until the play is over.
pub(super) fn watch(bans: Bans, play: &Play<'_>) {
    match bans {
        Bans::Kernel => watch_kernel(play),
        Bans::Told(stderr) => {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((jail, address)) = told(&line) {
                    lock(play.board).banned(&jail, address, Instant::now());
                }
            }
        }
    }
}

fn watch_kernel(play: &Play<'_>) {
    let mut seen = HashSet::new();
    while !play.stop.load(Ordering::Relaxed) {
        for (jail, address) in kernel_bans() {
            if seen.insert((jail.clone(), address)) {
                lock(play.board).banned(&jail, address, Instant::now());
            }
        }
        std::thread::sleep(PAUSE);
    }
}

fn kernel_bans() -> Vec<(String, IpAddr)> {
    let Ok(done) = Command::new("ipset")
        .arg("save")
        .stdin(Stdio::null())
        .output()
    else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let add = |line: &str| {
        let mut words = line.strip_prefix("add f2bp-")?.split(' ');
        let jail = words.next()?.trim_end_matches('6').to_owned();
        Some((jail, words.next()?.parse().ok()?))
    };
    text.lines().filter_map(add).collect()
}

fn told(line: &str) -> Option<(String, IpAddr)> {
    let (_, rest) = line.split_once('[')?;
    let (jail, rest) = rest.split_once("] Ban ")?;
    let address = rest.split(' ').next()?.parse().ok()?;
    Some((jail.to_owned(), address))
}

/// `ipset list` of the sets that hold somebody.
pub(super) fn kernel_list(board: &Board) -> String {
    let mut jails: Vec<_> = board
        .rows
        .iter()
        .filter_map(|row| row.ban.as_ref())
        .map(|ban| &ban.jail)
        .collect();
    jails.dedup();
    let mut text = String::new();
    for set in jails
        .iter()
        .flat_map(|jail| [format!("f2bp-{jail}"), format!("f2bp-{jail}6")])
    {
        if let Ok(done) = Command::new("ipset")
            .args(["list", &set])
            .stdin(Stdio::null())
            .output()
        {
            text.push_str(&format!(
                "# ipset list {set}\n{}\n",
                String::from_utf8_lossy(&done.stdout)
            ));
        }
    }
    text
}
