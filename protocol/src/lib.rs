//! What engines and gateways on different hosts say to each other (`docs/protocol.md`): TCP, with or
//! without TLS, cut into frames of bounded size. Engines dial gateways, so that a live connection is
//! registration and liveness at once. Calls go one way, answers the other.
//!
//! In the order a connection meets them:
//! - [`hello`], [`handshake`]: who is there, and the proof of it
//! - [`Established`]: what a handshake leaves to a shard
//! - [`Link`]: the connection on the shard's reactor, with its `heartbeat`
//! - `reader`: from bytes to messages, with [`Limits`]; [`frame`] is what they are cut into
//! - [`message`]: what is said, with the limit of every field
//! - `outbox`: messages on their way out, nothing small behind anything large
//!
//! Everything that a peer sends is checked before it is believed; what is wrong becomes a
//! [`ProtocolError`], which ends that connection and nothing else.

mod error;
mod established;
pub mod frame;
pub mod handshake;
mod heartbeat;
pub mod hello;
mod link;
pub mod message;
mod outbox;
mod reader;

pub use error::{LinkError, ProtocolError};
pub use established::Established;
pub use heartbeat::{PATIENCE, QUIET};
pub use hello::VERSION;
pub use link::{Link, Side};
pub use message::Message;
pub use reader::Limits;
