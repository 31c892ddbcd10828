//! Actions, and which of them our own sets replace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::definition::Definition;
use super::library::Config;
use super::percent::Vars;
use super::tags::{self, Tags};
use super::words::{self, Call};
use super::{seconds, tags::Fault};
use crate::config::Problem;

/// What an action file may say that is used as such.
const COMMANDS: &[&str] = &[
    "actionstart",
    "actionstart_on_demand",
    "actionstop",
    "actionflush",
    "actionreload",
    "actioncheck",
    "actionrepair",
    "actionrepair_on_unban",
    "actionban",
    "actionprolong",
    "actionreban",
    "actionunban",
    "norestored",
];

/// Those of them that are true or false.
const SWITCHES: &[&str] = &[
    "actionstart_on_demand",
    "actionrepair_on_unban",
    "norestored",
];

/// Tags that strangers fill: their text is never taken for another tag.
const OF_STRANGERS: &[&str] = &["matches", "ipmatches", "ipjailmatches"];

/// Tags that are left for the moment of the ban.
const LEFT: &[&str] = &[
    "matches",
    "ipmatches",
    "ipjailmatches",
    "timeout",
    "bantime",
];

/// The address family a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Inet4,
    /// IPv6.
    Inet6,
}

impl Family {
    fn condition(self) -> &'static str {
        match self {
            Self::Inet4 => "?family=inet4",
            Self::Inet6 => "?family=inet6",
        }
    }
}

/// One action of a jail.
#[derive(Clone, Debug, Default)]
pub struct Action {
    /// What it is called; different for each action of a jail.
    pub name: String,
    /// The name in action.d, without `.conf`: `iptables-multiport`; with `.py`.
    pub file: String,
    /// `actionban` and so on, as far as written: tags that jail and file give values to are replaced, but those that
    /// depend on the address family, and those known only when there is a ban. Use [`Action::command`].
    pub commands: BTreeMap<String, String>,
    /// All other values, for tags in commands: those of the jail and of `[Init]`, `name?family=inet6` among them. For a
    /// Python file its arguments.
    pub params: BTreeMap<String, String>,
    /// The file of an action that is written in Python.
    pub python: Option<PathBuf>,
    /// It only puts addresses into a packet filter, in a way our own sets do as well: it need not be run.
    pub block: Option<Block>,
}

/// What a packet filter is told about banned addresses.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Block {
    /// As written: names, numbers, ranges `a:b`; `None`: all.
    pub ports: Option<Vec<String>>,
    /// `tcp`, `udp`, ...; `all`.
    pub protocols: Vec<String>,
    /// `INPUT`, `FORWARD`, `DOCKER-USER`, ...
    pub chain: String,
    /// Refuse rather than drop.
    pub reject: bool,
}

impl Action {
    /// An action of a Python file: its arguments only.
    pub(super) fn python(call: Call, file: PathBuf) -> Self {
        let mut params: BTreeMap<_, _> = call.options.into_iter().collect();
        let stem = || {
            call.name
                .strip_suffix(".py")
                .unwrap_or(&call.name)
                .to_owned()
        };
        Self {
            name: params.remove("actname").unwrap_or_else(stem),
            file: call.name,
            params,
            python: Some(file),
            ..Self::default()
        }
    }

