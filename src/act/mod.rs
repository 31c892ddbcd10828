//! Carrying out a ban: the kernel's sets, the chain that looks into them, connections that are open already.
//!
//! The hot thread owns an [`Act`] and puts addresses into sets with it, which takes microseconds. Whatever can wait or
//! must wait (making the chain, resetting connections, noticing that something is gone) is done by [`keeper`] on threads
//! of its own.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::config::{Backend, Config, Jail, Mode};
use crate::decide::BanFor;
use crate::exempt::{Bannable, Target};
use crate::hit::JailId;
use crate::privilege;

pub(crate) mod chain; // iptables' rules that look into them
pub mod command; // fail2ban's actions that are commands
pub mod dry; // the same without a kernel, for replay
pub mod firewall; // the kernel's sets and rules, of either kind
pub mod ipset; // sets of ip_set
pub mod keeper; // the threads that keep all of it in place
pub mod kill; // open connections
pub(crate) mod listed; // what the sets hold
pub mod lock; // who keeps the chain
pub mod netlink; // the wire
pub mod nft; // sets and rules of nf_tables
pub mod plan; // which rules there should be
pub mod records; // bans that the ledger is told of
pub mod tool; // child processes
mod xtables; // the rules of iptables as nf_tables has them

use firewall::{Add, Added, Doomed, Ensured, Firewall, Put};

/// How long to wait before asking again a kernel that had no ip_set or gave no rights: the first makes it start
/// modprobe each time.
const RETRY: Duration = Duration::from_secs(30);

/// Which of a jail's four sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// IPv4 addresses.
    Ip4,
    /// IPv6 prefixes, all of one length.
    Ip6,
    /// IPv4 networks, banned by hand.
    Net4,
    /// IPv6 networks, banned by hand.
    Net6,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ip4, Self::Ip6, Self::Net4, Self::Net6];

    /// What a set's name ends in.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Ip4 => "",
            Self::Ip6 => "6",
            Self::Net4 => "-n",
            Self::Net6 => "-n6",
        }
    }

    /// Whether it is in the way of every packet even if empty, so that it is only made when it is wanted.
    #[must_use]
    pub fn on_demand(self) -> bool {
        match self {
            Self::Ip4 | Self::Ip6 => false,
            Self::Net4 | Self::Net6 => true,
        }
    }
}

/// A set: its name and what it has to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetRef {
    /// At most 31 bytes (IPSET_MAXNAMELEN).
    pub name: String,
    /// What is in it.
    pub kind: Kind,
    /// Length of the prefixes in a [`Kind::Ip6`] set.
    pub ipv6_prefix: u8,
    /// It begins with few buckets.
    pub small: bool,
}

impl SetRef {
    /// A set named after `sets` ([`Jail::sets`]).
    #[must_use]
    pub fn new(set_prefix: &str, sets: &str, kind: Kind, ipv6_prefix: u8) -> Self {
        Self {
            name: format!("{set_prefix}{sets}{}", kind.suffix()),
            kind,
            ipv6_prefix,
            small: false,
        }
    }

    /// The one of a jail that is of this kind.
    #[must_use]
    pub fn one(set_prefix: &str, jail: &Jail, kind: Kind) -> Self {
        Self {
            small: jail.small_sets,
            ..Self::new(set_prefix, &jail.sets, kind, jail.ipv6_prefix)
        }
    }

    /// All four of a jail, in the order of [`Kind::ALL`].
    #[must_use]
    pub fn of(set_prefix: &str, jail: &Jail) -> [Self; 4] {
        Kind::ALL.map(|kind| Self::one(set_prefix, jail, kind))
    }
}

