//! systemd's journal, through a journalctl that follows it.
//!
//! In: what `journalmatch` says. Out: [`Event::Entry`], the line that filters are written for, with the entry's own time.
//! A child rather than libsystemd: it needs no library at build or run time, and a journal that is corrupt or slow costs
//! only the child. It goes when the pipe it writes to goes: journalctl looks for that while it waits.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::privilege::{Life, helper};
use crate::source::tail::Encoding;

mod entry;

use entry::{Entry, FIELDS};

/// Where journalctl is: fixed, since httpd's environment is not ours to trust.
const PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
/// Longest entry that is read, bytes of JSON: six for each byte of the longest line judged, at worst.
const ENTRY_MAX_BYTES: usize = 1 << 20;
/// Bytes read in one go.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks read before the caller gets a word in.
const CHUNKS: usize = 16;
/// journalctl has shown what there was when it says nothing for so long.
const QUIET: Duration = Duration::from_secs(2);
/// Before a journalctl that ended is started again; doubled each time up to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A journalctl that has run for so long after one that ended is well.
const STEADY: Duration = Duration::from_secs(5);
/// What is kept of what journalctl says on stderr, bytes.
const COMPLAINT_MAX_BYTES: usize = 1024;
/// The longest a child is waited for that closed its output, or was killed.
const FAREWELL: Duration = Duration::from_millis(200);

/// Which entries: jails that ask the same share a [`Journal`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// Each is words that must all hold (of the same field: one of them); one of them must. None: every entry.
    alternatives: Vec<Vec<String>>,
    /// Where the journal is.
    pub place: Place,
    /// `logencoding`, for what is not UTF-8.
    pub encoding: Encoding,
}

/// Where the journal is: the options of `backend = systemd[...]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// `journalpath`.
    pub folder: Option<String>,
    /// `journalfiles`, globs.
    pub files: Vec<String>,
    /// `namespace`.
    pub namespace: Option<String>,
    /// Users' own journals, too (`journalflags` without 4).
    pub of_users: bool,
}

/// How far a journal was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    /// [`Query`] as text.
    pub query: String,
    /// journalctl's.
    pub cursor: String,
    /// Of the entry there, epoch seconds.
    pub time: f64,
}

/// What there is to tell.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// An entry.
    Entry {
        /// `HOST IDENT[PID]: MESSAGE`, newlines as `\n`; its first 128 KiB.
        text: &'a str,
        /// Epoch seconds.
        time: f64,
        /// It was written since we read along ("in operation").
        live: bool,
    },
    /// All that had been there at the start was told.
    ReachedEnd,
    /// Something does not work, in one line.
    Trouble {
        /// What.
        text: &'a str,
    },
    /// It works again.
    Well,
}

/// What journalctl is to be started for: all that it is told beside what it is always told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wanted {
    alternatives: Vec<Vec<String>>,
    place: Place,
    after: Option<String>,
    /// Epoch seconds.
    since: f64,
}

impl Wanted {
    /// Where that journal is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The command, not yet started.
    ///
    /// # Errors
    /// Some word would not be a match, but something else to journalctl.
    pub fn command(&self) -> Result<Command, String> {
        let words = || self.alternatives.iter().flatten();
        if let Some(word) = words().find(|word| !is_match(word)) {
            return Err(format!("journalmatch: {word:?} is no match"));
        }
        let mut command = Command::new("journalctl");
        command
            .args(["--follow", "--no-tail", "--quiet", "--no-pager", "--all"])
            .arg("--output=json")
            .arg(format!("--output-fields={FIELDS}"))
            .arg(match &self.after {
                Some(cursor) => format!("--after-cursor={cursor}"),
                None => format!("--since=@{:.6}", self.since.max(0.0)),
            })
            .args(arguments(&self.place, &self.alternatives))
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }
}

/// Can a jail turn to the journal on this host?
#[must_use]
pub fn available() -> bool {
    let has_tool = PATH
        .split(':')
        .any(|folder| Path::new(folder).join("journalctl").exists());
    has_tool
        && ["/run/log/journal", "/var/log/journal"]
            .iter()
            .any(holds_a_journal)
}

fn holds_a_journal(folder: &&str) -> bool {
    let Ok(machines) = std::fs::read_dir(folder) else {
        return false;
    };
    machines
        .flatten()
        .filter_map(|machine| std::fs::read_dir(machine.path()).ok())
        .flatten()
        .flatten()
        .any(|file| file.path().extension().is_some_and(|end| end == "journal"))
}

