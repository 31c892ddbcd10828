//! ipset's sets: making them, putting addresses in, taking them out, reading them.
//!
//! A ban is an element with a timeout, so the kernel ends it; its comment says why. A set survives this process, and with
//! it the bans. Numbers and layouts: linux/netfilter/ipset/ip_set.h.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::chain;
use super::firewall::{Add, Added, Ensured, Firewall, MAX_ELEMENTS, Member, Put, target_of};
use super::netlink::{self, Attrs, Refusal, Socket, WireError};
use super::plan::{Family, Found, Plan};
use super::{ActError, Kind, SetRef};
use crate::config::Config;
use crate::decide::BanFor;
use crate::exempt::Target;

/// Largest timeout the kernel keeps, seconds: (UINT_MAX >> 1) / MSEC_PER_SEC, ip_set.h. Longer ones are clamped silently
/// (6.18) or refused.
pub const TIMEOUT_MAX_SECS: u32 = (u32::MAX >> 1) / 1000;
/// For how long an address is banned that somebody puts into a set by hand without a timeout, seconds. Ours always
/// have one; without a default a set would have no timeouts at all.
const DEFAULT_TIMEOUT_SECS: u32 = 600;
/// Buckets at first: growing 1,024 to a million stalls the adder for up to 190 ms each time. 8 bytes each.
const HASHSIZE_IP: u32 = 65_536;
/// The same of networks, which are banned by hand, a few, and of [`SetRef::small`] ones: of a hundred jails whose sets
/// take 512 KiB each nearly all ban a few, and who bans a million has his stalls.
const HASHSIZE_SMALL: u32 = 1_024;
/// Longest comment, bytes: IPSET_MAX_COMMENT_SIZE.
const COMMENT_MAX_BYTES: usize = 255;
/// The newest revision asked for: it has timeout, counters and comment, and every kernel since 4.18 has it.
const REVISION_MAX: u8 = 4;
/// Elements put in with one message: 100 of at most 340 bytes stay under the 64 KiB of an attribute.
const BATCH: usize = 100;
/// NFNL_SUBSYS_IPSET.
const SUBSYSTEM: u16 = 6 << 8;
const CMD_PROTOCOL: u16 = SUBSYSTEM | 1;
const CMD_CREATE: u16 = SUBSYSTEM | 2;
const CMD_DESTROY: u16 = SUBSYSTEM | 3;
const CMD_FLUSH: u16 = SUBSYSTEM | 4;
const CMD_SWAP: u16 = SUBSYSTEM | 6;
const CMD_LIST: u16 = SUBSYSTEM | 7;
const CMD_ADD: u16 = SUBSYSTEM | 9;
const CMD_DEL: u16 = SUBSYSTEM | 10;
const CMD_TEST: u16 = SUBSYSTEM | 11;
const CMD_TYPE: u16 = SUBSYSTEM | 13;
const CMD_GET_BYINDEX: u16 = SUBSYSTEM | 15;

/// IPSET_PROTOCOL of 4.18; later kernels speak it, too.
const PROTOCOL: u8 = 6;
/// The one that knows CMD_GET_BYINDEX (4.20).
const PROTOCOL_OF_INDEX: u8 = 7;

// At the top of a message.
const ATTR_PROTOCOL: u16 = 1;
const ATTR_SETNAME: u16 = 2;
const ATTR_TYPENAME: u16 = 3;
const ATTR_SETNAME2: u16 = 3;
const ATTR_REVISION: u16 = 4;
const ATTR_FAMILY: u16 = 5;
const ATTR_FLAGS: u16 = 6;
const ATTR_DATA: u16 = 7;
const ATTR_ADT: u16 = 8;
const ATTR_LINENO: u16 = 9;
const ATTR_INDEX: u16 = 11;
// Inside data.
const ATTR_IP: u16 = 1;
const ATTR_CIDR: u16 = 3;
const ATTR_TIMEOUT: u16 = 6;
const ATTR_CADT_FLAGS: u16 = 8;
const ATTR_HASHSIZE: u16 = 18;
const ATTR_MAXELEM: u16 = 19;
const ATTR_NETMASK: u16 = 20;
const ATTR_BYTES: u16 = 24;
const ATTR_PACKETS: u16 = 25;
const ATTR_COMMENT: u16 = 26;
// Inside an address.
const ATTR_IPV4: u16 = 1;
const ATTR_IPV6: u16 = 2;

