//! The worker's loop against an engine: what a function of this process does over a real channel.

#![allow(clippy::unwrap_used)]

mod engine;

use std::sync::Barrier;

use engine::Engine;
use ipc::envelope::RequestFields;
use ipc::{Outcome, ToEngine, ToWorker};
use nightcore::{CallError, Context, Error, Request, Response};

const MIB: u32 = 1 << 20;

#[nightcore::function]
fn nop() {}

#[nightcore::function]
fn echo(input: &[u8]) -> &[u8] {
    input
}

#[nightcore::function]
fn panics(input: &str) -> String {
    assert!(input != "now", "it was {input}");
    input.to_owned()
}

#[nightcore::function]
fn described(context: &Context, request: Request<'_>) -> Result<Response, Error> {
    let accept = request.header("accept").ok_or_else(|| Error::bad_request("no Accept"))?;
    let text = format!(
        "{} {} {} {} {} {} {} {}",
        request.method(),
        request.suffix(),
        request.query(),
        String::from_utf8_lossy(accept),
        context.request_id(),
        context.traceparent(),
        context.depth(),
        context.function(),
    );
    let mut response = Response::text(text).status(418);
    for n in 0..request.body().len() {
        response = response.header(format!("X-{n}"), "v".repeat(100));
    }
    Ok(response)
}

#[nightcore::function]
fn starts_and_waits_in_reverse(context: &Context, input: &[u8]) -> Result<Vec<u8>, Error> {
    let start = |byte: &u8| context.start("echo", &[*byte]);
    let mut calls: Vec<_> = input.iter().map(start).collect::<Result<_, _>>()?;
    let mut answers = Vec::new();
    while let Some(call) = calls.pop() {
        answers.extend_from_slice(&call.wait()?);
    }
    Ok(answers)
}

#[nightcore::function]
fn keeps_all_answers(context: &Context, input: &[u8]) -> Result<Vec<u8>, Error> {
    let call = |byte: &u8| context.call("echo", &[*byte]);
    let answers: Vec<_> = input.iter().map(call).collect::<Result<_, _>>()?;
    assert!(answers.iter().all(|answer| answer.content_type() == "text/plain"));
    Ok(answers.iter().flat_map(|answer| answer.to_vec()).collect())
}

#[nightcore::function]
fn forgets(context: &Context) -> Result<String, Error> {
    drop(context.start("echo", b"dropped")?);
    std::mem::forget(context.start("echo", b"forgotten")?);
    std::mem::forget(context.call("echo", b"answered")?);
    Ok("done".to_owned())
}

#[nightcore::function]
fn relays(context: &Context, input: &[u8]) -> Result<Vec<u8>, CallError> {
    context.call("other", input).map(|answer| answer.to_vec())
}

#[nightcore::function]
fn runs_until_cancelled(context: &Context) -> &'static str {
    while !context.is_cancelled() {
        std::thread::yield_now();
    }
    "cancelled"
}

#[nightcore::function]
fn answers_too_much() -> Vec<u8> {
    vec![0; 4097]
}

#[nightcore::function]
fn calls_with_too_much(context: &Context) -> Result<(), CallError> {
    context.call("echo", &[0; 4097]).map(drop)
}

#[nightcore::function]
fn calls_nobody(context: &Context) -> Result<(), CallError> {
    context.call("", b"").map(drop)
}

#[nightcore::function]
fn sends_large_inputs(context: &Context) -> Result<String, CallError> {
    let input = vec![7; 200 << 10];
    let calls: Vec<_> = (0..40).map(|_| context.start("size", &input)).collect();
    let mut total = 0;
    for call in calls {
        total += call?.wait()?.len();
    }
    Ok(total.to_string())
}

#[test]
fn a_function_that_answers_nothing_completes_with_nothing() {
    let mut engine = Engine::with_entry(MIB, __nightcore_call_nop);
    for _ in 0..200 {
        let completion = engine.run(b"ignored");
        assert_eq!((completion.outcome, completion.payload.len()), (Outcome::Ok, 0));
    }
    engine.retire().unwrap();
}

#[test]
fn echo_returns_every_byte_of_inputs_from_1_b_to_8_mib() {
    let mut engine = Engine::with_entry(8 * MIB, __nightcore_call_echo);
    for size in [0, 1, 255, 256, 257, 1024, 65_000, 65_537, 1 << 20, 3_000_001, 8 << 20] {
        let input: Vec<u8> = (0..size).map(|n: u32| (n * 31 % 251) as u8).collect();
        let completion = engine.run(&input);
        assert_eq!(completion.outcome, Outcome::Ok);
        assert!(completion.payload == input, "{size} bytes came back changed");
    }
    engine.retire().unwrap();
}

#[test]
fn a_panic_fails_its_call_and_the_worker_goes_on() {
    let mut engine = Engine::with_entry(MIB, __nightcore_call_panics);
    let completion = engine.run(b"now");
    assert_eq!((completion.outcome, completion.text()), (Outcome::FunctionPanic, "it was now"));
    assert_eq!(engine.run(b"later").text(), "later");
    assert_eq!(engine.run(b"\xff").outcome, Outcome::BadRequest);
    engine.retire().unwrap();
}

