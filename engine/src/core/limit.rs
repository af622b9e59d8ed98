//! Concurrency control: how many calls may be on workers, how many workers are wanted.
//!
//! The core asks here at every dispatch, growth and trim and decides nothing of the kind itself.
//! Two bounds hold under [`Policy::Managed`]: one on calls that run or wait for their own calls, by
//! Little's law, and one on those that run, by cores. `docs/concurrency.md` has the formulas.

use std::time::Duration;

use reactor::clock::Nanos;

use super::estimate::Load;
use super::paper::Paper;

/// Calls at once that any function may have, and what one has of which nothing is known yet: a few
/// workers too many cost memory, one too few is a queue.
const CALLS_MIN: u16 = 8;
/// Short calls may be this many more: the more of them wait for calls of their own, the more of their
/// messages go with one wake-up. Without, a chain of ten under load makes 8% fewer requests a second.
const SHORT_CALLS: f64 = 32.0;
/// Deviations of the number of calls at once by which the bound exceeds its mean: at twice, one call in
/// twenty of a Poisson stream would find the bound reached, and waits a fraction of a call's time.
const DEVIATIONS: f64 = 2.0;
/// Calls that run beside those that keep the cores busy: the core never waits for the engine.
const SPARE: f64 = 1.0;
/// So much CPU time of calls may be on the workers of a core in any case, in ns: less than a turn of the
/// scheduler, so that they run one after the other all the same, and many go with one wake-up.
const TURN_NS: f64 = 200_000.0;
/// Blocked time below this part of the CPU time is noise.
const BLOCKED_MIN: f64 = 0.1;
/// A queue that the workers which run will have begun within this time, in ns, is not worth another one.
const SPAWN_NS: u64 = 20_000;
/// The bounds are computed anew after this time or so many arrivals.
const FRESH: Duration = Duration::from_micros(500);
const FRESH_ARRIVALS: u16 = 16;

/// What bounds the calls on workers and sizes the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// The measured load, between `min_workers` and `max_workers`.
    Managed,
    /// The pool alone: it grows one by one while calls wait.
    Fixed,
    /// Nothing but `max_workers`: as many workers as there are calls.
    Unlimited,
    /// The rule of the paper, for comparison: fewer than tau calls on workers, where tau is the mean
    /// of the reciprocals of gaps times the mean processing time, and no limit for 128 calls.
    Paper,
}

/// The workers and calls of one function as the policy sees them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Pool {
    /// Workers of any state, those that start or retire included.
    pub workers: u16,
    /// Those of them that are starting.
    pub starting: u16,
    /// Those that wait for a call.
    pub idle: u16,
    /// Those on a call that has no unanswered call of its own.
    pub running: u16,
    /// Those on a call that has.
    pub waiting: u16,
    /// Calls that wait for a worker.
    pub queued: u32,
}

/// How many workers one function gets and how many calls they may be on.
#[derive(Debug)]
pub(super) struct Limit {
    policy: Policy,
    min: u16,
    max: u16,
    cores: f64,
    /// Most calls that run or wait, without `boost`.
    calls: u16,
    /// Most calls that run.
    running: u16,
    /// What was added to `calls` since all of them wait for others and none goes on.
    boost: u16,
    /// tau as last computed.
    hint: f64,
    /// How long a call runs, in ns, as last seen.
    ran_ns: Option<u64>,
    computed: Nanos,
    arrivals: u16,
    paper: Paper,
}

impl Limit {
    /// Between `min` and `max` workers, which run on `cores` cores.
    pub fn new(policy: Policy, min: u16, max: u16, cores: u16) -> Limit {
        assert!(min <= max, "min_workers {min} is above max_workers {max}");
        let at_first = |count: u16| if policy == Policy::Managed { count.min(max) } else { max };
        Limit {
            policy,
            min,
            max,
            cores: cores.into(),
            calls: at_first(CALLS_MIN),
            running: at_first(CALLS_MIN),
            boost: 0,
            hint: 0.0,
            ran_ns: None,
            computed: Nanos(0),
            arrivals: 0,
            paper: Paper::default(),
        }
    }

    /// A call came.
    pub fn arrived(&mut self, now: Nanos) {
        if self.policy == Policy::Paper {
            self.paper.arrived(now);
        }
        self.arrivals += 1;
    }

    /// A call ended after this processing time.
    pub fn completed(&mut self, processing_ns: u64) {
        if self.policy == Policy::Paper {
            self.paper.completed(processing_ns);
        }
    }

    /// Whether the bounds need not be computed anew yet.
    pub fn is_fresh(&self, now: Nanos) -> bool {
        now.saturating_since(self.computed) < FRESH && self.arrivals < FRESH_ARRIVALS
    }

