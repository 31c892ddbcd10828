//! A section of the jail configuration to a jail.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::action;
use super::ini::Entry;
use super::library::{Config, Library};
use super::percent::{Scope, Vars};
use super::words;
use super::{Backend, BanTime, Broken, FilterRules, Folder, IgnoreCache, Increment, Jail, LogPath};
use super::{keys, seconds};
use crate::config::suggest::nearest;
use crate::config::{Place, Problem, Severity};

/// How the options of a jail are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Truth,
    Whole,
}

/// The options of a jail.
const OF_JAILS: &[(&str, Kind)] = &[
    ("enabled", Kind::Truth),
    ("backend", Kind::Text),
    ("maxretry", Kind::Whole),
    ("maxmatches", Kind::Whole),
    ("findtime", Kind::Text),
    ("bantime", Kind::Text),
    ("bantime.increment", Kind::Truth),
    ("bantime.factor", Kind::Text),
    ("bantime.formula", Kind::Text),
    ("bantime.multipliers", Kind::Text),
    ("bantime.maxtime", Kind::Text),
    ("bantime.rndtime", Kind::Text),
    ("bantime.overalljails", Kind::Truth),
    ("ignorecommand", Kind::Text),
    ("ignoreself", Kind::Truth),
    ("ignoreip", Kind::Text),
    ("ignorecache", Kind::Text),
    ("filter", Kind::Text),
    ("logtimezone", Kind::Text),
    ("logencoding", Kind::Text),
    ("logpath", Kind::Text),
    ("action", Kind::Text),
    ("usedns", Kind::Text),
    ("prefregex", Kind::Text),
    ("ignoreregex", Kind::Text),
    ("failregex", Kind::Text),
    ("maxlines", Kind::Whole),
    ("datepattern", Kind::Text),
    ("journalmatch", Kind::Text),
];

/// Those of them that are durations.
const DURATIONS: &[&str] = &["findtime", "bantime", "bantime.maxtime", "bantime.rndtime"];

/// Backends, by the names fail2ban has for them.
const BACKENDS: &[&str] = &["auto", "pyinotify", "gamin", "polling", "systemd"];

/// Names of a jail's options.
pub(super) fn options() -> impl Iterator<Item = &'static str> {
    OF_JAILS.iter().map(|(name, _)| *name)
}

/// Reads folders.
pub(super) struct Reader {
    pub(super) folders: Library,
    /// What is wrong with jails that run.
    pub(super) problems: Vec<Problem>,
    /// In place of every jail's `backend`.
    backend: Option<&'static str>,
}

impl Reader {
    pub(super) fn new(folders: &[&Path]) -> Self {
        Self {
            folders: Library::new(folders),
            problems: Vec::new(),
            backend: None,
        }
    }

    /// See [`super::in_journal`].
    pub(super) fn in_journal(mut self, name: &str) -> Option<Jail> {
        self.backend = Some("systemd");
        let config = self.jails()?;
        let (_, place) = config.order.iter().find(|(section, _)| section == name)?;
        self.jail(&config, name, place, true, &mut keys::Used::default())
            .ok()?
    }

    /// See [`Folder::read`].
    pub(super) fn folder(mut self) -> Folder {
        let mut folder = Folder::default();
        if let Some(config) = self.jails() {
            let mut used = keys::Used::of(&config);
            for (name, place) in config.order.iter().filter(|(name, _)| name != "INCLUDES") {
                match self.jail(&config, name, place, false, &mut used) {
                    Ok(jail) => folder.jails.extend(jail),
                    Err(problem) => {
                        self.further(&config, name, place);
                        folder.broken.push(Broken {
                            jail: name.clone(),
                            problem,
                        });
                    }
                }
            }
            used.complain(&config, &mut self.problems);
        }
        folder.problems = self.folders.problems;
        folder.problems.extend(told_once(self.problems));
        folder.problems.retain(|problem| {
            folder
                .broken
                .iter()
                .all(|broken| broken.problem != *problem)
        });
        folder.files = self.folders.files;
        folder
    }

