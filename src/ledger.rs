//! What is remembered over a restart: bans, who was banned how often, how far logs were read. An SQLite database in the
//! state directory, that anybody with `sqlite3` can read.
//!
//! Written by a thread of its own, in batches, behind a bounded queue: a slow, full or broken disk costs memory of the
//! past, never a ban. What is there at the start is handed out once ([`Past`]); from then on memory is what is asked, and
//! the file follows. Only the process that holds the lock in the runtime directory may open it.
//!
//! # Tables, version 1 (`PRAGMA user_version`)
//!
//! Times are seconds since the epoch, lengths seconds; a bantime of NULL is for ever.
//!
//! | table | a row | columns |
//! | --- | --- | --- |
//! | `bans` | a ban | `id`, `jail`, `key`, `start`, `bantime`, `number` (which of this key in this jail), `count` (what reached maxretry), `failures`, `lines` (the latest, by newlines), `ended` (NULL: it stands) |
//! | `bad` | a key that was banned in a jail | `jail`, `key`, `last` (start of the last ban), `bantime`, `count` (of bans) |
//! | `positions` | a file that is followed | `name`, `place` (JSON, the reader's), `time` (when it was noted) |
//! | `cursors` | a journal that is followed | the same |

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, Transaction, params};

use crate::bans::{Bad, Ban, Decision, Remembered, Standing, What};
use crate::key::Key;
use crate::silence::board;

pub mod beside; // what another program remembered is put in

/// "f2bp": `file` and `sqlite3` can tell whose it is.
const APPLICATION_ID: i32 = 0x6632_6270;
const VERSION: i32 = 1;
const SCHEMA: &str = "
    CREATE TABLE bans (
        id INTEGER PRIMARY KEY, jail TEXT NOT NULL, key TEXT NOT NULL, start REAL NOT NULL, bantime REAL,
        number INTEGER NOT NULL, count INTEGER NOT NULL, failures INTEGER NOT NULL, lines TEXT NOT NULL, ended REAL
    );
    CREATE INDEX bans_key ON bans (key, jail);
    CREATE INDEX bans_start ON bans (start);
    CREATE INDEX bans_standing ON bans (jail, key) WHERE ended IS NULL;
    CREATE TABLE bad (
        jail TEXT NOT NULL, key TEXT NOT NULL, last REAL NOT NULL, bantime REAL, count INTEGER NOT NULL,
        PRIMARY KEY (key, jail)
    ) WITHOUT ROWID;
    CREATE INDEX bad_last ON bad (last);
    CREATE TABLE positions (name TEXT PRIMARY KEY, place TEXT NOT NULL, time REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE cursors (name TEXT PRIMARY KEY, place TEXT NOT NULL, time REAL NOT NULL) WITHOUT ROWID;
";

/// Notes that wait for the disk; each may hold `LINES_MAX_BYTES`. At 10,000 bans a second, which ipset can do, nearly half
/// a second.
const QUEUE: usize = 4096;
/// Lines kept of a ban, bytes.
const LINES_MAX_BYTES: usize = 2048;
/// How long a note may wait for others, so that one transaction, which costs the same, does for all.
const BATCH_PAUSE: Duration = Duration::from_millis(200);
const BATCH_MAX: usize = 1000;
/// How often something is done about a batch that cannot be written: a new file, or room in the old one.
const TRIES_MAX: u32 = 3;
/// How long after a failure the file is opened again.
const RETRY_PAUSE: Duration = Duration::from_secs(60);
/// Seconds between two purges.
const PURGE_PAUSE: f64 = 3600.0;
/// How long a place is of use, seconds: 90 days. Logs are rotated away before.
const PLACE_AGE: f64 = 90.0 * 86_400.0;
/// Broken files that are kept; older ones are removed.
const SET_ASIDE_MAX: usize = 3;

/// What the ledger may grow to, and how long it remembers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Seconds (`dbpurgeage`): bans that began longer ago are removed once they are over; keys when three times their last
    /// bantime has gone by before that.
    pub age: f64,
    /// Bytes of the file. When it is full the older half makes room, of the bans that are over and of the keys.
    pub bytes: u64,
}

