//! The SDK against a host table made of plain Rust: what a function says reaches the runtime, and
//! what the runtime says reaches the function.

mod table;

use std::ffi::c_int;

use nightcore::abi::{Host, RawContext};
use nightcore::{Answer, CallError, Context, Error, ErrorKind, Request, Response};
use table::{HOST, Recorder};

type Entry = unsafe extern "C" fn(
    *mut std::ffi::c_void,
    *mut RawContext,
    *const Host,
    *const u8,
    usize,
) -> c_int;

/// Runs one function as the runtime would and returns what it left behind.
fn run(entry: Entry, input: &[u8]) -> Recorder {
    run_with(entry, input, Recorder::default())
}

fn run_with(entry: Entry, input: &[u8], mut recorder: Recorder) -> Recorder {
    let context = (&raw mut recorder).cast::<RawContext>();
    // SAFETY: the table's functions take the context for the `Recorder` it is, which lives and is
    // not touched until the call returns; the input is a slice.
    let code = unsafe { entry(std::ptr::null_mut(), context, &HOST, input.as_ptr(), input.len()) };
    recorder.code = code;
    recorder
}

#[nightcore::function]
fn nothing() {}

#[nightcore::function]
fn borrowed(input: &[u8]) -> &[u8] {
    input
}

#[nightcore::function]
fn shout(input: &str) -> String {
    input.to_uppercase()
}

#[nightcore::function]
fn constant(_context: &Context) -> &'static str {
    "constant"
}

#[nightcore::function]
fn described(request: Request<'_>, context: &mut Context) -> Result<Response, Error> {
    let agent = request.header("USER-AGENT").ok_or_else(|| Error::not_found("no agent"))?;
    let text = format!(
        "{} {} {} {} {} {} {}",
        request.method(),
        request.suffix(),
        request.query(),
        String::from_utf8_lossy(agent),
        request.headers().count(),
        context.request_id(),
        context.depth(),
    );
    Ok(Response::text(text).status(201).header("X-One", "1"))
}

#[nightcore::function]
fn bad_status() -> Response {
    Response::new("x").status(99)
}

#[nightcore::function]
fn parses(input: &str) -> Result<Vec<u8>, std::num::ParseIntError> {
    Ok(vec![input.parse::<u8>()?])
}

#[nightcore::function]
fn panics(input: &str) {
    panic!("it was {input}");
}

#[nightcore::function]
fn passes_on(context: &Context, input: &[u8]) -> Result<Vec<u8>, CallError> {
    let answer = context.call("echo", input)?;
    assert_eq!((answer.status(), answer.content_type()), (200, "text/plain"));
    Ok(answer.to_vec())
}

#[nightcore::function]
fn answers_with_an_answer<'c>(context: &'c Context, input: &[u8]) -> Result<Answer<'c>, CallError> {
    context.call("echo", input)
}

#[nightcore::function]
fn calls_what_fails(context: &Context) -> Result<(), Error> {
    context.call("too_deep", b"")?;
    Ok(())
}

#[nightcore::function]
fn waits_in_reverse(context: &Context) -> Result<String, Error> {
    let mut calls = Vec::new();
    for n in 0..10 {
        calls.push(context.start("echo", format!("{n}").as_bytes())?);
    }
    let mut text = String::new();
    while let Some(call) = calls.pop() {
        text += &String::from_utf8_lossy(&context.wait(call)?);
    }
    Ok(text)
}

#[nightcore::function]
fn forgets_a_call(context: &Context) -> Result<(), Error> {
    drop(context.start("echo", b"x")?);
    let _unwaited = context.start("echo", b"y")?;
    panic!("with a call in flight")
}

#[test]
fn a_function_without_arguments_answers_nothing() {
    let recorder = run(__nightcore_call_nothing, b"ignored");
    assert_eq!((recorder.code, recorder.output.len()), (0, 0));
    assert_eq!(recorder.failure, None);
}

#[test]
fn bytes_and_text_come_in_and_go_out() {
    assert_eq!(run(__nightcore_call_borrowed, b"\xffabc").output, b"\xffabc");
    assert_eq!(run(__nightcore_call_shout, b"abc").output, b"ABC");
    assert_eq!(run(__nightcore_call_constant, b"").output, b"constant");
}

