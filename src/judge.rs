//! From a framed line to a decision: parse, filter, exempt, count, decide, act, in this order and for everybody. `run`
//! gives it httpd's lines and its own clock, `replay` an old log and the log's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::act::{Act, ActError, Ban, Banned};
use crate::client::Client;
use crate::config::{Config, Jail};
use crate::count::{Bounds, Counter};
use crate::decide::{BanFor, Verdict, decide};
use crate::exempt::{Exempt, Spared, Target};
use crate::filter::Filter;
use crate::frame::{Framed, Trust};
use crate::hit::{Arrival, Hit, JailId};
use crate::parse::text::Escaped;
use crate::parse::{Access, Format, Misfit, error_log};

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
    hits: Vec<Hit>,
    /// Limits that the line at hand reached.
    reached: Vec<Reached>,
    tally: Tally,
}

/// A limit that a hit reached.
#[derive(Clone, Copy, Debug)]
struct Reached {
    hit: Hit,
    /// Cut to the jail's prefix.
    client: Client,
    count: u32,
    verdict: Verdict,
}

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

/// What one jail counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct JailTally {
    /// Lines that count.
    pub hits: u64,
    /// Bans.
    pub bans: u64,
    /// Limits reached that banned nobody.
    pub not_banned: u64,
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
        let filter = Filter::compile(&config.jails)?;
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
            hits: Vec::new(),
            reached: Vec::new(),
            tally,
        })
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

    /// Judges one line that arrived at `now`, and tells `each` of the limits it reaches.
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
                return Err(misfit);
            }
        }
        self.hits.clear();
        self.filter.hits(&access, &mut self.hits);
        self.count(&access, now, each);
        Ok(())
    }

    /// Counts the hits of one line, all of one client.
    fn count(&mut self, access: &Access<'_>, now: Arrival, each: &mut dyn FnMut(Decision<'_>)) {
        let Self {
            config,
            counter,
            tally,
            hits,
            reached,
            ..
        } = self;
        let jail_of = |hit: &Hit| config.jails.get(usize::from(hit.jail));
        let counted = |hit: &Hit| jail_of(hit).map(|jail| hit.client.counted(jail.ipv6_prefix));
        let mut hits = hits.iter().peekable();
        while let Some(client) = hits.peek().and_then(|hit| counted(hit)) {
            // The jails' prefixes are the same as a rule, and one visit serves them all.
            let mut visit = counter.visit(client, now);
            while let Some(hit) = hits.next_if(|hit| counted(hit) == Some(client)) {
                let Some(jail) = jail_of(hit) else { continue };
                let Some(counts) = tally.jails.get_mut(usize::from(hit.jail)) else {
                    continue;
                };
                counts.hits += 1;
                let count = visit.add(hit.jail, hit.weight, hit.distinct, jail.maxretry);
                match decide(jail, count) {
                    Verdict::Pass => {}
                    verdict @ (Verdict::Ban(_) | Verdict::Observe) => {
                        visit.forget(hit.jail);
                        reached.push(Reached {
                            hit: *hit,
                            client,
                            count,
                            verdict,
                        });
                    }
                }
            }
        }
        while let Some(reached) = self.reached.pop() {
            self.reached(reached, access, now, each);
        }
    }

    /// A limit was reached: who may be banned, is.
    fn reached(
        &mut self,
        Reached {
            hit,
            client,
            count,
            verdict,
        }: Reached,
        access: &Access<'_>,
        now: Arrival,
        each: &mut dyn FnMut(Decision<'_>),
    ) {
        let Self {
            config,
            exempt,
            tally,
            ..
        } = self;
        let Some(jail) = config.jails.get(usize::from(hit.jail)) else {
            return;
        };
        let Some(counts) = tally.jails.get_mut(usize::from(hit.jail)) else {
            return;
        };

        let who = Target::Client(client);
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
        if let Some(peer) = access.peer.filter(|peer| *peer != hit.client) {
            counts.not_banned += 1;
            return tell(Outcome::Proxied(peer));
        }
        if self.off.load(Ordering::Relaxed) {
            counts.not_banned += 1;
            return tell(Outcome::Off);
        }
        let reason = reason(jail, count, access);
        let ban = Ban {
            jail: hit.jail,
            who,
            ban_for,
            reason: &reason,
        };
        match self.act.ban(&ban, now.0) {
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
fn reason(jail: &Jail, count: u32, access: &Access<'_>) -> String {
    let evidence = if access.is_error {
        access.message
    } else {
        access.request
    };
    let last = Escaped {
        bytes: evidence,
        max: EVIDENCE_BYTES,
    };
    let text = format!("{count} hits in {:?}, last: {last}", jail.findtime);
    if access.status == 0 {
        text
    } else {
        format!("{text} {}", access.status)
    }
}
