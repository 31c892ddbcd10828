//! The rules that look into the sets: one chain, jumped to before anything else.
//!
//! The chain is written as a whole by one iptables-restore, so that there is no moment with half of it, and looked at by
//! one `iptables -S`. Presence is not enough: a rule that accepts established connections, inserted above ours by
//! somebody else, lets the banned go on.

use std::fmt::Write as _;

use super::tool::{self, ToolError};
use super::{Kind, SetRef, jails};
use crate::config::{Blocktype, Config, Ports};

/// Its name, if the sets have their shipped prefix. Another prefix is another f2b-pipe, which has a chain of its own.
const NAME: &str = "f2b-pipe";
/// The prefix that goes with it.
const SHIPPED_PREFIX: &str = "f2bp-";
/// Longest name of a chain, bytes: XT_EXTENSION_MAXNAMELEN less NUL, and what iptables leaves of it.
const NAME_MAX_BYTES: usize = 28;

/// IPv4 or IPv6: each has its own iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// iptables.
    Inet,
    /// ip6tables.
    Inet6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Inet, Self::Inet6];

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inet => "IPv4",
            Self::Inet6 => "IPv6",
        }
    }

    /// The name of its program.
    #[must_use]
    pub fn tool(self) -> &'static str {
        match self {
            Self::Inet => "iptables",
            Self::Inet6 => "ip6tables",
        }
    }

    fn restore(self) -> &'static str {
        match self {
            Self::Inet => "iptables-restore",
            Self::Inet6 => "ip6tables-restore",
        }
    }

    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Ip4 | Kind::Net4 => Self::Inet,
            Kind::Ip6 | Kind::Net6 => Self::Inet6,
        }
    }
}

/// Where the chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// `raw`.
    pub table: &'static str,
    /// `PREROUTING`.
    pub hook: &'static str,
}

impl Place {
    /// Before conntrack, DNAT, docker, ufw and firewalld.
    const DROP: Self = Self {
        table: "raw",
        hook: "PREROUTING",
    };
    /// Where REJECT is allowed.
    const REJECT: Self = Self {
        table: "filter",
        hook: "INPUT",
    };

    /// Where it belongs.
    #[must_use]
    pub fn of(blocktype: Blocktype) -> Self {
        match blocktype {
            Blocktype::Drop => Self::DROP,
            Blocktype::Reject => Self::REJECT,
        }
    }

    /// Where it may be left over from another configuration.
    fn other(self) -> Self {
        if self == Self::DROP {
            Self::REJECT
        } else {
            Self::DROP
        }
    }
}

/// The chain as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub chain: String,
    /// Where it is jumped to from.
    pub place: Place,
    /// Its rules, without `-A chain`, each with the family it is for and the set it looks into.
    rules: Vec<(Family, String, String)>,
}

impl Plan {
    /// The rules for those sets of the configuration that are in `sets`; a rule cannot name a set that is not there.
    #[must_use]
    pub fn new(config: &Config, sets: &[SetRef]) -> Self {
        let firewall = &config.firewall;
        let mut rules = Vec::new();
        for (_, jail) in jails(config) {
            for set in SetRef::of(&firewall.set_prefix, jail) {
                if sets.contains(&set) {
                    for rule in rules_for(&set, &jail.ports, firewall.blocktype) {
                        rules.push((Family::of(set.kind), set.name.clone(), rule));
                    }
                }
            }
        }
        Self {
            chain: chain_name(&firewall.set_prefix),
            place: Place::of(firewall.blocktype),
            rules,
        }
    }

    /// What iptables-restore makes the chain from, when `jumps` old jumps to it are to go.
    fn text(&self, family: Family, jumps: usize) -> String {
        let Place { table, hook } = self.place;
        let chain = &self.chain;
        let mut text = format!("*{table}\n:{chain} - [0:0]\n");
        for _ in 0..jumps {
            // Writing to a String cannot fail; here and below.
            writeln!(text, "-D {hook} -j {chain}").unwrap_or_default();
        }
        writeln!(text, "-I {hook} 1 -j {chain}").unwrap_or_default();
        for (_, _, rule) in self.rules.iter().filter(|rule| rule.0 == family) {
            writeln!(text, "-A {chain} {rule}").unwrap_or_default();
        }
        text.push_str("COMMIT\n");
        text
    }
}

/// What stands where the chain should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// All is well.
    InPlace,
    /// No jump leads to it.
    Missing,
    /// Another rule comes first.
    Overtaken,
    /// More than one jump leads to it.
    Doubled,
    /// The jump is there, the rules are not those wanted.
    Changed,
}

