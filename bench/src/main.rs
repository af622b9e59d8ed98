//! `nightcore-bench`: one command a tool; see `--help`.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nightcore_bench::load;

#[derive(Parser)]
#[command(version, about = "Measures the machine, Nightcore, and what one would run instead")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Load(Box<load::command::Arguments>),
    /// Measures everything in interleaved rounds, then reports
    Suite(cli::Suite),
    /// Sums the raw samples of a run up again
    Report(cli::Report),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Load(arguments) => return load::command::main(&arguments),
        Command::Suite(suite) => suite.run(),
        Command::Report(report) => report.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nightcore-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
