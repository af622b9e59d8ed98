//! `nightcore-bench`: one command a tool; see `--help`.

use std::error::Error;

use clap::{Parser, Subcommand};
use nightcore_bench::handoff;

#[derive(Parser)]
#[command(version, about = "Measures the machine, Nightcore, and what one would run instead")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures a direct hand-off from caller to callee beside two eventfds and the engine's relay
    Handoff(handoff::Arguments),
    #[command(hide = true)]
    HandoffWorker(handoff::WorkerArguments),
}

fn main() -> Result<(), Box<dyn Error>> {
    match Arguments::parse().command {
        Command::Handoff(arguments) => handoff::run(&arguments)?,
        Command::HandoffWorker(arguments) => handoff::run_worker(&arguments)?,
    }
    Ok(())
}
