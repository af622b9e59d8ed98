//! The pure core of a shard: which call goes to which worker, and what everybody is owed.
//!
//! No descriptor, clock, thread or buffer. Whoever drives it tells it what happened and the time,
//! and performs the effects it appends; the same events give the same effects, always. In steady
//! state it allocates nothing.
//!
//! | file          | what                                                            |
//! |---------------|-----------------------------------------------------------------|
//! | `event.rs`    | what the core is told, what it owes, whom it blames             |
//! | `core.rs`     | the steps of a call: dispatch, completion, deadline             |
//! | `admission.rs`| the first step: a call is taken or refused                      |
//! | `pool.rs`     | the steps of a pool: containers, growth, trimming               |
//! | `call.rs`     | the table of calls, their queues and families                   |
//! | `worker.rs`   | the states of a worker, every transition                        |
//! | `function.rs` | one function: queue, lanes, idle stack                          |
//! | `pipeline.rs` | calls that wait in a lane behind another                        |
//! | `relief.rs`   | calls that move to another shard, and those that come from one  |
//! | `limit.rs`    | concurrency control: what bounds calls, what sizes the pool     |
//! | `estimate.rs` | a function's load of late: rate, processing time, tau            |
//! | `breaker.rs`  | calls of functions whose containers keep dying                  |
//! | `overload.rs` | calls that are not taken, and work that goes on for nobody      |
//! | `nesting.rs`  | calls below calls of the same function: workers kept for them   |
//! | `stall.rs`    | calls that wait for each other: room for them, deadlocks        |
//! | `quota.rs`    | limits that the owner of a function sets, over all shards       |
//! | `paper.rs`    | the paper's rule, to be compared with                           |
//! | `histogram.rs`| how long things took, for metrics                               |
//! | `snapshot.rs` | what metrics see                                                |
//!
//! # A call
//!
//! ```text
//!   external_call, internal_call
//!     |        |
//!     |        +--> refused (bounds, deadline, depth, unknown, draining): answered, never live
//!     v
//!  +--------+  a worker is idle   +---------+  Completed: answered
//!  | Queued |------ Dispatch ---->| Running |------------------------------> ended
//!  +--------+                     +---------+  ContainerDown: answered ContainerDied
//!     |                                |
//!     | deadline: answered             | deadline: answered
//!     | caller or parent gone          | caller or parent gone (caller: CancelWorker)
//!     v   (DropPayload)                v
//!   ended                         +----------+  Completed, ContainerDown: swallowed
//!                                 | Orphaned |------------------------------> ended
//!                                 +----------+
//!
//!  +--------+  another shard has less work   +------+  Returned, deadline: answered
//!  | Queued |------------- Move ------------>| Away |------------------------------> ended
//!  +--------+<------------ Bounced ----------+------+  caller or parent gone (Recall)
//! ```
//!
//! A call is answered exactly once, unless whoever asked is gone. A parent is gone when its call is
//! completed or its container is down; a parent whose own caller left, or whose deadline has passed,
//! still runs, and is answered.
//!
//! # A worker
//!
//! ```text
//!            Spawn           Started            Dispatch             CallOut
//!  +--------+     +----------+     +------+     +---------+ ------> +---------+
//!  | Absent |---->| Starting |---->| Idle |---->| Running |         | Waiting |--+ CallOut,
//!  +--------+     +----------+     +------+     +---------+ <------ +---------+<-+ Answered
//!    ^   ^   Failed   |             |    ^           |      last         |
//!    |   +------------+      Retire |    |           |    Answered       |
//!    |                              |    | Release   | Complete          | Complete (its unanswered
//!    |              +----------+    |    |           v                   |   calls are disowned)
//!    +--------------| Retiring |<---+    |       +------+                |
//!         Retired   +----------+         +-------| Held |<---------------+
//!                                                +------+
//!  ContainerDown leads from every state to Absent. Whatever is not drawn is a violation when a
//!  container says it, and a bug when the core does it.
//! ```
//!
//! A worker is `Held` from its completion until the result has been read out of its memory. When
//! nobody is owed the result, both happen in one step.

mod admission;
mod breaker;
mod call;
#[allow(clippy::module_inception, reason = "the core's own file in the core's folder")]
mod core;
mod deploy;
mod estimate;
mod event;
mod function;
mod histogram;
mod limit;
mod nesting;
mod overload;
mod paper;
mod pipeline;
mod pool;
mod quota;
mod relief;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod simulation;
mod snapshot;
mod spec;
mod stall;
mod worker;

pub use self::call::Call;
pub use self::core::{Core, Effects};
pub use self::event::{
    Caller, Effect, Event, FunctionId, Leaver, Origin, Overdue, Refusal, Reply, Violation, WorkerId,
};
pub use self::histogram::{BOUNDS_NS, Histogram};
pub use self::limit::Policy;
pub use self::quota::Quota;
pub use self::relief::{ForeignCall, Relief};
pub use self::snapshot::{Counters, Snapshot, Times};
pub use self::spec::{FunctionSpec, Limits};
pub use self::worker::WorkerState;
