//! What a jail's counts come to: their spread, what other numbers would do, and which number to take. Pure.
//!
//! A number is *safe* if it is well above what the busiest client that is no attacker came to: half as much again
//! ([`safe_from`]), twice as much if the log is shorter than a day; for the present number a quarter more is enough. Of
//! the safe ones the one nearest to the present number is recommended that catches nineteen of twenty attackers whom any
//! safe one would catch; so the present number stays unless another one is clearly better. Never less than half of the
//! present number, nor less than three: a log shows only those who came.

use serde::Serialize;

use super::clients::{ByKind, Kind, percentile};

/// Largest maxretry that config lets through.
const MAXRETRY_MAX: u32 = 100_000;
/// Fewer clients than this say nothing of those who will come.
pub(super) const CLIENTS_MIN: usize = 50;
/// No number is lowered to less than this.
const LEAST: u32 = 3;
/// A log of a day saw nights and noons.
pub(super) const DAY_SECS: f64 = 86_400.0;
/// A log must be so many times findtime long.
const WINDOWS_MIN: f64 = 2.0;

/// One client's highest count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peak {
    pub(super) count: u32,
    pub(super) kind: Kind,
    pub(super) is_like_a_person: bool,
    /// For `busiest`.
    pub(super) number: usize,
}

/// What advice needs to know of a jail and its log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) maxretry: u32,
    /// Seconds.
    pub(super) findtime: f64,
    /// From the first line to the last, seconds.
    pub(super) span: f64,
    /// Clients of the log, whether they came into this count or not.
    pub(super) clients: usize,
    /// What the format does not have and the jail needs.
    pub(super) lacks: Option<&'a str>,
}

/// How counts are spread over the clients that came into the count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Spread {
    pub(super) clients: usize,
    pub(super) p50: u32,
    pub(super) p90: u32,
    pub(super) p99: u32,
    #[serde(rename = "p99.9")]
    pub(super) p999: u32,
    pub(super) max: u32,
    /// Who came to `max`.
    pub(super) busiest: Option<String>,
}

/// Clients whose count is one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Bin {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) clients: ByKind<usize>,
}

/// Whom a maxretry would have banned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Candidate {
    pub(super) maxretry: u32,
    pub(super) banned: usize,
    pub(super) by_kind: ByKind<usize>,
    /// Of the banned, those who look like real people.
    pub(super) people: usize,
}

impl Candidate {
    fn of(maxretry: u32, peaks: &[Peak]) -> Self {
        let mut candidate = Self {
            maxretry,
            banned: 0,
            by_kind: ByKind::default(),
            people: 0,
        };
        for peak in peaks.iter().filter(|peak| peak.count >= maxretry) {
            candidate.banned += 1;
            *candidate.by_kind.of_mut(peak.kind) += 1;
            candidate.people += usize::from(peak.is_like_a_person);
        }
        candidate
    }

    /// The banned that are no attackers.
    fn wrongly(&self) -> usize {
        self.banned - self.by_kind.attackers
    }
}

/// Which number to take, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Advice {
    /// `None`: this log cannot say.
    pub(super) maxretry: Option<u32>,
    /// One sentence.
    pub(super) why: String,
}

/// How counts are spread, by kind. `name` names a client.
pub(super) fn spreads(peaks: &[Peak], name: impl Fn(usize) -> String) -> ByKind<Spread> {
    let mut spreads = ByKind::default();
    for kind in Kind::ALL {
        let of_kind = || peaks.iter().filter(|peak| peak.kind == kind);
        let mut counts: Vec<u32> = of_kind().map(|peak| peak.count).collect();
        counts.sort_unstable();
        *spreads.of_mut(kind) = Spread {
            clients: counts.len(),
            p50: percentile(&counts, 500),
            p90: percentile(&counts, 900),
            p99: percentile(&counts, 990),
            p999: percentile(&counts, 999),
            max: percentile(&counts, 1000),
            busiest: of_kind()
                .max_by_key(|peak| (peak.count, std::cmp::Reverse(peak.number)))
                .map(|peak| name(peak.number)),
        };
    }
    spreads
}

