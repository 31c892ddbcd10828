//! `banned`, `ban`, `unban`: what the kernel's sets say, and putting addresses in and taking them out by hand.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::Utc;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::{BanArgs, Done, Failure, ListArgs, Outcome, UnbanArgs, WhereArgs, ask};
use crate::act::firewall::{self, Firewall};
use crate::act::listed::{Row, empty, rows};
use crate::act::lock::try_lock;
use crate::act::plan::{Found, Plan};
use crate::act::{self, Act, ActError, Ban, Banned, SetRef, keeper, kill, place_of};
use crate::changes;
use crate::client::Client;
use crate::config::{self, Backend, Config, Jail, Mode, RuntimePaths, suggest};
use crate::control::wire::Request;
use crate::decide::BanFor;
use crate::exempt::{Bannable, Exempt, Target};
use crate::hit::JailId;
use crate::notify::{self, logfile};
use crate::{say, watch};

pub mod status;
pub mod switch;

/// How long a ban by hand waits for the running f2b-pipe to write a rule for it.
const RULE_PATIENCE: Duration = Duration::from_secs(3);

/// The configuration. What is wrong with it is for `check` and `status` to say: a typing error shall not keep anybody
/// from taking a ban away.
fn load(place: &WhereArgs) -> Config {
    let mut config = config::load(&place.config).config;
    changes::live(&mut config, &paths(place));
    config
}

pub(super) fn paths(place: &WhereArgs) -> RuntimePaths {
    RuntimePaths::new(&place.runtime_dir, &place.config)
}

/// The kernel's sets and rules, for a command.
fn open(config: &Config) -> Result<Box<dyn Firewall>, Failure> {
    firewall::open(&config.firewall).map_err(|error| failed(&error))
}

/// Why the kernel could not be asked: mostly, that this is not root.
fn failed(error: &ActError) -> Failure {
    Failure::Usage(words(error))
}

pub(super) fn words(error: &ActError) -> String {
    if *error == ActError::NoRights && !geteuid().is_root() {
        return "looking at bans or changing them needs root: sudo f2b-pipe ...".to_owned();
    }
    error.to_string()
}

/// The jail called `name`, with its number.
fn jail_named<'a>(config: &'a Config, name: &str) -> Result<(JailId, &'a Jail), Failure> {
    if let Some(found) = act::jails(config).find(|(_, jail)| jail.name == name) {
        return Ok(found);
    }
    if config.jails.iter().any(|jail| jail.name == name) {
        return Err(Failure::Usage(format!(
            "jail {name} only observes, so it has no bans; write mode = \"ban\" to change that"
        )));
    }
    Err(unknown_jail(config, name))
}

/// No jail is called `name`: which was meant?
pub(super) fn unknown_jail(config: &Config, name: &str) -> Failure {
    let names: Vec<&str> = config
        .jails
        .iter()
        .chain([&config.manual])
        .map(|jail| jail.name.as_str())
        .collect();
    let advice = match suggest::nearest(name, &names) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("there are: {}", names.join(", ")),
    };
    Failure::Usage(format!("no jail is called {name}; {advice}"))
}

/// Addresses and networks; all that are neither are named at once.
fn targets(words: &[String]) -> Result<Vec<Target>, Failure> {
    let (mut targets, mut wrong) = (Vec::new(), Vec::new());
    for word in words {
        match (Client::parse(word.as_bytes()), word.parse()) {
            (Some(client), _) => targets.push(Target::Client(client)),
            (None, Ok(net)) => targets.push(Target::Net(net)),
            (None, Err(_)) => wrong.push(format!(
                "{:?} is neither an address nor a network; write 192.0.2.7, 2001:db8::7 or 192.0.2.0/24",
                word.chars().take(60).collect::<String>()
            )),
        }
    }
    match wrong.is_empty() {
        true => Ok(targets),
        false => Err(Failure::Usage(wrong.join("\n"))),
    }
}

