//! nf_tables: a table of our own with sets and rules in it, made, filled and read through netlink alone.
//!
//! `inet f2b-pipe` holds the sets, with the names that they have in ipset, and a chain for each way to turn somebody away:
//! `prerouting` (before connection tracking) and `input`. Another table's `accept` does not end the way of a packet through
//! ours, so nobody can come before us, only take us away. Whatever has to hold together is one transaction of the
//! kernel's. Numbers and layouts: linux/netfilter/nf_tables.h; comments (userdata) as `nft` writes and shows them.
//!
//! A set holds single addresses, or prefixes of one length: rules cut the sender's address before they look. Networks are
//! banned by prefixes of any length, so those have a set for each length in use, `f2bp-sshd-n/24`. (nf_tables has sets of
//! intervals, too, but refuses a network in which another one lies, which ipset takes.)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::firewall::{
    Add, Added, DOOMED_MAX, Ensured, Firewall, MAX_ELEMENTS, Member, Put, target_of,
};
use super::ipset::write_comment;
use super::netlink::{self, APPEND, Attrs, Batch, CREATE, DUMP, EXCL, Refusal, Socket, WireError};
use super::plan::{Family, Found, Place, Plan, Rule, chain_name};
use super::{ActError, SetRef};
use crate::config::{Blocktype, Config, Protocol};
use crate::decide::BanFor;
use crate::exempt::Target;

/// NFNL_SUBSYS_NFTABLES.
pub(super) const SUBSYSTEM: u16 = 10;
const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
pub(super) const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
pub(super) const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const GETSET: u16 = 10;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
const GETGEN: u16 = 16;

/// nfgenmsg: NFPROTO_INET, version 0, resource 0.
const HEAD: [u8; 4] = [1, 0, 0, 0];
/// NFPROTO_IPV4 and NFPROTO_IPV6, which iptables' tables are of.
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// Longest comment of an element, bytes: a comment has its length in one byte, its NUL counts, and what it says of itself
/// takes two of the 256 that the kernel keeps (NFT_USERDATA_MAXLEN).
const COMMENT_MAX_BYTES: usize = 253;
/// The comment of our table, by which it is known.
const TABLE_COMMENT: &str = "made by f2b-pipe";
/// The userdata of tables, rules and elements is a list of type, length, value; 0 is the comment in each.
const UDATA_COMMENT: u8 = 0;
/// Of sets (NFTNL_UDATA_SET_COMMENT).
const UDATA_SET_COMMENT: u8 = 7;
/// What the comment of a set begins with; the length of its prefixes follows.
const SET_COMMENT: &str = "by /";
/// How often the kernel sweeps up what has timed out, milliseconds; it looks at the whole set each time. What has timed out
/// meets nobody, swept or not.
const SWEEP_MS: u32 = 10_000;
/// One message puts in as much as this, bytes: an attribute holds 64 KiB, and the last element may take 350.
const MESSAGE_BYTES: usize = 48 * 1024;
/// How often a listing that was disturbed is begun anew.
const LISTINGS: u32 = 3;
/// Flags of a set: NFT_SET_TIMEOUT; NFT_SET_ANONYMOUS and NFT_SET_CONSTANT.
const SET_TIMEOUT: u32 = 0x10;
const SET_CONSTANT: u32 = 3;
/// nft's numbers of the types ipv4_addr, ipv6_addr, inet_service.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PORT: u32 = 13;

/// What a plan's chain is called, which hook it is at, and its priority there.
fn chain_of(place: Place) -> (&'static str, u32, i32) {
    /// NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN.
    const PREROUTING: u32 = 0;
    const INPUT: u32 = 1;
    // NF_IP_PRI_RAW: before connection tracking. The other comes before NF_IP_PRI_FILTER.
    match place == Place::REJECT {
        false => ("prerouting", PREROUTING, -300),
        true => ("input", INPUT, -10),
    }
}

/// A set as the kernel has it: addresses of one family, cut to one length.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Set {
    name: String,
    family: Family,
    /// Bits.
    length: u8,
}

impl Set {
    /// The one in which `who` belongs.
    fn of(set: &SetRef, who: Target) -> Self {
        match who {
            Target::Net(net) => Self::nets(set, net.prefix_len()),
            Target::Client(_) => Self::clients(set),
        }
    }

    fn clients(set: &SetRef) -> Self {
        let family = Family::of(set.kind);
        Self {
            name: set.name.clone(),
            family,
            length: match family {
                Family::Inet => 32,
                Family::Inet6 => set.ipv6_prefix,
            },
        }
    }

    fn nets(set: &SetRef, length: u8) -> Self {
        Self {
            name: format!("{}/{length}", set.name),
            family: Family::of(set.kind),
            length,
        }
    }

    fn key_type(&self) -> u32 {
        match self.family {
            Family::Inet => TYPE_IPV4,
            Family::Inet6 => TYPE_IPV6,
        }
    }
}

/// Bytes of an address.
fn bytes_of(family: Family) -> u8 {
    match family {
        Family::Inet => 4,
        Family::Inet6 => 16,
    }
}

/// `f2bp-sshd-n` of `f2bp-sshd-n/24`. The names of jails have no `/`.
fn set_name(name: &str) -> &str {
    name.split_once('/').map_or(name, |(name, _)| name)
}

/// What the kernel says of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Header {
    name: String,
    key_type: u32,
    flags: u32,
    comment: String,
}

impl Header {
    /// The length of the prefixes in it, if we made it.
    fn length(&self) -> Option<u8> {
        self.comment.strip_prefix(SET_COMMENT)?.parse().ok()
    }

