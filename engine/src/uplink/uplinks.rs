//! All links of a shard: what comes in on them, what goes out, and how they end.

use std::collections::VecDeque;
use std::sync::Arc;

use protocol::message::{BLOCK_MAX, Message};
use protocol::{Established, Limits, Link, LinkError, ProtocolError, Side};
use reactor::clock::Nanos;
use reactor::{Event, Reactor};
use slab::Slab;

use super::call::{Desk, Outgoing, Taken};
use super::calls::{Calls, Pending};
use super::end::Why;
use super::key::{Key, Purpose};
use super::numbers::Numbers;
use super::peer::{Identity, Listed, Loads, Notice, Peer, Phase};
use super::report::Reports;
use super::stats::{Cell, Stats};
use crate::core::Caller;
use crate::io::{Answer, Engine};

/// Links of one shard at most: far beyond the gateways that anybody has.
const LINKS_MAX: usize = 4096;

/// What gateways may make a shard keep.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of one payload that a function is given.
    pub payload_max: u32,
    /// Bytes of answers that wait for one gateway: a link that has more is closed.
    pub queued_max: usize,
}

impl Bounds {
    /// For payloads of that size: the answers that may wait are what a gateway takes in at once.
    #[must_use]
    pub fn for_payloads(payload_max: u32) -> Bounds {
        let queued_max = Limits::for_payloads(payload_max).partial_bytes_max;
        Bounds { payload_max, queued_max }
    }

    /// A gateway may let its clients send more than functions here are given: such a call gets an
    /// answer, and the link lives on. What is under way at once has the same bound in any case.
    fn limits(&self) -> Limits {
        let limits = Limits::for_payloads(self.payload_max);
        let payload_max = ipc::layout::PAYLOAD_LIMIT;
        let partial_bytes_max = limits.partial_bytes_max.max(BLOCK_MAX);
        Limits { payload_max, partial_bytes_max, ..limits }
    }
}

/// Whether this engine takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    /// What is there is answered; links end behind their last answers.
    Draining,
}

/// See the module's description.
pub struct Uplinks {
    bounds: Bounds,
    shard: u16,
    peers: Slab<Peer>,
    /// Counts the links, ever.
    generation: u32,
    calls: Calls,
    numbers: Numbers,
    reports: Reports,
    stage: Stage,
    /// Links that may have something to send.
    listed: Vec<Key>,
    /// No link's timer is earlier.
    timer: Option<Nanos>,
    notices: VecDeque<Notice>,
    scratch: Vec<u8>,
    stats: Arc<Stats>,
}

impl Uplinks {
    /// None yet. `stats` has a cell for the shard.
    #[must_use]
    pub fn new(shard: u16, bounds: Bounds, stats: Arc<Stats>) -> Uplinks {
        Uplinks {
            bounds,
            shard,
            peers: Slab::new(),
            generation: 0,
            calls: Calls::default(),
            numbers: Numbers::default(),
            reports: Reports::default(),
            stage: Stage::Serving,
            listed: Vec::new(),
            timer: None,
            notices: VecDeque::new(),
            scratch: Vec::new(),
            stats,
        }
    }

