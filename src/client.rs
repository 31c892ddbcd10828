//! Whom a line belongs to: an address, made canonical once, so that `::ffff:192.0.2.7` and `192.0.2.7` share a count.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::sys::bytes::{no_digits, which};

/// A canonical address: an IPv4-mapped IPv6 address is the IPv4 address, a zone (`%eth0`) is gone.
///
/// Kept as the 128 bits of the (mapped) IPv6 address, as they can be compared, hashed and cut without asking which of the
/// two it is: on a server that has visitors of both kinds no processor foretells the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Client {
    high: u64,
    low: u64,
}

/// What stands before the 32 bits of an IPv4 address in `low`.
const MAPPED: u64 = 0xffff;

impl Hash for Client {
    /// One number. Derived, it would be two, and this is on the way of every line.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.bits());
    }
}

impl Ord for Client {
    /// As addresses are: IPv4 first.
    fn cmp(&self, other: &Self) -> Ordering {
        (!self.is_v4(), self.bits()).cmp(&(!other.is_v4(), other.bits()))
    }
}

impl PartialOrd for Client {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The bits of an IPv6 address that are counted and banned; see [`Client::counted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    high: u64,
    low: u64,
}

impl Prefix {
    /// The first `bits`, 0 to 128.
    #[must_use]
    pub fn new(bits: u8) -> Self {
        let others = 128u32.saturating_sub(u32::from(bits));
        let [high, low] = halves(u128::MAX.checked_shl(others).unwrap_or(0));
        Self { high, low }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "each half is meant")]
fn halves(bits: u128) -> [u64; 2] {
    [(bits >> 64) as u64, bits as u64]
}

impl Client {
    /// Makes `addr` canonical.
    #[must_use]
    pub fn new(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(v4) => Self::v4(v4),
            IpAddr::V6(v6) => Self::v6(v6),
        }
    }

    #[inline]
    fn v4(addr: Ipv4Addr) -> Self {
        Self {
            high: 0,
            low: MAPPED << 32 | u64::from(addr.to_bits()),
        }
    }

    #[inline]
    fn v6(addr: Ipv6Addr) -> Self {
        let [high, low] = halves(addr.to_bits());
        Self { high, low }
    }

    #[inline]
    fn is_v4(self) -> bool {
        self.high == 0 && self.low >> 32 == MAPPED
    }

    #[inline]
    fn bits(self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }

    /// Reads an address as httpd writes it (`%a`, `%h` without name look-ups): dotted quad, or IPv6 with or without
    /// a zone. Anything else, a host name too, is `None`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if let Some(v4) = parse_v4(text) {
            return Some(Self::v4(v4));
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
        text.parse::<Ipv6Addr>().ok().map(Self::v6)
    }

    /// The address at the beginning of `text`, and its length. It ends where no byte of an address follows.
    #[inline(always)]
    pub(crate) fn read(text: &[u8]) -> Option<(Self, usize)> {
        // Most are one of these, and their end shows while they are read.
        if let Some((v4, end)) = text.first_chunk().and_then(v4_swiftly)
            && ends_at(text, end)
        {
            return Some((Self::v4(v4), end));
        }
        Self::read_v6(text)
    }

    #[inline(never)]
    fn read_v6(text: &[u8]) -> Option<(Self, usize)> {
        if let Some((v6, end)) = v6_prefix(text)
            && ends_at(text, end)
        {
            return Some((Self::v6(v6), end));
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
        IpAddr::V6(Ipv6Addr::from_bits(self.bits())).to_canonical()
    }

    /// The one that is counted and banned for this client: an IPv4 address itself, an IPv6 address cut to its first
    /// `ipv6_prefix` bits (0 to 128), since a household or a rented server has a whole /64.
    #[must_use]
    pub fn counted(self, ipv6_prefix: u8) -> Self {
        self.counted_by(Prefix::new(ipv6_prefix))
    }

    /// [`counted`](Self::counted), where that is asked for every line.
    #[inline]
    #[must_use]
    pub fn counted_by(self, ipv6_prefix: Prefix) -> Self {
        let all = if self.is_v4() { u64::MAX } else { 0 };
        Self {
            high: self.high & (ipv6_prefix.high | all),
            low: self.low & (ipv6_prefix.low | all),
        }
    }

    /// 32 bits that differ for neighbours, too: for small tables that may forget, see Knuth's multiplicative hashing.
    #[inline]
    pub(crate) fn strewn(self) -> u32 {
        let bits = self.high ^ self.low.rotate_left(32);
        let strewn = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        u32::try_from(strewn).unwrap_or(0)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.addr()).finish()
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr().fmt(f)
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
    fn clients_are_in_the_order_of_addresses() {
        let texts = ["::", "192.0.2.7", "::1", "2001:db8::", "9.0.0.0", "0.0.0.0"];
        let mut clients = texts.map(|text| Client::parse(text.as_bytes()).unwrap());
        let mut addrs = clients.map(Client::addr);
        clients.sort();
        addrs.sort();
        assert_eq!(clients.map(Client::addr), addrs);
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
        assert_eq!(cut("192.0.2.7", 0).as_deref(), Some("192.0.2.7"));
    }
}
