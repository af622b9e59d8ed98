//! What the supervisor does when a container dies: tells of it, and starts the next one when that is due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::clock;

use super::Cause;
use super::record::State;
use super::restart::Breaker;
use super::slot::{Ended, Phase};
use super::supervisor::Supervisor;
use crate::core::FunctionId;
use crate::mailbox::ToShard;

/// The end of a container that was not stopped.
#[derive(Debug)]
pub(super) struct Death {
    /// Whose container.
    pub(super) index: usize,
    /// How long it was up; not at all if it had not come that far.
    lived: Duration,
    pub(super) cause: Arc<Cause>,
}

impl Supervisor {
    /// Ends what runs in the slot; shards that knew of it forget it.
    pub(super) fn end(&mut self, index: usize, cause: impl Into<Arc<Cause>>) {
        let cause = cause.into();
        let lived = match self.slots[index].end() {
            Ended::Nothing => return,
            Ended::Starting => None,
            Ended::Up { lived } => Some(lived),
        };
        if lived.is_some() {
            let function = FunctionId::from_index(index);
            let generation = self.slots[index].generation;
            self.post_all(|| {
                let cause = Arc::clone(&cause);
                ToShard::ContainerDown { function, generation, cause }
            });
        }
        self.stats.containers.count_death(index, &cause, lived.is_some());
        self.stats.containers.set_state(index, State::Starting);
        self.ended.push(Death { index, lived: lived.unwrap_or_default(), cause });
    }

    /// Tells of containers that ended, and starts those whose wait is over.
    pub(super) fn restart_ended(&mut self) {
        for death in std::mem::take(&mut self.ended) {
            if !self.ends_candidate(death.index, &death.cause) {
                self.back_off(&death);
            }
        }
        let now = Instant::now();
        for index in 0..self.slots.len() {
            if !matches!(&self.slots[index].phase, Phase::Waiting { until } if *until <= now) {
                continue;
            }
            if self.rest(index) {
                continue;
            }
            if let Err(cause) = self.start(index) {
                let (lived, cause) = (Duration::ZERO, Arc::new(cause));
                self.stats.containers.count_death(index, &cause, false);
                self.back_off(&Death { index, lived, cause });
            }
        }
    }

    fn back_off(&mut self, Death { index, lived, cause }: &Death) {
        let slot = &mut self.slots[*index];
        let (delay, kind) = (slot.back_off(*lived), cause.kind());
        slot.give_up();
        let (name, records) = (&slot.spec.name, &self.stats.containers);
        if slot.restarts.breaker() == Breaker::Closed {
            tracing::warn!(
                function = name,
                cause = kind,
                ?delay,
                "its container {cause}; starting it again"
            );
            return;
        }
        tracing::error!(
            function = name,
            cause = kind,
            ?delay,
            "its container {cause}, as those before: calls are refused until one is tried again"
        );
        records.set_breaker(*index, Breaker::Open);
        records.set_state(*index, State::Broken);
        let (function, until) = (FunctionId::from_index(*index), clock::now() + delay);
        self.post_all(|| ToShard::Barred { function, until });
    }
}
