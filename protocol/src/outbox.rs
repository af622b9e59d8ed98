//! Messages on their way out. What fits a frame waits as bytes; what does not is cut, one frame of
//! each in turn, so that nothing small waits behind something large.

use std::rc::Rc;
use std::time::Duration;

use ipc::engine_side::{SharedBlock, SharedSlice};
use reactor::clock::{self, Nanos};

use crate::frame::{FRAME_MAX, HEAD_SIZE, Head, Kind, Part};
use crate::gather::{Gather, Pin, Sink};
use crate::lane::{BEGUN_MAX, FRAME_SIZE_MAX, Given, Lane, Large, copied};
use crate::message::FIXED_MAX;
use crate::reader::{PARTIAL_BYTES_MIN, PARTIAL_MAX};

/// Bytes that may wait in a link before its owner should say no more on it, but for what must be said:
/// a gateway calls elsewhere, an engine ends the link. A message of any size may come on top.
pub const QUEUED_MAX: usize = 64 << 20;
/// How long a message may keep a worker's memory; then the rest of it is copied. As at the door: a peer
/// that reads has taken what it takes at once by then.
pub(crate) const PIN_TIME: Duration = Duration::from_millis(50);

/// Bytes of large messages in one send, and at least one frame: with what the kernel keeps unsent, it is
/// what a new message may find before it.
pub(crate) const BATCH_MAX: usize = 4 * FRAME_SIZE_MAX;
/// Bytes of a body that is not huge. Huge ones take turns with each other, not with the rest.
const LARGE_MAX: usize = 1 << 20;
/// Bytes of huge messages that have begun and not ended.
const HUGE_BYTES_MAX: usize = 128 << 20;
/// Bytes copied out of workers' memory at once: a few milliseconds.
const UNPIN_MAX: usize = 16 << 20;
/// Stream of FUNCTIONS, and of no call. One such message is under way at a time.
const FUNCTIONS_STREAM: u64 = u64::MAX;

// The other side keeps what has begun. One huge message alone is within its limits in any case.
const _: () = assert!(BEGUN_MAX * LARGE_MAX + HUGE_BYTES_MAX <= PARTIAL_BYTES_MIN);
const _: () = assert!(2 * BEGUN_MAX <= PARTIAL_MAX);

#[derive(Debug)]
pub(crate) struct Outbox {
    /// Frames, ready to be sent.
    ready: Vec<u8>,
    /// Calls among those.
    ready_calls: Vec<u64>,
    /// Large ones, and huge ones.
    lanes: [Lane; 2],
    /// Index of the lane that is next.
    turn: usize,
    /// The newest FUNCTIONS, while an older one is under way.
    functions: Option<SharedSlice>,
    /// Bytes that `lanes` and `functions` have not given out.
    large_bytes: usize,
}

/// Where a body lies.
#[derive(Debug)]
pub(crate) enum Body {
    /// Copied, if it may change.
    Slice(SharedSlice),
    /// Its worker waits until it has been read.
    Block(SharedBlock),
}

/// What becomes of bodies that are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bodies {
    Copied,
    Gathered,
}

impl Outbox {
    pub(crate) fn new() -> Outbox {
        Outbox {
            ready: Vec::new(),
            ready_calls: Vec::new(),
            lanes: [Lane::new(BEGUN_MAX * LARGE_MAX), Lane::new(HUGE_BYTES_MAX)],
            turn: 0,
            functions: None,
            large_bytes: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.lanes.iter().all(Lane::is_empty)
    }

    /// Bytes that wait.
    pub(crate) fn size(&self) -> usize {
        self.ready.len() + self.large_bytes
    }

    /// Of those, bytes of messages that do not fit a frame.
    #[cfg(test)]
    pub(crate) fn large_size(&self) -> usize {
        self.large_bytes
    }

    /// A message that fits a frame.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) fn push_small(&mut self, kind: Kind, stream: u64, body: &[u8]) {
        let head = Head { size: body.len(), kind, part: Part::Last, stream };
        self.ready.extend_from_slice(&head.encode());
        self.ready.extend_from_slice(body);
    }

    /// A message of any size.
    pub(crate) fn push(&mut self, kind: Kind, stream: u64, fixed: &[u8], body: Body) {
        debug_assert!(fixed.len() <= FIXED_MAX, "no kind has more");
        let bytes = body.bytes();
        let size = fixed.len() + bytes.len();
        if size <= FRAME_MAX {
            let head = Head { size, kind, part: Part::Last, stream };
            self.ready.reserve(HEAD_SIZE + size);
            self.ready.extend_from_slice(&head.encode());
            self.ready.extend_from_slice(fixed);
            bytes.append_to(&mut self.ready);
            if kind == Kind::Call {
                self.ready_calls.push(stream);
            }
            return;
        }
        let (bytes, pin) = body.keep();
        self.push_large(Large::new(kind, stream, fixed, bytes, pin));
    }

