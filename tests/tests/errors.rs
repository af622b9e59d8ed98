//! Every failure of the contract: its status, its kind, its JSON, its request id.

use nightcore_tests::client::Body;
use nightcore_tests::{Connection, Stack, functions, get, post, request, wait_until};

#[test]
fn an_unknown_function_or_path_is_404_and_the_connection_goes_on() {
    let stack = Stack::start(&functions(&["nop"]));
    let mut connection = stack.connect();
    let too_long = format!("/function/{}", "a".repeat(65));
    for path in
        ["/function/unknown", "/function/", "/function/NOP", "/", "/nop", "/v1/nop", "*", &too_long]
    {
        let answer = connection.exchange(&get(path));
        answer.failure(404, "not_found");
        assert!(!answer.is_last(), "{path}");
    }
    connection.exchange(&post("/function/nop", b"")).ok();
}

#[test]
fn a_method_that_a_path_does_not_take_is_405_and_names_those_it_takes() {
    let stack = Stack::start(&functions(&["nop"]));
    for (method, path, allowed) in [
        ("DELETE", "/function/nop", "GET, HEAD, POST"),
        ("PUT", "/function/nop", "GET, HEAD, POST"),
        ("OPTIONS", "/function/nop", "GET, HEAD, POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
        ("BREW", "/v1/functions", "GET, HEAD"),
    ] {
        let answer = stack.connect().exchange(&request(method, path, "", b"body"));
        answer.failure(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
    }
}

#[test]
fn a_request_id_is_taken_from_the_client_or_made() {
    let stack = Stack::start(&functions(&["nop", "fail"]));
    let mut connection = stack.connect();
    let mut id_of = |function: &str, sent: &str| {
        let path = format!("/function/{function}");
        let header = format!("X-Request-Id: {sent}\r\n");
        let answer = connection.exchange(&request("POST", &path, &header, b""));
        if answer.status != 200 {
            // Compares header and body.
            answer.failure(500, "function_error");
        }
        answer.header("x-request-id").expect("an id").to_owned()
    };
    for function in ["nop", "fail"] {
        assert_eq!(id_of(function, "from-the.client:1"), "from-the.client:1");
        // One that could break a log line is replaced.
        let made = id_of(function, "a b\"c");
        assert!(!made.is_empty() && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
        assert_ne!(id_of(function, ""), made);
    }
}

#[test]
fn a_head_that_comes_too_slowly_is_408() {
    let config = "[gateway]\nhead_timeout = \"200ms\"\n";
    let stack = Stack::start(&format!("{config}{}", functions(&["nop"])));
    let mut connection = stack.connect();
    connection.send(b"POST /function/nop HTTP/1.1\r\nHost: te");
    expect_last(&mut connection, 408, "request_timeout");
}

#[test]
fn a_body_that_pauses_too_long_is_408() {
    let config = "[gateway]\nbody_timeout = \"200ms\"\n";
    let stack = Stack::start(&format!("{config}{}", functions(&["echo"])));
    let head = "POST /function/echo HTTP/1.1\r\nHost: test\r\n";
    for rest in ["Content-Length: 10\r\n\r\n12345", "Transfer-Encoding: chunked\r\n\r\na\r\n12345"]
    {
        let mut connection = stack.connect();
        connection.send(format!("{head}{rest}").as_bytes());
        expect_last(&mut connection, 408, "request_timeout");
    }
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let config = "[gateway]\nidle_timeout = \"200ms\"\n";
    let stack = Stack::start(&format!("{config}{}", functions(&["nop"])));
    let mut connection = stack.connect();
    connection.exchange(&post("/function/nop", b"")).ok();
    connection.expect_end();
    stack.connect().expect_end();
}

#[test]
fn a_body_over_the_limit_is_413_before_it_was_sent() {
    let config = "[gateway]\nbody_max = \"64KiB\"\n";
    let stack = Stack::start(&format!("{config}{}", functions(&["echo"])));
    let head = "POST /function/echo HTTP/1.1\r\nHost: test\r\n";
    for announced in [
        "Content-Length: 65537\r\n\r\n",
        "Content-Length: 18446744073709551615\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n10001\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n10000\r\n",
        "Transfer-Encoding: chunked\r\n\r\n11111111111111111111111111\r\n",
        // The client waits for a word before it sends the body, and gets this one.
        "Content-Length: 65537\r\nExpect: 100-continue\r\n\r\n",
    ] {
        let mut connection = stack.connect();
        connection.send(format!("{head}{announced}").as_bytes());
        expect_last(&mut connection, 413, "payload_too_large");
    }
}

#[test]
fn a_client_that_sends_on_regardless_can_read_its_413() {
    let config = "[gateway]\nbody_max = \"64KiB\"\n";
    let stack = Stack::start(&format!("{config}{}", functions(&["echo"])));
    let mut connection = stack.connect();
    connection.send(&post("/function/echo", &vec![b'x'; 128 << 10]));
    expect_last(&mut connection, 413, "payload_too_large");
}

#[test]
fn an_answer_over_the_limit_is_413_and_not_cut_off() {
    // `highlight` turns every quote of plain text into six bytes.
    let config = "[gateway]\nbody_max = \"64KiB\"\n";
    let stack = Stack::start(&format!("{config}{}", functions(&["highlight"])));
    let input = [b"plain\n".as_slice(), &[b'"'; 30 << 10]].concat();
    let answer = stack.call("highlight", &input);
    answer.failure(413, "payload_too_large");
    assert!(!stack.call("highlight", b"plain\n\"").ok().is_empty());
}

#[test]
fn a_target_that_is_too_long_is_414() {
    let stack = Stack::start(&functions(&["nop"]));
    let path = format!("/function/nop?{}", "q".repeat(9 << 10));
    let mut connection = stack.connect();
    connection.send(&get(&path));
    expect_last(&mut connection, 414, "uri_too_long");
    // Nor does its end have to come first.
    let mut connection = stack.connect();
    connection.send(format!("GET {path}").as_bytes());
    expect_last(&mut connection, 414, "uri_too_long");
}

#[test]
fn a_header_that_is_too_large_is_431() {
    let stack = Stack::start(&functions(&["nop"]));
    let many = "X-Filler: 1\r\n".repeat(100);
    let large = format!("X-Filler: {}\r\n", "x".repeat(20 << 10));
    let name = format!("{}: 1\r\n", "x".repeat(300));
    for headers in [many, large, name] {
        let mut connection = stack.connect();
        connection.send(&request("POST", "/function/nop", &headers, b""));
        expect_last(&mut connection, 431, "header_too_large");
    }
}

#[test]
fn an_expectation_that_cannot_be_met_is_417() {
    let stack = Stack::start(&functions(&["nop"]));
    let mut connection = stack.connect();
    connection.send(&request("POST", "/function/nop", "Expect: the-unexpected\r\n", b""));
    expect_last(&mut connection, 417, "bad_request");
}

#[test]
fn a_coding_or_version_of_http_that_is_not_spoken_is_501_or_505() {
    let stack = Stack::start(&functions(&["nop"]));
    let mut connection = stack.connect();
    let coded =
        "POST /function/nop HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
    connection.send(coded.as_bytes());
    expect_last(&mut connection, 501, "bad_request");
    let mut connection = stack.connect();
    connection.send(b"POST /function/nop HTTP/2.0\r\nHost: t\r\n\r\n");
    expect_last(&mut connection, 505, "bad_request");
    // As far as one can tell, the version is "op".
    let mut connection = stack.connect();
    connection.send(b"POST /function/n op HTTP/1.1\r\nHost: t\r\n\r\n");
    expect_last(&mut connection, 505, "bad_request");
}

#[test]
fn a_function_that_fails_or_panics_is_500_with_its_message() {
    let stack = Stack::start(&functions(&["fail", "panic"]));
    let mut connection = stack.connect();
    for _ in 0..3 {
        let answer = connection.exchange(&post("/function/fail", "out of \"café\"\n".as_bytes()));
        assert_eq!(answer.failure(500, "function_error").message, "out of \"café\"\n");
        let answer = connection.exchange(&post("/function/panic", b"at the disco"));
        assert_eq!(answer.failure(500, "function_panic").message, "at the disco");
    }
    let told = || stack.stderr().matches("at the disco").count();
    wait_until("each panic is told", || told() >= 3);
    let ended = stack.stop();
    assert_eq!(ended.stderr.matches("at the disco").count(), 3, "once: {}", ended.stderr);
}

#[test]
fn an_input_that_a_function_refuses_is_400_and_the_connection_goes_on() {
    let stack = Stack::start(&functions(&["sleep", "fail"]));
    let mut connection = stack.connect();
    let answer = connection.exchange(&post("/function/sleep", b"{"));
    answer.failure(400, "bad_request");
    // `fail` takes text.
    let answer = connection.exchange(&post("/function/fail", b"\xff"));
    answer.failure(400, "bad_request");
    connection.exchange(&post("/function/sleep", b"{\"ms\": 0}")).ok();
}

#[test]
fn a_call_that_takes_longer_than_its_function_may_is_504() {
    let config = functions(&["sleep"]) + "timeout = \"100ms\"\n";
    let stack = Stack::start(&config);
    let mut connection = stack.connect();
    let answer = connection.exchange(&post("/function/sleep", b"{\"ms\": 600}"));
    answer.failure(504, "deadline_exceeded");
    connection.exchange(&post("/function/sleep", b"{\"ms\": 0}")).ok();
}

#[test]
fn a_client_may_give_a_call_less_time_but_not_more() {
    let config = functions(&["sleep"]) + "timeout = \"300ms\"\n";
    let stack = Stack::start(&config);
    let call = |header: &str, body: &str| {
        let headers = format!("X-Nightcore-Timeout-Ms: {header}\r\n");
        let bytes = request("POST", "/function/sleep", &headers, body.as_bytes());
        stack.connect().exchange(&bytes)
    };
    call("50", "{\"ms\": 200}").failure(504, "deadline_exceeded");
    call("0", "").failure(504, "deadline_exceeded");
    call("60000", "{\"ms\": 900}").failure(504, "deadline_exceeded");
    call("99999999999999999999999", "{\"ms\": 1}").ok();
    for odd in ["", "soon", "-1", "1.5", "+1"] {
        call(odd, "").failure(400, "bad_request");
    }
}

#[test]
fn a_chain_of_calls_that_is_too_deep_is_508() {
    let stack = Stack::start(&functions(&["recurse"]));
    assert_eq!(stack.call("recurse", b"{\"n\": 16}").json()["depth"], 16);
    stack.call("recurse", b"{\"n\": 17}").failure(508, "call_too_deep");
    stack.call("recurse", b"{\"n\": 1000}").failure(508, "call_too_deep");
    assert_eq!(stack.call("recurse", b"{\"n\": 16}").json()["depth"], 16);
}

#[test]
fn a_full_queue_is_503_with_the_time_to_come_back() {
    let config = functions(&["sleep"]) + "max_workers = 1\nqueue_max = 2\n";
    let stack = Stack::start(&format!("{config}[engine]\nshards = 1\n"));
    // The worker may not have started yet, and calls wait for it in the same queue.
    stack.call("sleep", b"{\"ms\": 0}").ok();
    let call = post("/function/sleep", b"{\"ms\": 700}");
    let mut waiting: Vec<Connection> = (0..3).map(|_| stack.connect()).collect();
    waiting.iter_mut().for_each(|connection| connection.send(&call));
    wait_until("one call runs and two wait", || {
        (stack.count("sleep", "running"), stack.count("sleep", "queued")) == (1, 2)
    });
    let answer = stack.call("sleep", b"");
    answer.failure(503, "overloaded");
    assert_eq!(answer.header("retry-after"), Some("1"));
    for connection in &mut waiting {
        connection.read().ok();
    }
    stack.call("sleep", b"{\"ms\": 0}").ok();
}

#[test]
fn a_connection_too_many_is_refused_politely() {
    let config = "[gateway]\nconnections_max = 4\n[engine]\nshards = 1\n";
    let stack = Stack::start(&format!("{config}{}", functions(&["nop"])));
    let mut open: Vec<Connection> = (0..4).map(|_| stack.connect()).collect();
    for connection in &mut open {
        connection.exchange(&post("/function/nop", b"")).ok();
    }
    let mut refused = stack.connect();
    let answer = refused.read();
    answer.failure(503, "too_many_connections");
    assert!(answer.header("retry-after").is_some());
    refused.end_sending();
    refused.expect_end();
    // The others do not notice, and their places can be had again.
    for connection in &mut open {
        connection.exchange(&post("/function/nop", b"")).ok();
    }
    open.truncate(1);
    wait_until("a place is free again", || {
        let mut connection = stack.connect();
        let sent = connection.try_send(&post("/function/nop", b""));
        let answer = connection.try_read(Body::Present);
        sent.is_ok() && answer.is_ok_and(|answer| answer.is_some_and(|it| it.status == 200))
    });
}

/// The next answer is this failure; it says that it is the last one, and it is.
fn expect_last(connection: &mut Connection, status: u16, kind: &str) {
    let answer = connection.read();
    answer.failure(status, kind);
    assert!(answer.is_last(), "{}", answer.show());
    connection.end_sending();
    connection.expect_end();
}
