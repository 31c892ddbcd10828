//! A `LogFormat` string (mod_log_config), compiled once.
//!
//! The string falls into segments at its quotes. httpd escapes every quote that a client writes, so an unescaped quote
//! is always httpd's own, and each segment of a line is found without looking at what stands in it. Within a segment at
//! most one piece may be free text (a user name, a header); what stands before it is read from the left and what
//! stands behind it from the right, so that no choice of text can move a server's own field.

use std::fmt;

use super::access::{Access, Misfit};
use super::swift::Swift;
use super::time::TimeShape;
use crate::client::is_address_byte;
use crate::config::Field;

/// The format we recommend: the same token, which no client knows, at both ends; addresses first; all client text in quotes.
pub const F2B: &str = r#"f2b:%{usec}t:%{hextid}P %a %{c}a %v %>s %B %D "%u" "%r" "%{Referer}i" "%{User-Agent}i" f2b:%{usec}t:%{hextid}P"#;
/// Formats that have a name. `%O` and `%b` look alike: digits or `-`.
pub const NICKNAMES: [(&str, &str); 5] = [
    ("f2b", F2B),
    (
        "combined",
        r#"%h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i""#,
    ),
    ("common", r#"%h %l %u %t "%r" %>s %b"#),
    (
        "vhost_combined",
        r#"%v:%p %h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i""#,
    ),
    ("vhost_common", r#"%v %h %l %u %t "%r" %>s %b"#),
];

/// A compiled format.
#[derive(Clone, Debug)]
pub struct Format {
    pub(super) segments: Vec<Segment>,
    pub(super) sealed: bool,
    pub(super) swift: Option<Swift>,
    by_name: bool,
    fields: Vec<Field>,
    text: String,
}

/// What stands between two quotes, or between a quote and an end of the line.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) quoted: bool,
    /// Holds `%u` outside quotes: httpd writes an empty user name as `""`, unescaped.
    pub(super) bare_user: bool,
    /// The first one whose free text a jail can look for something in.
    pub(super) begins_texts: bool,
    /// Read from the left.
    pub(super) left: Vec<Op>,
    pub(super) free: Option<Free>,
    /// Read from the right: the last one stands first.
    pub(super) right: Vec<Op>,
}

/// A piece with an end of its own.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// A literal of one byte, as nearly all are.
    Byte(u8),
    Literal(Box<[u8]>),
    Client,
    Peer,
    Status,
    Bytes,
    /// A number in units of this many microseconds.
    Duration(u64),
    Time(Box<TimeShape>),
    /// Server's text without blanks and without this byte.
    Token {
        stop: u8,
        is: Text,
    },
}

/// A piece that ends only where the others begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Free {
    One(Text),
    /// `%U%q`: the query begins at the first `?`.
    PathAndQuery,
}

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Is(Field),
    Ignored,
}

/// One directive, before it is known where it stands.
#[derive(Clone, Debug)]
enum Kind {
    Fixed(Op),
    Token(Text),
    Free(Text),
}

#[derive(Clone, Debug)]
enum Item {
    Literal(Vec<u8>),
    Directive {
        kind: Kind,
        text: String,
        by_client: bool,
    },
}

