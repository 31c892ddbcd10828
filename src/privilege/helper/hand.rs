//! The side of `run` and `watch`: the same functions as where they run programs by themselves.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

use super::wire::{Wire, readable};
use super::{Chain, ChainWork, Event, Request, Told};
use crate::act::command::{self, IgnoreCommand, Pool, Spec, SpecError, Ticket};
use crate::act::plan::{Family, Found, Place, Plan};
use crate::act::tool::ToolError;
use crate::config::Blocktype;
use crate::source::journal;

/// Requests that may wait while it is behind, bytes; it only sorts them, so that is a moment.
const WAITING_BYTES: usize = 32 * 1024 * 1024;
/// Longer than what each asks for can take: `iptables -w 5` three times, `ignorecommand`, an open(2), a fork.
const CHAIN: Duration = Duration::from_secs(35);
const IGNORE: Duration = Duration::from_secs(70);
const START: Duration = Duration::from_secs(5);
/// Beside what actions are given for their end.
const FINISH: Duration = Duration::from_secs(2);
/// A configuration with fail2ban's folder takes a second on a small machine.
const RELOAD: Duration = Duration::from_secs(30);
/// How long its status is waited for when it has ended.
const BURIAL: Duration = Duration::from_secs(1);

/// It was forked, and there may be no threads yet.
static FORKED: Mutex<Option<(Wire, Pid)>> = Mutex::new(None);

/// A hold on it, for all threads.
#[derive(Debug)]
pub struct Hand {
    to: Sender<Parcel>,
    pid: Pid,
    wire: Wire,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes that wait.
    waiting: AtomicUsize,
    /// Requests were dropped, and that was said.
    dropping: AtomicBool,
    troubles: Mutex<Vec<String>>,
    /// We end, and it should.
    ending: AtomicBool,
    /// It was waited for.
    buried: (Mutex<bool>, Condvar),
}

#[derive(Debug)]
struct Parcel {
    text: Vec<u8>,
    answer: Option<OwnedFd>,
}

/// What a request takes while it waits.
fn weight(text: &[u8]) -> usize {
    text.len() + size_of::<Parcel>()
}

pub(super) fn forked(wire: Wire, pid: Pid) {
    *FORKED.lock().unwrap_or_else(PoisonError::into_inner) = Some((wire, pid));
}

/// Starts the threads that speak with it; `None`: there is none, or no threads, which is said.
pub(super) fn begin() -> Option<Hand> {
    let forked = FORKED.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (wire, pid) = forked?;
    let started = start(wire, pid);
    started
        .inspect_err(|error| {
            log::error!(
                "cannot start a thread: {error}; iptables, journalctl and actions do not run"
            );
        })
        .ok()
}

fn start(wire: Wire, pid: Pid) -> io::Result<Hand> {
    let (to, parcels) = channel();
    let shared = Arc::new(Shared::default());
    let again = || Ok::<_, io::Error>(Wire::from(wire.as_fd().try_clone_to_owned()?));
    let (out, ours) = (again()?, again()?);
    let theirs = Arc::clone(&shared);
    thread::Builder::new()
        .name("helper-out".into())
        .spawn(move || {
            crate::sys::stand_back();
            speak(&out, &parcels, &theirs);
        })?;
    let theirs = Arc::clone(&shared);
    thread::Builder::new()
        .name("helper-in".into())
        .spawn(move || {
            crate::sys::stand_back();
            listen(&wire, pid, &theirs);
        })?;
    Ok(Hand {
        to,
        pid,
        wire: ours,
        shared,
    })
}

fn speak(wire: &Wire, parcels: &Receiver<Parcel>, shared: &Shared) {
    for Parcel { text, answer } in parcels {
        let files: Vec<_> = answer.iter().map(OwnedFd::as_fd).collect();
        // It has ended: the other thread says so, and whoever asked sees it, as the answer's end is dropped here.
        let sent = wire.send_text(&text, &files);
        shared.waiting.fetch_sub(weight(&text), Ordering::Relaxed);
        if sent.is_err() {
            return;
        }
    }
}

