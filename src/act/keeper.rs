//! Keeps everything in place that a ban needs, on threads of its own: sets, chain, the off switch, news of ended bans.
//!
//! Every process has a keeper; the one that holds the lock works, the others wait for the lock. The hot thread only ever
//! gives away an event, which never blocks. What is wrong is said once, and once more when it is well again; meanwhile it
//! is tried every 30 seconds.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use nix::sys::socket::SockProtocol;
use serde::{Deserialize, Serialize};

use super::firewall::{self, Add, Ensured, Firewall, Member, Put};
use super::ipset::{self, Ipset};
use super::lock::{Lock, try_lock, try_name};
use super::netlink::{self, Socket, WireError};
use super::nft::{self, Nft};
use super::plan::{Family, Found, Place, Plan, chain_name};
use super::records::{Noted, Records};
use super::{ActError, Banned, SetRef, jail, jails, kill, place_of};
use crate::config::{Backend, Config, Current, RuntimePaths};
use crate::date;
use crate::decide::BanFor;
use crate::exempt::Target;
use crate::hit::JailId;
use crate::ledger::Pen;
use crate::notify::{self, measure};
use crate::silence::Troubles;

/// Before waiting for the next event: who bans should not have to wake us each time (as in say.rs).
const COLLECT: Duration = Duration::from_millis(2);
/// How often the off switch, the lock and the names of the sets are looked at.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// How often the chains are looked at without a reason: legacy iptables does not tell of its changes.
const LOOK: Duration = Duration::from_secs(60);
/// From the news of a deleted rule to the look: whoever reloads a firewall deletes many.
const SETTLE: Duration = Duration::from_millis(100);
/// Between two looks because of news.
const LOOK_PAUSE: Duration = Duration::from_millis(300);
/// How often what went wrong is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// How often the sets are read, to learn of bans that others made or took away.
const LEARN: Duration = Duration::from_secs(10);
/// Reading them takes at most one part in this many of the time.
const LEARN_REST: u32 = 50;
/// How often in a row the chain is put back at once; if somebody else wants to be first as much as we do, the rest is once
/// in [`LOOK`].
const FIGHTS: u32 = 10;
/// A ban beyond the kernel's longest is renewed when a day of it is over.
const RENEW_BELOW_SECS: u32 = ipset::TIMEOUT_MAX_SECS - 86_400;
/// Events waiting for a keeper that waits for iptables.
const WAITING_MAX: usize = 4_096;
/// How long the end of the process may wait for the keeper.
const GOODBYE: Duration = Duration::from_millis(100);

/// A ban that the hot thread carried out.
#[derive(Clone, Copy, Debug)]
pub struct BanEvent {
    /// Whose.
    pub jail: JailId,
    /// Whom.
    pub who: Target,
    /// How long.
    pub ban_for: BanFor,
    /// What came of it.
    pub banned: Banned,
}

/// The state of the act side, for the status file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// This process holds the lock; if not, what follows is for another process to know.
    pub owner: bool,
    /// Nobody is banned (`f2b-pipe off`).
    pub off: bool,
    /// What carries bans out: `ipset`, `nftables`; empty: nothing yet.
    pub firewall: String,
    /// The IPv4 chains were in place at the last look.
    pub chain: bool,
    /// The IPv6 chains were.
    pub chain6: bool,
    /// How many sets are in use.
    pub sets: usize,
    /// How many bans are running.
    pub bans: usize,
    /// How often the chain was found gone or overtaken and put back.
    pub replaced: u64,
    /// Events that were dropped because the keeper was busy.
    pub dropped: u64,
    /// What is wrong now.
    pub troubles: Vec<String>,
}

#[derive(Debug)]
struct Shared {
    config: Arc<Current>,
    off: Arc<AtomicBool>,
    stop: AtomicBool,
    dropped: AtomicU64,
    /// A thread listens for changed rules, for as long as the keeper lives.
    listening: AtomicBool,
    /// A ledger that was opened, and what it knows.
    ledger: Mutex<Option<(Pen, Noted)>>,
    health: Mutex<Health>,
    /// Another process is in charge, or will be.
    yields: AtomicBool,
    /// Something works here that only the process in charge may do.
    in_use: AtomicBool,
}

enum Event {
    Banned(BanEvent),
    Failed(String),
    /// Rules or tables were deleted or inserted.
    Rules,
    /// There is another configuration.
    Renewed,
    /// Sets were changed by others.
    Learn,
    Stop,
}

/// A process's hold on the keeper. Dropping it ends the keeper, and waits for that 100 ms at most.
#[derive(Debug)]
pub struct Keeper {
    hand: Hand,
    /// Never sends; its other end is dropped when the thread ends.
    done: Receiver<()>,
}

/// A thread's hold on the keeper.
#[derive(Clone, Debug)]
pub struct Hand {
    to: SyncSender<Event>,
    kill: Option<SyncSender<(JailId, Target)>>,
    shared: Arc<Shared>,
}

