//! Connections: accept, receive, send.

use crate::harness::*;
use reactor::{Event, PARTS_MAX, Reactor, StableBuffer, Token};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

const LISTENER: Token = Token(u64::MAX);

/// Serves until `connections` of them have come and gone, and echoes what they send.
fn echo(reactor: &mut Reactor, listener: &TcpListener, connections: usize) {
    reactor.accept(listener.as_fd(), LISTENER);
    let mut sockets: HashMap<u64, OwnedFd> = HashMap::new();
    let mut outgoing: HashMap<u64, Vec<u8>> = HashMap::new();
    let (mut accepted, mut closed) = (0, 0);
    turn_until(reactor, |reactor, event| {
        match event {
            Event::Accepted { token: LISTENER, socket } => {
                accepted += 1;
                let token = Token(accepted);
                reactor.receive(socket.as_fd(), token);
                sockets.insert(accepted, socket);
            }
            Event::Received { token, data } => match outgoing.get_mut(&token.0) {
                Some(waiting) => waiting.extend_from_slice(&data),
                None => {
                    outgoing.insert(token.0, Vec::new());
                    reactor.send(sockets[&token.0].as_fd(), data.to_vec(), 0, token);
                }
            },
            Event::Sent { token, data, body: None, result } => {
                let sent = result.unwrap();
                let next = outgoing.get_mut(&token.0).unwrap();
                if sent < data.len() {
                    let mut rest = data[sent..].to_vec();
                    rest.append(next);
                    *next = rest;
                }
                match std::mem::take(next) {
                    next if next.is_empty() => drop(outgoing.remove(&token.0)),
                    next => drop(reactor.send(sockets[&token.0].as_fd(), next, 0, token)),
                }
            }
            Event::ReceiveEnded { token, error: None } => {
                assert!(!outgoing.contains_key(&token.0), "peers close when all came back");
                reactor.close(sockets.remove(&token.0).unwrap());
                closed += 1;
            }
            other => panic!("{other:?}"),
        }
        closed == connections
    });
}

#[test]
fn every_connection_gets_its_own_bytes_back() {
    let _watchdog = watchdog();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let clients: Vec<_> = (0..16u8)
        .map(|client| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                for size in [1, 100, 16_384, 16_385, 300_000] {
                    let mut sent = pattern(size);
                    sent.iter_mut().for_each(|byte| *byte ^= client);
                    let mut writer = stream.try_clone().unwrap();
                    let expected = sent.clone();
                    let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
                    let mut got = vec![0; size];
                    stream.read_exact(&mut got).unwrap();
                    writing.join().unwrap();
                    assert!(got == expected);
                }
            })
        })
        .collect();
    let mut reactor = reactor();
    echo(&mut reactor, &listener, clients.len());
    for client in clients {
        client.join().unwrap();
    }
    // The accept alone is left.
    assert_eq!(reactor.in_flight(), 1);
    assert!(kernel_workers().is_empty());
}

/// Sends head and body, resuming after each short result, and checks that the peer gets both.
fn send_vectored(head_size: usize, body_size: usize) -> usize {
    let (socket, mut peer) = connection();
    let all = pattern(head_size + body_size);
    let (head, body) = (all[..head_size].to_vec(), all[head_size..].to_vec());
    let reading = thread::spawn(move || {
        let mut got = Vec::new();
        peer.read_to_end(&mut got).unwrap();
        got
    });
    let mut reactor = reactor();
    let token = Token(1);
    reactor.send_with_body(socket.as_fd(), head, Box::new(body), 0, token);
    let (mut from, mut attempts) = (0, 0);
    turn_until(&mut reactor, |reactor, event| {
        let Event::Sent { data, body: Some(body), result, .. } = event else { panic!("{event:?}") };
        assert_eq!((data.len(), body.bytes().1), (head_size, body_size));
        from += result.unwrap();
        attempts += 1;
        if from < head_size + body_size {
            reactor.send_with_body(socket.as_fd(), data, body, from, token);
        }
        from == head_size + body_size
    });
    reactor.shutdown(socket.as_fd(), Shutdown::Write);
    assert!(reading.join().unwrap() == all);
    attempts
}

#[test]
fn a_vectored_send_resumes_in_the_body() {
    let _watchdog = watchdog();
    assert!(send_vectored(100, 32 << 20) > 1, "no short result: the test needs a larger body");
}

