//! Formats and lines: whatever an administrator writes is refused or compiled, and whatever line comes is refused or
//! read, without a panic. The first line of the input is the format, the rest is lines.

#![no_main]

use f2b_pipe::parse::{Access, Format};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|byte| *byte == b'\n');
    let format = lines
        .next()
        .and_then(|format| std::str::from_utf8(format).ok());
    let Some(format) = format else { return };
    match Format::compile(format) {
        Ok(format) => {
            for line in lines {
                let mut access = Access::default();
                if format.read(line, &mut access).is_ok() {
                    assert!(
                        access.client.is_some(),
                        "read, and nobody's: {}",
                        line.escape_ascii()
                    );
                }
                let mut access = Access::default();
                if format.read_head(line, &mut access).is_ok() {
                    assert!(
                        access.client.is_some(),
                        "read, and nobody's: {}",
                        line.escape_ascii()
                    );
                }
                let _ = format.logged(line);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
