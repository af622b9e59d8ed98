//! Connections of a shard: how they come in, and how they go to other shards.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use engine::mailbox::ToShard;
use gateway::{Arrival, Departed, Departure, Door};
use reactor::Token;
use reactor::clock::Nanos;

use super::{ACCEPT, Phase, Shard};
use crate::up::acceptor::{Acceptor, Waiting};
use crate::up::listeners::Listening;
use crate::up::passage::Message;
use crate::up::policy::Move;
use crate::up::rebalance::DEPARTURE_TIME;

impl Shard {
    pub(super) fn accept_from(&mut self, now: Nanos, listener: Arc<Listening>, door: Door) {
        let token = Token(ACCEPT + self.acceptors.len() as u64);
        self.acceptors.push(Acceptor::open(&mut self.reactor, listener, door, token));
        if self.phase != Phase::Serving {
            self.close_acceptors(now);
        }
    }

    /// Gives a connection to the shard that has room for it.
    pub(super) fn place(&mut self, now: Nanos, token: Token, socket: OwnedFd) {
        let door = self.acceptor(token).map_or(Door::Public, |acceptor| acceptor.door());
        let to = self.balance.loads.choose(now);
        let here = to == self.index || door != Door::Public || self.phase != Phase::Serving;
        let rest = if here {
            Err(socket)
        } else {
            self.balance.passage.send(&mut self.reactor, to, socket, Message::Accepted)
        };
        if let Err(socket) = rest {
            self.gateway.adopt(&mut self.reactor, now, Arrival { socket, door, tls: None });
        }
    }

    pub(super) fn acceptor(&mut self, token: Token) -> Option<&mut Acceptor> {
        self.acceptors.iter_mut().find(|acceptor| acceptor.token() == token)
    }

    pub(super) fn accept_ended(&mut self, now: Nanos, token: Token, error: &io::Error) {
        let Some(acceptor) = self.acceptor(token) else { return };
        let door = acceptor.door();
        if let Some(waiting) = acceptor.ended(now, error) {
            self.accept_the_rest(now, &waiting, door);
        }
    }

    pub(super) fn close_acceptors(&mut self, now: Nanos) {
        for index in 0..self.acceptors.len() {
            let acceptor = &mut self.acceptors[index];
            let door = acceptor.door();
            if let Some(waiting) = acceptor.close(&mut self.reactor) {
                self.accept_the_rest(now, &waiting, door);
            }
        }
    }

    /// Whoever had connected before the drain is served, here or by a successor; after that the listener
    /// closes, and the other shards learn that no connection will come from here any more.
    pub(super) fn accept_the_rest(&mut self, now: Nanos, waiting: &Waiting, door: Door) {
        for socket in waiting.accept() {
            self.gateway.adopt(&mut self.reactor, now, Arrival { socket, door, tls: None });
        }
        if door == Door::Public {
            self.engine.tell_siblings(|| ToShard::Drain);
        }
    }

    pub(super) fn receive(&mut self, now: Nanos, message: Option<Message>) {
        match message {
            Some(Message::Accepted(socket)) => {
                let arrival = Arrival { socket, door: Door::Public, tls: None };
                self.gateway.adopt(&mut self.reactor, now, arrival);
                self.balance.passage.arrived();
            }
            Some(Message::Moved(socket)) => {
                self.gateway.take_over(&mut self.reactor, now, socket);
                self.balance.passage.arrived();
            }
            Some(Message::SendAway { to, count }) => self.send_away(now, to, count),
            None => {}
        }
    }

    /// Connections that left the gateway go where they are wanted.
    pub(super) fn pass_connections(&mut self, now: Nanos) {
        let balance = &self.balance;
        while let Some(Departed { socket, to }) = self.gateway.next_departed() {
            match balance.passage.send(&mut self.reactor, to, socket, Message::Moved) {
                Ok(()) => balance.loads.count_move(self.index),
                Err(socket) => self.gateway.take_over(&mut self.reactor, now, socket),
            }
        }
        balance.loads.count(self.index, self.gateway.connections(), self.gateway.calling());
    }

    /// Looks at the cores, and has connections moved if that helps.
    pub(super) fn rebalance(&mut self, now: Nanos) {
        let Some(Move { from, to, count }) = self.balance.look(self.index, now) else { return };
        if from == self.index {
            self.send_away(now, to, count);
        } else {
            self.balance.passage.ask(&mut self.reactor, from, to, count);
        }
    }

    pub(super) fn send_away(&mut self, now: Nanos, to: u16, count: u32) {
        if self.phase == Phase::Serving {
            tracing::debug!("up to {count} connections move from shard {} to {to}", self.index);
            let departure = Departure { to, until: now + DEPARTURE_TIME };
            self.gateway.send_away(&mut self.reactor, now, count, departure);
        }
    }
}
