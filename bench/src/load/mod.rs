//! The load generator: HTTP/1.1 over kept connections, at a constant rate or as fast as the target
//! answers. Its figures are what a client sees, so its own cost and lateness are figures too.
//!
//! - [`Plan`] says what to do, [`run`] does it, [`Report`] says what happened.
//! - [`target`]: where to, and the bytes of the request. [`schedule`]: when each request is due.
//! - `thread`: one runtime of tokio-uring, with a task for each of its connections, one pacer that
//!   wakes them when a request is due, and one watch for timeouts and the second's report.
//! - `connection`: a request out, a response in. [`response`]: where a response ends.
//! - `timer`: precise waiting. `tally`: what happened, summed up. [`log`]: each request of it.
//! - [`report`]: tables and files.
//! - [`command`]: `nightcore-bench load`.
//!
//! **Latency** at a constant rate counts from the moment a request was due, not from the moment it
//! was sent: a target that stalls delays all who would have come meanwhile (the "coordinated
//! omission" of a closed loop, where whoever waits does not ask). In a closed loop it counts from
//! the sending. Nothing is sent after the end; answers still owed then are waited for.

pub mod command;
mod connection;
pub mod log;
pub mod report;
pub mod response;
pub mod schedule;
mod tally;
pub mod target;
mod thread;
mod timer;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Barrier, OnceLock, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use report::Report;
use schedule::Schedule;
pub use tally::Errors;
use tally::Tally;
use target::Target;
use thread::{Interval, Part};

/// Descriptors of a process beside those of its threads: standard streams, results.
const DESCRIPTORS_OTHER: u64 = 16;
/// Descriptors of a thread beside its connections: ring, epoll, eventfd, timer.
const DESCRIPTORS_PER_THREAD: u64 = 16;

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// On each connection the next one as soon as the last one is answered.
    Closed,
    /// So many a second over all connections, answered or not; above zero.
    Constant {
        /// Requests a second.
        per_second: f64,
    },
    /// At one constant rate, and from a moment on at another.
    Step {
        /// Requests a second before, warm-up included; above zero.
        before: f64,
        /// When it changes, from the beginning of the recorded time.
        at: Duration,
        /// Requests a second from then on; above zero.
        after: f64,
    },
}

/// Another request of a load, with the method and headers of the first.
#[derive(Clone, Debug)]
pub struct Also {
    /// Path and query, starting with `/`.
    pub path: String,
    /// Its body.
    pub body: Vec<u8>,
}

/// What is kept of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Distributions and counts.
    Sums,
    /// Those, and one [`log::Entry`] a request.
    EveryRequest,
}

/// What a run does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to.
    pub target: Target,
    /// `GET`, `POST` and so on.
    pub method: String,
    /// Sent with every request, beside `Host` and `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// Sent with every request to the target.
    pub body: Vec<u8>,
    /// Sent in turns with that one, on every connection; mostly none.
    pub also: Vec<Also>,
    /// Kept connections, at least one a thread.
    pub connections: u32,
    /// How requests follow each other.
    pub pace: Pace,
    /// How long requests are recorded.
    pub duration: Duration,
    /// How long the same load runs before, unrecorded.
    pub warm_up: Duration,
    /// For connecting, and from sending to the end of the answer; also how long answers are waited
    /// for at the end.
    pub timeout: Duration,
    /// Threads, each with its own ring and its share of the connections.
    pub threads: u32,
    /// What is kept of it.
    pub keep: Keep,
}

/// Why a run did not take place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plan contradicts itself.
    #[error("{0}")]
    Plan(&'static str),
    /// Every connection needs a descriptor.
    #[error(
        "{needed} open files are needed, the limit is {limit}: raise it (ulimit -n) or use fewer \
         connections"
    )]
    Descriptors {
        /// What the plan takes.
        needed: u64,
        /// The hard limit of this process.
        limit: u64,
    },
    /// Nobody listens, or nobody can be reached.
    #[error("{address} cannot be reached: {source}")]
    Unreachable {
        /// The target.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused a thread, a ring or a timer.
    #[error("a thread of the load could not run: {0}")]
    Thread(#[from] io::Error),
}

/// One second of a run, while it lasts.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Time recorded so far.
    pub elapsed: Duration,
    /// Requests served in this second.
    pub requests: u64,
    /// Their median latency.
    pub p50: Duration,
    /// Their 99th percentile.
    pub p99: Duration,
    /// Requests that failed in this second.
    pub errors: u64,
}

