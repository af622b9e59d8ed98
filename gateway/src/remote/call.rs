//! The calls that are owed an answer: whose they are, what is kept of them to say them again, and
//! where they are.

use ipc::engine_side::SharedSlice;
use protocol::message::Repeat;
use reactor::clock::Nanos;
use reactor::wheel::Timer;
use slab::Slab;

use super::balance::{FunctionIndex, SeatId};
use super::key::{CallKey, LinkKey};

/// Attempts that a call gets in all: enough for an engine that is lost while another one drains, and
/// few enough that a call which ends its host ends no more than three.
pub(super) const ATTEMPTS_MAX: u32 = 3;

/// A call that is owed an answer.
pub(super) struct Call {
    pub(super) key: CallKey,
    /// Comes back in the answer.
    pub(super) caller: u64,
    pub(super) function: FunctionIndex,
    /// Its place in the order of arrivals.
    pub(super) sequence: u64,
    pub(super) deadline: Nanos,
    /// For the deadline, or what an engine has beyond it.
    pub(super) timer: Timer,
    /// Envelope and payload; shared with the link that says it.
    pub(super) block: SharedSlice,
    pub(super) envelope_size: u32,
    pub(super) payload_size: u32,
    /// How often it was sent.
    pub(super) attempts: u32,
    pub(super) place: Place,
}

/// Where a call is.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// In its function's queue.
    Waiting,
    /// With an engine.
    Sent(Sent),
}

/// A call that is with an engine.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) link: LinkKey,
    pub(super) seat: SeatId,
    pub(super) stream: CallKey,
    pub(super) at: Nanos,
    /// What the engine says of the function.
    pub(super) repeat: Repeat,
}

/// What a caller brings.
pub(super) struct Arrival {
    pub(super) caller: u64,
    pub(super) function: FunctionIndex,
    pub(super) deadline: Nanos,
    pub(super) block: SharedSlice,
    pub(super) envelope_size: u32,
    pub(super) payload_size: u32,
}

#[derive(Default)]
pub(super) struct Calls {
    calls: Slab<Call>,
    arrivals: u64,
    generation: u32,
    /// Bytes of all blocks.
    bytes: usize,
}

impl Calls {
    /// `start` starts its timer. `None` where there are more than keys can name.
    pub(super) fn insert(
        &mut self,
        arrival: Arrival,
        start: impl FnOnce(CallKey) -> Timer,
    ) -> Option<CallKey> {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.calls.vacant_entry();
        let key = CallKey::new(entry.key(), self.generation)?;
        let Arrival { caller, function, deadline, block, envelope_size, payload_size } = arrival;
        self.bytes += block.len();
        self.arrivals += 1;
        entry.insert(Call {
            key,
            caller,
            function,
            sequence: self.arrivals,
            deadline,
            timer: start(key),
            block,
            envelope_size,
            payload_size,
            attempts: 0,
            place: Place::Waiting,
        });
        Some(key)
    }

    pub(super) fn get_mut(&mut self, key: CallKey) -> Option<&mut Call> {
        self.calls.get_mut(key.slot()).filter(|call| call.key == key)
    }

    pub(super) fn remove(&mut self, key: CallKey) -> Option<Call> {
        self.get_mut(key)?;
        let call = self.calls.try_remove(key.slot())?;
        self.bytes -= call.block.len();
        Some(call)
    }

    /// The name of a new attempt at a call.
    pub(super) fn stream(&mut self, key: CallKey) -> Option<CallKey> {
        self.generation = self.generation.wrapping_add(1);
        CallKey::new(key.slot(), self.generation)
    }

    /// The call whose attempt on `link` this stream is.
    pub(super) fn on_stream(&self, link: LinkKey, stream: CallKey) -> Option<(CallKey, Sent)> {
        let call = self.calls.get(stream.slot())?;
        match call.place {
            Place::Sent(sent) if sent.link == link && sent.stream == stream => {
                Some((call.key, sent))
            }
            _ => None,
        }
    }

    /// All that are with the engine behind a link, oldest first.
    pub(super) fn on_link(&self, link: LinkKey) -> Vec<(CallKey, Sent)> {
        let on_link = self.calls.iter().filter_map(|(_, call)| match call.place {
            Place::Sent(sent) if sent.link == link => Some((call.sequence, call.key, sent)),
            _ => None,
        });
        let mut found: Vec<_> = on_link.collect();
        found.sort_unstable_by_key(|(sequence, ..)| *sequence);
        found.into_iter().map(|(_, key, sent)| (key, sent)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
