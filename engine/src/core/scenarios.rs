//! The promises of the core one at a time, each told as a short story.

mod breaker;
mod deploy;
mod managed;
mod moves;
mod parting;
mod pipelines;
mod pools;

use std::time::Duration;

use ipc::{CallId, LaneIndex, Outcome};
use reactor::clock::Nanos;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a call runs that deserves a worker of its own, in ns.
const LONG: u32 = 1_000_000;

/// A core, its effects and a clock that moves only by hand.
struct Stage {
    core: Core,
    now: Nanos,
    effects: Effects,
    callers: u64,
}

impl Stage {
    fn new(limits: Limits) -> Stage {
        let now = Nanos(1_000_000_000);
        Stage { core: Core::new(limits), now, effects: Vec::new(), callers: 0 }
    }

    /// A function with its container up and `workers` idle workers in lanes 0 and up.
    fn deploy(&mut self, workers: u16, max_workers: u16, queue_max: u32) -> FunctionId {
        self.deploy_spec(spec(workers, max_workers, queue_max))
    }

    fn deploy_spec(&mut self, spec: FunctionSpec) -> FunctionId {
        let function = self.core.add_function(spec);
        self.tell(Event::ContainerUp { function });
        for lane in 0..spec.min_workers {
            self.tell(Event::WorkerStarted { worker: worker(function, lane) });
        }
        function
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        self.try_tell(event).unwrap()
    }

    fn try_tell(&mut self, event: Event) -> Result<Vec<Effect>, Violation> {
        self.core.on_event(self.now, event, &mut self.effects)?;
        Ok(std::mem::take(&mut self.effects))
    }

    fn try_call(&mut self, function: FunctionId) -> Result<(CallId, Vec<Effect>), Refusal> {
        self.callers += 1;
        let caller = Caller(self.callers);
        let id = self.core.external_call(self.now, function, caller, None, &mut self.effects)?;
        Ok((id, std::mem::take(&mut self.effects)))
    }

    fn call(&mut self, function: FunctionId) -> (CallId, Vec<Effect>) {
        self.try_call(function).unwrap()
    }

    fn try_nest(
        &mut self,
        from: WorkerId,
        token: u32,
        to: Option<FunctionId>,
    ) -> Result<(CallId, Vec<Effect>), Violation> {
        let (now, effects) = (self.now, &mut self.effects);
        let id = self.core.internal_call(now, from, token, to, u64::MAX, effects)?;
        Ok((id, std::mem::take(&mut self.effects)))
    }

    fn nest(&mut self, from: WorkerId, token: u32, to: FunctionId) -> (CallId, Vec<Effect>) {
        self.try_nest(from, token, Some(to)).unwrap()
    }

    fn complete(&mut self, worker: WorkerId, call: CallId) -> Vec<Effect> {
        self.tell(Event::Completed {
            worker,
            call,
            outcome: Outcome::Ok,
            ran_ns: LONG,
            usage: None,
        })
    }

    fn complete_short(&mut self, worker: WorkerId, call: CallId) -> Vec<Effect> {
        self.tell(Event::Completed {
            worker,
            call,
            outcome: Outcome::Ok,
            ran_ns: 1_000,
            usage: None,
        })
    }

    fn pass(&mut self, time: Duration) -> Vec<Effect> {
        self.now = self.now + time;
        self.tell(Event::Tick)
    }
}

fn spec(workers: u16, max_workers: u16, queue_max: u32) -> FunctionSpec {
    FunctionSpec {
        min_workers: workers,
        max_workers,
        timeout: TIMEOUT,
        queue_max,
        pipeline_max: 2,
        policy: Policy::Fixed,
        cores: 1,
        queue_wait_max: None,
        grace: Duration::from_secs(1),
    }
}

fn worker(function: FunctionId, lane: u16) -> WorkerId {
    WorkerId { function, lane: LaneIndex(lane) }
}

/// The outcomes of the answers among `effects`, in order.
fn answers(effects: &[Effect]) -> Vec<(CallId, Outcome)> {
    let answer = |effect: &Effect| match *effect {
        Effect::Answer { call, reply, .. } => Some((call, reply.outcome())),
        _ => None,
    };
    effects.iter().filter_map(answer).collect()
}

#[test]
fn a_call_runs_on_an_idle_worker_and_its_result_is_held_until_released() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 1, 8);
    let lane = worker(f, 0);
    let (first, effects) = stage.call(f);
    assert_eq!(effects, [Effect::Dispatch { worker: lane, call: first }]);
    let (second, effects) = stage.call(f);
    assert_eq!(effects, []);
    let effects = stage.complete(lane, first);
    let reply = Reply::Completed { worker: lane, outcome: Outcome::Ok };
    let origin = Origin::External(Caller(1));
    assert_eq!(effects, [Effect::Answer { call: first, origin, reply }]);
    assert!(stage.core.call(first).is_none());
    let effects = stage.tell(Event::Released { worker: lane, call: first });
    assert_eq!(effects, [Effect::Dispatch { worker: lane, call: second }]);
}

