//! Dates as fail2ban's own detector finds them: the same bytes cut out, the same time, over thousands of made lines.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on should stop"
)]

use std::process::Command;

use f2b_pipe::date::{Detector, Find};
use serde_json::Value;

/// Zones of the process: by a rule, by name, with a summer of half an hour, without one, with a winter time for a summer.
const ZONES: [&str; 5] = [
    "CET-01CEST-02,M3.5.0,M10.5.0",
    "America/New_York",
    "Australia/Lord_Howe",
    "IST-5:30",
    "Europe/Dublin",
];

fn oracle(arguments: &[&str]) -> String {
    // Debian's own Python, which has the package; another one may come first in PATH.
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/dates.py");
    let out = Command::new("/usr/bin/python3")
        .arg(script)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

fn said(find: &Find) -> (&'static str, Option<(usize, usize)>, Option<f64>) {
    match find {
        Find::None => ("none", None, None),
        Find::At { cut, time } => ("at", Some((cut.start, cut.end)), Some(*time)),
        Find::Impossible { cut } => ("impossible", Some((cut.start, cut.end)), None),
        Find::Stumble => ("stumble", None, None),
        Find::NoDate => ("nodate", None, None),
    }
}

/// Compares all sequences of one seed in the zone of this process; the number of lines, and what differs.
fn compare(seed: &str) -> (usize, Vec<String>) {
    let (mut lines, mut differences) = (0, Vec::new());
    for text in oracle(&[seed]).lines() {
        let case: Value = serde_json::from_str(text).unwrap();
        let patterns: Vec<String> = case["patterns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p.as_str().unwrap().to_owned())
            .collect();
        let made = Detector::new(&patterns, case["zone"].as_str());
        if made.is_err() != case["error"].is_string() {
            differences.push(format!(
                "{patterns:?} {}: {:?}, fail2ban: {}",
                case["zone"],
                made.err(),
                case["error"]
            ));
            continue;
        }
        let Ok(mut detector) = made else { continue };
        for line in case["lines"].as_array().unwrap() {
            let now = line["now"].as_f64().unwrap();
            let find = detector.find_at(
                line["line"].as_str().unwrap(),
                now,
                line["real"].as_f64().unwrap(),
            );
            let (kind, cut, time) = said(&find);
            let cut_there = line["cut"].as_array().map(|cut| {
                let at = |i: usize| usize::try_from(cut[i].as_u64().unwrap()).unwrap();
                (at(0), at(1))
            });
            let time_there: Option<f64> = line["time"].as_str().map(|time| time.parse().unwrap());
            lines += 1;
            let same_cut = cut == cut_there || kind == "stumble";
            if kind != line["kind"].as_str().unwrap() || !same_cut || time != time_there {
                differences.push(format!(
                    "{patterns:?} {} {find:?}, fail2ban: {line}",
                    case["zone"]
                ));
                break; // what follows depends on it
            }
        }
    }
    (lines, differences)
}

/// Not a test by itself: what a process of the test below does in its own zone.
#[test]
#[ignore = "needs Debian's fail2ban package"]
fn dates_of_this_process_zone_are_found_as_by_fail2ban() {
    let seed = std::env::var("DATES_SEED").unwrap_or_else(|_| "1".to_owned());
    let (lines, differences) = compare(&seed);
    let zone = std::env::var("TZ").unwrap_or_default();
    eprintln!(
        "TZ={zone:?}, seed {seed}: {lines} lines, {} sequences differ",
        differences.len()
    );
    for difference in differences.iter().take(50) {
        eprintln!("  {difference}");
    }
    assert!(differences.is_empty());
    assert!(lines >= 3000, "only {lines} lines");
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn dates_of_all_zones_are_found_as_by_fail2ban() {
    let me = std::env::current_exe().unwrap();
    let runs: Vec<_> = ZONES
        .iter()
        .enumerate()
        .map(|(seed, zone)| ((seed + 10).to_string(), *zone))
        .chain([("samples".to_owned(), "CET-01CEST-02,M3.5.0,M10.5.0")])
        .map(|(seed, zone)| {
            let run = Command::new(&me)
                .args([
                    "--exact",
                    "dates_of_this_process_zone_are_found_as_by_fail2ban",
                    "--ignored",
                    "--nocapture",
                ])
                .env("TZ", zone)
                .env("DATES_SEED", seed)
                .output()
                .unwrap();
            (
                run.status.success(),
                String::from_utf8_lossy(&run.stderr).into_owned(),
            )
        })
        .collect();
    for (_, said) in &runs {
        eprintln!("{said}");
    }
    assert!(runs.iter().all(|(fine, _)| *fine));
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn all_zone_names_mean_what_they_mean_to_fail2ban() {
    let table: Value = serde_json::from_str(&oracle(&["zones"])).unwrap();
    for (name, minutes) in table.as_object().unwrap() {
        // Not of the form that fail2ban itself reads: one capital, or three to five.
        if name == "ChST" || name.len() == 2 {
            assert!(Detector::new(&[], Some(name)).is_err());
            continue;
        }
        let mut detector = Detector::new(&[], Some(name)).unwrap();
        let find = detector.find("2026-11-25 00:00:00 x", 1.78e9);
        let time = 1_795_564_800.0 - minutes.as_f64().unwrap() * 60.0;
        assert_eq!(find, Find::At { cut: 0..19, time }, "{name}");
    }
    // And no others of up to three capitals do.
    let capitals: Vec<String> = ('A'..='Z').map(String::from).collect();
    let mut names = capitals.clone();
    for _ in 1..4 {
        for name in &names {
            let known = table.get(name).is_some() && name.len() != 2;
            assert_eq!(Detector::new(&[], Some(name)).is_ok(), known, "{name}");
        }
        names = names
            .iter()
            .flat_map(|name| capitals.iter().map(move |letter| format!("{name}{letter}")))
            .collect();
    }
}
