//! The same of both firewalls, against the real kernel, each in a network namespace of its own; the witnesses are ipset,
//! iptables, nft and sockets, not this program.
//!
//! `cargo test --test firewalls -- --include-ignored` as root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "a test that cannot go on should stop"
)]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use f2b_pipe::act::firewall::{self, Firewall, Member, Put};
use f2b_pipe::act::keeper::{BanEvent, Keeper};
use f2b_pipe::act::{Act, ActError, Ban, Banned, SetRef, jails};
use f2b_pipe::client::Client;
use f2b_pipe::config::{self, Blocktype, Config, RuntimePaths};
use f2b_pipe::decide::BanFor;
use f2b_pipe::exempt::{Bannable, Target};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use ports::{listen, tcp, udp};

#[path = "support/ports.rs"]
mod ports;

const BOTH: [&str; 2] = ["ipset", "nftables"];

/// What a command says on stdout and stderr.
fn sh(command: &str) -> String {
    let done = Command::new("sh").args(["-c", command]).output().unwrap();
    String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
}

/// A host with one kind of firewall: from here on this thread, and what it starts, has a network of its own.
struct Host {
    dir: PathBuf,
    paths: RuntimePaths,
    config: Arc<Config>,
}

impl Host {
    /// With these jails: `[jail.NAME] ...`.
    fn new(backend: &'static str, jails: &str) -> Self {
        static N: AtomicU32 = AtomicU32::new(0);
        unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
        sh("ip link set lo up");
        let n = N.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("f2b-firewalls-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("f2b-pipe.toml");
        let text = format!("[firewall]\nbackend = '{backend}'\n[fail2ban]\nconfig = ''\n{jails}\n");
        std::fs::write(&file, text).unwrap();
        let loaded = config::load(&file);
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        Self {
            paths: RuntimePaths::new(&dir, &file),
            dir,
            config: Arc::new(loaded.config),
        }
    }

    /// One web server: `web` drops, `rude` rejects.
    fn web(backend: &'static str) -> Self {
        Self::new(
            backend,
            "[jail.web]\nstatus = [404]\nport = [80, 443]\n[jail.rude]\nstatus = [404]\nport = [81]\nblocktype = 'reject'\n",
        )
    }

    fn firewall(&self) -> Box<dyn Firewall> {
        firewall::open(&self.config.firewall).unwrap()
    }

    fn keeper(&self) -> Keeper {
        let keeper = Keeper::start(Arc::clone(&self.config), self.paths.clone()).unwrap();
        wait("rules", || keeper.health().chain && keeper.health().chain6);
        keeper
    }

    /// From here on the programs that change a firewall do nothing in this thread, and what it starts, but leave this trace.
    fn trace_of_tools(&self) -> PathBuf {
        own_files();
        let trace = self.dir.join("trace");
        let script = self.dir.join("script");
        let text = format!("#!/bin/sh\necho $0 >> {}\nexit 1\n", trace.display());
        std::fs::write(&script, text).unwrap();
        sh(&format!("chmod 755 {}", script.display()));
        for tool in [
            "iptables",
            "ip6tables",
            "iptables-restore",
            "ip6tables-restore",
            "ipset",
            "nft",
        ] {
            let real = std::fs::canonicalize(sh(&format!("command -v {tool}")).trim()).unwrap();
            bind(&script, &real);
        }
        trace
    }

    /// A ban in the jail called `jail`.
    fn ban(&self, jail: &str, who: &str, ban_for: BanFor) -> Ban<'static> {
        let (id, _) = jails(&self.config).find(|(_, j)| j.name == jail).unwrap();
        Ban {
            jail: id,
            who: Bannable::forced(target(who)),
            ban_for,
            reason: "5 hits in 10m",
        }
    }

    /// What the tool of the firewall says of a set.
    fn set(&self, name: &str) -> String {
        sh(&self.firewall().shown_by(name))
    }

    fn members(&self, set: &str) -> Vec<Member> {
        let mut members = Vec::new();
        let mut firewall = self.firewall();
        firewall
            .list(set, &mut |member| members.push(member))
            .unwrap();
        members
    }

    /// Exit code, stdout and stderr of a command of ours.
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
        let code = done.status.code().unwrap();
        (code, text(done.stdout), text(done.stderr))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).ok();
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

/// Waits until `so`; how long that took.
fn wait(what: &str, so: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(8), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}

