//! One io_uring loop for everything a shard waits on: connections, doorbells, messages from other
//! shards, timers. The only crate that submits to a ring; it knows no HTTP and no call.
//!
//! In the order a shard meets them:
//! - [`Config`], [`SetupError`] (`setup`): what a ring needs, and the start-up error that names
//!   the feature a kernel lacks.
//! - [`Reactor`] (`reactor`): queues operations; one [`Reactor::turn`] submits them and waits.
//! - `quiet`: sends for whose end no turn is made.
//! - `operation`: the table of in-flight operations, which own their buffers by type.
//! - [`ReceiveBuffer`], [`StableBuffer`] (`buffers`): memory lent by and to the kernel.
//! - [`Event`], [`Token`] (`event`): what a turn reports; `completion` makes events of CQEs.
//! - [`clock`] and [`wheel`]: monotonic time and the timers built on it; `alarm` is the one timeout
//!   that the kernel knows of.
//! - [`mailbox`]: how other threads reach the thread of a reactor.
//!
//! # Minimum kernel
//! Linux 6.1, for `IORING_SETUP_DEFER_TASKRUN`; multishot receive came with 6.0, provided buffer
//! rings, multishot accept and cancel by descriptor with 5.19, `MSG_RING` with 5.18. The crate is
//! developed and tested on 6.18. [`Reactor::new`] tries every one of them before it returns.
//!
//! # Ownership
//! An operation in flight owns every byte the kernel may touch, and leaves the table only with its
//! final completion. A descriptor with operations in flight is closed through [`Reactor::close`],
//! never by dropping it: the reactor re-arms multishot operations by descriptor number.

mod alarm;
mod buffers;
pub mod clock;
mod completion;
mod event;
pub mod mailbox;
mod operation;
mod quiet;
mod reactor;
mod setup;
pub mod wheel;

pub use buffers::{PARTS_MAX, ReceiveBuffer, StableBuffer};
pub use event::{Event, Token, Wait};
pub use operation::Operation;
pub use quiet::QUIET_MAX;
pub use reactor::{Address, Reactor};
pub use setup::{Config, SetupError};
