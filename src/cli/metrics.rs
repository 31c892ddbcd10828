//! `metrics`: what Prometheus scrapes, by node_exporter's textfile collector (`--textfile`, from a timer) or any program
//! that runs commands.
//!
//! Counters are a process's own, from its state file, and end with it (a graceful restart), so each has its `pid`: Prometheus
//! sums them rightly, `sum by (jail) (rate(f2b_pipe_hits_total[5m]))`, which it could not do with our sum. Who is banned is
//! the kernel's word.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::Value;

use super::bans::paths;
use super::bans::status::running;
use super::{Done, Failure, MetricsArgs, Outcome, ask};
use crate::act::firewall;
use crate::act::listed::rows;
use crate::act::{self, keeper};
use crate::changes;
use crate::config::{self, Backend, RuntimePaths};
use crate::control::wire::Request;
use crate::notify::measure::{BOUNDS_US, Measured};
use crate::say;

/// What is shown.
struct Facts<'f> {
    version: &'f str,
    /// State files.
    processes: &'f [Value],
    /// `f2b-pipe off`.
    off: bool,
    /// Mistakes in the configuration that leave something out.
    errors: usize,
    /// By jail; `None`: the kernel cannot be asked.
    banned: Option<&'f BTreeMap<String, usize>>,
}

/// `f2b-pipe metrics`, by the running f2b-pipe if there is one. With `--textfile` nothing is printed. Without rights to ask
/// the kernel the rest is told, and `f2b_pipe_kernel_readable` is 0.
///
/// # Errors
/// The text cannot be written.
pub fn metrics(args: &MetricsArgs, out: &mut dyn Write) -> Done {
    say::direct();
    let paths = paths(&args.place);
    let live = ask::ask_if_allowed(&paths, &Request::Metrics)?;
    let live = live.and_then(|live| Some(live.get("text")?.as_str()?.to_owned()));
    let page = live.unwrap_or_else(|| text(&args.place.config, &paths));
    match &args.textfile {
        None => out.write_all(page.as_bytes())?,
        Some(path) => put(path, &page)
            .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?,
    }
    Ok(Outcome::Fine)
}

/// The page.
pub(crate) fn text(config: &Path, paths: &RuntimePaths) -> String {
    let mut loaded = config::load(config);
    changes::live(&mut loaded.config, paths);
    let config = &loaded.config;
    let kernel = match config.firewall.backend {
        Backend::DryRun => Ok(Vec::new()),
        Backend::Auto | Backend::Ipset | Backend::Nftables => {
            firewall::open(&config.firewall).and_then(|mut open| rows(config, open.as_mut()))
        }
    };
    if let Err(error) = &kernel {
        log::warn!("{error}; f2b_pipe_banned is left out");
    }
    let banned = kernel.ok().map(|rows| {
        // A jail in which nobody is banned has a number, too.
        let jails = act::jails(config);
        let mut banned: BTreeMap<String, usize> =
            jails.map(|(_, jail)| (jail.name.clone(), 0)).collect();
        for row in rows {
            *banned.entry(row.jail).or_default() += 1;
        }
        banned
    });
    page(&Facts {
        version: env!("CARGO_PKG_VERSION"),
        processes: &running(paths),
        off: keeper::is_off(paths),
        errors: loaded.errors().count(),
        banned: banned.as_ref(),
    })
}

/// Beside it under a name that node_exporter does not read (it takes `*.prom`), and renamed: it sees one page or the next.
fn put(path: &Path, page: &str) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let written = fs::write(&beside, page).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        fs::remove_file(&beside).ok();
    }
    written
}

