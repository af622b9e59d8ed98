//! Engines on other hosts: which of them gets a call, what is kept of it until it is answered, and
//! what becomes of it when its engine is lost (`docs/balance.md`).
//!
//! [`Remote`] is one shard's part. Its owner passes it the reactor's events and the time, submits calls
//! and fetches their answers, and flushes it once a turn.
//!
//! The modules, in the order a call meets them:
//! - `links`: the links of a shard
//! - `submit`: calls on their way there, with `call` for what is kept of them
//! - `directory`: functions by name
//! - [`balance`]: which engine gets a call; pure, with `random` for its draws
//! - `queue`: where it waits while all are full
//! - `peer`: a link, with what its engine has said
//! - `receive`: what engines say
//! - `loss`: what becomes of a call whose engine is lost
//! - `key`: names of links and calls in tokens and streams
//! - `metrics`, `board`: what an operator sees

pub mod balance;
#[cfg(test)]
mod balance_tests;
mod board;
mod call;
#[cfg(test)]
mod chaos;
mod directory;
mod key;
mod links;
mod loss;
mod metrics;
mod peer;
mod queue;
mod random;
mod receive;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod stage;
mod submit;
#[cfg(test)]
mod tests;

pub use board::Board;
pub use key::owns;
pub use links::{Config, JoinError, Remote};
