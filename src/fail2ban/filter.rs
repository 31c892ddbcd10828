//! A filter, alone or in a jail.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::definition::Definition;
use super::ini::blank;
use super::jail::{Reader, Section, undamaged};
use super::keys;
use super::library::Config;
use super::percent::{Scope, Vars};
use super::tags::Tags;
use super::words::{self, Call};
use super::{FilterRules, UseDns};
use crate::config::{Place, Problem, Severity};

/// What a filter may say that a jail may say as well.
const OF_FILTERS: &[&str] = &[
    "usedns",
    "prefregex",
    "ignoreregex",
    "failregex",
    "maxlines",
    "datepattern",
    "journalmatch",
];

impl Reader {
    pub(super) fn open_filter(
        &mut self,
        section: &Section<'_>,
        filter: &str,
        backend: &str,
    ) -> Result<(Call, Definition), Problem> {
        let call = words::call(filter).map_err(|text| section.error("filter", text))?;
        let name = format!("filter.d/{}", call.name);
        let Some(config) = self.folders.config(&name) else {
            return Err(section.error("filter", self.no_such("filter.d", &call.name)));
        };
        Ok((call.clone(), filter_of(config, name, &call, backend)?))
    }

    /// The filter's values and the jail's together. Where both say something, fail2ban tells its server the filter's
    /// arguments last for the first three of these, and adds both for the others.
    pub(super) fn rules(
        &mut self,
        section: &Section<'_>,
        call: Call,
        filter: &Tags,
        jail: &Vars,
    ) -> Result<FilterRules, Problem> {
        let of_jail = |name: &str| jail.get(name).and_then(Option::as_deref);
        let of_filter = |name: &str| filter.get(name).map(String::as_str);
        let prefregex = of_filter("prefregex").or_else(|| of_jail("prefregex"));
        let usedns = of_filter("usedns").or_else(|| of_jail("usedns"));
        let maxlines = match of_filter("maxlines").or_else(|| of_jail("maxlines")) {
            None => 1,
            Some(text) => self.whole(section, "maxlines", text)?,
        };
        let lines = |name: &str| -> Vec<String> {
            let both = [of_filter(name), of_jail(name)];
            let lines = both.into_iter().flatten().flat_map(|text| text.split('\n'));
            lines
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let datepattern = of_jail("datepattern").or_else(|| of_filter("datepattern"));
        let datepattern = datepattern
            .unwrap_or_default()
            .split('\n')
            .map(|line| line.trim_matches(blank));
        let journalmatch: Result<_, String> = lines("journalmatch")
            .iter()
            .map(|line| words::shell_words(line))
            .collect();
        let rules = FilterRules {
            filter: Some(call.name).filter(|name| !name.is_empty()),
            options: call.options.into_iter().collect(),
            prefregex: prefregex.filter(|text| !text.is_empty()).map(str::to_owned),
            failregex: lines("failregex"),
            ignoreregex: lines("ignoreregex"),
            datepattern: datepattern
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect(),
            maxlines: u32::try_from(maxlines.max(1)).unwrap_or(u32::MAX),
            journalmatch: journalmatch.map_err(|text| section.error("journalmatch", text))?,
            usedns: match usedns.unwrap_or("warn").to_lowercase().as_str() {
                "yes" => UseDns::Yes,
                "warn" => UseDns::Warn,
                "no" => UseDns::No,
                "raw" => UseDns::Raw,
                other => {
                    let text = format!("\"{other}\" is taken as warn; write yes, warn, no or raw");
                    self.problems
                        .push(section.problem(Severity::Warning, "usedns", text));
                    UseDns::Warn
                }
            },
        };
        if rules.failregex.is_empty() {
            let text = "there is no failregex, so nothing is ever found; write one, or a filter"
                .to_owned();
            self.problems
                .push(section.problem(Severity::Warning, "failregex", text));
        }
        Ok(rules)
    }

    /// See [`super::read_filter`].
    pub(super) fn filter(mut self, spec: &str, backend: &str) -> Result<FilterRules, Problem> {
        let wrong = |text: String| Problem {
            key: spec.to_owned(),
            ..Problem::of_file(Severity::Error, "filter.d".as_ref(), text)
        };
        let call = words::call(spec).map_err(wrong)?;
        let path = Path::new(&call.name);
        let in_filter_d = path
            .parent()
            .and_then(Path::file_name)
            .is_some_and(|d| d == "filter.d");
        let config = if in_filter_d && path.is_file() {
            // Like one of a folder's, with its .local.
            self.folders.config(
                &std::path::absolute(path.with_extension(""))
                    .unwrap_or_default()
                    .to_string_lossy(),
            )
        } else if path.components().count() > 1 || path.is_file() {
            self.folders.config_of_file(path)
        } else {
            let bare = call
                .name
                .strip_suffix(".conf")
                .or_else(|| call.name.strip_suffix(".local"));
            self.folders
                .config(&format!("filter.d/{}", bare.unwrap_or(&call.name)))
        };
        let nothing = Vars::new();
        let Some(config) = config else {
            return self
                .filter_of_jail(&call.name)
                .unwrap_or_else(|| Err(wrong(self.no_such("filter.d", &call.name))));
        };
        let nowhere = Place {
            file: Arc::from(path),
            line: 0,
        };
        let written = config
            .order
            .first()
            .map_or(nowhere, |(_, place)| place.clone());
        let mut definition = filter_of(
            Rc::clone(&config),
            format!("filter.d/{}", call.name),
            &call,
            backend,
        )?;
        definition.read(&nothing, false)?;
        let values = definition.combined(&[])?;
        let section = Section {
            scope: Scope::new(&config, "Definition", &nothing),
            name: "Definition",
            written: &written,
        };
        self.rules(&section, call, &values, &nothing)
    }

    pub(super) fn filter_of_jail(&mut self, name: &str) -> Option<Result<FilterRules, Problem>> {
        let config = self.jails()?;
        let (_, place) = config.order.iter().find(|(section, _)| section == name)?;
        let jail = self.jail(&config, name, place, true, &mut keys::Used::default());
        Some(jail.map(|jail| jail.map(|jail| jail.rules).unwrap_or_default()))
    }
}

/// A filter's file with what a jail gives it, and with the kind of log, unless the filter or the jail says which.
fn filter_of(
    config: Rc<Config>,
    name: String,
    call: &Call,
    backend: &str,
) -> Result<Definition, Problem> {
    undamaged(&config)?;
    let mut params: Tags = call.options.iter().cloned().collect();
    let said = config
        .sections
        .get("Definition")
        .is_some_and(|s| s.contains_key("logtype"));
    if !said && params.get("logtype").is_none_or(String::is_empty) {
        let logtype = if backend.starts_with("systemd") {
            "journal"
        } else {
            "file"
        };
        params.insert("logtype".to_owned(), logtype.to_owned());
    }
    Ok(Definition::new(config, name, OF_FILTERS, params))
}
