//! What the end-to-end tests share: the real `nightcore`, a client that forgives nothing, and eyes
//! in `/proc`.
//!
//! Every test has a stack of its own, with just the functions it needs: they run in any order, in
//! threads of one process or in processes of their own. A stack ends with its test, whatever becomes
//! of it. Times in here are watchdogs: a test that waits for one has failed.

pub mod apart;
pub mod binaries;
pub mod client;
pub mod cluster;
pub mod config;
pub mod fault;
pub mod functions;
pub mod gateway;
pub mod http2;
pub mod load;
pub mod process;
pub mod random;
pub mod stack;
pub mod tls;
pub mod watchdog;

pub use client::{Answer, Connection, get, post, request};
pub use cluster::Cluster;
pub use config::functions;
pub use http2::{Http2, Http2Answer};
pub use random::Random;
pub use stack::Stack;
pub use watchdog::wait_until;
