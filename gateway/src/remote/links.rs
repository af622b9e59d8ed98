//! A shard's links to engines: lets them in, passes them the reactor's events, keeps their time, and
//! says once a turn what is to be said.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{SockaddrStorage, getpeername};
use protocol::hello::Hello;
use protocol::{Established, Limits, Link, LinkError, Side};
use reactor::clock::Nanos;
use reactor::wheel::Wheel;
use reactor::{Event, Reactor};
use slab::Slab;

use super::balance::{Balance, FunctionIndex, SeatId};
use super::board::Board;
use super::call::Calls;
use super::directory::Directory;
use super::key::{CallKey, LinkKey, Purpose};
use super::metrics::Metrics;
use super::peer::{Flush, Identity, Loss, Peer, Stage};
use crate::upstream::Answer;

/// Links to a shard: far more than engines that one gateway shard can keep busy.
const LINKS_MAX: usize = 4096;
/// How exact timers are: heartbeats are the shortest, 250 ms.
const TICK: Duration = Duration::from_millis(5);

/// What the owner decides.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Number of the shard, for metrics and the board.
    pub shard: u16,
    /// Calls of one function that may wait for an engine with room.
    pub queue: usize,
    /// Bytes of a payload, either way.
    pub payload_max: u32,
    /// Of the balance's draws: a different one for every shard.
    pub seed: u64,
}

/// Why an engine was not let in.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A link of the same engine has been here that is as new, or newer.
    #[error("a link of epoch {current} is there already, and this one has {epoch}")]
    Stale {
        /// Of the one that comes.
        epoch: u64,
        /// Of the one that is here.
        current: u64,
    },
    /// More links than a shard takes.
    #[error("{LINKS_MAX} links are there already")]
    Full,
    /// What came with the handshake was wrong.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// One shard's links to engines on other hosts. Everything in it belongs to the shard's thread, but for
/// the board. See [`super`].
pub struct Remote {
    pub(super) config: Config,
    pub(super) balance: Balance,
    pub(super) directory: Directory,
    pub(super) calls: Calls,
    pub(super) peers: Slab<Peer>,
    pub(super) identities: HashMap<Identity, LinkKey>,
    /// Where the balance's seats are, by their index.
    pub(super) seats: Vec<Option<Location>>,
    pub(super) wheel: Wheel<Due>,
    pub(super) answers: VecDeque<(u64, Answer)>,
    pub(super) metrics: Metrics,
    pub(super) board: Arc<Board>,
    pub(super) stage: Stage,
    /// Of the next link.
    generation: u32,
    /// Reused by `on_tick`; empty in between.
    expired: Vec<Due>,
    /// Links that are to be flushed.
    owed: Vec<LinkKey>,
    /// When the board was told last.
    pub(super) published: Nanos,
}

/// A seat of the balance.
#[derive(Clone, Copy)]
pub(super) struct Location {
    pub(super) link: LinkKey,
    pub(super) number: u32,
    pub(super) tenure: Tenure,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tenure {
    Offered,
    /// Not offered any more; leaves with the last of its calls.
    Ending,
}

/// What a timer is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    Link(LinkKey),
    /// A call's deadline, or the end of the time that its engine has beyond it.
    Call(CallKey),
    /// A seat that refused a call may take one again.
    Resume(LinkKey, u32),
    /// A function has been without an engine for as long as its calls wait for one.
    Orphan(FunctionIndex),
}

impl Remote {
    /// Without links. `board`: where all shards of the process tell of their engines.
    #[must_use]
    pub fn new(config: Config, board: Arc<Board>) -> Remote {
        Remote {
            config,
            balance: Balance::new(config.seed),
            directory: Directory::default(),
            calls: Calls::default(),
            peers: Slab::new(),
            identities: HashMap::new(),
            seats: Vec::new(),
            wheel: Wheel::new(TICK),
            answers: VecDeque::new(),
            metrics: Metrics::default(),
            board,
            stage: Stage::Serving,
            generation: 0,
            expired: Vec::new(),
            owed: Vec::new(),
            published: Nanos(0),
        }
    }

