//! Counters of the links of all shards. Each cell has one writer, its shard; whoever serves metrics reads.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module's description. Shared by all shards.
// SYNC(uplink stats): relaxed throughout; nothing is read that another thread wrote before it.
#[derive(Debug)]
pub struct Stats {
    cells: Box<[Cell]>,
}

/// What a shard counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Cell {
    /// Links that are open.
    pub(super) links: Count,
    /// Links that were opened, ever.
    pub(super) opened: Count,
    /// Calls that came, by what became of them.
    pub(super) calls: Count,
    pub(super) refused: Count,
    pub(super) cancelled: Count,
    /// Calls whose link was lost before their answer.
    pub(super) lost: Count,
    pub(super) received_bytes: Count,
    pub(super) sent_bytes: Count,
}

/// One figure with one writer.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// By the one writer: no atomic addition is needed.
    pub(super) fn add(&self, count: u64) {
        self.set(self.get() + count);
    }

    pub(super) fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Stats {
    /// For so many shards.
    #[must_use]
    pub fn new(shards: u16) -> Stats {
        Stats { cells: (0..shards).map(|_| Cell::default()).collect() }
    }

    pub(super) fn cell(&self, shard: u16) -> &Cell {
        &self.cells[usize::from(shard)]
    }

    /// Links that are open, on all shards.
    #[must_use]
    pub fn links(&self) -> u64 {
        self.cells.iter().map(|cell| cell.links.get()).sum()
    }

    /// Appends the links' metrics in Prometheus text format.
    pub fn write_metrics(&self, out: &mut String) {
        let mut metric = |name: &str, kind: &str, help: &str, value: fn(&Cell) -> &Count| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (shard, cell) in self.cells.iter().enumerate() {
                let _ = writeln!(out, "{name}{{shard=\"{shard}\"}} {}", value(cell).get());
            }
        };
        let help = "Links to gateways that are open.";
        metric("nightcore_uplink_links", "gauge", help, |cell| &cell.links);
        let help = "Links to gateways that were opened; those beyond the first are reconnects.";
        metric("nightcore_uplink_links_opened_total", "counter", help, |cell| &cell.opened);
        let help = "Calls that came by links.";
        metric("nightcore_uplink_calls_total", "counter", help, |cell| &cell.calls);
        let help = "Calls that were refused, none of them begun.";
        metric("nightcore_uplink_calls_refused_total", "counter", help, |cell| &cell.refused);
        let help = "Calls that their gateway took back.";
        metric("nightcore_uplink_calls_cancelled_total", "counter", help, |cell| &cell.cancelled);
        let help = "Calls whose link was lost before their answer.";
        metric("nightcore_uplink_calls_lost_total", "counter", help, |cell| &cell.lost);
        let help = "Bytes received by links.";
        metric("nightcore_uplink_received_bytes_total", "counter", help, |cell| {
            &cell.received_bytes
        });
        let help = "Bytes sent by links.";
        metric("nightcore_uplink_sent_bytes_total", "counter", help, |cell| &cell.sent_bytes);
    }
}
