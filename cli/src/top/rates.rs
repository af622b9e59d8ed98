//! What two polls of a gateway tell of the time between them.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::listing::{Function, Listing, increase};

/// A list and when it came.
#[derive(Debug)]
pub(super) struct Poll {
    pub(super) at: Instant,
    pub(super) listing: Listing,
}

/// What happened between two polls, functions with most calls first.
#[derive(Debug, Serialize)]
pub(super) struct Interval {
    /// Time between the polls.
    pub(super) seconds: f64,
    pub(super) functions: Vec<Activity>,
}

/// One function. States are those of the second poll; times are of the calls that ended between the two,
/// `None` if none did.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Activity {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) calls_per_second: f64,
    pub(super) failures_per_second: f64,
    pub(super) queued: u64,
    pub(super) running: u64,
    pub(super) waiting: u64,
    pub(super) workers: u64,
    pub(super) limit: Option<u64>,
    pub(super) hint: Option<f64>,
    pub(super) processing_p50_ns: Option<u64>,
    pub(super) processing_p99_ns: Option<u64>,
    pub(super) queue_delay_p99_ns: Option<u64>,
}

impl Interval {
    pub(super) fn between(before: &Poll, after: &Poll) -> Interval {
        // Clocks have a resolution, and nothing can be divided by 0.
        let time = after.at.saturating_duration_since(before.at).max(Duration::from_micros(1));
        let seconds = time.as_secs_f64();
        let activity = |function: &Function| {
            let before = before.listing.function(&function.name);
            Activity::new(function, before, seconds, &after.listing.bounds_ns)
        };
        let mut functions: Vec<_> = after.listing.functions.iter().map(activity).collect();
        functions.sort_by(|a, b| {
            let by_rate = b.calls_per_second.total_cmp(&a.calls_per_second);
            by_rate.then_with(|| a.name.cmp(&b.name))
        });
        Interval { seconds, functions }
    }
}

impl Activity {
    fn new(after: &Function, before: Option<&Function>, seconds: f64, bounds_ns: &[u64]) -> Self {
        let rate = |count: fn(&Function) -> u64| {
            increase(before.map_or(0, count), count(after)) as f64 / seconds
        };
        let processing = after.processing.since(before.map(|before| &before.processing));
        let queue_delay = after.queue_delay.since(before.map(|before| &before.queue_delay));
        Activity {
            name: after.name.clone(),
            state: after.state.clone(),
            calls_per_second: rate(|function| function.arrivals),
            failures_per_second: rate(|function| function.failed),
            queued: after.queued,
            running: after.running,
            waiting: after.waiting,
            workers: after.workers,
            limit: after.limit,
            hint: after.hint,
            processing_p50_ns: processing.quantile_ns(bounds_ns, 0.5),
            processing_p99_ns: processing.quantile_ns(bounds_ns, 0.99),
            queue_delay_p99_ns: queue_delay.quantile_ns(bounds_ns, 0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polls(before: &str, after: &str) -> [Poll; 2] {
        let at = Instant::now();
        let poll = |at, text| Poll { at, listing: serde_json::from_str(text).unwrap() };
        [poll(at, before), poll(at + Duration::from_secs(2), after)]
    }

    fn list(counts: [(&str, u64, u64, [u64; 3]); 2]) -> String {
        let functions = counts.map(|(name, arrivals, failed, buckets)| {
            format!(
                "{{\"name\":\"{name}\",\"state\":\"up\",\"workers\":4,\"idle\":1,\"running\":2,\
                 \"waiting\":1,\"queued\":3,\"arrivals\":{arrivals},\"failed\":{failed},\
                 \"limit\":8,\"hint\":2.5,\"processing\":{{\"buckets\":{buckets:?}}},\
                 \"queue_delay\":{{\"buckets\":{buckets:?}}}}}"
            )
        });
        format!("{{\"functions\":[{}],\"bounds_ns\":[100,200]}}", functions.join(","))
    }

    #[test]
    fn rates_and_times_are_of_what_came_between_the_polls() {
        let before = list([("a", 10, 1, [1_000, 0, 0]), ("b", 0, 0, [0; 3])]);
        let after = list([("a", 20, 2, [1_000, 10, 0]), ("b", 40, 0, [40, 0, 0])]);
        let [before, after] = polls(&before, &after);
        let interval = Interval::between(&before, &after);
        assert_eq!(interval.seconds, 2.0);
        let [b, a] = &interval.functions[..] else { panic!("{interval:?}") };
        assert_eq!((b.name.as_str(), b.calls_per_second), ("b", 20.0));
        assert_eq!((a.calls_per_second, a.failures_per_second), (5.0, 0.5));
        assert_eq!((a.queued, a.running, a.waiting, a.workers), (3, 2, 1, 4));
        assert_eq!((a.limit, a.hint), (Some(8), Some(2.5)));
        assert_eq!((a.processing_p50_ns, a.processing_p99_ns), (Some(150), Some(199)));
        assert_eq!(a.queue_delay_p99_ns, Some(199));
    }

    #[test]
    fn without_a_call_there_are_no_times_and_names_are_in_order() {
        let text = list([("b", 10, 1, [9, 0, 0]), ("a", 10, 1, [9, 0, 0])]);
        let [before, after] = polls(&text, &text);
        let functions = Interval::between(&before, &after).functions;
        assert_eq!([&functions[0].name, &functions[1].name], ["a", "b"]);
        assert_eq!((functions[0].calls_per_second, functions[0].processing_p50_ns), (0.0, None));
    }

    #[test]
    fn counters_that_fell_began_anew() {
        let before = list([("a", 1_000, 500, [700, 300, 0]), ("b", 0, 0, [0; 3])]);
        let after = list([("a", 10, 2, [10, 0, 0]), ("b", 0, 0, [0; 3])]);
        let [before, after] = polls(&before, &after);
        let a = &Interval::between(&before, &after).functions[0];
        assert_eq!((a.calls_per_second, a.failures_per_second), (5.0, 1.0));
        assert_eq!(a.processing_p50_ns, Some(50));
    }
}
