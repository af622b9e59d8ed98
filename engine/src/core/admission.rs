//! Admission: a call that comes is taken and queued, or refused.

use ipc::{CALLS_OUTSTANDING_MAX, CallId};
use reactor::clock::Nanos;

use super::call::{Call, Chain};
use super::core::{Admission, Alarm, Core, Effects};
use super::event::{Caller, Effect, FunctionId, Origin, Refusal, Violation, WorkerId};
use super::worker::WorkerEvent;

impl Core {
    /// A call from a front end, which may shorten the function's timeout by a deadline. Admitted: it
    /// is dispatched at once or queued, as the effects say. Refused: nothing is owed.
    pub fn external_call(
        &mut self,
        now: Nanos,
        function: FunctionId,
        caller: Caller,
        deadline: Option<Nanos>,
        effects: &mut Effects,
    ) -> Result<CallId, Refusal> {
        self.now = now;
        let deadline = self.deadline(now, function, deadline.unwrap_or(Nanos(u64::MAX)));
        self.function(function).arrived(now);
        let refusal = match self.admission {
            Admission::Draining => Some(Refusal::DRAINING),
            Admission::Open => self.refusal(now, function, deadline, 0),
        };
        if let Some(refusal) = refusal {
            self.function(function).counters.count(refusal.outcome);
            return Err(refusal);
        }
        let id = self.admit(Origin::External(caller), function, deadline, 0, 0);
        self.advance(function, effects);
        Ok(id)
    }

    /// A call from a worker that serves a call itself. It inherits its parent's deadline and is one
    /// deeper. `function` is `None` for a name that is not deployed. A call that cannot be taken is
    /// answered at once, under an id that is not live.
    pub fn internal_call(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        token: u32,
        function: Option<FunctionId>,
        deadline_ns: u64,
        effects: &mut Effects,
    ) -> Result<CallId, Violation> {
        self.now = now;
        let parent = self.parent(worker, token)?;
        let origin = Origin::Internal { parent, worker, token };
        let Call { deadline, depth, .. } = self.calls[parent];
        let depth = depth.saturating_add(1);
        let Some(function) = function else {
            return Ok(self.refuse(origin, Refusal::UNKNOWN_FUNCTION, effects));
        };
        let deadline = self.deadline(now, function, deadline.min(Nanos(deadline_ns)));
        self.function(function).arrived(now);
        // First, since no call goes into the lane of a worker that waits, and be it for this one.
        self.function(worker.function).apply(worker.lane, WorkerEvent::CallOut);
        let nest = self.nest(origin, function);
        let refusal = if depth > self.limits.depth_max {
            Some(Refusal::TOO_DEEP)
        } else {
            self.refusal(now, function, deadline, nest)
        };
        if let Some(refusal) = refusal {
            self.function(worker.function).apply(worker.lane, WorkerEvent::Answered);
            self.function(function).counters.count(refusal.outcome);
            return Ok(self.refuse(origin, refusal, effects));
        }
        let id = self.admit(origin, function, deadline, depth, nest);
        let service_ns = self.function(function).figures.processing_ns.unwrap_or(u64::MAX);
        let parent = &mut self.calls[parent];
        parent.service_ns = parent.service_ns.saturating_add(service_ns);
        if parent.children.is_empty() {
            parent.waits_since = now;
        }
        self.adopt(id);
        self.advance(function, effects);
        // The worker that waits from now on holds no core: another call may run.
        if worker.function != function {
            self.advance(worker.function, effects);
        }
        Ok(id)
    }

    /// Calls from a front end that would be taken now, beyond those that are there; a wait that is too
    /// long for a call, and the limits of a function's owner, are not looked at.
    #[must_use]
    pub fn room(&self, function: FunctionId) -> u32 {
        let f = &self.functions[function.index()];
        if f.barred.is_some() || self.is_draining() {
            return 0;
        }
        let spare = f.spec.queue_max.saturating_sub(f.queue.size()) + u32::from(f.idle());
        spare.min(self.limits.calls_max - self.calls.live())
    }

    /// The function's timeout from now, or what was asked for if that is sooner.
    fn deadline(&mut self, now: Nanos, function: FunctionId, asked: Nanos) -> Nanos {
        asked.min(now + self.function(function).spec.timeout)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.admission == Admission::Draining
    }

    fn refusal(
        &mut self,
        now: Nanos,
        function: FunctionId,
        deadline: Nanos,
        nest: u16,
    ) -> Option<Refusal> {
        if deadline <= now {
            Some(Refusal::DEADLINE_PASSED)
        } else if let Some(refusal) = self.function(function).barred(now) {
            Some(refusal)
        } else if self.calls.is_full() {
            Some(Refusal::CALLS_FULL)
        } else if self.function(function).is_full(nest) {
            Some(Refusal::QUEUE_FULL)
        } else {
            let f = self.function(function);
            let enter = || f.quota.as_ref().and_then(|quota| quota.enter(now).err());
            f.too_slow(now, deadline, nest).or_else(enter)
        }
    }

    /// The call that `worker` may make an internal call for, under `token`.
    fn parent(&mut self, worker: WorkerId, token: u32) -> Result<CallId, Violation> {
        let state = self.function(worker.function).worker(worker.lane)?;
        let Some(parent) = state.call() else {
            return Err(Violation::NotOnCall { worker, state: state.name() });
        };
        let children = &self.calls[parent].children;
        if children.size() >= CALLS_OUTSTANDING_MAX {
            let max = CALLS_OUTSTANDING_MAX;
            return Err(Violation::TooManyOutstanding { worker, max });
        }
        let is_same =
            |child: &Call| matches!(child.origin, Origin::Internal { token: t, .. } if t == token);
        if self.calls.iter(children, Chain::Siblings).any(is_same) {
            return Err(Violation::TokenInUse { worker, token });
        }
        Ok(parent)
    }

    /// Answers an internal call that is not taken.
    fn refuse(&mut self, origin: Origin, refusal: Refusal, effects: &mut Effects) -> CallId {
        let call = self.calls.refused_id();
        effects.push(Effect::DropPayload { call });
        effects.push(Effect::Answer { call, origin, reply: refusal.into() });
        call
    }

    /// Takes a call on and puts it at the end of its function's queue.
    pub(super) fn admit(
        &mut self,
        origin: Origin,
        function: FunctionId,
        deadline: Nanos,
        depth: u16,
        nest: u16,
    ) -> CallId {
        let id = self.calls.next_id();
        let timer = self.timers.insert(deadline, Alarm::Deadline(id));
        let cost_ns = self.function(function).work_ns;
        let mut call = Call::new(origin, function, deadline, depth, cost_ns, timer, self.now);
        call.nest = nest;
        self.calls.insert(call);
        let f = &mut self.functions[function.0 as usize];
        f.nesting.record(self.now, nest);
        // What a worker of the function waits for itself, directly or not, goes first: behind calls
        // that would take the workers it needs it could wait for ever.
        if nest > 0 {
            self.calls.push_front(&mut f.queue, Chain::Queue, id);
        } else {
            self.calls.push_back(&mut f.queue, Chain::Queue, id);
        }
        id
    }

    /// Puts an internal call among its parent's unanswered ones.
    fn adopt(&mut self, id: CallId) {
        let Origin::Internal { parent, .. } = self.calls[id].origin else { return };
        let mut siblings = self.calls[parent].children;
        self.calls.push_back(&mut siblings, Chain::Siblings, id);
        self.calls[parent].children = siblings;
    }
}
