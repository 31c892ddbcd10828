//! `run`'s side: hits go out, and are kept until they are counted.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::PATIENCE;
use super::wire::{self, Hits, Named, Said};
use crate::hit::{Arrival, Batch, JailId};

/// How often a `watch` is looked for.
const AGAIN: Duration = Duration::from_secs(1);
/// What may be on its way, bytes: some seven thousand lines. If `watch` is that far behind, it is of no help.
const PENDING_MAX: usize = 1 << 20;
/// Longest answer.
const ANSWER_MAX: usize = 4096;

/// The way to `watch`.
#[derive(Debug)]
pub struct Feeder {
    path: PathBuf,
    hello: Vec<u8>,
    /// By their number in hits.
    jails: Arc<[Named]>,
    link: Link,
    /// Being written.
    open: Vec<Hits>,
    /// Whole, and not counted by `watch` yet, oldest first.
    pending: VecDeque<Frame>,
    /// Bytes in `pending`.
    bytes: usize,
    /// How many of `pending` are out, and how many bytes of the next one.
    sent: (usize, usize),
    number: u64,
    next_try: Instant,
    /// Another version of the protocol was spoken of.
    told_version: bool,
}

#[derive(Debug)]
enum Link {
    /// Nobody is there.
    Gone,
    /// Somebody is, and has not answered yet.
    Asked(Line),
    /// He counts.
    Fed(Line),
}

#[derive(Debug)]
struct Line {
    stream: UnixStream,
    since: Instant,
    answer: Vec<u8>,
}

#[derive(Debug)]
struct Frame {
    number: u64,
    at_us: u64,
    bytes: Vec<u8>,
    /// What the numbers in it mean.
    jails: Arc<[Named]>,
}

impl Feeder {
    /// To the socket at `path`, which is asked at the first [`tend`](Self::tend). `jails` by their number in hits.
    #[must_use]
    pub fn new(path: PathBuf, jails: &[Named]) -> Self {
        Self {
            path,
            hello: wire::hello(std::process::id(), jails),
            jails: jails.into(),
            link: Link::Gone,
            open: Vec::new(),
            pending: VecDeque::new(),
            bytes: 0,
            sent: (0, 0),
            number: 0,
            next_try: Instant::now(),
            told_version: false,
        }
    }

    /// The jails are others from now on. What is on its way keeps the numbers it has: `watch` is told of the new ones in
    /// between, and goes on counting.
    pub fn rename(&mut self, jails: &[Named], now_us: u64) {
        if *self.jails == *jails {
            return;
        }
        self.close();
        self.hello = wire::hello(std::process::id(), jails);
        self.jails = jails.into();
        match &self.link {
            Link::Fed(_) => {
                // No hits: their number is what is answered.
                self.number += 1;
                let mut bytes = self.hello.clone();
                bytes.extend(Hits::new(self.number, now_us).done());
                self.pend(self.number, now_us, bytes);
                self.flush();
            }
            Link::Asked(_) | Link::Gone => {
                self.link = Link::Gone;
                self.next_try = Instant::now();
            }
        }
    }

    /// Does `watch` count?
    #[must_use]
    pub fn is_fed(&self) -> bool {
        matches!(self.link, Link::Fed(_))
    }

