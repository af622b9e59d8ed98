//! The model: what the world outside the core knows, and the invariants that follow from it.

use std::collections::BTreeSet;
use std::time::Duration;

use ipc::{CallId, LaneIndex};

use super::super::function::YIELD_PAUSE;
use super::super::*;
use super::{Known, TICK, Thread, World, key};

impl World {
    pub(super) fn tell(&mut self, event: Event) {
        self.core.on_event(self.now, event, &mut self.effects).unwrap();
        self.perform();
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        let effects = std::mem::take(&mut self.effects);
        self.trace.extend(&effects);
        effects
    }

    pub(super) fn learn(&mut self, call: CallId, origin: Origin, function: FunctionId) {
        assert!(self.ids.insert(call.0), "an id came twice");
        let deadline = self.core.call(call).unwrap().deadline;
        let order = self.ids.len();
        let is_foreign = matches!(origin, Origin::Shard { .. });
        let out_of_order = !is_foreign && self.is_below(origin, function);
        if out_of_order {
            self.nested.insert(function);
        }
        let known = Known {
            origin,
            function,
            deadline,
            worker: None,
            owed: true,
            order,
            out_of_order,
            begun: self.now,
            away: None,
            stays: false,
        };
        self.calls.insert(call.0, known);
    }

    fn is_below(&self, origin: Origin, function: FunctionId) -> bool {
        let parent = match origin {
            Origin::External(_) => return false,
            Origin::Internal { parent, .. } => parent,
            Origin::Shard { shard, call } => {
                return self.above[&(shard, call.0)].contains(&function);
            }
        };
        let Some(parent) = self.calls.get(&parent.0) else { return false };
        let asks = match parent.origin {
            // Whoever was above a foreign call is forgotten with its answer.
            Origin::Shard { .. } if !parent.owed => false,
            origin => self.is_below(origin, function),
        };
        parent.function == function || asks
    }

    /// The tokens under which the worker on `call` awaits answers.
    pub(super) fn children(&self, call: CallId) -> BTreeSet<u32> {
        let token = |known: &Known| match known.origin {
            Origin::Internal { parent, token, .. } if parent == call && known.owed => Some(token),
            _ => None,
        };
        self.calls.values().filter_map(token).collect()
    }

