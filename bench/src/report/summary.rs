//! `summary.json`: what scripts read. Its schema is stable:
//!
//! ```json
//! {"schema": 1, "env": {},
//!  "cases": {"nop_c1": {"p50_us": 71.2, "p99_us": 110.0, "p999_us": 160.0, "rps": 13000.0, "n":
//! 40000,
//!                       "runs": 5, "cpu_us_nightcore": 20.1}},
//!  "ratios": {"nop_c1_over_nginx": {"median": 1.1, "min": 1.0, "max": 1.2, "runs": 5}}}
//! ```
//!
//! A case's values are medians over the rounds. The five figures of the schema are always there,
//! and null where the case has none (`n` is then 0); other figures are there where they were
//! measured. A ratio is absent where no round measured both of its sides.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value as Json;

use super::bars::{Ratio, Value};
use super::runs::Runs;

/// Changes when a reader of the file would break.
const SCHEMA: u32 = 1;

/// The whole file.
#[derive(Serialize)]
pub struct Summary {
    schema: u32,
    /// What the figures depend on, and what was left out (`skipped`).
    pub env: Json,
    /// By name.
    pub cases: BTreeMap<String, Case>,
    /// By name.
    pub ratios: BTreeMap<String, Value>,
}

/// Medians of a case over the rounds.
#[derive(Serialize)]
pub struct Case {
    /// Median, in microseconds.
    pub p50_us: Option<f64>,
    /// 99th percentile, in microseconds.
    pub p99_us: Option<f64>,
    /// 99.9th percentile, in microseconds.
    pub p999_us: Option<f64>,
    /// Operations a second.
    pub rps: Option<f64>,
    /// Values in a round's distribution.
    pub n: u64,
    /// Rounds that measured the case.
    pub runs: usize,
    /// What else it measured; units end the names.
    #[serde(flatten)]
    pub extra: BTreeMap<String, f64>,
}

impl Summary {
    /// Of `runs`, with those of `ratios` that were measured.
    #[must_use]
    pub fn new(env: Json, runs: &Runs, ratios: &[Ratio]) -> Summary {
        let cases = runs.cases().map(|name| (name.to_owned(), Case::new(name, runs))).collect();
        let ratios = ratios
            .iter()
            .filter_map(|ratio| Some((ratio.name.to_owned(), rounded(&ratio.value(runs)?))))
            .collect();
        Summary { schema: SCHEMA, env, cases, ratios }
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Maps with string keys and plain numbers: nothing that JSON cannot hold.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

impl Case {
    fn new(name: &str, runs: &Runs) -> Case {
        let figure = |figure: &str| runs.figure(name, figure).map(significant);
        let extras = runs.extras(name);
        let n = runs.figure(name, "n").unwrap_or(0.0).round();
        Case {
            p50_us: figure("p50_us"),
            p99_us: figure("p99_us"),
            p999_us: figure("p999_us"),
            rps: figure("rps"),
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            n: n as u64,
            runs: runs.rounds(name),
            extra: extras.into_iter().filter_map(|e| Some((e.clone(), figure(&e)?))).collect(),
        }
    }
}

fn rounded(value: &Value) -> Value {
    Value {
        median: significant(value.median),
        min: significant(value.min),
        max: significant(value.max),
        runs: value.runs,
    }
}

/// To six significant digits: more than any of it means, and readable.
fn significant(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}
