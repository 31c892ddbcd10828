//! Logs and journals, and which jails read them.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::jail::Jail;
use crate::config::{Config, LineSource, Raw, RuntimePaths};
use crate::date;
use crate::failregex::Stamp;
use crate::ledger::{Ledger, Limits, Past};
use crate::notify::logfile;
use crate::silence::board;
use crate::source::journal::{self, Cursor, Journal, Query};
use crate::source::tail::{self, Encoding, Entry, FileId, Position, Start, Tail};

/// What a source tells.
pub(super) enum Told<'a> {
    /// A line.
    Line {
        text: &'a str,
        stamp: Stamp,
        /// It is new, and not from before its log was followed.
        live: bool,
    },
    /// How old is this line? (Of the first owner's dates.)
    Old { line: &'a str },
}

/// All of them, once this process is the one to read them.
pub(super) struct Sources {
    config: Arc<Config>,
    paths: RuntimePaths,
    /// Comes through httpd's pipe, and is not read as a file.
    piped: Option<PathBuf>,
    open: Option<Open>,
}

struct Open {
    tail: Option<Tail>,
    /// With the jails that read it.
    journals: Vec<(Journal, Vec<usize>)>,
    /// By jail: seconds.
    findtimes: Vec<f64>,
    /// Files that were just found, to be begun nearer to their ends.
    fresh: Vec<FileId>,
    /// Where journals were when that was written down.
    noted: HashMap<String, String>,
}

