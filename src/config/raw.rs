//! Jails that judge lines of any log by expressions, as fail2ban does: those with `filter` or `failregex` in our files,
//! and those of the host's fail2ban.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::Check;
use super::place;
use super::problem::{Place, Problems, Severity};
use super::text::{Node, Value};
use super::value;
use super::{Blocktype, Config, Firewall, Jail, Mode, Ports, Problem, Rule};
use crate::bans::{Terms, Written};
use crate::count::keyed;
use crate::decide::BanFor;
use crate::fail2ban::{
    Action, BanTime, Block, Broken, FilterRules, Folder, IgnoreCache, LogPath, UseDns, in_journal,
    read_filter,
};
use crate::failregex::{MAXLINES_MAX, Matcher, Rules};
use crate::source::journal;
use crate::source::tail::{Encoding, expand};

/// Keys of a jail that judges by expressions, beside those that every jail has.
pub(super) const KEYS: &[&str] = &[
    "filter",
    "failregex",
    "ignoreregex",
    "prefregex",
    "datepattern",
    "maxlines",
    "usedns",
    "logtimezone",
    "logpath",
    "logencoding",
    "journalmatch",
    "maxmatches",
    "bantime_increment",
    "bantime_factor",
    "bantime_formula",
    "bantime_multipliers",
    "bantime_maxtime",
    "bantime_rndtime",
    "bantime_overalljails",
];

/// One of these makes a jail such a one; the others only say more of it.
const MAKING: &[&str] = &["filter", "failregex"];

/// The jail that counts bans goes by this filter's name, as in fail2ban, which reads its own log for that.
const RECIDIVE: &str = "recidive";

/// Most lines of one address that are kept for reports.
pub(crate) const MATCHES_MAX: usize = 1000;

/// Who wrote a jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// f2b-pipe.toml or conf.d.
    Own,
    /// The host's fail2ban.
    Fail2ban,
}

/// Where lines come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Files; the journal if there are none and the filter says what to read of it.
    Auto,
    /// Files, looked at now and then.
    Polling,
    /// The journal.
    Journal,
}

/// What a jail has that judges by expressions.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Who wrote it.
    pub origin: Origin,
    /// The filter without its options; `None`: expressions only.
    pub filter: Option<String>,
    /// What it was given: `mode=aggressive`.
    pub options: BTreeMap<String, String>,
    /// The expressions.
    pub rules: Rules,
    /// Where lines come from.
    pub backend: Backend,
    /// `logpath`, of which a jail of the journal reads nothing.
    pub logs: Vec<LogPath>,
    /// `logencoding`.
    pub encoding: String,
    /// What is read of the journal: alternatives, each words of journalctl.
    pub journalmatch: Vec<Vec<String>>,
    /// Which journal.
    pub journal: journal::Place,
    /// How failures are counted and how long bans last.
    pub terms: Terms,
    /// How bans grow, as written.
    pub increment: Written,
    /// `port` as written.
    pub ports: Vec<String>,
    /// `ignorecommand`.
    pub ignorecommand: Option<String>,
    /// `ignorecache`.
    pub ignorecache: Option<IgnoreCache>,
    /// What its configuration says is to be done about a ban. Those that our sets replace are not run.
    pub actions: Vec<Action>,
    /// Bans go into the kernel's sets. Not if the jail's actions have nothing to do with a packet filter.
    pub in_kernel: bool,
    /// Its failures are other jails' bans, and no log is read.
    pub counts_bans: bool,
}

/// What `*` in a logpath stands for, as in Python's `glob`: no slash, and no dot at the beginning of a name.
const GLOBBING: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

impl Raw {
    /// Does the jail read the log at `path`?
    #[must_use]
    pub fn reads(&self, path: &Path) -> bool {
        self.place_of(path).is_some()
    }

    /// Which of its logs is the one at `path`, if it reads that?
    #[must_use]
    pub fn place_of(&self, path: &Path) -> Option<usize> {
        let names = |log: &LogPath| {
            let pattern = glob::Pattern::new(&log.glob);
            Path::new(&log.glob) == path
                || pattern.is_ok_and(|pattern| pattern.matches_path_with(path, GLOBBING))
        };
        let reads_files = self.backend != Backend::Journal && !self.counts_bans;
        self.logs.iter().position(names).filter(|_| reads_files)
    }

