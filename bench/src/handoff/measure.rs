//! The command: rounds in which all that is compared runs next to each other, and ratios within
//! rounds.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Instant;

use clap::Args;
use hdrhistogram::Histogram;
use nix::sys::eventfd::EventFd;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use serde::Deserialize;

use super::conduct::Conduct;
use super::engine::Engine;
use super::event::{EngineError, Event};
use super::region::PAYLOAD_MAX;
use super::wake::Wake;
use super::wire::Ended;
use super::worker::pin;
use crate::sample::Sample;

/// Round trips of the two eventfds in a round.
const EVENTFD_CALLS: u32 = 8_000;
/// Calls of the relay in a round: what its function takes at most.
const RELAY_CALLS: u32 = 2_000;
/// Pairs for whom calls a second are measured.
const PAIRS: [usize; 3] = [1, 8, 16];

/// Options of `nightcore-bench handoff`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Rounds; medians are over them
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Bytes of a call's input and output
    #[arg(long, default_value_t = 1024, value_parser = parse_size)]
    size: usize,
    /// Direct calls of each pair in a round
    #[arg(long, default_value_t = 10_000)]
    calls: u32,
    /// Ways of waiting to compare; all but `spin` by default
    #[arg(long, value_enum, value_delimiter = ',')]
    wake: Vec<Wake>,
    /// Address of a running `chain` function (HOST:PORT), to compare with the engine's relay
    #[arg(long)]
    relay: Option<String>,
    /// Measure calls a second of 1, 8 and 16 pairs too
    #[arg(long)]
    throughput: bool,
    /// Callee on another core than its caller
    #[arg(long)]
    split: bool,
    /// Print each round's samples, one JSON object a line, instead of a table
    #[arg(long)]
    json: bool,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The prototype did not do what it should.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The system refused.
    #[error("measuring: {0}")]
    System(#[from] io::Error),
    /// Not what `chain` answers.
    #[error("{0} answered {1:?}")]
    Relay(String, String),
    /// Calls failed or gave what was not sent.
    #[error("a parent call ended with {0}")]
    Calls(String),
}

/// What `chain` answers, as far as it is needed.
#[derive(Deserialize)]
struct Summary {
    p50_us: f64,
    p99_us: f64,
}

/// Figures of one case over the rounds.
#[derive(Debug, Default)]
struct Row {
    case: String,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    over_eventfd: Vec<f64>,
    rps: Vec<f64>,
    cpu_us: Vec<f64>,
}

/// An engine with `pairs` pairs that have been introduced to each other.
struct Bed {
    engine: Engine,
    pairs: usize,
}

/// Measures, and prints.
pub fn run(arguments: &Arguments) -> Result<(), MeasureError> {
    let all = [Wake::Futex, Wake::Timed, Wake::Waitv, Wake::Epoll, Wake::Yield, Wake::Adaptive];
    let wakes = if arguments.wake.is_empty() { &all[..] } else { &arguments.wake };
    let mut rows: Vec<Row> = Vec::new();
    let mut keep = |sample: Sample, eventfd_us: f64| {
        if arguments.json {
            println!("{}", serde_json::to_string(&sample).unwrap_or_default());
        }
        let at = rows.iter().position(|row| row.case == sample.case).unwrap_or_else(|| {
            rows.push(Row { case: sample.case.clone(), ..Row::default() });
            rows.len() - 1
        });
        rows[at].add(&sample, eventfd_us);
    };
    for _ in 0..arguments.rounds {
        let eventfd = eventfd_round_trip()?;
        let eventfd_us = eventfd.p50_us;
        keep(eventfd, eventfd_us);
        for &wake in wakes {
            let callee_core = usize::from(arguments.split);
            let mut bed = Bed::new(wake, &[0], &[callee_core])?;
            keep(bed.round(arguments, &format!("handoff/{wake:?}"))?, eventfd_us);
        }
        if let Some(address) = &arguments.relay {
            keep(relay(address, arguments.size)?, eventfd_us);
        }
        for &wake in wakes.iter().filter(|_| arguments.throughput) {
            for (pairs, cores) in PAIRS.into_iter().flat_map(|pairs| [(pairs, 1), (pairs, 2)]) {
                let places: Vec<usize> = (0..pairs).map(|pair| pair % cores).collect();
                let mut bed = Bed::new(wake, &places, &places)?;
                let case = format!("handoff/{wake:?}/{pairs}_pairs_{cores}_cores");
                keep(bed.round(arguments, &case)?, eventfd_us);
            }
        }
    }
    if !arguments.json {
        print_table(&rows);
    }
    Ok(())
}

fn parse_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if size <= PAYLOAD_MAX => Ok(size),
        _ => Err(format!("expected a number of bytes up to {PAYLOAD_MAX}")),
    }
}

impl Bed {
    fn new(wake: Wake, callers: &[usize], callees: &[usize]) -> Result<Bed, MeasureError> {
        let mut engine = Engine::new(&std::env::current_exe()?, wake);
        engine.start("caller", Conduct::Honest, callers)?;
        engine.start("callee", Conduct::Honest, callees)?;
        let mut bed = Bed { engine, pairs: callers.len() };
        // There are as many callees as callers: each gets one and keeps it.
        for caller in 0..bed.pairs {
            bed.engine.parent(caller, 500, 32, u64::MAX);
        }
        bed.all_ended()?;
        Ok(bed)
    }

