//! Worlds drawn at random: functions, who calls whom, loads, faults.

use std::time::Duration;

use engine::core::{FunctionId, FunctionSpec, Limits, Policy};

use crate::arrivals::Arrivals;
use crate::plan::{Costs, Faults, Function, Plan, Source};
use crate::program::{Change, Failure, Phase, Program, Spread};
use crate::random::Random;

/// Calls from outside in a world of the tests, about.
pub const CALLS: u32 = 3_000;
/// Not a stream that a world uses.
const STREAM: u64 = u64::MAX;

/// Draws the world of a seed. Its loads are between a tenth and some three times of what its core can
/// do, and it lasts for about `calls` calls from outside.
#[must_use]
pub fn draw(seed: u64, policy: Policy, calls: u32) -> (Plan, Duration) {
    let mut random = Random::new(seed, STREAM);
    let count = 1 + random.below(4);
    let limits = Limits {
        calls_max: random.pick(&[8, 1_000, 10_000, 65_536, 65_536]),
        depth_max: random.pick(&[2, 4, 16]),
    };
    let functions = (0..count).map(|_| function(&mut random, count, policy)).collect();
    let mut plan = Plan::new(seed, functions, Vec::new());
    plan.limits = limits;
    plan.cores = random.pick(&[1, 1, 1, 2, 4]);
    if random.happens(0.3) {
        plan.costs = Costs { switching: None, ..Costs::default() };
    }
    for spec in plan.functions.iter_mut().map(|function| &mut function.spec) {
        spec.cores = plan.cores;
        if plan.cores > 1 {
            spec.pipeline_max = 0;
        }
    }
    plan.faults = faults(&mut random);
    let load = random.between(Duration::from_millis(100), Duration::from_secs(3)).as_secs_f64();
    let sources = 1 + random.below(count);
    let mut rates = 0.0;
    for _ in 0..sources {
        let function = FunctionId(random.below(count).into());
        let cost = tree_cost(&plan, function, 0).as_secs_f64().max(20e-6);
        let rate = (load * f64::from(plan.cores) / cost / f64::from(sources)).min(20_000.0);
        rates += rate;
        plan.sources.push(source(&mut random, function, rate));
    }
    let time = (f64::from(calls) / rates).min(30.0);
    (plan, Duration::from_secs_f64(time))
}

fn function(random: &mut Random, count: u16, policy: Policy) -> Function {
    let max_workers = random.pick(&[1, 2, 4, 16, 64, 64, 64, 256]);
    let timeout = random.between(Duration::from_millis(20), Duration::from_secs(5));
    let spec = FunctionSpec {
        min_workers: random.below(3).min(max_workers),
        max_workers,
        timeout,
        queue_max: random.pick(&[0, 10, 100, 1_000, 1_000]),
        pipeline_max: random.pick(&[0, 3, 10]),
        policy,
        cores: 1,
        queue_wait_max: random.happens(0.3).then_some(timeout / 4),
        grace: Duration::from_millis(200),
    };
    let mut phases = vec![compute(random)];
    if random.happens(0.6) {
        let function = FunctionId(random.below(count).into());
        let call = Phase::Call {
            function,
            count: random.pick(&[1, 1, 1, 2, 5]),
            // It may be itself, or one that calls back.
            below: random.pick(&[1, 1, 2, 3]),
        };
        phases.push(call);
        if random.happens(0.5) {
            phases.push(compute(random));
        }
    }
    if random.happens(0.3) {
        let least = Duration::from_micros(100);
        let time = random.between(least, Duration::from_millis(20));
        phases.push(Phase::Sleep(spread(random, time)));
    }
    let mut program = Program::new(phases);
    if random.happens(0.3) {
        program.failure = Failure::Hasty;
    }
    if random.happens(0.1) {
        let factor = random.pick(&[0.1, 10.0]);
        program.change = Some(Change { at: Duration::from_millis(500), factor });
    }
    Function { spec, program }
}

fn compute(random: &mut Random) -> Phase {
    let time = random.between(Duration::from_micros(3), Duration::from_millis(5));
    Phase::Compute(spread(random, time))
}

fn spread(random: &mut Random, mean: Duration) -> Spread {
    match random.below(3) {
        0 => Spread::Constant(mean),
        1 => Spread::Exponential(mean),
        _ => Spread::Bimodal { short: mean / 2, long: mean * 10, share: 0.05 },
    }
}

fn source(random: &mut Random, function: FunctionId, rate: f64) -> Source {
    let arrivals = match random.below(3) {
        0 => Arrivals::Poisson { rate },
        1 => Arrivals::Bursty {
            high: rate * 3.0,
            low: 0.0,
            burst: Duration::from_millis(20),
            pause: Duration::from_millis(40),
        },
        _ => Arrivals::Steps(vec![
            (Duration::ZERO, rate / 5.0),
            (Duration::from_millis(300), rate * 2.0),
            (Duration::from_millis(800), rate),
        ]),
    };
    let deadline = random.between(Duration::from_millis(5), Duration::from_secs(2));
    Source { function, arrivals, deadline: random.happens(0.4).then_some(deadline) }
}

fn faults(random: &mut Random) -> Faults {
    let mut often = |share: f64| if random.happens(0.3) { share } else { 0.0 };
    let (spawn_fails, spawn_slow, leave) = (often(0.2), often(0.2), often(0.2));
    let (slow_reader, panic) = (often(0.1), often(0.05));
    let mut every = || {
        let mean = random.between(Duration::from_millis(100), Duration::from_secs(10));
        random.happens(0.3).then_some(mean)
    };
    let (crash_every, stall_every, share_every) = (every(), every(), every());
    Faults {
        spawn_fails,
        spawn_slow,
        crash_every,
        stall_every,
        share_every,
        leave,
        slow_reader,
        panic,
    }
}

/// Mean CPU time of a call and of all that it calls, as a program at this depth does.
#[must_use]
pub fn tree_cost(plan: &Plan, function: FunctionId, depth: u16) -> Duration {
    let program = &plan.functions[function.index()].program;
    let called = program.phases.iter().map(|phase| match phase {
        Phase::Call { function, count, below } if depth < *below && depth < 16 => {
            tree_cost(plan, *function, depth + 1) * u32::from(*count)
        }
        _ => Duration::ZERO,
    });
    program.compute_mean() + called.sum::<Duration>() + plan.costs.wake
}
