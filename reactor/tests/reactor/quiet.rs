//! Sends for which no turn ends.

use crate::harness::*;
use proptest::prelude::*;
use reactor::{Config, Event, QUIET_MAX, Reactor, Token, Wait, clock};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const SEND: Token = Token(1);

/// Sends quietly, and gives what is told of it, however long that takes.
fn outcome(reactor: &mut Reactor, socket: &OwnedFd, data: &[u8]) -> std::io::Result<usize> {
    let mut outcome = None;
    reactor.send_quietly(socket.as_fd(), data.to_vec(), 0, SEND);
    turn_until(reactor, |_, event| {
        let Event::Sent { token: SEND, data: back, body: None, result } = event else {
            panic!("{event:?}")
        };
        assert_eq!(back, data);
        outcome = Some(result);
        true
    });
    outcome.unwrap()
}

#[test]
fn the_end_of_a_quiet_send_costs_no_system_call_and_comes_ahead_of_other_events() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let (socket, mut peer) = connection();
    let bell = eventfd(1);
    reactor.poll(bell.as_fd(), Token(2));
    let mut events = Vec::new();
    reactor.turn(Wait::Forever, &mut events).unwrap();
    let before = reactor.enters();
    for _ in 0..100 {
        events.clear();
        reactor.ring_doorbell(bell.as_fd(), Token(3));
        reactor.send_quietly(socket.as_fd(), b"word".to_vec(), 1, SEND);
        reactor.turn(Wait::Forever, &mut events).unwrap();
        let [Event::Sent { result: Ok(3), .. }, Event::Polled { .. }] = events[..] else {
            panic!("{events:?}")
        };
        let mut got = [0; 3];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"ord");
    }
    assert_eq!(reactor.enters() - before, 100);
    assert_eq!(reactor.in_flight(), 1);
}

#[test]
fn without_another_event_its_end_is_told_a_little_later() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let (socket, _peer) = connection();
    for _ in 0..10 {
        assert_eq!(outcome(&mut reactor, &socket, b"word").unwrap(), 4);
    }
    // Nothing is left that would end a later wait.
    let begun = clock::now();
    let mut events = Vec::new();
    while clock::now() < begun + 3 * QUIET_MAX {
        reactor.turn(Wait::Until(begun + 3 * QUIET_MAX), &mut events).unwrap();
    }
    assert!(events.is_empty(), "{events:?}");
}

#[test]
fn whoever_waits_for_the_end_after_all_is_told_with_the_next_turn() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let (socket, _peer) = connection();
    let mut events = Vec::new();
    let before = reactor.enters();
    for _ in 0..100 {
        reactor.send_quietly(socket.as_fd(), vec![1], 0, SEND);
        reactor.hasten();
        reactor.turn(Wait::Forever, &mut events).unwrap();
        assert!(matches!(events[..], [Event::Sent { result: Ok(1), .. }]), "{events:?}");
        events.clear();
    }
    assert_eq!(reactor.enters() - before, 100);
}

/// Writes until there is no room, and says how much that was.
fn fill(socket: &UnixStream) -> usize {
    let mut filled = 0;
    loop {
        match (&*socket).write(&[0; 512]) {
            Ok(count) => filled += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return filled;
            }
        }
    }
}

#[test]
fn one_that_finds_no_room_waits_for_it_like_any_other() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let filled = fill(&socket);
    reactor.send_quietly(socket.as_fd(), b"word".to_vec(), 0, SEND);
    let mut events = Vec::new();
    let until = clock::now() + 2 * QUIET_MAX;
    while clock::now() < until {
        reactor.turn(Wait::Until(until), &mut events).unwrap();
    }
    assert!(events.is_empty(), "{events:?}");
    assert_eq!(reactor.in_flight(), 1);
    let mut got = vec![0; filled];
    peer.read_exact(&mut got).unwrap();
    turn_until(&mut reactor, |_, event| matches!(event, Event::Sent { result: Ok(4), .. }));
    peer.read_exact(&mut got[..4]).unwrap();
    assert_eq!(&got[..4], b"word");
}

#[test]
fn one_that_finds_no_room_delays_no_other() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let (full, _peer) = UnixStream::pair().unwrap();
    full.set_nonblocking(true).unwrap();
    fill(&full);
    let (free, _other_peer) = connection();
    reactor.send_quietly(full.as_fd(), vec![1], 0, Token(2));
    reactor.send_quietly(free.as_fd(), vec![1], 0, SEND);
    reactor.hasten();
    let mut events = Vec::new();
    reactor.turn(Wait::Forever, &mut events).unwrap();
    assert!(matches!(events[..], [Event::Sent { token: SEND, result: Ok(1), .. }]), "{events:?}");
}

#[test]
fn one_that_is_taken_in_part_says_how_much() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let (socket, mut peer) = connection();
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::SndBuf, &4096).unwrap();
    let all = pattern(60_000);
    let (mut from, mut parts, mut got) = (0, 0, Vec::new());
    while from < all.len() {
        let count = outcome(&mut reactor, &socket, &all[from..]).unwrap();
        let mut part = vec![0; count];
        peer.read_exact(&mut part).unwrap();
        got.append(&mut part);
        from += count;
        parts += 1;
    }
    assert!(parts > 1, "the whole was taken at once: the test needs more data");
    assert!(got == all);
}

