//! What is known of each shard's load, and which shard gets a new connection: the first that has room.
//!
//! Batching is worth more than a second core: one busy shard handles many completions per system call,
//! while two half-idle ones pay a wake-up each and fight functions and clients for cores. So connections
//! are consolidated on the fewest shards that stay, with their cores, below [`BUSY_ENOUGH`]. What
//! turns out to be wrong later is put right by `rebalance`.

use std::fmt::Write;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use reactor::clock::{self, Nanos};

use super::policy::View;

/// A shard that is busier than this, or has a core that is (in thousandths of their time), gets no more connections while another is not.
const BUSY_ENOUGH: u64 = 700;
/// One turn in so many is measured.
const SAMPLED: u32 = 16;
/// How long a shard measures itself before it publishes.
const WINDOW: Duration = Duration::from_millis(10);
/// A figure older than this is of a shard that has been asleep since.
const STALE_AFTER: Duration = Duration::from_millis(100);
/// The same where it is asked whether a shard has any work at all: on a machine that is busy with other
/// things, a shard may come to no measurement for a while.
const ASLEEP_AFTER: Duration = Duration::from_secs(1);
/// The same for a core, which is looked at less often.
const CORE_STALE_AFTER: Duration = Duration::from_millis(300);
/// A shard this busy (in thousandths), or with this many calls out, is worth a look at the cores.
const WORTH_A_LOOK: (u64, u32) = (50, 2);

/// How busy each shard is. A cell is written by its shard, but for its core; all shards read it, as hints
/// about the past: a torn pair misplaces a connection at worst.
#[derive(Debug)]
pub(super) struct Loads {
    cells: Vec<Cell>,
}

#[repr(align(128))]
#[derive(Debug, Default)]
struct Cell {
    /// The shard's thread, and its core with all that runs there.
    thread: Figure,
    core: Figure,
    connections: AtomicU32,
    calling: AtomicU32,
    /// Connections that left for other shards, ever.
    moved: AtomicU64,
}

/// Thousandths of a time that ended at `measured_at`.
#[derive(Debug, Default)]
struct Figure {
    busy: AtomicU64,
    measured_at: AtomicU64,
}

impl Figure {
    fn set(&self, busy: u64, now: Nanos) {
        self.busy.store(busy, Ordering::Relaxed);
        self.measured_at.store(now.0, Ordering::Relaxed);
    }

    fn get(&self, now: Nanos, stale_after: Duration) -> u64 {
        let measured_at = Nanos(self.measured_at.load(Ordering::Relaxed));
        let fresh = now.saturating_since(measured_at) < stale_after;
        if fresh { self.busy.load(Ordering::Relaxed) } else { 0 }
    }
}

impl Loads {
    pub(super) fn new(shards: u16) -> Self {
        Self { cells: (0..shards).map(|_| Cell::default()).collect() }
    }

    /// The shard for a new connection.
    pub(super) fn choose(&self, now: Nanos) -> u16 {
        let busy = |cell: &Cell| {
            cell.thread.get(now, STALE_AFTER).max(cell.core.get(now, CORE_STALE_AFTER))
        };
        let with_room = self.cells.iter().position(|cell| busy(cell) < BUSY_ENOUGH);
        let index = with_room.or_else(|| {
            let least = self.cells.iter().enumerate().min_by_key(|(_, cell)| busy(cell));
            least.map(|(index, _)| index)
        });
        index.and_then(|index| u16::try_from(index).ok()).unwrap_or(0)
    }

    /// What a shard has to do now. Called by that shard, in every turn.
    pub(super) fn count(&self, shard: u16, connections: u32, calling: u32) {
        if let Some(cell) = self.cell(shard) {
            cell.connections.store(connections, Ordering::Relaxed);
            cell.calling.store(calling, Ordering::Relaxed);
        }
    }

