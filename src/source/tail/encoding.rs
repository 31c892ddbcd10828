//! Bytes of a log to text, as Python decodes them with `errors="replace"`.
//!
//! encoding_rs knows the tables, but means the web's encodings by Python's names: there `ascii` and `latin-1` are
//! windows-1252, and bytes without a character stand for C1 controls. Those differences are here.

use std::borrow::Cow;

/// A `logencoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encoding(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Utf8 {
        /// A mark at the beginning is no text.
        marked: bool,
    },
    Ascii,
    Latin1,
    Utf16 {
        /// `None`: the mark at the file's beginning says.
        order: Option<Order>,
        marked: bool,
    },
    Table(&'static encoding_rs::Encoding, Controls),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Order {
    Little,
    Big,
}

/// What the bytes 0x80 to 0x9f are in Python's table, where encoding_rs has a C1 control or another table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Controls {
    /// What encoding_rs says.
    Same,
    /// C1 controls all.
    All,
    /// Where encoding_rs has a control, Python has nothing.
    None,
}

/// A name that is no encoding we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownEncoding(String);

impl std::fmt::Display for UnknownEncoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "logencoding: {:?} is no encoding I know; write auto, utf-8, ascii, iso-8859-15, cp1252, koi8-r or utf-16",
            self.0
        )
    }
}

impl std::error::Error for UnknownEncoding {}

impl Encoding {
    /// UTF-8.
    pub const UTF_8: Self = Self(Kind::Utf8 { marked: false });

    /// By the name Python knows it by, in any case, with `-`, `_` or blanks; `auto` is the locale's.
    ///
    /// # Errors
    /// Not one of: UTF-8, UTF-16, ASCII, ISO 8859, the Windows and KOI8 code pages, and the encodings of the web.
    pub fn named(name: &str) -> Result<Self, UnknownEncoding> {
        if name.trim().eq_ignore_ascii_case("auto") {
            return Ok(Self::of_locale(|name| std::env::var(name).ok()));
        }
        Self::by_name(name).ok_or_else(|| UnknownEncoding(name.to_owned()))
    }

    /// The locale's where it names one; UTF-8 otherwise, as in Python when nothing is set: a daemon has no locale.
    fn of_locale(variable: impl Fn(&str) -> Option<String>) -> Self {
        ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(variable)
            .find(|value| !value.is_empty())
            .and_then(|locale| {
                let (_, charset) = locale.split_once('.')?;
                Self::by_name(charset.split('@').next()?)
            })
            .unwrap_or(Self::UTF_8)
    }

    fn by_name(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase().replace(['_', ' '], "-");
        let squeezed = name.replace('-', "");
        let utf16 = |order, marked| Kind::Utf16 { order, marked };
        Some(Self(match squeezed.as_str() {
            "utf8" | "utf" | "u8" | "cp65001" => Kind::Utf8 { marked: false },
            "utf8sig" => Kind::Utf8 { marked: true },
            "ascii" | "usascii" | "646" | "ansix3.41968" | "ansix3.4-1968" => Kind::Ascii,
            "latin1" | "latin" | "l1" | "iso88591" | "8859" | "cp819" | "ibm819" => Kind::Latin1,
            "utf16" | "u16" => utf16(None, true),
            "utf16le" | "unicodelittleunmarked" => utf16(Some(Order::Little), false),
            "utf16be" | "unicodebigunmarked" => utf16(Some(Order::Big), false),
            _ => {
                let iso = squeezed.strip_prefix("iso8859");
                let labels = [
                    &name,
                    &squeezed,
                    &format!("iso-8859-{}", iso.unwrap_or("?")),
                    &format!("windows-{}", squeezed.trim_start_matches("cp")),
                ];
                let label = labels
                    .into_iter()
                    .find_map(|name| encoding_rs::Encoding::for_label(name.as_bytes()))?;
                let windows = label.name().starts_with("windows-");
                let iso = iso.is_some() || squeezed.starts_with("latin");
                Kind::Table(
                    label,
                    match (windows, iso) {
                        (true, true) => Controls::All, // iso-8859-9 and -11
                        (true, false) => Controls::None,
                        (false, _) => Controls::Same,
                    },
                )
            }
        }))
    }

