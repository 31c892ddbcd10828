//! What grows: clients, jails, memory.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::Bench;
use super::generate::{Format, Spread, Traffic};
use super::measure::{Feed, median, memory as memory_of, run};

/// CPU per line and memory, with 10^3 to 10^6 clients that all ask equally often.
pub fn clients(bench: &Bench) {
    println!(
        "\nClients: a million lines as one stream, each client as often as the others; median of 3"
    );
    println!(
        "  {:>9}{:>10}{:>10}{:>12}",
        "clients", "CPU s", "µs/line", "peak MiB"
    );
    for clients in [1_000, 10_000, 100_000, 1_000_000] {
        let traffic = Traffic {
            clients,
            spread: Spread::Even,
            ..Traffic::day(Format::F2b)
        };
        let lines = traffic.bytes();
        let costs: Vec<_> = (0..3)
            .map(|_| {
                bench.clear();
                run(
                    &mut bench.f2b_pipe(None, &["--format=f2b"]),
                    &lines,
                    Feed::Stream,
                )
            })
            .collect();
        let cpu = median(costs.iter().map(|c| c.cpu).collect());
        let peak = median(costs.iter().map(|c| c.peak).collect());
        println!(
            "  {clients:>9}{cpu:>10.3}{:>10.3}{peak:>12.1}",
            cpu / traffic.lines as f64 * 1e6
        );
    }
}

/// CPU per line with 1 to 100 jails of an administrator's own, which look at status, path and agent.
pub fn jails(bench: &Bench) {
    println!(
        "\nJails: a million lines as one stream; each jail has a path, every third an agent, too; median of 3"
    );
    println!(
        "  {:>9}{:>10}{:>10}{:>12}",
        "jails", "CPU s", "µs/line", "peak MiB"
    );
    let traffic = Traffic::day(Format::F2b);
    let lines = traffic.bytes();
    for jails in [1, 3, 10, 30, 100] {
        // The shipped ones are switched off, so that the count is the count.
        let mut toml = String::new();
        for name in [
            "dos",
            "auth",
            "scan",
            "exploit-agent",
            "exploit-path",
            "slow",
            "badrequest",
            "flood",
        ] {
            toml.push_str(&format!("[jail.apache-{name}]\nenabled = false\n"));
        }
        for n in 0..jails {
            toml.push_str(&format!(
                "[jail.own-{n}]\nmaxretry = 20\nstatus = [{}, \"4xx\"]\n",
                200 + n % 7
            ));
            toml.push_str(&format!(
                "path = ['^/secret-{n}/', '(?i)/wp-[a-z]+{n}\\.php$']\n"
            ));
            if n % 3 == 0 {
                toml.push_str(&format!(
                    "agent = ['(?i)badbot-{n}', 'scan{n}er/[0-9.]+']\n"
                ));
            }
        }
        let config = bench.dir.join("jails.toml");
        fs::write(&config, toml).expect("a file can be written");
        let costs: Vec<_> = (0..3)
            .map(|_| {
                bench.clear();
                run(
                    &mut bench.f2b_pipe(Some(&config), &["--format=f2b"]),
                    &lines,
                    Feed::Stream,
                )
            })
            .collect();
        let cpu = median(costs.iter().map(|c| c.cpu).collect());
        let peak = median(costs.iter().map(|c| c.peak).collect());
        println!(
            "  {jails:>9}{cpu:>10.3}{:>10.3}{peak:>12.1}",
            cpu / traffic.lines as f64 * 1e6
        );
    }
}

/// Resident memory with little traffic, after a million different clients, after another million.
pub fn memory(bench: &Bench) {
    println!("\nMemory: resident, MiB, with the shipped jails");
    let traffic = |lines, first_client| {
        Traffic {
            lines,
            clients: 1_000_000,
            first_client,
            spread: Spread::Even,
            ..Traffic::day(Format::F2b)
        }
        .bytes()
    };
    bench.clear();
    let mut command: Command = bench.f2b_pipe(None, &["--format=f2b"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut pipe = child.stdin.take().expect("stdin is a pipe");
    for (name, lines) in [
        ("after 1,000 lines", traffic(1_000, 0)),
        ("after a million different clients", traffic(1_000_000, 0)),
        ("after another million", traffic(1_000_000, 1_000_000)),
        ("after a third million", traffic(1_000_000, 2_000_000)),
    ] {
        pipe.write_all(&lines).expect("it reads");
        // Until the pipe is empty and a maintenance tick has passed.
        thread::sleep(Duration::from_millis(1500));
        let now = memory_of(child.id(), "VmRSS:").unwrap_or(f64::NAN);
        let peak = memory_of(child.id(), "VmHWM:").unwrap_or(f64::NAN);
        println!("  {name:<36}{now:>8.1}   peak {peak:.1}");
    }
    drop(pipe);
    child.wait().expect("it was started");
}