/// Why a format cannot be used for banning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// A word that is no nickname and holds no `%`.
    Nickname(String),
    /// No `%a` or `%h`.
    NoAddress,
    /// The address stands on some lines only (`%200a`), or is a header that clients write.
    AddressNotSure(String),
    /// This directive, which a client fills, stands outside quotes before the address.
    TextBeforeAddress(String),
    /// Two free texts with no quote between them: nobody can tell where the first one ends.
    TwoTexts(String, String),
    /// Two directives with nothing between them.
    Touching(String, String),
    /// mod_log_config has no such directive.
    Unknown(String),
    /// A quote without its partner.
    OddQuotes,
    /// `\n` in the format: one request, several lines.
    LineBreak,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BETTER: &str = "write --format f2b (and LogFormat as in README, \"The format\")";
        match self {
            Self::Nickname(word) => {
                let names: Vec<&str> = NICKNAMES.iter().map(|(name, _)| *name).collect();
                write!(
                    f,
                    "\"{}\" is not a format I know by name; write one of {}, or the string of your LogFormat",
                    word.escape_default(),
                    names.join(", ")
                )
            }
            Self::NoAddress => {
                write!(
                    f,
                    "the format has no client address; begin it with %a, or {BETTER}"
                )
            }
            Self::AddressNotSure(directive) => {
                write!(
                    f,
                    "{directive} is not an address that httpd puts on every line; use a plain %a, or {BETTER}"
                )
            }
            Self::TextBeforeAddress(directive) => write!(
                f,
                "{directive} is written by the client and stands outside quotes before the address, so a client could put \
                 somebody else's address there; move %a to the front, put \\\"{directive}\\\" in quotes, or {BETTER}"
            ),
            Self::TwoTexts(first, second) => write!(
                f,
                "nobody can tell where {first} ends and {second} begins; put both in quotes: \\\"{first}\\\" \\\"{second}\\\""
            ),
            Self::Touching(first, second) => {
                write!(
                    f,
                    "{first} and {second} stand side by side; put a blank between them"
                )
            }
            Self::Unknown(directive) => {
                write!(
                    f,
                    "{directive} is not a directive of mod_log_config; to write a percent sign use %%"
                )
            }
            Self::OddQuotes => {
                f.write_str("a quote without its partner; each \\\" needs a second one")
            }
            Self::LineBreak => {
                f.write_str("\\n in the format makes several lines of one request; leave it out")
            }
        }
    }
}

impl std::error::Error for FormatError {}

impl Format {
    /// Compiles a nickname, or the very string from httpd.conf (with `\"` or plain quotes, outer quotes or none).
    ///
    /// # Errors
    /// A format that cannot be read, or not safely: nobody may be banned by its lines.
    pub fn compile(text: &str) -> Result<Self, FormatError> {
        let text = text.trim();
        let named = NICKNAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, format)| *format);
        if named.is_none() && !text.contains('%') {
            return Err(FormatError::Nickname(text.to_owned()));
        }
        let text = named.map_or_else(|| unquote(text), str::to_owned);
        let items = Items::read(&text)?;
        let mut segments = segments(&items)?;
        check_addresses(&segments, &items)?;

        let written = |segment: &&mut Segment| match segment.free {
            Some(Free::PathAndQuery) => true,
            Some(Free::One(Text::Is(field))) => field != Field::User,
            Some(Free::One(Text::Ignored)) | None => false,
        };
        if let Some(first) = segments.iter_mut().find(written) {
            first.begins_texts = true;
        }
        let bare_text = segments.iter().any(|s| !s.quoted && s.free.is_some());
        let first = text.split(' ').next().unwrap_or_default();
        let seal = first.contains("%{usec}t")
            && (first.contains("%{hextid}P") || first.contains("%{tid}P"));
        let sealed =
            seal && !first.contains('"') && text.rsplit(' ').next() == Some(first) && !bare_text;

        // %h is a name where HostnameLookups are on, and the name of a client's address is what its owner's DNS says.
        let by_name = items.iter().any(|item| match item {
            Item::Directive {
                kind: Kind::Fixed(Op::Client),
                text,
                ..
            } => text.ends_with('h'),
            Item::Directive { .. } | Item::Literal(_) => false,
        });
        let mut fields = Vec::new();
        for segment in &segments {
            for op in segment.left.iter().chain(&segment.right) {
                if let Op::Token {
                    is: Text::Is(field),
                    ..
                } = op
                {
                    fields.push(*field);
                }
            }
            match segment.free {
                Some(Free::One(Text::Is(field))) => fields.push(field),
                Some(Free::PathAndQuery) => fields.extend([Field::Path, Field::Query]),
                Some(Free::One(Text::Ignored)) | None => {}
            }
        }
        if fields.contains(&Field::Request) {
            fields.extend([Field::Method, Field::Path, Field::Query]);
        }
        Ok(Self {
            swift: Swift::new(&segments, sealed),
            segments,
            sealed,
            by_name,
            fields,
            text,
        })
    }

    /// The `LogFormat` string, with plain quotes.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Do its lines carry this field?
    #[must_use]
    pub fn has(&self, field: Field) -> bool {
        self.fields.contains(&field)
    }

    /// Does the status stand on its lines?
    #[must_use]
    pub fn has_status(&self) -> bool {
        self.any(|op| matches!(op, Op::Status))
    }

    /// Do the bytes sent?
    #[must_use]
    pub fn has_bytes(&self) -> bool {
        self.any(|op| matches!(op, Op::Bytes))
    }

    /// Does the request's duration?
    #[must_use]
    pub fn has_duration(&self) -> bool {
        self.any(|op| matches!(op, Op::Duration(_)))
    }

    /// Does a time, which `replay` needs?
    #[must_use]
    pub fn has_time(&self) -> bool {
        self.any(|op| matches!(op, Op::Time(_)))
    }

    /// Is `line`, which does not fit at `misfit`, one in which `%h` became a host name (HostnameLookups On)? Then it is no
    /// better where it looks like an address: whoever owns an address may call it 6.6.6.6.
    #[must_use]
    pub fn has_name(&self, line: &[u8], misfit: Misfit) -> bool {
        let from_name = line.get(misfit.at..).unwrap_or_default();
        let len = from_name
            .iter()
            .position(|b| !is_address_byte(*b))
            .unwrap_or(from_name.len());
        let (name, after) = from_name.split_at_checked(len).unwrap_or_default();
        let looks = self.by_name && len <= 255 && name.iter().any(u8::is_ascii_alphabetic);
        let with_address = || {
            [
                line.get(..misfit.at).unwrap_or_default(),
                b"192.0.2.1",
                after,
            ]
            .concat()
        };
        looks && self.read(&with_address(), &mut Access::default()).is_ok()
    }

    /// Begins and ends with the same token, so that a torn line can be told from a whole one.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    fn any(&self, what: impl Fn(&Op) -> bool) -> bool {
        self.segments
            .iter()
            .any(|s| s.left.iter().chain(&s.right).any(&what))
    }
}

