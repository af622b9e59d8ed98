//! Seeded random lives of a core: containers that crash and lie, workers that come and go, callers
//! that leave, recursion, other shards that take calls and send some, deadlines under a virtual clock.
//!
//! A model beside the core keeps what the world outside knows: which worker is on which call, who
//! awaits what. Every effect is checked against it when it appears, every invariant after every
//! event, and at the end everything must come to rest. `NIGHTCORE_SEED=n` replays one seed.

mod model;
mod shards;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use ipc::{CallId, LaneIndex, Outcome, Usage};
use reactor::clock::Nanos;

use super::*;

const SEEDS: u64 = 1_000;
const STEPS: u32 = 400;
const TICK: Duration = Duration::from_millis(1);
const OUTCOMES: [Outcome; 3] = [Outcome::Ok, Outcome::FunctionError, Outcome::FunctionPanic];

const POLICIES: [Policy; 4] = [Policy::Managed, Policy::Fixed, Policy::Unlimited, Policy::Paper];

/// Xorshift: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.below(from.len())]) }
    }
}

/// What the world knows of a call that has an id.
#[derive(Clone, Copy, Debug)]
struct Known {
    origin: Origin,
    function: FunctionId,
    deadline: Nanos,
    /// `None` while queued or away.
    worker: Option<WorkerId>,
    /// Is its answer still owed?
    owed: bool,
    /// How many calls were admitted before it.
    order: usize,
    /// A call that a worker declined or that came back may be overtaken, and one below a call of its
    /// own function overtakes.
    out_of_order: bool,
    /// When it began to run.
    begun: Nanos,
    /// The shard that it has moved to.
    away: Option<u16>,
    /// It came back once.
    stays: bool,
}

/// What a worker thread is doing, seen from inside its container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Thread {
    Starting,
    Idle,
    On(CallId),
    Held(CallId),
    Retiring,
}

struct World {
    seed: u64,
    random: Random,
    core: Core,
    calls_max: u32,
    now: Nanos,
    effects: Effects,
    specs: Vec<FunctionSpec>,
    up: Vec<bool>,
    /// Functions whose container is parted with: it runs, and gets nothing to do.
    parted: BTreeSet<u32>,
    /// Functions whose containers keep dying.
    barred: BTreeSet<u32>,
    draining: bool,
    calls: BTreeMap<u64, Known>,
    /// Every id ever given; none may come twice.
    ids: BTreeSet<u64>,
    threads: BTreeMap<(u32, u16), Thread>,
    /// What waits in each lane behind its thread's call.
    behind: BTreeMap<(u32, u16), VecDeque<CallId>>,
    /// Releases that are owed, those of crashed workers included.
    releases: Vec<(WorkerId, CallId)>,
    /// Per function: arrivals, answers or refusals, calls abandoned by their callers.
    counts: Vec<[u64; 3]>,
    /// Per function: until when a failed spawn or a worker given up may keep it from growing.
    paused: Vec<Option<Nanos>>,
    /// The functions above foreign calls.
    above: BTreeMap<(u16, u64), Box<[FunctionId]>>,
    /// Where the core may send calls.
    relief: Option<Relief>,
    /// Functions whose calls have come back to them: workers are kept for such calls.
    nested: BTreeSet<FunctionId>,
    /// All effects, in order.
    trace: Vec<Effect>,
}