/// IPSET_FLAG_LIST_SETNAME: names only.
const LIST_SETNAME: u32 = 2;
/// IPSET_FLAG_LIST_HEADER: no elements.
const LIST_HEADER: u32 = 4;
/// IPSET_FLAG_WITH_COUNTERS and IPSET_FLAG_WITH_COMMENT.
const WITH_COUNTERS_AND_COMMENT: u32 = 8 | 16;

/// What a set is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// `hash:ip`.
    pub typename: String,
    /// 2: IPv4, 10: IPv6.
    pub family: u8,
    /// Seconds; `None`: it has no timeouts.
    pub timeout: Option<u32>,
    /// Most elements.
    pub maxelem: u32,
    /// `netmask`, if it is not the full length.
    pub netmask: Option<u8>,
    /// IPSET_FLAG_WITH_....
    pub flags: u32,
}

impl Header {
    /// Whether we can have made it: another program would hardly ask for all of this under our name.
    #[must_use]
    pub fn is_like_ours(&self) -> bool {
        [Kind::Ip4, Kind::Net4]
            .iter()
            .any(|kind| type_name(*kind) == self.typename)
            && self.timeout.is_some()
            && self.flags & WITH_COUNTERS_AND_COMMENT == WITH_COUNTERS_AND_COMMENT
    }
}

/// A connection to the kernel's sets.
#[derive(Debug)]
pub struct Ipset {
    wire: Socket,
    /// Of hash:ip and of hash:net.
    revisions: (u8, u8),
    /// The comment being written; kept, so that a ban allocates nothing.
    comment: String,
}

impl Ipset {
    /// Connects, and asks the kernel what it has.
    ///
    /// # Errors
    /// [`ActError::NoIpset`] and [`ActError::NoRights`] say that there is no use in going on.
    pub fn open() -> Result<Self, ActError> {
        let refused = |error| {
            // nfnetlink answers EINVAL when it has no such subsystem and no module for it (nfnetlink_rcv_msg).
            if [
                WireError::Open(Errno::EPROTONOSUPPORT),
                WireError::Refused(Refusal::Os(Errno::EINVAL)),
                WireError::Refused(Refusal::NoSuchType),
            ]
            .contains(&error)
            {
                ActError::NoIpset
            } else {
                ActError::wire("ipset open", "", error)
            }
        };
        let mut wire = Socket::open(SockProtocol::NetlinkNetFilter, 0).map_err(refused)?;
        wire.exchange(
            CMD_PROTOCOL,
            0,
            &head(libc_family(Kind::Ip4)),
            |a| a.u8(ATTR_PROTOCOL, PROTOCOL),
            |_, _| {},
        )
        .map_err(refused)?;
        let mut ipset = Self {
            wire,
            revisions: (0, 0),
            comment: String::with_capacity(COMMENT_MAX_BYTES),
        };
        ipset.revisions = (
            ipset.revision(Kind::Ip4).map_err(refused)?,
            ipset.revision(Kind::Net4).map_err(refused)?,
        );
        Ok(ipset)
    }

    /// The revision of a set type to be asked for.
    fn revision(&mut self, kind: Kind) -> Result<u8, WireError> {
        let mut newest = None;
        self.wire.exchange(
            CMD_TYPE,
            0,
            &head(libc_family(kind)),
            |a| {
                a.u8(ATTR_PROTOCOL, PROTOCOL);
                a.text(ATTR_TYPENAME, type_name(kind));
                a.u8(ATTR_FAMILY, libc_family(kind));
            },
            |_, payload| {
                for (attr, value) in attrs(payload) {
                    if attr == ATTR_REVISION {
                        newest = value.first().copied();
                    }
                }
            },
        )?;
        Ok(newest.unwrap_or(0).min(REVISION_MAX))
    }

