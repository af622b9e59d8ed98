//! What a function and a shard are bounded by, as configured.

use std::time::Duration;

use super::limit::Policy;

/// What is deployed: the limits of one function on this shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FunctionSpec {
    /// Workers kept even when idle. 0 on every shard but the function's home.
    pub min_workers: u16,
    /// Workers at most: the lanes of the channel, 1 to `ipc::LANES_MAX`.
    pub max_workers: u16,
    /// How long a call may take, from admission to answer, queueing included.
    pub timeout: Duration,
    /// Calls that may wait for a worker. 0 refuses whatever cannot start at once.
    pub queue_max: u32,
    /// Calls that may wait in a lane behind the one its worker runs, at most `ipc::PIPELINE_MAX`. 0
    /// where workers have cores of their own: there a second worker is the faster way.
    pub pipeline_max: u16,
    /// What bounds the calls on workers and sizes the pool.
    pub policy: Policy,
    /// Cores on which the function's workers can run: 1 where they are pinned to their shard's.
    pub cores: u16,
    /// A call that would wait longer than this for a worker is refused.
    pub queue_wait_max: Option<Duration>,
    /// How long a call may run on behind the function's timeout until its container is replaced.
    pub grace: Duration,
}

/// The bounds of the whole core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Calls of all functions that are queued or on a worker at one time. Bounds the call table.
    pub calls_max: u32,
    /// Depth of the deepest call. An external call has depth 0, its children 1.
    pub depth_max: u16,
}

impl Default for Limits {
    /// 65,536 calls (the table then takes about 7 MiB when full, none of it before it is used) and
    /// chains of 16, several times deeper than the microservices of the paper's evaluation.
    fn default() -> Limits {
        Limits { calls_max: 65_536, depth_max: 16 }
    }
}
