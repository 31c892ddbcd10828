//! From hits to a decision: exempt, count, decide, act, in this order and for everybody. `run` and `watch` give it hits of
//! httpd's lines and their own clock, `replay` those of an old log and the log's clock.

mod lately;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::act::{Act, ActError, Ban, Banned};
use crate::client::{Client, Prefix};
use crate::config::{Config, Jail, Mode};
use crate::control::events;
use crate::count::{Bounds, Counter, Place};
use crate::decide::{BanFor, Verdict, decide};
use crate::exempt::{Exempt, Spared, Target};
use crate::hit::{Arrival, Batch, Hit, JailId, Party};
use crate::notify::logfile;
use crate::parse::text::Escaped;
use crate::silence::still::{self, Still, Suspect};
use lately::Lately;

/// The rooms between [`Batch`] and notify.
#[derive(Debug)]
pub struct Judge {
    config: Arc<Config>,
    exempt: Exempt,
    counter: Counter,
    act: Act,
    off: Arc<AtomicBool>,
    /// Limits that the client at hand reached: by which hit, the count.
    reached: Vec<(Hit, u32, Verdict)>,
    /// What counting asks of each jail.
    briefs: Vec<Brief>,
    /// Whose windows the batch at hand needs.
    stays: Vec<Stay>,
    /// Where these are.
    places: Vec<Place>,
    /// Each hit is told to fail2ban's log.
    tells_hits: bool,
    /// Who is banned, to notice whoever still comes; `None`: nobody asks.
    still: Option<Still>,
    suspects: Vec<Suspect>,
    lately: Lately,
    tally: Tally,
}

/// What every hit asks of its jail: a jail itself takes many lines of cache.
#[derive(Clone, Copy, Debug)]
struct Brief {
    prefix: Prefix,
    maxretry: u32,
    idle: bool,
}

/// The hits of a line that share a window's owner; mostly that is all of them.
#[derive(Clone, Copy, Debug)]
struct Stay {
    /// Cut to the jails' prefix.
    client: Client,
    hits: usize,
    /// Which of the batch's parties.
    party: usize,
}

/// Most hits that are told of at a time: the largest maxretry.
const ATTEMPTS_MAX: u32 = 100_000;

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Limits reached by clients that are never banned.
    pub spared: u64,
    /// By jail.
    pub jails: Vec<JailTally>,
}

impl Tally {
    /// As jails are numbered from now on, of which there are `many`; of those that are gone nothing is left.
    #[must_use]
    pub fn renumbered(&self, to: &[Option<JailId>], many: usize) -> Self {
        let mut jails = vec![JailTally::default(); many];
        for (tally, new) in self.jails.iter().zip(to) {
            if let Some(place) = new.and_then(|new| jails.get_mut(usize::from(new))) {
                *place = *tally;
            }
        }
        Self {
            spared: self.spared,
            jails,
        }
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.spared += other.spared;
        self.jails.resize(
            self.jails.len().max(other.jails.len()),
            JailTally::default(),
        );
        for (sum, more) in self.jails.iter_mut().zip(&other.jails) {
            sum.hits += more.hits;
            sum.bans += more.bans;
            sum.not_banned += more.not_banned;
        }
    }
}

/// What one jail counted; `status --json` shows it so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JailTally {
    /// Lines that count.
    pub hits: u64,
    /// Bans.
    pub bans: u64,
    /// Limits reached that banned nobody: mode observe, switched off, behind a proxy, no rights.
    pub not_banned: u64,
    /// Of a jail that judges other logs: lines it was shown.
    pub lines: u64,
    /// Of these, lines that name an address and that its expressions do not fit; 0 from the first line on that they do.
    pub missed: u64,
}

/// A limit was reached.
#[derive(Debug)]
pub struct Decision<'a> {
    /// Its number.
    pub id: JailId,
    /// Whose limit.
    pub jail: &'a Jail,
    /// Whom it is about.
    pub who: Target,
    /// Hits within findtime.
    pub hits: u32,
    /// And what came of it.
    pub outcome: Outcome<'a>,
}

/// What came of a limit that was reached.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// Banned from now on. `new_set`: the chain should be looked at.
    Banned {
        /// How long.
        ban_for: BanFor,
        /// The set was not there before.
        new_set: bool,
    },
    /// The ban that stands lasts longer.
    Prolonged(BanFor),
    /// The jail only observes.
    Observed,
    /// Never banned.
    Spared(Spared),
    /// Comes through this proxy: a packet filter sees only the proxy.
    Proxied(Client),
    /// `f2b-pipe off`.
    Off,
    /// Could not be banned.
    Failed(&'a ActError),
}

