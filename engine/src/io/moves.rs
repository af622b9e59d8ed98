//! Calls on their way between shards: what `core` wants moved, and what other shards send.

use ipc::engine_side::SharedBlock;
use ipc::{CallId, Outcome};
use reactor::clock::Nanos;
use reactor::{Reactor, Token};

use super::engine::Engine;
use super::exchange::{Bytes, Parcel};
use super::payload::Payload;
use super::token::Subject;
use crate::core::{Event, ForeignCall, FunctionId, Leaver, Origin, Reply};

/// Parcels taken at one bell; after that, channels and clients get their turn.
const PARCELS_MAX: u32 = 256;

impl Engine {
    /// No further call of another shard is taken in; those that are here are answered.
    pub fn close(&mut self) {
        self.exchange.close();
    }

    /// Whether no call of another shard is here, and none of this one elsewhere, that somebody waits for.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.core.calls_foreign() == 0 && self.core.calls_away() == 0
    }

    /// Shows the core where calls could go, if the next step of this function may move one.
    pub(super) fn look_around(&mut self, function: FunctionId) {
        if self.core.may_move(function) {
            self.core.set_relief(self.exchange.relief());
        }
    }

    pub(super) fn send_away(&mut self, now: Nanos, id: CallId, to: u16, cost_ns: u64) {
        let Some(call) = self.core.to_foreign(self.shard, id, cost_ns) else { return };
        let context = self.payloads.context(id).clone();
        let input = match self.payloads.take(id) {
            Payload::Stored { bytes, envelope_size } => Bytes { bytes, envelope_size },
            Payload::Shared(block) => {
                let mut bytes = self.payloads.buffer();
                context.encode(&mut bytes);
                block.payload().append_to(&mut bytes);
                Bytes { bytes, envelope_size: context.envelope_size() }
            }
            Payload::None => Bytes { bytes: Vec::new(), envelope_size: 0 },
        };
        self.payloads.begin(now, id);
        self.exchange.send(to, Parcel::Call { call, input, context });
    }

    pub(super) fn recall(&mut self, call: CallId, at: u16, leaver: Leaver) {
        self.exchange.send(at, Parcel::Recall { shard: self.shard, call, leaver });
    }

    /// Sends a foreign call back that was never dispatched.
    pub(super) fn bounce(&mut self, id: CallId, origin: Origin) {
        let Origin::Shard { shard, call } = origin else { return };
        let Payload::Stored { bytes, envelope_size } = self.payloads.take(id) else { return };
        self.exchange.send(shard, Parcel::Bounce { call, input: Bytes { bytes, envelope_size } });
    }

    /// Copies a result, its envelope out of `scratch`, for the shard that waits for it; the worker is
    /// free after that.
    pub(super) fn answer_shard(
        &mut self,
        shard: u16,
        call: CallId,
        outcome: Outcome,
        result: &SharedBlock,
    ) {
        let mut bytes = self.payloads.buffer();
        bytes.extend_from_slice(&self.scratch);
        result.payload().append_to(&mut bytes);
        self.copied += bytes.len() as u64;
        let result = Bytes { bytes, envelope_size: self.scratch.len() };
        self.exchange
            .send(shard, Parcel::Answer { call, reply: Reply::Returned { outcome }, result });
    }

    pub(super) fn fail_shard(&mut self, shard: u16, call: CallId, reply: Reply) {
        let result = Bytes { bytes: Vec::new(), envelope_size: 0 };
        self.exchange.send(shard, Parcel::Answer { call, reply, result });
    }

    /// Takes what came with a call's return; it is the result that its caller is owed.
    pub(super) fn take_returned(&mut self, call: CallId) -> Option<SharedBlock> {
        match self.payloads.take(call) {
            Payload::Stored { bytes, envelope_size } => {
                Some(SharedBlock::from_bytes(bytes, envelope_size))
            }
            Payload::Shared(_) | Payload::None => None,
        }
    }

    /// A shard was not reached. What it was sent lies there, and its bell is rung again.
    pub(super) fn bell_failed(&mut self, value: u64) {
        if let Some(Subject::Parcels { shard }) = Subject::of(Token(value)) {
            self.exchange.ring(shard);
        }
    }

    pub(super) fn read_parcels(&mut self, reactor: &mut Reactor, now: Nanos) {
        for _ in 0..PARCELS_MAX {
            let Some(parcel) = self.exchange.take() else { return };
            self.unpack(reactor, now, parcel);
        }
        self.exchange.ring(self.shard);
    }

    fn unpack(&mut self, reactor: &mut Reactor, now: Nanos, parcel: Parcel) {
        match parcel {
            Parcel::Call { call: foreign, input, context } => {
                let ForeignCall { shard, call, function, .. } = foreign;
                let is_closed = self.exchange.is_closed();
                let take = || self.core.foreign_call(now, foreign, &mut self.effects);
                let Some(id) = (!is_closed).then(take).flatten() else {
                    return self.exchange.send(shard, Parcel::Bounce { call, input });
                };
                let Bytes { bytes, envelope_size } = input;
                self.touch(function);
                self.payloads.admit(now, id, Payload::Stored { bytes, envelope_size }, context);
                self.perform(reactor, now);
            }
            Parcel::Answer { call, reply, result } => {
                self.came_back(reactor, now, call, result, Event::Returned { call, reply });
            }
            Parcel::Bounce { call, input } => {
                self.came_back(reactor, now, call, input, Event::Bounced { call });
            }
            Parcel::Recall { shard, call, leaver } => {
                let event = Event::Recalled { shard, call, leaver };
                let outcome = self.core.on_event(now, event, &mut self.effects);
                debug_assert!(outcome.is_ok(), "shards keep the protocol");
                self.perform(reactor, now);
            }
        }
    }

    /// A call is back, with its result or as it was, unless nobody waits for it any more.
    fn came_back(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        call: CallId,
        Bytes { bytes, envelope_size }: Bytes,
        event: Event,
    ) {
        let Some(function) = self.core.away(call) else { return self.payloads.recycle(bytes) };
        self.payloads.store(call, Payload::Stored { bytes, envelope_size });
        self.tell_core(reactor, now, function, event);
        self.want_if_queued(function);
    }
}
