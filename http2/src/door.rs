//! The thread "http2": accepts connections, shakes hands where there is TLS, serves, drains.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use gateway::access_log::AccessLog;
use gateway::intake::Intake;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use crate::config::{Config, HANDSHAKE_TIMEOUT};
use crate::connection::{House, run};
use crate::desk::{Desk, Shards};
use crate::exchange::Room;
use crate::ledger::Ledger;
use crate::stats::{Closing, Stats};

/// What a client of TLS has to choose.
const ALPN: &[u8] = b"h2";
/// After an accept that failed for lack of descriptors or memory: time for some to become free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Linux lets no more connections wait than this (`net.core.somaxconn`), unless it is told to.
const BACKLOG_MAX: usize = 4_096;

/// Where the door stands.
pub struct Listener {
    /// Bound; `listen` may or may not have been called.
    pub socket: TcpListener,
    /// What is spoken there.
    pub security: Security,
}

/// How clients are spoken to.
#[derive(Clone)]
pub enum Security {
    /// Cleartext, with prior knowledge.
    Plain,
    /// TLS, with whatever certificate is current.
    Tls(Certificates),
}

/// Gives the current configuration of TLS, which has to offer `h2`. Called for each handshake.
pub type Certificates = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// How far the door's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Open.
    Serving,
    /// Nothing new; what is under way is finished.
    Draining,
    /// Ends now.
    Stopped,
}

/// Steers the door from any thread. Made before it, so that everybody has it in time.
#[derive(Clone, Debug)]
pub struct Handle(Arc<watch::Sender<Stage>>);

/// A running door.
#[derive(Debug)]
pub struct Door {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Default for Handle {
    fn default() -> Handle {
        Handle(Arc::new(watch::Sender::new(Stage::Serving)))
    }
}

impl Handle {
    /// Has the door finish what is under way. It tells the shards when that is done.
    pub fn drain(&self) {
        self.0.send_if_modified(|stage| {
            let serving = *stage == Stage::Serving;
            if serving {
                *stage = Stage::Draining;
            }
            serving
        });
    }

    /// Has it end now.
    pub fn stop(&self) {
        self.0.send_replace(Stage::Stopped);
    }
}

impl Door {
    /// Opens the door.
    ///
    /// # Errors
    /// The system has no thread or descriptor for it.
    pub fn open(
        config: Config,
        listeners: Vec<Listener>,
        shards: Box<dyn Shards>,
        stats: Arc<Stats>,
        ledger: Arc<Ledger>,
        handle: Handle,
    ) -> io::Result<Door> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for listener in &listeners {
            listener.socket.set_nonblocking(true)?;
        }
        let stage = handle.0.subscribe();
        let thread = std::thread::Builder::new().name("http2".to_owned()).spawn(move || {
            let local = LocalSet::new();
            // Random enough for which of the shards.
            let desk = Rc::new(Desk::new(shards, RandomState::new().hash_one(0)));
            let last = LastWord(Rc::clone(&desk));
            let intake = RefCell::new(Intake::new(config.gateway.clone()));
            let log = RefCell::new(config.gateway.access_log.as_ref().map(AccessLog::feed));
            let room = Rc::new(Room { intake, log, desk: Rc::clone(&desk), stats });
            let house = Rc::new(House { room, ledger, config });
            local.block_on(&runtime, serve(house, listeners, stage));
            // Its tasks end, and say what they have to say, before the shards hear the last.
            drop(local);
            drop(last);
        })?;
        Ok(Door { handle, thread })
    }

    /// Ends it and waits.
    pub fn stop(self) {
        self.handle.stop();
        // One that panicked has closed its connections as well.
        let _ = self.thread.join();
    }
}

/// Tells the shards that nothing follows, also if the thread unwinds: they would wait for it.
struct LastWord(Rc<Desk>);

impl Drop for LastWord {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Until the drain is done or cut short.
async fn serve(house: Rc<House>, listeners: Vec<Listener>, mut stage: watch::Receiver<Stage>) {
    // Dropped by every task that ends: with the last one the receiver learns it.
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    let open = Rc::new(Cell::new(0));
    for listener in listeners {
        let entrance = Entrance {
            house: Rc::clone(&house),
            stage: stage.clone(),
            security: listener.security,
            open: Rc::clone(&open),
            alive: alive.clone(),
        };
        tokio::task::spawn_local(entrance.accept(listener.socket));
    }
    drop(alive);
    tokio::select! {
        _ = all_gone.recv() => {}
        _ = stage.wait_for(|stage| *stage == Stage::Stopped) => {}
    }
}

/// One listener, and what its connections need.
struct Entrance {
    house: Rc<House>,
    stage: watch::Receiver<Stage>,
    security: Security,
    /// Connections of all entrances.
    open: Rc<Cell<u32>>,
    alive: mpsc::Sender<()>,
}

/// Counts a connection until its task ends.
struct Guest {
    open: Rc<Cell<u32>>,
    stats: Arc<Stats>,
    _alive: mpsc::Sender<()>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
        self.stats.end();
    }
}

impl Entrance {
    async fn accept(mut self, socket: TcpListener) {
        let listener = match tokio::net::TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!("the HTTP/2 door cannot listen: {error}"),
        };
        loop {
            let accepted = tokio::select! {
                biased;
                _ = self.stage.wait_for(|stage| *stage != Stage::Serving) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    tracing::warn!("accepting pauses: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Whoever had connected before the drain is served, as many as the system let wait.
        for _ in 0..BACKLOG_MAX {
            tokio::select! {
                biased;
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(stream, peer),
                    Err(_) => break,
                },
                () = std::future::ready(()) => break,
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let config = &self.house.config;
        let stats = &self.house.room.stats;
        let number = u64::try_from(stream.as_raw_fd()).unwrap_or(0);
        let descriptors = &config.gateway.descriptors;
        if self.open.get() >= config.connections_max || number >= descriptors.served_below {
            return stats.refuse();
        }
        stats.accept();
        self.open.set(self.open.get() + 1);
        let (open, alive) = (Rc::clone(&self.open), self.alive.clone());
        let guest = Guest { open, stats: Arc::clone(stats), _alive: alive };
        // Fails only for what is not TCP.
        let _ = stream.set_nodelay(true);
        let (house, stage) = (Rc::clone(&self.house), self.stage.clone());
        let security = self.security.clone();
        tokio::task::spawn_local(async move {
            match security {
                Security::Plain => run(house, stream, peer, stage).await,
                Security::Tls(certificates) => {
                    let handshake = TlsAcceptor::from(certificates()).accept(stream);
                    let done = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
                    match done {
                        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(ALPN) => {
                            run(house, stream, peer, stage).await;
                        }
                        _ => house.room.stats.close(Closing::Handshake),
                    }
                }
            }
            drop(guest);
        });
    }
}

/// A connection that its client gave up before it was accepted.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("socket", &self.socket).finish_non_exhaustive()
    }
}
