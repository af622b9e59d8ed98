//! What two links say to each other.

use protocol::message::{Function, Load, LoadState, NAME_MAX, Repeat, encode_functions};

use crate::peer::{Heard, Peer, WRAPS, both_until, pair, pattern};

const LARGE: usize = 12 << 20;

fn call(heard: &Heard) -> Option<(u64, &[u8])> {
    if let Heard::Call(stream, _, bytes) = heard { Some((*stream, bytes)) } else { None }
}

fn answer(heard: &Heard) -> Option<(u64, &[u8])> {
    if let Heard::Answer(stream, _, bytes) = heard { Some((*stream, bytes)) } else { None }
}

/// Asserts that exactly these bodies came, in any order.
fn check<'a>(heard: impl Iterator<Item = (u64, &'a [u8])>, sizes: &[usize], seed: u64) {
    let mut heard: Vec<_> = heard.collect();
    heard.sort_unstable_by_key(|(stream, _)| *stream);
    assert_eq!(heard.len(), sizes.len());
    for ((index, (stream, bytes)), size) in (0..).zip(heard).zip(sizes) {
        assert_eq!((stream, bytes.len()), (index, *size));
        assert!(bytes == pattern(seed + stream, *size), "message {stream} arrives as it was");
    }
}

#[test]
fn messages_of_all_sizes_arrive_both_ways_at_once() {
    let sizes = [0, 1, 100, 16_000, 16_352, 16_353, 16_384, 16_400, 70_000, 1 << 20, LARGE, LARGE];
    for wrap in WRAPS {
        let (mut engine, mut gateway) = pair(wrap);
        for (stream, size) in (0..).zip(sizes) {
            gateway.say_call(stream, &pattern(100 + stream, size));
            engine.say_answer(stream, &pattern(200 + stream, size));
        }
        both_until(&mut engine, &mut gateway, "all is there", |engine, gateway| {
            engine.heard.len() == sizes.len() && gateway.heard.len() == sizes.len()
        });
        check(engine.heard.iter().filter_map(call), &sizes, 100);
        check(gateway.heard.iter().filter_map(answer), &sizes, 200);
        for peer in [&mut engine, &mut gateway] {
            peer.turn_until("nothing is left", |peer| peer.link().is_flushed());
            assert_eq!(peer.link().queued_bytes(), 0);
        }
    }
}

#[test]
fn thousands_of_small_messages_arrive_in_order() {
    for wrap in WRAPS {
        let (mut engine, mut gateway) = pair(wrap);
        let mut said = 0;
        both_until(&mut engine, &mut gateway, "all is there", |engine, gateway| {
            for _ in 0..200 {
                if said < 10_000 {
                    gateway.say_call(said, &said.to_le_bytes());
                    said += 1;
                }
            }
            engine.heard.len() == 10_000
        });
        for (stream, heard) in (0_u64..).zip(&engine.heard) {
            assert_eq!(call(heard), Some((stream, &stream.to_le_bytes()[..])));
        }
    }
}

#[test]
fn a_small_answer_overtakes_a_large_one() {
    for wrap in WRAPS {
        let (mut engine, mut gateway) = pair(wrap);
        engine.say_answer(1, &pattern(1, LARGE));
        let begun = |engine: &mut Peer| engine.link().queued_bytes() < LARGE;
        engine.turn_until("the large one has begun", begun);
        engine.say_answer(2, b"small");
        both_until(&mut engine, &mut gateway, "both are there", |_, gateway| {
            gateway.heard.len() == 2
        });
        let order: Vec<u64> = gateway.heard.iter().filter_map(answer).map(|(s, _)| s).collect();
        assert_eq!(order, [2, 1]);
    }
}

