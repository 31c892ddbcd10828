//! Everything at once: under constant load httpd is restarted again and again, its log rotated, and processes of ours
//! are killed, in an order that comes from a seed.
//!
//! Three logs of the same httpd: it writes each line to `oracle.log`, then to us, then to `after.log`. So whatever it was
//! doing when it was told to end (prefork's children end where they stand, between two of them as well): what is in
//! `after.log` we must have, and what we have must be in `oracle.log`.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use crate::privileges::children;
use crate::support::{
    Connection, Httpd, Load, Mpm, Request, Setup, World, alive, bytes_of, must, secs, shown,
    signal, text_of, wait_until,
};
use crate::tee::{rotate, rotations};

/// One page that is missing is enough, and five tries of the other kind.
const CONFIG: &str = r#"
[defaults]
findtime = "1m"
bantime = "1h"

[firewall]
backend = "ipset"

[jail.missing]
status = [404]
maxretry = 1

[jail.tries]
path = ['^/page$']
query = ['^try']
maxretry = 5

[jail.apache-dos]
enabled = false

[jail.apache-scan]
enabled = false
"#;

const GRACEFULS: usize = 20;
const RESTARTS: usize = 5;
const KILLS: usize = 20;
/// Each with and without the reload of httpd.
const ROTATIONS: usize = 2;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Graceful,
    Restart,
    Kill,
    /// With a reload of httpd, or without.
    Rotate(bool),
}

/// Numbers that a seed determines (splitmix64).
pub(crate) struct Dice(u64);

impl Dice {
    /// From `F2B_PIPE_TEST_SEED`, or new; what it is is shown if the test fails.
    pub(crate) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("now");
        let seed = std::env::var("F2B_PIPE_TEST_SEED")
            .map_or(u64::from(now.subsec_nanos()), |seed| {
                seed.parse().expect("F2B_PIPE_TEST_SEED: a number")
            });
        eprintln!("F2B_PIPE_TEST_SEED={seed}");
        Self(seed)
    }

    /// Below `n`.
    pub(crate) fn roll(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).expect("small")
    }

    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        for n in (1..all.len()).rev() {
            let other = self.roll(n + 1);
            all.swap(n, other);
        }
    }
}

fn pid(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("a process id")
}

/// One after the other, each from an address of his own: asks once for what is missing. Whether he is served, and whether
/// that is before or after a blow, is his luck.
fn prowl(world: &World, over: &AtomicBool) {
    for n in 1..250 * 250 {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let from = format!("198.18.{}.{}", n / 250, 1 + n % 250);
        if let Ok(mut connection) = Connection::open(world, &from) {
            connection.patience(Duration::from_millis(300));
            connection.ask(&Request::get("/missing")).ok();
        }
        std::thread::sleep(Duration::from_millis(60));
    }
}