    /// Makes a set called `name` with the parameters of `set`.
    fn create(&mut self, name: &str, set: &SetRef) -> Result<(), WireError> {
        let (revision, hashsize) = match set.kind {
            Kind::Ip4 | Kind::Ip6 if !set.small => (self.revisions.0, HASHSIZE_IP),
            Kind::Ip4 | Kind::Ip6 => (self.revisions.0, HASHSIZE_SMALL),
            Kind::Net4 | Kind::Net6 => (self.revisions.1, HASHSIZE_SMALL),
        };
        self.wire.exchange(
            CMD_CREATE,
            netlink::CREATE | netlink::EXCL,
            &head(libc_family(set.kind)),
            |a| {
                a.u8(ATTR_PROTOCOL, PROTOCOL);
                a.text(ATTR_SETNAME, name);
                a.text(ATTR_TYPENAME, type_name(set.kind));
                a.u8(ATTR_REVISION, revision);
                a.u8(ATTR_FAMILY, libc_family(set.kind));
                a.nest(ATTR_DATA, |a| {
                    a.be32(ATTR_TIMEOUT, DEFAULT_TIMEOUT_SECS);
                    a.be32(ATTR_CADT_FLAGS, WITH_COUNTERS_AND_COMMENT);
                    a.be32(ATTR_HASHSIZE, hashsize);
                    a.be32(ATTR_MAXELEM, MAX_ELEMENTS);
                    if set.kind == Kind::Ip6 {
                        a.u8(ATTR_NETMASK, set.ipv6_prefix);
                    }
                });
            },
            |_, _| {},
        )
    }

    /// What the set is; `None`: there is none.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn header(&mut self, name: &str) -> Result<Option<Header>, ActError> {
        let mut found = None;
        let asked = self.wire.exchange(
            CMD_LIST,
            netlink::DUMP,
            &head(libc_family(Kind::Ip4)),
            |a| {
                a.u8(ATTR_PROTOCOL, PROTOCOL);
                a.text(ATTR_SETNAME, name);
                a.be32(ATTR_FLAGS, LIST_HEADER);
            },
            |_, payload| {
                found.get_or_insert_with(|| read_header(payload));
            },
        );
        match asked {
            Ok(()) => Ok(found),
            Err(WireError::Refused(Refusal::Os(Errno::ENOENT))) => Ok(None),
            Err(other) => Err(ActError::wire("ipset header", name, other)),
        }
    }

    fn one(
        &mut self,
        cmd: u16,
        what: &'static str,
        set: &SetRef,
        who: Target,
    ) -> Result<bool, ActError> {
        let sent = self.wire.exchange(
            cmd,
            netlink::EXCL,
            &head(libc_family(set.kind)),
            |a| {
                about(a, &set.name);
                a.nest(ATTR_DATA, |a| element(a, who));
            },
            |_, _| {},
        );
        match sent {
            Ok(()) => Ok(true),
            Err(WireError::Refused(Refusal::Element | Refusal::Os(Errno::ENOENT))) => Ok(false),
            Err(other) => Err(ActError::wire(what, &format!("{} {who}", set.name), other)),
        }
    }

    /// Takes the set away; no rule may refer to it. One that is not there is away.
    ///
    /// # Errors
    /// [`ActError::Wire`] with [`Refusal::Busy`] while a rule refers to it.
    pub fn destroy(&mut self, name: &str) -> Result<(), ActError> {
        self.whole(CMD_DESTROY, "ipset destroy", name)
    }

    fn whole(&mut self, cmd: u16, what: &'static str, name: &str) -> Result<(), ActError> {
        match self.wire.exchange(
            cmd,
            0,
            &head(libc_family(Kind::Ip4)),
            |a| about(a, name),
            |_, _| {},
        ) {
            Ok(()) | Err(WireError::Refused(Refusal::Os(Errno::ENOENT))) => Ok(()),
            Err(other) => Err(ActError::wire(what, name, other)),
        }
    }

    /// Copies elements with what is left of their time.
    fn copy(&mut self, from: &str, to: &str, kind: Kind) -> Result<(), ActError> {
        let mut elements = Vec::new();
        self.list(from, &mut |member| {
            elements.extend(target_of(&member).map(|who| Element {
                who,
                timeout: member.left.unwrap_or(0),
                counters: Some((member.bytes, member.packets)),
                comment: member.comment,
            }));
        })?;
        for batch in elements.chunks(BATCH) {
            self.put(to, kind, batch)
                .map_err(|error| ActError::wire("ipset copy", to, error))?;
        }
        Ok(())
    }

    /// Puts up to [`BATCH`] elements in with one message; those before one that is refused are in.
    fn put(&mut self, name: &str, kind: Kind, elements: &[Element]) -> Result<(), WireError> {
        self.wire.exchange(
            CMD_ADD,
            0,
            &head(libc_family(kind)),
            |a| {
                about(a, name);
                // Many elements are only read if the message has a line number and each element one.
                a.be32(ATTR_LINENO, 0);
                a.nest(ATTR_ADT, |a| {
                    for one in elements {
                        a.nest(ATTR_DATA, |a| {
                            element(a, one.who);
                            a.be32(ATTR_LINENO, 0);
                            a.be32(ATTR_TIMEOUT, one.timeout);
                            if let Some((bytes, packets)) = one.counters {
                                a.be64(ATTR_BYTES, bytes);
                                a.be64(ATTR_PACKETS, packets);
                            }
                            a.text(ATTR_COMMENT, &one.comment);
                        });
                    }
                });
            },
            |_, _| {},
        )
    }
}

