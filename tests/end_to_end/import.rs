//! Taking over what a real fail2ban-server remembers.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::jails::left;
use crate::other_logs::{fail2ban_with, guessed};
use crate::support::{Host, World, comes_true, must, secs, wait_until};

const ATTACKER: &str = "198.51.100.66";
const SPARED: &str = "198.51.100.7";
const SIX: &str = "2001:db8:7::5";

/// Jails that both have; `short` bans for three seconds, and then for longer.
const BOTH: &str = "[DEFAULT]\nmaxretry = 1\nfindtime = 600\n[sshd]\nenabled = true\nbantime = 600\n\
    [short]\nenabled = true\nfilter = sshd\nlogpath = /var/log/auth.log\nbantime = 3\nbantime.increment = true\n\
    bantime.factor = 10\n";

/// A server with `jails` has banned everybody who is in auth.log, and has ended; its database.
fn remembered(world: &World, host: &Host<'_>) -> std::path::PathBuf {
    let (theirs, file) = (world.path("theirs"), world.path("fail2ban.sqlite3"));
    must(
        Command::new("cp")
            .args(["-r", "/etc/fail2ban"])
            .arg(&theirs),
    );
    let gone = "[gone]\nenabled = true\nfilter = sshd\nlogpath = /var/log/auth.log\nbantime = -1\n";
    world.write(
        "theirs/jail.local",
        BOTH.replace("[DEFAULT]", "[DEFAULT]\naction =") + gone,
    );
    world.write(
        "theirs/fail2ban.local",
        format!("[DEFAULT]\ndbfile = {}\n", file.display()),
    );
    fs::create_dir(host.file("/run/fail2ban")).expect("mkdir");
    guessed(host, "203.0.113.1");
    let mut server = host.on("fail2ban-server");
    server.args([
        "-f",
        "-s",
        "/run/fail2ban/fail2ban.sock",
        "-p",
        "/run/fail2ban/fail2ban.pid",
    ]);
    server.args(["--logtarget", "/var/log/fail2ban.log", "-c"]);
    let pid = host.start("fail2ban", server.arg(&theirs).arg("start"));
    for who in [ATTACKER, SPARED, SIX] {
        guessed(host, who);
    }
    let bans = || -> i64 {
        let open = rusqlite::Connection::open(&file).ok();
        open.and_then(|open| {
            open.query_row("SELECT count(*) FROM bips", [], |row| row.get(0))
                .ok()
        })
        .unwrap_or(0)
    };
    wait_until("bans in three jails", secs(30), || bans() == 12);
    // The three seconds of `short` are over.
    std::thread::sleep(secs(4));
    host.end(pid, Signal::SIGTERM);
    file
}

/// What came of one jail.
fn of<'a>(told: &'a serde_json::Value, jail: &str) -> &'a serde_json::Value {
    let jails = told["jails"].as_array().expect("jails");
    let found = jails.iter().find(|found| found["jail"] == jail);
    found.unwrap_or_else(|| panic!("{jail} is not in {told}"))
}