    /// All callers call at the same time.
    fn round(&mut self, arguments: &Arguments, case: &str) -> Result<Sample, MeasureError> {
        let (start, cpu) = (Instant::now(), self.engine.cpu_time()?);
        for caller in 0..self.pairs {
            self.engine.parent(caller, arguments.calls, arguments.size, u64::MAX);
        }
        let ended = self.all_ended()?;
        let elapsed = start.elapsed().as_secs_f64();
        let cpu = self.engine.cpu_time()?.saturating_sub(cpu);
        let direct: u32 = ended.iter().map(|ended| ended.direct).sum();
        let relayed: u32 = ended.iter().map(|ended| ended.relayed).sum();
        let times = ended.into_iter().find_map(|ended| ended.times);
        let mut sample = times.ok_or_else(|| MeasureError::Calls("no direct call".to_owned()))?;
        case.clone_into(&mut sample.case);
        sample.rps = Some(f64::from(direct + relayed) / elapsed);
        let cpu_us = cpu.as_secs_f64() * 1e6 / f64::from(direct + relayed);
        sample.extra.insert("cpu_us".to_owned(), cpu_us);
        sample.extra.insert("relayed".to_owned(), relayed.into());
        Ok(sample)
    }

    fn all_ended(&mut self) -> Result<Vec<Ended>, MeasureError> {
        let mut open = self.pairs;
        let mut all = Vec::new();
        while open > 0 {
            let ended = self.engine.wait_for("all callers are done", |event| match event {
                Event::Ended(_, ended) => Some(ended.clone()),
                _ => None,
            })?;
            if ended.failure.is_some() || ended.wrong > 0 {
                return Err(MeasureError::Calls(format!("{ended:?}")));
            }
            all.push(ended);
            open -= 1;
        }
        Ok(all)
    }
}

/// Two processes on one core that wake each other by eventfds: the least that two wake-ups cost
/// here, right now.
fn eventfd_round_trip() -> Result<Sample, MeasureError> {
    let bells =
        [EventFd::new().map_err(io::Error::from)?, EventFd::new().map_err(io::Error::from)?];
    let wait = |bell: &EventFd| nix::unistd::read(bell.as_fd(), &mut [0; 8]).map(drop);
    // SAFETY: this process has one thread, so the child may do whatever it could.
    let server = match unsafe { fork() }.map_err(io::Error::from)? {
        ForkResult::Child => {
            let served = pin(0).map_err(drop).and_then(|()| {
                loop {
                    wait(&bells[0]).and_then(|()| bells[1].write(1)).map_err(drop)?;
                }
            });
            let Err::<(), ()>(()) = served else { std::process::exit(0) };
            std::process::exit(1);
        }
        ForkResult::Parent { child } => child,
    };
    // The client is a thread of its own, so that the engine's stays where it was.
    let measured = std::thread::scope(|scope| {
        let client = scope.spawn(|| -> io::Result<Histogram<u64>> {
            pin(0)?;
            let mut times = histogram()?;
            for _ in 0..EVENTFD_CALLS {
                let start = Instant::now();
                bells[0].write(1)?;
                wait(&bells[1])?;
                let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                times.saturating_record(ns);
            }
            Ok(times)
        });
        client.join().unwrap_or_else(|_| Err(io::Error::other("the client panicked")))
    });
    kill(server, Signal::SIGKILL).map_err(io::Error::from)?;
    waitpid(server, None).map_err(io::Error::from)?;
    Ok(Sample::new("eventfd_same_core", &measured?))
}

/// Of nanoseconds up to a minute, to three digits.
pub(super) fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(io::Error::other)
}

/// The same calls through the real engine: `chain` calls `echo` and times each call.
fn relay(address: &str, size: usize) -> Result<Sample, MeasureError> {
    let body = format!("{{\"n\":{RELAY_CALLS},\"size\":{size}}}");
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "POST /function/chain HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let summary: Summary = serde_json::from_str(&answer)
        .map_err(|_| MeasureError::Relay(address.to_owned(), answer.clone()))?;
    let mut sample = Sample::new("relay", &histogram()?);
    (sample.n, sample.p50_us, sample.p99_us) = (RELAY_CALLS.into(), summary.p50_us, summary.p99_us);
    Ok(sample)
}

impl Row {
    fn add(&mut self, sample: &Sample, eventfd_us: f64) {
        self.p50_us.push(sample.p50_us);
        self.p99_us.push(sample.p99_us);
        self.over_eventfd.push(sample.p50_us / eventfd_us);
        self.rps.extend(sample.rps);
        self.cpu_us.extend(sample.extra.get("cpu_us"));
    }

    /// Medians over the rounds, with the range of the ratio that matters most.
    fn print(&self) {
        let tail: Vec<f64> =
            self.p99_us.iter().zip(&self.p50_us).map(|(p99, p50)| p99 / p50).collect();
        let ratios = sorted(&self.over_eventfd);
        println!(
            "{:<32} {:>8.2} {:>8.2} {:>9.2} {:>12.2} ({:.2} to {:.2}) {:>9.0} {:>7.2}",
            self.case,
            median(&self.p50_us),
            median(&self.p99_us),
            median(&tail),
            median(&self.over_eventfd),
            ratios[0],
            ratios[ratios.len() - 1],
            median(&self.rps),
            median(&self.cpu_us),
        );
    }
}

fn print_table(rows: &[Row]) {
    println!(
        "{:<32} {:>8} {:>8} {:>9} {:>27} {:>9} {:>7}",
        "case", "p50 us", "p99 us", "p99/p50", "p50/eventfd (min to max)", "calls/s", "cpu us"
    );
    for row in rows {
        row.print();
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

/// Not a number where there is no value.
fn median(values: &[f64]) -> f64 {
    sorted(values).get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
