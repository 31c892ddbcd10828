//! The report of `test` for people, in the blocks that fail2ban-regex prints, and what it cannot say: where the best
//! expression stopped in a line that was missed.

use std::io::{self, Write};
use std::time::Instant;

use chrono::{DateTime, Local};

use super::Match;
use super::sought::Sought;
use super::stop::{Stop, shown};
use crate::cli::TestArgs;
use crate::failregex::{Matcher, Seen};
use crate::pattern::Pattern;

/// Lines of a kind that are printed unless all are wanted.
const LINES_MAX: usize = 20;

/// What was seen.
#[derive(Debug)]
pub(super) struct Report<'a> {
    args: &'a TestArgs,
    head: Vec<String>,
    started: Instant,
    prefregex: u64,
    failregex: Vec<Hits>,
    ignoreregex: Vec<Hits>,
    matched: Lines,
    ignored: Lines,
    missed: Lines,
}

/// Of one expression.
#[derive(Clone, Debug, Default)]
struct Hits {
    count: u64,
    /// Whom it found, and when.
    whom: Vec<String>,
}

/// Lines of a kind.
#[derive(Debug, Default)]
struct Lines {
    count: u64,
    kept: Vec<(String, Option<String>)>,
}

impl Lines {
    fn add(&mut self, line: &str, why: impl FnOnce() -> Option<String>, keep: bool, all: bool) {
        self.count += 1;
        if keep && (all || self.kept.len() < LINES_MAX) {
            self.kept.push((line.to_owned(), why()));
        }
    }
}

impl<'a> Report<'a> {
    pub(super) fn new(args: &'a TestArgs, sought: &Sought, log: &str) -> Self {
        let none = |n: usize| vec![Hits::default(); n];
        Self {
            args,
            head: sought
                .described
                .iter()
                .cloned()
                .chain([log.to_owned()])
                .collect(),
            started: Instant::now(),
            prefregex: 0,
            failregex: none(sought.rules.failregex.len()),
            ignoreregex: none(sought.rules.ignoreregex.len()),
            matched: Lines::default(),
            ignored: Lines::default(),
            missed: Lines::default(),
        }
    }

    pub(super) fn line(&mut self, line: &str, seen: Seen, found: &[Match], matcher: &Matcher) {
        let args = self.args;
        self.prefregex += u64::from(matcher.passes());
        let hit = |hits: Option<&mut Hits>| {
            if let Some(hits) = hits {
                hits.count += 1;
                let whom = found.iter().map(|found| {
                    let id = found.ids().next().unwrap_or_default();
                    format!("{id}  {}", at(found.failure.time))
                });
                hits.whom
                    .extend(whom.take(if args.verbose { 1 } else { 0 }));
            }
        };
        match seen {
            Seen::Failed if !found.is_empty() => {
                hit(found
                    .first()
                    .and_then(|found| self.failregex.get_mut(found.failure.regex)));
                self.matched
                    .add(line, || None, args.print_all_matched, true);
            }
            Seen::Ignored(regex) => {
                hit(self.ignoreregex.get_mut(regex));
                self.ignored.add(
                    line,
                    || None,
                    !args.print_no_ignored,
                    args.print_all_ignored,
                );
            }
            Seen::Noted(regex) => {
                hit(self.failregex.get_mut(regex));
                let why = || {
                    Some(
                        "no failure by itself: it counts with other lines of its connection"
                            .to_owned(),
                    )
                };
                self.ignored
                    .add(line, why, !args.print_no_ignored, args.print_all_ignored);
            }
            Seen::Missed | Seen::Dropped | Seen::Failed => {
                self.missed.add(
                    line,
                    || Stop::of(matcher).map(|stop| stop.to_string()),
                    !args.print_no_missed,
                    args.print_all_missed,
                );
            }
        }
    }