/// Which kind of set takes `who`, and in which form: a network of just one address or prefix is that client.
#[must_use]
pub fn place_of(who: Target, ipv6_prefix: u8) -> (Kind, Target) {
    use crate::client::Client;
    use std::net::IpAddr;
    let whole = |client: Client| match client.addr() {
        IpAddr::V4(_) => (Kind::Ip4, Target::Client(client)),
        IpAddr::V6(_) => (Kind::Ip6, Target::Client(client.counted(ipv6_prefix))),
    };
    match who {
        Target::Client(client) => whole(client),
        Target::Net(net) => match net.network() {
            IpAddr::V4(_) if net.prefix_len() == 32 => whole(Client::new(net.network())),
            IpAddr::V6(_) if net.prefix_len() == ipv6_prefix => whole(Client::new(net.network())),
            IpAddr::V4(_) => (Kind::Net4, Target::Net(net.trunc())),
            IpAddr::V6(_) => (Kind::Net6, Target::Net(net.trunc())),
        },
    }
}

/// The jails that have sets, with their numbers: those that ban, here or in a process with another format, and the one for
/// bans by hand (`manual`), whose number is one above the last.
pub fn jails(config: &Config) -> impl Iterator<Item = (JailId, &Jail)> {
    config
        .jails
        .iter()
        .chain([&config.manual])
        .enumerate()
        .filter_map(|(n, jail)| Some((JailId::try_from(n).ok()?, jail)))
        .filter(|(_, jail)| jail.mode == Mode::Ban || jail.blind)
}

/// The jail with this number, `manual` too.
#[must_use]
pub fn jail(config: &Config, id: JailId) -> Option<&Jail> {
    jails(config).find(|(n, _)| *n == id).map(|(_, jail)| jail)
}

/// What came of a ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Banned {
    /// It holds from now on.
    New,
    /// The same, in a set that had to be made: the chain needs a look.
    NewSet,
    /// It held already. If the client still gets through, the chain is not in place or he comes another way.
    Already,
}

/// A ban to carry out.
#[derive(Clone, Copy, Debug)]
pub struct Ban<'a> {
    /// Whose sets.
    pub jail: JailId,
    /// Whom.
    pub who: Bannable,
    /// How long.
    pub ban_for: BanFor,
    /// Why, for people; may hold what a client wrote.
    pub reason: &'a str,
}

/// Why a ban could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActError {
    /// The kernel has no ip_set.
    NoIpset,
    /// The kernel has no nf_tables.
    NoNftables,
    /// Nobody is to be banned (`firewall.backend = "dry-run"`).
    DryRun,
    /// No CAP_NET_ADMIN.
    NoRights,
    /// A set or table has our name and is not ours.
    Foreign {
        /// What it is: `set f2bp-sshd`.
        what: String,
        /// What is not as we make it.
        why: &'static str,
        /// What takes it away.
        remedy: String,
    },
    /// The set is not there.
    NoSet {
        /// Its name.
        set: String,
    },
    /// The set is full.
    Full {
        /// Its name.
        set: String,
    },
    /// No such jail, or one that only observes.
    NoJail(JailId),
    /// iptables did not do its work.
    Rules(String),
    /// Anything else the kernel said, or did not say.
    Wire {
        /// What was asked for: `ipset add`.
        what: &'static str,
        /// About what: `f2bp-sshd 192.0.2.7`.
        about: String,
        /// The answer.
        error: netlink::WireError,
    },
}

impl ActError {
    fn wire(what: &'static str, about: &str, error: netlink::WireError) -> Self {
        use netlink::{Refusal, WireError};
        use nix::errno::Errno;
        crate::notify::measure::netlink_failed();
        // EACCES is SELinux's.
        let no_rights = [Errno::EPERM, Errno::EACCES].into_iter().any(|errno| {
            [
                WireError::Open(errno),
                WireError::Send(errno),
                WireError::Refused(Refusal::Os(errno)),
            ]
            .contains(&error)
        });
        if no_rights {
            return Self::NoRights;
        }
        Self::Wire {
            what,
            about: about.to_owned(),
            error,
        }
    }

    fn foreign(set: &str, why: &'static str) -> Self {
        Self::Foreign {
            what: format!("set {set}"),
            why,
            remedy: format!("ipset destroy {set}"),
        }
    }

    fn no_set(set: &str) -> Self {
        Self::NoSet {
            set: set.to_owned(),
        }
    }
}

