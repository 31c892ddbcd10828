//! What is measured of a process as a whole, for `metrics`: how long a ban takes, what waits where, what netlink refused.
//!
//! Of each there is one in a process, as there is one voice; so that no room has to be handed what it only adds to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Upper ends of the buckets, microseconds: four to a factor of ten where the promise lies (one millisecond), and up to
/// where a ban is useless. One more bucket has the rest.
pub const BOUNDS_US: [u64; 14] = [
    50, 100, 200, 400, 700, 1_000, 2_000, 4_000, 7_000, 10_000, 50_000, 100_000, 1_000_000,
    10_000_000,
];

/// From a line to the kernel.
static LATENCY: [AtomicU64; BOUNDS_US.len() + 1] =
    [const { AtomicU64::new(0) }; BOUNDS_US.len() + 1];
static LATENCY_SUM_US: AtomicU64 = AtomicU64::new(0);
static NETLINK_ERRORS: AtomicU64 = AtomicU64::new(0);

/// A queue whose length is told.
#[derive(Debug)]
pub struct Queue(AtomicU64);

/// Chunks of httpd's lines that wait for jails with expressions.
pub static FEED: Queue = Queue(AtomicU64::new(0));
/// Events that wait for the keeper of the rules.
pub static KEEPER: Queue = Queue(AtomicU64::new(0));
/// Messages that wait for stderr, syslog and the state file.
pub static MESSAGES: Queue = Queue(AtomicU64::new(0));

impl Queue {
    /// One went in.
    pub fn put(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One came out.
    pub fn took(&self) {
        // Never below nothing: an end may have been lost with a thread.
        let less = |n: u64| n.checked_sub(1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .ok();
    }

    /// How many are in it.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Is nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A ban stands in the kernel; the line that led to it was here at `arrived`.
pub fn banned(arrived: Instant) {
    took(arrived.elapsed());
}

fn took(time: Duration) {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let bucket = BOUNDS_US.iter().position(|bound| us <= *bound);
    if let Some(bucket) = LATENCY.get(bucket.unwrap_or(BOUNDS_US.len())) {
        bucket.fetch_add(1, Ordering::Relaxed);
    }
    LATENCY_SUM_US.fetch_add(us, Ordering::Relaxed);
}

/// Netlink failed, or refused what it should have done.
pub fn netlink_failed() {
    NETLINK_ERRORS.fetch_add(1, Ordering::Relaxed);
}

/// What was measured, for the state file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// Bans by how long they took from the arrival of the line to the kernel's answer: at most [`BOUNDS_US`] each, the last
    /// longer.
    pub latency: Vec<u64>,
    /// All of these times together, microseconds.
    pub latency_sum_us: u64,
    /// See [`FEED`].
    pub feed_waiting: u64,
    /// See [`KEEPER`].
    pub keeper_waiting: u64,
    /// See [`MESSAGES`].
    pub messages_waiting: u64,
    /// Times that netlink failed, or refused what it should have done.
    pub netlink_errors: u64,
}

impl Measured {
    /// As it is now.
    #[must_use]
    pub fn now() -> Self {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Self {
            latency: LATENCY.iter().map(load).collect(),
            latency_sum_us: load(&LATENCY_SUM_US),
            feed_waiting: FEED.len(),
            keeper_waiting: KEEPER.len(),
            messages_waiting: MESSAGES.len(),
            netlink_errors: load(&NETLINK_ERRORS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_bucket_whose_end_it_does_not_pass() {
        for us in [50, 51, 20_000_000] {
            took(Duration::from_micros(us));
        }
        let now = Measured::now();
        assert!(now.latency[0] >= 1 && now.latency[1] >= 1 && now.latency[14] >= 1);
        assert!(now.latency_sum_us >= 20_000_101);
        assert!(BOUNDS_US.is_sorted());
    }

    #[test]
    fn a_queue_is_never_shorter_than_nothing() {
        let queue = Queue(AtomicU64::new(0));
        queue.put();
        queue.took();
        queue.took();
        assert!(queue.is_empty());
        queue.put();
        assert_eq!(queue.len(), 1);
    }
}
