//! Several loggers of httpd, and one `watch` that counts for all of them: whatever becomes of it.

use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Connection, Httpd, Load, PROGRAM, Piped, Request, Setup, World, alive, bytes_of, comes_true,
    secs, signal, text_of, wait_until,
};

const ATTACKER: &str = "198.51.100.66";
const SECOND: &str = "198.51.100.67";
const THIRD: &str = "198.51.100.68";
const VISITOR: &str = "203.0.113.5";

/// `f2b-pipe watch`, ended when dropped.
pub(crate) struct Watch<'w> {
    world: &'w World,
    child: Child,
}

impl<'w> Watch<'w> {
    /// Starts it, and waits until it takes hits.
    pub(crate) fn start(world: &'w World) -> Self {
        let child = world.watch("watch.out");
        let watch = Self { world, child };
        wait_until("watch to listen", secs(10), || {
            assert!(alive(watch.pid()), "{}", watch.said());
            // A socket that a killed one left is refused.
            std::os::unix::net::UnixStream::connect(world.path("run/f2b-pipe.feed")).is_ok()
        });
        watch
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    fn signal(&self, which: Signal) {
        signal(self.pid(), which);
    }

    /// Returns when it stands still. A signal is on its way until the thread that gets it has run, and so long the others
    /// go on: on a busy machine long enough to count what comes meanwhile.
    fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        wait_until("all threads of watch to stand still", secs(10), || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
            tasks.flatten().all(|task| {
                let stat = text_of(&task.path().join("stat"));
                // Empty: it has just ended.
                stat.rsplit_once(") ")
                    .is_none_or(|(_, fields)| fields.starts_with('T'))
            })
        });
    }

    /// Waits until it says so: messages are written by a thread that stands back.
    #[track_caller]
    fn wait_says(&self, what: &str) {
        wait_until(&format!("watch to say {what}"), secs(10), || {
            self.said().contains(what)
        });
    }

    pub(crate) fn said(&self) -> String {
        text_of(&self.world.path("watch.out"))
    }

    /// Waits until it counts for so many loggers.
    #[track_caller]
    pub(crate) fn wait_fed_by(&self, many: usize) {
        let mut seen = Value::Null;
        wait_until(&format!("{many} loggers that feed watch"), secs(30), || {
            seen = self.world.status();
            let processes = seen["processes"].as_array().unwrap();
            let fed = processes.iter().filter(|process| process["fed"] == true);
            fed.count() == many
        });
    }

    fn end(mut self, how: Signal) {
        self.signal(how);
        self.child.wait().unwrap();
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::SIGCONT);
            self.signal(Signal::SIGKILL);
            self.child.wait().unwrap();
        }
    }
}

/// Vhosts with a CustomLog each.
fn vhosts(world: &World, names: &[&str]) -> String {
    let place = world.place().map(|word| format!("'{word}'")).join(" ");
    let each = names.iter().map(|name| {
        let dir = world.dir().display();
        format!(
            "<VirtualHost *:80>\nServerName {name}\nDocumentRoot {dir}/pages\n\
             CustomLog \"|'{PROGRAM}' run {place} --format f2b --tee '{dir}/{name}.log'\" f2b\n\
             CustomLog {dir}/{name}.oracle f2b\n</VirtualHost>\n"
        )
    });
    each.collect()
}

