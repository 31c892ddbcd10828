//! Who waits for whom: orders of all jails' actions, carried out by a few threads.
//!
//! One action's orders run in the order in which they came; different actions run side by side, except that two of one
//! file never do. A jail's actions start in their order and stop in the reverse one. Whoever gives an order never waits:
//! what does not fit into the queue is dropped, counted and told.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::action::{Action, Done, Failed};
use super::names::Runner;
use super::{Spec, SpecError, Ticket, host_has_ipv6};
use crate::silence::board;

/// Where commands are found: systemd's default for a service, so fail2ban's. httpd's own is not ours to trust.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bans of one action that may wait.
const BANS: usize = 10_000;
/// Other orders of one action that may wait beside them: an unban that is lost may leave somebody banned for ever.
const OTHERS: usize = 20_000;
/// Texts of all waiting tickets, bytes. Past it tickets lose their matches.
const TEXTS: usize = 32 * 1024 * 1024;

/// How a pool works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Commands that may run at the same time.
    pub threads: usize,
    /// `$PATH` of commands.
    pub path: String,
    /// Whether actions that start with their jail start for IPv6, too (`allowipv6` of fail2ban.conf).
    pub ipv6: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: 4,
            path: PATH.to_owned(),
            ipv6: host_has_ipv6(),
        }
    }
}

/// What to do.
#[derive(Debug)]
enum Order {
    Start,
    Ban(Arc<Ticket>),
    Reban(Arc<Ticket>),
    Prolong(Arc<Ticket>),
    Unban(Arc<Ticket>),
    Flush { held: Arc<[Ticket]>, stopping: bool },
    Check,
    Reload(Box<Spec>),
    Stop,
}

impl Order {
    fn weight(&self) -> usize {
        match self {
            Self::Ban(ticket)
            | Self::Reban(ticket)
            | Self::Prolong(ticket)
            | Self::Unban(ticket) => ticket.weight(),
            Self::Flush { held, .. } => held.iter().map(Ticket::weight).sum(),
            Self::Start | Self::Check | Self::Reload(_) | Self::Stop => 0,
        }
    }

    fn is_ban(&self) -> bool {
        matches!(self, Self::Ban(_) | Self::Reban(_) | Self::Prolong(_))
    }
}

/// What became of an action's orders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Carried out.
    pub done: u64,
    /// Of which some command failed in the end.
    pub failed: u64,
    /// Not taken, since too many were waiting.
    pub dropped: u64,
    /// Waiting or running.
    pub waiting: usize,
    /// How often the action was found broken and repaired or not. Bans made before the number grew may be gone: whoever is
    /// seen again although banned should be banned again ([`Jail::reban`]).
    pub epoch: u64,
}

impl Health {
    /// What is wrong, after an order failed.
    fn told(&self, file: &str) -> String {
        let (failed, done) = (self.failed, self.done);
        format!(
            "{failed} of {done} orders failed, the last one too, so what it should do about bans is not done; which command, and how \
             it ended, is in httpd's error log or the journal. Put right what is in action.d/{file}, or take the action out of \
             the jail"
        )
    }
}

/// One action, and what waits for it.
#[derive(Debug)]
struct Slot {
    jail: String,
    name: String,
    file: String,
    /// Away while an order runs.
    action: Option<Box<Action>>,
    queue: VecDeque<Order>,
    /// Of the queue, bans.
    bans: usize,
    /// The action before it in its jail; its start comes first.
    before: Option<u64>,
    /// The action after it; its stop comes first.
    after: Option<u64>,
    starting: bool,
    stopping: bool,
    health: Health,
    /// Orders dropped and not yet told.
    untold: u64,
}

#[derive(Debug, Default)]
struct Inner {
    slots: BTreeMap<u64, Slot>,
    next: u64,
    /// Whose turn was last.
    last: u64,
    /// Bytes of waiting tickets.
    texts: usize,
    running: usize,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
    runner: Runner,
    ipv6: bool,
}

