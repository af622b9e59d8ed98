//! Counters of every function on every shard, written by the shards, read by whoever serves metrics.
//!
//! Each cell has one writer, its shard, which publishes before it sleeps. A reader may see one field
//! newer than another; sums are for people and dashboards. What is decided by them, that a container
//! seems idle, is for the shards to confirm.

use std::sync::atomic::{AtomicU64, Ordering};

use ipc::Outcome;
use reactor::clock::Nanos;

use crate::container::Records;
use crate::core::{BOUNDS_NS, FunctionId, Histogram, Snapshot, Times};
use crate::logs::Logs;

/// Every way a call can fail, in the order of the metric's labels: all outcomes but the first, `Ok`.
pub const FAILURES: &[Outcome] = Outcome::ALL.split_at(1).1;

/// One function on one shard.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell {
    gauges: [AtomicU64; GAUGES],
    hint_milli: AtomicU64,
    rate_milli: AtomicU64,
    processing_ns: AtomicU64,
    silent_at: AtomicU64,
    arrivals: AtomicU64,
    completed: AtomicU64,
    abandoned: AtomicU64,
    failed: [AtomicU64; FAILURES.len()],
    queue_delay: HistogramCell,
    processing: HistogramCell,
    /// When a call last came, waited or ran, in ns of the monotonic clock.
    active_at: AtomicU64,
}

/// What adds up over the shards, in the order of [`Totals`].
const GAUGES: usize = 7;

#[derive(Debug, Default)]
struct HistogramCell {
    counts: [AtomicU64; BOUNDS_NS.len() + 1],
    sum_ns: AtomicU64,
}

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
    /// Calls that may be on workers at once, as far as each shard is concerned: the function has
    /// `max_workers` for all of them.
    pub limit: u64,
    /// Concurrency that the measured load calls for, in thousandths.
    pub hint_milli: u64,
    /// Calls that came of late, in thousandths a second.
    pub rate_milli: u64,
    /// What the hint takes for the processing time of a call, in ns: the mean of the shards, by their
    /// rates; 0 before the first call ended.
    pub processing_ns: u64,
    /// Calls that named the function.
    pub arrivals: u64,
    /// Calls that succeeded.
    pub completed: u64,
    /// Calls whose caller went away.
    pub abandoned: u64,
    /// Calls that failed, by [`FAILURES`].
    pub failed: [u64; FAILURES.len()],
    /// How long calls waited before a worker began them.
    pub queue_delay: Histogram,
    /// How long calls ran, without the time that their own calls waited for workers.
    pub processing: Histogram,
}

impl Totals {
    /// Adds what there is of an older version, which still ends some calls. Rates and times stay those
    /// of this one.
    pub fn add(&mut self, older: &Totals) {
        self.queued += older.queued;
        self.running += older.running;
        self.waiting += older.waiting;
        self.idle += older.idle;
        self.starting += older.starting;
        self.ending += older.ending;
        self.arrivals += older.arrivals;
        self.completed += older.completed;
        self.abandoned += older.abandoned;
        for (to, from) in self.failed.iter_mut().zip(older.failed) {
            *to += from;
        }
        self.queue_delay.add(&older.queue_delay);
        self.processing.add(&older.processing);
    }

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
    /// What the functions print.
    pub logs: Logs,
}

impl Stats {
    /// Makes room for `places` functions and versions of functions on `shards` shards.
    #[must_use]
    pub fn new(places: usize, shards: u16) -> Self {
        let shards = usize::from(shards);
        let cells = (0..places * shards).map(|_| Cell::default()).collect();
        Self { shards, cells, containers: Records::new(places), logs: Logs::default() }
    }

    /// For how many functions there is room.
    #[must_use]
    pub fn places(&self) -> usize {
        self.cells.len() / self.shards.max(1)
    }

    /// Notes that calls of a function come or go on a shard, if what is to be published says so. Called by
    /// that shard alone, before it publishes.
    pub fn note_activity(&self, shard: u16, function: FunctionId, next: &Snapshot, now: Nanos) {
        let cell = self.cells_of(function).get(usize::from(shard));
        let busy = next.queued + next.pipelined > 0 || next.running > 0 || next.waiting > 0;
        if let Some(cell) = cell
            && (busy || cell.is_busy() || get(&cell.arrivals) != next.counters.arrivals)
        {
            set(&cell.active_at, now.0);
        }
    }

    /// Since when no call of the function waits or runs, as far as it is published; `None` while one
    /// does.
    #[must_use]
    pub fn quiet_since(&self, function: FunctionId) -> Option<Nanos> {
        let cells = self.cells_of(function);
        let busy = cells.iter().any(Cell::is_busy);
        let active_at = cells.iter().map(|cell| get(&cell.active_at)).max();
        (!busy).then_some(Nanos(active_at.unwrap_or(0)))
    }

