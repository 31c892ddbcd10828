//! Fields to hits: which jails' rules a line fits, all jails in one pass.
//!
//! The status picks the jails that can apply at all. One search through the whole line says whether it holds anything that
//! a jail about texts could be looking for; most lines do not, and these jails are not asked. Where they are, each field is
//! looked at once for all jails that are open to the same statuses: a search for the literals that their patterns cannot
//! do without, and only where one is found the patterns themselves. Time is linear in the line, whatever it holds.

mod alarm;
mod endings;
mod literals;
mod search;

use std::hash::{BuildHasher as _, RandomState};

use aho_corasick::AhoCorasick;
use foldhash::quality::FixedState;
use regex_automata::meta::BuildError;

use alarm::Alarm;
use search::Search;

use crate::config::{Conditions, Distinct, Field, Jail, Mode};
use crate::hit::{Hit, JailId};
use crate::parse::scan::find;
use crate::parse::text::{percent_decode, unescape};
use crate::parse::{Access, Format};

/// The patterns of all jails together are too large; each alone was not.
pub type CompileError = Box<BuildError>;

/// The rules of all jails, compiled for one format.
#[derive(Debug)]
pub struct Filter {
    /// Which of `open` is for a status.
    by_status: Vec<usize>,
    open: Vec<Open>,
    alarm: Option<Alarm>,
    /// Jails about the error log: those with a condition on `message`.
    of_errors: Box<[JailId]>,
    rules: Rules,
}

/// The rules by jail, and what it takes to ask them.
#[derive(Debug)]
struct Rules {
    rules: Vec<Rule>,
    searches: Vec<Search>,
    scratch: Scratch,
    scripts: Option<AhoCorasick>,
    hasher: FixedState,
}

/// The jails that are open to some statuses, in order.
#[derive(Debug, Default)]
struct Open {
    all: Box<[JailId]>,
    /// Without those that only want lines at which the alarm rings.
    quiet: Box<[(JailId, Needs)]>,
}

/// A status has three digits.
const STATUSES: u16 = 1000;

/// What is left to be asked of a line whose status a jail is open to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// Every line counts once.
    Nothing,
    /// If it is static, or if it is not.
    Static(bool),
    Rule,
}

/// Room for decoded text, and which line is at hand.
#[derive(Debug, Default)]
struct Scratch {
    line: u64,
    decoded: Vec<u8>,
    lower: Vec<u8>,
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
    /// The field is one of these words.
    Words {
        field: Field,
        words: Vec<Vec<u8>>,
    },
    /// Patterns `from..to` of a search.
    Text {
        field: Field,
        search: usize,
        from: usize,
        to: usize,
    },
}

impl Filter {
    /// Compiles the rules of all `jails`.
    ///
    /// # Errors
    /// All patterns of one field together are too large; each alone was not.
    pub fn compile(jails: &[Jail]) -> Result<Self, CompileError> {
        let mut searches = Searches::default();
        let mut rules = Vec::with_capacity(jails.len());
        let mut of_lines = Vec::new();
        let mut errors = Vec::new();
        let mut alarm = Vec::new();
        for (id, jail) in (0..).zip(jails) {
            let open_to = &jail.rule.all.status;
            // The status is the first test of all, and needs no second one.
            let all = Conditions {
                status: Vec::new(),
                ..jail.rule.all.clone()
            };
            rules.push(Rule {
                all: searches.tests(&all, open_to, false),
                any: searches.tests(&jail.rule.any, open_to, false),
                not: searches.tests(&jail.rule.not, open_to, true),
                weight: jail.rule.weight.0,
                distinct: jail.rule.distinct,
            });
            if of_errors(jail) {
                errors.push(id);
                continue;
            }
            let wants = Alarm::wants(jail);
            of_lines.push((id, open_to, wants.is_none()));
            alarm.extend(wants.into_iter().flatten());
        }
        let mut open: Vec<Open> = Vec::new();
        let by_status = (0..STATUSES).map(|status| {
            let is_open = |to: &[(u16, u16)]| to.is_empty() || within(to, status);
            let jails = of_lines.iter().filter(|(_, to, _)| is_open(to));
            let known = open.iter().position(|open| {
                let all = jails.clone().map(|(id, ..)| id);
                all.eq(&open.all)
            });
            known.unwrap_or_else(|| {
                let needs =
                    |id: JailId| rules.get(usize::from(id)).map_or(Needs::Rule, Rule::needs);
                let quiet = jails.clone().filter(|(.., quiet)| *quiet);
                open.push(Open {
                    all: jails.clone().map(|(id, ..)| *id).collect(),
                    quiet: quiet.map(|(id, ..)| (*id, needs(*id))).collect(),
                });
                open.len() - 1
            })
        });
        let by_status = by_status.collect();
        for (search, (_, _, exceptions)) in searches.searches.iter_mut().zip(&searches.keys) {
            search.compile(!exceptions)?;
        }
        Ok(Self {
            of_errors: errors.into(),
            by_status,
            open,
            alarm: Alarm::new(alarm),
            rules: Rules {
                rules,
                searches: searches.searches,
                scratch: Scratch::default(),
                scripts: AhoCorasick::builder()
                    .ascii_case_insensitive(true)
                    .build(SCRIPTS)
                    .ok(),
                hasher: FixedState::with_seed(RandomState::new().hash_one(0)),
            },
        })
    }

