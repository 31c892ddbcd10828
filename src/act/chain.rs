//! The rules that look into ipset's sets: a chain, jumped to before anything else, written by iptables.
//!
//! The chain is written as a whole by one iptables-restore, so that there is no moment with half of it, and looked at
//! through netlink ([`xtables`]) or, where that does not do, by one `iptables -S`. Presence is not enough: a rule that
//! accepts established connections, inserted above ours by somebody else, lets the banned go on.
//!
//! A process that gave up its right to run iptables has these functions done by its helper ([`crate::privilege`]).

use std::fmt::Write as _;

use super::nft;
use super::plan::{Family, Found, NAME, Place, Plan, Rule, chain_name};
use super::tool::{self, ToolError};
use super::xtables;
use crate::config::{Blocktype, Config, Protocol};
use crate::privilege::helper;

/// Ports that one rule takes, a range being two: XT_MULTI_PORTS of xt_multiport.h.
const MULTIPORT_MAX: usize = 15;

impl Family {
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
    pub(super) fn match_protocol(self, protocol: Protocol) -> String {
        match (protocol, self) {
            (Protocol::All, _) => String::new(),
            (Protocol::Icmp, Self::Inet6) => "-p ipv6-icmp ".to_owned(),
            (protocol, _) => format!("-p {} ", protocol.name()),
        }
    }
}

/// For people: which chain it is.
#[must_use]
pub(super) fn named(plan: &Plan, family: Family) -> String {
    let Plan { chain, place, .. } = plan;
    format!("{} chain {chain} (table {})", family.name(), place.table)
}

/// What iptables-restore makes the chain from, when `jumps` old jumps to it are to go.
fn text(plan: &Plan, family: Family, jumps: usize) -> String {
    let Place { table, hook } = plan.place;
    let chain = &plan.chain;
    let mut text = format!("*{table}\n:{chain} - [0:0]\n");
    for _ in 0..jumps {
        // Writing to a String cannot fail; here and below.
        writeln!(text, "-D {hook} -j {chain}").unwrap_or_default();
    }
    writeln!(text, "-I {hook} 1 -j {chain}").unwrap_or_default();
    for rule in plan.rules_of(family).flat_map(lines_of) {
        writeln!(text, "-A {chain} {rule}").unwrap_or_default();
    }
    text.push_str("COMMIT\n");
    text
}

/// Looks whether the chain is in place.
///
/// # Errors
/// iptables does not work.
pub(crate) fn look(plan: &Plan, family: Family) -> Result<Found, ToolError> {
    if let Some(listing) = read(plan, family) {
        return Ok(seen(plan, family, &listing));
    }
    if let Some(helper) = helper() {
        return helper.look(plan, family);
    }
    Ok(seen(plan, family, &listing(plan.place, family)?))
}

/// Puts the chain in place, whatever else is there now. Only under the lock: two at once make two jumps.
///
/// # Errors
/// iptables does not work; what was there stays.
pub(crate) fn place(plan: &Plan, family: Family) -> Result<(), ToolError> {
    if read(plan, family).is_some_and(|listing| is_written(plan, family, &listing)) {
        return Ok(());
    }
    if let Some(helper) = helper() {
        return helper.place(plan, family);
    }
    let listing = listing(plan.place, family)?;
    if is_written(plan, family, &listing) {
        return Ok(());
    }
    let jumps = jumps(&listing, plan.place, &plan.chain);
    restore(family, &text(plan, family, jumps))
}

/// Whether a listing says that all is as [`text`] writes it, word for word; where iptables writes a rule in another way
/// than we do, it is written anew. After most restarts of httpd nothing need be.
fn is_written(plan: &Plan, family: Family, listing: &str) -> bool {
    let own = format!("-A {} ", plan.chain);
    let rules = listing.lines().filter_map(|line| line.strip_prefix(&own));
    let wanted = plan.rules_of(family).flat_map(lines_of);
    seen(plan, family, listing) == Found::InPlace && rules.eq(wanted)
}

/// Takes away what stands, of our name or left over from another configuration, in a place that none of `plans` is for.
///
/// # Errors
/// iptables does not work; the first of several.
pub(crate) fn remove_others(
    config: &Config,
    plans: &[Plan],
    family: Family,
) -> Result<(), ToolError> {
    let chain = chain_name(&config.firewall.set_prefix);
    let unwanted = |place: &Place| plans.iter().all(|plan| plan.place != *place);
    let others = Place::ALL.into_iter().filter(unwanted);
    if !others.clone().any(|place| may_stand(&chain, place, family)) {
        return Ok(());
    }
    if let Some(helper) = helper() {
        return helper.remove_others(family);
    }
    let removed = others.map(|place| remove_from(&chain, place, family));
    removed.fold(Ok(()), Result::and)
}

