//! What whoever may write a log, or send requests, can do to the others: README, "Whom it withstands".

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::other_logs::logged;
use crate::support::{Host, World, alive, must, secs, text_of, wait_until};

const ATTACKER: &str = "203.0.113.66";

/// A jail that bans at the first line of `log`.
fn door(name: &str, log: &str) -> String {
    format!(
        "[jail.{name}]\nfailregex = 'door: denied to <HOST>$'\nlogpath = '{log}'\nmaxretry = 1\nfindtime = '10m'\n\
         bantime = '10m'\nport = 'all'\n"
    )
}

fn denied(host: &Host<'_>, log: &str, who: &str) {
    logged(host, log, &format!("door: denied to {who}"));
}

/// Resident memory of a process, MiB.
fn memory(pid: i32) -> u64 {
    let status = text_of(format!("/proc/{pid}/status").as_ref());
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .expect("VmRSS");
    kib / 1024
}

#[test]
#[ignore = "needs root and network namespaces"]
fn whoever_puts_something_else_in_the_place_of_his_log_stops_no_other_jail() {
    const THEIRS: &str = "/var/log/vhost/door.log";
    let world = World::new();
    world.config(&format!(
        "{}{}[fail2ban]\nconfig = ''\n",
        door("theirs", "/var/log/vhost/*.log"),
        door("ours", "/var/log/door.log")
    ));
    let host = Host::new(&world);
    fs::create_dir(host.file("/var/log/vhost")).expect("mkdir");
    denied(&host, THEIRS, "198.51.100.1");
    denied(&host, "/var/log/door.log", "198.51.100.2");
    let watch = host.watch();
    world.wait_banned("theirs", "198.51.100.1");
    let place = host.file(THEIRS);
    // What only root may read, and is no log of his.
    fs::write(host.file("/var/log/secret"), "geheim\n").expect("a file");
    let ways: [(&str, &dyn Fn()); 6] = [
        ("a FIFO", &|| {
            must(Command::new("mkfifo").arg(&place));
        }),
        ("a directory", &|| fs::create_dir(&place).expect("mkdir")),
        ("a link to itself", &|| {
            symlink("door.log", &place).expect("a link")
        }),
        ("a link to a device", &|| {
            symlink("/dev/zero", &place).expect("a link")
        }),
        ("a link to somebody else's file", &|| {
            symlink("/var/log/secret", &place).expect("a link")
        }),
        ("a socket", &|| {
            std::os::unix::net::UnixListener::bind(&place).expect("a socket");
        }),
    ];
    for (n, (what, put)) in (10..).zip(ways) {
        fs::remove_file(&place).expect("his log");
        put();
        // Long enough for it to be noticed.
        std::thread::sleep(secs(1));
        let who = format!("198.51.100.{n}");
        denied(&host, "/var/log/door.log", &who);
        world.wait_banned("ours", &who);
        assert!(alive(watch), "{what}: {}", host.said("watch"));
        // And once it is a log again, it is read again.
        if place.is_dir() && !place.is_symlink() {
            fs::remove_dir(&place).expect("rmdir");
        } else {
            fs::remove_file(&place).expect("rm");
        }
        let who = format!("198.51.100.{}", n + 100);
        denied(&host, THEIRS, &who);
        wait_until(
            &format!("his log to be read again after {what}"),
            secs(10),
            || world.banned("theirs").contains(&who),
        );
    }
    let told = host.said("watch") + &host.ask(&["status"]) + &host.ask(&["check"]);
    assert!(!told.contains("geheim"), "{told}");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_giant_line_costs_neither_memory_nor_anybody_else_s_ban() {
    let world = World::new();
    world.config(&format!(
        "{}{}[fail2ban]\nconfig = ''\n",
        door("theirs", "/var/log/giant.log"),
        door("ours", "/var/log/door.log")
    ));
    let host = Host::new(&world);
    denied(&host, "/var/log/door.log", "198.51.100.2");
    File::create(host.file("/var/log/giant.log")).expect("a log");
    let watch = host.watch();
    let before = memory(watch);
    // 200 MB without a newline, in which addresses stand; the end of it looks like a whole line.
    let mut giant = File::options()
        .append(true)
        .open(host.file("/var/log/giant.log"))
        .expect("a log");
    let piece = format!("door: denied to {ATTACKER} ").repeat(1 << 15);
    for _ in 0..200_000_000 / piece.len() {
        giant.write_all(piece.as_bytes()).expect("his log");
    }
    denied(&host, "/var/log/door.log", "198.51.100.3");
    world.wait_banned("ours", "198.51.100.3");
    giant
        .write_all(format!("x door: denied to {ATTACKER}\n").as_bytes())
        .expect("his log");
    denied(&host, "/var/log/giant.log", "198.51.100.4");
    wait_until("the line after it", secs(30), || {
        world.banned("theirs").contains(&"198.51.100.4".to_owned())
    });
    // The head ends in the midst of an address, and 203.0 is one, too, for whoever looks names up.
    std::thread::sleep(secs(1));
    assert_eq!(world.banned("theirs"), ["198.51.100.4"]);
    let grown = memory(watch).saturating_sub(before);
    assert!(grown < 64, "{grown} MiB more");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_hundred_thousand_addresses_are_banned_with_bounded_memory() {
    const ADDRESSES: u32 = 100_000;
    let world = World::new();
    world.config(
        "[jail.missing]\nstatus = [404]\nmaxretry = 1\nfindtime = '1m'\n[fail2ban]\nconfig = ''\n",
    );
    fs::create_dir(world.path("run")).expect("mkdir");
    let mut piped = world.pipe(1 << 20, &["--format", "combined", "--single-writer"]);
    let mut writer = piped.another_writer();
    let address = |n: u32| format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
    for n in 0..ADDRESSES {
        let line = format!(
            "{} - - [25/Nov/2026:10:00:00 +0000] \"GET /none HTTP/1.1\" 404 1 \"-\" \"-\"\n",
            address(n)
        );
        writer.write_all(line.as_bytes()).expect("the pipe");
    }
    // Whoever comes after them is counted, too.
    piped.line(
        "192.0.2.7 - - [25/Nov/2026:10:00:00 +0000] \"GET /none HTTP/1.1\" 404 1 \"-\" \"-\"",
    );
    wait_until("the last of them", secs(60), || {
        let mut ask = world.on_server("ipset");
        ask.args(["test", "f2bp-missing", "192.0.2.7"]);
        ask.output().expect("ipset").status.success()
    });
    assert_eq!(world.banned("missing").len(), ADDRESSES as usize + 1);
    let memory = memory(piped.pid());
    assert!(memory < 200, "{memory} MiB");
    drop(writer);
    assert!(piped.close(secs(20)).is_some_and(|status| status.success()));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn an_expression_that_takes_very_many_steps_keeps_no_other_jail_from_banning() {
    let world = World::new();
    world.config(&format!(
        "[jail.slow]\nfailregex = '^\\s*door: <HOST> (?:(\\S+) ?)+\\1\\1!$'\nlogpath = '/var/log/slow.log'\nmaxretry = 1\n{}[fail2ban]\nconfig = ''\n",
        door("ours", "/var/log/door.log")
    ));
    let host = Host::new(&world);
    denied(&host, "/var/log/door.log", "198.51.100.2");
    File::create(host.file("/var/log/slow.log")).expect("a log");
    host.watch();
    // Each would take a backtracking engine longer than anybody lives.
    let line = format!("door: {ATTACKER} {}", "ab cd ".repeat(200));
    for n in 10..40 {
        for _ in 0..20 {
            logged(&host, "/var/log/slow.log", &line);
        }
        denied(&host, "/var/log/door.log", &format!("198.51.100.{n}"));
    }
    wait_until("all of the other jail's", secs(60), || {
        (10..40).all(|n| world.banned("ours").contains(&format!("198.51.100.{n}")))
    });
    assert_eq!(world.banned("slow"), [""; 0]);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_local_user_can_neither_ask_nor_tell_nor_read_anything() {
    let world = World::new();
    world.config(&format!(
        "{}[fail2ban]\nconfig = ''\n",
        door("ours", "/var/log/door.log")
    ));
    let host = Host::new(&world);
    denied(&host, "/var/log/door.log", ATTACKER);
    host.watch();
    world.wait_banned("ours", ATTACKER);
    // The folder itself is root's alone where tmpfiles.d makes it: here what is in it has to stand by itself.
    must(Command::new("chmod").arg("755").arg(world.path("run")));
    must(Command::new("chmod").arg("755").arg(world.dir()));
    let script = "
import os, socket, sys
wrong = []
for name in sorted(os.listdir(sys.argv[1])):
    path = os.path.join(sys.argv[1], name)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            socket.socket(socket.AF_UNIX, kind).connect(path)
            wrong.append('connects to ' + name)
        except OSError:
            pass
    for mode in ('rb', 'ab'):
        try:
            open(path, mode)
            wrong.append(mode + ' ' + name)
        except OSError:
            pass
print(len(os.listdir(sys.argv[1])), 'files;', wrong)
";
    let run = world.path("run").display().to_string();
    let as_nobody = |command: &[&str]| {
        let mut words = host.on("setpriv");
        words.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        let output = words.args(command).output().expect("setpriv");
        let (said, errors) = (output.stdout, output.stderr);
        String::from_utf8_lossy(&[said, errors].concat()).into_owned()
    };
    let found = as_nobody(&["/usr/bin/python3", "-c", script, &run]);
    assert!(found.contains("files;"), "{found}");
    assert!(!found.starts_with("0 "), "{found}");
    assert!(found.ends_with("; []\n"), "{found}");
    // root, who is not kept out, shows that they would have been found.
    let output = host
        .on("/usr/bin/python3")
        .args(["-c", script, &run])
        .output()
        .expect("python3");
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    for words in [
        "connects to f2b-pipe.feed",
        "connects to f2b-pipe.bans",
        "rb f2b-pipe.sqlite3",
    ] {
        assert!(found.contains(words), "{words}: {found}");
    }
    assert_eq!(world.banned("ours"), [ATTACKER]);
}