fn listen(wire: &Wire, pid: Pid, shared: &Shared) {
    let set = |troubles| {
        *shared
            .troubles
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = troubles;
    };
    while let Ok(Some((Told { troubles }, _))) = wire.receive() {
        set(troubles);
    }
    let how = bury(pid);
    let (buried, told) = &shared.buried;
    *buried.lock().unwrap_or_else(PoisonError::into_inner) = true;
    told.notify_all();
    if shared.ending.load(Ordering::Relaxed) {
        return;
    }
    let text = format!(
        "has ended ({how}), so no rule is put back, no journal is read and no action runs until the next restart: systemctl restart \
         f2b-pipe, apachectl graceful. Bans go on"
    );
    log::error!("the helper process {text}");
    set(vec![format!("the helper process {text}")]);
}

/// How it ended.
fn bury(pid: Pid) -> String {
    let until = Instant::now() + BURIAL;
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return format!("exit code {code}"),
            Ok(WaitStatus::Signaled(_, signal, _)) => return signal.to_string(),
            Ok(_) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
            Ok(_) | Err(_) => return "why is not known".to_owned(),
        }
    }
}

impl Hand {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// What is wrong with it or what it does.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let troubles = self.shared.troubles.lock();
        troubles.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets it go, and waits a moment for its end.
    pub fn end(&self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        let wire = self.wire.as_fd().as_raw_fd();
        nix::sys::socket::shutdown(wire, nix::sys::socket::Shutdown::Both).ok();
        let (buried, told) = &self.shared.buried;
        let buried = buried.lock().unwrap_or_else(PoisonError::into_inner);
        drop(told.wait_timeout_while(buried, BURIAL, |buried| !*buried));
    }

    /// Leaves a request for it. Never waits; what finds no room is dropped, which is said.
    fn leave(&self, request: &Request, answer: Option<Wire>) -> io::Result<()> {
        let text = serde_json::to_vec(request)?;
        let weight = weight(&text);
        let waiting = self.shared.waiting.fetch_add(weight, Ordering::Relaxed);
        let answer = answer.map(OwnedFd::from);
        let parcel = Parcel { text, answer };
        if waiting > WAITING_BYTES || self.to.send(parcel).is_err() {
            self.shared.waiting.fetch_sub(weight, Ordering::Relaxed);
            if !self.shared.dropping.swap(true, Ordering::Relaxed) {
                log::error!(
                    "the helper process (pid {}) takes no more: what actions should be told of is lost",
                    self.pid
                );
            }
            return Err(io::Error::other(
                "the helper process has ended or stands still",
            ));
        }
        self.shared.dropping.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Asks, and waits for the answer.
    fn ask<T: DeserializeOwned>(
        &self,
        request: &Request,
        patience: Duration,
    ) -> io::Result<(T, Vec<OwnedFd>)> {
        let (ours, theirs) = Wire::pair()?;
        self.leave(request, Some(theirs))?;
        match ours.receive_within(patience) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(io::Error::other("the helper process has ended")),
            Err(error) => Err(error),
        }
    }

    fn chain<T: DeserializeOwned>(
        &self,
        what: ChainWork,
        family: Family,
        plan: Option<&Plan>,
    ) -> Result<T, ToolError> {
        let sets: BTreeSet<&str> = plan
            .into_iter()
            .flat_map(|plan| &plan.rules)
            .map(|rule| rule.set.name.as_str())
            .collect();
        let request = Request::Chain(Chain {
            what,
            v6: family == Family::Inet6,
            sets: sets.into_iter().map(str::to_owned).collect(),
        });
        let told = |error: io::Error| ToolError::Told(error.to_string());
        let (answer, _) = self
            .ask::<Result<T, String>>(&request, CHAIN)
            .map_err(told)?;
        answer.map_err(ToolError::Told)
    }

