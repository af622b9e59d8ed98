//! Measurements of the machine, of this runtime and of what a user would run instead.
//!
//! - [`sample`]: one measured distribution, as every tool here prints and keeps it.
//! - [`suite`]: runs the cases in interleaved rounds and keeps what they measured.
//! - [`report`]: sums such a run up: summary, table, plots.

pub mod report;
pub mod sample;
pub mod suite;
