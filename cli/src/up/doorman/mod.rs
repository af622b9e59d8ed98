//! The doorman: a thread beside the shards that shakes hands with strangers, who may be slow or hostile.
//! A shard gets a connection only when its handshake is done, as plain data: socket and TLS session.
//!
//! ```text
//!  client ──► port ──► TLS ───────────────────────────────► ShardMail::Arrived ──► shard with room
//!  engine ──► port or path ──► TLS or none ──► hello, proof ──────► ShardMail::Engine  ──► shard it chose
//! ```
//! Each port has a bounded number of handshakes at once, each of bounded time; beyond, the oldest gives
//! way, since those who mean it are done long before. The thread exists only where a port is configured.

mod client;
mod complaints;
mod engine;
mod path;
mod port;
mod stats;
mod stranger;

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use reactor::mailbox::Post;
use tokio::sync::watch;

use self::client::Clients;
use self::engine::{Engines, Proof};
use self::path::{Occupant, SocketFile};
use self::port::Port;
use self::stats::Stats;
use self::stranger::Source;
use super::listener::Listener;
use super::listeners::Listeners;
use super::mail::ShardMail;
use super::rebalance::Balance;
use super::tls::Identities;
use super::{UpError, system};
use crate::admin::Purpose;
use crate::config::{Config, Trust, shared_key};

/// How far the doorman's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Engines are let in, clients are not yet.
    Joining,
    Serving,
    /// Engines are left to a successor, clients are let in.
    Yielding,
    /// Nobody new; handshakes have a moment to end.
    Draining,
    /// Ends now.
    Stopped,
}

/// What a shard has of it.
#[derive(Clone, Debug)]
pub(super) struct Annex {
    stage: Arc<watch::Sender<Stage>>,
    clients: Option<Arc<Stats>>,
    engines: Option<Arc<Stats>>,
}

/// The ports before they are opened: their addresses are taken, nobody is let in.
pub(super) struct Plan {
    clients: Option<(Listener, Clients)>,
    engines: Option<Joining>,
    annex: Annex,
}

/// Where engines join; at least one of the two ways is there.
struct Joining {
    proof: Proof,
    port: Option<Listener>,
    path: Option<(SocketFile, UnixListener)>,
}

/// Where the ports are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Addresses {
    pub(super) clients: Option<SocketAddr>,
    pub(super) engines: Option<SocketAddr>,
}

/// The running thread. Dropped, it ends with whatever is under way.
#[derive(Debug)]
pub(super) struct Doorman {
    annex: Annex,
    thread: Option<JoinHandle<()>>,
}

/// Where connections go.
#[derive(Clone, Debug)]
struct Shards {
    mail: Arc<[Post<ShardMail>]>,
    balance: Arc<Balance>,
}

impl Plan {
    /// Takes the addresses that are configured.
    pub(super) fn bind(
        config: &Config,
        identities: &Identities,
        listeners: &Listeners,
    ) -> Result<Plan, UpError> {
        let bind = |purpose, address| {
            let bound = listeners.bind(purpose, address);
            bound.map_err(|error| UpError::Listen { address, error })
        };
        let has_door = config.overrides.role.has_door();
        let (tls, engines) = (&config.gateway.tls, &config.gateway.engines);
        let clients = match (tls, &identities.clients) {
            (Some(tls), Some(certificates)) => {
                Some((bind(Purpose::Tls, tls.listen)?, Clients::new(Arc::clone(certificates))))
            }
            _ => None,
        };
        let engines = match engines {
            Some(engines) if has_door => {
                let proof = Proof::of(&engines.trust, identities);
                let proof = system("[gateway.engines]", proof)?;
                let port = engines.listen.map(|address| bind(Purpose::Engines, address));
                let occupant = match listeners.has_predecessor() {
                    true => Occupant::Predecessor,
                    false => Occupant::Stranger,
                };
                let path = engines.path.as_ref().map(|path| {
                    let bound = SocketFile::bind(path, occupant);
                    bound.map_err(|error| UpError::ListenAt { path: path.clone(), error })
                });
                Some(Joining { proof, port: port.transpose()?, path: path.transpose()? })
            }
            _ => None,
        };
        let annex = Annex {
            stage: Arc::new(watch::Sender::new(Stage::Joining)),
            clients: clients.as_ref().map(|_| Arc::new(Stats::new("client"))),
            engines: engines.as_ref().map(|_| Arc::new(Stats::new("engine"))),
        };
        Ok(Plan { clients, engines, annex })
    }

    pub(super) fn addresses(&self) -> Addresses {
        Addresses {
            clients: self.clients.as_ref().map(|(listener, _)| listener.address()),
            engines: self
                .engines
                .as_ref()
                .and_then(|joining| Some(joining.port.as_ref()?.address())),
        }
    }

