//! Hits and bans as they happen, for whoever listens. While nobody does, they cost a look at a number.

use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::Event;
use crate::date::now;

/// Events that wait for a listener: what ten thousand bans a second make in a second.
const WAITING: usize = 10_000;

static HOW_MANY: AtomicUsize = AtomicUsize::new(0);
static LISTENERS: Mutex<Vec<Listener>> = Mutex::new(Vec::new());

struct Listener {
    to: SyncSender<Event>,
    lost: u64,
}

/// From now on.
pub(super) fn subscribe() -> Receiver<Event> {
    let (to, from) = sync_channel(WAITING);
    let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
    listeners.push(Listener { to, lost: 0 });
    HOW_MANY.store(listeners.len(), Ordering::Relaxed);
    from
}

/// Does anybody listen? To be asked before an event is made.
#[inline]
pub(crate) fn wanted() -> bool {
    HOW_MANY.load(Ordering::Relaxed) > 0
}

/// Tells all who listen. Never waits: while another thread tells, this one's event is lost to all and counted.
fn tell(event: &Event) {
    let Ok(mut listeners) = LISTENERS.try_lock() else {
        MISSED.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let missed = u64::try_from(MISSED.swap(0, Ordering::Relaxed)).unwrap_or(0);
    listeners.retain_mut(|listener| {
        listener.lost += missed;
        if listener.lost > 0 {
            let lost = Event::Lost {
                events: listener.lost,
            };
            match listener.to.try_send(lost) {
                Ok(()) => listener.lost = 0,
                Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        match listener.to.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                listener.lost += 1;
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    });
    HOW_MANY.store(listeners.len(), Ordering::Relaxed);
}

static MISSED: AtomicUsize = AtomicUsize::new(0);

/// A line counted.
#[inline]
pub(crate) fn hit(jail: &str, who: &dyn Display) {
    happened(jail, who, |time, jail, ip| Event::Hit { time, jail, ip });
}

/// Somebody is banned.
pub(crate) fn ban(jail: &str, who: &dyn Display) {
    happened(jail, who, |time, jail, ip| Event::Ban { time, jail, ip });
}

/// A jail that observes would have banned.
pub(crate) fn would_ban(jail: &str, who: &dyn Display) {
    happened(jail, who, |time, jail, ip| Event::WouldBan {
        time,
        jail,
        ip,
    });
}

/// A ban is over.
pub(crate) fn unban(jail: &str, who: &dyn Display) {
    happened(jail, who, |time, jail, ip| Event::Unban { time, jail, ip });
}

/// Mostly nobody listens, and that is all there is to do.
#[inline]
fn happened(jail: &str, who: &dyn Display, event: fn(f64, String, String) -> Event) {
    if wanted() {
        tell(&event(now(), jail.to_owned(), who.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_listener_hears_how_much_it_missed_and_one_that_left_costs_nothing() {
        let from = subscribe();
        assert!(wanted());
        let count = u32::try_from(WAITING).unwrap() + 7;
        for n in 0..count {
            ban("events-test", &std::net::Ipv4Addr::from_bits(n));
        }
        let mine =
            |event: &Event| matches!(event, Event::Ban { jail, .. } if jail == "events-test");
        let first: Vec<Event> = from.try_iter().collect();
        assert!(first.iter().filter(|event| mine(event)).count() <= WAITING);
        ban("events-test", &"192.0.2.1");
        let then: Vec<Event> = from.try_iter().collect();
        assert!(
            matches!(then.first(), Some(Event::Lost { events }) if *events >= 7),
            "{then:?}"
        );
        assert!(mine(then.last().unwrap()));
        drop(from);
        ban("events-test", &"192.0.2.1");
    }
}
