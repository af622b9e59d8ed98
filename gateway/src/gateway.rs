//! The connections of one shard: finds the one an event is about, lets it take its step, and
//! buries those that ended.

use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};

use reactor::clock::Nanos;
use reactor::{Event, Reactor, Token};
use slab::Slab;

use crate::arrival::{Arrival, Door};
use crate::config::Config;
use crate::connection::{Admission, Connection, Fate};
use crate::departure::{Departed, Departure};
use crate::key::{self, CONNECTIONS_LIMIT, Key, Purpose};
use crate::lifecycle::Incident;
use crate::shared::{Io, Shared, Stage};
use crate::upstream::{Answer, Upstream};

/// Connections over the limit that are being told so at once; the next ones are just closed.
const REFUSALS_MAX: usize = 256;

/// One shard's front end. Everything in it belongs to the shard's thread.
pub struct Gateway {
    connections: Slab<Connection>,
    shared: Shared,
    /// Of the next connection.
    generation: u32,
    /// Reused by `on_tick`; empty in between.
    expired: Vec<Key>,
    /// Connections that left and were not fetched yet. At most as many as one `send_away` named.
    departed: Vec<Departed>,
}

impl Gateway {
    /// A gateway without connections.
    pub fn new(config: Config, shard: u16) -> Gateway {
        Gateway {
            connections: Slab::new(),
            shared: Shared::new(config, shard),
            generation: 0,
            expired: Vec::new(),
            departed: Vec::new(),
        }
    }

    /// Whether an event with this token is for [`Gateway::on_event`].
    pub fn owns(token: Token) -> bool {
        key::is_ours(token)
    }

    /// Takes a connection that was accepted.
    pub fn adopt(&mut self, reactor: &mut Reactor, now: Nanos, arrival: Arrival) {
        let _ = self.admit_or_refuse(reactor, now, arrival);
    }

    /// The same for a connection with TLS: what came with its handshake is looked at at once.
    pub fn adopt_secured(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        upstream: &mut impl Upstream,
        arrival: Arrival,
    ) {
        if let Some(key) = self.admit_or_refuse(reactor, now, arrival) {
            self.step(reactor, now, key.caller(), |connection, io, _| {
                connection.on_ciphertext(io, upstream, &[])
            });
        }
    }

    fn admit_or_refuse(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        arrival: Arrival,
    ) -> Option<Key> {
        let socket = &arrival.socket;
        let open = self.connections.len();
        let Config { connections_max, descriptors, .. } = &self.shared.config;
        let number = u64::try_from(socket.as_raw_fd()).unwrap_or(0);
        let over = self.shared.served >= (*connections_max).min(CONNECTIONS_LIMIT)
            || number >= descriptors.served_below;
        let close_at_once = number >= descriptors.answered_below;
        let admission = if over { Admission::Refused } else { Admission::Served };
        match admission {
            Admission::Served => {
                self.shared.metrics.accepted += 1;
                self.shared.served += 1;
            }
            Admission::Refused => {
                self.shared.metrics.refused += 1;
                if close_at_once || open >= self.shared.served as usize + REFUSALS_MAX {
                    reactor.close(arrival.socket);
                    return None;
                }
            }
        }
        self.admit(reactor, now, arrival, admission)
    }

    /// Takes a connection that left another shard's gateway. It was admitted there, so the limit is
    /// not asked again.
    pub fn take_over(&mut self, reactor: &mut Reactor, now: Nanos, socket: OwnedFd) {
        self.shared.served += 1;
        let arrival = Arrival { socket, door: Door::Public, tls: None };
        let _ = self.admit(reactor, now, arrival, Admission::Served);
    }

    fn admit(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        arrival: Arrival,
        admission: Admission,
    ) -> Option<Key> {
        let Arrival { socket, door, tls } = arrival;
        // Answers are written whole, so there is nothing for Nagle's algorithm to gather; with
        // it, an answer behind another would wait for the client's delayed ACK.
        let stream = TcpStream::from(socket);
        // Fails only for what is not TCP, and is not needed there.
        let _ = stream.set_nodelay(true);
        self.generation = self.generation.wrapping_add(1);
        let entry = self.connections.vacant_entry();
        let Some(key) = Key::new(entry.key(), self.generation) else {
            if admission == Admission::Served {
                self.shared.served -= 1;
            }
            reactor.close(stream.into());
            return None;
        };
        let mut io = Io { shared: &mut self.shared, reactor, now };
        let arrival = Arrival { socket: stream.into(), door, tls };
        entry.insert(Connection::adopt(&mut io, key, arrival, admission));
        Some(key)
    }