    /// What else is wrong in a jail that cannot run, so that it is not repaired one run at a time.
    fn further(&mut self, config: &Config, name: &str, written: &Place) {
        let nothing = Vars::new();
        let section = Section {
            scope: Scope::new(config, name, &nothing),
            name,
            written,
        };
        for (option, kind) in OF_JAILS {
            // What needs the filter's values cannot be had here, and is no mistake.
            let Ok(Some(value)) = section.text(option) else {
                continue;
            };
            // What comes from another name is told where that one stands.
            if section
                .scope
                .lookup(option)
                .is_some_and(|raw| raw.contains("%("))
            {
                continue;
            }
            let wrong = match kind {
                Kind::Whole => seconds::whole(value.split('#').next().unwrap_or_default()).err(),
                Kind::Text if DURATIONS.contains(option) && !value.is_empty() => {
                    seconds::seconds(&value).err()
                }
                Kind::Text | Kind::Truth => None,
            };
            self.problems
                .extend(wrong.map(|text| section.error(option, text)));
        }
    }

    /// The configuration of all jails, with the two names that fail2ban adds.
    pub(super) fn jails(&mut self) -> Option<Rc<Config>> {
        let mut config = Config::clone(&*self.folders.config("jail")?);
        let folder = self
            .folders
            .folder()
            .to_string_lossy()
            .trim_end_matches('/')
            .to_owned();
        let nowhere = Place {
            file: Arc::from(Path::new("")),
            line: 0,
        };
        for (name, value) in [
            ("fail2ban_version", super::VERSION.to_owned()),
            ("fail2ban_confpath", folder),
        ] {
            let place = nowhere.clone();
            config
                .defaults
                .insert(name.to_owned(), Entry { value, place });
        }
        Some(Rc::new(config))
    }

    /// Reads one jail; `None`: it is not enabled, and need not be (`anyway`).
    pub(super) fn jail(
        &mut self,
        config: &Config,
        name: &str,
        written: &Place,
        anyway: bool,
        used: &mut keys::Used,
    ) -> Result<Option<Jail>, Problem> {
        let nothing = Vars::new();
        let section = Section {
            scope: Scope::new(config, name, &nothing),
            name,
            written,
        };
        let enabled = section.text("enabled")?.unwrap_or_default();
        if seconds::truth(&enabled).is_none() {
            let text = format!(
                "\"{enabled}\" means false to fail2ban, so this jail does not run; write true or false"
            );
            self.problems
                .push(section.problem(Severity::Error, "enabled", text));
        }
        if seconds::truth(&enabled) != Some(true) && !anyway {
            return Ok(None);
        }
        let damaged = config.damage.iter().find(|(section, _)| section == name);
        if let Some((_, problem)) = damaged {
            return Err(problem.clone());
        }

        // First what the filter needs, then, with the filter's own values at hand as `known/x`, all of it.
        let backend = match self.backend {
            Some(backend) => backend.to_owned(),
            None => section
                .text("backend")?
                .unwrap_or_else(|| "auto".to_owned()),
        };
        let filter = section.text("filter")?.unwrap_or_default();
        let first = Vars::from([
            ("enabled".to_owned(), Some("True".to_owned())),
            ("backend".to_owned(), Some(backend.clone())),
            ("filter".to_owned(), Some(filter.clone())),
        ]);
        let mut filter = match filter.as_str() {
            "" => None,
            filter => Some(self.open_filter(&section, filter, &backend)?),
        };
        let mut known = Vars::new();
        if let Some((_, definition)) = &mut filter {
            definition.read(&first, true)?;
            let values = definition.combined(&[])?;
            // They are resolved: a percent sign in them is one.
            let values = values
                .into_iter()
                .map(|(name, value)| (format!("known/{name}"), Some(value.replace('%', "%%"))));
            known.extend(values);
        }
        let section = Section {
            scope: Scope::new(config, name, &known),
            ..section
        };
        let options = self.options(&section)?;
        let filter = match filter {
            None => None,
            Some((call, mut definition)) => {
                definition.read(&options, false)?;
                used.also(definition.config());
                let values = definition.combined(&[])?;
                Some((call, values))
            }
        };
        let actions = self.actions(&section, &options, used)?;
        let (call, values) = filter.unwrap_or_default();
        let rules = self.rules(&section, call, &values, &options)?;
        let jail = self.values(&section, &options, rules, actions)?;
        used.jail(&jail.name);
        Ok(Some(jail))
    }

