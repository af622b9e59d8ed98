//! A shard's engine and links on a real reactor, with a gateway's end of the links beside them. No
//! container is there, so calls wait until they are answered otherwise.

mod stage;

use std::io::Write;
use std::time::Duration;

use ipc::Outcome;
use ipc::engine_side::SharedBlock;
use ipc::envelope::ReplyFields;
use protocol::message::{LoadState, Started};

use self::stage::{Said, Stage};
use super::key::Key;
use super::*;

const LONG: Duration = Duration::from_secs(60);
const MB: usize = 1 << 20;

#[test]
fn functions_and_their_loads_are_told_when_a_link_begins() {
    let mut stage = Stage::new(&[("first", 8), ("second", 0)]);
    stage.join(1);
    let names = stage.functions(|functions| functions.len() == 2);
    assert_eq!(names, [("first".into(), 0), ("second".into(), 1)]);
    let loads = stage.loads(|loads| loads.len() == 2);
    assert_eq!((loads[&0].room, loads[&1].room), (8, 0));
    assert_eq!(loads[&0].state, LoadState::Serving);
}

#[test]
fn the_loads_of_a_list_that_takes_several_frames_come_behind_it() {
    let names: Vec<String> = (0..600).map(|index| format!("function-{index:050}")).collect();
    let functions: Vec<_> = names.iter().map(|name| (name.as_str(), 8)).collect();
    let mut stage = Stage::new(&functions);
    stage.join(1);
    // The gateway of the tests ends where a load comes before its function.
    stage.loads(|loads| loads.len() == 600);
    stage.deploy("another");
    stage.loads(|loads| loads.len() == 601);
}

#[test]
fn a_function_that_is_removed_is_gone_and_its_number_names_no_other() {
    let mut stage = Stage::new(&[("first", 8), ("second", 8)]);
    stage.join(1);
    stage.functions(|functions| functions.len() == 2);
    stage.remove("first");
    assert_eq!(stage.functions(|functions| functions.len() == 1), [("second".into(), 1)]);
    stage.call(10, 0, LONG, b"");
    let (outcome, started, _) = stage.answer(10);
    assert_eq!((outcome, started), (Outcome::NotFound, Started::No));
    stage.deploy("third");
    let names = stage.functions(|functions| functions.len() == 2);
    assert_eq!(names, [("second".into(), 1), ("third".into(), 2)]);
}

#[test]
fn a_call_whose_time_passes_in_the_queue_provably_never_began() {
    let mut stage = Stage::joined();
    stage.call(10, 0, Duration::from_millis(30), b"input");
    let (outcome, started, _) = stage.answer(10);
    assert_eq!((outcome, started), (Outcome::DeadlineExceeded, Started::No));
    assert_eq!((stage.engine.calls_live(), stage.uplinks.calls()), (0, 0));
}

#[test]
fn a_call_that_is_refused_provably_never_began() {
    let mut stage = Stage::joined();
    for stream in 0..8 {
        stage.call(stream, 0, LONG, b"");
    }
    stage.call(8, 0, LONG, b"");
    let (outcome, started, message) = stage.answer(8);
    assert_eq!((outcome, started), (Outcome::Overloaded, Started::No));
    assert_eq!(message, b"the function's queue is full");
    assert_eq!(stage.uplinks.calls(), 8);
}

#[test]
fn answers_small_and_large_come_back_as_they_were() {
    let mut stage = Stage::joined();
    let fields =
        ReplyFields { status: Some(201), content_type: b"text/plain", headers: [].into_iter() };
    let mut envelope = Vec::new();
    fields.encode(&mut envelope);
    for (stream, envelope, size) in [
        (1, &envelope[..], 5),
        (2, &[][..], 5),
        (3, &envelope[..], MB),
        (4, &[][..], MB),
        (5, &[], 0),
    ] {
        stage.call(stream, 0, LONG, b"");
        stage.until("it is taken", |stage| stage.uplinks.calls() == 1);
        let block = [envelope, &vec![7; size]].concat();
        stage.complete(SharedBlock::from_bytes(block.clone(), envelope.len()));
        let (outcome, started, got) = stage.answer(stream);
        assert_eq!((outcome, started), (Outcome::Ok, Started::Perhaps));
        assert!(got == block, "{size} bytes");
    }
}