impl Default for Limits {
    /// A day, as fail2ban; 256 MiB.
    fn default() -> Self {
        Self {
            age: 86_400.0,
            bytes: 256 << 20,
        }
    }
}

/// What was remembered.
#[derive(Debug, Default, PartialEq)]
pub struct Past {
    /// Bans that have not ended, by jail.
    pub bans: Vec<(String, Remembered)>,
    /// Who was banned, by jail, the latest last: in this order for [`crate::bans::History::put`].
    pub bad: Vec<(String, Key, Bad)>,
    /// How far files were read: name and JSON.
    pub positions: Vec<(String, String)>,
    /// How far journals were read: name and JSON.
    pub cursors: Vec<(String, String)>,
}

/// The writing end. Every call returns at once.
#[derive(Debug)]
pub struct Ledger {
    notes: Arc<SyncSender<Order>>,
    lost: Arc<AtomicU64>,
    done: Receiver<()>,
}

/// What the thread is to do.
#[derive(Debug)]
enum Order {
    Note(Note),
    /// Tell what the file says.
    Look(SyncSender<Past>),
}

#[derive(Debug)]
struct Note {
    now: f64,
    what: Noted,
}

#[derive(Debug)]
enum Noted {
    Ban {
        jail: String,
        key: Key,
        ban: Ban,
    },
    Prolong {
        jail: String,
        key: Key,
        standing: Standing,
    },
    Unban {
        jail: String,
        key: Key,
        at: f64,
    },
    Forget {
        jail: String,
        key: Key,
    },
    Place {
        table: Table,
        name: String,
        place: String,
    },
}

#[derive(Clone, Copy, Debug)]
enum Table {
    Positions,
    Cursors,
}

impl Ledger {
    /// Opens the database at `path`, or begins one, and tells what was remembered. What cannot be opened is said, tried
    /// again every minute, and remembers nothing meanwhile; what is broken is set aside as `PATH.broken-TIME`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn open(path: &Path, limits: Limits, now: f64) -> io::Result<(Self, Past)> {
        let (notes, received) = sync_channel(QUEUE);
        let (at_end, done) = sync_channel(1);
        let lost = Arc::new(AtomicU64::new(0));
        let mut store = Store {
            path: path.to_owned(),
            limits,
            open: None,
            tried: None,
            next_purge: now + PURGE_PAUSE,
            lost: Arc::clone(&lost),
        };
        let past = store.begin(now).unwrap_or_default();
        thread::Builder::new()
            .name("ledger".into())
            .spawn(move || {
                store.follow(&received);
                // Closes the file before that is told.
                drop(store);
                at_end.send(()).ok();
            })?;
        let notes = Arc::new(notes);
        Ok((Self { notes, lost, done }, past))
    }

    /// Notes what a warden decided. What was restored is known.
    pub fn decided(&self, jail: &str, decision: &Decision, now: f64) {
        let (jail, key) = (jail.to_owned(), decision.key.clone());
        let what = match &decision.what {
            What::Ban(ban) if ban.restored => return,
            What::Ban(ban) => Noted::Ban {
                jail,
                key,
                ban: ban.clone(),
            },
            What::Prolong { standing, .. } => Noted::Prolong {
                jail,
                key,
                standing: *standing,
            },
            What::Unban { at } => Noted::Unban { jail, key, at: *at },
        };
        self.note(now, what);
    }

    /// Forgets that `key` was ever banned in `jail`, as an unban by hand does. The bans themselves stay as history.
    pub fn forget(&self, jail: &str, key: &Key, now: f64) {
        let (jail, key) = (jail.to_owned(), key.clone());
        self.note(now, Noted::Forget { jail, key });
    }

    /// Notes how far a file was read, in the place of what was known. `place` is the reader's, as JSON.
    pub fn position(&self, name: &str, place: String, now: f64) {
        self.place(Table::Positions, name, place, now);
    }

    /// Notes how far a journal was read.
    pub fn cursor(&self, name: &str, place: String, now: f64) {
        self.place(Table::Cursors, name, place, now);
    }

    fn place(&self, table: Table, name: &str, place: String, now: f64) {
        let name = name.to_owned();
        self.note(now, Noted::Place { table, name, place });
    }

    fn note(&self, now: f64, what: Noted) {
        if self
            .notes
            .try_send(Order::Note(Note { now, what }))
            .is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the file says, with all that was noted so far in it: a command may have put something in, see [`beside`]. Waits
    /// for the disk, up to `patience`; `None`: it cannot be read by then.
    #[must_use]
    pub fn look(&self, patience: Duration) -> Option<Past> {
        let (answer, past) = sync_channel(1);
        self.notes.try_send(Order::Look(answer)).ok()?;
        past.recv_timeout(patience).ok()
    }

    /// Notes that were not written: the queue was full, or the disk.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// For another who bans.
    #[must_use]
    pub fn pen(&self) -> Pen {
        Pen {
            notes: Arc::downgrade(&self.notes),
        }
    }

    /// Has the rest written and the file closed, and waits for it up to `patience`. Whether it was done by then. Without
    /// this the rest is written too, if the process lives long enough.
    #[must_use]
    pub fn close(self, patience: Duration) -> bool {
        let Self { notes, done, .. } = self;
        drop(notes);
        done.recv_timeout(patience).is_ok()
    }
}

