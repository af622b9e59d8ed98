//! The workers of a function: containers that come and go, growth and trimming.

use std::time::Duration;

use ipc::LaneIndex;
use reactor::clock::Nanos;

use super::call::CallState;
use super::core::{Alarm, Core, Effects};
use super::event::{Effect, FunctionId, Overdue, Reply, WorkerId};
use super::function::{Container, TRIM_WINDOW, TrimWindow, YIELD_PAUSE};
use super::worker::{WorkerEvent, WorkerState};

impl Core {
    pub(super) fn container_up(&mut self, function: FunctionId, effects: &mut Effects) {
        let f = self.function(function);
        f.barred = None;
        if matches!(f.container, Container::Down | Container::Parted) {
            f.container = Container::Up;
            self.dispatch(function, effects);
            self.grow(function, effects);
        }
    }

    /// Parts with a function's container, which then has nothing to do: calls that come wait until
    /// it is up again, given back or started anew. `false`, and no change, while a call needs it.
    #[must_use]
    pub fn part(&mut self, function: FunctionId) -> bool {
        let f = &mut self.functions[function.0 as usize];
        if !f.is_at_rest() {
            return false;
        }
        match f.container {
            Container::Down | Container::Parted => return true,
            Container::UpPaused(timer) => {
                self.timers.cancel(timer);
            }
            Container::Up => {}
        }
        f.container = Container::Parted;
        true
    }

    /// Whether calls of a function wait because its container is down or parted with.
    #[must_use]
    pub fn is_away(&self, function: FunctionId) -> bool {
        let f = &self.functions[function.0 as usize];
        matches!(f.container, Container::Down | Container::Parted)
    }

    pub(super) fn container_down(&mut self, function: FunctionId, effects: &mut Effects) {
        // First every child of every call that dies here: a child may die here as well, and its
        // answer must not go to a worker that is about to be gone.
        for lane in self.function(function).lanes() {
            if let Some(call) = self.on_lane(function, lane).call() {
                self.disown_children(call, effects);
            }
        }
        for lane in self.function(function).lanes().rev() {
            let mut next = self.on_lane(function, lane).call();
            self.function(function).apply(lane, WorkerEvent::ContainerDown);
            while let Some(call) = next {
                if matches!(self.calls[call].state, CallState::Orphaned(_)) {
                    self.timers.cancel(self.calls[call].timer);
                } else {
                    self.answer(call, Reply::Died { function }, effects);
                }
                self.end(call);
                next = self.function(function).pipelines.pop(lane);
            }
        }
        let f = &mut self.functions[function.0 as usize];
        if let Container::UpPaused(timer) = std::mem::replace(&mut f.container, Container::Down) {
            self.timers.cancel(timer);
        }
        if let Some(window) = f.trim.take() {
            self.timers.cancel(window.timer);
        }
        f.yield_owed = false;
        self.heard(function);
    }

    /// Another shard, which has that many workers, wants one more. Every shard is asked. One without
    /// workers owes none, not even of those it gets later; one that needs what it has gives until both
    /// have the same, and its last one to a shard that has none.
    pub(super) fn yield_worker(
        &mut self,
        now: Nanos,
        function: FunctionId,
        has: u16,
        effects: &mut Effects,
    ) {
        let f = self.function(function);
        let is_unneeded = f.queue.is_empty() && f.idle() > 0;
        let is_fair = f.staying() > has.saturating_add(1) || has == 0;
        f.yield_owed |= f.staying() > 0 && (is_unneeded || is_fair);
        self.settle_yield(now, function, effects);
    }

    /// Gives up the coldest idle worker, if one is owed.
    fn settle_yield(&mut self, now: Nanos, function: FunctionId, effects: &mut Effects) {
        let f = self.function(function);
        if !f.yield_owed || f.container == Container::Down {
            return;
        }
        let Some(lane) = f.coldest() else { return };
        f.yield_owed = false;
        self.ask(function, lane, WorkerEvent::Retire, effects);
        self.pause_spawning(now, function, YIELD_PAUSE);
    }

    pub(super) fn worker_freed(&mut self, function: FunctionId, effects: &mut Effects) {
        let f = &mut self.functions[function.0 as usize];
        if let Container::UpPaused(timer) = f.container {
            self.timers.cancel(timer);
            self.end_spawn_pause(function, effects);
        }
    }