impl Query {
    /// Of a jail's `journalmatch`: words like `_COMM=sshd`, `+` between alternatives; each line is one more.
    ///
    /// # Errors
    /// A word that is none; the message says which.
    pub fn new<'a>(
        lines: impl IntoIterator<Item = &'a str>,
        place: Place,
        encoding: Encoding,
    ) -> Result<Self, String> {
        let mut alternatives: Vec<Vec<String>> = Vec::new();
        for line in lines {
            for alternative in words(line)?.split(|word| word == "+") {
                if !alternative.is_empty() {
                    alternatives.push(alternative.to_vec());
                }
            }
        }
        alternatives.sort();
        alternatives.dedup();
        Ok(Self {
            alternatives,
            place,
            encoding,
        })
    }

    fn arguments(&self) -> Vec<String> {
        arguments(&self.place, &self.alternatives)
    }
}

fn arguments(place: &Place, alternatives: &[Vec<String>]) -> Vec<String> {
    let mut arguments = Vec::new();
    if let Some(folder) = &place.folder {
        arguments.push(format!("--directory={folder}"));
    }
    arguments.extend(place.files.iter().map(|glob| format!("--file={glob}")));
    if let Some(namespace) = &place.namespace {
        arguments.push(format!("--namespace={namespace}"));
    }
    if place.folder.is_none() && place.files.is_empty() && !place.of_users {
        arguments.push("--system".to_owned());
    }
    for (at, alternative) in alternatives.iter().enumerate() {
        if at > 0 {
            arguments.push("+".to_owned());
        }
        arguments.extend(alternative.iter().cloned());
    }
    arguments
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.arguments().join(" "))
    }
}

/// The words of a line as a shell reads them.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = line.chars().chain([' ']);
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None | Some('"'), '\\') => word.extend(chars.next()),
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(checked(std::mem::take(&mut word), line)?);
                }
            }
            (_, c) => word.push(c),
        }
    }
    if quote.is_some() {
        return Err(format!(
            "journalmatch: {line:?} has a quote that does not end"
        ));
    }
    Ok(words)
}

fn checked(word: String, line: &str) -> Result<String, String> {
    // What is no field, a path or an option, would mean something else to journalctl.
    if is_match(&word) || word == "+" {
        Ok(word)
    } else {
        Err(format!(
            "journalmatch: {word:?} in {line:?} is no match; write FIELD=value, as in _SYSTEMD_UNIT=ssh.service"
        ))
    }
}

fn is_match(word: &str) -> bool {
    let upper = |c| matches!(c, 'A'..='Z' | '0'..='9' | '_');
    let field = word.split_once('=').map_or("", |(name, _)| name);
    !field.is_empty() && field.chars().all(upper)
}

/// Follows the journal.
#[derive(Debug)]
pub struct Journal {
    query: Query,
    cursor: Option<Cursor>,
    since: f64,
    /// When we began, epoch seconds.
    begun: f64,
    live: bool,
    child: Option<Running>,
    next_start: Instant,
    started: Instant,
    back_off: Duration,
    /// An entry that has begun.
    line: Vec<u8>,
    /// The entry is too long: the rest of it is passed over.
    skipping: bool,
    last_word: Instant,
    chunk: Vec<u8>,
    trouble: String,
}

#[derive(Debug)]
struct Running {
    child: Follower,
    out: File,
    /// `None`: it closed it.
    err: Option<File>,
    complaint: Vec<u8>,
    /// It has shown an entry.
    of_use: bool,
    by_cursor: bool,
}

/// The journalctl that runs: ours, or the helper process's.
#[derive(Debug)]
enum Follower {
    Ours(Child),
    Helpers(Life),
}

impl Follower {
    fn id(&self) -> u32 {
        match self {
            Self::Ours(child) => child.id(),
            Self::Helpers(life) => life.id(),
        }
    }

    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match self {
            Self::Ours(child) => child.try_wait(),
            Self::Helpers(life) => life.try_wait(),
        }
    }

    fn kill(&mut self) {
        match self {
            // Can fail only if it has just ended.
            Self::Ours(child) => child.kill().unwrap_or_default(),
            Self::Helpers(life) => life.kill(),
        }
    }
}

impl Journal {
    /// Follows the entries of `query` from where an earlier life left it (`stored`), but from no earlier than `since`;
    /// `now` is the clock, both epoch seconds. Nothing is started before the first [`wait`](Self::wait).
    #[must_use]
    pub fn new(query: Query, stored: Option<Cursor>, since: f64, now: f64) -> Self {
        Self {
            query,
            cursor: stored.filter(|stored| stored.time >= since),
            since,
            begun: now,
            live: false,
            child: None,
            next_start: Instant::now(),
            started: Instant::now(),
            back_off: BACK_OFF.0,
            line: Vec::new(),
            skipping: false,
            last_word: Instant::now(),
            chunk: vec![0; CHUNK_BYTES],
            trouble: String::new(),
        }
    }

