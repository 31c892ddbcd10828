//! Lines over 4096 bytes that a full pipe tears, at places that clients choose, and lines with forged beginnings.
//!
//! One jail here counts every line and bans at the first, so whoever was counted once for anything is in its set: that
//! set may only hold addresses that httpd itself wrote. Two more jails hold those who did something bad: no victim,
//! who only ever asks for a harmless page, may be in them. The bans close a port that nobody uses, so that the storm
//! goes on.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{
    Connection, Load, Piped, Request, Setup, World, bytes_of, comes_true, secs, signal, wait_until,
};

const CONFIG: &str = r#"
[defaults]
maxretry = 1
findtime = "10m"
bantime = "1h"
port = ["9"]

[firewall]
kill_connections = false

[jail.everyone]

[jail.refused]
status = [401, 404]

[jail.agent]
agent = 'evil'
"#;

/// Where a pipe tears a line: at multiples of this from its start or from its length modulo this.
const PAGE: usize = 4096;

/// Ask for the harmless page only. Without its first digit, or with another before it, each is an address that is not
/// among these.
fn victim(n: usize) -> String {
    format!("11.22.33.{}", 1 + n % 8)
}

/// Do bad things in long lines.
fn forger(n: usize) -> String {
    format!("11.22.44.{}", 1 + n % 8)
}

/// Do bad things in short lines, amid the storm.
fn prowler(n: usize) -> String {
    format!("11.22.66.{}", 1 + n % 16)
}

/// Do bad things before the storm.
fn early(n: usize) -> String {
    format!("11.22.55.{}", 1 + n % 16)
}

fn is_true(address: &str) -> bool {
    let mut parts = address.rsplitn(2, '.');
    let last: usize = parts.next().and_then(|p| p.parse().ok()).unwrap_or(0);
    match parts.next() {
        Some("11.22.33" | "11.22.44") => (1..=8).contains(&last),
        Some("11.22.55" | "11.22.66") => (1..=16).contains(&last),
        _ => false,
    }
}

/// Which format a line is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Combined,
    F2b,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Combined => "combined",
            Self::F2b => "f2b",
        }
    }
}

/// Writes lines as httpd does.
struct Httpd {
    format: Format,
    requests: AtomicU64,
}

impl Httpd {
    fn line(&self, ip: &str, user: &str, path: &str, status: u16, agent: &str) -> String {
        let request = format!("GET {path} HTTP/1.1");
        match self.format {
            Format::Combined => format!(
                "{ip} - {user} [02/Mar/2026:08:00:00 +0000] \"{request}\" {status} 99 \"-\" \"{agent}\"\n"
            ),
            Format::F2b => {
                let n = self.requests.fetch_add(1, Ordering::Relaxed);
                let token = format!(
                    "f2b:{}:{:x}",
                    1_772_438_400_000_000 + n * 7,
                    0x7f2a_1c00 + n % 64
                );
                format!(
                    "{token} {ip} {ip} www.example.org {status} 99 321 \"{user}\" \"{request}\" \"-\" \"{agent}\" {token}\n"
                )
            }
        }
    }

    /// A line whose length is `n` bytes, by a longer agent made of `fill`.
    fn padded(
        &self,
        ip: &str,
        user: &str,
        path: &str,
        status: u16,
        fill: &str,
        n: usize,
    ) -> String {
        let bare = self.line(ip, user, path, status, "").len();
        let mut agent = fill.repeat(n / fill.len());
        agent.truncate(n - bare);
        self.line(ip, user, path, status, &agent)
    }

    /// A victim's harmless long line that tears behind its first byte.
    fn victims(&self, n: usize) -> String {
        self.padded(
            &victim(n),
            "-",
            "/page",
            200,
            "harmless ",
            PAGE * (2 + n % 3) + 1,
        )
    }

    /// A line that tears where its user name begins a perfect line of somebody else.
    fn framing(&self, n: usize, whom: &str) -> String {
        let user = format!("{} {whom} - -", "p".repeat(40 + n % 50));
        let line = self.line(&forger(n), &user, "/x", 401, "");
        let at = line.find(whom).expect("it is in there");
        self.padded(
            &forger(n),
            &user,
            "/x",
            401,
            "pad ",
            PAGE * (1 + n % 3) + at,
        )
    }

