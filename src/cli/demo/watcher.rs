//! Looks for bans: in the kernel's sets, twice a millisecond; in a dry run in what f2b-pipe says.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{ChildStderr, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::actors::Play;
use super::board::lock;
use crate::act::firewall::{self, Firewall, Member};
use crate::config::Config;

/// Where bans are seen.
pub(super) enum Bans {
    /// In the kernel's sets.
    Kernel,
    /// On stderr of a dry run.
    Told(ChildStderr),
}

/// What the names of our sets begin with, unless configured otherwise.
const SET_PREFIX: &str = "f2bp-";
/// How long the kernel is left alone between two looks.
const PAUSE: Duration = Duration::from_micros(500);

/// Notes bans until the play is over.
pub(super) fn watch(bans: Bans, play: &Play<'_>) {
    match bans {
        Bans::Kernel => watch_kernel(play),
        Bans::Told(stderr) => {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((jail, address)) = told(&line) {
                    lock(play.board).banned(jail, address, Instant::now(), true);
                }
            }
        }
    }
}

fn watch_kernel(play: &Play<'_>) {
    let mut seen = HashSet::new();
    let mut kernel = None;
    while !play.stop.load(Ordering::Relaxed) {
        std::thread::sleep(PAUSE);
        // Without ip_set there is nothing to see, and f2b-pipe says so itself.
        let Some(kernel) = open(&mut kernel) else {
            continue;
        };
        for set in kernel.names(SET_PREFIX).unwrap_or_default() {
            let mut members = Vec::new();
            // A set may be gone by now.
            drop(kernel.list(&set, &mut |member| members.push(member.addr)));
            let at = Instant::now();
            for address in members {
                if seen.insert((set.clone(), address)) {
                    lock(play.board).banned(jail_of(&set), address, at, false);
                }
            }
        }
    }
}

fn open(kernel: &mut Option<Box<dyn Firewall>>) -> Option<&mut Box<dyn Firewall>> {
    if kernel.is_none() {
        *kernel = firewall::open(&Config::default().firewall).ok();
    }
    kernel.as_mut()
}

/// `apache-dos` for `f2bp-apache-dos6`. The shipped jails' own names end in letters.
fn jail_of(set: &str) -> &str {
    let jail = set.strip_prefix(SET_PREFIX).unwrap_or(set);
    jail.strip_suffix('6').unwrap_or(jail)
}

/// From `f2b-pipe: ... info: ban client=192.0.2.7 jail=apache-dos hits=100 for=600s`.
fn told(line: &str) -> Option<(&str, IpAddr)> {
    let (_, line) = line.split_once(" ban client=")?;
    let (client, line) = line.split_once(' ')?;
    let jail = line.strip_prefix("jail=")?.split(' ').next()?;
    // A network is banned by its first address and its length.
    let address = client.split('/').next()?.parse().ok()?;
    Some((jail, address))
}

/// What the tool says of the sets that hold somebody.
pub(super) fn kernel_list() -> String {
    let mut text = String::new();
    let mut kernel = None;
    let Some(kernel) = open(&mut kernel) else {
        return "It cannot be asked: no rights, or no ip_set.\n".to_owned();
    };
    let sets = kernel.names(SET_PREFIX).unwrap_or_default();
    let tool = match kernel.name() {
        "ipset" => "ipset",
        _ => "nft",
    };
    let with_tool = Command::new(tool)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !with_tool {
        text.push_str(&format!(
            "(read through netlink; the tool {tool} shows it as well)\n"
        ));
    }
    for set in sets {
        let mut members = Vec::new();
        drop(kernel.list(&set, &mut |member| members.push(member)));
        if members.is_empty() {
            continue;
        }
        if with_tool {
            let shown = kernel.shown_by(&set);
            let said = Command::new(tool)
                .args(shown.split(' ').skip(1))
                .stdin(Stdio::null())
                .output();
            let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
            text.push_str(&format!("$ {shown}\n{}\n", said.unwrap_or_default()));
        } else {
            text.push_str(&format!("{set}\n"));
            for Member {
                addr,
                left,
                packets,
                comment,
                ..
            } in members
            {
                let left =
                    left.map_or_else(|| "for ever".to_owned(), |left| format!("{left} s left"));
                text.push_str(&format!("  {addr}  {left}, {packets} packets  {comment}\n"));
            }
        }
    }
    text
}
