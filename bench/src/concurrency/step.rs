//! How soon a pool has adapted after the load rose at once: its p99 in short windows, compared with
//! what it comes to rest at.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::figures::{percentile, served};
use crate::load::log::Entry;

/// Of one percentile. With fewer than 100 requests in it, that is the slowest of them.
pub const WINDOW: Duration = Duration::from_millis(100);
/// A window is at rest up to this many times what windows come to at the end.
const REST_FACTOR: f64 = 2.0;
/// So many windows at rest in a row are no luck.
const WINDOWS_AT_REST: usize = 3;

/// What followed a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// p99 of each window from the step on; none where it is endless, since more than 1% were not
    /// served, or nothing was due.
    pub windows_us: Vec<Option<f64>>,
    /// Median of the windows at the end.
    pub rest_us: Option<f64>,
    /// From the step to the beginning of the first of three windows in a row that are at most twice
    /// as slow as that; none where there are no three.
    pub back_ms: Option<f64>,
}

impl Recovery {
    /// From the log of a load that rose at `at` and ended at `end`; its last `rest` tells what it
    /// comes to rest at.
    #[must_use]
    pub fn new(log: &[Entry], at: Duration, end: Duration, rest: Duration) -> Recovery {
        let mut windows_us = Vec::new();
        let mut from = at;
        while from + WINDOW <= end {
            let inside = |entry: &&Entry| from <= entry.due && entry.due < from + WINDOW;
            let due: Vec<Entry> = log.iter().filter(inside).copied().collect();
            let p99 = percentile(&served(&due), due.len() as u64, 99);
            windows_us.push(p99.map(|p99| p99.as_secs_f64() * 1e6));
            from += WINDOW;
        }
        let rest_windows = (rest.as_millis() / WINDOW.as_millis()) as usize;
        let last = &windows_us[windows_us.len().saturating_sub(rest_windows)..];
        let rest_us = median(last);
        let back_ms = rest_us.and_then(|rest_us| {
            let is_at_rest =
                |window: &Option<f64>| window.is_some_and(|us| us <= REST_FACTOR * rest_us);
            let mut runs = windows_us.windows(WINDOWS_AT_REST);
            let first = runs.position(|run| run.iter().all(is_at_rest))?;
            Some(first as f64 * WINDOW.as_millis() as f64)
        });
        Recovery { windows_us, rest_us, back_ms }
    }
}

/// Of values of which some are endless; none where that is the median, or there are no values.
#[must_use]
pub fn median(values: &[Option<f64>]) -> Option<f64> {
    let mut ascending: Vec<f64> =
        values.iter().map(|value| value.unwrap_or(f64::INFINITY)).collect();
    ascending.sort_unstable_by(f64::total_cmp);
    let middle = ascending.len() / 2;
    let median = match ascending.len() {
        0 => return None,
        n if n % 2 == 1 => ascending[middle],
        _ => f64::midpoint(ascending[middle - 1], ascending[middle]),
    };
    median.is_finite().then_some(median)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concurrency::tests::entries;

    const MS: Duration = Duration::from_millis(1);

    /// Ten requests in each window, from 0 on, with these latencies; a second before the step.
    fn recovery(latencies_ms: &[u64], status: u16) -> Recovery {
        let mut requests = Vec::new();
        for (window, &latency) in (0..).zip(latencies_ms) {
            requests.extend((0..10).map(|n| (1000 + window * 100 + n * 10, latency, Some(status))));
        }
        requests.push((500, 9999, Some(200)));
        let end = 1000 * MS + u32::try_from(latencies_ms.len()).unwrap() * WINDOW;
        Recovery::new(&entries(&requests), 1000 * MS, end, 300 * MS)
    }

    #[test]
    fn a_pool_is_back_where_three_windows_in_a_row_are_at_rest() {
        let recovery = recovery(&[80, 40, 15, 50, 20, 15, 10, 10, 11, 10], 200);
        assert_eq!(recovery.rest_us, Some(10_000.0));
        assert_eq!(recovery.windows_us.len(), 10);
        assert_eq!(recovery.windows_us[0], Some(80_000.0));
        assert_eq!(recovery.back_ms, Some(400.0));
    }

    #[test]
    fn a_pool_that_no_step_moves_is_back_at_once() {
        assert_eq!(recovery(&[10; 6], 200).back_ms, Some(0.0));
    }

    #[test]
    fn a_pool_that_refuses_or_never_settles_is_not_back() {
        let refusing = recovery(&[1; 6], 503);
        assert_eq!((refusing.rest_us, refusing.back_ms), (None, None));
        assert_eq!(recovery(&[50, 10, 50, 10, 50, 10], 200).back_ms, None);
    }

    #[test]
    fn an_endless_value_is_greater_than_all() {
        assert_eq!(median(&[Some(1.0), None, Some(3.0)]), Some(3.0));
        assert_eq!(median(&[Some(1.0), None]), None);
        assert_eq!(median(&[Some(1.0), Some(2.0)]), Some(1.5));
        assert_eq!(median(&[]), None);
    }
}
