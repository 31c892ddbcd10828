//! The part of jails that judge by expressions: failregex ─> exempt ─> bans, as `watch` does it, on the log's clock.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::told::{Told, What};
use crate::bans::{self, Bounds, Decision, History, HistoryBounds, Warden};
use crate::config::{Config, Mode, Raw};
use crate::exempt::Exempt;
use crate::failregex::{Failure, Matcher, Phase, Seen, Stamp, When};
use crate::hit::JailId;
use crate::judge::JailTally;
use crate::key::Key;
use crate::source::tail::Encoding;

/// All of them.
pub(super) struct Wards {
    config: Arc<Config>,
    wards: Vec<Ward>,
    exempt: Exempt,
    history: History,
    /// Failures of host names, which nobody looks up here.
    pub(super) named: u64,
    /// Failures before any line told a time.
    pub(super) timeless: u64,
    failures: Vec<Failure>,
    /// Expressions that took too long on some line.
    too_hard: HashSet<(JailId, String)>,
}

/// One.
struct Ward {
    id: JailId,
    /// `None`: no log is its, or it counts bans.
    matcher: Option<Matcher>,
    encoding: Encoding,
    /// What the line at hand tells of its time.
    when: Option<When>,
    warden: Warden,
    tally: JailTally,
}

/// Where jails are in [`Wards`], of those that read a log.
pub(super) struct Readers {
    at: Vec<usize>,
    /// They read it because of its path.
    pub(super) by_path: bool,
}

impl Readers {
    pub(super) fn is_empty(&self) -> bool {
        self.at.is_empty()
    }
}

impl Wards {
    pub(super) fn new(config: &Arc<Config>) -> Self {
        let mut wards = Vec::new();
        for (id, jail) in (0..).zip(&config.jails) {
            let Some(raw) = &jail.raw else { continue };
            if raw.ignorecommand.is_some() {
                log::warn!(
                    "jail {}: ignorecommand is not run: what it says today says nothing of an old log",
                    jail.name
                );
            }
            wards.push(Ward {
                id,
                matcher: None,
                encoding: raw.text_encoding(),
                when: None,
                warden: Warden::new(id, raw.terms.clone(), Bounds::default()),
                tally: JailTally::default(),
            });
        }
        Self {
            config: Arc::clone(config),
            wards,
            exempt: Exempt::of_config_only(config),
            history: History::new(HistoryBounds::default()),
            named: 0,
            timeless: 0,
            failures: Vec::new(),
            too_hard: HashSet::new(),
        }
    }

    /// For each log, known by its paths (none: stdin), who reads it: jails whose logpath it is. Stdin is read by all; and
    /// if no log is anybody's, as where they were copied elsewhere, all are. Readers' expressions are compiled.
    pub(super) fn readers(&mut self, logs: &[&[PathBuf]]) -> Vec<Readers> {
        let all: Vec<usize> = (0..self.wards.len())
            .filter(|at| self.raw(*at).is_some_and(|raw| !raw.counts_bans))
            .collect();
        let mut readers: Vec<Readers> = logs
            .iter()
            .map(|paths| {
                let reads = |at: &usize| {
                    self.raw(*at)
                        .is_some_and(|raw| paths.iter().any(|path| raw.reads(path)))
                };
                let at: Vec<usize> = all.iter().copied().filter(reads).collect();
                let by_path = !at.is_empty();
                Readers { at, by_path }
            })
            .collect();
        let copied = !readers.iter().any(|readers| readers.by_path);
        for (readers, paths) in readers.iter_mut().zip(logs) {
            if copied || paths.is_empty() {
                readers.at.clone_from(&all);
            }
        }
        for at in all {
            if readers.iter().any(|readers| readers.at.contains(&at)) {
                self.compile(at);
            }
        }
        for readers in &mut readers {
            readers.at.retain(|at| {
                self.wards
                    .get(*at)
                    .is_some_and(|ward| ward.matcher.is_some())
            });
        }
        readers
    }

    fn compile(&mut self, at: usize) {
        let matcher = self.raw(at).map(|raw| Matcher::new(&raw.rules));
        match (matcher, self.wards.get_mut(at)) {
            (Some(Ok(matcher)), Some(ward)) => ward.matcher = Some(matcher),
            (Some(Err(error)), Some(ward)) => {
                let jail = self.config.jails.get(usize::from(ward.id));
                let (name, written) = jail.map_or(("", ""), |jail| (&jail.name, &jail.written));
                log::error!("{written}: {name}: {error}; the jail is left out");
            }
            (_, None) | (None, _) => {}
        }
    }

    fn raw(&self, at: usize) -> Option<&Raw> {
        let id = self.wards.get(at)?.id;
        self.config.jails.get(usize::from(id))?.raw.as_deref()
    }

    /// The times that a line tells its readers are added to `times`. [`line`](Self::line) has to follow.
    pub(super) fn times(
        &mut self,
        line: &[u8],
        stamp: Stamp,
        readers: &Readers,
        today: f64,
        times: &mut Vec<f64>,
    ) {
        let mut scratch = String::new();
        for at in &readers.at {
            let Some(ward) = self.wards.get_mut(*at) else {
                continue;
            };
            let Some(matcher) = &mut ward.matcher else {
                continue;
            };
            let when = matcher.when(ward.encoding.line(line, &mut scratch), stamp, today);
            times.extend(when.time());
            ward.when = Some(when);
        }
    }