    /// What is done about a ban beside our sets.
    pub fn run(&self) -> impl Iterator<Item = &Action> {
        self.actions.iter().filter(|action| action.block.is_none())
    }

    /// The encoding of its lines; UTF-8 if nobody knows the name, which is said.
    #[must_use]
    pub fn text_encoding(&self) -> Encoding {
        Encoding::named(&self.encoding).unwrap_or_else(|error| {
            log::warn!("logencoding: {error}; utf-8 is taken");
            Encoding::UTF_8
        })
    }
}

/// The keys of one jail as they are read.
#[derive(Debug, Default)]
pub(super) struct Keys {
    made: bool,
    filter: Option<(String, Place)>,
    failregex: Vec<String>,
    ignoreregex: Vec<String>,
    prefregex: Option<String>,
    datepattern: Vec<String>,
    maxlines: Option<u32>,
    usedns: Option<UseDns>,
    logtimezone: Option<String>,
    logpath: Vec<String>,
    logencoding: Option<String>,
    journalmatch: Vec<Vec<String>>,
    maxmatches: Option<u32>,
    pub(super) window: Option<(bool, Place)>,
    increment: bool,
    factor: Option<String>,
    formula: Option<String>,
    multipliers: Option<String>,
    maxtime: Option<f64>,
    rndtime: Option<f64>,
    overalljails: bool,
    /// The first of them, for messages.
    first: Option<(String, Place)>,
}

