//! `replay` as a script sees it: what is decided on a log, when, and until when.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::let_underscore_must_use,
    reason = "a test that cannot go on should stop"
)]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A directory that goes when the test does.
struct Dir(std::path::PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("f2b-replay-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// One jail that counts every 404, three in ten seconds, bans for a minute; the shipped ones are off.
fn conf(more: &str) -> String {
    let mut text = String::new();
    for jail in f2b_pipe::config::Config::default().jails {
        text += &format!("[jail.{}]\nenabled = false\n", jail.name);
    }
    text + &format!(
        "[jail.missing]\nstatus = 404\nmaxretry = 3\nfindtime = \"10s\"\nbantime = \"1m\"\n{more}\n[fail2ban]\nconfig = ''\n"
    )
}

fn replay(args: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_f2b-pipe"))
        .arg("replay")
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

/// 1480000000 is 24 November 2016, 15:06:40 UTC.
const START: i64 = 1_480_000_000;

/// A 404 of `ip`, `at` seconds after [`START`].
fn line(at: i64, ip: &str) -> String {
    let time = chrono::DateTime::from_timestamp(START + at, 0).unwrap();
    let time = time.format("%d/%b/%Y:%H:%M:%S +0000");
    format!("{ip} - - [{time}] \"GET /{at} HTTP/1.1\" 404 1 \"-\" \"-\"\n")
}

fn log(lines: &[(i64, &str)]) -> String {
    lines.iter().map(|(at, ip)| line(*at, ip)).collect()
}

/// `time jail ip action until hits`, times relative to [`START`].
fn decisions(more: &str, text: &str) -> Vec<String> {
    let dir = Dir::new(&format!("{:?}", std::thread::current().id()));
    let conf = dir.file("c.toml", conf(more));
    let out = replay(&["--json", "--config", &conf, "-"], text.as_bytes());
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.is_empty(), "{said}");
    let relative = |value: &Value| {
        value
            .as_f64()
            .map_or("-".to_owned(), |t| (t - START as f64).to_string())
    };
    String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let v: Value = serde_json::from_str(line).unwrap();
            let word = |key: &str| v[key].as_str().unwrap().to_owned();
            format!(
                "{} {} {} {} {} {}",
                relative(&v["time"]),
                word("jail"),
                word("ip"),
                word("action"),
                relative(&v["until"]),
                v["hits"]
            )
        })
        .collect()
}

const A: &str = "192.0.2.7";
const B: &str = "192.0.2.8";

#[test]
fn an_object_has_the_shape_that_scripts_rely_on() {
    let dir = Dir::new("shape");
    let conf = dir.file("c.toml", conf(""));
    let out = replay(
        &["--json", "--config", &conf, "-"],
        log(&[(0, A), (0, A), (0, A)]).as_bytes(),
    );
    assert_eq!(
        String::from_utf8(out.stdout).unwrap(),
        "{\"time\":1480000000.0,\"jail\":\"missing\",\"ip\":\"192.0.2.7\",\"action\":\"ban\",\"until\":1480000060.0,\"hits\":3}\n"
    );
}

#[test]
fn a_hit_exactly_findtime_old_still_counts_and_an_older_one_does_not() {
    assert_eq!(
        decisions("", &log(&[(0, A), (5, A), (10, A)])),
        ["10 missing 192.0.2.7 ban 70 3"]
    );
    assert!(decisions("", &log(&[(0, A), (5, A), (11, A)])).is_empty());
}

#[test]
fn a_standing_ban_is_prolonged_if_its_end_moves_and_ends_in_its_place_in_time() {
    let lines = [
        (0, A),
        (0, A),
        (0, A), // ban until 60
        (0, A),
        (0, A),
        (0, A), // the end does not move
        (1, B),
        (20, A),
        (21, A),
        (22, A), // until 82
        (82, B), // not yet past it
        (83, B),
        (90, A),
        (90, A),
        (90, A),
    ];
    assert_eq!(
        decisions("", &log(&lines)),
        [
            "0 missing 192.0.2.7 ban 60 3",
            "22 missing 192.0.2.7 prolong 82 3",
            "82 missing 192.0.2.7 unban 82 0",
            "90 missing 192.0.2.7 ban 150 3",
        ]
    );
}

#[test]
fn at_the_very_end_of_his_ban_somebody_is_still_banned() {
    let lines = [(0, A), (0, A), (0, A), (60, A), (60, A), (60, A)];
    assert_eq!(
        decisions("", &log(&lines)),
        [
            "0 missing 192.0.2.7 ban 60 3",
            "60 missing 192.0.2.7 prolong 120 3",
        ]
    );
}

