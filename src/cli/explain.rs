//! `explain`: each room's view of one line.
//!
//! The line goes through the rooms of `run` and, as text, to the expressions of all other jails; what each of them says is
//! collected in [`Explained`], which is printed for people or as JSON. Nothing is counted and nobody is banned.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use chrono::{DateTime, Local};
use serde::Serialize;

use super::{Done, ExplainArgs, Failure, Outcome, each_line, usable};
use crate::client::Client;
use crate::config::{Config, Distinct, Field, Jail, Mode};
use crate::decide::BanFor;
use crate::exempt::{Exempt, Target};
use crate::filter::{self, Filter};
use crate::frame::{Framed, Trust};
use crate::hit::{Hit, JailId};
use crate::parse::format::NICKNAMES;
use crate::parse::text::{Escaped, percent_decode, unescape};
use crate::parse::{Access, Format, Misfit, error_log};

mod expressions; // jails that judge by expressions

use crate::sift::Reader;
use expressions::{Expressions, OtherShown};

/// How many bytes of a line are shown on each side of the one it is about.
const AROUND_BYTES: usize = 60;
/// How much of a reason is shown to people: a jail's expressions can fill a screen.
const REASON_CHARS: usize = 140;
/// Text fields in the order in which people read a line.
const TEXTS: [Field; 9] = [
    Field::Vhost,
    Field::User,
    Field::Request,
    Field::Method,
    Field::Path,
    Field::Query,
    Field::Referer,
    Field::Agent,
    Field::Message,
];

/// `f2b-pipe explain LINE`. The shape of `--json`: `conf/man/explain.roff`.
///
/// # Errors
/// The configuration or the format cannot be used, or the output cannot be written.
pub fn explain(args: &ExplainArgs, out: &mut dyn Write) -> Done {
    let reader = if args.error_log {
        Reader::ErrorLog
    } else {
        let format = Format::compile(&args.format);
        Reader::Access(format.map_err(|error| Failure::Usage(format!("--format: {error}")))?)
    };
    let config = usable(&args.place)?;
    let mut rooms = Rooms::new(config, reader)?;
    let mut all_fit = true;
    let take = |framed: Framed<'_>| {
        let explained = rooms.explain(framed);
        all_fit &= explained.fits || explained.others.iter().any(|other| other.counts);
        if args.json {
            let text = serde_json::to_string(&explained).map_err(io::Error::from)?;
            Ok(writeln!(out, "{text}")?)
        } else {
            Ok(explained.show(out)?)
        }
    };
    let unreadable = |error| Failure::Usage(format!("-: cannot be read: {error}"));
    if args.line == "-" {
        each_line(io::stdin().lock(), take, unreadable)?;
    } else {
        // With its newline, so that an empty line is a line.
        let line = format!("{}\n", args.line.trim_end_matches('\n'));
        each_line(line.as_bytes(), take, unreadable)?;
    }
    Ok(if all_fit {
        Outcome::Fine
    } else {
        Outcome::NotSo
    })
}

