//! Managed concurrency beside fixed pools and no limit at all, on the real stack.
//!
//! - [`workload`]: what is called. [`pool`]: who decides how many calls run at once.
//! - [`stage`]: a server on one core, a load on another. [`figures`], [`step`]: what a load says.
//! - [`recursion`]: calls that come back to a pool which they fill.
//! - [`record`]: what is kept of each measurement. [`bars`]: what is asked of them.
//! - [`page`]: the table and the plots.
//!
//! A run has four parts. In a closed loop every pool shows what it can do; the best fixed one's
//! median is the *capacity*. Loads at shares of that follow, then loads that rise at once, then
//! recursive calls. Within a part every round starts every stack anew and visits the pools in turns
//! forwards and backwards, so that what a neighbour on this machine does to one happens to the
//! others too.

pub mod bars;
pub mod figures;
pub mod page;
pub mod pool;
pub mod record;
pub mod recursion;
pub mod stage;
pub mod step;
#[cfg(test)]
mod tests;
pub mod workload;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use crate::suite::programs::Programs;
use crate::suite::{self, environment};
use figures::Figures;
use pool::Pool;
use record::{Journal, Record};
use stage::{Stage, Timing};
use workload::WORKLOADS;

/// Percent of the capacity before and after the step.
const STEP_PERCENT: (u32, u32) = (10, 90);

/// Why a run ended early.
#[derive(Debug, Error)]
pub enum Error {
    /// It could not be measured.
    #[error(transparent)]
    Suite(#[from] suite::Error),
    /// It could not be kept.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// Nothing was served, so there is no capacity to take a share of.
    #[error("{workload}: no fixed pool answered anything")]
    Capacity {
        /// Its name.
        workload: &'static str,
    },
}

/// A run to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// In minutes.
    pub quick: bool,
    /// Instead of three rounds, or one.
    pub rounds: Option<u32>,
    /// Where the results go; `bench/results/<date>-<host>/concurrency` otherwise.
    pub out: Option<PathBuf>,
}

/// How much is measured.
struct Depth {
    rounds: u32,
    pools: Vec<Pool>,
    percents: &'static [u32],
    timing: Timing,
    /// Whether the best fixed pool is shown beside the managed one at steps.
    steps_of_fixed: bool,
    /// Runs of each kind of recursive calls.
    recursions: u32,
    recursion_deadline: Duration,
}

/// A run under way.
struct Run<'a> {
    depth: Depth,
    stage: Stage<'a>,
    journal: Journal,
    records: Vec<Record>,
}

impl Depth {
    fn new(quick: bool) -> Depth {
        let ms = Duration::from_millis;
        let (sizes, timing): (&[u16], Timing) = if quick {
            (
                &[1, 8, 64],
                Timing {
                    warm_up: ms(500),
                    load: ms(1000),
                    step_before: ms(500),
                    step_after: ms(3000),
                    step_rest: ms(1000),
                },
            )
        } else {
            (
                &[1, 2, 4, 8, 16, 32, 64],
                Timing {
                    warm_up: ms(1000),
                    load: ms(2000),
                    step_before: ms(1000),
                    step_after: ms(5000),
                    step_rest: ms(2000),
                },
            )
        };
        let fixed = sizes.iter().map(|&workers| Pool::Fixed(workers));
        Depth {
            rounds: if quick { 1 } else { 3 },
            pools: fixed.chain([Pool::Unlimited, Pool::Managed]).collect(),
            percents: if quick { &[50, 80, 300] } else { &[50, 80, 95, 150, 300] },
            timing,
            steps_of_fixed: !quick,
            recursions: if quick { 10 } else { 100 },
            recursion_deadline: ms(500),
        }
    }
}

/// Makes a run; gives the directory of its results.
pub fn run(options: &Options) -> Result<PathBuf, Error> {
    let scratch = suite::scratch()?;
    let mut depth = Depth::new(options.quick);
    depth.rounds = options.rounds.unwrap_or(depth.rounds);
    let programs = Programs::find();
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| suite::fresh_directory(Path::new("bench/results")).join("concurrency"));
    let journal = Journal::create(&out)?;
    // It tells of the machine as it was left to this process.
    let mut environment = environment::describe(&programs);
    let stage = Stage::new(&programs, scratch.path(), depth.timing)?;
    environment.insert("rounds".to_owned(), depth.rounds.into());
    environment.insert("server_core".to_owned(), stage.server_core.into());
    environment.insert("client_core".to_owned(), stage.client_core.into());
    let environment = format!("{:#}\n", Value::Object(environment));
    suite::write(&out.join("environment.json"), &environment)?;

    let mut run = Run { depth, stage, journal, records: Vec::new() };
    run.closed()?;
    run.open()?;
    run.steps()?;
    run.recursions()?;
    Ok(out)
}

