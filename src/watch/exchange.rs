//! What other processes tell the one that reads logs: bans that httpd's loggers made, for the jails that count bans
//! (recidive), and what the administrator's commands have lifted, so that no restart brings it back.
//!
//! That one has a datagram socket in the runtime directory. A datagram that finds no room is lost: then recidive misses
//! one ban, and nobody ever waits.
//!
//! A datagram is `f2b-pipe 1`, `ban`, `unban` or `remembered`, a jail's name and an address or network, each on a line; of
//! an unban the last two may be `*`, for all, and of the third they are.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use crate::key::Key;
use crate::sys::file_at;

/// With the version of what follows it.
const MAGIC: &str = "f2b-pipe 1\n";
/// Longer ones are of no use: names of jails and keys are bounded.
const BYTES: usize = 2048;
/// Most that are taken at a time; the kernel keeps a few hundred (net.unix.max_dgram_qlen).
const AT_A_TIME: usize = 512;

/// One piece of news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The jail has banned him.
    Ban { jail: String, key: Key },
    /// His ban was lifted by hand; `None`: in all jails, of all.
    Unban {
        jail: Option<String>,
        key: Option<Key>,
    },
    /// Bans were put into the ledger by a command: they are to be in force.
    Remembered,
}

/// The way between processes.
#[derive(Debug)]
pub(super) struct Exchange {
    path: PathBuf,
    /// `None`: there can be none.
    out: Option<UnixDatagram>,
    /// Of the process that reads logs.
    inbox: Option<UnixDatagram>,
    /// The inbox's file, which may be another one's by now.
    file: Option<(u64, u64)>,
}

/// Nothing is left behind. Another process may listen by now: then the file is its.
impl Drop for Exchange {
    fn drop(&mut self) {
        if self.file.is_some() && self.file == file_at(&self.path) {
            std::fs::remove_file(&self.path).ok();
        }
    }
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
            file: None,
        }
    }

    /// From now on this process listens. Only its own user can send (connecting takes the right to write, unix(7), which a
    /// umask gives nobody else).
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
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(0o600))?;
        self.file = file_at(&self.path);
        self.inbox = Some(inbox);
        Ok(())
    }

    /// Readable when there is something to [`read`](Self::read).
    pub(super) fn inbox(&self) -> Option<&UnixDatagram> {
        self.inbox.as_ref()
    }

    /// Tells the process that listens; false: there is none, or it has no room.
    pub(super) fn send(&self, told: &Told) -> bool {
        let any = "*".to_owned();
        let (what, jail, key) = match told {
            Told::Ban { jail, key } => ("ban", jail, key.to_string()),
            Told::Unban { jail, key } => {
                let key = key.as_ref().map_or(any.clone(), ToString::to_string);
                ("unban", jail.as_ref().unwrap_or(&any), key)
            }
            Told::Remembered => ("remembered", &any, any.clone()),
        };
        let text = format!("{MAGIC}{what}\n{jail}\n{key}");
        self.out
            .as_ref()
            .is_some_and(|out| out.send_to(text.as_bytes(), &self.path).is_ok())
    }

    /// What others sent.
    pub(super) fn read(&self) -> Vec<Told> {
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

fn parse(text: &str) -> Option<Told> {
    let (what, rest) = text.strip_prefix(MAGIC)?.split_once('\n')?;
    let (jail, key) = rest.split_once('\n')?;
    match what {
        "ban" => Some(Told::Ban {
            jail: jail.to_owned(),
            key: Key::parse(key),
        }),
        "unban" => Some(Told::Unban {
            jail: Some(jail.to_owned()).filter(|jail| jail != "*"),
            key: Some(Key::parse(key)).filter(|_| key != "*"),
        }),
        "remembered" => Some(Told::Remembered),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_arrive_and_what_is_none_does_not() {
        let path = std::env::temp_dir().join(format!("f2b-exchange-{}", std::process::id()));
        let mut owner = Exchange::new(path.clone());
        let other = Exchange::new(path.clone());
        let ban = |jail: &str, key: &str| Told::Ban {
            jail: jail.to_owned(),
            key: Key::parse(key),
        };
        let sent = [
            ban("sshd", "192.0.2.7"),
            ban("my jail", "2001:db8::/64"),
            Told::Unban {
                jail: None,
                key: None,
            },
            Told::Unban {
                jail: Some("sshd".to_owned()),
                key: Some(Key::parse("192.0.2.7")),
            },
            Told::Remembered,
        ];
        assert!(!other.send(&sent[0]));
        owner.open().unwrap();
        for told in &sent {
            assert!(other.send(told));
        }
        let raw = other.out.as_ref().unwrap();
        raw.send_to(b"f2b-pipe 2\nban\na\n192.0.2.9", &path)
            .unwrap();
        raw.send_to(&[0xff; 3000], &path).unwrap();
        assert_eq!(owner.read(), sent);
        // However many come, the sender never waits.
        let fit = (0..100_000).take_while(|_| other.send(&sent[0])).count();
        assert!(fit < 100_000);
        assert_eq!(owner.read().len(), fit);
        // The next one's file is not taken away by the last one's end; its own is.
        let mut next = Exchange::new(path.clone());
        next.open().unwrap();
        drop(owner);
        assert!(path.exists());
        drop(next);
        assert!(!path.exists());
    }
}
