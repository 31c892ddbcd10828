//! The one process that keeps its rights: it runs iptables, journalctl, the commands of actions and `ignorecommand`, and opens a
//! log that root may not write by itself. It is forked before any thread, and only where one of these is needed.
//!
//! ```text
//! run, watch ── Request: which of our own things, for whom ──> helper ── exec ──> iptables, journalctl, sh -c action
//!            <── Answer, open files (SCM_RIGHTS) ─────────────
//! ```
//!
//! What is executed stands in the configuration, which the helper reads by itself: it is asked for the chains of sets by
//! name, for an event of a jail and a [`Ticket`], for entries of the journal by `FIELD=value`. Nothing that comes from the process
//! that judges strangers' text is a program, an argument of its own or a part of a command's text.
//!
//! It ends with its parent, and holds nothing of it open: not httpd's pipe, not the log. When it ends by itself, that is told;
//! bans go on through netlink, and what it did for us waits for the next start.

use std::path::Path;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::act;
use crate::act::command::Ticket;
use crate::config::{Backend, Firewall, LineSource};
use crate::source::journal;

mod hand; // the side of run and watch
mod room; // its own
mod wire; // messages and open files between the two

pub use hand::{Actions, Hand, Ignore, Life};

use super::{Setting, bans};

/// What it can be asked for.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// [`crate::act::chain`]: the chain is to be looked at, put in place, or taken away where it does not belong.
    Chain(Chain),
    /// journalctl is to follow the journal; its ends of pipes come back.
    Journal(journal::Wanted),
    /// The log of `--tee` is to be opened, and comes back.
    Tee,
    /// `ignorecommand` of this jail.
    Ignore { jail: String, ticket: Ticket },
    /// An event for the actions of this jail. Not answered.
    Event { jail: String, event: Event },
    /// All actions are to come to their end within so many milliseconds; how many did not comes back.
    Finish { millis: u64 },
    /// The configuration is to be read anew.
    Reload,
}

/// Of iptables.
#[derive(Debug, Serialize, Deserialize)]
struct Chain {
    what: ChainWork,
    /// ip6tables.
    v6: bool,
    /// Names of the sets that are there.
    sets: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum ChainWork {
    /// Is that of this place (INPUT: `reject`) as it should be?
    Look { reject: bool },
    /// Put it there.
    Place { reject: bool },
    /// Take away those in places that no plan is for.
    RemoveOthers,
}

/// What actions are told of.
#[derive(Debug, Serialize, Deserialize)]
enum Event {
    Start,
    Ban(Ticket),
    Prolong(Ticket),
    Unban(Ticket),
    Stop(Vec<Ticket>),
    Reload(Vec<Ticket>),
}

/// What it tells by itself.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    /// What is wrong with actions, for `status`.
    troubles: Vec<String>,
}

static HAND: OnceLock<Hand> = OnceLock::new();

/// The helper of this process, if it has one.
#[must_use]
pub fn helper() -> Option<&'static Hand> {
    HAND.get()
}

/// What needs it, in words; nothing: there is none.
fn needed(setting: &Setting<'_>) -> Vec<&'static str> {
    let steps = &setting.config.privileges;
    if !(steps.capabilities || steps.landlock || steps.seccomp || steps.no_new_privs) {
        return Vec::new();
    }
    let mut needed = Vec::new();
    if by_iptables(&setting.config.firewall) {
        needed.push("iptables");
    }
    let raws = || {
        let jails = setting.config.jails.iter();
        jails.filter_map(|jail| jail.raw.as_deref())
    };
    if raws().any(|raw| raw.backend == LineSource::Journal && !raw.counts_bans) {
        needed.push("journalctl");
    }
    if bans(setting.config) && raws().any(|raw| raw.run().next().is_some()) {
        needed.push("actions");
    }
    if raws().any(|raw| raw.ignorecommand.is_some()) {
        needed.push("ignorecommand");
    }
    if setting.tee.is_some_and(|tee| !roots_own(tee)) {
        needed.push("a log that is not root's");
    }
    needed
}

/// Are rules iptables'? Where a host has nothing yet that could hold a ban, that may come to be.
fn by_iptables(firewall: &Firewall) -> bool {
    match firewall.backend {
        Backend::Ipset => true,
        Backend::Nftables | Backend::DryRun => false,
        Backend::Auto => {
            act::firewall::open(firewall).map_or(true, |found| found.name() == "ipset")
        }
    }
}

/// What the configuration needs one for that this process has not.
pub(super) fn missing(setting: &Setting<'_>) -> Option<String> {
    let needed = needed(setting);
    (!needed.is_empty() && helper().is_none()).then(|| {
        format!(
            "{} cannot run: nothing needed them when this process began, so it gave up executing anything; start it anew",
            needed.join(", ")
        )
    })
}

/// May root write that log, and make it, without power over others' files? One that is not there is its folder's.
fn roots_own(tee: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    if !nix::unistd::geteuid().is_root() {
        // Nobody has more rights to give up.
        return true;
    }
    let writable = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|there| {
            let bits = match (there.uid(), there.gid()) {
                (0, _) => 0o200,
                (_, 0) => 0o020,
                _ => 0o002,
            };
            there.mode() & bits != 0
        })
    };
    // After a rotation it may have to be made anew.
    (writable(tee) || !tee.exists()) && tee.parent().is_some_and(writable)
}

/// Forks it, where it is needed; it never returns here. What is left to do for it in this process is [`begin`].
pub(super) fn fork(setting: &Setting<'_>) -> Result<(), String> {
    if needed(setting).is_empty() {
        return Ok(());
    }
    let (ours, theirs) = wire::Wire::pair().map_err(|error| error.to_string())?;
    let parent = nix::unistd::getpid();
    match crate::sys::fork_alone() {
        Ok(Some(child)) => {
            hand::forked(ours, child);
            Ok(())
        }
        Ok(None) => {
            drop(ours);
            room::live(parent, theirs, setting)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Begins to speak with it: now that there may be threads.
pub(super) fn begin() {
    if let Some(hand) = hand::begin() {
        HAND.set(hand).ok();
    }
}
