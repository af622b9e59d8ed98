//! Calls and engines that are right, late, full, lost, lying or not sane.

use std::time::Duration;

use ipc::Outcome;
use protocol::message::{LoadState, Repeat, Started};
use reactor::clock;

use super::call::ATTEMPTS_MAX;
use super::stage::{Hearing, PAYLOAD_MAX, QUEUE, Stage, function, load};

const NEVER: Repeat = Repeat::Never;
const IDEMPOTENT: Repeat = Repeat::Idempotent;
const SHORT: Option<Duration> = Some(Duration::from_millis(20));

#[test]
fn a_call_reaches_an_engine_and_its_answer_comes_back() {
    let mut stage = Stage::with_engines(1, 8, NEVER);
    let small = stage.call("echo", b"hello").unwrap();
    let heard = stage.heard(0);
    assert_eq!((heard.head.function, heard.body.as_slice()), (1, &b"hello"[..]));
    assert!(heard.head.timeout_ns <= 60_000_000_000);
    stage.engines[0].echo(&heard);
    assert_eq!(stage.answer(small), (Outcome::Ok, b"hello".to_vec()));
    let body = vec![7; PAYLOAD_MAX as usize];
    let large = stage.call("echo", &body).unwrap();
    let heard = stage.heard(0);
    stage.engines[0].echo(&heard);
    assert_eq!(stage.answer(large), (Outcome::Ok, body));
    assert!(stage.remote.is_idle());
}

#[test]
fn what_no_engine_has_and_what_none_would_take_is_refused_here() {
    let mut stage = Stage::with_engines(1, 8, NEVER);
    assert_eq!(stage.remote.resolve(b"other"), None);
    let body = vec![0; PAYLOAD_MAX as usize + 1];
    assert_eq!(stage.call("echo", &body).unwrap_err().outcome, Outcome::TooLarge);
    stage.engines[0].announce(&[]);
    stage.until("it is gone", |stage| stage.remote.resolve(b"echo").is_none());
}

#[test]
fn calls_wait_in_order_while_all_are_full_and_the_queue_has_an_end() {
    let mut stage = Stage::with_engines(1, 1, NEVER);
    let bodies = 0..=u8::try_from(QUEUE).unwrap();
    let calls: Vec<_> = bodies.map(|body| (body, stage.call("echo", &[body]).unwrap())).collect();
    let refusal = stage.call("echo", b"one too many").unwrap_err();
    assert_eq!((refusal.outcome, refusal.retry_after_s), (Outcome::Overloaded, Some(1)));
    for (body, call) in calls {
        let heard = stage.heard(0);
        assert_eq!(heard.body, [body]);
        assert!(stage.engines[0].calls.is_empty(), "more calls than it has room for");
        stage.engines[0].echo(&heard);
        assert_eq!(stage.answer(call).0, Outcome::Ok);
    }
}

#[test]
fn a_call_that_waits_ends_at_its_deadline_and_the_next_one_moves_up() {
    let mut stage = Stage::with_engines(1, 1, NEVER);
    let first = stage.call("echo", b"1").unwrap();
    let second = stage.call_within("echo", b"2", SHORT).unwrap();
    let third = stage.call("echo", b"3").unwrap();
    assert_eq!(stage.answer(second).0, Outcome::DeadlineExceeded);
    let heard = stage.heard(0);
    stage.engines[0].echo(&heard);
    assert_eq!(stage.answer(first).1, b"1");
    assert_eq!(stage.heard(0).body, b"3");
    assert!(stage.answers(third).is_empty());
}

#[test]
fn a_refused_call_goes_to_another_engine() {
    let mut stage = Stage::with_engines(2, 8, NEVER);
    let call = stage.call("echo", b"x").unwrap();
    let first = stage.holder();
    let heard = stage.heard(first);
    stage.engines[first].say(heard.stream, Outcome::Overloaded, Started::No, b"full");
    let second = stage.holder();
    assert_ne!(first, second);
    let heard = stage.heard(second);
    stage.engines[second].echo(&heard);
    assert_eq!(stage.answer(call), (Outcome::Ok, b"x".to_vec()));
}

