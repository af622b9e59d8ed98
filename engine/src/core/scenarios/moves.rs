//! Calls that move to another shard, and calls that come from one.

use super::*;

const MS: u64 = 1_000_000;
const SHARD: u16 = 1;

impl Stage {
    /// A function whose calls take a millisecond, with idle workers.
    pub(super) fn deploy_costly(&mut self, workers: u16) -> FunctionId {
        let f = self.deploy(workers, workers, 16);
        self.learn_cost(f, LONG);
        f
    }

    /// Has a call run for so many ns.
    fn learn_cost(&mut self, f: FunctionId, ran_ns: u32) {
        let (call, effects) = self.call(f);
        let Effect::Dispatch { worker, .. } = effects[0] else { panic!("{effects:?}") };
        let outcome = Outcome::Ok;
        self.tell(Event::Completed { worker, call, outcome, ran_ns, usage: None });
        self.tell(Event::Released { worker, call });
    }

    /// Another shard has so much to do.
    fn relieve(&mut self, work_ns: u64) {
        self.core.set_relief(Some(Relief { shard: SHARD, work_ns }));
    }

    /// The second of two calls, which has moved.
    pub(super) fn call_away(&mut self, f: FunctionId) -> CallId {
        self.call(f);
        self.relieve(0);
        let (call, effects) = self.call(f);
        assert_eq!(effects, [moves(call)]);
        call
    }

    /// A call of `SHARD`, which has that number there.
    fn foreign(&mut self, f: FunctionId, number: u64) -> Option<(CallId, Vec<Effect>)> {
        self.foreign_below(f, number, &[])
    }

    /// The same, below calls of these functions.
    fn foreign_below(
        &mut self,
        function: FunctionId,
        number: u64,
        above: &[FunctionId],
    ) -> Option<(CallId, Vec<Effect>)> {
        let (shard, call, deadline) = (SHARD, CallId(number), self.now + TIMEOUT);
        let (depth, above, cost_ns) = (3, above.into(), MS);
        let foreign = ForeignCall { shard, call, function, deadline, depth, above, cost_ns };
        let id = self.core.foreign_call(self.now, foreign, &mut self.effects)?;
        Some((id, std::mem::take(&mut self.effects)))
    }
}

fn moves(call: CallId) -> Effect {
    Effect::Move { call, shard: SHARD, cost_ns: MS }
}

fn home(number: u64) -> Origin {
    Origin::Shard { shard: SHARD, call: CallId(number) }
}

fn is_move(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Move { .. }))
}

#[test]
fn eight_calls_of_a_millisecond_split_evenly_though_a_worker_is_idle_for_each() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy_costly(8);
    stage.relieve(0);
    let moved = (0..8).map(|_| is_move(&stage.call(f).1));
    assert_eq!(moved.collect::<Vec<_>>(), [false, true, false, true, false, true, false, true]);
    assert_eq!((stage.core.work_ns(), stage.core.calls_away()), (4 * MS, 4));
}

#[test]
fn a_queue_empties_from_its_end_once_another_shard_has_less_to_do() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy_costly(2);
    stage.relieve(100 * MS);
    let calls = [(); 6].map(|()| stage.call(f).0);
    assert_eq!(stage.core.snapshot(f).queued, 4);
    stage.relieve(0);
    let effects = stage.complete(worker(f, 1), calls[0]);
    assert_eq!(answers(&effects), [(calls[0], Outcome::Ok)]);
    assert_eq!(effects[1..], [moves(calls[5]), moves(calls[4])]);
    let released = stage.tell(Event::Released { worker: worker(f, 1), call: calls[0] });
    assert_eq!(released, [Effect::Dispatch { worker: worker(f, 1), call: calls[2] }]);
    assert_eq!(stage.core.snapshot(f).queued, 1);
}

