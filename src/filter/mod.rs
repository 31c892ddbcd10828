//! Fields to hits: which jails' rules a line fits, all jails in one pass.
//!
//! The status picks the jails that can apply at all. Texts are looked at last, each field once for all jails that are
//! open to the same statuses: a search for the literals that their patterns cannot do without, and only where one is
//! found the patterns themselves. Time is linear in the line, whatever it holds.

mod literals;
mod search;

use std::hash::{BuildHasher as _, RandomState};

use aho_corasick::AhoCorasick;

use search::Search;

use crate::config::{Conditions, Distinct, Field, Jail, Mode};
use crate::hit::{Hit, JailId};
use crate::parse::text::{percent_decode, unescape};
use crate::parse::{Access, Format};

/// The rules of all jails, compiled for one format.
#[derive(Debug)]
pub struct Filter {
    rules: Vec<Rule>,
    /// By status: the jails whose status condition holds, in order.
    by_status: Vec<Box<[JailId]>>,
    /// Jails about the error log: those with a condition on `message`.
    of_errors: Box<[JailId]>,
    searches: Vec<Search>,
    scratch: Scratch,
    scripts: Option<AhoCorasick>,
    hasher: RandomState,
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
    pub fn compile(jails: &[Jail]) -> Result<Self, regex::Error> {
        let mut searches = Searches::default();
        let mut rules = Vec::with_capacity(jails.len());
        let mut by_status: Vec<Vec<JailId>> = vec![Vec::new(); 1000];
        let mut errors = Vec::new();
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
            for (status, list) in (0u16..).zip(&mut by_status) {
                if open_to.is_empty() || within(open_to, status) {
                    list.push(id);
                }
            }
        }
        for search in &mut searches.searches {
            search.compile()?;
        }
        Ok(Self {
            rules,
            of_errors: errors.into_boxed_slice(),
            by_status: by_status.into_iter().map(Vec::into_boxed_slice).collect(),
            searches: searches.searches,
            scratch: Scratch::default(),
            scripts: AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .build(SCRIPTS)
                .ok(),
            hasher: RandomState::new(),
        })
    }

    /// Appends to `hits` one for each jail whose rule the line fits. A line without a client hits nothing.
    pub fn hits(&mut self, access: &Access<'_>, hits: &mut Vec<Hit>) {
        let Some(client) = access.client else { return };
        self.scratch.line += 1;
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
                searches: &mut self.searches,
                scratch: &mut self.scratch,
                scripts: self.scripts.as_ref(),
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
        self.scratch.line += 1;
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
            searches: &mut self.searches,
            scratch: &mut self.scratch,
            scripts: self.scripts.as_ref(),
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
fn is_static(access: &Access<'_>, scripts: Option<&AhoCorasick>, room: &mut Vec<u8>) -> bool {
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
    known && !runs_on_behind_a_script(access.path, scripts, room)
}

/// What marks a script in the folders of a path.
const SCRIPTS: [&[u8]; 7] = [
    b".php", b".cgi", b".fcgi", b".pl/", b".py/", b".asp", b".jsp",
];

fn runs_on_behind_a_script(path: &[u8], scripts: Option<&AhoCorasick>, room: &mut Vec<u8>) -> bool {
    let folders = memchr::memrchr(b'/', path)
        .and_then(|at| path.get(..=at))
        .unwrap_or_default();
    // Most folders have no dot, and nothing that could become one.
    memchr::memchr3(b'.', b'%', b'\\', folders).is_some()
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
