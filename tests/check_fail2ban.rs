//! `f2b-pipe check` on folders like /etc/fail2ban: the jails it lists beside what fail2ban's own client would tell its
//! server, and what it says of jails that cannot run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// A folder with f2b-pipe.toml and fail2ban's configuration in `fail2ban`; gone when dropped.
struct Host(PathBuf);

impl Host {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("f2b-check-jails-{}-{name}", std::process::id()));
        fs::create_dir_all(dir.join("fail2ban")).unwrap();
        let host = Self(dir);
        host.with("f2b-pipe.toml", "[fail2ban]\nconfig = \"\"\n")
    }

    /// With the installed configuration.
    fn stock(name: &str) -> Self {
        let host = Self::new(name);
        let copied = Command::new("cp")
            .args(["-r", "/etc/fail2ban/."])
            .arg(host.0.join("fail2ban"))
            .status();
        assert!(copied.unwrap().success());
        host
    }

    /// `DIR` in `text` is this folder.
    fn with(self, file: &str, text: &str) -> Self {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text.replace("DIR", &self.0.display().to_string())).unwrap();
        self
    }

    fn check(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_f2b-pipe"))
            .arg("check")
            .arg("--config")
            .arg(self.0.join("f2b-pipe.toml"))
            .arg("--runtime-dir")
            .arg(&self.0)
            .args(args)
            .output()
            .unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.check(&[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
    }

    /// With the folder's jails.
    fn imported(&self) -> Value {
        self.json(&["--config-dir", self.0.join("fail2ban").to_str().unwrap()])
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn list<'v>(json: &'v Value, key: &str) -> &'v Vec<Value> {
    json[key].as_array().unwrap()
}

fn jail<'v>(json: &'v Value, name: &str) -> &'v Value {
    let found = list(json, "jails").iter().find(|jail| jail["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is not in {json}"))
}

/// One finding's words, of the area of jails.
fn finding(json: &Value, words: &[&str]) -> bool {
    list(json, "findings").iter().any(|finding| {
        let text = finding.to_string();
        finding["area"] == "jails" && words.iter().all(|word| text.contains(word))
    })
}