#[test]
fn a_reply_whose_envelope_is_none_any_more_fails_that_call_alone() {
    let mut stage = Stage::joined();
    stage.call(1, 0, LONG, b"");
    stage.until("it is taken", |stage| stage.uplinks.calls() == 1);
    stage.complete(SharedBlock::from_bytes(vec![99; 40], 30));
    assert_eq!(stage.answer(1).0, Outcome::ContainerDied);
    assert!(!stage.uplinks.is_empty());
}

#[test]
fn a_call_that_is_taken_back_leaves_nothing() {
    let mut stage = Stage::joined();
    stage.call(1, 0, LONG, &vec![1; MB]);
    stage.until("it is taken", |stage| stage.engine.calls_live() == 1);
    stage.cancel(1);
    stage.until("it is gone", |stage| stage.engine.calls_live() == 0);
    assert_eq!(stage.uplinks.calls(), 0);
    stage.cancel(77);
    stage.call(1, 0, Duration::ZERO, b"");
    assert_eq!(stage.answer(1).0, Outcome::DeadlineExceeded);
}

#[test]
fn the_calls_of_a_link_that_is_lost_are_taken_back_and_the_others_stay() {
    let mut stage = Stage::joined();
    stage.call(1, 0, LONG, b"");
    stage.until("it is taken", |stage| stage.engine.calls_live() == 1);
    let other = stage.raw(2);
    stage.until("there are two", |stage| stage.stats.links() == 2);
    drop(other);
    assert_eq!(stage.notice(), Notice::Ended { epoch: 2 });
    assert_eq!(stage.engine.calls_live(), 1);
    stage.hang_up();
    assert_eq!(stage.notice(), Notice::Ended { epoch: 1 });
    assert_eq!((stage.engine.calls_live(), stage.uplinks.calls()), (0, 0));
    assert!(stage.uplinks.is_empty());
}

#[test]
fn what_breaks_the_protocol_ends_its_link_and_no_other() {
    let mut stage = Stage::joined();
    for (epoch, bytes) in [(2, &[0xff; 64][..]), (3, &[0; 16]), (4, b"GET / HTTP/1.1\r\n\r\n")] {
        let mut stranger = stage.raw(epoch);
        stranger.write_all(bytes).unwrap();
        assert_eq!(stage.notice(), Notice::Ended { epoch });
    }
    stage.call(1, 0, Duration::ZERO, b"");
    assert_eq!(stage.answer(1).0, Outcome::DeadlineExceeded);
}

#[test]
fn a_number_that_was_never_announced_ends_the_link_with_a_reason() {
    let mut stage = Stage::joined();
    stage.call(1, 7, LONG, b"");
    assert_eq!(stage.notice(), Notice::Ended { epoch: 1 });
    let reason = stage.bye();
    assert!(reason.ends_with("function is malformed"), "{reason}");
}

#[test]
fn a_stream_that_is_in_use_ends_the_link() {
    let mut stage = Stage::joined();
    stage.call(1, 0, LONG, b"");
    stage.call(1, 0, LONG, b"");
    assert_eq!(stage.notice(), Notice::Ended { epoch: 1 });
    assert_eq!(stage.engine.calls_live(), 0);
}

#[test]
fn a_call_that_is_too_large_or_has_no_envelope_is_refused_and_the_link_lives() {
    let mut stage = Stage::joined();
    stage.call(1, 0, LONG, &vec![0; MB + 1]);
    let (outcome, started, _) = stage.answer(1);
    assert_eq!((outcome, started), (Outcome::TooLarge, Started::No));
    stage.call_with(2, 0, LONG, b"\xff\xff\xff", b"");
    let (outcome, started, _) = stage.answer(2);
    assert_eq!((outcome, started), (Outcome::BadRequest, Started::No));
    stage.call(3, 0, Duration::ZERO, b"");
    assert_eq!(stage.answer(3).0, Outcome::DeadlineExceeded);
}