#[test]
fn the_most_recently_idle_worker_comes_first() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(3, 3, 8);
    let [(a, _), (b, _), (c, _)] = [stage.call(f), stage.call(f), stage.call(f)];
    // Started in order 0, 1, 2, so that the last to start serves the first call.
    for (lane, call) in [(2, a), (0, c), (1, b)] {
        let worker = worker(f, lane);
        stage.complete(worker, call);
        stage.tell(Event::Released { worker, call });
    }
    let (call, effects) = stage.call(f);
    assert_eq!(effects, [Effect::Dispatch { worker: worker(f, 1), call }]);
}

#[test]
fn calls_for_a_container_that_is_down_wait_for_it() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.core.add_function(spec(0, 2, 8));
    let (call, effects) = stage.call(f);
    assert_eq!(effects, []);
    let effects = stage.tell(Event::ContainerUp { function: f });
    assert_eq!(effects, [Effect::SpawnWorker { worker: worker(f, 0) }]);
    let effects = stage.tell(Event::WorkerStarted { worker: worker(f, 0) });
    assert_eq!(effects, [Effect::Dispatch { worker: worker(f, 0), call }]);
}

#[test]
fn an_internal_call_is_answered_at_the_worker_that_made_it() {
    let mut stage = Stage::new(Limits::default());
    let (f, g) = (stage.deploy(1, 1, 8), stage.deploy(1, 1, 8));
    let (caller, callee) = (worker(f, 0), worker(g, 0));
    let (parent, _) = stage.call(f);
    let (child, effects) = stage.nest(caller, 7, g);
    assert_eq!(effects, [Effect::Dispatch { worker: callee, call: child }]);
    assert_eq!(stage.core.call(child).unwrap().depth, 1);
    assert_eq!(stage.core.snapshot(f).waiting, 1);
    let effects = stage.complete(callee, child);
    let origin = Origin::Internal { parent, worker: caller, token: 7 };
    let reply = Reply::Completed { worker: callee, outcome: Outcome::Ok };
    assert_eq!(effects, [Effect::Answer { call: child, origin, reply }]);
    assert_eq!(stage.core.snapshot(f).running, 1);
    assert_eq!(stage.core.snapshot(g).held, 1);
}

#[test]
fn an_internal_call_that_cannot_be_taken_is_answered_at_once() {
    let mut stage = Stage::new(Limits { calls_max: 3, depth_max: 1 });
    let (f, g) = (stage.deploy(1, 1, 8), stage.deploy(1, 1, 0));
    let (top, leaf) = (worker(f, 0), worker(g, 0));
    let (parent, _) = stage.call(f);
    let refused = |stage: &mut Stage, from, parent, token, to| {
        let (call, effects) = stage.try_nest(from, token, to).unwrap();
        assert!(stage.core.call(call).is_none());
        assert_eq!(effects[0], Effect::DropPayload { call });
        let Effect::Answer { origin, .. } = effects[1] else { panic!("{effects:?}") };
        assert_eq!(origin, Origin::Internal { parent, worker: from, token });
        answers(&effects)[0].1
    };
    assert_eq!(refused(&mut stage, top, parent, 1, None), Outcome::NotFound);
    let (child, _) = stage.nest(top, 1, g);
    assert_eq!(refused(&mut stage, top, parent, 2, Some(g)), Outcome::Overloaded);
    assert_eq!(refused(&mut stage, leaf, child, 1, Some(g)), Outcome::TooDeep);
    stage.call(f);
    assert_eq!(refused(&mut stage, top, parent, 2, Some(f)), Outcome::Overloaded);
    stage.now = stage.now + TIMEOUT;
    assert_eq!(refused(&mut stage, top, parent, 2, Some(f)), Outcome::DeadlineExceeded);
}

#[test]
fn queue_and_table_are_bounded_for_external_calls_too() {
    let mut stage = Stage::new(Limits { calls_max: 3, depth_max: 1 });
    let (f, g) = (stage.deploy(1, 1, 1), stage.deploy(1, 1, 1));
    stage.call(f);
    stage.call(f);
    let refusal = stage.try_call(f).unwrap_err();
    assert_eq!((refusal.outcome, refusal.retry_after_s), (Outcome::Overloaded, Some(1)));
    stage.call(g);
    assert_eq!(stage.try_call(g).unwrap_err().outcome, Outcome::Overloaded);
    assert_eq!(stage.core.snapshot(f).counters.failed(Outcome::Overloaded), 1);
    assert_eq!(stage.core.snapshot(f).counters.arrivals, 3);
}