#[test]
fn a_call_that_all_refuse_is_refused_with_their_words() {
    let mut stage = Stage::with_engines(1, 8, NEVER);
    let call = stage.call("echo", b"x").unwrap();
    for _ in 0..ATTEMPTS_MAX {
        let heard = stage.heard(0);
        stage.engines[0].say(heard.stream, Outcome::Overloaded, Started::No, b"full");
    }
    assert_eq!(stage.answer(call), (Outcome::Overloaded, b"full".to_vec()));
    assert!(stage.engines[0].calls.is_empty());
}

#[test]
fn an_engine_that_is_full_is_tried_again_when_one_of_its_calls_ends() {
    let mut stage = Stage::with_engines(1, 8, NEVER);
    let calls = [stage.call("echo", b"x").unwrap(), stage.call("echo", b"y").unwrap()];
    let (first, second) = (stage.heard(0), stage.heard(0));
    stage.engines[0].say(second.stream, Outcome::Overloaded, Started::No, b"full");
    stage.until("it is full", |stage| stage.room("echo") == 0);
    stage.engines[0].echo(&first);
    let again = stage.heard(0);
    assert_eq!(again.body, b"y");
    stage.engines[0].echo(&again);
    for call in calls {
        assert_eq!(stage.answer(call).0, Outcome::Ok);
    }
}

#[test]
fn what_a_function_answers_is_final_even_when_it_is_a_refusal() {
    let mut stage = Stage::with_engines(2, 8, NEVER);
    let call = stage.call("echo", b"x").unwrap();
    let engine = stage.holder();
    let heard = stage.heard(engine);
    stage.engines[engine].say(heard.stream, Outcome::Unavailable, Started::Perhaps, b"no");
    assert_eq!(stage.answer(call), (Outcome::Unavailable, b"no".to_vec()));
}

#[test]
fn a_lost_engine_fails_its_calls_and_no_others() {
    let mut stage = Stage::with_engines(2, 8, NEVER);
    let calls: Vec<_> = (0..8).map(|_| stage.call("echo", b"x").unwrap()).collect();
    stage.until("all are out", |stage| {
        stage.engines.iter().map(|engine| engine.calls.len()).sum::<usize>() == 8
    });
    let there = stage.engines[0].calls.len();
    assert_eq!(there, 4, "equal engines get equal parts");
    stage.kill(0);
    stage.until("it is gone", |stage| stage.remote.links() == 1);
    for _ in 0..8 - there {
        let heard = stage.heard(1);
        stage.engines[1].echo(&heard);
    }
    let outcomes: Vec<_> = calls.iter().map(|call| stage.answer(*call).0).collect();
    let count = |outcome| outcomes.iter().filter(|other| **other == outcome).count();
    assert_eq!((count(Outcome::Ok), count(Outcome::HostLost)), (4, 4));
    assert!(calls.iter().all(|call| stage.answers(*call).len() == 1));
}

#[test]
fn an_idempotent_call_goes_on_elsewhere_when_its_engine_is_lost() {
    let mut stage = Stage::with_engines(2, 8, IDEMPOTENT);
    let call = stage.call("echo", b"x").unwrap();
    let first = stage.holder();
    stage.kill(first);
    let second = 1 - first;
    let heard = stage.heard(second);
    stage.engines[second].echo(&heard);
    assert_eq!(stage.answer(call), (Outcome::Ok, b"x".to_vec()));
}

#[test]
fn an_idempotent_call_ends_no_more_than_three_engines() {
    let mut stage = Stage::with_engines(4, 8, IDEMPOTENT);
    let call = stage.call("echo", b"x").unwrap();
    for _ in 0..ATTEMPTS_MAX {
        let engine = stage.holder();
        stage.heard(engine);
        stage.kill(engine);
    }
    assert_eq!(stage.answer(call).0, Outcome::HostLost);
    assert_eq!(stage.remote.links(), 1);
}

