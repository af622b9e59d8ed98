//! What the engine tells of its functions: Prometheus text and JSON.

use std::fmt::Write;

use super::engine::Engine;
use crate::core::FunctionId;
use crate::stats::{FAILURES, Totals};

impl Engine {
    /// Whether every function's container is up.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.functions.iter().all(|state| state.link.is_some())
    }

    /// Appends the functions' metrics in Prometheus text format, summed over all shards.
    pub fn write_metrics(&self, out: &mut String) {
        let totals: Vec<(&str, bool, Totals)> = self.totals().collect();
        counter(out, "nightcore_function_arrivals_total", "Calls that named the function.");
        for (name, _, total) in &totals {
            sample(out, "nightcore_function_arrivals_total", name, None, total.arrivals);
        }
        counter(out, "nightcore_function_calls_total", "Calls that ended, by outcome.");
        for (name, _, total) in &totals {
            let metric = "nightcore_function_calls_total";
            sample(out, metric, name, Some(("outcome", "ok")), total.completed);
            sample(out, metric, name, Some(("outcome", "abandoned")), total.abandoned);
            for (outcome, count) in FAILURES.iter().zip(total.failed) {
                sample(out, metric, name, Some(("outcome", outcome.as_str())), count);
            }
        }
        gauge(out, "nightcore_function_queued", "Calls that wait for a worker.");
        for (name, _, total) in &totals {
            sample(out, "nightcore_function_queued", name, None, total.queued);
        }
        gauge(out, "nightcore_function_workers", "Workers, by what they do.");
        for (name, _, total) in &totals {
            for (state, count) in states(total) {
                sample(out, "nightcore_function_workers", name, Some(("state", state)), count);
            }
        }
        gauge(out, "nightcore_container_up", "Whether the function's container runs.");
        for (name, up, _) in &totals {
            sample(out, "nightcore_container_up", name, None, u64::from(*up));
        }
        let metric = "nightcore_shard_calls_moved_total";
        counter(out, metric, "Calls that the shard sent to another one.");
        for (shard, moved) in self.exchange.moved().enumerate() {
            let _ = writeln!(out, "{metric}{{shard=\"{shard}\"}} {moved}");
        }
    }

    /// Appends the functions as a JSON document.
    pub fn write_functions_json(&self, out: &mut String) {
        out.push_str("{\"functions\":[");
        for (index, (name, up, total)) in self.totals().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let state = if up { "up" } else { "starting" };
            let failed: u64 = total.failed.iter().sum();
            // Names are letters, digits and "_.-": nothing to escape. A String takes every write.
            let _ = write!(
                out,
                "{comma}{{\"name\":\"{name}\",\"state\":\"{state}\",\"workers\":{},\"idle\":{},\
                 \"running\":{},\"waiting\":{},\"queued\":{},\"arrivals\":{},\"completed\":{},\
                 \"failed\":{failed},\"abandoned\":{}}}",
                total.workers(),
                total.idle,
                total.running,
                total.waiting,
                total.queued,
                total.arrivals,
                total.completed,
                total.abandoned,
            );
        }
        out.push_str("]}\n");
    }

    fn totals(&self) -> impl Iterator<Item = (&str, bool, Totals)> {
        self.functions.iter().enumerate().map(|(index, state)| {
            let totals = self.stats.totals(FunctionId::from_index(index));
            (state.function.name.as_str(), state.link.is_some(), totals)
        })
    }
}

fn states(total: &Totals) -> [(&'static str, u64); 5] {
    [
        ("idle", total.idle),
        ("running", total.running),
        ("waiting", total.waiting),
        ("starting", total.starting),
        ("ending", total.ending),
    ]
}

fn counter(out: &mut String, metric: &str, help: &str) {
    let _ = writeln!(out, "# HELP {metric} {help}\n# TYPE {metric} counter");
}

fn gauge(out: &mut String, metric: &str, help: &str) {
    let _ = writeln!(out, "# HELP {metric} {help}\n# TYPE {metric} gauge");
}

fn sample(out: &mut String, metric: &str, function: &str, label: Option<(&str, &str)>, value: u64) {
    let _ = match label {
        Some((key, text)) => {
            writeln!(out, "{metric}{{function=\"{function}\",{key}=\"{text}\"}} {value}")
        }
        None => writeln!(out, "{metric}{{function=\"{function}\"}} {value}"),
    };
}
