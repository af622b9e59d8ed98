//! The rule of the paper as its prototype has it, traps included, to be compared with.
//!
//! Its rate is the mean of the reciprocals of gaps, which Poisson arrivals make several times too
//! high; both means move by a thousandth a sample, so that a change takes a thousand calls to tell; and
//! before 128 calls there is no limit.

use reactor::clock::Nanos;

const ALPHA: f64 = 1e-3;
const SAMPLES_MIN: u32 = 128;

/// Moving averages of the rate and of the processing time.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Paper {
    last: Option<Nanos>,
    /// Calls a nanosecond.
    rate: f64,
    /// In ns.
    time: f64,
    samples: u32,
}

impl Paper {
    pub fn arrived(&mut self, now: Nanos) {
        if let Some(last) = self.last.replace(now) {
            // Its clock counts microseconds.
            let gap = now.0.saturating_sub(last.0).max(1_000) as f64;
            self.rate = average(self.rate, 1.0 / gap);
        }
    }

    pub fn completed(&mut self, processing_ns: u64) {
        self.samples = self.samples.saturating_add(1);
        self.time = average(self.time, processing_ns as f64);
    }

    /// tau, once there is one.
    pub fn hint(&self) -> Option<f64> {
        (self.samples >= SAMPLES_MIN).then_some(self.rate * self.time)
    }
}

fn average(mean: f64, sample: f64) -> f64 {
    if mean == 0.0 { sample } else { mean + ALPHA * (sample - mean) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_128_calls_there_is_no_hint_and_then_rate_times_time() {
        let mut paper = Paper::default();
        for n in 1..=128_u64 {
            assert_eq!(paper.hint(), None);
            paper.arrived(Nanos(n * 1_000_000));
            paper.completed(4_000_000);
        }
        let hint = paper.hint().unwrap();
        assert!((3.9..4.1).contains(&hint), "{hint}");
    }
}
