//! Who was there, and of what kind.
//!
//! No field of a log says "attacker". These rules do, the first that fits (each errs to the side of the honest, so that
//! a number which bans none of them can be believed):
//!
//! 1. *attackers*: reached the limit of a jail that has `exploit` in its name, or came into its count at all and had not
//!    one page answered (2xx, 3xx) to which a Referer led;
//! 2. *search engines*: most of the first eight User-Agents name a robot. Agents can be forged, and whoever does so is
//!    taken for one here;
//! 3. *attackers*: at least [`TRIES`] requests, of which nine in ten were answered 4xx or 5xx. Left out, as honest
//!    programs make them: 401 without a user name (how every session begins) and 408;
//! 4. *authenticated*: a user name with 2xx or 3xx;
//! 5. *attackers*: far out. In some jail's count at least ten times what 99 of a hundred of those who are left come to
//!    (at least [`FAR_OUT`], and only where at least [`ENOUGH`] of them came into that count), and not like a person;
//! 6. *ordinary*: all others.
//!
//! *Like a person*: authenticated, or at least [`PAGES`] answers (2xx, 3xx) to requests with a Referer over at least a
//! minute, and less than a quarter of all requests failed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use aho_corasick::AhoCorasick;
use serde::Serialize;

use crate::cli::Failure;
use crate::client::Client;
use crate::config::Jail;
use crate::parse::Access;

/// Clients that are kept, at about 300 bytes each with their windows: 90 MB. Lines of later ones are counted as such.
pub(super) const CLIENTS: usize = 300_000;
/// Fewer requests than this say nothing by having failed.
const TRIES: u32 = 5;
/// A count below this is never far out.
const FAR_OUT: u32 = 20;
/// Of fewer clients nobody can say what is usual.
const ENOUGH: usize = 100;
/// As many pages, pictures and so on belong to a long session.
const PAGES: u32 = 10;
/// How long it is at least, seconds.
const SESSION_SECS: u32 = 60;
/// So many agents of a client are looked at.
const AGENTS: u8 = 8;

/// What robots that say so have in their agents, in any case.
const ROBOTS: &[&str] = &[
    "bot/",
    "bot;",
    "bot)",
    "bot-",
    "_bot",
    "bot.htm",
    "crawler",
    "spider",
    "slurp",
    "googlebot",
    "googleother",
    "google-inspectiontool",
    "mediapartners-google",
    "bingpreview",
    "msnbot",
    "yandex",
    "applebot",
    "qwant",
    "sogou",
    "coccoc",
    "yeti/",
    "archive.org",
];

/// What a client is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ordinary,
    SearchEngine,
    Authenticated,
    Attacker,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [
        Self::Ordinary,
        Self::SearchEngine,
        Self::Authenticated,
        Self::Attacker,
    ];

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary",
            Self::SearchEngine => "search engines",
            Self::Authenticated => "authenticated",
            Self::Attacker => "attackers",
        }
    }
}

/// One of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ByKind<T> {
    pub(super) ordinary: T,
    pub(super) search_engines: T,
    pub(super) authenticated: T,
    pub(super) attackers: T,
}

impl<T> ByKind<T> {
    pub(super) fn of(&self, kind: Kind) -> &T {
        match kind {
            Kind::Ordinary => &self.ordinary,
            Kind::SearchEngine => &self.search_engines,
            Kind::Authenticated => &self.authenticated,
            Kind::Attacker => &self.attackers,
        }
    }

    pub(super) fn of_mut(&mut self, kind: Kind) -> &mut T {
        match kind {
            Kind::Ordinary => &mut self.ordinary,
            Kind::SearchEngine => &mut self.search_engines,
            Kind::Authenticated => &mut self.authenticated,
            Kind::Attacker => &mut self.attackers,
        }
    }
}

/// What is remembered of a client.
#[derive(Debug)]
struct Profile {
    client: Client,
    /// Requests that say something by their status, and of these the failed ones.
    told: u32,
    failed: u32,
    /// Answered 2xx or 3xx: with a user name, with a Referer.
    named: u32,
    linked: u32,
    agents: u8,
    robots: u8,
    /// Seconds on the log's clock.
    first: u32,
    last: u32,
}

impl Profile {
    fn is_robot(&self) -> bool {
        self.robots > self.agents / 2
    }

    fn only_fails(&self) -> bool {
        self.told >= TRIES && u64::from(self.failed) * 10 >= u64::from(self.told) * 9
    }

    fn is_like_a_person(&self) -> bool {
        let is_long = self.linked >= PAGES && self.last.saturating_sub(self.first) >= SESSION_SECS;
        self.named > 0 || (is_long && self.failed < self.told.div_ceil(4))
    }
}

/// What is known of a client in the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) client: Client,
    pub(super) kind: Kind,
    pub(super) is_like_a_person: bool,
}