    pub(super) fn forget_children(&mut self, call: CallId) {
        let is_child = |known: &Known| matches!(known.origin, Origin::Internal { parent, .. } if parent == call);
        let children = self.calls.iter().filter(|(_, known)| known.owed && is_child(known));
        for id in children.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.abandon(id);
        }
    }

    pub(super) fn abandon(&mut self, id: u64) {
        let known = self.calls.get_mut(&id).unwrap();
        known.owed = false;
        if !matches!(known.origin, Origin::Shard { .. }) {
            self.counts[known.function.0 as usize][2] += 1;
        }
    }

    /// Does what the core asks for, and checks that it may ask.
    pub(super) fn perform(&mut self) {
        let effects = self.take_effects();
        let mut condemned = BTreeSet::new();
        for (index, &effect) in effects.iter().enumerate() {
            match effect {
                Effect::Dispatch { worker, call } => {
                    match self.threads[&key(worker)] {
                        Thread::Idle => {
                            self.threads.insert(key(worker), Thread::On(call));
                            self.calls.get_mut(&call.0).unwrap().begun = self.now;
                        }
                        Thread::On(_) => {
                            let behind = self.behind.entry(key(worker)).or_default();
                            behind.push_back(call);
                            let spec = &self.specs[worker.function.0 as usize];
                            assert!(behind.len() <= usize::from(spec.pipeline_max));
                        }
                        other => panic!("dispatched to a worker that is {other:?}"),
                    }
                    let known = self.calls.get_mut(&call.0).unwrap();
                    assert_eq!((known.worker, known.away, known.owed), (None, None, true));
                    assert_eq!(known.function, worker.function);
                    known.worker = Some(worker);
                    let (order, out_of_order) = (known.order, known.out_of_order);
                    let is_queued = |other: &&Known| other.worker.is_none() && other.away.is_none();
                    let mut queued = self.calls.values().filter(is_queued);
                    let overtaken = |other: &Known| {
                        other.function == worker.function
                            && other.order < order
                            && !other.out_of_order
                            && !out_of_order
                    };
                    assert!(!queued.any(overtaken), "a call overtook another");
                }
                Effect::DropPayload { call } => {
                    let known = self.calls[&call.0];
                    assert_eq!((known.worker, known.away), (None, None), "dropped after dispatch");
                    if known.owed {
                        let next = effects[index + 1];
                        assert!(matches!(next, Effect::Answer { call: c, .. } if c == call));
                    } else {
                        self.calls.remove(&call.0);
                    }
                }
                Effect::Answer { call, origin, reply } => {
                    let known = &self.calls[&call.0];
                    if known.worker.is_none() && known.away.is_none() {
                        assert_eq!(effects[index - 1], Effect::DropPayload { call });
                    }
                    self.answered(call, origin, reply);
                }
                Effect::SpawnWorker { worker } => {
                    assert!(self.up[worker.function.0 as usize]);
                    assert_eq!(self.threads.insert(key(worker), Thread::Starting), None);
                }
                Effect::RetireWorker { worker } => {
                    let before = self.threads.insert(key(worker), Thread::Retiring);
                    assert_eq!(before, Some(Thread::Idle));
                    // Trimmed or given up, and then the pool may not grow for a moment.
                    self.pause(worker.function, YIELD_PAUSE);
                }
                Effect::Move { call, shard, cost_ns } => self.moved(call, shard, cost_ns),
                Effect::Recall { call, shard, leaver } => {
                    let known = self.calls.remove(&call.0).unwrap();
                    assert_eq!((known.away, known.owed), (Some(shard), false));
                    assert_eq!(leaver, Leaver::Parent, "the caller did not leave");
                }
                Effect::Bounce { call, origin } => {
                    let known = self.calls.remove(&call.0).unwrap();
                    assert_eq!((known.origin, known.owed, known.worker), (origin, true, None));
                    assert!(matches!(origin, Origin::Shard { .. }));
                }
                Effect::CancelWorker { .. } => panic!("nobody left"),
                Effect::ReplaceContainer { worker, overdue: Overdue::Worker } => {
                    assert!(matches!(
                        self.threads[&key(worker)],
                        Thread::Starting | Thread::Retiring
                    ));
                    condemned.insert(worker.function);
                }
                Effect::ReplaceContainer { worker, overdue: Overdue::Call } => {
                    let Thread::On(call) = self.threads[&key(worker)] else {
                        panic!("not on a call")
                    };
                    let (known, spec) =
                        (&self.calls[&call.0], &self.specs[worker.function.index()]);
                    assert!(!known.owed, "somebody waits for it");
                    assert!(known.begun + spec.timeout + spec.grace <= self.now);
                    condemned.insert(worker.function);
                }
            }
        }
        for function in condemned {
            self.container_down(function);
        }
    }

    /// The core may not grow the function's pool for this long, at most.
    pub(super) fn pause(&mut self, function: FunctionId, pause: Duration) {
        let until = Some(self.now + pause);
        let paused = &mut self.paused[function.0 as usize];
        *paused = until.max(*paused);
    }

    fn answered(&mut self, call: CallId, origin: Origin, reply: Reply) {
        let known = self.calls.get_mut(&call.0).unwrap();
        assert!(known.owed, "answered twice, or after whoever asked was gone");
        assert_eq!(known.origin, origin);
        known.owed = false;
        if !matches!(origin, Origin::Shard { .. }) {
            self.counts[known.function.0 as usize][1] += 1;
        }
        if let Origin::Internal { parent, worker, .. } = origin {
            assert_eq!(self.threads[&key(worker)], Thread::On(parent));
        }
        match (reply, known.worker) {
            (Reply::Completed { worker, .. }, at) => {
                assert_eq!(at, Some(worker));
                self.calls.remove(&call.0);
            }
            (Reply::Returned { .. }, at) => {
                assert_eq!((at, known.away.is_some()), (None, true));
                self.calls.remove(&call.0);
            }
            (Reply::Failed { .. } | Reply::Died { .. }, None) => {
                self.calls.remove(&call.0);
            }
            (Reply::Failed { .. } | Reply::Died { .. }, Some(_)) => {}
        }
    }

    pub(super) fn check(&self) {
        assert_eq!(self.core.calls_live() as usize, self.calls.len());
        assert!(self.core.calls_live() <= self.calls_max);
        for (&id, known) in &self.calls {
            assert_eq!(self.core.call(CallId(id)).unwrap().origin, known.origin);
        }
        let owed = self.calls.values().filter(|known| known.owed);
        if let Some(first) = owed.map(|known| known.deadline).min() {
            assert!(self.core.next_timer().unwrap() <= first + TICK, "a deadline has no timer");
        }
        self.check_shards();
        for (index, spec) in self.specs.iter().enumerate() {
            self.check_function(FunctionId(u32::try_from(index).unwrap()), spec);
        }
    }

    fn check_function(&self, function: FunctionId, spec: &FunctionSpec) {
        let seen = self.core.snapshot(function);
        let mut busy = [0; 2];
        for lane in 0..spec.max_workers {
            let worker = WorkerId { function, lane: LaneIndex(lane) };
            match (self.core.worker(worker), self.threads.get(&key(worker)).copied()) {
                (WorkerState::Absent, None) => {}
                (WorkerState::Starting, Some(Thread::Starting)) => {}
                (WorkerState::Idle, Some(Thread::Idle)) => {}
                (WorkerState::Retiring, Some(Thread::Retiring)) => {}
                (WorkerState::Held { call: a }, Some(Thread::Held(b))) => assert_eq!(a, b),
                (WorkerState::Running { call: a }, Some(Thread::On(b))) => {
                    assert_eq!((a, self.children(b).len()), (b, 0));
                    busy[0] += 1;
                }
                (WorkerState::Waiting { call: a, outstanding }, Some(Thread::On(b))) => {
                    assert_eq!((a, self.children(b).len()), (b, usize::from(outstanding)));
                    busy[1] += 1;
                }
                (state, thread) => panic!("{worker:?} is {state:?}, its thread {thread:?}"),
            }
        }
        assert_eq!([seen.running, seen.waiting], busy);
        let mine = self.behind.iter().filter(|((owner, _), _)| *owner == function.0);
        assert_eq!(seen.pipelined as usize, mine.map(|(_, calls)| calls.len()).sum::<usize>());
        let here = || self.calls.values().filter(|known| known.function == function);
        let waits = |known: &&Known| known.worker.is_none() && known.away.is_none();
        let queued = here().filter(waits).count();
        assert_eq!(seen.queued as usize, queued);
        let is_barred = self.barred.contains(&function.0);
        assert!(!is_barred || queued == 0, "a call waits for a container that is not started");
        // What was admitted and comes back is not refused.
        let back = here().filter(waits).filter(|known| known.out_of_order).count();
        assert!(seen.queued as usize <= spec.queue_max as usize + back);
        let limits = matches!(spec.policy, Policy::Managed | Policy::Paper);
        let busy = seen.running + seen.waiting;
        let held_back = busy > 0 && (limits || self.nested.contains(&function))
            || self.parted.contains(&function.0);
        assert!(
            seen.queued == 0 || seen.idle == 0 || held_back,
            "a call waits beside an idle worker"
        );
        assert!(spec.policy != Policy::Managed || busy <= spec.max_workers);
        let workers =
            seen.starting + seen.idle + seen.running + seen.waiting + seen.held + seen.retiring;
        if self.up[function.0 as usize] && self.paused[function.0 as usize].is_none() {
            assert!(workers >= spec.min_workers);
            let growing = seen.starting > 0 || workers == spec.max_workers || held_back;
            assert!(seen.queued == 0 || growing, "a call waits and no worker is asked for");
        }
        let [arrivals, answers, abandoned] = self.counts[function.0 as usize];
        let is_foreign = |known: &Known| matches!(known.origin, Origin::Shard { .. });
        let owed = here().filter(|known| known.owed && !is_foreign(known)).count() as u64;
        let counters = seen.counters;
        assert_eq!(counters.arrivals, arrivals);
        assert_eq!(counters.completed + counters.failed_total(), answers);
        assert_eq!(counters.abandoned, abandoned);
        assert_eq!(arrivals, answers + abandoned + owed);
    }

    /// No new calls; everything that is under way ends, and then nothing is left to do.
    pub(super) fn come_to_rest(&mut self) {
        while let Some(&function) = self.parted.first() {
            self.give_back(FunctionId(function));
        }
        let mut rounds = 0;
        while !self.is_at_rest() {
            self.complete();
            self.come_back();
            self.release();
            self.worker_reports();
            self.pass_time();
            self.check();
            rounds += 1;
            assert!(rounds < 10_000, "something never ends");
        }
        for (index, spec) in self.specs.iter().enumerate() {
            let mine = |&&(function, _): &&(u32, u16)| function as usize == index;
            let workers = self.threads.keys().filter(mine).count();
            let kept = if self.up[index] { spec.min_workers } else { 0 };
            assert_eq!(workers, usize::from(kept), "idle workers were not trimmed");
        }
    }

    fn is_at_rest(&self) -> bool {
        self.calls.is_empty()
            && self.releases.is_empty()
            && self.threads.values().all(|&thread| thread == Thread::Idle)
            && self.core.next_timer().is_none()
    }
}
