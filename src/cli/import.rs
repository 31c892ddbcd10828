//! `import`: what a fail2ban-server remembers, put into our ledger.
//!
//! Bans of jails that read logs are written there, and a running f2b-pipe is told to put them in force as after a restart.
//! Jails of httpd's lines have no ledger: their bans go into the kernel's sets.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::bans::{banned_now, json, paths, unknown_jail, words};
use super::{Done, Failure, ImportArgs, Outcome, usable};
use crate::act::{self, Act, Ban};
use crate::bans::Standing;
use crate::config::{Backend, Config, Jail, Mode};
use crate::date;
use crate::decide::BanFor;
use crate::exempt::Exempt;
use crate::fail2ban::database::{Database, Length, Row, Table, Unreadable};
use crate::hit::JailId;
use crate::key::Key;
use crate::ledger::Limits;
use crate::ledger::beside::{Beside, Foreign, Put};
use crate::watch;

/// Bans that are written in one transaction: some ten milliseconds, for which the process in charge may have to wait.
const AT_A_TIME: usize = 1000;

/// What came of it.
#[derive(Debug, Serialize)]
struct Told<'a> {
    file: &'a Path,
    /// A running f2b-pipe was told.
    told: bool,
    /// Rows that are no bans.
    unreadable: u64,
    jails: Vec<OfJail>,
}

/// What came of one jail.
#[derive(Debug, Default, Serialize)]
struct OfJail {
    jail: String,
    bans: u64,
    keys: u64,
    past: u64,
    known: u64,
    left: Vec<Left>,
}

#[derive(Debug, Serialize)]
struct Left {
    count: u64,
    why: String,
}

impl OfJail {
    fn leave(&mut self, why: String) {
        match self.left.iter_mut().find(|left| left.why == why) {
            Some(left) => left.count += 1,
            None => self.left.push(Left { count: 1, why }),
        }
    }
}

/// `f2b-pipe import`.
///
/// # Errors
/// Their file or our ledger cannot be read or written.
pub fn import(args: &ImportArgs, out: &mut dyn Write) -> Done {
    let place = &args.list.place;
    let config = usable(place)?;
    if config.firewall.backend == Backend::DryRun {
        return Err(Failure::Usage(
            "firewall.backend is \"dry-run\", which remembers nothing; write another one first"
                .to_owned(),
        ));
    }
    let theirs = |error: Unreadable| Failure::Usage(format!("{}: {error}", args.file.display()));
    let database = Database::open(&args.file).map_err(theirs)?;
    let ledger = paths(place).ledger();
    let ours = |error: rusqlite::Error| {
        Failure::Usage(format!(
            "{}: {error}; bans are written as root, into a file that is whole: a broken one is set aside when f2b-pipe watch starts",
            ledger.display()
        ))
    };
    let now = date::now();
    let mut taker = Taker {
        exempt: Exempt::new(&config),
        act: Act::new(&config),
        config: &config,
        beside: Beside::open(&ledger, Limits::default(), now).map_err(ours)?,
        jails: BTreeMap::new(),
        waiting: Vec::new(),
        error: None,
        now,
    };
    let mut unreadable = 0;
    for table in [Table::Last, Table::Past] {
        unreadable += database
            .each(table, &mut |row| taker.take(table, row))
            .map_err(theirs)?;
        taker.write(table);
    }
    if let Some(error) = taker.error {
        return Err(ours(error));
    }
    let jails: Vec<OfJail> = taker.jails.into_values().collect();
    let told = Told {
        file: &args.file,
        told: watch::remembered(&paths(place)),
        unreadable,
        jails,
    };
    match args.list.json {
        true => json(&told, out)?,
        false => print(&told, out)?,
    }
    Ok(Outcome::Fine)
}

/// Where each ban goes.
struct Taker<'a> {
    config: &'a Config,
    exempt: Exempt,
    act: Act,
    beside: Beside,
    jails: BTreeMap<String, OfJail>,
    waiting: Vec<Foreign>,
    /// The first that kept bans from being written; then no more are.
    error: Option<rusqlite::Error>,
    now: f64,
}

