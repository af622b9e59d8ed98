//! Bytes in, the same bytes out: sizes, framings, and what a connection lives through.

use nightcore_tests::{Connection, Random, Stack, functions, get, post, request};

/// The default limit of a body.
const BODY_MAX: usize = 16 << 20;

#[test]
fn payloads_of_every_size_come_back_byte_for_byte() {
    let stack = Stack::start(&functions(&["echo"]));
    let mut random = Random::new(1);
    let mut connection = stack.connect();
    let around = |size: usize| [size - 1, size, size + 1];
    let mut sizes = vec![0, 1, 2, 3, 63, 64, 65];
    sizes.extend([4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20].into_iter().flat_map(around));
    sizes.extend([2 << 20, 4 << 20, 8 << 20, BODY_MAX - 1, BODY_MAX]);
    for size in sizes {
        let body = random.bytes(size);
        let answer = connection.exchange(&post("/function/echo", &body));
        assert!(answer.ok() == body, "{size} bytes came back as {}", answer.show());
    }
    let answer = connection.exchange(&post("/function/echo", &random.bytes(BODY_MAX + 1)));
    answer.failure(413, "payload_too_large");
}

#[test]
fn chunked_bodies_are_joined_wherever_they_are_cut() {
    let stack = Stack::start(&functions(&["echo"]));
    let mut random = Random::new(2);
    let mut connection = stack.connect();
    for size in [0, 1, 10, 1_000, 100_000, 1 << 20] {
        for longest in [1, 7, 4_096, 70_000] {
            if size / longest > 20_000 {
                continue;
            }
            let body = random.bytes(size);
            connection.send(&chunked(&mut random, &body, longest));
            let answer = connection.read();
            assert!(answer.ok() == body, "{size} in {longest}: {}", answer.show());
        }
    }
}

#[test]
fn a_request_may_arrive_one_byte_at_a_time() {
    let stack = Stack::start(&functions(&["echo"]));
    let mut connection = stack.connect();
    let with_length = post("/function/echo", b"drop by drop");
    let in_chunks = chunked(&mut Random::new(3), b"drop by drop", 3);
    for bytes in [with_length, in_chunks] {
        for byte in bytes.chunks(1) {
            connection.send(byte);
        }
        assert_eq!(connection.read().ok(), b"drop by drop");
    }
}

#[test]
fn a_large_answer_waits_for_a_slow_reader_without_harm_to_others() {
    let stack = Stack::start(&functions(&["echo"]));
    let body = Random::new(4).bytes(8 << 20);
    let mut slow = stack.connect();
    slow.send(&post("/function/echo", &body));
    // Its answer fills the socket's buffers and stays there.
    for _ in 0..100 {
        assert_eq!(stack.call("echo", b"quick").ok(), b"quick");
    }
    assert!(slow.read().ok() == body);
}

#[test]
fn whoever_expects_100_continue_gets_it_before_the_answer() {
    let stack = Stack::start(&functions(&["echo"]));
    let mut connection = stack.connect();
    for _ in 0..3 {
        let whole = request("POST", "/function/echo", "Expect: 100-continue\r\n", b"the body");
        let (head, body) = whole.split_at(whole.len() - b"the body".len());
        connection.send(head);
        let interim = connection.read();
        assert_eq!((interim.status, interim.headers.len()), (100, 0));
        connection.send(body);
        assert_eq!(connection.read().ok(), b"the body");
    }
}

#[test]
fn head_calls_the_function_and_leaves_the_body_out() {
    let stack = Stack::start(&functions(&["echo"]));
    let mut connection = stack.connect();
    connection.send(&request("HEAD", "/function/echo", "", b"four"));
    let answer = connection.read_head_only();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("4")));
    connection.send(&request("HEAD", "/function/unknown", "", b""));
    assert_eq!(connection.read_head_only().status, 404);
    assert_eq!(connection.exchange(&post("/function/echo", b"next")).ok(), b"next");
    assert_eq!(stack.count("echo", "completed"), 2);
}

#[test]
fn get_calls_the_function_without_a_body() {
    let stack = Stack::start(&functions(&["echo"]));
    assert_eq!(stack.get("/function/echo").ok(), b"");
}

