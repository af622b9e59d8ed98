//! The reactor against a real kernel: sockets on loopback, eventfds, other rings.

#![allow(clippy::unwrap_used, reason = "tests, whose shared code lies outside test functions")]

mod allocation;
mod doorbells;
mod endings;
mod harness;
mod messages;
mod network;
mod quiet;
mod setup;
mod starvation;
mod waiting;
mod wheel;
