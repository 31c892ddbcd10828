//! Jails that judge other logs: what each came to, what keeps it from working, and every file of fail2ban's that was read.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::processes::Process;
use super::report::{Area, Report};
use crate::cli::logs::Logs;
use crate::config::suggest::nearest;
use crate::config::{
    Blocktype, Conditions, Config, Jail, LineSource, Mode, Origin, Ports, Raw, Rule,
};
use crate::count::keyed::Way;
use crate::failregex::Matcher;
use crate::source::journal;

const AREA: Area = Area::Jails;
/// Logs of one jail that are named.
const LOGS_SHOWN: usize = 3;
/// Where lists of names are broken, columns.
const COLUMNS: usize = 100;

/// All of them.
pub(super) fn look(config: &Config, processes: &[Process], report: &mut Report) {
    for broken in &config.broken {
        report.fail(
            AREA,
            &broken.jail,
            format!("cannot run: {}", broken.problem),
            "",
        );
    }
    config
        .native()
        .iter()
        .for_each(|jail| unasked(jail, report));
    let raws = config
        .jails
        .iter()
        .filter_map(|jail| Some((jail, jail.raw.as_deref()?)));
    let mut many = 0;
    let mut stopped = Vec::new();
    for (jail, raw) in raws {
        many += 1;
        if !one(config, jail, raw, report) {
            stopped.push(jail.name.as_str());
        }
    }
    if let (Some(dir), [_, ..]) = (&config.fail2ban, config.fail2ban_files.as_slice()) {
        let many = config
            .jails
            .iter()
            .filter(|jail| is_fail2bans(jail) && !stopped.contains(&jail.name.as_str()))
            .count();
        let text = format!(
            "{many} of its jails {} here, and {} of its files were read:{}",
            if many == 1 { "runs" } else { "run" },
            config.fail2ban_files.len(),
            folded(dir, &config.fail2ban_files)
        );
        report.ok(AREA, dir.display(), text);
    }
    let own = std::process::id();
    let runs = |process: &Process| process.name == "f2b-pipe" && process.pid != own;
    if many > 0 && !processes.iter().any(runs) {
        report.warn(
            AREA,
            "",
            "no f2b-pipe runs, so nobody reads these logs",
            "systemctl enable --now f2b-pipe (or, without systemd: f2b-pipe watch)",
        );
    }
}

/// One of httpd's lines that asks for nothing counts every request of everybody, as one does whose name was meant to be that
/// of a shipped jail.
fn unasked(jail: &Jail, report: &mut Report) {
    let Rule { all, any, .. } = &jail.rule;
    let nothing = Conditions::default();
    if jail.mode == Mode::Observe || *all != nothing || *any != nothing {
        return;
    }
    let shipped = Config::default();
    let names: Vec<&str> = shipped
        .jails
        .iter()
        .map(|jail| jail.name.as_str())
        .collect();
    if names.contains(&jail.name.as_str()) {
        return;
    }
    let remedy = match nearest(&jail.name, &names) {
        Some(name) => format!("write status, vhost, path ...; or [jail.{name}], if that was meant"),
        None => "write status, vhost, path ... (README, \"Your own jail\")".to_owned(),
    };
    report.warn(
        Area::Configuration,
        &jail.name,
        format!(
            "has no condition, so every request counts, of every visitor: {} within {:?} are a ban",
            jail.maxretry, jail.findtime
        ),
        remedy,
    );
}

/// A jail of fail2ban's folder.
pub(super) fn is_fail2bans(jail: &Jail) -> bool {
    jail.raw
        .as_ref()
        .is_some_and(|raw| raw.origin == Origin::Fail2ban)
}

