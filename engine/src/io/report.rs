//! What the engine tells of its functions: Prometheus text and JSON.

use std::fmt::{Display, Write};

use super::engine::Engine;
use crate::container::{Record, State};
use crate::core::FunctionId;
use crate::stats::{FAILURES, Totals};

impl Engine {
    /// Whether every function's container is up, or will be when a call comes.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let functions = (0..self.functions.len()).map(FunctionId::from_index);
        functions.map(|id| self.stats.containers.read(id)).all(|record| record.state.is_healthy())
    }

    /// Appends the functions' metrics in Prometheus text format, summed over all shards.
    pub fn write_metrics(&self, out: &mut String) {
        let totals: Vec<(&str, Record, Totals)> = self.totals().collect();
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
        for (name, record, _) in &totals {
            let up = u64::from(record.state == State::Up);
            sample(out, "nightcore_container_up", name, None, up);
        }
        counter(out, "nightcore_container_starts_total", "Containers that were started.");
        for (name, record, _) in &totals {
            sample(out, "nightcore_container_starts_total", name, None, record.starts);
        }
        let help = "How long the last start took, until the library was loaded.";
        gauge(out, "nightcore_container_start_seconds", help);
        for (name, record, _) in &totals {
            let seconds = record.start_time.as_secs_f64();
            sample(out, "nightcore_container_start_seconds", name, None, seconds);
        }
    }

    /// Appends the functions as a JSON document.
    pub fn write_functions_json(&self, out: &mut String) {
        out.push_str("{\"functions\":[");
        for (index, (name, record, total)) in self.totals().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let state = record.state.as_str();
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

    fn totals(&self) -> impl Iterator<Item = (&str, Record, Totals)> {
        self.functions.iter().enumerate().map(|(index, state)| {
            let id = FunctionId::from_index(index);
            let record = self.stats.containers.read(id);
            (state.function.name.as_str(), record, self.stats.totals(id))
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

fn sample(
    out: &mut String,
    metric: &str,
    function: &str,
    label: Option<(&str, &str)>,
    value: impl Display,
) {
    let _ = match label {
        Some((key, text)) => {
            writeln!(out, "{metric}{{function=\"{function}\",{key}=\"{text}\"}} {value}")
        }
        None => writeln!(out, "{metric}{{function=\"{function}\"}} {value}"),
    };
}
