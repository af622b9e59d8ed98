//! One fuzzer for all targets: the environment's `FUZZ_TARGET` names the one that runs. A target takes
//! bytes and panics when something does not hold; libFuzzer makes the bytes and reports the panic.
//!
//! In the order a request meets what they try:
//! - `config`: text that should be a configuration;
//! - `auth`: what is shown at the door, and the files of its keys;
//! - `control`: packets between launcher and engine, and their descriptors;
//! - `request`: what a client sends, in pieces of any size;
//! - `envelope`, `descriptor`: what travels in a lane;
//! - `engine_side`: a container that writes anything anywhere in its memory;
//! - `worker_side`: an engine that does;
//! - `answer`: what a function answers, on its way to the client;
//! - `output`: what it prints;
//! - `link`: what engines and gateways on other hosts say, before and after they are known.
//!
//! Beside them: `input` reads values from the bytes, `shared` writes into a channel's memory as the
//! other side of it would, `front` is a gateway with one client, `reading` what that client sees,
//! `bound` ends a try that allocates too much.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

mod answer;
mod auth;
mod bound;
mod config;
mod control;
mod descriptor;
mod engine_side;
mod envelope;
mod front;
mod input;
mod link;
mod output;
mod reading;
mod request;
mod shared;
mod worker_side;

/// Of the command, compiled from its files: as a dependency it would bring all of its own.
#[path = "../../cli/src"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the command uses what a target does not"
)]
mod command {
    pub mod config;
}

/// Its name, and what tries bytes.
type Target = (&'static str, fn(&[u8]));

const TARGETS: &[Target] = &[
    ("config", config::run),
    ("auth", auth::run),
    ("control", control::run),
    ("request", request::run),
    ("envelope", envelope::run),
    ("descriptor", descriptor::run),
    ("engine_side", engine_side::run),
    ("worker_side", worker_side::run),
    ("answer", answer::run),
    ("output", output::run),
    ("link", link::run),
];

#[global_allocator]
static ALLOCATOR: bound::Bounded = bound::Bounded;

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