impl Taker<'_> {
    fn take(&mut self, table: Table, row: Row) {
        let report = self
            .jails
            .entry(row.jail.clone())
            .or_insert_with(|| OfJail {
                jail: row.jail.clone(),
                ..OfJail::default()
            });
        let found = act::jails(self.config).find(|(_, jail)| jail.name == row.jail);
        let Some((id, jail)) = found else {
            // One such line for a jail is enough: of past bans nothing is said.
            if table == Table::Last {
                report.leave(why_not(self.config, &row.jail));
            }
            return;
        };
        let key = Key::parse(&row.id).counted(jail.ipv6_prefix);
        let bantime = match row.length {
            Length::Secs(secs) => Some(secs),
            Length::Forever => None,
            Length::OfJail => secs(jail.bantime),
        };
        let standing = Standing {
            start: row.start,
            bantime,
        };
        if let Some(target) = key.target()
            && let Err(spared) = self.exempt.check(target, Some(id))
        {
            if table == Table::Last {
                report.leave(spared.to_string());
            }
            return;
        }
        if jail.raw.is_none() {
            if table == Table::Last {
                into_the_kernel(&mut self.act, report, (id, &key), standing, self.now);
            }
            return;
        }
        self.waiting.push(Foreign {
            jail: row.jail,
            key,
            standing,
            number: row.number,
            failures: row.failures,
            lines: row.lines,
        });
        if self.waiting.len() >= AT_A_TIME {
            self.write(table);
        }
    }

    fn write(&mut self, table: Table) {
        let bans = std::mem::take(&mut self.waiting);
        if self.error.is_some() {
            return;
        }
        let put = match table {
            Table::Last => self.beside.last(&bans, self.now),
            Table::Past => self.beside.past(&bans, self.now),
        };
        let put = match put {
            Ok(put) => put,
            Err(error) => {
                self.error = Some(error);
                return;
            }
        };
        for (ban, put) in bans.iter().zip(put) {
            let Some(report) = self.jails.get_mut(&ban.jail) else {
                continue;
            };
            match (table, put) {
                (Table::Last, Put::Stands) => {
                    report.bans += 1;
                    report.keys += 1;
                }
                (Table::Last, Put::Over) => report.keys += 1,
                (Table::Past, Put::Stands | Put::Over) => report.past += 1,
                (Table::Last, Put::Known) => report.known += 1,
                (Table::Last, Put::Old) => {
                    report.leave("is longer ago than is remembered here".to_owned());
                }
                // The last ban of each key stands in both of their tables.
                (Table::Past, Put::Known | Put::Old) => {}
            }
        }
    }
}

/// A ban of a jail of httpd's lines, for the time that is left.
fn into_the_kernel(
    act: &mut Act,
    report: &mut OfJail,
    (jail, key): (JailId, &Key),
    standing: Standing,
    now: f64,
) {
    let ban_for = match standing.end() {
        None => Some(BanFor::Forever),
        Some(end) => BanFor::of_secs(end - now),
    };
    let (Some(ban_for), Some(target)) = (ban_for, key.target()) else {
        report.leave("is over, and a jail of httpd's lines remembers no past bans".to_owned());
        return;
    };
    let ban = Ban {
        jail,
        // It was asked whether he may be banned.
        who: crate::exempt::Bannable::forced(target),
        ban_for,
        reason: "imported from fail2ban",
    };
    match banned_now(act, &ban) {
        Ok("banned") => {
            report.bans += 1;
            report.keys += 1;
        }
        Ok(_) => report.known += 1,
        Err(error) => report.leave(words(&error)),
    }
}

fn secs(bantime: BanFor) -> Option<f64> {
    match bantime {
        BanFor::Timed(secs) => Some(f64::from(secs.get())),
        BanFor::Forever => None,
    }
}

/// Why bans of a jail that bans nobody here are left.
fn why_not(config: &Config, name: &str) -> String {
    let observes = |jail: &&Jail| jail.name == name && jail.mode == Mode::Observe;
    match config.jails.iter().find(observes) {
        Some(_) => "the jail only observes here; write mode = \"ban\" first".to_owned(),
        None => unknown_jail(config, name).to_string(),
    }
}

fn print(told: &Told<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    let of = |count: u64, one: &str, more: &str| match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {more}"),
    };
    writeln!(out, "{}", told.file.display())?;
    let mut bans = 0;
    for jail in &told.jails {
        bans += jail.bans;
        let parts = [
            (jail.bans, "ban that stands", "bans that stand"),
            (
                jail.keys,
                "address with its count",
                "addresses with their counts",
            ),
            (jail.past, "past ban", "past bans"),
            (jail.known, "known already", "known already"),
        ];
        let parts: Vec<String> = parts
            .into_iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, one, more)| of(count, one, more))
            .collect();
        match parts.is_empty() {
            true => writeln!(out, "  {}: nothing", jail.jail)?,
            false => writeln!(out, "  {}: {}", jail.jail, parts.join(", "))?,
        }
        for Left { count, why } in &jail.left {
            writeln!(out, "    left: {count}: {why}")?;
        }
    }
    if told.jails.is_empty() {
        writeln!(out, "  no bans in it")?;
    }
    if told.unreadable > 0 {
        writeln!(
            out,
            "  left: {}: no bans",
            of(told.unreadable, "row", "rows")
        )?;
    }
    match (bans, told.told) {
        (0, _) => Ok(()),
        (_, true) => writeln!(out, "the bans are in force"),
        (_, false) => writeln!(
            out,
            "in force once f2b-pipe watches logs; write: systemctl start f2b-pipe"
        ),
    }
}
