//! One jail: its expressions, who is counted and banned, and what is done about it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::slow::{Back, Slow};
use crate::act::command;
use crate::bans::{Bounds, Warden};
use crate::config::{self, Config, Mode, Raw};
use crate::fail2ban::UseDns;
use crate::failregex::{Clock, Failure, Matcher, Phase, Refused, Seen, Stamp};
use crate::hit::JailId;
use crate::judge::JailTally;
use crate::key::Key;
use crate::privilege::{Actions, Ignore};
use crate::run::guarded;
use crate::silence::board;
use crate::source::tail::Encoding;

/// How long it is told that failures did not count, after the last.
const LOST_SECS: f64 = 60.0;

/// A running jail.
pub(super) struct Jail {
    pub(super) id: JailId,
    config: Arc<Config>,
    /// `None`: not compiled, as nobody has lines for it, or it counts bans.
    matcher: Option<Matcher>,
    encoding: Encoding,
    scratch: String,
    /// Of the line that was judged last.
    pub(super) pending: Vec<Failure>,
    pub(super) warden: Warden,
    /// What has to be asked before a failure counts.
    pub(super) slow: Option<Slow>,
    pub(super) actions: Option<Actions>,
    /// Bans that actions know of, to tell them of the end.
    pub(super) held: HashMap<Key, command::Ticket>,
    pub(super) tally: JailTally,
    /// Its expressions have fitted some line.
    fits: bool,
    /// When a failure did not count as too many waited for an answer; seconds since the epoch.
    unasked: Option<f64>,
    /// Test hook: the line that panics (F2B_PIPE_TEST_PANIC).
    panic_at: Option<String>,
}

impl Jail {
    /// Those of the configuration that judge by expressions and are `wanted`.
    pub(super) fn all(
        config: &Arc<Config>,
        back: &Arc<Back>,
        wanted: &dyn Fn(&Raw) -> bool,
    ) -> Vec<Self> {
        let numbered = config.jails.iter().enumerate();
        let raws =
            numbered.filter_map(|(n, jail)| Some((JailId::try_from(n).ok()?, jail.raw.as_ref()?)));
        raws.filter(|(_, raw)| wanted(raw))
            .map(|(id, raw)| Self::new(config, id, raw, back))
            .collect()
    }

    fn new(config: &Arc<Config>, id: JailId, raw: &Raw, back: &Arc<Back>) -> Self {
        let name = config
            .jails
            .get(usize::from(id))
            .map_or("", |jail| &jail.name);
        let ignore = Ignore::of(name, raw);
        let names = matches!(raw.rules.usedns, UseDns::Yes | UseDns::Warn);
        let slow = (names || ignore.is_some()).then(|| Slow::new(name, ignore, back));
        Self {
            id,
            config: Arc::clone(config),
            matcher: None,
            encoding: raw.text_encoding(),
            scratch: String::new(),
            pending: Vec::new(),
            warden: Warden::new(id, raw.terms.clone(), Bounds::default()),
            slow,
            actions: None,
            held: HashMap::new(),
            tally: JailTally::default(),
            fits: false,
            unasked: None,
            panic_at: std::env::var("F2B_PIPE_TEST_PANIC").ok(),
        }
    }

    /// Goes on where `old`, a jail of the same name, was: with its counts and bans, and with its expressions if they are
    /// the same.
    pub(super) fn take_over(&mut self, old: Self) {
        let same = match (self.raw(), old.raw()) {
            (Some(new), Some(old)) => new.rules == old.rules,
            (Some(_) | None, _) => false,
        };
        if same {
            self.matcher = old.matcher;
            self.fits = old.fits;
        }
        let terms = self.warden.terms().clone();
        self.warden = old.warden;
        self.warden.set_jail(self.id);
        self.warden.set_terms(terms);
        self.actions = old.actions;
        self.held = old.held;
        self.tally = old.tally;
        self.unasked = old.unasked;
    }

    /// As it is configured.
    pub(super) fn conf(&self) -> Option<&config::Jail> {
        self.config.jails.get(usize::from(self.id))
    }

    pub(super) fn raw(&self) -> Option<&Raw> {
        self.conf()?.raw.as_deref()
    }

    pub(super) fn name(&self) -> &str {
        self.conf().map_or("", |jail| &jail.name)
    }

    /// Are its expressions ready, or does it need none?
    pub(super) fn runs(&self) -> bool {
        self.matcher.is_some() || self.raw().is_some_and(|raw| raw.counts_bans)
    }

    /// Does it ban, or only observe?
    pub(super) fn bans(&self) -> bool {
        self.conf().is_some_and(|jail| jail.mode == Mode::Ban)
    }

    /// Seconds.
    pub(super) fn findtime(&self) -> f64 {
        self.warden.terms().rule.findtime
    }

