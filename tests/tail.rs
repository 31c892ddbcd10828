//! Following logs through what happens to logs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on should stop"
)]

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use f2b_pipe::source::tail::{Encoding, Entry, Event, FileId, Options, Position, Start, Tail};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("f2b-pipe-tail-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A tail, and all it said.
struct Seen {
    tail: Tail,
    lines: Vec<(String, bool)>,
    events: Vec<String>,
    found: Vec<(FileId, Start)>,
}

impl Seen {
    fn new(globs: &[&Path], options: Options) -> Self {
        Self::of(globs.iter().map(|glob| entry(glob)).collect(), options)
    }

    fn of(entries: Vec<Entry>, options: Options) -> Self {
        Self {
            tail: Tail::new(entries, options).unwrap(),
            lines: Vec::new(),
            events: Vec::new(),
            found: Vec::new(),
        }
    }

    fn step(&mut self, timeout: Duration) {
        let Self {
            tail,
            lines,
            events,
            found,
        } = self;
        tail.wait(timeout, &mut |event| match event {
            Event::Found { file, start } => found.push((file.id, start)),
            Event::Line { text, live, .. } => lines.push((text.to_owned(), live)),
            Event::ReachedEnd { .. } => events.push("end".to_owned()),
            Event::Rotated { .. } => events.push("rotated".to_owned()),
            Event::Gone { .. } => events.push("gone".to_owned()),
            Event::Trouble { path, text } => events.push(format!("{}: {text}", path.display())),
        })
        .unwrap();
    }

    /// Waits until it holds.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds(self) {
            let events = &self.events;
            assert!(
                Instant::now() < deadline,
                "{what}: {events:?} {:?}",
                self.last()
            );
            self.step(Duration::from_millis(100));
        }
    }

    fn lines(&mut self, want: &[&str]) {
        self.until(&format!("{want:?}"), |seen| seen.lines.len() >= want.len());
        self.quiet();
        assert_eq!(self.texts(), want);
    }

    fn quiet(&mut self) {
        for _ in 0..5 {
            self.step(Duration::from_millis(20));
        }
    }

    fn texts(&self) -> Vec<&str> {
        self.lines.iter().map(|(text, _)| text.as_str()).collect()
    }

    fn last(&self) -> &[(String, bool)] {
        &self.lines[self.lines.len().saturating_sub(3)..]
    }
}

fn entry(glob: &Path) -> Entry {
    Entry {
        glob: glob.to_str().unwrap().to_owned(),
        from_end: false,
        encoding: Encoding::UTF_8,
        owners: vec![1],
    }
}

fn append(path: &Path, text: impl AsRef<[u8]>) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_ref()).unwrap();
}

/// Both ways to know that a file has grown.
fn both_ways(test: impl Fn(Options)) {
    for polling in [false, true] {
        test(Options {
            polling,
            ..Options::default()
        });
    }
}

#[test]
fn lines_are_old_until_the_end_was_reached_and_unfinished_ones_wait() {
    both_ways(|options| {
        let folder = Folder::new();
        let log = folder.path("a.log");
        append(&log, "old\nunfi");
        let mut seen = Seen::new(&[&log], options);
        seen.lines(&["old"]);
        assert_eq!(seen.events, ["end"]);
        append(&log, "nished");
        seen.quiet();
        append(&log, " line\r\n");
        seen.lines(&["old", "unfinished line"]);
        assert!(!seen.lines[0].1);
        assert!(seen.lines[1].1);
    });
}

#[test]
fn a_tail_entry_begins_at_the_end_and_not_inside_of_a_line() {
    let folder = Folder::new();
    let log = folder.path("a.log");
    append(&log, "old\n6.6.6.6 ha");
    let mut entry = entry(&log);
    entry.from_end = true;
    let mut seen = Seen::of(vec![entry], Options::default());
    seen.until("end", |seen| !seen.events.is_empty());
    append(&log, "lf\nnew\n");
    seen.lines(&["new"]);
    assert_eq!(seen.found[0].1, Start::End);
}

