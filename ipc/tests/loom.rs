//! Every interleaving, and every value that a weak memory may show, of the ring and of falling
//! asleep. Run by `scripts/test` as
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p ipc --release --test loom`.
//!
//! A lost wake-up leaves every thread blocked, which loom reports as a deadlock. That it does is
//! itself tested: `without_fences_*` run the same protocol without its fences and must deadlock.
//! Tried by hand as well: without the fence of either `SleepFlag::announce` or
//! `SleepFlag::must_ring`, or with any one acquire or release of `spsc` or `ReadyMap` relaxed, one
//! to three tests here fail. No ordering is stronger than it must be.
#![cfg(loom)]
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

mod heap_ring;

use std::sync::Arc;

use heap_ring::HeapRing;
use ipc::LaneIndex;
use ipc::doorbell::{ReadyMap, SleepFlag};
use ipc::spsc::{Consumer, Producer, PushError};
use ipc::sync::{AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;

/// What an eventfd watched edge-triggered does: a ring is remembered until a wait takes it.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    wakes: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.wakes.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.wakes.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// The sleep protocol, as it is and without its fences.
trait Sleeper: Default + Send + Sync + 'static {
    fn announce(&self);
    fn clear(&self);
    fn must_ring(&self) -> bool;
}

impl Sleeper for SleepFlag {
    fn announce(&self) {
        SleepFlag::announce(self);
    }
    fn clear(&self) {
        SleepFlag::clear(self);
    }
    fn must_ring(&self) -> bool {
        SleepFlag::must_ring(self)
    }
}

#[derive(Default)]
struct Unfenced(AtomicU32);

impl Sleeper for Unfenced {
    fn announce(&self) {
        self.0.store(1, Ordering::Relaxed);
    }
    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
    fn must_ring(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }
}

fn message(seed: u64) -> [u64; 8] {
    [seed; 8]
}

fn push(producer: &mut Producer<HeapRing<2>>, words: [u64; 8]) {
    while let Err(error) = producer.push(words) {
        assert_eq!(error, PushError::Full);
        thread::yield_now();
    }
}

#[test]
fn messages_arrive_once_in_order_and_whole() {
    loom::model(|| {
        let ring = HeapRing::<2>::new();
        let (mut producer, mut consumer) = (Producer::new(ring.clone()), Consumer::new(ring));
        let pushing = thread::spawn(move || {
            for seed in 1..=3 {
                push(&mut producer, message(seed));
            }
        });
        for seed in 1..=3 {
            let words = loop {
                match consumer.pop().unwrap() {
                    Some(words) => break words,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(words, message(seed));
        }
        assert_eq!(consumer.pop(), Ok(None));
        pushing.join().unwrap();
    });
}

/// The engine publishes and rings only a sleeper; the worker sleeps whenever it finds nothing.
fn engine_wakes_worker<S: Sleeper>() {
    loom::model(|| {
        let ring = HeapRing::<2>::new();
        let (mut producer, mut consumer) = (Producer::new(ring.clone()), Consumer::new(ring));
        let shared = Arc::new((S::default(), Bell::default()));
        let engine = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for seed in 1..=2 {
                    producer.push(message(seed)).unwrap();
                    if shared.0.must_ring() {
                        shared.1.ring();
                    }
                }
            }
        });
        let (sleeping, doorbell) = &*shared;
        for seed in 1..=2 {
            let words = loop {
                if let Some(words) = consumer.pop().unwrap() {
                    break words;
                }
                sleeping.announce();
                if consumer.is_empty().unwrap() {
                    doorbell.wait();
                }
                sleeping.clear();
            };
            assert_eq!(words, message(seed));
        }
        engine.join().unwrap();
    });
}

/// Workers publish, set their ready bit and ring only an armed engine; it receives only from
/// lanes whose bits it took, and sleeps whenever none is ready.
fn workers_wake_engine<S: Sleeper>(workers: u16) {
    let mut model = loom::model::Builder::new();
    if workers > 1 {
        // Three threads have too many interleavings; bugs need few preemptions (loom's advice).
        model.preemption_bound = Some(2);
    }
    model.check(move || {
        let shared = Arc::new((S::default(), ReadyMap::default(), Bell::default()));
        let mut consumers = Vec::new();
        let mut threads = Vec::new();
        for lane in (0..workers).map(LaneIndex) {
            let ring = HeapRing::<2>::new();
            let mut producer = Producer::new(ring.clone());
            consumers.push(Consumer::new(ring));
            let shared = Arc::clone(&shared);
            threads.push(thread::spawn(move || {
                let (armed, ready, bell) = &*shared;
                producer.push(message(lane.0.into())).unwrap();
                ready.set(lane);
                if armed.must_ring() {
                    bell.ring();
                }
            }));
        }
        let (armed, ready, bell) = &*shared;
        let open = [(1 << workers) - 1, 0, 0, 0];
        let mut received = 0;
        while received < workers {
            let taken = ready.take(&open);
            for lane in 0..workers {
                if taken[0] & 1 << lane != 0 {
                    let words = consumers[usize::from(lane)].pop().unwrap();
                    assert_eq!(words, Some(message(lane.into())), "a ready lane has a message");
                    received += 1;
                }
            }
            if received < workers && taken == [0; 4] {
                armed.announce();
                if !ready.any(&open) {
                    bell.wait();
                }
                armed.clear();
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_sleeping_worker_is_always_woken() {
    engine_wakes_worker::<SleepFlag>();
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_fences_a_worker_sleeps_through_a_message() {
    engine_wakes_worker::<Unfenced>();
}

#[test]
fn a_sleeping_engine_is_always_woken() {
    workers_wake_engine::<SleepFlag>(1);
}

#[test]
fn a_sleeping_engine_misses_none_of_two_workers() {
    workers_wake_engine::<SleepFlag>(2);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_fences_the_engine_sleeps_through_a_message() {
    workers_wake_engine::<Unfenced>(1);
}
