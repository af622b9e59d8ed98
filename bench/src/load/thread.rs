//! One thread of a load: a runtime of tokio-uring and the tasks on it. Threads share nothing but
//! the job; each sends what it has seen to the main thread once a second.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_uring::net::TcpStream;

use super::connection::{Failure, Link, Received, carry};
use super::log::Entry;
use super::schedule::Schedule;
use super::tally::{Tally, record};
use super::timer::Timer;
use super::{Job, Keep};

/// Connections being made at a time; below any listener's backlog.
const CONNECTING_MAX: usize = 32;
/// From the last connection made to the first request.
const START_DELAY: Duration = Duration::from_millis(1);
/// How often timeouts and the wish to stop are looked for.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
/// Entries of a submission queue, which is flushed when it is full.
const RING_ENTRIES: u32 = 1024;
/// Completions a ring can hold; beyond, the kernel keeps them aside at some cost.
const COMPLETIONS_MAX: u32 = 32 * 1024;

/// What one thread is to do.
pub(super) struct Part {
    pub(super) job: Arc<Job>,
    /// From 0 to [`Job::threads`].
    pub(super) index: u32,
    pub(super) intervals: mpsc::Sender<Interval>,
}

/// What one thread has seen since its last interval.
pub(super) struct Interval {
    /// Ends this many seconds after recording began; none for what comes at the end.
    pub(super) second: Option<u64>,
    pub(super) tally: Tally,
}

/// What pacer, watch and connection know of one connection.
#[derive(Default)]
pub(super) struct Lane {
    /// Rung when a request is due and when the end has come.
    wake: Notify,
    /// Set by the connection while it waits for an answer; taken by the watch when it has waited
    /// for too long.
    pub(super) waiting_since: Cell<Option<Instant>>,
    /// Set by the connection for the watch, which shuts it down.
    pub(super) stream: RefCell<Option<Rc<TcpStream>>>,
}

/// What the tasks of one thread share.
pub(super) struct Shard {
    pub(super) job: Arc<Job>,
    index: u32,
    pub(super) lanes: Vec<Lane>,
    pub(super) tally: RefCell<Tally>,
    pub(super) connecting: Semaphore,
    pub(super) start: Instant,
    record_from: Instant,
    /// Moved to now when the run is stopped.
    end: Cell<Instant>,
    /// CPU time of the thread when recording began.
    cpu_before: Cell<Option<Duration>>,
    /// What kept the pacer from its work.
    failure: Cell<Option<io::Error>>,
}

/// Runs one thread's part; returns how long it has recorded.
pub(super) fn run(part: Part) -> io::Result<Duration> {
    let job = Arc::clone(&part.job);
    let lanes =
        job.connections / job.threads + u32::from(part.index < job.connections % job.threads);
    let completions = (2 * lanes).next_power_of_two().clamp(2 * RING_ENTRIES, COMPLETIONS_MAX);
    let mut ring = tokio_uring::uring_builder();
    // Completions are collected at the next system call instead of by an interrupt.
    ring.setup_coop_taskrun().setup_single_issuer().setup_cqsize(completions);
    let mut builder = tokio_uring::builder();
    let runtime = tokio_uring::Runtime::new(builder.entries(RING_ENTRIES).uring_builder(&ring));
    match runtime {
        Ok(runtime) => runtime.block_on(offer(part, lanes)),
        Err(error) => {
            job.connected.wait(); // or the other threads would wait for this one
            Err(error)
        }
    }
}