#[test]
fn rotation_by_rename_reads_the_old_file_to_its_end_first() {
    both_ways(|options| {
        let folder = Folder::new();
        let (log, old) = (folder.path("a.log"), folder.path("a.log.1"));
        append(&log, "1\n");
        let mut seen = Seen::new(&[&log], options);
        seen.lines(&["1"]);
        append(&log, "2\n");
        fs::rename(&log, &old).unwrap();
        append(&log, "4\n");
        append(&old, "3\n");
        seen.lines(&["1", "2", "3", "4"]);
        append(&log, "5\n");
        append(&old, "late\n");
        seen.until("6", |seen| seen.lines.len() == 6);
        assert!(seen.texts().contains(&"late"));
        assert!(seen.lines[1..].iter().all(|(_, live)| *live));
    });
}

#[test]
fn a_removed_file_is_followed_when_it_comes_again() {
    both_ways(|options| {
        let folder = Folder::new();
        let log = folder.path("a.log");
        append(&log, "1\n");
        let mut seen = Seen::new(&[&log], options);
        seen.lines(&["1"]);
        append(&log, "2\n");
        fs::remove_file(&log).unwrap();
        seen.quiet();
        append(&log, "3\n");
        seen.lines(&["1", "2", "3"]);
    });
}

#[test]
fn truncation_is_seen_also_when_the_file_has_the_same_size_or_more_again() {
    both_ways(|options| {
        let folder = Folder::new();
        let log = folder.path("a.log");
        append(&log, "1 one\n2 two\n");
        let mut seen = Seen::new(&[&log], options);
        seen.lines(&["1 one", "2 two"]);
        fs::write(&log, "3 six\n").unwrap();
        seen.lines(&["1 one", "2 two", "3 six"]);
        fs::write(&log, "4 new\n").unwrap();
        seen.lines(&["1 one", "2 two", "3 six", "4 new"]);
        fs::write(&log, "5 a longer one\n").unwrap();
        seen.lines(&["1 one", "2 two", "3 six", "4 new", "5 a longer one"]);
        assert!(seen.lines[2..].iter().all(|(_, live)| *live));
    });
}

#[test]
fn the_hole_before_a_writer_that_does_not_append_is_no_line() {
    let folder = Folder::new();
    let log = folder.path("a.log");
    let mut writer = File::create(&log).unwrap();
    let long = format!("{}\n", "x".repeat(999)).repeat(1000);
    writer.write_all(long.as_bytes()).unwrap();
    let mut seen = Seen::new(&[&log], Options::default());
    seen.until("long", |seen| seen.lines.len() == 1000);
    File::options()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len(0)
        .unwrap();
    writer.write_all(b"first\nsecond\n").unwrap();
    seen.until("second", |seen| seen.lines.len() == 1002);
    assert_eq!(&seen.texts()[1000..], ["first", "second"]);
}

#[test]
fn a_log_that_someone_shortened_is_not_new_again() {
    let folder = Folder::new();
    let log = folder.path("a.log");
    append(&log, "1\n2\n3\n");
    let mut seen = Seen::new(&[&log], Options::default());
    seen.lines(&["1", "2", "3"]);
    File::options()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len(4)
        .unwrap();
    seen.lines(&["1", "2", "3", "1", "2"]);
    assert!(seen.lines.iter().all(|(_, live)| !live));
    append(&log, "4\n");
    seen.until("4", |seen| seen.lines.len() == 6);
    assert!(seen.lines[5].1);
}

#[test]
fn a_glob_takes_in_what_appears_and_folders_may_come_later() {
    both_ways(|options| {
        let folder = Folder::new();
        let glob = folder.path("sites/*/*.log");
        let literal = folder.path("later/still/auth.log");
        let mut seen = Seen::new(&[&glob, &literal], options);
        seen.quiet();
        fs::create_dir_all(folder.path("sites/one")).unwrap();
        append(&folder.path("sites/one/a.log"), "1\n");
        append(&folder.path("sites/one/.hidden.log"), "no\n");
        seen.lines(&["1"]);
        append(&folder.path("sites/one/b.log"), "2\n");
        seen.lines(&["1", "2"]);
        fs::create_dir(folder.path("later")).unwrap();
        seen.quiet();
        fs::create_dir(folder.path("later/still")).unwrap();
        append(&literal, "3\n");
        seen.lines(&["1", "2", "3"]);
    });
}