#[test]
fn an_external_deadline_only_ever_shortens_the_timeout() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 1, 8);
    let mut with = |deadline| {
        let (now, effects) = (stage.now, &mut stage.effects);
        let id = stage.core.external_call(now, f, Caller(0), Some(deadline), effects)?;
        Ok::<_, Refusal>(stage.core.call(id).unwrap().deadline)
    };
    let (start, soon) = (Nanos(1_000_000_000), Duration::from_secs(1));
    assert_eq!(with(start + soon).unwrap(), start + soon);
    assert_eq!(with(Nanos(u64::MAX)).unwrap(), start + TIMEOUT);
    assert_eq!(with(start).unwrap_err().outcome, Outcome::DeadlineExceeded);
}

#[test]
fn a_passed_deadline_answers_at_once_and_a_running_worker_stays_busy() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 1, 8);
    let lane = worker(f, 0);
    let (running, _) = stage.call(f);
    let (queued, _) = stage.call(f);
    let effects = stage.pass(TIMEOUT + Duration::from_millis(2));
    assert_eq!(effects.len(), 3);
    assert!(effects.contains(&Effect::DropPayload { call: queued }));
    let mut answered = answers(&effects);
    answered.sort_by_key(|(call, _)| call.0);
    let late = Outcome::DeadlineExceeded;
    assert_eq!(answered, [(running, late), (queued, late)]);
    let (next, effects) = stage.call(f);
    assert_eq!(effects, []);
    let effects = stage.complete(lane, running);
    assert_eq!(effects, [Effect::Dispatch { worker: lane, call: next }]);
}

#[test]
fn a_child_inherits_the_parents_deadline() {
    let mut stage = Stage::new(Limits::default());
    let (f, g) = (stage.deploy(1, 1, 8), stage.deploy(1, 1, 8));
    let (parent, _) = stage.call(f);
    stage.now = stage.now + Duration::from_secs(1);
    let (child, _) = stage.nest(worker(f, 0), 1, g);
    let deadline = |id| stage.core.call(id).unwrap().deadline;
    assert_eq!(deadline(child), deadline(parent));
}

#[test]
fn a_call_whose_caller_is_gone_is_dropped_or_cancelled() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 1, 8);
    let lane = worker(f, 0);
    let [(running, _), (queued, _)] = [stage.call(f), stage.call(f)];
    let effects = stage.tell(Event::CallerGone { call: queued });
    assert_eq!(effects, [Effect::DropPayload { call: queued }]);
    let effects = stage.tell(Event::CallerGone { call: running });
    assert_eq!(effects, [Effect::CancelWorker { worker: lane, call: running }]);
    assert_eq!(stage.tell(Event::CallerGone { call: running }), []);
    assert_eq!(stage.complete(lane, running), []);
    assert_eq!(stage.core.snapshot(f).idle, 1);
    assert_eq!(stage.core.snapshot(f).counters.abandoned, 2);
    assert_eq!(stage.tell(Event::CallerGone { call: running }), []);
}

#[test]
fn a_parent_that_completes_drops_its_queued_children_and_disowns_the_running() {
    let mut stage = Stage::new(Limits::default());
    let (f, g) = (stage.deploy(1, 1, 8), stage.deploy(1, 1, 8));
    let (caller, callee) = (worker(f, 0), worker(g, 0));
    let (parent, _) = stage.call(f);
    let [(running, _), (queued, _)] = [stage.nest(caller, 1, g), stage.nest(caller, 2, g)];
    let effects = stage.complete(caller, parent);
    assert_eq!(effects[0], Effect::DropPayload { call: queued });
    assert_eq!(answers(&effects), [(parent, Outcome::Ok)]);
    assert_eq!(stage.complete(callee, running), []);
    assert_eq!(stage.core.snapshot(g).idle, 1);
    assert_eq!(stage.core.calls_live(), 0);
}