    pub(super) fn write(&self, matcher: &Matcher, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "\nRunning tests\n=============\n")?;
        for line in &self.head {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "\n\nResults\n=======")?;
        if let Some(pre) = matcher.prefregex() {
            writeln!(
                out,
                "\nPrefregex: {} total\n|  {}\n`-",
                self.prefregex,
                pre.expanded()
            )?;
        }
        let fail = matcher.failregexes().iter().map(Pattern::source);
        self.expressions("Failregex", &self.failregex, fail, out)?;
        let ignore = matcher.ignoreregexes().iter().map(Pattern::source);
        self.expressions("Ignoreregex", &self.ignoreregex, ignore, out)?;
        let mut dates: Vec<_> = matcher.detector().templates().collect();
        dates.retain(|(_, hits)| self.args.verbose || *hits > 0);
        writeln!(out, "\nDate template hits:")?;
        if !dates.is_empty() {
            writeln!(out, "|- [# of hits] date format")?;
            for (name, hits) in dates {
                writeln!(out, "|  [{hits}] {name}")?;
            }
            writeln!(out, "`-")?;
        }
        let Self {
            matched,
            ignored,
            missed,
            ..
        } = self;
        writeln!(
            out,
            "\nLines: {} lines, {} ignored, {} matched, {} missed",
            matched.count + ignored.count + missed.count,
            ignored.count,
            matched.count,
            missed.count
        )?;
        writeln!(
            out,
            "[processed in {:.2} sec]\n",
            self.started.elapsed().as_secs_f64()
        )?;
        for (name, lines, option) in [
            ("Matched", matched, "--print-all-matched"),
            ("Ignored", ignored, "--print-all-ignored"),
            ("Missed", missed, "--print-all-missed"),
        ] {
            if lines.kept.is_empty() {
                continue;
            }
            writeln!(out, "|- {name} line(s):")?;
            for (line, why) in &lines.kept {
                writeln!(out, "|  {}", shown(line))?;
                for why in why.iter().flat_map(|why| why.lines()) {
                    writeln!(out, "|      {why}")?;
                }
            }
            let kept = u64::try_from(lines.kept.len()).unwrap_or(u64::MAX);
            if lines.count > kept {
                writeln!(out, "|  and {} more ({option})", lines.count - kept)?;
            }
            writeln!(out, "`-")?;
        }
        Ok(())
    }

    fn expressions<'p>(
        &self,
        name: &str,
        hits: &[Hits],
        sources: impl Iterator<Item = &'p str>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let total: u64 = hits.iter().map(|hits| hits.count).sum();
        writeln!(out, "\n{name}: {total} total")?;
        let mut head = Some("|-  #) [# of hits] regular expression");
        for (n, (hits, source)) in hits.iter().zip(sources).enumerate() {
            if hits.count == 0 && !self.args.verbose {
                continue;
            }
            if let Some(head) = head.take() {
                writeln!(out, "{head}")?;
            }
            writeln!(out, "|  {:2}) [{}] {source}", n + 1, hits.count)?;
            for whom in &hits.whom {
                writeln!(out, "|      {whom}")?;
            }
        }
        writeln!(out, "`-")
    }
}

/// `--out`.
pub(super) fn write_out(what: &str, found: &[Match], out: &mut dyn Write) -> io::Result<()> {
    for found in found {
        match what {
            "id" | "fid" => {
                for id in found.ids() {
                    writeln!(out, "{}", shown(id))?;
                }
            }
            "msg" | "matches" => {
                for line in &found.failure.matches {
                    writeln!(out, "{}", shown(line))?;
                }
            }
            "row" => {
                serde_json::to_writer(&mut *out, &super::shown(found))?;
                writeln!(out)?;
            }
            _ if what.contains('<') => writeln!(out, "{}", shown(&filled(what, found)))?,
            _ => writeln!(out, "{}", shown(&value(what, found).unwrap_or_default()))?,
        }
    }
    Ok(())
}

/// A text with `<ip>`, `<time>`, `<F-USER>`, each once; what is put in is not looked at again.
fn filled(text: &str, found: &Match) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once('<') {
        filled.push_str(before);
        match tail
            .split_once('>')
            .and_then(|(tag, behind)| Some((value(tag, found)?, behind)))
        {
            Some((value, behind)) => {
                filled.push_str(&value);
                rest = behind;
            }
            None => {
                filled.push('<');
                rest = tail;
            }
        }
    }
    filled + rest
}

fn value(tag: &str, found: &Match) -> Option<String> {
    Some(match tag {
        "id" | "fid" => found.ids().next()?.to_owned(),
        "ip" | "host" => found.failure.host.clone(),
        "time" => {
            let time = found.failure.time;
            time.map(|time| time.to_string()).unwrap_or_default()
        }
        "msg" | "matches" => found.failure.matches.join("\n"),
        _ => {
            let name = tag.strip_prefix("F-").unwrap_or(tag).to_ascii_lowercase();
            let value = found.groups().remove(name.as_str())?;
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        }
    })
}

fn at(time: Option<f64>) -> String {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "whole seconds; a time out of range is not a time"
    )]
    let time = time.and_then(|time| DateTime::from_timestamp(time as i64, 0));
    time.map_or_else(
        || "no date".to_owned(),
        |time| {
            time.with_timezone(&Local)
                .format("%a %b %d %H:%M:%S %Y")
                .to_string()
        },
    )
}