/// All clients, and the highest count of each in each jail. IPv6 clients are cut to the shortest prefix of all jails.
#[derive(Debug)]
pub(super) struct Clients {
    robots: AhoCorasick,
    numbers: HashMap<Client, u32>,
    profiles: Vec<Profile>,
    /// By jail, then by client; those that are not there are 0.
    peaks: Vec<Vec<u32>>,
    ipv6_prefix: u8,
    most: usize,
    /// Lines of clients for whom there was no room.
    pub(super) left_out: u64,
}

impl Clients {
    /// # Errors
    /// None that could come: the names of robots are constants.
    pub(super) fn new(jails: &[Jail], most: usize) -> Result<Self, Failure> {
        let robots = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(ROBOTS)
            .map_err(|error| Failure::Usage(format!("names of robots: {error}")))?;
        Ok(Self {
            robots,
            numbers: HashMap::new(),
            profiles: Vec::new(),
            peaks: vec![Vec::new(); jails.len()],
            ipv6_prefix: jails
                .iter()
                .map(|jail| jail.ipv6_prefix)
                .min()
                .unwrap_or(64),
            most,
            left_out: 0,
        })
    }

    pub(super) fn many(&self) -> usize {
        self.profiles.len()
    }

    /// A line of `client` at `second`. His number; `None`: there is no room for him.
    pub(super) fn line(&mut self, client: Client, access: &Access<'_>, second: u32) -> Option<u32> {
        let client = client.counted(self.ipv6_prefix);
        let room = self.profiles.len() < self.most;
        let number = match self.numbers.entry(client) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) if room => {
                let number = u32::try_from(self.profiles.len()).ok()?;
                self.profiles.push(Profile {
                    client,
                    told: 0,
                    failed: 0,
                    named: 0,
                    linked: 0,
                    agents: 0,
                    robots: 0,
                    first: second,
                    last: second,
                });
                *place.insert(number)
            }
            Entry::Vacant(_) => {
                self.left_out += 1;
                return None;
            }
        };
        let profile = self.profiles.get_mut(number as usize)?;
        let is_given = |text: &[u8]| !text.is_empty() && text != b"-";
        let has_name = is_given(access.user);
        profile.last = second;
        if profile.agents < AGENTS && is_given(access.agent) {
            profile.agents += 1;
            profile.robots += u8::from(self.robots.is_match(access.agent));
        }
        match access.status {
            200..=399 => {
                profile.told = profile.told.saturating_add(1);
                profile.named = profile.named.saturating_add(u32::from(has_name));
                let is_linked = u32::from(is_given(access.referer));
                profile.linked = profile.linked.saturating_add(is_linked);
            }
            401 if !has_name => {}
            408 => {}
            400..=599 => {
                profile.told = profile.told.saturating_add(1);
                profile.failed = profile.failed.saturating_add(1);
            }
            _ => {}
        }
        Some(number)
    }

    /// `jail` counts so many of client `number`.
    pub(super) fn count(&mut self, number: u32, jail: u16, count: u32) {
        let Some(peaks) = self.peaks.get_mut(usize::from(jail)) else {
            return;
        };
        let at = number as usize;
        if at >= peaks.len() {
            peaks.resize(at + 1, 0);
        }
        if let Some(peak) = peaks.get_mut(at) {
            *peak = count.max(*peak);
        }
    }

    /// The highest count of client `number` in `jail`.
    pub(super) fn peak(&self, number: usize, jail: usize) -> u32 {
        let peaks = self.peaks.get(jail);
        peaks
            .and_then(|peaks| peaks.get(number))
            .copied()
            .unwrap_or(0)
    }

    /// Judges all, in the order of their numbers.
    pub(super) fn known(&self, jails: &[Jail]) -> Vec<Known> {
        let exploits: Vec<(usize, u32)> = jails
            .iter()
            .enumerate()
            .filter(|(_, jail)| jail.name.contains("exploit"))
            .map(|(at, jail)| (at, jail.maxretry))
            .collect();
        let kind = |(number, profile): (usize, &Profile)| {
            let exploits = exploits.iter().any(|&(jail, maxretry)| {
                let peak = self.peak(number, jail);
                peak >= maxretry || (peak > 0 && profile.linked == 0)
            });
            if exploits {
                Kind::Attacker
            } else if profile.is_robot() {
                Kind::SearchEngine
            } else if profile.only_fails() {
                Kind::Attacker
            } else if profile.named > 0 {
                Kind::Authenticated
            } else {
                Kind::Ordinary
            }
        };
        let mut known: Vec<Known> = self
            .profiles
            .iter()
            .enumerate()
            .map(|(number, profile)| Known {
                client: profile.client,
                kind: kind((number, profile)),
                is_like_a_person: profile.is_like_a_person(),
            })
            .collect();
        for jail in 0..jails.len() {
            let Some(far) = self.far_out(jail, &known) else {
                continue;
            };
            for (number, known) in known.iter_mut().enumerate() {
                let is_far = self.peak(number, jail) >= far && !known.is_like_a_person;
                if known.kind == Kind::Ordinary && is_far {
                    known.kind = Kind::Attacker;
                }
            }
        }
        known
    }

    /// From which count on a client is far out; `None`: too few came into it.
    fn far_out(&self, jail: usize, known: &[Known]) -> Option<u32> {
        let mut peaks: Vec<u32> = known
            .iter()
            .enumerate()
            .filter(|(_, known)| known.kind != Kind::Attacker)
            .map(|(number, _)| self.peak(number, jail))
            .filter(|peak| *peak > 0)
            .collect();
        peaks.sort_unstable();
        if peaks.len() < ENOUGH {
            return None;
        }
        Some(FAR_OUT.max(percentile(&peaks, 990).saturating_mul(10)))
    }
}

