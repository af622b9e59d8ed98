//! What is counted of engines and their calls, as Prometheus text.

use std::fmt::Write;

use ipc::Outcome;

use super::links::Remote;
use super::peer::Cause;

/// Why a call was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// The engine refused it.
    Refused,
    /// The engine was lost.
    Lost,
}

/// Counters of one shard.
#[derive(Default)]
pub(super) struct Metrics {
    outcomes: [u64; Outcome::ALL.len()],
    again: [u64; 2],
    losses: [u64; Cause::ALL.len()],
    joined: u64,
}

impl Metrics {
    pub(super) fn count(&mut self, outcome: Outcome) {
        self.outcomes[outcome as usize] += 1;
    }

    pub(super) fn count_again(&mut self, why: Again) {
        self.again[why as usize] += 1;
    }

    pub(super) fn count_join(&mut self) {
        self.joined += 1;
    }

    /// Whether an engine has ever been here.
    pub(super) fn has_joined(&self) -> bool {
        self.joined > 0
    }

    pub(super) fn count_loss(&mut self, cause: Cause) {
        self.losses[cause as usize] += 1;
    }
}

impl Remote {
    /// Appends this shard's metrics of engines elsewhere, in Prometheus text format.
    pub fn write_metrics(&self, out: &mut String) {
        // A host that no engine has ever joined has nothing to tell.
        if !self.metrics.has_joined() {
            return;
        }
        let shard = self.config.shard;
        let in_flight = self.calls.len() - self.waiting();
        family(out, "links", "gauge", "Connections of engines.");
        line(out, shard, "links", "", self.peers.len() as u64);
        family(out, "links_joined_total", "counter", "Connections of engines that were taken.");
        line(out, shard, "links_joined_total", "", self.metrics.joined);
        family(out, "calls_in_flight", "gauge", "Calls that engines have.");
        line(out, shard, "calls_in_flight", "", in_flight as u64);
        family(out, "queue_depth", "gauge", "Calls that wait for an engine with room.");
        for (_, function) in self.directory.iter() {
            let label = format!(",function=\"{}\"", function.name);
            line(out, shard, "queue_depth", &label, function.queue.len() as u64);
        }
        family(out, "calls_total", "counter", "Calls for engines, by how they ended.");
        for outcome in Outcome::ALL {
            let label = format!(",outcome=\"{}\"", outcome.as_str());
            line(out, shard, "calls_total", &label, self.metrics.outcomes[outcome as usize]);
        }
        family(out, "retries_total", "counter", "Calls that were sent again, by why.");
        for (again, name) in [(Again::Refused, "refused"), (Again::Lost, "lost")] {
            let label = format!(",reason=\"{name}\"");
            line(out, shard, "retries_total", &label, self.metrics.again[again as usize]);
        }
        family(out, "links_lost_total", "counter", "Connections of engines that ended, by why.");
        for (cause, name) in Cause::ALL {
            let label = format!(",reason=\"{name}\"");
            line(out, shard, "links_lost_total", &label, self.metrics.losses[cause as usize]);
        }
    }

    fn waiting(&self) -> usize {
        self.directory.iter().map(|(_, function)| function.queue.len()).sum()
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "# HELP nightcore_engines_{name} {help}\n# TYPE nightcore_engines_{name} {kind}"
    );
}

fn line(out: &mut String, shard: u16, name: &str, labels: &str, value: u64) {
    let _ = writeln!(out, "nightcore_engines_{name}{{shard=\"{shard}\"{labels}}} {value}");
}
