//! How long until a gateway that could not be reached is tried again: longer each time, and differently
//! for everyone, so that engines which lost the same gateway do not come back to it all at once.

use std::time::Duration;

/// The shortest pause.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause: what a gateway that is back may have to wait for an engine.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A pause is at most so many times the last one.
const GROWTH: u32 = 3;

/// The pauses of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    last: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Backoff {
        Backoff { last: PAUSE_MIN }
    }

    /// The next pause: anything from the shortest to a few times the last one, as `random` says.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let most = (self.last * GROWTH).min(PAUSE_MAX);
        let span = u64::try_from((most - PAUSE_MIN).as_nanos()).unwrap_or(u64::MAX);
        self.last = PAUSE_MIN + Duration::from_nanos(random % (span + 1));
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_never_leave_the_bounds() {
        let mut backoff = Backoff::new();
        assert_eq!(backoff.next(0), PAUSE_MIN);
        assert_eq!(backoff.next(100_000_000), PAUSE_MIN * 3);
        assert_eq!(backoff.next(400_000_000), PAUSE_MIN * 9);
        assert_eq!(backoff.next(1_300_000_000), PAUSE_MIN * 27);
        assert_eq!(backoff.next(1_950_000_000), PAUSE_MAX);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pause = backoff.next(random);
            assert!((PAUSE_MIN..=PAUSE_MAX).contains(&pause), "{pause:?}");
        }
    }

    #[test]
    fn two_that_start_together_part_ways() {
        let (mut one, mut other) = (Backoff::new(), Backoff::new());
        assert_ne!(one.next(12_345_678), other.next(87_654_321));
    }
}
