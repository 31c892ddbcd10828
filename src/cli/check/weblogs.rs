//! Does httpd give us its lines, all of them, once each, and in a format that can be trusted; and does somebody still
//! write the access log.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::report::{Area, Report};
use crate::cli::{RunArgs, WhereArgs};
use crate::config::{Config, Field, Jail, Ports, RuntimePaths};
use crate::feed;
use crate::filter;
use crate::httpd::{self, Httpd, Kind, Log, Ours, Target, Unread};
use crate::parse::format::{F2B, NICKNAMES};
use crate::parse::{Access, Format};

const AREA: Area = Area::Httpd;

/// A directive that pipes to us, and the flags it gives.
struct Pipe<'a> {
    log: &'a Log,
    args: RunArgs,
}

/// All of it. `needed`: without a pipe something does not work.
pub(super) fn look(
    httpd: &Httpd,
    config: &Config,
    place: &WhereArgs,
    needed: bool,
    report: &mut Report,
) {
    unread(httpd, report);
    let pipes = pipes(httpd, report);
    let access: Vec<&Pipe<'_>> = pipes.iter().filter(|p| p.log.kind != Kind::Error).collect();
    let reaches_us = |log: &Log| log.kind != Kind::Error && log.is_ours();
    if !httpd.logs.iter().any(reaches_us) {
        let text = "no GlobalLog or CustomLog is piped to f2b-pipe, so it sees no request";
        if needed {
            report.fail(AREA, httpd.main.display(), text, recommended(httpd));
        } else {
            report.warn(AREA, httpd.main.display(), text, recommended(httpd));
        }
    }
    for pipe in &pipes {
        command(pipe, &place.config, report);
        match pipe.log.kind {
            Kind::Error => error_log(pipe, report),
            Kind::Custom | Kind::Global => format(pipe, httpd, config, report),
        }
    }
    if !access.is_empty() {
        who_gets_what(httpd, &access, report);
        doubled(httpd, &access, report);
        apart(&access, place, report);
        switches(httpd, &access, config, report);
    }
    ports(httpd, config, report);
}

/// The directives that we recommend, for the httpd that is installed.
fn recommended(httpd: &Httpd) -> String {
    let debian = httpd.main.ends_with("apache2/apache2.conf");
    let (file, then) = if debian {
        (
            "/etc/apache2/conf-available/f2b-pipe.conf",
            "a2enconf f2b-pipe && apache2ctl configtest && apache2ctl graceful",
        )
    } else {
        (
            "/etc/httpd/conf.d/f2b-pipe.conf",
            "apachectl configtest && apachectl graceful",
        )
    };
    format!(
        "httpd-snippets/install does it, or by hand: in {file}, outside any <VirtualHost>:\n{}\nthen: {then}",
        lines_to_paste()
    )
}

fn lines_to_paste() -> String {
    let format = F2B.replace('"', "\\\"");
    format!(
        "LogFormat \"{format}\" f2b\nGlobalLog \"|/usr/bin/f2b-pipe --format f2b\" f2b\n\
         (GlobalLog needs httpd 2.4.19; for older ones see httpd-snippets/)"
    )
}

fn unread(httpd: &Httpd, report: &mut Report) {
    for unread in &httpd.unread {
        match unread {
            Unread::File(place, file, error) => report.warn(
                AREA,
                place,
                format!("{} is included and cannot be read ({error}); what it says about logs is not known here", file.display()),
                "run check as root; apachectl configtest says whether httpd can read it",
            ),
            Unread::Macro(place, name) => report.warn(
                AREA,
                place,
                format!("the macro {name} is not looked into; log directives in it are not known here"),
                "",
            ),
        }
    }
}

fn pipes<'a>(httpd: &'a Httpd, report: &mut Report) -> Vec<Pipe<'a>> {
    let mut found = Vec::new();
    for log in &httpd.logs {
        let Target::Piped(command) = &log.target else {
            continue;
        };
        match command.ours() {
            None => {}
            Some(Ours::Run(args)) => found.push(Pipe { log, args: *args }),
            Some(Ours::Unusable(why)) => report.fail(
                AREA,
                &log.place,
                format!("f2b-pipe would not understand its flags and would judge no line: {why}"),
                "see f2b-pipe run --help; in a directive in \"...\", quotes inside are written \\\"",
            ),
        }
    }
    found
}

