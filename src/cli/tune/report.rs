//! The answer for a terminal: tables, and a plot in plain characters.

use std::io::{self, Write};

use super::advice::Bin;
use super::clients::Kind;
use super::{Told, ToldJail, long};
use crate::cli::replay::told::day_and_time;

/// Cells of the longest bar.
const CELLS: usize = 40;

/// How the kinds were told apart, in short.
pub(super) const RULES: &str = "attackers: reached an exploit jail's limit, or nine in ten of their requests fail, or ten times what 99 of 100 others \
make; search engines: by their agent; authenticated: a user name was let in. People: authenticated, or a session of a \
minute and more with ten answers to requests with a Referer.";

pub(super) fn write(told: &Told, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", head(told))?;
    for remark in &told.remarks {
        writeln!(out, "! {remark}")?;
    }
    for jail in &told.jails {
        write_jail(jail, out)?;
    }
    writeln!(out)?;
    for line in wrapped(RULES, 78) {
        writeln!(out, "{line}")?;
    }
    let pastes: Vec<&str> = told
        .jails
        .iter()
        .filter_map(|jail| jail.paste.as_deref())
        .collect();
    if pastes.is_empty() {
        writeln!(out, "\nNothing to change.")
    } else {
        writeln!(
            out,
            "\nTo paste into conf.d/tuned.toml beside f2b-pipe.toml, or into that file where\nits jail is:\n\n{}",
            pastes.join("\n\n")
        )
    }
}

/// What was read.
pub(super) fn head(told: &Told) -> String {
    let mut text = format!("{} lines", told.lines);
    if let (Some(from), Some(to)) = (told.from, told.to) {
        text += &format!(", {} to {}", day_and_time(from), day_and_time(to));
    }
    text += &format!(", {} clients", told.clients);
    let kinds: Vec<String> = Kind::ALL
        .iter()
        .map(|kind| format!("{} {}", told.kinds.of(*kind), kind.words()))
        .collect();
    text + ": " + &kinds.join(", ")
}

/// What a jail counts: `different values within 5m, 15 are a ban`.
pub(super) fn rule(jail: &ToldJail) -> String {
    let what = match (jail.distinct, jail.maxretry) {
        (true, 1) => "value",
        (true, _) => "different values",
        (false, 1) => "hit",
        (false, _) => "hits",
    };
    let are = if jail.maxretry == 1 { "is" } else { "are" };
    let observes = match jail.mode {
        "observe" => ", if it did not only observe",
        _ => "",
    };
    format!(
        "{} {what} within {} {are} a ban{observes}",
        jail.maxretry,
        long(jail.findtime)
    )
}

fn write_jail(jail: &ToldJail, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n== {}: {}", jail.name, rule(jail))?;
    if jail.spared > 0 {
        writeln!(
            out,
            "   without {} clients that are never banned",
            jail.spared
        )?;
    }
    if !jail.histogram.is_empty() {
        writeln!(
            out,
            "\n{:<16}{:>9}{:>8}{:>8}{:>8}{:>8}{:>8}  who",
            "highest count", "clients", "half", "90 %", "99 %", "99.9 %", "most"
        )?;
        for kind in Kind::ALL {
            let spread = jail.kinds.of(kind);
            if spread.clients == 0 {
                writeln!(out, "  {:<14}{:>9}", kind.words(), 0)?;
                continue;
            }
            let counts: String = [spread.p50, spread.p90, spread.p99, spread.p999, spread.max]
                .map(|count| format!("{:>8}", counted(count, jail)))
                .concat();
            let who = spread.busiest.as_deref().unwrap_or_default();
            writeln!(
                out,
                "  {:<14}{:>9}{counts}  {who}",
                kind.words(),
                spread.clients
            )?;
        }
        writeln!(
            out,
            "\n{:>13}  clients (a cell more is twice as many; x attackers)",
            "count"
        )?;
        plot(jail, out)?;
        writeln!(
            out,
            "\n{:>10}{:>8}   of them{:>11}{:>10}{:>16}{:>15}{:>8}",
            "maxretry",
            "banned",
            "attackers",
            "ordinary",
            "search engines",
            "authenticated",
            "people"
        )?;
        for candidate in &jail.candidates {
            let mark = if Some(candidate.maxretry) == jail.recommended {
                if candidate.maxretry == jail.maxretry {
                    "<- now, and good"
                } else {
                    "<- take this"
                }
            } else if candidate.maxretry == jail.maxretry {
                "<- now"
            } else {
                ""
            };
            let kinds = &candidate.by_kind;
            let row = format!(
                "{:>10}{:>8}          {:>11}{:>10}{:>16}{:>15}{:>8}  {mark}",
                candidate.maxretry,
                candidate.banned,
                kinds.attackers,
                kinds.ordinary,
                kinds.search_engines,
                kinds.authenticated,
                candidate.people
            );
            writeln!(out, "{}", row.trim_end())?;
        }
    }
    writeln!(out)?;
    for line in wrapped(&jail.why, 78) {
        writeln!(out, "{line}")?;
    }
    if let Some(paste) = &jail.paste {
        writeln!(out, "\n{}", indented(paste))?;
    }
    Ok(())
}

/// One bar for each bin; where the limit lies.
fn plot(jail: &ToldJail, out: &mut dyn Write) -> io::Result<()> {
    for bin in &jail.histogram {
        let Bin { from, to, clients } = bin;
        let range = if from == to {
            from.to_string()
        } else {
            format!("{from} to {to}")
        };
        let bad = clients.attackers;
        let good = clients.ordinary + clients.search_engines + clients.authenticated;
        let mut marks = Vec::new();
        if (*from..=*to).contains(&jail.maxretry) {
            marks.push(format!("now {}", jail.maxretry));
        }
        if let Some(take) = jail
            .recommended
            .filter(|take| *take != jail.maxretry && (*from..=*to).contains(take))
        {
            marks.push(format!("take {take}"));
        }
        let marks = if marks.is_empty() {
            String::new()
        } else {
            format!("  <- {}", marks.join(", "))
        };
        let mut many = Vec::new();
        if good > 0 {
            many.push(good.to_string());
        }
        if bad > 0 {
            many.push(format!("{bad} x"));
        }
        let row = format!(
            "{range:>13}  {}{} {}{marks}",
            "#".repeat(cells(good)),
            "x".repeat(cells(bad)),
            many.join(" + ")
        );
        writeln!(out, "{}", row.trim_end())?;
    }
    Ok(())
}

/// A cell for one, another for each doubling.
fn cells(many: usize) -> usize {
    many.checked_ilog2()
        .map_or(0, |log| log as usize + 1)
        .min(CELLS)
}

/// `256+`: the count was followed no further.
pub(super) fn counted(count: u32, jail: &ToldJail) -> String {
    let more = if count >= jail.ceiling { "+" } else { "" };
    format!("{count}{more}")
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("    {line}")).collect();
    lines.join("\n")
}

/// Lines of at most `width` characters, if no word is longer.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines
            .last_mut()
            .filter(|line| line.is_empty() || line.len() + 1 + word.len() <= width);
        match last {
            Some(line) => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}