impl Check<'_> {
    /// One of [`KEYS`]; false: it is none of them.
    pub(super) fn raw_key(&mut self, keys: &mut Keys, key: &str, node: &Node, path: &str) -> bool {
        if !KEYS.contains(&key) {
            return false;
        }
        keys.made |= MAKING.contains(&key);
        keys.first
            .get_or_insert_with(|| (key.to_owned(), node.place.clone()));
        match key {
            "filter" => {
                let text = self.told(
                    &node.place,
                    path,
                    value::text(&node.value).map(str::to_owned),
                );
                keys.filter = text.map(|text| (text, node.place.clone()));
            }
            "failregex" => keys.failregex = self.lines(node, path),
            "ignoreregex" => keys.ignoreregex = self.lines(node, path),
            "prefregex" => keys.prefregex = self.word(node, path),
            "datepattern" => keys.datepattern = self.lines(node, path),
            "maxlines" => {
                let most = u32::try_from(MAXLINES_MAX).unwrap_or(u32::MAX);
                keys.maxlines = self.told(&node.place, path, value::number(&node.value, 1, most));
            }
            "usedns" => {
                let words = [
                    ("yes", UseDns::Yes),
                    ("warn", UseDns::Warn),
                    ("no", UseDns::No),
                    ("raw", UseDns::Raw),
                ];
                keys.usedns = self.told(&node.place, path, value::word(&node.value, &words));
            }
            "logtimezone" => keys.logtimezone = self.word(node, path),
            "logpath" => keys.logpath = self.lines(node, path),
            "logencoding" => keys.logencoding = self.word(node, path),
            "journalmatch" => {
                let lines = self.lines(node, path);
                let words =
                    |line: &String| line.split_ascii_whitespace().map(str::to_owned).collect();
                keys.journalmatch = lines.iter().map(words).collect();
            }
            "maxmatches" => {
                let most = u32::try_from(MATCHES_MAX).unwrap_or(u32::MAX);
                keys.maxmatches = self.told(&node.place, path, value::number(&node.value, 1, most));
            }
            "bantime_increment" => self.set(&mut keys.increment, node, path, value::boolean),
            "bantime_overalljails" => self.set(&mut keys.overalljails, node, path, value::boolean),
            "bantime_factor" => keys.factor = self.shown(node, path),
            "bantime_formula" => keys.formula = self.word(node, path),
            "bantime_multipliers" => {
                let entries = node.entries();
                let words: Vec<String> = entries
                    .iter()
                    .filter_map(|entry| self.shown(entry, path))
                    .collect();
                keys.multipliers = Some(words.join(" "));
            }
            "bantime_maxtime" => keys.maxtime = self.seconds(node, path),
            "bantime_rndtime" => keys.rndtime = self.seconds(node, path),
            _ => {}
        }
        true
    }

    /// A text, or a list of them; each may hold several lines.
    fn lines(&mut self, node: &Node, path: &str) -> Vec<String> {
        let entries = node.entries();
        let texts = entries.iter().filter_map(|entry| {
            self.told(
                &entry.place,
                path,
                value::text(&entry.value).map(str::to_owned),
            )
        });
        let texts: Vec<String> = texts.collect();
        let lines = texts.iter().flat_map(|text| text.lines()).map(str::trim);
        lines
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn word(&mut self, node: &Node, path: &str) -> Option<String> {
        self.told(
            &node.place,
            path,
            value::text(&node.value).map(str::to_owned),
        )
    }

    /// A text or a number, as text.
    fn shown(&mut self, node: &Node, path: &str) -> Option<String> {
        match &node.value {
            Value::Int(n) => Some(n.to_string()),
            Value::Float(n) => Some(n.to_string()),
            Value::Text(text) => Some(text.clone()),
            Value::Bool(_) | Value::List(_) | Value::Table(_) | Value::Other(_) => {
                let wrong = format!("{} is no number; write 2", node.value.shown());
                self.told::<()>(&node.place, path, Err(wrong.into()));
                None
            }
        }
    }

    fn seconds(&mut self, node: &Node, path: &str) -> Option<f64> {
        let read = value::duration(&node.value);
        self.told(&node.place, path, read)
            .map(|time| time.as_secs_f64())
    }

    /// Makes a jail one that judges by expressions, if its keys say so. False: it cannot run, and why was said.
    pub(super) fn raw(&mut self, jail: &mut Jail, keys: Keys, section: &str, at: &Place) -> bool {
        if !keys.made {
            let unread = |key: &&str| self.doubtful.contains(&format!("{section}.{key}"));
            if MAKING.iter().any(unread) {
                return false;
            }
            if let Some((key, place)) = &keys.first {
                let text = "it is for jails that judge lines by `filter` or `failregex`, and this one has neither; write one, or leave the key out".to_owned();
                self.problems
                    .error(place, &format!("{section}.{key}"), text);
                return false;
            }
            if let Some((false, place)) = &keys.window {
                let text = "\"fail2ban\" is for jails with `filter` or `failregex`; here an exact sliding window counts; leave the key out".to_owned();
                self.problems.warn(place, &format!("{section}.count"), text);
            }
            return true;
        }
        if !(jail.rule.all.is_empty() && jail.rule.any.is_empty() && jail.rule.not.is_empty()) {
            let text = "conditions (status, path, ...) are for httpd's lines, and `filter` and `failregex` for any; write the one or the other".to_owned();
            self.problems.error(at, section, text);
            return false;
        }
        let mut found = FilterRules {
            maxlines: 1,
            ..FilterRules::default()
        };
        let counts_bans = keys
            .filter
            .as_ref()
            .is_some_and(|(name, _)| name == RECIDIVE)
            && keys.logpath.is_empty();
        let mut journal = keys.logpath.iter().any(|path| path == "journal");
        if let (Some((spec, place)), false) = (&keys.filter, counts_bans) {
            let backend = if journal { "systemd" } else { "auto" };
            let folders: Vec<&Path> = self.folders.iter().map(PathBuf::as_path).collect();
            match read_filter(&folders, spec, backend) {
                Ok(rules) => {
                    found = rules;
                    let asks = !(keys.journalmatch.is_empty() && found.journalmatch.is_empty());
                    let logs: Vec<LogPath> =
                        keys.logpath.iter().map(|path| log_path(path)).collect();
                    if !journal
                        && asks
                        && only_in_journal(&logs)
                        && let Ok(rules) = read_filter(&folders, spec, "systemd")
                    {
                        (found, journal) = (rules, true);
                        let path = format!("{section}.logpath");
                        self.problems.note(at, &path, turned(&logs));
                    }
                }
                Err(problem) => {
                    self.problems
                        .error(place, &format!("{section}.filter"), problem.text);
                    return false;
                }
            }
        }
        let rules = Rules {
            prefregex: keys.prefregex.or(found.prefregex),
            failregex: or(keys.failregex, found.failregex),
            ignoreregex: or(keys.ignoreregex, found.ignoreregex),
            datepattern: or(keys.datepattern, found.datepattern),
            maxlines: keys.maxlines.unwrap_or(found.maxlines) as usize,
            usedns: keys.usedns.unwrap_or(found.usedns),
            logtimezone: keys.logtimezone,
        };
        if keys.logpath.is_empty() && !counts_bans {
            let text = "its lines come from nowhere; write logpath = [\"/var/log/auth.log\"], or logpath = \"journal\"".to_owned();
            self.problems.error(at, section, text);
            return false;
        }
        if !counts_bans && let Err(refused) = Matcher::new(&rules) {
            self.problems.error(at, section, refused.to_string());
            return false;
        }
        let written = Written {
            on: keys.increment.then_some(true),
            factor: keys.factor,
            formula: keys.formula,
            multipliers: keys.multipliers,
            maxtime: keys.maxtime,
            rndtime: keys.rndtime,
            overalljails: keys.overalljails.then_some(true),
        };
        let increment = match written.increment(&jail.name) {
            Ok(increment) => increment,
            Err(error) => {
                self.problems.error(at, section, error.to_string());
                return false;
            }
        };
        let way = if keys.window.is_none_or(|(window, _)| window) {
            keyed::Way::Window
        } else {
            keyed::Way::Estimate
        };
        let maxmatches = keys.maxmatches.map_or(jail.maxretry, |n| n) as usize;
        jail.small_sets = true;
        jail.raw = Some(Box::new(Raw {
            origin: Origin::Own,
            filter: keys.filter.map(|(spec, _)| found.filter.unwrap_or(spec)),
            options: found.options,
            rules,
            backend: if journal {
                Backend::Journal
            } else {
                Backend::Auto
            },
            logs: keys.logpath.iter().map(|path| log_path(path)).collect(),
            encoding: keys.logencoding.unwrap_or_else(|| "auto".to_owned()),
            journalmatch: or(keys.journalmatch, found.journalmatch),
            journal: journal::Place::default(),
            terms: Terms {
                rule: keyed::Rule {
                    way,
                    findtime: jail.findtime.as_secs_f64(),
                    maxretry: jail.maxretry,
                    maxmatches: maxmatches.min(MATCHES_MAX),
                },
                bantime: match jail.bantime {
                    BanFor::Timed(secs) => Some(f64::from(secs.get())),
                    BanFor::Forever => None,
                },
                increment,
            },
            increment: written,
            ports: jail
                .ports
                .written()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            ignorecommand: None,
            ignorecache: None,
            actions: Vec::new(),
            in_kernel: true,
            counts_bans,
        }));
        true
    }
}