/// Undoes the escapes that the string has in httpd.conf, and takes off the quotes around the whole of it.
fn unquote(text: &str) -> String {
    let inner = match text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        // `"%r" %h "%u"` begins and ends with quotes of its own; only a string with \" inside is quoted as a whole.
        Some(inner) if inner.contains("\\\"") => inner,
        _ => text,
    };
    inner.replace("\\\"", "\"")
}

struct Items;

impl Items {
    fn read(text: &str) -> Result<Vec<Item>, FormatError> {
        // Whoever reads a line need not know its end: no piece asks for a newline.
        if text.contains('\n') {
            return Err(FormatError::LineBreak);
        }
        let mut items: Vec<Item> = Vec::new();
        let mut literal = Vec::new();
        let final_status = text.contains("%>s");
        let has_address = text.contains("%a");
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some('n') => return Err(FormatError::LineBreak),
                    Some('t') => literal.push(b'\t'),
                    Some('\\') | None => literal.push(b'\\'),
                    Some(other) => {
                        literal.push(b'\\');
                        literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                },
                '%' if chars.peek() == Some(&'%') => {
                    chars.next();
                    literal.push(b'%');
                }
                '%' => {
                    if !literal.is_empty() {
                        items.push(Item::Literal(std::mem::take(&mut literal)));
                    }
                    items.push(Self::directive(&mut chars, final_status, has_address)?);
                }
                other => literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !literal.is_empty() {
            items.push(Item::Literal(literal));
        }
        Ok(items)
    }

