//! Measurements of the machine, of this runtime and of what a user would run instead.
//!
//! - [`sample`]: one measured distribution, as every tool here prints and keeps it.
//! - [`load`]: offers an HTTP server requests, at a constant rate or as fast as it answers.
//! - [`suite`]: runs the cases in interleaved rounds and keeps what they measured.
//! - [`report`]: sums such a run up: summary, table, plots.

pub mod load;
pub mod report;
pub mod sample;
pub mod suite;
