//! Reads what workers published: copied once, checked, then told to `core`.

use ipc::engine_side::SharedBlock;
use ipc::{Block, CALLS_OUTSTANDING_MAX, CallId, LaneIndex, ToEngine, envelope};
use reactor::Reactor;
use reactor::clock::Nanos;

use super::attention::Budget;
use super::engine::Engine;
use super::link::Link;
use super::payload::Payload;
use super::token::HeldBy;
use crate::core::{Event, FunctionId, Origin, WorkerId};
use crate::mailbox::ToShard;

/// Messages taken from one lane before the others get their turn. A lane holds no more at once, so all
/// that was there when its bit was taken is read, and a worker that publishes endlessly gets no more.
const LANE_BUDGET: u32 = ipc::RING_DEPTH;
impl Engine {
    /// Reads every watched channel once; what is published later is found by [`Self::arm`].
    pub fn poll_channels(&mut self, reactor: &mut Reactor, now: Nanos) {
        if self.patrol_at.is_some_and(|at| at <= now) {
            self.patrol_at = None;
            while let Some(function) = self.patrol.pop() {
                self.watch(function);
            }
        }
        let mut index = 0;
        // By index: what is read may watch or close channels while the list is walked.
        while let Some(&function) = self.watched.get(index) {
            index += 1;
            self.poll_channel(reactor, now, function);
        }
        // A result that the front end let go of late, after a slow send.
        self.perform(reactor, now);
    }

    /// Has workers go on whose results were let go since [`Self::poll_channels`]. To be called when
    /// everything of a turn is sent, before [`Self::flush`].
    pub fn settle(&mut self, reactor: &mut Reactor, now: Nanos) {
        self.perform(reactor, now);
    }

    fn poll_channel(&mut self, reactor: &mut Reactor, now: Nanos, function: FunctionId) {
        let mut budget = Budget::new(self.copied);
        let Some(open) = self.link(function).and_then(Link::open) else { return };
        let lanes = open.attention.take(|| open.channel.take_ready());
        for (word, mut bits) in lanes.into_iter().enumerate() {
            let first = u16::try_from(word * 64).unwrap_or(u16::MAX);
            while bits != 0 {
                let bit = u16::try_from(bits.trailing_zeros()).unwrap_or(0);
                bits &= bits - 1;
                let lane = LaneIndex(first + bit);
                self.read_lane(reactor, now, WorkerId { function, lane }, &mut budget);
            }
        }
        let Some(open) = self.link(function).and_then(Link::open) else { return };
        if let Err(fault) = open.attention.looked(lanes, budget.spent()) {
            self.condemn(reactor, now, function, fault.to_string());
        }
    }

    fn read_lane(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        worker: WorkerId,
        budget: &mut Budget,
    ) {
        for _ in 0..LANE_BUDGET {
            if !budget.permits(self.copied) {
                if let Some(open) = self.link(worker.function).and_then(Link::open) {
                    open.attention.leave(worker.lane);
                }
                return;
            }
            let Some(lane) = self.lane(worker) else { return };
            match lane.receive() {
                Ok(Some(message)) => {
                    budget.spend();
                    self.worker_said(reactor, now, worker, message);
                }
                Ok(None) => return,
                Err(fault) => {
                    return self.condemn(reactor, now, worker.function, fault.to_string());
                }
            }
        }
        // What was published since sets the lane's bit again.
    }

    fn worker_said(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        worker: WorkerId,
        message: ToEngine,
    ) {
        let function = worker.function;
        match message {
            ToEngine::Started => {
                self.announce(function);
                self.tell_core(reactor, now, function, Event::WorkerStarted { worker })
            }
            ToEngine::Call { token, deadline_ns, released, block } => {
                if let Some(token) = released {
                    self.release(reactor, now, worker, token);
                }
                self.call_arrived(reactor, now, worker, token, deadline_ns, &block);
            }
            ToEngine::Complete { call, outcome, released: _, ran_ns, usage, block } => {
                // Its input and every answer that it still held are free with this.
                self.release_all(worker, call);
                let Some(result) = self.outbound(reactor, now, worker, &block) else { return };
                self.keep_result(worker, call, result);
                let event = Event::Completed { worker, call, outcome, ran_ns, usage };
                self.tell_core(reactor, now, function, event);
                // A late result that nobody waits for any more.
                if self.take_result(worker).is_some() {
                    self.perform(reactor, now);
                }
            }
            ToEngine::Decline { call } => {
                self.take_back(worker, call);
                self.tell_core(reactor, now, function, Event::Declined { worker, call });
            }
            ToEngine::Release { token } => self.release(reactor, now, worker, token),
            ToEngine::Retired => {
                if let Some(link) = self.link(function) {
                    link.close_lane(worker.lane);
                }
                self.tell_core(reactor, now, function, Event::WorkerRetired { worker });
                self.tell_siblings(|| ToShard::WorkerFreed { function });
            }
        }
    }

