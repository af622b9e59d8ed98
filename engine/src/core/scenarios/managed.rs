//! Concurrency by measured load, limits, overload, calls that wait for each other, calls that run on.

use std::num::NonZeroU32;
use std::sync::Arc;

use ipc::Usage;

use super::*;

const MS: Duration = Duration::from_millis(1);

impl Stage {
    /// A managed function of 8 idle workers whose calls are known to take 1 ms of CPU.
    fn computing(&mut self, timeout: Duration) -> FunctionId {
        self.computing_spec(FunctionSpec { timeout, ..spec(8, 32, 1_000) })
    }

    fn computing_spec(&mut self, spec: FunctionSpec) -> FunctionId {
        let f = self.deploy_spec(FunctionSpec { policy: Policy::Managed, ..spec });
        for _ in 0..20 {
            let (call, effects) = self.call(f);
            let [Effect::Dispatch { worker, .. }] = effects[..] else { panic!("{effects:?}") };
            self.compute(worker, call);
        }
        f
    }

    /// The worker completes the call after 1 ms of CPU and its result is read.
    fn compute(&mut self, worker: WorkerId, call: CallId) -> Vec<Effect> {
        self.now = self.now + MS;
        let usage = Some(Usage { calls: NonZeroU32::MIN, cpu_ns: LONG, idle_ns: 0 });
        let (outcome, ran_ns) = (Outcome::Ok, LONG);
        let mut effects = self.tell(Event::Completed { worker, call, outcome, ran_ns, usage });
        effects.extend(self.tell(Event::Released { worker, call }));
        effects
    }
}

/// Who was given which calls.
fn dispatched(effects: &[Effect]) -> Vec<(WorkerId, CallId)> {
    let dispatch = |effect: &Effect| match *effect {
        Effect::Dispatch { worker, call } => Some((worker, call)),
        _ => None,
    };
    effects.iter().filter_map(dispatch).collect()
}

#[test]
fn a_worker_that_waits_leaves_its_core_to_another_call() {
    let mut stage = Stage::new(Limits::default());
    let other = stage.deploy(1, 1, 8);
    let f = stage.computing(TIMEOUT);
    let calls = [(); 3].map(|()| stage.call(f));
    let [(on_first, _)] = dispatched(&calls[0].1)[..] else { panic!("{calls:?}") };
    assert_eq!((dispatched(&calls[1].1).len(), &calls[2].1[..]), (1, &[][..]));
    let (_, effects) = stage.nest(on_first, 1, other);
    assert_eq!(dispatched(&effects)[1].1, calls[2].0);
}

#[test]
fn functions_that_wait_for_each_other_with_all_workers_fail_one_call_and_go_on() {
    let mut stage = Stage::new(Limits::default());
    let [a, b] = [stage.deploy(1, 1, 8), stage.deploy(1, 1, 8)];
    let (from_a, _) = stage.call(a);
    let (from_b, _) = stage.call(b);
    let (to_b, effects) = stage.nest(worker(a, 0), 1, b);
    assert_eq!(effects, []);
    assert_eq!(answers(&stage.pass(MS * 10)), [], "b runs: it may end");
    let (to_a, effects) = stage.nest(worker(b, 0), 1, a);
    assert_eq!(effects, []);
    let effects = stage.pass(MS * 10);
    let failed = answers(&effects);
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0] == (to_a, Outcome::Deadlock) || failed[0] == (to_b, Outcome::Deadlock));
    // Whoever got the failure ends, and then the other one's call is served.
    let (first, call) = if failed[0].0 == to_a { (b, from_b) } else { (a, from_a) };
    stage.complete(worker(first, 0), call);
    let effects = stage.tell(Event::Released { worker: worker(first, 0), call });
    assert_eq!(dispatched(&effects).len(), 1);
    assert_eq!(answers(&stage.pass(MS * 200)), []);
}

#[test]
fn a_chain_that_waits_for_a_function_that_runs_is_no_deadlock() {
    let mut stage = Stage::new(Limits::default());
    let [a, b] = [stage.deploy(1, 1, 8), stage.deploy(1, 1, 8)];
    stage.call(a);
    stage.nest(worker(a, 0), 1, b);
    let (queued, _) = stage.call(a);
    assert_eq!(stage.pass(Duration::from_secs(5)), []);
    assert!(stage.core.call(queued).is_some());
}

