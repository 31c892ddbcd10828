//! `tune` as people, scripts and browsers see it, and what its advice is worth on a log with known attackers in it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::let_underscore_must_use,
    reason = "a test that cannot go on should stop"
)]

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

#[path = "bench/generate.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "written for the benchmark, which uses all of it"
)]
mod generate;

use generate::{Format, Spread, Traffic};

/// A directory that goes when the test does.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("f2b-tune-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        std::fs::write(self.0.join(name), text).unwrap();
        self.path(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// The shipped jails, and nothing of this host's.
const CONF: &str = "[fail2ban]\nconfig = ''\n";

fn tune(args: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_f2b-pipe"))
        .arg("tune")
        .args(args)
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that ends before it has read all is a test's own business.
    child.stdin.take().unwrap().write_all(stdin).ok();
    child.wait_with_output().unwrap()
}

fn json(conf: &str, logs: &[&str], stdin: &[u8]) -> Value {
    let out = tune(&[&["--json", "--config", conf], logs].concat(), stdin);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.is_empty(), "{said}");
    serde_json::from_slice(&out.stdout).unwrap()
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn jail<'v>(told: &'v Value, name: &str) -> &'v Value {
    let jails = told["jails"].as_array().unwrap();
    jails.iter().find(|jail| jail["name"] == name).unwrap()
}

const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// One line, so many seconds after 2 March 2026.
fn line(second: u64, ip: &str, user: &str, target: &str, status: u16, agent: &str) -> String {
    let time = format!(
        "02/Mar/2026:{:02}:{:02}:{:02} +0000",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    format!("{ip} - {user} [{time}] \"GET {target} HTTP/1.1\" {status} 9 \"-\" \"{agent}\"\n")
}

/// The second of a line of that day.
fn second(line: &str) -> u64 {
    let clock = line.split_once("2026:").unwrap().1;
    let part = |at: usize| clock[at..at + 2].parse::<u64>().unwrap();
    part(0) * 3600 + part(3) * 60 + part(6)
}

/// What somebody is in the generated log, as his lines show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Is {
    Ordinary,
    Scanner,
    Guesser,
    Exploit,
    Flood,
}

fn is(line: &str) -> Is {
    let agent = line.rsplit('"').nth(1).unwrap();
    if line.contains("\" 401 ") {
        Is::Guesser
    } else if agent.starts_with("() {")
        || agent.starts_with("${jndi")
        || agent == "Mozilla/5.0 (compatible)"
    {
        Is::Exploit
    } else if line.contains("GET /search?q=") {
        Is::Flood
    } else if line.contains("\" 404 ")
        && ["-", "python-", "curl/", "Go-http", "Mozilla/5.0 zgrab"]
            .iter()
            .any(|tool| agent.starts_with(tool))
    {
        Is::Scanner
    } else {
        Is::Ordinary
    }
}

/// The generated day's first half hour, in which some of the generator's attackers make only a handful of requests; and
/// as many that are in earnest: 20 of each kind. And who is what.
fn half_hour() -> (String, HashMap<String, Is>) {
    let traffic = Traffic {
        lines: 90_000,
        clients: 6000,
        spread: Spread::Zipf,
        ..Traffic::day(Format::Combined)
    };
    let generated = String::from_utf8(traffic.bytes()).unwrap();
    let mut who = HashMap::new();
    let mut lines: Vec<(u64, String)> = Vec::new();
    for line in generated.lines() {
        let ip = line.split(' ').next().unwrap();
        // A browser's 404 is no scanner's; a scanner has nothing else.
        who.entry(ip.to_owned())
            .and_modify(|known: &mut Is| {
                *known = if *known == is(line) {
                    *known
                } else {
                    Is::Ordinary
                }
            })
            .or_insert(is(line));
        lines.push((second(line), format!("{line}\n")));
    }
    let last = lines.last().unwrap().0;
    for n in 0..20 {
        let from = n * (last - 700) / 20;
        // Both slower and faster than the shipped numbers take for granted.
        let flood = 70 + 20 * n;
        let mut add = |is: Is, third: u8, at: u64, user: &str, target: &str, status: u16| {
            let ip = format!("203.0.{third}.{n}");
            lines.push((at, line(at, &ip, user, target, status, "curl/8.14.1")));
            who.insert(ip, is);
        };
        for i in 0..flood {
            let at = from + i / flood;
            add(Is::Flood, 1, at, "-", &format!("/search?q={i}"), 200);
        }
        for i in 0..60 {
            let at = from + i * (1 + n);
            add(Is::Scanner, 2, at, "-", &format!("/old/{i}"), 404);
        }
        for i in 0..30 {
            let at = from + i * (10 + n);
            add(Is::Guesser, 3, at, "admin", "/private/", 401);
        }
    }
    lines.sort_by_key(|(second, _)| *second);
    (lines.into_iter().map(|(_, line)| line).collect(), who)
}

