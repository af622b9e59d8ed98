//! Messages: what frames carry, with the limit of every field. A message has a fixed head, by kind,
//! and a body that goes on behind it.

use std::collections::HashSet;

use crate::error::ProtocolError;
use crate::frame::{FRAME_MAX, Kind};

/// Bytes of a node's or a function's name.
pub const NAME_MAX: usize = 64;
/// Functions that an engine may have.
pub const FUNCTIONS_MAX: usize = 4096;
/// Loads in one report: as many as fit a frame.
pub const LOADS_MAX: usize = FRAME_MAX / LOAD_SIZE;
/// Bytes of the reason in a BYE.
pub const REASON_MAX: usize = 256;
/// Bytes of an envelope and a payload at most; a side may allow less.
pub const BLOCK_MAX: usize = ipc::ENVELOPE_MAX + ipc::layout::PAYLOAD_LIMIT as usize;
/// Bytes of the fixed part of a message at most.
pub(crate) const FIXED_MAX: usize = AnswerHead::SIZE;

const FUNCTION_FIXED: usize = 24;
const LOAD_SIZE: usize = 24;

/// A call's fixed part; envelope and payload follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallHead {
    /// Which function, by the number that the engine has announced on this link.
    pub function: u32,
    /// How long the answer may take, in ns.
    pub timeout_ns: u64,
    /// Bytes of the envelope, as `ipc::envelope` encodes it.
    pub envelope_size: u32,
    /// Bytes of the payload.
    pub payload_size: u32,
}

/// Whether a function may have seen a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It provably has not: the call may go to another engine.
    No,
    /// It has, or may have.
    Perhaps,
}

/// An answer's fixed part; envelope and payload follow it. Where the outcome is not `Ok`, the payload
/// is a message for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerHead {
    /// How the call ended.
    pub outcome: ipc::Outcome,
    /// Whether it began.
    pub started: Started,
    /// When to try again, in seconds.
    pub retry_after_s: Option<u32>,
    /// How long it waited for a worker, in ns.
    pub queued_ns: u64,
    /// How long it was on a worker, in ns.
    pub ran_ns: u64,
    /// Bytes of the envelope.
    pub envelope_size: u32,
    /// Bytes of the payload.
    pub payload_size: u32,
}

/// A function as an engine announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Names it in calls and reports of this link. Never used again for another name.
    pub number: u32,
    /// Its name, at most [`NAME_MAX`] bytes.
    pub name: String,
    /// Counts the deployments of the name.
    pub version: u32,
    /// How long a call of it may take, in ns.
    pub timeout_ns: u64,
    /// Whether a call that may have been begun may be begun again elsewhere.
    pub repeat: Repeat,
    /// Calls that the link's shard takes of it at once, queued ones included.
    pub capacity: u32,
}

/// Whether a function says that running a call twice does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It does not say so.
    Never,
    /// `idempotent = true`.
    Idempotent,
}

/// How busy a function is on the shard at the other end of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// As announced.
    pub number: u32,
    /// Whether calls of it can run at all.
    pub state: LoadState,
    /// Calls that wait for a worker.
    pub queued: u32,
    /// Workers on a call.
    pub running: u32,
    /// Workers on a call that waits for calls of its own.
    pub waiting: u32,
    /// Calls that the shard would take beyond those it has.
    pub room: u32,
}

/// Whether a function can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadState {
    /// As far as is known.
    Serving,
    /// Its containers keep dying: calls are refused for a while.
    Broken,
}

/// What comes in on a link, parsed. Bodies are borrowed from the link, or owned if they came in parts.
#[derive(Debug)]
pub enum Message<'a> {
    /// All functions of the engine; those of before that are not in it are gone.
    Functions(Vec<Function>),
    /// Of the functions that have changed since the last one.
    Load(Vec<Load>),
    /// A call.
    Call {
        /// Names it.
        stream: u64,
        /// Its fixed part.
        head: CallHead,
        /// Envelope and payload.
        block: Block<'a>,
    },
    /// The end of a call.
    Answer {
        /// Names the call.
        stream: u64,
        /// Its fixed part.
        head: AnswerHead,
        /// Envelope and payload.
        block: Block<'a>,
    },
    /// Nobody waits for that call any more.
    Cancel {
        /// Names the call.
        stream: u64,
    },
    /// No new calls on this link.
    Draining,
}

/// Bytes of a message's body.
#[derive(Debug)]
pub enum Block<'a> {
    /// In the link's buffer.
    Borrowed(&'a [u8]),
    /// Put together.
    Owned(Vec<u8>),
}

