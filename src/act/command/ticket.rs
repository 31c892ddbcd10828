//! What is known of a ban when its commands run.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Family;

/// Longest text of all matches, bytes: one argument of a program may have 128 KiB (MAX_ARG_STRLEN), mails are to be read.
pub const MATCHES_MAX: usize = 32 * 1024;
/// Longest of any other value, bytes.
const VALUE_MAX: usize = 4 * 1024;
/// Most captures kept.
const CAPTURES_MAX: usize = 32;

/// A ban, as the tags of a command show it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// `<fid>`: who is banned; an address unless the filter has an `<F-ID>`.
    pub id: String,
    /// `<ip>`: the address, or `id` again.
    pub ip: String,
    /// `<failures>`.
    pub failures: u64,
    /// `<time>`: of the ban, epoch seconds.
    pub time: f64,
    /// `<bantime>`: seconds, -1 for ever.
    pub ban_time: i64,
    /// `<bancount>`: how often banned before.
    pub ban_count: u64,
    /// `<matches>`: the lines that counted, oldest first.
    pub matches: Vec<String>,
    /// `<restored>`: the ban is older than this process.
    pub restored: bool,
    /// `<F-NAME>`: what the filter captured, by name in lower case (`user`); `<F-ID>` is `fid`, `<F-PORT>` is `fport`.
    pub captures: BTreeMap<String, String>,
    /// `<ipmatches>`, `<ipfailures>`: of all jails and earlier bans; `None`: those of this ban.
    pub everywhere: Option<Merged>,
    /// `<ipjailmatches>`, `<ipjailfailures>`: of this jail.
    pub in_jail: Option<Merged>,
    /// `<jail.*>`.
    pub counts: Counts,
}

/// What several bans of one address have together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// Their failures.
    pub failures: u64,
    /// Their lines.
    pub matches: Vec<String>,
}

/// A jail's numbers at the time of the ban.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Banned now.
    pub banned: u64,
    /// Banned so far.
    pub banned_total: u64,
    /// Clients with failures now.
    pub found: u64,
    /// Failures so far.
    pub found_total: u64,
}

impl Ticket {
    /// The tags that [`Ticket::value`] answers and a python class may ask for.
    pub(super) const TAGS: [&str; 19] = [
        "ip",
        "fid",
        "family",
        "ip-rev",
        "failures",
        "time",
        "bantime",
        "bancount",
        "restored",
        "matches",
        "ipmatches",
        "ipjailmatches",
        "ipfailures",
        "ipjailfailures",
        "jail.banned",
        "jail.banned_total",
        "jail.found",
        "jail.found_total",
        "raw-ticket",
    ];

    /// A ban of `ip` about which nothing else is known.
    #[must_use]
    pub fn of(ip: &str) -> Self {
        Self {
            id: ip.to_owned(),
            ip: ip.to_owned(),
            ..Self::default()
        }
    }

    /// Which family's commands it needs.
    #[must_use]
    pub fn family(&self) -> Family {
        let address = self.ip.parse::<IpAddr>();
        match address.or_else(|_| self.ip.parse::<IpNet>().map(|net| net.addr())) {
            Ok(IpAddr::V4(_)) => Family::Inet4,
            Ok(IpAddr::V6(_)) => Family::Inet6,
            Err(_) => Family::Any,
        }
    }

    /// Cuts what strangers wrote to what is kept of it: of the matches the newest.
    pub(super) fn bound(&mut self) {
        bound_lines(&mut self.matches);
        for merged in [&mut self.everywhere, &mut self.in_jail]
            .into_iter()
            .flatten()
        {
            bound_lines(&mut merged.matches);
        }
        cut(&mut self.id, VALUE_MAX);
        cut(&mut self.ip, VALUE_MAX);
        while self.captures.len() > CAPTURES_MAX && self.captures.pop_last().is_some() {}
        for value in self.captures.values_mut() {
            cut(value, VALUE_MAX);
        }
    }

    /// The same without lines.
    pub(super) fn without_matches(&mut self) {
        self.matches.clear();
        for merged in [&mut self.everywhere, &mut self.in_jail]
            .into_iter()
            .flatten()
        {
            merged.matches.clear();
        }
    }

    /// Bytes of its texts.
    pub(super) fn weight(&self) -> usize {
        let lines = |lines: &[String]| lines.iter().map(String::len).sum::<usize>();
        let merged = |merged: &Option<Merged>| merged.as_ref().map_or(0, |m| lines(&m.matches));
        let captures: usize = self
            .captures
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        size_of::<Self>()
            + self.id.len()
            + self.ip.len()
            + captures
            + lines(&self.matches)
            + merged(&self.everywhere)
            + merged(&self.in_jail)
    }

