//! How many handshakes there were, and what became of them.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one port. Written by the doorman, read by whoever is asked for metrics.
#[derive(Debug)]
pub(super) struct Stats {
    who: &'static str,
    // SYNC: counters that order nothing; all accesses are relaxed.
    started: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    displaced: AtomicU64,
}

impl Stats {
    pub(super) fn new(who: &'static str) -> Stats {
        let zero = || AtomicU64::new(0);
        Stats { who, started: zero(), done: zero(), failed: zero(), displaced: zero() }
    }

    pub(super) fn count_started(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// It gave way to a newer one.
    pub(super) fn count_displaced(&self) {
        self.displaced.fetch_add(1, Ordering::Relaxed);
    }
}

/// Appends the counters of all ports, as Prometheus text.
pub(super) fn write<'a>(ports: impl Iterator<Item = &'a Stats> + Clone, out: &mut String) {
    if ports.clone().next().is_none() {
        return;
    }
    let name = "nightcore_handshakes_total";
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "# HELP {name} Handshakes by peer and by what became of them; those that were started less \
         the others are under way.\n# TYPE {name} counter"
    );
    for Stats { who, started, done, failed, displaced } in ports {
        let counts =
            [("started", started), ("done", done), ("failed", failed), ("displaced", displaced)];
        for (state, count) in counts {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(out, "{name}{{peer=\"{who}\",state=\"{state}\"}} {count}");
        }
    }
}