impl Block<'_> {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Block::Borrowed(bytes) => bytes,
            Block::Owned(bytes) => bytes,
        }
    }

    /// The bytes, copied if they are not the caller's yet.
    #[must_use]
    pub fn into_owned(self) -> Vec<u8> {
        match self {
            Block::Borrowed(bytes) => bytes.to_vec(),
            Block::Owned(bytes) => bytes,
        }
    }
}

impl CallHead {
    pub(crate) const SIZE: usize = 24;

    pub(crate) fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[..4].copy_from_slice(&self.function.to_le_bytes());
        out[8..16].copy_from_slice(&self.timeout_ns.to_le_bytes());
        out[16..20].copy_from_slice(&self.envelope_size.to_le_bytes());
        out[20..].copy_from_slice(&self.payload_size.to_le_bytes());
        out
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<CallHead, ProtocolError> {
        let mut fields = Fields { bytes, what: "a call's head" };
        let function = fields.u32()?;
        fields.zero(4)?;
        let timeout_ns = fields.u64()?;
        let (envelope_size, payload_size) = (fields.u32()?, fields.u32()?);
        check_block(envelope_size, payload_size)?;
        Ok(CallHead { function, timeout_ns, envelope_size, payload_size })
    }
}

impl AnswerHead {
    pub(crate) const SIZE: usize = 32;

    pub(crate) fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[0] = self.outcome as u8;
        out[1] = u8::from(self.started == Started::Perhaps);
        out[2] = u8::from(self.retry_after_s.is_some());
        out[4..8].copy_from_slice(&self.retry_after_s.unwrap_or(0).to_le_bytes());
        out[8..16].copy_from_slice(&self.queued_ns.to_le_bytes());
        out[16..24].copy_from_slice(&self.ran_ns.to_le_bytes());
        out[24..28].copy_from_slice(&self.envelope_size.to_le_bytes());
        out[28..].copy_from_slice(&self.payload_size.to_le_bytes());
        out
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<AnswerHead, ProtocolError> {
        const WHAT: &str = "an answer's head";
        let mut fields = Fields { bytes, what: WHAT };
        let outcome = ipc::Outcome::try_from(fields.u8()?);
        let outcome = outcome.map_err(|_| ProtocolError::Malformed(WHAT))?;
        let started = if fields.flag()? { Started::Perhaps } else { Started::No };
        let has_hint = fields.flag()?;
        fields.zero(1)?;
        let hint = fields.u32()?;
        let (queued_ns, ran_ns) = (fields.u64()?, fields.u64()?);
        let (envelope_size, payload_size) = (fields.u32()?, fields.u32()?);
        check_block(envelope_size, payload_size)?;
        let retry_after_s = has_hint.then_some(hint);
        Ok(AnswerHead {
            outcome,
            started,
            retry_after_s,
            queued_ns,
            ran_ns,
            envelope_size,
            payload_size,
        })
    }
}

/// Bytes of the fixed part of messages of a kind.
pub(crate) const fn fixed_size(kind: Kind) -> usize {
    match kind {
        Kind::Call => CallHead::SIZE,
        Kind::Answer => AnswerHead::SIZE,
        _ => 0,
    }
}

/// Bytes behind the fixed part of messages of a kind, at most.
pub(crate) const fn body_max(kind: Kind) -> usize {
    match kind {
        Kind::Call | Kind::Answer => BLOCK_MAX,
        Kind::Functions => FUNCTIONS_MAX * (FUNCTION_FIXED + NAME_MAX),
        Kind::Load => LOADS_MAX * LOAD_SIZE,
        Kind::Bye => REASON_MAX,
        _ => 0,
    }
}