/// Can httpd start it, and does it run with the configuration that is checked here?
fn command(pipe: &Pipe<'_>, path: &Path, report: &mut Report) {
    let place = &pipe.log.place;
    let Target::Piped(command) = &pipe.log.target else {
        return;
    };
    if command.shell {
        report.warn(
            AREA,
            place,
            "|$ puts a shell between httpd and f2b-pipe: a second process, and httpd's signals reach only the shell",
            "write | without the $, and quote as in httpd.conf; nothing here needs a shell",
        );
    }
    let program = Path::new(command.program());
    if !program.is_absolute() {
        report.fail(
            AREA,
            place,
            format!(
                "httpd does not search PATH: \"|{}\" keeps it from starting",
                program.display()
            ),
            "write \"|/usr/bin/f2b-pipe ...\"",
        );
    } else {
        match fs::metadata(program) {
            Err(error) => report.fail(
                AREA,
                place,
                format!(
                    "{}: {error}; httpd will not start with it (AH00104)",
                    program.display()
                ),
                "install the program there before the next restart of httpd, or take the line out",
            ),
            Ok(found) if !found.is_file() || found.permissions().mode() & 0o111 == 0 => report
                .fail(
                    AREA,
                    place,
                    format!(
                        "{} is no executable file; httpd will not start with it (AH00104)",
                        program.display()
                    ),
                    format!("chmod 755 {}", program.display()),
                ),
            Ok(_) => {}
        }
    }
    if pipe.args.place.config != path {
        report.warn(
            AREA,
            place,
            format!(
                "it runs with another configuration, {}",
                pipe.args.place.config.display()
            ),
            format!(
                "f2b-pipe check --config {}",
                pipe.args.place.config.display()
            ),
        );
    }
    if let Some(tee) = &pipe.args.tee {
        tee_path(place, tee, report);
    }
}

fn tee_path(place: &httpd::Place, tee: &Path, report: &mut Report) {
    if !tee.is_absolute() {
        report.warn(
            AREA,
            place,
            format!("--tee {} is relative to httpd's ServerRoot", tee.display()),
            "write the whole path",
        );
        return;
    }
    let directory = tee.parent().unwrap_or(Path::new("/"));
    if !directory.is_dir() {
        report.fail(
            AREA,
            place,
            format!(
                "the directory of --tee {} is missing: no access log is written",
                tee.display()
            ),
            format!("mkdir -p {}", directory.display()),
        );
    } else if tee.is_dir() {
        report.fail(
            AREA,
            place,
            format!("--tee {} is a directory", tee.display()),
            "name a file in it",
        );
    }
}

fn error_log(pipe: &Pipe<'_>, report: &mut Report) {
    let place = &pipe.log.place;
    if !pipe.args.error_log {
        report.fail(
            AREA,
            place,
            "ErrorLog lines are not access lines",
            "add --error-log to this command",
        );
    }
    if pipe.args.tee.is_none() {
        report.fail(
            AREA,
            place,
            "the error log is written nowhere: ErrorLog has no second place to go",
            "add --tee with the file, such as --tee /var/log/apache2/error.log",
        );
    }
    report.warn(
        AREA,
        place,
        "with a piped ErrorLog a stop of httpd may take three seconds, and what f2b-pipe itself says goes into that log",
        "",
    );
}

