//! What may come on a link with TLS from one who does not say it as a link does.

use std::io::{Read, Write};
use std::net::TcpStream;

use protocol::frame::{HEAD_SIZE, Head, Kind, Part};
use protocol::{Established, LinkError, Side};
use rustls::Connection;

use crate::peer::{Heard, Peer, sockets};
use crate::tls;

/// Updates of keys in a row that TLS takes.
const KEY_UPDATES_MAX: usize = 32;

struct Stranger {
    socket: TcpStream,
    tls: Box<Connection>,
}

fn meet() -> (Stranger, Peer) {
    let (client, server) = tls::pair();
    let (socket, ours) = sockets();
    let established = Established { socket: ours.into(), tls: Some(server), early: Vec::new() };
    (Stranger { socket, tls: client }, Peer::new(established, Side::Gateway))
}

fn frame(kind: Kind) -> [u8; HEAD_SIZE] {
    Head { size: 0, kind, part: Part::Last, stream: 5 }.encode()
}

impl Stranger {
    /// One record.
    fn say(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).unwrap();
        self.send();
    }

    fn send(&mut self) {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket).unwrap();
        }
    }

    /// Plain bytes that have come.
    fn hear(&mut self) -> Vec<u8> {
        let mut plain = Vec::new();
        let _ = self.tls.read_tls(&mut self.socket);
        let state = self.tls.process_new_packets().unwrap();
        plain.resize(state.plaintext_bytes_to_read(), 0);
        self.tls.reader().read_exact(&mut plain).unwrap();
        plain
    }
}

fn turn_until_ended(gateway: &mut Peer) -> &LinkError {
    gateway.turn_until("the link has ended", |gateway| gateway.ended.is_some());
    gateway.ended.as_ref().unwrap()
}

#[test]
fn bytes_that_are_no_tls_end_the_link() {
    for garbage in [&[0; 64][..], &[0xff; 64], b"\x17\x03\x03\x40\x01", &[23, 3, 3, 0, 0]] {
        let (mut stranger, mut gateway) = meet();
        stranger.say(&frame(Kind::Draining));
        // More than a record may have, or it would be waited for.
        stranger.socket.write_all(&garbage.repeat(40_000 / garbage.len())).unwrap();
        let ended = turn_until_ended(&mut gateway);
        assert!(matches!(ended, LinkError::Tls(_)), "{ended:?}");
    }
}

#[test]
fn a_frame_in_many_records_and_a_record_in_many_pieces_arrive() {
    let (mut stranger, mut gateway) = meet();
    for byte in frame(Kind::Draining) {
        stranger.say(&[byte]);
    }
    stranger.tls.writer().write_all(&frame(Kind::Load)).unwrap();
    let mut record = Vec::new();
    stranger.tls.write_tls(&mut record).unwrap();
    for byte in record {
        stranger.socket.write_all(&[byte]).unwrap();
        gateway.turn();
    }
    gateway.turn_until("both are there", |gateway| gateway.heard.len() == 2);
    assert_eq!(gateway.heard, [Heard::Draining, Heard::Load(Vec::new())]);
}

#[test]
fn keys_may_be_updated_but_not_endlessly() {
    let (mut stranger, mut gateway) = meet();
    for _ in 0..3 {
        stranger.tls.refresh_traffic_keys().unwrap();
        stranger.say(&frame(Kind::Ping));
        let mut heard = Vec::new();
        gateway.turn_until("it answers with its own new key", |_| {
            heard.extend(stranger.hear());
            heard.len() == HEAD_SIZE
        });
        assert_eq!(heard, frame(Kind::Pong));
    }
    for _ in 0..=KEY_UPDATES_MAX {
        stranger.tls.refresh_traffic_keys().unwrap();
    }
    stranger.send();
    let ended = turn_until_ended(&mut gateway);
    assert!(matches!(ended, LinkError::Tls(rustls::Error::PeerMisbehaved(_))), "{ended:?}");
}

#[test]
fn the_end_of_tls_is_the_end_whatever_comes_behind() {
    let (mut stranger, mut gateway) = meet();
    stranger.tls.writer().write_all(&frame(Kind::Draining)).unwrap();
    stranger.tls.send_close_notify();
    let mut bytes = Vec::new();
    while stranger.tls.wants_write() {
        stranger.tls.write_tls(&mut bytes).unwrap();
    }
    bytes.extend_from_slice(&frame(Kind::Draining).repeat(3_000));
    stranger.socket.write_all(&bytes).unwrap();
    let ended = turn_until_ended(&mut gateway);
    assert!(matches!(ended, LinkError::Io(_)), "{ended:?}");
    assert_eq!(gateway.heard, [Heard::Draining]);
}

#[test]
fn what_tls_has_read_with_the_handshake_is_heard_without_another_byte() {
    let (mut client, mut server) = tls::pair();
    client.writer().write_all(&frame(Kind::Draining)).unwrap();
    tls::pass(&mut client, &mut server);
    // And the beginning of a record.
    client.writer().write_all(&frame(Kind::Load)).unwrap();
    let mut record = Vec::new();
    client.write_tls(&mut record).unwrap();
    let (begin, rest) = record.split_at(10);
    server.read_tls(&mut &begin[..]).unwrap();
    let (mut socket, ours) = sockets();
    let established = Established { socket: ours.into(), tls: Some(server), early: Vec::new() };
    let mut gateway = Peer::new(established, Side::Gateway);
    gateway.turn_until("the first is there", |gateway| gateway.heard == [Heard::Draining]);
    socket.write_all(rest).unwrap();
    gateway.turn_until("the second is there", |gateway| gateway.heard.len() == 2);
}

#[test]
fn a_link_that_cannot_begin_leaves_nothing_in_flight() {
    let (_client, mut server) = tls::pair();
    server.read_tls(&mut &[0xff; 64][..]).unwrap();
    let (_stranger, ours) = sockets();
    let established = Established { socket: ours.into(), tls: Some(server), early: Vec::new() };
    let gateway = Peer::new(established, Side::Gateway);
    assert!(matches!(gateway.ended, Some(LinkError::Tls(_))), "{:?}", gateway.ended);
    assert_eq!(gateway.reactor.in_flight(), 0);
}