#[test]
#[ignore = "needs root and a network namespace"]
fn an_administrator_sees_who_how_long_and_why() {
    for backend in BOTH {
        let host = Host::web(backend);
        let mut act = Act::new(&host.config);
        let mut ban = |who: &str, ban_for| act.ban(&host.ban("web", who, ban_for), 0);
        assert_eq!(ban("192.0.2.7", timed(600)), Ok(Banned::NewSet));
        assert_eq!(ban("192.0.2.7", timed(9000)), Ok(Banned::Already));
        assert_eq!(ban("192.0.2.8", BanFor::Forever), Ok(Banned::New));
        assert_eq!(ban("192.0.2.9", timed(100 * 86_400)), Ok(Banned::New));
        assert_eq!(ban("2001:db8::1:2:3:4", timed(60)), Ok(Banned::NewSet));
        assert_eq!(ban("2001:db8::9", timed(60)), Ok(Banned::Already));
        assert_eq!(ban("198.51.100.0/24", timed(60)), Ok(Banned::NewSet));
        assert_eq!(
            ban("198.51.100.0/25", timed(60)).map(|b| b != Banned::Already),
            Ok(true)
        );
        assert_eq!(
            ban("198.51.0.0/16", timed(60)).map(|b| b != Banned::Already),
            Ok(true)
        );
        assert_eq!(ban("198.51.100.0/24", timed(60)), Ok(Banned::Already));
        assert!(ban("0.0.0.0/0", timed(60)).is_err());

        let set = host.set("f2bp-web");
        assert!(set.contains("5 hits in 10m"), "{set}");
        let shown = match backend {
            "ipset" => ["192.0.2.7 timeout 600", "192.0.2.7 timeout 599"],
            _ => [
                "192.0.2.7 counter packets 0 bytes 0 timeout 10m expires 10m",
                "192.0.2.7 counter packets 0 bytes 0 timeout 10m expires 9m59s",
            ],
        };
        assert!(shown.iter().any(|shown| set.contains(shown)), "{set}");
        let set = host.set("f2bp-web6");
        assert!(
            set.contains("2001:db8::") && !set.contains("2001:db8::1"),
            "{set}"
        );
        let mut nets: Vec<String> = host
            .members("f2bp-web-n")
            .iter()
            .map(|m| format!("{}/{}", m.addr, m.cidr.unwrap()))
            .collect();
        nets.sort();
        assert_eq!(
            nets,
            ["198.51.0.0/16", "198.51.100.0/24", "198.51.100.0/25"]
        );

        act.prolong(&host.ban("web", "192.0.2.7", timed(9000)), 0)
            .unwrap();
        let left = |who: &str| {
            let who: IpAddr = who.parse().unwrap();
            let members = host.members("f2bp-web");
            members.into_iter().find(|m| m.addr == who).unwrap().left
        };
        assert!(left("192.0.2.7").is_some_and(|left| left > 8990));
        assert_eq!(left("192.0.2.8"), None);
        let (code, shown, _) = host.run("banned --json");
        assert_eq!(code, 0);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let of = |ip: &str| {
            let rows = shown["banned"].as_array().unwrap();
            rows.iter().find(|row| row["ip"] == ip).unwrap().clone()
        };
        assert!(of("192.0.2.9")["left"].as_u64().unwrap() > 100 * 86_400 - 60);
        assert_eq!(of("192.0.2.9")["reason"], "5 hits in 10m");
        assert_eq!(of("2001:db8::/64")["jail"], "web");
        assert_eq!(of("198.51.0.0/16")["jail"], "web");

        let who = |text: &str| target(text);
        let id = host.ban("web", "192.0.2.7", timed(1)).jail;
        for text in ["192.0.2.7", "2001:db8::77", "198.51.100.0/24"] {
            assert_eq!(act.unban(id, who(text), 0), Ok(true), "{text}");
            assert_eq!(act.unban(id, who(text), 0), Ok(false), "{text}");
        }
        assert_eq!(host.members("f2bp-web").len(), 2);
        assert_eq!(host.members("f2bp-web-n").len(), 2);
    }
}

#[test]
#[ignore = "needs root and a network namespace"]
fn the_kernel_ends_a_ban_and_the_keeper_tells_of_it() {
    for backend in BOTH {
        let host = Host::web(backend);
        let mut act = Act::new(&host.config);
        assert_eq!(
            act.ban(&host.ban("web", "192.0.2.1", timed(600)), 0),
            Ok(Banned::NewSet)
        );
        let keeper = host.keeper();
        wait("learnt", || keeper.health().bans == 1);
        assert_eq!(keeper.health().firewall, backend);
        let two = host.ban("web", "192.0.2.2", timed(1));
        let banned = act.ban(&two, 0).unwrap();
        keeper.banned(BanEvent {
            jail: two.jail,
            who: two.who.target(),
            ban_for: two.ban_for,
            banned,
        });
        wait("known", || keeper.health().bans == 2);
        wait("ended", || keeper.health().bans == 1);
        assert_eq!(host.members("f2bp-web").len(), 1);
        assert_eq!(act.ban(&two, 0), Ok(Banned::New));
        assert_eq!(keeper.health().troubles, Vec::<String>::new());
    }
}

