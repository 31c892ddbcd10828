//! Text to a tree of entries that know their line, and one tree laid over another.
//!
//! A mistake in the TOML itself costs the statement it stands in, not the file: that statement is blanked and the rest
//! read again. Whatever stands in the same `[section]` is not to be trusted then; [`Read::doubtful`] names it.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problems};

/// Statements that may be blanked before a file counts as something else than TOML.
const REPAIRS_MAX: usize = 100;

/// A value, and the line of its key (in a list: its own).
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// Where it stands does not matter.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// What no key takes, as written: dates, integers of more than 64 bits.
    Other(String),
    List(Vec<Node>),
    Table(Table),
}

impl Node {
    /// The entries of a list; a single value is a list of one.
    pub(super) fn entries(&self) -> Vec<&Self> {
        if let Value::List(list) = &self.value {
            return list.iter().collect();
        }
        vec![self]
    }
}

impl Value {
    pub(super) fn int(&self) -> Option<i64> {
        if let Self::Int(n) = self {
            Some(*n)
        } else {
            None
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// As one would write it, for messages.
    pub(super) fn shown(&self) -> Cow<'static, str> {
        match self {
            Self::Bool(b) => b.to_string().into(),
            Self::Int(n) => n.to_string().into(),
            Self::Float(n) => n.to_string().into(),
            Self::Text(text) => format!("\"{}\"", text.escape_debug()).into(),
            Self::Other(text) => text.clone().into(),
            Self::List(_) => "a list".into(),
            Self::Table(_) => "a table".into(),
        }
    }
}

/// Keys with their values, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table(pub(super) Vec<(String, Node)>);

impl Table {
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, node)| node)
    }

    /// Lays `over` on top: tables are merged down to `depth`, below that the upper value takes the place of the lower.
    /// A value where a table belongs changes nothing and is an error.
    pub(super) fn lay_over(&mut self, over: Self, depth: u8, path: &str, problems: &mut Problems) {
        for (key, upper) in over.0 {
            let Some((_, lower)) = self.0.iter_mut().find(|(k, _)| *k == key) else {
                self.0.push((key, upper));
                continue;
            };
            let full = join(path, &key);
            match (&mut lower.value, upper.value) {
                (Value::Table(below), Value::Table(above)) if depth > 0 => {
                    lower.place = upper.place;
                    below.lay_over(above, depth - 1, &full, problems);
                }
                (Value::Table(_), other) if depth > 0 => problems.error(
                    &upper.place,
                    &full,
                    format!(
                        "{} cannot stand here; write [{full}] on a line of its own, its keys below",
                        other.shown()
                    ),
                ),
                (place, other) => {
                    *place = other;
                    lower.place = upper.place;
                }
            }
        }
    }
}

