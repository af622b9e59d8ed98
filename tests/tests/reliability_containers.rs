//! Faults inside a container, under load: they cost the calls in it, and nobody else anything.
//! `docs/reliability.md` has a row for each.

use nightcore_tests::fault::{OTHERS, strike, within_bounds};
use nightcore_tests::functions::build;
use nightcore_tests::load::{Outcome, Traffic};
use nightcore_tests::{Stack, config, functions, wait_until};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// Calls that take 20 ms each, so that some are in the container whenever something happens to it.
const WAITING: Traffic =
    Traffic { function: "rogue", input: Some("wait"), per_second: 100, connections: 8 };

/// The configuration of a stack with a function that can do harm, and its library's directory.
fn rogue(settings: &str) -> (String, TempDir) {
    let directory = TempDir::new().expect("a directory");
    let rogue = config::function("rogue", &build("rogue", directory.path()));
    (format!("{}{rogue}{settings}", functions(&OTHERS)), directory)
}

/// Strikes the container of `rogue` by a call of it that is answered with 502.
fn expect_death(name: &str, settings: &str, input: &str) {
    let (config, _directory) = rogue(settings);
    within_bounds(|| {
        let stack = Stack::start(&config);
        let seen = strike(name, &stack, &WAITING, |stack| {
            stack.call("rogue", input.as_bytes()).failure(502, "container_died");
        });
        // One that was in the container, on each connection.
        seen.expect_failures(&[(Outcome::failed(502, "container_died"), 8)]);
        assert_eq!(stack.containers().len(), 3);
        seen
    });
}

#[test]
fn a_segmentation_fault_costs_the_calls_in_the_container() {
    expect_death("segmentation fault", "", "segv");
}

#[test]
fn a_stack_overflow_costs_the_calls_in_the_container() {
    expect_death("stack overflow", "", "stack");
}

#[test]
fn memory_without_end_costs_the_calls_in_the_container() {
    expect_death("memory exhaustion", "memory = \"64MiB\"\n", "memory");
}

#[test]
fn a_container_that_is_killed_takes_only_the_calls_in_it_along() {
    let (config, _directory) = rogue("");
    within_bounds(|| {
        let stack = Stack::start(&config);
        let seen = strike("SIGKILL of a container", &stack, &WAITING, |stack| {
            let container = stack.container("rogue").expect("it is up");
            container.signal(Signal::SIGKILL);
            wait_until("it is dead", || !container.is_alive());
        });
        seen.expect_failures(&[(Outcome::failed(502, "container_died"), 8)]);
        seen
    });
}

#[test]
fn a_launcher_that_ends_without_its_workers_is_noticed() {
    let (config, _directory) = rogue("");
    within_bounds(|| {
        let stack = Stack::start(&config);
        let seen = strike("death of the launcher thread", &stack, &WAITING, |stack| {
            let container = stack.container("rogue").expect("it is up");
            let status = stack.call("rogue", b"launcher").status;
            assert!(matches!(status, 200 | 502), "{status}");
            // Its entry in /proc is that of its dead first thread.
            let another = || stack.container("rogue").is_some_and(|now| now != container);
            wait_until("another is there", another);
        });
        seen.expect_failures(&[(Outcome::failed(502, "container_died"), 8)]);
        seen
    });
}

#[test]
fn a_panic_costs_its_call_and_the_container_stays() {
    within_bounds(|| {
        let stack = Stack::start(&functions(&[OTHERS[0], OTHERS[1], "panic"]));
        let before = stack.containers();
        let echo = Traffic { function: "echo", input: None, per_second: 100, connections: 2 };
        let seen = strike("panic", &stack, &echo, |stack| {
            for _ in 0..100 {
                stack.call("panic", b"").failure(500, "function_panic");
            }
        });
        seen.expect_failures(&[]);
        assert_eq!(stack.containers(), before);
        seen
    });
}

#[test]
fn a_loop_without_end_is_answered_in_time_and_its_container_replaced() {
    let (config, _directory) = rogue("timeout = \"300ms\"\ngrace = \"200ms\"\n");
    within_bounds(|| {
        let stack = Stack::start(&config);
        let seen = strike("infinite loop", &stack, &WAITING, |stack| {
            let container = stack.container("rogue").expect("it is up");
            stack.call("rogue", b"loop").failure(504, "deadline_exceeded");
            wait_until("it is replaced", || !container.is_alive());
        });
        seen.expect_failures(&[
            (Outcome::failed(502, "container_died"), 8),
            // Short calls that were lined up behind the one that never ends.
            (Outcome::failed(504, "deadline_exceeded"), 8),
        ]);
        seen
    });
}

#[test]
fn a_container_that_is_held_is_replaced_once_a_call_has_overrun() {
    let (config, _directory) = rogue("timeout = \"300ms\"\ngrace = \"200ms\"\n");
    within_bounds(|| {
        let stack = Stack::start(&config);
        let seen = strike("SIGSTOP of a container", &stack, &WAITING, |stack| {
            let container = stack.container("rogue").expect("it is up");
            container.signal(Signal::SIGSTOP);
            wait_until("it is replaced", || !container.is_alive());
        });
        seen.expect_failures(&[
            (Outcome::failed(502, "container_died"), usize::MAX),
            (Outcome::failed(503, "overloaded"), usize::MAX),
            (Outcome::failed(504, "deadline_exceeded"), usize::MAX),
        ]);
        seen
    });
}