/// What the process in charge says: it knows of bans that are not in the kernel, too (jails that act by commands only).
fn asked_banned(paths: &RuntimePaths) -> Result<Option<Vec<Row>>, Failure> {
    #[derive(Deserialize)]
    struct View {
        jail: String,
        key: String,
        until: Option<f64>,
        packets: u64,
        bytes: u64,
        reason: String,
    }
    let Some(mut told) = ask::ask_if_allowed(paths, &Request::Banned { jail: None })? else {
        return Ok(None);
    };
    let views: Vec<View> = match told.get_mut("banned").map(serde_json::Value::take) {
        Some(views) => serde_json::from_value(views)
            .map_err(|error| Failure::Usage(format!("the running f2b-pipe: {error}")))?,
        None => Vec::new(),
    };
    let now = Utc::now();
    let row = |view: View| {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a cast of a float saturates, and no time is near that"
        )]
        let millis = |secs: f64| (secs * 1000.0).round() as i64;
        // As whole seconds: the kernel's are, and what passed on the way is less than half of one.
        let left = view
            .until
            .map(|until| (millis(until) - now.timestamp_millis() + 500).max(0) / 1000);
        Row {
            jail: view.jail,
            ip: view.key,
            left,
            packets: view.packets,
            bytes: view.bytes,
            reason: view.reason,
        }
    };
    let mut rows: Vec<Row> = views.into_iter().map(row).collect();
    rows.sort();
    Ok(Some(rows))
}

/// `f2b-pipe banned`. `--json`: `{"banned": [{"jail": "apache-dos", "ip": "192.0.2.7", "left": 571, "packets": 12, "bytes":
/// 720, "reason": "100 hits in 1s"}]}`; see [`Row`].
///
/// # Errors
/// The kernel cannot be asked.
pub fn banned(args: &ListArgs, out: &mut dyn Write) -> Done {
    #[derive(Serialize)]
    struct Shown {
        banned: Vec<Row>,
    }
    let config = load(&args.place);
    let rows = match (asked_banned(&paths(&args.place))?, config.firewall.backend) {
        (Some(rows), _) => rows,
        (None, Backend::DryRun) => Vec::new(),
        (None, Backend::Auto | Backend::Ipset | Backend::Nftables) => {
            rows(&config, open(&config)?.as_mut()).map_err(|error| failed(&error))?
        }
    };
    if args.json {
        json(&Shown { banned: rows }, out)?;
        return Ok(Outcome::Fine);
    }
    let width = |heading: &str, of: fn(&Row) -> usize| {
        rows.iter().map(of).max().unwrap_or(0).max(heading.len())
    };
    let (ip, jail) = (width("IP", |r| r.ip.len()), width("JAIL", |r| r.jail.len()));
    if rows.is_empty() {
        writeln!(out, "nobody is banned")?;
        return Ok(Outcome::Fine);
    }
    writeln!(
        out,
        "{:ip$}  {:jail$}  {:>10}  {:>8}  REASON",
        "IP", "JAIL", "LEFT", "PACKETS"
    )?;
    for row in &rows {
        writeln!(
            out,
            "{:ip$}  {:jail$}  {:>10}  {:>8}  {}",
            row.ip,
            row.jail,
            left(row.left),
            row.packets,
            row.reason
        )?;
    }
    Ok(Outcome::Fine)
}