impl Judge {
    /// With empty windows.
    #[must_use]
    pub fn new(config: Arc<Config>, exempt: Exempt, act: Act, off: Arc<AtomicBool>) -> Self {
        let counter = Counter::new(findtimes(&config), Bounds::default());
        let tally = Tally {
            jails: vec![JailTally::default(); config.jails.len()],
            ..Tally::default()
        };
        Self {
            briefs: briefs(&config),
            config,
            exempt,
            counter,
            act,
            off,
            reached: Vec::new(),
            stays: Vec::new(),
            places: Vec::new(),
            tells_hits: false,
            still: None,
            suspects: Vec::new(),
            lately: Lately::default(),
            tally,
        }
    }

    /// Another configuration from now on. What was counted stays, by the names of jails.
    pub fn renew(&mut self, config: Arc<Config>, exempt: Exempt, act: Act) {
        let to = renumbered(&self.config, &config);
        self.counter.renew(&to, findtimes(&config));
        self.tally = self.tally.renumbered(&to, config.jails.len());
        self.briefs = briefs(&config);
        (self.config, self.exempt, self.act) = (config, exempt, act);
        self.lately.forget();
    }

    /// Hits are told to fail2ban's log, if one is written.
    pub fn tell_hits(&mut self) {
        self.tells_hits = logfile::is_on();
    }

    /// From now on it is noticed who is banned and still comes ([`take_suspects`](Self::take_suspects)).
    pub fn notice_who_still_comes(&mut self) {
        self.still = Some(Still::new(still::ON_ITS_WAY_MS));
    }

    /// Those who are banned and still came, since this was asked last.
    pub fn take_suspects(&mut self) -> impl Iterator<Item = Suspect> {
        self.suspects.drain(..)
    }

    /// What was counted so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The table of clients.
    #[must_use]
    pub fn counter(&self) -> &Counter {
        &self.counter
    }

    /// The hand that bans.
    pub fn act(&mut self) -> &mut Act {
        &mut self.act
    }

