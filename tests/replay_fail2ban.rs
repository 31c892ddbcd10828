//! `replay` of generated logs against fail2ban's own classes on the same folder (`tests/oracle/replay.py`): the decisions
//! must be the same, in the same order, to the last digit. Whatever counts as a window goes against a naive model.
//! `REPLAY_SEED=100` makes other logs, `REPLAY_LINES=3` three times as many lines.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "a test that cannot go on should stop"
)]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use chrono::DateTime;
use serde_json::Value;

/// 21 September 2026; the logs are of the two days after it.
const START: i64 = 1_790_000_000;
const LONG: u32 = 200_000;
/// `--now`.
const NOW: &str = "1795000000";

struct Chance(u64);

impl Chance {
    fn draw(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        f64::from((self.0 >> 32) as u32) / 4_294_967_296.0
    }

    fn below(&mut self, n: u32) -> u32 {
        (self.draw() * f64::from(n)) as u32
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u32) as usize]
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Auth,
    Access,
    Error,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::Auth => "auth.log",
            Self::Access => "access.log",
            Self::Error => "error.log",
        }
    }

    fn date(self, at: i64) -> String {
        let time = DateTime::from_timestamp(at, 0).unwrap();
        let format = match self {
            Self::Auth => "%b %e %H:%M:%S",
            Self::Access => "%d.%m.%y/%H:%M:%S",
            Self::Error => "%a %b %d %H:%M:%S.123456 %Y",
        };
        time.format(format).to_string()
    }
}

struct Line {
    kind: Kind,
    /// When it comes.
    now: i64,
    /// The time it tells; `None`: none.
    at: Option<i64>,
    /// What is behind the date.
    text: String,
    ip: Option<String>,
}

impl Line {
    fn whole(&self) -> String {
        match (self.kind, self.at) {
            (Kind::Error, Some(at)) => format!("[{}] {}", self.kind.date(at), self.text),
            (Kind::Auth | Kind::Access, Some(at)) => {
                format!("{} {}", self.kind.date(at), self.text)
            }
            (_, None) => format!(" {}", self.text),
        }
    }
}

/// What an attacker leaves in a log at once.
fn attempt(kind: Kind, ip: &str, chance: &mut Chance) -> Vec<String> {
    let port = 1024 + chance.below(60_000);
    match kind {
        Kind::Auth => {
            let pid = 1000 + chance.below(3000);
            let user = chance.of(&["root", "admin", "git", "o'neil", "a b"]);
            let texts = match chance.below(9) {
                0 | 1 => vec![format!(
                    "Failed password for {user} from {ip} port {port} ssh2"
                )],
                2 => vec![
                    format!("Invalid user {user} from {ip} port {port}"),
                    format!("Failed password for invalid user {user} from {ip} port {port} ssh2"),
                    format!("Connection closed by invalid user {user} {ip} port {port} [preauth]"),
                ],
                3 => vec![
                    format!(
                        "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={ip}  user={user}"
                    ),
                    format!("Failed password for {user} from {ip} port {port} ssh2"),
                    format!(
                        "Connection closed by authenticating user {user} {ip} port {port} [preauth]"
                    ),
                ],
                4 => vec![format!("Connection closed by {ip} port {port} [preauth]")],
                5 => vec![
                    format!("Failed password for invalid user a from {ip} port {port} ssh2"),
                    format!("Failed password for invalid user b from {ip} port {port} ssh2"),
                    format!("Accepted password for carol from {ip} port {port} ssh2"),
                    "pam_unix(sshd:session): session opened for user carol(uid=1001) by (uid=0)"
                        .to_owned(),
                ],
                6 => vec![
                    format!(
                        "error: maximum authentication attempts exceeded for {user} from {ip} port {port} ssh2 [preauth]"
                    ),
                    format!(
                        "Disconnecting authenticating user {user} {ip} port {port}: Too many authentication failures [preauth]"
                    ),
                ],
                7 => vec![format!(
                    "Unable to negotiate with {ip} port {port}: no matching key exchange method found. Their offer: diffie-hellman-group1-sha1 [preauth]"
                )],
                _ => vec![
                    format!("Received disconnect from {ip} port {port}:11: Bye Bye [preauth]"),
                    format!(
                        "Disconnected from authenticating user {user} {ip} port {port} [preauth]"
                    ),
                ],
            };
            texts
                .into_iter()
                .map(|text| format!("gate sshd[{pid}]: {text}"))
                .collect()
        }
        Kind::Access => {
            let path = chance.of(&["/login", "/wp-admin", "/favicon.ico", "/a b"]);
            let status = chance.of(&[401, 401, 403, 404, 200, 304]);
            vec![format!("{ip} \"GET {path} HTTP/1.1\" {status}")]
        }
        Kind::Error => {
            let pid = chance.below(9000);
            let text = match chance.below(5) {
                0 | 1 => {
                    "AH01617: user bob: authentication failure for \"/secret\": Password Mismatch"
                }
                2 => "AH01618: user bob not found: /secret",
                3 => "AH01797: client denied by server configuration: /srv/www/x",
                _ => "AH00128: File does not exist: /srv/www/robots.txt",
            };
            vec![format!(
                "[auth_basic:error] [pid {pid}:tid 1403] [client {ip}:{port}] {text}"
            )]
        }
    }
}

