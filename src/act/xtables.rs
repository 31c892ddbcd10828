//! What `iptables -S` says of our chain and of the hook it hangs on, read from nf_tables through netlink: two
//! milliseconds less at each start of httpd and each minute, for each table and family.
//!
//! Since 1.8 iptables keeps its rules in nf_tables (iptables-nft), with the matches and targets of xtables in them. What we
//! write is understood, and of somebody else's rule at the hook whether it is a jump; where anything else stands in our
//! chain (an iptables that writes it in another way), iptables is to be asked. Numbers and layouts:
//! linux/netfilter/nf_tables.h, xt_multiport.h, xt_set.h; linux/netfilter_ipv4/ipt_REJECT.h and
//! linux/netfilter_ipv6/ip6t_REJECT.h.

use std::fmt::Write as _;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::ipset;
use super::netlink::{self, DUMP, Refusal, Socket, WireError};
use super::nft;
use super::plan::{Family, Place};
use crate::config::Protocol;

/// One rule's expressions (NFTA_RULE_EXPRESSIONS).
type Expressions = Vec<u8>;

/// The lines that begin with `-A`: those of the hook, another's rule as far as it matters, and those of our chain, as we
/// write them. `None`: iptables has to be asked.
pub(super) fn listing(chain: &str, place: Place, family: Family) -> Option<String> {
    let mut wire = Socket::open(SockProtocol::NetlinkNetFilter, 0).ok()?;
    if !is_hooked(&mut wire, family, place) {
        return None;
    }
    let mut text = String::new();
    for rule in rules(&mut wire, (family, place.table, place.hook))? {
        // Writing to a String cannot fail; here and below.
        writeln!(text, "-A {}{}", place.hook, at_the_hook(&rule)).unwrap_or_default();
    }
    for rule in rules(&mut wire, (family, place.table, chain))? {
        let of_ours = ours(&rule, family, |index| ipset::name_of(&mut wire, index))?;
        // One that only counts has no words.
        writeln!(text, "{}", format!("-A {chain} {of_ours}").trim_end()).unwrap_or_default();
    }
    Some(text)
}

/// Whether the chain of the hook is where iptables has it, or is not there at all: with another hook or priority it is no chain
/// of iptables, whatever it is called.
fn is_hooked(wire: &mut Socket, family: Family, place: Place) -> bool {
    /// NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK; NFTA_HOOK_HOOKNUM and NFTA_HOOK_PRIORITY.
    const TABLE: u16 = 1;
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const NUMBER: u16 = 1;
    const PRIORITY: u16 = 2;
    // NF_INET_LOCAL_IN at NF_IP_PRI_FILTER, or NF_INET_PRE_ROUTING at NF_IP_PRI_RAW.
    let (number, priority): (u32, i32) = match place == Place::REJECT {
        true => (1, 0),
        false => (0, -300),
    };
    let mut right = false;
    let asked = wire.exchange(
        nft::SUBSYSTEM << 8 | nft::GETCHAIN,
        0,
        &nft::head(family),
        |a| {
            a.text(TABLE, place.table);
            a.text(NAME, place.hook);
        },
        |_, payload| {
            let attrs = payload.get(nft::head(family).len()..).unwrap_or_default();
            let hook = value(attrs, HOOK).unwrap_or_default();
            let of = |attr| value(hook, attr).and_then(netlink::be32);
            right = of(NUMBER) == Some(number) && of(PRIORITY) == Some(priority.cast_unsigned());
        },
    );
    match asked {
        Ok(()) => right,
        Err(error) => error == WireError::Refused(Refusal::Os(Errno::ENOENT)),
    }
}

/// The rules of a chain, in their order; of one that is not there none. `None`: they cannot be read, or changed meanwhile.
fn rules(
    wire: &mut Socket,
    (family, table, chain): (Family, &str, &str),
) -> Option<Vec<Expressions>> {
    const TABLE: u16 = 1;
    const CHAIN: u16 = 2;
    const EXPRESSIONS: u16 = 4;
    let mut rules = Vec::new();
    wire.exchange(
        nft::SUBSYSTEM << 8 | nft::GETRULE,
        DUMP,
        &nft::head(family),
        |a| {
            a.text(TABLE, table);
            a.text(CHAIN, chain);
        },
        |_, payload| {
            let attrs = payload.get(nft::head(family).len()..).unwrap_or_default();
            let of = |attr| value(attrs, attr).map(netlink::text);
            // A kernel that knows no such request gives all rules of all tables.
            if of(TABLE).as_deref() == Some(table) && of(CHAIN).as_deref() == Some(chain) {
                rules.push(value(attrs, EXPRESSIONS).unwrap_or_default().to_vec());
            }
        },
    )
    .ok()?;
    (!wire.interrupted()).then_some(rules)
}

/// What an expression is called, and what it says.
fn expressions(rule: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    netlink::attrs(rule).map(|(_, expression)| {
        let name = value(expression, NAME).map(netlink::text);
        let data = value(expression, DATA);
        (name.unwrap_or_default(), data.unwrap_or_default())
    })
}

fn value(attrs: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut all = netlink::attrs(attrs);
    all.find_map(|(attr, value)| (attr == wanted).then_some(value))
}

/// What becomes of a packet: NF_DROP and the like, and the chain that is jumped to.
fn verdict(immediate: &[u8]) -> Option<(u32, Option<String>)> {
    /// NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT; NFTA_VERDICT_CODE and NFTA_VERDICT_CHAIN.
    const DATA: u16 = 2;
    const VERDICT: u16 = 2;
    const CODE: u16 = 1;
    const CHAIN: u16 = 2;
    let verdict = value(value(immediate, DATA)?, VERDICT)?;
    let code = netlink::be32(value(verdict, CODE)?)?;
    Some((code, value(verdict, CHAIN).map(netlink::text)))
}