fn or<T>(own: Vec<T>, other: Vec<T>) -> Vec<T> {
    if own.is_empty() { other } else { own }
}

/// `/var/log/x.log tail`: from the end of the file on.
fn log_path(text: &str) -> LogPath {
    let (glob, tail) = match text.rsplit_once(' ') {
        Some((glob, "tail")) => (glob, true),
        Some((glob, "head")) => (glob, false),
        _ => (text, false),
    };
    LogPath {
        glob: glob.trim().to_owned(),
        tail,
    }
}

/// Is there no such log, but a journal? Then a jail that may choose reads that.
fn only_in_journal(logs: &[LogPath]) -> bool {
    let there = |log: &LogPath| !expand(&log.glob).is_empty();
    !logs.iter().any(there) && journal::available()
}

fn turned(logs: &[LogPath]) -> String {
    let globs: Vec<&str> = logs.iter().map(|log| log.glob.as_str()).collect();
    format!(
        "there is no {}, so its lines are read from the journal",
        globs.join(" and no ")
    )
}

/// Adds the jails that are enabled in the fail2ban folder `dir` to `config`. One whose name a jail in a file of the
/// administrator has is left out, and takes the place of a shipped one: those whose names are in `as_shipped`.
pub(super) fn import(
    config: &mut Config,
    dir: &Path,
    as_shipped: &[&str],
    problems: &mut Problems,
) {
    let folder = Folder::read(dir);
    problems.0.extend(folder.problems);
    config.fail2ban_files = folder.files;
    for broken in folder.broken {
        problems.0.push(broken.problem.clone());
        config.broken.push(broken);
    }
    for mut found in folder.jails {
        let (name, written) = (found.name.clone(), found.written.clone());
        let say = |severity, text: String| Problem {
            severity,
            file: written.file.to_path_buf(),
            line: Some(written.line),
            key: name.clone(),
            text,
            cited: None,
        };
        if let Some(at) = config.jails.iter().position(|jail| jail.name == found.name) {
            let own = config.jails.get(at);
            if let Some(own) = own.filter(|jail| !as_shipped.contains(&jail.name.as_str())) {
                let text = format!(
                    "not run, as {} has a jail of this name, which takes its place",
                    own.written
                );
                problems.0.push(say(Severity::Warning, text));
                continue;
            }
            let text = "it takes the place of the shipped jail of this name".to_owned();
            problems.0.push(say(Severity::Note, text));
            config.jails.remove(at);
        }
        if !found.backend.is_journal()
            && found.backend.name != "polling"
            && !found.rules.journalmatch.is_empty()
            && found.rules.filter.as_deref() != Some(RECIDIVE)
            && only_in_journal(&found.logpath)
            && let Some(other) = in_journal(dir, &name)
        {
            problems.0.push(say(Severity::Note, turned(&found.logpath)));
            // As configured, for people: a jail of the journal reads no files.
            found = crate::fail2ban::Jail {
                logpath: found.logpath,
                ..other
            };
        }
        let others = || config.jails.iter().chain([&config.manual]);
        let made =
            imported(&found, &config.manual, &config.firewall).and_then(|made| {
                match others().any(|other| made.0.shares_sets(other)) {
                    true => Err(
                        "its sets would have the names of those of another jail; rename it"
                            .to_owned(),
                    ),
                    false => Ok(made),
                }
            });
        match made {
            Ok((jail, notes)) => {
                let notes = notes.into_iter().map(|text| say(Severity::Warning, text));
                problems.0.extend(notes);
                config.jails.push(jail);
            }
            Err(text) => {
                let problem = say(Severity::Error, text);
                problems.0.push(problem.clone());
                config.broken.push(Broken {
                    jail: found.name.clone(),
                    problem,
                });
            }
        }
    }
}

