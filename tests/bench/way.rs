//! The way of a line alone: parse, match and count in one process, with neither pipe nor bans. Whole processes differ by a
//! twentieth from one run to the next, this by a hundredth: what is changed on the way is measured here first.

use std::path::Path;
use std::sync::Arc;

use f2b_pipe::act::Act;
use f2b_pipe::config::{self, Backend, Config};
use f2b_pipe::exempt::Exempt;
use f2b_pipe::frame::{Framer, Trust};
use f2b_pipe::hit::Arrival;
use f2b_pipe::judge::Judge;
use f2b_pipe::parse;
use f2b_pipe::sift::{Reader, Sifter};
use f2b_pipe::source::stdin::CHUNK_BYTES;
use nix::time::{ClockId, clock_gettime};

use super::generate::{Format, Traffic};
use super::measure::median;

/// Odd, so that there is a middle one.
const REPETITIONS: usize = 11;
/// Chunks of a stream come as fast as they are judged.
const CHUNK_US: u64 = 1200;

/// CPU per line with the shipped jails.
pub fn measure() {
    println!("\nThe way of a line, in one process: shipped jails; {REPETITIONS} times");
    println!("  {:<12}{:>14}{:>14}", "ns/line", "least", "median");
    let mut config = config::from_text(Path::new("none"), "").config;
    config.firewall.backend = Backend::DryRun;
    let config = Arc::new(config);
    for (name, format) in [("combined", Format::Combined), ("f2b", Format::F2b)] {
        let traffic = Traffic::day(format);
        let lines = traffic.bytes();
        let once = || seconds(&config, name, &lines) / traffic.lines as f64 * 1e9;
        let all: Vec<f64> = (0..REPETITIONS).map(|_| once()).collect();
        let least = all.iter().copied().fold(f64::INFINITY, f64::min);
        println!("  {name:<12}{least:>14.1}{:>14.1}", median(all));
    }
}

fn seconds(config: &Arc<Config>, format: &str, lines: &[u8]) -> f64 {
    let format = parse::Format::compile(format).unwrap();
    let mut sifter = Sifter::new(config, Reader::Access(format)).unwrap();
    let mut judge = Judge::new(
        Arc::clone(config),
        Exempt::of_config_only(config),
        Act::new(config),
        Arc::default(),
    );
    judge.notice_who_still_comes();
    let mut framer = Framer::default();
    // As they come out of a pipe: into memory that was used before.
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut used = 0.0;
    for (chunk, n) in lines.chunks(CHUNK_BYTES).zip(0..) {
        let chunk_read = &mut buffer[..chunk.len()];
        chunk_read.copy_from_slice(chunk);
        let now = Arrival(n * CHUNK_US / 1000);
        let begun = cpu();
        framer.feed(chunk_read, Trust::Whole, |lines, trust| {
            sifter.lines(lines, trust, &mut |batch| {
                judge.judge(batch, now, &mut |_| {})
            });
        });
        used += cpu() - begun;
    }
    assert_eq!(sifter.tally().unparsed, 0);
    used
}

/// Seconds of this thread.
fn cpu() -> f64 {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    now.tv_sec() as f64 + now.tv_nsec() as f64 / 1e9
}