impl Found {
    /// For people: "the chain f2b-pipe " ... .
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::InPlace => "is in place",
            Self::Missing => "was gone",
            Self::Overtaken => "was not first any more",
            Self::Doubled => "was jumped to more than once",
            Self::Changed => "had other rules than it should",
        }
    }
}

/// Looks whether the chain is in place.
///
/// # Errors
/// iptables does not work.
pub fn look(plan: &Plan, family: Family) -> Result<Found, ToolError> {
    Ok(seen(plan, family, &listing(plan.place, family)?).0)
}

/// Puts the chain in place, whatever is there now. Only under the lock: two at once make two jumps.
///
/// # Errors
/// iptables does not work; what was there stays.
pub fn place(plan: &Plan, family: Family) -> Result<(), ToolError> {
    let (_, jumps) = seen(plan, family, &listing(plan.place, family)?);
    restore(family, &plan.text(family, jumps))
}

/// Takes away a chain that is left over where it does not belong with this blocktype.
///
/// # Errors
/// iptables does not work.
pub fn remove_from_other_place(plan: &Plan, family: Family) -> Result<(), ToolError> {
    remove_from(plan, plan.place.other(), family)
}

/// Takes the chain away, wherever it is.
///
/// # Errors
/// iptables does not work.
pub fn remove(plan: &Plan, family: Family) -> Result<(), ToolError> {
    remove_from(plan, plan.place, family)?;
    remove_from(plan, plan.place.other(), family)
}

fn remove_from(plan: &Plan, place: Place, family: Family) -> Result<(), ToolError> {
    let Place { table, hook } = place;
    let chain = &plan.chain;
    let listing = listing(place, family)?;
    let (_, jumps) = seen(
        &Plan {
            place,
            ..plan.clone()
        },
        family,
        &listing,
    );
    if !listing.lines().any(|line| line == format!("-N {chain}")) {
        return Ok(());
    }
    let mut text = format!("*{table}\n:{chain} - [0:0]\n");
    for _ in 0..jumps {
        writeln!(text, "-D {hook} -j {chain}").unwrap_or_default();
    }
    writeln!(text, "-X {chain}\nCOMMIT").unwrap_or_default();
    restore(family, &text)
}

fn listing(place: Place, family: Family) -> Result<String, ToolError> {
    tool::succeed(family.tool(), &["-w", "5", "-t", place.table, "-S"], "")
}

fn restore(family: Family, text: &str) -> Result<(), ToolError> {
    tool::succeed(family.restore(), &["--noflush", "-w", "5"], text).map(drop)
}

/// What a listing says, and how many jumps to the chain it has. A rule is compared by the set it looks into: the rest of
/// it is written differently by every version of iptables, and nobody changes it by accident.
fn seen(plan: &Plan, family: Family, listing: &str) -> (Found, usize) {
    let jump = format!("-A {} -j {}", plan.place.hook, plan.chain);
    let from_hook = format!("-A {} ", plan.place.hook);
    let own = format!("-A {} ", plan.chain);
    let jumps = listing.lines().filter(|line| *line == jump).count();
    // Another f2b-pipe with another prefix wants to be first, too; between the two it does not matter who is.
    let first = listing
        .lines()
        .filter(|line| line.starts_with(&from_hook))
        .find(|line| *line == jump || !line.contains(&format!(" -j {NAME}")));
    let rules = listing
        .lines()
        .filter(|line| line.starts_with(&own))
        .map(set_in);
    let wanted = plan
        .rules
        .iter()
        .filter(|rule| rule.0 == family)
        .map(|rule| Some(rule.1.as_str()));
    let found = if jumps == 0 {
        Found::Missing
    } else if first != Some(&jump) {
        Found::Overtaken
    } else if jumps > 1 {
        Found::Doubled
    } else if !rules.eq(wanted) {
        Found::Changed
    } else {
        Found::InPlace
    };
    (found, jumps)
}

/// The set that a listed rule looks into.
fn set_in(rule: &str) -> Option<&str> {
    let (_, rest) = rule.split_once("--match-set ")?;
    rest.split(' ').next()
}

