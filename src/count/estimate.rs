//! How often, within findtime, as fail2ban estimates it: one number for a key, scaled down by the rate once its failures
//! span more than findtime. Old failures fade; a sliding window drops them.
//!
//! With maxretry 5 and findtime 600 somebody who fails every 171 seconds is banned, every 172 seconds never; a window bans
//! up to 150. Times are seconds since the epoch, and the arithmetic is done in fail2ban's order on the same doubles, since
//! the rounding decides.

/// The counter of one key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    count: u32,
    /// When counting began; never more than findtime before `last` once scaled.
    first: f64,
    /// The latest failure.
    last: f64,
}

impl Estimate {
    /// The first failure, at `at`, counting `weight` times.
    #[must_use]
    pub fn new(at: f64, weight: u32) -> Self {
        Self {
            count: weight,
            first: at,
            last: at,
        }
    }

    /// Another failure. One that is not later than the last known only adds to the count.
    pub fn add(&mut self, at: f64, findtime: f64, weight: u32) {
        if at > self.last {
            if self.first < at - findtime {
                self.count = whole(f64::from(self.count) / (at - self.first) * findtime);
                self.first = at - findtime;
            }
            self.last = at;
        }
        self.count = self.count.saturating_add(weight);
    }

    /// The estimate.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The latest failure.
    #[must_use]
    pub fn last(&self) -> f64 {
        self.last
    }

    /// Whether nothing is left of it at `now`: a failure exactly findtime ago is too old.
    #[must_use]
    pub fn is_over(&self, now: f64, findtime: f64) -> bool {
        self.last <= now - findtime
    }
}

/// Half to even, as Python rounds.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it was rounded; beyond u32 `as` stops at the bound, and not a number is 0"
)]
fn whole(x: f64) -> u32 {
    x.round_ties_even() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(times: &[f64]) -> Vec<u32> {
        let mut estimate = Estimate::new(times[0], 1);
        let mut counts = vec![estimate.count()];
        for at in &times[1..] {
            estimate.add(*at, 600.0, 1);
            counts.push(estimate.count());
        }
        counts
    }

    #[test]
    fn old_failures_are_scaled_down_by_the_rate() {
        assert_eq!(counts(&[0.0, 100.0, 200.0, 700.0]), [1, 2, 3, 4]);
        assert_eq!(counts(&[0.0, 300.0, 601.0]), [1, 2, 3]);
        assert_eq!(
            counts(&[0.0, 300.0, 600.0, 900.0, 1200.0, 1500.0]),
            [1, 2, 3, 3, 3, 3]
        );
        assert_eq!(counts(&[0.0, 599.0, 1198.0, 1797.0]), [1, 2, 2, 2]);
        assert_eq!(counts(&[0.0, 1.0, 2.0, 3.0, 2000.0]), [1, 2, 3, 4, 2]);
        assert_eq!(
            counts(&[0.0, 0.0, 0.0, 0.0, 1000.0, 1100.0, 1200.0]),
            [1, 2, 3, 4, 3, 4, 4]
        );
    }

    #[test]
    fn who_fails_every_171_seconds_reaches_five_and_every_172_never() {
        let most = |pause: f64| {
            let times: Vec<f64> = (0..200).map(|n| f64::from(n) * pause).collect();
            counts(&times).into_iter().max()
        };
        assert_eq!(most(171.0), Some(5));
        assert_eq!(most(172.0), Some(4));
    }

    #[test]
    fn a_failure_out_of_order_counts_and_moves_nothing() {
        let mut estimate = Estimate::new(100.0, 1);
        estimate.add(50.0, 600.0, 1);
        assert_eq!((estimate.count(), estimate.last()), (2, 100.0));
    }

    #[test]
    fn a_counter_is_over_exactly_findtime_after_its_last_failure() {
        let estimate = Estimate::new(100.0, 1);
        assert!(!estimate.is_over(699.9, 600.0));
        assert!(estimate.is_over(700.0, 600.0));
    }
}
