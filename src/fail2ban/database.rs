//! What a fail2ban-server remembers: its fail2ban.sqlite3, for `f2b-pipe import`.
//!
//! Only read, also while a server writes to it. Schema 4, which fail2ban has had since 0.11: `bips` has the last ban of each
//! address in each jail, `bans` the bans of the last day (dbpurgeage); an unban takes an address out of both.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

/// Its place, unless fail2ban.conf has another one (`dbfile`).
pub const FILE: &str = "/var/lib/fail2ban/fail2ban.sqlite3";
/// `fail2banDb.version` that is understood.
const VERSION: i64 = 4;
/// Lines of a ban that are taken; fail2ban itself keeps ten.
const LINES_MAX: usize = 10;

/// The open file.
#[derive(Debug)]
pub struct Database(Connection);

/// Which of its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The last ban of each address in each jail.
    Last,
    /// Bans of the last day.
    Past,
}

/// How long a ban is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// Seconds.
    Secs(f64),
    /// -1.
    Forever,
    /// -2, of a database that was older once: what the jail says.
    OfJail,
}

/// A ban.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The jail's name.
    pub jail: String,
    /// Whom it is about: an address, or whatever a filter finds.
    pub id: String,
    /// When it began, seconds since the epoch, whole ones.
    pub start: f64,
    /// How long it is.
    pub length: Length,
    /// Which ban of this address in this jail.
    pub number: u32,
    /// Failures that led to it.
    pub failures: u32,
    /// Lines that led to it, the latest last.
    pub lines: Vec<Box<str>>,
}

/// Why a file is no database of fail2ban's.
#[derive(Debug)]
pub enum Unreadable {
    /// SQLite's words.
    Sqlite(rusqlite::Error),
    /// It has another schema.
    Version(i64),
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(error) => write!(
                f,
                "{error}; write the path of a fail2ban.sqlite3, as dbfile in /etc/fail2ban/fail2ban.conf says it"
            ),
            Self::Version(version) => write!(
                f,
                "its schema is version {version}, and only {VERSION} is understood (fail2ban 0.11 and later); a newer \
                 fail2ban-server that is started once brings an old one up to date"
            ),
        }
    }
}

impl From<rusqlite::Error> for Unreadable {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Database {
    /// Opens the file, for reading only.
    ///
    /// # Errors
    /// It cannot be read, or is something else.
    pub fn open(path: &Path) -> Result<Self, Unreadable> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = Connection::open_with_flags(path, flags)?;
        open.busy_timeout(Duration::from_secs(5))?;
        let version = open.query_row("SELECT version FROM fail2banDb LIMIT 1", [], |row| {
            row.get(0)
        })?;
        match version {
            VERSION => Ok(Self(open)),
            other => Err(Unreadable::Version(other)),
        }
    }

    /// Tells every ban of a table, the earliest first; how many rows were none.
    ///
    /// # Errors
    /// The file cannot be read to its end.
    pub fn each(&self, table: Table, told: &mut dyn FnMut(Row)) -> Result<u64, Unreadable> {
        let table = match table {
            Table::Last => "bips",
            Table::Past => "bans",
        };
        let mut wanted = self.0.prepare(&format!(
            "SELECT jail, ip, timeofban, bantime, bancount, data FROM {table} ORDER BY timeofban"
        ))?;
        let (mut rows, mut none) = (wanted.query([])?, 0);
        while let Some(row) = rows.next()? {
            match read(row) {
                Some(row) => told(row),
                None => none += 1,
            }
        }
        Ok(none)
    }
}

/// `None`: a row that fail2ban would not take either.
fn read(row: &rusqlite::Row<'_>) -> Option<Row> {
    let text = |at| match row.get_ref(at).ok()? {
        ValueRef::Text(text) => std::str::from_utf8(text).ok().map(str::to_owned),
        ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) | ValueRef::Null => None,
    };
    let number = |at| match row.get_ref(at).ok()? {
        ValueRef::Integer(_) | ValueRef::Real(_) => row.get::<_, f64>(at).ok().or_else(|| {
            let whole: i64 = row.get(at).ok()?;
            whole.to_string().parse().ok()
        }),
        ValueRef::Text(_) | ValueRef::Blob(_) | ValueRef::Null => None,
    };
    let length = match number(3)? {
        -1.0 => Length::Forever,
        -2.0 => Length::OfJail,
        secs if secs >= 0.0 && secs.is_finite() => Length::Secs(secs),
        _ => return None,
    };
    let (failures, lines) = match row.get_ref(5).ok()? {
        ValueRef::Text(json) | ValueRef::Blob(json) => ticket(json),
        ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Null => (0, Vec::new()),
    };
    Some(Row {
        jail: text(0)?,
        id: text(1).filter(|id| !id.is_empty())?,
        start: number(2).filter(|start| start.is_finite())?,
        length,
        number: row.get::<_, u32>(4).unwrap_or(1).max(1),
        failures,
        lines,
    })
}

/// `{"matches": ["a line", ["in", "three", "parts"]], "failures": 5}`: failures and lines. Of anything else: none.
fn ticket(json: &[u8]) -> (u32, Vec<Box<str>>) {
    let data: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    let failures = data.get("failures").and_then(serde_json::Value::as_u64);
    let matches = data.get("matches").and_then(serde_json::Value::as_array);
    let lines = matches.into_iter().flatten().filter_map(|line| match line {
        serde_json::Value::String(line) => Some(line.as_str().into()),
        serde_json::Value::Array(parts) => {
            let parts = parts.iter().filter_map(serde_json::Value::as_str);
            Some(parts.collect::<String>().into())
        }
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::Object(_) => None,
    });
    let lines: Vec<Box<str>> = lines.collect();
    let surplus = lines.len().saturating_sub(LINES_MAX);
    (
        failures.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        lines.into_iter().skip(surplus).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_ticket_may_be_in_parts() {
        let (failures, lines) =
            ticket(br#"{"matches": ["one", ["", "Nov 25 10:00:00", " two"], 3], "failures": 7}"#);
        assert_eq!(failures, 7);
        assert_eq!(lines, ["one".into(), "Nov 25 10:00:00 two".into()]);
        assert_eq!(ticket(b"[1"), (0, vec![]));
    }

    #[test]
    fn rows_that_are_none_are_left_out() {
        let open = Connection::open_in_memory().unwrap();
        open.execute_batch(
            "CREATE TABLE fail2banDb(version INTEGER);
             CREATE TABLE bips(ip, jail, timeofban, bantime, bancount, data);
             INSERT INTO bips VALUES ('192.0.2.1', 'sshd', 1000, 600, 2, NULL), ('192.0.2.2', 'sshd', 999.5, -1, NULL, x'7b7d'),
                 ('192.0.2.3', 'sshd', 1000, -2, 1, 'x'), (NULL, 'sshd', 1000, 600, 1, NULL), ('', 'sshd', 1000, 600, 1, NULL),
                 ('192.0.2.4', 'sshd', 'soon', 600, 1, NULL), ('192.0.2.5', 'sshd', 1000, -7, 1, NULL);",
        )
        .unwrap();
        let mut rows = Vec::new();
        let none = Database(open).each(Table::Last, &mut |row| {
            rows.push(format!(
                "{} {} {:?} {}",
                row.id, row.start, row.length, row.number
            ));
        });
        assert_eq!(none.unwrap(), 4);
        assert_eq!(
            rows,
            [
                "192.0.2.2 999.5 Forever 1",
                "192.0.2.1 1000 Secs(600.0) 2",
                "192.0.2.3 1000 OfJail 1"
            ]
        );
    }
}
