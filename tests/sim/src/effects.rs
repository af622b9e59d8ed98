//! Does what the core asks for, and checks that it may ask.

use std::time::Duration;

use engine::core::{Effect, Effects, Origin, Reply, WorkerId};
use ipc::{CallId, Outcome};

use crate::agenda::{Due, Report};
use crate::check::YIELD_PAUSE;
use crate::pool::{Run, Stage, Thread};
use crate::world::{REPLACED, World};

/// How much longer a worker takes to start now and then.
const SLOW: u32 = 100;

impl World {
    pub(crate) fn perform(&mut self) {
        if self.effects.is_empty() {
            return;
        }
        let effects = std::mem::take(&mut self.effects);
        for (index, &effect) in effects.iter().enumerate() {
            match effect {
                Effect::Dispatch { worker, call } => self.dispatch(worker, call),
                Effect::DropPayload { call } => self.drop_payload(call, effects.get(index + 1)),
                Effect::Answer { call, origin, reply } => {
                    if self.calls.get(&call.0).is_some_and(|known| known.worker.is_none()) {
                        let before = index.checked_sub(1).map(|before| effects[before]);
                        assert_eq!(before, Some(Effect::DropPayload { call }));
                    }
                    self.answer(call, origin, reply);
                }
                Effect::SpawnWorker { worker } => self.spawn(worker),
                Effect::RetireWorker { worker } => self.retire(worker),
                Effect::CancelWorker { worker, call } => {
                    let run = self.pools[worker.function.index()].run(worker);
                    assert_eq!(run.map(|run| run.call), Some(call), "another call is cancelled");
                    assert!(!self.calls[&call.0].owed, "{call:?} is cancelled and still owed");
                }
                Effect::ReplaceContainer { worker, .. } => self.replace(worker),
                Effect::Move { .. } | Effect::Recall { .. } | Effect::Bounce { .. } => {
                    panic!("no core here knows of another shard to send calls to")
                }
            }
        }
        self.restore(effects);
    }

    /// Keeps the memory of the effects for the next ones.
    fn restore(&mut self, mut effects: Effects) {
        assert!(self.effects.is_empty(), "effects have effects");
        effects.clear();
        self.effects = effects;
    }

    fn dispatch(&mut self, worker: WorkerId, call: CallId) {
        let index = worker.function.index();
        let pool = &mut self.pools[index];
        match pool.thread(worker) {
            Some(Thread::Idle) => {
                pool.set(worker, Some(Thread::On(Run::woken(call))));
                self.cpu.join(self.now, worker, self.plan.costs.wake);
            }
            Some(Thread::On(run)) => {
                assert_ne!(run.stage, Stage::Waiting, "a call waits behind one that waits");
                let behind = pool.push_behind(worker, call);
                let most = self.plan.functions[index].spec.pipeline_max;
                assert!(behind <= usize::from(most), "{behind} calls wait in a lane");
            }
            other => panic!("dispatched to a worker that is {other:?}"),
        }
        self.unqueue(call);
        let known = self.calls.get_mut(&call.0).expect("queued, so known");
        assert_eq!((known.worker, known.owed), (None, true), "dispatched and not queued");
        assert_eq!(known.function, worker.function, "dispatched to another function's worker");
        (known.worker, known.begun) = (Some(worker), self.now);
    }

    /// A call leaves the queue.
    fn unqueue(&mut self, call: CallId) {
        let known = self.calls.get_mut(&call.0).expect("queued, so known");
        self.pools[known.function.index()].queue(-1);
        if std::mem::replace(&mut known.is_back, false) {
            self.counts[known.function.index()].back -= 1;
        }
    }

    fn drop_payload(&mut self, call: CallId, next: Option<&Effect>) {
        self.unqueue(call);
        let known = self.calls[&call.0];
        assert_eq!(known.worker, None, "dropped after it was dispatched");
        if known.owed {
            let is_answer = matches!(next, Some(Effect::Answer { call: c, .. }) if *c == call);
            assert!(is_answer, "dropped and not answered");
        } else {
            self.calls.remove(&call.0);
        }
    }