#[test]
fn files_that_come_and_go_leave_nothing_behind() {
    let folder = Folder::new();
    let mut seen = Seen::new(&[&folder.path("*.log")], Options::default());
    seen.quiet();
    for file in 0..100 {
        let log = folder.path(&format!("{file}.log"));
        append(&log, "");
        fs::remove_file(&log).unwrap();
    }
    seen.quiet();
    assert_eq!(seen.tail.followed().count(), 0);
    assert!(seen.events.is_empty(), "{:?}", seen.events);
}

#[test]
fn a_dangling_link_is_followed_when_it_leads_somewhere() {
    let folder = Folder::new();
    let (link, log) = (folder.path("link.log"), folder.path("real"));
    std::os::unix::fs::symlink(&log, &link).unwrap();
    let mut seen = Seen::new(&[&folder.path("*.log")], Options::default());
    seen.quiet();
    append(&log, "1\n");
    seen.lines(&["1"]);
}

#[test]
fn what_is_no_regular_file_is_refused_and_never_waited_for() {
    let folder = Folder::new();
    let fifo = folder.path("fifo.log");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let socket = folder.path("socket.log");
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let logs: [&Path; 5] = [
        &fifo,
        &socket,
        Path::new("/dev/null"),
        &folder.0,
        Path::new("relative"),
    ];
    let begun = Instant::now();
    let mut seen = Seen::new(&logs, Options::default());
    seen.quiet();
    assert!(begun.elapsed() < Duration::from_secs(1));
    for what in ["a FIFO", "a socket", "a device", "a folder", "begin with /"] {
        assert_eq!(
            seen.events
                .iter()
                .filter(|text| text.contains(what))
                .count(),
            1,
            "{what}: {:?}",
            seen.events
        );
    }
}

#[test]
fn positions_go_on_over_a_restart_whatever_happened_in_between() {
    let folder = Folder::new();
    let log = folder.path("a.log");
    let (old, copy) = (folder.path("a.log.1"), folder.path("a.log.2"));
    let kept = |seen: &Seen| -> Options {
        let text = serde_json::to_string(&seen.tail.positions()).unwrap();
        let positions: Vec<Position> = serde_json::from_str(&text).unwrap();
        Options {
            positions,
            ..Options::default()
        }
    };
    append(&log, "1\n2\nunfi");
    let mut seen = Seen::new(&[&log], Options::default());
    seen.lines(&["1", "2"]);
    // Grown.
    let options = kept(&seen);
    append(&log, "nished\n");
    let mut seen = Seen::new(&[&log], options);
    seen.lines(&["unfinished"]);
    assert_eq!(seen.found[0].1, Start::Stored);
    assert!(!seen.lines[0].1);
    // Renamed.
    let options = kept(&seen);
    append(&log, "3\n");
    fs::rename(&log, &old).unwrap();
    append(&log, "4\n");
    let mut seen = Seen::new(&[&log], options);
    seen.lines(&["3", "4"]);
    // Copied and truncated.
    let options = kept(&seen);
    append(&log, "5\n");
    fs::copy(&log, &copy).unwrap();
    fs::write(&log, "6\n").unwrap();
    let mut seen = Seen::new(&[&log], options);
    seen.lines(&["5", "6"]);
    // Another file altogether.
    let options = kept(&seen);
    fs::remove_file(&copy).unwrap();
    fs::remove_file(&log).unwrap();
    append(&log, "7\n8\n9\n");
    let mut seen = Seen::new(&[&log], options);
    seen.lines(&["7", "8", "9"]);
    assert_eq!(seen.found[0].1, Start::Beginning);
}