#[test]
fn a_queue_is_looked_at_again_though_nothing_happens_here() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy_costly(2);
    stage.relieve(100 * MS);
    let calls = [(); 3].map(|()| stage.call(f).0);
    assert_eq!(stage.pass(Duration::from_millis(2)), []);
    stage.relieve(0);
    assert_eq!(stage.pass(Duration::from_millis(2)), [moves(calls[2])]);
}

#[test]
fn calls_stay_where_a_move_does_not_pay_off() {
    let stays = |deploy: fn(&mut Stage) -> FunctionId, others_work: Option<u64>| {
        let mut stage = Stage::new(Limits::default());
        let f = deploy(&mut stage);
        let other = stage.deploy_costly(8);
        stage.core.set_relief(None);
        (0..2).for_each(|_| _ = stage.call(other));
        let relief = others_work.map(|work_ns| Relief { shard: SHARD, work_ns });
        stage.core.set_relief(relief);
        !is_move(&stage.call(f).1)
    };
    let costly: fn(&mut Stage) -> FunctionId = |stage| stage.deploy_costly(2);
    assert!(!stays(costly, Some(0)));
    assert!(stays(costly, None), "there is no other shard");
    assert!(stays(costly, Some(2 * MS - 140_000)), "the other one has as much to do");
    assert!(stays(|stage| stage.deploy_costly(1), Some(0)), "its only worker would have to move");
    assert!(stays(|stage| stage.deploy(2, 2, 16), Some(0)), "nobody knows what it costs");
    let cheap: fn(&mut Stage) -> FunctionId = |stage| {
        let f = stage.deploy(2, 2, 16);
        stage.learn_cost(f, 90_000);
        f
    };
    assert!(stays(cheap, Some(0)), "it is short");
}

#[test]
fn a_chain_stays_on_its_core_and_a_second_child_does_not() {
    let mut stage = Stage::new(Limits::default());
    let (f, g, h) = (stage.deploy_costly(2), stage.deploy_costly(2), stage.deploy_costly(2));
    stage.relieve(0);
    stage.call(f);
    assert!(!is_move(&stage.nest(worker(f, 1), 1, g).1));
    assert!(!is_move(&stage.nest(worker(g, 1), 1, h).1));
    let (second, effects) = stage.nest(worker(g, 1), 2, h);
    assert_eq!(effects, [moves(second)]);
}

#[test]
fn the_answer_of_another_shard_goes_to_whoever_asked() {
    let mut stage = Stage::new(Limits::default());
    let (f, g) = (stage.deploy_costly(2), stage.deploy_costly(2));
    let (parent, _) = stage.call(f);
    stage.nest(worker(f, 1), 1, g);
    stage.relieve(0);
    let (child, effects) = stage.nest(worker(f, 1), 2, g);
    assert_eq!(effects, [moves(child)]);
    assert_eq!(stage.core.away(child), Some(g));
    let reply = Reply::Returned { outcome: Outcome::FunctionError };
    let effects = stage.tell(Event::Returned { call: child, reply });
    let origin = Origin::Internal { parent, worker: worker(f, 1), token: 2 };
    assert_eq!(effects, [Effect::Answer { call: child, origin, reply }]);
    assert_eq!(stage.core.snapshot(g).counters.failed(Outcome::FunctionError), 1);
    assert_eq!((stage.core.calls_away(), stage.core.calls_live()), (0, 2));
    assert_eq!(stage.tell(Event::Returned { call: child, reply }), []);
}

#[test]
fn a_call_that_is_away_meets_its_deadline_at_home() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy_costly(2);
    let call = stage.call_away(f);
    let effects = stage.pass(TIMEOUT + Duration::from_millis(2));
    assert!(answers(&effects).contains(&(call, Outcome::DeadlineExceeded)));
    assert_eq!((stage.core.calls_away(), stage.core.calls_live()), (0, 1));
    let late = Reply::Returned { outcome: Outcome::Ok };
    assert_eq!(stage.tell(Event::Returned { call, reply: late }), []);
    assert_eq!(stage.tell(Event::Bounced { call }), []);
}

