//! Fields to hits: which jails' rules a line fits, all jails in one pass.
//!
//! The status picks the jails that can apply at all. Texts are looked at last, each field once for all jails: a search
//! for the literals that their patterns cannot do without, and only where one is found the patterns themselves.
//! Time is linear in the line, whatever it holds.

mod literals;

use std::hash::{BuildHasher as _, RandomState};

use aho_corasick::AhoCorasick;
use regex::bytes::{RegexSet, RegexSetBuilder};

use crate::config::{Conditions, Distinct, Field, Jail};
use crate::hit::{Hit, JailId};
use crate::parse::text::{percent_decode, unescape};
use crate::parse::{Access, Format};

/// Number of [`Field`]s.
const FIELDS: usize = 9;
/// Compiled size of one field's patterns, bytes. 10 MiB is the regex crate's own default for one pattern.
const SET_SIZE_MAX: usize = 64 << 20;

/// The rules of all jails, compiled for one format.
#[derive(Debug)]
pub struct Filter {
    rules: Vec<Rule>,
    /// By status: the jails whose status condition holds, in order.
    by_status: Vec<Box<[JailId]>>,
    /// Jails about the error log: those with a condition on `message`.
    of_errors: Box<[JailId]>,
    fields: [Search; FIELDS],
    scratch: Scratch,
    hasher: RandomState,
}

#[derive(Debug)]
struct Rule {
    all: Vec<Test>,
    any: Vec<Test>,
    not: Vec<Test>,
    weight: u32,
    distinct: Option<Distinct>,
}

/// One condition, cheap ones first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Test {
    Static(bool),
    Status(Vec<(u16, u16)>),
    Bytes(Vec<(u64, u64)>),
    Duration(Vec<(u64, u64)>),
    /// Patterns `from..to` of the field.
    Text {
        field: Field,
        from: usize,
        to: usize,
    },
}

/// All patterns of one field.
#[derive(Debug, Default)]
struct Search {
    patterns: Vec<String>,
    /// Found in the lower-cased text, or no pattern with literals matches.
    literals: Option<AhoCorasick>,
    /// The patterns with literals, and their places in `patterns`.
    lettered: Patterns,
    /// Those without: tried on every text that a rule asks about.
    blind: Patterns,
    /// Patterns that match the line at hand; valid while its bit in `Scratch::done` is set.
    found: Vec<bool>,
    any: bool,
}

#[derive(Debug, Default)]
struct Patterns {
    set: RegexSet,
    places: Vec<usize>,
}

#[derive(Debug, Default)]
struct Scratch {
    done: u16,
    decoded: Vec<u8>,
    lower: Vec<u8>,
}

impl Filter {
    /// Compiles the rules of all `jails`.
    ///
    /// # Errors
    /// All patterns of one field together are too large; each alone was not.
    pub fn compile(jails: &[Jail]) -> Result<Self, regex::Error> {
        let mut fields: [Search; FIELDS] = Default::default();
        let mut rules = Vec::with_capacity(jails.len());
        let mut by_status: Vec<Vec<JailId>> = vec![Vec::new(); 1000];
        let mut errors = Vec::new();
        for (id, jail) in (0..).zip(jails) {
            let mut test = |conditions: &Conditions, with_status: bool| {
                tests(conditions, with_status, &mut fields)
            };
            rules.push(Rule {
                all: test(&jail.rule.all, false),
                any: test(&jail.rule.any, true),
                not: test(&jail.rule.not, true),
                weight: jail.rule.weight.0,
                distinct: jail.rule.distinct,
            });
            if of_errors(jail) {
                errors.push(id);
                continue;
            }
            for (status, list) in (0u16..).zip(&mut by_status) {
                if jail.rule.all.status.is_empty() || within(&jail.rule.all.status, status) {
                    list.push(id);
                }
            }
        }
        for search in &mut fields {
            search.compile()?;
        }
        Ok(Self {
            rules,
            of_errors: errors.into_boxed_slice(),
            by_status: by_status.into_iter().map(Vec::into_boxed_slice).collect(),
            fields,
            scratch: Scratch::default(),
            hasher: RandomState::new(),
        })
    }

