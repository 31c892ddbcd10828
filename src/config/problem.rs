//! What is wrong with a configuration: where, which key, what, and what to write instead.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

/// Whether something is left out because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The jail it stands in is left out; elsewhere the shipped value stands.
    Error,
    /// It runs, but perhaps not as meant.
    Warning,
    /// Nothing is wrong: what became of it on this host, for who asks.
    Note,
}

/// One mistake. All of them are told at once, so that a file is not repaired one run at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// The file as it was named.
    pub file: PathBuf,
    /// Counted from 1; `None`: the file as a whole.
    pub line: Option<usize>,
    /// `jail.apache-dos.maxretry`; empty: no key in particular.
    pub key: String,
    /// What is wrong; what to write.
    pub text: String,
    /// The regular expression, and under it a caret at the column: two lines.
    pub cited: Option<String>,
}

impl Problem {
    /// A mistake in one line; `key` may be empty.
    pub(crate) fn at(severity: Severity, place: &Place, key: &str, text: String) -> Self {
        Self {
            severity,
            file: place.file.to_path_buf(),
            line: Some(place.line),
            key: key.to_owned(),
            text,
            cited: None,
        }
    }

    /// A mistake of a file as a whole.
    pub(crate) fn of_file(severity: Severity, file: &std::path::Path, text: String) -> Self {
        Self {
            severity,
            file: file.to_path_buf(),
            line: None,
            key: String::new(),
            text,
            cited: None,
        }
    }
}

impl fmt::Display for Problem {
    /// `file:line: key: what is wrong; what to write`, and the cited lines under it, indented.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", printable(&self.key))?;
        }
        write!(f, " {}", printable(&self.text))?;
        for line in self.cited.iter().flat_map(|cited| cited.lines()) {
            write!(f, "\n    {}", printable(line))?;
        }
        Ok(())
    }
}

/// What a damaged file holds must not steer the terminal that shows it.
fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| match steers(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// Where something is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named.
    pub file: std::sync::Arc<std::path::Path>,
    /// Counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Why a value cannot be read; the reader of a value does not know where it stands.
#[derive(Debug)]
pub(crate) struct Wrong {
    /// What is wrong; what to write.
    pub(crate) text: String,
    /// See [`Problem::cited`].
    pub(super) cited: Option<String>,
}

impl From<String> for Wrong {
    fn from(text: String) -> Self {
        Self { text, cited: None }
    }
}

/// Collects problems, and knows whether any of them was an error.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(super) fn error(&mut self, place: &Place, key: &str, wrong: impl Into<Wrong>) {
        self.add(Severity::Error, place, key, wrong.into());
    }

    pub(super) fn note(&mut self, place: &Place, key: &str, text: String) {
        self.add(Severity::Note, place, key, text.into());
    }

    pub(super) fn warn(&mut self, place: &Place, key: &str, text: String) {
        self.add(Severity::Warning, place, key, text.into());
    }

    /// A file that could not be used at all.
    pub(super) fn file(&mut self, severity: Severity, file: &std::path::Path, text: String) {
        self.0.push(Problem::of_file(severity, file, text));
    }

    /// File by file, line by line: mistakes of form are found before mistakes of meaning.
    pub(super) fn in_order(self) -> Vec<Problem> {
        let mut files: Vec<PathBuf> = Vec::new();
        for problem in &self.0 {
            if !files.contains(&problem.file) {
                files.push(problem.file.clone());
            }
        }
        let mut problems = self.0;
        problems.sort_by_key(|p| (files.iter().position(|f| *f == p.file), p.line));
        problems
    }

    pub(super) fn errors(&self) -> usize {
        self.0
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .count()
    }

    fn add(&mut self, severity: Severity, place: &Place, key: &str, wrong: Wrong) {
        self.0.push(Problem {
            cited: wrong.cited,
            ..Problem::at(severity, place, key, wrong.text)
        });
    }
}
