//! Measures one case once, on a target that runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use super::cases::{self, Case, Functions, Job, Load, Operations, Pace, Target, Tool};
use super::environment::MachineTicks;
use super::load::{self, Requests};
use super::process::{Server, cpu_time, nth_core, private_kib};
use super::programs::Programs;
use super::targets::{Instance, Starter};
use super::{Error, Timing};
use crate::sample::Sample;

/// How long a tool may take.
const TOOL_MAX: Duration = Duration::from_secs(600);
/// How long a tracer may take to attach to every thread.
const ATTACH_MAX: Duration = Duration::from_secs(30);
/// After the last request, until nothing is left to do.
const SETTLE: Duration = Duration::from_secs(2);
/// Until a load in the background has begun.
const BACKGROUND_BEGIN: Duration = Duration::from_millis(300);
/// Loads in the background last so many times a load that counts, to see enough calls.
const BACKGROUND_LOADS: u32 = 2;
/// Samples beside one such load: more say nothing new.
const BACKGROUND_SAMPLES_MAX: usize = 5;
/// Calls before those that count: caches, workers, memory touched for the first time.
const CALLS_WARM_UP: u32 = 200;
/// Of the sizes that `channel` knows, those whose curve one sees.
const CHANNEL_SIZES: &str = "32,1024,65536,1048576";
/// The case whose rate is the capacity of chains.
const CHAIN: &str = "chain10_c64";

/// What a run knows beside its samples.
pub struct Measure<'a> {
    timing: Timing,
    programs: &'a Programs,
    scratch: &'a Path,
    starter: Starter<'a>,
    /// The last rate of each case, for loads that are a share of it.
    reached: BTreeMap<String, f64>,
}

/// What the function `chain` answers.
#[derive(Deserialize)]
struct Calls {
    n: u64,
    mean_us: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    percentiles: Vec<(f64, f64)>,
}