#[test]
fn a_search_by_time_finds_the_first_line_that_is_young_enough() {
    let folder = Folder::new();
    let log = folder.path("a.log");
    let mut text = String::new();
    for second in 0..20_000 {
        text += &format!("{second} a line\n");
        if second % 3 == 0 {
            text += "    without a date\n";
        }
    }
    append(&log, &text);
    let time = |line: &str| line.split(' ').next().unwrap().parse::<f64>().ok();
    for since in [0.0, 1.0, 4711.0, 4712.0, 4713.5, 19_999.0] {
        let mut seen = Seen::new(&[&log], Options::default());
        seen.step(Duration::ZERO);
        let file = seen.found[0].0;
        assert!(seen.lines.is_empty());
        let mut asked = 0;
        seen.tail
            .seek(file, since, &mut |line| {
                asked += 1;
                time(line)
            })
            .unwrap();
        assert!(asked < 100, "{asked}");
        seen.until("end", |seen| !seen.events.is_empty());
        assert_eq!(time(seen.texts()[0]), Some(since.ceil()), "{since}");
    }
    let mut seen = Seen::new(&[&log], Options::default());
    seen.step(Duration::ZERO);
    let file = seen.found[0].0;
    seen.tail.seek(file, 1e9, &mut |line| time(line)).unwrap();
    seen.until("end", |seen| !seen.events.is_empty());
    assert!(seen.lines.iter().all(|(line, _)| time(line).is_none()));
}

#[test]
fn an_endless_line_is_left_out_and_its_tail_is_no_line() {
    let folder = Folder::new();
    let log = folder.path("a.log");
    append(&log, vec![b'x'; 1_000_000]);
    let mut seen = Seen::new(&[&log], Options::default());
    seen.until("end", |seen| !seen.events.is_empty());
    let positions = seen.tail.positions();
    append(&log, "6.6.6.6\nnext\n");
    seen.lines(&["next"]);
    let mut seen = Seen::new(
        &[&log],
        Options {
            positions,
            ..Options::default()
        },
    );
    seen.lines(&["next"]);
}

#[test]
fn ten_thousand_files_are_followed_with_few_of_them_open() {
    let folder = Folder::new();
    for file in 0..10_000 {
        append(&folder.path(&format!("{file}.log")), format!("{file}\n"));
    }
    let mut seen = Seen::new(&[&folder.path("*.log")], Options::default());
    seen.until("all", |seen| seen.lines.len() == 10_000);
    seen.until("ends", |seen| seen.events.len() >= 10_000);
    let open = fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open < 900, "{open} open");
    for file in (0..10_000).step_by(7) {
        append(&folder.path(&format!("{file}.log")), "more\n");
    }
    seen.until("more", |seen| seen.lines.len() == 10_000 + 10_000 / 7 + 1);
    // One that is not kept open, through a rotation.
    let log = folder.path("9999.log");
    append(&log, "last\n");
    fs::rename(&log, folder.path("9999.old")).unwrap();
    append(&log, "first\n");
    let before = seen.lines.len();
    seen.until("rotated", |seen| seen.lines.len() == before + 2);
    assert_eq!(&seen.texts()[before..], ["last", "first"]);
}

/// Any mixture of what writers, rotations and restarts do: each line once, in its order.
#[test]
fn every_line_comes_once_in_its_order_whatever_happens() {
    let lives: Vec<_> = (1..=12)
        .map(|seed| std::thread::spawn(move || a_life(seed)))
        .collect();
    for life in lives {
        life.join().unwrap();
    }
}