impl Sources {
    pub(super) fn new(config: &Arc<Config>, paths: RuntimePaths, piped: Option<PathBuf>) -> Self {
        Self {
            config: Arc::clone(config),
            paths,
            piped,
            open: None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Begins to read. What is remembered from earlier is returned for the others.
    pub(super) fn open(&mut self, jails: &mut [Jail], now: f64) -> Option<(Ledger, Past)> {
        let mut remembered = self.ledger(now);
        let past = remembered.as_mut().map(|(_, past)| past);
        let (positions, cursors) = past
            .map(|past| {
                (
                    std::mem::take(&mut past.positions),
                    std::mem::take(&mut past.cursors),
                )
            })
            .unwrap_or_default();
        let positions = positions.iter().flat_map(|(_, json)| {
            let known: Vec<Position> = serde_json::from_str(json).unwrap_or_default();
            known
        });
        let cursors = cursors.into_iter();
        let cursors =
            cursors.filter_map(|(query, json)| Some((query, serde_json::from_str(&json).ok()?)));
        self.begin(jails, positions.collect(), cursors.collect(), now);
        remembered
    }

    /// Other jails from now on. What was read goes on where it is.
    pub(super) fn renew(&mut self, config: &Arc<Config>, jails: &mut [Jail], now: f64) {
        self.config = Arc::clone(config);
        let Some(open) = self.open.take() else {
            return;
        };
        let positions = open.tail.iter().flat_map(Tail::positions).collect();
        let cursors = open.journals.iter();
        let cursors = cursors.filter_map(|(journal, _)| {
            let cursor = journal.cursor()?;
            Some((cursor.query.clone(), cursor.clone()))
        });
        let cursors = cursors.collect();
        drop(open);
        self.begin(jails, positions, cursors, now);
    }

    /// What the jail of that number reads: files that are followed, and of the journal. `None` for the files: they are not
    /// looked for yet.
    pub(super) fn read_by(&self, jail: usize) -> (Option<Vec<PathBuf>>, Vec<String>) {
        let Some(open) = &self.open else {
            return (None, Vec::new());
        };
        let looked = open.tail.as_ref().is_none_or(Tail::has_looked);
        let files = open.tail.iter().flat_map(Tail::followed);
        let files = files.filter(|file| file.owners.contains(&jail));
        let journals = open.journals.iter();
        let journals = journals.filter(|(_, owners)| owners.contains(&jail));
        (
            looked.then(|| files.map(|file| file.path.clone()).collect()),
            journals
                .filter_map(|(journal, _)| Some(journal.cursor()?.query.clone()))
                .collect(),
        )
    }

    fn begin(
        &mut self,
        jails: &mut [Jail],
        positions: Vec<Position>,
        cursors: HashMap<String, Cursor>,
        now: f64,
    ) {
        let mut entries = Vec::new();
        let mut polling = true;
        let mut queries: Vec<(Query, Vec<usize>)> = Vec::new();
        for (owner, jail) in jails.iter_mut().enumerate() {
            let name = jail.name().to_owned();
            let Some(raw) = jail.raw().filter(|raw| !raw.counts_bans) else {
                continue;
            };
            let encoding = raw.text_encoding();
            if raw.backend == LineSource::Journal {
                match query(raw, encoding) {
                    Ok(query) => match queries.iter_mut().find(|(known, _)| *known == query) {
                        Some((_, owners)) => owners.push(owner),
                        None => queries.push((query, vec![owner])),
                    },
                    Err(error) => log::error!("jail {name}: journalmatch: {error}"),
                }
            } else {
                polling &= raw.backend == LineSource::Polling;
                for log in &raw.logs {
                    let piped = self
                        .piped
                        .as_deref()
                        .is_some_and(|piped| Path::new(&log.glob) == piped);
                    if !piped {
                        entries.push(Entry {
                            glob: log.glob.clone(),
                            from_end: log.tail,
                            encoding,
                            owners: vec![owner],
                        });
                    }
                }
            }
            jail.compile_if(|_| true);
        }
        let options = tail::Options { polling, positions };
        let tail = (!entries.is_empty()).then(|| {
            Tail::new(entries.clone(), options.clone()).or_else(|error| {
                log::warn!("inotify: {error}; logs are looked at every second instead");
                Tail::new(
                    entries,
                    tail::Options {
                        polling: true,
                        ..options
                    },
                )
            })
        });
        let findtimes: Vec<f64> = jails.iter().map(Jail::findtime).collect();
        let journals = queries.into_iter().map(|(query, owners)| {
            let stored = cursors.get(&query.to_string()).cloned();
            let since = now - longest(&findtimes, &owners);
            (Journal::new(query, stored, since, now), owners)
        });
        self.open = Some(Open {
            tail: tail.and_then(|tail| {
                tail.inspect_err(|error| log::error!("logs cannot be followed: {error}"))
                    .ok()
            }),
            journals: journals.collect(),
            findtimes,
            fresh: Vec::new(),
            noted: HashMap::new(),
        });
    }

    fn ledger(&self, now: f64) -> Option<(Ledger, Past)> {
        if self.config.firewall.backend == crate::config::Backend::DryRun {
            return None;
        }
        let path = self.paths.ledger();
        if let Some(dir) = path.parent()
            && let Err(error) = std::fs::create_dir_all(dir)
        {
            log::warn!(
                "{}: {error}; nothing is remembered over a restart",
                dir.display()
            );
        }
        let opened = Ledger::open(&path, Limits::default(), now);
        opened
            .inspect_err(|error| log::error!("{}: {error}", path.display()))
            .ok()
    }

    /// How long nothing needs to be done unless one of [`fds`](Self::fds) is readable.
    pub(super) fn pause(&self) -> Duration {
        let Some(open) = &self.open else {
            return Duration::MAX;
        };
        let tail = open.tail.as_ref().map(Tail::pause);
        let journals = open.journals.iter().map(|(journal, _)| journal.pause());
        tail.into_iter()
            .chain(journals)
            .min()
            .unwrap_or(Duration::MAX)
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let open = self.open.iter();
        open.flat_map(|open| {
            let tail = open.tail.iter().filter_map(Tail::fd);
            tail.chain(open.journals.iter().filter_map(|(journal, _)| journal.fd()))
        })
    }

    /// Tells what there is to read now, each with the jails it is for.
    pub(super) fn read(&mut self, told: &mut dyn FnMut(Told<'_>, &[usize]) -> Option<f64>) {
        let Some(Open {
            tail,
            journals,
            findtimes,
            fresh,
            ..
        }) = &mut self.open
        else {
            return;
        };
        let begun = Instant::now();
        if let Some(tail) = tail {
            let piped = self.piped.as_deref();
            let mut found = Vec::new();
            let mut on = |event: tail::Event<'_>| match event {
                tail::Event::Line { file, text, live } if piped != Some(&file.path) => {
                    told(
                        Told::Line {
                            text,
                            stamp: Stamp::InText,
                            live,
                        },
                        &file.owners,
                    );
                }
                tail::Event::Found { file, start } => {
                    found.push(file.path.clone());
                    if start == Start::Beginning {
                        fresh.push(file.id);
                    }
                }
                tail::Event::Rotated { file } => logfile::rotated(&file.path),
                tail::Event::Gone { file } => logfile::removed(&file.path),
                tail::Event::Trouble { path, text } => log::warn!("{}: {text}", path.display()),
                tail::Event::Line { .. } | tail::Event::ReachedEnd { .. } => {}
            };
            if let Err(error) = tail.wait(Duration::ZERO, &mut on) {
                log::error!("logs cannot be followed: {error}");
            }
            for file in std::mem::take(fresh) {
                let owners = tail
                    .followed()
                    .find(|followed| followed.id == file)
                    .map(|file| file.owners.clone());
                let owners = owners.unwrap_or_default();
                let since = date::now() - longest(findtimes, &owners);
                let sought = tail.seek(file, since, &mut |line| told(Told::Old { line }, &owners));
                if let Err(error) = sought {
                    log::debug!("a log cannot be searched by its dates: {error}");
                }
            }
            if logfile::is_on() && !found.is_empty() {
                for position in tail.positions() {
                    if found.contains(&position.path) {
                        logfile::added(&position.path, position.offset, position.first_line);
                    }
                }
            }
        }
        for (journal, owners) in journals {
            let about = format!("journal ({})", journal.query());
            let read = journal.wait(Duration::ZERO, &mut |event| match event {
                journal::Event::Entry { text, time, live } => {
                    told(
                        Told::Line {
                            text,
                            stamp: Stamp::Known(time),
                            live,
                        },
                        owners,
                    );
                }
                journal::Event::ReachedEnd => {}
                journal::Event::Trouble { text } => board().tell(&about, text.to_owned()),
                journal::Event::Well => board().over(&about, "journalctl follows it again"),
            });
            if let Err(error) = read {
                log::error!("the journal cannot be followed: {error}");
            }
        }
        // Errors that do not go away must not make a loop of this.
        if begun.elapsed() < Duration::from_micros(50) && self.pause().is_zero() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Writes down how far everything was read.
    pub(super) fn note(&mut self, ledger: Option<&Ledger>, now: f64) {
        let (Some(open), Some(ledger)) = (&mut self.open, ledger) else {
            return;
        };
        let mut write = |name: String, json: String, of_file: bool| {
            if open.noted.get(&name) == Some(&json) {
                return;
            }
            if of_file {
                ledger.position(&name, json.clone(), now);
            } else {
                ledger.cursor(&name, json.clone(), now);
            }
            open.noted.insert(name, json);
        };
        // A log that is being rotated has several, whose order matters.
        let mut files: BTreeMap<String, Vec<Position>> = BTreeMap::new();
        for position in open.tail.iter().flat_map(Tail::positions) {
            let path = position.path.display();
            let name = format!("{path} {} {}", position.encoding, position.from_end);
            files.entry(name).or_default().push(position);
        }
        for (name, positions) in files {
            if let Ok(json) = serde_json::to_string(&positions) {
                write(name, json, true);
            }
        }
        for cursor in open
            .journals
            .iter()
            .filter_map(|(journal, _)| journal.cursor())
        {
            if let Ok(json) = serde_json::to_string(cursor) {
                write(cursor.query.clone(), json, false);
            }
        }
    }
}

fn longest(findtimes: &[f64], owners: &[usize]) -> f64 {
    owners
        .iter()
        .filter_map(|owner| findtimes.get(*owner))
        .copied()
        .fold(0.0, f64::max)
}

fn query(raw: &Raw, encoding: Encoding) -> Result<Query, String> {
    let lines: Vec<String> = raw
        .journalmatch
        .iter()
        .map(|words| {
            words
                .iter()
                .map(|word| quoted(word))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    Query::new(
        lines.iter().map(String::as_str),
        raw.journal.clone(),
        encoding,
    )
}

/// A word as a shell would read it again.
fn quoted(word: &str) -> String {
    if word.contains(char::is_whitespace) {
        format!("'{word}'")
    } else {
        word.to_owned()
    }
}
