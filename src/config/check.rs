//! The tree of entries to a `Config`; every mistake is told, and costs the jail it stands in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::decide::BanFor;

use super::place::Who;
use super::problem::{Place, Problems, Wrong};
use super::suggest::nearest;
use super::text::{Node, Table, Value, join};
use super::{
    Backend, Blocktype, Conditions, Config, Distinct, Field, Firewall, Import, Jail, Mode, Ports,
    Privileges, Rule, Weight, name_byte, names_sets, sets_of,
};
use super::{FAIL2BAN_SOCKET, place, raw, value};

/// `[firewall] set_prefix`: with the longest name of a jail (20) and the longest ending (`-n6`) the kernel's 31 bytes.
const SET_PREFIX_MAX: usize = 8;

/// Jails are numbered with 16 bits.
const JAILS_MAX: usize = u16::MAX as usize;

const SECTIONS: &[&str] = &[
    "defaults",
    "firewall",
    "proxies",
    "jail",
    "fail2ban",
    "control",
    "privileges",
];

/// Keys of `[defaults]`, each of which may stand in a jail.
const SETTINGS: &[&str] = &[
    "maxretry",
    "findtime",
    "bantime",
    "ignoreip",
    "ignoreself",
    "port",
    "protocol",
    "ipv6_prefix",
    "mode",
    "rare",
    "enabled",
];

/// Keys of a jail beside [`SETTINGS`] and [`CONDITIONS`].
const RULE: &[&str] = &["any", "not", "weight", "distinct", "count", "blocktype"];

/// Keys of a jail, of its `any` and of its `not`.
const CONDITIONS: &[&str] = &[
    "status", "bytes", "duration", "static", "method", "path", "query", "request", "agent",
    "referer", "user", "vhost", "message",
];

/// Keys of `[fail2ban]`.
const FAIL2BAN: &[&str] = &["config", "socket", "logfile"];

/// Keys of `[control]`.
const CONTROL: &[&str] = &["group"];

/// Everything that is not said anywhere; the shipped `[defaults]` say all of it.
fn bare_jail(name: &str) -> Jail {
    Jail {
        name: name.to_owned(),
        sets: sets_of(name),
        small_sets: false,
        written: super::SHIPPED_NAME.to_owned(),
        rule: Rule::default(),
        blind: false,
        mode: Mode::Ban,
        idle: false,
        rare: false,
        maxretry: 5,
        findtime: Duration::from_secs(600),
        bantime: BanFor::timed(Duration::from_secs(600)).unwrap_or(BanFor::Forever),
        ignoreip: Vec::new(),
        ignoreip_names: Vec::new(),
        ignoreself: true,
        ports: Ports::All,
        protocols: Vec::new(),
        blocktype: Blocktype::Drop,
        ipv6_prefix: 64,
        raw: None,
    }
}

