//! Who is never banned.
//!
//! In: whom a jail, an administrator or a restored ban is about. Out: somebody who may be banned, or the rule that
//! spares him. Own, loopback and link-local addresses are spared whatever the configuration says. What changes while
//! we run (own addresses, who is logged in, host names) is looked up by a thread of its own, see [`Refresher`]; the
//! question here costs an atomic load and a few binary searches, and never waits.

use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::client::Client;
use crate::config::Config;
use crate::hit::JailId;

mod host; // own addresses, and from where somebody is logged in
mod live; // what changes: read by the hot thread, written by another
mod ranges; // many networks, one binary search

pub use live::Refresher;
use live::{Live, Shared};
use ranges::Ranges;

/// What a ban is about: one client (an IPv6 one stands for its prefix), or a network named by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// An address; an IPv6 one is already cut to the jail's prefix.
    Client(Client),
    /// `ban 192.0.2.0/24`.
    Net(IpNet),
}

impl Target {
    /// As people should see it: an IPv6 client stands for the `ipv6_prefix` that is banned with him.
    #[must_use]
    pub fn shown(self, ipv6_prefix: u8) -> Self {
        match self {
            Self::Client(client) if client.addr().is_ipv6() && ipv6_prefix < 128 => {
                IpNet::new(client.addr(), ipv6_prefix).map_or(self, Self::Net)
            }
            Self::Client(_) | Self::Net(_) => self,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => client.fmt(f),
            Self::Net(net) => net.fmt(f),
        }
    }
}

/// Somebody who may be banned. Only this room makes one, only `act` takes one: "we banned ourselves" does not compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bannable(Target);

impl Bannable {
    /// Whom.
    #[must_use]
    pub fn target(self) -> Target {
        self.0
    }

    /// `ban --force`: the administrator insists.
    #[must_use]
    pub fn forced(target: Target) -> Self {
        Self(target)
    }
}

/// The rule that spares somebody. For a network or an IPv6 prefix: something in it is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spared {
    /// 127.0.0.0/8, `::1`.
    Loopback,
    /// 169.254.0.0/16, `fe80::/10`.
    LinkLocal,
    /// 0.0.0.0/8, `::`: nobody's.
    Unspecified,
    /// 224.0.0.0/4, `ff00::/8`, 255.255.255.255: everybody's.
    Multicast,
    /// An address of this host.
    Own(IpAddr),
    /// In `proxies`.
    Proxy(IpNet),
    /// In the jail's `ignoreip`.
    Ignored(IpNet),
    /// An address of a host name in the jail's `ignoreip`.
    IgnoredName(Arc<str>, IpAddr),
    /// Somebody is logged in from here (`ignoreself`).
    LoggedIn(IpAddr),
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("loopback address"),
            Self::LinkLocal => f.write_str("link-local address"),
            Self::Unspecified => f.write_str("unspecified address"),
            Self::Multicast => f.write_str("multicast or broadcast address"),
            Self::Own(addr) => write!(f, "own address {addr}"),
            Self::Proxy(net) => write!(f, "proxies has {net}"),
            Self::Ignored(net) => write!(f, "ignoreip has {net}"),
            Self::IgnoredName(name, addr) => write!(f, "ignoreip has {name}, which is {addr}"),
            Self::LoggedIn(addr) => write!(f, "somebody is logged in from {addr} (ignoreself)"),
        }
    }
}

/// Networks that no configuration can give up.
const ALWAYS: &[(&str, Spared)] = &[
    ("127.0.0.0/8", Spared::Loopback),
    ("::1/128", Spared::Loopback),
    ("169.254.0.0/16", Spared::LinkLocal),
    ("fe80::/10", Spared::LinkLocal),
    ("0.0.0.0/8", Spared::Unspecified),
    ("::/128", Spared::Unspecified),
    ("224.0.0.0/4", Spared::Multicast),
    ("255.255.255.255/32", Spared::Multicast),
    ("ff00::/8", Spared::Multicast),
];

/// What one jail asks for.
#[derive(Clone, Debug)]
struct Wishes {
    ipv6_prefix: u8,
    ignoreself: bool,
    ignoreip: Ranges,
    names: Vec<Arc<str>>,
}

/// The never-ban list. One for each thread (`clone`): each keeps what it last saw of what changes.
#[derive(Clone, Debug)]
pub struct Exempt {
    /// [`ALWAYS`], and `proxies`.
    always: Ranges,
    /// By [`JailId`].
    jails: Vec<Wishes>,
    /// Bans by hand.
    manual: Wishes,
    shared: Arc<Shared>,
    /// The generation of `shared` that was last seen, and what it was.
    seen: RefCell<(u64, Arc<Live>)>,
}

