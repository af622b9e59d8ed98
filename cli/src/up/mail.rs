//! What a shard gets from the threads beside it: those that listen, shake hands and look at files.
//! Rare; what the supervisor tells the engine goes by `engine::mailbox`.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

use gateway::{Arrival, Door};

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
}
