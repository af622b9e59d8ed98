//! Connections with TLS: the same requests and answers, and what a shard has of them meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use gateway::Config;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use crate::server::{Command, Server};

type Client = StreamOwned<ClientConnection, TcpStream>;

/// A watchdog, not a bound.
const WATCHDOG: Duration = Duration::from_secs(20);
const HELLO: &[u8] = b"POST /function/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";

/// A certificate and those who believe it.
fn identity() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

fn connect() -> (Server, Client) {
    let (ours, theirs) = identity();
    let server = Server::start_secured(Config::default(), ours);
    let socket = TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(WATCHDOG)).unwrap();
    socket.set_write_timeout(Some(WATCHDOG)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(theirs, name).unwrap();
    (server, StreamOwned::new(session, socket))
}

/// Reads until an answer with this body has come.
fn expect(client: &mut Client, body: &[u8]) {
    let mut read = Vec::new();
    while !read.ends_with(body) {
        let mut chunk = [0; 4096];
        let size = client.read(&mut chunk).unwrap();
        assert!(size > 0, "the end instead of an answer");
        read.extend_from_slice(&chunk[..size]);
    }
    assert!(read.starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn an_answer_frees_its_functions_memory_at_once_however_slow_the_client_reads() {
    let (server, mut client) = connect();
    client.write_all(HELLO).unwrap();
    expect(&mut client, b"hello");
    let before = server.report().received;
    // Far more than the sockets take; the client reads none of it.
    client.write_all(b"GET /function/size?8000000 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    server.wait_for(|report| report.received > before && report.blocks == 0);
    let mut answer = Vec::new();
    while answer.len() < 8_000_000 {
        let mut chunk = [0; 65_536];
        let size = client.read(&mut chunk).unwrap();
        assert!(size > 0, "the end instead of an answer");
        answer.extend_from_slice(&chunk[..size]);
    }
}

#[test]
fn a_connection_with_tls_stays_when_others_leave() {
    let (server, mut client) = connect();
    for _ in 0..5 {
        client.write_all(HELLO).unwrap();
        expect(&mut client, b"hello");
        server.command(Command::SendAway);
        assert_eq!(server.report().departed, 0);
    }
}

#[test]
fn continue_is_told_before_the_answer() {
    let (_server, mut client) = connect();
    let head = "POST /function/echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    client.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"hello").unwrap();
    expect(&mut client, b"hello");
}

#[test]
fn a_client_that_breaks_tls_during_a_call_has_it_cancelled() {
    let (server, mut client) = connect();
    client.write_all(b"POST /function/hold HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    server.wait_for(|report| report.held == 1);
    client.sock.write_all(&[23, 3, 3, 0, 1, 0]).unwrap();
    server.wait_for(|report| report.cancelled == 1 && report.is_empty);
    assert!(client.read(&mut [0]).is_err(), "an alert, not an end in good order");
}

#[test]
fn a_drain_lets_a_call_end_and_closes_in_good_order() {
    let (server, mut client) = connect();
    client.write_all(b"POST /function/hold HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    server.wait_for(|report| report.held == 1);
    server.command(Command::Drain);
    server.command(Command::Release);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"released"));
    drop(client);
    server.wait_for(|report| report.is_empty);
}
