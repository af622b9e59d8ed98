//! What a stack costs while nobody calls: no CPU time, little memory.

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use nightcore_tests::process::Process;
use nightcore_tests::{Stack, binaries, config};

/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(3);
/// One tick of 10 ms: the clock that counts may have been about to turn.
const CPU_TICKS_MAX: u64 = 1;
const PRIVATE_MEMORY_MAX: u64 = 4 << 20;

#[test]
fn twenty_idle_functions_cost_no_cpu_time_and_little_memory() {
    let examples = ["nop", "echo", "chain", "fanout", "sleep", "fail", "spin", "recurse", "hello"];
    let mut text = String::new();
    let names: Vec<String> = (0..20).map(|number| format!("function-{number}")).collect();
    for (name, example) in names.iter().zip(examples.iter().cycle()) {
        let library = binaries::built(&format!("lib{example}.so"));
        write!(text, "{}", config::function(name, &library)).expect("a String takes everything");
    }
    let stack = Stack::start(&text);
    // Whoever has worked must fall asleep again.
    for name in &names {
        let _ = stack.call(name, b"");
    }
    let mut processes = stack.containers();
    assert_eq!(processes.len(), names.len());
    processes.push(stack.process());

    let used = || processes.iter().map(|process| process.cpu_ticks()).sum::<u64>();
    let before = used();
    // The time in which nothing happens is what is measured here.
    thread::sleep(IDLE);
    let ticks = used() - before;
    assert!(ticks <= CPU_TICKS_MAX, "{ticks} ticks of CPU time in {IDLE:?} of idleness");

    let memory: Vec<u64> = stack.containers().into_iter().map(Process::private_memory).collect();
    println!("private memory of the containers, bytes: {memory:?}");
    let most = memory.iter().max().expect("twenty containers");
    assert!(*most < PRIVATE_MEMORY_MAX, "{most} bytes: {memory:?}");
}