#[test]
fn request_fields_reach_the_function_and_response_fields_the_engine() {
    let mut engine = Engine::with_entry(MIB, __nightcore_call_described);
    // The last ones need more room before the payload than there is, so the payload moves.
    for count in [0, 1, 2, 3, 60] {
        let headers = [(&b"Accept"[..], &b"text/html"[..]), (b"X", b"y")];
        let fields = RequestFields {
            method: b"GET",
            suffix: b"/a",
            query: b"b=c",
            request_id: b"r1",
            traceparent: b"00-t",
            headers: headers.into_iter(),
        };
        engine.dispatch_request(fields, &vec![0; count]);
        let completion = engine.completed();
        assert_eq!(completion.text(), "GET /a b=c text/html r1 00-t 2 tested");
        assert_eq!(completion.outcome, Outcome::Ok);
        assert_eq!(completion.status, Some(418));
        assert_eq!(completion.content_type, "text/plain; charset=utf-8");
        assert_eq!(completion.headers.len(), count);
        for (n, (name, value)) in completion.headers.iter().enumerate() {
            assert_eq!((name, value), (&format!("X-{n}"), &"v".repeat(100)));
        }
    }
    let completion = engine.run(b"");
    assert_eq!((completion.outcome, completion.text()), (Outcome::BadRequest, "no Accept"));
    assert_eq!((completion.status, completion.content_type.as_str()), (None, ""));
    engine.retire().unwrap();
}

#[test]
fn calls_in_flight_are_answered_in_any_order() {
    let mut engine = Engine::with_entry(MIB, __nightcore_call_starts_and_waits_in_reverse);
    for round in 0..20 {
        engine.dispatch(b"0123456789");
        let mut asked: Vec<_> = (0..10).map(|_| engine.asked_next()).collect();
        asked.rotate_left(round % 10);
        for asked in asked {
            assert_eq!(asked.function, "echo");
            engine.answer(asked.token, Outcome::Ok, &asked.input);
        }
        assert_eq!(engine.completed().text(), "9876543210");
    }
    engine.retire().unwrap();
}

#[test]
fn more_calls_than_the_channel_takes_wait_for_answers() {
    let mut engine = Engine::with_entry(MIB, __nightcore_call_starts_and_waits_in_reverse);
    let input: Vec<u8> = (0..200).collect();
    engine.dispatch(&input);
    let asked: Vec<_> = (0..48).map(|_| engine.asked_next()).collect();
    // The 49th is not started before one of these is answered.
    assert!(!engine.channel.has_ready());
    for asked in asked {
        engine.answer(asked.token, Outcome::Ok, &asked.input);
    }
    let completion = loop {
        match engine.next() {
            engine::Said::Asked(asked) => engine.answer(asked.token, Outcome::Ok, &asked.input),
            engine::Said::Completed(completion) => break completion,
        }
    };
    assert!(completion.payload.iter().eq(input.iter().rev()));
    engine.retire().unwrap();
}

#[test]
fn a_function_may_keep_more_answers_than_the_channel_has_tokens() {
    let mut engine = Engine::with_entry(MIB, __nightcore_call_keeps_all_answers);
    let input: Vec<u8> = (0..250).collect();
    for _ in 0..3 {
        assert!(engine.run(&input).payload == input);
    }
    engine.retire().unwrap();
}

#[test]
fn calls_left_in_flight_are_answered_before_the_function_is_and_leak_nothing() {
    let mut engine = Engine::with_entry(MIB, __nightcore_call_forgets);
    for _ in 0..100 {
        engine.dispatch(b"");
        let (dropped, forgotten) = (engine.asked_next(), engine.asked_next());
        let answered = engine.asked_next();
        engine.answer(answered.token, Outcome::Ok, b"x");
        engine.answer(forgotten.token, Outcome::Ok, b"x");
        engine.answer(dropped.token, Outcome::Cancelled, b"");
        assert_eq!(engine.completed().text(), "done");
    }
    engine.retire().unwrap();
}

#[test]
fn a_failed_call_fails_the_caller_with_the_callees_words() {
    let mut engine = Engine::with_entry(MIB, __nightcore_call_relays);
    for (outcome, inherited) in [
        (Outcome::NotFound, Outcome::FunctionError),
        (Outcome::ContainerDied, Outcome::FunctionError),
        (Outcome::TooDeep, Outcome::TooDeep),
        (Outcome::DeadlineExceeded, Outcome::DeadlineExceeded),
    ] {
        engine.dispatch(b"input");
        let asked = engine.asked_next();
        assert_eq!((asked.function.as_str(), asked.input.as_slice()), ("other", &b"input"[..]));
        engine.answer(asked.token, outcome, b"because");
        let completion = engine.completed();
        assert_eq!(completion.outcome, inherited);
        assert!(completion.text().ends_with("because"), "{}", completion.text());
    }
    engine.retire().unwrap();
}

