//! Jails that go by logged times, fail2ban's above all: failures in, bans and their ends out, in the order of time.
//!
//! ```text
//! Failure ─> Keyed (count) ─> maxretry? ─> Increment (how long) ─> Standing ─> Decision
//!                 ^                            |
//!                 └──────── History <──────────┘   known-bad keys count more, and are banned for longer
//! ```
//!
//! Pure: the clock is an argument, chance can be given, nothing is written. Times are seconds since the epoch, as doubles,
//! because epoch formats have fractions and fail2ban's ends are compared to the last digit. Where fail2ban leaves it to
//! the moment (when it cleans up, which of its threads is first), the exact form holds: counters that are over are gone
//! before they are used, bans that have ended are gone before the next failure is looked at.

mod formula;
mod history;
mod increment;
mod standing;

use std::hash::{BuildHasher, RandomState};

pub use formula::{EvalError, Formula, FormulaError};
pub use history::{Bad, Bounds as HistoryBounds, History};
pub use increment::{Increment, IncrementError, Options as IncrementOptions, Written};
pub use standing::Standing;

use crate::count::keyed::{self, Counted, Keyed, Rule};
use crate::hit::JailId;
use crate::key::Key;
use standing::Bans;

/// What a jail goes by.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How failures are counted.
    pub rule: Rule,
    /// How long a ban is, seconds, from the last failure on; `None`: for ever.
    pub bantime: Option<f64>,
    /// How much longer for who was banned before; `None`: no longer.
    pub increment: Option<Increment>,
}

/// What a warden's tables may grow to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of the counters.
    pub counters: keyed::Bounds,
    /// Bans that stand, each about 200 bytes. Beyond it the one that would end first ends at once.
    pub bans: usize,
}

impl Default for Bounds {
    /// A million bans; see [`keyed::Bounds`].
    fn default() -> Self {
        Self {
            counters: keyed::Bounds::default(),
            bans: 1_000_000,
        }
    }
}

/// Somebody failed.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'f> {
    /// Who.
    pub key: &'f Key,
    /// When, seconds since the epoch. One in the future is counted at the clock.
    pub at: f64,
    /// What was logged, to be kept up to `maxmatches`.
    pub line: Option<&'f str>,
}

/// A failure counted for more, as its key was banned before ([`Terms`]' `increment`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighed {
    /// Bans of this key in this jail that are known.
    pub bans: u32,
    /// How many failures it counted for.
    pub weight: u32,
    /// It would have been more, but for maxretry.
    pub capped: bool,
    /// That alone reaches maxretry.
    pub enough: bool,
}

/// What is to be done about a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Whose ban it is.
    pub key: Key,
    /// What happens.
    pub what: What,
}

/// What happens to a key.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// It is banned from now on. A ban that [`Increment`] makes longer has that length at once.
    Ban(Ban),
    /// Its standing ban ends later.
    Prolong {
        /// From when to when now.
        standing: Standing,
        /// What was counted, at least maxretry; 0 when it was done by hand.
        count: u32,
    },
    /// Its ban is over.
    Unban {
        /// When it ended, seconds since the epoch: before the clock; or at it, if it was by hand or for want of room.
        at: f64,
    },
}

/// A new ban.
#[derive(Clone, Debug, PartialEq)]
pub struct Ban {
    /// From when to when.
    pub standing: Standing,
    /// Bans of this key in this jail, this one among them.
    pub bans: u32,
    /// What was counted, at least maxretry; 0 when it was done by hand or restored.
    pub count: u32,
    /// Failures that came since counting began.
    pub failures: u32,
    /// The latest lines.
    pub lines: Vec<Box<str>>,
    /// When the last ban before it began, if it is longer because of that; seconds since the epoch.
    pub before: Option<f64>,
    /// Whether the history took note of it; not of a ban that began no later than the last one it knows of.
    pub noted: bool,
    /// Whether it is from before a restart.
    pub restored: bool,
}

impl Ban {
    /// The end, seconds since the epoch; `None`: never.
    #[must_use]
    pub fn until(&self) -> Option<f64> {
        self.standing.end()
    }
}

