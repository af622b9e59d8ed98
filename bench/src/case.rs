//! Cases: what a tool can measure, by name; choosing among them, running them, printing results.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;

use crate::sample::Sample;

const ROUNDS: u32 = 40_000;
const ROUNDS_QUICK: u32 = 8_000;
/// Of the rounds, so many are run before: caches, memory and the scheduler's habits settle.
const WARM_UP_SHARE: u32 = 10;
/// Digits that a distribution keeps.
const PRECISION: u8 = 3;

/// Which cases to run, how thoroughly, and how to print them.
#[derive(Args, Clone, Debug, Default)]
pub struct Selection {
    /// Measure only these: whole names, or beginnings up to an underscore.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Fewer rounds: 8,000 instead of 40,000.
    #[arg(long)]
    pub quick: bool,
    /// Rounds of each case.
    #[arg(long, value_name = "N", conflicts_with = "quick")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,
    /// Print one JSON object a line instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// One thing to measure.
pub struct Case {
    /// Tool and name, as in `limits/eventfd_same_core`.
    name: String,
    title: String,
    run: Box<Run>,
}

type Run = dyn Fn(&str, Rounds) -> Result<Sample, Error>;

/// How often a case does what it measures.
#[derive(Clone, Copy, Debug)]
pub struct Rounds(pub u32);

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that no case begins with.
    #[error("no case is named {name:?}; there are {known}")]
    UnknownCase {
        /// As given.
        name: String,
        /// All names.
        known: String,
    },
    /// This machine or user cannot have it measured: the case is left out.
    #[error("{0}")]
    Unavailable(&'static str),
    /// Forking is for a process of one thread.
    #[error("a measurement is forked before there are threads, but there are {0}")]
    Threads(usize),
    /// The system refused.
    #[error(transparent)]
    System(#[from] io::Error),
    /// The ring cannot be made.
    #[error(transparent)]
    Reactor(#[from] reactor::SetupError),
    /// A channel cannot be mapped.
    #[error(transparent)]
    Map(#[from] ipc::MapError),
    /// A channel cannot have this payload.
    #[error(transparent)]
    Geometry(#[from] ipc::GeometryError),
    /// A lane cannot be used.
    #[error(transparent)]
    Lane(#[from] ipc::worker_side::LaneError),
    /// An end of the channel broke its contract.
    #[error(transparent)]
    Fault(#[from] ipc::Fault),
    /// A payload larger than the channel was made for.
    #[error(transparent)]
    NoSpace(#[from] ipc::NoSpace),
    /// The other process did something else than was agreed.
    #[error("expected {expected}, got {got}")]
    Unexpected {
        /// What was agreed.
        expected: &'static str,
        /// What came.
        got: String,
    },
}

impl From<nix::Error> for Error {
    fn from(error: nix::Error) -> Error {
        Error::System(error.into())
    }
}

impl Case {
    /// A case that makes its own sample, given its name and rounds.
    pub fn new(
        name: String,
        title: String,
        run: impl Fn(&str, Rounds) -> Result<Sample, Error> + 'static,
    ) -> Case {
        Case { name, title, run: Box::new(run) }
    }

    /// A case that is nothing but a distribution of times, in nanoseconds.
    pub fn timed(
        name: String,
        title: String,
        run: impl Fn(Rounds) -> Result<Histogram<u64>, Error> + 'static,
    ) -> Case {
        Case::new(name, title, move |case, rounds| Ok(Sample::new(case, &run(rounds)?)))
    }

    /// Whether `wanted` is its name, with or without the tool's, or begins it.
    fn is_named(&self, wanted: &str) -> bool {
        let name = self.name.rsplit('/').next().unwrap_or(&self.name);
        [&self.name, name]
            .iter()
            .filter_map(|name| name.strip_prefix(wanted))
            .any(|rest| rest.is_empty() || rest.starts_with('_'))
    }
}

impl Rounds {
    /// Times every round, after some that do not count.
    ///
    /// # Errors
    /// The first of a round.
    pub fn time(self, round: impl FnMut() -> Result<(), Error>) -> Result<Histogram<u64>, Error> {
        self.time_batches(1, round)
    }

    /// The same for what is short beside a look at the clock: each value is the mean of `batch`.
    ///
    /// # Errors
    /// The first of a round.
    pub fn time_batches(
        self,
        batch: u32,
        mut round: impl FnMut() -> Result<(), Error>,
    ) -> Result<Histogram<u64>, Error> {
        let mut times = histogram();
        for _ in 0..self.warm_up() {
            round()?;
        }
        for _ in 0..self.0.div_ceil(batch) {
            let start = Instant::now();
            for _ in 0..batch {
                round()?;
            }
            times.saturating_record(nanoseconds(start.elapsed()) / u64::from(batch));
        }
        Ok(times)
    }

    /// Rounds that come first and do not count.
    #[must_use]
    pub fn warm_up(self) -> u32 {
        self.0.div_ceil(WARM_UP_SHARE)
    }
}

/// An empty distribution of nanoseconds that does not allocate below a minute.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    let highest = nanoseconds(Duration::from_secs(60));
    Histogram::new_with_bounds(1, highest, PRECISION).expect("bounds and precision are valid")
}

/// As a histogram takes it.
#[must_use]
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Runs what is selected of `cases`, in their order, and prints each result as it is there. Cases
/// that this machine cannot run are left out with a note on stderr.
///
/// # Errors
/// When nothing has a selected name, or a measurement fails.
pub fn run(cases: &[Case], selection: &Selection) -> Result<Vec<Sample>, Error> {
    let wanted = |case: &Case| selection.only.iter().any(|name| case.is_named(name));
    for name in &selection.only {
        if !cases.iter().any(|case| case.is_named(name)) {
            let known: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
            return Err(Error::UnknownCase { name: name.clone(), known: known.join(", ") });
        }
    }
    let usual = if selection.quick { ROUNDS_QUICK } else { ROUNDS };
    let rounds = Rounds(selection.rounds.unwrap_or(usual));
    let mut out = io::stdout().lock();
    if !selection.json {
        write!(out, "{}", header())?;
    }
    let mut samples = Vec::new();
    for case in cases.iter().filter(|case| selection.only.is_empty() || wanted(case)) {
        let sample = match (case.run)(&case.name, rounds) {
            Ok(sample) => sample,
            Err(Error::Unavailable(why)) => {
                eprintln!("note: {} is left out: {why}", case.name);
                continue;
            }
            Err(error) => return Err(error),
        };
        if selection.json {
            let line = serde_json::to_string(&sample).map_err(io::Error::from)?;
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{}", row(&case.title, &sample))?;
        }
        samples.push(sample);
    }
    Ok(samples)
}

fn header() -> String {
    let (title, cell) = ("-".repeat(50), "-".repeat(9));
    format!(
        "| {:<50} | {:>9} | {:>9} | {:>9} | {:>9} | also |\n|-{title}-|{}------|\n",
        "times in us",
        "p50",
        "p90",
        "p99",
        "p99.9",
        format!("-{cell}:|").repeat(4),
    )
}

fn row(title: &str, sample: &Sample) -> String {
    let mut row = format!("| {title:<50} |");
    for us in [sample.p50_us, sample.p90_us, sample.p99_us, sample.p999_us] {
        // Infallible: writes to a string.
        let _ = write!(row, " {us:>9.3} |");
    }
    let rate = sample.rps.map(|rate| format!("{rate:.0}/s"));
    let extra = sample.extra.iter().map(|(name, value)| format!("{name} {value:.2}"));
    let also: Vec<String> = rate.into_iter().chain(extra).collect();
    let _ = write!(row, " {} |", also.join(", "));
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_answers_to_its_name_and_to_beginnings_of_it() {
        let case = Case::timed("limits/pipe_same_core".into(), String::new(), |_| Ok(histogram()));
        for name in ["limits/pipe_same_core", "pipe_same_core", "pipe", "pipe_same"] {
            assert!(case.is_named(name), "{name}");
        }
        for name in ["pip", "limits", "same_core", "pipe_same_core_2", ""] {
            assert!(!case.is_named(name), "{name}");
        }
    }

    #[test]
    fn rounds_count_only_after_the_warm_up() {
        let mut calls = 0;
        let times = Rounds(100).time(|| {
            calls += 1;
            Ok(())
        });
        assert_eq!((times.unwrap().len(), calls), (100, 110));
        assert_eq!(Rounds(100).time_batches(16, || Ok(())).unwrap().len(), 7);
    }

    #[test]
    fn an_unknown_name_is_refused_before_anything_runs() {
        let case = Case::timed("limits/pipe".into(), String::new(), |_| panic!("it ran"));
        let selection =
            Selection { only: vec!["pipe".into(), "pope".into()], ..Default::default() };
        let refused = run(&[case], &selection);
        assert!(matches!(&refused, Err(Error::UnknownCase { name, .. }) if name == "pope"));
    }
}