/// A number that each process has: its name in the state file, ours, its kind, its meaning.
const OF_PROCESS: &[(&str, &str, &str, &str)] = &[
    (
        "/started",
        "start_time_seconds",
        "gauge",
        "When the process began, seconds since the epoch.",
    ),
    (
        "/lines",
        "lines_total",
        "counter",
        "Lines that httpd piped.",
    ),
    (
        "/unparsed",
        "unparsed_total",
        "counter",
        "Lines that do not fit the format.",
    ),
    (
        "/doubtful",
        "doubtful_total",
        "counter",
        "Lines not judged because they may have been torn in a full pipe.",
    ),
    (
        "/shed",
        "shed_total",
        "counter",
        "Lines not judged because there were too many at once, or by an internal error.",
    ),
    (
        "/spared",
        "spared_total",
        "counter",
        "Limits reached by clients that are never banned.",
    ),
    (
        "/clients",
        "clients",
        "gauge",
        "Clients in the table of counters.",
    ),
    (
        "/evicted",
        "evicted_total",
        "counter",
        "Clients forgotten at the table's bound within findtime.",
    ),
    (
        "/tee_dropped",
        "tee_dropped_total",
        "counter",
        "Lines missing in the log of --tee: the disk was full or hung.",
    ),
    (
        "/tee_waiting",
        "tee_waiting_bytes",
        "gauge",
        "Bytes that wait for the log of --tee.",
    ),
    (
        "/messages_lost",
        "messages_lost_total",
        "counter",
        "Messages to stderr, syslog and fail2ban's log that were lost.",
    ),
    (
        "/act/replaced",
        "chain_replaced_total",
        "counter",
        "How often the rules were found gone or overtaken, and put back.",
    ),
    (
        "/act/dropped",
        "events_dropped_total",
        "counter",
        "Events that the keeper of the rules was too busy for.",
    ),
    (
        "/measured/netlink_errors",
        "netlink_errors_total",
        "counter",
        "Times that the kernel could not be reached by netlink, or refused a ban, a set or a look at them.",
    ),
];

/// Queues by name.
const QUEUES: &[(&str, &str)] = &[
    ("feed", "/measured/feed_waiting"),
    ("keeper", "/measured/keeper_waiting"),
    ("messages", "/measured/messages_waiting"),
];

/// A number that each jail of each process has.
const OF_JAIL: &[(&str, &str, &str)] = &[
    ("hits", "hits_total", "Lines that count for the jail."),
    ("bans", "bans_total", "Bans."),
    (
        "not_banned",
        "not_banned_total",
        "Limits reached that banned nobody: mode observe, switched off, behind a proxy, no rights.",
    ),
];

fn page(facts: &Facts<'_>) -> String {
    let mut page = Page::default();
    page.family(
        "build_info",
        "gauge",
        "The program that tells this.",
        [(vec![("version", facts.version.to_owned())], 1)],
    );
    page.family(
        "off",
        "gauge",
        "1: nobody is banned until f2b-pipe reload.",
        [(vec![], u64::from(facts.off))],
    );
    page.family(
        "config_errors",
        "gauge",
        "Mistakes in the configuration, see f2b-pipe check.",
        [(vec![], many(facts.errors))],
    );
    page.family(
        "kernel_readable",
        "gauge",
        "0: the kernel could not be asked who is banned.",
        [(vec![], u64::from(facts.banned.is_some()))],
    );
    let banned = facts.banned.into_iter().flatten();
    page.family(
        "banned",
        "gauge",
        "Addresses and networks that are banned now.",
        banned.map(|(jail, n)| (vec![("jail", jail.clone())], many(*n))),
    );
    let processes = || {
        facts.processes.iter().map(|process| {
            let pid = process.get("pid").and_then(Value::as_u64).unwrap_or(0);
            (("pid", pid.to_string()), process)
        })
    };
    page.family(
        "process_info",
        "gauge",
        "A process that judges lines, and what it reads.",
        processes().map(|(pid, process)| {
            let text = |key| process.get(key).and_then(Value::as_str).unwrap_or_default();
            let format = ("format", text("format").to_owned());
            (vec![pid, format, ("tee", text("tee").to_owned())], 1)
        }),
    );
    for (pointer, name, kind, help) in OF_PROCESS {
        let samples = processes()
            .filter_map(|(pid, process)| Some((vec![pid], process.pointer(pointer)?.as_u64()?)));
        page.family(name, kind, help, samples);
    }
    page.family(
        "fed",
        "gauge",
        "1: f2b-pipe watch counts this process's hits; 0: it counts by itself.",
        processes().filter_map(|(pid, process)| {
            let fed = process.get("fed")?.as_bool()?;
            // Of watch itself there is no such thing.
            let watch = process.get("feed").is_some_and(Value::is_object);
            (!watch).then(|| (vec![pid], u64::from(fed)))
        }),
    );
    page.family(
        "feed_loggers",
        "gauge",
        "Loggers of httpd whose hits f2b-pipe watch counts.",
        processes().filter_map(|(pid, process)| {
            let runs = process.pointer("/feed/runs")?.as_array()?;
            Some((vec![pid], many(runs.len())))
        }),
    );
    page.family(
        "feed_late_total",
        "counter",
        "Frames of hits that f2b-pipe watch got too late to count, as their logger does so itself by then.",
        processes().filter_map(|(pid, process)| {
            Some((vec![pid], process.pointer("/feed/late")?.as_u64()?))
        }),
    );
    page.family(
        "feed_unknown_hits_total",
        "counter",
        "Hits of loggers for jails that f2b-pipe watch does not know.",
        processes().flat_map(|(pid, process)| {
            let unknown = process.pointer("/feed/unknown").and_then(Value::as_object);
            unknown.into_iter().flatten().filter_map(move |(jail, n)| {
                let labels = vec![pid.clone(), ("jail", jail.clone())];
                Some((labels, n.as_u64()?))
            })
        }),
    );
    page.family(
        "troubles",
        "gauge",
        "What is wrong, see f2b-pipe status.",
        processes().filter_map(|(pid, process)| {
            let own = process.pointer("/troubles")?.as_array()?;
            let act = process.pointer("/act/troubles")?.as_array()?;
            Some((vec![pid], many(own.len() + act.len())))
        }),
    );
    page.family(
        "queue_length",
        "gauge",
        "What waits: feed, chunks of httpd's lines for jails with expressions; keeper, news of bans; messages, to stderr and syslog.",
        processes().flat_map(|(pid, process)| {
            QUEUES.iter().filter_map(move |(name, pointer)| {
                let labels = vec![pid.clone(), ("queue", (*name).to_owned())];
                Some((labels, process.pointer(pointer)?.as_u64()?))
            })
        }),
    );
    page.histogram(
        "ban_latency_seconds",
        "From the arrival of the line that is one too many to the kernel's answer.",
        processes().filter_map(|(pid, process)| {
            let measured = process.get("measured")?.clone();
            Some((pid, serde_json::from_value(measured).ok()?))
        }),
    );
    for (key, name, help) in OF_JAIL {
        let samples = processes().flat_map(|(pid, process)| {
            let jails = process.get("jails").and_then(Value::as_object);
            jails
                .into_iter()
                .flatten()
                .filter_map(move |(jail, counts)| {
                    let labels = vec![pid.clone(), ("jail", jail.clone())];
                    Some((labels, counts.get(key)?.as_u64()?))
                })
        });
        page.family(name, "counter", help, samples);
    }
    page.0
}

