//! `set`: settings until the next reload, and bans by hand.

use super::get;
use super::pickle::{Exception, Value};
use super::python::{
    Answer, Words, error, int, not_evaluated, quoted, repr, seconds, string, truth, value_error,
};
use super::server::{Jail, Server};
use crate::bans::Written;
use crate::changes::Setting;
use crate::config::Raw;
use crate::control::Lines;
use crate::date::Detector;
use crate::fail2ban::{UseDns, ignorecache};
use crate::key::Key;
use crate::pattern::{Options, Pattern};
use crate::source::tail::Encoding;

/// Log levels by name.
const LEVELS: [&str; 8] = [
    "CRITICAL",
    "ERROR",
    "WARNING",
    "NOTICE",
    "INFO",
    "DEBUG",
    "TRACEDEBUG",
    "HEAVYDEBUG",
];

/// The words behind `set`.
pub(super) fn set(words: Words<'_>, server: &mut dyn Server) -> Answer {
    let name = words.text(0)?;
    if let Some(answer) = general(&name, words, server) {
        return answer;
    }
    let key = words.text(1)?;
    match key.as_str() {
        "banip" => {
            server.jail(&name)?;
            let who = words.from(2).texts();
            Ok(Value::count(server.ban(&name, &who)?))
        }
        "unbanip" => unban(&name, words, server),
        "attempt" => {
            let Some((who, lines)) = words.from(2).0.split_first() else {
                server.jail(&name)?;
                return Err(Exception::new(
                    "TypeError",
                    "Filter.addAttempt() missing 1 required positional argument: 'ip'",
                ));
            };
            server.jail(&name)?;
            server.attempt(&name, &string(who), &Words(lines).texts())?;
            Ok(Value::Int(1))
        }
        "addignoreip" => {
            let who: Vec<String> = words.from(2).texts();
            let who = who.into_iter().filter(|who| !who.is_empty()).collect();
            server.jail(&name)?;
            server.ignore(&name, who, true)?;
            Ok(get::setting(&server.jail(&name)?, "ignoreip"))
        }
        "delignoreip" => {
            let who = words.text(2)?;
            let known = get::setting(&server.jail(&name)?, "ignoreip");
            let who = Key::parse(&who).to_string();
            if !known
                .items()
                .is_some_and(|known| known.contains(&Value::text(who.as_str())))
            {
                return Err(value_error("list.remove(x): x not in list"));
            }
            server.ignore(&name, vec![who], false)?;
            Ok(get::setting(&server.jail(&name)?, "ignoreip"))
        }
        "addaction" | "delaction" | "action" => actions(&name, &key, words, server),
        key => {
            let asked = Asked::read(&name, key, words.from(2), server)?;
            server.set(&name, asked.setting)?;
            Ok(get::setting(&server.jail(&name)?, asked.shown))
        }
    }
}

/// What is the same for all jails. Where the log goes and how bans are remembered is said in f2b-pipe's own configuration:
/// only what is so already can be set.
fn general(name: &str, words: Words<'_>, server: &mut dyn Server) -> Option<Answer> {
    let before = get::general(name, server)?;
    Some((|| {
        let value = words.at(1)?;
        let same = string(value) == string(&before);
        match name {
            "loglevel" => {
                let level = string(value).to_uppercase();
                let number = !level.is_empty() && level.bytes().all(|byte| byte.is_ascii_digit());
                if !number && !LEVELS.contains(&level.as_str()) {
                    return Err(value_error(format!("Invalid log level {}", quoted(&level))));
                }
                server.set_log_level(&level)?;
                return Ok(Value::text(level));
            }
            "logtarget" if !same => return Err(error("Failed to change log target")),
            "syslogsocket" if !same => return Err(error("Failed to change syslog socket")),
            "dbfile" if !same => {
                return Err(Exception::new(
                    "RuntimeError",
                    "Cannot change database when there are jails present",
                ));
            }
            "dbmaxmatches" if int(value)? != 10 => return Err(fixed("dbmaxmatches", &before)),
            "dbpurgeage" if get::number(seconds(value)?) != before => {
                return Err(fixed("dbpurgeage", &before));
            }
            "thread" => return Err(fixed("thread", &before)),
            _ => {}
        }
        Ok(before)
    })())
}