/// The threads. Dropping it kills what runs and forgets what waits; [`Pool::finish`] is the polite way.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// The actions of one jail. Its functions return at once, whatever the commands do.
#[derive(Debug)]
pub struct Jail {
    shared: Arc<Shared>,
    name: String,
    slots: Vec<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whole at any time: nothing that is under the lock can panic half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// Not one thread could be had.
    pub fn new(settings: &Settings) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner::default()),
            changed: Condvar::new(),
            runner: Runner::new(&settings.path),
            ipv6: settings.ipv6,
        });
        let mut threads = Vec::new();
        for number in 1..=settings.threads.max(1) {
            let shared = Arc::clone(&shared);
            let thread = thread::Builder::new().name(format!("command-{number}"));
            match thread.spawn(move || work(&shared)) {
                Ok(thread) => threads.push(thread),
                Err(error) if threads.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(Self { shared, threads })
    }

    /// A jail's actions, in their order; nothing runs yet.
    ///
    /// # Errors
    /// Those whose tags cannot be resolved; the others are in the jail.
    #[must_use]
    pub fn jail(&self, name: &str, specs: Vec<Spec>) -> (Jail, Vec<SpecError>) {
        let mut jail = Jail {
            shared: Arc::clone(&self.shared),
            name: name.to_owned(),
            slots: Vec::new(),
        };
        let mut errors = Vec::new();
        for spec in specs {
            if let Err(error) = jail.add(spec) {
                errors.push(error);
            }
        }
        (jail, errors)
    }

    /// Waits until everything ordered is done, at most for `patience`; what then still runs is killed, what waits is left.
    /// Returns how many orders were not carried out to their end.
    #[must_use]
    pub fn finish(mut self, patience: Duration) -> usize {
        let until = Instant::now() + patience;
        let mut inner = self.shared.lock();
        let left = loop {
            let left = inner.running + inner.waiting();
            let time = until.saturating_duration_since(Instant::now());
            if left == 0 || time.is_zero() {
                break left;
            }
            inner = match self.shared.changed.wait_timeout(inner, time) {
                Ok((inner, _)) => inner,
                Err(poisoned) => poisoned.into_inner().0,
            };
        };
        drop(inner);
        self.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has told so.
            thread.join().ok();
        }
        if left > 0 {
            log::warn!(
                "{left} commands of fail2ban's actions were not carried out before the end ({} s)",
                patience.as_secs()
            );
        }
        left
    }

    fn close(&self) {
        let mut inner = self.shared.lock();
        inner.closed = true;
        self.shared
            .runner
            .abort
            .store(true, std::sync::atomic::Ordering::Relaxed);
        self.shared.changed.notify_all();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn waiting(&self) -> usize {
        self.slots.values().map(|slot| slot.queue.len()).sum()
    }

    /// The next order that may run, and its action.
    fn pick(&mut self) -> Option<(u64, Box<Action>, Order)> {
        let after = self.slots.range(self.last + 1..);
        let mut turns = after.chain(self.slots.range(..=self.last));
        let (&id, _) = turns.find(|(_, slot)| self.may_run(slot))?;
        let slot = self.slots.get_mut(&id)?;
        let action = slot.action.take()?;
        let Some(order) = slot.queue.pop_front() else {
            slot.action = Some(action);
            return None;
        };
        slot.bans -= usize::from(order.is_ban());
        self.texts = self.texts.saturating_sub(order.weight());
        self.last = id;
        self.running += 1;
        Some((id, action, order))
    }

    fn may_run(&self, slot: &Slot) -> bool {
        let of = |id: Option<u64>| id.and_then(|id| self.slots.get(&id));
        let turn = match slot.queue.front() {
            None => return false,
            Some(Order::Start) => !of(slot.before).is_some_and(|before| before.starting),
            Some(Order::Stop) => !of(slot.after).is_some_and(|after| after.stopping),
            Some(_) => true,
        };
        let twin = |other: &Slot| other.action.is_none() && other.file == slot.file;
        turn && slot.action.is_some() && !self.slots.values().any(twin)
    }

    fn give(&mut self, id: u64, order: Order) {
        let (texts, weight) = (self.texts, order.weight());
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let full = match &order {
            Order::Ban(_) | Order::Reban(_) | Order::Prolong(_) => slot.bans >= BANS,
            Order::Unban(_) | Order::Flush { .. } | Order::Check => {
                slot.queue.len() - slot.bans >= OTHERS
            }
            Order::Start | Order::Reload(_) | Order::Stop => false,
        };
        if full {
            slot.health.dropped += 1;
            if slot.untold == 0 {
                log::error!(
                    "jail '{}' action '{}': too many orders wait for its commands; further ones are dropped until there is room",
                    slot.jail,
                    slot.name
                );
            }
            slot.untold += 1;
            return;
        }
        slot.bans += usize::from(order.is_ban());
        slot.starting |= matches!(order, Order::Start);
        slot.stopping |= matches!(order, Order::Stop);
        slot.queue.push_back(order);
        self.texts = texts + weight;
    }

    /// An order has been carried out.
    fn put_back(&mut self, id: u64, action: Box<Action>, done: Done, what: Finished) {
        self.running -= 1;
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.health.done += 1;
        slot.health.failed += u64::from(done.is_err());
        let about = format!("jail '{}' action '{}'", slot.jail, slot.name);
        match done {
            Ok(()) => board().over(&about, "its commands succeed again"),
            Err(Failed) => board().tell(&about, slot.health.told(&slot.file)),
        }
        slot.health.epoch = action.epoch();
        slot.action = Some(action);
        if slot.untold > 0 && slot.queue.len() < BANS / 2 {
            log::error!(
                "jail '{}' action '{}': {} orders were dropped",
                slot.jail,
                slot.name,
                slot.untold
            );
            slot.untold = 0;
        }
        match what {
            Finished::Start => slot.starting = slot.queue.iter().any(|o| matches!(o, Order::Start)),
            Finished::Stop => {
                self.slots.remove(&id);
            }
            Finished::Other => {}
        }
    }
}