    /// A line any tail of which completes somebody's torn agent, and says something evil in it.
    fn completing(&self, n: usize) -> String {
        self.padded(
            &forger(n),
            "-",
            "/page",
            200,
            "evil ",
            PAGE * 2 + 30 + n % 200,
        )
    }
}

/// What the program under test must not have done, and that the storm was one.
#[track_caller]
fn assert_only_the_guilty(world: &World, what: &str) {
    let counted: BTreeSet<String> = world.banned("everyone").into_iter().collect();
    let untrue: Vec<&String> = counted.iter().filter(|a| !is_true(a)).collect();
    assert!(
        untrue.is_empty(),
        "{what}: counted, but never on a line: {untrue:?}"
    );
    for jail in ["refused", "agent"] {
        let framed: Vec<String> = world
            .banned(jail)
            .into_iter()
            .filter(|a| a.starts_with("11.22.33.") || !is_true(a))
            .collect();
        assert!(
            framed.is_empty(),
            "{what}: banned by {jail} for another's text: {framed:?}"
        );
    }
}

/// Lines of the log that begin as somebody else's, by the naive reading of a first word.
fn forged_lines(log: &[u8]) -> usize {
    log.split(|&b| b == b'\n')
        .filter(|line| {
            let first = line.split(|&b| b == b' ').next().unwrap_or_default();
            let first = String::from_utf8_lossy(first);
            first.parse::<std::net::Ipv4Addr>().is_ok() && !is_true(&first)
        })
        .count()
}

/// Lines of the log that are torn: in the f2b format whatever does not begin with a token.
fn torn_lines(log: &[u8]) -> usize {
    log.split(|&b| b == b'\n')
        .filter(|line| !line.is_empty() && !line.starts_with(b"f2b:"))
        .count()
}

/// Writers on a pipe that is too full, until stopped.
struct Storm {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

impl Storm {
    fn start(httpd: &Arc<Httpd>, piped: &Piped) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..16)
            .map(|writer| {
                let (stop, httpd) = (Arc::clone(&stop), Arc::clone(httpd));
                let mut pipe = piped.another_writer();
                thread::spawn(move || {
                    // Made before, so that the pipe is full within a few milliseconds.
                    let lines: Vec<String> = (0..48)
                        .map(|n| match writer % 8 {
                            0 | 1 => httpd.victims(n),
                            2 => httpd.framing(n, "6.6.6.6"),
                            3 => httpd.framing(n, &victim(n)),
                            4 | 5 => httpd.completing(n),
                            6 => httpd.line(&victim(n), "-", "/page", 200, "short"),
                            _ => httpd.line(&prowler(n), "-", "/x", 404, "short"),
                        })
                        .collect();
                    for line in lines.iter().cycle() {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        pipe.write_all(line.as_bytes()).expect("the pipe");
                    }
                })
            })
            .collect();
        Self { stop, writers }
    }

    /// Lets the program read meanwhile, since the writers sleep in the pipe.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.join().expect("a writer");
        }
    }
}

/// Holds a process up again and again, each time until the pipe has filled, and lets it go on until it has written to
/// `log`; until there was a storm worth the name in it.
#[track_caller]
fn hold_up(pid: i32, each: Duration, log: &Path, format: Format) {
    let written = || std::fs::metadata(log).map_or(0, |m| m.len());
    let end = Instant::now() + secs(40);
    while Instant::now() < end {
        for _ in 0..25 {
            let had = written();
            signal(pid, Signal::SIGSTOP);
            thread::sleep(each);
            signal(pid, Signal::SIGCONT);
            comes_true(Duration::from_millis(60), || written() > had + (1 << 18));
        }
        if is_stormy(&bytes_of(log), format) {
            return;
        }
    }
    let log = bytes_of(log);
    let (forged, torn) = (forged_lines(&log), torn_lines(&log));
    panic!("no storm: {forged} lines with a forged beginning, {torn} without a token");
}

/// Enough of what this is about: lines that a naive reader would believe, or in the f2b format torn ones, and each
/// prowler's short line among them.
fn is_stormy(log: &[u8], format: Format) -> bool {
    match format {
        Format::Combined => forged_lines(log) > 20,
        Format::F2b => {
            let text = String::from_utf8_lossy(log);
            torn_lines(log) > 20 && (0..16).all(|n| text.contains(&format!(" {} ", prowler(n))))
        }
    }
}

