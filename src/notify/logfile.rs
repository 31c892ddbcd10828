//! fail2ban's log, for what reads it: recidive filters, logwatch, dashboards (`[fail2ban] logfile`; off by default).
//!
//! ```text
//! 2026-11-22 19:49:50,298 fail2ban.actions        [21844]: NOTICE  [sshd] Ban 192.0.2.1
//! ```
//!
//! Who decides tells, into a bounded queue; a thread of its own writes. A disk that hangs costs lines, which are counted,
//! and never a ban. Every process that decides appends to the same file, whole lines at a time. A renamed file is left
//! once another has its name (logrotate), or nobody has made one for some seconds.
//!
//! What a client wrote must not look like a ban of somebody else to a filter that reads this: what is no address stands in
//! quotes, without blanks and brackets. fail2ban writes it as it is.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Local};
use ipnet::IpNet;

use crate::bans::Weighed;
use crate::exempt::Spared;
use crate::say;

/// Lines that may wait: a tenth of a second of the busiest server.
const QUEUE: usize = 8192;
/// Of these, lines of which a stranger can make many ([`found`], [`ignored`]): they must not push out the ban that they
/// lead to.
const COMMON: usize = QUEUE / 2;
/// Before waiting for the next line, as in say.rs: to wake who waits costs the one who tells more than the line does.
const COLLECT: Duration = Duration::from_millis(2);
/// Lines written at a time.
const BATCH: usize = 256;
/// How often what could not be written is tried again, and how often loss is told.
const RETRY: Duration = Duration::from_secs(1);
const COMPLAIN: Duration = Duration::from_secs(60);
/// How long a renamed file is written on to while nothing has its name: logrotate renames first and creates then, and is
/// broken by who is faster.
const PATIENCE: Duration = Duration::from_secs(5);
/// At the end, what is queued has this long to get out.
const FAREWELL: Duration = Duration::from_millis(200);
/// Root writes, a group of the administrator's choice (adm) may read.
const MODE: u32 = 0o640;

static LOG: OnceLock<Log> = OnceLock::new();

/// The way to the thread.
#[derive(Debug)]
struct Log {
    to: SyncSender<Told>,
    on: AtomicBool,
    waiting: AtomicUsize,
    lost: AtomicU64,
}

enum Told {
    Line(Line),
    /// Another file from now on.
    To(PathBuf),
    /// Answer when everything before this is out.
    Flush(SyncSender<()>),
}

#[derive(Debug)]
struct Line {
    at: SystemTime,
    /// fail2ban's part that says it.
    part: &'static str,
    level: &'static str,
    text: String,
    /// Seconds since the epoch, told behind the text.
    when: Option<f64>,
}

/// Writes to `path` from now on; `None`: no more.
pub fn start(path: Option<&Path>) {
    let Some(path) = path else {
        if let Some(log) = LOG.get() {
            log.on.store(false, Ordering::Relaxed);
        }
        return;
    };
    if let Some(log) = LOG.get() {
        log.on.store(true, Ordering::Relaxed);
        log.to.try_send(Told::To(path.to_owned())).ok();
        return;
    }
    let (to, from) = sync_channel(QUEUE);
    let mut writer = Writer::new(path.to_owned());
    let started = thread::Builder::new()
        .name("fail2ban-log".into())
        .spawn(move || {
            crate::sys::stand_back();
            writer.stay(&from);
        });
    if let Err(error) = started {
        return log::error!(
            "cannot start a thread: {error}; {} is not written",
            path.display()
        );
    }
    LOG.get_or_init(|| Log {
        to,
        on: AtomicBool::new(true),
        waiting: AtomicUsize::new(0),
        lost: AtomicU64::new(0),
    });
}

/// Is a log written? To be asked before anything is done only for its lines.
#[must_use]
pub fn is_on() -> bool {
    LOG.get().is_some_and(|log| log.on.load(Ordering::Relaxed))
}

/// Lines that were lost so far.
#[must_use]
pub fn lost() -> u64 {
    LOG.get().map_or(0, |log| log.lost.load(Ordering::Relaxed))
}

