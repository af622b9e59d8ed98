//! A small random generator (SplitMix64): the same numbers from the same seed, everywhere.

use std::time::Duration;

/// See the module's description.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of numbers of its own for each `seed` and `stream`.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93));
        // Neighbouring seeds part within two steps.
        random.word();
        Random(random.word())
    }

    /// 64 random bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number from 0 to below `bound`, which is not 0.
    pub fn below(&mut self, bound: u16) -> u16 {
        u16::try_from(self.word() % u64::from(bound)).expect("smaller than a u16")
    }

    /// Above 0, at most 1.
    pub fn unit(&mut self) -> f64 {
        const STEPS: f64 = (1u64 << 53) as f64;
        ((self.word() >> 11) + 1) as f64 / STEPS
    }

    /// True in `share` of all cases, from 0 to 1.
    pub fn happens(&mut self, share: f64) -> bool {
        self.unit() <= share
    }

    /// One of `from`, which is not empty.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let bound = u16::try_from(from.len()).expect("choices are few");
        from[usize::from(self.below(bound))]
    }

    /// Exponentially distributed, as the gaps between independent events are.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-self.unit().ln())
    }

    /// From `least` to `greatest`, every order of magnitude as likely as the next; both are above 0.
    pub fn between(&mut self, least: Duration, greatest: Duration) -> Duration {
        let span = greatest.as_secs_f64() / least.as_secs_f64();
        least.mul_f64(span.powf(self.unit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_streams_give_numbers_of_their_own() {
        let first = |seed, stream| Random::new(seed, stream).word();
        assert_eq!(first(1, 1), first(1, 1));
        assert_ne!(first(1, 1), first(2, 1));
        assert_ne!(first(1, 1), first(1, 2));
    }

    #[test]
    fn exponential_times_have_their_mean() {
        let mut random = Random::new(7, 0);
        let sum: Duration =
            (0..100_000).map(|_| random.exponential(Duration::from_millis(1))).sum();
        let mean = sum.as_secs_f64() / 100.0;
        assert!((0.99..1.01).contains(&mean), "{mean} ms");
    }
}
