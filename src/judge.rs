//! From a framed line to a decision: parse, filter, exempt, count, decide, act, in this order and for everybody. `run`
//! gives it httpd's lines and its own clock, `replay` an old log and the log's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::act::{Act, ActError, Ban, Banned};
use crate::client::Client;
use crate::config::{Config, Jail, Mode};
use crate::count::{Bounds, Counter, Place};
use crate::decide::{BanFor, Verdict, decide};
use crate::exempt::{Exempt, Spared, Target};
use crate::filter::Filter;
use crate::frame::{Framed, Trust};
use crate::hit::{Arrival, Hit, JailId};
use crate::notify::logfile;
use crate::parse::text::Escaped;
use crate::parse::{Access, Format, Misfit, error_log};
use crate::silence::still::{self, Still, Suspect};

/// How lines are read.
#[derive(Clone, Debug)]
pub enum Reader {
    /// Access lines.
    Access(Format),
    /// httpd's error log.
    ErrorLog,
}

/// A doubtful line longer than this may be a piece of two, even with equal tokens at its ends (PIPE_BUF, pipe(7)).
const ATOMIC_BYTES: usize = 4096;

impl Reader {
    /// Reads a line into an `access` that is empty, as far as it can be believed; `Ok(false)`: not at all.
    ///
    /// # Errors
    /// The line is not of the format.
    #[inline]
    pub fn read<'a>(
        &self,
        framed: Framed<'a>,
        trust: Trust,
        access: &mut Access<'a>,
    ) -> Result<bool, Misfit> {
        match (self, framed, trust) {
            (Self::Access(format), Framed::Line(line), Trust::Whole) => format.read(line, access),
            // With its newline; what is not longer than PIPE_BUF was written in one piece.
            (Self::Access(format), Framed::Line(line), Trust::Doubtful)
                if format.is_sealed() && line.len() < ATOMIC_BYTES =>
            {
                format.read(line, access)
            }
            (_, _, Trust::Doubtful) => return Ok(false),
            (Self::Access(format), Framed::Head(head), Trust::Whole) => {
                format.read_head(head, access)
            }
            (Self::ErrorLog, Framed::Line(line) | Framed::Head(line), Trust::Whole) => {
                error_log::read(line, access)
            }
        }
        .map(|()| true)
    }
}

/// The rooms between frame and notify.
#[derive(Debug)]
pub struct Judge {
    config: Arc<Config>,
    reader: Reader,
    filter: Filter,
    exempt: Exempt,
    counter: Counter,
    act: Act,
    off: Arc<AtomicBool>,
    /// Limits that the client at hand reached: by which hit, the count.
    reached: Vec<(Hit, u32, Verdict)>,
    misfit: Option<(Misfit, String)>,
    /// Host names stand where addresses should: nothing is judged any more.
    names: bool,
    /// Each hit is told to fail2ban's log.
    tells_hits: bool,
    /// Who is banned, to notice whoever still comes; `None`: nobody asks.
    still: Option<Still>,
    suspects: Vec<Suspect>,
    tally: Tally,
}

/// Hits on their way to the count, in their order.
#[derive(Debug, Default)]
struct Batch<'l> {
    hits: Vec<Hit>,
    /// Whose they are: the first `hits` are the first one's, and so on.
    parties: Vec<Party<'l>>,
}

/// Whom some hits of a line count for, and what is told of the line if one of them is the one too many.
#[derive(Clone, Copy, Debug)]
struct Party<'l> {
    /// Cut to the jail's prefix.
    client: Client,
    /// Where its windows are; known when the batch is counted.
    place: Option<Place>,
    hits: usize,
    /// Who is at the other end of the connection, if that is another.
    proxy: Option<Client>,
    evidence: &'l [u8],
    status: u16,
}

