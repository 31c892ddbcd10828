//! One access line by its format.

use super::format::{Format, Free, Op, Segment, Text};
use super::time::Moment;
use crate::client::Client;
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
            Text::Is(Field::Path) => self.path = text,
            Text::Is(Field::Query) => self.query = text.strip_prefix(b"?").unwrap_or(text),
            Text::Is(Field::Agent) => self.agent = text,
            Text::Is(Field::Referer) => self.referer = text,
            Text::Is(Field::User) => self.user = if text == b"\"\"" { b"" } else { text },
            Text::Is(Field::Vhost) => self.vhost = text,
            Text::Is(Field::Message) => self.message = text,
        }
    }

    /// `GET /path?query HTTP/1.1`; without a protocol for HTTP/0.9; `-` when no request line came at all. Garbage has
    /// its first word as method and the rest as path.
    fn set_request(&mut self, request: &'a [u8]) {
        self.request = request;
        if request == b"-" {
            return;
        }
        let (method, rest) = split_at_byte(request, b' ').unwrap_or((request, b""));
        self.method = method;
        let target = match memchr::memrchr(b' ', rest) {
            Some(at) => match rest.split_at_checked(at) {
                Some((target, protocol)) if protocol.starts_with(b" HTTP/") => target,
                _ => rest,
            },
            None => rest,
        };
        (self.path, self.query) = split_at_byte(target, b'?').unwrap_or((target, b""));
    }
}

/// Where reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Byte of the line, from 0.
    pub at: usize,
    /// What the format wants there.
    pub wants: &'static str,
}

impl Format {
    /// Reads one line, without its newline.
    ///
    /// # Errors
    /// The line is not of this format, from end to end.
    pub fn read<'a>(&self, line: &'a [u8]) -> Result<Access<'a>, Misfit> {
        let mut access = Access::default();
        if self.sealed && !seals_agree(line) {
            return Err(Misfit {
                at: 0,
                wants: "the same token at both ends of the line",
            });
        }
        self.walk(line, false, &mut access, &mut |_, _| {})?;
        Ok(access)
    }

    /// Reads the head of a line that was too long to keep: what is there must fit, and reach the status (or, in a format
    /// without one, the end of the first text).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_head<'a>(&self, head: &'a [u8]) -> Result<Access<'a>, Misfit> {
        let mut access = Access::default();
        self.walk(head, true, &mut access, &mut |_, _| {})?;
        Ok(access)
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
        let mut segments = self.segments.iter().peekable();
        while let Some(segment) = segments.next() {
            let at = line.len() - rest.len();
            let whole = rest;
            let body = if segments.peek().is_none() {
                std::mem::take(&mut rest)
            } else {
                match segment.split(rest, 0) {
                    Some((body, after)) => {
                        rest = after;
                        body
                    }
                    // A head ends in the middle of a text; all that was wanted of it has been read before.
                    None if head && segment.quoted && access.client.is_some() => {
                        if let (Some(free), true) = (segment.free, segment.left.is_empty()) {
                            free.set(access, rest);
                        }
                        return Ok(());
                    }
                    None => {
                        return Err(Misfit {
                            at: line.len(),
                            wants: "a closing quote",
                        });
                    }
                }
            };
            let mut fits = segment.read(body, access, seen);
            // The quote may have been the first of an empty user name's two.
            if let (Err(_), true) = (fits, segment.bare_user && rest.starts_with(b"\"")) {
                if let Some((body, after)) = segment.split(whole, body.len() + 2) {
                    rest = after;
                    fits = segment.read(body, access, seen);
                }
            }
            fits.map_err(|misfit| Misfit {
                at: at + misfit.at,
                ..misfit
            })?;
        }
        Ok(())
    }
}

impl Free {
    fn set<'a>(self, access: &mut Access<'a>, text: &'a [u8]) {
        match self {
            Self::One(is) => access.set(is, text),
            Self::PathAndQuery => {
                (access.path, access.query) = split_at_byte(text, b'?').unwrap_or((text, b""));
            }
        }
    }
}

