//! `explain`: each room's view of one line.
use std::io::Write;

use super::{Done, ExplainArgs, Failure};

/// stub
pub fn explain(_args: &ExplainArgs, _out: &mut dyn Write) -> Done {
    Err(Failure::Usage("not written yet".into()))
}
