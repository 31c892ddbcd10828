//! How often, within findtime, by the times that a log tells: an exact sliding window, as [`super::Counter`], for lines
//! that may come out of order.

/// The failures of one key that are within findtime of the clock, at most as many as can matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// In the order of time.
    times: Vec<f64>,
}

impl Window {
    /// Counts a failure at `at` (seconds since the epoch, not in the future) `weight` times; one exactly findtime before
    /// `now` still counts. At most `enough`, the latest, are kept.
    pub fn add(&mut self, at: f64, now: f64, findtime: f64, weight: u32, enough: u32) {
        let oldest = now - findtime;
        let old = self.times.partition_point(|time| *time < oldest);
        self.times.drain(..old);
        if at >= oldest {
            let place = self.times.partition_point(|time| *time <= at);
            let copies = usize::try_from(weight.min(enough)).unwrap_or(usize::MAX);
            self.times
                .splice(place..place, std::iter::repeat_n(at, copies));
        }
        let enough = usize::try_from(enough).unwrap_or(usize::MAX);
        let surplus = self.times.len().saturating_sub(enough);
        self.times.drain(..surplus);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.times.len()).unwrap_or(u32::MAX)
    }

    /// The latest.
    #[must_use]
    pub fn last(&self) -> Option<f64> {
        self.times.last().copied()
    }

    /// Whether nothing is left of it at `now`.
    #[must_use]
    pub fn is_over(&self, now: f64, findtime: f64) -> bool {
        self.last().is_none_or(|last| last < now - findtime)
    }

    /// What it takes beside itself, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.times.capacity() * size_of::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_failure_exactly_findtime_old_still_counts() {
        let mut window = Window::default();
        let mut at = |t| {
            window.add(t, t, 10.0, 1, 9);
            window.count()
        };
        assert_eq!([at(0.0), at(10.0), at(10.5), at(21.0)], [1, 2, 2, 1]);
    }

    proptest! {
        /// Against the simplest thing that can be right.
        #[test]
        fn the_window_is_exact_in_any_order(
            failures in prop::collection::vec((0u32..40, 0u32..150, 1u32..4), 1..200),
            enough in 1u32..12,
        ) {
            let mut window = Window::default();
            let mut all: Vec<f64> = Vec::new();
            let mut now = 1000.0;
            for (pause, late, weight) in failures {
                now += f64::from(pause);
                let at = now - f64::from(late);
                window.add(at, now, 100.0, weight, enough);
                all.extend(std::iter::repeat_n(at, weight as usize));
                let within: Vec<f64> = all.iter().copied().filter(|at| *at >= now - 100.0).collect();
                prop_assert_eq!(window.count(), (within.len() as u32).min(enough));
                prop_assert_eq!(window.last(), within.iter().copied().reduce(f64::max));
            }
        }
    }
}
