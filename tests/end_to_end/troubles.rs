//! What may be broken without httpd noticing: it serves three thousand requests, the process lives on as a plain tee,
//! and the error log says what is wrong.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::bans::private_dev_log;
use crate::support::{
    Connection, Httpd, Load, Request, Setup, World, alive, assert_same_lines, bytes_of, comes_true,
    difference, must, secs, shim, wait_until,
};

/// Bans at the first missing page.
const CONFIG: &str = "[jail.missing]\nstatus = [404]\nmaxretry = 1\nfindtime = \"1m\"\n";

/// Three thousand requests, all served, by a logger that is the same process at the end; some of a scanner's among
/// them, so that there is something to judge.
#[track_caller]
fn serves_three_thousand(world: &World, httpd: &Httpd<'_>) {
    let before = httpd.logger();
    let mut scanner = Connection::open(world, "203.0.113.66").expect("a connection");
    scanner.patience(secs(1));
    let load = Load::start(
        world,
        15,
        200,
        Duration::ZERO,
        |client| format!("198.51.100.{}", 10 + client),
        |client, n| {
            Request::get(format!("/picture.png?client={client}&n={n}")).agent(&"x".repeat(n))
        },
    );
    for n in 0..20 {
        if scanner.ask(&Request::get(format!("/missing/{n}"))).is_err() {
            break;
        }
    }
    wait_until("3000 answers", secs(60), || load.over());
    let tally = load.wait();
    assert_eq!((tally.served, tally.refused, tally.failed), (3000, 0, 0));
    assert!(alive(before), "the logger died: {}", httpd.error_log());
    assert_eq!(httpd.logger(), before);
    let log = httpd.error_log();
    assert!(
        !log.contains("failed unexpectedly"),
        "it was started again: {log}"
    );
}

