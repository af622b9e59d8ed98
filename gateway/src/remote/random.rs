//! The draws of the balance: cheap, seeded, and without a clock or the system's entropy.

/// xorshift64* (Marsaglia, Vigna): a few instructions, and good enough to draw two of a thousand.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        // Zero is the generator's only fixed point.
        Random(seed.max(1))
    }

    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        u32::try_from(high).unwrap_or(u32::MAX)
    }

    /// Below `bound`. Multiplied rather than divided (Lemire, 2019): the bias is below 2^-22 for a
    /// thousand.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        let wide = (u64::from(self.next()) * u64::from(bound)) >> 32;
        u32::try_from(wide).unwrap_or(0)
    }

    /// Two different numbers below `bound`, which is at least two.
    pub(super) fn pair(&mut self, bound: u32) -> (u32, u32) {
        let first = self.below(bound);
        let second = self.below(bound - 1);
        (first, if second >= first { second + 1 } else { second })
    }

    /// Another number below `bound`, which is at least three.
    pub(super) fn third(&mut self, bound: u32, (first, second): (u32, u32)) -> u32 {
        let mut third = self.below(bound - 2);
        third += u32::from(third >= first.min(second));
        third + u32::from(third >= first.max(second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_different_from_each_other_and_reach_every_number() {
        let mut random = Random::new(0);
        for bound in [3, 4, 10] {
            let mut seen = vec![0; bound as usize];
            for _ in 0..1_000 {
                let (first, second) = random.pair(bound);
                let third = random.third(bound, (first, second));
                assert!(first != second && first != third && second != third);
                for drawn in [first, second, third] {
                    seen[drawn as usize] += 1;
                }
            }
            assert!(seen.iter().all(|count| *count > 0), "{bound}: {seen:?}");
        }
    }
}
