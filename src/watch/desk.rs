//! What becomes of a failure: is he spared, is it a ban, and who carries that out and is told.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::exchange::{Exchange, Told};
use super::jail::Jail;
use super::slow::Ready;
use crate::act::command::{Pool, Settings, Spec, Ticket};
use crate::act::keeper::{BanEvent, Hand};
use crate::act::records::Noted;
use crate::act::{self, Act, Ban as ActBan, Banned};
use crate::bans::{self, Ban, Decision, History, HistoryBounds, Terms, What};
use crate::config::{Backend, Config, Mode};
use crate::control::events;
use crate::decide::BanFor;
use crate::exempt::{Bannable, Exempt, Target};
use crate::failregex::Failure;
use crate::hit::{Arrival, JailId};
use crate::judge::renumbered;
use crate::key::Key;
use crate::ledger::{Ledger, Past};
use crate::notify::measure;
use crate::notify::{self, logfile};
use crate::parse::text::Escaped;
use crate::privilege::Actions;
use crate::silence;
use crate::silence::still::{self, Still};

/// What is shown of a line in a set's comment, bytes.
const EVIDENCE_BYTES: usize = 100;

/// How long logs wait for the disk when bans were imported.
const PATIENCE: Duration = Duration::from_secs(3);

/// A ban that is to be in force again.
type Again = (JailId, Bannable, BanFor);

/// Everybody who has a part in a ban.
pub(super) struct Desk {
    config: Arc<Config>,
    exempt: Exempt,
    act: Act,
    keeper: Hand,
    off: Arc<AtomicBool>,
    history: History,
    ledger: Option<Ledger>,
    /// Runs the commands of actions, once there are any; not where a helper process does.
    pool: Option<Pool>,
    /// Bans of other processes, and ours to them.
    exchange: Exchange,
    /// This is the process that reads logs and runs actions.
    in_charge: bool,
    /// Something was decided since that was asked.
    decided: bool,
    /// Who is told what is wrong.
    silence: Option<silence::Hand>,
    /// Who is banned, to notice whoever still comes.
    still: Still,
    /// When the lines at hand were read.
    pub(super) arrived: Instant,
}

impl Desk {
    pub(super) fn new(
        config: Arc<Config>,
        exempt: Exempt,
        keeper: Hand,
        silence: Option<silence::Hand>,
        off: Arc<AtomicBool>,
        exchange: Exchange,
    ) -> Self {
        Self {
            act: Act::new(&config),
            config,
            exempt,
            keeper,
            off,
            history: History::new(HistoryBounds::default()),
            ledger: None,
            pool: None,
            exchange,
            in_charge: false,
            decided: false,
            silence,
            still: Still::new(still::WRITTEN_LATE_MS),
            arrived: Instant::now(),
        }
    }

    /// Another configuration from now on; jails that are gone, or are to ban nobody any more, let everybody go.
    pub(super) fn renew(&mut self, config: &Arc<Config>, exempt: Exempt) {
        self.history.renumber(&renumbered(&self.config, config));
        self.act = Act::new(config);
        (self.config, self.exempt) = (Arc::clone(config), exempt);
    }

    /// A jail ends: everybody is let go, and its actions end.
    pub(super) fn close(&mut self, jail: Jail, now: f64) {
        let name = jail.name().to_owned();
        logfile::jail_stopped(&name);
        let mut jails = [jail];
        self.lift(&mut jails, None, None, now);
        let [jail] = jails;
        if let Some(actions) = jail.actions {
            actions.stop(Vec::new());
        }
    }

    /// The actions of a jail that was configured anew.
    pub(super) fn renew_actions(&mut self, jail: &mut Jail) {
        let specs = specs(jail);
        match &mut jail.actions {
            Some(actions) => {
                let held = jail.held.values().cloned().collect();
                for error in actions.reload(specs, held) {
                    log::error!("{error}");
                }
            }
            None if self.in_charge => self.start_actions(jail),
            None => {}
        }
    }

    /// Does this process hold the lock?
    pub(super) fn owns(&self) -> bool {
        self.keeper.health().owner || self.config.firewall.backend == Backend::DryRun
    }