#[test]
fn a_call_of_which_nothing_has_left_goes_elsewhere_whatever_it_does() {
    let mut stage = Stage::with_engines(2, 8, NEVER);
    let call = stage.call("echo", b"x").unwrap();
    // Not flushed yet: the loss is seen before anything was given to the kernel.
    let on_first = stage.remote.peers[0].link.unsent_calls().count();
    let first = if on_first == 1 { 0 } else { 1 };
    let key = stage.remote.peers[first].key;
    let loss = super::peer::Loss::Replaced;
    stage.remote.lose(&mut stage.reactor, clock::now(), key, loss);
    let second = 1 - first;
    let heard = stage.heard(second);
    stage.engines[second].echo(&heard);
    assert_eq!(stage.answer(call), (Outcome::Ok, b"x".to_vec()));
    assert!(stage.engines[first].calls.is_empty());
}

#[test]
fn an_engine_that_says_nothing_any_more_is_lost_by_its_heartbeat() {
    let mut stage = Stage::with_engines(2, 8, NEVER);
    let call = stage.call("echo", b"x").unwrap();
    let engine = stage.holder();
    stage.engines[engine].hearing = Hearing::Deaf;
    assert_eq!(stage.answer(call).0, Outcome::HostLost);
    assert_eq!(stage.remote.links(), 1);
    let mut text = String::new();
    stage.remote.write_metrics(&mut text);
    assert!(text.contains("links_lost_total{shard=\"0\",reason=\"heartbeat\"} 1\n"), "{text}");
}

#[test]
fn an_answer_that_never_comes_is_a_504_and_one_that_comes_late_is_nobodys() {
    let mut stage = Stage::with_engines(1, 8, NEVER);
    let call = stage.call_within("echo", b"x", SHORT).unwrap();
    let heard = stage.heard(0);
    assert_eq!(stage.answer(call).0, Outcome::DeadlineExceeded);
    stage.until("it is told", |stage| stage.engines[0].cancels == [heard.stream]);
    stage.engines[0].echo(&heard);
    // The link lives on, and the answer has gone to nobody.
    let next = stage.call("echo", b"y").unwrap();
    let heard = stage.heard(0);
    stage.engines[0].echo(&heard);
    assert_eq!(stage.answer(next), (Outcome::Ok, b"y".to_vec()));
    assert_eq!(stage.answers(call).len(), 1);
}

#[test]
fn a_cancelled_call_is_taken_back_and_its_answer_is_nobodys() {
    let mut stage = Stage::with_engines(1, 1, NEVER);
    let (call, waits) = (stage.call("echo", b"x").unwrap(), stage.call("echo", b"y").unwrap());
    let last = stage.call("echo", b"z").unwrap();
    let heard = stage.heard(0);
    stage.remote.cancel(&mut stage.reactor, clock::now(), waits.id);
    stage.remote.cancel(&mut stage.reactor, clock::now(), call.id);
    stage.remote.cancel(&mut stage.reactor, clock::now(), call.id);
    stage.engines[0].echo(&heard);
    let heard = stage.heard(0);
    assert_eq!(heard.body, b"z");
    assert_eq!(stage.engines[0].cancels.len(), 1);
    stage.engines[0].echo(&heard);
    assert_eq!(stage.answer(last).0, Outcome::Ok);
    assert!(stage.answers(call).is_empty() && stage.answers(waits).is_empty());
    assert!(stage.remote.is_idle());
}

/// An engine that does `what` with a call of its own loses its link and that call; a call at another
/// engine is answered as if nothing had been.
fn is_closed_for(reason: &str, what: impl FnOnce(&mut Stage, usize, u64)) {
    let mut stage = Stage::with_engines(2, 8, NEVER);
    let calls = [stage.call("echo", b"x").unwrap(), stage.call("echo", b"x").unwrap()];
    let (bad, good) = (stage.heard(0), stage.heard(1));
    what(&mut stage, 0, bad.stream);
    stage.until("it is closed", |stage| stage.remote.links() == 1);
    stage.until("it knows", |stage| stage.engines[0].ended.is_some());
    let told = stage.engines[0].ended.clone().unwrap();
    assert!(told.contains(reason), "{told:?} does not say {reason:?}");
    stage.engines[1].echo(&good);
    let mut outcomes = calls.map(|call| stage.answer(call).0);
    outcomes.sort_by_key(|outcome| *outcome as u8);
    assert_eq!(outcomes, [Outcome::Ok, Outcome::HostLost]);
    assert!(calls.iter().all(|call| stage.answers(*call).len() == 1));
}