/// A ban that is remembered from before a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// Who was banned.
    pub key: Key,
    /// From when to when, as it stood at last.
    pub standing: Standing,
    /// Which ban of this key in this jail it was.
    pub bans: u32,
}

/// Numbers from 0 up to but not including 1.
pub type Random = Box<dyn FnMut() -> f64 + Send>;

/// The warden of one jail.
pub struct Warden {
    jail: JailId,
    terms: Terms,
    counters: Keyed<Key>,
    bans: Bans,
    bounds: Bounds,
    random: Random,
    /// Whether it was said that the formula failed.
    complained: bool,
}

impl std::fmt::Debug for Warden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warden")
            .field("jail", &self.jail)
            .field("terms", &self.terms)
            .field("counters", &self.counters.len())
            .field("bans", &self.bans.len())
            .finish_non_exhaustive()
    }
}

impl Warden {
    /// Of `jail`, which is how the history knows it. Nobody is counted or banned.
    #[must_use]
    pub fn new(jail: JailId, mut terms: Terms, bounds: Bounds) -> Self {
        terms.rule.maxretry = terms.rule.maxretry.max(1);
        Self {
            jail,
            counters: Keyed::new(terms.rule, bounds.counters),
            terms,
            bans: Bans::default(),
            bounds,
            random: by_chance(),
            complained: false,
        }
    }

    /// Where chance comes from, for `rndtime` and formulas that ask for it.
    pub fn set_random(&mut self, random: Random) {
        self.random = random;
    }

    /// Other terms from now on; bans that stand keep their ends.
    pub fn set_terms(&mut self, mut terms: Terms) {
        terms.rule.maxretry = terms.rule.maxretry.max(1);
        self.counters.set_rule(terms.rule);
        self.terms = terms;
        self.complained = false;
    }

    /// The jail has another number from now on.
    pub fn set_jail(&mut self, jail: JailId) {
        self.jail = jail;
    }

    /// The terms.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Counts a failure. Bans that have ended by `now` are told first. `Some`: it counted for more than one.
    pub fn failure(
        &mut self,
        failure: &Failure<'_>,
        now: f64,
        history: &mut History,
        sink: &mut dyn FnMut(Decision),
    ) -> Option<Weighed> {
        self.advance(now, sink);
        let Failure { key, line, .. } = *failure;
        // Not `min`: what is not a number is in the future too.
        let at = if failure.at < now { failure.at } else { now };
        let maxretry = self.terms.rule.maxretry;
        let mut count = self.counters.add(key, at, now, line);
        let weighed = match count < maxretry {
            true => self.weighed(key, at, now, history),
            false => None,
        };
        if let Some(Weighed { bans, weight, .. }) = weighed {
            let more = self.counters.add_weight(key, at, now, weight - 1, bans);
            count = more.unwrap_or(count);
        }
        self.judge(key, count, now, history, sink);
        weighed
    }

    /// Counts failures by hand, at the clock: `times` of them, without more weight for whom was banned before.
    pub fn attempt(
        &mut self,
        Failure { key, line, .. }: &Failure<'_>,
        times: u32,
        now: f64,
        history: &mut History,
        sink: &mut dyn FnMut(Decision),
    ) {
        self.advance(now, sink);
        let mut count = self.counters.add(key, now, now, *line);
        if times > 1 {
            let more = self.counters.add_weight(key, now, now, times - 1, 0);
            count = more.unwrap_or(count);
        }
        self.judge(key, count, now, history, sink);
    }

    fn judge(
        &mut self,
        key: &Key,
        count: u32,
        now: f64,
        history: &mut History,
        sink: &mut dyn FnMut(Decision),
    ) {
        if count >= self.terms.rule.maxretry
            && let Some(counted) = self.counters.take(key)
        {
            self.convict(key, counted, now, history, sink);
        }
    }

