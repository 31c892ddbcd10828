//! The journal, of a journald of our own: on a /run that only this test's thread and its children see.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on should stop"
)]

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};

use f2b_pipe::source::journal::{Cursor, Event, Journal, Place, Query, available};
use f2b_pipe::source::tail::Encoding;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SOCKET: &str = "/run/systemd/journal/socket";

/// A journald, and a socket to it.
struct Journald(Child, UnixDatagram);

impl Journald {
    fn start() -> Self {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        for folder in ["/run", "/var/log"] {
            mount(Some("none"), folder, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        }
        std::fs::create_dir_all("/run/systemd/journal").unwrap();
        assert!(!available());
        let journald = [
            "/usr/lib/systemd/systemd-journald",
            "/lib/systemd/systemd-journald",
        ]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("systemd-journald");
        let child = Command::new(journald).spawn().unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while socket.connect(SOCKET).is_err() || !available() {
            assert!(Instant::now() < deadline, "journald does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self(child, socket)
    }

    fn send(&self, fields: &[(&str, &[u8])]) {
        let mut datagram = Vec::new();
        for (name, value) in fields {
            datagram.extend_from_slice(name.as_bytes());
            datagram.push(b'\n');
            datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
            datagram.extend_from_slice(value);
            datagram.push(b'\n');
        }
        self.1.send(&datagram).unwrap();
    }

    fn say(&self, ident: &str, message: &str) {
        self.send(&[
            ("SYSLOG_IDENTIFIER", ident.as_bytes()),
            ("MESSAGE", message.as_bytes()),
        ]);
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn now() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

fn query(lines: &[&str]) -> Query {
    Query::new(lines.iter().copied(), Place::default(), Encoding::UTF_8).unwrap()
}

#[derive(Default)]
struct Seen {
    texts: Vec<String>,
    times: Vec<f64>,
    lives: Vec<bool>,
    ends: usize,
    troubles: Vec<String>,
}

impl Seen {
    fn until(&mut self, journal: &mut Journal, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(15);
        while !holds(self) {
            assert!(
                Instant::now() < deadline,
                "{what}: {:?} {:?}",
                self.texts,
                self.troubles
            );
            self.step(journal, Duration::from_millis(100));
        }
    }

    fn step(&mut self, journal: &mut Journal, timeout: Duration) {
        journal
            .wait(timeout, &mut |event| match event {
                Event::Entry { text, time, live } => {
                    self.texts.push(text.to_owned());
                    self.times.push(time);
                    self.lives.push(live);
                }
                Event::ReachedEnd => self.ends += 1,
                Event::Well => self.troubles.push("well".to_owned()),
                Event::Trouble { text } => self.troubles.push(text.to_owned()),
            })
            .unwrap();
    }

    /// What was said, without who said it.
    fn messages(&self) -> Vec<&str> {
        self.texts
            .iter()
            .map(|text| text.split_once(": ").unwrap().1)
            .collect()
    }
}

#[test]
#[ignore = "needs root, and systemd-journald"]
fn entries_come_once_each_though_journalctl_is_killed_and_we_start_again() {
    let journald = Journald::start();
    let matches = ["SYSLOG_IDENTIFIER=a + SYSLOG_IDENTIFIER=b"];
    journald.say("a", "before");
    journald.say("c", "of no interest");
    std::thread::sleep(Duration::from_millis(2200));
    let mut journal = Journal::new(query(&matches), None, now() - 600.0, now());
    let mut seen = Seen::default();
    seen.until(&mut journal, "before", |seen| seen.texts.len() == 1);
    assert_eq!(seen.lives, [false]);
    journald.say("b", "live");
    seen.until(&mut journal, "live", |seen| seen.texts.len() == 2);
    assert_eq!((seen.lives[1], seen.ends), (true, 1));
    assert!((seen.times[1] - now()).abs() < 5.0);

    let child = journal.child().unwrap();
    kill(Pid::from_raw(child.try_into().unwrap()), Signal::SIGKILL).unwrap();
    journald.say("a", "while it was dead");
    seen.until(&mut journal, "killed", |seen| seen.texts.len() == 3);
    assert!(seen.troubles[0].contains("SIGKILL"), "{:?}", seen.troubles);
    journald.say("a", "after");
    seen.until(&mut journal, "after", |seen| seen.texts.len() == 4);

    let stored = serde_json::to_string(journal.cursor().unwrap()).unwrap();
    let child = journal.child().unwrap();
    drop(journal);
    assert!(!Path::new(&format!("/proc/{child}")).exists());
    journald.say("b", "while we were gone");
    let stored: Cursor = serde_json::from_str(&stored).unwrap();
    assert_eq!(stored.query, query(&matches).to_string());
    let mut journal = Journal::new(query(&matches), Some(stored.clone()), now() - 600.0, now());
    seen.until(&mut journal, "gone", |seen| seen.texts.len() == 5);
    assert_eq!(
        seen.messages(),
        [
            "before",
            "live",
            "while it was dead",
            "after",
            "while we were gone"
        ]
    );

    // A cursor of a journal that is no more, and one that is none.
    for cursor in [
        stored
            .cursor
            .replacen("s=", "s=0", 1)
            .replacen("i=", "i=f", 1),
        "nonsense".to_owned(),
    ] {
        let lost = Cursor {
            cursor,
            ..stored.clone()
        };
        let mut seen = Seen::default();
        let mut journal = Journal::new(query(&matches), Some(lost), now() - 600.0, now());
        seen.until(&mut journal, "end", |seen| seen.ends == 1);
        journald.say("a", "all the same");
        seen.until(&mut journal, "lost", |seen| {
            seen.texts
                .last()
                .is_some_and(|text| text.ends_with("all the same"))
        });
    }
}

#[test]
#[ignore = "needs root, and systemd-journald"]
fn a_journalctl_whose_reader_was_killed_ends_by_itself() {
    let _journald = Journald::start();
    // What SIGKILL leaves of us: the pipe's end is closed.
    let mut child = Command::new("journalctl")
        .args([
            "--follow",
            "--no-tail",
            "--output=json",
            "SYSLOG_IDENTIFIER=nobody",
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdout.take());
    let deadline = Instant::now() + Duration::from_secs(5);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs root, and systemd-journald"]
fn what_journalctl_does_not_like_is_said_and_tried_again_ever_more_slowly() {
    let _journald = Journald::start();
    let place = Place {
        files: vec!["/nonexistent/*.journal".to_owned()],
        ..Place::default()
    };
    let query = Query::new(["_COMM=x"], place, Encoding::UTF_8).unwrap();
    let mut journal = Journal::new(query, None, 0.0, now());
    let mut seen = Seen::default();
    let begun = Instant::now();
    let mut children = 0;
    let mut last = None;
    while begun.elapsed() < Duration::from_secs(4) {
        seen.step(&mut journal, Duration::from_millis(50));
        if journal.child().is_some() && journal.child() != last {
            last = journal.child();
            children += 1;
        }
    }
    assert!(children <= 3, "{children}");
    assert_eq!(seen.troubles.len(), 1, "{:?}", seen.troubles);
}

#[test]
#[ignore = "needs root, systemd-journald, and Debian's fail2ban and python3-systemd packages"]
fn text_and_time_are_those_of_fail2ban() {
    let journald = Journald::start();
    let a = ("SYSLOG_IDENTIFIER", &b"app"[..]);
    // Not among them: a pid that is no number, which it shows as a Python literal, b'main'.
    let cases: [&[(&str, &[u8])]; 13] = [
        &[a, ("MESSAGE", b"plain")],
        &[("MESSAGE", b"no identifier")],
        &[a, ("SYSLOG_PID", b"77"), ("MESSAGE", b"its own pid")],
        &[a, ("SYSLOG_PID", b"007"), ("MESSAGE", b"zeros")],
        &[a, ("SYSLOG_PID", b"0"), ("MESSAGE", b"zero")],
        &[a, ("SYSLOG_PID", b"0x1f"), ("MESSAGE", b"hexadecimal")],
        &[a, ("MESSAGE", b"two\nlines\n")],
        &[a, ("MESSAGE", b"bytes \xff\xe9 \x1b[31m \xe2\x82\xac")],
        &[a, ("MESSAGE", b"one"), ("MESSAGE", b"two \xff")],
        &[a, ("MESSAGE", b"")],
        &[a, ("PRIORITY", b"3")],
        &[
            ("SYSLOG_IDENTIFIER", b"kernel"),
            ("SYSLOG_PID", b""),
            ("MESSAGE", b"not the kernel"),
        ],
        &[a, ("MESSAGE", "tabs\tand ünïcödé  ".as_bytes())],
    ];
    for case in cases {
        journald.send(case);
    }
    journald.send(&[a, ("MESSAGE", &vec![b'x'; 100_000])]);
    journald.say("app", "last");
    let mut journal = Journal::new(query(&[]), None, 0.0, now());
    let mut seen = Seen::default();
    seen.until(&mut journal, "last", |seen| {
        seen.texts
            .last()
            .is_some_and(|text| text.ends_with(": last"))
    });
    let script = r#"
import json, sys
sys.path.insert(0, "/usr/lib/python3/dist-packages")
from systemd import journal
from fail2ban.server.filtersystemd import FilterSystemd
f = FilterSystemd.__new__(FilterSystemd)
f.jail = None
f.getLogEncoding = lambda: "utf-8"
reader = journal.Reader(converters={"__CURSOR": lambda x: x}, flags=4)
out = []
for entry in reader:
    line, time = f.formatJournalEntry(entry)
    out.append([line[0] + line[2], time])
print(json.dumps(out))
"#;
    let ran = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let want: Vec<(String, f64)> = serde_json::from_slice(&ran.stdout).unwrap();
    assert!(want.len() > cases.len());
    let got: Vec<_> = seen
        .texts
        .iter()
        .cloned()
        .zip(seen.times.iter().copied())
        .collect();
    for (got, want) in got.iter().zip(&want) {
        assert_eq!(got.0, want.0);
        assert!((got.1 - want.1).abs() < 1e-5, "{got:?} {want:?}");
    }
}
