//! Calls a second, with a burst: the generic cell rate algorithm. A bucket is one number, the time at
//! which it would be full again, so that all shards share it by one atomic step a call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reactor::clock::Nanos;

/// Most calls a second that can be asked for: beyond it the interval has no nanoseconds left.
pub(super) const RATE_MAX: u32 = 1_000_000;
/// Largest burst.
pub(super) const BURST_MAX: u32 = 1_000_000;

/// How many calls how fast. Pure: it is told the time and the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// Between two calls at the rate, in ns; never 0.
    interval_ns: u64,
    /// How far calls may run ahead of the rate, in ns.
    ahead_ns: u64,
}

impl Rate {
    /// `rate` calls a second, of which `burst` may come at once; both are brought into
    /// `1..=RATE_MAX` and `1..=BURST_MAX`.
    pub(super) fn new(rate: u32, burst: u32) -> Rate {
        let interval_ns = 1_000_000_000 / u64::from(rate.clamp(1, RATE_MAX));
        let ahead_ns = interval_ns * u64::from(burst.clamp(1, BURST_MAX) - 1);
        Rate { interval_ns, ahead_ns }
    }

    /// What `due` becomes by a call now, or how long until one is possible.
    fn next(self, due: u64, now: Nanos) -> Result<u64, Duration> {
        match due.checked_sub(now.0) {
            Some(early) if early > self.ahead_ns => {
                Err(Duration::from_nanos(early - self.ahead_ns))
            }
            _ => Ok(due.max(now.0).saturating_add(self.interval_ns)),
        }
    }
}

/// The state of one limit, shared by all threads that let calls in.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) rate: Rate,
    /// When the next call would come if all had come at the rate, in ns of the monotonic clock.
    due_ns: AtomicU64,
}

impl Bucket {
    pub(super) fn new(rate: Rate) -> Bucket {
        Bucket { rate, due_ns: AtomicU64::new(0) }
    }

    /// Takes one call out, or says how long until there is one.
    pub(super) fn take(&self, now: Nanos) -> Result<(), Duration> {
        // A plain counter: it orders nothing but itself.
        let mut due = self.due_ns.load(Ordering::Relaxed);
        loop {
            let next = self.rate.next(due, now)?;
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            match self.due_ns.compare_exchange_weak(due, next, success, failure) {
                Ok(_) => return Ok(()),
                Err(current) => due = current,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_holds() {
        let bucket = Bucket::new(Rate::new(10, 3));
        let start = Nanos(SECOND);
        assert!((0..3).all(|_| bucket.take(start).is_ok()));
        assert_eq!(bucket.take(start), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(Nanos(SECOND + 60_000_000)), Err(Duration::from_millis(40)));
        assert!(bucket.take(Nanos(SECOND + 100_000_000)).is_ok());
        assert!(bucket.take(Nanos(SECOND + 100_000_000)).is_err());
    }

    #[test]
    fn a_full_bucket_does_not_grow_beyond_its_burst() {
        let bucket = Bucket::new(Rate::new(10, 3));
        let late = Nanos(1_000_000 * SECOND);
        assert_eq!((0..100).filter(|_| bucket.take(late).is_ok()).count(), 3);
    }

    #[test]
    fn threads_that_share_a_bucket_get_its_burst_once() {
        let bucket = Arc::new(Bucket::new(Rate::new(1, 1000)));
        let take = |bucket: Arc<Bucket>| {
            move || (0..1000).filter(|_| bucket.take(Nanos(SECOND)).is_ok()).count()
        };
        let threads: Vec<_> =
            (0..4).map(|_| std::thread::spawn(take(Arc::clone(&bucket)))).collect();
        let taken: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(taken, 1000);
    }

    proptest! {
        #[test]
        fn no_window_has_more_than_burst_and_rate(
            rate in 1_u32..2_000,
            burst in 1_u32..50,
            gaps in prop::collection::vec(0_u64..20_000_000, 1..300),
        ) {
            let bucket = Bucket::new(Rate::new(rate, burst));
            let mut now = SECOND;
            let mut taken = Vec::new();
            for gap in gaps {
                now += gap;
                match bucket.take(Nanos(now)) {
                    Ok(()) => taken.push(now),
                    Err(wait) => {
                        let wait = u64::try_from(wait.as_nanos()).unwrap();
                        // The wait that is told is neither too long nor too short.
                        prop_assert!(bucket.rate.next(bucket.due_ns.load(Ordering::Relaxed), Nanos(now + wait)).is_ok());
                        prop_assert!(bucket.rate.next(bucket.due_ns.load(Ordering::Relaxed), Nanos(now + wait - 1)).is_err());
                    }
                }
            }
            for (first, start) in taken.iter().enumerate() {
                for (last, end) in taken.iter().enumerate().skip(first) {
                    let calls = (last - first + 1) as u64;
                    let allowed = u64::from(burst) + (end - start) / (SECOND / u64::from(rate));
                    prop_assert!(calls <= allowed, "{} calls, {} allowed", calls, allowed);
                }
            }
        }
    }
}
