//! The words on the socket. Each frame is its length (four bytes, without themselves), its kind (one byte) and what the
//! kind says; numbers are little-endian.
//!
//! | kind | from | what it says |
//! |---|---|---|
//! | 1 hello | `run` | `f2b-pipe feed`, version (u16), process (u32), how many jails (u16), each: observes (u8), length (u8), name |
//! | 2 welcome | `watch` | version (u16) |
//! | 3 hits | `run` | number (u64), arrival in microseconds of CLOCK_MONOTONIC (u64), how many parties (u16), each: see below |
//! | 4 counted | `watch` | number (u64): all frames up to this one are counted, decided and banned |
//!
//! A party: flags (u8: 1 the client has IPv6, 2 there is a proxy, 4 the proxy has IPv6), client (4 or 16 bytes), proxy,
//! status (u16), length of the evidence (u8), evidence, how many hits (u16), each: jail (u16, as in the hello), weight
//! (u32), whether there is a distinct value (u8), and it (u64).
//!
//! Whoever reads takes nothing on trust: lengths are bounded before anything is kept, and what does not fit is an error,
//! after which the connection ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::client::Client;
use crate::hit::{Batch, Hit, Party};

/// Of the protocol. Who speaks another one is not talked to: each side does its work alone then.
pub const VERSION: u16 = 1;
const MAGIC: &[u8] = b"f2b-pipe feed";
/// Longest frame, its length not counted: 300 lines with evidence, or a hello with 250 jails of the longest names.
pub const FRAME_MAX: usize = 64 * 1024;
/// A frame that is longer than this is closed; what a line adds to one fits behind it.
const FULL: usize = 32 * 1024;
/// Hits of one party in one frame; a line that fits more jails is several parties.
const HITS_MAX: usize = 1024;
/// Bytes of the client's text that go along; a ban's reason shows a hundred of them.
const EVIDENCE_MAX: usize = 100;
/// Jails of one `run`.
pub const JAILS_MAX: usize = 4096;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const HITS: u8 = 3;
const COUNTED: u8 = 4;

const V6: u8 = 1;
const PROXY: u8 = 2;
const PROXY_V6: u8 = 4;

/// A jail as a `run` knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// As in its configuration.
    pub name: String,
    /// Its hits must ban nobody: the format lacks what its exceptions look at.
    pub observes: bool,
}

/// What a frame says.
#[derive(Debug)]
pub enum Said<'b> {
    /// Who feeds.
    Hello {
        /// Process id.
        pid: u32,
        /// The jails that hits name by their place here.
        jails: Vec<Named>,
    },
    /// Go on.
    Welcome,
    /// Hits of lines that arrived together.
    Hits {
        /// Counts up.
        number: u64,
        /// When they arrived, microseconds of CLOCK_MONOTONIC.
        at_us: u64,
        /// They.
        batch: Batch<'b>,
    },
    /// All up to this number are counted.
    Counted(u64),
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// It is of another version of the protocol.
    Version(u16),
    /// It is none.
    Malformed,
}

/// A frame that is being written: hits of one moment.
#[derive(Debug, Default)]
pub struct Hits {
    bytes: Vec<u8>,
    parties: u16,
    at_us: u64,
}