/// Whether a chain of this name may stand there. That none does, which is nearly always so, nf_tables can say itself, and
/// sooner than iptables.
fn may_stand(chain: &str, Place { table, .. }: Place, family: Family) -> bool {
    !is_nft(family) || nft::may_have_chain(family, table, chain)
}

/// Whether nf_tables has what iptables would list.
fn is_nft(family: Family) -> bool {
    tool::find(family.tool()).is_some_and(|path| tool::is_nft(&path))
}

/// What iptables would list of the hook and the chain, without it. `None`: it has to be asked.
fn read(plan: &Plan, family: Family) -> Option<String> {
    is_nft(family).then(|| xtables::listing(&plan.chain, plan.place, family))?
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
    let wanted = plan.rules_of(family).flat_map(|rule| {
        let lines = lines_of(rule).len();
        std::iter::repeat_n(Some(rule.set.name.as_str()), lines)
    });
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

/// A rule as iptables writes it, without `-A chain`: in several lines, if it has many ports.
fn lines_of(rule: &Rule) -> Vec<String> {
    let target = match (rule.blocktype, rule.protocol) {
        (Blocktype::Drop, _) => "DROP",
        // A reset is only for TCP.
        (Blocktype::Reject, Protocol::Tcp) => "REJECT --reject-with tcp-reset",
        (Blocktype::Reject, _) => "REJECT",
    };
    let to = match rule.ports.as_slice() {
        [] => vec![String::new()],
        ports => match_ports(ports),
    };
    let protocol = rule.family().match_protocol(rule.protocol);
    let set = &rule.set.name;
    let line = |ports| format!("{protocol}{ports}-m set --match-set {set} src -j {target}");
    to.iter().map(line).collect()
}

/// `-m multiport`, with a blank behind, as often as it takes.
fn match_ports(ranges: &[(u16, u16)]) -> Vec<String> {
    let mut matches = Vec::new();
    let (mut list, mut taken) = (String::new(), 0);
    for &(first, last) in ranges {
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

#[cfg(test)]
mod tests {
    use super::super::plan::rules_for;
    use super::super::{Kind, SetRef};
    use super::*;
    use crate::config::{Jail, Ports};

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
            let set = SetRef::one("f2bp-", &jail, Kind::Ip4);
            plan.rules.extend(rules_for(&set, &jail));
        }
        plan
    }

    /// The rules of a jail called x, without the part that all of them have.
    fn rules(kind: Kind, words: &[&str], protocols: &[Protocol], blocktype: Blocktype) -> String {
        let jail = jail("x", ports(words), protocols, blocktype);
        let set = SetRef::one("f2bp-", &jail, kind);
        let same = format!("-m set --match-set {} src -j ", set.name);
        let rules = rules_for(&set, &jail);
        let lines: Vec<String> = rules.iter().flat_map(lines_of).collect();
        lines.join("; ").replace(&same, "")
    }

    #[test]
    fn the_chain_is_written_as_a_whole() {
        assert_eq!(
            text(&plan(), Family::Inet, 2),
            "*raw\n:f2b-pipe - [0:0]\n-D PREROUTING -j f2b-pipe\n-D PREROUTING -j f2b-pipe\n-I PREROUTING 1 -j f2b-pipe\n\
             -A f2b-pipe -p tcp -m multiport --dports 80,443 -m set --match-set f2bp-web src -j DROP\n\
             -A f2b-pipe -m set --match-set f2bp-all src -j DROP\nCOMMIT\n"
        );
        assert!(!text(&plan(), Family::Inet6, 0).contains("-A"));
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
        let written = |listing: &str| is_written(&plan(), Family::Inet, listing);
        assert!(written(&format!("{head}{jump}{other}{own}")));
        let otherwise = own.replace("80,443", "80");
        assert_eq!(seen(&format!("{head}{jump}{otherwise}")), Found::InPlace);
        assert!(!written(&format!("{head}{jump}{otherwise}")));
        assert!(!written(&format!("{head}{other}{jump}{own}")));
        let twice = format!("{head}{jump}{jump}");
        assert_eq!(jumps(&twice, Place::DROP, NAME), 2);
    }
}
