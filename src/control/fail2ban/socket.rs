//! The socket itself: who may speak, how much, how long, and whose it is.
//!
//! One thread serves all clients. It is never waited for by a line or a ban; whoever says nothing, reads nothing or says too
//! much costs one of a bounded number of places for a bounded time. fail2ban's own server goes first: while something
//! answers at the path it is left alone, and it is taken when that has ended.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

use super::commands;
use super::pickle::{self, Value};
use super::server::Server;
use crate::run::guarded;
use crate::sys::file_at;

/// What ends a message in both directions.
const END: &[u8] = b"<F2B_END_COMMAND>";
/// A message that ends a connection.
const CLOSE: &[u8] = b"<F2B_CLOSE_COMMAND>";
/// Longest message, bytes. A reload of all of fail2ban's jails is some 500,000.
const REQUEST_MAX: usize = 4 << 20;
/// Clients at a time; for one more the one goes that has said nothing for longest.
const CLIENTS_MAX: usize = 16;
/// How long a client may say nothing, or read nothing of its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether the socket can be had, and still is ours.
const LOOK: Duration = Duration::from_secs(2);

/// A hold on the thread. Dropping it ends it, and takes the socket away.
#[derive(Debug)]
pub struct Socket {
    stop: Arc<AtomicBool>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Socket {
    /// Answers clients at `path` as soon as that can be had.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(path: PathBuf, mut server: Box<dyn Server + Send>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (wake, woken) = UnixStream::pair()?;
        let theirs = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("fail2ban".into())
            .spawn(move || {
                crate::sys::stand_back();
                let mut said = None;
                while !theirs.load(Ordering::Relaxed) {
                    match Place::take(&path) {
                        Ok(Some(place)) => {
                            said = None;
                            log::info!("fail2ban-client is answered at {}", path.display());
                            serve(&place, &woken, &theirs, server.as_mut());
                        }
                        Ok(None) => {}
                        Err(error) => {
                            let text = error.to_string();
                            if said.as_ref() != Some(&text) {
                                log::error!(
                                    "{}: {text}; fail2ban-client is not answered (socket in [fail2ban])",
                                    path.display()
                                );
                                said = Some(text);
                            }
                        }
                    }
                    rest(&[woken.as_fd()], LOOK);
                }
            })?;
        Ok(Self {
            stop,
            wake,
            thread: Some(thread),
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake.write_all(&[0]).ok();
        if let Some(thread) = self.thread.take() {
            // A panic was told where it happened.
            thread.join().ok();
        }
    }
}

/// The socket while it is ours.
struct Place<'p> {
    listener: UnixListener,
    path: &'p Path,
    /// Device and number of its file.
    file: (u64, u64),
}

impl<'p> Place<'p> {
    /// `None`: something answers there.
    fn take(path: &'p Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::other("it is there and no socket"));
            }
            Ok(_) => match crate::watch::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(_) | Err(_) => return Ok(None),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
            fs::create_dir(dir)?;
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        }
        // Made under another name, so that it never stands there open to all, nor for a moment not at all.
        let mut made = path.as_os_str().to_owned();
        made.push(format!(".{}", std::process::id()));
        let made = PathBuf::from(made);
        fs::remove_file(&made).ok();
        let listener = UnixListener::bind(&made)?;
        let placed = fs::set_permissions(&made, fs::Permissions::from_mode(0o600))
            .and_then(|()| file_at(&made).ok_or(io::ErrorKind::NotFound.into()))
            .and_then(|file| fs::rename(&made, path).map(|()| file));
        let file = placed.inspect_err(|_| {
            fs::remove_file(&made).ok();
        })?;
        listener.set_nonblocking(true)?;
        Ok(Some(Self {
            listener,
            path,
            file,
        }))
    }

    /// Another program may have put its own there.
    fn is_ours(&self) -> bool {
        file_at(self.path) == Some(self.file)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.is_ours() {
            fs::remove_file(self.path).ok();
        }
    }
}

/// Serves clients until the end, or until the socket is not ours any more.
fn serve(place: &Place<'_>, woken: &UnixStream, stop: &AtomicBool, server: &mut dyn Server) {
    let mut clients: Vec<Client> = Vec::new();
    let mut next_look = Instant::now() + LOOK;
    while !stop.load(Ordering::Relaxed) {
        if Instant::now() >= next_look {
            next_look = Instant::now() + LOOK;
            if !place.is_ours() {
                log::warn!("{}: another program has taken it", place.path.display());
                return;
            }
            clients.retain(|client| client.since.elapsed() < PATIENCE);
        }
        wait(place, woken, &clients);
        while let Ok((stream, _)) = place.listener.accept() {
            if clients.len() >= CLIENTS_MAX {
                let silent = clients.iter().enumerate().min_by_key(|(_, c)| c.since);
                if let Some(at) = silent.map(|(at, _)| at) {
                    clients.swap_remove(at);
                }
            }
            clients.extend(Client::admit(stream));
        }
        clients.retain_mut(|client| client.go_on(server).unwrap_or(false));
    }
}