fn key(worker: WorkerId) -> (u32, u16) {
    (worker.function.0, worker.lane.0)
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let calls_max = u32::try_from(4 + random.below(60)).unwrap();
        let mut core = Core::new(Limits { calls_max, depth_max: 4 });
        let mut specs = Vec::new();
        for _ in 0..=random.below(3) {
            let max_workers = u16::try_from(1 + random.below(4)).unwrap();
            let spec = FunctionSpec {
                min_workers: u16::try_from(random.below(usize::from(max_workers) + 1)).unwrap(),
                max_workers,
                timeout: Duration::from_millis(u64::try_from(1 + random.below(200)).unwrap()),
                queue_max: u32::try_from(random.below(12)).unwrap(),
                pipeline_max: u16::try_from(random.below(4)).unwrap(),
                policy: random.pick(&POLICIES).unwrap(),
                cores: 1,
                queue_wait_max: None,
                grace: Duration::from_millis(u64::try_from(1 + random.below(2_000)).unwrap()),
            };
            core.add_function(spec);
            specs.push(spec);
        }
        World {
            seed,
            random,
            core,
            calls_max,
            now: Nanos(1_000_000_000),
            effects: Vec::new(),
            up: vec![false; specs.len()],
            parted: BTreeSet::new(),
            barred: BTreeSet::new(),
            counts: vec![[0; 3]; specs.len()],
            paused: vec![None; specs.len()],
            specs,
            draining: false,
            calls: BTreeMap::new(),
            ids: BTreeSet::new(),
            threads: BTreeMap::new(),
            behind: BTreeMap::new(),
            releases: Vec::new(),
            above: BTreeMap::new(),
            relief: None,
            nested: BTreeSet::new(),
            trace: Vec::new(),
        }
    }

    fn run(mut self) -> Vec<Effect> {
        for _ in 0..STEPS {
            self.step();
            self.check();
        }
        self.come_to_rest();
        std::mem::take(&mut self.trace)
    }

    fn step(&mut self) {
        self.look_around();
        if self.random.below(8) == 0 {
            return self.hear_from_shards();
        }
        match self.random.below(100) {
            0..25 => self.external_call(),
            25..45 => self.internal_call(),
            45..62 => self.complete(),
            62..76 => self.release(),
            76..84 => self.worker_reports(),
            84..87 => self.caller_gone(),
            87..93 => self.pass_time(),
            93..95 => self.container_up(),
            95..96 => self.part(),
            96..97 => {
                let function = self.any_function();
                self.container_down(function);
                if self.random.below(3) == 0 {
                    self.bar(function);
                }
            }
            97..98 => self.lie(),
            98..99 if self.random.below(2) == 0 => self.share_workers(),
            98..99 => self.decline(),
            _ if self.random.below(20) == 0 => {
                self.draining = true;
                self.tell(Event::Drain);
            }
            _ => {}
        }
    }

    // What may happen.

    fn any_function(&mut self) -> FunctionId {
        FunctionId(u32::try_from(self.random.below(self.specs.len())).unwrap())
    }

    fn threads(&self, wanted: impl Fn(Thread) -> bool) -> Vec<WorkerId> {
        let found = self.threads.iter().filter(|&(_, &thread)| wanted(thread));
        let id = |&(function, lane): &(u32, u16)| WorkerId {
            function: FunctionId(function),
            lane: LaneIndex(lane),
        };
        found.map(|(key, _)| id(key)).collect()
    }

    fn busy(&mut self) -> Option<(WorkerId, CallId)> {
        let busy = self.threads(|thread| matches!(thread, Thread::On(_)));
        let worker = self.random.pick(&busy)?;
        match self.threads[&key(worker)] {
            Thread::On(call) => Some((worker, call)),
            _ => None,
        }
    }

    fn external_call(&mut self) {
        let function = self.any_function();
        let caller = Caller(self.random.0);
        let deadline = match self.random.below(4) {
            0 => Some(self.now + TICK * u32::try_from(self.random.below(50)).unwrap()),
            _ => None,
        };
        self.counts[function.0 as usize][0] += 1;
        let effects = &mut self.effects;
        match self.core.external_call(self.now, function, caller, deadline, effects) {
            Ok(call) => {
                assert!(!self.draining && !self.barred.contains(&function.0));
                self.learn(call, Origin::External(caller), function);
                self.perform();
            }
            Err(_) => {
                self.counts[function.0 as usize][1] += 1;
                assert_eq!(self.effects, []);
            }
        }
    }

    fn internal_call(&mut self) {
        let Some((worker, parent)) = self.busy() else { return };
        let function = self.any_function();
        let named = (self.random.below(20) > 0).then_some(function);
        let token = u32::try_from(self.random.below(6)).unwrap();
        let children = self.children(parent);
        let result =
            self.core.internal_call(self.now, worker, token, named, u64::MAX, &mut self.effects);
        if children.contains(&token) {
            assert_eq!(result, Err(Violation::TokenInUse { worker, token }));
            assert_eq!(self.effects, []);
            return;
        }
        let call = result.unwrap();
        let origin = Origin::Internal { parent, worker, token };
        self.counts[function.0 as usize][0] += u64::from(named.is_some());
        if self.core.call(call).is_some() {
            self.learn(call, origin, function);
            return self.perform();
        }
        assert!(self.ids.insert(call.0), "an id came twice");
        self.counts[function.0 as usize][1] += u64::from(named.is_some());
        let effects = self.take_effects();
        assert_eq!(effects[0], Effect::DropPayload { call });
        assert!(
            matches!(effects[1], Effect::Answer { call: c, origin: o, .. } if (c, o) == (call, origin))
        );
        assert_eq!(effects.len(), 2);
    }

    fn complete(&mut self) {
        let Some((worker, call)) = self.busy() else { return };
        let owed = self.calls[&call.0].owed;
        let next = self.behind.get_mut(&key(worker)).and_then(VecDeque::pop_front);
        let thread = match next {
            Some(next) => Thread::On(next),
            None if owed => Thread::Held(call),
            None => Thread::Idle,
        };
        self.threads.insert(key(worker), thread);
        if owed {
            self.releases.push((worker, call));
        }
        if let Thread::On(next) = thread {
            self.calls.get_mut(&next.0).unwrap().begun = self.now;
        }
        self.forget_children(call);
        if !owed {
            self.calls.remove(&call.0);
        }
        let outcome = self.random.pick(&OUTCOMES).unwrap();
        // Now and then one that takes long, so that functions come and go as short ones; every other
        // function never is.
        let ran_ns = match worker.function.0 % 2 {
            0 if self.random.below(40) > 0 => 1_000,
            0 => 5_000_000,
            _ => 1_000_000,
        };
        let measured = Usage { calls: NonZeroU32::MIN, cpu_ns: ran_ns, idle_ns: 0 };
        let usage = (self.random.below(4) == 0).then_some(measured);
        self.tell(Event::Completed { worker, call, outcome, ran_ns, usage });
        assert!(!self.calls.contains_key(&call.0), "no answer to a completed call");
    }

    fn release(&mut self) {
        if self.releases.is_empty() {
            return;
        }
        let (worker, call) = self.releases.swap_remove(self.random.below(self.releases.len()));
        if self.threads.get(&key(worker)) == Some(&Thread::Held(call)) {
            self.threads.insert(key(worker), Thread::Idle);
        }
        self.tell(Event::Released { worker, call });
    }

    /// A worker begins to wait for answers: it declines what is behind its call, the last first.
    fn decline(&mut self) {
        let Some((worker, _)) = self.busy() else { return };
        while let Some(call) = self.behind.get_mut(&key(worker)).and_then(VecDeque::pop_back) {
            let known = self.calls.get_mut(&call.0).unwrap();
            (known.worker, known.out_of_order) = (None, true);
            let owed = known.owed;
            self.tell(Event::Declined { worker, call });
            assert!(owed || !self.calls.contains_key(&call.0));
        }
    }

    fn worker_reports(&mut self) {
        let reporting =
            self.threads(|thread| matches!(thread, Thread::Starting | Thread::Retiring));
        let Some(worker) = self.random.pick(&reporting) else { return };
        let fails = self.random.below(6) == 0;
        let event = match self.threads[&key(worker)] {
            Thread::Retiring => Event::WorkerRetired { worker },
            _ if fails && self.random.below(2) == 0 => Event::NoRoom { worker },
            _ if fails => Event::WorkerFailed { worker },
            _ => Event::WorkerStarted { worker },
        };
        match event {
            Event::WorkerStarted { .. } => self.threads.insert(key(worker), Thread::Idle),
            _ => self.threads.remove(&key(worker)),
        };
        if matches!(event, Event::WorkerFailed { .. } | Event::NoRoom { .. }) {
            self.pause(worker.function, Duration::from_secs(1));
        }
        self.tell(event);
    }

    fn caller_gone(&mut self) {
        let is_external = |known: &Known| matches!(known.origin, Origin::External(_));
        let external = self.calls.iter().filter(|(_, known)| is_external(known));
        let external: Vec<u64> = external.map(|(&id, _)| id).collect();
        let Some(id) = self.random.pick(&external) else { return };
        let known = self.calls[&id];
        if known.owed {
            self.abandon(id);
        }
        let call = CallId(id);
        self.core.on_event(self.now, Event::CallerGone { call }, &mut self.effects).unwrap();
        let expected = match (known.worker, known.away) {
            _ if !known.owed => vec![],
            (Some(worker), _) if !self.is_alone(worker, call) => vec![],
            (Some(worker), _) => vec![Effect::CancelWorker { worker, call }],
            (None, None) => vec![Effect::DropPayload { call }],
            (None, Some(shard)) => {
                vec![Effect::Recall { call, shard, leaver: Leaver::Caller }]
            }
        };
        assert_eq!(self.take_effects(), expected);
        if known.worker.is_none() {
            self.calls.remove(&id);
        }
    }

    fn pass_time(&mut self) {
        let ms = [1, 5, 50, 1_500, 11_000][self.random.below(5)];
        self.now = self.now + TICK * ms;
        self.tell(Event::Tick);
        for pause in &mut self.paused {
            // The wheel may be one tick late.
            *pause = pause.filter(|&until| until + TICK * 2 > self.now);
        }
        for known in self.calls.values().filter(|known| known.owed) {
            assert!(known.deadline + TICK * 2 > self.now, "a deadline passed unnoticed");
        }
    }

    fn container_up(&mut self) {
        let function = self.any_function();
        self.give_back(function);
    }

    pub(super) fn give_back(&mut self, function: FunctionId) {
        self.up[function.0 as usize] = true;
        self.parted.remove(&function.0);
        self.barred.remove(&function.0);
        self.tell(Event::ContainerUp { function });
    }

    /// The container is to be stopped if nothing needs it.
    fn part(&mut self) {
        let function = self.any_function();
        let here = |known: &Known| known.function == function && known.away.is_none();
        let holds = self.threads.iter().any(|(&(owner, _), thread)| {
            owner == function.0 && matches!(thread, Thread::On(_) | Thread::Held(_))
        });
        let needed = holds || self.calls.values().any(here);
        assert_eq!(self.core.part(function), !needed);
        if !needed && self.up[function.0 as usize] {
            self.up[function.0 as usize] = false;
            self.parted.insert(function.0);
        }
    }

    fn container_down(&mut self, function: FunctionId) {
        self.up[function.0 as usize] = false;
        self.parted.remove(&function.0);
        self.paused[function.0 as usize] = None;
        let lost = self.threads(|_| true);
        for worker in lost.into_iter().filter(|worker| worker.function == function) {
            self.behind.remove(&key(worker));
            if let Some(Thread::On(call)) = self.threads.remove(&key(worker)) {
                self.forget_children(call);
            }
        }
        self.tell(Event::ContainerDown { function });
        let here = |known: &Known| known.worker.is_some_and(|worker| worker.function == function);
        assert!(!self.calls.values().any(|known| known.owed && here(known)), "no answer");
        self.calls.retain(|_, known| !here(known));
    }

    /// No other container is started for a while.
    fn bar(&mut self, function: FunctionId) {
        let until = self.now + TICK * u32::try_from(self.random.below(50)).unwrap();
        self.barred.insert(function.0);
        self.tell(Event::Barred { function, until });
    }

    /// Something that no correct container says; the container is then closed.
    fn lie(&mut self) {
        let lane = LaneIndex(u16::try_from(self.random.below(6)).unwrap());
        let worker = WorkerId { function: self.any_function(), lane };
        let thread = self.threads.get(&key(worker)).copied();
        let call = CallId(self.random.0);
        let event = match self.random.below(5) {
            0 if thread != Some(Thread::Starting) => Event::WorkerStarted { worker },
            1 if thread != Some(Thread::Starting) => Event::WorkerFailed { worker },
            2 if thread != Some(Thread::Retiring) => Event::WorkerRetired { worker },
            3 => Event::Declined { worker, call },
            _ => Event::Completed { worker, call, outcome: Outcome::Ok, ran_ns: 0, usage: None },
        };
        let before = self.core.snapshot(worker.function);
        assert!(self.core.on_event(self.now, event, &mut self.effects).is_err(), "{event:?}");
        assert_eq!(self.effects, []);
        assert_eq!(self.core.snapshot(worker.function), before);
        self.container_down(worker.function);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with NIGHTCORE_SEED={}", self.seed);
        }
    }
}

#[test]
fn every_admitted_call_is_answered_exactly_once_whatever_happens() {
    if let Ok(seed) = std::env::var("NIGHTCORE_SEED") {
        World::new(seed.parse().unwrap()).run();
        return;
    }
    let trace: Vec<Effect> = (0..SEEDS).flat_map(|seed| World::new(seed).run()).collect();
    let count = |wanted: fn(&Effect) -> bool| trace.iter().filter(|&effect| wanted(effect)).count();
    assert!(count(|effect| matches!(effect, Effect::Move { .. })) > 1_000);
    assert!(count(|effect| matches!(effect, Effect::Recall { .. })) > 100);
    assert!(count(|effect| matches!(effect, Effect::Bounce { .. })) > 10);
    let barred = Outcome::BreakerOpen;
    let is_barred = |effect: &Effect| matches!(effect, Effect::Answer { reply, .. } if reply.outcome() == barred);
    assert!(trace.iter().filter(|effect| is_barred(effect)).count() > 100);
}

#[test]
fn the_same_events_give_the_same_effects() {
    let trace = World::new(11).run();
    assert!(trace.len() > 100);
    assert_eq!(trace, World::new(11).run());
}
