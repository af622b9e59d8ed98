//! How operations end: the peer goes, they are cancelled, their descriptor or reactor is closed.

use crate::harness::*;
use reactor::{Config, Event, Reactor, StableBuffer, Token};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

/// The tokens and errnos of ending events, in order of tokens.
fn endings(reactor: &mut Reactor, count: usize) -> Vec<(u64, Option<i32>)> {
    let mut seen = Vec::new();
    turn_until(reactor, |_, event| {
        seen.push(match event {
            Event::AcceptEnded { token, error } | Event::PollEnded { token, error } => {
                (token.0, error.raw_os_error())
            }
            Event::ReceiveEnded { token, error } => {
                (token.0, error.and_then(|error| error.raw_os_error()))
            }
            Event::Sent { token, result, .. } => {
                (token.0, result.err().and_then(|error| error.raw_os_error()))
            }
            other => panic!("{other:?}"),
        });
        seen.len() == count
    });
    seen.sort_unstable();
    seen
}

/// A connection full of zeroes, so that a send on it has to wait. Not TCP, whose buffers move.
fn full_connection() -> (OwnedFd, UnixStream) {
    let (mut ours, peer) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    while ours.write(&[0; 1024]).is_ok() {}
    (ours.into(), peer)
}

fn assert_only_zeroes(mut peer: UnixStream) {
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert!(got.iter().all(|byte| *byte == 0));
}

/// A body that tells whether it has been dropped.
struct Witness(Rc<()>, Vec<u8>);

// SAFETY: the heap block of a vector that nothing changes.
unsafe impl StableBuffer for Witness {
    fn bytes(&self) -> (*const u8, usize) {
        let _ = &self.0;
        self.1.bytes()
    }
}

const CANCELED: Option<i32> = Some(libc::ECANCELED);

#[test]
fn the_end_of_the_stream_comes_after_its_bytes() {
    let _watchdog = watchdog();
    let (socket, mut peer) = connection();
    peer.write_all(b"bye").unwrap();
    drop(peer);
    let mut reactor = reactor();
    reactor.receive(socket.as_fd(), Token(1));
    let mut got = Vec::new();
    turn_until(&mut reactor, |_, event| match event {
        Event::Received { data, .. } => {
            got.extend_from_slice(&data);
            false
        }
        Event::ReceiveEnded { token: Token(1), error: None } => true,
        other => panic!("{other:?}"),
    });
    assert_eq!(got, b"bye");
    assert_eq!(reactor.in_flight(), 0);
}

#[test]
fn a_reset_ends_the_receive_with_its_error() {
    let _watchdog = watchdog();
    let (socket, peer) = connection();
    // Closing with unread bytes resets the connection.
    TcpStream::from(socket.try_clone().unwrap()).write_all(b"unread").unwrap();
    peer.peek(&mut [0]).unwrap();
    let mut reactor = reactor();
    reactor.receive(socket.as_fd(), Token(1));
    drop(peer);
    assert_eq!(endings(&mut reactor, 1), [(1, Some(libc::ECONNRESET))]);
}

#[test]
fn a_send_to_a_peer_that_is_gone_fails_without_a_signal() {
    let _watchdog = watchdog();
    let (socket, peer) = connection();
    drop(peer);
    let mut reactor = reactor();
    // The first may still be taken; it draws the reset that fails the second.
    reactor.send(socket.as_fd(), b"anyone?".to_vec(), 0, Token(1));
    endings(&mut reactor, 1);
    reactor.receive(socket.as_fd(), Token(2));
    endings(&mut reactor, 1);
    reactor.send(socket.as_fd(), b"anyone?".to_vec(), 0, Token(3));
    let ended = endings(&mut reactor, 1);
    assert!(matches!(ended[..], [(3, Some(libc::EPIPE | libc::ECONNRESET))]), "{ended:?}");
}

#[test]
fn close_ends_everything_on_the_descriptor_and_nothing_else() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let (socket, peer) = full_connection();
    let (other, mut other_peer) = connection();
    reactor.receive(other.as_fd(), Token(9));
    reactor.receive(socket.as_fd(), Token(1));
    reactor.send(socket.as_fd(), vec![1; 100], 0, Token(2));
    let witness = Rc::new(());
    let body = Box::new(Witness(Rc::clone(&witness), vec![2; 100]));
    reactor.send_with_body(socket.as_fd(), vec![3; 100], body, 0, Token(3));
    assert_quiet(&mut reactor);
    reactor.close(socket);
    assert_eq!(endings(&mut reactor, 3), [(1, CANCELED), (2, CANCELED), (3, CANCELED)]);
    assert_eq!(Rc::strong_count(&witness), 1);
    assert_eq!(reactor.in_flight(), 1);
    // The peer sees the end, after what had been sent.
    assert_only_zeroes(peer);
    other_peer.write_all(b"x").unwrap();
    turn_until(&mut reactor, |_, event| matches!(event, Event::Received { token: Token(9), .. }));
}