/// The jail of ours that decides as `found` does, and what is different.
fn imported(
    found: &crate::fail2ban::Jail,
    defaults: &Jail,
    firewall: &Firewall,
) -> Result<(Jail, Vec<String>), String> {
    let mut notes = Vec::new();
    let (mut nets, mut names) = (Vec::new(), Vec::new());
    for word in &found.ignoreip {
        match place::who(word) {
            Ok(place::Who::Net(net) | place::Who::Masked(net)) => nets.push(net),
            Ok(place::Who::Name(name)) => names.push(name),
            Err(wrong) => notes.push(format!("ignoreip: {}", wrong.text)),
        }
    }
    let blocks: Vec<&Block> = found
        .actions
        .iter()
        .filter_map(|action| action.block.as_ref())
        .collect();
    let block = together(&blocks);
    let (ports, protocols, blocktype) = match &block {
        Some(block) => {
            let ports = block_ports(block).map_err(|text| format!("port: {text}"))?;
            let words: Vec<&str> = block.protocols.iter().map(String::as_str).collect();
            let protocols =
                place::protocols_of(&words).map_err(|text| format!("protocol: {text}"))?;
            // In the table of the whole host nothing is forwarded yet: only there a ban holds for other chains, too.
            let other_chain = block.chain != "INPUT";
            if other_chain && block.reject {
                notes.push(format!(
                    "chain {}: packets are dropped before they are routed, not rejected there",
                    block.chain
                ));
            }
            let reject = block.reject && !other_chain;
            (
                ports,
                protocols,
                if reject {
                    Blocktype::Reject
                } else {
                    Blocktype::Drop
                },
            )
        }
        None => (Ports::All, Vec::new(), firewall.blocktype),
    };
    let bantime = match found.bantime {
        BanTime::Forever => BanFor::Forever,
        BanTime::Seconds(secs) => BanFor::of_secs(secs)
            .ok_or_else(|| format!("bantime: {secs} is no ban; write 10m, or -1 for ever"))?,
    };
    let grow = &found.increment;
    let multipliers: Vec<String> = grow.multipliers.iter().map(ToString::to_string).collect();
    let written = Written {
        on: grow.on.then_some(true),
        factor: (grow.factor != 1.0).then(|| grow.factor.to_string()),
        formula: grow.formula.clone(),
        multipliers: Some(multipliers.join(" ")).filter(|text| !text.is_empty()),
        maxtime: grow.maxtime,
        rndtime: grow.rndtime,
        overalljails: grow.overalljails.then_some(true),
    };
    let increment = match grow.on {
        true => written
            .increment(&found.name)
            .map_err(|error| error.to_string())?,
        false => None,
    };
    // fail2ban's recidive reads the log in which fail2ban tells of its bans. There is none here: bans themselves count.
    let counts_bans = found.rules.filter.as_deref() == Some(RECIDIVE);
    let raw = Raw {
        origin: Origin::Fail2ban,
        filter: found.rules.filter.clone(),
        options: found.rules.options.clone(),
        rules: Rules::of(&found.rules, found.logtimezone.clone()),
        backend: match &found.backend {
            backend if backend.is_journal() => Backend::Journal,
            backend if backend.name == "polling" => Backend::Polling,
            _ => Backend::Auto,
        },
        logs: found.logpath.clone(),
        encoding: found.logencoding.clone(),
        journalmatch: found.rules.journalmatch.clone(),
        journal: journal_place(&found.backend.options),
        terms: Terms {
            rule: keyed::Rule {
                way: keyed::Way::Estimate,
                findtime: found.findtime,
                maxretry: found.maxretry,
                maxmatches: (found.maxmatches as usize).min(MATCHES_MAX),
            },
            bantime: match found.bantime {
                BanTime::Forever => None,
                // fail2ban bans for whole seconds.
                BanTime::Seconds(secs) => Some(secs.trunc()),
            },
            increment,
        },
        increment: written,
        // What its actions are told counts, where that is not the jail's `port`.
        ports: match block.as_ref().and_then(|block| block.ports.clone()) {
            Some(ports)
                if blocks
                    .iter()
                    .all(|b| b.ports.as_ref() != Some(&found.ports)) =>
            {
                ports
            }
            _ => found.ports.clone(),
        },
        ignorecommand: found.ignorecommand.clone(),
        ignorecache: found.ignorecache.clone(),
        actions: found.actions.clone(),
        in_kernel: block.is_some(),
        counts_bans,
    };
    let jail = Jail {
        name: found.name.clone(),
        written: found.written.to_string(),
        rule: Rule::default(),
        mode: Mode::Ban,
        rare: false,
        maxretry: found.maxretry,
        findtime: Duration::try_from_secs_f64(found.findtime)
            .map_err(|_| "findtime: no such time".to_owned())?,
        bantime,
        ignoreip: nets,
        ignoreip_names: names,
        ignoreself: found.ignoreself,
        ports,
        protocols,
        blocktype,
        sets: super::sets_of(&found.name),
        small_sets: true,
        raw: Some(Box::new(raw)),
        ..defaults.clone()
    };
    Ok((jail, notes))
}

