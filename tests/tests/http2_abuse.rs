//! Clients of HTTP/2 who break its rules or stretch them: each costs a bounded amount of memory, is
//! closed, and nobody else notices.

use nightcore_tests::http2::{END_HEADERS, END_STREAM, Raw, frame, kind, post_block};
use nightcore_tests::{Http2, Stack, functions, wait_until};

/// Bytes that the process may grow by under any abuse, beside what `memory` permits.
const GROWTH_MAX: u64 = 48 << 20;
/// Bytes of requests and answers that the door may hold in these tests.
const MEMORY: u64 = 8 << 20;
/// Far more frames than any client is allowed.
const MANY: usize = 2_000_000;
/// The setting for the window that streams begin with.
const INITIAL_WINDOW_SIZE: u16 = 4;

fn start(gateway: &str) -> Stack {
    let section = format!("[gateway.http2]\nlisten = \"127.0.0.1:0\"\nmemory = {MEMORY}\n");
    let gateway = format!("[gateway]\nbody_max = \"1MiB\"\n{gateway}");
    Stack::start(&format!("{gateway}{section}{}", functions(&["echo"])))
}

/// Lets `abuse` happen while others are served, and looks at the memory behind it.
fn endure(stack: &Stack, abuse: impl FnOnce()) {
    let mut bystander = Http2::connect(stack.http2_address());
    assert_eq!(bystander.call("echo", b"before").body, b"before");
    let before = stack.process().private_memory();
    abuse();
    let after = stack.process().private_memory();
    let growth = after.saturating_sub(before);
    assert!(growth <= GROWTH_MAX + MEMORY, "it grew by {growth} bytes");
    assert_eq!(bystander.call("echo", b"after").body, b"after", "who was there goes on");
    let mut newcomer = Http2::connect(stack.http2_address());
    assert_eq!(newcomer.call("echo", b"new").body, b"new");
    assert_eq!(stack.call("echo", b"first").ok(), b"first");
    wait_until("nothing is held any more", || stack.metric_line("nightcore_http2_held_bytes") == 0);
}

