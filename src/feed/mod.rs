//! Hits on their way from a `run` to `watch`, so that the CustomLogs of all vhosts share their counts, and these outlive
//! every restart of httpd.
//!
//! ```text
//! run:   source ─> tee ─> frame ─> sift ─> Hit ─> Feeder ══ socket ══> Counting ─> judge ─> told   :watch
//!                                            └──> judge ─> told   (as long as no watch answers)
//! ```
//!
//! A `run` never waits for `watch`: it writes what the socket takes, and keeps every frame until `watch` says that it is
//! counted, decided and banned. What is not counted after [`PATIENCE`] the `run` counts by itself, and `watch` leaves alone
//! whatever is older than that. So a `watch` that is stopped, killed or restarted costs nobody's ban: at the worst a hit is
//! counted in both, in two tables that are never added up.

use std::time::Duration;

mod counting; // watch's side
mod feeder; // run's side
mod key; // one for the host
pub mod wire; // the words between them

pub use counting::{Counting, Fed, Feeds, Setting};
pub use feeder::Feeder;
pub use key::key;

/// After so long without an answer a `run` does the work itself.
pub const PATIENCE: Duration = Duration::from_millis(50);
