//! Faults of the engine's own process, under load. `docs/reliability.md` has a row for each.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nightcore_tests::binaries::built;
use nightcore_tests::client::Body;
use nightcore_tests::fault::{OTHERS, RECOVERY_MAX, strike, within_bounds};
use nightcore_tests::load::{Load, Outcome, Traffic};
use nightcore_tests::{Connection, Stack, functions, post, wait_until};
use nix::sys::signal::Signal;

const ECHO: Traffic = Traffic { function: "echo", input: None, per_second: 400, connections: 8 };

#[test]
fn an_engine_that_was_held_answers_all_that_came_meanwhile() {
    let stack = Stack::start(&functions(&["echo"]));
    let load = Load::start(stack.address(), &ECHO);
    thread::sleep(Duration::from_millis(500));
    stack.signal(Signal::SIGSTOP);
    wait_until("it is held", || stack.process().is_stopped());
    thread::sleep(Duration::from_millis(500));
    stack.signal(Signal::SIGCONT);
    let over = Instant::now();
    thread::sleep(RECOVERY_MAX + Duration::from_millis(500));
    let report = load.stop();
    let after = report.p99(over + RECOVERY_MAX, Instant::now());
    println!(
        "SIGSTOP of the engine: clients saw {:?}, the first success {:?} behind its end; p99 {after:?} \
         a second later",
        report.outcomes(),
        report.first_success(over),
    );
    assert_eq!(report.failures().count(), 0, "{:?}", report.outcomes());
    assert!(after <= RECOVERY_MAX, "it has not caught up: {after:?}");
}

#[test]
fn an_engine_that_was_killed_is_replaced_on_the_same_port() {
    let config = functions(&["echo"]);
    let stack = Stack::start(&config);
    let (address, containers) = (stack.address(), stack.containers());
    let load = Load::start(address, &ECHO);
    thread::sleep(Duration::from_millis(500));
    stack.signal(Signal::SIGKILL);
    assert_eq!(stack.wait().code, None);
    let started = Instant::now();
    let stack = Stack::start_at(&config, address);
    let over = Instant::now();
    thread::sleep(RECOVERY_MAX);
    let report = load.stop();
    println!(
        "SIGKILL of the engine: a new one served {:?} after its start; clients saw {:?}, the first \
         success {:?} and the last failure {:?} behind that",
        over - started,
        report.outcomes(),
        report.first_success(over),
        report.last_failure(over),
    );
    let mut broken = 0;
    for (outcome, count) in report.outcomes() {
        match outcome {
            Outcome::Ok | Outcome::Refused(_) => {}
            Outcome::Closed | Outcome::Broken(_) => broken += count,
            Outcome::Failed(..) => panic!("{count} times {outcome:?}"),
        }
    }
    assert!(broken <= 8, "more than one request a connection was lost: {broken}");
    assert!(report.first_success(over).is_some_and(|time| time <= RECOVERY_MAX));
    assert!(report.last_failure(over) <= RECOVERY_MAX);
    assert!(containers.iter().all(|container| !container.is_alive()));
    drop(stack);
}

#[test]
fn a_crowd_takes_no_descriptor_from_containers_and_those_who_came_before() {
    let config = functions(&[OTHERS[0], OTHERS[1], "nop"]);
    let nop = Traffic { function: "nop", input: Some(""), per_second: 100, connections: 4 };
    within_bounds(|| {
        let mut command = Command::new("prlimit");
        command.args(["--nofile=128:128", "--"]).arg(built("nightcore"));
        let stack = Stack::start_by(&config, command, None);
        let seen = strike("descriptors run out", &stack, &nop, |stack| {
            let mut crowd: Vec<Connection> = (0..300).map(|_| stack.connect()).collect();
            let mut refused = 0;
            for connection in &mut crowd {
                let sent = connection.try_send(&post("/function/nop", b""));
                match sent.and_then(|()| connection.try_read(Body::Present)) {
                    Ok(Some(answer)) if answer.status == 200 => {}
                    Ok(Some(answer)) => {
                        answer.failure(503, "too_many_connections");
                        refused += 1;
                    }
                    // Too many even to be told so.
                    Ok(None) | Err(_) => refused += 1,
                }
            }
            let (ticks, held) = (stack.process().cpu_ticks(), Instant::now());
            stack.container("nop").expect("it is up").signal(Signal::SIGKILL);
            // The load on `nop` shows whether it comes back while the crowd is there.
            thread::sleep(Duration::from_secs(1));
            let (ticks, held) = (stack.process().cpu_ticks() - ticks, held.elapsed());
            println!("{refused} of 300 were refused; {ticks} ticks of CPU time in {held:?}");
            assert!((200..300).contains(&refused), "{refused} of 300 were refused");
            assert!(ticks <= 50, "{ticks} ticks of 10 ms in {held:?}: it spins");
        });
        seen.expect_failures(&[(Outcome::failed(502, "container_died"), 4)]);
        assert_eq!(stack.call("nop", b"").status, 200);
        seen
    });
}