impl Firewall for Ipset {
    fn name(&self) -> &'static str {
        "ipset"
    }

    fn shown_by(&self, set: &str) -> String {
        format!("ipset list {set}")
    }

    fn ensure(&mut self, set: &SetRef) -> Result<Ensured, ActError> {
        // To make a set that is there already costs the kernel a table, which it throws away.
        if let Some(header) = self.header(&set.name)? {
            return judge(&header, set);
        }
        match self.create(&set.name, set) {
            Ok(()) => Ok(Ensured::Made),
            Err(WireError::Refused(Refusal::Os(Errno::EEXIST))) => {
                let header = self.header(&set.name)?;
                judge(&header.ok_or_else(|| ActError::no_set(&set.name))?, set)
            }
            Err(other) => Err(ActError::wire("ipset create", &set.name, other)),
        }
    }

    fn look(&mut self, set: &SetRef) -> Result<bool, ActError> {
        match self.header(&set.name)? {
            Some(header) => judge(&header, set).map(|_| true),
            None => Ok(false),
        }
    }

    fn migrate(&mut self, set: &SetRef, set_prefix: &str) -> Result<(), ActError> {
        // By way of a second set and a swap, so that rules and bans hold all the time.
        let scratch = &scratch(set_prefix);
        self.destroy(scratch)?;
        self.create(scratch, set)
            .map_err(|error| ActError::wire("ipset create", scratch, error))?;
        self.copy(&set.name, scratch, set.kind)?;
        self.wire
            .exchange(
                CMD_SWAP,
                0,
                &head(libc_family(set.kind)),
                |a| {
                    about(a, scratch);
                    a.text(ATTR_SETNAME2, &set.name);
                },
                |_, _| {},
            )
            .map_err(|error| ActError::wire("ipset swap", &set.name, error))?;
        // Once more, for the bans of the milliseconds between copy and swap.
        self.copy(scratch, &set.name, set.kind)?;
        self.destroy(scratch)
    }

    fn add(
        &mut self,
        set: &SetRef,
        who: Target,
        ban_for: BanFor,
        reason: &str,
        mode: Add,
    ) -> Result<Added, ActError> {
        let secs = seconds(ban_for);
        write_comment(&mut self.comment, reason, secs, COMMENT_MAX_BYTES);
        let comment = &self.comment;
        let flags = match mode {
            Add::New => netlink::EXCL,
            Add::Replace => 0,
        };
        let sent = self
            .wire
            .order(CMD_ADD, flags, &head(libc_family(set.kind)), |a| {
                about(a, &set.name);
                a.nest(ATTR_DATA, |a| {
                    element(a, who);
                    a.be32(ATTR_TIMEOUT, secs.min(TIMEOUT_MAX_SECS));
                    a.text(ATTR_COMMENT, comment);
                });
            });
        match sent {
            Ok(()) => Ok(Added::New),
            Err(WireError::Refused(Refusal::Element)) => Ok(Added::Already),
            Err(WireError::Refused(Refusal::Os(Errno::ENOENT))) => Err(ActError::no_set(&set.name)),
            Err(WireError::Refused(Refusal::Full)) => Err(ActError::Full {
                set: set.name.clone(),
            }),
            Err(WireError::Refused(Refusal::NoTimeout)) => {
                Err(ActError::foreign(&set.name, "it has no timeouts"))
            }
            Err(WireError::Refused(Refusal::NoComment)) => {
                Err(ActError::foreign(&set.name, "it has no comments"))
            }
            Err(other) => Err(ActError::wire(
                "ipset add",
                &format!("{} {who}", set.name),
                other,
            )),
        }
    }

    fn del(&mut self, set: &SetRef, who: Target) -> Result<bool, ActError> {
        self.one(CMD_DEL, "ipset delete", set, who)
    }

    fn test(&mut self, set: &SetRef, who: Target) -> Result<bool, ActError> {
        self.one(CMD_TEST, "ipset test", set, who)
    }

    fn list(&mut self, name: &str, each: &mut dyn FnMut(Member)) -> Result<(), ActError> {
        let asked = self.wire.exchange(
            CMD_LIST,
            netlink::DUMP,
            &head(libc_family(Kind::Ip4)),
            |a| about(a, name),
            |_, payload| {
                for (_, list) in attrs(payload).filter(|(attr, _)| *attr == ATTR_ADT) {
                    for (_, entry) in netlink::attrs(list).filter(|(attr, _)| *attr == ATTR_DATA) {
                        if let Some(member) = read_member(entry) {
                            each(member);
                        }
                    }
                }
            },
        );
        match asked {
            Ok(()) | Err(WireError::Refused(Refusal::Os(Errno::ENOENT))) => Ok(()),
            Err(other) => Err(ActError::wire("ipset list", name, other)),
        }
    }

    fn names(&mut self, prefix: &str) -> Result<Vec<String>, ActError> {
        let mut names = Vec::new();
        self.wire
            .exchange(
                CMD_LIST,
                netlink::DUMP,
                &head(libc_family(Kind::Ip4)),
                |a| {
                    a.u8(ATTR_PROTOCOL, PROTOCOL);
                    a.be32(ATTR_FLAGS, LIST_SETNAME);
                },
                |_, payload| {
                    for (attr, value) in attrs(payload) {
                        if attr == ATTR_SETNAME && value.starts_with(prefix.as_bytes()) {
                            names.push(netlink::text(value));
                        }
                    }
                },
            )
            .map_err(|error| ActError::wire("ipset list", prefix, error))?;
        names.sort();
        Ok(names)
    }

    fn ours(&mut self, prefix: &str) -> Result<Vec<String>, ActError> {
        let mut ours = Vec::new();
        for name in self.names(prefix)? {
            if self.header(&name)?.is_some_and(|h| h.is_like_ours()) {
                ours.push(name);
            }
        }
        Ok(ours)
    }

    fn flush(&mut self, name: &str) -> Result<(), ActError> {
        self.whole(CMD_FLUSH, "ipset flush", name)
    }

    fn add_many(&mut self, set: &SetRef, bans: &[Put]) -> Result<(), ActError> {
        let mut comment = String::new();
        for batch in bans.chunks(BATCH) {
            let elements = batch.iter().map(|put| {
                let secs = seconds(put.ban_for);
                write_comment(&mut comment, &put.reason, secs, COMMENT_MAX_BYTES);
                Element {
                    who: put.who,
                    timeout: secs.min(TIMEOUT_MAX_SECS),
                    counters: None,
                    comment: comment.clone(),
                }
            });
            let elements: Vec<Element> = elements.collect();
            match self.put(&set.name, set.kind, &elements) {
                Ok(()) => {}
                Err(WireError::Refused(Refusal::Full)) => {
                    return Err(ActError::Full {
                        set: set.name.clone(),
                    });
                }
                Err(WireError::Refused(Refusal::Os(Errno::ENOENT))) => {
                    return Err(ActError::no_set(&set.name));
                }
                // Those before the one that the kernel does not take are in.
                Err(WireError::Refused(_)) if batch.len() > 1 => {
                    for put in batch {
                        self.add_many(set, std::slice::from_ref(put))?;
                    }
                }
                Err(WireError::Refused(refusal)) => {
                    log::debug!("{}: {refusal}", set.name);
                }
                Err(error) => return Err(ActError::wire("ipset add", &set.name, error)),
            }
        }
        Ok(())
    }

    fn prefix_in(&mut self, name: &str) -> Result<Option<u8>, ActError> {
        let header = self.header(name)?;
        Ok(header.map(|header| header.netmask.unwrap_or(128)))
    }

    fn families(&self) -> &'static [Family] {
        &Family::ALL
    }

    fn named(&self, plan: &Plan, family: Family) -> String {
        chain::named(plan, family)
    }

    fn found(&mut self, plan: &Plan, family: Family) -> Result<Found, ActError> {
        Ok(chain::look(plan, family)?)
    }

    fn place(&mut self, plan: &Plan, family: Family) -> Result<(), ActError> {
        Ok(chain::place(plan, family)?)
    }

    fn remove_others(&mut self, config: &Config, plans: &[Plan]) -> Result<(), ActError> {
        let mut done = Ok(());
        for family in Family::ALL {
            done = done.and(chain::remove_others(config, plans, family));
        }
        Ok(done?)
    }

    fn remove(&mut self, config: &Config) -> Result<(), ActError> {
        let mut done = self.remove_others(config, &[]);
        for name in self.ours(&config.firewall.set_prefix)? {
            done = done.and(self.destroy(&name));
        }
        done
    }
}

