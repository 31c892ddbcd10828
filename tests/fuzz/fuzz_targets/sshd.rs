//! Lines as sshd writes them, with texts of a client in them: our own filter finds the client's address or nobody, whatever
//! the texts are.
//!
//! The first byte picks the line; the rest are the texts, separated by 0xFF, made as sshd makes them: without control
//! characters, since it escapes them (vis(3)).

#![no_main]

use std::path::Path;

use f2b_pipe::fail2ban;
use f2b_pipe::failregex::{Clock, Failure, Matcher, Phase, Rules, Stamp};
use libfuzzer_sys::fuzz_target;

/// 2026-11-25 12:00 UTC.
const NOW: f64 = 1_795_608_000.0;
const CLIENT: &str = "192.0.2.7";
/// `@` is the client, `#` a text of his.
const LINES: [&str; 12] = [
    "Failed password for invalid user # from @ port 50022 ssh2",
    "Failed password for # from @ port 50022 ssh2",
    "Failed none for invalid user # from @ port 50022 ssh2",
    "Invalid user # from @ port 50022",
    "Connection closed by invalid user # @ port 50022 [preauth]",
    "Connection closed by authenticating user # @ port 50022 [preauth]",
    "Disconnected from invalid user # @ port 50022 [preauth]",
    "Received disconnect from @ port 50022:11: # [preauth]",
    "Received disconnect from @ port 50022:14: # [preauth]",
    "User # from @ not allowed because not listed in AllowUsers",
    "error: maximum authentication attempts exceeded for invalid user # from @ port 50022 ssh2 [preauth]",
    "banner exchange: Connection from @ port 50022: invalid format #",
];

thread_local! {
    static MATCHERS: std::cell::RefCell<Vec<Matcher>> = std::cell::RefCell::new(
        ["sshd", "sshd[mode=aggressive]"]
            .map(|name| {
                let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../conf"));
                let filter = fail2ban::read_filter(&[folder], name, "auto").expect("our own filter");
                Matcher::new(&Rules::of(&filter, Some("UTC".to_owned()))).expect("our own filter")
            })
            .into(),
    );
}

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let mut texts = rest.split(|byte| *byte == 0xff).map(seen);
    let form = LINES[usize::from(*first) % LINES.len()];
    let mut text = String::new();
    for c in form.chars() {
        match c {
            '#' => text.push_str(&texts.next().unwrap_or_default()),
            '@' => text.push_str(CLIENT),
            c => text.push(c),
        }
    }
    let line = format!("Nov 25 12:00:00 host sshd[4711]: {text}");
    MATCHERS.with(|matchers| {
        for matcher in matchers.borrow_mut().iter_mut() {
            let mut failures: Vec<Failure> = Vec::new();
            let clock = Clock {
                now: NOW,
                today: NOW,
            };
            let _seen = matcher.line(&line, Stamp::InText, Phase::Timeless, clock, &mut failures);
            for failure in failures {
                assert_eq!(failure.id, CLIENT, "{line:?}");
            }
        }
    });
});

/// A text as sshd's log shows it.
fn seen(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let printable = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(300).map(printable).collect()
}