#[test]
fn a_vectored_send_resumes_in_the_head() {
    let _watchdog = watchdog();
    assert!(send_vectored(32 << 20, 100) > 1, "no short result: the test needs a larger head");
}

#[test]
fn a_vectored_send_may_lack_head_or_body() {
    let _watchdog = watchdog();
    send_vectored(0, 10);
    send_vectored(10, 0);
}

/// A body in several places.
struct Parts(Vec<Vec<u8>>);

// SAFETY: the heap blocks of vectors that nobody touches while they are here.
unsafe impl StableBuffer for Parts {
    fn bytes(&self) -> (*const u8, usize) {
        self.0[0].bytes()
    }

    fn part(&self, index: usize) -> Option<(*const u8, usize)> {
        self.0.get(index + 1).map(|part| part.bytes())
    }
}

#[test]
fn a_body_of_many_parts_arrives_in_sequence_from_any_byte() {
    let _watchdog = watchdog();
    let mut reactor = reactor();
    let sizes = [3, 0, 1, 5, 0, 2];
    for parts in 1..=PARTS_MAX + 1 {
        let sizes: Vec<usize> = sizes.iter().copied().cycle().take(parts).collect();
        let all = pattern(4 + sizes.iter().sum::<usize>());
        for from in 0..=all.len() {
            let mut rest = &all[4..];
            let cut = |size: &usize| {
                let (part, behind) = rest.split_at(*size);
                rest = behind;
                part.to_vec()
            };
            let body = Box::new(Parts(sizes.iter().map(cut).collect()));
            let (socket, peer) = connection();
            reactor.send_with_body(socket.as_fd(), all[..4].to_vec(), body, from, Token(1));
            turn_until(&mut reactor, |_, event| {
                let Event::Sent { result, .. } = event else { panic!("{event:?}") };
                assert_eq!(result.unwrap(), all.len() - from);
                true
            });
            reactor.shutdown(socket.as_fd(), Shutdown::Write);
            assert_eq!(read_all(peer), all[from..]);
        }
    }
}

#[test]
fn a_send_waits_for_room_and_starts_where_it_is_told() {
    let _watchdog = watchdog();
    let (socket, mut peer) = connection();
    let mut reactor = reactor();
    let all = pattern(32 << 20);
    reactor.send(socket.as_fd(), all.clone(), 1000, Token(1));
    let mut from = 1000;
    let mut reading = None;
    turn_until(&mut reactor, |reactor, event| {
        let Event::Sent { data, result, .. } = event else { panic!("{event:?}") };
        from += result.unwrap();
        if from < data.len() {
            // The peer reads only now, when the next send has to wait for it.
            let peer = peer.try_clone().unwrap();
            reading.get_or_insert_with(|| thread::spawn(move || read_all(peer)));
            reactor.send(socket.as_fd(), data, from, Token(1));
            return false;
        }
        true
    });
    reactor.shutdown(socket.as_fd(), Shutdown::Write);
    let got = reading.expect("no short result: the test needs more data").join().unwrap();
    assert!(got == all[1000..]);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

fn read_all(mut stream: TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    got
}

#[test]
fn shutdown_comes_after_the_sends_queued_before_it() {
    let _watchdog = watchdog();
    let (socket, peer) = connection();
    let mut reactor = reactor();
    reactor.send(socket.as_fd(), b"last words".to_vec(), 0, Token(1));
    reactor.shutdown(socket.as_fd(), Shutdown::Write);
    assert_eq!(read_all(peer), b"last words");
    assert!(kernel_workers().is_empty());
}

#[test]
fn more_operations_than_the_queue_holds_are_all_done_in_order() {
    let _watchdog = watchdog();
    let config = reactor::Config { entries: 4, ..reactor::Config::default() };
    let mut reactor = Reactor::new(&config).unwrap();
    let (socket, peer) = connection();
    let sends = 1000u32;
    for number in 0..sends {
        reactor.send(socket.as_fd(), number.to_be_bytes().to_vec(), 0, Token(number.into()));
    }
    let mut ended = 0;
    turn_until(&mut reactor, |_, event| {
        let Event::Sent { token, result, .. } = event else { panic!("{event:?}") };
        assert_eq!(token, Token(ended));
        assert_eq!(result.unwrap(), 4);
        ended += 1;
        ended == u64::from(sends)
    });
    reactor.close(socket);
    assert_quiet(&mut reactor);
    let got = read_all(peer);
    let expected: Vec<_> = (0..sends).flat_map(u32::to_be_bytes).collect();
    assert!(got == expected);
}
