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
use super::tls::{Certificates, Identities};
use crate::admin::Purpose;
use crate::config::Config;

/// What a shard has of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Annex(Option<Shared>);

#[derive(Clone, Debug)]
struct Shared {
    handle: Handle,
    stats: Arc<Stats>,
    /// While clients are let in: the sockets, for a successor.
    sockets: Arc<Mutex<Vec<Arc<Listening>>>>,
}

/// The door before it is opened: its address is taken, nobody is let in.
pub(super) struct Plan {
    config: http2::Config,
    plain: Option<Listener>,
    tls: Option<(Listener, Arc<Certificates>)>,
    ledger: Arc<Ledger>,
    shared: Shared,
}

/// Where it listens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Addresses {
    pub(super) plain: Option<SocketAddr>,
    pub(super) tls: Option<SocketAddr>,
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
    /// Takes its addresses, if there are any.
    pub(super) fn bind(
        config: &Config,
        listeners: &Listeners,
        identities: &Identities,
        entrance: &Entrance,
    ) -> Result<Option<Plan>, (SocketAddr, io::Error)> {
        let Some(http2) = config.gateway.http2.as_ref() else { return Ok(None) };
        let bind =
            |purpose, address| listeners.bind(purpose, address).map_err(|error| (address, error));
        let plain = http2.listen.map(|address| bind(Purpose::Http2, address)).transpose()?;
        let tls = match (http2.tls_listen, &identities.clients) {
            (Some(address), Some(certificates)) => {
                Some((bind(Purpose::Http2Tls, address)?, certificates.clone()))
            }
            // The configuration has one only with the other.
            _ => None,
        };
        let config = http2::Config {
            connections_max: http2.connections_max,
            streams_max: http2.streams_max,
            memory: usize::try_from(http2.memory).unwrap_or(usize::MAX),
            gateway: entrance.enter(gateway_config(config)),
        };
        let config = config.bounded();
        let ledger = Ledger::new(config.memory);
        let stats = Arc::new(Stats::new(Arc::clone(&ledger)));
        let shared = Shared { handle: Handle::default(), stats, sockets: Arc::default() };
        Ok(Some(Plan { config, plain, tls, ledger, shared }))
    }

    /// Where it will listen.
    pub(super) fn addresses(&self) -> Addresses {
        Addresses {
            plain: self.plain.as_ref().map(Listener::address),
            tls: self.tls.as_ref().map(|(listener, _)| listener.address()),
        }
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
        let Plan { config, plain, tls, ledger, shared } = self;
        let mut sockets = Vec::new();
        let mut doors = Vec::new();
        if let Some(listener) = plain {
            let listening = listeners.open(Purpose::Http2, listener)?;
            let socket = listening.duplicate()?.into();
            sockets.push(listening);
            doors.push(http2::Listener { socket, security: Security::Plain });
        }
        if let Some((listener, certificates)) = tls {
            let listening = listeners.open(Purpose::Http2Tls, listener)?;
            let socket = listening.duplicate()?.into();
            sockets.push(listening);
            let security = Security::Tls(Arc::new(move || certificates.current_h2()));
            doors.push(http2::Listener { socket, security });
        }
        shared.lend(sockets);
        let (Shared { handle, stats, .. }, listeners) = (shared, doors);
        Door::open(config, listeners, Box::new(Posts(shards)), stats, ledger, handle)
    }
}

impl Shared {
    /// Lets a successor have these sockets and no others.
    fn lend(&self, sockets: Vec<Arc<Listening>>) {
        *self.sockets.lock().unwrap_or_else(PoisonError::into_inner) = sockets;
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
            shared.lend(Vec::new());
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