    /// What follows a `%`: conditions (`!200,304`), `<` or `>`, `{argument}`, one letter (or `^` and two).
    fn directive(
        chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
        final_status: bool,
        has_address: bool,
    ) -> Result<Item, FormatError> {
        let mut text = String::from("%");
        let mut argument = String::new();
        let mut conditional = false;
        let letter = loop {
            let Some(c) = chars.next() else {
                return Err(FormatError::Unknown(text));
            };
            text.push(c);
            match c {
                '!' | '0'..='9' | ',' => conditional = true,
                '<' | '>' => {}
                '{' => {
                    for c in chars.by_ref() {
                        text.push(c);
                        if c == '}' {
                            break;
                        }
                        argument.push(c);
                    }
                }
                '^' => {
                    let name: String = chars.by_ref().take(2).collect();
                    text.push_str(&name);
                    break if name == "ti" || name == "to" {
                        'i'
                    } else {
                        '^'
                    };
                }
                c => break c,
            }
        };
        let (kind, by_client) = match (letter, argument.as_str()) {
            ('a' | 'h', _) if conditional => return Err(FormatError::AddressNotSure(text)),
            ('a' | 'h', "c") => (Kind::Fixed(Op::Peer), false),
            // Beside %a the name says nothing more.
            ('h', "") if has_address => (Kind::Token(Text::Ignored), false),
            ('a' | 'h', "") => (Kind::Fixed(Op::Client), false),
            (letter, _) if conditional => {
                (Kind::Free(Text::Ignored), "iCenofuUqrfVm".contains(letter))
            }
            ('s', _) if !final_status || text.contains('>') => (Kind::Fixed(Op::Status), false),
            ('b' | 'B' | 'O', _) => (Kind::Fixed(Op::Bytes), false),
            ('D', _) => (Kind::Fixed(Op::Duration(1)), false),
            ('T', "us") => (Kind::Fixed(Op::Duration(1)), false),
            ('T', "ms") => (Kind::Fixed(Op::Duration(1000)), false),
            ('T', _) => (Kind::Fixed(Op::Duration(1_000_000)), false),
            ('t', argument) => (time(argument), false),
            ('v', _) => (Kind::Token(Text::Is(Field::Vhost)), false),
            ('V', _) => (Kind::Token(Text::Is(Field::Vhost)), true),
            ('m', _) => (Kind::Token(Text::Is(Field::Method)), true),
            ('H', _) => (Kind::Token(Text::Ignored), true),
            ('A' | 'I' | 'k' | 'l' | 'L' | 'p' | 'P' | 'R' | 's' | 'S' | 'X', _) => {
                (Kind::Token(Text::Ignored), false)
            }
            ('x', "SSL_PROTOCOL" | "SSL_CIPHER") => (Kind::Token(Text::Ignored), false),
            ('r', _) => (Kind::Free(Text::Is(Field::Request)), true),
            ('u', _) => (Kind::Free(Text::Is(Field::User)), true),
            ('U', _) => (Kind::Free(Text::Is(Field::Path)), true),
            ('q', _) => (Kind::Free(Text::Is(Field::Query)), true),
            ('i', name) if name.eq_ignore_ascii_case("user-agent") => {
                (Kind::Free(Text::Is(Field::Agent)), true)
            }
            ('i', name) if name.eq_ignore_ascii_case("referer") => {
                (Kind::Free(Text::Is(Field::Referer)), true)
            }
            ('i' | 'o' | 'n' | 'e' | 'C' | 'c' | 'x' | 'f', _) => (Kind::Free(Text::Ignored), true),
            _ => return Err(FormatError::Unknown(text)),
        };
        Ok(Item::Directive {
            kind,
            text,
            by_client,
        })
    }
}

/// `%t` and `%{...}t`.
fn time(argument: &str) -> Kind {
    let argument = argument
        .strip_prefix("begin:")
        .or(argument.strip_prefix("end:"))
        .unwrap_or(argument);
    let shape = match argument {
        "" | "begin" | "end" => Some(TimeShape::common()),
        "sec" => Some(TimeShape::number(1_000_000)),
        "msec" => Some(TimeShape::number(1000)),
        "usec" => Some(TimeShape::number(1)),
        "msec_frac" => Some(TimeShape::fraction(3)),
        "usec_frac" => Some(TimeShape::fraction(6)),
        strftime => TimeShape::compile(strftime),
    };
    shape.map_or(Kind::Free(Text::Ignored), |shape| {
        Kind::Fixed(Op::Time(Box::new(shape)))
    })
}