/// A second hand that writes, for as long as the ledger is open.
#[derive(Clone, Debug)]
pub struct Pen {
    notes: Weak<SyncSender<Order>>,
}

impl Pen {
    /// Notes a ban; false: there is no room, or no ledger any more.
    #[must_use]
    pub fn ban(&self, jail: &str, key: Key, standing: Standing, now: f64) -> bool {
        let ban = Ban {
            standing,
            bans: 1,
            count: 0,
            failures: 0,
            lines: Vec::new(),
            before: None,
            noted: false,
            restored: false,
        };
        let jail = jail.to_owned();
        self.note(now, Noted::Ban { jail, key, ban })
    }

    /// Notes its end; false: as of [`ban`](Self::ban).
    #[must_use]
    pub fn unban(&self, jail: &str, key: Key, now: f64) -> bool {
        let jail = jail.to_owned();
        self.note(now, Noted::Unban { jail, key, at: now })
    }

    fn note(&self, now: f64, what: Noted) -> bool {
        let note = Order::Note(Note { now, what });
        self.notes
            .upgrade()
            .is_some_and(|notes| notes.try_send(note).is_ok())
    }
}

/// The thread's side.
struct Store {
    path: PathBuf,
    limits: Limits,
    /// `None`: it cannot be opened at the moment.
    open: Option<Connection>,
    /// When opening failed last.
    tried: Option<Instant>,
    next_purge: f64,
    lost: Arc<AtomicU64>,
}

impl Store {
    fn follow(&mut self, orders: &Receiver<Order>) {
        while let Ok(first) = orders.recv() {
            let (mut batch, mut asked, mut next) = (Vec::new(), None, Some(first));
            let end = Instant::now() + BATCH_PAUSE;
            while let Some(order) = next {
                next = match order {
                    Order::Look(answer) => {
                        asked = Some(answer);
                        None
                    }
                    Order::Note(note) => {
                        batch.push(note);
                        let left = end.saturating_duration_since(Instant::now());
                        let more = batch.len() < BATCH_MAX;
                        more.then(|| orders.recv_timeout(left).ok()).flatten()
                    }
                };
            }
            if !batch.is_empty() {
                self.write(&batch);
            }
            if let (Some(answer), Some(open)) = (asked, &self.open)
                && let Ok(past) = read(open)
            {
                // Who asked may have lost patience.
                answer.try_send(past).ok();
            }
        }
    }