#[test]
#[ignore = "needs root and a network namespace"]
fn the_banned_are_dropped_or_rejected_on_the_jails_ports_alone() {
    for backend in BOTH {
        let host = Host::new(
            backend,
            "[jail.web]\nstatus = [404]\nport = [80, 443]\n\
             [jail.rude]\nstatus = [404]\nport = [81]\nprotocol = ['tcp', 'udp']\nblocktype = 'reject'\n\
             [jail.sip]\nstatus = [404]\nport = ['5060:5061']\nprotocol = ['tcp', 'udp']\n\
             [jail.all]\nstatus = [404]\nport = 'all'\n",
        );
        sh("for n in 7 8 9 10; do ip addr add 192.0.2.$n/32 dev lo; done");
        sh("ip addr add 198.51.100.9/32 dev lo; ip addr add 198.51.77.9/32 dev lo");
        sh("for n in 7 8; do ip addr add 2001:db8:0:$n::1/128 dev lo nodad; done");
        let _answer = [80, 81, 443, 444, 5059, 5061].map(listen);
        let _keeper = host.keeper();
        let mut act = Act::new(&host.config);
        for (jail, who) in [
            ("web", "192.0.2.7"),
            ("rude", "192.0.2.7"),
            ("sip", "192.0.2.7"),
            ("all", "192.0.2.9"),
            ("web", "2001:db8:0:7:9:9:9:9"),
            ("web", "198.51.100.0/24"),
            ("web", "198.51.0.0/17"),
        ] {
            let banned = act.ban(&host.ban(jail, who, timed(600)), 0).unwrap();
            assert_ne!(banned, Banned::Already, "{jail} {who}");
        }
        let dropped = Some(ErrorKind::TimedOut);
        let refused = Some(ErrorKind::ConnectionRefused);
        let silent = Some(ErrorKind::WouldBlock);
        wait("rules for networks", || tcp("198.51.100.9:80") == dropped);
        wait("rules for networks", || tcp("198.51.77.9:80") == dropped);
        for (to, over_tcp, over_udp) in [
            ("192.0.2.7:80", dropped, None),
            ("192.0.2.7:443", dropped, None),
            ("192.0.2.7:444", None, None),
            ("192.0.2.7:81", refused, refused),
            ("192.0.2.7:5059", None, None),
            ("192.0.2.7:5061", dropped, silent),
            ("192.0.2.8:80", None, None),
            ("192.0.2.8:81", None, None),
            ("192.0.2.9:444", dropped, silent),
            ("198.51.100.9:444", None, None),
        ] {
            assert_eq!((tcp(to), udp(to)), (over_tcp, over_udp), "{backend} {to}");
        }
        assert_eq!(tcp("[2001:db8:0:7::1]:80"), dropped, "{backend}");
        assert_eq!(tcp("[2001:db8:0:8::1]:80"), None, "{backend}");
        let counted = host.members("f2bp-web");
        assert!(
            counted[0].packets > 0 && counted[0].bytes > 0,
            "{counted:?}"
        );
        // The counters of a ban that is prolonged go on.
        act.prolong(&host.ban("web", "192.0.2.7", timed(9000)), 0)
            .unwrap();
        assert!(host.members("f2bp-web")[0].packets >= counted[0].packets);
        let id = host.ban("web", "192.0.2.7", timed(1)).jail;
        assert_eq!(act.unban(id, target("192.0.2.7"), 0), Ok(true));
        assert_eq!(tcp("192.0.2.7:80"), None, "{backend}");
    }
}

#[test]
#[ignore = "needs root and a network namespace"]
fn whatever_is_taken_away_is_back_with_the_bans() {
    let of_ipset = [
        "iptables -w -F; iptables -w -t raw -F; iptables -w -t raw -X",
        "nft flush ruleset",
        "nft flush ruleset; ipset destroy",
        // As firewalld of RHEL 8 reloads: everything goes, and rules of its own come first.
        "nft flush ruleset; ipset destroy; iptables -w -t raw -I PREROUTING -j ACCEPT; iptables -w -I INPUT -j ACCEPT",
        "iptables -w -t raw -I PREROUTING 1 -m conntrack --ctstate ESTABLISHED,NEW -j ACCEPT",
    ];
    let of_nft = [
        "nft flush ruleset",
        "nft delete table inet f2b-pipe",
        "nft flush chain inet f2b-pipe prerouting",
        "nft flush chain inet f2b-pipe prerouting; nft delete set inet f2b-pipe f2bp-web",
        "nft delete chain inet f2b-pipe prerouting",
        "nft add table inet f2b-pipe '{ flags dormant; }'",
        "nft insert rule inet f2b-pipe prerouting accept",
        "nft flush ruleset; nft add table inet firewalld; nft add chain inet firewalld raw '{ type filter hook prerouting priority -400; }'; nft add rule inet firewalld raw accept",
    ];
    for (backend, wipes) in [("ipset", &of_ipset[..]), ("nftables", &of_nft[..])] {
        let host = Host::web(backend);
        sh(
            "ip addr add 192.0.2.7/32 dev lo; ip addr add 198.51.100.9/32 dev lo; ip addr add 192.0.2.8/32 dev lo",
        );
        // Another's, which nobody but he may touch.
        let others = "nft add table ip theirs; nft add set ip theirs mine '{ type ipv4_addr; elements = { 203.0.113.7 }; }'";
        let _answer = [80, 81].map(listen);
        let keeper = host.keeper();
        let mut act = Act::new(&host.config);
        for who in ["192.0.2.7", "198.51.100.0/24"] {
            let ban = host.ban("web", who, timed(600));
            let banned = act.ban(&ban, 0).unwrap();
            keeper.banned(BanEvent {
                jail: ban.jail,
                who: ban.who.target(),
                ban_for: ban.ban_for,
                banned,
            });
        }
        let out = || {
            [
                ("192.0.2.7:80", false),
                ("198.51.100.9:80", false),
                ("192.0.2.8:80", true),
            ]
            .iter()
            .all(|(to, lets)| tcp(to).is_none() == *lets)
        };
        wait("banned", out);
        wait("known", || keeper.health().bans == 2);
        for wipe in wipes {
            // Another look because of news comes half a second after the last one at the earliest.
            std::thread::sleep(Duration::from_millis(800));
            let before = keeper.health().replaced;
            sh(wipe);
            let again = wait(wipe, || keeper.health().replaced > before);
            wait(wipe, out);
            eprintln!("{backend}: {wipe}: seen after {again:?}");
            sh(others);
            assert!(
                sh("nft list set ip theirs mine").contains("203.0.113.7"),
                "{wipe}"
            );
        }
        let members = host.members("f2bp-web");
        assert!(
            members[0].left.is_some_and(|left| left < 600),
            "{members:?}"
        );
        assert_eq!(keeper.health().troubles, Vec::<String>::new());
    }
}

