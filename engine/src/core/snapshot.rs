//! What a function is doing and has done, for metrics and for whoever waits for quiet.

use ipc::Outcome;
use reactor::clock::Nanos;

use super::histogram::Histogram;

const OUTCOMES: usize = Outcome::ALL.len();

/// One function's present and past on this shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Calls that wait for a worker.
    pub queued: u32,
    /// Calls that wait in a lane behind another.
    pub pipelined: u32,
    /// Workers on a call, with no unanswered internal call.
    pub running: u16,
    /// Workers on a call, with unanswered internal calls.
    pub waiting: u16,
    /// Workers that wait for a call.
    pub idle: u16,
    /// Workers that were asked for and have not reported in.
    pub starting: u16,
    /// Workers whose result is being read.
    pub held: u16,
    /// Workers that were told to leave and have not left.
    pub retiring: u16,
    /// Concurrency that the measured load calls for, by Little's law, in thousandths.
    pub hint_milli: u64,
    /// Calls that may be on workers at once.
    pub limit: u16,
    /// What the hint takes for the processing time of a call, in ns; 0 before the first one ended.
    pub processing_ns: u64,
    /// Calls that came of late, in thousandths a second.
    pub rate_milli: u64,
    /// When rate and hint will be 0 if no call comes.
    pub silent_at: Nanos,
    /// Totals since start.
    pub counters: Counters,
}

/// Totals of one function. `arrivals` is the sum of all others plus the calls whose answers are
/// still owed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Calls that named this function, the refused ones included.
    pub arrivals: u64,
    /// Calls answered with success.
    pub completed: u64,
    /// Calls whose caller was gone before the answer.
    pub abandoned: u64,
    failed: [u64; OUTCOMES],
}

/// How long the calls of one function took, since start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Times {
    /// How long calls waited for a worker before they were dispatched.
    pub queue_delay: Histogram,
    /// How long calls ran, without the time that their own calls waited for workers.
    pub processing: Histogram,
}

impl Times {
    /// Takes over what another function has measured.
    pub(super) fn add(&mut self, other: &Times) {
        self.queue_delay.add(&other.queue_delay);
        self.processing.add(&other.processing);
    }
}

impl Counters {
    /// Calls answered or refused with this outcome; 0 for `Ok`.
    pub fn failed(&self, outcome: Outcome) -> u64 {
        self.failed[outcome as usize]
    }

    /// Calls answered or refused with any outcome but `Ok`.
    pub fn failed_total(&self) -> u64 {
        self.failed.iter().sum()
    }

    /// Takes over what another function has counted.
    pub(super) fn add(&mut self, other: &Counters) {
        self.arrivals += other.arrivals;
        self.completed += other.completed;
        self.abandoned += other.abandoned;
        for (to, from) in self.failed.iter_mut().zip(other.failed) {
            *to += from;
        }
    }

    pub(super) fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Ok => self.completed += 1,
            failure => self.failed[failure as usize] += 1,
        }
    }
}
