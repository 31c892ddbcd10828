//! `jail`, `ignore`, `log-level`, `subscribe`: what only a running f2b-pipe can do. What they change holds in all processes
//! at once, and until the next `reload`.

use std::io::Write;

use chrono::{DateTime, Local};
use clap::ValueEnum;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde_json::{Value, json};

use super::bans::{json as print_json, paths};
use super::{Done, Failure, IgnoreArgs, JailArgs, LogLevelArgs, Outcome, SubscribeArgs, ask};
use crate::changes::{Change, Level, Mode, Setting};
use crate::config;
use crate::control::wire::{Reply, Request};
use crate::decide::BanFor;
use crate::fail2ban::UseDns;

/// What `ignore` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ignore {
    /// Never ban these from now on
    Add,
    /// They may be banned again, whatever the configuration says
    Del,
    /// Who is never banned, by jail
    List,
}

/// `f2b-pipe jail NAME [on|off|observe] [KEY=VALUE]...`: changes a jail, and shows it. `--json`: `{"jail": {"name":
/// "apache-dos", "mode": "on", "maxretry": 100, ...}}`, as the control socket shows it.
///
/// # Errors
/// A change that cannot be: then none is made. No f2b-pipe runs.
pub fn jail(args: &JailArgs, out: &mut dyn Write) -> Done {
    let name = &args.jail;
    let changes: Result<Vec<Change>, Failure> = args
        .changes
        .iter()
        .map(|word| change(name, word).map_err(Failure::Usage))
        .collect();
    let changes = changes?;
    let paths = paths(&args.list.place);
    let changed = !changes.is_empty();
    if changed {
        ask::must(&paths, &Request::Change { changes })?;
    }
    let status = Request::Status {
        jail: Some(name.clone()),
    };
    let shown = ask::must(&paths, &status)?;
    let jail = shown.pointer("/jails/0").unwrap_or(&Value::Null);
    if args.list.json {
        print_json(&json!({ "jail": jail }), out)?;
        return Ok(Outcome::Fine);
    }
    let text = |key: &str| jail.get(key).and_then(Value::as_str).unwrap_or("-");
    let number = |key: &str| jail.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    let bantime = match number("bantime") {
        below if below < 0.0 => "for ever".to_owned(),
        secs => format!("{secs}s"),
    };
    let idle = match jail.get("idle").and_then(Value::as_bool) {
        Some(true) => ", idle",
        _ => "",
    };
    writeln!(
        out,
        "{name}: {}{idle}, maxretry {}, findtime {}s, bantime {bantime}; {} hits, {} bans, {} banned now",
        text("mode"),
        number("maxretry"),
        number("findtime"),
        number("hits"),
        number("bans"),
        number("banned")
    )?;
    if changed {
        writeln!(out, "until the next f2b-pipe reload")?;
    }
    Ok(Outcome::Fine)
}

fn plain(value: &str) -> serde::de::value::StrDeserializer<'_, serde::de::value::Error> {
    value.into_deserializer()
}

/// A change of a jail, as it is written.
fn change(jail: &str, word: &str) -> Result<Change, String> {
    let jail = jail.to_owned();
    let mode = match word {
        "on" => Some(Mode::On),
        "off" => Some(Mode::Off),
        "observe" => Some(Mode::Observe),
        _ => None,
    };
    if let Some(mode) = mode {
        return Ok(Change::Mode { jail, mode });
    }
    let known = "write on, off, observe, maxretry=N, findtime=10m, bantime=1h, usedns=no, ignoreself=yes or idle=yes";
    let Some((key, value)) = word.split_once('=') else {
        return Err(format!("{word:?} changes nothing; {known}"));
    };
    let wrong = |text: String| format!("{key}: {text}");
    let flag = || match value {
        "yes" | "on" | "true" | "1" => Ok(true),
        "no" | "off" | "false" | "0" => Ok(false),
        _ => Err(wrong(format!("{value:?} is neither; write yes or no"))),
    };
    let to = match key {
        "maxretry" => Setting::MaxRetry(
            value
                .parse()
                .map_err(|_| wrong(format!("{value:?} is no number; write 1 to 100000")))?,
        ),
        "findtime" => Setting::FindTime(config::duration(value).map_err(wrong)?.as_secs_f64()),
        "bantime" => Setting::BanTime(match config::bantime(value).map_err(wrong)? {
            BanFor::Timed(secs) => Some(f64::from(secs.get())),
            BanFor::Forever => None,
        }),
        "usedns" => Setting::UseDns(UseDns::deserialize(plain(value)).map_err(|_| {
            wrong(format!(
                "{value:?} is none of them; write yes, warn, no or raw"
            ))
        })?),
        "ignoreself" => Setting::IgnoreSelf(flag()?),
        "idle" => Setting::Idle(flag()?),
        _ => return Err(format!("{key:?} cannot be changed here; {known}")),
    };
    Ok(Change::Set { jail, to })
}