    /// What only the process in charge may do begins.
    pub(super) fn takes_charge(&self) {
        self.keeper.in_use(true);
    }

    pub(super) fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// Was something decided since this was asked last?
    pub(super) fn take_decided(&mut self) -> bool {
        std::mem::take(&mut self.decided)
    }

    /// Readable when other processes have told of bans.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.exchange.inbox().map(AsFd::as_fd)
    }

    /// Takes over what was remembered, starts the actions of jails, and counts bans from now on.
    pub(super) fn remember(&mut self, jails: &mut [Jail], past: Option<(Ledger, Past)>, now: f64) {
        self.in_charge = true;
        if self.config.firewall.backend != Backend::DryRun
            && let Err(error) = self.exchange.open()
        {
            log::error!(
                "bans by other processes do not count for recidive, and unbans by hand do not outlive a restart: {error}"
            );
        }
        for jail in jails.iter_mut() {
            self.start_actions(jail);
        }
        let Some((ledger, past)) = past else { return };
        let (bans, noted) = self.native(&past, &ledger, now);
        self.keeper.remembers(ledger.pen(), noted);
        self.ledger = Some(ledger);
        self.restore(jails, past, bans, now);
    }

    /// Bans of jails of httpd's lines and by hand that are remembered and have not ended: to be put in force, and for the
    /// keeper, who sees to what the ledger knows of them.
    fn native(&self, past: &Past, ledger: &Ledger, now: f64) -> (Vec<Again>, Noted) {
        let (mut bans, mut noted) = (Vec::new(), Noted::new());
        let native: HashMap<&str, (JailId, &crate::config::Jail)> = act::jails(&self.config)
            .filter(|(_, jail)| jail.raw.is_none())
            .map(|(id, jail)| (jail.name.as_str(), (id, jail)))
            .collect();
        for (name, remembered) in &past.bans {
            let Some(&(id, jail)) = native.get(name.as_str()) else {
                continue;
            };
            let (key, until) = (&remembered.key, remembered.standing.end());
            match self.again(id, key, until, now) {
                Some(ban) => {
                    let (_, who) = act::place_of(ban.1.target(), jail.ipv6_prefix);
                    noted.entry(name.clone()).or_default().insert(who, until);
                    bans.push(ban);
                }
                None => {
                    // It ended while nobody was here to note that, or he is spared now.
                    let (key, what) = (key.clone(), What::Unban { at: now });
                    ledger.decided(name, &Decision { key, what }, now);
                }
            }
        }
        (bans, noted)
    }

    /// A ban with what is left of it; `None`: nothing, or he is spared.
    fn again(&self, id: JailId, key: &Key, until: Option<f64>, now: f64) -> Option<Again> {
        let left = match until {
            None => BanFor::Forever,
            Some(until) => BanFor::of_secs(until - now).filter(|_| until > now)?,
        };
        // The jail for bans by hand is none of those whose number `exempt` knows.
        let known = Some(id).filter(|id| usize::from(*id) < self.config.jails.len());
        let bannable = self.exempt.check(key.target()?, known).ok()?;
        Some((id, bannable, left))
    }

    /// Puts in force what was remembered, and goes on counting from there.
    /// The kernel gets all that it has not, with `bans`, at one stroke: after a reboot that may be a hundred thousand.
    fn restore(&mut self, jails: &mut [Jail], past: Past, mut bans: Vec<Again>, now: f64) {
        let at: HashMap<String, usize> = jails
            .iter()
            .enumerate()
            .map(|(at, jail)| (jail.name().to_owned(), at))
            .collect();
        for (name, key, bad) in past.bad {
            if let Some(jail) = at.get(&name).and_then(|at| jails.get(*at)) {
                self.history.put(&key, jail.id, bad);
            }
        }
        let mut decided = Vec::new();
        for (name, remembered) in past.bans {
            let Some(at) = at.get(&name) else { continue };
            let Some(jail) = jails.get_mut(*at) else {
                continue;
            };
            let (key, mut decisions) = (remembered.key.clone(), Vec::new());
            let mut sink = |decision| decisions.push(decision);
            if !jail.warden.restore(remembered, now, &mut sink)
                && let Some(ledger) = &self.ledger
            {
                // It ended while nobody was here to note that.
                let what = What::Unban { at: now };
                ledger.decided(&name, &Decision { key, what }, now);
            }
            if jail.bans() && jail.raw().is_some_and(|raw| raw.in_kernel) {
                for decision in &decisions {
                    if let What::Ban(ban) = &decision.what {
                        bans.extend(self.again(jail.id, &decision.key, ban.until(), now));
                    }
                }
            }
            decided.push((*at, decisions));
        }
        if !self.off.load(Ordering::Relaxed) {
            match self.act.restore(bans) {
                Ok(0) => {}
                Ok(many) => log::info!("{many} bans from before the restart are in force again"),
                Err(error) => self.keeper.failed(&error),
            }
        }
        for (at, decisions) in decided {
            self.carry_out(jails, at, decisions, None, now);
        }
    }

    fn start_actions(&mut self, jail: &mut Jail) {
        let actions = specs(jail);
        if actions.is_empty()
            || jail.actions.is_some()
            || self.config.firewall.backend == Backend::DryRun
        {
            return;
        }
        let started = Actions::start(jail.name(), actions, &mut self.pool, &Settings::default());
        let Ok((started, errors)) = started.inspect_err(|error| {
            log::error!("cannot start threads for the actions of jails: {error}; none of them run")
        }) else {
            return;
        };
        for error in errors {
            log::error!("{error}");
        }
        jail.actions = Some(started);
    }

    /// Failures that the jails at `owners` found in a line.
    pub(super) fn failed(&mut self, jails: &mut [Jail], owners: &[usize], now: f64) {
        for at in owners {
            let Some(jail) = jails.get_mut(*at) else {
                continue;
            };
            if jail.pending.is_empty() {
                continue;
            }
            for failure in std::mem::take(&mut jail.pending) {
                let when = failure.time.unwrap_or(now);
                self.consider(jails, *at, failure, when, now);
            }
        }
    }

    /// A failure that had to wait.
    pub(super) fn ready(&mut self, jails: &mut [Jail], ready: Ready, now: f64) {
        let Ready {
            jail: name,
            failure,
            when,
        } = ready;
        let at = jails.iter().position(|jail| jail.name() == &*name);
        if let Some((at, jail)) = at.and_then(|at| Some((at, jails.get(at)?)))
            && self.spared(jail, &failure).is_none()
        {
            self.count(jails, at, &failure, when, now);
        }
    }

    /// A jail of httpd's lines has banned `key`.
    pub(super) fn banned(&mut self, jails: &mut [Jail], by: JailId, key: &Key, now: f64) {
        let config = Arc::clone(&self.config);
        if let Some(by) = config.jails.get(usize::from(by)) {
            self.count_ban(jails, &by.name, key, now);
        }
    }

    /// What other processes tell.
    pub(super) fn hear(&mut self, jails: &mut [Jail], now: f64) {
        for told in self.exchange.read() {
            match told {
                Told::Ban { jail, key } => {
                    events::ban(&jail, &key);
                    self.count_here(jails, &jail, &key, now);
                }
                Told::Unban { jail, key } => {
                    self.lift(jails, jail.as_deref(), key.as_ref(), now);
                    // Those of other jails are the keeper's to notice.
                    self.keeper.lifted();
                }
                Told::Remembered => {
                    let Some(ledger) = &self.ledger else { continue };
                    match ledger.look(PATIENCE) {
                        Some(past) => self.restore(jails, past, Vec::new(), now),
                        None => log::error!(
                            "bans that were imported cannot be read from the ledger; they are in force after a restart"
                        ),
                    }
                }
            }
        }
    }

    /// Somebody is to be banned, whatever he did; whether he was not before.
    pub(super) fn ban_by_hand(
        &mut self,
        jails: &mut [Jail],
        at: usize,
        key: Key,
        ban_for: Option<BanFor>,
        now: f64,
    ) -> bool {
        let Some(jail) = jails.get_mut(at) else {
            return false;
        };
        let prefix = jail.conf().map_or(128, |jail| jail.ipv6_prefix);
        let key = key.counted(prefix);
        let terms = jail.warden.terms().clone();
        if let Some(ban_for) = ban_for {
            let bantime = match ban_for {
                BanFor::Forever => None,
                BanFor::Timed(secs) => Some(f64::from(secs.get())),
            };
            jail.warden.set_terms(Terms {
                bantime,
                increment: None,
                ..terms.clone()
            });
        }
        let mut decisions = Vec::new();
        let mut sink = |decision| decisions.push(decision);
        jail.warden.ban(&key, now, &mut self.history, &mut sink);
        jail.warden.set_terms(terms);
        let new = decisions
            .iter()
            .any(|decision| matches!(decision.what, What::Ban(_)));
        self.carry_out(jails, at, decisions, None, now);
        new
    }

    /// Failures that somebody tells of.
    pub(super) fn attempt(
        &mut self,
        jails: &mut [Jail],
        at: usize,
        key: &Key,
        lines: &[String],
        now: f64,
    ) {
        let Some(jail) = jails.get_mut(at) else {
            return;
        };
        let prefix = jail.conf().map_or(128, |jail| jail.ipv6_prefix);
        let key = key.clone().counted(prefix);
        let text = lines.join("\n");
        let times = u32::try_from(lines.len().max(1)).unwrap_or(u32::MAX);
        // One, however much it counts for: as fail2ban's total.
        jail.tally.hits += 1;
        let failure = bans::Failure {
            key: &key,
            at: now,
            line: Some(text.as_str()).filter(|text| !text.is_empty()),
        };
        let mut decisions = Vec::new();
        let mut sink = |decision| decisions.push(decision);
        jail.warden
            .attempt(&failure, times, now, &mut self.history, &mut sink);
        self.carry_out(jails, at, decisions, None, now);
    }

    /// Ends bans: in all jails, of all, where nothing else is said. How many there were.
    pub(super) fn lift(
        &mut self,
        jails: &mut [Jail],
        only: Option<&str>,
        key: Option<&Key>,
        now: f64,
    ) -> usize {
        let mut lifted = 0;
        for at in 0..jails.len() {
            let wanted = |jail: &&mut Jail| only.is_none_or(|only| only == jail.name());
            let Some(jail) = jails.get_mut(at).filter(wanted) else {
                continue;
            };
            let prefix = jail.conf().map_or(128, |jail| jail.ipv6_prefix);
            let keys: Vec<Key> = match key {
                Some(key) => vec![key.clone().counted(prefix)],
                None => jail
                    .warden
                    .all_banned()
                    .map(|(key, _)| key.clone())
                    .collect(),
            };
            let mut decisions = Vec::new();
            for key in keys {
                let mut sink = |decision| decisions.push(decision);
                if jail.warden.unban(&key, now, &mut self.history, &mut sink) {
                    lifted += 1;
                    // He may have been put back since.
                    if let (Some(who), true) =
                        (key.target(), jail.raw().is_some_and(|raw| raw.in_kernel))
                        && let Err(error) = self.act.unban(jail.id, who, millis(now))
                    {
                        self.keeper.failed(&error);
                    }
                    if let Some(ledger) = &self.ledger {
                        ledger.forget(jail.name(), &key, now);
                    }
                }
            }
            self.carry_out(jails, at, decisions, None, now);
        }
        lifted
    }

    /// Some jail has banned `key`: those that count bans do, in the process that reads logs if there is one.
    fn count_ban(&mut self, jails: &mut [Jail], by: &str, key: &Key, now: f64) {
        let told = Told::Ban {
            jail: by.to_owned(),
            key: key.clone(),
        };
        if self.exchange.inbox().is_some() || !self.exchange.send(&told) {
            self.count_here(jails, by, key, now);
        }
    }

    fn count_here(&mut self, jails: &mut [Jail], by: &str, key: &Key, now: f64) {
        let counting: Vec<usize> = counted(jails).collect();
        for at in counting {
            if jails.get(at).is_some_and(|jail| jail.name() != by) {
                let failure = Failure::of(&key.to_string(), now, format!("banned by {by}"));
                self.consider(jails, at, failure, now, now);
            }
        }
    }

    fn consider(&mut self, jails: &mut [Jail], at: usize, failure: Failure, when: f64, now: f64) {
        let Some(jail) = jails.get_mut(at) else {
            return;
        };
        if !failure.unresolved
            && let Some(why) = self.spared(jail, &failure)
        {
            log::debug!("spared client={} jail={}: {why}", failure.id, jail.name());
            if jail.bans() {
                logfile::ignored(jail.name(), &failure.id, logfile::by(&why));
            }
            return;
        }
        if let Some(slow) = &mut jail.slow
            && slow.wants(&failure)
        {
            let ticket = ticket(&failure, when);
            if !slow.ask(failure, ticket, when) {
                jail.not_asked(true, now);
            }
            return;
        }
        self.count(jails, at, &failure, when, now);
    }

    /// Why the one who failed is never banned.
    fn spared(&self, jail: &Jail, failure: &Failure) -> Option<crate::exempt::Spared> {
        let who = key(jail, &failure.id).target()?;
        self.exempt.check(who, Some(jail.id)).err()
    }

    fn count(&mut self, jails: &mut [Jail], at: usize, failure: &Failure, when: f64, now: f64) {
        let Some(jail) = jails.get_mut(at) else {
            return;
        };
        jail.tally.hits += 1;
        events::hit(jail.name(), &failure.id);
        if jail.bans() {
            // A date in the future is counted at the clock, too.
            logfile::found(jail.name(), &failure.id, Some(when.min(now)));
        }
        let key = key(jail, &failure.id);
        if let (Some(silence), Key::Client(client)) = (&self.silence, &key)
            && let Some(suspect) = self.still.seen(*client, Arrival(millis(now)))
        {
            silence.suspect(suspect);
        }
        let lines = failure.matches.join("\n");
        let failed = bans::Failure {
            key: &key,
            at: when,
            line: Some(&lines),
        };
        let mut decisions = Vec::new();
        let weighed = jail
            .warden
            .failure(&failed, now, &mut self.history, &mut |decision| {
                decisions.push(decision)
            });
        if let Some(weighed) = weighed.filter(|_| jail.bans()) {
            logfile::found_bad(jail.name(), &failure.id, when.min(now), &weighed);
        }
        self.carry_out(jails, at, decisions, Some(failure), now);
    }

    /// Ends of bans.
    pub(super) fn advance(&mut self, jails: &mut [Jail], at: usize, now: f64) {
        let Some(jail) = jails.get_mut(at) else {
            return;
        };
        jail.not_asked(false, now);
        let mut decisions = Vec::new();
        jail.warden
            .advance(now, &mut |decision| decisions.push(decision));
        self.carry_out(jails, at, decisions, None, now);
    }

    fn carry_out(
        &mut self,
        jails: &mut [Jail],
        at: usize,
        decisions: Vec<Decision>,
        failure: Option<&Failure>,
        now: f64,
    ) {
        for decision in decisions {
            let Some(jail) = jails.get_mut(at) else {
                return;
            };
            let banned = self.decided(jail, &decision, failure, now);
            self.decided = true;
            if banned {
                let by = jail.name().to_owned();
                self.count_ban(jails, &by, &decision.key, now);
            }
        }
    }

    /// Carries a decision out; true: this process was the one to ban somebody who was not.
    fn decided(
        &mut self,
        jail: &mut Jail,
        decision: &Decision,
        failure: Option<&Failure>,
        now: f64,
    ) -> bool {
        let Some(conf) = jail.conf() else {
            return false;
        };
        if conf.mode == Mode::Observe {
            if let What::Ban(ban) = &decision.what {
                jail.tally.not_banned += 1;
                notify::observed(jail.name(), &decision.key);
                log::info!(
                    "would ban client={} jail={} hits={} (mode observe)",
                    decision.key,
                    jail.name(),
                    ban.count
                );
            }
            return false;
        }
        match &decision.what {
            What::Ban(ban) => {
                let banned = self.ban(jail, &decision.key, ban, failure, now);
                if let (Some(_), Some(ledger)) = (banned, &self.ledger) {
                    ledger.decided(jail.name(), decision, now);
                }
                return banned == Some(New::Here) && !ban.restored;
            }
            What::Prolong { standing, count } => {
                let until = standing.end();
                logfile::already_banned(jail.name(), &decision.key, now - standing.start);
                let last = failure.and_then(|failure| failure.matches.last());
                let reason = reason(jail, *count, last.map_or("", String::as_str));
                // What it cannot do was told.
                self.put(jail, &decision.key, until, &reason, now, true);
                if let (Some(actions), Some(ticket)) =
                    (&jail.actions, jail.held.get_mut(&decision.key))
                {
                    ticket.ban_time = until.map_or(-1, |until| whole(until - ticket.time));
                    actions.prolong(ticket.clone());
                }
            }
            What::Unban { .. } => {
                let ticket = jail.held.remove(&decision.key);
                if let (Some(actions), Some(ticket)) = (&jail.actions, ticket) {
                    actions.unban(ticket);
                }
                // The kernel ends its own bans, and the keeper tells of it.
                if !jail.raw().is_some_and(|raw| raw.in_kernel) {
                    notify::unban(jail.name(), &decision.key);
                }
            }
        }
        if let Some(ledger) = &self.ledger {
            ledger.decided(jail.name(), decision, now);
        }
        false
    }

    /// `None`: nobody is banned, and why was told.
    fn ban(
        &mut self,
        jail: &mut Jail,
        key: &Key,
        ban: &Ban,
        failure: Option<&Failure>,
        now: f64,
    ) -> Option<New> {
        if self.off.load(Ordering::Relaxed) {
            jail.tally.not_banned += 1;
            log::info!(
                "not banned client={key} jail={}: switched off (f2b-pipe reload switches on)",
                jail.name()
            );
            return None;
        }
        let reason = match ban.lines.last() {
            Some(last) => reason(jail, ban.count, last),
            None => "restored".to_owned(),
        };
        let new = self.put(jail, key, ban.until(), &reason, now, false)?;
        jail.tally.bans += 1;
        // Of one that stands in the kernel already another process has told: a log can come to it by a pipe, and to us as
        // a file.
        if !ban.restored && new == New::Here {
            let lasts = ban.until().map_or("ever".to_owned(), |until| {
                format!("{}s", whole(until - now))
            });
            notify::ban(jail.name(), key);
            log::info!(
                "ban client={key} jail={} hits={} for={lasts}",
                jail.name(),
                ban.count
            );
            let terms = jail.warden.terms();
            if terms.increment.is_some() && ban.standing.bantime != terms.bantime {
                let lasts = ban.standing.bantime;
                if let Some(before) = ban.before {
                    let lengths = (terms.bantime, lasts);
                    logfile::is_bad(
                        jail.name(),
                        key,
                        ban.bans.saturating_sub(1),
                        before,
                        lengths,
                    );
                }
                logfile::increased(jail.name(), key, ban.bans, lasts, ban.until());
            }
        } else if ban.restored {
            logfile::restored(jail.name(), key);
        }
        if let Some(actions) = &jail.actions {
            let ticket = Ticket {
                id: key.to_string(),
                ip: failure.map_or_else(|| key.to_string(), |failure| failure.id.clone()),
                failures: u64::from(ban.failures.max(ban.count)),
                time: ban.standing.start,
                ban_time: ban.standing.bantime.map_or(-1, whole),
                ban_count: u64::from(ban.bans.saturating_sub(1)),
                matches: ban.lines.iter().map(ToString::to_string).collect(),
                restored: ban.restored,
                captures: failure.map(captures).unwrap_or_default(),
                ..Ticket::default()
            };
            actions.ban(ticket.clone());
            jail.held.insert(
                key.clone(),
                Ticket {
                    matches: Vec::new(),
                    ..ticket
                },
            );
        }
        Some(new)
    }

    /// Puts a ban into the kernel, if the jail's bans are there; `None`: it could not be, and was told.
    fn put(
        &mut self,
        jail: &mut Jail,
        key: &Key,
        until: Option<f64>,
        reason: &str,
        now: f64,
        prolong: bool,
    ) -> Option<New> {
        let Some(who) = jail
            .raw()
            .filter(|raw| raw.in_kernel)
            .and_then(|_| key.target())
        else {
            return Some(match self.in_charge {
                true => New::Here,
                false => New::Elsewhere,
            });
        };
        let bannable = match self.exempt.check(who, Some(jail.id)) {
            Ok(bannable) => bannable,
            Err(spared) => {
                log::info!("spared client={key} jail={}: {spared}", jail.name());
                return None;
            }
        };
        let ban_for = match until {
            None => BanFor::Forever,
            Some(until) => BanFor::of_secs(until - now)?,
        };
        let ban = ActBan {
            jail: jail.id,
            who: bannable,
            ban_for,
            reason,
        };
        let ms = millis(now);
        let done = match prolong {
            true => self.act.prolong(&ban, ms).map(|()| Banned::Already),
            false => self.act.ban(&ban, ms),
        };
        match done {
            Ok(banned) => {
                if !prolong {
                    measure::banned(self.arrived);
                }
                if let (Target::Client(client), true) =
                    (who, self.config.firewall.backend != Backend::DryRun)
                {
                    self.still.banned(jail.id, client, Arrival(ms), ban_for);
                }
                self.keeper.banned(BanEvent {
                    jail: jail.id,
                    who,
                    ban_for,
                    banned,
                });
                Some(match banned {
                    Banned::Already => New::Elsewhere,
                    Banned::New | Banned::NewSet => New::Here,
                })
            }
            Err(error) => {
                jail.tally.not_banned += 1;
                self.keeper.failed(&error);
                None
            }
        }
    }

    /// The end of the process: bans stay in the kernel, actions are told.
    pub(super) fn end(self, jails: Vec<Jail>, patience: Duration) {
        for jail in jails {
            let held = jail.held.into_values().collect();
            if let Some(actions) = jail.actions {
                actions.stop(held);
            }
        }
        if let Some(ledger) = self.ledger
            && !ledger.close(patience)
        {
            log::warn!("the ledger was not written to its end in time");
        }
        let left = Actions::finish(self.pool, patience);
        log::debug!("{left} orders of actions are left");
    }
}

