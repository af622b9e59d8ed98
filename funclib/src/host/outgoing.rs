//! The answer of the running call as it grows in the lane's outbound arena.
//!
//! ```text
//!   │◀────── ROOM ──────▶│◀─── size ───▶│
//!   ┌───────────┬────────┬──────────────┬────────────┐
//!   │  unused   │envelope│   payload    │  capacity  │   one outbound buffer
//!   └───────────┴────────┴──────────────┴────────────┘
//! ```
//!
//! The payload is written where it will be sent from. The envelope, which must lie right before
//! it, is known only at the end, so room is left; a larger envelope moves the payload once.

use std::collections::VecDeque;
use std::iter;

use ipc::envelope::ReplyFields;
use ipc::worker_side::{OutboundBuffer, WorkerLane};
use ipc::{Block, Outcome, Region};

use super::Fault;

/// Room before the payload: status, a content type and a few headers.
const ROOM: usize = 256;
/// Payload that the first buffer takes at least.
const FIRST: usize = 256;
/// Bytes of a message for people; longer ones are cut.
const MESSAGE_MAX: usize = 4096;
/// Headers of an answer.
const HEADERS_MAX: usize = 64;
/// Names and values of an answer's headers, in bytes.
const HEADERS_SIZE_MAX: usize = 16 * 1024;
const _: () = assert!(HEADERS_SIZE_MAX + 5 * HEADERS_MAX + 512 < ipc::ENVELOPE_MAX);
const _: () = assert!(HEADERS_MAX + 2 <= ipc::envelope::FIELDS_MAX);

/// The answer. Everything keeps its capacity from call to call.
pub(crate) struct Outgoing {
    payload_max: usize,
    buffer: Option<OutboundBuffer>,
    /// Bytes of payload in `buffer`.
    size: usize,
    /// Buffers of the last completions, none for one without bytes: the engine's until it says that
    /// it has read them.
    sent: VecDeque<Option<OutboundBuffer>>,
    /// Completions whose buffers are not in `sent` any more, wrapping around.
    read: u32,
    status: Option<u16>,
    content_type: Vec<u8>,
    /// Sizes of name and value of each header; the bytes are in `header_bytes`.
    headers: Vec<(usize, usize)>,
    header_bytes: Vec<u8>,
    /// What the function says went wrong; the text is in `message`.
    failure: Option<Outcome>,
    message: Vec<u8>,
    /// The first output that did not fit: an answer is whole, or it is a failure.
    overflow: Option<Outcome>,
    envelope: Vec<u8>,
}

/// A value that the interface does not allow.
pub(crate) struct Invalid;

impl Outgoing {
    pub(crate) fn new(payload_max: usize) -> Outgoing {
        Outgoing {
            payload_max,
            buffer: None,
            size: 0,
            sent: VecDeque::new(),
            read: 0,
            status: None,
            content_type: Vec::new(),
            headers: Vec::new(),
            header_bytes: Vec::new(),
            failure: None,
            message: Vec::new(),
            overflow: None,
            envelope: Vec::new(),
        }
    }

    /// The engine has read the first `count` answers of this lane.
    pub(crate) fn on_read(&mut self, lane: &mut WorkerLane, count: u32) -> Result<(), Fault> {
        while self.read != count {
            let buffer = self.sent.pop_front().ok_or(Fault::OutOfTurn("a count of results"))?;
            self.read = self.read.wrapping_add(1);
            if let Some(buffer) = buffer {
                lane.free(buffer);
            }
        }
        Ok(())
    }

    /// The engine has read every answer.
    pub(crate) fn on_all_read(&mut self, lane: &mut WorkerLane) {
        for buffer in self.sent.drain(..).flatten() {
            lane.free(buffer);
        }
    }