#[test]
#[ignore = "needs root and a network namespace"]
fn bans_taken_away_by_hand_stay_away() {
    for (backend, flush) in [
        ("ipset", "ipset flush f2bp-web"),
        ("nftables", "nft flush set inet f2b-pipe f2bp-web"),
    ] {
        let host = Host::web(backend);
        let mut act = Act::new(&host.config);
        for who in ["192.0.2.7", "192.0.2.8"] {
            assert_ne!(
                act.ban(&host.ban("web", who, timed(600)), 0),
                Ok(Banned::Already)
            );
        }
        let keeper = host.keeper();
        wait("learnt", || keeper.health().bans == 2);
        assert_eq!(host.run("unban 192.0.2.7").1, "1\n");
        assert_eq!(host.members("f2bp-web").len(), 1);
        sh(flush);
        std::thread::sleep(Duration::from_millis(2500));
        assert_eq!(host.members("f2bp-web").len(), 0);
    }
}

#[test]
#[ignore = "needs root and a network namespace"]
fn another_programs_table_is_left_alone() {
    let host = Host::web("nftables");
    for made in [
        "nft add table inet f2b-pipe",
        "nft add table inet f2b-pipe; nft add set inet f2b-pipe f2bp-web '{ type ipv4_addr; }'",
    ] {
        sh(made);
        let before = sh("nft list ruleset");
        let mut act = Act::new(&host.config);
        let error = act
            .ban(&host.ban("web", "192.0.2.7", timed(60)), 0)
            .unwrap_err();
        assert!(matches!(error, ActError::Foreign { .. }), "{made}: {error}");
        let keeper = Keeper::start(Arc::clone(&host.config), host.paths.clone()).unwrap();
        wait("told", || !keeper.health().troubles.is_empty());
        drop(keeper);
        assert_eq!(sh("nft list ruleset"), before);
        let (_, said, _) = host.run("status");
        assert!(said.contains("nft delete table inet f2b-pipe"), "{said}");
    }
}

#[test]
#[ignore = "needs root and a network namespace"]
fn commands_say_which_firewall_and_take_all_of_it_away() {
    for backend in BOTH {
        let host = Host::web(backend);
        let (code, out, err) = host.run("ban 198.51.100.7 2001:db8::7 203.0.113.0/24 --time 1h");
        assert_eq!(
            (code, out.contains("but:")),
            (0, false),
            "{backend}: {out}{err}"
        );
        let (_, out, _) = host.run("status");
        let look = match backend {
            "ipset" => "ipset list f2bp-JAIL",
            _ => "nft list set inet f2b-pipe f2bp-JAIL",
        };
        assert!(
            out.contains(&format!("Firewall: {backend}; the bans of a jail: {look}")),
            "{out}"
        );
        let (_, out, _) = host.run("check");
        assert!(
            out.contains(&format!("bans go into sets of {backend}")),
            "{out}"
        );
        let (_, out, _) = host.run("metrics");
        assert!(out.contains("f2b_pipe_banned{jail=\"manual\"} 3"), "{out}");
        let (_, out, _) = host.run("unban 203.0.113.9");
        assert!(out.contains("lies in 203.0.113.0/24"), "{out}");
        assert_eq!(host.run("unban 203.0.113.0/24").1, "1\n");
        let (_, out, _) = host.run("off");
        assert!(out.starts_with("2 bans taken away"), "{out}");
        assert_eq!(host.run("reload").0, 0);
        assert_eq!(host.run("ban 198.51.100.7").0, 0);
        let (_, out, _) = host.run("off --remove");
        assert!(out.contains("rules and sets are taken away"), "{out}");
        let left = sh("nft list ruleset; ipset list -n; iptables -w -t raw -S; iptables -w -S");
        assert!(!left.contains("f2b"), "{backend}: {left}");
    }
}

