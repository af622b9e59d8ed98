//! What is compared with what, and what is asked of it.
//!
//! A ratio is taken within each round, where both sides ran next to each other, and only then
//! summed up. A side may have been measured in several placements (`case@placement`): it counts in
//! the one whose median over the rounds is best, so that nobody wins by a bad placement of the
//! other.

use super::runs::{Runs, median};
use serde::Serialize;

/// One side of a ratio: a figure of a case.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// The case; its placements are found by its name.
    pub case: &'static str,
    /// The figure, as `summary.json` names it.
    pub figure: &'static str,
}

/// Which way is better, and how far one has to come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// Less is better.
    AtMost(f64),
    /// More is better.
    AtLeast(f64),
}

impl Bar {
    /// Whether `value` is good enough.
    #[must_use]
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Bar::AtMost(limit) => value <= limit,
            Bar::AtLeast(limit) => value >= limit,
        }
    }
}

/// A figure that is judged: over another one, or as it is.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    /// Its name in `summary.json`.
    pub name: &'static str,
    /// What it says, for the table.
    pub what: &'static str,
    /// Ours.
    pub of: Side,
    /// What it is divided by; nothing where the bar is an absolute figure.
    pub over: Option<Side>,
    /// What is asked; nothing where it is for information.
    pub bar: Option<Bar>,
    /// What would be remarkable, in the direction of the bar.
    pub moonshot: Option<f64>,
}

/// A ratio over the rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Value {
    /// Of the rounds' ratios.
    pub median: f64,
    /// The least of them.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// Rounds that measured both sides.
    pub runs: usize,
}

const fn side(case: &'static str, figure: &'static str) -> Side {
    Side { case, figure }
}

const fn at_most(
    name: &'static str,
    of: Side,
    over: Side,
    bar: f64,
    moonshot: f64,
    what: &'static str,
) -> Ratio {
    judged(name, of, over, Bar::AtMost(bar), moonshot, what)
}

const fn at_least(
    name: &'static str,
    of: Side,
    over: Side,
    bar: f64,
    moonshot: f64,
    what: &'static str,
) -> Ratio {
    judged(name, of, over, Bar::AtLeast(bar), moonshot, what)
}

const fn judged(
    name: &'static str,
    of: Side,
    over: Side,
    bar: Bar,
    moonshot: f64,
    what: &'static str,
) -> Ratio {
    Ratio { bar: Some(bar), moonshot: Some(moonshot), ..known(name, of, over, what) }
}

const fn known(name: &'static str, of: Side, over: Side, what: &'static str) -> Ratio {
    Ratio { name, what, of, over: Some(over), bar: None, moonshot: None }
}

const fn absolute(
    name: &'static str,
    of: Side,
    bar: Bar,
    moonshot: f64,
    what: &'static str,
) -> Ratio {
    Ratio { name, what, of, over: None, bar: Some(bar), moonshot: Some(moonshot) }
}

/// Round trip of two processes on one core that wake each other by eventfds.
const EVENTFD: Side = side("limits/eventfd_same_core", "p50_us");
const CALL: Side = side("internal_1k", "p50_us");

