//! Measures everything there is to compare, in interleaved rounds, and keeps the samples.
//!
//! - [`cases`]: what is measured, as data.
//! - [`programs`]: what of it is installed; the rest is skipped, and the report says so.
//! - [`targets`]: starts what is measured, on top of [`process`], which ends it whatever happens.
//! - [`load`]: requests over HTTP.
//! - [`measure`]: one case, measured once.
//! - [`environment`]: what the figures depend on.
//!
//! Every round starts every target anew, so that a lucky layout of memory and threads is one
//! round's, not the run's. Cases of a group run next to each other, in turns forwards and
//! backwards, so that what a neighbour on this machine does to one happens to its opponent too. A
//! failed request, a server that dies or does not stop ends the run: there are no figures of a
//! broken target.

pub mod cases;
pub mod environment;
pub mod load;
pub mod measure;
pub mod process;
pub mod programs;
pub mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Map, Value};
use tempfile::TempDir;
use thiserror::Error;

use crate::report::bars::RATIOS;
use crate::report::runs::Record;
use crate::sample::Sample;
use cases::{Case, Group, Target, When};
use environment::MachineTicks;
use measure::Measure;
use programs::Programs;
use targets::Instance;

/// Why a run ended early.
#[derive(Debug, Error)]
pub enum Error {
    /// A program cannot be started.
    #[error("{name} cannot be started: {source}")]
    Start {
        /// The program.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program is needed that is not installed.
    #[error("{name} is not installed")]
    Missing {
        /// The program.
        name: String,
    },
    /// A server did something else than it should.
    #[error("{name} {what}; the end of its output:\n{output}")]
    Server {
        /// The server.
        name: String,
        /// What happened.
        what: &'static str,
        /// The last lines that it printed.
        output: String,
    },
    /// A load that was not served in full.
    #[error("{case}: {what}")]
    Requests {
        /// The case.
        case: String,
        /// What failed, and how often.
        what: String,
    },
    /// A tool or a function printed something else than samples.
    #[error("{case}: unexpected output: {output}")]
    Output {
        /// The case.
        case: String,
        /// What there was instead.
        output: String,
    },
    /// A file cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A system call failed.
    #[error("{what}: {errno}")]
    System {
        /// Which.
        what: &'static str,
        /// Why.
        errno: Errno,
    },
    /// Nothing is left to measure.
    #[error("no case is both wanted and possible here")]
    Nothing,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Depth {
    /// In minutes: three rounds, short loads, each peer where it is known to be best.
    Quick,
    /// For figures that are kept: five rounds, longer loads, each peer in every placement.
    Full,
}

/// Which cases are measured.
#[derive(Clone, Debug)]
pub enum Selection {
    /// All of the depth's.
    All,
    /// Those with a name that one of these matches; `*` stands for anything.
    Names(Vec<String>),
    /// Those that a bar is about.
    Bars,
}

/// A run to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// How much.
    pub depth: Depth,
    /// Instead of the depth's own number.
    pub rounds: Option<u32>,
    /// Which cases.
    pub selection: Selection,
    /// Where the results go; a directory named by date and host below `bench/results` otherwise.
    pub out: Option<PathBuf>,
}

/// Times of a depth.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Of a load that counts.
    pub load: Duration,
    /// Of its beginning, which does not.
    pub warm_up: Duration,
    /// In which nobody calls.
    pub idle: Duration,
    /// Internal calls of one sample.
    pub calls: u32,
    /// Round trips of one sample between two processes.
    pub round_trips: u32,
}

impl Depth {
    fn timing(self) -> Timing {
        let (load, warm_up, idle, calls, round_trips) = match self {
            Depth::Quick => (1000, 1000, 2000, 2_000, 10_000),
            Depth::Full => (3000, 2000, 10_000, 20_000, 40_000),
        };
        let [load, warm_up, idle] = [load, warm_up, idle].map(Duration::from_millis);
        Timing { load, warm_up, idle, calls, round_trips }
    }