#[test]
#[ignore = "needs root and a network namespace"]
fn with_nftables_no_program_is_run() {
    let host = Host::web("nftables");
    let trace = host.trace_of_tools();
    let keeper = host.keeper();
    let mut act = Act::new(&host.config);
    assert_eq!(
        act.ban(&host.ban("web", "198.51.100.0/24", timed(60)), 0),
        Ok(Banned::NewSet)
    );
    assert_eq!(keeper.health().troubles, Vec::<String>::new());
    assert_eq!(host.run("ban 192.0.2.7").0, 0);
    assert!(host.run("banned").1.contains("192.0.2.7"));
    drop(keeper);
    assert_eq!(host.run("unban --all").1, "2\n");
    assert!(
        !trace.exists(),
        "{}",
        std::fs::read_to_string(&trace).unwrap()
    );
}

#[test]
#[ignore = "needs root and a network namespace"]
fn rules_of_iptables_that_stand_are_seen_without_it() {
    let ports: Vec<String> = (1..=32).map(|n| (1000 + 2 * n).to_string()).collect();
    let host = Host::new(
        "ipset",
        &format!(
            "[jail.web]\nstatus = [404]\nport = [80, 443]\n\
             [jail.sip]\nstatus = [404]\nport = ['5060:5061', 69]\nprotocol = ['tcp', 'udp']\n\
             [jail.many]\nstatus = [404]\nport = [{}]\n\
             [jail.ping]\nstatus = [404]\nprotocol = 'icmp'\n\
             [jail.names]\nstatus = [404]\nport = 53\nprotocol = ['tcp', 'udp']\nblocktype = 'reject'\n\
             [jail.rude]\nstatus = [404]\nport = 'all'\nblocktype = 'reject'\n",
            ports.join(", ")
        ),
    );
    drop(host.keeper());
    let rules = sh("iptables -w -S f2b-pipe; iptables -w -t raw -S f2b-pipe");
    for rule in [
        "--dports 1062,1064 ",
        "-p udp -m multiport --dports 69,5060:5061 ",
        "-p icmp -m set ",
        "-p udp -m multiport --dports 53 -m set --match-set f2bp-names src -j REJECT --reject-with icmp",
        "--match-set f2bp-rude src -j REJECT --reject-with tcp-reset",
    ] {
        assert!(rules.contains(rule), "{rule}: {rules}");
    }
    // A rule of somebody else's behind ours is none of our business.
    sh(
        "iptables -w -t raw -A PREROUTING -p udp --dport 9 -j DROP; ip6tables -w -A INPUT -j ACCEPT",
    );
    let begin = |what: &str| {
        let keeper = Keeper::start(Arc::clone(&host.config), host.paths.clone()).unwrap();
        wait(what, || !keeper.health().firewall.is_empty());
        let health = keeper.health();
        health.chain && health.chain6
    };
    // Nor is one that only counts, in either chain.
    let keeper = host.keeper();
    sh(
        "iptables -w -t raw -I PREROUTING 1; iptables -w -t raw -A f2b-pipe; ip6tables -w -I INPUT 1",
    );
    std::thread::sleep(Duration::from_secs(1));
    let health = keeper.health();
    assert_eq!(health.troubles, Vec::<String>::new());
    assert_eq!(health.replaced, 0);
    // A chain of the hook's name that hangs on another hook turns nobody away.
    sh("nft flush chain ip raw PREROUTING; nft delete chain ip raw PREROUTING");
    sh(
        "nft 'add chain ip raw PREROUTING { type filter hook output priority -300; }; add rule ip raw PREROUTING counter jump f2b-pipe'",
    );
    wait("the other hook is seen", || !keeper.health().chain);
    drop(keeper);
    sh("nft delete table ip raw");
    drop(host.keeper());
    let changes = [
        "iptables -w -t raw -D f2b-pipe 2",
        "ip6tables -w -D INPUT -j f2b-pipe; ip6tables -w -A INPUT -j f2b-pipe",
        "iptables -w -t raw -A f2b-pipe -s 192.0.2.9 -j ACCEPT",
        "iptables -w -t raw -R f2b-pipe 1 -p tcp -m multiport --dports 80 -m set --match-set f2bp-web src -j DROP",
        "iptables -w -t raw -R f2b-pipe 1 -p tcp -m multiport --dports 80,443 -m set ! --match-set f2bp-web src -j DROP",
    ];
    for change in changes {
        sh(change);
        // On a thread of its own, so that this one keeps its tools.
        std::thread::scope(|scope| {
            let with = scope.spawn(|| {
                let trace = host.trace_of_tools();
                assert!(!begin(change), "{change}");
                assert!(trace.exists(), "{change}");
                std::fs::remove_file(trace).unwrap();
            });
            with.join().unwrap();
        });
        assert!(begin(change), "{change}");
        std::thread::scope(|scope| {
            let without = scope.spawn(|| {
                let trace = host.trace_of_tools();
                assert!(begin(change), "{change}");
                let ran = std::fs::read_to_string(trace).unwrap_or_default();
                assert_eq!(ran, "", "{change}");
            });
            without.join().unwrap();
        });
    }
}

