//! conf/threats.md names a test for each promise: they are all there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file below `dir`.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(tree.join("conf/threats.md")).unwrap();
    let is_name = |word: &&str| {
        let ours = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        word.matches('_').count() >= 2 && word.chars().all(ours)
    };
    let named: BTreeSet<&str> = text.split('`').filter(is_name).collect();
    assert!(named.len() > 50, "{}", named.len());
    let mut files = Vec::new();
    for dir in ["src", "tests"] {
        sources(&tree.join(dir), &mut files);
    }
    let code: Vec<String> = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let is_there = |name: &str| {
        let (begins, test) = (format!("fn {name}("), "#[test]");
        code.iter().any(|text| {
            text.match_indices(&begins).any(|(at, _)| {
                let before: Vec<&str> = text.split_at(at).0.lines().rev().take(6).collect();
                before.iter().any(|line| line.trim() == test)
            })
        })
    };
    let missing: Vec<&&str> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
    let targets = text
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|word| word.starts_with("tests/fuzz/"));
    for target in targets {
        assert!(tree.join(target).exists(), "{target}");
    }
}
