//! `%(name)s` in a value.

use std::collections::BTreeMap;

use super::library::{Config, known};
use crate::config::{Place, Problem, Severity};

/// Names within names, as many as Python's ConfigParser follows.
const MAX_DEPTH: usize = 10;

/// Names replaced in one value: names that stand for nothing can go on for long as well.
const MAX_NAMES: u32 = 100_000;

/// Bytes of a value, everything replaced. The longest of fail2ban's own is below 20 kB.
const VALUE_MAX_BYTES: usize = 1 << 20;

/// What beats every section: a jail's options where its filter is read. `None`: there, but without a value.
pub(super) type Vars = BTreeMap<String, Option<String>>;

/// A section that values are asked of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    config: &'a Config,
    section: &'a str,
    vars: &'a Vars,
}

/// Why a value cannot be had.
struct Wrong(String);

impl<'a> Scope<'a> {
    pub(super) fn new(config: &'a Config, section: &'a str, vars: &'a Vars) -> Self {
        Self {
            config,
            section,
            vars,
        }
    }

    /// The option with every name in it replaced; `None`: there is no such option.
    ///
    /// # Errors
    /// A name that nobody gives, or a `%` that stands for nothing.
    pub(super) fn get(&self, option: &str) -> Result<Option<String>, Problem> {
        let Some(raw) = self.lookup(option) else {
            return Ok(None);
        };
        let mut out = String::with_capacity(raw.len());
        match self.fill(raw, 1, &mut 0, &mut out) {
            Ok(()) => Ok(Some(out)),
            Err(Wrong(text)) => Err(self.problem(option, text)),
        }
    }

    fn problem(&self, option: &str, text: String) -> Problem {
        let key = format!("{}.{option}", self.section);
        match self.place(option) {
            Some(place) => Problem::at(Severity::Error, place, &key, text),
            None => Problem {
                key,
                ..Problem::of_file(Severity::Error, "".as_ref(), text)
            },
        }
    }

    /// Where an option is written, if not in `vars`.
    pub(super) fn place(&self, option: &str) -> Option<&'a Place> {
        self.config
            .entry(self.section, option)
            .map(|entry| &entry.place)
    }

    /// As written, nothing replaced.
    pub(super) fn lookup(&self, name: &str) -> Option<&'a str> {
        if let Some(value) = self.vars.get(name) {
            return value.as_deref();
        }
        self.config
            .entry(self.section, name)
            .map(|entry| entry.value.as_str())
    }

    /// The same for `section/option`, where the name as a whole is not an option.
    fn lookup_elsewhere(&self, name: &str) -> Option<&'a str> {
        let (section, option) = name.split_once('/')?;
        let named = match section {
            "default" => None,
            "known" => self.config.sections.get(&known(self.section)),
            section => Some(
                self.config
                    .sections
                    .iter()
                    .find(|(s, _)| s.to_lowercase() == section)?
                    .1,
            ),
        };
        let named = named.and_then(|options| options.get(option));
        let entry = named.or_else(|| self.config.defaults.get(option));
        entry.map(|entry| entry.value.as_str())
    }

    fn fill(
        &self,
        value: &str,
        depth: usize,
        names: &mut u32,
        out: &mut String,
    ) -> Result<(), Wrong> {
        if depth > MAX_DEPTH {
            return Err(Wrong(format!(
                "names within names more than {MAX_DEPTH} deep, or in a circle"
            )));
        }
        let mut rest = value;
        while let Some((text, behind)) = rest.split_once('%') {
            out.push_str(text);
            if out.len() > VALUE_MAX_BYTES || *names > MAX_NAMES {
                let text = "grows without end when its names are replaced";
                return Err(Wrong(text.to_owned()));
            }
            if let Some(behind) = behind.strip_prefix('%') {
                out.push('%');
                rest = behind;
                continue;
            }
            let name = behind
                .strip_prefix('(')
                .and_then(|b| b.split_once(")s"))
                .filter(|(name, _)| !name.is_empty() && !name.contains(')'));
            let Some((name, behind)) = name else {
                let piece = super::ini::shown(behind.split('\n').next().unwrap_or_default());
                return Err(Wrong(format!(
                    "\"%{piece}\": a % begins a name, `%(name)s`; write %% for a percent sign"
                )));
            };
            rest = behind;
            let name = name.to_lowercase();
            if name == "__name__" {
                out.push_str(self.section);
                continue;
            }
            let Some(value) = self.lookup(&name).or_else(|| self.lookup_elsewhere(&name)) else {
                return Err(Wrong(format!("%({name})s: {}", self.unknown(&name))));
            };
            *names += 1;
            self.fill(value, depth + 1, names, out)?;
        }
        out.push_str(rest);
        Ok(())
    }

    fn unknown(&self, name: &str) -> String {
        let own = self.config.sections.get(self.section);
        let names: Vec<&str> = own
            .iter()
            .flat_map(|s| s.keys())
            .chain(self.config.defaults.keys())
            .map(String::as_str)
            .collect();
        match crate::config::suggest::nearest(name, &names) {
            Some(meant) => format!("nothing has this name; did you mean {meant}?"),
            None => format!(
                "nothing has this name; write `{name} = ...` in this section or in [DEFAULT]"
            ),
        }
    }
}

/// The names in the `%(name)s` of a value.
pub(super) fn names(value: &str) -> impl Iterator<Item = &str> {
    let pieces = value.split("%(").skip(1);
    pieces
        .filter_map(|piece| piece.split_once(")s"))
        .map(|(name, _)| name)
}
