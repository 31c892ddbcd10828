//! Where bytes come from.

pub mod stdin;
