//! Each fault alone, and with each other one: httpd serves, every line is in the log (once the disk has room), what can be
//! counted is counted and banned, and `status` says what is wrong.
//!
//! Both `watch` and httpd's logger have every fault. The administrator's disk, state and runtime directory are those of a
//! host of its own, a mount namespace for each scenario; several run side by side.
//!
//! All pairs take some minutes: `F2B_PIPE_TEST_ALL_PAIRS=1`. Else those that a seed chooses are tried
//! (`F2B_PIPE_TEST_SEED`, shown).

use std::collections::VecDeque;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::storm::Dice;
use crate::support::{
    Connection, Host, Httpd, PROGRAM, Request, Setup, World, alive, assert_same_lines, bytes_of,
    must, secs, shim, signal, tree, wait_until,
};
use crate::troubles::NO_IP_SET;

const VISITOR: &str = "198.51.100.7";
/// Pairs that are tried unless all are.
const SOME_PAIRS: usize = 12;
/// Scenarios at a time.
const AT_A_TIME: usize = 4;
/// `status` knows of everything after so long. (The resolver alone takes seconds to know that nobody answers.)
const LOOK: Duration = secs(20);

const CONFIG: &str = r#"
[defaults]
maxretry = 1
findtime = "1m"
bantime = "1h"

[jail.missing]
status = [404]

[jail.app]
filter = 'app'
logpath = [LOGS]
port = "all"
"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// Of the log, and of the ledger.
    FullDisk,
    ReadOnlyState,
    BrokenLedger,
    NoRuntimeDirectory,
    RuntimeDirectoryRemoved,
    SyslogStuck,
    NoIpSet,
    NoRights,
    ClockJumps,
    JournalctlDies,
    WatchStopped,
    FifoAndDirectory,
    TenThousandFiles,
    DnsSilent,
}

use Fault::{
    BrokenLedger, ClockJumps, DnsSilent, FifoAndDirectory, FullDisk, JournalctlDies, NoIpSet,
    NoRights, NoRuntimeDirectory, ReadOnlyState, RuntimeDirectoryRemoved, SyslogStuck,
    TenThousandFiles, WatchStopped,
};

const ALL: [Fault; 14] = [
    FullDisk,
    ReadOnlyState,
    BrokenLedger,
    NoRuntimeDirectory,
    RuntimeDirectoryRemoved,
    SyslogStuck,
    NoIpSet,
    NoRights,
    ClockJumps,
    JournalctlDies,
    WatchStopped,
    FifoAndDirectory,
    TenThousandFiles,
    DnsSilent,
];

/// A clock that the file at F2B_PIPE_TEST_CLOCK moves by as many seconds as its first eight bytes say.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
static volatile long *by;
__attribute__((constructor)) static void start(void) {
    const char *path = getenv("F2B_PIPE_TEST_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *at = fd < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) by = at;
}
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(id, t);
    if (!done && by && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += *by;
    return done;
}
int gettimeofday(struct timeval *restrict t, void *restrict z) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
"#;

/// A host with some of the faults.
struct Scenario<'w> {
    world: &'w World,
    host: Host<'w>,
    faults: Vec<Fault>,
    clock: PathBuf,
    libraries: Vec<PathBuf>,
    devlog: Option<UnixDatagram>,
    /// Seconds by which the clock is off.
    off: i64,
    /// `watch` is.
    stopped: bool,
    next: u8,
}

