//! What became of every function's container: written by the supervisor, read by the shards for
//! metrics and readiness.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::core::FunctionId;

/// What a function's container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// It does not run, and should: the first one, or one after a fault.
    Starting,
    /// It runs.
    Up,
    /// It was stopped because nobody called the function.
    Idle,
    /// It is started because somebody calls an idle function.
    Waking,
}

impl State {
    const ALL: [Self; 4] = [Self::Starting, Self::Up, Self::Idle, Self::Waking];

    /// As it is listed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting | Self::Waking => "starting",
            Self::Up => "up",
            Self::Idle => "idle",
        }
    }

    /// Whether calls are served as they should be, if after a cold start.
    #[must_use]
    pub fn is_healthy(self) -> bool {
        self != Self::Starting
    }
}

/// One function's containers so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What the present one is doing.
    pub state: State,
    /// Processes that were started.
    pub starts: u64,
    /// How long the last start took, from the start of the process until it said hello.
    pub start_time: Duration,
}

/// Relaxed throughout: each field stands alone, and a reader may see one newer than another.
#[derive(Debug)]
struct Cell {
    state: AtomicU8,
    starts: AtomicU64,
    start_ns: AtomicU64,
}

/// The records of all functions.
#[derive(Debug)]
pub struct Records(Vec<Cell>);

impl Records {
    /// Of `functions` functions whose first containers are yet to start.
    #[must_use]
    pub fn new(functions: usize) -> Self {
        let cell = || Cell {
            state: AtomicU8::new(State::Starting as u8),
            starts: AtomicU64::new(0),
            start_ns: AtomicU64::new(0),
        };
        Self((0..functions).map(|_| cell()).collect())
    }

    /// One function's record.
    #[must_use]
    pub fn read(&self, function: FunctionId) -> Record {
        let cell = &self.0[function.index()];
        let state = usize::from(cell.state.load(Ordering::Relaxed));
        Record {
            state: State::ALL[state],
            starts: cell.starts.load(Ordering::Relaxed),
            start_time: Duration::from_nanos(cell.start_ns.load(Ordering::Relaxed)),
        }
    }

    /// Nothing is known of the function that gets this place.
    pub(super) fn reset(&self, index: usize) {
        let cell = &self.0[index];
        cell.state.store(State::Starting as u8, Ordering::Relaxed);
        cell.starts.store(0, Ordering::Relaxed);
        cell.start_ns.store(0, Ordering::Relaxed);
    }

    pub(super) fn set_state(&self, index: usize, state: State) {
        self.0[index].state.store(state as u8, Ordering::Relaxed);
    }

    pub(super) fn count_start(&self, index: usize) {
        self.0[index].starts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_start_time(&self, index: usize, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0[index].start_ns.store(ns, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_read_as_it_was_written() {
        let records = Records::new(2);
        for state in State::ALL {
            records.set_state(1, state);
            assert_eq!(records.read(FunctionId(1)).state, state);
        }
        assert_eq!(records.read(FunctionId(0)).state, State::Starting);
    }
}
