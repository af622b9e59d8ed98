//! HTTP/2 at the door: what is the same as over HTTP/1.1, and what the protocol adds.

use std::process::Command;

use nightcore_tests::functions::build;
use nightcore_tests::http2::{END_HEADERS, END_STREAM, Frame, Raw, frame, kind, post_block};
use nightcore_tests::{
    Http2, Http2Answer, Random, Stack, config, functions, post, request, wait_until,
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

const SECTION: &str = "[gateway.http2]\nlisten = \"127.0.0.1:0\"\n";

fn start(names: &[&str]) -> Stack {
    Stack::start(&format!("{SECTION}{}", functions(names)))
}

fn failure(answer: &Http2Answer) -> (u16, String) {
    assert_eq!(answer.header("content-type"), "application/json");
    let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(json["request_id"], answer.header("x-request-id"));
    (answer.status, json["error"].as_str().expect("a word").to_owned())
}

#[test]
fn bodies_of_every_size_come_back_byte_for_byte() {
    let stack = start(&["echo"]);
    let mut client = Http2::connect(stack.http2_address());
    let mut random = Random::new(3);
    for size in [0, 1, 16_383, 16_385, 70_000, 1 << 20, 9 << 20] {
        let body = random.bytes(size);
        let answer = client.call("echo", &body);
        assert_eq!(answer.status, 200, "{size}");
        assert!(answer.body == body, "{size}");
        assert_eq!(answer.header("content-length"), size.to_string());
        assert!(!answer.header("date").is_empty());
        assert_eq!(answer.header("x-request-id").len(), 32);
    }
}

#[test]
fn a_function_sees_what_it_sees_over_http_1() {
    let directory = TempDir::new().expect("a directory");
    let inspect = config::function("inspect", &build("inspect", directory.path()));
    let stack = Stack::start(&format!("{SECTION}{inspect}"));
    let path = "/function/inspect/a/b?c=d&e";
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let fields = [("x-request-id", "mine.1"), ("traceparent", trace), ("x-other", "o")];

    let mut client = Http2::connect(stack.http2_address());
    let crumbs = [&fields[..], &[("cookie", "a=1"), ("cookie", "b=2")]].concat();
    let over_http2 = client.request("POST", path, &crumbs, b"in");
    assert_eq!(over_http2.status, 201);
    assert_eq!(over_http2.header("content-type"), "text/x-inspected");
    assert_eq!(over_http2.header("x-inspected"), "yes");
    assert_eq!(over_http2.header("x-request-id"), "mine.1");

    let address = stack.http2_address();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nX-Request-Id: mine.1\r\nTraceparent: {trace}\r\n\
         X-Other: o\r\nCookie: a=1; b=2\r\nContent-Length: 2\r\n\r\nin"
    );
    let over_http1 = stack.connect().exchange(request.as_bytes());
    let text = |body: &[u8]| String::from_utf8(body.to_vec()).expect("text").to_lowercase();
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(text(&over_http2.body)), sorted(over_http1.text().to_lowercase()));
}

#[test]
fn errors_are_those_of_http_1() {
    let config =
        format!("[gateway]\nbody_max = 1000\n{SECTION}{}", functions(&["echo", "fail", "panic"]));
    let stack = Stack::start(&config);
    let mut client = Http2::connect(stack.http2_address());
    for (method, path, fields, body, expected) in [
        ("POST", "/function/none", &[][..], &b"x"[..], (404, "not_found")),
        ("POST", "/nothing", &[], b"", (404, "not_found")),
        ("GET", "/metrics", &[], b"", (404, "not_found")),
        ("DELETE", "/function/echo", &[], b"", (405, "method_not_allowed")),
        ("POST", "/function/echo", &[], &[7; 1_001], (413, "payload_too_large")),
        ("POST", "/function/echo", &[("x-nightcore-timeout-ms", "x")], b"", (400, "bad_request")),
        (
            "POST",
            "/function/echo",
            &[("x-nightcore-timeout-ms", "0")],
            b"",
            (504, "deadline_exceeded"),
        ),
        ("POST", "/function/fail", &[], b"", (500, "function_error")),
        ("POST", "/function/panic", &[], b"", (500, "function_panic")),
    ] {
        let answer = client.request(method, path, fields, body);
        let (status, kind) = expected;
        assert_eq!(failure(&answer), (status, kind.to_owned()), "{method} {path}");
    }
    assert_eq!(
        client.request("DELETE", "/function/echo", &[], b"").header("allow"),
        "GET, HEAD, POST"
    );
    assert_eq!(client.call("echo", &[7; 1_000]).status, 200, "the connection goes on");
}

