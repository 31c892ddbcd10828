//! `status`: first whether all is well, then fail2ban-client's tree.
//!
//! The kernel says who is banned, the state files of the running processes say what they counted.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, geteuid};
use serde::Serialize;
use serde_json::Value;

use super::super::check::processes as host;
use super::super::logs::Logs;
use super::super::{Done, Failure, Outcome, StatusArgs, ask};
use super::{asked_banned, chain_troubles, json, mode_word, paths, sets, unknown_jail, words};
use crate::act::firewall::{self, Firewall};
use crate::act::listed::{Row, rows};
use crate::act::{ActError, keeper};
use crate::changes;
use crate::config::{self, Backend, Config, Jail, Mode, Raw, RuntimePaths};
use crate::control::wire::Request;
use crate::failregex::Matcher;
use crate::filter;
use crate::notify::state;
use crate::parse::Format;
use crate::privilege;
use crate::watch;

/// `status --json`.
#[derive(Debug, Serialize)]
struct Status {
    /// Nothing is wrong.
    well: bool,
    /// What is wrong.
    troubles: Vec<String>,
    /// `f2b-pipe off`.
    off: bool,
    /// What carries bans out; `null`: nothing.
    firewall: Option<Used>,
    /// The jails, or the one that was asked for.
    jails: Vec<JailStatus>,
    /// What the running processes wrote into their state files.
    processes: Vec<Value>,
}

/// The firewall in use.
#[derive(Debug, Serialize)]
struct Used {
    /// `ipset` or `nftables`.
    name: &'static str,
    /// The command that shows a jail's set.
    look: String,
}

/// One jail in `status --json`.
#[derive(Debug, Default, Serialize)]
struct JailStatus {
    name: String,
    /// `ban` or `observe`; `off`: it is switched off while f2b-pipe runs.
    mode: &'static str,
    /// Lines that counted, in all running processes.
    hits: u64,
    /// Bans that these made.
    bans: u64,
    /// Limits reached that banned nobody.
    not_banned: u64,
    /// Who is banned now.
    ips: Vec<String>,
    /// What it reads; of a jail that judges other logs than httpd's only.
    #[serde(flatten)]
    reads: Option<Reads>,
}

/// What a jail reads here and now.
#[derive(Debug, Serialize)]
struct Reads {
    /// Logs that are there.
    files: Vec<String>,
    /// What of the journal, as fail2ban-client writes it; empty: all of it; null: it is not read.
    journal: Option<String>,
}

impl Reads {
    fn of(raw: &Raw) -> Self {
        let logs = Logs::of(raw);
        Self {
            files: logs
                .files
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
            journal: logs.journal,
        }
    }
}

