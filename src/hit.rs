//! The narrow waist: before a `Hit` all is about text, after it all is about clients.

use crate::client::Client;

/// Index of a jail in `Config::jails`.
pub type JailId = u16;

/// When a line arrived: milliseconds on a clock that never goes back. Never comparable with a logged time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival(pub u64);

/// A line that a jail's rule fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Whose rule.
    pub jail: JailId,
    /// Whose line, not yet cut to the jail's IPv6 prefix.
    pub client: Client,
    /// How many hits this one counts for, at least 1.
    pub weight: u32,
    /// Of a jail with `distinct`: the keyed hash of the value; equal values count once within findtime.
    pub distinct: Option<u64>,
}