impl std::ops::Deref for Keeper {
    type Target = Hand;

    fn deref(&self) -> &Hand {
        &self.hand
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Event")
    }
}

impl Keeper {
    /// Starts the threads. Side effects (sets, chain) begin at once, so not before the first line or 100 ms.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(config: Arc<Config>, paths: RuntimePaths) -> std::io::Result<Self> {
        let (to, from) = sync_channel(WAITING_MAX);
        let (ended, done) = sync_channel::<()>(0);
        let current = Arc::new(Current::new(Arc::clone(&config)));
        let shared = Arc::new(Shared {
            yields: AtomicBool::new(false),
            in_use: AtomicBool::new(false),
            config: Arc::clone(&current),
            off: Arc::default(),
            stop: AtomicBool::default(),
            dropped: AtomicU64::default(),
            listening: AtomicBool::default(),
            ledger: Mutex::default(),
            health: Mutex::default(),
        });
        // Before the first ban, not a tick later.
        shared.off.store(is_off(&paths), Ordering::Relaxed);
        let kill = if config.firewall.kill_connections && config.firewall.backend != Backend::DryRun
        {
            Some(kill::start(current)?)
        } else {
            None
        };
        let own = (to.clone(), Arc::clone(&shared));
        std::thread::Builder::new()
            .name("keeper".into())
            .spawn(move || {
                crate::sys::stand_back();
                let _ended = ended;
                let (to, shared) = own;
                let (mut lock, mut troubles, mut replaced) = (None, Troubles::default(), 0);
                let mut records = Records::default();
                loop {
                    let config = shared.config.get();
                    let mut keep = Keep::new(&config, &paths, &shared, &to);
                    (keep.troubles, keep.replaced) = (std::mem::take(&mut troubles), replaced);
                    keep.records = std::mem::take(&mut records);
                    if let Some(lock) = lock.take() {
                        keep.take_up(lock, Instant::now());
                    }
                    match catch_unwind(AssertUnwindSafe(|| keep.run(&from))) {
                        Ok(End::Stopped) => return,
                        Ok(End::Renewed) => {
                            lock = keep.lock.take();
                            records = keep.records.renewed();
                            (troubles, replaced) =
                                (std::mem::take(&mut keep.troubles), keep.replaced);
                            continue;
                        }
                        Err(_) => {}
                    }
                    log::error!(
                        "the keeper of the chain stumbled (a bug); it starts again in 30 s"
                    );
                    drop(keep);
                    std::thread::sleep(RETRY);
                }
            })?;
        Ok(Self {
            hand: Hand { to, kill, shared },
            done,
        })
    }
}

impl Hand {
    /// Tells of a ban. Never blocks; what finds no room is counted in [`Health::dropped`].
    pub fn banned(&self, event: BanEvent) {
        if let Some(kill) = &self.kill
            && kill.try_send((event.jail, event.who)).is_err()
        {
            // Its thread has ended or is behind: the packet filter does its work without it.
        }
        self.send(Event::Banned(event));
    }

    /// Tells of a ban that failed: it is said once, and once more when bans go well again. Never blocks.
    pub fn failed(&self, error: &ActError) {
        self.send(Event::Failed(error.to_string()));
    }

    /// There is a ledger now: it is told of the bans that it does not know, where nobody else does that.
    pub fn remembers(&self, pen: Pen, noted: Noted) {
        let ledger = self.shared.ledger.lock();
        *ledger.unwrap_or_else(PoisonError::into_inner) = Some((pen, noted));
        self.lifted();
    }

    /// Bans were taken away or put in behind the keeper's back: it looks soon.
    pub fn lifted(&self) {
        if self.to.try_send(Event::Learn).is_err() {
            // It is busy, and looks within some seconds anyway.
        }
    }

    /// Another configuration from now on.
    pub fn renew(&self, config: &Arc<Config>) {
        self.shared.config.set(Arc::clone(config));
        if self.to.try_send(Event::Renewed).is_err() {
            // It is busy, and sees the configuration within a second.
        }
    }

