//! The rules that look into the sets: a chain, jumped to before anything else. Jails that drop have theirs in raw
//! PREROUTING, jails that reject in INPUT, as the kernel rejects nowhere earlier; either may be there without the other.
//!
//! The chain is written as a whole by one iptables-restore, so that there is no moment with half of it, and looked at by
//! one `iptables -S`. Presence is not enough: a rule that accepts established connections, inserted above ours by
//! somebody else, lets the banned go on.

use std::fmt::Write as _;

use super::tool::{self, ToolError};
use super::{Kind, SetRef, jails};
use crate::config::{Blocktype, Config, Jail, PortRange, Ports, Protocol};

/// Its name, if the sets have their shipped prefix. Another prefix is another f2b-pipe, which has a chain of its own.
const NAME: &str = "f2b-pipe";
/// The prefix that goes with it.
const SHIPPED_PREFIX: &str = "f2bp-";
/// Longest name of a chain, bytes: XT_EXTENSION_MAXNAMELEN less NUL, and what iptables leaves of it.
const NAME_MAX_BYTES: usize = 28;
/// Ports that one rule takes, a range being two: XT_MULTI_PORTS of xt_multiport.h.
const MULTIPORT_MAX: usize = 15;

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

    /// `-p` of a protocol, with a blank behind; nothing for all of them.
    fn match_protocol(self, protocol: Protocol) -> String {
        match (protocol, self) {
            (Protocol::All, _) => String::new(),
            (Protocol::Icmp, Self::Inet6) => "-p ipv6-icmp ".to_owned(),
            (protocol, _) => format!("-p {} ", protocol.name()),
        }
    }

    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Ip4 | Kind::Net4 => Self::Inet,
            Kind::Ip6 | Kind::Net6 => Self::Inet6,
        }
    }
}

/// Where a chain stands.
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

/// A chain as it should be.
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
                    plan.add(&set, jail);
                }
            }
        }
        plans
    }

    fn add(&mut self, set: &SetRef, jail: &Jail) {
        let family = Family::of(set.kind);
        let rules = rules_for(set, jail).into_iter();
        self.rules
            .extend(rules.map(|rule| (family, set.name.clone(), rule)));
    }

    /// For people: which chain it is.
    #[must_use]
    pub fn named(&self, family: Family) -> String {
        let Self { chain, place, .. } = self;
        format!("{} chain {chain} (table {})", family.name(), place.table)
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
    /// For people: "the IPv4 chain f2b-pipe (table raw) " ... .
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
    Ok(seen(plan, family, &listing(plan.place, family)?))
}

/// Puts the chain in place, whatever is there now. Only under the lock: two at once make two jumps.
///
/// # Errors
/// iptables does not work; what was there stays.
pub fn place(plan: &Plan, family: Family) -> Result<(), ToolError> {
    let jumps = jumps(&listing(plan.place, family)?, plan.place, &plan.chain);
    restore(family, &plan.text(family, jumps))
}

/// Takes away what stands, of our name or left over from another configuration, in a place that none of `plans` is for.
///
/// # Errors
/// iptables does not work; the first of several.
pub fn remove_others(config: &Config, plans: &[Plan], family: Family) -> Result<(), ToolError> {
    let unwanted = |place: &Place| plans.iter().all(|plan| plan.place != *place);
    let chain = chain_name(&config.firewall.set_prefix);
    let mut done = Ok(());
    for place in Place::ALL.into_iter().filter(unwanted) {
        done = done.and(remove_from(&chain, place, family));
    }
    done
}

