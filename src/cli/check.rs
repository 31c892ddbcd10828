//! `check`: everything that would not work on this host, each with what to write.
//!
//! Nothing is changed and nothing is started but `iptables -S`, `--version` and `timedatectl show`. Each room looks at its
//! own part and adds findings; this file says in which order, and what the exit code is.

mod host;
mod jails;
mod kernel;
pub(super) mod processes;
mod report;
mod weblogs;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use self::report::{Area, Finding, Level, Report};
use super::{CheckArgs, Done, Failure, Outcome};
use crate::config::{self, Config, Loaded, Mode, Origin, Problem, Severity};
use crate::decide::BanFor;
use crate::fail2ban::Broken;
use crate::httpd;

/// `f2b-pipe check`. The shape of `--json`: `conf/man/check.roff`; see [`Jail`], too.
///
/// # Errors
/// The configuration cannot be used, or the output cannot be written.
pub fn check(args: &CheckArgs, out: &mut dyn Write) -> Done {
    let path = &args.place.config;
    let loaded = config::load_with(path, args.config_dir.as_deref());
    let config = &loaded.config;
    let mut report = Report::default();
    let usable = configuration(&loaded, args, &mut report);
    let processes = processes::all();
    jails::look(config, &processes, &mut report);
    let needed =
        processes::httpd(&processes).is_some() || config.jails.len() == config.native().len();
    let piped = web(args, config, needed, &mut report);
    kernel::look(config, &processes, &mut report);
    host::look(
        config,
        &processes,
        piped,
        &args.place.runtime_dir,
        &mut report,
    );

    if args.json {
        let shown = Shown {
            jails: config.jails.iter().map(Jail::new).collect(),
            broken: config.broken.iter().map(NotRunning::of).collect(),
            files: &config.fail2ban_files,
            findings: &report.0,
        };
        let text = serde_json::to_string(&shown).map_err(std::io::Error::from)?;
        writeln!(out, "{text}")?;
    } else {
        report.show(out, super::colour())?;
    }
    if !usable {
        let text = format!(
            "{}, or a file in conf.d beside it, has mistakes; what to write stands above, and until then that is left out",
            path.display()
        );
        return Err(Failure::Usage(text));
    }
    Ok(if report.count(Level::Fail) == 0 {
        Outcome::Fine
    } else {
        Outcome::NotSo
    })
}

/// Every problem of the configuration; false: something of it is left out.
fn configuration(loaded: &Loaded, args: &CheckArgs, report: &mut Report) -> bool {
    let mut usable = true;
    let config = &loaded.config;
    let is_told = |problem: &Problem| config.broken.iter().any(|jail| jail.problem == *problem);
    for problem in loaded.problems.iter().filter(|problem| !is_told(problem)) {
        let area = match config.is_fail2bans(problem) {
            true => Area::Jails,
            false => Area::Configuration,
        };
        match problem.severity {
            Severity::Error => {
                usable &= area == Area::Jails;
                report.fail(area, "", problem.to_string(), "");
            }
            Severity::Warning => report.warn(area, "", problem.to_string(), ""),
            Severity::Note => report.ok(area, "", problem.to_string()),
        }
    }
    let place = args.place.config.display();
    match config.path {
        Some(_) => report.ok(Area::Configuration, place, "is read"),
        None => report.ok(
            Area::Configuration,
            place,
            "is not there; the shipped configuration runs",
        ),
    }
    let names = |mode| {
        let jails = config.native().iter().filter(|jail| jail.mode == mode);
        let names: Vec<&str> = jails.map(|jail| jail.name.as_str()).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    report.ok(
        Area::Configuration,
        "",
        format!("jails that ban: {}", names(Mode::Ban)),
    );
    report.ok(
        Area::Configuration,
        "",
        format!("jails that only count: {}", names(Mode::Observe)),
    );
    usable
}

/// httpd's own configuration; true: it pipes to us. `needed`: if it does not, nothing works, or an httpd runs unguarded.
fn web(args: &CheckArgs, config: &Config, needed: bool, report: &mut Report) -> bool {
    let Some(main) = args.httpd_conf.clone().or_else(httpd::find) else {
        report.warn(
            Area::Httpd,
            "",
            "no httpd found: neither /etc/apache2/apache2.conf nor /etc/httpd/conf/httpd.conf",
            "f2b-pipe check --httpd-conf FILE, if it is elsewhere",
        );
        return false;
    };
    match httpd::read(&main) {
        Ok(httpd) => {
            weblogs::look(&httpd, config, &args.place, needed, report);
            httpd.logs.iter().any(httpd::Log::is_ours)
        }
        Err(error) => {
            report.fail(
                Area::Httpd,
                main.display(),
                format!("cannot be read: {error}"),
                "f2b-pipe check --httpd-conf FILE, with httpd's main file",
            );
            false
        }
    }
}

/// `--json`.
#[derive(Serialize)]
struct Shown<'a> {
    jails: Vec<Jail<'a>>,
    /// Jails of fail2ban's folder that cannot run.
    broken: Vec<NotRunning<'a>>,
    /// Files of fail2ban's folder that were read.
    files: &'a [PathBuf],
    findings: &'a [Finding],
}

