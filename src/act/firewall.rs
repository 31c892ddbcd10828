//! The kernel's firewall as the rest of the program sees it: sets that hold the banned, and rules that look into them.
//!
//! Two make the same of it: [`Ipset`] (sets of ip_set, rules by iptables) and [`Nft`] (a table of our own in nf_tables,
//! all of it through netlink). Which one is used says `firewall.backend`; a set has the same name and the same members in
//! both.

use std::collections::BinaryHeap;
use std::fmt;
use std::net::IpAddr;

use nix::sys::socket::SockProtocol;

use super::ipset::Ipset;
use super::netlink::Socket;
use super::nft::Nft;
use super::plan::{Family, Found, Plan};
use super::tool;
use super::{ActError, SetRef};
use crate::client::Client;
use crate::config::{self, Backend, Config};
use crate::decide::BanFor;
use crate::exempt::Target;

/// Most bans in a set. ipset's default of 65,536 is soon full in a distributed attack.
pub const MAX_ELEMENTS: u32 = 1_048_576;
/// How many of the bans that end soonest are looked up at once when a set is full: reading a million elements takes
/// about 0.3 s, which not every further ban can pay.
pub const DOOMED_MAX: usize = 4_096;

/// What came of making sure that a set is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// It was not.
    Made,
    /// It was, as wanted.
    There,
    /// It is ours, but of another configuration (`ipv6_prefix`) or an earlier version: [`Firewall::migrate`].
    Outdated,
}

/// Whether an element may be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Add {
    /// It must not: then the answer is [`Added::Already`].
    New,
    /// It may; its time and comment are replaced, its counters go on.
    Replace,
}

/// What came of putting an element in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is in now.
    New,
    /// It is in now, in a set that had to be made for it and that no rule looks into yet.
    NewSet,
    /// It was in before.
    Already,
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The address, of a network its first one.
    pub addr: IpAddr,
    /// Length of the prefix of a network.
    pub cidr: Option<u8>,
    /// Seconds left; `None`: for ever.
    pub left: Option<u32>,
    /// Packets that met it.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why.
    pub comment: String,
}

/// Of whom the element is.
#[must_use]
pub fn target_of(member: &Member) -> Option<Target> {
    match member.cidr {
        None => Some(Target::Client(Client::new(member.addr))),
        Some(cidr) => ipnet::IpNet::new(member.addr, cidr).ok().map(Target::Net),
    }
}

/// An element to put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Whom.
    pub who: Target,
    /// For how long.
    pub ban_for: BanFor,
    /// Why, for people; may hold what a client wrote.
    pub reason: String,
}

/// A connection to the kernel's sets and rules.
pub trait Firewall: fmt::Debug + Send {
    /// `ipset` or `nftables`.
    fn name(&self) -> &'static str;

    /// What an administrator writes to see a set called `set` (or, with a name in capitals, any).
    fn shown_by(&self, set: &str) -> String;

    /// Makes `set` if it is not there, and looks whether it is ours if it is.
    ///
    /// # Errors
    /// [`ActError::Foreign`]: another program's set has this name.
    fn ensure(&mut self, set: &SetRef) -> Result<Ensured, ActError>;

    /// Whether `set` is there, and ours. Makes nothing.
    ///
    /// # Errors
    /// [`ActError::Foreign`]: another program's set has this name.
    fn look(&mut self, set: &SetRef) -> Result<bool, ActError>;

    /// Gives an [`Ensured::Outdated`] set the parameters of `set`, with its bans. Only the process that holds the lock may
    /// do this, and it has to see to the rules afterwards.
    ///
    /// # Errors
    /// The kernel refuses; then the old set stays as it was.
    fn migrate(&mut self, set: &SetRef, set_prefix: &str) -> Result<(), ActError>;

    /// Puts `who` into `set`, with `reason` as a comment in printable ASCII.
    ///
    /// # Errors
    /// [`ActError::NoSet`] and [`ActError::Full`] can be helped; [`ActError::Foreign`] if the set turns out not to be ours.
    fn add(
        &mut self,
        set: &SetRef,
        who: Target,
        ban_for: BanFor,
        reason: &str,
        mode: Add,
    ) -> Result<Added, ActError>;

