//! `get`: what is set, in the order and the shapes in which fail2ban has it.

use super::pickle::{Exception, Value};
use super::python::{Answer, Words, error, quoted, string};
use super::server::{Jail, Server};
use super::status;
use crate::config::Raw;
use crate::control::Lines;
use crate::date::Detector;
use crate::decide::BanFor;
use crate::fail2ban::{Action, UseDns};
use crate::pattern::{Options, Pattern};

/// What an action has beside what it was given, and cannot be changed.
const CONSTANTS: [&str; 3] = ["ESCAPE_CRE", "ESCAPE_VN_CRE", "banEpoch"];
/// The commands every action has, also where they are empty.
const COMMANDS: [&str; 9] = [
    "actionban",
    "actioncheck",
    "actionflush",
    "actionreban",
    "actionreload",
    "actionrepair",
    "actionstart",
    "actionstop",
    "actionunban",
];
/// What could be called of an action.
const METHODS: [&str; 15] = [
    "ban",
    "clearAllParams",
    "consistencyCheck",
    "escapeTag",
    "executeCmd",
    "flush",
    "invalidateBanEpoch",
    "prolong",
    "reban",
    "reload",
    "replaceDynamicTags",
    "replaceTag",
    "start",
    "stop",
    "unban",
];

/// The words behind `get`.
pub(super) fn get(words: Words<'_>, server: &mut dyn Server) -> Answer {
    let name = words.text(0)?;
    if let Some(answer) = general(&name, server) {
        return Ok(answer);
    }
    let key = words.text(1)?;
    match key.as_str() {
        "banned" => status::banned_in(&name, words.from(2), server),
        "banip" => {
            let with_time = words.0.get(2).and_then(Value::as_text) == Some("--with-time");
            status::ban_list(&name, with_time, server)
        }
        "action" => {
            let (action, property) = (words.text(2)?, words.text(3)?);
            let jail = server.jail(&name)?;
            property_of(action_of(&jail, &action)?, &property)
        }
        "actionproperties" => {
            let action = words.text(2)?;
            let jail = server.jail(&name)?;
            Ok(Value::texts(properties(action_of(&jail, &action)?)))
        }
        "actionmethods" => {
            let action = words.text(2)?;
            let jail = server.jail(&name)?;
            action_of(&jail, &action)?;
            Ok(Value::texts(METHODS))
        }
        key if KEYS.contains(&key) || key.starts_with("bantime.") => {
            Ok(setting(&server.jail(&name)?, key))
        }
        _ => Err(error(
            "Invalid command (no get action or not yet implemented)",
        )),
    }
}

/// What is the same for all jails.
pub(super) fn general(name: &str, server: &mut dyn Server) -> Option<Value> {
    let general = server.general();
    Some(match name {
        "loglevel" => Value::text(general.log_level),
        "logtarget" => Value::text(general.log_target),
        "syslogsocket" => Value::text("auto"),
        "thread" => Value::Dict(vec![(Value::text("stacksize"), Value::Int(0))]),
        "dbfile" => Value::text(general.ledger),
        "dbmaxmatches" => Value::Int(10),
        "dbpurgeage" => number(general.ledger_age),
        _ => return None,
    })
}

/// What [`setting`] knows, beside `bantime.*`.
const KEYS: [&str; 19] = [
    "logpath",
    "logencoding",
    "journalmatch",
    "ignoreself",
    "ignoreip",
    "ignorecommand",
    "ignorecache",
    "prefregex",
    "failregex",
    "ignoreregex",
    "usedns",
    "findtime",
    "datepattern",
    "logtimezone",
    "maxmatches",
    "maxretry",
    "maxlines",
    "bantime",
    "actions",
];

