//! All at once: a flood of a million clients through the pipe, ten thousand bans a second, and logs of sshd that grow by ten
//! thousand lines a second each.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::generate::{Format, Spread, Traffic};
use super::measure::{children_cpu, paced};
use super::{Bench, F2B_PIPE};

const SECONDS: usize = 10;
/// Through the pipe, one write() a line; each fifth is of somebody who is banned by it.
const LINES: u32 = 50_000;
const BANS_EACH: usize = 5;
/// Appended to each log every hundredth of a second.
const LOG_LINES: usize = 100;
const LOGS: usize = 2;
/// Failed passwords of one address, after which it is banned: 2,000 bans a second and log.
const MAXRETRY: usize = 5;
/// How long the program may take to catch up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Prints what came through, and how late.
pub fn measure(bench: &Bench) {
    println!(
        "\nLoad: {LINES} lines a second of a million clients, one write() a line, each {BANS_EACH}th a ban; beside it {LOGS} logs \
         of sshd,\n  {} lines a second each; {SECONDS} s",
        LOG_LINES * 100
    );
    let logs: Vec<_> = (0..LOGS)
        .map(|n| bench.dir.join(format!("auth-{n}.log")))
        .collect();
    for log in &logs {
        fs::write(log, "").expect("a file can be written");
    }
    let config = bench.dir.join("load.toml");
    let paths: Vec<String> = logs
        .iter()
        .map(|log| format!("{:?}", log.display().to_string()))
        .collect();
    let jails = format!(
        "[jail.bench]\nmaxretry = 1\npath = ['^/bench$']\n[jail.sshd]\nfilter = \"sshd\"\nmaxretry = {MAXRETRY}\nlogpath = [{}]\n",
        paths.join(", ")
    );
    fs::write(&config, jails).expect("a file can be written");
    bench.clear();
    let teed = bench.dir.join("out/teed");
    let tee = format!("--tee={}", teed.display());
    let before = children_cpu();
    let mut child = bench
        .f2b_pipe(Some(&config), &["--format=f2b", &tee])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut pipe = child.stdin.take().expect("stdin is a pipe");
    let lines = lines();
    // It reads a log from the end that it found.
    pipe.write_all(b"\n").expect("it reads");
    thread::sleep(Duration::from_secs(3));
    let began = Instant::now();
    let stalled = thread::scope(|scope| {
        for (n, log) in logs.iter().enumerate() {
            scope.spawn(move || grow(log, n));
        }
        paced(&mut pipe, &lines, LINES).expect("it reads");
        began.elapsed().as_secs_f64() - SECONDS as f64
    });
    let failures = LOGS * LOG_LINES * 100 * SECONDS;
    let (late, told) = caught_up(bench, &config, failures);
    drop(pipe);
    child.wait().expect("it was started");
    let written = fs::metadata(&teed).map_or(0, |file| file.len());
    assert_eq!(written, lines.len() as u64 + 1, "bytes of the tee");
    let number = |jail: &str, what: &str| {
        let jails = told["jails"].as_array().expect("jails");
        let jail = jails.iter().find(|known| known["name"] == jail);
        jail.and_then(|jail| jail[what].as_u64()).unwrap_or(0)
    };
    let shed: u64 = told["processes"].as_array().map_or(0, |all| {
        all.iter()
            .filter_map(|process| process["shed"].as_u64())
            .sum()
    });
    println!(
        "  pipe: {} lines, every byte teed; the writer was held up for {:.3} s in all; lines that were not judged: {shed}",
        LINES as usize * SECONDS,
        stalled.max(0.0)
    );
    println!(
        "  bans: {} of {} of httpd's lines, {} of {} of sshd's",
        number("bench", "bans"),
        LINES as usize * SECONDS / BANS_EACH,
        number("sshd", "bans"),
        failures / MAXRETRY
    );
    println!(
        "  logs: {} of {failures} lines counted, {late:.1} s after the last was written; {:.1} CPU s in all",
        number("sshd", "hits"),
        children_cpu() - before
    );
    for log in &logs {
        let _ = fs::remove_file(log);
    }
    bench.clear();
}

/// Those of the flood, with a ban among every few.
fn lines() -> Vec<u8> {
    let traffic = Traffic {
        lines: LINES as usize * SECONDS,
        clients: 1_000_000,
        spread: Spread::Even,
        ..Traffic::day(Format::F2b)
    };
    let mut all = Vec::new();
    for (n, line) in traffic.bytes().split_inclusive(|&b| b == b'\n').enumerate() {
        if n % BANS_EACH == 0 {
            let [_, b, c, d] = (n as u32).to_be_bytes();
            let address = format!("31.{b}.{c}.{d}");
            writeln!(
                all,
                "f2b:177240960000{n}:7f2b {address} {address} www.example.org 200 12 300 \"-\" \"GET /bench HTTP/1.1\" \"-\" \"-\" f2b:177240960000{n}:7f2b"
            )
            .expect("memory can be written");
        } else {
            all.extend_from_slice(line);
        }
    }
    all
}

/// As an attack from everywhere.
fn grow(log: &Path, number: usize) {
    let mut file = File::options().append(true).open(log).expect("it was made");
    let mut due = Instant::now();
    let mut failure = 0;
    for _ in 0..SECONDS * 100 {
        let time = chrono::Local::now().format("%b %e %H:%M:%S");
        let mut text = String::new();
        for _ in 0..LOG_LINES {
            let [_, b, c, d] = ((failure / MAXRETRY) as u32).to_be_bytes();
            failure += 1;
            text.push_str(&format!(
                "{time} www sshd[4711]: Failed password for root from {}.{b}.{c}.{d} port 50022 ssh2\n",
                41 + number
            ));
        }
        file.write_all(text.as_bytes()).expect("it can be written");
        due += Duration::from_millis(10);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Waits until all failures are counted or nothing changes any more; how long that took, seconds, and what `status` says.
fn caught_up(bench: &Bench, config: &Path, failures: usize) -> (f64, Value) {
    let began = Instant::now();
    loop {
        let output = Command::new(F2B_PIPE)
            .args(["status", "--json", "--config"])
            .arg(config)
            .arg("--runtime-dir")
            .arg(bench.dir.join("runtime"))
            .output()
            .expect("it starts");
        let told: Value = serde_json::from_slice(&output.stdout).expect("status is JSON");
        let jails = told["jails"].as_array().expect("jails");
        let sshd = jails.iter().find(|jail| jail["name"] == "sshd");
        let counted = sshd.and_then(|jail| jail["hits"].as_u64()).unwrap_or(0);
        if counted >= failures as u64 || began.elapsed() > PATIENCE {
            return (began.elapsed().as_secs_f64(), told);
        }
        thread::sleep(Duration::from_millis(200));
    }
}