    fn answer(&mut self, call: CallId, origin: Origin, reply: Reply) {
        let known = self.calls.get_mut(&call.0).expect("an answer to a call that is over");
        assert!(known.owed, "answered twice, or after whoever asked was gone");
        assert_eq!(known.origin, origin, "answered to somebody else");
        known.owed = false;
        let known = *known;
        self.owed.remove(&(known.deadline, call.0));
        self.counts[known.function.index()].answers += 1;
        match origin {
            Origin::Internal { parent, worker, .. } => {
                self.answer_worker(worker, parent, call, reply.outcome());
            }
            Origin::Shard { .. } => panic!("no call here comes from another shard"),
            Origin::External(_) => {
                let source = known.source.expect("from outside");
                self.sample(source, known.came, reply.outcome());
            }
        }
        match (reply, known.worker) {
            (Reply::Completed { worker, .. }, at) => {
                assert_eq!(at, Some(worker), "completed by another worker");
                self.calls.remove(&call.0);
                let is_slow = self.random.happens(self.plan.faults.slow_reader);
                let time = match origin {
                    Origin::External(_) if is_slow => {
                        self.random.between(Duration::from_millis(1), Duration::from_millis(20))
                    }
                    _ => Duration::ZERO,
                };
                self.agenda.push(self.now + time, Due::Released(worker, call));
            }
            (Reply::Returned { .. }, _) => panic!("no call here was on another shard"),
            (Reply::Failed { .. } | Reply::Died { .. }, None) => _ = self.calls.remove(&call.0),
            // Its worker goes on.
            (Reply::Failed { .. } | Reply::Died { .. }, Some(_)) => {}
        }
    }

    fn answer_worker(&mut self, worker: WorkerId, parent: CallId, call: CallId, with: Outcome) {
        let is_hasty = self.is_hasty(worker.function);
        let wakes = self.pools[worker.function.index()].change(worker, |run| {
            assert_eq!(run.call, parent, "the worker is on another call");
            let place = run.children.iter().position(|child| *child == call);
            run.children.swap_remove(place.expect("answered twice"));
            if with != Outcome::Ok {
                run.failure.get_or_insert(with);
            }
            let is_over = run.children.is_empty() || (run.failure.is_some() && is_hasty);
            let wakes = is_over && run.stage == Stage::Waiting;
            if wakes {
                run.stage = Stage::Waking;
            }
            wakes
        });
        if wakes.expect("answered to a worker that is on no call") {
            self.cpu.join(self.now, worker, self.plan.costs.wake);
        }
    }

    fn spawn(&mut self, worker: WorkerId) {
        let pool = &mut self.pools[worker.function.index()];
        assert!(pool.is_up, "a worker is asked for where no container is");
        assert_eq!(pool.set(worker, Some(Thread::Starting)), None, "the lane is in use");
        let faults = self.plan.faults;
        let is_slow = self.random.happens(faults.spawn_slow);
        let time = self.plan.costs.spawn * if is_slow { SLOW } else { 1 };
        let report = match self.random.happens(faults.spawn_fails) {
            true => self.random.pick(&[Report::Failed, Report::NoRoom]),
            false => Report::Started,
        };
        let at = self.launched(worker.function, time);
        let epoch = self.pools[worker.function.index()].epoch;
        self.agenda.push(at, Due::Launcher(worker, epoch, report));
    }

    fn retire(&mut self, worker: WorkerId) {
        let pool = &mut self.pools[worker.function.index()];
        let before = pool.set(worker, Some(Thread::Retiring));
        assert_eq!(before, Some(Thread::Idle), "retired while it was not idle");
        let (at, epoch) = (self.now + self.plan.costs.retire, pool.epoch);
        self.agenda.push(at, Due::Launcher(worker, epoch, Report::Retired));
        // Trimmed or given up, and then the pool may not grow for a moment.
        self.pause(worker.function, YIELD_PAUSE);
    }

    /// A worker goes on long after its time.
    fn replace(&mut self, worker: WorkerId) {
        let function = worker.function;
        let run = self.pools[function.index()].run(worker).expect("it is on a call");
        let known = self.calls[&run.call.0];
        let grace = self.plan.functions[function.index()].spec.grace;
        assert!(!known.owed, "replaced while the answer is owed");
        let timeout = self.plan.functions[function.index()].spec.timeout;
        assert!(known.begun + timeout + grace <= self.now, "replaced too early");
        let epoch = self.pools[function.index()].epoch;
        self.agenda.push(self.now + REPLACED, Due::Replace(function, epoch));
    }
}
