//! Measurements of the machine, of this runtime and of what a user would run instead.
//!
//! - [`limits`]: what the machine allows: wake-ups and copies.
//! - [`channel`]: the channel between engine and worker, without either.
//! - [`case`](mod@case): cases by name, and the printing of their results.
//! - [`process`]: forking, pinning and ending the processes of a measurement.
//! - [`page_buffer`]: private memory whose place does not decide what a copy costs.
//! - [`sample`]: one measured distribution, as every tool here prints and keeps it.
//! - [`handoff`]: calls that a caller hands to a callee directly, a prototype.
//! - [`load`]: offers an HTTP server requests, at a constant rate or as fast as it answers.
//! - [`suite`]: runs the cases in interleaved rounds and keeps what they measured.
//! - [`concurrency`]: pools of workers that manage their size, beside fixed ones.
//! - [`apart`]: gateway and engine in processes of their own, and TLS.
//! - [`containers`]: what the isolation of a container costs, by its kind.
//! - [`report`]: sums such a run up: summary, table, plots.

pub mod apart;
pub mod case;
pub mod channel;
pub mod concurrency;
pub mod containers;
pub mod handoff;
pub mod limits;
pub mod load;
pub mod page_buffer;
pub mod process;
pub mod report;
pub mod sample;
pub mod suite;