fn a_life(seed: u64) {
    let folder = Folder::new();
    let log = folder.path("a.log");
    let mut options = Options {
        polling: seed.is_multiple_of(4),
        ..Options::default()
    };
    append(&log, "");
    let mut seen = Seen::new(&[&folder.path("*.log")], options.clone());
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut want: Vec<String> = Vec::new();
    let mut begun = false;
    let mut history = Vec::new();
    for step in 0..60 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let what = random % 16;
        history.push(what);
        match what {
            0..5 => {
                append(&log, format!("{step}\n"));
                let line = match begun {
                    true => format!("begun {step}"),
                    false => step.to_string(),
                };
                want.push(line);
                begun = false;
            }
            5 if !begun => {
                append(&log, "begun ");
                begun = true;
            }
            6..8 if !begun => {
                // A file that comes and goes between two looks is lost.
                seen.until("found", |seen| !seen.found.is_empty());
                let rotated =
                    |seen: &Seen| seen.events.iter().filter(|text| *text == "rotated").count();
                let before = rotated(&seen);
                fs::rename(&log, folder.path(&format!("a.log.{step}"))).unwrap();
                if what == 7 {
                    seen.step(Duration::ZERO);
                }
                append(&log, "");
                seen.until("rotated", |seen| rotated(seen) > before);
            }
            8 if !begun => {
                // What nobody has read when it is truncated is lost for everybody.
                seen.until(&format!("{seed}: {history:?}"), |seen| {
                    seen.lines.len() == want.len()
                });
                fs::copy(&log, folder.path(&format!("a.log.{step}"))).unwrap();
                fs::write(&log, "").unwrap();
            }
            9 => {
                options.positions = seen.tail.positions();
                let lines = std::mem::take(&mut seen.lines);
                seen = Seen::new(&[&folder.path("*.log")], options.clone());
                seen.lines = lines;
            }
            _ => seen.step(Duration::from_millis(random % 7)),
        }
    }
    seen.until(&format!("{seed}: {history:?}"), |seen| {
        seen.lines.len() >= want.len()
    });
    seen.quiet();
    assert_eq!(seen.texts(), want, "{seed}: {history:?}");
}

/// Runs this same program again with only the test `name` in a user namespace, after `setup`.
fn again(name: &str, setup: &str) {
    let ran = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-ec"])
        .arg(format!("{setup}; exec \"$@\""))
        .arg("sh")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--include-ignored", "--nocapture"])
        .env("F2B_PIPE_TEST_INNER", "1")
        .output()
        .unwrap();
    let said = [ran.stdout, ran.stderr].concat();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
#[ignore = "needs root, for a user namespace"]
fn when_inotify_has_no_watches_left_files_are_looked_at() {
    if std::env::var_os("F2B_PIPE_TEST_INNER").is_none() {
        return again(
            "when_inotify_has_no_watches_left_files_are_looked_at",
            "echo 3 > /proc/sys/user/max_inotify_watches",
        );
    }
    let folder = Folder::new();
    for file in 0..10 {
        append(&folder.path(&format!("{file}.log")), "old\n");
    }
    let mut seen = Seen::new(&[&folder.path("*.log")], Options::default());
    seen.until("old", |seen| seen.lines.len() == 10);
    let said = |seen: &Seen| {
        seen.events
            .iter()
            .filter(|text| text.contains("max_user_watches"))
            .count()
    };
    assert_eq!(said(&seen), 1, "{:?}", seen.events);
    for file in 0..10 {
        append(&folder.path(&format!("{file}.log")), "new\n");
    }
    seen.until("new", |seen| seen.lines.len() == 20);
    let log = folder.path("7.log");
    fs::rename(&log, folder.path("7.old")).unwrap();
    append(&log, "next\n");
    seen.until("next", |seen| seen.lines.len() == 21);
}

#[test]
#[ignore = "needs root, to mount an overlay"]
fn a_file_system_without_events_is_looked_at() {
    if std::env::var_os("F2B_PIPE_TEST_INNER").is_none() {
        let layers = Folder::new();
        return again(
            "a_file_system_without_events_is_looked_at",
            &format!(
                "mount --bind {} /mnt; mkdir /mnt/lower /mnt/upper /mnt/work /mnt/logs; echo old > /mnt/lower/a.log; \
                 mount -t overlay none -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work /mnt/logs",
                layers.0.display()
            ),
        );
    }
    let log = Path::new("/mnt/logs/a.log");
    let mut seen = Seen::new(&[log], Options::default());
    seen.lines(&["old"]);
    // The first write makes a copy: under the same number, but not for who has the file open.
    append(log, "new\n");
    seen.lines(&["old", "new"]);
    append(log, "newer\n");
    seen.lines(&["old", "new", "newer"]);
}

/// A writer that numbers its lines, and is told to open the log anew as daemons are.
fn writer(
    log: &Path,
    stop: &Arc<AtomicBool>,
    reopen: &Arc<AtomicBool>,
    pause: &Arc<AtomicBool>,
) -> std::thread::JoinHandle<u64> {
    let (log, stop, reopen, pause) = (log.to_owned(), stop.clone(), reopen.clone(), pause.clone());
    std::thread::spawn(move || {
        let open = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&log)
                .unwrap()
        };
        let mut file = open();
        let mut number = 0;
        while !stop.load(Ordering::SeqCst) {
            if reopen.swap(false, Ordering::SeqCst) {
                file = open();
            }
            if pause.load(Ordering::SeqCst) {
                pause.store(false, Ordering::SeqCst); // seen
                while !reopen.load(Ordering::SeqCst) && !stop.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                continue;
            }
            writeln!(file, "line {number}").unwrap();
            number += 1;
        }
        number
    })
}