impl Segment {
    /// Up to the next quote, not before byte `from`, that is httpd's own; and what follows it.
    fn split<'a>(&self, text: &'a [u8], mut from: usize) -> Option<(&'a [u8], &'a [u8])> {
        // An empty user name in quotes of the format stands as `""""`.
        if self.quoted
            && self.free == Some(Free::One(Text::Is(Field::User)))
            && text.starts_with(b"\"\"\"")
        {
            from = 2;
        }
        loop {
            let quote = from + memchr::memchr(b'"', text.get(from..)?)?;
            let (body, after) = text.split_at_checked(quote)?;
            if !escaped_at_end(body) {
                return Some((body, after.get(1..)?));
            }
            from = quote + 1;
        }
    }

    fn read<'a>(
        &self,
        body: &'a [u8],
        access: &mut Access<'a>,
        seen: &mut impl FnMut(&Op, &'a [u8]),
    ) -> Result<(), Misfit> {
        let mut rest = body;
        for op in &self.left {
            let at = body.len() - rest.len();
            let Some(used) = op.read(rest, access) else {
                return Err(op.misfit(at));
            };
            let Some((piece, after)) = rest.split_at_checked(used) else {
                return Err(op.misfit(at));
            };
            seen(op, piece);
            rest = after;
        }
        let start = body.len() - rest.len();
        for op in &self.right {
            let split = rest
                .len()
                .checked_sub(op.width(rest, true))
                .and_then(|at| rest.split_at_checked(at));
            let Some((before, piece)) = split else {
                return Err(op.misfit(start));
            };
            if !op.take(piece, access) {
                return Err(op.misfit(start + before.len()));
            }
            seen(op, piece);
            rest = before;
        }
        match self.free {
            Some(free) => free.set(access, rest),
            None if rest.is_empty() => {}
            None => {
                return Err(Misfit {
                    at: body.len() - rest.len(),
                    wants: "the end, or a quote",
                });
            }
        }
        Ok(())
    }
}

impl Op {
    /// Takes this piece from the beginning of `text`; the bytes it takes, or `None` if it is not what it should be.
    /// The same as `width` and `take`, in one go for the pieces that every line has.
    #[inline]
    fn read<'a>(&self, text: &'a [u8], access: &mut Access<'a>) -> Option<usize> {
        match self {
            Self::Literal(bytes) => text.starts_with(bytes).then_some(bytes.len()),
            Self::Status => self.take(text.get(..3)?, access).then_some(3),
            Self::Time(shape) if !shape.digits_only => {
                let width = shape.width(text, false);
                shape.fits(text.get(..width)?).then_some(width)
            }
            _ => {
                let width = self.width(text, false);
                self.take(text.get(..width)?, access).then_some(width)
            }
        }
    }

    /// How many bytes this piece takes at the beginning (or end) of `text`.
    #[inline]
    fn width(&self, text: &[u8], from_end: bool) -> usize {
        let until = |stop: u8| {
            let stops = |b: &u8| *b == stop || *b == b' ';
            if from_end {
                text.iter().rev().position(stops).unwrap_or(text.len())
            } else {
                text.iter().position(stops).unwrap_or(text.len())
            }
        };
        match self {
            Self::Literal(bytes) => bytes.len(),
            Self::Client | Self::Peer => {
                let address = |b: &u8| !(b.is_ascii_alphanumeric() || b".:%_-".contains(b));
                if from_end {
                    text.iter().rev().position(address).unwrap_or(text.len())
                } else {
                    text.iter().position(address).unwrap_or(text.len())
                }
            }
            Self::Status => 3,
            Self::Bytes | Self::Duration(_) => {
                let digits = if from_end {
                    text.iter().rev().take_while(|b| b.is_ascii_digit()).count()
                } else {
                    text.iter().take_while(|b| b.is_ascii_digit()).count()
                };
                digits.max(1)
            }
            Self::Time(shape) => shape.width(text, from_end),
            // A server named by an IPv6 literal holds colons: `[::1]:80`.
            Self::Token { .. } if !from_end && text.starts_with(b"[") => {
                memchr::memchr(b']', text).map_or(text.len(), |end| end + 1)
            }
            Self::Token { stop, .. } => until(*stop),
        }
    }

    /// Takes the piece, if it is what it should be.
    #[inline]
    fn take<'a>(&self, piece: &'a [u8], access: &mut Access<'a>) -> bool {
        match self {
            Self::Literal(bytes) => piece == &**bytes,
            Self::Client => {
                access.client = Client::parse(piece);
                access.client.is_some()
            }
            Self::Peer => {
                access.peer = Client::parse(piece);
                // A format with nothing but the peer's address counts the peer.
                access.client = access.client.or(access.peer);
                access.peer.is_some()
            }
            Self::Status => match piece {
                [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                    access.status =
                        u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
                    true
                }
                _ => false,
            },
            Self::Bytes => number(piece).map(|n| access.bytes = n).is_some(),
            Self::Duration(unit) => number(piece)
                .map(|n| access.micros = n.saturating_mul(*unit))
                .is_some(),
            Self::Time(shape) => shape.fits(piece),
            Self::Token { is, .. } => {
                access.set(*is, piece);
                !piece.is_empty() && piece.len() <= TOKEN_MAX_BYTES
            }
        }
    }

    fn misfit(&self, at: usize) -> Misfit {
        let wants = match self {
            Self::Literal(_) => "the text that the format has here",
            Self::Client | Self::Peer => "an IP address",
            Self::Status => "a status of three digits",
            Self::Bytes => "a number of bytes or -",
            Self::Duration(_) => "a number",
            Self::Time(_) => "a time as the format writes it",
            Self::Token { .. } => "a word",
        };
        Misfit { at, wants }
    }
}

