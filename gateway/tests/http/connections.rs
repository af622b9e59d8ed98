//! How connections begin, go on and end.

use std::time::Duration;

use gateway::Config;

use crate::client::Client;
use crate::server::{Command, Server};

const HOLD: &str = "POST /function/hold HTTP/1.1\r\nHost: h\r\n\r\n";

fn connect() -> (Server, Client) {
    let server = Server::start(Config::default());
    let client = Client::connect(server.address);
    (server, client)
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (server, mut client) = connect();
    let mut requests = String::from(HOLD);
    for number in 0..200 {
        let body = format!("body {number}");
        let size = body.len();
        requests.push_str(&format!(
            "POST /function/echo HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n{body}"
        ));
    }
    client.send(requests);
    server.wait_for(|report| report.held == 1);
    server.command(Command::Release);
    assert_eq!(client.response().text(), "released");
    for number in 0..200 {
        assert_eq!(client.response().text(), format!("body {number}"));
    }
}

#[test]
fn a_client_that_sends_far_ahead_is_held_back_and_then_served() {
    let (server, mut client) = connect();
    client.send(HOLD);
    server.wait_for(|report| report.held == 1);
    let mut sender = client.stream().try_clone().unwrap();
    let requests = 200;
    // More than the socket buffers and the backlog take: the writer blocks until answers flow.
    let body = vec![b'x'; 100_000];
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        for _ in 0..requests {
            let head = "POST /function/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n";
            sender.write_all(head.as_bytes()).unwrap();
            sender.write_all(&body).unwrap();
        }
    });
    server.wait_for(|report| report.received > 64 * 1024);
    // Had it not been stopped, the server would by now have taken nearly all of the 20 MB.
    for _ in 0..2_000 {
        assert!(server.report().received < 8_000_000);
    }
    server.command(Command::Release);
    assert_eq!(client.response().text(), "released");
    for _ in 0..requests {
        assert_eq!(client.response().body.len(), 100_000);
    }
    writer.join().unwrap();
}

#[test]
fn connections_close_as_version_and_header_say() {
    let (server, _) = connect();
    for (request, header, closes) in [
        ("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", None, false),
        ("GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", Some("close"), true),
        ("GET /healthz HTTP/1.0\r\n\r\n", Some("close"), true),
        ("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Some("keep-alive"), false),
    ] {
        let mut client = Client::connect(server.address);
        client.send(request);
        let response = client.response();
        assert_eq!((response.status, response.header("connection")), (200, header));
        if closes {
            client.expect_close();
        } else {
            assert_eq!(client.get("/healthz").status, 200);
        }
    }
}

#[test]
fn a_half_closed_client_still_gets_all_its_answers() {
    let (server, mut client) = connect();
    client.send(HOLD.repeat(2));
    client.finish();
    for _ in 0..2 {
        server.wait_for(|report| report.held == 1);
        server.command(Command::Release);
        assert_eq!(client.response().text(), "released");
    }
    client.expect_close();
    server.wait_for(|report| report.is_empty);
}

#[test]
fn a_reset_cancels_the_call() {
    let (server, client) = connect();
    let mut client = client;
    // A socket with unread bytes is reset by its close.
    client.send(format!("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n{HOLD}"));
    server.wait_for(|report| report.held == 1);
    drop(client);
    server.wait_for(|report| report.held == 0 && report.cancelled == 1 && report.is_empty);
    // An answer that comes too late finds nobody.
    server.command(Command::Release);
    assert_eq!(Client::connect(server.address).get("/healthz").status, 200);
}

#[test]
fn slow_senders_get_408_and_idle_connections_are_closed_without_a_word() {
    let short = Duration::from_millis(50);
    let server = Server::start(Config {
        head_timeout: short,
        body_timeout: short,
        idle_timeout: short,
        ..Config::default()
    });
    for request in [
        "GET /healthz HT",
        "POST /function/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel",
        "POST /function/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
    ] {
        let mut client = Client::connect(server.address);
        client.send(request);
        client.response().is_error(408, "request_timeout");
        client.expect_close();
    }
    let mut client = Client::connect(server.address);
    assert_eq!(client.get("/healthz").status, 200);
    client.expect_close();
    Client::connect(server.address).expect_close();
}

#[test]
fn a_connection_over_the_limit_is_refused_politely() {
    let server = Server::start(Config { connections_max: 2, ..Config::default() });
    let mut served: Vec<Client> = (0..2).map(|_| Client::connect(server.address)).collect();
    for client in &mut served {
        assert_eq!(client.get("/healthz").status, 200);
    }
    for _ in 0..20 {
        let mut client = Client::connect(server.address);
        client.send(HOLD);
        let response = client.response();
        response.is_error(503, "too_many_connections");
        assert_eq!(response.header("retry-after"), Some("1"));
        client.expect_close();
    }
    drop(served.pop());
    // Its place is free once the server has seen the end.
    loop {
        let mut client = Client::connect(server.address);
        match client.get("/healthz").status {
            200 => break,
            status => assert_eq!(status, 503),
        }
    }
    let metrics = served[0].get("/metrics");
    assert!(metrics.text().contains("connections_accepted_total{shard=\"7\"} 3\n"));
}

#[test]
fn a_drain_answers_what_was_begun_and_closes_everything() {
    let (server, mut idle) = connect();
    assert_eq!(idle.get("/healthz").status, 200);
    let mut late = Client::connect(server.address);
    assert_eq!(late.get("/healthz").status, 200);
    let mut calling = Client::connect(server.address);
    calling.send(HOLD);
    server.wait_for(|report| report.held == 1);
    server.command(Command::Drain);
    // A request within the grace is still answered, as the last of its connection.
    let response = late.get("/readyz");
    response.is_error(503, "unavailable");
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(response.header("retry-after"), Some("1"));
    late.expect_close();
    idle.expect_close();
    assert!(!server.report().is_empty);
    server.command(Command::Release);
    let response = calling.response();
    assert_eq!((response.text(), response.header("connection")), ("released", Some("close")));
    calling.expect_close();
    drop((idle, late, calling));
    server.wait_for(|report| report.is_empty);
}

#[test]
fn many_connections_at_once_each_get_their_own_answers() {
    let (server, _) = connect();
    let address = server.address;
    let threads: Vec<_> = (0..32)
        .map(|thread| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                for number in 0..200 {
                    let body = format!("{thread} {number} ").repeat(1 + number % 50);
                    let response = client.post("/function/echo", body.as_bytes());
                    assert_eq!(response.text(), body);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    server.wait_for(|report| report.blocks == 0);
}