/// Everything that is compared, in the order of the table.
pub const RATIOS: &[Ratio] = &[
    at_most(
        "internal_call_over_eventfd",
        CALL,
        EVENTFD,
        2.6,
        1.3,
        "1 KiB internal call p50 over the eventfd round trip on one core",
    ),
    at_most(
        "internal_call_p99_over_p50",
        side("internal_1k", "p99_us"),
        CALL,
        5.0,
        2.0,
        "1 KiB internal call, p99 over p50",
    ),
    at_most(
        "internal_call_64k_over_1k",
        side("internal_64k", "p50_us"),
        CALL,
        2.0,
        1.5,
        "internal call p50, 64 KiB over 1 KiB",
    ),
    at_most(
        "nop_c1_over_nginx",
        side("nop_c1", "p50_us"),
        side("nginx_c1", "p50_us"),
        1.2,
        1.1,
        "nop at 1 connection, p50 over nginx `return 200`",
    ),
    at_least(
        "nop_c64_rps_over_nginx_proxy",
        side("nop_c64", "rps"),
        side("nginx_proxy_c64", "rps"),
        1.5,
        2.2,
        "nop at 64 connections, requests/s over nginx proxying to nginx",
    ),
    absolute(
        "nop_c64_cpu_us",
        side("nop_c64", "cpu_us"),
        Bar::AtMost(14.0),
        10.0,
        "CPU per nop at 64 connections, all our processes, us",
    ),
    at_least(
        "chain10_rps_over_tonic_uds",
        side("chain10_c64", "rps"),
        side("tonic_uds_chain10_c64", "rps"),
        3.0,
        6.0,
        "chain of 10 at 64 connections, requests/s over tonic on unix sockets",
    ),
    at_least(
        "chain10_rps_over_hyper_h1",
        side("chain10_c64", "rps"),
        side("hyper_h1_chain10_c64", "rps"),
        2.0,
        4.0,
        "the same over hyper HTTP/1.1 microservices",
    ),
    at_most(
        "chain10_p99_over_tonic_uds",
        side("chain10_r2000", "p99_us"),
        side("tonic_uds_chain10_r2000", "p99_us"),
        0.4,
        0.2,
        "chain of 10, p99 at 2,000 requests/s over tonic on unix sockets",
    ),
    at_most(
        "fanout10_p50_over_tonic_uds",
        side("fanout10_c1", "p50_us"),
        side("tonic_uds_fanout10_c1", "p50_us"),
        0.35,
        0.2,
        "fan-out of 10 in parallel, p50 at idle over tonic on unix sockets",
    ),
    at_most(
        "channel_rtt_over_iceoryx2_event",
        side("channel/rtt_same_core_1024", "p50_us"),
        side("iceoryx2_event", "p50_us"),
        0.5,
        0.35,
        "bare channel round trip, 1 KiB, one core, over iceoryx2 with events",
    ),
    absolute(
        "internal_calls_per_second",
        side("internal_calls_c16", "rps"),
        Bar::AtLeast(180_000.0),
        400_000.0,
        "internal calls/s in total, 16 callers",
    ),
    at_most(
        "functions_1000_over_1",
        side("functions_1000", "p50_us"),
        side("functions_1", "p50_us"),
        1.1,
        1.02,
        "nop p50 with 1,000 functions deployed over 1",
    ),
    absolute(
        "idle_cpu_percent",
        side("idle_cpu_percent", "percent"),
        Bar::AtMost(0.05),
        0.05,
        "idle CPU, % of a core (0.05 rounds to 0)",
    ),
    known(
        "nop_c1_over_hyper",
        side("nop_c1", "p50_us"),
        side("hyper_nop_c1", "p50_us"),
        "nop at 1 connection, p50 over hyper in one process",
    ),
    known(
        "nop_c64_rps_over_workerd",
        side("nop_c64", "rps"),
        side("workerd_nop_c64", "rps"),
        "nop at 64 connections, requests/s over workerd",
    ),
    known(
        "chain10_rps_over_tonic_tcp",
        side("chain10_c64", "rps"),
        side("tonic_tcp_chain10_c64", "rps"),
        "chain of 10 at 64 connections, requests/s over tonic on TCP",
    ),
    known(
        "chain10_p50_over_tonic_uds",
        side("chain10_c1", "p50_us"),
        side("tonic_uds_chain10_c1", "p50_us"),
        "chain of 10, p50 at idle over tonic on unix sockets",
    ),
    known(
        "chain10_p50_over_hyper_h1",
        side("chain10_c1", "p50_us"),
        side("hyper_h1_chain10_c1", "p50_us"),
        "chain of 10, p50 at idle over hyper HTTP/1.1 microservices",
    ),
];

impl Ratio {
    /// Its value in this run; nothing where no round measured both sides.
    #[must_use]
    pub fn value(&self, runs: &Runs) -> Option<Value> {
        let of = runs.by_round(&best_placement(runs, self.of), self.of.figure);
        let over = self.over.map(|over| runs.by_round(&best_placement(runs, over), over.figure));
        let ratios: Vec<f64> = of
            .iter()
            .filter_map(|(run, value)| match &over {
                None => Some(*value),
                Some(over) => over.get(run).filter(|over| **over > 0.0).map(|over| value / over),
            })
            .collect();
        Some(Value {
            median: median(ratios.clone())?,
            min: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            max: ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            runs: ratios.len(),
        })
    }
}

/// The placement of a case whose figure is best: the highest rate, or else the lowest value.
#[must_use]
pub fn best_placement(runs: &Runs, side: Side) -> String {
    let placements = runs.cases().filter(|name| {
        name.strip_prefix(side.case).is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
    });
    let rank = |case: &str| {
        let value = runs.figure(case, side.figure)?;
        Some(if side.figure == "rps" { -value } else { value })
    };
    placements
        .filter_map(|case| Some((case, rank(case)?)))
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .map_or_else(|| side.case.to_owned(), |(case, _)| case.to_owned())
}