#[test]
fn close_in_the_same_turn_as_the_start_still_ends_it() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bell = eventfd(0);
    let (socket, _peer) = connection();
    reactor.accept(listener.as_fd(), Token(1));
    reactor.poll(bell.as_fd(), Token(2));
    reactor.receive(socket.as_fd(), Token(3));
    reactor.close(listener.into());
    reactor.close(bell);
    reactor.close(socket);
    assert_eq!(endings(&mut reactor, 3), [(1, CANCELED), (2, CANCELED), (3, CANCELED)]);
    assert_eq!(reactor.in_flight(), 0);
}

#[test]
fn a_number_reused_after_close_is_another_descriptor() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let first = eventfd(0);
    let number = first.as_raw_fd();
    reactor.poll(first.as_fd(), Token(1));
    assert_quiet(&mut reactor);
    reactor.close(first);
    assert_eq!(endings(&mut reactor, 1), [(1, CANCELED)]);
    // Other tests open descriptors at the same time, so the number may be gone; try for it.
    let tries: Vec<_> = (0..64).map(|_| eventfd(0)).collect();
    let Some(second) = tries.into_iter().find(|fd| fd.as_raw_fd() == number) else { return };
    reactor.poll(second.as_fd(), Token(2));
    add(second.as_fd(), 1).unwrap();
    turn_until(&mut reactor, |_, event| {
        assert!(matches!(event, Event::Polled { token: Token(2) }), "{event:?}");
        true
    });
}

#[test]
fn cancel_ends_one_operation_once() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let (socket, mut peer) = connection();
    let cancelled = reactor.receive(socket.as_fd(), Token(1));
    assert_quiet(&mut reactor);
    reactor.cancel(cancelled);
    reactor.cancel(cancelled);
    assert_eq!(endings(&mut reactor, 1), [(1, CANCELED)]);
    // The handle is stale now, and its slot may be used by the next.
    let next = reactor.receive(socket.as_fd(), Token(2));
    assert_ne!(cancelled, next);
    reactor.cancel(cancelled);
    peer.write_all(b"x").unwrap();
    turn_until(&mut reactor, |_, event| {
        assert!(matches!(event, Event::Received { token: Token(2), .. }), "{event:?}");
        true
    });
    assert_quiet(&mut reactor);
}

#[test]
fn an_error_ends_an_operation_that_its_descriptor_cannot_do() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let bell = eventfd(0);
    reactor.accept(bell.as_fd(), Token(1));
    reactor.receive(bell.as_fd(), Token(2));
    reactor.send(bell.as_fd(), vec![1], 0, Token(3));
    let no_socket = Some(libc::ENOTSOCK);
    assert_eq!(endings(&mut reactor, 3), [(1, no_socket), (2, no_socket), (3, no_socket)]);
    assert_eq!(reactor.in_flight(), 0);
}

#[test]
fn dropping_the_reactor_gives_back_what_was_in_flight() {
    let _watchdog = watchdog();
    let witness = Rc::new(());
    let (socket, mut peer) = full_connection();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bell = eventfd(0);
    let mut reactor = reactor();
    for _ in 0..1000 {
        let body = Box::new(Witness(Rc::clone(&witness), vec![2; 1 << 12]));
        reactor.send_with_body(socket.as_fd(), vec![3; 100], body, 0, Token(1));
    }
    reactor.receive(socket.as_fd(), Token(2));
    reactor.accept(listener.as_fd(), Token(3));
    reactor.poll(bell.as_fd(), Token(4));
    peer.write_all(b"x").unwrap();
    assert_eq!(Rc::strong_count(&witness), 1001);
    drop(reactor);
    assert_eq!(Rc::strong_count(&witness), 1, "a body is still held");
    // Nothing of the bodies reaches the peer afterwards.
    drop(socket);
    assert_only_zeroes(peer);
}

#[test]
fn a_descriptor_handed_to_close_is_closed_even_if_no_turn_follows() {
    let _watchdog = watchdog();
    let (socket, mut peer) = connection();
    let mut reactor = reactor();
    reactor.receive(socket.as_fd(), Token(1));
    reactor.close(socket);
    drop(reactor);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

#[test]
fn received_bytes_outlive_the_reactor() {
    let _watchdog = watchdog();
    let (socket, mut peer) = connection();
    peer.write_all(b"still here").unwrap();
    let mut reactor = Reactor::new(&Config { receive_buffers: 2, ..Config::default() }).unwrap();
    reactor.receive(socket.as_fd(), Token(1));
    let mut kept = None;
    turn_until(&mut reactor, |_, event| {
        if let Event::Received { data, .. } = event {
            kept = Some(data);
        }
        kept.is_some()
    });
    drop(reactor);
    assert_eq!(&*kept.unwrap(), b"still here");
}
