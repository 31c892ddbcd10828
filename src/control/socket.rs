//! The control socket of the process in charge, on a thread of its own that no ban and no line waits for.
//!
//! Who may connect is the file's rights (root, and the members of `[control] group`), and is looked at once more by the
//! peer's credentials. Everything a client can make grow has a bound; who says nothing is left to it, and makes room for
//! the next when there are too many.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Gid, Group};
use serde_json::{Value, json};

use super::fail2ban::Answering;
use super::wire::{self, REQUEST_MAX, Reply, Request};
use super::{ControlError, Event, Fate, Host, JailView, Lines};
use crate::changes::{self, Change, Mode, Setting};
use crate::config::Backend;
use crate::decide::BanFor;
use crate::key::Key;
use crate::run::guarded;
use crate::silence::board;
use crate::sys::file_at;

/// Clients at a time. When one more comes, the one that was silent longest goes.
const CLIENTS_MAX: usize = 64;
/// Listeners among them.
const LISTENERS_MAX: usize = 16;
/// A client that has asked nothing for so long is let go, and one that does not take its answer.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// Bytes read from one client before others have their turn.
const TURN: usize = 64 * 1024;
/// An answer that is not taken; a listener's events, beyond which it is let go.
const OUTPUT_MAX: usize = 64 * 1024 * 1024;
const EVENTS_MAX: usize = 1024 * 1024;
/// How often it is looked whether this process is in charge, and for events while somebody listens.
const TICK: Duration = Duration::from_millis(500);
const EVENTS_TICK: Duration = Duration::from_millis(20);
/// What troubles are about.
const ABOUT: &str = "control socket";

