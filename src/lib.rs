//! f2b-pipe: httpd's piped access log, from a line to a ban.
//!
//! The rooms stand in the order in which a line walks through them:
//!
//! ```text
//! source ─> tee ─> frame ─> parse ─> filter ─> Hit ─> exempt ─> count ─> decide ─> act ─> notify
//! stdin     the    bytes    Line to  fields           never-    per      pure      ipset   syslog,
//!           log    to lines fields   to rules         ban list  client                     error log
//! ```
//!
//! Lines of other logs have rooms of their own up to the ban, on a thread of their own, and share those behind it:
//!
//! ```text
//! source ─────────> failregex (date, pattern) ─> exempt ─> bans ─> act ─> ledger, notify
//! tail, journal,    lines to failures                      count,  ipset,
//! httpd's pipe                                             length  commands
//! ```
//!
//! `Hit` is the narrow waist: before it all is about text that strangers wrote ([`sift`]), after it all is about clients
//! ([`judge`]).
//! `replay` and `explain` walk the same rooms with another source, another clock and `act::dry`.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::cast_possible_truncation,
        clippy::let_underscore_must_use,
        reason = "a test that cannot go on should stop"
    )
)]

pub mod run; // the loop: what happens to a line, and in which order
pub mod watch; // the same for other logs

pub mod privilege; // what a process gives up once it runs

pub mod filter; // fields to hits
pub mod frame; // bytes to lines
pub mod parse; // lines to fields
pub mod source; // where bytes come from: httpd's pipe, log files, the journal
pub mod tee; // the same bytes on to the access log

// The same for lines of any log, as fail2ban's filters read them.
pub mod date; // the date in a line, and what is left when it is cut out
pub mod failregex; // lines to failures
pub mod pattern; // Python's regular expressions, with fail2ban's tags

pub mod sift; // from a line to hits: parse and filter, joined

pub mod client; // whom a hit belongs to
pub mod hit; // the waist
pub mod key; // whom a failure belongs to, which may be more than an address

pub mod feed; // hits on their way to another process, which judges them
pub mod judge; // from hits to a decision: the rooms below, joined

pub mod act; // the kernel's sets, the chain, open connections
pub mod bans; // the same two by logged times, and when a ban ends: fail2ban's jails
pub mod count; // how often, within findtime
pub mod decide; // is that a ban, and for how long
pub mod exempt; // who is never banned

pub mod ledger; // what is remembered over a restart
pub mod notify; // who is told of bans: syslog, the status file
pub mod say; // all output to people
pub mod silence; // what is wrong and would show in nothing but silence

pub mod changes; // what is changed while it runs
pub mod control; // who asks and changes while it runs

pub mod cli; // the commands
pub mod config; // f2b-pipe.toml to Config
pub mod fail2ban; // the host's /etc/fail2ban to jails
pub mod httpd; // what httpd's own configuration says about logs
pub mod sys; // the few system calls that need `unsafe`
