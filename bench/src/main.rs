//! `nightcore-bench`: one command a tool; see `--help`.

mod cli;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nightcore_bench::{case, channel, handoff, limits, load};

#[derive(Parser)]
#[command(version, about = "Measures the machine, Nightcore, and what one would run instead")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure what the machine allows: wake-ups between processes, and copies.
    Limits(case::Selection),
    /// Measure the channel between engine and worker, without either.
    Channel(channel::Arguments),
    Load(Box<load::command::Arguments>),
    /// Measure a direct hand-off from caller to callee beside two eventfds and the engine's relay
    Handoff(handoff::Arguments),
    #[command(hide = true)]
    HandoffWorker(handoff::WorkerArguments),
    /// Measures everything in interleaved rounds, then reports
    Suite(cli::Suite),
    /// Measures managed concurrency beside fixed pools and none at all
    Concurrency(cli::Concurrency),
    /// Measures what the isolation of a container costs, by its kind
    Containers(cli::Containers),
    /// Measures what a gateway and an engine apart cost, and TLS
    Apart(cli::Apart),
    /// Sums the raw samples of a run up again
    Report(cli::Report),
}

fn main() -> ExitCode {
    let done: Result<(), Box<dyn Error>> = match Arguments::parse().command {
        Command::Limits(selection) => limits::run(&selection).map_err(Into::into),
        Command::Channel(arguments) => channel::run(&arguments).map_err(Into::into),
        Command::Load(arguments) => return load::command::main(&arguments),
        Command::Handoff(arguments) => handoff::run(&arguments).map_err(Into::into),
        Command::HandoffWorker(arguments) => handoff::run_worker(&arguments).map_err(Into::into),
        Command::Suite(suite) => suite.run(),
        Command::Concurrency(concurrency) => concurrency.run(),
        Command::Containers(containers) => containers.run(),
        Command::Apart(apart) => apart.run(),
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
