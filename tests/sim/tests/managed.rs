//! What `Policy::Managed` promises, each promise in a world of its own.
//!
//! Loads are relative to what the core can do; times are those of the world.

use std::time::Duration;

use engine::core::{FunctionId, FunctionSpec};
use ipc::Outcome;
use nightcore_sim::arrivals::Arrivals;
use nightcore_sim::lottery::tree_cost;
use nightcore_sim::plan::{Function, Plan, Source, spec};
use nightcore_sim::program::{Change, Phase, Program, Spread};
use nightcore_sim::tally::{Summary, Tally};
use nightcore_sim::world::World;

const A: FunctionId = FunctionId(0);
const B: FunctionId = FunctionId(1);
const C: FunctionId = FunctionId(2);
const SEEDS: u64 = 10;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn compute(time: Duration) -> Phase {
    Phase::Compute(Spread::Exponential(time))
}

fn sleep(time: Duration) -> Phase {
    Phase::Sleep(Spread::Constant(time))
}

fn function(phases: impl Into<Vec<Phase>>) -> Function {
    Function { spec: spec(secs(10)), program: Program::new(phases) }
}

fn poisson(rate: f64) -> Source {
    Source { function: A, arrivals: Arrivals::Poisson { rate }, deadline: None }
}

/// Calls of the first function that keep the core busy, a second.
fn capacity(functions: &[Function]) -> f64 {
    let plan = Plan::new(0, functions.to_vec(), Vec::new());
    1.0 / tree_cost(&plan, A, 0).as_secs_f64()
}

/// A world that has lived for so long and come to rest.
fn live(plan: Plan, time: Duration) -> Tally {
    let mut world = World::new(plan);
    world.run(time);
    world.come_to_rest();
    world.tally().clone()
}

/// The calls of many worlds that came in a window, taken together.
fn pooled(tallies: &[Tally], from: Duration, to: Duration) -> Summary {
    let samples = tallies.iter().flat_map(|tally| tally.samples.iter().copied());
    Tally { samples: samples.collect(), gauges: Vec::new() }.summary(None, from, to)
}

/// Three times the load leaves nine tenths of the goodput at the best load, with a deadline of 0.1 s.
fn check_overload(functions: &[Function]) {
    let capacity = capacity(functions);
    for seed in 0..SEEDS / 2 {
        let goodput = |load: f64| {
            let source = Source { deadline: Some(ms(100)), ..poisson(load * capacity) };
            let tally = live(Plan::new(seed, functions.to_vec(), vec![source]), secs(12));
            tally.summary(None, secs(2), secs(12)).goodput
        };
        let peak = [0.8, 0.9, 1.0].map(goodput).into_iter().fold(0.0, f64::max);
        let overload = goodput(3.0);
        assert!(overload >= 0.9 * peak, "seed {seed}: {overload:.0} of {peak:.0} calls a second");
    }
}

#[test]
fn three_times_the_load_leaves_nine_tenths_of_the_peak_goodput() {
    check_overload(&[function([compute(ms(1))])]);
}

#[test]
fn so_it_does_of_calls_that_sleep() {
    check_overload(&[function([compute(us(200)), sleep(ms(10)), compute(us(200))])]);
}

#[test]
fn so_it_does_of_a_chain() {
    let next = |next| function([compute(us(200)), Phase::call(next)]);
    check_overload(&[next(B), next(C), function([compute(us(200))])]);
}

#[test]
fn so_it_does_of_a_fan_out() {
    let all = Phase::Call { function: B, count: 10, below: u16::MAX };
    check_overload(&[function([compute(us(100)), all]), function([compute(us(100))])]);
}

#[test]
fn a_step_of_load_costs_latency_for_a_second_at_most() {
    let functions = vec![function([compute(ms(1))])];
    let capacity = capacity(&functions);
    let step = secs(5);
    let steps = vec![(Duration::ZERO, 0.1 * capacity), (step, 0.9 * capacity)];
    let source = Source { arrivals: Arrivals::Steps(steps), ..poisson(0.0) };
    let plan = |seed| Plan::new(seed, functions.clone(), vec![source.clone()]);
    let tallies: Vec<Tally> = (0..2 * SEEDS).map(|seed| live(plan(seed), secs(25))).collect();
    let after = pooled(&tallies, step + secs(1), step + secs(2));
    let steady = pooled(&tallies, step + secs(5), step + secs(20));
    assert_eq!(after.good, after.offered, "some calls failed after the step");
    assert!(after.p99 <= steady.p99.mul_f64(1.25), "{:?}, later {:?}", after.p99, steady.p99);
}

#[test]
fn calls_that_sleep_are_not_held_back_by_the_number_of_cores() {
    let functions = vec![function([sleep(ms(10))])];
    for seed in 0..SEEDS {
        let plan = Plan::new(seed, functions.clone(), vec![poisson(4_000.0)]);
        let tally = live(plan, secs(6));
        let summary = tally.summary(None, secs(1), secs(6));
        assert_eq!(summary.good, summary.offered, "seed {seed}");
        assert!(summary.p99 < us(11_500), "seed {seed}: {:?} for 10 ms", summary.p99);
    }
}