    fn is(&self, set: &Set) -> bool {
        self.key_type == set.key_type()
            && self.flags == SET_TIMEOUT
            && self.length() == Some(set.length)
    }
}

/// A connection to our table.
#[derive(Debug)]
pub struct Nft {
    wire: Socket,
    /// `f2b-pipe`.
    table: String,
    /// The comment being written; kept, so that a ban allocates nothing.
    comment: String,
}

impl Nft {
    /// Connects, and asks whether the kernel has nf_tables. The table is named after `set_prefix`.
    ///
    /// # Errors
    /// [`ActError::NoNftables`] and [`ActError::NoRights`] say that there is no use in going on.
    pub fn open(set_prefix: &str) -> Result<Self, ActError> {
        let refused = |error| {
            // nfnetlink answers EINVAL or EOPNOTSUPP when it has no such subsystem and no module for it.
            if [
                WireError::Open(Errno::EPROTONOSUPPORT),
                WireError::Refused(Refusal::Os(Errno::EINVAL)),
                WireError::Refused(Refusal::Os(Errno::EOPNOTSUPP)),
            ]
            .contains(&error)
            {
                ActError::NoNftables
            } else {
                ActError::wire("nftables open", "", error)
            }
        };
        let mut wire = Socket::open(SockProtocol::NetlinkNetFilter, 0).map_err(refused)?;
        wire.exchange(SUBSYSTEM << 8 | GETGEN, 0, &[0; 4], |_| {}, |_, _| {})
            .map_err(refused)?;
        wire.widen()
            .map_err(|error| ActError::wire("nftables open", "", error))?;
        Ok(Self {
            wire,
            table: chain_name(set_prefix),
            comment: String::with_capacity(COMMENT_MAX_BYTES),
        })
    }

    /// Whether our table is there.
    ///
    /// # Errors
    /// [`ActError::Foreign`]: a table of its name is there, which is not ours.
    pub fn is_in_use(&mut self) -> Result<bool, ActError> {
        Ok(self.table_flags()?.is_some())
    }

    /// The flags of our table; `None`: it is not there.
    fn table_flags(&mut self) -> Result<Option<u32>, ActError> {
        const ATTR_FLAGS: u16 = 2;
        const ATTR_USERDATA: u16 = 6;
        let (mut flags, mut comment) = (0, None);
        let there = self.ask(
            GETTABLE,
            0,
            |a, table| a.text(1, table),
            |attrs| {
                for (attr, value) in netlink::attrs(attrs) {
                    match attr {
                        ATTR_FLAGS => flags = netlink::be32(value).unwrap_or(0),
                        ATTR_USERDATA => comment = udata(value, UDATA_COMMENT),
                        _ => {}
                    }
                }
            },
        )?;
        if there && comment.as_deref() != Some(TABLE_COMMENT) {
            return Err(ActError::Foreign {
                what: format!("table inet {}", self.table),
                why: "its comment is not the one that f2b-pipe writes",
                remedy: format!("nft delete table inet {}", self.table),
            });
        }
        Ok(there.then_some(flags))
    }

