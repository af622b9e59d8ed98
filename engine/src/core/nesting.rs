//! Calls that lie below other calls of the same function: workers are kept for them.
//!
//! A call that comes back to its own function needs one more worker each time while those above it hold
//! theirs. As many trees of such calls may be begun as find workers down to their lowest call, by the
//! depth that was seen of late; otherwise they could take all workers and wait for each other.

use std::time::Duration;

use reactor::clock::Nanos;

use super::function::Function;

/// For one to two of these a depth is remembered.
const REMEMBERED: Duration = Duration::from_secs(10);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Nesting {
    /// Calls on workers with none of the same function above.
    pub trees: u16,
    since: Nanos,
    /// Most calls of the function above one, in the present period and the one before.
    deepest: [u16; 2],
}

impl Nesting {
    pub fn new() -> Nesting {
        Nesting { trees: 0, since: Nanos(0), deepest: [0; 2] }
    }

    /// A call came with that many of the same function above.
    pub fn record(&mut self, now: Nanos, nest: u16) {
        if now.saturating_since(self.since) >= REMEMBERED {
            let [present, _] = self.deepest;
            self.deepest = [0, present];
            self.since = now;
        }
        self.deepest[0] = self.deepest[0].max(nest);
    }

    /// Workers that one tree takes at the same time.
    fn workers_a_tree(&self) -> u16 {
        self.deepest[0].max(self.deepest[1]).saturating_add(1)
    }
}

impl Function {
    /// Whether a call with `nest` calls of this function above may go to a worker: it has its place in
    /// its tree, or there are workers for one more tree. If nothing goes on (`stall.rs`) it may as well:
    /// then what is waited for lies elsewhere.
    pub(super) fn may_begin(&self, nest: u16) -> bool {
        let workers = self.nesting.workers_a_tree();
        nest > 0
            || workers == 1
            || self.limit.is_relaxed()
            || self.nesting.trees < (self.spec.max_workers / workers).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depth_is_remembered_for_a_period_and_forgotten_after_two() {
        let mut nesting = Nesting::new();
        let at = |seconds: u64| Nanos(seconds * 1_000_000_000);
        nesting.record(at(100), 3);
        nesting.record(at(105), 1);
        assert_eq!(nesting.workers_a_tree(), 4);
        nesting.record(at(111), 0);
        assert_eq!(nesting.workers_a_tree(), 4);
        nesting.record(at(122), 0);
        assert_eq!(nesting.workers_a_tree(), 1);
    }
}
