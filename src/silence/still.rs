//! Who is banned and still comes. Pure; asked at every hit while anybody is banned, so it costs a look at one place.

use crate::client::Client;
use crate::decide::BanFor;
use crate::hit::{Arrival, JailId};

/// Places. Each ban has one, and a later one takes it from an earlier: what does not hold one does not hold others, so it
/// is enough to see some.
const SEATS: usize = 256;
/// Lines that make a suspicion. One or two can be of a request that was under way when the ban came, and ended late.
const LINES: u32 = 3;
/// Between two suspicions about the same client, milliseconds.
const AGAIN_MS: u64 = 10_000;
/// Of httpd's lines: what was on its way at the time of the ban is here after so many milliseconds. httpd writes a line when the
/// request has ended, and a ban ends it.
pub const ON_ITS_WAY_MS: u64 = 2_000;
/// The same of lines in other logs: a syslog daemon gathers, a journal is written every few seconds, sshd speaks of a
/// connection that was cut.
pub const WRITTEN_LATE_MS: u64 = 10_000;

/// A banned client.
#[derive(Clone, Copy, Debug)]
struct Seat {
    who: Client,
    jail: JailId,
    since: u64,
    until: u64,
    lines: u32,
    quiet_until: u64,
}

/// Somebody is banned, and his lines still come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Whose ban does not hold.
    pub jail: JailId,
    /// Whom, as he was banned (IPv6: the jail's prefix).
    pub who: Client,
    /// How long he has been banned, milliseconds.
    pub banned_ms: u64,
}

/// Those who were banned last.
#[derive(Debug)]
pub struct Still {
    /// Made with the first ban.
    seats: Vec<Option<Seat>>,
    /// 32 bits of each one's client: of nearly everybody they say that he is not there, and they take a kibibyte of the
    /// nearest cache, the seats twenty.
    tags: Vec<u32>,
    grace_ms: u64,
}

impl Still {
    /// Nobody. `grace_ms`: [`ON_ITS_WAY_MS`] or [`WRITTEN_LATE_MS`].
    #[must_use]
    pub fn new(grace_ms: u64) -> Self {
        Self {
            seats: Vec::new(),
            tags: Vec::new(),
            grace_ms,
        }
    }

    /// `who` is banned from now on, or was found banned. One who is known to be is since then.
    pub fn banned(&mut self, jail: JailId, who: Client, now: Arrival, ban_for: BanFor) {
        if self.seats.is_empty() {
            self.seats = vec![None; SEATS];
            self.tags = vec![0; SEATS];
        }
        let until = match ban_for {
            BanFor::Timed(secs) => now.0.saturating_add(u64::from(secs.get()) * 1000),
            BanFor::Forever => u64::MAX,
        };
        let place = place(who);
        let (Some(seat), Some(tag)) = (self.seats.get_mut(place), self.tags.get_mut(place)) else {
            return;
        };
        *tag = who.strewn();
        match seat {
            Some(seat) if seat.who == who && now.0 < seat.until => {
                seat.until = seat.until.max(until);
            }
            _ => {
                *seat = Some(Seat {
                    who,
                    jail,
                    since: now.0,
                    until,
                    lines: 0,
                    quiet_until: 0,
                });
            }
        }
    }

    /// A line of `who` came. Some: too many did for somebody who is banned; told now and then only.
    #[inline]
    pub fn seen(&mut self, who: Client, now: Arrival) -> Option<Suspect> {
        if *self.tags.get(place(who))? != who.strewn() {
            return None;
        }
        self.seen_seated(who, now)
    }

    #[inline(never)]
    fn seen_seated(&mut self, who: Client, now: Arrival) -> Option<Suspect> {
        let grace = self.grace_ms;
        let seat = self.seats.get_mut(place(who))?.as_mut()?;
        if seat.who != who
            || now.0 >= seat.until
            || now.0 < seat.since.saturating_add(grace)
            || now.0 < seat.quiet_until
        {
            return None;
        }
        seat.lines += 1;
        if seat.lines < LINES {
            return None;
        }
        seat.lines = 0;
        seat.quiet_until = now.0.saturating_add(AGAIN_MS);
        Some(Suspect {
            jail: seat.jail,
            who,
            banned_ms: now.0 - seat.since,
        })
    }

    /// His ban was lifted.
    pub fn forget(&mut self, who: Client) {
        if let Some(seat) = self.seats.get_mut(place(who))
            && seat.is_some_and(|seat| seat.who == who)
        {
            *seat = None;
        }
    }
}

/// Where a client would be.
fn place(who: Client) -> usize {
    who.strewn() as usize % SEATS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Client {
        Client::new(text.parse().unwrap())
    }

    fn secs(secs: u64) -> BanFor {
        BanFor::timed(std::time::Duration::from_secs(secs)).unwrap()
    }

    #[test]
    fn lines_that_were_on_their_way_are_ordinary() {
        let mut still = Still::new(ON_ITS_WAY_MS);
        let who = client("192.0.2.7");
        assert_eq!(still.seen(who, Arrival(5)), None);
        still.banned(3, who, Arrival(1_000), secs(600));
        for n in 0..500 {
            assert_eq!(still.seen(who, Arrival(1_000 + n)), None);
        }
        // A download or two that ended late.
        assert_eq!(still.seen(who, Arrival(4_000)), None);
        assert_eq!(still.seen(who, Arrival(9_000)), None);
        let suspect = still.seen(who, Arrival(9_500)).unwrap();
        assert_eq!((suspect.jail, suspect.banned_ms), (3, 8_500));
        // Not again at once, nor does the next ban begin it anew.
        still.banned(3, who, Arrival(9_600), secs(600));
        for n in 0..9_000 {
            assert_eq!(still.seen(who, Arrival(9_600 + n)), None);
        }
        let again = (0..3).find_map(|n| still.seen(who, Arrival(20_000 + n)));
        assert!(again.is_some());
    }

    #[test]
    fn a_ban_that_has_ended_or_was_lifted_holds_nobody() {
        let mut still = Still::new(ON_ITS_WAY_MS);
        let who = client("2001:db8::");
        still.banned(0, who, Arrival(0), secs(5));
        assert!((5_000..5_100).all(|at| still.seen(who, Arrival(at)).is_none()));
        still.banned(0, who, Arrival(6_000), secs(600));
        still.forget(who);
        assert!((9_000..9_100).all(|at| still.seen(who, Arrival(at)).is_none()));
        still.banned(0, who, Arrival(10_000), secs(600));
        assert!(
            (13_000..13_100).all(|at| still.seen(client("2001:db8:1::"), Arrival(at)).is_none())
        );
    }
}
