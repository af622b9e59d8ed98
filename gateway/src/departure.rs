//! How a connection leaves for another shard: between two requests, with nothing of it left here.
//!
//! The receive is cancelled before the answer goes out, or at once if no request is in progress, and
//! its end is awaited. What it brought until then is served here; what the client sends later stays in
//! the socket, where the next shard's receive finds it. So no byte is lost or overtaken, and a client
//! that sends its next request as soon as it has its answer does not keep its connection here.
//!
//! ```text
//!              answer goes out,          end of the receive,
//!              or nothing to do          answer is out, nothing buffered
//!   Armed ───────────────────► Stopping ───────────────────────────────► (gone)
//!     ▲                            │ end of the receive, but bytes are buffered, a request has
//!     └────────────────────────────┘ begun, or the host drains
//! ```

use std::os::fd::OwnedFd;

use reactor::clock::Nanos;

use crate::arrival::Door;
use crate::connection::{Admission, Connection, Fate, Receiving, State};
use crate::http::head::Persistence;
use crate::shared::{Io, Stage};

/// Where connections shall go.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// The shard that shall have them.
    pub to: u16,
    /// Who could not leave until then stays: behind a long call, the reason to leave is history.
    pub until: Nanos,
}

/// A connection that has left the gateway.
#[derive(Debug)]
pub struct Departed {
    /// Nobody waits on it, and nothing that was read from it is unanswered.
    pub socket: OwnedFd,
    /// The shard that shall have it.
    pub to: u16,
}

impl Connection {
    /// Asks the connection to leave. A refused one, and one that is about to close, has no use for it; only the
    /// public door's are many enough to be worth it. One with TLS stays: its keys do not fit into a message.
    pub(crate) fn send_away(&mut self, io: &mut Io<'_>, departure: Departure) {
        if self.admission == Admission::Refused || self.door != Door::Public {
            return;
        }
        if !self.transport.is_plain() {
            return;
        }
        self.departure = Some(departure);
        // During a call the receive must stay: it tells that the client is gone.
        if matches!(self.state, State::Idle | State::Sending(_)) {
            self.prepare_departure(io);
        }
    }

    /// Stops receiving if the connection could leave behind the answer that is about to go out.
    pub(crate) fn prepare_departure(&mut self, io: &mut Io<'_>) {
        if self.destination(io).is_some()
            && let Receiving::Armed(operation) = self.receiving
        {
            io.reactor.cancel(operation);
            io.reactor.hasten();
            self.receiving = Receiving::Stopping;
        }
    }

    /// Decides for a connection that does not receive: it leaves, waits for its answer to be out, or
    /// receives again.
    pub(crate) fn leave_or_resume(&mut self, io: &mut Io<'_>) -> Fate {
        let destination = self.destination(io);
        match (&self.receiving, destination, &self.state) {
            (Receiving::Stopped, Some(to), State::Idle) => return Fate::Leaves(to),
            (Receiving::Stopped, Some(_), State::Sending(_)) => {}
            _ => self.resume(io),
        }
        Fate::Open
    }

    /// Gives up everything but the socket.
    pub(crate) fn depart(mut self, io: &mut Io<'_>, to: u16) -> Departed {
        self.deadline.disarm(&mut io.shared.wheel);
        Departed { socket: self.socket, to }
    }

    /// Where the connection goes at the end of the request in progress, as far as can be said now.
    fn destination(&mut self, io: &Io<'_>) -> Option<u16> {
        let departure = self.departure?;
        if departure.until < io.now || io.shared.stage == Stage::Draining {
            self.departure = None;
            return None;
        }
        let idle = matches!(self.state, State::Idle);
        let goes_on = matches!(self.state, State::Sending(_))
            && self.exchange.persistence == Persistence::KeepAlive;
        let whole = self.backlog.is_empty() && !self.interim.is_in_flight();
        ((idle || goes_on) && whole).then_some(departure.to)
    }
}
