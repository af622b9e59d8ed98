//! Mail between the supervisor thread and the shards: rare control messages, never a call.

use std::sync::Arc;

use reactor::clock::Nanos;
pub use reactor::mailbox::{Mailbox, Post, mailbox};

use crate::container::{Cause, Change, Container};
use crate::core::FunctionId;

/// What a shard is told.
#[derive(Debug)]
pub enum ToShard {
    /// A container answered its handshake and takes channels and workers.
    ContainerUp {
        /// The function whose container it is.
        function: FunctionId,
        /// The running container.
        container: Arc<Container>,
    },
    /// A function, or the next version of one, has this place from now on. No name leads to it yet.
    Deploy {
        /// Its place.
        function: FunctionId,
        /// What it is on this shard.
        deployed: Box<crate::io::Function>,
    },
    /// Calls of this name go to that function from now on, or nowhere: answer
    /// [`ToSupervisor::Routed`]. Calls that the former one has are ended by it.
    Route {
        /// The name.
        name: Arc<str>,
        /// Where it leads; `None`: the function is removed.
        to: Option<FunctionId>,
    },
    /// No name leads to this function any more and its container is down: answer
    /// [`ToSupervisor::Left`].
    Remove {
        /// The function.
        function: FunctionId,
    },
    /// A container is gone, with everything that was in flight inside it.
    ContainerDown {
        /// The function whose container it was.
        function: FunctionId,
        /// Which of its containers: a shard that already knows ignores the news.
        generation: u32,
        /// Why, for the calls that were in it.
        cause: Arc<Cause>,
    },
    /// A function's containers keep dying: none is started for a while, and calls are refused until
    /// [`ToShard::ContainerUp`].
    Barred {
        /// The function.
        function: FunctionId,
        /// When the next one is started.
        until: Nanos,
    },
    /// A container seems idle and is to be stopped: part with it and say
    /// [`ToSupervisor::Parted`], or say [`ToSupervisor::Kept`]. [`ToShard::ContainerDown`] or, if it
    /// is given back, [`ToShard::ContainerUp`] follows.
    Part {
        /// The function whose container it is.
        function: FunctionId,
        /// Which of its containers.
        generation: u32,
    },
    /// The launcher could not start a worker that this shard asked for.
    WorkerFailed {
        /// The function.
        function: FunctionId,
        /// Which of its containers.
        generation: u32,
        /// The lane that stays without a worker.
        lane: ipc::LaneIndex,
        /// Why, as the launcher says.
        message: String,
    },
    /// Another shard wants a worker of this function while the container has all it may have:
    /// give one up when one is idle.
    YieldWorker {
        /// The function.
        function: FunctionId,
        /// Workers that the other shard has.
        has: u16,
    },
    /// A worker of this function went away somewhere: there is room for one again.
    WorkerFreed {
        /// The function.
        function: FunctionId,
    },
    /// Accept nothing new, finish what was accepted, then report [`ToSupervisor::Drained`].
    Drain,
    /// End the thread.
    Stop,
}

/// What the supervisor is told.
#[derive(Debug)]
pub enum ToSupervisor {
    /// A shard found that a container cannot go on: end it.
    Condemn {
        /// The function whose container it is.
        function: FunctionId,
        /// Which of its containers.
        generation: u32,
        /// What it did.
        cause: Arc<Cause>,
    },
    /// The shard has no call for a container that it was asked to part with; calls that come wait.
    Parted {
        /// The function whose container it is.
        function: FunctionId,
        /// Which of its containers.
        generation: u32,
    },
    /// A call on the shard needs a container that it was asked to part with.
    Kept {
        /// The function whose container it is.
        function: FunctionId,
        /// Which of its containers.
        generation: u32,
    },
    /// A call waits for a container that the shard does not have. Said once until one is up.
    Wanted {
        /// The function.
        function: FunctionId,
    },
    /// The first worker of a function that was deployed has started.
    Warm {
        /// The function.
        function: FunctionId,
    },
    /// A shard sends calls where [`ToShard::Route`] said.
    Routed {
        /// The name.
        name: Arc<str>,
    },
    /// What a shard says to [`ToShard::Remove`].
    Left {
        /// The function.
        function: FunctionId,
        /// Whether no call of it is there any more: none can come, so it stays so.
        empty: bool,
    },
    /// Stop as at a signal.
    Drain,
    /// Somebody wants a change of what is served.
    Change(Change),
    /// A draining shard has nothing left to answer.
    Drained {
        /// Which shard.
        shard: u16,
    },
    /// A shard's loop ended with an error: the process must end too.
    ShardFailed {
        /// Which shard.
        shard: u16,
        /// Why.
        reason: String,
    },
}
