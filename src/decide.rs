//! Is that a ban, and for how long. Pure.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::{Jail, Mode};

/// How long a ban lasts. The kernel reads a timeout of 0 as "for ever", so 0 cannot be written here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanFor {
    /// Whole seconds, at least one.
    Timed(NonZeroU32),
    /// Until somebody takes it away (`bantime = -1`).
    Forever,
}

impl BanFor {
    /// A ban of `d`, rounded up to a whole second; `None` for nothing at all, or for more than `u32` seconds (136 years).
    #[must_use]
    pub fn timed(d: Duration) -> Option<Self> {
        let secs = d.as_secs().checked_add(u64::from(d.subsec_nanos() > 0))?;
        NonZeroU32::new(u32::try_from(secs).ok()?).map(Self::Timed)
    }

    /// The same of seconds as logged times have them, but 136 years stand for anything longer: fail2ban knows no longest
    /// ban, and one that was doubled often enough gets there.
    #[must_use]
    pub fn of_secs(secs: f64) -> Option<Self> {
        let most = f64::from(u32::MAX);
        Self::timed(Duration::try_from_secs_f64(secs.clamp(0.0, most)).ok()?)
    }
}

impl fmt::Display for BanFor {
    /// `600s`, or `ever`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timed(secs) => write!(f, "{secs}s"),
            Self::Forever => f.write_str("ever"),
        }
    }
}

/// What a count means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Not yet.
    Pass,
    /// Ban.
    Ban(BanFor),
    /// It would be a ban, but the jail only observes.
    Observe,
}

/// `count` hits within findtime, this one among them.
pub fn decide(jail: &Jail, count: u32) -> Verdict {
    match jail.mode {
        _ if count < jail.maxretry => Verdict::Pass,
        Mode::Ban => Verdict::Ban(jail.bantime),
        Mode::Observe => Verdict::Observe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_of_a_log_are_a_ban_of_at_least_one_and_at_most_136_years() {
        let secs = |secs| match BanFor::of_secs(secs) {
            Some(BanFor::Timed(secs)) => Some(secs.get()),
            Some(BanFor::Forever) => Some(0),
            None => None,
        };
        assert_eq!(secs(0.25), Some(1));
        assert_eq!(secs(600.0), Some(600));
        assert_eq!(secs(1e12), Some(u32::MAX));
        assert_eq!(secs(f64::INFINITY), Some(u32::MAX));
        for none in [0.0, -5.0, f64::NEG_INFINITY, f64::NAN] {
            assert_eq!(secs(none), None, "{none}");
        }
    }
}
