//! Counters of every function on every shard, written by the shards, read by whoever serves metrics.
//!
//! Each cell has one writer, its shard, which publishes before it sleeps. A reader may see one field
//! newer than another; sums are for people and dashboards. What is decided by them, that a container
//! seems idle, is for the shards to confirm.

use std::sync::atomic::{AtomicU64, Ordering};

use ipc::Outcome;
use reactor::clock::Nanos;

use crate::container::Records;
use crate::core::{FunctionId, Snapshot};

/// Every way a call can fail, in the order of the metric's labels: all outcomes but the first, `Ok`.
pub const FAILURES: &[Outcome] = Outcome::ALL.split_at(1).1;

/// One function on one shard.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell {
    gauges: [AtomicU64; GAUGES],
    arrivals: AtomicU64,
    completed: AtomicU64,
    abandoned: AtomicU64,
    failed: [AtomicU64; FAILURES.len()],
    /// When a call last came, waited or ran, in ns of the monotonic clock.
    active_ns: AtomicU64,
}

const GAUGES: usize = 6;

/// One function, summed over the shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls waiting for a worker.
    pub queued: u64,
    /// Workers that run a call.
    pub running: u64,
    /// Workers that wait for an internal call of theirs.
    pub waiting: u64,
    /// Workers without a call.
    pub idle: u64,
    /// Workers asked for and not there yet.
    pub starting: u64,
    /// Workers whose result is still being sent, or that are leaving.
    pub ending: u64,
    /// Calls that named the function.
    pub arrivals: u64,
    /// Calls that succeeded.
    pub completed: u64,
    /// Calls whose caller went away.
    pub abandoned: u64,
    /// Calls that failed, by [`FAILURES`].
    pub failed: [u64; FAILURES.len()],
}

impl Totals {
    /// Threads that the function has.
    #[must_use]
    pub fn workers(&self) -> u64 {
        self.running + self.waiting + self.idle + self.ending
    }
}

/// See the module's description.
#[derive(Debug)]
pub struct Stats {
    shards: usize,
    cells: Vec<Cell>,
    /// The functions' containers, of which the supervisor keeps the records.
    pub containers: Records,
}

impl Stats {
    /// Makes room for `functions` functions on `shards` shards.
    #[must_use]
    pub fn new(functions: usize, shards: u16) -> Self {
        let shards = usize::from(shards);
        let cells = (0..functions * shards).map(|_| Cell::default()).collect();
        Self { shards, cells, containers: Records::new(functions) }
    }

    /// Replaces what is known of one function on one shard. Called by that shard alone.
    pub fn publish(&self, shard: u16, function: FunctionId, snapshot: &Snapshot, now: Nanos) {
        let Some(cell) = self.cells.get(function.index() * self.shards + usize::from(shard)) else {
            return;
        };
        let set = |to: &AtomicU64, value: u64| to.store(value, Ordering::Relaxed);
        let gauges = [
            u64::from(snapshot.queued + snapshot.pipelined),
            u64::from(snapshot.running),
            u64::from(snapshot.waiting),
            u64::from(snapshot.idle),
            u64::from(snapshot.starting),
            u64::from(snapshot.held) + u64::from(snapshot.retiring),
        ];
        let was_busy = cell.is_busy();
        for (to, value) in cell.gauges.iter().zip(gauges) {
            set(to, value);
        }
        let has_come = cell.arrivals.load(Ordering::Relaxed) != snapshot.counters.arrivals;
        if was_busy || has_come || cell.is_busy() {
            set(&cell.active_ns, now.0);
        }
        set(&cell.arrivals, snapshot.counters.arrivals);
        set(&cell.completed, snapshot.counters.completed);
        set(&cell.abandoned, snapshot.counters.abandoned);
        for (to, &outcome) in cell.failed.iter().zip(FAILURES) {
            set(to, snapshot.counters.failed(outcome));
        }
    }

    /// When a call of the function last came, waited or ran, as far as it is published.
    #[must_use]
    pub fn active_at(&self, function: FunctionId) -> Nanos {
        let active = self.cells_of(function).iter().map(|cell| &cell.active_ns);
        Nanos(active.map(|at| at.load(Ordering::Relaxed)).max().unwrap_or(0))
    }

    /// Sums one function over the shards.
    #[must_use]
    pub fn totals(&self, function: FunctionId) -> Totals {
        let mut sum = Totals::default();
        for cell in self.cells_of(function) {
            let gauges = [
                &mut sum.queued,
                &mut sum.running,
                &mut sum.waiting,
                &mut sum.idle,
                &mut sum.starting,
                &mut sum.ending,
            ];
            for (to, from) in gauges.into_iter().zip(&cell.gauges) {
                *to += from.load(Ordering::Relaxed);
            }
            sum.arrivals += cell.arrivals.load(Ordering::Relaxed);
            sum.completed += cell.completed.load(Ordering::Relaxed);
            sum.abandoned += cell.abandoned.load(Ordering::Relaxed);
            for (to, from) in sum.failed.iter_mut().zip(&cell.failed) {
                *to += from.load(Ordering::Relaxed);
            }
        }
        sum
    }

    /// One function on every shard.
    fn cells_of(&self, function: FunctionId) -> &[Cell] {
        let first = function.index() * self.shards;
        self.cells.get(first..first + self.shards).unwrap_or_default()
    }
}

impl Cell {
    /// Whether calls wait or run; the gauges that count them come first.
    fn is_busy(&self) -> bool {
        let [queued, running, waiting, ..] = &self.gauges;
        [queued, running, waiting].iter().any(|gauge| gauge.load(Ordering::Relaxed) > 0)
    }
}
