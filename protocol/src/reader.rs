//! From bytes to messages: takes frames as they come, puts together what was cut, and bounds what a
//! peer can make us keep.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::{LinkError, ProtocolError};
use crate::frame::{FRAME_MAX, HEAD_SIZE, Head, Kind, Part};
use crate::message::{
    self, AnswerHead, Block, CallHead, FIXED_MAX, Message, parse_functions, parse_loads,
};
use crate::side::Side;

/// Memory reserved for a message beyond twice what of it has come.
const RESERVED_MAX: usize = 64 * 1024;
/// Bytes in the buffer at which what is done with makes room, and that are kept while it is empty.
const BUFFER_MAX: usize = 64 * 1024;
/// Messages that may have begun and not ended. A sender keeps well below.
pub(crate) const PARTIAL_MAX: usize = 256;
/// Bytes of all of those, as announced, that any limits allow.
pub(crate) const PARTIAL_BYTES_MIN: usize = 256 << 20;

/// What a peer may make us keep.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one payload.
    pub payload_max: u32,
    /// Messages that have begun and not ended.
    pub partial_max: usize,
    /// Bytes of all of those, as announced. Memory is taken only as they come.
    pub partial_bytes_max: usize,
}

impl Limits {
    /// For payloads of that size: the peer may send as many large ones at once as fit 256 MiB, or four
    /// if those are more. A peer that is a [`crate::Link`] keeps within them.
    #[must_use]
    pub fn for_payloads(payload_max: u32) -> Limits {
        let size = payload_max as usize + ipc::ENVELOPE_MAX;
        let partial_bytes_max = PARTIAL_BYTES_MIN.max(4 * size);
        Limits { payload_max, partial_max: PARTIAL_MAX, partial_bytes_max }
    }
}

/// From bytes to messages, without any connection: bytes are pushed in as they come, messages taken
/// out until there is none. With that its memory is bounded by [`Limits`], what one push brings, and a
/// frame.
#[derive(Debug)]
pub struct Reader {
    side: Side,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are done with.
    start: usize,
    partial: HashMap<u64, Partial>,
    /// Bytes that the messages in `partial` will have.
    partial_bytes: usize,
    /// The last PING that was not answered yet: a peer that asks more often gets fewer answers.
    ping: Option<u64>,
    limits: Limits,
}

/// A whole message, not looked into.
#[derive(Debug)]
struct Raw<'a> {
    kind: Kind,
    stream: u64,
    fixed: Fixed,
    body: Block<'a>,
}

/// The fixed part of a message.
#[derive(Clone, Copy, Debug)]
enum Fixed {
    None,
    Call(CallHead),
    Answer(AnswerHead),
}

#[derive(Debug)]
struct Partial {
    kind: Kind,
    fixed: Fixed,
    size: Size,
    body: Vec<u8>,
}

/// Bytes that a body has.
#[derive(Clone, Copy, Debug)]
enum Size {
    Exactly(usize),
    AtMost(usize),
}

/// What one frame led to.
enum Progress {
    /// A message in the buffer.
    Whole(Fixed, Range<usize>),
    /// A message that was put together.
    Assembled(Partial),
    /// None yet.
    Part,
}

impl Reader {
    /// Reads what comes to this side.
    #[must_use]
    pub fn new(side: Side, limits: Limits) -> Reader {
        Reader {
            side,
            buffer: Vec::new(),
            start: 0,
            partial: HashMap::new(),
            partial_bytes: 0,
            ping: None,
            limits,
        }
    }

