//! Faults of the engine's own process, under load. `docs/reliability.md` has a row for each.

use std::thread;
use std::time::{Duration, Instant};

use nightcore_tests::fault::{OTHERS, RECOVERY_MAX, others_do_not_feel, strike};
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
fn an_engine_without_descriptors_pauses_accepting_and_serves_whom_it_has() {
    let config = format!("{}[engine]\nshards = 1\n", functions(&[OTHERS[0], OTHERS[1], "nop"]));
    let nop = Traffic { function: "nop", input: Some(""), per_second: 100, connections: 4 };
    others_do_not_feel(|| {
        let stack = Stack::start_by(&["prlimit", "--nofile=128:128", "--"], &config);
        let seen = strike("no descriptors left", &stack, &nop, |stack| {
            // The kernel takes them; the engine cannot.
            let mut crowd: Vec<Connection> = (0..200).map(|_| stack.connect()).collect();
            wait_until("it has noticed", || stack.stderr().contains("accepting pauses"));
            let ticks = stack.process().cpu_ticks();
            thread::sleep(Duration::from_secs(1));
            let ticks = stack.process().cpu_ticks() - ticks;
            println!("no descriptors left: {ticks} ticks of CPU time in a second");
            assert!(ticks <= 50, "{ticks} ticks of 10 ms in a second: it spins");

            let call = post("/function/nop", b"");
            crowd.iter_mut().for_each(|connection| connection.send(&call));
            let freed = Instant::now();
            while !crowd.is_empty() {
                let rest = crowd.split_off(crowd.len().min(20));
                crowd.iter_mut().for_each(|connection| _ = connection.read().ok());
                crowd = rest;
            }
            println!("no descriptors left: all 200 were served within {:?}", freed.elapsed());
        });
        seen.expect_failures(&[]);
        seen
    });
}
