//! Arguments of `nightcore-bench apart`, `suite`, `concurrency`, `containers` and `report`.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use nightcore_bench::apart;
use nightcore_bench::concurrency;
use nightcore_bench::containers;
use nightcore_bench::report;
use nightcore_bench::suite::{self, Depth, Options, Selection};

/// `suite`.
#[derive(Args)]
pub struct Suite {
    /// Three rounds of short loads, each peer in its best placement: at most five minutes
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Five rounds, each peer in every placement: what results are kept of (the default)
    #[arg(long)]
    full: bool,
    /// Rounds, instead of three or five
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: Option<u32>,
    /// Cases by name, `*` for anything; may be given several times
    #[arg(long, value_name = "GLOB", conflicts_with = "bars")]
    only: Vec<String>,
    /// The cases that a bar is about
    #[arg(long)]
    bars: bool,
    /// Where the results go [default: bench/results/<date>-<host>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// `concurrency`.
#[derive(Args)]
pub struct Concurrency {
    /// One round of short loads with fewer pools and loads: at most four minutes
    #[arg(long)]
    quick: bool,
    /// Rounds, instead of three or one
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: Option<u32>,
    /// Where the results go [default: bench/results/<date>-<host>/concurrency]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Measures nothing: table and plots of an earlier run again
    #[arg(long, value_name = "DIR", conflicts_with_all = ["quick", "rounds", "out"])]
    report: Option<PathBuf>,
}

/// `containers`.
#[derive(Args)]
pub struct Containers {
    /// Rounds of calls and of wake-ups
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Where the results go [default: bench/results/<date>-<host>/containers]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// `apart`.
#[derive(Args)]
pub struct Apart {
    /// Rounds in which each kind is measured once
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Seconds of each load
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Where the results go [default: bench/results/<date>-<host>/apart]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// `report`.
#[derive(Args)]
pub struct Report {
    /// Results of a run: raw/*.jsonl and environment.json
    directory: PathBuf,
}

impl Suite {
    /// Measures, reports, prints the table.
    pub fn run(self) -> Result<(), Box<dyn Error>> {
        let selection = match (self.bars, self.only.is_empty()) {
            (true, _) => Selection::Bars,
            (false, true) => Selection::All,
            (false, false) => Selection::Names(self.only),
        };
        let depth = if self.quick { Depth::Quick } else { Depth::Full };
        let options = Options { depth, rounds: self.rounds, selection, out: self.out };
        let directory = suite::run(&options)?;
        println!("{}", report::run(&directory)?);
        eprintln!("written to {}", directory.display());
        Ok(())
    }
}

impl Concurrency {
    /// Measures, reports, prints the table.
    pub fn run(self) -> Result<(), Box<dyn Error>> {
        let Concurrency { quick, rounds, out, report } = self;
        let directory = match report {
            Some(directory) => directory,
            None => concurrency::run(&concurrency::Options { quick, rounds, out })?,
        };
        println!("{}", concurrency::page::write(&directory)?);
        eprintln!("written to {}", directory.display());
        Ok(())
    }
}

impl Containers {
    /// Measures, prints the table.
    pub fn run(self) -> Result<(), Box<dyn Error>> {
        let Containers { rounds, out } = self;
        let (directory, table) = containers::run(&containers::Options { rounds, out })?;
        println!("{table}");
        eprintln!("written to {}", directory.display());
        Ok(())
    }
}

impl Apart {
    /// Measures, prints the table.
    pub fn run(self) -> Result<(), Box<dyn Error>> {
        let Apart { rounds, seconds, out } = self;
        let (directory, table) = apart::run(&apart::Options { rounds, seconds, out })?;
        println!("{table}");
        eprintln!("written to {}", directory.display());
        Ok(())
    }
}

impl Report {
    /// Reports, prints the table.
    pub fn run(self) -> Result<(), Box<dyn Error>> {
        println!("{}", report::run(&self.directory)?);
        Ok(())
    }
}
