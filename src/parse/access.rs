//! One access line by its format.

use std::fmt;

use super::format::{Format, Free, Op, Segment, Text};
use super::scan::find;
use super::time::Moment;
use crate::client::{Client, is_address_byte};
use crate::config::Field;

/// What a line says; texts as they stand in the line, escapes and all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access<'a> {
    /// `%a` or `%h`: whom it counts for.
    pub client: Option<Client>,
    /// `%{c}a`: who is at the other end of the connection.
    pub peer: Option<Client>,
    /// 0: not in the format.
    pub status: u16,
    /// `%b`, `%B`, `%O`; `-` is 0.
    pub bytes: u64,
    /// Microseconds the request took.
    pub micros: u64,
    /// Empty if not in the format or not in the line.
    pub method: &'a [u8],
    /// Up to the `?`.
    pub path: &'a [u8],
    /// Behind the `?`.
    pub query: &'a [u8],
    /// The request line.
    pub request: &'a [u8],
    /// `-`: no User-Agent.
    pub agent: &'a [u8],
    /// `-`: no Referer.
    pub referer: &'a [u8],
    /// `-`: no user; `""` became empty.
    pub user: &'a [u8],
    /// The server's name.
    pub vhost: &'a [u8],
    /// From the first text that its client wrote to the end of the line: request, path, query, agent and referer all
    /// stand in it. Empty if something in them is escaped.
    pub texts: &'a [u8],
    /// A percent sign stands in path or query.
    pub encoded: bool,
    /// Of an error line only: its text.
    pub message: &'a [u8],
    /// The line is from the error log.
    pub is_error: bool,
}

impl<'a> Access<'a> {
    /// A text field, undecoded.
    #[must_use]
    pub fn text(&self, field: Field) -> &'a [u8] {
        match field {
            Field::Method => self.method,
            Field::Path => self.path,
            Field::Query => self.query,
            Field::Request => self.request,
            Field::Agent => self.agent,
            Field::Referer => self.referer,
            Field::User => self.user,
            Field::Vhost => self.vhost,
            Field::Message => self.message,
        }
    }

    fn set(&mut self, is: Text, text: &'a [u8]) {
        match is {
            Text::Ignored => {}
            Text::Is(Field::Request) => self.set_request(text),
            Text::Is(Field::Method) => self.method = text,
            Text::Is(Field::Path) => {
                self.path = text;
                self.encoded |= find(text, [b'%']).is_some();
            }
            Text::Is(Field::Query) => {
                self.query = text.strip_prefix(b"?").unwrap_or(text);
                self.encoded |= find(text, [b'%']).is_some();
            }
            Text::Is(Field::Agent) => self.agent = text,
            Text::Is(Field::Referer) => self.referer = text,
            Text::Is(Field::User) => self.user = if text == b"\"\"" { b"" } else { text },
            Text::Is(Field::Vhost) => self.vhost = text,
            Text::Is(Field::Message) => self.message = text,
        }
    }

    /// `GET /path?query HTTP/1.1`; without a protocol for HTTP/0.9; `-` when no request line came at all. Garbage has
    /// its first word as method and the rest as path.
    #[inline]
    pub(super) fn set_request(&mut self, request: &'a [u8]) {
        self.request = request;
        if request == b"-" {
            return;
        }
        let end = word(request);
        let (method, rest) = request.split_at_checked(end).unwrap_or((request, b""));
        self.method = method;
        let rest = rest.get(1..).unwrap_or_default();
        const PROTOCOL: usize = b" HTTP/1.1".len();
        let target = match rest
            .len()
            .checked_sub(PROTOCOL)
            .and_then(|at| rest.split_at_checked(at))
        {
            Some((target, protocol)) if protocol.starts_with(b" HTTP/") => target,
            // `HTTP/0.9` has none, `HTTP/10.10` is longer; a target with blanks is the client's mistake.
            _ => match memchr::memrchr(b' ', rest).and_then(|at| rest.split_at_checked(at)) {
                Some((target, protocol)) if protocol.starts_with(b" HTTP/") => target,
                _ => rest,
            },
        };
        self.set_target(target);
    }

    /// Path, `?`, query.
    #[inline]
    fn set_target(&mut self, target: &'a [u8]) {
        (self.path, self.query) = (target, b"");
        let Some(at) = find(target, [b'?', b'%']) else {
            return;
        };
        if target.get(at) == Some(&b'?') {
            self.path = target.get(..at).unwrap_or_default();
            self.query = target.get(at + 1..).unwrap_or_default();
            self.encoded |= find(self.query, [b'%']).is_some();
        } else {
            self.encoded = true;
            (self.path, self.query) = split_at_byte(target, b'?').unwrap_or((target, b""));
        }
    }
}

