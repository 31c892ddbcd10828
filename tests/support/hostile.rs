//! The lines that tests/oracle/hostile.py makes for every stock filter and mode.

use std::process::{Command, Stdio};

use f2b_pipe::fail2ban::UseDns;
use f2b_pipe::failregex::Rules;
use serde_json::Value;

/// The clock.
pub const NOW: f64 = 1_795_590_000.0;

/// A filter in a mode.
pub struct Filter {
    pub name: String,
    pub rules: Rules,
    /// With the ids that fail2ban says failed; `None`: it did not end in time, or was not asked.
    pub lines: Vec<(String, Option<Vec<String>>)>,
}

/// So many lines of each; fail2ban is asked if it has some time, seconds, for each.
pub fn filters(lines: usize, limit: &str) -> Vec<Filter> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/hostile.py");
    let oracle = Command::new("/usr/bin/python3")
        .args([script, &lines.to_string(), limit])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(oracle.status.success(), "the oracle failed");
    let text = String::from_utf8(oracle.stdout).unwrap();
    text.lines().map(filter).collect()
}

fn filter(json: &str) -> Filter {
    let mut json: Value = serde_json::from_str(json).unwrap();
    let mut lines = Vec::new();
    for pair in json["lines"].as_array_mut().unwrap() {
        let Value::String(line) = pair[0].take() else {
            continue;
        };
        let ids = pair[1].as_array().map(|ids| ids.iter().map(text).collect());
        lines.push((line, ids));
    }
    let rules = &json["rules"];
    let list = |key: &str| rules[key].as_array().unwrap().iter().map(text).collect();
    Filter {
        name: text(&json["filter"]),
        rules: Rules {
            prefregex: rules["prefregex"].as_str().map(str::to_owned),
            failregex: list("failregex"),
            ignoreregex: list("ignoreregex"),
            datepattern: list("datepattern"),
            maxlines: usize::try_from(rules["maxlines"].as_u64().unwrap()).unwrap(),
            usedns: UseDns::Raw,
            logtimezone: Some("UTC".to_owned()),
        },
        lines,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