fn remove_from(chain: &str, place: Place, family: Family) -> Result<(), ToolError> {
    let Place { table, hook } = place;
    let listing = listing(place, family)?;
    if !listing.lines().any(|line| line == format!("-N {chain}")) {
        return Ok(());
    }
    let mut text = format!("*{table}\n:{chain} - [0:0]\n");
    for _ in 0..jumps(&listing, place, chain) {
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

/// How many jumps to `chain` a listing has.
fn jumps(listing: &str, place: Place, chain: &str) -> usize {
    let jump = format!("-A {} -j {chain}", place.hook);
    listing.lines().filter(|line| *line == jump).count()
}

/// What a listing says. A rule is compared by the set it looks into: the rest of it is written differently by every
/// version of iptables, and nobody changes it by accident.
fn seen(plan: &Plan, family: Family, listing: &str) -> Found {
    let jump = format!("-A {} -j {}", plan.place.hook, plan.chain);
    let from_hook = format!("-A {} ", plan.place.hook);
    let own = format!("-A {} ", plan.chain);
    let jumps = jumps(listing, plan.place, &plan.chain);
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
    if jumps == 0 {
        Found::Missing
    } else if first != Some(&jump) {
        Found::Overtaken
    } else if jumps > 1 {
        Found::Doubled
    } else if !rules.eq(wanted) {
        Found::Changed
    } else {
        Found::InPlace
    }
}

/// The set that a listed rule looks into.
fn set_in(rule: &str) -> Option<&str> {
    let (_, rest) = rule.split_once("--match-set ")?;
    rest.split(' ').next()
}

/// The rules of one set.
fn rules_for(set: &SetRef, jail: &Jail) -> Vec<String> {
    let family = Family::of(set.kind);
    let mut rules = Vec::new();
    for protocol in protocols(jail) {
        let target = match (jail.blocktype, protocol) {
            (Blocktype::Drop, _) => "DROP",
            // A reset is only for TCP.
            (Blocktype::Reject, Protocol::Tcp) => "REJECT --reject-with tcp-reset",
            (Blocktype::Reject, _) => "REJECT",
        };
        let to = match (&jail.ports, protocol) {
            (Ports::All, _) | (_, Protocol::Icmp | Protocol::All) => vec![String::new()],
            (Ports::These(ports), _) => match_ports(ports),
        };
        let protocol = family.match_protocol(protocol);
        rules.extend(to.iter().map(|ports| {
            format!(
                "{protocol}{ports}-m set --match-set {} src -j {target}",
                set.name
            )
        }));
    }
    rules
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

/// `-m multiport`, with a blank behind, as often as it takes.
fn match_ports(ports: &[PortRange]) -> Vec<String> {
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
    let mut matches = Vec::new();
    let (mut list, mut taken) = (String::new(), 0);
    for (first, last) in ranges {
        let takes = if first == last { 1 } else { 2 };
        if taken + takes > MULTIPORT_MAX {
            matches.push(std::mem::take(&mut list));
            taken = 0;
        }
        taken += takes;
        let comma = if list.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        match first == last {
            true => write!(list, "{comma}{first}").unwrap_or_default(),
            false => write!(list, "{comma}{first}:{last}").unwrap_or_default(),
        }
    }
    matches.push(list);
    matches
        .iter()
        .map(|list| format!("-m multiport --dports {list} "))
        .collect()
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

    fn jail(name: &str, ports: Ports, protocols: &[Protocol], blocktype: Blocktype) -> Jail {
        Jail {
            name: name.into(),
            sets: name.into(),
            ports,
            protocols: protocols.to_vec(),
            blocktype,
            ..Config::default().manual
        }
    }

    fn ports(words: &[&str]) -> Ports {
        crate::config::place::ports_of(words).unwrap()
    }

    fn plan() -> Plan {
        let mut plan = Plan {
            chain: NAME.into(),
            place: Place::DROP,
            rules: Vec::new(),
        };
        for (name, ports) in [("web", ports(&["http", "https"])), ("all", Ports::All)] {
            let jail = jail(name, ports, &[], Blocktype::Drop);
            plan.add(&SetRef::one("f2bp-", &jail, Kind::Ip4), &jail);
        }
        plan
    }

    /// The rules of a jail called x, without the part that all of them have.
    fn rules(kind: Kind, words: &[&str], protocols: &[Protocol], blocktype: Blocktype) -> String {
        let jail = jail("x", ports(words), protocols, blocktype);
        let set = SetRef::one("f2bp-", &jail, kind);
        let same = format!("-m set --match-set {} src -j ", set.name);
        rules_for(&set, &jail).join("; ").replace(&same, "")
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
    fn each_protocol_has_a_rule_of_its_own() {
        use Blocktype::{Drop, Reject};
        use Protocol::{All, Icmp, Tcp, Udp};
        let dns = &["53"];
        assert_eq!(
            rules(Kind::Ip4, dns, &[Tcp, Udp], Drop),
            "-p tcp -m multiport --dports 53 DROP; -p udp -m multiport --dports 53 DROP"
        );
        assert_eq!(
            rules(Kind::Ip6, dns, &[Tcp, Udp], Reject),
            "-p tcp -m multiport --dports 53 REJECT --reject-with tcp-reset; -p udp -m multiport --dports 53 REJECT"
        );
        assert_eq!(
            rules(Kind::Ip4, dns, &[Icmp], Drop),
            "-p icmp DROP",
            "it has no ports"
        );
        assert_eq!(rules(Kind::Ip6, dns, &[Icmp], Drop), "-p ipv6-icmp DROP");
        assert_eq!(
            rules(Kind::Ip4, dns, &[All], Drop).matches("DROP").count(),
            5
        );
        assert_eq!(rules(Kind::Ip4, &["all"], &[Tcp], Drop), "-p tcp DROP");
        assert_eq!(rules(Kind::Ip4, &["all"], &[All], Drop), "DROP");
        assert_eq!(
            rules(Kind::Ip4, &["all"], &[], Reject),
            "-p tcp REJECT --reject-with tcp-reset; REJECT"
        );
    }

    #[test]
    fn a_rule_takes_fifteen_ports_and_a_range_is_two() {
        let numbers: Vec<String> = (1..=32).map(|n| (2 * n).to_string()).collect();
        let words: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let rules = |words| rules(Kind::Ip4, words, &[], Blocktype::Drop);
        assert_eq!(
            rules(&words),
            "-p tcp -m multiport --dports 2,4,6,8,10,12,14,16,18,20,22,24,26,28,30 DROP; \
             -p tcp -m multiport --dports 32,34,36,38,40,42,44,46,48,50,52,54,56,58,60 DROP; \
             -p tcp -m multiport --dports 62,64 DROP"
        );
        let ranges = "1:2 11:12 21:22 31:32 41:42 51:52 61:62 71:72 80:90 85:99 80";
        let words: Vec<&str> = ranges.split(' ').collect();
        assert_eq!(
            rules(&words),
            "-p tcp -m multiport --dports 1:2,11:12,21:22,31:32,41:42,51:52,61:62 DROP; \
             -p tcp -m multiport --dports 71:72,80:99 DROP"
        );
    }

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
    fn presence_is_not_enough() {
        let own = "-A f2b-pipe -p tcp -m multiport --dports 80,443 -m set --match-set f2bp-web src -j DROP\n\
                   -A f2b-pipe -m set --match-set f2bp-all src -j DROP\n";
        let jump = "-A PREROUTING -j f2b-pipe\n";
        let head = "-P PREROUTING ACCEPT\n-N f2b-pipe\n";
        let other = "-A PREROUTING -m conntrack --ctstate ESTABLISHED -j ACCEPT\n";
        let neighbour = "-A PREROUTING -j f2b-pipe-x\n";
        let seen = |listing: &str| seen(&plan(), Family::Inet, listing);
        assert_eq!(seen(head), Found::Missing);
        assert_eq!(seen(&format!("{head}{jump}{other}{own}")), Found::InPlace);
        assert_eq!(
            seen(&format!("{head}{neighbour}{jump}{own}")),
            Found::InPlace
        );
        assert_eq!(seen(&format!("{head}{other}{jump}{own}")), Found::Overtaken);
        assert_eq!(seen(&format!("{head}{jump}{jump}{own}")), Found::Doubled);
        assert_eq!(seen(&format!("{head}{jump}")), Found::Changed);
        let twice = format!("{head}{jump}{jump}");
        assert_eq!(jumps(&twice, Place::DROP, NAME), 2);
    }

    #[test]
    fn another_prefix_is_another_chain() {
        assert_eq!(chain_name("f2bp-"), "f2b-pipe");
        assert_eq!(chain_name("web-"), "f2b-pipe-web");
        assert!(chain_name(&"x".repeat(40)).len() <= 28);
    }
}