    /// Asks about something in our table; false: it is not there.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Attrs<'_>, &str),
        mut each: impl FnMut(&[u8]),
    ) -> Result<bool, ActError> {
        let table = &self.table;
        let asked = self.wire.exchange(
            SUBSYSTEM << 8 | kind,
            flags,
            &HEAD,
            |a| fill(a, table),
            |_, payload| each(payload.get(HEAD.len()..).unwrap_or_default()),
        );
        match asked {
            Ok(()) => Ok(true),
            Err(WireError::Refused(Refusal::Os(Errno::ENOENT))) => Ok(false),
            Err(error) => Err(ActError::wire("nftables look", table, error)),
        }
    }

    /// Does several things at one stroke, or none.
    fn batch(&mut self, fill: impl FnOnce(&mut Batch<'_>, &str)) -> Result<(), WireError> {
        let table = &self.table;
        self.wire.batch(SUBSYSTEM, |b| fill(b, table))
    }

    /// What sets our table has.
    fn sets(&mut self) -> Result<Vec<Header>, ActError> {
        let mut sets = Vec::new();
        self.ask(
            GETSET,
            DUMP,
            |a, table| a.text(1, table),
            |attrs| sets.push(read_header(attrs)),
        )?;
        // Those of ports have no names of their own.
        sets.retain(|set| !set.name.starts_with("__"));
        Ok(sets)
    }

    fn set(&mut self, name: &str) -> Result<Option<Header>, ActError> {
        let mut found = None;
        self.ask(
            GETSET,
            0,
            |a, table| {
                a.text(1, table);
                a.text(2, name);
            },
            |attrs| found = Some(read_header(attrs)),
        )?;
        Ok(found)
    }

    /// The sets that are there in the place of one of ipset's.
    fn sets_of(&mut self, name: &str) -> Result<Vec<Header>, ActError> {
        if let Some(set) = self.set(name)? {
            return Ok(vec![set]);
        }
        let mut sets = self.sets()?;
        sets.retain(|set| set_name(&set.name) == name);
        Ok(sets)
    }

    /// Makes sure that `set` is there.
    fn ensure_one(&mut self, set: &Set) -> Result<Ensured, ActError> {
        self.table_flags()?;
        if let Some(header) = self.set(&set.name)? {
            return Ok(match header.is(set) {
                true => Ensured::There,
                false => Ensured::Outdated,
            });
        }
        let made = self.batch(|b, table| {
            new_table(b, table);
            new_set(b, table, set);
        });
        match made {
            Ok(()) => Ok(Ensured::Made),
            // Another process was faster.
            Err(WireError::Refused(Refusal::Os(Errno::EEXIST))) => Ok(Ensured::There),
            Err(error) => Err(ActError::wire("nftables create", &set.name, error)),
        }
    }

    /// Counters of an element; `None`: it is not in.
    fn counters(&mut self, set: &Set, who: Target) -> Result<Option<(u64, u64)>, ActError> {
        let mut found = None;
        let there = self.ask(
            GETSETELEM,
            0,
            |a, table| {
                a.text(1, table);
                a.text(2, &set.name);
                a.nest(3, |a| a.nest(1, |a| key(a, who)));
            },
            |attrs| {
                read_members(attrs, None, &mut |member| {
                    found = Some((member.bytes, member.packets));
                });
            },
        )?;
        Ok(found.filter(|_| there))
    }

    /// The elements of one set.
    fn list_one(&mut self, set: &Header, each: &mut dyn FnMut(Member)) -> Result<(), ActError> {
        let length = nets_length(set);
        let mut members = Vec::new();
        for _ in 0..LISTINGS {
            members.clear();
            self.ask(
                GETSETELEM,
                DUMP,
                |a, table| {
                    a.text(1, table);
                    a.text(2, &set.name);
                },
                |attrs| read_members(attrs, length, &mut |member| members.push(member)),
            )?;
            if !self.wire.interrupted() {
                break;
            }
        }
        members.into_iter().for_each(each);
        Ok(())
    }

    /// How a chain stands: `None`: it is not there; false: it is not as it should be.
    fn chain(&mut self, place: Place) -> Result<Option<bool>, ActError> {
        const ATTR_HOOK: u16 = 4;
        const ATTR_POLICY: u16 = 5;
        let (name, hook, priority) = chain_of(place);
        let mut right = false;
        let there = self.ask(
            GETCHAIN,
            0,
            |a, table| {
                a.text(1, table);
                a.text(3, name);
            },
            |attrs| {
                let (mut at, mut accepts) = (Vec::new(), false);
                for (attr, value) in netlink::attrs(attrs) {
                    match attr {
                        ATTR_HOOK => {
                            at = netlink::attrs(value)
                                .filter_map(|(attr, value)| Some((attr, netlink::be32(value)?)))
                                .collect();
                        }
                        ATTR_POLICY => accepts = netlink::be32(value) == Some(1),
                        _ => {}
                    }
                }
                right = accepts
                    && at.contains(&(1, hook))
                    && at.contains(&(2, priority.cast_unsigned()));
            },
        )?;
        Ok(there.then_some(right))
    }

    /// The comments of a chain's rules, by which ours are known: whoever changes one with nft writes a new rule.
    fn rules(&mut self, chain: &str) -> Result<Vec<String>, ActError> {
        const ATTR_CHAIN: u16 = 2;
        const ATTR_USERDATA: u16 = 7;
        let mut rules = Vec::new();
        self.ask(
            GETRULE,
            DUMP,
            |a, table| {
                a.text(1, table);
                a.text(2, chain);
            },
            |attrs| {
                let (mut of, mut comment) = (String::new(), None);
                for (attr, value) in netlink::attrs(attrs) {
                    match attr {
                        ATTR_CHAIN => of = netlink::text(value),
                        ATTR_USERDATA => comment = udata(value, UDATA_COMMENT),
                        _ => {}
                    }
                }
                if of == chain {
                    rules.push(comment.unwrap_or_default());
                }
            },
        )?;
        Ok(rules)
    }

    /// A plan's rules, those for networks once for each length in use.
    fn wanted(&mut self, plan: &Plan) -> Result<Vec<Written>, ActError> {
        let sets = self.sets()?;
        let mut rules = Vec::new();
        for rule in &plan.rules {
            if !rule.set.kind.on_demand() {
                rules.extend(Written::of(rule, &Set::clients(&rule.set)));
                continue;
            }
            let mut lengths: Vec<u8> = sets
                .iter()
                .filter(|set| set_name(&set.name) == rule.set.name)
                .filter_map(Header::length)
                .collect();
            lengths.sort_unstable();
            for length in lengths {
                rules.extend(Written::of(rule, &Set::nets(&rule.set, length)));
            }
        }
        Ok(rules)
    }
}

impl Firewall for Nft {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn shown_by(&self, set: &str) -> String {
        format!("nft list set inet {} {set}", self.table)
    }

    fn ensure(&mut self, set: &SetRef) -> Result<Ensured, ActError> {
        if set.kind.on_demand() {
            // Each length has one of its own, made when a network of that length is put in.
            self.table_flags()?;
            return Ok(Ensured::There);
        }
        self.ensure_one(&Set::clients(set))
    }

    fn look(&mut self, set: &SetRef) -> Result<bool, ActError> {
        Ok(self.table_flags()?.is_some() && !self.sets_of(&set.name)?.is_empty())
    }

    fn migrate(&mut self, set: &SetRef, _set_prefix: &str) -> Result<(), ActError> {
        let (name, mut bans) = (set.name.clone(), Vec::new());
        self.list(&name, &mut |member| {
            bans.extend(target_of(&member).map(|who| Put {
                who: match who {
                    Target::Client(client) => Target::Client(client.counted(set.ipv6_prefix)),
                    net @ Target::Net(_) => net,
                },
                ban_for: left(&member),
                reason: member.comment,
            }));
        })?;
        // Two that share a prefix from now on: the later end holds.
        bans.sort_by_key(|ban| (ban.who, std::cmp::Reverse(order(ban.ban_for))));
        bans.dedup_by_key(|ban| ban.who);
        let chains: Vec<&str> = Place::ALL
            .into_iter()
            .map(|place| chain_of(place).0)
            .collect();
        let mut there = Vec::new();
        for chain in chains {
            if !self.rules(chain)?.is_empty() {
                there.push(chain);
            }
        }
        let new = Set::clients(set);
        // A set cannot go while rules look into it; they are written again right after this.
        self.batch(|b, table| {
            for chain in there {
                b.message(DELRULE, 0, &HEAD, |a| {
                    a.text(1, table);
                    a.text(2, chain);
                });
            }
            b.message(DELSET, 0, &HEAD, |a| {
                a.text(1, table);
                a.text(2, &name);
            });
            new_set(b, table, &new);
        })
        .map_err(|error| ActError::wire("nftables migrate", &name, error))?;
        self.add_many(set, &bans)
    }

