//! The line as jails see it that judge by expressions, fail2ban's among them.

use std::io::{self, Write};
use std::time::Duration;

use chrono::Utc;
use serde::Serialize;

use super::{escaped, mode_word, seconds};
use crate::cli::test::stop::{Stop, shown};
use crate::config::{Config, Jail};
use crate::exempt::Exempt;
use crate::failregex::{Clock, Failure, Matcher, Phase, Seen, Stamp};
use crate::hit::JailId;
use crate::key::Key;
use crate::source::tail::Encoding;

/// Jails under whose verdict the line is cited: those whose expressions got furthest.
const CITED: usize = 5;

/// The expressions of all such jails. What they remember of a connection is there for the next line.
pub(super) struct Expressions(Vec<Judge>);

struct Judge {
    id: JailId,
    encoding: Encoding,
    /// Or why it does not run.
    matcher: Result<Matcher, String>,
}

/// What one jail says.
#[derive(Serialize)]
pub(super) struct OtherShown {
    name: String,
    mode: &'static str,
    pub(super) counts: bool,
    id: Option<String>,
    host: Option<String>,
    time: Option<f64>,
    regex: Option<usize>,
    why_not: Option<String>,
    stops: Option<Stop>,
    spared: Option<String>,
    maxretry: u32,
    findtime: f64,
    bantime: i64,
    /// The failure is a name's, whose addresses count: for people.
    #[serde(skip)]
    is_name: bool,
}

impl Expressions {
    pub(super) fn new(config: &Config) -> Self {
        let judges = (0..).zip(&config.jails).filter_map(|(id, jail)| {
            let raw = jail.raw.as_ref().filter(|raw| !raw.counts_bans)?;
            Some(Judge {
                id,
                encoding: raw.text_encoding(),
                matcher: Matcher::new(&raw.rules).map_err(|error| error.to_string()),
            })
        });
        Self(judges.collect())
    }

    /// Each jail's view of a line.
    pub(super) fn explain(
        &mut self,
        line: &[u8],
        config: &Config,
        exempt: &Exempt,
    ) -> Vec<OtherShown> {
        let mut shown = Vec::new();
        for judge in &mut self.0 {
            if let Some(jail) = config.jails.get(usize::from(judge.id)) {
                shown.push(judge.explain(line, jail, exempt));
            }
        }
        shown
    }
}

impl Judge {
    fn explain(&mut self, line: &[u8], jail: &Jail, exempt: &Exempt) -> OtherShown {
        let mut other = OtherShown {
            name: jail.name.clone(),
            mode: mode_word(jail.mode),
            counts: false,
            id: None,
            host: None,
            time: None,
            regex: None,
            why_not: None,
            stops: None,
            spared: None,
            maxretry: jail.maxretry,
            findtime: jail.findtime.as_secs_f64(),
            bantime: seconds(jail.bantime),
            is_name: false,
        };
        let matcher = match &mut self.matcher {
            Ok(matcher) => matcher,
            Err(error) => {
                other.why_not = Some(format!("it cannot run: {error}"));
                return other;
            }
        };
        let mut scratch = String::new();
        let text = self.encoding.line(line, &mut scratch);
        #[allow(
            clippy::cast_precision_loss,
            reason = "milliseconds of this age are exact"
        )]
        let now = Utc::now().timestamp_millis() as f64 / 1000.0;
        let clock = Clock { now, today: now };
        let mut failures = Vec::new();
        let seen = matcher.line(text, Stamp::InText, Phase::Timeless, clock, &mut failures);
        let failure = failures.iter().find(|failure| !failure.is_nofail());
        match (seen, failure) {
            (Seen::Failed, Some(failure)) => other.found(failure, self.id, jail, exempt),
            (Seen::Failed, None) => {
                other.why_not = Some("what is found is no failure by itself".to_owned());
            }
            (Seen::Noted(regex), _) => {
                other.regex = Some(regex + 1);
                other.why_not = Some(format!(
                    "failregex {} fits, but is no failure by itself: it counts with other lines of its connection",
                    regex + 1
                ));
            }
            (Seen::Ignored(regex), _) => {
                other.why_not = Some(format!("ignoreregex {} fits: no failure", regex + 1));
            }
            (Seen::Dropped, _) => {
                other.why_not = Some("its date is one that cannot be".to_owned());
            }
            (Seen::Missed, _) => {
                let too_hard = matcher.take_too_hard();
                other.stops = Stop::of(matcher);
                other.why_not = match (too_hard, &other.stops) {
                    (Some(pattern), _) => Some(format!("this takes too long on it: {pattern}")),
                    (None, Some(stop)) => Some(stop.why()),
                    (None, None) => Some("it has no failregex".to_owned()),
                };
            }
        }
        other
    }
}

impl OtherShown {
    fn found(&mut self, failure: &Failure, id: JailId, jail: &Jail, exempt: &Exempt) {
        self.counts = true;
        self.id = Some(failure.id.clone());
        self.host = Some(failure.host.clone());
        self.time = failure.time;
        self.regex = Some(failure.regex + 1);
        self.is_name = failure.unresolved;
        let who = Key::parse(&failure.id).counted(jail.ipv6_prefix);
        if let Some(target) = who.target().filter(|_| !failure.unresolved) {
            let spared = exempt.check(target, Some(id)).err();
            self.spared = spared.map(|spared| spared.to_string());
        }
    }

    fn show(&self, is_cited: bool, out: &mut dyn Write) -> io::Result<()> {
        let name = &self.name;
        if let (true, Some(regex), Some(who)) = (self.counts, self.regex, &self.id) {
            let who = shown(who);
            let who = match self.is_name {
                true => format!("each address of {who}"),
                false => who,
            };
            let ban = match self.bantime {
                -1 => "for ever".to_owned(),
                secs => format!("for {secs}s"),
            };
            let are = match (self.mode, self.maxretry) {
                ("observe", _) => "would be",
                (_, 1) => "is",
                _ => "are",
            };
            let spared = match &self.spared {
                Some(reason) => format!(", but never of {who}: {reason}"),
                None => String::new(),
            };
            return writeln!(
                out,
                "  {name:<20}  counts 1 for {who} by failregex {regex}; {} within {:?} {are} a ban {ban}{spared}",
                self.maxretry,
                Duration::from_secs_f64(self.findtime)
            );
        }
        let why_not = self.why_not.as_deref().unwrap_or_default();
        writeln!(out, "  {name:<20}  no: {}", escaped(why_not.as_bytes()))?;
        for line in self
            .stops
            .iter()
            .filter(|_| is_cited)
            .flat_map(|stop| stop.cited().lines().map(str::to_owned).collect::<Vec<_>>())
        {
            writeln!(out, "  {:<20}  {line}", "")?;
        }
        Ok(())
    }
}

/// For people.
pub(super) fn show(others: &[OtherShown], out: &mut dyn Write) -> io::Result<()> {
    if others.is_empty() {
        return Ok(());
    }
    writeln!(out, "others")?;
    let mut reached: Vec<(usize, usize)> = others
        .iter()
        .enumerate()
        .filter_map(|(at, other)| Some((other.stops.as_ref()?.column, at)))
        .collect();
    reached.sort_by_key(|(column, at)| (std::cmp::Reverse(*column), *at));
    reached.truncate(CITED);
    for (at, other) in others.iter().enumerate() {
        let is_cited = reached.iter().any(|(_, cited)| *cited == at);
        other.show(is_cited, out)?;
    }
    Ok(())
}