    /// "There is no such file", and which one was meant.
    pub(super) fn no_such(&self, kind: &str, name: &str) -> String {
        let files = std::fs::read_dir(self.folders.folder().join(kind))
            .into_iter()
            .flatten()
            .flatten();
        let names: Vec<String> = files
            .filter_map(|f| {
                f.path()
                    .file_stem()
                    .map(|n| n.to_string_lossy().into_owned())
            })
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let file = self.folders.folder().join(kind).join(name);
        match nearest(name, &names) {
            Some(meant) if meant != name => {
                format!("there is no {}.conf; did you mean {meant}?", file.display())
            }
            _ => format!(
                "there is no {}.conf; write the name of a file in {kind}, without .conf",
                file.display()
            ),
        }
    }

    /// All options of a jail that are there, as its filter and its actions see them.
    fn options(&mut self, section: &Section<'_>) -> Result<Vars, Problem> {
        let mut options = Vars::new();
        for (name, kind) in OF_JAILS {
            let Some(value) = section.text(name)? else {
                continue;
            };
            let value = match kind {
                Kind::Text => value,
                Kind::Truth => {
                    let truth = seconds::truth(&value);
                    if truth.is_none() && *name != "enabled" {
                        let text =
                            format!("\"{value}\" means false to fail2ban; write true or false");
                        self.problems
                            .push(section.problem(Severity::Warning, name, text));
                    }
                    // As Python writes it, where a filter or an action asks for it.
                    (if truth == Some(true) { "True" } else { "False" }).to_owned()
                }
                Kind::Whole => self.whole(section, name, &value)?.to_string(),
            };
            options.insert((*name).to_owned(), Some(value));
        }
        if let Some(backend) = self.backend {
            options.insert("backend".to_owned(), Some(backend.to_owned()));
        }
        for (name, value) in [
            ("enabled", "False"),
            ("backend", "auto"),
            ("filter", ""),
            ("action", ""),
        ] {
            options
                .entry(name.to_owned())
                .or_insert_with(|| Some(value.to_owned()));
        }
        Ok(options)
    }

    /// A number; with a remark behind it, which is no remark to fail2ban, the number is meant.
    pub(super) fn whole(
        &mut self,
        section: &Section<'_>,
        name: &str,
        value: &str,
    ) -> Result<i64, Problem> {
        match seconds::whole(value) {
            Ok(number) => Ok(number),
            Err(text) => {
                let before = value.split('#').next().unwrap_or_default();
                let number = seconds::whole(before).ok().filter(|_| value.contains('#'));
                let problem = |severity, text| section.problem(severity, name, text);
                match number {
                    Some(number) => {
                        // What comes from another name (maxmatches = %(maxretry)s) is told where that one stands.
                        if section
                            .scope
                            .lookup(name)
                            .is_some_and(|raw| raw.contains('#'))
                        {
                            self.problems.push(problem(Severity::Warning, text));
                        }
                        Ok(number)
                    }
                    None => Err(problem(Severity::Error, text)),
                }
            }
        }
    }

