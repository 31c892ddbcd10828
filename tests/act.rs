//! Bans against the real kernel, each test in a network namespace of its own; the witnesses are ipset, iptables and
//! sockets, not this program.
//!
//! `cargo test --test act -- --include-ignored` as root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::let_underscore_must_use,
    clippy::print_stderr,
    reason = "a test that cannot go on should stop"
)]

use std::io::ErrorKind;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use f2b_pipe::act::firewall::{Add, Added, Ensured, Firewall as _, MAX_ELEMENTS};
use f2b_pipe::act::ipset::{self, Ipset, TIMEOUT_MAX_SECS};
use f2b_pipe::act::keeper::{BanEvent, Keeper};
use f2b_pipe::act::kill::{Victims, kill};
use f2b_pipe::act::plan::{Family, Found, Plan};
use f2b_pipe::act::{Act, ActError, Ban, Banned, Kind, SetRef};
use f2b_pipe::client::Client;
use f2b_pipe::config::{
    Backend, Blocktype, Config, Firewall, Jail, Mode, PortRange, Ports, Protocol, Rule,
    RuntimePaths, sets_of,
};
use f2b_pipe::decide::BanFor;
use f2b_pipe::exempt::{Bannable, Target};
use f2b_pipe::filter;
use f2b_pipe::parse::Format;
use nix::sched::{CloneFlags, unshare};

use ports::{listen, tcp, udp};

#[path = "support/ports.rs"]
mod ports;

/// From here on this thread, and what it starts, has a network of its own.
fn own_network() {
    unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
    sh("ip link set lo up");
}

/// What a command says on stdout and stderr.
fn sh(command: &str) -> String {
    let done = Command::new("sh").args(["-c", command]).output().unwrap();
    String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
}

fn jail(name: &str, ports: Ports) -> Jail {
    Jail {
        name: name.into(),
        sets: sets_of(name),
        small_sets: false,
        written: "test".into(),
        rule: Rule::default(),
        mode: Mode::Ban,
        blind: false,
        idle: false,
        rare: false,
        maxretry: 5,
        findtime: Duration::from_secs(600),
        bantime: timed(600),
        ignoreip: Vec::new(),
        ignoreip_names: Vec::new(),
        ignoreself: false,
        ports,
        protocols: Vec::new(),
        blocktype: Blocktype::Drop,
        ipv6_prefix: 64,
        raw: None,
    }
}

fn port(number: u16) -> Ports {
    Ports::These(vec![PortRange::one(&number.to_string(), number)])
}

fn config(blocktype: Blocktype) -> Config {
    let web = Ports::These(vec![
        PortRange::one("http", 80),
        PortRange::one("https", 443),
    ]);
    let jail = |name: &str, ports| Jail {
        blocktype,
        ..jail(name, ports)
    };
    let watched = Jail {
        mode: Mode::Observe,
        ..jail("watched", port(80))
    };
    Config {
        firewall: Firewall {
            backend: Backend::Ipset,
            set_prefix: "f2bp-".into(),
            blocktype,
            kill_connections: true,
        },
        proxies: Vec::new(),
        manual: jail("manual", port(80)),
        jails: vec![jail("web", web), watched, jail("all", Ports::All)],
        ..Config::default()
    }
}

fn timed(secs: u32) -> BanFor {
    BanFor::Timed(NonZeroU32::new(secs).unwrap())
}

fn target(text: &str) -> Target {
    match text.parse::<IpAddr>() {
        Ok(addr) => Target::Client(Client::new(addr)),
        Err(_) => Target::Net(text.parse().unwrap()),
    }
}

fn ban(who: &str, ban_for: BanFor) -> Ban<'static> {
    Ban {
        jail: 0,
        who: Bannable::forced(target(who)),
        ban_for,
        reason: "5 hits in 10m",
    }
}

