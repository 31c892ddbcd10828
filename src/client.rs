//! Whom a line belongs to: an address, made canonical once, so that `::ffff:192.0.2.7` and `192.0.2.7` share a count.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::sys::bytes::{no_digits, which};

/// A canonical address: an IPv4-mapped IPv6 address is the IPv4 address, a zone (`%eth0`) is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client(IpAddr);

impl Hash for Client {
    /// One number. Derived, it would be three, and this is on the way of every line.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.0 {
            IpAddr::V4(v4) => state.write_u32(v4.to_bits()),
            IpAddr::V6(v6) => state.write_u128(v6.to_bits()),
        }
    }
}

impl Client {
    /// Makes `addr` canonical.
    #[must_use]
    pub fn new(addr: IpAddr) -> Self {
        Self(addr.to_canonical())
    }

    /// Reads an address as httpd writes it (`%a`, `%h` without name look-ups): dotted quad, or IPv6 with or without
    /// a zone. Anything else, a host name too, is `None`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if let Some(v4) = parse_v4(text) {
            return Some(Self(IpAddr::V4(v4)));
        }
        let text = std::str::from_utf8(text).ok()?;
        let (text, zone) = text.split_once('%').unwrap_or((text, "eth0"));
        if zone.is_empty()
            || !zone
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        {
            return None;
        }
        text.parse::<Ipv6Addr>()
            .ok()
            .map(|v6| Self::new(IpAddr::V6(v6)))
    }

    /// The address at the beginning of `text`, and its length. It ends where no byte of an address follows.
    #[inline(always)]
    pub(crate) fn read(text: &[u8]) -> Option<(Self, usize)> {
        // Most are one of these, and their end shows while they are read.
        if let Some((v4, end)) = text.first_chunk().and_then(v4_swiftly)
            && ends_at(text, end)
        {
            return Some((Self(IpAddr::V4(v4)), end));
        }
        Self::read_v6(text)
    }

    #[inline(never)]
    fn read_v6(text: &[u8]) -> Option<(Self, usize)> {
        if let Some((v6, end)) = v6_prefix(text)
            && ends_at(text, end)
        {
            return Some((Self::new(IpAddr::V6(v6)), end));
        }
        Self::read_any(text)
    }

    /// All that is left: at the end of a text, with a zone, with a dotted end.
    fn read_any(text: &[u8]) -> Option<(Self, usize)> {
        let end = text
            .iter()
            .position(|b| !is_address_byte(*b))
            .unwrap_or(text.len());
        Self::parse(text.get(..end)?).map(|client| (client, end))
    }

    /// The address.
    #[must_use]
    pub fn addr(self) -> IpAddr {
        self.0
    }

    /// The one that is counted and banned for this client: an IPv4 address itself, an IPv6 address cut to its first
    /// `ipv6_prefix` bits (0 to 128), since a household or a rented server has a whole /64.
    #[must_use]
    pub fn counted(self, ipv6_prefix: u8) -> Self {
        match self.0 {
            IpAddr::V4(_) => self,
            IpAddr::V6(v6) => {
                let host_bits = 128u32.saturating_sub(u32::from(ipv6_prefix));
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                Self(IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask)))
            }
        }
    }
}

impl Client {
    /// 32 bits that differ for neighbours, too: for small tables that may forget, see Knuth's multiplicative hashing.
    #[inline]
    pub(crate) fn strewn(self) -> usize {
        let bits = match self.0 {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => {
                let [high, low] = [v6.to_bits() >> 64, v6.to_bits()];
                #[allow(clippy::cast_possible_truncation, reason = "half of it is meant")]
                let halves = [high as u64, low as u64];
                let [high, low] = halves;
                high ^ low.rotate_left(32)
            }
        };
        let strewn = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        usize::try_from(strewn).unwrap_or(0)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A byte that an address, its zone, or a host name may hold.
pub(crate) fn is_address_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b':' | b'%' | b'_' | b'-')
}

/// Does an address that was read up to `end` end there?
#[inline]
fn ends_at(text: &[u8], end: usize) -> bool {
    match text.get(end) {
        None | Some(b' ') => true,
        Some(other) => !is_address_byte(*other),
    }
}

/// Strict dotted quad, as inet_ntop writes it, and nothing else.
fn parse_v4(text: &[u8]) -> Option<Ipv4Addr> {
    v4_prefix(text)
        .filter(|(_, end)| *end == text.len())
        .map(|(v4, _)| v4)
}

