//! The access log.

use std::fs;

use nightcore_tests::{Http2, request, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::lock::{Lock, bearer, call};

/// Those that are whole: a reader may meet a write half done.
fn lines(text: &str) -> Vec<Value> {
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn every_answer_has_a_line_and_no_line_has_a_key() {
    let lock = Lock::new();
    let key = lock.add_key("k-1", &["--function", "echo"]);
    let log = lock.path("access.log");
    let stack = lock.start(&format!("[gateway]\naccess_log = \"{}\"\n", log.display()));
    let mut connection = stack.connect();
    let headers = format!("{}X-Request-Id: one\r\n", bearer(&key));
    let answer =
        connection.exchange(&request("POST", "/function/echo/s?q=hidden", &headers, b"hi"));
    assert_eq!(answer.ok(), b"hi");
    call(&mut connection, "inspect", &bearer(&key)).failure(403, "forbidden");
    let wrong = format!("{key}0");
    call(&mut connection, "echo", &format!("X-Api-Key: {wrong}\r\n")).failure(401, "unauthorized");
    connection.exchange(&request("GET", "/healthz", "", b"")).ok();
    assert_eq!(stack.stop().code, Some(0));

    let text = lock.read("access.log");
    for secret in [&key[8..], "hidden", "Bearer", "/s"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let lines = lines(&text);
    let seen: Vec<_> =
        lines.iter().map(|line| json!([line["function"], line["status"], line["key"]])).collect();
    let expected = json!([
        ["echo", 200, "k-1"],
        ["inspect", 403, "k-1"],
        ["echo", 401, null],
        [null, 200, null],
    ]);
    assert_eq!(json!(seen), expected);
    let first = &lines[0];
    assert_eq!((&first["request_id"], &first["method"]), (&json!("one"), &json!("POST")));
    assert_eq!(first["client"], "shop");
    assert!(first["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{first}");
    for number in ["bytes_in", "bytes_out"] {
        assert!(first[number].as_u64().is_some_and(|bytes| bytes > 50), "{number}: {first}");
    }
    assert!(first["queued_us"].is_u64() && first["ran_us"].is_u64(), "{first}");
    assert!(lines[1]["ran_us"].is_null(), "it came to no engine");
}

#[test]
fn answers_over_http_2_and_of_grpc_have_their_lines_too() {
    let lock = Lock::new();
    let key = lock.add_key("k-1", &["--function", "echo"]);
    let log = lock.path("access.log");
    let section = "[gateway.http2]\nlisten = \"127.0.0.1:0\"\n";
    let stack = lock.start(&format!("[gateway]\naccess_log = \"{}\"\n{section}", log.display()));
    let mut client = Http2::connect(stack.http2_address());
    let (right, wrong) = (format!("Bearer {key}"), format!("{key}0"));
    let shown = [("authorization", right.as_str())];
    let fields = [shown[0], ("x-request-id", "one")];
    assert_eq!(client.request("POST", "/function/echo/s?q=hidden", &fields, b"hi").body, b"hi");
    assert_eq!(client.request("POST", "/function/inspect", &shown, b"").status, 403);
    let failed = client.request("POST", "/function/echo", &[("x-api-key", &wrong)], b"hi");
    assert_eq!(failed.status, 401);
    assert_eq!(client.request("GET", "/healthz", &[], b"").status, 200);
    assert_eq!(client.grpc("/echo/Call", &shown, b"hi").grpc_status(), 0);
    assert_eq!(client.grpc("/inspect/Call", &shown, b"hi").grpc_status(), 7);
    // One that is given up while its body comes. Its head was read before that of the next one.
    let given_up = client.begin("POST", "/function/echo", &shown);
    assert_eq!(client.request("GET", "/healthz", &[], b"").status, 200);
    client.reset(given_up);
    wait_until("all lines are there", || lines(&lock.read("access.log")).len() == 8);
    drop(client);
    assert_eq!(stack.stop().code, Some(0));

    let text = lock.read("access.log");
    for secret in [&key[8..], "hidden", "Bearer", "/s", "Call"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let lines = lines(&text);
    let members = ["function", "status", "grpc_status", "key"];
    let seen: Vec<_> = lines.iter().map(|line| members.map(|member| &line[member])).collect();
    let expected = json!([
        ["echo", 200, null, "k-1"],
        ["inspect", 403, null, "k-1"],
        ["echo", 401, null, null],
        [null, 200, null, null],
        ["echo", 200, 0, "k-1"],
        ["inspect", 200, 7, "k-1"],
        [null, 200, null, null],
        ["echo", null, null, "k-1"],
    ]);
    assert_eq!(json!(seen), expected);
    let first = &lines[0];
    assert_eq!((&first["request_id"], &first["method"]), (&json!("one"), &json!("POST")));
    assert_eq!(first["client"], "shop");
    assert!(first["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{first}");
    for number in ["bytes_in", "bytes_out"] {
        assert!(first[number].as_u64().is_some_and(|bytes| bytes > 50), "{number}: {first}");
    }
    for called in [first, &lines[4]] {
        assert!(called["queued_us"].is_u64() && called["ran_us"].is_u64(), "{called}");
    }
    assert!(lines[1]["ran_us"].is_null(), "it came to no engine");
}

#[test]
fn a_log_that_was_moved_away_is_begun_anew_by_the_signal() {
    let lock = Lock::new();
    let key = lock.add_key("k", &[]);
    let (log, moved) = (lock.path("access.log"), lock.path("access.log.1"));
    let stack = lock.start(&format!("[gateway]\naccess_log = \"{}\"\n", log.display()));
    call(&mut stack.connect(), "echo", &bearer(&key)).ok();
    wait_until("the first line is there", || lines(&lock.read("access.log")).len() == 1);
    fs::rename(&log, &moved).expect("it can be moved");
    stack.signal(Signal::SIGHUP);
    wait_until("the log is there again", || log.exists());
    call(&mut stack.connect(), "echo", &bearer(&key)).ok();
    // To whichever file the thread writes: it may not have looked yet.
    let both = || lines(&lock.read("access.log")).len() + lines(&lock.read("access.log.1")).len();
    wait_until("the second line is there", || both() == 2);
    wait_until("a later one is in the new file", || {
        call(&mut stack.connect(), "echo", &bearer(&key)).ok();
        !lock.read("access.log").is_empty()
    });
    let name = "nightcore_gateway_access_log_dropped_total";
    let metrics = stack.connect().exchange(&request("GET", "/metrics", &bearer(&key), b""));
    assert!(metrics.text().lines().any(|line| line.starts_with(name) && line.ends_with(" 0")));
}