/// Checks a whole tree. Jails of which a key stands in `doubtful` are left out: that part of them could not be read.
///
/// `shipped` is the lowest layer of `tree`; `dir` is the folder of the configuration: filters of its `filter.d` are ours.
pub(super) fn check(
    tree: &Table,
    shipped: &Table,
    doubtful: &[String],
    dir: &Path,
    import: Import<'_>,
    problems: &mut Problems,
) -> Config {
    let mut check = Check {
        problems,
        folders: vec![dir.to_path_buf()],
        doubtful,
    };
    let mut config = Config {
        path: None,
        fail2ban: None,
        fail2ban_files: Vec::new(),
        fail2ban_log: None,
        fail2ban_socket: None,
        broken: Vec::new(),
        control_group: None,
        switched_off: Vec::new(),
        log_level: log::LevelFilter::Info,
        privileges: Privileges {
            capabilities: true,
            no_new_privs: true,
            landlock: true,
            seccomp: true,
            read: Vec::new(),
            write: Vec::new(),
        },
        firewall: Firewall {
            backend: Backend::Auto,
            set_prefix: "f2bp-".to_owned(),
            blocktype: Blocktype::Drop,
            kill_connections: true,
        },
        proxies: Vec::new(),
        manual: bare_jail("manual"),
        jails: Vec::new(),
    };
    let mut enabled = true;
    if let Some(defaults) = check.section(tree, "defaults") {
        for (key, node) in &defaults.0 {
            let path = join("defaults", key);
            if !check.setting(&mut config.manual, &mut enabled, key, node, &path) {
                check.unknown(key, node, "defaults", SETTINGS);
            }
        }
    }
    for (key, node) in &tree.0 {
        match key.as_str() {
            "defaults" => {}
            "firewall" => check.firewall(&mut config.firewall, node),
            "proxies" => config.proxies = check.proxies(node),
            "jail" => {}
            "fail2ban" => check.fail2ban(&mut config, node),
            "control" => check.control(&mut config, node),
            "privileges" => check.privileges(&mut config.privileges, node),
            _ => check.unknown_section(key, node),
        }
    }
    if let Import::From(dir) = import {
        config.fail2ban = Some(dir.to_path_buf());
    }
    config.manual.blocktype = config.firewall.blocktype;
    check.folders.extend(config.fail2ban.clone());
    let jails = check.section(tree, "jail");
    for (name, node) in jails.iter().flat_map(|jails| &jails.0) {
        let path = join("jail", name);
        let before = check.problems.errors();
        let jail = check.jail(name, node, &config.manual, enabled);
        let inside = format!("{path}.");
        let unread = |key: &String| *key == path || key.starts_with(&inside);
        if doubtful.iter().any(unread) || check.problems.errors() > before {
            continue;
        }
        let others = || config.jails.iter().chain([&config.manual]);
        let taken = jail
            .as_ref()
            .and_then(|jail| others().find(|other| jail.shares_sets(other)));
        if let Some(other) = taken {
            let text = format!(
                "its sets would have the names of those of jail {}; write another name",
                other.name
            );
            check.problems.error(&node.place, &path, text);
            continue;
        }
        config.jails.extend(jail);
    }
    if let (Some(dir), Import::Named | Import::From(_)) = (config.fail2ban.clone(), import) {
        let as_shipped = as_shipped(tree, shipped);
        raw::import(&mut config, &dir, &as_shipped, check.problems);
    }
    // Those that judge httpd's lines come first, so that they have the same numbers whatever is imported.
    config.jails.sort_by_key(|jail| jail.raw.is_some());
    config.jails.truncate(JAILS_MAX);
    // What stands under [defaults] for the jails is not for bans by hand: these are always meant.
    config.manual.mode = Mode::Ban;
    config
}

/// Jails that say what the shipped file says of them, as in a copy of it nobody has changed.
fn as_shipped<'t>(tree: &'t Table, shipped: &Table) -> Vec<&'t str> {
    let (Some(Value::Table(jails)), Some(Value::Table(theirs))) = (
        tree.get("jail").map(|node| &node.value),
        shipped.get("jail").map(|node| &node.value),
    ) else {
        return Vec::new();
    };
    jails
        .0
        .iter()
        .filter(|(name, node)| theirs.get(name) == Some(node))
        .map(|(name, _)| name.as_str())
        .collect()
}

pub(super) struct Check<'a> {
    pub(super) problems: &'a mut Problems,
    /// Where filters are looked for, ours first.
    pub(super) folders: Vec<PathBuf>,
    /// Keys that could not be read, as `jail.x.failregex`.
    pub(super) doubtful: &'a [String],
}