fn logrotate(folder: &Folder, log: &Path, directives: &str, hook: &Path) {
    let config = folder.path("logrotate.conf");
    let done = format!("postrotate\n touch {}\n endscript", hook.display());
    fs::write(
        &config,
        format!(
            "{} {{\n rotate 3\n su root root\n {directives}\n {done}\n}}\n",
            log.display()
        ),
    )
    .unwrap();
    let ran = Command::new("logrotate")
        .args(["-f", "-s"])
        .arg(folder.path("logrotate.state"))
        .arg(&config)
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

fn rotate_under_fire(directives: &str, copy: bool) {
    let folder = Folder::new();
    let log = folder.path("app.log");
    append(&log, "");
    let [stop, reopen, pause] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
    let mut seen = Seen::new(&[&log], Options::default());
    seen.step(Duration::ZERO);
    let writer = writer(&log, &stop, &reopen, &pause);
    let rotator = {
        let (stop, reopen, pause) = (stop.clone(), reopen.clone(), pause.clone());
        let directives = directives.to_owned();
        std::thread::spawn(move || {
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(300));
                if copy {
                    // What is written between the copy and the truncation is lost for everybody.
                    pause.store(true, Ordering::SeqCst);
                    while pause.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    std::thread::sleep(Duration::from_millis(1500));
                }
                let hook = folder.path("rotated");
                logrotate(&folder, &log, &directives, &hook);
                assert!(hook.exists());
                fs::remove_file(&hook).unwrap();
                reopen.store(true, Ordering::SeqCst);
            }
            std::thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::SeqCst);
            folder
        })
    };
    let mut next = 0_u64;
    let mut rotations = 0;
    let mut written = None;
    let deadline = Instant::now() + Duration::from_secs(50);
    let mut writer = Some(writer);
    while written != Some(next) {
        assert!(Instant::now() < deadline, "{next} of {written:?}");
        seen.tail
            .wait(Duration::from_millis(50), &mut |event| match event {
                Event::Line { text, .. } => {
                    assert_eq!(text, format!("line {next}"));
                    next += 1;
                }
                Event::Rotated { .. } => rotations += 1,
                Event::Trouble { text, .. } => panic!("{text}"),
                Event::Found { .. } | Event::ReachedEnd { .. } | Event::Gone { .. } => {}
            })
            .unwrap();
        if writer.as_ref().is_some_and(|writer| writer.is_finished()) {
            written = Some(writer.take().unwrap().join().unwrap());
        }
    }
    rotator.join().unwrap();
    assert_eq!(rotations, 5);
}

#[test]
#[ignore = "needs logrotate, and root for it"]
fn nothing_is_lost_or_doubled_when_logrotate_renames() {
    rotate_under_fire("create\n compress\n delaycompress", false);
}

#[test]
#[ignore = "needs logrotate, and root for it"]
fn nothing_is_lost_or_doubled_when_logrotate_renames_and_compresses_at_once() {
    rotate_under_fire("create\n compress", false);
}

#[test]
#[ignore = "needs logrotate, and root for it"]
fn nothing_is_lost_or_doubled_when_logrotate_truncates() {
    rotate_under_fire("copytruncate", true);
}