/// Panics unless the error log holds a line of ours with each of `words`, within some seconds.
#[track_caller]
fn says(httpd: &Httpd<'_>, words: &[&str]) {
    let so = || {
        httpd
            .said()
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    };
    assert!(comes_true(secs(5), so), "no line with {words:?}");
    let strange: Vec<String> = httpd
        .error_log()
        .lines()
        .filter(|line| {
            !line.starts_with('[') && !line.starts_with("f2b-pipe: ") && !line.starts_with("AH")
        })
        .map(str::to_owned)
        .collect();
    assert!(strange.is_empty(), "lines without our name: {strange:#?}");
    // Bans are news, not trouble.
    let said = httpd.said();
    let lines = said
        .lines()
        .filter(|line| !line.contains("ban client="))
        .count();
    assert!(lines <= 20, "{lines} lines about one trouble");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_configuration_that_is_garbage() {
    let world = World::new();
    world.config("[jail.missing\nstatus == 404 \"\\.\" {{{\n\u{0}");
    let httpd = Setup::new(&world).start();
    serves_three_thousand(&world, &httpd);
    httpd.assert_tee_is_complete();
    says(&httpd, &["f2b-pipe.toml:1: "]);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn one_wrong_jail_among_good_ones() {
    let world = World::new();
    world.config(&format!(
        "{CONFIG}\n[jail.wrong]\nstatus = [404]\nmaxretri = 3\nfindtime = \"10 minuts\"\n"
    ));
    let httpd = Setup::new(&world).start();
    serves_three_thousand(&world, &httpd);
    httpd.assert_tee_is_complete();
    // All errors at once, each with its line.
    says(&httpd, &["f2b-pipe.toml:8", "maxretri"]);
    says(&httpd, &["f2b-pipe.toml:9", "minuts"]);
}

/// A kernel without nfnetlink, and no tools: the one this runs on has both, so a small library takes them away.
const NO_NETFILTER: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>
#include <linux/netlink.h>
int socket(int domain, int type, int protocol) {
    static int (*real)(int, int, int);
    if (domain == AF_NETLINK && protocol == NETLINK_NETFILTER) { errno = EPROTONOSUPPORT; return -1; }
    if (!real) real = (int (*)(int, int, int))dlsym(RTLD_NEXT, "socket");
    return real(domain, type, protocol);
}
"#;

/// A kernel with nfnetlink and without ip_set: it answers that there is no such subsystem.
pub(crate) const NO_IP_SET: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/netlink.h>
static int is_set(const void *data, size_t n) {
    return n >= sizeof(struct nlmsghdr) && (((const struct nlmsghdr *)data)->nlmsg_type >> 8) == 6;
}
static size_t broken(void *to, const void *data, size_t n) {
    memcpy(to, data, n);
    /* Subsystem 63 does not exist anywhere, and the kernel says of it what it says of any it does not have. */
    ((struct nlmsghdr *)to)->nlmsg_type = (63 << 8) | (((struct nlmsghdr *)to)->nlmsg_type & 255);
    return n;
}
ssize_t sendto(int fd, const void *data, size_t n, int flags, const struct sockaddr *a, socklen_t l) {
    static ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    char copy[65536];
    if (!real) real = (ssize_t (*)(int, const void *, size_t, int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "sendto");
    if (n <= sizeof copy && is_set(data, n)) { n = broken(copy, data, n); data = copy; }
    return real(fd, data, n, flags, a, l);
}
ssize_t send(int fd, const void *data, size_t n, int flags) { return sendto(fd, data, n, flags, 0, 0); }
"#;

/// No ipset and iptables to be found.
const NO_TOOLS: &str = "for tool in /usr/sbin/ipset /usr/sbin/iptables /usr/sbin/ip6tables \
    /usr/sbin/iptables-restore /usr/sbin/ip6tables-restore; do mount --bind /dev/null $tool; done";

fn without(library: &str) {
    let world = World::new();
    // Left to itself it would take nftables.
    world.config(&format!("[firewall]\nbackend = 'ipset'\n{CONFIG}"));
    let library = shim(&world, "without", library);
    let httpd = Setup::new(&world)
        .before(NO_TOOLS)
        .env("LD_PRELOAD", &library.display().to_string())
        .start();
    serves_three_thousand(&world, &httpd);
    httpd.assert_tee_is_complete();
    says(&httpd, &["ipset"]);
    assert_eq!(
        world.curl("203.0.113.66", "/page"),
        Some(200),
        "somebody was banned"
    );
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_kernel_without_netfilter_and_no_tools() {
    without(NO_NETFILTER);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_kernel_without_ip_set_and_no_tools() {
    without(NO_IP_SET);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn no_iptables() {
    let world = World::new();
    world.config(&format!("[firewall]\nbackend = 'ipset'\n{CONFIG}"));
    let httpd = Setup::new(&world).before(NO_TOOLS).start();
    serves_three_thousand(&world, &httpd);
    httpd.assert_tee_is_complete();
    says(&httpd, &["iptables"]);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn no_right_to_ban() {
    let world = World::new();
    world.config(CONFIG);
    let httpd = Setup::new(&world)
        .through(&[
            "setpriv",
            "--bounding-set",
            "-net_admin",
            "--inh-caps",
            "-net_admin",
        ])
        .start();
    serves_three_thousand(&world, &httpd);
    httpd.assert_tee_is_complete();
    says(&httpd, &["CAP_NET_ADMIN"]);
    assert_eq!(world.banned_anywhere(), [""; 0]);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_tee_s_folder_is_missing_and_comes_later() {
    let world = World::new();
    world.config(CONFIG);
    let log = world.path("nowhere/access.log");
    let httpd = Setup::new(&world).tee(&log).start();
    serves_three_thousand(&world, &httpd);
    says(&httpd, &["nowhere/access.log"]);
    world.wait_banned("missing", "203.0.113.66");
    fs::create_dir(world.path("nowhere")).expect("mkdir");
    wait_until("the log in the new folder", secs(15), || {
        bytes_of(&log).len() >= httpd.oracle().len()
    });
    assert_same_lines(&bytes_of(&log), &httpd.oracle());
}

/// The folder `disk` of httpd's mount namespace, seen from here.
fn disk(httpd: &Httpd<'_>, world: &World, file: &str) -> PathBuf {
    let inside = world.path("disk").join(file);
    let inside = inside.strip_prefix("/").expect("absolute");
    PathBuf::from(format!("/proc/{}/root", httpd.pid())).join(inside)
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_disk_is_full_and_has_room_again() {
    let world = World::new();
    world.config(CONFIG);
    let at = world.path("disk");
    fs::create_dir(&at).expect("mkdir");
    let httpd = Setup::new(&world)
        .before(&format!(
            "mount -t tmpfs -o size=64k,mode=755 tmpfs {}",
            at.display()
        ))
        .tee(&at.join("access.log"))
        .start();
    serves_three_thousand(&world, &httpd);
    let tee = || bytes_of(&disk(&httpd, &world, "access.log"));
    says(&httpd, &["No space left on device", "access.log"]);
    let (had, oracle) = (tee(), httpd.oracle());
    assert!(
        had.len() <= 65536 && had.len() < oracle.len(),
        "the disk was not full"
    );
    assert!(!had.is_empty());
    world.wait_banned("missing", "203.0.113.66");
    // The administrator makes room: what was kept is written, and it is said.
    must(
        Command::new("nsenter")
            .args(["-m", "-t", &httpd.pid().to_string()])
            .args(["mount", "-o", "remount,size=64m"])
            .arg(&at),
    );
    wait_until("the rest of the log", secs(15), || {
        tee().len() >= oracle.len()
    });
    assert_same_lines(&tee(), &httpd.oracle());
}

/// More than memory keeps: lines are lost, whole ones, and their number is said.
#[test]
#[ignore = "needs root and network namespaces"]
fn the_disk_is_full_for_longer_than_memory_lasts() {
    let world = World::new();
    world.config(CONFIG);
    let at = world.path("disk");
    fs::create_dir(&at).expect("mkdir");
    let httpd = Setup::new(&world)
        .before(&format!(
            "mount -t tmpfs -o size=64k,mode=755 tmpfs {}",
            at.display()
        ))
        .tee(&at.join("access.log"))
        .start();
    let logger = httpd.logger();
    // Each line 24 kB, from one client at a time: several would tear them in the pipe.
    let load = Load::start(
        &world,
        1,
        1200,
        Duration::ZERO,
        |_| "198.51.100.10".into(),
        |_, n| {
            let long = "\u{ff}".repeat(3000);
            Request::get(format!("/picture.png?n={n}")).agent(&long)
        },
    );
    wait_until("1200 answers", secs(60), || load.over());
    assert_eq!(load.wait().served, 1200);
    assert_eq!(httpd.logger(), logger);
    says(&httpd, &["No space left on device"]);
    says(&httpd, &["lines are missing"]);
    must(
        Command::new("nsenter")
            .args(["-m", "-t", &httpd.pid().to_string()])
            .args(["mount", "-o", "remount,size=256m"])
            .arg(&at),
    );
    says(&httpd, &["writes again", "lines were lost"]);
    let said = httpd.said();
    let lost: usize = said
        .split(" lines were lost")
        .next()
        .and_then(|before| before.rsplit(' ').next())
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("no number in {said}"));
    assert_eq!(world.curl("198.51.100.7", "/page"), Some(200));
    let tee = || bytes_of(&disk(&httpd, &world, "access.log"));
    wait_until("the line after it", secs(10), || {
        tee().windows(9).any(|w| w == b"GET /page")
    });
    let (only_tee, only_oracle) = difference(&tee(), &httpd.oracle());
    assert!(
        only_tee.is_empty(),
        "never written: {:#?}",
        &only_tee[..only_tee.len().min(3)]
    );
    assert_eq!(only_oracle.len(), lost, "lines are missing");
    assert!(lost > 0);
}

/// A disk that hangs: a filesystem of its own that is frozen.
#[test]
#[ignore = "needs root and network namespaces"]
fn the_disk_hangs_and_comes_back() {
    let world = World::new();
    world.config(CONFIG);
    let at = world.path("disk");
    fs::create_dir(&at).expect("mkdir");
    let image = world.path("image").display().to_string();
    must(Command::new("truncate").args(["-s", "32M", &image]));
    must(Command::new("mkfs.ext4").args(["-q", &image]));
    let httpd = Setup::new(&world)
        .before(&format!("mount -o loop {image} {}", at.display()))
        .tee(&at.join("access.log"))
        .start();
    let fsfreeze = |what: &str| {
        let mut command = Command::new("nsenter");
        command
            .args(["-m", "-t", &httpd.pid().to_string(), "fsfreeze", what])
            .arg(&at);
        command
    };
    assert_eq!(world.curl("198.51.100.7", "/page"), Some(200));
    wait_until("the first line", secs(5), || {
        bytes_of(&disk(&httpd, &world, "access.log")).len() >= httpd.oracle().len()
    });
    // Should this test fail while it is frozen, the end must not hang.
    world.at_end(format!(
        "nsenter -m -t {} fsfreeze -u {} 2>/dev/null || true",
        httpd.pid(),
        at.display()
    ));
    must(&mut fsfreeze("-f"));
    let frozen = fs::metadata(disk(&httpd, &world, "access.log"))
        .expect("the log")
        .len();
    let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        serves_three_thousand(&world, &httpd);
        world.wait_banned("missing", "203.0.113.66");
        let waiting = || world.status()["processes"][0]["tee_waiting"].as_u64();
        wait_until("status to say how much waits", secs(10), || {
            waiting() > Some(0)
        });
        let now = fs::metadata(disk(&httpd, &world, "access.log"))
            .expect("the log")
            .len();
        assert_eq!(now, frozen, "the disk was not frozen");
    }));
    must(&mut fsfreeze("-u"));
    if let Err(panic) = served {
        std::panic::resume_unwind(panic);
    }
    wait_until("the rest of the log", secs(15), || {
        bytes_of(&disk(&httpd, &world, "access.log")).len() >= httpd.oracle().len()
    });
    assert_same_lines(
        &bytes_of(&disk(&httpd, &world, "access.log")),
        &httpd.oracle(),
    );
}

#[test]
#[ignore = "needs root and network namespaces"]
fn dev_log_is_full_and_nobody_reads() {
    let world = World::new();
    world.config(CONFIG);
    let reader = UnixDatagram::bind(world.path("devlog")).expect("a socket");
    let httpd = Setup::new(&world).before(&private_dev_log(&world)).start();
    // More bans than the socket holds messages, and than wait in memory.
    const BANS: usize = 1300;
    for n in 0..BANS {
        let from = format!("198.18.{}.{}", n / 250, n % 250);
        let mut connection = Connection::open(&world, &from).expect("a connection");
        connection.patience(Duration::from_millis(200));
        connection.ask(&Request::get(format!("/missing/{n}"))).ok();
    }
    wait_until("all bans", secs(10), || {
        world.banned("missing").len() >= BANS
    });
    serves_three_thousand(&world, &httpd);
    httpd.assert_tee_is_complete();
    world.wait_banned("missing", "203.0.113.66");
    // What could not be told is counted, and that is said.
    says(&httpd, &["were lost: nobody reads /dev/log"]);
    // Once somebody reads again, the rest is told, the last one too.
    reader.set_read_timeout(Some(secs(2))).expect("a time");
    let (mut told, mut last) = (0, false);
    let mut buffer = [0; 2048];
    while let Ok(n) = reader.recv(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        if text.contains("NOTICE [missing] Ban ") {
            told += 1;
            last |= text.ends_with(" Ban 203.0.113.66");
        }
        if last {
            break;
        }
    }
    assert!(last, "the last ban was not told");
    assert!((1000..=BANS).contains(&told), "{told} told");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn an_option_that_does_not_exist() {
    let world = World::new();
    world.config(CONFIG);
    let httpd = Setup::new(&world).option("--nonsense").start();
    serves_three_thousand(&world, &httpd);
    httpd.assert_tee_is_complete();
    says(&httpd, &["--nonsense"]);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_format_that_cannot_be_read() {
    let world = World::new();
    world.config(CONFIG);
    // The last --format wins, or is an error: it is a plain tee in any case.
    let httpd = Setup::new(&world).option("--format").option("%{x").start();
    serves_three_thousand(&world, &httpd);
    httpd.assert_tee_is_complete();
    says(&httpd, &["format"]);
    assert_eq!(world.banned_anywhere(), [""; 0]);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_room_that_panics() {
    let world = World::new();
    world.config(CONFIG);
    let httpd = Setup::new(&world)
        .env("F2B_PIPE_TEST_PANIC", "filter")
        .start();
    serves_three_thousand(&world, &httpd);
    httpd.assert_tee_is_complete();
    says(&httpd, &["internal error"]);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn sets_that_belong_to_another_program_are_left_alone() {
    let world = World::new();
    world.config(CONFIG);
    must(
        world
            .on_server("ipset")
            .args(["create", "f2bp-missing", "hash:net"]),
    );
    must(
        world
            .on_server("ipset")
            .args(["add", "f2bp-missing", "203.0.113.0/24"]),
    );
    let httpd = Setup::new(&world).start();
    serves_three_thousand(&world, &httpd);
    httpd.assert_tee_is_complete();
    says(&httpd, &["f2bp-missing", "belongs to another program"]);
    assert_eq!(world.sets()["f2bp-missing"], ["203.0.113.0/24"]);
}