    /// Appends to `hits` one for each jail whose rule the line fits. A line without a client hits nothing.
    pub fn hits(&mut self, access: &Access<'_>, hits: &mut Vec<Hit>) {
        let Some(client) = access.client else { return };
        self.scratch.done = 0;
        let by_status = self
            .by_status
            .get(usize::from(access.status))
            .map_or(&[][..], |list| list);
        for &jail in if access.is_error {
            &self.of_errors
        } else {
            by_status
        } {
            let Some(rule) = self.rules.get(usize::from(jail)) else {
                continue;
            };
            let mut line = Judged {
                access,
                fields: &mut self.fields,
                scratch: &mut self.scratch,
            };
            if !rule.fits(&mut line) {
                continue;
            }
            let field = match rule.distinct {
                None => None,
                Some(Distinct::Field(field)) => Some(field),
                Some(Distinct::Any) => line.found(&rule.any),
            };
            let distinct = rule.distinct.map(|_| {
                let decoded = &mut self.scratch.decoded;
                decoded.clear();
                if let Some(field) = field {
                    decode(field, access.text(field), decoded);
                }
                self.hasher
                    .hash_one((field.map(|field| field as u8), decoded))
            });
            hits.push(Hit {
                jail,
                client,
                weight: rule.weight,
                distinct,
            });
        }
    }

    /// For `explain`: the first condition of `jail` that the line does not meet, in the words of the configuration;
    /// `None`: it counts.
    pub fn why_not(&mut self, jail: JailId, access: &Access<'_>, written: &Jail) -> Option<String> {
        self.scratch.done = 0;
        let rule = self.rules.get(usize::from(jail))?;
        if of_errors(written) != access.is_error {
            return Some(
                if access.is_error {
                    "it reads access lines"
                } else {
                    "it reads error lines (message)"
                }
                .to_owned(),
            );
        }
        let status = &written.rule.all.status;
        if !status.is_empty() && !within(status, access.status) {
            return Some(format!(
                "status is {}, not one of {}",
                access.status,
                ranges(status)
            ));
        }
        let mut line = Judged {
            access,
            fields: &mut self.fields,
            scratch: &mut self.scratch,
        };
        if let Some(test) = rule.all.iter().find(|test| !line.holds(test)) {
            return Some(format!("not so: {}", line.name(test)));
        }
        if !rule.any.is_empty() && !rule.any.iter().any(|test| line.holds(test)) {
            let names: Vec<String> = rule.any.iter().map(|test| line.name(test)).collect();
            return Some(format!("none of these is so: {}", names.join("; ")));
        }
        rule.not
            .iter()
            .find(|test| line.holds(test))
            .map(|test| format!("excepted by not: {}", line.name(test)))
    }
}

/// Error lines have no status, size or path: a condition on `message` says which log a jail is about.
fn of_errors(jail: &Jail) -> bool {
    let about = |conditions: &Conditions| {
        conditions
            .text
            .iter()
            .any(|(field, _)| *field == Field::Message)
    };
    about(&jail.rule.all) || about(&jail.rule.any)
}

impl Rule {
    fn fits(&self, line: &mut Judged<'_, '_>) -> bool {
        self.all.iter().all(|test| line.holds(test))
            && (self.any.is_empty() || self.any.iter().any(|test| line.holds(test)))
            && !self.not.iter().any(|test| line.holds(test))
    }
}

/// Conditions as tests, cheap ones first; patterns are added to their fields.
fn tests(conditions: &Conditions, with_status: bool, fields: &mut [Search; FIELDS]) -> Vec<Test> {
    let Conditions {
        status,
        bytes,
        duration,
        is_static,
        text,
    } = conditions;
    let mut tests: Vec<Test> = is_static.iter().map(|is| Test::Static(*is)).collect();
    if with_status && !status.is_empty() {
        tests.push(Test::Status(status.clone()));
    }
    if !bytes.is_empty() {
        tests.push(Test::Bytes(bytes.clone()));
    }
    if !duration.is_empty() {
        tests.push(Test::Duration(duration.clone()));
    }
    for (field, patterns) in text {
        let Some(search) = fields.get_mut(*field as usize) else {
            continue;
        };
        let from = search.patterns.len();
        search
            .patterns
            .extend(patterns.iter().map(|p| p.as_str().to_owned()));
        tests.push(Test::Text {
            field: *field,
            from,
            to: search.patterns.len(),
        });
    }
    tests
}

