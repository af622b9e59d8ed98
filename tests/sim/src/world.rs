//! A world: the core, and around it callers, workers, cores, launchers and accidents.
//!
//! It goes from one thing that happens to the next; nothing takes time in between. What it knows of
//! calls and workers is kept beside the core and compared with it after everything that happens
//! (`check.rs`). The same plan gives the same world, always.
//!
//! Three things are simpler here than outside. The shard itself takes no time on the core, but for
//! what waking a worker up costs. It hears of a completion at once, while the real one looks at a lane
//! with several calls every 50 us. And memory is never short.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::core::{Caller, Core, Effects, Event, FunctionId, Origin, WorkerId};
use ipc::{CallId, Outcome};
use reactor::clock::Nanos;

use crate::agenda::{Agenda, Due, Epoch, Report};
use crate::arrivals::Clock;
use crate::cpu::Cpu;
use crate::plan::Plan;
use crate::pool::{Pool, Thread};
use crate::random::Random;
use crate::tally::{Gauge, Sample, Tally};

/// When worlds begin: the core must not take time for a count from zero.
const START: Nanos = Nanos(1_000_000_000);
/// How long a container takes to come back, at most.
const RESTART_MAX: Duration = Duration::from_secs(1);
/// How long one that is to be ended lives on, at most.
pub(crate) const REPLACED: Duration = Duration::from_millis(1);

/// What the world knows of a call that was admitted and has not ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub origin: Origin,
    pub function: FunctionId,
    pub deadline: Nanos,
    pub depth: u16,
    /// `None` while queued.
    pub worker: Option<WorkerId>,
    /// Is its answer still owed?
    pub owed: bool,
    /// In the queue for the second time: the worker that it was given to declined it.
    pub is_back: bool,
    pub came: Nanos,
    /// When it began on its worker.
    pub begun: Nanos,
    /// For an external one.
    pub source: Option<usize>,
}

/// Calls of one function so far.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub arrivals: u64,
    /// Answered or refused.
    pub answers: u64,
    /// Their callers were gone first.
    pub abandoned: u64,
    /// In the queue for the second time, now.
    pub back: u32,
    /// Whether one was ever made within another one of the same function.
    pub is_nested: bool,
}

/// Whether calls still come from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    Closing,
}

/// See the module's description.
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) core: Core,
    pub(crate) now: Nanos,
    pub(crate) random: Random,
    pub(crate) agenda: Agenda,
    pub(crate) cpu: Cpu,
    pub(crate) pools: Vec<Pool>,
    pub(crate) calls: BTreeMap<u64, Known>,
    /// Calls whose answers are owed, by deadline.
    pub(crate) owed: BTreeSet<(Nanos, u64)>,
    pub(crate) counts: Vec<Counts>,
    pub(crate) tokens: u32,
    pub(crate) effects: Effects,
    pub(crate) tally: Tally,
    pub(crate) events: u64,
    sources: Vec<Clock>,
    phase: Phase,
}

impl World {
    /// A world at its beginning: containers are about to come up.
    #[must_use]
    pub fn new(plan: Plan) -> World {
        let mut core = Core::new(plan.limits);
        for function in &plan.functions {
            core.add_function(function.spec);
        }
        let sources = plan.sources.iter().zip(1..);
        let sources = sources.map(|(source, stream)| {
            Clock::new(source.arrivals.clone(), Random::new(plan.seed, stream))
        });
        let mut world = World {
            core,
            now: START,
            random: Random::new(plan.seed, 0),
            agenda: Agenda::default(),
            cpu: Cpu::new(plan.cores, plan.costs.switching, START),
            pools: plan.functions.iter().map(|f| Pool::new(f.spec.max_workers)).collect(),
            calls: BTreeMap::new(),
            owed: BTreeSet::new(),
            counts: vec![Counts::default(); plan.functions.len()],
            tokens: 0,
            effects: Effects::new(),
            tally: Tally::default(),
            events: 0,
            sources: sources.collect(),
            phase: Phase::Open,
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for index in 0..self.pools.len() {
            let function = FunctionId::from_index(index);
            self.agenda.push(self.now, Due::Up(function, Epoch::default()));
            self.expect_crash(function);
            self.expect_share(function);
        }
        self.expect_stall();
        for source in 0..self.sources.len() {
            self.expect_arrival(source);
        }
        if self.plan.gauge.is_some() {
            self.agenda.push(self.now, Due::Gauge);
        }
    }

    /// How old the world is.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.now.saturating_since(START)
    }