/// `f2b-pipe status [JAIL]`. `--json`: `{"well": true, "troubles": [], "off": false, "firewall":
/// {"name": "ipset", "look": "ipset list f2bp-JAIL"}, "jails": [{"name": "apache-dos", "mode":
/// "ban", "hits": 7, "bans": 1, "not_banned": 0, "ips": ["192.0.2.7"]}], "processes": [...]}`, each process as in its state
/// file. A jail that judges other logs has `"files": ["/var/log/auth.log"], "journal": null`, too.
///
/// # Errors
/// No such jail, or the output cannot be written.
pub fn status(args: &StatusArgs, out: &mut dyn Write) -> Done {
    let place = &args.list.place;
    let mut loaded = config::load(&place.config);
    let paths = paths(place);
    changes::live(&mut loaded.config, &paths);
    let processes = running(&paths);
    observe_blind(&mut loaded.config, &processes);
    let config = &loaded.config;
    let mut jails = jails(config, &processes);
    if let Some(name) = &args.jail
        && !jails.iter().any(|jail| jail.name == *name)
    {
        return Err(match config.broken.iter().find(|jail| jail.jail == *name) {
            Some(broken) => Failure::Usage(format!("{name} cannot run: {}", broken.problem)),
            None => unknown_jail(config, name),
        });
    }
    let mut troubles = Vec::new();
    let off = keeper::is_off(&paths);
    if off {
        troubles.push("switched off: nobody is banned until `f2b-pipe reload`".to_owned());
    }
    let errors = loaded.errors().count();
    if errors > 0 {
        troubles.push(format!(
            "mistakes in the configuration, which leave something out ({errors}): f2b-pipe check"
        ));
    }
    for broken in &config.broken {
        troubles.push(format!("{} cannot run: {}", broken.jail, broken.problem));
    }
    let mut firewall = None;
    let mut told = false;
    match config.firewall.backend {
        Backend::DryRun => troubles.push("dry run (firewall.backend): nobody is banned".to_owned()),
        Backend::Auto | Backend::Ipset | Backend::Nftables => {
            match firewall::open(&config.firewall).and_then(|mut open| {
                firewall = Some(Used {
                    name: open.name(),
                    look: open.shown_by(&format!("{}JAIL", config.firewall.set_prefix)),
                });
                kernel(config, open.as_mut())
            }) {
                Ok((rows, found)) => {
                    if !off {
                        troubles.extend(found);
                    }
                    for row in rows {
                        if let Some(jail) = jails.iter_mut().find(|jail| jail.name == row.jail) {
                            jail.ips.push(row.ip);
                        }
                    }
                }
                // Root without rights reads the state files all the same.
                Err(ActError::NoRights)
                    if !geteuid().is_root() && answered(&paths, &mut jails, &mut troubles) =>
                {
                    told = true
                }
                Err(error) => troubles.push(words(&error)),
            }
        }
    }
    if config.fail2ban.is_some() && watch::fail2ban_runs() {
        troubles.push(
            "fail2ban-server runs, so the jails of its folder stand back here until it has ended: systemctl disable --now fail2ban"
                .to_owned(),
        );
    }
    troubles.extend(config.jails.iter().flat_map(of_jail));
    if !told {
        troubles.extend(of_ledger(&paths.ledger()));
        troubles.extend(of_processes(&processes, paths.lock().parent()));
    }
    if let Some(name) = &args.jail {
        jails.retain(|jail| jail.name == *name);
    }
    let status = Status {
        well: troubles.is_empty(),
        troubles,
        off,
        firewall,
        jails,
        processes,
    };
    if args.list.json {
        json(&status, out)?;
    } else {
        show(&status, args.jail.is_some(), out)?;
    }
    Ok(Outcome::Fine)
}

/// Who may look into neither the kernel nor the state files may still ask: a member of the control group. False: nobody
/// answers him either.
fn answered(paths: &RuntimePaths, jails: &mut [JailStatus], troubles: &mut Vec<String>) -> bool {
    let Ok(Some(told)) = ask::ask_if_allowed(paths, &Request::Status { jail: None }) else {
        return false;
    };
    let said = told.get("troubles").and_then(Value::as_array);
    let said = said.into_iter().flatten().filter_map(Value::as_str);
    troubles.extend(said.map(str::to_owned));
    for seen in told
        .get("jails")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let name = seen.get("name").and_then(Value::as_str);
        if let Some(jail) = jails
            .iter_mut()
            .find(|jail| Some(jail.name.as_str()) == name)
        {
            jail.hits = number(seen, "hits");
            jail.bans = number(seen, "bans");
            jail.not_banned = number(seen, "not_banned");
        }
    }
    match asked_banned(paths) {
        Ok(rows) => {
            for row in rows.unwrap_or_default() {
                if let Some(jail) = jails.iter_mut().find(|jail| jail.name == row.jail) {
                    jail.ips.push(row.ip);
                }
            }
        }
        // The one who answers may not look either.
        Err(error) => troubles.push(error.to_string()),
    }
    true
}

/// Who is banned, and what is wrong with sets and chain.
fn kernel(config: &Config, open: &mut dyn Firewall) -> Result<(Vec<Row>, Vec<String>), ActError> {
    let rows = rows(config, open)?;
    let mut troubles = Vec::new();
    let there = sets(config, open)?;
    let mut absent = Vec::new();
    for set in keeper::wanted(config, &[]) {
        if !there.contains(&set) {
            match open.look(&set) {
                Err(error) => troubles.push(error.to_string()),
                Ok(_) => absent.push(set.name),
            }
        }
    }
    // Where no f2b-pipe has run yet, that is all of them.
    troubles.extend(match absent.as_slice() {
        [] => None,
        [one] => Some(format!("the set {one} is not there")),
        [one, others @ ..] => Some(format!(
            "the set {one} is not there, nor are {} others",
            others.len()
        )),
    });
    // Without any set there is nothing that a rule could look into.
    if !there.is_empty() {
        troubles.extend(chain_troubles(config, open, &there, false, Path::new("")));
    }
    Ok((rows, troubles))
}