/// Up to the first blank, or to the end. A method has a few letters: a search made for long texts would take longer to
/// begin.
#[inline]
fn word(text: &[u8]) -> usize {
    if let Some(eight) = text.first_chunk() {
        const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        let others = u64::from_le_bytes(*eight) ^ 0x2020_2020_2020_2020;
        // The highest bit of each byte that is a blank.
        let blanks = !(((others & LOW).wrapping_add(LOW)) | others | LOW);
        if blanks != 0 {
            return blanks.trailing_zeros() as usize / 8;
        }
    }
    text.iter().position(|b| *b == b' ').unwrap_or(text.len())
}

/// What the format has where reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// In words.
    Words(&'static str),
    /// This byte.
    Byte(u8),
}

impl fmt::Display for Wants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words(words) => f.write_str(words),
            Self::Byte(b' ') => f.write_str("a blank"),
            Self::Byte(byte) => write!(f, "the character {}", byte.escape_ascii()),
        }
    }
}

/// Where reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Byte of the line, from 0.
    pub at: usize,
    /// What the format wants there.
    pub wants: Wants,
}

impl Format {
    /// Reads one line, without its newline, into an `access` that is empty.
    ///
    /// # Errors
    /// The line is not of this format, from end to end.
    pub fn read<'a>(&self, line: &'a [u8], access: &mut Access<'a>) -> Result<(), Misfit> {
        let seal = match self.sealed {
            true => Some(seal(line).ok_or(Misfit {
                at: 0,
                wants: Wants::Words("the same token at both ends of the line"),
            })?),
            false => None,
        };
        if let Some(swift) = &self.swift {
            if swift.read(line, seal, access) == Some(b"") {
                return Ok(());
            }
            *access = Access::default();
        }
        self.walk(line, false, access, &mut |_, _| {})
    }

    /// Reads the first of `lines` into an `access` that is empty, and finds its end by the way: how long it is, without its
    /// newline. `None`: [`read`](Self::read) should, once its end was looked for, into a new one.
    #[inline]
    pub fn read_first<'a>(&self, lines: &'a [u8], access: &mut Access<'a>) -> Option<usize> {
        let swift = self.swift.as_ref()?;
        let seal = match self.sealed {
            true => Some(lines.get(..find(lines, [b' '])?)?),
            false => None,
        };
        match swift.read(lines, seal, access)? {
            rest @ [b'\n', ..] => Some(lines.len() - rest.len()),
            _ => None,
        }
    }

    /// Reads the head of a line that was too long to keep: what is there must fit, and reach the status (or, in a format
    /// without one, the end of the first text).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_head<'a>(&self, head: &'a [u8], access: &mut Access<'a>) -> Result<(), Misfit> {
        self.walk(head, true, access, &mut |_, _| {})
    }

    /// The moment a line was logged, for `replay`: microseconds since the epoch.
    #[must_use]
    pub fn logged(&self, line: &[u8]) -> Option<i64> {
        let mut moment = Moment::default();
        let mut access = Access::default();
        let mut take = |op: &Op, text: &[u8]| {
            if let Op::Time(shape) = op {
                shape.value(text, &mut moment);
            }
        };
        self.walk(line, false, &mut access, &mut take).ok()?;
        moment.epoch_micros()
    }

    fn walk<'a>(
        &self,
        line: &'a [u8],
        head: bool,
        access: &mut Access<'a>,
        seen: &mut impl FnMut(&Op, &'a [u8]),
    ) -> Result<(), Misfit> {
        let mut rest = line;
        let mut escaped = false;
        let last = self.segments.len().saturating_sub(1);
        for (n, segment) in self.segments.iter().enumerate() {
            rest = forward(segment.left.iter(), rest, access, seen)
                .map_err(|(op, rest)| op.misfit(line.len() - rest.len()))?;
            let at = line.len() - rest.len();
            let Some(free) = segment.free else {
                rest = match (n == last, rest) {
                    (true, []) => rest,
                    (false, [b'"', after @ ..]) => after,
                    _ => {
                        return Err(Misfit {
                            at,
                            wants: Wants::Words("the end, or a quote"),
                        });
                    }
                };
                continue;
            };
            if segment.begins_texts {
                access.texts = rest;
            }
            if n == last {
                // Bare text to the line's end: a quote in it that is not escaped is no client's, but a piece's of another line.
                let empty_user = segment.bare_user && rest.starts_with(b"\"\"");
                if segment
                    .split(rest, if empty_user { EMPTY_USER } else { 0 }, &mut escaped)
                    .is_some()
                {
                    return Err(Misfit {
                        at,
                        wants: Wants::Words("the end, or a quote"),
                    });
                }
                segment
                    .backward(rest, access, seen)
                    .map_err(|m| Misfit { at: at + m.at, ..m })?;
                break;
            }
            // Nearly every line has no user. With `-` the rest can only stand where it stands.
            if let (true, Some(b'-')) = (segment.bare_user, rest.first()) {
                let after = rest.get(1..).unwrap_or_default();
                if let Ok([b'"', after @ ..]) =
                    forward(segment.right.iter().rev(), after, access, seen)
                {
                    free.set(access, b"-");
                    rest = after;
                    continue;
                }
            }
            let Some((body, after)) = segment.split(rest, 0, &mut escaped) else {
                // A head ends in the middle of a text; all that was wanted of it has been read before.
                if head && segment.quoted && access.client.is_some() {
                    free.set(access, rest);
                    break;
                }
                return Err(Misfit {
                    at: line.len(),
                    wants: Wants::Words("a closing quote"),
                });
            };
            let mut fits = segment.backward(body, access, seen);
            let mut behind = after;
            // The quote may have been the first of an empty user name's two.
            if fits.is_err()
                && segment.bare_user
                && body.is_empty()
                && after.starts_with(b"\"")
                && let Some((body, after)) = segment.split(rest, EMPTY_USER, &mut escaped)
            {
                behind = after;
                fits = segment.backward(body, access, seen);
            }
            fits.map_err(|m| Misfit { at: at + m.at, ..m })?;
            rest = behind;
        }
        if escaped {
            access.texts = b"";
        }
        Ok(())
    }
}

