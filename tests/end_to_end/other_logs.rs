//! Other logs than httpd's: a real sshd, whose words come by a real rsyslogd or journald.

use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::support::{Host, Login, World, must, secs, text_of, tree, wait_until};

const ATTACKER: &str = "198.51.100.66";
const READER: &str = "198.51.100.7";

/// Debian's configuration of fail2ban with this jail.local.
pub(crate) fn fail2ban_with(world: &World, jail_local: &str) {
    let dir = world.path("fail2ban");
    must(Command::new("cp").args(["-r", "/etc/fail2ban"]).arg(&dir));
    world.write("fail2ban/jail.local", jail_local);
    world.config(&format!("[fail2ban]\nconfig = '{}'\n", dir.display()));
}

/// Our own filter, as an administrator has it beside f2b-pipe.toml.
fn own_filter(world: &World, jail: &str) {
    let filter = std::fs::read(tree().join("conf/filter.d/sshd.conf")).expect("our filter");
    world.write("filter.d/sshd.conf", filter);
    world.config(jail);
}

/// He guesses three times and is out, though not for ever; somebody else comes in all the time.
fn he_is_banned_and_comes_back(world: &World, host: &Host<'_>) {
    for _ in 0..2 {
        assert_eq!(host.login(READER, "root"), Login::Denied);
        assert_eq!(host.login(ATTACKER, "root"), Login::Denied);
    }
    assert_eq!(world.banned_anywhere(), [""; 0]);
    let banned = Instant::now();
    host.login(ATTACKER, "nobody-of-that-name");
    world.wait_banned("sshd", ATTACKER);
    assert_eq!(world.banned_anywhere().len(), 1);
    assert_eq!(host.login(ATTACKER, "root"), Login::NoAnswer);
    assert_eq!(world.banned("sshd"), [ATTACKER]);
    wait_until("the end of the ban", secs(10), || {
        host.login(ATTACKER, "root") == Login::Denied
    });
    assert!(banned.elapsed() >= secs(2), "{:?}", banned.elapsed());
    let status = world.status();
    let jails = status["jails"].as_array().expect("jails");
    let sshd = jails
        .iter()
        .find(|jail| jail["name"] == "sshd")
        .expect("sshd");
    assert_eq!(sshd["bans"], 1, "{sshd}");
}

const SSHD: &str = "[DEFAULT]\nbantime = 3\nfindtime = 60\nmaxretry = 3\n[sshd]\nenabled = true\n";

#[test]
#[ignore = "needs root and network namespaces"]
fn stock_sshd_bans_who_guesses_passwords_by_auth_log() {
    let world = World::new();
    fail2ban_with(&world, SSHD);
    let host = Host::new(&world);
    host.rsyslogd("TraditionalFile");
    host.sshd();
    host.watch();
    he_is_banned_and_comes_back(&world, &host);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn stock_sshd_turns_to_the_journal_where_there_is_no_auth_log() {
    let world = World::new();
    fail2ban_with(&world, SSHD);
    let host = Host::new(&world);
    host.journald();
    host.sshd();
    host.watch();
    // As it should be: something to know, and no warning at every start.
    let said = host.said("watch");
    assert!(!said.contains("warn: "), "{said}");
    let check = host.ask(&["check"]);
    assert!(check.contains("are read from the journal"), "{check}");
    he_is_banned_and_comes_back(&world, &host);
}

const OWN_SSHD: &str = "[jail.sshd]\nfilter = 'sshd'\nlogpath = '/var/log/auth.log'\nport = 'ssh'\nbantime = '3s'\n\
    findtime = '1m'\nmaxretry = 3\n";

#[test]
#[ignore = "needs root and network namespaces"]
fn our_own_sshd_filter_does_the_same_without_fail2bans_folder() {
    for journal in [false, true] {
        let world = World::new();
        own_filter(&world, OWN_SSHD);
        let host = Host::new(&world);
        if journal {
            host.journald();
        } else {
            host.rsyslogd("File");
        }
        host.sshd();
        host.watch();
        he_is_banned_and_comes_back(&world, &host);
    }
}

#[test]
#[ignore = "needs root and network namespaces"]
fn rotation_in_the_middle_of_an_attack_loses_no_count() {
    let world = World::new();
    fail2ban_with(&world, &SSHD.replace("maxretry = 3", "maxretry = 6"));
    let host = Host::new(&world);
    host.rsyslogd("TraditionalFile");
    host.sshd();
    host.watch();
    let rotate = world.write(
        "logrotate.conf",
        "/var/log/auth.log {\n rotate 4\n missingok\n postrotate\n  kill -HUP $(cat /run/rsyslogd.pid)\n endscript\n}\n",
    );
    let state = world.path("logrotate.state");
    for round in 0..2 {
        for _ in 0..3 {
            assert_eq!(world.banned_anywhere(), [""; 0]);
            assert_eq!(host.login(ATTACKER, "root"), Login::Denied, "round {round}");
        }
        if round == 0 {
            let at_once = ["-f", "-s"];
            must(host.on("logrotate").args(at_once).arg(&state).arg(&rotate));
            assert!(host.file("/var/log/auth.log.1").exists());
        }
    }
    world.wait_banned("sshd", ATTACKER);
    let old = text_of(&host.file("/var/log/auth.log.1"));
    let new = text_of(&host.file("/var/log/auth.log"));
    let failed = |log: &str| log.matches("Failed password for root").count();
    assert_eq!((failed(&old), failed(&new)), (3, 3), "{old}\n{new}");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_journal_is_read_on_where_it_was_after_a_restart() {
    let world = World::new();
    fail2ban_with(&world, &SSHD.replace("bantime = 3", "bantime = 600"));
    let host = Host::new(&world);
    host.journald();
    host.sshd();
    let watch = host.watch();
    assert_eq!(host.login(ATTACKER, "root"), Login::Denied);
    std::thread::sleep(secs(1));
    host.end(watch, Signal::SIGTERM);
    // What came while nobody listened: enough of the one, too little of the other.
    for (from, times) in [(ATTACKER, 3), (READER, 2)] {
        for _ in 0..times {
            assert_eq!(host.login(from, "root"), Login::Denied);
        }
    }
    host.watch();
    world.wait_banned("sshd", ATTACKER);
    assert_eq!(host.login(ATTACKER, "root"), Login::NoAnswer);
    assert_eq!(world.banned("sshd"), [ATTACKER]);
    host.login(READER, "root");
    world.wait_banned("sshd", READER);
}

/// Adds to a log of the host what a line says now, with the date before it.
pub(crate) fn logged(host: &Host<'_>, log: &str, text: &str) {
    let now = chrono::Local::now().format("%b %e %H:%M:%S");
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(host.file(log))
        .expect("a log");
    file.write_all(format!("{now} server {text}\n").as_bytes())
        .expect("a line");
}

/// A wrong password, as sshd tells of it.
pub(crate) fn guessed(host: &Host<'_>, who: &str) {
    static PROCESS: AtomicU32 = AtomicU32::new(1000);
    let pid = PROCESS.fetch_add(1, Ordering::Relaxed);
    let text = format!("sshd[{pid}]: Failed password for root from {who} port 4711 ssh2");
    logged(host, "/var/log/auth.log", &text);
}
