//! Engines that come, go, refuse, lie and fall silent in any order, from a seed: every call that was
//! taken is answered once, or was cancelled, and nothing is left of it.

use std::collections::HashSet;
use std::time::Duration;

use ipc::Outcome;
use protocol::message::{LoadState, Repeat, Started};
use reactor::clock;

use super::stage::{Called, Heard, Stage, function, load};

const STEPS: usize = 500;
const ENGINES: usize = 4;
const CAPACITY: u32 = 3;

struct Chaos {
    stage: Stage,
    random: u64,
    /// By host: the engine that is there, and what it has been given.
    hosts: Vec<(usize, Vec<Heard>)>,
    epoch: u64,
    taken: Vec<Called>,
    cancelled: HashSet<u64>,
}

impl Chaos {
    fn new(seed: u64) -> Chaos {
        let stage = Stage::with_engines(ENGINES, CAPACITY, Repeat::Idempotent);
        let hosts = (0..ENGINES).map(|engine| (engine, Vec::new())).collect();
        let (taken, cancelled) = (Vec::new(), HashSet::new());
        Chaos { stage, random: seed, hosts, epoch: 1, taken, cancelled }
    }

    /// splitmix64 (Steele, Lea and Flood, 2014).
    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word ^ (word >> 31)) % bound as u64).unwrap()
    }

    fn step(&mut self) {
        let host = self.below(ENGINES);
        match self.below(20) {
            0..8 => self.call(),
            8..13 => self.answer(host, Outcome::Ok, Started::Perhaps),
            13 => self.answer(host, Outcome::FunctionError, Started::Perhaps),
            14 => self.answer(host, Outcome::Overloaded, Started::No),
            15 => self.answer(host, Outcome::Unavailable, Started::No),
            16 => self.cancel(),
            17 => self.report(host),
            18 => self.mischief(host),
            _ => self.restart(host),
        }
        self.stage.turn();
        self.collect();
    }

    fn call(&mut self) {
        let timeout = [None, Some(Duration::from_millis(30))][self.below(2)];
        let body = vec![1; [1, 100, 40_000][self.below(3)]];
        if let Ok(called) = self.stage.call_within("echo", &body, timeout) {
            self.taken.push(called);
        }
    }

    fn cancel(&mut self) {
        if self.taken.is_empty() {
            return;
        }
        let index = self.below(self.taken.len());
        let called = self.taken[index];
        if self.stage.answers(called).is_empty() {
            self.cancelled.insert(called.caller);
        }
        self.stage.remote.cancel(&mut self.stage.reactor, clock::now(), called.id);
    }

    fn is_there(&self, host: usize) -> bool {
        self.stage.engines[self.hosts[host].0].is_there()
    }

    fn answer(&mut self, host: usize, outcome: Outcome, started: Started) {
        let held = self.hosts[host].1.len();
        if held == 0 || !self.is_there(host) {
            return;
        }
        let index = self.below(held);
        let (engine, held) = &mut self.hosts[host];
        let heard = held.remove(index);
        self.stage.engines[*engine].say(heard.stream, outcome, started, &heard.body);
    }

    fn report(&mut self, host: usize) {
        if !self.is_there(host) {
            return;
        }
        let state = [LoadState::Serving, LoadState::Serving, LoadState::Broken][self.below(3)];
        let room = [0, 1, CAPACITY][self.below(3)];
        let number = self.number(host);
        self.stage.engines[self.hosts[host].0].report(&[load(number, room, state)]);
    }

    fn mischief(&mut self, host: usize) {
        if !self.is_there(host) {
            return;
        }
        let (kind, number) = (self.below(6), self.number(host));
        let (engine, held) = &self.hosts[host];
        let engine = &mut self.stage.engines[*engine];
        match (kind, held.first()) {
            (0, _) => engine.write_raw(&[0xff; 20]),
            (1, _) => engine.report(&[load(77, 1, LoadState::Serving)]),
            (2, Some(heard)) => {
                engine.echo(heard);
                engine.echo(heard);
            }
            (3, Some(heard)) => engine.say_envelope(heard.stream, 1, b"x"),
            (4, _) => engine.say_draining(),
            // The function goes and comes back.
            (5, _) => {
                engine.announce(&[]);
                engine.announce(&[function(number, "echo", CAPACITY, Repeat::Never)]);
            }
            _ => {}
        }
    }

    /// Functions have another number in every life of an engine.
    fn number(&self, host: usize) -> u32 {
        u32::try_from(self.hosts[host].0).unwrap()
    }

    /// The end of an engine, or another life of it, whether or not the one before is over.
    fn restart(&mut self, host: usize) {
        if self.is_there(host) && self.below(2) == 0 {
            return self.stage.kill(self.hosts[host].0);
        }
        self.join(host);
    }

    fn join(&mut self, host: usize) {
        self.epoch += 1;
        let engine = self.stage.join(&format!("host-{host}"), self.epoch).unwrap();
        self.hosts[host] = (engine, Vec::new());
        let repeat = [Repeat::Never, Repeat::Idempotent][self.below(2)];
        let number = self.number(host);
        self.stage.engines[engine].announce(&[function(number, "echo", CAPACITY, repeat)]);
    }

    /// What the engines have heard becomes theirs.
    fn collect(&mut self) {
        for (engine, held) in &mut self.hosts {
            held.append(&mut self.stage.engines[*engine].calls);
        }
    }

    /// All that are left answer all that they have, and nothing else comes.
    fn settle(&mut self) {
        for host in 0..ENGINES {
            if self.is_there(host) {
                let number = self.number(host);
                let serving = [load(number, CAPACITY, LoadState::Serving)];
                self.stage.engines[self.hosts[host].0].report(&serving);
            }
        }
        let end = std::time::Instant::now() + Duration::from_secs(30);
        while !self.stage.remote.is_idle() {
            assert!(std::time::Instant::now() < end, "calls are left that nobody answers");
            for host in 0..ENGINES {
                self.answer(host, Outcome::Ok, Started::Perhaps);
            }
            self.stage.turn();
            self.collect();
        }
    }
}

#[test]
fn every_call_is_answered_once_whatever_engines_do() {
    for seed in 1..=4 {
        let mut chaos = Chaos::new(seed);
        // Functions of the first lives have the number 1, those of later ones their own.
        (0..ENGINES).for_each(|host| chaos.join(host));
        (0..STEPS).for_each(|_| chaos.step());
        chaos.settle();
        for called in &chaos.taken {
            let answers = chaos.stage.answers(*called).len();
            let owed = usize::from(!chaos.cancelled.contains(&called.caller));
            assert_eq!(answers, owed, "seed {seed}, call {}", called.caller);
        }
        let remote = &chaos.stage.remote;
        assert_eq!(remote.calls.bytes(), 0, "seed {seed}");
        for (_, peer) in &remote.peers {
            for seat in peer.offers.values().filter_map(|offer| offer.seat) {
                assert_eq!(remote.balance.in_flight(seat), 0, "seed {seed}");
            }
        }
        let offered = remote.peers.iter().flat_map(|(_, peer)| peer.offers.values());
        let offered = offered.filter(|offer| offer.seat.is_some()).count();
        assert_eq!(remote.balance.seats(), offered, "seed {seed}: a seat has stayed behind");
    }
}