impl<'a> Measure<'a> {
    /// For one run.
    #[must_use]
    pub fn new(timing: Timing, programs: &'a Programs, scratch: &'a Path) -> Measure<'a> {
        let starter = Starter::new(programs, scratch);
        Measure { timing, programs, scratch, starter, reached: BTreeMap::new() }
    }

    /// Starts a target; nothing where the case brings its own processes.
    pub fn start(&mut self, target: &Target) -> Result<Option<Instance>, Error> {
        self.starter.start(target)
    }

    /// Measures `case` on `instance` of its target.
    pub fn case(&mut self, case: &Case, instance: Option<&Instance>) -> Result<Vec<Sample>, Error> {
        if let Job::Tool(tool) = case.job {
            return self.tool(&case.name, tool);
        }
        let instance = instance.ok_or_else(|| Error::Missing { name: case.name.clone() })?;
        match &case.job {
            Job::Tool(_) => Ok(Vec::new()),
            Job::Load(load) => {
                let sample = self.load(&case.name, load, instance)?;
                self.reached.extend(sample.rps.map(|rps| (case.name.clone(), rps)));
                Ok(vec![sample])
            }
            Job::Internal { size, background_percent } => {
                self.internal(&case.name, *size, *background_percent, instance)
            }
            Job::Syscalls(load) => Ok(vec![self.syscalls(&case.name, load, instance)?]),
            Job::Idle => {
                touch(case, instance)?;
                Ok(vec![self.idle(&case.name, instance)])
            }
            Job::Memory => {
                touch(case, instance)?;
                Ok(vec![memory(&case.name, instance)])
            }
        }
    }

    /// A load, and the CPU time that it cost each process. It begins with a time that does not count,
    /// on the same connections: for caches and workers, and for whoever places connections by load.
    fn load(&mut self, case: &str, load: &Load, instance: &Instance) -> Result<Sample, Error> {
        let rate = self.rate(load.pace, instance)?;
        let requests = requests(load, rate, instance);
        let Timing { mut warm_up, load: duration, .. } = self.timing;
        if load.connections == 1 {
            // Nothing to place.
            warm_up /= 3;
        }
        let (before, sample) = thread::scope(|scope| {
            let before = scope.spawn(|| {
                thread::sleep(warm_up);
                cpu_by_process(instance)
            });
            let sample = load::run(case, &requests, warm_up, duration);
            (before.join().unwrap_or_default(), sample)
        });
        let mut sample = sample?;
        let after = cpu_by_process(instance);
        let mut operations = sample.n as f64;
        if let Operations::Calls(calls) = load.operations {
            operations *= f64::from(calls);
            let rps = sample.rps.map(|rps| rps * f64::from(calls));
            sample = Sample { rps, ..figures(case, []) };
        }
        let mut total = 0.0;
        for (name, spent) in after {
            let spent = spent.saturating_sub(before.get(name).copied().unwrap_or_default());
            let us = spent.as_secs_f64() * 1e6 / operations;
            total += us;
            sample.extra.insert(format!("cpu_us_{name}"), us);
        }
        sample.extra.insert("cpu_us".to_owned(), total);
        Ok(sample)
    }

    fn rate(&mut self, pace: Pace, instance: &Instance) -> Result<Option<f64>, Error> {
        match pace {
            Pace::Closed => Ok(None),
            Pace::Rate(rate) => Ok(Some(rate)),
            Pace::Share { of, percent } => {
                Ok(Some(self.capacity(of, instance)? * f64::from(percent) / 100.0))
            }
        }
    }

    /// What `case` reached last, or reaches now if it is not among those that are measured.
    fn capacity(&mut self, case: &str, instance: &Instance) -> Result<f64, Error> {
        if let Some(&rate) = self.reached.get(case) {
            return Ok(rate);
        }
        let all = cases::all().into_iter().flat_map(|group| group.cases);
        let job = all.into_iter().find(|other| other.name == case).map(|case| case.job);
        let Some(Job::Load(load)) = job else {
            return Err(Error::Missing { name: case.to_owned() });
        };
        let Timing { warm_up, load: duration, .. } = self.timing;
        let sample = load::run(case, &requests(&load, None, instance), warm_up, duration)?;
        let rate = sample.rps.unwrap_or_default();
        self.reached.insert(case.to_owned(), rate);
        Ok(rate)
    }

    /// Internal calls, one after the other, as the function sees them.
    fn internal(
        &mut self,
        case: &str,
        size: u32,
        background_percent: Option<u32>,
        instance: &Instance,
    ) -> Result<Vec<Sample>, Error> {
        chain(case, CALLS_WARM_UP, size, instance)?;
        let calls = self.timing.calls;
        let Some(percent) = background_percent else {
            return Ok(vec![chain(case, calls, size, instance)?]);
        };
        let rate = self.capacity(CHAIN, instance)? * f64::from(percent) / 100.0;
        let body = r#"{"n":10,"size":1024}"#;
        let background = Requests {
            address: instance.address,
            function: "chain",
            body,
            connections: 64,
            rate: Some(rate),
        };
        let duration = self.timing.load * BACKGROUND_LOADS;
        let samples = thread::scope(|scope| -> Result<Vec<Sample>, Error> {
            let load = scope.spawn(|| load::run(case, &background, Duration::ZERO, duration));
            thread::sleep(BACKGROUND_BEGIN);
            let mut samples = Vec::new();
            while samples.len() < BACKGROUND_SAMPLES_MAX && !load.is_finished() {
                let sample = chain(case, calls, size, instance)?;
                if !load.is_finished() {
                    samples.push(sample);
                }
            }
            load.join().unwrap_or_else(|_| {
                Err(Error::Requests { case: case.to_owned(), what: "the load panicked".to_owned() })
            })?;
            Ok(samples)
        })?;
        if samples.is_empty() {
            let what = format!("no {calls} calls ended within the load of {duration:?}");
            return Err(Error::Requests { case: case.to_owned(), what });
        }
        Ok(samples)
    }

    /// Counts system calls of each process; tracing slows them, so nothing else is measured.
    fn syscalls(&mut self, case: &str, load: &Load, instance: &Instance) -> Result<Sample, Error> {
        let strace = self.programs.strace.as_deref();
        let strace = strace.ok_or_else(|| Error::Missing { name: "strace".to_owned() })?;
        let requests = requests(load, None, instance);
        load::run(case, &requests, Duration::ZERO, self.timing.warm_up)?;
        let mut by_name: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (name, pid) in instance.pids() {
            by_name.entry(name).or_default().push(pid.to_string());
        }
        let mut tracers = Vec::new();
        for (name, pids) in by_name {
            let counts = self.scratch.join(format!("strace-{name}"));
            let mut command = Command::new(strace);
            command.args(["-c", "-f", "-o"]).arg(&counts).args(["-p", &pids.join(",")]);
            let log = self.scratch.join(format!("strace-{name}.log"));
            let mut tracer = Server::start("strace", command, None, &log)?;
            tracer.wait_until(ATTACH_MAX, |output| {
                output.matches("attached").count() >= pids.len()
            })?;
            tracers.push((name, tracer, counts));
        }
        let served = load::run(case, &requests, Duration::ZERO, self.timing.load)?.n as f64;
        let mut extra = BTreeMap::new();
        for (name, tracer, counts) in tracers {
            tracer.stop()?;
            let table = fs::read_to_string(&counts).unwrap_or_default();
            let total = total_of(&table)
                .ok_or_else(|| Error::Output { case: case.to_owned(), output: table })?;
            extra.insert(format!("syscalls_{name}"), total / served);
        }
        Ok(Sample { extra, ..figures(case, []) })
    }

    /// CPU time while nobody calls, and what the rest of the machine did meanwhile.
    fn idle(&self, case: &str, instance: &Instance) -> Sample {
        thread::sleep(SETTLE);
        let machine = MachineTicks::now();
        let before = cpu_by_process(instance);
        thread::sleep(self.timing.idle);
        let after: Duration = cpu_by_process(instance).into_values().sum();
        let spent = after.saturating_sub(before.into_values().sum());
        let percent = 100.0 * spent.as_secs_f64() / self.timing.idle.as_secs_f64();
        let (busy, steal) = machine.percent();
        let machine = [("machine_busy_percent", busy), ("machine_steal_percent", steal)];
        figures(case, [("percent", percent)].into_iter().chain(machine))
    }

    /// Runs a program that prints samples, one JSON object a line.
    fn tool(&mut self, case: &str, tool: Tool) -> Result<Vec<Sample>, Error> {
        let round_trips = self.timing.round_trips.to_string();
        let peer = |arguments: &[&str]| -> Result<Command, Error> {
            let path = self.programs.peer.as_deref();
            let mut command = Command::new(
                path.ok_or_else(|| Error::Missing { name: "peer (bench/peers)".to_owned() })?,
            );
            command.args(["iceoryx2", "--size", "1024", "--rounds", &round_trips]).args(arguments);
            Ok(command)
        };
        let bench = |arguments: &[&str]| {
            let mut command = Command::new(&self.programs.bench);
            command.args(arguments);
            command
        };
        let cores = |client, server| -> Result<String, Error> {
            Ok(format!("{},{}", nth_core(client)?, nth_core(server)?))
        };
        let command = match tool {
            Tool::Limits => bench(&["limits", "--json", "--rounds", &round_trips]),
            Tool::Eventfd => bench(&["limits", "--json", "--only", "eventfd_same_core", "--quick"]),
            Tool::Channel => bench(&["channel", "--json", "--quick", "--sizes", CHANNEL_SIZES]),
            Tool::ChannelRtt => {
                let only = ["--only", "rtt_same_core_1024", "--rounds", &round_trips];
                bench(&[&["channel", "--json"], &only[..]].concat())
            }
            Tool::IceoryxEvent => peer(&["--mode", "event", "--cores", &cores(0, 0)?])?,
            Tool::IceoryxBusy => peer(&["--mode", "busy", "--cores", &cores(0, 1)?])?,
        };
        let log = self.scratch.join("tool.log");
        let output = Server::start(case, command, None, &log)?.finish(TOOL_MAX)?;
        let lines = output.lines().filter(|line| line.starts_with('{'));
        let samples: Result<Vec<Sample>, _> = lines.map(serde_json::from_str).collect();
        match (samples, tool) {
            (Ok(samples), Tool::Limits | Tool::Channel) if !samples.is_empty() => Ok(samples),
            // Its one sample is called as the suite calls it.
            (Ok(samples), _) if samples.len() == 1 => Ok(samples
                .into_iter()
                .map(|sample| Sample { case: case.to_owned(), ..sample })
                .collect()),
            _ => Err(Error::Output { case: case.to_owned(), output }),
        }
    }
}

