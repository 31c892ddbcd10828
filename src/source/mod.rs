//! Where bytes come from.

pub mod stdin;
pub mod tail;
