//! Calls that are completed twice, late, by the wrong worker, or were never given; tokens and words
//! that are out of turn.

use std::num::NonZeroU32;
use std::time::Duration;

use ipc::envelope::{call_size, encode_call};
use ipc::{Block, CALLS_OUTSTANDING_MAX, CallId, Fault, Outcome, Region, ToEngine, Usage};
use nix::time::{ClockId, clock_gettime};

use super::{Cue, Noise, rest, unknown};
use crate::container::{HOLD, Worker, complete};

pub(super) fn tell(worker: &mut Worker, name: &str, cue: &Cue) -> Result<(), Fault> {
    let done = |call| complete(call, Block::empty(Region::Outbound));
    let given = cue.call;
    match name {
        "twice" => {
            worker.say(&done(given))?;
            worker.say(&done(given))?;
        }
        // Of a call whose deadline has passed: nothing is wrong with that, once.
        "late" => {
            wait_until(cue.deadline_ns + 50_000_000);
            return worker.say(&done(given));
        }
        "late2" => {
            wait_until(cue.deadline_ns + 50_000_000);
            worker.say(&done(given))?;
            worker.say(&done(given))?;
        }
        "unknown" => worker.say(&done(CallId(Noise::new().next())))?,
        "stale" => {
            let stale = CallId::new(given.slot(), given.generation().wrapping_sub(1));
            worker.say(&done(stale))?;
        }
        "neighbour" => {
            worker.say(&done(CallId::new(given.slot() ^ 1, given.generation())))?;
        }
        // The call of another worker.
        "foreign" => {
            let held = *worker.container.held.lock().expect("no thread panics");
            worker.say(&done(held.expect("the test has one held first")))?;
        }
        "decline" => worker.say(&ToEngine::Decline { call: given })?,
        "token" => {
            call(worker, &own_name(worker), 7, HOLD)?;
            call(worker, &own_name(worker), 7, HOLD)?;
        }
        "many" => {
            for token in 0..=CALLS_OUTSTANDING_MAX {
                call(worker, &own_name(worker), token, HOLD)?;
            }
        }
        // Answers that are never released.
        "hoard" => {
            for token in 0..=CALLS_OUTSTANDING_MAX {
                call(worker, "nobody", token, b"")?;
                worker.hear()?;
            }
        }
        "release" => worker.say(&ToEngine::Release { token: 3 })?,
        "started" => worker.say(&ToEngine::Started)?,
        "retired" => worker.say(&ToEngine::Retired)?,
        // It ran for longer than it has had the call, and computed for longer than that.
        "boast" => {
            let calls = NonZeroU32::MAX;
            let usage = Some(Usage { calls, cpu_ns: u32::MAX, idle_ns: u32::MAX });
            let (outcome, released, ran_ns) = (Outcome::Ok, None, u32::MAX);
            let block = Block::empty(Region::Outbound);
            let message =
                ToEngine::Complete { call: given, outcome, released, ran_ns, usage, block };
            return worker.say(&message);
        }
        "idle" => {
            worker.say(&done(given))?;
            call(worker, "nobody", 0, b"")?;
        }
        _ => unknown(name),
    }
    rest()
}

/// Makes an internal call; its block is at the start of the outbound region, as of every other.
pub(super) fn call(
    worker: &mut Worker,
    function: &str,
    token: u32,
    input: &[u8],
) -> Result<(), Fault> {
    call_and_release(worker, function, token, input, None)
}

/// The same, with an answer that is not needed any more.
pub(super) fn call_and_release(
    worker: &mut Worker,
    function: &str,
    token: u32,
    input: &[u8],
    released: Option<u32>,
) -> Result<(), Fault> {
    let mut envelope = Vec::with_capacity(call_size(function.as_bytes()).unwrap_or(0));
    encode_call(function.as_bytes(), &mut envelope);
    let block = worker.write(0, &envelope, input);
    worker.say(&ToEngine::Call { token, deadline_ns: u64::MAX, released, block })
}

/// The function that this container is for.
pub(super) fn own_name(worker: &Worker) -> String {
    format!("{}{}", crate::PREFIX, worker.container.lie)
}

fn wait_until(deadline_ns: u64) {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    let deadline = Duration::from_nanos(deadline_ns);
    std::thread::sleep(deadline.saturating_sub(Duration::from(now)));
}