    fn write(&mut self, batch: &[Note]) {
        let now = batch.last().map_or(0.0, |note| note.now);
        if self.open.is_none() && self.tried.is_none_or(|at| at.elapsed() >= RETRY_PAUSE) {
            self.begin(now);
        }
        let purge = (now >= self.next_purge).then_some((self.limits.age, now));
        let mut tries = 0;
        while let Some(open) = &mut self.open {
            match write(open, batch, purge) {
                Ok(()) => {
                    if purge.is_some() {
                        self.next_purge = now + PURGE_PAUSE;
                    }
                    return;
                }
                Err(error) => {
                    tries += 1;
                    if tries > TRIES_MAX || !self.recover(&error, now) {
                        break;
                    }
                }
            }
        }
        let lost = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        self.lost.fetch_add(lost, Ordering::Relaxed);
    }

    /// Opens the file and reads it; `None`, said, if that cannot be.
    fn begin(&mut self, now: f64) -> Option<Past> {
        let opened = open(&self.path, self.limits, now).or_else(|error| {
            if is_broken(&error) && self.set_aside(&error, now) {
                return open(&self.path, self.limits, now);
            }
            Err(error)
        });
        match opened {
            Ok((open, past)) => {
                self.open = Some(open);
                self.tried = None;
                board().over(&self.path.display().to_string(), "written again");
                Some(past)
            }
            Err(error) => {
                self.give_up(&error);
                None
            }
        }
    }

    /// What can be done about a failed write; whether it is worth another try.
    fn recover(&mut self, error: &rusqlite::Error, now: f64) -> bool {
        if is_broken(error) {
            self.open = None;
            return self.set_aside(error, now) && self.begin(now).is_some();
        }
        if error.sqlite_error_code() == Some(ErrorCode::DiskFull)
            && let Some(open) = &mut self.open
            && is_near_its_bound(open)
            && let Ok(gone) = drop_older_half(open)
            && gone > 0
        {
            log::warn!(
                "{}: full; the {gone} oldest entries are no longer in it",
                self.path.display()
            );
            return true;
        }
        self.give_up(error);
        false
    }

    fn give_up(&mut self, error: &rusqlite::Error) {
        self.open = None;
        self.tried = Some(Instant::now());
        let text = format!(
            "{error}; bans are made all the same, but a restart will not know of them; make the file and its directory \
             writable, and room on the disk; trying again every {} s",
            RETRY_PAUSE.as_secs()
        );
        board().set(&self.path.display().to_string(), &Err::<(), _>(text));
    }

    fn set_aside(&self, error: &rusqlite::Error, now: f64) -> bool {
        let named = |suffix: &str| {
            let mut name = self.path.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let aside = named(&format!(".broken-{now:.0}"));
        if let Err(error) = fs::rename(&self.path, &aside) {
            log::error!("{}: cannot be set aside: {error}", self.path.display());
            return false;
        }
        for suffix in ["-wal", "-shm"] {
            // They belong to the old file; with a new one they would break that too.
            fs::remove_file(named(suffix)).ok();
        }
        log::error!(
            "{}: {error}; set aside as {}, and a new one begun: earlier bans are not known",
            self.path.display(),
            aside.display()
        );
        self.remove_older_ones();
        true
    }

    fn remove_older_ones(&self) {
        let (Some(directory), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return;
        };
        let begins = format!("{}.broken-", name.to_string_lossy());
        let mut aside: Vec<PathBuf> = fs::read_dir(directory)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&begins))
            })
            .collect();
        aside.sort();
        let surplus = aside.len().saturating_sub(SET_ASIDE_MAX);
        for path in aside.into_iter().take(surplus) {
            fs::remove_file(path).ok();
        }
    }
}