    /// Counts hits that somebody tells of.
    pub fn attempt(
        &mut self,
        (jail, who): (&str, Client),
        times: u32,
        now: Arrival,
        each: &mut dyn FnMut(Decision<'_>),
    ) {
        let names = self.config.native().iter().map(|jail| &jail.name);
        let Some((id, _)) = (0..).zip(names).find(|(_, name)| *name == jail) else {
            return;
        };
        let distinct = |n| {
            let jail = self.config.jails.get(usize::from(id))?;
            jail.rule.distinct.as_ref().map(|_| u64::from(n))
        };
        let hits = (0..times.min(ATTEMPTS_MAX)).map(|n| Hit {
            jail: id,
            weight: 1,
            distinct: distinct(n),
        });
        let hits: Vec<Hit> = hits.collect();
        // Who tells of them may have lifted the ban just before.
        self.lately.forget();
        let party = Party {
            client: who,
            hits: hits.len(),
            proxy: None,
            evidence: b"by hand",
            status: 0,
        };
        let mut batch = Batch {
            hits,
            parties: vec![party],
        };
        self.judge(&mut batch, now, each);
    }

    /// Counts hits of lines that arrived at `now`, in their order, and tells `each` of the limits they reach. Nothing is
    /// left in the batch.
    pub fn judge(
        &mut self,
        batch: &mut Batch<'_>,
        now: Arrival,
        each: &mut dyn FnMut(Decision<'_>),
    ) {
        let mut stays = std::mem::take(&mut self.stays);
        let mut places = std::mem::take(&mut self.places);
        let mut left = batch.hits.as_slice();
        for (at, party) in batch.parties.iter().enumerate() {
            let Some((hits, after)) = left.split_at_checked(party.hits) else {
                break;
            };
            left = after;
            let mut last: Option<&mut Stay> = None;
            for hit in hits {
                let brief = self.briefs.get(usize::from(hit.jail));
                let client =
                    brief.map_or(party.client, |jail| party.client.counted_by(jail.prefix));
                match &mut last {
                    Some(stay) if stay.client == client => stay.hits += 1,
                    _ => {
                        self.counter.call(client);
                        stays.push(Stay {
                            client,
                            hits: 1,
                            party: at,
                        });
                        last = stays.last_mut();
                    }
                }
            }
        }
        places.extend(
            stays
                .iter()
                .map(|stay| self.counter.place(stay.client, now)),
        );
        let told = self.tells_hits || events::wanted();
        let mut left = batch.hits.as_slice();
        for (stay, place) in stays.iter().zip(&places) {
            let (Some((hits, after)), Some(party)) = (
                left.split_at_checked(stay.hits),
                batch.parties.get(stay.party),
            ) else {
                break;
            };
            left = after;
            if let Some(still) = &mut self.still {
                self.suspects.extend(still.seen(stay.client, now));
            }
            let mut visit = self.counter.visit(*place);
            for hit in hits {
                let id = usize::from(hit.jail);
                let (Some(brief), Some(counts)) =
                    (self.briefs.get(id), self.tally.jails.get_mut(id))
                else {
                    continue;
                };
                if brief.idle {
                    continue;
                }
                counts.hits += 1;
                if told && let Some(jail) = self.config.jails.get(id) {
                    events::hit(&jail.name, &party.client);
                    if self.tells_hits && jail.mode == Mode::Ban {
                        let who = Target::Client(stay.client);
                        match self.exempt.check(who, Some(hit.jail)) {
                            Ok(_) => logfile::found(&jail.name, &party.client, None),
                            Err(spared) => {
                                logfile::ignored(&jail.name, &party.client, logfile::by(&spared));
                            }
                        }
                    }
                }
                let count = visit.add(hit.jail, hit.weight, hit.distinct, brief.maxretry);
                if count < brief.maxretry {
                    continue;
                }
                let Some(jail) = self.config.jails.get(id) else {
                    continue;
                };
                match decide(jail, count) {
                    Verdict::Pass => {}
                    verdict @ (Verdict::Ban(_) | Verdict::Observe) => {
                        visit.forget(hit.jail);
                        self.reached.push((*hit, count, verdict));
                    }
                }
            }
            if !self.reached.is_empty() {
                let who = Target::Client(stay.client);
                for (hit, count, verdict) in std::mem::take(&mut self.reached) {
                    self.reached(hit, (who, party), count, verdict, now, each);
                }
            }
        }
        stays.clear();
        places.clear();
        (self.stays, self.places) = (stays, places);
        batch.clear();
        self.counter.settle();
    }

    /// A limit was reached: who may be banned, is.
    fn reached(
        &mut self,
        hit: Hit,
        (who, party): (Target, &Party<'_>),
        count: u32,
        verdict: Verdict,
        now: Arrival,
        each: &mut dyn FnMut(Decision<'_>),
    ) {
        let Self {
            config,
            exempt,
            tally,
            still,
            lately,
            ..
        } = self;
        let id = usize::from(hit.jail);
        let (Some(jail), Some(counts)) = (config.jails.get(id), tally.jails.get_mut(id)) else {
            return;
        };

        // Only now: whom nobody would ban needs no protection, and most lines end above.
        let mut tell = |outcome| {
            each(Decision {
                id: hit.jail,
                jail,
                who,
                hits: count,
                outcome,
            })
        };
        let ban_for = match verdict {
            Verdict::Pass => return,
            Verdict::Observe => {
                counts.not_banned += 1;
                return tell(Outcome::Observed);
            }
            Verdict::Ban(ban_for) => ban_for,
        };
        let who = match exempt.check(who, Some(hit.jail)) {
            Ok(bannable) => bannable,
            Err(spared) => {
                tally.spared += 1;
                return tell(Outcome::Spared(spared));
            }
        };
        if let Some(peer) = party.proxy {
            counts.not_banned += 1;
            return tell(Outcome::Proxied(peer));
        }
        if self.off.load(Ordering::Relaxed) {
            counts.not_banned += 1;
            return tell(Outcome::Off);
        }
        let client = match who.target() {
            Target::Client(client) => Some(client),
            Target::Net(_) => None,
        };
        if client.is_some_and(|client| lately.knows(hit.jail, client, now)) {
            return;
        }
        let reason = reason(jail, count, party);
        let ban = Ban {
            jail: hit.jail,
            who,
            ban_for,
            reason: &reason,
        };
        let done = self.act.ban(&ban, now.0);
        if let (Some(client), Ok(Banned::New | Banned::NewSet | Banned::Already)) = (client, &done)
        {
            lately.told(hit.jail, client, now);
            if let Some(still) = still {
                still.banned(hit.jail, client, now, ban_for);
            }
        }
        match done {
            Ok(banned @ (Banned::New | Banned::NewSet)) => {
                counts.bans += 1;
                tell(Outcome::Banned {
                    ban_for,
                    new_set: banned == Banned::NewSet,
                });
            }
            Ok(Banned::Already) => match self.act.prolong(&ban, now.0) {
                Ok(()) => tell(Outcome::Prolonged(ban_for)),
                Err(error) => tell(Outcome::Failed(&error)),
            },
            Err(error) => {
                counts.not_banned += 1;
                tell(Outcome::Failed(&error));
            }
        }
    }
}

/// By jail.
fn briefs(config: &Config) -> Vec<Brief> {
    let brief = |jail: &Jail| Brief {
        prefix: Prefix::new(jail.ipv6_prefix),
        maxretry: jail.maxretry,
        idle: jail.idle,
    };
    config.jails.iter().map(brief).collect()
}

/// By jail, milliseconds.
fn findtimes(config: &Config) -> Vec<u32> {
    let millis = |jail: &Jail| u32::try_from(jail.findtime.as_millis()).unwrap_or(u32::MAX);
    config.jails.iter().map(millis).collect()
}

/// The new number of each jail of `old` in `new`, by name; `None`: it is gone.
pub fn renumbered(old: &Config, new: &Config) -> Vec<Option<JailId>> {
    let numbers: std::collections::HashMap<&str, JailId> = new
        .jails
        .iter()
        .zip(0..)
        .map(|(jail, number)| (jail.name.as_str(), number))
        .collect();
    let old = old.jails.iter();
    old.map(|jail| numbers.get(jail.name.as_str()).copied())
        .collect()
}

/// What of the client's text stands in the reason, bytes; the kernel keeps 255 in all.
const EVIDENCE_BYTES: usize = 100;

/// `100 hits in 1s, last: GET /page 200`.
fn reason(jail: &Jail, count: u32, party: &Party<'_>) -> String {
    let last = Escaped {
        bytes: party.evidence,
        max: EVIDENCE_BYTES,
    };
    let mut text = format!("{count} hits in {:?}, last: {last}", jail.findtime);
    if party.status != 0 {
        // Writing to a String cannot fail.
        write!(text, " {}", party.status).unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Backend;

    /// Who reaches a limit at once, and the shipped jails.
    fn judge() -> (Judge, JailId) {
        let mut config =
            crate::config::load_with(std::path::Path::new("/nonexistent"), None).config;
        config.firewall.backend = Backend::DryRun;
        let names = config.native().iter().map(|jail| jail.name.as_str());
        let jail = (0..)
            .zip(names)
            .find(|(_, name)| *name == "apache-exploit-agent");
        let jail = jail.map(|(id, _)| id).unwrap();
        let act = Act::new(&config);
        let exempt = Exempt::of_config_only(&config);
        let mut judge = Judge::new(Arc::new(config), exempt, act, Arc::default());
        judge.notice_who_still_comes();
        (judge, jail)
    }

    fn line(judge: &mut Judge, jail: JailId, who: &str, at: u64) -> Vec<String> {
        let party = Party {
            client: Client::new(who.parse().unwrap()),
            hits: 1,
            proxy: None,
            evidence: b"GET / HTTP/1.1",
            status: 200,
        };
        let hit = Hit {
            jail,
            weight: 1,
            distinct: None,
        };
        let mut batch = Batch {
            hits: vec![hit],
            parties: vec![party],
        };
        let mut told = Vec::new();
        judge.judge(&mut batch, Arrival(at), &mut |decision| {
            told.push(match decision.outcome {
                Outcome::Banned { .. } => "banned".to_owned(),
                Outcome::Prolonged(_) => "prolonged".to_owned(),
                Outcome::Observed
                | Outcome::Spared(_)
                | Outcome::Proxied(_)
                | Outcome::Off
                | Outcome::Failed(_) => "else".to_owned(),
            });
        });
        told
    }

    #[test]
    fn a_limit_that_is_reached_again_and_again_asks_the_kernel_now_and_then() {
        let (mut judge, jail) = judge();
        let who = "192.0.2.7";
        assert_eq!(line(&mut judge, jail, who, 5_000), ["banned"]);
        assert_eq!(line(&mut judge, jail, who, 5_000), [""; 0]);
        assert_eq!(line(&mut judge, jail, who, 5_499), [""; 0]);
        assert_eq!(line(&mut judge, jail, "192.0.2.8", 5_499), ["banned"]);
        assert_eq!(line(&mut judge, jail, who, 5_500), ["prolonged"]);
        assert_eq!(line(&mut judge, jail, who, 5_550), [""; 0]);
    }

    #[test]
    fn who_is_banned_by_his_prefix_and_still_comes_is_noticed() {
        for who in ["192.0.2.7", "2001:db8::7"] {
            let (mut judge, jail) = judge();
            for at in [0, 10_000, 10_001, 10_002, 10_003] {
                line(&mut judge, jail, who, at);
            }
            assert_eq!(judge.take_suspects().count(), 1, "{who}");
        }
    }
}
