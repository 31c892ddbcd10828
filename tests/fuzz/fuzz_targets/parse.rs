//! Access lines: the parser and the naive one agree, and no text that a client sends makes another client of him.
//!
//! The first byte picks the format; with its high bit the rest is texts of a client, separated by 0xFF, of which httpd
//! would make a line, and without it the rest is the line itself.

#![no_main]

use std::net::IpAddr;

use f2b_pipe::parse::Format;
use libfuzzer_sys::fuzz_target;

#[path = "../oracle.rs"]
mod oracle;

thread_local! {
    static FORMATS: [Format; 8] =
        oracle::FORMATS.map(|(format, _)| Format::compile(format).expect("a format"));
}

fuzz_target!(|input: &[u8]| {
    if let Some((first, rest)) = input.split_first() {
        FORMATS.with(|formats| judge(formats, *first, rest));
    }
});

fn judge(formats: &[Format], first: u8, rest: &[u8]) {
    let number = usize::from(first & 0x7f) % oracle::FORMATS.len();
    let format = &formats[number];
    if first & 0x80 == 0 {
        // The naive one takes its time.
        let line = &rest[..rest.len().min(400)];
        if let Err(differ) = oracle::compare(number, format, line) {
            panic!("{differ}");
        }
        return;
    }
    let client: IpAddr = "2001:db8::7".parse().expect("an address");
    let texts: Vec<Vec<u8>> = rest
        .split(|byte| *byte == 0xff)
        .map(<[u8]>::to_vec)
        .collect();
    let line = oracle::written(oracle::FORMATS[number].1, client, 404, &texts);
    assert_eq!(
        oracle::judged(format, &line),
        Some((client, 404)),
        "{}",
        line.escape_ascii()
    );
}