    fn add(
        &mut self,
        set: &SetRef,
        who: Target,
        ban_for: BanFor,
        reason: &str,
        mode: Add,
    ) -> Result<Added, ActError> {
        let one = Set::of(set, who);
        if one.length == 0 {
            return Err(ActError::wire(
                "nftables add",
                &one.name,
                WireError::Refused(Refusal::Cidr),
            ));
        }
        let mut comment = std::mem::take(&mut self.comment);
        write_comment(&mut comment, reason, 0, COMMENT_MAX_BYTES);
        let put = |nft: &mut Self, old: Option<(u64, u64)>| {
            nft.batch(|b, table| {
                if old.is_some() {
                    // Before kernel 6.12 adding what is there changes nothing.
                    delete(b, table, &one.name, who);
                }
                b.message(NEWSETELEM, CREATE | EXCL, &HEAD, |a| {
                    a.text(1, table);
                    a.text(2, &one.name);
                    a.nest(3, |a| element(a, who, ban_for, &comment, old));
                });
            })
        };
        let mut done = put(self, None);
        let there = done == Err(WireError::Refused(Refusal::Os(Errno::EEXIST)));
        if there && mode == Add::Replace {
            let old = self.counters(&one, who)?;
            done = put(self, old);
        }
        self.comment = comment;
        match done {
            Ok(()) => Ok(Added::New),
            Err(WireError::Refused(Refusal::Os(Errno::EEXIST))) => Ok(Added::Already),
            Err(WireError::Refused(Refusal::Os(Errno::ENOENT))) => {
                if set.kind.on_demand() && self.ensure_one(&one)? == Ensured::Made {
                    let added = self.add(set, who, ban_for, reason, mode)?;
                    return Ok(match added {
                        Added::New | Added::NewSet => Added::NewSet,
                        Added::Already => Added::Already,
                    });
                }
                Err(ActError::no_set(&set.name))
            }
            Err(error) => Err(ActError::wire(
                "nftables add",
                &format!("{} {who}", one.name),
                error,
            )),
        }
    }

    fn add_many(&mut self, set: &SetRef, bans: &[Put]) -> Result<(), ActError> {
        let (nets, clients): (Vec<&Put>, Vec<&Put>) = bans
            .iter()
            .partition(|ban| matches!(ban.who, Target::Net(_)));
        for net in nets {
            self.add(set, net.who, net.ban_for, &net.reason, Add::Replace)?;
        }
        let one = Set::clients(set);
        let mut comment = String::new();
        let mut rest = clients.as_slice();
        while !rest.is_empty() {
            let mut many = 0;
            let put = self.batch(|b, table| {
                let begun = b.length();
                b.message(NEWSETELEM, CREATE, &HEAD, |a| {
                    a.text(1, table);
                    a.text(2, &one.name);
                    a.nest(3, |a| {
                        for ban in rest {
                            if a.length() - begun > MESSAGE_BYTES {
                                break;
                            }
                            write_comment(&mut comment, &ban.reason, 0, COMMENT_MAX_BYTES);
                            element(a, ban.who, ban.ban_for, &comment, None);
                            many += 1;
                        }
                    });
                });
            });
            match put {
                Ok(()) => {}
                Err(WireError::Refused(Refusal::Os(Errno::ENOENT))) => {
                    return Err(ActError::no_set(&set.name));
                }
                Err(error) => return Err(ActError::wire("nftables add", &set.name, error)),
            }
            rest = rest.get(many..).unwrap_or_default();
        }
        Ok(())
    }

    fn del(&mut self, set: &SetRef, who: Target) -> Result<bool, ActError> {
        let one = Set::of(set, who);
        match self.batch(|b, table| delete(b, table, &one.name, who)) {
            Ok(()) => Ok(true),
            Err(WireError::Refused(Refusal::Os(Errno::ENOENT))) => Ok(false),
            Err(error) => {
                let about = format!("{} {who}", one.name);
                Err(ActError::wire("nftables delete", &about, error))
            }
        }
    }

    fn test(&mut self, set: &SetRef, who: Target) -> Result<bool, ActError> {
        Ok(self.counters(&Set::of(set, who), who)?.is_some())
    }

    fn list(&mut self, name: &str, each: &mut dyn FnMut(Member)) -> Result<(), ActError> {
        for set in self.sets_of(name)? {
            self.list_one(&set, each)?;
        }
        Ok(())
    }

    fn sample(&mut self, name: &str, each: &mut dyn FnMut(Member)) -> Result<(), ActError> {
        // The kernel lists a set in the order of a hash, and takes ever longer the further it gets.
        let Some(set) = self.set(name)? else {
            return Ok(());
        };
        let (table, length, mut many) = (&self.table, nets_length(&set), 0);
        Socket::open(SockProtocol::NetlinkNetFilter, 0)
            .and_then(|socket| {
                socket.begin_exchange(
                    SUBSYSTEM << 8 | GETSETELEM,
                    &HEAD,
                    |a| {
                        a.text(1, table);
                        a.text(2, name);
                    },
                    |_, payload| {
                        let attrs = payload.get(HEAD.len()..).unwrap_or_default();
                        read_members(attrs, length, &mut |member| {
                            many += 1;
                            each(member);
                        });
                        many < 2 * DOOMED_MAX
                    },
                )
            })
            .map_err(|error| ActError::wire("nftables list", name, error))
    }