#[test]
fn one_on_a_broken_connection_fails() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let (socket, peer) = UnixStream::pair().unwrap();
    drop(peer);
    let error = outcome(&mut reactor, &socket.into(), b"word").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[test]
fn what_was_said_quietly_before_the_close_arrives_and_leaves_nothing_in_flight() {
    let _watchdog = watchdog();
    for entries in [1, 64] {
        let mut reactor = Reactor::new(&Config { entries, ..Config::default() }).unwrap();
        let (socket, peer) = connection();
        reactor.send_quietly(socket.as_fd(), b"last words".to_vec(), 0, SEND);
        reactor.close(socket);
        let mut sent = 0;
        while reactor.in_flight() > 0 {
            let mut events = Vec::new();
            reactor.turn(Wait::Forever, &mut events).unwrap();
            sent += events.len();
        }
        assert_eq!((sent, read_all(peer)), (1, b"last words".to_vec()));
    }
}

#[test]
fn more_than_the_queue_holds_are_all_done_in_order() {
    let _watchdog = watchdog();
    let mut reactor = Reactor::new(&Config { entries: 4, ..Config::default() }).unwrap();
    let (socket, peer) = connection();
    for number in 0..1000u32 {
        reactor.send_quietly(socket.as_fd(), number.to_be_bytes().to_vec(), 0, SEND);
    }
    let mut ended = 0;
    turn_until(&mut reactor, |_, event| {
        assert!(matches!(event, Event::Sent { result: Ok(4), .. }), "{event:?}");
        ended += 1;
        ended == 1000
    });
    reactor.shutdown(socket.as_fd(), Shutdown::Write);
    let expected: Vec<_> = (0..1000).flat_map(u32::to_be_bytes).collect();
    assert!(read_all(peer) == expected);
}

#[test]
fn a_reactor_ends_with_quiet_sends_queued() {
    let _watchdog = watchdog();
    let (socket, _peer) = connection();
    let mut reactor = reactor();
    reactor.send_quietly(socket.as_fd(), vec![1; 100], 0, SEND);
    drop(reactor);
}

fn read_all(mut stream: TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    got
}

/// A step of a connection's owner, who has one send under way at a time.
#[derive(Clone, Debug)]
enum Act {
    Send {
        size: usize,
        quietly: bool,
    },
    Hasten,
    /// The peer takes up to so much.
    Read(usize),
    Turn,
}

fn act() -> impl Strategy<Value = Act> {
    let send = (1..80_000usize, any::<bool>());
    prop_oneof![
        3 => send.prop_map(|(size, quietly)| Act::Send { size, quietly }),
        1 => Just(Act::Hasten),
        2 => (1..100_000usize).prop_map(Act::Read),
        3 => Just(Act::Turn),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever room there is, each send ends once, with what the peer gets of it.
    #[test]
    fn every_byte_that_was_taken_arrives_once_and_in_order(acts in prop::collection::vec(act(), 1..60)) {
        let _watchdog = watchdog();
        let mut reactor = reactor();
        let (socket, mut peer) = connection();
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::SndBuf, &16_384).unwrap();
        peer.set_nonblocking(true).unwrap();
        let (mut under_way, mut taken, mut got) = (false, Vec::new(), Vec::new());
        let mut turn = |reactor: &mut Reactor, under_way: &mut bool| {
            let mut events = Vec::new();
            reactor.turn(Wait::Until(clock::now() + Duration::from_millis(1)), &mut events).unwrap();
            for event in events {
                let Event::Sent { token: SEND, data, result, .. } = event else {
                    panic!("{event:?}")
                };
                assert!(std::mem::take(under_way), "it ended twice");
                taken.extend_from_slice(&data[..result.unwrap()]);
            }
        };
        for (number, act) in acts.into_iter().enumerate() {
            match act {
                Act::Send { .. } if under_way => {}
                Act::Send { size, quietly } => {
                    under_way = true;
                    let data = vec![u8::try_from(number).unwrap(); size];
                    if quietly {
                        reactor.send_quietly(socket.as_fd(), data, 0, SEND);
                    } else {
                        reactor.send(socket.as_fd(), data, 0, SEND);
                    }
                }
                Act::Hasten => reactor.hasten(),
                Act::Read(size) => {
                    let mut part = vec![0; size];
                    let count = peer.read(&mut part).unwrap_or(0);
                    got.extend_from_slice(&part[..count]);
                }
                Act::Turn => turn(&mut reactor, &mut under_way),
            }
        }
        peer.set_nonblocking(false).unwrap();
        let reading = std::thread::spawn(move || read_all(peer));
        while under_way {
            turn(&mut reactor, &mut under_way);
        }
        reactor.shutdown(socket.as_fd(), Shutdown::Write);
        got.append(&mut reading.join().unwrap());
        prop_assert!(got == taken, "{} bytes of {}", got.len(), taken.len());
    }
}
