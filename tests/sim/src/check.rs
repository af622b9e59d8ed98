//! What must hold after everything that happens.

use std::time::Duration;

use engine::core::{FunctionId, Policy, Snapshot, WorkerId, WorkerState};
use ipc::CallId;

use crate::pool::{Census, Thread};
use crate::world::World;

/// Deadlines may be late by one of the core's ticks.
const TICK: Duration = Duration::from_millis(1);
/// How long the core asks for no worker after one could not be started.
pub(crate) const SPAWN_PAUSE: Duration = Duration::from_secs(1);
/// How long it asks for none after the container had no room for one.
pub(crate) const ROOM_PAUSE: Duration = Duration::from_millis(50);
/// How long it asks for none after it has given one up.
pub(crate) const YIELD_PAUSE: Duration = Duration::from_millis(10);
/// How long no call of a function may end while all wait for others, until more are begun: the core
/// looks every 0.1 s, or more often, and doubles what it allows, from one call to 256.
const STALL_MAX: Duration = Duration::from_millis(1_100);
/// Worker by worker, the core is compared once in so many events.
const LANES_EVERY: u64 = 64;

impl World {
    /// The core may not ask for workers of the function for so long, at most.
    pub(crate) fn pause(&mut self, function: FunctionId, pause: Duration) {
        let pool = &mut self.pools[function.index()];
        // Its timer may be a tick late.
        pool.paused_until = pool.paused_until.max(self.now + pause + TICK * 2);
    }

    /// After a tick no deadline has passed without an answer.
    pub(crate) fn check_deadlines(&self) {
        if let Some(&(deadline, call)) = self.owed.first() {
            let call = CallId(call);
            assert!(deadline + TICK * 2 > self.now, "{call:?} outlives its deadline");
        }
    }

    pub(crate) fn check(&mut self) {
        assert_eq!(self.core.calls_live() as usize, self.calls.len(), "calls");
        assert!(self.core.calls_live() <= self.plan.limits.calls_max, "too many calls");
        if let Some(&(deadline, call)) = self.owed.first() {
            let timer = self.core.next_timer();
            let is_watched = timer.is_some_and(|timer| timer <= deadline + TICK);
            assert!(is_watched, "the deadline of {:?} has no timer", CallId(call));
        }
        for index in 0..self.pools.len() {
            self.check_function(FunctionId::from_index(index));
            self.check_stall(FunctionId::from_index(index));
        }
        if self.events.is_multiple_of(LANES_EVERY) {
            self.check_calls();
            for index in 0..self.pools.len() {
                self.check_lanes(FunctionId::from_index(index));
            }
        }
    }

    fn check_function(&self, function: FunctionId) {
        let seen = self.core.snapshot(function);
        let census = self.pools[function.index()].census();
        let Snapshot {
            queued, pipelined, running, waiting, idle, starting, held, retiring, ..
        } = seen;
        let counted =
            Census { queued, pipelined, starting, idle, running, waiting, held, retiring };
        assert_eq!(counted, census, "{function:?}: the core and the world disagree");

        let spec = &self.plan.functions[function.index()].spec;
        let counts = self.counts[function.index()];
        // What was admitted and comes back is not refused.
        assert!(queued <= spec.queue_max + counts.back, "{queued} calls wait");
        assert!(census.workers() <= spec.max_workers);
        self.check_starvation(function, &seen);

        assert_eq!(seen.counters.arrivals, counts.arrivals, "arrivals");
        let answered = seen.counters.completed + seen.counters.failed_total();
        assert_eq!((answered, seen.counters.abandoned), (counts.answers, counts.abandoned));
    }

    /// A call waits for a reason only.
    fn check_starvation(&self, function: FunctionId, seen: &Snapshot) {
        let pool = &self.pools[function.index()];
        if seen.queued == 0 || !pool.is_up || self.is_tick_due() {
            return;
        }
        let spec = &self.plan.functions[function.index()].spec;
        let on_workers = seen.running + seen.waiting + seen.held;
        let is_bounded = matches!(spec.policy, Policy::Managed | Policy::Paper);
        // Workers are kept for calls that lie below others of the same function.
        let is_kept = self.counts[function.index()].is_nested;
        if !is_bounded && !is_kept {
            assert_eq!(seen.idle, 0, "{function:?}: a call waits beside an idle worker");
        }
        assert!(
            on_workers > 0 || seen.idle == 0,
            "{function:?}: calls wait, no worker is on one, and one is idle: {seen:?}"
        );
        let is_moving = on_workers + seen.starting + seen.retiring > 0;
        assert!(
            is_moving || self.now < pool.paused_until,
            "{function:?}: calls wait and nothing is under way: {seen:?}"
        );
    }

    /// After the machine stood still, time has passed that the core does not know of.
    fn is_tick_due(&self) -> bool {
        self.core.next_timer().is_some_and(|timer| timer <= self.now)
    }

    /// Calls that wait for calls of their own need no core: if all do, more are begun before long.
    fn check_stall(&mut self, function: FunctionId) {
        let ended = self.core.times(function).processing;
        let is_tick_due = self.is_tick_due();
        let pool = &mut self.pools[function.index()];
        let seen = pool.census();
        let spec = &self.plan.functions[function.index()].spec;
        let has_room = seen.idle > 0 || seen.workers() < spec.max_workers;
        let is_pausing = !pool.is_up || self.now < pool.paused_until;
        let is_stalled = seen.queued > 0
            && seen.waiting > 0
            && seen.running + seen.starting + seen.held + seen.retiring == 0;
        if !is_stalled || !has_room || is_pausing || spec.policy == Policy::Paper {
            pool.stalled_since = None;
            return;
        }
        let state = (seen, ended.counts.iter().sum::<u64>());
        let since = match pool.stalled_since {
            Some((since, before)) if before == state => since,
            _ => self.now,
        };
        pool.stalled_since = Some((since, state));
        assert!(self.now <= since + STALL_MAX || is_tick_due, "{function:?} has stalled: {seen:?}");
    }

    fn check_calls(&self) {
        for (&id, known) in &self.calls {
            let call = self.core.call(CallId(id)).expect("the core has forgotten a call");
            assert_eq!((call.origin, call.function), (known.origin, known.function));
            assert_eq!((call.deadline, call.depth), (known.deadline, known.depth));
        }
    }

    fn check_lanes(&self, function: FunctionId) {
        let pool = &self.pools[function.index()];
        for lane in pool.lanes() {
            let worker = WorkerId { function, lane };
            match (self.core.worker(worker), pool.thread(worker)) {
                (WorkerState::Absent, None)
                | (WorkerState::Starting, Some(Thread::Starting))
                | (WorkerState::Idle, Some(Thread::Idle))
                | (WorkerState::Retiring, Some(Thread::Retiring)) => {}
                (WorkerState::Held { call }, Some(Thread::Held(held))) if call == *held => {}
                (WorkerState::Running { call }, Some(Thread::On(run)))
                    if call == run.call && run.children.is_empty() => {}
                (WorkerState::Waiting { call, outstanding }, Some(Thread::On(run)))
                    if call == run.call && usize::from(outstanding) == run.children.len() => {}
                (state, thread) => panic!("{worker:?} is {state:?}, its thread {thread:?}"),
            }
        }
    }
}