    /// Is something out, or to go out, that is not counted?
    #[must_use]
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty() || !self.open.is_empty()
    }

    /// Is something known to this process only, as nobody has answered yet?
    #[must_use]
    pub fn is_alone_with_hits(&self) -> bool {
        self.is_pending() && !self.is_fed()
    }

    /// Is it worth while to wait for an answer, and are hits to be [`put`](Self::put) here until then?
    #[must_use]
    pub fn is_hopeful(&self) -> bool {
        match &self.link {
            Link::Gone => false,
            Link::Asked(line) => line.since.elapsed() < PATIENCE && self.bytes <= PENDING_MAX,
            Link::Fed(_) => true,
        }
    }

    /// Takes hits of lines that arrived at `at_us` (microseconds of CLOCK_MONOTONIC). Nothing is left in the batch.
    pub fn put(&mut self, batch: &mut Batch<'_>, at_us: u64) {
        let number = &mut self.number;
        wire::put(batch, &mut self.open, || {
            *number += 1;
            Hits::new(*number, at_us)
        });
        batch.clear();
        if self.open.len() > 1 {
            self.close();
        }
    }

    /// Ends the frames that are open.
    fn close(&mut self) {
        let first = (self.number + 1).saturating_sub(u64::try_from(self.open.len()).unwrap_or(0));
        for (number, hits) in (first..).zip(std::mem::take(&mut self.open)) {
            let at_us = hits.at_us();
            let bytes = hits.done();
            self.pend(number, at_us, bytes);
        }
    }

    fn pend(&mut self, number: u64, at_us: u64, bytes: Vec<u8>) {
        self.bytes += bytes.len();
        self.pending.push_back(Frame {
            number,
            at_us,
            bytes,
            jails: Arc::clone(&self.jails),
        });
    }

    /// The end of a chunk: what was put goes out as far as the socket takes it.
    pub fn flush(&mut self) {
        self.close();
        if let Link::Fed(line) = &mut self.link
            && let Err(error) = write(&mut line.stream, &self.pending, &mut self.sent)
        {
            self.lose(&error.to_string());
        }
    }

    /// Hears what `watch` says, and looks for it now and then. `now_us`: on the clock of [`put`](Self::put).
    pub fn tend(&mut self, now_us: u64) {
        if matches!(self.link, Link::Gone) && Instant::now() >= self.next_try {
            self.next_try = Instant::now() + AGAIN;
            self.ask();
        }
        if let Err(error) = self.hear() {
            self.lose(&error);
        }
        if self.is_fed() && (self.is_late(now_us) || self.bytes > PENDING_MAX) {
            self.lose("it does not follow");
        }
    }

    /// Is something pending for too long?
    fn is_late(&self, now_us: u64) -> bool {
        let patience = u64::try_from(PATIENCE.as_micros()).unwrap_or(u64::MAX);
        self.pending
            .front()
            .is_some_and(|frame| now_us.saturating_sub(frame.at_us) >= patience)
    }

    /// What was put and not counted, for this process to count: in its order, nothing if `watch` is to count it.
    pub fn take_back(&mut self, mut each: impl FnMut(&mut Batch<'_>, Arrival, u64)) {
        self.close();
        self.sent = (0, 0);
        self.bytes = 0;
        for frame in std::mem::take(&mut self.pending) {
            if let Ok(Some((
                Said::Hits {
                    at_us, mut batch, ..
                },
                _,
            ))) = wire::read(&frame.bytes)
            {
                if !Arc::ptr_eq(&frame.jails, &self.jails) {
                    renumber(&mut batch, &frame.jails, &self.jails);
                }
                each(&mut batch, Arrival(at_us / 1000), at_us);
            }
        }
    }

    /// When [`tend`](Self::tend) has something to do even if nothing comes, from now on; `None`: never.
    #[must_use]
    pub fn due(&self, now_us: u64) -> Option<Duration> {
        match &self.link {
            Link::Gone => Some(self.next_try.saturating_duration_since(Instant::now())),
            Link::Asked(line) => PATIENCE
                .checked_sub(line.since.elapsed())
                .filter(|left| !left.is_zero()),
            Link::Fed(_) => self.pending.front().map(|frame| {
                let waited = Duration::from_micros(now_us.saturating_sub(frame.at_us));
                PATIENCE.saturating_sub(waited)
            }),
        }
    }

    /// Something to poll, and whether for bytes too or only for its end: answers that nobody waits for wake nobody.
    #[must_use]
    pub fn fd(&self) -> Option<(BorrowedFd<'_>, bool)> {
        match &self.link {
            Link::Gone => None,
            Link::Asked(line) => Some((line.stream.as_fd(), true)),
            Link::Fed(line) => Some((line.stream.as_fd(), false)),
        }
    }

    fn ask(&mut self) {
        // Whatever goes wrong here is no news: there is no watch.
        if let Ok(mut stream) = open(&self.path)
            && stream
                .write(&self.hello)
                .is_ok_and(|n| n == self.hello.len())
        {
            self.link = Link::Asked(Line {
                stream,
                since: Instant::now(),
                answer: Vec::new(),
            });
        }
    }

    fn lose(&mut self, why: &str) {
        if self.is_fed() {
            log::warn!(
                "f2b-pipe watch is gone ({why}): hits are counted and bans are made here until it answers again"
            );
        }
        self.link = Link::Gone;
        self.next_try = Instant::now() + AGAIN;
    }

    fn hear(&mut self) -> Result<(), String> {
        let line = match &mut self.link {
            Link::Gone => return Ok(()),
            Link::Asked(line) | Link::Fed(line) => line,
        };
        let mut bytes = [0; 1024];
        let ended = loop {
            match line.stream.read(&mut bytes) {
                Ok(0) => break Some("it has ended".to_owned()),
                Ok(n) => line
                    .answer
                    .extend_from_slice(bytes.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error.to_string()),
            }
            if line.answer.len() > ANSWER_MAX {
                break None;
            }
        };
        let answer = std::mem::take(&mut line.answer);
        let mut rest = answer.as_slice();
        let mut welcome = false;
        loop {
            match wire::read(rest) {
                Ok(None) => break,
                Ok(Some((said, after))) => {
                    rest = after;
                    match said {
                        Said::Welcome => welcome = true,
                        Said::Counted(number) => {
                            let counted = |frame: &Frame| frame.number <= number;
                            while self.sent.0 > 0 && self.pending.front().is_some_and(counted) {
                                let frame = self.pending.pop_front();
                                self.bytes -= frame.map_or(0, |frame| frame.bytes.len());
                                self.sent.0 -= 1;
                            }
                        }
                        Said::Hello { .. } | Said::Hits { .. } => {
                            return Err("it speaks nonsense".to_owned());
                        }
                    }
                }
                Err(wire::Odd::Version(other)) => {
                    if !std::mem::replace(&mut self.told_version, true) {
                        log::warn!(
                            "f2b-pipe watch speaks version {other} of the feed, this process {}: both are well by themselves; \
                             restart watch and httpd to share counts",
                            wire::VERSION
                        );
                    }
                    return Err("it is of another version".to_owned());
                }
                Err(wire::Odd::Malformed) => return Err("it speaks nonsense".to_owned()),
            }
        }
        let rest = rest.to_vec();
        if let Link::Asked(line) | Link::Fed(line) = &mut self.link {
            line.answer = rest;
        }
        if welcome && ended.is_none() {
            self.link = match std::mem::replace(&mut self.link, Link::Gone) {
                Link::Asked(line) => {
                    log::info!("f2b-pipe watch counts the hits, and bans");
                    Link::Fed(line)
                }
                other @ (Link::Gone | Link::Fed(_)) => other,
            };
            self.sent = (0, 0);
            self.flush();
        }
        ended.map_or(Ok(()), Err)
    }
}

