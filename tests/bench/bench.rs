//! What f2b-pipe costs, beside what rotatelogs costs for merely writing the same lines, in one run.
//!
//! `cargo bench` runs everything in some minutes; `cargo bench -- stream latency` these parts only; parts: stream, lines,
//! way, latency, bans, load, clients, jails, memory, filters, hostile. `cargo bench -- generate f2b FILE` writes the million
//! lines (or `combined`). CPU seconds are those of the program alone. Bans are real, in a private network namespace, where
//! the machine allows one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::let_underscore_must_use,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark that cannot go on should stop, and it prints what it measured"
)]

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use self::generate::{Format, Traffic};
use self::measure::{Cost, Feed, median, run};

mod bans;
mod filters;
mod generate;
mod growth;
#[path = "../support/hostile.rs"]
mod hostile;
mod latency;
mod load;
mod measure;
mod way;

/// The program that is measured.
const F2B_PIPE: &str = env!("CARGO_BIN_EXE_f2b-pipe");
/// As the demo's: nobody inside, no rights outside, all gone at the end.
const UNSHARE: [&str; 11] = [
    "--user",
    "--map-user=65534",
    "--map-group=65534",
    "--keep-caps",
    "--net",
    "--ipc",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
];
const PROBE: &str = "mount -t tmpfs bench /run && ip link set lo up";
const PARTS: [&str; 11] = [
    "stream", "lines", "way", "latency", "bans", "load", "clients", "jails", "memory", "filters",
    "hostile",
];
/// Odd, so that there is a middle one.
const REPETITIONS: usize = 11;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        // Only a newline counter: the least that any reader of a pipe can do.
        Some("count") => return count_newlines(),
        Some("inside") => {}
        // `cargo test --benches` runs benchmarks without this word, to see that they start.
        _ if !args.iter().any(|arg| arg == "--bench") => return,
        _ => {
            let probe = Command::new("unshare")
                .args(UNSHARE)
                .args(["--", "sh", "-c", PROBE])
                .output();
            let own = std::env::current_exe().expect("this program has a path");
            if probe.is_ok_and(|probe| probe.status.success()) {
                // Not exec: the first process of a namespace does not hear Ctrl-C.
                let script = format!("{PROBE} && \"$0\" inside real \"$@\"; exit $?");
                let error = Command::new("unshare")
                    .args(UNSHARE)
                    .args(["--", "sh", "-c", &script])
                    .arg(own)
                    .args(args)
                    .exec();
                panic!("cannot start unshare: {error}");
            }
            let error = Command::new(own).args(["inside", "dry"]).args(args).exec();
            panic!("cannot start myself: {error}");
        }
    }
    let real = args.get(1).is_some_and(|word| word == "real");
    let words: Vec<&str> = args
        .iter()
        .skip(2)
        .map(String::as_str)
        .filter(|w| *w != "--bench")
        .collect();
    if let ["generate", format, file] = words[..] {
        let format = if format == "f2b" {
            Format::F2b
        } else {
            Format::Combined
        };
        return fs::write(file, Traffic::day(format).bytes()).expect("the file can be written");
    }
    if let Some(unknown) = words.iter().find(|word| !PARTS.contains(word)) {
        panic!(
            "no part is called {unknown}; there are {}",
            PARTS.join(", ")
        );
    }
    let bench = Bench::new(real);
    bench.header(&words);
    for part in PARTS {
        if words.is_empty() || words.contains(&part) {
            match part {
                "stream" => bench.stream(),
                "lines" => bench.lines(),
                "way" => way::measure(),
                "latency" => latency::measure(&bench),
                "bans" => bans::measure(&bench),
                "load" => load::measure(&bench),
                "clients" => growth::clients(&bench),
                "jails" => growth::jails(&bench),
                "filters" => filters::measure(&bench),
                "hostile" => filters::hostile(),
                _ => growth::memory(&bench),
            }
        }
    }
}

/// Where, and with real bans or without.
pub struct Bench {
    dir: PathBuf,
    real: bool,
}

/// httpd's own piped logger, which only writes: the measure of all others.
const ROTATELOGS: &str = "rotatelogs";

/// One program on one feed, again and again.
struct Contestant<'a> {
    name: &'a str,
    lines: &'a [u8],
    command: Box<dyn Fn() -> Command + 'a>,
    costs: Vec<Cost>,
}

