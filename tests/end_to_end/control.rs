//! The control socket: who is heard, how much he may say, and that nobody waits for him.

use std::fs::{self, DirBuilder};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::feed::{line, logger};
use crate::support::{PROGRAM, Piped, World, bytes_of, secs, wait_until};

const ATTACKER: &str = "198.51.100.66";
/// One of Debian's, with nobody in it.
const GROUP: &str = "operator";

const CONFIG: &str =
    "[control]\ngroup = 'operator'\n[jail.mine]\nstatus = [404]\nmaxretry = 3\nfindtime = '1m'\n";

/// A logger in charge; its folder is root's alone, as tmpfiles.d makes it.
fn in_charge(world: &World) -> Piped {
    world.config(CONFIG);
    let mut dir = DirBuilder::new();
    dir.mode(0o700).create(world.path("run")).unwrap();
    let logger = logger(world);
    wait_until("the control socket", secs(10), || {
        UnixStream::connect(world.path("run/f2b-pipe.sock")).is_ok()
    });
    logger
}

fn connect(world: &World) -> UnixStream {
    let stream = UnixStream::connect(world.path("run/f2b-pipe.sock")).unwrap();
    stream.set_read_timeout(Some(secs(10))).unwrap();
    stream
}

fn ask(world: &World, request: &Value) -> Value {
    let mut stream = connect(world);
    writeln!(stream, "{request}").unwrap();
    answer(&stream)
}

fn answer(stream: &UnixStream) -> Value {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
}