#[test]
fn the_clock_is_the_latest_time_so_far() {
    let lines = [(30, B), (25, A), (29, A), (28, A)];
    let told = decisions("", &log(&lines));
    assert!(told[0].starts_with("30 missing 192.0.2.7 ban "), "{told:?}");
}

#[test]
fn ipv6_is_told_as_its_set_lists_it_and_for_ever_is_null() {
    let lines = [
        (0, "2001:db8:1:2::a"),
        (0, "2001:db8:1:2::b"),
        (0, "2001:db8:1:2:3::"),
    ];
    assert_eq!(
        decisions("", &log(&lines)),
        ["0 missing 2001:db8:1:2:: ban 60 3"]
    );
    let forever = "[jail.other]\nstatus = 404\nmaxretry = 3\nbantime = -1";
    assert_eq!(
        decisions(forever, &log(&[(0, A), (0, A), (0, A), (900, A)])),
        [
            "0 missing 192.0.2.7 ban 60 3",
            "0 other 192.0.2.7 ban - 3",
            "60 missing 192.0.2.7 unban 60 0",
        ]
    );
}

#[test]
fn who_is_ignored_or_only_observed_is_told_to_people_only() {
    let more = "ignoreip = '192.0.2.8'\n[jail.looks]\nmode = 'observe'\nstatus = 404\nmaxretry = 3";
    let lines = [
        (0, A),
        (0, B),
        (0, A),
        (0, B),
        (0, A),
        (0, B),
        (1, "127.0.0.1"),
    ];
    assert_eq!(
        decisions(more, &log(&lines)),
        ["0 missing 192.0.2.7 ban 60 3"]
    );
    let dir = Dir::new("people");
    let conf = dir.file("c.toml", conf(more));
    let out = replay(&["--config", &conf, "-"], log(&lines).as_bytes());
    let text = String::from_utf8(out.stdout).unwrap();
    for (words, times) in [
        (
            vec![
                "2016-11-24 15:06:40  ban ",
                "192.0.2.7",
                "missing",
                "until 2016-11-24 15:07:40",
            ],
            1,
        ),
        (vec!["would ban", "192.0.2.7", "looks"], 1),
        (vec!["would ban", "192.0.2.8", "looks"], 1),
        (vec!["spare", "192.0.2.8", "ignoreip has 192.0.2.8/32"], 1),
        (
            vec!["7 lines, 2016-11-24 15:06:40 to 2016-11-24 15:06:41"],
            1,
        ),
    ] {
        let found = text
            .lines()
            .filter(|line| words.iter().all(|word| line.contains(word)));
        assert_eq!(found.count(), times, "{words:?} in\n{text}");
    }
}

#[test]
fn logs_follow_each_other_and_a_last_line_needs_no_newline() {
    let dir = Dir::new("several");
    let conf = dir.file("c.toml", conf(""));
    let first = dir.file("1.log", log(&[(0, A), (1, A)]).trim_end());
    let second = dir.file("2.log", log(&[(2, A)]).trim_end());
    let out = replay(&["--json", "--config", &conf, &first, &second], b"");
    assert_eq!(String::from_utf8_lossy(&out.stdout).lines().count(), 1);
}

#[test]
fn what_does_not_fit_is_said_with_its_place_and_what_would() {
    let dir = Dir::new("misfit");
    let conf = dir.file("c.toml", conf(""));
    let vhost = dir.file("v.log", format!("www.example:80 {}", line(0, A)));
    let out = replay(&["--config", &conf, &vhost], b"");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(
        text.contains("v.log:1: at column 1 there should be an IP address"),
        "{text}"
    );
    assert!(text.contains("--format vhost_combined would fit"), "{text}");
    let out = replay(&["--json", "--config", &conf, &vhost], b"");
    assert_eq!((out.status.code(), out.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8_lossy(&out.stderr).contains("none of 1 lines fits"));
}

#[test]
fn what_cannot_be_replayed_is_refused_with_what_to_write() {
    let dir = Dir::new("refused");
    let good = dir.file("c.toml", conf(""));
    let bad = dir.file("bad.toml", "[jail.x]\nmaxretri = 3\n");
    let packed = dir.file("a.log.gz", [0x1f, 0x8b, 8, 0]);
    for (args, want) in [
        (vec!["--config", &good, &packed], "a.log.gz: cannot be read"),
        (
            vec!["--config", &good, "/nowhere.log"],
            "/nowhere.log: cannot be read",
        ),
        (
            vec!["--config", &good, "--format", "%h \"%r\" %>s", "-"],
            "%{usec}t",
        ),
        (
            vec!["--config", &good, "--format", "combine", "-"],
            "combined",
        ),
        (vec!["--config", &bad, "-"], "maxretry"),
        (vec!["--config", "/nowhere.toml", "-"], "no such file"),
        (
            vec!["--config", &good, "--config-dir", "/nowhere", "-"],
            "/nowhere: there is no such folder",
        ),
    ] {
        let out = replay(&args, b"");
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(want), "{args:?}: {said}");
    }
}

