//! What takes the whole host into view, and the process in charge does: jails that match nothing, sources gone quiet,
//! rules that somebody takes away. Pure: states of processes, the configuration and the clock are arguments.

use std::collections::BTreeMap;

use super::quiet::{Past, Quiet};
use super::{Says, spoken};
use crate::config::{Config, Jail, Origin};
use crate::judge::JailTally;
use crate::notify::state::State;

/// A filter that fits none of so many lines that name an address does not fit its log. sshd's knows each line about a
/// connection, so that a hundred would do; but a filter for rare requests must see many ordinary ones before that is
/// strange. Lines without an address (cron, sudo) say nothing.
const MISSED: u64 = 5_000;
/// The same of a jail by conditions. It does not name every line of its log as a filter does, and what it looks for may be
/// rare: a missing slash in `path` is found by the first thousand requests of a scanner, which a site has in this many.
const LINES: u64 = 100_000;
/// Rules that were put back are spoken of for so long, seconds.
const RULES_SECS: f64 = 600.0;

/// What was seen at earlier looks.
#[derive(Debug, Default)]
pub struct Host {
    /// By process: what it had counted.
    counted: BTreeMap<u32, Counted>,
    /// Lines that jails by conditions have judged, all processes together, since the first look.
    judged: u64,
    /// By jail: what it has matched since.
    matched: BTreeMap<String, u64>,
    /// By source.
    pasts: BTreeMap<String, Past>,
    /// How often rules were put back, at the last look.
    replaced: Option<u64>,
    /// And when that was last, and how often since it began.
    fought: Option<(f64, u64)>,
}

/// What a process had counted.
#[derive(Debug, Default)]
struct Counted {
    lines: u64,
    judged: u64,
    jails: BTreeMap<String, JailTally>,
}

impl Host {
    /// With what is known of sources from an earlier life.
    #[must_use]
    pub fn new(pasts: BTreeMap<String, Past>) -> Self {
        Self {
            pasts,
            ..Self::default()
        }
    }

    /// To be kept for the next life.
    #[must_use]
    pub fn pasts(&self) -> &BTreeMap<String, Past> {
        &self.pasts
    }

    /// Looks at all processes. `own`: the one in charge, which keeps the rules; it is not among `others`. `now`: seconds since
    /// the epoch; `floor`: [`super::quiet::FLOOR_SECS`].
    pub fn look(
        &mut self,
        own: &State,
        others: &[State],
        config: &Config,
        now: f64,
        floor: f64,
    ) -> Vec<Says> {
        let first = self.counted.is_empty();
        let mut came: BTreeMap<String, u64> = BTreeMap::new();
        let mut counted = BTreeMap::new();
        for state in others.iter().chain([own]) {
            let before = self.counted.remove(&state.pid);
            // What was counted before anybody looked is of no use, and what a new process counts is.
            let known = before.is_some() || !first;
            let before = before.unwrap_or_default();
            let new = |now: u64, before: u64| if known { now.saturating_sub(before) } else { 0 };
            let judged = state.lines.saturating_sub(state.unparsed + state.doubtful);
            self.judged += new(judged, before.judged);
            if let Some(source) = source(state) {
                *came.entry(source).or_default() += new(state.lines, before.lines);
            }
            for (name, tally) in &state.jails {
                let before = before.jails.get(name).copied().unwrap_or_default();
                *self.matched.entry(name.clone()).or_default() += new(tally.hits, before.hits);
                // Other logs are read by the process in charge only, which names the jails that do not stand back.
                if state.pid == own.pid && is_fed(config, name) {
                    came.insert(format!("jail {name}"), new(tally.lines, before.lines));
                }
            }
            let now = Counted {
                lines: state.lines,
                judged,
                jails: state.jails.clone(),
            };
            counted.insert(state.pid, now);
        }
        self.counted = counted;
        let native = config.native().iter();
        let mut says: Vec<Says> = native.filter_map(|jail| self.by_conditions(jail)).collect();
        let raw = config.jails.iter().filter(|jail| jail.raw.is_some());
        says.extend(raw.map(|jail| {
            let tally = own.jails.get(&jail.name).copied();
            by_expressions(jail, tally.unwrap_or_default().missed)
        }));
        says.extend(self.quiet(&came, config, now, floor));
        says.push(self.rules(own, now));
        says
    }

