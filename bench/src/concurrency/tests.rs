//! What the tests of several modules are made of.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::figures::Figures;
use crate::load::log::Entry;
use crate::load::{Errors, Pace, Report};

/// Requests by the moment due in ms, latency in ms and status.
pub(super) fn entries(requests: &[(u64, u64, Option<u16>)]) -> Vec<Entry> {
    let entry = |&(due, latency, status): &(u64, u64, Option<u16>)| Entry {
        due: Duration::from_millis(due),
        latency: Duration::from_millis(latency),
        status,
        request: 0,
    };
    requests.iter().map(entry).collect()
}

/// A load of two seconds at 5 requests a second.
pub(super) fn report(log: Vec<Entry>) -> Report {
    let times = || Histogram::new(3).expect("three digits are a valid precision");
    Report {
        times: times(),
        from_sent: times(),
        late: times(),
        requests: log.len() as u64,
        errors: Errors::default(),
        statuses: std::collections::BTreeMap::new(),
        log,
        unsent: 0,
        reconnects: 0,
        bytes: 0,
        elapsed: Duration::from_secs(2),
        cpu: Duration::ZERO,
        connections: 64,
        threads: 1,
        pace: Pace::Constant { per_second: 5.0 },
    }
}

/// Of ten requests that were all served.
pub(super) fn figures() -> Figures {
    let requests: Vec<_> = (1..=10).map(|n| (n * 200, n, Some(200))).collect();
    Figures::new(&report(entries(&requests)), None)
}
