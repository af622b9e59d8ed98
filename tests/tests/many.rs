//! Many at once: every request gets its own answer.

use std::thread;

use nightcore_tests::functions::build;
use nightcore_tests::{Connection, Random, Stack, config, functions, post, request};
use tempfile::TempDir;

const CONNECTIONS: u64 = 64;
const REQUESTS: usize = 10_000;

#[test]
fn ten_thousand_requests_on_64_connections_each_get_their_own_answer() {
    let stack = Stack::start(&functions(&["echo"]));
    on_every_connection(&stack, REQUESTS, |connection, random, number| {
        let size = random.below(2_000);
        let body = [number.to_be_bytes().as_slice(), &random.bytes(size)].concat();
        let header = format!("X-Request-Id: {number}\r\n");
        let answer = connection.exchange(&request("POST", "/function/echo", &header, &body));
        assert!(answer.ok() == body, "{number}: {}", answer.show());
        assert_eq!(answer.header("x-request-id"), Some(number.to_string().as_str()));
    });
    assert_eq!(stack.count("echo", "completed"), REQUESTS as u64);
}

#[test]
fn short_calls_that_follow_each_other_in_a_lane_never_wait_for_one_that_waits_for_them() {
    let directory = TempDir::new().expect("a directory");
    let table = config::function("now_and_then", &build("now_and_then", directory.path()));
    let stack = Stack::start(&format!("{table}max_workers = 200\n"));
    on_every_connection(&stack, REQUESTS, |connection, random, number| {
        let body = number.to_string();
        // Seldom enough for the function's calls to stay short on average.
        let again = if random.below(50) == 0 {
            "again\n".repeat(1 + random.below(3))
        } else {
            String::new()
        };
        let input = format!("{again}{body}");
        let answer = connection.exchange(&post("/function/now_and_then", input.as_bytes()));
        assert_eq!(answer.text(), body);
    });
}

#[test]
fn functions_of_all_kinds_run_at_once_and_do_not_mix() {
    let stack = Stack::start_examples();
    on_every_connection(&stack, 3_000, |connection, random, number| {
        let text = format!("number {number}");
        let mut call = |function: &str, input: &str| {
            connection.exchange(&post(&format!("/function/{function}"), input.as_bytes()))
        };
        match random.below(12) {
            0 => assert!(call("nop", &text).ok().is_empty()),
            1 => assert_eq!(call("fail", &text).failure(500, "function_error").message, text),
            2 => assert_eq!(call("panic", &text).failure(500, "function_panic").message, text),
            3 => assert!(call("hello", &text).text().contains(&text)),
            4 => assert!(call("hello_v2", &text).text().contains(&text)),
            5 => assert_eq!(call("chain", "{\"n\": 3, \"size\": 100}").json()["n"], 3),
            6 => assert_eq!(call("fanout", "{\"n\": 5, \"size\": 100}").json()["n"], 5),
            7 => assert!(call("spin", "{\"us\": 100}").json()["us"].as_u64() >= Some(100)),
            8 => assert_eq!(call("sleep", "{\"ms\": 2}").json()["ms"], 2),
            9 => assert_eq!(call("recurse", "{\"n\": 1}").json()["depth"], 1),
            10 => assert!(call("markdown", &format!("# {text}")).text().contains(&text)),
            _ => assert_eq!(call("echo", &text).text(), text),
        }
    });
}

#[test]
fn a_client_that_leaves_in_the_middle_harms_nobody() {
    let stack = Stack::start(&functions(&["echo", "sleep"]));
    for number in 0..200_usize {
        let mut leaving = stack.connect();
        let function = if number % 2 == 0 { "sleep" } else { "echo" };
        let whole = post(&format!("/function/{function}"), b"{\"ms\": 5}");
        leaving.send(&whole[..whole.len() - number % 3]);
        drop(leaving);
        let body = number.to_string();
        assert_eq!(stack.call("echo", body.as_bytes()).text(), body);
    }
}

/// Runs `requests` exchanges, spread evenly over the connections, each of which has a thread.
fn on_every_connection(
    stack: &Stack,
    requests: usize,
    exchange: impl Fn(&mut Connection, &mut Random, u64) + Sync,
) {
    let exchange = &exchange;
    thread::scope(|scope| {
        for index in 0..CONNECTIONS {
            let mut connection = stack.connect();
            scope.spawn(move || {
                let mut random = Random::new(index + 1);
                let mut number = index;
                while number < requests as u64 {
                    exchange(&mut connection, &mut random, number);
                    number += CONNECTIONS;
                }
            });
        }
    });
}