#[test]
fn a_running_function_learns_that_it_is_cancelled() {
    let mut engine = Engine::with_entry(MIB, __nightcore_call_runs_until_cancelled);
    let first = engine.dispatch(b"");
    engine.publish(&ToWorker::Cancel { call: first });
    assert_eq!(engine.completed().text(), "cancelled");
    // Of a call that is over, and so none of the next one's business.
    engine.publish(&ToWorker::Cancel { call: first });
    let second = engine.dispatch(b"");
    engine.publish(&ToWorker::Cancel { call: first });
    engine.publish(&ToWorker::Cancel { call: second });
    assert_eq!(engine.completed().text(), "cancelled");
    engine.retire().unwrap();
}

#[test]
fn what_exceeds_the_limit_fails_and_is_never_cut() {
    let mut engine = Engine::with_entry(4096, __nightcore_call_answers_too_much);
    assert_eq!(engine.run(b"").outcome, Outcome::TooLarge);
    engine.retire().unwrap();
    let mut engine = Engine::with_entry(4096, __nightcore_call_calls_with_too_much);
    let completion = engine.run(b"");
    assert_eq!(completion.outcome, Outcome::FunctionError);
    assert!(completion.text().contains("payload_too_large"), "{}", completion.text());
    engine.retire().unwrap();
    let mut engine = Engine::with_entry(4096, __nightcore_call_echo);
    assert_eq!(engine.run(&[1; 4096]).payload, [1; 4096]);
    engine.retire().unwrap();
}

#[test]
fn a_call_without_a_name_is_refused_and_nothing_is_sent() {
    let mut engine = Engine::with_entry(MIB, __nightcore_call_calls_nobody);
    let completion = engine.run(b"");
    assert!(completion.text().contains("bad_request"), "{}", completion.text());
    engine.retire().unwrap();
}

#[test]
fn inputs_that_fill_the_memory_wait_for_answers() {
    // The arena has room for four payloads and envelopes of 64 KiB: 21 inputs of this size.
    let mut engine = Engine::with_entry(MIB, __nightcore_call_sends_large_inputs);
    engine.dispatch(b"");
    let asked: Vec<_> = (0..21).map(|_| engine.asked_next()).collect();
    assert!(!engine.channel.has_ready());
    for asked in asked {
        assert!(asked.input.iter().all(|byte| *byte == 7) && asked.input.len() == 200 << 10);
        engine.answer(asked.token, Outcome::Ok, b"x");
    }
    let completion = loop {
        match engine.next() {
            engine::Said::Asked(asked) => engine.answer(asked.token, Outcome::Ok, b"x"),
            engine::Said::Completed(completion) => break completion,
        }
    };
    assert_eq!(completion.text(), "40");
    engine.retire().unwrap();
}

#[nightcore::function]
fn calls_all(context: &Context, input: &[u8]) -> Result<Vec<u8>, CallError> {
    let calls = input.iter().map(|byte| ("echo", std::slice::from_ref(byte)));
    let answers = context.call_all(calls).into_iter();
    answers.map(|answer| answer.map(|answer| answer[0])).collect()
}

#[test]
fn calls_that_wait_in_the_lane_run_in_order_and_their_results_stay_until_they_are_read() {
    let mut engine = Engine::with_entry(MIB, __nightcore_call_echo);
    for round in 0..50u8 {
        for n in 0..8 {
            engine.dispatch(&[round, n]);
        }
        for n in 0..8 {
            assert_eq!(engine.completed().payload, [round, n]);
        }
    }
    engine.retire().unwrap();
}

/// Keeps a function from going on until the test has filled its lane.
static LANE_FILLED: Barrier = Barrier::new(2);

#[nightcore::function]
fn calls_all_once_the_lane_is_filled(
    context: &Context,
    input: &[u8],
) -> Result<Vec<u8>, CallError> {
    if input == b"abc" {
        LANE_FILLED.wait();
    }
    calls_all(context, input)
}

#[test]
fn a_worker_that_waits_declines_the_calls_behind_the_last_first() {
    let mut engine = Engine::with_entry(MIB, __nightcore_call_calls_all_once_the_lane_is_filled);
    engine.dispatch(b"abc");
    let [behind, last] = [engine.dispatch(b"d"), engine.dispatch(b"e")];
    LANE_FILLED.wait();
    let asked: Vec<_> = (0..3).map(|_| engine.asked_next()).collect();
    assert_eq!(engine.receive(), ToEngine::Decline { call: last });
    assert_eq!(engine.receive(), ToEngine::Decline { call: behind });
    for asked in asked.into_iter().rev() {
        engine.answer(asked.token, Outcome::Ok, &asked.input);
    }
    engine.take_back(2);
    assert_eq!(engine.completed().payload, b"abc");
    assert_eq!(engine.run(b"xyz").payload, b"xyz");
    engine.retire().unwrap();
}