/// Reads pieces from the beginning of `text`; what is left, or the piece that does not fit and where it should have been.
#[inline]
fn forward<'o, 'a>(
    ops: impl Iterator<Item = &'o Op>,
    mut text: &'a [u8],
    access: &mut Access<'a>,
    seen: &mut impl FnMut(&Op, &'a [u8]),
) -> Result<&'a [u8], (&'o Op, &'a [u8])> {
    for op in ops {
        let used = op.read(text, access);
        let Some((piece, after)) = used.and_then(|used| text.split_at_checked(used)) else {
            return Err((op, text));
        };
        seen(op, piece);
        text = after;
    }
    Ok(text)
}

impl Free {
    pub(super) fn set<'a>(self, access: &mut Access<'a>, text: &'a [u8]) {
        match self {
            Self::One(is) => access.set(is, text),
            Self::PathAndQuery => access.set_target(text),
        }
    }
}

impl Segment {
    /// Up to the next quote, not before byte `from`, that is httpd's own; and what follows it.
    fn split<'a>(
        &self,
        text: &'a [u8],
        mut from: usize,
        escaped: &mut bool,
    ) -> Option<(&'a [u8], &'a [u8])> {
        // An empty user name in quotes of the format stands as `""""`.
        if self.quoted
            && self.free == Some(Free::One(Text::Is(Field::User)))
            && text.starts_with(b"\"\"\"")
        {
            from = 2;
        }
        split(text, from, escaped)
    }

    /// Reads the pieces behind the free text from the end of `body`; what is left is the text.
    fn backward<'a>(
        &self,
        body: &'a [u8],
        access: &mut Access<'a>,
        seen: &mut impl FnMut(&Op, &'a [u8]),
    ) -> Result<(), Misfit> {
        let mut rest = body;
        for op in &self.right {
            let at = rest.len().saturating_sub(op.width(rest));
            let Some((before, piece)) = rest.split_at_checked(at) else {
                return Err(op.misfit(0));
            };
            if op.read(piece, access) != Some(piece.len()) {
                return Err(op.misfit(at));
            }
            seen(op, piece);
            rest = before;
        }
        if let Some(free) = self.free {
            free.set(access, rest);
        }
        Ok(())
    }
}