/// A rule of the hook: where it jumps to, and whether all packets do.
fn at_the_hook(rule: &[u8]) -> String {
    /// NFT_JUMP, -3.
    const JUMP: u32 = u32::MAX - 2;
    let (mut to, mut more) = (None, false);
    for (name, data) in expressions(rule) {
        match name.as_str() {
            "counter" => {}
            "immediate" => match verdict(data) {
                Some((JUMP, Some(chain))) => to = Some(chain),
                Some(_) | None => more = true,
            },
            _ => more = true,
        }
    }
    let those = if more { " (some)" } else { "" };
    match to {
        Some(chain) => format!("{those} -j {chain}"),
        // One that only counts has no words.
        None => those.to_owned(),
    }
}

/// A rule of our chain, in the words in which we write it. `None`: it has more in it.
fn ours(
    rule: &[u8],
    family: Family,
    mut name_of: impl FnMut(u16) -> Option<String>,
) -> Option<String> {
    let mut words = String::new();
    // What is compared next is the protocol.
    let mut protocol = false;
    for (name, data) in expressions(rule) {
        match name.as_str() {
            "meta" if is_protocol(data) => {
                protocol = true;
                continue;
            }
            "cmp" if protocol => {
                let number = equal_to(data)?;
                let mut all = Protocol::EACH.iter();
                let known = all.find(|p| nft::number_of(**p, family) == Some(number))?;
                words.push_str(&family.match_protocol(*known));
            }
            "match" | "target" => match extension(data)? {
                (of, 1, info) if of == "multiport" => {
                    write!(words, "-m multiport --dports {} ", ports(info)?).unwrap_or_default();
                }
                (of, 4, info) if of == "set" => {
                    let set = name_of(set(info)?)?;
                    write!(words, "-m set --match-set {set} src ").unwrap_or_default();
                }
                (of, 0, info) if of == "REJECT" => words.push_str(reject(info, family)?),
                _ => return None,
            },
            "counter" => {}
            "immediate" => match verdict(data)? {
                (NF_DROP, None) => words.push_str("-j DROP"),
                _ => return None,
            },
            _ => return None,
        }
        protocol = false;
    }
    Some(words)
}

const NF_DROP: u32 = 0;

/// meta l4proto.
fn is_protocol(meta: &[u8]) -> bool {
    /// NFTA_META_KEY, NFT_META_L4PROTO.
    const KEY: u16 = 2;
    const L4PROTO: u32 = 16;
    value(meta, KEY).and_then(netlink::be32) == Some(L4PROTO)
}

/// The one byte that is compared with.
fn equal_to(cmp: &[u8]) -> Option<u8> {
    /// NFTA_CMP_OP (NFT_CMP_EQ: 0), NFTA_CMP_DATA, NFTA_DATA_VALUE.
    const OP: u16 = 2;
    const DATA: u16 = 3;
    const VALUE: u16 = 1;
    if netlink::be32(value(cmp, OP)?) != Some(0) {
        return None;
    }
    match value(value(cmp, DATA)?, VALUE)? {
        [byte] => Some(*byte),
        _ => None,
    }
}

/// Name, revision and structure of a match or target of xtables; NFTA_MATCH_... and NFTA_TARGET_... are the same numbers.
fn extension(data: &[u8]) -> Option<(String, u32, &[u8])> {
    const NAME: u16 = 1;
    const REVISION: u16 = 2;
    const INFO: u16 = 3;
    let name = netlink::text(value(data, NAME)?);
    let revision = netlink::be32(value(data, REVISION)?)?;
    Some((name, revision, value(data, INFO)?))
}

/// xt_multiport_v1: flags, how many ports, 15 ports, which of them begin a range, whether it is inverted.
fn ports(info: &[u8]) -> Option<String> {
    /// XT_MULTIPORT_DESTINATION.
    const DESTINATION: u8 = 1;
    let ([DESTINATION, count], rest) = info.split_first_chunk()? else {
        return None;
    };
    let (ports, rest) = rest.split_first_chunk::<30>()?;
    let (begins, rest) = rest.split_first_chunk::<15>()?;
    if rest.first() != Some(&0) {
        return None;
    }
    let mut words = String::new();
    let ports = ports.as_chunks::<2>().0.iter().zip(begins);
    for (port, begins) in ports.take(usize::from(*count)) {
        let port = u16::from_ne_bytes(*port);
        let after = if *begins == 0 { "," } else { ":" };
        write!(words, "{port}{after}").unwrap_or_default();
    }
    words.pop();
    Some(words)
}

/// xt_set_info_match_v4, if it asks for the sender and nothing else: the set's index, one dimension, from where; then
/// counters and flags, all unused.
fn set(info: &[u8]) -> Option<u16> {
    /// IPSET_DIM_ONE_SRC.
    const SRC: u8 = 2;
    let ([low, high, 1, SRC], rest) = info.split_first_chunk()? else {
        return None;
    };
    let plain = rest.iter().all(|byte| *byte == 0);
    plain.then(|| u16::from_ne_bytes([*low, *high]))
}

/// ipt_reject_info and ip6t_reject_info.
fn reject(info: &[u8], family: Family) -> Option<&'static str> {
    let with = info.first_chunk().map(|c| u32::from_ne_bytes(*c))?;
    // ..._PORT_UNREACH, ..._TCP_RESET.
    match (family, with) {
        (Family::Inet, 3) | (Family::Inet6, 4) => Some("-j REJECT"),
        (Family::Inet, 7) | (Family::Inet6, 6) => Some("-j REJECT --reject-with tcp-reset"),
        _ => None,
    }
}