    fn names(&mut self, prefix: &str) -> Result<Vec<String>, ActError> {
        let sets = self.sets()?.into_iter();
        let mut names: Vec<String> = sets.map(|set| set_name(&set.name).to_owned()).collect();
        names.retain(|name| name.starts_with(prefix));
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn ours(&mut self, prefix: &str) -> Result<Vec<String>, ActError> {
        self.table_flags()?;
        self.names(prefix)
    }

    fn prefix_in(&mut self, name: &str) -> Result<Option<u8>, ActError> {
        Ok(self.set(name)?.and_then(|set| set.length()))
    }

    fn flush(&mut self, name: &str) -> Result<(), ActError> {
        for set in self.sets_of(name)? {
            let flushed = self.batch(|b, table| {
                b.message(DELSETELEM, 0, &HEAD, |a| {
                    a.text(1, table);
                    a.text(2, &set.name);
                });
            });
            match flushed {
                Ok(()) | Err(WireError::Refused(Refusal::Os(Errno::ENOENT))) => {}
                Err(error) => return Err(ActError::wire("nftables flush", &set.name, error)),
            }
        }
        Ok(())
    }

    fn families(&self) -> &'static [Family] {
        &[Family::Inet]
    }

    fn named(&self, plan: &Plan, _family: Family) -> String {
        let (name, _, _) = chain_of(plan.place);
        format!("chain {name} (table inet {})", self.table)
    }

    fn found(&mut self, plan: &Plan, _family: Family) -> Result<Found, ActError> {
        let (name, _, _) = chain_of(plan.place);
        // A dormant table (flag 1) has hooks and no effect.
        let Some(flags) = self.table_flags()? else {
            return Ok(Found::Missing);
        };
        Ok(match self.chain(plan.place)? {
            None => Found::Missing,
            Some(right) => {
                let wanted = self.wanted(plan)?;
                let rules = self.rules(name)?;
                // Sets of networks come one by one, and not only from the process that writes the rules.
                let has = |rule: &&Written| rules.contains(&rule.comment);
                let lacks = |rule: &Written| !has(&rule) && !rule.set.name.contains('/');
                let known = wanted.iter().filter(has).map(|rule| &rule.comment);
                let same = rules.iter().eq(known) && !wanted.iter().any(lacks);
                if !right || flags & 1 != 0 || !same {
                    Found::Changed
                } else if rules.len() < wanted.len() {
                    Found::Incomplete
                } else {
                    Found::InPlace
                }
            }
        })
    }

    fn place(&mut self, plan: &Plan, _family: Family) -> Result<(), ActError> {
        self.table_flags()?;
        let (name, _, _) = chain_of(plan.place);
        let stands = self.chain(plan.place)?;
        let rules = self.wanted(plan)?;
        self.batch(|b, table| {
            new_table(b, table);
            let about = |a: &mut Attrs<'_>| {
                a.text(1, table);
                a.text(2, name);
            };
            if stands.is_some() {
                b.message(DELRULE, 0, &HEAD, about);
            }
            if stands == Some(false) {
                del_chain(b, table, name);
            }
            if stands != Some(true) {
                new_chain(b, table, plan.place);
            }
            for (id, rule) in (1..).zip(&rules) {
                rule.write(b, table, name, id);
            }
        })
        .map_err(|error| ActError::wire("nftables place", &format!("chain {name}"), error))
    }

    fn remove_others(&mut self, _config: &Config, plans: &[Plan]) -> Result<(), ActError> {
        if self.table_flags()?.is_none() {
            return Ok(());
        }
        let unwanted = |place: &Place| plans.iter().all(|plan| plan.place != *place);
        for place in Place::ALL.into_iter().filter(unwanted) {
            if self.chain(place)?.is_none() {
                continue;
            }
            let (name, _, _) = chain_of(place);
            self.batch(|b, table| {
                b.message(DELRULE, 0, &HEAD, |a| {
                    a.text(1, table);
                    a.text(2, name);
                });
                del_chain(b, table, name);
            })
            .map_err(|error| ActError::wire("nftables delete", &format!("chain {name}"), error))?;
        }
        Ok(())
    }

    fn remove(&mut self, _config: &Config) -> Result<(), ActError> {
        if self.table_flags()?.is_none() {
            return Ok(());
        }
        self.batch(|b, table| b.message(DELTABLE, 0, &HEAD, |a| a.text(1, table)))
            .map_err(|error| ActError::wire("nftables delete", "table", error))
    }

    fn surplus(&self, members: usize) -> usize {
        // The kernel would take a bound only together with room for as many, 16 MB for each set.
        members.saturating_sub(usize::try_from(MAX_ELEMENTS).unwrap_or(usize::MAX))
    }
}

fn new_table(b: &mut Batch<'_>, table: &str) {
    const ATTR_FLAGS: u16 = 2;
    const ATTR_USERDATA: u16 = 6;
    b.message(NEWTABLE, CREATE, &HEAD, |a| {
        a.text(1, table);
        a.bytes(ATTR_FLAGS, &[0; 4]);
        comment(a, ATTR_USERDATA, UDATA_COMMENT, TABLE_COMMENT);
    });
}