    /// Takes bytes in, behind those that are there.
    pub fn push(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len()).extend_from_slice(bytes);
    }

    /// The next message, if all of it has come. To be called until there is none, which includes the
    /// answer to a PING ([`Reader::take_ping`]).
    ///
    /// # Errors
    /// The peer broke the protocol, or said BYE: nothing that comes behind it means anything.
    pub fn next_message(&mut self) -> Result<Option<Message<'_>>, LinkError> {
        self.next()?.map(Raw::parse).transpose()
    }

    /// The PING that is to be answered.
    pub fn take_ping(&mut self) -> Option<u64> {
        self.ping.take()
    }

    /// Messages that have begun and not ended, and bytes that they will have.
    #[cfg(test)]
    pub(crate) fn unfinished(&self) -> (usize, usize) {
        (self.partial.len(), self.partial_bytes)
    }

    /// The buffer, to be appended to by `size`.
    pub(crate) fn make_room(&mut self, size: usize) -> &mut Vec<u8> {
        if self.start == self.buffer.len() {
            self.start = 0;
            if self.buffer.capacity() > BUFFER_MAX {
                self.buffer = Vec::new();
            } else {
                self.buffer.clear();
            }
        } else if self.buffer.len() + size > BUFFER_MAX {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        &mut self.buffer
    }

    /// PING and PONG are no messages, and a CANCEL is none to a gateway.
    fn next(&mut self) -> Result<Option<Raw<'_>>, ProtocolError> {
        loop {
            let Some(head) = self.buffer[self.start..].first_chunk::<HEAD_SIZE>() else {
                return Ok(None);
            };
            let head = Head::parse(head)?;
            if !self.side.takes(head.kind) {
                return Err(ProtocolError::Unexpected(head.kind.name()));
            }
            let from = self.start + HEAD_SIZE;
            let body = from..from + head.size;
            if self.buffer.len() < body.end {
                return Ok(None);
            }
            self.start = body.end;
            let Head { kind, stream, .. } = head;
            match self.take(head, body)? {
                Progress::Part => {}
                Progress::Whole(fixed, range) => {
                    let body = Block::Borrowed(&self.buffer[range]);
                    return Ok(Some(Raw { kind, stream, fixed, body }));
                }
                Progress::Assembled(Partial { kind, fixed, body, .. }) => {
                    return Ok(Some(Raw { kind, stream, fixed, body: Block::Owned(body) }));
                }
            }
        }
    }

    fn take(&mut self, head: Head, body: Range<usize>) -> Result<Progress, ProtocolError> {
        match head.kind {
            _ if head.part == Part::More && head.size != FRAME_MAX => {
                Err(ProtocolError::Malformed("a frame that is not full, nor the last"))
            }
            Kind::Data => self.go_on(head, body),
            Kind::Ping | Kind::Pong => {
                message::check_count("bytes of a ping", head.size, 0)?;
                if head.kind == Kind::Ping {
                    self.ping = Some(head.stream);
                }
                Ok(Progress::Part)
            }
            Kind::Cancel => {
                message::check_count("bytes of a cancel", head.size, 0)?;
                self.forget(head.stream);
                // An answer that will not end concerns nobody but its reader.
                let concerns_owner = self.side == Side::Engine;
                Ok(if concerns_owner { Progress::Whole(Fixed::None, body) } else { Progress::Part })
            }
            // These fit a frame, and belong to no stream.
            Kind::Load | Kind::Draining | Kind::Bye => self.begin(head, body),
            _ if self.partial.contains_key(&head.stream) => {
                Err(ProtocolError::StreamBusy(head.stream))
            }
            _ => self.begin(head, body),
        }
    }

    fn begin(&mut self, head: Head, range: Range<usize>) -> Result<Progress, ProtocolError> {
        let bytes = &self.buffer[range.clone()];
        let split = bytes.split_at_checked(message::fixed_size(head.kind));
        let (fixed, body) = split.ok_or(ProtocolError::Malformed("a message's head"))?;
        let fixed = Fixed::parse(head.kind, fixed)?;
        let size = fixed.body_size(head.kind, &self.limits)?;
        size.check(body.len(), head.part)?;
        if head.part == Part::Last {
            return Ok(Progress::Whole(fixed, range.end - body.len()..range.end));
        }
        message::check_count(
            "unfinished messages",
            self.partial.len() + 1,
            self.limits.partial_max,
        )?;
        let bytes_max = self.limits.partial_bytes_max;
        let partial_bytes = self.partial_bytes + size.most();
        message::check_count("bytes of unfinished messages", partial_bytes, bytes_max)?;
        self.partial_bytes = partial_bytes;
        let mut start = Vec::with_capacity(size.most().min(RESERVED_MAX));
        start.extend_from_slice(body);
        let partial = Partial { kind: head.kind, fixed, size, body: start };
        self.partial.insert(head.stream, partial);
        Ok(Progress::Part)
    }

    fn go_on(&mut self, head: Head, range: Range<usize>) -> Result<Progress, ProtocolError> {
        let stream = head.stream;
        let partial = self.partial.get_mut(&stream);
        let partial = partial.ok_or(ProtocolError::UnknownStream(stream))?;
        partial.size.check(partial.body.len() + range.len(), head.part)?;
        partial.append(&self.buffer[range]);
        match head.part {
            Part::More => Ok(Progress::Part),
            Part::Last => {
                let whole = self.forget(stream).ok_or(ProtocolError::UnknownStream(stream))?;
                Ok(Progress::Assembled(whole))
            }
        }
    }

    fn forget(&mut self, stream: u64) -> Option<Partial> {
        let partial = self.partial.remove(&stream)?;
        self.partial_bytes -= partial.size.most();
        Some(partial)
    }
}

