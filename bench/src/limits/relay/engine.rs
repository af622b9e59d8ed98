//! The engine of a relay: a multishot poll of both workers' eventfds, one `io_uring_enter` a turn.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering;

use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode, squeue};
use nix::libc;

use super::wires::{Doorbell, Role, Wires};
use crate::case::Error;

/// Two polls and two rings at once at most.
const ENTRIES: u32 = 8;
/// What a ring adds to an eventfd.
static RING: u64 = 1;

/// The engine's loop: passes what one worker says to the other.
pub(super) fn relay(wires: &Wires) -> Result<(), Error> {
    let mut ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(ENTRIES)?;
    for bell in &wires.to_engine {
        let poll = opcode::PollAdd::new(Fd(bell.as_fd().as_raw_fd()), libc::POLLIN as u32);
        push(&mut ring, &poll.multi(true).build());
    }
    loop {
        match ring.submit_and_wait(1) {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
            other => other?,
        };
        for completion in ring.completion() {
            check(&completion)?;
        }
        for (from, to) in [(Role::Caller, Role::Callee), (Role::Callee, Role::Caller)] {
            // SYNC(said): acquire, pairs with the release in `say`.
            let call = wires.said(from).load(Ordering::Acquire);
            // SYNC(passed): relaxed; nobody else writes it. Release, pairs with the acquire in
            // `wait_for`.
            if wires.passed(to).load(Ordering::Relaxed) != call {
                wires.passed(to).store(call, Ordering::Release);
                wake(wires, to, &mut ring)?;
            }
        }
    }
}

fn wake(wires: &Wires, role: Role, ring: &mut IoUring) -> Result<(), Error> {
    let bell = &wires.to_worker[role as usize];
    if wires.doorbell == Doorbell::Write {
        bell.write(RING)?;
    } else {
        let bell = Fd(bell.as_fd().as_raw_fd());
        let entry = opcode::Write::new(bell, (&raw const RING).cast(), 8).build();
        push(ring, &entry.flags(squeue::Flags::SKIP_SUCCESS));
    }
    Ok(())
}

fn push(ring: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: the entries name eventfds of the wires, which outlive the ring, and `RING`, which is
    // static.
    unsafe { ring.submission().push(entry) }.expect("two polls, or at most two rings a turn");
}

/// A poll that goes on is all there may be: rings succeed in silence.
fn check(completion: &cqueue::Entry) -> Result<(), Error> {
    match completion.result() {
        error @ ..0 => Err(std::io::Error::from_raw_os_error(-error).into()),
        _ if cqueue::more(completion.flags()) => Ok(()),
        events => {
            let got = format!("its end, with {events:#x}");
            Err(Error::Unexpected { expected: "a poll to go on", got })
        }
    }
}