    /// Takes a link that was dialled and proved. Its end is told by [`Self::next_notice`], always.
    pub fn add(
        &mut self,
        engine: &mut Engine,
        reactor: &mut Reactor,
        now: Nanos,
        established: Established,
        identity: Identity,
    ) {
        let key = Key::new(self.peers.vacant_key(), self.generation);
        let full = self.peers.len() >= LINKS_MAX || self.stage == Stage::Draining;
        let (Some(key), false) = (key, full) else {
            // Dropped, it closes: the gateway has not been promised anything.
            return self.notices.push_back(Notice::Ended { epoch: identity.epoch });
        };
        self.generation = self.generation.wrapping_add(1);
        let (side, limits) = (Side::Engine, self.bounds.limits());
        let link = match Link::new(reactor, now, established, side, limits, key.tokens()) {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!("a link to gateway {} did not begin: {error}", identity.gateway);
                return self.notices.push_back(Notice::Ended { epoch: identity.epoch });
            }
        };
        engine.watch_loads();
        self.timer = Some(self.timer.map_or(link.next_timer(), |at| at.min(link.next_timer())));
        tracing::debug!("shard {} has a link to gateway {}", self.shard, identity.gateway);
        self.peers.insert(Peer::new(key, identity, link));
        self.cell().opened.add(1);
        self.cell().links.set(self.peers.len() as u64);
        if !self.announce(engine) {
            self.send_functions(key);
            self.report_all(engine);
        }
        self.read(engine, reactor, now, key);
    }

    /// Handles an event whose token [`super::owns`].
    pub fn on_event(
        &mut self,
        engine: &mut Engine,
        reactor: &mut Reactor,
        now: Nanos,
        event: Event,
    ) {
        let Some((key, purpose)) = event.token().and_then(|token| Key::parse(token.0)) else {
            return;
        };
        let Some(peer) = peer(&mut self.peers, key) else { return };
        let result = match event {
            Event::Received { data, .. } => {
                self.stats.cell(self.shard).received_bytes.add(data.len() as u64);
                peer.link.on_received(now, &data)
            }
            Event::ReceiveEnded { error, .. } => Err(LinkError::Io(error.unwrap_or_else(|| {
                std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the gateway closed it")
            }))),
            Event::Sent { data, result, .. } => {
                if let Ok(count) = &result {
                    self.stats.cell(self.shard).sent_bytes.add(*count as u64);
                }
                peer.link.on_sent(reactor, data, result)
            }
            _ => Ok(()),
        };
        match result {
            Err(error) => self.end(engine, reactor, now, key, Why::Error(error)),
            Ok(()) => {
                self.list(key);
                if purpose == Purpose::Receive {
                    self.read(engine, reactor, now, key);
                }
            }
        }
    }

    /// Takes an answer whose caller [`super::owns_caller`].
    pub fn on_answer(&mut self, caller: Caller, answer: Answer) {
        let Some(Pending { peer, stream, .. }) = self.calls.answered(caller) else { return };
        let outgoing = Outgoing::new(answer, &mut self.scratch);
        if let Some(found) = self::peer(&mut self.peers, peer) {
            found.streams.remove(&stream);
            self.send(peer, stream, outgoing);
        }
    }

    /// Asks gateways that have been silent whether they are there, and lets workers go whose answers a
    /// slow one keeps. To be called once a turn, behind the turn's events.
    pub fn tick(&mut self, engine: &mut Engine, reactor: &mut Reactor, now: Nanos) {
        if self.timer.is_none_or(|at| now < at) {
            return;
        }
        let mut dead = Vec::new();
        self.timer = None;
        for (_, peer) in &mut self.peers {
            match peer.link.tick(now) {
                Ok(()) => {}
                Err(error) => dead.push((peer.key, error)),
            }
            let next = peer.link.next_timer();
            self.timer = Some(self.timer.map_or(next, |at| at.min(next)));
            if std::mem::replace(&mut peer.listed, Listed::Yes) == Listed::No {
                self.listed.push(peer.key);
            }
        }
        for (key, error) in dead {
            self.end(engine, reactor, now, key, Why::Error(error));
        }
    }

    /// Sends what the turn has brought up. To be called once a turn, before it waits.
    pub fn flush(&mut self, engine: &mut Engine, reactor: &mut Reactor, now: Nanos) {
        if self.peers.is_empty() {
            return;
        }
        self.announce(engine);
        let loads = self.reports.take(engine, &self.numbers, now);
        if !loads.is_empty() {
            self.send_loads(&loads);
        }
        while let Some(key) = self.listed.pop() {
            self.catch_up(key);
            let Some(peer) = peer(&mut self.peers, key) else { continue };
            peer.listed = Listed::No;
            match peer.link.flush(reactor) {
                Err(error) => self.end(engine, reactor, now, key, Why::Error(error)),
                Ok(()) if peer.link.queued_bytes() > self.bounds.queued_max => {
                    self.end(engine, reactor, now, key, Why::Slow);
                }
                // A worker may wait for what is sent.
                Ok(()) => {
                    let next = peer.link.next_timer();
                    self.timer = Some(self.timer.map_or(next, |at| at.min(next)));
                }
            }
        }
        if self.stage == Stage::Draining {
            self.end_drained(engine, reactor, now);
        }
    }

    /// When the loop must turn again even if nothing happens.
    #[must_use]
    pub fn next_timer(&self, engine: &Engine, now: Nanos) -> Option<Nanos> {
        let timer = self.timer.filter(|_| !self.peers.is_empty())?;
        Some(self.reports.next(engine, now).map_or(timer, |at| at.min(timer)))
    }

    /// What whoever dials is to know; drain it once a turn.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Takes no further call, says so to all gateways, and ends each link behind its last answer.
    pub fn drain(&mut self) {
        if std::mem::replace(&mut self.stage, Stage::Draining) == Stage::Draining {
            return;
        }
        for (_, peer) in &mut self.peers {
            peer.link.send_draining();
        }
        self.list_all();
    }

    /// Whether no link is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Calls whose answers are owed.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.count()
    }

    /// The caller of a call whose answer is owed.
    #[cfg(test)]
    pub(super) fn any_caller(&self) -> Option<Caller> {
        let mut streams = self.peers.iter().flat_map(|(_, peer)| peer.streams.values());
        streams.next().map(|call| call.caller())
    }

    fn cell(&self) -> &Cell {
        self.stats.cell(self.shard)
    }

    /// Handles the messages that have come.
    fn read(&mut self, engine: &mut Engine, reactor: &mut Reactor, now: Nanos, key: Key) {
        // A call is never passed to a version that has left.
        self.announce(engine);
        loop {
            let Some(peer) = peer(&mut self.peers, key) else { return };
            let (stream, taken) = match peer.link.next_message() {
                Ok(None) => return,
                Err(error) => return self.end(engine, reactor, now, key, Why::Error(error)),
                Ok(Some(Message::Call { stream, head, block })) => {
                    let mut desk = Desk {
                        engine: &mut *engine,
                        reactor: &mut *reactor,
                        now,
                        numbers: &self.numbers,
                        calls: &mut self.calls,
                        payload_max: self.bounds.payload_max,
                        draining: self.stage == Stage::Draining,
                    };
                    let taken = if peer.streams.contains_key(&stream) {
                        Taken::Broken(ProtocolError::StreamBusy(stream))
                    } else {
                        desk.take(key, stream, &head, block.bytes())
                    };
                    (stream, taken)
                }
                Ok(Some(Message::Cancel { stream })) => {
                    self.cancel(engine, reactor, now, key, stream);
                    continue;
                }
                Ok(Some(Message::Draining)) => {
                    if std::mem::replace(&mut peer.phase, Phase::Draining) == Phase::Serving {
                        let epoch = peer.identity.epoch;
                        self.notices.push_back(Notice::Draining { epoch });
                    }
                    continue;
                }
                // What a gateway never says, the link has refused.
                Ok(Some(_)) => continue,
            };
            self.stats.cell(self.shard).calls.add(1);
            match taken {
                Taken::Yes(call) => _ = peer.streams.insert(stream, call),
                Taken::Refused(refusal) => {
                    self.cell().refused.add(1);
                    self.send(key, stream, Outgoing::refused(&refusal));
                }
                Taken::Broken(error) => {
                    return self.end(engine, reactor, now, key, Why::Error(error.into()));
                }
            }
        }
    }

    fn cancel(
        &mut self,
        engine: &mut Engine,
        reactor: &mut Reactor,
        now: Nanos,
        key: Key,
        stream: u64,
    ) {
        let Some(peer) = peer(&mut self.peers, key) else { return };
        let Some(call) = peer.streams.remove(&stream) else {
            // It has crossed the answer, of which the rest is saved.
            return peer.link.cancel(stream);
        };
        if let Some(pending) = self.calls.remove(call) {
            self.cell().cancelled.add(1);
            engine.cancel(reactor, now, pending.call);
        }
    }

    fn send(&mut self, key: Key, stream: u64, outgoing: Outgoing) {
        if let Some(peer) = peer(&mut self.peers, key) {
            outgoing.send(&mut peer.link, stream);
            self.list(key);
        }
    }

    /// Has a link flushed.
    fn list(&mut self, key: Key) {
        if let Some(peer) = peer(&mut self.peers, key)
            && std::mem::replace(&mut peer.listed, Listed::Yes) == Listed::No
        {
            self.listed.push(key);
        }
    }

    fn list_all(&mut self) {
        for (_, peer) in &mut self.peers {
            if std::mem::replace(&mut peer.listed, Listed::Yes) == Listed::No {
                self.listed.push(peer.key);
            }
        }
    }

    /// Tells all gateways of the functions if there are others than before.
    fn announce(&mut self, engine: &Engine) -> bool {
        if !self.numbers.refresh(engine) {
            return false;
        }
        let keys: Vec<Key> = self.peers.iter().map(|(_, peer)| peer.key).collect();
        for key in keys {
            self.send_functions(key);
        }
        self.report_all(engine);
        true
    }

    fn send_functions(&mut self, key: Key) {
        let Some(peer) = peer(&mut self.peers, key) else { return };
        match self.numbers.encode() {
            Ok(encoded) => peer.link.send_functions(encoded),
            // Names and their count are bounded where functions are configured.
            Err(error) => tracing::warn!("functions cannot be announced: {error}"),
        }
        self.list(key);
    }

    fn report_all(&mut self, engine: &Engine) {
        let loads = self.reports.take_all(engine, &self.numbers);
        if !loads.is_empty() {
            self.send_loads(&loads);
        }
    }

    fn send_loads(&mut self, loads: &[protocol::message::Load]) {
        for (_, peer) in &mut self.peers {
            if peer.link.is_announcing() {
                peer.loads = Loads::Owed;
            } else {
                peer.link.send_loads(loads);
            }
        }
        self.list_all();
    }

    /// Tells a gateway the loads that it was not told with the others.
    fn catch_up(&mut self, key: Key) {
        let Some(peer) = peer(&mut self.peers, key) else { return };
        if peer.loads == Loads::Owed && !peer.link.is_announcing() {
            peer.loads = Loads::Told;
            peer.link.send_loads(&self.reports.told());
        }
    }

    /// While the engine drains: ends the links whose last answer is out.
    fn end_drained(&mut self, engine: &mut Engine, reactor: &mut Reactor, now: Nanos) {
        let done = |peer: &Peer| peer.streams.is_empty() && peer.link.is_flushed();
        let done = self.peers.iter().filter(|(_, peer)| done(peer)).map(|(_, peer)| peer.key);
        let done: Vec<Key> = done.collect();
        for key in done {
            self.end(engine, reactor, now, key, Why::Drained);
        }
    }

    /// A link is over: what it asked for has no reader.
    fn end(&mut self, engine: &mut Engine, reactor: &mut Reactor, now: Nanos, key: Key, why: Why) {
        if peer(&mut self.peers, key).is_none() {
            return;
        }
        let Peer { identity, link, streams, phase, .. } = self.peers.remove(key.slot());
        self.cell().links.set(self.peers.len() as u64);
        self.cell().lost.add(streams.len() as u64);
        why.log(&identity, phase, streams.len());
        why.close(link, reactor);
        for call in streams.into_values() {
            if let Some(pending) = self.calls.remove(call) {
                engine.cancel(reactor, now, pending.call);
            }
        }
        self.notices.push_back(Notice::Ended { epoch: identity.epoch });
    }
}

fn peer(peers: &mut Slab<Peer>, key: Key) -> Option<&mut Peer> {
    peers.get_mut(key.slot()).filter(|peer| peer.key == key)
}