/// The body of FUNCTIONS.
///
/// # Errors
/// More functions, or a longer name, than may be said.
pub fn encode_functions(functions: &[Function], out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    check_count("functions", functions.len(), FUNCTIONS_MAX)?;
    for function in functions {
        check_count("bytes of a function's name", function.name.len(), NAME_MAX)?;
        out.extend_from_slice(&function.number.to_le_bytes());
        out.extend_from_slice(&function.version.to_le_bytes());
        out.extend_from_slice(&function.timeout_ns.to_le_bytes());
        out.extend_from_slice(&function.capacity.to_le_bytes());
        out.push(u8::from(function.repeat == Repeat::Idempotent));
        out.push(u8::try_from(function.name.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(function.name.as_bytes());
    }
    Ok(())
}

pub(crate) fn parse_functions(bytes: &[u8]) -> Result<Vec<Function>, ProtocolError> {
    const WHAT: &str = "a list of functions";
    let mut fields = Fields { bytes, what: WHAT };
    let mut functions = Vec::new();
    let (mut numbers, mut names) = (HashSet::new(), HashSet::new());
    while !fields.bytes.is_empty() {
        check_count("functions", functions.len() + 1, FUNCTIONS_MAX)?;
        let (number, version) = (fields.u32()?, fields.u32()?);
        let (timeout_ns, capacity) = (fields.u64()?, fields.u32()?);
        let repeat = if fields.flag()? { Repeat::Idempotent } else { Repeat::Never };
        let size = usize::from(fields.u8()?);
        fields.zero(2)?;
        let name = fields.take(size)?;
        if !numbers.insert(number) || !names.insert(name) {
            return Err(ProtocolError::Malformed("a list that has a function twice"));
        }
        let name = parse_name(name).ok_or(ProtocolError::Malformed(WHAT))?;
        functions.push(Function { number, name, version, timeout_ns, repeat, capacity });
    }
    Ok(functions)
}

/// The body of LOAD, for at most [`LOADS_MAX`] of them.
pub fn encode_loads(loads: &[Load], out: &mut Vec<u8>) {
    for load in loads {
        let state = u32::from(load.state == LoadState::Broken);
        let words = [load.number, state, load.queued, load.running, load.waiting, load.room];
        for word in words {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
}

pub(crate) fn parse_loads(bytes: &[u8]) -> Result<Vec<Load>, ProtocolError> {
    const WHAT: &str = "a load report";
    check_count("loads", bytes.len() / LOAD_SIZE, LOADS_MAX)?;
    let mut fields = Fields { bytes, what: WHAT };
    let mut loads = Vec::with_capacity(bytes.len() / LOAD_SIZE);
    while !fields.bytes.is_empty() {
        let number = fields.u32()?;
        let state = match fields.u32()? {
            0 => LoadState::Serving,
            1 => LoadState::Broken,
            _ => return Err(ProtocolError::Malformed(WHAT)),
        };
        let (queued, running) = (fields.u32()?, fields.u32()?);
        let (waiting, room) = (fields.u32()?, fields.u32()?);
        loads.push(Load { number, state, queued, running, waiting, room });
    }
    Ok(loads)
}

/// The name of a node or a function: letters, digits, `_`, `.` and `-`.
pub(crate) fn parse_name(bytes: &[u8]) -> Option<String> {
    let fits = (1..=NAME_MAX).contains(&bytes.len());
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
    let text = std::str::from_utf8(bytes).ok()?;
    (fits && bytes.iter().all(is_part)).then(|| text.to_owned())
}

/// The reason in a BYE, for a line of a log: without control characters, and of bounded length.
pub(crate) fn parse_reason(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(REASON_MAX)];
    String::from_utf8_lossy(bytes).escape_debug().take(REASON_MAX).collect()
}

/// What of a reason a BYE has room for: whole characters.
pub(crate) fn encode_reason(reason: &str) -> &[u8] {
    let mut end = reason.len().min(REASON_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason.as_bytes()[..end]
}

fn check_block(envelope_size: u32, payload_size: u32) -> Result<(), ProtocolError> {
    check_count("bytes of an envelope", envelope_size as usize, ipc::ENVELOPE_MAX)?;
    check_count("bytes of a payload", payload_size as usize, ipc::layout::PAYLOAD_LIMIT as usize)
}

pub(crate) fn check_count(what: &'static str, got: usize, max: usize) -> Result<(), ProtocolError> {
    if got <= max {
        return Ok(());
    }
    Err(ProtocolError::OverLimit { what, got: got as u64, max: max as u64 })
}

/// Reads fields off the front of some bytes.
pub(crate) struct Fields<'a> {
    pub(crate) bytes: &'a [u8],
    /// For the error.
    pub(crate) what: &'static str,
}

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, size: usize) -> Result<&'a [u8], ProtocolError> {
        let split = self.bytes.split_at_checked(size);
        let (taken, rest) = split.ok_or(ProtocolError::Malformed(self.what))?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| ProtocolError::Malformed(self.what))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ProtocolError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ProtocolError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ProtocolError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ProtocolError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, ProtocolError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(ProtocolError::Malformed(self.what)),
        }
    }

    pub(crate) fn zero(&mut self, size: usize) -> Result<(), ProtocolError> {
        let zero = self.take(size)?.iter().all(|byte| *byte == 0);
        if zero { Ok(()) } else { Err(ProtocolError::Malformed(self.what)) }
    }
}