/// Will the lines be understood, by what is sent and what is expected, and can they be trusted?
fn format(pipe: &Pipe<'_>, httpd: &Httpd, config: &Config, report: &mut Report) {
    let place = &pipe.log.place;
    if pipe.args.error_log {
        report.fail(
            AREA,
            place,
            "these are access lines",
            "take --error-log out of this command",
        );
        return;
    }
    lookups(pipe, httpd, config, report);
    let asked = match Format::compile(&pipe.args.format) {
        Ok(asked) => asked,
        Err(error) => {
            report.fail(AREA, place, format!("--format: {error}"), "");
            return;
        }
    };
    let sent = match Format::compile(&pipe.log.format) {
        Ok(sent) => sent,
        Err(error) => {
            let sent = &pipe.log.format;
            report.fail(
                AREA,
                place,
                format!("nobody can be banned by the lines httpd writes here ({sent}): {error}"),
                "",
            );
            return;
        }
    };
    let line = httpd::sample(&pipe.log.format);
    if !reads_alike(&asked, &sent, &line) {
        report.fail(
            AREA,
            place,
            format!("httpd writes lines such as\n{line}\nwhich --format {} does not fit: no line would count", shown(&pipe.args.format)),
            format!("write --format {}", quoted(&pipe.log.format)),
        );
        return;
    }
    if sent.is_sealed() {
        report.ok(
            AREA,
            place,
            "its lines are understood, and a torn one is told from a whole one",
        );
    } else {
        report.warn(
            AREA,
            place,
            format!(
                "the format {} is understood, but cannot show whether a line is whole: lines over 4096 bytes can arrive torn when \
                 the pipe is full, so after each such moment two seconds of lines are not judged",
                shown(&pipe.args.format)
            ),
            format!("the remedy, beside your unchanged CustomLog:\n{}", lines_to_paste()),
        );
    }
    missing_fields(place, &sent, config, report);
}

fn reads_alike(asked: &Format, sent: &Format, line: &str) -> bool {
    const TEXTS: [Field; 8] = [
        Field::Method,
        Field::Path,
        Field::Query,
        Field::Request,
        Field::Agent,
        Field::Referer,
        Field::User,
        Field::Vhost,
    ];
    let (mut a, mut b) = (Access::default(), Access::default());
    let line = line.as_bytes();
    if asked.read(line, &mut a).is_err() || sent.read(line, &mut b).is_err() {
        return false;
    }
    (a.client, a.peer, a.status) == (b.client, b.peer, b.status)
        && TEXTS.iter().all(|field| a.text(*field) == b.text(*field))
}

/// A format for people: its name if it has one.
fn shown(format: &str) -> &str {
    NICKNAMES
        .iter()
        .find(|(_, text)| *text == format)
        .map_or(format, |(name, _)| name)
}

