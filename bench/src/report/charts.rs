//! Which plots a report has. A line is drawn where its cases were measured, a plot where it has a
//! line.

use super::Error;
use super::bars::{Side, best_placement};
use super::plot::{Axis, Line, Scale, draw};
use super::runs::Runs;

const PERCENTILE: Axis = Axis { label: "percentile", scale: Scale::Percentile };
const LATENCY: Axis = Axis { label: "latency, us", scale: Scale::Logarithmic };
const P50: Axis = Axis { label: "p50, us", scale: Scale::Logarithmic };
const P99: Axis = Axis { label: "p99, us", scale: Scale::Logarithmic };
const OFFERED: Axis = Axis { label: "requests a second", scale: Scale::Linear };

/// A plot of distributions: one line a case.
struct Distributions {
    file: &'static str,
    title: &'static str,
    /// Case and label.
    cases: &'static [(&'static str, &'static str)],
}

/// A plot of figures over a parameter that ends the cases' names: `nop_c` with 1, 16, 64.
struct Growth {
    file: &'static str,
    title: &'static str,
    x: Axis,
    y: Axis,
    /// Prefix of the cases, and label.
    sweeps: &'static [(&'static str, &'static str)],
    /// The figure on the y axis; on the x axis `rps` or else the parameter.
    figure: &'static str,
    over: Over,
}

#[derive(PartialEq)]
enum Over {
    Parameter,
    Rate,
}

const DISTRIBUTIONS: &[Distributions] = &[
    Distributions {
        file: "cdf_nop_c1.svg",
        title: "nop over HTTP, 1 connection",
        cases: &[
            ("nop_c1", "nightcore"),
            ("nginx_c1", "nginx, return 200"),
            ("nginx_proxy_c1", "nginx to nginx"),
            ("hyper_nop_c1", "hyper"),
            ("workerd_nop_c1", "workerd"),
        ],
    },
    Distributions {
        file: "cdf_nop_c64.svg",
        title: "nop over HTTP, 64 connections, as fast as they go",
        cases: &[
            ("nop_c64", "nightcore"),
            ("nginx_c64", "nginx, return 200"),
            ("nginx_proxy_c64", "nginx to nginx"),
            ("hyper_nop_c64", "hyper"),
            ("workerd_nop_c64", "workerd"),
        ],
    },
    Distributions {
        file: "cdf_internal.svg",
        title: "one internal call",
        cases: &[
            ("internal_1k", "1 KiB, idle"),
            ("internal_32", "32 B, idle"),
            ("internal_64k", "64 KiB, idle"),
            ("internal_1k_load50", "1 KiB, at 50% load"),
            ("internal_1k_load80", "1 KiB, at 80% load"),
            ("limits/eventfd_same_core", "eventfd round trip"),
        ],
    },
    Distributions {
        file: "cdf_chain10_r2000.svg",
        title: "chain of 10 calls of 1 KiB, 2,000 requests a second",
        cases: &[
            ("chain10_r2000", "nightcore"),
            ("tonic_uds_chain10_r2000", "tonic, unix socket"),
            ("tonic_tcp_chain10_r2000", "tonic, TCP"),
            ("hyper_h1_chain10_r2000", "hyper, HTTP/1.1"),
        ],
    },
    Distributions {
        file: "cdf_fanout10_c1.svg",
        title: "10 calls of 1 KiB in parallel, 1 connection",
        cases: &[
            ("fanout10_c1", "nightcore"),
            ("tonic_uds_fanout10_c1", "tonic, unix socket"),
            ("tonic_tcp_fanout10_c1", "tonic, TCP"),
            ("hyper_h1_fanout10_c1", "hyper, HTTP/1.1"),
        ],
    },
    Distributions {
        file: "cdf_channel.svg",
        title: "bare round trip between two processes, 1 KiB",
        cases: &[
            ("channel/rtt_same_core_1024", "our channel"),
            ("iceoryx2_event", "iceoryx2, events"),
            ("iceoryx2_busy", "iceoryx2, busy-polling"),
            ("limits/eventfd_same_core", "eventfd alone"),
        ],
    },
];

const GROWTHS: &[Growth] = &[
    Growth {
        file: "load_nop.svg",
        title: "nop: tail latency as the load grows to 90% of capacity, 64 connections",
        x: OFFERED,
        y: P99,
        sweeps: &[("nop_load", "nightcore")],
        figure: "p99_us",
        over: Over::Rate,
    },
    Growth {
        file: "growth_connections.svg",
        title: "nop: throughput by connections",
        x: Axis { label: "connections", scale: Scale::Logarithmic },
        y: OFFERED,
        sweeps: &[("nop_c", "nightcore")],
        figure: "rps",
        over: Over::Parameter,
    },
    Growth {
        file: "growth_functions.svg",
        title: "nop: latency by functions deployed, 1 connection",
        x: Axis { label: "functions", scale: Scale::Logarithmic },
        y: P50,
        sweeps: &[("functions_", "nightcore")],
        figure: "p50_us",
        over: Over::Parameter,
    },
    Growth {
        file: "growth_workers.svg",
        title: "nop: throughput by workers of the function, 64 connections",
        x: Axis { label: "workers", scale: Scale::Logarithmic },
        y: OFFERED,
        sweeps: &[("workers_", "nightcore")],
        figure: "rps",
        over: Over::Parameter,
    },
    Growth {
        file: "growth_calls.svg",
        title: "a request that makes N calls of 1 KiB, 1 connection",
        x: Axis { label: "calls a request", scale: Scale::Logarithmic },
        y: P50,
        sweeps: &[("chain_depth_", "one after the other"), ("fanout_width_", "in parallel")],
        figure: "p50_us",
        over: Over::Parameter,
    },
];

/// All plots that have something to show: file names and SVGs.
pub fn draw_all(runs: &Runs) -> Result<Vec<(String, String)>, Error> {
    let mut plots = Vec::new();
    for plot in DISTRIBUTIONS {
        let lines = plot.cases.iter().map(|&(case, label)| {
            let case = best_placement(runs, Side { case, figure: "p50_us" });
            let mut points = runs.distribution(&case);
            // The greatest value is one of n, and has no place among the shares of them.
            points.retain(|point| point.0 < 100.0);
            Line { label: label.to_owned(), points }
        });
        let lines = shown(lines);
        if !lines.is_empty() {
            let svg = draw(plot.file, plot.title, PERCENTILE, LATENCY, &lines)?;
            plots.push((plot.file.to_owned(), svg));
        }
    }
    for plot in GROWTHS {
        let lines = shown(plot.sweeps.iter().map(|&(prefix, label)| Line {
            label: label.to_owned(),
            points: sweep(runs, prefix, plot),
        }));
        if !lines.is_empty() {
            let svg = draw(plot.file, plot.title, plot.x, plot.y, &lines)?;
            plots.push((plot.file.to_owned(), svg));
        }
    }
    Ok(plots)
}

fn shown(lines: impl Iterator<Item = Line>) -> Vec<Line> {
    lines.filter(|line| !line.points.is_empty()).collect()
}

fn sweep(runs: &Runs, prefix: &str, plot: &Growth) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = runs
        .cases()
        .filter_map(|case| {
            let parameter: u32 = case.strip_prefix(prefix)?.parse().ok()?;
            let x = match plot.over {
                Over::Parameter => f64::from(parameter),
                Over::Rate => runs.figure(case, "rps")?,
            };
            Some((x, runs.figure(case, plot.figure)?))
        })
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}