impl<'w> Scenario<'w> {
    /// The host, with all that is wrong before anything runs.
    fn new(world: &'w World, faults: &[Fault]) -> Self {
        world.in_the_usual_place();
        let mut it = Self {
            world,
            host: Host::new(world),
            faults: faults.to_vec(),
            clock: world.write("clock", [0; 8]),
            libraries: Vec::new(),
            devlog: None,
            off: 0,
            stopped: false,
            next: 0,
        };
        for dir in ["disk", "many"] {
            fs::create_dir(world.path(dir)).expect("mkdir");
        }
        it.sh(&format!(
            "mount -t tmpfs tmpfs /var/lib; mkdir -m 700 /var/lib/f2b-pipe /run/f2b-pipe
            mount -t tmpfs -o size=16m,mode=700 tmpfs /var/lib/f2b-pipe
            mount -t tmpfs -o size=256k,mode=755 tmpfs {}",
            it.disk()
        ));
        it.configure();
        if it.has(NoIpSet) {
            it.libraries.push(shim(world, "no_ip_set", NO_IP_SET));
        }
        if it.has(ClockJumps) {
            it.libraries.push(shim(world, "clock", CLOCK));
        }
        if it.has(BrokenLedger) {
            it.break_ledger();
        }
        if it.has(ReadOnlyState) {
            it.sh("mount -o remount,ro /var/lib/f2b-pipe");
        }
        if it.has(NoRuntimeDirectory) {
            it.sh("rmdir /run/f2b-pipe; mount -o remount,ro /run");
        }
        if it.has(SyslogStuck) {
            let socket = UnixDatagram::bind(world.path("devlog")).expect("a socket");
            it.sh(&format!(
                "ln -sfn {} /dev/log",
                world.path("devlog").display()
            ));
            it.devlog = Some(socket);
        }
        if it.has(JournalctlDies) {
            it.sh(&format!(
                "printf '#!/bin/sh\\necho It is dead. >&2\\nexit 1\\n' > {0}; chmod 755 {0}
                mount --bind {0} /usr/bin/journalctl",
                world.path("journalctl").display()
            ));
        }
        if it.has(DnsSilent) {
            // Nobody is there.
            let conf = world.write(
                "resolv.conf",
                "nameserver 192.0.2.99\noptions timeout:1 attempts:1\n",
            );
            it.sh(&format!("mount --bind {} /etc/resolv.conf", conf.display()));
        }
        it
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    fn disk(&self) -> String {
        self.world.path("disk").display().to_string()
    }

    #[track_caller]
    fn sh(&self, script: &str) {
        must(self.host.on("sh").args(["-ec", script]));
    }

    fn configure(&self) {
        let world = self.world;
        let mut logs = vec![world.write("app.log", "")];
        world.write(
            "filter.d/app.conf",
            "[Definition]\nfailregex = ^ bad <HOST>$\n",
        );
        if self.has(FifoAndDirectory) {
            logs.extend([world.path("fifo"), world.path("directory")]);
            must(Command::new("mkfifo").arg(world.path("fifo")));
            fs::create_dir(world.path("directory")).expect("mkdir");
        }
        if self.has(TenThousandFiles) {
            for n in 0..10_000 {
                fs::write(world.path(&format!("many/{n}.log")), "").expect("a log");
            }
            logs.push(world.path("many/*.log"));
        }
        let logs: Vec<String> = logs
            .iter()
            .map(|log| format!("'{}'", log.display()))
            .collect();
        let mut toml = CONFIG.replace("LOGS", &logs.join(", "));
        if self.has(JournalctlDies) {
            toml.push_str("[jail.journal]\nfilter = 'app'\nlogpath = 'journal'\n");
        }
        if self.has(NoIpSet) {
            toml.push_str("[firewall]\nbackend = 'ipset'\n");
        }
        if self.has(DnsSilent) {
            toml = toml.replacen(
                "[defaults]\n",
                "[defaults]\nignoreip = ['127.0.0.0/8', 'monitor.example.org']\n",
                1,
            );
        }
        world.config(&toml);
    }

    /// A real one, a byte in each forty of which is another one.
    fn break_ledger(&self) {
        let mut bytes = bytes_of(&tree().join("tests/ledgers/version-1.sqlite3"));
        let mut dice = Dice::new();
        for _ in 0..bytes.len() / 40 {
            let at = dice.roll(bytes.len());
            bytes[at] = u8::try_from(dice.roll(256)).expect("a byte");
        }
        let ledger = self.world.write("ledger", bytes);
        self.sh(&format!(
            "cp {} /var/lib/f2b-pipe/f2b-pipe.sqlite3",
            ledger.display()
        ));
    }

    fn environment(&self) -> Vec<(String, String)> {
        let libraries: Vec<String> = self
            .libraries
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        vec![
            ("LD_PRELOAD".into(), libraries.join(":")),
            (
                "F2B_PIPE_TEST_CLOCK".into(),
                self.clock.display().to_string(),
            ),
        ]
    }

    /// Words before a command.
    fn through(&self) -> Vec<&'static str> {
        match self.has(NoRights) {
            true => vec![
                "setpriv",
                "--bounding-set",
                "-net_admin",
                "--inh-caps",
                "-net_admin",
            ],
            false => Vec::new(),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut words = self.through();
        words.push(PROGRAM);
        let mut command = self.host.on(words[0]);
        command
            .args(&words[1..])
            .arg(args[0])
            .args(self.world.place())
            .args(&args[1..])
            .envs(self.environment());
        command
    }

    /// What is wrong, as `status` has it.
    fn shown(&self) -> String {
        let output = self.command(&["status"]).output().expect("status");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let end = text.find("Status\n").unwrap_or(text.len());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        text[..end].to_owned() + &error
    }

    fn httpd(&self) -> Httpd<'w> {
        let mut setup = Setup::new(self.world)
            .tee(&self.world.path("disk/access.log"))
            .through(&self.through());
        for (name, value) in self.environment() {
            setup = setup.env(&name, &value);
        }
        setup.start_on(&self.host)
    }