fn noise(kind: Kind, chance: &mut Chance) -> String {
    let pid = 1000 + chance.below(3000);
    match kind {
        Kind::Auth => match chance.below(4) {
            0 => format!(
                "gate CRON[{pid}]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)"
            ),
            1 => format!(
                "gate sshd[{pid}]: Accepted publickey for dave from 198.18.0.1 port 999 ssh2: ED25519 SHA256:x"
            ),
            2 => format!("gate systemd-logind[612]: New session {pid} of user dave."),
            _ => format!(
                "gate sshd[{pid}]: Received disconnect from 198.18.0.1 port 999:11: disconnected by user"
            ),
        },
        Kind::Access => format!("198.18.0.{} \"GET /{pid} HTTP/1.1\" 200", pid % 250),
        Kind::Error => {
            format!("[core:notice] [pid {pid}:tid 1] AH00094: Command line: '/usr/sbin/apache2'")
        }
    }
}

/// How each attacker's pauses are: around the edges of findtime and bantime, in bursts, seldom.
struct Manners {
    maxretry: u32,
    findtime: f64,
    bantime: f64,
}

const USUAL: Manners = Manners {
    maxretry: 5,
    findtime: 600.0,
    bantime: 600.0,
};

/// `number` lines of these kinds, in the order in which they come.
fn lines(seed: u64, kinds: &[Kind], number: usize, keys: u32, manners: &Manners) -> Vec<Line> {
    let parsed = |name: &str, usual: u64| {
        std::env::var(name).map_or(usual, |text| text.parse::<u64>().unwrap())
    };
    let number = number * parsed("REPLAY_LINES", 1) as usize;
    let chance = &mut Chance(seed + parsed("REPLAY_SEED", 0));
    let Manners {
        maxretry,
        findtime,
        bantime,
    } = *manners;
    let mut all = Vec::with_capacity(number);
    // The first line tells a time.
    all.push(Line {
        kind: kinds[0],
        now: START,
        at: Some(START),
        text: noise(kinds[0], chance),
        ip: None,
    });
    for n in 0.. {
        if all.len() >= number {
            break;
        }
        let who = n % keys;
        let ip = match who % 12 {
            11 => format!("2001:db8::{who:x}"),
            _ => format!("198.{}.{}.{}", 19 + (who >> 16), who >> 8 & 255, who & 255),
        };
        let even = findtime / f64::from(maxretry.max(2) - 1);
        let mut now = START + i64::from(chance.below(LONG));
        let manner = chance.below(6);
        for _ in 0..1 + chance.below(3 * maxretry + 8) {
            let pause = match manner {
                0 => f64::from(chance.below(3)),
                1 => even * (0.8 + chance.draw() * 0.5),
                2 => chance.of(&[even, even + 1.0, even - 1.0, findtime, findtime - 1.0]),
                3 => chance.of(&[bantime, bantime + 1.0, bantime - 1.0, 0.0, 0.0, 0.0, 1.0]),
                4 => chance.of(&[
                    findtime,
                    findtime + 1.0,
                    1.0,
                    0.0,
                    2.0 * bantime,
                    bantime / 2.0,
                ]),
                _ => findtime * chance.draw() * 0.5,
            };
            now += pause.round() as i64;
            let kind = chance.of(kinds);
            for (n, text) in attempt(kind, &ip, chance).into_iter().enumerate() {
                let late = match chance.below(20) {
                    0..=16 => 0,
                    17 | 18 => i64::from(chance.below(60)),
                    _ => chance.of(&[59, 60, 61, 62, 300]),
                };
                let now = now + n as i64 / 2;
                let dated = kind != Kind::Access || chance.below(40) > 0;
                all.push(Line {
                    kind,
                    now,
                    at: dated.then_some(now - late),
                    text,
                    ip: Some(ip.clone()),
                });
            }
            if chance.below(3) == 0 {
                let kind = chance.of(kinds);
                all.push(Line {
                    kind,
                    now,
                    at: Some(now),
                    text: noise(kind, chance),
                    ip: None,
                });
            }
        }
    }
    all.truncate(number);
    all.sort_by_key(|line| line.now);
    all
}