impl Exempt {
    /// Reads own addresses and logins at once; host names are unknown until [`Refresher::refresh`] has been called.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self::among(config, Live::of_this_host())
    }

    /// For lines that are not of here and now: what the configuration and the kind of address say, whatever this host's
    /// own addresses are and whoever is logged in.
    #[must_use]
    pub fn of_config_only(config: &Config) -> Self {
        Self::among(config, Live::default())
    }

    fn among(config: &Config, live: Live) -> Self {
        let live = Arc::new(live);
        let shared = Arc::new(Shared::new(Arc::clone(&live)));
        Self::with(config, shared, (0, live))
    }

    /// The list of another configuration. What was looked up stays known; host names that are new are looked up soon.
    #[must_use]
    pub fn renewed(&self, config: &Config) -> Self {
        Self::with(config, Arc::clone(&self.shared), self.seen.borrow().clone())
    }

    fn with(config: &Config, shared: Arc<Shared>, seen: (u64, Arc<Live>)) -> Self {
        let wishes = |jail: &crate::config::Jail| Wishes {
            ipv6_prefix: jail.ipv6_prefix,
            ignoreself: jail.ignoreself,
            ignoreip: jail
                .ignoreip
                .iter()
                .map(|net| (*net, Spared::Ignored(*net)))
                .collect(),
            names: jail
                .ignoreip_names
                .iter()
                .map(|name| Arc::from(name.as_str()))
                .collect(),
        };
        let always = ALWAYS
            .iter()
            .filter_map(|(net, spared)| Some((net.parse().ok()?, spared.clone())));
        let proxies = config.proxies.iter().map(|net| (*net, Spared::Proxy(*net)));
        let jails: Vec<Wishes> = config.jails.iter().map(wishes).collect();
        let manual = wishes(&config.manual);
        let names = jails.iter().chain([&manual]).flat_map(|w| &w.names);
        shared.want(names.cloned().collect());
        Self {
            always: always.chain(proxies).collect(),
            jails,
            manual,
            shared,
            seen: RefCell::new(seen),
        }
    }

    /// What keeps this and all of its clones up to date, on a thread that may wait for DNS.
    #[must_use]
    pub fn refresher(&self) -> Refresher {
        Refresher::new(Arc::clone(&self.shared))
    }

    /// May `who` be banned by `jail` (`None`: by hand)?
    ///
    /// # Errors
    /// The rule that spares him, or something in the network or IPv6 prefix that he stands for.
    pub fn check(&self, who: Target, jail: Option<JailId>) -> Result<Bannable, Spared> {
        let wishes = jail
            .and_then(|id| self.jails.get(usize::from(id)))
            .unwrap_or(&self.manual);
        let mut seen = self.seen.borrow_mut();
        self.shared.update(&mut seen);
        let live = &seen.1;
        let spared = |range: Range| {
            let logged_in = || live.logged_in.find(range).filter(|_| wishes.ignoreself);
            let spared = self
                .always
                .find(range)
                .or_else(|| live.own.find(range))
                .or_else(|| wishes.ignoreip.find(range))
                .or_else(logged_in)
                .cloned();
            spared.or_else(|| wishes.names.iter().find_map(|name| live.named(name, range)))
        };
        let [single, whole] = ranges_of(who, wishes.ipv6_prefix);
        // The client himself first: what is said should be about him, not about a neighbour in his prefix.
        let found = spared(single).or_else(|| if whole == single { None } else { spared(whole) });
        found.map_or(Ok(Bannable(who)), Err)
    }
}

/// First and last address, IPv4 ones as `::ffff:a.b.c.d`.
type Range = (u128, u128);

/// The one that `who` names, and all that a ban of him would shut out.
fn ranges_of(who: Target, ipv6_prefix: u8) -> [Range; 2] {
    match who {
        Target::Net(net) => [range_of(net); 2],
        Target::Client(client) => {
            let single = IpNet::from(client.addr());
            let length = if single.addr().is_ipv4() {
                32
            } else {
                ipv6_prefix
            };
            let whole = IpNet::new(single.addr(), length).unwrap_or(single);
            [range_of(single), range_of(whole)]
        }
    }
}

