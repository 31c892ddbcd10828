//! The thread that asks the rules, and writes the state file. Others only leave word with it.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use super::host::Host;
use super::own::Own;
use super::quiet::{FLOOR_SECS, Past};
use super::still::Suspect;
use super::{board, why};
use crate::act::jail;
use crate::act::keeper;
use crate::client::Client;
use crate::config::{Backend, Config, RuntimePaths};
use crate::date;
use crate::exempt::Target;
use crate::hit::JailId;
use crate::notify::measure::Measured;
use crate::notify::state::{State, StateFile, others};
use crate::privilege;
use crate::say::{Message, send};
use crate::tee;

/// How often a process looks at itself.
const TICK: Duration = Duration::from_secs(1);
/// How often the process in charge looks at all of them.
const HOST: Duration = Duration::from_secs(5);
/// How often it writes down what is known of sources.
const NOTE: Duration = Duration::from_secs(60);
/// Between two looks at why somebody still comes; and looking takes at most one part in [`WHY_REST`] of a processor, as a set
/// may hold a million bans.
const WHY: Duration = Duration::from_secs(5);
const WHY_REST: u32 = 50;
/// Suspects that wait; the next ones are as good.
const SUSPECTS: usize = 16;
/// When nobody came any more for so long a ban that did not hold is over.
const HELD: Duration = Duration::from_secs(600);

/// What a watcher works with.
pub struct Setting {
    /// All jails.
    pub config: Arc<Config>,
    /// Where the state files are.
    pub paths: RuntimePaths,
    /// Who keeps sets and chain.
    pub keeper: Option<keeper::Hand>,
    /// How the log does.
    pub tee: Option<tee::Gauge>,
    /// The process as it begins.
    pub state: State,
}

/// A hold on the thread. Dropping it ends the thread and takes the state file away.
#[derive(Debug)]
pub struct Silence {
    hand: Hand,
    thread: Option<JoinHandle<()>>,
    file: (PathBuf, PathBuf),
}

/// Where to leave word. Nothing here waits.
#[derive(Clone, Debug)]
pub struct Hand {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Inbox {
    stop: bool,
    /// Another configuration from now on.
    config: Option<Arc<Config>>,
    state: State,
    suspects: VecDeque<Suspect>,
    /// By jail: who could not be held, and the proxy he came through.
    proxied: BTreeMap<JailId, (String, Client)>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; false: no longer, the process is about to end.
    fn pause(&self, time: Duration) -> bool {
        let inbox = self.lock();
        let waited = self
            .wake
            .wait_timeout_while(inbox, time, |inbox| !inbox.stop);
        let (inbox, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !inbox.stop
    }
}

impl Hand {
    /// Another configuration from now on.
    pub fn renew(&self, config: &Arc<Config>) {
        self.shared.lock().config = Some(Arc::clone(config));
    }

    /// Somebody is banned and still comes.
    pub fn suspect(&self, suspect: Suspect) {
        // Whoever looks just now has suspects enough.
        if let Ok(mut inbox) = self.shared.inbox.try_lock()
            && inbox.suspects.len() < SUSPECTS
        {
            inbox.suspects.push_back(suspect);
        }
    }

    /// `who` reached the limit of a jail and comes through `proxy`.
    pub fn proxied(&self, jail: JailId, who: String, proxy: Client) {
        if let Ok(mut inbox) = self.shared.inbox.try_lock() {
            inbox.proxied.insert(jail, (who, proxy));
        }
    }
}

impl std::ops::Deref for Silence {
    type Target = Hand;

