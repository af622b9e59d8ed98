//! What engines and gateways say to each other (`docs/protocol.md`): TCP or a unix socket, with or
//! without TLS, cut into frames of bounded size. Engines dial gateways, so that a live connection is
//! registration and liveness at once. Calls go one way, answers the other.
//!
//! In the order a connection meets them:
//! - [`hello`], [`handshake`]: who is there, and the proof of it
//! - [`Established`]: what a handshake leaves to a shard
//! - [`Link`]: the connection on the shard's reactor, with its `heartbeat`
//! - [`Reader`]: from bytes to messages, with [`Limits`]; [`frame`] is what they are cut into, `cipher`
//!   what is around those
//! - [`message`]: what is said, with the limit of every field; `side`: to whom
//! - `outbox`: messages on their way out, nothing small behind anything large; `lane` has the large ones
//! - `gather`, `sender`: out of the memory in which they lie, in one send at a time; `socket`
//!
//! Everything that a peer sends is checked before it is believed; what is wrong becomes a
//! [`ProtocolError`], which ends that connection and nothing else.

#![deny(unsafe_code)]

mod cipher;
mod error;
mod established;
pub mod frame;
mod gather;
pub mod handshake;
mod heartbeat;
pub mod hello;
mod lane;
mod link;
pub mod message;
#[cfg(test)]
mod model;
mod outbox;
mod reader;
mod sender;
mod side;
mod socket;

pub use error::{LinkError, ProtocolError};
pub use established::Established;
pub use heartbeat::{PATIENCE, QUIET};
pub use hello::VERSION;
pub use link::Link;
pub use message::Message;
pub use outbox::QUEUED_MAX;
pub use reader::{Limits, Reader};
pub use sender::STALL;
pub use side::Side;
