//! Where bytes come from.

pub mod journal;
pub mod stdin;
pub mod tail;