#[test]
fn a_call_that_is_away_is_recalled_when_its_caller_leaves() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy_costly(2);
    let call = stage.call_away(f);
    let effects = stage.tell(Event::CallerGone { call });
    assert_eq!(effects, [Effect::Recall { call, shard: SHARD, leaver: Leaver::Caller }]);
    assert!(stage.core.call(call).is_none());
    assert_eq!(stage.core.snapshot(f).counters.abandoned, 1);
}

#[test]
fn a_call_that_is_away_is_recalled_when_its_parent_ends_or_dies() {
    for dies in [true, false] {
        let mut stage = Stage::new(Limits::default());
        let (f, g) = (stage.deploy_costly(2), stage.deploy_costly(2));
        let (parent, _) = stage.call(f);
        stage.nest(worker(f, 1), 1, g);
        stage.relieve(0);
        let (child, _) = stage.nest(worker(f, 1), 2, g);
        let effects = if dies {
            stage.tell(Event::ContainerDown { function: f })
        } else {
            stage.complete(worker(f, 1), parent)
        };
        let recall = Effect::Recall { call: child, shard: SHARD, leaver: Leaver::Parent };
        assert_eq!(effects[0], recall);
        assert_eq!(stage.core.calls_away(), 0);
    }
}

#[test]
fn a_call_that_comes_back_is_first_in_its_queue_and_stays() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy_costly(2);
    let call = stage.call_away(f);
    stage.relieve(100 * MS);
    let [(busy, _), (waits, _)] = [stage.call(f), stage.call(f)];
    assert_eq!(stage.tell(Event::Bounced { call }), []);
    stage.relieve(0);
    stage.complete(worker(f, 0), busy);
    let effects = stage.tell(Event::Released { worker: worker(f, 0), call: busy });
    assert_eq!(effects, [Effect::Dispatch { worker: worker(f, 0), call }]);
    assert_eq!(stage.core.snapshot(f).queued, 1, "{waits:?} stays, for the other had no worker");
    assert_eq!(stage.core.work_ns(), 3 * MS);
}

#[test]
fn a_foreign_call_runs_like_any_other_and_counts_at_home_alone() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy_costly(2);
    let before = stage.core.snapshot(f).counters;
    let (call, effects) = stage.foreign(f, 7).unwrap();
    assert_eq!(effects, [Effect::Dispatch { worker: worker(f, 1), call }]);
    assert_eq!((stage.core.work_ns(), stage.core.calls_foreign()), (MS, 1));
    let (child, _) = stage.nest(worker(f, 1), 1, f);
    assert_eq!(stage.core.call(child).unwrap().depth, 4);
    stage.complete(worker(f, 0), child);
    let effects = stage.complete(worker(f, 1), call);
    let reply = Reply::Completed { worker: worker(f, 1), outcome: Outcome::Ok };
    assert_eq!(effects, [Effect::Answer { call, origin: home(7), reply }]);
    assert_eq!((stage.core.work_ns(), stage.core.calls_foreign()), (0, 0));
    let after = stage.core.snapshot(f).counters;
    assert_eq!((after.arrivals, after.completed), (before.arrivals + 1, before.completed + 1));
}

#[test]
fn a_foreign_call_does_not_move_on() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy_costly(2);
    (0..2).for_each(|_| _ = stage.call(f));
    stage.relieve(0);
    assert_eq!(stage.foreign(f, 7).unwrap().1, []);
    assert_eq!(stage.core.snapshot(f).queued, 1);
}

#[test]
fn a_foreign_call_dies_with_the_container_that_runs_it() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy_costly(2);
    let (call, _) = stage.foreign(f, 7).unwrap();
    let effects = stage.tell(Event::ContainerDown { function: f });
    assert_eq!(answers(&effects), [(call, Outcome::ContainerDied)]);
    assert_eq!(stage.core.calls_foreign(), 0);
    assert!(stage.foreign(f, 8).is_none(), "there is no container");
}