/// Waits a moment for what is queued.
pub fn flush() {
    let Some(log) = LOG.get() else { return };
    let (done, out) = sync_channel(1);
    if log.to.try_send(Told::Flush(done)).is_ok() {
        // Not in time: a disk that hangs loses the rest.
        out.recv_timeout(FAREWELL).ok();
    }
}

/// Somebody failed, or made a hit. `when`: the line's own time, seconds since the epoch; `None`: now.
pub fn found(jail: &str, who: &dyn Display, when: Option<f64>) {
    let when = Some(when.unwrap_or_else(|| seconds(SystemTime::now())));
    let text = || format!("[{jail}] Found {}", shown(who));
    tell("filter", "INFO", when, COMMON, text);
}

/// The same of somebody who is never banned; `by` as fail2ban names it, see [`by`].
pub fn ignored(jail: &str, who: &dyn Display, by: &str) {
    let text = || format!("[{jail}] Ignore {} by {by}", shown(who));
    tell("filter", "INFO", None, COMMON, text);
}

/// What fail2ban calls the reason.
#[must_use]
pub fn by(spared: &Spared) -> &'static str {
    match spared {
        Spared::IgnoredName(..) => "dns",
        Spared::Own(_) | Spared::LoggedIn(_) => "ignoreself rule",
        Spared::Loopback
        | Spared::LinkLocal
        | Spared::Unspecified
        | Spared::Multicast
        | Spared::Proxy(_)
        | Spared::Ignored(_) => "ip",
    }
}

/// A ban.
pub fn ban(jail: &str, who: &dyn Display) {
    notice(jail, "Ban", who);
}

/// A ban from before a restart.
pub fn restored(jail: &str, who: &dyn Display) {
    notice(jail, "Restore Ban", who);
}

/// The end of a ban.
pub fn unban(jail: &str, who: &dyn Display) {
    notice(jail, "Unban", who);
}

fn notice(jail: &str, what: &str, who: &dyn Display) {
    let text = || format!("[{jail}] {what} {}", shown(who));
    tell("actions", "NOTICE", None, QUEUE, text);
}

/// A failure counts for more, as its client was banned before. `when`: seconds since the epoch.
pub fn found_bad(jail: &str, who: &dyn Display, when: f64, weighed: &Weighed) {
    let text = || {
        let Weighed {
            bans,
            weight,
            capped,
            enough,
        } = weighed;
        // fail2ban computes with fractions, but maxretry has none.
        let fraction = if *capped { "" } else { ".0" };
        let ban = if *enough { ", Ban" } else { "" };
        format!(
            "[{jail}] Found {}, bad - {}, {bans} # -> {weight}{fraction}{ban}",
            shown(who),
            local(when)
        )
    };
    tell("observer", "INFO", None, COMMON, text);
}

/// A ban will be longer, `lengths` from and to (seconds; `None`: for ever), after `bans` before, the last of which began at
/// `last`, seconds since the epoch.
pub fn is_bad(
    jail: &str,
    who: &dyn Display,
    bans: u32,
    last: f64,
    lengths: (Option<f64>, Option<f64>),
) {
    let text = || {
        let [from, to] =
            [lengths.0, lengths.1].map(|secs| secs.map_or("permanent".to_owned(), length));
        format!(
            "[{jail}] IP {} is bad: {bans} # last {} - incr {from} to {to}",
            shown(who),
            local(last)
        )
    };
    tell("observer", "INFO", None, QUEUE, text);
}

/// A ban is longer than the jail's, as it is the `number`th one. Seconds; `None`: for ever.
pub fn increased(
    jail: &str,
    who: &dyn Display,
    number: u32,
    bantime: Option<f64>,
    end: Option<f64>,
) {
    let text = || {
        let lasts = bantime.map_or("permanent".to_owned(), length);
        let until = end.map_or("infinite".to_owned(), |end| local(end).to_string());
        format!(
            "[{jail}] Increase Ban {} ({number} # {lasts} -> {until})",
            shown(who)
        )
    };
    tell("observer", "NOTICE", None, QUEUE, text);
}

