//! Addresses, ports and protocols as they are written: `ignoreip`, `proxies`, `port`, `protocol`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::problem::Wrong;
use super::text::Value;
use super::{PortRange, Ports, Protocol};

/// Most words of one `port`: each 15 of them are a rule that every packet meets.
const PORTS_MAX: usize = 256;

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
pub(crate) enum Who {
    /// An address or network.
    Net(IpNet),
    /// A network with bits set beyond its length: the network that is meant.
    Masked(IpNet),
    /// A host name.
    Name(String),
}

/// Reads an address, a network (`/24` or `/255.255.255.0`) or a host name.
pub(crate) fn who(text: &str) -> Result<Who, Wrong> {
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

/// `port`: `"all"`, or names, numbers and ranges.
pub(super) fn ports(values: &[&Value]) -> Result<Ports, Wrong> {
    let mut texts = Vec::new();
    for value in values {
        let number = value.int().map(|n| n.to_string());
        let text = number.or_else(|| value.text().map(str::to_owned));
        texts.push(
            text.ok_or_else(|| format!("{} is no port; write \"http\" or 8080", value.shown()))?,
        );
    }
    Ok(ports_of(&words(&texts))?)
}

/// Reads ports that are already apart: `all`, `any`, `0:65535`; services, numbers, `1024:65535`, `6000-6010`.
///
/// # Errors
/// The first word that is none of these; what to write.
pub(crate) fn ports_of(words: &[&str]) -> Result<Ports, String> {
    if words.iter().any(|word| ["all", "any"].contains(word)) {
        return match words {
            [_] => Ok(Ports::All),
            _ => Err("\"all\" beside other ports; write port = \"all\"".to_owned()),
        };
    }
    if words.is_empty() {
        return Err("an empty list; write [\"http\", \"https\"] or \"all\"".to_owned());
    }
    if words.len() > PORTS_MAX {
        return Err(format!(
            "{} ports, at most {PORTS_MAX} are taken; write ranges (\"8000:8100\"), or \"all\"",
            words.len()
        ));
    }
    let mut services = Services::default();
    let mut ports: Vec<PortRange> = Vec::new();
    for word in words {
        let (first, last) = range(word, &mut services)?;
        if (first, last) == (0, u16::MAX) {
            return Ok(Ports::All);
        }
        if ports.iter().all(|p| (p.first, p.last) != (first, last)) {
            let written = (*word).to_owned();
            ports.push(PortRange {
                written,
                first,
                last,
            });
        }
    }
    Ok(Ports::These(ports))
}

/// One port, or a range as iptables writes it (`1024:`, `:1023`, too) or with a dash.
fn range(word: &str, services: &mut Services) -> Result<(u16, u16), String> {
    // A dash also stands in the names of services.
    let dashed = || {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        word.split_once('-')
            .filter(|(first, last)| number(first) && number(last))
    };
    let Some((first, last)) = word.split_once(':').or_else(dashed) else {
        return match services.number(word)? {
            0 => Err(no_port(word)),
            port => Ok((port, port)),
        };
    };
    let (first, last) = match (first, last) {
        ("", "") => return Err(no_port(word)),
        ("", last) => (0, services.number(last)?),
        (first, "") => (services.number(first)?, u16::MAX),
        (first, last) => (services.number(first)?, services.number(last)?),
    };
    if first > last {
        return Err(format!(
            "\"{word}\" is a range that ends before it begins; write \"{last}:{first}\""
        ));
    }
    Ok((first, last))
}

fn no_port(word: &str) -> String {
    format!("\"{word}\" is no port and no service of /etc/services; write its number, 1 to 65535")
}

/// `protocol`.
pub(super) fn protocols(values: &[&Value]) -> Result<Vec<Protocol>, Wrong> {
    let mut texts = Vec::new();
    for value in values {
        let text = value.text().map(str::to_owned);
        texts.push(text.ok_or_else(|| no_protocol(&value.shown()))?);
    }
    Ok(protocols_of(&words(&texts))?)
}

/// Reads protocols that are already apart; each is there once, in the order written.
///
/// # Errors
/// The first word that is none; what to write.
pub(crate) fn protocols_of(words: &[&str]) -> Result<Vec<Protocol>, String> {
    let mut protocols = Vec::new();
    for word in words {
        let is = |protocol: &&Protocol| protocol.name().eq_ignore_ascii_case(word);
        let protocol = Protocol::EACH.iter().find(is);
        let protocol = *protocol.ok_or_else(|| no_protocol(&format!("\"{word}\"")))?;
        if !protocols.contains(&protocol) {
            protocols.push(protocol);
        }
    }
    match protocols.as_slice() {
        [] => Err("an empty list; write \"tcp\", [\"tcp\", \"udp\"] or \"all\"".to_owned()),
        [_, _, ..] if protocols.contains(&Protocol::All) => {
            Err("\"all\" beside other protocols; write protocol = \"all\"".to_owned())
        }
        _ => Ok(protocols),
    }
}

fn no_protocol(shown: &str) -> String {
    let names: Vec<&str> = Protocol::EACH.iter().map(|p| p.name()).collect();
    format!(
        "{shown} is no protocol known here; write one of {}",
        names.join(", ")
    )
}

/// fail2ban's form, `"http,https"`, means the same as a list.
fn words(texts: &[String]) -> Vec<&str> {
    texts
        .iter()
        .flat_map(|text| text.split([',', ' ', '\t']))
        .filter(|word| !word.is_empty())
        .collect()
}

/// Services by name; the file is read when a name is asked for that is not built in.
#[derive(Debug, Default)]
struct Services(Option<String>);

impl Services {
    /// A number, or the port of a service.
    fn number(&mut self, word: &str) -> Result<u16, String> {
        let number = word.parse().ok().or_else(|| self.port(word));
        number.ok_or_else(|| no_port(word))
    }

    fn port(&mut self, name: &str) -> Option<u16> {
        if let Some((_, port)) = SERVICES.iter().find(|(service, _)| *service == name) {
            return Some(*port);
        }
        let file = self.0.get_or_insert_with(|| {
            std::fs::read("/etc/services")
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default()
        });
        // tftp has no line for TCP.
        ["/tcp", "/udp", "/sctp", "/dccp"].iter().find_map(|over| {
            file.lines().find_map(|line| {
                let mut words = line.split('#').next()?.split_ascii_whitespace();
                let service = words.next()?;
                let port = words.next()?.strip_suffix(over)?;
                (service == name || words.any(|alias| alias == name)).then(|| port.parse().ok())?
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Vec<(u16, u16)>, String> {
        Ok(match ports_of(words)? {
            Ports::All => vec![],
            Ports::These(ports) => ports.iter().map(|p| (p.first, p.last)).collect(),
        })
    }

    #[test]
    fn a_port_is_a_number_a_service_or_a_range() {
        let words = [
            "ssh",
            "8080",
            "1024:2048",
            "6000-6010",
            "http:https",
            "60000:",
        ];
        let ranges = [
            (22, 22),
            (8080, 8080),
            (1024, 2048),
            (6000, 6010),
            (80, 443),
            (60000, 65535),
        ];
        assert_eq!(read(&words), Ok(ranges.to_vec()));
        assert_eq!(ports_of(&words).unwrap().written(), words);
        assert_eq!(
            read(&["http-alt", "8080", ":7"]),
            Ok(vec![(8080, 8080), (0, 7)])
        );
        for all in ["all", "any", "0:65535", "0-65535"] {
            assert_eq!(ports_of(&[all]), Ok(Ports::All), "{all}");
        }
    }

    #[test]
    fn what_is_no_port_is_named() {
        for (words, about) in [
            (&["http", "nosuch"][..], "\"nosuch\" is no port"),
            (&["http:nosuch"], "\"nosuch\" is no port"),
            (&["0"], "\"0\" is no port"),
            (&[":"], "\":\" is no port"),
            (&["1:70000"], "\"70000\" is no port"),
            (&["9-8"], "write \"8:9\""),
            (&["all", "22"], "beside other ports"),
            (&[], "an empty list"),
            (&["22"; 257], "257 ports"),
        ] {
            let error = ports_of(words).unwrap_err();
            assert!(error.contains(about), "{error}");
        }
    }

    #[test]
    fn a_protocol_stands_once() {
        use Protocol::{Tcp, Udp};
        assert_eq!(protocols_of(&["tcp", "UDP", "tcp"]), Ok(vec![Tcp, Udp]));
        assert_eq!(protocols_of(&["all"]), Ok(vec![Protocol::All]));
        for wrong in [&["all", "tcp"][..], &["http"], &[]] {
            assert!(protocols_of(wrong).is_err());
        }
    }
}
