//! `demo`: all of it in a private network namespace.
use std::io::Write;

use super::{DemoArgs, Done, Failure};

/// stub
pub fn demo(_args: &DemoArgs, _out: &mut dyn Write) -> Done {
    Err(Failure::Usage("not written yet".into()))
}
