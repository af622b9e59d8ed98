//! The contract between engine and container: what lies in the shared memory, how each side
//! sleeps and wakes, and how the two meet. Knows no io_uring, so that both sides can use it.
//!
//! `docs/ring.md` draws the layout and argues the orderings; `docs/protocol.md` lists every byte.
//!
//! The modules, in the order a call meets them:
//! - [`control`]: the unix socket by which a container is welcomed and given its descriptors;
//! - [`layout`]: sizes, offsets and limits of a channel's two memories;
//! - `memory`: making, sealing, checking and mapping them;
//! - [`engine_side`]: a shard's end of a channel, which trusts nothing it reads;
//! - `shared_block`: a worker's bytes as the engine may use them;
//! - [`copy`]: how payloads move from memory to memory;
//! - [`arena`]: who holds which bytes of a lane's payload memory;
//! - [`envelope`]: what travels beside a payload: request id, method, headers, status;
//! - [`descriptor`]: the 64-byte messages, and [`outcome`] how a call ended;
//! - [`mark`]: how a line of a container's output tells its request;
//! - [`spsc`]: the ring they travel in;
//! - [`doorbell`]: how a sleeper is woken, and never lost;
//! - [`worker_side`]: a worker's end of its lane;
//! - [`fault`]: what the other side can do wrong;
//! - [`rseq`]: what the C library does at each switch of a thread, and how to stop it;
//! - [`descriptor_table`]: room for a process's open files;
//! - [`sync`]: atomics and cells, real or loom's.

pub mod descriptor;
pub mod doorbell;
pub mod layout;
pub mod outcome;
pub mod spsc;
pub mod sync;

#[cfg(not(loom))]
pub mod arena;
#[cfg(not(loom))]
pub mod control;
#[cfg(not(loom))]
pub mod copy;
#[cfg(not(loom))]
pub mod descriptor_table;
#[cfg(not(loom))]
pub mod engine_side;
#[cfg(not(loom))]
pub mod envelope;
#[cfg(not(loom))]
pub mod fault;
#[cfg(not(loom))]
pub mod mark;
#[cfg(not(loom))]
mod memory;
#[cfg(not(loom))]
pub mod rseq;
#[cfg(not(loom))]
mod shared_block;
#[cfg(not(loom))]
pub mod worker_side;

pub use descriptor::{
    Block, CallId, Descriptor, DescriptorError, Region, ToEngine, ToWorker, Usage,
};
#[cfg(not(loom))]
pub use fault::{Fault, NoSpace};
pub use layout::{
    CALLS_OUTSTANDING_MAX, ENVELOPE_MAX, Geometry, GeometryError, LANES_MAX, LaneIndex,
    PIPELINE_MAX, RING_DEPTH,
};
#[cfg(not(loom))]
pub use memory::MapError;
pub use outcome::{Outcome, Times};