/// A folder that goes when the test does.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("f2b-replay2-{}-{name}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A log, and the times of its lines beside it.
    fn log(&self, name: &str, lines: &[&Line]) -> (PathBuf, PathBuf) {
        let (mut text, mut times) = (String::new(), String::new());
        for line in lines {
            writeln!(text, "{}", line.whole()).unwrap();
            match line.at {
                Some(at) => writeln!(times, "{at}").unwrap(),
                None => times.push_str("-\n"),
            }
        }
        (
            self.write(name, &text),
            self.write(&format!("{name}.times"), &times),
        )
    }

    /// No native jail, and IPv6 address by address, as fail2ban counts.
    fn toml(&self, more: &str) -> PathBuf {
        let mut text = String::from("[defaults]\nipv6_prefix = 128\nignoreself = false\n");
        for jail in f2b_pipe::config::Config::default().native() {
            writeln!(text, "[jail.{}]\nenabled = false", jail.name).unwrap();
        }
        self.write("f2b-pipe.toml", &(text + more))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// `time jail ip action until hits`.
fn ours(toml: &Path, more: &[&str], logs: &[&Path]) -> Vec<String> {
    let out = Command::new(env!("CARGO_BIN_EXE_f2b-pipe"))
        .args(["replay", "--json", "--now", NOW, "--config"])
        .arg(toml)
        .args(more)
        .args(logs)
        .env("TZ", "UTC")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    told(&out.stdout)
}

fn told(json: &[u8]) -> Vec<String> {
    // fail2ban's are texts, since readers of JSON may not keep the last digit.
    let time = |value: &Value| {
        let text = value.as_str().map(|text| text.parse().unwrap());
        let time: Option<f64> = text.or_else(|| value.as_f64());
        time.map_or_else(|| "ever".to_owned(), |time| format!("{time:?}"))
    };
    let text = std::str::from_utf8(json).unwrap();
    text.lines()
        .map(|line| {
            let told: Value = serde_json::from_str(line).unwrap();
            let word = |key: &str| told[key].as_str().unwrap().to_owned();
            format!(
                "{} {} {} {} {} {}",
                time(&told["time"]),
                word("jail"),
                word("ip"),
                word("action"),
                time(&told["until"]),
                told["hits"]
            )
        })
        .collect()
}

fn same(name: &str, ours: &[String], theirs: &[String]) {
    let first = ours.iter().zip(theirs).position(|(a, b)| a != b);
    if let Some(first) = first {
        let from = first.saturating_sub(3);
        panic!(
            "{name}: decision {first} of {}:\nours\n{}\nfail2ban's\n{}",
            theirs.len(),
            ours[from..(first + 3).min(ours.len())].join("\n"),
            theirs[from..(first + 3).min(theirs.len())].join("\n"),
        );
    }
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
    for line in ours {
        let words: Vec<&str> = line.split(' ').collect();
        *numbers
            .entry(format!("{} {}", words[1], words[3]))
            .or_default() += 1;
    }
    eprintln!("{name}: {} decisions, the same: {numbers:?}", ours.len());
}

/// Both sides on the same folder and logs.
fn compare(name: &str, dir: &Dir, jails: &str, logs: &[(PathBuf, PathBuf)]) {
    let filters = Path::new("/etc/fail2ban/filter.d");
    std::fs::create_dir_all(dir.0.join("filter.d")).unwrap();
    for file in std::fs::read_dir(filters).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), dir.0.join("filter.d").join(file.file_name())).unwrap();
        }
    }
    let defaults = "[DEFAULT]\naction =\nbackend = polling\nusedns = no\nignoreself = false\nenabled = true\n\
                    maxretry = 5\nfindtime = 10m\nbantime = 10m\n";
    let jails = jails.replace("DIR", dir.0.to_str().unwrap());
    dir.write("jail.conf", &format!("{defaults}{jails}"));
    let began = Instant::now();
    let paths: Vec<&Path> = logs.iter().map(|(log, _)| log.as_path()).collect();
    let folder = dir.0.to_str().unwrap();
    let ours = ours(&dir.toml(""), &["--config-dir", folder], &paths);
    let took = began.elapsed();
    let began = Instant::now();
    // The system's own: that one has the package.
    let out = Command::new("/usr/bin/python3")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/oracle/replay.py"
        ))
        .arg(folder)
        .args(logs.iter().flat_map(|(log, times)| [log, times]))
        .env("TZ", "UTC")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    eprintln!("{name}: ours {took:?}, fail2ban's {:?}", began.elapsed());
    same(name, &ours, &told(&out.stdout));
    assert!(ours.len() > 100, "{name}: hardly anything is decided");
}

