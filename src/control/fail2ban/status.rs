//! Who is counted and banned, in the shapes that programs index by position: lists of pairs.

use super::pickle::Value;
use super::python::{Answer, Words, error};
use super::server::{Ban, Server, Shown};
use crate::control::Lines;

/// `status`, `status JAIL`, `status JAIL FLAVOR`.
pub(super) fn status(words: Words<'_>, server: &mut dyn Server) -> Answer {
    match words.len() {
        0 => {
            let mut names = server.jails()?;
            names.sort();
            Ok(pairs([
                ("Number of jail", Value::count(names.len())),
                ("Jail list", Value::text(names.join(", "))),
            ]))
        }
        1 => of_jail(&words.text(0)?, "basic", server),
        2 => of_jail(&words.text(0)?, &words.text(1)?, server),
        _ => Err(error("Invalid command (no status)")),
    }
}

fn of_jail(name: &str, flavor: &str, server: &mut dyn Server) -> Answer {
    let jail = server.jail(name)?;
    let mut filter = vec![
        ("Currently failed", Value::count(jail.failed)),
        ("Total failed", Value::count(jail.failed_in_all)),
    ];
    filter.push(match &jail.lines {
        Lines::Files(files) => ("File list", Value::texts(files.iter().cloned())),
        // Programs look for a list here; httpd's pipes and other jails' bans have no path.
        Lines::Httpd | Lines::Bans => ("File list", Value::List(Vec::new())),
        Lines::Journal(matches) => {
            let matches = matches.iter().map(|words| words.join(" "));
            let all = matches.collect::<Vec<_>>().join(" + ");
            ("Journal matches", Value::texts([all]))
        }
    });
    let bans = server.bans(name)?;
    let mut actions = vec![
        ("Currently banned", Value::count(bans.len())),
        ("Total banned", Value::count(jail.banned_in_all)),
    ];
    if flavor != "short" {
        actions.push(("Banned IP list", keys(&bans)));
    }
    if flavor == "cymru" {
        // Whose networks these are is asked of nobody: fail2ban says this, too, where it cannot ask.
        for list in ["Banned ASN list", "Banned Country list", "Banned RIR list"] {
            actions.push((list, Value::texts(["error"])));
        }
    }
    Ok(pairs([
        ("Filter", pairs(filter)),
        ("Actions", pairs(actions)),
    ]))
}

fn pairs<'n>(pairs: impl IntoIterator<Item = (&'n str, Value)>) -> Value {
    let pair = |(name, value)| Value::pair(Value::text(name), value);
    Value::List(pairs.into_iter().map(pair).collect())
}

fn keys(bans: &[Ban]) -> Value {
    Value::texts(bans.iter().map(|ban| ban.key.as_str()))
}

/// `banned`: by jail; `banned IP...`: for each address the jails.
pub(super) fn banned(words: Words<'_>, server: &mut dyn Server) -> Answer {
    let mut jails = Vec::new();
    for name in server.jails()? {
        let bans = server.bans(&name)?;
        jails.push((name, bans));
    }
    if words.is_empty() {
        let of_jail =
            |(name, bans): (String, Vec<Ban>)| Value::Dict(vec![(Value::text(name), keys(&bans))]);
        return Ok(Value::List(jails.into_iter().map(of_jail).collect()));
    }
    let where_banned = |who: String| {
        let holding = jails.iter().filter(|(_, bans)| holds(bans, &who));
        Value::texts(holding.map(|(name, _)| name.as_str()))
    };
    Ok(Value::List(
        words.texts().into_iter().map(where_banned).collect(),
    ))
}

/// Is `who` among the banned? As fail2ban does, its text counts, in the one spelling an address has.
pub(super) fn holds(bans: &[Ban], who: &str) -> bool {
    let who = crate::key::Key::parse(who).to_string();
    bans.iter().any(|ban| ban.key == who)
}

/// `get JAIL banned [IP...]`.
pub(super) fn banned_in(jail: &str, who: Words<'_>, server: &mut dyn Server) -> Answer {
    server.jail(jail)?;
    let bans = server.bans(jail)?;
    let is = |who: &String| Value::Int(i64::from(holds(&bans, who)));
    Ok(match who.texts().as_slice() {
        [] => keys(&bans),
        [who] => is(who),
        several => Value::List(several.iter().map(is).collect()),
    })
}

/// `get JAIL banip [SEPARATOR|--with-time]`: the soonest to end first.
pub(super) fn ban_list(jail: &str, with_time: bool, server: &mut dyn Server) -> Answer {
    server.jail(jail)?;
    let mut bans = server.bans(jail)?;
    let end = |ban: &Ban| ban.until.unwrap_or(f64::INFINITY);
    bans.sort_by(|a, b| end(a).total_cmp(&end(b)));
    if !with_time {
        return Ok(keys(&bans));
    }
    let lines = bans.iter().map(|ban| {
        let length = ban
            .until
            .map_or(-1, |until| whole((until - ban.since).round()));
        let until = ban.until.unwrap_or(f64::INFINITY);
        format!(
            "{} \t{} + {length} = {}",
            ban.key,
            Shown(ban.since),
            Shown(until)
        )
    });
    Ok(Value::texts(lines))
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "a length of a ban is a number of seconds far below 2^63, and the cast saturates"
)]
fn whole(seconds: f64) -> i64 {
    seconds as i64
}