/// One after the other: each tries again and again until the kernel turns him away, which takes five tries, and as many
/// again for each process that dies with the count.
fn try_again(world: &World, over: &AtomicBool) {
    for n in 1..250 {
        let from = format!("198.19.0.{n}");
        let begun = Instant::now();
        let mut connection = None;
        for m in 0.. {
            if over.load(Ordering::Relaxed) {
                return;
            }
            connection = connection.or_else(|| Connection::open(world, &from).ok());
            if let Some(open) = &mut connection {
                open.patience(Duration::from_millis(200));
                if open.ask(&Request::get(format!("/page?try{m}"))).is_err() {
                    connection = None;
                }
            }
            if connection.is_none() && world.banned("tries").contains(&from) {
                break;
            }
            assert!(
                begun.elapsed() < secs(20),
                "{from} is not banned after {m} tries"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// As httpd's lines have it.
fn now_us() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("now").as_micros()
}

/// The client's address in a line of the f2b format.
fn client(line: &[u8]) -> String {
    let word = line.split(|&b| b == b' ').nth(1).unwrap_or_default();
    String::from_utf8_lossy(word).into_owned()
}

fn lines(log: &[u8]) -> Vec<&[u8]> {
    log.split(|&b| b == b'\n')
        .filter(|line| !line.is_empty())
        .collect()
}

fn contains(line: &[u8], what: &str) -> bool {
    line.windows(what.len()).any(|w| w == what.as_bytes())
}

#[track_caller]
fn none_of(what: &str, lines: &[&[u8]]) {
    let some: Vec<String> = lines.iter().take(5).map(|line| shown(line)).collect();
    assert!(lines.is_empty(), "{} lines {what}: {some:#?}", lines.len());
}

/// Every line is there, none is changed, and at most so many times some in a row were written twice.
#[track_caller]
fn assert_complete(world: &World, kills_of_run: usize) {
    let (tee, oracle, after) = (
        rotations(world),
        bytes_of(&world.path("oracle.log")),
        bytes_of(&world.path("after.log")),
    );
    assert!(tee.ends_with(b"\n"), "the last line is cut");
    let (tee, oracle, after) = (lines(&tee), lines(&oracle), lines(&after));
    let written: HashSet<&[u8]> = oracle.iter().copied().collect();
    assert_eq!(written.len(), oracle.len(), "lines of httpd's are equal");
    let mut seen = HashSet::new();
    let (mut twice, mut in_a_row, mut strange) = (0, 0, Vec::new());
    let mut before_too = false;
    for &line in &tee {
        if !written.contains(line) {
            strange.push(line);
        }
        let too = !seen.insert(line);
        twice += usize::from(too);
        in_a_row += usize::from(too && !before_too);
        before_too = too;
    }
    let missing: Vec<&[u8]> = after
        .iter()
        .copied()
        .filter(|line| !seen.contains(line))
        .collect();
    eprintln!(
        "{} lines in the oracle, {} of them in the log behind us; {} in the tee, {twice} twice, in {in_a_row} places \
         ({kills_of_run} kills of a logger)",
        oracle.len(),
        after.len(),
        tee.len(),
    );
    none_of("that httpd never wrote", &strange);
    none_of("missing", &missing);
    assert!(
        in_a_row <= kills_of_run,
        "{twice} lines were written twice, in {in_a_row} places"
    );
    assert!(after.len() > 3_000, "that was no load");
}

/// Whoever's line is in the log is in the kernel's set. Visitors are not.
#[track_caller]
fn assert_banned(world: &World) {
    let tee = rotations(world);
    let prowlers: HashSet<String> = lines(&tee)
        .into_iter()
        .filter(|line| contains(line, "GET /missing "))
        .map(client)
        .collect();
    let banned: HashSet<String> = world.banned("missing").into_iter().collect();
    let free: Vec<&String> = prowlers.difference(&banned).collect();
    eprintln!("{} prowlers, {} free", prowlers.len(), free.len());
    assert!(free.is_empty(), "not banned: {free:?}");
    assert!(prowlers.len() > 40, "{} prowlers", prowlers.len());
    let wrong: Vec<String> = world.banned_anywhere();
    let wrong: Vec<&String> = wrong.iter().filter(|b| b.starts_with("203.")).collect();
    assert!(wrong.is_empty(), "banned without a reason: {wrong:?}");
    assert!(
        world.banned("tries").len() >= 3,
        "{:?}",
        world.banned("tries")
    );
}

/// Neither a process nor a socket, as a file or in the kernel.
#[track_caller]
fn assert_nothing_is_left(world: &World) {
    wait_until("the end of all processes", secs(5), || {
        world.processes().is_empty()
    });
    let folder = fs::read_dir(world.path("run")).expect("the runtime directory");
    let sockets: Vec<_> = folder
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
        .map(|entry| entry.file_name())
        .collect();
    assert!(sockets.is_empty(), "{sockets:?}");
    let unix = must(world.on_server("cat").arg("/proc/net/unix")).stdout;
    let unix = String::from_utf8_lossy(&unix).into_owned();
    assert_eq!(unix.lines().count(), 1, "{unix}");
}

/// A logger that was not there before.
#[track_caller]
fn wait_new_logger(httpd: &Httpd<'_>, before: &[i32]) {
    // One that httpd tells to end before it has begun, at the next blow, cannot save what it was to read.
    let begun = |pid: &i32| {
        let status = text_of(format!("/proc/{pid}/status").as_ref());
        let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:\t"));
        let caught = caught.map_or(0, |set| u64::from_str_radix(set, 16).expect("hexadecimal"));
        caught & 1 << (Signal::SIGTERM as u32 - 1) != 0
    };
    wait_until("a new logger", secs(20), || {
        let now = httpd.loggers();
        now.iter().any(|pid| !before.contains(pid) && begun(pid))
    });
}

fn storm(mpm: Mpm) {
    let world = World::new();
    world.config(CONFIG);
    fs::create_dir(world.path("logs")).expect("mkdir");
    let mut dice = Dice::new();
    let mut running = world.watch("stderr");
    // Whoever is banned by a process that is killed in the same moment keeps his connection, and httpd's old process with
    // it, until httpd gives him up.
    let after = format!(
        "CustomLog {} f2b\nKeepAliveTimeout 1",
        world.path("after.log").display()
    );
    let httpd = Setup::new(&world)
        .mpm(mpm)
        .tee(&world.path("logs/access.log"))
        .conf(&after)
        .start();
    let load = Load::start(
        &world,
        6,
        usize::MAX,
        Duration::from_millis(2),
        |client| format!("203.0.113.{}", 10 + client),
        |client, n| {
            // At most 4096 bytes a line: httpd itself tears longer ones when the pipe is full for a moment.
            let long = if n % 50 == 7 { 3500 } else { n % 300 };
            Request::get(format!("/page?client={client}&n={n}")).agent(&"x".repeat(long + 1))
        },
    );
    world.wait_chain();
    wait_until("the log", secs(5), || {
        world.path("logs/access.log").exists()
    });

    let mut blows = vec![Blow::Graceful; GRACEFULS];
    blows.extend([Blow::Restart; RESTARTS]);
    blows.extend([Blow::Kill; KILLS]);
    blows.extend([Blow::Rotate(false); ROTATIONS]);
    blows.extend([Blow::Rotate(true); ROTATIONS]);
    dice.shuffle(&mut blows);
    let (over, mut kills) = (AtomicBool::new(false), [0; 4]);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| prowl(&world, &over));
        scope.spawn(|| try_again(&world, &over));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for &blow in &blows {
                let before = httpd.loggers();
                eprintln!("{} {blow:?}, loggers {before:?}", now_us());
                match blow {
                    Blow::Graceful => httpd.control("graceful"),
                    Blow::Restart => httpd.control("restart"),
                    Blow::Rotate(reload) => rotate(&world, &httpd, reload),
                    Blow::Kill => {
                        // httpd starts no successor for a logger of an earlier configuration: lines that are still in its
                        // pipe when it is killed are nobody's. So never while there are two.
                        let logger = httpd.logger();
                        let helper = |of: i32| children(of).into_iter().next();
                        let all = [
                            (0, Some(logger)),
                            (1, Some(pid(&running))),
                            (2, helper(logger)),
                            (3, helper(pid(&running))),
                        ];
                        let all: Vec<(usize, i32)> = all
                            .into_iter()
                            .filter_map(|(which, pid)| Some((which, pid?)))
                            .collect();
                        let (which, victim) = all[dice.roll(all.len())];
                        kills[which] += 1;
                        eprintln!("{} kills {victim} ({which})", now_us());
                        signal(victim, Signal::SIGKILL);
                        if which == 0 {
                            wait_new_logger(&httpd, &[logger]);
                        }
                        if which == 1 {
                            running.wait().expect("wait");
                            // As systemd does, some time later.
                            std::thread::sleep(Duration::from_millis(dice.roll(1000) as u64));
                            running = world.watch("stderr");
                        }
                    }
                }
                if matches!(blow, Blow::Graceful | Blow::Restart | Blow::Rotate(true)) {
                    wait_new_logger(&httpd, &before);
                }
                assert!(alive(pid(&running)), "{}", text_of(&world.path("stderr")));
                std::thread::sleep(Duration::from_millis(dice.roll(200) as u64));
            }
        }));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
    eprintln!(
        "{mpm:?}: {} blows in {:?}; killed: {} run, {} watch, {} helpers of run, {} of watch",
        blows.len(),
        begun.elapsed(),
        kills[0],
        kills[1],
        kills[2],
        kills[3]
    );
    // What a killed process left behind is taken away by the one that follows it.
    let lock = || text_of(&world.path("run/f2b-pipe.lock"));
    let news = UnixDatagram::unbound().expect("a socket");
    wait_until("watch to be in charge", secs(10), || {
        lock().trim() == running.id().to_string()
            && UnixStream::connect(world.path("run/f2b-pipe.sock")).is_ok()
            && news.connect(world.path("run/f2b-pipe.bans")).is_ok()
    });
    let tally = load.stop();
    assert!(tally.refused == 0 && tally.served > 3_000, "{tally:?}");
    httpd.stop();
    let watch_s = [&[pid(&running)], &children(pid(&running))[..]].concat();
    wait_until("the loggers' end", secs(5), || {
        world.processes().iter().all(|pid| watch_s.contains(pid))
    });
    signal(pid(&running), Signal::SIGTERM);
    assert!(running.wait().expect("wait").success());
    assert_complete(&world, kills[0]);
    assert_banned(&world);
    assert_nothing_is_left(&world);
    for log in [httpd.error_log(), text_of(&world.path("stderr"))] {
        assert!(!log.contains("internal error"), "{log}");
    }
}