    /// A worker was given up, or could not be had: no other is asked for during the pause.
    pub(super) fn pause_spawning(&mut self, now: Nanos, function: FunctionId, pause: Duration) {
        let f = &mut self.functions[function.0 as usize];
        if f.container == Container::Up {
            let timer = self.timers.insert(now + pause, Alarm::SpawnPauseEnds(function));
            f.container = Container::UpPaused(timer);
        }
    }

    pub(super) fn end_spawn_pause(&mut self, function: FunctionId, effects: &mut Effects) {
        self.function(function).container = Container::Up;
        self.grow(function, effects);
    }

    /// Asks for as many workers as the limit wants now.
    pub(super) fn grow(&mut self, function: FunctionId, effects: &mut Effects) {
        let f = self.function(function);
        if f.container != Container::Up {
            return;
        }
        for _ in 0..f.limit.grow(f.pool()) {
            let f = self.function(function);
            let Some(lane) = f.vacant() else { return };
            f.pipelines.prepare(lane);
            self.ask(function, lane, WorkerEvent::Spawn, effects);
        }
    }

    /// Asks for the start or the end of a worker, and minds that it is heard of.
    fn ask(
        &mut self,
        function: FunctionId,
        lane: LaneIndex,
        event: WorkerEvent,
        effects: &mut Effects,
    ) {
        let now = self.now;
        let f = self.function(function);
        let worker = f.worker_id(lane);
        f.apply(lane, event);
        effects.push(match event {
            WorkerEvent::Spawn => Effect::SpawnWorker { worker },
            _ => Effect::RetireWorker { worker },
        });
        f.asked[usize::from(lane.0)] = now;
        if f.listens.is_none() {
            let at = now + f.hearing_time();
            let timer = self.timers.insert(at, Alarm::Unheard(function));
            self.function(function).listens = Some(timer);
        }
    }

    /// A worker was heard of that had been asked to start or to leave, or is gone with its container.
    pub(super) fn heard(&mut self, function: FunctionId) {
        let f = self.function(function);
        if !f.is_owed_word()
            && let Some(timer) = f.listens.take()
        {
            self.timers.cancel(timer);
        }
    }

    /// A worker that neither starts nor fails, or does not leave, keeps its place for ever, and the
    /// launcher that is to answer for it may serve nobody else: the container is replaced.
    pub(super) fn unheard(&mut self, function: FunctionId, effects: &mut Effects) {
        let now = self.now;
        let f = self.function(function);
        let time = f.hearing_time();
        let is_owed = |state| matches!(state, WorkerState::Starting | WorkerState::Retiring);
        let owed = f.lanes().filter(|lane| f.worker(*lane).is_ok_and(is_owed));
        let oldest = owed.min_by_key(|lane| f.asked[usize::from(lane.0)]);
        f.listens = None;
        let Some(lane) = oldest else { return };
        let at = f.asked[usize::from(lane.0)] + time;
        if at <= now {
            let (worker, overdue) = (f.worker_id(lane), Overdue::Worker);
            effects.push(Effect::ReplaceContainer { worker, overdue });
        } else {
            let timer = self.timers.insert(at, Alarm::Unheard(function));
            self.function(function).listens = Some(timer);
        }
    }

    /// A worker has become idle: it gets the next call, or the pool may be larger than the load.
    pub(super) fn worker_idle(&mut self, now: Nanos, function: FunctionId, effects: &mut Effects) {
        self.settle_yield(now, function, effects);
        self.dispatch(function, effects);
        self.grow(function, effects);
        self.watch_surplus(now, function);
    }

    /// Opens a trim window while there are idle workers that the limit may let go.
    fn watch_surplus(&mut self, now: Nanos, function: FunctionId) {
        let f = &mut self.functions[function.0 as usize];
        if f.trim.is_none() && f.idle() > 0 && f.staying() > f.spec.min_workers {
            let alarm = Alarm::TrimWindowEnds(function);
            let timer = self.timers.insert(now + TRIM_WINDOW, alarm);
            f.trim = Some(TrimWindow { timer, unused: f.idle() });
        }
    }

    pub(super) fn trim(&mut self, now: Nanos, function: FunctionId, effects: &mut Effects) {
        let f = self.function(function);
        f.refresh(now);
        let unused = f.trim.take().map_or(0, |window| window.unused);
        for _ in 0..f.surplus(unused) {
            let f = self.function(function);
            let Some(lane) = f.coldest() else { break };
            f.yield_owed = false;
            self.ask(function, lane, WorkerEvent::Retire, effects);
        }
        self.watch_surplus(now, function);
    }

    fn on_lane(&self, function: FunctionId, lane: LaneIndex) -> WorkerState {
        self.worker(WorkerId { function, lane })
    }
}
