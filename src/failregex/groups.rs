//! What named groups matched: by number while lines are judged, by name for who asks afterwards.
//!
//! Each filter numbers the names that its expressions use, once; the texts of a line's groups stand in one buffer, which
//! the next line uses again. Nearly every line of an attack goes through here.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::pattern::{self, Pattern};

/// Names that mean something to a filter, in the order of their numbers.
const MEANINGS: [&str; 12] = [
    "mlfid",
    "mlfforget",
    "mlfgained",
    "nofail",
    "user",
    "ip4",
    "ip6",
    "dns",
    "fid",
    "cidr",
    "content",
    "ip",
];
pub(super) const MLFID: usize = 0;
pub(super) const MLFFORGET: usize = 1;
pub(super) const MLFGAINED: usize = 2;
pub(super) const NOFAIL: usize = 3;
pub(super) const USER: usize = 4;
pub(super) const IP4: usize = 5;
pub(super) const IP6: usize = 6;
pub(super) const DNS: usize = 7;
pub(super) const FID: usize = 8;
pub(super) const CIDR: usize = 9;
pub(super) const CONTENT: usize = 10;
pub(super) const IP: usize = 11;

/// The names of a filter, each at its number.
#[derive(Debug)]
pub(super) struct Names(Vec<Box<str>>);

impl Default for Names {
    fn default() -> Self {
        Self(MEANINGS.iter().map(|name| (*name).into()).collect())
    }
}

impl Names {
    fn number(&mut self, name: &str) -> usize {
        let known = self.0.iter().position(|known| &**known == name);
        known.unwrap_or_else(|| {
            self.0.push(name.into());
            self.0.len() - 1
        })
    }

    pub(super) fn all(self) -> Arc<[Box<str>]> {
        self.0.into()
    }
}

/// What becomes of one expression's groups (29).
#[derive(Debug)]
pub(super) struct Recipe {
    /// The number of each group's name.
    numbers: Vec<usize>,
    /// Names that stand in for others which matched nothing.
    alternatives: Vec<(usize, usize)>,
    /// Names that are put behind others.
    tuples: Vec<(usize, usize)>,
    /// Groups of lines that are left out of what a multi-line expression covers.
    pub(super) skipped: Vec<usize>,
}

impl Recipe {
    pub(super) fn new(pattern: &Pattern, names: &mut Names) -> Self {
        let groups = pattern.groups();
        let mut sorted: Vec<&str> = groups.iter().map(|name| &**name).collect();
        sorted.sort_unstable();
        let mut composed = |prefix: &str| {
            let parts = sorted.iter().filter_map(|name| {
                let rest = name.strip_prefix(prefix)?;
                // `user_1` is another `user`; `user1` is `user1`.
                let bare = rest.trim_end_matches(|c: char| c.is_ascii_digit());
                let target = bare
                    .strip_suffix('_')
                    .filter(|_| bare.len() < rest.len())
                    .unwrap_or(rest);
                let target = match target {
                    "id" => "fid",
                    "port" => "fport",
                    other => other,
                };
                Some((names.number(name), names.number(target)))
            });
            parts.collect()
        };
        let (alternatives, tuples) = (composed("alt_"), composed("tuple_"));
        let skipped = (0..).map_while(|n| {
            let name = format!("skiplines{n}");
            groups.iter().find(|group| ***group == *name)
        });
        Self {
            alternatives,
            tuples,
            skipped: skipped.map(|name| names.number(name)).collect(),
            numbers: groups.iter().map(|name| names.number(name)).collect(),
        }
    }

    /// The group of that name, by its place in the expression.
    pub(super) fn group(&self, name: usize) -> Option<usize> {
        self.numbers.iter().position(|number| *number == name)
    }
}

/// The value of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value<'v> {
    /// What it matched.
    Text(&'v str),
    /// Parts put together (`<F-TUPLE_ID>`).
    Tuple(&'v [Option<String>]),
}

impl<'v> Value<'v> {
    /// As a text: see `Display`.
    #[must_use]
    pub fn text(self) -> Cow<'v, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Tuple(_) => Cow::Owned(self.to_string()),
        }
    }

    pub(super) fn is_empty(self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Tuple(parts) => parts.is_empty(),
        }
    }
}

impl fmt::Display for Value<'_> {
    /// Tuples as Python writes them: `('a', 'b')`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Tuple(parts) => {
                for (n, part) in parts.iter().enumerate() {
                    f.write_str(if n == 0 { "(" } else { ", " })?;
                    match part {
                        None => f.write_str("None")?,
                        Some(text) if text.contains('\'') && !text.contains('"') => {
                            write!(f, "\"{text}\"")?
                        }
                        Some(text) => {
                            write!(f, "'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))?
                        }
                    }
                }
                f.write_str(")")
            }
        }
    }
}

/// A value kept beyond its line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// See [`Value::Text`].
    Text(String),
    /// See [`Value::Tuple`].
    Tuple(Vec<Option<String>>),
}

impl From<Value<'_>> for Kept {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Text(text) => Self::Text(text.to_owned()),
            Value::Tuple(parts) => Self::Tuple(parts.to_vec()),
        }
    }
}