    /// With the byte order of a file, whose first two bytes are asked for only where they matter.
    #[must_use]
    pub(super) fn of_file(self, first: impl FnOnce() -> [u8; 2]) -> Self {
        match self.0 {
            Kind::Utf16 {
                order: None,
                marked,
            } => {
                let order = Some(if first() == [0xfe, 0xff] {
                    Order::Big
                } else {
                    Order::Little
                });
                Self(Kind::Utf16 { order, marked })
            }
            Kind::Utf8 { .. }
            | Kind::Ascii
            | Kind::Latin1
            | Kind::Utf16 { .. }
            | Kind::Table(..) => self,
        }
    }

    /// Bytes of a newline, and of the unit all text is made of.
    #[must_use]
    pub(super) fn unit(self) -> usize {
        match self.0 {
            Kind::Utf16 { .. } => 2,
            Kind::Utf8 { .. } | Kind::Ascii | Kind::Latin1 | Kind::Table(..) => 1,
        }
    }

    /// Where the first newline begins in `bytes`, which begin at a unit's beginning.
    #[must_use]
    pub(super) fn newline(self, bytes: &[u8]) -> Option<usize> {
        let Kind::Utf16 { order, .. } = self.0 else {
            return memchr::memchr(b'\n', bytes);
        };
        memchr::memchr_iter(b'\n', bytes)
            .map(|at| at & !1)
            .find(|at| bytes.get(*at..at + 2) == Some(newline_of(order)))
    }

    /// `bytes` as text; what is no text becomes U+FFFD. `scratch` is used only where bytes are not text already.
    pub fn decode<'a>(self, bytes: &'a [u8], scratch: &'a mut String) -> &'a str {
        match self.0 {
            Kind::Utf8 { marked } => {
                let text = match std::str::from_utf8(bytes) {
                    Ok(text) => text,
                    Err(_) => keep(String::from_utf8_lossy(bytes), scratch),
                };
                unmarked(text, marked)
            }
            Kind::Ascii => match std::str::from_utf8(bytes) {
                Ok(text) if text.is_ascii() => text,
                _ => {
                    scratch.clear();
                    scratch.extend(bytes.iter().map(|byte| match byte {
                        0..=0x7f => char::from(*byte),
                        _ => char::REPLACEMENT_CHARACTER,
                    }));
                    scratch
                }
            },
            Kind::Latin1 => keep(encoding_rs::mem::decode_latin1(bytes), scratch),
            Kind::Utf16 { order, marked } => {
                let (pairs, rest) = bytes.as_chunks::<2>();
                let units = pairs.iter().map(|pair| match order {
                    Some(Order::Big) => u16::from_be_bytes(*pair),
                    Some(Order::Little) | None => u16::from_le_bytes(*pair),
                });
                scratch.clear();
                scratch.extend(
                    char::decode_utf16(units)
                        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)),
                );
                if !rest.is_empty() {
                    scratch.push(char::REPLACEMENT_CHARACTER);
                }
                unmarked(scratch, marked)
            }
            Kind::Table(table, controls) => {
                if controls == Controls::All && bytes.iter().any(|byte| matches!(byte, 0x80..=0x9f))
                {
                    scratch.clear();
                    for byte in bytes {
                        match byte {
                            0x80..=0x9f => scratch.push(char::from(*byte)),
                            _ => scratch.push_str(&table.decode_without_bom_handling(&[*byte]).0),
                        }
                    }
                    return scratch;
                }
                let (text, _) = table.decode_without_bom_handling(bytes);
                let is_control = |c| matches!(c, '\u{80}'..='\u{9f}');
                if controls == Controls::None && text.contains(is_control) {
                    keep(Cow::Owned(text.replace(is_control, "\u{fffd}")), scratch)
                } else {
                    keep(text, scratch)
                }
            }
        }
    }

    /// A line without its end: further CR and LF at it are stripped, as Python's `rstrip` does.
    pub fn line<'a>(self, bytes: &'a [u8], scratch: &'a mut String) -> &'a str {
        self.decode(bytes, scratch).trim_end_matches(['\r', '\n'])
    }

    /// A short name, to tell encodings apart in messages and stored positions.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Utf8 { marked: false } => "utf-8",
            Kind::Utf8 { marked: true } => "utf-8-sig",
            Kind::Ascii => "ascii",
            Kind::Latin1 => "latin-1",
            Kind::Utf16 { order: None, .. } => "utf-16",
            Kind::Utf16 {
                order: Some(Order::Little),
                ..
            } => "utf-16-le",
            Kind::Utf16 {
                order: Some(Order::Big),
                ..
            } => "utf-16-be",
            Kind::Table(table, _) => table.name(),
        }
    }
}

