//! The body of an answer on its way out, in pieces that a client has to take one by one.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::activity::{Answering, Busy};
use crate::ledger::Hold;

/// Bytes given away at once: how much a client can have buffered by opening its window a little.
const PIECE: usize = 16 * 1024;

/// What is left to be sent.
pub struct Body {
    parts: [Bytes; 2],
    trailers: Option<HeaderMap>,
    /// Ends with the body.
    answering: Option<Answering>,
}

/// Bytes that are counted until the last piece of them is written.
struct Held {
    bytes: Vec<u8>,
    _hold: Hold,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes that are counted for as long as somebody has some of them.
#[must_use]
pub fn held(bytes: Vec<u8>, hold: Option<Hold>) -> Bytes {
    match hold {
        Some(hold) => Bytes::from_owner(Held { bytes, _hold: hold }),
        None => Bytes::from(bytes),
    }
}

impl Body {
    /// A body without trailers.
    #[must_use]
    pub fn new(bytes: Bytes, busy: Busy) -> Body {
        Body { parts: [bytes, Bytes::new()], trailers: None, answering: Some(busy.answer()) }
    }

    /// A body in two parts and what follows it.
    #[must_use]
    pub fn with_trailers(parts: [Bytes; 2], trailers: HeaderMap, busy: Busy) -> Body {
        Body { parts, trailers: Some(trailers), answering: Some(busy.answer()) }
    }

    /// Bytes that are left, without the trailers.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    /// What follows them.
    #[must_use]
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    fn next(&mut self) -> Option<Frame<Bytes>> {
        let part = self.parts.iter_mut().find(|part| !part.is_empty());
        if let Some(part) = part {
            return Some(Frame::data(part.split_to(part.len().min(PIECE))));
        }
        self.trailers.take().map(Frame::trailers)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(answering) = &self.answering {
            // Asked for more only if the client has room for it.
            answering.progress();
        }
        let frame = self.next();
        if self.is_end_stream() {
            self.answering = None;
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.trailers.is_none() && self.parts.iter().all(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        match self.trailers {
            // The length of a message is told by the message.
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(self.size()),
        }
    }
}
