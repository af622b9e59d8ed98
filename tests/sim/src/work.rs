//! What workers do: they run the programs of their functions, phase by phase.

use std::time::Duration;

use engine::core::{Event, FunctionId, Origin, WorkerId};
use ipc::{CallId, Outcome};

use crate::agenda::{Due, Epoch};
use crate::pool::{Run, Stage, Thread};
use crate::program::{Failure, Phase};
use crate::world::World;

impl World {
    /// A worker has computed what it had to, or is awake.
    pub(crate) fn computed(&mut self) {
        let Some(done) = self.cpu.finish(self.now) else { return };
        let (worker, now) = (done.worker, self.now);
        let pool = &mut self.pools[worker.function.index()];
        pool.charge(done);
        pool.change(worker, |run| {
            let is_first = run.begun.is_none();
            run.begun.get_or_insert(now);
            // Awake for its call, it begins; for an answer, or at the end of a phase, it goes on.
            if !is_first {
                run.phase += 1;
            }
            run.stage = Stage::Stepping;
        });
        self.proceed(worker);
    }

    /// A worker has slept enough.
    pub(crate) fn awake(&mut self, worker: WorkerId, epoch: Epoch, call: CallId) {
        let pool = &mut self.pools[worker.function.index()];
        if pool.epoch != epoch {
            return;
        }
        let is_asleep = |run: &&Run| (run.call, run.stage) == (call, Stage::Sleeping);
        assert!(pool.run(worker).filter(is_asleep).is_some(), "woke up and was not asleep");
        pool.change(worker, |run| run.stage = Stage::Waking);
        self.cpu.join(self.now, worker, self.plan.costs.wake);
    }

    /// Takes a worker as far as it gets without time.
    fn proceed(&mut self, worker: WorkerId) {
        loop {
            let Some(run) = self.pools[worker.function.index()].run(worker) else { return };
            let (phase, call, failure) = (run.phase, run.call, run.failure);
            let phases = &self.plan.functions[worker.function.index()].program.phases;
            let next = phases.get(phase).copied().filter(|_| failure.is_none());
            match next {
                None if self.complete(worker) => {}
                None => return,
                Some(Phase::Compute(spread)) => {
                    let time = spread.draw(&mut self.random).mul_f64(self.factor(worker.function));
                    self.set_stage(worker, Stage::Computing);
                    return self.cpu.join(self.now, worker, time);
                }
                Some(Phase::Sleep(spread)) => {
                    let time = spread.draw(&mut self.random).mul_f64(self.factor(worker.function));
                    self.set_stage(worker, Stage::Sleeping);
                    let epoch = self.pools[worker.function.index()].epoch;
                    return self.agenda.push(self.now + time, Due::Awake(worker, epoch, call));
                }
                Some(Phase::Call { function, count, below }) => {
                    if self.calls[&call.0].depth < below && self.ask(worker, function, count) {
                        return;
                    }
                    self.pools[worker.function.index()].change(worker, |run| run.phase += 1);
                }
            }
        }
    }

    fn factor(&self, function: FunctionId) -> f64 {
        self.plan.functions[function.index()].program.factor(self.age())
    }

    fn set_stage(&mut self, worker: WorkerId, stage: Stage) {
        self.pools[worker.function.index()].change(worker, |run| run.stage = stage);
    }

    /// Makes internal calls; true if the worker waits for answers then.
    fn ask(&mut self, worker: WorkerId, function: FunctionId, count: u16) -> bool {
        for _ in 0..count {
            self.call_out(worker, function);
        }
        let run = self.pools[worker.function.index()].run(worker).expect("it has just called");
        if run.children.is_empty() || (run.failure.is_some() && self.is_hasty(worker.function)) {
            return false;
        }
        self.set_stage(worker, Stage::Waiting);
        while let Some(call) = self.pools[worker.function.index()].decline(worker) {
            let known = self.calls.get_mut(&call.0).expect("it waits in a lane");
            (known.worker, known.is_back) = (None, true);
            self.counts[worker.function.index()].back += 1;
            self.pools[worker.function.index()].queue(1);
            self.tell(Event::Declined { worker, call });
        }
        true
    }

    pub(crate) fn is_hasty(&self, function: FunctionId) -> bool {
        self.plan.functions[function.index()].program.failure == Failure::Hasty
    }

    fn call_out(&mut self, worker: WorkerId, function: FunctionId) {
        let pool = &self.pools[worker.function.index()];
        let parent = pool.run(worker).expect("it is on a call").call;
        let depth = self.calls[&parent.0].depth + 1;
        self.tokens = self.tokens.wrapping_add(1);
        let token = self.tokens;
        self.counts[function.index()].arrivals += 1;
        let (now, any) = (self.now, u64::MAX);
        let effects = &mut self.effects;
        let called = self.core.internal_call(now, worker, token, Some(function), any, effects);
        let call = called.unwrap_or_else(|violation| panic!("a call is called a lie: {violation}"));
        // Known even if it is refused: then its answer is among the effects.
        self.learn(call, Origin::Internal { parent, worker, token }, function, depth, None);
        let pool = &mut self.pools[worker.function.index()];
        pool.change(worker, |run| run.children.push(call));
        self.perform();
    }

    /// A worker has done its call; true if it has begun the next one.
    fn complete(&mut self, worker: WorkerId) -> bool {
        let now = self.now;
        let pool = &mut self.pools[worker.function.index()];
        let Some(run) = pool.run(worker).cloned() else { unreachable!("it has done a call") };
        let ran = now.saturating_since(run.begun.unwrap_or(now));
        let usage = pool.usage(worker, ran);
        let outcome = match run.failure {
            Some(failure) if failure.is_passed_on() => failure,
            Some(_) => Outcome::FunctionError,
            None if self.random.happens(self.plan.faults.panic) => Outcome::FunctionPanic,
            None => Outcome::Ok,
        };
        for child in run.children {
            self.abandon(child);
        }
        let owed = self.calls[&run.call.0].owed;
        let pool = &mut self.pools[worker.function.index()];
        let next = pool.pop_behind(worker);
        let thread = match next {
            Some(next) => Thread::On(Run::found(next, now)),
            None if owed => Thread::Held(run.call),
            None => Thread::Idle,
        };
        pool.set(worker, Some(thread));
        if let Some(next) = next {
            self.calls.get_mut(&next.0).expect("it waits in a lane").begun = now;
        }
        if !owed {
            self.calls.remove(&run.call.0);
        }
        let ran_ns = u32::try_from(ran.as_nanos()).unwrap_or(u32::MAX);
        self.tell(Event::Completed { worker, call: run.call, outcome, ran_ns, usage });
        assert!(!self.calls.contains_key(&run.call.0), "no answer to a call that was completed");
        next.is_some()
    }

    /// When the launcher has started one more worker.
    pub(crate) fn launched(
        &mut self,
        function: FunctionId,
        time: Duration,
    ) -> reactor::clock::Nanos {
        let pool = &mut self.pools[function.index()];
        pool.launcher_free = pool.launcher_free.max(self.now) + time;
        pool.launcher_free
    }
}
