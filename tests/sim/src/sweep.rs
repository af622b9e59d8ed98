//! Loads from a tenth to three times of what the core can do, under each policy: what comes back.

use std::fmt::Write;
use std::time::Duration;

use engine::core::{FunctionId, FunctionSpec, Policy};

use crate::arrivals::Arrivals;
use crate::cpu::Switching;
use crate::lottery::tree_cost;
use crate::plan::{Function, Plan, Source, spec};
use crate::program::{Phase, Program, Spread};
use crate::world::World;

/// Shares of the capacity that are offered.
pub const LOADS: [f64; 15] =
    [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0];
/// Calls of the first part of a run do not count: pools grow and estimates form.
const WARM_UP: Duration = Duration::from_secs(3);

/// Functions that are called together. The first one is called from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mix {
    /// One function that computes for 1 ms on average, exponentially distributed.
    Spin,
    /// One function that computes for 0.2 ms on average, sleeps for 10 ms and computes again.
    Sleep,
    /// Four functions that each compute for 0.1 ms on average and call the next one.
    Chain,
}

impl Mix {
    /// All there are.
    pub const ALL: [Mix; 3] = [Mix::Spin, Mix::Sleep, Mix::Chain];

    /// The start of the names of its files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mix::Spin => "spin",
            Mix::Sleep => "sleep",
            Mix::Chain => "chain",
        }
    }

    /// For people, as a title.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Mix::Spin => "1 ms of computing",
            Mix::Sleep => "0.4 ms of computing and 10 ms of sleep",
            Mix::Chain => "a chain of four functions, 0.1 ms each",
        }
    }

    fn programs(self) -> Vec<Program> {
        let compute = |us| Phase::Compute(Spread::Exponential(Duration::from_micros(us)));
        let sleep = Phase::Sleep(Spread::Constant(Duration::from_millis(10)));
        match self {
            Mix::Spin => vec![Program::new([compute(1_000)])],
            Mix::Sleep => vec![Program::new([compute(200), sleep, compute(200)])],
            Mix::Chain => {
                let next = |n| Program::new([compute(100), Phase::call(FunctionId(n))]);
                vec![next(1), next(2), next(3), Program::new([compute(100)])]
            }
        }
    }
}

/// A policy with its pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contender {
    /// In legends and tables.
    pub name: &'static str,
    policy: Policy,
    min_workers: u16,
    max_workers: u16,
}

/// All that are compared: ours first.
pub const CONTENDERS: [Contender; 6] = [
    contender("managed", Policy::Managed, 1, 256),
    contender("the paper's rule", Policy::Paper, 1, 256),
    contender("unlimited", Policy::Unlimited, 1, 256),
    contender("2 workers", Policy::Fixed, 2, 2),
    contender("8 workers", Policy::Fixed, 8, 8),
    contender("64 workers", Policy::Fixed, 64, 64),
];

const fn contender(name: &'static str, policy: Policy, min: u16, max: u16) -> Contender {
    Contender { name, policy, min_workers: min, max_workers: max }
}

/// What is the same for all points of a sweep.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Of the arrivals and the times that things take.
    pub seed: u64,
    /// How long each load lasts, the first three seconds that do not count aside.
    pub time: Duration,
    /// A call that is not answered by then is lost.
    pub deadline: Duration,
    /// What threads that take turns cost.
    pub switching: Switching,
}

/// What came of one load.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Who.
    pub contender: Contender,
    /// Offered, as a share of the capacity.
    pub load: f64,
    /// Offered calls a second.
    pub offered: f64,
    /// Calls that succeeded by their deadline, a second.
    pub goodput: f64,
    /// The same as a share of the capacity.
    pub goodput_share: f64,
    /// Of the calls that succeeded.
    pub p50: Duration,
    /// The same.
    pub p99: Duration,
    /// Share of the core's time in use.
    pub busy: f64,
}

/// Offers a load.
#[must_use]
pub fn measure(mix: Mix, contender: Contender, load: f64, terms: Terms) -> Point {
    let spec = FunctionSpec {
        policy: contender.policy,
        min_workers: contender.min_workers,
        max_workers: contender.max_workers,
        ..spec(Duration::from_secs(10))
    };
    let programs = mix.programs().into_iter();
    let functions: Vec<_> = programs.map(|program| Function { spec, program }).collect();
    let first = FunctionId(0);
    let mut plan = Plan::new(terms.seed, functions, Vec::new());
    plan.costs.switching = Some(terms.switching);
    let capacity = 1.0 / tree_cost(&plan, first, 0).as_secs_f64();
    let arrivals = Arrivals::Poisson { rate: load * capacity };
    plan.sources = vec![Source { function: first, arrivals, deadline: Some(terms.deadline) }];
    let mut world = World::new(plan);
    let end = WARM_UP + terms.time;
    world.run(end);
    let busy = world.busy();
    world.come_to_rest();
    let summary = world.tally().summary(None, WARM_UP, end);
    Point {
        contender,
        load,
        offered: summary.offered as f64 / terms.time.as_secs_f64(),
        goodput: summary.goodput,
        goodput_share: summary.goodput / capacity,
        p50: summary.p50,
        p99: summary.p99,
        busy,
    }
}

/// Points as a table of comma-separated values with a line of names.
#[must_use]
pub fn csv(points: &[Point]) -> String {
    let mut text =
        "policy,load,offered_per_s,goodput_per_s,latency_us_p50,latency_us_p99,busy\n".to_owned();
    for point in points {
        let Point { load, offered, goodput, p50, p99, busy, .. } = point;
        let (p50, p99) = (p50.as_micros(), p99.as_micros());
        let name = point.contender.name;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name},{load},{offered:.1},{goodput:.1},{p50},{p99},{busy:.3}");
    }
    text
}
