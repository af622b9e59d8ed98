//! The send of a link that is under way: one at a time, each attempt goes on where the last one ended.
//!
//! ```text
//!           start, own bytes alone
//!   Idle ------------------------------------------> Own ---- all out ----> Idle
//!     \                                               ^
//!      \ start, with bodies     call_back    ended    |  the rest, copied
//!       `--------------> Referring ------> CalledBack-'
//!                          |   ^  \
//!                          `---'   `---- all out ----> Idle
//!                       a part is out
//! ```
//! While a send refers to bodies, workers may wait for the memory that those lie in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use reactor::clock::Nanos;
use reactor::{Operation, Reactor, Token};

use crate::gather::{Gather, Held};
use crate::outbox::PIN_TIME;

/// Bytes of a vector that is kept for the next send: more is left over from a burst.
pub(crate) const KEPT_MAX: usize = 256 * 1024;
/// How long a peer may take nothing of what is sent to it, though it is alive otherwise.
pub const STALL: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Sender {
    token: Token,
    state: State,
    /// Bytes of the vectors under way that are out.
    sent: usize,
    /// Counts attempts and their ends.
    steps: u64,
    /// Of `steps`, and when that was seen first.
    seen: (u64, Nanos),
}

#[derive(Debug)]
enum State {
    Idle(Vec<u8>),
    /// Out of memory of our own.
    Own {
        /// Nothing is to follow it.
        quietly: bool,
    },
    /// Out of that, and then out of bodies where they lie.
    Referring {
        bodies: Rc<Gather>,
        operation: Operation,
        /// When it is called back, if a worker waits.
        until: Option<Nanos>,
    },
    /// The same, but cancelled: it ends with what the peer took after all.
    CalledBack {
        bodies: Rc<Gather>,
    },
}

/// Stands in while a state is made of the former one.
const OWN: State = State::Own { quietly: false };

impl Sender {
    pub(crate) fn new(token: Token, now: Nanos) -> Sender {
        Sender { token, state: State::Idle(Vec::new()), sent: 0, steps: 0, seen: (0, now) }
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle(_))
    }

    /// The vector for the next send, empty, if none is under way. [`Sender::start`] takes it back.
    pub(crate) fn take_idle(&mut self) -> Option<Vec<u8>> {
        let State::Idle(data) = &mut self.state else { return None };
        let mut data = std::mem::take(data);
        data.clear();
        Some(data)
    }

    /// Sends bytes and bodies, if there are any, when none is under way. `quietly`: nothing is to follow
    /// them so far.
    pub(crate) fn start(
        &mut self,
        reactor: &mut Reactor,
        socket: &OwnedFd,
        data: Vec<u8>,
        bodies: Option<Gather>,
        quietly: bool,
    ) {
        self.sent = 0;
        match bodies {
            None if data.is_empty() => self.state = State::Idle(data),
            None => self.send(reactor, socket, data, quietly),
            Some(bodies) => {
                let until = bodies.pinned_since().map(|since| since + PIN_TIME);
                self.refer(reactor, socket, data, Rc::new(bodies), until);
            }
        }
    }

    /// Something is to follow after all.
    pub(crate) fn hasten(&self, reactor: &mut Reactor) {
        if let State::Own { quietly: true } = self.state {
            reactor.hasten();
        }
    }

    /// Takes the end of an attempt.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(crate) fn on_sent(
        &mut self,
        reactor: &mut Reactor,
        socket: &OwnedFd,
        data: Vec<u8>,
        result: io::Result<usize>,
    ) -> io::Result<()> {
        let is_called_back = matches!(self.state, State::CalledBack { .. });
        self.sent += match result {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => count,
            Err(error) if is_called_back && error.raw_os_error() == Some(libc::ECANCELED) => 0,
            Err(error) => return Err(error),
        };
        self.steps += 1;
        let size = data.len() + self.bodies().map_or(0, |bodies| bodies.size());
        if self.sent >= size {
            let kept = if data.capacity() > KEPT_MAX { Vec::new() } else { data };
            self.state = State::Idle(kept);
            return Ok(());
        }
        match std::mem::replace(&mut self.state, OWN) {
            State::Referring { bodies, until, .. } => {
                self.refer(reactor, socket, data, bodies, until);
            }
            State::CalledBack { bodies } => {
                let rest = bodies.copy_rest(data, self.sent);
                self.sent = 0;
                self.send(reactor, socket, rest, false);
            }
            State::Own { .. } | State::Idle(_) => self.send(reactor, socket, data, false),
        }
        Ok(())
    }

    /// When a worker has waited for long enough.
    pub(crate) fn next_call_back(&self) -> Option<Nanos> {
        if let State::Referring { until, .. } = &self.state { *until } else { None }
    }

    /// Cancels a send that has kept a worker for too long; what is left of it is copied then.
    pub(crate) fn call_back(&mut self, reactor: &mut Reactor) {
        match std::mem::replace(&mut self.state, OWN) {
            State::Referring { bodies, operation, .. } => {
                reactor.cancel(operation);
                self.state = State::CalledBack { bodies };
            }
            other => self.state = other,
        }
    }

    /// How long the peer has taken nothing, if that is too long. To be asked a few times a second.
    pub(crate) fn stalled(&mut self, now: Nanos) -> Option<Duration> {
        let (steps, since) = self.seen;
        if self.is_idle() || steps != self.steps {
            self.seen = (self.steps, now);
            return None;
        }
        let silence = now.saturating_since(since);
        (silence >= STALL).then_some(silence)
    }

    fn bodies(&self) -> Option<&Gather> {
        match &self.state {
            State::Referring { bodies, .. } | State::CalledBack { bodies } => Some(bodies),
            State::Idle(_) | State::Own { .. } => None,
        }
    }

    fn send(&mut self, reactor: &mut Reactor, socket: &OwnedFd, data: Vec<u8>, quietly: bool) {
        self.steps += 1;
        self.state = State::Own { quietly };
        if quietly {
            reactor.send_quietly(socket.as_fd(), data, self.sent, self.token);
        } else {
            reactor.send(socket.as_fd(), data, self.sent, self.token);
        }
    }

    fn refer(
        &mut self,
        reactor: &mut Reactor,
        socket: &OwnedFd,
        data: Vec<u8>,
        bodies: Rc<Gather>,
        until: Option<Nanos>,
    ) {
        self.steps += 1;
        let held = Box::new(Held(Rc::clone(&bodies)));
        let operation = reactor.send_with_body(socket.as_fd(), data, held, self.sent, self.token);
        self.state = State::Referring { bodies, operation, until };
    }
}
