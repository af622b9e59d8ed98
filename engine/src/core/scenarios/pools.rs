//! Workers that come and go: failed spawns, trimming, shards that share them.

use super::*;

#[test]
fn a_failed_spawn_is_tried_again_after_a_pause() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(0, 2, 8);
    let spawn = Effect::SpawnWorker { worker: worker(f, 0) };
    assert_eq!(stage.call(f).1, [spawn]);
    assert_eq!(stage.tell(Event::WorkerFailed { worker: worker(f, 0) }), []);
    assert_eq!(stage.call(f).1, []);
    assert!(stage.core.next_timer().is_some());
    assert_eq!(stage.pass(Duration::from_millis(1002)), [spawn]);
}

/// A function without a minimum whose three workers have all just become idle.
fn three_idle(stage: &mut Stage) -> FunctionId {
    let f = stage.deploy(0, 3, 8);
    for lane in 0..3 {
        stage.call(f);
        stage.tell(Event::WorkerStarted { worker: worker(f, lane) });
    }
    for lane in 0..3 {
        let call = stage.core.worker(worker(f, lane)).call().unwrap();
        stage.complete(worker(f, lane), call);
        stage.tell(Event::Released { worker: worker(f, lane), call });
    }
    // The first window saw the stack with one worker on it, and takes that one at its end.
    f
}

/// More than a trim window, by the tick that the wheel may be late.
const WINDOW: Duration = Duration::from_millis(10_002);

#[test]
fn workers_that_were_idle_for_a_whole_window_retire_and_the_most_recent_go_last() {
    let mut stage = Stage::new(Limits::default());
    let f = three_idle(&mut stage);
    let retire = |lane| Effect::RetireWorker { worker: worker(f, lane) };
    assert_eq!(stage.pass(WINDOW), [retire(0)]);
    stage.tell(Event::WorkerRetired { worker: worker(f, 0) });
    // Worker 2 is used within the second window; worker 1 is not.
    let (call, _) = stage.call(f);
    stage.complete(worker(f, 2), call);
    stage.tell(Event::Released { worker: worker(f, 2), call });
    assert_eq!(stage.pass(WINDOW), [retire(1)]);
    stage.tell(Event::WorkerRetired { worker: worker(f, 1) });
    assert_eq!(stage.pass(WINDOW), [retire(2)]);
    stage.tell(Event::WorkerRetired { worker: worker(f, 2) });
    stage.pass(WINDOW);
    assert_eq!(stage.core.next_timer(), None);
}

#[test]
fn a_trim_window_ends_with_its_container() {
    let mut stage = Stage::new(Limits::default());
    let f = three_idle(&mut stage);
    stage.tell(Event::ContainerDown { function: f });
    assert_eq!(stage.core.next_timer(), None);
}

#[test]
fn a_worker_of_the_minimum_is_never_retired_and_needs_no_timer() {
    let mut stage = Stage::new(Limits::default());
    stage.deploy(2, 4, 8);
    assert_eq!(stage.core.next_timer(), None);
}

#[test]
fn a_worker_that_another_shard_wants_leaves_before_it_gets_the_next_call() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 1, 8);
    let lane = worker(f, 0);
    let (call, _) = stage.call(f);
    stage.call(f);
    assert_eq!(stage.tell(Event::YieldWorker { function: f, has: 0 }), []);
    stage.complete(lane, call);
    let effects = stage.tell(Event::Released { worker: lane, call });
    assert_eq!(effects, [Effect::RetireWorker { worker: lane }]);
    assert_eq!(stage.tell(Event::WorkerRetired { worker: lane }), []);
    let effects = stage.tell(Event::WorkerFreed { function: f });
    assert_eq!(effects, [Effect::SpawnWorker { worker: lane }]);
}

#[test]
fn a_shard_without_workers_owes_none() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(0, 1, 8);
    assert_eq!(stage.tell(Event::YieldWorker { function: f, has: 0 }), []);
    let (call, _) = stage.call(f);
    let effects = stage.tell(Event::WorkerStarted { worker: worker(f, 0) });
    assert_eq!(effects, [Effect::Dispatch { worker: worker(f, 0), call }]);
}

#[test]
fn a_shard_gives_workers_until_both_have_the_same_and_beyond_that_those_it_does_not_need() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(3, 3, 8);
    let calls = [(); 4].map(|()| stage.call(f).0);
    let ask = |stage: &mut Stage, has| stage.tell(Event::YieldWorker { function: f, has });
    assert_eq!(ask(&mut stage, 2), []);
    stage.complete(worker(f, 2), calls[0]);
    let effects = stage.tell(Event::Released { worker: worker(f, 2), call: calls[0] });
    assert_eq!(effects, [Effect::Dispatch { worker: worker(f, 2), call: calls[3] }]);
    assert_eq!(ask(&mut stage, 1), []);
    stage.complete(worker(f, 1), calls[1]);
    let effects = stage.tell(Event::Released { worker: worker(f, 1), call: calls[1] });
    assert_eq!(effects, [Effect::RetireWorker { worker: worker(f, 1) }]);
    stage.complete(worker(f, 0), calls[2]);
    stage.tell(Event::Released { worker: worker(f, 0), call: calls[2] });
    assert_eq!(ask(&mut stage, 7), [Effect::RetireWorker { worker: worker(f, 0) }]);
}
