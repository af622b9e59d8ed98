//! Which shard gets a new connection: the first that has room.
//!
//! Batching is worth more than a second core: one busy shard handles many completions per system call,
//! while two half-idle ones pay a wake-up each and fight functions and clients for cores. So connections
//! are consolidated on the fewest shards that stay below [`BUSY_ENOUGH`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reactor::clock::{self, Nanos};

/// A shard busier than this (in thousandths of its time) gets no more connections while another is not.
const BUSY_ENOUGH: u64 = 700;
/// One turn in so many is measured.
const SAMPLED: u32 = 16;
/// How long a shard measures itself before it publishes.
const WINDOW: Duration = Duration::from_millis(10);
/// A figure older than this is of a shard that has been asleep since.
const STALE_AFTER: Duration = Duration::from_millis(100);

/// How busy each shard is. Each cell is written by its shard, read by the shard that accepts.
pub(super) struct Loads {
    cells: Vec<Cell>,
}

#[repr(align(128))]
#[derive(Default)]
struct Cell {
    busy: AtomicU64,
    measured_at: AtomicU64,
}

impl Loads {
    pub(super) fn new(shards: u16) -> Self {
        Self { cells: (0..shards).map(|_| Cell::default()).collect() }
    }

    /// The shard for a new connection.
    pub(super) fn choose(&self, now: Nanos) -> u16 {
        let busy = |cell: &Cell| {
            // Both are hints about the past; a torn pair misplaces one connection at worst.
            let measured_at = Nanos(cell.measured_at.load(Ordering::Relaxed));
            let fresh = now.saturating_since(measured_at) < STALE_AFTER;
            if fresh { cell.busy.load(Ordering::Relaxed) } else { 0 }
        };
        let with_room = self.cells.iter().position(|cell| busy(cell) < BUSY_ENOUGH);
        let index = with_room.or_else(|| {
            let least = self.cells.iter().enumerate().min_by_key(|(_, cell)| busy(cell));
            least.map(|(index, _)| index)
        });
        index.and_then(|index| u16::try_from(index).ok()).unwrap_or(0)
    }
}

/// One shard's account of its own time: of every [`SAMPLED`]th turn, since reading the clock is not free.
pub(super) struct Meter {
    shard: usize,
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
        let shard = shard.into();
        Self { shard, turns: 0, turn_began: now, window_began: now, counted, slept }
    }

    /// The time before a wait, if this turn is sampled; to be given to [`Self::waited`].
    pub(super) fn before_wait(&mut self) -> Option<Nanos> {
        self.turns = self.turns.wrapping_add(1);
        self.turns.is_multiple_of(SAMPLED).then(clock::now)
    }

    /// Ends a turn: it began at the last call of this, and waited from `before` to `after`. Publishes
    /// at the end of a window.
    pub(super) fn waited(&mut self, loads: &Loads, before: Option<Nanos>, after: Nanos) {
        if let Some(before) = before {
            self.counted += after.saturating_since(self.turn_began);
            self.slept += after.saturating_since(before);
        }
        self.turn_began = after;
        if after.saturating_since(self.window_began) < WINDOW || self.counted.is_zero() {
            return;
        }
        let awake = self.counted.saturating_sub(self.slept);
        let busy = awake.as_nanos() * 1000 / self.counted.as_nanos();
        if let Some(cell) = loads.cells.get(self.shard) {
            cell.busy.store(u64::try_from(busy).unwrap_or(1000), Ordering::Relaxed);
            cell.measured_at.store(after.0, Ordering::Relaxed);
        }
        self.window_began = after;
        (self.counted, self.slept) = (Duration::ZERO, Duration::ZERO);
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
        meter.waited(loads, Some(began + awake), end);
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
    fn when_all_are_busy_the_least_busy_shard_gets_the_connection() {
        let loads = Loads::new(2);
        let start = Nanos(1_000_000_000);
        measure(&loads, 0, start, Duration::from_millis(99), Duration::from_millis(1));
        let now = measure(&loads, 1, start, Duration::from_millis(90), Duration::from_millis(10));
        assert_eq!(loads.choose(now), 1);
    }
}