/// `f2b-pipe ignore add|del IP...`, `f2b-pipe ignore list`. `--json`: `{"ignored": [{"jail": "apache-dos", "who":
/// ["127.0.0.0/8"]}]}`.
///
/// # Errors
/// A word that is no address, network or name; no such jail; no f2b-pipe runs.
pub fn ignore(args: &IgnoreArgs, out: &mut dyn Write) -> Done {
    let paths = paths(&args.list.place);
    let (jail, who) = (args.jail.clone(), args.ips.clone());
    let change = match args.what {
        Ignore::List if who.is_empty() => None,
        Ignore::List => {
            return Err(Failure::Usage(
                "list takes no addresses; write ignore list, ignore add IP or ignore del IP"
                    .to_owned(),
            ));
        }
        Ignore::Add | Ignore::Del if who.is_empty() => {
            return Err(Failure::Usage(
                "who? Write ignore add 192.0.2.7, a network or a host name".to_owned(),
            ));
        }
        Ignore::Add => Some(Change::Ignore { jail, who }),
        Ignore::Del => Some(Change::Unignore { jail, who }),
    };
    let changed = change.is_some();
    if let Some(change) = change {
        let changes = vec![change];
        ask::must(&paths, &Request::Change { changes })?;
    }
    let jail = args.jail.clone();
    let shown = ask::must(&paths, &Request::Ignored { jail })?;
    let all = shown.get("ignored").and_then(Value::as_object);
    let all = all.into_iter().flatten();
    if args.list.json {
        let all = all.map(|(jail, who)| json!({ "jail": jail, "who": who }));
        print_json(&json!({ "ignored": all.collect::<Vec<_>>() }), out)?;
        return Ok(Outcome::Fine);
    }
    if changed {
        let (words, from) = (args.ips.join(" "), args.jail.as_deref());
        let from = from.unwrap_or("any jail");
        let not = match args.what {
            Ignore::Del => "may be banned again",
            Ignore::Add | Ignore::List => "not banned",
        };
        writeln!(
            out,
            "{words}: {not} by {from}, until the next f2b-pipe reload"
        )?;
        return Ok(Outcome::Fine);
    }
    for (jail, who) in all {
        let who = who.as_array().into_iter().flatten();
        let who: Vec<&str> = who.filter_map(Value::as_str).collect();
        writeln!(out, "{jail}: {}", who.join(" "))?;
    }
    Ok(Outcome::Fine)
}

/// `f2b-pipe log-level [LEVEL]`. `--json`: `{"log_level": "info"}`.
///
/// # Errors
/// No f2b-pipe runs.
pub fn log_level(args: &LogLevelArgs, out: &mut dyn Write) -> Done {
    let paths = paths(&args.list.place);
    if let Some(name) = &args.level {
        let level = Level::NAMES.iter().find(|(known, _)| known == name);
        let Some((_, level)) = level else {
            let names: Vec<&str> = Level::NAMES.iter().map(|(name, _)| *name).collect();
            return Err(Failure::Usage(format!(
                "{name:?} is no level; write {}",
                names.join(", ")
            )));
        };
        let changes = vec![Change::LogLevel(*level)];
        ask::must(&paths, &Request::Change { changes })?;
    }
    let shown = ask::must(&paths, &Request::Status { jail: None })?;
    let level = shown.get("log_level").and_then(Value::as_str);
    let level = level.unwrap_or("-");
    if args.list.json {
        print_json(&json!({ "log_level": level }), out)?;
    } else if args.level.is_some() {
        writeln!(out, "{level}, until the next f2b-pipe reload")?;
    } else {
        writeln!(out, "{level}")?;
    }
    Ok(Outcome::Fine)
}