    fn send(&self, event: Event) {
        measure::KEEPER.put();
        if self.to.try_send(event).is_err() {
            measure::KEEPER.took();
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The lock is for another process from now on: given up at once, or as soon as nothing works under it any more. Or
    /// it is to be had again.
    pub fn yields(&self, yields: bool) {
        self.shared.yields.store(yields, Ordering::Relaxed);
    }

    /// Something works, or does not any more, that only the process in charge may do.
    pub fn in_use(&self, in_use: bool) {
        self.shared.in_use.store(in_use, Ordering::Relaxed);
    }

    /// The same for another thread.
    #[must_use]
    pub fn hand(&self) -> Self {
        self.clone()
    }

    /// Whether nobody is to be banned, to be asked before each ban.
    #[must_use]
    pub fn off(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.off)
    }

    /// How things are, at most a second old.
    #[must_use]
    pub fn health(&self) -> Health {
        let health = self.shared.health.lock();
        let mut health = health.unwrap_or_else(PoisonError::into_inner).clone();
        health.dropped = self.shared.dropped.load(Ordering::Relaxed);
        health
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if self.to.try_send(Event::Stop).is_err() {
            // It is busy with events, and sees the flag with the next one.
        }
        // An iptables that is under way is left to end by itself: its work is done at one stroke or not at all.
        match self.done.recv_timeout(GOODBYE) {
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}

/// Whether the off file is there.
#[must_use]
pub fn is_off(paths: &RuntimePaths) -> bool {
    paths.off().exists()
}

/// The sets that the configuration wants, given the names of those that are there.
#[must_use]
pub fn wanted(config: &Config, names: &[String]) -> Vec<SetRef> {
    jails(config)
        .flat_map(|(_, jail)| SetRef::of(&config.firewall.set_prefix, jail))
        .filter(|set| !set.kind.on_demand() || names.contains(&set.name))
        .collect()
}

/// A running ban.
type Key = (JailId, Target);

/// Why the keeper's thread left its work.
enum End {
    Stopped,
    Renewed,
}

/// The keeper's thread.
struct Keep<'a> {
    config: &'a Arc<Config>,
    paths: &'a RuntimePaths,
    shared: &'a Arc<Shared>,
    to: &'a SyncSender<Event>,
    started: Instant,
    lock: Option<Lock>,
    firewall: Option<Box<dyn Firewall>>,
    /// What is left over from others or from another configuration is still to be taken away.
    untidy: bool,
    /// The sets that rules may look into: there, and ours.
    sets: Vec<SetRef>,
    /// Sets that a ban found gone, and made again.
    remade: Vec<SetRef>,
    /// When what failed with the sets is tried again.
    sets_retry: Option<Instant>,
    /// When the chain is to be written anew.
    place_at: Option<Instant>,
    /// When the chain is to be looked at.
    look_at: Instant,
    last_look: Instant,
    /// How often in a row it was not in place.
    fights: u32,
    replaced: u64,
    in_place: [bool; 2],
    /// Running bans and when they end, seconds after `started`.
    ends: HashMap<Key, u32>,
    /// The same in order; an entry that disagrees with `ends` is of a ban that was prolonged since.
    order: BinaryHeap<Reverse<(u32, Key)>>,
    learn_at: Instant,
    learnt: bool,
    records: Records,
    troubles: Troubles,
}

impl<'a> Keep<'a> {
    fn new(
        config: &'a Arc<Config>,
        paths: &'a RuntimePaths,
        shared: &'a Arc<Shared>,
        to: &'a SyncSender<Event>,
    ) -> Self {
        let now = Instant::now();
        Self {
            config,
            paths,
            shared,
            to,
            started: now,
            lock: None,
            firewall: None,
            untidy: false,
            sets: Vec::new(),
            remade: Vec::new(),
            sets_retry: None,
            place_at: None,
            look_at: now + LOOK,
            last_look: now,
            fights: 0,
            replaced: 0,
            in_place: [false; 2],
            ends: HashMap::new(),
            order: BinaryHeap::new(),
            learn_at: now,
            learnt: false,
            records: Records::default(),
            troubles: Troubles::default(),
        }
    }

    fn run(&mut self, from: &Receiver<Event>) -> End {
        let mut next_tick = Instant::now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= next_tick {
                if !Arc::ptr_eq(self.config, &self.shared.config.get()) {
                    return End::Renewed;
                }
                next_tick = now + TICK;
                self.tick(now);
            } else if self.lock.is_some() && now >= self.look_at && !self.is_off() {
                // Where rules were taken away, sets may have gone with them.
                self.keep_sets(now);
                self.keep_chain(now);
            }
            let wake = match self.lock {
                Some(_) if !self.is_off() => next_tick.min(self.look_at),
                Some(_) | None => next_tick,
            };
            let next = from.try_recv().or_else(|_| {
                std::thread::sleep(COLLECT);
                from.recv_timeout(wake.saturating_duration_since(Instant::now()))
            });
            if matches!(next, Ok(Event::Banned(_) | Event::Failed(_))) {
                measure::KEEPER.took();
            }
            match next {
                Ok(Event::Banned(event)) => self.banned(event),
                Ok(Event::Failed(error)) => self.troubles.set("bans", &Err::<(), _>(error)),
                Ok(Event::Rules) => self.rules_changed(),
                Ok(Event::Learn) => self.learn_at = Instant::now(),
                Ok(Event::Renewed) => return End::Renewed,
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return End::Stopped,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        End::Stopped
    }

    fn is_off(&self) -> bool {
        self.shared.off.load(Ordering::Relaxed)
    }

    fn tick(&mut self, now: Instant) {
        let off = self.watch_off();
        // While it is off, `off --remove` may take away chain and sets.
        if self.config.firewall.backend != Backend::DryRun && self.owns(now) && !off {
            self.keep_sets(now);
            self.keep_chain(now);
            self.learn(now);
            self.tell_ended();
            self.record();
        }
        self.publish();
    }

    /// Tells the ledger what it does not know yet.
    fn record(&mut self) {
        let opened = self.shared.ledger.lock();
        let opened = opened.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(opened) = opened {
            // What runs is compared when the sets were read again, which is due now.
            self.records.open(opened);
        }
        self.records.tell(self.config, &self.ends, self.base());
    }

    /// When ends count from, seconds since the epoch.
    fn base(&self) -> f64 {
        date::now() - self.started.elapsed().as_secs_f64()
    }

    /// Whether it is off; a change is said and carried out.
    fn watch_off(&mut self) -> bool {
        let off = is_off(self.paths);
        if self.shared.off.swap(off, Ordering::Relaxed) == off {
            return off;
        }
        if off {
            log::warn!("off: every set is emptied, nobody is banned until `f2b-pipe reload`");
            // The command has done this, too, but a ban may have come in between.
            if let (Some(_), Some(firewall)) = (&self.lock, &mut self.firewall) {
                for set in &self.sets {
                    self.troubles.set(&set.name, &firewall.flush(&set.name));
                }
                self.learn_at = Instant::now();
                self.learn(self.learn_at);
            }
        } else {
            log::warn!("off no more: bans go on");
            self.place_at = Some(Instant::now());
        }
        off
    }

    /// Whether this process keeps the chain, or can from now on.
    fn owns(&mut self, now: Instant) -> bool {
        let path = self.paths.lock();
        if self.shared.yields.load(Ordering::Relaxed) {
            if !self.shared.in_use.load(Ordering::Relaxed) && self.lock.take().is_some() {
                self.forget();
            }
            return false;
        }
        if self.lock.as_ref().is_some_and(|lock| lock.holds(&path)) {
            return true;
        }
        // Somebody took the file away; whoever makes and locks the new one goes on.
        let before = self.lock.take();
        let taken = try_lock(&path).or_else(|error| {
            // The directory is made by tmpfiles.d; a host without it still wants its bans.
            match path.parent() {
                Some(dir) if error.kind() == std::io::ErrorKind::NotFound => {
                    std::fs::create_dir_all(dir)?;
                    try_lock(&path)
                }
                _ => Err(error),
            }
        });
        self.troubles.set(
            &format!("{} (needed to place the rules)", path.display()),
            &taken,
        );
        match taken {
            Ok(Some(lock)) => self.won(lock, now),
            // There is none that another could lock, and none can be made here: in a folder that came after this process
            // began ([`crate::privilege`]), say.
            // One by name is still the best there is.
            Err(_)
                if before
                    .as_ref()
                    .is_some_and(|lock| lock.is_name() || !path.exists()) =>
            {
                self.lock = before;
            }
            Err(_) => match try_name(&path) {
                Ok(Some(lock)) => self.won(lock, now),
                Ok(None) | Err(_) => return false,
            },
            Ok(None) => return false,
        }
        true
    }

    /// What is known of the kernel is for another process to know.
    fn forget(&mut self) {
        self.sets.clear();
        self.ends.clear();
        self.order.clear();
        self.firewall = None;
        self.learnt = false;
    }

    /// Keeps the rules from now on.
    fn take_up(&mut self, lock: Lock, now: Instant) {
        self.lock = Some(lock);
        self.forget();
        self.learn_at = now;
        self.place_at = Some(now);
        self.untidy = true;
    }

    fn won(&mut self, lock: Lock, now: Instant) {
        self.take_up(lock, now);
        if self.shared.listening.load(Ordering::Relaxed) {
            return;
        }
        let (shared, to) = (Arc::clone(self.shared), self.to.clone());
        let mut tables = vec![chain_name(&self.config.firewall.set_prefix)];
        tables.extend(Place::ALL.map(|place| place.table.to_owned()));
        let watching = std::thread::Builder::new()
            .name("rules".into())
            .spawn(move || {
                crate::sys::stand_back();
                watch_rules(&shared, &to, &tables);
            });
        self.shared
            .listening
            .store(watching.is_ok(), Ordering::Relaxed);
        self.troubles.set("watching the rules", &watching);
    }

    /// Takes away what is left over of another configuration, but for its bans.
    fn tidy(&mut self, firewall: &mut dyn Firewall) {
        self.untidy = false;
        let plans = Plan::all(self.config, &[]);
        if let Err(error) = firewall.remove_others(self.config, &plans) {
            // The other table may not even exist; what is wrong with ours is said when it is written.
            log::debug!("{error}");
        }
        let moved = move_bans(self.config, firewall);
        self.troubles.set("bans of the other firewall", &moved);
    }

    /// Makes the sets that are missing, with the bans that were in them, and notices those that appeared for networks.
    fn keep_sets(&mut self, now: Instant) {
        let retry = self.sets_retry.is_some_and(|at| now >= at);
        if self.sets_retry.is_some() && !retry && self.firewall.is_none() {
            return;
        }
        let opened = match self.firewall.take() {
            Some(firewall) => Ok(firewall),
            None => firewall::open(&self.config.firewall),
        };
        let kept = opened.and_then(|mut firewall| {
            if self.untidy {
                self.tidy(firewall.as_mut());
            }
            self.try_keep_sets(firewall.as_mut(), retry, now)?;
            self.firewall = Some(firewall);
            Ok(())
        });
        if kept.is_err() {
            self.sets_retry = Some(now + RETRY);
        }
        self.troubles.set("sets", &kept);
    }

    fn try_keep_sets(
        &mut self,
        firewall: &mut dyn Firewall,
        retry: bool,
        now: Instant,
    ) -> Result<(), ActError> {
        let prefix = &self.config.firewall.set_prefix;
        let names = firewall.names(prefix)?;
        let wanted = wanted(self.config, &names);
        let there = |set: &SetRef| names.binary_search(&set.name).is_ok();
        let known = |set: &SetRef| self.sets.contains(set) || self.troubles.has(&set.name);
        let gone: Vec<SetRef> = self
            .sets
            .iter()
            .filter(|set| !there(set))
            .cloned()
            .collect();
        if gone.is_empty()
            && self.remade.is_empty()
            && !retry
            && wanted.iter().all(|set| there(set) && known(set))
        {
            return Ok(());
        }
        let mut lost = std::mem::take(&mut self.remade);
        lost.retain(|set| self.sets.contains(set) && !gone.contains(set));
        let mut sets = Vec::new();
        let mut failed = false;
        let mut wanted = wanted;
        // Those of networks are only wanted for what is in them.
        wanted.extend(gone.iter().filter(|set| set.kind.on_demand()).cloned());
        for set in wanted {
            let ensured = match firewall.ensure(&set) {
                Ok(Ensured::Outdated) => {
                    log::warn!(
                        "the set {} is of another configuration; its bans move to a new one",
                        set.name
                    );
                    firewall.migrate(&set, prefix)
                }
                Ok(Ensured::Made | Ensured::There) => Ok(()),
                Err(error @ (ActError::NoIpset | ActError::NoNftables | ActError::NoRights)) => {
                    return Err(error);
                }
                Err(error) => Err(error),
            };
            self.troubles.set(&set.name, &ensured);
            match ensured {
                Ok(()) => sets.push(set),
                Err(_) => failed = true,
            }
        }
        self.sets_retry = failed.then(|| now + RETRY);
        if !gone.is_empty() || sets != self.sets {
            self.sets = sets;
            self.place_at = Some(now);
        }
        self.replaced += u64::from(!gone.is_empty());
        lost.extend(gone);
        if !lost.is_empty() {
            self.put_back(firewall, &lost)?;
        }
        Ok(())
    }

    /// Bans that are known to run are in force again in sets that were lost.
    fn put_back(&mut self, firewall: &mut dyn Firewall, lost: &[SetRef]) -> Result<(), ActError> {
        let begun = Instant::now();
        let now = self.seconds();
        let jails: HashMap<JailId, (u8, [SetRef; 4])> = jails(self.config)
            .map(|(id, jail)| {
                let sets = SetRef::of(&self.config.firewall.set_prefix, jail);
                (id, (jail.ipv6_prefix, sets))
            })
            .collect();
        let mut bans: HashMap<&SetRef, Vec<Put>> = HashMap::new();
        for ((id, who), end) in &self.ends {
            let Some((prefix, sets)) = jails.get(id) else {
                continue;
            };
            let (kind, who) = place_of(*who, *prefix);
            let ban_for = match end {
                &u32::MAX => Some(BanFor::Forever),
                end => NonZeroU32::new(end.saturating_sub(now)).map(BanFor::Timed),
            };
            let set = sets.iter().find(|set| set.kind == kind);
            if let (Some(ban_for), Some(set)) = (ban_for, set.filter(|set| lost.contains(set))) {
                bans.entry(set).or_default().push(Put {
                    who,
                    ban_for,
                    reason: "put back: the set was gone".to_owned(),
                });
            }
        }
        let mut many = 0;
        for (set, mut bans) in bans {
            // Who was banned since has a better comment.
            let mut since = HashSet::new();
            firewall.list(&set.name, &mut |member| {
                since.extend(firewall::target_of(&member));
            })?;
            bans.retain(|ban| !since.contains(&ban.who));
            many += bans.len();
            firewall.add_many(set, &bans)?;
        }
        let names: Vec<&str> = lost.iter().map(|set| set.name.as_str()).collect();
        log::warn!(
            "sets were gone: {}; they are made again, and {many} bans in force again, in {} ms",
            names.join(", "),
            begun.elapsed().as_millis()
        );
        Ok(())
    }

    fn rules_changed(&mut self) {
        if self.fights < FIGHTS {
            let soon = (Instant::now() + SETTLE).max(self.last_look + LOOK_PAUSE);
            self.look_at = self.look_at.min(soon);
        }
    }

    /// Writes the chains if that is due; else looks at them if that is due.
    fn keep_chain(&mut self, now: Instant) {
        let place = self.place_at.is_some_and(|at| now >= at);
        let look = now >= self.look_at;
        // Without sets there is nothing to write; it is due as soon as there are some.
        if self.sets.is_empty() || !(place || look) {
            if look {
                self.look_at = now + LOOK;
            }
            return;
        }
        let Some(mut firewall) = self.firewall.take() else {
            return;
        };
        let plans = Plan::all(self.config, &self.sets);
        let mut failed = false;
        let mut fought = None;
        self.in_place = [true; 2];
        let families = firewall.families();
        for (plan, family) in plans
            .iter()
            .flat_map(|plan| families.iter().map(move |family| (plan, *family)))
        {
            let found = if place {
                firewall.place(plan, family).map(|()| Found::InPlace)
            } else {
                match firewall.found(plan, family) {
                    Ok(Found::InPlace) => Ok(Found::InPlace),
                    Ok(found) => firewall.place(plan, family).map(|()| found),
                    Err(error) => Err(error),
                }
            };
            let named = firewall.named(plan, family);
            match found {
                Ok(Found::InPlace | Found::Incomplete) | Err(_) => {}
                Ok(found) => {
                    fought = Some(named.clone());
                    self.replaced += 1;
                    log::warn!("the {named} {}; it is back in place", found.words());
                }
            }
            let [inet, inet6] = &mut self.in_place;
            match (families, family) {
                ([_], _) => {
                    *inet &= found.is_ok();
                    *inet6 &= found.is_ok();
                }
                (_, Family::Inet) => *inet &= found.is_ok(),
                (_, Family::Inet6) => *inet6 &= found.is_ok(),
            }
            failed |= found.is_err();
            self.troubles.set(&named, &found);
        }
        self.firewall = Some(firewall);
        let now = Instant::now();
        self.last_look = now;
        self.look_at = now + LOOK;
        self.place_at = failed.then(|| now + RETRY);
        let Some(named) = fought else {
            self.fights = if look { 0 } else { self.fights };
            return;
        };
        self.fights += 1;
        if self.fights == FIGHTS {
            log::warn!(
                "another program changes the rules again and again; the {named} is put back once a minute from now on"
            );
        }
    }

    fn banned(&mut self, event: BanEvent) {
        match event.banned {
            Banned::New | Banned::NewSet | Banned::Already => {
                self.troubles.set("bans", &Ok::<_, ActError>(()));
            }
        }
        if self.lock.is_none() {
            return;
        }
        if event.banned == Banned::NewSet
            && let Some(jail) = jail(self.config, event.jail)
        {
            // A set can only vanish after the rule that looked into it.
            self.rules_changed();
            let (kind, _) = place_of(event.who, jail.ipv6_prefix);
            let prefix = &self.config.firewall.set_prefix;
            self.remade.push(SetRef::one(prefix, jail, kind));
        }
        // Of one that stood already the next reading of the sets says whether it was prolonged.
        if let (BanFor::Timed(secs), Some(jail)) = (event.ban_for, jail(self.config, event.jail)) {
            let (_, who) = place_of(event.who, jail.ipv6_prefix);
            let end = self.seconds().saturating_add(secs.get());
            let key = (event.jail, who);
            if event.banned == Banned::Already && self.ends.contains_key(&key) {
                return;
            }
            self.ends.insert(key, end);
            self.records.changed(self.config, key);
            self.order.push(Reverse((end, (event.jail, who))));
        }
    }

    /// Seconds since the start, rounded up, so that no ban is asked for before its end.
    fn seconds(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs() + 1).unwrap_or(u32::MAX)
    }

    /// Reads the sets: bans that others made become known, bans that others took away are told, and those that last longer
    /// than the kernel can count are renewed.
    fn learn(&mut self, now: Instant) {
        if now < self.learn_at {
            return;
        }
        let Some(mut firewall) = self.firewall.take() else {
            return;
        };
        let read = self.read(firewall.as_mut());
        self.troubles.set("reading the sets", &read);
        match read {
            Ok(Some(running)) => self.learnt(firewall.as_mut(), running, now),
            // A set is gone; it will be there again, with its bans.
            Ok(None) => self.look_at = now,
            // What was not read has not ended.
            Err(_) => self.learn_at = now + RETRY,
        }
        self.firewall = Some(firewall);
    }

    /// Every ban that runs; `None`: a set has just gone.
    fn read(&self, firewall: &mut dyn Firewall) -> Result<Option<HashMap<Key, u32>>, ActError> {
        let mut running: HashMap<Key, u32> = HashMap::with_capacity(self.ends.len());
        let mut result = Ok(());
        let prefix = &self.config.firewall.set_prefix;
        let (base, time) = (self.seconds(), Utc::now());
        for (id, jail) in jails(self.config) {
            for set in SetRef::of(prefix, jail) {
                if !self.sets.contains(&set) {
                    continue;
                }
                let mut renew = Vec::new();
                let mut many = 0;
                let listed = firewall.list(&set.name, &mut |member| {
                    many += 1;
                    let Some(who) = firewall::target_of(&member) else {
                        return;
                    };
                    let long = ipset::until(&member.comment);
                    let left = match long.map(|end| ipset::rest(end, time)) {
                        Some(Some(BanFor::Timed(secs))) => Some(secs.get()),
                        Some(Some(BanFor::Forever) | None) | None => member.left,
                    };
                    let end = left.map_or(u32::MAX, |left| base.saturating_add(left));
                    running.insert((id, who), end);
                    if let Some(ban_for) = renewal(&member) {
                        renew.push((who, ban_for, member.comment));
                    }
                });
                result = result.and(listed);
                for (who, ban_for, comment) in renew {
                    let reason = ipset::reason_of(&comment);
                    let renewed = firewall.add(&set, who, ban_for, reason, Add::Replace);
                    result = result.and(renewed.map(drop));
                }
                let surplus = firewall.surplus(many);
                if surplus > 0 {
                    log::warn!(
                        "the set {} holds {many} bans; {surplus} that end soonest are taken out",
                        set.name
                    );
                    result = result.and(firewall::shorten(firewall, &set, surplus));
                }
            }
        }
        result?;
        let names = firewall.names(prefix)?;
        let there = |set: &SetRef| names.binary_search(&set.name).is_ok();
        Ok(self.sets.iter().all(there).then_some(running))
    }

    /// Takes over what runs, and tells what ended early.
    fn learnt(&mut self, firewall: &mut dyn Firewall, running: HashMap<Key, u32>, now: Instant) {
        let before = std::mem::replace(&mut self.ends, running);
        let known = std::mem::replace(&mut self.learnt, true);
        for (key, end) in before {
            if !known || self.ends.contains_key(&key) {
                continue;
            }
            // A listing may have missed one that came in meanwhile.
            if self.is_in(firewall, key) {
                self.ends.insert(key, end);
            } else {
                tell_unban(self.config, key);
            }
        }
        self.records.compare(self.config, &self.ends, self.base());
        self.order = self
            .ends
            .iter()
            .filter(|(_, end)| **end != u32::MAX)
            .map(|(key, end)| Reverse((*end, *key)))
            .collect();
        self.learn_at = Instant::now() + LEARN.max(now.elapsed() * LEARN_REST);
    }

    /// Whether the kernel has it; if it cannot be asked, yes.
    fn is_in(&self, firewall: &mut dyn Firewall, (id, who): Key) -> bool {
        let Some(jail) = jail(self.config, id) else {
            return false;
        };
        let (kind, who) = place_of(who, jail.ipv6_prefix);
        let set = SetRef::one(&self.config.firewall.set_prefix, jail, kind);
        firewall.test(&set, who) != Ok(false)
    }

    /// Tells of the bans that have ended by themselves, each once the kernel says so.
    fn tell_ended(&mut self) {
        let Some(mut firewall) = self.firewall.take() else {
            return;
        };
        let now = u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX);
        while let Some(Reverse((end, key))) = self.order.peek().copied()
            && end <= now
        {
            self.order.pop();
            if self.ends.get(&key) != Some(&end) {
                continue;
            }
            if self.is_in(firewall.as_mut(), key) {
                // Prolonged, which the next reading shows, or still in its last second.
                self.ends.insert(key, now + 1);
                self.order.push(Reverse((now + 1, key)));
            } else {
                self.ends.remove(&key);
                tell_unban(self.config, key);
                self.records.changed(self.config, key);
            }
        }
        self.firewall = Some(firewall);
    }

    fn publish(&self) {
        let [chain, chain6] = self.in_place;
        let owner = self.lock.is_some() && !self.shared.yields.load(Ordering::Relaxed);
        let health = Health {
            owner,
            off: self.is_off(),
            firewall: self
                .firewall
                .as_ref()
                .map_or_else(String::new, |firewall| firewall.name().to_owned()),
            chain: owner && chain,
            chain6: owner && chain6,
            sets: self.sets.len(),
            bans: self.ends.len(),
            replaced: self.replaced,
            dropped: 0,
            troubles: self.troubles.shown(),
        };
        let shared = self.shared.health.lock();
        *shared.unwrap_or_else(PoisonError::into_inner) = health;
    }
}

/// Takes over the bans of the other kind of firewall, which `firewall.backend` named before, and leaves nobody in its sets.
fn move_bans(config: &Config, to: &mut dyn Firewall) -> Result<(), ActError> {
    let prefix = &config.firewall.set_prefix;
    let from: Result<Box<dyn Firewall>, ActError> = match to.name() {
        "ipset" => Nft::open(prefix).map(|nft| Box::new(nft) as _),
        _ => Ipset::open().map(|ipset| Box::new(ipset) as _),
    };
    let Ok(mut from) = from else {
        return Ok(());
    };
    let ours = from.ours(prefix).unwrap_or_default();
    if ours.is_empty() {
        return Ok(());
    }
    let mut many = 0;
    let time = Utc::now();
    for (_, jail) in jails(config) {
        for set in SetRef::of(prefix, jail) {
            if !ours.contains(&set.name) {
                continue;
            }
            let mut bans = Vec::new();
            from.list(&set.name, &mut |member| {
                let long = ipset::until(&member.comment).map(|end| ipset::rest(end, time));
                let ban_for = match (long, member.left) {
                    (Some(rest), _) => rest,
                    (None, None) => Some(BanFor::Forever),
                    (None, Some(secs)) => NonZeroU32::new(secs).map(BanFor::Timed),
                };
                let who = firewall::target_of(&member).map(|who| place_of(who, jail.ipv6_prefix));
                if let (Some(ban_for), Some((_, who))) = (ban_for, who) {
                    let reason = ipset::reason_of(&member.comment).to_owned();
                    bans.push(Put {
                        who,
                        ban_for,
                        reason,
                    });
                }
            })?;
            if bans.is_empty() {
                continue;
            }
            many += bans.len();
            to.ensure(&set)?;
            to.add_many(&set, &bans)?;
            from.flush(&set.name)?;
        }
    }
    if from.name() == "nftables" {
        from.remove(config)?;
    }
    if many > 0 {
        log::warn!(
            "{many} bans moved from {} to {} (firewall.backend)",
            from.name(),
            to.name()
        );
    }
    if from.name() == "ipset" {
        // Nothing is run here, and rules that look into empty sets turn nobody away.
        log::info!(
            "the rules and empty sets of ipset are left; f2b-pipe off --remove takes away those, too"
        );
    }
    Ok(())
}

fn tell_unban(config: &Config, (id, who): Key) {
    if let Some(jail) = jail(config, id) {
        notify::unban(&jail.name, &who.shown(jail.ipv6_prefix));
    }
}

/// How long a ban beyond the kernel's longest still has to last, if it is time to tell the kernel.
fn renewal(member: &Member) -> Option<BanFor> {
    let left = member.left.filter(|left| *left < RENEW_BELOW_SECS)?;
    let ban_for = ipset::rest(ipset::until(&member.comment)?, Utc::now())?;
    match ban_for {
        // Within a minute it is the same end.
        BanFor::Timed(secs) if secs.get() > left.saturating_add(60) => Some(ban_for),
        BanFor::Timed(_) | BanFor::Forever => None,
    }
}

/// Listens for rules that are deleted or inserted in our tables, and passes it on.
fn watch_rules(shared: &Shared, to: &SyncSender<Event>, tables: &[String]) {
    /// NFNLGRP_NFTABLES (7) as a bit of nl_groups.
    const GROUP: u32 = 1 << 6;
    let stopped = || shared.stop.load(Ordering::Relaxed);
    while !stopped() {
        let Ok(mut socket) = Socket::open(SockProtocol::NetlinkNetFilter, GROUP) else {
            // Without rights nothing else works either, and that is said; the look once a minute remains.
            return;
        };
        let mut listening = true;
        while listening && !stopped() {
            let mut ours = false;
            match socket.news(|kind, payload| ours |= concerns(tables, kind, payload)) {
                Ok(()) | Err(WireError::Malformed) => {}
                // News were lost (ENOBUFS): perhaps ours.
                Err(_) => (ours, listening) = (true, false),
            }
            if ours && to.try_send(Event::Rules).is_err() {
                // A busy keeper looks at the chain anyway, at the latest in a minute.
            }
        }
    }
}

/// Whether a message of nf_tables is about one of `tables`, a chain, set or rule in it, and can have moved us or have to do
/// with a set that needs a rule: linux/netfilter/nf_tables.h NFT_MSG_NEWTABLE, DELTABLE, DELCHAIN, NEWRULE, DELRULE, NEWSET,
/// DELSET; the table's name is attribute 1 in each.
fn concerns(tables: &[String], kind: u16, payload: &[u8]) -> bool {
    kind >> 8 == nft::SUBSYSTEM
        && matches!(kind & 0xff, 0 | 2 | 5 | 6 | 8 | 9 | 11)
        && netlink::attrs(payload.get(4..).unwrap_or_default())
            .any(|(attr, value)| attr == 1 && tables.contains(&netlink::text(value)))
}
