//! Scale to zero: containers that nobody calls are stopped, and started again for the next call.
//!
//! What the shards publish says when it is worth asking; whether a container is stopped is theirs to
//! say, all of them, because only a shard knows of the call that has just come. One that agrees lets
//! its calls wait from then on, and says so once if one comes; so a call meets a container that runs,
//! or waits for the next one, and never one that is being stopped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::clock;

use super::lease::{Lease, Reply, Verdict};
use super::record::State;
use super::slot::Phase;
use super::supervisor::Supervisor;
use super::{Breaker, Cause};
use crate::core::FunctionId;
use crate::mailbox::ToShard;

impl Supervisor {
    /// When a container may have been idle for long enough.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.slots.iter().filter_map(|slot| slot.look_at()).min()
    }

    /// Asks the shards to part with every container that has been idle for its `idle_timeout`.
    pub(super) fn look_for_idle(&mut self) {
        let now = Instant::now();
        for index in 0..self.slots.len() {
            if self.slots[index].look_at().is_none_or(|at| at > now) {
                continue;
            }
            let quiet = self.quiet_for(index);
            let (shards, slot) = (self.shards.len(), &mut self.slots[index]);
            let Phase::Up { since, lease, .. } = &mut slot.phase else { continue };
            let Some(timeout) = slot.spec.idle_timeout else { continue };
            match timeout.checked_sub(quiet.min(since.elapsed())) {
                Some(rest) if !rest.is_zero() => *lease = Lease::Held { look_at: Some(now + rest) },
                _ => {
                    lease.ask(shards);
                    let (function, generation) = (FunctionId::from_index(index), slot.generation);
                    self.post_all(|| ToShard::Part { function, generation });
                }
            }
        }
    }

    /// How long no call of the function was queued or on a worker.
    fn quiet_for(&self, index: usize) -> Duration {
        let since = self.stats.quiet_since(FunctionId::from_index(index));
        since.map_or(Duration::ZERO, |since| clock::now().saturating_since(since))
    }

    /// A shard says whether it parts with a container.
    pub(super) fn shard_answered(&mut self, function: FunctionId, generation: u32, reply: Reply) {
        let index = function.index();
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.generation != generation {
            return;
        }
        let wanted = slot.wanted;
        let Phase::Up { container, lease, .. } = &mut slot.phase else { return };
        match lease.answer(reply) {
            None => {}
            Some(Verdict::Stop) if !wanted => {
                slot.leave();
                tracing::debug!(function = slot.spec.name, "nobody calls it: its container stops");
                self.stats.containers.set_state(index, State::Idle);
                self.stats.containers.set_breaker(index, Breaker::Closed);
                let cause = Arc::new(Cause::Stopped);
                self.post_all(|| {
                    let cause = Arc::clone(&cause);
                    ToShard::ContainerDown { function, generation, cause }
                });
            }
            Some(Verdict::Stop | Verdict::GiveBack) => {
                let container = Arc::clone(container);
                slot.renew_lease();
                self.post_all(|| ToShard::ContainerUp {
                    function,
                    container: Arc::clone(&container),
                });
            }
        }
    }

    /// A call waits for a container that a shard does not have.
    pub(super) fn call_waits(&mut self, function: FunctionId) {
        let Some(slot) = self.slots.get_mut(function.index()) else { return };
        if slot.want() {
            self.stats.containers.set_state(function.index(), State::Waking);
        }
    }

    /// Leaves a container down that ended while nobody called it for its `idle_timeout`. Whether it
    /// does.
    pub(super) fn rest(&mut self, index: usize) -> bool {
        let quiet = self.quiet_for(index);
        let slot = &mut self.slots[index];
        let rests = slot.rest(quiet);
        if rests {
            let name = &slot.spec.name;
            tracing::info!(function = name, "nobody calls it: it stays down until the next call");
            self.stats.containers.set_state(index, State::Idle);
        }
        rests
    }
}
