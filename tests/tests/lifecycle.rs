//! How a stack ends: on request, without losing anything; by force, without leaving anything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nightcore_tests::client::Body;
use nightcore_tests::stack::{Ended, refused_at};
use nightcore_tests::{Connection, Stack, functions, post, request, wait_until};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;

const CLIENTS: usize = 16;
/// A draining stack lets a connection be idle for half a second before it closes it. Whoever pauses
/// longer may see it closed under his next request: no server can help that. Clocks are read at
/// different moments, hence the margin.
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// Requests before the signal comes.
const WARM_UP: u64 = 2_000;

#[test]
fn a_stack_that_nobody_uses_stops_at_once_and_leaves_nothing() {
    let stack = Stack::start_examples();
    let containers = stack.containers();
    assert!(containers.len() >= 13, "{containers:?}");
    let process = stack.process();
    expect_clean(&stack.stop());
    assert!(!process.is_alive());
    assert!(containers.iter().all(|container| !container.is_alive()));
}

#[test]
fn a_stack_that_is_stopped_at_once_stops_at_once() {
    let config = functions(&["nop"]);
    for _ in 0..30 {
        // The order to stop is right behind the one to serve.
        expect_clean(&Stack::start(&config).stop());
    }
}

#[test]
fn tables_of_descriptors_need_not_grow_under_load() {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is one");
    let stack = Stack::start(&functions(&["nop"]));
    let container = stack.container("nop").expect("it is up");
    for (process, wanted) in [(stack.process(), 1 << 16), (container, 1024)] {
        let room = process.room_for_descriptors();
        assert!(room >= limit.min(wanted), "{room}, where {wanted} of {limit} were to be");
    }
}

#[test]
fn ctrl_c_stops_a_stack_as_well() {
    let stack = Stack::start(&functions(&["nop"]));
    stack.call("nop", b"").ok();
    stack.signal(Signal::SIGINT);
    expect_clean(&stack.wait());
}

#[test]
fn sigterm_under_load_loses_nothing() {
    let stack = Stack::start(&functions(&["echo", "chain", "sleep"]));
    let containers = stack.containers();
    let answered = &AtomicU64::new(0);
    let ended = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|index| {
                let mut connection = stack.connect();
                scope.spawn(move || send_until_told_to_stop(&mut connection, index, answered))
            })
            .collect();
        // SYNC(answered): a plain counter; it carries no other data.
        wait_until("the load runs", || answered.load(Ordering::Relaxed) >= WARM_UP);
        stack.signal(Signal::SIGTERM);
        for client in clients {
            client.join().expect("every request got its answer");
        }
        stack.wait()
    });
    expect_clean(&ended);
    assert!(containers.iter().all(|container| !container.is_alive()));
}

#[test]
fn calls_that_are_under_way_are_answered_before_the_end() {
    let stack = Stack::start(&functions(&["sleep"]));
    let mut connections: Vec<Connection> = (0..8).map(|_| stack.connect()).collect();
    for connection in &mut connections {
        connection.send(&post("/function/sleep", b"{\"ms\": 500}"));
    }
    wait_until("all eight run", || stack.count("sleep", "running") == 8);
    stack.signal(Signal::SIGTERM);
    for connection in &mut connections {
        let answer = connection.read();
        answer.ok();
        assert!(answer.is_last(), "{}", answer.show());
        connection.expect_end();
    }
    expect_clean(&stack.wait());
}

#[test]
fn a_request_that_is_still_being_sent_is_taken_to_its_end() {
    let stack = Stack::start(&functions(&["echo"]));
    let body = vec![b'x'; 300 << 10];
    let bytes = post("/function/echo", &body);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    // Its bytes have been read when the interim answer comes.
    let mut connection = stack.connect();
    let whole = request("POST", "/function/echo", "Expect: 100-continue\r\n", b"late");
    connection.send(&whole[..whole.len() - 4]);
    assert_eq!(connection.read().status, 100);
    let mut other = stack.connect();
    other.exchange(&post("/function/echo", b"known to the stack")).ok();
    other.send(first);
    wait_until("the half has been received", || received_bytes(&stack) >= first.len() as u64);

    stack.signal(Signal::SIGTERM);
    wait_until("the listener is closed", || Connection::open(stack.address()).is_err());
    connection.send(b"late");
    let answer = connection.read();
    assert_eq!(answer.ok(), b"late");
    assert!(answer.is_last(), "{}", answer.show());
    other.send(second);
    let answer = other.read();
    assert!(answer.ok() == body);
    assert!(answer.is_last(), "{}", answer.show());
    expect_clean(&stack.wait());
}