/// What an order means for those that wait for it.
#[derive(Clone, Copy, Debug)]
enum Finished {
    Start,
    Stop,
    Other,
}

impl From<&Order> for Finished {
    fn from(order: &Order) -> Self {
        match order {
            Order::Start => Self::Start,
            Order::Stop => Self::Stop,
            Order::Ban(_)
            | Order::Reban(_)
            | Order::Prolong(_)
            | Order::Unban(_)
            | Order::Flush { .. }
            | Order::Check
            | Order::Reload(_) => Self::Other,
        }
    }
}

/// A thread's life.
fn work(shared: &Shared) {
    crate::sys::stand_back();
    let mut inner = shared.lock();
    loop {
        if inner.closed {
            return;
        }
        let Some((id, mut action, order)) = inner.pick() else {
            inner = shared
                .changed
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(inner);
        let what = Finished::from(&order);
        let run = AssertUnwindSafe(|| carry_out(&mut action, order, shared));
        let done = catch_unwind(run).unwrap_or_else(|_| {
            log::error!(
                "jail '{}' action '{}': a mistake in f2b-pipe ended this order; please report it",
                action.spec().jail,
                action.spec().action
            );
            Err(Failed)
        });
        inner = shared.lock();
        inner.put_back(id, action, done, what);
        shared.changed.notify_all();
    }
}

fn carry_out(action: &mut Action, order: Order, shared: &Shared) -> Done {
    let runner = &shared.runner;
    match order {
        Order::Start => action.start(runner),
        Order::Ban(ticket) => action.ban(&ticket, runner),
        Order::Reban(ticket) => action.reban(&ticket, runner),
        Order::Prolong(ticket) => action.prolong(&ticket, runner),
        Order::Unban(ticket) => action.unban(&ticket, runner),
        Order::Flush { held, stopping } => action.flush(&held, stopping, runner),
        Order::Check => action.check_all(true, runner),
        Order::Reload(spec) => action.reload(*spec, runner),
        Order::Stop => action.stop(runner),
    }
}

impl Jail {
    /// Adds an action behind the others.
    fn add(&mut self, spec: Spec) -> Result<u64, SpecError> {
        let slot = Slot {
            jail: spec.jail.clone(),
            name: spec.action.clone(),
            file: spec.file.clone(),
            action: Some(Box::new(Action::new(spec, self.shared.ipv6)?)),
            queue: VecDeque::new(),
            bans: 0,
            before: None,
            after: None,
            starting: false,
            stopping: false,
            health: Health::default(),
            untold: 0,
        };
        let mut inner = self.shared.lock();
        inner.next += 1;
        let id = inner.next;
        inner.slots.insert(id, slot);
        self.slots.push(id);
        link(&mut inner, &self.slots);
        Ok(id)
    }

    fn give_all(&self, order: impl Fn() -> Order) {
        let mut inner = self.shared.lock();
        for &id in &self.slots {
            inner.give(id, order());
        }
        self.shared.changed.notify_all();
    }

    fn ticket(&self, mut ticket: Ticket) -> Arc<Ticket> {
        ticket.bound();
        if self.shared.lock().texts > TEXTS {
            ticket.without_matches();
        }
        Arc::new(ticket)
    }

    fn tickets(&self, held: Vec<Ticket>) -> Arc<[Ticket]> {
        let mut room = TEXTS.saturating_sub(self.shared.lock().texts);
        let mut held = held;
        for ticket in &mut held {
            ticket.bound();
            if ticket.weight() > room {
                ticket.without_matches();
            }
            room = room.saturating_sub(ticket.weight());
        }
        held.into()
    }

    /// The jail starts.
    pub fn start(&self) {
        self.give_all(|| Order::Start);
    }

    /// Somebody is banned, or was and is restored (`ticket.restored`).
    pub fn ban(&self, ticket: Ticket) {
        let ticket = self.ticket(ticket);
        self.give_all(|| Order::Ban(Arc::clone(&ticket)));
    }

    /// Somebody is banned again, since [`Health::epoch`] grew after the ban.
    pub fn reban(&self, ticket: Ticket) {
        let ticket = self.ticket(ticket);
        self.give_all(|| Order::Reban(Arc::clone(&ticket)));
    }

    /// A ban lasts longer than was said at first.
    pub fn prolong(&self, ticket: Ticket) {
        let ticket = self.ticket(ticket);
        self.give_all(|| Order::Prolong(Arc::clone(&ticket)));
    }

    /// A ban has ended.
    pub fn unban(&self, ticket: Ticket) {
        let ticket = self.ticket(ticket);
        self.give_all(|| Order::Unban(Arc::clone(&ticket)));
    }

    /// All bans end, the jail goes on; `held` are those bans, for actions that can only end one at a time.
    pub fn flush(&self, held: Vec<Ticket>) {
        let held = self.tickets(held);
        self.give_all(|| Order::Flush {
            held: Arc::clone(&held),
            stopping: false,
        });
    }

    /// Somebody banned was seen long after: looks with actioncheck whether the actions are in place, and repairs them.
    pub fn check(&self) {
        self.give_all(|| Order::Check);
    }

    /// The jail stops; `held` are the bans that it still has. What was ordered before is done first.
    pub fn stop(self, held: Vec<Ticket>) {
        let held = self.tickets(held);
        self.give_all(|| Order::Flush {
            held: Arc::clone(&held),
            stopping: true,
        });
        self.give_all(|| Order::Stop);
    }

    /// The configuration was read again: actions that are gone are flushed and stopped, those that stay (by their name in
    /// the jail) get their new values and actionreload, new ones are started.
    ///
    /// # Errors
    /// Those whose tags cannot be resolved; if they were there before, they go on with their old values.
    pub fn reload(&mut self, specs: Vec<Spec>, held: Vec<Ticket>) -> Vec<SpecError> {
        let held = self.tickets(held);
        let mut errors = Vec::new();
        let mut before = std::mem::take(&mut self.slots);
        for spec in specs {
            let mut inner = self.shared.lock();
            let known = before.iter().position(|id| {
                let slot = inner.slots.get(id);
                slot.is_some_and(|slot| slot.name == spec.action && slot.file == spec.file)
            });
            if let Some(position) = known {
                let id = before.remove(position);
                inner.give(id, Order::Reload(Box::new(spec)));
                self.slots.push(id);
                drop(inner);
                continue;
            }
            drop(inner);
            match self.add(spec) {
                Ok(id) => self.shared.lock().give(id, Order::Start),
                Err(error) => errors.push(error),
            }
        }
        let mut inner = self.shared.lock();
        link(&mut inner, &self.slots);
        link(&mut inner, &before);
        for &id in &before {
            let held = Arc::clone(&held);
            inner.give(
                id,
                Order::Flush {
                    held,
                    stopping: true,
                },
            );
            inner.give(id, Order::Stop);
        }
        self.shared.changed.notify_all();
        drop(inner);
        errors
    }

    /// By action, in their order.
    #[must_use]
    pub fn health(&self) -> Vec<(String, Health)> {
        let inner = self.shared.lock();
        let of = |id: &u64| {
            let slot = inner.slots.get(id)?;
            let waiting = slot.queue.len() + usize::from(slot.action.is_none());
            let health = Health {
                waiting,
                ..slot.health.clone()
            };
            Some((slot.name.clone(), health))
        };
        self.slots.iter().filter_map(of).collect()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Tells actions who comes before and after them.
fn link(inner: &mut Inner, slots: &[u64]) {
    let mut before = None;
    for (at, &id) in slots.iter().enumerate() {
        if let Some(slot) = inner.slots.get_mut(&id) {
            slot.before = before;
            slot.after = slots.get(at + 1).copied();
        }
        before = Some(id);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let folder =
            std::env::temp_dir().join(format!("f2b-pipe-pool-{}-{name}", std::process::id()));
        std::fs::remove_dir_all(&folder).ok();
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn spec(action: &str, log: &Path, ban: &str) -> Spec {
        let mut spec = Spec::new("j", action, action);
        for (name, value) in [
            ("actionstart", "echo <actname> start >> <log>"),
            ("actionban", ban),
            ("actionunban", "echo <actname> unban <ip> >> <log>"),
            ("actionstop", "echo <actname> stop >> <log>"),
        ] {
            spec.properties.insert(name.into(), value.into());
        }
        spec.properties.insert("actname".into(), action.into());
        spec.properties
            .insert("log".into(), log.to_str().unwrap().into());
        spec
    }

    const ECHO: &str = "echo <actname> ban <ip> >> <log>";

    #[test]
    fn actions_start_in_order_and_stop_in_reverse() {
        let folder = folder("order");
        let log = folder.join("log");
        let pool = Pool::new(&Settings::default()).unwrap();
        let specs = vec![
            spec("a", &log, &format!("sleep 0.2; {ECHO}")),
            spec("b", &log, "false"),
            spec("c", &log, ECHO),
        ];
        let (jail, errors) = pool.jail("j", specs);
        assert!(errors.is_empty());
        jail.start();
        jail.ban(Ticket::of("192.0.2.7"));
        jail.stop(vec![Ticket::of("192.0.2.7")]);
        assert_eq!(pool.finish(Duration::from_secs(20)), 0);
        let text = std::fs::read_to_string(&log).unwrap();
        let of =
            |what: &str| -> Vec<&str> { text.lines().filter(|line| line.contains(what)).collect() };
        assert_eq!(of("start"), ["a start", "b start", "c start"]);
        assert_eq!(of("stop"), ["c stop", "b stop", "a stop"]);
        // Side by side: c did not wait for a.
        assert_eq!(of(" ban"), ["c ban 192.0.2.7", "a ban 192.0.2.7"]);
        // b banned nobody, so there is nobody to let go.
        assert_eq!(of("unban").len(), 2);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_script_that_hangs_keeps_nobody_else_waiting() {
        let folder = folder("hang");
        let log = folder.join("log");
        let pool = Pool::new(&Settings::default()).unwrap();
        let (jail, _) = pool.jail(
            "j",
            vec![spec("bad", &log, "sleep 1000"), spec("good", &log, ECHO)],
        );
        jail.start();
        let begun = Instant::now();
        for n in 0..20_000 {
            jail.ban(Ticket::of(&format!("192.0.{}.{}", n / 250, n % 250)));
        }
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        let until = Instant::now() + Duration::from_secs(20);
        while jail.health()[1].1.done < 50 && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        let health = jail.health();
        assert!(health[1].1.done >= 50, "{health:?}");
        assert!(
            health[0].1.done <= 1 && health[0].1.dropped >= 9_000,
            "{health:?}"
        );
        let begun = Instant::now();
        assert!(pool.finish(Duration::from_millis(10)) > 0);
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_reload_stops_what_is_gone_and_starts_what_is_new() {
        let folder = folder("reload");
        let log = folder.join("log");
        let pool = Pool::new(&Settings::default()).unwrap();
        let (mut jail, _) = pool.jail("j", vec![spec("a", &log, ECHO), spec("b", &log, ECHO)]);
        jail.start();
        jail.ban(Ticket::of("192.0.2.7"));
        let changed = spec("b", &log, "echo <actname> new <ip> >> <log>");
        let errors = jail.reload(
            vec![changed, spec("c", &log, ECHO)],
            vec![Ticket::of("192.0.2.7")],
        );
        assert!(errors.is_empty());
        jail.ban(Ticket::of("192.0.2.8"));
        jail.stop(Vec::new());
        assert_eq!(pool.finish(Duration::from_secs(20)), 0);
        let text = std::fs::read_to_string(&log).unwrap();
        let of = |action: &str| -> Vec<&str> {
            text.lines()
                .filter(|line| line.starts_with(action))
                .collect()
        };
        assert_eq!(
            of("a"),
            ["a start", "a ban 192.0.2.7", "a unban 192.0.2.7", "a stop"]
        );
        assert_eq!(
            of("b"),
            ["b start", "b ban 192.0.2.7", "b new 192.0.2.8", "b stop"]
        );
        assert_eq!(of("c"), ["c start", "c ban 192.0.2.8", "c stop"]);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn families_with_the_same_commands_are_started_once_and_flushed_each_time() {
        let folder = folder("families");
        let log = folder.join("log");
        let pool = Pool::new(&Settings::default()).unwrap();
        let mut spec = spec("a", &log, ECHO);
        spec.start_on_demand = Some(true);
        spec.properties
            .insert("actionflush".into(), "echo flush >> <log>".into());
        let (jail, _) = pool.jail("j", vec![spec]);
        jail.start();
        for _ in 0..2 {
            jail.ban(Ticket::of("192.0.2.7"));
            jail.ban(Ticket::of("2001:db8::7"));
            jail.flush(Vec::new());
        }
        // Holds nobody any more.
        jail.unban(Ticket::of("192.0.2.7"));
        jail.stop(Vec::new());
        assert_eq!(pool.finish(Duration::from_secs(20)), 0);
        let text = std::fs::read_to_string(&log).unwrap();
        let round = ["a ban 192.0.2.7", "a ban 2001:db8::7", "flush"];
        let expected: Vec<&str> = ["a start"]
            .into_iter()
            .chain(round)
            .chain(round)
            .chain(["a stop"])
            .collect();
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_failure_is_followed_by_check_repair_and_one_more_try() {
        let folder = folder("repair");
        let log = folder.join("log");
        let pool = Pool::new(&Settings::default()).unwrap();
        let broken = folder.join("broken");
        std::fs::write(&broken, "").unwrap();
        let mut spec = spec("a", &log, "echo ban >> <log>; test ! -e <broken>");
        for (name, value) in [
            ("actioncheck", "echo check >> <log>; test ! -e <broken>"),
            ("actionrepair", "echo repair >> <log>; rm <broken>"),
            ("broken", broken.to_str().unwrap()),
        ] {
            spec.properties.insert(name.into(), value.into());
        }
        let (jail, _) = pool.jail("j", vec![spec]);
        jail.start();
        jail.ban(Ticket::of("192.0.2.7"));
        while jail.health()[0].1.waiting > 0 {
            thread::sleep(Duration::from_millis(1));
        }
        let health = jail.health().remove(0).1;
        assert_eq!((health.done, health.failed, health.epoch), (2, 0, 1));
        let text = std::fs::read_to_string(&log).unwrap();
        let expected = ["a start", "ban", "check", "repair", "check", "ban"];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_waits_has_a_bound_in_bytes_too() {
        let folder = folder("bytes");
        let pool = Pool::new(&Settings::default()).unwrap();
        let (jail, _) = pool.jail("j", vec![spec("a", &folder.join("log"), "sleep 1000")]);
        let mut ticket = Ticket::of("192.0.2.7");
        ticket.matches = vec!["x".repeat(31 * 1024)];
        for _ in 0..2_000 {
            jail.ban(ticket.clone());
        }
        let (texts, waiting) = {
            let inner = pool.shared.lock();
            (inner.texts, inner.waiting())
        };
        assert!(waiting >= 1_999);
        assert!(texts < TEXTS + 1024 * 1024, "{texts}");
        drop(pool);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