    /// Replaces what is known of one function on one shard. Called by that shard alone.
    ///
    /// All of it, whatever has changed: seventy stores into memory that nobody else writes are 30 ns
    /// (`stats/publish` of the micro-benchmarks), and a shard that goes to sleep pays a hundred times
    /// that for its next wake-up.
    pub fn publish(&self, shard: u16, function: FunctionId, snapshot: &Snapshot) {
        let Some(cell) = self.cells.get(function.index() * self.shards + usize::from(shard)) else {
            return;
        };
        let counters = &snapshot.counters;
        let gauges = [
            u64::from(snapshot.queued + snapshot.pipelined),
            u64::from(snapshot.running),
            u64::from(snapshot.waiting),
            u64::from(snapshot.idle),
            u64::from(snapshot.starting),
            u64::from(snapshot.held) + u64::from(snapshot.retiring),
            u64::from(snapshot.limit),
        ];
        for (to, value) in cell.gauges.iter().zip(gauges) {
            set(to, value);
        }
        set(&cell.hint_milli, snapshot.hint_milli);
        set(&cell.rate_milli, snapshot.rate_milli);
        set(&cell.processing_ns, snapshot.processing_ns);
        set(&cell.silent_at, snapshot.silent_at.0);
        set(&cell.arrivals, counters.arrivals);
        set(&cell.completed, counters.completed);
        set(&cell.abandoned, counters.abandoned);
        for (to, &outcome) in cell.failed.iter().zip(FAILURES) {
            set(to, counters.failed(outcome));
        }
    }

    /// The same of the times of its calls.
    pub fn publish_times(&self, shard: u16, function: FunctionId, times: &Times) {
        if let Some(cell) = self.cells.get(function.index() * self.shards + usize::from(shard)) {
            cell.queue_delay.publish(&times.queue_delay);
            cell.processing.publish(&times.processing);
        }
    }

    /// Sums one function over the shards. A shard that sleeps publishes nothing: its rate and its hint hold
    /// until it would say that they are 0.
    #[must_use]
    pub fn totals(&self, function: FunctionId, now: Nanos) -> Totals {
        let mut sum = Totals::default();
        let mut mean = WeightedMean::default();
        for cell in self.cells_of(function) {
            let gauges = [
                &mut sum.queued,
                &mut sum.running,
                &mut sum.waiting,
                &mut sum.idle,
                &mut sum.starting,
                &mut sum.ending,
                &mut sum.limit,
            ];
            for (to, from) in gauges.into_iter().zip(&cell.gauges) {
                *to += get(from);
            }
            let is_silent = now.0 >= get(&cell.silent_at);
            let rate_milli = if is_silent { 0 } else { get(&cell.rate_milli) };
            sum.hint_milli += if is_silent { 0 } else { get(&cell.hint_milli) };
            sum.rate_milli += rate_milli;
            mean.add(get(&cell.processing_ns), rate_milli);
            sum.arrivals += get(&cell.arrivals);
            sum.completed += get(&cell.completed);
            sum.abandoned += get(&cell.abandoned);
            for (to, from) in sum.failed.iter_mut().zip(&cell.failed) {
                *to += get(from);
            }
            sum.queue_delay.add(&cell.queue_delay.read());
            sum.processing.add(&cell.processing.read());
        }
        sum.processing_ns = mean.value();
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
        [queued, running, waiting].into_iter().any(|gauge| get(gauge) > 0)
    }
}

impl HistogramCell {
    fn publish(&self, histogram: &Histogram) {
        for (to, &count) in self.counts.iter().zip(&histogram.counts) {
            set(to, count);
        }
        set(&self.sum_ns, histogram.sum_ns);
    }

    fn read(&self) -> Histogram {
        Histogram { counts: self.counts.each_ref().map(get), sum_ns: get(&self.sum_ns) }
    }
}

/// The shards' averages as one.
#[derive(Default)]
struct WeightedMean {
    sum: u128,
    weights: u128,
}

impl WeightedMean {
    /// 0 stands for a shard that has not measured anything. One that has counts, however seldom it
    /// is called.
    fn add(&mut self, value: u64, weight: u64) {
        if value > 0 {
            let weight = u128::from(weight.max(1));
            self.sum += u128::from(value) * weight;
            self.weights += weight;
        }
    }

    fn value(&self) -> u64 {
        let mean = self.sum.checked_div(self.weights).unwrap_or(0);
        u64::try_from(mean).unwrap_or(u64::MAX)
    }
}

// Relaxed: every cell is a figure for itself, which publishes nothing but itself.

fn set(to: &AtomicU64, value: u64) {
    to.store(value, Ordering::Relaxed);
}

