//! What a shard gets from the threads beside it: those that listen, shake hands and look at files.
//! Rare; what the supervisor tells the engine goes by `engine::mailbox`.

use std::sync::Arc;

use engine::uplink::Identity;
use gateway::{Arrival, Door, portal};
use protocol::Established;
use protocol::hello::Hello;

use super::listeners::Listening;

/// See the module's description.
#[derive(Debug)]
pub(super) enum ShardMail {
    /// Accept connections from here on.
    Serve {
        /// Listens already.
        listener: Arc<Listening>,
        /// What those who connect may ask for.
        door: Door,
    },
    /// What engines are to be told of a successor.
    Succession(Succession),
    /// A client whose handshake is done.
    Arrived(Box<Arrival>),
    /// An engine that has proved itself.
    Engine(Box<NewLink>),
    /// A gateway that was dialled and has proved itself.
    Gateway(Box<Dialled>),
    /// Calls from the door for HTTP/2.
    Portal(portal::Mail),
}

/// How it stands with a successor of this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Succession {
    /// It waits for engines, which keep their links here until they are told good-bye.
    Expected,
    /// It did not come.
    Off,
}

/// A link to an engine on another host.
#[derive(Debug)]
pub(super) struct NewLink {
    pub(super) established: Established,
    pub(super) hello: Hello,
}

/// A link to a gateway on another host.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) established: Established,
    pub(super) identity: Identity,
}
