//! The seam of concurrency control: how many calls may be on workers, how many workers are wanted.
//!
//! The core asks here at every dispatch, growth and trim and decides nothing of the kind itself.
//! The policy is a fixed range of workers; one that follows the measured load replaces the inside
//! of this file.

/// What bounds the calls on workers and sizes the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// The measured load, between `min_workers` and `max_workers`.
    Managed,
    /// The pool alone: it grows one by one while calls wait.
    Fixed,
    /// Nothing but `max_workers`: as many workers as there are calls.
    Unlimited,
    /// The rule of the paper, for comparison: fewer than tau calls on workers, where tau is the mean
    /// rate of arrivals times the mean processing time, and no limit until 128 calls were seen.
    Paper,
}

/// The workers of one function as the policy sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pool {
    /// Workers of any state, those that start or retire included.
    pub workers: u16,
    /// Those of them that are starting.
    pub starting: u16,
    /// Calls that wait for a worker.
    pub queued: u32,
}

/// How many workers one function gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    min: u16,
    max: u16,
}

impl Limit {
    /// Between `min` and `max` workers, whatever the load.
    pub fn fixed(min: u16, max: u16) -> Limit {
        assert!(min <= max, "min_workers {min} is above max_workers {max}");
        Limit { min, max }
    }

    /// May one more call be given to an idle worker while `busy` are on workers? Under a fixed
    /// limit the pool's size is the bound.
    pub fn admits(self, busy: u16) -> bool {
        busy < self.max
    }

    /// How many workers to ask for now. Beyond the minimum one at a time: while one starts, those
    /// that run complete, and the queue it was meant for is often gone.
    pub fn grow(self, pool: Pool) -> u16 {
        let missing = self.min.saturating_sub(pool.workers);
        let wanted = pool.queued > 0 && pool.starting == 0 && pool.workers < self.max;
        missing.max(u16::from(wanted))
    }

    /// How many workers to retire when `unused` of `workers` were idle for a whole trim window.
    pub fn trim(self, workers: u16, unused: u16) -> u16 {
        unused.min(workers.saturating_sub(self.min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_fills_the_minimum_at_once_and_then_goes_one_by_one() {
        let limit = Limit::fixed(2, 4);
        let pool = |workers, starting, queued| Pool { workers, starting, queued };
        assert_eq!(limit.grow(pool(0, 0, 0)), 2);
        assert_eq!(limit.grow(pool(0, 0, 9)), 2);
        assert_eq!(limit.grow(pool(2, 0, 0)), 0);
        assert_eq!(limit.grow(pool(2, 0, 9)), 1);
        assert_eq!(limit.grow(pool(3, 1, 9)), 0);
        assert_eq!(limit.grow(pool(4, 0, 9)), 0);
    }

    #[test]
    fn trimming_stops_at_the_minimum() {
        let limit = Limit::fixed(2, 8);
        assert_eq!(limit.trim(8, 3), 3);
        assert_eq!(limit.trim(4, 4), 2);
        assert_eq!(limit.trim(1, 1), 0);
    }
}
