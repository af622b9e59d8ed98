//! How many lines of one function are kept: so many a second, and as many at once after a pause.

use std::time::Instant;

/// What a line costs: the credit of a nanosecond is the rate.
const LINE: u64 = 1_000_000_000;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Lines a second.
    rate: u32,
    credit: u64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(rate: u32, now: Instant) -> Self {
        Self { rate, credit: full(rate), at: now }
    }

    pub(super) fn rate(&self) -> u32 {
        self.rate
    }

    /// Whether a line may be kept now.
    pub(super) fn has_token(&mut self, now: Instant) -> bool {
        let elapsed_ns = now.saturating_duration_since(self.at).as_nanos();
        let earned = u64::try_from(elapsed_ns).unwrap_or(u64::MAX).saturating_mul(self.rate.into());
        self.credit = self.credit.saturating_add(earned).min(full(self.rate));
        self.at = self.at.max(now);
        self.credit >= LINE
    }

    /// Pays for a line, for which there was a token.
    pub(super) fn take(&mut self) {
        self.credit = self.credit.saturating_sub(LINE);
    }
}

fn full(rate: u32) -> u64 {
    u64::from(rate) * LINE
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Takes lines until none may be kept.
    fn drain(bucket: &mut Bucket, now: Instant) -> u32 {
        let mut count = 0;
        while bucket.has_token(now) {
            bucket.take();
            count += 1;
        }
        count
    }

    #[test]
    fn a_second_of_lines_comes_at_once_and_then_as_many_as_time_passes() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut bucket = Bucket::new(1000, start);
        assert_eq!(drain(&mut bucket, start), 1000);
        assert_eq!(drain(&mut bucket, after(0)), 0);
        assert_eq!(drain(&mut bucket, after(1)), 1);
        assert_eq!(drain(&mut bucket, after(251)), 250);
        // However long the pause was.
        assert_eq!(drain(&mut bucket, after(86_400_000)), 1000);
    }

    #[test]
    fn small_steps_add_up_and_time_that_goes_back_gives_nothing() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1, start);
        assert_eq!(drain(&mut bucket, start), 1);
        for step in 1..1000 {
            assert_eq!(drain(&mut bucket, start + Duration::from_millis(step)), 0, "{step}");
        }
        assert_eq!(drain(&mut bucket, start), 0);
        assert_eq!(drain(&mut bucket, start + Duration::from_secs(1)), 1);
        assert_eq!(drain(&mut bucket, start), 0);
    }

    #[test]
    fn the_largest_rate_and_the_longest_pause_do_not_overflow() {
        let start = Instant::now();
        let mut bucket = Bucket::new(u32::MAX, start);
        bucket.take();
        assert!(bucket.has_token(start + Duration::from_secs(u32::MAX.into())));
        assert_eq!(bucket.credit, full(u32::MAX));
    }
}