/// Longest word of the server's own (a host name has 255 bytes at most).
const TOKEN_MAX_BYTES: usize = 256;

/// Digits, or `-` for none.
fn number(piece: &[u8]) -> Option<u64> {
    if piece == b"-" {
        return Some(0);
    }
    if piece.is_empty() || piece.len() > 19 {
        return None;
    }
    piece.iter().try_fold(0u64, |n, b| {
        b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0'))
    })
}

/// Does `text` end in an odd number of backslashes, so that a quote behind it is the client's?
fn escaped_at_end(text: &[u8]) -> bool {
    text.last() == Some(&b'\\') && text.iter().rev().take_while(|b| **b == b'\\').count() % 2 == 1
}

fn seals_agree(line: &[u8]) -> bool {
    let first = memchr::memchr(b' ', line).and_then(|end| line.get(..end));
    let last = memchr::memrchr(b' ', line).and_then(|start| line.get(start + 1..));
    first.is_some() && first == last
}

fn split_at_byte(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let (before, after) = text.split_at_checked(memchr::memchr(byte, text)?)?;
    Some((before, after.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &[u8]) -> String {
        String::from_utf8_lossy(text).into_owned()
    }

    #[test]
    fn combined_is_read() {
        let combined = Format::compile("combined").unwrap();
        let line = br#"192.0.2.7 - al ice [x [22/Nov/2026:20:02:28 +0000] "GET /a?b=c HTTP/1.1" 404 - "http://r/" "a\"b""#;
        let access = combined.read(line).unwrap();
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
            let access = combined.read(line.as_bytes()).unwrap();
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
        let access = f2b.read(good.as_bytes()).unwrap();
        assert_eq!(
            (access.user, access.micros, shown(access.vhost).as_str()),
            (&b""[..], 345, "www.example")
        );
        assert_eq!(access.peer, Client::parse(b"192.0.2.9"));
        assert!(
            f2b.read(line("1795377748000001:7f00aa", "1795377748000002:7f00aa", "-").as_bytes())
                .is_err()
        );
        assert!(f2b.read(line("1:a", "1:a", "a\" \"b").as_bytes()).is_err());
    }

    #[test]
    fn method_path_and_query_may_stand_apart() {
        let format = Format::compile(r#"%a %>s "%m %U%q %H" %{ms}T"#).unwrap();
        let access = format
            .read(br#"2001:db8::1 200 "GET /a b?c=d HTTP/1.1" 12"#)
            .unwrap();
        let texts = [access.method, access.path, access.query];
        assert_eq!(texts.map(shown), ["GET", "/a b", "c=d"]);
        assert_eq!(access.micros, 12_000);
    }

    #[test]
    fn a_misfit_says_where() {
        let combined = Format::compile("combined").unwrap();
        let at = |line: &str| combined.read(line.as_bytes()).unwrap_err().at;
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
            let access = combined.read(line.as_bytes()).unwrap();
            assert_eq!(
                shown(access.user),
                if user == "-" { "-" } else { "" },
                "{line}"
            );
            assert_eq!(shown(access.request), request, "{line}");
        }
    }

    #[test]
    fn the_head_of_an_endless_line_still_has_its_sender() {
        let combined = Format::compile("combined").unwrap();
        let head = br#"192.0.2.7 - - [22/Nov/2026:20:02:28 +0000] "GET / HTTP/1.1" 400 0 "-" "aaaaaaaaaaa"#;
        assert!(combined.read(head).is_err());
        let access = combined.read_head(head).unwrap();
        assert_eq!(
            (access.status, shown(access.agent).as_str()),
            (400, "aaaaaaaaaaa")
        );
        assert!(combined.read_head(b"192.0.2.7 - aaaaaaaaaaaaaaa").is_err());
    }
}