#[test]
fn a_call_below_its_own_function_goes_before_those_that_would_take_its_worker() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(2, 2, 8);
    let [(root, _), (other, _), (queued, _)] = [stage.call(f), stage.call(f), stage.call(f)];
    let (nested, effects) = stage.nest(worker(f, 1), 1, f);
    assert_eq!(effects, []);
    stage.complete(worker(f, 0), other);
    let effects = stage.tell(Event::Released { worker: worker(f, 0), call: other });
    assert_eq!(dispatched(&effects), [(worker(f, 0), nested)]);
    stage.complete(worker(f, 0), nested);
    // One tree takes both workers: the next waits until this one is through.
    let effects = stage.tell(Event::Released { worker: worker(f, 0), call: nested });
    assert_eq!(effects, []);
    let effects = stage.complete(worker(f, 1), root);
    assert_eq!(dispatched(&effects), [(worker(f, 0), queued)]);
}

#[test]
fn a_call_that_would_miss_its_deadline_in_the_queue_is_refused_at_once() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.computing(MS * 100);
    let mut taken = 0;
    let refusal = loop {
        match stage.try_call(f) {
            Ok(_) => taken += 1,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refusal.outcome, refusal.retry_after_s), (Outcome::Overloaded, Some(1)));
    // Of 1 ms each, on a core that runs two at once in 2 ms.
    assert!((70..=180).contains(&taken), "{taken} calls were taken");
}

#[test]
fn a_wait_longer_than_the_function_allows_is_refused() {
    let mut stage = Stage::new(Limits::default());
    let spec = FunctionSpec { queue_wait_max: Some(MS * 5), ..spec(8, 32, 1_000) };
    let f = stage.computing_spec(spec);
    let taken = std::iter::from_fn(|| stage.try_call(f).ok()).count();
    assert!((4..=14).contains(&taken), "{taken} calls were taken");
}

#[test]
fn limits_of_the_owner_hold_until_calls_end() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 1, 8);
    stage.core.set_quota(f, Some(Arc::new(Quota::new(Some(2), None))));
    let [(first, _), (second, _)] = [stage.call(f), stage.call(f)];
    assert_eq!(stage.try_call(f).unwrap_err().outcome, Outcome::LimitReached);
    stage.tell(Event::CallerGone { call: second });
    stage.call(f);
    assert_eq!(stage.try_call(f).unwrap_err().outcome, Outcome::LimitReached);
    // Its answer is not owed any more, but it runs and counts.
    stage.tell(Event::CallerGone { call: first });
    assert_eq!(stage.try_call(f).unwrap_err().outcome, Outcome::LimitReached);
    stage.complete(worker(f, 0), first);
    stage.call(f);
}

#[test]
fn a_call_that_runs_on_costs_the_container_after_the_functions_timeout_and_grace() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 1, 8);
    let (caller, deadline) = (Caller(7), Some(stage.now + MS));
    let (now, effects) = (stage.now, &mut stage.effects);
    let call = stage.core.external_call(now, f, caller, deadline, effects).unwrap();
    stage.effects.clear();
    assert_eq!(answers(&stage.pass(MS * 2)), [(call, Outcome::DeadlineExceeded)]);
    // What a client allows is not what the function may take.
    assert_eq!(stage.pass(TIMEOUT), []);
    let effects = stage.pass(Duration::from_secs(1));
    assert_eq!(
        effects,
        [Effect::ReplaceContainer { worker: worker(f, 0), overdue: Overdue::Call }]
    );
}

#[test]
fn a_call_that_ends_within_its_grace_costs_nothing() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 1, 8);
    let (call, _) = stage.call(f);
    assert_eq!(answers(&stage.pass(TIMEOUT + MS)), [(call, Outcome::DeadlineExceeded)]);
    assert_eq!(stage.complete(worker(f, 0), call), []);
    assert_eq!(stage.pass(Duration::from_secs(5)), []);
    assert_eq!(stage.core.next_timer(), None);
}

#[test]
fn a_worker_that_is_not_heard_of_costs_the_container() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 2, 8);
    let (first, _) = stage.call(f);
    let (second, effects) = stage.call(f);
    let asked = worker(f, 1);
    assert!(effects.contains(&Effect::SpawnWorker { worker: asked }));
    stage.complete(worker(f, 0), first);
    stage.tell(Event::Released { worker: worker(f, 0), call: first });
    stage.complete(worker(f, 0), second);
    assert_eq!(stage.pass(TIMEOUT), []);
    let effects = stage.pass(Duration::from_secs(1));
    assert_eq!(effects, [Effect::ReplaceContainer { worker: asked, overdue: Overdue::Worker }]);
}

#[test]
fn a_worker_that_is_heard_of_in_time_costs_nothing() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 2, 8);
    let (call, _) = stage.call(f);
    stage.complete(worker(f, 0), call);
    stage.tell(Event::Released { worker: worker(f, 0), call });
    for _ in 0..10 {
        let effects = stage.pass(TIMEOUT);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::ReplaceContainer { .. })));
    }
}