    /// How many things have happened.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What has come of it.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Share of the cores' time in use, from 0 to 1.
    #[must_use]
    pub fn busy(&self) -> f64 {
        self.cpu.busy().as_secs_f64() / (self.age().as_secs_f64() * f64::from(self.plan.cores))
    }

    /// Goes on until the world is so old.
    pub fn run(&mut self, age: Duration) {
        let end = START + age;
        while self.step(end) {}
        self.now = self.now.max(end);
    }

    /// No more calls from outside and no more accidents: goes on until all calls have ended, and then
    /// for as long as it takes to let surplus workers go.
    ///
    /// # Panics
    /// When something does not come to rest.
    pub fn come_to_rest(&mut self) {
        self.phase = Phase::Closing;
        if self.random.happens(0.5) {
            self.tell(Event::Drain);
        }
        let specs = || self.plan.functions.iter().map(|function| function.spec);
        let timeout = specs().map(|spec| spec.timeout).max().unwrap_or_default();
        let grace = specs().map(|spec| spec.grace).max().unwrap_or_default();
        self.run(self.age() + timeout + Duration::from_millis(2));
        assert!(self.owed.is_empty(), "{} answers are owed", self.owed.len());
        // The last call to be dispatched was so just before its deadline; then it has its own time.
        self.run(self.age() + timeout + grace + REPLACED * 3);
        let left: Vec<_> = self.calls.iter().take(5).collect();
        assert!(left.is_empty(), "{} calls go on: {left:?}", self.calls.len());
        self.run(self.age() + Duration::from_secs(120));
        assert_eq!(self.core.next_timer(), None, "an idle host does not sleep");
        for (function, pool) in self.plan.functions.iter().zip(&self.pools) {
            let census = pool.census();
            assert_eq!(census.workers(), function.spec.min_workers, "not trimmed: {census:?}");
        }
    }

