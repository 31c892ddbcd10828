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
