//! Libraries in C, of both interfaces: the fit ones run, the others are refused with one clear line.

#![allow(clippy::unwrap_used)]

mod engine;
mod libraries;

use engine::Engine;
use ipc::Outcome;
use libraries::compile;
use nightcore::host::library::{Function, LoadError};

const MIB: u32 = 1 << 20;
const V1: &str = include_str!("libraries/v1.c");
const V2: &str = include_str!("libraries/v2.c");

fn load(source: &str) -> Result<Function, LoadError> {
    let directory = tempfile::tempdir().unwrap();
    let library = compile(directory.path(), "tested", source);
    // SAFETY: compiled from the test's own source against nightcore.h.
    unsafe { Function::load(&library, "tested") }
}

fn refusal(source: &str) -> String {
    load(source).unwrap_err().to_string()
}

#[test]
fn a_v1_library_runs_unmodified() {
    let function = load(V1).unwrap();
    assert_eq!(function.interface(), 1);
    let mut engine = Engine::with_function(MIB, function);
    assert_eq!(engine.run(b"").payload, b"");
    assert_eq!(engine.run(b"\x01hello").text(), "hello");
    // More answers than the channel keeps, all valid until the function returns.
    assert_eq!(engine.run(b"\xffab").text(), "ab".repeat(255));
    let mut input = vec![3];
    input.extend((0..100_000_u32).map(|n| (n % 251) as u8));
    assert!(engine.run(&input).payload == input[1..].repeat(3));
    engine.retire().unwrap();
}

#[test]
fn a_v1_library_sees_a_failed_call_and_its_code_fails_the_caller() {
    let mut engine = Engine::with_function(MIB, load(V1).unwrap());
    engine.dispatch(b"\x01x");
    let asked = engine.asked_next();
    engine.answer(asked.token, Outcome::NotFound, b"no such function");
    let completion = engine.completed();
    assert_eq!(completion.outcome, Outcome::FunctionError);
    assert_eq!(completion.text(), "the function returned 7");
    engine.retire().unwrap();
}

#[test]
fn a_v1_output_that_does_not_fit_fails_the_call() {
    let mut engine = Engine::with_function(4096, load(V1).unwrap());
    let mut input = vec![2];
    input.resize(4001, b'x');
    let completion = engine.run(&input);
    assert_eq!(completion.outcome, Outcome::TooLarge);
    assert_eq!(completion.text(), "the answer exceeds 4096 bytes");
    engine.retire().unwrap();
}

#[test]
fn a_v2_library_is_preferred_and_keeps_a_state_per_worker() {
    let function = load(&format!("{V1}\n{}", V2.replace("struct worker", "struct worker2")));
    let mut engine = Engine::with_function(MIB, function.unwrap());
    for n in 1..=3 {
        let completion = engine.run(b"abc");
        assert_eq!((completion.outcome, completion.text()), (Outcome::Ok, &*format!("n={n}")));
    }
    let completion = engine.run(b"fail");
    assert_eq!((completion.outcome, completion.text()), (Outcome::NotFound, "gone"));
    assert_eq!(engine.run(b"return").text(), "the function returned 42");
    engine.retire().unwrap();
}

#[test]
fn a_library_that_lacks_a_symbol_is_refused_by_its_name() {
    for symbol in
        ["faas_init", "faas_create_func_worker", "faas_destroy_func_worker", "faas_func_call"]
    {
        let message = refusal(&V1.replace(&format!("int {symbol}("), "int renamed("));
        assert!(message.contains(&format!("lacks {symbol}, which interface v1")), "{message}");
    }
    for symbol in ["nightcore_call", "nightcore_worker_create"] {
        let message = refusal(&V2.replace(&format!("int {symbol}("), "int renamed("));
        assert!(message.contains(&format!("lacks {symbol}, which interface v2")), "{message}");
    }
    let message = refusal("int unrelated(void); int unrelated(void) { return 0; }");
    assert!(message.contains("exports neither nightcore_abi_version"), "{message}");
}

#[test]
fn a_library_of_another_version_is_refused() {
    let message = refusal(&V2.replace("return NIGHTCORE_ABI_VERSION", "return 3"));
    assert!(message.contains("speaks version 3 of the interface, this runtime version 2"));
}

#[test]
fn a_library_that_cannot_initialise_is_refused() {
    let message = refusal(&V1.replace("initialised = 1;\n    return 0", "return 5"));
    assert!(message.contains("faas_init of library") && message.contains("returned 5"));
}

#[test]
fn a_path_that_is_no_library_is_refused() {
    // SAFETY: there is nothing to load.
    let missing = unsafe { Function::load("no/such/lib.so".as_ref(), "tested") };
    let message = missing.unwrap_err().to_string();
    assert!(message.contains("no/such/lib.so: No such file"), "{message}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("libtext.so");
    std::fs::write(&path, "text").unwrap();
    // SAFETY: not loadable.
    let message = unsafe { Function::load(&path, "tested") }.unwrap_err().to_string();
    assert!(message.contains("libtext.so: ") && message.contains("too short"), "{message}");
}

#[test]
fn a_worker_that_the_library_cannot_create_says_nothing_in_its_lane() {
    let function = load(&V1.replace("!initialised", "initialised")).unwrap();
    let (mut channel, lane) = engine::channel(MIB);
    let refused = nightcore::host::worker::run(lane, MIB, &function);
    assert_eq!(refused.unwrap_err().0, -1);
    assert!(channel.lane(engine::LANE).unwrap().receive().unwrap().is_none());
}