/// Own expressions for the access log.
const ACCESS: &str = "failregex = ^ <HOST> \"[^\"]*\" 40[13]$\n            ^ <HOST> \"GET /wp-[^\"]*\" 404$\n\
                      ignoreregex = favicon\n\
                      datepattern = ^%%d\\.%%m\\.%%y/%%H:%%M:%%S\n\
                      logpath = DIR/access.log\n";

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn decisions_on_sshds_log_are_fail2bans() {
    let dir = Dir::new("sshd");
    let lines = lines(1, &[Kind::Auth], 50_000, 3_000, &USUAL);
    let log = dir.log("auth.log", &lines.iter().collect::<Vec<_>>());
    compare(
        "sshd",
        &dir,
        "[sshd]\nlogpath = DIR/auth.log\nfilter = sshd\n\
         [longer]\nlogpath = DIR/auth.log\nfilter = sshd[mode=aggressive]\nbantime.increment = true\nbantime.factor = 2\n\
         bantime.maxtime = 1d\nmaxretry = 3\n",
        &[log],
    );
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn decisions_by_own_expressions_are_fail2bans() {
    let dir = Dir::new("access");
    let manners = Manners {
        maxretry: 3,
        findtime: 120.0,
        bantime: 300.0,
    };
    let lines = lines(2, &[Kind::Access], 20_000, 1_500, &manners);
    let log = dir.log("access.log", &lines.iter().collect::<Vec<_>>());
    let jail = |name: &str, more: &str| format!("[{name}]\n{ACCESS}{more}\n");
    let jails = [
        jail("plain", "maxretry = 3\nfindtime = 2m\nbantime = 5m"),
        jail("once", "maxretry = 1\nbantime = 120.7"),
        jail("ever", "maxretry = 8\nbantime = -1"),
        jail(
            "multiplied",
            "maxretry = 3\nfindtime = 2m\nbantime = 5m\nbantime.increment = true\nbantime.multipliers = 1 5 30 60",
        ),
        jail(
            "capped",
            "maxretry = 4\nbantime = 5m\nbantime.increment = true\nbantime.maxtime = 20m",
        ),
        jail(
            "formula",
            "maxretry = 4\nbantime = 5m\nbantime.increment = true\n\
             bantime.formula = ban.Time * math.exp(float(ban.Count+1)*banFactor)/math.exp(1*banFactor)\nbantime.factor = 0.7",
        ),
    ];
    compare("access", &dir, &jails.concat(), &[log]);
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn decisions_on_httpds_error_log_are_fail2bans() {
    let dir = Dir::new("error");
    let lines = lines(3, &[Kind::Error], 12_000, 900, &USUAL);
    let log = dir.log("error.log", &lines.iter().collect::<Vec<_>>());
    compare(
        "error",
        &dir,
        "[apache-auth]\nfilter = apache-auth\nlogpath = DIR/error.log\nignoreip = 198.19.0.0/28 2001:db8::b\n\
         [increment]\nfilter = apache-auth\nlogpath = DIR/error.log\nbantime.increment = true\nbantime = 1h\nfindtime = 1h\n",
        &[log],
    );
}

/// Pieces of three logs, rotated, in turn: a jail may read two of them, and bans of one count in another.
#[test]
#[ignore = "needs Debian's fail2ban package"]
fn decisions_on_several_logs_in_turn_are_fail2bans() {
    let dir = Dir::new("turns");
    let kinds = [Kind::Auth, Kind::Access, Kind::Error];
    let lines = lines(4, &kinds, 15_000, 800, &USUAL);
    let mut logs = Vec::new();
    let pieces = 400;
    for piece in 0..pieces {
        for kind in kinds {
            let within = |line: &&Line| {
                let at = (line.now - START) * pieces / i64::from(LONG);
                line.kind == kind && at.min(pieces - 1) == piece
            };
            let rotated = pieces - 1 - piece;
            let name = match rotated {
                0 => kind.file().to_owned(),
                n => format!("{}.{n}", kind.file()),
            };
            logs.push(dir.log(&name, &lines.iter().filter(within).collect::<Vec<_>>()));
        }
    }
    let access = format!(
        "[web]\n{ACCESS}bantime.increment = true\nbantime.overalljails = true\nmaxretry = 2\n"
    );
    compare(
        "turns",
        &dir,
        &format!(
            "[sshd]\nfilter = sshd\nlogpath = DIR/auth.log\nbantime.increment = true\nbantime.overalljails = true\n\
             [apache-auth]\nfilter = apache-auth\nlogpath = DIR/error.log\n        DIR/auth.log\nbantime.increment = true\nmaxretry = 2\n{access}"
        ),
        &logs,
    );
}

/// A sliding window, written down as plainly as can be.
#[test]
fn a_window_decides_as_a_naive_model_does() {
    let dir = Dir::new("window");
    let (maxretry, findtime, bantime) = (4, 300, 450);
    let manners = Manners {
        maxretry,
        findtime: 300.0,
        bantime: 450.0,
    };
    let lines = lines(5, &[Kind::Access], 20_000, 1_000, &manners);
    let all: Vec<&Line> = lines.iter().filter(|line| line.at.is_some()).collect();
    let (log, _) = dir.log("access.log", &all);
    let toml = dir.toml(&format!(
        "[fail2ban]\nconfig = ''\n[jail.web]\nfailregex = '^ <ADDR> \"[^\"]*\" 40[134]$'\nusedns = 'no'\n\
         datepattern = '^%d\\.%m\\.%y/%H:%M:%S'\nlogpath = '{}'\nmaxretry = {maxretry}\nfindtime = {findtime}\n\
         bantime = {bantime}\n",
        log.display()
    ));
    let mut clock = 0;
    let mut failures: HashMap<&str, Vec<i64>> = HashMap::new();
    let mut bans: Vec<(i64, &str)> = Vec::new();
    let mut model = Vec::new();
    for line in all {
        let mut at = line.at.unwrap();
        clock = clock.max(at);
        let mut over: Vec<(i64, &str)> = bans.iter().copied().filter(|ban| ban.0 < clock).collect();
        over.sort_by_key(|ban| ban.0);
        bans.retain(|ban| ban.0 >= clock);
        for (end, ip) in over {
            model.push(format!("{end}.0 web {ip} unban {end}.0 0"));
        }
        if !line.text.contains("\" 40") {
            continue;
        }
        if clock - at > 60 {
            at = clock;
        }
        let ip = line.ip.as_deref().unwrap();
        let times = failures.entry(ip).or_default();
        times.push(at);
        times.retain(|time| *time >= clock - findtime);
        if times.len() < maxretry as usize {
            continue;
        }
        let end = times.drain(..).max().unwrap() + bantime;
        let action = match bans.iter_mut().find(|ban| ban.1 == ip) {
            Some(ban) if ban.0 >= end => continue,
            Some(ban) => {
                ban.0 = end;
                "prolong"
            }
            None => {
                bans.push((end, ip));
                "ban"
            }
        };
        model.push(format!("{clock}.0 web {ip} {action} {end}.0 {maxretry}"));
    }
    same("window", &ours(&toml, &[], &[&log]), &model);
    assert!(model.len() > 500);
}
