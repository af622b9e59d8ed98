//! `nightcore-bench load`: a plan from arguments, progress on stderr, the report where wanted.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use super::log::write_csv;
use super::report::write_hgrm;
use super::target::Target;
use super::{Keep, Pace, Plan, Progress, Report, run_until};

/// The exit code when a request failed or none could be sent.
const FAILED: u8 = 1;
/// The exit code of wrong usage, as clap's.
const USAGE: u8 = 2;
/// The exit code after a second Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Sends HTTP/1.1 requests over kept connections and prints how long they took.
///
/// With --rate, so many requests are due each second, whether or not earlier ones are answered, and
/// latency counts from the moment a request was due. Without, each connection sends its next
/// request when the last one is answered.
///
/// Exit codes: 0, every request was served (status 2xx); 1, some failed or the target cannot be
/// reached; 2, wrong usage. Ctrl-C ends the load early and reports; a second one ends at once.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// http://HOST[:PORT][/PATH]
    url: Target,
    /// Requests a second over all connections; a closed loop without
    #[arg(long, value_name = "R", value_parser = positive)]
    rate: Option<f64>,
    /// Another rate from a moment of the recorded time on, as in 2s:900
    #[arg(long, value_name = "TIME:R", requires = "rate", value_parser = step)]
    step: Option<(Duration, f64)>,
    /// Kept connections
    #[arg(long, short = 'c', value_name = "N", default_value_t = 1, value_parser = at_least_one())]
    connections: u32,
    /// Recorded time, as in 10s or 500ms
    #[arg(long, short = 'd', value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// The same load before it, unrecorded
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    warm_up: Duration,
    /// For connecting, and from sending to the end of the answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    timeout: Duration,
    /// Threads, each with its share of the connections
    #[arg(long, short = 't', value_name = "N", default_value_t = 1, value_parser = at_least_one())]
    threads: u32,
    /// GET, or POST where there is a body
    #[arg(long, short = 'X', value_name = "M", value_parser = method)]
    method: Option<String>,
    /// "Name: value"; as often as needed
    #[arg(long, short = 'H', value_name = "K:V", value_parser = header)]
    header: Vec<(String, String)>,
    /// The body of every request
    #[arg(long, value_name = "S", conflicts_with = "body_file")]
    body: Option<String>,
    /// The same from a file
    #[arg(long, value_name = "F")]
    body_file: Option<PathBuf>,
    /// The name of this run in JSON
    #[arg(long, value_name = "NAME", default_value = "load")]
    case: String,
    /// Writes a JSON line to a file, or to stdout as "-", which moves the table to stderr
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the distribution in microseconds for HdrHistogram's plotters
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Writes each request as CSV: when it was due, its latency, its status
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// No progress and no table
    #[arg(long, short = 'q')]
    quiet: bool,
}

/// Runs the command; the exit code tells whether every request was served.
#[must_use]
pub fn main(arguments: &Arguments) -> ExitCode {
    let plan = match plan(arguments) {
        Ok(plan) => plan,
        Err(message) => return fail(&message, USAGE),
    };
    let mut show = |progress: &Progress| {
        if !arguments.quiet {
            show_progress(progress);
        }
    };
    let report = stop_on_signal()
        .map_err(super::Error::from)
        .and_then(|stop| run_until(&plan, &stop, &mut show));
    let report = match report {
        Ok(report) => report,
        Err(error @ super::Error::Plan(_)) => return fail(&error, USAGE),
        Err(error) => return fail(&error, FAILED),
    };
    if let Err(error) = write(arguments, &report) {
        return fail(&error, FAILED);
    }
    let all_served = report.errors.total() == 0 && !report.times.is_empty();
    if all_served { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

fn fail(message: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("nightcore-bench load: {message}");
    ExitCode::from(code)
}

fn plan(arguments: &Arguments) -> Result<Plan, String> {
    let body = match (&arguments.body, &arguments.body_file) {
        (Some(body), _) => body.clone().into_bytes(),
        (None, Some(path)) => {
            std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?
        }
        (None, None) => Vec::new(),
    };
    let pace = match (arguments.rate, arguments.step) {
        (None, _) => Pace::Closed,
        (Some(per_second), None) => Pace::Constant { per_second },
        (Some(before), Some((at, after))) => Pace::Step { before, at, after },
    };
    let default_method = if body.is_empty() { "GET" } else { "POST" };
    Ok(Plan {
        target: arguments.url.clone(),
        method: arguments.method.clone().unwrap_or_else(|| default_method.to_owned()),
        headers: arguments.header.clone(),
        body,
        also: Vec::new(),
        connections: arguments.connections,
        pace,
        duration: arguments.duration,
        warm_up: arguments.warm_up,
        timeout: arguments.timeout,
        threads: arguments.threads,
        keep: if arguments.log.is_some() { Keep::EveryRequest } else { Keep::Sums },
    })
}

/// A flag that SIGINT and SIGTERM set. Threads made from here on leave both to one that waits for
/// them; it is not joined and ends with the process.
fn stop_on_signal() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::<AtomicBool>::default();
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block()?;
    let flag = Arc::clone(&stop);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while signals.wait().is_ok() {
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(INTERRUPTED);
            }
        }
    })?;
    Ok(stop)
}