#[test]
fn a_load_is_told_when_it_matters_and_then_nothing_is_said() {
    let mut stage = Stage::joined();
    for stream in 0..8 {
        stage.call(stream, 0, LONG, b"");
    }
    let loads = stage.loads(|loads| loads.get(&0).is_some_and(|load| load.room == 0));
    assert_eq!(loads[&0].queued, 8);
    for stream in 0..8 {
        stage.cancel(stream);
    }
    stage.loads(|loads| loads.get(&0).is_some_and(|load| load.room == 8 && load.queued == 0));
    stage.until("all is told", |stage| !stage.engine.is_stirred());
    let next = stage.uplinks.next_timer(&stage.engine, reactor::clock::now()).unwrap();
    assert!(next > reactor::clock::now() + REPORT_EVERY, "only the heartbeat is left");
}

#[test]
fn an_engine_that_drains_says_so_answers_what_it_has_and_then_says_goodbye() {
    let mut stage = Stage::joined();
    stage.call(1, 0, LONG, b"");
    stage.until("it is taken", |stage| stage.uplinks.calls() == 1);
    stage.uplinks.drain();
    stage.hear("it drains", |said| matches!(said, Said::Draining));
    stage.call(2, 0, LONG, b"");
    let (outcome, started, _) = stage.answer(2);
    assert_eq!((outcome, started), (Outcome::Unavailable, Started::No));
    assert!(!stage.uplinks.is_empty(), "an answer is owed");
    stage.complete(SharedBlock::from_bytes(vec![5; MB], 0));
    assert_eq!(stage.answer(1).0, Outcome::Ok);
    assert_eq!(stage.bye(), "drained");
    assert_eq!(stage.notice(), Notice::Ended { epoch: 1 });
    stage.join(2);
    assert_eq!(stage.notice(), Notice::Ended { epoch: 2 }, "no link is wanted any more");
}

#[test]
fn a_gateway_that_drains_is_told_to_whoever_dials_and_keeps_its_link() {
    let mut stage = Stage::joined();
    stage.gateway_drains();
    assert_eq!(stage.notice(), Notice::Draining { epoch: 1 });
    stage.call(1, 0, Duration::ZERO, b"");
    assert_eq!(stage.answer(1).0, Outcome::DeadlineExceeded);
}

#[test]
fn a_gateway_that_says_nothing_any_more_is_given_up() {
    let mut stage = Stage::new(&[("f", 8)]);
    let _mute = stage.raw(5);
    assert_eq!(stage.notice(), Notice::Ended { epoch: 5 });
}

#[test]
fn a_gateway_that_takes_no_answers_is_closed_before_they_fill_the_memory() {
    let bounds = Bounds { payload_max: 1 << 20, queued_max: 4 * MB };
    let mut stage = Stage::with_bounds(&[("f", 64)], bounds);
    stage.join(1);
    stage.functions(|functions| functions.len() == 1);
    for stream in 0..64 {
        stage.call(stream, 0, LONG, b"");
    }
    stage.until("all are taken", |stage| stage.uplinks.calls() == 64);
    for _ in 0..8 {
        stage.complete(SharedBlock::from_bytes(vec![5; MB], 0));
    }
    assert_eq!(stage.notice(), Notice::Ended { epoch: 1 });
    assert_eq!(stage.uplinks.calls(), 0);
}

#[test]
fn an_answer_for_a_link_that_is_gone_finds_nobody() {
    let mut stage = Stage::joined();
    let late = Key::new(0, 99).unwrap().caller();
    stage.answer_to(late, SharedBlock::from_bytes(vec![1], 0));
    stage.call(1, 0, Duration::ZERO, b"");
    assert_eq!(stage.answer(1).0, Outcome::DeadlineExceeded);
}

#[test]
fn the_metrics_count_what_was_done() {
    let mut stage = Stage::joined();
    stage.call(1, 0, Duration::ZERO, b"");
    stage.answer(1);
    let mut text = String::new();
    stage.stats.write_metrics(&mut text);
    for line in [
        "nightcore_uplink_links{shard=\"0\"} 1",
        "nightcore_uplink_links_opened_total{shard=\"0\"} 1",
        "nightcore_uplink_calls_total{shard=\"0\"} 1",
        "nightcore_uplink_calls_refused_total{shard=\"0\"} 1",
    ] {
        assert!(text.lines().any(|got| got == line), "{line} in {text}");
    }
}
