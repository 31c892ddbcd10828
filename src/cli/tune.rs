//! `tune`: which numbers should I use? From old access logs, how often per findtime clients of each kind do what a jail
//! counts, whom other numbers would have banned, and which number fits.
//!
//! The lines walk through the rooms of `run`: parse, filter, count, with the log's clock as in `replay`. Only where a limit
//! would be reached nothing happens, so that a window shows how far its client would have gone.

use std::fs;
use std::io::{self, Write};
use std::sync::Arc;

use serde::Serialize;

use super::replay::log::{Log, unreadable};
use super::replay::native::{adapt, first_misfit, millis};
use super::replay::told::secs;
use super::{Done, Failure, Outcome, TuneArgs, each_line, usable_with};
use crate::config::{Config, Jail, Mode};
use crate::count::{Bounds, Counter};
use crate::exempt::{Exempt, Target};
use crate::filter::{self, Filter};
use crate::frame::{Framed, Trust};
use crate::hit::{Arrival, Hit};
use crate::parse::{Access, Format};
use crate::sift::Reader;

mod advice; // counts to advice
mod clients; // who was there, and of what kind
mod page; // for a browser
mod progress; // while it reads
mod report; // for a terminal

use advice::{Advice, Asked, Bin, Candidate, DAY_SECS, Peak, Spread};
use clients::{ByKind, Clients, Known};
use progress::Progress;

/// Stamps kept for all clients together, four bytes each.
const STAMPS: usize = 8_000_000;
/// How often the progress is looked at, lines.
const PROGRESS_LINES: u64 = 4096;

/// `f2b-pipe tune LOG...`. The shape of `--json`: `conf/man/tune.roff`.
///
/// # Errors
/// The configuration, the format, a log or the page cannot be used, or the output cannot be written.
pub fn tune(args: &TuneArgs, out: &mut dyn Write) -> Done {
    let format = Format::compile(&args.format)
        .map_err(|error| Failure::Usage(format!("--format: {error}")))?;
    if !format.has_time() {
        return Err(Failure::Usage("--format: it has no time that could be read back; tune needs %t, or a %{...}t of digits such as %{usec}t or %{%Y-%m-%d %H:%M:%S}t".into()));
    }
    let mut config = usable_with(&args.place, None)?;
    for wanted in &args.jail {
        if !config.native().iter().any(|jail| jail.name == wanted[..]) {
            let names: Vec<&str> = config.native().iter().map(|jail| &jail.name[..]).collect();
            return Err(Failure::Usage(format!(
                "--jail {wanted}: there is no such jail of httpd's lines; there are {}",
                names.join(", ")
            )));
        }
    }
    adapt(&mut config, &format);
    // All of them first: a typing error in the last name should not cost the time of the others.
    let logs: Vec<Log> = args
        .logs
        .iter()
        .map(|path| Log::open(path))
        .collect::<Result<_, _>>()?;
    let is_sized = logs.iter().all(|log| log.size > 0);
    let size = if is_sized {
        logs.iter().map(|log| log.size).sum()
    } else {
        0
    };
    let mut progress = Progress::new(size);
    let mut reading = Reading::new(Arc::new(config), &format)?;
    let mut before = 0;
    for log in logs {
        let Log {
            name,
            input,
            read,
            size,
            ..
        } = log;
        let mut number = 0_u64;
        let take = |framed: Framed<'_>| {
            number += 1;
            reading.line(framed, &format, &name, number);
            if number.is_multiple_of(PROGRESS_LINES) {
                progress.show(before + read.get(), reading.lines);
            }
            Ok(())
        };
        each_line(input, take, |error| unreadable(&name, &error))?;
        before += size;
    }
    drop(progress);
    let told = reading.told(&format, &args.jail);
    if let Some(path) = &args.html {
        let page = page::page(&told);
        fs::write(path, page).map_err(|error| {
            Failure::Usage(format!(
                "--html {}: cannot be written: {error}",
                path.display()
            ))
        })?;
    }
    if args.json {
        let text = serde_json::to_string(&told).map_err(io::Error::from)?;
        writeln!(out, "{text}")?;
    } else {
        report::write(&told, out)?;
    }
    Ok(if told.lines > 0 && told.unparsed == told.lines {
        Outcome::NotSo
    } else {
        Outcome::Fine
    })
}

/// The answer; its shape is told in `conf/man/tune.roff`.
#[derive(Debug, Serialize)]
struct Told {
    lines: u64,
    unparsed: u64,
    undated: u64,
    from: Option<f64>,
    to: Option<f64>,
    clients: usize,
    kinds: ByKind<usize>,
    left_out: u64,
    forgotten: u64,
    remarks: Vec<String>,
    jails: Vec<ToldJail>,
}