/// What `thousandths` of a sorted list are not above (nearest rank); 0 of nothing.
pub(super) fn percentile(sorted: &[u32], thousandths: usize) -> u32 {
    let rank = (sorted.len() * thousandths).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const BROWSER: &[u8] =
        b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

    fn access(status: u16) -> Access<'static> {
        Access {
            status,
            agent: BROWSER,
            referer: b"-",
            user: b"-",
            ..Access::default()
        }
    }

    /// Lines of one client, one a second, as what he is known then.
    fn known(lines: &[Access<'_>]) -> Known {
        let jails = Config::default().jails;
        let mut clients = Clients::new(&jails, 10).unwrap();
        let client = Client::parse(b"192.0.2.7").unwrap();
        for (second, line) in (0..).zip(lines) {
            assert_eq!(clients.line(client, line, 10 * second), Some(0));
        }
        clients.known(&jails)[0]
    }

    #[test]
    fn a_user_name_that_was_let_in_is_an_authenticated_person() {
        let named = Access {
            user: b"eve",
            ..access(200)
        };
        let known = known(&[access(401), named]);
        assert_eq!(
            (known.kind, known.is_like_a_person),
            (Kind::Authenticated, true)
        );
    }

    #[test]
    fn a_refused_name_is_no_person_and_five_are_an_attacker() {
        let refused = Access {
            user: b"eve",
            ..access(401)
        };
        assert_eq!(known(&[refused; 4]).kind, Kind::Ordinary);
        let known = known(&[refused; 5]);
        assert_eq!(
            (known.kind, known.is_like_a_person),
            (Kind::Attacker, false)
        );
    }

    #[test]
    fn empty_401s_and_408s_say_nothing() {
        assert_eq!(known(&[access(401); 50]).kind, Kind::Ordinary);
        assert_eq!(known(&[access(408); 50]).kind, Kind::Ordinary);
        assert_eq!(known(&[access(404); 50]).kind, Kind::Attacker);
    }

    #[test]
    fn a_search_engine_after_a_move_is_no_attacker() {
        let agent = b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
        let line = Access {
            agent,
            ..access(404)
        };
        assert_eq!(known(&[line; 50]).kind, Kind::SearchEngine);
    }

    #[test]
    fn a_long_session_with_referers_looks_like_a_person() {
        let page = Access {
            referer: b"https://www.example.org/",
            ..access(200)
        };
        assert!(known(&[page; 12]).is_like_a_person);
        assert!(!known(&[page; 5]).is_like_a_person);
        assert!(!known(&[access(200); 12]).is_like_a_person);
    }

    #[test]
    fn beyond_the_bound_nobody_is_added_and_the_others_stay() {
        let jails = Config::default().jails;
        let mut clients = Clients::new(&jails, 2).unwrap();
        for last in 0..5 {
            let client = Client::new(std::net::Ipv4Addr::new(192, 0, 2, last).into());
            clients.line(client, &access(200), 0);
        }
        assert_eq!((clients.many(), clients.left_out), (2, 3));
    }

    #[test]
    fn far_out_is_who_makes_ten_times_what_is_usual_and_is_no_person() {
        let jails = Config::default().jails;
        let mut clients = Clients::new(&jails, 1000).unwrap();
        for n in 0..200u32 {
            let client = Client::new(std::net::Ipv4Addr::from_bits(n).into());
            clients.line(client, &access(200), 0);
            clients.count(n, 0, if n == 7 { 60 } else { 6 });
        }
        assert!(clients.known(&jails).iter().enumerate().all(|(n, known)| {
            known.kind
                == if n == 7 {
                    Kind::Attacker
                } else {
                    Kind::Ordinary
                }
        }));
    }

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let all: Vec<u32> = (1..=1000).collect();
        assert_eq!(percentile(&all, 500), 500);
        assert_eq!(percentile(&all, 999), 999);
        assert_eq!(percentile(&[3], 500), 3);
        assert_eq!(percentile(&[], 500), 0);
    }
}