/// Lines that nothing can have torn: long headers, user names with blanks and whole lines in them.
fn whole_traffic(httpd: &Httpd, piped: &Piped) -> BTreeSet<String> {
    let mut bad = BTreeSet::new();
    for n in 0..16 {
        let ip = early(n);
        let line = match n % 4 {
            0 => httpd.line(&ip, "-", "/x", 404, "short"),
            1 => httpd.line(&ip, "a b c", "/x", 401, "short"),
            2 => httpd.line(
                &ip,
                "6.6.6.6 - - [02/Mar/2026:07:00:00 +0000] \\\"GET",
                "/x",
                401,
                "short",
            ),
            _ => httpd.padded(&ip, "-", "/x", 404, "pad ", 20_000 + n),
        };
        piped.line(line.trim_end());
        thread::sleep(Duration::from_millis(3));
        bad.insert(ip);
    }
    bad
}

#[track_caller]
fn wait_for_all(world: &World, whom: &BTreeSet<String>, what: &str) {
    let missing = || -> Vec<String> {
        let banned: BTreeSet<String> = world.banned("refused").into_iter().collect();
        whom.difference(&banned).cloned().collect()
    };
    if !comes_true(secs(5), || missing().is_empty()) {
        let log = String::from_utf8_lossy(&bytes_of(&world.path("access.log"))).into_owned();
        let all: Vec<String> = missing()
            .iter()
            .map(|ip| format!("{ip}: {} lines", log.matches(&format!(" {ip} ")).count()))
            .collect();
        panic!("{what}: not banned: {all:#?}");
    }
}

