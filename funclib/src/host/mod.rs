//! The container's side: loads a function's library and runs its calls.
//!
//! One launcher thread talks to the engine over the control socket and spawns worker threads; each
//! worker owns one lane of one shard's channel and sleeps on its doorbell between calls.
//!
//! In the order a call meets them:
//! - [`launcher`]: the process: loads the library, maps channels, spawns workers
//! - [`sandbox`]: how the process confines itself before that
//! - [`library`]: interface v1 or v2 of a loaded library, as one thing to call
//! - [`worker`]: the loop of a worker thread
//! - `session`: the state behind a call's context: what came, what is asked, what goes
//! - `calls`: the internal calls of one session, in flight and answered
//! - `outgoing`: the answer as it grows in shared memory
//! - `meter`: what the calls of one worker cost
//! - `callbacks`, `callbacks_v1`: the C functions by which a library reaches its session

mod callbacks;
mod callbacks_v1;
mod calls;
pub mod launcher;
pub mod library;
mod meter;
mod outgoing;
pub mod sandbox;
mod session;
pub mod worker;

/// What the engine cannot have said, or what took the ground from under this container. It ends
/// the process: a call that cannot be answered would hang its caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The ring, a block or a doorbell.
    #[error(transparent)]
    Channel(#[from] ipc::Fault),
    /// An envelope.
    #[error(transparent)]
    Envelope(#[from] ipc::envelope::EnvelopeError),
    /// An answer to no call of ours.
    #[error("the engine answered token {0}, which is not in flight")]
    UnknownToken(u32),
    /// A message out of turn.
    #[error("the engine sent {0} at the wrong time")]
    OutOfTurn(&'static str),
}

// The SDK's kinds and the wire's outcomes are one set of numbers.
const _: () = {
    assert!(crate::ErrorKind::FunctionError as u8 == ipc::Outcome::FunctionError as u8);
    assert!(crate::ErrorKind::BadRequest as u8 == ipc::Outcome::BadRequest as u8);
    assert!(crate::ErrorKind::TooDeep as u8 == ipc::Outcome::TooDeep as u8);
    assert!(crate::ErrorKind::Deadlock as u8 == ipc::Outcome::Deadlock as u8);
    assert!(crate::ErrorKind::BreakerOpen as u8 == ipc::Outcome::BreakerOpen as u8);
    assert!(crate::ErrorKind::HostLost as u8 == ipc::Outcome::HostLost as u8);
    assert!(ipc::Outcome::ALL.len() == 17);
};
