//! The core itself: dispatch, completion and deadlines of calls.
//!
//! Every public method is one step: it leaves all invariants whole, and the effects that it appends
//! are complete and in the order in which they are to be performed.

use std::collections::HashMap;
use std::time::Duration;

use ipc::{CallId, Outcome};
use reactor::clock::Nanos;
use reactor::wheel::Wheel;

use super::call::{Call, CallState, Calls, Chain};
use super::estimate::Sample;
use super::event::{
    Effect, Event, FunctionId, Leaver, Origin, Refusal, Reply, Violation, WorkerId,
};
use super::function::{Function, Place, ROOM_PAUSE, SPAWN_PAUSE};
use super::relief::{Foreign, Relief};
use super::snapshot::{Snapshot, Times};
use super::spec::Limits;
use super::worker::{WorkerEvent, WorkerState};

/// Deadlines are late by at most this: small against the shortest sensible timeout, large enough
/// that a busy shard turns the wheel once for many calls.
const TIMER_TICK: Duration = Duration::from_millis(1);

/// What is owed after a step. The caller keeps and reuses it.
pub type Effects = Vec<Effect>;

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Alarm {
    Deadline(CallId),
    TrimWindowEnds(FunctionId),
    SpawnPauseEnds(FunctionId),
    /// Look whether another shard has less to do by now.
    LookAround(FunctionId),
    /// Look whether a function's calls wait for each other.
    Stalled(FunctionId),
    /// A call that nobody waits for has had its time.
    Overrun(CallId),
    /// Look whether workers that were to start or to leave have been heard of.
    Unheard(FunctionId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admission {
    Open,
    Draining,
}

/// All calls, workers and queues of one shard.
pub struct Core {
    pub(super) limits: Limits,
    pub(super) admission: Admission,
    /// The time of the present step.
    pub(super) now: Nanos,
    pub(super) functions: Vec<Function>,
    pub(super) calls: Calls,
    pub(super) timers: Wheel<Alarm>,
    /// Where calls could go instead.
    pub(super) relief: Option<Relief>,
    /// Calls from other shards whose answers are owed, by their shards and ids there.
    pub(super) foreign: HashMap<(u16, CallId), Foreign>,
    /// Calls that are on other shards.
    pub(super) away: u32,
    /// Scratch of `tick`; empty between steps, its capacity is kept.
    expired: Vec<Alarm>,
}

impl Core {
    /// A core without functions.
    pub fn new(limits: Limits) -> Core {
        Core {
            limits,
            admission: Admission::Open,
            now: Nanos(0),
            functions: Vec::new(),
            calls: Calls::new(limits.calls_max),
            timers: Wheel::new(TIMER_TICK),
            relief: None,
            foreign: HashMap::new(),
            away: 0,
            expired: Vec::new(),
        }
    }

    /// Everything else that happens. A violation changes nothing.
    pub fn on_event(
        &mut self,
        now: Nanos,
        event: Event,
        effects: &mut Effects,
    ) -> Result<(), Violation> {
        self.now = now;
        match event {
            Event::WorkerStarted { worker: WorkerId { function, lane } } => {
                self.function(function).report(lane, WorkerEvent::Started)?;
                self.heard(function);
                self.worker_idle(now, function, effects);
            }
            Event::WorkerFailed { worker: WorkerId { function, lane } } => {
                self.function(function).report(lane, WorkerEvent::Failed)?;
                self.heard(function);
                self.pause_spawning(now, function, SPAWN_PAUSE);
                self.bounce_stranded(function, effects);
            }
            Event::NoRoom { worker: WorkerId { function, lane } } => {
                self.function(function).report(lane, WorkerEvent::Failed)?;
                self.heard(function);
                self.pause_spawning(now, function, ROOM_PAUSE);
                self.bounce_stranded(function, effects);
            }
            Event::Completed { worker, call, outcome, ran_ns, usage } => {
                let function = self.function(worker.function);
                function.report(worker.lane, WorkerEvent::Complete(call))?;
                function.pace.record(ran_ns);
                // One that gave up half-way says nothing of how long calls run.
                let sample = (!outcome.is_passed_on()).then(|| self.sample(call, ran_ns));
                self.function(worker.function).completed(now, sample, usage);
                self.complete(now, worker, call, outcome, effects);
            }
            Event::Declined { worker, call } => {
                if !self.function(worker.function).pipelines.decline(worker.lane, call) {
                    return Err(Violation::NotPipelined { worker, got: call });
                }
                self.requeue(worker.function, call, effects);
            }
            Event::WorkerRetired { worker: WorkerId { function, lane } } => {
                self.function(function).report(lane, WorkerEvent::Retired)?;
                self.heard(function);
                self.grow(function, effects);
            }
            Event::ContainerUp { function } => self.container_up(function, effects),
            Event::ContainerDown { function } => self.container_down(function, effects),
            Event::Barred { function, until } => self.bar(function, until, effects),
            Event::Released { worker, call } => self.release(now, worker, call, effects),
            Event::CallerGone { call } => self.caller_gone(call, effects),
            Event::YieldWorker { function, has } => self.yield_worker(now, function, has, effects),
            Event::WorkerFreed { function } => self.worker_freed(function, effects),
            Event::Returned { call, reply } => self.returned(call, reply, effects),
            Event::Bounced { call } => self.bounced(call, effects),
            Event::Recalled { shard, call, leaver } => self.recalled(shard, call, leaver, effects),
            Event::Tick => self.tick(now, effects),
            Event::Drain => self.admission = Admission::Draining,
        }
        Ok(())
    }

    /// When the next `Tick` is owed.
    pub fn next_timer(&self) -> Option<Nanos> {
        self.timers.next()
    }

    /// A call that is queued, on a worker or away.
    pub fn call(&self, call: CallId) -> Option<&Call> {
        self.calls.get(call)
    }

    /// Calls that are queued, on a worker or away, those included whose caller waits no more.
    pub fn calls_live(&self) -> u32 {
        self.calls.live()
    }

    /// Calls of a function that wait in lanes behind others.
    pub fn pipelined(&self, function: FunctionId) -> u32 {
        self.functions[function.0 as usize].pipelines.calls()
    }

    /// Workers of a function that start, work or wait for calls.
    pub fn workers(&self, function: FunctionId) -> u16 {
        self.functions[function.index()].staying()
    }

    /// What the worker in a lane is doing; `Absent` for a lane that does not exist.
    pub fn worker(&self, worker: WorkerId) -> WorkerState {
        let function = &self.functions[worker.function.0 as usize];
        function.worker(worker.lane).unwrap_or(WorkerState::Absent)
    }

    /// A function's present and past.
    pub fn snapshot(&self, function: FunctionId) -> Snapshot {
        self.functions[function.0 as usize].snapshot()
    }

    /// How long a function's calls took.
    pub fn times(&self, function: FunctionId) -> &Times {
        &self.functions[function.index()].times
    }

    // Dispatch, completion, release.

    /// Gives queued calls to workers that are idle, or will be at once, or to another shard.
    pub(super) fn dispatch(&mut self, function: FunctionId, effects: &mut Effects) {
        self.relieve(function, effects);
        let f = &mut self.functions[function.0 as usize];
        while let Some(call) = self.calls.front(&f.queue) {
            let nest = self.calls[call].nest;
            let Some(place) = f.place().filter(|_| f.may_begin(nest)) else { break };
            self.calls.unlink(&mut f.queue, Chain::Queue, call);
            f.nesting.trees += u16::from(nest == 0);
            self.calls[call].state = f.dispatch(place, call);
            if let Place::Idle(_) = place {
                begin(&mut self.calls[call], f, self.now);
            }
            let (Place::Idle(lane) | Place::Behind(lane)) = place;
            effects.push(Effect::Dispatch { worker: f.worker_id(lane), call });
        }
        self.watch_stall(function);
        self.watch_relief(function);
    }

    /// Has a function's queue go on: by the workers it has and by more.
    pub(super) fn advance(&mut self, function: FunctionId, effects: &mut Effects) {
        self.dispatch(function, effects);
        if !self.function(function).queue.is_empty() {
            self.grow(function, effects);
        }
    }

    /// Puts a call that its worker declined at the front of its queue.
    fn requeue(&mut self, function: FunctionId, id: CallId, effects: &mut Effects) {
        if matches!(self.calls[id].state, CallState::Orphaned(_)) {
            effects.push(Effect::DropPayload { call: id });
            self.end(id);
            return;
        }
        self.functions[function.0 as usize].nesting.trees -= u16::from(self.calls[id].nest == 0);
        self.calls[id].state = CallState::Queued;
        let queue = &mut self.functions[function.0 as usize].queue;
        self.calls.push_front(queue, Chain::Queue, id);
        self.advance(function, effects);
    }

    /// The worker has already become `Held`.
    fn complete(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        id: CallId,
        outcome: Outcome,
        effects: &mut Effects,
    ) {
        self.disown_children(id, effects);
        let is_owed = match self.calls[id].state {
            CallState::Running(_) => true,
            CallState::Orphaned(_) => false,
            CallState::Queued | CallState::Pipelined(_) | CallState::Away(_) => {
                unreachable!("it runs on no worker")
            }
        };
        if is_owed {
            self.answer(id, Reply::Completed { worker, outcome }, effects);
        } else {
            self.timers.cancel(self.calls[id].timer);
        }
        self.end(id);
        if self.begin_next(worker) || is_owed {
            self.advance(worker.function, effects);
        } else {
            self.release(now, worker, id, effects);
        }
    }

    /// The worker goes on with what waits in its lane; false if nothing does.
    fn begin_next(&mut self, worker: WorkerId) -> bool {
        let f = &mut self.functions[worker.function.0 as usize];
        let Some(next) = f.pipelines.pop(worker.lane) else { return false };
        f.apply(worker.lane, WorkerEvent::Next(next));
        begin(&mut self.calls[next], f, self.now);
        match self.calls[next].state {
            CallState::Pipelined(lane) => self.calls[next].state = CallState::Running(lane),
            _ => self.watch_overrun(next),
        }
        true
    }

    /// What a call was that has just ended.
    fn sample(&self, id: CallId, ran_ns: u32) -> Sample {
        let call = &self.calls[id];
        let still = self.now.0.saturating_sub(call.waits_since.0);
        let still = if call.children.is_empty() { 0 } else { still };
        let ran = u64::from(ran_ns);
        let waited = (call.waited_ns + still).min(ran);
        Sample { ran, waited, service: call.service_ns.min(waited) }
    }

    /// A result is not needed any more. Late when the container went down while it was being read.
    fn release(&mut self, now: Nanos, worker: WorkerId, call: CallId, effects: &mut Effects) {
        if self.worker(worker) == (WorkerState::Held { call }) {
            self.function(worker.function).apply(worker.lane, WorkerEvent::Release(call));
            self.worker_idle(now, worker.function, effects);
        }
    }

    /// Gives the answer that is owed for `id`.
    pub(super) fn answer(&mut self, id: CallId, reply: Reply, effects: &mut Effects) {
        let Call { origin, function, .. } = self.calls[id];
        if !matches!(origin, Origin::Shard { .. }) {
            self.function(function).counters.count(reply.outcome());
        }
        self.settle(id);
        if let Origin::Internal { worker, .. } = origin {
            self.function(worker.function).apply(worker.lane, WorkerEvent::Answered);
        }
        effects.push(Effect::Answer { call: id, origin, reply });
    }

    /// Notes that nobody waits for `id` any more, by an answer or by leaving.
    pub(super) fn settle(&mut self, id: CallId) {
        let Call { origin, timer, state, .. } = self.calls[id];
        self.timers.cancel(timer);
        match origin {
            Origin::External(_) => {}
            Origin::Internal { parent, .. } => {
                let mut siblings = self.calls[parent].children;
                self.calls.unlink(&mut siblings, Chain::Siblings, id);
                let parent = &mut self.calls[parent];
                parent.children = siblings;
                if siblings.is_empty() {
                    parent.waited_ns += self.now.0.saturating_sub(parent.waits_since.0);
                }
            }
            Origin::Shard { shard, call } => _ = self.foreign.remove(&(shard, call)),
        }
        if let CallState::Running(lane) | CallState::Pipelined(lane) = state {
            self.calls[id].state = CallState::Orphaned(lane);
        }
    }

    /// Takes a call that was never dispatched out of its queue.
    pub(super) fn unqueue(&mut self, id: CallId, effects: &mut Effects) {
        let queue = &mut self.functions[self.calls[id].function.0 as usize].queue;
        self.calls.unlink(queue, Chain::Queue, id);
        effects.push(Effect::DropPayload { call: id });
    }

    /// The work for `parent` is over: what it asked for and did not wait for has no reader. Queued
    /// children go, for their payloads are in the parent's worker's memory; running ones go on.
    pub(super) fn disown_children(&mut self, parent: CallId, effects: &mut Effects) {
        while let Some(child) = self.calls.front(&self.calls[parent].children) {
            self.abandon(child, effects);
        }
    }

    /// Whoever asked for `id` is gone.
    pub(super) fn abandon(&mut self, id: CallId, effects: &mut Effects) {
        let Call { origin, function, state, .. } = self.calls[id];
        let leaver = match origin {
            Origin::Internal { .. } => Leaver::Parent,
            Origin::External(_) | Origin::Shard { .. } => Leaver::Caller,
        };
        if !matches!(origin, Origin::Shard { .. }) {
            self.function(function).counters.abandoned += 1;
        }
        self.settle(id);
        match state {
            CallState::Queued => {
                self.unqueue(id, effects);
                self.end(id);
            }
            CallState::Running(_) => self.watch_overrun(id),
            CallState::Away(shard) => {
                effects.push(Effect::Recall { call: id, shard, leaver });
                self.forget_away(id);
            }
            CallState::Pipelined(_) | CallState::Orphaned(_) => {}
        }
    }

    fn caller_gone(&mut self, id: CallId, effects: &mut Effects) {
        if let Some(&Call { origin: Origin::External(_), .. }) = self.calls.get(id) {
            self.leave(id, effects);
        }
    }

    /// Nobody waits for `id` any more, and whoever runs it is told.
    pub(super) fn leave(&mut self, id: CallId, effects: &mut Effects) {
        let Call { function, state, .. } = self.calls[id];
        match state {
            CallState::Queued | CallState::Pipelined(_) | CallState::Away(_) => {
                self.abandon(id, effects);
            }
            CallState::Running(lane) => {
                self.abandon(id, effects);
                // With calls behind it, it is a short one; and a ring has room for one cancellation
                // a lane, not for one a call.
                if self.function(function).pipelines.is_empty(lane) {
                    let worker = WorkerId { function, lane };
                    effects.push(Effect::CancelWorker { worker, call: id });
                }
            }
            // Answered already: its deadline has passed.
            CallState::Orphaned(_) => {}
        }
    }

    // Time.

    fn tick(&mut self, now: Nanos, effects: &mut Effects) {
        let mut expired = std::mem::take(&mut self.expired);
        self.timers.expire(now, |alarm| expired.push(alarm));
        for alarm in expired.drain(..) {
            match alarm {
                Alarm::Deadline(id) => self.deadline_passed(id, effects),
                Alarm::TrimWindowEnds(function) => self.trim(now, function, effects),
                Alarm::SpawnPauseEnds(function) => self.end_spawn_pause(function, effects),
                Alarm::LookAround(function) => self.look_around(function, effects),
                Alarm::Stalled(function) => self.stalled(function, effects),
                Alarm::Overrun(id) => self.overrun(id, effects),
                Alarm::Unheard(function) => self.unheard(function, effects),
            }
        }
        self.expired = expired;
    }

    /// The caller gets its answer now. A worker on the call stays busy until it completes.
    fn deadline_passed(&mut self, id: CallId, effects: &mut Effects) {
        // Another alarm of this tick may have ended it.
        let Some(&Call { state, .. }) = self.calls.get(id) else { return };
        if state == CallState::Queued {
            self.unqueue(id, effects);
        }
        self.answer(id, Refusal::DEADLINE_PASSED.into(), effects);
        match state {
            CallState::Queued => self.end(id),
            CallState::Running(_) => self.watch_overrun(id),
            // There it meets the same deadline.
            CallState::Away(_) => self.forget_away(id),
            CallState::Pipelined(_) | CallState::Orphaned(_) => {}
        }
    }

    pub(super) fn function(&mut self, function: FunctionId) -> &mut Function {
        &mut self.functions[function.0 as usize]
    }
}

/// A call is begun: the wait for its worker is over.
fn begin(call: &mut Call, function: &mut Function, now: Nanos) {
    let since = std::mem::replace(&mut call.since, now);
    function.times.queue_delay.record(now.0.saturating_sub(since.0));
}
