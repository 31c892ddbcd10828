//! What `test` looks for: the expressions of a filter, of a jail, or one that was typed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::{Failure, TestArgs};
use crate::config::{self, Jail, LineSource, Origin, Raw};
use crate::date;
use crate::fail2ban::{UseDns, read_filter};
use crate::failregex::Rules;
use crate::source::journal::{Event, Journal, Place, Query};
use crate::source::tail::Encoding;

/// How long the journal is waited for at a time.
const WAIT: Duration = Duration::from_millis(100);

/// What is looked for.
#[derive(Debug)]
pub(super) struct Sought {
    pub(super) rules: Rules,
    /// What of the journal is read.
    pub(super) journalmatch: Vec<Vec<String>>,
    /// For people, a line each.
    pub(super) described: Vec<String>,
}

/// Finds it.
///
/// # Errors
/// There is no such filter or jail, or it cannot be used.
pub(super) fn sought(args: &TestArgs) -> Result<Sought, Failure> {
    let loaded = config::load(&args.place.config);
    let own = args
        .place
        .config
        .parent()
        .unwrap_or(Path::new("/"))
        .to_path_buf();
    let theirs = args
        .config_dir
        .clone()
        .or_else(|| loaded.config.fail2ban.clone());
    let mut jails = loaded.config.jails.iter();
    let jail = jails
        .find(|jail| jail.name == args.filter)
        .and_then(|jail| Some((jail, jail.raw.as_deref()?)));
    // Whoever names a folder means its filters and no others. A name that both have is one of fail2ban's to a jail of it.
    let folders: Vec<PathBuf> = match (&args.config_dir, jail) {
        (Some(dir), _) => vec![dir.clone()],
        (None, Some((_, raw))) if raw.origin == Origin::Fail2ban => {
            theirs.into_iter().chain([own]).collect()
        }
        (None, _) => std::iter::once(own).chain(theirs).collect(),
    };
    let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    let journal = matches!(args.log.as_str(), "systemd-journal" | "journal") || args.stamped;
    let mut sought = if is_name(&args.filter) {
        let backend = if journal { "systemd" } else { "auto" };
        let of_jail = |(jail, raw): (&Jail, &Raw)| Sought {
            described: vec![format!(
                "Use        failregex jail : {} ({})",
                jail.name, jail.written
            )],
            journalmatch: raw.journalmatch.clone(),
            rules: raw.rules.clone(),
        };
        // A jail is more than the filter of its name: it may have expressions and dates of its own. But one that reads
        // the journal judges lines without the beginning that they have in a file.
        let same = |(_, raw): &(&Jail, &Raw)| {
            args.config_dir.is_none()
                && !raw.counts_bans
                && journal == (raw.backend == LineSource::Journal)
        };
        match (
            jail.filter(same),
            read_filter(&folders, &args.filter, backend),
        ) {
            (Some(jail), _) => of_jail(jail),
            (None, Ok(found)) => Sought {
                described: vec![format!("Use      failregex filter : {}", args.filter)],
                journalmatch: found.journalmatch.clone(),
                rules: Rules::of(&found, None),
            },
            (None, Err(problem)) => match jail {
                Some(jail) => of_jail(jail),
                None => return Err(Failure::Usage(problem.to_string())),
            },
        }
    } else {
        Sought {
            described: vec!["Use        failregex line : as written".to_owned()],
            journalmatch: Vec::new(),
            rules: Rules {
                failregex: vec![args.filter.clone()],
                maxlines: 1,
                ..Rules::default()
            },
        }
    };
    let rules = &mut sought.rules;
    if let Some(ignore) = &args.ignoreregex {
        rules.ignoreregex.push(ignore.clone());
    }
    if let Some(pattern) = &args.datepattern {
        rules.datepattern = pattern.lines().map(str::to_owned).collect();
    }
    if let Some(zone) = &args.timezone {
        rules.logtimezone = Some(zone.clone());
    }
    if let Some(lines) = args.maxlines {
        rules.maxlines = lines.max(1);
    }
    if let Some(how) = &args.usedns {
        rules.usedns = match how.as_str() {
            "yes" => UseDns::Yes,
            "warn" => UseDns::Warn,
            "no" => UseDns::No,
            "raw" => UseDns::Raw,
            _ => {
                let text = format!("--usedns: \"{how}\" is none of yes, warn, no, raw");
                return Err(Failure::Usage(text));
            }
        };
    }
    if args.raw {
        rules.usedns = UseDns::Raw;
    }
    if let Some(text) = &args.journalmatch {
        sought.journalmatch = vec![text.split_ascii_whitespace().map(str::to_owned).collect()];
    }
    let described = &mut sought.described;
    described.push(format!(
        "Use              maxlines : {}",
        sought.rules.maxlines
    ));
    if !sought.rules.datepattern.is_empty() {
        described.push(format!(
            "Use           datepattern : {}",
            sought.rules.datepattern.join(" | ")
        ));
    }
    Ok(sought)
}

/// `sshd`, `sshd[mode=aggressive]`, `./filter.d/own.conf`: the letters that a name has, and options behind it.
fn is_name(text: &str) -> bool {
    let (name, options) = text
        .split_once('[')
        .map_or((text, None), |(name, rest)| (name, Some(rest)));
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/_.-".contains(&b))
        && options.is_none_or(|rest| rest.trim_end().ends_with(']'))
}

/// Hands all entries of the journal to `take`, with their times.
///
/// # Errors
/// journalmatch is none, or the journal cannot be read; or what `take` returns.
pub(super) fn journal(
    sought: &Sought,
    encoding: Encoding,
    take: &mut dyn FnMut(f64, &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let lines: Vec<String> = sought
        .journalmatch
        .iter()
        .map(|words| words.join(" "))
        .collect();
    let lines = lines.iter().map(String::as_str);
    let query = Query::new(lines, Place::default(), encoding)
        .map_err(|error| Failure::Usage(format!("journalmatch: {error}")))?;
    let mut journal = Journal::new(query, None, 0.0, date::now());
    let (mut ended, mut done) = (false, Ok(()));
    while !ended && done.is_ok() {
        let read = journal.wait(WAIT, &mut |event| match event {
            Event::Entry { text, time, .. } if done.is_ok() => done = take(time, text),
            Event::Entry { .. } => {}
            Event::ReachedEnd => ended = true,
            Event::Well => {}
            Event::Trouble { text } => done = Err(Failure::Usage(format!("journal: {text}"))),
        });
        read.map_err(|error| Failure::Usage(format!("journal: {error}")))?;
    }
    done
}