    fn by_conditions(&self, jail: &Jail) -> Option<Says> {
        // The shipped ones are tested; that they match nothing is good news.
        if jail.rare || crate::config::is_shipped(&jail.name) {
            return None;
        }
        let matched = self.matched.get(&jail.name).copied().unwrap_or(0);
        let none = matched == 0 && self.judged >= LINES;
        Some(Says {
            about: format!("jail {}", jail.name),
            wrong: none.then(|| {
                format!(
                    "it has matched none of {} lines. Take a line of the access log that should count: f2b-pipe explain 'LINE' shows \
                     which condition of {} does not hold. If there are no such lines, write rare = true there",
                    self.judged, jail.written
                )
            }),
        })
    }

    /// Sources by name, with the lines that came since the last look.
    fn quiet(
        &mut self,
        came: &BTreeMap<String, u64>,
        config: &Config,
        now: f64,
        floor: f64,
    ) -> Vec<Says> {
        // One that nobody reads any more is none, some day.
        self.pasts.retain(|_, past| !past.is_forgotten(now));
        let mut says = Vec::new();
        for (source, lines) in came {
            let past = self.pasts.entry(source.clone()).or_default();
            let quiet = past.look(*lines, now, floor);
            says.push(Says {
                about: match source.strip_prefix("jail ") {
                    Some(name) => format!("logs of jail {name}"),
                    None => source.clone(),
                },
                wrong: quiet.map(|quiet| gone_quiet(source, quiet, config)),
            });
        }
        says
    }

    fn rules(&mut self, own: &State, now: f64) -> Says {
        let replaced = own.act.replaced;
        let before = self.replaced.replace(replaced).unwrap_or(0);
        let more = replaced.saturating_sub(before);
        if more > 0 {
            let so_far = self.fought.map_or(0, |(_, times)| times);
            self.fought = Some((now, so_far + more));
        }
        self.fought = self
            .fought
            .filter(|(last, _)| (0.0..RULES_SECS).contains(&(now - last)));
        Says {
            about: "rules".into(),
            wrong: self.fought.map(|(_, times)| {
                let times = match times {
                    1 => "once".to_owned(),
                    n => format!("{n} times"),
                };
                format!(
                    "another program took them away or put its own first, {times} in the last minutes, and they were put back each \
                     time. Who does that: a firewall script, firewalld, `iptables -F`, `nft flush ruleset` (journalctl -S -15min)? \
                     Let it leave the chain f2b-pipe alone, or run it once at boot only"
                )
            }),
        }
    }
}

/// Does the jail read lines of logs?
fn is_fed(config: &Config, name: &str) -> bool {
    let jail = config.jails.iter().find(|jail| jail.name == name);
    let raw = jail.and_then(|jail| jail.raw.as_ref());
    raw.is_some_and(|raw| !raw.counts_bans)
}

/// A jail of other logs: lines with an address that its filter does not fit, before the first that it did.
fn by_expressions(jail: &Jail, missed: u64) -> Says {
    let where_from = logs(jail);
    let raw = jail.raw.as_ref();
    let filter = raw.and_then(|raw| raw.filter.as_deref());
    let log = where_from.split(' ').next().unwrap_or("LOG");
    Says {
        about: format!("jail {}", jail.name),
        wrong: (missed >= MISSED && !jail.rare).then(|| {
            let filter = filter.unwrap_or("REGEX");
            let own = raw.is_some_and(|raw| raw.origin == Origin::Own);
            let end = match own {
                true => "If all is as it should be, write rare = true in its section",
                false => "If there is nothing to be found, switch it off (enabled = false)",
            };
            format!(
                "its filter fits none of {missed} lines of {where_from} that name an address: f2b-pipe test {log} {filter} shows \
                 what it finds in them (another log, another format of dates, a filter for another version?). {end}"
            )
        }),
    }
}

/// What a jail reads, as configured.
fn logs(jail: &Jail) -> String {
    let Some(raw) = &jail.raw else {
        return "httpd".into();
    };
    let logs: Vec<&str> = raw.logs.iter().map(|log| log.glob.as_str()).collect();
    match logs.is_empty() || raw.backend == crate::config::LineSource::Journal {
        true => "the journal".into(),
        false => logs.join(" "),
    }
}

/// What httpd pipes into a process: an old process that drains beside a new one reads the same.
fn source(state: &State) -> Option<String> {
    match (&state.tee, state.format.as_str()) {
        (_, "watch") => None,
        (Some(tee), _) => Some(format!("httpd's lines (--tee {})", tee.display())),
        (None, format) => Some(format!("httpd's lines (--format {format})")),
    }
}

