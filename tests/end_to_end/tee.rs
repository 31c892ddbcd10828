//! Every byte of the log: what a second, plain CustomLog of the same httpd wrote is the measure.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{
    Connection, Httpd, Load, Mpm, Piped, Request, Setup, World, bytes_of, must, proc_state, secs,
    shown, signal, text_of, wait_until,
};

/// A configuration that judges every line, and whose bans close a port that nobody uses.
const HARMLESS: &str = r#"
[defaults]
port = ["9"]

[firewall]
kill_connections = false

[jail.all]
maxretry = 5
findtime = "10s"
"#;

/// Many clients with short and long lines, each line different, until stopped.
fn busy(world: &World, threads: usize, pause: Duration) -> Load {
    Load::start(
        world,
        threads,
        usize::MAX,
        pause,
        |client| format!("198.51.100.{}", 10 + client),
        |client, n| {
            let path = format!("/page?client={client}&n={n}");
            // At most 4096 bytes a line: longer ones are torn by httpd itself when the pipe is full for a moment.
            let long = if n % 50 == 7 { 3500 } else { n % 300 };
            Request::get(path).agent(&"x".repeat(long + 1))
        },
    )
}

/// Waits until `load` was served `more` further requests.
#[track_caller]
fn served(load: &Load, more: usize) {
    let goal = load.tally().served + more;
    wait_until("the load to be served", secs(30), || {
        load.tally().served >= goal
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn one_client_s_lines_are_teed_byte_for_byte_and_in_order() {
    for format in ["f2b", "combined"] {
        let world = World::new();
        world.config(HARMLESS);
        let httpd = Setup::new(&world).format(format).start();
        let mut client = Connection::open(&world, "198.51.100.7").expect("a connection");
        for n in 0..400 {
            let request = Request::get(format!("/page?{n}&%0d%0a\"\\"))
                .agent(&"\u{fc}\\\"".repeat(n % 600))
                .login(&format!("a b [{n}]"), "x");
            client.ask(&request).expect("an answer");
        }
        httpd.assert_tee_is_complete();
        assert!(httpd.tee() == httpd.oracle(), "{format}: the logs differ");
        assert_eq!(httpd.tee().iter().filter(|&&b| b == b'\n').count(), 400);
        let log = fs::metadata(world.path("access.log")).expect("the tee");
        assert_eq!(log.mode() & 0o777, 0o640, "others must not read it");
    }
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_log_that_is_there_is_continued() {
    let world = World::new();
    world.config(HARMLESS);
    let old = "an old line\n";
    world.write("access.log", old);
    let httpd = Setup::new(&world).start();
    assert_eq!(world.curl("198.51.100.7", "/page"), Some(200));
    let expected = [old.as_bytes(), &httpd.oracle()].concat();
    wait_until("the new line", secs(5), || {
        httpd.tee().len() >= expected.len()
    });
    assert!(httpd.tee() == expected);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn nothing_is_lost_or_doubled_through_graceful_and_restart() {
    for mpm in [Mpm::Event, Mpm::Prefork] {
        let world = World::new();
        world.config(HARMLESS);
        let httpd = Setup::new(&world).mpm(mpm).start();
        let load = busy(&world, 8, Duration::from_millis(1));
        served(&load, 300);
        // A hard restart ends prefork's children where they stand, perhaps between the one log and the other: that
        // line is missing in the second one, whoever writes it.
        let hard = match mpm {
            Mpm::Event => "restart",
            Mpm::Prefork => "graceful",
        };
        for command in ["graceful", "graceful", hard, "graceful"] {
            let before = httpd.loggers();
            httpd.control(command);
            wait_until("a new logger", secs(20), || {
                httpd.loggers().iter().any(|pid| !before.contains(pid))
            });
            served(&load, 300);
        }
        let tally = load.stop();
        assert!(tally.served > 1500, "{mpm:?}: {tally:?}");
        httpd.stop();
        httpd.assert_tee_is_complete();
    }
}

/// A download that is under way at `graceful` is logged when it ends, on the old pipe.
#[test]
#[ignore = "needs root and network namespaces"]
fn a_request_that_outlives_graceful_is_logged_by_the_old_process_which_then_ends() {
    let world = World::new();
    world.config(HARMLESS);
    let httpd = Setup::new(&world).start();
    let old = httpd.logger();
    let mut slow = Connection::open(&world, "198.51.100.7").expect("a connection");
    slow.send(b"GET /page?slow HTTP/1.1\r\nHost: www\r\n")
        .expect("sent");
    assert_eq!(world.curl("198.51.100.8", "/page?before"), Some(200));
    httpd.control("graceful");
    wait_until("a new logger", secs(5), || httpd.loggers().len() == 2);
    assert_eq!(world.curl("198.51.100.8", "/page?after"), Some(200));
    assert!(httpd.loggers().contains(&old), "the old one went too early");
    slow.send(b"\r\n").expect("sent");
    assert_eq!(slow.answer(false).expect("an answer"), 200);
    drop(slow);
    wait_until("the old logger's end", secs(10), || {
        !httpd.loggers().contains(&old)
    });
    httpd.assert_tee_is_complete();
    assert_eq!(httpd.tee().iter().filter(|&&b| b == b'\n').count(), 3);
}

/// All rotations of the tee, oldest first.
pub(crate) fn rotations(world: &World) -> Vec<u8> {
    let mut all = Vec::new();
    for n in (1..=20).rev() {
        all.extend(bytes_of(&world.path(&format!("logs/access.log.{n}"))));
    }
    all.extend(bytes_of(&world.path("logs/access.log")));
    all
}

/// Rotates as Debian does; with or without the reload of httpd.
#[track_caller]
pub(crate) fn rotate(world: &World, httpd: &Httpd<'_>, reload: bool) {
    let after = if reload {
        let words: Vec<String> = httpd
            .words("graceful")
            .iter()
            .map(|w| format!("'{w}'"))
            .collect();
        format!("postrotate\n{}\nendscript\n", words.join(" "))
    } else {
        String::new()
    };
    let log = world.path("logs/access.log");
    let conf = world.write(
        "logrotate.conf",
        format!(
            "{} {{\nrotate 30\ncreate 640 root adm\nmissingok\n{after}}}\n",
            log.display()
        ),
    );
    must(
        world
            .on_server("logrotate")
            .arg("-f")
            .arg("-s")
            .arg(world.path("logrotate.state"))
            .arg(conf),
    );
    let new = fs::metadata(&log).expect("the new log");
    assert_eq!((new.mode() & 0o777, new.uid()), (0o640, 0));
}

#[track_caller]
fn rotates_under_load(reload: bool) {
    let world = World::new();
    world.config(HARMLESS);
    fs::create_dir(world.path("logs")).expect("mkdir");
    let log = world.path("logs/access.log");
    let httpd = Setup::new(&world).tee(&log).start();
    let load = busy(&world, 6, Duration::from_millis(1));
    wait_until("the log", secs(5), || log.exists());
    for round in 1..=8 {
        served(&load, 150);
        rotate(&world, &httpd, reload);
        let had = fs::metadata(&log).expect("the log").len();
        wait_until("lines in the new log", secs(10), || {
            fs::metadata(&log).is_ok_and(|m| m.len() > had)
        });
        let old = world.path(&format!("logs/access.log.{round}"));
        assert!(old.exists(), "logrotate did not rotate");
    }
    load.stop();
    httpd.stop();
    let complete = || rotations(&world).len() >= httpd.oracle().len();
    crate::support::comes_true(secs(10), complete);
    crate::support::assert_same_lines(&rotations(&world), &httpd.oracle());
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_real_logrotate_with_reload_loses_nothing() {
    rotates_under_load(true);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_real_logrotate_without_reload_loses_nothing() {
    rotates_under_load(false);
}

/// logrotate renames, then creates: who creates the file in between breaks it. Who never looks writes to the old file for
/// ever.
#[test]
#[ignore = "needs root and network namespaces"]
fn a_renamed_log_is_written_on_until_there_is_a_new_one_or_five_seconds_are_over() {
    let world = World::new();
    world.config(HARMLESS);
    let log = world.path("access.log");
    let old = world.path("access.log.1");
    let tee = log.display().to_string();
    let piped = world.pipe(1 << 16, &["--format", "combined", "--tee", &tee]);
    let mut written = 0;
    let mut write = || {
        piped.line(&combined(written, "x"));
        written += 1;
        std::thread::sleep(Duration::from_millis(20));
    };
    let lines = |path: &Path| bytes_of(path).iter().filter(|&&b| b == b'\n').count();
    write();
    wait_until("the first line", secs(3), || lines(&log) == 1);

    // Renamed, and created two seconds later.
    fs::rename(&log, &old).expect("rename");
    let renamed = Instant::now();
    while renamed.elapsed() < secs(2) {
        write();
        assert!(
            !log.exists(),
            "created {:?} after the rename",
            renamed.elapsed()
        );
    }
    fs::write(&log, "").expect("create");
    let created = Instant::now();
    while lines(&log) == 0 {
        write();
        assert!(created.elapsed() < secs(2), "it does not take the new one");
    }
    let before = lines(&old);
    assert!(before > 20);

    // Renamed, and created by nobody.
    fs::rename(&log, world.path("access.log.0")).expect("rename");
    let renamed = Instant::now();
    while !log.exists() {
        write();
        assert!(renamed.elapsed() < secs(8), "it does not make a new one");
    }
    assert!(
        renamed.elapsed() > secs(4),
        "created after {:?}",
        renamed.elapsed()
    );
    write();
    let total = || lines(&old) + lines(&world.path("access.log.0")) + lines(&log);
    wait_until("every line", secs(3), || total() >= written);
    assert_eq!(total(), written);
    assert_eq!(lines(&old), before);
}

/// After a SIGKILL a line may come twice. None may be missing, cut or glued.
#[track_caller]
fn assert_nothing_is_missing_or_glued(tee: &[u8], written: &HashSet<&[u8]>) {
    assert!(tee.ends_with(b"\n"), "the last line is cut");
    let mut seen = HashSet::new();
    let mut strange = Vec::new();
    let mut times = 0;
    for line in tee[..tee.len() - 1].split(|&b| b == b'\n') {
        times += 1;
        if written.contains(line) {
            seen.insert(line);
        } else {
            strange.push(shown(line));
        }
    }
    let missing: Vec<String> = written.difference(&seen).map(|line| shown(line)).collect();
    assert!(
        strange.is_empty() && missing.is_empty(),
        "{} lines written, {times} in the tee\nnever written ({}): {:#?}\nmissing ({}): {:#?}",
        written.len(),
        strange.len(),
        &strange[..strange.len().min(5)],
        missing.len(),
        &missing[..missing.len().min(5)]
    );
}

#[test]
#[ignore = "needs root and network namespaces"]
fn sigkill_under_httpd_s_load_loses_no_line() {
    let world = World::new();
    world.config(HARMLESS);
    let httpd = Setup::new(&world).start();
    let load = busy(&world, 12, Duration::ZERO);
    for _ in 0..4 {
        served(&load, 200);
        let pid = httpd.logger();
        signal(pid, Signal::SIGKILL);
        wait_until("another logger", secs(5), || {
            httpd.loggers().iter().any(|&p| p != pid)
        });
    }
    served(&load, 200);
    let tally = load.stop();
    assert_eq!((tally.refused, tally.failed), (0, 0), "{tally:?}");
    httpd.stop();
    wait_until("the loggers' end", secs(5), || httpd.loggers().is_empty());
    let oracle = httpd.oracle();
    let written: HashSet<&[u8]> = oracle
        .split(|&b| b == b'\n')
        .filter(|l| !l.is_empty())
        .collect();
    assert_nothing_is_missing_or_glued(&httpd.tee(), &written);
}

fn ends_in_newline(log: &Path) -> bool {
    let mut last = [b'\n'];
    let file = fs::File::open(log).expect("the log");
    let length = file.metadata().expect("its length").len();
    file.read_exact_at(&mut last, length.saturating_sub(1)).ok();
    last == [b'\n']
}

/// One writer of different lines, as fast as the pipe takes them unless it is slowed down.
struct Flood {
    stop: Arc<AtomicBool>,
    slow: Arc<AtomicBool>,
    writer: std::thread::JoinHandle<Vec<String>>,
}

impl Flood {
    fn start(piped: &Piped, line: impl Fn(usize) -> String + Send + 'static) -> Self {
        let (stop, slow) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let writer = {
            let (stop, slow) = (Arc::clone(&stop), Arc::clone(&slow));
            let mut pipe = piped.another_writer();
            std::thread::spawn(move || {
                let mut written = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if slow.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    let line = line(n);
                    pipe.write_all(format!("{line}\n").as_bytes())
                        .expect("the pipe");
                    written.push(line);
                }
                written
            })
        };
        Self { stop, slow, writer }
    }

    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.join().expect("the writer")
    }
}

/// Kills it again and again while `lines` come as fast as the pipe takes them.
#[track_caller]
fn survives_kills(capacity: usize, line: impl Fn(usize) -> String + Send + 'static) {
    let world = World::new();
    world.config(HARMLESS);
    let log = world.path("access.log");
    let tee = log.display().to_string();
    // With a format that cannot be read it is a tee and nothing else: it writes most of its time.
    let args = ["--format", "%{nothing", "--single-writer", "--tee", &tee];
    let mut piped = world.pipe(capacity, &args);
    let flood = Flood::start(&piped, line);
    // Often enough to hit it in the middle of a write, which leaves a cut last line.
    let (mut kills, mut cut) = (0, 0);
    while kills < 60 || cut < 2 {
        assert!(kills < 500, "{cut} of {kills} kills hit a write");
        let had = fs::metadata(&log).map_or(0, |m| m.len());
        let end = Instant::now() + secs(10);
        while fs::metadata(&log).map_or(0, |m| m.len()) <= had {
            assert!(
                Instant::now() < end,
                "the tee does not grow: {}",
                piped.said()
            );
            std::hint::spin_loop();
        }
        // At a different point of its work each time.
        std::thread::sleep(Duration::from_micros(kills * 137 % 2000));
        piped.kill();
        kills += 1;
        cut += usize::from(!ends_in_newline(&log));
        piped.start(&world, &args);
    }
    let written = flood.stop();
    let ended = piped.close(secs(20)).expect("its end after end of file");
    assert!(ended.success(), "{ended:?} {}", piped.said());
    let written: HashSet<&[u8]> = written.iter().map(String::as_bytes).collect();
    assert_nothing_is_missing_or_glued(&bytes_of(&log), &written);
}

/// While a disk hangs, lines wait in memory, and a kill would lose them. Once it has caught up, that is over, although
/// the lines never pause.
#[test]
#[ignore = "needs root and network namespaces"]
fn after_the_disk_has_hung_for_a_moment_a_kill_loses_nothing_again() {
    let world = World::new();
    world.config(HARMLESS);
    let at = world.path("disk");
    fs::create_dir(&at).expect("mkdir");
    let image = world.path("image").display().to_string();
    must(Command::new("truncate").args(["-s", "512M", &image]));
    must(Command::new("mkfs.ext4").args(["-q", &image]));
    must(Command::new("mount").args(["-o", "loop", &image]).arg(&at));
    world.at_end(format!("umount {0} || umount -l {0}", at.display()));
    let fsfreeze = |what: &str| {
        let mut command = Command::new("fsfreeze");
        command.arg(what).arg(&at);
        command
    };
    let log = at.join("access.log");
    let tee = log.display().to_string();
    let args = ["--format", "%{nothing", "--single-writer", "--tee", &tee];
    let mut piped = world.pipe(1 << 16, &args);
    let flood = Flood::start(&piped, |n| combined(n, &"x".repeat(300)));
    let size = || fs::metadata(&log).map_or(0, |m| m.len());
    wait_until("the log to grow", secs(5), || size() > 1 << 20);
    flood.slow.store(true, Ordering::Relaxed);
    world.at_end(format!("fsfreeze -u {} 2>/dev/null || true", at.display()));
    must(&mut fsfreeze("-f"));
    std::thread::sleep(secs(2));
    must(&mut fsfreeze("-u"));
    // From now on as many as it can take.
    flood.slow.store(false, Ordering::Relaxed);
    let had = size();
    wait_until("the log to grow", secs(20), || size() > had + (32 << 20));
    piped.kill();
    piped.start(&world, &args);
    let written = flood.stop();
    let ended = piped.close(secs(20)).expect("its end after end of file");
    assert!(ended.success(), "{ended:?} {}", piped.said());
    let written: HashSet<&[u8]> = written.iter().map(String::as_bytes).collect();
    assert_nothing_is_missing_or_glued(&bytes_of(&log), &written);
}

fn combined(n: usize, agent: &str) -> String {
    format!(
        "198.51.100.{} - - [02/Mar/2026:08:00:00 +0000] \"GET /page?{n} HTTP/1.1\" 200 1 \"-\" \"{agent}\"",
        n % 200
    )
}

#[test]
#[ignore = "needs root and network namespaces"]
fn many_kills_amid_short_lines_lose_and_glue_none() {
    survives_kills(1 << 16, |n| combined(n, "x"));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn many_kills_amid_long_lines_lose_and_glue_none() {
    survives_kills(1 << 20, |n| combined(n, &"x".repeat(n * 97 % 90_000)));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_hundred_kills_amid_equal_lines_keep_their_number() {
    // All lines alike: where to go on cannot be read from the text alone. More are allowed, fewer are not.
    let world = World::new();
    world.config(HARMLESS);
    let log = world.path("access.log");
    let tee = log.display().to_string();
    let args = ["--format", "combined", "--single-writer", "--tee", &tee];
    let mut piped = world.pipe(1 << 16, &args);
    let line = format!("{}\n", combined(1, "equal"));
    let mut written = 0;
    for kill in 0..100u64 {
        for _ in 0..400 {
            piped.writer().write_all(line.as_bytes()).expect("the pipe");
            written += 1;
        }
        std::thread::sleep(Duration::from_micros(kill * 61 % 1500));
        piped.kill();
        piped.start(&world, &args);
    }
    assert!(
        piped.close(secs(20)).is_some_and(|s| s.success()),
        "{}",
        piped.said()
    );
    let text = text_of(&log);
    assert!(
        text.lines().all(|l| l == line.trim_end()),
        "a cut or glued line"
    );
    assert!(text.ends_with('\n'));
    assert!(
        text.lines().count() >= written,
        "{} of {written}",
        text.lines().count()
    );
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_stopped_process_that_goes_on_has_lost_nothing() {
    let world = World::new();
    world.config(HARMLESS);
    let httpd = Setup::new(&world).start();
    let load = busy(&world, 8, Duration::from_millis(1));
    served(&load, 200);
    let pid = httpd.logger();
    for _ in 0..20 {
        signal(pid, Signal::SIGSTOP);
        wait_until("it to stop", secs(1), || proc_state(pid) == Some('T'));
        std::thread::sleep(Duration::from_millis(20));
        signal(pid, Signal::SIGCONT);
        std::thread::sleep(Duration::from_millis(10));
    }
    let tally = load.stop();
    assert_eq!(tally.failed, 0, "{tally:?}");
    httpd.stop();
    wait_until("the logger's end", secs(5), || httpd.loggers().is_empty());
    assert!(
        !httpd.error_log().contains("failed unexpectedly"),
        "it was replaced"
    );
    httpd.assert_tee_is_complete();
}

/// `cat access.log | f2b-pipe --tee copy`.
#[test]
#[ignore = "needs root and network namespaces"]
fn a_last_line_without_a_newline_and_bytes_that_are_no_text_are_teed_as_they_are() {
    let world = World::new();
    world.config(HARMLESS);
    let log = world.path("access.log");
    let mut piped = world.pipe(
        1 << 16,
        &["--format", "combined", "--tee", &log.display().to_string()],
    );
    let mut bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    bytes.extend_from_slice(b"\n\n\r\n\0\0");
    bytes.extend(std::iter::repeat_n(b'x', 400_000));
    bytes.extend_from_slice(b"\nno newline");
    piped.writer().write_all(&bytes).expect("the pipe");
    assert!(
        piped.close(secs(10)).is_some_and(|s| s.success()),
        "{}",
        piped.said()
    );
    assert!(bytes_of(&log) == bytes, "the tee differs");
}