impl Check<'_> {
    /// A value, or its problem told.
    pub(super) fn told<T>(
        &mut self,
        place: &Place,
        path: &str,
        read: Result<T, Wrong>,
    ) -> Option<T> {
        read.map_err(|wrong| self.problems.error(place, path, wrong))
            .ok()
    }

    pub(super) fn set<T>(
        &mut self,
        slot: &mut T,
        node: &Node,
        path: &str,
        read: impl Fn(&Value) -> Result<T, Wrong>,
    ) {
        if let Some(value) = self.told(&node.place, path, read(&node.value)) {
            *slot = value;
        }
    }

    fn section<'t>(&mut self, tree: &'t Table, name: &str) -> Option<&'t Table> {
        let node = tree.get(name)?;
        self.table(node, name)
    }

    fn table<'t>(&mut self, node: &'t Node, path: &str) -> Option<&'t Table> {
        if let Value::Table(table) = &node.value {
            return Some(table);
        }
        let wrong = format!(
            "{} cannot stand here; write [{path}] on a line of its own, its keys below",
            node.value.shown()
        );
        self.problems.error(&node.place, path, wrong);
        None
    }

    /// The entries of a list that must not be empty.
    fn list<'t>(&mut self, node: &'t Node, path: &str) -> Vec<&'t Node> {
        let entries = node.entries();
        if entries.is_empty() {
            self.problems.error(
                &node.place,
                path,
                "an empty list, which nothing fits; leave the key out, or write what fits"
                    .to_owned(),
            );
        }
        entries
    }

    fn each<T>(
        &mut self,
        node: &Node,
        path: &str,
        read: impl Fn(&Value) -> Result<T, Wrong>,
    ) -> Vec<T> {
        let entries = self.list(node, path);
        entries
            .into_iter()
            .filter_map(|entry| self.told(&entry.place, path, read(&entry.value)))
            .collect()
    }

    /// Networks and host names. An empty list is meant: nobody.
    fn networks(&mut self, node: &Node, path: &str) -> (Vec<IpNet>, Vec<String>) {
        let (mut nets, mut names) = (Vec::new(), Vec::new());
        for entry in node.entries() {
            let Some(text) = self.told(&entry.place, path, value::text(&entry.value)) else {
                continue;
            };
            // fail2ban's form, several in one text, means the same.
            for word in text.split([' ', ',', '\t']).filter(|word| !word.is_empty()) {
                match self.told(&entry.place, path, place::who(word)) {
                    Some(Who::Net(net)) => nets.push(net),
                    Some(Who::Masked(net)) => {
                        self.problems.warn(
                            &entry.place,
                            path,
                            format!("\"{word}\" is taken as {net}; write that"),
                        );
                        nets.push(net);
                    }
                    Some(Who::Name(name)) => names.push(name),
                    None => {}
                }
            }
        }
        (nets, names)
    }

    fn proxies(&mut self, node: &Node) -> Vec<IpNet> {
        let (nets, names) = self.networks(node, "proxies");
        for name in names {
            let wrong = format!("\"{name}\" is a name; write the proxy's address or network");
            self.problems.error(&node.place, "proxies", wrong);
        }
        nets
    }

    /// A whole path; `None`: "", or a mistake.
    fn path_or_none(&mut self, node: &Node, key: &str, such_as: &str) -> Option<PathBuf> {
        let text = self.told(&node.place, key, value::text(&node.value));
        let path = PathBuf::from(text.filter(|text| !text.is_empty())?);
        if !path.is_absolute() {
            let wrong = format!("is no whole path; write \"{such_as}\", or \"\" for none");
            self.problems.error(&node.place, key, wrong);
            return None;
        }
        Some(path)
    }

    /// `[control]`: who may ask and change while the program runs.
    fn control(&mut self, config: &mut Config, node: &Node) {
        let Some(table) = self.table(node, "control") else {
            return;
        };
        for (key, node) in &table.0 {
            let path = join("control", key);
            match key.as_str() {
                "group" => {
                    let text = self.told(&node.place, &path, value::text(&node.value));
                    config.control_group = text.filter(|text| !text.is_empty()).map(str::to_owned);
                }
                _ => self.unknown(key, node, "control", CONTROL),
            }
        }
    }

    /// `[fail2ban]`: the folder whose jails run, too, and what programs see that know fail2ban.
    fn fail2ban(&mut self, config: &mut Config, node: &Node) {
        let Some(table) = self.table(node, "fail2ban") else {
            return;
        };
        for (key, node) in &table.0 {
            let path = join("fail2ban", key);
            match key.as_str() {
                "config" => {
                    let text = self.told(&node.place, &path, value::text(&node.value));
                    config.fail2ban = text.filter(|text| !text.is_empty()).map(PathBuf::from);
                }
                "logfile" => {
                    config.fail2ban_log = self.path_or_none(node, &path, "/var/log/fail2ban.log");
                }
                "socket" => {
                    config.fail2ban_socket = self.path_or_none(node, &path, FAIL2BAN_SOCKET)
                }
                _ => self.unknown(key, node, "fail2ban", FAIL2BAN),
            }
        }
    }

    fn privileges(&mut self, privileges: &mut Privileges, node: &Node) {
        const KEYS: &[&str] = &[
            "capabilities",
            "no_new_privs",
            "landlock",
            "seccomp",
            "read",
            "write",
        ];
        let Some(table) = self.table(node, "privileges") else {
            return;
        };
        for (key, node) in &table.0 {
            let path = join("privileges", key);
            let step = match key.as_str() {
                "capabilities" => &mut privileges.capabilities,
                "no_new_privs" => &mut privileges.no_new_privs,
                "landlock" => &mut privileges.landlock,
                "seccomp" => &mut privileges.seccomp,
                "read" => {
                    privileges.read = self.folders(node, &path);
                    continue;
                }
                "write" => {
                    privileges.write = self.folders(node, &path);
                    continue;
                }
                _ => {
                    self.unknown(key, node, "privileges", KEYS);
                    continue;
                }
            };
            self.set(step, node, &path, value::boolean);
        }
        if !privileges.no_new_privs && (privileges.landlock || privileges.seccomp) {
            let wrong = "landlock and seccomp need it; write false for both of them, too";
            let place = table.get("no_new_privs").unwrap_or(node).place.clone();
            self.problems
                .error(&place, "privileges.no_new_privs", wrong.to_owned());
            privileges.no_new_privs = true;
        }
    }

    /// Whole paths. An empty list is meant: none.
    fn folders(&mut self, node: &Node, path: &str) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for entry in node.entries() {
            let text = self.told(&entry.place, path, value::text(&entry.value));
            let Some(folder) = text.map(PathBuf::from) else {
                continue;
            };
            if folder.is_absolute() {
                folders.push(folder);
            } else {
                let wrong = "is no whole path; write \"/srv/logs\"";
                self.problems.error(&entry.place, path, wrong.to_owned());
            }
        }
        folders
    }

    fn firewall(&mut self, firewall: &mut Firewall, node: &Node) {
        let Some(table) = self.table(node, "firewall") else {
            return;
        };
        for (key, node) in &table.0 {
            let path = join("firewall", key);
            match key.as_str() {
                "backend" => self.set(&mut firewall.backend, node, &path, |v| {
                    let words = [
                        ("auto", Backend::Auto),
                        ("ipset", Backend::Ipset),
                        ("nftables", Backend::Nftables),
                        ("dry-run", Backend::DryRun),
                    ];
                    value::word(v, &words)
                }),
                "set_prefix" => self.set(&mut firewall.set_prefix, node, &path, set_prefix),
                "blocktype" => self.set(&mut firewall.blocktype, node, &path, blocktype),
                "kill_connections" => {
                    self.set(&mut firewall.kill_connections, node, &path, value::boolean)
                }
                _ => self.unknown(
                    key,
                    node,
                    "firewall",
                    &["backend", "set_prefix", "blocktype", "kill_connections"],
                ),
            }
        }
    }

    /// One of [`SETTINGS`]; false: it is none of them.
    fn setting(
        &mut self,
        jail: &mut Jail,
        enabled: &mut bool,
        key: &str,
        node: &Node,
        path: &str,
    ) -> bool {
        match key {
            "maxretry" => self.set(&mut jail.maxretry, node, path, |v| {
                value::number(v, 1, 100_000)
            }),
            "findtime" => self.set(&mut jail.findtime, node, path, value::findtime),
            "bantime" => self.set(&mut jail.bantime, node, path, value::bantime),
            "ignoreip" => (jail.ignoreip, jail.ignoreip_names) = self.networks(node, path),
            "ignoreself" => self.set(&mut jail.ignoreself, node, path, value::boolean),
            "port" => {
                let entries = node.entries();
                let values: Vec<&Value> = entries.iter().map(|entry| &entry.value).collect();
                let ports = place::ports(&values);
                if let Some(ports) = self.told(&node.place, path, ports) {
                    jail.ports = ports;
                }
            }
            "protocol" => {
                let entries = node.entries();
                let values: Vec<&Value> = entries.iter().map(|entry| &entry.value).collect();
                let protocols = place::protocols(&values);
                if let Some(protocols) = self.told(&node.place, path, protocols) {
                    jail.protocols = protocols;
                }
            }
            "ipv6_prefix" => {
                let prefix = value::number(&node.value, 32, 128);
                let prefix = self.told(&node.place, path, prefix);
                jail.ipv6_prefix = prefix
                    .and_then(|n| u8::try_from(n).ok())
                    .unwrap_or(jail.ipv6_prefix);
            }
            "mode" => {
                let mode = value::word(
                    &node.value,
                    &[("ban", Mode::Ban), ("observe", Mode::Observe)],
                );
                // Who writes a mode at all means "observe": misspelt under [defaults], that is taken.
                jail.mode = self.told(&node.place, path, mode).unwrap_or(Mode::Observe);
            }
            "rare" => self.set(&mut jail.rare, node, path, value::boolean),
            "enabled" => self.set(enabled, node, path, value::boolean),
            _ => return false,
        }
        true
    }

    /// One `[jail.NAME]`; `None`: it does not run.
    fn jail(
        &mut self,
        name: &str,
        node: &Node,
        defaults: &Jail,
        mut enabled: bool,
    ) -> Option<Jail> {
        let section = join("jail", name);
        let table = self.table(node, &section)?;
        if let Err(wrong) = jail_name(name) {
            self.problems.error(&node.place, &section, wrong);
            return None;
        }
        let mut jail = Jail {
            name: name.to_owned(),
            sets: sets_of(name),
            written: written(&node.place),
            ..defaults.clone()
        };
        let mut raw = raw::Keys::default();
        for (key, node) in &table.0 {
            let path = join(&section, key);
            if self.raw_key(&mut raw, key, node, &path)
                || self.setting(&mut jail, &mut enabled, key, node, &path)
                || self.condition(&mut jail.rule.all, key, node, &path)
            {
                continue;
            }
            match key.as_str() {
                "any" => jail.rule.any = self.conditions(node, &path),
                "not" => jail.rule.not = self.conditions(node, &path),
                "weight" => self.set(&mut jail.rule.weight, node, &path, |v| {
                    value::number(v, 1, 1000).map(Weight)
                }),
                "distinct" => self.set(&mut jail.rule.distinct, node, &path, |v| {
                    distinct(v).map(Some)
                }),
                "count" => {
                    let words = [("window", true), ("fail2ban", false)];
                    let window = self.told(&node.place, &path, value::word(&node.value, &words));
                    raw.window = window.map(|window| (window, node.place.clone()));
                }
                "blocktype" => self.set(&mut jail.blocktype, node, &path, blocktype),
                _ => {
                    let known: Vec<&str> = [SETTINGS, RULE, CONDITIONS, raw::KEYS].concat();
                    self.unknown(key, node, &section, &known);
                }
            }
        }
        if !enabled {
            return None;
        }
        if let (Some(Distinct::Any), None, Some(node)) =
            (jail.rule.distinct, table.get("any"), table.get("distinct"))
        {
            let text = "\"any\" tells apart what `any` finds, and there is none; write any = { ... }, or \"path\"";
            self.problems
                .error(&node.place, &join(&section, "distinct"), text.to_owned());
        }
        self.raw(&mut jail, raw, &section, &node.place)
            .then_some(jail)
    }

    /// The table of `any` or `not`.
    fn conditions(&mut self, node: &Node, path: &str) -> Conditions {
        let mut conditions = Conditions::default();
        let Value::Table(table) = &node.value else {
            let wrong = format!(
                "{} is no table of conditions; write {{ path = ['^/feed'] }}",
                node.value.shown()
            );
            self.problems.error(&node.place, path, wrong);
            return conditions;
        };
        if table.0.is_empty() {
            let wrong = "an empty table, which nothing fits; leave the key out, or write { path = ['^/feed'] }";
            self.problems.error(&node.place, path, wrong.to_owned());
        }
        for (key, node) in &table.0 {
            if !self.condition(&mut conditions, key, node, &join(path, key)) {
                self.unknown(key, node, path, CONDITIONS);
            }
        }
        conditions
    }

    /// One of [`CONDITIONS`]; false: it is none of them.
    fn condition(
        &mut self,
        conditions: &mut Conditions,
        key: &str,
        node: &Node,
        path: &str,
    ) -> bool {
        match key {
            "status" => conditions.status = self.each(node, path, value::status),
            "bytes" => conditions.bytes = self.each(node, path, value::bytes),
            "duration" => conditions.duration = self.each(node, path, value::request_time),
            "static" => self.set(&mut conditions.is_static, node, path, |v| {
                value::boolean(v).map(Some)
            }),
            _ => {
                let Some((_, field)) = value::FIELDS.iter().find(|(name, _)| *name == key) else {
                    return false;
                };
                conditions
                    .text
                    .push((*field, self.each(node, path, value::regex)));
            }
        }
        true
    }

    fn unknown(&mut self, key: &str, node: &Node, section: &str, known: &[&str]) {
        let advice = if let Some(meant) = nearest(key, known) {
            format!("write {meant}")
        } else if matches!(
            key,
            "action" | "banaction" | "chain" | "blocktype" | "backend"
        ) {
            "[firewall] says how bans are put".to_owned()
        } else {
            format!("known are {}", known.join(", "))
        };
        self.problems.error(
            &node.place,
            &join(section, key),
            format!("no such key; {advice}"),
        );
    }

    /// A key or table that stands at the top.
    fn unknown_section(&mut self, key: &str, node: &Node) {
        let table = matches!(node.value, Value::Table(_));
        let (what, advice) = match nearest(key, SECTIONS) {
            Some("proxies") => ("key", "write proxies".to_owned()),
            Some(meant) if table => ("section", format!("write [{meant}]")),
            _ if table => ("section", format!("a jail is written [jail.{key}]")),
            _ => match nearest(key, SETTINGS) {
                Some(meant) => ("key", format!("write {meant} under [defaults]")),
                None => ("key", format!("at the top stand {}", SECTIONS.join(", "))),
            },
        };
        self.problems
            .error(&node.place, key, format!("no such {what} here; {advice}"));
    }
}