/// The options of `backend = systemd[...]`.
fn journal_place(options: &BTreeMap<String, String>) -> journal::Place {
    let words = |text: &String| {
        text.split([',', ' ', '\n'])
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    journal::Place {
        folder: options.get("journalpath").cloned(),
        files: options.get("journalfiles").map(words).unwrap_or_default(),
        namespace: options.get("namespace").cloned(),
        // SD_JOURNAL_SYSTEM is 4; without it those of users are read, too.
        of_users: options
            .get("journalflags")
            .is_some_and(|flags| flags.parse::<u32>().is_ok_and(|flags| flags & 4 == 0)),
    }
}

/// One block that holds what several hold: jails that close some ports of TCP and others of UDP have an action for each,
/// and a jail's sets have one list of ports and protocols.
fn together(blocks: &[&Block]) -> Option<Block> {
    let (first, rest) = blocks.split_first()?;
    let mut all = Block::clone(first);
    for block in rest {
        all.ports = match (all.ports, &block.ports) {
            (Some(mut ports), Some(more)) => {
                add(&mut ports, more);
                Some(ports)
            }
            _ => None,
        };
        add(&mut all.protocols, &block.protocols);
        if all.chain == "INPUT" {
            all.chain.clone_from(&block.chain);
        }
        all.reject &= block.reject;
    }
    Some(all)
}

/// Those of `more` that are not there.
fn add(words: &mut Vec<String>, more: &[String]) {
    for word in more {
        if !words.contains(word) {
            words.push(word.clone());
        }
    }
}

fn block_ports(block: &Block) -> Result<Ports, String> {
    match &block.ports {
        None => Ok(Ports::All),
        Some(words) => {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            place::ports_of(&words)
        }
    }
}