fn runtime() -> (RuntimePaths, PathBuf) {
    static N: AtomicU32 = AtomicU32::new(0);
    let n = N.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("f2b-pipe-act-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    (RuntimePaths::new(&dir, "f2b-pipe.toml".as_ref()), dir)
}

/// Waits until `so`; how long that took.
fn wait(what: &str, so: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(8), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    begun.elapsed()
}

/// One jump, first in its chain, and the three rules.
fn in_place() -> bool {
    let hook = sh("iptables -w -t raw -S PREROUTING");
    hook.lines().nth(1) == Some("-A PREROUTING -j f2b-pipe")
        && hook.matches("f2b-pipe").count() == 1
        && rules() == 3
}

fn rules() -> usize {
    sh("iptables -w -t raw -S f2b-pipe").matches("-A").count()
}

#[test]
#[ignore = "needs root and a network namespace"]
fn the_kernels_set_shows_who_how_long_and_why() {
    own_network();
    let mut act = Act::new(&config(Blocktype::Drop));
    let mut banned = |who: &str, secs| act.ban(&ban(who, timed(secs)), 0);
    assert_eq!(banned("192.0.2.7", 600), Ok(Banned::NewSet));
    assert_eq!(banned("192.0.2.8", 600), Ok(Banned::New));
    assert_eq!(banned("192.0.2.7", 9000), Ok(Banned::Already));
    let list = sh("ipset list f2bp-web");
    assert!(list.contains("Type: hash:ip"), "{list}");
    assert!(list.contains("maxelem 1048576"), "{list}");
    let entry =
        |secs| format!("192.0.2.7 timeout {secs} packets 0 bytes 0 comment \"5 hits in 10m\"");
    assert!(
        list.contains(&entry(600)) || list.contains(&entry(599)),
        "{list}"
    );
    act.prolong(&ban("192.0.2.7", timed(9000)), 0).unwrap();
    let list = sh("ipset list f2bp-web");
    assert!(
        list.contains(&entry(9000)) || list.contains(&entry(8999)),
        "{list}"
    );
    assert_eq!(act.unban(0, target("192.0.2.7"), 0), Ok(true));
    assert_eq!(act.unban(0, target("192.0.2.7"), 0), Ok(false));
    assert!(!sh("ipset list f2bp-web").contains("192.0.2.7"));
}

#[test]
#[ignore = "needs root and a network namespace"]
fn ipv6_is_banned_by_prefix_and_networks_in_sets_of_their_own() {
    own_network();
    let mut act = Act::new(&config(Blocktype::Drop));
    for (who, set, shown) in [
        ("2001:db8::1:2:3:4", "f2bp-web6", "2001:db8:: timeout"),
        ("198.51.100.0/24", "f2bp-web-n", "198.51.100.0/24 timeout"),
        ("2001:db8::/32", "f2bp-web-n6", "2001:db8::/32 timeout"),
    ] {
        assert_eq!(act.ban(&ban(who, timed(60)), 0), Ok(Banned::NewSet));
        assert_eq!(act.ban(&ban(who, timed(60)), 0), Ok(Banned::Already));
        let list = sh(&format!("ipset list {set}"));
        assert!(list.contains(shown), "{list}");
    }
    let neighbour = act.ban(&ban("2001:db8::9", timed(60)), 0);
    assert_eq!(neighbour, Ok(Banned::Already));
    assert!(sh("ipset list f2bp-web6").contains("netmask 64"));
    assert!(act.ban(&ban("0.0.0.0/0", timed(60)), 0).is_err());
}

#[test]
#[ignore = "needs root and a network namespace"]
fn the_kernel_ends_a_ban_but_not_one_for_ever() {
    own_network();
    let mut act = Act::new(&config(Blocktype::Drop));
    for (who, ban_for) in [
        ("192.0.2.1", timed(1)),
        ("192.0.2.2", BanFor::Forever),
        ("192.0.2.3", timed(100 * 86_400)),
    ] {
        let _ = act.ban(&ban(who, ban_for), 0).unwrap();
    }
    std::thread::sleep(Duration::from_millis(1_300));
    let list = sh("ipset list f2bp-web");
    assert!(!list.contains("192.0.2.1 "), "{list}");
    assert!(list.contains("192.0.2.2 timeout 0 "), "{list}");
    let long = list.lines().find(|line| line.contains("192.0.2.3"));
    let long = long.unwrap();
    let left = |less| format!("timeout {}", TIMEOUT_MAX_SECS - less);
    assert!((0..3).any(|less| long.contains(&left(less))), "{long}");
    assert!(long.contains("5 hits in 10m until 20"), "{long}");
}

#[test]
#[ignore = "needs root and a network namespace"]
fn another_programs_set_is_left_alone() {
    for made in [
        "ipset create f2bp-web hash:ip",
        "ipset create f2bp-web hash:net timeout 600 counters comment",
        "ipset create f2bp-web hash:ip family inet6 timeout 600 counters comment",
        "ipset create f2bp-web hash:ip timeout 600",
        "ipset create f2bp-web list:set",
    ] {
        own_network();
        sh(made);
        let before = sh("ipset list f2bp-web");
        let mut act = Act::new(&config(Blocktype::Drop));
        let error = act.ban(&ban("192.0.2.7", timed(60)), 0).unwrap_err();
        assert!(matches!(error, ActError::Foreign { .. }), "{made}: {error}");
        assert_eq!(sh("ipset list f2bp-web"), before);
    }
}

#[test]
#[ignore = "needs root and a network namespace"]
fn a_lost_set_is_made_again() {
    own_network();
    let mut act = Act::new(&config(Blocktype::Drop));
    let mut banned = || act.ban(&ban("192.0.2.7", timed(60)), 0);
    assert_eq!(banned(), Ok(Banned::NewSet));
    sh("ipset destroy f2bp-web");
    assert_eq!(banned(), Ok(Banned::NewSet));
    assert!(sh("ipset list f2bp-web").contains("192.0.2.7"));
}

#[test]
#[ignore = "needs root and a network namespace"]
fn a_full_set_gives_up_the_ban_that_ends_soonest() {
    own_network();
    let mut restore = format!(
        "create f2bp-web hash:ip timeout 600 maxelem {MAX_ELEMENTS} hashsize 65536 counters comment\n"
    );
    for n in 0..MAX_ELEMENTS {
        let addr = Ipv4Addr::from_bits(0x0a00_0000 + n);
        let left = if n == 4711 { 500 } else { 1000 + n % 1000 };
        restore += &format!("add f2bp-web {addr} timeout {left}\n");
    }
    let file = std::env::temp_dir().join(format!("f2b-pipe-full-{}", std::process::id()));
    std::fs::write(&file, restore).unwrap();
    assert_eq!(sh(&format!("ipset restore < {}", file.display())), "");
    std::fs::remove_file(&file).unwrap();
    let mut act = Act::new(&config(Blocktype::Drop));
    let soonest = Ipv4Addr::from_bits(0x0a00_0000 + 4711);
    let full = || sh(&format!("ipset test f2bp-web {soonest}")).contains("NOT");
    let (mut slowest, mut n) = (Duration::ZERO, 0u32);
    // The kernel takes a few thousand more than the maximum before it counts exactly.
    while !full() {
        for _ in 0..200 {
            n += 1;
            let who = Ipv4Addr::from_bits(0xc000_0000 + n).to_string();
            let begun = Instant::now();
            assert_eq!(act.ban(&ban(&who, timed(5000)), 0), Ok(Banned::New));
            slowest = slowest.max(begun.elapsed());
        }
        assert!(n < 100_000);
    }
    eprintln!("full after {n} more; the slowest ban: {slowest:?}");
    let last = Ipv4Addr::from_bits(0xc000_0000 + n);
    assert!(!sh(&format!("ipset test f2bp-web {last}")).contains("NOT"));
}

#[test]
#[ignore = "needs root and a network namespace"]
fn a_set_of_another_configuration_moves_with_its_bans() {
    own_network();
    let mut ipset = Ipset::open().unwrap();
    let old = SetRef::new("f2bp-", "web", Kind::Ip6, 64);
    let new = SetRef::new("f2bp-", "web", Kind::Ip6, 56);
    assert_eq!(ipset.ensure(&old), Ok(Ensured::Made));
    assert_eq!(ipset.ensure(&old), Ok(Ensured::There));
    for n in 0..1000u32 {
        let who = target(&format!("2001:db8:{n:x}:100::"));
        let added = ipset.add(&old, who, timed(600), "why", Add::New);
        assert_eq!(added, Ok(Added::New));
    }
    assert_eq!(ipset.ensure(&new), Ok(Ensured::Outdated));
    sh("ip6tables -A INPUT -m set --match-set f2bp-web6 src -j DROP");
    ipset.migrate(&new, "f2bp-").unwrap();
    assert_eq!(ipset.ensure(&new), Ok(Ensured::There));
    assert_eq!(ipset.names("f2bp-").unwrap(), ["f2bp-web6"]);
    assert_eq!(ipset.test(&new, target("2001:db8:0:1ff::")), Ok(true));
    let mut members = Vec::new();
    ipset.list("f2bp-web6", &mut |m| members.push(m)).unwrap();
    assert_eq!(members.len(), 1000);
    assert!(members.iter().all(|m| m.comment == "why"));
    assert!(members.iter().all(|m| m.left.is_some_and(|l| l > 590)));
    assert_eq!(ipset.ours("f2bp-").unwrap(), ["f2bp-web6"]);
}

#[test]
#[ignore = "needs root and a network namespace"]
fn what_is_listed_is_what_ipset_shows() {
    own_network();
    let mut ipset = Ipset::open().unwrap();
    sh("ipset create f2bp-web hash:ip timeout 600 counters comment");
    sh("ipset add f2bp-web 192.0.2.7 timeout 0 packets 3 bytes 99 comment 'by hand'");
    let mut members = Vec::new();
    ipset.list("f2bp-web", &mut |m| members.push(m)).unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].addr, "192.0.2.7".parse::<IpAddr>().unwrap());
    assert_eq!((members[0].packets, members[0].bytes), (3, 99));
    assert_eq!(members[0].left, None);
    assert_eq!(members[0].comment, "by hand");
    assert_eq!(ipset.list("f2bp-none", &mut |_| panic!()), Ok(()));
    ipset.flush("f2bp-web").unwrap();
    let web = SetRef::new("f2bp-", "web", Kind::Ip4, 64);
    assert_eq!(ipset.test(&web, target("192.0.2.7")), Ok(false));
    ipset.destroy("f2bp-web").unwrap();
    assert_eq!(ipset.names("f2bp-").unwrap(), Vec::<String>::new());
    assert_eq!(ipset.header("f2bp-web"), Ok(None));
}