#[test]
fn a_refusal_is_told_at_once_and_the_body_behind_it_does_no_harm() {
    let stack = start(&["echo"]);
    let mut raw = Raw::greet(stack.http2_address(), &[]);
    raw.settle();
    let refused = |raw: &mut Raw, stream: u32| {
        let block = post_block("/nothing");
        raw.send(&frame(kind::HEADERS, END_HEADERS, stream, &block)).expect("it reads");
        let is_end = |frame: &Frame| frame.stream == stream && frame.flags & END_STREAM != 0;
        let frames = raw.read_until(is_end);
        let body = &frames.last().expect("the body").payload;
        assert!(body.starts_with(b"{\"error\":\"not_found\""), "{frames:?}");
    };
    let is_reset = |frames: &[Frame]| frames.iter().any(|frame| frame.kind == kind::RST_STREAM);
    refused(&mut raw, 1);
    for piece in 1..=4 {
        assert!(!is_reset(&raw.round_trip()), "after {piece} pieces");
        let end = if piece == 4 { END_STREAM } else { 0 };
        raw.send(&frame(kind::DATA, end, 1, &[b'x'; 16_000])).expect("it reads");
    }
    assert!(!is_reset(&raw.round_trip()));
    // A body that is not worth reading is: its stream ends, and the connection goes on.
    refused(&mut raw, 3);
    for _ in 0..5 {
        raw.send(&frame(kind::DATA, 0, 3, &[b'x'; 16_000])).expect("it reads");
    }
    raw.read_until(|frame| (frame.kind, frame.stream) == (kind::RST_STREAM, 3));
    refused(&mut raw, 5);
}

#[test]
fn pages_are_told_what_they_are_told_over_http_1() {
    let gateway = "[gateway]\ncors_origins = [\"https://a.example\"]\n";
    let stack = Stack::start(&format!("{gateway}{SECTION}{}", functions(&["echo"])));
    let mut second = Http2::connect(stack.http2_address());
    let names = [
        "access-control-allow-origin",
        "access-control-expose-headers",
        "access-control-allow-methods",
        "access-control-allow-headers",
        "access-control-max-age",
        "vary",
    ];
    let asks = [
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization, x-trace"),
    ];
    for (method, path, origin, asks) in [
        ("POST", "/function/echo", "https://a.example", &[][..]),
        ("POST", "/function/none", "https://a.example", &[]),
        ("POST", "/function/echo", "https://b.example", &[]),
        ("OPTIONS", "/function/echo", "https://a.example", &asks),
        ("OPTIONS", "/function/echo", "https://b.example", &asks),
        ("OPTIONS", "/function/echo", "https://a.example", &[]),
    ] {
        let fields = [&[("origin", origin)][..], asks].concat();
        let over_http2 = second.request(method, path, &fields, b"");
        let lines: String =
            fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let over_http1 = stack.connect().exchange(&request(method, path, &lines, b""));
        assert_eq!(over_http2.status, over_http1.status, "{method} {path} {origin}");
        for name in names {
            let all = over_http2.headers.get_all(name).iter();
            let all: Vec<&str> = all.map(|value| value.to_str().expect("text")).collect();
            let same = |it: &&(String, String)| it.0.eq_ignore_ascii_case(name);
            let first: Vec<&str> =
                over_http1.headers.iter().filter(same).map(|it| it.1.as_str()).collect();
            assert_eq!(all, first, "{name} of {method} {path} {origin}");
        }
    }
    let answer = second.grpc("/any.echo/Call", &[("origin", "https://a.example")], b"hi");
    assert_eq!((answer.grpc_status(), answer.message()), (0, &b"hi"[..]));
    assert_eq!(answer.header("access-control-allow-origin"), "https://a.example");
    assert_eq!(answer.header("vary"), "Origin");
}

#[test]
fn health_is_told_and_head_has_no_body() {
    let stack = start(&["nop", "echo"]);
    let mut client = Http2::connect(stack.http2_address());
    for path in ["/healthz", "/readyz"] {
        let answer = client.request("GET", path, &[], b"");
        assert_eq!((answer.status, &answer.body[..]), (200, b"ok\n".as_slice()), "{path}");
        let head = client.request("HEAD", path, &[], b"");
        assert_eq!((head.status, head.header("content-length")), (200, "3"), "{path}");
        assert!(head.body.is_empty());
    }
    let head = client.request("HEAD", "/function/echo", &[], b"four");
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "4", 0));
}

