//! What else is done about a ban: scripts of action.d beside the packet filter.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::other_logs::{fail2ban_with, guessed, logged};
use crate::support::{Host, World, alive, secs, text_of, wait_until};

const ATTACKER: &str = "198.51.100.66";
const SECOND: &str = "198.51.100.67";

/// An action `note` that writes its words down, into the file that is returned.
pub(crate) fn note(world: &World) -> std::path::PathBuf {
    let (script, notes) = (world.path("note"), world.path("notes"));
    let text = format!(
        "#!/bin/sh\nline=$(printf '%s|' \"$@\" | tr '\n' ' ')\necho \"$line\" >> {}\n",
        notes.display()
    );
    world.write("note", text);
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let script = script.display();
    world.write(
        "fail2ban/action.d/note.conf",
        format!(
            "[Definition]\nactionstart = {script} start <name>\nactionstop = {script} stop <name>\n\
            actionban = {script} ban <name> <ip> <family> <failures> <bantime> <F-USER> \"<matches>\"\n\
            actionunban = {script} unban <name> <ip>\n"
        ),
    );
    notes
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_script_of_ones_own_and_dummy_are_told_of_start_ban_unban_and_stop() {
    let world = World::new();
    fail2ban_with(
        &world,
        "[sshd]\nenabled = true\nmaxretry = 2\nbantime = 2\naction = %(action_)s\n  note\n  dummy\n",
    );
    let notes = note(&world);
    let host = Host::new(&world);
    std::fs::create_dir(host.file("/run/fail2ban")).expect("mkdir");
    let dummy = host.file("/run/fail2ban/fail2ban.dummy");
    guessed(&host, "203.0.113.1");
    let watch = host.watch();
    guessed(&host, ATTACKER);
    guessed(&host, ATTACKER);
    world.wait_banned("sshd", ATTACKER);
    wait_until("his unban", secs(8), || text_of(&notes).contains("unban"));
    guessed(&host, SECOND);
    guessed(&host, SECOND);
    let told = || {
        text_of(&notes)
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    wait_until("the second ban", secs(5), || told().len() == 4);
    wait_until("dummy's words", secs(2), || {
        text_of(&dummy).lines().count() == 4
    });
    assert_eq!(
        text_of(&dummy),
        format!("123\n+{ATTACKER}\n-{ATTACKER}\n+{SECOND}\n")
    );
    host.end(watch, Signal::SIGTERM);
    let told = told();
    assert_eq!(told[0], "start|sshd|");
    let ban = format!("ban|sshd|{ATTACKER}|inet4|2|2|root|");
    assert!(told[1].starts_with(&ban), "{told:?}");
    assert!(told[1].contains("Failed password for root"), "{told:?}");
    assert_eq!(told[2], format!("unban|sshd|{ATTACKER}|"));
    assert!(
        told[3].starts_with(&format!("ban|sshd|{SECOND}|")),
        "{told:?}"
    );
    let end = [format!("unban|sshd|{SECOND}|"), "stop|sshd|".to_owned()];
    assert_eq!(told[4..], end, "{told:?}");
    assert!(!dummy.exists(), "dummy's actionstop takes its file away");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_script_that_hangs_for_ever_delays_no_ban_and_no_other_jail() {
    let world = World::new();
    fail2ban_with(
        &world,
        "[DEFAULT]\nmaxretry = 1\nbantime = 60\n\
        [sshd]\nenabled = true\naction = %(action_)s\n  hang\n\
        [other]\nenabled = true\nfilter =\nlogpath = /var/log/other.log\nfailregex = other: no <HOST>$\nbackend = auto\n\
        action = %(action_)s\n  note\n",
    );
    let notes = note(&world);
    let hang = "[Definition]\nactionstart = sleep 1001\nactionban = sleep 1001\nactionunban = sleep 1001\n";
    world.write("fail2ban/action.d/hang.conf", hang);
    let host = Host::new(&world);
    guessed(&host, "203.0.113.1");
    logged(&host, "/var/log/other.log", "other: hello");
    let watch = host.watch();
    world.wait_banned("sshd", "203.0.113.1");
    let begun = Instant::now();
    for last in 60..70 {
        guessed(&host, &format!("198.51.100.{last}"));
    }
    wait_until("ten bans", secs(2), || world.banned("sshd").len() == 11);
    logged(
        &host,
        "/var/log/other.log",
        &format!("other: no {ATTACKER}"),
    );
    wait_until("the other jail's ban", secs(2), || {
        world.banned("other") == [ATTACKER]
    });
    wait_until("the other jail's script", secs(2), || {
        text_of(&notes).contains(&format!("ban|other|{ATTACKER}|"))
    });
    assert!(begun.elapsed() < secs(4), "{:?}", begun.elapsed());
    let ending = Instant::now();
    host.end(watch, Signal::SIGTERM);
    assert!(ending.elapsed() < secs(8), "{:?}", ending.elapsed());
    assert!(!alive(watch));
    // Nothing of it is left behind.
    let left = world
        .on_server("pgrep")
        .args(["-f", "sleep 1001"])
        .output()
        .expect("pgrep");
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    assert_eq!(left, "");
}