impl Hits {
    /// Begins frame `number`.
    #[must_use]
    pub fn new(number: u64, at_us: u64) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&[0, 0, 0, 0, HITS]);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&at_us.to_le_bytes());
        bytes.extend_from_slice(&[0, 0]);
        Self {
            bytes,
            parties: 0,
            at_us,
        }
    }

    /// When its lines arrived.
    #[must_use]
    pub fn at_us(&self) -> u64 {
        self.at_us
    }

    /// Is it time for another one?
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FULL || self.parties == u16::MAX
    }

    /// Adds hits of a line, at most [`HITS_MAX`] of them.
    fn put(&mut self, party: &Party<'_>, hits: &[Hit]) {
        let bytes = &mut self.bytes;
        let mut flags = match party.client.addr() {
            IpAddr::V4(_) => 0,
            IpAddr::V6(_) => V6,
        };
        if let Some(proxy) = party.proxy {
            flags |= PROXY;
            if proxy.addr().is_ipv6() {
                flags |= PROXY_V6;
            }
        }
        bytes.push(flags);
        put_client(bytes, party.client);
        if let Some(proxy) = party.proxy {
            put_client(bytes, proxy);
        }
        bytes.extend_from_slice(&party.status.to_le_bytes());
        let evidence = party.evidence.get(..EVIDENCE_MAX).unwrap_or(party.evidence);
        bytes.push(u8::try_from(evidence.len()).unwrap_or(0));
        bytes.extend_from_slice(evidence);
        let many = u16::try_from(hits.len()).unwrap_or(0);
        bytes.extend_from_slice(&many.to_le_bytes());
        for hit in hits {
            bytes.extend_from_slice(&hit.jail.to_le_bytes());
            bytes.extend_from_slice(&hit.weight.to_le_bytes());
            bytes.push(u8::from(hit.distinct.is_some()));
            if let Some(distinct) = hit.distinct {
                bytes.extend_from_slice(&distinct.to_le_bytes());
            }
        }
        self.parties += 1;
    }

    /// The whole frame.
    #[must_use]
    pub fn done(mut self) -> Vec<u8> {
        if let Some(place) = self.bytes.get_mut(21..23) {
            place.copy_from_slice(&self.parties.to_le_bytes());
        }
        finished(self.bytes)
    }
}

/// Writes `batch` into frames: the last one of `open`, and, as each is full, new ones by `next`.
pub fn put(batch: &Batch<'_>, open: &mut Vec<Hits>, mut next: impl FnMut() -> Hits) {
    let mut left = batch.hits.as_slice();
    for party in &batch.parties {
        let Some((hits, after)) = left.split_at_checked(party.hits) else {
            break;
        };
        left = after;
        for some in hits.chunks(HITS_MAX) {
            if open.last().is_none_or(Hits::is_full) {
                open.push(next());
            }
            if let Some(frame) = open.last_mut() {
                frame.put(party, some);
            }
        }
    }
}

/// The first words of a `run`. Jails beyond [`JAILS_MAX`], or beyond what fits a frame, are left out: hits for them are
/// of an unknown jail.
#[must_use]
pub fn hello(pid: u32, jails: &[Named]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, HELLO];
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&pid.to_le_bytes());
    let many_at = bytes.len();
    bytes.extend_from_slice(&[0, 0]);
    let mut many = 0u16;
    for jail in jails.iter().take(JAILS_MAX) {
        // Names of jails are shorter (config); one that is not would be cut, and unknown.
        let name = jail.name.as_bytes();
        let name = name.get(..255).unwrap_or(name);
        if bytes.len() + name.len() > FRAME_MAX {
            break;
        }
        bytes.push(u8::from(jail.observes));
        bytes.push(u8::try_from(name.len()).unwrap_or(0));
        bytes.extend_from_slice(name);
        many += 1;
    }
    if let Some(place) = bytes.get_mut(many_at..many_at + 2) {
        place.copy_from_slice(&many.to_le_bytes());
    }
    finished(bytes)
}

/// The answer to a hello.
#[must_use]
pub fn welcome() -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, WELCOME];
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    finished(bytes)
}

/// All frames up to `number` are counted.
#[must_use]
pub fn counted(number: u64) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, COUNTED];
    bytes.extend_from_slice(&number.to_le_bytes());
    finished(bytes)
}

/// Writes the length in front.
fn finished(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(bytes.len().saturating_sub(4)).unwrap_or(0);
    if let Some(place) = bytes.get_mut(..4) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    bytes
}

fn put_client(bytes: &mut Vec<u8>, client: Client) {
    match client.addr() {
        IpAddr::V4(v4) => bytes.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes.extend_from_slice(&v6.octets()),
    }
}

