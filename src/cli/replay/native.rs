//! The part of jails that judge httpd's lines: the rooms of `run`, on the log's clock.

use std::collections::HashMap;
use std::sync::Arc;

use super::told::{Told, What, micros, secs};
use crate::act::Act;
use crate::cli::{Failure, explain};
use crate::config::Config;
use crate::decide::BanFor;
use crate::exempt::{Exempt, Target};
use crate::filter;
use crate::frame::{Framed, Trust};
use crate::hit::{Arrival, Batch, JailId};
use crate::judge::{Decision, Judge, Outcome};
use crate::key::Key;
use crate::parse::{Format, Misfit};
use crate::sift::{Reader, Sifter};

/// They and their bans.
pub(super) struct Native {
    format: Format,
    pub(super) sifter: Sifter,
    pub(super) judge: Judge,
    /// When the bans that stand end, seconds since the epoch; `None`: never.
    pub(super) ends: HashMap<(JailId, Target), Option<f64>>,
    /// The first line that does not fit, for people.
    pub(super) misfit: Option<String>,
    /// Lines that fit, and whose time is none (the 31st of February).
    pub(super) undated: u64,
}

/// What jails cannot see in lines of this format is said, and they are changed where they would ban too many.
pub(in crate::cli) fn adapt(config: &mut Config, format: &Format) {
    for (jail, lacks) in filter::observe_blind(&mut config.jails, format) {
        log::warn!(
            "jail {jail} has exceptions by {lacks}, which is not in --format: it only observes"
        );
    }
    for (jail, lacks) in filter::unmeetable(&config.jails, format) {
        log::warn!(
            "jail {jail} needs {lacks}, which is not in --format; nothing will count for it"
        );
    }
}

impl Native {
    pub(super) fn new(config: &Arc<Config>, format: Format) -> Result<Self, Failure> {
        let sifter = Sifter::new(config, Reader::Access(format.clone())).map_err(|error| {
            Failure::Usage(format!("the patterns of all jails together: {error}"))
        })?;
        let judge = Judge::new(
            Arc::clone(config),
            Exempt::of_config_only(config),
            Act::new(config),
            Arc::default(),
        );
        Ok(Self {
            format,
            sifter,
            judge,
            ends: HashMap::new(),
            misfit: None,
            undated: 0,
        })
    }

    /// The time of a line that fits, seconds since the epoch.
    pub(super) fn time(&self, line: &[u8]) -> Option<f64> {
        self.format.logged(line).map(secs)
    }

    /// Judges a line at `clock`, as jails stand in the configuration. `dated`: it has a time. `place`: the log and the
    /// number of the line; `None`: it need not fit.
    pub(super) fn line(
        &mut self,
        framed: Framed<'_>,
        dated: bool,
        clock: f64,
        place: Option<(&str, u64)>,
        told: &mut Vec<Told>,
    ) {
        let now = Arrival(millis(clock));
        let mut decisions = Vec::new();
        let mut sink = |decision: Decision<'_>| {
            let what = what(decision.outcome, clock);
            decisions.push((decision.id, decision.who, decision.hits, what));
        };
        let mut batch = Batch::default();
        let result = self.sifter.line(framed, Trust::Whole, &mut batch);
        self.judge.judge(&mut batch, now, &mut sink);
        match (result, place) {
            (Ok(()), _) if !dated => self.undated += 1,
            (Err(misfit), Some((name, number))) if self.misfit.is_none() => {
                self.misfit = Some(first_misfit(name, number, framed.bytes(), misfit));
            }
            (Ok(()) | Err(_), _) => {}
        }
        decisions.sort_by_key(|(jail, ..)| *jail);
        for (jail, who, hits, what) in decisions {
            if let What::Ban(until) | What::Prolong(until) = what
                // Prolonged within the same moment, or for ever again: no end has moved.
                && self.ends.insert((jail, who), until) == Some(until)
            {
                continue;
            }
            told.push(Told {
                time: clock,
                jail,
                who: Key::from(who),
                hits,
                what,
            });
        }
    }

    /// Bans that ended before `clock`.
    pub(super) fn advance(&mut self, clock: f64, told: &mut Vec<Told>) {
        let now = millis(clock);
        while let Some(ended) = self.judge.act().ended(now) {
            let Some(Some(end)) = self.ends.remove(&(ended.jail, ended.who)) else {
                continue;
            };
            told.push(Told {
                time: end,
                jail: ended.jail,
                who: Key::from(ended.who),
                hits: 0,
                what: What::Unban,
            });
        }
    }
}

/// What is told of a limit that was reached at `clock`.
fn what(outcome: Outcome<'_>, clock: f64) -> What {
    let until = |ban_for| match ban_for {
        BanFor::Timed(long) => Some(secs(micros(clock) + i64::from(long.get()) * 1_000_000)),
        BanFor::Forever => None,
    };
    match outcome {
        Outcome::Banned { ban_for, .. } => What::Ban(until(ban_for)),
        Outcome::Prolonged(ban_for) => What::Prolong(until(ban_for)),
        Outcome::Observed => What::observed(),
        Outcome::Spared(spared) => What::Not("spare", spared.to_string()),
        Outcome::Proxied(peer) => What::Not(
            "cannot ban",
            format!("comes through {peer}, and a packet filter sees only that"),
        ),
        Outcome::Off => What::Not("cannot ban", "switched off".into()),
        Outcome::Failed(error) => What::Not("cannot ban", error.to_string()),
    }
}

/// The first line that does not fit, for people.
pub(in crate::cli) fn first_misfit(name: &str, number: u64, line: &[u8], misfit: Misfit) -> String {
    let cited = explain::around(line, misfit.at);
    let hint = explain::nickname(line)
        .map_or_else(String::new, |name| format!(" (--format {name} would fit)"));
    format!(
        "{name}:{number}: at column {} there should be {}{hint}: {cited}",
        misfit.at + 1,
        misfit.wants
    )
}

/// On the clock that native jails count by.
pub(in crate::cli) fn millis(clock: f64) -> u64 {
    u64::try_from(micros(clock) / 1000).unwrap_or(0)
}