#[test]
#[ignore = "needs python3"]
fn text_is_what_python_makes_of_the_bytes() {
    let folder = Folder::new();
    let script = r#"
import sys, random, os
random.seed(3)
folder = sys.argv[1]
wide = ("utf-16", "utf-16-le", "utf-16-be")
for name in sys.argv[2:]:
    lines = []
    if name in wide:
        enc = "utf-16-le" if name == "utf-16" else name
        for _ in range(200):
            units = [random.choice((0x61, 0x0a0a, 0x0a61, 0xd801, 0xdc02, 0xe4, 0x20ac, 0x0d)) for _ in range(random.randrange(12))]
            lines.append(b"".join(u.to_bytes(2, "big" if enc.endswith("be") else "little") for u in units))
        newline = "\n".encode(enc)
    else:
        enc = name
        newline = b"\n"
        for byte in range(256):
            lines.append(b"x" + bytes([byte]) + b"y")
        for _ in range(300):
            lines.append(bytes(random.choice(b"a \xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xed\xa0\xff\x81") for _ in range(random.randrange(12))))
        lines = [line for line in lines if b"\n" not in line]
    with open(os.path.join(folder, name + ".log"), "wb") as f:
        if name == "utf-16":
            f.write(b"\xff\xfe")
        for line in lines:
            f.write(line + newline)
    with open(os.path.join(folder, name + ".want"), "w", encoding="utf-8", newline="") as f:
        for line in lines:
            f.write(line.decode(enc, "replace").rstrip("\r\n") + "\x00\n")
"#;
    let mut names = vec![
        "utf-8",
        "ascii",
        "latin-1",
        "iso8859-2",
        "iso8859-3",
        "iso8859-4",
        "iso8859-5",
        "iso8859-6",
        "iso8859-7",
        "iso8859-8",
        "iso8859-9",
        "iso8859-10",
        "iso8859-11",
        "iso8859-13",
        "iso8859-14",
        "iso8859-15",
        "iso8859-16",
        "koi8-r",
        "koi8-u",
        "cp866",
        "utf-16",
        "utf-16-le",
        "utf-16-be",
    ];
    names.extend([
        "cp874", "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257",
        "cp1258",
    ]);
    let ran = Command::new("python3")
        .args(["-c", script])
        .arg(&folder.0)
        .args(&names)
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let mut wrong: HashMap<&str, Vec<(String, String)>> = HashMap::new();
    for name in &names {
        let mut entry = entry(&folder.path(&format!("{name}.log")));
        entry.encoding = Encoding::named(name).unwrap();
        let mut seen = Seen::of(vec![entry], Options::default());
        seen.until("end", |seen| !seen.events.is_empty());
        let want = fs::read_to_string(folder.path(&format!("{name}.want"))).unwrap();
        let want: Vec<&str> = want.split_terminator("\0\n").collect();
        assert_eq!(seen.lines.len(), want.len(), "{name}");
        for (got, want) in seen.texts().into_iter().zip(want) {
            // Three letters that Python's tables do not have yet.
            let newer = (*name == "koi8-u" && ["x╝y", "x╬y"].contains(&want))
                || (*name == "cp1255" && got == "x\u{5ba}y");
            if got != want && !newer {
                wrong
                    .entry(name)
                    .or_default()
                    .push((got.to_owned(), want.to_owned()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_log_that_appears_can_be_sought_in_before_its_first_line_comes() {
    both_ways(|options| {
        let folder = Folder::new();
        let log = folder.path("a.log");
        let mut seen = Seen::new(&[&log], options);
        seen.quiet();
        append(&log, "1 a\n2 b\n3 c\n");
        seen.until("the log", |seen| !seen.found.is_empty());
        assert_eq!(seen.texts(), [""; 0]);
        let (file, start) = seen.found[0];
        assert_eq!(start, Start::Beginning);
        let mut time = |line: &str| line.split(' ').next()?.parse().ok();
        seen.tail.seek(file, 2.0, &mut time).unwrap();
        seen.lines(&["2 b", "3 c"]);
    });
}