    /// Computes the bounds for this load.
    pub fn refresh(&mut self, now: Nanos, load: &Load) {
        (self.computed, self.arrivals) = (now, 0);
        self.ran_ns = load.ran_ns();
        let Some(hint) = load.hint(now) else { return };
        self.hint = hint;
        match self.policy {
            Policy::Managed => {
                let in_turn = load.cpu_ns().map_or(0.0, |ns| TURN_NS / ns.max(1) as f64);
                let by_load = (hint + DEVIATIONS * hint.sqrt() + 1.0).max(CALLS_MIN.into());
                self.calls = self.whole(by_load + (4.0 * in_turn).min(SHORT_CALLS));
                let a_core = load.calls_a_core();
                self.running = a_core.map_or(self.running, |calls| self.by_cores(calls, in_turn));
            }
            Policy::Paper => self.calls = self.paper.hint().map_or(self.max, |tau| self.whole(tau)),
            Policy::Fixed | Policy::Unlimited => {}
        }
    }

    fn by_cores(&self, calls_a_core: f64, in_turn: f64) -> u16 {
        self.whole(self.cores * (calls_a_core - BLOCKED_MIN).max(in_turn).max(1.0) + SPARE)
    }

    /// Rounded up, 1 to `max`.
    fn whole(&self, value: f64) -> u16 {
        // A float saturates on its way to an integer.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let whole = value.ceil().clamp(1.0, self.max.into()) as u16;
        whole
    }

    /// May one more call be given to an idle worker?
    pub fn admits(&self, running: u16, waiting: u16) -> bool {
        running < self.running && running + waiting < self.calls()
    }

    /// Most calls that run or wait.
    pub fn calls(&self) -> u16 {
        self.calls.saturating_add(self.boost).min(self.max)
    }

    /// tau as last computed.
    pub fn hint(&self) -> f64 {
        self.hint
    }

    /// All calls on workers, `waiting` of them, wait for others, and calls wait for workers: more may be
    /// begun, twice as many each time.
    pub fn relax(&mut self, waiting: u16) {
        let first = waiting.saturating_sub(self.calls).saturating_add(1);
        self.boost = self.boost.saturating_mul(2).max(first).min(self.max);
    }

    /// Whether that was done and calls have not gone on since.
    pub fn is_relaxed(&self) -> bool {
        self.boost > 0
    }

    /// Calls go on again.
    pub fn tighten(&mut self) {
        self.boost = 0;
    }

    /// How many workers to ask for now.
    pub fn grow(&self, pool: Pool) -> u16 {
        let missing = self.min.saturating_sub(pool.workers);
        let room = self.max.saturating_sub(pool.workers);
        let queued = u16::try_from(pool.queued).unwrap_or(u16::MAX);
        let wanted = match self.policy {
            // While one starts those that run complete, and the queue it was meant for is often gone.
            Policy::Fixed => u16::from(queued > 0 && pool.starting == 0),
            Policy::Unlimited => queued.saturating_sub(pool.starting),
            Policy::Paper => u16::from(queued > 0 && pool.workers < self.calls.saturating_mul(2)),
            Policy::Managed if self.is_soon_gone(pool) => 0,
            Policy::Managed => {
                let busy = pool.running + pool.waiting;
                let by_calls = self.calls().saturating_sub(busy);
                let by_cores = self.running.saturating_sub(pool.running);
                queued.min(by_calls).min(by_cores).saturating_sub(pool.starting + pool.idle)
            }
        };
        missing.max(wanted.min(room))
    }

    /// Whether the workers that run will have begun the queue before another one has started.
    fn is_soon_gone(&self, pool: Pool) -> bool {
        let Some(ran_ns) = self.ran_ns else { return false };
        pool.running > 0
            && u64::from(pool.queued).saturating_mul(ran_ns) < SPAWN_NS * u64::from(pool.running)
    }

    /// How many workers to retire when `unused` of `workers` were idle for a whole trim window.
    pub fn trim(&self, workers: u16, unused: u16) -> u16 {
        let kept = match self.policy {
            Policy::Managed | Policy::Paper => self.min.max(self.twice_the_hint()),
            Policy::Fixed | Policy::Unlimited => self.min,
        };
        unused.min(workers.saturating_sub(kept))
    }