#[test]
#[ignore = "needs root and network namespaces"]
fn bans_and_counts_of_a_real_fail2ban_server_go_on_here() {
    let world = World::new();
    fail2ban_with(
        &world,
        &BOTH.replace("[DEFAULT]", &format!("[DEFAULT]\nignoreip = {SPARED}")),
    );
    let host = Host::new(&world);
    let file = remembered(&world, &host);
    let before = fs::read(&file).expect("their database");
    // Whoever is banned from now on is not by what is in the log.
    fs::remove_file(host.file("/var/log/auth.log")).expect("auth.log");
    fs::write(host.file("/var/log/auth.log"), "").expect("auth.log");
    let watch = host.watch();
    assert_eq!(world.banned_anywhere(), [""; 0]);

    let import = |more: &[&str]| {
        let path = file.display().to_string();
        host.ask(&[&["import", &path], more].concat())
    };
    let told: serde_json::Value = serde_json::from_str(&import(&["--json"])).expect("JSON");
    world.wait_banned("sshd", ATTACKER);
    let time = left(&world, "sshd", ATTACKER);
    assert!((540..=599).contains(&time), "what was left of it: {time}");
    assert!(
        world.banned("sshd").contains(&"2001:db8:7::".to_owned()),
        "{:?}",
        world.banned("sshd")
    );
    assert!(!world.banned("sshd").contains(&SPARED.to_owned()));
    assert_eq!(told["told"], true, "{told}");
    let sshd = of(&told, "sshd");
    assert_eq!(
        (&sshd["bans"], &sshd["keys"]),
        (&3.into(), &3.into()),
        "{told}"
    );
    assert!(
        sshd["left"][0]["why"]
            .as_str()
            .is_some_and(|why| why.contains(SPARED)),
        "{told}"
    );
    let short = of(&told, "short");
    assert_eq!(
        (&short["bans"], &short["keys"]),
        (&0.into(), &3.into()),
        "{told}"
    );
    let gone = of(&told, "gone");
    assert_eq!(gone["bans"], 0, "{told}");
    assert_eq!(gone["left"][0]["count"], 4, "{told}");
    assert!(
        gone["left"][0]["why"]
            .as_str()
            .is_some_and(|why| why.contains("no jail is called gone"))
    );
    assert_eq!(
        fs::read(&file).expect("their database"),
        before,
        "it is only read"
    );

    // A second time nothing is new, nor is whoever was let out meanwhile put back.
    let text = import(&[]);
    assert!(text.contains("sshd: 3 known already\n"), "{text}");
    assert_eq!(host.ask(&["unban", ATTACKER, "--jail", "sshd"]), "1\n");
    import(&[]);
    assert!(!comes_true(secs(2), || world
        .banned("sshd")
        .contains(&ATTACKER.to_owned())));

    // His next ban in `short` is his second.
    guessed(&host, ATTACKER);
    world.wait_banned("short", ATTACKER);
    let time = left(&world, "short", ATTACKER);
    assert!((25..=61).contains(&time), "{time}");

    // And all of it outlives a restart.
    host.end(watch, Signal::SIGKILL);
    must(world.on_server("ipset").args(["flush", "f2bp-sshd6"]));
    host.watch();
    wait_until("the ban to be back", secs(5), || {
        world.banned("sshd").contains(&"2001:db8:7::".to_owned())
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn imported_before_it_watches_the_bans_stand_from_its_start() {
    let world = World::new();
    fail2ban_with(&world, BOTH);
    let host = Host::new(&world);
    let file = remembered(&world, &host).display().to_string();
    fs::remove_file(host.file("/var/log/auth.log")).expect("auth.log");
    let text = host.ask(&["import", &file]);
    assert!(
        text.contains("in force once f2b-pipe watches logs"),
        "{text}"
    );
    host.watch();
    world.wait_banned("sshd", ATTACKER);
}

#[test]
fn what_is_no_database_of_fail2bans_is_said() {
    let dir = std::env::temp_dir().join(format!("f2b-pipe-import-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a folder");
    let [old, text] = ["old.sqlite3", "text"].map(|name| dir.join(name));
    rusqlite::Connection::open(&old)
        .expect("SQLite")
        .execute_batch(
            "CREATE TABLE fail2banDb(version INTEGER); INSERT INTO fail2banDb VALUES (2)",
        )
        .expect("a table");
    fs::write(
        &text,
        "not a database, though longer than the header of one. ".repeat(20),
    )
    .expect("a file");
    fs::write(dir.join("f2b-pipe.toml"), "[fail2ban]\nconfig = ''\n").expect("a file");
    for (file, words) in [
        (&old, "schema is version 2, and only 4"),
        (
            &text,
            "file is not a database; write the path of a fail2ban.sqlite3",
        ),
        (&dir.join("none"), "unable to open database file"),
    ] {
        let output = Command::new(crate::support::PROGRAM)
            .arg("import")
            .arg(file)
            .args(["--config", &dir.join("f2b-pipe.toml").display().to_string()])
            .args(["--runtime-dir", &dir.display().to_string()])
            .output()
            .expect("the program under test");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
    fs::remove_dir_all(dir).expect("a folder");
}
