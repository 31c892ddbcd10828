//! `test`: which lines of a log a filter finds, and how far it gets in the others.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use serde::Serialize;

use super::{Done, Failure, Outcome, TestArgs};
use crate::date::now;
use crate::fail2ban::UseDns;
use crate::failregex::{self, Clock, Matcher, Phase, Stamp, Value};
use crate::frame::LINE_MAX_BYTES;
use crate::source::tail::Encoding;

mod report; // for people
mod sought; // what is looked for: a filter, a jail, or an expression
pub(super) mod stop; // where the best expression stopped

use report::Report;

/// How many addresses of one name count.
const ADDRESSES_MAX: usize = 16;

/// `f2b-pipe test LOG FILTER`. The shape of `--json`: `conf/man/test.roff`.
///
/// # Errors
/// The filter, an option or the log cannot be used, or the output cannot be written.
pub fn test(args: &TestArgs, out: &mut dyn Write) -> Done {
    let sought = sought::sought(args)?;
    let mut matcher =
        Matcher::new(&sought.rules).map_err(|error| Failure::Usage(error.to_string()))?;
    let now = args.now.unwrap_or_else(now);
    let encoding = Encoding::named(&args.encoding)
        .map_err(|error| Failure::Usage(format!("--encoding: {error}")))?;
    let log = Log::of(&args.log)?;
    let mut report = Report::new(args, &sought, &log.described());
    let mut failures = Vec::new();
    let mut any = false;
    let mut judge = |line: &str, stamp: Stamp, out: &mut dyn Write| -> Result<(), Failure> {
        failures.clear();
        let clock = Clock { now, today: now };
        let seen = matcher.line(line, stamp, Phase::Timeless, clock, &mut failures);
        let found = failures.drain(..).filter(|failure| !failure.is_nofail());
        let found: Vec<Match> = found
            .filter_map(|failure| matches_of(failure, sought.rules.usedns))
            .collect();
        any |= !found.is_empty();
        if args.json {
            write_json(found.first(), out)?;
            // Who asks line by line through a pipe waits for the answer.
            return Ok(out.flush()?);
        }
        if let Some(what) = &args.out {
            return Ok(report::write_out(what, &found, out)?);
        }
        if !line.is_empty() && !line.starts_with('#') {
            report.line(line, seen, &found, &matcher);
        }
        Ok(())
    };
    let mut stamped = |line: &str, out: &mut dyn Write| {
        if !args.stamped {
            return judge(line, Stamp::InText, out);
        }
        let (stamp, text) = line.split_once('\t').unwrap_or((line, ""));
        match stamp.parse() {
            Ok(at) => judge(text, Stamp::Known(at), out),
            Err(_) => Err(Failure::Usage(format!(
                "--stamped: \"{}\" is no time; each line is seconds since the epoch, a tab, and the text",
                line.escape_debug()
            ))),
        }
    };
    match log {
        Log::Line => stamped(&args.log, out)?,
        Log::File(path) => {
            let unreadable =
                |error: io::Error| Failure::Usage(format!("{}: {error}", path.display()));
            let file = File::open(path).map_err(unreadable)?;
            each_line(
                BufReader::with_capacity(256 * 1024, file),
                encoding,
                out,
                &mut stamped,
                &unreadable,
            )?;
        }
        Log::Stdin => {
            let unreadable = |error: io::Error| Failure::Usage(format!("stdin: {error}"));
            each_line(io::stdin().lock(), encoding, out, &mut stamped, &unreadable)?;
        }
        Log::Journal => sought::journal(&sought, encoding, &mut |at, line| {
            judge(line, Stamp::Known(at), out)
        })?,
    }
    if !args.json && args.out.is_none() {
        report.write(&matcher, out)?;
    }
    Ok(if any { Outcome::Fine } else { Outcome::NotSo })
}

/// What LOG is.
enum Log<'a> {
    File(&'a Path),
    Stdin,
    Journal,
    Line,
}

impl<'a> Log<'a> {
    fn of(text: &'a str) -> Result<Self, Failure> {
        Ok(match text {
            "-" => Self::Stdin,
            "systemd-journal" | "journal" => Self::Journal,
            path if Path::new(path).is_file() => Self::File(Path::new(path)),
            // No line of a log looks like this.
            path if path.starts_with('/') && !path.contains(char::is_whitespace) => {
                let is = match Path::new(path).exists() {
                    true => "is no file",
                    false => "there is no such file",
                };
                let text = format!("{path}: {is}; write the path of a log, a line in quotes, or -");
                return Err(Failure::Usage(text));
            }
            _ => Self::Line,
        })
    }

