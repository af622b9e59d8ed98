//! A lease between real processes: that it gives right answers, that each reason for revoking it
//! ends it, and that a peer can hurt nobody but itself. The test's own process is the engine.
//!
//! Nothing sleeps to synchronise: each step waits for an event, and the engine's patience is the
//! watchdog.

use std::path::Path;
use std::time::Duration;

use nightcore_bench::handoff::conduct::Conduct;
use nightcore_bench::handoff::engine::Engine;
use nightcore_bench::handoff::event::Event;
use nightcore_bench::handoff::lease::Reason;
use nightcore_bench::handoff::wake::{Wake, now_ns};
use nightcore_bench::handoff::wire::Ended;
use nightcore_bench::handoff::worker::LEAF;

const SIZE: usize = 1024;
const WAKES: [Wake; 7] =
    [Wake::Futex, Wake::Timed, Wake::Waitv, Wake::Epoll, Wake::Yield, Wake::Adaptive, Wake::Spin];
/// Time given to a call that will not be answered.
const SHORT: Duration = Duration::from_millis(50);
/// A deadline that no test reaches.
const FAR: u64 = u64::MAX;

fn engine(wake: Wake) -> Engine {
    Engine::new(Path::new(env!("CARGO_BIN_EXE_nightcore-bench")), wake)
}

/// An engine with one caller (0) and one callee (1).
fn pair(wake: Wake, caller: Conduct, callee: Conduct) -> Engine {
    let mut engine = engine(wake);
    engine.start("caller", caller, &[0]).expect("a process starts");
    engine.start("callee", callee, &[0]).expect("a process starts");
    engine
}

fn soon_ns() -> u64 {
    now_ns() + u64::try_from(SHORT.as_nanos()).expect("a short time")
}

fn revoked(engine: &mut Engine) -> Reason {
    let revoked = |event: &Event| match event {
        Event::Revoked { reason, .. } => Some(*reason),
        _ => None,
    };
    engine.wait_for("a lease was revoked", revoked).expect("the engine serves")
}

fn freed(engine: &mut Engine, worker: usize) {
    let freed = |event: &Event| (*event == Event::Freed(worker)).then_some(());
    engine.wait_for("a callee was free again", freed).expect("the engine serves");
}

fn granted(engine: &mut Engine) -> u32 {
    let granted = |event: &Event| match event {
        Event::Granted { epoch, .. } => Some(*epoch),
        _ => None,
    };
    engine.wait_for("a lease was granted", granted).expect("the engine serves")
}

fn accused(engine: &mut Engine) -> (usize, String) {
    let accused = |event: &Event| match event {
        Event::Accused { by, fault } => Some((*by, fault.clone())),
        _ => None,
    };
    engine.wait_for("a peer was accused", accused).expect("the engine serves")
}

/// A second caller, started now, whose calls show that the callee serves again.
fn another_caller_is_served(engine: &mut Engine) {
    let other = engine.start("caller", Conduct::Honest, &[0]).expect("a process starts");
    engine.parent(other, 10, SIZE, FAR);
    let ended = engine.ended(other).expect("the engine serves");
    assert_eq!((ended.direct + ended.relayed, ended.wrong, ended.failure), (10, 0, None));
}

#[test]
fn after_one_relayed_call_all_are_direct_and_right_with_every_way_of_waiting() {
    for wake in WAKES {
        let mut engine = pair(wake, Conduct::Honest, Conduct::Honest);
        for epoch in 1..=3 {
            engine.parent(0, 1_000, SIZE, FAR);
            assert_eq!(granted(&mut engine), epoch, "{wake:?}");
            let ended = engine.ended(0).unwrap();
            assert_eq!((ended.relayed, ended.direct, ended.wrong), (1, 999, 0), "{wake:?}");
            freed(&mut engine, 1);
        }
        let observed = engine.observe(0, 1).unwrap();
        assert_eq!((observed.started, observed.completed), (2_997, 2_997), "{wake:?}");
        assert!(!observed.busy.is_zero());
    }
}