    /// Puts many into `set` at once, a hundred thousand in less than a second. Who is in already may get the new time.
    ///
    /// # Errors
    /// Some may be in. What the kernel says of a single one (an address that no set takes) is skipped.
    fn add_many(&mut self, set: &SetRef, bans: &[Put]) -> Result<(), ActError>;

    /// Takes `who` out of `set`; whether it was in, and the set was there.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    fn del(&mut self, set: &SetRef, who: Target) -> Result<bool, ActError>;

    /// Whether `who` is in `set`.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    fn test(&mut self, set: &SetRef, who: Target) -> Result<bool, ActError>;

    /// Gives every element of the set to `each`. A set that is not there has none.
    ///
    /// # Errors
    /// The kernel cannot be asked; then what was given is not all.
    fn list(&mut self, name: &str, each: &mut dyn FnMut(Member)) -> Result<(), ActError>;

    /// Some elements of a full set, at least [`DOOMED_MAX`], in a time that a ban can wait for if possible.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    fn sample(&mut self, name: &str, each: &mut dyn FnMut(Member)) -> Result<(), ActError> {
        self.list(name, each)
    }

    /// The names of all sets that begin with `prefix`, in the order of the alphabet.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    fn names(&mut self, prefix: &str) -> Result<Vec<String>, ActError>;

    /// The names of the sets that we made: with our prefix and all that ours have, of jails that are not configured any
    /// more, too.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    fn ours(&mut self, prefix: &str) -> Result<Vec<String>, ActError>;

    /// Length of the prefixes that a set of single IPv6 clients holds; `None`: there is no such set.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    fn prefix_in(&mut self, name: &str) -> Result<Option<u8>, ActError>;

    /// Empties the set. One that is not there is empty.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    fn flush(&mut self, name: &str) -> Result<(), ActError>;

    /// The kinds of addresses that have rules apart; the first stands for all if there is one.
    fn families(&self) -> &'static [Family];

    /// For people: which chain it is.
    fn named(&self, plan: &Plan, family: Family) -> String;

    /// Looks whether a chain is in place.
    ///
    /// # Errors
    /// [`ActError::Rules`]: iptables does not work.
    fn found(&mut self, plan: &Plan, family: Family) -> Result<Found, ActError>;

    /// Puts a chain in place, whatever is there now. Only under the lock: two at once make two jumps.
    ///
    /// # Errors
    /// The kernel or iptables does not want it; what was there stays.
    fn place(&mut self, plan: &Plan, family: Family) -> Result<(), ActError>;

    /// Takes away what stands, of our name or left over from another configuration, in a place that none of `plans` is
    /// for.
    ///
    /// # Errors
    /// The first of several.
    fn remove_others(&mut self, config: &Config, plans: &[Plan]) -> Result<(), ActError>;

    /// Takes away every rule and every set of ours.
    ///
    /// # Errors
    /// The first of several; the rest was taken away all the same.
    fn remove(&mut self, config: &Config) -> Result<(), ActError>;

    /// How many of a set's `members` are beyond what it may hold, where the kernel does not see to that itself.
    fn surplus(&self, _members: usize) -> usize {
        0
    }
}

/// The firewall that the configuration wants.
///
/// # Errors
/// [`ActError::NoIpset`], [`ActError::NoNftables`] and [`ActError::NoRights`] say that there is no use in going on.
pub fn open(which: &config::Firewall) -> Result<Box<dyn Firewall>, ActError> {
    let prefix = &which.set_prefix;
    match which.backend {
        Backend::Ipset => Ok(Box::new(Ipset::open()?)),
        Backend::Nftables => Ok(Box::new(Nft::open(prefix)?)),
        Backend::Auto => either(prefix),
        Backend::DryRun => Err(ActError::DryRun),
    }
}