/// The name of the set that is there during a migration. No jail can have it: their names begin with a letter or digit.
fn scratch(set_prefix: &str) -> String {
    format!("{set_prefix}~new")
}

/// As the kernel reads it: 0 is for ever.
fn seconds(ban_for: BanFor) -> u32 {
    match ban_for {
        BanFor::Timed(secs) => secs.get(),
        BanFor::Forever => 0,
    }
}

/// One of many that are put in.
struct Element {
    who: Target,
    /// Seconds; 0: for ever.
    timeout: u32,
    /// Bytes and packets.
    counters: Option<(u64, u64)>,
    comment: String,
}

/// When a ban really ends, by its comment: of those that last longer than the kernel can count.
#[must_use]
pub fn until(comment: &str) -> Option<DateTime<Utc>> {
    let (_, end) = comment.rsplit_once("until ")?;
    let end = end.strip_suffix('Z')?;
    let end = NaiveDateTime::parse_from_str(end, "%Y-%m-%dT%H:%M:%S").ok()?;
    Some(end.and_utc())
}

/// A comment without its `until ...`.
#[must_use]
pub fn reason_of(comment: &str) -> &str {
    match (until(comment), comment.rsplit_once("until ")) {
        (Some(_), Some((reason, _))) => reason.trim_end(),
        _ => comment,
    }
}