#[test]
#[ignore = "needs root and a network namespace"]
fn legacy_iptables_keeps_its_own_rules() {
    let host = Host::web("ipset");
    own_files();
    // As `update-alternatives --set iptables /usr/sbin/iptables-legacy` does it.
    let own = host.dir.join("alternatives");
    sh(&format!("cp -a /etc/alternatives {}", own.display()));
    for tool in ["iptables", "ip6tables"] {
        for name in ["", "-save", "-restore"] {
            let link = own.join(format!("{tool}{name}"));
            sh(&format!(
                "ln -sf /usr/sbin/{tool}-legacy{name} {}",
                link.display()
            ));
        }
    }
    bind(&own, Path::new("/etc/alternatives"));
    assert!(sh("iptables -V").contains("legacy"));
    let rules = || sh("iptables -t raw -S; ip6tables -t raw -S; iptables -S; ip6tables -S");
    drop(host.keeper());
    assert_eq!(rules().matches("-j f2b-pipe\n").count(), 4, "{}", rules());
    assert!(!sh("nft list ruleset").contains("f2b"));
    // What is gone is seen at the next start, and what stands is left as it is.
    sh("iptables -t raw -D f2b-pipe 1");
    let before = rules();
    drop(host.keeper());
    assert_eq!(rules().lines().count(), before.lines().count() + 1);
    // Where no jail drops any more, nothing of it is left.
    let mut config = (*host.config).clone();
    config.firewall.blocktype = Blocktype::Reject;
    config.manual.blocktype = Blocktype::Reject;
    for jail in &mut config.jails {
        jail.blocktype = Blocktype::Reject;
    }
    let keeper = Keeper::start(Arc::new(config), host.paths.clone()).unwrap();
    wait("rules", || keeper.health().chain && keeper.health().chain6);
    let raw = sh("iptables -t raw -S; ip6tables -t raw -S");
    assert!(!raw.contains("f2b"), "{raw}");
    assert_eq!(rules().matches("-j f2b-pipe\n").count(), 2, "{}", rules());
}

/// From here on this thread, and what it starts, has mounts of its own.
fn own_files() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
}