    fn actions(
        &mut self,
        section: &Section<'_>,
        options: &Vars,
        used: &mut keys::Used,
    ) -> Result<Vec<action::Action>, Problem> {
        let list = text(options, "action");
        let mut actions = Vec::new();
        for one in words::calls(list) {
            let call = words::call(one).map_err(|text| section.error("action", text))?;
            if Path::new(&call.name).extension().is_some_and(|e| e == "py") {
                let file = self.folders.folder().join("action.d").join(&call.name);
                if !file.is_file() {
                    let text = format!(
                        "there is no {}; write the name of a file in action.d",
                        file.display()
                    );
                    return Err(section.error("action", text));
                }
                actions.push(action::Action::python(call, file));
                continue;
            }
            let name = format!("action.d/{}", call.name);
            let Some(config) = self.folders.config(&name) else {
                // `action = %(action_)s` stands far from the name that is wrong.
                let by_name = ["banaction", "banaction_allports"]
                    .into_iter()
                    .find(|option| {
                        let value = section.scope.lookup(option);
                        value.is_some_and(|value| value.split('[').next() == Some(&call.name))
                    });
                let option = by_name.unwrap_or("action");
                return Err(section.error(option, self.no_such("action.d", &call.name)));
            };
            undamaged(&config)?;
            used.also(&config);
            actions.push(action::Action::read(config, call, section.name, options)?);
        }
        if actions.is_empty() {
            let text = "no action: nobody is banned; write `action = %(action_)s`".to_owned();
            self.problems
                .push(section.problem(Severity::Warning, "action", text));
        }
        Ok(actions)
    }

    fn values(
        &mut self,
        section: &Section<'_>,
        options: &Vars,
        rules: FilterRules,
        actions: Vec<action::Action>,
    ) -> Result<Jail, Problem> {
        let given = |name: &str| Some(text(options, name)).filter(|text| !text.is_empty());
        let duration = |name: &str| match given(name) {
            Some(text) => seconds::seconds(text)
                .map(Some)
                .map_err(|text| section.error(name, text)),
            None => Ok(None),
        };
        let count = |name: &str, otherwise: u32| match given(name) {
            None => Ok(otherwise),
            Some(number) => number.parse().map_err(|_| {
                section.error(name, format!("{number} is no count; write a number from 1"))
            }),
        };
        let truth = |name: &str| given(name) == Some("True");
        let backend =
            words::call(text(options, "backend")).map_err(|text| section.error("backend", text))?;
        let backend = Backend {
            name: backend.name.to_lowercase(),
            options: backend.options.into_iter().collect(),
        };
        if !BACKENDS.contains(&backend.name.as_str()) {
            let text = format!(
                "there is no backend \"{}\"; write auto or systemd",
                backend.name
            );
            return Err(section.error("backend", text));
        }
        let bantime = match duration("bantime")? {
            None => BanTime::Seconds(600.0),
            Some(seconds) if seconds < 0.0 => BanTime::Forever,
            Some(seconds) => BanTime::Seconds(seconds),
        };
        let multipliers: Result<Vec<i64>, String> = text(options, "bantime.multipliers")
            .split_whitespace()
            .map(seconds::whole)
            .collect();
        let increment = Increment {
            on: truth("bantime.increment"),
            factor: duration("bantime.factor")?.unwrap_or(1.0),
            formula: given("bantime.formula").map(str::to_owned),
            multipliers: multipliers.map_err(|text| section.error("bantime.multipliers", text))?,
            maxtime: duration("bantime.maxtime")?,
            rndtime: duration("bantime.rndtime")?,
            overalljails: truth("bantime.overalljails"),
        };
        let protocol = section
            .helper("protocol")
            .unwrap_or_else(|| "tcp".to_owned());
        let chain = section.helper("chain").filter(|chain| !chain.contains('<'));
        let chain = chain.or_else(|| {
            actions
                .iter()
                .find_map(|action| action.block.as_ref())
                .map(|block| block.chain.clone())
        });
        Ok(Jail {
            name: section.name.to_owned(),
            written: section.written.clone(),
            logpath: if backend.is_journal() {
                Vec::new()
            } else {
                self.logpath(section, text(options, "logpath"))?
            },
            backend,
            rules,
            logencoding: given("logencoding").unwrap_or("auto").to_owned(),
            logtimezone: given("logtimezone").map(str::to_owned),
            maxretry: count("maxretry", 3)?,
            findtime: duration("findtime")?.unwrap_or(600.0),
            bantime,
            increment,
            maxmatches: count("maxmatches", 5)?,
            ignoreip: words::words(text(options, "ignoreip")),
            ignoreself: given("ignoreself") != Some("False"),
            ignorecommand: given("ignorecommand").map(str::to_owned),
            ignorecache: given("ignorecache")
                .map(ignorecache)
                .transpose()
                .map_err(|text| section.error("ignorecache", text))?,
            ports: words::words(&section.helper("port").unwrap_or_default()),
            protocol,
            chain: chain.unwrap_or_else(|| "INPUT".to_owned()),
            actions,
        })
    }