/// One that can be read; false: it cannot run all the same.
fn one(config: &Config, jail: &Jail, raw: &Raw, report: &mut Report) -> bool {
    // What counts bans has no expressions that are looked for.
    if !raw.counts_bans
        && let Err(error) = Matcher::new(&raw.rules)
    {
        report.fail(
            AREA,
            &jail.name,
            format!("cannot run: {}: {error}", jail.written),
            "",
        );
        return false;
    }
    let logs = Logs::of(raw);
    let mut lines = vec![
        expressions(raw),
        format!("written  {}", jail.written),
        format!("reads    {}", sources(raw, &logs)),
        format!("bans     {}", terms(jail, raw)),
        format!(
            "closes   {}",
            closes(jail, raw, &config.firewall.set_prefix)
        ),
    ];
    let (python, commands): (Vec<_>, Vec<_>) =
        raw.run().partition(|action| action.python.is_some());
    let names = |actions: &[&crate::fail2ban::Action]| {
        let names: Vec<&str> = actions.iter().map(|action| action.name.as_str()).collect();
        names.join(", ")
    };
    if !commands.is_empty() {
        lines.push(format!("runs     {}", names(&commands)));
    }
    if !python.is_empty() {
        lines.push(format!("runs     {} (by python3)", names(&python)));
    }
    if raw.ignorecommand.is_some() {
        lines.push("asks     ignorecommand, before a failure counts".to_owned());
    }
    if !jail.ignoreip_names.is_empty() {
        lines.push(format!(
            "spares   the addresses of {} (asked every five minutes)",
            jail.ignoreip_names.join(", ")
        ));
    }
    report.ok(AREA, &jail.name, lines.join("\n"));

    for (path, what) in &logs.odd {
        report.warn(
            AREA,
            &jail.written,
            format!(
                "jail {}: logpath: {} is {what}, and lines are read from files only",
                jail.name,
                path.display()
            ),
            "logpath = the file in which the lines stand",
        );
    }
    let to_journal = match raw.origin {
        _ if !journal::available() => "",
        Origin::Own => ", or logpath = \"journal\"",
        Origin::Fail2ban => ", or backend = systemd",
    };
    // An empty logpath, and what is no file, was told already.
    let was_told = raw.logs.is_empty() || (!logs.odd.is_empty() && logs.waits_for.is_empty());
    if logs.journal.is_some() && !journal::available() {
        report.warn(
            AREA,
            &jail.written,
            format!("jail {}: there is no journal on this host", jail.name),
            "logpath = the file in which the lines stand",
        );
    } else if !raw.counts_bans && !was_told && logs.files.is_empty() && logs.journal.is_none() {
        let journal = match (raw.journalmatch.is_empty(), journal::available()) {
            (_, false) => "there is no journal",
            (true, true) => "its filter does not say what of the journal is meant",
            (false, true) => "it reads no journal",
        };
        report.warn(
            AREA,
            &jail.written,
            format!(
                "jail {} has nothing to read yet: no file fits its logpath, and {journal}",
                jail.name
            ),
            format!("logpath = the file in which the lines stand{to_journal}"),
        );
    }
    true
}

fn expressions(raw: &Raw) -> String {
    if raw.counts_bans {
        return "counts bans by the other jails".to_owned();
    }
    let mut text = match &raw.filter {
        None => "no filter".to_owned(),
        Some(name) if raw.options.is_empty() => format!("filter {name}"),
        Some(name) => {
            let options: Vec<String> = raw
                .options
                .iter()
                .map(|(key, value)| format!("{key}={}", value.escape_debug()))
                .collect();
            format!("filter {name}[{}]", options.join(", "))
        }
    };
    let rules = &raw.rules;
    text.push_str(&format!(", {} failregex", rules.failregex.len()));
    if !rules.ignoreregex.is_empty() {
        text.push_str(&format!(", {} ignoreregex", rules.ignoreregex.len()));
    }
    if rules.prefregex.is_some() {
        text.push_str(", prefregex");
    }
    if !rules.datepattern.is_empty() {
        text.push_str(", datepattern");
    }
    if rules.maxlines > 1 {
        text.push_str(&format!(", {} lines at once", rules.maxlines));
    }
    text
}

fn sources(raw: &Raw, logs: &Logs) -> String {
    if raw.counts_bans {
        return "no log".to_owned();
    }
    let mut parts = Vec::new();
    if !logs.files.is_empty() {
        let shown = logs
            .files
            .iter()
            .take(LOGS_SHOWN)
            .map(|path| path.display().to_string());
        let mut text = shown.collect::<Vec<_>>().join(", ");
        if logs.files.len() > LOGS_SHOWN {
            text.push_str(&format!(" and {} more", logs.files.len() - LOGS_SHOWN));
        }
        parts.push(text);
    }
    match &logs.journal {
        Some(all) if all.is_empty() => parts.push("the whole journal".to_owned()),
        Some(matches) => parts.push(format!("the journal: {matches}")),
        None => {}
    }
    if !logs.waits_for.is_empty() {
        parts.push(format!("waits for {}", logs.waits_for.join(", ")));
    }
    if raw.backend == LineSource::Polling {
        parts.push("looked at every second".to_owned());
    }
    match parts.as_slice() {
        [] => "nothing".to_owned(),
        parts => parts.join("; "),
    }
}