/// A storm of own writers, before which whole traffic is judged to the last line.
fn own_storm(format: Format, each: Duration) {
    let world = World::new();
    world.config(CONFIG);
    let log = world.path("access.log");
    let httpd = Arc::new(Httpd {
        format,
        requests: AtomicU64::new(0),
    });
    let tee = log.display().to_string();
    let mut piped = world.pipe(1 << 16, &["--format", format.name(), "--tee", &tee]);
    // Once it reads, its pipe is enlarged, and no line of these comes near to filling it.
    piped.line(
        httpd
            .line(&victim(0), "-", "/page", 200, "short")
            .trim_end(),
    );
    wait_until("the first line", secs(5), || !bytes_of(&log).is_empty());
    let early = whole_traffic(&httpd, &piped);
    wait_for_all(&world, &early, "whole traffic");
    let storm = Storm::start(&httpd, &piped);
    hold_up(piped.pid(), each, &log, format);
    storm.end();
    // In the storm itself only lines that prove themselves count: that is what the f2b format is for.
    if format == Format::F2b {
        let prowlers: BTreeSet<String> = (0..16).map(prowler).collect();
        wait_for_all(&world, &prowlers, "f2b lines amid tears");
    }
    assert!(
        piped.close(secs(20)).is_some_and(|s| s.success()),
        "{}",
        piped.said()
    );
    assert_only_the_guilty(&world, "own storm");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn torn_combined_lines_of_own_writers_count_for_nobody_else() {
    own_storm(Format::Combined, Duration::from_millis(20));
    own_storm(Format::Combined, Duration::from_millis(90));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn torn_f2b_lines_of_own_writers_count_for_nobody_else_and_whole_ones_among_them_count() {
    own_storm(Format::F2b, Duration::from_millis(20));
    own_storm(Format::F2b, Duration::from_millis(90));
}

/// The pipe is full, of its original size, and in the middle of tears when the program comes: as after a crash.
#[test]
#[ignore = "needs root and network namespaces"]
fn a_process_that_comes_to_a_full_pipe_believes_no_torn_line() {
    for (format, capacity) in [
        (Format::Combined, 1 << 16),
        (Format::Combined, 1 << 20),
        (Format::F2b, 1 << 16),
    ] {
        let world = World::new();
        world.config(CONFIG);
        let log = world.path("access.log");
        let tee = log.display().to_string();
        let args = ["--format", format.name(), "--tee", &tee];
        let httpd = Arc::new(Httpd {
            format,
            requests: AtomicU64::new(0),
        });
        let (mut rounds, mut tears) = (0, 0);
        while rounds < 3 || tears <= 3 {
            rounds += 1;
            assert!(rounds < 20, "{tears} tears only");
            let mut piped = world.pipe(capacity, &args);
            piped.kill();
            let storm = Storm::start(&httpd, &piped);
            for lives_for in [150, 40, 40] {
                // Writers fill the pipe and sleep; it comes, judges some of it, and is killed again.
                thread::sleep(Duration::from_millis(40));
                let size = || std::fs::metadata(&log).map_or(0, |m| m.len());
                let had = size();
                piped.start(&world, &args);
                wait_until("the tee to grow", secs(5), || size() > had);
                thread::sleep(Duration::from_millis(lives_for));
                piped.kill();
            }
            piped.start(&world, &args);
            storm.end();
            assert!(
                piped.close(secs(20)).is_some_and(|s| s.success()),
                "{}",
                piped.said()
            );
            tears += match format {
                Format::Combined => forged_lines(&bytes_of(&log)),
                Format::F2b => torn_lines(&bytes_of(&log)),
            };
            std::fs::remove_file(&log).expect("the log");
        }
        assert_only_the_guilty(&world, &format!("{format:?} {capacity}"));
    }
}

/// An enlarged pipe was somebody's before, who died: what is in it may be torn, whatever the new process sees.
#[test]
#[ignore = "needs root and network namespaces"]
fn a_process_that_follows_a_dead_one_believes_only_f2b_for_two_seconds() {
    for format in [Format::Combined, Format::F2b] {
        let world = World::new();
        world.config(CONFIG);
        let httpd = Httpd {
            format,
            requests: AtomicU64::new(0),
        };
        let log = world.path("access.log");
        let tee = log.display().to_string();
        let piped = world.pipe(1 << 20, &["--format", format.name(), "--tee", &tee]);
        let start = Instant::now();
        piped.line(httpd.line(&early(0), "-", "/x", 404, "short").trim_end());
        wait_until("its line", secs(1), || !bytes_of(&log).is_empty());
        if format == Format::F2b {
            world.wait_banned("refused", &early(0));
            continue;
        }
        while start.elapsed() < Duration::from_millis(1500) {
            assert_eq!(
                world.banned_anywhere(),
                [""; 0],
                "after {:?}",
                start.elapsed()
            );
            thread::sleep(Duration::from_millis(100));
        }
        // Then it is a process like any other.
        let believed = comes_true(secs(5), || {
            piped.line(httpd.line(&early(1), "-", "/x", 404, "short").trim_end());
            thread::sleep(Duration::from_millis(50));
            world.banned("refused") == [early(1)]
        });
        assert!(believed, "{:?}", world.banned_anywhere());
    }
}

/// What httpd makes of `request` from `from`: the length of its line, newline included.
fn line_length(
    world: &World,
    httpd: &crate::support::Httpd<'_>,
    from: &str,
    request: &Request,
) -> usize {
    let had = httpd.oracle().len();
    let mut connection = Connection::open(world, from).expect("a connection");
    connection.ask(request).expect("an answer");
    wait_until("its line", secs(5), || httpd.oracle().len() > had);
    httpd.oracle().len() - had
}

/// Real httpd, real clients that send long headers and long user names, and a logger that is held up.
fn live_storm(format: Format) {
    let world = World::new();
    world.config(CONFIG);
    let httpd = Setup::new(&world).format(format.name()).start();

    // Whole traffic first, once the pipe is enlarged.
    assert_eq!(world.curl(&victim(0), "/page"), Some(200));
    wait_until("the first line", secs(5), || !httpd.tee().is_empty());
    let mut guilty = BTreeSet::new();
    for n in 0..16 {
        let request = match n % 4 {
            0 => Request::get("/x"),
            1 => Request::get("/private/x").login("a b c", "x"),
            2 => Request::get("/private/x")
                .login("6.6.6.6 - - [02/Mar/2026:07:00:00 +0000] \"GET", "x"),
            _ => Request::get("/x").agent(&"\u{ff}".repeat(2000)),
        };
        let mut connection = Connection::open(&world, &early(n)).expect("a connection");
        assert!(connection.ask(&request).expect("an answer") >= 400);
        guilty.insert(early(n));
    }
    wait_for_all(&world, &guilty, "whole traffic");

    // How long the lines are that the same requests make without padding. Each padding letter is eight bytes in the
    // log, so that few requests fill the pipe; x is one.
    let harmless = |pad: usize| {
        Request::get("/page").agent(&format!(
            "{}{}",
            "\u{ff}".repeat(pad / 8),
            "x".repeat(pad % 8 + 1)
        ))
    };
    let framing = |whom: &str, before: usize, pad: usize| {
        Request::get("/private/x")
            .agent(&format!(
                "{}{}",
                "\u{ff}".repeat(pad / 8),
                "x".repeat(pad % 8 + 1)
            ))
            .login(&format!("{} {whom} - -", "p".repeat(before)), "x")
    };
    let bare_harmless = line_length(&world, &httpd, &victim(0), &harmless(0));
    let bare_framing = line_length(&world, &httpd, &forger(0), &framing("6.6.6.6", 40, 0));
    // IP, " - ", forty letters and a blank.
    let framed_at = forger(0).len() + 3 + 41;

    let load = Load::start(
        &world,
        64,
        usize::MAX,
        Duration::ZERO,
        |client| match client % 8 {
            0..=2 => victim(client / 8),
            3..=5 => forger(client / 8),
            // One prowler a connection: sixteen.
            _ => prowler(client / 8 * 2 + client % 2),
        },
        move |client, n| {
            let pages = 2 + (n + client) % 5;
            match client % 8 {
                0..=2 => harmless(PAGE * pages + 1 - bare_harmless % PAGE),
                // The same length as 6.6.6.6, and not one of the true ones in either case.
                3 => framing("6.6.6.6", 40, PAGE * pages + framed_at - bare_framing),
                4 => {
                    let whom = victim(n);
                    let pad = PAGE * pages + framed_at - bare_framing - (whom.len() - 7);
                    framing(&whom, 40, pad)
                }
                5 => Request::get("/page").agent(&"evil ".repeat(1000 + n % 200)),
                _ => Request::get("/x").agent("short"),
            }
        },
    );
    let pid = httpd.logger();
    hold_up(
        pid,
        Duration::from_millis(20),
        &world.path("access.log"),
        format,
    );
    let tally = load.stop();
    assert!(tally.served > 100 && tally.refused > 100, "{tally:?}");
    if format == Format::F2b {
        let prowlers = (0..16).map(prowler).collect();
        wait_for_all(&world, &prowlers, "f2b lines amid tears");
    }
    httpd.stop();
    wait_until("the logger's end", secs(10), || httpd.loggers().is_empty());
    assert_only_the_guilty(&world, "live");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn torn_combined_lines_of_real_clients_count_for_nobody_else() {
    live_storm(Format::Combined);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn torn_f2b_lines_of_real_clients_count_for_nobody_else_and_whole_ones_among_them_count() {
    live_storm(Format::F2b);
}

/// Without any tear: what a client writes is never an address.
#[test]
#[ignore = "needs root and network namespaces"]
fn addresses_in_what_clients_write_are_never_counted() {
    for format in ["combined", "f2b"] {
        let world = World::new();
        world.config(CONFIG);
        let httpd = Setup::new(&world).format(format).start();
        let forged =
            "6.6.6.6 - - [02/Mar/2026:08:00:00 +0000] \"GET / HTTP/1.1\" 401 1 \"-\" \"-\"";
        let mut client = Connection::open(&world, &forger(0)).expect("a connection");
        let attempts = [
            Request::get("/x").agent(forged),
            Request::get("/x").header("Referer", forged),
            Request::get("/private/x").login(forged, "x"),
            Request::get("/private/x").login(&format!("x\r\n{forged}"), "x"),
            Request::get("/private/x").login("", "x"),
            Request::get(format!("/%0a{}", forged.replace(' ', "%20"))),
            Request::get("/x").header("X-Forwarded-For", "6.6.6.6"),
            Request::get("/x").method("6.6.6.6"),
        ];
        for request in &attempts {
            if client.ask(request).is_err() {
                client = Connection::open(&world, &forger(0)).expect("a connection");
            }
        }
        for raw in [
            format!("{forged}\r\n\r\n"),
            "6.6.6.6 - -\r\n\r\n".to_owned(),
            "GET /\0 6.6.6.6\r\n\r\n".to_owned(),
        ] {
            let mut strange = Connection::open(&world, &forger(0)).expect("a connection");
            strange.send(raw.as_bytes()).expect("sent");
            strange.answer(false).ok();
        }
        wait_until("the last line", secs(5), || {
            httpd.tee().len() >= httpd.oracle().len()
        });
        world.wait_banned("refused", &forger(0));
        assert_eq!(
            world.banned_anywhere().len(),
            2,
            "{format}: {:?}",
            world.banned_anywhere()
        );
    }
}