fn gone_quiet(source: &str, quiet: Quiet, config: &Config) -> String {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast of a float saturates"
    )]
    let secs = |secs: f64| spoken(secs.max(0.0) as u64);
    let told = format!(
        "no line for {}; in the {} before, the longest pause was {}",
        secs(quiet.silent),
        secs(quiet.known),
        secs(quiet.longest.max(1.0))
    );
    let jail = source.strip_prefix("jail ").and_then(|name| {
        let mut jails = config.jails.iter();
        jails.find(|jail| jail.name == name)
    });
    match jail {
        Some(jail) => format!(
            "{told}. Does its program still run, and still write to {}? A syslog daemon that stopped, a log that moved, a disk \
             that is full are usual (f2b-pipe check looks at each)",
            logs(jail)
        ),
        None => format!(
            "{told}. Does the server answer (curl -I http://localhost/), and does its CustomLog or GlobalLog line still name \
             f2b-pipe (f2b-pipe check)?"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let loaded = crate::config::from_text(std::path::Path::new("f2b-pipe.toml"), text);
        assert_eq!(loaded.errors().count(), 0, "{:?}", loaded.problems);
        loaded.config
    }

    fn run(pid: u32, lines: u64, hits: u64) -> State {
        let tally = JailTally {
            hits,
            ..JailTally::default()
        };
        State {
            pid,
            format: "combined".into(),
            lines,
            jails: BTreeMap::from([("wp".to_owned(), tally)]),
            ..State::default()
        }
    }

    fn wrong(says: Vec<Says>) -> Vec<(String, String)> {
        let wrong = says.into_iter();
        wrong
            .filter_map(|says| Some((says.about, says.wrong?)))
            .collect()
    }

    #[test]
    fn a_jail_that_matches_none_of_all_processes_lines_is_told_of_and_the_shipped_are_not() {
        let config =
            config("[jail.wp]\npath = '^wp-login'\n[jail.bait]\npath = '^/x'\nrare = true\n");
        let mut host = Host::default();
        let watch = State {
            format: "watch".into(),
            ..State::default()
        };
        let mut look = |runs: &[State]| wrong(host.look(&watch, runs, &config, 1e9, 600.0));
        // What was counted before does not count, that of a process begun since does.
        assert_eq!(look(&[run(1, 900_000, 0)]), []);
        assert_eq!(look(&[run(1, 950_000, 0)]), []);
        let told = look(&[run(1, 950_001, 0), run(2, 60_000, 0)]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].0, "jail wp");
        assert!(told[0].1.contains("none of 110001 lines"), "{told:?}");
        assert!(told[0].1.contains("f2b-pipe.toml:1"), "{told:?}");
        // One line of a later process ends it.
        assert_eq!(look(&[run(3, 10, 1)]), []);
        assert_eq!(look(&[run(4, 990_000, 0)]), []);
    }

    #[test]
    fn a_process_that_drains_beside_its_successor_is_no_quiet_source() {
        let config = config("");
        let mut host = Host::default();
        let own = State {
            format: "watch".into(),
            ..State::default()
        };
        let day = 86_400.0;
        let mut told = Vec::new();
        let mut now = day;
        while now < 4.0 * day {
            let old = run(1, if now < 2.0 * day { now as u64 } else { 100 }, 0);
            let new = run(2, if now < 3.9 * day { now as u64 } else { 50 }, 0);
            let says = host.look(&own, &[old, new], &config, now, 600.0);
            told.extend(wrong(says).into_iter().map(|(about, _)| (about, now)));
            now += 30.0;
        }
        let (about, at) = told.first().unwrap();
        assert_eq!(about, "httpd's lines (--format combined)");
        assert!(*at > 3.9 * day && *at < 3.92 * day, "{at}");
    }

    #[test]
    fn rules_that_were_put_back_are_spoken_of_for_ten_minutes() {
        let config = config("");
        let mut host = Host::default();
        let mut at = |now: f64, replaced| {
            let mut own = run(1, 0, 0);
            own.act.replaced = replaced;
            let says = wrong(host.look(&own, &[], &config, now, 600.0));
            says.into_iter().next().map(|(_, text)| text)
        };
        assert_eq!(at(1e9, 0), None);
        assert!(at(1e9 + 5.0, 2).unwrap().contains("2 times"));
        assert!(at(1e9 + 604.0, 2).is_some());
        assert_eq!(at(1e9 + 605.0, 2), None);
        assert!(at(1e9 + 999.0, 3).unwrap().contains("once"));
    }
}