fn get(from: &AtomicU64) -> u64 {
    from.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Counters;

    const FUNCTION: FunctionId = FunctionId(1);
    const NOW: Nanos = Nanos(1_000);

    fn snapshot(rate_milli: u64, processing_ns: u64) -> Snapshot {
        let mut counters = Counters::default();
        (counters.arrivals, counters.completed, counters.abandoned) = (5, 4, 1);
        Snapshot {
            queued: 1,
            pipelined: 2,
            running: 3,
            waiting: 4,
            idle: 5,
            starting: 6,
            held: 7,
            retiring: 8,
            hint_milli: 1_500,
            limit: 9,
            processing_ns,
            rate_milli,
            silent_at: Nanos(1_001),
            counters,
        }
    }

    fn times(processing_ns: u64) -> Times {
        let mut times = Times::default();
        times.queue_delay.record(1_000);
        times.processing.record(processing_ns);
        times
    }

    #[test]
    fn what_the_shards_publish_is_summed() {
        let stats = Stats::new(2, 2);
        for (shard, processing_ns) in [(0, 20_000), (1, 40_000)] {
            stats.publish(shard, FUNCTION, &snapshot(1_000, processing_ns));
            stats.publish_times(shard, FUNCTION, &times(processing_ns));
        }
        let sum = stats.totals(FUNCTION, NOW);
        let states = [sum.queued, sum.running, sum.waiting, sum.idle, sum.starting, sum.ending];
        assert_eq!(states, [6, 6, 8, 10, 12, 30]);
        assert_eq!((sum.hint_milli, sum.limit, sum.rate_milli), (3_000, 18, 2_000));
        assert_eq!((sum.arrivals, sum.completed, sum.abandoned), (10, 8, 2));
        assert_eq!((sum.queue_delay.counts[0], sum.queue_delay.sum_ns), (2, 2_000));
        assert_eq!((sum.processing.counts[1], sum.processing.counts[2]), (1, 1));
        assert_eq!(sum.processing.sum_ns, 60_000);
        assert_eq!(stats.totals(FunctionId(0), NOW), Totals::default());
    }

    #[test]
    fn a_function_is_quiet_since_its_last_call_on_any_shard_has_ended() {
        let stats = Stats::new(2, 2);
        let publish = |shard, snapshot: &Snapshot, at| {
            stats.note_activity(shard, FUNCTION, snapshot, Nanos(at));
            stats.publish(shard, FUNCTION, snapshot);
        };
        let busy = snapshot(1_000, 20_000);
        let rest = Snapshot { queued: 0, pipelined: 0, running: 0, waiting: 0, ..busy };
        assert_eq!(stats.quiet_since(FUNCTION), Some(Nanos(0)));
        publish(0, &busy, 10);
        assert_eq!(stats.quiet_since(FUNCTION), None);
        // The end of the last call counts, and then a worker that comes or goes does not.
        publish(0, &rest, 20);
        publish(0, &Snapshot { idle: 1, ..rest }, 30);
        assert_eq!(stats.quiet_since(FUNCTION), Some(Nanos(20)));
        // A call that has come and gone between two looks.
        publish(1, &rest, 40);
        assert_eq!(stats.quiet_since(FUNCTION), Some(Nanos(40)));
    }

    #[test]
    fn what_is_published_replaces_what_was() {
        let stats = Stats::new(2, 1);
        for _ in 0..2 {
            stats.publish(0, FUNCTION, &snapshot(1_000, 20_000));
            stats.publish_times(0, FUNCTION, &times(20_000));
        }
        assert_eq!(stats.totals(FUNCTION, NOW).processing.sum_ns, 20_000);
        assert_eq!(stats.totals(FUNCTION, NOW).arrivals, 5);
    }

    #[test]
    fn a_load_that_is_over_is_not_reported_though_nobody_publishes() {
        let stats = Stats::new(2, 1);
        stats.publish(0, FUNCTION, &snapshot(1_000, 20_000));
        assert_eq!(stats.totals(FUNCTION, Nanos(1_000)).hint_milli, 1_500);
        let after = stats.totals(FUNCTION, Nanos(1_001));
        assert_eq!((after.hint_milli, after.rate_milli), (0, 0));
        assert_eq!((after.processing_ns, after.limit, after.arrivals), (20_000, 9, 5));
    }

    #[test]
    fn the_busier_shard_counts_for_more_in_the_mean() {
        let stats = Stats::new(2, 3);
        stats.publish(0, FUNCTION, &snapshot(3_000, 10_000));
        stats.publish(1, FUNCTION, &snapshot(1_000, 50_000));
        assert_eq!(stats.totals(FUNCTION, NOW).processing_ns, 20_000);
        // It was called long ago, and has the only measurement.
        let seldom = Stats::new(2, 2);
        seldom.publish(0, FUNCTION, &snapshot(0, 7_000));
        seldom.publish(1, FUNCTION, &snapshot(9_000, 0));
        assert_eq!(seldom.totals(FUNCTION, NOW).processing_ns, 7_000);
    }
}
