//! One link, and the gateway behind it.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::Link;

use super::key::Key;

/// Which link it is, as whoever dialled it knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The gateway's address, for people.
    pub gateway: Arc<str>,
    /// Which of the connections to that gateway.
    pub connection: u16,
    /// Counts the attempts of this process, so it names the link.
    pub epoch: u64,
}

/// What whoever dials is to know of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Its gateway takes its last answers: a successor may be there already. The link goes on.
    Draining {
        /// Which link.
        epoch: u64,
    },
    /// It is over.
    Ended {
        /// Which link.
        epoch: u64,
    },
}

/// What the gateway has said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    Draining,
}

/// Whether a link is listed among those to be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    Yes,
    No,
}

/// Whether a gateway has the loads that others have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loads {
    Told,
    /// They would have overtaken the functions that they are of.
    Owed,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) key: Key,
    pub(super) identity: Identity,
    pub(super) link: Link,
    /// Calls whose answers are owed, by stream.
    pub(super) streams: HashMap<u64, Key>,
    pub(super) phase: Phase,
    pub(super) listed: Listed,
    pub(super) loads: Loads,
}

impl Peer {
    pub(super) fn new(key: Key, identity: Identity, link: Link) -> Peer {
        let (streams, phase) = (HashMap::new(), Phase::Serving);
        let (listed, loads) = (Listed::No, Loads::Told);
        Peer { key, identity, link, streams, phase, listed, loads }
    }
}