    /// Takes an event whose token is [owned](Gateway::owns). An event of a connection that is
    /// gone has no effect.
    pub fn on_event(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        upstream: &mut impl Upstream,
        event: Event,
    ) {
        match event {
            Event::Received { token, data } => {
                self.step(reactor, now, token.0, |connection, io, _| {
                    connection.on_received(io, upstream, data)
                });
            }
            Event::ReceiveEnded { token, error } => {
                self.step(reactor, now, token.0, |connection, io, _| {
                    connection.on_receive_ended(io, upstream, error)
                });
            }
            Event::Sent { token, data, body, result } => {
                self.step(reactor, now, token.0, |connection, io, purpose| match purpose {
                    Purpose::SendInterim => connection.on_interim_sent(io, upstream, data, result),
                    _ => connection.on_sent(io, upstream, data, result),
                });
                // Only now: what the client did not take has been copied out of it.
                drop(body);
            }
            // The gateway starts no other operations.
            _ => {}
        }
    }

    /// Takes the answer to a call that the upstream accepted from `caller`.
    pub fn on_answer(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        _upstream: &mut impl Upstream,
        caller: u64,
        answer: Answer,
    ) {
        self.step(reactor, now, caller, |connection, io, _| {
            connection.on_answer(io, answer);
            Fate::Open
        });
    }

    /// Lets timers fire. To be called when [`Gateway::next_timer`] has come, or at any time.
    pub fn on_tick(&mut self, reactor: &mut Reactor, now: Nanos, upstream: &mut impl Upstream) {
        let mut expired = std::mem::take(&mut self.expired);
        self.shared.wheel.expire(now, |key| expired.push(key));
        for key in expired.drain(..) {
            self.step(reactor, now, key.caller(), |connection, io, _| {
                connection.on_timer(io, upstream)
            });
        }
        self.expired = expired;
    }

    /// When `on_tick` is wanted next.
    pub fn next_timer(&self) -> Option<Nanos> {
        self.shared.wheel.next()
    }

    /// From now on every answer is the last of its connection, and idle connections are closed
    /// after a short grace. Listening is the owner's to stop.
    pub fn drain(&mut self, reactor: &mut Reactor, now: Nanos, upstream: &mut impl Upstream) {
        self.shared.stage = Stage::Draining;
        let keys: Vec<Key> = self.connections.iter().map(|(_, open)| open.key).collect();
        for key in keys {
            self.step(reactor, now, key.caller(), |connection, io, _| {
                connection.on_incident(io, upstream, Incident::Drain)
            });
        }
    }

    /// Asks `count` connections, spread evenly over all, to leave: at once where no request is in
    /// progress, else behind the answer. They come out of [`Gateway::next_departed`].
    pub fn send_away(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        count: u32,
        departure: Departure,
    ) {
        let open = self.connections.len();
        let mut io = Io { shared: &mut self.shared, reactor, now };
        // A new connection takes the lowest free place, so neighbours are of one age and, often, of
        // one client: every n-th is a fairer part than the first ones.
        let mut owed = 0;
        for (_, connection) in &mut self.connections {
            owed += count as usize;
            if owed >= open {
                owed -= open;
                connection.send_away(&mut io, departure);
            }
        }
    }

    /// A connection that left. It is the owner's to pass on.
    pub fn next_departed(&mut self) -> Option<Departed> {
        self.departed.pop()
    }

    /// Connections that are served.
    pub fn connections(&self) -> u32 {
        self.shared.served
    }

    /// Connections that wait for the answer to a call.
    pub fn calling(&self) -> u32 {
        self.shared.calling
    }

    /// No connection is left.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// The gateway's own metrics, as `/metrics` of this shard has them.
    pub fn metrics(&self, out: &mut String) {
        self.shared.metrics.write(self.shared.shard, self.shared.served as usize, out);
    }

    /// Lets the connection that `word` names take a step, if it is still there.
    fn step(
        &mut self,
        reactor: &mut Reactor,
        now: Nanos,
        word: u64,
        step: impl FnOnce(&mut Connection, &mut Io<'_>, Purpose) -> Fate,
    ) {
        let Some((key, purpose)) = Key::parse(word) else { return };
        let mut io = Io { shared: &mut self.shared, reactor, now };
        let connection = self.connections.get_mut(key.slot());
        let Some(connection) = connection.filter(|connection| connection.key == key) else {
            return;
        };
        let fate = step(connection, &mut io, purpose);
        if fate == Fate::Open {
            return;
        }
        let connection = self.connections.remove(key.slot());
        if connection.admission == Admission::Served {
            io.shared.served -= 1;
        }
        match fate {
            Fate::Leaves(to) => self.departed.push(connection.depart(&mut io, to)),
            Fate::Open | Fate::Closed => connection.close(&mut io),
        }
    }
}
