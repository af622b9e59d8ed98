//! One function of a shard: its queue, its workers and what it counts.
//!
//! Invariants: `census` counts the lanes by state; `idle` holds exactly the idle lanes, the most
//! recently used last; `absent` holds exactly the absent ones. All three change in `transition` only.

use std::sync::Arc;
use std::time::Duration;

use ipc::{CallId, LANES_MAX, LaneIndex, Usage};
use reactor::clock::Nanos;
use reactor::wheel::Timer;

use super::call::{CallState, List};
use super::estimate::{Load, Sample};
use super::event::{FunctionId, Violation, WorkerId};
use super::limit::{Limit, Pool};
use super::nesting::Nesting;
use super::pipeline::{Pace, Pipelines};
use super::quota::Quota;
use super::relief::can_move;
use super::snapshot::{Counters, Snapshot, Times};
use super::spec::FunctionSpec;
use super::worker::{Mismatch, WorkerEvent, WorkerState};

/// Workers that stay idle this long are retired: long against the gaps within a burst, short against
/// the memory they hold.
pub(super) const TRIM_WINDOW: Duration = Duration::from_secs(10);

/// After a failed spawn: the launcher is out of threads or memory, and asking again at once would
/// not help it.
pub(super) const SPAWN_PAUSE: Duration = Duration::from_secs(1);
/// After the container had no room for a worker: the other shards are asked again for one then.
pub(super) const ROOM_PAUSE: Duration = Duration::from_millis(50);
/// A worker that was to start or to leave is heard of by then, whatever its function's time is: a
/// library may have to load much, on a machine that has other things to do.
pub(super) const HEARING_TIME_MIN: Duration = Duration::from_secs(10);
/// After a worker was given up to another shard: time for that shard to take the place, so that two
/// shards that share one worker take turns of this length.
pub(super) const YIELD_PAUSE: Duration = Duration::from_millis(10);

/// A function's container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Container {
    Down,
    Up,
    /// Up, but a spawn failed; the timer ends the pause.
    UpPaused(Timer),
    /// Up, but this shard has agreed to part with it: calls wait until it is given back, or until
    /// it is down and the next one up.
    Parted,
}

/// Where a call goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// To an idle worker.
    Idle(LaneIndex),
    /// Into a lane, behind what its worker runs.
    Behind(LaneIndex),
}

/// How far the idle stack has been emptied since the window began.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrimWindow {
    pub timer: Timer,
    pub unused: u16,
}

/// How many lanes are in each state.
#[derive(Clone, Copy, Default, Debug)]
struct Census {
    absent: u16,
    starting: u16,
    idle: u16,
    running: u16,
    waiting: u16,
    held: u16,
    retiring: u16,
}

/// A function's load in figures, as of half a millisecond ago at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub ran_ns: u64,
    pub processing_ns: Option<u64>,
    hint_milli: u64,
    rate_milli: u64,
    silent_at: Nanos,
}

#[derive(Debug)]
pub(super) struct Function {
    pub id: FunctionId,
    pub spec: FunctionSpec,
    pub limit: Limit,
    /// What came and what it took of late.
    pub load: Load,
    /// What that came to when it was last looked at.
    pub figures: Figures,
    pub quota: Option<Arc<Quota>>,
    /// Calls that ended on a worker.
    pub ended: u64,
    /// Moving average of the calls on workers while others wait.
    pub busy: Option<f64>,
    /// Looks whether its calls have stalled, and `ended` when that was set.
    pub stall: Option<(Timer, u64)>,
    pub queue: List,
    pub counters: Counters,
    pub times: Times,
    pub container: Container,
    /// Its containers keep dying: when the next one is started.
    pub barred: Option<Nanos>,
    pub trim: Option<TrimWindow>,
    /// Whether another shard is to get the next worker that is idle.
    pub yield_owed: bool,
    /// How long its calls run.
    pub pace: Pace,
    /// Calls that wait behind others in its lanes.
    pub pipelines: Pipelines,
    /// How its calls lie below each other.
    pub nesting: Nesting,
    /// Whether calls may run on another shard, and how many stay although they would be better off there.
    pub can_move: bool,
    pub stays_owed: u16,
    /// Whether a look at the other shards is due.
    pub looks: bool,
    /// What a call takes of this core, in ns.
    pub work_ns: u64,
    /// By lane: when its worker was last asked to start or to leave.
    pub asked: Vec<Nanos>,
    /// Looks whether those that were asked have been heard of.
    pub listens: Option<Timer>,
    lanes: Vec<WorkerState>,
    idle: Vec<LaneIndex>,
    absent: Vec<LaneIndex>,
    census: Census,
}