/// Jails that only observe, as no process that reads httpd's lines has a format with what they leave clients out by.
fn observe_blind(config: &mut Config, processes: &[Value]) {
    let formats = processes.iter().filter_map(|process| {
        let format = process.get("format")?.as_str()?;
        Format::compile(format).ok()
    });
    let blind = formats.map(|format| {
        let mut jails = config.jails.clone();
        let blind = filter::observe_blind(&mut jails, &format).into_iter();
        blind.map(|(jail, _)| jail).collect::<BTreeSet<_>>()
    });
    let blind = blind.reduce(|all, one| &all & &one).unwrap_or_default();
    for jail in &mut config.jails {
        if jail.mode == Mode::Ban && blind.contains(&jail.name) {
            (jail.mode, jail.blind) = (Mode::Observe, true);
        }
    }
}

/// The jails with what the processes counted; the one for bans by hand, if it bans.
fn jails(config: &Config, processes: &[Value]) -> Vec<JailStatus> {
    let sum = |jail: &str, key: &str| {
        let numbers = processes
            .iter()
            .filter_map(|process| process.get("jails")?.get(jail)?.get(key)?.as_u64());
        numbers.fold(0, u64::saturating_add)
    };
    let off = config.switched_off.iter().map(|name| JailStatus {
        name: name.clone(),
        mode: "off",
        hits: sum(name, "hits"),
        bans: sum(name, "bans"),
        not_banned: sum(name, "not_banned"),
        ..JailStatus::default()
    });
    config
        .jails
        .iter()
        .chain([&config.manual])
        .map(|jail| JailStatus {
            name: jail.name.clone(),
            mode: mode_word(jail.mode),
            hits: sum(&jail.name, "hits"),
            bans: sum(&jail.name, "bans"),
            not_banned: sum(&jail.name, "not_banned"),
            ips: Vec::new(),
            reads: jail.raw.as_deref().map(Reads::of),
        })
        .chain(off)
        .collect()
}

/// The state files of processes that live, by process id.
pub(in crate::cli) fn running(paths: &RuntimePaths) -> Vec<Value> {
    state::running(paths).into_values().collect()
}

/// A number of a state file; one that is not there is 0.
fn number(process: &Value, key: &str) -> u64 {
    process.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// It is `f2b-pipe watch`, and reads nothing of httpd.
fn watches(process: &Value) -> bool {
    process.get("format").and_then(Value::as_str) == Some("watch")
}

/// What it has given up, and what it has left.
fn rights(process: &Value) -> Option<privilege::Report> {
    let report = process.get("privileges")?.clone();
    serde_json::from_value(report).ok()
}

/// What keeps a jail of other logs from its work. A log that is not there yet is waited for.
fn of_jail(jail: &Jail) -> Vec<String> {
    let Some(raw) = jail.raw.as_ref().filter(|raw| !raw.counts_bans) else {
        return Vec::new();
    };
    let name = &jail.name;
    let mut troubles = Vec::new();
    if let Err(error) = Matcher::new(&raw.rules) {
        troubles.push(format!("jail {name} does not run: {error}"));
    }
    let odd = Logs::of(raw).odd.into_iter();
    troubles.extend(odd.map(|(path, what)| {
        let path = path.display();
        format!("jail {name} does not read {path}, which is {what}")
    }));
    troubles
}

/// Does it stand still? What it says is old, then.
fn is_stopped(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // `181 (f2b-pipe) T 1 ...`
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('T' | 't'))
}

/// Ledgers that were broken and set aside, which nobody has looked at yet.
fn of_ledger(ledger: &Path) -> Option<String> {
    let begin = format!("{}.broken-", ledger.file_name()?.to_string_lossy());
    let folder = std::fs::read_dir(ledger.parent()?).ok()?;
    let aside = folder.flatten().map(|entry| entry.file_name());
    let aside = aside.filter(|name| name.to_string_lossy().starts_with(&begin));
    let latest = aside.max()?;
    let (ledger, aside) = (ledger.display(), ledger.with_file_name(latest));
    let aside = aside.display();
    Some(format!(
        "{ledger} was broken, and a new one begun: earlier bans are not known. The old one is {aside} (sqlite3 {aside} .recover); \
         remove it when you have seen this"
    ))
}

