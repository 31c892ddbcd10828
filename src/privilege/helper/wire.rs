//! Messages between two processes of ours: whole, in order, with open files. Both ends belong to root.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A longer message goes in pieces of so many bytes: what a socket takes whole, whatever its buffer.
const PIECE: usize = 32 * 1024;
/// Longest message, bytes: the tickets of a jail that stops, which hold 32 MiB of text at most, escaped.
const MESSAGE_MAX: usize = 128 * 1024 * 1024;
/// First byte of a piece.
const LAST: u8 = 0;
const MORE: u8 = 1;

/// One end.
#[derive(Debug)]
pub(super) struct Wire(OwnedFd);

impl From<OwnedFd> for Wire {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Wire> for OwnedFd {
    fn from(wire: Wire) -> Self {
        wire.0
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Wire {
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Self(one), Self(other)))
    }

    /// Sends a message, and waits while the other side is behind. Only one thread sends on an end.
    pub(super) fn send(
        &self,
        message: &impl Serialize,
        files: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.send_text(&serde_json::to_vec(message)?, files)
    }

    pub(super) fn send_text(&self, text: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let mut pieces = text.chunks(PIECE).peekable();
        loop {
            let piece = pieces.next().unwrap_or_default();
            let last = pieces.peek().is_none();
            let mark = [if last { LAST } else { MORE }];
            let parts = [IoSlice::new(&mark), IoSlice::new(piece)];
            let rights = [ControlMessage::ScmRights(&raw)];
            let rights = match last && !raw.is_empty() {
                true => rights.as_slice(),
                false => &[],
            };
            loop {
                match sendmsg::<()>(
                    self.0.as_raw_fd(),
                    &parts,
                    rights,
                    MsgFlags::MSG_NOSIGNAL,
                    None,
                ) {
                    Err(Errno::EINTR) => {}
                    sent => {
                        sent?;
                        break;
                    }
                }
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Waits for a message; `None`: the other side has ended.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut text = Vec::new();
        let mut buffer = vec![0; PIECE + 1];
        loop {
            let (got, files) = crate::sys::receive(self.0.as_fd(), &mut buffer)?;
            let Some((mark, piece)) = buffer.get(..got).and_then(<[u8]>::split_first) else {
                return Ok(None);
            };
            text.extend_from_slice(piece);
            if text.len() > MESSAGE_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if *mark == LAST {
                return Ok(Some((serde_json::from_slice(&text)?, files)));
            }
        }
    }

    /// The same, for so long.
    pub(super) fn receive_within<T: DeserializeOwned>(
        &self,
        patience: Duration,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        match readable(&[self.0.as_fd()], Some(patience))? {
            true => self.receive(),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Waits until one of them is readable or closed; false: not in time.
pub(super) fn readable(of: &[BorrowedFd<'_>], patience: Option<Duration>) -> io::Result<bool> {
    let until = patience.map(|patience| Instant::now() + patience);
    loop {
        let mut fds: Vec<PollFd<'_>> = of
            .iter()
            .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
            .collect();
        let left = until.map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_duration_since(Instant::now());
            // Rounded up: what is left of the last millisecond is not spent in a loop.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, left) {
            Ok(0) if until.is_none_or(|until| Instant::now() < until) => {}
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn a_long_message_and_an_open_file_arrive_whole() {
        let (one, other) = Wire::pair().unwrap();
        let text: Vec<String> = (0..20_000).map(|n| format!("line {n}")).collect();
        let sent = text.clone();
        let mut file = std::fs::File::from(
            nix::sys::memfd::memfd_create(c"x", nix::sys::memfd::MFdFlags::empty()).unwrap(),
        );
        file.write_all(b"hello").unwrap();
        file.rewind().unwrap();
        let sender = std::thread::spawn(move || one.send(&sent, &[file.as_fd()]).unwrap());
        let (got, files): (Vec<String>, _) = other.receive().unwrap().unwrap();
        sender.join().unwrap();
        assert_eq!(got, text);
        let [file] = <[OwnedFd; 1]>::try_from(files).unwrap();
        let mut read = String::new();
        std::fs::File::from(file).read_to_string(&mut read).unwrap();
        assert_eq!(read, "hello");
        // The sender is gone, and its end with it.
        assert!(other.receive::<String>().unwrap().is_none());
    }

    #[test]
    fn an_answer_that_does_not_come_is_not_waited_for() {
        let (_one, other) = Wire::pair().unwrap();
        let got = other.receive_within::<String>(Duration::from_millis(5));
        assert_eq!(got.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