/// The rooms that a line is shown to.
struct Rooms {
    config: Config,
    reader: Reader,
    filter: Filter,
    expressions: Expressions,
    exempt: Exempt,
    /// Jails that only observe, as the format has not what they leave clients out by, and that.
    blind: Vec<(String, &'static str)>,
    /// Jails that no line of the format can count for, and what it has not.
    unmeetable: Vec<(String, &'static str)>,
}

/// What they say.
#[derive(Serialize)]
struct Explained {
    line: String,
    fits: bool,
    format: Option<FormatShown>,
    misfit: Option<MisfitShown>,
    fields: Vec<FieldShown>,
    client: Option<String>,
    jails: Vec<JailShown>,
    others: Vec<OtherShown>,
}

#[derive(Serialize)]
struct FormatShown {
    name: Option<&'static str>,
    text: String,
    sealed: bool,
}

#[derive(Serialize)]
struct MisfitShown {
    column: usize,
    wants: String,
    would_fit: Option<String>,
    /// The line around the column, and how far in that stands: for people.
    #[serde(skip)]
    cited: Cited,
}

#[derive(Serialize)]
struct FieldShown {
    name: &'static str,
    text: String,
    decoded: Option<String>,
}

#[derive(Serialize)]
struct JailShown {
    name: String,
    mode: &'static str,
    lacks: Option<&'static str>,
    counts: bool,
    weight: u32,
    distinct: Option<DistinctShown>,
    why_not: Option<String>,
    spared: Option<String>,
    maxretry: u32,
    findtime: f64,
    bantime: i64,
}

#[derive(Serialize)]
struct DistinctShown {
    /// The field, or `any`.
    of: &'static str,
    /// `null` for `any`: what was found, wherever it was.
    value: Option<String>,
}

impl Rooms {
    fn new(mut config: Config, reader: Reader) -> Result<Self, Failure> {
        let (mut blind, mut unmeetable) = (Vec::new(), Vec::new());
        if let Reader::Access(format) = &reader {
            blind = filter::observe_blind(&mut config.jails, format);
            unmeetable = filter::unmeetable(&config.jails, format);
        }
        let filter = Filter::compile(config.native()).map_err(|error| {
            Failure::Usage(format!("the patterns of all jails together: {error}"))
        })?;
        let exempt = Exempt::new(&config);
        if config
            .jails
            .iter()
            .any(|jail| !jail.ignoreip_names.is_empty())
        {
            exempt.refresher().refresh();
        }
        Ok(Self {
            expressions: Expressions::new(&config),
            config,
            reader,
            filter,
            exempt,
            blind,
            unmeetable,
        })
    }

    fn explain(&mut self, framed: Framed<'_>) -> Explained {
        let line = framed.bytes();
        // Of a longer one expressions get nothing: see the tail.
        let whole = match framed {
            Framed::Line(line) => line,
            Framed::Head(_) => &[],
        };
        let format = match &self.reader {
            Reader::Access(format) => Some(format),
            Reader::ErrorLog => None,
        };
        let mut explained = Explained {
            line: escaped(line),
            fits: true,
            format: format.map(FormatShown::of),
            misfit: None,
            fields: Vec::new(),
            client: None,
            jails: Vec::new(),
            others: self.expressions.explain(whole, &self.config, &self.exempt),
        };
        let mut access = Access::default();
        if let Err(misfit) = self.reader.read(framed, Trust::Whole, &mut access) {
            explained.fits = false;
            explained.misfit = Some(MisfitShown::of(line, misfit, format));
            return explained;
        }
        explained.fields = fields(&access, format, line);
        explained.client = access.client.map(|client| client.to_string());
        let mut hits = Vec::new();
        self.filter.hits(&access, &mut hits);
        let Self {
            config,
            filter,
            exempt,
            blind,
            unmeetable,
            ..
        } = self;
        let lacked_by = |list: &[(String, &'static str)], jail: &Jail| {
            let mut all = list.iter();
            all.find(|(name, _)| *name == jail.name)
                .map(|(_, lack)| *lack)
        };
        let jails = (0..).zip(config.native());
        explained.jails = jails
            .map(|(id, jail)| {
                let never = lacked_by(unmeetable, jail);
                // Values that all lines lack are one, however many lines fit.
                let hit = hits.iter().find(|hit| hit.jail == id && never.is_none());
                let why_not = match (hit, never) {
                    (Some(_), _) => None,
                    (None, Some(lack)) => Some(format!(
                        "the format has no {lack}, so nothing counts for it"
                    )),
                    (None, None) => filter.why_not(id, &access, jail),
                };
                let lacks = never.or(lacked_by(blind, jail));
                let spared = access
                    .client
                    .and_then(|client| spared(exempt, jail, id, client));
                JailShown::of(jail, hit, (why_not, lacks), spared, &access)
            })
            .collect();
        explained
    }
}

/// Why `jail` would never ban `client`.
fn spared(exempt: &Exempt, jail: &Jail, id: JailId, client: Client) -> Option<String> {
    let who = Target::Client(client.counted(jail.ipv6_prefix));
    exempt
        .check(who, Some(id))
        .err()
        .map(|spared| spared.to_string())
}

impl FormatShown {
    fn of(format: &Format) -> Self {
        let named = NICKNAMES.iter().find(|(_, text)| *text == format.text());
        Self {
            name: named.map(|(name, _)| *name),
            text: format.text().to_owned(),
            sealed: format.is_sealed(),
        }
    }
}

impl MisfitShown {
    fn of(line: &[u8], misfit: Misfit, format: Option<&Format>) -> Self {
        let is_error = || error_log::read(line, &mut Access::default()).is_ok();
        let would_fit = nickname(line)
            .map(|name| format!("--format {name}"))
            .or_else(|| (format.is_some() && is_error()).then(|| "--error-log".to_owned()));
        Self {
            column: misfit.at + 1,
            wants: misfit.wants.to_string(),
            would_fit,
            cited: Cited::new(line, misfit.at),
        }
    }
}

/// Every field that the line has, as it stands there and as the jails see it.
fn fields(access: &Access<'_>, format: Option<&Format>, line: &[u8]) -> Vec<FieldShown> {
    let number = |has: fn(&Format) -> bool, n: u64, unit: &str| {
        format.is_some_and(has).then(|| format!("{n}{unit}"))
    };
    let time = format
        .and_then(|format| format.logged(line))
        .and_then(DateTime::from_timestamp_micros);
    let time = time.map(|time| {
        time.with_timezone(&Local)
            .format("%Y-%m-%d %H:%M:%S%.f %z")
            .to_string()
    });
    let own = [
        ("client", access.client.map(|client| client.to_string())),
        ("peer", access.peer.map(|peer| peer.to_string())),
        ("time", time),
        (
            "status",
            number(Format::has_status, access.status.into(), ""),
        ),
        ("bytes", number(Format::has_bytes, access.bytes, "")),
        (
            "duration",
            number(Format::has_duration, access.micros, " us"),
        ),
    ];
    let own = own.into_iter().filter_map(|(name, text)| {
        Some(FieldShown {
            name,
            text: text?,
            decoded: None,
        })
    });
    let is_there = |field: &Field| match format {
        Some(format) => format.has(*field),
        None => *field == Field::Message,
    };
    let texts = TEXTS.into_iter().filter(is_there).map(|field| {
        let raw = access.text(field);
        let decoded = decoded(field, raw);
        FieldShown {
            name: field.key(),
            text: escaped(raw),
            decoded: (decoded != raw).then(|| escaped(&decoded)),
        }
    });
    own.chain(texts).collect()
}

/// A field as the jails see it.
fn decoded(field: Field, raw: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    unescape(raw, &mut text);
    if matches!(field, Field::Path | Field::Query) {
        percent_decode(&mut text);
    }
    text
}

fn escaped(bytes: &[u8]) -> String {
    let max = usize::MAX;
    Escaped { bytes, max }.to_string()
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Ban => "ban",
        Mode::Observe => "observe",
    }
}

/// -1: for ever.
fn seconds(bantime: BanFor) -> i64 {
    match bantime {
        BanFor::Timed(secs) => i64::from(secs.get()),
        BanFor::Forever => -1,
    }
}

impl JailShown {
    fn of(
        jail: &Jail,
        hit: Option<&Hit>,
        (why_not, lacks): (Option<String>, Option<&'static str>),
        spared: Option<String>,
        access: &Access<'_>,
    ) -> Self {
        let distinct = jail.rule.distinct.map(|distinct| match distinct {
            Distinct::Field(field) => DistinctShown {
                of: field.key(),
                value: Some(escaped(&decoded(field, access.text(field)))),
            },
            Distinct::Any => DistinctShown {
                of: "any",
                value: None,
            },
        });
        Self {
            name: jail.name.clone(),
            mode: mode_word(jail.mode),
            lacks,
            counts: hit.is_some(),
            weight: hit.map_or(0, |hit| hit.weight),
            distinct,
            why_not,
            spared,
            maxretry: jail.maxretry,
            findtime: jail.findtime.as_secs_f64(),
            bantime: seconds(jail.bantime),
        }
    }
}

impl Explained {
    /// For people.
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.format {
            Some(FormatShown { name, text, sealed }) => {
                let name = name.map_or_else(String::new, |name| format!("{name} = "));
                writeln!(out, "format   {name}{text}")?;
                if !sealed {
                    let limit = "while httpd's pipe is full, lines may be torn and such a format is not judged (f2b is)";
                    writeln!(out, "         {limit}")?;
                }
            }
            None => writeln!(out, "format   httpd's error log")?,
        }
        if let Some(misfit) = &self.misfit {
            misfit.show(out)?;
            return expressions::show(&self.others, out);
        }
        writeln!(out, "parse    fits")?;
        for field in &self.fields {
            let text = match field.text.as_str() {
                "" => "(empty)",
                text => text,
            };
            writeln!(out, "  {:<9}  {text}", field.name)?;
            if let Some(decoded) = &field.decoded {
                writeln!(out, "  {:<9}  read as {decoded}", "")?;
            }
        }
        let Some(client) = &self.client else {
            writeln!(
                out,
                "exempt   the line names no client, so it counts for nobody"
            )?;
            return expressions::show(&self.others, out);
        };
        self.show_exempt(client, out)?;
        let peer = self.fields.iter().find(|field| field.name == "peer");
        if let Some(peer) = peer.filter(|peer| peer.text != *client) {
            let limit = "and a packet filter sees only that: a ban would not hold here";
            writeln!(
                out,
                "         {client} comes through {}, {limit}",
                peer.text
            )?;
        }
        writeln!(out, "jails")?;
        self.jails.iter().try_for_each(|jail| jail.show(out))?;
        expressions::show(&self.others, out)
    }

    fn show_exempt(&self, client: &str, out: &mut dyn Write) -> io::Result<()> {
        let mut by_reason: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
        for jail in &self.jails {
            let reason = jail.spared.as_deref();
            by_reason.entry(reason).or_default().push(&jail.name);
        }
        for (reason, jails) in &by_reason {
            let jails = match by_reason.len() {
                1 => String::new(),
                _ => format!(" by {}", jails.join(", ")),
            };
            match reason {
                None => writeln!(out, "exempt   {client} may be banned{jails}")?,
                Some(reason) => {
                    writeln!(out, "exempt   {client} is never banned{jails}: {reason}")?
                }
            }
        }
        Ok(())
    }
}

impl MisfitShown {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "parse    does not fit, so the line counts for no jail of httpd's lines: at column {} there should be {}",
            self.column, self.wants
        )?;
        writeln!(out, "         {}", self.cited.text)?;
        writeln!(out, "         {:>1$}", "^", self.cited.column + 1)?;
        match &self.would_fit {
            Some(option) => writeln!(out, "         {option} would fit"),
            None => writeln!(
                out,
                "         if the whole log is like this, give the string of its LogFormat: --format '...'"
            ),
        }
    }
}

