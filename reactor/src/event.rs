//! What a turn reports, and how long it may wait for it.

use crate::buffers::{ReceiveBuffer, StableBuffer};
use crate::clock::Nanos;
use std::io;
use std::os::fd::OwnedFd;

/// The caller's name for an operation; comes back in its events. Opaque to the reactor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token(pub u64);

/// How long a turn waits for the first event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Submit, take what is there, return.
    Not,
    /// Until an event arrives (or a signal).
    Forever,
    /// Until an event arrives or this time has come; sometimes earlier.
    Until(Nanos),
}

/// What happened. Every operation ends in exactly one ending event, which carries its token:
/// `AcceptEnded`, `ReceiveEnded`, `Sent` or `PollEnded`. A cancelled one ends with `ECANCELED`
/// unless it was over before the cancellation reached it.
#[derive(Debug)]
pub enum Event {
    /// A connection, close-on-exec and non-blocking.
    Accepted {
        /// Of the `accept`.
        token: Token,
        /// The connection.
        socket: OwnedFd,
    },
    /// The listener accepts no more: out of descriptors, cancelled. The owner re-arms it when it
    /// wants to.
    AcceptEnded {
        /// Of the `accept`.
        token: Token,
        /// Why.
        error: io::Error,
    },
    /// Bytes from a socket, never empty.
    Received {
        /// Of the `receive`.
        token: Token,
        /// The bytes; dropping it returns the memory to the kernel.
        data: ReceiveBuffer,
    },
    /// Nothing more comes from this socket.
    ReceiveEnded {
        /// Of the `receive`.
        token: Token,
        /// `None`: the peer closed its half.
        error: Option<io::Error>,
    },
    /// A send is over; the buffers come back.
    Sent {
        /// Of the `send`.
        token: Token,
        /// The vector given to `send`, or the head given to `send_with_body`.
        data: Vec<u8>,
        /// The body given to `send_with_body`.
        body: Option<Box<dyn StableBuffer>>,
        /// Bytes accepted by the socket in this attempt: may be fewer than were offered.
        result: io::Result<usize>,
    },
    /// The descriptor became readable (an edge; several may be merged into one event).
    Polled {
        /// Of the `poll`.
        token: Token,
    },
    /// The poll is over.
    PollEnded {
        /// Of the `poll`.
        token: Token,
        /// Why.
        error: io::Error,
    },
    /// A doorbell could not be rung. `EAGAIN`: its other holder made it blocking.
    DoorbellFailed {
        /// Of the `ring_doorbell`.
        token: Token,
        /// Why.
        error: io::Error,
    },
    /// Another shard's `message`.
    Message {
        /// What it sent.
        value: u64,
    },
    /// A message of ours did not reach its ring.
    MessageFailed {
        /// Why.
        error: io::Error,
        /// What it was.
        value: u64,
    },
}

impl Event {
    /// The token of the operation that this event is about; messages between shards have none.
    #[must_use]
    pub fn token(&self) -> Option<Token> {
        match self {
            Event::Accepted { token, .. }
            | Event::AcceptEnded { token, .. }
            | Event::Received { token, .. }
            | Event::ReceiveEnded { token, .. }
            | Event::Sent { token, .. }
            | Event::Polled { token }
            | Event::PollEnded { token, .. }
            | Event::DoorbellFailed { token, .. } => Some(*token),
            Event::Message { .. } | Event::MessageFailed { .. } => None,
        }
    }
}
