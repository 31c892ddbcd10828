//! What Python makes of the words of a command, and what it says when it cannot.
//!
//! fail2ban hands words to Python's own `int` and `eval`, and a client shows what these say of a wrong one. Here they are
//! read, never evaluated.

use super::pickle::{Exception, Value};

/// What becomes of a command.
pub(super) type Answer = Result<Value, Exception>;

/// The words of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'a>(pub(super) &'a [Value]);

impl<'a> Words<'a> {
    /// The one at `index`.
    ///
    /// # Errors
    /// There are not so many, in Python's words.
    pub(super) fn at(self, index: usize) -> Result<&'a Value, Exception> {
        self.0
            .get(index)
            .ok_or_else(|| Exception::new("IndexError", "list index out of range"))
    }

    /// The one at `index` as a text.
    ///
    /// # Errors
    /// There are not so many.
    pub(super) fn text(self, index: usize) -> Result<String, Exception> {
        self.at(index).map(string)
    }

    /// Those from `index` on; there may be none.
    pub(super) fn from(self, index: usize) -> Self {
        Self(self.0.get(index..).unwrap_or_default())
    }

    pub(super) fn len(self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// All of them, as texts.
    pub(super) fn texts(self) -> Vec<String> {
        self.0.iter().map(string).collect()
    }
}

/// `Exception(text)`.
pub(super) fn error(text: impl Into<String>) -> Exception {
    Exception::new("Exception", text)
}

/// `ValueError(text)`.
pub(super) fn value_error(text: impl Into<String>) -> Exception {
    Exception::new("ValueError", text)
}

/// `str(value)`.
pub(super) fn string(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::None
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::List(_)
        | Value::Tuple(_)
        | Value::Dict(_)
        | Value::Exception(_) => repr(value),
    }
}

