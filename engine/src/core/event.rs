//! What the core is told and what it owes: events, effects, replies, refusals and violations.
//!
//! Events and effects are plain values without buffers or descriptors, so that a day of traffic can
//! be replayed in a test. Payloads stay with whoever performs the effects, keyed by [`CallId`].

use std::time::Duration;

use ipc::{CallId, LaneIndex, Outcome, Usage};
use reactor::clock::Nanos;

/// A deployed function; dense, in the order of `add_function`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FunctionId(pub u32);

impl FunctionId {
    /// The function at this place of the deployment.
    ///
    /// # Panics
    /// When there are more functions than a `u32` counts.
    #[must_use]
    pub fn from_index(index: usize) -> FunctionId {
        FunctionId(u32::try_from(index).expect("functions are few"))
    }

    /// Its place in the deployment.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A worker thread: one lane of its function's channel. Unique within a shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WorkerId {
    /// The function whose container the worker lives in.
    pub function: FunctionId,
    /// The worker's lane in the channel between this shard and that container.
    pub lane: LaneIndex,
}

/// The front end's key for whoever waits for an external call. Opaque here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Caller(pub u64);

/// Who asked for a call, and so who is owed its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A front end.
    External(Caller),
    /// A function, while it was serving `parent`.
    Internal {
        /// The call that `worker` was serving when it asked.
        parent: CallId,
        /// The worker that asked; it stays on `parent` for as long as an answer is sent to it.
        worker: WorkerId,
        /// The worker's own name for this call; unique among its unanswered ones.
        token: u32,
    },
    /// Another shard, where the call lives on.
    Shard {
        /// Which.
        shard: u16,
        /// Its id there.
        call: CallId,
    },
}

/// Who does not wait any more for a call that is on another shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaver {
    /// The front end: a worker on the call is told.
    Caller,
    /// A function that has ended: a worker on the call goes on.
    Parent,
}

/// What happened. The first five come from a container or its launcher and may be lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A spawned worker runs and waits in its lane.
    WorkerStarted {
        /// Which.
        worker: WorkerId,
    },
    /// A worker could not be spawned; its lane is free again.
    WorkerFailed {
        /// Which.
        worker: WorkerId,
    },
    /// A worker could not be spawned, for the container has as many as it may have, on all shards;
    /// its lane is free again. The other shards have been told.
    NoRoom {
        /// Which.
        worker: WorkerId,
    },
    /// A worker finished its call.
    Completed {
        /// Which worker.
        worker: WorkerId,
        /// The call, as the worker names it.
        call: CallId,
        /// How it went, as the worker says.
        outcome: Outcome,
        /// How long it ran, in ns, as the worker says.
        ran_ns: u32,
        /// What its calls cost lately, if the worker says so.
        usage: Option<Usage>,
    },
    /// A worker will not begin a call that waits behind another in its lane. Its payload is at hand
    /// again.
    Declined {
        /// Which worker.
        worker: WorkerId,
        /// The call, as the worker names it.
        call: CallId,
    },
    /// A worker that was told to retire has left; its lane is free again.
    WorkerRetired {
        /// Which.
        worker: WorkerId,
    },
    /// The function's container can spawn workers.
    ContainerUp {
        /// Whose container.
        function: FunctionId,
    },
    /// The function's container is gone or has been closed, and all its lanes with it.
    ContainerDown {
        /// Whose container.
        function: FunctionId,
    },
    /// The function's containers keep dying: none is started until then. Told when it has none;
    /// [`Event::ContainerUp`] ends it.
    Barred {
        /// Whose containers.
        function: FunctionId,
        /// When the next one is started.
        until: Nanos,
    },
    /// The answer of `call` has been read out of the worker's memory: the worker may get its next
    /// call. Owed exactly once for every answer with [`Reply::Completed`]; harmless when late.
    Released {
        /// The worker that completed the call.
        worker: WorkerId,
        /// The call whose result was read.
        call: CallId,
    },
    /// Nobody waits for this external call any more. Harmless when it crosses the answer.
    CallerGone {
        /// Which call.
        call: CallId,
    },
    /// Another shard wants a worker of this function, and the container has as many as it may have:
    /// the next one that is idle here leaves, if this shard has more than its share or no use for it.
    YieldWorker {
        /// Whose worker.
        function: FunctionId,
        /// Workers that the other shard has.
        has: u16,
    },
    /// A worker of this function left on another shard: the container has room for one more.
    WorkerFreed {
        /// Whose worker.
        function: FunctionId,
    },
    /// Another shard answers a call that moved there. Harmless when nobody waits for it any more.
    Returned {
        /// Which call.
        call: CallId,
        /// With what; [`Reply::Returned`] if it was completed.
        reply: Reply,
    },
    /// Another shard does not take a call that moved there; its payload is at hand again. Harmless when
    /// nobody waits for it any more.
    Bounced {
        /// Which call.
        call: CallId,
    },
    /// Nobody waits for a foreign call any more. Harmless when it crosses the answer.
    Recalled {
        /// The shard that it came from.
        shard: u16,
        /// Its id there.
        call: CallId,
        /// Who has left.
        leaver: Leaver,
    },
    /// Time has passed; owed no later than `next_timer`.
    Tick,
    /// Stop admitting external calls. What was admitted, and its internal calls, go on.
    Drain,
}