    /// [`crate::act::chain::look`].
    ///
    /// # Errors
    /// iptables does not work, or it has ended.
    pub fn look(&self, plan: &Plan, family: Family) -> Result<Found, ToolError> {
        let reject = plan.place == Place::of(Blocktype::Reject);
        self.chain(ChainWork::Look { reject }, family, Some(plan))
    }

    /// [`crate::act::chain::place`].
    ///
    /// # Errors
    /// iptables does not work, or it has ended.
    pub fn place(&self, plan: &Plan, family: Family) -> Result<(), ToolError> {
        let reject = plan.place == Place::of(Blocktype::Reject);
        self.chain(ChainWork::Place { reject }, family, Some(plan))
    }

    /// [`crate::act::chain::remove_others`], than those of the configuration.
    ///
    /// # Errors
    /// iptables does not work, or it has ended.
    pub fn remove_others(&self, family: Family) -> Result<(), ToolError> {
        self.chain(ChainWork::RemoveOthers, family, None)
    }

    /// Starts a journalctl: its stdout, its stderr, and a hold on it.
    ///
    /// # Errors
    /// It cannot be started, as by [`std::process::Command::spawn`].
    pub fn journal(&self, wanted: journal::Wanted) -> io::Result<(File, File, Life)> {
        let (answer, files) =
            self.ask::<Result<u32, (i32, String)>>(&Request::Journal(wanted), START)?;
        let pid = answer.map_err(|(code, text)| match code {
            0 => io::Error::other(text),
            code => io::Error::from_raw_os_error(code),
        })?;
        let [out, err, life] = <[OwnedFd; 3]>::try_from(files)
            .map_err(|_| io::Error::other("the helper process sent no pipes"))?;
        let life = Life {
            wire: life.into(),
            pid,
        };
        Ok((out.into(), err.into(), life))
    }

    /// Opens the log of `--tee`.
    ///
    /// # Errors
    /// As by open(2), or it has ended.
    pub fn tee(&self) -> io::Result<File> {
        let (answer, files) = self.ask::<Result<(), i32>>(&Request::Tee, START)?;
        answer.map_err(io::Error::from_raw_os_error)?;
        let file = files.into_iter().next();
        file.map(File::from)
            .ok_or_else(|| io::Error::other("the helper process sent no file"))
    }

    /// Has it read the configuration anew.
    ///
    /// # Errors
    /// It has ended, or takes too long.
    pub fn reload(&self) -> io::Result<()> {
        self.ask::<()>(&Request::Reload, RELOAD).map(drop)
    }
}

/// A program that it started for us. Dropping this kills the program.
#[derive(Debug)]
pub struct Life {
    wire: Wire,
    pid: u32,
}

impl Life {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has. May be asked once after that.
    ///
    /// # Errors
    /// The helper has ended, and nobody knows.
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        if !readable(&[self.wire.as_fd()], Some(Duration::ZERO))? {
            return Ok(None);
        }
        match self.wire.receive::<i32>()? {
            Some((status, _)) => Ok(Some(ExitStatus::from_raw(status))),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Kills it; its status comes a moment later.
    pub fn kill(&self) {
        // It may have ended.
        let write = nix::sys::socket::Shutdown::Write;
        nix::sys::socket::shutdown(self.wire.as_fd().as_raw_fd(), write).ok();
    }
}

/// Where actions of jails run: here, or in the helper.
#[derive(Debug)]
pub enum Actions {
    /// In threads of this process.
    Here(command::Jail),
    /// In the helper, by the jail's name.
    There(&'static Hand, String),
}

impl Actions {
    /// Those of a jail, which start. `pool` is made if there is none and it is needed.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(
        jail: &str,
        specs: Vec<Spec>,
        pool: &mut Option<Pool>,
        settings: &command::Settings,
    ) -> io::Result<(Self, Vec<SpecError>)> {
        if let Some(hand) = super::helper() {
            let there = Self::There(hand, jail.to_owned());
            there.tell(Event::Start);
            return Ok((there, Vec::new()));
        }
        if pool.is_none() {
            *pool = Some(Pool::new(settings)?);
        }
        let Some(pool) = pool else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let (started, errors) = pool.jail(jail, specs);
        started.start();
        Ok((Self::Here(started), errors))
    }

