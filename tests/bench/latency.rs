//! From the write of the deciding line to the entry in the kernel, one line at a time: banned by the logger itself, and by
//! `watch`.

use std::fs;
use std::hint::spin_loop;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use f2b_pipe::act::firewall::Firewall as _;
use f2b_pipe::act::ipset::Ipset;
use f2b_pipe::act::{Kind, SetRef};
use f2b_pipe::client::Client;
use f2b_pipe::exempt::Target;

use super::Bench;

const LINES: usize = 3_000;
/// Between two lines the program goes to sleep, as it does on an idle server.
const GAP: Duration = Duration::from_millis(3);
/// Between two questions to the kernel; each holds the lock that the ban needs.
const ASK_EVERY: Duration = Duration::from_micros(15);
/// One line is enough.
const CONFIG: &str = "[jail.bench]\nmaxretry = 1\npath = ['^/bench$']\n";

/// Prints the distribution.
pub fn measure(bench: &Bench) {
    println!(
        "\nLatency: one line at a time, each from a new address, from its write() to the entry in the kernel"
    );
    if !bench.real {
        println!("  not measured: it needs a private network namespace");
        return;
    }
    let config = bench.dir.join("latency.toml");
    fs::write(&config, CONFIG).expect("a file can be written");
    bench.clear();
    one_by_one(bench, &config, "by the logger itself", 31);
    bench.clear();
    let mut watch = bench
        .watch(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let socket = bench.dir.join("runtime/latency.feed");
    let begun = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "watch listens");
        thread::sleep(Duration::from_millis(20));
    }
    one_by_one(bench, &config, "through watch", 32);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(watch.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
    watch.wait().expect("it was started");
}

/// `first`: of each address.
fn one_by_one(bench: &Bench, config: &Path, how: &str, first: u8) {
    let mut child = bench
        .f2b_pipe(Some(config), &["--format=f2b"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let pipe = child.stdin.take().expect("stdin is a pipe");
    // A thread of its own: without rights there is no way back from idle.
    let took = thread::scope(|scope| {
        let asking = scope.spawn(|| ask_for_each(bench, pipe, first));
        asking.join().expect("every line is banned")
    });
    child.wait().expect("it was started");
    print(how, took);
}

/// From each line's write to its entry in the kernel. The first one makes the sets and the chain.
fn ask_for_each(bench: &Bench, mut pipe: ChildStdin, first: u8) -> Vec<Duration> {
    give_way();
    let mut kernel = Ipset::open().expect("the kernel has ip_set");
    let set = SetRef::new("f2bp-", "bench", Kind::Ip4, 64);

    let mut took = Vec::with_capacity(LINES);
    for n in 0..=LINES {
        let [_, b, c, d] = (n as u32 + 1).to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(first, b, c, d));
        let who = Target::Client(Client::new(address));
        let line = format!(
            "f2b:177240960000{n}:7f2b {address} {address} www.example.org 200 12 300 \"-\" \"GET /bench HTTP/1.1\" \"-\" \"-\" f2b:177240960000{n}:7f2b\n"
        );
        thread::sleep(GAP);
        let written = Instant::now();
        pipe.write_all(line.as_bytes()).expect("it reads");
        loop {
            let asked = Instant::now();
            if kernel.test(&set, who).expect("the kernel can be asked") {
                break;
            }
            assert!(
                written.elapsed() < Duration::from_secs(10),
                "line {n} was not banned; see {}",
                bench.dir.join("stderr").display()
            );
            while asked.elapsed() < ASK_EVERY {
                spin_loop();
            }
        }
        took.push(written.elapsed());
    }
    took
}

/// Who asks all the time is no part of an idle machine: on the processor that the program wakes up on, it would keep it
/// waiting until the next tick of the clock, 4 ms.
fn give_way() {
    let thread = nix::unistd::gettid().to_string();
    let done = Command::new("chrt")
        .args(["--idle", "--pid", "0", &thread])
        .status();
    if !done.is_ok_and(|status| status.success()) {
        println!(
            "  without chrt (util-linux): the questions themselves delay some bans until the next tick"
        );
    }
}

fn print(how: &str, mut took: Vec<Duration>) {
    let slowest = took.remove(0);
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!(
        "  {how}: {} lines: p50 {:.0} µs, p90 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs, max {:.0} µs; the first one, with all sets and rules to make, {:.1} ms",
        took.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0),
        slowest.as_secs_f64() * 1e3
    );
}
