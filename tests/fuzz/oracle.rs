//! A second reader of access lines, as naive as can be: a format is a list of pieces, and every way to cut a line into
//! them is tried. The program's own parser goes from one end to the other and never back. It has to read every line that
//! httpd can have written, and wherever it reads one, there must be no second way that means another client or status.
//!
//! Nothing of the program is used but `Format`, which is what is judged. For `tests/parse_oracle.rs` and the fuzz target
//! `parse`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use f2b_pipe::parse::{Access, Format};

/// A piece of a format.
#[derive(Clone, Copy)]
pub(crate) enum Piece {
    /// Exactly this.
    Is(&'static str),
    /// `%a`, `%h`: who counts.
    Client,
    /// `%{c}a`.
    Peer,
    /// `%>s`.
    Status,
    /// Digits, or `-`.
    Number,
    /// Digits.
    Count,
    /// `[22/Nov/2026:20:02:28 +0000]`, and the like: a digit for each 0, a letter for each A, + or - for each +.
    Shape(&'static str),
    /// The server's own words: no blank, no quote.
    Word,
    /// Its name where a port follows: no colon either, but for an IPv6 address in brackets.
    Host,
    /// A client's text in quotes: no quote that is not escaped.
    Text,
    /// The same for `%u`, which may be two quotes if it is empty.
    User,
}
use Piece::{Client, Count, Host, Is, Number, Peer, Shape, Status, Text, User, Word};

const COMMON_TIME: Piece = Shape("[00/AAA/0000:00:00:00 +0000]");

/// Formats as the program reads them, and as they are read here.
pub(crate) const FORMATS: [(&str, &[Piece]); 8] = [
    (
        "combined",
        &[
            Client,
            Is(" "),
            Word,
            Is(" "),
            User,
            Is(" "),
            COMMON_TIME,
            Is(" \""),
            Text,
            Is("\" "),
            Status,
            Is(" "),
            Number,
            Is(" \""),
            Text,
            Is("\" \""),
            Text,
            Is("\""),
        ],
    ),
    (
        "f2b",
        &[
            Is("f2b:"),
            Count,
            Is(":"),
            Word,
            Is(" "),
            Client,
            Is(" "),
            Peer,
            Is(" "),
            Word,
            Is(" "),
            Status,
            Is(" "),
            Number,
            Is(" "),
            Number,
            Is(" \""),
            User,
            Is("\" \""),
            Text,
            Is("\" \""),
            Text,
            Is("\" \""),
            Text,
            Is("\" f2b:"),
            Count,
            Is(":"),
            Word,
        ],
    ),
    (
        "common",
        &[
            Client,
            Is(" "),
            Word,
            Is(" "),
            User,
            Is(" "),
            COMMON_TIME,
            Is(" \""),
            Text,
            Is("\" "),
            Status,
            Is(" "),
            Number,
        ],
    ),
    (
        "vhost_combined",
        &[
            Host,
            Is(":"),
            Word,
            Is(" "),
            Client,
            Is(" "),
            Word,
            Is(" "),
            User,
            Is(" "),
            COMMON_TIME,
            Is(" \""),
            Text,
            Is("\" "),
            Status,
            Is(" "),
            Number,
            Is(" \""),
            Text,
            Is("\" \""),
            Text,
            Is("\""),
        ],
    ),
    (
        "vhost_common",
        &[
            Word,
            Is(" "),
            Client,
            Is(" "),
            Word,
            Is(" "),
            User,
            Is(" "),
            COMMON_TIME,
            Is(" \""),
            Text,
            Is("\" "),
            Status,
            Is(" "),
            Number,
        ],
    ),
    (
        r#"%{%Y/%m/%d:%H:%M:%S}t %h "%r" %>s %B "%{Referer}i" "%{User-Agent}i" %D"#,
        &[
            Shape("0000/00/00:00:00:00"),
            Is(" "),
            Client,
            Is(" \""),
            Text,
            Is("\" "),
            Status,
            Is(" "),
            Number,
            Is(" \""),
            Text,
            Is("\" \""),
            Text,
            Is("\" "),
            Number,
        ],
    ),
    (
        r#""%{Host}i" %h %>s %u [%B] "%r""#,
        &[
            Is("\""),
            Text,
            Is("\" "),
            Client,
            Is(" "),
            Status,
            Is(" "),
            User,
            Is(" ["),
            Number,
            Is("] \""),
            Text,
            Is("\""),
        ],
    ),
    (
        r#"%{msec}t %a|%{c}a "%U" %>s"#,
        &[
            Count,
            Is(" "),
            Client,
            Is("|"),
            Peer,
            Is(" \""),
            Text,
            Is("\" "),
            Status,
        ],
    ),
];

/// How much is let through.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Taste {
    /// What httpd writes.
    Strict,
    /// Also what harms nobody: a server's word in brackets with anything in them, a pair of quotes within a user's name.
    Loose,
}

/// Whom a line counts for, and the status.
pub(crate) type Reading = (IpAddr, u16);

/// Every way to read `line`.
pub(crate) fn readings(pieces: &[Piece], line: &[u8], taste: Taste) -> BTreeSet<Reading> {
    let mut found = BTreeSet::new();
    let nothing = (Ipv4Addr::UNSPECIFIED.into(), 0);
    cut(pieces, line, 0, nothing, taste, &mut found);
    found
}

/// Cuts what of the line is behind `from` in every way.
fn cut(
    pieces: &[Piece],
    line: &[u8],
    from: usize,
    so_far: Reading,
    taste: Taste,
    found: &mut BTreeSet<Reading>,
) {
    let Some((piece, pieces)) = pieces.split_first() else {
        if from == line.len() {
            found.insert(so_far);
        }
        return;
    };
    // As naive as can be, but for this: a piece of fixed length has one end only.
    let ends = match piece {
        Is(text) | Shape(text) => from + text.len()..=line.len().min(from + text.len()),
        Client | Peer | Status | Number | Count | Word | Host | Text | User => from..=line.len(),
    };
    for end in ends {
        let text = &line[from..end];
        let (client, status) = so_far;
        let so_far = match piece {
            Client => address(text).map(|client| (client, status)),
            Status => three_digits(text).map(|status| (client, status)),
            // A quote of httpd's own is never escaped.
            Is(_) if (from..end).any(|at| line[at] == b'"' && backslashed(line, at)) => None,
            Is(_) | Peer | Number | Count | Shape(_) | Word | Host | Text | User => {
                is(*piece, text, taste).then_some(so_far)
            }
        };
        if let Some(so_far) = so_far {
            cut(pieces, line, end, so_far, taste, found);
        }
    }
}

fn is(piece: Piece, text: &[u8], taste: Taste) -> bool {
    match piece {
        Is(bytes) => text == bytes.as_bytes(),
        Client | Peer => address(text).is_some(),
        Status => three_digits(text).is_some(),
        Number => text == b"-" || (digits(text) && text.len() < 20),
        Count => digits(text) && text.len() <= 20,
        Shape(shape) => {
            let fits = |(byte, shape): (&u8, u8)| match shape {
                b'0' => byte.is_ascii_digit(),
                b'A' => byte.is_ascii_alphabetic(),
                b'+' => b"+-".contains(byte),
                other => *byte == other,
            };
            text.len() == shape.len() && text.iter().zip(shape.bytes()).all(fits)
        }
        // A server that is named by its IPv6 address: `[::1]`.
        Word if text.starts_with(b"[") => {
            let end = text.iter().position(|byte| *byte == b']');
            let address = |byte: &u8| byte.is_ascii_hexdigit() || b"[:.]".contains(byte);
            let sound = taste == Taste::Loose || text.iter().all(address);
            text.len() <= 256 && end == Some(text.len() - 1) && sound
        }
        Word => {
            let sound = |at: usize| text[at] != b' ' && (text[at] != b'"' || backslashed(text, at));
            (1..=256).contains(&text.len()) && (0..text.len()).all(sound)
        }
        Host => {
            let colon = taste == Taste::Strict && !text.starts_with(b"[") && text.contains(&b':');
            is(Word, text, taste) && !colon
        }
        Text => quotes_are_escaped(text),
        User if taste == Taste::Loose => (0..=text.len()).any(|at| {
            let (before, after) = text.split_at(at);
            let after = after.strip_prefix(b"\"\"").unwrap_or(after);
            quotes_are_escaped(before) && quotes_are_escaped(after)
        }),
        User => text == b"\"\"" || quotes_are_escaped(text),
    }
}

fn three_digits(text: &[u8]) -> Option<u16> {
    let number = std::str::from_utf8(text)
        .ok()
        .filter(|_| digits(text) && text.len() == 3)?;
    number.parse().ok().filter(|status| *status >= 100)
}

fn digits(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// Does an odd number of backslashes stand before `at`?
fn backslashed(text: &[u8], at: usize) -> bool {
    text[..at]
        .iter()
        .rev()
        .take_while(|byte| **byte == b'\\')
        .count()
        % 2
        == 1
}

fn quotes_are_escaped(text: &[u8]) -> bool {
    (0..text.len()).all(|at| text[at] != b'"' || backslashed(text, at))
}

fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(v4) = text.parse::<Ipv4Addr>() {
        return Some(v4.into());
    }
    let (address, zone) = text.split_once('%').unwrap_or((text, "none"));
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if zone.is_empty() || !zone.bytes().all(sound) {
        return None;
    }
    Some(IpAddr::from(address.parse::<Ipv6Addr>().ok()?).to_canonical())
}

/// The program's own reading.
pub(crate) fn judged(format: &Format, line: &[u8]) -> Option<Reading> {
    let mut access = Access::default();
    format.read(line, &mut access).ok()?;
    access.client.map(|client| (client.addr(), access.status))
}

/// Reads the first line of `text` both ways, and as one whose end is still to be found.
///
/// # Errors
/// They differ, and how.
pub(crate) fn compare(number: usize, format: &Format, text: &[u8]) -> Result<(), String> {
    let (name, pieces) = FORMATS[number % FORMATS.len()];
    let text = [text, b"\n"].concat();
    let end = text.iter().position(|byte| *byte == b'\n');
    let line = &text[..end.unwrap_or_default()];
    let ends_differ = line.split(|b| *b == b' ').next() != line.rsplit(|b| *b == b' ').next();
    let torn = name == "f2b" && ends_differ;
    let judged = judged(format, line);
    let mut access = Access::default();
    if let Some(end) = format.read_first(&text, &mut access) {
        let first = access.client.map(|client| (client.addr(), access.status));
        if (end, first) != (line.len(), judged) {
            let text = text.escape_ascii();
            return Err(format!(
                "{name}: {text}\n  read as {judged:?}, its first {end} bytes as {first:?}"
            ));
        }
    }
    let naive = match judged {
        None => readings(pieces, line, Taste::Strict),
        Some(_) => readings(pieces, line, Taste::Loose),
    };
    let expected: BTreeSet<Reading> = judged.into_iter().collect();
    if (torn && judged.is_none()) || (!torn && naive == expected) {
        return Ok(());
    }
    let line = line.escape_ascii();
    Err(format!(
        "{name}: {line}\n  read as {judged:?}, naively as {naive:?}"
    ))
}

/// What httpd writes for a client's text (server/util.c, ap_escape_logitem).
pub(crate) fn escape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            8 => out.extend(b"\\b"),
            11 => out.extend(b"\\v"),
            b' '..=b'~' => out.push(byte),
            _ => out.extend(format!("\\x{byte:02x}").bytes()),
        }
    }
    out
}

/// A line as httpd writes it for a client who chose these texts: the user's name first, then the others, each used again
/// as soon as there are no more.
pub(crate) fn written(pieces: &[Piece], client: IpAddr, status: u16, texts: &[Vec<u8>]) -> Vec<u8> {
    let mut line = Vec::new();
    let (name, others) = texts
        .split_first()
        .map_or((&[][..], &[][..]), |(name, others)| {
            (name.as_slice(), others)
        });
    let mut others = others.iter().cycle();
    for piece in pieces {
        match piece {
            Is(bytes) => line.extend(bytes.bytes()),
            Client => line.extend(client.to_string().bytes()),
            Peer => line.extend(b"198.51.100.2"),
            Status => line.extend(status.to_string().bytes()),
            Number | Count => line.extend(b"17"),
            Shape(shape) => line.extend(shape.bytes()),
            Word | Host => line.extend(b"www"),
            Text => line.extend(others.next().map(|text| escape(text)).unwrap_or_default()),
            User if name.is_empty() => line.extend(b"\"\""),
            User => line.extend(escape(name)),
        }
    }
    line
}