    fn rounds(self) -> u32 {
        match self {
            Depth::Quick => 3,
            Depth::Full => 5,
        }
    }
}

/// Makes a run; gives the directory of its results.
pub fn run(options: &Options) -> Result<PathBuf, Error> {
    let scratch = scratch()?;
    let programs = Programs::find();
    let mut skipped = Map::new();
    let groups = wanted(options, &programs, &mut skipped);
    if groups.is_empty() {
        return Err(Error::Nothing);
    }
    let rounds = options.rounds.unwrap_or(options.depth.rounds());
    let out = options.out.clone().unwrap_or_else(|| fresh_directory(Path::new("bench/results")));
    let mut environment = environment::describe(&programs);
    environment.insert(
        "command".to_owned(),
        std::env::args().skip(1).collect::<Vec<_>>().join(" ").into(),
    );
    environment.insert("rounds".to_owned(), rounds.into());
    environment.insert("skipped".to_owned(), Value::Object(skipped));
    let raw = out.join("raw");
    fs::create_dir_all(&raw).map_err(|source| Error::Write { path: raw.clone(), source })?;
    let environment = format!("{:#}\n", Value::Object(environment));
    write(&out.join("environment.json"), &environment)?;

    let mut measure = Measure::new(options.depth.timing(), &programs, scratch.path());
    for round in 1..=rounds {
        let samples = run_round(round, rounds, options.depth, &groups, &mut measure)?;
        let lines = samples.into_iter().map(|sample| Record { run: round, sample });
        let lines: Result<Vec<String>, _> =
            lines.map(|record| serde_json::to_string(&record)).collect();
        let path = raw.join(format!("round-{round:02}.jsonl"));
        let lines =
            lines.map_err(|source| Error::Write { path: path.clone(), source: source.into() })?;
        write(&path, &(lines.join("\n") + "\n"))?;
    }
    Ok(out)
}

/// A directory for files of the run, which signals remove too; and as many open files as this
/// process and those that it starts may have. To be called before any other thread exists.
pub(crate) fn scratch() -> Result<TempDir, Error> {
    let scratch = tempfile::Builder::new()
        .prefix("nightcore-bench-")
        .tempdir()
        .map_err(|source| Error::Write { path: std::env::temp_dir(), source })?;
    process::stop_at_signals(scratch.path())?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|errno| Error::System { what: "getrlimit", errno })?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .map_err(|errno| Error::System { what: "setrlimit", errno })?;
    Ok(scratch)
}

/// Every group once, and what the hypervisor took meanwhile.
fn run_round(
    round: u32,
    rounds: u32,
    depth: Depth,
    groups: &[Group],
    measure: &mut Measure,
) -> Result<Vec<Sample>, Error> {
    let machine = MachineTicks::now();
    let mut samples = Vec::new();
    for group in groups {
        let cases: Vec<&Case> = group
            .cases
            .iter()
            .filter(|case| round == 1 || depth == Depth::Full || case.when == When::Always)
            .collect();
        let mut running: Vec<(&Target, Option<Instance>)> = Vec::new();
        let sequence = sequence(round, group.repeats, &cases);
        for (index, case) in sequence.iter().enumerate() {
            if !running.iter().any(|(target, _)| **target == case.target) {
                running.push((&case.target, measure.start(&case.target)?));
            }
            let instance = running.iter().find(|(target, _)| **target == case.target);
            let measured =
                measure.case(case, instance.and_then(|(_, instance)| instance.as_ref()))?;
            for sample in &measured {
                eprintln!("round {round}/{rounds}: {}", brief(sample));
            }
            samples.extend(measured);
            let later = &sequence[index + 1..];
            let is_over = |target: &Target| later.iter().all(|case| case.target != *target);
            while let Some(over) = running.iter().position(|(target, _)| is_over(target)) {
                running.swap_remove(over).1.map_or(Ok(()), Instance::stop)?;
            }
        }
    }
    let steal_percent = machine.percent().1;
    samples.push(measure::figures("noise", [("steal_percent", steal_percent)]));
    Ok(samples)
}