impl Function {
    pub fn new(id: FunctionId, spec: FunctionSpec) -> Function {
        let lanes = spec.max_workers;
        assert!((1..=LANES_MAX).contains(&lanes), "max_workers {lanes} is not 1 to {LANES_MAX}");
        Function {
            id,
            spec,
            limit: Limit::new(spec.policy, spec.min_workers, lanes, spec.cores),
            load: Load::new(),
            figures: Figures {
                ran_ns: 0,
                processing_ns: None,
                hint_milli: 0,
                rate_milli: 0,
                silent_at: Nanos(0),
            },
            quota: None,
            ended: 0,
            busy: None,
            stall: None,
            queue: List::default(),
            counters: Counters::default(),
            times: Times::default(),
            container: Container::Down,
            barred: None,
            trim: None,
            yield_owed: false,
            pace: Pace::default(),
            pipelines: Pipelines::new(lanes, spec.pipeline_max),
            nesting: Nesting::new(),
            can_move: can_move(&spec),
            stays_owed: 0,
            looks: false,
            work_ns: 0,
            asked: vec![Nanos(0); lanes.into()],
            listens: None,
            lanes: vec![WorkerState::Absent; lanes.into()],
            idle: Vec::with_capacity(lanes.into()),
            // Low lanes come first: they share pages of the channel with other low lanes.
            absent: (0..lanes).rev().map(LaneIndex).collect(),
            census: Census { absent: lanes, ..Census::default() },
        }
    }

    /// What the worker in a lane is doing; a lane outside the table is the container's lie.
    pub fn worker(&self, lane: LaneIndex) -> Result<WorkerState, Violation> {
        let state = self.lanes.get(usize::from(lane.0)).copied();
        state.ok_or(Violation::NoSuchLane { worker: self.worker_id(lane) })
    }

    pub fn worker_id(&self, lane: LaneIndex) -> WorkerId {
        WorkerId { function: self.id, lane }
    }

    /// An event that the container reports: it may be a lie.
    pub fn report(&mut self, lane: LaneIndex, event: WorkerEvent) -> Result<(), Violation> {
        let state = self.worker(lane)?;
        let worker = self.worker_id(lane);
        match state.on(event) {
            Ok(next) => {
                self.transition(lane, next);
                Ok(())
            }
            Err(Mismatch::State) => {
                Err(Violation::Unexpected { worker, state: state.name(), event: event.name() })
            }
            Err(Mismatch::Call { expected }) => {
                let (WorkerEvent::Complete(got) | WorkerEvent::Release(got)) = event else {
                    unreachable!("only these name a call that can be another")
                };
                Err(Violation::WrongCall { worker, expected, got })
            }
        }
    }

    /// An event that the core itself decided on, whose precondition it has checked.
    pub fn apply(&mut self, lane: LaneIndex, event: WorkerEvent) {
        let state = self.lanes[usize::from(lane.0)];
        match state.on(event) {
            Ok(next) => self.transition(lane, next),
            Err(_) => unreachable!("the core applied {event:?} to a worker that is {state:?}"),
        }
    }

    /// Where one more call may go now.
    pub fn place(&self) -> Option<Place> {
        if self.container == Container::Parted {
            return None;
        }
        if let Some(lane) = self.pipelines.open()
            && self.pace.is_short()
            && !self.yield_owed
            && matches!(self.lanes[usize::from(lane.0)], WorkerState::Running { .. })
        {
            return Some(Place::Behind(lane));
        }
        // The most recently idle worker: its caches are warm, and the ones below it stay unused and
        // can be trimmed.
        let lane = *self.idle.last()?;
        self.limit.admits(self.census.running, self.census.waiting).then_some(Place::Idle(lane))
    }

    /// Puts `call` there.
    pub fn dispatch(&mut self, place: Place, call: CallId) -> CallState {
        match place {
            Place::Idle(lane) => {
                self.apply(lane, WorkerEvent::Dispatch(call));
                self.pipelines.lead(lane);
                CallState::Running(lane)
            }
            Place::Behind(lane) => {
                self.pipelines.push(lane, call);
                CallState::Pipelined(lane)
            }
        }
    }

    /// How long a worker may take that was asked to start or to leave.
    pub fn hearing_time(&self) -> Duration {
        (self.spec.timeout + self.spec.grace).max(HEARING_TIME_MIN)
    }

    /// The least recently idle worker, to be retired.
    pub fn coldest(&self) -> Option<LaneIndex> {
        self.idle.first().copied()
    }

    /// A lane for a new worker.
    pub fn vacant(&self) -> Option<LaneIndex> {
        self.absent.last().copied()
    }

    /// Would a new call start at once?
    pub fn starts(&self, nest: u16) -> bool {
        self.queue.is_empty() && self.place().is_some() && self.may_begin(nest)
    }

    /// Would a new call neither start at once nor find room in the queue?
    pub fn is_full(&self, nest: u16) -> bool {
        !self.starts(nest) && self.queue.size() >= self.spec.queue_max
    }

    /// Whether no call waits, runs, or has a result that is being read.
    pub fn is_at_rest(&self) -> bool {
        let Census { running, waiting, held, .. } = self.census;
        self.queue.is_empty() && self.pipelines.calls() == 0 && running + waiting + held == 0
    }

