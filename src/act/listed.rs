//! The bans that the kernel's sets hold, for who asks: commands, and the process in charge.

use std::net::IpAddr;

use chrono::Utc;
use serde::Serialize;

use super::firewall::{Firewall, Member};
use super::{ActError, SetRef, ipset, jails};
use crate::config::Config;

/// A running ban, as `banned --json` shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Row {
    /// The jail, or what its set is called behind our prefix if no jail of that name is configured any more.
    pub jail: String,
    /// `192.0.2.7`, `198.51.100.0/24`; an IPv6 one with its prefix: `2001:db8::/64`.
    pub ip: String,
    /// Seconds; `null`: for ever.
    pub left: Option<i64>,
    /// Packets that were turned away.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why.
    pub reason: String,
}

impl Row {
    fn new(jail: &str, prefix: Option<u8>, member: &Member) -> Self {
        let ip = match (member.addr, member.cidr.or(prefix)) {
            (addr @ IpAddr::V6(_), Some(length)) if length < 128 => format!("{addr}/{length}"),
            (addr @ IpAddr::V4(_), Some(length)) if length < 32 => format!("{addr}/{length}"),
            (addr, _) => addr.to_string(),
        };
        let left = match ipset::until(&member.comment) {
            Some(end) => Some(end.signed_duration_since(Utc::now()).num_seconds()),
            None => member.left.map(i64::from),
        };
        // Another program may have written it.
        let printable = |c: char| if c.is_control() { '?' } else { c };
        Self {
            jail: jail.to_owned(),
            ip,
            left,
            packets: member.packets,
            bytes: member.bytes,
            reason: ipset::reason_of(&member.comment)
                .chars()
                .map(printable)
                .collect(),
        }
    }
}

/// Every running ban, jail by jail. Of jails that are not configured any more, too: their sets may still be there.
pub(crate) fn rows(config: &Config, kernel: &mut dyn Firewall) -> Result<Vec<Row>, ActError> {
    let prefix = &config.firewall.set_prefix;
    let mut rows = Vec::new();
    for name in kernel.ours(prefix)? {
        let known = jails(config).find_map(|(_, jail)| {
            let set = SetRef::of(prefix, jail)
                .into_iter()
                .find(|s| s.name == name)?;
            Some((jail.name.as_str(), set))
        });
        let jail = known.as_ref().map_or_else(
            || name.strip_prefix(prefix.as_str()).unwrap_or(&name),
            |(jail, _)| jail,
        );
        let prefix = kernel.prefix_in(&name)?;
        kernel.list(&name, &mut |member| {
            rows.push(Row::new(jail, prefix, &member))
        })?;
    }
    rows.sort();
    Ok(rows)
}

/// Empties sets; how many bans that were.
pub(crate) fn empty(names: &[String], kernel: &mut dyn Firewall) -> Result<usize, ActError> {
    let mut bans = 0;
    for name in names {
        kernel.list(name, &mut |_| bans += 1)?;
        kernel.flush(name)?;
    }
    Ok(bans)
}
