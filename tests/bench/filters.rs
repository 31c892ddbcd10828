//! Other logs: f2b-pipe beside fail2ban-regex on one file, lines that match nothing, and the start with all stock jails.

use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use f2b_pipe::config;
use f2b_pipe::failregex::{Clock, Matcher, Phase, Stamp};

use super::generate::Random;
use super::measure::{Feed, memory, run};
use super::{Bench, F2B_PIPE};

const STOCK: &str = "/etc/fail2ban";
/// 2026-11-25 07:00 UTC.
const BEGAN: u64 = 1_795_590_000;
/// Lines of the comparison.
const LINES: usize = 1_000_000;

/// All of it.
pub fn measure(bench: &Bench) {
    if !Path::new(STOCK).join("filter.d/sshd.conf").is_file() {
        println!("\nFilters: fail2ban is not installed, whose filters are measured");
        return;
    }
    beside(bench);
    let folder = all_jails(bench);
    noise(&folder);
    start(bench, &folder);
}

/// The stock sshd filter on sshd's lines.
fn beside(bench: &Bench) {
    println!("\nFilters: the stock sshd filter on a log of sshd's lines, once each");
    println!(
        "  {:<18}{:>10}{:>10}{:>10}{:>12}{:>18}",
        "", "lines", "CPU s", "µs/line", "peak MiB", "fail2ban-regex"
    );
    let log = bench.dir.join("sshd.log");
    for lines in [LINES / 10, LINES] {
        sshd_log(&log, lines);
        let cost = |program: &str, words: &[&str]| {
            let mut command = Command::new(program);
            command.args(words).env("TZ", "UTC").stderr(Stdio::null());
            run(&mut command, b"", Feed::Stream)
        };
        let path = log.to_str().unwrap();
        let ours = cost(F2B_PIPE, &["test", path, "sshd", "-c", STOCK]);
        let theirs = cost("fail2ban-regex", &[path, "sshd"]);
        for (name, cost) in [("fail2ban-regex", theirs), ("f2b-pipe test", ours)] {
            println!(
                "  {name:<18}{lines:>10}{:>10.2}{:>10.3}{:>12.1}{:>17.1}x",
                cost.cpu,
                cost.cpu / lines as f64 * 1e6,
                cost.peak,
                theirs.cpu / cost.cpu,
            );
        }
    }
    fs::remove_file(log).expect("it was written");
}

/// As sshd writes under attack: three tries in ten from everywhere, the others from one network.
fn sshd_log(path: &Path, lines: usize) {
    let mut log = BufWriter::new(fs::File::create(path).expect("a file can be written"));
    let mut random = Random(5);
    let mut millis = BEGAN * 1000;
    for _ in 0..lines {
        millis += random.below(200);
        let ip = match random.below(10) {
            0..=2 => format!(
                "{}.{}.{}.{}",
                11 + random.below(190),
                random.below(256),
                random.below(256),
                1 + random.below(254)
            ),
            _ => format!("203.0.113.{}", 1 + random.below(250)),
        };
        let port = 1024 + random.below(64_000);
        let text = match random.below(20) {
            0..=6 => format!(
                "Failed password for {} from {ip} port {port} ssh2",
                random.pick(&["root", "admin", "invalid user test", "git"])
            ),
            7..=8 => format!(
                "Invalid user {} from {ip} port {port}",
                random.pick(&["oracle", "test", "ubnt"])
            ),
            9..=11 => format!("Connection closed by {ip} port {port} [preauth]"),
            12..=13 => {
                "pam_unix(sshd:session): session opened for user deploy by (uid=0)".to_owned()
            }
            14..=15 => format!("Received disconnect from {ip} port {port}:11: Bye Bye [preauth]"),
            16..=17 => {
                format!("Accepted publickey for deploy from {ip} port {port} ssh2: RSA SHA256:Zm9v")
            }
            _ => format!(
                "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={ip}  user=root"
            ),
        };
        let pid = 1000 + random.below(29_000);
        writeln!(log, "{} host sshd[{pid}]: {text}", syslog(millis / 1000))
            .expect("a file can be written");
    }
    log.flush().expect("a file can be written");
}

