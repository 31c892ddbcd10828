//! `explain` as a newcomer and as a script see it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

const COMBINED: &str = r#"203.0.113.9 - al ice [22/Nov/2026:20:02:28 +0000] "GET /%2e%2e/x?a=%24 HTTP/1.1" 404 - "-" "a\"b""#;

/// Exit code and what was printed.
fn explain(args: &[&str], stdin: &[u8]) -> (Option<i32>, String) {
    let conf = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/f2b-pipe.toml");
    let mut child = Command::new(env!("CARGO_BIN_EXE_f2b-pipe"))
        .args(["explain", "--config", conf])
        .args(args)
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that ends before it has read all is a test's own business.
    child.stdin.take().unwrap().write_all(stdin).ok();
    let out = child.wait_with_output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8(text).unwrap())
}

/// Panics unless each of `lines` is one of the printed ones, blanks aside.
#[track_caller]
fn assert_says(text: &str, lines: &[&str]) {
    let plain = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    for want in lines {
        let found = text.lines().any(|line| plain(line) == plain(want));
        assert!(found, "{want:?} is not in\n{text}");
    }
}

#[test]
fn every_room_has_its_say() {
    let (code, text) = explain(&[COMBINED], b"");
    assert_eq!(code, Some(0), "{text}");
    assert_says(
        &text,
        &[
            "parse fits",
            "client 203.0.113.9",
            "time 2026-11-22 20:02:28 +0000",
            "status 404",
            "user al ice",
            "path /%2e%2e/x",
            "read as /../x",
            "read as a=$",
            r#"read as a"b"#,
            "exempt 203.0.113.9 may be banned",
            "apache-dos counts 1; 100 within 1s are a ban for 600s",
            "apache-auth no: status is 404, not one of 401",
            "apache-scan counts once, for path /../x; 15 different values of path within 300s are a ban for 600s",
            "apache-flood counts 1; 2000 within 10s would be a ban for 600s",
        ],
    );
}

