//! Jails of other logs among each other, over a restart, beside fail2ban itself, and broken ones.

use std::process::Command;
use std::time::{Duration, Instant};

use f2b_pipe::act::firewall::Firewall as _;
use f2b_pipe::act::ipset::Ipset;
use f2b_pipe::act::{Kind, SetRef};
use f2b_pipe::client::Client;
use f2b_pipe::exempt::Target;
use nix::sys::signal::Signal;

use crate::actions::note;
use crate::other_logs::{fail2ban_with, guessed};
use crate::support::{
    Host, Setup, World, alive, comes_true, must, secs, signal, text_of, wait_until,
};

const ATTACKER: &str = "198.51.100.66";
const SECOND: &str = "198.51.100.67";
const THIRD: &str = "198.51.100.68";

const RECIDIVE: &str = "[DEFAULT]\nbantime = 60\nmaxretry = 2\n[sshd]\nenabled = true\n\
    [recidive]\nenabled = true\nfindtime = 1d\nbantime = 1w\n";

/// A jail of httpd's lines bans him, and then sshd: once more than recidive lets pass.
fn banned_by_httpds_and_by_sshds(world: &World, host: &Host<'_>) {
    let shellshock = ["-A", "() { :; }; /bin/id"];
    assert_eq!(world.curl_with(ATTACKER, "/page", &shellshock), Some(200));
    world.wait_banned("apache-exploit-agent", ATTACKER);
    guessed(host, ATTACKER);
    assert_eq!(world.banned("recidive"), [""; 0]);
    guessed(host, ATTACKER);
    world.wait_banned("sshd", ATTACKER);
    world.wait_banned("recidive", ATTACKER);
    // Somebody whom only sshd has banned.
    guessed(host, SECOND);
    guessed(host, SECOND);
    world.wait_banned("sshd", SECOND);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(world.banned("recidive"), [ATTACKER]);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn recidive_counts_bans_of_the_process_that_runs_it() {
    let world = World::new();
    fail2ban_with(&world, RECIDIVE);
    let host = Host::new(&world);
    guessed(&host, "203.0.113.1");
    let httpd = Setup::new(&world).on(&host).start();
    wait_until("logs to be read", secs(5), || {
        httpd.said().contains("watching logs")
    });
    banned_by_httpds_and_by_sshds(&world, &host);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn recidive_counts_bans_of_httpds_loggers_beside_watch() {
    let world = World::new();
    fail2ban_with(&world, RECIDIVE);
    let host = Host::new(&world);
    guessed(&host, "203.0.113.1");
    host.watch();
    let httpd = Setup::new(&world).on(&host).start();
    wait_until("httpd's logger", secs(5), || {
        httpd.said().contains("at work")
    });
    banned_by_httpds_and_by_sshds(&world, &host);
    assert!(!httpd.said().contains("watching logs"), "{}", httpd.said());
}

/// Seconds that the kernel will hold him.
pub(crate) fn left(world: &World, jail: &str, who: &str) -> u64 {
    let sets = world.sets();
    let entry = sets[&format!("f2bp-{jail}")]
        .iter()
        .find(|entry| entry.starts_with(who))
        .unwrap_or_else(|| panic!("{who} is not in {sets:?}"));
    let mut words = entry.split(' ').skip_while(|&word| word != "timeout");
    words
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("{entry}"))
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_restart_keeps_bans_reads_on_where_it_was_and_lets_bans_grow() {
    for how in [Signal::SIGTERM, Signal::SIGKILL] {
        let world = World::new();
        fail2ban_with(
            &world,
            "[sshd]\nenabled = true\nmaxretry = 3\nfindtime = 600\nbantime = 30\nbantime.increment = true\n",
        );
        let host = Host::new(&world);
        guessed(&host, "203.0.113.1");
        let watch = host.watch();
        for _ in 0..3 {
            guessed(&host, ATTACKER);
        }
        world.wait_banned("sshd", ATTACKER);
        assert!((28..=31).contains(&left(&world, "sshd", ATTACKER)));
        // The ledger is written by a thread of its own.
        std::thread::sleep(Duration::from_millis(300));
        host.end(watch, how);
        assert_eq!(world.banned("sshd"), [ATTACKER], "{how}");
        // While nobody is there: one who fails twice, and one who fails three times.
        for who in [SECOND, SECOND, THIRD, THIRD, THIRD] {
            guessed(&host, who);
        }
        // As after a reboot, when the kernel has forgotten.
        must(host.on("ipset").args(["flush", "f2bp-sshd"]));
        let watch = host.watch();
        world.wait_banned("sshd", THIRD);
        wait_until("the old ban", secs(2), || {
            world.banned("sshd") == [ATTACKER, THIRD]
        });
        assert!((10..=30).contains(&left(&world, "sshd", ATTACKER)), "{how}");
        guessed(&host, SECOND);
        world.wait_banned("sshd", SECOND);
        // He is let out and comes again: what he did before the restart counts, though not twice.
        assert!(host.ask(&["status", "sshd"]).contains(ATTACKER));
        host.end(watch, Signal::SIGTERM);
        let ledger = world.path("run/f2b-pipe.sqlite3");
        assert!(ledger.exists());
    }
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_ban_after_a_restart_is_longer_than_the_one_before() {
    let world = World::new();
    fail2ban_with(
        &world,
        "[sshd]\nenabled = true\nmaxretry = 1\nfindtime = 600\nbantime = 2\nbantime.increment = true\n\
        bantime.factor = 10\n",
    );
    let host = Host::new(&world);
    guessed(&host, "203.0.113.1");
    let watch = host.watch();
    guessed(&host, ATTACKER);
    world.wait_banned("sshd", ATTACKER);
    let first = left(&world, "sshd", ATTACKER);
    assert!(first <= 3, "{first}");
    wait_until("the end of the ban", secs(8), || {
        !world.banned("sshd").iter().any(|who| who == ATTACKER)
    });
    std::thread::sleep(secs(1));
    host.end(watch, Signal::SIGKILL);
    host.watch();
    assert!(
        !world.banned("sshd").iter().any(|who| who == ATTACKER),
        "counted twice"
    );
    guessed(&host, ATTACKER);
    world.wait_banned("sshd", ATTACKER);
    let second = left(&world, "sshd", ATTACKER);
    assert!((18..=41).contains(&second), "{second}");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn beside_a_fail2ban_server_its_jails_stand_back_until_it_has_ended() {
    let world = World::new();
    fail2ban_with(
        &world,
        "[sshd]\nenabled = true\nmaxretry = 3\nfindtime = 600\nbantime = 60\n",
    );
    // Theirs has no jails, so that all bans are ours.
    let theirs = world.path("theirs");
    must(
        Command::new("cp")
            .args(["-r", "/etc/fail2ban"])
            .arg(&theirs),
    );
    world.write("theirs/jail.local", "[sshd]\nenabled = false\n");
    let host = Host::new(&world);
    std::fs::create_dir(host.file("/run/fail2ban")).expect("mkdir");
    guessed(&host, "203.0.113.1");
    let start = || {
        let mut server = host.on("fail2ban-server");
        server.args(["-f", "-s", "/run/fail2ban/fail2ban.sock"]);
        server.args(["-p", "/run/fail2ban/fail2ban.pid"]);
        server.args(["--logtarget", "/var/log/fail2ban.log", "-c"]);
        let pid = host.start("fail2ban", server.arg(&theirs).arg("start"));
        let socket = host.file("/run/fail2ban/fail2ban.sock");
        wait_until("fail2ban-server", secs(10), || socket.exists());
        pid
    };
    let server = start();
    host.watch();
    wait_until("a word about it", secs(5), || {
        host.said("watch")
            .contains("fail2ban-server runs on this host")
    });
    assert!(host.ask(&["status"]).contains("fail2ban-server"));
    assert!(host.ask(&["check"]).contains("stand back"));
    for _ in 0..3 {
        guessed(&host, ATTACKER);
    }
    std::thread::sleep(secs(1));
    assert_eq!(world.banned_anywhere(), [""; 0]);
    host.end(server, Signal::SIGTERM);
    // What was logged within findtime counts now.
    wait_until("the ban", secs(8), || world.banned("sshd") == [ATTACKER]);
    assert!(!host.ask(&["status"]).contains("fail2ban-server"));
    // And the other way round: the ban stays, and there are no more.
    start();
    let (mut last, mut banned) = (100, vec![ATTACKER.to_owned()]);
    wait_until("the jails to stand back again", secs(10), || {
        let who = format!("198.51.100.{last}");
        last += 1;
        (0..3).for_each(|_| guessed(&host, &who));
        let missed = !comes_true(secs(1), || world.banned("sshd").contains(&who));
        if !missed {
            banned.insert(0, who);
        }
        missed
    });
    banned.sort();
    assert_eq!(world.banned("sshd"), banned);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn broken_jails_are_told_of_and_the_others_run() {
    let world = World::new();
    fail2ban_with(
        &world,
        "[DEFAULT]\nbantime = 60\nmaxretry = 2\n[sshd]\nenabled = true\n\
        [torn]\nenabled = true\nfilter =\nfailregex = ((( <HOST>\nlogpath = /var/log/auth.log\n\
        [lost]\nenabled = true\nfilter = nowhere\nlogpath = /var/log/auth.log\n\
        [fifo]\nenabled = true\nfilter = sshd\nlogpath = /run/fifo\n\
        [absent]\nenabled = true\nfilter = sshd\nlogpath = /var/log/absent.log\n",
    );
    let host = Host::new(&world);
    guessed(&host, "203.0.113.1");
    must(Command::new("mkfifo").arg(host.file("/run/fifo")));
    host.watch();
    guessed(&host, ATTACKER);
    guessed(&host, ATTACKER);
    world.wait_banned("sshd", ATTACKER);
    let said = host.said("watch");
    for jail in ["torn", "lost"] {
        assert!(said.contains(jail), "{jail} in {said}");
    }
    assert!(said.contains("/run/fifo"), "{said}");
    let check = host.ask(&["check"]);
    for text in [
        "torn",
        "lost",
        "nowhere",
        "/run/fifo",
        "/var/log/absent.log",
    ] {
        assert!(check.contains(text), "{text} in {check}");
    }
    let status = host.ask(&["status"]);
    for text in ["lost cannot run", "jail torn does not run", "/run/fifo"] {
        assert!(status.contains(text), "{text} in {status}");
    }
    assert!(
        status.contains("sshd                  ban      1 banned now"),
        "{status}"
    );
    assert!(
        said.contains("watching logs; jails: sshd, fifo, absent\n"),
        "{said}"
    );
    assert!(!text_of(&host.file("/var/log/auth.log")).is_empty());
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_line_of_a_tailed_log_is_a_ban_in_the_kernel_within_milliseconds() {
    const LINES: u8 = 200;
    let world = World::new();
    fail2ban_with(
        &world,
        "[sshd]\nenabled = true\nmaxretry = 1\nbantime = 60\n",
    );
    let host = Host::new(&world);
    guessed(&host, "203.0.113.1");
    host.watch();
    world.wait_banned("sshd", "203.0.113.1");
    let measure = || {
        world.enter_server();
        let mut kernel = Ipset::open().expect("the kernel has ip_set");
        let set = SetRef::new("f2bp-", "sshd", Kind::Ip4, 64);
        let mut took: Vec<Duration> = (1..=LINES)
            .map(|last| {
                let who = format!("198.51.100.{last}");
                let target = Target::Client(Client::new(who.parse().expect("an address")));
                std::thread::sleep(Duration::from_millis(5));
                let written = Instant::now();
                guessed(&host, &who);
                while !kernel.test(&set, target).expect("an answer") {
                    assert!(written.elapsed() < secs(5), "{who} is not banned");
                    std::thread::sleep(Duration::from_micros(20));
                }
                written.elapsed()
            })
            .collect();
        took.sort_unstable();
        took
    };
    let took = std::thread::scope(|scope| scope.spawn(measure).join().expect("a thread"));
    let part = |percent: usize| took[took.len() * percent / 100];
    eprintln!(
        "from a line to the kernel: median {:?}, 95 % {:?}, most {:?}",
        part(50),
        part(95),
        took[took.len() - 1]
    );
    assert!(part(50) < Duration::from_millis(50), "{:?}", part(50));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn an_unban_by_hand_outlives_a_restart_and_is_no_pardon() {
    let world = World::new();
    fail2ban_with(
        &world,
        "[sshd]\nenabled = true\nmaxretry = 2\nfindtime = 600\nbantime = 600\n",
    );
    let host = Host::new(&world);
    guessed(&host, "203.0.113.1");
    let watch = host.watch();
    let guess = |who: &str| (0..2).for_each(|_| guessed(&host, who));
    for who in [ATTACKER, SECOND, THIRD] {
        guess(who);
        world.wait_banned("sshd", who);
    }
    host.ask(&["unban", ATTACKER]);
    assert_eq!(world.banned("sshd"), [SECOND, THIRD]);
    std::thread::sleep(Duration::from_millis(300));
    host.end(watch, Signal::SIGKILL);
    let flush = || must(host.on("ipset").args(["flush", "f2bp-sshd"]));
    flush();
    let watch = host.watch();
    wait_until("the others", secs(2), || {
        world.banned("sshd") == [SECOND, THIRD]
    });
    // What he did before is not read once more.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(world.banned("sshd"), [SECOND, THIRD]);
    guess(ATTACKER);
    world.wait_banned("sshd", ATTACKER);
    // While nobody runs.
    host.end(watch, Signal::SIGTERM);
    host.ask(&["unban", SECOND]);
    flush();
    host.watch();
    wait_until("the others", secs(2), || {
        world.banned("sshd") == [ATTACKER, THIRD]
    });
    // The panic button lifts all of them for good.
    host.ask(&["off"]);
    assert_eq!(world.banned_anywhere(), [""; 0]);
    host.ask(&["reload"]);
    std::thread::sleep(secs(2));
    assert_eq!(world.banned_anywhere(), [""; 0]);
    guess(SECOND);
    world.wait_banned("sshd", SECOND);
    assert_eq!(world.banned("sshd"), [SECOND]);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_graceful_restart_of_httpd_hands_other_logs_over() {
    let world = World::new();
    fail2ban_with(
        &world,
        "[sshd]\nenabled = true\nmaxretry = 2\nfindtime = 600\nbantime = 600\naction = %(action_)s\n  note\n",
    );
    let notes = note(&world);
    let host = Host::new(&world);
    guessed(&host, "203.0.113.1");
    let httpd = Setup::new(&world).on(&host).start();
    let times = || httpd.said().matches("watching logs").count();
    wait_until("logs to be read", secs(5), || times() == 1);
    let guess = |who: &str| (0..2).for_each(|_| guessed(&host, who));
    guess(ATTACKER);
    world.wait_banned("sshd", ATTACKER);
    let old = httpd.logger();
    httpd.control("graceful");
    wait_until("the old one's end", secs(10), || !alive(old));
    // Perhaps between the two, perhaps not: it is read all the same.
    guess(SECOND);
    world.wait_banned("sshd", SECOND);
    wait_until("the new one at work", secs(5), || times() == 2);
    assert_eq!(world.banned("sshd"), [ATTACKER, SECOND]);
    let told = || {
        let text = text_of(&notes);
        let words = text
            .lines()
            .map(|line| line.split('|').take(3).collect::<Vec<_>>().join(" "));
        words.collect::<Vec<_>>()
    };
    wait_until("all that scripts are told", secs(5), || told().len() == 7);
    let (first, second) = (format!("sshd {ATTACKER}"), format!("sshd {SECOND}"));
    assert_eq!(
        told(),
        [
            "start sshd ".to_owned(),
            format!("ban {first}"),
            format!("unban {first}"),
            "stop sshd ".to_owned(),
            "start sshd ".to_owned(),
            format!("ban {first}"),
            format!("ban {second}"),
        ]
    );
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_line_over_which_a_jail_stumbles_costs_no_more_than_itself() {
    let world = World::new();
    fail2ban_with(&world, "[sshd]\nenabled = true\nmaxretry = 2\n");
    let host = Host::new(&world);
    guessed(&host, "203.0.113.1");
    host.watch_with(&[("F2B_PIPE_TEST_PANIC", "a line of some stranger")]);
    let log = host.file("/var/log/auth.log");
    for _ in 0..20 {
        let mut log = std::fs::File::options().append(true).open(&log).unwrap();
        std::io::Write::write_all(&mut log, b"a line of some stranger\n").unwrap();
    }
    wait_until("it to be said", secs(5), || {
        host.said("watch").contains("internal error")
    });
    guessed(&host, ATTACKER);
    guessed(&host, ATTACKER);
    world.wait_banned("sshd", ATTACKER);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_configuration_that_is_read_anew_leaves_nothing_of_the_old_one_running() {
    let world = World::new();
    fail2ban_with(&world, "[sshd]\nenabled = true\n");
    let host = Host::new(&world);
    guessed(&host, "203.0.113.1");
    let watch = host.watch();
    let threads = || {
        std::fs::read_dir(format!("/proc/{watch}/task"))
            .unwrap()
            .count()
    };
    let before = threads();
    for _ in 0..5 {
        signal(watch, Signal::SIGHUP);
        std::thread::sleep(Duration::from_millis(600));
    }
    // Who looks up own addresses looks every two seconds, and notices then.
    wait_until("threads of old configurations to end", secs(10), || {
        threads() <= before + 1
    });
    guessed(&host, ATTACKER);
    assert!(alive(watch), "{}", host.said("watch"));
}