/// What a worker is late with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overdue {
    /// The end of a call.
    Call,
    /// Its own start or end, which it was asked for.
    Worker,
}

/// What is owed to the world, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Give the call to the worker. Its payload moves into the worker's arena.
    Dispatch {
        /// To whom.
        worker: WorkerId,
        /// Which call.
        call: CallId,
    },
    /// Answer whoever asked. Exactly one for each call, unless whoever asked is gone.
    Answer {
        /// Which call.
        call: CallId,
        /// Whom to answer.
        origin: Origin,
        /// With what.
        reply: Reply,
    },
    /// Open the lane and ask the launcher for a worker in it.
    SpawnWorker {
        /// Which.
        worker: WorkerId,
    },
    /// Tell an idle worker to leave.
    RetireWorker {
        /// Which.
        worker: WorkerId,
    },
    /// Tell a worker that nobody waits for its call any more.
    CancelWorker {
        /// Which worker.
        worker: WorkerId,
        /// The call it is on.
        call: CallId,
    },
    /// End the function's container: a worker has had its time, and more.
    ReplaceContainer {
        /// Which worker.
        worker: WorkerId,
        /// With what it is late.
        overdue: Overdue,
    },
    /// Send the call to another shard, payload included.
    Move {
        /// Which call.
        call: CallId,
        /// Where to.
        shard: u16,
        /// What it is expected to cost there, in ns.
        cost_ns: u64,
    },
    /// Tell another shard that nobody waits any more for a call that moved there.
    Recall {
        /// Which call.
        call: CallId,
        /// Where it is.
        shard: u16,
        /// Who has left.
        leaver: Leaver,
    },
    /// Send a foreign call back to where it came from, payload included.
    Bounce {
        /// Which call.
        call: CallId,
        /// Always a shard.
        origin: Origin,
    },
    /// The payload of a call that will not be dispatched (again) is not needed any more. Every call
    /// with an id ends in exactly one of this, a `Dispatch` that is not declined, a `Move` that is not
    /// bounced and a `Bounce`; it precedes the call's `Answer`.
    DropPayload {
        /// Which call.
        call: CallId,
    },
}

/// An answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// A worker completed the call; the result is in its memory until `Event::Released`.
    Completed {
        /// Which worker.
        worker: WorkerId,
        /// How it went, as the worker says.
        outcome: Outcome,
    },
    /// Another shard's worker completed the call; the result came along with the event.
    Returned {
        /// How it went, as the worker says.
        outcome: Outcome,
    },
    /// The container died that the call was in.
    Died {
        /// Whose container.
        function: FunctionId,
    },
    /// The runtime failed the call, for the reasons of a [`Refusal`].
    Failed {
        /// The kind of failure.
        outcome: Outcome,
        /// For people.
        message: &'static str,
        /// When trying again makes sense.
        retry_after_s: Option<u32>,
    },
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Reply {
        let Refusal { outcome, message, retry_after_s } = refusal;
        Reply::Failed { outcome, message, retry_after_s }
    }
}

impl Reply {
    /// The kind of success or failure.
    pub fn outcome(self) -> Outcome {
        match self {
            Reply::Completed { outcome, .. }
            | Reply::Returned { outcome }
            | Reply::Failed { outcome, .. } => outcome,
            Reply::Died { .. } => Outcome::ContainerDied,
        }
    }
}

/// An overload seldom lasts longer, whatever the queue looks like now. In seconds.
const RETRY_AFTER_MAX: u32 = 60;

/// Why the runtime fails a call or does not take it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The kind of failure.
    pub outcome: Outcome,
    /// For people.
    pub message: &'static str,
    /// When trying again makes sense.
    pub retry_after_s: Option<u32>,
}

