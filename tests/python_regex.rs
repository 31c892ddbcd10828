//! Patterns against Python's own `re`: found or not, where, and every named group; and what Python refuses.
//!
//! `tests/oracle/python_regex.py` makes the searches; nothing of fail2ban is kept here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on should stop"
)]

use std::io::Write;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use f2b_pipe::pattern::{Found, Groups, Options, Pattern, Patterns};
use serde_json::Value;

/// What Python says, and what we say.
#[derive(Default)]
struct Tally {
    patterns: usize,
    refused: usize,
    searches: usize,
    matches: usize,
    slow_in_python: usize,
    too_hard: usize,
    differences: Vec<String>,
    longest: Duration,
}

fn oracle(args: &[&str], input: &str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/python_regex.py");
    let mut python = Command::new("/usr/bin/python3")
        .arg(script)
        .args(args)
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    python
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "the oracle failed");
    String::from_utf8(output.stdout).unwrap()
}

fn spans(value: &Value) -> Vec<Option<Range<usize>>> {
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|span| {
            span.as_array()
                .map(|span| number(&span[0])..number(&span[1]))
        })
        .collect()
}

fn compare(answers: &str) -> Tally {
    let mut tally = Tally::default();
    let mut texts: Vec<String> = Vec::new();
    let mut at = Groups::default();
    for answer in answers.lines() {
        let mut answer: Value = serde_json::from_str(answer).unwrap();
        if let Value::String(text) = answer["text"].take() {
            texts.push(text);
            continue;
        }
        let source = answer["pattern"].as_str().unwrap();
        let options = Options {
            names: answer["names"] != Value::Bool(false),
            multiline: answer["multiline"] == Value::Bool(true),
        };
        tally.patterns += 1;
        let pattern = match (Pattern::new(source, options), answer["error"].as_str()) {
            (Ok(pattern), None) => pattern,
            (Err(_), Some(_)) => {
                tally.refused += 1;
                continue;
            }
            (Ok(_), Some(error)) => {
                tally
                    .differences
                    .push(format!("{source:?}: Python refuses: {error}"));
                continue;
            }
            (Err(error), None) => {
                tally
                    .differences
                    .push(format!("{source:?}: we refuse: {error}"));
                continue;
            }
        };
        let names: Vec<&str> = answer["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        assert!(
            pattern
                .groups()
                .iter()
                .map(|name| &**name)
                .eq(names.iter().copied()),
            "{source}"
        );
        let all = Patterns::new(vec![Pattern::new(source, options).unwrap()]);
        for result in answer["results"].as_array().unwrap() {
            let text = &texts[usize::try_from(result[0].as_u64().unwrap()).unwrap()];
            tally.searches += 1;
            let began = Instant::now();
            let found = pattern.find(text, &mut at);
            let took = began.elapsed();
            if took > tally.longest {
                tally.longest = took;
                if took > Duration::from_millis(30) {
                    eprintln!("{took:?} {} bytes {found:?}: {source}", text.len());
                }
            }
            if result[1] == Value::String("slow".into()) {
                tally.slow_in_python += 1;
                continue;
            }
            let theirs = result[1].is_array().then(|| spans(&result[1]));
            tally.matches += usize::from(theirs.is_some());
            let ours = match found {
                Found::TooHard => {
                    tally.too_hard += 1;
                    eprintln!(
                        "too hard: {took:?} {} bytes: {source} on {:?}",
                        text.len(),
                        text.chars().take(80).collect::<String>()
                    );
                    continue;
                }
                Found::No => None,
                Found::Yes => Some(
                    std::iter::once(Some(at.whole()))
                        .chain(at.named().iter().cloned())
                        .collect::<Vec<_>>(),
                ),
            };
            let mut candidates = Vec::new();
            all.candidates(text, &mut candidates);
            if ours != theirs || theirs.is_some() && candidates.is_empty() {
                let text: String = text.chars().take(200).collect();
                tally.differences.push(format!(
                    "{source:?} on {text:?}: {ours:?}, Python {theirs:?}, candidates {candidates:?}"
                ));
            }
        }
    }
    for difference in tally.differences.iter().take(20) {
        eprintln!("{difference}");
    }
    eprintln!(
        "{} patterns ({} refused), {} searches, {} matches, {} slow in Python, {} too hard, longest {:?}, {} differences",
        tally.patterns,
        tally.refused,
        tally.searches,
        tally.matches,
        tally.slow_in_python,
        tally.too_hard,
        tally.longest,
        tally.differences.len()
    );
    tally
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn the_installed_filters_find_what_python_finds() {
    let tally = compare(&oracle(&["stock"], ""));
    assert_eq!(tally.differences.len(), 0);
    assert_eq!(tally.too_hard, 0);
    assert!(tally.searches > 20_000);
}

#[test]
#[ignore = "needs Debian's fail2ban package"]
fn lines_made_to_be_hard_are_judged_as_python_judges_them() {
    let tally = compare(&oracle(&["hostile"], ""));
    assert_eq!(tally.differences.len(), 0);
    assert!(tally.too_hard * 100 <= tally.searches);
}

#[test]
#[ignore = "needs Debian's python3"]
fn made_up_patterns_find_what_python_finds() {
    // `PYTHON_REGEX_SEEDS=100` looks further than a test run has time for.
    let seeds = std::env::var("PYTHON_REGEX_SEEDS").map_or(1, |seeds| seeds.parse().unwrap());
    for seed in 1..=seeds {
        let tally = compare(&oracle(&["random", &seed.to_string(), "3000"], ""));
        assert_eq!(tally.differences.len(), 0);
    }
}

#[test]
#[ignore = "needs Debian's python3"]
fn syntax_is_read_as_python_reads_it() {
    let texts = serde_json::json!([
        "",
        "a",
        "a\n",
        "ab\nab\n",
        "<word>",
        "{a}",
        "a{,2}",
        "aa",
        "AB",
        "a-b]c[d",
        "a&&b--c~~d",
        "x1 y2",
        "\u{8}\u{7}\t",
        "\u{1c}\u{1f}",
        "ÄäÖ ſK ıİ",
        "٣٤ é",
        "e\u{301}",
        "\u{ffff}\u{10ffff}",
        "abcabc",
        "aXa'a\"a",
        "foo(bar)",
        "\\d.\\",
        "é-é\u{85}\u{a0}x",
    ]);
    let patterns = [
        r"\<word\>",
        "{a}",
        "a{,2}",
        "a{,2}b",
        "a{2,1}",
        "a{",
        "a{}",
        "a{1",
        "x{2}{3}",
        "a**",
        "a*+",
        "a++b",
        "*a",
        "^*",
        "(?:^)*a",
        "[]a]+",
        "[^]a]+",
        "[a&&b]+",
        "[a--b]",
        "[~~d]+",
        "[[d]+",
        r"[\w-]+",
        r"[\w-x]",
        "[b-a]",
        r"[\b]",
        "[",
        "[]",
        r"\Z",
        r"a\Z",
        "a$",
        r"\z",
        r"\e",
        r"\Aa",
        r"\Bb",
        r"\b",
        r"\d+",
        r"\D+",
        r"\s+",
        r"\S+",
        r"\w+",
        r"\W+",
        r"(?a)\w+",
        r"(?a:\s+)",
        r"[^\W\d]+",
        r"(?i)ä+",
        "(?i)s|k|i",
        "(?i)[i]+",
        "(?i)[^k]+",
        "(?i)ı",
        "(?i:a)B",
        "(?-i:a)",
        "a(?i)",
        "(?i)(?m)^A",
        "(?m)^a",
        "(?s).+",
        ".+",
        "(?x) a b # c\n c",
        "(?x)a\\ b",
        "(?#c)a(?#",
        r"(?P<n>a)(?P=n)",
        "(?P<n>a)(?P<n>b)",
        "(?P<1>a)",
        "(?P=n)",
        r"(a)\1",
        r"\1(a)",
        r"(a\1)",
        r"(a)\2",
        r"\0",
        r"\07",
        r"\101",
        r"\777",
        r"(a)\18",
        r"(a)?(?(1)b|c)",
        "(?(1)a)(b)",
        "(?(2)a)(b)",
        "(a)(?(1)b|c|d)",
        "(?(x)a)",
        "(?P<é>a)",
        "(?<=a)b",
        "(?<!a)b",
        "(?<=ab*)c",
        "(?<=a|bc)d",
        "(?<=(a))b",
        r"(?<=(a)\1)b",
        "(?=a)*",
        "(?!)",
        "(?>a|ab)c",
        "(?P>n)",
        "(?<n>a)",
        "(?z)",
        "(?i",
        "(?",
        "(",
        ")",
        "a|",
        "|",
        "(|a)+",
        "(a|)*b",
        r"\x41",
        r"\x4",
        r"\u0041",
        r"\U0001ffff",
        r"\U00110000",
        "\\",
        "a\\",
        r"\N{DIGIT ONE}x",
        "(?L)a",
        "(?au)a",
        "(?u)é",
        "(?i-i:a)",
        "(?-:a)",
        "a{0}b",
        "(a){0}b",
        "[^\n]+$",
        "$^",
        "\u{e9}+",
        r"a.c\B",
        r"\\d",
        r"[\d.]+",
        r"['\x22]",
        "a{65536}",
        "x*?y*?",
        r"(?s)\A.*?\Z",
        "(?:a|b|)+?c",
        "((a)|b)*",
        "(?:(a)|(b))+",
        "(a*)+",
        "(a*?)*?$",
    ];
    let table: String = patterns
        .iter()
        .map(|pattern| serde_json::json!([pattern, texts]).to_string() + "\n")
        .collect();
    let tally = compare(&oracle(&["table"], &table));
    // Python knows characters by name; nobody's filter does.
    let differences = tally.differences.iter().filter(|d| !d.contains(r"\\N{"));
    assert_eq!(differences.count(), 0);
    assert!(tally.refused > 20 && tally.matches > 500);
}