#[test]
fn a_dead_container_fails_what_it_ran_and_keeps_what_waited_for_it() {
    let mut stage = Stage::new(Limits::default());
    let (f, g) = (stage.deploy(1, 1, 8), stage.deploy(1, 1, 8));
    let (parent, _) = stage.call(f);
    let (child, _) = stage.nest(worker(f, 0), 1, g);
    let (waits_in_f, _) = stage.call(f);
    let (orphan, _) = stage.nest(worker(f, 0), 2, g);
    let effects = stage.tell(Event::ContainerDown { function: f });
    assert_eq!(effects[0], Effect::DropPayload { call: orphan });
    assert_eq!(answers(&effects), [(parent, Outcome::ContainerDied)]);
    assert_eq!(stage.core.snapshot(f).queued, 1);
    assert_eq!(stage.complete(worker(g, 0), child), []);
    stage.tell(Event::ContainerUp { function: f });
    let effects = stage.tell(Event::WorkerStarted { worker: worker(f, 0) });
    assert_eq!(effects, [Effect::Dispatch { worker: worker(f, 0), call: waits_in_f }]);
}

#[test]
fn a_dead_callee_is_reported_to_the_worker_that_waits() {
    let mut stage = Stage::new(Limits::default());
    let (f, g) = (stage.deploy(1, 1, 8), stage.deploy(1, 1, 8));
    stage.call(f);
    let (child, _) = stage.nest(worker(f, 0), 1, g);
    let effects = stage.tell(Event::ContainerDown { function: g });
    assert_eq!(answers(&effects), [(child, Outcome::ContainerDied)]);
    assert_eq!(stage.core.snapshot(f).running, 1);
}

#[test]
fn a_release_from_before_a_crash_does_not_free_the_next_worker_of_the_lane() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 1, 8);
    let lane = worker(f, 0);
    let (old, _) = stage.call(f);
    stage.complete(lane, old);
    stage.tell(Event::ContainerDown { function: f });
    stage.tell(Event::ContainerUp { function: f });
    stage.tell(Event::WorkerStarted { worker: lane });
    let (new, _) = stage.call(f);
    stage.complete(lane, new);
    stage.tell(Event::Released { worker: lane, call: old });
    assert_eq!(stage.core.worker(lane), WorkerState::Held { call: new });
}

#[test]
fn what_no_correct_container_does_is_a_violation_and_changes_nothing() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(2, 2, 64);
    let (busy, idle) = (worker(f, 1), worker(f, 0));
    let (call, _) = stage.call(f);
    let completed = |worker, call| Event::Completed {
        worker,
        call,
        outcome: Outcome::Ok,
        ran_ns: 0,
        usage: None,
    };
    let stale = CallId::new(call.slot(), call.generation().wrapping_sub(1));
    let wrong = stage.try_tell(completed(busy, stale)).unwrap_err();
    assert_eq!(wrong, Violation::WrongCall { worker: busy, expected: call, got: stale });
    let lie = stage.try_tell(completed(idle, call)).unwrap_err();
    assert!(matches!(lie, Violation::Unexpected { state: "idle", .. }), "{lie}");
    let lane = stage.try_tell(completed(worker(f, 2), call)).unwrap_err();
    assert_eq!(lane, Violation::NoSuchLane { worker: worker(f, 2) });
    let unasked = stage.try_nest(idle, 1, Some(f)).unwrap_err();
    assert_eq!(unasked, Violation::NotOnCall { worker: idle, state: "idle" });
    stage.nest(busy, 0, f);
    let twice = stage.try_nest(busy, 0, Some(f)).unwrap_err();
    assert_eq!(twice, Violation::TokenInUse { worker: busy, token: 0 });
    for token in 1..48 {
        stage.nest(busy, token, f);
    }
    let flood = stage.try_nest(busy, 48, Some(f)).unwrap_err();
    assert_eq!(flood, Violation::TooManyOutstanding { worker: busy, max: 48 });
    assert_eq!(stage.core.snapshot(f).counters.arrivals, 49);
}

#[test]
fn after_drain_external_calls_are_refused_and_internal_ones_go_on() {
    let mut stage = Stage::new(Limits::default());
    let (f, g) = (stage.deploy(1, 1, 8), stage.deploy(1, 1, 8));
    stage.call(f);
    stage.tell(Event::Drain);
    assert_eq!(stage.try_call(g).unwrap_err().outcome, Outcome::Unavailable);
    let (child, effects) = stage.nest(worker(f, 0), 1, g);
    assert_eq!(effects, [Effect::Dispatch { worker: worker(g, 0), call: child }]);
}

#[test]
fn the_pool_grows_one_worker_at_a_time_while_calls_wait() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(0, 2, 8);
    let spawn = |lane| Effect::SpawnWorker { worker: worker(f, lane) };
    let (first, effects) = stage.call(f);
    assert_eq!(effects, [spawn(0)]);
    assert_eq!(stage.call(f).1, []);
    let effects = stage.tell(Event::WorkerStarted { worker: worker(f, 0) });
    assert_eq!(effects, [Effect::Dispatch { worker: worker(f, 0), call: first }, spawn(1)]);
    assert_eq!(stage.call(f).1, []);
}
