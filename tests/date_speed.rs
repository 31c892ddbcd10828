//! What the date of a line costs. Prints nanoseconds a line; judges nothing.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "figures for people"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use f2b_pipe::date::Detector;
use nix::time::{ClockId, clock_gettime};

/// What this thread took: other processes make no difference.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

const NOW: f64 = 1_780_000_000.0;

/// Nanoseconds a line of 20,000 lines, the best of seven rounds.
fn cost(name: &str, patterns: &[&str], line: impl Fn(usize) -> String) {
    let patterns: Vec<_> = patterns.iter().map(|&p| p.to_owned()).collect();
    let lines: Vec<_> = (0..20_000).map(line).collect();
    let mut detector = Detector::new(&patterns, None).unwrap();
    let mut best = f64::MAX;
    for _ in 0..7 {
        let start = cpu();
        for line in &lines {
            black_box(detector.find(black_box(line), NOW));
        }
        best = best.min((cpu() - start).as_secs_f64() * 1e9 / 20_000.0);
    }
    eprintln!("{best:7.0} ns  {name}");
}

#[test]
#[ignore = "figures, not a judgement"]
fn a_line_costs_so_much() {
    let clock = |i: usize| format!("{:02}:{:02}:{:02}", i / 3600 % 24, i / 60 % 60, i % 60);
    let sshd =
        "host sshd[712]: Failed password for invalid user admin from 192.0.2.7 port 40022 ssh2";
    let ip = |i: usize| format!("{}.{}.{}.{}", i % 223 + 1, i % 7, i * 31 % 256, i * 7 % 256);
    let get = "\"GET /index.html HTTP/1.1\" 200 5124 \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\"";
    let start = Instant::now();
    Detector::new(&[], None).unwrap();
    eprintln!("{:7} ns  the first detector", start.elapsed().as_nanos());
    let start = Instant::now();
    Detector::new(&[], None).unwrap();
    eprintln!("{:7} ns  the second detector", start.elapsed().as_nanos());
    cost("syslog, ten lines a second", &[], |i| {
        format!("Jan 23 {} {sshd}", clock(i / 10))
    });
    cost("syslog, a second each", &[], |i| {
        format!("Jan 23 {} {sshd}", clock(i))
    });
    cost("syslog, a second each, {^LN-BEG}", &["{^LN-BEG}"], |i| {
        format!("Jan 23 {} {sshd}", clock(i))
    });
    cost("ISO with zone, a second each", &[], |i| {
        format!("2026-01-23T{}.123456+01:00 {sshd}", clock(i))
    });
    cost("ISO, a second each", &[], |i| {
        format!("2026-01-23 {} {sshd}", clock(i))
    });
    let apache = |i: usize| format!("{} - - [23/Jan/2026:{} +0100] {get}", ip(i), clock(i / 10));
    cost("combined, default list", &[], apache);
    cost(
        "combined, ^[^\\[]*\\[({DATE})",
        &["^[^\\[]*\\[({DATE})"],
        apache,
    );
    cost("combined, one address", &[], |i| {
        format!("192.0.2.7 - - [23/Jan/2026:{} +0100] {get}", clock(i / 10))
    });
    cost("error log", &["{^LN-BEG}"], |i| {
        format!(
            "[Fri Jan 23 {}.123456 2026] [core:error] [pid 712] [client 192.0.2.7:1234] AH00126: Invalid URI",
            clock(i / 10)
        )
    });
    cost("no date, default list", &[], |i| format!("{sshd} {i}"));
    cost("no date, many digits", &[], |i| {
        format!(
            "kernel: [{i}.123456] IN=eth0 OUT= MAC=00:11:22:33:44:55 SRC={} DST=192.0.2.1 LEN=60 TOS=0x00 PREC=0x00 TTL=51 ID={i} DF PROTO=TCP SPT=40022 DPT=23 WINDOW=29200",
            ip(i)
        )
    });
    cost("no date, {^LN-BEG}", &["{^LN-BEG}"], |i| {
        format!("{sshd} {i}")
    });
    cost("every second line without", &[], |i| {
        if i % 2 == 0 {
            sshd.to_owned()
        } else {
            format!("Jan 23 {} {sshd}", clock(i))
        }
    });
    cost("epoch", &["{^LN-BEG}Epoch"], |i| {
        format!("[{}] nsd[712]: query from 192.0.2.7", 1_780_000_000 + i)
    });
}