/// A comment of at most `max` bytes: printable ASCII without `"` and `\`, which `ipset save` could not write so that `ipset restore` reads it.
pub(super) fn write_comment(comment: &mut String, reason: &str, secs: u32, max: usize) {
    comment.clear();
    let mut end = String::new();
    if secs > TIMEOUT_MAX_SECS
        && let Some(when) = Utc::now().checked_add_signed(chrono::TimeDelta::seconds(secs.into()))
    {
        // Writing to a String cannot fail.
        write!(
            end,
            " until {}",
            when.to_rfc3339_opts(SecondsFormat::Secs, true)
        )
        .unwrap_or_default();
    }
    let plain = |c: char| match c {
        '"' | '\\' => '\'',
        ' '..='~' => c,
        _ => '?',
    };
    let room = max.saturating_sub(end.len());
    comment.extend(reason.chars().map(plain).take(room));
    if end.is_empty() && until(comment).is_some() {
        // The reason is partly what a client wrote; it shall not make his ban look longer than it is.
        comment.pop();
    }
    comment.push_str(&end);
}

/// Whether a set that has our name is ours, and as wanted.
fn judge(header: &Header, set: &SetRef) -> Result<Ensured, ActError> {
    let foreign = |why| Err(ActError::foreign(&set.name, why));
    if header.typename != type_name(set.kind) {
        return foreign("it is of another type");
    }
    if header.family != libc_family(set.kind) {
        return foreign("it is for the other address family");
    }
    if header.timeout.is_none() {
        return foreign("it has no timeouts");
    }
    if header.flags & WITH_COUNTERS_AND_COMMENT != WITH_COUNTERS_AND_COMMENT {
        return foreign("it has no counters and comments");
    }
    let netmask = match set.kind {
        Kind::Ip6 => Some(set.ipv6_prefix).filter(|prefix| *prefix != 128),
        Kind::Ip4 | Kind::Net4 | Kind::Net6 => None,
    };
    let wanted = header.maxelem == MAX_ELEMENTS
        && header.timeout == Some(DEFAULT_TIMEOUT_SECS)
        && header.netmask == netmask;
    Ok(if wanted {
        Ensured::There
    } else {
        Ensured::Outdated
    })
}