/// A folder as /etc/fail2ban, with a filter and these jails; DIR in it is the folder itself.
fn fail2ban(dir: &Dir, jails: &str) -> String {
    let folder = dir.0.to_str().unwrap();
    std::fs::create_dir_all(dir.0.join("filter.d")).unwrap();
    dir.file(
        "filter.d/door.conf",
        "[Definition]\nfailregex = ^ door\\[\\d+\\]: no <F-USER>\\S+</F-USER> from <HOST>$\n            ^ door: id <F-ID>\\S+</F-ID>$\n",
    );
    let defaults = "[DEFAULT]\nenabled = true\naction =\nbackend = polling\nmaxretry = 2\nfindtime = 10m\nbantime = 10m\n";
    dir.file(
        "jail.conf",
        format!("{defaults}{}", jails.replace("DIR", folder)),
    );
    folder.to_owned()
}

/// `time jail ip action until hits` with absolute times, and what is said to people.
fn imported(dir: &Dir, jails: &str, args: &[&str], stdin: &str) -> (Vec<String>, String) {
    let folder = fail2ban(dir, jails);
    let conf = dir.file("c.toml", conf(""));
    let first = ["--json", "--config", &conf, "--config-dir", &folder];
    let out = replay(&[&first, args].concat(), stdin.as_bytes());
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(0), "{said}");
    let told = String::from_utf8(out.stdout).unwrap();
    let told = told.lines().map(|line| {
        let v: Value = serde_json::from_str(line).unwrap();
        let word = |key: &str| v[key].as_str().unwrap().to_owned();
        let (time, until) = (v["time"].as_f64().unwrap(), v["until"].as_f64());
        format!(
            "{} {} {} {} {} {}",
            time,
            word("jail"),
            word("ip"),
            word("action"),
            until.map_or("-".to_owned(), |until| until.to_string()),
            v["hits"]
        )
    });
    (told.collect(), said)
}

/// On 24 November, `at` seconds after 15:06:40: without a year, as syslog writes.
fn door(at: i64, text: &str) -> String {
    let time = chrono::DateTime::from_timestamp(START + at, 0).unwrap();
    format!("{} {text}\n", time.format("%b %d %H:%M:%S"))
}

fn refused(at: i64, ip: &str) -> String {
    door(at, &format!("door[7]: no bob from {ip}"))
}

const IN_2016: &[&str] = &["--now", "1480100000"];
const DOOR: &str = "[door]\nfilter = door\nlogpath = DIR/door.log\n";

#[test]
fn imported_jails_judge_the_logs_that_are_theirs_also_rotated_and_packed() {
    let dir = Dir::new("theirs");
    let text = refused(0, A);
    let mut packed = std::process::Command::new("gzip")
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    packed
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let old = dir.file("door.log.2.gz", packed.wait_with_output().unwrap().stdout);
    let log = dir.file("door.log", refused(5, A) + &refused(700, B));
    let other = dir.file("other.log", refused(701, B));
    let (told, _) = imported(&dir, DOOR, &[IN_2016, &[&old, &log, &other]].concat(), "");
    assert_eq!(
        told,
        [
            "1480000005 door 192.0.2.7 ban 1480000605 2",
            "1480000605 door 192.0.2.7 unban 1480000605 0",
        ],
        "other.log is nobody's"
    );
    let (told, _) = imported(&dir, DOOR, &[IN_2016, &[&other, &other]].concat(), "");
    assert_eq!(
        told,
        ["1480000701 door 192.0.2.8 ban 1480001301 2"],
        "a copy is everybody's"
    );
    let (told, _) = imported(
        &dir,
        DOOR,
        &[IN_2016, &["-"]].concat(),
        &(text + &refused(5, A)),
    );
    assert_eq!(
        told,
        ["1480000005 door 192.0.2.7 ban 1480000605 2"],
        "so is stdin"
    );
}

