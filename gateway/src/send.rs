//! Answers on their way out. A send is one attempt that may be short; what is left is sent again.
//! A body that goes straight out of a function's memory does so once: if the client does not
//! take all of it at once, or nothing for a moment, the rest is copied, so that no client can
//! keep a worker from its next call.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use ipc::engine_side::SharedSlice;
use reactor::{Operation, Reactor};

use crate::answer::Outgoing;
use crate::body::Body;
use crate::key::{Key, Purpose};
use crate::shared::Io;

/// How long a client that takes nothing may keep a function's memory. A client that reads takes
/// its first bytes within a round trip.
const PIN_TIME: Duration = Duration::from_millis(50);

/// What a completed send led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The rest is being sent.
    Moved,
    Done,
    Broken,
}

/// An answer, queued or in flight.
pub(crate) struct Sending {
    total: usize,
    sent: usize,
    source: Source,
}

enum Source {
    /// Waits for an interim answer to leave.
    Queued(Outgoing),
    /// In flight out of our own memory.
    Own,
    /// In flight out of a function's memory.
    Pinned { payload: SharedSlice, operation: Operation },
    /// The same, but called back: the client is slow.
    Unpinning { payload: SharedSlice },
}

impl Sending {
    pub(crate) fn new(outgoing: Outgoing) -> Sending {
        let total = match &outgoing {
            Outgoing::Bytes(bytes) => bytes.len(),
            Outgoing::WithBody(head, body) => head.len() + body.payload().len(),
        };
        Sending { total, sent: 0, source: Source::Queued(outgoing) }
    }

    /// Bytes of the whole answer. Asked before the first of them is sent.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Replaces what is queued, before anything of it is sent.
    pub(crate) fn replace(&mut self, seal: impl FnOnce(Outgoing) -> Vec<u8>) {
        match std::mem::replace(&mut self.source, Source::Own) {
            Source::Queued(outgoing) => {
                let sealed = seal(outgoing);
                self.total = sealed.len();
                self.source = Source::Queued(Outgoing::Bytes(sealed));
            }
            in_flight => self.source = in_flight,
        }
    }

    pub(crate) fn is_pinned(&self) -> bool {
        matches!(self.source, Source::Pinned { .. })
    }

    /// Sends what is queued, and says how long this first attempt may take. `quietly`: nothing is to
    /// follow it.
    pub(crate) fn start(
        &mut self,
        io: &mut Io<'_>,
        socket: &OwnedFd,
        key: Key,
        quietly: bool,
    ) -> Duration {
        let token = key.token(Purpose::Send);
        match std::mem::replace(&mut self.source, Source::Own) {
            Source::Queued(Outgoing::Bytes(bytes)) if quietly => {
                io.reactor.send_quietly(socket.as_fd(), bytes, 0, token);
            }
            Source::Queued(Outgoing::Bytes(bytes)) => {
                io.reactor.send(socket.as_fd(), bytes, 0, token);
            }
            Source::Queued(Outgoing::WithBody(head, body)) => {
                self.source = pin(io.reactor, socket, key, head, body);
            }
            in_flight => self.source = in_flight,
        }
        if self.is_pinned() { PIN_TIME } else { io.shared.config.write_timeout }
    }

    /// Calls a body back. Its send ends as cancelled, or with what the client took after all.
    pub(crate) fn unpin(&mut self, reactor: &mut Reactor) {
        match std::mem::replace(&mut self.source, Source::Own) {
            Source::Pinned { payload, operation } => {
                reactor.cancel(operation);
                self.source = Source::Unpinning { payload };
            }
            other => self.source = other,
        }
    }

    pub(crate) fn step(
        &mut self,
        io: &mut Io<'_>,
        socket: &OwnedFd,
        key: Key,
        data: Vec<u8>,
        result: io::Result<usize>,
    ) -> Step {
        let called_back = matches!(self.source, Source::Unpinning { .. });
        let count = match result {
            Ok(count) if count > 0 => count,
            Err(error) if called_back && error.raw_os_error() == Some(libc::ECANCELED) => 0,
            Ok(_) | Err(_) => {
                io.shared.pool.put(data);
                return Step::Broken;
            }
        };
        io.shared.metrics.bytes_out += count as u64;
        self.sent += count;
        let source = std::mem::replace(&mut self.source, Source::Own);
        if self.sent >= self.total {
            io.shared.pool.put(data);
            return Step::Done;
        }
        let (rest, from) = match source {
            Source::Pinned { payload, .. } | Source::Unpinning { payload } => {
                let rest = copy_rest(data, &payload, self.sent);
                (self.total, self.sent) = (rest.len(), 0);
                (rest, 0)
            }
            Source::Own | Source::Queued(_) => (data, self.sent),
        };
        io.reactor.send(socket.as_fd(), rest, from, key.token(Purpose::Send));
        Step::Moved
    }
}

fn pin(reactor: &mut Reactor, socket: &OwnedFd, key: Key, head: Vec<u8>, body: Body) -> Source {
    let payload = body.payload();
    let token = key.token(Purpose::Send);
    let operation = reactor.send_with_body(socket.as_fd(), head, Box::new(body), 0, token);
    Source::Pinned { payload, operation }
}

/// What has not been sent of `head` and `payload`, in the vector of `head`.
fn copy_rest(mut head: Vec<u8>, payload: &SharedSlice, sent: usize) -> Vec<u8> {
    let of_payload = sent.saturating_sub(head.len());
    head.drain(..sent.min(head.len()));
    head.reserve(payload.len() - of_payload);
    payload.slice(of_payload..payload.len()).append_to(&mut head);
    head
}

/// What goes ahead of an answer: `100 Continue`, or what TLS has to say by itself.
pub(crate) enum Interim {
    None,
    InFlight { sent: usize },
}

impl Interim {
    pub(crate) fn is_in_flight(&self) -> bool {
        matches!(self, Interim::InFlight { .. })
    }

    /// Sends `data`, unless something of the kind is on its way.
    pub(crate) fn start(&mut self, io: &mut Io<'_>, socket: &OwnedFd, key: Key, data: Vec<u8>) {
        if self.is_in_flight() {
            return io.shared.pool.put(data);
        }
        io.reactor.send(socket.as_fd(), data, 0, key.token(Purpose::SendInterim));
        *self = Interim::InFlight { sent: 0 };
    }

    pub(crate) fn step(
        &mut self,
        io: &mut Io<'_>,
        socket: &OwnedFd,
        key: Key,
        data: Vec<u8>,
        result: io::Result<usize>,
    ) -> Step {
        let (Interim::InFlight { sent }, Ok(count @ 1..)) = (&mut *self, result) else {
            io.shared.pool.put(data);
            return Step::Broken;
        };
        io.shared.metrics.bytes_out += count as u64;
        *sent += count;
        if *sent >= data.len() {
            io.shared.pool.put(data);
            *self = Interim::None;
            return Step::Done;
        }
        io.reactor.send(socket.as_fd(), data, *sent, key.token(Purpose::SendInterim));
        Step::Moved
    }
}