#[test]
fn an_answer_to_nothing_ends_the_link() {
    is_closed_for("there is no call", |stage, engine, stream| {
        stage.engines[engine].say(stream ^ 1, Outcome::Ok, Started::Perhaps, b"");
    });
    is_closed_for("there is no call", |stage, engine, _| {
        stage.engines[engine].say(1 << 63, Outcome::Ok, Started::Perhaps, b"");
    });
}

#[test]
fn an_answer_to_another_engines_call_ends_the_link() {
    let mut stage = Stage::with_engines(2, 8, NEVER);
    let calls = [stage.call("echo", b"x").unwrap(), stage.call("echo", b"x").unwrap()];
    let (bad, good) = (stage.heard(0), stage.heard(1));
    stage.engines[0].say(good.stream, Outcome::Ok, Started::Perhaps, b"stolen");
    stage.until("it is closed", |stage| stage.remote.links() == 1);
    stage.engines[1].echo(&good);
    let bodies = calls.map(|call| stage.answer(call));
    assert!(bodies.contains(&(Outcome::Ok, b"x".to_vec())), "{bodies:?}");
    assert!(bodies.contains(&(Outcome::HostLost, Vec::new())), "{bodies:?}");
    assert_ne!(bad.stream, good.stream);
}

#[test]
fn a_second_answer_ends_the_link() {
    let mut stage = Stage::with_engines(1, 8, NEVER);
    let call = stage.call("echo", b"x").unwrap();
    let heard = stage.heard(0);
    stage.engines[0].echo(&heard);
    stage.engines[0].echo(&heard);
    assert_eq!(stage.answer(call).0, Outcome::Ok);
    stage.until("it is closed", |stage| stage.remote.links() == 0);
    assert_eq!(stage.answers(call).len(), 1);
}

#[test]
fn answers_that_are_none_end_the_link() {
    is_closed_for("without having started", |stage, engine, stream| {
        stage.engines[engine].say(stream, Outcome::Ok, Started::No, b"");
    });
    is_closed_for("envelope are wrong", |stage, engine, stream| {
        stage.engines[engine].say_envelope(stream, 4, b"\xff\xff\xff\xff");
    });
}

#[test]
fn an_answer_above_the_limit_is_an_error_and_its_link_lives_on() {
    let mut stage = Stage::with_engines(1, 8, NEVER);
    let call = stage.call("echo", b"x").unwrap();
    let heard = stage.heard(0);
    let body = vec![0; PAYLOAD_MAX as usize + 1];
    stage.engines[0].say(heard.stream, Outcome::Ok, Started::Perhaps, &body);
    assert_eq!(stage.answer(call).0, Outcome::FunctionError);
    let next = stage.call("echo", b"y").unwrap();
    let heard = stage.heard(0);
    stage.engines[0].echo(&heard);
    assert_eq!(stage.answer(next), (Outcome::Ok, b"y".to_vec()));
}

#[test]
fn reports_and_announcements_that_make_no_sense_end_the_link() {
    is_closed_for("not announced", |stage, engine, _| {
        stage.engines[engine].report(&[load(99, 1, LoadState::Serving)]);
    });
    is_closed_for("twice", |stage, engine, _| {
        let twice = [function(2, "a", 1, NEVER), function(2, "b", 1, NEVER)];
        stage.engines[engine].announce(&twice);
    });
    is_closed_for("another name", |stage, engine, _| {
        stage.engines[engine].announce(&[function(1, "other", 1, NEVER)]);
    });
}

#[test]
fn garbage_ends_the_link() {
    is_closed_for("", |stage, engine, _| stage.engines[engine].write_raw(&[0xff; 64]));
}