/// Why the runtime directory cannot be written to, whoever asks; a `status` by another user knows nothing of that.
fn unusable(folder: &Path) -> Option<Errno> {
    let asked = access(folder, AccessFlags::W_OK).err();
    asked.filter(|errno| *errno != Errno::EACCES)
}

/// What the processes say is wrong; they say it in `folder`.
fn of_processes(processes: &[Value], folder: Option<&Path>) -> Vec<String> {
    let mut troubles = Vec::new();
    let unusable = folder.and_then(|folder| Some((folder, unusable(folder)?)));
    let unusable =
        unusable.filter(|(folder, _)| host::all().iter().any(|one| one.judges_in(folder)));
    if let Some((folder, errno)) = unusable {
        troubles.push(format!(
            "{}: {}, so no running f2b-pipe can be asked or changed, and they do not share counts. Each bans by itself; \
             make it (systemd-tmpfiles --create f2b-pipe.conf), then systemctl restart f2b-pipe and apachectl graceful",
            folder.display(),
            errno.desc()
        ));
    } else if processes.is_empty() {
        troubles.push(
            "no f2b-pipe runs, or it got no line yet, so nothing is counted (f2b-pipe check says what to write)"
                .to_owned(),
        );
    } else if processes.iter().all(watches) && host::httpd(&host::all()).is_some() {
        troubles.push(
            "no f2b-pipe runs under httpd, or it got no line yet, so jails of httpd's lines count nothing (f2b-pipe check says which)"
                .to_owned(),
        );
    }
    // One that stands still may have had no time to write anything.
    let here = host::all().into_iter();
    let here = here.filter(|one| folder.is_some_and(|folder| one.judges_in(folder)));
    let known = processes.iter().map(|process| number(process, "pid"));
    let pids: BTreeSet<u64> = known.chain(here.map(|one| u64::from(one.pid()))).collect();
    for pid in pids.into_iter().filter(|pid| is_stopped(*pid)) {
        troubles.push(format!(
            "process {pid}: is stopped (SIGSTOP, a debugger) and does nothing: kill -CONT {pid}"
        ));
    }
    for process in processes {
        let pid = number(process, "pid");
        // What is over is told of no more, but for what stays: a log with holes.
        let dropped = number(process, "tee_dropped");
        if dropped > 0 {
            troubles.push(format!(
                "process {pid}: {dropped} lines are missing in the log: the disk was full or hung"
            ));
        }
        let own = process.get("troubles").and_then(Value::as_array);
        for trouble in own.into_iter().flatten().filter_map(Value::as_str) {
            troubles.push(format!("process {pid}: {trouble}"));
        }
        let act = process.get("act").and_then(|act| act.get("troubles"));
        for trouble in act.and_then(Value::as_array).into_iter().flatten() {
            if let Some(text) = trouble.as_str() {
                troubles.push(format!("process {pid}: {text}"));
            }
        }
    }
    troubles
}

fn show(status: &Status, one: bool, out: &mut dyn Write) -> std::io::Result<()> {
    if status.well {
        writeln!(out, "All is well.")?;
    } else {
        writeln!(out, "Not well:")?;
        for trouble in &status.troubles {
            writeln!(out, "! {trouble}")?;
        }
    }
    if one {
        for jail in &status.jails {
            show_jail(jail, out)?;
        }
        return Ok(());
    }
    let names: Vec<&str> = status.jails.iter().map(|j| j.name.as_str()).collect();
    writeln!(out, "Status")?;
    writeln!(out, "|- Number of jail:\t{}", names.len())?;
    writeln!(out, "`- Jail list:\t{}", names.join(", "))?;
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    for jail in &status.jails {
        writeln!(
            out,
            "   {:width$}  {:7}  {} banned now, {} hits, {} bans",
            jail.name,
            jail.mode,
            jail.ips.len(),
            jail.hits,
            jail.bans
        )?;
    }
    if let Some(Used { name, look }) = &status.firewall {
        writeln!(out, "Firewall: {name}; the bans of a jail: {look}")?;
    }
    let (fed, others): (Vec<&Value>, Vec<&Value>) =
        status.processes.iter().partition(|process| is_fed(process));
    for process in others {
        show_process(process, out)?;
    }
    match fed.as_slice() {
        [] => Ok(()),
        [one] => show_process(one, out),
        many => {
            writeln!(out, "{} loggers of httpd, counted by watch", many.len())?;
            show_numbers(many, "|-", out)?;
            // Each has a helper of its own; all else is the same, or shown.
            let each = many.iter().filter_map(|process| rights(process));
            let each = each.map(|rights| privilege::Report {
                helper: None,
                ..rights
            });
            let rights: BTreeSet<String> = each.map(|rights| rights.to_string()).collect();
            rights
                .iter()
                .try_for_each(|rights| writeln!(out, "`- rights: {rights}"))
        }
    }
}