#[test]
fn a_foreign_call_goes_back_when_it_cannot_be_taken() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(1, 1, 1);
    assert!(stage.foreign(f, 1).is_some());
    assert!(stage.foreign(f, 2).is_some());
    assert!(stage.foreign(f, 3).is_none(), "the queue is full");
    let g = stage.deploy(1, 1, 1);
    stage.tell(Event::Drain);
    assert!(stage.foreign(g, 4).is_none(), "it is draining");
}

#[test]
fn foreign_calls_go_back_when_no_worker_can_be_had() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(0, 2, 8);
    let spawn = Effect::SpawnWorker { worker: worker(f, 0) };
    let (first, effects) = stage.foreign(f, 1).unwrap();
    assert_eq!(effects, [spawn]);
    let (own, _) = stage.call(f);
    let (second, _) = stage.foreign(f, 2).unwrap();
    let effects = stage.tell(Event::NoRoom { worker: worker(f, 0) });
    let bounce = |call, number| Effect::Bounce { call, origin: home(number) };
    assert_eq!(effects, [bounce(first, 1), bounce(second, 2)]);
    assert!(stage.foreign(f, 3).is_none(), "nor can one be had a moment later");
    assert_eq!(stage.core.snapshot(f).queued, 1);
    assert_eq!(stage.tell(Event::WorkerFreed { function: f }), [spawn]);
    let effects = stage.tell(Event::WorkerStarted { worker: worker(f, 0) });
    assert_eq!(effects, [Effect::Dispatch { worker: worker(f, 0), call: own }]);
}

#[test]
fn a_recalled_call_is_dropped_cancelled_or_goes_on() {
    let mut stage = Stage::new(Limits::default());
    let f = stage.deploy(2, 2, 8);
    let [(a, _), (b, _), (c, _)] = [1, 2, 3].map(|number| stage.foreign(f, number).unwrap());
    let recall = |number, leaver| Event::Recalled { shard: SHARD, call: CallId(number), leaver };
    assert_eq!(stage.tell(recall(3, Leaver::Parent)), [Effect::DropPayload { call: c }]);
    assert_eq!(stage.tell(recall(2, Leaver::Parent)), []);
    let cancel = Effect::CancelWorker { worker: worker(f, 1), call: a };
    assert_eq!(stage.tell(recall(1, Leaver::Caller)), [cancel]);
    assert_eq!(stage.tell(recall(1, Leaver::Caller)), []);
    assert_eq!(stage.core.calls_foreign(), 0);
    assert_eq!(stage.complete(worker(f, 0), b), []);
    assert_eq!(stage.complete(worker(f, 1), a), []);
    assert_eq!(stage.core.snapshot(f).idle, 2);
}

#[test]
fn a_call_below_one_of_its_function_on_another_shard_goes_first() {
    let mut stage = Stage::new(Limits::default());
    let (f, g) = (stage.deploy_costly(1), stage.deploy_costly(2));
    let (busy, _) = stage.call(f);
    stage.call(f);
    stage.foreign_below(g, 7, &[f]).unwrap();
    let (child, _) = stage.nest(worker(g, 1), 1, f);
    let (sibling, _) = stage.nest(worker(g, 1), 2, g);
    let foreign = stage.core.to_foreign(0, child, MS).unwrap();
    assert_eq!((&*foreign.above, foreign.depth), (&[g, f][..], 4));
    assert_eq!(stage.core.call(sibling).unwrap().depth, 4);
    stage.complete(worker(f, 0), busy);
    let effects = stage.tell(Event::Released { worker: worker(f, 0), call: busy });
    assert_eq!(effects, [Effect::Dispatch { worker: worker(f, 0), call: child }]);
}
