//! What is not taken because it could not be done in time, and what goes on for nobody.

use std::sync::Arc;
use std::time::Duration;

use ipc::CallId;
use reactor::clock::Nanos;

use super::call::{Call, CallState};
use super::core::{Alarm, Core, Effects};
use super::event::{Effect, FunctionId, Origin, Overdue, Refusal, WorkerId};
use super::function::Function;
use super::quota::Quota;

/// Part of the expected wait that is added to it, as one in so many: a queue of a hundred calls of
/// exponential length deviates by a tenth, and twice that is rare.
const DOUBT: u32 = 4;
/// The average of calls on workers moves by this part of each difference.
const BUSY_WEIGHT: f64 = 0.02;

impl Function {
    /// How long a call that came now would wait for a worker, as far as can be told; 0 if it would not.
    pub(super) fn expected_wait(&self, nest: u16) -> Duration {
        if self.starts(nest) {
            return Duration::ZERO;
        }
        let ahead = u64::from(self.queue.size()) + u64::from(self.pipelines.calls());
        Duration::from_nanos(self.gap_ns().saturating_mul(ahead + 1))
    }

    /// Mean time between two ends of calls while calls wait, in ns; 0 if nothing is known or nothing is
    /// on a worker.
    pub(super) fn gap_ns(&self) -> u64 {
        let busy = self.busy.unwrap_or(self.busy_now());
        if self.busy_now() == 0.0 {
            return 0;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative")]
        let gap_ns = (self.figures.ran_ns as f64 / busy) as u64;
        gap_ns
    }

    /// A call ended. How many are on workers while others wait changes from moment to moment, and calls
    /// come most when it is high: what tells how long they wait is the average.
    pub(super) fn record_busy(&mut self) {
        if !self.queue.is_empty() {
            // The one that ended counts.
            let now = self.busy_now() + 1.0;
            let mean = self.busy.get_or_insert(now);
            *mean += (now - *mean) * BUSY_WEIGHT;
        }
    }

    fn busy_now(&self) -> f64 {
        let pool = self.pool();
        (pool.running + pool.waiting).into()
    }

    /// Why a call with this deadline is not worth waiting, if it is not.
    pub(super) fn too_slow(&self, now: Nanos, deadline: Nanos, nest: u16) -> Option<Refusal> {
        let wait = self.expected_wait(nest);
        if wait.is_zero() {
            return None;
        }
        let ran = Duration::from_nanos(self.figures.ran_ns);
        let is_late = now + wait + wait / DOUBT + ran > deadline;
        let is_long = self.spec.queue_wait_max.is_some_and(|max| wait > max);
        (is_late || is_long).then(|| Refusal::QUEUE_SLOW.retried_after(wait))
    }
}

impl Core {
    /// Nobody waits any more for a call that is on a worker: it may end by itself until its function's
    /// timeout and grace are over. The deadline that a client set has no part in that, or clients could
    /// end containers.
    pub(super) fn watch_overrun(&mut self, id: CallId) {
        let call = &self.calls[id];
        let CallState::Orphaned(_) = call.state else { return };
        let (function, begun) = (call.function, call.since);
        let spec = &self.functions[function.index()].spec;
        let at = (begun + spec.timeout).max(self.now) + spec.grace;
        self.calls[id].timer = self.timers.insert(at, Alarm::Overrun(id));
    }

    /// A call still runs though that time is over.
    pub(super) fn overrun(&mut self, id: CallId, effects: &mut Effects) {
        let Some(call) = self.calls.get(id) else { return };
        let (function, CallState::Orphaned(lane)) = (call.function, call.state) else { return };
        let (worker, overdue) = (WorkerId { function, lane }, Overdue::Call);
        effects.push(Effect::ReplaceContainer { worker, overdue });
    }

    /// Takes a call off the books.
    pub(super) fn end(&mut self, id: CallId) {
        let Call { origin, function, state, nest, .. } = self.calls[id];
        let f = &mut self.functions[function.index()];
        // A call that came from another shard has its place there.
        if let Some(quota) = &f.quota
            && !matches!(origin, Origin::Shard { .. })
        {
            quota.leave();
        }
        if nest == 0 && !matches!(state, CallState::Queued | CallState::Away(_)) {
            f.nesting.trees -= 1;
        }
        self.calls.remove(id);
    }

    /// Limits the calls of a function, and those of other shards with it.
    pub fn set_quota(&mut self, function: FunctionId, quota: Option<Arc<Quota>>) {
        self.function(function).quota = quota;
    }
}
