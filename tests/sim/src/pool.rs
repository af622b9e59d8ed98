//! The container of a function, seen from inside: its workers and what each is doing.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use engine::core::WorkerId;
use ipc::{CallId, LaneIndex, Outcome, Usage};
use reactor::clock::Nanos;

use crate::agenda::Epoch;
use crate::cpu::Done;

/// A worker says what its calls cost once they ran so long together, or after so many, as the real one
/// does.
const REPORT_RAN: Duration = Duration::from_millis(1);
const REPORT_CALLS: u32 = 32;

/// What a worker thread is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Thread {
    /// The launcher starts it.
    Starting,
    /// It sleeps on its doorbell.
    Idle,
    /// It serves a call.
    On(Run),
    /// Its result is being read.
    Held(CallId),
    /// It was told to leave.
    Retiring,
}

/// A call on its worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// Which.
    pub call: CallId,
    /// How far its function's program is done.
    pub phase: usize,
    /// What it does in that phase.
    pub stage: Stage,
    /// When it began, wake-up excluded; `None` before.
    pub begun: Option<Nanos>,
    /// Its internal calls that are not answered.
    pub children: Vec<CallId>,
    /// How the first of them ended that failed.
    pub failure: Option<Outcome>,
}

/// What a run does now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Between two phases.
    Stepping,
    /// It wakes up, for a call or for an answer.
    Waking,
    /// It computes.
    Computing,
    /// It sleeps.
    Sleeping,
    /// It waits for answers.
    Waiting,
}

impl Run {
    /// A call that a sleeping worker was woken for.
    #[must_use]
    pub fn woken(call: CallId) -> Run {
        let stage = Stage::Waking;
        Run { call, phase: 0, stage, begun: None, children: Vec::new(), failure: None }
    }

    /// A call that was found in the lane.
    #[must_use]
    pub fn found(call: CallId, now: Nanos) -> Run {
        Run { stage: Stage::Stepping, begun: Some(now), ..Run::woken(call) }
    }
}

/// How many workers are in each state, and how many calls wait.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Census {
    /// Calls in the queue.
    pub queued: u32,
    /// Calls in lanes behind others.
    pub pipelined: u32,
    /// See the states of a worker in `engine::core`.
    pub starting: u16,
    /// The same.
    pub idle: u16,
    /// The same.
    pub running: u16,
    /// The same.
    pub waiting: u16,
    /// The same.
    pub held: u16,
    /// The same.
    pub retiring: u16,
}

impl Census {
    fn of(&mut self, thread: &Thread) -> &mut u16 {
        match thread {
            Thread::Starting => &mut self.starting,
            Thread::Idle => &mut self.idle,
            Thread::On(run) if run.children.is_empty() => &mut self.running,
            Thread::On(_) => &mut self.waiting,
            Thread::Held(_) => &mut self.held,
            Thread::Retiring => &mut self.retiring,
        }
    }

    /// Workers of any state.
    #[must_use]
    pub fn workers(&self) -> u16 {
        self.starting + self.staying() + self.retiring
    }

    /// Workers that are there and not about to leave.
    #[must_use]
    pub fn staying(&self) -> u16 {
        self.idle + self.running + self.waiting + self.held
    }
}

/// What a worker has used since it last said so.
#[derive(Clone, Copy, Default, Debug)]
struct Meter {
    calls: u32,
    ran: Duration,
    cpu: Duration,
    delay: Duration,
}

#[derive(Debug, Default)]
struct Lane {
    thread: Option<Thread>,
    behind: VecDeque<CallId>,
    meter: Meter,
}

/// See the module's description.
#[derive(Debug)]
pub struct Pool {
    lanes: Vec<Lane>,
    census: Census,
    /// Whether the container is up.
    pub is_up: bool,
    /// Which life of the container this is.
    pub epoch: Epoch,
    /// When the launcher has started all the workers that it was asked for.
    pub launcher_free: Nanos,
    /// Until when the core may refrain from asking for workers: a failed spawn, a worker given up.
    pub paused_until: Nanos,
    /// Since when calls wait, all calls on workers do too, and there is room for more; and what the
    /// pool was like then, with the number of calls that had ended.
    pub stalled_since: Option<(Nanos, (Census, u64))>,
}

impl Pool {
    /// A container that is not up yet, with room for so many workers.
    #[must_use]
    pub fn new(lanes: u16) -> Pool {
        Pool {
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            census: Census::default(),
            is_up: false,
            epoch: Epoch::default(),
            launcher_free: Nanos(0),
            paused_until: Nanos(0),
            stalled_since: None,
        }
    }