/// `3 failures in 600s, last: ...`, as `ipset -L` shows it.
fn reason(jail: &Jail, count: u32, last: &str) -> String {
    let last = Escaped {
        bytes: last.as_bytes(),
        max: EVIDENCE_BYTES,
    };
    let findtime = Duration::try_from_secs_f64(jail.findtime()).unwrap_or_default();
    let what = match jail.raw().is_some_and(|raw| raw.counts_bans) {
        true => "bans",
        false => "failures",
    };
    format!("{count} {what} in {findtime:?}, last: {last}")
}

/// Who banned him.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum New {
    /// This process.
    Here,
    /// He was in the kernel's set already; or it is for the process in charge to do.
    Elsewhere,
}

/// The jails that count bans.
fn counted(jails: &[Jail]) -> impl Iterator<Item = usize> {
    let counts = |jail: &Jail| jail.raw().is_some_and(|raw| raw.counts_bans);
    let counting = jails
        .iter()
        .enumerate()
        .filter(move |(_, jail)| counts(jail));
    counting.map(|(at, _)| at)
}

/// Whom a failure is counted for.
fn key(jail: &Jail, id: &str) -> Key {
    Key::parse(id).counted(jail.conf().map_or(128, |jail| jail.ipv6_prefix))
}

fn captures(failure: &Failure) -> std::collections::BTreeMap<String, String> {
    failure
        .groups
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

/// What `ignorecommand` may ask about.
fn ticket(failure: &Failure, when: f64) -> Ticket {
    Ticket {
        id: failure.id.clone(),
        ip: failure.id.clone(),
        failures: 1,
        time: when,
        matches: failure.matches.clone(),
        captures: captures(failure),
        ..Ticket::default()
    }
}

/// The actions of a jail.
fn specs(jail: &Jail) -> Vec<Spec> {
    let actions = jail.raw().into_iter().flat_map(|raw| raw.run());
    actions
        .map(|action| Spec::of(jail.name(), action))
        .collect()
}

/// Milliseconds since the epoch.
fn millis(seconds: f64) -> u64 {
    whole(seconds * 1000.0).unsigned_abs()
}

/// Whole seconds.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a cast of a float saturates, and no time is near that"
)]
fn whole(seconds: f64) -> i64 {
    seconds.ceil() as i64
}