    fn deref(&self) -> &Hand {
        &self.hand
    }
}

impl Silence {
    /// Starts the thread; the state file is written at once.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(setting: Setting) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            inbox: Mutex::new(Inbox {
                state: setting.state.clone(),
                ..Inbox::default()
            }),
            wake: Condvar::new(),
        });
        let hand = Hand {
            shared: Arc::clone(&shared),
        };
        let pid = setting.state.pid;
        let file = (setting.paths.state(pid), setting.paths.state_else(pid));
        let path = file.clone();
        let thread = std::thread::Builder::new()
            .name("silence".into())
            .spawn(move || {
                crate::sys::stand_back();
                Watcher::new(setting, path).stay(&shared);
            })?;
        Ok(Self {
            hand,
            thread: Some(thread),
            file,
        })
    }

    /// For others to leave word.
    #[must_use]
    pub fn hand(&self) -> Hand {
        self.hand.clone()
    }

    /// What was counted so far. `false`: the thread is busy with the last; nothing was changed, say it again.
    pub fn counted(&self, count: impl FnOnce(&mut State)) -> bool {
        match self.hand.shared.inbox.try_lock() {
            Ok(mut inbox) => {
                count(&mut inbox.state);
                true
            }
            Err(_) => false,
        }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.hand.shared.lock().stop = true;
        self.hand.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic was told where it happened.
            thread.join().ok();
        }
        send(Message::State(Box::new(StateFile {
            path: self.file.0.clone(),
            otherwise: self.file.1.clone(),
            state: None,
        })));
    }
}

/// The thread's side.
struct Watcher {
    setting: Setting,
    file: (PathBuf, PathBuf),
    began: Instant,
    own: Own,
    /// While this process is in charge.
    host: Option<Host>,
    /// What is wrong with it, while this process is.
    of_host: Vec<String>,
    floor: f64,
    next_host: Instant,
    next_note: Instant,
    next_why: Instant,
    /// By what the trouble is about: since when nobody came any more.
    seen_still: BTreeMap<String, Instant>,
    written: Option<State>,
    /// Messages that were lost, and when the last one was.
    lost: u64,
    lost_at: Option<Instant>,
}

impl Watcher {
    fn new(setting: Setting, file: (PathBuf, PathBuf)) -> Self {
        let now = Instant::now();
        // Test hook: a silence that is told after so many seconds.
        let floor = std::env::var("F2B_PIPE_TEST_QUIET_SECS");
        Self {
            setting,
            file,
            began: now,
            own: Own::default(),
            host: None,
            of_host: Vec::new(),
            floor: floor
                .ok()
                .and_then(|secs| secs.parse().ok())
                .unwrap_or(FLOOR_SECS),
            next_host: now,
            next_note: now + NOTE,
            next_why: now,
            seen_still: BTreeMap::new(),
            written: None,
            lost: 0,
            lost_at: None,
        }
    }

    fn stay(mut self, shared: &Shared) {
        loop {
            let mut inbox = shared.lock();
            if inbox.stop {
                break;
            }
            let mut state = inbox.state.clone();
            let suspects = match Instant::now() >= self.next_why {
                true => std::mem::take(&mut inbox.suspects),
                false => VecDeque::new(),
            };
            let mut proxied = std::mem::take(&mut inbox.proxied);
            if let Some(config) = inbox.config.take() {
                self.setting.config = config;
                // Their jails may have other numbers now.
                proxied.clear();
                inbox.suspects.clear();
            }
            drop(inbox);

            self.look(&mut state);
            for (id, (who, proxy)) in proxied {
                self.proxied(id, &who, proxy);
            }
            self.still(suspects, shared);
            state.troubles = board().shown();
            state.troubles.extend(privilege::troubles());
            state.privileges = privilege::report();
            self.write(state);

            shared.pause(TICK);
        }
        self.note();
    }

