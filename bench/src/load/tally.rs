//! What one thread has seen since it last reported; sums of these are what a run has seen.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::log::Entry;

/// Significant decimal digits of a recorded time.
const DIGITS: u8 = 3;
/// Longer times count as this one, an hour.
const TIME_MAX_NS: u64 = 3_600_000_000_000;

/// Requests that got no answer of status 2xx, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// No connection could be made to send it on.
    pub connect: u64,
    /// Sending failed.
    pub write: u64,
    /// Receiving failed, mostly by a reset.
    pub read: u64,
    /// The connection ended before the answer was complete.
    pub short: u64,
    /// The answer was no HTTP/1.1.
    pub malformed: u64,
    /// No complete answer within [`Plan::timeout`](super::Plan::timeout) after it was sent.
    pub timeout: u64,
    /// Answered with another status than 2xx.
    pub status: u64,
}

impl Errors {
    /// Every kind with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("connect", self.connect),
            ("write", self.write),
            ("read", self.read),
            ("short", self.short),
            ("malformed", self.malformed),
            ("timeout", self.timeout),
            ("status", self.status),
        ]
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.named().iter().map(|(_, count)| count).sum()
    }

    fn add(&mut self, other: &Errors) {
        self.connect += other.connect;
        self.write += other.write;
        self.read += other.read;
        self.short += other.short;
        self.malformed += other.malformed;
        self.timeout += other.timeout;
        self.status += other.status;
    }
}

/// Counts and distributions; all of them add up over seconds and threads.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// Latencies of served requests, ns.
    pub times: Histogram<u64>,
    /// The same from the moment of sending, ns; constant rate only.
    pub from_sent: Histogram<u64>,
    /// How late requests were sent through nobody's fault but ours, ns; constant rate only.
    pub late: Histogram<u64>,
    pub errors: Errors,
    /// Answers of another status than 2xx, by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Each request, where the plan keeps them.
    pub log: Vec<Entry>,
    /// Requests that were due before the end but never sent: their connections were still busy.
    pub unsent: u64,
    /// Connections made anew after the first ones.
    pub reconnects: u64,
    /// Bytes received, heads included.
    pub bytes: u64,
    /// CPU time of the thread.
    pub cpu: Duration,
}

impl Tally {
    pub(super) fn new() -> Tally {
        let histogram =
            || Histogram::new_with_bounds(1, TIME_MAX_NS, DIGITS).expect("bounds that are valid");
        Tally {
            times: histogram(),
            from_sent: histogram(),
            late: histogram(),
            errors: Errors::default(),
            statuses: BTreeMap::new(),
            log: Vec::new(),
            unsent: 0,
            reconnects: 0,
            bytes: 0,
            cpu: Duration::ZERO,
        }
    }

    pub(super) fn add(&mut self, other: &Tally) {
        self.times.add(&other.times).expect("the same bounds");
        self.from_sent.add(&other.from_sent).expect("the same bounds");
        self.late.add(&other.late).expect("the same bounds");
        self.errors.add(&other.errors);
        for (&status, count) in &other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.log.extend_from_slice(&other.log);
        self.unsent += other.unsent;
        self.reconnects += other.reconnects;
        self.bytes += other.bytes;
        self.cpu += other.cpu;
    }
}

/// Records a duration, to the nanosecond.
pub(super) fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_of_tallies_is_the_tally_of_all() {
        let (mut odd, mut even, mut all) = (Tally::new(), Tally::new(), Tally::new());
        for us in 1..=10_000 {
            let part = if us % 2 == 1 { &mut odd } else { &mut even };
            for tally in [part, &mut all] {
                record(&mut tally.times, Duration::from_micros(us));
                tally.errors.short += 1;
                *tally.statuses.entry(503).or_default() += 1;
                tally.bytes += us;
            }
        }
        odd.add(&even);
        assert_eq!(odd.times, all.times);
        assert_eq!((odd.errors, &odd.statuses), (all.errors, &all.statuses));
        assert_eq!((odd.errors.total(), odd.bytes), (10_000, all.bytes));
    }

    #[test]
    fn times_beyond_the_range_count_as_the_greatest() {
        let mut tally = Tally::new();
        record(&mut tally.times, Duration::MAX);
        assert_eq!(tally.times.len(), 1);
        assert!(tally.times.max() >= TIME_MAX_NS);
    }

    #[test]
    fn every_kind_of_error_is_named_and_counted() {
        let ones =
            Errors { connect: 1, write: 1, read: 1, short: 1, malformed: 1, timeout: 1, status: 1 };
        let mut sum = ones;
        sum.add(&ones);
        assert_eq!(sum.named().map(|(_, count)| count), [2; 7]);
        assert_eq!(sum.total(), 14);
    }
}
