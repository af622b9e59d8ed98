//! Functions that come and go.

use super::*;

#[test]
fn a_function_may_leave_when_its_container_is_down_and_its_last_call_has_ended() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 1, 1);
    assert!(!stage.core.may_leave(f), "its container is up");
    stage.tell(Event::ContainerDown { function: f });
    assert!(stage.core.may_leave(f));
    let (call, _) = stage.try_call(f).unwrap();
    assert!(!stage.core.may_leave(f), "a call waits for the next container");
    stage.tell(Event::CallerGone { call });
    assert!(stage.core.may_leave(f));
}

#[test]
fn the_next_version_goes_on_with_what_was_counted_whenever_it_was() {
    let mut stage = Stage::new(Limits::default());
    let old = stage.deploy(1, 1, 1);
    let (first, _) = stage.try_call(old).unwrap();
    let new = stage.deploy(1, 2, 1);
    stage.core.inherit(old, new);
    let counted = |stage: &Stage, f| {
        let counters = stage.core.snapshot(f).counters;
        (counters.arrivals, counters.completed)
    };
    assert_eq!((counted(&stage, old), counted(&stage, new)), ((0, 0), (1, 0)));
    stage.complete(worker(old, 0), first);
    stage.tell(Event::ContainerDown { function: old });
    stage.core.inherit(old, new);
    assert_eq!((counted(&stage, old), counted(&stage, new)), ((0, 0), (1, 1)));

    // Its place is another function's then, which begins anew.
    stage.core.replace_function(old, spec(0, 3, 1));
    assert_eq!(stage.core.worker(worker(old, 2)), WorkerState::Absent);
    assert_eq!(stage.core.snapshot(old).counters, Counters::default());
}