/// A hold on the thread. Dropping it ends the thread, and takes the socket away.
#[derive(Debug)]
pub(crate) struct Control {
    stop: Arc<AtomicBool>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts the thread, which listens for as long as this process is in charge.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(host: Host) -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                crate::sys::stand_back();
                while !theirs.load(Ordering::Relaxed) {
                    let mut room = Room {
                        host: &host,
                        fail2ban: Answering::new(host.clone()),
                        listener: None,
                        clients: Vec::new(),
                    };
                    // A panic is said where it happens; those who were connected ask again.
                    guarded(|| room.stay(&theirs, &woken));
                    room.close();
                }
            })?;
        Ok(Self {
            stop,
            wake,
            thread: Some(thread),
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        (&self.wake).write_all(&[0]).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

struct Room<'h> {
    host: &'h Host,
    /// The other socket: whether there is one to be is looked at here.
    fail2ban: Answering,
    listener: Option<Listener>,
    clients: Vec<Client>,
}

struct Listener {
    socket: UnixListener,
    file: (u64, u64),
    /// Whose members may ask, too.
    group: Option<Gid>,
    /// As it was configured.
    named: Option<String>,
}

struct Client {
    stream: UnixStream,
    /// May do everything.
    root: bool,
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// When it last said something, or took something.
    at: Instant,
    events: Option<Receiver<Event>>,
}

impl Room<'_> {
    fn stay(&mut self, stop: &AtomicBool, woken: &UnixStream) {
        let mut next_tick = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                self.tick();
            }
            let listens = self.clients.iter().any(|client| client.events.is_some());
            let left = next_tick.saturating_duration_since(Instant::now());
            let left = if listens { left.min(EVENTS_TICK) } else { left };
            let ready = self.wait(woken, left);
            self.accept();
            let host = self.host;
            let mut at = 0;
            let mut listeners = self
                .clients
                .iter()
                .filter(|client| client.events.is_some())
                .count();
            self.clients.retain_mut(|client| {
                let ready = ready.get(at).copied().unwrap_or(false);
                at += 1;
                client.serve(host, ready, &mut listeners)
            });
        }
    }

    fn wait(&self, woken: &UnixStream, left: Duration) -> Vec<bool> {
        let mut fds: Vec<PollFd<'_>> = Vec::new();
        for client in &self.clients {
            let mut flags = PollFlags::empty();
            // Who has an answer to take is not read before.
            flags.set(PollFlags::POLLIN, client.output.is_empty());
            flags.set(PollFlags::POLLOUT, !client.output.is_empty());
            fds.push(PollFd::new(client.stream.as_fd(), flags));
        }
        let mut others: Vec<BorrowedFd<'_>> = vec![woken.as_fd()];
        others.extend(self.listener.iter().map(|listener| listener.socket.as_fd()));
        fds.extend(
            others
                .into_iter()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
        );
        let left =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, left).is_err() {
            std::thread::sleep(Duration::from_millis(10));
            return Vec::new();
        }
        let clients = fds.iter().take(self.clients.len());
        clients.map(|fd| fd.any().unwrap_or(true)).collect()
    }

    /// Listens while this process is in charge, and lets those go who have been silent.
    fn tick(&mut self) {
        self.fail2ban.look();
        self.clients
            .retain(|client| client.events.is_some() || client.at.elapsed() < SILENT_MAX);
        let config = self.host.config();
        let dry = config.firewall.backend == Backend::DryRun;
        if !(self.host.in_charge() || dry) {
            self.close();
            return;
        }
        let path = self.host.paths().control();
        let stands = self.listener.as_ref().is_some_and(|listener| {
            file_at(&path) == Some(listener.file) && listener.named == config.control_group
        });
        if stands {
            return;
        }
        // What is tried only must not take the place of what is real.
        if dry && UnixStream::connect(&path).is_ok() {
            return;
        }
        let listener = listen(&path, config.control_group.as_deref());
        let told = listener.as_ref().map(|_| ()).map_err(|error| {
            format!(
                "{}: {error}; nobody can ask or change anything while it runs",
                path.display()
            )
        });
        board().set(ABOUT, &told);
        self.listener = listener.ok();
    }

    fn close(&mut self) {
        self.clients.clear();
        let Some(listener) = self.listener.take() else {
            return;
        };
        let path = self.host.paths().control();
        if file_at(&path) == Some(listener.file) {
            fs::remove_file(&path).ok();
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        // One turn takes a bounded number, so that those who ask have theirs.
        for _ in 0..CLIENTS_MAX {
            let Ok((stream, _)) = listener.socket.accept() else {
                return;
            };
            let Ok(peer) = getsockopt(&stream, PeerCredentials) else {
                continue;
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let root = [0, nix::unistd::geteuid().as_raw()].contains(&peer.uid());
            let member = || {
                listener
                    .group
                    .is_some_and(|group| belongs(peer.pid(), peer.gid(), group))
            };
            let mut client = Client {
                stream,
                root,
                input: Vec::new(),
                output: VecDeque::new(),
                at: Instant::now(),
                events: None,
            };
            if !root && !member() {
                let refused = Reply::error(
                    "only root and the members of [control] group may ask".to_owned(),
                    Vec::new(),
                );
                client.output.extend(wire::line(&refused));
                client.send();
                continue;
            }
            if self.clients.len() >= CLIENTS_MAX {
                let silent = self
                    .clients
                    .iter()
                    .enumerate()
                    .filter(|(_, client)| client.events.is_none());
                let oldest = silent.min_by_key(|(_, client)| client.at).map(|(at, _)| at);
                match oldest {
                    Some(at) => drop(self.clients.remove(at)),
                    None => continue,
                }
            }
            self.clients.push(client);
        }
    }
}

/// Makes the socket: root's, and the group's if there is one.
fn listen(path: &std::path::Path, group: Option<&str>) -> io::Result<Listener> {
    let gid = match group {
        None => None,
        Some(name) => {
            let found = Group::from_name(name)?;
            let found = found.ok_or_else(|| {
                io::Error::other(format!(
                    "[control] group: there is no group {name}; groupadd {name}, or leave the key out"
                ))
            })?;
            Some(found.gid)
        }
    };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // Connecting takes the right to write (unix(7)), which a umask gives nobody but the owner until it is given.
    let socket = UnixListener::bind(path)?;
    let restricted = (|| {
        socket.set_nonblocking(true)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        if let Some(gid) = gid {
            std::os::unix::fs::chown(path, None, Some(gid.as_raw()))?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
            path.parent().map_or(Ok(()), |dir| let_through(dir, gid))?;
        }
        file_at(path).ok_or(io::ErrorKind::NotFound.into())
    })();
    match restricted {
        Ok(file) => Ok(Listener {
            socket,
            file,
            group: gid,
            named: group.map(str::to_owned),
        }),
        Err(error) => {
            // One that cannot be restricted stays closed.
            fs::remove_file(path).ok();
            Err(error)
        }
    }
}

/// The folder is root's alone (tmpfiles.d): the group may pass, and not look into it.
fn let_through(dir: &std::path::Path, gid: Gid) -> io::Result<()> {
    const PASS_OTHERS: u32 = 0o001;
    const PASS_GROUP: u32 = 0o010;
    const RIGHTS: u32 = 0o7777;
    let there = fs::metadata(dir)?;
    if there.mode() & PASS_OTHERS != 0 {
        return Ok(());
    }
    if there.gid() != gid.as_raw() {
        std::os::unix::fs::chown(dir, None, Some(gid.as_raw()))?;
    }
    let mode = (there.mode() | PASS_GROUP) & RIGHTS;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}

/// Is the peer in the group, by its own or one of its further ones?
fn belongs(pid: i32, gid: u32, group: Gid) -> bool {
    if gid == group.as_raw() {
        return true;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    let mut groups = groups.unwrap_or_default().split_ascii_whitespace();
    groups.any(|word| word.parse() == Ok(group.as_raw()))
}

impl Client {
    /// False: it goes.
    fn serve(&mut self, host: &Host, ready: bool, listeners: &mut usize) -> bool {
        if ready && self.output.is_empty() {
            match self.read() {
                Ok(true) => {}
                Ok(false) | Err(_) => return false,
            }
        }
        while self.output.is_empty()
            && let Some(end) = memchr::memchr(b'\n', &self.input)
        {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            self.at = Instant::now();
            let reply = match Request::read(line.trim_ascii_end()) {
                Ok(Request::Subscribe) if *listeners >= LISTENERS_MAX => {
                    Reply::error(format!("{LISTENERS_MAX} listen already"), Vec::new())
                }
                Ok(Request::Subscribe) => {
                    *listeners += 1;
                    self.events = Some(host.subscribe());
                    Reply::of(json!("events follow"))
                }
                Ok(request) => answer(host, &request, self.root),
                Err(error) => Reply::error(error, Vec::new()),
            };
            self.output.extend(wire::line(&reply));
            if !self.send() {
                return false;
            }
            // Answering may have taken a while.
            self.at = Instant::now();
        }
        if self.input.len() >= REQUEST_MAX {
            let text = format!("a request of more than {REQUEST_MAX} bytes");
            self.output
                .extend(wire::line(&Reply::error(text, Vec::new())));
            self.send();
            return false;
        }
        if let Some(events) = &self.events {
            let mut lines = Vec::new();
            while self.output.len() + lines.len() < EVENTS_MAX {
                match events.try_recv() {
                    Ok(event) => lines.extend(wire::line(&event)),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return false,
                }
            }
            self.output.extend(lines);
        }
        self.output.len() < OUTPUT_MAX && self.send()
    }

    /// False: it has ended.
    fn read(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        let mut taken = 0;
        while taken < TURN && self.input.len() < REQUEST_MAX {
            match (&self.stream).read(&mut bytes) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    taken += n;
                    self.input
                        .extend_from_slice(bytes.get(..n).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Gives what it takes now; false: it has ended.
    fn send(&mut self) -> bool {
        while !self.output.is_empty() {
            let (first, _) = self.output.as_slices();
            match (&self.stream).write(first) {
                Ok(0) => return false,
                Ok(n) => {
                    self.output.drain(..n);
                    self.at = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        true
    }
}

/// Does what is asked for.
fn answer(host: &Host, request: &Request, root: bool) -> Reply {
    match done(host, request, root) {
        Ok(result) => Reply::of(result),
        Err(error) => {
            let problems = match &error {
                ControlError::Refused(problems) => {
                    problems.iter().map(ToString::to_string).collect()
                }
                ControlError::UnknownJail { .. }
                | ControlError::NotNow(_)
                | ControlError::NoAnswer
                | ControlError::Failed(_) => Vec::new(),
            };
            Reply::error(error.to_string(), problems)
        }
    }
}

fn done(host: &Host, request: &Request, root: bool) -> Result<Value, ControlError> {
    match request {
        Request::Status { jail } => {
            let jails = match jail {
                Some(name) => vec![host.jail(name)?],
                None => host.jails()?,
            };
            let config = host.config();
            Ok(json!({
                "version": env!("CARGO_PKG_VERSION"),
                "pid": std::process::id(),
                "off": crate::act::keeper::is_off(host.paths()),
                "log_level": config.log_level.as_str().to_lowercase(),
                "troubles": board().shown(),
                "jails": jails.iter().map(shown).collect::<Vec<_>>(),
            }))
        }
        Request::Banned { jail } => Ok(json!({ "banned": host.banned(jail.as_deref())? })),
        Request::Ban { force: true, .. } if !root => Err(only_root("force")),
        Request::Ban {
            jail,
            ips,
            time,
            force,
        } => {
            let keys: Vec<Key> = ips.iter().map(|ip| Key::parse(ip)).collect();
            let ban_for = match time {
                None => None,
                Some(secs) if *secs < 0 => Some(BanFor::Forever),
                Some(secs) => {
                    let secs = u32::try_from(*secs)
                        .ok()
                        .map(f64::from)
                        .and_then(BanFor::of_secs);
                    Some(secs.ok_or_else(|| {
                        ControlError::NotNow(
                            "time: write 1 to 4294967295 seconds, or -1 for ever".to_owned(),
                        )
                    })?)
                }
            };
            let fates = host.ban(jail, &keys, ban_for, *force)?;
            let bans: Vec<Value> = ips
                .iter()
                .zip(fates)
                .map(|(ip, fate)| {
                    let (result, reason) = match fate {
                        Fate::Banned => ("banned", None),
                        Fate::Prolonged => ("prolonged", None),
                        Fate::Spared(why) => ("spared", Some(why)),
                        Fate::Failed(why) => ("failed", Some(why)),
                    };
                    json!({ "ip": ip, "result": result, "reason": reason })
                })
                .collect();
            Ok(json!({ "bans": bans }))
        }
        Request::Unban { jail, ips } => {
            let keys: Option<Vec<Key>> = ips
                .as_ref()
                .map(|ips| ips.iter().map(|ip| Key::parse(ip)).collect());
            let lifted = host.unban(jail.as_deref(), keys.as_deref())?;
            let absent: Vec<String> = lifted.not_banned.iter().map(ToString::to_string).collect();
            Ok(json!({ "unbanned": lifted.bans, "not_banned": absent }))
        }
        Request::Ignored { jail } => {
            let config = host.config();
            let all = config.jails.iter().chain([&config.manual]);
            let ignored: serde_json::Map<String, Value> = all
                .filter(|conf| jail.as_ref().is_none_or(|name| *name == conf.name))
                .map(|conf| (conf.name.clone(), json!(changes::ignored(conf))))
                .collect();
            if let (Some(name), true) = (jail, ignored.is_empty()) {
                host.jail(name)?;
            }
            Ok(json!({ "ignored": ignored }))
        }
        Request::Change { changes } => {
            if !root && let Some(what) = changes.iter().find_map(beyond_group) {
                return Err(only_root(what));
            }
            host.change(changes)?;
            Ok(json!({ "changed": changes.len() }))
        }
        Request::Reload { jail } => {
            host.reload(jail.as_deref())?;
            Ok(json!({ "jails": host.config().jails.len() }))
        }
        Request::Off => Ok(json!({ "unbanned": host.off(true)? })),
        Request::Metrics => Ok(json!({ "text": host.metrics() })),
        Request::Subscribe => Ok(Value::Null),
    }
}

fn only_root(what: &str) -> ControlError {
    ControlError::NotNow(format!(
        "{what} is for root only, not for the control group"
    ))
}

/// What a member of the group may not change: with files he would read what root may, with expressions stop the thread.
fn beyond_group(change: &Change) -> Option<&'static str> {
    let Change::Set { to, .. } = change else {
        return None;
    };
    match to {
        Setting::MaxRetry(_)
        | Setting::FindTime(_)
        | Setting::BanTime(_)
        | Setting::MaxMatches(_)
        | Setting::UseDns(_)
        | Setting::IgnoreSelf(_)
        | Setting::Idle(_) => None,
        Setting::Increment(_)
        | Setting::MaxLines(_)
        | Setting::DatePattern(_)
        | Setting::LogTimeZone(_)
        | Setting::LogEncoding(_)
        | Setting::IgnoreCache(_)
        | Setting::PrefRegex(_)
        | Setting::FailRegex(_)
        | Setting::IgnoreRegex(_)
        | Setting::AddLogPath { .. }
        | Setting::DelLogPath(_)
        | Setting::JournalMatch(_) => Some(to.key()),
    }
}

fn shown(jail: &JailView) -> Value {
    let mode = match jail.mode {
        Mode::On => "on",
        Mode::Observe => "observe",
        Mode::Off => "off",
    };
    let (files, journal) = match &jail.lines {
        Lines::Files(files) => (Some(files), None),
        Lines::Journal(matches) => (None, Some(matches)),
        Lines::Httpd | Lines::Bans => (None, None),
    };
    let bantime = match jail.config.bantime {
        BanFor::Timed(secs) => i64::from(secs.get()),
        BanFor::Forever => -1,
    };
    json!({
        "name": jail.config.name,
        "mode": mode,
        "idle": jail.config.idle,
        "maxretry": jail.config.maxretry,
        "findtime": jail.config.findtime.as_secs_f64(),
        "bantime": bantime,
        "files": files,
        "journal": journal,
        "failed": jail.failed,
        "hits": jail.tally.hits,
        "bans": jail.tally.bans,
        "not_banned": jail.tally.not_banned,
        "banned": jail.bans,
    })
}
