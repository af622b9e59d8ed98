//! What a load says about a pool, from the log of its requests.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::load::Report;
use crate::load::log::Entry;

/// Statuses by which a server says that it will not, or not in time: over a limit, no capacity,
/// past the deadline.
const REFUSALS: [u16; 3] = [429, 503, 504];
const MS: f64 = 1e-3;

/// Of one load. Every request that was due counts in exactly one of `good`, `late`, `refused`,
/// `failed` and `unsent`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Requests a second that were due; none in a closed loop.
    pub offered_per_second: Option<f64>,
    /// Kept connections.
    pub connections: u32,
    /// Answers of status 200 a second, late ones included.
    pub throughput: f64,
    /// Those within the deadline; all of them where there is none.
    pub goodput: f64,
    /// Median latency of answers of status 200; none without such.
    pub p50_us: Option<f64>,
    /// 99th percentile of the same.
    pub p99_us: Option<f64>,
    /// The same over all requests that were due, where those without an answer of status 200 are
    /// slower than any; none where that makes it endless.
    pub p99_all_us: Option<f64>,
    /// Answers of status 200 within the deadline.
    pub good: u64,
    /// Those past it.
    pub late: u64,
    /// Answered with 429, 503 or 504.
    pub refused: u64,
    /// Answered with anything else, or not at all.
    pub failed: u64,
    /// Due, but all connections waited until the end.
    pub unsent: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// How late the generator sent, 99th percentile: its own error.
    pub late_us_p99: f64,
}

impl Figures {
    /// Of a run that kept every request.
    #[must_use]
    pub fn new(report: &Report, deadline: Option<Duration>) -> Figures {
        let seconds = report.elapsed.as_secs_f64().max(MS);
        let mut statuses = BTreeMap::new();
        let (mut good, mut late, mut refused, mut failed) = (0u64, 0u64, 0u64, 0u64);
        for entry in &report.log {
            if let Some(status) = entry.status {
                *statuses.entry(status).or_default() += 1;
            }
            match entry.status {
                Some(200) if deadline.is_none_or(|deadline| entry.latency <= deadline) => good += 1,
                Some(200) => late += 1,
                Some(status) if REFUSALS.contains(&status) => refused += 1,
                _ => failed += 1,
            }
        }
        let served = served(&report.log);
        let due = report.log.len() as u64 + report.unsent;
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        Figures {
            offered_per_second: report.rate(),
            connections: report.connections,
            throughput: served.len() as f64 / seconds,
            goodput: good as f64 / seconds,
            p50_us: percentile(&served, served.len() as u64, 50).map(us),
            p99_us: percentile(&served, served.len() as u64, 99).map(us),
            p99_all_us: percentile(&served, due, 99).map(us),
            good,
            late,
            refused,
            failed,
            unsent: report.unsent,
            statuses,
            late_us_p99: report.late.value_at_quantile(0.99) as f64 / 1e3,
        }
    }

    /// Share of the requests due that were refused or never sent, in percent.
    #[must_use]
    pub fn refused_percent(&self) -> f64 {
        let due = self.good + self.late + self.refused + self.failed + self.unsent;
        100.0 * (self.refused + self.unsent) as f64 / due.max(1) as f64
    }
}

/// Latencies of the answers of status 200, ascending.
#[must_use]
pub fn served(entries: &[Entry]) -> Vec<Duration> {
    let served = entries.iter().filter(|entry| entry.status == Some(200));
    let mut latencies: Vec<Duration> = served.map(|entry| entry.latency).collect();
    latencies.sort_unstable();
    latencies
}

/// The smallest of `ascending` that `percent` of `n` do not exceed, where those of the `n` that are
/// not there are greater than all; none where that is one of them, or `n` is 0.
#[must_use]
pub fn percentile(ascending: &[Duration], n: u64, percent: u64) -> Option<Duration> {
    let rank = (n * percent).div_ceil(100).checked_sub(1)?;
    ascending.get(usize::try_from(rank).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concurrency::tests::{entries, report};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn whoever_is_not_served_is_slower_than_all() {
        let served: Vec<Duration> = (1..=99).map(|ms| ms * MS).collect();
        assert_eq!(percentile(&served, 99, 50), Some(50 * MS));
        assert_eq!(percentile(&served, 100, 99), Some(99 * MS));
        assert_eq!(percentile(&served, 101, 99), None);
        assert_eq!(percentile(&[], 0, 99), None);
    }

    #[test]
    fn every_request_counts_once_and_only_answers_in_time_are_good() {
        let log = entries(&[
            (0, 5, Some(200)),
            (1, 100, Some(200)),
            (2, 101, Some(200)),
            (3, 1, Some(503)),
            (4, 1, Some(429)),
            (5, 100, Some(504)),
            (6, 1, Some(500)),
            (7, 1, None),
        ]);
        let mut report = report(log);
        report.unsent = 2;
        let figures = Figures::new(&report, Some(100 * MS));
        assert_eq!((figures.good, figures.late, figures.refused), (2, 1, 3));
        assert_eq!((figures.failed, figures.unsent), (2, 2));
        assert_eq!((figures.throughput, figures.goodput), (1.5, 1.0));
        assert_eq!((figures.p50_us, figures.p99_all_us), (Some(100_000.0), None));
        assert_eq!(figures.refused_percent(), 50.0);
        assert_eq!(figures.statuses[&200], 3);
        assert_eq!(Figures::new(&report, None).good, 3);
    }
}
