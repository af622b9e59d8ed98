//! What the engine tells of its functions: Prometheus text and JSON.

mod json;
mod prometheus;

use std::fmt::{self, Write};

use reactor::clock;

use super::deploy::Stage;
use super::engine::{Engine, Function};
use crate::container::Record;
use crate::core::FunctionId;
use crate::logs::Counts;
use crate::stats::{FAILURES, Totals};

/// Functions that are named where it is said that they are not ready.
const UNREADY_MAX: usize = 8;

/// A function as it is reported.
struct Entry<'a> {
    /// Letters, digits and "_.-": there is nothing to escape.
    name: &'a str,
    version: u32,
    container: Record,
    totals: Totals,
    printed: Counts,
}

/// Thousandths, as a decimal number.
struct Milli(u64);

impl Engine {
    /// Appends the functions whose container is neither up nor will be as soon as a call comes; nothing if
    /// there is none.
    pub fn write_unready(&self, out: &mut String) {
        let state = |index| self.stats.containers.state(FunctionId::from_index(index));
        let serving = self.functions.iter().enumerate();
        let serving = serving.filter(|(_, function)| function.stage == Stage::Serving);
        let states = serving.map(|(index, function)| (&function.function.name, state(index)));
        let mut unready = states.filter(|(_, state)| !state.is_healthy());
        for (name, state) in unready.by_ref().take(UNREADY_MAX) {
            let separator = if out.is_empty() { "" } else { ", " };
            let _ = write!(out, "{separator}{name} is {}", state.as_str());
        }
        let rest = unready.count();
        if rest > 0 {
            let _ = write!(out, " and {rest} more");
        }
    }

    /// Appends the functions' metrics in Prometheus text format, summed over all shards.
    pub fn write_metrics(&self, out: &mut String) {
        prometheus::write(out, &self.entries());
        prometheus::write_moves(out, self.exchange.moved());
    }

    /// Appends the functions as a JSON document, summed over all shards.
    pub fn write_functions_json(&self, out: &mut String) {
        json::write(out, &self.entries());
    }

    /// One a name: what an older version still does is its successor's, if there is one.
    fn entries(&self) -> Vec<Entry<'_>> {
        let now = clock::now();
        let mut entries: Vec<Entry<'_>> = Vec::with_capacity(self.functions.len());
        for stage in [Stage::Serving, Stage::Retired] {
            for (index, state) in self.functions.iter().enumerate() {
                if state.stage != stage {
                    continue;
                }
                let Function { name, spec, version, .. } = &state.function;
                let mut totals = self.stats.totals(FunctionId::from_index(index), now);
                // The shards share these workers.
                totals.limit = totals.limit.min(spec.max_workers.into());
                let is_newer = |entry: &&mut Entry<'_>| entry.name == name;
                let newer = (stage == Stage::Retired).then(|| entries.iter_mut().find(is_newer));
                match newer.flatten() {
                    Some(newer) => newer.totals.add(&totals),
                    None => {
                        let container = self.record(index);
                        let printed = self.stats.logs.counts(name);
                        entries.push(Entry { name, version: *version, container, totals, printed });
                    }
                }
            }
        }
        entries
    }

    fn record(&self, index: usize) -> Record {
        self.stats.containers.read(FunctionId::from_index(index))
    }
}

impl fmt::Display for Milli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1_000, self.0 % 1_000)
    }
}

/// Calls that ended, by how they did. `arrivals` is their sum and those that are still owed an answer.
fn outcomes(totals: &Totals) -> impl Iterator<Item = (&'static str, u64)> + use<> {
    let failures = FAILURES.iter().map(|outcome| outcome.as_str()).zip(totals.failed);
    [("ok", totals.completed), ("abandoned", totals.abandoned)].into_iter().chain(failures)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::container::{Breaker, Cause, State};
    use crate::core::Histogram;

    /// Three calls of 20 us and one of 20 s; all waited for 1 us.
    pub(super) fn entry(name: &str) -> Entry<'_> {
        let mut totals = Totals {
            queued: 2,
            running: 3,
            waiting: 4,
            idle: 5,
            starting: 6,
            ending: 7,
            hint_milli: 1_250,
            limit: 9,
            rate_milli: 62_500,
            processing_ns: 20_000,
            arrivals: 7,
            completed: 3,
            abandoned: 1,
            queue_delay: Histogram::default(),
            ..Totals::default()
        };
        totals.failed[0] = 1;
        for ns in [20_000, 20_000, 20_000, 20_000_000_000] {
            totals.processing.record(ns);
            totals.queue_delay.record(1_000);
        }
        let start_time = Duration::from_micros(2_500);
        let container = Record {
            state: State::Up,
            breaker: Breaker::HalfOpen,
            starts: 3,
            restarts: 2,
            failed_starts: 1,
            deaths: [0, 1, 0, 1, 0, 0, 0],
            last_death: Some(Arc::new(Cause::FailedStart { reason: "a \"b\"\n".to_owned() })),
            start_time,
        };
        let printed = Counts { kept: 5, dropped: 2 };
        Entry { name, version: 2, container, totals, printed }
    }

    #[test]
    fn outcomes_have_names_and_each_is_told_once() {
        let entry = entry("nop");
        let outcomes: Vec<_> = outcomes(&entry.totals).collect();
        assert_eq!(outcomes[..3], [("ok", 3), ("abandoned", 1), ("function_error", 1)]);
        assert_eq!(outcomes.len(), FAILURES.len() + 2);
        assert_eq!(outcomes.iter().map(|(_, count)| count).sum::<u64>(), 5);
    }
}