    fn tee(&self) -> Vec<u8> {
        bytes_of(&self.host.file(&format!("{}/access.log", self.disk())))
    }

    /// What becomes wrong while all runs.
    fn strike(&mut self) {
        if self.has(FullDisk) {
            self.sh(&format!(
                "for at in {} /var/lib/f2b-pipe; do dd if=/dev/zero of=$at/filler bs=1k 2>/dev/null || true; done",
                self.disk()
            ));
        }
        if self.has(RuntimeDirectoryRemoved) {
            // A file may come into it meanwhile.
            self.sh("until rm -rf /run/f2b-pipe; do :; done 2>/dev/null");
        }
        if self.has(SyslogStuck) {
            let sender = UnixDatagram::unbound().expect("a socket");
            sender.set_nonblocking(true).expect("a socket");
            while sender
                .send_to(b"<30>x: x", self.world.path("devlog"))
                .is_ok()
            {}
            // More news than wait in memory.
            for n in 0..2500 {
                self.tell(&format!("198.18.{}.{}", n / 250, 1 + n % 250));
            }
        }
    }

    /// A line of the other log, dated by the clock that all have.
    fn tell(&self, who: &str) {
        let now = chrono::Local::now() + chrono::TimeDelta::seconds(self.off);
        let line = format!("{} bad {who}\n", now.format("%F %T"));
        let mut log = fs::File::options()
            .append(true)
            .open(self.world.path("app.log"))
            .expect("the log");
        std::io::Write::write_all(&mut log, line.as_bytes()).expect("the log");
    }

    /// One more of each kind comes, and is banned if anything can.
    #[track_caller]
    fn attack(&mut self) {
        self.next += 1;
        let bans = !self.has(NoIpSet) && !self.has(NoRights);
        let scanner = format!("203.0.113.{}", self.next);
        let mut connection = Connection::open(self.world, &scanner).expect("a connection");
        assert_eq!(
            connection
                .ask(&Request::get("/missing"))
                .expect("an answer"),
            404
        );
        let guesser = format!("203.0.113.{}", 100 + self.next);
        self.tell(&guesser);
        if bans {
            self.wait_banned("missing", &scanner);
        }
        if bans && !self.stopped {
            self.wait_banned("app", &guesser);
        }
    }

