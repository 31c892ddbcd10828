//! Lines to fields, strictly, and anchored at both ends.
//!
//! In: one line without its newline. Out: [`Access`], slices of the line, or a [`Misfit`] that says where reading
//! stopped. A line that does not fit is never counted against anybody: after a tear (two writers' pieces glued
//! together) the only protection is that the pieces do not look like a line.
//!
//! ```text
//! format.rs   a LogFormat string, compiled once into pieces between quotes; refuses what cannot be read safely
//! access.rs   one line by that format
//! swift.rs    the same for the lines that nearly all lines are
//! error_log.rs  one line of httpd's error log
//! time.rs     the shape of a logged time, and for `replay` its value
//! scan.rs     where a byte stands
//! text.rs     httpd's escapes and percent-encoding undone
//! ```

pub mod access;
pub mod error_log;
pub mod format;
pub(crate) mod scan;
mod swift;
pub mod text;
pub mod time;

pub use access::{Access, Misfit, Wants};
pub use format::{Format, FormatError};