impl Op {
    /// Takes this piece from the beginning of `text`: how many bytes, or `None` if it is not what it should be.
    #[inline(always)]
    pub(super) fn read<'a>(&self, text: &'a [u8], access: &mut Access<'a>) -> Option<usize> {
        match self {
            Self::Byte(byte) => (text.first() == Some(byte)).then_some(1),
            Self::Literal(bytes) => text.starts_with(bytes).then_some(bytes.len()),
            Self::Client => {
                let (client, used) = Client::read(text)?;
                access.client = Some(client);
                Some(used)
            }
            Self::Peer => {
                let (peer, used) = Client::read(text)?;
                access.peer = Some(peer);
                // A format with nothing but the peer's address counts the peer.
                access.client = access.client.or(Some(peer));
                Some(used)
            }
            Self::Status => match text {
                [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] => {
                    access.status =
                        u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
                    Some(3)
                }
                _ => None,
            },
            Self::Bytes => {
                let (bytes, used) = number(text)?;
                access.bytes = bytes;
                Some(used)
            }
            Self::Duration(unit) => {
                let (units, used) = number(text)?;
                access.micros = units.saturating_mul(*unit);
                Some(used)
            }
            Self::Time(shape) => {
                if shape.digits_only {
                    let digits = digits(text);
                    return (1..=20).contains(&digits).then_some(digits);
                }
                let width = shape.width(text, false);
                shape.fits(text.get(..width)?).then_some(width)
            }
            Self::Token { stop, is } => {
                let used = token(text, *stop);
                access.set(*is, text.get(..used)?);
                (used > 0 && used <= TOKEN_MAX_BYTES).then_some(used)
            }
        }
    }

    /// How many bytes this piece takes at the end of `text`, if it is there.
    fn width(&self, text: &[u8]) -> usize {
        let run = |ends: &dyn Fn(u8) -> bool| {
            text.iter()
                .rev()
                .position(|b| ends(*b))
                .unwrap_or(text.len())
        };
        match self {
            Self::Byte(_) => 1,
            Self::Literal(bytes) => bytes.len(),
            Self::Client | Self::Peer => run(&|b| !is_address_byte(b)),
            Self::Status => 3,
            Self::Bytes | Self::Duration(_) => run(&|b| !b.is_ascii_digit()).max(1),
            Self::Time(shape) => shape.width(text, true),
            Self::Token { stop, .. } => run(&|b| b == *stop || b == b' '),
        }
    }

    fn misfit(&self, at: usize) -> Misfit {
        let wants = match self {
            Self::Byte(byte) => Wants::Byte(*byte),
            Self::Literal(_) => Wants::Words("the text that the format has here"),
            Self::Client | Self::Peer => Wants::Words("an IP address"),
            Self::Status => Wants::Words("a status of three digits"),
            Self::Bytes => Wants::Words("a number of bytes or -"),
            Self::Duration(_) => Wants::Words("a number"),
            Self::Time(_) => Wants::Words("a time as the format writes it"),
            Self::Token { .. } => Wants::Words("a word"),
        };
        Misfit { at, wants }
    }
}