    #[track_caller]
    fn wait_banned(&self, jail: &str, who: &str) {
        wait_until(&format!("{who} in the set of {jail}"), secs(40), || {
            self.world.banned(jail).iter().any(|b| b == who)
        });
    }

    /// The clock goes that far.
    fn jump(&mut self, by: i64) {
        self.off += by;
        let file = fs::File::options()
            .write(true)
            .open(&self.clock)
            .expect("the clock");
        std::os::unix::fs::FileExt::write_all_at(&file, &self.off.to_ne_bytes(), 0)
            .expect("the clock");
    }

    /// A visitor is served, and httpd's logger is the same.
    #[track_caller]
    fn serves(&self, httpd: &Httpd<'_>, logger: i32) {
        let mut connection = Connection::open(self.world, VISITOR).expect("a connection");
        for n in 0..30 {
            let request = Request::get(format!("/page?{n}"));
            assert_eq!(connection.ask(&request).expect("an answer"), 200);
        }
        assert!(alive(logger), "the logger died: {}", httpd.error_log());
        assert_eq!(httpd.logger(), logger);
    }

    /// What `status` is to say of a fault, in one line; none: nothing is wrong.
    fn words(&self, fault: Fault) -> Vec<Vec<&'static str>> {
        // Neither the one folder nor the other can be written to, so no process can say anything.
        let mute = (self.has(NoRuntimeDirectory) || self.has(RuntimeDirectoryRemoved))
            && (self.has(FullDisk) || self.has(ReadOnlyState));
        let bans = !self.has(NoIpSet) && !self.has(NoRights);
        match fault {
            FullDisk | ReadOnlyState if mute => vec![],
            // Who may not ask does not know; and without bans there is no news that could be lost.
            NoIpSet if self.has(NoRights) => vec![],
            SyslogStuck if !bans => vec![],
            WatchStopped if !self.stopped => vec![],
            FullDisk => vec![vec!["access.log", "No space left on device"]],
            ReadOnlyState => vec![vec!["f2b-pipe.sqlite3", "writable"]],
            BrokenLedger => vec![vec!["f2b-pipe.sqlite3"]],
            NoRuntimeDirectory | RuntimeDirectoryRemoved => vec![vec!["/run/f2b-pipe"]],
            SyslogStuck => vec![vec!["messages", "nobody reads /dev/log"]],
            NoIpSet => vec![vec!["ipset"]],
            NoRights => vec![vec!["CAP_NET_ADMIN"]],
            ClockJumps => vec![],
            JournalctlDies => vec![vec!["journalctl", "It is dead."]],
            WatchStopped => vec![vec!["is stopped", "kill -CONT"]],
            FifoAndDirectory => vec![
                vec!["does not read", "fifo"],
                vec!["does not read", "directory"],
            ],
            TenThousandFiles => vec![],
            DnsSilent => vec![vec!["monitor.example.org", "cannot be resolved"]],
        }
    }

    /// Within seconds it is in the first lines of `status`.
    #[track_caller]
    fn assert_shown(&self, fault: Fault) {
        for words in self.words(fault) {
            let mut shown = String::new();
            let begun = Instant::now();
            while !shown
                .lines()
                .any(|line| line.starts_with("! ") && words.iter().all(|word| line.contains(word)))
            {
                assert!(
                    begun.elapsed() < LOOK,
                    "status does not say {words:?}: {shown}"
                );
                std::thread::sleep(Duration::from_millis(200));
                shown = self.shown();
            }
        }
    }

    fn run(mut self) {
        let mut start = self.command(&["watch"]);
        let watch = self.host.start("watch", &mut start);
        let httpd = self.httpd();
        let logger = httpd.logger();
        self.serves(&httpd, logger);
        wait_until("the first lines", secs(5), || {
            self.tee().len() == httpd.oracle().len()
        });
        wait_until("watch to be at work", secs(10), || {
            assert!(alive(watch), "{}", self.host.said("watch"));
            // Where they cannot find each other it may be the logger.
            (self.host.said("watch") + &httpd.said()).contains("watching logs")
        });
        self.strike();
        self.serves(&httpd, logger);
        self.attack();
        if self.has(ClockJumps) {
            for by in [3600, -7200] {
                self.jump(by);
                self.attack();
            }
        }
        for &fault in &self.faults {
            self.assert_shown(fault);
        }
        if self.has(WatchStopped) {
            // Last: what it would say of others has been said.
            signal(watch, Signal::SIGSTOP);
            self.stopped = true;
            self.attack();
            for &fault in &self.faults {
                self.assert_shown(fault);
            }
        }
        if let [ClockJumps | TenThousandFiles] = self.faults[..] {
            let shown = self.shown();
            assert!(shown.starts_with("All is well."), "{shown}");
        }
        self.serves(&httpd, logger);
        assert!(alive(watch), "{}", self.host.said("watch"));
        if self.has(FullDisk) {
            self.sh(&format!("rm {}/filler", self.disk()));
        }
        wait_until("every line", secs(10), || {
            self.tee().len() == httpd.oracle().len()
        });
        assert_same_lines(&self.tee(), &httpd.oracle());
        signal(watch, Signal::SIGCONT);
        httpd.stop();
        self.host.end(watch, Signal::SIGTERM);
        for log in [httpd.error_log(), self.host.said("watch")] {
            assert!(!log.contains("internal error"), "{log}");
        }
    }
}