/// A setting of a jail. A jail of httpd's lines has conditions in the place of expressions, so it has none of these.
pub(super) fn setting(jail: &Jail, key: &str) -> Value {
    let config = &jail.config;
    let raw = config.raw.as_deref();
    match key {
        "logpath" => match &jail.lines {
            Lines::Files(files) => Value::texts(files.iter().cloned()),
            Lines::Journal(_) | Lines::Httpd | Lines::Bans => Value::List(Vec::new()),
        },
        "journalmatch" => match &jail.lines {
            Lines::Files(_) | Lines::Httpd | Lines::Bans => Value::List(Vec::new()),
            Lines::Journal(matches) => {
                let alternatives = matches
                    .iter()
                    .map(|words| Value::texts(words.iter().cloned()));
                Value::List(alternatives.collect())
            }
        },
        "logencoding" => Value::text(match raw.map(|raw| raw.encoding.as_str()) {
            None | Some("auto") => "UTF-8",
            Some(encoding) => encoding,
        }),
        "idle" => Value::Bool(config.idle),
        "ignoreself" => Value::Bool(config.ignoreself),
        "ignoreip" => Value::texts(ignored(jail)),
        "ignorecommand" => raw
            .and_then(|raw| raw.ignorecommand.as_deref())
            .map_or(Value::Bool(false), Value::text),
        "ignorecache" => {
            raw.and_then(|raw| raw.ignorecache.as_ref())
                .map_or(Value::None, |cache| {
                    Value::List(vec![
                        Value::text(cache.key.as_str()),
                        Value::count(cache.max_count),
                        number(cache.max_time),
                    ])
                })
        }
        "prefregex" => {
            let prefix = raw.and_then(|raw| raw.rules.prefregex.as_deref());
            Value::text(prefix.map_or(String::new(), |prefix| written_out(raw, prefix)))
        }
        "failregex" => expressions(raw, |raw| &raw.rules.failregex),
        "ignoreregex" => expressions(raw, |raw| &raw.rules.ignoreregex),
        "usedns" => Value::text(usedns(raw.map_or(UseDns::Warn, |raw| raw.rules.usedns))),
        "findtime" => {
            number(raw.map_or(config.findtime.as_secs_f64(), |raw| raw.terms.rule.findtime))
        }
        "datepattern" => datepattern(raw.map_or(&[], |raw| &raw.rules.datepattern)),
        "logtimezone" => raw
            .and_then(|raw| raw.rules.logtimezone.as_deref())
            .map_or(Value::None, Value::text),
        "maxmatches" => Value::count(raw.map_or(0, |raw| raw.terms.rule.maxmatches)),
        "maxretry" => Value::count(config.maxretry),
        "maxlines" => Value::count(raw.map_or(1, |raw| raw.rules.maxlines)),
        "bantime" => match (raw, config.bantime) {
            (Some(raw), _) => raw.terms.bantime.map_or(Value::Int(-1), number),
            (None, BanFor::Timed(secs)) => Value::count(secs.get()),
            (None, BanFor::Forever) => Value::Int(-1),
        },
        "actions" => Value::texts(actions(jail).iter().map(|action| action.name.as_str())),
        key => raw.map_or(Value::None, |raw| grown(raw, key)),
    }
}

/// `bantime.*`.
fn grown(raw: &Raw, key: &str) -> Value {
    let written = &raw.increment;
    let text = |text: &Option<String>| text.as_deref().map_or(Value::None, Value::text);
    match key.strip_prefix("bantime.").unwrap_or_default() {
        "increment" => written.on.map_or(Value::None, Value::Bool),
        "factor" => text(&written.factor),
        "formula" => text(&written.formula),
        "multipliers" => text(&written.multipliers),
        "maxtime" => written.maxtime.map_or(Value::None, number),
        "rndtime" => written.rndtime.map_or(Value::None, number),
        "overalljails" => written.overalljails.map_or(Value::None, Value::Bool),
        _ => Value::None,
    }
}

