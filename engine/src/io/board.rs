//! How much work every shard has, for those with too much of it.
//!
//! A shard publishes its own work before it sleeps; whoever sends it a call counts that as coming at
//! once, so that no two shards flood a third, and the shard takes it off when it takes the call in. All
//! of it is a hint about the recent past: a call that went the wrong way is late, not lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::core::Relief;

/// See the module's description. Shared by all shards.
// SYNC(board): relaxed throughout; nothing is read that another thread wrote before it.
#[derive(Debug)]
pub(super) struct Board {
    cells: Box<[Cell]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell {
    /// Written by the shard: what it has to do, in ns, and whether it takes calls no more.
    work_ns: AtomicU64,
    closed: AtomicBool,
    /// Written by all: the cost of the calls under way to the shard, in ns.
    coming_ns: AtomicU64,
    /// Written by the shard: calls that it sent away, ever.
    moved: AtomicU64,
}

impl Board {
    pub(super) fn new(shards: u16) -> Board {
        Board { cells: (0..shards).map(|_| Cell::default()).collect() }
    }

    /// The shard with the least work, but for one.
    pub(super) fn least(&self, but: u16) -> Option<Relief> {
        let open = (0_u16..)
            .zip(&self.cells)
            .filter(|(shard, cell)| *shard != but && !cell.closed.load(Ordering::Relaxed));
        let reliefs = open.map(|(shard, cell)| {
            let coming = cell.coming_ns.load(Ordering::Relaxed);
            let work_ns = cell.work_ns.load(Ordering::Relaxed).saturating_add(coming);
            Relief { shard, work_ns }
        });
        reliefs.min_by_key(|relief| relief.work_ns)
    }

    pub(super) fn publish(&self, shard: u16, work_ns: u64) {
        self.cells[usize::from(shard)].work_ns.store(work_ns, Ordering::Relaxed);
    }

    /// No further call is to be sent to this shard.
    pub(super) fn close(&self, shard: u16) {
        self.cells[usize::from(shard)].closed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self, shard: u16) -> bool {
        self.cells[usize::from(shard)].closed.load(Ordering::Relaxed)
    }

    /// A call of this cost leaves.
    pub(super) fn leaves(&self, from: u16, to: u16, cost_ns: u64) {
        self.cells[usize::from(from)].moved.fetch_add(1, Ordering::Relaxed);
        self.cells[usize::from(to)].coming_ns.fetch_add(cost_ns, Ordering::Relaxed);
    }

    /// It has arrived.
    pub(super) fn arrives(&self, at: u16, cost_ns: u64) {
        self.cells[usize::from(at)].coming_ns.fetch_sub(cost_ns, Ordering::Relaxed);
    }

    /// Calls that each shard sent away, ever.
    pub(super) fn moved(&self) -> impl Iterator<Item = u64> {
        self.cells.iter().map(|cell| cell.moved.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_coming_counts_until_it_has_arrived() {
        let board = Board::new(3);
        board.publish(1, 500);
        board.publish(2, 700);
        assert_eq!(board.least(0), Some(Relief { shard: 1, work_ns: 500 }));
        board.leaves(0, 1, 300);
        assert_eq!(board.least(0), Some(Relief { shard: 2, work_ns: 700 }));
        board.publish(1, 400);
        assert_eq!(board.least(2), Some(Relief { shard: 0, work_ns: 0 }));
        assert_eq!(board.least(0), Some(Relief { shard: 1, work_ns: 700 }));
        board.arrives(1, 300);
        assert_eq!(board.least(0), Some(Relief { shard: 1, work_ns: 400 }));
        assert_eq!(board.moved().collect::<Vec<_>>(), [1, 0, 0]);
    }

    #[test]
    fn a_closed_shard_is_no_relief() {
        let board = Board::new(2);
        board.close(1);
        assert_eq!((board.least(0), board.is_closed(1)), (None, true));
        assert_eq!(Board::new(1).least(0), None);
    }
}
