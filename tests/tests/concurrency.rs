//! Concurrency as a client sees it: limits, early refusals, recursion that ends, calls that run on.

use std::thread;
use std::time::{Duration, Instant};

use nightcore_tests::{Answer, Stack, functions, post, request, wait_until};

/// The table of one example with these lines in it.
fn function(name: &str, lines: &str) -> String {
    format!("{}{lines}\n", functions(&[name]))
}

/// Calls `function` on `count` connections at once.
fn call_all(
    stack: &Stack,
    function: &str,
    headers: &str,
    (input, count): (&str, usize),
) -> Vec<Answer> {
    let path = format!("/function/{function}");
    let request = request("POST", &path, headers, input.as_bytes());
    thread::scope(|scope| {
        let call = || scope.spawn(|| stack.connect().exchange(&request));
        let calls: Vec<_> = (0..count).map(|_| call()).collect();
        calls.into_iter().map(|call| call.join().expect("it is answered")).collect()
    })
}

/// The statuses, in rising order.
fn statuses(answers: &[Answer]) -> Vec<u16> {
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    statuses
}

#[test]
fn a_function_takes_as_many_calls_at_once_as_its_owner_allows() {
    let stack = Stack::start(&function("sleep", "concurrency_limit = 2"));
    let answers = call_all(&stack, "sleep", "", (r#"{"ms":1000}"#, 5));
    assert_eq!(statuses(&answers), [200, 200, 429, 429, 429]);
    for refused in answers.iter().filter(|answer| answer.status == 429) {
        refused.failure(429, "limit_reached");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    stack.call("sleep", br#"{"ms":1}"#).ok();
}

#[test]
fn a_function_takes_as_many_calls_a_second_as_its_owner_allows() {
    let stack = Stack::start(&function("nop", "rate_limit = 50"));
    let mut connection = stack.connect();
    let begin = Instant::now();
    let mut taken = 0;
    while begin.elapsed() < Duration::from_secs(1) {
        taken += u32::from(connection.exchange(&post("/function/nop", b"")).status == 200);
    }
    let most = 50.0 * begin.elapsed().as_secs_f64() + 7.0;
    assert!(taken >= 40 && f64::from(taken) <= most, "{taken} calls of at most {most}");
}

#[test]
fn a_call_that_cannot_be_done_in_time_is_refused_at_once() {
    // On one shard: another one would have to learn first how long calls take.
    let sleep = function("sleep", "max_workers = 1\nconcurrency = \"fixed\"");
    let stack = Stack::start(&format!("[engine]\nshards = 1\n{sleep}"));
    for _ in 0..4 {
        stack.call("sleep", br#"{"ms":100}"#).ok();
    }
    let begin = Instant::now();
    let headers = "X-Nightcore-Timeout-Ms: 500\r\n";
    let answers = call_all(&stack, "sleep", headers, (r#"{"ms":100}"#, 20));
    let statuses = statuses(&answers);
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    let done = statuses.iter().filter(|&&status| status == 200).count();
    assert!((1..=5).contains(&done), "{statuses:?} after {:?}", begin.elapsed());
    let refused = answers.iter().find(|answer| answer.status == 503).expect("some are refused");
    refused.failure(503, "overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
}

#[test]
fn recursion_finds_its_workers_or_fails_with_a_word_for_it() {
    for (workers, depth, expected) in [(8, 7, 200), (4, 7, 503)] {
        let stack = Stack::start(&function("recurse", &format!("max_workers = {workers}")));
        let input = format!("{{\"n\":{depth}}}");
        for _ in 0..20 {
            let begin = Instant::now();
            for answer in call_all(&stack, "recurse", "", (&input, 4)) {
                // At first it is not known how many workers a call takes, and one may be refused.
                assert!([expected, 503].contains(&answer.status), "{}", answer.show());
                if answer.status == 503 {
                    answer.failure(503, "deadlock");
                }
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
        }
        let answer = stack.call("recurse", input.as_bytes());
        assert_eq!(answer.status, expected, "{}", answer.show());
    }
}

#[test]
fn a_call_that_runs_on_has_its_container_replaced_and_no_other() {
    let hasty = function("sleep", "timeout = \"100ms\"\ngrace = \"100ms\"");
    let stack = Stack::start(&format!("{}{hasty}", functions(&["nop"])));
    let before = stack.containers();
    stack.call("sleep", br#"{"ms":60000}"#).failure(504, "deadline_exceeded");
    wait_until("one container is replaced", || {
        stack.containers().iter().filter(|process| !before.contains(process)).count() == 1
    });
    assert_eq!(stack.containers().iter().filter(|process| before.contains(process)).count(), 1);
    stack.call("sleep", br#"{"ms":1}"#).ok();
    stack.call("nop", b"").ok();
    assert!(stack.stderr().contains("grace"), "{}", stack.stderr());
}

#[test]
fn a_short_deadline_of_a_client_costs_no_container() {
    let stack = Stack::start(&function("sleep", "timeout = \"10s\"\ngrace = \"1ms\""));
    let before = stack.containers();
    let headers = "X-Nightcore-Timeout-Ms: 50\r\n";
    for answer in call_all(&stack, "sleep", headers, (r#"{"ms":500}"#, 4)) {
        answer.failure(504, "deadline_exceeded");
    }
    wait_until("they have ended all the same", || stack.count("sleep", "running") == 0);
    assert_eq!(stack.containers(), before);
}

#[test]
fn a_pool_follows_the_calls_at_once_and_shrinks_again() {
    let stack = Stack::start(&function("sleep", "min_workers = 0\nmax_workers = 64"));
    for _ in 0..3 {
        for answer in call_all(&stack, "sleep", "", (r#"{"ms":100}"#, 40)) {
            answer.ok();
        }
    }
    assert!(stack.count("sleep", "workers") >= 20);
    wait_until("the pool is empty", || stack.count("sleep", "workers") == 0);
    stack.call("sleep", br#"{"ms":1}"#).ok();
}