impl Bench {
    fn new(real: bool) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
        fs::create_dir_all(&dir).expect("the target directory can be written");
        Self { dir, real }
    }

    fn header(&self, words: &[&str]) {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
            .unwrap_or("unknown CPU")
            .to_owned();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = read("/proc/sys/kernel/osrelease");
        let bans = if self.real {
            "real, in a private network namespace"
        } else {
            "none (--dry-run): no private network namespace could be made here"
        };
        println!(
            "f2b-pipe {}: cargo bench -- {}",
            env!("CARGO_PKG_VERSION"),
            words.join(" ")
        );
        println!("{cpu}, {cores} cores, Linux {}", kernel.trim());
        println!(
            "{}, load {}",
            chrono::Local::now().format("%Y-%m-%d %H:%M"),
            read("/proc/loadavg").trim()
        );
        println!("bans: {bans}");
    }

    /// f2b-pipe with a configuration (`None`: the shipped one) and further words.
    fn f2b_pipe(&self, config: Option<&Path>, words: &[&str]) -> Command {
        let mut command = Command::new(F2B_PIPE);
        command.arg("run").args(words).arg("--config");
        command.arg(config.unwrap_or(&self.dir.join("there-is-none.toml")));
        command.arg("--runtime-dir").arg(self.dir.join("runtime"));
        command.stderr(fs::File::create(self.dir.join("stderr")).expect("a file can be written"));
        if !self.real {
            command.arg("--dry-run");
        }
        command
    }

    /// f2b-pipe watch, which counts for loggers with the same configuration.
    fn watch(&self, config: &Path) -> Command {
        let mut command = Command::new(F2B_PIPE);
        command.arg("watch").arg("--config").arg(config);
        command.arg("--runtime-dir").arg(self.dir.join("runtime"));
        command.stderr(fs::File::create(self.dir.join("watch")).expect("a file can be written"));
        command
    }

    /// What was written before, and whom earlier runs banned: bans of the last minutes would be restored.
    fn clear(&self) {
        let _ = fs::remove_dir_all(self.dir.join("out"));
        let _ = fs::remove_dir_all(self.dir.join("runtime"));
        fs::create_dir_all(self.dir.join("out")).expect("a directory can be made");
    }

    fn contestants<'a>(
        &'a self,
        combined: &'a [u8],
        f2b: &'a [u8],
        single: bool,
    ) -> Vec<Contestant<'a>> {
        let tee = format!("--tee={}", self.dir.join("out/teed").display());
        let with = move |words: &[&str]| {
            let mut words: Vec<String> = words.iter().map(|&w| w.to_owned()).collect();
            if single {
                words.push("--single-writer".to_owned());
            }
            let refs: Vec<&str> = words.iter().map(String::as_str).collect();
            self.f2b_pipe(None, &refs)
        };
        let tee2 = tee.clone();
        let mut all: Vec<Contestant<'a>> = Vec::new();
        let mut add = |name, lines, command: Box<dyn Fn() -> Command + 'a>| {
            all.push(Contestant {
                name,
                lines,
                command,
                costs: Vec::new(),
            });
        };
        add(ROTATELOGS, combined, Box::new(|| self.rotatelogs()));
        add(
            "newline counter",
            combined,
            Box::new(|| {
                let mut command =
                    Command::new(std::env::current_exe().expect("this program has a path"));
                command.arg("count");
                command
            }),
        );
        add(
            "f2b-pipe, combined",
            combined,
            Box::new(move || with(&["--format=combined"])),
        );
        add(
            "f2b-pipe, combined, tee",
            combined,
            Box::new(move || with(&["--format=combined", &tee])),
        );
        add("rotatelogs, f2b", f2b, Box::new(|| self.rotatelogs()));
        add(
            "f2b-pipe, f2b",
            f2b,
            Box::new(move || with(&["--format=f2b"])),
        );
        add(
            "f2b-pipe, f2b, tee",
            f2b,
            Box::new(move || with(&["--format=f2b", &tee2])),
        );
        all
    }

    fn rotatelogs(&self) -> Command {
        let mut command = Command::new("rotatelogs");
        command.arg(self.dir.join("out/rotated")).arg("86400");
        command
    }

    /// Interleaved, so that a slow moment of the machine meets all of them.
    fn contest(&self, all: &mut [Contestant<'_>], feed: Feed, repetitions: usize) {
        for _ in 0..repetitions {
            for one in &mut *all {
                self.clear();
                one.costs.push(run(&mut (one.command)(), one.lines, feed));
                self.check_written(one);
            }
        }
        self.clear();
        print_table(all);
    }

    /// Who writes has to have written all of it, or his figures are worth nothing.
    fn check_written(&self, one: &Contestant<'_>) {
        let files = fs::read_dir(self.dir.join("out")).expect("the directory was made");
        let written: u64 = files
            .flatten()
            .filter_map(|file| Some(file.metadata().ok()?.len()))
            .sum();
        let writes = one.name.starts_with(ROTATELOGS) || one.name.ends_with("tee");
        let expected = if writes { one.lines.len() as u64 } else { 0 };
        assert_eq!(written, expected, "bytes that {} wrote", one.name);
    }

    /// A million lines as one stream.
    fn stream(&self) {
        let (combined, f2b) = (
            Traffic::day(Format::Combined).bytes(),
            Traffic::day(Format::F2b).bytes(),
        );
        println!(
            "\nOne stream: {} lines of {} clients, {} MB combined, {} MB f2b; median of {REPETITIONS}",
            Traffic::day(Format::F2b).lines,
            Traffic::day(Format::F2b).clients,
            combined.len() / 1_000_000,
            f2b.len() / 1_000_000,
        );
        let mut all = self.contestants(&combined, &f2b, true);
        self.contest(&mut all, Feed::Stream, REPETITIONS);
        let rate = 1e6 / median(all[2].costs.iter().map(|c| c.wall).collect());
        self.fail2ban(&combined, rate);
    }

    /// fail2ban-regex reads a file, so it gets one; it is too slow for a million lines.
    fn fail2ban(&self, lines: &[u8], ours: f64) {
        const PART: usize = 50_000;
        const REGEX: &str = r#"^<HOST> -.*"(GET|POST|HEAD) [^"]*" 404 "#;
        let log = self.dir.join("part.log");
        let part: Vec<u8> = lines
            .split_inclusive(|&b| b == b'\n')
            .take(PART)
            .flatten()
            .copied()
            .collect();
        fs::write(&log, part).expect("a file can be written");
        let mut command = Command::new("fail2ban-regex");
        command
            .args([log.as_os_str(), REGEX.as_ref()])
            .stderr(Stdio::null());
        if Command::new("fail2ban-regex")
            .arg("--version")
            .output()
            .is_err()
        {
            println!("  fail2ban-regex is not installed");
            return;
        }
        let cost = run(&mut command, b"", Feed::Stream);
        let rate = PART as f64 / cost.wall;
        println!(
            "  {:<26}{:>8.3}{:>33.0}{:>12.1}   one failregex, {PART} lines of it, once: f2b-pipe is {:.0} times as fast",
            "fail2ban-regex",
            cost.cpu,
            rate,
            cost.peak,
            ours / rate
        );
    }

    /// As httpd feeds.
    fn lines(&self) {
        const RATE: u32 = 50_000;
        const SECONDS: usize = 5;
        let traffic = |format| {
            Traffic {
                lines: RATE as usize * SECONDS,
                ..Traffic::day(format)
            }
            .bytes()
        };
        let (combined, f2b) = (traffic(Format::Combined), traffic(Format::F2b));
        println!("\nOne write() a line, {RATE} lines a second, {SECONDS} s; median of 3");
        let mut all = self.contestants(&combined, &f2b, false);
        self.contest(&mut all, Feed::PerSecond(RATE), 3);
    }
}