/// The program under test by nobody, in these further groups.
fn as_nobody(world: &World, groups: &str, args: &[&str]) -> (Option<i32>, String) {
    let (command, rest) = args.split_first().unwrap();
    let output = world
        .on_server("setpriv")
        .args(["--reuid=65534", "--regid=65534", groups, PROGRAM, command])
        .args(world.place())
        .args(rest)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
#[ignore = "needs root and network namespaces"]
fn strangers_are_refused_and_the_group_may_do_what_it_may() {
    let world = World::new();
    let _logger = in_charge(&world);
    let (stranger, member) = ("--clear-groups", format!("--groups={GROUP}"));
    let (code, said) = as_nobody(&world, stranger, &["jail", "mine"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("[control] group"), "{said}");
    // He may pass where somebody has opened it; then his credentials are looked at.
    for (path, mode) in [("run", 0o755), ("run/f2b-pipe.sock", 0o666)] {
        fs::set_permissions(world.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let (code, said) = as_nobody(&world, stranger, &["jail", "mine", "off"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("only root and the members"), "{said}");
    let (code, said) = as_nobody(&world, stranger, &["unban", "--all"]);
    assert_eq!(code, Some(2), "{said}");
    fs::set_permissions(world.path("run"), fs::Permissions::from_mode(0o710)).unwrap();
    let may = |args: &[&str]| {
        let (code, said) = as_nobody(&world, &member, args);
        assert_eq!(code, Some(0), "{args:?}: {said}");
        said
    };
    assert!(may(&["jail", "mine", "maxretry=7"]).contains("maxretry 7"));
    may(&["ban", ATTACKER, "--jail", "mine"]);
    assert_eq!(world.banned("mine"), [ATTACKER]);
    assert!(may(&["banned"]).contains(ATTACKER));
    assert!(may(&["status"]).contains("1 banned now"));
    assert!(may(&["metrics"]).contains("f2b_pipe_banned{jail=\"mine\"} 1"));
    may(&["unban", ATTACKER]);
    may(&["reload"]);
    assert!(may(&["jail", "mine"]).contains("maxretry 3"));
    // What would make him root, or the packet filter close the host to itself, he may not.
    let (code, said) = as_nobody(&world, &member, &["ban", "127.0.0.1", "--force"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("for root only"), "{said}");
    assert_eq!(world.banned_anywhere(), [""; 0]);
}

/// As `tmpfiles.d` leaves the folder, a member passes and sees nothing of what is in it.
#[test]
#[ignore = "needs root and network namespaces"]
fn a_member_of_the_group_passes_the_folder_and_cannot_look_into_it() {
    let world = World::new();
    let _logger = in_charge(&world);
    let mode = fs::metadata(world.path("run"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o710);
    let member = format!("--groups={GROUP}");
    let (code, said) = as_nobody(&world, &member, &["jail", "mine"]);
    assert_eq!(code, Some(0), "{said}");
    let list = world
        .on_server("setpriv")
        .args(["--reuid=65534", "--regid=65534", &member, "ls"])
        .arg(world.path("run"))
        .output()
        .unwrap();
    assert!(!list.status.success());
}

#[test]
#[ignore = "needs root and network namespaces"]
fn requests_that_are_too_large_or_none_are_refused() {
    let world = World::new();
    let logger = in_charge(&world);
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", logger.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap()
    };
    let before = resident();
    // Fifty at a time say more than anybody may, and no newline.
    let mut many: Vec<UnixStream> = (0..50).map(|_| connect(&world)).collect();
    for stream in &mut many {
        stream.set_write_timeout(Some(secs(10))).unwrap();
        // It is let go in the middle.
        stream.write_all(&vec![b'['; 4 << 20]).ok();
    }
    let mut told = 0;
    for mut stream in many {
        let mut said = Vec::new();
        // What it had not read yet may take the words with it.
        stream.read_to_end(&mut said).ok();
        let said = String::from_utf8_lossy(&said).into_owned();
        told += usize::from(said.contains("more than 262144 bytes"));
    }
    assert!(told > 0);
    assert!(resident() < before + 40 * 1024, "{before} {}", resident());
    for (request, about) in [
        (json!({"v": 1, "do": "statos"}), "statos"),
        (json!({"v": 7, "do": "status"}), "speaks 1"),
        (json!({"v": 1, "do": "status", "jail": "none"}), "none"),
    ] {
        let answer = ask(&world, &request);
        assert_eq!(answer["ok"], false);
        assert!(
            answer["error"].as_str().unwrap().contains(about),
            "{answer}"
        );
    }
    assert_eq!(ask(&world, &json!({"v": 1, "do": "status"}))["ok"], true);
}

/// How long a line takes to the log, and the third of three to a ban.
fn tried(world: &World, logger: &Piped, n: usize) -> Duration {
    let who = format!("198.51.100.{n}");
    let begun = Instant::now();
    for path in 0..3 {
        logger.line(&line(&who, &format!("/{n}/{path}"), 404));
    }
    wait_until("the line in the log", secs(5), || {
        let log = bytes_of(&world.path("access.log"));
        String::from_utf8_lossy(&log).contains(&format!("/{n}/2 "))
    });
    wait_until("the ban", secs(5), || world.banned("mine").contains(&who));
    begun.elapsed()
}

#[test]
#[ignore = "needs root and network namespaces"]
fn two_hundred_silent_clients_delay_no_ban_no_line_and_no_command() {
    let world = World::new();
    world.config(CONFIG);
    let log = world.path("access.log").display().to_string();
    let options = ["--format", "combined", "--single-writer", "--tee", &log];
    let logger = world.pipe(1 << 16, &options);
    logger.line(&line("203.0.113.5", "/first", 200));
    wait_until("the control socket", secs(10), || {
        world.path("run/f2b-pipe.sock").exists()
    });
    let alone: Duration = (10..20).map(|n| tried(&world, &logger, n)).sum();
    let mut silent: Vec<UnixStream> = (0..200).map(|_| connect(&world)).collect();
    // Some have begun a request, and some never take their answers.
    for stream in silent.iter_mut().rev().take(20) {
        stream.write_all(b"{\"v\":1,").ok();
    }
    for stream in silent.iter_mut().rev().skip(20).take(20) {
        stream.set_nonblocking(true).unwrap();
        stream
            .write_all(&b"{\"v\":1,\"do\":\"metrics\"}\n".repeat(200))
            .ok();
    }
    let beside: Duration = (30..40).map(|n| tried(&world, &logger, n)).sum();
    eprintln!("ten times a line and a ban: alone {alone:?}, beside 200 silent clients {beside:?}");
    assert_eq!(world.banned("mine").len(), 20);
    let done = world.ask(&["jail", "mine"]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.contains("20 banned now"), "{said}");
    drop(silent);
}
