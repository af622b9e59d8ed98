//! The pure core of a shard: the policy's share of a call, without the channel and without I/O.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use engine::core::{
    Caller, Core, Effect, Effects, Event, FunctionId, FunctionSpec, Limits, Policy, WorkerId,
};
use ipc::{CallId, Outcome};
use reactor::clock::Nanos;

/// Time between two calls, so that deadlines move through the timer wheel as they do in service.
const STEP: Duration = Duration::from_micros(10);

/// Two functions with one idle worker each; the first calls the second.
struct Stage {
    core: Core,
    effects: Effects,
    now: Nanos,
    parent: FunctionId,
    child: FunctionId,
}

pub fn bench(criterion: &mut Criterion) {
    let mut stage = Stage::new();
    criterion.bench_function("core/external", |bencher| {
        bencher.iter(|| {
            let (worker, call) = stage.external_call();
            stage.complete(worker, call);
        });
    });
    let (worker, _) = stage.external_call();
    criterion.bench_function("core/internal", |bencher| {
        bencher.iter(|| {
            let (worker, call) = stage.internal_call(worker);
            stage.complete(worker, call);
        });
    });
}

/// A function with one worker.
pub fn spec() -> FunctionSpec {
    FunctionSpec {
        min_workers: 1,
        max_workers: 1,
        timeout: Duration::from_secs(3600),
        queue_max: 1024,
        pipeline_max: 0,
        policy: Policy::Fixed,
        cores: 1,
        queue_wait_max: None,
        grace: Duration::from_secs(1),
    }
}

impl Stage {
    fn new() -> Stage {
        let mut core = Core::new(Limits::default());
        let mut effects = Effects::new();
        let now = Nanos(0);
        let mut deploy = || {
            let function = core.add_function(spec());
            effects.clear();
            core.on_event(now, Event::ContainerUp { function }, &mut effects).expect("it was down");
            let [Effect::SpawnWorker { worker }] = effects[..] else {
                panic!("not one worker: {effects:?}");
            };
            let started = Event::WorkerStarted { worker };
            core.on_event(now, started, &mut effects).expect("it was asked for");
            function
        };
        let (parent, child) = (deploy(), deploy());
        Stage { core, effects, now, parent, child }
    }

    fn external_call(&mut self) -> (WorkerId, CallId) {
        self.step();
        let (core, effects) = (&mut self.core, &mut self.effects);
        core.external_call(self.now, self.parent, Caller(1), None, effects).expect("room for it");
        self.dispatched()
    }

    fn internal_call(&mut self, parent: WorkerId) -> (WorkerId, CallId) {
        self.step();
        let (core, effects) = (&mut self.core, &mut self.effects);
        core.internal_call(self.now, parent, 0, Some(self.child), u64::MAX, effects)
            .expect("the parent is on a call");
        self.dispatched()
    }

    /// The worker completes the call, its answer is read and its result released.
    fn complete(&mut self, worker: WorkerId, call: CallId) {
        let completed =
            Event::Completed { worker, call, outcome: Outcome::Ok, ran_ns: 0, usage: None };
        for event in [completed, Event::Released { worker, call }] {
            self.core.on_event(self.now, event, &mut self.effects).expect("it is on that call");
        }
        black_box(&self.effects);
    }

    /// Time passes, and what was owed is done.
    fn step(&mut self) {
        self.now = self.now + STEP;
        self.effects.clear();
    }

    fn dispatched(&self) -> (WorkerId, CallId) {
        let [Effect::Dispatch { worker, call }] = self.effects[..] else {
            panic!("not dispatched at once: {:?}", self.effects);
        };
        (worker, call)
    }
}
