//! Messages that do not fit a frame, on their way out: one frame of each in turn. How many have begun
//! at once is bounded, since the other side keeps what has begun and not ended.

use std::collections::VecDeque;

use ipc::engine_side::{SharedBlock, SharedSlice};

use crate::frame::{FRAME_MAX, HEAD_SIZE, Head, Kind, Part};
use crate::gather::{Pin, Sink};
use crate::message::FIXED_MAX;

/// Messages that have begun in one lane. Those beyond gain nothing by a smaller share each.
pub(crate) const BEGUN_MAX: usize = 64;

/// Messages of one range of sizes.
#[derive(Debug)]
pub(crate) struct Lane {
    /// In turn: the first one is next.
    begun: VecDeque<Large>,
    /// First come, first begun.
    waiting: VecDeque<Large>,
    /// Bytes of all bodies in `begun`.
    begun_bytes: usize,
    /// Those at most, unless one alone has more.
    bytes_max: usize,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Large {
    pub(crate) kind: Kind,
    pub(crate) stream: u64,
    fixed: [u8; FIXED_MAX],
    fixed_size: usize,
    /// Bytes of the body.
    size: usize,
    /// Of the body, what was not given out.
    rest: SharedSlice,
    /// Where that lies in a worker's memory.
    pin: Option<Pin>,
    given: Given,
}

/// How much of a message was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    Nothing,
    Something,
}

/// What a turn led to.
pub(crate) struct Turn {
    /// Bytes of the frame that was given out.
    pub(crate) frame_size: usize,
    /// Bytes of the body in it.
    pub(crate) body_size: usize,
    /// The kind of the message that ended with it.
    pub(crate) ended: Option<Kind>,
}

impl Lane {
    pub(crate) fn new(bytes_max: usize) -> Lane {
        let (begun, waiting) = (VecDeque::new(), VecDeque::new());
        Lane { begun, waiting, begun_bytes: 0, bytes_max }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.waiting.is_empty()
    }

    pub(crate) fn push(&mut self, large: Large) {
        self.waiting.push_back(large);
    }

    pub(crate) fn clear(&mut self) {
        *self = Lane::new(self.bytes_max);
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Large> {
        self.begun.iter().chain(&self.waiting)
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Large> {
        self.begun.iter_mut().chain(&mut self.waiting)
    }

    pub(crate) fn remove(&mut self, stream: u64) -> Option<Large> {
        if let Some(at) = self.begun.iter().position(|large| large.stream == stream) {
            let large = self.begun.remove(at)?;
            self.begun_bytes -= large.size;
            return Some(large);
        }
        let at = self.waiting.iter().position(|large| large.stream == stream)?;
        self.waiting.remove(at)
    }

    /// Gives out the next frame, if there is one.
    pub(crate) fn give(&mut self, sink: &mut Sink<'_>) -> Option<Turn> {
        self.begin();
        let mut large = self.begun.pop_front()?;
        let (frame_size, body_size) = large.give(sink);
        let ended = large.rest.is_empty().then_some(large.kind);
        if ended.is_some() {
            self.begun_bytes -= large.size;
        } else {
            self.begun.push_back(large);
        }
        Some(Turn { frame_size, body_size, ended })
    }

    fn begin(&mut self) {
        while let Some(next) = self.waiting.front()
            && self.begun.len() < BEGUN_MAX
            && (self.begun.is_empty() || self.begun_bytes + next.size <= self.bytes_max)
            && let Some(next) = self.waiting.pop_front()
        {
            self.begun_bytes += next.size;
            self.begun.push_back(next);
        }
    }
}

impl Large {
    pub(crate) fn new(
        kind: Kind,
        stream: u64,
        fixed: &[u8],
        body: SharedSlice,
        pin: Option<Pin>,
    ) -> Large {
        let mut large = Large {
            kind,
            stream,
            fixed: [0; FIXED_MAX],
            fixed_size: fixed.len(),
            size: body.len(),
            rest: body,
            pin,
            given: Given::Nothing,
        };
        large.fixed[..fixed.len()].copy_from_slice(fixed);
        large
    }

    pub(crate) fn given(&self) -> Given {
        self.given
    }

    /// Bytes of the body that were not given out.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn pin(&self) -> Option<&Pin> {
        self.pin.as_ref()
    }

    /// Copies what is left out of the worker's memory.
    pub(crate) fn unpin(&mut self) {
        if self.pin.is_some() {
            self.rest = copied(&self.rest);
            self.pin = None;
        }
    }

    /// Gives out its next frame, and says how many bytes it has, and how many of the body.
    fn give(&mut self, sink: &mut Sink<'_>) -> (usize, usize) {
        let (kind, fixed_size) = match self.given {
            Given::Nothing => (self.kind, self.fixed_size),
            Given::Something => (Kind::Data, 0),
        };
        let left = self.rest.len();
        let count = left.min(FRAME_MAX - fixed_size);
        let part = if count == left { Part::Last } else { Part::More };
        let head = Head { size: fixed_size + count, kind, part, stream: self.stream };
        sink.bytes(&head.encode());
        sink.bytes(&self.fixed[..fixed_size]);
        sink.body(self.rest.slice(0..count), self.pin.as_ref());
        self.rest = self.rest.slice(count..left);
        self.given = Given::Something;
        (HEAD_SIZE + head.size, count)
    }
}

/// The same bytes in memory of our own.
pub(crate) fn copied(slice: &SharedSlice) -> SharedSlice {
    let mut bytes = Vec::with_capacity(slice.len());
    slice.append_to(&mut bytes);
    SharedBlock::from_bytes(bytes, 0).whole()
}

/// Bytes of one frame on the wire at most.
pub(crate) const FRAME_SIZE_MAX: usize = HEAD_SIZE + FRAME_MAX;