#[test]
fn decisions_of_all_kinds_of_jails_stand_in_one_order_of_time() {
    let dir = Dir::new("merged");
    let text = line(0, A)
        + &line(0, A)
        + &line(0, A) // until 60
        + &refused(1, B)
        + &refused(2, B) // until 602
        + &line(70, B)
        + &line(71, B)
        + &line(72, B) // until 132
        + &refused(700, A);
    let (told, _) = imported(&dir, DOOR, &[IN_2016, &["-"]].concat(), &text);
    assert_eq!(
        told,
        [
            "1480000000 missing 192.0.2.7 ban 1480000060 3",
            "1480000002 door 192.0.2.8 ban 1480000602 2",
            "1480000060 missing 192.0.2.7 unban 1480000060 0",
            "1480000072 missing 192.0.2.8 ban 1480000132 3",
            "1480000132 missing 192.0.2.8 unban 1480000132 0",
            "1480000602 door 192.0.2.8 unban 1480000602 0",
        ]
    );
}

#[test]
fn recidive_counts_the_bans_of_all_other_jails() {
    let dir = Dir::new("recidive");
    dir.file("recidive.log", "");
    std::fs::create_dir_all(dir.0.join("filter.d")).unwrap();
    dir.file(
        "filter.d/recidive.conf",
        "[Definition]\nfailregex = Ban <HOST>\n",
    );
    let jails =
        format!("{DOOR}[recidive]\nfilter = recidive\nlogpath = DIR/recidive.log\nbantime = -1\n");
    let text = refused(0, A) + &refused(1, A) + &line(2, A) + &line(2, A) + &line(2, A);
    let (told, _) = imported(&dir, &jails, &[IN_2016, &["-"]].concat(), &text);
    assert_eq!(
        told,
        [
            "1480000001 door 192.0.2.7 ban 1480000601 2",
            "1480000002 missing 192.0.2.7 ban 1480000062 3",
            "1480000002 recidive 192.0.2.7 ban - 2",
        ]
    );
}

#[test]
fn networks_texts_and_names_are_told_as_they_are_counted() {
    let dir = Dir::new("keys");
    let text = refused(0, "2001:db8:1:2::a")
        + &refused(0, "2001:db8:1:2::b")
        + &refused(1, "localhost.example")
        + &refused(1, "localhost.example")
        + &door(2, "door: id session-7")
        + &door(2, "door: id session-7");
    let (told, said) = imported(&dir, DOOR, &[IN_2016, &["-"]].concat(), &text);
    assert_eq!(
        told,
        [
            "1480000000 door 2001:db8:1:2:: ban 1480000600 2",
            "1480000002 door session-7 ban 1480000602 2",
        ]
    );
    assert!(said.contains("2 failures are of host names"), "{said}");
}

#[test]
fn what_comes_before_any_date_counts_for_nobody_and_dates_may_come_with_the_lines() {
    let dir = Dir::new("dateless");
    let undated = format!(" door[7]: no bob from {A}\n");
    let text = undated.clone() + &undated + &refused(0, B) + &undated + &undated;
    let (told, said) = imported(&dir, DOOR, &[IN_2016, &["-"]].concat(), &text);
    assert_eq!(told, ["1480000000 door 192.0.2.7 ban 1480000600 2"]);
    assert!(said.contains("2 failures came before any line"), "{said}");
    let stamped = format!("1480000000.5\t{undated}1480000002\t{undated}1480000603.25\t x\n");
    let (told, _) = imported(&dir, DOOR, &["--stamped", "-"], &stamped);
    assert_eq!(
        told,
        [
            "1480000002 door 192.0.2.7 ban 1480000602 2",
            "1480000602 door 192.0.2.7 unban 1480000602 0",
        ]
    );
}

#[test]
fn one_pattern_that_reads_another_date_does_not_move_the_clock() {
    let dir = Dir::new("odd");
    let odd = "[odd]\nfilter =\nfailregex = ^never <HOST>\ndatepattern = id {EPOCH}\nlogpath = DIR/door.log\n";
    let more = DOOR.replace("[door]", "[more]");
    let text = door(0, "door: id 1900000000") + &refused(1, A) + &refused(2, A);
    let jails = format!("{DOOR}{more}{odd}");
    let (told, _) = imported(&dir, &jails, &[IN_2016, &["-"]].concat(), &text);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("1480000002 door 192.0.2.7 ban "),
        "{told:?}"
    );
}

#[test]
fn a_jail_in_error_is_said_and_the_others_are_replayed() {
    let dir = Dir::new("broken");
    let jails = format!("{DOOR}[bad]\nfilter = nowhere\nlogpath = DIR/door.log\n");
    let text = refused(0, A) + &refused(1, A);
    let (told, said) = imported(&dir, &jails, &[IN_2016, &["-"]].concat(), &text);
    assert_eq!(told.len(), 1);
    assert!(said.contains("nowhere"), "{said}");
}
