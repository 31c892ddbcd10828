//! From httpd's pipe to the kernel's ipset, on the real parts: httpd, curl, logrotate, network namespaces, ipset.
//!
//! They need root, and say so: `tests/run` runs them with `--include-ignored` as root, and calls nothing a pass
//! without them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::let_underscore_must_use,
    clippy::print_stderr,
    reason = "a test that cannot go on should stop"
)]

#[path = "../support/mod.rs"]
mod support;

mod actions; // what else is done about a ban
mod bans; // who is banned, and what that does to him
mod control; // the control socket
mod fail2ban_client; // the real one, at our socket
mod feed; // several loggers and one watch that counts for all
mod import; // what a fail2ban-server remembers
mod jails; // jails together, over a restart, beside fail2ban, and broken ones
mod matrix; // each fault alone and with each other one
mod ordinary; // who is not
mod other_logs; // sshd's log and the journal
mod privileges; // what a process cannot do any more
mod reload; // the configuration read anew, under load
mod signals; // what does not end it, and what does
mod silences; // what would show in nothing but the absence of bans
mod storm; // restarts, rotations and kills, all at once
mod tee; // every byte of the log
mod threats; // what whoever may write a log can do to others
mod torn; // lines that a full pipe tears, and lines that clients forge
mod troubles; // what may be broken without httpd noticing
mod tutorial; // httpd's logs as administrators of fail2ban have them judged