/// Whom each of these jails bans with these numbers, by `replay`.
fn banned(dir: &Dir, numbers: &[(&str, u64)], log: &str) -> HashSet<(String, String)> {
    let mut conf = CONF.to_owned();
    for (name, maxretry) in numbers {
        conf += &format!("[jail.{name}]\nmaxretry = {maxretry}\nipv6_prefix = 128\n");
    }
    let conf = dir.file("tuned.toml", conf);
    let out = Command::new(env!("CARGO_BIN_EXE_f2b-pipe"))
        .args(["replay", "--json", "--config", &conf, log])
        .output()
        .unwrap();
    assert!(out.status.success());
    let word = |v: &Value| v.as_str().unwrap().to_owned();
    text(&out)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|decision| decision["action"] == "ban")
        .map(|decision| (word(&decision["jail"]), word(&decision["ip"])))
        .collect()
}

#[test]
fn what_it_recommends_catches_the_planted_attackers_and_nobody_else() {
    let dir = Dir::new("planted");
    let conf = dir.file("c.toml", CONF);
    let (text, who) = half_hour();
    let log = dir.file("access.log", &text);
    let told = json(&conf, &[&log], b"");
    // When each asked for what: who tries four things and goes cannot be told from a reader who lost his way.
    let mut asked: HashMap<&str, Vec<(u64, &str)>> = HashMap::new();
    for line in text.lines() {
        let requests = asked.entry(line.split(' ').next().unwrap()).or_default();
        requests.push((second(line), line.split('"').nth(1).unwrap()));
    }
    let most_different = |ip: &str, within: u64| {
        let requests = &asked[ip];
        let window = |(at, (from, _)): (usize, &(u64, &str))| {
            let different: HashSet<&str> = requests[at..]
                .iter()
                .take_while(|(second, _)| second - from <= within)
                .map(|(_, target)| *target)
                .collect();
            different.len()
        };
        requests.iter().enumerate().map(window).max().unwrap()
    };
    let about = [
        ("apache-dos", Is::Flood),
        ("apache-scan", Is::Scanner),
        ("apache-auth", Is::Guesser),
        ("apache-exploit-agent", Is::Exploit),
    ];
    let numbers = about.map(|(name, _)| {
        let recommended = jail(&told, name)["recommended"].as_u64();
        (
            name,
            recommended.unwrap_or_else(|| panic!("{name}: {told}")),
        )
    });
    let banned = banned(&dir, &numbers, &log);
    let is_banned = |name: &str, ip: &str| banned.contains(&(name.to_owned(), ip.to_owned()));
    for ((name, about), (_, maxretry)) in about.into_iter().zip(numbers) {
        let in_earnest = |ip: &str| match about {
            Is::Flood => ip.starts_with("203.0.1."),
            Is::Scanner => most_different(ip, 300) >= 15,
            Is::Guesser => asked[ip].len() >= 10,
            // A third of the generated ones has no agent that gives them away.
            Is::Exploit => gives_itself_away(&text, ip),
            Is::Ordinary => false,
        };
        let attackers: Vec<&String> = who
            .iter()
            .filter(|(ip, is)| **is == about && in_earnest(ip))
            .map(|(ip, _)| ip)
            .collect();
        let caught = attackers.iter().filter(|ip| is_banned(name, ip)).count();
        let many = attackers.len();
        assert!(
            many >= 10 && caught * 100 >= many * 95,
            "{name} = {maxretry}: {caught} of {many}"
        );
        let ordinary = who.iter().filter(|(_, is)| **is == Is::Ordinary);
        let wrongly: Vec<_> = ordinary.filter(|(ip, _)| is_banned(name, ip)).collect();
        assert!(wrongly.is_empty(), "{name} = {maxretry}: {wrongly:?}");
    }
}

