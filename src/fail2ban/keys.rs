//! Keys of a jail that have no effect: fail2ban is silent about them, and the jail does not do what it says.

use std::collections::BTreeSet;

use super::library::Config;
use super::{jail, percent};
use crate::config::suggest::nearest;
use crate::config::{Problem, Severity};

/// Names that stock configurations give to what actions and filters are told, whether something uses them or not.
const HELPERS: &[&str] = &[
    "banaction",
    "banaction_allports",
    "blocktype",
    "chain",
    "dest",
    "destemail",
    "fail2ban_agent",
    "fail2ban_confpath",
    "fail2ban_version",
    "mode",
    "mta",
    "name",
    "port",
    "protocol",
    "returntype",
    "sender",
    "sendername",
    // What fail2ban 1.1 knows.
    "skip_if_nologs",
    "systemd_if_nologs",
];

/// What people write in a jail who mean something else, where it is not a slip of the finger.
const MEANT: &[(&str, &str)] = &[
    ("ports", "port"),
    ("actions", "action"),
    ("filters", "filter"),
    ("log", "logpath"),
    ("logfile", "logpath"),
];

/// Names that have an effect.
#[derive(Debug, Default)]
pub(super) struct Used {
    names: BTreeSet<String>,
    /// Jails that run.
    jails: BTreeSet<String>,
}

impl Used {
    /// Those that stand in a `%(...)s`.
    pub(super) fn of(config: &Config) -> Self {
        let mut used = Self::default();
        let sections = config.sections.values().chain([&config.defaults]);
        for entry in sections.flat_map(|section| section.values()) {
            for name in percent::names(&entry.value) {
                let name = name.to_lowercase();
                let option = name.split_once('/').map(|(_, option)| option.to_owned());
                used.names.extend([name].into_iter().chain(option));
            }
        }
        used
    }

    /// A filter's or an action's own options: a jail of the same key says, at least, what it would like.
    pub(super) fn also(&mut self, config: &Config) {
        let sections = ["Definition", "Init"]
            .into_iter()
            .filter_map(|section| config.sections.get(section));
        self.names.extend(sections.flat_map(|s| s.keys().cloned()));
    }

    /// A jail runs.
    pub(super) fn jail(&mut self, name: &str) {
        self.jails.insert(name.to_owned());
    }

    fn has(&self, key: &str) -> bool {
        let named = jail::options()
            .chain(HELPERS.iter().copied())
            .any(|known| known == key);
        named || key.starts_with("action_") || key.starts_with("known/") || self.names.contains(key)
    }

    /// Tells what has none. A name of one's own that is only not used yet is told where it stands in a jail that runs;
    /// elsewhere, where distributions and administrators keep names for later, only one that looks like a mistake.
    pub(super) fn complain(&self, config: &Config, problems: &mut Vec<Problem>) {
        let known: Vec<&str> = jail::options().chain(HELPERS.iter().copied()).collect();
        let none = super::ini::Options::new();
        let sections = config.order.iter().map(|(name, _)| name.as_str());
        for name in sections
            .chain(["DEFAULT"])
            .filter(|name| *name != "INCLUDES")
        {
            let options = match name {
                "DEFAULT" => &config.defaults,
                name => config.sections.get(name).unwrap_or(&none),
            };
            for (key, entry) in options.iter().filter(|(key, _)| !self.has(key)) {
                let meant = MEANT
                    .iter()
                    .find(|(mistake, _)| mistake == key)
                    .map(|(_, meant)| *meant);
                let text = match meant.or_else(|| nearest(key, &known)) {
                    Some(meant) => format!(
                        "fail2ban knows no such key, so this has no effect; did you mean {meant}?"
                    ),
                    None if self.jails.contains(name) => {
                        "fail2ban knows no such key, and nothing uses it; take it away".to_owned()
                    }
                    None => continue,
                };
                let key = format!("{name}.{key}");
                problems.push(Problem::at(Severity::Warning, &entry.place, &key, text));
            }
        }
        for (name, place) in &config.order {
            let meant = match name.to_lowercase().as_str() {
                "default" | "defaults" => "DEFAULT",
                "include" | "includes" if name != "INCLUDES" => "INCLUDES",
                _ => continue,
            };
            let text = format!("is a jail of that name to fail2ban; did you mean [{meant}]?");
            problems.push(Problem::at(
                Severity::Warning,
                place,
                &format!("[{name}]"),
                text,
            ));
        }
    }
}
