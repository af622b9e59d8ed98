//! Calls that wait in a lane behind another.

use super::*;

/// A function of two workers whose calls are known to be short; lane 0 runs a call, and two wait
/// behind it.
fn pipelined() -> (Stage, FunctionId, [CallId; 3]) {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 2, 8);
    let lane = worker(f, 0);
    for _ in 0..20 {
        let (call, _) = stage.call(f);
        stage.complete_short(lane, call);
        stage.tell(Event::Released { worker: lane, call });
    }
    let calls = [(); 3].map(|()| {
        let (call, effects) = stage.call(f);
        assert_eq!(effects, [Effect::Dispatch { worker: lane, call }]);
        call
    });
    assert_eq!(stage.core.snapshot(f).pipelined, 2);
    (stage, f, calls)
}

#[test]
fn short_calls_follow_each_other_in_one_lane_and_the_rest_waits() {
    let (mut stage, f, [a, b, c]) = pipelined();
    let lane = worker(f, 0);
    let (d, effects) = stage.call(f);
    assert_eq!(effects, [Effect::SpawnWorker { worker: worker(f, 1) }]);
    let effects = stage.complete_short(lane, a);
    assert_eq!(answers(&effects), [(a, Outcome::Ok)]);
    assert_eq!(effects[1], Effect::Dispatch { worker: lane, call: d });
    assert_eq!(stage.core.worker(lane), WorkerState::Running { call: b });
    // The result of a call is read while its worker is on the next one.
    assert_eq!(stage.tell(Event::Released { worker: lane, call: a }), []);
    for (call, next) in [(b, c), (c, d)] {
        stage.complete_short(lane, call);
        assert_eq!(stage.core.worker(lane), WorkerState::Running { call: next });
    }
    stage.complete_short(lane, d);
    assert_eq!(stage.core.worker(lane), WorkerState::Held { call: d });
}

#[test]
fn what_a_waiting_worker_declines_goes_to_another_in_its_old_order() {
    let (mut stage, f, [a, b, c]) = pipelined();
    let lane = worker(f, 0);
    assert_eq!(
        stage.tell(Event::Declined { worker: lane, call: c }),
        [Effect::SpawnWorker { worker: worker(f, 1) }]
    );
    assert_eq!(stage.tell(Event::Declined { worker: lane, call: b }), []);
    let effects = stage.tell(Event::WorkerStarted { worker: worker(f, 1) });
    let dispatch = |call| Effect::Dispatch { worker: worker(f, 1), call };
    assert_eq!(effects[..2], [dispatch(b), dispatch(c)]);
    let declined = |call| Event::Declined { worker: lane, call };
    let got = Err(Violation::NotPipelined { worker: lane, got: a });
    assert_eq!(stage.try_tell(declined(a)), got);
}

#[test]
fn a_pipelined_call_that_nobody_waits_for_still_holds_its_place() {
    let (mut stage, f, [a, b, c]) = pipelined();
    let lane = worker(f, 0);
    assert_eq!(stage.tell(Event::CallerGone { call: b }), []);
    let effects = stage.pass(TIMEOUT + Duration::from_millis(10));
    assert_eq!(answers(&effects).len(), 2);
    let effects = stage.tell(Event::Declined { worker: lane, call: c });
    assert_eq!(effects, [Effect::DropPayload { call: c }]);
    stage.complete_short(lane, a);
    assert_eq!(stage.core.worker(lane), WorkerState::Running { call: b });
    assert_eq!(answers(&stage.complete_short(lane, b)), []);
    assert_eq!(stage.core.worker(lane), WorkerState::Idle);
}

#[test]
fn a_container_that_dies_fails_what_waits_in_its_lanes() {
    let (mut stage, f, calls) = pipelined();
    let effects = stage.tell(Event::ContainerDown { function: f });
    assert_eq!(answers(&effects), calls.map(|call| (call, Outcome::ContainerDied)));
    assert_eq!(stage.core.calls_live(), 0);
}