/// `""`, as httpd writes an empty user name.
const EMPTY_USER: usize = 2;
/// Longest word of the server's own (a host name has 255 bytes at most).
const TOKEN_MAX_BYTES: usize = 256;

/// Digits, or `-` for none, at the beginning of `text`: the number and its length.
#[inline]
pub(super) fn number(text: &[u8]) -> Option<(u64, usize)> {
    let used = digits(text);
    match (used, text.first_chunk()) {
        (0, _) => (text.first() == Some(&b'-')).then_some((0, 1)),
        // Eight bytes at once: neighbours are joined to numbers of two digits, these of four, and of eight.
        (1..=8, Some(eight)) => {
            let shift = 64u32.wrapping_sub(8 * u32::try_from(used).unwrap_or(8));
            let ones = u64::from_le_bytes(*eight).wrapping_shl(shift) & 0x0f0f_0f0f_0f0f_0f0f;
            let twos = (ones.wrapping_mul(10 << 8 | 1) >> 8) & 0x00ff_00ff_00ff_00ff;
            let fours = (twos.wrapping_mul(100 << 16 | 1) >> 16) & 0x0000_ffff_0000_ffff;
            Some((fours.wrapping_mul(10_000 << 32 | 1) >> 32, used))
        }
        // 19 digits fit in 64 bits.
        (1..=19, _) => {
            let add = |number, byte: &u8| number * 10 + u64::from(byte - b'0');
            Some((text.iter().take(used).fold(0, add), used))
        }
        _ => None,
    }
}

/// How many digits stand at the beginning of `text`.
#[inline]
fn digits(text: &[u8]) -> usize {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let mut count = 0;
    while let Some(eight) = text.get(count..).and_then(<[u8]>::first_chunk) {
        let values = u64::from_le_bytes(*eight) ^ 0x3030_3030_3030_3030;
        // Adding 118 to more than 9 sets the highest bit.
        let others = ((values & LOW).wrapping_add(0x7676_7676_7676_7676) | values) & !LOW;
        if others != 0 {
            return count + others.trailing_zeros() as usize / 8;
        }
        count += 8;
    }
    let rest = text.get(count..).unwrap_or_default().iter();
    count + rest.take_while(|b| b.is_ascii_digit()).count()
}

/// Length of the word at the beginning of `text`: up to a blank, the line's end, `stop`, or a quote that is not escaped. A
/// server named by an IPv6 literal holds colons: `[::1]:80`.
#[inline]
fn token(text: &[u8], stop: u8) -> usize {
    if let [b'-', second, ..] = text
        && *second == stop
        && stop != b'-'
    {
        return 1;
    }
    // Nearly always the first that could be the end is the end.
    if text.first() != Some(&b'[')
        && let Some(at) = find(text, [stop, b' ', b'"', b'\n'])
        && text.get(at) != Some(&b'"')
    {
        return at;
    }
    let mut escaped = false;
    for (at, &b) in text.iter().enumerate() {
        if b == stop || matches!(b, b' ' | b'\n') || (b == b'"' && !escaped) {
            return at;
        }
        if at == 0 && b == b'[' {
            let literal = |b: &u8| !(b.is_ascii_hexdigit() || matches!(b, b'[' | b':' | b'.'));
            return text
                .iter()
                .position(literal)
                .map_or(text.len(), |end| end + 1);
        }
        // Of two backslashes the first one escapes the second.
        escaped = b == b'\\' && !escaped;
    }
    text.len()
}

/// Up to the first quote, not before byte `from`, that is not escaped, and stands before the line's end; and what follows it.
/// `escaped`: set if there is a backslash before it.
#[inline(always)]
pub(super) fn split<'a>(
    text: &'a [u8],
    mut from: usize,
    escaped: &mut bool,
) -> Option<(&'a [u8], &'a [u8])> {
    if from == 0 {
        // As nearly all texts are.
        let at = find(text, ENDS)?;
        if let (body, [b'"', behind @ ..]) = text.split_at_checked(at)? {
            return Some((body, behind));
        }
        from = at;
    }
    split_escaped(text, from, escaped)
}

