//! What a configured function becomes here: a container, and a function on every shard.

use std::sync::Arc;

use engine::container::{ContainerSpec, CrashLoop, Deployment, Limits, StartError};
use engine::core::{FunctionSpec, Policy, Quota};
use engine::io::Function;
use ipc::{Geometry, PIPELINE_MAX};

use crate::config::{self, Concurrency, Config, PIDS_DEFAULT, Placement, Priority};

/// Niceness of the containers where the shards may not be raised.
const CONTAINER_NICENESS: i32 = 10;

/// What all functions of this host have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    shards: u16,
    cores: u16,
    payload_max: u32,
    niceness: i32,
    cpu_last: bool,
}

impl Plan {
    pub(super) fn new(config: &Config, shards: u16, cores: u16) -> Self {
        let cpu_last = config.engine.priority == Priority::Groups;
        Self { shards, cores, payload_max: config.gateway.body_max, niceness: 0, cpu_last }
    }

    /// Lowers the containers if the shards could not be raised.
    pub(super) fn niceness(&mut self, config: &Config, raised: bool) {
        let by_niceness = matches!(config.engine.priority, Priority::Adaptive | Priority::High);
        let lower = by_niceness && !raised;
        self.niceness = if lower { CONTAINER_NICENESS } else { 0 };
    }

    /// Everything that is needed to deploy a function at run time.
    pub(super) fn deployment(
        &self,
        function: &config::Function,
        version: u32,
    ) -> Result<Deployment, StartError> {
        let functions = self.functions(function, version)?;
        Ok(Deployment { spec: self.container(function, version), functions })
    }

    /// How its container is started.
    pub(super) fn container(&self, function: &config::Function, version: u32) -> ContainerSpec {
        let pids = PIDS_DEFAULT + u32::from(function.max_workers);
        ContainerSpec {
            name: function.name.clone(),
            version,
            library: function.library.clone(),
            kind: function.container,
            limits: Limits {
                memory: function.memory,
                pids: Some(function.pids.unwrap_or(pids)),
                cpu_quota: function.cpu_quota,
                cpu_last: self.cpu_last,
            },
            network: function.network,
            read_only: function.read_only.clone(),
            env: function.env.clone(),
            payload_max: self.payload_max,
            min_workers: function.min_workers,
            max_workers: function.max_workers,
            idle_timeout: function.idle_timeout,
            crash_loop: CrashLoop {
                deaths: function.breaker_deaths,
                window: function.breaker_window,
            },
            log_rate: function.log_rate,
            niceness: self.niceness,
        }
    }

    /// What it is on each shard, in their order.
    pub(super) fn functions(
        &self,
        function: &config::Function,
        version: u32,
    ) -> Result<Vec<Function>, StartError> {
        let geometry = Geometry::new(function.max_workers, self.payload_max).map_err(|error| {
            let (function, reason) = (function.name.clone(), error.to_string());
            StartError::Container { function, reason }
        })?;
        let (name, quota) = (&function.name, quota(function));
        let of_shard = |shard| Function {
            name: name.clone(),
            spec: self.spec(function, shard),
            geometry,
            pinned: function.placement == Placement::Core,
            quota: quota.clone(),
            version,
            repeat: function.repeat,
        };
        Ok((0..self.shards).map(of_shard).collect())
    }

    fn spec(&self, function: &config::Function, shard: u16) -> FunctionSpec {
        let pinned = function.placement == Placement::Core;
        FunctionSpec {
            // The first shard is every function's home; others start workers when calls come.
            min_workers: if shard == 0 { function.min_workers } else { 0 },
            max_workers: function.max_workers,
            timeout: function.timeout,
            queue_max: function.queue_max,
            // Workers of one core take turns anyway.
            pipeline_max: if pinned { PIPELINE_MAX } else { 0 },
            policy: match function.concurrency {
                Concurrency::Managed => Policy::Managed,
                Concurrency::Fixed => Policy::Fixed,
                Concurrency::Unlimited => Policy::Unlimited,
            },
            cores: if pinned { 1 } else { self.cores },
            queue_wait_max: function.queue_wait_max,
            grace: function.grace,
        }
    }
}

/// The limits of a function that has some.
fn quota(function: &config::Function) -> Option<Arc<Quota>> {
    let (calls, rate) = (function.concurrency_limit, function.rate_limit);
    (calls.is_some() || rate.is_some()).then(|| Arc::new(Quota::new(calls, rate)))
}