impl Kept {
    /// As it was.
    #[must_use]
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::Text(text),
            Self::Tuple(parts) => Value::Tuple(parts),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slot {
    /// The expression has no such group.
    #[default]
    Absent,
    /// It has, and that took no part.
    Unset,
    /// Bytes of `text`.
    Text(usize, usize),
    /// One of `tuples`.
    Tuple(usize),
}

/// Values by the numbers of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Values {
    slots: Vec<Slot>,
    text: String,
    tuples: Vec<Vec<Option<String>>>,
}

impl Values {
    fn clear(&mut self) {
        self.slots.clear();
        self.text.clear();
        self.tuples.clear();
    }

    /// Those of a match, alternatives and tuples put together (29).
    pub(super) fn read(&mut self, recipe: &Recipe, found: &pattern::Groups, text: &str) {
        self.clear();
        for (group, number) in recipe.numbers.iter().enumerate() {
            match found.get(group).and_then(|span| text.get(span)) {
                Some(text) => self.put(*number, text),
                None => self.set(*number, Slot::Unset),
            }
        }
        for (part, whole) in &recipe.alternatives {
            if !self.has(*whole) && self.has(*part) {
                self.set(*whole, self.slot(*part));
            }
        }
        for (part, whole) in &recipe.tuples {
            let part = self.get(*part).map(|value| value.to_string());
            if let Slot::Tuple(at) = self.slot(*whole)
                && let Some(parts) = self.tuples.get_mut(at)
            {
                parts.push(part);
            } else {
                let first = self.get(*whole).map(|value| value.to_string());
                self.put_tuple(*whole, vec![first, part]);
            }
        }
    }

    /// Takes from `other` what is absent here.
    pub(super) fn complete(&mut self, other: &Self) {
        for number in 0..other.slots.len() {
            if self.slot(number) == Slot::Absent {
                self.take(number, other);
            }
        }
    }

    /// Takes from `other` what has no value here.
    pub(super) fn inherit(&mut self, other: &Self) {
        for number in 0..other.slots.len() {
            if matches!(self.slot(number), Slot::Absent | Slot::Unset) {
                self.take(number, other);
            }
        }
    }

    fn take(&mut self, number: usize, other: &Self) {
        match (other.slot(number), other.get(number)) {
            (_, Some(Value::Text(text))) => self.put(number, text),
            (_, Some(Value::Tuple(parts))) => self.put_tuple(number, parts.to_vec()),
            (slot, None) => self.set(number, slot),
        }
    }

    fn put(&mut self, number: usize, text: &str) {
        let from = self.text.len();
        self.text.push_str(text);
        self.set(number, Slot::Text(from, self.text.len()));
    }

    fn put_tuple(&mut self, number: usize, parts: Vec<Option<String>>) {
        self.tuples.push(parts);
        self.set(number, Slot::Tuple(self.tuples.len() - 1));
    }

    fn slot(&self, number: usize) -> Slot {
        self.slots.get(number).copied().unwrap_or_default()
    }

    fn set(&mut self, number: usize, slot: Slot) {
        if self.slots.len() <= number {
            self.slots.resize(number + 1, Slot::Absent);
        }
        if let Some(place) = self.slots.get_mut(number) {
            *place = slot;
        }
    }

    /// Gives a name the value of another.
    pub(super) fn alias(&mut self, number: usize, of: usize) {
        self.set(number, self.slot(of));
    }

    /// Says whether there was a value that is not empty.
    pub(super) fn remove(&mut self, number: usize) -> bool {
        let had = self.has(number);
        self.set(number, Slot::Absent);
        had
    }

    pub(super) fn get(&self, number: usize) -> Option<Value<'_>> {
        match self.slot(number) {
            Slot::Absent | Slot::Unset => None,
            Slot::Text(from, to) => self.text.get(from..to).map(Value::Text),
            Slot::Tuple(at) => self.tuples.get(at).map(|parts| Value::Tuple(parts)),
        }
    }

    pub(super) fn text(&self, number: usize) -> Option<&str> {
        match self.get(number) {
            Some(Value::Text(text)) => Some(text),
            Some(Value::Tuple(_)) | None => None,
        }
    }

    /// Is there a value that is not empty?
    pub(super) fn has(&self, number: usize) -> bool {
        self.get(number).is_some_and(|value| !value.is_empty())
    }
}

/// What groups matched, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    names: Arc<[Box<str>]>,
    values: Values,
}

impl Groups {
    pub(super) fn new(names: &Arc<[Box<str>]>, values: &Values) -> Self {
        Self {
            names: Arc::clone(names),
            values: values.clone(),
        }
    }

    /// Forgets one of them.
    pub(super) fn remove(&mut self, number: usize) {
        self.values.remove(number);
    }

    /// No groups.
    pub(super) fn none() -> Self {
        Self {
            names: Arc::default(),
            values: Values::default(),
        }
    }

    /// Those that took part, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        let numbered = self.names.iter().enumerate();
        numbered.filter_map(|(number, name)| Some((&**name, self.values.get(number)?)))
    }

    /// Is it there, and not empty?
    pub(super) fn has(&self, number: usize) -> bool {
        self.values.has(number)
    }
}