#[test]
fn a_broken_function_is_passed_over_and_refused_when_it_is_broken_everywhere() {
    let mut stage = Stage::with_engines(2, 8, NEVER);
    stage.engines[0].report(&[load(1, 8, LoadState::Broken)]);
    stage.until("it is known", |stage| stage.room("echo") == 8);
    for _ in 0..4 {
        stage.call("echo", b"x").unwrap();
        stage.heard(1);
    }
    stage.engines[1].report(&[load(1, 8, LoadState::Broken)]);
    stage.until("it is known", |stage| stage.room("echo") == 0);
    assert_eq!(stage.call("echo", b"x").unwrap_err().outcome, Outcome::BreakerOpen);
    stage.engines[0].report(&[load(1, 8, LoadState::Serving)]);
    stage.until("it is known", |stage| stage.room("echo") > 0);
    stage.call("echo", b"x").unwrap();
    stage.heard(0);
}

#[test]
fn a_draining_engine_gets_nothing_new_and_ends_what_it_has() {
    let mut stage = Stage::with_engines(2, 8, NEVER);
    let calls = [stage.call("echo", b"x").unwrap(), stage.call("echo", b"x").unwrap()];
    let held = [stage.heard(0), stage.heard(1)];
    stage.engines[0].say_draining();
    stage.until("it is known", |stage| stage.room("echo") == 7);
    for _ in 0..4 {
        let call = stage.call("echo", b"y").unwrap();
        let heard = stage.heard(1);
        stage.engines[1].echo(&heard);
        assert_eq!(stage.answer(call).0, Outcome::Ok);
    }
    for (engine, heard) in held.iter().enumerate() {
        stage.engines[engine].echo(heard);
    }
    for call in calls {
        assert_eq!(stage.answer(call).0, Outcome::Ok);
    }
    stage.bye(0);
    stage.until("it has left", |stage| stage.remote.links() == 1);
}

#[test]
fn a_call_waits_a_moment_for_an_engine_that_comes_back() {
    let mut stage = Stage::with_engines(1, 8, NEVER);
    stage.kill(0);
    stage.until("it is gone", |stage| stage.remote.links() == 0);
    let call = stage.call("echo", b"x").unwrap();
    let engine = stage.join("host-0", 2).unwrap();
    stage.engines[engine].announce(&[function(5, "echo", 8, NEVER)]);
    // On a machine that is held up for a second, the moment is over first.
    stage.until("it came or was failed", |stage| {
        !stage.engines[engine].calls.is_empty() || !stage.answers(call).is_empty()
    });
    if stage.answers(call).is_empty() {
        let heard = stage.heard(engine);
        stage.engines[engine].echo(&heard);
        assert_eq!(stage.answer(call).0, Outcome::Ok);
    } else {
        assert_eq!(stage.answer(call).0, Outcome::Unavailable);
    }
}

#[test]
fn calls_do_not_wait_for_ever_for_engines_that_stay_away() {
    let mut stage = Stage::with_engines(1, 8, NEVER);
    stage.kill(0);
    stage.until("it is gone", |stage| stage.remote.links() == 0);
    let call = stage.call("echo", b"x").unwrap();
    assert_eq!(stage.answer(call).0, Outcome::Unavailable);
    let refusal = stage.call("echo", b"x").unwrap_err();
    assert_eq!((refusal.outcome, refusal.retry_after_s), (Outcome::Unavailable, Some(1)));
}

#[test]
fn a_link_of_a_higher_epoch_replaces_one_and_a_lower_one_is_refused() {
    let mut stage = Stage::with_engines(1, 8, NEVER);
    let call = stage.call("echo", b"x").unwrap();
    let old = stage.heard(0);
    assert!(stage.join("host-0", 1).is_err());
    assert!(stage.join("host-0", 0).is_err());
    let engine = stage.join("host-0", 2).unwrap();
    stage.engines[engine].announce(&[function(1, "echo", 8, NEVER)]);
    assert_eq!(stage.answer(call).0, Outcome::HostLost);
    assert_eq!(stage.remote.links(), 1);
    let next = stage.call("echo", b"y").unwrap();
    let heard = stage.heard(engine);
    assert_ne!(heard.stream, old.stream);
    stage.engines[engine].echo(&heard);
    assert_eq!(stage.answer(next), (Outcome::Ok, b"y".to_vec()));
}