/// The name of the set that a rule of xtables means by its index. `None`: there is no such set, or the kernel cannot say.
pub(super) fn name_of(wire: &mut Socket, index: u16) -> Option<String> {
    let mut name = None;
    wire.exchange(
        CMD_GET_BYINDEX,
        0,
        &head(libc_family(Kind::Ip4)),
        |a| {
            a.u8(ATTR_PROTOCOL, PROTOCOL_OF_INDEX);
            a.be16(ATTR_INDEX, index);
        },
        |_, payload| {
            let mut all = attrs(payload).filter(|(attr, _)| *attr == ATTR_SETNAME);
            name = all.next().map(|(_, value)| netlink::text(value));
        },
    )
    .ok()?;
    name
}

/// nfgenmsg: family, version 0, resource 0.
fn head(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// The type of its sets.
fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Ip4 | Kind::Ip6 => "hash:ip",
        Kind::Net4 | Kind::Net6 => "hash:net",
    }
}

/// AF_INET, AF_INET6.
fn libc_family(kind: Kind) -> u8 {
    match kind {
        Kind::Ip4 | Kind::Net4 => 2,
        Kind::Ip6 | Kind::Net6 => 10,
    }
}

/// The attributes behind nfgenmsg.
fn attrs(payload: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    netlink::attrs(payload.get(4..).unwrap_or_default())
}

fn about(a: &mut Attrs<'_>, name: &str) {
    a.u8(ATTR_PROTOCOL, PROTOCOL);
    a.text(ATTR_SETNAME, name);
}

fn element(a: &mut Attrs<'_>, who: Target) {
    let (addr, cidr) = match who {
        Target::Client(client) => (client.addr(), None),
        Target::Net(net) => (net.network(), Some(net.prefix_len())),
    };
    a.nest(ATTR_IP, |a| match addr {
        IpAddr::V4(v4) => a.address(ATTR_IPV4, &v4.octets()),
        IpAddr::V6(v6) => a.address(ATTR_IPV6, &v6.octets()),
    });
    if let Some(cidr) = cidr {
        a.u8(ATTR_CIDR, cidr);
    }
}

