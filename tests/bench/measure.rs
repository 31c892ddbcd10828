//! Runs a program on a feed of lines and says what that cost the program: not the feeder.

use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// How lines get into the pipe.
#[derive(Clone, Copy, Debug)]
pub enum Feed {
    /// As `cat` writes: as much as goes in.
    Stream,
    /// As httpd writes: one write() a line, evenly spaced.
    PerSecond(u32),
}

/// What a run cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// User and system seconds of the child (and its children).
    pub cpu: f64,
    /// Seconds from the first byte to its end.
    pub wall: f64,
    /// Largest resident size, MiB.
    pub peak: f64,
}

/// `cat` writes as much at once.
const CHUNK: usize = 128 * 1024;

/// Feeds `lines` to `command` and waits for its end.
pub fn run(command: &mut Command, lines: &[u8], feed: Feed) -> Cost {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    let mut pipe = child.stdin.take().expect("stdin is a pipe");
    let pid = child.id();
    let before = children_cpu();
    let ended = AtomicBool::new(false);
    // Time to start: an httpd starts its loggers once.
    thread::sleep(Duration::from_millis(20));
    let began = Instant::now();
    let (wall, peak) = thread::scope(|scope| {
        let watcher = scope.spawn(|| peak_memory(pid, &ended));
        let fed = match feed {
            Feed::Stream => lines
                .chunks(CHUNK)
                .try_for_each(|chunk| pipe.write_all(chunk)),
            Feed::PerSecond(rate) => paced(&mut pipe, lines, rate),
        };
        drop(pipe);
        let status = child.wait();
        let wall = began.elapsed().as_secs_f64();
        ended.store(true, Ordering::Relaxed);
        let status = status.expect("it was started");
        assert!(
            status.success() && fed.is_ok(),
            "{command:?} ended with {status}; {fed:?}"
        );
        (wall, watcher.join().expect("it only reads"))
    });
    Cost {
        cpu: children_cpu() - before,
        wall,
        peak,
    }
}

/// Spins between writes: a sleep wakes 50 microseconds late, and lines would come in bursts that no httpd writes.
pub fn paced(pipe: &mut impl Write, lines: &[u8], rate: u32) -> io::Result<()> {
    let gap = Duration::from_secs(1) / rate;
    let mut due = Instant::now();
    for line in lines.split_inclusive(|&b| b == b'\n') {
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        pipe.write_all(line)?;
        due += gap;
    }
    Ok(())
}

/// Seconds of all children that were waited for.
pub fn children_cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel knows");
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// The kernel forgets the mark when the process ends, so it is read until then; seldom, as who reads it takes a processor
/// away from it.
fn peak_memory(pid: u32, ended: &AtomicBool) -> f64 {
    let mut peak = 0.0;
    while !ended.load(Ordering::Relaxed) {
        peak = memory(pid, "VmHWM:").unwrap_or(peak);
        thread::sleep(Duration::from_millis(30));
    }
    peak
}

/// A line of /proc/PID/status, in MiB.
pub fn memory(pid: u32, line: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rest = status.lines().find_map(|l| l.strip_prefix(line))?;
    let kib: f64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