/// The head of a whole request.
fn request(stream: u32) -> Vec<u8> {
    let block = post_block("/function/echo");
    frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

#[test]
fn rapid_resets_are_ended() {
    let stack = start("");
    endure(&stack, || {
        let mut raw = Raw::greet(stack.http2_address(), &[]);
        // Stream ids must grow, so this is one long flood.
        let flood: Vec<u8> = (0..200_000_u32)
            .flat_map(|n| {
                let stream = 2 * n + 1;
                [request(stream), frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
            })
            .collect();
        raw.flood(&flood, 1);
    });
    assert_eq!(stack.metric_line("nightcore_http2_connections_closed_total{reason=\"fault\"}"), 1);
}

#[test]
fn floods_of_control_frames_are_ended() {
    let stack = start("");
    endure(&stack, || {
        for flood in [
            frame(kind::PING, 0, 0, &[0; 8]),
            frame(kind::SETTINGS, 0, 0, &[]),
            frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
            // Priorities, window updates, a kind that nobody knows, empty data of no stream.
            frame(2, 0, 1, &[0, 0, 0, 0, 16]),
            frame(8, 0, 0, &1_u32.to_be_bytes()),
            frame(0x77, 0, 0, b"?"),
        ] {
            let mut raw = Raw::greet(stack.http2_address(), &[]);
            let sent = raw.flood(&flood, MANY);
            assert!(sent < MANY, "{flood:?}");
        }
    });
    assert_eq!(stack.metric_line("nightcore_http2_connections_closed_total{reason=\"fault\"}"), 6);
}

#[test]
fn a_head_that_never_ends_is_ended() {
    let stack = start("");
    endure(&stack, || {
        for piece in [0, 1, 16_000] {
            let mut raw = Raw::greet(stack.http2_address(), &[]);
            let block = post_block("/function/echo");
            raw.send(&frame(kind::HEADERS, END_STREAM, 1, &block)).expect("it reads");
            // A literal field that is never indexed, again and again.
            let field = [&[0x10, 1, b'a', 1][..], b"b"].concat();
            let payload = field.repeat(piece / field.len());
            let sent = raw.flood(&frame(kind::CONTINUATION, 0, 1, &payload), MANY);
            assert!(sent < MANY, "{piece}");
        }
    });
}

#[test]
fn a_small_head_that_unpacks_to_a_large_one_is_refused() {
    let stack = start("");
    endure(&stack, || {
        let mut raw = Raw::greet(stack.http2_address(), &[]);
        // A field of 3,900 bytes goes into the table and is then named a thousand times: 4 MiB.
        let size = [0x7f, 0xbd, 0x1d]; // 127 + 0x3d + (0x1d << 7) = 3,900
        let field = [&[0x40, 1, b'a'][..], &size, &[b'x'; 3_900]].concat();
        let named = [0xbe; 1_000];
        let block = [post_block("/function/echo"), field, named.to_vec()].concat();
        raw.send(&frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block)).expect("it reads");
        // So much over the limit that it is no mistake.
        raw.wait_for_end();
        let mut client = Http2::connect(stack.http2_address());
        let long = "x".repeat(20_000);
        let answer = client.request("POST", "/function/echo", &[("x-long", &long)], b"");
        assert_eq!(answer.status, 431);
        assert_eq!(client.call("echo", b"a").body, b"a", "the connection goes on");
    });
}

#[test]
fn answers_that_nobody_takes_are_dropped_with_their_client() {
    let stack = start("write_timeout = \"1s\"\n");
    endure(&stack, || {
        let mut clients: Vec<Raw> = (0..4)
            .map(|_| {
                let mut raw = Raw::greet(stack.http2_address(), &[(INITIAL_WINDOW_SIZE, 0)]);
                for stream in (1..100).step_by(2) {
                    let block = post_block("/function/echo");
                    raw.send(&frame(kind::HEADERS, END_HEADERS, stream, &block)).expect("it reads");
                    raw.send(&frame(0, END_STREAM, stream, &[b'x'; 1_000])).expect("it reads");
                }
                raw
            })
            .collect();
        for raw in &mut clients {
            raw.wait_for_end();
        }
    });
    assert_eq!(
        stack.metric_line("nightcore_http2_connections_closed_total{reason=\"stalled\"}"),
        4
    );
}

#[test]
fn memory_is_taken_from_who_holds_most() {
    // Nobody is to be closed for taking nothing.
    let stack = start("write_timeout = \"300s\"\n");
    let closed = |reason: &str| {
        let name = "nightcore_http2_connections_closed_total";
        stack.metric_line(&format!("{name}{{reason=\"{reason}\"}}"))
    };
    let held = || stack.metric_line("nightcore_http2_held_bytes");
    endure(&stack, || {
        // Each client has 960,000 bytes held and takes none of them: there is room for eight.
        let pieces = 3;
        let size = 20 * pieces * 16_000;
        let greedy = || {
            let mut raw = Raw::greet(stack.http2_address(), &[(INITIAL_WINDOW_SIZE, 0)]);
            raw.settle();
            let block = post_block("/function/echo");
            for stream in (1..40).step_by(2) {
                raw.send(&frame(kind::HEADERS, END_HEADERS, stream, &block)).expect("it reads");
                for piece in 1..=pieces {
                    let end = if piece == pieces { END_STREAM } else { 0 };
                    let bytes = frame(kind::DATA, end, stream, &[b'x'; 16_000]);
                    raw.send(&bytes).expect("it reads");
                }
            }
            raw
        };
        let mut clients = Vec::new();
        for count in 1..=MEMORY / size {
            clients.push(greedy());
            wait_until(&format!("the answers to {count} clients are held"), || {
                held() == count * size
            });
        }
        assert_eq!((closed("memory"), closed("fault")), (0, 0), "there is room for these");
        let mut modest = Http2::connect(stack.http2_address());
        // Held on its way there and, while that lasts, as the answer: more than is left, less than each
        // of the others has.
        let body = vec![b'm'; 400_000];
        assert!(held() + 800_000 > MEMORY && size > 800_000);
        let answer = modest.call("echo", &body);
        assert_eq!((answer.status, answer.body.len()), (200, body.len()));
        assert_eq!((closed("memory"), closed("fault")), (1, 0), "one of those who hold most");
        wait_until("what that one held is free", || held() == (MEMORY / size - 1) * size);
        assert_eq!(modest.call("echo", b"modest").body, b"modest");
    });
}

#[test]
fn who_does_not_greet_or_end_a_head_is_closed_in_time() {
    let stack = start("head_timeout = \"300ms\"\n");
    endure(&stack, || {
        let mut silent = Raw::connect(stack.http2_address());
        let mut halting = Raw::connect(stack.http2_address());
        halting.send(b"PRI * HTTP/2.0\r\n").expect("it reads");
        let mut endless = Raw::greet(stack.http2_address(), &[]);
        let block = post_block("/function/echo");
        endless.send(&frame(kind::HEADERS, END_STREAM, 1, &block)).expect("it reads");
        let mut other = Raw::connect(stack.http2_address());
        other.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
        for raw in [&mut silent, &mut halting, &mut endless, &mut other] {
            raw.wait_for_end();
        }
    });
}

#[test]
fn a_body_that_does_not_come_is_told_so_and_an_idle_client_is_seen_off() {
    let stack = start("body_timeout = \"200ms\"\nidle_timeout = \"600ms\"\n");
    let mut client = Http2::connect(stack.http2_address());
    let waiting = client.begin("POST", "/function/echo", &[]);
    assert_eq!(client.answer(waiting).expect("an answer").status, 408);
    client.wait_for_end().expect("a clean end");
    // The client may see its end a moment before it is counted.
    wait_until("it is gone", || stack.metric_line("nightcore_http2_connections_open") == 0);
}

#[test]
fn more_connections_than_there_may_be_are_closed_at_once() {
    let section = "[gateway.http2]\nlisten = \"127.0.0.1:0\"\nconnections_max = 2\n";
    let stack = Stack::start(&format!("{section}{}", functions(&["echo"])));
    let mut clients = [0, 1].map(|_| Http2::connect(stack.http2_address()));
    for client in &mut clients {
        assert_eq!(client.call("echo", b"a").body, b"a");
    }
    Raw::connect(stack.http2_address()).wait_for_end();
    for client in &mut clients {
        assert_eq!(client.call("echo", b"b").body, b"b");
    }
    drop(clients);
    wait_until("there is room again", || {
        stack.metric_line("nightcore_http2_connections_open") == 0
    });
    assert_eq!(Http2::connect(stack.http2_address()).call("echo", b"c").body, b"c");
}