fn new_set(b: &mut Batch<'_>, table: &str, set: &Set) {
    const ATTR_FLAGS: u16 = 3;
    const ATTR_KEY_TYPE: u16 = 4;
    const ATTR_KEY_LEN: u16 = 5;
    const ATTR_ID: u16 = 10;
    const ATTR_GC_INTERVAL: u16 = 12;
    const ATTR_USERDATA: u16 = 13;
    const ATTR_EXPR: u16 = 17;
    b.message(NEWSET, CREATE | EXCL, &HEAD, |a| {
        a.text(1, table);
        a.text(2, &set.name);
        number(a, ATTR_FLAGS, SET_TIMEOUT);
        number(a, ATTR_KEY_TYPE, set.key_type());
        number(a, ATTR_KEY_LEN, bytes_of(set.family).into());
        number(a, ATTR_ID, 1);
        number(a, ATTR_GC_INTERVAL, SWEEP_MS);
        let text = format!("{SET_COMMENT}{}", set.length);
        comment(a, ATTR_USERDATA, UDATA_SET_COMMENT, &text);
        a.nest(ATTR_EXPR, |a| a.text(1, "counter"));
    });
}

fn new_chain(b: &mut Batch<'_>, table: &str, place: Place) {
    let (name, hook, priority) = chain_of(place);
    b.message(NEWCHAIN, CREATE, &HEAD, |a| {
        a.text(1, table);
        a.text(3, name);
        a.nest(4, |a| {
            number(a, 1, hook);
            number(a, 2, priority.cast_unsigned());
        });
        // NF_ACCEPT: who is in no set goes on.
        number(a, 5, 1);
        a.text(7, "filter");
    });
}

fn del_chain(b: &mut Batch<'_>, table: &str, name: &str) {
    b.message(DELCHAIN, 0, &HEAD, |a| {
        a.text(1, table);
        a.text(3, name);
    });
}

fn delete(b: &mut Batch<'_>, table: &str, set: &str, who: Target) {
    b.message(DELSETELEM, 0, &HEAD, |a| {
        a.text(1, table);
        a.text(2, set);
        a.nest(3, |a| a.nest(1, |a| key(a, who)));
    });
}

/// One of a list of elements.
fn element(
    a: &mut Attrs<'_>,
    who: Target,
    ban_for: BanFor,
    reason: &str,
    counters: Option<(u64, u64)>,
) {
    const ATTR_TIMEOUT: u16 = 4;
    const ATTR_USERDATA: u16 = 6;
    const ATTR_EXPR: u16 = 7;
    a.nest(1, |a| {
        key(a, who);
        if let BanFor::Timed(secs) = ban_for {
            let ms = u64::from(secs.get()) * 1000;
            a.bytes(ATTR_TIMEOUT, &ms.to_be_bytes());
        }
        comment(a, ATTR_USERDATA, UDATA_COMMENT, reason);
        if let Some((bytes, packets)) = counters {
            a.nest(ATTR_EXPR, |a| {
                expression(a, "counter", |a| {
                    a.bytes(1, &bytes.to_be_bytes());
                    a.bytes(2, &packets.to_be_bytes());
                });
            });
        }
    });
}

/// The key of an element: an address.
fn key(a: &mut Attrs<'_>, who: Target) {
    let addr = match who {
        Target::Client(client) => client.addr(),
        Target::Net(net) => net.network(),
    };
    a.nest(1, |a| match addr {
        IpAddr::V4(v4) => a.bytes(1, &v4.octets()),
        IpAddr::V6(v6) => a.bytes(1, &v6.octets()),
    });
}

/// A number, which nf_tables takes in network order without a mark.
fn number(a: &mut Attrs<'_>, attr: u16, value: u32) {
    a.bytes(attr, &value.to_be_bytes());
}

/// Userdata with a comment in it.
fn comment(a: &mut Attrs<'_>, attr: u16, kind: u8, text: &str) {
    let Ok(length) = u8::try_from(text.len() + 1) else {
        return;
    };
    let mut data = Vec::with_capacity(text.len() + 3);
    data.extend_from_slice(&[kind, length]);
    data.extend_from_slice(text.as_bytes());
    data.push(0);
    a.bytes(attr, &data);
}

/// The text of one kind in userdata.
fn udata(mut data: &[u8], kind: u8) -> Option<String> {
    while let [found, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *found == kind {
            return Some(netlink::text(value));
        }
        data = rest.get(usize::from(*length)..)?;
    }
    None
}

fn read_header(attrs: &[u8]) -> Header {
    let mut header = Header::default();
    for (attr, value) in netlink::attrs(attrs) {
        match attr {
            2 => header.name = netlink::text(value),
            3 => header.flags = netlink::be32(value).unwrap_or(0),
            4 => header.key_type = netlink::be32(value).unwrap_or(0),
            13 => header.comment = udata(value, UDATA_SET_COMMENT).unwrap_or_default(),
            _ => {}
        }
    }
    header
}

/// The length of the networks in a set; `None`: it holds clients.
fn nets_length(set: &Header) -> Option<u8> {
    set.name
        .split_once('/')
        .and_then(|(_, length)| length.parse().ok())
}

/// The elements in a message; of a set of networks, with their length.
fn read_members(attrs: &[u8], length: Option<u8>, each: &mut dyn FnMut(Member)) {
    for (_, list) in netlink::attrs(attrs).filter(|(attr, _)| *attr == 3) {
        for (_, element) in netlink::attrs(list) {
            if let Some(member) = read_member(element, length) {
                each(member);
            }
        }
    }
}

