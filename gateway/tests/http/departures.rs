//! Connections that leave for another shard do so between two requests, and nobody notices. Here the
//! other shard is the same one.

use gateway::Config;

use crate::client::Client;
use crate::server::{Command, Server};

const HOLD: &str = "POST /function/hold HTTP/1.1\r\nHost: h\r\n\r\n";

fn connect() -> (Server, Client) {
    let server = Server::start(Config::default());
    let mut client = Client::connect(server.address);
    assert_eq!(client.get("/healthz").status, 200);
    (server, client)
}

#[test]
fn an_idle_connection_leaves_at_once_and_is_served_on() {
    let (server, mut client) = connect();
    for count in 1..=10 {
        server.command(Command::SendAway);
        server.wait_for(|report| report.departed == count);
        assert_eq!(client.post("/function/echo", b"x").text(), "x");
    }
}

#[test]
fn a_connection_with_a_call_leaves_behind_its_answer() {
    let (server, mut client) = connect();
    client.send(HOLD);
    server.wait_for(|report| report.held == 1);
    server.command(Command::SendAway);
    assert_eq!(server.report().departed, 0);
    server.command(Command::Release);
    assert_eq!(client.response().text(), "released");
    server.wait_for(|report| report.departed == 1);
    assert_eq!(client.post("/function/echo", b"x").text(), "x");
}

#[test]
fn a_client_that_leaves_during_a_call_is_noticed_although_it_was_to_be_moved() {
    let (server, mut client) = connect();
    client.send(format!("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n{HOLD}"));
    server.wait_for(|report| report.held == 1);
    server.command(Command::SendAway);
    drop(client);
    server.wait_for(|report| report.cancelled == 1 && report.is_empty);
}

#[test]
fn a_slow_sender_stays_until_its_request_is_answered() {
    let whole = "POST /function/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    for cut in [1, 10, 40, whole.len() - 5, whole.len() - 1] {
        let (server, mut client) = connect();
        let before = server.report().received;
        client.send(&whole[..cut]);
        server.wait_for(|report| report.received == before + cut as u64);
        server.command(Command::SendAway);
        for _ in 0..20 {
            assert_eq!(server.report().departed, 0);
        }
        client.send(&whole[cut..]);
        assert_eq!(client.response().text(), "hello");
        server.wait_for(|report| report.departed == 1);
        assert_eq!(client.get("/healthz").status, 200);
    }
}

#[test]
fn what_was_sent_ahead_is_answered_here_and_in_order() {
    let (server, mut client) = connect();
    let mut requests = String::from(HOLD);
    for number in 0..200 {
        requests.push_str(&format!("GET /function/inspect?{number} HTTP/1.1\r\nHost: h\r\n\r\n"));
    }
    client.send(requests);
    server.wait_for(|report| report.held == 1);
    server.command(Command::SendAway);
    server.command(Command::Release);
    assert_eq!(client.response().text(), "released");
    for number in 0..200 {
        assert!(client.response().text().contains(&format!(" query={number} ")));
    }
    server.wait_for(|report| report.departed == 1);
}

#[test]
fn a_half_closed_client_gets_its_answer_and_the_end() {
    let (server, mut client) = connect();
    client.send(HOLD);
    client.finish();
    server.wait_for(|report| report.held == 1);
    server.command(Command::SendAway);
    server.command(Command::Release);
    assert_eq!(client.response().text(), "released");
    client.expect_close();
    server.wait_for(|report| report.is_empty);
}

#[test]
fn the_last_answer_of_a_connection_moves_nothing() {
    let (server, mut client) = connect();
    client.send("POST /function/hold HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    server.wait_for(|report| report.held == 1);
    server.command(Command::SendAway);
    server.command(Command::Release);
    assert_eq!(client.response().text(), "released");
    client.expect_close();
    drop(client);
    server.wait_for(|report| report.is_empty && report.departed == 0);
}

#[test]
fn nobody_leaves_a_host_that_drains() {
    let (server, mut client) = connect();
    client.send(HOLD);
    server.wait_for(|report| report.held == 1);
    server.command(Command::SendAway);
    server.command(Command::Drain);
    server.command(Command::Release);
    assert_eq!(client.response().text(), "released");
    client.expect_close();
    drop(client);
    server.wait_for(|report| report.is_empty && report.departed == 0);
}

/// Every way to send, on connections that are asked to leave in every turn of the loop.
#[test]
fn connections_that_never_come_to_rest_lose_nothing() {
    let (server, _first) = connect();
    server.command(Command::Unsettle);
    let address = server.address;
    let client = move |thread: usize| {
        let mut client = Client::connect(address);
        for number in 0..150 {
            let body = format!("{thread} {number} ").repeat(1 + number % 50);
            let size = body.len();
            let head = format!("POST /function/echo HTTP/1.1\r\nHost: h\r\nContent-Length: {size}");
            match number % 4 {
                0 => client.send(format!("{head}\r\n\r\n{body}")),
                1 => {
                    client.send(format!("{head}\r\n\r\n"));
                    client.send(&body);
                }
                2 => {
                    client.send(format!("{head}\r\nExpect: 100-continue\r\n\r\n"));
                    assert_eq!(client.response().status, 100);
                    client.send(&body);
                }
                _ => {
                    client.send(format!("{head}\r\n\r\n{body}GET /function/size?40000 HT"));
                    client.send("TP/1.1\r\nHost: h\r\n\r\n");
                }
            }
            assert_eq!(client.response().text(), body);
            if number % 4 == 3 {
                assert_eq!(client.response().body.len(), 40_000);
            }
        }
    };
    let threads: Vec<_> =
        (0..16).map(|thread| std::thread::spawn(move || client(thread))).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    server.wait_for(|report| report.departed >= 1_000 && report.blocks == 0);
}