    /// Judges the line. `clock`: the latest time so far; `None`: nobody knows when it was written, and nobody is counted.
    pub(super) fn line(
        &mut self,
        line: &[u8],
        readers: &Readers,
        clock: Option<f64>,
        today: f64,
        told: &mut Vec<Told>,
    ) {
        let mut scratch = String::new();
        let now = clock.unwrap_or(today);
        for at in &readers.at {
            let Some(ward) = self.wards.get_mut(*at) else {
                continue;
            };
            let (Some(matcher), Some(when)) = (&mut ward.matcher, ward.when.take()) else {
                continue;
            };
            let text = ward.encoding.line(line, &mut scratch);
            let mut failures = std::mem::take(&mut self.failures);
            let seen = matcher.line_of(text, when, Phase::Following, now, &mut failures);
            if seen == Seen::Missed
                && let Some(pattern) = matcher.take_too_hard()
                && self.too_hard.insert((ward.id, pattern.clone()))
            {
                let jail = self.config.jails.get(usize::from(ward.id));
                log::warn!(
                    "jail {}: an expression takes too long on a line, which counts as no match (said once for each): {pattern}",
                    jail.map_or("", |jail| &jail.name)
                );
            }
            for failure in failures.drain(..) {
                match clock {
                    Some(now) => self.consider(*at, &failure, now, told),
                    None => self.timeless += 1,
                }
            }
            self.failures = failures;
        }
    }

    /// Somebody failed: is he counted?
    fn consider(&mut self, at: usize, failure: &Failure, now: f64, told: &mut Vec<Told>) {
        if failure.unresolved {
            self.named += 1;
            return;
        }
        let Some(ward) = self.wards.get_mut(at) else {
            return;
        };
        let id = ward.id;
        let Some(jail) = self.config.jails.get(usize::from(id)) else {
            return;
        };
        let who = Key::parse(&failure.id).counted(jail.ipv6_prefix);
        if let Some(target) = who.target()
            && let Err(spared) = self.exempt.check(target, Some(id))
        {
            told.push(Told {
                time: now,
                jail: id,
                who,
                hits: 0,
                what: What::Not("spare", spared.to_string()),
            });
            return;
        }
        ward.tally.hits += 1;
        let failed = bans::Failure {
            key: &who,
            at: failure.time.unwrap_or(now),
            line: None,
        };
        let mut decisions = Vec::new();
        ward.warden
            .failure(&failed, now, &mut self.history, &mut |decision| {
                decisions.push(decision);
            });
        for Decision { key, what } in decisions {
            self.decided(at, key, what, now, told);
        }
    }

    fn decided(
        &mut self,
        at: usize,
        who: Key,
        decision: bans::What,
        now: f64,
        told: &mut Vec<Told>,
    ) {
        let Some(ward) = self.wards.get_mut(at) else {
            return;
        };
        let jail = ward.id;
        let conf = self.config.jails.get(usize::from(jail));
        let observes = conf.is_some_and(|jail| jail.mode == Mode::Observe);
        let mut tell = |time, hits, what| {
            told.push(Told {
                time,
                jail,
                who: who.clone(),
                hits,
                what,
            });
        };
        match decision {
            bans::What::Ban(ban) if observes => {
                ward.tally.not_banned += 1;
                tell(now, ban.count, What::observed());
            }
            bans::What::Prolong { .. } | bans::What::Unban { .. } if observes => {}
            bans::What::Ban(ban) => {
                ward.tally.bans += 1;
                tell(now, ban.count, What::Ban(ban.until()));
                self.banned(jail, &who, now, told);
            }
            bans::What::Prolong { standing, count } => {
                tell(now, count, What::Prolong(standing.end()));
            }
            bans::What::Unban { at } => tell(at, 0, What::Unban),
        }
    }

    /// Jail `by` has banned `who`: those that count bans do.
    pub(super) fn banned(&mut self, by: JailId, who: &Key, now: f64, told: &mut Vec<Told>) {
        for at in 0..self.wards.len() {
            let other = self.wards.get(at).is_some_and(|ward| ward.id != by);
            if other && self.raw(at).is_some_and(|raw| raw.counts_bans) {
                let failure = Failure::of(&who.to_string(), now, String::new());
                self.consider(at, &failure, now, told);
            }
        }
    }

    /// Bans that ended before `now`.
    pub(super) fn advance(&mut self, now: f64, told: &mut Vec<Told>) {
        for at in 0..self.wards.len() {
            let Some(ward) = self.wards.get_mut(at) else {
                continue;
            };
            if ward.warden.next_end().is_none_or(|end| end >= now) {
                continue;
            }
            let mut decisions = Vec::new();
            ward.warden
                .advance(now, &mut |decision| decisions.push(decision));
            for Decision { key, what } in decisions {
                self.decided(at, key, what, now, told);
            }
        }
    }

    /// What a jail counted; `None`: it had nothing to read.
    pub(super) fn tally(&self, jail: JailId) -> Option<JailTally> {
        let (at, ward) = self
            .wards
            .iter()
            .enumerate()
            .find(|(_, ward)| ward.id == jail)?;
        let counts_bans = self.raw(at).is_some_and(|raw| raw.counts_bans);
        (ward.matcher.is_some() || counts_bans).then_some(ward.tally)
    }

    /// Failures that were counted.
    pub(super) fn hits(&self) -> u64 {
        self.wards.iter().map(|ward| ward.tally.hits).sum()
    }

    /// Bans that stand.
    pub(super) fn standing(&self) -> usize {
        let bans = |ward: &&Ward| {
            let conf = self.config.jails.get(usize::from(ward.id));
            conf.is_some_and(|jail| jail.mode == Mode::Ban)
        };
        self.wards
            .iter()
            .filter(bans)
            .map(|ward| ward.warden.bans())
            .sum()
    }

    /// Keys that were forgotten because there were too many.
    pub(super) fn evicted(&self) -> u64 {
        self.wards.iter().map(|ward| ward.warden.evicted()).sum()
    }
}