impl Search {
    fn compile(&mut self) -> Result<(), regex::Error> {
        let mut literals = Vec::new();
        for (place, pattern) in self.patterns.iter().enumerate() {
            match literals::required(pattern) {
                Some(set) => {
                    literals.extend(set);
                    self.lettered.places.push(place);
                }
                None => self.blind.places.push(place),
            }
        }
        literals.sort();
        literals.dedup();
        self.literals = (!literals.is_empty())
            .then(|| AhoCorasick::new(&literals).ok())
            .flatten();
        if self.literals.is_none() {
            self.blind.places.append(&mut self.lettered.places);
        }
        for half in [&mut self.lettered, &mut self.blind] {
            let patterns = half
                .places
                .iter()
                .filter_map(|place| self.patterns.get(*place));
            half.set = RegexSetBuilder::new(patterns)
                .unicode(false)
                .size_limit(SET_SIZE_MAX)
                .build()?;
        }
        self.found = vec![false; self.patterns.len()];
        Ok(())
    }

    fn search(&mut self, field: Field, raw: &[u8], scratch: &mut Scratch) {
        if self.any {
            self.found.fill(false);
            self.any = false;
        }
        let Scratch { decoded, lower, .. } = scratch;
        let text = if needs_decoding(field, raw) {
            decode(field, raw, decoded);
            &decoded[..]
        } else {
            raw
        };
        if let Some(literals) = &self.literals {
            lower.clear();
            lower.extend(text.iter().map(u8::to_ascii_lowercase));
            if literals.is_match(&lower[..]) {
                self.any |= self.lettered.mark(text, &mut self.found);
            }
        }
        if !self.blind.places.is_empty() {
            self.any |= self.blind.mark(text, &mut self.found);
        }
    }
}

impl Patterns {
    fn mark(&self, text: &[u8], found: &mut [bool]) -> bool {
        let mut any = false;
        for n in self.set.matches(text) {
            if let Some(mark) = self.places.get(n).and_then(|place| found.get_mut(*place)) {
                *mark = true;
                any = true;
            }
        }
        any
    }
}

/// One line, and what has been found out about it.
struct Judged<'f, 'a> {
    access: &'f Access<'a>,
    fields: &'f mut [Search; FIELDS],
    scratch: &'f mut Scratch,
}

impl Judged<'_, '_> {
    fn holds(&mut self, test: &Test) -> bool {
        match test {
            Test::Static(wanted) => is_static(self.access) == *wanted,
            Test::Status(ranges) => within(ranges, self.access.status),
            Test::Bytes(ranges) => within(ranges, self.access.bytes),
            Test::Duration(ranges) => within(ranges, self.access.micros),
            Test::Text { field, from, to } => {
                let bit = 1u16 << (*field as u16);
                let Some(search) = self.fields.get_mut(*field as usize) else {
                    return false;
                };
                if self.scratch.done & bit == 0 {
                    self.scratch.done |= bit;
                    search.search(*field, self.access.text(*field), self.scratch);
                }
                search.any
                    && search
                        .found
                        .get(*from..*to)
                        .is_some_and(|found| found.contains(&true))
            }
        }
    }

    /// The first field of `any` in which a pattern is found.
    fn found(&mut self, any: &[Test]) -> Option<Field> {
        any.iter().find_map(|test| match test {
            Test::Text { field, .. } if self.holds(test) => Some(*field),
            _ => None,
        })
    }