fn fixed(name: &str, value: &Value) -> Exception {
    error(format!("{name} is always {} in f2b-pipe", repr(value)))
}

/// What a command is to set.
struct Asked {
    setting: Setting,
    /// What is answered: this of the jail.
    shown: &'static str,
}

impl Asked {
    /// A key and its words, in fail2ban's order: words that are not there, what Python says of them, the jail.
    fn read(
        name: &str,
        key: &str,
        words: Words<'_>,
        server: &mut dyn Server,
    ) -> Result<Self, Exception> {
        let ask = |setting, shown| Ok(Self { setting, shown });
        match key {
            "idle" => {
                let on = match words.text(0)?.as_str() {
                    "on" => true,
                    "off" => false,
                    _ => return Err(error("Invalid idle option, must be 'on' or 'off'")),
                };
                server.jail(name)?;
                ask(Setting::Idle(on), "idle")
            }
            "ignoreself" => {
                let is = truth(words.at(0)?);
                server.jail(name)?;
                ask(Setting::IgnoreSelf(is), "ignoreself")
            }
            "ignorecommand" => {
                words.at(0)?;
                server.jail(name)?;
                Err(not_executed("ignorecommand"))
            }
            "ignorecache" => {
                let text = words.text(0)?;
                server.jail(name)?;
                let cache = match text.as_str() {
                    "" => None,
                    text => Some(ignorecache(text).map_err(value_error)?),
                };
                ask(Setting::IgnoreCache(cache), "ignorecache")
            }
            "addlogpath" => {
                let path = words.text(0)?;
                let tail = match words.len() {
                    0 | 1 => false,
                    2 => match words.text(1)?.to_lowercase().as_str() {
                        "tail" => true,
                        "head" => false,
                        _ => return Err(value_error("File option must be 'head' or 'tail'")),
                    },
                    _ => return Err(value_error("Only one file can be added at a time")),
                };
                let jail = server.jail(name)?;
                // A jail of the journal reads no files, and fail2ban says nothing of that.
                if let Lines::Files(_) = &jail.lines {
                    std::fs::File::open(&path).map_err(|error| not_opened(&error, &path))?;
                }
                ask(Setting::AddLogPath { path, tail }, "logpath")
            }
            "dellogpath" => {
                let path = words.text(0)?;
                server.jail(name)?;
                ask(Setting::DelLogPath(path), "logpath")
            }
            "logencoding" => {
                let encoding = words.text(0)?;
                server.jail(name)?;
                if encoding.to_lowercase() != "auto" && Encoding::named(&encoding).is_err() {
                    let text = format!("unknown encoding: {encoding}");
                    return Err(Exception::new("LookupError", text));
                }
                ask(Setting::LogEncoding(encoding), "logencoding")
            }
            "addjournalmatch" | "deljournalmatch" => journalmatch(name, key, words, server),
            "prefregex" => {
                let text = words.text(0)?;
                let jail = server.jail(name)?;
                let prefix = Some(text).filter(|text| !text.is_empty());
                if let Some(prefix) = &prefix {
                    compiled(&jail, prefix)?;
                }
                ask(Setting::PrefRegex(prefix), "prefregex")
            }
            "addfailregex" | "addignoreregex" | "delfailregex" | "delignoreregex" => {
                expression(name, key, words, server)
            }
            "usedns" => {
                let text = words.text(0)?;
                server.jail(name)?;
                ask(Setting::UseDns(usedns(&text)), "usedns")
            }
            "findtime" => {
                let value = words.at(0)?;
                server.jail(name)?;
                let findtime = seconds(value)?;
                if findtime <= 0.0 {
                    return Err(value_error("findtime must be more than 0 seconds"));
                }
                ask(Setting::FindTime(findtime), "findtime")
            }
            "datepattern" => {
                let text = words.text(0)?;
                server.jail(name)?;
                let lines: Vec<String> = text
                    .split('\n')
                    .map(|line| line.trim().to_owned())
                    .filter(|line| !line.is_empty())
                    .collect();
                Detector::new(&lines, None).map_err(|error| value_error(error.to_string()))?;
                ask(Setting::DatePattern(lines), "datepattern")
            }
            "logtimezone" => {
                let zone = words.text(0)?;
                server.jail(name)?;
                Detector::new(&[], Some(&zone)).map_err(|_| {
                    value_error(format!(
                        "Unknown or unsupported time zone: {}",
                        quoted(&zone)
                    ))
                })?;
                ask(Setting::LogTimeZone(zone), "logtimezone")
            }
            "maxmatches" => {
                let count = int(words.at(0)?)?;
                server.jail(name)?;
                ask(
                    Setting::MaxMatches(counted("maxmatches", count, 0)?),
                    "maxmatches",
                )
            }
            "maxretry" => {
                let count = int(words.at(0)?)?;
                server.jail(name)?;
                ask(
                    Setting::MaxRetry(counted("maxretry", count, 1)?),
                    "maxretry",
                )
            }
            "maxlines" => {
                let count = int(words.at(0)?)?;
                server.jail(name)?;
                if count <= 0 {
                    return Err(value_error("maxlines must be integer greater than zero"));
                }
                ask(
                    Setting::MaxLines(counted("maxlines", count, 1)?),
                    "maxlines",
                )
            }
            "bantime" => {
                let value = words.at(0)?;
                server.jail(name)?;
                let bantime = seconds(value)?.trunc();
                let timed = (bantime >= 0.0).then_some(bantime);
                ask(Setting::BanTime(timed), "bantime")
            }
            key if key.starts_with("bantime.") => grown(name, key, words, server),
            _ => Err(error(format!(
                "Invalid command {} (no set action or not yet implemented)",
                quoted(key)
            ))),
        }
    }
}