/// `9m 31s`, `2d 4h`; the two largest units.
fn left(secs: Option<i64>) -> String {
    let Some(secs) = secs else {
        return "for ever".to_owned();
    };
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut rest = secs.max(0);
    let mut parts = Vec::new();
    for (size, unit) in units {
        if rest >= size || (unit == "s" && parts.is_empty()) {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    parts.truncate(2);
    parts.join(" ")
}

/// What `ban --json` shows of each address: `{"bans": [{"ip": "192.0.2.7", "result": "banned", "reason": null}]}`.
#[derive(Debug, Serialize, Deserialize)]
struct BanResult {
    /// As it was given.
    ip: String,
    /// `banned`, `prolonged`, `spared` (see reason) or `failed` (see reason).
    result: String,
    reason: Option<String>,
}

/// `f2b-pipe ban`. Exit code 1 if somebody was not banned.
///
/// # Errors
/// Words that cannot be used, or a kernel that cannot be asked; then nobody was banned.
pub fn ban(args: &BanArgs, out: &mut dyn Write) -> Done {
    #[derive(Serialize)]
    struct Shown<'a> {
        bans: &'a [BanResult],
        /// What keeps the bans from holding.
        troubles: &'a [String],
    }
    let place = &args.list.place;
    let config = load(place);
    let targets = targets(&args.ips)?;
    let (id, jail) = jail_named(&config, &args.jail)?;
    let ban_for = match &args.time {
        Some(text) => {
            config::bantime(text).map_err(|text| Failure::Usage(format!("--time: {text}")))?
        }
        None => jail.bantime,
    };
    if keeper::is_off(&paths(place)) {
        return Err(Failure::Usage(
            "bans are switched off; `f2b-pipe reload` switches them on".to_owned(),
        ));
    }
    let asked = Request::Ban {
        jail: args.jail.clone(),
        ips: args.ips.clone(),
        time: args.time.is_some().then_some(match ban_for {
            BanFor::Timed(secs) => i64::from(secs.get()),
            BanFor::Forever => -1,
        }),
        force: args.force,
    };
    let asked = ask::ask_if_allowed(&paths(place), &asked)?;
    // A member of the control group may ask, and not look into the kernel.
    let mut kernel = match open(&config) {
        Ok(kernel) => Some(kernel),
        Err(_) if asked.is_some() => None,
        Err(error) => return Err(error),
    };
    let mut victims = kill::Victims::default();
    let results = match asked {
        Some(mut told) => {
            let bans = told.get_mut("bans").map(serde_json::Value::take);
            serde_json::from_value(bans.unwrap_or_default())
                .map_err(|error| Failure::Usage(format!("the running f2b-pipe: {error}")))?
        }
        None => ban_here(args, &config, (id, jail), ban_for, &targets, &mut victims),
    };
    let done = |r: &BanResult| r.result == "banned" || r.result == "prolonged";
    let mut troubles = Vec::new();
    if results.iter().any(done) {
        if let Some(kernel) = &mut kernel {
            troubles = held(&config, &paths(place), kernel.as_mut());
        }
        if config.firewall.kill_connections
            && let Err(error) = kill::kill(&mut None, &victims)
        {
            troubles.push(format!("open connections could not be reset: {error}"));
        }
    }
    logfile::flush();
    say::flush();
    if args.list.json {
        json(
            &Shown {
                bans: &results,
                troubles: &troubles,
            },
            out,
        )?;
    } else {
        for BanResult { ip, result, reason } in &results {
            match (result.as_str(), reason) {
                ("spared", Some(reason)) => {
                    writeln!(
                        out,
                        "{ip}: not banned: {reason} (--force bans it all the same)"
                    )?;
                }
                (_, Some(reason)) => writeln!(out, "{ip}: not banned: {reason}")?,
                (result, None) => writeln!(out, "{ip}: {result} in {} for {ban_for}", jail.name)?,
            }
        }
        for trouble in &troubles {
            writeln!(out, "but: {trouble}")?;
        }
    }
    Ok(match results.iter().all(done) {
        true => Outcome::Fine,
        false => Outcome::NotSo,
    })
}

/// Bans where no f2b-pipe runs that could.
fn ban_here(
    args: &BanArgs,
    config: &Config,
    (id, jail): (JailId, &Jail),
    ban_for: BanFor,
    targets: &[Target],
    victims: &mut kill::Victims,
) -> Vec<BanResult> {
    let mut act = Act::new(config);
    let exempt = Exempt::new(config);
    let mut results = Vec::new();
    say::start();
    logfile::start(config.fail2ban_log.as_deref());
    for (target, word) in targets.iter().zip(&args.ips) {
        let (_, who) = place_of(*target, jail.ipv6_prefix);
        // The jail for bans by hand is none of those whose number `exempt` knows.
        let known = Some(id).filter(|id| usize::from(*id) < config.jails.len());
        let bannable = match args.force {
            true => Ok(Bannable::forced(who)),
            false => exempt.check(who, known),
        };
        let (result, reason) = match bannable {
            Err(spared) => ("spared", Some(spared.to_string())),
            Ok(bannable) => {
                let ban = Ban {
                    jail: id,
                    who: bannable,
                    ban_for,
                    reason: "by hand",
                };
                match banned_now(&mut act, &ban) {
                    Ok(result) => {
                        victims.add(config, (id, who));
                        notify::ban(&jail.name, &who);
                        (result, None)
                    }
                    Err(error) => ("failed", Some(words(&error))),
                }
            }
        };
        results.push(BanResult {
            ip: word.clone(),
            result: result.to_owned(),
            reason,
        });
    }
    results
}

/// Bans, or gives a standing ban the new time.
pub(super) fn banned_now(act: &mut Act, ban: &Ban<'_>) -> Result<&'static str, ActError> {
    match act.ban(ban, 0)? {
        Banned::New | Banned::NewSet => Ok("banned"),
        Banned::Already => act.prolong(ban, 0).map(|()| "prolonged"),
    }
}

/// Sees to it that rules look into the sets: by itself if no f2b-pipe runs, else by waiting until that one has done it.
/// What still keeps a ban from holding is returned.
fn held(config: &Config, paths: &RuntimePaths, kernel: &mut dyn Firewall) -> Vec<String> {
    let deadline = Instant::now() + RULE_PATIENCE;
    loop {
        let troubles = match sets(config, kernel) {
            Ok(sets) => chain_troubles(config, kernel, &sets, true, &paths.lock()),
            Err(error) => vec![words(&error)],
        };
        if troubles.is_empty() || Instant::now() >= deadline {
            return troubles;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The sets that are there and ours, of the configured jails.
fn sets(config: &Config, kernel: &mut dyn Firewall) -> Result<Vec<SetRef>, ActError> {
    let names = kernel.names(&config.firewall.set_prefix)?;
    let mut sets = keeper::wanted(config, &names);
    sets.retain(|set| names.contains(&set.name) && kernel.look(set) == Ok(true));
    Ok(sets)
}

/// What is wrong with the chains, for each family. With `repair`, and if nobody else holds the lock, they are put in place first.
fn chain_troubles(
    config: &Config,
    kernel: &mut dyn Firewall,
    sets: &[SetRef],
    repair: bool,
    lock: &Path,
) -> Vec<String> {
    let plans = Plan::all(config, sets);
    let lock = match repair {
        true => try_lock(lock).ok().flatten(),
        false => None,
    };
    let mut troubles = Vec::new();
    let families = kernel.families();
    let each = |plan| families.iter().map(move |family| (plan, *family));
    for (plan, family) in plans.iter().flat_map(each) {
        let mut found = kernel.found(plan, family);
        if lock.is_some() && !matches!(found, Ok(Found::InPlace)) {
            found = kernel.place(plan, family).map(|()| Found::InPlace);
        }
        let about = kernel.named(plan, family);
        troubles.extend(match found {
            Ok(Found::InPlace) => None,
            Ok(Found::Missing) => Some(format!("{about} is not there, so nobody is kept out")),
            Ok(Found::Overtaken) => Some(format!("{about}: another rule comes first")),
            Ok(Found::Doubled) => Some(format!("{about} is jumped to more than once")),
            Ok(Found::Changed) => Some(format!("{about} has other rules than it should")),
            Ok(Found::Incomplete) => Some(format!("{about} has no rule yet for a set that is new")),
            Err(error) => Some(format!("{about}: {error}")),
        });
    }
    troubles
}

/// `f2b-pipe unban`: prints how many bans were taken away, as fail2ban-client does, and then who was not banned; exit code
/// 1 if somebody was not. `--json`: `{"unbanned": 1, "not_banned": ["192.0.2.8"]}`.
///
/// # Errors
/// Words that cannot be used, or a kernel that cannot be asked.
pub fn unban(args: &UnbanArgs, out: &mut dyn Write) -> Done {
    let config = load(&args.list.place);
    let targets = targets(&args.ips)?;
    let mut jails: Vec<&Jail> = act::jails(&config).map(|(_, jail)| jail).collect();
    if let Some(name) = &args.jail {
        jails = vec![jail_named(&config, name)?.1];
    }
    let asked = Request::Unban {
        jail: args.jail.clone(),
        ips: (!args.all).then(|| args.ips.clone()),
    };
    if let Some(told) = ask::ask_if_allowed(&paths(&args.list.place), &asked)? {
        return unbanned_there(args, &config, &told, out);
    }
    let mut kernel = open(&config)?;
    let kernel = kernel.as_mut();
    let mut unbanned = 0;
    let mut not_banned = Vec::new();
    let mut advice = Vec::new();
    let done = (|| {
        if args.all {
            unbanned = match &args.jail {
                None => empty(&kernel.ours(&config.firewall.set_prefix)?, kernel)?,
                Some(_) => {
                    let of_jails = jails.iter().flat_map(|jail| sets_of(&config, jail));
                    let ours = kernel.ours(&config.firewall.set_prefix)?;
                    let names: Vec<String> = of_jails
                        .map(|s| s.name)
                        .filter(|n| ours.contains(n))
                        .collect();
                    empty(&names, kernel)?
                }
            };
        }
        for (target, word) in targets.iter().zip(&args.ips) {
            let mut found = 0;
            for jail in &jails {
                let (kind, who) = place_of(*target, jail.ipv6_prefix);
                for set in sets_of(&config, jail).iter().filter(|s| s.kind == kind) {
                    found += usize::from(kernel.look(set)? && kernel.del(set, who)?);
                }
            }
            unbanned += found;
            if found == 0 {
                not_banned.push(word.as_str());
                advice.push(within(&config, *target, kernel)?);
            }
        }
        Ok(())
    })();
    done.map_err(|error| failed(&error))?;
    let (paths, jail) = (paths(&args.list.place), args.jail.as_deref());
    let whom = targets.iter().map(|target| Some(*target));
    for who in whom.chain(args.all.then_some(None)) {
        watch::lifted(&config, &paths, jail, who)?;
    }
    shown_unbanned(args, unbanned, &not_banned, advice, out)
}

/// The process in charge has lifted bans.
fn unbanned_there(
    args: &UnbanArgs,
    config: &Config,
    told: &serde_json::Value,
    out: &mut dyn Write,
) -> Done {
    let unbanned = told.get("unbanned").and_then(serde_json::Value::as_u64);
    let unbanned = usize::try_from(unbanned.unwrap_or(0)).unwrap_or(usize::MAX);
    let absent = told.get("not_banned").and_then(serde_json::Value::as_array);
    let absent: Vec<Target> = absent
        .into_iter()
        .flatten()
        .filter_map(|who| targets(&[who.as_str()?.to_owned()]).ok()?.pop())
        .collect();
    let mut not_banned = Vec::new();
    let mut advice = Vec::new();
    let mut kernel = open(config).ok();
    for word in &args.ips {
        for target in targets(std::slice::from_ref(word))? {
            if absent.contains(&target) {
                not_banned.push(word.as_str());
                let within = kernel
                    .as_mut()
                    .and_then(|kernel| within(config, target, kernel.as_mut()).ok());
                advice.push(within.flatten());
            }
        }
    }
    shown_unbanned(args, unbanned, &not_banned, advice, out)
}

fn shown_unbanned(
    args: &UnbanArgs,
    unbanned: usize,
    not_banned: &[&str],
    advice: Vec<Option<String>>,
    out: &mut dyn Write,
) -> Done {
    #[derive(Serialize)]
    struct Shown<'a> {
        unbanned: usize,
        not_banned: &'a [&'a str],
    }
    let outcome = match not_banned.is_empty() {
        true => Outcome::Fine,
        false => Outcome::NotSo,
    };
    if args.list.json {
        json(
            &Shown {
                unbanned,
                not_banned,
            },
            out,
        )?;
    } else {
        writeln!(out, "{unbanned}")?;
        for (word, advice) in not_banned.iter().zip(advice) {
            writeln!(out, "{word} was not banned{}", advice.unwrap_or_default())?;
        }
    }
    Ok(outcome)
}

/// The network, banned by hand, in which one that is not banned lies.
fn within(
    config: &Config,
    target: Target,
    kernel: &mut dyn Firewall,
) -> Result<Option<String>, ActError> {
    let Target::Client(client) = target else {
        return Ok(None);
    };
    for (_, jail) in act::jails(config) {
        for set in sets_of(config, jail).iter().filter(|s| s.kind.on_demand()) {
            let mut found = None;
            kernel.list(&set.name, &mut |member| {
                if let Some(Target::Net(net)) = firewall::target_of(&member)
                    && net.contains(&client.addr())
                {
                    found = Some(net);
                }
            })?;
            if let Some(net) = found {
                let name = &jail.name;
                return Ok(Some(format!(
                    " by itself, but lies in {net}, which is: f2b-pipe unban {net} --jail {name}"
                )));
            }
        }
    }
    Ok(None)
}

fn sets_of(config: &Config, jail: &Jail) -> [SetRef; 4] {
    SetRef::of(&config.firewall.set_prefix, jail)
}

/// One JSON object on a line.
pub(super) fn json(shown: &impl Serialize, out: &mut dyn Write) -> std::io::Result<()> {
    let text = serde_json::to_string(shown)?;
    writeln!(out, "{text}")
}

/// Whether a jail bans at all.
fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Ban => "ban",
        Mode::Observe => "observe",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_short() {
        assert_eq!(left(None), "for ever");
        assert_eq!(left(Some(0)), "0s");
        assert_eq!(left(Some(571)), "9m 31s");
        assert_eq!(left(Some(3_600)), "1h");
        assert_eq!(left(Some(187_261)), "2d 4h");
    }

    #[test]
    fn a_slip_in_a_jails_name_is_understood() {
        let config = Config::default();
        let error = jail_named(&config, "apache-doss").unwrap_err().to_string();
        assert!(error.contains("did you mean apache-dos?"), "{error}");
        let error = jail_named(&config, "x").unwrap_err().to_string();
        assert!(error.contains("manual"), "{error}");
        assert!(jail_named(&config, "manual").is_ok());
    }

    #[test]
    fn all_words_that_are_no_addresses_are_named() {
        let words = ["192.0.2.7", "example.org", "2001:db8::/32", "1.2.3"].map(String::from);
        let error = targets(&words).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 2);
        assert!(error.contains("example.org") && error.contains("1.2.3"));
        assert_eq!(targets(&words[..1]).unwrap().len(), 1);
    }
}
