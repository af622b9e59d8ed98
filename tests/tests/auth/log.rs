//! The access log.

use std::fs;

use nightcore_tests::{request, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::lock::{Lock, bearer, call};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
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