impl fmt::Display for ActError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIpset => f.write_str(
                "this kernel has no ip_set; install it: apt install ipset / dnf install ipset (a minimal RHEL 10 also needs \
                 kernel-modules-extra); counting goes on, nobody is banned until then",
            ),
            Self::NoRights if privilege::enforced().is_some() => f.write_str(
                "no right to ban: SELinux is enforcing, and f2b-pipe check says how it is made to allow this (ausearch -m avc -c \
                 f2b-pipe shows what it refused); counting goes on, nobody is banned until then",
            ),
            Self::NoRights => f.write_str(
                "no right to ban (CAP_NET_ADMIN); httpd must be started as root, a container needs --cap-add NET_ADMIN, a \
                 systemd unit CAP_NET_ADMIN in its CapabilityBoundingSet; counting goes on, nobody is banned until then",
            ),
            Self::NoNftables => f.write_str(
                "this kernel has no nf_tables, which firewall.backend = \"nftables\" needs (a container shares the host's: modprobe \
                 nf_tables there); counting goes on, nobody is banned until then",
            ),
            Self::DryRun => f.write_str(
                "firewall.backend is \"dry-run\", so nobody is banned; take that line out, or write backend = \"auto\"",
            ),
            Self::Foreign { what, why, remedy } => write!(
                f,
                "the {what} belongs to another program ({why}) and is left alone; nobody is banned there: take it away \
                 ({remedy}), rename the jail, or choose another firewall.set_prefix"
            ),
            Self::NoSet { set } => write!(f, "the set {set} is gone"),
            Self::Full { set } => write!(
                f,
                "the set {set} is full ({} bans) and none could be taken out",
                firewall::MAX_ELEMENTS
            ),
            Self::NoJail(id) => write!(f, "jail number {id} has no sets"),
            Self::Rules(text) => f.write_str(text),
            Self::Wire { what, about, error } => {
                f.write_str(what)?;
                if !about.is_empty() {
                    write!(f, " {about}")?;
                }
                write!(f, ": {error}")
            }
        }
    }
}

impl std::error::Error for ActError {}

impl From<tool::ToolError> for ActError {
    fn from(error: tool::ToolError) -> Self {
        Self::Rules(error.to_string())
    }
}

/// Who carries out bans: the kernel, or nobody.
#[derive(Debug)]
pub enum Act {
    /// The kernel's sets.
    Live(Live),
    /// Nobody is banned; only remembered, so that the answers are right.
    Dry(dry::Dry),
}

impl Act {
    /// As the configuration says. Cannot fail: a kernel that cannot be reached is asked again at a later ban.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        match config.firewall.backend {
            Backend::Auto | Backend::Ipset | Backend::Nftables => Self::Live(Live::new(config)),
            Backend::DryRun => Self::Dry(dry::Dry::new(config)),
        }
    }

    /// Bans. `now_ms` is the caller's clock, which only the dry backend goes by.
    ///
    /// # Errors
    /// Nobody was banned, and why. Say each text once: an attack brings the same one a thousand times.
    pub fn ban(&mut self, ban: &Ban<'_>, now_ms: u64) -> Result<Banned, ActError> {
        match self {
            Self::Live(live) => live.ban(ban, Add::New),
            Self::Dry(dry) => dry.ban(ban, now_ms),
        }
    }

    /// Lets a ban last for `ban.ban_for` from now, whether it was there or not.
    ///
    /// # Errors
    /// As [`Act::ban`].
    pub fn prolong(&mut self, ban: &Ban<'_>, now_ms: u64) -> Result<(), ActError> {
        match self {
            Self::Live(live) => match live.ban(ban, Add::Replace)? {
                Banned::New | Banned::NewSet | Banned::Already => Ok(()),
            },
            Self::Dry(dry) => dry.prolong(ban, now_ms),
        }
    }

    /// Puts bans from before a restart in force that are not any more, as after a reboot: a hundred thousand in less than a
    /// second. How many those were.
    ///
    /// # Errors
    /// Some may be in force.
    pub fn restore(&mut self, bans: Vec<(JailId, Bannable, BanFor)>) -> Result<usize, ActError> {
        match self {
            Self::Live(live) => live.restore(bans),
            Self::Dry(_) => Ok(0),
        }
    }

    /// Takes a ban away; whether there was one.
    ///
    /// # Errors
    /// The kernel cannot be reached.
    pub fn unban(&mut self, jail: JailId, who: Target, now_ms: u64) -> Result<bool, ActError> {
        match self {
            Self::Live(live) => live.unban(jail, who),
            Self::Dry(dry) => dry.unban(jail, who, now_ms),
        }
    }

    /// The next ban that ended before `now_ms`, each once. The kernel ends its bans by itself and tells nobody.
    pub fn ended(&mut self, now_ms: u64) -> Option<dry::Ended> {
        match self {
            Self::Live(_) => None,
            Self::Dry(dry) => dry.ended(now_ms),
        }
    }
}

