//! The 64-byte messages of a lane, and what they name.
//!
//! Words of a descriptor, little-endian fields from the low bits up; what a kind does not use is
//! zero, and a decoder refuses anything else, so a message has exactly one form:
//!
//! | word | bits | field |
//! |---|---|---|
//! | 0 | 0-7, 8-15, 16-23, 24-31, 32-63 | kind, outcome, region, flags, depth or token |
//! | 1 | 0-63 | call |
//! | 2 | 0-63 | deadline, ns of `CLOCK_MONOTONIC` |
//! | 3 | 0-63 | block: offset in the region |
//! | 4 | 0-31, 32-63 | block: bytes of envelope, bytes of payload |
//! | 5 | 0-31 | released token, if bit 0 of flags is set |
//! | 6 | 0-31 | of a `Dispatch`: results read; of a `Complete`: ns that the call ran |
//! | 5 | 32-63 | of a `Complete`: calls that were measured, zero for none |
//! | 7 | 0-31, 32-63 | of a `Complete` with measured calls: ns of CPU a call, ns a call was idle |

use core::num::NonZeroU32;

use crate::outcome::{Outcome, UnknownOutcome};
use crate::sync::SLOT_WORDS;

const DISPATCH: u8 = 1;
const ANSWER: u8 = 2;
const CANCEL: u8 = 3;
const RETIRE: u8 = 4;
const STARTED: u8 = 0x81;
const CALL: u8 = 0x82;
const COMPLETE: u8 = 0x83;
const RELEASE: u8 = 0x84;
const RETIRED: u8 = 0x85;
const DECLINE: u8 = 0x86;

const FLAG_RELEASED: u8 = 1;

/// Names a call across the channel: opaque to workers, checked by the engine in its own table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(pub u64);

/// Which of a lane's memories a block lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Region {
    /// In A, written by the engine.
    Small = 0,
    /// In B, written by the engine: for what is too large for `Small`.
    Large = 1,
    /// In B, written by the worker.
    Outbound = 2,
}

/// Bytes that travel with a message: the envelope, and the payload right behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The memory it lies in.
    pub region: Region,
    /// Where, from the start of the lane's region.
    pub offset: u64,
    /// Bytes of the envelope.
    pub envelope_size: u32,
    /// Bytes of the payload.
    pub payload_size: u32,
}

/// What the calls of a worker cost on average since it was last measured. Time in which the worker
/// could have run and its core was taken is in neither figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// How many calls that were.
    pub calls: NonZeroU32,
    /// CPU time a call, its wake-up included, in ns.
    pub cpu_ns: u32,
    /// Time a call in which it ran nothing: it slept, or waited for answers or for I/O; in ns.
    pub idle_ns: u32,
}

/// What an engine says to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToWorker {
    /// Run this call, once those dispatched before it are completed.
    Dispatch {
        /// To be named in `Complete`.
        call: CallId,
        /// Internal calls above this one.
        depth: u16,
        /// On `CLOCK_MONOTONIC`.
        deadline_ns: u64,
        /// How many of the lane's `Complete` blocks are free again, counted from its first one.
        /// Wraps around.
        results_read: u32,
        /// A request.
        block: Block,
    },
    /// The answer to the worker's `Call` of that token, whose block is free again.
    Answer {
        /// The worker's.
        token: u32,
        /// How the call ended.
        outcome: Outcome,
        /// A reply; the worker's until it releases the token.
        block: Block,
    },
    /// Nobody waits for this call any more.
    Cancel {
        /// The call.
        call: CallId,
    },
    /// Say `Retired` and end.
    Retire,
}

/// What a worker says to an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToEngine {
    /// Ready for the first `Dispatch`.
    Started,
    /// An internal call.
    Call {
        /// The worker's name for it, not in use.
        token: u32,
        /// On `CLOCK_MONOTONIC`; `u64::MAX` for none of its own.
        deadline_ns: u64,
        /// As in `Release`.
        released: Option<u32>,
        /// The function's name and the request; the engine's until it answers.
        block: Block,
    },
    /// The dispatched call ended.
    Complete {
        /// As dispatched.
        call: CallId,
        /// How it ended.
        outcome: Outcome,
        /// As in `Release`.
        released: Option<u32>,
        /// How long the function ran, its waits included; the most there is for longer.
        ran_ns: u32,
        /// What the worker's calls cost lately, measured now and then.
        usage: Option<Usage>,
        /// The reply; the engine's until a `Dispatch` counts it as read, or until `Retire`.
        block: Block,
    },
    /// A dispatched call that was not begun, because the worker waits for answers within an earlier
    /// one: another worker may run it. Its request's block is free again.
    Decline {
        /// As dispatched.
        call: CallId,
    },
    /// The answer to this token is not needed any more: its block and the token are free.
    Release {
        /// The worker's.
        token: u32,
    },
    /// The last message of a lane: nobody touches it until it is opened again.
    Retired,
}

