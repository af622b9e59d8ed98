//! One link to an engine, with what the engine has said on it.

use std::collections::HashMap;
use std::net::SocketAddr;

use protocol::hello::Hello;
use protocol::message::{Load, Repeat};
use protocol::{Link, LinkError};
use reactor::clock::Nanos;

use super::balance::{FunctionIndex, SeatId};
use super::key::LinkKey;

/// Numbers of functions that an engine may use on one link: sixteen times as many as it may have at
/// once, for an engine that lives through many deployments.
pub(super) const NUMBERS_MAX: usize = 16 * protocol::message::FUNCTIONS_MAX;

/// A link and its engine.
pub(super) struct Peer {
    pub(super) key: LinkKey,
    pub(super) link: Link,
    pub(super) identity: Identity,
    pub(super) epoch: u64,
    pub(super) cores: u16,
    /// Where it dials from; `None` where that is no internet address.
    pub(super) address: Option<SocketAddr>,
    /// When it joined.
    pub(super) since: Nanos,
    pub(super) stage: Stage,
    /// By the engine's number. What it does not have any more stays, as numbers are not used again.
    pub(super) offers: HashMap<u32, Offer>,
    /// Calls that were given up here and whose answers may still come.
    pub(super) given_up: u64,
    pub(super) flush: Flush,
}

/// What names a link across its epochs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) node: String,
    pub(super) instance: u64,
    pub(super) connection: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Serving,
    Draining,
}

/// Whether a link waits for the end of the turn to be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    Owed,
    Nothing,
}

/// A function of an engine.
pub(super) struct Offer {
    pub(super) function: FunctionIndex,
    /// `None`: it does not have it any more.
    pub(super) seat: Option<SeatId>,
    pub(super) version: u32,
    pub(super) repeat: Repeat,
    /// The last report.
    pub(super) load: Option<Load>,
    /// Calls that it has answered.
    pub(super) ended: Ended,
}

/// Calls of a function at one link that were answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    pub(super) ok: u64,
    pub(super) failed: u64,
}

/// What an engine did that no correct engine does. Its link is closed with this as the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Breach {
    #[error("an answer to stream {0}, on which there is no call")]
    UnknownStream(u64),
    #[error("an answer whose sizes or envelope are wrong")]
    Answer,
    #[error("a call that succeeded without having started")]
    Contradiction,
    #[error("a report on function {0}, which was not announced")]
    UnknownFunction(u32),
    #[error("function {0} was announced twice, or by another name than before")]
    Renamed(u32),
    #[error("more than {NUMBERS_MAX} functions on one link")]
    Numbers,
}

/// Why a link is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Loss {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Breach(#[from] Breach),
    #[error("the engine has dialled again")]
    Replaced,
    #[error("this gateway is closing")]
    Closing,
}

/// Losses, as they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Heartbeat,
    Connection,
    Protocol,
    Left,
    Replaced,
}

impl Cause {
    pub(super) const ALL: [(Cause, &str); 5] = [
        (Cause::Heartbeat, "heartbeat"),
        (Cause::Connection, "connection"),
        (Cause::Protocol, "protocol"),
        (Cause::Left, "left"),
        (Cause::Replaced, "replaced"),
    ];
}

impl Loss {
    pub(super) fn cause(&self) -> Cause {
        match self {
            Loss::Link(LinkError::Silent(_)) => Cause::Heartbeat,
            Loss::Link(LinkError::Io(_)) => Cause::Connection,
            Loss::Link(LinkError::Bye(_)) | Loss::Closing => Cause::Left,
            Loss::Link(LinkError::Protocol(_) | LinkError::Tls(_)) | Loss::Breach(_) => {
                Cause::Protocol
            }
            Loss::Replaced => Cause::Replaced,
        }
    }
}

impl Identity {
    pub(super) fn of(hello: &Hello) -> Identity {
        let Hello { node, instance, connection, .. } = hello;
        Identity { node: node.clone(), instance: *instance, connection: *connection }
    }
}