    /// What it follows.
    #[must_use]
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// Where an earlier life would go on: the last entry that was told.
    #[must_use]
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// Readable when something happened; also call [`wait`](Self::wait) when [`pause`](Self::pause) is over. Changes with
    /// each child.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.child.as_ref().map(|child| child.out.as_fd())
    }

    /// The id of the journalctl that runs now.
    #[must_use]
    pub fn child(&self) -> Option<u32> {
        self.child.as_ref().map(|running| running.child.id())
    }

    /// How long nothing needs to be done unless [`fd`](Self::fd) is readable.
    #[must_use]
    pub fn pause(&self) -> Duration {
        match &self.child {
            None => self.next_start.saturating_duration_since(Instant::now()),
            Some(_) if !self.trouble.is_empty() => STEADY.saturating_sub(self.started.elapsed()),
            Some(_) if self.live => Duration::from_secs(60),
            Some(_) => QUIET.saturating_sub(self.last_word.elapsed()),
        }
    }

    /// Waits for entries, at most `timeout`, and tells them.
    ///
    /// # Errors
    /// Of poll(2). What is wrong with the journal is an event.
    pub fn wait(&mut self, timeout: Duration, on: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        self.rest(timeout)?;
        if self.child.is_none() && Instant::now() >= self.next_start {
            self.start(on);
        }
        for _ in 0..CHUNKS {
            let Some(running) = &mut self.child else {
                break;
            };
            running.hear_complaints();
            match running.out.read(&mut self.chunk) {
                Ok(0) => {
                    self.end(on);
                    break;
                }
                Ok(got) => {
                    self.last_word = Instant::now();
                    let chunk = std::mem::take(&mut self.chunk);
                    self.feed(chunk.get(..got).unwrap_or_default(), on);
                    self.chunk = chunk;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.tell(format!("journalctl: {error}"), on);
                    self.end(on);
                    break;
                }
            }
        }
        if !self.trouble.is_empty() && self.child.is_some() && self.started.elapsed() >= STEADY {
            self.trouble.clear();
            on(Event::Well);
        }
        if !self.live && self.child.is_some() && self.last_word.elapsed() >= QUIET {
            self.live = true;
            on(Event::ReachedEnd);
        }
        Ok(())
    }

    fn rest(&self, timeout: Duration) -> io::Result<()> {
        let pause = timeout.min(self.pause());
        let Some(running) = &self.child else {
            std::thread::sleep(pause);
            return Ok(());
        };
        let err = running.err.as_ref().map(AsFd::as_fd);
        let mut fds: Vec<PollFd<'_>> = [Some(running.out.as_fd()), err]
            .into_iter()
            .flatten()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn start(&mut self, on: &mut dyn FnMut(Event<'_>)) {
        let wanted = Wanted {
            alternatives: self.query.alternatives.clone(),
            place: self.query.place.clone(),
            after: self.cursor.as_ref().map(|cursor| cursor.cursor.clone()),
            since: self.since,
        };
        self.line.clear();
        self.skipping = false;
        self.last_word = Instant::now();
        self.started = self.last_word;
        match Running::start(wanted) {
            Ok(running) => self.child = Some(running),
            Err(error) => {
                let text = if error.kind() == io::ErrorKind::NotFound {
                    "journalctl is not installed, so the journal cannot be read".to_owned()
                } else {
                    format!("journalctl cannot be started: {error}")
                };
                self.tell(text, on);
                self.stand_off();
            }
        }
    }

    fn stand_off(&mut self) {
        self.next_start = Instant::now() + self.back_off;
        self.back_off = (self.back_off * 2).min(BACK_OFF.1);
    }

    /// The child closed its output.
    fn end(&mut self, on: &mut dyn FnMut(Event<'_>)) {
        let Some(mut running) = self.child.take() else {
            return;
        };
        running.hear_complaints();
        let status = running.bury(FAREWELL);
        let complaint = running.complaint();
        let ended = status.map_or_else(
            || "is stuck".to_owned(),
            |status| format!("ended ({status})"),
        );
        let mut text = format!("journalctl {ended}");
        if !complaint.is_empty() {
            text = format!("{text}: {complaint}");
        }
        if running.by_cursor && !running.of_use && !complaint.is_empty() {
            // A cursor that no journal knows must not keep us out for ever.
            if let Some(cursor) = self.cursor.take() {
                self.since = self.since.max(cursor.time);
            }
        }
        self.tell(format!("{text}; starting it again"), on);
        self.stand_off();
    }

    /// Says it, once until something else is to be said.
    fn tell(&mut self, text: String, on: &mut dyn FnMut(Event<'_>)) {
        if text != self.trouble {
            on(Event::Trouble { text: &text });
            self.trouble = text;
        }
    }

    fn feed(&mut self, chunk: &[u8], on: &mut dyn FnMut(Event<'_>)) {
        let mut rest = chunk;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at_checked(end).unwrap_or((rest, b""));
            rest = after.get(1..).unwrap_or_default();
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.line.is_empty() {
                self.entry(line, on);
            } else {
                self.line.extend_from_slice(line);
                let line = std::mem::take(&mut self.line);
                self.entry(&line, on);
                self.line = line;
                self.line.clear();
                self.line.shrink_to(CHUNK_BYTES);
            }
        }
        if !self.skipping {
            self.line.extend_from_slice(rest);
            if self.line.len() > ENTRY_MAX_BYTES {
                self.line = Vec::new();
                self.skipping = true;
                self.tell("an entry of more than 1 MiB was passed over".to_owned(), on);
            }
        }
    }

    fn entry(&mut self, line: &[u8], on: &mut dyn FnMut(Event<'_>)) {
        if line.is_empty() {
            return;
        }
        let entry = match serde_json::from_slice::<Entry>(line) {
            Ok(entry) => entry,
            Err(error) => {
                return self.tell(format!("journalctl: an entry is no JSON: {error}"), on);
            }
        };
        let Some(time) = entry.time() else {
            return;
        };
        if !self.live && time >= self.begun - 1.0 {
            self.live = true;
            on(Event::ReachedEnd);
        }
        if let Some(running) = &mut self.child {
            running.of_use = true;
        }
        self.back_off = BACK_OFF.0;
        let text = entry.text(self.query.encoding);
        on(Event::Entry {
            text: &text,
            time,
            live: self.live,
        });
        match &mut self.cursor {
            Some(cursor) => {
                cursor.cursor = entry.cursor;
                cursor.time = time;
            }
            None => {
                self.cursor = Some(Cursor {
                    query: self.query.to_string(),
                    cursor: entry.cursor,
                    time,
                });
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Some(mut running) = self.child.take() {
            running.bury(Duration::ZERO);
        }
    }
}

impl Running {
    fn start(wanted: Wanted) -> io::Result<Self> {
        let by_cursor = wanted.after.is_some();
        let (child, out, err) = match helper() {
            Some(helper) => {
                let (out, err, life) = helper.journal(wanted)?;
                (Follower::Helpers(life), out, err)
            }
            None => {
                let mut child = wanted.command().map_err(io::Error::other)?.spawn()?;
                let pipes = (child.stdout.take(), child.stderr.take());
                let (Some(out), Some(err)) = pipes else {
                    return Err(io::Error::other("no pipe to it"));
                };
                let (out, err) = (OwnedFd::from(out), OwnedFd::from(err));
                (Follower::Ours(child), out.into(), err.into())
            }
        };
        fcntl(&out, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        fcntl(&err, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self {
            child,
            out,
            err: Some(err),
            complaint: Vec::new(),
            of_use: false,
            by_cursor,
        })
    }

    /// Keeps the beginning of what it says on stderr, and takes the rest so that it is never held up.
    fn hear_complaints(&mut self) {
        let mut chunk = [0; 1024];
        loop {
            let Some(err) = &mut self.err else {
                return;
            };
            match err.read(&mut chunk) {
                Ok(0) => self.err = None,
                Ok(got) => {
                    let room = COMPLAINT_MAX_BYTES.saturating_sub(self.complaint.len());
                    let said = chunk.get(..got.min(room)).unwrap_or_default();
                    self.complaint.extend_from_slice(said);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// The first line it said on stderr.
    fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(&self.complaint);
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// Makes sure that it ends; `patience`: how long by itself. `None`: even SIGKILL does not reach it where it hangs, in
    /// a disk say.
    fn bury(&mut self, patience: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if begun.elapsed() < patience + FAREWELL => {}
                Ok(None) | Err(_) => return None,
            }
            if begun.elapsed() >= patience {
                self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(lines: &[&str]) -> Result<String, String> {
        let query = Query::new(lines.iter().copied(), Place::default(), Encoding::UTF_8)?;
        Ok(query.to_string())
    }

    #[test]
    fn matches_are_joined_by_or_whether_by_plus_or_by_line() {
        assert_eq!(
            arguments(&[
                "_SYSTEMD_UNIT=ssh.service + _COMM=sshd",
                "SYSLOG_IDENTIFIER='a b' _PID=1"
            ]),
            Ok(
                "--system SYSLOG_IDENTIFIER=a b _PID=1 + _COMM=sshd + _SYSTEMD_UNIT=ssh.service"
                    .to_owned()
            )
        );
        assert_eq!(arguments(&[]), Ok("--system".to_owned()));
    }

    #[test]
    fn a_word_that_journalctl_would_take_for_something_else_is_refused() {
        for line in [
            "--vacuum-size=1",
            "/usr/bin/sshd",
            "ssh.service",
            "_COMM='sshd",
        ] {
            assert!(arguments(&[line]).is_err(), "{line}");
        }
    }
}
