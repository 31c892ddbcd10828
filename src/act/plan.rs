//! What stands between the network and the banned: which rules look into which sets, for whichever firewall writes them.
//!
//! Jails that drop have theirs before everything else (raw PREROUTING), jails that reject at INPUT, as the kernel rejects
//! nowhere earlier; either may be there without the other.

use serde::{Deserialize, Serialize};

use super::{Kind, SetRef, jails};
use crate::config::{Blocktype, Config, Jail, Ports, Protocol};

/// What a chain or table of ours is called, if the sets have their shipped prefix. Another prefix is another f2b-pipe,
/// which has one of its own.
pub(super) const NAME: &str = "f2b-pipe";
/// The prefix that goes with it.
const SHIPPED_PREFIX: &str = "f2bp-";
/// Longest name of a chain, bytes: XT_EXTENSION_MAXNAMELEN less NUL, and what iptables leaves of it.
const NAME_MAX_BYTES: usize = 28;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
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

    /// Of the addresses in a set.
    #[must_use]
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Ip4 | Kind::Net4 => Self::Inet,
            Kind::Ip6 | Kind::Net6 => Self::Inet6,
        }
    }
}

/// Where a chain stands, in iptables' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// `raw`.
    pub table: &'static str,
    /// `PREROUTING`.
    pub hook: &'static str,
}

impl Place {
    /// Before conntrack, DNAT, docker, ufw and firewalld.
    pub(super) const DROP: Self = Self {
        table: "raw",
        hook: "PREROUTING",
    };
    /// Where REJECT is allowed.
    pub(super) const REJECT: Self = Self {
        table: "filter",
        hook: "INPUT",
    };

    /// Wherever one may stand.
    pub const ALL: [Self; 2] = [Self::DROP, Self::REJECT];

    /// Where one belongs.
    #[must_use]
    pub fn of(blocktype: Blocktype) -> Self {
        match blocktype {
            Blocktype::Drop => Self::DROP,
            Blocktype::Reject => Self::REJECT,
        }
    }
}

/// Turns away who is in a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// In which.
    pub set: SetRef,
    /// Whose packets.
    pub protocol: Protocol,
    /// To which ports, in order and apart from each other, both ends included; empty: to all.
    pub ports: Vec<(u16, u16)>,
    /// How.
    pub blocktype: Blocktype,
}

impl Rule {
    /// Of which addresses.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.set.kind)
    }
}

/// A chain as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name, or that of the table that it is in.
    pub chain: String,
    /// Where it is jumped to from.
    pub place: Place,
    /// What is in it.
    pub rules: Vec<Rule>,
}

impl Plan {
    /// One for `firewall.blocktype`, and one for the other type if a jail wants it; with rules for those sets of the
    /// configuration that are in `sets`, since a rule cannot name a set that is not there.
    #[must_use]
    pub fn all(config: &Config, sets: &[SetRef]) -> Vec<Self> {
        let firewall = &config.firewall;
        let mut plans: Vec<Self> = Vec::new();
        let usual = (firewall.blocktype, None);
        let of_jails = jails(config).map(|(_, jail)| (jail.blocktype, Some(jail)));
        for (blocktype, jail) in std::iter::once(usual).chain(of_jails) {
            let place = Place::of(blocktype);
            let at = plans.iter().position(|plan| plan.place == place);
            let at = at.unwrap_or_else(|| {
                plans.push(Self {
                    chain: chain_name(&firewall.set_prefix),
                    place,
                    rules: Vec::new(),
                });
                plans.len() - 1
            });
            let (Some(plan), Some(jail)) = (plans.get_mut(at), jail) else {
                continue;
            };
            for set in SetRef::of(&firewall.set_prefix, jail) {
                if sets.contains(&set) {
                    plan.rules.extend(rules_for(&set, jail));
                }
            }
        }
        plans
    }

