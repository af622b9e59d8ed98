//! What became of the requests of a load, and what must be true of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::ledger::Ledger;
use super::settings::{IDEMPOTENT, ONCE};
use crate::load::Outcome;

/// One request.
#[derive(Clone, Debug)]
pub struct Record {
    /// No other request's; also its body.
    pub id: String,
    /// Which function it is for.
    pub function: &'static str,
    /// When it should have been sent.
    pub due: Instant,
    /// When it was.
    pub sent: Instant,
    /// When its outcome was known.
    pub ended: Instant,
    /// What became of it.
    pub outcome: Outcome,
    /// The engine that served it.
    pub host: Option<String>,
}

/// All requests of a load.
#[derive(Debug)]
pub struct Report {
    /// In no order.
    pub records: Vec<Record>,
}

impl Report {
    /// How often each outcome came.
    #[must_use]
    pub fn outcomes(&self) -> BTreeMap<&Outcome, usize> {
        let mut counts = BTreeMap::new();
        for record in &self.records {
            *counts.entry(&record.outcome).or_default() += 1;
        }
        counts
    }

    /// Requests that got no success.
    pub fn failures(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.outcome != Outcome::Ok)
    }

    /// How many were due within a span of time and served, by engine.
    #[must_use]
    pub fn shares(&self, from: Instant, to: Instant) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for record in self.records.iter().filter(|record| (from..to).contains(&record.due)) {
            if let Some(host) = &record.host {
                *counts.entry(host.as_str()).or_default() += 1;
            }
        }
        counts
    }

    /// A quantile of the latencies of the requests that were due within a span of time, from then.
    ///
    /// # Panics
    /// If none was.
    #[must_use]
    pub fn quantile(&self, part: f64, from: Instant, to: Instant) -> Duration {
        let due = self.records.iter().filter(|record| (from..to).contains(&record.due));
        let mut latencies: Vec<Duration> = due.map(|record| record.ended - record.due).collect();
        assert!(!latencies.is_empty(), "no request was due within {:?}", to - from);
        latencies.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index below some thousands"
        )]
        let index = (part * latencies.len() as f64) as usize;
        latencies[index.min(latencies.len() - 1)]
    }

    /// How long after `moment` the last failure came; zero if none came later.
    #[must_use]
    pub fn last_failure(&self, moment: Instant) -> Duration {
        let ends = self.failures().map(|record| record.ended.saturating_duration_since(moment));
        ends.max().unwrap_or_default()
    }

    /// Asserts that every request was served.
    ///
    /// # Panics
    /// If one was not.
    pub fn expect_no_failure(&self) {
        let first = self.failures().min_by_key(|record| record.ended);
        assert!(first.is_none(), "{:?}, the first of them {first:?}", self.outcomes());
    }

    /// Asserts what holds whatever happens to engines: idempotent calls all succeed, other ones fail
    /// only with 502 or 504, and none of those was started twice.
    ///
    /// # Panics
    /// If something else is so.
    pub fn expect_only_losses(&self, ledger: &Ledger) {
        for record in self.failures() {
            assert_ne!(record.function, IDEMPOTENT, "{record:?} of {:?}", self.outcomes());
            let is_loss = matches!(record.outcome, Outcome::Failed(502 | 504, _));
            assert!(is_loss, "{record:?} of {:?}", self.outcomes());
        }
        self.expect_started_once(ledger);
    }

    /// Asserts that the engine that answered did run the call, and that nobody ran one twice that is
    /// not idempotent.
    ///
    /// # Panics
    /// If it was otherwise.
    pub fn expect_started_once(&self, ledger: &Ledger) {
        for record in &self.records {
            let runs = ledger.runs(&record.id);
            assert!(record.function != ONCE || runs.len() <= 1, "{record:?} ran on {runs:?}");
            if let Some(host) = &record.host {
                assert!(runs.contains(host), "{record:?} ran on {runs:?}");
            }
        }
    }
}