fn read_header(payload: &[u8]) -> Header {
    let mut header = Header::default();
    for (attr, value) in attrs(payload) {
        match attr {
            ATTR_TYPENAME => header.typename = netlink::text(value),
            ATTR_FAMILY => header.family = value.first().copied().unwrap_or(0),
            ATTR_DATA => {
                for (attr, value) in netlink::attrs(value) {
                    match attr {
                        ATTR_TIMEOUT => header.timeout = netlink::be32(value),
                        ATTR_MAXELEM => header.maxelem = netlink::be32(value).unwrap_or(0),
                        ATTR_NETMASK => header.netmask = value.first().copied(),
                        ATTR_CADT_FLAGS => header.flags = netlink::be32(value).unwrap_or(0),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    header
}

fn read_member(entry: &[u8]) -> Option<Member> {
    let mut member = Member {
        addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        cidr: None,
        left: None,
        packets: 0,
        bytes: 0,
        comment: String::new(),
    };
    let mut found = false;
    for (attr, value) in netlink::attrs(entry) {
        match attr {
            ATTR_IP => {
                let (family, octets) = netlink::attrs(value).next()?;
                member.addr = match family {
                    ATTR_IPV4 => IpAddr::V4(Ipv4Addr::from(*octets.first_chunk::<4>()?)),
                    ATTR_IPV6 => IpAddr::V6(Ipv6Addr::from(*octets.first_chunk::<16>()?)),
                    _ => return None,
                };
                found = true;
            }
            ATTR_CIDR => member.cidr = value.first().copied(),
            ATTR_TIMEOUT => member.left = netlink::be32(value).filter(|secs| *secs > 0),
            ATTR_BYTES => member.bytes = netlink::be64(value).unwrap_or(0),
            ATTR_PACKETS => member.packets = netlink::be64(value).unwrap_or(0),
            ATTR_COMMENT => member.comment = netlink::text(value),
            _ => {}
        }
    }
    found.then_some(member)
}

/// How long a ban that lasts longer than the kernel can count still has to last. `None`: it has ended.
#[must_use]
pub fn rest(end: DateTime<Utc>, now: DateTime<Utc>) -> Option<BanFor> {
    let left = end.signed_duration_since(now).to_std().ok()?;
    BanFor::timed(Duration::from_secs(left.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comment(reason: &str, secs: u32) -> String {
        let mut out = "left over".to_owned();
        write_comment(&mut out, reason, secs, COMMENT_MAX_BYTES);
        out
    }

    #[test]
    fn a_comment_is_plain_and_short() {
        assert_eq!(comment("100 hits in 1s", 600), "100 hits in 1s");
        assert_eq!(comment("GET \"/\\x\"\n\u{1b}[31mé", 1), "GET '/'x'??[31m?");
        assert_eq!(comment(&"a".repeat(300), 1).len(), 255);
        assert_eq!(comment(&"é".repeat(300), u32::MAX).len(), 255);
    }

    #[test]
    fn a_ban_longer_than_the_kernel_can_count_says_when_it_ends() {
        assert_eq!(until(&comment("x", TIMEOUT_MAX_SECS)), None);
        let text = comment("three strikes", 100 * 86_400);
        assert_eq!(reason_of(&text), "three strikes");
        let end = until(&text).unwrap();
        let days = end.signed_duration_since(Utc::now()).num_hours();
        assert!((2399..=2400).contains(&days), "{text}");
        assert_eq!(
            rest(end, end - chrono::TimeDelta::seconds(90)),
            BanFor::timed(Duration::from_secs(90))
        );
        assert_eq!(rest(end, end), None);
        assert_eq!(rest(end, end + chrono::TimeDelta::days(9)), None);
    }

    #[test]
    fn a_client_cannot_write_an_end_of_his_ban() {
        for reason in [
            "GET /until 2099-01-01T00:00:00Z",
            "until 2099-01-01T00:00:00Z",
        ] {
            let text = comment(reason, 600);
            assert_eq!(until(&text), None, "{text}");
        }
        let long = format!("{}until 2099-01-01T00:00:00Z", "a".repeat(229));
        assert_eq!(until(&comment(&long, 600)), None);
    }

    #[test]
    fn another_programs_set_is_known_by_what_it_lacks() {
        let set = SetRef::new("f2bp-", "web", Kind::Ip6, 64);
        let ours = Header {
            typename: "hash:ip".into(),
            family: 10,
            timeout: Some(DEFAULT_TIMEOUT_SECS),
            maxelem: MAX_ELEMENTS,
            netmask: Some(64),
            flags: 24,
        };
        assert_eq!(judge(&ours, &set).unwrap(), Ensured::There);
        let other_prefix = Header {
            netmask: Some(56),
            ..ours.clone()
        };
        assert_eq!(judge(&other_prefix, &set).unwrap(), Ensured::Outdated);
        for foreign in [
            Header {
                typename: "hash:net".into(),
                ..ours.clone()
            },
            Header {
                family: 2,
                ..ours.clone()
            },
            Header {
                timeout: None,
                ..ours.clone()
            },
            Header { flags: 8, ..ours },
        ] {
            assert!(matches!(
                judge(&foreign, &set),
                Err(ActError::Foreign { .. })
            ));
        }
    }
}