    /// What happens next, if it does before `end`.
    fn step(&mut self, end: Nanos) -> bool {
        let [tick, cpu, agenda] = [self.core.next_timer(), self.cpu.next(), self.agenda.next()];
        let Some(next) = [tick, cpu, agenda].into_iter().flatten().min() else { return false };
        if next > end {
            return false;
        }
        // What was due while the machine stood still is due now.
        self.now = self.now.max(next);
        self.events += 1;
        if tick == Some(next) {
            self.tell(Event::Tick);
            self.check_deadlines();
        } else if cpu == Some(next) {
            self.computed();
        } else if let Some(due) = self.agenda.pop() {
            self.happen(due);
        }
        self.check();
        true
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Arrival(source) => self.arrive(source),
            Due::Launcher(worker, epoch, report) => self.launcher_reports(worker, epoch, report),
            Due::Awake(worker, epoch, call) => self.awake(worker, epoch, call),
            Due::Released(worker, call) => {
                let pool = &mut self.pools[worker.function.index()];
                if pool.thread(worker) == Some(&Thread::Held(call)) {
                    pool.set(worker, Some(Thread::Idle));
                }
                self.tell(Event::Released { worker, call });
            }
            Due::Leave(call) => self.caller_leaves(call),
            Due::Crash(function) if self.phase == Phase::Open => {
                self.container_down(function);
                self.expect_crash(function);
            }
            Due::Replace(function, epoch) if self.pools[function.index()].epoch == epoch => {
                self.container_down(function);
            }
            Due::Up(function, epoch) if self.pools[function.index()].epoch == epoch => {
                self.pools[function.index()].is_up = true;
                self.tell(Event::ContainerUp { function });
            }
            Due::Stall(time) if self.phase == Phase::Open => {
                let from = self.now;
                self.now = self.now + time;
                self.cpu.stall(from, self.now);
                for since in self.pools.iter_mut().filter_map(|pool| pool.stalled_since.as_mut()) {
                    since.0 = since.0 + time;
                }
                self.expect_stall();
            }
            Due::Share(function) if self.phase == Phase::Open => self.share(function),
            Due::Share(_) | Due::Crash(_) | Due::Replace(..) | Due::Up(..) | Due::Stall(_) => {}
            Due::Gauge => self.read_gauges(),
        }
    }

    // Callers.

    fn expect_arrival(&mut self, source: usize) {
        if let Some(age) = self.sources[source].next() {
            self.agenda.push(START + age, Due::Arrival(source));
        }
    }

    fn arrive(&mut self, source: usize) {
        if self.phase == Phase::Closing {
            return;
        }
        self.expect_arrival(source);
        let function = self.plan.sources[source].function;
        let deadline = self.plan.sources[source].deadline.map(|time| self.now + time);
        let caller = Caller(self.events);
        self.counts[function.index()].arrivals += 1;
        let admitted =
            self.core.external_call(self.now, function, caller, deadline, &mut self.effects);
        match admitted {
            Ok(call) => {
                self.learn(call, Origin::External(caller), function, 0, Some(source));
                if self.random.happens(self.plan.faults.leave) {
                    let (least, most) = (Duration::from_millis(1), Duration::from_millis(100));
                    let patience = self.random.between(least, most);
                    self.agenda.push(self.now + patience, Due::Leave(call));
                }
            }
            Err(refusal) => {
                self.counts[function.index()].answers += 1;
                self.sample(source, self.now, refusal.outcome);
            }
        }
        self.perform();
    }

    /// Something was admitted.
    pub(crate) fn learn(
        &mut self,
        call: CallId,
        origin: Origin,
        function: FunctionId,
        depth: u16,
        source: Option<usize>,
    ) {
        let deadline = self.core.call(call).map_or(self.now, |call| call.deadline);
        let (owed, came, begun) = (true, self.now, self.now);
        let (worker, is_back) = (None, false);
        let known =
            Known { origin, function, deadline, depth, worker, owed, is_back, came, begun, source };
        self.counts[function.index()].is_nested |= self.is_below(origin, function);
        assert!(self.calls.insert(call.0, known).is_none(), "an id came twice");
        self.owed.insert((deadline, call.0));
        self.pools[function.index()].queue(1);
    }

    /// Whether the work for `origin` is, directly or not, for a call of `function`.
    fn is_below(&self, origin: Origin, function: FunctionId) -> bool {
        let Origin::Internal { parent, .. } = origin else { return false };
        let Some(parent) = self.calls.get(&parent.0) else { return false };
        parent.function == function || self.is_below(parent.origin, function)
    }

    /// A call from outside is answered.
    pub(crate) fn sample(&mut self, source: usize, came: Nanos, outcome: Outcome) {
        let latency = self.now.saturating_since(came);
        let at = came.saturating_since(START);
        self.tally.samples.push(Sample { source, at, latency, outcome });
    }

    /// It may cross the answer.
    fn caller_leaves(&mut self, call: CallId) {
        if self.calls.get(&call.0).is_some_and(|known| known.owed) {
            self.abandon(call);
        }
        self.tell(Event::CallerGone { call });
    }

    /// Nobody waits for the answer any more.
    pub(crate) fn abandon(&mut self, call: CallId) {
        let known = self.calls.get_mut(&call.0).expect("owed, so known");
        assert!(std::mem::replace(&mut known.owed, false), "abandoned twice");
        self.owed.remove(&(known.deadline, call.0));
        self.counts[known.function.index()].abandoned += 1;
    }

    // Accidents.

    fn expect_crash(&mut self, function: FunctionId) {
        if let Some(mean) = self.plan.faults.crash_every {
            let gap = self.random.exponential(mean);
            self.agenda.push(self.now + gap, Due::Crash(function));
        }
    }

    fn expect_share(&mut self, function: FunctionId) {
        if let Some(mean) = self.plan.faults.share_every {
            let gap = self.random.exponential(mean);
            self.agenda.push(self.now + gap, Due::Share(function));
        }
    }

    fn share(&mut self, function: FunctionId) {
        if self.random.happens(0.5) {
            let has = self.random.below(8);
            self.tell(Event::YieldWorker { function, has });
        } else {
            self.pools[function.index()].paused_until = Nanos(0);
            self.tell(Event::WorkerFreed { function });
        }
        self.expect_share(function);
    }

    fn expect_stall(&mut self) {
        if let Some(mean) = self.plan.faults.stall_every {
            let gap = self.random.exponential(mean);
            let (least, most) = (Duration::from_millis(50), Duration::from_millis(500));
            let time = self.random.between(least, most);
            self.agenda.push(self.now + gap, Due::Stall(time));
        }
    }

    fn container_down(&mut self, function: FunctionId) {
        let pool = &mut self.pools[function.index()];
        if !pool.is_up {
            return;
        }
        (pool.is_up, pool.epoch, pool.paused_until) = (false, Epoch(pool.epoch.0 + 1), Nanos(0));
        let mut orphans = Vec::new();
        for lane in pool.lanes() {
            let worker = WorkerId { function, lane };
            while pool.pop_behind(worker).is_some() {}
            if let Some(Thread::On(run)) = pool.set(worker, None) {
                self.cpu.leave(self.now, worker);
                orphans.extend(run.children);
            }
        }
        for call in orphans {
            self.abandon(call);
        }
        self.tell(Event::ContainerDown { function });
        let here = |known: &Known| known.worker.is_some_and(|worker| worker.function == function);
        self.calls.retain(|_, known| {
            assert!(!(known.owed && here(known)), "no answer to a call that died");
            !here(known)
        });
        let restart = self.random.between(Duration::from_millis(1), RESTART_MAX);
        let epoch = self.pools[function.index()].epoch;
        self.agenda.push(self.now + restart, Due::Up(function, epoch));
    }

    fn launcher_reports(&mut self, worker: WorkerId, epoch: Epoch, report: Report) {
        let pool = &mut self.pools[worker.function.index()];
        if pool.epoch != epoch {
            return;
        }
        match report {
            Report::Started => {
                assert_eq!(pool.set(worker, Some(Thread::Idle)), Some(Thread::Starting));
                self.tell(Event::WorkerStarted { worker });
            }
            Report::Failed => {
                assert_eq!(pool.set(worker, None), Some(Thread::Starting));
                self.pause(worker.function, crate::check::SPAWN_PAUSE);
                self.tell(Event::WorkerFailed { worker });
            }
            Report::NoRoom => {
                assert_eq!(pool.set(worker, None), Some(Thread::Starting));
                self.pause(worker.function, crate::check::ROOM_PAUSE);
                self.tell(Event::NoRoom { worker });
            }
            Report::Retired => {
                assert_eq!(pool.set(worker, None), Some(Thread::Retiring));
                self.tell(Event::WorkerRetired { worker });
            }
        }
    }

    fn read_gauges(&mut self) {
        let functions = (0..self.pools.len()).map(FunctionId::from_index);
        let functions = functions.map(|function| self.core.snapshot(function)).collect();
        self.tally.gauges.push(Gauge { at: self.age(), functions });
        if let (Some(gap), Phase::Open) = (self.plan.gauge, self.phase) {
            self.agenda.push(self.now + gap, Due::Gauge);
        }
    }

    /// Tells the core, and does what it asks for.
    pub(crate) fn tell(&mut self, event: Event) {
        let told = self.core.on_event(self.now, event, &mut self.effects);
        if let Err(violation) = told {
            panic!("{event:?} is called a lie: {violation}");
        }
        self.perform();
    }
}