/// A jail's sets as the hot thread knows them.
#[derive(Debug)]
struct JailSets {
    ipv6_prefix: u8,
    /// In the order of [`Kind::ALL`], and whether this process has looked at it.
    sets: [(SetRef, bool); 4],
}

impl JailSets {
    fn get_mut(&mut self, kind: Kind) -> &mut (SetRef, bool) {
        let [ip4, ip6, net4, net6] = &mut self.sets;
        match kind {
            Kind::Ip4 => ip4,
            Kind::Ip6 => ip6,
            Kind::Net4 => net4,
            Kind::Net6 => net6,
        }
    }
}

/// The kernel's sets, reached when first needed.
#[derive(Debug)]
pub struct Live {
    /// By [`JailId`]; `None`: a jail that only observes.
    jails: Vec<Option<JailSets>>,
    kernel: Kernel,
    /// A full set was spoken of.
    said_full: bool,
    doomed: Doomed,
}

impl Live {
    fn new(config: &Config) -> Self {
        let mut by_id = Vec::new();
        for (id, jail) in jails(config) {
            by_id.resize_with(usize::from(id), || None);
            by_id.push(Some(JailSets {
                ipv6_prefix: jail.ipv6_prefix,
                sets: SetRef::of(&config.firewall.set_prefix, jail).map(|set| (set, false)),
            }));
        }
        Self {
            jails: by_id,
            kernel: Kernel {
                which: config.firewall.clone(),
                open: None,
                failed: None,
            },
            said_full: false,
            doomed: Doomed::default(),
        }
    }

    fn ban(&mut self, ban: &Ban<'_>, mode: Add) -> Result<Banned, ActError> {
        let sets = self
            .jails
            .get_mut(usize::from(ban.jail))
            .and_then(Option::as_mut)
            .ok_or(ActError::NoJail(ban.jail))?;
        let (kind, who) = place_of(ban.who.target(), sets.ipv6_prefix);
        let (set, seen) = sets.get_mut(kind);
        let firewall = self.kernel.reach()?;
        let mut made = false;
        if !*seen {
            made = firewall.ensure(set)? == Ensured::Made;
            *seen = true;
        }
        let add =
            |firewall: &mut dyn Firewall| firewall.add(set, who, ban.ban_for, ban.reason, mode);
        let mut added = add(firewall);
        if let Err(ActError::NoSet { .. }) = added {
            made |= firewall.ensure(set)? == Ensured::Made;
            added = add(firewall);
        }
        if let Err(ActError::Full { .. }) = added {
            if !self.said_full {
                self.said_full = true;
                log::warn!(
                    "the set {} is full ({} bans); from now on each new ban takes the place of one that ends soon",
                    set.name,
                    firewall::MAX_ELEMENTS
                );
            }
            // The kernel only counts all elements once the new one's part of the table is over its share, so there may be
            // more than the maximum, and one less may not be enough.
            let mut tries = firewall::DOOMED_MAX;
            while let (Err(ActError::Full { .. }), 1..) = (&added, tries)
                && self.doomed.make_room(firewall, set)?
            {
                tries -= 1;
                added = add(firewall);
            }
        }
        Ok(match added? {
            Added::New if made => Banned::NewSet,
            Added::NewSet => Banned::NewSet,
            Added::New => Banned::New,
            Added::Already => Banned::Already,
        })
    }