    /// A connection of this shard left for another one. Called by that shard.
    pub(super) fn count_move(&self, shard: u16) {
        if let Some(cell) = self.cell(shard) {
            cell.moved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How busy a shard's core is. Called by whoever looked.
    pub(super) fn set_core(&self, shard: u16, busy: u64, now: Nanos) {
        if let Some(cell) = self.cell(shard) {
            cell.core.set(busy, now);
        }
    }

    /// Whether a shard has enough to do that connections may have to move.
    pub(super) fn is_busy(&self, shard: u16) -> bool {
        let (busy, calling) = WORTH_A_LOOK;
        self.cell(shard).is_some_and(|cell| {
            cell.thread.busy.load(Ordering::Relaxed) >= busy
                || cell.calling.load(Ordering::Relaxed) >= calling
        })
    }

    pub(super) fn view(&self, shard: u16, now: Nanos) -> View {
        self.cell(shard).map_or_else(View::default, |cell| View {
            core: cell.core.busy.load(Ordering::Relaxed),
            busy: cell.thread.get(now, ASLEEP_AFTER),
            connections: cell.connections.load(Ordering::Relaxed),
            calling: cell.calling.load(Ordering::Relaxed),
        })
    }

    /// Appends what there is to know of all shards, as Prometheus text.
    pub(super) fn write_metrics(&self, out: &mut String) {
        let mut metric = |name: &str, kind: &str, help: &str, value: fn(&Cell) -> u64| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (shard, cell) in self.cells.iter().enumerate() {
                let _ = writeln!(out, "{name}{{shard=\"{shard}\"}} {}", value(cell));
            }
        };
        let help = "Connections that the shard serves.";
        metric("nightcore_shard_connections", "gauge", help, |cell| {
            cell.connections.load(Ordering::Relaxed).into()
        });
        let help = "Connections that the shard passed on to another one.";
        metric("nightcore_shard_connections_moved_total", "counter", help, |cell| {
            cell.moved.load(Ordering::Relaxed)
        });
    }

    fn cell(&self, shard: u16) -> Option<&Cell> {
        self.cells.get(usize::from(shard))
    }
}

/// One shard's account of its own time: of every [`SAMPLED`]th turn, since reading the clock is not free.
pub(super) struct Meter {
    shard: u16,
    turns: u32,
    turn_began: Nanos,
    window_began: Nanos,
    /// Of the sampled turns in this window: their time, and the part of it spent asleep.
    counted: Duration,
    slept: Duration,
}

impl Meter {
    pub(super) fn new(shard: u16, now: Nanos) -> Self {
        let (counted, slept) = (Duration::ZERO, Duration::ZERO);
        Self { shard, turns: 0, turn_began: now, window_began: now, counted, slept }
    }

    /// The time before a wait, if this turn is sampled; to be given to [`Self::waited`].
    pub(super) fn before_wait(&mut self) -> Option<Nanos> {
        self.turns = self.turns.wrapping_add(1);
        self.turns.is_multiple_of(SAMPLED).then(clock::now)
    }

    /// Ends a turn: it began at the last call of this, and waited from `before` to `after`. Publishes
    /// at the end of a window, and then says so.
    pub(super) fn waited(&mut self, loads: &Loads, before: Option<Nanos>, after: Nanos) -> bool {
        if let Some(before) = before {
            self.counted += after.saturating_since(self.turn_began);
            self.slept += after.saturating_since(before);
        }
        self.turn_began = after;
        if after.saturating_since(self.window_began) < WINDOW || self.counted.is_zero() {
            return false;
        }
        let awake = self.counted.saturating_sub(self.slept);
        let busy = awake.as_nanos() * 1000 / self.counted.as_nanos();
        if let Some(cell) = loads.cell(self.shard) {
            cell.thread.set(u64::try_from(busy).unwrap_or(1000), after);
        }
        self.window_began = after;
        (self.counted, self.slept) = (Duration::ZERO, Duration::ZERO);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(
        loads: &Loads,
        shard: u16,
        began: Nanos,
        awake: Duration,
        asleep: Duration,
    ) -> Nanos {
        let mut meter = Meter::new(shard, began);
        let end = began + awake + asleep;
        assert!(meter.waited(loads, Some(began + awake), end));
        end
    }

    #[test]
    fn connections_stay_on_the_first_shard_until_it_is_busy_and_come_back_when_it_was_asleep() {
        let loads = Loads::new(2);
        let start = Nanos(1_000_000_000);
        assert_eq!(loads.choose(start), 0);
        let now = measure(&loads, 0, start, Duration::from_millis(9), Duration::from_millis(1));
        assert_eq!(loads.choose(now), 1);
        assert_eq!(loads.choose(now + STALE_AFTER), 0);
    }

    #[test]
    fn a_shard_whose_core_is_busy_with_something_else_gets_no_connection_while_another_has_room() {
        let loads = Loads::new(2);
        let now = Nanos(1_000_000_000);
        loads.set_core(0, 950, now);
        loads.set_core(1, 100, now);
        assert_eq!(loads.choose(now), 1);
        loads.set_core(1, 1000, now);
        assert_eq!(loads.choose(now), 0);
    }

    #[test]
    fn when_all_are_busy_the_least_busy_shard_gets_the_connection() {
        let loads = Loads::new(2);
        let start = Nanos(1_000_000_000);
        measure(&loads, 0, start, Duration::from_millis(99), Duration::from_millis(1));
        let now = measure(&loads, 1, start, Duration::from_millis(90), Duration::from_millis(10));
        assert_eq!(loads.choose(now), 1);
    }
}
