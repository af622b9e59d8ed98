//! The engine's half of a link, with the real binaries: joining, coming back, draining, strangers.

use std::thread;
use std::time::Duration;

use nightcore_tests::apart::{Keys, Part};
use nightcore_tests::config::functions;
use nightcore_tests::watchdog::wait_until;
use nix::sys::signal::Signal;

#[test]
fn functions_of_an_engine_are_called_through_its_gateway() {
    let keys = Keys::new();
    let gateway = Part::gateway("127.0.0.1:0", &keys.link());
    let list = functions(&["echo", "fail", "chain"]);
    let _engine = Part::engine(&[gateway.engines()], &keys.link(), &list);
    gateway.wait_for("echo");
    for size in [0, 1, 1000, 16 * 1024, 100_000, 5 << 20] {
        let input: Vec<u8> = (0..=250u8).cycle().take(size).collect();
        assert!(gateway.call("echo", &input).ok() == input, "{size} bytes");
    }
    gateway.call("fail", b"x").failure(500, "function_error");
    gateway.call("nobody", b"x").failure(404, "not_found");
    // Internal calls stay on the engine.
    gateway.call("chain", b"").ok();
}

#[test]
fn many_calls_at_once_large_and_small_are_all_answered() {
    let keys = Keys::new();
    let gateway = Part::gateway("127.0.0.1:0", &keys.link());
    let _engine = Part::engine(&[gateway.engines()], &keys.link(), &functions(&["echo"]));
    gateway.wait_for("echo");
    thread::scope(|scope| {
        for client in 0..8_usize {
            let gateway = &gateway;
            scope.spawn(move || {
                for round in 0..12 {
                    let size = if (client + round) % 3 == 0 { 2 << 20 } else { 100 };
                    let input = vec![u8::try_from(client).unwrap(); size];
                    assert!(gateway.call("echo", &input).ok() == input);
                }
            });
        }
    });
}

#[test]
fn an_engine_comes_back_to_a_gateway_that_was_killed() {
    let keys = Keys::new();
    let gateway = Part::gateway("127.0.0.1:0", &keys.link());
    let engines = gateway.engines();
    let engine = Part::engine(&[engines], &keys.link(), &functions(&["echo"]));
    gateway.wait_for("echo");
    drop(gateway);
    let gateway = Part::gateway(&engines.to_string(), &keys.link());
    gateway.wait_for("echo");
    assert!(engine.process().is_alive());
}

#[test]
fn an_engine_serves_several_gateways_and_one_that_is_not_there_costs_nothing() {
    let keys = Keys::new();
    let gateways = [(); 2].map(|()| Part::gateway("127.0.0.1:0", &keys.link()));
    let nobody = "127.0.0.1:9".parse().unwrap();
    let names = [gateways[0].engines(), nobody, gateways[1].engines()];
    let engine = Part::engine(&names, &keys.link(), &functions(&["echo"]));
    for gateway in &gateways {
        gateway.wait_for("echo");
    }
    let told = engine.stderr().matches("gateway 127.0.0.1:9 cannot be reached").count();
    assert_eq!(told, 1, "{}", engine.stderr());
}

#[test]
fn an_engine_that_is_stopped_answers_what_it_has_and_leaves_in_peace() {
    let keys = Keys::new();
    let gateway = Part::gateway("127.0.0.1:0", &keys.link());
    let list = functions(&["sleep"]);
    let engine = Part::engine(&[gateway.engines()], &keys.link(), &list);
    wait_until("it is served", || gateway.call("sleep", b"").status == 200);
    thread::scope(|scope| {
        let call = || gateway.call("sleep", b"{\"ms\": 1500}");
        let calls: Vec<_> = (0..4).map(|_| scope.spawn(call)).collect();
        wait_until("the calls are there", || {
            gateway.metric("nightcore_engines_calls_in_flight") == 4
        });
        engine.signal(Signal::SIGTERM);
        for call in calls {
            call.join().unwrap().ok();
        }
    });
    assert_eq!(engine.wait(), Some(0));
    assert_ne!(gateway.call("sleep", b"").status, 200, "nobody is there any more");
}

#[test]
fn an_engine_with_another_key_serves_nobody_and_says_once_what_to_do() {
    let keys = Keys::new();
    let gateway = Part::gateway("127.0.0.1:0", &keys.link());
    let engine = Part::engine(&[gateway.engines()], &keys.other(), &functions(&["echo"]));
    wait_until("it is told", || engine.stderr().contains("key_file of [engine.link]"));
    // Others with the right key join meanwhile, and so do several more attempts of the wrong one.
    let _right = Part::engine(&[gateway.engines()], &keys.link(), &functions(&["nop"]));
    gateway.wait_for("nop");
    gateway.call("echo", b"x").failure(404, "not_found");
    assert_eq!(engine.stderr().matches("key_file").count(), 2, "{}", engine.stderr());
}

#[test]
fn an_engine_without_calls_takes_no_time() {
    let keys = Keys::new();
    let gateway = Part::gateway("127.0.0.1:0", &keys.link());
    let engine = Part::engine(&[gateway.engines()], &keys.link(), &functions(&["echo"]));
    gateway.wait_for("echo");
    let before = engine.process().cpu_ticks();
    thread::sleep(Duration::from_secs(2));
    let spent = engine.process().cpu_ticks() - before;
    // In hundredths of a second. Heartbeats of a few links cost a fraction of one.
    assert!(spent <= 10, "{spent} ticks in two seconds");
}