#[test]
fn a_connection_lives_until_one_side_says_otherwise() {
    let stack = Stack::start(&functions(&["echo"]));
    let mut connection = stack.connect();
    for number in 0..100 {
        let body = format!("{number}");
        let answer = connection.exchange(&post("/function/echo", body.as_bytes()));
        assert_eq!(answer.ok(), body.as_bytes());
        assert!(!answer.is_last());
    }
    for value in ["close", "Close", "keep-alive, close"] {
        let mut connection = stack.connect();
        let header = format!("Connection: {value}\r\n");
        let answer = connection.exchange(&request("POST", "/function/echo", &header, b"last"));
        assert_eq!(answer.ok(), b"last");
        assert!(answer.is_last(), "{value}");
        connection.expect_end();
    }
}

#[test]
fn http_1_0_closes_unless_asked_to_stay() {
    let stack = Stack::start(&functions(&["echo"]));
    let mut connection = stack.connect();
    let keep =
        "POST /function/echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nstay";
    for _ in 0..2 {
        let answer = connection.exchange(keep.as_bytes());
        assert_eq!(answer.ok(), b"stay");
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
    let close = "POST /function/echo HTTP/1.0\r\nContent-Length: 2\r\n\r\ngo";
    assert_eq!(connection.exchange(close.as_bytes()).ok(), b"go");
    connection.expect_end();
}

#[test]
fn fifty_pipelined_requests_are_answered_in_their_order() {
    let stack = Stack::start(&functions(&["echo", "sleep", "fail"]));
    let mut connection = stack.connect();
    let mut bytes = Vec::new();
    for number in 0..50 {
        bytes.extend(pipelined(number));
    }
    connection.send(&bytes);
    for number in 0..50 {
        expect_pipelined(&mut connection, number);
    }
    // The same, cut where it hurts.
    for part in bytes.chunks(333) {
        connection.send(part);
    }
    for number in 0..50 {
        expect_pipelined(&mut connection, number);
    }
}

#[test]
fn a_client_that_ends_its_half_still_gets_every_answer() {
    let stack = Stack::start(&functions(&["echo", "sleep"]));
    let mut connection = stack.connect();
    connection.send(&post("/function/sleep", b"{\"ms\": 100}"));
    connection.send(&post("/function/echo", b"and this"));
    connection.end_sending();
    connection.read().ok();
    assert_eq!(connection.read().ok(), b"and this");
    connection.expect_end();
}

/// Slow ones, quick ones, documents and failures by turns.
fn pipelined(number: usize) -> Vec<u8> {
    match number % 5 {
        0 => post("/function/sleep", format!("{{\"ms\": {}}}", number % 4).as_bytes()),
        1 => get("/healthz"),
        2 => post("/function/fail", format!("failure {number}").as_bytes()),
        _ => post("/function/echo", format!("body {number}").as_bytes()),
    }
}

fn expect_pipelined(connection: &mut Connection, number: usize) {
    let answer = connection.read();
    match number % 5 {
        0 => assert_eq!(answer.json()["ms"], number % 4),
        1 => assert_eq!(answer.status, 200),
        2 => {
            let failure = answer.failure(500, "function_error");
            assert_eq!(failure.message, format!("failure {number}"));
        }
        _ => assert_eq!(answer.text(), format!("body {number}")),
    }
}

/// The bytes of a call whose body comes in chunks of 1 to `longest` bytes, with extensions and a
/// trailer now and then.
fn chunked(random: &mut Random, body: &[u8], longest: usize) -> Vec<u8> {
    let head = "POST /function/echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut bytes = head.as_bytes().to_vec();
    let mut rest = body;
    let mut extensions_left = 100;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(1 + random.below(longest.min(rest.len())));
        let extension =
            if extensions_left > 0 && random.below(4) == 0 { ";name=value" } else { "" };
        extensions_left -= usize::from(!extension.is_empty());
        bytes.extend(format!("{:X}{extension}\r\n", chunk.len()).into_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        rest = behind;
    }
    let trailer = if random.below(2) == 0 { "Trailer: none\r\n" } else { "" };
    bytes.extend(format!("0\r\n{trailer}\r\n").into_bytes());
    bytes
}
