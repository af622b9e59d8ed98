//! One listening socket on a shard's ring, from its first connection to its last.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use gateway::Door;
use nix::sys::socket::{SockFlag, accept4};
use reactor::clock::Nanos;
use reactor::{Operation, Reactor, Token};

use super::listeners::Listening;

/// After an accept that failed for lack of descriptors or memory: time for some to become free.
const PAUSE: Duration = Duration::from_millis(100);
/// While descriptors or memory are out, this is told so often.
const PAUSE_TOLD_EVERY: Duration = Duration::from_secs(10);

/// See the module's description.
pub(super) struct Acceptor {
    door: Door,
    token: Token,
    state: State,
    /// A pause before that is no news.
    pause_told_again: Nanos,
}

/// A listener that is to be closed, and whose connections are to be taken in before.
pub(super) struct Waiting(Arc<Listening>);

enum State {
    Open {
        listener: Arc<Listening>,
        operation: Operation,
    },
    /// Out of descriptors: tried again later.
    Paused {
        listener: Arc<Listening>,
        until: Nanos,
    },
    /// The ring's accept is being cancelled.
    Closing {
        listener: Arc<Listening>,
    },
    Closed,
}

impl Acceptor {
    /// Accepts from a socket that listens already.
    pub(super) fn open(
        reactor: &mut Reactor,
        listener: Arc<Listening>,
        door: Door,
        token: Token,
    ) -> Acceptor {
        let operation = reactor.accept(listener.as_fd(), token);
        let state = State::Open { listener, operation };
        Acceptor { door, token, state, pause_told_again: Nanos(0) }
    }

    /// What those who connect may ask for.
    pub(super) fn door(&self) -> Door {
        self.door
    }

    /// Of its operation.
    pub(super) fn token(&self) -> Token {
        self.token
    }

    /// Whether no connection comes any more.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// When [`Acceptor::tick`] is wanted next.
    pub(super) fn next_timer(&self) -> Option<Nanos> {
        match &self.state {
            State::Paused { until, .. } => Some(*until),
            _ => None,
        }
    }

    /// Goes on behind a pause.
    pub(super) fn tick(&mut self, reactor: &mut Reactor, now: Nanos) {
        if !matches!(&self.state, State::Paused { until, .. } if *until <= now) {
            return;
        }
        if let State::Paused { listener, .. } = std::mem::replace(&mut self.state, State::Closed) {
            let operation = reactor.accept(listener.as_fd(), self.token);
            self.state = State::Open { listener, operation };
        }
    }

    /// Takes the end of its operation. What it returns is the listener, if it is to be closed.
    pub(super) fn ended(&mut self, now: Nanos, error: &io::Error) -> Option<Waiting> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Open { listener, .. } => {
                if now >= self.pause_told_again {
                    tracing::warn!("accepting pauses: {error}");
                    self.pause_told_again = now + PAUSE_TOLD_EVERY;
                }
                self.state = State::Paused { listener, until: now + PAUSE };
                None
            }
            State::Closing { listener } => Some(Waiting(listener)),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Begins to close. Returns the listener as [`Acceptor::ended`] does, where nothing is to be waited
    /// for.
    pub(super) fn close(&mut self, reactor: &mut Reactor) -> Option<Waiting> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Open { listener, operation } => {
                reactor.cancel(operation);
                self.state = State::Closing { listener };
                None
            }
            State::Paused { listener, .. } => Some(Waiting(listener)),
            other => {
                self.state = other;
                None
            }
        }
    }
}

impl Waiting {
    /// Whoever has connected and is ours.
    pub(super) fn accept(&self) -> impl Iterator<Item = OwnedFd> + '_ {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        std::iter::from_fn(move || {
            if self.0.is_successors() {
                return None;
            }
            let fd = accept4(self.0.as_raw_fd(), flags).ok()?;
            // SAFETY: accept4 has just made this descriptor for us, and nobody else knows it.
            Some(unsafe { OwnedFd::from_raw_fd(fd) })
        })
    }
}