    /// Appends room for `count` bytes, to be written by the caller.
    pub(crate) fn reserve<'l>(
        &mut self,
        lane: &'l mut WorkerLane,
        count: usize,
    ) -> Result<&'l mut [u8], Outcome> {
        if let Err(outcome) = self.grow(lane, count) {
            self.overflow.get_or_insert(outcome);
            return Err(outcome);
        }
        let start = ROOM + self.size;
        self.size += count;
        match &self.buffer {
            Some(buffer) => Ok(&mut lane.outbound_mut(buffer)[start..start + count]),
            None => Ok(&mut []),
        }
    }

    pub(crate) fn set_status(&mut self, status: i32) -> Result<(), Invalid> {
        let status = u16::try_from(status).map_err(|_| Invalid)?;
        check(Some(status), &[], None)?;
        self.status = Some(status);
        Ok(())
    }

    pub(crate) fn set_content_type(&mut self, value: &[u8]) -> Result<(), Invalid> {
        if value.len() > usize::from(u8::MAX) {
            return Err(Invalid);
        }
        check(None, value, None)?;
        self.content_type.clear();
        self.content_type.extend_from_slice(value);
        Ok(())
    }

    pub(crate) fn add_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Invalid> {
        let size = self.header_bytes.len() + name.len() + value.len();
        if self.headers.len() == HEADERS_MAX || size > HEADERS_SIZE_MAX {
            return Err(Invalid);
        }
        check(None, &[], Some((name, value)))?;
        self.headers.push((name.len(), value.len()));
        self.header_bytes.extend_from_slice(name);
        self.header_bytes.extend_from_slice(value);
        Ok(())
    }

    pub(crate) fn fail(&mut self, outcome: Outcome, message: &[u8]) {
        self.failure = Some(outcome);
        self.message.clear();
        for chunk in message[..message.len().min(MESSAGE_MAX)].utf8_chunks() {
            self.message.extend_from_slice(chunk.valid().as_bytes());
        }
    }

    /// The function returned `code`: the block to complete the call with. The next call starts
    /// with nothing.
    pub(crate) fn finish(
        &mut self,
        lane: &mut WorkerLane,
        code: i32,
    ) -> Result<(Outcome, Block), Fault> {
        match (self.overflow, self.failure) {
            (_, Some(_)) => {}
            (Some(outcome), None) => {
                let limit = self.payload_max;
                let text = match outcome {
                    Outcome::TooLarge => format!("the answer exceeds {limit} bytes"),
                    _ => "no room for the answer in shared memory".to_owned(),
                };
                self.fail(outcome, text.as_bytes());
            }
            (None, None) if code != 0 => {
                let text = format!("the function returned {code}");
                self.fail(Outcome::FunctionError, text.as_bytes());
            }
            (None, None) => {}
        }
        let block = match self.failure {
            None => self.answer(lane)?,
            Some(_) => self.failed(lane)?,
        };
        let outcome = self.failure.unwrap_or(Outcome::Ok);
        self.sent.push_back(self.buffer.take());
        self.size = 0;
        self.status = None;
        self.content_type.clear();
        self.headers.clear();
        self.header_bytes.clear();
        self.failure = None;
        self.overflow = None;
        Ok((outcome, block))
    }

    /// Puts the envelope before the payload.
    fn answer(&mut self, lane: &mut WorkerLane) -> Result<Block, Fault> {
        self.envelope.clear();
        if self.status.is_some() || !self.content_type.is_empty() || !self.headers.is_empty() {
            let mut rest = self.header_bytes.as_slice();
            let headers = self.headers.iter().map(move |(name, value)| {
                let (header, after) = rest.split_at(name + value);
                rest = after;
                header.split_at(*name)
            });
            let (status, content_type) = (self.status, self.content_type.as_slice());
            let fields = ReplyFields { status, content_type, headers };
            fields.encoded_size()?;
            fields.encode(&mut self.envelope);
        }
        let size = self.envelope.len();
        if size + self.size == 0 {
            return Ok(Block::empty(Region::Outbound));
        }
        let end = size.max(ROOM);
        if self.ensure(lane, end + self.size).is_err() {
            // Nothing was sent yet, so the call can still fail, with the little room there is.
            self.fail(Outcome::NoSpace, b"no room for the answer's headers in shared memory");
            return self.failed(lane);
        }
        let Some(buffer) = &self.buffer else { return Ok(Block::empty(Region::Outbound)) };
        let bytes = lane.outbound_mut(buffer);
        if end > ROOM {
            bytes.copy_within(ROOM..ROOM + self.size, end);
        }
        bytes[end - size..end].copy_from_slice(&self.envelope);
        Ok(behind(lane.block(buffer, size, self.size), end - size))
    }

    /// Replaces the output by the message; without room for it the outcome alone must do.
    fn failed(&mut self, lane: &mut WorkerLane) -> Result<Block, Fault> {
        self.size = 0;
        if self.message.is_empty() || self.ensure(lane, ROOM + self.message.len()).is_err() {
            return Ok(Block::empty(Region::Outbound));
        }
        let Some(buffer) = &self.buffer else { return Ok(Block::empty(Region::Outbound)) };
        let bytes = lane.outbound_mut(buffer);
        bytes[ROOM..ROOM + self.message.len()].copy_from_slice(&self.message);
        Ok(behind(lane.block(buffer, 0, self.message.len()), ROOM))
    }

    /// Makes room for `count` more bytes of payload, doubling so that many small appends stay
    /// cheap.
    fn grow(&mut self, lane: &mut WorkerLane, count: usize) -> Result<(), Outcome> {
        let wanted = self.size.checked_add(count).filter(|size| *size <= self.payload_max);
        let wanted = ROOM + wanted.ok_or(Outcome::TooLarge)?;
        let present = self.buffer.as_ref().map_or(0, OutboundBuffer::size);
        if count == 0 || wanted <= present {
            return Ok(());
        }
        let generous = wanted.max(2 * present).max(ROOM + FIRST).min(ROOM + self.payload_max);
        self.ensure(lane, generous).or_else(|_| self.ensure(lane, wanted))
    }

    /// A buffer of at least `size` bytes, with what was written so far.
    fn ensure(&mut self, lane: &mut WorkerLane, size: usize) -> Result<(), Outcome> {
        if self.buffer.as_ref().is_some_and(|buffer| buffer.size() >= size) {
            return Ok(());
        }
        let buffer = lane.allocate(size).map_err(|_| Outcome::NoSpace)?;
        if let Some(old) = self.buffer.take() {
            let written = ROOM..ROOM + self.size;
            let from = lane.outbound_mut(&old)[written.clone()].as_ptr();
            let to = lane.outbound_mut(&buffer)[written].as_mut_ptr();
            // SAFETY: both ranges were bounds-checked just above and lie in two buffers allocated
            // at once, which never overlap; the lane's memory stays mapped while it is borrowed.
            unsafe { std::ptr::copy_nonoverlapping(from, to, self.size) };
            lane.free(old);
        }
        self.buffer = Some(buffer);
        Ok(())
    }
}

/// What a parser of envelopes would refuse must not get into one.
fn check(
    status: Option<u16>,
    content_type: &[u8],
    header: Option<(&[u8], &[u8])>,
) -> Result<(), Invalid> {
    let is_empty = header.is_some_and(|(name, _)| name.is_empty());
    let headers = iter::once(header).flatten();
    let fields = ReplyFields { status, content_type, headers };
    if is_empty || fields.encoded_size().is_err() { Err(Invalid) } else { Ok(()) }
}

/// The same block, `skipped` bytes further into its buffer. The buffer holds them all: `finish`
/// ensured room for what is skipped and what is named together.
fn behind(block: Block, skipped: usize) -> Block {
    Block { offset: block.offset + skipped as u64, ..block }
}
