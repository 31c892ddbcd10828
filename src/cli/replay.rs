//! `replay`: the decisions on an old log.
use std::io::Write;

use super::{Done, Failure, ReplayArgs};

/// stub
pub fn replay(_args: &ReplayArgs, _out: &mut dyn Write) -> Done {
    Err(Failure::Usage("not written yet".into()))
}
