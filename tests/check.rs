//! `f2b-pipe check` on prepared configurations of httpd, one fault each: what it says, where, and what to write.
//!
//! What it says about this host's kernel and clock depends on the host; here only its words about files are judged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use f2b_pipe::parse::format::F2B;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_f2b-pipe");
const COMBINED: &str = r#"%h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\""#;

/// A host's files: httpd.conf, f2b-pipe.toml; gone when dropped.
struct Host(PathBuf);

impl Host {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("f2b-pipe-check-{}-{name}", std::process::id()));
        fs::create_dir_all(dir.join("logs")).unwrap();
        fs::create_dir_all(dir.join("conf.d")).unwrap();
        let host = Self(dir);
        host.write("f2b-pipe.toml", "");
        // This very host's fail2ban is none of a test's business.
        host.write("conf.d/host.toml", "[fail2ban]\nconfig = ''\n");
        host
    }

    fn path(&self, file: &str) -> String {
        self.0.join(file).display().to_string()
    }

    /// `PROGRAM`, `TOML` and `DIR` in `text` are this test's.
    fn write(&self, file: &str, text: &str) {
        let toml = self.path("f2b-pipe.toml");
        let text = text
            .replace("PROGRAM", PROGRAM)
            .replace("TOML", &toml)
            .replace("DIR", &self.0.display().to_string());
        fs::write(self.0.join(file), text).unwrap();
    }

    /// Formats, then `conf`.
    fn httpd(&self, conf: &str) {
        let f2b = F2B.replace('"', "\\\"");
        self.write(
            "httpd.conf",
            &format!(
                "Listen 80\nLogFormat \"{f2b}\" f2b\nLogFormat \"{COMBINED}\" combined\n{conf}"
            ),
        );
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(PROGRAM)
            .arg("check")
            .args([
                "--config",
                &self.path("f2b-pipe.toml"),
                "--httpd-conf",
                &self.path("httpd.conf"),
            ])
            .args(["--runtime-dir", &self.path("")])
            .args(args)
            .output()
            .unwrap()
    }

    fn json(&self) -> Value {
        let output = self.run(&["--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// What is not well with httpd: `level where: text -> write`, the directory left out.
    fn complaints(&self, area: &str) -> Vec<String> {
        let dir = self.path("");
        let json = self.json();
        let findings = json["findings"].as_array().unwrap();
        let text = |v: &Value| v.as_str().unwrap_or("").replace(&dir, "");
        findings
            .iter()
            .filter(|f| f["area"] == area && f["level"] != "ok")
            .map(|f| {
                format!(
                    "{} {}: {} -> {}",
                    text(&f["level"]),
                    text(&f["where"]),
                    text(&f["text"]),
                    text(&f["write"])
                )
            })
            .collect()
    }

    /// Exactly one complaint, which holds all of `words`.
    fn one(&self, words: &[&str]) {
        let complaints = self.complaints("httpd");
        assert_eq!(complaints.len(), 1, "{complaints:#?}");
        for word in words {
            assert!(
                complaints[0].contains(word),
                "{word:?} is not in: {}",
                complaints[0]
            );
        }
    }

    /// One of the complaints holds all of `words`.
    fn some(&self, words: &[&str]) {
        let complaints = self.complaints("httpd");
        let found = complaints
            .iter()
            .any(|complaint| words.iter().all(|word| complaint.contains(word)));
        assert!(found, "{words:?} is not in {complaints:#?}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

const GOOD: &str =
    "CustomLog logs/access.log combined\nGlobalLog \"|PROGRAM --config TOML --format f2b\" f2b\n";

#[test]
fn the_recommended_lines_are_all_well() {
    let host = Host::new("good");
    host.httpd(&format!("{GOOD}<VirtualHost *:80>\nServerName a.example\nCustomLog logs/a.log combined\n</VirtualHost>\n"));
    assert_eq!(host.complaints("httpd"), Vec::<String>::new());
}

#[test]
fn a_jail_that_asks_for_nothing_is_asked_about() {
    let host = Host::new("unasked");
    host.httpd(GOOD);
    host.write(
        "f2b-pipe.toml",
        "[jail.apache-dso]\nmaxretry = 5\n[jail.own]\nstatus = 404\n[jail.apache-flood]\nmode = 'ban'\n",
    );
    let complaints = host.complaints("configuration");
    let [one] = complaints.as_slice() else {
        panic!("{complaints:#?}")
    };
    for words in [
        "warn",
        "apache-dso",
        "every request counts",
        "[jail.apache-dos]",
    ] {
        assert!(one.contains(words), "{one}");
    }
}

#[test]
fn no_pipe_at_all_brings_the_lines_to_paste() {
    let host = Host::new("none");
    host.httpd("CustomLog logs/access.log combined\n");
    host.one(&[
        "fail",
        "httpd.conf",
        "sees no request",
        "GlobalLog \"|/usr/bin/f2b-pipe --format f2b\" f2b",
        "graceful",
    ]);
}

#[test]
fn combined_is_understood_and_what_it_gives_up_is_told() {
    let host = Host::new("combined");
    host.httpd(
        "CustomLog logs/access.log combined\nGlobalLog \"|PROGRAM --config TOML\" combined\n",
    );
    host.one(&[
        "warn",
        "httpd.conf:5",
        "over 4096 bytes can arrive torn",
        "not judged",
        "LogFormat \"f2b:%{usec}t",
    ]);
}

#[test]
fn an_access_log_that_nobody_writes_is_a_failure() {
    let host = Host::new("lost");
    host.httpd("CustomLog \"|PROGRAM --config TOML --format f2b\" f2b\n<VirtualHost *:80>\nServerName a.example\nCustomLog logs/a.log combined\n</VirtualHost>\n");
    host.some(&[
        "fail",
        "httpd.conf:4",
        "access log of the main server is written by nobody",
        "--tee",
    ]);
    host.some(&[
        "warn",
        "requests for a.example never reach f2b-pipe",
        "GlobalLog",
    ]);

    host.httpd("CustomLog \"|PROGRAM --config TOML --format f2b --tee DIR/logs/x\" f2b\n");
    assert_eq!(host.complaints("httpd"), Vec::<String>::new());

    host.httpd("GlobalLog \"|PROGRAM --config TOML --format f2b\" f2b\nCustomLog logs/x combined env=!quiet\n");
    host.some(&["fail", "written by nobody"]);
}

#[test]
fn formats_are_compared_by_what_they_write() {
    let host = Host::new("formats");
    let with = |flag: &str, format: &str| {
        host.httpd(&format!("CustomLog logs/access.log combined\nGlobalLog \"|PROGRAM --config TOML {flag}\" \"{format}\"\n"));
    };
    with("--format f2b", COMBINED);
    host.one(&[
        "fail",
        "192.0.2.7 - - [24/Nov/2016",
        "--format f2b does not fit",
        "write --format combined",
    ]);

    let own = r#"%{%Y/%m/%d:%H:%M:%S}t %h \"%r\" %>s %B"#;
    with("", own);
    host.one(&[
        "fail",
        "2016/11/24:15:06:40 192.0.2.7",
        r#"write --format '%{%Y/%m/%d:%H:%M:%S}t %h \"%r\" %>s %B'"#,
    ]);

    // What it told us to write works.
    with(&format!("--format '{own}'"), own);
    let complaints = host.complaints("httpd");
    assert!(
        complaints.iter().all(|c| c.starts_with("warn")),
        "{complaints:#?}"
    );
    host.some(&["the format has no agent", "apache-exploit-agent"]);

    with("--format '%u %h'", "%u %h");
    host.one(&["fail", "--format: %u is written by the client"]);
    with("--format f2b", "%{X-Client}i %a");
    host.one(&[
        "fail",
        "nobody can be banned by the lines httpd writes here",
        "%{X-Client}i",
    ]);
    with("--format nonsense", COMBINED);
    host.one(&["fail", "not a format I know by name"]);
}

#[test]
fn commands_that_httpd_cannot_start_are_failures() {
    let host = Host::new("commands");
    let with = |command: &str| {
        host.httpd(&format!("CustomLog logs/access.log combined\nGlobalLog \"{command} --config TOML --format f2b\" f2b\n"));
    };
    with("|f2b-pipe");
    host.one(&["fail", "does not search PATH", "/usr/bin/f2b-pipe"]);
    with("|DIR/f2b-pipe");
    host.one(&["fail", "No such file", "AH00104"]);
    host.write("f2b-pipe", "");
    with("|DIR/f2b-pipe");
    host.one(&["fail", "no executable file", "chmod 755"]);
    with("|$PROGRAM");
    host.one(&["warn", "|$ puts a shell between"]);
    with("|PROGRAM --nonsense");
    host.some(&["fail", "would not understand its flags", "--nonsense"]);
}

#[test]
fn another_configuration_is_pointed_out() {
    let host = Host::new("other");
    host.httpd("CustomLog logs/access.log combined\nGlobalLog \"|PROGRAM --format f2b\" f2b\n");
    host.one(&[
        "warn",
        "another configuration, /etc/f2b-pipe/f2b-pipe.toml",
        "f2b-pipe check --config",
    ]);
}

#[test]
fn a_tee_must_have_a_place_of_its_own() {
    let host = Host::new("tee");
    let with = |tee: &str, rest: &str| {
        host.httpd(&format!(
            "CustomLog \"|PROGRAM --config TOML --format f2b --tee {tee}\" f2b\n{rest}"
        ));
    };
    with("DIR/nowhere/access.log", "");
    host.one(&["fail", "directory of --tee", "mkdir -p nowhere"]);
    with("DIR/logs", "");
    host.one(&["fail", "is a directory"]);
    with("access.log", "");
    host.one(&["warn", "relative to httpd's ServerRoot"]);
    with("DIR/logs/access.log", "CustomLog logs/access.log f2b\n");
    host.one(&[
        "fail",
        "httpd.conf:5",
        "each line stands in it twice",
        "httpd.conf:4",
    ]);
}

#[test]
fn processes_that_count_apart_are_pointed_out() {
    let host = Host::new("apart");
    let vhost = |name: &str| {
        format!(
            "<VirtualHost *:80>\nServerName {name}\nCustomLog logs/{name} combined\nCustomLog \"|PROGRAM --config TOML --format f2b\" f2b\n</VirtualHost>\n"
        )
    };
    host.httpd(&format!(
        "CustomLog logs/access.log combined\n{}{}",
        vhost("a"),
        vhost("b")
    ));
    host.some(&[
        "warn",
        "2 processes, and no f2b-pipe watch runs, so each counts by itself",
        "systemctl enable --now f2b-pipe",
        "GlobalLog",
    ]);
    // Where somebody takes hits they do not.
    let watch = std::os::unix::net::UnixListener::bind(host.path("f2b-pipe.feed")).unwrap();
    let apart = |complaint: &String| complaint.contains("counts by itself");
    assert!(!host.complaints("httpd").iter().any(apart));
    let said = String::from_utf8(host.run(&[]).stdout).unwrap();
    assert!(
        said.contains("f2b-pipe watch counts for all of them"),
        "{said}"
    );
    drop(watch);
    assert!(host.complaints("httpd").iter().any(apart), "it has ended");
    host.some(&["warn", "requests for the main server never reach"]);
    host.httpd(&format!("{GOOD}{}", vhost("a")));
    host.some(&["warn", "the same lines go to f2b-pipe by", "twice the work"]);
}

#[test]
fn switches_that_spoil_the_lines_are_named() {
    let host = Host::new("switches");
    let with = |directive: &str, format: &str| {
        host.httpd(&format!("{directive}\nCustomLog logs/access.log combined\nGlobalLog \"|PROGRAM --config TOML --format {format}\" {format}\n"));
    };
    with("BufferedLogs On", "f2b");
    host.one(&["fail", "httpd.conf:4", "BufferedLogs Off"]);
    with("HostnameLookups Double", "f2b");
    assert_eq!(host.complaints("httpd"), Vec::<String>::new(), "f2b has %a");
    with("HostnameLookups On", "combined");
    host.some(&["fail", "httpd.conf:4", "write %a instead of %h"]);
    with("IdentityCheck On", "combined");
    host.some(&["fail", "httpd.conf:4", "IdentityCheck Off"]);
    with("LimitRequestFieldSize 65000", "f2b");
    host.one(&["warn", "headers of 65000 bytes"]);
    with("RemoteIPHeader X-Forwarded-For", "f2b");
    host.one(&["warn", "cannot be held by a packet filter", "proxies = ["]);
    with("RemoteIPHeader X-Forwarded-For", "combined");
    host.some(&["warn", "add %{c}a behind %a"]);
    host.write("f2b-pipe.toml", "proxies = [\"192.0.2.1\"]\n");
    with("RemoteIPHeader X-Forwarded-For", "f2b");
    assert_eq!(host.complaints("httpd"), Vec::<String>::new());
}

#[test]
fn ports_that_a_ban_leaves_open_are_named() {
    let host = Host::new("ports");
    host.httpd(&format!("Listen 127.0.0.1:8080\n{GOOD}"));
    host.one(&[
        "warn",
        "httpd.conf:4",
        "listens on 8080",
        "every jail",
        "port = [\"http\", \"https\", 8080]",
    ]);
    host.write(
        "f2b-pipe.toml",
        "[defaults]\nport = [\"http\", \"https\", 8080]\n",
    );
    assert_eq!(host.complaints("httpd"), Vec::<String>::new());
}

#[test]
fn a_piped_error_log_needs_its_flags() {
    let host = Host::new("error-log");
    host.httpd(&format!("{GOOD}ErrorLog \"|PROGRAM --config TOML\"\n"));
    host.some(&["fail", "httpd.conf:6", "add --error-log"]);
    host.some(&["fail", "httpd.conf:6", "written nowhere", "--tee"]);
    host.httpd("CustomLog logs/access.log combined\nGlobalLog \"|PROGRAM --config TOML --error-log\" f2b\n");
    host.one(&["fail", "take --error-log out"]);
}

#[test]
fn what_cannot_be_read_is_told() {
    let host = Host::new("unread");
    host.httpd(&format!("{GOOD}Include gone.conf\nUse Site a\n"));
    host.some(&["warn", "httpd.conf:6", "gone.conf"]);
    host.some(&["warn", "httpd.conf:7", "the macro Site"]);
    fs::remove_file(host.0.join("httpd.conf")).unwrap();
    host.one(&["fail", "cannot be read", "--httpd-conf"]);
}

#[test]
fn mistakes_of_the_configuration_are_all_told_and_end_with_2() {
    let host = Host::new("toml");
    host.httpd(GOOD);
    host.write(
        "f2b-pipe.toml",
        "[jail.apache-dos]\nmaxrety = 5\n\n[jail.apache-scan]\nfindtime = \"10 minuts\"\n",
    );
    let complaints = host.complaints("configuration");
    assert!(
        complaints
            .iter()
            .any(|c| c.contains("f2b-pipe.toml:2") && c.contains("maxretry")),
        "{complaints:#?}"
    );
    assert!(
        complaints
            .iter()
            .any(|c| c.contains("f2b-pipe.toml:5") && c.contains("10m")),
        "{complaints:#?}"
    );
    let output = host.run(&[]);
    assert_eq!(output.status.code(), Some(2));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.starts_with("Configuration\n  FAIL  "), "{shown}");
    assert!(!shown.contains('\x1b'), "colour is for terminals");
}

#[test]
fn json_lists_the_jails() {
    let host = Host::new("jails");
    host.httpd(GOOD);
    host.write(
        "f2b-pipe.toml",
        "[jail.own]\nstatus = [404]\nvhost = '^a$'\nmaxretry = 7\nfindtime = \"500ms\"\nbantime = -1\nport = \"all\"\n\n\
         [jail.apache-slow]\nenabled = false\n",
    );
    let json = host.json();
    let jails = json["jails"].as_array().unwrap();
    let find = |name: &str| jails.iter().find(|jail| jail["name"] == name);
    let own: Value = serde_json::from_str(
        r#"{"name": "own", "origin": "f2b-pipe", "filter": null, "failregex": 0, "logpath": [], "maxretry": 7,
            "findtime": 0.5, "bantime": -1, "port": ["all"]}"#,
    )
    .unwrap();
    assert_eq!(find("own"), Some(&own));
    let dos = find("apache-dos").unwrap();
    assert_eq!(
        (&dos["findtime"], &dos["port"]),
        (&Value::from(1), &serde_json::json!(["http", "https"]))
    );
    assert!(find("apache-slow").is_none(), "switched off");
}

/// `check` after `prepare`, in a network of its own, and started by `with` (`setpriv ...`, or nothing).
fn in_own_network(host: &Host, prepare: &str, with: &str) -> String {
    host.httpd(GOOD);
    let check = format!(
        "{with} {PROGRAM} check --config {} --httpd-conf {} --runtime-dir {}",
        host.path("f2b-pipe.toml"),
        host.path("httpd.conf"),
        host.path("")
    );
    let output = Command::new("unshare")
        .args(["--net", "sh", "-ec", &format!("{prepare}\n{check} || true")])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

#[test]
#[ignore = "needs root and ipset"]
fn a_set_of_our_name_that_is_not_ours_is_a_failure() {
    let host = Host::new("foreign");
    let said = in_own_network(&host, "ipset create f2bp-apache-dos hash:net", "");
    assert!(
        said.contains("FAIL  f2bp-apache-dos: the set f2bp-apache-dos belongs to another program"),
        "{said}"
    );
}

#[test]
#[ignore = "needs root and iptables"]
fn a_rule_ahead_of_the_chain_is_pointed_out() {
    let host = Host::new("ahead");
    let said = in_own_network(
        &host,
        "iptables -t raw -N f2b-pipe; iptables -t raw -A PREROUTING -i lo -j ACCEPT\n\
         iptables -t raw -A PREROUTING -j f2b-pipe",
        "",
    );
    assert!(
        said.contains(
            "warn  iptables raw PREROUTING: another rule comes before the chain f2b-pipe"
        ),
        "{said}"
    );
    assert!(
        said.contains("ok    ip6tables raw PREROUTING: the first f2b-pipe"),
        "{said}"
    );
}

#[test]
#[ignore = "needs root"]
fn root_without_the_right_to_ban_is_a_failure() {
    let host = Host::new("no-right");
    let drop = "setpriv --bounding-set -net_admin --inh-caps -net_admin";
    let said = in_own_network(&host, "", drop);
    assert!(
        said.contains("FAIL  root without CAP_NET_ADMIN") && said.contains("--cap-add NET_ADMIN"),
        "{said}"
    );
}