fn show_progress(progress: &Progress) {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    eprintln!(
        "{:>4} s {:>9}/s  p50 {:>9.1} us  p99 {:>9.1} us  errors {}",
        progress.elapsed.as_secs(),
        progress.requests,
        us(progress.p50),
        us(progress.p99),
        progress.errors
    );
}

fn write(arguments: &Arguments, report: &Report) -> Result<(), String> {
    let write_file = |path: &Path, content: &[u8]| {
        std::fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()))
    };
    let to_stdout = arguments.json.as_deref() == Some(Path::new("-"));
    if !arguments.quiet {
        if to_stdout { eprint!("{report}") } else { print!("{report}") }
    }
    if let Some(path) = &arguments.json {
        let mut line = serde_json::to_string(&report.sample(&arguments.case))
            .map_err(|error| error.to_string())?;
        line.push('\n');
        if to_stdout {
            io::stdout().write_all(line.as_bytes()).map_err(|error| format!("stdout: {error}"))?;
        } else {
            write_file(path, line.as_bytes())?;
        }
    }
    if let Some(path) = &arguments.hgrm {
        let written = File::create(path).and_then(|file| write_hgrm(&report.times, file));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(path) = &arguments.log {
        let written = File::create(path).and_then(|file| write_csv(&report.log, file));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err("not above 0".to_owned()) }
}

/// A time and a rate.
fn step(text: &str) -> Result<(Duration, f64), String> {
    let (at, rate) = text.split_once(':').ok_or("no colon between time and rate")?;
    Ok((duration(at)?, positive(rate)?))
}

/// Seconds, or what `ms`, `s` or `m` behind the number says.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
    let (number, scale) = units
        .iter()
        .find_map(|&(unit, scale)| text.strip_suffix(unit).map(|number| (number, scale)))
        .unwrap_or((text, 1.0));
    let number: f64 = number.parse().map_err(|_| "not a time like 10s or 500ms".to_owned())?;
    Duration::try_from_secs_f64(number * scale).map_err(|error| error.to_string())
}

fn method(text: &str) -> Result<String, String> {
    let valid = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
    if valid { Ok(text.to_owned()) } else { Err("not a method in capitals".to_owned()) }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("no colon between name and value")?;
    if name.is_empty() || text.chars().any(char::is_control) {
        return Err("no name, or a control character".to_owned());
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Result<Plan, String> {
        let words = std::iter::once("load").chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        plan(&cli.arguments)
    }

    #[test]
    fn arguments_make_a_plan() {
        let plan =
            parse("--rate 2.5e3 -c 64 -d 500ms --header A:b:c --body x http://127.0.0.1:1/f")
                .unwrap();
        assert_eq!(plan.pace, Pace::Constant { per_second: 2500.0 });
        assert_eq!((plan.connections, plan.threads), (64, 1));
        assert_eq!(
            (plan.duration, plan.warm_up),
            (Duration::from_millis(500), Duration::from_secs(1))
        );
        assert_eq!(plan.headers, [("A".to_owned(), "b:c".to_owned())]);
        assert_eq!((plan.method.as_str(), plan.body.as_slice()), ("POST", &b"x"[..]));
        assert_eq!(parse("http://127.0.0.1:1/").unwrap().method, "GET");
    }

    #[test]
    fn a_step_is_a_second_rate_and_a_log_keeps_every_request() {
        let plan = parse("--rate 10 --step 500ms:90 --log x http://127.0.0.1:1").unwrap();
        let at = Duration::from_millis(500);
        assert_eq!(plan.pace, Pace::Step { before: 10.0, at, after: 90.0 });
        assert_eq!(plan.keep, Keep::EveryRequest);
        assert!(parse("--step 1s:90 http://127.0.0.1:1").is_err());
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for line in [
            "",
            "ftp://127.0.0.1",
            "--rate 0 http://127.0.0.1:1",
            "--rate nan http://127.0.0.1:1",
            "--rate 1 --step 1s http://127.0.0.1:1",
            "--duration soon http://127.0.0.1:1",
            "--duration -1s http://127.0.0.1:1",
            "--connections 0 http://127.0.0.1:1",
            "--header nothing http://127.0.0.1:1",
            "--method get http://127.0.0.1:1",
            "--body a --body-file b http://127.0.0.1:1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