/// A message as it lies in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Descriptor(pub [u64; SLOT_WORDS]);

/// Words that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// Not a kind of this direction.
    #[error("{0:#x} is no kind of message in this direction")]
    Kind(u8),
    /// Not an outcome.
    #[error(transparent)]
    Outcome(#[from] UnknownOutcome),
    /// Not a region that the sender may name.
    #[error("{0} is no region of messages in this direction")]
    Region(u8),
    /// A field that this kind does not use is not zero, or a value is too wide.
    #[error("a message of kind {kind:#x} has bits where it has no field")]
    NotCanonical {
        /// The kind.
        kind: u8,
    },
}

impl CallId {
    /// From a table's slot and that slot's generation.
    #[must_use]
    pub const fn new(slot: u32, generation: u32) -> CallId {
        CallId((generation as u64) << 32 | slot as u64)
    }

    /// The slot in the engine's table.
    #[must_use]
    pub const fn slot(self) -> u32 {
        low(self.0)
    }

    /// The slot's generation.
    #[must_use]
    pub const fn generation(self) -> u32 {
        high(self.0)
    }
}

impl Block {
    /// A block of no bytes, which takes no memory.
    #[must_use]
    pub const fn empty(region: Region) -> Block {
        Block { region, offset: 0, envelope_size: 0, payload_size: 0 }
    }

    /// Bytes of envelope and payload together.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.envelope_size as usize + self.payload_size as usize
    }
}

impl ToWorker {
    /// As it goes into a slot.
    #[must_use]
    #[inline]
    pub fn encode(&self) -> Descriptor {
        match *self {
            ToWorker::Dispatch { call, depth, deadline_ns, results_read, block } => {
                let head = Head { kind: DISPATCH, value: u32::from(depth), ..Head::default() };
                with_count(encode(head, call, deadline_ns, Some(block), None), results_read)
            }
            ToWorker::Answer { token, outcome, block } => {
                let head =
                    Head { kind: ANSWER, outcome: outcome as u8, value: token, ..Head::default() };
                encode(head, CallId(0), 0, Some(block), None)
            }
            ToWorker::Cancel { call } => encode(Head::of(CANCEL), call, 0, None, None),
            ToWorker::Retire => encode(Head::of(RETIRE), CallId(0), 0, None, None),
        }
    }

    /// From a slot's words.
    #[inline]
    pub fn decode(descriptor: &Descriptor) -> Result<ToWorker, DescriptorError> {
        let head = Head::read(descriptor);
        let words = &descriptor.0;
        let inbound = |region| match region {
            0 => Ok(Region::Small),
            1 => Ok(Region::Large),
            other => Err(DescriptorError::Region(other)),
        };
        let message = match head.kind {
            DISPATCH => ToWorker::Dispatch {
                call: CallId(words[1]),
                depth: (head.value & 0xffff) as u16,
                deadline_ns: words[2],
                results_read: low(words[6]),
                block: block(words, inbound(head.region)?),
            },
            ANSWER => ToWorker::Answer {
                token: head.value,
                outcome: Outcome::try_from(head.outcome)?,
                block: block(words, inbound(head.region)?),
            },
            CANCEL => ToWorker::Cancel { call: CallId(words[1]) },
            RETIRE => ToWorker::Retire,
            kind => return Err(DescriptorError::Kind(kind)),
        };
        canonical(head.kind, descriptor, &message.encode()).map(|()| message)
    }
}

impl ToEngine {
    /// As it goes into a slot.
    #[must_use]
    #[inline]
    pub fn encode(&self) -> Descriptor {
        match *self {
            ToEngine::Started => encode(Head::of(STARTED), CallId(0), 0, None, None),
            ToEngine::Call { token, deadline_ns, released, block } => {
                let head = Head { kind: CALL, value: token, ..Head::default() };
                encode(head, CallId(0), deadline_ns, Some(block), released)
            }
            ToEngine::Complete { call, outcome, released, ran_ns, usage, block } => {
                let head = Head { kind: COMPLETE, outcome: outcome as u8, ..Head::default() };
                let message = with_count(encode(head, call, 0, Some(block), released), ran_ns);
                with_usage(message, usage)
            }
            ToEngine::Decline { call } => encode(Head::of(DECLINE), call, 0, None, None),
            ToEngine::Release { token } => {
                let head = Head { kind: RELEASE, value: token, ..Head::default() };
                encode(head, CallId(0), 0, None, None)
            }
            ToEngine::Retired => encode(Head::of(RETIRED), CallId(0), 0, None, None),
        }
    }