impl JailShown {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let name = &self.name;
        if !self.counts {
            let why_not = self.why_not.as_deref().unwrap_or_default();
            let short: String = why_not.chars().take(REASON_CHARS).collect();
            let dots = if short.len() < why_not.len() {
                "..."
            } else {
                ""
            };
            return writeln!(out, "  {name:<20}  no: {short}{dots}");
        }
        let findtime = Duration::from_secs_f64(self.findtime);
        let ban = match self.bantime {
            -1 => "for ever".to_owned(),
            secs => format!("for {secs}s"),
        };
        let (alone, together) = match self.mode {
            "observe" => ("would be", "would be"),
            _ => ("is", "are"),
        };
        let (hits, kind) = match &self.distinct {
            Some(DistinctShown { of: "any", .. }) => {
                ("once".to_owned(), " different findings".to_owned())
            }
            Some(DistinctShown { of, value }) => {
                let value = value.as_deref().unwrap_or_default();
                (
                    format!("once, for {of} {value}"),
                    format!(" different values of {of}"),
                )
            }
            None => (self.weight.to_string(), String::new()),
        };
        let spared = match self.spared {
            Some(_) => ", but never of this client",
            None => "",
        };
        if self.maxretry <= self.weight {
            writeln!(
                out,
                "  {name:<20}  counts {hits}: this line alone {alone} a ban {ban}{spared}"
            )?;
        } else {
            writeln!(
                out,
                "  {name:<20}  counts {hits}; {}{kind} within {findtime:?} {together} a ban {ban}{spared}",
                self.maxretry
            )?;
        }
        match self.lacks {
            Some(lack) => writeln!(
                out,
                "  {:<20}  it only observes: the format has no {lack}, by which it leaves clients out",
                ""
            ),
            None => Ok(()),
        }
    }
}

/// A line around one of its bytes, escaped, and where that byte is.
struct Cited {
    text: String,
    /// Characters of `text` before the byte.
    column: usize,
}

impl Cited {
    fn new(line: &[u8], at: usize) -> Self {
        let from = at.saturating_sub(AROUND_BYTES).min(line.len());
        let dots = if from > 0 { "..." } else { "" };
        let before = escaped(line.get(from..at).unwrap_or_default());
        let after = Escaped {
            bytes: line.get(at..).unwrap_or_default(),
            max: AROUND_BYTES,
        };
        Self {
            text: format!("{dots}{before}{after}"),
            column: dots.len() + before.len(),
        }
    }
}

/// The line around one of its bytes, escaped and not long.
pub(super) fn around(line: &[u8], at: usize) -> String {
    Cited::new(line, at).text
}

/// The format with a name that the line fits.
pub(super) fn nickname(line: &[u8]) -> Option<&'static str> {
    let fits = |format: &str| {
        let format = Format::compile(format);
        format.is_ok_and(|format| format.read(line, &mut Access::default()).is_ok())
    };
    let found = NICKNAMES.iter().find(|(name, _)| fits(name));
    found.map(|(name, _)| *name)
}