/// A count that this program can keep.
fn counted(key: &str, count: i64, least: u32) -> Result<u32, Exception> {
    let fits = u32::try_from(count).ok().filter(|count| *count >= least);
    fits.ok_or_else(|| {
        value_error(format!(
            "{key} must be at least {least}, and no more than 32 bits hold"
        ))
    })
}

fn usedns(text: &str) -> UseDns {
    match text.to_lowercase().as_str() {
        "yes" | "true" => UseDns::Yes,
        "warn" => UseDns::Warn,
        "raw" => UseDns::Raw,
        // What is none of these is the safe one of them, as in fail2ban.
        _ => UseDns::No,
    }
}

/// `OSError(errno, text, path)`.
fn not_opened(error: &std::io::Error, path: &str) -> Exception {
    let number = error.raw_os_error().unwrap_or(0);
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let class = match number {
        nix::libc::ENOENT => "FileNotFoundError",
        nix::libc::EACCES | nix::libc::EPERM => "PermissionError",
        _ => "OSError",
    };
    Exception {
        module: "builtins",
        class,
        args: vec![
            Value::Int(i64::from(number)),
            Value::text(text),
            Value::text(path),
        ],
    }
}

/// An expression that can be used, or what is wrong with it.
fn compiled(jail: &Jail, expression: &str) -> Result<Pattern, Exception> {
    let raw = jail.config.raw.as_deref();
    if expression.trim().is_empty() {
        return Err(error("Cannot add empty regex"));
    }
    let options = Options {
        names: raw.is_none_or(|raw| raw.rules.usedns != UseDns::No),
        multiline: raw.is_some_and(|raw| raw.rules.maxlines > 1),
    };
    Pattern::new(expression, options).map_err(|wrong| {
        error(format!(
            "Unable to compile regular expression '{expression}':\n{wrong}"
        ))
    })
}

fn no_expressions(jail: &Jail) -> Exception {
    value_error(format!(
        "jail {} judges httpd's lines by conditions, not by expressions",
        jail.config.name
    ))
}

fn raw_of(jail: &Jail) -> Result<&Raw, Exception> {
    jail.config
        .raw
        .as_deref()
        .ok_or_else(|| no_expressions(jail))
}