/// The order of a group's cases: forwards, then backwards, and the other way round in the next
/// round.
fn sequence<'a>(round: u32, repeats: u32, cases: &[&'a Case]) -> Vec<&'a Case> {
    let turn = |repeat: u32| -> Vec<&'a Case> {
        if (round + repeat) % 2 == 1 {
            cases.to_vec()
        } else {
            cases.iter().rev().copied().collect()
        }
    };
    (0..repeats).flat_map(turn).collect()
}

/// The groups with the cases that are wanted and possible; notes the others in `skipped`.
fn wanted(options: &Options, programs: &Programs, skipped: &mut Map<String, Value>) -> Vec<Group> {
    let bars: BTreeSet<&str> = RATIOS
        .iter()
        .filter(|ratio| ratio.bar.is_some())
        .flat_map(|ratio| [Some(ratio.of.case), ratio.over.map(|over| over.case)])
        .flatten()
        .collect();
    let is_wanted = |case: &Case| {
        (options.depth == Depth::Full || case.when != When::Full)
            && match &options.selection {
                Selection::All => true,
                Selection::Names(patterns) => patterns.iter().any(|glob| matches(glob, &case.name)),
                Selection::Bars => bars.contains(case.name.split('@').next().unwrap_or_default()),
            }
    };
    let mut groups = cases::all();
    for group in &mut groups {
        group.cases.retain(|case| {
            is_wanted(case)
                && match programs.missing(case) {
                    None => true,
                    Some(reason) => {
                        skipped.insert(case.name.clone(), reason.into());
                        false
                    }
                }
        });
    }
    groups.retain(|group| !group.cases.is_empty());
    groups
}

/// Whether `name` is what `glob` describes, in which `*` stands for any characters.
fn matches(glob: &str, name: &str) -> bool {
    match glob.split_once('*') {
        None => glob == name,
        Some((before, rest)) => name.strip_prefix(before).is_some_and(|name| {
            (0..=name.len()).any(|at| name.is_char_boundary(at) && matches(rest, &name[at..]))
        }),
    }
}

/// One line for whoever waits.
fn brief(sample: &Sample) -> String {
    let mut text = sample.case.clone();
    if sample.n > 0 {
        text += &format!(" p50 {:.1} us, p99 {:.1} us", sample.p50_us, sample.p99_us);
    }
    if let Some(rps) = sample.rps {
        text += &format!(", {rps:.0}/s");
    }
    for (name, value) in &sample.extra {
        text += &format!(", {name} {value:.2}");
    }
    text
}

/// A directory named by day and host that does not exist yet.
pub(crate) fn fresh_directory(results: &Path) -> PathBuf {
    let host = environment::host().to_lowercase();
    let host: String =
        host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = format!("{}-{host}", environment::today());
    let numbered = (2..).map(|n| results.join(format!("{name}-{n}")));
    let mut candidates = std::iter::once(results.join(&name)).chain(numbered);
    candidates.find(|path| !path.exists()).unwrap_or_else(|| results.join(name))
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches("nop_c*", "nop_c64") && matches("*c64", "nop_c64") && matches("*", "x"));
        assert!(matches("chain*_c64@*", "chain10_c64@one_core"));
        assert!(!matches("nop_c", "nop_c64") && !matches("nop_*1", "nop_c64"));
    }

    #[test]
    fn opponents_take_turns_in_being_first() {
        let groups = cases::all();
        let cases: Vec<&Case> = groups[0].cases.iter().take(2).collect();
        let names = |round, repeats| -> Vec<String> {
            sequence(round, repeats, &cases).into_iter().map(|case| case.name.clone()).collect()
        };
        let (a, b) = (cases[0].name.clone(), cases[1].name.clone());
        assert_eq!(names(1, 1), [a.clone(), b.clone()]);
        assert_eq!(names(2, 1), [b.clone(), a.clone()]);
        assert_eq!(names(1, 2), [a.clone(), b.clone(), b, a]);
    }
}
