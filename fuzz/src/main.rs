//! One fuzzer for all targets: the environment's `FUZZ_TARGET` names the one that runs. A target takes
//! bytes and panics when something does not hold; libFuzzer makes the bytes and reports the panic.
//!
//! In the order a request meets what they try:
//! - `config`: text that should be a configuration;
//! - `control`: packets between launcher and engine, and their descriptors;
//! - `request`: what a client sends, in pieces of any size;
//! - `envelope`, `descriptor`: what travels in a lane;
//! - `engine_side`: a container that writes anything anywhere in its memory;
//! - `worker_side`: an engine that does;
//! - `answer`: what a function answers, on its way to the client.
//!
//! Beside them: `input` reads values from the bytes, `shared` writes into a channel's memory as the
//! other side of it would, `front` is a gateway with one client.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

mod config;
mod control;
mod descriptor;
mod engine_side;
mod envelope;
mod input;
mod shared;
mod worker_side;

/// Name and function of each target.
const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("config", config::run),
    ("control", control::run),
    ("descriptor", descriptor::run),
    ("envelope", envelope::run),
    ("engine_side", engine_side::run),
    ("worker_side", worker_side::run),
];

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    match TARGETS.iter().find(|(target, _)| *target == name) {
        Some((_, run)) => *run,
        None => {
            let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            eprintln!("FUZZ_TARGET must be one of: {}", names.join(" "));
            std::process::exit(2);
        }
    }
});

fuzz_target!(|data: &[u8]| TARGET(data));
