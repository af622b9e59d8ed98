//! What the prototype's engine reports, and what ends it.

use std::io;
use std::time::Duration;

use super::lease::Reason;
use super::wire::Ended;

/// Far longer than anything here takes: ends a run in which somebody waits for ever.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A pair got a lease.
    Granted {
        /// Caller, callee.
        workers: [usize; 2],
        /// Which one, from 1.
        epoch: u32,
    },
    /// The engine ended a lease.
    Revoked {
        /// Caller, callee.
        workers: [usize; 2],
        /// Why.
        reason: Reason,
    },
    /// The callee has left a lease and is free.
    Freed(usize),
    /// A parent call is over.
    Ended(usize, Ended),
    /// A worker's process is gone.
    Died(usize),
    /// A worker says that its peer broke the protocol.
    Accused {
        /// Who says so.
        by: usize,
        /// What.
        fault: String,
    },
}

/// What ends a run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The system refused.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// Nothing that was waited for has happened.
    #[error("waited {PATIENCE:?} in vain until {0}")]
    Silent(&'static str),
}