    /// The key of distinct values from now on, instead of one of this filter's own: processes whose hits are counted
    /// together have the same.
    pub fn set_key(&mut self, key: u64) {
        self.rules.hasher = FixedState::with_seed(key);
    }

    /// Appends to `hits` one for each jail whose rule the line fits. A line without a client hits nothing.
    pub fn hits(&mut self, access: &Access<'_>, hits: &mut Vec<Hit>) {
        if access.client.is_none() {
            return;
        }
        let Self {
            by_status,
            open,
            alarm,
            of_errors,
            rules,
        } = self;
        rules.scratch.line += 1;
        if access.is_error {
            for jail in of_errors {
                rules.ask(*jail, access, hits);
            }
            return;
        }
        let place = by_status.get(usize::from(access.status));
        let Some(Open { all, quiet }) = place.and_then(|place| open.get(*place)) else {
            return;
        };
        if all.len() > quiet.len() && alarm.as_ref().is_none_or(|alarm| alarm.rings(access)) {
            for jail in all {
                rules.ask(*jail, access, hits);
            }
            return;
        }
        let mut is_static = None;
        for (jail, needs) in quiet {
            let counts = match needs {
                Needs::Nothing => true,
                Needs::Static(wanted) => {
                    *wanted == *is_static.get_or_insert_with(|| rules.is_static(access))
                }
                Needs::Rule => {
                    rules.ask(*jail, access, hits);
                    false
                }
            };
            if counts {
                hits.push(Hit {
                    jail: *jail,
                    weight: 1,
                    distinct: None,
                });
            }
        }
    }

