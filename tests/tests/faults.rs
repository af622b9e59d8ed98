//! Functions that fail, panic, spin, or take their container down.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nightcore_tests::functions::build;
use nightcore_tests::{Connection, Stack, config, functions, post, wait_until};
use tempfile::TempDir;

#[test]
fn the_c_examples_of_both_interfaces_greet() {
    let stack = Stack::start(&functions(&["hello", "hello_v2"]));
    for function in ["hello", "hello_v2"] {
        let answer = stack.call(function, b"world");
        assert_eq!(answer.status, 200, "{}", answer.show());
        assert!(answer.text().contains("world"), "{}", answer.show());
    }
}

#[test]
fn a_panic_costs_one_call_and_not_the_container() {
    let stack = Stack::start(&functions(&["panic"]));
    let before = stack.containers();
    for _ in 0..20 {
        stack.call("panic", b"").failure(500, "function_panic");
    }
    assert_eq!(stack.containers(), before);
}

#[test]
fn a_function_that_spins_does_not_keep_others_from_answering() {
    let stack = Stack::start(&functions(&["spin", "echo"]));
    let mut spinning: Vec<Connection> = (0..2).map(|_| stack.connect()).collect();
    for connection in &mut spinning {
        connection.send(&post("/function/spin", b"{\"us\": 300000}"));
    }
    for number in 0..200 {
        let body = number.to_string();
        assert_eq!(stack.call("echo", body.as_bytes()).text(), body);
    }
    for connection in &mut spinning {
        assert!(connection.read().json()["us"].as_u64() >= Some(300_000));
    }
}

#[test]
fn a_function_that_nobody_waits_for_any_more_stops_spinning() {
    let stack = Stack::start(&(functions(&["spin"]) + "max_workers = 1\n"));
    let headers = "X-Nightcore-Timeout-Ms: 50\r\n";
    let minute = b"{\"us\": 60000000}";
    let bytes = nightcore_tests::request("POST", "/function/spin", headers, minute);
    stack.connect().exchange(&bytes).failure(504, "deadline_exceeded");
    // The only worker must be free again for this one.
    stack.call("spin", b"{\"us\": 1}").ok();
}

#[test]
fn a_container_that_dies_fails_its_call_comes_back_and_disturbs_nobody() {
    let crash = functions(&["crash"]) + "memory = \"64MiB\"\n";
    let stack = Stack::start(&format!("{}{crash}", functions(&["echo", "chain"])));
    stack.call("crash", b"{\"how\": \"none\"}").ok();
    while_others_run(&stack, || {
        for how in ["segv", "abort", "exit", "stack", "oom"] {
            let input = format!("{{\"how\": \"{how}\"}}");
            let answer = stack.call("crash", input.as_bytes());
            assert_eq!(answer.status, 502, "{how}: {}", answer.show());
            answer.failure(502, "container_died");
            wait_until("the container is back", || {
                stack.call("crash", b"{\"how\": \"none\"}").status == 200
            });
        }
    });
    assert_eq!(stack.containers().len(), 3);
}

#[test]
fn calls_in_flight_in_a_container_that_dies_fail_with_502() {
    let directory = TempDir::new().expect("a directory");
    let mortal = config::function("mortal", &build("mortal", directory.path()));
    let stack = Stack::start(&format!("{}{mortal}", functions(&["echo", "chain"])));
    while_others_run(&stack, || {
        let mut waiting: Vec<Connection> = (0..5).map(|_| stack.connect()).collect();
        for connection in &mut waiting {
            connection.send(&post("/function/mortal", b"wait"));
        }
        wait_until("all five run", || stack.count("mortal", "running") == 5);
        stack.call("mortal", b"die").failure(502, "container_died");
        for connection in &mut waiting {
            let answer = connection.read();
            answer.failure(502, "container_died");
            assert!(!answer.is_last(), "the connection can be used again");
        }
        // Whoever comes now waits for the new container.
        for connection in &mut waiting {
            assert_eq!(connection.exchange(&post("/function/mortal", b"")).ok(), b"alive");
        }
    });
}

#[test]
fn a_container_that_is_killed_from_outside_comes_back() {
    let stack = Stack::start(&functions(&["echo"]));
    let before = stack.containers();
    assert_eq!(before.len(), 1);
    before[0].signal(nix::sys::signal::Signal::SIGKILL);
    wait_until("it has died", || !before[0].is_alive());
    wait_until("another is there", || stack.call("echo", b"x").status == 200);
    assert_ne!(stack.containers(), before);
}

/// Calls other functions again and again during `body`; each must succeed as if nothing happened.
fn while_others_run(stack: &Stack, body: impl FnOnce()) {
    let over = &AtomicBool::new(false);
    thread::scope(|scope| {
        for (path, input) in [
            ("/function/echo", b"steady".as_slice()),
            ("/function/chain", b"{\"n\": 5}"),
            ("/healthz", b""),
        ] {
            let mut connection = stack.connect();
            scope.spawn(move || {
                // SYNC(over): pairs with the store below; it carries no other data.
                while !over.load(Ordering::Relaxed) {
                    let request = match input {
                        b"" => nightcore_tests::get(path),
                        input => post(path, input),
                    };
                    connection.exchange(&request).ok();
                }
            });
        }
        // Ends the others even if `body` panics.
        let _end = OnDrop(|| over.store(true, Ordering::Relaxed));
        body();
    });
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