/// The rules of one set.
fn rules_for(set: &SetRef, ports: &Ports, blocktype: Blocktype) -> Vec<String> {
    let source = format!("-m set --match-set {} src", set.name);
    let tcp = match ports {
        Ports::All => "-p tcp".to_owned(),
        Ports::These(ports) => {
            let mut numbers: Vec<u16> = ports.iter().map(|(_, number)| *number).collect();
            numbers.sort_unstable();
            numbers.dedup();
            let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
            format!("-p tcp -m multiport --dports {}", numbers.join(","))
        }
    };
    match (blocktype, ports) {
        (Blocktype::Drop, Ports::All) => vec![format!("{source} -j DROP")],
        (Blocktype::Drop, Ports::These(_)) => vec![format!("{tcp} {source} -j DROP")],
        (Blocktype::Reject, _) => {
            // A reset is only for TCP.
            let mut rules = vec![format!("{tcp} {source} -j REJECT --reject-with tcp-reset")];
            if *ports == Ports::All {
                rules.push(format!("{source} -j REJECT"));
            }
            rules
        }
    }
}

fn chain_name(set_prefix: &str) -> String {
    if set_prefix == SHIPPED_PREFIX {
        return NAME.to_owned();
    }
    let name = format!("{NAME}-{}", set_prefix.trim_end_matches('-'));
    name.chars().take(NAME_MAX_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let web = Ports::These(vec![("http".into(), 80), ("https".into(), 443)]);
        let mut rules = Vec::new();
        for (jail, ports) in [("web", &web), ("all", &Ports::All)] {
            let set = SetRef::new("f2bp-", jail, Kind::Ip4, 64);
            for rule in rules_for(&set, ports, Blocktype::Drop) {
                rules.push((Family::Inet, set.name.clone(), rule));
            }
        }
        Plan {
            chain: NAME.into(),
            place: Place::DROP,
            rules,
        }
    }

    #[test]
    fn the_chain_is_written_as_a_whole() {
        assert_eq!(
            plan().text(Family::Inet, 2),
            "*raw\n:f2b-pipe - [0:0]\n-D PREROUTING -j f2b-pipe\n-D PREROUTING -j f2b-pipe\n-I PREROUTING 1 -j f2b-pipe\n\
             -A f2b-pipe -p tcp -m multiport --dports 80,443 -m set --match-set f2bp-web src -j DROP\n\
             -A f2b-pipe -m set --match-set f2bp-all src -j DROP\nCOMMIT\n"
        );
        assert!(!plan().text(Family::Inet6, 0).contains("-A"));
    }

    #[test]
    fn rejecting_everything_takes_two_rules() {
        let set = SetRef::new("f2bp-", "all", Kind::Ip6, 64);
        assert_eq!(
            rules_for(&set, &Ports::All, Blocktype::Reject),
            [
                "-p tcp -m set --match-set f2bp-all6 src -j REJECT --reject-with tcp-reset",
                "-m set --match-set f2bp-all6 src -j REJECT"
            ]
        );
    }

    #[test]
    fn presence_is_not_enough() {
        let own = "-A f2b-pipe -p tcp -m multiport --dports 80,443 -m set --match-set f2bp-web src -j DROP\n\
                   -A f2b-pipe -m set --match-set f2bp-all src -j DROP\n";
        let jump = "-A PREROUTING -j f2b-pipe\n";
        let head = "-P PREROUTING ACCEPT\n-N f2b-pipe\n";
        let other = "-A PREROUTING -m conntrack --ctstate ESTABLISHED -j ACCEPT\n";
        let neighbour = "-A PREROUTING -j f2b-pipe-x\n";
        let seen = |listing: &str| seen(&plan(), Family::Inet, listing);
        assert_eq!(seen(head), (Found::Missing, 0));
        assert_eq!(
            seen(&format!("{head}{jump}{other}{own}")),
            (Found::InPlace, 1)
        );
        assert_eq!(
            seen(&format!("{head}{neighbour}{jump}{own}")),
            (Found::InPlace, 1)
        );
        assert_eq!(
            seen(&format!("{head}{other}{jump}{own}")),
            (Found::Overtaken, 1)
        );
        assert_eq!(
            seen(&format!("{head}{jump}{jump}{own}")),
            (Found::Doubled, 2)
        );
        assert_eq!(seen(&format!("{head}{jump}")), (Found::Changed, 1));
    }

    #[test]
    fn another_prefix_is_another_chain() {
        assert_eq!(chain_name("f2bp-"), "f2b-pipe");
        assert_eq!(chain_name("web-"), "f2b-pipe-web");
        assert!(chain_name(&"x".repeat(40)).len() <= 28);
    }
}