#[test]
fn a_function_that_is_taken_away_ends_its_calls_before_it_goes() {
    let mut stage = Stage::with_engines(1, 8, NEVER);
    let call = stage.call("echo", b"x").unwrap();
    let heard = stage.heard(0);
    stage.engines[0].announce(&[function(2, "other", 8, NEVER)]);
    stage.until("it is gone", |stage| stage.remote.resolve(b"echo").is_none());
    stage.engines[0].echo(&heard);
    assert_eq!(stage.answer(call).0, Outcome::Ok);
    assert_eq!(stage.remote.balance.seats(), 1);
    // And it may come back, by the same number or another one.
    let both = [function(1, "echo", 8, NEVER), function(2, "other", 8, NEVER)];
    stage.engines[0].announce(&both);
    stage.until("it is back", |stage| stage.remote.resolve(b"echo").is_some());
    let call = stage.call("echo", b"z").unwrap();
    let heard = stage.heard(0);
    stage.engines[0].echo(&heard);
    assert_eq!(stage.answer(call).1, b"z");
}

#[test]
fn a_draining_gateway_tells_its_engines_and_ends_its_calls() {
    let mut stage = Stage::with_engines(2, 8, NEVER);
    let call = stage.call("echo", b"x").unwrap();
    stage.remote.drain();
    stage.until("they know", |stage| stage.engines.iter().all(|e| e.was_told_to_drain));
    let late = stage.join("host-9", 1).unwrap();
    stage.until("it knows too", |stage| stage.engines[late].was_told_to_drain);
    assert!(!stage.remote.is_idle());
    let engine = stage.holder();
    let heard = stage.heard(engine);
    stage.engines[engine].echo(&heard);
    assert_eq!(stage.answer(call).0, Outcome::Ok);
    assert!(stage.remote.is_idle());
    stage.remote.close(&mut stage.reactor, clock::now());
    stage.until("they have heard", |stage| stage.engines.iter().all(|e| e.ended.is_some()));
    assert!(stage.engines[engine].ended.as_ref().unwrap().contains("closing"));
}

#[test]
fn engines_and_their_load_are_told_as_json_and_as_metrics() {
    let mut stage = Stage::with_engines(2, 8, NEVER);
    stage.call("echo", b"x").unwrap();
    let holder = stage.holder();
    stage.engines[holder].report(&[load(1, 5, LoadState::Serving)]);
    stage.until("it is known", |stage| stage.room("echo") == 8 + 5 - 1);
    let mut json = String::new();
    stage.remote.engines_json(&mut json);
    // However long it took to get here.
    let parts = json.split("\"connected_s\":");
    let parts: Vec<_> =
        parts.map(|part| part.trim_start_matches(|c| char::is_ascii_digit(&c))).collect();
    let json = parts.join("\"connected_s\":0");
    let engine = |node: &str, in_flight: u32, room: u32| {
        format!(
            "{{\"node\":\"{node}\",\"instance\":\"0000000000000007\",\"state\":\"serving\",\
             \"address\":null,\"connected_s\":0,\"epoch\":1,\"links\":1,\"cores\":2,\
             \"functions\":[{{\"name\":\"echo\",\"version\":1,\
             \"state\":\"serving\",\"in_flight\":{in_flight},\"queued\":0,\"running\":0,\
             \"waiting\":0,\"room\":{room},\"latency_us\":null,\"ok\":0,\"failed\":0}}]}}"
        )
    };
    let busy = |index: usize| u32::from(index == holder);
    let parts = [0, 1].map(|i| engine(&format!("host-{i}"), busy(i), 5 * busy(i)));
    let queues = "[{\"function\":\"echo\",\"waiting\":0}]";
    assert_eq!(json, format!("{{\"engines\":[{}],\"queues\":{queues}}}", parts.join(",")));
    let mut text = String::new();
    stage.remote.write_metrics(&mut text);
    for line in ["links{shard=\"0\"} 2\n", "calls_in_flight{shard=\"0\"} 1\n"] {
        assert!(text.contains(line), "{text}");
    }
    assert!(text.contains("queue_depth{shard=\"0\",function=\"echo\"} 0\n"), "{text}");
}
