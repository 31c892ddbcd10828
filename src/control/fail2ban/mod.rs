//! fail2ban's socket: `fail2ban-client` and whatever else speaks to it.
//!
//! ```text
//! socket ─> pickle ─> commands (status, get, set) ─> the process in charge
//! ```
//!
//! Clients send lists of words as pickles and get a pair back: 0 and a value, or 1 and an exception, which they show. The
//! words, their order and the values are fail2ban 1.0.2's; what its server has and this program has not is told by the
//! error fail2ban has for it, or by words of our own where it has none.

mod answering; // when, and where
pub mod commands; // a command to an answer
#[cfg(test)]
mod fake; // a program for tests
mod get; // what is set
pub mod host; // the process in charge, asked
pub mod pickle; // Python's pickles, data only
mod python; // what Python says
pub mod server; // what commands ask of the program
mod set; // what is to be set
pub mod socket; // who may speak, how much, how long
mod status; // who is banned

pub use answering::Answering;