/// Networks, then names, then single addresses.
fn ignored(jail: &Jail) -> Vec<String> {
    let config = &jail.config;
    let single = |net: &&ipnet::IpNet| net.prefix_len() == net.max_prefix_len();
    let nets = config.ignoreip.iter().filter(|net| !single(net));
    let ones = config.ignoreip.iter().filter(single);
    nets.map(ToString::to_string)
        .chain(config.ignoreip_names.iter().cloned())
        .chain(ones.map(|net| net.addr().to_string()))
        .collect()
}

fn expressions(raw: Option<&Raw>, which: impl Fn(&Raw) -> &Vec<String>) -> Value {
    let written = raw.into_iter().flat_map(|raw| {
        let each = which(raw).iter();
        each.map(|expression| written_out(Some(raw), expression))
            .collect::<Vec<_>>()
    });
    Value::texts(written)
}

/// An expression with its tags written out, as Python would be given it.
pub(super) fn written_out(raw: Option<&Raw>, expression: &str) -> String {
    let options = Options {
        names: raw.is_none_or(|raw| raw.rules.usedns != UseDns::No),
        ..Options::default()
    };
    Pattern::new(expression, options)
        .map_or_else(|_| expression.to_owned(), |pattern| pattern.expanded())
}

pub(super) fn usedns(usedns: UseDns) -> &'static str {
    match usedns {
        UseDns::Yes => "yes",
        UseDns::Warn => "warn",
        UseDns::No => "no",
        UseDns::Raw => "raw",
    }
}

/// The pattern and its name; a pattern without codes has a name only.
fn datepattern(patterns: &[String]) -> Value {
    let detector = Detector::new(patterns, None).ok();
    match detector.as_ref().and_then(Detector::first) {
        Some((pattern, name)) => {
            Value::pair(pattern.map_or(Value::None, Value::text), Value::text(name))
        }
        None => Value::pair(Value::None, Value::text("Default Detectors")),
    }
}

/// A number of seconds; a whole one without a point.
pub(super) fn number(seconds: f64) -> Value {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the cast saturates, and what is not the same then is told as it is"
    )]
    let whole = seconds as i64;
    #[allow(clippy::cast_precision_loss, reason = "a difference shows")]
    if whole as f64 == seconds {
        Value::Int(whole)
    } else {
        Value::Float(seconds)
    }
}

fn actions(jail: &Jail) -> &[Action] {
    jail.config.raw.as_ref().map_or(&[], |raw| &raw.actions)
}

/// The action of this name.
///
/// # Errors
/// The jail has none.
pub(super) fn action_of<'j>(jail: &'j Jail, name: &str) -> Result<&'j Action, Exception> {
    let action = actions(jail).iter().find(|action| action.name == name);
    action.ok_or_else(|| Exception::new("KeyError", format!("Invalid Action name: {name}")))
}

/// All that an action has, by name.
fn properties(action: &Action) -> Vec<String> {
    let given = action.commands.keys().chain(action.params.keys());
    let mut names: Vec<&str> = given.map(String::as_str).collect();
    names.extend(CONSTANTS.into_iter().chain(COMMANDS).chain(["timeout"]));
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(str::to_owned).collect()
}

/// One of them.
pub(super) fn property_of(action: &Action, name: &str) -> Answer {
    if let Some(value) = action.commands.get(name) {
        return Ok(Value::text(value.as_str()));
    }
    match name {
        "timeout" => Ok(number(action.timeout())),
        "banEpoch" => Ok(Value::Int(0)),
        name if action.params.contains_key(name) => Ok(Value::text(
            action.params.get(name).map_or("", String::as_str),
        )),
        name if COMMANDS.contains(&name) => Ok(Value::text("")),
        name => Err(Exception::new(
            "AttributeError",
            format!("'CommandAction' object has no attribute {}", quoted(name)),
        )),
    }
}

/// Can this be called of an action?
pub(super) fn is_method(name: &Value) -> bool {
    METHODS.contains(&string(name).as_str())
}
