//! Clients that are slow, leave, or all come at once, under load: they harm themselves at most.
//! `docs/reliability.md` has a row for each.

use std::path::Path;
use std::thread;
use std::time::Duration;

use nightcore_tests::binaries::built;
use nightcore_tests::client::Body;
use nightcore_tests::fault::{OTHERS, strike, within_bounds};
use nightcore_tests::functions::build;
use nightcore_tests::load::Traffic;
use nightcore_tests::{Connection, Stack, config, functions, post, wait_until};
use tempfile::TempDir;

/// Good clients of the function that the bad ones call.
const GOOD: Traffic = Traffic { function: "victim", input: None, per_second: 100, connections: 4 };

/// The configuration of a stack with `library` as the function that the bad clients call.
fn victim(gateway: &str, library: &Path, settings: &str) -> String {
    let victim = config::function("victim", library);
    format!("[gateway]\n{gateway}{}{victim}{settings}", functions(&OTHERS))
}

fn connections(stack: &Stack) -> u64 {
    // Of all shards; the gateway's own figure is that of the shard that answers.
    stack.metric("nightcore_shard_connections")
}

#[test]
fn whoever_does_not_read_his_answer_keeps_no_worker_and_is_cut_off() {
    let directory = TempDir::new().expect("a directory");
    let library = build("rogue", directory.path());
    let config = victim("write_timeout = \"300ms\"\n", &library, "max_workers = 2\n");
    let load = Traffic { input: Some("ok"), ..GOOD };
    within_bounds(|| {
        let stack = Stack::start(&config);
        let seen = strike("slow readers", &stack, &load, |stack| {
            let before = connections(stack);
            // It fills every buffer of a connection's sockets.
            let call = post("/function/victim", b"large");
            let mut slow: Vec<Connection> = (0..4).map(|_| stack.connect()).collect();
            slow.iter_mut().for_each(|connection| connection.send(&call));
            wait_until("they have come", || connections(stack) >= before + 4);
            wait_until("they are cut off", || connections(stack) <= before);
            for connection in &mut slow {
                let answer = connection.try_read(Body::Present);
                assert!(answer.is_err(), "an answer that breaks off");
            }
        });
        seen.expect_failures(&[]);
        seen
    });
}

#[test]
fn whoever_sends_a_byte_now_and_then_is_answered_408() {
    let timeouts = "head_timeout = \"400ms\"\nbody_timeout = \"200ms\"\n";
    within_bounds(|| {
        let stack = Stack::start(&victim(timeouts, &built("libecho.so"), "max_workers = 2\n"));
        let seen = strike("slow writers", &stack, &GOOD, |stack| {
            let call = post("/function/victim", b"body");
            let (first, rest) = call.split_at(call.len() - 2);
            let mut slow: Vec<Connection> = (0..200).map(|_| stack.connect()).collect();
            let (heads, bodies) = slow.split_at_mut(100);
            bodies.iter_mut().for_each(|connection| connection.send(first));
            for byte in first.iter().take(30) {
                // One that was answered meanwhile may be closed.
                heads.iter_mut().for_each(|connection| _ = connection.try_send(&[*byte]));
                thread::sleep(Duration::from_millis(20));
            }
            for connection in &mut slow {
                connection.read().failure(408, "request_timeout");
                let _ = connection.try_send(rest);
            }
        });
        seen.expect_failures(&[]);
        seen
    });
}

#[test]
fn clients_that_break_off_in_the_middle_of_a_call_cost_nobody_a_worker() {
    let config = victim("", &built("libsleep.so"), "max_workers = 64\n");
    let load = Traffic { input: Some("{\"ms\": 5}"), ..GOOD };
    within_bounds(|| {
        let stack = Stack::start(&config);
        let seen = strike("resets in mid-call", &stack, &load, |stack| {
            let call = post("/function/victim", b"{\"ms\": 500}");
            let mut leaving: Vec<Connection> = (0..30).map(|_| stack.connect()).collect();
            leaving.iter_mut().for_each(|connection| connection.send(&call));
            let count = |key| stack.count("victim", key);
            wait_until("they are under way", || count("running") + count("queued") >= 30);
            leaving.into_iter().for_each(Connection::reset);
        });
        seen.expect_failures(&[]);
        let count = |key| stack.count("victim", key);
        wait_until("no call is left", || count("running") + count("queued") == 0);
        seen
    });
}

#[test]
fn whoever_ends_his_half_behind_the_request_gets_the_answer() {
    let config = victim("", &built("libsleep.so"), "");
    let load = Traffic { input: Some("{\"ms\": 5}"), ..GOOD };
    within_bounds(|| {
        let stack = Stack::start(&config);
        let seen = strike("half-closes", &stack, &load, |stack| {
            let call = post("/function/victim", b"{\"ms\": 50}");
            let mut half: Vec<Connection> = (0..50).map(|_| stack.connect()).collect();
            for connection in &mut half {
                connection.send(&call);
                connection.end_sending();
            }
            for connection in &mut half {
                connection.read().ok();
                connection.expect_end();
            }
        });
        seen.expect_failures(&[]);
        seen
    });
}

#[test]
fn a_herd_at_a_cold_function_starts_one_container_and_is_answered() {
    let cold = functions(&["nop"]) + "idle_timeout = \"100ms\"\n";
    let config = victim("", &built("libecho.so"), "") + &cold;
    let starts = |stack: &Stack| stack.samples("nightcore_container_starts_total");
    within_bounds(|| {
        let stack = Stack::start(&config);
        let seen = strike("a herd of 500", &stack, &GOOD, |stack| {
            wait_until("it is cold", || stack.container("nop").is_none());
            let before = starts(stack);
            let call = post("/function/nop", b"");
            let mut herd: Vec<Connection> = (0..500).map(|_| stack.connect()).collect();
            herd.iter_mut().for_each(|connection| connection.send(&call));
            for connection in &mut herd {
                connection.read().ok();
            }
            let after = starts(stack);
            assert_eq!(after.iter().sum::<u64>(), before.iter().sum::<u64>() + 1, "{after:?}");
        });
        seen.expect_failures(&[]);
        seen
    });
}