    fn logpath(&mut self, section: &Section<'_>, text: &str) -> Result<Vec<LogPath>, Problem> {
        let mut all = Vec::new();
        for line in text
            .split('\n')
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
        {
            let (glob, where_from) = line.rsplit_once(' ').unwrap_or((line, "head"));
            if !["head", "tail"].contains(&where_from) {
                let text = format!(
                    "\"{line}\": behind a path stands head or tail, or nothing; write each path in a line of its own"
                );
                return Err(section.error("logpath", text));
            }
            all.push(LogPath {
                glob: glob.trim_end().to_owned(),
                tail: where_from == "tail",
            });
        }
        if all.is_empty() {
            let text =
                "there is no log to read; write the path of one, or `backend = systemd`".to_owned();
            self.problems
                .push(section.problem(Severity::Warning, "logpath", text));
        }
        Ok(all)
    }
}

/// A warning about a line of `[DEFAULT]` comes once, not for every jail.
fn told_once(problems: Vec<Problem>) -> Vec<Problem> {
    let option = |problem: &Problem| problem.key.rsplit_once('.').map(|(_, o)| o.to_owned());
    let mut all: Vec<Problem> = Vec::new();
    for problem in problems {
        let same = all.iter_mut().find(|known| {
            (&known.file, known.line, &known.text, option(known))
                == (&problem.file, problem.line, &problem.text, option(&problem))
        });
        match same {
            Some(known) if known.key != problem.key => {
                if let Some(option) = option(known) {
                    known.key = format!("DEFAULT.{option}");
                }
            }
            Some(_) => {}
            None => all.push(problem),
        }
    }
    all
}

/// A filter or an action with a line that cannot be read is not used.
pub(super) fn undamaged(config: &Config) -> Result<(), Problem> {
    match config.damage.first() {
        Some((_, problem)) => Err(problem.clone()),
        None => Ok(()),
    }
}

fn text<'a>(options: &'a Vars, name: &str) -> &'a str {
    options
        .get(name)
        .and_then(Option::as_deref)
        .unwrap_or_default()
}

/// Reads `ignorecache`.
///
/// # Errors
/// What is wrong; what to write.
pub(crate) fn ignorecache(text: &str) -> Result<IgnoreCache, String> {
    let options: BTreeMap<_, _> = words::call(&format!("cache[{text}]"))?
        .options
        .into_iter()
        .collect();
    let key = options
        .get("key")
        .ok_or("no key; write key=\"<ip>\", max-count=100, max-time=5m")?;
    let max_count = options
        .get("max-count")
        .map_or(Ok(100), |n| seconds::whole(n))?;
    Ok(IgnoreCache {
        key: key.clone(),
        max_count: u32::try_from(max_count)
            .map_err(|_| format!("max-count: {max_count} is no count"))?,
        max_time: options
            .get("max-time")
            .map_or(Ok(300.0), |t| seconds::seconds(t))?,
    })
}

/// A jail's section, being read.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    pub(super) scope: Scope<'a>,
    pub(super) name: &'a str,
    pub(super) written: &'a Place,
}

impl Section<'_> {
    pub(super) fn text(&self, option: &str) -> Result<Option<String>, Problem> {
        self.scope.get(option)
    }

    /// A value that fail2ban itself knows only as a part of others: no error when it cannot be had.
    pub(super) fn helper(&self, option: &str) -> Option<String> {
        self.scope
            .get(option)
            .ok()
            .flatten()
            .filter(|text| !text.is_empty())
    }

    pub(super) fn problem(&self, severity: Severity, option: &str, text: String) -> Problem {
        let place = self.scope.place(option).unwrap_or(self.written);
        Problem::at(severity, place, &format!("{}.{option}", self.name), text)
    }

    pub(super) fn error(&self, option: &str, text: String) -> Problem {
        self.problem(Severity::Error, option, text)
    }
}