#[test]
fn the_parents_end_frees_a_callee_that_sleeps() {
    for wake in WAKES {
        let mut engine = pair(wake, Conduct::Honest, Conduct::Honest);
        engine.parent(0, 10, SIZE, FAR);
        assert_eq!(revoked(&mut engine), Reason::ParentEnded, "{wake:?}");
        freed(&mut engine, 1);
        another_caller_is_served(&mut engine);
    }
}

#[test]
fn a_call_that_queues_gets_the_leased_worker_and_no_call_of_the_lease_is_lost() {
    for wake in WAKES {
        let mut engine = pair(wake, Conduct::Honest, Conduct::Honest);
        let other = engine.start("caller", Conduct::Honest, &[0]).unwrap();
        engine.parent(0, 20_000, SIZE, FAR);
        granted(&mut engine);
        engine.parent(other, 1, SIZE, FAR);
        assert_eq!(revoked(&mut engine), Reason::Queueing, "{wake:?}");
        let mut ends = [None::<Ended>, None];
        while ends.iter().any(Option::is_none) {
            let (who, ended) = engine
                .wait_for("both callers ended", |event| match event {
                    Event::Ended(who, ended) => Some((*who, ended.clone())),
                    _ => None,
                })
                .unwrap();
            ends[usize::from(who == other)] = Some(ended);
        }
        let [first, second] = ends.map(Option::unwrap);
        assert_eq!(first.direct + first.relayed, 20_000, "{wake:?}: {first:?}");
        assert!(first.relayed >= 2, "{wake:?}: {first:?}");
        assert_eq!((first.wrong, first.failure), (0, None), "{wake:?}");
        assert_eq!((second.relayed, second.failure), (1, None), "{wake:?}");
    }
}

#[test]
fn the_deadline_ends_a_call_that_is_never_answered() {
    for wake in WAKES {
        let mut engine = pair(wake, Conduct::Honest, Conduct::Hang);
        let deadline_ns = soon_ns();
        engine.parent(0, 10, SIZE, deadline_ns);
        let ended = engine.ended(0).unwrap();
        assert_eq!(ended.failure, Some(Reason::Deadline), "{wake:?}");
        assert!(now_ns() >= deadline_ns, "{wake:?}");
    }
}

#[test]
fn the_deadline_frees_a_callee_whose_caller_is_busy_with_other_things() {
    let mut engine = pair(Wake::Futex, Conduct::Hang, Conduct::Honest);
    engine.parent(0, 10, SIZE, soon_ns());
    assert_eq!(revoked(&mut engine), Reason::Deadline);
    freed(&mut engine, 1);
    another_caller_is_served(&mut engine);
}

#[test]
fn a_callee_that_moves_its_sleeping_caller_out_of_reach_cannot_keep_it() {
    for wake in [Wake::Futex, Wake::Timed, Wake::Waitv, Wake::Adaptive] {
        let mut engine = pair(wake, Conduct::Honest, Conduct::Requeue);
        engine.parent(0, 10, SIZE, soon_ns());
        let ended = engine.ended(0).unwrap();
        assert_eq!(ended.failure, Some(Reason::Deadline), "{wake:?}");
    }
}

#[test]
fn the_death_of_a_callee_fails_the_call_it_had_begun() {
    for wake in WAKES {
        let mut engine = pair(wake, Conduct::Honest, Conduct::Die);
        engine.parent(0, 10, SIZE, FAR);
        assert_eq!(revoked(&mut engine), Reason::CalleeDied, "{wake:?}");
        let ended = engine.ended(0).unwrap();
        assert_eq!((ended.failure, ended.direct), (Some(Reason::CalleeDied), 3), "{wake:?}");
        engine.start("callee", Conduct::Honest, &[0]).unwrap();
        engine.parent(0, 10, SIZE, FAR);
        let ended = engine.ended(0).unwrap();
        assert_eq!((ended.failure, ended.direct, ended.wrong), (None, 9, 0), "{wake:?}");
    }
}