#[test]
#[ignore = "needs root and network namespaces"]
fn restarts_rotations_and_kills_under_load_of_the_event_model_cost_no_line_and_no_ban() {
    storm(Mpm::Event);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn restarts_rotations_and_kills_under_load_of_prefork_cost_no_line_and_no_ban() {
    storm(Mpm::Prefork);
}

/// Somebody listens where `watch` does, and does not answer: for some hundredths of a second the hits of a logger that has
/// just begun are known to nobody else. If it is killed then, the next one finds their lines in the pipe.
#[test]
#[ignore = "needs root and network namespaces"]
fn a_logger_that_is_killed_while_it_asks_for_watch_costs_no_ban() {
    let world = World::new();
    world.config(CONFIG);
    fs::create_dir(world.path("run")).expect("mkdir");
    let log = world.path("access.log").display().to_string();
    let args = ["--format", "common", "--single-writer", "--tee", &log];
    let line = |n: usize| {
        format!("198.18.1.{n} - - [02/Mar/2026:08:00:00 +0000] \"GET /missing HTTP/1.1\" 404 5")
    };
    for n in 1..=5 {
        let feed = world.path("run/f2b-pipe.feed");
        let listener = UnixListener::bind(&feed).expect("a socket");
        let mut piped = world.pipe(1 << 16, &args);
        piped.line(&line(n));
        wait_until("the line in the log", secs(5), || {
            contains(&bytes_of(log.as_ref()), &line(n))
        });
        piped.kill();
        drop(listener);
        fs::remove_file(feed).expect("the socket");
        piped.start(&world, &args);
        world.wait_banned("missing", &format!("198.18.1.{n}"));
        piped.close(secs(5));
    }
}