/// For people: where a jail stands. A line of a file that is inside the program would lead nowhere.
fn written(place: &Place) -> String {
    if *place.file == *std::path::Path::new(super::SHIPPED_NAME) {
        return super::SHIPPED_NAME.to_owned();
    }
    place.to_string()
}

fn jail_name(name: &str) -> Result<(), Wrong> {
    let form = "write 1 to 20 of A-Z a-z 0-9 _ . -, a letter or digit first";
    if name == "manual" {
        return Err("the name of bans by hand; write another".to_owned().into());
    }
    if name.len() > super::SETS_MAX_BYTES {
        return Err(format!(
            "a name of {} bytes, the kernel's sets are named after it; {form}",
            name.len()
        )
        .into());
    }
    if !names_sets(name) {
        return Err(format!("not a name the kernel's sets can have; {form}").into());
    }
    Ok(())
}

fn blocktype(value: &Value) -> Result<Blocktype, Wrong> {
    value::word(
        value,
        &[("drop", Blocktype::Drop), ("reject", Blocktype::Reject)],
    )
}

fn set_prefix(value: &Value) -> Result<String, Wrong> {
    let text = value::text(value)?;
    if text.starts_with("f2b-") {
        return Err(
            "fail2ban destroys sets of these names when it stops; write \"f2bp-\""
                .to_owned()
                .into(),
        );
    }
    let fits = (1..=SET_PREFIX_MAX).contains(&text.len()) && text.bytes().all(name_byte);
    if !fits || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(format!("\"{text}\" cannot begin the name of a set; write 1 to {SET_PREFIX_MAX} of A-Z a-z 0-9 _ . -, a letter or digit first").into());
    }
    Ok(text.to_owned())
}

fn distinct(value: &Value) -> Result<Distinct, Wrong> {
    let mut words = vec![("any", Distinct::Any)];
    let field = |(name, field): &(&'static str, Field)| (*name, Distinct::Field(*field));
    words.extend(value::FIELDS.iter().map(field));
    value::word(value, &words)
}