fn bind(from: &Path, to: &Path) {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

#[test]
#[ignore = "needs root and a network namespace"]
fn without_iptables_nftables_is_chosen_and_stays() {
    let host = Host::web("auto");
    assert_eq!(host.firewall().name(), "ipset");
    std::thread::scope(|scope| {
        let without = || {
            own_files();
            let tool = std::fs::canonicalize("/usr/sbin/iptables").unwrap();
            bind(Path::new("/dev/null"), &tool);
            let chosen = host.firewall().name();
            let keeper = host.keeper();
            assert_eq!(keeper.health().firewall, "nftables");
            let (_, out, _) = host.run("status");
            assert!(out.contains("Firewall: nftables;"), "{out}");
            chosen
        };
        assert_eq!(scope.spawn(without).join().unwrap(), "nftables");
    });
    // A process that begins later, and finds iptables, does not go apart from the others.
    assert_eq!(host.firewall().name(), "nftables");
    assert_eq!(host.run("off --remove").0, 0);
    assert_eq!(host.firewall().name(), "ipset");
}

#[test]
#[ignore = "needs root and a network namespace"]
fn bans_move_when_the_other_firewall_is_configured() {
    let host = Host::web("ipset");
    let mut act = Act::new(&host.config);
    for (who, ban_for) in [
        ("192.0.2.7", timed(600)),
        ("192.0.2.8", BanFor::Forever),
        ("192.0.2.9", timed(100 * 86_400)),
        ("2001:db8::7", timed(600)),
        ("198.51.100.0/24", timed(600)),
    ] {
        assert_ne!(
            act.ban(&host.ban("web", who, ban_for), 0),
            Ok(Banned::Already)
        );
    }
    drop(host.keeper());
    for (to, from) in [("nftables", "ipset"), ("ipset", "nftables")] {
        let file = host.dir.join("f2b-pipe.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace(from, to)).unwrap();
        let config = Arc::new(config::load(&file).config);
        let keeper = Keeper::start(Arc::clone(&config), host.paths.clone()).unwrap();
        wait("learnt", || keeper.health().bans == 5);
        assert_eq!(keeper.health().firewall, to);
        drop(keeper);
        let (_, shown, _) = host.run("banned --json");
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let rows = shown["banned"].as_array().unwrap();
        assert_eq!(rows.len(), 5, "{to}: {shown}");
        let long = rows.iter().find(|row| row["ip"] == "192.0.2.9").unwrap();
        assert!(long["left"].as_u64().unwrap() > 100 * 86_400 - 60, "{long}");
        assert_eq!(long["reason"], "5 hits in 10m");
        let old = match from {
            "ipset" => sh("ipset list f2bp-web; ipset list f2bp-web-n"),
            _ => sh("nft list table inet f2b-pipe"),
        };
        assert!(
            !old.contains("192.0.2.7") && !old.contains("198.51.100"),
            "{old}"
        );
    }
}

#[test]
#[ignore = "needs root and a network namespace"]
fn another_ipv6_prefix_takes_the_bans_along() {
    for backend in BOTH {
        let host = Host::web(backend);
        let old = SetRef::new("f2bp-", "web", f2b_pipe::act::Kind::Ip6, 64);
        let new = SetRef::new("f2bp-", "web", f2b_pipe::act::Kind::Ip6, 56);
        let mut firewall = host.firewall();
        assert_eq!(firewall.ensure(&old), Ok(firewall::Ensured::Made));
        let bans: Vec<Put> = (0..1000)
            .map(|n: u32| Put {
                who: target(&format!("2001:db8:{n:x}:100::")),
                ban_for: timed(600),
                reason: "why".into(),
            })
            .collect();
        firewall.add_many(&old, &bans).unwrap();
        assert_eq!(firewall.ensure(&new), Ok(firewall::Ensured::Outdated));
        firewall.migrate(&new, "f2bp-").unwrap();
        assert_eq!(firewall.ensure(&new), Ok(firewall::Ensured::There));
        assert_eq!(firewall.prefix_in("f2bp-web6"), Ok(Some(56)));
        let within = target("2001:db8:0:100::");
        assert_eq!(firewall.test(&new, within), Ok(true));
        let members = host.members("f2bp-web6");
        assert_eq!(members.len(), 1000);
        assert!(members.iter().all(|m| m.comment == "why"));
        assert!(members.iter().all(|m| m.left.is_some_and(|l| l > 590)));
    }
}

#[test]
#[ignore = "needs root and a network namespace"]
fn a_hundred_thousand_bans_are_lost_and_back() {
    for (backend, wipe) in [
        ("ipset", "nft flush ruleset; ipset destroy"),
        ("nftables", "nft flush ruleset"),
    ] {
        let host = Host::web(backend);
        let (_, web) = jails(&host.config).find(|(_, j)| j.name == "web").unwrap();
        let set = SetRef::one("f2bp-", web, f2b_pipe::act::Kind::Ip4);
        let mut firewall = host.firewall();
        assert_eq!(firewall.ensure(&set), Ok(firewall::Ensured::Made));
        let bans: Vec<Put> = (0..100_000)
            .map(|n| Put {
                who: Target::Client(Client::new(IpAddr::V4(Ipv4Addr::from_bits(
                    0x0a00_0000 + n,
                )))),
                ban_for: timed(3600 + n),
                reason: format!("{n} hits"),
            })
            .collect();
        let begun = Instant::now();
        firewall.add_many(&set, &bans).unwrap();
        eprintln!("{backend}: put in within {:?}", begun.elapsed());
        let begun = Instant::now();
        assert_eq!(host.members("f2bp-web").len(), 100_000);
        eprintln!("{backend}: listed within {:?}", begun.elapsed());
        let keeper = host.keeper();
        wait("learnt", || keeper.health().bans == 100_000);
        sh(wipe);
        wait("lost", || keeper.health().replaced > 0);
        wait("back", || host.members("f2bp-web").len() == 100_000);
        let members = host.members("f2bp-web");
        let last = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + 99_999));
        let last = members.iter().find(|m| m.addr == last).unwrap();
        assert!(
            last.left
                .is_some_and(|left| left > 103_500 && left <= 103_600),
            "{last:?}"
        );
        assert_eq!(host.run("unban --all").1, "100000\n");
        assert_eq!(host.members("f2bp-web").len(), 0);
    }
}

/// `f2b-pipe watch`, for as long as it is held.
struct Watch(std::process::Child);