    /// An internal call: it is dispatched from here, without gateway and network.
    fn call_arrived(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        worker: WorkerId,
        token: u32,
        deadline_ns: u64,
        block: &Block,
    ) {
        let Some((_, state)) = self.lane_state(worker) else { return };
        if state.answers.len() >= CALLS_OUTSTANDING_MAX as usize {
            let reason = format!("more than {CALLS_OUTSTANDING_MAX} answers are not released");
            return self.condemn(reactor, now, worker.function, reason);
        }
        let Some(input) = self.outbound(reactor, now, worker, block) else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        input.copy_envelope(&mut scratch);
        let callee = envelope::parse_call(&scratch).map(|name| self.resolve(name));
        self.scratch = scratch;
        let callee = match callee {
            Ok(callee) => callee,
            Err(error) => return self.condemn(reactor, now, worker.function, error.to_string()),
        };
        if let Some(callee) = callee {
            self.touch(callee);
            self.look_around(callee);
        }
        self.touch(worker.function);
        match self.core.internal_call(now, worker, token, callee, deadline_ns, &mut self.effects) {
            Ok(id) => {
                // A refused call has an id that is not live, and its answer among the effects.
                if let Some(Origin::Internal { parent, .. }) =
                    self.core.call(id).map(|call| call.origin)
                {
                    let context = self.payloads.context(parent).clone();
                    self.payloads.admit(now, id, Payload::Shared(input), context);
                }
                self.perform(reactor, now);
            }
            Err(violation) => self.condemn(reactor, now, worker.function, violation.to_string()),
        }
        if let Some(callee) = callee {
            self.want(callee);
        }
    }

    /// A block that a worker published, if it lies where it must.
    fn outbound(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        worker: WorkerId,
        block: &Block,
    ) -> Option<SharedBlock> {
        match self.lane(worker)?.outbound(block) {
            Ok(shared) => Some(shared),
            Err(fault) => {
                self.condemn(reactor, now, worker.function, fault.to_string());
                None
            }
        }
    }

    /// Holds a result until its answer is on its way; the worker is told free when it is dropped.
    fn keep_result(&mut self, worker: WorkerId, call: CallId, mut result: SharedBlock) {
        let released = self.released.clone();
        let Some(link) = self.link(worker.function) else { return };
        let number = link.number;
        if let Some((_, state)) = link.lane(worker.lane) {
            result.report_drop(released, HeldBy { worker, link: number }.tag());
            state.result = Some(result);
            state.completed = call;
            state.results = state.results.wrapping_add(1);
            state.results_held += 1;
        }
    }

    /// A worker needs an answer no more.
    fn release(&mut self, reactor: &mut Reactor, now: Nanos, worker: WorkerId, token: u32) {
        let Some((lane, state)) = self.lane_state(worker) else {
            return;
        };
        match state.answers.iter().position(|(held, _)| *held == token) {
            Some(position) => {
                let (_, block) = state.answers.swap_remove(position);
                lane.release(&block);
            }
            None => {
                let reason = format!("token {token} is released and names no answer");
                self.condemn(reactor, now, worker.function, reason);
            }
        }
    }

    /// Frees what belongs to the call that a worker has completed.
    fn release_all(&mut self, worker: WorkerId, call: CallId) {
        let Some((lane, state)) = self.lane_state(worker) else {
            return;
        };
        if let Some(request) = state.take_request(call) {
            lane.release(&request);
        }
        for (_, block) in state.answers.drain(..) {
            lane.release(&block);
        }
    }

    /// Copies the input of a call that a worker declined out of its lane, for another one.
    fn take_back(&mut self, worker: WorkerId, call: CallId) {
        let mut bytes = self.payloads.buffer();
        let Some((lane, state)) = self.lane_state(worker) else { return };
        // What is not there is a liar's call, and the core will say so.
        let Some(request) = state.take_request(call) else { return };
        lane.copy_inbound(&request, &mut bytes);
        lane.release(&request);
        let envelope_size = request.envelope_size as usize;
        self.payloads.store(call, Payload::Stored { bytes, envelope_size });
    }
}
