//! The annotated sample lines of Debian's fail2ban package, read from the installed package: `test --json` says of each
//! line what fail2ban's own filters say, in all their option sessions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop"
)]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use serde_json::{Value, json};

/// The clock and the zone of the package's samples.
const NOW: &str = "1124013600";
const ZONE: &str = "CET-01CEST-02,M3.5.0,M10.5.0";
/// Lines of all sessions together, fail2ban 1.0.2.
const LINES: usize = 1627;

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn every_sample_line_is_judged_as_by_fail2ban() {
    let tree = std::env::temp_dir().join(format!("f2b-pipe-samples-{}", std::process::id()));
    std::fs::create_dir(&tree).unwrap();
    let oracle = Command::new("/usr/bin/python3")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/oracle/samples.py"
        ))
        .arg(&tree)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(oracle.status.success());
    let text = String::from_utf8(oracle.stdout).unwrap();
    let sessions: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let next = Mutex::new(sessions.iter());
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(session) = next.lock().unwrap().next() else {
                        return;
                    };
                    let differs = judge(session);
                    wrong.lock().unwrap().extend(differs);
                }
            });
        }
    });
    std::fs::remove_dir_all(tree).unwrap();
    let lines: usize = sessions
        .iter()
        .map(|session| session["lines"].as_array().unwrap().len())
        .sum();
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} of {lines} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(lines, LINES, "the package has other samples");
}

/// What of a session's answers differs.
fn judge(session: &Value) -> Vec<String> {
    let (filter, stamped) = (
        session["filter"].as_str().unwrap(),
        session["stamped"] == json!(true),
    );
    let lines = session["lines"].as_array().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_f2b-pipe"));
    command.args([
        "test",
        "--json",
        "--now",
        NOW,
        "--usedns",
        "raw",
        "--config-dir",
        session["dir"].as_str().unwrap(),
    ]);
    if stamped {
        command.arg("--stamped");
    }
    let mut child = command
        .args(["-", filter])
        .env("TZ", ZONE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input: String = lines
        .iter()
        .map(|line| {
            let stamp = if stamped {
                format!("{NOW}\t")
            } else {
                String::new()
            };
            format!("{stamp}{}\n", line["line"].as_str().unwrap())
        })
        .collect();
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = answers
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    if answers.len() != lines.len() {
        return vec![format!(
            "{filter}: {} answers to {} lines",
            answers.len(),
            lines.len()
        )];
    }
    let differs = lines.iter().zip(answers).filter_map(|(line, answer)| {
        let (noted, real) = (&line["noted"], &line["real"]);
        let matches = noted["match"] == json!(true);
        let expected = if real.is_null() {
            json!({"match": false})
        } else {
            let mut expected = real.clone();
            expected["match"] = json!(true);
            expected["more"] = json!([]);
            expected
        };
        // What the package notes of its samples, and what its filters do with them.
        let right = answer == expected && (answer["match"] == json!(true)) == matches;
        (!right).then(|| {
            format!(
                "{filter}: {}\n  is {answer}\n  not {expected}",
                line["line"]
            )
        })
    });
    differs.collect()
}