/// `Nov 25 07:00:00`
fn syslog(seconds: u64) -> String {
    let time = chrono::DateTime::from_timestamp(seconds as i64, 0).expect("a time of our days");
    time.format("%b %e %H:%M:%S").to_string()
}

/// A folder like the stock one with every jail enabled, all on one log; the configuration that imports it.
fn all_jails(bench: &Bench) -> PathBuf {
    let folder = bench.dir.join("fail2ban");
    let _ = fs::remove_dir_all(&folder);
    let copied = Command::new("cp")
        .args(["-r", STOCK])
        .arg(&folder)
        .status()
        .expect("cp starts");
    assert!(copied.success());
    let stock = fs::read_to_string(folder.join("jail.conf")).expect("the stock jails");
    let log = bench.dir.join("all.log");
    let mut own = format!(
        "[DEFAULT]\nenabled = true\nbackend = auto\nlogpath = {}\n",
        log.display()
    );
    let names = stock.lines().filter_map(|line| line.strip_prefix('['));
    for name in names.filter_map(|line| line.strip_suffix(']')) {
        if !matches!(name, "DEFAULT" | "INCLUDES") {
            own.push_str(&format!(
                "[{name}]\nlogpath = {}\nbackend = auto\n",
                log.display()
            ));
        }
    }
    fs::write(folder.join("jail.local"), own).expect("a file can be written");
    let config = bench.dir.join("all.toml");
    let toml = format!(
        "[fail2ban]\nconfig = {:?}\n[firewall]\nbackend = \"dry-run\"\n",
        folder.display().to_string()
    );
    fs::write(&config, toml).expect("a file can be written");
    config
}

/// What other programs write into the same logs.
fn noise_line(random: &mut Random, seconds: u64, form: usize) -> String {
    let n = random.below(100_000);
    let text = match random.below(6) {
        0 => format!(
            "host CRON[{n}]: (root) CMD (command -v debian-sa1 > /dev/null && debian-sa1 1 1)"
        ),
        1 => format!("host systemd[1]: session-{n}.scope: Deactivated successfully."),
        2 => format!(
            "host kernel: [{n}.123456] eth0: Link is Up - 1000Mbps/Full - flow control rx/tx"
        ),
        3 => format!(
            "host postfix/qmgr[{n}]: 4F2A{n}: from=<a@example.org>, size={n}, nrcpt=1 (queue active)"
        ),
        4 => format!(
            "host dhclient[{n}]: DHCPACK of 192.0.2.{} from 192.0.2.1",
            n % 250
        ),
        _ => format!(
            "host rsyslogd: [origin software=\"rsyslogd\" x-pid=\"{n}\"] rsyslogd was HUPed"
        ),
    };
    let time = chrono::DateTime::from_timestamp(seconds as i64, 0).expect("a time of our days");
    match form {
        0 => format!("{} {text}", syslog(seconds)),
        _ => format!("{} {text}", time.format("%Y-%m-%d %H:%M:%S")),
    }
}

/// Nanoseconds of a line without a match, in every stock jail.
fn noise(config: &Path) {
    const ROUNDS: usize = 20_000;
    println!("\nLines that match nothing: {ROUNDS} lines in each stock jail, ten a second");
    for (form, name) in ["syslog", "with the year"].iter().enumerate() {
        let mut random = Random(11);
        let lines: Vec<String> = (0..ROUNDS)
            .map(|n| noise_line(&mut random, BEGAN + n as u64 / 10, form))
            .collect();
        let mut costs: Vec<(f64, String)> = Vec::new();
        let mut matched = 0;
        for jail in &config::load(config).config.jails {
            let Some(raw) = jail.raw.as_ref().filter(|raw| !raw.counts_bans) else {
                continue;
            };
            let mut matcher = Matcher::new(&raw.rules).expect("it loads");
            let mut failures = Vec::new();
            let mut judge = |line: &String| {
                let now = BEGAN as f64;
                let clock = Clock { now, today: now };
                let _ = matcher.line(line, Stamp::InText, Phase::Timeless, clock, &mut failures);
            };
            lines.iter().take(100).for_each(&mut judge);
            let began = thread_cpu();
            lines.iter().for_each(&mut judge);
            costs.push((
                (thread_cpu() - began).as_secs_f64() / ROUNDS as f64 * 1e9,
                jail.name.clone(),
            ));
            matched += failures.len();
        }
        costs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let shown = |at: usize| format!("{} {:.0} ns", costs[at].1, costs[at].0);
        println!(
            "  dates {name}: {} jails: median {:.0} ns; most: {}, {}, {}; {matched} lines matched",
            costs.len(),
            costs[costs.len() / 2].0,
            shown(costs.len() - 1),
            shown(costs.len() - 2),
            shown(costs.len() - 3),
        );
    }
}