fn gives_itself_away(text: &str, ip: &str) -> bool {
    let begin = format!("{ip} ");
    let first = text.lines().find(|line| line.starts_with(&begin)).unwrap();
    first.contains("\"() {") || first.contains("\"${jndi")
}

/// 60 visitors of 3 pages each; one who missed 12 pages; two with 30; half a day.
fn small() -> String {
    let mut text = String::new();
    for n in 0..60 {
        for page in 0..3 {
            text += &line(
                600 * n + page,
                &format!("192.0.2.{n}"),
                "-",
                &format!("/{page}"),
                if page == 0 { 404 } else { 200 },
                BROWSER,
            );
        }
    }
    for page in 0..40 {
        text += &line(
            40_000 + page,
            "192.0.2.99",
            "-",
            &format!("/{page}"),
            if page % 3 == 0 { 404 } else { 200 },
            BROWSER,
        );
    }
    for page in 0..60 {
        let ip = format!("203.0.113.{}", page % 2);
        text += &line(
            43_000 + page,
            &ip,
            "-",
            &format!("/no/{page}"),
            404,
            "curl/8.14.1",
        );
    }
    text
}

#[test]
fn the_object_has_the_shape_that_scripts_rely_on() {
    let dir = Dir::new("shape");
    let conf = dir.file("c.toml", CONF);
    let told = json(&conf, &["--jail", "apache-scan", "-"], small().as_bytes());
    let expected = serde_json::json!({
        "lines": 280, "unparsed": 0, "undated": 0, "from": 1_772_409_600.0, "to": 1_772_452_659.0,
        "clients": 63,
        "kinds": { "ordinary": 61, "search_engines": 0, "authenticated": 0, "attackers": 2 },
        "left_out": 0, "forgotten": 0,
        "remarks": ["The log covers only 11h 57m: who comes at other hours, or once a month, is not in it. Give a week of logs, oldest first."],
        "jails": [{
            "name": "apache-scan", "maxretry": 15, "findtime": 300.0, "distinct": true, "mode": "ban",
            "hits": 134, "spared": 0, "ceiling": 256,
            "kinds": {
                "ordinary": { "clients": 61, "p50": 1, "p90": 1, "p99": 14, "p99.9": 14, "max": 14, "busiest": "192.0.2.99" },
                "search_engines": { "clients": 0, "p50": 0, "p90": 0, "p99": 0, "p99.9": 0, "max": 0, "busiest": null },
                "authenticated": { "clients": 0, "p50": 0, "p90": 0, "p99": 0, "p99.9": 0, "max": 0, "busiest": null },
                "attackers": { "clients": 2, "p50": 30, "p90": 30, "p99": 30, "p99.9": 30, "max": 30, "busiest": "203.0.113.0" },
            },
            "histogram": told["jails"][0]["histogram"],
            "candidates": told["jails"][0]["candidates"],
            "recommended": 30,
            "paste": "[jail.apache-scan]\nmaxretry = 30",
            "why": "15 is near to what clients that are no attackers come to (14); 30 catches 2 of the 2 attackers in its count (15: 2), and none of the 61 others, of whom the busiest came to 14.",
        }],
    });
    assert_eq!(told, expected, "{told:#}");
    let by_kind = |ordinary: u32, attackers: u32| serde_json::json!({ "ordinary": ordinary, "search_engines": 0, "authenticated": 0, "attackers": attackers });
    let bins = &told["jails"][0]["histogram"];
    assert_eq!(
        bins[0],
        serde_json::json!({ "from": 1, "to": 1, "clients": by_kind(60, 0) })
    );
    assert_eq!(
        bins[5],
        serde_json::json!({ "from": 17, "to": 32, "clients": by_kind(0, 2) })
    );
    let candidate = &told["jails"][0]["candidates"][1];
    let expected =
        serde_json::json!({ "maxretry": 8, "banned": 3, "by_kind": by_kind(1, 2), "people": 0 });
    assert_eq!(*candidate, expected);
}

