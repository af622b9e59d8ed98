//! Direct hand-off, a prototype to measure: after a first call through the engine, caller and
//! callee talk over a lease, and the engine only observes and revokes.
//!
//! `docs/adr/0006-direct-hand-off.md` has the figures and what follows from them. The modules, in the
//! order a lease meets them:
//! - [`engine`]: relays, grants and revokes, with [`pair`] what it holds of two workers and
//!   [`event`] what it reports;
//! - [`wire`]: how it talks to workers while no lease does;
//! - [`region`]: the memories of a pair, and who may write which;
//! - [`lease`]: the two ends, and how a lease ends without losing a call or running it twice;
//! - [`wake`]: the ways of waiting that are compared;
//! - [`worker`]: the workers' process, and [`conduct`] what it does that it should not;
//! - [`measure`]: the command.

pub mod conduct;
pub mod engine;
pub mod event;
pub mod lease;
pub mod measure;
pub mod pair;
pub mod region;
pub mod wake;
pub mod wire;
pub mod worker;

pub use measure::{Arguments, run};
pub use worker::{WorkerArguments, run_worker};
