//! The loop of a worker thread: receive, run, complete, until told to retire.

use std::thread;

use ipc::worker_side::WorkerLane;

use super::library::Function;
use super::session::Session;
use crate::abi::RawContext;

/// The library refused to make a worker, with this code. Nothing was said in the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the library could not create a worker: it returned {0}")]
pub struct CreateError(pub i32);

/// Runs calls on this thread until the engine retires the worker. `payload_max` is the limit of
/// the lane's channel.
pub fn run(lane: WorkerLane, payload_max: u32, function: &Function) -> Result<(), CreateError> {
    let _guard = AbortOnUnwind;
    ipc::rseq::leave();
    let payload_max = usize::try_from(payload_max).unwrap_or(usize::MAX);
    // Reached only through this pointer from here on, since the library has it too.
    let session = Box::into_raw(Box::new(Session::new(lane, payload_max, function)));
    let result = serve(session, function);
    // SAFETY: from `into_raw` above, and the library has given up its handle, or got none.
    drop(unsafe { Box::from_raw(session) });
    result
}

fn serve(session: *mut Session<'_>, function: &Function) -> Result<(), CreateError> {
    // A new reference for each step: none is alive while the library runs, which reaches the same
    // session by its callbacks.
    macro_rules! session {
        () => {{
            // SAFETY: `run` made it and frees it after we return; no other reference is alive.
            unsafe { &mut *session }
        }};
    }
    // SAFETY: the session stays where it is until `destroy` below.
    let instance = unsafe { function.create(session.cast::<RawContext>()) }.map_err(CreateError)?;
    session!().started();
    while let Some(input) = session!().next() {
        // SAFETY: `next` began a call whose input is there until `complete`; the reference it was
        // called with is gone.
        let code = unsafe { instance.call(input) };
        session!().complete(code);
    }
    instance.destroy();
    session!().retired();
    Ok(())
}

/// A worker that ends otherwise than by `Retired` leaves a lane in which calls hang for ever.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("nightcore-worker: a worker thread died; the container ends");
            std::process::abort();
        }
    }
}