/// Somebody reached the limit again `age` seconds after his ban began. Soon after it that is no news.
pub fn already_banned(jail: &str, who: &dyn Display, age: f64) {
    let level = match age {
        age if age < 3.0 => return,
        age if age < 60.0 => "NOTICE",
        _ => "WARNING",
    };
    let text = || format!("[{jail}] {} already banned", shown(who));
    tell("actions", level, None, QUEUE, text);
}

/// A jail begins to work.
pub fn jail_started(jail: &str) {
    tell("jail", "INFO", None, QUEUE, || {
        format!("Creating new jail '{jail}'")
    });
    tell("jail", "INFO", None, QUEUE, || {
        format!("Jail '{jail}' started")
    });
}

/// A jail's work has ended.
pub fn jail_stopped(jail: &str) {
    tell("jail", "INFO", None, QUEUE, || {
        format!("Jail '{jail}' stopped")
    });
}

/// A log is followed from `position` on; `hash` is of its first line.
pub fn added(path: &Path, position: u64, hash: u64) {
    let path = path.display();
    let text = || format!("Added logfile: '{path}' (pos = {position}, hash = {hash:016x})");
    tell("filter", "INFO", None, QUEUE, text);
}

/// A log is gone.
pub fn removed(path: &Path) {
    let text = || format!("Removed logfile: '{}'", path.display());
    tell("filter", "INFO", None, QUEUE, text);
}

/// A log was renamed or shortened.
pub fn rotated(path: &Path) {
    let text = || {
        format!(
            "Log rotation detected for {}, reason: 'renamed or shortened'",
            path.display()
        )
    };
    tell("filter", "MSG", None, QUEUE, text);
}

/// The process that watches logs begins.
pub fn server_started() {
    tell("server", "INFO", None, QUEUE, || "-".repeat(50));
    tell("server", "INFO", None, QUEUE, || {
        format!(
            "Starting Fail2ban v1.0.2 (f2b-pipe {})",
            env!("CARGO_PKG_VERSION")
        )
    });
}

/// It ends.
pub fn server_ended() {
    tell("server", "INFO", None, QUEUE, || {
        "Exiting Fail2ban".to_owned()
    });
}

fn tell(
    part: &'static str,
    level: &'static str,
    when: Option<f64>,
    room: usize,
    text: impl FnOnce() -> String,
) {
    let Some(log) = LOG.get().filter(|log| log.on.load(Ordering::Relaxed)) else {
        return;
    };
    if log.waiting.fetch_add(1, Ordering::Relaxed) < room {
        let line = Line {
            at: SystemTime::now(),
            part,
            level,
            text: text(),
            when,
        };
        if log.to.try_send(Told::Line(line)).is_ok() {
            return;
        }
    }
    log.waiting.fetch_sub(1, Ordering::Relaxed);
    log.lost.fetch_add(1, Ordering::Relaxed);
}

/// An address or network as it is, anything else so that it cannot be taken for one, or for another line.
fn shown(who: &dyn Display) -> String {
    let text = who.to_string();
    if text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() {
        return text;
    }
    let mut quoted = String::from("'");
    for c in text.chars() {
        if c.is_control() || c.is_whitespace() || matches!(c, '[' | ']' | '\'' | '\\') {
            quoted.extend(c.escape_unicode());
        } else {
            quoted.push(c);
        }
    }
    quoted.push('\'');
    quoted
}

fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// A time of the system's zone, to the second.
fn local(seconds: f64) -> impl Display {
    let since = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let time = SystemTime::UNIX_EPOCH
        .checked_add(since)
        .unwrap_or(SystemTime::UNIX_EPOCH);
    DateTime::<Local>::from(time).format("%Y-%m-%d %H:%M:%S")
}

