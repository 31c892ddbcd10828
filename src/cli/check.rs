//! `check`: everything that would not work on this host, each with what to write.
//!
//! Nothing is changed and nothing is started but `iptables -S`, `--version` and `timedatectl show`. Each room looks at its
//! own part and adds findings; this file says in which order, and what the exit code is.

mod host;
mod kernel;
mod processes;
mod report;
mod weblogs;

use std::io::{IsTerminal, Write};

use serde::Serialize;

use self::report::{Area, Finding, Level, Report};
use super::{CheckArgs, Done, Failure, Outcome};
use crate::config::{self, Config, Loaded, Mode, Severity};
use crate::decide::BanFor;
use crate::httpd;

/// `f2b-pipe check`.
///
/// # Errors
/// The configuration cannot be used, or the output cannot be written.
pub fn check(args: &CheckArgs, out: &mut dyn Write) -> Done {
    let path = &args.place.config;
    let loaded = config::load(path);
    let config = &loaded.config;
    let mut report = Report::default();
    let usable = configuration(&loaded, args, &mut report);
    let processes = processes::all();
    let piped = web(args, config, &mut report);
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
            findings: &report.0,
        };
        let text = serde_json::to_string(&shown).map_err(std::io::Error::from)?;
        writeln!(out, "{text}")?;
    } else {
        report.show(out, std::io::stdout().is_terminal())?;
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
    for problem in &loaded.problems {
        match problem.severity {
            Severity::Error => {
                usable = false;
                report.fail(Area::Configuration, "", problem.to_string(), "");
            }
            Severity::Warning => report.warn(Area::Configuration, "", problem.to_string(), ""),
        }
    }
    let config = &loaded.config;
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
        let jails = config.jails.iter().filter(|jail| jail.mode == mode);
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

/// httpd's own configuration; true: it pipes to us.
fn web(args: &CheckArgs, config: &Config, report: &mut Report) -> bool {
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
            weblogs::look(&httpd, config, &args.place.config, report);
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
    findings: &'a [Finding],
}

/// One enabled jail.
#[derive(Serialize)]
struct Jail<'a> {
    name: &'a str,
    origin: &'static str,
    filter: Option<&'a str>,
    failregex: usize,
    logpath: [&'a str; 0],
    maxretry: u32,
    findtime: Seconds,
    bantime: i64,
    port: Vec<&'a str>,
}

/// Seconds; a whole number of them without a point.
#[derive(Serialize)]
#[serde(untagged)]
enum Seconds {
    Whole(u64),
    Parts(f64),
}

impl<'a> Jail<'a> {
    /// A native jail: its lines come from httpd, and its rule is no failregex.
    fn new(jail: &'a config::Jail) -> Self {
        let findtime = jail.findtime;
        Self {
            name: &jail.name,
            origin: "f2b-pipe",
            filter: None,
            failregex: 0,
            logpath: [],
            maxretry: jail.maxretry,
            findtime: if findtime.subsec_nanos() == 0 {
                Seconds::Whole(findtime.as_secs())
            } else {
                Seconds::Parts(findtime.as_secs_f64())
            },
            bantime: match jail.bantime {
                BanFor::Timed(seconds) => i64::from(seconds.get()),
                BanFor::Forever => -1,
            },
            port: jail.ports.written(),
        }
    }
}