/// Do they exclude each other?
fn fit(a: Fault, b: Fault) -> bool {
    a != b && (a, b) != (NoRuntimeDirectory, RuntimeDirectoryRemoved)
}

/// Runs them all, several at a time; those that fail, at the end.
#[track_caller]
fn run_all(scenarios: Vec<Vec<Fault>>) {
    let count = scenarios.len();
    let (left, failed) = (
        Mutex::new(VecDeque::from(scenarios)),
        Mutex::new(Vec::new()),
    );
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let next = left.lock().expect("lock").pop_front();
                    let Some(faults) = next else { return };
                    let begun = Instant::now();
                    let done = catch_unwind(AssertUnwindSafe(|| {
                        let world = World::new();
                        Scenario::new(&world, &faults).run();
                    }));
                    eprintln!("{faults:?}: {} in {:?}", done.is_ok(), begun.elapsed());
                    if done.is_err() {
                        failed.lock().expect("lock").push(faults);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("lock");
    assert!(
        failed.is_empty(),
        "{} of {count} failed: {failed:?}",
        failed.len()
    );
}

#[test]
#[ignore = "needs root and network namespaces"]
fn each_fault_alone_costs_no_line_no_answer_and_no_ban_that_can_be_and_is_in_status() {
    // One of them by name: F2B_PIPE_TEST_FAULT=FullDisk, or a pair: FullDisk,NoRights.
    if let Ok(names) = std::env::var("F2B_PIPE_TEST_FAULT") {
        let wanted: Vec<&str> = names.split(',').collect();
        let faults = ALL.into_iter();
        run_all(vec![
            faults
                .filter(|fault| wanted.contains(&format!("{fault:?}").as_str()))
                .collect(),
        ]);
        return;
    }
    run_all(ALL.into_iter().map(|fault| vec![fault]).collect());
}

#[test]
#[ignore = "needs root and network namespaces"]
fn two_faults_at_a_time_cost_no_more_than_each_does() {
    let mut pairs: Vec<Vec<Fault>> = Vec::new();
    for (n, &a) in ALL.iter().enumerate() {
        let others = ALL[n..].iter().filter(|&&b| fit(a, b));
        pairs.extend(others.map(|&b| vec![a, b]));
    }
    if std::env::var_os("F2B_PIPE_TEST_ALL_PAIRS").is_none() {
        Dice::new().shuffle(&mut pairs);
        pairs.truncate(SOME_PAIRS);
    }
    run_all(pairs);
}
