//! Monotonic time in nanoseconds: one integer, comparable between processes of a host, which is
//! why deadlines in shared memory use it and `std::time::Instant` would not do.

use std::ops::Add;
use std::time::Duration;

/// A point of `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The time from `earlier` to `self`; zero when `earlier` is the later one.
    #[must_use]
    pub fn saturating_since(self, earlier: Nanos) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Nanos {
    type Output = Nanos;

    /// Saturates: a deadline past the end of time (584 years of uptime) is the end of time.
    fn add(self, duration: Duration) -> Nanos {
        Nanos(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The time now.
#[must_use]
pub fn now() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live, writable timespec. The call fails only for a clock that does not
    // exist or a bad pointer, and CLOCK_MONOTONIC exists on every Linux.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0, "CLOCK_MONOTONIC cannot be read");
    // Monotonic time is never negative.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Nanos(seconds * 1_000_000_000 + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_run_backwards() {
        let first = now();
        let second = now();
        assert!(first <= second);
        assert_eq!(first.saturating_since(second + Duration::from_nanos(1)), Duration::ZERO);
    }

    #[test]
    fn adding_past_the_end_of_time_saturates() {
        assert_eq!(Nanos(5) + Duration::MAX, Nanos(u64::MAX));
        assert_eq!(Nanos(5) + Duration::from_nanos(7), Nanos(12));
        assert_eq!(Nanos(12).saturating_since(Nanos(5)), Duration::from_nanos(7));
    }
}