/// `f2b-pipe subscribe`: hits and bans as they happen, until it is ended. `--json`: what the control socket sends, one
/// object a line: `{"event": "ban", "time": 1480000000.0, "jail": "apache-dos", "ip": "192.0.2.7"}`; `event` is `hit`,
/// `ban`, `would_ban`, `unban` or `lost` (with `events`, how many).
///
/// # Errors
/// No f2b-pipe runs; it has ended.
pub fn subscribe(args: &SubscribeArgs, out: &mut dyn Write) -> Done {
    let paths = paths(&args.list.place);
    let told = |error: std::io::Error| ask::trouble(&paths, &error);
    let mut client = ask::connect(&paths)?;
    let reply: Reply = client.ask(&Request::Subscribe).map_err(told)?;
    ask::result(reply)?;
    client.wait_forever().map_err(told)?;
    while let Some(line) = client.line().map_err(told)? {
        if args.list.json {
            out.write_all(line.as_bytes())?;
        } else {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            writeln!(out, "{}", shown(&event))?;
        }
        // Whoever reads this wants to see it now.
        out.flush()?;
    }
    Err(Failure::Usage(
        "f2b-pipe has ended, or another process is in charge now; subscribe again".to_owned(),
    ))
}

/// An event for people.
fn shown(event: &Value) -> String {
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or("-");
    if let Some(lost) = event.get("events").and_then(Value::as_u64) {
        return format!("{lost} events are not shown: there are more than this can take");
    }
    let what = match text("event") {
        "would_ban" => "would ban",
        other => other,
    };
    let time = event.get("time").and_then(Value::as_f64).unwrap_or(0.0);
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a cast of a float saturates, and no time is near that"
    )]
    let time = DateTime::from_timestamp_millis((time * 1000.0) as i64);
    let time = time.unwrap_or_default().with_timezone(&Local);
    let time = time.format("%Y-%m-%d %H:%M:%S");
    format!("{time} {what:<9}  {}  {}", text("ip"), text("jail"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_written_as_in_the_configuration() {
        let set = |to| {
            Ok(Change::Set {
                jail: "a".into(),
                to,
            })
        };
        assert_eq!(change("a", "maxretry=5"), set(Setting::MaxRetry(5)));
        assert_eq!(change("a", "findtime=1m"), set(Setting::FindTime(60.0)));
        assert_eq!(
            change("a", "bantime=1h"),
            set(Setting::BanTime(Some(3600.0)))
        );
        assert_eq!(change("a", "bantime=-1"), set(Setting::BanTime(None)));
        assert_eq!(change("a", "idle=yes"), set(Setting::Idle(true)));
        assert_eq!(change("a", "usedns=raw"), set(Setting::UseDns(UseDns::Raw)));
        let off = Change::Mode {
            jail: "a".into(),
            mode: Mode::Off,
        };
        assert_eq!(change("a", "off"), Ok(off));
        for (word, about) in [
            ("of", "write on, off"),
            ("maxretry=many", "1 to 100000"),
            ("bantime=soon", "10m"),
            ("idle=perhaps", "yes or no"),
            ("usedns=maybe", "raw"),
            ("failregex=x", "cannot be changed here"),
        ] {
            let error = change("a", word).unwrap_err();
            assert!(error.contains(about), "{error}");
        }
    }

    #[test]
    fn events_are_a_line_each() {
        let event = json!({"event": "would_ban", "time": 0.0, "jail": "a", "ip": "192.0.2.7"});
        assert!(shown(&event).ends_with(" would ban  192.0.2.7  a"));
        assert!(shown(&json!({"event": "lost", "events": 7})).starts_with("7 events"));
    }
}
