//! One measured distribution: what every tool prints, one JSON object a line, and what results keep.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Points of the percentile axis, in percent, from the median outwards: each halves what is left.
const PERCENTILES_MAX_HALVINGS: i32 = 20;

/// Times of one case in one run, in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Sample {
    /// What was measured, as in `nop_c64` or `limits/eventfd_same_core`.
    pub case: String,
    /// Values in the distribution.
    pub n: u64,
    /// Arithmetic mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// 99.99th percentile.
    pub p9999_us: f64,
    /// The greatest value.
    pub max_us: f64,
    /// Operations a second over the whole run, where the case has a rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rps: Option<f64>,
    /// Other figures of the same run, by name with the unit last, as in `cpu_us_nightcore`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, f64>,
    /// The distribution: pairs of percentile (0 to 100) and value in microseconds, ascending.
    pub percentiles: Vec<(f64, f64)>,
}

impl Sample {
    /// Summarises `times`, which holds nanoseconds.
    #[must_use]
    pub fn new(case: &str, times: &Histogram<u64>) -> Sample {
        let at = |percentile: f64| us(times.value_at_percentile(percentile));
        Sample {
            case: case.to_owned(),
            n: times.len(),
            mean_us: round(times.mean() / 1e3),
            p50_us: at(50.0),
            p90_us: at(90.0),
            p99_us: at(99.0),
            p999_us: at(99.9),
            p9999_us: at(99.99),
            max_us: us(times.max()),
            rps: None,
            extra: BTreeMap::new(),
            percentiles: percentile_axis(times.len()).map(|p| (p, at(p))).collect(),
        }
    }
}

/// Percentiles worth keeping for `n` values: even steps up to the median, then two a halving of the
/// rest, as far as one value is left.
fn percentile_axis(n: u64) -> impl Iterator<Item = f64> {
    let below = [0.0, 10.0, 20.0, 30.0, 40.0].into_iter();
    let halvings = (0..PERCENTILES_MAX_HALVINGS)
        .flat_map(|halving| [1.0, 0.75].map(|part| 50.0 * part / f64::from(1 << halving)));
    let beyond = halvings.take_while(move |rest| rest / 100.0 * n as f64 >= 1.0);
    below.chain(beyond.map(|rest| 100.0 - rest)).chain([100.0])
}

fn us(nanoseconds: u64) -> f64 {
    round(nanoseconds as f64 / 1e3)
}

/// To the nanosecond: what a histogram holds.
fn round(us: f64) -> f64 {
    (us * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uniform() -> Histogram<u64> {
        let mut times = Histogram::new(3).expect("three digits are a valid precision");
        for ns in 1..=100_000 {
            times.record(ns).expect("the histogram resizes itself");
        }
        times
    }

    #[test]
    fn quantiles_are_in_microseconds() {
        let sample = Sample::new("uniform", &uniform());
        assert_eq!(sample.n, 100_000);
        assert!((sample.p50_us - 50.0).abs() < 0.1, "{sample:?}");
        assert!((sample.p99_us - 99.0).abs() < 0.1, "{sample:?}");
    }

    #[test]
    fn the_axis_ascends_and_ends_where_one_value_is_left() {
        let axis: Vec<f64> = percentile_axis(1_000).collect();
        assert!(axis.windows(2).all(|pair| pair[0] < pair[1]), "{axis:?}");
        assert_eq!(axis.last(), Some(&100.0));
        assert!(axis[axis.len() - 2] <= 99.9, "{axis:?}");
    }

    #[test]
    fn json_gives_back_what_it_was_made_from() {
        let mut sample = Sample::new("uniform", &uniform());
        sample.rps = Some(2.5);
        sample.extra.insert("cpu_us_nightcore".to_owned(), 10.5);
        let json = serde_json::to_string(&sample).expect("plain data");
        assert_eq!(serde_json::from_str::<Sample>(&json).expect("its own output"), sample);
    }
}
