//! Who is never banned.

use std::fmt;

use ipnet::IpNet;

use crate::client::Client;

/// What a ban is about: one client (an IPv6 one stands for its prefix), or a network named by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// An address; an IPv6 one is already cut to the jail's prefix.
    Client(Client),
    /// `ban 192.0.2.0/24`.
    Net(IpNet),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => client.fmt(f),
            Self::Net(net) => net.fmt(f),
        }
    }
}

/// Somebody who may be banned. Only this room makes one, only `act` takes one: "we banned ourselves" does not compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bannable(Target);

impl Bannable {
    /// Whom.
    #[must_use]
    pub fn target(self) -> Target {
        self.0
    }

    /// `ban --force`: the administrator insists.
    #[must_use]
    pub fn forced(target: Target) -> Self {
        Self(target)
    }
}

/// stub
#[derive(Clone, Debug)]
pub struct Exempt;
/// stub
#[derive(Clone, Debug)]
pub struct Spared;
impl fmt::Display for Spared {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
impl Exempt {
    /// stub
    pub fn new(_c: &crate::config::Config) -> Self {
        Self
    }
    /// stub
    pub fn check(
        &self,
        who: Target,
        _jail: Option<crate::hit::JailId>,
    ) -> Result<Bannable, Spared> {
        Ok(Bannable(who))
    }
    /// stub
    pub fn refresh_in_background(&self) {}
}