/// Cuts the items at the quotes and sorts each segment into left, free, right.
fn segments(items: &[Item]) -> Result<Vec<Segment>, FormatError> {
    let mut cut: Vec<Vec<Item>> = vec![Vec::new()];
    for item in items {
        match item {
            Item::Literal(bytes) => {
                for (n, part) in bytes.split(|b| *b == b'"').enumerate() {
                    if n > 0 {
                        cut.push(Vec::new());
                    }
                    if let (false, Some(last)) = (part.is_empty(), cut.last_mut()) {
                        last.push(Item::Literal(part.to_vec()));
                    }
                }
            }
            directive @ Item::Directive { .. } => cut
                .last_mut()
                .into_iter()
                .for_each(|last| last.push(directive.clone())),
        }
    }
    if cut.len().is_multiple_of(2) {
        return Err(FormatError::OddQuotes);
    }
    cut.iter()
        .enumerate()
        .map(|(n, items)| segment(items, n % 2 == 1))
        .collect()
}

fn segment(items: &[Item], quoted: bool) -> Result<Segment, FormatError> {
    let mut segment = Segment {
        quoted,
        bare_user: false,
        begins_texts: false,
        left: Vec::new(),
        free: None,
        right: Vec::new(),
    };
    let mut free_text = String::new();
    let mut before: Option<&str> = None; // the directive just before this item
    for (n, item) in items.iter().enumerate() {
        let (kind, text) = match item {
            Item::Literal(bytes) => {
                before = None;
                segment.push(match bytes.as_slice() {
                    [byte] => Op::Byte(*byte),
                    bytes => Op::Literal(bytes.into()),
                });
                continue;
            }
            Item::Directive { kind, text, .. } => (kind, text),
        };
        if let (Kind::Free(Text::Is(Field::Query)), Some(Free::One(Text::Is(Field::Path))), true) =
            (kind, segment.free, segment.right.is_empty())
        {
            segment.free = Some(Free::PathAndQuery);
            before = Some(text);
            continue;
        }
        if let Some(before) = before {
            return Err(FormatError::Touching(before.to_owned(), text.clone()));
        }
        before = Some(text);
        let op = match kind {
            Kind::Free(is) => {
                if segment.free.is_some() {
                    return Err(FormatError::TwoTexts(free_text, text.clone()));
                }
                segment.free = Some(Free::One(*is));
                segment.bare_user |= !quoted && *is == Text::Is(Field::User);
                free_text.clone_from(text);
                continue;
            }
            // Read from the left a token ends before the next literal, from the right behind the one before it.
            Kind::Token(is) => {
                let literal = |item: Option<&Item>, from_end: bool| match item {
                    Some(Item::Literal(bytes)) => if from_end {
                        bytes.last()
                    } else {
                        bytes.first()
                    }
                    .copied(),
                    _ => None,
                };
                let stop = if segment.free.is_some() {
                    literal(n.checked_sub(1).and_then(|n| items.get(n)), true)
                } else {
                    literal(items.get(n + 1), false)
                };
                Op::Token {
                    stop: stop.unwrap_or(b' '),
                    is: *is,
                }
            }
            Kind::Fixed(op) => op.clone(),
        };
        segment.push(op);
    }
    segment.right.reverse();
    Ok(segment)
}

impl Segment {
    fn push(&mut self, op: Op) {
        if self.free.is_some() {
            self.right.push(op)
        } else {
            self.left.push(op)
        }
    }
}

