//! Text for Prometheus, version 0.0.4: base units, histograms cumulative, every series of a family behind
//! its HELP and TYPE.

use std::fmt::{Display, Write};

use super::{Entry, Milli, outcomes};
use crate::container::{Breaker, Cause, State};
use crate::core::{BOUNDS_NS, Histogram};
use crate::stats::Totals;

/// What a family is to Prometheus.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One family: appends its samples of each function to what it writes.
struct Family<'a> {
    out: &'a mut String,
    entries: &'a [Entry<'a>],
}

/// Appends all families.
pub(super) fn write(out: &mut String, entries: &[Entry<'_>]) {
    let mut family = Family { out, entries };
    counters(&mut family);
    gauges(&mut family);
    family.histogram(
        "nightcore_function_queue_delay_seconds",
        "Time from a call's arrival to its beginning on a worker.",
        |totals| &totals.queue_delay,
    );
    family.histogram(
        "nightcore_function_processing_seconds",
        "Time that calls ran, without the time that their own calls waited for workers.",
        |totals| &totals.processing,
    );
}

/// Appends how many calls each shard sent away.
pub(super) fn write_moves(out: &mut String, moved: impl Iterator<Item = u64>) {
    let metric = "nightcore_shard_calls_moved_total";
    let mut family = Family { out, entries: &[] };
    family.head(metric, Kind::Counter, "Calls that the shard sent to another one.");
    for (shard, moved) in moved.enumerate() {
        let _ = writeln!(family.out, "{metric}{{shard=\"{shard}\"}} {moved}");
    }
}

fn counters(family: &mut Family<'_>) {
    let metric = "nightcore_function_arrivals_total";
    family.single(metric, Kind::Counter, "Calls that named the function.", |entry| {
        entry.totals.arrivals
    });
    let metric = "nightcore_function_calls_total";
    let help = "Calls that ended, by outcome.";
    family.labelled(metric, Kind::Counter, help, "outcome", |entry| outcomes(&entry.totals));
    let metric = "nightcore_container_starts_total";
    family.single(metric, Kind::Counter, "Containers that were started.", |entry| {
        entry.container.starts
    });
    let metric = "nightcore_container_restarts_total";
    let help = "Containers that were started in the place of one that died.";
    family.single(metric, Kind::Counter, help, |entry| entry.container.restarts);
    let metric = "nightcore_container_failed_starts_total";
    let help = "Containers that ended before they were up.";
    family.single(metric, Kind::Counter, help, |entry| entry.container.failed_starts);
    let metric = "nightcore_container_deaths_total";
    let help = "Containers that ended and were not stopped, by cause.";
    family.labelled(metric, Kind::Counter, help, "cause", |entry| {
        Cause::KINDS.into_iter().zip(entry.container.deaths)
    });
    let metric = "nightcore_log_lines_total";
    family.single(
        metric,
        Kind::Counter,
        "Lines that the function printed, and that were kept.",
        |entry| entry.printed.kept,
    );
    let metric = "nightcore_log_lines_dropped_total";
    family.single(metric, Kind::Counter, "Lines that were dropped because of log_rate.", |entry| {
        entry.printed.dropped
    });
}

fn gauges(family: &mut Family<'_>) {
    let metric = "nightcore_function_queued";
    family
        .single(metric, Kind::Gauge, "Calls that wait for a worker.", |entry| entry.totals.queued);
    let metric = "nightcore_function_workers";
    family.labelled(metric, Kind::Gauge, "Workers, by what they do.", "state", |entry| {
        states(&entry.totals)
    });
    family.single(
        "nightcore_function_hint",
        Kind::Gauge,
        "Concurrency that the measured load calls for: arrivals per second times processing time.",
        |entry| Milli(entry.totals.hint_milli),
    );
    family.single(
        "nightcore_function_limit",
        Kind::Gauge,
        "Calls that may be on workers at once.",
        |entry| entry.totals.limit,
    );
    family.single(
        "nightcore_function_arrivals_per_second",
        Kind::Gauge,
        "Calls that arrived of late per second, as the hint has it.",
        |entry| Milli(entry.totals.rate_milli),
    );
    family.single(
        "nightcore_function_processing_estimate_seconds",
        Kind::Gauge,
        "What the hint takes for the processing time of a call.",
        |entry| seconds(entry.totals.processing_ns),
    );
    let metric = "nightcore_container_up";
    family.single(metric, Kind::Gauge, "Whether the function's container runs.", |entry| {
        u8::from(entry.container.state == State::Up)
    });
    family.labelled(
        "nightcore_container_breaker",
        Kind::Gauge,
        "1 for what the breaker of the function's containers is, 0 for what it is not.",
        "state",
        |entry| {
            let is = entry.container.breaker;
            Breaker::ALL.into_iter().map(move |state| (state.as_str(), u64::from(state == is)))
        },
    );
    family.single(
        "nightcore_container_start_seconds",
        Kind::Gauge,
        "How long the last start of a container took, until its library was loaded.",
        |entry| entry.container.start_time.as_secs_f64(),
    );
}

fn states(totals: &Totals) -> impl Iterator<Item = (&'static str, u64)> + use<> {
    let states = [
        ("idle", totals.idle),
        ("running", totals.running),
        ("waiting", totals.waiting),
        ("starting", totals.starting),
        ("ending", totals.ending),
    ];
    states.into_iter()
}

// A String takes every write.
impl Family<'_> {
    fn head(&mut self, metric: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.out, "# HELP {metric} {help}\n# TYPE {metric} {kind}");
    }

    fn single<V: Display>(
        &mut self,
        metric: &str,
        kind: Kind,
        help: &str,
        value: impl Fn(&Entry<'_>) -> V,
    ) {
        self.head(metric, kind, help);
        for entry in self.entries {
            let (name, value) = (entry.name, value(entry));
            let _ = writeln!(self.out, "{metric}{{function=\"{name}\"}} {value}");
        }
    }

    fn labelled<V: Iterator<Item = (&'static str, u64)>>(
        &mut self,
        metric: &str,
        kind: Kind,
        help: &str,
        label: &str,
        values: impl Fn(&Entry<'_>) -> V,
    ) {
        self.head(metric, kind, help);
        for entry in self.entries {
            let name = entry.name;
            for (text, value) in values(entry) {
                let _ = writeln!(
                    self.out,
                    "{metric}{{function=\"{name}\",{label}=\"{text}\"}} {value}"
                );
            }
        }
    }

    fn histogram(&mut self, metric: &str, help: &str, of: impl Fn(&Totals) -> &Histogram) {
        self.head(metric, Kind::Histogram, help);
        let bounds = BOUNDS_NS.map(|bound| seconds(bound).to_string());
        for entry in self.entries {
            let (name, histogram) = (entry.name, of(&entry.totals));
            let mut count = 0;
            let bounds = bounds.iter().map(String::as_str).chain(["+Inf"]);
            for (bound, in_bucket) in bounds.zip(histogram.counts) {
                count += in_bucket;
                let _ = writeln!(
                    self.out,
                    "{metric}_bucket{{function=\"{name}\",le=\"{bound}\"}} {count}"
                );
            }
            let sum = seconds(histogram.sum_ns);
            let _ = writeln!(self.out, "{metric}_sum{{function=\"{name}\"}} {sum}");
            let _ = writeln!(self.out, "{metric}_count{{function=\"{name}\"}} {count}");
        }
    }
}

/// Shown with as many digits as it has: 25,000 ns are `0.000025`.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;

    fn text() -> String {
        let mut out = String::new();
        write(&mut out, &[entry("nop"), entry("echo")]);
        out
    }

    #[test]
    fn a_histogram_is_cumulative_in_seconds_and_its_last_bucket_is_its_count() {
        let text = text();
        let prefix = "nightcore_function_processing_seconds";
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with(prefix)).collect();
        let of_nop: Vec<_> = lines.iter().filter(|line| line.contains("\"nop\"")).collect();
        assert_eq!(of_nop.len(), BOUNDS_NS.len() + 3);
        for (index, end) in [
            (0, "_bucket{function=\"nop\",le=\"0.00001\"} 0"),
            (1, "_bucket{function=\"nop\",le=\"0.000025\"} 3"),
            (18, "_bucket{function=\"nop\",le=\"10\"} 3"),
            (19, "_bucket{function=\"nop\",le=\"+Inf\"} 4"),
            (20, "_sum{function=\"nop\"} 20.00006"),
            (21, "_count{function=\"nop\"} 4"),
        ] {
            assert_eq!(*of_nop[index], format!("{prefix}{end}"));
        }
        assert!(text.contains(&format!("# TYPE {prefix} histogram\n")), "{text}");
    }

    #[test]
    fn gauges_are_in_base_units() {
        let text = text();
        for line in [
            "nightcore_function_hint{function=\"nop\"} 1.250",
            "nightcore_function_limit{function=\"nop\"} 9",
            "nightcore_function_arrivals_per_second{function=\"nop\"} 62.500",
            "nightcore_function_processing_estimate_seconds{function=\"nop\"} 0.00002",
            "nightcore_function_queued{function=\"echo\"} 2",
            "nightcore_function_workers{function=\"echo\",state=\"waiting\"} 4",
            "nightcore_function_calls_total{function=\"echo\",outcome=\"abandoned\"} 1",
            "nightcore_container_up{function=\"nop\"} 1",
            "nightcore_container_starts_total{function=\"nop\"} 3",
            "nightcore_container_restarts_total{function=\"nop\"} 2",
            "nightcore_container_failed_starts_total{function=\"nop\"} 1",
            "nightcore_container_deaths_total{function=\"nop\",cause=\"signal\"} 1",
            "nightcore_container_breaker{function=\"nop\",state=\"closed\"} 0",
            "nightcore_container_breaker{function=\"nop\",state=\"half_open\"} 1",
            "nightcore_log_lines_total{function=\"nop\"} 5",
            "nightcore_log_lines_dropped_total{function=\"nop\"} 2",
            "nightcore_container_start_seconds{function=\"nop\"} 0.0025",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn every_family_is_introduced_once() {
        let text = text();
        let mut names: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!((names.len(), count), (19, 19));
    }
}
