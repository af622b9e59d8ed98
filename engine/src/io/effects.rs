//! Performs what `core` decided.

use ipc::engine_side::{EngineLane, SharedBlock};
use ipc::envelope::{self, EnvelopeError};
use ipc::{Block, CallId, NoSpace, Outcome, ToWorker};
use protocol::message::Started;
use reactor::Reactor;
use reactor::clock::Nanos;

use super::engine::{Answer, Engine, NewCall};
use super::link::LaneState;
use super::payload::Payload;
use super::token::HeldBy;
use crate::container::Cause;
use crate::core::{Effect, Effects, Event, FunctionId, Origin, Overdue, Refusal, Reply, WorkerId};
use crate::mailbox::ToShard;

impl Engine {
    /// Performs every effect that is owed, those that follow from them included.
    pub(super) fn perform(&mut self, reactor: &mut Reactor, now: Nanos) {
        // Each round's effects were caused by the round before; every round frees a worker or ends a
        // call, so the number of rounds is bounded by the calls in flight.
        loop {
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.perform_one(reactor, now, effect);
            }
            self.give_back(effects);
            match self.next_released() {
                Some((worker, call)) => {
                    self.touch(worker.function);
                    self.look_around(worker.function);
                    let event = Event::Released { worker, call };
                    if let Err(violation) = self.core.on_event(now, event, &mut self.effects) {
                        self.condemn(reactor, now, worker.function, violation.to_string());
                    }
                }
                None if self.effects.is_empty() => return,
                None => {}
            }
        }
    }

    /// Keeps the emptied list's capacity unless effects came up meanwhile.
    pub(super) fn give_back(&mut self, emptied: Effects) {
        if self.effects.is_empty() {
            self.effects = emptied;
        }
    }

    /// The next worker whose result was let go, if its container is still the same.
    fn next_released(&mut self) -> Option<(WorkerId, CallId)> {
        loop {
            let HeldBy { worker, link: number } = HeldBy::of(self.released.take()?);
            let Some(link) = self.link(worker.function).filter(|link| link.number == number) else {
                continue;
            };
            if let Some((_, state)) = link.lane(worker.lane)
                && state.result_read()
            {
                return Some((worker, state.completed));
            }
        }
    }

    pub(super) fn perform_one(&mut self, reactor: &mut Reactor, now: Nanos, effect: Effect) {
        match effect {
            Effect::Dispatch { worker, call } => self.dispatch(reactor, now, worker, call),
            Effect::Answer { call, origin, reply } => {
                let times = self.payloads.times(now, call);
                self.answer(reactor, now, call, origin, reply);
                if let (Origin::External(_), Some((_, answer))) = (origin, self.answers.back_mut())
                {
                    answer.times = times;
                }
            }
            Effect::SpawnWorker { worker } => self.spawn(reactor, now, worker),
            Effect::RetireWorker { worker } => {
                self.publish(reactor, now, worker, &ToWorker::Retire)
            }
            Effect::CancelWorker { worker, call } => {
                self.publish(reactor, now, worker, &ToWorker::Cancel { call });
            }
            Effect::Move { call, shard, cost_ns } => self.send_away(now, call, shard, cost_ns),
            Effect::Recall { call, shard, leaver } => self.recall(call, shard, leaver),
            Effect::Bounce { call, origin } => self.bounce(call, origin),
            Effect::DropPayload { call } => self.drop_payload(call),
            Effect::ReplaceContainer { worker, overdue } => {
                let reason = match overdue {
                    Overdue::Call => "a call ran on past its timeout and the function's grace",
                    Overdue::Worker => {
                        "a worker that was to start or to leave has not been heard of in the \
                         function's timeout and grace"
                    }
                };
                self.close_container(reactor, now, worker.function, Cause::Stuck { reason });
            }
        }
    }

    fn drop_payload(&mut self, call: CallId) {
        self.dropped = Some(call);
        if let Payload::Stored { bytes, .. } = self.payloads.take(call) {
            self.payloads.recycle(bytes);
        }
    }

    /// Sends a call out of its queue to a worker.
    fn dispatch(&mut self, reactor: &mut Reactor, now: Nanos, worker: WorkerId, call: CallId) {
        let payload = self.payloads.take(call);
        let context = self.payloads.context(call).clone();
        let written = self.lane(worker).map(|lane| match &payload {
            Payload::Stored { bytes, envelope_size } => write_block(lane, *envelope_size, bytes),
            Payload::Shared(block) => {
                let mut writer = lane.reserve(context.envelope_size(), block.payload_size())?;
                context.encode(&mut writer);
                writer.write_shared(&block.payload());
                Ok(writer.finish())
            }
            Payload::None => write_block(lane, 0, &[]),
        });
        if matches!(written, Some(Err(_))) && self.has_requests(worker) {
            self.payloads.store(call, payload);
            return self.lane_is_full(now, worker, call);
        }
        if let Payload::Stored { bytes, .. } = payload {
            self.payloads.recycle(bytes);
        }
        self.publish_dispatch(reactor, now, worker, call, written);
    }

    /// A call does not fit into a lane beside those before it: it goes to another one.
    fn lane_is_full(&mut self, now: Nanos, worker: WorkerId, call: CallId) {
        let event = Event::Declined { worker, call };
        let declined = self.core.on_event(now, event, &mut self.effects);
        debug_assert!(declined.is_ok(), "the core has just put it there: {declined:?}");
    }

    fn has_requests(&mut self, worker: WorkerId) -> bool {
        self.lane_state(worker).is_some_and(|(_, state)| !state.requests.is_empty())
    }

    /// Sends a call that has just come from the front end straight to a worker.
    pub(super) fn dispatch_external<'a, H>(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        worker: WorkerId,
        id: CallId,
        call: &NewCall<'a, H>,
        envelope_size: usize,
    ) where
        H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let written = self.lane(worker).map(|lane| {
            let mut writer = lane.reserve(envelope_size, call.body.len())?;
            call.request.encode(&mut writer);
            writer.write(call.body);
            Ok(writer.finish())
        });
        if matches!(written, Some(Err(_))) && self.has_requests(worker) {
            self.keep_external(id, call, envelope_size);
            return self.lane_is_full(now, worker, id);
        }
        self.publish_dispatch(reactor, now, worker, id, written);
    }

    /// Keeps what a queued external call needs.
    pub(super) fn keep_external<'a, H>(
        &mut self,
        id: CallId,
        call: &NewCall<'a, H>,
        envelope_size: usize,
    ) where
        H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let mut bytes = self.payloads.buffer();
        bytes.reserve(envelope_size + call.body.len());
        call.request.encode(&mut bytes);
        bytes.extend_from_slice(call.body);
        self.payloads.store(id, Payload::Stored { bytes, envelope_size });
    }

    fn publish_dispatch(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        worker: WorkerId,
        id: CallId,
        written: Option<Result<Block, NoSpace>>,
    ) {
        let Some(call) = self.core.call(id) else { return };
        let (depth, deadline_ns) = (call.depth, call.deadline.0);
        match written {
            Some(Ok(block)) => {
                let Some((_, state)) = self.lane_state(worker) else { return };
                state.requests.push((id, block));
                self.payloads.begin(now, id);
                let Some((_, state)) = self.lane_state(worker) else { return };
                let results_read = state.results_read;
                self.copied += block.size() as u64;
                let message =
                    ToWorker::Dispatch { call: id, depth, deadline_ns, results_read, block };
                self.publish(reactor, now, worker, &message);
            }
            // An idle worker's lane holds nothing, and no input is larger than a lane: it is our books
            // that are wrong. Without its container the call is answered, and the books begin anew.
            Some(Err(NoSpace { .. })) => {
                let reason = "its lane has no room for one call's input".to_owned();
                self.condemn(reactor, now, worker.function, reason);
            }
            None => {}
        }
    }

    fn answer(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        call: CallId,
        origin: Origin,
        reply: Reply,
    ) {
        let failure = match reply {
            Reply::Completed { worker, outcome } => match self.take_result(worker) {
                Some(result) => match self.copy_envelope(&result) {
                    Ok(()) => return self.answer_with(reactor, now, origin, outcome, result),
                    Err(error) => {
                        self.condemn(reactor, now, worker.function, error.to_string());
                        return self.answer_died(reactor, now, origin, worker.function);
                    }
                },
                // Its container was closed between its completion and now.
                None => return self.answer_died(reactor, now, origin, worker.function),
            },
            Reply::Returned { outcome } => match self.take_returned(call) {
                Some(result) if self.copy_envelope(&result).is_ok() => {
                    return self.answer_with(reactor, now, origin, outcome, result);
                }
                _ => Refusal::CONTAINER_DIED,
            },
            Reply::Died { function } => return self.answer_died(reactor, now, origin, function),
            Reply::Failed { outcome, message, retry_after_s } => {
                Refusal { outcome, message, retry_after_s }
            }
        };
        let Refusal { outcome, message, retry_after_s } = failure;
        match origin {
            Origin::External(caller) => {
                let (started, block, times) = (self.started(call), None, None);
                let answer = Answer { outcome, message, retry_after_s, started, block, times };
                self.answers.push_back((caller, answer));
            }
            Origin::Internal { worker, token, .. } => {
                self.fail_internal(reactor, now, worker, token, outcome, message);
            }
            Origin::Shard { shard, call } => self.fail_shard(shard, call, failure.into()),
        }
    }

    /// Whether a worker may have seen a call that the runtime fails. The payload of one that was never
    /// dispatched is dropped right before its answer; what another shard did with one is not known.
    fn started(&self, call: CallId) -> Started {
        if self.dropped == Some(call) { Started::No } else { Started::Perhaps }
    }

    /// Copies a reply's envelope into `scratch` and checks the copy, which goes to the caller: its
    /// container trusts the engine, and the bytes in the callee's memory may be others by then.
    fn copy_envelope(&mut self, result: &SharedBlock) -> Result<(), EnvelopeError> {
        if result.envelope_size() == 0 {
            self.scratch.clear();
            return Ok(());
        }
        result.copy_envelope(&mut self.scratch);
        envelope::parse_reply(&self.scratch).map(drop)
    }

    /// The envelope is in `scratch`, checked.
    fn answer_with(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        origin: Origin,
        outcome: Outcome,
        result: SharedBlock,
    ) {
        match origin {
            Origin::External(caller) => {
                let (started, block, times) = (Started::Perhaps, Some(result), None);
                let (message, retry_after_s) = ("", None);
                let answer = Answer { outcome, message, retry_after_s, started, block, times };
                self.answers.push_back((caller, answer));
            }
            Origin::Internal { worker, token, .. } => {
                self.answer_internal(reactor, now, worker, token, outcome, &result);
            }
            Origin::Shard { shard, call } => self.answer_shard(shard, call, outcome, &result),
        }
    }

    /// The container died that the call was in, and its caller is told of what.
    fn answer_died(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        origin: Origin,
        function: FunctionId,
    ) {
        let outcome = Outcome::ContainerDied;
        let death = self.functions[function.index()].death.clone();
        let words = death.as_deref().unwrap_or(Refusal::CONTAINER_DIED.message);
        if let Origin::Internal { worker, token, .. } = origin {
            return self.fail_internal(reactor, now, worker, token, outcome, words);
        }
        self.scratch.clear();
        let result = SharedBlock::from_bytes(words.as_bytes().to_vec(), 0);
        self.answer_with(reactor, now, origin, outcome, result);
    }

    /// Copies a callee's result into its caller's memory, the one copy of this hop.
    fn answer_internal(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        worker: WorkerId,
        token: u32,
        outcome: Outcome,
        result: &SharedBlock,
    ) {
        let envelope = std::mem::take(&mut self.scratch);
        let written = self.lane(worker).map(|lane| {
            let mut writer = lane.reserve(envelope.len(), result.payload_size())?;
            writer.write(&envelope);
            writer.write_shared(&result.payload());
            Ok(writer.finish())
        });
        self.scratch = envelope;
        match written {
            Some(Ok(block)) => self.publish_answer(reactor, now, worker, token, outcome, block),
            Some(Err(NoSpace { .. })) => {
                let message = "answers that the caller has not released leave no room for this one";
                self.fail_internal(reactor, now, worker, token, Outcome::NoSpace, message);
            }
            None => {}
        }
    }

    fn fail_internal(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        worker: WorkerId,
        token: u32,
        outcome: Outcome,
        message: &str,
    ) {
        // Without room for words the outcome alone has to do.
        let written = self.lane(worker).map(|lane| {
            write_block(lane, 0, message.as_bytes()).or_else(|_| write_block(lane, 0, &[]))
        });
        if let Some(Ok(block)) = written {
            self.publish_answer(reactor, now, worker, token, outcome, block);
        }
    }

    fn publish_answer(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        worker: WorkerId,
        token: u32,
        outcome: Outcome,
        block: Block,
    ) {
        if let Some((_, state)) = self.lane_state(worker) {
            state.answers.push((token, block));
            self.copied += block.size() as u64;
        }
        self.publish(reactor, now, worker, &ToWorker::Answer { token, outcome, block });
    }

    fn spawn(&mut self, reactor: &mut Reactor, now: Nanos, worker: WorkerId) {
        let placement = self.placement(worker.function);
        let Some(link) = self.link(worker.function) else { return };
        if !link.container.reserve_worker() {
            let function = worker.function;
            self.tell_core(reactor, now, function, Event::NoRoom { worker });
            let has = self.core.workers(function);
            self.tell_siblings(|| ToShard::YieldWorker { function, has });
            return;
        }
        if let Err(error) = link.spawn(reactor, worker.function, worker.lane, placement) {
            link.container.free_worker();
            let name = &self.functions[worker.function.index()].function.name;
            if is_gone(&error) {
                // Its end is the supervisor's to tell, who knows the reason.
                tracing::debug!(function = name, "a worker was asked of a container that is gone");
            } else {
                tracing::warn!(function = name, "a worker could not be asked for: {error}");
            }
            self.tell_core(reactor, now, worker.function, Event::WorkerFailed { worker });
        }
    }

    /// Puts a message into a worker's lane; its doorbell is rung by the next flush if it sleeps.
    fn publish(&mut self, reactor: &mut Reactor, now: Nanos, worker: WorkerId, message: &ToWorker) {
        let Some((lane, state)) = self.lane_state(worker) else {
            return;
        };
        if let Err(fault) = lane.publish(message) {
            return self.condemn(reactor, now, worker.function, fault.to_string());
        }
        if !std::mem::replace(&mut state.must_ring, true) {
            self.unrung.push(worker);
        }
    }

    pub(super) fn lane(&mut self, worker: WorkerId) -> Option<&mut EngineLane> {
        self.lane_state(worker).map(|(lane, _)| lane)
    }

    pub(super) fn lane_state(
        &mut self,
        worker: WorkerId,
    ) -> Option<(&mut EngineLane, &mut LaneState)> {
        self.link(worker.function)?.lane(worker.lane)
    }

    /// Takes a worker's published result; the worker is free once what comes out is dropped.
    pub(super) fn take_result(&mut self, worker: WorkerId) -> Option<SharedBlock> {
        let (_, state) = self.lane_state(worker)?;
        state.result.take()
    }
}

/// Whether this is what a socket says whose other end has closed.
fn is_gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

/// Writes `bytes`, of which the first `envelope_size` are the envelope.
fn write_block(
    lane: &mut EngineLane,
    envelope_size: usize,
    bytes: &[u8],
) -> Result<Block, NoSpace> {
    let mut writer = lane.reserve(envelope_size, bytes.len() - envelope_size)?;
    writer.write(bytes);
    Ok(writer.finish())
}
