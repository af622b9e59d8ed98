//! A call from a link's message to the engine, and an answer from the engine to a link.

use std::time::Duration;

use ipc::engine_side::SharedBlock;
use ipc::{Outcome, envelope};
use protocol::message::{AnswerHead, CallHead, Started};
use protocol::{Link, ProtocolError};
use reactor::Reactor;
use reactor::clock::Nanos;

use super::calls::Calls;
use super::key::Key;
use super::numbers::{Named, Numbers};
use crate::core::Refusal;
use crate::io::{Answer, Engine, NewCall};

const TOO_LARGE: Refusal = Refusal {
    outcome: Outcome::TooLarge,
    message: "the request is larger than the engine's body_max",
    retry_after_s: None,
};
const BAD_ENVELOPE: Refusal = Refusal {
    outcome: Outcome::BadRequest,
    message: "the gateway sent no valid envelope",
    retry_after_s: None,
};
const CHANGED_REPLY: &str = "the function changed its reply while it was sent";

/// What a call needs at hand.
pub(super) struct Desk<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) reactor: &'a mut Reactor,
    pub(super) now: Nanos,
    pub(super) numbers: &'a Numbers,
    pub(super) calls: &'a mut Calls,
    pub(super) payload_max: u32,
    /// Whether new calls are taken at all.
    pub(super) draining: bool,
}

/// What became of a call.
pub(super) enum Taken {
    /// It is the engine's.
    Yes(Key),
    /// It was not begun and never will be.
    Refused(Refusal),
    /// Its gateway broke the protocol.
    Broken(ProtocolError),
}

impl Desk<'_> {
    /// Passes a call to the engine. `block` has the sizes that the head says.
    pub(super) fn take(&mut self, peer: Key, stream: u64, head: &CallHead, block: &[u8]) -> Taken {
        let function = match self.numbers.named(head.function) {
            Named::Function(function) => function,
            Named::Gone => return Taken::Refused(Refusal::UNKNOWN_FUNCTION),
            Named::Never => return Taken::Broken(ProtocolError::Malformed("a call's function")),
        };
        if self.draining {
            return Taken::Refused(Refusal::DRAINING);
        }
        if head.payload_size > self.payload_max {
            return Taken::Refused(TOO_LARGE);
        }
        let Some((envelope, body)) = block.split_at_checked(head.envelope_size as usize) else {
            return Taken::Broken(ProtocolError::Malformed("a call"));
        };
        let Ok(request) = envelope::parse_request(envelope) else {
            return Taken::Refused(BAD_ENVELOPE);
        };
        let Some(key) = self.calls.next_key() else {
            return Taken::Refused(Refusal::CALLS_FULL);
        };
        let call = NewCall {
            function,
            caller: key.caller(),
            timeout: Some(Duration::from_nanos(head.timeout_ns)),
            request: envelope::RequestFields {
                method: request.method,
                suffix: request.suffix,
                query: request.query,
                request_id: request.request_id,
                traceparent: request.traceparent,
                headers: request.headers,
            },
            body,
        };
        match self.engine.submit(self.reactor, self.now, &call) {
            Ok(call) => {
                self.calls.insert(key, peer, stream, call);
                Taken::Yes(key)
            }
            Err(refusal) => Taken::Refused(refusal),
        }
    }
}

/// An answer as a link takes it.
pub(super) struct Outgoing {
    pub(super) head: AnswerHead,
    pub(super) block: Option<SharedBlock>,
}

impl Outgoing {
    pub(super) fn refused(refusal: &Refusal) -> Outgoing {
        let Refusal { outcome, message, retry_after_s } = *refusal;
        Outgoing::failed(outcome, message, retry_after_s, Started::No)
    }

    /// `scratch` is for the envelope.
    pub(super) fn new(answer: Answer, scratch: &mut Vec<u8>) -> Outgoing {
        let Answer { outcome, message, retry_after_s, started, block, times } = answer;
        let mut outgoing = match block.map(|block| hold(block, scratch)) {
            None => Outgoing::failed(outcome, message, retry_after_s, started),
            Some(None) => Outgoing::failed(Outcome::ContainerDied, CHANGED_REPLY, None, started),
            Some(Some(block)) => {
                let mut outgoing = Outgoing::failed(outcome, "", retry_after_s, started);
                outgoing.head.envelope_size = size(block.envelope_size());
                outgoing.head.payload_size = size(block.payload_size());
                outgoing.block = Some(block);
                outgoing
            }
        };
        if let Some(times) = times {
            outgoing.head.queued_ns = nanos(times.queued);
            outgoing.head.ran_ns = nanos(times.ran);
        }
        outgoing
    }

    /// Queues it on the link of its call.
    pub(super) fn send(self, link: &mut Link, stream: u64) {
        match self.block {
            Some(block) => link.send_answer_block(stream, &self.head, block),
            None => link.send_answer(stream, &self.head, None),
        }
    }

    fn failed(
        outcome: Outcome,
        message: &str,
        retry_after_s: Option<u32>,
        started: Started,
    ) -> Outgoing {
        let block =
            (!message.is_empty()).then(|| SharedBlock::from_bytes(message.as_bytes().to_vec(), 0));
        let head = AnswerHead {
            outcome,
            started,
            retry_after_s,
            queued_ns: 0,
            ran_ns: 0,
            envelope_size: 0,
            payload_size: size(message.len()),
        };
        Outgoing { head, block }
    }
}

/// A reply as it may be sent. The container can write to it at any time, and a gateway ends a link on
/// which an envelope is none: so the envelope is copied, and checked as a copy. Without one, the reply is
/// sent out of the function's memory, and the worker is free when the link lets go of it.
fn hold(block: SharedBlock, scratch: &mut Vec<u8>) -> Option<SharedBlock> {
    if block.envelope_size() == 0 {
        return Some(block);
    }
    block.copy_envelope(scratch);
    envelope::parse_reply(scratch).ok()?;
    let mut bytes = Vec::with_capacity(scratch.len() + block.payload_size());
    bytes.extend_from_slice(scratch);
    block.payload().append_to(&mut bytes);
    Some(SharedBlock::from_bytes(bytes, scratch.len()))
}

/// Envelopes and payloads have sizes of 32 bits everywhere.
fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