/// Clients by their counts: 1, 2, 3 to 4, 5 to 8 and so on by powers of two, up to the highest one.
pub(super) fn histogram(peaks: &[Peak]) -> Vec<Bin> {
    let mut bins: Vec<Bin> = Vec::new();
    let highest = peaks.iter().map(|peak| peak.count).max().unwrap_or(0);
    let (mut from, mut to) = (1, 1);
    while from <= highest {
        bins.push(Bin {
            from,
            to,
            clients: ByKind::default(),
        });
        (from, to) = (to + 1, to.saturating_mul(2));
    }
    for peak in peaks {
        let at = bins.partition_point(|bin| bin.to < peak.count);
        if let Some(bin) = bins.get_mut(at) {
            *bin.clients.of_mut(peak.kind) += 1;
        }
    }
    bins
}

/// Numbers around the present one, the lowest safe one and the recommended one.
pub(super) fn candidates(asked: Asked<'_>, advice: &Advice, peaks: &[Peak]) -> Vec<Candidate> {
    let present = asked.maxretry;
    // In quarters of the present number.
    let around = [1, 2, 3, 4, 6, 8, 12, 20].map(|quarters| {
        let number = present.saturating_mul(quarters).div_ceil(4);
        if quarters == 4 {
            present
        } else {
            round_up(number)
        }
    });
    let good = peaks.iter().filter(|peak| peak.kind != Kind::Attacker);
    let busiest = good.map(|peak| peak.count).max();
    let safe = busiest.map(|busiest| safe_from(busiest, asked.span));
    let numbers = around.into_iter().chain(advice.maxretry).chain(safe);
    let mut numbers: Vec<u32> = numbers.map(|n| n.clamp(1, MAXRETRY_MAX)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
        .into_iter()
        .map(|n| Candidate::of(n, peaks))
        .collect()
}

/// Which number to take.
pub(super) fn advise(asked: Asked<'_>, peaks: &[Peak]) -> Advice {
    let present = asked.maxretry;
    let cannot = |why: String| Advice {
        maxretry: None,
        why,
    };
    if let Some(lacks) = asked.lacks {
        return cannot(format!(
            "This jail needs {lacks}, which is not in --format, so nothing can be said."
        ));
    }
    if asked.span < WINDOWS_MIN * asked.findtime {
        return cannot(format!(
            "The log is too short: {} seconds, and findtime is {}; give it more logs.",
            asked.span, asked.findtime
        ));
    }
    if asked.clients < CLIENTS_MIN {
        return cannot(format!(
            "The log has too few clients: {}, and {CLIENTS_MIN} are the least that something can be said of; give it more logs.",
            asked.clients
        ));
    }
    if peaks.is_empty() {
        return cannot("Nothing in this log counts for this jail, so nothing can be said.".into());
    }
    let good = peaks.iter().filter(|peak| peak.kind != Kind::Attacker);
    let busiest = good.clone().map(|peak| peak.count).max().unwrap_or(0);
    let good = good.count();
    let attackers = peaks.len() - good;
    let safe = safe_from(busiest, asked.span);
    let floor = present.div_ceil(2).max(LEAST).min(present);
    // A number that is near is still no mistake, and to change it for a hit or two helps nobody.
    let is_near = u64::from(present) * 4 >= u64::from(busiest) * 5;
    let lowest = match safe.max(floor) {
        lowest if is_near => lowest.min(present),
        lowest => lowest,
    };
    let caught = |maxretry: u32| {
        let reach = |peak: &&Peak| peak.kind == Kind::Attacker && peak.count >= maxretry;
        peaks.iter().filter(reach).count()
    };
    let others = |maxretry: u32| {
        let many = peaks.iter().filter(|peak| peak.count >= maxretry).count() - caught(maxretry);
        match (many, good) {
            (_, 0) => "no one else comes into its count".to_owned(),
            (0, 1) => format!("not the one other client, which came to {busiest}"),
            (0, _) => format!("none of the {good} others, of whom the busiest came to {busiest}"),
            (many, _) => {
                format!("{many} of the {good} others, of whom the busiest came to {busiest}")
            }
        }
    };
    if lowest >= MAXRETRY_MAX {
        return cannot(format!(
            "Clients that are no attackers come to {busiest}: no maxretry stands well above that; leave out what they ask for (`not`)."
        ));
    }
    if present < lowest {
        let wrongly = Candidate::of(present, peaks).wrongly();
        let now = match wrongly {
            0 => format!(
                "{present} is near to what clients that are no attackers come to ({busiest})"
            ),
            1 => format!("{present} would have banned a client that is no attacker"),
            n => format!("{present} would have banned {n} clients that are no attackers"),
        };
        return Advice {
            maxretry: Some(lowest),
            why: format!(
                "{now}; {lowest} catches {} of the {attackers} attackers in its count ({present}: {}), and {}.",
                caught(lowest),
                caught(present),
                others(lowest)
            ),
        };
    }
    if caught(lowest) == 0 {
        let hits = peaks.iter().filter(|peak| peak.kind == Kind::Attacker);
        let nearest = match hits.map(|peak| peak.count).max() {
            None => "there is no attacker in its count".to_owned(),
            Some(count) => format!("no attacker came to more than {count}"),
        };
        return Advice {
            maxretry: Some(present),
            why: format!(
                "{present} keeps its distance: it would have banned {}; {nearest}, so nothing speaks for a lower one.",
                others(present)
            ),
        };
    }
    // Only counts at which somebody more is caught matter.
    let enough = (caught(lowest) * 19).div_ceil(20);
    let mut maxretry = present;
    if caught(present) < enough {
        let mut counts: Vec<u32> = peaks
            .iter()
            .filter(|peak| peak.kind == Kind::Attacker)
            .map(|peak| peak.count)
            .filter(|count| (lowest..present).contains(count))
            .collect();
        counts.sort_unstable();
        let best = counts.iter().rev().find(|count| caught(**count) >= enough);
        maxretry = best.copied().unwrap_or(lowest);
    }
    let by_present = match maxretry == present {
        true => String::new(),
        false => format!(" ({present}: {})", caught(present)),
    };
    Advice {
        maxretry: Some(maxretry),
        why: format!(
            "{maxretry} catches {} of the {attackers} attackers in its count{by_present}, and {}.",
            caught(maxretry),
            others(maxretry)
        ),
    }
}

/// The lowest number well above `busiest`.
fn safe_from(busiest: u32, span: f64) -> u32 {
    let wide = if span < DAY_SECS {
        busiest.saturating_mul(2)
    } else {
        busiest.saturating_mul(3).div_ceil(2)
    };
    round_up(wide.max(busiest + 1))
}

/// To a number that people write: up to 20 itself, then by fives, tens, and so on with two figures.
fn round_up(number: u32) -> u32 {
    let step = match number {
        0..=20 => 1,
        21..=100 => 5,
        101..=1000 => 10,
        1001..=10_000 => 100,
        _ => 1000,
    };
    number.div_ceil(step).saturating_mul(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peaks(of: &[(Kind, u32, usize)]) -> Vec<Peak> {
        let each =
            |&(kind, count, many): &(Kind, u32, usize)| std::iter::repeat_n((kind, count), many);
        of.iter()
            .flat_map(each)
            .enumerate()
            .map(|(number, (kind, count))| Peak {
                count,
                kind,
                is_like_a_person: kind == Kind::Authenticated,
                number,
            })
            .collect()
    }

    fn asked(maxretry: u32) -> Asked<'static> {
        Asked {
            maxretry,
            findtime: 300.0,
            span: 2.0 * DAY_SECS,
            clients: 1000,
            lacks: None,
        }
    }

    fn advised(maxretry: u32, of: &[(Kind, u32, usize)]) -> Option<u32> {
        advise(asked(maxretry), &peaks(of)).maxretry
    }

    use Kind::{Attacker, Authenticated, Ordinary, SearchEngine};

    #[test]
    fn the_present_number_stays_where_another_one_is_no_better() {
        assert_eq!(
            advised(15, &[(Ordinary, 3, 900), (Attacker, 400, 20)]),
            Some(15)
        );
        assert_eq!(advised(15, &[(Ordinary, 3, 900)]), Some(15));
        assert_eq!(advised(1, &[(Attacker, 4, 20)]), Some(1));
    }

    #[test]
    fn it_is_lowered_only_as_far_as_that_catches_more() {
        assert_eq!(
            advised(20, &[(Ordinary, 3, 900), (Attacker, 14, 20)]),
            Some(14)
        );
        assert_eq!(
            advised(
                20,
                &[(Ordinary, 3, 900), (Attacker, 11, 20), (Attacker, 8, 20)]
            ),
            Some(11)
        );
        assert_eq!(
            advised(20, &[(Ordinary, 3, 900), (Attacker, 8, 20)]),
            Some(20)
        );
    }

    #[test]
    fn it_is_raised_well_above_the_busiest_that_is_no_attacker() {
        for kind in [Ordinary, SearchEngine, Authenticated] {
            assert_eq!(
                advised(100, &[(kind, 90, 1), (Attacker, 999, 9)]),
                Some(140)
            );
        }
        let short = Asked {
            span: 3000.0,
            ..asked(100)
        };
        assert_eq!(
            advise(short, &peaks(&[(Ordinary, 90, 1)])).maxretry,
            Some(180)
        );
    }

    #[test]
    fn a_log_that_is_too_short_or_too_empty_says_nothing() {
        let some = peaks(&[(Ordinary, 3, 900)]);
        let says = |asked, peaks: &[Peak]| {
            let advice = advise(asked, peaks);
            assert_eq!(advice.maxretry, None);
            advice.why
        };
        assert!(
            says(
                Asked {
                    span: 599.0,
                    ..asked(5)
                },
                &some
            )
            .contains("too short: 599 seconds")
        );
        assert!(
            says(
                Asked {
                    clients: 49,
                    ..asked(5)
                },
                &some
            )
            .contains("too few clients: 49")
        );
        assert!(says(asked(5), &[]).contains("Nothing in this log counts"));
        let lacks = Asked {
            lacks: Some("user (%u)"),
            ..asked(5)
        };
        assert!(says(lacks, &some).contains("needs user (%u)"));
        assert!(says(asked(5), &peaks(&[(Ordinary, 99_000, 1)])).contains("no maxretry"));
    }

    #[test]
    fn a_candidate_bans_who_reaches_it() {
        let peaks = peaks(&[(Ordinary, 9, 5), (Authenticated, 10, 2), (Attacker, 99, 3)]);
        let candidate = Candidate::of(10, &peaks);
        assert_eq!(
            (candidate.banned, candidate.wrongly(), candidate.people),
            (5, 2, 2)
        );
        let advice = advise(asked(10), &peaks);
        let numbers: Vec<u32> = candidates(asked(10), &advice, &peaks)
            .iter()
            .map(|c| c.maxretry)
            .collect();
        assert_eq!(numbers, [3, 5, 8, 10, 15, 20, 30, 50]);
    }

    #[test]
    fn bins_end_with_powers_of_two_and_hold_everybody() {
        let bins = histogram(&peaks(&[
            (Ordinary, 1, 5),
            (Ordinary, 4, 2),
            (Attacker, 5, 3),
        ]));
        let shape: Vec<(u32, u32, usize, usize)> = bins
            .iter()
            .map(|bin| {
                (
                    bin.from,
                    bin.to,
                    bin.clients.ordinary,
                    bin.clients.attackers,
                )
            })
            .collect();
        assert_eq!(
            shape,
            [(1, 1, 5, 0), (2, 2, 0, 0), (3, 4, 2, 0), (5, 8, 0, 3)]
        );
        assert!(histogram(&[]).is_empty());
    }
}