    /// From a slot's words, which the engine has copied: they are a stranger's.
    #[inline]
    pub fn decode(descriptor: &Descriptor) -> Result<ToEngine, DescriptorError> {
        let head = Head::read(descriptor);
        let words = &descriptor.0;
        let outbound = |region| match region {
            2 => Ok(Region::Outbound),
            other => Err(DescriptorError::Region(other)),
        };
        let released = (head.flags & FLAG_RELEASED != 0).then_some(low(words[5]));
        let message = match head.kind {
            STARTED => ToEngine::Started,
            CALL => ToEngine::Call {
                token: head.value,
                deadline_ns: words[2],
                released,
                block: block(words, outbound(head.region)?),
            },
            COMPLETE => ToEngine::Complete {
                call: CallId(words[1]),
                outcome: Outcome::try_from(head.outcome)?,
                released,
                ran_ns: low(words[6]),
                usage: NonZeroU32::new(high(words[5])).map(|calls| Usage {
                    calls,
                    cpu_ns: low(words[7]),
                    idle_ns: high(words[7]),
                }),
                block: block(words, outbound(head.region)?),
            },
            DECLINE => ToEngine::Decline { call: CallId(words[1]) },
            RELEASE => ToEngine::Release { token: head.value },
            RETIRED => ToEngine::Retired,
            kind => return Err(DescriptorError::Kind(kind)),
        };
        canonical(head.kind, descriptor, &message.encode()).map(|()| message)
    }
}

/// Word 0, taken apart.
#[derive(Default)]
struct Head {
    kind: u8,
    outcome: u8,
    region: u8,
    flags: u8,
    value: u32,
}

impl Head {
    const fn of(kind: u8) -> Head {
        Head { kind, outcome: 0, region: 0, flags: 0, value: 0 }
    }

    #[inline]
    fn read(descriptor: &Descriptor) -> Head {
        let [kind, outcome, region, flags, ..] = descriptor.0[0].to_le_bytes();
        Head { kind, outcome, region, flags, value: high(descriptor.0[0]) }
    }
}

#[inline]
fn encode(
    mut head: Head,
    call: CallId,
    deadline_ns: u64,
    block: Option<Block>,
    released: Option<u32>,
) -> Descriptor {
    let (mut offset, mut sizes) = (0, 0);
    if let Some(block) = block {
        head.region = block.region as u8;
        offset = block.offset;
        sizes = u64::from(block.payload_size) << 32 | u64::from(block.envelope_size);
    }
    if released.is_some() {
        head.flags |= FLAG_RELEASED;
    }
    let word = u64::from(head.value) << 32
        | u64::from(u32::from_le_bytes([head.kind, head.outcome, head.region, head.flags]));
    let released = u64::from(released.unwrap_or(0));
    Descriptor([word, call.0, deadline_ns, offset, sizes, released, 0, 0])
}

#[inline]
fn with_count(mut descriptor: Descriptor, count: u32) -> Descriptor {
    descriptor.0[6] = u64::from(count);
    descriptor
}

#[inline]
fn with_usage(mut descriptor: Descriptor, usage: Option<Usage>) -> Descriptor {
    if let Some(Usage { calls, cpu_ns, idle_ns }) = usage {
        descriptor.0[5] |= u64::from(calls.get()) << 32;
        descriptor.0[7] = u64::from(idle_ns) << 32 | u64::from(cpu_ns);
    }
    descriptor
}

#[inline]
fn block(words: &[u64; SLOT_WORDS], region: Region) -> Block {
    let (envelope_size, payload_size) = (low(words[4]), high(words[4]));
    Block { region, offset: words[3], envelope_size, payload_size }
}

#[inline]
fn canonical(kind: u8, got: &Descriptor, want: &Descriptor) -> Result<(), DescriptorError> {
    // Word by word, in registers: `==` would call memcmp, which waits for the slot's stores.
    let difference = got.0.iter().zip(want.0).fold(0, |bits, (got, want)| bits | (got ^ want));
    if difference == 0 { Ok(()) } else { Err(DescriptorError::NotCanonical { kind }) }
}

const fn low(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}
