//! The ring against a model, and against a peer that lies about its cursor.
#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

mod heap_ring;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use heap_ring::HeapRing;
use ipc::spsc::{Consumer, CursorFault, Producer, PushError, Ring};
use proptest::prelude::*;

const DEPTH: usize = 8;

fn words(seed: u64) -> [u64; 8] {
    core::array::from_fn(|word| seed.wrapping_mul(31).wrapping_add(word as u64))
}

proptest! {
    #[test]
    fn the_ring_does_what_a_bounded_queue_does(
        pushes in prop::collection::vec(any::<bool>(), 1..2000)
    ) {
        let ring = HeapRing::<DEPTH>::new();
        let (mut producer, mut consumer) = (Producer::new(ring.clone()), Consumer::new(ring));
        let mut model = VecDeque::new();
        for (step, pushes) in pushes.into_iter().enumerate() {
            if pushes {
                let message = words(step as u64);
                let expected = if model.len() < DEPTH {
                    model.push_back(message);
                    Ok(())
                } else {
                    Err(PushError::Full)
                };
                prop_assert_eq!(producer.push(message), expected);
            } else {
                prop_assert_eq!(consumer.is_empty(), Ok(model.is_empty()));
                prop_assert_eq!(consumer.pop(), Ok(model.pop_front()));
            }
        }
    }

    #[test]
    fn a_consumer_takes_at_most_depth_messages_whatever_the_tail_says(
        consumed in 0u32..100, tail in any::<u32>()
    ) {
        let ring = HeapRing::<DEPTH>::new();
        let mut producer = Producer::new(ring.clone());
        let mut consumer = Consumer::new(ring.clone());
        for step in 0..consumed {
            producer.push(words(step.into())).unwrap();
            consumer.pop().unwrap().unwrap();
        }
        ring.tail().store(tail, Ordering::Relaxed);
        let claimed = tail.wrapping_sub(consumed);
        if claimed as usize <= DEPTH {
            for _ in 0..claimed {
                prop_assert!(consumer.pop().unwrap().is_some());
            }
            prop_assert_eq!(consumer.pop(), Ok(None));
        } else {
            let fault = CursorFault { own: consumed, peer: tail, depth: DEPTH as u32 };
            prop_assert_eq!(consumer.pop(), Err(fault));
            prop_assert_eq!(consumer.is_empty(), Err(fault));
        }
    }

    #[test]
    fn a_producer_overwrites_nothing_unread_whatever_the_head_says(
        pushed in 0u32..100, head in any::<u32>()
    ) {
        let ring = HeapRing::<DEPTH>::new();
        let mut producer = Producer::new(ring.clone());
        let mut consumer = Consumer::new(ring.clone());
        for step in 0..pushed {
            producer.push(words(step.into())).unwrap();
            consumer.pop().unwrap().unwrap();
        }
        for step in 0..DEPTH {
            producer.push(words(step as u64)).unwrap();
        }
        ring.head().store(head, Ordering::Relaxed);
        let own = pushed + DEPTH as u32;
        let expected = match own.wrapping_sub(head) as usize {
            DEPTH => Err(PushError::Full),
            0..DEPTH => Ok(()),
            _ => Err(CursorFault { own, peer: head, depth: DEPTH as u32 }.into()),
        };
        prop_assert_eq!(producer.push(words(1)), expected);
    }
}

#[test]
fn a_side_never_reads_its_own_cursor_back() {
    let ring = HeapRing::<DEPTH>::new();
    let (mut producer, mut consumer) = (Producer::new(ring.clone()), Consumer::new(ring.clone()));
    for step in 0..3 {
        producer.push(words(step)).unwrap();
    }
    ring.tail().store(77, Ordering::Relaxed);
    producer.push(words(3)).unwrap();
    assert_eq!(ring.tail().load(Ordering::Relaxed), 4);
    consumer.pop().unwrap().unwrap();
    ring.head().store(77, Ordering::Relaxed);
    assert_eq!(consumer.pop(), Ok(Some(words(1))));
    assert_eq!(ring.head().load(Ordering::Relaxed), 2);
}