    /// Whether a failure counts for more than one, and why.
    fn weighed(&self, key: &Key, at: f64, now: f64, history: &mut History) -> Option<Weighed> {
        self.terms.increment.as_ref()?;
        let maxretry = self.terms.rule.maxretry;
        // A failure from before the last ban was counted for that one.
        let bad = history
            .of(key, self.jail, now)
            .filter(|bad| at > bad.last)?;
        let weight = increment::weight(bad.count);
        Some(Weighed {
            bans: bad.count,
            weight: weight.min(maxretry),
            capped: weight > maxretry,
            enough: weight >= maxretry,
        })
        .filter(|weighed| weighed.weight > 1)
    }

    /// Tells which bans have ended before `now`, in the order of their ends.
    pub fn advance(&mut self, now: f64, sink: &mut dyn FnMut(Decision)) {
        while self.bans.next_end().is_some_and(|end| end < now) {
            if let Some((key, at)) = self.bans.pop() {
                let what = What::Unban { at };
                sink(Decision { key, what });
            }
        }
    }

    /// When the next ban ends, seconds since the epoch: [`advance`](Self::advance) has something to tell once the clock is
    /// past it.
    #[must_use]
    pub fn next_end(&self) -> Option<f64> {
        self.bans.next_end()
    }

    /// Bans `key` from `now` on, by hand. Who is banned already is prolonged.
    pub fn ban(
        &mut self,
        key: &Key,
        now: f64,
        history: &mut History,
        sink: &mut dyn FnMut(Decision),
    ) {
        self.advance(now, sink);
        let by_hand = Counted {
            count: 0,
            failures: 0,
            last: now,
            bans_before: 0,
            lines: Vec::new(),
        };
        self.convict(key, by_hand, now, history, sink);
    }

    /// Ends the ban of `key` by hand, and forgets that there were any. Whether one stood.
    pub fn unban(
        &mut self,
        key: &Key,
        now: f64,
        history: &mut History,
        sink: &mut dyn FnMut(Decision),
    ) -> bool {
        self.advance(now, sink);
        history.forget(key, self.jail);
        let stood = self.bans.remove(key);
        if stood {
            sink(Decision {
                key: key.clone(),
                what: What::Unban { at: now },
            });
        }
        stood
    }

    /// Bans who was banned before a restart, with the old start and end, if by the present terms it would still stand:
    /// without increment only if it began less than the present bantime ago, and none is longer than the terms let it be.
    /// Whether it stands: if not, it has ended for the ledger too.
    pub fn restore(
        &mut self,
        remembered: Remembered,
        now: f64,
        sink: &mut dyn FnMut(Decision),
    ) -> bool {
        let Remembered {
            key,
            mut standing,
            bans,
        } = remembered;
        let longest = match &self.terms.increment {
            Some(increment) => increment.maxtime(),
            None => self.terms.bantime,
        };
        if let Some(longest) = longest {
            let began_too_early = self.terms.increment.is_none() && standing.start <= now - longest;
            if began_too_early {
                return false;
            }
            standing.bantime = Some(standing.bantime.map_or(longest, |b| b.min(longest)));
        }
        if standing.end().is_some_and(|end| end <= now) {
            return false;
        }
        if self.bans.get(&key).is_some() {
            return true;
        }
        self.make_room(now, sink);
        self.bans.put(&key, standing);
        sink(Decision {
            key,
            what: What::Ban(Ban {
                standing,
                bans,
                count: 0,
                failures: 0,
                lines: Vec::new(),
                before: None,
                noted: false,
                restored: true,
            }),
        });
        true
    }

    /// The ban of `key`, if one stands.
    #[must_use]
    pub fn banned(&self, key: &Key) -> Option<Standing> {
        self.bans.get(key)
    }

    /// All bans that stand, in no order.
    pub fn all_banned(&self) -> impl Iterator<Item = (&Key, Standing)> {
        self.bans.iter()
    }

    /// How many bans stand.
    #[must_use]
    pub fn bans(&self) -> usize {
        self.bans.len()
    }

    /// Keys that are counted at the moment; some may have had their time.
    #[must_use]
    pub fn counted(&self) -> usize {
        self.counters.len()
    }