fn many(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// A label's name and value.
type Label = (&'static str, String);

/// Prometheus' text format, version 0.0.4.
#[derive(Default)]
struct Page(String);

impl Page {
    /// One metric with all its samples; nothing, if there are none.
    fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<Label>, u64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let name = format!("f2b_pipe_{name}");
        self.0
            .push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (labels, value) in samples {
            let labels: Vec<String> = labels
                .iter()
                .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
                .collect();
            let labels = match labels.as_slice() {
                [] => String::new(),
                some => format!("{{{}}}", some.join(",")),
            };
            self.0.push_str(&format!("{name}{labels} {value}\n"));
        }
    }
}

impl Page {
    /// A histogram: each bucket holds those before it, too.
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        processes: impl Iterator<Item = (Label, Measured)>,
    ) {
        let name = format!("f2b_pipe_{name}");
        let mut samples = String::new();
        for ((pid_name, pid), measured) in processes {
            let pid = format!("{pid_name}=\"{}\"", escaped(&pid));
            let mut so_far = 0_u64;
            let bounds = BOUNDS_US.iter().map(|us| seconds(*us));
            let bounds = bounds.chain(["+Inf".to_owned()]);
            // One that another version wrote may have other buckets: better none.
            if measured.latency.len() != BOUNDS_US.len() + 1 {
                continue;
            }
            for (bound, n) in bounds.zip(&measured.latency) {
                so_far = so_far.saturating_add(*n);
                samples.push_str(&format!("{name}_bucket{{{pid},le=\"{bound}\"}} {so_far}\n"));
            }
            let sum = seconds(measured.latency_sum_us);
            samples.push_str(&format!(
                "{name}_sum{{{pid}}} {sum}\n{name}_count{{{pid}}} {so_far}\n"
            ));
        }
        if !samples.is_empty() {
            let head = format!("# HELP {name} {help}\n# TYPE {name} histogram\n");
            self.0.push_str(&head);
            self.0.push_str(&samples);
        }
    }
}

