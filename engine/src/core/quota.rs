//! Limits of one function that its owner sets, over all shards: calls at once and calls a second.
//!
//! The only state that shards share in the core, and all of it is counters: a call is taken or not by
//! one atomic step.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use reactor::clock::Nanos;

use super::event::Refusal;

/// A client may be ahead of the rate by what comes in this time: gaps between calls are uneven.
const BURST: Duration = Duration::from_millis(100);

/// See the module's description.
#[derive(Debug)]
pub struct Quota {
    calls_max: Option<u32>,
    calls: AtomicU32,
    /// Between two calls at the rate, in ns.
    interval_ns: Option<u64>,
    /// When the next call would come if all came at the rate, in ns.
    due_ns: AtomicU64,
}

impl Quota {
    /// At most `calls_max` calls at once, waiting ones included, and `rate_max` calls a second.
    #[must_use]
    pub fn new(calls_max: Option<u32>, rate_max: Option<u32>) -> Quota {
        let interval_ns = rate_max.map(|rate| 1_000_000_000 / u64::from(rate.max(1)));
        Quota { calls_max, calls: AtomicU32::new(0), interval_ns, due_ns: AtomicU64::new(0) }
    }

    /// Takes a place for a call, to be given back by [`Self::leave`].
    pub(super) fn enter(&self, now: Nanos) -> Result<(), Refusal> {
        // Plain counters: they order nothing but themselves.
        if let Some(max) = self.calls_max {
            let one_more = |calls| (calls < max).then_some(calls + 1);
            let order = Ordering::Relaxed;
            self.calls
                .fetch_update(order, order, one_more)
                .map_err(|_| Refusal::CONCURRENCY_LIMIT)?;
        }
        self.keep_rate(now).inspect_err(|_| self.leave())
    }

    /// The call has ended.
    pub(super) fn leave(&self) {
        if self.calls_max.is_some() {
            let before = self.calls.fetch_sub(1, Ordering::Relaxed);
            debug_assert!(before > 0, "a call left that had not entered");
        }
    }

    /// The generic cell rate algorithm.
    fn keep_rate(&self, now: Nanos) -> Result<(), Refusal> {
        let Some(interval) = self.interval_ns else { return Ok(()) };
        let burst = u64::try_from(BURST.as_nanos()).unwrap_or(u64::MAX);
        let next = |due: u64| (due <= now.0 + burst).then(|| due.max(now.0) + interval);
        let order = Ordering::Relaxed;
        match self.due_ns.fetch_update(order, order, next) {
            Ok(_) => Ok(()),
            Err(due) => {
                let wait = Duration::from_nanos((due - burst).saturating_sub(now.0));
                Err(Refusal::RATE_LIMIT.retried_after(wait))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn as_many_calls_as_allowed_are_in_at_once() {
        let quota = Quota::new(Some(2), None);
        let now = Nanos(SECOND);
        assert!(quota.enter(now).is_ok() && quota.enter(now).is_ok());
        assert_eq!(quota.enter(now), Err(Refusal::CONCURRENCY_LIMIT));
        quota.leave();
        assert!(quota.enter(now).is_ok());
    }

    #[test]
    fn the_rate_holds_over_time_and_a_call_that_exceeds_it_takes_no_place() {
        let quota = Quota::new(Some(10_000), Some(100));
        let mut taken = 0;
        // 1,000 a second for 10 s.
        for n in 0..10_000 {
            taken += u32::from(quota.enter(Nanos(SECOND + n * 1_000_000)).is_ok());
        }
        assert!((1_000..=1_011).contains(&taken), "{taken} calls");
        assert_eq!(quota.calls.load(Ordering::Relaxed), taken);
    }

    #[test]
    fn a_slow_rate_says_when_to_come_back() {
        let quota = Quota::new(None, Some(1));
        assert!(quota.enter(Nanos(SECOND)).is_ok());
        assert_eq!(quota.enter(Nanos(SECOND)).unwrap_err().retry_after_s, Some(1));
        assert!(quota.enter(Nanos(2 * SECOND)).is_ok());
    }
}