impl Run<'_> {
    /// What each pool can do.
    fn closed(&mut self) -> Result<(), Error> {
        for (round, pool) in self.turns() {
            let instance = self.stage.start(pool, &workload::FUNCTIONS)?;
            for workload in &WORKLOADS {
                let figures = self.stage.closed(&instance, workload)?;
                let workload = workload.name.to_owned();
                self.keep(Record::Load { round, workload, pool, percent: None, figures })?;
            }
            instance.stop()?;
        }
        Ok(())
    }

    /// What each pool does at shares of the capacity.
    fn open(&mut self) -> Result<(), Error> {
        let capacities = self.capacities()?;
        for (round, pool) in self.turns() {
            let instance = self.stage.start(pool, &workload::FUNCTIONS)?;
            for (workload, capacity) in WORKLOADS.iter().zip(&capacities) {
                for &percent in self.depth.percents {
                    let per_second = capacity * f64::from(percent) / 100.0;
                    let figures = self.stage.open(&instance, workload, per_second)?;
                    let (workload, percent) = (workload.name.to_owned(), Some(percent));
                    self.keep(Record::Load { round, workload, pool, percent, figures })?;
                }
            }
            instance.stop()?;
        }
        Ok(())
    }

    /// How soon a managed pool has adapted, and beside it the best fixed one, which need not.
    fn steps(&mut self) -> Result<(), Error> {
        let capacities = self.capacities()?;
        for round in 1..=self.depth.rounds {
            for (workload, capacity) in WORKLOADS.iter().zip(&capacities) {
                let best = bars::best_fixed(&self.records, workload.name)
                    .filter(|_| self.depth.steps_of_fixed);
                for pool in best.into_iter().chain([Pool::Managed]) {
                    let share = |percent: u32| capacity * f64::from(percent) / 100.0;
                    let per_second = (share(STEP_PERCENT.0), share(STEP_PERCENT.1));
                    let instance = self.stage.start(pool, &workload::FUNCTIONS)?;
                    let recovery = self.stage.step(&instance, workload, per_second)?;
                    instance.stop()?;
                    let workload = workload.name.to_owned();
                    self.keep(Record::Step { round, workload, pool, per_second, recovery })?;
                }
            }
        }
        Ok(())
    }

    fn recursions(&mut self) -> Result<(), Error> {
        let (runs, deadline) = (self.depth.recursions, self.depth.recursion_deadline);
        let pools = [Pool::Fixed(recursion::WORKERS), Pool::ManagedUpTo(recursion::WORKERS)];
        for pool in pools {
            let instance = self.stage.start(pool, &recursion::FUNCTIONS)?;
            for calls in &recursion::CALLS {
                let runs = recursion::run(instance.address, calls, runs, deadline);
                self.keep(Record::Recursion { calls: calls.name.to_owned(), pool, runs })?;
            }
            instance.stop()?;
        }
        Ok(())
    }

    /// Every pool once a round, forwards in odd rounds and backwards in even ones.
    fn turns(&self) -> Vec<(u32, Pool)> {
        let round = |round: u32| {
            let mut pools = self.depth.pools.clone();
            if round.is_multiple_of(2) {
                pools.reverse();
            }
            pools.into_iter().map(move |pool| (round, pool))
        };
        (1..=self.depth.rounds).flat_map(round).collect()
    }

    /// Requests a second of the best fixed pool, by workload.
    fn capacities(&self) -> Result<Vec<f64>, Error> {
        let capacity = |workload: &workload::Workload| {
            bars::capacity(&self.records, workload.name)
                .filter(|&capacity| capacity > 0.0)
                .ok_or(Error::Capacity { workload: workload.name })
        };
        WORKLOADS.iter().map(capacity).collect()
    }

    fn keep(&mut self, record: Record) -> Result<(), Error> {
        eprintln!("{}", brief(&record));
        self.journal.write(&record)?;
        self.records.push(record);
        Ok(())
    }
}

/// One line for whoever waits.
fn brief(record: &Record) -> String {
    match record {
        Record::Load { round, workload, pool, percent, figures } => {
            let load = percent.map_or("closed loop".to_owned(), |percent| format!("{percent}%"));
            let Figures { throughput, goodput, p99_us, .. } = figures;
            let p99_ms = p99_us.unwrap_or(f64::INFINITY) / 1e3;
            let refused = figures.refused_percent();
            format!(
                "round {round}: {workload}, {load}, {pool}: {throughput:.0}/s, \
                 good {goodput:.0}/s, p99 {p99_ms:.1} ms, refused {refused:.1}%"
            )
        }
        Record::Step { round, workload, pool, recovery, .. } => {
            let back = recovery.back_ms.map_or("never".to_owned(), |ms| format!("after {ms} ms"));
            format!("round {round}: {workload}, step, {pool}: back {back}")
        }
        Record::Recursion { calls, pool, runs } => {
            let record::Ended { runs, well, statuses, slowest_ms, .. } = runs;
            format!(
                "{calls}, {pool}: {well} of {runs} runs ended well, {statuses:?}, slowest \
                 {slowest_ms} ms"
            )
        }
    }
}
