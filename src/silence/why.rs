//! Somebody is banned and still comes: by which way? The kernel and httpd's configuration are asked, and [`reason`] judges
//! what they say, which is pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::still::Suspect;
use crate::act::firewall::{self, Firewall};
use crate::act::plan::{Family, Found, Plan};
use crate::act::{ActError, Kind, SetRef, jail, kill, place_of};
use crate::client::Client;
use crate::config::{Config, Jail};
use crate::exempt::Target;
use crate::httpd;

/// A connection that was open before the ban is given up by the kernel after its last packet was repeated in vain, about 15
/// minutes; what it still says is told when it has gone on for this long, milliseconds.
const LIVES_MS: u64 = 20_000;
/// A request that was under way has ended by now, in whatever way (httpd's Timeout is 60 s), milliseconds.
const UNKNOWN_MS: u64 = 120_000;
/// How long, and how often at first, connections are looked at. Whoever sends three lines in a few seconds comes meanwhile.
const SAMPLED: Duration = Duration::from_secs(2);
const SAMPLE: Duration = Duration::from_millis(10);
/// Peers that are counted when the busiest is sought.
const PEERS: usize = 10_000;

/// What can be known about a ban that does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// How long he has been banned, milliseconds.
    pub banned_ms: u64,
    /// Packets of his that the set turned away; `None`: he is in no set (any more).
    pub turned_away: Option<u64>,
    /// Chains that are not as they should be.
    pub chains: Vec<String>,
    /// Local ports of his connections that the jail does not close.
    pub open_ports: Vec<u16>,
    /// He has a connection to a port that the jail closes.
    pub connected: bool,
    /// Ports that httpd listens on and the jail does not close.
    pub listens: Vec<u16>,
    /// Who has most connections to ports that the jail closes, if it is a considerable part of them.
    pub busiest: Option<Client>,
    /// Connections of the banned are to be reset.
    pub resets: bool,
}

/// Why a ban does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Rules are gone, or another one comes first.
    Chain(Vec<String>),
    /// He comes to ports that the jail does not close; seen, or only likely (`false`).
    Ports(Vec<u16>, bool),
    /// None of his packets come here: a proxy's do, perhaps this one's.
    Proxy(Option<Client>),
    /// A connection from before the ban.
    Lives {
        /// `firewall.kill_connections` is on, and did not end it.
        resets: bool,
    },
    /// Packets of his are turned away, and yet lines come.
    Unknown(u64),
}

/// Judges. `None`: the ban holds as far as can be seen; lines that were late.
#[must_use]
pub fn reason(evidence: &Evidence) -> Option<Reason> {
    let Evidence {
        banned_ms,
        turned_away,
        chains,
        open_ports,
        connected,
        listens,
        busiest,
        resets,
    } = evidence;
    // His ban has ended, or somebody lifted it.
    let turned_away = (*turned_away)?;
    if !chains.is_empty() {
        Some(Reason::Chain(chains.clone()))
    } else if !open_ports.is_empty() {
        Some(Reason::Ports(open_ports.clone(), true))
    } else if turned_away == 0 && !*connected {
        Some(match listens.is_empty() {
            false => Reason::Ports(listens.clone(), false),
            true => Reason::Proxy(*busiest),
        })
    } else if *connected && *banned_ms >= LIVES_MS {
        Some(Reason::Lives { resets: *resets })
    } else if *banned_ms >= UNKNOWN_MS {
        Some(Reason::Unknown(turned_away))
    } else {
        None
    }
}

impl Reason {
    /// What is wrong and what to write, about `who` in `jail`.
    #[must_use]
    pub fn told(&self, jail: &Jail, who: &str) -> String {
        let still = format!("{who} is banned and still comes");
        match self {
            Self::Chain(chains) => format!(
                "{still}: the {}. Another program changes the rules (firewalld, ufw, a script with iptables -F?): see iptables -t \
                 raw -S, let it run before f2b-pipe and leave the chain alone; f2b-pipe check says what is missing",
                chains.join(", the ")
            ),
            Self::Ports(ports, seen) => {
                let way = match seen {
                    true => "he comes by",
                    false => "none of his packets met the set, and httpd listens on",
                };
                let names: Vec<String> = ports.iter().map(ToString::to_string).collect();
                format!(
                    "{still}: {way} port {}, which the jail does not close. Write {} in {}, or port = \"all\"",
                    names.join(", "),
                    with_ports(jail, ports),
                    section(jail)
                )
            }
            Self::Proxy(_) if jail.raw.is_some() => format!(
                "{still}: none of his packets met the set. Does the program listen on a port that the jail does not close (ss -ltnp)? \
                 Then write it behind {} in {}. Or he comes through a proxy or relay: block him there",
                with_ports(jail, &[]),
                section(jail)
            ),
            Self::Proxy(proxy) => {
                let which = match proxy {
                    Some(proxy) => format!(" (perhaps {proxy}, which has most connections)"),
                    None => ", or by a port that the jail does not close (ss -tn shows which)"
                        .to_owned(),
                };
                format!(
                    "{still}: none of his packets met the set, so he comes through a proxy{which}, and a packet filter sees only that. \
                     Block him at the proxy, or with Require not ip in httpd; log the peer, too (%{{c}}a in the LogFormat: the format \
                     f2b has it), and write proxies = [...], so that f2b-pipe knows"
                )
            }
            Self::Lives { resets: false } => format!(
                "{still}, by a connection from before the ban: firewall.kill_connections = true resets those"
            ),
            Self::Lives { resets: true } => format!(
                "{still}, by a connection from before the ban, which could not be reset (a kernel without \
                 CONFIG_INET_DIAG_DESTROY?): ss -K dst {who} tries by hand"
            ),
            Self::Unknown(packets) => format!(
                "{still}, although {packets} of his packets were turned away. By another network interface or namespace, a container's? \
                 ss -tn shows his connections, iptables -t raw -L f2b-pipe -vn what is turned away"
            ),
        }
    }
}