/// `repr(value)`.
pub(super) fn repr(value: &Value) -> String {
    let list = |items: &[Value]| items.iter().map(repr).collect::<Vec<_>>().join(", ");
    match value {
        Value::None => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Int(n) => n.to_string(),
        Value::Float(n) => format!("{n:?}"),
        Value::Text(text) => quoted(text),
        Value::List(items) => format!("[{}]", list(items)),
        Value::Tuple(items) if items.len() == 1 => format!("({},)", list(items)),
        Value::Tuple(items) => format!("({})", list(items)),
        Value::Dict(items) => {
            let pairs = items
                .iter()
                .map(|(key, value)| format!("{}: {}", repr(key), repr(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
        Value::Exception(exception) => format!("{}({})", exception.class, list(&exception.args)),
    }
}

/// A text in the quotes that Python writes.
pub(super) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() || c == '\u{a0}' || c == '\u{ad}' => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// `int(value)`.
///
/// # Errors
/// It is none, in Python's words.
pub(super) fn int(value: &Value) -> Result<i64, Exception> {
    match value {
        Value::Int(n) => Ok(*n),
        Value::Bool(is) => Ok(i64::from(*is)),
        Value::Text(text) => crate::fail2ban::whole(text).map_err(|_| {
            value_error(format!(
                "invalid literal for int() with base 10: {}",
                quoted(text)
            ))
        }),
        Value::None
        | Value::Float(_)
        | Value::List(_)
        | Value::Tuple(_)
        | Value::Dict(_)
        | Value::Exception(_) => Err(Exception::new(
            "TypeError",
            format!("{} is no whole number", repr(value)),
        )),
    }
}

/// `float(value)`.
///
/// # Errors
/// It is none, in Python's words.
pub(super) fn float(value: &Value) -> Result<f64, Exception> {
    let text = string(value);
    let number = text.trim().parse().ok().filter(|n: &f64| n.is_finite());
    number.ok_or_else(|| {
        value_error(format!(
            "could not convert string to float: {}",
            quoted(&text)
        ))
    })
}

/// Words for true; every other is false.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Bool(is) => *is,
        Value::Int(n) => *n != 0,
        Value::Text(_)
        | Value::None
        | Value::Float(_)
        | Value::List(_)
        | Value::Tuple(_)
        | Value::Dict(_)
        | Value::Exception(_) => {
            ["1", "on", "true", "yes"].contains(&string(value).to_lowercase().as_str())
        }
    }
}

/// Seconds: a number, or a text such as `1d 12h`.
///
/// # Errors
/// It is none, as Python would have said.
pub(super) fn seconds(value: &Value) -> Result<f64, Exception> {
    let text = string(value);
    crate::fail2ban::seconds(&text).map_err(|_| not_evaluated(&text))
}

/// What `eval` says of a text that is no arithmetic: of a name, that nobody knows it; of anything else where it stops
/// being an expression, as far as that is easily told.
pub(super) fn not_evaluated(text: &str) -> Exception {
    let letter = |c: char| c == '_' || c.is_alphabetic();
    let trimmed = text.trim();
    if trimmed.starts_with(letter) && trimmed.chars().all(|c| letter(c) || c.is_ascii_digit()) {
        return Exception::new(
            "NameError",
            format!("name {} is not defined", quoted(trimmed)),
        );
    }
    let (line, from, to) = match text.find(char::is_whitespace) {
        _ if trimmed.is_empty() => (0, 0, 0),
        Some(blank) => {
            let rest = text.get(blank..).unwrap_or_default();
            let skipped = rest.len() - rest.trim_start().len();
            let word = rest.trim_start();
            let len = word.find(char::is_whitespace).unwrap_or(word.len());
            (1, blank + skipped + 1, blank + skipped + 1 + len)
        }
        None => (1, 1, 1),
    };
    let place = vec![
        Value::text("<string>"),
        Value::Int(line),
        Value::count(from),
        Value::text(text),
        Value::Int(line),
        Value::count(to),
    ];
    Exception {
        module: "builtins",
        class: "SyntaxError",
        args: vec![Value::text("invalid syntax"), Value::Tuple(place)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(exception: Exception) -> String {
        repr(&Value::Tuple(exception.args))
    }

    #[test]
    fn texts_are_quoted_as_python_does() {
        for (text, quoted_text) in [
            ("abc", "'abc'"),
            ("it's", "\"it's\""),
            ("'\"", "'\\'\"'"),
            ("a\\b\n\u{1b}", "'a\\\\b\\n\\x1b'"),
            ("\u{e9}", "'\u{e9}'"),
        ] {
            assert_eq!(quoted(text), quoted_text);
        }
        let list = Value::List(vec![Value::text("a"), Value::Float(2.0), Value::None]);
        assert_eq!(repr(&list), "['a', 2.0, None]");
        assert_eq!(repr(&Value::Tuple(vec![Value::Int(1)])), "(1,)");
    }

    #[test]
    fn wrong_words_are_told_in_pythons_words() {
        assert_eq!(int(&Value::text(" 5 ")), Ok(5));
        assert_eq!(
            said(int(&Value::text("abc")).unwrap_err()),
            "(\"invalid literal for int() with base 10: 'abc'\",)"
        );
        assert_eq!(seconds(&Value::text("1h 30m")), Ok(5400.0));
        assert_eq!(
            said(seconds(&Value::text("abc")).unwrap_err()),
            "(\"name 'abc' is not defined\",)"
        );
        assert_eq!(
            said(seconds(&Value::text("10 minuts")).unwrap_err()),
            "('invalid syntax', ('<string>', 1, 4, '10 minuts', 1, 10))"
        );
        assert_eq!(
            said(seconds(&Value::text("")).unwrap_err()),
            "('invalid syntax', ('<string>', 0, 0, '', 0, 0))"
        );
        assert_eq!(
            said(Words(&[]).at(0).unwrap_err()),
            "('list index out of range',)"
        );
    }
}