/// `path.key`.
pub(super) fn join(path: &str, key: &str) -> String {
    match (path, key) {
        ("", _) => key.to_owned(),
        (_, "") => path.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

/// What one file says.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) tree: Table,
    /// Keys (`jail.apache-dos.not`) whose statement could not be read, or their section if not even the key could.
    pub(super) doubtful: Vec<String>,
}

/// Reads one file's bytes.
pub(super) fn read(file: &Path, bytes: &[u8], problems: &mut Problems) -> Read {
    let file: Arc<Path> = Arc::from(file);
    let Ok(text) = std::str::from_utf8(bytes) else {
        let good = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let line = good.bytes().filter(|b| *b == b'\n').count() + 1;
        let place = Place { file, line };
        problems.error(
            &place,
            "",
            "not UTF-8, the whole file is left out; save it as UTF-8".to_owned(),
        );
        return Read::default();
    };
    let lines: Vec<&str> = text.split('\n').collect();
    let mut kept = lines.clone();
    let mut doubtful = Vec::new();
    let mut mistakes = Vec::new();
    for _ in 0..REPAIRS_MAX {
        let source = kept.join("\n");
        let (table, errors) = DeTable::parse_recoverable(&source);
        let first = errors
            .iter()
            .min_by_key(|e| e.span().map_or(0, |span| span.start));
        let Some(error) = first else {
            problems.0.append(&mut mistakes);
            let tree = Tree {
                file: &file,
                source: &source,
            };
            return Read {
                tree: tree.table(table.get_ref()),
                doubtful,
            };
        };
        let offset = error.span().map_or(0, |span| span.start);
        let at = line_of(&source, offset) - 1;
        let before = source.get(..offset).unwrap_or("");
        let column = before
            .rfind('\n')
            .map_or(offset, |newline| offset - newline - 1);
        let blamed = blamed(&kept, at, column, error.message());
        let key = lines.get(blamed.start).and_then(|line| statement_key(line));
        let key = join(&section(&lines, blamed.start), key.unwrap_or(""));
        let mut told = Problems::default();
        told.error(
            &Place {
                file: Arc::clone(&file),
                line: blamed.start + 1,
            },
            &key,
            explain(error.message(), &source, error.span().unwrap_or(0..0)),
        );
        mistakes.append(&mut told.0);
        doubtful.push(key);
        for line in kept.iter_mut().take(blamed.end).skip(blamed.start) {
            *line = "";
        }
        // Nothing is left: this is something else than TOML, and one line says so better than a hundred.
        if kept.iter().all(|line| is_blank(line)) {
            break;
        }
    }
    // One mistake is told as such; of many, that this is no configuration.
    if let [first, _, ..] = mistakes.as_mut_slice() {
        first.key.clear();
        "not TOML, nothing of it is used; the shipped file shows the form"
            .clone_into(&mut first.text);
    }
    mistakes.truncate(1);
    problems.0.append(&mut mistakes);
    Read {
        tree: Table::default(),
        doubtful,
    }
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// The line, from 1, in which byte `offset` stands.
fn line_of(source: &str, offset: usize) -> usize {
    let before = source.as_bytes().get(..offset).unwrap_or_default();
    memchr::memchr_iter(b'\n', before).count() + 1
}

/// The key of a line that begins a statement.
fn statement_key(line: &str) -> Option<&str> {
    let key = line.split_once('=')?.0.trim();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-. ".contains(&b);
    (!key.is_empty() && key.bytes().all(plain)).then_some(key)
}

fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

/// The lines (from 0) to leave out for a mistake that was found at `column` of line `at`: the statement it belongs to.
fn blamed(lines: &[&str], at: usize, column: usize, message: &str) -> Range<usize> {
    let line = |i: usize| lines.get(i).copied().unwrap_or("");
    let begins = |i: &usize| is_header(line(*i)) || statement_key(line(*i)).is_some();
    let next = (at + 1..lines.len()).find(begins).unwrap_or(lines.len());
    let inside = ["array", "inline table", "key-value pairs"]
        .iter()
        .any(|what| message.contains(what));
    // Without its header a section's keys would fall to the section before.
    if is_header(line(at)) && !inside {
        return at..(at + 1..lines.len())
            .find(|i| is_header(line(*i)))
            .unwrap_or(lines.len());
    }
    if statement_key(line(at)).is_some() && line(at).find('=').is_some_and(|equals| column > equals)
    {
        return at..next;
    }
    // What has no end is found where the next statement begins (a list, a table), or at the end of the file (a text of
    // several lines).
    if (inside || is_blank(line(at)))
        && let Some(start) = (0..at).rev().find(|i| statement_key(line(*i)).is_some())
    {
        return start..if begins(&at) { at } else { next };
    }
    at..at + 1
}

/// The section in which line `at` (from 0) stands: `jail.apache-dos`; empty before the first header.
fn section(lines: &[&str], at: usize) -> String {
    let mut above = lines.iter().take(at + 1).rev();
    let header = above.find(|line| is_header(line)).copied().unwrap_or("");
    let inner = header.trim_start().trim_start_matches('[');
    let inner = inner.split([']', '#']).next().unwrap_or("");
    inner.replace(['"', '\'', ' ', '\r'], "")
}

/// The parser's message with what to write.
fn explain(message: &str, source: &str, span: Range<usize>) -> String {
    let found = source.get(span.clone()).unwrap_or("");
    if message.starts_with("missing escaped value") {
        let escape = source
            .get(span.start..)
            .and_then(|rest| rest.chars().next());
        return format!(
            "\"\\{}\" is no escape of TOML in double quotes; write it in 'single quotes'",
            escape.unwrap_or(' ')
        );
    }
    if message.starts_with("string values must be quoted") {
        return match found {
            "" => "no value; write one behind the =".to_owned(),
            "yes" | "on" => format!("{found} is no value of TOML; write true"),
            _ if found.ends_with([';', ',']) => {
                let value = found.trim_end_matches([';', ',']);
                format!("nothing stands behind a value; write {value}")
            }
            "no" | "off" => format!("{found} is no value of TOML; write false"),
            _ => format!("text needs quotes; write \"{found}\""),
        };
    }
    let advice = match message.split(',').next().unwrap_or(message) {
        "key with no value" => "no = behind the key; write key = value",
        "duplicate key" => "written twice; leave one",
        "invalid boolean" => "no value of TOML; write true or false",
        "unclosed array" | "missing comma between array elements" | "unexpected `=` in array" => {
            "a list without its end, or without a comma between two entries; write [1, 2]"
        }
        "unclosed inline table"
        | "missing comma between key-value pairs"
        | "missing key for inline table element" => {
            "a table without its end, or without a comma between two entries; write { a = 1, b = 2 }"
        }
        "unclosed table" => "a section without its end; write [jail.NAME]",
        "invalid literal string" | "invalid basic string" => {
            "a text without its closing quote; write it"
        }
        _ => return format!("not TOML: {message}"),
    };
    advice.to_owned()
}

/// Turns the parser's tree into ours.
struct Tree<'a> {
    file: &'a Arc<Path>,
    source: &'a str,
}

impl Tree<'_> {
    fn place(&self, offset: usize) -> Place {
        Place {
            file: Arc::clone(self.file),
            line: line_of(self.source, offset),
        }
    }

    /// The parser sorts keys by name; the order of the file is the order of their spans.
    fn table(&self, table: &DeTable<'_>) -> Table {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let node = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
            let node = Node {
                place: self.place(key.span().start),
                value: self.value(value.get_ref()),
            };
            (key.get_ref().to_string(), node)
        };
        Table(entries.into_iter().map(node).collect())
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix())
                .map_or_else(|_| Value::Other(n.as_str().to_owned()), Value::Int),
            DeValue::Float(n) => Value::Float(n.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(b) => Value::Bool(*b),
            DeValue::Datetime(date) => Value::Other(date.to_string()),
            DeValue::Array(list) => Value::List(
                list.iter()
                    .map(|item| Node {
                        place: self.place(item.span().start),
                        value: self.value(item.get_ref()),
                    })
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(self.table(table)),
        }
    }
}