    /// As fail2ban-regex says it.
    fn described(&self) -> String {
        match self {
            Self::File(path) => format!("Use{:>22} : {}", "log file", path.display()),
            Self::Stdin => format!("Use{:>22} : stdin", "log file"),
            Self::Journal => format!("Use{:>22} :", "systemd journal"),
            Self::Line => format!("Use{:>22} : as written", "single line"),
        }
    }
}

fn each_line(
    mut input: impl BufRead,
    encoding: Encoding,
    out: &mut dyn Write,
    take: &mut dyn FnMut(&str, &mut dyn Write) -> Result<(), Failure>,
    unreadable: &dyn Fn(io::Error) -> Failure,
) -> Result<(), Failure> {
    let (mut bytes, mut scratch) = (Vec::new(), String::new());
    loop {
        bytes.clear();
        if input.read_until(b'\n', &mut bytes).map_err(unreadable)? == 0 {
            return Ok(());
        }
        let mut end = bytes.len();
        while end > 0
            && bytes
                .get(end - 1)
                .is_some_and(|b| matches!(b, b'\n' | b'\r'))
        {
            end -= 1;
        }
        // A longer one finds nobody, as in a log that is followed.
        bytes.truncate(if end > LINE_MAX_BYTES { 0 } else { end });
        take(encoding.decode(&bytes, &mut scratch), out)?;
    }
}

/// A failure, and whom it counts for: of a host name all its addresses.
#[derive(Debug)]
struct Match {
    failure: failregex::Failure,
    addresses: Option<Vec<String>>,
}

impl Match {
    fn ids(&self) -> impl Iterator<Item = &str> {
        let addresses = self.addresses.iter().flatten().map(String::as_str);
        let id = self.addresses.is_none().then_some(&*self.failure.id);
        addresses.chain(id)
    }

    /// Named groups that took part, and all users of the connection.
    fn groups(&self) -> BTreeMap<&str, serde_json::Value> {
        let json = |value: Value<'_>| match value {
            Value::Text(text) => serde_json::Value::from(text),
            Value::Tuple(parts) => parts.into(),
        };
        let groups = self.failure.groups.iter();
        let groups = groups.map(|(name, value)| (name, json(value)));
        let users: Vec<_> = self
            .failure
            .users
            .iter()
            .map(|user| json(user.value()))
            .collect();
        let users = (!users.is_empty()).then(|| ("users", users.into()));
        groups.chain(users).collect()
    }
}

/// One object of `--json`.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(rename = "match")]
    is_match: bool,
    host: &'a str,
    id: &'a str,
    time: Option<f64>,
    regex: usize,
    groups: BTreeMap<&'a str, serde_json::Value>,
    more: Vec<More<'a>>,
}

#[derive(Debug, Serialize)]
struct More<'a> {
    host: &'a str,
    id: &'a str,
}

fn matches_of(failure: failregex::Failure, usedns: UseDns) -> Option<Match> {
    let named = failure.unresolved && matches!(usedns, UseDns::Yes | UseDns::Warn);
    let addresses = named.then(|| addresses(&failure.id));
    let nobody = addresses.as_ref().is_some_and(Vec::is_empty);
    (!nobody).then_some(Match { failure, addresses })
}

/// Looks a name up, IPv4 addresses first.
fn addresses(name: &str) -> Vec<String> {
    use std::net::ToSocketAddrs;
    let found = (name, 0).to_socket_addrs().into_iter().flatten();
    let mut addresses: Vec<_> = found.map(|addr| addr.ip().to_canonical()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    addresses.iter().map(ToString::to_string).collect()
}

fn write_json(found: Option<&Match>, out: &mut dyn Write) -> io::Result<()> {
    match found {
        Some(found) => serde_json::to_writer(&mut *out, &shown(found))?,
        None => out.write_all(b"{\"match\": false}")?,
    }
    out.write_all(b"\n")
}

fn shown(found: &Match) -> Shown<'_> {
    let host = found.failure.host.as_str();
    let mut ids = found.ids().map(|id| More { host, id });
    Shown {
        is_match: true,
        host,
        id: ids.next().map_or("", |first| first.id),
        time: found.failure.time,
        regex: found.failure.regex + 1,
        groups: found.groups(),
        more: ids.collect(),
    }
}