    fn twice_the_hint(&self) -> u16 {
        // Nothing is called: nothing is kept for it.
        if self.hint == 0.0 { 0 } else { self.whole(2.0 * self.hint) }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use ipc::Usage;

    use super::super::estimate::Sample;
    use super::*;

    const MS: u64 = 1_000_000;

    /// After two seconds of this load: calls a second, CPU time and blocked time of one.
    fn managed(rate: u64, cpu_ns: u64, blocked_ns: u64, cores: u16) -> (Limit, Load, Nanos) {
        let mut limit = Limit::new(Policy::Managed, 0, 256, cores);
        let (mut load, mut now) = (Load::new(), Nanos(1_000 * MS));
        let sample = Sample { ran: cpu_ns + blocked_ns, waited: 0, service: 0 };
        for _ in 0..2 * rate {
            now = Nanos(now.0 + 1_000 * MS / rate);
            load.arrived(now);
            limit.arrived(now);
            let [cpu_ns, idle_ns] = [cpu_ns, blocked_ns].map(|ns| u32::try_from(ns).unwrap());
            let usage = Usage { calls: NonZeroU32::MIN, cpu_ns, idle_ns };
            load.completed(now, Some(sample), Some(usage));
            limit.completed(sample.ran);
            load.adjust();
            limit.refresh(now, &load);
        }
        (limit, load, now)
    }

    #[test]
    fn a_fixed_pool_fills_its_minimum_at_once_and_then_grows_one_by_one() {
        let limit = Limit::new(Policy::Fixed, 2, 4, 1);
        let pool =
            |workers, starting, queued| Pool { workers, starting, queued, ..Pool::default() };
        assert_eq!(limit.grow(pool(0, 0, 0)), 2);
        assert_eq!(limit.grow(pool(0, 0, 9)), 2);
        assert_eq!(limit.grow(pool(2, 0, 0)), 0);
        assert_eq!(limit.grow(pool(2, 0, 9)), 1);
        assert_eq!(limit.grow(pool(3, 1, 9)), 0);
        assert_eq!(limit.grow(pool(4, 0, 9)), 0);
    }

    #[test]
    fn an_unlimited_pool_has_a_worker_for_each_call() {
        let limit = Limit::new(Policy::Unlimited, 0, 16, 1);
        let pool =
            |workers, starting, queued| Pool { workers, starting, queued, ..Pool::default() };
        assert_eq!(limit.grow(pool(0, 0, 9)), 9);
        assert_eq!(limit.grow(pool(9, 9, 12)), 3);
        assert_eq!(limit.grow(pool(12, 0, 9)), 4);
    }

    #[test]
    fn trimming_stops_at_the_minimum() {
        let limit = Limit::new(Policy::Fixed, 2, 8, 1);
        assert_eq!(limit.trim(8, 3), 3);
        assert_eq!(limit.trim(4, 4), 2);
        assert_eq!(limit.trim(1, 1), 0);
    }

    #[test]
    fn calls_that_compute_run_one_a_core_and_one_spare() {
        let (limit, ..) = managed(900, MS, 0, 1);
        assert!(limit.admits(1, 0) && !limit.admits(2, 0));
        // Those that wait for calls of their own hold no core.
        assert!(limit.admits(1, 7) && !limit.admits(1, 8));
        let (limit, ..) = managed(900, MS, 0, 2);
        assert!(limit.admits(2, 0) && !limit.admits(3, 0));
    }

    #[test]
    fn calls_that_sleep_run_as_many_at_once_as_littles_law_says_with_room_for_chance() {
        let (limit, ..) = managed(4_000, 10_000, 10 * MS, 1);
        assert!((39.0..42.0).contains(&limit.hint()), "{}", limit.hint());
        // 40 + 2 * sqrt(40) + 1, and 32 since they are short of CPU time
        assert!((84..88).contains(&limit.calls()), "{}", limit.calls());
        assert!(limit.admits(50, 0));
    }

    #[test]
    fn before_anything_is_known_a_few_may_run() {
        let limit = Limit::new(Policy::Managed, 0, 256, 1);
        assert!(limit.admits(7, 0) && !limit.admits(8, 0));
        let pool = Pool { queued: 100, ..Pool::default() };
        assert_eq!(limit.grow(pool), 8);
    }

    #[test]
    fn a_queue_that_is_gone_before_a_worker_has_started_gets_none() {
        let (limit, ..) = managed(20_000, 5_000, 0, 1);
        let pool = |queued| Pool { workers: 1, running: 1, queued, ..Pool::default() };
        assert_eq!(limit.grow(pool(3)), 0);
        assert!(limit.grow(pool(1_000)) > 1);
        let pool = Pool { workers: 1, waiting: 1, queued: 1, ..Pool::default() };
        assert_eq!(limit.grow(pool), 1, "one that waits will not begin it");
    }

    #[test]
    fn a_pool_that_was_not_used_shrinks_to_twice_the_hint_and_without_calls_to_the_minimum() {
        let (mut limit, load, now) = managed(4_000, 10_000, 10 * MS, 1);
        assert!((79..84).contains(&(200 - limit.trim(200, 150))));
        limit.refresh(now + Duration::from_secs(5), &load);
        assert_eq!(limit.trim(200, 150), 150);
    }

    #[test]
    fn what_waits_for_others_gets_room_step_by_step() {
        let mut limit = Limit::new(Policy::Managed, 0, 50, 1);
        let steps: Vec<u16> = std::iter::repeat_with(|| {
            limit.relax(8);
            limit.calls()
        })
        .take(6)
        .collect();
        assert_eq!(steps, [9, 10, 12, 16, 24, 40]);
        limit.tighten();
        assert_eq!(limit.calls(), 8);
    }
}