    /// Asks the rules.
    fn look(&mut self, state: &mut State) {
        if let Some(keeper) = &self.setting.keeper {
            state.act = keeper.health();
        }
        if let Some(tee) = &self.setting.tee {
            let stats = tee.stats();
            (state.tee_waiting, state.tee_dropped) = (stats.waiting, stats.dropped);
            state.tee_refused = stats.refused;
        }
        state.measured = Measured::now();
        state.messages_lost = crate::say::lost() + crate::notify::logfile::lost();
        board().obey(self.own.look(state, self.began.elapsed()));
        let now = Instant::now();
        if state.messages_lost > self.lost {
            self.lost = state.messages_lost;
            self.lost_at = Some(now);
            // It was said where it can be: on stderr.
            let text = format!(
                "{} of them to syslog, stderr or fail2ban's log were lost: nobody reads /dev/log, or a disk is full",
                self.lost
            );
            board().show("messages", text);
        } else if self.lost_at.is_some_and(|at| at.elapsed() >= HELD) {
            self.lost_at = None;
            board().forget("messages");
        }
        if now < self.next_host {
            return;
        }
        self.next_host = now + HOST;
        let dry = self.setting.config.firewall.backend == Backend::DryRun;
        if !(state.act.owner || dry) {
            // Another process tells of the host from now on.
            self.host = None;
            for about in std::mem::take(&mut self.of_host) {
                board().forget(&about);
            }
            return;
        }
        let paths = &self.setting.paths;
        let host = self
            .host
            .get_or_insert_with(|| Host::new(pasts(&paths.pasts())));
        let others = others(paths, state.pid);
        let says = host.look(
            state,
            &others,
            &self.setting.config,
            date::now(),
            self.floor,
        );
        let wrong = says.iter().filter(|says| says.wrong.is_some());
        self.of_host = wrong.map(|says| says.about.clone()).collect();
        board().obey(says);
        if now >= self.next_note {
            self.next_note = now + NOTE;
            self.note();
        }
    }

    /// Writes down what is known of sources. Where that cannot be, it is learnt anew after a restart.
    fn note(&self) {
        let Some(host) = &self.host else { return };
        let path = self.setting.paths.pasts();
        let beside = path.with_extension("past.new");
        if let Ok(text) = serde_json::to_vec(host.pasts()) {
            let written = std::fs::write(&beside, text);
            written.and_then(|()| std::fs::rename(&beside, &path)).ok();
        }
    }

    fn proxied(&mut self, id: JailId, who: &str, proxy: Client) {
        let Some(jail) = jail(&self.setting.config, id) else {
            return;
        };
        let about = format!("bans of jail {}", jail.name);
        board().tell(
            &about,
            format!(
                "{who} cannot be held here: he comes through {proxy}, and a packet filter sees only that; block him at {proxy}, or with \
                 Require not ip in httpd"
            ),
        );
        self.seen_still.insert(about, Instant::now());
    }

    /// Looks why somebody still comes; at the end of the process nobody waits for that.
    fn still(&mut self, suspects: VecDeque<Suspect>, shared: &Shared) {
        let config = &self.setting.config;
        let mut looked: Vec<JailId> = Vec::new();
        for suspect in suspects {
            let Some(jail) = jail(config, suspect.jail) else {
                continue;
            };
            // One of each jail: the others come the same way.
            if looked.contains(&suspect.jail) {
                continue;
            }
            let before = worked();
            let reason = why::look(config, &suspect, &|time| shared.pause(time));
            if !shared.pause(Duration::ZERO) {
                return;
            }
            let cost = worked().saturating_sub(before);
            self.next_why = Instant::now() + WHY.max(cost.saturating_mul(WHY_REST));
            if let Ok(Some(reason)) = reason.map(|evidence| why::reason(&evidence)) {
                looked.push(suspect.jail);
                let about = format!("bans of jail {}", jail.name);
                let who = Target::Client(suspect.who).shown(jail.ipv6_prefix);
                board().tell(&about, reason.told(jail, &who.to_string()));
                self.seen_still.insert(about, Instant::now());
            }
        }
        self.seen_still.retain(|about, seen| {
            let held = seen.elapsed() >= HELD;
            if held {
                board().over(
                    about,
                    "nobody who is banned has come any more for 10 minutes",
                );
            }
            !held
        });
    }

    /// Has the state written, if there is anything new.
    fn write(&mut self, state: State) {
        if self.written.as_ref() == Some(&state) {
            return;
        }
        self.written = Some(state.clone());
        send(Message::State(Box::new(StateFile {
            path: self.file.0.clone(),
            otherwise: self.file.1.clone(),
            state: Some(state),
        })));
    }
}

/// What is known of sources.
fn pasts(path: &Path) -> BTreeMap<String, Past> {
    let text = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// What this thread has used of a processor, in the kernel, too. Not what it slept: looking for his connections is mostly
/// that, two seconds if there are none, and whoever looks next is not to wait a hundred.
fn worked() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