/// `addfailregex` and its three kin. An index counts from the end where it is below 0, and one that is none changes
/// nothing, as in fail2ban.
fn expression(
    name: &str,
    key: &str,
    words: Words<'_>,
    server: &mut dyn Server,
) -> Result<Asked, Exception> {
    let of_failures = key.ends_with("failregex");
    let list = |raw: &Raw| match of_failures {
        true => raw.rules.failregex.clone(),
        false => raw.rules.ignoreregex.clone(),
    };
    let all = if key.starts_with("add") {
        let text = words.text(0)?;
        let jail = server.jail(name)?;
        let raw = raw_of(&jail)?;
        addable(&jail, raw, &text, of_failures)?;
        let mut all = list(raw);
        all.push(text);
        all
    } else {
        let index = int(words.at(0)?)?;
        let jail = server.jail(name)?;
        let mut all = list(raw_of(&jail)?);
        let from_end = i64::try_from(all.len()).unwrap_or(i64::MAX);
        let index = if index < 0 { index + from_end } else { index };
        if let Some(index) = usize::try_from(index).ok().filter(|at| *at < all.len()) {
            all.remove(index);
        }
        all
    };
    Ok(match of_failures {
        true => Asked {
            setting: Setting::FailRegex(all),
            shown: "failregex",
        },
        false => Asked {
            setting: Setting::IgnoreRegex(all),
            shown: "ignoreregex",
        },
    })
}

/// Can this be added?
fn addable(jail: &Jail, raw: &Raw, text: &str, of_failures: bool) -> Result<(), Exception> {
    let pattern = compiled(jail, text)?;
    if !of_failures {
        return Ok(());
    }
    let prefix = raw.rules.prefregex.as_deref();
    let prefix = prefix.and_then(|prefix| compiled(jail, prefix).ok());
    pattern.identifies(prefix.as_ref()).map_err(|_| {
        error(format!(
            "No failure-id group in {}",
            quoted(&get::written_out(Some(raw), text))
        ))
    })
}

/// `multi-set`: many expressions at once, or many values of an action.
pub(super) fn several(words: Words<'_>, server: &mut dyn Server) -> Answer {
    let (name, key) = (words.text(0)?, words.text(1)?);
    if !["addfailregex", "addignoreregex"].contains(&key.as_str()) {
        return set(words, server);
    }
    let list = words.at(2)?;
    let list: Vec<Value> = match list.items() {
        Some(list) => list.to_vec(),
        None => string(list).chars().map(Value::text).collect(),
    };
    for one in &list {
        let asked = expression(&name, &key, Words(std::slice::from_ref(one)), server)?;
        server.set(&name, asked.setting)?;
    }
    server.jail(&name)?;
    Ok(Value::Bool(true))
}

/// Matches of the journal; `+` between alternatives. A jail of files has none, and fail2ban says nothing of that.
fn journalmatch(
    name: &str,
    key: &str,
    words: Words<'_>,
    server: &mut dyn Server,
) -> Result<Asked, Exception> {
    let given = words.texts();
    let mut all = match server.jail(name)?.lines {
        Lines::Files(_) | Lines::Httpd | Lines::Bans => Vec::new(),
        Lines::Journal(matches) if key == "addjournalmatch" => {
            let added = given.split(|word| word == "+").map(<[String]>::to_vec);
            matches.into_iter().chain(added).collect()
        }
        Lines::Journal(matches) => {
            let mut matches = matches;
            let at = matches.iter().position(|words| *words == given);
            let at = at.ok_or_else(|| {
                let given = Value::texts(given.iter().cloned());
                value_error(format!("Match {} not found", repr(&given)))
            })?;
            matches.remove(at);
            matches
        }
    };
    all.retain(|words| !words.is_empty());
    Ok(Asked {
        setting: Setting::JournalMatch(all),
        shown: "journalmatch",
    })
}

