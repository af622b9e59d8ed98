//! Messages between rings.

use crate::harness::*;
use reactor::{Event, Wait};
use std::sync::mpsc;
use std::thread;

#[test]
fn messages_between_two_threads_arrive_once_and_in_order() {
    let _watchdog = watchdog();
    const MESSAGES: u64 = 20_000;
    let (hand, address) = mpsc::channel();
    let receiver = thread::spawn(move || {
        let mut reactor = reactor();
        hand.send(reactor.address()).unwrap();
        let mut expected = 0;
        turn_until(&mut reactor, |_, event| {
            match event {
                Event::Message { value } => assert_eq!(value, expected),
                other => panic!("{other:?}"),
            }
            expected += 1;
            expected == MESSAGES
        });
        assert_quiet(&mut reactor);
    });
    let address = address.recv().unwrap();
    let mut reactor = reactor();
    let mut events = Vec::new();
    for value in 0..MESSAGES {
        reactor.message(address, value);
        if value % 100 == 0 {
            reactor.turn(Wait::Not, &mut events).unwrap();
        }
    }
    while reactor.in_flight() > 0 {
        reactor.turn(Wait::Not, &mut events).unwrap();
    }
    assert!(events.is_empty(), "{events:?}");
    receiver.join().unwrap();
}

#[test]
fn a_value_of_any_bits_is_a_message() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let values = [0, 1, u64::MAX, u64::from(u32::MAX), u64::from(u32::MAX) - 1, 1 << 63];
    for value in values {
        reactor.message(reactor.address(), value);
    }
    let mut seen = Vec::new();
    turn_until(&mut reactor, |_, event| {
        let Event::Message { value } = event else { panic!("{event:?}") };
        seen.push(value);
        seen.len() == values.len()
    });
    assert_eq!(seen, values);
}

#[test]
fn a_message_to_a_ring_that_is_gone_fails_and_comes_back() {
    let _watchdog = watchdog();
    let gone = reactor();
    let mut reactor = reactor();
    let address = gone.address();
    drop(gone);
    reactor.message(address, 42);
    turn_until(&mut reactor, |_, event| {
        assert!(matches!(event, Event::MessageFailed { value: 42, .. }), "{event:?}");
        true
    });
    assert_eq!(reactor.in_flight(), 0);
}