#[test]
fn a_call_that_is_cancelled_within_it_never_arrives() {
    for wrap in WRAPS {
        let (mut engine, mut gateway) = pair(wrap);
        gateway.say_call(1, &pattern(1, LARGE));
        let begun = |gateway: &mut Peer| gateway.link().queued_bytes() < LARGE;
        gateway.turn_until("it has begun", begun);
        assert_eq!(gateway.link().unsent_calls().count(), 0);
        assert!(gateway.link().queued_bytes() > 0, "it is under way");
        gateway.link().cancel(1);
        gateway.say_call(2, b"next");
        both_until(&mut engine, &mut gateway, "the next is there", |engine, _| {
            engine.heard.iter().any(|heard| call(heard).is_some())
        });
        assert_eq!(engine.heard[0], Heard::Cancel(1));
        assert_eq!(call(&engine.heard[1]), Some((2, &b"next"[..])));
        assert_eq!(engine.heard.len(), 2);
    }
}

#[test]
fn a_large_call_that_is_cancelled_before_it_is_never_spoken_of() {
    let (mut engine, mut gateway) = pair(crate::peer::Wrap::Plain);
    gateway.say_call(1, &pattern(1, LARGE));
    assert_eq!(gateway.link().unsent_calls().collect::<Vec<_>>(), [1]);
    gateway.link().cancel(1);
    gateway.say_call(2, b"next");
    both_until(&mut engine, &mut gateway, "the next is there", |engine, _| {
        !engine.heard.is_empty()
    });
    assert_eq!(call(&engine.heard[0]), Some((2, &b"next"[..])));
}

#[test]
fn the_rest_of_an_answer_may_be_left_out() {
    for wrap in WRAPS {
        let (mut engine, mut gateway) = pair(wrap);
        // Its end is known to nobody: no word of it.
        engine.link().cancel(9);
        engine.say_answer(1, &pattern(1, LARGE));
        let begun = |engine: &mut Peer| engine.link().queued_bytes() < LARGE;
        engine.turn_until("it has begun", begun);
        engine.link().cancel(1);
        engine.say_answer(2, b"next");
        // The stream is free again.
        engine.say_answer(1, &pattern(3, 100_000));
        both_until(&mut engine, &mut gateway, "two are there", |_, gateway| {
            gateway.heard.len() == 2
        });
        let heard: Vec<_> = gateway.heard.iter().filter_map(answer).collect();
        assert_eq!(heard[0], (2, &b"next"[..]));
        assert!(heard[1] == (1, &pattern(3, 100_000)[..]));
    }
}

fn functions(count: u32, version: u32) -> Vec<Function> {
    let function = |number: u32| Function {
        number,
        name: format!("{number:0>width$}", width = NAME_MAX),
        version,
        timeout_ns: u64::from(number),
        repeat: if number.is_multiple_of(2) { Repeat::Idempotent } else { Repeat::Never },
        capacity: number,
    };
    (0..count).map(function).collect()
}

fn load(number: u32) -> Load {
    let state = if number.is_multiple_of(3) { LoadState::Broken } else { LoadState::Serving };
    Load { number, state, queued: 1, running: 2, waiting: 3, room: number }
}

#[test]
fn lists_and_reports_of_any_length_arrive_the_newest_list_last() {
    for wrap in WRAPS {
        let (mut engine, mut gateway) = pair(wrap);
        for version in 1..=5 {
            let mut encoded = Vec::new();
            encode_functions(&functions(4_096, version), &mut encoded).unwrap();
            engine.link().send_functions(encoded);
            if version % 2 == 1 {
                engine.turn();
            }
        }
        let loads: Vec<Load> = (0..2_000).map(load).collect();
        engine.link().send_loads(&loads);
        engine.link().send_draining();
        gateway.link().send_draining();
        let newest = Heard::Functions(functions(4_096, 5));
        both_until(&mut engine, &mut gateway, "the newest list is there", |engine, gateway| {
            gateway.heard.contains(&newest) && !engine.heard.is_empty()
        });
        assert!(gateway.heard.last() == Some(&newest), "it is the last");
        assert_eq!(engine.heard, [Heard::Draining]);
        assert!(gateway.heard.contains(&Heard::Draining));
        let reported = gateway.heard.iter().filter_map(|heard| match heard {
            Heard::Load(loads) => Some(loads),
            _ => None,
        });
        assert_eq!(reported.flatten().copied().collect::<Vec<_>>(), loads);
    }
}
