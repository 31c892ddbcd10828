//! `f2b-pipe demo`, as it is: the real program in namespaces of its own, and what it says at the end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Whether this process may do what root may.
fn demand_root() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:\t0"));
    assert!(uid.is_some(), "this test needs root");
}

/// Who, by which jail, and after how many requests.
const ATTACKERS: [(&str, &str, u32); 4] = [
    ("shellshock agent", "apache-exploit-agent", 1),
    ("password guesser", "apache-auth", 10),
    ("scanner", "apache-scan", 15),
    ("flood", "apache-dos", 100),
];

/// On a busy machine one or the other request is answered between the deciding line and the ban.
fn assert_banned(line: &str, word: &str, jail: &str, after: u32, everything: &str) {
    let words = format!(" {word} by {jail} after ");
    let (_, rest) = line
        .split_once(&words)
        .unwrap_or_else(|| panic!("not{words}{after}: {everything}"));
    let number: u32 = rest.split(' ').next().unwrap().parse().unwrap();
    assert!(
        (after..=after * 2).contains(&number),
        "{line}: {everything}"
    );
}

/// Every line of the summary, none of them marked as wrong.
fn assert_all_went_well(done: &Output, took: Duration) {
    let said = String::from_utf8_lossy(&done.stdout);
    let everything = format!("{said}\n{}", String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{}: {everything}", done.status);
    let (_, summary) = said.split_once("In short").expect(&everything);
    let line = |who: &str| {
        let line = summary
            .lines()
            .find(|line| line.starts_with(&format!("  {who}")));
        line.unwrap_or_else(|| panic!("{who} is missing or failed: {everything}"))
    };
    let visitor = line("ordinary visitor");
    let words: Vec<_> = visitor.split_whitespace().collect();
    let served = words.iter().position(|w| *w == "of").expect(&everything);
    assert_eq!(words[served - 1], words[served + 1], "{everything}");
    for (who, jail, after) in ATTACKERS {
        assert_banned(line(who), "banned", jail, after, &everything);
    }
    let back = summary.contains("served again after");
    assert!(back, "still banned: {everything}");
    assert!(
        said.contains("f2bp-apache-auth"),
        "no listing: {everything}"
    );
    assert!(took < Duration::from_secs(20), "{took:?}: {everything}");
}

#[test]
#[ignore = "needs root, a private network namespace, httpd and iptables"]
fn as_root_the_visitor_is_served_and_every_attacker_banned() {
    demand_root();
    let began = Instant::now();
    let done = Command::new(env!("CARGO_BIN_EXE_f2b-pipe"))
        .args(["demo", "--quick"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_all_went_well(&done, began.elapsed());
}

/// Somewhere an ordinary user can execute it; the target directory may be root's alone.
struct ProgramForAll(PathBuf);

impl ProgramForAll {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("f2b-pipe-demo-{test}-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_f2b-pipe"), dir.join("f2b-pipe")).unwrap();
        Self(dir)
    }
}

impl Drop for ProgramForAll {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
#[ignore = "needs root (to become nobody), private network namespaces for everybody, httpd and iptables"]
fn as_an_ordinary_user_the_visitor_is_served_and_every_attacker_banned() {
    demand_root();
    let program = ProgramForAll::new("user");
    let began = Instant::now();
    let done = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
        ])
        .arg(program.0.join("f2b-pipe"))
        .args(["demo", "--quick"])
        .env("PATH", "/usr/bin:/bin") // without sbin, as ordinary users have it in Debian
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_all_went_well(&done, began.elapsed());
}

#[test]
#[ignore = "needs root (to become nobody) and two seconds"]
fn where_namespaces_are_forbidden_it_says_so_and_runs_dry() {
    demand_root();
    let program = ProgramForAll::new("dry");
    // A process that may not have children in new user namespaces: the limit is 0 inside this one.
    let done = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c"])
        .arg("echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all \"$0\" demo --quick")
        .arg(program.0.join("f2b-pipe"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let everything = format!("{said}\n{}", String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{}: {everything}", done.status);
    assert!(said.contains("dry run"), "{everything}");
    for (who, jail, after) in ATTACKERS {
        let start = format!("  {who}");
        let (_, summary) = said.split_once("In short").expect(&everything);
        let line = summary.lines().find(|line| line.starts_with(&start));
        assert_banned(
            line.expect(&everything),
            "would be banned",
            jail,
            after,
            &everything,
        );
    }
}
