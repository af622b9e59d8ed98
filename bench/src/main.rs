//! `nightcore-bench`: one command a tool; see `--help`.

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
    Load(load::command::Arguments),
    /// Measure a direct hand-off from caller to callee beside two eventfds and the engine's relay.
    Handoff(handoff::Arguments),
    #[command(hide = true)]
    HandoffWorker(handoff::WorkerArguments),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Limits(selection) => report(limits::run(&selection)),
        Command::Channel(arguments) => report(channel::run(&arguments)),
        Command::Load(arguments) => load::command::main(&arguments),
        Command::Handoff(arguments) => report(handoff::run(&arguments)),
        Command::HandoffWorker(arguments) => report(handoff::run_worker(&arguments)),
    }
}

fn report(result: Result<(), impl Into<Box<dyn Error>>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nightcore-bench: {}", error.into());
            ExitCode::FAILURE
        }
    }
}