/// The first frame in `bytes`, and what is behind it; `None`: it is not all there yet.
///
/// # Errors
/// It would be longer than [`FRAME_MAX`], or is none.
pub fn read(bytes: &[u8]) -> Result<Option<(Said<'_>, &[u8])>, Odd> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > FRAME_MAX || length == 0 {
        return Err(Odd::Malformed);
    }
    let Some((frame, after)) = rest.split_at_checked(length) else {
        return Ok(None);
    };
    let mut words = Words(frame);
    let said = said(&mut words)?;
    if !words.0.is_empty() {
        return Err(Odd::Malformed);
    }
    Ok(Some((said, after)))
}

fn said<'b>(words: &mut Words<'b>) -> Result<Said<'b>, Odd> {
    Ok(match words.u8()? {
        HELLO => {
            if words.take(MAGIC.len())? != MAGIC {
                return Err(Odd::Malformed);
            }
            words.version()?;
            let pid = words.u32()?;
            let many = usize::from(words.u16()?);
            if many > JAILS_MAX {
                return Err(Odd::Malformed);
            }
            let mut jails = Vec::new();
            for _ in 0..many {
                let observes = words.flag()?;
                let length = usize::from(words.u8()?);
                let name = std::str::from_utf8(words.take(length)?);
                jails.push(Named {
                    name: name.map_err(|_| Odd::Malformed)?.to_owned(),
                    observes,
                });
            }
            Said::Hello { pid, jails }
        }
        WELCOME => {
            words.version()?;
            Said::Welcome
        }
        HITS => {
            let (number, at_us) = (words.u64()?, words.u64()?);
            let mut batch = Batch::default();
            for _ in 0..words.u16()? {
                let party = words.party(&mut batch.hits)?;
                batch.parties.push(party);
            }
            Said::Hits {
                number,
                at_us,
                batch,
            }
        }
        COUNTED => Said::Counted(words.u64()?),
        _ => return Err(Odd::Malformed),
    })
}

/// What is left of a frame.
struct Words<'b>(&'b [u8]);

