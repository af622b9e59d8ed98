//! Where this process can be reached: every listening socket, from its address to its first connection.
//!
//! Addresses are taken early, so that one which is in use ends the start; connections are let in last,
//! and all at once. A predecessor goes in between: what it serves is served to the end.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use engine::mailbox::Post;
use gateway::Door;
use gateway::remote::Board;

use super::doorman::{self, Doorman};
use super::entrance::Entrance;
use super::http2;
use super::listener::Listener;
use super::listeners::Listeners;
use super::mail::ShardMail;
use super::rebalance::Balance;
use super::takeover::Takeover;
use super::tls::Identities;
use super::{Start, UpError, system};
use crate::admin::Purpose;
use crate::config::Config;

/// How long clients wait in the queue of the socket, or are served by the predecessor, for engines to come
/// over: they dial at once when they are told, and their shards tell of them every 250 ms.
const JOIN_TIME: Duration = Duration::from_secs(5);
/// Between two looks.
const JOIN_PAUSE: Duration = Duration::from_millis(5);

/// See the module's description. Nobody is let in yet.
pub(super) struct Doors {
    listeners: Arc<Listeners>,
    /// Of the shard that accepts.
    bound: Vec<(Purpose, Door, Listener)>,
    http2: Option<http2::Plan>,
    doorman: doorman::Plan,
}

/// What serves beside the shards, now that all is open.
pub(super) struct Open {
    http2: Option<::http2::Door>,
    doorman: Option<Doorman>,
}

/// What is behind the doors.
#[derive(Clone, Copy)]
pub(super) struct Within<'a> {
    pub(super) mail: &'a [Post<ShardMail>],
    pub(super) balance: &'a Arc<Balance>,
    pub(super) board: &'a Board,
}

/// Where clients and operators come in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Addresses {
    pub(super) public: Option<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) http2: http2::Addresses,
    pub(super) strangers: doorman::Addresses,
}

/// Gets the sockets of the gateway that runs, if there is to be a takeover and there is one.
pub(super) fn relieve(
    start: Start,
    parent: &Path,
) -> Result<(Option<Takeover>, Listeners), UpError> {
    if start == Start::Afresh {
        return Ok((None, Listeners::default()));
    }
    match Takeover::begin(parent)? {
        Some((takeover, inherited)) => Ok((Some(takeover), Listeners::inherit(inherited))),
        None => {
            tracing::info!(
                "no gateway runs in {}, so there is none to take over",
                parent.display()
            );
            Ok((None, Listeners::default()))
        }
    }
}

impl Doors {
    /// Takes the addresses.
    pub(super) fn bind(
        config: &Config,
        entrance: &Entrance,
        identities: &Identities,
        listeners: Listeners,
    ) -> Result<Doors, UpError> {
        let has_door = config.overrides.role.has_door();
        let wanted = [
            (Purpose::Public, Door::Public, has_door.then_some(config.gateway.listen)),
            (Purpose::Admin, Door::Admin, config.admin_listen()),
        ];
        let mut bound = Vec::new();
        for (purpose, door, address) in wanted {
            let Some(address) = address else { continue };
            let listener = listeners
                .bind(purpose, address)
                .map_err(|error| UpError::Listen { address, error })?;
            bound.push((purpose, door, listener));
        }
        let http2 = has_door
            .then(|| http2::Plan::bind(config, &listeners, identities, entrance))
            .transpose();
        let http2 = http2.map_err(|(address, error)| UpError::Listen { address, error })?.flatten();
        let doorman = doorman::Plan::bind(config, identities, &listeners)?;
        Ok(Doors { listeners: Arc::new(listeners), bound, http2, doorman })
    }

    /// Those that are or will be open.
    pub(super) fn listeners(&self) -> Arc<Listeners> {
        Arc::clone(&self.listeners)
    }

    /// What the shards have of them.
    pub(super) fn annexes(&self) -> (http2::Annex, doorman::Annex) {
        (http2::Plan::annex(self.http2.as_ref()), self.doorman.annex())
    }

    /// Where they are.
    pub(super) fn addresses(&self) -> Addresses {
        let address = |purpose: Purpose| {
            let mut of = self.bound.iter().filter(|(its, _, _)| *its == purpose);
            of.next().map(|(_, _, listener)| listener.address())
        };
        Addresses {
            public: address(Purpose::Public),
            admin: address(Purpose::Admin),
            http2: self.http2.as_ref().map(http2::Plan::addresses).unwrap_or_default(),
            strangers: self.doorman.addresses(),
        }
    }

    /// Lets connections in, and the predecessor go: engines first, so that clients find their functions.
    pub(super) fn open(
        self,
        takeover: Option<Takeover>,
        within: Within<'_>,
    ) -> Result<Open, UpError> {
        let Doors { listeners, bound, http2, mut doorman } = self;
        let Within { mail, balance, board } = within;
        let adopted = listeners.settle();
        let mut open = Vec::new();
        for (purpose, door, listener) in bound {
            let address = listener.address();
            let opened = listeners.open(purpose, listener);
            open.push((opened.map_err(|error| UpError::Listen { address, error })?, door));
        }
        system("the socket for engines of this host", doorman.stand())?;
        let awaited = takeover.as_ref().map(Takeover::join).transpose()?.unwrap_or_default();
        let strangers = doorman.annex();
        let doorman = doorman.open(mail, balance, &listeners);
        let doorman = system("no doorman", doorman)?;
        await_functions(board, &awaited);
        if let Some(takeover) = &takeover {
            takeover.take(adopted)?;
        }
        let http2 = http2.map(|plan| plan.open(mail.to_vec(), &listeners)).transpose();
        let http2 = system("no door for HTTP/2", http2)?;
        strangers.serve();
        if let Some(acceptor) = mail.first() {
            for (listener, door) in open {
                acceptor.send(ShardMail::Serve { listener, door });
            }
        }
        if let Some(takeover) = takeover {
            takeover.serving();
        }
        Ok(Open { http2, doorman })
    }
}

/// Waits until engines have brought what the predecessor's had, as long as that is worth it: an engine
/// may have ended just now.
fn await_functions(board: &Board, awaited: &BTreeSet<String>) {
    let deadline = Instant::now() + JOIN_TIME;
    let mut missing = awaited.difference(&board.functions()).count();
    while missing > 0 && Instant::now() < deadline {
        thread::sleep(JOIN_PAUSE);
        missing = awaited.difference(&board.functions()).count();
    }
    if missing > 0 {
        tracing::warn!("{missing} functions of the predecessor have not come within {JOIN_TIME:?}");
    }
}

impl Open {
    /// Ends what serves beside the shards.
    pub(super) fn stop(self) {
        if let Some(door) = self.http2 {
            door.stop();
        }
        drop(self.doorman);
    }
}
