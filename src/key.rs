//! Whom a failure belongs to in fail2ban's jails: an address mostly, but a filter may as well name a network, or any text
//! (a user, a session).

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::client::Client;
use crate::exempt::Target;

/// The one that is counted and banned. Equal as fail2ban takes keys for equal: addresses by value, however they were
/// written, everything else by its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A single address.
    Client(Client),
    /// A network of more than one address, without host bits.
    Net(IpNet),
    /// Anything else; what looks like an address and is none, as `1.2.3.999`, too.
    Text(Box<str>),
}

impl Key {
    /// Longest text that is kept whole, bytes. The end of a longer one is cut off: two that differ only there are the
    /// same key. Linux host names end at 64 bytes, DNS names at 253.
    pub const TEXT_MAX_BYTES: usize = 1024;

    /// Reads an address (in brackets too), a network with a prefix length or a mask behind `/`, or takes the text.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .filter(|text| !text.is_empty())
            .unwrap_or(text);
        if let Ok(addr) = bare.parse::<IpAddr>() {
            return Self::Client(Client::new(addr));
        }
        if let Some(net) = bare.split_once('/').and_then(net) {
            return Self::from(net);
        }
        let mut end = bare.len().min(Self::TEXT_MAX_BYTES);
        while !bare.is_char_boundary(end) {
            end -= 1;
        }
        Self::Text(bare.get(..end).unwrap_or_default().into())
    }

    /// The one that a jail counts: an IPv6 address stands for its prefix of `ipv6_prefix` bits.
    #[must_use]
    pub fn counted(self, ipv6_prefix: u8) -> Self {
        match self {
            Self::Client(client) => Self::Client(client.counted(ipv6_prefix)),
            Self::Net(_) | Self::Text(_) => self,
        }
    }

    /// Whom a ban can be about in the kernel; `None`: a text.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        match self {
            Self::Client(client) => Some(Target::Client(*client)),
            Self::Net(net) => Some(Target::Net(*net)),
            Self::Text(_) => None,
        }
    }

    /// The address, if it is a single one.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        match self {
            Self::Client(client) => Some(*client),
            Self::Net(_) | Self::Text(_) => None,
        }
    }
}

fn net((addr, len): (&str, &str)) -> Option<IpNet> {
    let addr: IpAddr = addr.parse().ok()?;
    if let Ok(mask) = len.parse::<IpAddr>() {
        return IpNet::with_netmask(addr, mask).ok();
    }
    IpNet::new(addr, len.parse().ok()?).ok()
}

impl From<Client> for Key {
    fn from(client: Client) -> Self {
        Self::Client(client)
    }
}

impl From<Target> for Key {
    fn from(who: Target) -> Self {
        match who {
            Target::Client(client) => Self::Client(client),
            Target::Net(net) => Self::from(net),
        }
    }
}

impl From<IpNet> for Key {
    /// A network of one address is that address.
    fn from(net: IpNet) -> Self {
        if net.prefix_len() == net.max_prefix_len() {
            return Self::Client(Client::new(net.addr()));
        }
        Self::Net(net.trunc())
    }
}

impl fmt::Display for Key {
    /// As [`Key::parse`] reads it back, and as fail2ban writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => client.fmt(f),
            Self::Net(net) => net.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_equal_by_value() {
        for (one, other) in [
            ("192.0.2.7", "::ffff:192.0.2.7"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:DB8:0::1", "[2001:db8::1]"),
            ("192.0.2.7/24", "192.0.2.0/255.255.255.0"),
        ] {
            assert_eq!(Key::parse(one), Key::parse(other));
        }
    }

    #[test]
    fn a_key_is_written_as_it_is_read_back() {
        for (text, shown) in [
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:0:0::5/64", "2001:db8::/64"),
            ("1.2.3.999", "1.2.3.999"),
            ("01.2.3.4", "01.2.3.4"),
            ("root", "root"),
            ("a/b", "a/b"),
            ("192.0.2.0/33", "192.0.2.0/33"),
            ("", ""),
            ("[]", "[]"),
        ] {
            let key = Key::parse(text);
            assert_eq!(key.to_string(), shown);
            assert_eq!(Key::parse(&key.to_string()), key);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let key = Key::parse(&"ä".repeat(Key::TEXT_MAX_BYTES));
        assert_eq!(key.to_string().len(), Key::TEXT_MAX_BYTES);
    }
}
