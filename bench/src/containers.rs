//! What the isolation of a container costs, by its kind: its start, a call, a wake-up beside a function
//! that computes, memory.
//!
//! All kinds serve in one stack and are measured in turns, so that what a neighbour on this machine does
//! to one happens to the others too. The server runs on one core, this process on another.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::suite::process::{nth_core, private_kib, stay_on};
use crate::suite::programs::Programs;
use crate::suite::targets::{Instance, Starter};
use crate::suite::{self, Error, environment};

/// Containers that start for a call, of each kind.
const STARTS: u32 = 20;
/// A container without a call for this long is stopped; it is asked for far longer ones.
const IDLE_TIMEOUT: Duration = Duration::from_millis(50);
/// Between two looks whether it has been.
const LOOK: Duration = Duration::from_millis(5);
/// Longer than any of it takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Calls of a round.
const CALLS: u32 = 20_000;
/// Requests of a round whose answer takes one wake-up of the shard and no worker, and the pause before
/// each.
const PROBES: usize = 3000;
const PROBE_PAUSE: Duration = Duration::from_millis(1);
/// What the function beside them computes at a time.
const SPIN: &str = "{\"us\": 20000}";

/// A run to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rounds of calls and wake-ups.
    pub rounds: u32,
    /// Where the results go; `bench/results/<date>-<host>/containers` otherwise.
    pub out: Option<PathBuf>,
}

/// One figure.
#[derive(Debug, Serialize)]
struct Figure<'a> {
    measure: &'static str,
    kind: &'a str,
    round: u32,
    value: f64,
}

/// A run under way.
struct Run<'a> {
    starter: Starter<'a>,
    core: usize,
    kinds: Vec<&'static str>,
    raw: File,
    /// In the order in which they were measured.
    figures: Vec<(&'static str, &'static str, f64)>,
}

/// Makes a run; gives the directory of its results and the table.
///
/// # Errors
/// When a stack does not start or an answer is not one.
pub fn run(options: &Options) -> Result<(PathBuf, String), Error> {
    let programs = Programs::find();
    let scratch = suite::scratch()?;
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| suite::fresh_directory(Path::new("bench/results")).join("containers"));
    let path = out.join("figures.jsonl");
    let raw = std::fs::create_dir_all(&out).and_then(|()| File::create(&path));
    let raw = raw.map_err(|source| Error::Write { path, source })?;
    let environment = Value::Object(environment::describe(&programs));
    suite::write(&out.join("environment.json"), &format!("{environment:#}\n"))?;
    let (client, core) = (nth_core(0)?, nth_core(1)?);
    stay_on(client)?;
    let starter = Starter::new(&programs, scratch.path());
    let mut kinds = vec!["process", "sandbox"];
    if on_path("runc") {
        kinds.push("oci");
    } else {
        eprintln!("containers by an OCI runtime are left out: there is no runc");
    }
    let mut run = Run { starter, core, kinds, raw, figures: Vec::new() };
    run.starts()?;
    run.calls(options.rounds)?;
    run.wake_ups(options.rounds)?;
    run.memory()?;
    let table = run.table();
    suite::write(&out.join("summary.md"), &table)?;
    Ok((out, table))
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

