//! Bells that ring for nothing, ring on and on, or are to keep the engine waiting.

use std::os::fd::{AsFd, BorrowedFd};

use ipc::Fault;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::{Cue, rest, unknown};
use crate::container::Worker;

pub(super) fn tell(worker: &mut Worker, name: &str, cue: &Cue) -> Result<(), Fault> {
    match name {
        "flood" => loop {
            worker.forger.ring();
        },
        // This lane has spoken, and again, and again, but has said nothing.
        "ready" => {
            worker.forger.ring();
            loop {
                worker.forger.set_own_ready();
            }
        }
        // Both together, so that the engine is woken for it each time.
        "ready2" => loop {
            worker.forger.set_own_ready();
            worker.forger.ring();
        },
        // Lanes that do not exist, or are not open.
        "strange" => {
            worker.answer(cue.call, &[], b"strange")?;
            for _ in 0..1_000_000 {
                worker.forger.set_ready(!1);
            }
            Ok(())
        }
        // The engine's bell is full, and whoever writes to it waits.
        "bell" => {
            fill(worker.forger.bell.as_fd());
            rest()
        }
        // The worker's own, which the engine rings.
        "full" => {
            fill(worker.doorbell.as_fd());
            worker.answer(cue.call, &[], b"full")?;
            loop {
                worker.lane.wait()?;
            }
        }
        // Emptied, so that nobody is woken by it.
        "empty" => {
            let _ = nix::unistd::read(worker.doorbell.as_fd(), &mut [0; 8]);
            worker.answer(cue.call, &[], b"empty")?;
            loop {
                worker.lane.wait()?;
            }
        }
        _ => unknown(name),
    }
}

/// Fills a counter to the brim and makes its writers wait.
fn fill(bell: BorrowedFd<'_>) {
    let mut count = u64::MAX - 1;
    while count > 0 {
        if nix::unistd::write(bell, &count.to_ne_bytes()).is_err() {
            count /= 2;
        }
    }
    let cleared = fcntl(bell, FcntlArg::F_SETFL(OFlag::empty()));
    assert!(cleared.is_ok(), "flags of a descriptor are its holder's");
}
