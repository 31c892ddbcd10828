//! Our own filters (conf/filter.d) on sample lines of what must and what must not match: tests/filters/*.txt, whose form
//! tests/oracle/filters.py tells.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop"
)]

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

const TREE: &str = env!("CARGO_MANIFEST_DIR");

/// What the program says of the lines of a file: `HOST USER`, or `-`.
fn answers(log: &std::path::Path, filter: &str) -> Vec<String> {
    let conf = format!("{TREE}/conf");
    let output = Command::new(env!("CARGO_BIN_EXE_f2b-pipe"))
        .args(["test", "--json", "--usedns", "raw", "--config-dir", &conf])
        .arg(log)
        .arg(filter)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answer = |line: &str| {
        let answer: Value = serde_json::from_str(line).unwrap();
        match answer["match"].as_bool().unwrap() {
            true => {
                let user = answer["groups"]["user"].as_str().unwrap_or("-");
                format!("{} {user}", answer["host"].as_str().unwrap())
            }
            false => "-".to_owned(),
        }
    };
    text.lines().map(answer).collect()
}

#[test]
fn every_filter_finds_what_it_must_and_nothing_else() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(format!("{TREE}/tests/filters"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let (mut lines, mut wrong) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let filter = text
            .lines()
            .find_map(|line| line.strip_prefix("filter "))
            .unwrap();
        let samples: Vec<(&str, &str)> = text
            .lines()
            .filter_map(|line| match line.split_at_checked(2)? {
                ("+ ", rest) => rest.split_once('|'),
                ("- ", rest) => Some(("-", rest)),
                _ => None,
            })
            .collect();
        let log = std::env::temp_dir().join(format!("f2b-pipe-filters-{}", std::process::id()));
        let all: String = samples
            .iter()
            .map(|(_, line)| format!("{line}\n"))
            .collect();
        std::fs::write(&log, all).unwrap();
        let answers = answers(&log, filter);
        std::fs::remove_file(&log).unwrap();
        assert_eq!(answers.len(), samples.len(), "{}", file.display());
        lines += samples.len();
        for ((expected, line), answer) in samples.iter().zip(answers) {
            if answer != *expected {
                wrong.push(format!("{filter}: {line}\n  is {answer}, not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(lines > 100);
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn fail2ban_finds_the_same_with_them() {
    let output = Command::new("/usr/bin/python3")
        .arg(format!("{TREE}/tests/oracle/filters.py"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// Whoever writes a line that is too long to be judged whole would choose where its head ends: `192.0.2.7` of 192.0.2.77.
#[test]
fn a_line_that_is_too_long_finds_nobody() {
    const MAX: usize = 128 * 1024;
    let log = std::env::temp_dir().join(format!("f2b-giant-{}.log", std::process::id()));
    let line = |length: usize| {
        let (head, tail) = (
            "Nov 25 08:00:00 web1 sshd[4711]: Invalid user ",
            " from 192.0.2.77",
        );
        format!(
            "{head}{}{tail}",
            "x".repeat(length - head.len() - tail.len())
        )
    };
    std::fs::write(
        &log,
        format!("{}\n{}\n{}\n", line(MAX), line(MAX + 1), line(200)),
    )
    .unwrap();
    let answers = answers(&log, "sshd");
    std::fs::remove_file(&log).unwrap();
    let hosts: Vec<&str> = answers
        .iter()
        .map(|answer| answer.split(' ').next().unwrap())
        .collect();
    assert_eq!(hosts, ["192.0.2.77", "-", "192.0.2.77"]);
}
