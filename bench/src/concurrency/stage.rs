//! Where pools are measured: a server on one core, the load on another, so that what the server can
//! do is its own.

use std::path::Path;
use std::time::Duration;

use super::figures::Figures;
use super::pool::Pool;
use super::step::Recovery;
use super::workload::{DEADLINE, Workload};
use crate::load::target::Target;
use crate::load::{self, Also, Keep, Pace, Plan, Report};
use crate::suite::Error;
use crate::suite::process::{nth_core, stay_on};
use crate::suite::programs::Programs;
use crate::suite::targets::{Instance, Starter};

/// Of a closed loop: more than the largest fixed pool that is measured runs at once.
const CONNECTIONS_CLOSED: u32 = 64;
/// A request that is neither answered nor refused at its deadline is so soon after.
const CONNECTION_SLACK: Duration = Duration::from_millis(50);
/// Of an open load: more are neither needed at the rates of one core, nor taken by one shard.
const CONNECTIONS_MAX: f64 = 6000.0;
/// Longer than any answer should take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long is measured.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Before each load; does not count.
    pub warm_up: Duration,
    /// Of each load.
    pub load: Duration,
    /// Before the step.
    pub step_before: Duration,
    /// After it.
    pub step_after: Duration,
    /// The end of that, which tells what the pool comes to rest at.
    pub step_rest: Duration,
}

/// Cores and times.
pub struct Stage<'a> {
    starter: Starter<'a>,
    timing: Timing,
    /// Of the server, its containers and workers.
    pub server_core: usize,
    /// Of this process.
    pub client_core: usize,
}

impl<'a> Stage<'a> {
    /// Moves this process to the first core that it may use and keeps the second for the server;
    /// where there is one core only, they share it.
    pub fn new(programs: &'a Programs, scratch: &'a Path, timing: Timing) -> Result<Self, Error> {
        let (client_core, server_core) = (nth_core(0)?, nth_core(1)?);
        stay_on(client_core)?;
        let starter = Starter::new(programs, scratch);
        Ok(Stage { starter, timing, server_core, client_core })
    }

    /// Starts a stack with these functions.
    pub fn start(&mut self, pool: Pool, functions: &[(&str, &str)]) -> Result<Instance, Error> {
        self.starter.nightcore_with(&pool.configuration(functions), Some(self.server_core))
    }

    /// As fast as it answers.
    pub fn closed(&self, instance: &Instance, workload: &Workload) -> Result<Figures, Error> {
        let plan = Plan {
            connections: CONNECTIONS_CLOSED,
            headers: Vec::new(),
            ..self.plan(instance, workload, Pace::Closed)
        };
        run(workload, &plan).map(|report| Figures::new(&report, None))
    }

    /// At a constant rate, with deadlines.
    pub fn open(
        &self,
        instance: &Instance,
        workload: &Workload,
        per_second: f64,
    ) -> Result<Figures, Error> {
        let plan = self.plan(instance, workload, Pace::Constant { per_second });
        run(workload, &plan).map(|report| Figures::new(&report, Some(DEADLINE)))
    }

    /// At one rate and then at another, with deadlines.
    pub fn step(
        &self,
        instance: &Instance,
        workload: &Workload,
        (before, after): (f64, f64),
    ) -> Result<Recovery, Error> {
        let Timing { step_before: at, step_after, step_rest, .. } = self.timing;
        let duration = at + step_after;
        let pace = Pace::Step { before, at, after };
        let plan = Plan { duration, ..self.plan(instance, workload, pace) };
        let report = run(workload, &plan)?;
        Ok(Recovery::new(&report.log, at, duration, step_rest))
    }

    fn plan(&self, instance: &Instance, workload: &Workload, pace: Pace) -> Plan {
        let path = |function: &str| format!("/function/{function}");
        let (function, body) = workload.requests[0];
        let also = workload.requests[1..]
            .iter()
            .map(|(function, body)| Also { path: path(function), body: body.as_bytes().to_vec() });
        let address = instance.address;
        Plan {
            target: Target { address, authority: address.to_string(), path: path(function) },
            method: "POST".to_owned(),
            headers: vec![("X-Nightcore-Timeout-Ms".to_owned(), DEADLINE.as_millis().to_string())],
            body: body.as_bytes().to_vec(),
            also: also.collect(),
            connections: connections(pace),
            pace,
            duration: self.timing.load,
            warm_up: self.timing.warm_up,
            timeout: TIMEOUT,
            threads: 1,
            keep: Keep::EveryRequest,
        }
    }
}

/// As many as requests are in flight where each of them waits until its deadline.
fn connections(pace: Pace) -> u32 {
    let per_second = match pace {
        Pace::Closed => return CONNECTIONS_CLOSED,
        Pace::Constant { per_second } => per_second,
        Pace::Step { before, after, .. } => before.max(after),
    };
    let in_flight = per_second * (DEADLINE + CONNECTION_SLACK).as_secs_f64();
    let connections = in_flight.ceil().clamp(f64::from(CONNECTIONS_CLOSED), CONNECTIONS_MAX);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let connections = connections as u32;
    connections
}

fn run(workload: &Workload, plan: &Plan) -> Result<Report, Error> {
    load::run(plan, &mut |_| ()).map_err(|error| Error::Requests {
        case: workload.name.to_owned(),
        what: error.to_string(),
    })
}
