//! Bells that ring for nothing, ring on and on, or are to keep the engine waiting.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

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
        // Fuller than any write makes it: there is no room for a write of nothing.
        "brim" => {
            fill(worker.doorbell.as_fd());
            overfill(worker.doorbell.as_fd());
            worker.answer(cue.call, &[], b"brim")?;
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

/// Has the kernel itself count in the eventfd, once: what it adds goes to the last number, which no
/// write reaches.
fn overfill(bell: BorrowedFd<'_>) {
    let null = File::open("/dev/null").expect("it is there");
    let (mut context, mut byte) = (0_u64, 0_u8);
    let mut read = ControlBlock {
        opcode: PREAD,
        file: null.as_raw_fd().cast_unsigned(),
        buffer: ptr::from_mut(&mut byte).expose_provenance() as u64,
        size: 1,
        flags: COUNT_IN_EVENTFD,
        eventfd: bell.as_raw_fd().cast_unsigned(),
        ..ControlBlock::default()
    };
    let reads = [ptr::from_mut(&mut read)];
    // SAFETY: the kernel writes the context's number.
    let made = unsafe { libc::syscall(libc::SYS_io_setup, 1, ptr::from_mut(&mut context)) };
    assert_eq!(made, 0, "io_setup");
    // SAFETY: one control block, whose buffer lives until the end of this function; a read of
    // /dev/null is over when the call returns.
    let taken = unsafe { libc::syscall(libc::SYS_io_submit, context, 1, reads.as_ptr()) };
    assert_eq!(taken, 1, "io_submit");
}

/// The kernel's `struct iocb`.
#[derive(Default)]
#[repr(C)]
struct ControlBlock {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    size: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    eventfd: u32,
}

const PREAD: u16 = 0;
const COUNT_IN_EVENTFD: u32 = 1;