    /// All lanes, to walk them.
    pub fn lanes(&self) -> impl DoubleEndedIterator<Item = LaneIndex> + use<> {
        (0..self.spec.max_workers).map(LaneIndex)
    }

    pub fn pool(&self) -> Pool {
        Pool {
            workers: self.spec.max_workers - self.census.absent,
            starting: self.census.starting,
            idle: self.census.idle,
            running: self.census.running,
            waiting: self.census.waiting,
            queued: self.queue.size(),
        }
    }

    /// Whether a worker was asked to start or to leave and has not been heard of.
    pub fn is_owed_word(&self) -> bool {
        self.census.starting + self.census.retiring > 0
    }

    /// Workers whose result is being read.
    pub fn held(&self) -> u16 {
        self.census.held
    }

    /// CPU time that a call takes, in ns; 0 if nothing is known.
    pub fn cost_ns(&self) -> u64 {
        self.load.cpu_ns().unwrap_or(0)
    }

    /// A call came, to be taken or not.
    pub fn arrived(&mut self, now: Nanos) {
        self.counters.arrivals += 1;
        self.came(now);
    }

    /// The same of a call that another shard counts.
    pub fn came(&mut self, now: Nanos) {
        self.load.arrived(now);
        self.limit.arrived(now);
        self.refresh(now);
    }

    /// Has the limit follow the load, unless it has just done so.
    pub fn refresh(&mut self, now: Nanos) {
        if !self.limit.is_fresh(now) {
            self.load.adjust();
            self.limit.refresh(now, &self.load);
            self.figures = Figures {
                ran_ns: self.load.ran_ns().unwrap_or(0),
                processing_ns: self.load.processing_ns(),
                hint_milli: milli(self.limit.hint()),
                rate_milli: milli(self.load.rate(now)),
                silent_at: self.load.silent_at(),
            };
        }
    }

    /// A call ended on a worker, having done its work if there is a sample.
    pub fn completed(&mut self, now: Nanos, sample: Option<Sample>, usage: Option<Usage>) {
        self.ended += 1;
        self.record_busy();
        self.load.completed(now, sample, usage);
        self.weigh(usage);
        if let Some(sample) = sample {
            let processing = sample.processing_ns();
            self.limit.completed(processing);
            self.times.processing.record(processing);
        }
        self.refresh(now);
    }

    /// Workers of any state that have not been told to leave.
    pub fn staying(&self) -> u16 {
        self.pool().workers - self.census.retiring
    }

    /// How many of `unused` idle workers the limit lets go.
    pub fn surplus(&self, unused: u16) -> u16 {
        self.limit.trim(self.staying(), unused.min(self.census.idle))
    }

    /// Workers that are idle now.
    pub fn idle(&self) -> u16 {
        self.census.idle
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            queued: self.queue.size(),
            pipelined: self.pipelines.calls(),
            running: self.census.running,
            waiting: self.census.waiting,
            idle: self.census.idle,
            starting: self.census.starting,
            held: self.census.held,
            retiring: self.census.retiring,
            hint_milli: self.figures.hint_milli,
            limit: self.limit.calls(),
            processing_ns: self.figures.processing_ns.unwrap_or(0),
            rate_milli: self.figures.rate_milli,
            silent_at: self.figures.silent_at,
            counters: self.counters,
        }
    }

    fn transition(&mut self, lane: LaneIndex, next: WorkerState) {
        let state = std::mem::replace(&mut self.lanes[usize::from(lane.0)], next);
        *self.census.of(state) -= 1;
        *self.census.of(next) += 1;
        match state {
            WorkerState::Absent if next != state => leave(&mut self.absent, lane),
            WorkerState::Idle => leave(&mut self.idle, lane),
            _ => {}
        }
        match next {
            WorkerState::Absent if next != state => self.absent.push(lane),
            WorkerState::Idle => self.idle.push(lane),
            _ => {}
        }
        if let Some(window) = &mut self.trim {
            window.unused = window.unused.min(self.census.idle);
        }
    }
}

impl Census {
    fn of(&mut self, state: WorkerState) -> &mut u16 {
        match state {
            WorkerState::Absent => &mut self.absent,
            WorkerState::Starting => &mut self.starting,
            WorkerState::Idle => &mut self.idle,
            WorkerState::Running { .. } => &mut self.running,
            WorkerState::Waiting { .. } => &mut self.waiting,
            WorkerState::Held { .. } => &mut self.held,
            WorkerState::Retiring => &mut self.retiring,
        }
    }
}

fn milli(value: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative")]
    let milli = (value * 1e3).round() as u64;
    milli
}

/// Takes a lane off a stack; nearly always it is on top.
fn leave(stack: &mut Vec<LaneIndex>, lane: LaneIndex) {
    if let Some(position) = stack.iter().rposition(|&other| other == lane) {
        stack.remove(position);
    }
}
