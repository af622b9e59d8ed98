//! A function whose containers keep dying.

use super::*;

const OPEN: Duration = Duration::from_secs(2);

/// Has the function's container die, and no other started for `OPEN`.
fn bar(stage: &mut Stage, function: FunctionId) -> Vec<Effect> {
    let mut effects = stage.tell(Event::ContainerDown { function });
    let until = stage.now + OPEN;
    effects.extend(stage.tell(Event::Barred { function, until }));
    effects
}

/// When a call that is refused now is to be tried again.
fn retry_after_s(stage: &mut Stage, function: FunctionId) -> Option<u32> {
    let refusal = stage.try_call(function).unwrap_err();
    assert_eq!(refusal.outcome, Outcome::BreakerOpen);
    refusal.retry_after_s
}

#[test]
fn calls_are_refused_with_the_time_that_is_left_until_a_container_is_up() {
    let mut stage = Stage::new(Limits::default());
    let (f, other) = (stage.deploy(1, 1, 8), stage.deploy(1, 1, 8));
    bar(&mut stage, f);
    assert_eq!(retry_after_s(&mut stage, f), Some(3));
    stage.pass(OPEN - Duration::from_millis(1));
    assert_eq!(retry_after_s(&mut stage, f), Some(1));
    // It may take a while to start.
    stage.pass(OPEN);
    assert_eq!(retry_after_s(&mut stage, f), Some(1));
    let (call, effects) = stage.call(other);
    assert_eq!(effects, [Effect::Dispatch { worker: worker(other, 0), call }]);
    stage.tell(Event::ContainerUp { function: f });
    let (call, _) = stage.call(f);
    let effects = stage.tell(Event::WorkerStarted { worker: worker(f, 0) });
    assert_eq!(effects, [Effect::Dispatch { worker: worker(f, 0), call }]);
    assert_eq!(stage.core.snapshot(f).counters.failed(Outcome::BreakerOpen), 3);
}

#[test]
fn what_waits_for_a_container_is_failed_and_what_was_in_it_died() {
    let mut stage = Stage::new(Limits::default());
    let (f, g) = (stage.deploy(1, 1, 8), stage.deploy(1, 1, 8));
    let (dies, _) = stage.call(g);
    let (waits, _) = stage.call(g);
    stage.call(f);
    let (child, _) = stage.nest(worker(f, 0), 1, g);
    let effects = bar(&mut stage, g);
    assert_eq!(
        answers(&effects),
        [
            (dies, Outcome::ContainerDied),
            (waits, Outcome::BreakerOpen),
            (child, Outcome::BreakerOpen)
        ]
    );
    assert!(effects.contains(&Effect::DropPayload { call: waits }));
    assert_eq!(stage.core.snapshot(f).running, 1, "it has its answer");
    let (child, effects) = stage.nest(worker(f, 0), 1, g);
    assert_eq!(answers(&effects), [(child, Outcome::BreakerOpen)]);
    assert_eq!((stage.core.snapshot(f).running, stage.core.calls_live()), (1, 1));
}

#[test]
fn a_call_that_another_shard_sends_back_finds_the_breaker_of_its_home() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy_costly(2);
    let call = stage.call_away(f);
    assert!(answers(&bar(&mut stage, f)).iter().all(|(answered, _)| *answered != call));
    let effects = stage.tell(Event::Bounced { call });
    assert_eq!(effects[0], Effect::DropPayload { call });
    assert_eq!(answers(&effects), [(call, Outcome::BreakerOpen)]);
    assert_eq!((stage.core.calls_live(), stage.core.calls_away()), (0, 0));
}

#[test]
fn a_container_that_is_up_ends_it_however_late_that_is_told() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 1, 8);
    let until = stage.now + OPEN;
    assert_eq!(stage.tell(Event::Barred { function: f, until }), []);
    let (call, effects) = stage.call(f);
    assert_eq!(effects, [Effect::Dispatch { worker: worker(f, 0), call }]);
}