fn read_member(element: &[u8], length: Option<u8>) -> Option<Member> {
    let mut addr = None;
    let mut member = Member {
        addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        cidr: length,
        left: None,
        packets: 0,
        bytes: 0,
        comment: String::new(),
    };
    for (attr, value) in netlink::attrs(element) {
        match attr {
            1 => {
                let (_, octets) = netlink::attrs(value).next()?;
                addr = match octets.len() {
                    4 => Some(IpAddr::V4(Ipv4Addr::from(*octets.first_chunk::<4>()?))),
                    _ => Some(IpAddr::V6(Ipv6Addr::from(*octets.first_chunk::<16>()?))),
                };
            }
            // What is left; up to the next second, as ipset tells it.
            5 => {
                let secs = netlink::be64(value)?.div_ceil(1000);
                member.left = Some(u32::try_from(secs).unwrap_or(u32::MAX));
            }
            6 => member.comment = udata(value, UDATA_COMMENT).unwrap_or_default(),
            7 => counter(value, &mut member),
            11 => netlink::attrs(value).for_each(|(_, expr)| counter(expr, &mut member)),
            _ => {}
        }
    }
    member.addr = addr?;
    Some(member)
}

fn counter(expr: &[u8], member: &mut Member) {
    for (_, data) in netlink::attrs(expr).filter(|(attr, _)| *attr == 2) {
        for (attr, value) in netlink::attrs(data) {
            match attr {
                1 => member.bytes = netlink::be64(value).unwrap_or(0),
                2 => member.packets = netlink::be64(value).unwrap_or(0),
                _ => {}
            }
        }
    }
}

/// What is left of a ban.
fn left(member: &Member) -> BanFor {
    match member.left {
        None => BanFor::Forever,
        Some(secs) => BanFor::Timed(NonZeroU32::new(secs).unwrap_or(NonZeroU32::MIN)),
    }
}

/// By their ends.
fn order(ban_for: BanFor) -> u32 {
    match ban_for {
        BanFor::Timed(secs) => secs.get(),
        BanFor::Forever => u32::MAX,
    }
}

/// One rule as nf_tables has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written {
    /// What it is known by, and what people see behind it.
    comment: String,
    set: Set,
    protocol: Protocol,
    ports: To,
    blocktype: Blocktype,
}

/// Ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
enum To {
    All,
    These(Vec<u16>),
    Range(u16, u16),
}

impl Written {
    /// Several, if there are ranges of ports.
    fn of(rule: &Rule, set: &Set) -> Vec<Self> {
        let mut to = Vec::new();
        let single = |(first, last): &&(u16, u16)| first == last;
        let singles: Vec<u16> = rule.ports.iter().filter(single).map(|p| p.0).collect();
        if rule.ports.is_empty() {
            to.push(To::All);
        }
        if !singles.is_empty() {
            to.push(To::These(singles));
        }
        let ranges = rule.ports.iter().filter(|p| p.0 != p.1);
        to.extend(ranges.map(|p| To::Range(p.0, p.1)));
        let written = |ports: To| Self {
            comment: {
                let ports = match &ports {
                    To::All => "all".to_owned(),
                    To::These(ports) => {
                        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                        ports.join(",")
                    }
                    To::Range(first, last) => format!("{first}-{last}"),
                };
                let text = format!(
                    "{}/{} {} {ports}",
                    set_name(&set.name),
                    set.length,
                    rule.protocol.name()
                );
                known_by(text)
            },
            set: set.clone(),
            protocol: rule.protocol,
            ports,
            blocktype: rule.blocktype,
        };
        to.into_iter().map(written).collect()
    }

