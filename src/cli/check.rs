//! `check`: everything that would not work on this host.
use std::io::Write;

use super::{CheckArgs, Done, Failure};

/// stub
pub fn check(_args: &CheckArgs, _out: &mut dyn Write) -> Done {
    Err(Failure::Usage("not written yet".into()))
}
