//! Requests whose end is a matter of opinion: each is refused with 400, readably, and closed.

use nightcore_tests::{Random, Stack, functions, get, post};

/// Heads and bodies that are malformed or that two readers could read differently.
const MALFORMED: &[&str] = &[
    // Two answers to where the body ends.
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nContent-Length: 5, 5\r\n\r\nhello",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /function/nop HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    // Lengths that are none.
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nContent-Length: +5\r\n\r\nhello",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nContent-Length: -5\r\n\r\nhello",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nContent-Length: 0x5\r\n\r\nhello",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nContent-Length: 5 \u{1}\r\n\r\nhello",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nContent-Length: \r\n\r\nhello",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
    // Chunks that are none.
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nz\r\nhello\r\n0\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n",
    // Header fields.
    "POST /function/nop HTTP/1.1\r\nHost : t\r\nContent-Length: 0\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nContent-Length : 0\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\n folded\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nno colon\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\n: no name\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nA: \u{0}\r\n\r\n",
    "POST /function/nop HTTP/1.1\nHost: t\n\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\nContent-Length: 0\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t\r\nHost: t\r\n\r\n",
    "POST /function/nop HTTP/1.1\r\nHost: t, u\r\n\r\n",
    // Request lines.
    "POST  /function/nop HTTP/1.1\r\nHost: t\r\n\r\n",
    "POST /function/nop\r\nHost: t\r\n\r\n",
    "P(ST /function/nop HTTP/1.1\r\nHost: t\r\n\r\n",
    "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}",
];

#[test]
fn malformed_or_ambiguous_framing_is_400_and_closes_readably() {
    let stack = Stack::start(&functions(&["nop"]));
    for text in MALFORMED {
        // What follows would be a request of its own to a reader who found another end.
        for behind in [b"".as_slice(), &get("/healthz")] {
            let mut connection = stack.connect();
            connection.send(text.as_bytes());
            // The connection may have been closed by now.
            let _ = connection.try_send(behind);
            let answer = connection.read();
            assert_eq!(answer.status, 400, "{text:?}: {}", answer.show());
            answer.failure(400, "bad_request");
            assert!(answer.is_last(), "{text:?}: {}", answer.show());
            connection.end_sending();
            connection.expect_end();
        }
    }
}

#[test]
fn a_request_that_breaks_off_is_400() {
    let stack = Stack::start(&functions(&["echo"]));
    let whole = "POST /function/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello";
    for size in 1..whole.len() {
        let mut connection = stack.connect();
        connection.send(&whole.as_bytes()[..size]);
        connection.end_sending();
        connection.read().failure(400, "bad_request");
        connection.expect_end();
    }
    assert_eq!(stack.count("echo", "arrivals"), 0);
}

#[test]
fn a_refused_request_behind_a_good_one_leaves_the_good_ones_answer() {
    let stack = Stack::start(&functions(&["echo"]));
    for text in MALFORMED {
        let mut connection = stack.connect();
        connection.send(&[&post("/function/echo", b"good"), text.as_bytes()].concat());
        assert_eq!(connection.read().ok(), b"good");
        connection.read().failure(400, "bad_request");
        connection.end_sending();
        connection.expect_end();
    }
}

#[test]
fn malformed_http_never_stops_the_server() {
    const CONNECTIONS: usize = 3_000;
    let seed = 0x6e69_6768_7463_6f72;
    println!("seed {seed:#x}");
    let mut random = Random::new(seed);
    let stack = Stack::start(&functions(&["nop", "echo"]));
    let mut containers = stack.containers();
    for _ in 0..CONNECTIONS {
        let bytes = mutated(&mut random);
        let mut connection = stack.connect();
        // Whoever is refused early sees his connection closed while he still sends.
        let _ = connection.try_send(&bytes);
        connection.end_sending();
        let answers = connection.read_to_end();
        let text = String::from_utf8_lossy(&answers);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 "), "{bytes:?} got {text:?}");
    }
    assert_eq!(stack.call("echo", b"still here").ok(), b"still here");
    assert!(stack.process().is_alive());
    let mut containers_now = stack.containers();
    containers.sort_by_key(|container| container.pid);
    containers_now.sort_by_key(|container| container.pid);
    assert_eq!(containers_now, containers, "no container had to be started again");
    let ended = stack.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// One to three requests, good or malformed, with some damage; or plain noise.
fn mutated(random: &mut Random) -> Vec<u8> {
    if random.below(10) == 0 {
        let size = random.below(2_000);
        return random.bytes(size);
    }
    let mut bytes = Vec::new();
    for _ in 0..=random.below(3) {
        match random.below(4) {
            0 => bytes.extend(post("/function/echo", b"twelve bytes")),
            1 => bytes.extend_from_slice(
                b"POST /function/echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n\
                  5;a=b\r\nhello\r\n3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
            ),
            2 => bytes.extend(get("/v1/functions?a=b")),
            _ => bytes.extend_from_slice(MALFORMED[random.below(MALFORMED.len())].as_bytes()),
        }
    }
    for _ in 0..random.below(6) {
        if bytes.is_empty() {
            break;
        }
        let start = random.below(bytes.len());
        let end = start + random.below((bytes.len() - start).min(40));
        match random.below(5) {
            0 => bytes[start] = random.byte(),
            1 => bytes[start] ^= 1 << random.below(8),
            2 => drop(bytes.drain(start..end)),
            3 => {
                let copy = bytes[start..end].to_vec();
                bytes.splice(start..start, copy);
            }
            _ => bytes.truncate(start + 1),
        }
    }
    bytes
}