impl Refusal {
    pub(super) const QUEUE_FULL: Refusal =
        Refusal::retry(Outcome::Overloaded, "the function's queue is full");
    pub(super) const QUEUE_SLOW: Refusal = Refusal::retry(
        Outcome::Overloaded,
        "the call would wait longer for a worker than its deadline or queue_wait_max allows",
    );
    pub(super) const CONCURRENCY_LIMIT: Refusal =
        Refusal::retry(Outcome::LimitReached, "the function's concurrency_limit is reached");
    pub(super) const RATE_LIMIT: Refusal =
        Refusal::retry(Outcome::LimitReached, "the function's rate_limit is reached");
    pub(super) const DEADLOCK: Refusal = Refusal::plain(
        Outcome::Deadlock,
        "every worker of the function waits for calls that wait for this one; \
         a larger max_workers gives them room",
    );
    pub(crate) const CALLS_FULL: Refusal =
        Refusal::retry(Outcome::Overloaded, "too many calls are in progress on this engine");
    pub(crate) const DRAINING: Refusal =
        Refusal::retry(Outcome::Unavailable, "the engine is shutting down");
    pub(crate) const UNKNOWN_FUNCTION: Refusal =
        Refusal::plain(Outcome::NotFound, "no function of that name is deployed");
    pub(super) const TOO_DEEP: Refusal =
        Refusal::plain(Outcome::TooDeep, "the chain of calls is too deep");
    pub(crate) const UNFIT_REQUEST: Refusal = Refusal::plain(
        Outcome::BadRequest,
        "the request's headers are too many or too large for an envelope, or hold control characters",
    );
    pub(super) const DEADLINE_PASSED: Refusal =
        Refusal::plain(Outcome::DeadlineExceeded, "the call's deadline has passed");
    pub(crate) const CONTAINER_DIED: Refusal =
        Refusal::plain(Outcome::ContainerDied, "the function's container died during the call");
    pub(super) const BREAKER_OPEN: Refusal = Refusal::retry(
        Outcome::BreakerOpen,
        "the function's containers keep dying: none is started for a while",
    );

    const fn plain(outcome: Outcome, message: &'static str) -> Refusal {
        Refusal { outcome, message, retry_after_s: None }
    }

    /// The same, to be tried again after `wait`, rounded up to seconds.
    pub(super) fn retried_after(self, wait: Duration) -> Refusal {
        let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        Refusal { retry_after_s: Some(seconds.min(RETRY_AFTER_MAX)), ..self }
    }

    /// One second: a queue of short calls has long emptied by then, and clients do not herd back
    /// within the same instant.
    const fn retry(outcome: Outcome, message: &'static str) -> Refusal {
        Refusal { outcome, message, retry_after_s: Some(1) }
    }
}

/// What a container did that no correct container does. The core has changed nothing; whoever gets
/// this closes the container and reports [`Event::ContainerDown`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// A message in a lane that the channel does not have.
    #[error("lane {} of function {} does not exist", worker.lane.0, worker.function.0)]
    NoSuchLane {
        /// As named.
        worker: WorkerId,
    },
    /// A message that a worker in this state cannot send.
    #[error("a worker that is {state} cannot say that it {event}")]
    Unexpected {
        /// Who sent it.
        worker: WorkerId,
        /// What the worker was doing.
        state: &'static str,
        /// What it claimed.
        event: &'static str,
    },
    /// The completion of a call that the worker is not on.
    #[error("the worker is on call {:#x} and completed {:#x}", expected.0, got.0)]
    WrongCall {
        /// Who sent it.
        worker: WorkerId,
        /// The call it was given.
        expected: CallId,
        /// The call it named.
        got: CallId,
    },
    /// A call declined that does not wait in the lane.
    #[error("call {:#x} does not wait in the lane that declines it", got.0)]
    NotPipelined {
        /// Who sent it.
        worker: WorkerId,
        /// The call it named.
        got: CallId,
    },
    /// An internal call from a worker that serves none.
    #[error("a worker that is {state} made a call")]
    NotOnCall {
        /// Who sent it.
        worker: WorkerId,
        /// What the worker was doing.
        state: &'static str,
    },
    /// An internal call under the token of one that is not answered yet.
    #[error("token {token} is in use by an unanswered call")]
    TokenInUse {
        /// Who sent it.
        worker: WorkerId,
        /// The token.
        token: u32,
    },
    /// More unanswered internal calls than a lane may have.
    #[error("more than {max} unanswered calls from one worker")]
    TooManyOutstanding {
        /// Who sent it.
        worker: WorkerId,
        /// The bound.
        max: u32,
    },
}