    /// Takes an engine's connection. One that the engine had before, under the same name, is over.
    ///
    /// # Errors
    /// The connection is closed, and nothing else has changed.
    pub fn add_link(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        established: Established,
        hello: &Hello,
    ) -> Result<(), JoinError> {
        let identity = Identity::of(hello);
        let predecessor = self.identities.get(&identity).copied();
        if let Some(old) = predecessor.and_then(|key| self.peer(key)) {
            let (epoch, current) = (hello.epoch, old.epoch);
            if epoch <= current {
                return Err(JoinError::Stale { epoch, current });
            }
        } else if self.peers.len() >= LINKS_MAX {
            return Err(JoinError::Full);
        }
        self.generation = self.generation.wrapping_add(1);
        let slot = self.peers.vacant_key();
        let key = LinkKey::new(slot, self.generation).ok_or(JoinError::Full)?;
        let tokens = [key.token(Purpose::Receive), key.token(Purpose::Send)];
        // Engines may let their functions answer more than clients here are given: such a call gets an
        // error, and the link lives on.
        let payload_max = ipc::layout::PAYLOAD_LIMIT;
        let bytes_max = Limits::for_payloads(self.config.payload_max).partial_bytes_max;
        let partial_bytes_max = bytes_max.max(protocol::message::BLOCK_MAX);
        let limits = Limits { partial_bytes_max, ..Limits::for_payloads(payload_max) };
        let address = address(&established.socket);
        let link = Link::new(reactor, now, established, Side::Gateway, limits, tokens)?;
        let peer = Peer {
            key,
            link,
            identity: identity.clone(),
            epoch: hello.epoch,
            cores: hello.cores,
            address,
            since: now,
            stage: Stage::Serving,
            offers: HashMap::new(),
            given_up: 0,
            flush: Flush::Nothing,
        };
        self.metrics.count_join();
        tracing::info!("engine {} joins: {}", identity.node, peer.describe());
        let slot = self.peers.insert(peer);
        debug_assert_eq!(slot, key.slot(), "the vacant one was taken");
        self.identities.insert(identity, key);
        if let Some(old) = predecessor {
            self.lose(reactor, now, old, Loss::Replaced);
        }
        if self.stage == Stage::Draining
            && let Some(peer) = self.peer_mut(key)
        {
            peer.link.send_draining();
        }
        self.beat(reactor, now, key);
        self.hear(reactor, now, key);
        Ok(())
    }

    /// Takes an event whose token is [owned](super::owns). One of a link that is gone has no effect.
    pub fn on_event(&mut self, reactor: &mut Reactor, now: Nanos, event: Event) {
        let Some((key, purpose)) = event.token().and_then(LinkKey::parse) else { return };
        let Some(peer) = self.peer_mut(key) else { return };
        let result = match (purpose, event) {
            (Purpose::Receive, Event::Received { data, .. }) => peer.link.on_received(now, &data),
            (Purpose::Receive, Event::ReceiveEnded { error, .. }) => {
                let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
                Err(error.unwrap_or_else(end).into())
            }
            (Purpose::Send, Event::Sent { data, result, .. }) => {
                peer.link.on_sent(reactor, data, result)
            }
            // A link starts no other operations.
            _ => Ok(()),
        };
        self.mark(key);
        match result {
            Ok(()) => self.hear(reactor, now, key),
            Err(error) => self.lose(reactor, now, key, error.into()),
        }
    }

    /// Lets timers fire. To be called once a turn, behind the turn's events: what has arrived is looked
    /// at before anyone is blamed for silence.
    pub fn on_tick(&mut self, reactor: &mut Reactor, now: Nanos) {
        let mut expired = std::mem::take(&mut self.expired);
        self.wheel.expire(now, |due| expired.push(due));
        for due in expired.drain(..) {
            match due {
                Due::Link(key) => self.beat(reactor, now, key),
                Due::Call(key) => self.expire(now, key),
                Due::Resume(key, number) => self.resume(now, key, number),
                Due::Orphan(function) => self.orphan(now, function),
            }
        }
        self.expired = expired;
        if self.metrics.has_joined() && now >= self.published + self.publish_every() {
            self.published = now;
            self.publish(now);
        }
    }

