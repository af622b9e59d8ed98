//! What a client gets to see of an answer, whatever the function says.

use std::time::Duration;

use gateway::Config;

use crate::client::Client;
use crate::server::{Server, pattern};

fn connect() -> (Server, Client) {
    let server = Server::start(Config::default());
    let client = Client::connect(server.address);
    (server, client)
}

#[test]
fn a_function_chooses_status_type_and_headers() {
    let (_server, mut client) = connect();
    let response = client.post("/function/echo", b"x");
    assert_eq!(response.header("content-type"), Some("application/octet-stream"));
    let response =
        client.post("/function/reply", b"status: 201\ntype: text/html\nX-A: b\nLocation: /c");
    assert_eq!((response.status, response.text()), (201, "payload"));
    assert_eq!(response.header("content-type"), Some("text/html"));
    assert_eq!(response.header("x-a"), Some("b"));
    assert_eq!(response.header("location"), Some("/c"));
    let response = client.post("/function/reply", b"Content-Type: text/css");
    assert_eq!(response.header("content-type"), Some("text/css"));
}

#[test]
fn a_function_cannot_touch_the_framing() {
    let (_server, mut client) = connect();
    let response = client.post(
        "/function/reply",
        b"Content-Length: 1\nTransfer-Encoding: chunked\nConnection: close\nDate: never\n\
          X-Request-Id: forged\nKeep-Alive: 1\nUpgrade: h2c",
    );
    assert_eq!((response.status, response.text()), (200, "payload"));
    for name in ["transfer-encoding", "connection", "keep-alive", "upgrade"] {
        assert_eq!(response.header(name), None);
    }
    assert_ne!(response.header("x-request-id"), Some("forged"));
    // These would break the head apart; the whole envelope is refused.
    for lines in ["X: a\rInjected", "X Y: a", "status: 100", "status: 600", "type: a\rb"] {
        client.post("/function/reply", lines.as_bytes()).is_error(500, "function_error");
    }
    for (status, length) in [("204", None), ("304", None), ("205", Some("0"))] {
        let response = client.post("/function/reply", format!("status: {status}").as_bytes());
        assert_eq!(response.status.to_string(), status);
        assert_eq!(response.header("content-length"), length);
    }
    assert_eq!(client.get("/healthz").status, 200);
}

#[test]
fn head_is_answered_with_the_length_and_without_the_body() {
    let (server, mut client) = connect();
    for (path, length) in
        [("/function/size?100000", "100000"), ("/function/size?7", "7"), ("/healthz", "3")]
    {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let response = client.response_without_body();
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-length"), Some(length));
    }
    client.send("HEAD /nothing HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response_without_body().status, 404);
    assert_eq!(client.get("/healthz").text(), "ok\n");
    server.wait_for(|report| report.blocks == 0);
}

#[test]
fn every_outcome_has_its_status_and_kind() {
    let (_server, mut client) = connect();
    for outcome in &ipc::Outcome::ALL[1..] {
        let path = format!("/function/fail?{}", *outcome as u8);
        let response = client.post(&path, "went \"wrong\" \u{1}\u{e9}".as_bytes());
        response.is_error(outcome.http_status(), outcome.as_str());
        assert!(response.text().contains("went \\\"wrong\\\" \\u0001\u{e9}"));
        let retry = matches!(response.status, 429 | 503).then_some("1");
        assert_eq!(response.header("retry-after"), retry);
    }
    let response = client.post("/function/fail?1", &[0xff; 10_000]);
    assert!(response.member("message").chars().all(|letter| letter == '\u{fffd}'));
    assert_eq!(response.member("message").chars().count(), 4096);
    // An error without words still has a message.
    assert_eq!(client.post("/function/fail?2", b"").member("message"), "function_panic");
}

#[test]
fn a_function_error_may_choose_among_error_statuses() {
    let (_server, mut client) = connect();
    client.post("/function/fail/422?1", b"no").is_error(422, "function_error");
    client.post("/function/fail/503?1", b"no").is_error(503, "function_error");
    client.post("/function/fail/200?1", b"no").is_error(500, "function_error");
    client.post("/function/fail/422?10", b"no").is_error(502, "container_died");
}

#[test]
fn a_refused_call_is_answered_with_the_refusal() {
    let (_server, mut client) = connect();
    let response = client.post("/function/refuse", b"");
    response.is_error(503, "overloaded");
    assert_eq!(response.member("message"), "the queue is full");
    assert_eq!(response.header("retry-after"), Some("3"));
    assert_eq!(client.get("/healthz").status, 200);
}

#[test]
fn the_own_resources_answer() {
    let (_server, mut client) = connect();
    assert_eq!(client.get("/readyz").status, 200);
    let response = client.get("/v1/functions");
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.text(), "{\"functions\":[]}");
    client.get("/nothing");
    let metrics = client.get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    for line in [
        "engine_metric 1",
        "nightcore_gateway_connections_open{shard=\"7\"} 1",
        "nightcore_gateway_connections_accepted_total{shard=\"7\"} 1",
        "nightcore_gateway_connections_refused_total{shard=\"7\"} 0",
        "nightcore_gateway_requests_total{shard=\"7\"} 4",
        "nightcore_gateway_answers_total{shard=\"7\",class=\"2xx\",code=\"200\"} 2",
        "nightcore_gateway_answers_total{shard=\"7\",class=\"4xx\",code=\"404\"} 1",
    ] {
        assert!(metrics.text().lines().any(|found| found == line), "{line}\n{}", metrics.text());
    }
}

#[test]
fn a_slow_reader_does_not_keep_the_memory_of_a_function() {
    let (server, mut client) = connect();
    let request = "GET /function/size?16000000 HTTP/1.1\r\nHost: h\r\n\r\n";
    client.send(request);
    // Nothing is read until the block has been given back: the rest of it was copied.
    server.wait_for(|report| report.blocks == 1);
    server.wait_for(|report| report.blocks == 0);
    let response = client.response();
    assert!((0..16_000_000).map(pattern).eq(response.body.iter().copied()));
    // The same when the socket is full before the answer begins.
    client.send(request.repeat(2));
    server.wait_for(|report| report.blocks == 1);
    server.wait_for(|report| report.blocks == 0);
    for _ in 0..2 {
        assert_eq!(client.response().body.len(), 16_000_000);
    }
    server.wait_for(|report| report.blocks == 0);
}

#[test]
fn a_client_that_never_reads_is_given_up() {
    let write_timeout = Duration::from_millis(100);
    let server = Server::start(Config { write_timeout, ..Config::default() });
    let mut client = Client::connect(server.address);
    client.send("GET /function/size?16000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    server.wait_for(|report| report.blocks == 1);
    server.wait_for(|report| report.is_empty && report.blocks == 0);
    assert!(client.read_to_end().len() < 16_000_000);
}
