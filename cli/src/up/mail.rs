//! What a shard gets from the threads beside it: those that listen, shake hands and look at files.
//! Rare; what the supervisor tells the engine goes by `engine::mailbox`.

use std::os::fd::OwnedFd;

use gateway::{Arrival, Door, portal};

/// See the module's description.
#[derive(Debug)]
pub(super) enum ShardMail {
    /// Accept connections from here on.
    Serve {
        /// Listens already.
        listener: OwnedFd,
        /// What those who connect may ask for.
        door: Door,
    },
    /// A client whose handshake is done.
    #[expect(dead_code, reason = "nobody shakes hands yet")]
    Arrived(Box<Arrival>),
    /// Calls from the door for HTTP/2.
    Portal(portal::Mail),
}
