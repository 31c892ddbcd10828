//! Who is told of bans: syslog and fail2ban's log, in fail2ban's words, and the state file that `status` reads.

use std::fmt;

use crate::control::events;
use crate::say::{Message, send};

pub mod logfile;
pub mod measure;
pub mod state;
pub mod syslog;
pub(crate) mod told; // all of them, of a decision

/// Tells syslog `NOTICE [apache-dos] Ban 192.0.2.7`. Never blocks, cannot fail; what cannot be delivered is counted.
pub fn ban(jail: &str, who: &dyn fmt::Display) {
    send(Message::Notice(format!("NOTICE [{jail}] Ban {who}")));
    logfile::ban(jail, who);
    events::ban(jail, who);
}

/// The same for the end of a ban.
pub fn unban(jail: &str, who: &dyn fmt::Display) {
    send(Message::Notice(format!("NOTICE [{jail}] Unban {who}")));
    logfile::unban(jail, who);
    events::unban(jail, who);
}

/// Somebody reached the limit of a jail that only observes.
pub fn observed(jail: &str, who: &dyn fmt::Display) {
    events::would_ban(jail, who);
    send(Message::Notice(format!(
        "NOTICE [{jail}] Would ban {who} (mode = \"observe\")"
    )));
}
