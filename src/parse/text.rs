//! Text as the client sent it: httpd's escapes undone (`\"`, `\\`, `\t`, `\xhh`; server/util.c ap_escape_logitem),
//! and for paths and queries percent-decoded once, as httpd itself does to find the file.

use std::fmt;

/// Undoes httpd's log escapes into `out`, which is emptied first. An escape that httpd does not write stays as it is.
pub fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (plain, escape) = rest.split_at_checked(at).unwrap_or((rest, b""));
        out.extend_from_slice(plain);
        let (byte, used) = match escape {
            [b'\\', b'x', hi, lo, ..] => match (hex(*hi), hex(*lo)) {
                (Some(hi), Some(lo)) => (hi << 4 | lo, 4),
                _ => (b'\\', 1),
            },
            [b'\\', b'n', ..] => (b'\n', 2),
            [b'\\', b'r', ..] => (b'\r', 2),
            [b'\\', b't', ..] => (b'\t', 2),
            [b'\\', b'b', ..] => (8, 2),
            [b'\\', b'v', ..] => (11, 2),
            [b'\\', c @ (b'"' | b'\\'), ..] => (*c, 2),
            _ => (b'\\', 1),
        };
        out.push(byte);
        rest = escape.get(used..).unwrap_or(b"");
    }
    out.extend_from_slice(rest);
}

/// Percent-decodes `text` in place, once. What is not `%hh` stays as it is.
pub fn percent_decode(text: &mut Vec<u8>) {
    let Some(first) = memchr::memchr(b'%', text) else {
        return;
    };
    let mut read = first;
    let mut write = first;
    while let Some(&byte) = text.get(read) {
        let decoded = match text.get(read..) {
            Some([b'%', hi, lo, ..]) => hex(*hi).zip(hex(*lo)).map(|(hi, lo)| hi << 4 | lo),
            _ => None,
        };
        read += if decoded.is_some() { 3 } else { 1 };
        if let Some(place) = text.get_mut(write) {
            *place = decoded.unwrap_or(byte);
        }
        write += 1;
    }
    text.truncate(write);
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Bytes that a stranger chose, safe to show: printable ASCII as it is, the rest as `\xhh`, at most `max` bytes of the
/// input (then `...`).
pub struct Escaped<'a> {
    /// What is shown.
    pub bytes: &'a [u8],
    /// How much of it.
    pub max: usize,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for &byte in self.bytes.iter().take(self.max) {
            match byte {
                b' '..=b'~' => f.write_char(char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        if self.bytes.len() > self.max {
            f.write_str("...")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undo(raw: &str) -> String {
        let mut out = Vec::new();
        unescape(raw.as_bytes(), &mut out);
        percent_decode(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn escapes_are_undone_as_httpd_makes_them() {
        for (raw, want) in [
            ("plain", "plain"),
            (r#"a\"b"#, "a\"b"),
            (r"a\\x41", r"a\x41"),
            (r"h\xc3\xa9llo", "héllo"),
            (r"\t\r\n", "\t\r\n"),
            (r"\q\", r"\q\"),
            (r"\x4", r"\x4"),
            ("%2e%2E/", "../"),
            ("%252e", "%2e"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            (r"\x2541", "A"),
        ] {
            assert_eq!(undo(raw), want, "{raw}");
        }
    }

    #[test]
    fn shown_text_has_no_raw_control_bytes() {
        let shown = Escaped {
            bytes: b"a\x1b[31m\xffend",
            max: 6,
        }
        .to_string();
        assert_eq!(shown, "a\\x1b[31m...");
    }
}