fn print_table(all: &[Contestant<'_>]) {
    let middle =
        |one: &Contestant<'_>, what: fn(&Cost) -> f64| median(one.costs.iter().map(what).collect());
    println!(
        "  {:<26}{:>8}{:>10}{:>12}{:>11}{:>12}",
        "", "CPU s", "µs/line", "rotatelogs", "lines/s", "peak MiB"
    );
    for one in all {
        // Who writes the same lines.
        let reference = all.iter().find(|other| {
            other.name.starts_with(ROTATELOGS) && std::ptr::eq(other.lines, one.lines)
        });
        let reference = reference.map_or(1.0, |other| middle(other, |c| c.cpu));
        let lines = memchr::memchr_iter(b'\n', one.lines).count() as f64;
        let cpu = middle(one, |c| c.cpu);
        println!(
            "  {:<26}{cpu:>8.3}{:>10.3}{:>11.2}x{:>11.0}{:>12.1}",
            one.name,
            cpu / lines * 1e6,
            cpu / reference,
            lines / middle(one, |c| c.wall),
            middle(one, |c| c.peak),
        );
    }
}

/// Reads a mebibyte at a time from a pipe as large.
fn count_newlines() {
    let mut stdin = std::io::stdin().lock();
    let enlarged = nix::fcntl::fcntl(stdin.as_fd(), nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 20));
    enlarged.expect("a pipe can be a mebibyte");
    let mut buffer = vec![0; 1 << 20];
    let mut newlines = 0;
    while let Ok(length @ 1..) = stdin.read(&mut buffer) {
        newlines += memchr::memchr_iter(b'\n', &buffer[..length]).count();
    }
    println!("{newlines}");
}