/// `port = ["http", "https", 8080]`.
fn with_ports(jail: &Jail, more: &[u16]) -> String {
    let written = jail.ports.written().into_iter();
    let words = written
        .map(|port| match port.parse::<u16>() {
            Ok(number) => number.to_string(),
            Err(_) => format!("\"{port}\""),
        })
        .chain(more.iter().map(ToString::to_string));
    format!("port = [{}]", words.collect::<Vec<_>>().join(", "))
}

/// Where to write.
fn section(jail: &Jail) -> String {
    use crate::config::Origin;
    let imported = jail.raw.as_ref().map(|raw| raw.origin);
    match imported {
        Some(Origin::Fail2ban) => format!("[{}] of fail2ban's jail.local", jail.name),
        Some(Origin::Own) | None => format!("[jail.{}]", jail.name),
    }
}

/// Looks. Takes as long as the set, the rules and the sockets are many: not for the hot thread. `pause` waits, and says
/// whether to go on.
///
/// # Errors
/// The kernel cannot be asked; that is told elsewhere.
pub fn look(
    config: &Config,
    suspect: &Suspect,
    pause: &dyn Fn(Duration) -> bool,
) -> Result<Evidence, ActError> {
    let Some(jail) = jail(config, suspect.jail) else {
        return Err(ActError::NoJail(suspect.jail));
    };
    let target = Target::Client(suspect.who);
    let (kind, who) = place_of(target, jail.ipv6_prefix);
    let set = SetRef::one(&config.firewall.set_prefix, jail, kind);
    let mut open = firewall::open(&config.firewall)?;
    let mut evidence = Evidence {
        banned_ms: suspect.banned_ms,
        resets: config.firewall.kill_connections,
        ..Evidence::default()
    };
    open.list(&set.name, &mut |member| {
        if firewall::target_of(&member) == Some(who) {
            evidence.turned_away = Some(member.packets);
        }
    })?;
    if evidence.turned_away.is_none() {
        return Ok(evidence);
    }
    evidence.chains = chains(config, open.as_mut(), kind)?;
    sockets(jail, suspect.who, &mut evidence, pause);
    if jail.raw.is_none() {
        evidence.listens = listens(jail);
    }
    Ok(evidence)
}

fn chains(config: &Config, open: &mut dyn Firewall, kind: Kind) -> Result<Vec<String>, ActError> {
    let names = open.names(&config.firewall.set_prefix)?;
    let mut sets = crate::act::keeper::wanted(config, &names);
    sets.retain(|set| names.contains(&set.name));
    let own = Family::of(kind);
    let families = open.families();
    let family = match families.contains(&own) {
        true => own,
        false => Family::Inet,
    };
    let mut wrong = Vec::new();
    for plan in Plan::all(config, &sets) {
        match open.found(&plan, family) {
            Ok(Found::InPlace) => {}
            Ok(found) => wrong.push(format!("{} {}", open.named(&plan, family), found.words())),
            Err(error) => wrong.push(format!("{}: {error}", open.named(&plan, family))),
        }
    }
    Ok(wrong)
}

/// Looks at connections again and again until one of his is seen: they may last for milliseconds.
fn sockets(jail: &Jail, who: Client, evidence: &mut Evidence, pause: &dyn Fn(Duration) -> bool) {
    let begun = Instant::now();
    while seen(jail, who, evidence)
        && evidence.open_ports.is_empty()
        && !evidence.connected
        && begun.elapsed() < SAMPLED
        // A table with half a million sockets takes a while to look at.
        && pause((begun.elapsed() / 8).max(SAMPLE))
    {}
}