/// [`v4_prefix`] where sixteen bytes are at hand: no branch depends on how many digits a number has, which nobody can
/// foretell. `None`: it is none, or too near to the end.
#[inline(always)]
fn v4_swiftly(text: &[u8; 16]) -> Option<(Ipv4Addr, usize)> {
    let stops = no_digits(text);
    let mut padded = [0u8; 20];
    padded.last_chunk_mut::<16>()?.copy_from_slice(text);
    let after = |stops: u32| stops & stops.wrapping_sub(1);
    let (second, third) = (after(stops), after(after(stops)));
    let last = after(third);
    // Three dots, and a fourth end.
    if last == 0 || (stops ^ last) & !which(text, [b'.']) != 0 {
        return None;
    }
    let (a, good_a) = octet(&padded, 0, stops)?;
    let (b, good_b) = octet(&padded, stops.trailing_zeros() + 1, second)?;
    let (c, good_c) = octet(&padded, second.trailing_zeros() + 1, third)?;
    let (d, good_d) = octet(&padded, third.trailing_zeros() + 1, last)?;
    let bits = a << 24 | b << 16 | c << 8 | d;
    let end = last.trailing_zeros() as usize;
    (good_a & good_b & good_c & good_d).then(|| (Ipv4Addr::from_bits(bits), end))
}

/// The number from `start` to the first of `stops` (there is one, among the lowest 16 bits), of which only digits are
/// known, and whether it is one of 0 to 255 without leading zeros. Four bytes of zeros stand before the text.
#[inline(always)]
fn octet(padded: &[u8; 20], start: u32, stops: u32) -> Option<(u32, bool)> {
    let stop = stops.trailing_zeros() & 15;
    let digits = stop.wrapping_sub(start);
    // The digits as bytes of a number, the last one lowest: numbers of as many digits are in the same order.
    let four = padded.get(stop as usize..stop as usize + 4)?;
    let bytes = u32::from_be_bytes(*four.first_chunk()?) & 0x0f0f_0f0f;
    let bytes = bytes & !u32::MAX.wrapping_shl(digits.wrapping_mul(8));
    const LEAST: [u32; 4] = [u32::MAX, 0, 0x0000_0100, 0x0001_0000];
    let least = LEAST.get(digits as usize);
    let good = least.is_some_and(|least| bytes >= *least) && bytes <= 0x0002_0505;
    let value = (bytes & 15) + (bytes >> 8 & 15) * 10 + (bytes >> 16 & 3) * 100;
    Some((value & 255, good))
}

/// Eight groups of hexadecimal digits at the beginning of `text`, or fewer and `::`, and how long they are.
#[inline]
fn v6_prefix(text: &[u8]) -> Option<(Ipv6Addr, usize)> {
    let (mut bits, mut groups, mut gap) = (0u128, 0, None);
    let mut at = 0;
    if text.starts_with(b"::") {
        (gap, at) = (Some(0), 2);
    }
    loop {
        let mut group = 0u32;
        let start = at;
        while let Some(digit) = text.get(at).and_then(|byte| hex(*byte)) {
            group = group << 4 | digit;
            at += 1;
            if at - start > 4 {
                return None;
            }
        }
        if at == start {
            // Only behind the gap nothing need follow.
            if gap != Some(groups) {
                return None;
            }
            break;
        }
        (bits, groups) = (bits << 16 | u128::from(group), groups + 1);
        match text.get(at..) {
            Some([b':', b':', ..]) if gap.is_none() => (gap, at) = (Some(groups), at + 2),
            Some([b':', ..]) if groups < 8 => at += 1,
            _ => break,
        }
    }
    let bits = match gap {
        None if groups == 8 => bits,
        Some(before) if groups < 8 => {
            let behind = 16 * (groups - before);
            let low = bits & !u128::MAX.checked_shl(behind).unwrap_or(0);
            (bits ^ low).checked_shl(16 * (8 - groups)).unwrap_or(0) | low
        }
        _ => return None,
    };
    Some((Ipv6Addr::from_bits(bits), at))
}