#[test]
fn input_that_is_not_text_is_a_bad_request() {
    let (kind, message) = run(__nightcore_call_shout, b"\xff").failure.unwrap();
    assert_eq!(kind, ErrorKind::BadRequest as c_int);
    assert!(message.contains("not text"), "{message}");
}

#[test]
fn a_request_shows_what_http_said_and_a_response_says_more_than_bytes() {
    let recorder = run(__nightcore_call_described, b"");
    let text = String::from_utf8(recorder.output).unwrap();
    assert_eq!(text, "POST /a/b x=1 wrk 2 request-7 3");
    assert_eq!(recorder.status, Some(201));
    assert_eq!(recorder.content_type, "text/plain; charset=utf-8");
    assert_eq!(recorder.headers, [("X-One".to_owned(), "1".to_owned())]);
}

#[test]
fn a_status_the_runtime_refuses_fails_the_call() {
    let (kind, message) = run(__nightcore_call_bad_status, b"").failure.unwrap();
    assert_eq!(kind, ErrorKind::FunctionError as c_int);
    assert!(message.contains("99"), "{message}");
}

#[test]
fn any_error_type_fails_the_call_with_its_text() {
    assert_eq!(run(__nightcore_call_parses, b"7").output, [7]);
    let (kind, message) = run(__nightcore_call_parses, b"seven").failure.unwrap();
    assert_eq!(kind, ErrorKind::FunctionError as c_int);
    assert!(message.contains("invalid digit"), "{message}");
}

#[test]
fn a_panic_ends_at_the_edge_with_its_message() {
    let (kind, message) = run(__nightcore_call_panics, b"bad").failure.unwrap();
    assert_eq!((kind, message.as_str()), (ErrorKind::FunctionPanic as c_int, "it was bad"));
}

#[test]
fn a_call_gives_the_answer_and_releases_it() {
    for entry in [__nightcore_call_passes_on as Entry, __nightcore_call_answers_with_an_answer] {
        let recorder = run(entry, b"hello");
        assert_eq!(recorder.output, b"hello");
        assert_eq!((recorder.started, recorder.released), (1, 1));
    }
}

#[test]
fn the_kind_of_a_failed_call_survives_the_question_mark() {
    let recorder = run(__nightcore_call_calls_what_fails, b"");
    let (kind, message) = recorder.failure.unwrap();
    assert_eq!((kind, message.as_str()), (ErrorKind::TooDeep as c_int, ""));
    assert_eq!((recorder.started, recorder.released), (1, 1));
}

#[test]
fn many_calls_are_in_flight_and_waited_for_in_any_order() {
    let recorder = run(__nightcore_call_waits_in_reverse, b"");
    assert_eq!(recorder.output, b"9876543210");
    assert_eq!((recorder.started, recorder.released), (10, 10));
}

#[nightcore::function]
fn talks(context: &Context, name: &str) {
    context.log("hello");
    context.log(format_args!("it is {name}"));
}

#[test]
fn what_is_logged_reaches_the_runtime() {
    assert_eq!(run(__nightcore_call_talks, b"Ada").logged, ["hello", "it is Ada"]);
}

#[test]
fn a_panic_is_logged_once_with_its_place_and_only_while_its_call_runs() {
    let recorder = run(__nightcore_call_panics, b"bad");
    let [line] = &recorder.logged[..] else { panic!("{:?}", recorder.logged) };
    assert!(line.starts_with("panicked at funclib/tests/sdk.rs:"), "{line}");
    assert!(line.lines().next().unwrap().ends_with(": it was bad"), "{line}");
    // Its context is gone; nobody may be told.
    assert!(std::panic::catch_unwind(|| panic!("on its own")).is_err());
    assert_eq!(run(__nightcore_call_nothing, b"").logged, [] as [String; 0]);
}

#[test]
fn calls_nobody_waits_for_are_released_even_by_a_panic() {
    let recorder = run(__nightcore_call_forgets_a_call, b"");
    assert_eq!((recorder.started, recorder.released), (2, 2));
    assert_eq!(recorder.failure.unwrap().1, "with a call in flight");
}

#[test]
fn a_table_that_is_too_small_is_refused() {
    let mut small = HOST;
    small.size = 8;
    // SAFETY: the function must return before it uses the (null) context of a table this small.
    let code = unsafe {
        __nightcore_call_nothing(
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &small,
            std::ptr::null(),
            0,
        )
    };
    assert_eq!(code, nightcore::abi::INVALID);
}