async fn offer(part: Part, lanes: u32) -> io::Result<Duration> {
    let Part { job, index, intervals } = part;
    let links = connect_all(&job, lanes).await;
    // Blocks the runtime: it has nothing else to do yet.
    job.connected.wait();
    let start = *job.start.get_or_init(|| Instant::now() + START_DELAY);
    let shard = Rc::new(Shard::new(job, index, start, &links));

    let mut helpers = vec![tokio_uring::spawn(watch(Rc::clone(&shard), intervals.clone()))];
    if let Some(schedule) = shard.job.schedule {
        let timer = Timer::new(schedule.interval().saturating_mul(shard.job.threads))?;
        helpers.push(tokio_uring::spawn(pace(Rc::clone(&shard), schedule, timer)));
    }
    let carriers: Vec<JoinHandle<()>> = links
        .into_iter()
        .enumerate()
        .map(|(lane, link)| tokio_uring::spawn(carry(Rc::clone(&shard), lane, link)))
        .collect();
    for carrier in carriers {
        finished(carrier).await;
    }
    // They have nothing in flight on the ring.
    helpers.iter().for_each(JoinHandle::abort);
    if let Some(failure) = shard.failure.take() {
        return Err(failure);
    }
    let mut tally = shard.tally.replace(Tally::new());
    let cpu = thread_cpu();
    tally.cpu = cpu.saturating_sub(shard.cpu_before.get().unwrap_or(cpu));
    // The receiver outlives all senders, unless it panicked, which is louder than this.
    let _ = intervals.send(Interval { second: None, tally });
    Ok(shard.end.get().saturating_duration_since(shard.record_from))
}