/// Until the first ban by lines that were there, and the memory then and after every jail has seen lines.
fn start(bench: &Bench, config: &Path) {
    println!("\nStart of `watch` with all stock jails on one log");
    let log = bench.dir.join("all.log");
    let now = chrono::Local::now().format("%b %e %H:%M:%S").to_string();
    let failed: String = (0..10)
        .map(|n| {
            format!("{now} host sshd[{n}]: Failed password for root from 203.0.113.9 port 1 ssh2\n")
        })
        .collect();
    fs::write(&log, failed).expect("a file can be written");
    let runtime = bench.dir.join("runtime-all");
    let _ = fs::remove_dir_all(&runtime);
    let mut command = Command::new(F2B_PIPE);
    command
        .args(["watch", "--dry-run", "--config"])
        .arg(config)
        .arg("--runtime-dir")
        .arg(&runtime)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().expect("it starts");
    let mut said = BufReader::new(child.stderr.take().expect("stderr is a pipe")).lines();
    let banned = |line: &std::io::Result<String>| {
        line.as_ref()
            .is_ok_and(|line| line.contains("203.0.113.9") && line.contains("sshd"))
    };
    let first = said.any(|line| banned(&line));
    let took = began.elapsed();
    let resident = |line| memory(child.id(), line).unwrap_or(f64::NAN);
    let at_once = resident("VmRSS:");
    let drain = std::thread::spawn(move || said.count());
    let mut random = Random(11);
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(&log)
        .expect("it is there");
    for _ in 0..20_000 {
        let line = noise_line(&mut random, BEGAN, 0);
        writeln!(file, "{line}").expect("a file can be written");
    }
    std::thread::sleep(Duration::from_secs(6));
    println!(
        "  first ban {}after {:.3} s; resident {at_once:.1} MiB then, {:.1} MiB (at most {:.1}) after 20,000 lines in each",
        if first { "" } else { "NEVER SEEN, end " },
        took.as_secs_f64(),
        resident("VmRSS:"),
        resident("VmHWM:"),
    );
    child.kill().expect("it was started");
    child.wait().expect("it was started");
    let _ = drain.join();
}

/// What this thread has used: other programs do not count.
fn thread_cpu() -> Duration {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    Duration::from(nix::time::clock_gettime(clock).expect("the kernel knows"))
}

/// The longest that a hostile line takes, for every stock filter in every mode.
pub fn hostile() {
    const LINES: usize = 150;
    if !Path::new(STOCK).join("filter.d/sshd.conf").is_file() {
        println!("\nHostile lines: fail2ban is not installed, whose filters are measured");
        return;
    }
    let mut times: Vec<(Duration, String, usize)> = Vec::new();
    let filters = super::hostile::filters(LINES, "0");
    for filter in &filters {
        let mut matcher = Matcher::new(&filter.rules).expect("it loads");
        let mut failures = Vec::new();
        let now = super::hostile::NOW;
        let clock = Clock { now, today: now };
        for (line, _) in &filter.lines {
            let began = thread_cpu();
            let _ = matcher.line(line, Stamp::InText, Phase::Timeless, clock, &mut failures);
            times.push((thread_cpu() - began, filter.name.clone(), line.len()));
        }
    }
    times.sort();
    println!(
        "\nHostile lines: {LINES} lines of each of {} filters and modes, {} in all; median {:.3} ms, one in a hundred above {:.3} ms, most:",
        filters.len(),
        times.len(),
        times[times.len() / 2].0.as_secs_f64() * 1e3,
        times[times.len() * 99 / 100].0.as_secs_f64() * 1e3,
    );
    for (time, name, bytes) in times.iter().rev().take(5) {
        println!(
            "  {:>8.2} ms  {bytes:>7} bytes  {name}",
            time.as_secs_f64() * 1e3
        );
    }
}
