//! The ledger, written to by a command while another process may have it open: what another program remembered is put in.
//!
//! Small transactions, so that the one in charge never waits long for its own; what is there already stays, so that the
//! same may be put in any number of times.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{Limits, joined, open};
use crate::bans::Standing;
use crate::key::Key;

/// A ban that another program made.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// The jail's name here.
    pub jail: String,
    /// Whom it is about, as the jail counts.
    pub key: Key,
    /// From when to when.
    pub standing: Standing,
    /// Which ban of this key in this jail.
    pub number: u32,
    /// Failures that led to it.
    pub failures: u32,
    /// Their lines.
    pub lines: Vec<Box<str>>,
}

/// What became of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// A ban that stands from now on.
    Stands,
    /// A ban that is over.
    Over,
    /// It was there, or another ban of this key stands here.
    Known,
    /// It is older than what is remembered.
    Old,
}

/// The open file.
#[derive(Debug)]
pub struct Beside {
    open: Connection,
    limits: Limits,
}

impl Beside {
    /// Opens the file, or begins one. One that is broken stays as it is: its owner sets it aside.
    ///
    /// # Errors
    /// It cannot be opened, or is broken.
    pub fn open(path: &Path, limits: Limits, now: f64) -> rusqlite::Result<Self> {
        open(path, limits, now).map(|(open, _)| Self { open, limits })
    }

    /// Puts in the last bans of keys: how often they were banned, and the bans that have not ended. What became of each.
    ///
    /// # Errors
    /// Nothing of these was written.
    pub fn last(&mut self, bans: &[Foreign], now: f64) -> rusqlite::Result<Vec<Put>> {
        let limits = self.limits;
        self.each(bans, |transaction, ban| {
            let Standing { start, bantime } = ban.standing;
            let forgotten = now.trunc() - limits.age;
            if bantime.is_some_and(|secs| start < forgotten && start + secs * 3.0 < forgotten) {
                return Ok(Put::Old);
            }
            if is_known(transaction, ban)? {
                return Ok(Put::Known);
            }
            // Whoever was banned here meanwhile was so too: the higher count goes on.
            transaction.execute(
                "INSERT INTO bad (jail, key, last, bantime, count) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (key, jail) DO UPDATE SET count = max(count, excluded.count),
                     bantime = CASE WHEN excluded.last > last THEN excluded.bantime ELSE bantime END, last = max(last, excluded.last)",
                params![ban.jail, ban.key.to_string(), start, bantime, ban.number],
            )?;
            if ban.standing.is_over(now) {
                insert(transaction, ban, ban.standing.end())?;
                return Ok(Put::Over);
            }
            let stands: Option<i64> = transaction
                .query_row(
                    "SELECT id FROM bans WHERE jail = ?1 AND key = ?2 AND ended IS NULL",
                    params![ban.jail, ban.key.to_string()],
                    |row| row.get(0),
                )
                .optional()?;
            if stands.is_some() {
                return Ok(Put::Known);
            }
            insert(transaction, ban, None)?;
            Ok(Put::Stands)
        })
    }

    /// Puts in earlier bans, which are over whatever their length says.
    ///
    /// # Errors
    /// Nothing of these was written.
    pub fn past(&mut self, bans: &[Foreign], now: f64) -> rusqlite::Result<Vec<Put>> {
        let limits = self.limits;
        self.each(bans, |transaction, ban| {
            if ban.standing.start < now.trunc() - limits.age {
                return Ok(Put::Old);
            }
            if is_known(transaction, ban)? {
                return Ok(Put::Known);
            }
            let end = ban.standing.end().map_or(now, |end| end.min(now));
            insert(transaction, ban, Some(end))?;
            Ok(Put::Over)
        })
    }

    fn each(
        &mut self,
        bans: &[Foreign],
        put: impl Fn(&Transaction<'_>, &Foreign) -> rusqlite::Result<Put>,
    ) -> rusqlite::Result<Vec<Put>> {
        // Another process may write between what is read and what is written, so nobody else may from here on.
        let transaction = self
            .open
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done: rusqlite::Result<Vec<Put>> =
            bans.iter().map(|ban| put(&transaction, ban)).collect();
        transaction.commit()?;
        done
    }
}

/// Whether this very ban is there, ended by hand perhaps.
fn is_known(transaction: &Transaction<'_>, ban: &Foreign) -> rusqlite::Result<bool> {
    transaction
        .prepare("SELECT 1 FROM bans WHERE jail = ?1 AND key = ?2 AND start = ?3")?
        .exists(params![ban.jail, ban.key.to_string(), ban.standing.start])
}

fn insert(
    transaction: &Transaction<'_>,
    ban: &Foreign,
    ended: Option<f64>,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO bans (jail, key, start, bantime, number, count, failures, lines, ended)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8)",
        params![
            ban.jail,
            ban.key.to_string(),
            ban.standing.start,
            ban.standing.bantime,
            ban.number,
            ban.failures,
            joined(&ban.lines),
            ended
        ],
    )?;
    Ok(())
}
