//! What became of every function's container: written by the supervisor, read by the shards for
//! metrics and readiness.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Breaker, Cause};
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
    /// None is started for a while, for they keep dying.
    Broken,
}

impl State {
    const ALL: [Self; 5] = [Self::Starting, Self::Up, Self::Idle, Self::Waking, Self::Broken];

    /// As it is listed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting | Self::Waking => "starting",
            Self::Up => "up",
            Self::Idle => "idle",
            Self::Broken => "broken",
        }
    }

    /// Whether calls are served as they should be, if after a cold start.
    #[must_use]
    pub fn is_healthy(self) -> bool {
        !matches!(self, Self::Starting | Self::Broken)
    }
}

/// One function's containers so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What the present one is doing.
    pub state: State,
    /// Whether they are started when they die.
    pub breaker: Breaker,
    /// Times that one was started.
    pub starts: u64,
    /// Those of them that were in the place of one that died.
    pub restarts: u64,
    /// Those of them that ended before the container was up.
    pub failed_starts: u64,
    /// Containers that ended and were not stopped, by [`Cause::KINDS`]; failed starts included.
    pub deaths: [u64; Cause::KINDS.len()],
    /// Why the last of these ended.
    pub last_death: Option<Arc<Cause>>,
    /// How long the last start took, from the start of the process until it said hello.
    pub start_time: Duration,
}

/// Relaxed throughout: each field stands alone, and a reader may see one newer than another.
#[derive(Debug)]
struct Cell {
    state: AtomicU8,
    breaker: AtomicU8,
    starts: AtomicU64,
    restarts: AtomicU64,
    failed_starts: AtomicU64,
    deaths: [AtomicU64; Cause::KINDS.len()],
    last_death: Mutex<Option<Arc<Cause>>>,
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
            breaker: AtomicU8::new(Breaker::Closed as u8),
            starts: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            failed_starts: AtomicU64::new(0),
            deaths: Default::default(),
            last_death: Mutex::new(None),
            start_ns: AtomicU64::new(0),
        };
        Self((0..functions).map(|_| cell()).collect())
    }

    /// What a function's container is doing.
    #[must_use]
    pub fn state(&self, function: FunctionId) -> State {
        self.0[function.index()].state()
    }

    /// One function's record.
    #[must_use]
    pub fn read(&self, function: FunctionId) -> Record {
        let cell = &self.0[function.index()];
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Record {
            state: cell.state(),
            breaker: Breaker::ALL[usize::from(cell.breaker.load(Ordering::Relaxed))],
            starts: get(&cell.starts),
            restarts: get(&cell.restarts),
            failed_starts: get(&cell.failed_starts),
            deaths: cell.deaths.each_ref().map(get),
            last_death: cell.last_death.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            start_time: Duration::from_nanos(get(&cell.start_ns)),
        }
    }

    /// Nothing is known of the function that gets this place.
    pub(super) fn reset(&self, index: usize) {
        let cell = &self.0[index];
        self.set_state(index, State::Starting);
        self.set_breaker(index, Breaker::Closed);
        let counts = [&cell.starts, &cell.restarts, &cell.failed_starts, &cell.start_ns];
        for count in counts.into_iter().chain(&cell.deaths) {
            count.store(0, Ordering::Relaxed);
        }
        *cell.last_death.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn set_state(&self, index: usize, state: State) {
        self.0[index].state.store(state as u8, Ordering::Relaxed);
    }

    pub(super) fn set_breaker(&self, index: usize, breaker: Breaker) {
        self.0[index].breaker.store(breaker as u8, Ordering::Relaxed);
    }

    /// A start, of the first one, for a call of an idle function, or else in the place of one that died.
    pub(super) fn count_start(&self, index: usize) {
        let cell = &self.0[index];
        let is_first = cell.starts.fetch_add(1, Ordering::Relaxed) == 0;
        if !is_first && cell.state() != State::Waking {
            cell.restarts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A container died, or `was_up` not even once.
    pub(super) fn count_death(&self, index: usize, cause: &Arc<Cause>, was_up: bool) {
        let cell = &self.0[index];
        let Some(place) = cause.place() else { return };
        cell.deaths[place].fetch_add(1, Ordering::Relaxed);
        if !was_up {
            cell.failed_starts.fetch_add(1, Ordering::Relaxed);
        }
        *cell.last_death.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(cause));
    }

    pub(super) fn set_start_time(&self, index: usize, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0[index].start_ns.store(ns, Ordering::Relaxed);
    }
}

impl Cell {
    fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Ordering::Relaxed))]
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
        for breaker in Breaker::ALL {
            records.set_breaker(1, breaker);
            assert_eq!(records.read(FunctionId(1)).breaker, breaker);
        }
        let other = records.read(FunctionId(0));
        assert_eq!((other.state, other.breaker), (State::Starting, Breaker::Closed));
    }

    #[test]
    fn what_is_started_after_a_death_is_a_restart_and_what_a_call_wakes_is_none() {
        let records = Records::new(1);
        records.count_start(0);
        let death = Arc::new(Cause::Exit { code: 1 });
        records.count_death(0, &death, true);
        records.count_start(0);
        records.count_death(0, &death, false);
        records.set_state(0, State::Waking);
        records.count_start(0);
        let record = records.read(FunctionId(0));
        assert_eq!((record.starts, record.restarts, record.failed_starts), (3, 1, 1));
        assert_eq!((record.deaths[0], record.deaths.iter().sum()), (2, 2_u64));
        assert_eq!(record.last_death, Some(death));
        records.count_death(0, &Arc::new(Cause::Stopped), true);
        assert_eq!(records.read(FunctionId(0)), record, "a stop is no death");
    }
}