#[test]
#[ignore = "needs root and a network namespace"]
fn without_the_right_it_says_so() {
    own_network();
    let opened = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups"])
        .args([std::env::current_exe().unwrap().to_str().unwrap()])
        .args(["--include-ignored", "--exact", "child_without_rights"])
        .args(["--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&opened.stderr);
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
}

#[test]
#[ignore = "run by the test above as nobody"]
fn child_without_rights() {
    if let Err(error) = Ipset::open() {
        eprintln!("{error}");
    }
}

#[test]
#[ignore = "needs root and a network namespace"]
fn a_ban_takes_microseconds() {
    own_network();
    let mut act = Act::new(&config(Blocktype::Drop));
    let bans = 20_000u32;
    let begun = Instant::now();
    for n in 0..bans {
        let who = Client::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)));
        let ban = Ban {
            who: Bannable::forced(Target::Client(who)),
            ..ban("192.0.2.7", timed(600))
        };
        let _ = act.ban(&ban, 0).unwrap();
    }
    let each = begun.elapsed() / bans;
    eprintln!("a ban: {each:?}");
    let mut ipset = Ipset::open().unwrap();
    let mut n = 0;
    let begun = Instant::now();
    ipset.list("f2bp-web", &mut |_| n += 1).unwrap();
    eprintln!("a listed ban: {:?}", begun.elapsed() / n);
    assert_eq!(n, bans);
    assert!(each < Duration::from_micros(100), "{each:?}");
}

