//! What a world is made of: functions, loads, costs, faults. Plain values, printed when a seed fails.

use std::time::Duration;

use engine::core::{FunctionId, FunctionSpec, Limits, Policy};

use crate::arrivals::Arrivals;
use crate::cpu::Switching;
use crate::program::Program;

/// See the module's description.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of everything random.
    pub seed: u64,
    /// Cores that the shard's workers share.
    pub cores: u16,
    /// Bounds of the core.
    pub limits: Limits,
    /// By id.
    pub functions: Vec<Function>,
    /// Callers from outside.
    pub sources: Vec<Source>,
    /// What things cost.
    pub costs: Costs,
    /// What goes wrong.
    pub faults: Faults,
    /// How often gauges are read, if at all.
    pub gauge: Option<Duration>,
}

/// A deployed function.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its limits.
    pub spec: FunctionSpec,
    /// What it does.
    pub program: Program,
}

/// Callers of one function.
#[derive(Clone, Debug)]
pub struct Source {
    /// Whom they call.
    pub function: FunctionId,
    /// When.
    pub arrivals: Arrivals,
    /// Their deadline, if it is sooner than the function's timeout.
    pub deadline: Option<Duration>,
}

/// Times that the world around the core takes.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// CPU time to wake a worker up, for a call or for an answer.
    pub wake: Duration,
    /// The launcher's, for a worker; it starts one after the other.
    pub spawn: Duration,
    /// Until a worker that was told to leave has left.
    pub retire: Duration,
    /// What many threads on a core cost, if anything.
    pub switching: Option<Switching>,
}

impl Default for Costs {
    fn default() -> Costs {
        Costs {
            wake: Duration::from_micros(5),
            spawn: Duration::from_micros(100),
            retire: Duration::from_micros(50),
            switching: Some(Switching::USUAL),
        }
    }
}

/// What goes wrong, as shares from 0 to 1 of all cases or as a mean time between two.
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    /// Workers that cannot be started, or for which the container has no room.
    pub spawn_fails: f64,
    /// Workers that take a hundred times as long to start.
    pub spawn_slow: f64,
    /// A container crashes, and is up again after 1 ms to 1 s.
    pub crash_every: Option<Duration>,
    /// The machine stands still for 50 to 500 ms.
    pub stall_every: Option<Duration>,
    /// Another shard wants a worker of the same container, or has given one up.
    pub share_every: Option<Duration>,
    /// Callers that leave, after 1 to 100 ms.
    pub leave: f64,
    /// Clients that read slowly: the worker's memory is in use for 1 to 20 ms more.
    pub slow_reader: f64,
    /// Calls that panic.
    pub panic: f64,
}

impl Plan {
    /// A world on one core without faults.
    #[must_use]
    pub fn new(seed: u64, functions: Vec<Function>, sources: Vec<Source>) -> Plan {
        Plan {
            seed,
            cores: 1,
            limits: Limits::default(),
            functions,
            sources,
            costs: Costs::default(),
            faults: Faults::default(),
            gauge: None,
        }
    }

    /// The same with all functions under this policy.
    #[must_use]
    pub fn under(mut self, policy: Policy) -> Plan {
        for function in &mut self.functions {
            function.spec.policy = policy;
        }
        self
    }
}

/// A spec as a configuration without further keys gives it: up to 64 workers, 1,024 calls that wait.
#[must_use]
pub fn spec(timeout: Duration) -> FunctionSpec {
    FunctionSpec {
        min_workers: 1,
        max_workers: 64,
        timeout,
        queue_max: 1_024,
        pipeline_max: 10,
        policy: Policy::Managed,
        cores: 1,
        queue_wait_max: None,
        grace: Duration::from_secs(1),
    }
}
