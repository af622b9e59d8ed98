//! `nightcore-bench`: one command a tool; see `--help`.

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
    Load(load::command::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Load(arguments) => load::command::main(&arguments),
    }
}