    /// Has the path of the engines' socket lead here. A predecessor's engines dial when they are told,
    /// and it does not accept them any more.
    ///
    /// # Errors
    /// When somebody else has taken it meanwhile, and what the system says.
    pub(super) fn stand(&mut self) -> io::Result<()> {
        match self.engines.as_mut().and_then(|joining| joining.path.as_mut()) {
            Some((file, _)) => file.stand(),
            None => Ok(()),
        }
    }

    /// What the shards need of it.
    pub(super) fn annex(&self) -> Annex {
        self.annex.clone()
    }

    /// Lets engines in, and clients once [`Annex::serve`] says so, if there is a port for them.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(
        self,
        mail: &[Post<ShardMail>],
        balance: &Arc<Balance>,
        listeners: &Listeners,
    ) -> io::Result<Option<Doorman>> {
        let Plan { clients, engines, annex } = self;
        if clients.is_none() && engines.is_none() {
            return Ok(None);
        }
        let shards = Shards { mail: mail.into(), balance: Arc::clone(balance) };
        let stage = annex.stage.subscribe();
        let mut ports = Vec::new();
        if let (Some((listener, clients)), Some(stats)) = (clients, &annex.clients) {
            let greeter = port::Greeter::Client(Arc::new(clients));
            let listening = listeners.open(Purpose::Tls, listener)?;
            let source = Source::Port(listening);
            ports.push(Port::new(source, greeter, &shards, stats, stage.clone()));
        }
        if let (Some(Joining { proof, port, path }), Some(stats)) = (engines, &annex.engines) {
            let count = u16::try_from(mail.len()).unwrap_or(u16::MAX);
            // One for both ways: an engine knows by the instance that it is one gateway.
            let engines = Arc::new(Engines::new(proof, count)?);
            let port = port.map(|listener| listeners.open(Purpose::Engines, listener));
            let port = port.transpose()?.map(Source::Port);
            let path = path.map(|(file, listener)| Source::Path(file, listener));
            for source in port.into_iter().chain(path) {
                let greeter = port::Greeter::Engine(Arc::clone(&engines));
                ports.push(Port::new(source, greeter, &shards, stats, stage.clone()));
            }
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        // Whoever drains waits for the thread as for a connection that is under way.
        let attendance = Attendance::begin(balance);
        let body = move || {
            runtime.block_on(port::serve_all(ports));
            drop(attendance);
        };
        let thread = thread::Builder::new().name("doorman".to_owned()).spawn(body)?;
        Ok(Some(Doorman { annex, thread: Some(thread) }))
    }
}

impl Annex {
    /// Has it let clients in too.
    pub(super) fn serve(&self) {
        self.change(&[Stage::Joining, Stage::Yielding], Stage::Serving);
    }

    /// Has it leave engines to a successor, until [`Annex::serve`].
    pub(super) fn yield_engines(&self) {
        self.change(&[Stage::Serving], Stage::Yielding);
    }

    /// Has it let nobody in any more.
    pub(super) fn drain(&self) {
        self.change(&[Stage::Joining, Stage::Serving, Stage::Yielding], Stage::Draining);
    }

    fn change(&self, from: &[Stage], to: Stage) {
        self.stage.send_if_modified(|stage| {
            let changes = from.contains(stage);
            if changes {
                *stage = to;
            }
            changes
        });
    }

    /// Its part of `/metrics`.
    pub(super) fn write_metrics(&self, out: &mut String) {
        stats::write(
            [&self.clients, &self.engines].into_iter().flatten().map(|stats| &**stats),
            out,
        );
    }
}

impl Drop for Doorman {
    fn drop(&mut self) {
        self.annex.stage.send_replace(Stage::Stopped);
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shards {
    /// Passes on what has been let in; the shard counts it as arrived.
    fn post(&self, shard: u16, mail: ShardMail) {
        if let Some(post) = self.mail.get(usize::from(shard)) {
            self.balance.passage.enter();
            post.send(mail);
        }
    }
}

/// Counts as under way between shards while it lives.
struct Attendance(Arc<Balance>);

impl Attendance {
    fn begin(balance: &Arc<Balance>) -> Attendance {
        balance.passage.enter();
        Attendance(Arc::clone(balance))
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.0.passage.arrived();
    }
}

impl Proof {
    fn of(trust: &Trust, identities: &Identities) -> io::Result<Proof> {
        match trust {
            Trust::SharedKey { file } => {
                Ok(Proof::Key(shared_key(file).map_err(io::Error::other)?))
            }
            Trust::Certificates { .. } => match &identities.engines {
                Some(own) => Ok(Proof::Certificates(Arc::clone(own))),
                None => Err(io::Error::other("the certificates of the port were not read")),
            },
            Trust::Insecure => Ok(Proof::None),
        }
    }
}