fn terms(jail: &Jail, raw: &Raw) -> String {
    let terms = &raw.terms;
    let counted = match terms.rule.way {
        Way::Window => "",
        Way::Estimate => " as fail2ban counts",
    };
    let long = match terms.bantime {
        Some(secs) => format!("for {}", span(secs)),
        None => "for ever".to_owned(),
    };
    let longer = match terms.increment {
        Some(_) => ", longer each time",
        None => "",
    };
    let observes = match jail.mode {
        Mode::Ban => "",
        Mode::Observe => "nobody (mode observe): ",
    };
    format!(
        "{observes}after {} within {}{counted}, {long}{longer}",
        jail.maxretry,
        span(terms.rule.findtime)
    )
}

fn closes(jail: &Jail, raw: &Raw, prefix: &str) -> String {
    if !raw.in_kernel {
        return "nothing: none of its actions is one of a packet filter, so no set of ours is filled"
            .to_owned();
    }
    let protocols: Vec<&str> = jail.protocols.iter().map(|p| p.name()).collect();
    let ports = match &jail.ports {
        Ports::All => "all ports".to_owned(),
        ports @ Ports::These(_) => format!("port {}", ports.written().join(",")),
    };
    let protocols = match (&jail.ports, protocols.as_slice()) {
        (Ports::All, []) => String::new(),
        (Ports::These(_), []) => " of tcp".to_owned(),
        (_, protocols) => format!(" of {}", protocols.join(", ")),
    };
    let how = match jail.blocktype {
        Blocktype::Drop => "drop",
        Blocktype::Reject => "reject",
    };
    format!(
        "{ports}{protocols}, {how}; sets {prefix}{0}, {prefix}{0}6",
        jail.sets
    )
}

/// `10m`, `36h`, `90s`: the largest unit of which it is a whole number.
fn span(secs: f64) -> String {
    let units = [
        (604_800.0, "w"),
        (86_400.0, "d"),
        (3_600.0, "h"),
        (60.0, "m"),
    ];
    let fits = |(size, _): &&(f64, &str)| secs >= *size && secs % size == 0.0;
    match units.iter().find(fits) {
        Some((size, unit)) => format!("{}{unit}", secs / size),
        None => format!("{secs}s"),
    }
}

/// Names by folder, in lines of bounded length: `jail.conf jail.d/x.conf`, `filter.d: sshd.conf ...`.
fn folded(dir: &Path, files: &[PathBuf]) -> String {
    let mut folders: BTreeMap<&Path, Vec<String>> = BTreeMap::new();
    for file in files {
        let inside = file.strip_prefix(dir).unwrap_or(file);
        let folder = inside.parent().unwrap_or(Path::new(""));
        let name = inside.file_name().unwrap_or(OsStr::new("?"));
        folders
            .entry(folder)
            .or_default()
            .push(name.to_string_lossy().into_owned());
    }
    let mut text = String::new();
    for (folder, names) in folders {
        let mut line = match folder.as_os_str().is_empty() {
            true => String::new(),
            false => format!("{}: ", folder.display()),
        };
        for name in names {
            if line.len() + name.len() > COLUMNS {
                text.push_str(&format!("\n{}", line.trim_end()));
                line = "  ".to_owned();
            }
            line.push_str(&name);
            line.push(' ');
        }
        text.push_str(&format!("\n{}", line.trim_end()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_people_write_them() {
        for (secs, text) in [
            (600.0, "10m"),
            (1.0, "1s"),
            (129_600.0, "36h"),
            (604_800.0, "1w"),
            (0.5, "0.5s"),
        ] {
            assert_eq!(span(secs), text);
        }
    }

    #[test]
    fn files_are_named_by_their_folders() {
        let dir = Path::new("/etc/fail2ban");
        let mut files = vec![
            dir.join("jail.conf"),
            dir.join("filter.d/a.conf"),
            "/else/b.conf".into(),
        ];
        files.extend((0..12).map(|n| dir.join(format!("filter.d/a-long-name-{n}.conf"))));
        let text = folded(dir, &files);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["", "jail.conf"]);
        assert!(lines.contains(&"/else: b.conf"));
        assert!(
            lines[2].starts_with("/else")
                && lines[3].starts_with("filter.d: a.conf a-long-name-0.conf")
        );
        assert!(lines.iter().all(|line| line.len() <= COLUMNS) && lines[4].starts_with("  a-long"));
    }
}
