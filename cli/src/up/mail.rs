//! What a shard gets from the threads beside it: those that listen, shake hands and look at files.
//! Rare; what the supervisor tells the engine goes by `engine::mailbox`.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

use engine::uplink::Identity;
use gateway::{Arrival, Door, portal};
use protocol::Established;
use protocol::hello::Hello;

/// See the module's description.
#[derive(Debug)]
pub(super) enum ShardMail {
    /// Accept connections from here on.
    Serve {
        /// Listens already.
        listener: Arc<OwnedFd>,
        /// What those who connect may ask for.
        door: Door,
    },
    /// Who has connected by the time of the drain to one of these addresses is a successor's, which
    /// has the socket too.
    Yield {
        /// Of listeners; those that are not here are the shard's to the end.
        to_successor: Vec<SocketAddr>,
        /// Told when it is so.
        done: mpsc::Sender<()>,
    },
    /// A client whose handshake is done.
    #[expect(dead_code, reason = "nobody shakes hands yet")]
    Arrived(Box<Arrival>),
    /// An engine that has proved itself.
    Engine(Box<NewLink>),
    /// A gateway that was dialled and has proved itself.
    Gateway(Box<Dialled>),
    /// Calls from the door for HTTP/2.
    Portal(portal::Mail),
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
