//! Functions whose calls on workers all wait for others while more calls wait for workers.
//!
//! A worker that waits holds no core, so waiting calls may need more workers than the load calls for:
//! the bound on them is relaxed step by step, up to `max_workers`. If none goes on even so, and what
//! they wait for waits for them, it is a deadlock: a call of it fails, and the rest goes on.

use std::time::Duration;

use ipc::CallId;

use super::call::{CallState, Chain};
use super::core::{Alarm, Core, Effects};
use super::event::{FunctionId, Refusal, WorkerId};
use super::function::Container;

/// A function has stalled when no call of it ended for so long, or for some mean times between two
/// ends if that is longer.
const PATIENCE: Duration = Duration::from_millis(2);
const PATIENCE_MAX: Duration = Duration::from_millis(100);

impl Core {
    /// Watches a function whose calls may have stalled. Called whenever calls were dispatched or not.
    pub(super) fn watch_stall(&mut self, function: FunctionId) {
        let f = &mut self.functions[function.index()];
        if f.queue.is_empty() {
            f.limit.tighten();
        } else if f.stall.is_none() && f.has_stalled() {
            let gap = Duration::from_nanos(f.gap_ns().saturating_mul(2));
            let at = self.now + gap.clamp(PATIENCE, PATIENCE_MAX);
            f.stall = Some((self.timers.insert(at, Alarm::Stalled(function)), f.ended));
        }
    }

    /// The time of `watch_stall` is over.
    pub(super) fn stalled(&mut self, function: FunctionId, effects: &mut Effects) {
        let f = self.function(function);
        let ended = f.stall.take().map(|(_, ended)| ended);
        if f.has_stalled() && ended == Some(f.ended) {
            let waiting = f.pool().waiting;
            f.limit.relax(waiting);
            self.advance(function, effects);
            if self.function(function).has_stalled() {
                self.break_deadlock(function, effects);
            }
        }
        self.watch_stall(function);
    }

    /// Fails a call that waits for workers which wait for it.
    fn break_deadlock(&mut self, function: FunctionId, effects: &mut Effects) {
        let stuck = self.deadlocked();
        if !stuck.contains(&function) {
            return;
        }
        let queue = &self.functions[function.index()].queue;
        let victim = self.calls.ids(queue, Chain::Queue).find(|id| self.is_below(*id, &stuck));
        if let Some(id) = victim {
            self.unqueue(id, effects);
            self.answer(id, Refusal::DEADLOCK.into(), effects);
            self.end(id);
        }
    }

    /// Functions that go on only when a call ends that waits for one of them: the greatest such set.
    fn deadlocked(&self) -> Vec<FunctionId> {
        let all = (0..self.functions.len()).map(FunctionId::from_index);
        let mut stuck: Vec<FunctionId> =
            all.filter(|&id| self.functions[id.index()].cannot_begin()).collect();
        loop {
            let before = stuck.len();
            let known = stuck.clone();
            stuck.retain(|&id| self.all_wait_for(id, &known));
            if stuck.len() == before {
                return stuck;
            }
        }
    }

    /// Does a call of one of `stuck` wait for this one?
    fn is_below(&self, id: CallId, stuck: &[FunctionId]) -> bool {
        let mut is_below = false;
        self.climb(self.calls[id].origin, |call| is_below |= stuck.contains(&call.function));
        is_below
    }

    /// Does every call on a worker of the function wait for a call queued at one of `stuck`?
    fn all_wait_for(&self, function: FunctionId, stuck: &[FunctionId]) -> bool {
        let f = &self.functions[function.index()];
        let calls = f.lanes().filter_map(|lane| self.worker(WorkerId { function, lane }).call());
        calls.into_iter().all(|call| self.waits_for(call, stuck))
    }

    fn waits_for(&self, call: CallId, stuck: &[FunctionId]) -> bool {
        let children = &self.calls[call].children;
        self.calls.ids(children, Chain::Siblings).any(|child| match self.calls[child].state {
            CallState::Queued => stuck.contains(&self.calls[child].function),
            _ => self.waits_for(child, stuck),
        })
    }
}

impl super::function::Function {
    /// Calls wait for a worker, and all workers for calls of their own.
    pub(super) fn has_stalled(&self) -> bool {
        let pool = self.pool();
        !self.queue.is_empty()
            && pool.waiting > 0
            && pool.running + pool.starting == 0
            && self.held() == 0
    }

    /// It has stalled and gets no further worker.
    fn cannot_begin(&self) -> bool {
        let is_full = self.vacant().is_none() || matches!(self.container, Container::UpPaused(_));
        self.has_stalled() && is_full && self.idle() == 0
    }
}