    /// Those for one kind of address.
    pub fn rules_of(&self, family: Family) -> impl Iterator<Item = &Rule> {
        self.rules
            .iter()
            .filter(move |rule| rule.family() == family)
    }
}

/// What stands where the chain should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The same, but only for want of rules: sets were made since it was written.
    Incomplete,
}

impl Found {
    /// For people: "the IPv4 chain f2b-pipe (table raw) " ... .
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::InPlace => "is in place",
            Self::Missing => "was gone",
            Self::Overtaken => "was not first any more",
            Self::Doubled => "was jumped to more than once",
            Self::Changed => "had other rules than it should",
            Self::Incomplete => "has no rule yet for a set that is new",
        }
    }
}

/// The rules of one set.
pub(super) fn rules_for(set: &SetRef, jail: &Jail) -> Vec<Rule> {
    let rule = |protocol| Rule {
        set: set.clone(),
        protocol,
        ports: match (&jail.ports, protocol) {
            (Ports::All, _) | (_, Protocol::Icmp | Protocol::All) => Vec::new(),
            (Ports::These(ports), _) => {
                let mut ranges: Vec<(u16, u16)> = ports.iter().map(|p| (p.first, p.last)).collect();
                ranges.sort_unstable();
                // A range takes in the next one if that begins within it.
                ranges.dedup_by(|next, range| {
                    let within = next.0 <= range.1;
                    if within {
                        range.1 = range.1.max(next.1);
                    }
                    within
                });
                ranges
            }
        },
        blocktype: jail.blocktype,
    };
    protocols(jail).into_iter().map(rule).collect()
}

/// The protocols that a jail's rules are for, each in rules of its own.
fn protocols(jail: &Jail) -> Vec<Protocol> {
    use Protocol::{All, Dccp, Sctp, Tcp, Udp, Udplite};
    let written = &jail.protocols;
    match (&jail.ports, jail.blocktype) {
        (Ports::These(_), _) if written.is_empty() => vec![Tcp],
        (Ports::These(_), _) if written.contains(&All) => vec![Tcp, Udp, Sctp, Dccp, Udplite],
        (Ports::All, blocktype) if written.is_empty() || written.contains(&All) => {
            match blocktype {
                Blocktype::Drop => vec![All],
                Blocktype::Reject => vec![Tcp, All],
            }
        }
        _ => written.clone(),
    }
}

pub(super) fn chain_name(set_prefix: &str) -> String {
    if set_prefix == SHIPPED_PREFIX {
        return NAME.to_owned();
    }
    let name = format!("{NAME}-{}", set_prefix.trim_end_matches('-'));
    name.chars().take(NAME_MAX_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jails_that_reject_have_a_chain_of_their_own() {
        let mut config = Config::default();
        let places = |config: &Config| {
            let sets = keeper_sets(config);
            let plans = Plan::all(config, &sets);
            let shown = |plan: &Plan| (plan.place.table, plan.rules.len());
            plans.iter().map(shown).collect::<Vec<_>>()
        };
        let [all] = places(&config)[..] else { panic!() };
        config.jails[0].blocktype = Blocktype::Reject;
        assert_eq!(places(&config), [("raw", all.1 - 2), ("filter", 2)]);
        config.firewall.blocktype = Blocktype::Reject;
        assert_eq!(places(&config), [("filter", 2), ("raw", all.1 - 2)]);
        for jail in config.jails.iter_mut().chain([&mut config.manual]) {
            jail.blocktype = Blocktype::Reject;
        }
        assert_eq!(places(&config), [("filter", all.1)]);
    }

    /// Those that a keeper makes at once.
    fn keeper_sets(config: &Config) -> Vec<SetRef> {
        super::super::keeper::wanted(config, &[])
    }

    #[test]
    fn another_prefix_is_another_chain() {
        assert_eq!(chain_name("f2bp-"), "f2b-pipe");
        assert_eq!(chain_name("web-"), "f2b-pipe-web");
        assert!(chain_name(&"x".repeat(40)).len() <= 28);
    }
}