#[test]
fn people_see_tables_a_plot_and_what_to_paste() {
    let dir = Dir::new("people");
    let conf = dir.file("c.toml", CONF);
    let out = tune(
        &["--config", &conf, "--jail", "apache-scan", "-"],
        small().as_bytes(),
    );
    let told = text(&out);
    assert!(out.status.success() && out.stderr.is_empty(), "{told}");
    for row in [
        "280 lines, 2026-03-02 00:00:00 to 2026-03-02 11:57:39, 63 clients: 61 ordinary, 0 search engines, 0 authenticated, 2 attackers",
        "== apache-scan: 15 different values within 5m are a ban",
        "  ordinary             61       1       1      14      14      14  192.0.2.99",
        "            1  ###### 60",
        "      9 to 16  # 1  <- now 15",
        "     17 to 32  xx 2 x  <- take 30",
        "        15       2                    2         0               0              0       0  <- now",
        "        30       2                    2         0               0              0       0  <- take this",
        "\n[jail.apache-scan]\nmaxretry = 30\n",
    ] {
        assert!(told.contains(row), "{row}\n{told}");
    }
    assert!(
        told.lines()
            .all(|line| line.chars().all(|c| !c.is_control()))
    );
}

#[test]
fn the_pasted_lines_are_a_configuration_and_then_nothing_is_to_be_changed() {
    let dir = Dir::new("paste");
    let conf = dir.file("c.toml", CONF);
    let told = json(&conf, &["--jail", "apache-scan", "-"], small().as_bytes());
    let paste = told["jails"][0]["paste"].as_str().unwrap();
    let conf = dir.file("d.toml", format!("{CONF}{paste}\n"));
    let told = json(&conf, &["--jail", "apache-scan", "-"], small().as_bytes());
    assert_eq!(told["jails"][0]["maxretry"], 30);
    assert_eq!(told["jails"][0]["paste"], Value::Null);
}

#[test]
fn the_page_stands_alone() {
    let dir = Dir::new("page");
    let conf = dir.file("c.toml", CONF);
    let page = dir.path("tune.html");
    let out = tune(
        &["--config", &conf, "--html", &page, "-"],
        small().as_bytes(),
    );
    assert!(out.status.success());
    let page = std::fs::read_to_string(page).unwrap();
    let has = |what: &str| page.contains(what);
    assert!(has("<svg") && has("width=device-width") && has("prefers-color-scheme: dark"));
    assert!(has("[jail.apache-scan]\nmaxretry = 30") && has("192.0.2.99"));
    assert!(!has("<script") && !has("http://") && !has("https://") && !has("url("));
    assert!(page.ends_with("</body></html>\n"));
}

