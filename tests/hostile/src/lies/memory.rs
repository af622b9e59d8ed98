//! Attempts on the memory itself: what is sealed stays so, and holes read as zeros.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;

use ipc::Fault;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mprotect};
use nix::unistd::ftruncate;

use super::{Cue, unknown};
use crate::container::Worker;

const PUNCH: FallocateFlags =
    FallocateFlags::FALLOC_FL_PUNCH_HOLE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);

pub(super) fn tell(worker: &mut Worker, name: &str, cue: &Cue) -> Result<(), Fault> {
    match name {
        "seals" => {
            let text = attempts(worker);
            worker.answer(cue.call, &[], text.as_bytes())
        }
        // The result lies in a hole by the time it is read.
        "hole" => {
            let payload = vec![b'x'; worker.forger.geometry.payload_max() as usize];
            let block = worker.write(0, &[], &payload);
            let (start, size) = outbound(worker);
            let punched = fallocate(worker.forger.memory(), PUNCH, start, size);
            assert!(punched.is_ok(), "B is the container's");
            worker.say(&crate::container::complete(cue.call, block))
        }
        // All of B, again and again: cursors, messages, payloads.
        "holes" => {
            let size = i64::try_from(worker.forger.geometry.b_size()).expect("below 2^43");
            worker.answer(cue.call, &[], &[b'x'; 4096])?;
            loop {
                let punched = fallocate(worker.forger.memory(), PUNCH, 0, size);
                assert!(punched.is_ok(), "B is the container's");
                worker.forger.set_own_ready();
                worker.forger.ring();
            }
        }
        _ => unknown(name),
    }
}

/// Where the lane's outbound region lies in B.
fn outbound(worker: &Worker) -> (i64, i64) {
    let geometry = worker.forger.geometry;
    let start = geometry.outbound(worker.forger.lane);
    let [start, size] = [start, geometry.extent_size()].map(i64::try_from);
    (start.expect("below 2^43"), size.expect("below 2^43"))
}

/// Tries whatever must fail; a line for each attempt that did not.
fn attempts(worker: &Worker) -> String {
    let forger = &worker.forger;
    let (a, b) = (forger.a.as_fd(), forger.b.as_fd());
    let (a_size, b_size) = (forger.geometry.a_size(), forger.geometry.b_size());
    let size = NonZeroUsize::new(a_size).expect("a channel has a size");
    let map = |protection| {
        // SAFETY: a new mapping at an address of the kernel's choice.
        unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, a, 0) }
    };
    let widened = map(ProtFlags::PROT_READ).and_then(|start| {
        // SAFETY: the mapping just made, to which nobody has a reference.
        unsafe { mprotect(start, a_size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) }
    });
    let signed = |size: usize| i64::try_from(size).expect("below 2^43");
    let seal = |fd| fcntl(fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).map(drop);
    let tried = [
        ("map A for writing", map(ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).map(drop)),
        ("map A for writing only", map(ProtFlags::PROT_WRITE).map(drop)),
        ("make a mapping of A writable", widened),
        ("write A", nix::unistd::write(a, b"x").map(drop)),
        ("punch A", fallocate(a, PUNCH, 0, 4096)),
        ("fill A", fallocate(a, FallocateFlags::FALLOC_FL_ZERO_RANGE, 0, 4096)),
        ("shrink A", ftruncate(a, 4096)),
        ("grow A", ftruncate(a, signed(a_size) + 4096)),
        ("shrink B", ftruncate(b, 4096)),
        ("grow B", ftruncate(b, signed(b_size) + 4096)),
        ("seal A", seal(a)),
        ("seal B", seal(b)),
    ];
    let mut text = String::new();
    for (what, result) in tried {
        if result.is_ok() {
            writeln!(text, "it could {what}").expect("text grows");
        }
    }
    if text.is_empty() { "nothing was possible".to_owned() } else { text }
}
