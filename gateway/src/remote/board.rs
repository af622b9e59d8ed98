//! Where the shards of a gateway tell of their engines, so that any of them can answer for all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use protocol::message::{Load, LoadState};
use reactor::clock::{self, Nanos};

use super::balance::Condition;
use super::directory::Function;
use super::links::Remote;
use super::peer::{Ended, Offer, Peer, Stage};

/// How often a shard tells, at most, while it has few seats.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// What each seat adds to that: telling costs about 100 ns a seat, so it takes 0.1% of the shard.
const PUBLISH_EVERY_SEAT: Duration = Duration::from_micros(100);

/// One place a shard; each is written by its shard and read by all.
#[derive(Debug, Default)]
pub struct Board {
    shards: Vec<Mutex<Told>>,
}

/// What one shard has told.
#[derive(Debug, Default)]
struct Told {
    links: Vec<Entry>,
    /// Calls that wait for an engine with room, by function.
    queues: Vec<(String, u64)>,
}

/// A link as its shard sees it.
#[derive(Debug)]
struct Entry {
    node: String,
    instance: u64,
    epoch: u64,
    cores: u16,
    address: Option<SocketAddr>,
    connected: Duration,
    stage: Stage,
    functions: Vec<FunctionEntry>,
}

#[derive(Clone, Debug)]
struct FunctionEntry {
    name: String,
    version: u32,
    condition: Condition,
    in_flight: u64,
    queued: u64,
    running: u64,
    waiting: u64,
    room: u64,
    /// Calls that gateways would send now, which is what `room` has become since it was reported.
    takes: u64,
    latency: Option<Duration>,
    ended: Ended,
}

/// An engine, over all its links.
#[derive(Default)]
struct Sum {
    links: u64,
    epoch: u64,
    cores: u16,
    draining: u64,
    address: Option<SocketAddr>,
    connected: Duration,
    functions: BTreeMap<String, FunctionEntry>,
}

impl Board {
    /// For that many shards.
    #[must_use]
    pub fn new(shards: u16) -> Board {
        Board { shards: (0..shards).map(|_| Mutex::default()).collect() }
    }

    /// Whether no engine was there when the shards told last.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let mut shards = self.shards.iter();
        shards.all(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).links.is_empty())
    }

    /// Functions that calls can be sent for on every shard, when the shards told last.
    #[must_use]
    pub fn functions(&self) -> BTreeSet<String> {
        let of = |shard: &Mutex<Told>| -> BTreeSet<String> {
            let told = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let functions = told.links.iter().flat_map(|entry| &entry.functions);
            let there = functions.filter(|function| function.condition != Condition::Draining);
            there.map(|function| function.name.clone()).collect()
        };
        let both = |all: BTreeSet<String>, of: BTreeSet<String>| &all & &of;
        self.shards.iter().map(of).reduce(both).unwrap_or_default()
    }

    /// Appends the body of `/v1/engines`.
    pub fn write_json(&self, out: &mut String) {
        let mut engines: BTreeMap<(String, u64), Sum> = BTreeMap::new();
        let mut queues: BTreeMap<String, u64> = BTreeMap::new();
        for shard in &self.shards {
            // A shard that panicked while it told has told half: that is what there is.
            let told = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for entry in &told.links {
                engines.entry((entry.node.clone(), entry.instance)).or_default().add(entry);
            }
            for (function, waiting) in &told.queues {
                *queues.entry(function.clone()).or_default() += waiting;
            }
        }
        out.push_str("{\"engines\":[");
        for (index, ((node, instance), engine)) in engines.iter().enumerate() {
            out.push_str(if index == 0 { "" } else { "," });
            engine.write_json(node, *instance, out);
        }
        out.push_str("],\"queues\":[");
        for (index, (function, waiting)) in queues.iter().enumerate() {
            out.push_str(if index == 0 { "" } else { "," });
            // Writing to a String cannot fail.
            let _ = write!(out, "{{\"function\":\"{function}\",\"waiting\":{waiting}}}");
        }
        out.push_str("]}");
    }

    fn put(&self, shard: u16, told: Told) {
        if let Some(place) = self.shards.get(usize::from(shard)) {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = told;
        }
    }
}

impl Sum {
    fn add(&mut self, entry: &Entry) {
        self.links += 1;
        self.epoch = self.epoch.max(entry.epoch);
        self.cores = self.cores.max(entry.cores);
        self.address = self.address.or(entry.address);
        self.connected = self.connected.max(entry.connected);
        self.draining += u64::from(entry.stage == Stage::Draining);
        for function in &entry.functions {
            match self.functions.get_mut(&function.name) {
                Some(sum) => sum.add(function),
                None => {
                    self.functions.insert(function.name.clone(), function.clone());
                }
            }
        }
    }