    fn restore(&mut self, bans: Vec<(JailId, Bannable, BanFor)>) -> Result<usize, ActError> {
        let mut by_set: HashMap<(JailId, Kind), Vec<Put>> = HashMap::new();
        for (id, who, ban_for) in bans {
            let Some(Some(sets)) = self.jails.get(usize::from(id)) else {
                continue;
            };
            let (kind, who) = place_of(who.target(), sets.ipv6_prefix);
            by_set.entry((id, kind)).or_default().push(Put {
                who,
                ban_for,
                reason: "restored".to_owned(),
            });
        }
        let firewall = self.kernel.reach()?;
        let mut many = 0;
        for ((id, kind), mut bans) in by_set {
            let Some(Some(sets)) = self.jails.get_mut(usize::from(id)) else {
                continue;
            };
            let (set, seen) = sets.get_mut(kind);
            firewall.ensure(set)?;
            *seen = true;
            let mut there = HashSet::new();
            firewall.list(&set.name, &mut |member| {
                there.extend(firewall::target_of(&member));
            })?;
            bans.retain(|ban| !there.contains(&ban.who));
            many += bans.len();
            firewall.add_many(set, &bans)?;
        }
        Ok(many)
    }

    fn unban(&mut self, jail: JailId, who: Target) -> Result<bool, ActError> {
        let sets = self
            .jails
            .get_mut(usize::from(jail))
            .and_then(Option::as_mut)
            .ok_or(ActError::NoJail(jail))?;
        let (kind, who) = place_of(who, sets.ipv6_prefix);
        self.kernel.reach()?.del(&sets.get_mut(kind).0, who)
    }
}

/// The firewall, reached when first needed.
#[derive(Debug)]
struct Kernel {
    /// Which.
    which: crate::config::Firewall,
    open: Option<Box<dyn Firewall>>,
    /// The last attempt to reach it that failed.
    failed: Option<(Instant, ActError)>,
}

impl Kernel {
    /// The connection, made now if there is none and the last attempt was long enough ago.
    fn reach(&mut self) -> Result<&mut dyn Firewall, ActError> {
        if let (None, Some((at, error))) = (&self.open, &self.failed)
            && at.elapsed() < RETRY
        {
            return Err(error.clone());
        }
        match &mut self.open {
            Some(open) => Ok(open.as_mut()),
            none => match firewall::open(&self.which) {
                Ok(opened) => {
                    self.failed = None;
                    Ok(none.insert(opened).as_mut())
                }
                Err(error) => {
                    self.failed = Some((Instant::now(), error.clone()));
                    Err(error)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    #[test]
    fn a_network_of_one_address_is_that_client() {
        let place = |text: &str| {
            let target = match text.parse() {
                Ok(net) => Target::Net(net),
                Err(_) => Target::Client(Client::parse(text.as_bytes()).unwrap()),
            };
            let (kind, who) = place_of(target, 64);
            format!("{kind:?} {who}")
        };
        assert_eq!(place("192.0.2.7"), "Ip4 192.0.2.7");
        assert_eq!(place("192.0.2.7/32"), "Ip4 192.0.2.7");
        assert_eq!(place("192.0.2.7/24"), "Net4 192.0.2.0/24");
        assert_eq!(place("2001:db8::1"), "Ip6 2001:db8::");
        assert_eq!(place("2001:db8::1/64"), "Ip6 2001:db8::");
        assert_eq!(place("2001:db8::1/48"), "Net6 2001:db8::/48");
        assert_eq!(place("2001:db8::1/128"), "Net6 2001:db8::1/128");
    }

    #[test]
    fn the_longest_names_fit_the_kernel() {
        for name in ["j".repeat(20), "j".repeat(21), "Ä".repeat(999)] {
            let sets = crate::config::sets_of(&name);
            let set = SetRef::new("prefix8-", &sets, Kind::Net6, 64);
            assert!(set.name.len() <= 31, "{}", set.name);
        }
    }
}