/// Dynamic requests on each vhost, as fast as they are answered; how many were.
fn ask(world: &World, from: &str, hosts: &[&'static str], each: usize) -> usize {
    let mut served = 0;
    let mut connections: Vec<Connection> = hosts
        .iter()
        .filter_map(|_| Connection::open(world, from).ok())
        .collect();
    for connection in &connections {
        connection.patience(Duration::from_millis(500));
    }
    for _ in 0..each {
        for (connection, host) in connections.iter_mut().zip(hosts) {
            let request = Request::get("/page").host(host);
            served += usize::from(connection.ask(&request).is_ok());
        }
    }
    served
}

pub(crate) fn hits(world: &World, jail: &str) -> u64 {
    let status = world.status();
    let jails = status["jails"].as_array().unwrap();
    let jail = jails.iter().find(|j| j["name"] == jail).unwrap();
    jail["hits"].as_u64().unwrap()
}

fn loggers(httpd: &Httpd<'_>, many: usize) -> Vec<i32> {
    let mut found = Vec::new();
    wait_until(&format!("{many} loggers"), secs(10), || {
        found = httpd.loggers();
        found.len() == many
    });
    found
}

#[test]
#[ignore = "needs root and network namespaces"]
fn three_vhosts_share_a_limit_and_a_client_below_it_is_served() {
    let hosts = ["a.example", "b.example", "c.example"];
    let world = World::new();
    world.shipped();
    let watch = Watch::start(&world);
    let httpd = Setup::new(&world)
        .without_logger()
        .conf(&vhosts(&world, &hosts))
        .start();
    loggers(&httpd, 3);
    watch.wait_fed_by(3);
    world.wait_chain();
    assert_eq!(ask(&world, VISITOR, &hosts, 33), 99);
    wait_until("99 hits", secs(5), || hits(&world, "apache-dos") == 99);
    assert_eq!(world.banned_anywhere(), [""; 0]);
    // On a busy machine a hundred requests can take more than the second of the jail.
    let attacker = (100..120)
        .map(|n| format!("198.51.100.{n}"))
        .find(|who| {
            let begun = Instant::now();
            ask(&world, who, &hosts, 40);
            begun.elapsed() < Duration::from_millis(900)
        })
        .expect("120 requests within a second");
    world.wait_banned("apache-dos", &attacker);
    assert_eq!(world.curl(&attacker, "/page"), None);
    assert_eq!(world.curl(VISITOR, "/page"), Some(200));
    watch.wait_says(&format!("ban client={attacker}"));
    assert!(!httpd.said().contains("ban client="), "{}", httpd.said());
}

#[test]
#[ignore = "needs root and network namespaces"]
fn counts_outlive_a_graceful_restart() {
    let world = World::new();
    world.config("[jail.page]\npath = ['^/page$']\nmaxretry = 100\nfindtime = \"1m\"\n");
    let watch = Watch::start(&world);
    let httpd = Setup::new(&world).start();
    let before = httpd.logger();
    watch.wait_fed_by(1);
    world.wait_chain();
    assert_eq!(ask(&world, ATTACKER, &["www.example.org"], 60), 60);
    wait_until("60 hits", secs(5), || hits(&world, "page") == 60);
    httpd.control("graceful");
    wait_until("another logger", secs(20), || {
        let now = httpd.loggers();
        !now.is_empty() && !now.contains(&before)
    });
    assert_eq!(world.banned("page"), [""; 0]);
    ask(&world, ATTACKER, &["www.example.org"], 60);
    world.wait_banned("page", ATTACKER);
}

/// Somebody new comes now and then while `watch` is killed, started, stopped and let go on: each is banned.
#[test]
#[ignore = "needs root and network namespaces"]
fn whatever_becomes_of_watch_no_line_is_lost_and_nobody_gets_away() {
    let hosts = ["a.example", "b.example", "c.example"];
    let world = World::new();
    world.shipped();
    let watch = Watch::start(&world);
    let httpd = Setup::new(&world)
        .without_logger()
        .conf(&vhosts(&world, &hosts))
        .start();
    loggers(&httpd, 3);
    watch.wait_fed_by(3);
    world.wait_chain();
    let load = Load::start(
        &world,
        6,
        usize::MAX,
        Duration::from_millis(30),
        |client| format!("203.0.113.{}", client + 10),
        move |client, _| Request::get("/style.css").host(hosts[client % 3]),
    );
    let mut next = 100;
    let mut attack = |when: &str| {
        next += 1;
        let who = format!("198.51.100.{next}");
        // Nobody stops by himself: hits of the moment in which the counting changes hands are in two tables, and on a busy
        // machine a hundred requests can take more than the second of the jail.
        let is_banned = (0..4).any(|_| {
            ask(&world, &who, &hosts[..1], 110);
            comes_true(secs(1), || world.banned("apache-dos").contains(&who))
        });
        assert!(is_banned, "{who} is not banned {when}");
    };
    attack("by watch");
    watch.end(Signal::SIGKILL);
    attack("when watch is dead");
    std::thread::sleep(secs(4));
    attack("when the lock is a logger's");
    let watch = Watch::start(&world);
    attack("when watch has just begun");
    watch.wait_fed_by(3);
    attack("by the next watch");
    watch.stop();
    attack("when watch is stopped");
    std::thread::sleep(secs(2));
    attack("when it has been for a while");
    watch.signal(Signal::SIGCONT);
    attack("when it goes on");
    watch.wait_fed_by(3);
    attack("by the same watch");
    for _ in 0..2 {
        watch.stop();
        std::thread::sleep(Duration::from_millis(300));
        watch.signal(Signal::SIGCONT);
        std::thread::sleep(Duration::from_millis(300));
    }
    attack("after more of it");
    watch.end(Signal::SIGTERM);
    attack("when watch has ended");
    let served = load.stop();
    assert_eq!((served.failed, served.refused), (0, 0), "{served:?}");
    assert_eq!(world.banned("apache-dos").len(), 11);
    httpd.stop();
    for host in hosts {
        let read = |end: &str| bytes_of(&world.path(&format!("{host}.{end}")));
        let (log, oracle) = (read("log"), read("oracle"));
        assert!(oracle.len() > 10_000);
        crate::support::assert_same_lines(&log, &oracle);
    }
    let said = httpd.said();
    assert!(!said.contains("internal error"), "{said}");
}

pub(crate) fn line(ip: &str, path: &str, status: u16) -> String {
    format!("{ip} - - [02/Mar/2026:08:00:00 +0000] \"GET {path} HTTP/1.1\" {status} 1 \"-\" \"-\"")
}

pub(crate) fn logger(world: &World) -> Piped {
    world.pipe(1 << 16, &["--format", "combined", "--single-writer"])
}

#[test]
#[ignore = "needs root and network namespaces"]
fn distinct_values_are_the_same_in_all_processes() {
    let world = World::new();
    world.config(
        "[jail.pages]\nstatus = [404]\ndistinct = \"path\"\nmaxretry = 10\nfindtime = \"1m\"\n",
    );
    let watch = Watch::start(&world);
    let (one, other) = (logger(&world), logger(&world));
    watch.wait_fed_by(2);
    for n in 0..9 {
        for logger in [&one, &other] {
            logger.line(&line(ATTACKER, &format!("/{n}"), 404));
        }
    }
    wait_until("18 hits", secs(5), || hits(&world, "pages") == 18);
    assert_eq!(world.banned("pages"), [""; 0]);
    other.line(&line(ATTACKER, "/9", 404));
    world.wait_banned("pages", ATTACKER);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn hits_that_a_stopped_watch_has_taken_are_counted_by_the_logger() {
    let world = World::new();
    world.config("[jail.missing]\nstatus = [404]\nmaxretry = 5\nfindtime = \"1m\"\n");
    let watch = Watch::start(&world);
    let logger = logger(&world);
    watch.wait_fed_by(1);
    world.wait_chain();
    watch.stop();
    for _ in 0..5 {
        logger.line(&line(ATTACKER, "/", 404));
    }
    world.wait_banned("missing", ATTACKER);
    // What was on its way to it is not counted a second time when it goes on.
    for _ in 0..4 {
        logger.line(&line(SECOND, "/", 404));
    }
    wait_until("9 hits", secs(5), || hits(&world, "missing") == 9);
    watch.wait_fed_by(0);
    watch.signal(Signal::SIGCONT);
    watch.wait_fed_by(1);
    std::thread::sleep(secs(3));
    assert_eq!(hits(&world, "missing"), 9);
    assert_eq!(world.banned("missing"), [ATTACKER]);
    for _ in 0..5 {
        logger.line(&line(THIRD, "/", 404));
    }
    world.wait_banned("missing", THIRD);
    watch.wait_says(THIRD);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_last_lines_before_the_end_of_the_pipe_count() {
    let world = World::new();
    world.config("[jail.missing]\nstatus = [404]\nmaxretry = 5\nfindtime = \"1m\"\n");
    let watch = Watch::start(&world);
    for (who, stopped) in [(ATTACKER, false), (SECOND, true)] {
        let mut logger = logger(&world);
        watch.wait_fed_by(1);
        if stopped {
            watch.stop();
        }
        for _ in 0..5 {
            logger.line(&line(who, "/", 404));
        }
        logger.close(secs(5)).expect("the end");
        if stopped {
            watch.signal(Signal::SIGCONT);
        }
        wait_until(&format!("a ban of {who}"), secs(5), || {
            world.banned("missing").iter().any(|banned| banned == who)
        });
    }
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_jail_that_watch_does_not_know_is_told_of() {
    let world = World::new();
    let known = "[jail.missing]\nstatus = [404]\nmaxretry = 2\nfindtime = \"1m\"\n";
    world.config(known);
    let watch = Watch::start(&world);
    world.config(&format!(
        "{known}[jail.mine]\nstatus = [404]\nmaxretry = 2\n"
    ));
    let logger = logger(&world);
    watch.wait_fed_by(1);
    for _ in 0..2 {
        logger.line(&line(THIRD, "/", 404));
    }
    world.wait_banned("missing", THIRD);
    wait_until("a word about it", secs(10), || {
        let status = world.status();
        let told = |trouble: &Value| {
            let text = trouble.as_str().unwrap();
            text.contains("jail mine of httpd's loggers") && text.contains("2 hits")
        };
        let processes = status["processes"].as_array().unwrap();
        let watch = processes.iter().find(|p| p["format"] == "watch").unwrap();
        let troubles = status["troubles"].as_array().unwrap();
        watch["feed"]["unknown"]["mine"] == 2 && troubles.iter().any(told)
    });
}

/// The format lacks what the jail's exceptions look at, so its hits are counted and ban nobody, here as there.
#[test]
#[ignore = "needs root and network namespaces"]
fn hits_of_a_logger_that_cannot_see_exceptions_ban_nobody() {
    let world = World::new();
    world.config(
        "[jail.missing]\nstatus = [404]\nnot = { agent = ['^Good'] }\nmaxretry = 2\nfindtime = \"1m\"\n",
    );
    let watch = Watch::start(&world);
    let blind = world.pipe(1 << 16, &["--format", "common", "--single-writer"]);
    let seeing = logger(&world);
    watch.wait_fed_by(2);
    let common = format!("{ATTACKER} - - [02/Mar/2026:08:00:00 +0000] \"GET / HTTP/1.1\" 404 1");
    for _ in 0..5 {
        blind.line(&common);
    }
    wait_until("5 hits", secs(5), || hits(&world, "missing") == 5);
    watch.wait_says("would ban");
    seeing.line(&line(ATTACKER, "/", 404));
    wait_until("6 hits", secs(5), || hits(&world, "missing") == 6);
    assert_eq!(world.banned("missing"), [""; 0]);
    seeing.line(&line(ATTACKER, "/", 404));
    world.wait_banned("missing", ATTACKER);
}

/// Twenty CustomLogs are twenty processes, and one picture.
#[test]
#[ignore = "needs root and network namespaces"]
fn status_shows_twenty_vhosts_as_one() {
    let names: Vec<String> = (0..20).map(|n| format!("v{n}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let world = World::new();
    world.shipped();
    let watch = Watch::start(&world);
    let httpd = Setup::new(&world)
        .without_logger()
        .conf(&vhosts(&world, &names))
        .start();
    loggers(&httpd, 20);
    watch.wait_fed_by(20);
    ask(&world, VISITOR, &["v3.example", "v17.example"], 10);
    wait_until("20 hits", secs(5), || hits(&world, "apache-dos") == 20);
    let mut text = String::new();
    wait_until("20 lines", secs(5), || {
        text = String::from_utf8_lossy(&world.ask(&["status"]).stdout).into_owned();
        text.contains("|- 20 lines")
    });
    assert!(text.starts_with("All is well.\n"), "{text}");
    assert!(
        text.contains("20 loggers of httpd, counted by watch\n"),
        "{text}"
    );
    assert!(
        text.contains("watches logs, counts for 20 loggers of httpd\n"),
        "{text}"
    );
    assert!(
        text.contains("apache-dos            ban      0 banned now, 20 hits"),
        "{text}"
    );
    assert!(text.lines().count() < 20, "{text}");
}

/// The process in charge is the one that reads logs; a second one would count and ban all that a second time.
#[test]
#[ignore = "needs root and network namespaces"]
fn the_lock_goes_to_watch_and_back() {
    let world = World::new();
    world.write("auth.log", "");
    let log = world.path("auth.log").display().to_string();
    world.config(&format!(
        "[jail.mine]\nlogpath = ['{log}']\nfailregex = ['^<HOST> failed$']\ndatepattern = '{{NONE}}'\nmaxretry = 2\n"
    ));
    let append = |who: &str| {
        use std::io::Write as _;
        let mut file = std::fs::File::options().append(true).open(&log).unwrap();
        writeln!(file, "{who} failed").unwrap();
    };
    let owners = || -> Vec<i64> {
        let status = world.status();
        let processes = status["processes"].as_array().unwrap().iter();
        let owners = processes.filter(|process| process["act"]["owner"] == true);
        owners
            .map(|process| process["pid"].as_i64().unwrap())
            .collect()
    };
    let logger = logger(&world);
    let own = i64::from(logger.pid());
    wait_until("the logger to be in charge", secs(10), || owners() == [own]);
    append(ATTACKER);
    let watch = Watch::start(&world);
    let its = i64::from(watch.pid());
    wait_until("watch to be in charge", secs(15), || {
        owners() == [its] && watch.said().contains("watching logs")
    });
    append(ATTACKER);
    append(ATTACKER);
    world.wait_banned("mine", ATTACKER);
    watch.end(Signal::SIGKILL);
    wait_until("the logger to be in charge again", secs(15), || {
        owners() == [own]
    });
    append(SECOND);
    append(SECOND);
    world.wait_banned("mine", SECOND);
    assert_eq!(world.banned("mine"), [ATTACKER, SECOND]);
}

/// At most 6 MiB are to be resident of a `run` at rest, in a release build: 4.8 MiB were measured, 1.8 of them its own, the
/// rest pages of the program and of libraries, which all processes share. A debug build has more of both, 2.9 MiB of its
/// own, so what is looked at are these: a search or a queue that is kept for nothing shows in them.
#[test]
#[ignore = "needs root and network namespaces"]
fn a_logger_that_watch_counts_for_takes_little_memory_at_rest() {
    const OWN_KIB_MAX: u64 = 4 * 1024;
    let world = World::new();
    world.shipped();
    let watch = Watch::start(&world);
    let logger = logger(&world);
    watch.wait_fed_by(1);
    for n in 0..1000 {
        logger.line(&line(VISITOR, &format!("/{n}"), 404));
    }
    wait_until("1000 hits", secs(5), || hits(&world, "apache-scan") == 1000);
    let mut own = 0;
    let settles = comes_true(secs(30), || {
        let status = text_of(format!("/proc/{}/status", logger.pid()).as_ref());
        let mut lines = status.lines();
        let kib = lines
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .unwrap();
        own = kib.trim().trim_end_matches(" kB").parse().unwrap();
        own <= OWN_KIB_MAX
    });
    assert!(settles, "{own} KiB of its own");
}