#[derive(Debug, Serialize)]
struct ToldJail {
    name: String,
    maxretry: u32,
    findtime: f64,
    distinct: bool,
    mode: &'static str,
    hits: u64,
    spared: usize,
    ceiling: u32,
    kinds: ByKind<Spread>,
    histogram: Vec<Bin>,
    candidates: Vec<Candidate>,
    recommended: Option<u32>,
    paste: Option<String>,
    why: String,
}

/// The rooms, and what is known so far.
struct Reading {
    config: Arc<Config>,
    reader: Reader,
    filter: Filter,
    exempt: Exempt,
    counter: Counter,
    clients: Clients,
    /// By jail: counts go no higher.
    ceilings: Vec<u32>,
    /// By jail.
    hits: Vec<u64>,
    scratch: Vec<Hit>,
    /// The first time of all, and the latest so far; seconds since the epoch.
    times: Option<(f64, f64)>,
    lines: u64,
    unparsed: u64,
    undated: u64,
    misfit: Option<String>,
}

impl Reading {
    fn new(config: Arc<Config>, format: &Format) -> Result<Self, Failure> {
        let jails = config.native();
        let filter = Filter::compile(jails).map_err(|error| {
            Failure::Usage(format!("the patterns of all jails together: {error}"))
        })?;
        let findtimes = jails
            .iter()
            .map(|jail| u32::try_from(jail.findtime.as_millis()).unwrap_or(u32::MAX));
        let bounds = Bounds {
            clients: clients::CLIENTS,
            stamps: STAMPS,
        };
        Ok(Self {
            reader: Reader::Access(format.clone()),
            filter,
            exempt: Exempt::of_config_only(&config),
            counter: Counter::new(findtimes.collect(), bounds),
            clients: Clients::new(jails, clients::CLIENTS)?,
            ceilings: jails.iter().map(ceiling).collect(),
            hits: vec![0; jails.len()],
            scratch: Vec::new(),
            times: None,
            lines: 0,
            unparsed: 0,
            undated: 0,
            misfit: None,
            config,
        })
    }

    fn line(&mut self, framed: Framed<'_>, format: &Format, name: &str, number: u64) {
        self.lines += 1;
        let line = framed.bytes();
        let mut access = Access::default();
        if let Err(misfit) = self.reader.read(framed, Trust::Whole, &mut access) {
            self.unparsed += 1;
            if self.misfit.is_none() {
                self.misfit = Some(first_misfit(name, number, line, misfit));
            }
            return;
        }
        let own = format.logged(line).map(secs);
        let (first, clock) = match (own, self.times) {
            (Some(own), Some((first, clock))) => (first, clock.max(own)),
            (Some(own), None) => (own, own),
            (None, Some(times)) => times,
            // Nobody knows when that was.
            (None, None) => (0.0, 0.0),
        };
        match own {
            Some(_) => self.times = Some((first, clock)),
            None => self.undated += 1,
        }
        if own.is_none() && self.times.is_none() {
            return;
        }
        let Some(client) = access.client else { return };
        let now = millis(clock);
        let second = u32::try_from(now.saturating_sub(millis(first)) / 1000).unwrap_or(u32::MAX);
        let Some(number) = self.clients.line(client, &access, second) else {
            return;
        };
        self.scratch.clear();
        self.filter.hits(&access, &mut self.scratch);
        for hit in &self.scratch {
            let at = usize::from(hit.jail);
            let (Some(jail), Some(ceiling), Some(hits)) = (
                self.config.jails.get(at),
                self.ceilings.get(at),
                self.hits.get_mut(at),
            ) else {
                continue;
            };
            *hits += 1;
            let place = self
                .counter
                .place(client.counted(jail.ipv6_prefix), Arrival(now));
            let mut visit = self.counter.visit(place);
            let count = visit.add(hit.jail, hit.weight, hit.distinct, *ceiling);
            self.clients.count(number, hit.jail, count);
        }
        self.counter.settle();
    }

    /// What it all comes to, of the jails of these names (none: of all).
    fn told(&self, format: &Format, names: &[String]) -> Told {
        let jails = self.config.native();
        let known = self.clients.known(jails);
        let mut kinds = ByKind::default();
        for known in &known {
            *kinds.of_mut(known.kind) += 1;
        }
        let span = self.times.map_or(0.0, |(first, last)| last - first);
        let wanted =
            |jail: &Jail| names.is_empty() || names.iter().any(|name| jail.name == name[..]);
        Told {
            lines: self.lines,
            unparsed: self.unparsed,
            undated: self.undated,
            from: self.times.map(|(first, _)| first),
            to: self.times.map(|(_, last)| last),
            clients: self.clients.many(),
            kinds,
            left_out: self.clients.left_out,
            forgotten: self.counter.evicted(),
            remarks: self.remarks(span),
            jails: (0..)
                .zip(jails)
                .filter(|(_, jail)| wanted(jail))
                .map(|(id, jail)| self.jail(id, jail, &known, format, span))
                .collect(),
        }
    }