/// Microseconds as seconds, without idle noughts.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A label's value as it stands between its quotes.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_is_as_prometheus_wants_it() {
        let processes = [
            json!({"pid": 7, "started": 1_480_000_000, "format": "%a \"%r\"", "tee": "/var/log/a\\b.log", "lines": 12,
                "unparsed": 1, "tee_waiting": 4096, "troubles": ["y"], "act": {"replaced": 2, "troubles": ["x"]},
                "measured": {"latency": [3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "latency_sum_us": 20_000_150,
                    "keeper_waiting": 2, "netlink_errors": 5},
                "jails": {"apache-dos": {"hits": 9, "bans": 1, "not_banned": 0}}}),
            json!({"pid": 8, "format": "watch", "tee": null, "jails": {"my \"jail\"": {"hits": 3, "bans": 0}}}),
        ];
        let banned = BTreeMap::from([("apache-dos".to_owned(), 1), ("sshd".to_owned(), 0)]);
        let text = page(&Facts {
            version: "0.1.0",
            processes: &processes,
            off: false,
            errors: 0,
            banned: Some(&banned),
        });
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            r#"f2b_pipe_build_info{version="0.1.0"} 1"#,
            "f2b_pipe_off 0",
            "f2b_pipe_config_errors 0",
            "f2b_pipe_kernel_readable 1",
            r#"f2b_pipe_banned{jail="apache-dos"} 1"#,
            r#"f2b_pipe_banned{jail="sshd"} 0"#,
            r#"f2b_pipe_process_info{pid="7",format="%a \"%r\"",tee="/var/log/a\\b.log"} 1"#,
            r#"f2b_pipe_process_info{pid="8",format="watch",tee=""} 1"#,
            r#"f2b_pipe_start_time_seconds{pid="7"} 1480000000"#,
            r#"f2b_pipe_lines_total{pid="7"} 12"#,
            r#"f2b_pipe_unparsed_total{pid="7"} 1"#,
            r#"f2b_pipe_tee_waiting_bytes{pid="7"} 4096"#,
            r#"f2b_pipe_chain_replaced_total{pid="7"} 2"#,
            r#"f2b_pipe_netlink_errors_total{pid="7"} 5"#,
            r#"f2b_pipe_troubles{pid="7"} 2"#,
            r#"f2b_pipe_queue_length{pid="7",queue="keeper"} 2"#,
            r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="0.00005"} 3"#,
            r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="0.0001"} 4"#,
            r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="0.0002"} 4"#,
            r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="0.0004"} 4"#,
            r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="0.0007"} 4"#,
            r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="0.001"} 4"#,
            r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="0.002"} 4"#,
            r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="0.004"} 4"#,
            r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="0.007"} 4"#,
            r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="0.01"} 4"#,
            r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="0.05"} 4"#,
            r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="0.1"} 4"#,
            r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="1"} 4"#,
            r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="10"} 4"#,
            r#"f2b_pipe_ban_latency_seconds_bucket{pid="7",le="+Inf"} 5"#,
            r#"f2b_pipe_ban_latency_seconds_sum{pid="7"} 20.00015"#,
            r#"f2b_pipe_ban_latency_seconds_count{pid="7"} 5"#,
            r#"f2b_pipe_hits_total{pid="7",jail="apache-dos"} 9"#,
            r#"f2b_pipe_hits_total{pid="8",jail="my \"jail\""} 3"#,
            r#"f2b_pipe_bans_total{pid="7",jail="apache-dos"} 1"#,
            r#"f2b_pipe_bans_total{pid="8",jail="my \"jail\""} 0"#,
            r#"f2b_pipe_not_banned_total{pid="7",jail="apache-dos"} 0"#,
        ];
        assert_eq!(samples, expected);
        let first = "# HELP f2b_pipe_build_info The program that tells this.\n# TYPE f2b_pipe_build_info gauge\n";
        assert!(text.starts_with(first), "{text}");
    }

    #[test]
    fn a_kernel_that_cannot_be_asked_leaves_out_who_is_banned() {
        let text = page(&Facts {
            version: "0.1.0",
            processes: &[],
            off: true,
            errors: 2,
            banned: None,
        });
        assert!(text.contains("f2b_pipe_kernel_readable 0\n") && text.contains("f2b_pipe_off 1\n"));
        assert!(!text.contains("f2b_pipe_banned"), "{text}");
    }

    /// What a state file has and the table of numbers names, or this test.
    #[test]
    fn no_number_of_the_state_file_is_forgotten() {
        let state = serde_json::to_value(crate::notify::state::State::default()).unwrap();
        for (key, _) in state.as_object().unwrap() {
            let elsewhere = [
                "pid",
                "format",
                "tee",
                "act",
                "jails",
                "troubles",
                "measured",
                "fed",
                "feed",
                "privileges",
            ];
            let elsewhere = elsewhere.contains(&key.as_str());
            let pointer = format!("/{key}");
            let named = OF_PROCESS.iter().any(|(at, ..)| *at == pointer);
            assert!(elsewhere || named, "{key}");
        }
        for (pointer, ..) in OF_PROCESS {
            assert!(state.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
