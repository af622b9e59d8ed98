//! What the processes of a relay share, and the ends of caller and callee.
//!
//! Numbers in shared memory say how far each is, so that a wake-up too many does no harm and none
//! can be skipped.

use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::case::Error;
use crate::limits::words::SharedWords;

/// How the engine wakes a worker, and how that waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Doorbell {
    /// By `write`; the worker blocks in `read`.
    Write,
    /// By an entry of the ring; the worker waits for edges with epoll and reads nothing.
    Entry,
    /// The same with an eventfd that is not `EFD_NONBLOCK`: the kernel hands entries to a thread.
    EntryBlocking,
}

/// What the three share: words, and one eventfd each way for each worker.
pub(super) struct Wires {
    words: SharedWords,
    pub(super) doorbell: Doorbell,
    pub(super) to_engine: [EventFd; 2],
    pub(super) to_worker: [EventFd; 2],
}

/// A worker's place in the wires.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Caller = 0,
    Callee = 1,
}

/// A worker: speaks to the engine, and sleeps until spoken to.
pub(super) struct Worker<'w> {
    wires: &'w Wires,
    role: Role,
    /// Without it, the worker reads.
    epoll: Option<Epoll>,
}

impl Wires {
    pub(super) fn new(doorbell: Doorbell) -> Result<Wires, Error> {
        let flags = match doorbell {
            Doorbell::Entry => EfdFlags::EFD_NONBLOCK,
            Doorbell::Write | Doorbell::EntryBlocking => EfdFlags::empty(),
        };
        let to_worker = || EventFd::from_flags(flags);
        Ok(Wires {
            words: SharedWords::new()?,
            doorbell,
            to_engine: [EventFd::new()?, EventFd::new()?],
            to_worker: [to_worker()?, to_worker()?],
        })
    }

    /// The last number that a worker said.
    pub(super) fn said(&self, role: Role) -> &AtomicU32 {
        self.words.word(role as usize)
    }

    /// The last number that the engine passed to a worker.
    pub(super) fn passed(&self, role: Role) -> &AtomicU32 {
        self.words.word(2 + role as usize)
    }
}

impl<'w> Worker<'w> {
    pub(super) fn new(wires: &'w Wires, role: Role) -> Result<Worker<'w>, Error> {
        let epoll = if wires.doorbell == Doorbell::Write {
            None
        } else {
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
            epoll.add(&wires.to_worker[role as usize], EpollEvent::new(edges, 0))?;
            Some(epoll)
        };
        Ok(Worker { wires, role, epoll })
    }

    pub(super) fn say(&self, call: u32) -> Result<(), Error> {
        // SYNC(said): release, pairs with the acquire in `relay`.
        self.wires.said(self.role).store(call, Ordering::Release);
        self.wires.to_engine[self.role as usize].write(1)?;
        Ok(())
    }

    pub(super) fn wait_for(&self, call: u32) -> Result<(), Error> {
        // SYNC(passed): acquire, pairs with the release in `relay`.
        while self.wires.passed(self.role).load(Ordering::Acquire) != call {
            let slept = match &self.epoll {
                Some(epoll) => epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE),
                None => nix::unistd::read(&self.wires.to_worker[self.role as usize], &mut [0; 8]),
            };
            match slept {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
