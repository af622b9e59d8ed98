//! What a call that waits in a queue will need once it is dispatched, by the call's slot.
//!
//! An external call's request is copied out of the gateway's buffers, an internal call's stays in its
//! caller's shared memory. Buffers are kept for the next call, so that a steady load allocates nothing.

use ipc::engine_side::SharedBlock;
use ipc::envelope::{RequestFields, Sink};
use ipc::{CallId, Times};
use reactor::clock::Nanos;

/// Buffers that are kept for later; beyond that they are freed.
const SPARE_BUFFERS_MAX: usize = 256;
/// A buffer that grew larger is not kept.
const SPARE_BUFFER_SIZE_MAX: usize = 64 * 1024;
/// Longest request id and trace context that are carried, in bytes.
const REQUEST_ID_MAX: usize = 64;
const TRACEPARENT_MAX: usize = 55;

/// The input of a call.
#[derive(Debug, Default)]
pub(super) enum Payload {
    /// Nothing is kept: the call was dispatched, or has just arrived and is at hand.
    #[default]
    None,
    /// Envelope and body of an external call.
    Stored { bytes: Vec<u8>, envelope_size: usize },
    /// The caller's block in its lane.
    Shared(SharedBlock),
}

/// What every call below one request carries along.
#[derive(Clone, Debug)]
pub(super) struct RequestContext {
    request_id: [u8; REQUEST_ID_MAX],
    request_id_length: u8,
    traceparent: [u8; TRACEPARENT_MAX],
    traceparent_length: u8,
}

impl RequestContext {
    const EMPTY: Self = Self {
        request_id: [0; REQUEST_ID_MAX],
        request_id_length: 0,
        traceparent: [0; TRACEPARENT_MAX],
        traceparent_length: 0,
    };

    /// Keeps both, or nothing of one that is too long.
    pub(super) fn new(request_id: &[u8], traceparent: &[u8]) -> Self {
        let mut context = Self::EMPTY;
        context.request_id_length = keep(&mut context.request_id, request_id);
        context.traceparent_length = keep(&mut context.traceparent, traceparent);
        context
    }

    /// Bytes of the envelope of an internal call.
    pub(super) fn envelope_size(&self) -> usize {
        // Both were part of an envelope before: they cannot be refused.
        self.fields().encoded_size().unwrap_or(0)
    }

    /// Writes the envelope of an internal call.
    pub(super) fn encode(&self, out: &mut impl Sink) {
        if self.envelope_size() > 0 {
            self.fields().encode(out);
        }
    }

    fn fields(&self) -> RequestFields<'_, std::iter::Empty<(&[u8], &[u8])>> {
        RequestFields {
            request_id: &self.request_id[..self.request_id_length.into()],
            traceparent: &self.traceparent[..self.traceparent_length.into()],
            method: &[],
            suffix: &[],
            query: &[],
            headers: std::iter::empty(),
        }
    }
}

fn keep(room: &mut [u8], bytes: &[u8]) -> u8 {
    let Some(target) = room.get_mut(..bytes.len()) else { return 0 };
    target.copy_from_slice(bytes);
    u8::try_from(bytes.len()).unwrap_or(0)
}

#[derive(Debug)]
struct Entry {
    payload: Payload,
    context: RequestContext,
    admitted: Nanos,
    /// When a worker, or another shard, got it.
    begun: Option<Nanos>,
}

impl Entry {
    const EMPTY: Self = Self {
        payload: Payload::None,
        context: RequestContext::EMPTY,
        admitted: Nanos(0),
        begun: None,
    };
}

/// Payload and context of every live call, by slot. Bounded by the number of calls that `core` admits.
#[derive(Debug, Default)]
pub(super) struct Payloads {
    entries: Vec<Entry>,
    spare: Vec<Vec<u8>>,
}

impl Payloads {
    /// Remembers what belongs to a call that was just admitted.
    pub(super) fn admit(
        &mut self,
        now: Nanos,
        call: CallId,
        payload: Payload,
        context: RequestContext,
    ) {
        let slot = call.slot() as usize;
        while self.entries.len() <= slot {
            self.entries.push(Entry::EMPTY);
        }
        self.entries[slot] = Entry { payload, context, admitted: now, begun: None };
    }

    /// Remembers when a call went to a worker, the last time if there are several.
    pub(super) fn begin(&mut self, now: Nanos, call: CallId) {
        if let Some(entry) = self.entries.get_mut(call.slot() as usize) {
            entry.begun = Some(now);
        }
    }

    /// Where the time of a call went that is answered now.
    pub(super) fn times(&self, now: Nanos, call: CallId) -> Option<Times> {
        let Entry { admitted, begun, .. } = self.entries.get(call.slot() as usize)?;
        let begun = begun.unwrap_or(now);
        let queued = begun.saturating_since(*admitted);
        Some(Times { queued, ran: now.saturating_since(begun) })
    }

    pub(super) fn store(&mut self, call: CallId, payload: Payload) {
        if let Some(entry) = self.entries.get_mut(call.slot() as usize) {
            entry.payload = payload;
        }
    }

    pub(super) fn take(&mut self, call: CallId) -> Payload {
        self.entries
            .get_mut(call.slot() as usize)
            .map(|entry| std::mem::take(&mut entry.payload))
            .unwrap_or_default()
    }

    pub(super) fn context(&self, call: CallId) -> &RequestContext {
        self.entries
            .get(call.slot() as usize)
            .map_or(&RequestContext::EMPTY, |entry| &entry.context)
    }

    /// An empty buffer, used before if possible.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Keeps a buffer for [`Self::buffer`].
    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BUFFER_SIZE_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}
