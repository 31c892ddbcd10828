//! Who failed: the text of an address, network or name in its normal form, as fail2ban compares and bans it (rule 36).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How an address may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An IPv4 address and nothing else.
    V4,
    /// An IPv6 address and nothing else.
    V6,
    /// Either, cut to so many bits.
    Cidr(u32),
    /// Either, perhaps in brackets, perhaps with `/24` or `/255.255.255.0` behind it.
    Any,
    /// Text, whatever it looks like.
    Raw,
}

/// The normal form of `text`; what is no address stays as it is. `None`: fail2ban stumbles over the prefix behind the
/// slash, and drops the line.
pub(super) fn normal(text: &str, form: Form) -> Option<String> {
    let addr = match form {
        // An IPv4 address has one form only.
        Form::Raw | Form::V4 => return Some(text.to_owned()),
        Form::V6 => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        Form::Cidr(_) => text.parse().ok(),
        Form::Any => {
            let bare = text
                .strip_prefix('[')
                .and_then(|text| text.strip_suffix(']'))
                .filter(|bare| !bare.is_empty())
                .unwrap_or(text);
            return match bare.split_once('/') {
                None => Some(bare.parse().map_or_else(
                    |_| bare.to_owned(),
                    |addr: IpAddr| shown(addr.to_canonical()),
                )),
                Some((addr, bits)) => {
                    let bits = if bits.contains(['.', ':']) {
                        mask_bits(bits.parse().ok()?)?
                    } else {
                        bits.parse().ok()?
                    };
                    normal(addr, Form::Cidr(bits))
                }
            };
        }
    };
    Some(match (addr, form) {
        (None, _) => text.to_owned(),
        (Some(addr), Form::Cidr(bits)) => cut(addr, bits),
        (Some(addr), Form::V4 | Form::V6 | Form::Any | Form::Raw) => shown(addr.to_canonical()),
    })
}

/// The normal form of a text that is an address and nothing else, perhaps in brackets.
pub(super) fn address(text: &str) -> Option<String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse()
        .ok()
        .map(|addr: IpAddr| shown(addr.to_canonical()))
}

/// `192.0.2.7` and 24 bits: `192.0.2.0/24`. No bits at all are written without a length, as fail2ban does.
fn cut(addr: IpAddr, bits: u32) -> String {
    let (cut, all) = match addr {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(bits).unwrap_or(0);
            (IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !host)), 32)
        }
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(bits).unwrap_or(0);
            (IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !host)), 128)
        }
    };
    if (1..all).contains(&bits) {
        format!("{}/{bits}", shown(cut))
    } else {
        shown(cut)
    }
}

/// `255.255.255.0` is 24; `None`: a mask with a gap.
fn mask_bits(mask: IpAddr) -> Option<u32> {
    let (ones, zeros, all) = match mask {
        IpAddr::V4(v4) => (
            v4.to_bits().leading_ones(),
            v4.to_bits().trailing_zeros(),
            32,
        ),
        IpAddr::V6(v6) => (
            v6.to_bits().leading_ones(),
            v6.to_bits().trailing_zeros(),
            128,
        ),
    };
    (ones + zeros >= all).then_some(ones)
}

/// As inet_ntop(3) of glibc writes it: an IPv6 address of 96 zero bits ends as a dotted quad, which Rust does not do.
pub(super) fn shown(addr: IpAddr) -> String {
    if let IpAddr::V6(v6) = addr
        && let [0, 0, 0, 0, 0, 0, high, _] = v6.segments()
        && high != 0
    {
        let [.., a, b, c, d] = v6.octets();
        return format!("::{}", Ipv4Addr::new(a, b, c, d));
    }
    addr.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_one_form() {
        for (text, form, expected) in [
            ("192.0.2.7", Form::V4, Some("192.0.2.7")),
            ("1.2.3.999", Form::V4, Some("1.2.3.999")),
            ("2001:DB8:0:0::5", Form::V6, Some("2001:db8::5")),
            ("::ffff:192.0.2.7", Form::Any, Some("192.0.2.7")),
            ("[2001:db8::1]", Form::Any, Some("2001:db8::1")),
            ("192.0.2.7/24", Form::Any, Some("192.0.2.0/24")),
            ("192.0.2.7/255.255.255.0", Form::Any, Some("192.0.2.0/24")),
            ("192.0.2.7/255.0.255.0", Form::Any, None),
            ("192.0.2.7/many", Form::Any, None),
            ("192.0.2.7/24", Form::Raw, Some("192.0.2.7/24")),
            ("2001:db8::1:2", Form::Cidr(64), Some("2001:db8::/64")),
            ("::1.2.3.4", Form::V6, Some("::1.2.3.4")),
            ("session 7", Form::Any, Some("session 7")),
        ] {
            assert_eq!(normal(text, form).as_deref(), expected, "{text} {form:?}");
        }
    }
}