    /// Keys that were forgotten at a bound although they still mattered.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.counters.evicted()
    }

    fn convict(
        &mut self,
        key: &Key,
        counted: Counted,
        now: f64,
        history: &mut History,
        sink: &mut dyn FnMut(Decision),
    ) {
        let mut ban = Standing {
            start: counted.last,
            bantime: self.terms.bantime,
        };
        if ban.is_over(now) {
            return;
        }
        if let Some(old) = self.bans.get(key) {
            self.prolong(key, old, ban, counted.count, sink);
            return;
        }
        let (bans, noted, before) = self.lengthen(key, counted.bans_before, &mut ban, now, history);
        if ban.is_over(now) {
            // Terms that make a ban shorter.
            return;
        }
        if noted {
            let bad = Bad {
                last: ban.start.round_ties_even(),
                bantime: ban.bantime,
                count: bans,
            };
            history.put(key, self.jail, bad);
        }
        self.make_room(now, sink);
        self.bans.put(key, ban);
        sink(Decision {
            key: key.clone(),
            what: What::Ban(Ban {
                standing: ban,
                bans,
                count: counted.count,
                failures: counted.failures,
                lines: counted.lines,
                before,
                noted,
                restored: false,
            }),
        });
    }

    /// A standing ban gets the later of the two ends.
    fn prolong(
        &mut self,
        key: &Key,
        old: Standing,
        new: Standing,
        count: u32,
        sink: &mut dyn FnMut(Decision),
    ) {
        let later = match (new.end(), old.end()) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(new), Some(old)) => new > old,
        };
        if !later {
            return;
        }
        let moved = new.start - old.start;
        let prolonged = Standing {
            bantime: new.bantime.map(|b| if moved > 0.0 { b + moved } else { b }),
            ..old
        };
        self.bans.put(key, prolonged);
        sink(Decision {
            key: key.clone(),
            what: What::Prolong {
                standing: prolonged,
                count,
            },
        });
    }

    /// Gives a new ban the length that the bans before ask for. Its number, whether it is to be noted, and when the ban
    /// before it began.
    ///
    /// `bans_before` were known when counting began. The history may have forgotten them since; then the ban is not longer,
    /// but has its number.
    fn lengthen(
        &mut self,
        key: &Key,
        bans_before: u32,
        ban: &mut Standing,
        now: f64,
        history: &mut History,
    ) -> (u32, bool, Option<f64>) {
        let Some(increment) = &self.terms.increment else {
            return (1, true, None);
        };
        let before = if increment.overall() {
            history.overall(key, now)
        } else {
            history.of(key, self.jail, now)
        };
        let (Some(before), Some(bantime)) = (before, ban.bantime.filter(|b| *b > 0.0)) else {
            return (bans_before.saturating_add(1), true, None);
        };
        let number = before.count.max(bans_before).saturating_add(1);
        match increment.bantime(bantime, before.count, &mut self.random) {
            Ok(longer) => {
                ban.bantime = longer;
                (number, ban.start > before.last, Some(before.last))
            }
            Err(error) => {
                if !self.complained {
                    self.complained = true;
                    log::error!(
                        "jail {}: bantime.formula: {error}; such bans have the jail's bantime",
                        increment.jail()
                    );
                }
                (number, true, None)
            }
        }
    }

    /// At the bound, who would be free first is free at once.
    fn make_room(&mut self, now: f64, sink: &mut dyn FnMut(Decision)) {
        while self.bans.len() >= self.bounds.bans.max(1) {
            let Some((key, _)) = self.bans.pop() else {
                return;
            };
            let what = What::Unban { at: now };
            sink(Decision { key, what });
        }
    }
}

/// Good enough that a bot cannot tell when its ban ends.
fn by_chance() -> Random {
    let (keys, mut drawn) = (RandomState::new(), 0u64);
    Box::new(move || {
        drawn += 1;
        let bits = u32::try_from(keys.hash_one(drawn) >> 32).unwrap_or(0);
        f64::from(bits) / 4_294_967_296.0
    })
}

#[cfg(test)]
mod tests;
