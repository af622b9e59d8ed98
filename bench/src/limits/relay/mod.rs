//! A bare call through an engine: caller, engine, callee, engine, caller. Three processes and four
//! wake-ups, without payload, policy or parsing.
//!
//! - `wires`: what the three share, and the workers' ends;
//! - `engine`: waits on an io_uring, and enters it once a turn.

mod engine;
mod wires;

use hdrhistogram::Histogram;

use crate::case::{Case, Error, Rounds};
use crate::process::{Peer, Placement};
use wires::{Doorbell, Role, Wires, Worker};

/// The niceness of shards, where the system permits it.
const HIGH_PRIORITY: i32 = -10;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let kinds = [
        ("write", "write", Doorbell::Write, 0),
        ("write_priority", "write, engine at nice -10", Doorbell::Write, HIGH_PRIORITY),
        ("entry", "ring entry", Doorbell::Entry, 0),
        ("entry_priority", "ring entry, engine at nice -10", Doorbell::Entry, HIGH_PRIORITY),
        ("entry_blocking", "ring entry, blocking eventfd", Doorbell::EntryBlocking, 0),
    ];
    for (name, title, doorbell, niceness) in kinds {
        for placement in Placement::ALL {
            // A warning, not a limit: once is enough.
            if doorbell == Doorbell::EntryBlocking && placement != Placement::SameCore {
                continue;
            }
            cases.push(Case::timed(
                format!("limits/relay_{name}_{}", placement.name()),
                format!("relay: {title}, {}", placement.title()),
                move |rounds| measure(doorbell, niceness, placement, rounds),
            ));
        }
    }
    cases
}

/// Across cores, the engine has one for itself, so that each wake-up crosses.
fn measure(
    doorbell: Doorbell,
    niceness: i32,
    placement: Placement,
    rounds: Rounds,
) -> Result<Histogram<u64>, Error> {
    let [workers, engine] = placement.seats()?;
    let wires = Wires::new(doorbell)?;
    let engine = Peer::fork(|| {
        let _seated = engine.take()?;
        engine::relay(&wires)
    })?;
    if niceness != 0 {
        engine.set_niceness(niceness)?;
    }
    let _callee = Peer::fork(|| {
        let _seated = workers.take()?;
        let callee = Worker::new(&wires, Role::Callee)?;
        for call in 1.. {
            callee.wait_for(call)?;
            callee.say(call)?;
        }
        Ok(())
    })?;
    let _seated = workers.take()?;
    let caller = Worker::new(&wires, Role::Caller)?;
    let mut call = 0;
    rounds.time(|| {
        call += 1;
        caller.say(call)?;
        caller.wait_for(call)
    })
}