fn open(path: &Path, limits: Limits, now: f64) -> rusqlite::Result<(Connection, Past)> {
    if let Some(directory) = path.parent() {
        // What this cannot do, opening will tell.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(directory)
            .ok();
    }
    let mut open = Connection::open(path)?;
    // Log lines and addresses are not everybody's.
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).ok();
    open.busy_timeout(Duration::from_secs(1))?;
    let version = begin_schema(&mut open)?;
    if version != VERSION {
        return Err(foreign());
    }
    let pages = limits.bytes / 4096;
    open.execute_batch(&format!(
        "PRAGMA temp_store = MEMORY; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 4194304;
         PRAGMA max_page_count = {};",
        pages.max(16)
    ))?;
    let whole: String = open.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if whole != "ok" {
        return Err(corrupt(whole));
    }
    let transaction = open.transaction()?;
    // What ended while nobody looked.
    transaction.execute(
        "UPDATE bans SET ended = start + bantime WHERE ended IS NULL AND start + bantime < ?1",
        params![now],
    )?;
    purge(&transaction, limits.age, now)?;
    transaction.commit()?;
    let past = read(&open)?;
    Ok((open, past))
}

/// Makes the tables of a new file. Its version.
fn begin_schema(open: &mut Connection) -> rusqlite::Result<i32> {
    let tables: i64 = open.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        open.execute_batch("PRAGMA auto_vacuum = INCREMENTAL;")?;
        let transaction = open.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
    }
    let application: i32 = open.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application != APPLICATION_ID {
        return Err(foreign());
    }
    open.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn foreign() -> rusqlite::Error {
    corrupt("it is of another program, or of a later version of this one".into())
}

fn corrupt(why: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(why),
    )
}

/// Whether the file itself is wrong, not what is around it.
fn is_broken(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, SqlInputError,
        Utf8Error,
    };
    // `Unknown` is SQL that does not fit: a table is missing or has other columns. The rest are rows that we did not write.
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::Unknown)
    ) || matches!(
        error,
        InvalidColumnType(..)
            | FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | Utf8Error(..)
            | SqlInputError { .. }
    )
}

fn read(open: &Connection) -> rusqlite::Result<Past> {
    let places = |table: &str| {
        open.prepare(&format!("SELECT name, place FROM {table}"))?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<Vec<_>>>()
    };
    let key = |text: String| Key::parse(&text);
    Ok(Past {
        bans: open
            .prepare(
                "SELECT jail, key, start, bantime, number, max(id) FROM bans WHERE ended IS NULL GROUP BY jail, key
                 ORDER BY start, id",
            )?
            .query_map([], |row| {
                let remembered = Remembered {
                    key: key(row.get(1)?),
                    standing: Standing {
                        start: row.get(2)?,
                        bantime: row.get(3)?,
                    },
                    bans: row.get(4)?,
                };
                Ok((row.get(0)?, remembered))
            })?
            .collect::<rusqlite::Result<_>>()?,
        bad: open
            .prepare("SELECT jail, key, last, bantime, count FROM bad ORDER BY last")?
            .query_map([], |row| {
                let bad = Bad {
                    last: row.get(2)?,
                    bantime: row.get(3)?,
                    count: row.get(4)?,
                };
                Ok((row.get(0)?, key(row.get(1)?), bad))
            })?
            .collect::<rusqlite::Result<_>>()?,
        positions: places("positions")?,
        cursors: places("cursors")?,
    })
}

/// All of it, or nothing.
fn write(
    open: &mut Connection,
    batch: &[Note],
    purge_by: Option<(f64, f64)>,
) -> rusqlite::Result<()> {
    let transaction = open.transaction()?;
    for note in batch {
        put(&transaction, note)?;
    }
    if let Some((age, now)) = purge_by {
        purge(&transaction, age, now)?;
    }
    transaction.commit()?;
    if purge_by.is_some() {
        open.execute_batch("PRAGMA incremental_vacuum(1000);")?;
    }
    Ok(())
}

