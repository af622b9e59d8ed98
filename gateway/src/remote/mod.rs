//! Engines on other hosts: which of them gets a call, what is kept of it until it is answered, and
//! what becomes of it when its engine is lost.
//!
//! The modules, in the order a call meets them:
//! - `balance`: which engine gets it; pure
//! - `queue`: where it waits while all are full

pub mod balance;
mod queue;
#[cfg(test)]
mod simulation;