    /// The value of a tag, if it is one that a ticket answers; `<ip-host>` and host names are not.
    pub(super) fn value(&self, tag: &str) -> Option<Cow<'_, str>> {
        let number = |number: u64| Some(Cow::Owned(number.to_string()));
        let failures =
            |merged: &Option<Merged>| number(merged.as_ref().map_or(self.failures, |m| m.failures));
        let matches = |merged: &Option<Merged>| {
            let lines = merged.as_ref().map_or(&self.matches, |m| &m.matches);
            Some(Cow::Owned(lines.join("\n")))
        };
        match tag {
            "ip" => Some(Cow::Borrowed(&self.ip)),
            "fid" => Some(Cow::Borrowed(&self.id)),
            "family" => Some(Cow::Borrowed(match self.family() {
                Family::Any => "None",
                family @ (Family::Inet4 | Family::Inet6) => family.as_str(),
            })),
            "ip-rev" => Some(Cow::Owned(self.reverse())),
            "failures" => number(self.failures),
            "time" => Some(Cow::Owned(python_float(self.time))),
            "bantime" => Some(Cow::Owned(self.ban_time.to_string())),
            "bancount" => number(self.ban_count),
            "restored" => number(u64::from(self.restored)),
            "matches" => matches(&None),
            "ipmatches" => matches(&self.everywhere),
            "ipjailmatches" => matches(&self.in_jail),
            "ipfailures" => failures(&self.everywhere),
            "ipjailfailures" => failures(&self.in_jail),
            "jail.banned" => number(self.counts.banned),
            "jail.banned_total" => number(self.counts.banned_total),
            "jail.found" => number(self.counts.found),
            "jail.found_total" => number(self.counts.found_total),
            "raw-ticket" | "F-*" => Some(Cow::Owned(format!("{self:?}"))),
            _ => None,
        }
    }

    /// The value of `<F-NAME>`, `name` without `F-`.
    pub(super) fn capture(&self, name: &str) -> Option<Cow<'_, str>> {
        let name = match name.to_lowercase().as_str() {
            "id" => "fid".to_owned(),
            "port" => "fport".to_owned(),
            name => name.to_owned(),
        };
        match self.captures.get(&name) {
            Some(value) => Some(Cow::Borrowed(value)),
            None if name == "failures" => self.value("failures"),
            None => None,
        }
    }

    /// The address as DNS looks it up, with a dot at its end and without a zone.
    fn reverse(&self) -> String {
        let address = self.ip.parse::<IpAddr>();
        match address.or_else(|_| self.ip.parse::<IpNet>().map(|net| net.network())) {
            Ok(IpAddr::V4(ip)) => {
                let [a, b, c, d] = ip.octets();
                format!("{d}.{c}.{b}.{a}.")
            }
            Ok(IpAddr::V6(ip)) => {
                let nibbles = ip.octets().into_iter().rev();
                nibbles.fold(String::new(), |text, byte| {
                    text + &format!("{:x}.{:x}.", byte & 15, byte >> 4)
                })
            }
            Err(_) => String::new(),
        }
    }
}

/// A number as Python shows a float.
fn python_float(number: f64) -> String {
    format!("{number:?}")
}

/// Keeps the newest lines that fit into [`MATCHES_MAX`] bytes; a single longer one is cut.
fn bound_lines(lines: &mut Vec<String>) {
    let mut room = MATCHES_MAX;
    let fit = lines
        .iter()
        .rev()
        .take_while(|line| {
            let fits = line.len() < room;
            room = room.saturating_sub(line.len() + 1);
            fits
        })
        .count();
    let keep = fit.max(1).min(lines.len());
    lines.drain(..lines.len() - keep);
    for line in lines {
        cut(line, MATCHES_MAX);
    }
}

/// Cuts a text to at most `max` bytes, between characters.
pub(super) fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_matches_are_kept() {
        let mut ticket = Ticket::of("192.0.2.7");
        ticket.matches = (0..2000)
            .map(|n| format!("{n} {}", "x".repeat(100)))
            .collect();
        ticket.bound();
        assert!(ticket.value("matches").unwrap().len() <= MATCHES_MAX);
        assert!(ticket.matches.last().unwrap().starts_with("1999 "));
        ticket.matches = vec!["ä".repeat(MATCHES_MAX)];
        ticket.bound();
        assert_eq!(ticket.matches[0].len(), MATCHES_MAX);
    }

    #[test]
    fn an_address_reversed_is_what_dns_lists_ask_for() {
        assert_eq!(Ticket::of("192.0.2.7").reverse(), "7.2.0.192.");
        assert!(Ticket::of("2001:db8::1").reverse().starts_with("1.0.0.0."));
        assert_eq!(Ticket::of("somebody").reverse(), "");
    }
}