    /// When `on_tick` is wanted next.
    #[must_use]
    pub fn next_timer(&self) -> Option<Nanos> {
        self.wheel.next()
    }

    /// Sends what was said. To be called once a turn, before the shard waits.
    pub fn flush(&mut self, reactor: &mut Reactor, now: Nanos) {
        // Ends: what is said while a link is lost is said on others, and each is lost once.
        while let Some(key) = self.owed.pop() {
            let Some(peer) = self.peer_mut(key) else { continue };
            peer.flush = Flush::Nothing;
            if let Err(error) = peer.link.flush(reactor) {
                self.lose(reactor, now, key, error.into());
            }
        }
    }

    /// The end of a call that was submitted, and whose it was.
    pub fn next_answer(&mut self) -> Option<(u64, Answer)> {
        self.answers.pop_front()
    }

    /// Tells engines that this gateway goes, so that they dial its successor. Calls go on.
    pub fn drain(&mut self) {
        if std::mem::replace(&mut self.stage, Stage::Draining) == Stage::Draining {
            return;
        }
        let keys: Vec<LinkKey> = self.peers.iter().map(|(_, peer)| peer.key).collect();
        for key in keys {
            if let Some(peer) = self.peer_mut(key) {
                peer.link.send_draining();
                self.mark(key);
            }
        }
    }

    /// Takes back what [`Remote::drain`] said, to those who come from now on. Engines that were told have
    /// links to here that serve on, until they dial again.
    pub fn stay(&mut self) {
        self.stage = Stage::Serving;
    }

    /// Says good-bye on every link. Calls that are still there end as lost.
    pub fn close(&mut self, reactor: &mut Reactor, now: Nanos) {
        let keys: Vec<LinkKey> = self.peers.iter().map(|(_, peer)| peer.key).collect();
        for key in keys {
            self.lose(reactor, now, key, Loss::Closing);
        }
    }

    /// No call is owed an answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.calls.len() == 0 && self.answers.is_empty()
    }

    /// Links that are there.
    #[must_use]
    pub fn links(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn peer(&self, key: LinkKey) -> Option<&Peer> {
        self.peers.get(key.slot()).filter(|peer| peer.key == key)
    }

    pub(super) fn peer_mut(&mut self, key: LinkKey) -> Option<&mut Peer> {
        self.peers.get_mut(key.slot()).filter(|peer| peer.key == key)
    }

    /// Something was said on a link.
    pub(super) fn mark(&mut self, key: LinkKey) {
        if let Some(peer) = self.peer_mut(key)
            && peer.flush == Flush::Nothing
        {
            peer.flush = Flush::Owed;
            self.owed.push(key);
        }
    }

    pub(super) fn location(&self, seat: SeatId) -> Option<Location> {
        self.seats.get(seat.index()).copied().flatten()
    }

    /// Asks an engine whether it is there, if that is due.
    fn beat(&mut self, reactor: &mut Reactor, now: Nanos, key: LinkKey) {
        let Some(peer) = self.peer_mut(key) else { return };
        match peer.link.tick(now) {
            Ok(()) => {
                // Whatever is heard meanwhile moves it: looked up when it fires.
                let next = peer.link.next_timer();
                self.wheel.insert(next, Due::Link(key));
                self.mark(key);
            }
            Err(error) => self.lose(reactor, now, key, error.into()),
        }
    }
}

fn address(socket: &OwnedFd) -> Option<SocketAddr> {
    let peer = getpeername::<SockaddrStorage>(socket.as_raw_fd()).ok()?;
    let v4 = peer.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
    v4.or_else(|| peer.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
}

impl Peer {
    fn describe(&self) -> String {
        let Identity { instance, connection, .. } = &self.identity;
        let (epoch, cores) = (self.epoch, self.cores);
        format!("instance {instance:016x}, connection {connection}, epoch {epoch}, {cores} cores")
    }
}
