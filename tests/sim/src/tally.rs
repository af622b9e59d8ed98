//! What came of it: every call from outside, and gauges over time.

use std::time::Duration;

use engine::core::Snapshot;
use ipc::Outcome;

/// One call from outside that was answered or refused. A caller that left is not told of.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Whose.
    pub source: usize,
    /// When it came, since the start of the world.
    pub at: Duration,
    /// Until its answer.
    pub latency: Duration,
    /// How it went.
    pub outcome: Outcome,
}

/// All functions at one time.
#[derive(Clone, Debug)]
pub struct Gauge {
    /// Since the start of the world.
    pub at: Duration,
    /// By function.
    pub functions: Vec<Snapshot>,
}

/// See the module's description.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// In the order of the answers.
    pub samples: Vec<Sample>,
    /// In the order of time.
    pub gauges: Vec<Gauge>,
}

/// A summary of the calls that came in some time.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Calls.
    pub offered: usize,
    /// Those that succeeded.
    pub good: usize,
    /// Successes a second.
    pub goodput: f64,
    /// Of those that succeeded.
    pub p50: Duration,
    /// The same.
    pub p99: Duration,
}

impl Tally {
    /// Of the calls that came from `from` to before `to`, of all sources or of one.
    #[must_use]
    pub fn summary(&self, source: Option<usize>, from: Duration, to: Duration) -> Summary {
        let here = |sample: &&Sample| {
            (from..to).contains(&sample.at) && source.is_none_or(|source| source == sample.source)
        };
        let mut good: Vec<Duration> = self
            .samples
            .iter()
            .filter(here)
            .filter(|sample| sample.outcome == Outcome::Ok)
            .map(|sample| sample.latency)
            .collect();
        good.sort_unstable();
        let rank = |percent: usize| {
            let index = (good.len() * percent).div_ceil(100).saturating_sub(1);
            good.get(index).copied().unwrap_or_default()
        };
        Summary {
            offered: self.samples.iter().filter(here).count(),
            good: good.len(),
            goodput: good.len() as f64 / (to.saturating_sub(from)).as_secs_f64(),
            p50: rank(50),
            p99: rank(99),
        }
    }

    /// How often calls ended like this.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.samples.iter().filter(|sample| sample.outcome == outcome).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_calls_that_succeeded() {
        let ms = Duration::from_millis;
        let sample = |n: u32| Sample {
            source: 0,
            at: ms(n.into()),
            latency: ms(n.into()),
            outcome: if n > 100 { Outcome::Overloaded } else { Outcome::Ok },
        };
        let tally = Tally { samples: (1..=200).map(sample).collect(), gauges: Vec::new() };
        let summary = tally.summary(None, Duration::ZERO, ms(1_000));
        assert_eq!((summary.offered, summary.good), (200, 100));
        assert_eq!((summary.p50, summary.p99), (ms(50), ms(99)));
        assert_eq!(tally.summary(Some(1), Duration::ZERO, ms(1_000)).offered, 0);
        assert_eq!(tally.summary(None, ms(10), ms(20)).offered, 10);
    }
}
