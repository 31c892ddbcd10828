//! What does not end it, and what does.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Piped, World, alive, bytes_of, secs, wait_until};

const CONFIG: &str = "[jail.missing]\nstatus = [404]\nmaxretry = 3\nfindtime = \"1m\"\n";

fn line(ip: &str, status: u16) -> String {
    format!("{ip} - - [02/Mar/2026:08:00:00 +0000] \"GET /x HTTP/1.1\" {status} 1 \"-\" \"-\"")
}

fn start(world: &World) -> Piped {
    world.config(CONFIG);
    let tee = world.path("access.log").display().to_string();
    world.pipe(1 << 16, &["--format", "combined", "--tee", &tee])
}

#[track_caller]
fn lines_arrive(world: &World, count: usize) {
    let log = world.path("access.log");
    wait_until(&format!("{count} lines"), secs(3), || {
        bytes_of(&log).iter().filter(|&&b| b == b'\n').count() == count
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn no_signal_of_httpd_s_ends_it_while_the_pipe_lives_and_end_of_file_does_at_once() {
    let world = World::new();
    let mut piped = start(&world);
    let mut lines = 0;
    let signals = [
        Signal::SIGTERM,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGINT,
        Signal::SIGWINCH,
        Signal::SIGPIPE,
        Signal::SIGTERM,
    ];
    for which in signals {
        piped.line(&line("198.51.100.7", 200));
        lines += 1;
        lines_arrive(&world, lines);
        piped.signal(which);
        piped.signal(which);
    }
    // It still judges.
    for _ in 0..3 {
        piped.line(&line("198.51.100.66", 404));
    }
    lines_arrive(&world, lines + 3);
    world.wait_banned("missing", "198.51.100.66");
    std::thread::sleep(Duration::from_millis(300));
    assert!(alive(piped.pid()), "a signal ended it: {}", piped.said());
    let closed = Instant::now();
    let status = piped.close(secs(5)).expect("end of file ends it");
    let took = closed.elapsed();
    assert!(status.success(), "{status:?} {}", piped.said());
    assert!(
        took < Duration::from_millis(200),
        "{took:?} after end of file"
    );
}

/// Each signal at the worst time: before the first line, where httpd's first copy lives for some milliseconds.
#[test]
#[ignore = "needs root and network namespaces"]
fn end_of_file_without_a_line_ends_it_and_leaves_nothing_behind() {
    let world = World::new();
    let mut piped = start(&world);
    let status = piped.close(secs(2)).expect("its end");
    assert!(status.success(), "{status:?}");
    assert!(
        !world.path("access.log").exists(),
        "it made a log for nothing"
    );
    let sets = world.sets();
    assert!(sets.is_empty(), "it made sets for nothing: {sets:?}");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn what_was_queued_at_end_of_file_is_teed_and_judged() {
    let world = World::new();
    let mut piped = start(&world);
    piped.line(&line("198.51.100.7", 200));
    lines_arrive(&world, 1);
    piped.signal(Signal::SIGSTOP);
    for n in 0..400 {
        let ip = if n % 100 == 0 {
            "198.51.100.66"
        } else {
            "198.51.100.7"
        };
        piped.line(&line(ip, if n % 100 == 0 { 404 } else { 200 }));
    }
    piped.signal(Signal::SIGTERM);
    piped.signal(Signal::SIGCONT);
    let status = piped.close(secs(3)).expect("its end");
    assert!(status.success(), "{status:?}");
    lines_arrive(&world, 401);
    assert_eq!(world.banned("missing"), ["198.51.100.66"]);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_lone_line_does_not_wait() {
    let world = World::new();
    let piped = start(&world);
    piped.line(&line("198.51.100.66", 404));
    lines_arrive(&world, 1);
    std::thread::sleep(Duration::from_millis(500));
    piped.line(&line("198.51.100.66", 404));
    lines_arrive(&world, 2);
    let written = Instant::now();
    piped.line(&line("198.51.100.66", 404));
    // `ipset test` is a process of its own: it takes most of this.
    wait_until("the ban", Duration::from_millis(200), || {
        world
            .on_server("ipset")
            .args(["-q", "test", "f2bp-missing", "198.51.100.66"])
            .status()
            .is_ok_and(|s| s.success())
    });
    eprintln!("in the kernel's set within {:?}", written.elapsed());
}
