//! Running out of receive buffers, and out of room for completions.

use crate::harness::*;
use reactor::{Config, Event, Reactor, Token, Wait};
use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::AsFd;
use std::thread;

fn few_buffers() -> Reactor {
    let config = Config { receive_buffers: 4, receive_buffer_size: 512, ..Config::default() };
    Reactor::new(&config).unwrap()
}

#[test]
fn a_receive_out_of_buffers_goes_on_when_one_is_dropped() {
    let _watchdog = watchdog();
    let mut reactor = few_buffers();
    let all = pattern(1 << 20);
    let (socket, mut peer) = connection();
    let sent = all.clone();
    let writing = thread::spawn(move || peer.write_all(&sent).unwrap());
    reactor.receive(socket.as_fd(), Token(1));
    let mut got = Vec::new();
    let mut held = VecDeque::new();
    let mut events = Vec::new();
    let mut ended = false;
    while !ended {
        // Holding all of them, waiting would be forever: that is the owner's to know.
        let wait = if held.len() == 4 { Wait::Not } else { Wait::Forever };
        reactor.turn(wait, &mut events).unwrap();
        for event in events.drain(..) {
            match event {
                Event::Received { data, .. } => {
                    assert!(!data.is_empty() && data.len() <= 512);
                    held.push_back(data);
                }
                Event::ReceiveEnded { error: None, .. } => ended = true,
                other => panic!("{other:?}"),
            }
        }
        assert!(held.len() <= 4);
        if held.len() == 4 || ended {
            while let Some(data) = held.pop_front() {
                got.extend_from_slice(&data);
                // One at a time, most turns: the slowest of owners.
                if got.len() % 3 != 0 && !ended {
                    break;
                }
            }
        }
    }
    for data in held {
        got.extend_from_slice(&data);
    }
    writing.join().unwrap();
    assert!(got == all);
    assert_eq!(reactor.in_flight(), 0);
}

/// Holds every buffer, with `Token(1)` starved for want of another.
fn starve(reactor: &mut Reactor) -> (std::os::fd::OwnedFd, Vec<Event>, reactor::Operation) {
    let (socket, mut peer) = connection();
    let operation = reactor.receive(socket.as_fd(), Token(1));
    peer.write_all(&pattern(4096)).unwrap();
    let mut events = Vec::new();
    while events.len() < 4 {
        reactor.turn(Wait::Forever, &mut events).unwrap();
    }
    assert!(events.iter().all(|event| matches!(event, Event::Received { .. })), "{events:?}");
    // Whether or not the turn that brought the fourth also brought the news: nothing is left now.
    assert_quiet(reactor);
    (socket, events, operation)
}

#[test]
fn a_starved_receive_can_be_cancelled() {
    let _watchdog = watchdog();
    let mut reactor = few_buffers();
    let (_socket, held, operation) = starve(&mut reactor);
    reactor.cancel(operation);
    turn_until(&mut reactor, |_, event| match event {
        Event::ReceiveEnded { token: Token(1), error: Some(error) } => {
            assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
            true
        }
        other => panic!("{other:?}"),
    });
    drop(held);
    assert_quiet(&mut reactor);
    assert_eq!(reactor.in_flight(), 0);
}

#[test]
fn a_starved_receive_ends_when_its_descriptor_is_closed() {
    let _watchdog = watchdog();
    let mut reactor = few_buffers();
    let (socket, held, _) = starve(&mut reactor);
    reactor.close(socket);
    let mut ended = 0;
    turn_until(&mut reactor, |_, event| {
        assert!(matches!(event, Event::ReceiveEnded { error: Some(_), .. }), "{event:?}");
        ended += 1;
        true
    });
    drop(held);
    assert_quiet(&mut reactor);
    assert_eq!((ended, reactor.in_flight()), (1, 0));
}

#[test]
fn many_connections_share_few_buffers() {
    let _watchdog = watchdog();
    let mut reactor = few_buffers();
    let mut sockets = Vec::new();
    let writers: Vec<_> = (0..32u64)
        .map(|number| {
            let (socket, mut peer) = connection();
            reactor.receive(socket.as_fd(), Token(number));
            sockets.push(socket);
            thread::spawn(move || peer.write_all(&pattern(20_000)).unwrap())
        })
        .collect();
    let mut got = vec![Vec::new(); 32];
    let mut ended = 0;
    turn_until(&mut reactor, |_, event| {
        match event {
            Event::Received { token, data } => {
                got[usize::try_from(token.0).unwrap()].extend_from_slice(&data);
            }
            Event::ReceiveEnded { error: None, .. } => ended += 1,
            other => panic!("{other:?}"),
        }
        ended == 32
    });
    for writer in writers {
        writer.join().unwrap();
    }
    assert!(got.iter().all(|got| *got == pattern(20_000)));
}

#[test]
fn a_starved_receive_with_nothing_to_receive_does_not_hold_up_the_others() {
    let _watchdog = watchdog();
    let config = Config { receive_buffers: 1, ..Config::default() };
    let mut reactor = Reactor::new(&config).unwrap();
    let [(first, mut first_peer), (idle, _idle_peer), (busy, mut busy_peer)] =
        std::array::from_fn(|_| connection());
    first_peer.write_all(b"takes the only buffer").unwrap();
    reactor.receive(first.as_fd(), Token(1));
    let mut held = Vec::new();
    turn_until(&mut reactor, |_, event| {
        held.push(event);
        true
    });
    reactor.receive(idle.as_fd(), Token(2));
    busy_peer.write_all(b"waits").unwrap();
    reactor.receive(busy.as_fd(), Token(3));
    assert_quiet(&mut reactor);
    assert_quiet(&mut reactor);
    held.clear();
    turn_until(&mut reactor, |_, event| {
        assert!(matches!(event, Event::Received { token: Token(3), .. }), "{event:?}");
        true
    });
}

#[test]
fn more_completions_than_their_queue_holds_all_arrive() {
    let _watchdog = watchdog();
    // One entry makes a completion queue of sixteen.
    let mut reactor = Reactor::new(&Config { entries: 1, ..Config::default() }).unwrap();
    let bells: Vec<_> = (0..100).map(|_| eventfd(1)).collect();
    for (number, bell) in (0..).zip(&bells) {
        reactor.poll(bell.as_fd(), Token(number));
        reactor.message(reactor.address(), number);
    }
    let (mut polled, mut messages) = (vec![0; 100], 0);
    turn_until(&mut reactor, |_, event| {
        match event {
            Event::Polled { token } => polled[usize::try_from(token.0).unwrap()] += 1,
            Event::Message { value } => {
                assert_eq!(value, messages);
                messages += 1;
            }
            other => panic!("{other:?}"),
        }
        messages == 100 && polled.iter().all(|polled| *polled > 0)
    });
    // The polls go on, though the overflow ended some of them in the kernel.
    assert_eq!(reactor.in_flight(), 100);
    polled.fill(0);
    for bell in &bells {
        add(bell.as_fd(), 1).unwrap();
    }
    turn_until(&mut reactor, |_, event| {
        let Event::Polled { token } = event else { panic!("{event:?}") };
        polled[usize::try_from(token.0).unwrap()] += 1;
        polled.iter().all(|polled| *polled > 0)
    });
}