impl<'b> Words<'b> {
    fn take(&mut self, length: usize) -> Result<&'b [u8], Odd> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Odd::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Odd> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Odd::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Odd> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, Odd> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Odd> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Odd> {
        self.array().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Result<bool, Odd> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Odd::Malformed),
        }
    }

    fn version(&mut self) -> Result<(), Odd> {
        match self.u16()? {
            VERSION => Ok(()),
            other => Err(Odd::Version(other)),
        }
    }

    fn client(&mut self, v6: bool) -> Result<Client, Odd> {
        Ok(Client::new(match v6 {
            false => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            true => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
        }))
    }

    fn party(&mut self, into: &mut Vec<Hit>) -> Result<Party<'b>, Odd> {
        let flags = self.u8()?;
        if flags & !(V6 | PROXY | PROXY_V6) != 0 {
            return Err(Odd::Malformed);
        }
        let client = self.client(flags & V6 != 0)?;
        let proxy = match flags & PROXY {
            0 => None,
            _ => Some(self.client(flags & PROXY_V6 != 0)?),
        };
        let status = self.u16()?;
        let length = usize::from(self.u8()?);
        let evidence = self.take(length)?;
        let hits = usize::from(self.u16()?);
        if hits > HITS_MAX {
            return Err(Odd::Malformed);
        }
        for _ in 0..hits {
            into.push(Hit {
                jail: self.u16()?,
                weight: self.u32()?.max(1),
                distinct: match self.flag()? {
                    false => None,
                    true => Some(self.u64()?),
                },
            });
        }
        Ok(Party {
            client,
            hits,
            proxy,
            evidence,
            status,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(text: &str) -> Client {
        Client::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_was_said_is_heard_and_half_of_it_is_waited_for() {
        let jails = vec![
            Named {
                name: "apache-dos".into(),
                observes: false,
            },
            Named {
                name: "mine".into(),
                observes: true,
            },
        ];
        let mut bytes = hello(7, &jails);
        bytes.extend(welcome());
        bytes.extend(counted(5));
        for end in 0..bytes.len() {
            let mut rest = &bytes[..end];
            while let Some((_, after)) = read(rest).unwrap() {
                rest = after;
            }
        }
        let (said, rest) = read(&bytes).unwrap().unwrap();
        assert!(matches!(said, Said::Hello { pid: 7, jails: heard } if heard == jails));
        let (said, rest) = read(rest).unwrap().unwrap();
        assert!(matches!(said, Said::Welcome));
        let (said, rest) = read(rest).unwrap().unwrap();
        assert!(matches!(said, Said::Counted(5)));
        assert!(rest.is_empty());
    }

    #[test]
    fn another_version_is_named_and_nonsense_is_none() {
        let mut other = welcome();
        other[5] = 9;
        assert_eq!(read(&other).unwrap_err(), Odd::Version(9));
        for bad in [
            &[0, 0, 0, 0][..],
            &[255, 255, 255, 255],
            &[1, 0, 0, 0, 77],
            &[1, 0, 0, 0, HELLO],
            &[3, 0, 0, 0, WELCOME, 1, 0][..6],
        ] {
            let heard = read(bad);
            assert!(heard.is_err() || heard.unwrap().is_none(), "{bad:?}");
        }
        let mut longer = welcome();
        longer[0] += 1;
        longer.push(0);
        assert_eq!(read(&longer).unwrap_err(), Odd::Malformed);
    }

    #[test]
    fn a_long_hello_is_cut_to_a_frame() {
        let jail = Named {
            name: "x".repeat(200),
            observes: false,
        };
        let bytes = hello(1, &vec![jail; 1000]);
        assert!(bytes.len() <= FRAME_MAX + 4 + 255);
        let (said, _) = read(&bytes).unwrap().unwrap();
        assert!(matches!(said, Said::Hello { jails, .. } if jails.len() > 300));
    }

    fn hit() -> impl Strategy<Value = Hit> {
        (any::<u16>(), 1u32.., any::<Option<u64>>()).prop_map(|(jail, weight, distinct)| Hit {
            jail,
            weight,
            distinct,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn hits_arrive_in_their_order_in_frames_that_are_bounded(
            lines in prop::collection::vec(
                (any::<bool>(), any::<bool>(), any::<u16>(), prop::collection::vec(any::<u8>(), 0..300), prop::collection::vec(hit(), 1..1100)),
                0..5,
            )
        ) {
            let mut batch = Batch::default();
            for (v6, proxy, status, evidence, hits) in &lines {
                batch.hits.extend(hits);
                batch.parties.push(Party {
                    client: client(if *v6 { "2001:db8::7" } else { "192.0.2.7" }),
                    hits: hits.len(),
                    proxy: proxy.then(|| client(if *v6 { "198.51.100.1" } else { "2001:db8::8" })),
                    evidence,
                    status: *status,
                });
            }
            let mut open = Vec::new();
            let mut number = 0;
            put(&batch, &mut open, || {
                number += 1;
                Hits::new(number, 99)
            });
            let mut heard = Vec::new();
            for (n, frame) in (1..).zip(open) {
                let bytes = frame.done();
                prop_assert!(bytes.len() <= FRAME_MAX);
                let (said, rest) = read(&bytes).unwrap().unwrap();
                prop_assert!(rest.is_empty());
                let Said::Hits { number, at_us: 99, batch } = said else { panic!("no hits") };
                prop_assert_eq!(number, n);
                let mut hits = batch.hits.iter();
                for party in &batch.parties {
                    for hit in hits.by_ref().take(party.hits) {
                        heard.push((party.client, party.proxy, party.status, party.evidence.to_vec(), *hit));
                    }
                }
            }
            let mut hits = batch.hits.iter();
            let said: Vec<_> = batch
                .parties
                .iter()
                .flat_map(|party| hits.by_ref().take(party.hits).map(|hit| {
                    let evidence = party.evidence[..party.evidence.len().min(EVIDENCE_MAX)].to_vec();
                    (party.client, party.proxy, party.status, evidence, *hit)
                }).collect::<Vec<_>>())
                .collect();
            prop_assert_eq!(heard, said);
        }

        #[test]
        fn whatever_comes_is_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut framed = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
            framed.extend(&bytes);
            read(&framed).ok();
            read(&bytes).ok();
        }
    }
}
