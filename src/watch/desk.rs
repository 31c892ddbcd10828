//! What becomes of a failure: is he spared, is it a ban, and who carries that out and is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::jail::Jail;
use super::slow::Ready;
use crate::act::command::{Pool, Settings, Spec, Ticket};
use crate::act::keeper::{BanEvent, Hand};
use crate::act::{Act, Ban as ActBan, Banned};
use crate::bans::{self, Ban, Decision, History, HistoryBounds, What};
use crate::client::Client;
use crate::config::{Backend, Config, Mode};
use crate::decide::BanFor;
use crate::exempt::{Exempt, Target};
use crate::fail2ban::Action;
use crate::failregex::Failure;
use crate::hit::JailId;
use crate::key::Key;
use crate::ledger::{Ledger, Past};
use crate::notify;
use crate::parse::text::Escaped;

/// What is shown of a line in a set's comment, bytes.
const EVIDENCE_BYTES: usize = 100;

/// Everybody who has a part in a ban.
pub(super) struct Desk {
    config: Arc<Config>,
    exempt: Exempt,
    act: Act,
    keeper: Hand,
    off: Arc<AtomicBool>,
    history: History,
    ledger: Option<Ledger>,
    /// Runs the commands of actions, once there are any.
    pool: Option<Pool>,
}