/// One that is fed has its hits counted by `watch`.
fn is_fed(process: &Value) -> bool {
    process.get("fed").and_then(Value::as_bool) == Some(true)
}

fn show_process(process: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    let pid = number(process, "pid");
    if watches(process) {
        let runs = process.pointer("/feed/runs").and_then(Value::as_array);
        match runs.map_or(0, Vec::len) {
            0 => writeln!(out, "Process {pid}: watches logs"),
            1 => writeln!(
                out,
                "Process {pid}: watches logs, counts for one logger of httpd"
            ),
            many => writeln!(
                out,
                "Process {pid}: watches logs, counts for {many} loggers of httpd"
            ),
        }?;
        return show_rights(process, out);
    }
    let text = |key| process.get(key).and_then(Value::as_str).unwrap_or("-");
    let (format, tee) = (text("format"), text("tee"));
    let counted = match is_fed(process) {
        true => ", counted by watch",
        false => "",
    };
    writeln!(out, "Process {pid}: format {format}, tee {tee}{counted}")?;
    show_numbers(&[process], "|-", out)?;
    show_rights(process, out)
}

fn show_rights(process: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    let rights = rights(process).map(|rights| rights.to_string());
    let rights = rights.unwrap_or_else(|| "not known".to_owned());
    writeln!(out, "`- rights: {rights}")
}

/// What these processes counted together.
fn show_numbers(processes: &[&Value], branch: &str, out: &mut dyn Write) -> std::io::Result<()> {
    let numbers = [
        ("lines", "lines"),
        ("unparsed", "not of the format"),
        ("doubtful", "not judged, perhaps torn"),
        ("shed", "shed"),
        ("tee_dropped", "not in the log"),
        ("spared", "never banned"),
        ("clients", "clients"),
        ("evicted", "clients forgotten early"),
    ];
    let sum = |key| {
        let each = processes.iter().map(|process| number(process, key));
        each.fold(0, u64::saturating_add)
    };
    let shown: Vec<String> = numbers
        .iter()
        .map(|(key, words)| (sum(key), words))
        .filter(|(n, words)| *n > 0 || **words == "lines")
        .map(|(n, words)| format!("{n} {words}"))
        .collect();
    writeln!(out, "{branch} {}", shown.join(", "))
}

/// fail2ban-client's tree, without the lines that have no meaning here (currently failed; of httpd's lines the file list).
fn show_jail(jail: &JailStatus, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "Status for the jail: {}", jail.name)?;
    writeln!(out, "|- Filter")?;
    writeln!(out, "|  |- Total failed:\t{}", jail.hits)?;
    match &jail.reads {
        None => writeln!(out, "|  `- Mode:\t{}", jail.mode)?,
        Some(reads) => {
            writeln!(out, "|  |- Mode:\t{}", jail.mode)?;
            match &reads.journal {
                Some(matches) => writeln!(out, "|  `- Journal matches:\t{matches}")?,
                None => writeln!(out, "|  `- File list:\t{}", reads.files.join(" "))?,
            }
        }
    }
    writeln!(out, "`- Actions")?;
    writeln!(out, "   |- Currently banned:\t{}", jail.ips.len())?;
    writeln!(out, "   |- Total banned:\t{}", jail.bans)?;
    writeln!(out, "   `- Banned IP list:\t{}", jail.ips.join(" "))
}