/// A number as JSON has it, whether it has a point or not.
fn same(ours: &Value, theirs: &Value) -> bool {
    ours == theirs || (ours.is_number() && ours.as_f64() == theirs.as_f64())
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn stock_jails_are_listed_as_fail2ban_would_run_them() {
    let variants = [
        ("stock", "[DEFAULT]\nenabled = true\n"),
        (
            "changed",
            "[DEFAULT]\nenabled = true\nmode = aggressive\nbantime = 1d 12h\nfindtime = 90\nmaxretry = 7\nport = 1,2 ssh\n\
             banaction = nftables\n[sshd]\nport = ssh, 2222\nbantime = -1\nlogpath = /a/*.log tail\n /b.log head\n /c.log\n",
        ),
        (
            "journal",
            "[DEFAULT]\nenabled = true\nbackend = systemd\nbantime.increment = true\nfindtime = 1.5\n",
        ),
    ];
    let mut compared = 0;
    for (name, local) in variants {
        let host = Host::stock(name).with("fail2ban/jail.local", local);
        let ours = host.imported();
        let oracle = Command::new("python3")
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/oracle/fail2ban_reader.py"
            ))
            .arg(host.0.join("fail2ban"))
            .output()
            .unwrap();
        let theirs: Value = serde_json::from_slice(&oracle.stdout).unwrap();
        let theirs = list(&theirs[0], "jails");
        let imported = list(&ours, "jails")
            .iter()
            .filter(|jail| jail["origin"] == "fail2ban");
        assert_eq!(imported.count(), theirs.len());
        assert!(
            finding(&ours, &["asterisk", "of tcp, udp"]),
            "an action for each protocol"
        );
        for pair in theirs {
            let (name, theirs) = (pair[0].as_str().unwrap(), &pair[1]);
            let ours = jail(&ours, name);
            let paths: Vec<&Value> = list(theirs, "logpath").iter().map(|log| &log[0]).collect();
            // Ports are known to fail2ban as words of its actions only: all of those that close any.
            let mut port: Vec<&str> = Vec::new();
            for action in list(theirs, "actions") {
                for word in action["told"]["port"]
                    .as_str()
                    .unwrap_or("")
                    .split([',', ' '])
                {
                    if !word.is_empty() && !port.contains(&word) {
                        port.push(word);
                    }
                }
            }
            assert!(!port.is_empty(), "{name}");
            let wanted = [
                ("failregex", json!(list(theirs, "failregex").len())),
                ("logpath", json!(paths)),
                ("maxretry", theirs["maxretry"].clone()),
                ("findtime", theirs["findtime"].clone()),
                ("bantime", theirs["bantime"].clone()),
                ("port", json!(port)),
            ];
            for (key, wanted) in wanted {
                assert!(
                    same(&ours[key], &wanted),
                    "{name}: {key}: ours {}, theirs {wanted}",
                    ours[key]
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 1000, "{compared} values equal");
}

#[test]
fn jails_of_both_origins_are_listed_whether_their_logs_exist_or_not() {
    let host = Host::new("both")
        .with(
            "fail2ban/jail.conf",
            "[DEFAULT]\nfindtime = 90\nbantime = 1h\nport = 0:65535\n[one]\nenabled = true\nfilter = f[x=1]\n\
             logpath = DIR/nowhere/*.log tail\n /b.log head\nport = 25,smtp  465\nmaxretry = 4\naction = a\n[off]\nfilter = f\n",
        )
        .with("fail2ban/action.d/a.conf", "[Definition]\nactionban = true <ip>\n")
        .with("fail2ban/filter.d/f.conf", "[Definition]\nfailregex = ^a <HOST>\n            ^b <HOST>\n")
        .with("filter.d/own.conf", "[Definition]\nfailregex = ^c <HOST>\n")
        .with(
            "f2b-pipe.toml",
            "[fail2ban]\nconfig = \"DIR/fail2ban\"\n[jail.two]\nfilter = \"own\"\nlogpath = [\"/x/*.log\", \"/y.log tail\"]\n\
             port = [\"ssh\", \"6000:6010\"]\nbantime = -1\nfindtime = \"1.5s\"\n[jail.three]\nfailregex = '^d <HOST>'\n\
             logpath = \"journal\"\n[jail.again]\nfilter = \"recidive\"\nport = \"all\"\n",
        );
    let json = host.json(&[]);
    assert_eq!(
        *jail(&json, "one"),
        json!({"name": "one", "origin": "fail2ban", "filter": "f", "failregex": 2,
               "logpath": [format!("{}/nowhere/*.log", host.0.display()), "/b.log"], "maxretry": 4, "findtime": 90,
               "bantime": 3600, "port": ["25", "smtp", "465"]})
    );
    assert_eq!(
        *jail(&json, "two"),
        json!({"name": "two", "origin": "f2b-pipe", "filter": "own", "failregex": 1, "logpath": ["/x/*.log", "/y.log"],
               "maxretry": 5, "findtime": 1.5, "bantime": -1, "port": ["ssh", "6000:6010"]})
    );
    let three = jail(&json, "three");
    assert_eq!(
        (&three["filter"], &three["logpath"]),
        (&Value::Null, &json!(["journal"]))
    );
    let again = jail(&json, "again");
    assert_eq!(
        (&again["filter"], &again["failregex"], &again["port"]),
        (&json!("recidive"), &json!(0), &json!(["all"]))
    );
    assert_eq!(jail(&json, "apache-dos")["filter"], Value::Null);
    assert!(
        list(&json, "jails")
            .iter()
            .all(|jail| jail["name"] != "off")
    );
    assert_eq!(list(&json, "broken"), &Vec::<Value>::new());
    assert_eq!(list(&json, "files").len(), 3);
    assert!(finding(
        &json,
        &[
            "one",
            "filter f[x=1], 2 failregex",
            "waits for",
            "runs     a",
            "nothing: none of its actions"
        ]
    ));
    assert!(finding(
        &json,
        &["warn", "jail two has nothing to read yet"]
    ));
    assert!(finding(&json, &["again", "counts bans by the other jails"]));

    // Another folder in the place of that one.
    let json = host.json(&["--config-dir", host.0.join("elsewhere").to_str().unwrap()]);
    assert!(
        list(&json, "jails")
            .iter()
            .all(|jail| jail["origin"] == "f2b-pipe")
    );
    assert_eq!(list(&json, "files").len(), 0);
}

#[test]
fn what_cannot_run_is_named_with_its_line_and_the_others_go_on() {
    let host = Host::new("broken")
        .with(
            "fail2ban/jail.conf",
            "[DEFAULT]\nenabled = true\nlogpath = DIR/x.log\naction = a\n[good]\nfilter = f\nignoreip = host.example.org\n\
             [lost]\nfilter = g\n[odd]\nfilter = f\nfindtime = soon\n[unread]\nfailregex = ^(a <HOST>\n[folder]\nfilter = f\nlogpath = DIR\n",
        )
        .with("fail2ban/action.d/a.conf", "[Definition]\nactionban = true <ip>\n")
        .with("fail2ban/filter.d/f.conf", "[Definition]\nfailregex = ^a <HOST>\n")
        .with("x.log", "");
    let json = host.imported();
    let names: Vec<&Value> = list(&json, "broken").iter().map(|b| &b["jail"]).collect();
    assert_eq!(names, ["lost", "odd"]);
    assert!(finding(
        &json,
        &["fail", "lost", "jail.conf:9", "did you mean f?"]
    ));
    assert!(finding(&json, &["fail", "odd", "jail.conf:12", "findtime"]));
    assert!(finding(
        &json,
        &[
            "fail",
            "jail.conf:13",
            "unread",
            "cannot run",
            "failregex 1"
        ]
    ));
    assert!(finding(&json, &["warn", "jail folder", "is a directory"]));
    assert!(finding(
        &json,
        &["good", "x.log", "the addresses of host.example.org"]
    ));
    assert!(jail(&json, "good")["failregex"] == 1);
    let dir = host.0.join("fail2ban");
    let done = host.check(&["--config-dir", dir.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.contains("FAIL  lost: cannot run: "), "{text}");

    // A mistake in a file of ours is one of usage.
    let host = host.with(
        "f2b-pipe.toml",
        "[jail.x]\nfilter = \"nothing\"\nlogpath = \"/x\"\n",
    );
    assert_eq!(host.check(&[]).status.code(), Some(2));
}

#[test]
fn fail2bans_jail_takes_the_place_of_a_shipped_one_but_not_of_one_that_was_changed() {
    let host = Host::new("shipped")
        .with(
            "fail2ban/jail.conf",
            "[DEFAULT]\nenabled = true\naction = a\nlogpath = DIR/x.log\nfilter = f\n[apache-auth]\n[apache-scan]\n",
        )
        .with("fail2ban/action.d/a.conf", "[Definition]\nactionban = true <ip>\n")
        .with("fail2ban/filter.d/f.conf", "[Definition]\nfailregex = ^a <HOST>\n");
    let origins = |toml: &str| {
        fs::write(host.0.join("f2b-pipe.toml"), toml).unwrap();
        let json = host.imported();
        ["apache-auth", "apache-scan"]
            .map(|name| jail(&json, name)["origin"].as_str().unwrap().to_owned())
    };
    let shipped =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/f2b-pipe.toml")).unwrap();
    assert_eq!(
        origins("[defaults]\nmaxretry = 7\n"),
        ["fail2ban", "fail2ban"]
    );
    assert_eq!(
        origins(&shipped),
        ["fail2ban", "fail2ban"],
        "as it is installed"
    );
    assert_eq!(
        origins("[jail.apache-scan]\nmaxretry = 16\n"),
        ["fail2ban", "f2b-pipe"]
    );
    assert_eq!(
        origins("[jail.apache-scan]\nenabled = false\n"),
        ["fail2ban", "fail2ban"]
    );
}

#[test]
fn status_and_explain_know_them() {
    let host = Host::new("status")
        .with(
            "fail2ban/jail.conf",
            "[DEFAULT]\nenabled = true\naction = a\n[mail]\nfilter = f\nlogpath = DIR/*.log\n[lost]\nfilter = g\n",
        )
        .with("fail2ban/action.d/a.conf", "[Definition]\nactionban = true <ip>\n")
        .with("fail2ban/filter.d/f.conf", "[Definition]\nfailregex = ^a <HOST>\n")
        .with("f2b-pipe.toml", "[fail2ban]\nconfig = \"DIR/fail2ban\"\n")
        .with("filter.d/mail.conf", "[Definition]\nfailregex = ^other <HOST>\n")
        .with("x.log", "");
    let ask = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_f2b-pipe"))
            .args(args)
            .arg("--config")
            .arg(host.0.join("f2b-pipe.toml"))
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let log = host.0.join("x.log").display().to_string();
    let runtime = host.0.display().to_string();
    let (_, text) = ask(&["status", "mail", "--runtime-dir", &runtime]);
    assert!(
        text.contains(&format!("|  `- File list:\t{log}\n")),
        "{text}"
    );
    assert!(text.contains("! lost cannot run: "), "{text}");
    let (_, text) = ask(&["status", "--json", "--runtime-dir", &runtime]);
    let json: Value = serde_json::from_str(&text).unwrap();
    let mail = jail(&json, "mail");
    assert_eq!(
        (&mail["files"], &mail["journal"]),
        (&json!([log]), &Value::Null)
    );
    assert_eq!(jail(&json, "apache-dos").get("files"), None, "as ever");
    let (code, text) = ask(&["status", "lost", "--runtime-dir", &runtime]);
    assert!(
        code == Some(2) && text.contains("did you mean f?"),
        "{text}"
    );

    // `test` asks the jail, and not the filter of the same name that comes with f2b-pipe.
    let (code, text) = ask(&["test", "a 192.0.2.7", "mail"]);
    assert!(
        code == Some(0) && text.contains("Use        failregex jail : mail"),
        "{text}"
    );
    // A jail of fail2ban's that is broken is no reason not to explain a line of httpd's.
    let line = "192.0.2.7 - - [02/Mar/2026:08:00:00 +0000] \"GET / HTTP/1.1\" 200 1 \"-\" \"-\"";
    let (code, text) = ask(&["explain", line]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains(
            "  mail                  no: failregex 1 gets to column 1 and there wants a\n"
        ),
        "{text}"
    );
}

#[test]
fn a_host_without_fail2ban_hears_nothing_of_it() {
    let host = Host::new("none").with("f2b-pipe.toml", "[fail2ban]\nconfig = \"DIR/nowhere\"\n");
    let json = host.json(&[]);
    assert!(!finding(&json, &[]), "{json}");
    let host = Host::new("empty").with("f2b-pipe.toml", "[fail2ban]\nconfig = \"DIR/fail2ban\"\n");
    assert!(!finding(&host.json(&[]), &[]));
    assert!(Path::new(&host.0).is_dir());
}

#[test]
fn a_ban_of_a_thousand_years_is_one() {
    let host = Host::new("years")
        .with(
            "fail2ban/jail.conf",
            "[long]\nenabled = true\nfilter = f\nlogpath = DIR/log\nport = ssh\nbantime = 1000y\naction =\n",
        )
        .with("fail2ban/filter.d/f.conf", "[Definition]\nfailregex = x <HOST>\n");
    let ours = host.imported();
    assert_eq!(
        jail(&ours, "long")["bantime"].as_f64(),
        Some(31_557_600_000.0)
    );
}