    fn jail(&self, id: u16, jail: &Jail, known: &[Known], format: &Format, span: f64) -> ToldJail {
        let at = usize::from(id);
        let mut spared = 0;
        let mut peaks = Vec::new();
        for (number, known) in known.iter().enumerate() {
            let count = self.clients.peak(number, at);
            if count == 0 {
                continue;
            }
            let who = Target::Client(known.client.counted(jail.ipv6_prefix));
            if self.exempt.check(who, Some(id)).is_err() {
                spared += 1;
                continue;
            }
            peaks.push(Peak {
                count,
                kind: known.kind,
                is_like_a_person: known.is_like_a_person,
                number,
            });
        }
        let lacks = filter::unmeetable(std::slice::from_ref(jail), format);
        let asked = Asked {
            maxretry: jail.maxretry,
            findtime: jail.findtime.as_secs_f64(),
            span,
            clients: known.len(),
            lacks: lacks.first().map(|(_, field)| *field),
        };
        let advice = advice::advise(asked, &peaks);
        let name = |number: usize| {
            known
                .get(number)
                .map_or_else(String::new, |k| k.client.to_string())
        };
        let candidates = advice::candidates(asked, &advice, &peaks);
        let Advice { maxretry, why } = advice;
        let paste = maxretry
            .filter(|maxretry| *maxretry != jail.maxretry)
            .map(|maxretry| format!("[jail.{}]\nmaxretry = {maxretry}", jail.name));
        ToldJail {
            name: jail.name.to_string(),
            maxretry: jail.maxretry,
            findtime: asked.findtime,
            distinct: jail.rule.distinct.is_some(),
            mode: match jail.mode {
                Mode::Ban => "ban",
                Mode::Observe => "observe",
            },
            hits: self.hits.get(at).copied().unwrap_or(0),
            spared,
            ceiling: ceiling(jail),
            kinds: advice::spreads(&peaks, name),
            histogram: advice::histogram(&peaks),
            candidates,
            recommended: maxretry,
            paste,
            why,
        }
    }

    /// What limits the answer.
    fn remarks(&self, span: f64) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.times.is_some() && span < DAY_SECS {
            remarks.push(format!(
                "The log covers only {}: who comes at other hours, or once a month, is not in it. Give a week of logs, oldest first.",
                long(span)
            ));
        }
        if let Some(misfit) = &self.misfit {
            remarks.push(format!(
                "{} of {} lines do not fit the format and count for nobody. The first: {misfit}",
                self.unparsed, self.lines
            ));
        }
        if self.undated > 0 {
            remarks.push(format!(
                "{} lines have no time that could be, and count at the time of the line before.",
                self.undated
            ));
        }
        if self.clients.left_out > 0 {
            remarks.push(format!(
                "{} lines are of clients that came after the first {}, and are not looked at.",
                self.clients.left_out,
                clients::CLIENTS
            ));
        }
        if self.counter.evicted() > 0 {
            remarks.push(format!(
                "{} clients were forgotten within their findtime for want of room: their counts began anew.",
                self.counter.evicted()
            ));
        }
        remarks
    }
}

/// How far a jail's count is followed. Well above maxretry, and not without end: a window of different values is searched
/// at every hit.
fn ceiling(jail: &Jail) -> u32 {
    let (times, least) = match jail.rule.distinct {
        Some(_) => (4, 256),
        None => (20, 10_000),
    };
    jail.maxretry
        .saturating_mul(times)
        .clamp(least, 100_000)
        .max(jail.maxretry)
}

/// How long something is, in the two largest units: `5h 33m`.
fn long(seconds: f64) -> String {
    let rounded = std::time::Duration::try_from_secs_f64(seconds)
        .unwrap_or_default()
        .as_secs();
    let (days, hours, minutes) = (rounded / 86_400, rounded / 3600 % 24, rounded / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) if rounded.is_multiple_of(60) => format!("{minutes}m"),
        (0, 0, _) => format!("{minutes}m {}s", rounded % 60),
        (0, _, 0) => format!("{hours}h"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        (_, 0, _) => format!("{days}d"),
        _ => format!("{days}d {hours}h"),
    }
}