fn check_addresses(segments: &[Segment], items: &[Item]) -> Result<(), FormatError> {
    let address = |op: &Op| matches!(op, Op::Client | Op::Peer);
    if !segments
        .iter()
        .any(|s| s.left.iter().chain(&s.right).any(address))
    {
        let header = items.iter().find_map(|item| match item {
            Item::Directive { text, .. } if text.to_ascii_lowercase().contains("forwarded-for") => {
                Some(text.clone())
            }
            Item::Literal(_) | Item::Directive { .. } => None,
        });
        return Err(header.map_or(FormatError::NoAddress, FormatError::AddressNotSure));
    }
    let mut quoted = false;
    for item in items {
        match item {
            Item::Literal(bytes) => quoted ^= bytes.iter().filter(|b| **b == b'"').count() % 2 == 1,
            Item::Directive {
                kind: Kind::Fixed(op),
                ..
            } if address(op) => return Ok(()),
            Item::Directive {
                by_client: true,
                text,
                ..
            } if !quoted => {
                return Err(FormatError::TextBeforeAddress(text.clone()));
            }
            Item::Directive { .. } => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(format: &str) -> FormatError {
        Format::compile(format).unwrap_err()
    }

    #[test]
    fn named_and_written_formats_compile_to_the_same() {
        for (name, text) in NICKNAMES {
            let quoted = format!("\"{}\"", text.replace('"', "\\\""));
            for written in [name, text, quoted.as_str()] {
                let format = Format::compile(written).unwrap();
                assert_eq!(format.text(), text, "{written}");
                assert!(format.has(Field::Path) && format.has_status(), "{written}");
            }
        }
        assert!(Format::compile("f2b").unwrap().is_sealed());
        assert!(!Format::compile("combined").unwrap().is_sealed());
    }

    #[test]
    fn formats_in_which_clients_could_write_the_address_are_refused() {
        let before = |directive: &str| FormatError::TextBeforeAddress(directive.into());
        assert_eq!(refused("%u %h %t"), before("%u"));
        assert_eq!(refused("%U %a %>s"), before("%U"));
        assert_eq!(refused("%{Host}i %h \"%r\""), before("%{Host}i"));
        assert_eq!(refused("%V %h \"%r\""), before("%V"));
        assert_eq!(
            refused("%{X-Forwarded-For}i %t \"%r\""),
            FormatError::AddressNotSure("%{X-Forwarded-For}i".into())
        );
        assert_eq!(
            refused("%200h %t"),
            FormatError::AddressNotSure("%200h".into())
        );
        assert_eq!(refused("%t \"%r\" %>s"), FormatError::NoAddress);
        assert!(Format::compile("\"%{Host}i\" %h %>s").is_ok());
    }

    #[test]
    fn a_host_name_where_the_address_belongs_is_recognised() {
        let line = |host: &str| {
            format!("{host} - - [22/Nov/2026:20:05:20 +0000] \"GET /x HTTP/1.1\" 404 416")
        };
        let named = |format: &str, line: &str| {
            let format = Format::compile(format).unwrap();
            let misfit = format
                .read(line.as_bytes(), &mut Access::default())
                .unwrap_err();
            format.has_name(line.as_bytes(), misfit)
        };
        assert!(named("common", &line("localhost")));
        assert!(named("common", &line("a-1.example.org")));
        assert!(!named("common", &line("1.2.3.999")));
        assert!(!named("common", "www.example.org 192.0.2.7 - - [x"));
        let by_address = "%a %l %u %t \"%r\" %>s %b";
        assert!(!named(by_address, &line("localhost")), "%a is never a name");
    }

    #[test]
    fn formats_that_nobody_could_read_back_are_refused() {
        assert_eq!(
            refused("%h %u %U"),
            FormatError::TwoTexts("%u".into(), "%U".into())
        );
        assert_eq!(
            refused("%h%t"),
            FormatError::Touching("%h".into(), "%t".into())
        );
        assert_eq!(refused("%h \"%r"), FormatError::OddQuotes);
        for line_break in ["%h \\n%r", "%h \n%r", "%a %{%d\n%m}t \"%r\""] {
            assert_eq!(refused(line_break), FormatError::LineBreak);
        }
        assert_eq!(refused("%h %Y"), FormatError::Unknown("%Y".into()));
        assert_eq!(refused("combine"), FormatError::Nickname("combine".into()));
        assert!(refused("combine").to_string().contains("combined"));
    }
}
