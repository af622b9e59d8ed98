//! Work without end, each piece of it permitted.

use ipc::{Fault, ToWorker};

use super::call::{call, call_and_release, own_name};
use super::{Cue, unknown};
use crate::container::Worker;

/// Calls in flight at once: some fewer than a worker may have.
const WIDTH: u32 = 40;

pub(super) fn tell(worker: &mut Worker, name: &str, _cue: &Cue) -> Result<(), Fault> {
    match name {
        // Of calls to itself, which its other workers answer.
        "self" => calls(worker, &own_name(worker), b"x"),
        "echo" => calls(worker, "echo", b"x"),
        "large" => {
            let input = vec![b'x'; worker.forger.geometry.payload_max() as usize];
            calls(worker, "echo", &input)
        }
        "unknown" => calls(worker, "nobody", b"x"),
        _ => unknown(name),
    }
}

/// Calls a function on and on, and never ends.
fn calls(worker: &mut Worker, function: &str, input: &[u8]) -> Result<(), Fault> {
    for token in 0..WIDTH {
        call(worker, function, token, input)?;
    }
    loop {
        if let ToWorker::Answer { token, .. } = worker.hear()? {
            call_and_release(worker, function, token, input, Some(token))?;
        }
    }
}

/// Calls that are answered at once, by answers that it does not read.
pub(super) fn unread(worker: &mut Worker) -> Result<(), Fault> {
    call(worker, "nobody", 0, b"")?;
    for token in 1_u32.. {
        // The engine has answered the one before by the time it reads this.
        call_and_release(worker, "nobody", token, b"", Some(token - 1))?;
    }
    Ok(())
}