/// What all threads of a run know.
#[derive(Debug)]
struct Job {
    address: SocketAddr,
    method: String,
    /// The target's own, then the others; never empty.
    requests: Vec<Bytes>,
    schedule: Option<Schedule>,
    connections: u32,
    threads: u32,
    timeout: Duration,
    warm_up: Duration,
    duration: Duration,
    keep: Keep,
    /// Set by whoever wants the run to end early.
    stop: Arc<AtomicBool>,
    /// Passed by all threads when each has its connections.
    connected: Barrier,
    /// Then set by the first of them.
    start: OnceLock<Instant>,
}

/// Runs the plan to its end.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&Progress)) -> Result<Report, Error> {
    run_until(plan, &Arc::default(), progress)
}

/// Runs the plan to its end or until `stop` is set, and reports what happened until then.
pub fn run_until(
    plan: &Plan,
    stop: &Arc<AtomicBool>,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Report, Error> {
    let job = Arc::new(Job::new(plan, stop)?);
    let needed = u64::from(plan.connections)
        + DESCRIPTORS_PER_THREAD * u64::from(plan.threads)
        + DESCRIPTORS_OTHER;
    allow_descriptors(needed)?;
    let address = job.address;
    TcpStream::connect_timeout(&address, plan.timeout)
        .map_err(|source| Error::Unreachable { address, source })?;

    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|index| {
                let part = Part { job: Arc::clone(&job), index, intervals: sender.clone() };
                scope.spawn(move || thread::run(part))
            })
            .collect();
        drop(sender);
        let total = sum_up(&receiver, plan.threads, progress);
        let mut elapsed = Duration::ZERO;
        for thread in threads {
            let recorded =
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            elapsed = elapsed.max(recorded);
        }
        Ok(Report::new(plan, total, elapsed))
    })
}

impl Job {
    fn new(plan: &Plan, stop: &Arc<AtomicBool>) -> Result<Job, Error> {
        if plan.threads == 0 || plan.connections < plan.threads {
            return Err(Error::Plan("a load needs a thread, and every thread a connection"));
        }
        let is_rate = |rate: f64| rate > 0.0 && rate.is_finite();
        let schedule = match plan.pace {
            Pace::Closed => None,
            Pace::Constant { per_second } if is_rate(per_second) => {
                Some(Schedule::new(per_second, plan.connections))
            }
            Pace::Step { before, at, after } if is_rate(before) && is_rate(after) => {
                let schedule = Schedule::new(before, plan.connections);
                Some(schedule.with_step(plan.warm_up + at, after))
            }
            Pace::Constant { .. } | Pace::Step { .. } => {
                return Err(Error::Plan("a rate is a number above 0"));
            }
        };
        let request =
            |target: &Target, body: &[u8]| target.request(&plan.method, &plan.headers, body);
        let also = plan.also.iter().map(|also| {
            request(&Target { path: also.path.clone(), ..plan.target.clone() }, &also.body)
        });
        let requests = std::iter::once(request(&plan.target, &plan.body)).chain(also).collect();
        Ok(Job {
            address: plan.target.address,
            method: plan.method.clone(),
            requests,
            schedule,
            connections: plan.connections,
            threads: plan.threads,
            timeout: plan.timeout,
            warm_up: plan.warm_up,
            duration: plan.duration,
            keep: plan.keep,
            stop: Arc::clone(stop),
            connected: Barrier::new(plan.threads as usize),
            start: OnceLock::new(),
        })
    }
}

/// Raises the soft limit as far as needed and allowed.
fn allow_descriptors(needed: u64) -> Result<(), Error> {
    let (soft, limit) = getrlimit(Resource::RLIMIT_NOFILE).map_err(io::Error::from)?;
    if needed > limit {
        return Err(Error::Descriptors { needed, limit });
    }
    if needed > soft {
        setrlimit(Resource::RLIMIT_NOFILE, needed, limit).map_err(io::Error::from)?;
    }
    Ok(())
}

/// Adds up what the threads report until the last one has ended; tells each second that all of them
/// have reported.
fn sum_up(
    intervals: &mpsc::Receiver<Interval>,
    threads: u32,
    progress: &mut dyn FnMut(&Progress),
) -> Tally {
    let mut total = Tally::new();
    let mut seconds: BTreeMap<u64, (u32, Tally)> = BTreeMap::new();
    for Interval { second, tally } in intervals {
        total.add(&tally);
        let Some(second) = second else { continue };
        let (parts, sum) = seconds.entry(second).or_insert_with(|| (0, Tally::new()));
        sum.add(&tally);
        *parts += 1;
        if *parts == threads {
            progress(&Progress {
                elapsed: Duration::from_secs(second),
                requests: sum.times.len(),
                p50: Duration::from_nanos(sum.times.value_at_quantile(0.5)),
                p99: Duration::from_nanos(sum.times.value_at_quantile(0.99)),
                errors: sum.errors.total(),
            });
            seconds.remove(&second);
        }
    }
    total
}