    /// Writes it behind the others of `chain`; `id` is not that of another set in this batch.
    fn write(&self, b: &mut Batch<'_>, table: &str, chain: &str, id: u32) {
        /// What a set without a name is called until the kernel gives it a number.
        const ANONYMOUS: &str = "__set%d";
        if let To::These(ports) = &self.ports
            && ports.len() > 1
        {
            b.message(NEWSET, CREATE, &HEAD, |a| {
                a.text(1, table);
                a.text(2, ANONYMOUS);
                number(a, 3, SET_CONSTANT);
                number(a, 4, TYPE_PORT);
                number(a, 5, 2);
                number(a, 10, id);
                let many = u32::try_from(ports.len()).unwrap_or(u32::MAX);
                a.nest(9, |a| number(a, 1, many));
            });
            b.message(NEWSETELEM, CREATE, &HEAD, |a| {
                a.text(1, table);
                a.text(2, ANONYMOUS);
                number(a, 4, id);
                a.nest(3, |a| {
                    for port in ports {
                        a.nest(1, |a| a.nest(1, |a| a.bytes(1, &port.to_be_bytes())));
                    }
                });
            });
        }
        b.message(NEWRULE, CREATE | APPEND, &HEAD, |a| {
            a.text(1, table);
            a.text(2, chain);
            a.nest(4, |a| {
                let mut list = |name: &str, fill: &dyn Fn(&mut Attrs<'_>)| {
                    a.nest(1, |a| expression(a, name, fill));
                };
                // NFT_META_NFPROTO (15): AF_INET, AF_INET6.
                list("meta", &|a| meta(a, 15));
                list("cmp", &|a| {
                    is(
                        a,
                        &[match self.set.family {
                            Family::Inet => 2,
                            Family::Inet6 => 10,
                        }],
                    );
                });
                if let Some(protocol) = number_of(self.protocol, self.set.family) {
                    // NFT_META_L4PROTO.
                    list("meta", &|a| meta(a, 16));
                    list("cmp", &|a| is(a, &[protocol]));
                }
                match &self.ports {
                    To::All => {}
                    To::These(ports) => {
                        // NFT_PAYLOAD_TRANSPORT_HEADER: the port of destination.
                        list("payload", &|a| payload(a, 2, 2, 2));
                        match ports.as_slice() {
                            [port] => list("cmp", &|a| is(a, &port.to_be_bytes())),
                            _ => list("lookup", &|a| {
                                a.text(1, ANONYMOUS);
                                number(a, 2, 1);
                                number(a, 4, id);
                            }),
                        }
                    }
                    To::Range(first, last) => {
                        list("payload", &|a| payload(a, 2, 2, 2));
                        list("range", &|a| {
                            number(a, 1, 1);
                            number(a, 2, 0);
                            a.nest(3, |a| a.bytes(1, &first.to_be_bytes()));
                            a.nest(4, |a| a.bytes(1, &last.to_be_bytes()));
                        });
                    }
                }
                // NFT_PAYLOAD_NETWORK_HEADER: the sender's address.
                let (at, length) = match self.set.family {
                    Family::Inet => (12, 4),
                    Family::Inet6 => (8, 16),
                };
                list("payload", &|a| payload(a, 1, at, length));
                if u32::from(self.set.length) < length * 8 {
                    list("bitwise", &|a| {
                        let zero = [0; 16];
                        let mask = mask(self.set.length);
                        let many = usize::from(bytes_of(self.set.family));
                        number(a, 1, 1);
                        number(a, 2, 1);
                        number(a, 3, length);
                        a.nest(4, |a| a.bytes(1, mask.get(..many).unwrap_or_default()));
                        a.nest(5, |a| a.bytes(1, zero.get(..many).unwrap_or_default()));
                    });
                }
                list("lookup", &|a| {
                    a.text(1, &self.set.name);
                    number(a, 2, 1);
                });
                match (self.blocktype, self.protocol) {
                    // NF_DROP into the register of the verdict.
                    (Blocktype::Drop, _) => list("immediate", &|a| {
                        number(a, 1, 0);
                        a.nest(2, |a| a.nest(2, |a| number(a, 1, 0)));
                    }),
                    // NFT_REJECT_TCP_RST; a reset is only for TCP.
                    (Blocktype::Reject, Protocol::Tcp) => list("reject", &|a| number(a, 1, 1)),
                    // NFT_REJECT_ICMPX_UNREACH with NFT_REJECT_ICMPX_PORT_UNREACH.
                    (Blocktype::Reject, _) => list("reject", &|a| {
                        number(a, 1, 2);
                        a.u8(2, 1);
                    }),
                }
            });
            comment(a, 7, UDATA_COMMENT, &self.comment);
        });
    }
}

/// An expression: its name and what it takes. Register 1 is what all of ours work with.
fn expression(a: &mut Attrs<'_>, name: &str, fill: impl FnOnce(&mut Attrs<'_>)) {
    a.text(1, name);
    a.nest(2, fill);
}

/// Loads something about the packet.
fn meta(a: &mut Attrs<'_>, key: u32) {
    number(a, 1, 1);
    number(a, 2, key);
}

/// Goes on if the register is equal to `value` (NFT_CMP_EQ).
fn is(a: &mut Attrs<'_>, value: &[u8]) {
    number(a, 1, 1);
    number(a, 2, 0);
    a.nest(3, |a| a.bytes(1, value));
}

/// Loads `length` bytes of the packet.
fn payload(a: &mut Attrs<'_>, base: u32, at: u32, length: u32) {
    number(a, 1, 1);
    number(a, 2, base);
    number(a, 3, at);
    number(a, 4, length);
}

/// The first `length` bits.
fn mask(length: u8) -> [u8; 16] {
    let ones = u128::MAX
        .checked_shl(128_u32.saturating_sub(length.into()))
        .unwrap_or(0);
    ones.to_be_bytes()
}

/// IPPROTO_...; `None`: all of them.
pub(super) fn number_of(protocol: Protocol, family: Family) -> Option<u8> {
    Some(match (protocol, family) {
        (Protocol::All, _) => return None,
        (Protocol::Tcp, _) => 6,
        (Protocol::Udp, _) => 17,
        (Protocol::Sctp, _) => 132,
        (Protocol::Dccp, _) => 33,
        (Protocol::Udplite, _) => 136,
        (Protocol::Icmp, Family::Inet) => 1,
        (Protocol::Icmp, Family::Inet6) => 58,
    })
}

/// As a comment it has to be short; a long list of ports is known by its beginning and a sum of all.
fn known_by(text: String) -> String {
    const SHOWN: usize = 100;
    if text.len() <= SHOWN {
        return text;
    }
    // FNV-1a, which is the same in every version.
    let sum = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let shown: String = text.chars().take(SHOWN).collect();
    format!("{shown}... {sum:016x}")
}

/// nfgenmsg of iptables' tables.
pub(super) fn head(family: Family) -> [u8; 4] {
    let family = match family {
        Family::Inet => IPV4,
        Family::Inet6 => IPV6,
    };
    [family, 0, 0, 0]
}

/// Whether a table that iptables wrote has this chain; where the kernel cannot be asked, it may.
pub(super) fn may_have_chain(family: Family, table: &str, chain: &str) -> bool {
    let ask = |mut wire: Socket| {
        let name = |a: &mut Attrs<'_>| {
            a.text(1, table);
            a.text(3, chain);
        };
        wire.exchange(SUBSYSTEM << 8 | GETCHAIN, 0, &head(family), name, |_, _| {})
    };
    let asked = Socket::open(SockProtocol::NetlinkNetFilter, 0).and_then(ask);
    !matches!(asked, Err(WireError::Refused(Refusal::Os(Errno::ENOENT))))
}