#[test]
fn who_is_never_banned_is_said_with_the_reason() {
    let line = COMBINED
        .replace("203.0.113.9", "127.0.0.1")
        .replace(r#"a\"b"#, "() { :; };");
    let (_, text) = explain(&[&line], b"");
    assert_says(
        &text,
        &[
            "exempt 127.0.0.1 is never banned: loopback address",
            "apache-exploit-agent counts 1: this line alone is a ban for 86400s, but never of this client",
        ],
    );
    let f2b = r#"f2b:1795377748000001:7f 203.0.113.9 203.0.113.1 www.example 200 1 1 "-" "GET / HTTP/1.1" "-" "-" f2b:1795377748000001:7f"#;
    let (_, text) = explain(&["--format", "f2b", f2b], b"");
    assert_says(
        &text,
        &[
            "203.0.113.9 comes through 203.0.113.1, and a packet filter sees only that: a ban would not hold here",
        ],
    );
}

#[test]
fn what_the_format_has_not_is_said_of_the_jails_that_need_it() {
    let line = r#"198.51.100.140 - - [22/Nov/2026:20:02:28 +0000] "GET /old HTTP/1.1" 404 318"#;
    // Its different values are of what no line has.
    let (_, text) = explain(&["--format", "%a %>s %m", "192.0.2.7 404 GET"], b"");
    let scan = text.lines().find(|line| line.contains("apache-scan"));
    let scan = scan.unwrap();
    assert!(
        scan.contains("no: the format has no ") && scan.ends_with("so nothing counts for it"),
        "{text}"
    );
    let (_, text) = explain(&["--format", "common", line], b"");
    assert_says(
        &text,
        &[
            "apache-scan counts once, for path /old; 15 different values of path within 300s would be a ban for 600s",
            "it only observes: the format has no agent (%{User-Agent}i), by which it leaves clients out",
            "apache-exploit-agent no: the format has no agent (%{User-Agent}i), so nothing counts for it",
        ],
    );
}

#[test]
fn a_line_that_does_not_fit_is_cited_with_a_caret_under_the_column() {
    let (code, text) = explain(&[&COMBINED.replace("404", "4\x1b4")], b"");
    assert_eq!(code, Some(1), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let cited = lines
        .iter()
        .position(|line| line.contains(r"4\x1b4"))
        .unwrap();
    let caret = lines[cited + 1].find('^').unwrap();
    assert_eq!(&lines[cited][caret..caret + 6], r"4\x1b4");
    assert!(
        text.contains("at column 82 there should be a status of three digits"),
        "{text}"
    );

    let (_, text) = explain(&[&format!("www.example:80 {COMBINED}")], b"");
    assert_says(&text, &["--format vhost_combined would fit"]);
    let (code, text) = explain(&[""], b"");
    assert_eq!(
        (code, text.contains("column 1 ")),
        (Some(1), true),
        "{text}"
    );
}

#[test]
fn lines_from_stdin_are_one_object_each() {
    let stdin = [
        COMBINED.as_bytes(),
        b"\nnonsense \xff\n",
        COMBINED.as_bytes(),
    ]
    .concat();
    let (code, text) = explain(&["--json", "-"], &stdin);
    assert_eq!(code, Some(1), "{text}");
    let objects: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects.len(), 3);
    assert_eq!(objects[0], objects[2]);
    assert_eq!(objects[0]["client"], "203.0.113.9");
    assert_eq!(objects[0]["format"]["name"], "combined");
    let path = objects[0]["fields"]
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["name"] == "path")
        .unwrap();
    assert_eq!(
        (&path["text"], &path["decoded"]),
        (&"/%2e%2e/x".into(), &"/../x".into())
    );
    let scan = objects[0]["jails"]
        .as_array()
        .unwrap()
        .iter()
        .find(|j| j["name"] == "apache-scan")
        .unwrap();
    assert_eq!(
        *scan,
        serde_json::json!({
            "name": "apache-scan", "mode": "ban", "lacks": null, "counts": true, "weight": 1,
            "distinct": {"of": "path", "value": "/../x"}, "why_not": null, "spared": null,
            "maxretry": 15, "findtime": 300.0, "bantime": 600
        })
    );
    assert_eq!(objects[1]["line"], r"nonsense \xff");
    assert_eq!(
        objects[1]["misfit"],
        serde_json::json!({"column": 1, "wants": "an IP address", "would_fit": null})
    );
}

#[test]
fn error_lines_are_read_and_recognized() {
    let line = "[Sun Nov 22 20:02:28.123456 2026] [auth_basic:error] [pid 12:tid 34] [client 192.0.2.7:4711] AH01617: user a";
    let (code, text) = explain(&["--error-log", line], b"");
    assert_eq!(code, Some(0), "{text}");
    assert_says(&text, &["client 192.0.2.7", "message AH01617: user a"]);
    let (code, text) = explain(&[line], b"");
    assert_eq!(code, Some(1), "{text}");
    assert_says(&text, &["--error-log would fit"]);
}

/// A folder with a jail of fail2ban's, and a configuration that names it; gone when dropped.
struct Fail2ban(std::path::PathBuf);