/// Hits for jails by the numbers of `old` get those of `new`; those for jails that are gone go.
fn renumber(batch: &mut Batch<'_>, old: &[Named], new: &[Named]) {
    let to = |number: JailId| {
        let name = &old.get(usize::from(number))?.name;
        let mut all = (0..).zip(new);
        all.find_map(|(number, jail)| (jail.name == *name).then_some(number))
    };
    let mut left = std::mem::take(&mut batch.hits).into_iter();
    for party in &mut batch.parties {
        let before = batch.hits.len();
        for mut hit in left.by_ref().take(party.hits) {
            if let Some(number) = to(hit.jail) {
                hit.jail = number;
                batch.hits.push(hit);
            }
        }
        party.hits = batch.hits.len() - before;
    }
    batch.parties.retain(|party| party.hits > 0);
}

/// As much as the socket takes.
fn write(
    stream: &mut UnixStream,
    frames: &VecDeque<Frame>,
    sent: &mut (usize, usize),
) -> io::Result<()> {
    while let Some(frame) = frames.get(sent.0) {
        let left = frame.bytes.get(sent.1..).unwrap_or_default();
        match stream.write(left) {
            Ok(n) if n == left.len() => *sent = (sent.0 + 1, 0),
            Ok(n) => sent.1 += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Does somebody take hits at the socket at `path`? Who may not connect to one that is there believes it.
#[must_use]
pub fn is_taken(path: &std::path::Path) -> bool {
    match open(path) {
        Ok(_) => true,
        Err(error) => matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied
        ),
    }
}

/// Connects without waiting: where the other side does not take connections, as it is stopped, the queue is full at some
/// time (EAGAIN).
fn open(path: &std::path::Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new(path)?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &address)?;
    Ok(UnixStream::from(fd))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::client::Client;
    use crate::hit::{Hit, Party};

    fn named(names: &[&str]) -> Vec<Named> {
        let each = names.iter().map(|name| Named {
            name: (*name).to_owned(),
            observes: false,
        });
        each.collect()
    }

    /// A line that counts for these jails.
    fn line(jails: &[JailId]) -> Batch<'static> {
        let hits = jails.iter().map(|jail| Hit {
            jail: *jail,
            weight: 1,
            distinct: None,
        });
        Batch {
            hits: hits.collect(),
            parties: vec![Party {
                client: Client::parse(b"192.0.2.7").unwrap(),
                hits: jails.len(),
                proxy: None,
                evidence: b"GET /",
                status: 200,
            }],
        }
    }

    fn jails(batch: &Batch<'_>) -> Vec<JailId> {
        batch.hits.iter().map(|hit| hit.jail).collect()
    }

    #[test]
    fn jails_that_are_others_now_cost_no_hit_that_is_on_its_way() {
        let path = std::env::temp_dir().join(format!("f2b-feeder-{}", std::process::id()));
        let watch = UnixListener::bind(&path).unwrap();
        let mut feeder = Feeder::new(path.clone(), &named(&["a", "b"]));
        feeder.tend(0);
        let (mut stream, _) = watch.accept().unwrap();
        stream.write_all(&wire::welcome()).unwrap();
        feeder.tend(0);
        assert!(feeder.is_fed());
        feeder.put(&mut line(&[0, 1]), 1);
        feeder.rename(&named(&["b", "c"]), 2);
        // The same once more says nothing.
        feeder.rename(&named(&["b", "c"]), 2);
        feeder.put(&mut line(&[0, 1]), 3);
        feeder.flush();
        assert!(feeder.is_fed());
        let mut bytes = vec![0; 65536];
        let n = stream.read(&mut bytes).unwrap();
        let mut rest = &bytes[..n];
        let mut heard = Vec::new();
        while let Some((said, after)) = wire::read(rest).unwrap() {
            rest = after;
            heard.push(match said {
                Said::Hello { jails, .. } => {
                    let names = jails.iter().map(|jail| jail.name.as_str());
                    names.collect::<Vec<_>>().join(" ")
                }
                Said::Hits { number, batch, .. } => format!("{number} {:?}", jails(&batch)),
                Said::Welcome | Said::Counted(_) => "?".to_owned(),
            });
        }
        assert_eq!(heard, ["a b", "1 [0, 1]", "b c", "2 []", "3 [0, 1]"]);
        // Of what is counted nothing comes back; the rest by the numbers of now, and what is gone is.
        drop(stream);
        feeder.tend(4);
        assert!(!feeder.is_fed());
        let mut back = Vec::new();
        feeder.take_back(|batch, _, at| {
            assert!(batch.parties.iter().all(|party| party.hits > 0));
            back.push((at, jails(batch)));
        });
        assert_eq!(back, [(1, vec![0]), (3, vec![0, 1])]);
        std::fs::remove_file(path).unwrap();
    }
}
