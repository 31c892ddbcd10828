//! Who failed: the text of an address, network or name in its normal form, as fail2ban compares and bans it (rule 36).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How an address may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An IPv4 address and nothing else.
    V4,
    /// An IPv6 address and nothing else.
    V6,
    /// Either.
    Bare,
    /// Either, cut to so many bits.
    Cidr(u32),
    /// Either, perhaps in brackets, perhaps with `/24` or `/255.255.255.0` behind it.
    Any,
    /// Text, whatever it looks like.
    Raw,
}

/// The normal form of `text`; what is no address stays as it is. `None`: fail2ban stumbles over the prefix behind the
/// slash, or over a zero byte, and drops the line.
pub(super) fn normal(text: &str, form: Form) -> Option<String> {
    if form != Form::Raw && text.contains('\0') {
        return None;
    }
    let addr = match form {
        // An IPv4 address has one form only.
        Form::Raw | Form::V4 => return Some(text.to_owned()),
        Form::V6 => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        Form::Bare | Form::Cidr(_) => text.parse().ok(),
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
                        mask_bits(bits)?
                    } else {
                        int(bits)?
                    };
                    // Below zero they are marks of its own: no length, and one family or none.
                    let form = match bits {
                        0.. => Form::Cidr(u32::try_from(bits).unwrap_or(u32::MAX)),
                        -1 => Form::Bare,
                        -4 => Form::V4,
                        -12 => Form::V6,
                        _ => Form::Raw,
                    };
                    normal(addr, form)
                }
            };
        }
    };
    Some(match (addr, form) {
        (None, _) => text.to_owned(),
        (Some(addr), Form::Cidr(bits)) => cut(addr, bits),
        (Some(addr), _) => shown(addr.to_canonical()),
    })
}

/// The normal form of what an expression took for a host name and is an address after all. `looked_up`: names are, which
/// is how fail2ban reads an IPv6 address there.
pub(super) fn address(text: &str, looked_up: bool) -> Option<String> {
    let addr: IpAddr = text.parse().ok()?;
    (looked_up || addr.is_ipv4()).then(|| shown(addr.to_canonical()))
}

/// A number as Python's `int` reads it, in ASCII digits.
fn int(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut parts = digits.split('_');
    if !parts.all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let number = digits.replace('_', "").parse().unwrap_or(i64::MAX);
    Some(if text.starts_with('-') {
        -number
    } else {
        number
    })
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

/// `255.255.255.0` is 24, and what is no address is 0; `None`: a mask with a gap.
fn mask_bits(mask: &str) -> Option<i64> {
    let (ones, zeros, all) = match mask.parse() {
        Ok(IpAddr::V4(v4)) => (
            v4.to_bits().leading_ones(),
            v4.to_bits().trailing_zeros(),
            32,
        ),
        Ok(IpAddr::V6(v6)) => (
            v6.to_bits().leading_ones(),
            v6.to_bits().trailing_zeros(),
            128,
        ),
        Err(_) => return Some(0),
    };
    (ones + zeros >= all).then_some(i64::from(ones))
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
            ("192.0.2.7/1.2", Form::Any, Some("0.0.0.0")),
            ("24.12.31/10:00:00", Form::Any, Some("24.12.31")),
            ("192.0.2.7/+2_4", Form::Any, Some("192.0.2.0/24")),
            ("192.0.2.7/-1", Form::Any, Some("192.0.2.7")),
            ("2001:DB8::1/-1", Form::Any, Some("2001:db8::1")),
            ("2001:DB8::1/-4", Form::Any, Some("2001:DB8::1")),
            ("2001:DB8::1/-12", Form::Any, Some("2001:db8::1")),
            ("2001:db8::1/999999999999", Form::Any, Some("2001:db8::1")),
            ("192.0.2.7/24", Form::Raw, Some("192.0.2.7/24")),
            ("session\0", Form::Any, None),
            ("session\0", Form::Raw, Some("session\0")),
            ("2001:db8::1:2", Form::Cidr(64), Some("2001:db8::/64")),
            ("::1.2.3.4", Form::V6, Some("::1.2.3.4")),
            ("session 7", Form::Any, Some("session 7")),
        ] {
            assert_eq!(normal(text, form).as_deref(), expected, "{text} {form:?}");
        }
    }
}