#[test]
fn the_death_of_a_caller_frees_its_callee() {
    for wake in WAKES {
        let mut engine = pair(wake, Conduct::Die, Conduct::Honest);
        engine.parent(0, 10, SIZE, FAR);
        assert_eq!(revoked(&mut engine), Reason::CallerDied, "{wake:?}");
        freed(&mut engine, 1);
        another_caller_is_served(&mut engine);
    }
}

#[test]
fn a_callee_may_call_in_turn_and_its_leases_end_with_its_own() {
    let mut engine = pair(Wake::Futex, Conduct::Honest, Conduct::Nested);
    let leaf = engine.start(LEAF, Conduct::Honest, &[0]).unwrap();
    for _ in 0..2 {
        engine.parent(0, 100, SIZE, FAR);
        let ended = engine.ended(0).unwrap();
        assert_eq!((ended.direct, ended.wrong, ended.failure), (99, 0, None));
        freed(&mut engine, leaf);
        assert!(engine.observe(1, leaf).unwrap().completed >= 98);
    }
}

#[test]
fn a_callee_that_lies_is_accused_and_the_caller_goes_on() {
    for (conduct, says) in [
        (Conduct::BadSize, "4097 bytes"),
        (Conduct::WildCursor, "cursor"),
        (Conduct::Nonsense, "while call"),
        (Conduct::Stale, "ended leases"),
    ] {
        let mut engine = pair(Wake::Futex, Conduct::Honest, conduct);
        engine.parent(0, 10, SIZE, FAR);
        let (by, fault) = accused(&mut engine);
        assert!(by == 0 && fault.contains(says), "{conduct:?}: {fault}");
        let ended = engine.ended(0).unwrap();
        assert_eq!(ended.failure, Some(Reason::Fault), "{conduct:?}");
        engine.start("callee", Conduct::Honest, &[0]).unwrap();
        engine.parent(0, 10, SIZE, FAR);
        let ended = engine.ended(0).unwrap();
        assert_eq!((ended.direct, ended.failure), (9, None), "{conduct:?}");
    }
}

#[test]
fn a_caller_that_lies_is_accused_and_the_callee_serves_others() {
    for (conduct, says) in [
        (Conduct::BadSize, "4294967295 bytes"),
        (Conduct::WildCursor, "cursor"),
        (Conduct::Nonsense, "4294967295 bytes"),
    ] {
        let mut engine = pair(Wake::Futex, conduct, Conduct::Honest);
        engine.parent(0, 10, SIZE, FAR);
        let (by, fault) = accused(&mut engine);
        assert!(by == 1 && fault.contains(says), "{conduct:?}: {fault}");
        freed(&mut engine, 1);
        another_caller_is_served(&mut engine);
    }
}

#[test]
fn a_payload_that_changes_while_it_is_read_is_only_a_wrong_payload() {
    for (caller, callee) in
        [(Conduct::Scribble, Conduct::Honest), (Conduct::Honest, Conduct::Scribble)]
    {
        let mut engine = pair(Wake::Futex, caller, callee);
        engine.parent(0, 1_000, SIZE, FAR);
        let ended = engine.ended(0).unwrap();
        assert_eq!((ended.direct, ended.failure), (999, None), "{caller:?} {callee:?}");
    }
}

#[test]
fn a_callee_that_does_not_report_back_is_a_busy_worker_and_nothing_else() {
    let mut engine = pair(Wake::Futex, Conduct::Honest, Conduct::Stay);
    engine.parent(0, 10, SIZE, FAR);
    assert_eq!(engine.ended(0).unwrap().failure, None);
    engine.start("callee", Conduct::Honest, &[0]).unwrap();
    another_caller_is_served(&mut engine);
    engine.parent(0, 10, SIZE, FAR);
    assert_eq!(engine.ended(0).unwrap().failure, None);
}
