//! `explain`: each room's view of one line.
use std::io::Write;

use super::{Done, ExplainArgs, Failure};
use crate::parse::format::NICKNAMES;
use crate::parse::text::Escaped;
use crate::parse::{Access, Format};

/// stub
///
/// # Errors
/// Always.
pub fn explain(_args: &ExplainArgs, _out: &mut dyn Write) -> Done {
    Err(Failure::Usage("not written yet".into()))
}

/// How many bytes of a line are shown on each side of the one it is about.
const AROUND_BYTES: usize = 60;

/// A line around one of its bytes, escaped.
pub(super) fn around(line: &[u8], at: usize) -> String {
    let from = at.saturating_sub(AROUND_BYTES).min(line.len());
    let dots = if from > 0 { "..." } else { "" };
    let shown = Escaped {
        bytes: line.get(from..).unwrap_or_default(),
        max: 2 * AROUND_BYTES,
    };
    format!("{dots}{shown}")
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