    /// The condition in the words of the configuration.
    fn name(&self, test: &Test) -> String {
        match test {
            Test::Static(wanted) => format!("static = {wanted}"),
            Test::Status(list) => format!("status {}", ranges(list)),
            Test::Bytes(list) => format!("bytes {}", ranges(list)),
            Test::Duration(list) => format!("duration {} us", ranges(list)),
            Test::Text { field, from, to } => {
                let search = self.fields.get(*field as usize);
                let patterns = search
                    .and_then(|s| s.patterns.get(*from..*to))
                    .unwrap_or_default();
                format!("{} fits '{}'", field.key(), patterns.join("' or '"))
            }
        }
    }
}

fn within<N: PartialOrd>(ranges: &[(N, N)], n: N) -> bool {
    ranges.iter().any(|(from, to)| *from <= n && n <= *to)
}

fn ranges<N: std::fmt::Display + PartialEq>(list: &[(N, N)]) -> String {
    let one = |(from, to): &(N, N)| {
        if from == to {
            from.to_string()
        } else {
            format!("{from}-{to}")
        }
    };
    list.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn needs_decoding(field: Field, raw: &[u8]) -> bool {
    match field {
        Field::Path | Field::Query => memchr::memchr2(b'%', b'\\', raw).is_some(),
        _ => memchr::memchr(b'\\', raw).is_some(),
    }
}

/// The field as the client meant it.
fn decode(field: Field, raw: &[u8], out: &mut Vec<u8>) {
    unescape(raw, out);
    if matches!(field, Field::Path | Field::Query) {
        percent_decode(out);
    }
}

/// A GET or HEAD that costs next to nothing: "not modified", or a picture, style sheet, script, font, film by its ending.
/// Not one whose path runs on behind a script (`/index.php/x.png`): that asks the script.
fn is_static(access: &Access<'_>) -> bool {
    if !matches!(access.method, b"GET" | b"HEAD" | b"") {
        return false;
    }
    if access.status == 304 {
        return true;
    }
    let tail = access
        .path
        .get(access.path.len().saturating_sub(6)..)
        .unwrap_or_default();
    let Some(dot) = tail.iter().rposition(|b| *b == b'.') else {
        return false;
    };
    let mut ending = [0u8; 5];
    let letters = tail.get(dot + 1..).unwrap_or_default();
    for (lower, byte) in ending.iter_mut().zip(letters) {
        *lower = byte.to_ascii_lowercase();
    }
    let known = matches!(
        ending.get(..letters.len()).unwrap_or_default(),
        b"css" | b"js" | b"mjs" | b"map" | b"wasm"
            | b"png" | b"jpg" | b"jpeg" | b"gif" | b"webp" | b"avif" | b"svg" | b"ico" | b"bmp"
            | b"woff" | b"woff2" | b"ttf" | b"otf" | b"eot"
            | b"mp4" | b"webm" | b"m4v" | b"m4s" | b"ts" | b"mp3" | b"m4a" | b"ogg" | b"oga" | b"wav" | b"vtt"
            // Readers ask for a document in dozens of ranges.
            | b"pdf"
    );
    known && memchr::memmem::find(access.path, b".php/").is_none()
}

/// Conditions of `jails` that no line of `format` can ever meet, for a warning: a jail, and the field it lacks.
#[must_use]
pub fn unmeetable(jails: &[Jail], format: &Format) -> Vec<(String, &'static str)> {
    let mut list = Vec::new();
    for jail in jails {
        let Conditions {
            status,
            bytes,
            duration,
            is_static,
            text,
        } = &jail.rule.all;
        let lacks = [
            (!status.is_empty() && !format.has_status()).then_some("status (%>s)"),
            (!bytes.is_empty() && !format.has_bytes()).then_some("bytes (%B)"),
            (!duration.is_empty() && !format.has_duration()).then_some("duration (%D)"),
            (is_static.is_some() && !format.has(Field::Path)).then_some("request (%r)"),
        ];
        let texts = text
            .iter()
            .map(|(field, _)| *field)
            .chain(jail.rule.distinct_field());
        let texts = texts
            .filter(|field| *field != Field::Message && !format.has(*field))
            .map(Field::directive);
        list.extend(
            lacks
                .into_iter()
                .flatten()
                .chain(texts)
                .map(|lack| (jail.name.clone(), lack)),
        );
    }
    list
}