    fn tell(&self, event: Event) {
        if let Self::There(hand, jail) = self {
            let jail = jail.clone();
            // What is lost was said.
            hand.leave(&Request::Event { jail, event }, None).ok();
        }
    }

    /// Somebody is banned, or was and is restored (`ticket.restored`).
    pub fn ban(&self, ticket: Ticket) {
        match self {
            Self::Here(jail) => jail.ban(ticket),
            Self::There(..) => self.tell(Event::Ban(ticket)),
        }
    }

    /// A ban lasts longer than was said at first.
    pub fn prolong(&self, ticket: Ticket) {
        match self {
            Self::Here(jail) => jail.prolong(ticket),
            Self::There(..) => self.tell(Event::Prolong(ticket)),
        }
    }

    /// A ban has ended.
    pub fn unban(&self, ticket: Ticket) {
        match self {
            Self::Here(jail) => jail.unban(ticket),
            Self::There(..) => self.tell(Event::Unban(ticket)),
        }
    }

    /// The jail stops; `held` are the bans that it still has.
    pub fn stop(self, held: Vec<Ticket>) {
        match self {
            Self::Here(jail) => jail.stop(held),
            Self::There(..) => self.tell(Event::Stop(held)),
        }
    }

    /// The configuration was read again; see [`command::Jail::reload`]. The helper takes what it has read by itself.
    #[must_use]
    pub fn reload(&mut self, specs: Vec<Spec>, held: Vec<Ticket>) -> Vec<SpecError> {
        match self {
            Self::Here(jail) => jail.reload(specs, held),
            Self::There(..) => {
                self.tell(Event::Reload(held));
                Vec::new()
            }
        }
    }

    /// All jails' come to their end, at most within `patience`; returns how many orders were not carried out.
    #[must_use]
    pub fn finish(pool: Option<Pool>, patience: Duration) -> usize {
        let here = pool.map_or(0, |pool| pool.finish(patience));
        let millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let there = super::helper().map_or(0, |hand| {
            let asked = hand.ask::<usize>(&Request::Finish { millis }, patience + FINISH);
            asked.map_or(0, |(left, _)| left)
        });
        here + there
    }
}

/// `ignorecommand`: here, or in the helper.
#[derive(Debug)]
pub enum Ignore {
    /// As a child of this process.
    Here(IgnoreCommand),
    /// In the helper, by the jail's name.
    There(&'static Hand, String),
}

impl Ignore {
    /// That of a jail, if it has one.
    #[must_use]
    pub fn of(name: &str, raw: &crate::config::Raw) -> Option<Self> {
        let here = IgnoreCommand::of(name, raw)?;
        Some(match super::helper() {
            Some(hand) => Self::There(hand, name.to_owned()),
            None => Self::Here(here),
        })
    }

    /// See [`IgnoreCommand::ask`].
    #[must_use]
    pub fn ask(&self, ticket: &Ticket) -> bool {
        match self {
            Self::Here(command) => command.ask(ticket),
            Self::There(hand, jail) => {
                let request = Request::Ignore {
                    jail: jail.clone(),
                    ticket: ticket.clone(),
                };
                let asked = hand.ask::<bool>(&request, IGNORE);
                asked.map_or_else(
                    |error| {
                        log::error!("jail '{jail}': ignorecommand could not be started: {error}");
                        false
                    },
                    |(answer, _)| answer,
                )
            }
        }
    }
}