impl Partial {
    /// Takes memory in proportion to what has come, whatever was announced.
    fn append(&mut self, bytes: &[u8]) {
        let had = self.body.len();
        if had + bytes.len() > self.body.capacity() {
            let left = self.size.most() - had;
            self.body.reserve_exact(left.min(had.max(bytes.len())));
        }
        self.body.extend_from_slice(bytes);
    }
}

impl<'a> Raw<'a> {
    fn parse(self) -> Result<Message<'a>, LinkError> {
        let Raw { kind, stream, fixed, body: block } = self;
        match (kind, fixed) {
            (Kind::Functions, _) => Ok(Message::Functions(parse_functions(block.bytes())?)),
            (Kind::Load, _) => Ok(Message::Load(parse_loads(block.bytes())?)),
            (Kind::Answer, Fixed::Answer(head)) => Ok(Message::Answer { stream, head, block }),
            (Kind::Call, Fixed::Call(head)) => Ok(Message::Call { stream, head, block }),
            (Kind::Cancel, _) => Ok(Message::Cancel { stream }),
            (Kind::Draining, _) => Ok(Message::Draining),
            (Kind::Bye, _) => Err(LinkError::Bye(message::parse_reason(block.bytes()))),
            (kind, _) => Err(ProtocolError::Unexpected(kind.name()).into()),
        }
    }
}

impl Fixed {
    fn parse(kind: Kind, bytes: &[u8]) -> Result<Fixed, ProtocolError> {
        debug_assert!(bytes.len() <= FIXED_MAX, "no kind has more");
        match kind {
            Kind::Call => CallHead::parse(bytes).map(Fixed::Call),
            Kind::Answer => AnswerHead::parse(bytes).map(Fixed::Answer),
            _ => Ok(Fixed::None),
        }
    }

    fn body_size(self, kind: Kind, limits: &Limits) -> Result<Size, ProtocolError> {
        let (envelope, payload) = match self {
            Fixed::None => return Ok(Size::AtMost(message::body_max(kind))),
            Fixed::Call(head) => (head.envelope_size, head.payload_size),
            Fixed::Answer(head) => (head.envelope_size, head.payload_size),
        };
        let (got, max) = (payload as usize, limits.payload_max as usize);
        message::check_count("bytes of a payload", got, max)?;
        Ok(Size::Exactly(envelope as usize + payload as usize))
    }
}

impl Size {
    fn most(self) -> usize {
        match self {
            Size::Exactly(size) | Size::AtMost(size) => size,
        }
    }

    /// Whether a body may have this many bytes by now.
    fn check(self, got: usize, part: Part) -> Result<(), ProtocolError> {
        message::check_count("bytes of a message", got, self.most())?;
        match (self, part) {
            (Size::Exactly(size), Part::Last) if got != size => {
                Err(ProtocolError::Malformed("a message that ends early"))
            }
            _ => Ok(()),
        }
    }
}