/// A jail that cannot run.
#[derive(Serialize)]
struct NotRunning<'a> {
    jail: &'a str,
    /// Where, and what to write.
    problem: String,
}

impl<'a> NotRunning<'a> {
    fn of(broken: &'a Broken) -> Self {
        Self {
            jail: &broken.jail,
            problem: broken.problem.to_string(),
        }
    }
}

/// One enabled jail.
#[derive(Serialize)]
struct Jail<'a> {
    name: &'a str,
    /// Who wrote it.
    origin: &'static str,
    /// The filter without its options; `None`: conditions on httpd's lines, or expressions only.
    filter: Option<&'a str>,
    /// How many there are once all is resolved.
    failregex: usize,
    /// As configured: globs, without ` head` and ` tail`.
    logpath: Vec<&'a str>,
    maxretry: u32,
    findtime: Seconds,
    /// -1: for ever.
    bantime: Seconds,
    /// As written, split at commas and blanks.
    port: Vec<&'a str>,
}

/// Seconds; a whole number of them without a point.
#[derive(Serialize)]
#[serde(untagged)]
enum Seconds {
    Whole(i64),
    Parts(f64),
}

impl From<f64> for Seconds {
    fn from(secs: f64) -> Self {
        match Duration::try_from_secs_f64(secs) {
            Ok(time) if time.subsec_nanos() == 0 => {
                i64::try_from(time.as_secs()).map_or(Self::Parts(secs), Self::Whole)
            }
            _ => Self::Parts(secs),
        }
    }
}

impl<'a> Jail<'a> {
    fn new(jail: &'a config::Jail) -> Self {
        let mut shown = Self {
            name: &jail.name,
            origin: "f2b-pipe",
            filter: None,
            failregex: 0,
            logpath: Vec::new(),
            maxretry: jail.maxretry,
            findtime: jail.findtime.as_secs_f64().into(),
            bantime: match jail.bantime {
                BanFor::Timed(secs) => Seconds::Whole(secs.get().into()),
                BanFor::Forever => Seconds::Whole(-1),
            },
            port: jail.ports.written(),
        };
        if let Some(raw) = &jail.raw {
            if raw.origin == Origin::Fail2ban {
                shown.origin = "fail2ban";
            }
            shown.filter = raw.filter.as_deref();
            shown.failregex = raw.rules.failregex.len();
            shown.logpath = raw.logs.iter().map(|log| log.glob.as_str()).collect();
            shown.findtime = raw.terms.rule.findtime.into();
            shown.bantime = raw.terms.bantime.map_or(Seconds::Whole(-1), Seconds::from);
            shown.port = raw.ports.iter().map(String::as_str).collect();
        }
        shown
    }
}