#[inline(never)]
fn split_escaped<'a>(
    text: &'a [u8],
    mut from: usize,
    escaped: &mut bool,
) -> Option<(&'a [u8], &'a [u8])> {
    loop {
        let at = from + find(text.get(from..)?, ENDS)?;
        let (body, after) = text.split_at_checked(at)?;
        match after {
            [b'"', behind @ ..] => return Some((body, behind)),
            [b'\n', ..] | [_, b'\n', ..] => return None,
            _ => {}
        }
        *escaped = true;
        // What follows a backslash is never httpd's quote.
        from = at + 2;
    }
}

/// Where a text may end, or has to be looked at closely.
const ENDS: [u8; 3] = [b'"', b'\\', b'\n'];

/// The first word of a line, if it is the last one, too.
fn seal(line: &[u8]) -> Option<&[u8]> {
    let first = line.get(..memchr::memchr(b' ', line)?)?;
    let before = line.strip_suffix(first)?;
    (before.last() == Some(&b' ')).then_some(first)
}

fn split_at_byte(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let (before, after) = text.split_at_checked(find(text, [byte])?)?;
    Some((before, after.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(format: &Format, line: &'a [u8]) -> Result<Access<'a>, Misfit> {
        let mut access = Access::default();
        format.read(line, &mut access).map(|()| access)
    }

    fn shown(text: &[u8]) -> String {
        String::from_utf8_lossy(text).into_owned()
    }

    #[test]
    fn the_swift_way_agrees_with_the_general_one() {
        let lines = [
            r#"192.0.2.7 - - [22/Nov/2026:20:02:28 +0000] "GET /a?b=c HTTP/1.1" 404 - "http://r/" "a\"b""#,
            r#"2001:db8::5 - ice [22/Nov/2026:20:02:28 +0000] "-" 408 12 "-" "-""#,
            r#"192.0.2.7 - "" [22/Nov/2026:20:02:28 +0000] "GET / HTTP/1.1" 200 5 "" "\\""#,
            r#"f2b:1:ab ::1 192.0.2.7 www.example.org 200 5 12345678901 "-" "GET /x HTTP/1.1" "-" "a\\" f2b:1:ab"#,
            r#"f2b:1:ab ::1 192.0.2.7 [::1]:80 200 5 123456789 """" "GET /x HTTP/1.1" "-" "-" f2b:1:ab"#,
            r#"www.example.org:80 192.0.2.7 - - [22/Nov/2026:20:02:28 +0000] "GET /" 404 1"#,
        ];
        let mut swift = 0;
        for (_, text) in super::super::format::NICKNAMES {
            let format = Format::compile(text).unwrap();
            let mut general = format.clone();
            general.swift = None;
            assert!(format.swift.is_some(), "{text}");
            for line in lines {
                // And all of its pieces, and with each byte changed.
                for n in 0..=line.len() {
                    let (before, after) = line.split_at(n);
                    for line in [
                        before.to_owned(),
                        format!("{before}\"{after}"),
                        format!("{before}7{after}"),
                    ] {
                        let line = line.as_bytes();
                        let shown = |r: Result<Access<'_>, Misfit>| format!("{r:?}");
                        assert_eq!(
                            shown(read(&format, line)),
                            shown(read(&general, line)),
                            "{}",
                            String::from_utf8_lossy(line)
                        );
                        let way = format.swift.as_ref().unwrap();
                        let seal = seal(line);
                        let read = way.read(line, seal, &mut Access::default());
                        swift += usize::from(read == Some(b""));
                    }
                }
            }
        }
        assert!(swift > 100, "{swift}");
    }

    #[test]
    fn the_end_of_a_line_is_found_where_it_is() {
        let lines = [
            r#"192.0.2.7 - - [22/Nov/2026:20:02:28 +0000] "GET /a?b=c HTTP/1.1" 404 - "http://r/" "a\"b""#,
            r#"2001:db8::5 - - [22/Nov/2026:20:02:28 +0000] "\\" 408 12 "\\\"" "-""#,
            r#"f2b:1:ab ::1 192.0.2.7 www.example.org 200 5 12345678901 "" "GET /x HTTP/1.1" "-" "a\\" f2b:1:ab"#,
            r#"www.example.org:80 192.0.2.7 - - [22/Nov/2026:20:02:28 +0000] "GET /" 404 1"#,
            r#"www.example.org 192.0.2.7 - 17 "GET /" 200 GET"#,
        ];
        let (combined, f2b) = ("combined", "f2b");
        let word = r#"%v %h %{x}e %D "%r" %>s %m"#;
        let mut found = 0;
        for text in [combined, f2b, "vhost_common", word] {
            let format = Format::compile(text).unwrap();
            for (line, other) in lines.iter().flat_map(|l| lines.iter().map(move |o| (l, o))) {
                for n in 0..=line.len() {
                    let (before, after) = line.split_at(n);
                    for between in ["", "\n", "\\", "\\\n", "\"", "\\\"\n", " "] {
                        let text = format!("{before}{between}{after}\n{other}\n");
                        let end = text.find('\n').unwrap();
                        let first = &text.as_bytes()[..end];
                        let mut access = Access::default();
                        let ended = format.read_first(text.as_bytes(), &mut access);
                        let swift = format.swift.as_ref().is_some_and(|swift| {
                            let mut access = Access::default();
                            (!format.sealed || seal(first).is_some())
                                && swift.read(first, seal(first), &mut access) == Some(b"")
                        });
                        assert_eq!(ended, swift.then_some(end), "{text:?}");
                        if swift {
                            let whole = read(&format, first).unwrap();
                            assert_eq!(format!("{access:?}"), format!("{whole:?}"), "{text:?}");
                            found += 1;
                        }
                    }
                }
            }
        }
        assert!(found > 1000, "{found}");
    }

    #[test]
    fn combined_is_read() {
        let combined = Format::compile("combined").unwrap();
        let line = br#"192.0.2.7 - al ice [x [22/Nov/2026:20:02:28 +0000] "GET /a?b=c HTTP/1.1" 404 - "http://r/" "a\"b""#;
        let access = read(&combined, line).unwrap();
        assert_eq!(access.client, Client::parse(b"192.0.2.7"));
        assert_eq!((access.status, access.bytes), (404, 0));
        let texts = [
            access.method,
            access.path,
            access.query,
            access.user,
            access.referer,
            access.agent,
        ];
        assert_eq!(
            texts.map(shown),
            ["GET", "/a", "b=c", "al ice [x", "http://r/", "a\\\"b"]
        );
        assert_eq!(combined.logged(line), Some(1_795_377_748_000_000));
    }

    #[test]
    fn a_user_name_cannot_hide_or_move_anything() {
        let combined = Format::compile("combined").unwrap();
        for user in [
            "-",
            "\"\"",
            "- - [01/Jan/2000",
            "x [22/Nov/2026:20:02:28 +0000]",
            r#"a\"b\n6.6.6.6 - - x"#,
            "a  b ",
        ] {
            let line = format!(
                r#"192.0.2.7 - {user} [22/Nov/2026:20:02:28 +0000] "GET / HTTP/1.1" 401 0 "-" "-""#
            );
            let access = read(&combined, line.as_bytes()).unwrap();
            let want = if user == "\"\"" { "" } else { user };
            assert_eq!(
                (shown(access.user).as_str(), access.status),
                (want, 401),
                "{line}"
            );
        }
    }

    #[test]
    fn f2b_wants_equal_seals() {
        let f2b = Format::compile("f2b").unwrap();
        let line = |a: &str, b: &str, user: &str| {
            format!(
                r#"f2b:{a} 192.0.2.7 192.0.2.9 www.example 401 12 345 "{user}" "GET /x HTTP/1.1" "-" "curl" f2b:{b}"#
            )
        };
        let good = line("1795377748000001:7f00aa", "1795377748000001:7f00aa", "\"\"");
        let access = read(&f2b, good.as_bytes()).unwrap();
        assert_eq!(
            (access.user, access.micros, shown(access.vhost).as_str()),
            (&b""[..], 345, "www.example")
        );
        assert_eq!(access.peer, Client::parse(b"192.0.2.9"));
        assert!(
            read(
                &f2b,
                line("1795377748000001:7f00aa", "1795377748000002:7f00aa", "-").as_bytes()
            )
            .is_err()
        );
        assert!(read(&f2b, line("1:a", "1:a", "a\" \"b").as_bytes()).is_err());
    }

    #[test]
    fn method_path_and_query_may_stand_apart() {
        let format = Format::compile(r#"%a %>s "%m %U%q %H" %{ms}T"#).unwrap();
        let access = read(&format, br#"2001:db8::1 200 "GET /a b?c=d HTTP/1.1" 12"#).unwrap();
        let texts = [access.method, access.path, access.query];
        assert_eq!(texts.map(shown), ["GET", "/a b", "c=d"]);
        assert_eq!(access.micros, 12_000);
    }

    #[test]
    fn a_misfit_says_where() {
        let combined = Format::compile("combined").unwrap();
        let at = |line: &str| read(&combined, line.as_bytes()).unwrap_err().at;
        assert_eq!(
            at(
                "localhost - - [22/Nov/2026:20:05:20 +0000] \"GET /x HTTP/1.1\" 404 416 \"-\" \"-\""
            ),
            0
        );
        assert_eq!(
            at("6.6.6.6 - - [22/Nov/2026:20:00:00 +0000] GET /wp-login.php HTTP/1.1 401 1 -\""),
            74
        );
        assert_eq!(
            at("6.6.6.6 - - [22/Nov/2026:20:00:00 +0000] \"GET / HTTP/1.1\" 4x1 1 \"-\" \"-\""),
            58
        );
        assert_eq!(at(""), 0);
    }

    #[test]
    fn an_empty_request_and_an_empty_user_are_told_apart() {
        let combined = Format::compile("combined").unwrap();
        for (user, request) in [
            ("-", ""),
            ("\"\"", ""),
            ("\"\"", "GET / HTTP/1.1"),
            ("-", "-"),
        ] {
            let line = format!(
                r#"192.0.2.7 - {user} [22/Nov/2026:20:02:28 +0000] "{request}" 400 0 "-" "-""#
            );
            let access = read(&combined, line.as_bytes()).unwrap();
            assert_eq!(
                shown(access.user),
                if user == "-" { "-" } else { "" },
                "{line}"
            );
            assert_eq!(shown(access.request), request, "{line}");
        }
    }

    #[test]
    fn a_servers_word_ends_at_a_quote_that_nothing_escapes() {
        let combined = Format::compile("combined").unwrap();
        for (word, fits) in [("ww", true), (r#"w\"w"#, true), (r#"w\\"w"#, false)] {
            let line = format!(
                r#"192.0.2.7 {word} - [22/Nov/2026:20:02:28 +0000] "GET / HTTP/1.1" 200 5 "-" "-""#
            );
            assert_eq!(read(&combined, line.as_bytes()).is_ok(), fits, "{line}");
        }
    }

    #[test]
    fn the_head_of_an_endless_line_still_has_its_sender() {
        let combined = Format::compile("combined").unwrap();
        let head = br#"192.0.2.7 - - [22/Nov/2026:20:02:28 +0000] "GET / HTTP/1.1" 400 0 "-" "aaaaaaaaaaa"#;
        assert!(read(&combined, head).is_err());
        let mut access = Access::default();
        combined.read_head(head, &mut access).unwrap();
        assert_eq!(
            (access.status, shown(access.agent).as_str()),
            (400, "aaaaaaaaaaa")
        );
        assert!(
            combined
                .read_head(b"192.0.2.7 - aaaaaaaaaaaaaaa", &mut Access::default())
                .is_err()
        );
    }
}
