//! How links end, and what keeps them alive.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use protocol::frame::{HEAD_SIZE, Head, Kind, Part};
use protocol::{Established, LinkError, PATIENCE, ProtocolError, QUIET, STALL, Side};

use crate::peer::{Heard, Peer, WRAPS, both_until, pair, pattern, sockets};

/// A gateway, and the other end of its connection, at which anything may be said.
fn gateway_and_stranger() -> (Peer, TcpStream) {
    let (stranger, ours) = sockets();
    let gateway = Established { socket: ours.into(), tls: None, early: Vec::new() };
    stranger.set_nonblocking(false).unwrap();
    (Peer::new(gateway, Side::Gateway), stranger)
}

/// The head that the stranger reads next, while the gateway turns.
fn hear(gateway: &mut Peer, stranger: &TcpStream) -> Head {
    let mut stranger = stranger.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut head = [0; HEAD_SIZE];
        stranger.read_exact(&mut head).map(|()| head)
    });
    gateway.turn_until("the stranger has heard it", |_| reading.is_finished());
    Head::parse(&reading.join().unwrap().unwrap()).unwrap()
}

fn head(kind: Kind) -> [u8; HEAD_SIZE] {
    Head { size: 0, kind, part: Part::Last, stream: 1 }.encode()
}

#[test]
fn who_says_bye_is_heard_behind_what_he_said_before() {
    for wrap in WRAPS {
        let (mut engine, mut gateway) = pair(wrap);
        engine.turn();
        engine.say_answer(1, b"last");
        engine.close(Some("drained"));
        engine.reactor.turn(reactor::Wait::Not, &mut Vec::new()).unwrap();
        gateway.turn_until("the link has ended", |gateway| gateway.ended.is_some());
        assert!(matches!(&gateway.ended, Some(LinkError::Bye(reason)) if reason == "drained"));
        assert!(matches!(&gateway.heard[..], [Heard::Answer(1, _, bytes)] if bytes == b"last"));
    }
}

#[test]
fn a_gateway_that_leaves_does_not_say_the_calls_that_wait() {
    for wrap in WRAPS {
        let (mut engine, mut gateway) = pair(wrap);
        gateway.say_call(1, b"never");
        gateway.say_call(2, &pattern(1, 12 << 20));
        assert_eq!(gateway.link().unsent_calls().count(), 2, "their owner makes them elsewhere");
        gateway.close(Some("moved"));
        gateway.reactor.turn(reactor::Wait::Not, &mut Vec::new()).unwrap();
        engine.turn_until("the link has ended", |engine| engine.ended.is_some());
        assert!(matches!(&engine.ended, Some(LinkError::Bye(reason)) if reason == "moved"));
        assert!(engine.heard.is_empty());
    }
}

#[test]
fn a_link_whose_other_end_is_gone_ends() {
    for wrap in WRAPS {
        let (mut engine, mut gateway) = pair(wrap);
        gateway.say_call(1, &pattern(1, 12 << 20));
        both_until(&mut engine, &mut gateway, "it is under way", |_, gateway| {
            gateway.link().queued_bytes() < 12 << 20
        });
        // As when its process is killed: its reactor closes what is left.
        drop(engine);
        gateway.turn_until("the link has ended", |gateway| gateway.ended.is_some());
        assert!(matches!(gateway.ended, Some(LinkError::Io(_))), "{:?}", gateway.ended);
    }
}

#[test]
fn a_link_that_is_idle_lives_by_its_heartbeats() {
    for wrap in WRAPS {
        let (mut engine, mut gateway) = pair(wrap);
        for _ in 0..20 {
            let asked_at = gateway.link().next_timer();
            (gateway.now, engine.now) = (asked_at, asked_at);
            both_until(&mut engine, &mut gateway, "the answer is there", |_, gateway| {
                gateway.link().next_timer() == asked_at + QUIET
            });
        }
        assert!(engine.ended.is_none() && gateway.ended.is_none());
        assert!(engine.heard.is_empty() && gateway.heard.is_empty(), "a heartbeat is no message");
    }
}

#[test]
fn a_peer_that_says_nothing_is_asked_and_then_given_up() {
    let (mut gateway, stranger) = gateway_and_stranger();
    let start = gateway.now;
    gateway.now = start + QUIET;
    assert_eq!(hear(&mut gateway, &stranger).kind, Kind::Ping);
    assert_eq!(gateway.link().next_timer(), start + QUIET + PATIENCE);
    gateway.now = gateway.link().next_timer();
    gateway.turn();
    assert!(matches!(gateway.ended, Some(LinkError::Silent(750))), "{:?}", gateway.ended);
}

#[test]
fn a_peer_that_talks_but_takes_nothing_is_given_up() {
    let (mut gateway, mut stranger) = gateway_and_stranger();
    gateway.say_call(1, &pattern(1, 16 << 20));
    let mut left = usize::MAX;
    while left == 16 << 20 || left != gateway.link().queued_bytes() {
        left = gateway.link().queued_bytes();
        for _ in 0..20 {
            gateway.turn();
        }
    }
    assert!(left > 0, "a socket took 16 MiB");
    let stalled_at = gateway.now;
    while gateway.ended.is_none() {
        gateway.now = gateway.link().next_timer();
        stranger.write_all(&head(Kind::Pong)).unwrap();
        let now = gateway.now;
        gateway.turn_until("it was heard", |gateway| {
            gateway.link.as_ref().is_none_or(|link| link.next_timer() == now + QUIET)
        });
    }
    let Some(LinkError::Io(error)) = &gateway.ended else { panic!("{:?}", gateway.ended) };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(gateway.now >= stalled_at + STALL);
}

#[test]
fn who_breaks_the_protocol_is_told_and_closed() {
    let (mut gateway, mut stranger) = gateway_and_stranger();
    stranger.write_all(&head(Kind::Call)).unwrap();
    gateway.turn_until("the link has ended", |gateway| gateway.ended.is_some());
    let expected = ProtocolError::Unexpected("CALL");
    assert!(matches!(&gateway.ended, Some(LinkError::Protocol(error)) if *error == expected));
    let reading = std::thread::spawn(move || {
        let mut said = Vec::new();
        stranger.read_to_end(&mut said).map(|_| said)
    });
    gateway.turn_until("all is out", |_| reading.is_finished());
    let said = reading.join().unwrap().unwrap();
    let (head, reason) = said.split_first_chunk().unwrap();
    assert_eq!(Head::parse(head).unwrap().kind, Kind::Bye);
    assert_eq!(reason, expected.to_string().as_bytes());
}

#[test]
fn a_ping_is_answered() {
    let (mut gateway, mut stranger) = gateway_and_stranger();
    stranger.write_all(&head(Kind::Ping)).unwrap();
    let answer = hear(&mut gateway, &stranger);
    assert_eq!((answer.kind, answer.stream), (Kind::Pong, 1));
}

#[test]
fn bytes_that_came_with_the_handshake_are_read_first() {
    let (mut stranger, ours) = sockets();
    let early = [&head(Kind::Draining)[..], &head(Kind::Load)[..7]].concat();
    stranger.write_all(&head(Kind::Load)[7..]).unwrap();
    let gateway = Established { socket: ours.into(), tls: None, early };
    let mut gateway = Peer::new(gateway, Side::Gateway);
    gateway.turn_until("both are there", |gateway| gateway.heard.len() == 2);
    assert_eq!(gateway.heard, [Heard::Draining, Heard::Load(Vec::new())]);
}