/// A length as fail2ban writes it: rounded to what matters, in up to three units.
fn length(seconds: f64) -> String {
    type Units = &'static [(u64, &'static str)];
    /// From how many seconds on, rounded to how many, in which units of how many of those.
    const STEPS: &[(f64, u64, Units)] = &[
        (31_536_000.0, 86_400, &[(365, "y"), (7, "w"), (1, "d")]),
        (604_800.0, 3600, &[(168, "w"), (24, "d"), (1, "h")]),
        (86_400.0, 60, &[(1440, "d"), (60, "h"), (1, "m")]),
        (3595.0, 10, &[(360, "h"), (6, "m")]),
        (f64::MIN, 1, &[(60, "m"), (1, "s")]),
    ];
    let Some((_, step, units)) = STEPS.iter().find(|(from, ..)| seconds >= *from) else {
        return "0s".to_owned();
    };
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let (full, rest) = (whole.as_secs() / step, whole.as_secs() % step);
    let half = rest * 2;
    let up = half > *step || half == *step && full % 2 == 1;
    let mut left = full + u64::from(up);
    let mut words = Vec::new();
    for (many, name) in *units {
        if left >= *many {
            words.push(format!("{}{name}", left / many));
            left %= many;
        }
    }
    if words.is_empty() {
        words.push("0s".to_owned());
    }
    words.join(" ")
}

/// The thread's side.
struct Writer {
    path: PathBuf,
    file: Option<File>,
    /// Since when nothing has the open file's name.
    nameless: Option<Instant>,
    /// Whole lines, of which the first may have been begun in the file.
    text: Vec<u8>,
    begun: bool,
    /// Lost lines that were told of.
    told: u64,
    complained: Option<Instant>,
}