impl Desk {
    pub(super) fn new(
        config: Arc<Config>,
        exempt: Exempt,
        keeper: Hand,
        off: Arc<AtomicBool>,
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
        }
    }

    /// Does this process hold the lock?
    pub(super) fn owns(&self) -> bool {
        self.keeper.health().owner || self.config.firewall.backend == Backend::DryRun
    }

    pub(super) fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// Takes over what was remembered, and starts the actions of jails.
    pub(super) fn remember(&mut self, jails: &mut [Jail], past: Option<(Ledger, Past)>, now: f64) {
        for jail in jails.iter_mut() {
            self.start_actions(jail);
        }
        let Some((ledger, past)) = past else { return };
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
        for (name, remembered) in past.bans {
            let Some(at) = at.get(&name) else { continue };
            let Some(jail) = jails.get_mut(*at) else {
                continue;
            };
            let (key, mut decisions) = (remembered.key.clone(), Vec::new());
            let mut sink = |decision| decisions.push(decision);
            if !jail.warden.restore(remembered, now, &mut sink) {
                // It ended while nobody was here to note that.
                let what = What::Unban { at: now };
                ledger.decided(&name, &Decision { key, what }, now);
            }
            self.carry_out(jails, *at, decisions, None, now);
        }
        self.ledger = Some(ledger);
    }

    fn start_actions(&mut self, jail: &mut Jail) {
        let actions: Vec<Spec> = jail
            .raw()
            .into_iter()
            .flat_map(|raw| &raw.actions)
            .map(|action| spec(jail.name(), action))
            .collect();
        if actions.is_empty()
            || jail.actions.is_some()
            || self.config.firewall.backend == Backend::DryRun
        {
            return;
        }
        if self.pool.is_none() {
            match Pool::new(&Settings::default()) {
                Ok(pool) => self.pool = Some(pool),
                Err(error) => log::error!(
                    "cannot start threads for the actions of jails: {error}; none of them run"
                ),
            }
        }
        let Some(pool) = &self.pool else { return };
        let (started, errors) = pool.jail(jail.name(), actions);
        for error in errors {
            log::error!("{error}");
        }
        started.start();
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
        let Ready { at, failure, when } = ready;
        if let Some(jail) = jails.get(at)
            && self.spared(jail, &failure).is_none()
        {
            self.count(jails, at, &failure, when, now);
        }
    }

    /// Another jail has banned `key`: those that count bans do.
    pub(super) fn other_banned(&mut self, jails: &mut [Jail], by: JailId, key: &Key, now: f64) {
        for at in 0..jails.len() {
            let Some(jail) = jails.get(at).filter(|jail| jail.id != by) else {
                continue;
            };
            if !jail.raw().is_some_and(|raw| raw.counts_bans) {
                continue;
            }
            let by = self
                .config
                .jails
                .get(usize::from(by))
                .map_or("", |jail| &jail.name);
            let failure = Failure::of(&key.to_string(), now, format!("banned by {by}"));
            self.consider(jails, at, failure, now, now);
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
            return;
        }
        if let Some(slow) = &mut jail.slow
            && slow.wants(&failure)
        {
            let ticket = ticket(&failure, when);
            if !slow.ask(failure, ticket, when) {
                jail.complain("too many host names or commands wait for an answer; failures that would wait, too, do not count");
            }
            return;
        }
        self.count(jails, at, &failure, when, now);
    }

    /// Why the one who failed is never banned.
    fn spared(&self, jail: &Jail, failure: &Failure) -> Option<crate::exempt::Spared> {
        let who = target(&key(jail, &failure.id))?;
        self.exempt.check(who, Some(jail.id)).err()
    }

    fn count(&mut self, jails: &mut [Jail], at: usize, failure: &Failure, when: f64, now: f64) {
        let Some(jail) = jails.get_mut(at) else {
            return;
        };
        jail.tally.hits += 1;
        let key = key(jail, &failure.id);
        let lines = failure.matches.join("\n");
        let failed = bans::Failure {
            key: &key,
            at: when,
            line: Some(&lines),
        };
        let mut decisions = Vec::new();
        jail.warden
            .failure(&failed, now, &mut self.history, &mut |decision| {
                decisions.push(decision)
            });
        self.carry_out(jails, at, decisions, Some(failure), now);
    }

    /// Ends of bans.
    pub(super) fn advance(&mut self, jails: &mut [Jail], at: usize, now: f64) {
        let Some(jail) = jails.get_mut(at) else {
            return;
        };
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
            let (by, restored) = (
                jail.id,
                matches!(&decision.what, What::Ban(ban) if ban.restored),
            );
            if banned && !restored {
                self.other_banned(jails, by, &decision.key, now);
            }
        }
    }

    /// Carries a decision out; true: somebody is banned now who was not.
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
                if banned && let Some(ledger) = &self.ledger {
                    ledger.decided(jail.name(), decision, now);
                }
                return banned;
            }
            What::Prolong { standing, count } => {
                let until = standing.end();
                let last = failure.and_then(|failure| failure.matches.last());
                let reason = reason(jail, *count, last.map_or("", String::as_str));
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

    fn ban(
        &mut self,
        jail: &mut Jail,
        key: &Key,
        ban: &Ban,
        failure: Option<&Failure>,
        now: f64,
    ) -> bool {
        if self.off.load(Ordering::Relaxed) {
            jail.tally.not_banned += 1;
            log::info!(
                "not banned client={key} jail={}: switched off (f2b-pipe reload switches on)",
                jail.name()
            );
            return false;
        }
        let reason = match ban.lines.last() {
            Some(last) => reason(jail, ban.count, last),
            None => "restored".to_owned(),
        };
        if !self.put(jail, key, ban.until(), &reason, now, false) {
            return false;
        }
        jail.tally.bans += 1;
        if !ban.restored {
            let lasts = ban.until().map_or("ever".to_owned(), |until| {
                format!("{}s", whole(until - now))
            });
            notify::ban(jail.name(), key);
            log::info!(
                "ban client={key} jail={} hits={} for={lasts}",
                jail.name(),
                ban.count
            );
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
        true
    }

    /// Puts a ban into the kernel, if the jail's bans are there; false: it could not be, and was told.
    fn put(
        &mut self,
        jail: &mut Jail,
        key: &Key,
        until: Option<f64>,
        reason: &str,
        now: f64,
        prolong: bool,
    ) -> bool {
        let Some(who) = jail
            .raw()
            .filter(|raw| raw.in_kernel)
            .and_then(|_| target(key))
        else {
            return true;
        };
        let bannable = match self.exempt.check(who, Some(jail.id)) {
            Ok(bannable) => bannable,
            Err(spared) => {
                log::info!("spared client={key} jail={}: {spared}", jail.name());
                return false;
            }
        };
        let ban_for = match until {
            None => BanFor::Forever,
            Some(until) => match Duration::try_from_secs_f64(until - now)
                .ok()
                .and_then(BanFor::timed)
            {
                Some(ban_for) => ban_for,
                None => return false,
            },
        };
        let ban = ActBan {
            jail: jail.id,
            who: bannable,
            ban_for,
            reason,
        };
        let ms = whole(now * 1000.0).unsigned_abs();
        let done = match prolong {
            true => self.act.prolong(&ban, ms).map(|()| Banned::Already),
            false => self.act.ban(&ban, ms),
        };
        match done {
            Ok(banned) => {
                self.keeper.banned(BanEvent {
                    jail: jail.id,
                    who,
                    ban_for,
                    banned,
                });
                true
            }
            Err(error) => {
                jail.tally.not_banned += 1;
                self.keeper.failed(&error);
                false
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
        if let Some(pool) = self.pool {
            let left = pool.finish(patience);
            log::debug!("{left} orders of actions are left");
        }
    }
}

/// `3 failures in 600s, last: ...`, as `ipset -L` shows it.
fn reason(jail: &Jail, count: u32, last: &str) -> String {
    let last = Escaped {
        bytes: last.as_bytes(),
        max: EVIDENCE_BYTES,
    };
    let findtime = Duration::try_from_secs_f64(jail.findtime()).unwrap_or_default();
    format!("{count} failures in {findtime:?}, last: {last}")
}

/// Whom a failure is counted for: an IPv6 address by the jail's prefix.
fn key(jail: &Jail, id: &str) -> Key {
    let key = Key::parse(id);
    let prefix = jail.conf().map_or(128, |jail| jail.ipv6_prefix);
    match key {
        Key::Client(client) => Key::Client(client.counted(prefix)),
        Key::Net(_) | Key::Text(_) => key,
    }
}

/// Whom a ban can be about in the kernel.
fn target(key: &Key) -> Option<Target> {
    match key {
        Key::Client(client) => Some(Target::Client(Client::new(client.addr()))),
        Key::Net(net) => Some(Target::Net(*net)),
        Key::Text(_) => None,
    }
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

/// An action as the commands' room takes it.
fn spec(jail: &str, action: &Action) -> Spec {
    let mut spec = Spec::new(jail, &action.name, &action.file);
    spec.properties.extend(action.params.clone());
    spec.properties.extend(action.commands.clone());
    spec.start_on_demand = action
        .commands
        .get("actionstart_on_demand")
        .map(|text| text == "true");
    spec.norestored = action.is_on("norestored");
    spec.repair_on_unban = action.is_on("actionrepair_on_unban");
    spec.timeout = Duration::try_from_secs_f64(action.timeout()).unwrap_or(spec.timeout);
    spec
}

/// Whole seconds.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a cast of a float saturates, and no time is near that"
)]
fn whole(seconds: f64) -> i64 {
    seconds.ceil() as i64
}
