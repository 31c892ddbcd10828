//! fail2ban's log as we write it, beside the one that a real fail2ban-server writes of the same lines, and read by what
//! reads such logs: fail2ban's own recidive filter and jail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const JAIL: &str = "[DEFAULT]\nbackend = polling\nignoreip = 192.0.2.200\nfindtime = 1h\nbantime = 4s\nmaxretry = 2\n\
    [t1]\nenabled = true\nfilter = t1\nlogpath = DIR/t1.log\naction =\n\
    [t2]\nenabled = true\nfilter = t1\nlogpath = DIR/t2.log\naction =\nbantime = 4s\nbantime.increment = true\n\
    bantime.multipliers = 1 100\n";
const FILTER: &str = "[Definition]\nfailregex = ^\\s*denied <HOST>$\ndatepattern = ^{EPOCH}\n";

/// A folder, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("f2b-log-{}-{name}", std::process::id()));
        fs::remove_dir_all(&dir).ok();
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// `DIR` in `text` is this folder.
    fn with(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text.replace("DIR", &self.0.display().to_string())).unwrap();
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_default()
    }

    fn append(&self, file: &str, text: &str) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path(file))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Debian's configuration with these jails, and everything that a server writes in this folder.
    fn fail2ban(&self, jail_local: &str) {
        let copied = Command::new("cp")
            .args(["-r", "/etc/fail2ban"])
            .arg(&self.0)
            .status();
        assert!(copied.unwrap().success());
        fs::remove_dir_all(self.path("fail2ban/jail.d")).ok();
        self.with("fail2ban/jail.local", jail_local);
        self.with("fail2ban/filter.d/t1.conf", FILTER);
    }

    /// A real server, in a network of its own.
    fn server(&self, log: &str) -> Running {
        let config = format!(
            "[DEFAULT]\nloglevel = INFO\nlogtarget = DIR/{log}\nsocket = DIR/{log}.sock\npidfile = DIR/{log}.pid\n\
             dbfile = DIR/{log}.sqlite3\n"
        );
        self.with("fail2ban/fail2ban.local", &config);
        let mut command = alone("fail2ban-server");
        command
            .arg("-f")
            .arg("-c")
            .arg(self.path("fail2ban"))
            .arg("start");
        Running::start(command, &self.path(&format!("{log}.err")))
    }

    /// f2b-pipe, in a network of its own.
    fn f2b_pipe(&self, words: &[&str], stdin: Stdio) -> Running {
        let mut command = alone(env!("CARGO_BIN_EXE_f2b-pipe"));
        command
            .args(words)
            .arg("--config")
            .arg(self.path("f2b-pipe.toml"))
            .arg("--runtime-dir")
            .arg(self.path("run"))
            .stdin(stdin);
        Running::start(command, &self.path("f2b-pipe.err"))
    }

    #[track_caller]
    fn wait(&self, file: &str, what: &str, times: usize) {
        let end = Instant::now() + Duration::from_secs(15);
        while self.text(file).matches(what).count() < times {
            let text = self.text(file);
            assert!(Instant::now() < end, "no {times} of {what:?} in:\n{text}");
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// In a network namespace of its own; ends with this test.
fn alone(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net", program]);
    command
}

/// A process, ended when dropped.
struct Running(Child);

impl Running {
    fn start(mut command: Command, errors: &Path) -> Self {
        let errors = File::create(errors).unwrap();
        Self(command.stderr(errors).spawn().unwrap())
    }

    fn end(mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.0.wait().unwrap().success());
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        kill(pid, signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// What happens to either: two failures of one, and what comes of it.
fn attack(folder: &Folder, log: &str) {
    folder.wait(log, "Added logfile", 2);
    folder.wait(log, "started", 2);
    let denied = |who: &str| format!("{} denied {who}\n", now());
    for who in ["192.0.2.200", "192.0.2.7", "2001:db8::1", "192.0.2.7"] {
        folder.append("t1.log", &denied(who));
    }
    folder.wait(log, "[t1] Unban 192.0.2.7", 1);
    for (round, failures) in [(1, 2), (2, 1)] {
        // Of who was banned before one failure counts for two.
        folder.append("t2.log", &denied("192.0.2.8").repeat(failures));
        folder.wait(log, "[t2] Ban 192.0.2.8", round);
        if round == 1 {
            folder.wait(log, "[t2] Unban 192.0.2.8", 1);
        }
    }
    folder.wait(log, "[t2] Increase Ban 192.0.2.8", 1);
}

/// A log's lines about jails, in the order of their texts, as times, pids and places in files differ.
fn lines(log: &str) -> Vec<String> {
    let masked = |line: &str| -> String {
        let mut masked = String::new();
        let (mut digits, mut inside) = (false, false);
        for c in line.chars() {
            // A pid in its brackets, and what stands in parentheses, is its own in each.
            match c {
                '(' => inside = true,
                ')' => inside = false,
                _ => {}
            }
            if c.is_ascii_digit() || (inside && c != '(') {
                if !digits {
                    masked.push('#');
                }
                digits = true;
            } else {
                digits = false;
                masked.push(c);
            }
        }
        masked
    };
    const KINDS: &[&str] = &[
        "Found",
        "Ignore",
        "Ban ",
        "Unban",
        "is bad",
        "Added logfile",
        "Creating new jail",
        "' started",
        "' stopped",
        "Exiting",
    ];
    // Not what a server does when it ends: our bans stay in the kernel.
    let kind =
        |line: &&str| KINDS.iter().any(|kind| line.contains(kind)) && !line.contains("Restore");
    let mut lines: Vec<String> = log.lines().filter(kind).map(masked).collect();
    lines.sort();
    lines
}

#[test]
#[ignore = "needs root and Debian's fail2ban package"]
fn our_log_has_the_lines_of_a_real_servers() {
    let folder = Folder::new("same");
    folder.fail2ban(JAIL);
    let mut logs = Vec::new();
    for log in ["theirs.log", "ours.log"] {
        folder.with("t1.log", "");
        folder.with("t2.log", "");
        let running = if log == "theirs.log" {
            folder.server(log)
        } else {
            let toml = "[fail2ban]\nconfig = 'DIR/fail2ban'\nlogfile = 'DIR/ours.log'\n[defaults]\nipv6_prefix = 128\n";
            folder.with("f2b-pipe.toml", toml);
            folder.f2b_pipe(&["watch"], Stdio::null())
        };
        attack(&folder, log);
        running.end();
        logs.push(folder.text(log));
    }
    let [theirs, ours] = &logs[..] else { panic!() };
    // A server that ends lifts the ban that stands; ours stays.
    let mut expected = lines(theirs);
    let unban = expected
        .iter()
        .rposition(|line| line.contains("[t#] Unban"));
    expected.remove(unban.expect("the last ban's end"));
    assert_eq!(lines(ours), expected, "theirs:\n{theirs}\nours:\n{ours}");
    for text in [", bad - ", "2.0, Ban", " is bad: 1 # last "] {
        assert!(
            theirs.contains(text) && ours.contains(text),
            "{text}\n{ours}"
        );
    }
    let times = |log: &str| {
        log.lines().all(|line| {
            chrono::NaiveDateTime::parse_from_str(&line[..23], "%Y-%m-%d %H:%M:%S,%3f").is_ok()
        })
    };
    assert!(times(theirs) && times(ours), "{ours}");
}

#[test]
#[ignore = "needs root and Debian's fail2ban package"]
fn stock_recidive_finds_a_repeat_offender_in_our_log() {
    let folder = Folder::new("recidive");
    folder.fail2ban(
        "[recidive]\nenabled = true\nlogpath = DIR/ours.log\nbackend = polling\nbantime = 1w\nfindtime = 1d\nmaxretry = 3\n\
         action = harmless\n",
    );
    let action = "[Definition]\nactionban = echo <ip> >> DIR/caught\nactionunban = true\n";
    folder.with("fail2ban/action.d/harmless.conf", action);
    folder.with(
        "f2b-pipe.toml",
        "[fail2ban]\nconfig = ''\nlogfile = 'DIR/ours.log'\n[jail.door]\nstatus = 401\nmaxretry = 2\nfindtime = '10s'\n\
         bantime = '1s'\n",
    );
    folder.with("ours.log", "");
    let server = folder.server("theirs.log");
    folder.wait("theirs.log", "Jail 'recidive' started", 1);

    let mut pipe = folder.f2b_pipe(&["run", "--single-writer"], Stdio::piped());
    let mut httpd = pipe.0.stdin.take().unwrap();
    let mut refused = |who: &str| {
        let line = format!(
            "{who} - joe [02/Mar/2026:08:00:00 +0000] \"GET / HTTP/1.1\" 401 1 \"-\" \"-\"\n"
        );
        httpd.write_all(line.repeat(2).as_bytes()).unwrap();
    };
    refused("203.0.113.9");
    for round in 1..=3 {
        refused("198.51.100.7");
        folder.wait("ours.log", "[door] Ban 198.51.100.7", round);
        folder.wait("ours.log", "[door] Unban 198.51.100.7", round);
    }
    folder.wait("caught", "198.51.100.7", 1);
    drop(httpd);
    assert!(pipe.0.wait().unwrap().success());
    folder.wait("theirs.log", "[recidive] Ban 198.51.100.7", 1);
    assert_eq!(folder.text("caught"), "198.51.100.7\n");
    server.end();

    let regex = Command::new("fail2ban-regex")
        .arg(folder.path("ours.log"))
        .arg("recidive")
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&regex.stdout);
    assert!(report.contains("Failregex: 4 total"), "{report}");
    let log = folder.text("ours.log");
    assert_eq!(
        log.matches("[door] Found 198.51.100.7 - ").count(),
        6,
        "{log}"
    );
    assert!(log.contains("Jail 'door' stopped"), "{log}");
}
