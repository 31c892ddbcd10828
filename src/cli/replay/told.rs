//! What is told of a decision, for people and for scripts.

use std::io::{self, Write};

use chrono::{DateTime, Local};
use serde::Serialize;

use crate::hit::JailId;
use crate::key::Key;

/// What is told of a decision. Times are seconds since the epoch.
pub(super) struct Told {
    pub(super) time: f64,
    pub(super) jail: JailId,
    pub(super) who: Key,
    pub(super) hits: u32,
    pub(super) what: What,
}

pub(super) enum What {
    /// Until when; `None`: for ever.
    Ban(Option<f64>),
    /// The same.
    Prolong(Option<f64>),
    /// At the time of the decision.
    Unban,
    /// Nobody is banned: in a word, and why.
    Not(&'static str, String),
}

/// What people are told where a jail only observes.
pub(super) const WOULD_BAN: &str = "would ban";

impl What {
    /// That the jail would ban, if it did not only observe.
    pub(super) fn observed() -> Self {
        Self::Not(WOULD_BAN, "mode = \"observe\"".to_owned())
    }

    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Ban(_) => "ban",
            Self::Prolong(_) => "prolong",
            Self::Unban => "unban",
            Self::Not(word, _) => word,
        }
    }
}

/// One line of `--json`.
#[derive(Serialize)]
struct Object<'a> {
    time: f64,
    jail: &'a str,
    ip: String,
    action: &'a str,
    until: Option<f64>,
    hits: u32,
}

impl Told {
    /// As a script reads it.
    pub(super) fn write_json(&self, jail: &str, out: &mut dyn Write) -> io::Result<()> {
        let object = Object {
            time: self.time,
            jail,
            ip: self.who.to_string(),
            action: self.what.word(),
            until: match self.what {
                What::Ban(until) | What::Prolong(until) => until,
                What::Unban => Some(self.time),
                What::Not(..) => None,
            },
            hits: self.hits,
        };
        writeln!(out, "{}", serde_json::to_string(&object)?)
    }

    /// As people read it.
    pub(super) fn write(&self, jail: &str, out: &mut dyn Write) -> io::Result<()> {
        let text = match &self.what {
            What::Ban(None) | What::Prolong(None) => "for ever".to_owned(),
            What::Ban(Some(end)) | What::Prolong(Some(end)) => {
                format!("until {}", day_and_time(*end))
            }
            What::Unban => String::new(),
            What::Not(_, why) => why.clone(),
        };
        let hits = match self.hits {
            0 => String::new(),
            n => format!("{n} hits"),
        };
        // A text that a stranger chose must not move the cursor.
        let who = self.who.to_string();
        let line = format!(
            "{}  {:<10}  {:<20}  {jail:<20}  {hits:>11}  {text}",
            day_and_time(self.time),
            self.what.word(),
            who.escape_debug().to_string(),
        );
        writeln!(out, "{}", line.trim_end())
    }
}

/// A moment in local time.
pub(in crate::cli) fn day_and_time(at: f64) -> String {
    DateTime::from_timestamp_micros(micros(at)).map_or_else(
        || "?".to_owned(),
        |time| {
            time.with_timezone(&Local)
                .format("%Y-%m-%d %H:%M:%S")
                .to_string()
        },
    )
}

/// Seconds since the epoch as microseconds, to the nearest.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a cast of a float saturates, and no time is near that"
)]
pub(super) fn micros(at: f64) -> i64 {
    (at * 1e6).round() as i64
}

/// Microseconds since the epoch as seconds.
pub(in crate::cli) fn secs(micros: i64) -> f64 {
    micros as f64 / 1e6
}