#[test]
fn a_request_that_came_in_time_is_answered_however_late_the_stack_gets_to_read_it() {
    let config = "[gateway]\nidle_timeout = \"200ms\"\n";
    let stack = Stack::start(&format!("{config}{}", functions(&["echo"])));
    let mut late = 0;
    for round in 0..8 {
        let mut connections: Vec<Connection> = Vec::new();
        for _ in 0..40 {
            let mut connection = stack.connect();
            connection.exchange(&post("/function/echo", b"now")).ok();
            connections.push(connection);
        }
        stack.signal(Signal::SIGSTOP);
        wait_until("it is held", || stack.process().is_stopped());
        // Those it has closed by now do not count.
        connections.retain_mut(|connection| !connection.has_ended());
        for connection in &mut connections {
            connection.send(&post("/function/echo", b"later"));
        }
        // Time that must pass, for the stack to find its own timers overdue.
        thread::sleep(Duration::from_millis(250));
        stack.signal(Signal::SIGCONT);
        for connection in &mut connections {
            let answer = connection.try_read(Body::Present);
            assert!(matches!(&answer, Ok(Some(it)) if it.body == b"later"), "{round}: {answer:?}");
            late += 1;
        }
    }
    assert!(late > 0, "every connection was closed before it could be late");
}

#[test]
fn a_drain_that_takes_too_long_is_cut_and_says_so() {
    let config = "[engine]\ndrain_timeout = \"200ms\"\n";
    let stack = Stack::start(&format!("{config}{}", functions(&["sleep"])));
    let containers = stack.containers();
    let mut connection = stack.connect();
    connection.send(&post("/function/sleep", b"{\"ms\": 60000}"));
    wait_until("it runs", || stack.count("sleep", "running") == 1);
    let ended = stack.stop();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("before every request was answered"), "{}", ended.stderr);
    assert_eq!(ended.left, [] as [std::path::PathBuf; 0]);
    assert!(containers.iter().all(|container| !container.is_alive()));
}

#[test]
fn a_second_signal_cuts_the_drain() {
    let stack = Stack::start(&functions(&["sleep"]));
    let mut connection = stack.connect();
    connection.send(&post("/function/sleep", b"{\"ms\": 25000}"));
    wait_until("it runs", || stack.count("sleep", "running") == 1);
    stack.signal(Signal::SIGTERM);
    wait_until("the listener is closed", || Connection::open(stack.address()).is_err());
    stack.signal(Signal::SIGTERM);
    assert_eq!(stack.wait().code, Some(1));
}

#[test]
fn no_container_outlives_a_nightcore_that_is_killed() {
    let stack = Stack::start_examples();
    stack.call("nop", b"").ok();
    let mut busy = stack.connect();
    busy.send(&post("/function/spin", b"{\"us\": 20000000}"));
    wait_until("it spins", || stack.count("spin", "running") == 1);
    let containers = stack.containers();
    assert!(containers.len() >= 13, "{containers:?}");
    stack.signal(Signal::SIGKILL);
    let ended = stack.wait();
    assert_eq!(ended.code, None);
    wait_until("every container has ended", || {
        containers.iter().all(|container| !container.is_alive())
    });
}

#[test]
fn a_second_stack_on_the_same_port_is_refused_in_one_line() {
    let config = functions(&["nop"]);
    let stack = Stack::start(&config);
    let address = stack.address().to_string();
    let ended = refused_at(&config, &address);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
    assert_eq!(ended.left, [] as [std::path::PathBuf; 0]);
    stack.call("nop", b"").ok();
}

/// Exit code 0, no socket, no complaint.
fn expect_clean(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.left, [] as [std::path::PathBuf; 0], "{}", ended.stderr);
    for word in ["panicked", "ERROR", "WARN"] {
        assert!(!ended.stderr.contains(word), "{}", ended.stderr);
    }
}

/// A client that follows the rules: it sends until it is told that an answer was the last one, or
/// sees the connection closed before it sends. Whatever it has sent must be answered, unless the
/// machine kept it from sending for too long.
fn send_until_told_to_stop(connection: &mut Connection, index: usize, answered: &AtomicU64) {
    let mut sent_at = Instant::now();
    for number in 0_u64.. {
        if connection.has_ended() {
            return;
        }
        let body = format!("client {index}, request {number}");
        let (path, input) = match number % 50 {
            0 => ("/function/sleep", "{\"ms\": 3}"),
            1 => ("/function/chain", "{\"n\": 4}"),
            _ => ("/function/echo", body.as_str()),
        };
        let sent = connection.try_send(&post(path, input.as_bytes()));
        // At least as long as the stack has seen this connection idle.
        let pause = sent_at.elapsed();
        sent_at += pause;
        let answer = match sent.and_then(|()| connection.try_read(Body::Present)) {
            Ok(Some(answer)) => answer,
            _ if pause > PAUSE_MAX => return,
            failed => panic!("{body}, {pause:?} after the last one: {failed:?}"),
        };
        assert_eq!(answer.status, 200, "{body}: {}", answer.show());
        if path == "/function/echo" {
            assert_eq!(answer.text(), body);
        }
        answered.fetch_add(1, Ordering::Relaxed);
        if answer.is_last() {
            connection.expect_end();
            return;
        }
    }
}

/// Bytes the gateway has received from all clients.
fn received_bytes(stack: &Stack) -> u64 {
    let answer = stack.get("/metrics");
    let samples = answer.text().lines().filter_map(|line| {
        let rest = line.strip_prefix("nightcore_gateway_received_bytes_total")?;
        rest.rsplit_once(' ')?.1.parse::<u64>().ok()
    });
    samples.sum()
}
