//! Lines of access logs, and what must be read of them: `tests/lines/*.txt`.
//!
//! ```text
//! # a note
//! format: combined
//! the line
//! => client | status | user | path        (as they stand in the line; "" is empty)
//! another line
//! => refused
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::path::Path;

use f2b_pipe::parse::{Access, Format};

/// What is read of `line`, as the corpus writes it.
fn read(format: &Format, line: &[u8]) -> String {
    let mut access = Access::default();
    if format.read(line, &mut access).is_err() {
        return "refused".to_owned();
    }
    let text = |bytes: &[u8]| match bytes {
        [] => "\"\"".to_owned(),
        bytes => String::from_utf8_lossy(bytes).into_owned(),
    };
    let client = access.client.map_or("nobody".to_owned(), |c| c.to_string());
    let (user, path) = (text(access.user), text(access.path));
    format!("{client} | {} | {user} | {path}", access.status)
}

/// The entries of one file: where, format, line, expectation.
fn entries(path: &Path) -> Vec<(String, String, String, String)> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut format = String::new();
    let mut line = "";
    let mut entries = Vec::new();
    for (number, text) in (1..).zip(text.lines()) {
        if let Some(new) = text.strip_prefix("format: ") {
            new.clone_into(&mut format);
        } else if let Some(want) = text.strip_prefix("=> ") {
            let place = format!("{}:{number}", path.display());
            entries.push((place, format.clone(), line.to_owned(), want.to_owned()));
        } else if !text.starts_with('#') {
            line = text;
        }
    }
    entries
}

#[test]
fn every_line_is_read_as_its_file_says() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lines");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let entries: Vec<_> = files.iter().flat_map(|file| entries(file)).collect();
    assert!(entries.len() > 200, "only {} entries", entries.len());
    let mut wrong = Vec::new();
    for (place, format, line, want) in &entries {
        let compiled = Format::compile(format).unwrap_or_else(|e| panic!("{place}: {e}"));
        let got = read(&compiled, line.as_bytes());
        if got != *want {
            wrong.push(format!("{place}: {line}\n  want {want}\n  got  {got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