/// One look; false: there is no use in another.
fn seen(jail: &Jail, who: Client, evidence: &mut Evidence) -> bool {
    let mut peers: HashMap<Client, u32> = HashMap::new();
    let mut all = 0_u32;
    let looked = kill::connections(|peer, port| {
        let closed = jail.ports.closes(port);
        if peer.counted(jail.ipv6_prefix) == who {
            match closed {
                true => evidence.connected = true,
                false => evidence.open_ports.push(port),
            }
        } else if closed && (peers.len() < PEERS || peers.contains_key(&peer)) {
            all += 1;
            *peers.entry(peer).or_default() += 1;
        }
    });
    if looked.is_err() {
        // Without the right to look, or the module: what is left says less.
        return false;
    }
    // Of a client of other servers the local port is any: what is meant are ports that somebody listens on.
    evidence.open_ports.retain(|port| *port < FIRST_OWN_PORT);
    evidence.open_ports.sort_unstable();
    evidence.open_ports.dedup();
    let busiest = peers.into_iter().max_by_key(|(_, n)| *n);
    let busiest = busiest.filter(|(_, n)| *n >= all / 4);
    evidence.busiest = busiest.map(|(peer, _)| peer).or(evidence.busiest);
    true
}

/// Local ports of connections that this host began itself (ip_local_port_range begins at 32768).
const FIRST_OWN_PORT: u16 = 32_768;

/// Ports that httpd listens on and the jail leaves open; none, where its configuration cannot be read.
fn listens(jail: &Jail) -> Vec<u16> {
    let httpd = httpd::find().and_then(|main| httpd::read(&main).ok());
    let mut ports: Vec<u16> = httpd
        .into_iter()
        .flat_map(|httpd| httpd.listen.into_iter().map(|(_, port)| port))
        .filter(|port| !jail.ports.closes(*port))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banned() -> Evidence {
        Evidence {
            banned_ms: 5_000,
            turned_away: Some(0),
            resets: true,
            ..Evidence::default()
        }
    }

    fn told(evidence: &Evidence) -> String {
        let config = Config::default();
        let jail = &config.jails[0];
        reason(evidence).map_or(String::new(), |reason| reason.told(jail, "192.0.2.7"))
    }

    #[test]
    fn a_ban_that_was_lifted_is_no_riddle() {
        let lifted = Evidence {
            turned_away: None,
            open_ports: vec![8080],
            ..banned()
        };
        assert_eq!(reason(&lifted), None);
    }

    #[test]
    fn lines_that_were_late_are_no_riddle() {
        let late = Evidence {
            turned_away: Some(3),
            ..banned()
        };
        assert_eq!(reason(&late), None);
        let connected = Evidence {
            connected: true,
            ..late.clone()
        };
        assert_eq!(reason(&connected), None);
        let for_long = Evidence {
            banned_ms: 200_000,
            ..late
        };
        assert_eq!(reason(&for_long), Some(Reason::Unknown(3)));
    }

    #[test]
    fn a_rule_that_is_gone_explains_all_else() {
        let gone = Evidence {
            chains: vec!["IPv4 chain f2b-pipe (table raw) was gone".into()],
            open_ports: vec![8080],
            ..banned()
        };
        let told = told(&gone);
        assert!(
            told.starts_with(
                "192.0.2.7 is banned and still comes: the IPv4 chain f2b-pipe (table raw) was gone."
            ),
            "{told}"
        );
    }

    #[test]
    fn another_port_is_named_with_what_to_write() {
        let seen = Evidence {
            open_ports: vec![8080],
            turned_away: Some(7),
            ..banned()
        };
        let text = told(&seen);
        assert!(text.contains("he comes by port 8080"), "{text}");
        assert!(
            text.contains(r#"Write port = ["http", "https", 8080] in [jail.apache-dos]"#),
            "{text}"
        );
        let likely = Evidence {
            listens: vec![8000],
            ..banned()
        };
        assert!(told(&likely).contains("httpd listens on port 8000"));
    }

    #[test]
    fn whose_packets_never_come_comes_through_a_proxy() {
        let proxy = Client::new("10.0.0.1".parse().unwrap());
        let behind = Evidence {
            busiest: Some(proxy),
            ..banned()
        };
        let text = told(&behind);
        assert!(text.contains("through a proxy (perhaps 10.0.0.1"), "{text}");
        assert!(text.contains("%{c}a"), "{text}");
    }

    #[test]
    fn a_connection_from_before_the_ban_is_told_with_what_resets_it() {
        let lives = Evidence {
            banned_ms: 30_000,
            connected: true,
            resets: false,
            ..banned()
        };
        assert!(told(&lives).contains("kill_connections = true"));
    }
}