impl Writer {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            nameless: None,
            text: Vec::new(),
            begun: false,
            told: 0,
            complained: None,
        }
    }

    fn stay(&mut self, from: &Receiver<Told>) {
        loop {
            let next = from.try_recv().or_else(|_| {
                thread::sleep(COLLECT);
                from.recv_timeout(COMPLAIN)
            });
            let mut next = match next {
                Ok(told) => Some(told),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let (mut many, mut then) = (0, None);
            while let Some(told) = next.take() {
                let Told::Line(line) = told else {
                    then = Some(told);
                    break;
                };
                if let Some(log) = LOG.get() {
                    log.waiting.fetch_sub(1, Ordering::Relaxed);
                }
                self.add(&line);
                many += 1;
                if many < BATCH {
                    next = from.try_recv().ok();
                }
            }
            // What cannot be written is tried again before more is taken: the queue's bound is the bound of all.
            while !self.text.is_empty()
                && let Err(error) = self.write()
            {
                self.complain(&format!("{}: {error}", self.path.display()));
                thread::sleep(RETRY);
            }
            match then {
                Some(Told::To(path)) if path != self.path => (self.path, self.file) = (path, None),
                Some(Told::Flush(done)) => {
                    done.try_send(()).ok();
                }
                Some(Told::To(_) | Told::Line(_)) | None => {}
            }
            let lost = lost();
            if lost > self.told && self.may_complain() {
                let now = lost - self.told;
                self.told = lost;
                self.complain(&format!(
                    "{}: {now} lines were lost: too many at once, or a slow disk",
                    self.path.display()
                ));
            }
        }
    }

    fn may_complain(&self) -> bool {
        self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN)
    }

    fn complain(&mut self, text: &str) {
        if self.may_complain() {
            self.complained = Some(Instant::now());
            log::warn!("{text}");
        }
    }

    fn add(&mut self, line: &Line) {
        let at = DateTime::<Local>::from(line.at);
        let Line {
            part, level, text, ..
        } = line;
        let name = format!("fail2ban.{part}");
        let text = say::one_line(text);
        let when = line.when.map(|when| format!(" - {}", local(when)));
        let line = format!(
            "{},{:03} {name:24}[{}]: {level:7} {text}{}\n",
            at.format("%Y-%m-%d %H:%M:%S"),
            at.timestamp_subsec_millis(),
            std::process::id(),
            when.unwrap_or_default()
        );
        self.text.extend_from_slice(line.as_bytes());
    }

    /// Writes what there is, into the file that has the name now.
    fn write(&mut self) -> io::Result<()> {
        self.follow()?;
        while let (Some(file), false) = (&mut self.file, self.text.is_empty()) {
            let n = match file.write(&self.text) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.begun = self.text.drain(..n).next_back() != Some(b'\n');
        }
        Ok(())
    }

    fn follow(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            let open = file.metadata()?;
            match std::fs::metadata(&self.path) {
                Ok(there) if (there.dev(), there.ino()) == (open.dev(), open.ino()) => {
                    self.nameless = None;
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let since = *self.nameless.get_or_insert_with(Instant::now);
                    if since.elapsed() < PATIENCE {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(MODE)
            .open(&self.path)?;
        self.nameless = None;
        self.file = Some(file);
        if std::mem::take(&mut self.begun) {
            // Its head is in the old file.
            let end = memchr::memchr(b'\n', &self.text).map_or(self.text.len(), |at| at + 1);
            self.text.drain(..end);
            if let Some(log) = LOG.get() {
                log.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line {
            at: SystemTime::now(),
            part: "actions",
            level: "NOTICE",
            text: text.to_owned(),
            when: None,
        }
    }

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("f2b-logfile-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_line_is_laid_out_as_fail2ban_does() {
        let mut writer = Writer::new("/nowhere".into());
        let mut told = line("[a] Found 192.0.2.7");
        (told.part, told.level) = ("filter", "INFO");
        told.when = Some(seconds(told.at));
        writer.add(&told);
        writer.add(&line("[a] Ban 192.0.2.7"));
        let text = String::from_utf8(writer.text).unwrap();
        let pid = std::process::id();
        let ban = format!(" fail2ban.actions        [{pid}]: NOTICE  [a] Ban 192.0.2.7\n");
        let found = format!(" fail2ban.filter         [{pid}]: INFO    [a] Found 192.0.2.7 - ");
        assert!(text.ends_with(&ban), "{text}");
        let (time, rest) = text.split_at(23);
        assert!(rest.starts_with(&found), "{text}");
        assert_eq!(&time[19..20], ",");
        assert!(rest[found.len()..].starts_with(&time[..19]), "{text}");
    }

    #[test]
    fn a_name_that_a_client_chose_looks_neither_like_an_address_nor_like_a_line() {
        assert_eq!(shown(&"192.0.2.7"), "192.0.2.7");
        assert_eq!(shown(&"2001:db8::/64"), "2001:db8::/64");
        assert_eq!(shown(&"admin"), "'admin'");
        let forged = shown(&"x] Ban 192.0.2.9\n");
        assert_eq!(forged, "'x\\u{5d}\\u{20}Ban\\u{20}192.0.2.9\\u{a}'");
        let mut writer = Writer::new("/nowhere".into());
        writer.add(&line("a\nb"));
        assert_eq!(writer.text.iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn lengths_have_three_units_and_no_more_than_matters() {
        for (seconds, text) in [
            (0.0, "0s"),
            (59.0, "59s"),
            (600.0, "10m"),
            (3590.0, "59m 50s"),
            (3595.0, "1h"),
            (8100.0, "2h 15m"),
            (2.0 * 86_400.0 + 3599.0, "2d 1h"),
            (604_800.0, "1w"),
            (390.0 * 86_400.0, "1y 3w 4d"),
        ] {
            assert_eq!(length(seconds), text);
        }
    }

    #[test]
    fn a_renamed_file_is_left_once_another_has_its_name() {
        let dir = folder("rename");
        let (path, old) = (dir.join("fail2ban.log"), dir.join("fail2ban.log.1"));
        let mut writer = Writer::new(path.clone());
        let mut write = |text: &str| {
            writer.add(&line(text));
            writer.write().unwrap();
        };
        write("one");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        std::fs::rename(&path, &old).unwrap();
        write("two");
        assert!(!path.exists(), "logrotate makes it");
        File::create(&path).unwrap();
        write("three");
        let texts = [&old, &path].map(|path| std::fs::read_to_string(path).unwrap());
        assert_eq!(texts[0].lines().count(), 2);
        assert!(texts[0].contains("two") && texts[1].contains("three"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_cannot_be_written_waits() {
        let dir = folder("wait");
        let path = dir.join("missing/fail2ban.log");
        let mut writer = Writer::new(path.clone());
        writer.add(&line("one"));
        assert!(writer.write().is_err());
        std::fs::create_dir(dir.join("missing")).unwrap();
        writer.write().unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("one\n"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