    /// An action of a file that was read, as the jail calls it.
    pub(super) fn read(
        config: Rc<Config>,
        call: Call,
        jail: &str,
        options: &Vars,
    ) -> Result<Self, Problem> {
        let mut params: Tags = call.options.iter().cloned().collect();
        let label = params
            .entry("name".to_owned())
            .or_insert_with(|| jail.to_owned())
            .clone();
        let name =
            params
                .entry("actname".to_owned())
                .or_insert_with(|| match label.strip_prefix(jail) {
                    Some(more) => format!("{}{more}", call.name),
                    None => format!("{}-{label}", call.name),
                });
        let name = name.clone();
        let mut definition =
            Definition::new(config, format!("action.d/{}", call.name), COMMANDS, params);
        definition.read(options, false)?;
        let values = definition.combined(LEFT)?;
        let command = |name: &&str| {
            let value = values.get(*name)?;
            let truth = SWITCHES
                .contains(name)
                .then(|| seconds::truth(value) == Some(true));
            let value = truth.map_or_else(|| value.clone(), |truth| truth.to_string());
            Some(((*name).to_owned(), value))
        };
        let mut params = definition.params.clone();
        params.retain(|name, _| !name.starts_with("known/") && !COMMANDS.contains(&name.as_str()));
        Ok(Self {
            block: Firewall::of(&call.name)
                .and_then(|firewall| firewall.block(&definition, &values, &call)),
            name,
            file: call.name,
            commands: COMMANDS.iter().filter_map(command).collect(),
            params,
            python: None,
        })
    }

    /// A command (`actionban`) for a family, every tag replaced whose value is known before there is a ban; `None`: there
    /// is no such command.
    ///
    /// # Errors
    /// The text of what is wrong: a tag that needs itself.
    pub fn command(&self, which: &str, family: Option<Family>) -> Result<Option<String>, String> {
        let condition = family.map_or("", Family::condition);
        let mut all: Tags = self.commands.clone();
        all.extend(self.params.iter().map(|(k, v)| (k.clone(), v.clone())));
        let kept: BTreeSet<String> = OF_STRANGERS.iter().map(|k| (*k).to_owned()).collect();
        match tags::replace(&mut all, &kept, condition, |_| Ok::<_, ()>(None)) {
            Ok(()) | Err(Fault::Elsewhere(())) => {}
            Err(Fault::Value(name, text)) => return Err(format!("{name}: {text}")),
        }
        let conditional = if condition.is_empty() {
            None
        } else {
            all.get(&format!("{which}{condition}"))
        };
        Ok(conditional.or_else(|| all.get(which)).cloned())
    }

    /// A switch (`norestored`) is on.
    #[must_use]
    pub fn is_on(&self, which: &str) -> bool {
        self.commands
            .get(which)
            .is_some_and(|value| value == "true")
    }

    /// Seconds a command may take.
    #[must_use]
    pub fn timeout(&self) -> f64 {
        let given = self
            .params
            .get("timeout")
            .and_then(|text| seconds::seconds(text).ok());
        given.unwrap_or(60.0)
    }

    /// Some value depends on the address family, so the action is started for each family when it is first needed.
    #[must_use]
    pub fn by_family(&self) -> bool {
        let names = self.commands.keys().chain(self.params.keys());
        names.into_iter().any(|name| name.contains("?family="))
    }
}

/// Where the ports that a packet filter's action closes are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Firewall {
    /// `type` says whether `port` counts.
    ByType,
    /// `actiontype` is a rule, with or without ports.
    ByRule,
    /// `port` counts.
    Ports,
    /// Everything of one protocol.
    Protocol,
    /// Everything.
    Everything,
}

impl Firewall {
    /// The actions that fail2ban ships for packet filters of Linux. One of any other name is somebody's own, and is run.
    fn of(file: &str) -> Option<Self> {
        Some(match file {
            "iptables"
            | "iptables-multiport"
            | "iptables-allports"
            | "iptables-new"
            | "iptables-ipset"
            | "iptables-ipset-proto4"
            | "iptables-ipset-proto6"
            | "iptables-ipset-proto6-allports"
            | "nftables"
            | "nftables-multiport"
            | "nftables-allports" => Self::ByType,
            "firewallcmd-ipset" => Self::ByRule,
            "iptables-multiport-log"
            | "firewallcmd-multiport"
            | "firewallcmd-new"
            | "firewallcmd-rich-rules"
            | "firewallcmd-rich-logging" => Self::Ports,
            "firewallcmd-allports" => Self::Protocol,
            "iptables-xt_recent-echo" | "ufw" | "shorewall" | "shorewall-ipset-proto6" => {
                Self::Everything
            }
            _ => return None,
        })
    }