async fn finished<T>(task: JoinHandle<T>) -> T {
    task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Makes the first connections. Those that fail are tried again when a request is due on them.
async fn connect_all(job: &Arc<Job>, lanes: u32) -> Vec<Option<Link>> {
    let gate = Rc::new(Semaphore::new(CONNECTING_MAX));
    let attempts: Vec<JoinHandle<io::Result<Link>>> = (0..lanes)
        .map(|_| {
            let (job, gate) = (Arc::clone(job), Rc::clone(&gate));
            tokio_uring::spawn(async move { Link::connect(&job, &gate).await })
        })
        .collect();
    let mut links = Vec::with_capacity(attempts.len());
    for attempt in attempts {
        links.push(finished(attempt).await.ok());
    }
    links
}

impl Shard {
    fn new(job: Arc<Job>, index: u32, start: Instant, links: &[Option<Link>]) -> Shard {
        let lane = |link: &Option<Link>| Lane {
            stream: RefCell::new(link.as_ref().map(|link| Rc::clone(&link.stream))),
            ..Lane::default()
        };
        let record_from = start + job.warm_up;
        Shard {
            index,
            lanes: links.iter().map(lane).collect(),
            tally: RefCell::new(Tally::new()),
            connecting: Semaphore::new(CONNECTING_MAX),
            start,
            record_from,
            end: Cell::new(record_from + job.duration),
            cpu_before: Cell::new(None),
            failure: Cell::new(None),
            job,
        }
    }

    /// The number of a connection among those of all threads.
    fn connection(&self, lane: usize) -> u32 {
        let lane = u32::try_from(lane).expect("no more lanes than connections");
        self.index + lane * self.job.threads
    }

    /// Which of the job's requests a connection sends in a turn: each in its turn, and neighbours
    /// different ones, so that they alternate over all connections, too.
    pub(super) fn request(&self, lane: usize, turn: u64) -> usize {
        let turn = turn.wrapping_add(self.connection(lane).into());
        usize::try_from(turn % self.job.requests.len() as u64).expect("less than a length")
    }

    /// Waits until the connection has another request to send: `Some(Some(due))` at a constant
    /// rate, `Some(None)` in a closed loop, `None` when the run is over.
    pub(super) async fn next_due(&self, lane: usize, turn: u64) -> Option<Option<Instant>> {
        let Some(schedule) = self.job.schedule else {
            return (Instant::now() < self.end.get()).then_some(None);
        };
        let due = self.start.checked_add(schedule.due(self.connection(lane), turn))?;
        loop {
            let now = Instant::now();
            if now.max(due) >= self.end.get() {
                return None;
            }
            if due <= now {
                return Some(Some(due));
            }
            self.lanes[lane].wake.notified().await;
        }
    }

    /// Records what became of a request that was due at `due`, on a connection free at `free`, and
    /// sent at `sent`; returns the time now.
    pub(super) fn settle(
        &self,
        request: usize,
        (due, free, sent): (Instant, Instant, Instant),
        outcome: &Result<Received, Failure>,
    ) -> Instant {
        let now = Instant::now();
        if due < self.record_from {
            return now;
        }
        let tally = &mut *self.tally.borrow_mut();
        if self.job.keep == Keep::EveryRequest {
            tally.log.push(Entry {
                due: due.saturating_duration_since(self.record_from),
                latency: now.saturating_duration_since(due),
                status: outcome.as_ref().ok().map(|received| received.answer.status),
                request,
            });
        }
        let errors = &mut tally.errors;
        if self.job.schedule.is_some() {
            record(&mut tally.late, sent.saturating_duration_since(due.max(free)));
            if outcome.as_ref().is_ok_and(|received| received.answer.is_success()) {
                record(&mut tally.from_sent, now.saturating_duration_since(sent));
            }
        }
        match outcome {
            Ok(received) => {
                tally.bytes += received.bytes;
                if received.answer.is_success() {
                    record(&mut tally.times, now.saturating_duration_since(due));
                } else {
                    errors.status += 1;
                    *tally.statuses.entry(received.answer.status).or_default() += 1;
                }
            }
            Err(Failure::Connect) => errors.connect += 1,
            Err(Failure::Write) => errors.write += 1,
            Err(Failure::Read) => errors.read += 1,
            Err(Failure::Short) => errors.short += 1,
            Err(Failure::Malformed) => errors.malformed += 1,
            Err(Failure::Timeout) => errors.timeout += 1,
        }
        now
    }

    /// Counts the requests of a connection that were due but not sent when it had to stop.
    pub(super) fn count_unsent(&self, lane: usize, sent: u64) {
        let Some(schedule) = self.job.schedule else { return };
        let until = |moment: Instant| {
            let since_start = moment.saturating_duration_since(self.start);
            schedule.turns_before(self.connection(lane), since_start)
        };
        let due = until(self.end.get());
        self.tally.borrow_mut().unsent += due.saturating_sub(sent.max(until(self.record_from)));
    }

    fn stop(&self) {
        let now = Instant::now();
        if now < self.end.get() {
            self.end.set(now);
            self.lanes.iter().for_each(|lane| lane.wake.notify_one());
        }
    }

    /// Shuts connections down that have waited for their answers for too long.
    fn expire(&self, now: Instant) {
        for lane in &self.lanes {
            let expired = |since: Instant| now.saturating_duration_since(since) > self.job.timeout;
            if lane.waiting_since.get().is_some_and(expired) {
                lane.waiting_since.set(None);
                if let Some(stream) = &*lane.stream.borrow() {
                    // Fails when the peer was faster: then it has ended anyway.
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
        }
    }
}

/// Wakes each connection when a request is due on it; ends the run when it cannot.
async fn pace(shard: Rc<Shard>, schedule: Schedule, timer: Timer) {
    if let Err(failure) = wake_when_due(&shard, schedule, &timer).await {
        shard.failure.set(Some(failure));
        shard.stop();
    }
}

async fn wake_when_due(shard: &Shard, schedule: Schedule, timer: &Timer) -> io::Result<()> {
    for turn in 0.. {
        let mut waited = false;
        for (lane, state) in shard.lanes.iter().enumerate() {
            let due = shard.start.checked_add(schedule.due(shard.connection(lane), turn));
            let Some(due) = due.filter(|&due| due < shard.end.get()) else { return Ok(()) };
            waited |= timer.until(due).await?;
            state.wake.notify_one();
        }
        if !waited {
            // Behind the schedule: let the others run, who are all overdue.
            timer.park().await?;
        }
    }
    Ok(())
}

/// Looks after timeouts, the wish to stop and the reports, for as long as connections are at work.
async fn watch(shard: Rc<Shard>, intervals: mpsc::Sender<Interval>) {
    let mut second = 1;
    loop {
        let now = Instant::now();
        if shard.job.stop.load(Ordering::Relaxed) {
            shard.stop();
        }
        shard.expire(now);
        if shard.cpu_before.get().is_none() && now >= shard.record_from {
            shard.cpu_before.set(Some(thread_cpu()));
        }
        let report_at = shard.record_from + SECOND * second;
        if now >= report_at && report_at <= shard.end.get() {
            let tally = shard.tally.replace(Tally::new());
            let _ = intervals.send(Interval { second: Some(second.into()), tally });
            second += 1;
        }
        let boundaries = [shard.record_from, report_at].into_iter().filter(|&moment| moment > now);
        let next = boundaries.fold(now + WATCH_INTERVAL, Instant::min);
        tokio::time::sleep_until(next.into()).await;
    }
}

fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
