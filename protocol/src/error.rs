//! What a peer can do wrong, and how a link ends.

use std::io;

use crate::frame::FRAME_MAX;

/// A peer broke the protocol. Its connection is closed with this as the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A frame's body is over the limit.
    #[error("a frame of {0} bytes where {FRAME_MAX} are allowed")]
    FrameTooLarge(usize),
    /// No such kind of frame.
    #[error("{0} is no kind of frame")]
    UnknownKind(u8),
    /// Flags that this version does not have.
    #[error("frame flags {0:#x} are unknown")]
    UnknownFlags(u8),
    /// A frame that this side never takes, or not now.
    #[error("a {0} was not expected")]
    Unexpected(&'static str),
    /// Bytes that are not of the form that the message has.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// A number or a size over its limit.
    #[error("{what} of {got} where {max} are allowed")]
    OverLimit {
        /// What it counts.
        what: &'static str,
        /// What came.
        got: u64,
        /// The limit.
        max: u64,
    },
    /// A DATA frame of a stream that has begun no message.
    #[error("data of stream {0}, which has begun nothing")]
    UnknownStream(u64),
    /// A message begins on a stream whose last one has not ended.
    #[error("stream {0} begins a message within a message")]
    StreamBusy(u64),
    /// No version that both sides speak.
    #[error("it speaks protocol versions {min} to {max}, and here {ours} is spoken", ours = crate::VERSION)]
    Version {
        /// The peer's lowest.
        min: u16,
        /// The peer's highest.
        max: u16,
    },
    /// It does not have the key, or not the same.
    #[error("it could not prove that it has the key")]
    Unproven,
}

/// How a link ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer broke the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The peer said why.
    #[error("the peer ended it: {0}")]
    Bye(String),
    /// The connection broke, was closed, or took nothing of what was sent for [`crate::STALL`].
    #[error("{0}")]
    Io(#[from] io::Error),
    /// TLS broke.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// Nothing was heard for too long.
    #[error("nothing was heard of it for {0} ms")]
    Silent(u128),
}