    /// What the action tells its packet filter. `None`: more than our sets do (an administrator's own commands, a list of
    /// who may pass), so it is run.
    fn block(self, definition: &Definition, values: &Tags, call: &Call) -> Option<Block> {
        if is_changed(definition, call) {
            return None;
        }
        let value = |name: &str| match values.get(name) {
            Some(value) => Some(value.clone()),
            None => definition.ask(name).ok().flatten(),
        };
        if value("application").is_some_and(|application| !application.is_empty()) {
            return None;
        }
        let rich = call.name.starts_with("firewallcmd-rich");
        let blocktype = value(if rich { "rich-blocktype" } else { "blocktype" })
            .map(|text| text.to_lowercase());
        let reject = match blocktype {
            Some(how) if how.contains("reject") => true,
            Some(how) if how.contains("drop") => false,
            None => false,
            Some(_) => return None,
        };
        let some_ports = match self {
            Self::ByType => match value("type")?.as_str() {
                "oneport" | "multiport" => true,
                "allports" => false,
                _ => return None,
            },
            Self::ByRule => value("actiontype")?.contains("port"),
            Self::Ports => true,
            Self::Protocol | Self::Everything => false,
        };
        let ports = words::words(&value("port").unwrap_or_default());
        let every =
            |port: &String| ["0:65535", "1:65535", "0-65535", "1-65535"].contains(&port.as_str());
        let protocols = words::words(&value("protocol").unwrap_or_default());
        Some(Block {
            ports: Some(ports).filter(|ports| some_ports && !ports.iter().any(every)),
            protocols: if self == Self::Everything || protocols.is_empty() {
                vec!["all".to_owned()]
            } else {
                protocols
            },
            chain: chain(&call.name, &value),
            reject,
        })
    }
}

/// What of `[Definition]` may be anything: it is looked at, or says only when commands are run.
const UNDERSTOOD: &[&str] = &[
    "type",
    "actiontype",
    "blocktype",
    "rich-blocktype",
    "actionstart_on_demand",
    "actionrepair_on_unban",
];

/// The commands, or what they are made of, are not as fail2ban ships them.
fn is_changed(definition: &Definition, call: &Call) -> bool {
    let sections = &definition.config().sections;
    let made_of = |name: &str| {
        sections
            .get("Definition")
            .is_some_and(|s| s.contains_key(name))
    };
    let mut given = call.options.iter().map(|(name, _)| name.as_str());
    let given = given
        .any(|name| !UNDERSTOOD.contains(&name) && (COMMANDS.contains(&name) || made_of(name)));
    let other = |name: &str| matches!(name, "Init" | "INCLUDES") || name.starts_with("KNOWN/");
    let parts = sections.iter().filter(|(name, _)| !other(name));
    let mut entries = parts.flat_map(|(_, options)| options);
    let written = entries.any(|(name, entry)| {
        !UNDERSTOOD.contains(&name.as_str()) && of_administrator(&entry.place.file)
    });
    given || written
}

/// `.local` files and drop-ins are the administrator's.
fn of_administrator(file: &Path) -> bool {
    let drop_in = file
        .parent()
        .and_then(Path::extension)
        .is_some_and(|e| e == "d");
    let folder = file
        .parent()
        .and_then(Path::file_name)
        .is_some_and(|d| d == "action.d");
    file.extension().is_some_and(|e| e == "local") || (drop_in && !folder)
}

/// The chain as iptables calls it.
fn chain(file: &str, value: &impl Fn(&str) -> Option<String>) -> String {
    let name = if file.starts_with("nftables") {
        "chain_hook"
    } else {
        "chain"
    };
    let chain = value(name).unwrap_or_default();
    let chain = chain.strip_suffix("_direct").unwrap_or(&chain);
    match chain {
        "" => "INPUT".to_owned(),
        "input" | "forward" | "output" => chain.to_uppercase(),
        chain => chain.to_owned(),
    }
}