fn wait(place: &Place<'_>, woken: &UnixStream, clients: &[Client]) {
    let mut fds = vec![
        PollFd::new(woken.as_fd(), PollFlags::POLLIN),
        PollFd::new(place.listener.as_fd(), PollFlags::POLLIN),
    ];
    fds.extend(clients.iter().map(|client| {
        let for_what = match client.unsent.is_empty() {
            true => PollFlags::POLLIN,
            false => PollFlags::POLLOUT,
        };
        PollFd::new(client.stream.as_fd(), for_what)
    }));
    let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::MAX);
    if poll(&mut fds, timeout).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn rest(fds: &[BorrowedFd<'_>], pause: Duration) {
    let mut fds: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
    if poll(&mut fds, timeout).is_err() {
        std::thread::sleep(pause);
    }
}

/// One who speaks.
struct Client {
    stream: UnixStream,
    /// Read, and not yet a whole message.
    read: Vec<u8>,
    /// How much of it is known to hold no end.
    searched: usize,
    unsent: Vec<u8>,
    /// When something was last read or sent.
    since: Instant,
}

impl Client {
    /// Only for root, and whoever runs this program.
    fn admit(stream: UnixStream) -> Option<Self> {
        let peer = getsockopt(&stream, PeerCredentials).ok()?;
        if peer.uid() != 0 && peer.uid() != nix::unistd::geteuid().as_raw() {
            return None;
        }
        stream.set_nonblocking(true).ok()?;
        Some(Self {
            stream,
            read: Vec::new(),
            searched: 0,
            unsent: Vec::new(),
            since: Instant::now(),
        })
    }

    /// Does what can be done without waiting; false: that was all.
    fn go_on(&mut self, server: &mut dyn Server) -> io::Result<bool> {
        loop {
            if !self.unsent.is_empty() {
                let sent = match self.stream.write(&self.unsent) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                    sent => sent?,
                };
                self.unsent.drain(..sent);
                self.since = Instant::now();
            } else if let Some(message) = self.message() {
                if message == CLOSE {
                    return Ok(false);
                }
                self.unsent = reply(&message, server);
                self.since = Instant::now();
            } else if self.read.len() > REQUEST_MAX {
                return Ok(false);
            } else {
                let mut bytes = [0; 16 << 10];
                let read = match self.stream.read(&mut bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                    read => read?,
                };
                if read == 0 {
                    return Ok(false);
                }
                self.read.extend(bytes.iter().take(read));
                self.since = Instant::now();
            }
        }
    }

    /// Takes the next whole message, without its end.
    fn message(&mut self) -> Option<Vec<u8>> {
        let rest = self.read.get(self.searched..)?;
        let Some(at) = memchr::memmem::find(rest, END) else {
            self.searched = self.read.len().saturating_sub(END.len() - 1);
            return None;
        };
        let end = self.searched + at;
        let mut message: Vec<u8> = self.read.drain(..end + END.len()).collect();
        message.truncate(end);
        self.searched = 0;
        Some(message)
    }
}

/// The answer to one message, with its end.
fn reply(message: &[u8], server: &mut dyn Server) -> Vec<u8> {
    let answer = match pickle::read(message) {
        Ok(command) => {
            let answered = guarded(|| commands::answer(&command, server));
            answered.unwrap_or_else(|| Value::text("ERROR: an internal error; see the log"))
        }
        Err(refused) => {
            log::warn!("a client of fail2ban's socket sent what is not taken: {refused}");
            Value::text(format!("ERROR: {refused}"))
        }
    };
    let mut out = pickle::write(&answer);
    out.extend(END);
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::control::fail2ban::fake::Fake;

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("f2b-socket-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn connected(path: &Path) -> UnixStream {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn answer_of(stream: &mut UnixStream) -> Value {
        let (mut all, mut byte) = (Vec::new(), [0]);
        while !all.ends_with(END) {
            stream.read_exact(&mut byte).unwrap();
            all.push(byte[0]);
        }
        pickle::read(&all).unwrap()
    }

    #[test]
    fn a_message_may_come_in_pieces_and_two_in_one() {
        let dir = folder("pieces");
        let path = dir.join("run/fail2ban.sock");
        let socket = Socket::start(path.clone(), Box::new(Fake::new())).unwrap();
        let mut stream = connected(&path);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let ping = [b"\x80\x02]X\x04\0\0\0pinga.", END].concat();
        for byte in &ping {
            stream.write_all(&[*byte]).unwrap();
        }
        let pong = Value::pair(Value::Int(0), Value::text("pong"));
        assert_eq!(answer_of(&mut stream), pong);
        stream.write_all(&[ping.clone(), ping].concat()).unwrap();
        assert_eq!(answer_of(&mut stream), pong);
        assert_eq!(answer_of(&mut stream), pong);
        stream
            .write_all(&[b"cos\nsystem\n.", END].concat())
            .unwrap();
        let refused = answer_of(&mut stream);
        assert!(refused.as_text().unwrap().starts_with("ERROR: opcode 0x63"));
        stream.write_all(&[CLOSE, END].concat()).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        drop(socket);
        assert!(!path.exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn silent_clients_leave_room_for_others() {
        let dir = folder("silent");
        let path = dir.join("fail2ban.sock");
        let _socket = Socket::start(path.clone(), Box::new(Fake::new())).unwrap();
        let _silent: Vec<UnixStream> = (0..200).map(|_| connected(&path)).collect();
        let mut stream = connected(&path);
        stream
            .write_all(&[b"\x80\x02]X\x04\0\0\0pinga.", END].concat())
            .unwrap();
        assert_eq!(
            answer_of(&mut stream),
            Value::pair(Value::Int(0), Value::text("pong"))
        );
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_live_socket_is_left_alone_and_a_dead_one_replaced() {
        let dir = folder("live");
        let path = dir.join("fail2ban.sock");
        let theirs = UnixListener::bind(&path).unwrap();
        let number = fs::metadata(&path).unwrap().ino();
        assert!(Place::take(&path).unwrap().is_none());
        let socket = Socket::start(path.clone(), Box::new(Fake::new())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), number);
        // It ends without taking its file away.
        drop(theirs);
        drop(connected(&path));
        assert_ne!(fs::metadata(&path).unwrap().ino(), number);
        // Another program takes it by force; what is its, stays.
        fs::remove_file(&path).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        fs::write(dir.join("file"), "").unwrap();
        assert!(Place::take(&dir.join("file")).is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
