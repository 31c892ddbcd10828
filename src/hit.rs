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
    /// How many hits this one counts for, at least 1.
    pub weight: u32,
    /// Of a jail with `distinct`: the keyed hash of the value; equal values count once within findtime.
    pub distinct: Option<u64>,
}

/// Whose hits those of one line are, and what is told of the line if one of them is the one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party<'l> {
    /// Not yet cut to a jail's IPv6 prefix.
    pub client: Client,
    /// How many of a batch, at least 1.
    pub hits: usize,
    /// Who is at the other end of the connection, if that is another.
    pub proxy: Option<Client>,
    /// What the client wrote: the request, or httpd's message about it. Unescaped.
    pub evidence: &'l [u8],
    /// Of the answer; 0: unknown.
    pub status: u16,
}

/// Hits on their way to the count, in the order of their lines.
#[derive(Debug, Default)]
pub struct Batch<'l> {
    /// Of all lines.
    pub hits: Vec<Hit>,
    /// One for each line: the first `hits` are the first one's, and so on.
    pub parties: Vec<Party<'l>>,
}

impl Batch<'_> {
    /// Nothing is left of it but its room.
    pub fn clear(&mut self) {
        self.hits.clear();
        self.parties.clear();
    }
}
