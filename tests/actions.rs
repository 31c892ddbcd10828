//! Actions of fail2ban that are commands: that they run what fail2ban runs, and what strangers' text and bad scripts
//! cannot do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on should stop; figures are for whoever measures"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use f2b_pipe::act::command::{Jail, Pool, Settings, Spec, Ticket};
use serde_json::{Value, json};

/// Everything that a stock action may call; each is replaced by a recorder.
const COMMANDS: &str = "afctl apf apprise awk basename cat csf curl cut date dig echo egrep fgrep firewall-cmd fwctl geoiplookup \
    grep head host hostname id ip ip6tables ipf ipfw ipset iptables jq kill logger ls mail mktemp nft nginx npfctl nsupdate \
    perl pfctl python3 rm route sed sendmail service shorewall sleep sort ss ssh sshpass symbiosis systemctl tail tee touch \
    tr truncate ufw uname uniq wc wget whois xargs";

/// A folder with recorders in `bin`; they write to `log` their name, arguments, input and environment, and fail if `fail`
/// holds their name.
struct Stage(PathBuf);

impl Stage {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("f2b-pipe-actions-{}-{name}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        fs::create_dir_all(folder.join("bin")).unwrap();
        fs::write(folder.join("log"), "").unwrap();
        fs::write(folder.join("fail"), "").unwrap();
        let stage = Self(folder);
        let recorder = format!(
            "#!/bin/sh\n\
             me=${{0##*/}}\n\
             [ -p /dev/stdin ] && input=$(/bin/cat)\n\
             env=$(export -p)\n\
             for arg; do args=\"$args\u{1f}$arg\"; done\n\
             printf '%s' \"$me$args\u{1e}$input\u{1e}$env\u{1d}\" >> {folder}/log\n\
             read failing < {folder}/fail\n\
             [ \"$failing\" != \"$me\" ]\n",
            folder = stage.0.display()
        );
        for command in COMMANDS.split_ascii_whitespace() {
            stage.program(command, &recorder);
        }
        stage
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.0.join("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn fail(&self, command: &str) {
        fs::write(self.0.join("fail"), format!("{command}\n")).unwrap();
    }

    fn fresh(&self) {
        let work = self.0.join("work");
        fs::remove_dir_all(&work).ok();
        for folder in ["fail2ban", "nginx", "net/xt_recent"] {
            fs::create_dir_all(work.join(folder)).unwrap();
        }
        fs::write(self.0.join("log"), "").unwrap();
    }

    fn recorded(&self) -> String {
        let log = self.0.join("log");
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
        fs::write(log, "").unwrap();
        text
    }

    fn settings(&self) -> Settings {
        Settings {
            path: self.0.join("bin").display().to_string(),
            ipv6: true,
            ..Settings::default()
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Waits until a jail's actions have nothing to do.
fn idle(jail: &Jail) {
    let until = Instant::now() + Duration::from_secs(60);
    while jail.health().iter().any(|(_, health)| health.waiting > 0) {
        assert!(Instant::now() < until, "{:?}", jail.health());
        thread::sleep(Duration::from_millis(1));
    }
}

/// Tickets of an IPv4 and an IPv6 client with ordinary lines, and of one who tries everything.
fn tickets() -> Vec<(Ticket, String)> {
    let ticket = |ip: &str, matches: &[&str], user: &str, host: &str| {
        let mut ticket = Ticket::of(ip);
        ticket.time = 1_700_000_000.5;
        ticket.ban_time = 600;
        ticket.ban_count = 2;
        ticket.failures = 5;
        ticket.matches = matches.iter().map(|line| (*line).to_owned()).collect();
        ticket.captures.insert("user".into(), user.into());
        (ticket, host.to_owned())
    };
    let touch = |n: u8| format!("x; touch /tmp/f2b-pipe-pwned-{n}");
    vec![
        ticket(
            "192.0.2.7",
            &["plain line of words"],
            "root",
            "host.example",
        ),
        ticket(
            "2001:db8::7",
            &["Nov 14 22:13:20 h sshd[1]: Failed password for root from 2001:db8::7 port 1 ssh2"],
            "admin",
            "None",
        ),
        ticket(
            "192.0.2.8",
            &[
                &format!("\"; {}; #", touch(1)),
                &format!("'; {}; '", touch(2)),
                &format!("$({}) `{}` ${{IFS}}", touch(3), touch(4)),
                "~! touch /tmp/f2b-pipe-pwned-5",
                "-rf / \\\\ \\n %s %n * ? [a-z] < > | & \t \u{1b}[31m ä €",
            ],
            "-oProxyCommand=$(touch /tmp/f2b-pipe-pwned-6)\n`id`",
            "evil$(touch${IFS}/tmp/f2b-pipe-pwned-7).example",
        ),
    ]
}

fn nobody_was_pwned() {
    for n in 1..=7 {
        let proof = PathBuf::from(format!("/tmp/f2b-pipe-pwned-{n}"));
        assert!(!proof.exists(), "{}", proof.display());
    }
}

fn oracle(stage: &Stage, tickets: &[(Ticket, String)]) -> Value {
    let wanted: Vec<Value> = tickets
        .iter()
        .map(|(ticket, host)| {
            json!({
                "ip": ticket.ip, "time": ticket.time, "ban_time": ticket.ban_time, "ban_count": ticket.ban_count,
                "failures": ticket.failures, "matches": ticket.matches, "captures": ticket.captures,
                "host": if host == "None" { Value::Null } else { host.as_str().into() },
            })
        })
        .collect();
    let file = stage.0.join("tickets");
    fs::write(&file, json!(wanted).to_string()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/actions.py");
    let out = Command::new("/usr/bin/python3")
        .arg(script)
        .arg(&stage.0)
        .arg(file)
        .env_clear()
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", out.status);
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Whether a property that fail2ban has as text or as a truth value is true.
fn truth(value: Option<&Value>) -> Option<bool> {
    match value? {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) => Some(matches!(
            text.to_lowercase().as_str(),
            "1" | "on" | "true" | "yes"
        )),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn spec(name: &str, action: &Value) -> Spec {
    let properties = action["properties"].as_object().unwrap();
    let mut spec = Spec::new("sshd", action["actname"].as_str().unwrap(), name);
    for (name, value) in properties {
        if let Some(text) = value.as_str() {
            spec.properties.insert(name.clone(), text.to_owned());
        }
    }
    spec.start_on_demand = truth(properties.get("actionstart_on_demand"));
    spec.norestored = truth(properties.get("norestored")).unwrap_or(false);
    spec.repair_on_unban = truth(properties.get("actionrepair_on_unban")).unwrap_or(false);
    spec
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn stock_actions_run_what_fail2ban_runs() {
    let stage = Stage::new("stock");
    let tickets = tickets();
    let expected = oracle(&stage, &tickets);
    let names = tickets.iter().filter(|(_, host)| host != "None");
    let names: String = names
        .map(|(ticket, host)| format!("{} {host}\n", ticket.ip))
        .collect();
    let hosts = stage.0.join("hosts");
    fs::write(&hosts, names).unwrap();
    stage.program(
        "getent",
        &format!(
            "#!/bin/sh\n/bin/grep -F \"$2 \" {} || {{ case \"$2\" in *:*|[0-9]*.[0-9]*) exit 2 ;; esac; exec /usr/bin/getent \"$@\"; }}\n",
            hosts.display()
        ),
    );
    let mut compared = 0;
    let mut wrong = Vec::new();
    for (name, action) in expected.as_object().unwrap() {
        let pool = Pool::new(&stage.settings()).unwrap();
        let (jail, errors) = pool.jail("sshd", vec![spec(name, action)]);
        assert!(errors.is_empty(), "{errors:?}");
        let held = || tickets.iter().map(|(ticket, _)| ticket.clone());
        stage.fresh();
        stage.fail("");
        let mut jail = Some(jail);
        for event in action["events"].as_array().unwrap() {
            let (what, theirs) = (event[0].as_str().unwrap(), event[1].as_str().unwrap());
            let (what_first, without) = what.split_once(" without ").unwrap_or((what, ""));
            stage.fail(without);
            let words: Vec<&str> = what_first.split(' ').collect();
            let ticket = |n: &str| tickets[n.parse::<usize>().unwrap()].0.clone();
            if what == "stop" {
                // What is held has been let go by the flush before.
                jail.take().unwrap().stop(Vec::new());
                break;
            }
            let jail = jail.as_ref().unwrap();
            match words[0] {
                "start" => jail.start(),
                "ban" => jail.ban(ticket(words[1])),
                "unban" => jail.unban(ticket(words[1])),
                "flush" => jail.flush(held().collect()),
                other => panic!("{other}"),
            }
            idle(jail);
            let ours = stage.recorded();
            compared += theirs.matches('\u{1d}').count();
            if ours != *theirs {
                wrong.push(format!(
                    "{name}: {what}\nfail2ban: {theirs:?}\nf2b-pipe: {ours:?}\n"
                ));
            }
        }
        assert_eq!(pool.finish(Duration::from_secs(30)), 0);
        let theirs = action["events"].as_array().unwrap().last().unwrap()[1]
            .as_str()
            .unwrap();
        let ours = stage.recorded();
        compared += theirs.matches('\u{1d}').count();
        if ours != theirs {
            wrong.push(format!(
                "{name}: stop\nfail2ban: {theirs:?}\nf2b-pipe: {ours:?}\n"
            ));
        }
    }
    nobody_was_pwned();
    assert!(
        wrong.is_empty(),
        "{} of {compared} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    println!("{compared} commands compared");
    assert!(compared > 500, "{compared}");
}

/// A spec whose ban is one command; `log` in it is the stage's.
fn own(stage: &Stage, name: &str, ban: &str) -> Spec {
    let mut spec = Spec::new("j", name, name);
    let log = stage.0.join("log").display().to_string();
    spec.properties
        .insert("actionban".into(), ban.replace("LOG", &log));
    spec
}

#[test]
fn strangers_text_is_words_and_never_runs() {
    let stage = Stage::new("hostile");
    let pool = Pool::new(&stage.settings()).unwrap();
    let ban = "curl \"<matches>\" \"-u<F-USER>\" \"<F-NOBODY>\" <ip> '<failures>'; exit 0";
    let (jail, _) = pool.jail("j", vec![own(&stage, "a", ban)]);
    for (mut ticket, _) in tickets() {
        ticket.captures.insert("user".into(), "nul\0 $(id)".into());
        let lines = ticket.matches.join("\n");
        let expected = ["curl", &lines, "-unul\u{fffd} $(id)", "", &ticket.ip, "5"].join("\u{1f}");
        jail.ban(ticket);
        idle(&jail);
        let recorded = stage.recorded();
        let (words, rest) = recorded.split_once('\u{1e}').unwrap();
        assert_eq!(words, expected);
        // Nor do a script's own children find it in their environment.
        assert!(!rest.contains("f2bV"), "{rest}");
    }
    nobody_was_pwned();
    assert_eq!(pool.finish(Duration::from_secs(10)), 0);
}

#[test]
fn a_hanging_script_delays_nobody_and_dies_with_its_children() {
    let stage = Stage::new("hanging");
    let settings = Settings {
        path: "/usr/bin:/bin".into(),
        ..Settings::default()
    };
    let pool = Pool::new(&settings).unwrap();
    let mut bad = own(
        &stage,
        "bad",
        "echo $$ >> LOG; trap '' TERM; sleep 1000 & wait; wait",
    );
    bad.timeout = Duration::from_secs(1);
    // Three more that hang, so that one thread is left.
    let mut others = Vec::new();
    for n in 0..2 {
        others.push(own(&stage, &format!("bad{n}"), "exec sleep 1000"));
    }
    let fast = stage.0.join("fast");
    let good = own(&stage, "good", &format!("echo <ip> >> {}", fast.display()));
    let (jail, _) = pool.jail("j", [bad, good].into_iter().chain(others).collect());
    let begun = Instant::now();
    for n in 0..10_000 {
        jail.ban(Ticket::of(&format!("10.0.{}.{}", n / 250, n % 250)));
    }
    let queued = begun.elapsed();
    assert!(queued < Duration::from_secs(3), "{queued:?}");
    let done = || jail.health()[1].1.done;
    while done() < 100 && begun.elapsed() < Duration::from_secs(30) {
        thread::sleep(Duration::from_millis(5));
    }
    println!(
        "10,000 bans of 4 actions ordered in {queued:?}; 100 carried out in {:?}",
        begun.elapsed()
    );
    assert!(done() >= 100);
    // In the order in which they came.
    let text = fs::read_to_string(&fast).unwrap();
    let expected: Vec<String> = (0..100).map(|n| format!("10.0.0.{n}")).collect();
    assert_eq!(text.lines().take(100).collect::<Vec<_>>(), expected);
    while jail.health()[0].1.failed == 0 && begun.elapsed() < Duration::from_secs(30) {
        thread::sleep(Duration::from_millis(5));
    }
    let begun = Instant::now();
    assert!(pool.finish(Duration::ZERO) > 0);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let groups = String::from_utf8_lossy(&fs::read(stage.0.join("log")).unwrap()).into_owned();
    for group in groups.lines() {
        let alive = Command::new("ps")
            .args(["-o", "stat=", "-g", group])
            .output()
            .unwrap();
        let alive = String::from_utf8_lossy(&alive.stdout).into_owned();
        assert!(
            alive.lines().all(|stat| stat.starts_with('Z')),
            "{group}: {alive}"
        );
    }
}

#[test]
fn a_daemon_left_behind_and_megabytes_of_output_hold_nobody_up() {
    let stage = Stage::new("daemon");
    let settings = Settings {
        path: "/usr/bin:/bin".into(),
        ..Settings::default()
    };
    let pool = Pool::new(&settings).unwrap();
    let specs = vec![
        own(&stage, "daemon", "sleep 20 & echo daemon >> LOG"),
        own(
            &stage,
            "talker",
            "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; echo talker >> LOG",
        ),
    ];
    let (jail, _) = pool.jail("j", specs);
    let begun = Instant::now();
    jail.ban(Ticket::of("192.0.2.7"));
    idle(&jail);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    let recorded = stage.recorded();
    let mut lines: Vec<&str> = recorded.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["daemon", "talker"]);
    assert_eq!(pool.finish(Duration::from_secs(10)), 0);
}

/// Takes mails until the last connection ends, and gives back all that clients said.
fn mail_server(mails: usize) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = move || {
        let mut said = Vec::new();
        for _ in 0..mails {
            let (stream, _) = listener.accept().unwrap();
            let mut answer = stream.try_clone().unwrap();
            let mut talk = String::new();
            let mut in_text = false;
            answer.write_all(b"220 here\r\n").unwrap();
            for line in BufReader::new(stream).lines() {
                let line = line.unwrap();
                in_text &= line != ".";
                let reply: &[u8] = match line.as_str() {
                    _ if in_text => b"",
                    "data" | "DATA" => b"354 go on\r\n",
                    "quit" | "QUIT" => b"221 bye\r\n",
                    _ => b"250 ok\r\n",
                };
                in_text |= reply.starts_with(b"354");
                answer.write_all(reply).unwrap();
                talk.push_str(&line);
                talk.push('\n');
            }
            said.push(talk);
        }
        said
    };
    (address, thread::spawn(serve))
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn the_python_class_that_mails_does() {
    let (address, server) = mail_server(4);
    let mut spec = Spec::new("sshd", "smtp", "/etc/fail2ban/action.d/smtp.py");
    for (name, value) in [
        ("host", address.as_str()),
        ("dest", "root@example.org"),
        ("matches", "matches"),
    ] {
        spec.properties.insert(name.into(), value.into());
    }
    let settings = Settings {
        path: "/usr/bin:/bin".into(),
        ..Settings::default()
    };
    let pool = Pool::new(&settings).unwrap();
    let (jail, errors) = pool.jail("sshd", vec![spec]);
    assert!(errors.is_empty());
    jail.start();
    for (mut ticket, _) in tickets() {
        // Nobody is told again of a ban that is only restored.
        ticket.restored = ticket.ip == "2001:db8::7";
        jail.ban(ticket);
    }
    jail.stop(vec![Ticket::of("192.0.2.7")]);
    assert_eq!(pool.finish(Duration::from_secs(50)), 0);
    let said = server.join().unwrap();
    let subjects: Vec<&str> = said
        .iter()
        .flat_map(|talk| {
            talk.lines()
                .filter_map(|line| line.strip_prefix("Subject: [Fail2Ban] sshd: "))
        })
        .map(|subject| {
            subject
                .split(" from ")
                .next()
                .unwrap()
                .split(" on ")
                .next()
                .unwrap()
        })
        .collect();
    assert_eq!(
        subjects,
        ["started", "banned 192.0.2.7", "banned 192.0.2.8", "stopped"]
    );
    assert!(
        said[1].contains("plain line of words") && said[1].contains("5 attempts"),
        "{}",
        said[1]
    );
    nobody_was_pwned();
}