    /// Names are letters, digits, `_`, `.` and `-`: there is nothing to escape.
    fn write_json(&self, node: &str, instance: u64, out: &mut String) {
        let state = if self.draining > 0 { "draining" } else { "serving" };
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "{{\"node\":\"{node}\",\"instance\":\"{instance:016x}\",\"state\":\"{state}\",\
             \"address\":"
        );
        let _ = match self.address {
            Some(address) => write!(out, "\"{}\"", address.ip()),
            None => write!(out, "null"),
        };
        let _ = write!(
            out,
            ",\"connected_s\":{},\"epoch\":{},\"links\":{},\"cores\":{},\"functions\":[",
            self.connected.as_secs(),
            self.epoch,
            self.links,
            self.cores
        );
        for (index, function) in self.functions.values().enumerate() {
            out.push_str(if index == 0 { "" } else { "," });
            function.write_json(out);
        }
        out.push_str("]}");
    }
}

impl FunctionEntry {
    fn of(remote: &Remote, offer: &Offer) -> Option<FunctionEntry> {
        let seat = offer.seat?;
        let Load { queued, running, waiting, room, .. } = offer.load.unwrap_or(Load {
            number: 0,
            state: LoadState::Serving,
            queued: 0,
            running: 0,
            waiting: 0,
            room: 0,
        });
        Some(FunctionEntry {
            name: remote.directory.get(offer.function)?.name.clone(),
            version: offer.version,
            condition: remote.balance.condition(seat),
            in_flight: remote.balance.in_flight(seat).into(),
            queued: queued.into(),
            running: running.into(),
            waiting: waiting.into(),
            room: room.into(),
            takes: remote.balance.room(seat).into(),
            latency: remote.balance.latency(seat),
            ended: offer.ended,
        })
    }

    /// The same function on another shard of the same engine. It is in the best state of all.
    fn add(&mut self, other: &FunctionEntry) {
        self.version = self.version.max(other.version);
        if rank(other.condition) < rank(self.condition) {
            self.condition = other.condition;
        }
        self.in_flight += other.in_flight;
        self.queued += other.queued;
        self.running += other.running;
        self.waiting += other.waiting;
        self.room += other.room;
        self.takes += other.takes;
        self.latency = self.latency.max(other.latency);
        self.ended.ok += other.ended.ok;
        self.ended.failed += other.ended.failed;
    }

    fn write_json(&self, out: &mut String) {
        let state = match self.condition {
            Condition::Open if self.takes == 0 => "full",
            Condition::Open => "serving",
            Condition::Paused => "paused",
            Condition::Broken => "broken",
            Condition::Draining => "draining",
        };
        let _ = write!(
            out,
            "{{\"name\":\"{}\",\"version\":{},\"state\":\"{state}\",\"in_flight\":{},\
             \"queued\":{},\"running\":{},\"waiting\":{},\"room\":{},\"latency_us\":",
            self.name,
            self.version,
            self.in_flight,
            self.queued,
            self.running,
            self.waiting,
            self.room
        );
        let _ = match self.latency {
            Some(latency) => write!(out, "{}", latency.as_micros()),
            None => write!(out, "null"),
        };
        let Ended { ok, failed } = self.ended;
        let _ = write!(out, ",\"ok\":{ok},\"failed\":{failed}}}");
    }
}

fn rank(condition: Condition) -> u8 {
    match condition {
        Condition::Open => 0,
        Condition::Paused => 1,
        Condition::Broken => 2,
        Condition::Draining => 3,
    }
}

impl Remote {
    /// Appends the body of `/v1/engines`: this shard as it is, the others as they were lately.
    pub fn engines_json(&self, out: &mut String) {
        self.publish(clock::now());
        self.board.write_json(out);
    }

    pub(super) fn publish(&self, now: Nanos) {
        let links = self.peers.iter().map(|(_, peer)| self.entry(now, peer)).collect();
        let waiting = |function: &Function| (function.name.clone(), function.queue.len() as u64);
        let queues = self.directory.iter().map(|(_, function)| waiting(function)).collect();
        self.board.put(self.config.shard, Told { links, queues });
    }

    pub(super) fn publish_every(&self) -> Duration {
        let seats = u32::try_from(self.balance.seats()).unwrap_or(u32::MAX);
        PUBLISH_EVERY.max(PUBLISH_EVERY_SEAT * seats)
    }

    fn entry(&self, now: Nanos, peer: &Peer) -> Entry {
        let functions = peer.offers.values();
        Entry {
            node: peer.identity.node.clone(),
            instance: peer.identity.instance,
            epoch: peer.epoch,
            cores: peer.cores,
            address: peer.address,
            connected: now.saturating_since(peer.since),
            stage: peer.stage,
            functions: functions.filter_map(|offer| FunctionEntry::of(self, offer)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::message::Repeat;

    use crate::remote::stage::{Stage, function};

    #[test]
    fn a_new_function_stands_on_the_board_as_soon_as_calls_can_go_to_it() {
        let mut stage = Stage::new();
        let engine = stage.join("host-1", 1).unwrap();
        stage.until("the board has the link", |stage| !stage.remote.board.is_empty());
        assert!(stage.remote.board.functions().is_empty());
        stage.engines[engine].announce(&[function(1, "echo", 8, Repeat::Never)]);
        stage.until("it is known", |stage| stage.room("echo") == 8);
        assert!(stage.remote.board.functions().contains("echo"), "in the same turn");
    }
}