    /// How many workers do what.
    #[must_use]
    pub fn census(&self) -> Census {
        self.census
    }

    /// What a worker is doing, if it is there.
    #[must_use]
    pub fn thread(&self, worker: WorkerId) -> Option<&Thread> {
        self.lanes.get(usize::from(worker.lane.0))?.thread.as_ref()
    }

    /// The call that a worker is on, if it is on one.
    #[must_use]
    pub fn run(&self, worker: WorkerId) -> Option<&Run> {
        match self.thread(worker)? {
            Thread::On(run) => Some(run),
            _ => None,
        }
    }

    /// Puts a worker in another state, and gives the one before.
    pub fn set(&mut self, worker: WorkerId, thread: Option<Thread>) -> Option<Thread> {
        let lane = &mut self.lanes[usize::from(worker.lane.0)];
        if thread.is_none() {
            lane.meter = Meter::default();
        }
        if let Some(thread) = &thread {
            *self.census.of(thread) += 1;
        }
        let before = std::mem::replace(&mut lane.thread, thread);
        if let Some(before) = &before {
            *self.census.of(before) -= 1;
        }
        before
    }

    /// Changes the call that a worker is on, if it is on one.
    pub fn change<T>(&mut self, worker: WorkerId, change: impl FnOnce(&mut Run) -> T) -> Option<T> {
        let lane = &mut self.lanes[usize::from(worker.lane.0)];
        let thread = lane.thread.as_mut()?;
        *self.census.of(thread) -= 1;
        let result = match thread {
            Thread::On(run) => Some(change(run)),
            _ => None,
        };
        *self.census.of(thread) += 1;
        result
    }

    /// A call waits in the queue, or does not any more.
    pub fn queue(&mut self, change: i32) {
        self.census.queued = self.census.queued.checked_add_signed(change).expect("counted");
    }

    /// Puts a call behind the one that a worker is on; how many are there then.
    pub fn push_behind(&mut self, worker: WorkerId, call: CallId) -> usize {
        self.census.pipelined += 1;
        let behind = &mut self.lanes[usize::from(worker.lane.0)].behind;
        behind.push_back(call);
        behind.len()
    }

    /// The call that a worker begins next.
    pub fn pop_behind(&mut self, worker: WorkerId) -> Option<CallId> {
        let call = self.lanes[usize::from(worker.lane.0)].behind.pop_front()?;
        self.census.pipelined -= 1;
        Some(call)
    }

    /// The last call that waits in a lane, which is declined first.
    pub fn decline(&mut self, worker: WorkerId) -> Option<CallId> {
        let call = self.lanes[usize::from(worker.lane.0)].behind.pop_back()?;
        self.census.pipelined -= 1;
        Some(call)
    }

    /// Whether nothing waits in a lane.
    #[must_use]
    pub fn is_alone(&self, worker: WorkerId) -> bool {
        self.lanes[usize::from(worker.lane.0)].behind.is_empty()
    }

    /// A worker has used the CPU.
    pub fn charge(&mut self, done: Done) {
        let meter = &mut self.lanes[usize::from(done.worker.lane.0)].meter;
        meter.cpu += done.cpu;
        meter.delay += done.delay;
    }

    /// A worker has completed a call that took so long: what it says of its use.
    pub fn usage(&mut self, worker: WorkerId, ran: Duration) -> Option<Usage> {
        let meter = &mut self.lanes[usize::from(worker.lane.0)].meter;
        meter.calls += 1;
        meter.ran += ran;
        if meter.ran < REPORT_RAN && meter.calls < REPORT_CALLS {
            return None;
        }
        let Meter { calls, ran, cpu, delay } = std::mem::take(meter);
        let a_call =
            |time: Duration| u32::try_from(time.as_nanos() / u128::from(calls)).unwrap_or(u32::MAX);
        let idle = ran.saturating_sub(cpu).saturating_sub(delay);
        let (cpu_ns, idle_ns) = (a_call(cpu), a_call(idle));
        Some(Usage { calls: NonZeroU32::new(calls)?, cpu_ns, idle_ns })
    }

    /// All lanes.
    pub fn lanes(&self) -> impl Iterator<Item = LaneIndex> + use<> {
        let count = u16::try_from(self.lanes.len()).expect("lanes are few");
        (0..count).map(LaneIndex)
    }
}
