//! Entry of the `nightcore` command: its arguments, its log, its exit codes.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use nightcore_cli::admin::AdminError;
use nightcore_cli::client::ClientError;
use nightcore_cli::config::{Config, Overrides, Role, SHARDS_MAX};
use nightcore_cli::deploy::{self, DeployError};
use nightcore_cli::key::{self, KeyError};
use nightcore_cli::up::Start;
use nightcore_cli::{invoke, logs, ls, top, up};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Variable that sets what is logged, as in `debug` or `engine=debug,warn`.
const LOG_VARIABLE: &str = "NIGHTCORE_LOG";
/// Exit code of a wrong command line or configuration; clap uses the same.
const EXIT_USAGE: u8 = 2;

const ENVIRONMENT_HELP: &str = "\
Environment:
  NIGHTCORE_LOG  what is logged to standard error: error, warn, info (default), debug, trace,
                 or a list such as engine=debug,warn
  NIGHTCORE_KEY  API key or token that invoke, ls and top show to the gateway";

const UP_HELP: &str = "\
Exit codes:
  0  stopped by SIGTERM or Ctrl-C, and every accepted request was answered
  1  could not start or go on (the system lacks something, the address is taken), or the drain
     was cut short by its time limit or a second signal
  2  wrong command line or configuration, or a library that cannot be used; nothing is left running";

/// Of the commands that ask a gateway, behind what is said of their output.
macro_rules! client_help {
    ($output:literal) => {
        concat!(
            $output,
            "\
Exit codes:
  0  success
  1  the gateway answered that it failed (any status but 2xx), or the output cannot be written
  2  wrong command line, or the data to send cannot be read
  3  no answer, or not all of it"
        )
    };
}

const INVOKE_HELP: &str = client_help!("");

const LS_HELP: &str = client_help!(
    "\
Columns:
  WORKERS            threads of the function; IDLE ones wait for a call, RUN and WAIT are on one,
                     the latter until a call of their own is answered
  QUEUE              calls that wait for a worker
  LIMIT              calls that may be on workers at once
  TAU                concurrency that the measured load calls for: arrivals per second times
                     processing time
  CALLS, FAILED      since the start
  PROC50, PROC99     median and 99th percentile of the processing time since the start
  DELAY99            99th percentile of the time in the queue since the start
Percentiles are estimates from the buckets of a histogram. A dash stands for what was not measured.

"
);

const TOP_HELP: &str = client_help!(
    "\
On a terminal the table is redrawn, and q or Ctrl-C ends; elsewhere one table follows the other.

Columns:
  CALLS/S, FAILED/S  calls that arrived, and that failed, per second of the interval
  QUEUE              calls that wait for a worker
  RUN, WAIT          workers on a call; those that WAIT do so for a call of their own
  WORKERS            threads of the function
  LIMIT              calls that may be on workers at once
  TAU                concurrency that the measured load calls for: arrivals per second times
                     processing time
  PROC50, PROC99     median and 99th percentile of the processing time in the interval
  DELAY99            99th percentile of the time in the queue in the interval
Percentiles are estimates from the buckets of a histogram. A dash stands for what was not measured.

"
);

const LOGS_HELP: &str = "\
A line has the time, the function with its version and the number of the container, the stream, the
request's id where the function said it, and the text, with control characters escaped. A notice is
the engine's word that lines are missing. The last 1,000 lines, or 256 KiB, of each function are kept.

Exit codes:
  0  success
  1  no engine is there, it refused or broke off, or the output cannot be written
  2  wrong command line, no such function, or several engines and none chosen";

const DEPLOY_HELP: &str = "\
A function that is served already is updated: its next version is started beside it, gets the
calls once its first worker stands, and the former version ends the calls that it has. A version
that does not start leaves the former one in place. What is deployed here lasts until the next
start or reload.

Exit codes:
  0  all is as it was asked
  1  a function is not, or no engine runs
  2  wrong command line or configuration";

const REMOVE_HELP: &str = "\
The function is not found from now on; the command returns when its last call has ended.

Exit codes:
  0  all are removed
  1  one is not, or no engine runs
  2  wrong command line";

const KEY_HELP: &str = "\
  nightcore key new shop-1 --client shop >> keys.toml
  nightcore key hash < key.txt

Exit codes:
  0  success
  1  standard input or output failed, or the system has no random numbers
  2  wrong command line, or standard input holds no key";

const RELOAD_HELP: &str = "\
Deploys the functions that are new in the file or differ, by their lines or by the contents of
their libraries, and removes those that are not in it. The files of keys are read again, and the
access log is opened again. The same as SIGHUP.

Exit codes:
  0  all is as the file says
  1  something is not, the file cannot be used, or no engine runs
  2  wrong command line";