    /// Does it read this log?
    pub(super) fn reads(&self, path: &Path) -> bool {
        self.raw().is_some_and(|raw| raw.reads(path))
    }

    /// Makes its expressions ready, if its configuration says so. What is wrong with them is said once.
    pub(super) fn compile_if(&mut self, wanted: impl Fn(&Raw) -> bool) {
        let Some(raw) = self
            .raw()
            .filter(|raw| self.matcher.is_none() && !raw.counts_bans && wanted(raw))
        else {
            return;
        };
        match Matcher::new(&raw.rules) {
            Ok(matcher) => self.matcher = Some(matcher),
            // All its expressions were taken away while it runs: it finds nothing.
            Err(Refused::Empty) => {}
            Err(error) => log::error!("jail {} does not run: {error}", self.name()),
        }
    }

    /// Judges a line; its failures are in `pending`.
    pub(super) fn line(&mut self, text: &str, stamp: Stamp, phase: Phase, clock: Clock) {
        if self.conf().is_some_and(|jail| jail.idle) {
            return;
        }
        let Some(matcher) = &mut self.matcher else {
            return;
        };
        let (pending, panics) = (&mut self.pending, self.panic_at.as_deref());
        let judged = guarded(|| {
            assert!(panics != Some(text), "asked for by F2B_PIPE_TEST_PANIC");
            matcher.line(text, stamp, phase, clock, pending)
        });
        let Some(seen) = judged else {
            // A line costs itself, and what its jail knew of others: that begins anew. A stranger may have chosen it, so
            // it must not cost more.
            self.matcher = None;
            self.pending.clear();
            self.compile_if(|_| true);
            return;
        };
        self.tally.lines += 1;
        if !self.fits {
            match seen {
                Seen::Missed => self.tally.missed += u64::from(names_an_address(text)),
                Seen::Dropped => {}
                Seen::Failed | Seen::Ignored(_) | Seen::Noted(_) => {
                    (self.fits, self.tally.missed) = (true, 0);
                }
            }
        }
        if seen == Seen::Missed
            && let Some(pattern) = matcher.take_too_hard()
        {
            log::warn!(
                "jail {}: an expression takes too long on a line, which counts as no match (said once for each): {pattern}",
                self.name()
            );
        }
    }

    /// The same for bytes, in the jail's encoding.
    pub(super) fn bytes(&mut self, bytes: &[u8], stamp: Stamp, phase: Phase, clock: Clock) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let encoding = self.encoding;
        self.line(encoding.line(bytes, &mut scratch), stamp, phase, clock);
        self.scratch = scratch;
    }

    /// The time that a line tells, seconds since the epoch.
    pub(super) fn time_of(&mut self, line: &str, now: f64) -> Option<f64> {
        self.matcher.as_mut()?.time_of(line, now)
    }

    /// A failure did not count, as too many names and commands are waited for. It is told until none was lost for a minute.
    pub(super) fn not_asked(&mut self, lost: bool, now: f64) {
        let about = format!("jail {}: usedns, ignorecommand", self.name());
        if lost {
            self.unasked = Some(now);
            board().set(
                &about,
                &Err::<(), _>(
                    "too many host names or commands wait for an answer, and failures that would wait, too, do not count: usedns = \
                     no if names are not needed, an ignorecommand that answers sooner",
                ),
            );
        } else if self.unasked.is_some_and(|at| now - at > LOST_SECS) {
            self.unasked = None;
            board().over(&about, "well again");
        }
    }
}

/// Does an address stand in the line?
fn names_an_address(text: &str) -> bool {
    let part = |c: char| c.is_ascii_hexdigit() || c == '.' || c == ':';
    text.split(|c| !part(c)).any(|word| {
        let word = word.trim_matches(['.']).trim_end_matches(':');
        // Most words need no closer look.
        let marks = word.bytes().filter(|b| matches!(b, b'.' | b':')).count();
        marks >= 2 && word.parse::<std::net::IpAddr>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::names_an_address;

    #[test]
    fn an_address_is_seen_and_a_time_or_a_version_is_none() {
        for line in [
            "Failed password for root from 192.0.2.7 port 22 ssh2",
            "client: 2001:db8::7, server",
            "[client 192.0.2.7:1234]",
            "rhost=192.0.2.7.",
            "from ::1:",
        ] {
            let port = line.contains(":1234");
            assert_eq!(names_an_address(line), !port, "{line}");
        }
        for line in [
            "Mar  2 08:00:00 host CRON[7]: pam_unix(cron:session): opened",
            "version 1.2.3 build 4:5:6 at 08:00:00.123",
            "",
        ] {
            assert!(!names_an_address(line), "{line}");
        }
    }
}