/// A sample without a distribution.
pub fn figures<'a>(case: &str, extra: impl IntoIterator<Item = (&'a str, f64)>) -> Sample {
    Sample {
        case: case.to_owned(),
        n: 0,
        mean_us: 0.0,
        p50_us: 0.0,
        p90_us: 0.0,
        p99_us: 0.0,
        p999_us: 0.0,
        p9999_us: 0.0,
        max_us: 0.0,
        rps: None,
        extra: extra.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        percentiles: Vec::new(),
    }
}

fn requests<'l>(load: &'l Load, rate: Option<f64>, instance: &Instance) -> Requests<'l> {
    Requests {
        address: instance.address,
        function: load.function,
        body: &load.body,
        connections: load.connections,
        rate,
    }
}

/// One request to `chain` for `n` calls.
fn chain(case: &str, n: u32, size: u32, instance: &Instance) -> Result<Sample, Error> {
    let body = format!(r#"{{"n":{n},"size":{size},"percentiles":true}}"#);
    let answer = load::call(case, instance.address, "chain", &body)?;
    let calls: Calls = serde_json::from_str(&answer)
        .map_err(|_| Error::Output { case: case.to_owned(), output: answer })?;
    // The least value kept that lies at or beyond the percentile.
    let at = |percentile: f64| {
        let mut pairs = calls.percentiles.iter();
        pairs.find(|pair| pair.0 >= percentile).map_or(0.0, |pair| pair.1)
    };
    Ok(Sample {
        case: case.to_owned(),
        n: calls.n,
        mean_us: calls.mean_us,
        p50_us: calls.p50_us,
        p90_us: at(90.0),
        p99_us: calls.p99_us,
        p999_us: calls.p999_us,
        p9999_us: at(99.99),
        max_us: at(100.0),
        rps: None,
        extra: BTreeMap::new(),
        percentiles: calls.percentiles,
    })
}

/// Calls every function once, as functions are that were used and then left alone.
fn touch(case: &Case, instance: &Instance) -> Result<(), Error> {
    let Target::Nightcore(Functions::Nops(count)) = case.target else { return Ok(()) };
    load::call(&case.name, instance.address, "nop", "")?;
    (2..=count).try_for_each(|n| {
        load::call(&case.name, instance.address, &format!("nop{n}"), "").map(drop)
    })
}

fn memory(case: &str, instance: &Instance) -> Sample {
    let mut largest: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, pid) in instance.pids() {
        let kib = private_kib(pid).unwrap_or(0);
        largest.entry(name).and_modify(|most| *most = kib.max(*most)).or_insert(kib);
    }
    let named = largest.into_iter().map(|(name, kib)| (format!("private_kib_{name}"), kib as f64));
    Sample { extra: named.collect(), ..figures(case, []) }
}

fn cpu_by_process(instance: &Instance) -> BTreeMap<&'static str, Duration> {
    let mut times = BTreeMap::new();
    for (name, pid) in instance.pids() {
        *times.entry(name).or_default() += cpu_time(pid);
    }
    times
}

/// The number of calls in the last line of what `strace -c` prints.
fn total_of(table: &str) -> Option<f64> {
    let line = table.lines().find(|line| line.trim_end().ends_with("total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tracer_s_total_is_read() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.006000           6      1000        12 read
 40.00    0.004000           4      1000           write
------ ----------- ----------- --------- --------- ----------------
100.00    0.010000           5      2000        12 total
";
        assert_eq!(total_of(table), Some(2000.0));
        assert_eq!(total_of(""), None);
    }
}