#[test]
fn a_deadline_is_kept() {
    let stack = start(&["sleep"]);
    let mut client = Http2::connect(stack.http2_address());
    let fields = [("x-nightcore-timeout-ms", "50")];
    let answer = client.request("POST", "/function/sleep", &fields, b"{\"ms\": 60000}");
    assert_eq!(failure(&answer), (504, "deadline_exceeded".to_owned()));
}

#[test]
fn many_requests_are_under_way_on_one_connection() {
    let stack = start(&["sleep", "echo"]);
    let mut client = Http2::connect(stack.http2_address());
    let slow = client.send("POST", "/function/sleep", &[], b"{\"ms\": 300}");
    let awaited: Vec<_> =
        (0..100_u8).map(|n| client.send("POST", "/function/echo", &[], &[n; 2_000])).collect();
    for (n, awaited) in (0_u8..).zip(awaited) {
        assert_eq!(client.answer(awaited).expect("an answer").body, [n; 2_000]);
    }
    assert_eq!(client.answer(slow).expect("an answer").status, 200);
    // Calls are spread over the shards.
    assert_eq!(stack.count("echo", "completed"), 100);
}

#[test]
fn a_reset_stream_cancels_its_call() {
    let config = format!("{SECTION}{}max_workers = 1\n", functions(&["sleep"]));
    let stack = Stack::start(&format!("{config}[engine]\nshards = 1\n"));
    let mut client = Http2::connect(stack.http2_address());
    let running = client.send("POST", "/function/sleep", &[], b"{\"ms\": 2000}");
    wait_until("the first call runs", || stack.count("sleep", "running") == 1);
    let queued = client.send("POST", "/function/sleep", &[], b"{\"ms\": 600000}");
    wait_until("the second call waits", || stack.count("sleep", "queued") == 1);
    client.reset(queued);
    wait_until("it waits no more", || stack.count("sleep", "queued") == 0);
    assert_eq!(client.answer(running).expect("an answer").status, 200);
}

#[test]
fn a_drain_finishes_the_streams_and_says_goodbye() {
    let stack = start(&["sleep", "echo"]);
    let mut client = Http2::connect(stack.http2_address());
    let mut idle = Http2::connect(stack.http2_address());
    assert_eq!(idle.call("echo", b"x").status, 200);
    let slow = client.send("POST", "/function/sleep", &[], b"{\"ms\": 1500}");
    wait_until("the call runs", || stack.count("sleep", "running") == 1);
    stack.signal(Signal::SIGTERM);
    let answer = client.answer(slow).expect("an answer");
    assert_eq!((answer.status, answer.body), (200, b"{\"ms\":1500}\n".to_vec()));
    client.wait_for_end().expect("a clean end");
    idle.wait_for_end().expect("a clean end");
    let ended = stack.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn a_drain_is_cut_short_by_its_timeout() {
    let engine = "[engine]\ndrain_timeout = \"300ms\"\n";
    let stack = Stack::start(&format!("{SECTION}{engine}{}", functions(&["sleep"])));
    let mut client = Http2::connect(stack.http2_address());
    let slow = client.send("POST", "/function/sleep", &[], b"{\"ms\": 600000}");
    wait_until("the call runs", || stack.count("sleep", "running") == 1);
    stack.signal(Signal::SIGTERM);
    let ended = stack.wait();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    drop(client.answer(slow));
}

#[test]
fn curl_speaks_it() {
    let stack = start(&["echo"]);
    let url = format!("http://{}/function/echo", stack.http2_address());
    let arguments = ["--http2-prior-knowledge", "-sS", "-m", "20", "-w", " %{http_version}"];
    let curl = Command::new("curl").args(arguments).args(["-d", "hello", &url]).output();
    let Ok(output) = curl else {
        eprintln!("there is no curl on this machine");
        return;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello 2", "{errors}");
}

#[test]
fn both_protocols_are_served_side_by_side() {
    let stack = start(&["echo"]);
    let mut second = Http2::connect(stack.http2_address());
    let mut first = stack.connect();
    for n in 0..50_u8 {
        assert_eq!(second.call("echo", &[n]).body, [n]);
        assert_eq!(first.exchange(&post("/function/echo", &[n])).ok(), [n]);
    }
    assert_eq!(stack.metric_line("nightcore_http2_requests_total{protocol=\"http\"}"), 50);
    assert_eq!(stack.metric_line("nightcore_http2_connections_open"), 1);
    assert_eq!(stack.metric_line("nightcore_http2_held_bytes"), 0);
}