    /// For `explain`: the first condition of `jail` that the line does not meet, in the words of the configuration;
    /// `None`: it counts.
    pub fn why_not(&mut self, jail: JailId, access: &Access<'_>, written: &Jail) -> Option<String> {
        let Rules {
            rules,
            searches,
            scratch,
            scripts,
            ..
        } = &mut self.rules;
        scratch.line += 1;
        let rule = rules.get(usize::from(jail))?;
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
            searches,
            scratch,
            scripts: scripts.as_ref(),
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

impl Rules {
    /// Appends a hit if the line fits the rule.
    fn ask(&mut self, jail: JailId, access: &Access<'_>, hits: &mut Vec<Hit>) {
        let Some(rule) = self.rules.get(usize::from(jail)) else {
            return;
        };
        let mut line = Judged {
            access,
            searches: &mut self.searches,
            scratch: &mut self.scratch,
            scripts: self.scripts.as_ref(),
        };
        if !rule.fits(&mut line) {
            return;
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
            weight: rule.weight,
            distinct,
        });
    }

    #[inline]
    fn is_static(&mut self, access: &Access<'_>) -> bool {
        is_static(access, self.scripts.as_ref(), &mut self.scratch.decoded)
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
    fn needs(&self) -> Needs {
        let Self {
            all,
            any,
            not,
            weight,
            distinct,
        } = self;
        if !any.is_empty() || *weight != 1 || distinct.is_some() {
            return Needs::Rule;
        }
        match (&all[..], &not[..]) {
            ([], []) => Needs::Nothing,
            ([Test::Static(is)], []) => Needs::Static(*is),
            ([], [Test::Static(is)]) => Needs::Static(!is),
            _ => Needs::Rule,
        }
    }

    fn fits(&self, line: &mut Judged<'_, '_>) -> bool {
        self.all.iter().all(|test| line.holds(test))
            && (self.any.is_empty() || self.any.iter().any(|test| line.holds(test)))
            && !self.not.iter().any(|test| line.holds(test))
    }
}

/// Field, statuses, exceptions.
type Key = (Field, Vec<(u16, u16)>, bool);

/// Searches while they are put together: one for each field, the statuses its jails are open to, and whether it is about
/// exceptions (which are asked about last, and seldom).
#[derive(Default)]
struct Searches {
    searches: Vec<Search>,
    keys: Vec<Key>,
}

impl Searches {
    /// Conditions as tests, cheap ones first.
    fn tests(
        &mut self,
        conditions: &Conditions,
        open_to: &[(u16, u16)],
        exceptions: bool,
    ) -> Vec<Test> {
        let Conditions {
            status,
            bytes,
            duration,
            is_static,
            text,
        } = conditions;
        let mut tests: Vec<Test> = is_static.iter().map(|is| Test::Static(*is)).collect();
        if !status.is_empty() {
            tests.push(Test::Status(status.clone()));
        }
        if !bytes.is_empty() {
            tests.push(Test::Bytes(bytes.clone()));
        }
        if !duration.is_empty() {
            tests.push(Test::Duration(duration.clone()));
        }
        for (field, patterns) in text {
            let words: Option<Vec<_>> = patterns.iter().map(|p| literals::words(p)).collect();
            if let Some(words) = words {
                tests.push(Test::Words {
                    field: *field,
                    words: words.concat(),
                });
                continue;
            }
            let search = self.of((*field, open_to.to_vec(), exceptions));
            let Some(patterns_of) = self.searches.get_mut(search) else {
                continue;
            };
            let (from, to) = patterns_of.add(patterns.iter().cloned());
            tests.push(Test::Text {
                field: *field,
                search,
                from,
                to,
            });
        }
        // `any` keeps the order of the file for its texts: distinct = "any" depends on it.
        tests
    }

    fn of(&mut self, key: Key) -> usize {
        self.keys
            .iter()
            .position(|known| *known == key)
            .unwrap_or_else(|| {
                self.keys.push(key);
                self.searches.push(Search::default());
                self.searches.len() - 1
            })
    }
}

/// One line, and what has been found out about it.
struct Judged<'f, 'a> {
    access: &'f Access<'a>,
    searches: &'f mut [Search],
    scratch: &'f mut Scratch,
    scripts: Option<&'f AhoCorasick>,
}

impl Judged<'_, '_> {
    fn holds(&mut self, test: &Test) -> bool {
        match test {
            Test::Static(wanted) => {
                is_static(self.access, self.scripts, &mut self.scratch.decoded) == *wanted
            }
            Test::Status(ranges) => within(ranges, self.access.status),
            Test::Bytes(ranges) => within(ranges, self.access.bytes),
            Test::Duration(ranges) => within(ranges, self.access.micros),
            Test::Words { field, words } => {
                let raw = self.access.text(*field);
                let is = |text: &[u8]| words.iter().any(|word| word == text);
                // Only what is not one of them as it stands can become one by decoding.
                is(raw) || (raw.len() > 1 && is(decoded(*field, raw, &mut self.scratch.decoded)))
            }
            Test::Text {
                field,
                search,
                from,
                to,
            } => {
                let Scratch {
                    line,
                    decoded: room,
                    lower,
                } = &mut *self.scratch;
                let Some(search) = self.searches.get_mut(*search) else {
                    return false;
                };
                if search.line != *line {
                    search.line = *line;
                    search.search(
                        self.access.text(*field),
                        |raw| decoded(*field, raw, room),
                        lower,
                    );
                }
                search.has(*from, *to)
            }
        }
    }

    /// The first field of `any` in which a pattern is found.
    fn found(&mut self, any: &[Test]) -> Option<Field> {
        any.iter().find_map(|test| match test {
            Test::Text { field, .. } | Test::Words { field, .. } if self.holds(test) => {
                Some(*field)
            }
            Test::Words { .. }
            | Test::Text { .. }
            | Test::Static(_)
            | Test::Status(_)
            | Test::Bytes(_)
            | Test::Duration(_) => None,
        })
    }

    /// The condition in the words of the configuration.
    fn name(&self, test: &Test) -> String {
        match test {
            Test::Static(wanted) => format!("static = {wanted}"),
            Test::Status(list) => format!("status {}", ranges(list)),
            Test::Bytes(list) => format!("bytes {}", ranges(list)),
            Test::Duration(list) => format!("duration {} us", ranges(list)),
            Test::Words { field, words } => {
                let words = words.iter().map(|word| String::from_utf8_lossy(word));
                format!(
                    "{} is {}",
                    field.key(),
                    words.collect::<Vec<_>>().join(" or ")
                )
            }
            Test::Text {
                field,
                search,
                from,
                to,
            } => {
                let search = self.searches.get(*search);
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

/// The field as the client meant it; in `room` if that differs from how it is written.
fn decoded<'t>(field: Field, raw: &'t [u8], room: &'t mut Vec<u8>) -> &'t [u8] {
    let differs = match field {
        Field::Path | Field::Query => memchr::memchr2(b'%', b'\\', raw),
        Field::Method
        | Field::Request
        | Field::Agent
        | Field::Referer
        | Field::User
        | Field::Vhost
        | Field::Message => memchr::memchr(b'\\', raw),
    };
    if differs.is_none() {
        return raw;
    }
    decode(field, raw, room);
    room
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
#[inline]
fn is_static(access: &Access<'_>, scripts: Option<&AhoCorasick>, room: &mut Vec<u8>) -> bool {
    if !matches!(access.method, b"GET" | b"HEAD" | b"") {
        return false;
    }
    if access.status == 304 {
        return true;
    }
    endings::is_static(access.path) && !runs_on_behind_a_script(access.path, scripts, room)
}

/// What marks a script in the folders of a path.
const SCRIPTS: [&[u8]; 7] = [
    b".php", b".cgi", b".fcgi", b".pl/", b".py/", b".asp", b".jsp",
];

fn runs_on_behind_a_script(path: &[u8], scripts: Option<&AhoCorasick>, room: &mut Vec<u8>) -> bool {
    // Most paths have no dot but that of the ending, and nothing that could become one.
    let dot = |path| find(path, *b".%\\");
    if dot(path).is_some_and(|first| path.len() - first <= endings::ENDING_BYTES) {
        return false;
    }
    let folders = memchr::memrchr(b'/', path)
        .and_then(|at| path.get(..=at))
        .unwrap_or_default();
    dot(folders).is_some()
        && scripts.is_some_and(|scripts| scripts.is_match(decoded(Field::Path, folders, room)))
}

/// Conditions of `jails` that no line of `format` can ever meet, for a warning: a jail, and the field it lacks.
#[must_use]
pub fn unmeetable(jails: &[Jail], format: &Format) -> Vec<(String, &'static str)> {
    let mut list = Vec::new();
    for jail in jails {
        let distinct = jail
            .rule
            .distinct_field()
            .filter(|field| !format.has(*field))
            .map(Field::directive);
        list.extend(
            lacks(&jail.rule.all, format)
                .into_iter()
                .chain(distinct)
                .map(|lack| (jail.name.clone(), lack)),
        );
    }
    list
}

/// A jail whose exceptions `format` cannot show would ban those it means to leave out: it only observes. Which, and the
/// field that is missing.
pub fn observe_blind(jails: &mut [Jail], format: &Format) -> Vec<(String, &'static str)> {
    let mut list = Vec::new();
    for jail in jails {
        if let Some(lack) = lacks(&jail.rule.not, format).first() {
            jail.blind |= jail.mode == Mode::Ban;
            jail.mode = Mode::Observe;
            list.push((jail.name.clone(), *lack));
        }
    }
    list
}

/// Fields of `conditions` that lines of `format` do not have.
fn lacks(conditions: &Conditions, format: &Format) -> Vec<&'static str> {
    let Conditions {
        status,
        bytes,
        duration,
        is_static,
        text,
    } = conditions;
    let numbers = [
        (!status.is_empty() && !format.has_status()).then_some("status (%>s)"),
        (!bytes.is_empty() && !format.has_bytes()).then_some("bytes (%B)"),
        (!duration.is_empty() && !format.has_duration()).then_some("duration (%D)"),
        (is_static.is_some() && !format.has(Field::Path)).then_some("request (%r)"),
    ];
    let texts = text.iter().map(|(field, _)| *field);
    let texts = texts
        .filter(|field| *field != Field::Message && !format.has(*field))
        .map(Field::directive);
    numbers.into_iter().flatten().chain(texts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use std::cell::RefCell;

    fn hits(path: &str, status: u16) -> Vec<String> {
        let config = Config::default();
        let mut filter = Filter::compile(&config.jails).unwrap();
        let access = Access {
            client: crate::client::Client::parse(b"192.0.2.7"),
            status,
            method: b"GET",
            path: path.as_bytes(),
            ..Access::default()
        };
        let mut hits = Vec::new();
        filter.hits(&access, &mut hits);
        hits.iter()
            .map(|hit| config.jails[usize::from(hit.jail)].name.clone())
            .collect()
    }

    #[test]
    fn a_picture_behind_a_script_asks_the_script() {
        for (path, dynamic) in [
            ("/x.png", false),
            ("/a.b/x.png", false),
            ("/my%20photos/x.png", false),
            ("/index.php", true),
            ("/index.php/x.png", true),
            ("/index%2ephp/x.png", true),
            ("/index.PHP5/x.png", true),
            ("/cgi-bin/a.cgi/x.css", true),
        ] {
            assert_eq!(
                hits(path, 200).contains(&"apache-dos".to_owned()),
                dynamic,
                "{path}"
            );
        }
    }

    #[test]
    fn a_folder_that_is_kept_in_step_is_left_out_but_not_what_is_reached_through_it() {
        for (path, exploit) in [
            ("/.env", true),
            ("/dav/project/.git/config", false),
            ("/remote.php/dav/files/a/.env", false),
            ("/dav/../.env", true),
            ("/dav/%2e%2e/.git/config", true),
        ] {
            assert_eq!(
                hits(path, 404).contains(&"apache-exploit-path".to_owned()),
                exploit,
                "{path}"
            );
        }
    }

    #[test]
    fn with_and_without_the_alarm_the_same_lines_count() {
        let mut config = Config::default();
        let own = [
            (Field::Agent, r"(?i)bad[ +]?Bot/[0-9]"),
            (Field::Query, "a%b"),
        ];
        let mut jail = config.jails[0].clone();
        jail.rule.not = Conditions::default();
        jail.rule.any.text = own.map(|(field, p)| (field, vec![p.to_owned()])).to_vec();
        config.jails.push(jail);
        let filter = RefCell::new(Filter::compile(&config.jails).unwrap());
        let format = Format::compile("combined").unwrap();
        let text = || prop::collection::vec(prop::sample::select(PIECES), 0..5);
        let lines = (
            prop::array::uniform3(text()),
            prop::sample::select(vec![200u16, 304, 401, 404]),
        );
        let same = |(texts, status): ([Vec<&str>; 3], u16)| {
            let [target, referer, agent] = texts.map(|pieces| pieces.concat());
            let line = format!(
                "192.0.2.7 - - [22/Nov/2026:20:02:28 +0000] \"GET /{target} HTTP/1.1\" {status} 7 \"{referer}\" \"{agent}\""
            );
            let mut access = Access::default();
            format.read(line.as_bytes(), &mut access).unwrap();
            let mut hits = [Vec::new(), Vec::new()];
            for list in &mut hits {
                filter.borrow_mut().hits(&access, list);
                access.texts = b""; // not known: the alarm rings
            }
            let [with, without] = hits;
            prop_assert_eq!(with, without, "{}", line);
            Ok(())
        };
        TestRunner::new(ProptestConfig::with_cases(4000))
            .run(&lines, same)
            .unwrap();
    }

    const PIECES: &[&str] = &[
        "a",
        "/",
        ".",
        "x.png",
        "index.php",
        "?",
        "q=",
        "%2e",
        "%2E",
        "%252e",
        "%25",
        "%62",
        "%",
        ".env",
        "env",
        ".git",
        "..",
        "/etc/passwd",
        "$",
        "{",
        "jndi:",
        "()",
        "() {",
        "(",
        r"\x28",
        r"\\",
        r"\x24",
        r"\t",
        "Mozilla",
        "bad",
        "BADBOT",
        "Bot",
        "/1",
        "php://",
        "input",
        "wp-config.",
        "bak",
        "app/invokefunction",
        "a%25b",
    ];

    #[test]
    fn exceptions_that_the_format_cannot_show_ban_nobody() {
        let observing = |format: &str| {
            let mut jails = Config::default().jails;
            let list = observe_blind(&mut jails, &Format::compile(format).unwrap());
            list.into_iter().map(|(jail, _)| jail).collect::<Vec<_>>()
        };
        assert_eq!(observing("f2b"), [""; 0]);
        assert_eq!(observing("combined"), [""; 0]);
        assert_eq!(observing("common"), ["apache-scan"]);
        assert_eq!(
            observing("%a %>s"),
            [
                "apache-dos",
                "apache-auth",
                "apache-scan",
                "apache-exploit-path"
            ]
        );
    }
}