fn newline_of(order: Option<Order>) -> &'static [u8] {
    match order {
        Some(Order::Big) => b"\0\n",
        Some(Order::Little) | None => b"\n\0",
    }
}

fn keep<'a>(text: Cow<'a, str>, scratch: &'a mut String) -> &'a str {
    match text {
        Cow::Borrowed(text) => text,
        Cow::Owned(text) => {
            *scratch = text;
            scratch
        }
    }
}

fn unmarked(text: &str, marked: bool) -> &str {
    match text.strip_prefix('\u{feff}') {
        Some(rest) if marked => rest,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(name: &str, bytes: &[u8]) -> String {
        let mut scratch = String::new();
        let first = || [bytes[0], bytes[1]];
        let encoding = Encoding::named(name).unwrap().of_file(first);
        encoding.decode(bytes, &mut scratch).to_owned()
    }

    #[test]
    fn names_are_pythons_and_not_the_webs() {
        assert_eq!(decoded("latin-1", b"\x80\xe9"), "\u{80}é");
        assert_eq!(decoded("ISO8859_15", b"\xa4"), "€");
        assert_eq!(decoded("cp1252", b"\x80\x81"), "€\u{fffd}");
        assert_eq!(decoded("iso-8859-9", b"\x80\xd0"), "\u{80}Ğ");
        assert_eq!(decoded("ascii", b"a\x80\xff"), "a\u{fffd}\u{fffd}");
        assert!(Encoding::named("utf-9").is_err());
    }

    #[test]
    fn the_mark_says_the_byte_order() {
        assert_eq!(decoded("utf-16", b"\xff\xfea\0"), "a");
        assert_eq!(decoded("utf-16", b"\xfe\xff\0a"), "a");
        assert_eq!(decoded("utf-16le", b"\xff\xfea\0"), "\u{feff}a");
    }

    #[test]
    fn a_newline_of_two_bytes_is_not_found_in_other_characters() {
        let little = Encoding::named("utf-16-le").unwrap();
        // U+0A00 and U+000A, U+010A
        assert_eq!(little.newline(b"\x00\x0a\x0a\x01\x0a\x00"), Some(4));
        let big = Encoding::named("utf-16-be").unwrap();
        assert_eq!(big.newline(b"\x0a\x00\x01\x0a\x00\x0a"), Some(4));
    }

    #[test]
    fn auto_is_the_locales_or_utf_8() {
        let of = |variables: &[(&str, &str)]| {
            let variables: Vec<(String, String)> = variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            Encoding::of_locale(|name| {
                let found = variables.iter().find(|(variable, _)| variable == name)?;
                Some(found.1.clone())
            })
            .name()
        };
        assert_eq!(of(&[]), "utf-8");
        assert_eq!(of(&[("LANG", "C")]), "utf-8");
        assert_eq!(
            of(&[("LC_ALL", ""), ("LANG", "de_DE.ISO-8859-15@euro")]),
            "ISO-8859-15"
        );
    }
}
