//! Messages on their way out. What fits a frame waits as bytes; what does not is cut, one frame of
//! each in turn, so that nothing small waits behind something large.

use std::collections::VecDeque;

use ipc::engine_side::SharedSlice;

use crate::frame::{FRAME_MAX, HEAD_SIZE, Head, Kind, Part};
use crate::message::FIXED_MAX;

/// Bytes of one send at most, unless small messages alone are more: with what the kernel keeps
/// unsent, it is what a new message may find before it.
const BATCH_MAX: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Frames, ready to be sent.
    ready: Vec<u8>,
    /// Calls among those.
    ready_calls: Vec<u64>,
    /// In turn: the first one is next.
    large: VecDeque<Large>,
    /// Bytes that `large` has not given out.
    large_bytes: usize,
}

#[derive(Debug)]
struct Large {
    kind: Kind,
    stream: u64,
    fixed: Vec<u8>,
    body: SharedSlice,
    /// Bytes of `body` that were given out; `None`: nothing was, not even the fixed part.
    given: Option<usize>,
}

/// How much of a message was given out when it was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withdrawn {
    Nothing,
    Something,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.large.is_empty()
    }

    /// Bytes that wait.
    pub(crate) fn size(&self) -> usize {
        self.ready.len() + self.large_bytes
    }

    /// A message that fits a frame.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) fn push_small(&mut self, kind: Kind, stream: u64, parts: &[&[u8]]) {
        let size = parts.iter().map(|part| part.len()).sum();
        let head = Head { size, kind, part: Part::Last, stream };
        self.ready.extend_from_slice(&head.encode());
        for part in parts {
            self.ready.extend_from_slice(part);
        }
        if kind == Kind::Call {
            self.ready_calls.push(stream);
        }
    }

    /// A message of any size. Its body must not change until it is sent, or it arrives changed.
    pub(crate) fn push(&mut self, kind: Kind, stream: u64, fixed: &[u8], body: SharedSlice) {
        debug_assert!(fixed.len() <= FIXED_MAX, "no kind has more");
        let size = fixed.len() + body.len();
        if size <= FRAME_MAX {
            let head = Head { size, kind, part: Part::Last, stream };
            self.ready.extend_from_slice(&head.encode());
            self.ready.extend_from_slice(fixed);
            body.append_to(&mut self.ready);
            if kind == Kind::Call {
                self.ready_calls.push(stream);
            }
            return;
        }
        self.large_bytes += body.len();
        self.large.push_back(Large { kind, stream, fixed: fixed.to_vec(), body, given: None });
    }

    /// Takes back what is left of a large message.
    pub(crate) fn withdraw(&mut self, stream: u64) -> Option<Withdrawn> {
        let at = self.large.iter().position(|large| large.stream == stream)?;
        let large = self.large.remove(at)?;
        self.large_bytes -= large.body.len() - large.given.unwrap_or(0);
        Some(if large.given.is_some() { Withdrawn::Something } else { Withdrawn::Nothing })
    }

    /// Calls of which nothing was given out.
    pub(crate) fn unsent_calls(&self) -> impl Iterator<Item = u64> {
        let large = self.large.iter();
        let untouched = large.filter(|large| large.kind == Kind::Call && large.given.is_none());
        self.ready_calls.iter().copied().chain(untouched.map(|large| large.stream))
    }

    /// Appends what is to be sent next to `out`, which is empty.
    pub(crate) fn give(&mut self, out: &mut Vec<u8>) {
        std::mem::swap(out, &mut self.ready);
        self.ready_calls.clear();
        while out.len() < BATCH_MAX
            && let Some(mut large) = self.large.pop_front()
        {
            self.large_bytes -= large.give(out);
            if large.given != Some(large.body.len()) {
                self.large.push_back(large);
            }
        }
    }
}

impl Large {
    /// Appends its next frame, and says how many bytes of the body are in it.
    fn give(&mut self, out: &mut Vec<u8>) -> usize {
        let (kind, fixed): (_, &[u8]) = match self.given {
            None => (self.kind, &self.fixed),
            Some(_) => (Kind::Data, &[]),
        };
        let given = self.given.unwrap_or(0);
        let count = (self.body.len() - given).min(FRAME_MAX - fixed.len());
        let end = given + count;
        let part = if end == self.body.len() { Part::Last } else { Part::More };
        let head = Head { size: fixed.len() + count, kind, part, stream: self.stream };
        out.reserve(HEAD_SIZE + head.size);
        out.extend_from_slice(&head.encode());
        out.extend_from_slice(fixed);
        self.body.slice(given..end).append_to(out);
        self.given = Some(end);
        count
    }
}