    /// FUNCTIONS. What has not begun yet is replaced; one that has is finished before.
    pub(crate) fn push_functions(&mut self, encoded: Vec<u8>) {
        let body = SharedBlock::from_bytes(encoded, 0).whole();
        let under_way = self.lanes.iter().flat_map(Lane::all);
        let given = { under_way }.find(|large| large.kind == Kind::Functions).map(Large::given);
        match given {
            Some(Given::Something) => {
                let replaced = self.functions.replace(body.clone());
                self.large_bytes += body.len();
                self.large_bytes -= replaced.map_or(0, |replaced| replaced.len());
                return;
            }
            Some(Given::Nothing) => {
                self.withdraw(FUNCTIONS_STREAM);
            }
            None => {}
        }
        self.push(Kind::Functions, FUNCTIONS_STREAM, &[], Body::Slice(body));
    }

    /// Whether a part of FUNCTIONS waits.
    pub(crate) fn is_announcing(&self) -> bool {
        let is_list = |large: &Large| large.kind == Kind::Functions;
        self.functions.is_some() || self.lanes.iter().flat_map(Lane::all).any(is_list)
    }

    /// Takes back what is left of a large message.
    pub(crate) fn withdraw(&mut self, stream: u64) -> Option<Given> {
        let large = self.lanes.iter_mut().find_map(|lane| lane.remove(stream))?;
        self.large_bytes -= large.left();
        Some(large.given())
    }

    /// Takes back what is left of all large messages.
    pub(crate) fn withdraw_all(&mut self) {
        self.lanes.iter_mut().for_each(Lane::clear);
        self.functions = None;
        self.large_bytes = 0;
    }

    /// Calls of which nothing was given out.
    pub(crate) fn unsent_calls(&self) -> impl Iterator<Item = u64> {
        let large = self.lanes.iter().flat_map(Lane::all);
        let is_unsent =
            |large: &&Large| large.kind == Kind::Call && large.given() == Given::Nothing;
        let large = large.filter(is_unsent).map(|large| large.stream);
        self.ready_calls.iter().copied().chain(large)
    }

    /// Puts what is to be sent next into `out`, which is empty, and behind it what is returned.
    pub(crate) fn give(&mut self, out: &mut Vec<u8>, bodies: Bodies) -> Option<Gather> {
        std::mem::swap(out, &mut self.ready);
        self.ready_calls.clear();
        let mut room = BATCH_MAX.saturating_sub(out.len()).max(FRAME_SIZE_MAX);
        let mut gather = Gather::default();
        while room >= FRAME_SIZE_MAX {
            let sink = match bodies {
                Bodies::Copied => Sink::Copied(out),
                Bodies::Gathered => Sink::Gathered(&mut gather),
            };
            let Some(size) = self.give_frame(sink) else { break };
            room -= size.min(room);
        }
        (gather.size() > 0).then_some(gather)
    }

    /// When the first worker has waited for long enough.
    pub(crate) fn next_unpin(&self) -> Option<Nanos> {
        let all = self.lanes.iter().flat_map(Lane::all);
        all.filter_map(|large| Some(large.pin()?.since + PIN_TIME)).min()
    }

    /// Copies what has kept a worker for too long, or some of it.
    pub(crate) fn unpin(&mut self, now: Nanos) {
        let mut copied = 0;
        for large in self.lanes.iter_mut().flat_map(Lane::all_mut) {
            if copied >= UNPIN_MAX {
                return;
            }
            if large.pin().is_some_and(|pin| pin.since + PIN_TIME <= now) {
                copied += large.left();
                large.unpin();
            }
        }
    }

    fn push_large(&mut self, large: Large) {
        self.large_bytes += large.left();
        let is_huge = large.left() > LARGE_MAX;
        self.lanes[usize::from(is_huge)].push(large);
    }

    /// The next frame of a lane, the two in turn: bytes of it.
    fn give_frame(&mut self, mut sink: Sink<'_>) -> Option<usize> {
        self.turn ^= 1;
        let turn = match self.lanes[self.turn].give(&mut sink) {
            Some(turn) => turn,
            None => self.lanes[self.turn ^ 1].give(&mut sink)?,
        };
        self.large_bytes -= turn.body_size;
        if turn.ended == Some(Kind::Functions)
            && let Some(newest) = self.functions.take()
        {
            self.large_bytes -= newest.len();
            self.push(Kind::Functions, FUNCTIONS_STREAM, &[], Body::Slice(newest));
        }
        Some(turn.frame_size)
    }
}

impl Body {
    fn bytes(&self) -> SharedSlice {
        match self {
            Body::Slice(slice) => slice.clone(),
            Body::Block(block) => block.whole(),
        }
    }

    /// The bytes where they will not change, or what keeps them from it.
    fn keep(self) -> (SharedSlice, Option<Pin>) {
        match self {
            Body::Slice(slice) if slice.is_shared() => (copied(&slice), None),
            Body::Slice(slice) => (slice, None),
            Body::Block(block) => {
                let slice = block.whole();
                let is_shared = slice.is_shared();
                let pin = || Pin { _block: Rc::new(block), since: clock::now() };
                (slice, is_shared.then(pin))
            }
        }
    }
}
