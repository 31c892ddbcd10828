//! Bans that other processes made, on their way to the one in which jails count bans (recidive).
//!
//! httpd's loggers ban, too, and only one process of the host counts bans: the one that reads logs. It has a datagram
//! socket in the runtime directory, to which the others send each of their bans. A datagram that finds no room is lost:
//! then recidive misses one ban, and nobody ever waits.
//!
//! A datagram is `f2b-pipe ban 1`, the jail's name and the address or network, each on a line.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use crate::key::Key;

/// With the version of what follows it.
const MAGIC: &str = "f2b-pipe ban 1";
/// Longer ones are no bans: names of jails and keys are bounded.
const BYTES: usize = 2048;
/// Most that are taken at a time; the kernel keeps a few hundred (net.unix.max_dgram_qlen).
const AT_A_TIME: usize = 512;

/// The way between processes.
#[derive(Debug)]
pub(super) struct Exchange {
    path: PathBuf,
    /// Not of the process that counts.
    out: Option<UnixDatagram>,
    /// Of the process that counts.
    inbox: Option<UnixDatagram>,
}

impl Exchange {
    pub(super) fn new(path: PathBuf) -> Self {
        let out = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        Self {
            path,
            out: out.ok(),
            inbox: None,
        }
    }

    /// From now on this process counts. Only its own user can send (the umask takes write access from all others).
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(super) fn open(&mut self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let inbox = UnixDatagram::bind(&self.path)?;
        inbox.set_nonblocking(true)?;
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(0o600))?;
        self.inbox = Some(inbox);
        Ok(())
    }

    /// Readable when there is something to [`read`](Self::read).
    pub(super) fn inbox(&self) -> Option<&UnixDatagram> {
        self.inbox.as_ref()
    }

    /// Tells the process that counts; false: there is none, or it has no room.
    pub(super) fn send(&self, jail: &str, key: &Key) -> bool {
        let text = format!("{MAGIC}\n{jail}\n{key}");
        self.out
            .as_ref()
            .is_some_and(|out| out.send_to(text.as_bytes(), &self.path).is_ok())
    }

    /// What others sent: by which jail, and whom.
    pub(super) fn read(&self) -> Vec<(String, Key)> {
        let Some(inbox) = &self.inbox else {
            return Vec::new();
        };
        let mut bytes = [0; BYTES];
        let mut all = Vec::new();
        while all.len() < AT_A_TIME
            && let Ok(n) = inbox.recv(&mut bytes)
        {
            let text = std::str::from_utf8(bytes.get(..n).unwrap_or_default()).unwrap_or_default();
            all.extend(parse(text));
        }
        all
    }
}

fn parse(text: &str) -> Option<(String, Key)> {
    let (jail, key) = text
        .strip_prefix(MAGIC)?
        .strip_prefix('\n')?
        .split_once('\n')?;
    Some((jail.to_owned(), Key::parse(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_arrives_and_what_is_none_does_not() {
        let path = std::env::temp_dir().join(format!("f2b-exchange-{}", std::process::id()));
        let mut owner = Exchange::new(path.clone());
        let other = Exchange::new(path.clone());
        let key = Key::parse("192.0.2.7");
        assert!(!other.send("sshd", &key));
        owner.open().unwrap();
        assert!(other.send("sshd", &key));
        assert!(other.send("my jail", &Key::parse("2001:db8::/64")));
        other
            .out
            .as_ref()
            .unwrap()
            .send_to(b"f2b-pipe ban 2\na\n192.0.2.9", &path)
            .unwrap();
        other
            .out
            .as_ref()
            .unwrap()
            .send_to(&[0xff; 3000], &path)
            .unwrap();
        let read = owner.read();
        assert_eq!(
            read,
            [
                ("sshd".to_owned(), key.clone()),
                ("my jail".to_owned(), Key::parse("2001:db8::/64"))
            ]
        );
        // However many come, the sender never waits.
        let sent = (0..100_000)
            .take_while(|_| other.send("sshd", &key))
            .count();
        assert!(sent < 100_000);
        assert_eq!(owner.read().len(), sent);
        std::fs::remove_file(path).unwrap();
    }
}
