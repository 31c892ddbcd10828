//! Whom this process banned a moment ago. Lines that were on their way when a ban came, and those of a client who gets past
//! it, reach the limit again and again; to ask the kernel each time would cost two messages, and tell it nothing new.

use crate::client::Client;
use crate::hit::{Arrival, JailId};

/// A ban is taken to stand for so long after the kernel was told of it, milliseconds. Somebody else may lift it meanwhile: who is
/// freed and offends on is caught this much later. And a ban may end by as much before it would have been prolonged to.
const MOMENT_MS: u64 = 500;
/// Places, 160 KiB. A later ban takes one from an earlier, which costs two messages each time its client's lines reach the
/// limit again: of eight hundred attackers in half a second every third would be ordered twice with 256 places.
const SEATS: usize = 4096;

/// Those whom the kernel was told of last.
#[derive(Debug, Default)]
pub(super) struct Lately {
    /// Made with the first ban.
    seats: Vec<Option<(JailId, Client, Arrival)>>,
}

impl Lately {
    /// Whether the kernel was told of `who` a moment ago.
    pub(super) fn knows(&self, jail: JailId, who: Client, now: Arrival) -> bool {
        let seat = self.seats.get(place(jail, who)).copied().flatten();
        seat.is_some_and(|(of, known, at)| {
            of == jail && known == who && now.0.saturating_sub(at.0) < MOMENT_MS
        })
    }

    /// The kernel was told.
    pub(super) fn told(&mut self, jail: JailId, who: Client, now: Arrival) {
        if self.seats.is_empty() {
            self.seats = vec![None; SEATS];
        }
        if let Some(seat) = self.seats.get_mut(place(jail, who)) {
            *seat = Some((jail, who, now));
        }
    }

    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        self.seats.clear();
    }
}

/// Where he would be: a client may be banned by several jails at once.
fn place(jail: JailId, who: Client) -> usize {
    (who.strewn() as usize + usize::from(jail)) % SEATS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_is_known_for_a_moment_and_by_its_jail() {
        let (who, other) = (
            Client::new("192.0.2.7".parse().unwrap()),
            Client::new("192.0.2.8".parse().unwrap()),
        );
        let mut lately = Lately::default();
        assert!(!lately.knows(1, who, Arrival(1000)));
        lately.told(1, who, Arrival(1000));
        assert!(lately.knows(1, who, Arrival(1000)));
        assert!(lately.knows(1, who, Arrival(1499)));
        assert!(!lately.knows(1, who, Arrival(1500)));
        assert!(!lately.knows(2, who, Arrival(1000)));
        assert!(!lately.knows(1, other, Arrival(1000)));
        lately.forget();
        assert!(!lately.knows(1, who, Arrival(1000)));
    }
}