#[test]
#[ignore = "needs root and a network namespace"]
fn six_starts_at_once_make_one_jump() {
    own_network();
    let (paths, dir) = runtime();
    let config = Arc::new(config(Blocktype::Drop));
    let keepers: Vec<_> = (0..6)
        .map(|_| Keeper::start(Arc::clone(&config), paths.clone()).unwrap())
        .collect();
    eprintln!("chain in place after {:?}", wait("chain", in_place));
    std::thread::sleep(Duration::from_millis(1500));
    assert!(in_place());
    let rules = sh("iptables -w -t raw -S f2b-pipe; ip6tables -w -t raw -S f2b-pipe");
    for rule in [
        "-A f2b-pipe -p tcp -m multiport --dports 80,443 -m set --match-set f2bp-web src -j DROP",
        "-A f2b-pipe -m set --match-set f2bp-all src -j DROP",
        "-A f2b-pipe -p tcp -m multiport --dports 80 -m set --match-set f2bp-manual6 src -j DROP",
    ] {
        assert!(rules.contains(rule), "{rules}");
    }
    assert!(!rules.contains("watched"));
    // The owner goes, another takes over; nothing is doubled.
    let (owner, others): (Vec<_>, Vec<_>) = keepers.into_iter().partition(|k| k.health().owner);
    assert_eq!(owner.len(), 1);
    let begun = Instant::now();
    drop(owner);
    eprintln!("goodbye: {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_millis(150));
    wait("new owner", || others.iter().any(|k| k.health().chain));
    assert!(in_place());
    drop(others);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "needs root and a network namespace"]
fn what_is_wiped_or_overtaken_is_back_within_a_second() {
    own_network();
    let (paths, dir) = runtime();
    let config = Arc::new(config(Blocktype::Drop));
    let keeper = Keeper::start(config, paths).unwrap();
    wait("chain", in_place);
    wait("health", || keeper.health().chain && keeper.health().chain6);
    for wipe in [
        "iptables -w -t raw -F",
        "iptables -w -t raw -D PREROUTING -j f2b-pipe",
        "iptables -w -t raw -I PREROUTING 1 -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        "iptables -w -t raw -F; iptables -w -t raw -X f2b-pipe",
        "nft flush ruleset",
    ] {
        std::thread::sleep(Duration::from_millis(700));
        sh(wipe);
        assert!(!in_place(), "{wipe}");
        let took = wait(wipe, in_place);
        eprintln!("{wipe}: back after {took:?}");
        assert!(took < Duration::from_secs(1), "{wipe}: {took:?}");
    }
    wait("IPv6", || {
        sh("ip6tables -w -t raw -S").contains("f2bp-web6")
    });
    wait("health", || keeper.health().replaced >= 5);
    drop(keeper);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "needs root and a network namespace"]
fn what_one_process_cannot_judge_another_bans_and_the_rule_is_there() {
    own_network();
    let (paths, dir) = runtime();
    // The one that keeps the rules reads a format without what apache-scan leaves clients out by.
    let of = |format: &str| {
        let mut config = Config {
            firewall: config(Blocktype::Drop).firewall,
            ..Config::default()
        };
        let format = Format::compile(format).unwrap();
        filter::observe_blind(&mut config.jails, &format);
        Arc::new(config)
    };
    let keeper = Keeper::start(of("common"), paths).unwrap();
    wait("chain", || keeper.health().chain && keeper.health().chain6);
    let other = of("combined");
    let scan = other
        .jails
        .iter()
        .position(|jail| jail.name == "apache-scan");
    let ban = Ban {
        jail: u16::try_from(scan.unwrap()).unwrap(),
        ..ban("192.0.2.7", timed(60))
    };
    assert_eq!(Act::new(&other).ban(&ban, 0), Ok(Banned::New));
    assert!(sh("iptables -w -t raw -S f2b-pipe").contains("--match-set f2bp-apache-scan src"));
    drop(keeper);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "needs root and a network namespace"]
fn a_lost_set_gets_its_rule_back_and_a_new_one_gets_one() {
    own_network();
    let (paths, dir) = runtime();
    let config = Arc::new(config(Blocktype::Drop));
    let keeper = Keeper::start(Arc::clone(&config), paths).unwrap();
    wait("chain", in_place);
    std::thread::sleep(Duration::from_millis(700));
    sh("iptables -w -t raw -F f2b-pipe; ipset destroy f2bp-web");
    wait("set and rule", in_place);
    assert!(sh("ipset list f2bp-web").contains("hash:ip"));
    let mut act = Act::new(&config);
    let _ = act.ban(&ban("198.51.100.0/24", timed(60)), 0).unwrap();
    let took = wait("rule", || rules() == 4);
    assert!(sh("iptables -w -t raw -S f2b-pipe").contains("--match-set f2bp-web-n src"));
    eprintln!("rule for networks after {took:?}");
    drop(keeper);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "needs root and a network namespace"]
fn rejecting_stands_in_input_and_leaves_nothing_in_raw() {
    own_network();
    let (paths, dir) = runtime();
    let keeper = Keeper::start(Arc::new(config(Blocktype::Drop)), paths.clone()).unwrap();
    wait("chain", in_place);
    wait("health", || keeper.health().chain6);
    drop(keeper);
    let keeper = Keeper::start(Arc::new(config(Blocktype::Reject)), paths).unwrap();
    wait("health", || keeper.health().chain);
    assert!(sh("iptables -w -S INPUT").contains("-A INPUT -j f2b-pipe"));
    let rules = sh("iptables -w -S f2b-pipe");
    assert!(
        rules.contains("--match-set f2bp-web src -j REJECT --reject-with tcp-reset"),
        "{rules}"
    );
    assert!(!sh("iptables -w -t raw -S; ip6tables -w -t raw -S").contains("f2b-pipe"));
    drop(keeper);
    let config = config(Blocktype::Reject);
    let [plan] = &Plan::all(&config, &[])[..] else {
        panic!("one place is enough")
    };
    let mut ipset = Ipset::open().unwrap();
    ipset.remove_others(&config, &[]).unwrap();
    for family in Family::ALL {
        assert_eq!(ipset.found(plan, family).unwrap(), Found::Missing);
    }
    assert!(!sh("iptables -w -S; ip6tables -w -S").contains("f2b-pipe"));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "needs root and a network namespace"]
fn off_empties_the_sets_and_is_seen_within_a_second() {
    own_network();
    let (paths, dir) = runtime();
    let config = Arc::new(config(Blocktype::Drop));
    let keeper = Keeper::start(Arc::clone(&config), paths.clone()).unwrap();
    wait("chain", in_place);
    let mut act = Act::new(&config);
    let _ = act.ban(&ban("192.0.2.7", timed(600)), 0).unwrap();
    let off = keeper.off();
    assert!(!off.load(Ordering::Relaxed));
    std::fs::write(paths.off(), "").unwrap();
    wait("off", || off.load(Ordering::Relaxed));
    wait("empty", || !sh("ipset list f2bp-web").contains("192.0.2.7"));
    std::fs::remove_file(paths.off()).unwrap();
    wait("on", || !off.load(Ordering::Relaxed));
    drop(keeper);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "needs root and a network namespace"]
fn the_keeper_knows_running_bans_and_their_ends() {
    own_network();
    let (paths, dir) = runtime();
    let config = Arc::new(config(Blocktype::Drop));
    let mut act = Act::new(&config);
    let _ = act.ban(&ban("192.0.2.1", timed(600)), 0).unwrap();
    let keeper = Keeper::start(Arc::clone(&config), paths).unwrap();
    wait("learnt", || keeper.health().bans == 1);
    let two = ban("192.0.2.2", timed(1));
    let banned = act.ban(&two, 0).unwrap();
    keeper.banned(BanEvent {
        jail: 0,
        who: two.who.target(),
        ban_for: two.ban_for,
        banned,
    });
    wait("known", || keeper.health().bans == 2);
    wait("ended", || keeper.health().bans == 1);
    assert_eq!(keeper.health().troubles, Vec::<String>::new());
    drop(keeper);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "needs root and a network namespace"]
fn a_ban_longer_than_the_kernel_counts_is_renewed() {
    own_network();
    let (paths, dir) = runtime();
    let config = Arc::new(config(Blocktype::Drop));
    let mut act = Act::new(&config);
    let _ = act.ban(&ban("192.0.2.3", timed(100 * 86_400)), 0).unwrap();
    let line = || {
        let list = sh("ipset list f2bp-web");
        let line = list.lines().find(|l| l.starts_with("192.0.2.3"));
        line.unwrap().to_owned()
    };
    let comment = |line: String| line.split('"').nth(1).unwrap().to_owned();
    let written = comment(line());
    // Weeks later.
    sh(&format!(
        "ipset add -exist f2bp-web 192.0.2.3 timeout 1000 comment '{written}'"
    ));
    let keeper = Keeper::start(config, paths).unwrap();
    wait("renewed", || line().contains("timeout 21474"));
    let (before, after) = (ipset::until(&written), ipset::until(&comment(line())));
    let moved = (after.unwrap() - before.unwrap()).num_seconds();
    assert!(moved.abs() <= 1, "{}", line());
    drop(keeper);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "needs root and a network namespace"]
fn open_connections_of_the_banned_are_reset() {
    own_network();
    sh("ip addr add 192.0.2.7/32 dev lo; ip addr add 2001:db8::7/128 dev lo nodad");
    let listen = |addr: &str| {
        let listener = TcpListener::bind(addr).unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    };
    let connected = |listener: &TcpListener, to: String| {
        // The kernel takes a moment before it routes to an address it was just given.
        wait("a connection", || TcpStream::connect(&to).is_ok());
        drop(listener.accept().unwrap());
        let client = TcpStream::connect(to).unwrap();
        let patience = Some(Duration::from_millis(300));
        client.set_read_timeout(patience).unwrap();
        (client, listener.accept().unwrap().0)
    };
    let alive = |(client, server): &mut (TcpStream, TcpStream)| {
        server.write_all(b"x").is_ok() && client.read(&mut [0; 1]).is_ok_and(|n| n == 1)
    };
    let (v4, p4) = listen("192.0.2.7:0");
    let (dual, p_dual) = listen("[::]:0");
    let (other, p_other) = listen("[::]:0");
    let mut plain = connected(&v4, format!("192.0.2.7:{p4}"));
    let mut mapped = connected(&dual, format!("192.0.2.7:{p_dual}"));
    let mut v6 = connected(&dual, format!("[2001:db8::7]:{p_dual}"));
    let mut other_port = connected(&other, format!("192.0.2.7:{p_other}"));
    let mut other_peer = connected(&dual, format!("127.0.0.1:{p_dual}"));
    let mut config = config(Blocktype::Drop);
    config.jails[0].ports =
        Ports::These(vec![PortRange::one("a", p4), PortRange::one("b", p_dual)]);
    let mut victims = Victims::default();
    for who in ["192.0.2.7", "2001:db8::"] {
        victims.add(&config, (0, target(who)));
    }
    assert_eq!(kill(&mut None, &victims), Ok(3));
    assert!(!alive(&mut plain) && !alive(&mut mapped) && !alive(&mut v6));
    assert!(alive(&mut other_port) && alive(&mut other_peer));
    // And by way of the keeper, as the hot thread does it.
    let (paths, dir) = runtime();
    let keeper = Keeper::start(Arc::new(config), paths).unwrap();
    keeper.banned(BanEvent {
        jail: 0,
        who: target("127.0.0.0/8"),
        ban_for: timed(60),
        banned: Banned::New,
    });
    let begun = Instant::now();
    while alive(&mut other_peer) {
        assert!(begun.elapsed() < Duration::from_secs(2));
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(keeper);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "needs root and a network namespace"]
fn the_banned_get_no_answer_on_the_jails_ports() {
    own_network();
    sh("ip addr add 192.0.2.7/32 dev lo; ip addr add 192.0.2.8/32 dev lo");
    let (paths, dir) = runtime();
    let config = Arc::new(config(Blocktype::Drop));
    let _web = TcpListener::bind("0.0.0.0:80").unwrap();
    let _other = TcpListener::bind("0.0.0.0:8080").unwrap();
    let answers = |to: &str| {
        TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_millis(300)).is_ok()
    };
    let keeper = Keeper::start(Arc::clone(&config), paths).unwrap();
    wait("chain", in_place);
    // A connection to an address of one's own comes from that address.
    assert!(answers("192.0.2.7:80"));
    let mut act = Act::new(&config);
    let _ = act.ban(&ban("192.0.2.7", timed(600)), 0).unwrap();
    assert!(!answers("192.0.2.7:80"));
    assert!(answers("192.0.2.7:8080"));
    assert!(answers("192.0.2.8:80"));
    assert_eq!(act.unban(0, target("192.0.2.7"), 0), Ok(true));
    assert!(answers("192.0.2.7:80"));
    drop(keeper);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "needs root and a network namespace"]
fn jails_that_drop_and_jails_that_reject_stand_side_by_side() {
    own_network();
    sh("ip addr add 192.0.2.7/32 dev lo; ip addr add 192.0.2.8/32 dev lo");
    let (paths, dir) = runtime();
    let mut config = config(Blocktype::Drop);
    let range = PortRange {
        written: "5060:5061".into(),
        first: 5060,
        last: 5061,
    };
    let both = vec![Protocol::Tcp, Protocol::Udp];
    config.jails = vec![
        Jail {
            protocols: both.clone(),
            ..jail("sip", Ports::These(vec![range]))
        },
        Jail {
            protocols: both,
            blocktype: Blocktype::Reject,
            small_sets: true,
            ..jail("a name that is too long for a set", port(53))
        },
        Jail {
            protocols: vec![Protocol::Udp],
            ..jail("udp", port(69))
        },
    ];
    let _answer = [53, 69, 5059, 5061].map(listen);
    let keeper = Keeper::start(Arc::new(config.clone()), paths.clone()).unwrap();
    let drops = || {
        let rules = sh("iptables -w -t raw -S");
        rules.contains("-A PREROUTING -j f2b-pipe\n") && rules.contains("f2bp-sip src -j DROP")
    };
    let rejects = || {
        let rules = sh("iptables -w -S");
        rules.contains("-A INPUT -j f2b-pipe\n")
            && rules
                .contains("-p udp -m multiport --dports 53 -m set --match-set f2bp-anamethatis-")
    };
    wait("both chains", || drops() && rejects());
    wait("health", || keeper.health().chain && keeper.health().chain6);
    let mut act = Act::new(&config);
    for jail in 0..3 {
        let ban = Ban {
            jail,
            ..ban("192.0.2.7", timed(600))
        };
        assert_eq!(act.ban(&ban, 0), Ok(Banned::New));
    }
    let dropped = Some(ErrorKind::TimedOut);
    let unanswered = Some(ErrorKind::WouldBlock);
    let refused = Some(ErrorKind::ConnectionRefused);
    // A connection to an address of one's own comes from that address.
    for (port, over_tcp, over_udp) in [
        (53, refused, refused),
        (69, None, unanswered),
        (5059, None, None),
        (5061, dropped, unanswered),
    ] {
        let banned = format!("192.0.2.7:{port}");
        assert_eq!((tcp(&banned), udp(&banned)), (over_tcp, over_udp), "{port}");
        let other = format!("192.0.2.8:{port}");
        assert_eq!((tcp(&other), udp(&other)), (None, None), "{port}");
    }
    let sets = sh("ipset list");
    let of = |name: &str| sets.split("\n\n").find(|set| set.contains(name)).unwrap();
    assert!(
        of("Name: f2bp-anamethatis-").contains("hashsize 1024 "),
        "{sets}"
    );
    assert!(of("Name: f2bp-sip").contains("hashsize 65536 "), "{sets}");

    for wipe in [
        "iptables -w -t raw -F",
        "iptables -w -F INPUT",
        "iptables -w -I INPUT 1 -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        "iptables -w -F; iptables -w -X; iptables -w -t raw -F; iptables -w -t raw -X",
    ] {
        std::thread::sleep(Duration::from_millis(700));
        let before = keeper.health().replaced;
        sh(wipe);
        wait(wipe, || keeper.health().replaced > before);
        wait(wipe, || drops() && rejects());
    }
    drop(keeper);

    // Once no jail rejects any more, nothing is left in INPUT.
    config.jails.remove(1);
    let keeper = Keeper::start(Arc::new(config.clone()), paths).unwrap();
    let filter = || sh("iptables -w -S; ip6tables -w -S");
    wait("only raw", || drops() && !filter().contains("f2b"));
    wait("health", || keeper.health().chain6);
    drop(keeper);
    std::fs::remove_dir_all(dir).unwrap();
}

/// Commands, with a configuration and a runtime directory of their own.
struct Commands {
    dir: PathBuf,
    paths: RuntimePaths,
}

impl Commands {
    fn new() -> Self {
        own_network();
        let (paths, dir) = runtime();
        let text = "[fail2ban]\nconfig = ''\n[jail.web]\nstatus = [404]\nport = ['http']\nmaxretry = 3\n\
                    [jail.rude]\nstatus = [404]\nblocktype = 'reject'\n";
        std::fs::write(dir.join("f2b-pipe.toml"), text).unwrap();
        Self { dir, paths }
    }

    /// Exit code, stdout and stderr.
    fn run(&self, words: &str) -> (i32, String, String) {
        let done = Command::new(env!("CARGO_BIN_EXE_f2b-pipe"))
            .args(words.split(' '))
            .arg("--config")
            .arg(self.dir.join("f2b-pipe.toml"))
            .arg("--runtime-dir")
            .arg(&self.dir)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            done.status.code().unwrap(),
            text(done.stdout),
            text(done.stderr),
        )
    }

    fn json(&self, words: &str) -> serde_json::Value {
        let (_, out, err) = self.run(words);
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{words}: {out}{err}"))
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

#[test]
#[ignore = "needs root and a network namespace"]
fn a_ban_by_hand_holds_even_when_nothing_runs() {
    let commands = Commands::new();
    let (code, out, err) = commands.run("ban 198.51.100.7 2001:db8::7 203.0.113.0/24 --time 1h");
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("198.51.100.7: banned in manual for 3600s"),
        "{out}"
    );
    assert!(!out.contains("but:"), "{out}");
    let rules = sh("iptables -w -t raw -S; ip6tables -w -t raw -S");
    assert!(sh("iptables -w -S").contains("-A INPUT -j f2b-pipe"));
    for set in ["f2bp-manual", "f2bp-manual-n", "f2bp-manual6"] {
        assert!(rules.contains(&format!("--match-set {set} src")), "{rules}");
    }
    let (code, out, _) = commands.run("ban 127.0.0.1");
    assert_eq!(code, 1);
    assert!(out.starts_with("127.0.0.1: not banned: "), "{out}");
    assert_eq!(commands.run("ban 127.0.0.1 --force --time 1s").0, 0);
    assert_eq!(commands.run("unban 127.0.0.1").1, "1\n");
    let (_, out, _) = commands.run("ban 198.51.100.7 --time -1");
    assert!(out.contains("prolonged in manual for ever"), "{out}");
    let shown = commands.json("banned --json");
    let banned = shown["banned"].as_array().unwrap();
    assert_eq!(banned.len(), 3);
    assert_eq!(banned[0]["ip"], "198.51.100.7");
    assert_eq!(banned[0]["left"], serde_json::Value::Null);
    assert_eq!(banned[1]["ip"], "2001:db8::/64");
    assert_eq!(banned[2]["ip"], "203.0.113.0/24");
    let (_, table, _) = commands.run("banned");
    assert!(table.starts_with("IP"), "{table}");
    assert!(table.contains("by hand"), "{table}");

    let (code, out, _) = commands.run("unban 203.0.113.9");
    assert_eq!(code, 1);
    assert!(out.starts_with("0\n"), "{out}");
    assert!(out.contains("lies in 203.0.113.0/24"), "{out}");
    assert_eq!(commands.run("unban 203.0.113.0/24").1, "1\n");
    assert_eq!(commands.run("unban 2001:db8::/64 --jail manual").1, "1\n");
    let shown = commands.json("unban 198.51.100.7 198.51.100.8 --json");
    assert_eq!(shown["unbanned"], 1);
    assert_eq!(shown["not_banned"][0], "198.51.100.8");
    assert_eq!(commands.run("unban --all").1, "0\n");
    assert_eq!(commands.run("banned").1, "nobody is banned\n");
}

#[test]
#[ignore = "needs root and a network namespace"]
fn status_says_first_what_is_wrong_and_then_fail2bans_tree() {
    let commands = Commands::new();
    commands.run("ban 198.51.100.7 --jail web");
    let (code, out, _) = commands.run("status web");
    assert_eq!(code, 0);
    assert!(out.starts_with("Not well:\n! the set f2bp-"), "{out}");
    assert!(out.contains("! no f2b-pipe runs"), "{out}");
    assert!(
        out.contains("   |- Currently banned:\t1\n")
            && out.ends_with("Banned IP list:\t198.51.100.7\n"),
        "{out}"
    );
    // As if one ran that had counted something.
    let state = commands.paths.state(std::process::id());
    let pid = std::process::id();
    let text = format!(
        r#"{{"pid":{pid},"lines":9,"tee_dropped":2,"jails":{{"web":{{"hits":7,"bans":1}}}},"new":[]}}"#
    );
    std::fs::write(state, text).unwrap();
    std::fs::write(commands.paths.state(u32::MAX), r#"{"pid":1,"shed":3}"#).unwrap();
    let shown = commands.json("status web --json");
    assert_eq!(shown["jails"][0]["hits"], 7);
    assert_eq!(shown["jails"][0]["ips"][0], "198.51.100.7");
    assert_eq!(shown["processes"].as_array().unwrap().len(), 1);
    let (_, out, _) = commands.run("status");
    assert!(out.contains("! process "), "{out}");
    assert!(out.contains("2 lines are missing in the log"), "{out}");
    assert!(!out.contains("no f2b-pipe runs"), "{out}");
    assert!(out.contains("Status\n|- Number of jail:\t"), "{out}");
    sh("iptables -w -t raw -F");
    assert!(
        commands
            .run("status")
            .1
            .contains("is not there, so nobody is kept out")
    );
    let (code, _, err) = commands.run("status wbe");
    assert_eq!(code, 2);
    assert!(err.contains("did you mean web?"), "{err}");
}

#[test]
#[ignore = "needs root and a network namespace"]
fn all_is_well_when_one_runs() {
    let commands = Commands::new();
    let config = f2b_pipe::config::load(&commands.dir.join("f2b-pipe.toml")).config;
    let keeper = Keeper::start(Arc::new(config), commands.paths.clone()).unwrap();
    wait("health", || keeper.health().chain6);
    let text = format!(r#"{{"pid":{}}}"#, std::process::id());
    std::fs::write(commands.paths.state(std::process::id()), text).unwrap();
    let (_, out, _) = commands.run("status");
    assert!(out.starts_with("All is well.\nStatus\n"), "{out}");
    // It writes the rule for a network's set, which did not exist.
    let (_, out, _) = commands.run("ban 203.0.113.0/24");
    assert!(!out.contains("but:"), "{out}");
    assert!(commands.run("status").1.starts_with("All is well."));
}

#[test]
#[ignore = "needs root and a network namespace"]
fn off_and_back() {
    let commands = Commands::new();
    let config = f2b_pipe::config::load(&commands.dir.join("f2b-pipe.toml")).config;
    let keeper = Keeper::start(Arc::new(config), commands.paths.clone()).unwrap();
    wait("health", || keeper.health().chain6);
    commands.run("ban 198.51.100.7 198.51.100.8");
    assert_eq!(
        commands.run("off").1,
        "2 bans taken away\noff: nobody is banned until `f2b-pipe reload`\n"
    );
    wait("off", || keeper.health().off);
    let (code, _, err) = commands.run("ban 198.51.100.7");
    assert_eq!(code, 2);
    assert!(err.contains("f2b-pipe reload"), "{err}");
    let (_, out, _) = commands.run("status");
    assert!(out.starts_with("Not well:\n! switched off"), "{out}");
    assert_eq!(commands.run("reload").0, 0);
    wait("on", || !keeper.health().off);
    assert_eq!(commands.run("ban 198.51.100.7").0, 0);

    // For uninstalling; even while one runs, nothing comes back.
    commands.run("off --remove");
    std::thread::sleep(Duration::from_millis(1500));
    let left = sh(
        "iptables -w -t raw -S; ip6tables -w -t raw -S; iptables -w -S; ip6tables -w -S; ipset list -n",
    );
    assert!(!left.contains("f2b"), "{left}");
    commands.run("reload");
    wait("all of it again", || {
        sh("iptables -w -t raw -S").contains("f2bp-web")
    });
    drop(keeper);
    let (_, out, _) = commands.run("off --remove");
    assert!(out.contains("rules and sets are taken away"), "{out}");
    assert!(!commands.paths.off().exists());
}

#[test]
#[ignore = "needs root and a network namespace"]
fn without_root_the_commands_say_so() {
    let commands = Commands::new();
    let done = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups"])
        .args([env!("CARGO_BIN_EXE_f2b-pipe"), "banned"])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(2), "{err}");
    assert!(err.contains("needs root"), "{err}");
    let (code, _, err) = commands.run("unban example.org");
    assert_eq!(code, 2);
    assert!(err.contains("neither an address nor a network"), "{err}");
}
