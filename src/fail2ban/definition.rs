//! A file of filter.d or action.d, with the parameters that a jail gives it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use super::library::{Config, conditional, known};
use super::percent::{Scope, Vars};
use super::tags::{self, Tags};
use crate::config::{Place, Problem, Severity};

/// A filter or an action on the way from its file to what is used of it.
#[derive(Debug)]
pub(super) struct Definition {
    config: Rc<Config>,
    /// What it is called in messages: `filter.d/sshd`.
    name: String,
    /// Which options of `[Definition]` are used as such.
    used: &'static [&'static str],
    /// What the jail gives, then also what `[Init]` gives where the jail gives nothing; and `known/x` of `[Init]`.
    pub(super) params: Tags,
    own: Tags,
    vars: Vars,
    /// Names that were asked of `[Definition]` from within a tag. They keep the value they had then, as in fail2ban.
    asked: RefCell<BTreeMap<String, Option<String>>>,
}

impl Definition {
    pub(super) fn new(
        config: Rc<Config>,
        name: String,
        used: &'static [&'static str],
        params: Tags,
    ) -> Self {
        Self {
            config,
            name,
            used,
            params,
            own: Tags::new(),
            vars: Vars::new(),
            asked: RefCell::default(),
        }
    }

    /// Reads the options. `jail`: the jail's own, which beat those of `[Definition]`. `all`: not only the used ones.
    ///
    /// # Errors
    /// A name in `%(...)s` that nobody gives.
    pub(super) fn read(&mut self, jail: &Vars, all: bool) -> Result<(), Problem> {
        let given = self
            .params
            .iter()
            .map(|(k, v)| (k.to_lowercase(), Some(v.clone())));
        self.vars = jail.clone();
        self.vars.extend(given);
        self.own.clear();
        let config = Rc::clone(&self.config);
        let definition = Scope::new(&config, "Definition", &self.vars);
        let there = config.sections.get("Definition");
        if there.is_some() {
            for name in self.used {
                if jail.contains_key(*name) || self.params.contains_key(*name) {
                    continue;
                }
                if let Some(value) = definition.get(name)? {
                    self.own.insert((*name).to_owned(), value);
                }
            }
        }
        let nothing = Vars::new();
        let init = Scope::new(&config, "Init", &nothing);
        for name in config
            .sections
            .get("Init")
            .into_iter()
            .flat_map(|s| s.keys())
        {
            let value = init.get(name)?.unwrap_or_default();
            self.params.insert(format!("known/{name}"), value.clone());
            self.params.entry(name.clone()).or_insert(value);
        }
        if all {
            let plain = Scope::new(&config, "Definition", &nothing);
            for name in there.into_iter().flat_map(|s| s.keys()) {
                if !self.own.contains_key(name) {
                    let value = plain.get(name)?.unwrap_or_default();
                    self.own.insert(name.clone(), value);
                }
            }
        }
        Ok(())
    }

    /// Options and parameters with every tag replaced that is known now. Neither the tags in `kept` are, nor those that
    /// depend on the address family.
    ///
    /// # Errors
    /// A tag that needs itself.
    pub(super) fn combined(&self, kept: &[&str]) -> Result<Tags, Problem> {
        let mut all = self.own.clone();
        all.extend(self.params.iter().map(|(k, v)| (k.clone(), v.clone())));
        let mut kept: BTreeSet<String> = kept.iter().map(|k| (*k).to_owned()).collect();
        kept.extend(
            all.keys()
                .filter_map(|name| conditional(name))
                .map(|(name, _)| name.to_owned()),
        );
        match tags::replace(&mut all, &kept, "", |name| self.ask(name)) {
            Ok(()) => Ok(all),
            Err(tags::Fault::Elsewhere(problem)) => Err(problem),
            Err(tags::Fault::Value(option, text)) => Err(self.problem(&option, text)),
        }
    }

    /// An option of `[Definition]`, tags and all; `None`: there is none.
    pub(super) fn ask(&self, name: &str) -> Result<Option<String>, Problem> {
        if let Some(known) = self.asked.borrow().get(name) {
            return Ok(known.clone());
        }
        let value = self.ask_config(name)?;
        self.asked
            .borrow_mut()
            .insert(name.to_owned(), value.clone());
        Ok(value)
    }

    fn ask_config(&self, name: &str) -> Result<Option<String>, Problem> {
        if !self.config.sections.contains_key("Definition") {
            return Ok(None);
        }
        let nothing = Vars::new();
        if let Some((section, option)) = name.split_once('/') {
            let option = option.to_lowercase();
            let section = match section.to_lowercase().as_str() {
                "known" => known("Definition"),
                "default" => "DEFAULT".to_owned(),
                _ => section.to_owned(),
            };
            let there = section == "DEFAULT" || self.config.sections.contains_key(&section);
            let mut value = None;
            if there {
                value = Scope::new(&self.config, &section, &nothing).get(&option)?;
            }
            if value.is_none() && section == known("Definition") {
                value = Scope::new(&self.config, "Definition", &nothing).get(&option)?;
            }
            if value.is_some() {
                return Ok(value);
            }
        }
        Scope::new(&self.config, "Definition", &self.vars).get(&name.to_lowercase())
    }

    /// The file itself.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Where an option is written; a parameter is written in the jail.
    pub(super) fn place(&self, option: &str) -> Option<&Place> {
        let sections = ["Definition", "Init"];
        sections
            .iter()
            .find_map(|section| self.config.sections.get(*section)?.get(option))
            .map(|entry| &entry.place)
    }

    /// Something is wrong with an option.
    pub(super) fn problem(&self, option: &str, text: String) -> Problem {
        let key = format!("{}.{option}", self.name);
        match self
            .place(option)
            .or_else(|| self.config.order.first().map(|(_, place)| place))
        {
            Some(place) => Problem::at(Severity::Error, place, &key, text),
            None => Problem {
                key,
                ..Problem::of_file(Severity::Error, Path::new(&self.name), text)
            },
        }
    }
}
