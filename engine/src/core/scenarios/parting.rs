//! A container that the shard parts with, so that it can be stopped.

use super::*;

#[test]
fn calls_wait_for_a_container_that_was_parted_with_and_go_on_when_it_is_given_back() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 1, 8);
    assert!(stage.core.part(f));
    assert!(stage.core.is_away(f));
    let (call, effects) = stage.call(f);
    assert_eq!(effects, []);
    let effects = stage.tell(Event::ContainerUp { function: f });
    assert_eq!(effects, [Effect::Dispatch { worker: worker(f, 0), call }]);
    assert!(!stage.core.is_away(f));
}

#[test]
fn calls_that_came_after_the_parting_wait_for_the_next_container_and_none_fails() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(2, 2, 8);
    assert!(stage.core.part(f));
    let (call, _) = stage.call(f);
    assert_eq!(stage.tell(Event::ContainerDown { function: f }), []);
    assert!(stage.core.is_away(f));
    let effects = stage.tell(Event::ContainerUp { function: f });
    let spawned = [0, 1].map(|lane| Effect::SpawnWorker { worker: worker(f, lane) });
    assert_eq!(effects, spawned);
    let effects = stage.tell(Event::WorkerStarted { worker: worker(f, 1) });
    assert_eq!(effects, [Effect::Dispatch { worker: worker(f, 1), call }]);
}

#[test]
fn nothing_is_parted_with_while_a_call_waits_runs_or_has_a_result_that_is_read() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 1, 8);
    let lane = worker(f, 0);
    let (running, _) = stage.call(f);
    assert!(!stage.core.part(f));
    let (waiting, _) = stage.call(f);
    stage.complete(lane, running);
    assert!(!stage.core.part(f), "its result is being read, and another call waits");
    stage.tell(Event::Released { worker: lane, call: running });
    assert!(!stage.core.part(f), "the other one runs");
    stage.complete(lane, waiting);
    assert!(!stage.core.part(f), "its result is being read");
    stage.tell(Event::Released { worker: lane, call: waiting });
    assert!(stage.core.part(f));
}

#[test]
fn a_call_that_nobody_waits_for_any_more_keeps_its_container_while_it_runs() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 1, 8);
    let (call, _) = stage.call(f);
    stage.pass(TIMEOUT + Duration::from_secs(1));
    assert!(!stage.core.part(f));
    stage.complete(worker(f, 0), call);
    assert!(stage.core.part(f));
}

#[test]
fn parting_ends_the_pause_after_a_failed_spawn() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(0, 1, 8);
    let (call, _) = stage.call(f);
    stage.tell(Event::WorkerFailed { worker: worker(f, 0) });
    stage.tell(Event::CallerGone { call });
    assert!(stage.core.part(f));
    assert_eq!(stage.core.next_timer(), None);
}
