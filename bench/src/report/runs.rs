//! The raw samples of a run, by case and round.
//!
//! A case may be sampled several times in a round: the round's value is the median of its samples,
//! so that every round counts once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, read};
use crate::sample::Sample;

/// One line of `raw/*.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Number of the round, from 1.
    pub run: u32,
    /// What it measured.
    #[serde(flatten)]
    pub sample: Sample,
}

/// All samples of a run.
#[derive(Default)]
pub struct Runs {
    order: Vec<String>,
    cases: BTreeMap<String, BTreeMap<u32, Vec<Sample>>>,
}

impl Runs {
    /// Reads every `*.jsonl` in `directory`, in order of their names.
    pub fn read(directory: &Path) -> Result<Runs, Error> {
        let unreadable = |source| Error::Read { path: directory.to_owned(), source };
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                paths.push(path);
            }
        }
        paths.sort();
        let mut runs = Runs::default();
        for path in paths {
            for (index, line) in read(&path)?.lines().enumerate() {
                let record = serde_json::from_str(line).map_err(|source| Error::Sample {
                    path: path.clone(),
                    line: index + 1,
                    source,
                })?;
                runs.add(record);
            }
        }
        if runs.order.is_empty() { Err(Error::Empty(directory.to_owned())) } else { Ok(runs) }
    }

    /// Adds a sample.
    pub fn add(&mut self, record: Record) {
        let Record { run, sample } = record;
        let rounds = self.cases.entry(sample.case.clone()).or_insert_with(|| {
            self.order.push(sample.case.clone());
            BTreeMap::new()
        });
        rounds.entry(run).or_default().push(sample);
    }

    /// Names of the cases, in the order in which they were first measured.
    pub fn cases(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(String::as_str)
    }

    /// The rounds that measured `case`.
    #[must_use]
    pub fn rounds(&self, case: &str) -> usize {
        self.cases.get(case).map_or(0, BTreeMap::len)
    }

    /// The figure of a case by round; rounds that have none are left out.
    #[must_use]
    pub fn by_round(&self, case: &str, name: &str) -> BTreeMap<u32, f64> {
        let rounds = self.cases.get(case).into_iter().flatten();
        rounds
            .filter_map(|(&run, samples)| {
                let values = samples.iter().filter_map(|sample| figure(sample, name));
                Some((run, median(values.collect())?))
            })
            .collect()
    }

    /// The figure of a case: the median over the rounds.
    #[must_use]
    pub fn figure(&self, case: &str, name: &str) -> Option<f64> {
        median(self.by_round(case, name).into_values().collect())
    }

    /// Names of the figures that only some cases have, as in `cpu_us_nightcore`.
    #[must_use]
    pub fn extras(&self, case: &str) -> Vec<String> {
        let samples = self.cases.get(case).into_iter().flat_map(BTreeMap::values).flatten();
        let mut names: Vec<String> =
            samples.flat_map(|sample| sample.extra.keys().cloned()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The distribution of a case: at each percentile that every sample has, the median of their
    /// values in microseconds.
    #[must_use]
    pub fn distribution(&self, case: &str) -> Vec<(f64, f64)> {
        let samples: Vec<&Sample> =
            self.cases.get(case).into_iter().flat_map(BTreeMap::values).flatten().collect();
        let Some(first) = samples.first() else { return Vec::new() };
        let at = |percentile: f64| -> Option<f64> {
            let values = samples.iter().map(|sample| {
                let mut pairs = sample.percentiles.iter();
                pairs.find(|pair| pair.0 == percentile).map(|pair| pair.1)
            });
            median(values.collect::<Option<Vec<f64>>>()?)
        };
        let percentiles = first.percentiles.iter().map(|pair| pair.0);
        percentiles.filter_map(|percentile| Some((percentile, at(percentile)?))).collect()
    }
}

/// A figure of a sample by its name in `summary.json`. A sample without values has no percentiles.
fn figure(sample: &Sample, name: &str) -> Option<f64> {
    let measured = (sample.n > 0).then_some(sample);
    match name {
        "p50_us" => measured.map(|sample| sample.p50_us),
        "p99_us" => measured.map(|sample| sample.p99_us),
        "p999_us" => measured.map(|sample| sample.p999_us),
        "p9999_us" => measured.map(|sample| sample.p9999_us),
        "rps" => sample.rps,
        "n" => Some(sample.n as f64),
        _ => sample.extra.get(name).copied(),
    }
}

/// The middle value, or the mean of the two in the middle.
#[must_use]
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        even if even.is_multiple_of(2) => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}