fn put(transaction: &Transaction<'_>, note: &Note) -> rusqlite::Result<()> {
    const END: &str = "UPDATE bans SET ended = ?3 WHERE jail = ?1 AND key = ?2 AND ended IS NULL";
    match &note.what {
        Noted::Ban { jail, key, ban } => {
            let (key, Standing { start, bantime }) = (key.to_string(), ban.standing);
            // Of one that stood there, nobody told the end.
            transaction.execute(END, params![jail, key, start])?;
            transaction.execute(
                "INSERT INTO bans (jail, key, start, bantime, number, count, failures, lines)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    jail,
                    key,
                    start,
                    bantime,
                    ban.bans,
                    ban.count,
                    ban.failures,
                    joined(&ban.lines)
                ],
            )?;
            if ban.noted {
                transaction.execute(
                    "INSERT OR REPLACE INTO bad VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![jail, key, start.round_ties_even(), bantime, ban.bans],
                )?;
            }
        }
        Noted::Prolong {
            jail,
            key,
            standing,
        } => {
            transaction.execute(
                "UPDATE bans SET bantime = ?3 WHERE jail = ?1 AND key = ?2 AND ended IS NULL",
                params![jail, key.to_string(), standing.bantime],
            )?;
        }
        Noted::Unban { jail, key, at } => {
            transaction.execute(END, params![jail, key.to_string(), at])?;
        }
        Noted::Forget { jail, key } => {
            transaction.execute(
                "DELETE FROM bad WHERE jail = ?1 AND key = ?2",
                params![jail, key.to_string()],
            )?;
        }
        Noted::Place { table, name, place } => {
            transaction.execute(
                match table {
                    Table::Positions => "INSERT OR REPLACE INTO positions VALUES (?1, ?2, ?3)",
                    Table::Cursors => "INSERT OR REPLACE INTO cursors VALUES (?1, ?2, ?3)",
                },
                params![name, place, note.now],
            )?;
        }
    }
    Ok(())
}

fn purge(transaction: &Transaction<'_>, age: f64, now: f64) -> rusqlite::Result<()> {
    let before = now.trunc() - age;
    transaction.execute(
        "DELETE FROM bans WHERE start < ?1 AND ended IS NOT NULL",
        params![before],
    )?;
    transaction.execute(
        "DELETE FROM bad WHERE last < ?1 AND bantime IS NOT NULL AND last + bantime * 3 < ?1",
        params![before],
    )?;
    for table in ["positions", "cursors"] {
        transaction.execute(
            &format!("DELETE FROM {table} WHERE time < ?1"),
            params![now - PLACE_AGE],
        )?;
    }
    Ok(())
}

/// Whether it is the file that is full; a full disk is not helped by forgetting.
fn is_near_its_bound(open: &Connection) -> bool {
    let pages = |name| open.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    pages("page_count")
        .ok()
        .zip(pages("max_page_count").ok())
        .is_some_and(|(pages, most)| pages >= most / 8 * 7)
}

/// Makes room: the older half of the bans that are over, and of the keys. How many rows are gone.
fn drop_older_half(open: &mut Connection) -> rusqlite::Result<usize> {
    let transaction = open.transaction()?;
    let bans = transaction.execute(
        "DELETE FROM bans WHERE ended IS NOT NULL AND id <=
         (SELECT (min(id) + max(id)) / 2 FROM bans WHERE ended IS NOT NULL)",
        [],
    )?;
    let keys = transaction.execute(
        "DELETE FROM bad WHERE last <
         (SELECT last FROM bad ORDER BY last LIMIT 1 OFFSET (SELECT count(*) / 2 FROM bad))",
        [],
    )?;
    transaction.commit()?;
    Ok(bans + keys)
}

/// The latest lines that have room.
fn joined(lines: &[Box<str>]) -> String {
    let mut room = LINES_MAX_BYTES;
    let mut kept: Vec<&str> = lines
        .iter()
        .rev()
        .take_while(|line| {
            let fits = line.len() < room;
            room = room.saturating_sub(line.len() + 1);
            fits
        })
        .map(|line| &**line)
        .collect();
    kept.reverse();
    kept.join("\n")
}

#[cfg(test)]
mod tests;
