//! `/v1/functions` as a client reads it, for `ls` and `top`.

use engine::quantile;
use serde::Deserialize;

use crate::client::{ClientError, Target};

/// The answer. Fields that a newer gateway adds are passed over; what an older one does not have is
/// empty.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Listing {
    pub(crate) functions: Vec<Function>,
    /// Upper bounds of the buckets of all histograms, in ns.
    #[serde(default)]
    pub(crate) bounds_ns: Vec<u64>,
}

/// One function. Counts are since the start.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) workers: u64,
    pub(crate) idle: u64,
    pub(crate) running: u64,
    pub(crate) waiting: u64,
    pub(crate) queued: u64,
    pub(crate) arrivals: u64,
    pub(crate) failed: u64,
    pub(crate) limit: Option<u64>,
    /// Target concurrency, tau.
    pub(crate) hint: Option<f64>,
    #[serde(default)]
    pub(crate) processing: Histogram,
    #[serde(default)]
    pub(crate) queue_delay: Histogram,
    pub(crate) restarts: Option<u64>,
    pub(crate) last_death: Option<Death>,
}

/// Why a container died.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Death {
    /// In words that go on a sentence about it.
    pub(crate) message: String,
}

/// Durations by bucket.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Histogram {
    /// Each for itself; the last has no upper bound.
    pub(crate) buckets: Vec<u64>,
}

impl Listing {
    /// Asks a gateway. Returns its answer as it came and as it reads.
    ///
    /// # Errors
    /// When there is no answer within 5 s, or another one than a list.
    pub(crate) fn fetch(target: &Target) -> Result<(String, Listing), ClientError> {
        let url = format!("{}/v1/functions", target.url);
        let (status, body) = target.get(&url)?;
        if !status.is_success() {
            return Err(ClientError::Failed { subject: url, failure: status.to_string() });
        }
        match serde_json::from_str(&body) {
            Ok(listing) => Ok((body, listing)),
            Err(error) => Err(ClientError::OddAnswer { url, reason: error.to_string() }),
        }
    }

    pub(crate) fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name == name)
    }
}

impl Histogram {
    /// What was counted since `before`.
    pub(crate) fn since(&self, before: Option<&Histogram>) -> Histogram {
        let before = before.map_or(&[][..], |before| &before.buckets);
        let before = before.iter().copied().chain(std::iter::repeat(0));
        let buckets = self.buckets.iter().zip(before);
        Histogram { buckets: buckets.map(|(&after, before)| increase(before, after)).collect() }
    }

    /// An estimate, in ns; `None` if nothing was counted.
    pub(crate) fn quantile_ns(&self, bounds_ns: &[u64], part: f64) -> Option<u64> {
        quantile::estimate_ns(&self.buckets, bounds_ns, part)
    }
}

/// How much a counter has grown. One that is less than it was began anew.
pub(crate) fn increase(before: u64, after: u64) -> u64 {
    after.checked_sub(before).unwrap_or(after)
}