impl Fail2ban {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("f2b-explain-{}-{name}", std::process::id()));
        std::fs::create_dir_all(dir.join("filter.d")).unwrap();
        let write = |file: &str, text: &str| std::fs::write(dir.join(file), text).unwrap();
        write(
            "jail.conf",
            "[DEFAULT]\nmaxretry = 3\nfindtime = 1h\nbantime = 1d\nignoreip = 192.0.2.99\naction =\nusedns = no\n\
            [gate]\nenabled = true\nfilter = gate\nlogpath = /nowhere/gate.log\n",
        );
        write(
            "filter.d/gate.conf",
            "[Definition]\nprefregex = ^\\s*gate\\[\\d+\\]: <F-CONTENT>.+</F-CONTENT>$\n\
            failregex = ^denied <HOST> for \\d+ reasons$\n\
            ignoreregex = for 7 reasons\ndatepattern = ^%%Y-%%m-%%d %%H:%%M:%%S\n",
        );
        write(
            "f2b-pipe.toml",
            &format!("[fail2ban]\nconfig = '{}'\n", dir.display()),
        );
        Self(dir)
    }

    fn explain(&self, line: &str) -> (Option<i32>, Value, String) {
        let run = |json: &[&str]| {
            let out = Command::new(env!("CARGO_BIN_EXE_f2b-pipe"))
                .args(["explain", line, "--config"])
                .arg(self.0.join("f2b-pipe.toml"))
                .args(json)
                .env("TZ", "UTC")
                .output()
                .unwrap();
            assert!(out.stderr.is_empty(), "{out:?}");
            (out.status.code(), String::from_utf8(out.stdout).unwrap())
        };
        let (code, text) = run(&[]);
        let (same, json) = run(&["--json"]);
        assert_eq!(code, same);
        let json: Value = serde_json::from_str(&json).unwrap();
        (code, json["others"][0].clone(), text)
    }
}

impl Drop for Fail2ban {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn a_jail_of_fail2bans_says_whom_it_counts_or_where_its_filter_stops() {
    let fail2ban = Fail2ban::new("verdict");
    let (code, told, text) =
        fail2ban.explain("2020-03-02 08:00:00 gate[7]: denied 203.0.113.9 for 4 reasons");
    // No line of httpd's, but it counts.
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        told,
        serde_json::json!({
            "name": "gate", "mode": "ban", "counts": true, "id": "203.0.113.9", "host": "203.0.113.9",
            "time": 1_583_136_000.0, "regex": 1, "why_not": null, "stops": null, "spared": null,
            "maxretry": 3, "findtime": 3600.0, "bantime": 86400
        })
    );
    assert_says(
        &text,
        &["gate counts 1 for 203.0.113.9 by failregex 1; 3 within 3600s are a ban for 86400s"],
    );
    let (_, told, _) =
        fail2ban.explain("2020-03-02 08:00:00 gate[7]: denied 192.0.2.99 for 4 reasons");
    assert_eq!(told["spared"], "ignoreip has 192.0.2.99/32");

    let (code, told, text) =
        fail2ban.explain("2020-03-02 08:00:00 gate[7]: denied 203.0.113.9 for four reasons");
    assert_eq!(code, Some(1), "{text}");
    let at = "denied 203.0.113.9 for ".len();
    assert_eq!(
        told["stops"],
        serde_json::json!({
            "expression": "failregex 1", "column": at + 1, "wants": "\\d+",
            "text": "denied 203.0.113.9 for four reasons"
        })
    );
    // The caret stands under what stands there.
    let lines: Vec<&str> = text.lines().collect();
    let is_caret = |line: &&str| line.trim() == "^" && line.len() > 20;
    let caret = lines.iter().rposition(is_caret).unwrap();
    let column = lines[caret].find('^').unwrap();
    assert!(lines[caret - 1][column..].starts_with("four"), "{text}");

    let why = |line: &str| fail2ban.explain(line).1["why_not"].clone();
    assert_eq!(
        why("2020-03-02 08:00:00 door[7]: denied"),
        r"prefregex gets to column 2 and there wants gate\["
    );
    assert_eq!(
        why("2020-03-02 08:00:00 gate[7]: denied 203.0.113.9 for 7 reasons"),
        "ignoreregex 1 fits: no failure"
    );
}

#[test]
fn what_cannot_be_used_is_refused() {
    for (args, want) in [
        (&["--format", "combine", "x"][..], "combined"),
        (&["--format", "%u %h", "x"], "somebody else's address"),
    ] {
        let (code, text) = explain(args, b"");
        assert!(code == Some(2) && text.contains(want), "{text}");
    }
}