#[test]
fn packed_and_rotated_logs_are_read_as_one() {
    let dir = Dir::new("packed");
    let conf = dir.file("c.toml", CONF);
    let text = small();
    let middle = text.len() / 2 + text[text.len() / 2..].find('\n').unwrap() + 1;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&text.as_bytes()[..middle]).unwrap();
    let old = dir.file("access.log.2.gz", packer.finish().unwrap());
    let new = dir.file("access.log.1", &text[middle..]);
    let whole = json(&conf, &["-"], text.as_bytes());
    assert_eq!(json(&conf, &[&old, &new], b""), whole);
}

#[test]
fn a_log_that_cannot_answer_says_so() {
    let dir = Dir::new("cannot");
    let conf = dir.file("c.toml", CONF);
    let why = |text: &str, name: &str, format: &str| {
        let told = json(
            &conf,
            &["--format", format, "--jail", name, "-"],
            text.as_bytes(),
        );
        let jail = jail(&told, name);
        assert_eq!(
            (&jail["recommended"], &jail["paste"]),
            (&Value::Null, &Value::Null)
        );
        jail["why"].as_str().unwrap().to_owned()
    };
    let few: String = small()
        .lines()
        .take(30)
        .map(|line| format!("{line}\n"))
        .collect();
    let short: String = small()
        .lines()
        .take(2)
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(why(&short, "apache-scan", "combined").starts_with("The log is too short: 1 seconds"));
    assert!(why(&few, "apache-scan", "combined").starts_with("The log has too few clients: 10"));
    assert!(why(&small(), "apache-auth", "combined").starts_with("Nothing in this log counts"));
    assert!(why("", "apache-scan", "combined").starts_with("The log is too short"));
}

#[test]
fn what_the_format_lacks_is_named() {
    let dir = Dir::new("lacks");
    let conf = dir.file("c.toml", CONF);
    let out = tune(
        &[
            "--json",
            "--config",
            &conf,
            "--format",
            "common",
            "--jail",
            "apache-exploit-agent",
            "-",
        ],
        b"",
    );
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    let why = told["jails"][0]["why"].as_str().unwrap();
    assert!(
        why.starts_with("This jail needs agent (%{User-Agent}i)"),
        "{why}"
    );
}

#[test]
fn whoever_is_never_banned_is_in_no_table() {
    let dir = Dir::new("spared");
    let conf = dir.file(
        "c.toml",
        format!("{CONF}[defaults]\nignoreip = [\"192.0.2.99\"]\n"),
    );
    let told = json(&conf, &["--jail", "apache-scan", "-"], small().as_bytes());
    let scan = jail(&told, "apache-scan");
    assert_eq!(
        (&scan["spared"], &scan["recommended"]),
        (&Value::from(1), &Value::from(15))
    );
}

#[test]
fn a_log_of_another_format_is_not_so_and_a_wrong_word_is_usage() {
    let dir = Dir::new("words");
    let conf = dir.file("c.toml", CONF);
    let run = |args: &[&str], text: &[u8]| {
        let out = tune(&[&["--config", &conf], args].concat(), text);
        (out.status.code(), text_of(&out))
    };
    let (code, said) = run(&["-"], b"what is this\n");
    assert_eq!(code, Some(1));
    assert!(
        said.contains("1 of 1 lines do not fit the format"),
        "{said}"
    );
    let (code, said) = run(&["--jail", "sshd", "-"], b"");
    assert_eq!(code, Some(2));
    assert!(
        said.contains("no such jail of httpd's lines; there are apache-dos"),
        "{said}"
    );
    let (code, said) = run(&["--format", "%h \\\"%r\\\" %>s", "-"], b"");
    assert_eq!(code, Some(2));
    assert!(said.contains("tune needs %t"), "{said}");
    let (code, said) = run(&["/nowhere/access.log"], b"");
    assert_eq!(code, Some(2));
    assert!(
        said.contains("/nowhere/access.log: cannot be read"),
        "{said}"
    );
}

fn text_of(out: &Output) -> String {
    text(out) + &String::from_utf8_lossy(&out.stderr)
}