/// What is in use already, so that processes which begin at different times use the same; else ipset, if the host has all
/// of it; else nftables.
fn either(prefix: &str) -> Result<Box<dyn Firewall>, ActError> {
    let mut nft = match Nft::open(prefix) {
        Ok(nft) => nft,
        Err(ActError::NoNftables) => return Ok(Box::new(Ipset::open()?)),
        Err(error) => return Err(error),
    };
    // A table that is not ours is in the way of nftables alone.
    if nft.is_in_use() == Ok(true) {
        return Ok(Box::new(nft));
    }
    match Ipset::open() {
        Ok(mut ipset) => match has_iptables() || !ipset.ours(prefix)?.is_empty() {
            true => Ok(Box::new(ipset)),
            false => Ok(Box::new(nft)),
        },
        Err(ActError::NoIpset) => Ok(Box::new(nft)),
        Err(error) => Err(error),
    }
}

/// Whether iptables is there, and can look into ipset's sets: a minimal RHEL 10 has no xt_set.
fn has_iptables() -> bool {
    let tools = [
        "iptables",
        "iptables-restore",
        "ip6tables",
        "ip6tables-restore",
    ];
    let mut found = tools.into_iter().map(tool::find);
    let Some(first) = found.next().flatten() else {
        return false;
    };
    // Of the old one nothing is known to lack.
    found.all(|path| path.is_some()) && (!tool::is_nft(&first) || has_xt_set())
}

/// Asks nft_compat for the match called `set`: linux/netfilter/nf_tables_compat.h.
fn has_xt_set() -> bool {
    /// NFNL_SUBSYS_NFT_COMPAT, NFNL_MSG_COMPAT_GET.
    const GET: u16 = 11 << 8;
    const NAME: u16 = 1;
    const REVISION: u16 = 2;
    const TYPE: u16 = 3;
    let asked = Socket::open(SockProtocol::NetlinkNetFilter, 0).and_then(|mut socket| {
        socket.exchange(
            GET,
            0,
            &[2, 0, 0, 0],
            |a| {
                a.text(NAME, "set");
                a.bytes(REVISION, &1_u32.to_be_bytes());
                a.bytes(TYPE, &0_u32.to_be_bytes());
            },
            |_, _| {},
        )
    });
    asked.is_ok()
}

/// Bans that end soonest, of sets that were full: each by its set, the very soonest last.
#[derive(Debug, Default)]
pub(super) struct Doomed(Vec<(String, Vec<Target>)>);

impl Doomed {
    /// Makes room in a full `set`: takes out the ban that ends soonest. False: there is none.
    pub(super) fn make_room(
        &mut self,
        firewall: &mut dyn Firewall,
        set: &SetRef,
    ) -> Result<bool, ActError> {
        let at = self.0.iter().position(|(name, _)| *name == set.name);
        let mut candidates = at.map_or(Vec::new(), |at| self.0.swap_remove(at).1);
        if candidates.is_empty() {
            candidates = soonest(DOOMED_MAX, |each| firewall.sample(&set.name, each))?;
        }
        let mut room = false;
        while let (false, Some(who)) = (room, candidates.pop()) {
            room = firewall.del(set, who)?;
        }
        self.0.push((set.name.clone(), candidates));
        Ok(room)
    }
}

/// Takes bans out of `set` that end soonest.
///
/// # Errors
/// The kernel cannot be asked.
pub(super) fn shorten(
    firewall: &mut dyn Firewall,
    set: &SetRef,
    by: usize,
) -> Result<(), ActError> {
    for who in soonest(by, |each| firewall.list(&set.name, each))? {
        firewall.del(set, who)?;
    }
    Ok(())
}

/// The `most` bans that end soonest of those that `list` gives, the very soonest last.
fn soonest(
    most: usize,
    list: impl FnOnce(&mut dyn FnMut(Member)) -> Result<(), ActError>,
) -> Result<Vec<Target>, ActError> {
    let mut soonest = BinaryHeap::with_capacity(most.saturating_add(1));
    list(&mut |member| {
        if let Some(who) = target_of(&member) {
            soonest.push((member.left.unwrap_or(u32::MAX), who));
            if soonest.len() > most {
                soonest.pop();
            }
        }
    })?;
    let mut found: Vec<Target> = soonest.into_sorted_vec().into_iter().map(|c| c.1).collect();
    found.reverse();
    Ok(found)
}