impl Run<'_> {
    /// From the call that finds no container to its answer, as the client sees it.
    fn starts(&mut self) -> Result<(), Error> {
        let idle = format!("idle_timeout = \"{}ms\"\n", IDLE_TIMEOUT.as_millis());
        let text: String = self.kinds.iter().map(|kind| function("nop", kind, &idle)).collect();
        let instance = self.start(&text)?;
        for round in 1..=STARTS {
            for kind in self.kinds.clone() {
                let name = format!("nop-{kind}");
                wait_until_idle(&instance, &name)?;
                let since = Instant::now();
                post(&instance, &name, "")?;
                self.keep("start_ms", kind, round, since.elapsed().as_secs_f64() * 1e3)?;
            }
        }
        instance.stop()
    }

    /// An internal call of 1 KiB, as its caller sees it.
    fn calls(&mut self, rounds: u32) -> Result<(), Error> {
        let limits = "memory = \"256MiB\"\npids = 256\n";
        let of_kind =
            |kind: &&str| function("chain", kind, limits) + &function("echo", kind, limits);
        let text: String = self.kinds.iter().map(of_kind).collect();
        let instance = self.start(&text)?;
        // The first round warms them up.
        for round in 0..=rounds {
            for kind in self.turn(round) {
                let input =
                    format!("{{\"n\": {CALLS}, \"size\": 1024, \"function\": \"echo-{kind}\"}}");
                let answer = post(&instance, &format!("chain-{kind}"), &input)?;
                let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
                let us = answer["p50_us"].as_f64().ok_or(unexpected("chain's summary"))?;
                if round > 0 {
                    self.keep("call_p50_us", kind, round, us)?;
                }
            }
        }
        instance.stop()
    }

    /// A request that the shard answers by itself, with and without a function that computes on its
    /// core.
    fn wake_ups(&mut self, rounds: u32) -> Result<(), Error> {
        let text: String = self.kinds.iter().map(|kind| function("spin", kind, "")).collect();
        let instance = self.start(&text)?;
        for round in 1..=rounds {
            let (p50, p99) = probe(&instance)?;
            self.keep("alone_p50_us", "shard", round, p50)?;
            self.keep("alone_p99_us", "shard", round, p99)?;
            for kind in self.turn(round) {
                let over = AtomicBool::new(false);
                let spin = || {
                    let name = format!("spin-{kind}");
                    // SYNC: a plain flag.
                    while !over.load(Ordering::Relaxed) {
                        post(&instance, &name, SPIN)?;
                    }
                    Ok(())
                };
                let (p50, p99) = std::thread::scope(|scope| {
                    let spinner = scope.spawn(spin);
                    let probed = probe(&instance);
                    over.store(true, Ordering::Relaxed);
                    let spun: Result<(), Error> = spinner.join().expect("it does not panic");
                    spun.and(probed)
                })?;
                self.keep("beside_spin_p50_us", kind, round, p50)?;
                self.keep("beside_spin_p99_us", kind, round, p99)?;
            }
        }
        instance.stop()
    }

    /// Private memory of an idle container that has been called.
    fn memory(&mut self) -> Result<(), Error> {
        for kind in self.kinds.clone() {
            let instance = self.start(&function("echo", kind, ""))?;
            post(&instance, &format!("echo-{kind}"), "x")?;
            let pids = instance.pids();
            let containers = pids.iter().filter(|(name, _)| *name == "worker");
            let most = containers.filter_map(|(_, pid)| private_kib(*pid)).max().unwrap_or(0);
            self.keep("private_kib", kind, 1, most as f64)?;
            instance.stop()?;
        }
        Ok(())
    }

    fn start(&mut self, functions: &str) -> Result<Instance, Error> {
        let text = format!("[engine]\nshards = 1\n{functions}");
        self.starter.nightcore_with(&text, Some(self.core))
    }

    /// The kinds, forwards and backwards by turns.
    fn turn(&self, round: u32) -> Vec<&'static str> {
        let mut kinds = self.kinds.clone();
        if round.is_multiple_of(2) {
            kinds.reverse();
        }
        kinds
    }

    fn keep(
        &mut self,
        measure: &'static str,
        kind: &'static str,
        round: u32,
        value: f64,
    ) -> Result<(), Error> {
        let line = serde_json::to_string(&Figure { measure, kind, round, value });
        let written = line.map_err(Into::into).and_then(|line| writeln!(self.raw, "{line}"));
        written.map_err(|source| Error::Write { path: "figures.jsonl".into(), source })?;
        self.figures.push((measure, kind, value));
        Ok(())
    }

    fn table(&self) -> String {
        let mut text =
            String::from("| figure | kind | median | least | most |\n|---|---|---|---|---|\n");
        let mut rows: Vec<_> =
            self.figures.iter().map(|(measure, kind, _)| (*measure, *kind)).collect();
        rows.sort_unstable();
        rows.dedup();
        for (measure, kind) in rows {
            let [median, least, most] = self.spread(measure, kind);
            // A String takes every write.
            let _ = writeln!(text, "| {measure} | {kind} | {median:.2} | {least:.2} | {most:.2} |");
        }
        text.push_str("\n| bar | measured | |\n|---|---|---|\n");
        let [process, sandbox] =
            ["process", "sandbox"].map(|kind| self.spread("call_p50_us", kind)[0]);
        let wake_up = self.spread("beside_spin_p99_us", "sandbox")[0];
        let memory = self.spread("private_kib", "sandbox")[0] / 1024.0;
        let start = |kind| self.spread("start_ms", kind)[0];
        for (bar, value, most) in [
            ("start to first answer, process, ms", start("process"), 5.0),
            ("start to first answer, sandbox, ms", start("sandbox"), 15.0),
            ("start to first answer, oci, ms", start("oci"), 60.0),
            ("internal call p50, sandbox over process", sandbox / process, 1.1),
            ("wake-up beside a function that computes, p99, us", wake_up, 100.0),
            ("private memory of an idle sandbox, MiB", memory, 4.0),
        ] {
            let verdict = if value <= most { "met" } else { "missed" };
            let _ = writeln!(text, "| {bar}: at most {most} | {value:.2} | {verdict} |");
        }
        text
    }

    /// Median, least and most; not numbers where nothing was measured.
    fn spread(&self, measure: &str, kind: &str) -> [f64; 3] {
        let of = self.figures.iter().filter(|figure| (figure.0, figure.1) == (measure, kind));
        let mut values: Vec<f64> = of.map(|figure| figure.2).collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        [(at(last / 2) + at(last.div_ceil(2))) / 2.0, at(0), at(last)]
    }
}