/// `bantime.*`. An empty word takes a setting back.
fn grown(
    name: &str,
    key: &str,
    words: Words<'_>,
    server: &mut dyn Server,
) -> Result<Asked, Exception> {
    let value = words.at(0)?;
    let jail = server.jail(name)?;
    let mut written: Written = raw_of(&jail)?.increment.clone();
    let text = Some(string(value)).filter(|text| !text.is_empty());
    let given = text.as_ref().map(|_| value);
    let shown = match key.strip_prefix("bantime.").unwrap_or_default() {
        "increment" => {
            written.on = Some(truth(value));
            "bantime.increment"
        }
        "factor" => {
            written.factor = text;
            "bantime.factor"
        }
        "formula" => {
            written.formula = text;
            "bantime.formula"
        }
        "multipliers" => {
            let each = text.as_deref().unwrap_or_default().split(' ');
            for word in each.filter(|_| text.is_some()) {
                int(&Value::text(word))?;
            }
            written.multipliers = text;
            "bantime.multipliers"
        }
        "maxtime" => {
            written.maxtime = given.map(seconds).transpose()?;
            "bantime.maxtime"
        }
        "rndtime" => {
            written.rndtime = given.map(seconds).transpose()?;
            "bantime.rndtime"
        }
        "overalljails" => {
            written.overalljails = given.map(truth);
            "bantime.overalljails"
        }
        _ => {
            return Err(error(format!(
                "Invalid command {} (no set action or not yet implemented)",
                quoted(key)
            )));
        }
    };
    written
        .increment(name)
        .map_err(|wrong| not_evaluated(&wrong.text))?;
    Ok(Asked {
        setting: Setting::Increment(written),
        shown,
    })
}

/// `set JAIL unbanip [--report-absent] IP...`.
fn unban(name: &str, words: Words<'_>, server: &mut dyn Server) -> Answer {
    let reports = words.text(2)? == "--report-absent";
    server.jail(name)?;
    let (mut lifted, mut absent) = (0, Vec::new());
    for who in words.from(if reports { 3 } else { 2 }).texts() {
        match lift(name, &who, server)? {
            0 => absent.push(Value::Text(who)),
            some => lifted += some,
        }
    }
    if reports && !absent.is_empty() {
        return Err(value_error(format!(
            "not banned: {}",
            repr(&Value::List(absent))
        )));
    }
    Ok(Value::count(lifted))
}

/// Lifts the ban of `who`; if there is none and it is a network, those of all within it. How many there were.
pub(super) fn lift(jail: &str, who: &str, server: &mut dyn Server) -> Result<usize, Exception> {
    if server.unban(jail, who)? {
        return Ok(1);
    }
    let Key::Net(net) = Key::parse(who) else {
        return Ok(0);
    };
    let mut lifted = 0;
    for ban in server.bans(jail)? {
        let inside = match Key::parse(&ban.key) {
            Key::Client(client) => net.contains(&client.addr()),
            Key::Net(inner) => net.contains(&inner),
            Key::Text(_) => false,
        };
        if inside && server.unban(jail, &ban.key)? {
            lifted += 1;
        }
    }
    Ok(lifted)
}

/// `addaction`, `delaction`, `action NAME KEY VALUE`: what is wrong with them is told as fail2ban does, and they are refused
/// all the same.
fn actions(name: &str, key: &str, words: Words<'_>, server: &mut dyn Server) -> Answer {
    let action = words.text(2)?;
    let jail = server.jail(name)?;
    match key {
        "addaction" => {
            if get::action_of(&jail, &action).is_ok() {
                return Err(value_error(format!("Action {action} already exists")));
            }
        }
        "delaction" => {
            get::action_of(&jail, &action)?;
        }
        _ => {
            get::action_of(&jail, &action)?;
            let property = words.at(3)?;
            if get::is_method(property) {
                return Err(error(format!(
                    "f2b-pipe runs the commands of actions, and calls no methods: {}",
                    string(property)
                )));
            }
            words.at(4)?;
        }
    }
    Err(not_executed("actions"))
}

/// Whoever may write to this socket must not get more executed by that than the configuration says.
fn not_executed(what: &str) -> Exception {
    error(format!(
        "{what}: what f2b-pipe executes stands in the configuration alone; write it there, and `reload`"
    ))
}