/// A format as it has to stand within a directive's own double quotes.
fn quoted(format: &str) -> String {
    match shown(format) {
        name if name != format => name.to_owned(),
        format => format!("'{}'", format.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

/// Conditions on what the lines do not carry never hold.
fn missing_fields(place: &httpd::Place, format: &Format, config: &Config, report: &mut Report) {
    let mut lacking: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (jail, field) in filter::unmeetable(&config.jails, format) {
        lacking.entry(field).or_default().push(jail);
    }
    let mut blind: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (jail, field) in filter::observe_blind(&mut config.jails.clone(), format) {
        blind.entry(field).or_default().push(jail);
    }
    for (field, jails) in blind {
        report.warn(
            AREA,
            place,
            format!(
                "the format has no {field}, by which {} leaves clients out; it bans nobody without",
                jails.join(", ")
            ),
            "add it to the LogFormat (and to --format), or use f2b, which has it",
        );
    }
    for (field, jails) in lacking {
        report.warn(
            AREA,
            place,
            format!(
                "the format has no {field}, without which no line counts in {}",
                jails.join(", ")
            ),
            "add it to the LogFormat (and to --format), or use f2b, which has it",
        );
    }
}

/// Directives whose meaning other directives change.
fn lookups(pipe: &Pipe<'_>, httpd: &Httpd, config: &Config, report: &mut Report) {
    let switches = &httpd.switches;
    let has = |directive: &str| pipe.log.format.contains(directive);
    if let (true, Some(place)) = (has("%h"), &switches.hostname_lookups) {
        report.fail(
            AREA,
            place,
            format!("HostnameLookups puts host names where %h stands (the format of {}); a client whose own DNS says 6.6.6.6 is 6.6.6.6 there", pipe.log.place),
            "write %a instead of %h in that LogFormat, or HostnameLookups Off",
        );
    }
    if let (true, Some(place)) = (has("%l"), &switches.identity_check) {
        report.fail(
            AREA,
            place,
            format!("IdentityCheck lets the client's own machine choose what stands at %l (the format of {})", pipe.log.place),
            "IdentityCheck Off, or take %l out of that LogFormat",
        );
    }
    let by_vhost = config.jails.iter().any(|jail| {
        let fields = jail.rule.all.text.iter().chain(&jail.rule.not.text);
        fields
            .map(|(field, _)| *field)
            .any(|field| field == Field::Vhost)
    });
    if by_vhost && has("%V") && switches.canonical_name.is_none() {
        report.warn(
            AREA,
            &pipe.log.place,
            "%V is the Host header that the client sends, and a jail decides by vhost",
            "write %v in that LogFormat, or UseCanonicalName On",
        );
    }
}

/// Is there a server whose lines nobody writes down, or that we never see?
fn who_gets_what(httpd: &Httpd, pipes: &[&Pipe<'_>], report: &mut Report) {
    let mut lost: BTreeSet<&str> = BTreeSet::new();
    let mut unseen: BTreeSet<&str> = BTreeSet::new();
    for (index, server) in httpd.servers.iter().enumerate() {
        let logs = httpd.access_logs(index);
        let ours = |log: &Log| pipes.iter().find(|pipe| std::ptr::eq(pipe.log, log));
        let writes = |log: &&Log| {
            log.only_if.is_none() && ours(log).is_none_or(|pipe| pipe.args.tee.is_some())
        };
        if !logs.iter().any(|log| ours(log).is_some()) {
            unseen.insert(&server.name);
        } else if !logs.iter().any(writes) {
            lost.insert(&server.name);
        }
    }
    let names = |set: &BTreeSet<&str>| set.iter().copied().collect::<Vec<_>>().join(", ");
    let place = pipes
        .first()
        .map_or_else(String::new, |pipe| pipe.log.place.to_string());
    if !lost.is_empty() {
        report.fail(
            AREA,
            &place,
            format!("the access log of {} is written by nobody: it has no CustomLog with a file, and f2b-pipe has no --tee", names(&lost)),
            "keep (or add) a plain CustomLog beside it, or add --tee /var/log/.../access.log to this command",
        );
    }
    if !unseen.is_empty() {
        report.warn(
            AREA,
            &place,
            format!(
                "requests for {} never reach f2b-pipe: none of their logs leads to it",
                names(&unseen)
            ),
            format!("one GlobalLog gets the lines of all:\n{}", lines_to_paste()),
        );
    }
    if lost.is_empty() && unseen.is_empty() {
        report.ok(
            AREA,
            "",
            "every server's lines reach f2b-pipe, and its access log is written",
        );
    }
}

/// Does a line reach us, or a file, twice?
fn doubled(httpd: &Httpd, pipes: &[&Pipe<'_>], report: &mut Report) {
    let mut told = BTreeSet::new();
    for index in 0..httpd.servers.len() {
        let logs = httpd.access_logs(index);
        let mut first_pipe = None;
        let mut files: BTreeMap<&Path, &Log> = BTreeMap::new();
        for log in logs {
            let pipe = pipes.iter().find(|pipe| std::ptr::eq(pipe.log, log));
            let file = match (&log.target, pipe) {
                (Target::File(file), _) => Some(file),
                (_, Some(pipe)) => pipe.args.tee.as_ref(),
                _ => None,
            };
            if let Some(other) = file.and_then(|file| files.insert(file, log))
                && (pipe.is_some() || pipes.iter().any(|p| std::ptr::eq(p.log, other)))
                && told.insert((log.place.to_string(), "file"))
            {
                report.fail(
                    AREA,
                    &log.place,
                    format!(
                        "the same file is written by {}, so each line stands in it twice",
                        other.place
                    ),
                    "take --tee out where a plain CustomLog writes the file already",
                );
            }
            let (Some(_), None) = (pipe, &log.only_if) else {
                continue;
            };
            if let Some(other) = first_pipe.replace(log)
                && told.insert((log.place.to_string(), "pipe"))
            {
                report.warn(
                    AREA,
                    &log.place,
                    format!(
                        "the same lines go to f2b-pipe by {}, too: twice the work",
                        other.place
                    ),
                    "keep one of the two; the GlobalLog, if one of them is",
                );
            }
        }
    }
}

/// Does each process count for itself?
fn apart(pipes: &[&Pipe<'_>], place: &WhereArgs, report: &mut Report) {
    let many = pipes.len();
    if many < 2 {
        return;
    }
    if feed::is_taken(&RuntimePaths::new(&place.runtime_dir, &place.config).feed()) {
        report.ok(
            AREA,
            "",
            format!(
                "{many} directives start {many} processes; f2b-pipe watch counts for all of them"
            ),
        );
        return;
    }
    report.warn(
        AREA,
        "",
        format!(
            "{many} directives start {many} processes, and no f2b-pipe watch runs, so each counts by itself: a client that \
             spreads his requests over the virtual hosts gets as many times maxretry"
        ),
        format!(
            "systemctl enable --now f2b-pipe; or one GlobalLog is one process:\n{}",
            lines_to_paste()
        ),
    );
}

/// Directives for the whole server that change what arrives.
fn switches(httpd: &Httpd, pipes: &[&Pipe<'_>], config: &Config, report: &mut Report) {
    if let Some(place) = &httpd.switches.buffered_logs {
        report.fail(
            AREA,
            place,
            "BufferedLogs keeps lines back until 4 kB have come together: a ban would come minutes late",
            "BufferedLogs Off",
        );
    }
    if let Some(place) = &httpd.switches.remoteip {
        for pipe in pipes
            .iter()
            .filter(|pipe| !pipe.log.format.contains("%{c}a"))
        {
            report.warn(
                AREA,
                place,
                format!(
                    "mod_remoteip replaces the address by what a proxy says, and the format of {} does not tell both apart: bans of \
                     clients behind the proxy would be told as success and hold nobody",
                    pipe.log.place
                ),
                "add %{c}a behind %a in that LogFormat, or use f2b, which has it",
            );
        }
        if config.proxies.is_empty() {
            report.warn(
                AREA,
                place,
                "clients behind a proxy cannot be held by a packet filter here, and the proxy itself must never be banned",
                "in f2b-pipe.toml: proxies = [\"the proxy's address\"]; ban its clients on the proxy",
            );
        }
    }
    // Each byte of a header is written as up to four; longer lines are judged by their head.
    if let Some((place, bytes)) = &httpd.switches.longest_field
        && *bytes > 30_000
    {
        report.warn(
            AREA,
            place,
            format!("headers of {bytes} bytes make lines over 128 KiB, of which only the head is judged"),
            "a few thousand bytes are enough for any browser: LimitRequestLine 8190, LimitRequestFieldSize 8190",
        );
    }
}

/// Does httpd listen on ports that a ban does not close?
fn ports(httpd: &Httpd, config: &Config, report: &mut Report) {
    let mut open: BTreeMap<Vec<u16>, Vec<&Jail>> = BTreeMap::new();
    for jail in config.native() {
        let left: BTreeSet<u16> = httpd
            .listen
            .iter()
            .map(|(_, port)| *port)
            .filter(|port| !closes(jail, *port))
            .collect();
        if !left.is_empty() {
            open.entry(left.into_iter().collect())
                .or_default()
                .push(jail);
        }
    }
    for (left, jails) in open {
        let place = httpd.listen.iter().find(|(_, port)| left.contains(port));
        let whose = if jails.len() == config.native().len() {
            "every jail".to_owned()
        } else {
            let names: Vec<&str> = jails.iter().map(|jail| jail.name.as_str()).collect();
            names.join(", ")
        };
        let numbers: Vec<String> = left.iter().map(u16::to_string).collect();
        let numbers = numbers.join(", ");
        let closed: String = match jails.first().map(|jail| &jail.ports) {
            Some(ports @ Ports::These(_)) => {
                let quoted = |port| format!("\"{port}\", ");
                ports.written().into_iter().map(quoted).collect()
            }
            Some(Ports::All) | None => String::new(),
        };
        report.warn(
            AREA,
            place.map_or_else(String::new, |(place, _)| place.to_string()),
            format!("httpd listens on {numbers}, which bans of {whose} leave open"),
            format!("in f2b-pipe.toml, [defaults]: port = [{closed}{numbers}]"),
        );
    }
}

fn closes(jail: &Jail, port: u16) -> bool {
    jail.closes_tcp() && jail.ports.closes(port)
}