#[test]
fn the_limit_does_not_oscillate_with_service_times_of_two_modes() {
    let spread = Spread::Bimodal { short: ms(5), long: ms(50), share: 0.1 };
    let functions = vec![function([Phase::Sleep(spread)])];
    for seed in 0..SEEDS {
        // 19 calls at once on average.
        let mut plan = Plan::new(seed, functions.clone(), vec![poisson(2_000.0)]);
        plan.gauge = Some(ms(10));
        let tally = live(plan, secs(20));
        let late = tally.gauges.iter().filter(|g| (secs(2)..secs(20)).contains(&g.at));
        let limits: Vec<f64> = late.map(|gauge| gauge.functions[0].limit.into()).collect();
        let count = limits.len() as f64;
        let mean = limits.iter().sum::<f64>() / count;
        let squares = limits.iter().map(|limit| (limit - mean).powi(2)).sum::<f64>();
        let deviation = (squares / count).sqrt();
        // With service times that are all the same it is 6%: arrivals come by chance too.
        assert!(deviation <= 0.12 * mean, "seed {seed}: {mean:.1} +- {deviation:.1}");
        let summary = tally.summary(None, secs(2), secs(20));
        assert_eq!(summary.good, summary.offered, "seed {seed}");
        assert!(summary.p99 < ms(55), "seed {seed}: {:?} for at most 50 ms", summary.p99);
    }
}

#[test]
fn service_times_that_become_ten_times_as_long_are_followed_within_a_second() {
    let at = secs(5);
    let mut functions = vec![function([sleep(ms(1))])];
    functions[0].program.change = Some(Change { at, factor: 10.0 });
    for seed in 0..SEEDS {
        // 2 calls at once on average, and then 20.
        let mut plan = Plan::new(seed, functions.clone(), vec![poisson(2_000.0)]);
        plan.gauge = Some(ms(10));
        let tally = live(plan, secs(15));
        let summary = tally.summary(None, at + secs(1), secs(15));
        assert_eq!(summary.good, summary.offered, "seed {seed}");
        assert!(summary.p99 < us(11_500), "seed {seed}: {:?} for 10 ms", summary.p99);
        let hint = |time| {
            let gauge = tally.gauges.iter().find(|gauge| gauge.at >= time).unwrap();
            gauge.functions[0].hint_milli / 1_000
        };
        assert!((1..=4).contains(&hint(at)), "seed {seed}: {}", hint(at));
        let after = hint(at + secs(1));
        assert!((16..=30).contains(&after), "seed {seed}: {after}");
    }
}

#[test]
fn recursion_ends_without_waiting_for_deadlines() {
    let recursive = |target, below| Phase::Call { function: target, count: 1, below };
    let few = FunctionSpec { max_workers: 4, ..spec(secs(10)) };
    for seed in 0..SEEDS {
        for (depth, is_pair) in [(2, false), (8, false), (2, true), (8, true)] {
            let other = if is_pair { B } else { A };
            let program =
                |target| Program::new([compute(us(50)), recursive(target, depth), compute(us(50))]);
            let functions = vec![
                Function { spec: few, program: program(other) },
                Function { spec: few, program: program(A) },
            ];
            let rate = 0.8 * capacity(&functions);
            let tally = live(Plan::new(seed, functions, vec![poisson(rate)]), secs(5));
            let late = tally.count(Outcome::DeadlineExceeded);
            assert_eq!(late, 0, "seed {seed}, depth {depth}, {is_pair}");
        }
    }
}

#[test]
fn recursion_that_fits_its_workers_succeeds() {
    let recursive = Phase::Call { function: A, count: 1, below: 8 };
    let functions = vec![function([compute(us(50)), recursive, compute(us(50))])];
    let rate = 0.7 * capacity(&functions);
    for seed in 0..SEEDS {
        let tally = live(Plan::new(seed, functions.clone(), vec![poisson(rate)]), secs(5));
        let failed = tally.samples.len() - tally.count(Outcome::Ok);
        assert_eq!(failed, 0, "seed {seed}: of {}", tally.samples.len());
    }
}

#[test]
fn blocked_parents_do_not_keep_others_from_running() {
    let functions = vec![
        function([compute(us(20)), Phase::call(B)]),
        function([compute(us(20)), Phase::call(C)]),
        function([compute(us(20)), sleep(ms(50))]),
    ];
    for seed in 0..SEEDS {
        // 25 calls of each function at once, nearly all of them blocked.
        let tally = live(Plan::new(seed, functions.clone(), vec![poisson(500.0)]), secs(10));
        let summary = tally.summary(None, secs(1), secs(10));
        assert_eq!(summary.good, summary.offered, "seed {seed}");
        assert!(summary.p99 < ms(55), "seed {seed}: {:?} for 50 ms", summary.p99);
    }
}

#[test]
fn a_fan_out_of_more_calls_than_the_limit_is_done() {
    let functions = vec![
        function([compute(us(50)), Phase::Call { function: B, count: 40, below: u16::MAX }]),
        function([compute(us(20))]),
    ];
    let rate = 0.7 * capacity(&functions);
    for seed in 0..SEEDS {
        let tally = live(Plan::new(seed, functions.clone(), vec![poisson(rate)]), secs(5));
        let failed = tally.samples.len() - tally.count(Outcome::Ok);
        assert_eq!(failed, 0, "seed {seed}: of {}", tally.samples.len());
    }
}
