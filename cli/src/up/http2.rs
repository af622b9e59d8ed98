//! The door for HTTP/2 and gRPC: a thread beside the shards that is there only if it is configured.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use gateway::portal::{Mail, Portal};
use http2::{Door, Handle, Ledger, Security, Shards, Stats};
use reactor::mailbox::Post;

use super::entrance::Entrance;
use super::listener::Listener;
use super::listeners::{Listeners, Listening};
use super::mail::ShardMail;
use super::shard::gateway_config;
use crate::admin::Purpose;
use crate::config::Config;

/// What a shard has of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Annex(Option<Shared>);

#[derive(Clone, Debug)]
struct Shared {
    handle: Handle,
    stats: Arc<Stats>,
    /// While clients are let in: the socket, for a successor.
    socket: Arc<Mutex<Option<Arc<Listening>>>>,
}

/// The door before it is opened: its address is taken, nobody is let in.
pub(super) struct Plan {
    config: http2::Config,
    listener: Listener,
    ledger: Arc<Ledger>,
    shared: Shared,
}

struct Posts(Vec<Post<ShardMail>>);

impl Shards for Posts {
    fn count(&self) -> u16 {
        u16::try_from(self.0.len()).unwrap_or(u16::MAX)
    }

    fn post(&self, shard: u16, mail: Mail) {
        if let Some(post) = self.0.get(usize::from(shard)) {
            post.send(ShardMail::Portal(mail));
        }
    }
}

impl Plan {
    /// Takes the address, if one is configured.
    pub(super) fn bind(
        config: &Config,
        listeners: &Listeners,
        entrance: &Entrance,
    ) -> Result<Option<Plan>, (SocketAddr, io::Error)> {
        let Some(http2) = config.gateway.http2.as_ref() else { return Ok(None) };
        let listener = listeners.bind(Purpose::Http2, http2.listen);
        let listener = listener.map_err(|error| (http2.listen, error))?;
        let config = http2::Config {
            connections_max: http2.connections_max,
            streams_max: http2.streams_max,
            memory: usize::try_from(http2.memory).unwrap_or(usize::MAX),
            gateway: entrance.enter(gateway_config(config)),
        };
        let config = config.bounded();
        let ledger = Ledger::new(config.memory);
        let stats = Arc::new(Stats::new(Arc::clone(&ledger)));
        let shared = Shared { handle: Handle::default(), stats, socket: Arc::default() };
        Ok(Some(Plan { config, listener, ledger, shared }))
    }

    /// Where it will listen.
    pub(super) fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// What the shards need of it.
    pub(super) fn annex(plan: Option<&Plan>) -> Annex {
        Annex(plan.map(|plan| plan.shared.clone()))
    }

    /// Lets clients in.
    pub(super) fn open(
        self,
        shards: Vec<Post<ShardMail>>,
        listeners: &Listeners,
    ) -> io::Result<Door> {
        let Plan { config, listener, ledger, shared } = self;
        let socket = listeners.open(Purpose::Http2, listener)?;
        let own = socket.duplicate()?.into();
        shared.lend(Some(socket));
        let (Shared { handle, stats, .. }, socket) = (shared, own);
        let listeners = vec![http2::Listener { socket, security: Security::Plain }];
        Door::open(config, listeners, Box::new(Posts(shards)), stats, ledger, handle)
    }
}

impl Shared {
    /// Lets a successor have the socket, or no one.
    fn lend(&self, socket: Option<Arc<Listening>>) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = socket;
    }
}

impl Annex {
    /// Where its calls come in.
    pub(super) fn portal(&self) -> Portal {
        if self.0.is_some() { Portal::open() } else { Portal::closed() }
    }

    /// Has it finish what is under way.
    pub(super) fn drain(&self) {
        if let Some(shared) = &self.0 {
            shared.lend(None);
            shared.handle.drain();
        }
    }

    /// Its part of `/metrics`.
    pub(super) fn write_metrics(&self, out: &mut String) {
        if let Some(shared) = &self.0 {
            shared.stats.write(out);
        }
    }
}