/// Hits that are counted together, so that their clients can be fetched from memory side by side and not one after the
/// other: that wait is the largest part of a line's way (with 50,000 clients: a third).
const BATCH: usize = 64;
/// So few clients there is nothing beside which to fetch.
const ALONE: usize = 2;
/// What of a line that does not fit is shown, bytes.
const MISFIT_BYTES: usize = 200;

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Lines.
    pub lines: u64,
    /// Of these, lines that do not fit the format.
    pub unparsed: u64,
    /// Lines not judged because the pipe may have been full.
    pub doubtful: u64,
    /// Limits reached by clients that are never banned.
    pub spared: u64,
    /// By jail.
    pub jails: Vec<JailTally>,
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
    /// Compiles the jails of `config` for lines that `reader` reads.
    ///
    /// # Errors
    /// The patterns of all jails together are too large.
    pub fn new(
        config: Arc<Config>,
        reader: Reader,
        exempt: Exempt,
        act: Act,
        off: Arc<AtomicBool>,
    ) -> Result<Self, regex::Error> {
        let filter = Filter::compile(config.native())?;
        let findtimes = config
            .jails
            .iter()
            .map(|jail| u32::try_from(jail.findtime.as_millis()).unwrap_or(u32::MAX));
        let counter = Counter::new(findtimes.collect(), Bounds::default());
        let tally = Tally {
            jails: vec![JailTally::default(); config.jails.len()],
            ..Tally::default()
        };
        Ok(Self {
            config,
            reader,
            filter,
            exempt,
            counter,
            act,
            off,
            reached: Vec::new(),
            misfit: None,
            names: false,
            tells_hits: false,
            still: None,
            suspects: Vec::new(),
            tally,
        })
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

    /// Judges lines that arrived at `now`, and tells `each` of the limits they reach.
    pub fn lines<'l>(
        &mut self,
        lines: impl Iterator<Item = Framed<'l>>,
        trust: Trust,
        now: Arrival,
        each: &mut dyn FnMut(Decision<'_>),
    ) {
        let mut batch = Batch::default();
        for framed in lines {
            if let (Err(misfit), true) =
                (self.read(framed, trust, &mut batch), self.misfit.is_none())
            {
                let line = Escaped {
                    bytes: framed.bytes(),
                    max: MISFIT_BYTES,
                };
                self.misfit = Some((misfit, line.to_string()));
            }
            if batch.hits.len() >= BATCH {
                self.count(&mut batch, now, each);
            }
        }
        self.count(&mut batch, now, each);
    }

    /// Judges one line.
    ///
    /// # Errors
    /// The line does not fit the format (it is counted, too).
    pub fn line(
        &mut self,
        framed: Framed<'_>,
        trust: Trust,
        now: Arrival,
        each: &mut dyn FnMut(Decision<'_>),
    ) -> Result<(), Misfit> {
        let mut batch = Batch::default();
        self.read(framed, trust, &mut batch)?;
        self.count(&mut batch, now, each);
        Ok(())
    }

    /// The first line that did not fit the format, escaped, and where.
    #[must_use]
    pub fn first_misfit(&self) -> Option<&(Misfit, String)> {
        self.misfit.as_ref()
    }

    /// Do host names stand where addresses should (HostnameLookups)? Then nothing is judged.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.names
    }

    /// Parse and filter.
    fn read<'l>(
        &mut self,
        framed: Framed<'l>,
        trust: Trust,
        batch: &mut Batch<'l>,
    ) -> Result<(), Misfit> {
        self.tally.lines += 1;
        let mut access = Access::default();
        match self.reader.read(framed, trust, &mut access) {
            Ok(true) => {}
            Ok(false) => {
                self.tally.doubtful += 1;
                return Ok(());
            }
            Err(misfit) => {
                self.tally.unparsed += 1;
                if let (Reader::Access(format), false) = (&self.reader, self.names) {
                    self.names = trust == Trust::Whole && format.has_name(framed.bytes(), misfit);
                }
                return Err(misfit);
            }
        }
        if self.names {
            self.tally.doubtful += 1;
            return Ok(());
        }
        let known = batch.hits.len();
        self.filter.hits(&access, &mut batch.hits);
        let mut last: Option<&mut Party<'_>> = None;
        for hit in batch.hits.iter().skip(known) {
            let jail = self.config.jails.get(usize::from(hit.jail));
            let client = jail.map_or(hit.client, |jail| hit.client.counted(jail.ipv6_prefix));
            // A line's hits are mostly one client's.
            match &mut last {
                Some(party) if party.client == client => party.hits += 1,
                _ => {
                    batch.parties.push(Party {
                        client,
                        place: None,
                        hits: 1,
                        proxy: access.peer.filter(|peer| *peer != hit.client),
                        evidence: if access.is_error {
                            access.message
                        } else {
                            access.request
                        },
                        status: access.status,
                    });
                    last = batch.parties.last_mut();
                }
            }
        }
        Ok(())
    }

    /// Counts hits, in their order.
    fn count(&mut self, batch: &mut Batch<'_>, now: Arrival, each: &mut dyn FnMut(Decision<'_>)) {
        let Batch { hits, parties } = batch;
        for party in parties.iter_mut() {
            party.place = Some(self.counter.place(party.client, now));
        }
        if parties.len() > ALONE {
            self.counter
                .fetch(parties.iter().filter_map(|party| party.place));
        }
        let mut left = hits.as_slice();
        for party in parties.iter() {
            let (Some((hits, after)), Some(place)) =
                (left.split_at_checked(party.hits), party.place)
            else {
                break;
            };
            left = after;
            if let Some(still) = &mut self.still {
                self.suspects.extend(still.seen(party.client, now));
            }
            let mut visit = self.counter.visit(place);
            for hit in hits {
                let id = usize::from(hit.jail);
                let (Some(jail), Some(counts)) =
                    (self.config.jails.get(id), self.tally.jails.get_mut(id))
                else {
                    continue;
                };
                counts.hits += 1;
                if self.tells_hits && jail.mode == Mode::Ban {
                    let who = Target::Client(party.client);
                    match self.exempt.check(who, Some(hit.jail)) {
                        Ok(_) => logfile::found(&jail.name, &hit.client, None),
                        Err(spared) => {
                            logfile::ignored(&jail.name, &hit.client, logfile::by(&spared));
                        }
                    }
                }
                let count = visit.add(hit.jail, hit.weight, hit.distinct, jail.maxretry);
                match decide(jail, count) {
                    Verdict::Pass => {}
                    verdict @ (Verdict::Ban(_) | Verdict::Observe) => {
                        visit.forget(hit.jail);
                        self.reached.push((*hit, count, verdict));
                    }
                }
            }
            if !self.reached.is_empty() {
                for (hit, count, verdict) in std::mem::take(&mut self.reached) {
                    self.reached(hit, party, count, verdict, now, each);
                }
            }
        }
        hits.clear();
        parties.clear();
        self.counter.settle();
    }

    /// A limit was reached: who may be banned, is.
    fn reached(
        &mut self,
        hit: Hit,
        party: &Party<'_>,
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
            ..
        } = self;
        let id = usize::from(hit.jail);
        let (Some(jail), Some(counts)) = (config.jails.get(id), tally.jails.get_mut(id)) else {
            return;
        };

        let who = Target::Client(party.client);
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
        let reason = reason(jail, count, party);
        let ban = Ban {
            jail: hit.jail,
            who,
            ban_for,
            reason: &reason,
        };
        let done = self.act.ban(&ban, now.0);
        if let (Some(still), Ok(Banned::New | Banned::NewSet | Banned::Already)) = (still, &done) {
            still.banned(hit.jail, party.client, now, ban_for);
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

/// What of the client's text stands in the reason, bytes; the kernel keeps 255 in all.
const EVIDENCE_BYTES: usize = 100;

/// `100 hits in 1s, last: GET /page 200`.
fn reason(jail: &Jail, count: u32, party: &Party<'_>) -> String {
    let last = Escaped {
        bytes: party.evidence,
        max: EVIDENCE_BYTES,
    };
    let text = format!("{count} hits in {:?}, last: {last}", jail.findtime);
    if party.status == 0 {
        text
    } else {
        format!("{text} {}", party.status)
    }
}