/// What a hexadecimal digit stands for.
#[inline]
fn hex(byte: u8) -> Option<u32> {
    /// 16: it is none.
    #[allow(clippy::indexing_slicing, reason = "a constant can call no `get`")]
    static DIGITS: [u8; 256] = {
        let mut digits = [16; 256];
        let mut n = 0u8;
        while n < 16 {
            let (small, large) = (
                b"0123456789abcdef"[n as usize],
                b"0123456789ABCDEF"[n as usize],
            );
            digits[small as usize] = n;
            digits[large as usize] = n;
            n += 1;
        }
        digits
    };
    let digit = DIGITS.get(usize::from(byte)).copied().unwrap_or(16);
    (digit < 16).then_some(u32::from(digit))
}

/// Four numbers of 0 to 255 without leading zeros at the beginning of `text`, and how long they are.
fn v4_prefix(text: &[u8]) -> Option<(Ipv4Addr, usize)> {
    let mut bits = 0u32;
    let mut at = 0;
    for place in 0..4 {
        if place > 0 {
            if text.get(at) != Some(&b'.') {
                return None;
            }
            at += 1;
        }
        let digit = |at: usize| {
            text.get(at)
                .map(|b| u32::from(b.wrapping_sub(b'0')))
                .filter(|d| *d < 10)
        };
        let mut octet = digit(at)?;
        at += 1;
        if octet > 0 {
            for _ in 0..2 {
                let Some(next) = digit(at) else { break };
                octet = octet * 10 + next;
                at += 1;
            }
        }
        if octet > 255 {
            return None;
        }
        bits = bits << 8 | octet;
    }
    Some((Ipv4Addr::from_bits(bits), at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Option<String> {
        Client::parse(text.as_bytes()).map(|c| c.to_string())
    }

    #[test]
    fn mapped_v4_is_the_same_client() {
        assert_eq!(
            Client::parse(b"::ffff:192.0.2.7"),
            Client::parse(b"192.0.2.7")
        );
    }

    #[test]
    fn only_what_httpd_writes_is_an_address() {
        for good in [
            "0.0.0.0",
            "192.0.2.7",
            "255.255.255.255",
            "::1",
            "2001:db8::5",
        ] {
            assert_eq!(client(good).as_deref(), Some(good));
        }
        assert_eq!(client("fe80::1%eth0").as_deref(), Some("fe80::1"));
        for bad in [
            "",
            "1",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "1.2.3.256",
            "1.2.3.4 ",
            "1..3.4",
            ".1.2.3.4",
            "1.2.3.",
            "localhost",
            "[::1]",
            "::1%",
            "::1%a b",
            "1.2.3.4%eth0",
            "2001:db8::g",
        ] {
            assert_eq!(client(bad), None, "{bad:?}");
        }
    }

    proptest::proptest! {
        /// Against the standard library, with whatever follows.
        #[test]
        fn an_address_is_read_as_it_is_everywhere(
            text in "[0-9]{1,3}(\\.[0-9]{1,3}){3}|([0-9a-fA-F]{0,4}:){1,8}[0-9a-f]{0,5}|[0-9.:a-g]{0,20}|::(ffff:)?[0-9.]{7,9}",
            behind in "[ \\]\"]?.{0,20}",
        ) {
            let line = format!("{text}{behind}");
            let end = line.bytes().position(|b| !is_address_byte(b)).unwrap_or(line.len());
            let expected = line[..end].parse::<IpAddr>().ok().map(Client::new);
            // With a zone, which the standard library does not read.
            proptest::prop_assume!(!line[..end].contains('%'));
            proptest::prop_assert_eq!(
                Client::read(line.as_bytes()),
                expected.map(|client| (client, end))
            );
        }
    }

    #[test]
    fn ipv6_is_counted_by_prefix_and_ipv4_by_itself() {
        let cut = |text: &str, prefix| {
            Client::parse(text.as_bytes()).map(|c| c.counted(prefix).to_string())
        };
        assert_eq!(
            cut("2001:db8:1:2:3:4:5:6", 64).as_deref(),
            Some("2001:db8:1:2::")
        );
        assert_eq!(cut("2001:db8:1:2:3:4:5:6", 0).as_deref(), Some("::"));
        assert_eq!(
            cut("2001:db8:1:2:3:4:5:6", 128).as_deref(),
            Some("2001:db8:1:2:3:4:5:6")
        );
        assert_eq!(cut("192.0.2.7", 64).as_deref(), Some("192.0.2.7"));
    }
}
