//! HTTP/2 and gRPC at the gateway's door, on a port and a thread of their own.
//!
//! `hyper` and `tokio` speak the protocol; what a request means and may is the gateway's to say
//! (`gateway::intake`), and its call crosses to a shard (`gateway::portal`), into the same admission
//! and dispatch as one of HTTP/1.1. Nothing here is on the path of HTTP/1.1.
//!
//! The modules, in the order a request meets them:
//! - `door`: the thread; accepts, drains
//! - `config`, `stats`: what an operator sets and sees
//! - `connection`: one client, and the limits it lives by
//! - `transport`: its bytes, with `census`: what its frames look like
//! - `runtime`: what `hyper` needs of `tokio`
//! - `activity`, `ledger`: what it is doing, and what it makes the server hold
//! - `exchange`: one request; `grpc`: one that is a call of gRPC
//! - `gather`: its body; `unwanted`: what is left of one that nobody asks for
//! - `desk`: the way to the shards and back
//! - `body`: the answer on its way out
//! - `line`: what the access log is told of it
#![forbid(unsafe_code)]

mod activity;
mod body;
mod census;
mod config;
mod connection;
mod desk;
mod door;
mod exchange;
mod gather;
mod grpc;
mod ledger;
mod line;
mod runtime;
mod stats;
mod transport;
mod unwanted;

pub use config::Config;
pub use desk::Shards;
pub use door::{Certificates, Door, Handle, Listener, Security, Stage};
pub use ledger::Ledger;
pub use stats::Stats;
