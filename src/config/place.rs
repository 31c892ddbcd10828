//! Addresses and ports as they are written: `ignoreip`, `proxies`, `port`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::Ports;
use super::problem::Wrong;
use super::text::Value;

/// Ports that iptables' multiport takes.
const PORTS_MAX: usize = 15;

/// Ports by name that need no file: those that a web server's configuration is about, and the usual neighbours.
const SERVICES: &[(&str, u16)] = &[
    ("http", 80),
    ("https", 443),
    ("http-alt", 8080),
    ("https-alt", 8443),
    ("ssh", 22),
    ("ftp", 21),
    ("smtp", 25),
    ("smtps", 465),
    ("submission", 587),
    ("submissions", 465),
    ("imap", 143),
    ("imap2", 143),
    ("imaps", 993),
    ("pop3", 110),
    ("pop3s", 995),
];

/// One entry of `ignoreip`.
#[derive(Debug)]
pub(super) enum Who {
    /// An address or network.
    Net(IpNet),
    /// A network with bits set beyond its length: the network that is meant.
    Masked(IpNet),
    /// A host name.
    Name(String),
}

/// Reads an address, a network (`/24` or `/255.255.255.0`) or a host name.
pub(super) fn who(text: &str) -> Result<Who, Wrong> {
    let bad = || {
        Wrong::from(format!(
            "\"{text}\" is no address, network or host name; write \"192.0.2.7\", \"192.0.2.0/24\" or \"host.example.org\""
        ))
    };
    let (addr, length) = match text.split_once('/') {
        Some((addr, length)) => (addr, Some(length)),
        None => (text, None),
    };
    if let Ok(addr) = addr.parse::<IpAddr>() {
        let Some(length) = length else {
            return Ok(Who::Net(IpNet::from(addr.to_canonical())));
        };
        let net = match length.parse::<u8>() {
            Ok(length) => IpNet::new(addr, length).ok(),
            Err(_) => length
                .parse::<IpAddr>()
                .ok()
                .and_then(|mask| IpNet::with_netmask(addr, mask).ok()),
        };
        let net = net.ok_or_else(|| {
            Wrong::from(format!(
                "\"{text}\": no such length of a network; write 0 to {} behind the /",
                if addr.is_ipv4() { 32 } else { 128 }
            ))
        })?;
        let net = canonical(net);
        return Ok(if net == net.trunc() {
            Who::Net(net)
        } else {
            Who::Masked(net.trunc())
        });
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let labels = || addr.trim_end_matches('.').split('.');
    // A last label of digits alone is a mistyped address, not a name.
    let named = labels()
        .next_back()
        .is_some_and(|last| last.bytes().any(|b| b.is_ascii_alphabetic()));
    if length.is_none() && addr.len() <= 253 && named && labels().all(label) {
        return Ok(Who::Name(addr.to_owned()));
    }
    Err(bad())
}

/// `::ffff:192.0.2.0/120` is `192.0.2.0/24`, as its clients are IPv4 clients.
fn canonical(net: IpNet) -> IpNet {
    match (net.addr().to_canonical(), net.prefix_len().checked_sub(96)) {
        (IpAddr::V4(v4), Some(length)) if net.addr().is_ipv6() => {
            Ipv4Net::new(v4, length).map_or(net, IpNet::V4)
        }
        _ => net,
    }
}

/// `port`: `"all"`, or names and numbers.
pub(super) fn ports(values: &[&Value], services: &mut Services) -> Result<Ports, Wrong> {
    let mut ports: Vec<(String, u16)> = Vec::new();
    let mut words = Vec::new();
    for value in values {
        if let Some(n) = value.int() {
            words.push(n.to_string());
        } else if let Some(text) = value.text() {
            // fail2ban's form, "http,https", means the same.
            let parts = text.split([',', ' ', '\t']).filter(|word| !word.is_empty());
            words.extend(parts.map(str::to_owned));
        } else {
            return Err(format!("{} is no port; write \"http\" or 8080", value.shown()).into());
        }
    }
    if words.iter().any(|word| word == "all") {
        if words.len() > 1 {
            return Err("\"all\" beside other ports; write port = \"all\""
                .to_owned()
                .into());
        }
        return Ok(Ports::All);
    }
    for word in words {
        let number = word
            .parse::<u16>()
            .ok()
            .filter(|n| *n > 0)
            .or_else(|| services.port(&word));
        let Some(number) = number else {
            let advice =
                if word.contains([':', '-']) && word.starts_with(|c: char| c.is_ascii_digit()) {
                    "is a range; write its ports one by one, or \"all\""
                } else {
                    "is no port and no service of /etc/services; write its number, 1 to 65535"
                };
            return Err(format!("\"{word}\" {advice}").into());
        };
        if ports.iter().all(|(_, n)| *n != number) {
            ports.push((word, number));
        }
    }
    match ports.len() {
        0 => Err("an empty list; write [\"http\", \"https\"] or \"all\""
            .to_owned()
            .into()),
        1..=PORTS_MAX => Ok(Ports::These(ports)),
        n => Err(format!("{n} ports, a rule takes {PORTS_MAX}; write fewer, or \"all\"").into()),
    }
}

/// TCP services by name; the file is read when a name is asked for that is not built in.
#[derive(Debug, Default)]
pub(super) struct Services(Option<String>);

impl Services {
    fn port(&mut self, name: &str) -> Option<u16> {
        if let Some((_, port)) = SERVICES.iter().find(|(service, _)| *service == name) {
            return Some(*port);
        }
        let file = self.0.get_or_insert_with(|| {
            std::fs::read("/etc/services")
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default()
        });
        file.lines().find_map(|line| {
            let mut words = line.split('#').next()?.split_ascii_whitespace();
            let service = words.next()?;
            let port = words.next()?.strip_suffix("/tcp")?;
            (service == name || words.any(|alias| alias == name)).then(|| port.parse().ok())?
        })
    }
}