/// A function runtime for latency-sensitive, interactive microservices
#[derive(Parser)]
#[command(name = "nightcore", version, after_help = ENVIRONMENT_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start gateway, engine and containers on this host
    #[command(after_help = UP_HELP)]
    Up(UpOptions),
    /// Start a gateway, for engines on other hosts
    #[command(after_help = UP_HELP)]
    Gateway(GatewayOptions),
    /// Start engine and containers on this host, for gateways on others
    #[command(after_help = UP_HELP)]
    Engine(EngineOptions),
    /// Call a function and print its answer
    #[command(after_help = INVOKE_HELP)]
    Invoke(invoke::Options),
    /// List the functions of a running stack
    #[command(after_help = LS_HELP)]
    Ls(ls::Options),
    /// Show what functions printed
    #[command(after_help = LOGS_HELP)]
    Logs(logs::Options),
    /// Deploy functions to a running stack, or update them
    #[command(after_help = DEPLOY_HELP)]
    Deploy(deploy::DeployOptions),
    /// Remove functions from a running stack
    #[command(after_help = REMOVE_HELP)]
    Rm(deploy::RemoveOptions),
    /// Have a running stack read its configuration file again
    #[command(after_help = RELOAD_HELP)]
    Reload(deploy::ReloadOptions),
    /// Make API keys, and hash them
    #[command(after_help = KEY_HELP)]
    Key(key::Options),
    /// Show what the functions of a running stack do, refreshed every second
    #[command(after_help = TOP_HELP)]
    Top(top::Options),
}

#[derive(Args)]
struct UpOptions {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = "nightcore.toml")]
    config: PathBuf,
    /// Address and port to listen on, instead of the file's; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Number of shards, instead of the file's or one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(SHARDS_MAX)))]
    shards: Option<u16>,
}

#[derive(Args)]
struct GatewayOptions {
    #[command(flatten)]
    up: UpOptions,
    /// Take over from the gateway that runs with the same `runtime_dir`, if one does: its listening
    /// sockets go to the new process, which starts and serves, and the old one drains. No connection is
    /// refused meanwhile
    #[arg(long)]
    takeover: bool,
}

#[derive(Args)]
struct EngineOptions {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = "nightcore.toml")]
    config: PathBuf,
    /// Number of shards, instead of the file's or one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(SHARDS_MAX)))]
    shards: Option<u16>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(message) = log_to_stderr() {
        eprintln!("nightcore: {message}");
        return ExitCode::from(EXIT_USAGE);
    }
    match arguments.command {
        Command::Up(options) => run_up(&options, Role::Host, Start::Afresh),
        Command::Gateway(GatewayOptions { up, takeover }) => {
            let start = if takeover { Start::Takeover } else { Start::Afresh };
            run_up(&up, Role::Gateway, start)
        }
        Command::Engine(EngineOptions { config, shards }) => {
            let options = UpOptions { config, listen: None, shards };
            run_up(&options, Role::Engine, Start::Afresh)
        }
        Command::Invoke(options) => client_exit(invoke::run(&options, &mut io::stdout().lock())),
        Command::Ls(options) => client_exit(ls::run(&options, &mut io::stdout().lock())),
        Command::Logs(options) => admin_exit(logs::run(&options, &mut io::stdout().lock())),
        Command::Deploy(options) => deploy_exit(deploy::deploy(&options, &mut io::stdout())),
        Command::Rm(options) => deploy_exit(deploy::remove(&options, &mut io::stdout())),
        Command::Reload(options) => deploy_exit(deploy::reload(&options, &mut io::stdout())),
        Command::Key(options) => key_exit(key::run(
            &options,
            io::stdin().lock(),
            &mut io::stdout().lock(),
            &mut io::stderr().lock(),
        )),
        Command::Top(options) => {
            let display = top::Display::of_process();
            client_exit(top::run(&options, display, &mut io::stdout().lock()))
        }
    }
}

fn run_up(options: &UpOptions, role: Role, start: Start) -> ExitCode {
    let overrides = Overrides { role, listen: options.listen, shards: options.shards };
    match Config::load(&options.config, overrides) {
        Ok(config) => up::run(&config, start),
        Err(error) => {
            // Bare, so that the line begins with file and line as editors and people expect it.
            eprintln!("{error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn key_exit(result: Result<(), KeyError>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let output = if let KeyError::Output(cause) = &error { Some(cause) } else { None };
    failed(&error, output, error.exit_code())
}

fn client_exit(result: Result<(), ClientError>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let output = if let ClientError::Output(cause) = &error { Some(cause) } else { None };
    failed(&error, output, error.exit_code())
}

fn admin_exit(result: Result<(), AdminError>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if let AdminError::Config(error) = &error {
        // Bare, as all that is wrong with a configuration.
        eprintln!("{error}");
        return ExitCode::from(EXIT_USAGE);
    }
    let output = if let AdminError::Output(cause) = &error { Some(cause) } else { None };
    failed(&error, output, error.exit_code())
}

/// `output`: how writing to standard output failed, if that is what failed.
fn failed(error: &dyn Display, output: Option<&io::Error>, code: u8) -> ExitCode {
    // A reader that has seen enough (`| head`) is no news.
    if output.is_none_or(|cause| cause.kind() != io::ErrorKind::BrokenPipe) {
        eprintln!("nightcore: {error}");
    }
    ExitCode::from(code)
}

fn deploy_exit(result: Result<(), DeployError>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    match error {
        // Bare: the line begins with file and line.
        DeployError::Config(_) => eprintln!("{error}"),
        _ => eprintln!("nightcore: {error}"),
    }
    ExitCode::from(error.exit_code())
}

fn log_to_stderr() -> Result<(), String> {
    let filter = EnvFilter::builder()
        .with_env_var(LOG_VARIABLE)
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()
        .map_err(|error| format!("{LOG_VARIABLE}: {error}"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    Ok(())
}