/// An example function under the name of its kind.
fn function(example: &str, kind: &str, lines: &str) -> String {
    format!(
        "[[function]]\nname = \"{example}-{kind}\"\nlibrary = \"lib{example}.so\"\n\
         container = \"{kind}\"\n{lines}"
    )
}

fn url(instance: &Instance, path: &str) -> String {
    format!("http://{}{path}", instance.address)
}

fn post(instance: &Instance, function: &str, input: &str) -> Result<String, Error> {
    let answer = ureq::post(&url(instance, &format!("/function/{function}"))).send(input);
    let text = answer.and_then(|mut answer| answer.body_mut().read_to_string());
    text.map_err(|_| unexpected("a function"))
}

fn unexpected(what: &str) -> Error {
    Error::Output { case: "containers".to_owned(), output: format!("{what}, in vain") }
}

/// Waits until the function's container was stopped.
fn wait_until_idle(instance: &Instance, function: &str) -> Result<(), Error> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let list = ureq::get(&url(instance, "/v1/functions")).call();
        let text = list.and_then(|mut list| list.body_mut().read_to_string());
        let text = text.map_err(|_| unexpected("the list of functions"))?;
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        let functions = list["functions"].as_array().into_iter().flatten();
        if functions.into_iter().any(|f| f["name"] == function && f["state"] == "idle") {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    Err(unexpected("a container that stops"))
}

/// Median and 99th percentile of requests that need no worker, in us. This side spins for the answer, so
/// that the one wake-up in it is the shard's.
fn probe(instance: &Instance) -> Result<(f64, f64), Error> {
    let failed = |_| unexpected("an answer to a probe");
    let mut stream = TcpStream::connect(instance.address).map_err(failed)?;
    stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)).map_err(failed)?;
    let mut times = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        std::thread::sleep(PROBE_PAUSE);
        let since = Instant::now();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").map_err(failed)?;
        let mut answer = [0; 1024];
        let mut size = 0;
        // The body is the last line.
        while !answer[..size].ends_with(b"\r\n\r\nok\n") {
            match stream.read(&mut answer[size..]) {
                Ok(0) => return Err(unexpected("the rest of an answer")),
                Ok(more) => size += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
                Err(error) => return Err(failed(error)),
            }
        }
        times.push(since.elapsed());
    }
    times.sort_unstable();
    let us = |rank: usize| times[rank].as_secs_f64() * 1e6;
    Ok((us(PROBES / 2), us(PROBES * 99 / 100)))
}