fn range_of(net: IpNet) -> Range {
    (bits(net.network()), bits(net.broadcast()))
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
    .to_bits()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::from_text;

    fn exempt(text: &str) -> Exempt {
        let loaded = from_text(Path::new("my.toml"), text);
        assert_eq!(loaded.problems, []);
        Exempt::new(&loaded.config)
    }

    fn client(text: &str) -> Target {
        Target::Client(Client::parse(text.as_bytes()).unwrap())
    }

    fn net(text: &str) -> Target {
        Target::Net(text.parse().unwrap())
    }

    fn why(exempt: &Exempt, who: Target) -> String {
        exempt
            .check(who, Some(0))
            .map_or_else(|spared| spared.to_string(), |_| "bannable".to_owned())
    }

    #[test]
    fn what_is_nobodys_or_our_own_is_spared_whatever_the_configuration_says() {
        let exempt = exempt("[defaults]\nignoreip = []\nignoreself = false\n");
        for (who, reason) in [
            ("127.0.0.1", "loopback address"),
            ("127.255.255.255", "loopback address"),
            ("::1", "loopback address"),
            ("::ffff:127.0.0.1", "loopback address"),
            ("169.254.3.4", "link-local address"),
            ("fe80::1%eth0", "link-local address"),
            ("0.0.0.0", "unspecified address"),
            ("::", "unspecified address"),
            ("224.0.0.1", "multicast or broadcast address"),
            ("255.255.255.255", "multicast or broadcast address"),
            ("ff02::1", "multicast or broadcast address"),
            ("203.0.113.7", "bannable"),
            ("2001:db8::7", "bannable"),
            ("128.0.0.0", "bannable"),
            ("126.255.255.255", "bannable"),
            ("10.0.0.1", "bannable"),
        ] {
            assert_eq!(why(&exempt, client(who)), reason, "{who}");
        }
        for own in host::own_addresses()
            .into_iter()
            .filter(|own| !own.is_loopback())
        {
            assert!(
                exempt
                    .check(Target::Client(Client::new(own)), None)
                    .is_err(),
                "{own}"
            );
        }
    }

    #[test]
    fn the_rule_that_spares_is_named() {
        let exempt = exempt(
            "proxies = ['198.51.100.0/24']\n[defaults]\nignoreip = ['192.0.2.0/24', '192.0.2.7', '2001:db8:1::5']\n\
             [jail.apache-auth]\nignoreip = '203.0.113.1'\n",
        );
        assert_eq!(
            why(&exempt, client("192.0.2.7")),
            "ignoreip has 192.0.2.0/24"
        );
        assert_eq!(
            why(&exempt, client("198.51.100.9")),
            "proxies has 198.51.100.0/24"
        );
        assert_eq!(why(&exempt, client("203.0.113.1")), "bannable");
        assert!(
            exempt.check(client("203.0.113.1"), Some(1)).is_err(),
            "a jail's own list"
        );
        assert!(
            exempt.check(client("192.0.2.7"), Some(1)).is_ok(),
            "takes the place of that of [defaults]"
        );
        assert!(
            exempt.check(client("192.0.2.7"), None).is_err(),
            "by hand: [defaults]"
        );
    }

    #[test]
    fn an_ipv6_network_spares_no_ipv4_client() {
        for all in ["::/0", "::/80"] {
            let exempt = exempt(&format!(
                "[defaults]\nignoreip = ['{all}', '192.0.2.7', '10.0.0.0/8']\n"
            ));
            assert_eq!(why(&exempt, client("203.0.113.7")), "bannable", "{all}");
            assert_eq!(
                why(&exempt, client("192.0.2.7")),
                "ignoreip has 192.0.2.7/32"
            );
            assert_eq!(
                why(&exempt, client("10.255.255.255")),
                "ignoreip has 10.0.0.0/8"
            );
        }
        let exempt = exempt("[defaults]\nignoreip = ['::/0']\n");
        assert_eq!(why(&exempt, client("2001:db8::7")), "ignoreip has ::/0");
        assert_eq!(why(&exempt, net("203.0.113.0/24")), "bannable");
    }

    #[test]
    fn a_prefix_or_network_is_spared_if_anything_in_it_is() {
        let exempt = exempt(
            "[defaults]\nignoreip = ['203.0.113.7', '2001:db8:1::5']\n[jail.apache-dos]\nipv6_prefix = 64\n",
        );
        for (who, reason) in [
            (client("2001:db8:1::"), "ignoreip has 2001:db8:1::5/128"),
            (client("2001:db8:1:1::"), "bannable"),
            (net("203.0.113.0/24"), "ignoreip has 203.0.113.7/32"),
            (net("203.0.113.0/29"), "ignoreip has 203.0.113.7/32"),
            (net("203.0.113.8/29"), "bannable"),
            (net("203.0.113.0/30"), "bannable"),
            (net("2001:db8::/32"), "ignoreip has 2001:db8:1::5/128"),
        ] {
            assert_eq!(why(&exempt, who), reason, "{who}");
        }
        assert!(exempt.check(net("0.0.0.0/0"), None).is_err());
        assert!(exempt.check(net("::/0"), None).is_err());
    }

    #[test]
    fn many_networks_are_searched_as_one_by_one() {
        let nets: Vec<IpNet> = (0..300u32)
            .map(|i| {
                let bits = i.wrapping_mul(2_654_435_761);
                let length = u8::try_from(12 + i % 21).unwrap();
                IpNet::new(IpAddr::V4(bits.into()), length).unwrap().trunc()
            })
            .collect();
        let ranges: Ranges = nets
            .iter()
            .map(|net| (*net, Spared::Ignored(*net)))
            .collect();
        for i in 0..10_000u32 {
            let addr = IpAddr::V4(i.wrapping_mul(3_266_489_917).into());
            let one = IpNet::from(addr);
            let naive = nets.iter().any(|net| net.contains(&addr));
            assert_eq!(ranges.find(range_of(one)).is_some(), naive, "{addr}");
        }
    }
}