impl Watch {
    fn start(host: &Host) -> Self {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(host.dir.join("watch.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_f2b-pipe"))
            .arg("watch")
            .arg("--config")
            .arg(host.dir.join("f2b-pipe.toml"))
            .arg("--runtime-dir")
            .arg(&host.dir)
            .stdin(std::process::Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// As when the power fails.
    fn killed(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What a reboot leaves of the kernel's sets and rules.
const REBOOT: &str = "nft flush ruleset; ipset destroy";

#[test]
#[ignore = "needs root and a network namespace"]
fn bans_outlive_a_reboot_and_unbans_too() {
    for backend in BOTH {
        let host = Host::web(backend);
        let ledger = host.dir.join("f2b-pipe.sqlite3");
        let standing = || {
            let open = rusqlite::Connection::open(&ledger).ok()?;
            let many = "SELECT count(*) FROM bans WHERE ended IS NULL";
            open.query_row(many, [], |row| row.get::<_, i64>(0)).ok()
        };
        let watch = Watch::start(&host);
        wait("sets", || {
            !host.firewall().names("f2bp-").unwrap().is_empty()
        });
        // As a process of httpd's does it, and by hand.
        let mut act = Act::new(&host.config);
        for (who, ban_for) in [
            ("192.0.2.7", timed(600)),
            ("192.0.2.8", BanFor::Forever),
            ("192.0.2.9", timed(100 * 86_400)),
            ("192.0.2.10", timed(1)),
            ("2001:db8::7", timed(600)),
        ] {
            assert_ne!(
                act.ban(&host.ban("web", who, ban_for), 0),
                Ok(Banned::Already)
            );
        }
        assert_eq!(
            host.run("ban 198.51.100.0/24 198.51.100.66 198.51.100.67")
                .0,
            0
        );
        let noted = Instant::now();
        while standing() != Some(7) {
            assert!(
                noted.elapsed() < Duration::from_secs(25),
                "{:?}",
                standing()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(host.run("unban 198.51.100.67").1, "1\n");
        wait("unban noted", || standing() == Some(6));
        watch.killed();
        // Nobody runs who could be told.
        assert_eq!(host.run("unban 198.51.100.66").1, "1\n");
        sh(REBOOT);
        assert!(host.firewall().names("f2bp-").unwrap().is_empty());

        let _watch = Watch::start(&host);
        wait("in force again", || host.members("f2bp-web").len() == 3);
        let left = |who: &str| {
            let (_, shown, _) = host.run("banned --json");
            let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
            let rows = shown["banned"].as_array().unwrap().clone();
            let row = rows.into_iter().find(|row| row["ip"] == who);
            row.map(|row| row["left"].clone())
        };
        let within = |who: &str, most: i64| {
            let left = left(who).and_then(|left| left.as_i64()).unwrap();
            assert!(
                (most - 40..=most + 2).contains(&left),
                "{backend} {who}: {left}"
            );
        };
        within("192.0.2.7", 600);
        within("192.0.2.9", 100 * 86_400);
        within("2001:db8::/64", 600);
        within("198.51.100.0/24", 600);
        assert_eq!(left("192.0.2.8"), Some(serde_json::Value::Null));
        assert_eq!(left("192.0.2.10"), None);
        assert_eq!(left("198.51.100.66"), None);
        assert_eq!(left("198.51.100.67"), None);
        // What is known is not noted anew.
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(standing(), Some(5));
        let open = rusqlite::Connection::open(&ledger).unwrap();
        let all: i64 = open
            .query_row("SELECT count(*) FROM bans", [], |row| row.get(0))
            .unwrap();
        assert!(all <= 8, "{all}");
    }
}

#[test]
#[ignore = "needs root and a network namespace"]
fn a_hundred_thousand_bans_outlive_a_reboot() {
    for backend in BOTH {
        let host = Host::new(
            backend,
            "[jail.web]\nstatus = [404]\n\
             [jail.sshd]\nlogpath = ['/nonexistent/auth.log']\nfailregex = ['bad <HOST>']\nbantime = '10d'\n\
             bantime_increment = true\nbantime_maxtime = '20d'\n",
        );
        // Makes the ledger.
        let watch = Watch::start(&host);
        let ledger = host.dir.join("f2b-pipe.sqlite3");
        let made = || {
            let open = rusqlite::Connection::open(&ledger).ok()?;
            open.query_row("SELECT count(*) FROM bans", [], |row| row.get::<_, i64>(0))
                .ok()
        };
        wait("ledger", || ledger.exists() && made() == Some(0));
        wait("rules", || {
            !host.firewall().names("f2bp-").unwrap().is_empty()
        });
        watch.killed();
        sh(REBOOT);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        let mut open = rusqlite::Connection::open(&ledger).unwrap();
        let all = open.transaction().unwrap();
        for n in 0..100_000_u32 {
            let jail = if n % 2 == 0 { "web" } else { "sshd" };
            let who = Ipv4Addr::from_bits(0x0b00_0000 + n).to_string();
            all.execute(
                "INSERT INTO bans (jail, key, start, bantime, number, count, failures, lines)
                 VALUES (?1, ?2, ?3, 864000, 3, 5, 5, '')",
                rusqlite::params![jail, who, now - 3600.0],
            )
            .unwrap();
            if n % 2 == 1 {
                all.execute(
                    "INSERT INTO bad (jail, key, last, bantime, count) VALUES (?1, ?2, ?3, 864000, 3)",
                    rusqlite::params![jail, who, now - 3600.0],
                )
                .unwrap();
            }
        }
        all.commit().unwrap();
        drop(open);
        let begun = Instant::now();
        let _watch = Watch::start(&host);
        let log = || std::fs::read_to_string(host.dir.join("watch.log")).unwrap();
        let said = || log().contains("100000 bans from before the restart");
        while !said() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
        eprintln!(
            "{backend}: in force again {:?} after the start",
            begun.elapsed()
        );
        assert_eq!(host.members("f2bp-web").len(), 50_000);
        assert_eq!(host.members("f2bp-sshd").len(), 50_000);
        let left: Vec<u32> = host
            .members("f2bp-sshd")
            .iter()
            .map(|m| m.left.unwrap())
            .collect();
        let due = 864_000 - 3600;
        assert!(
            left.iter().all(|left| (due - 40..=due).contains(left)),
            "{:?}",
            &left[..3]
        );
    }
}
