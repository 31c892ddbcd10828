//! Does fail2ban's own server run beside us? Then the jails of its folder are its business.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, getsockopt};

use crate::config::FAIL2BAN_SOCKET;

/// Its name as the kernel keeps it, and all that it keeps (TASK_COMM_LEN, with a NUL).
const NAME: &[u8] = b"fail2ban-server";
const NAME_BYTES: usize = 16;

/// Does a fail2ban-server run that shares this network? One in a container has a packet filter of its own.
#[must_use]
pub fn fail2ban_runs() -> bool {
    has_process() || answers(Path::new(FAIL2BAN_SOCKET))
}

/// Looks again and again. To ask a socket costs nothing; to look at all processes takes milliseconds where there are many.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    looks: u32,
}

impl Lookout {
    /// Looks at processes are one in so many.
    const THOROUGH: u32 = 5;

    /// Does one run now? `before`: the answer to the last look.
    pub(super) fn sees(&mut self, before: bool) -> bool {
        let thorough = before || self.looks.is_multiple_of(Self::THOROUGH);
        self.looks = self.looks.wrapping_add(1);
        answers(Path::new(FAIL2BAN_SOCKET)) || (thorough && has_process())
    }
}

fn has_process() -> bool {
    // Not by ns/net, which only shows itself to whoever may trace that process: files of one network are one file, whoever's
    // /proc they are seen in.
    let network = |pid: &str| {
        let file = fs::metadata(format!("/proc/{pid}/net/dev"));
        file.map(|file| file.ino()).ok()
    };
    let own = network("self");
    let Ok(entries) = fs::read_dir("/proc") else {
        return false;
    };
    entries.flatten().any(|entry| {
        let pid = entry.file_name();
        let pid = pid.to_string_lossy();
        pid.bytes().all(|byte| byte.is_ascii_digit())
            && name_of(&pid).is_some_and(|name| name.starts_with(NAME))
            && network(&pid).is_none_or(|theirs| Some(theirs) == own)
    })
}

/// What a process is called, filled up with zeros. In one read: fs::read would ask for the size before and for the end behind,
/// of each process of the host.
fn name_of(pid: &str) -> Option<[u8; NAME_BYTES]> {
    let mut name = [0; NAME_BYTES];
    let mut file = fs::File::open(format!("/proc/{pid}/comm")).ok()?;
    let bytes = file.read(&mut name).ok()?;
    (bytes > 0).then_some(name)
}

/// Connects without waiting. A server that does not accept, since it is stopped or busy, must not hold up whoever looks; it
/// is there all the same ([`io::ErrorKind::WouldBlock`]).
pub(crate) fn connect(socket: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let made = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(made.as_raw_fd(), &UnixAddr::new(socket)?)?;
    Ok(made.into())
}

/// One that was started by the name of its interpreter is known by its socket; ours can be there as well.
fn answers(socket: &Path) -> bool {
    // Not by exe, for the same reason.
    connect(socket)
        .ok()
        .and_then(|stream| getsockopt(&stream, PeerCredentials).ok())
        .is_some_and(|peer| name_of(&peer.pid().to_string()) != name_of("self"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_counts_unless_it_is_ours() {
        let path = std::env::temp_dir().join(format!("f2b-neighbour-{}", std::process::id()));
        assert!(!answers(&path));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(!answers(&path));
        drop(listener);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_server_that_does_not_accept_holds_nobody_up() {
        let path = std::env::temp_dir().join(format!("f2b-stopped-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = connect(&path) {
            waiting.push(stream);
        }
        // Whose it is cannot be asked; a fail2ban-server that is stopped is known by its name.
        assert!(!answers(&path));
        assert_eq!(
            connect(&path).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        fs::remove_file(path).unwrap();
    }
}
