//! What the parts of a call cost when nobody sleeps: `cargo bench -p nightcore-bench`.
//!
//! Both sides of a channel run in one thread, so there is no wake-up, no cache line that moves
//! between cores and no system call: these figures are the floor under a call's latency, and the
//! part of it that a change to our own code can move. `docs/benchmarking.md` says how to read them.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "criterion's macro makes a public function without a comment")]

mod channel;
mod core;
mod envelope;
mod stats;

use criterion::{criterion_group, criterion_main};

criterion_group!(micro, channel::bench, core::bench, envelope::bench, stats::bench);
criterion_main!(micro);
