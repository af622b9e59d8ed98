//! How a side of a lease waits for the other, and wakes it: one type for each way that was
//! measured.
//!
//! The sleeper waits until the peer's `tail` changes, which the peer alone can write. The engine's
//! wake-up changes no word that the sleeper looks at, so it may come between the last look and the
//! sleep; the engine repeats it for as long as the sleeper's flag is set. A peer can move a
//! sleeper to another futex (`FUTEX_REQUEUE`), where no wake-up finds it: then the engine has its
//! thread interrupted by a signal, `Timed` ends by itself, and `Waitv` sleeps on a word that the
//! peer does not have as well.

use std::hint;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use ipc::sync::{AtomicU32, Ordering};
use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::region::{Direction, Mapped, Orders};

/// Yields before sleeping: a few more than runnable pairs of a core need for one turn each.
const YIELDS_MAX: u32 = 16;
/// A yield that takes longer met a thread that computes, and gave it a slice.
const YIELD_PATIENCE: Duration = Duration::from_micros(100);
/// Waits without a yield after the first such yield; doubled by each further one.
const ABSTAIN_FIRST: u32 = 1_000;
const ABSTAIN_MAX: u32 = 1_000_000;
/// Looks before sleeping, each some tens of nanoseconds: about what a wake-up across cores takes.
const SPINS_MAX: u32 = 1_000;

/// A way to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Wake {
    /// `FUTEX_WAIT_BITSET` on the peer's tail.
    Futex,
    /// The same with the deadline.
    Timed,
    /// `futex_waitv` on the peer's tail and the engine's order.
    Waitv,
    /// Edge-triggered `epoll_wait` on two eventfds, the peer's and the engine's, as workers wait for
    /// the engine today.
    Epoll,
    /// `sched_yield` a few times, then `Futex`.
    Yield,
    /// As `Yield`, but not for a while after a yield that took long.
    Adaptive,
    /// Looks again some microseconds, then `Futex`: for peers on different cores.
    Spin,
}

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slept {
    /// Somebody woke us, or for no reason.
    Woken,
    /// The deadline is over.
    Out,
}

/// One side's means to wait.
#[derive(Debug)]
pub struct Waiter {
    wake: Wake,
    peer: Arc<Mapped<Direction>>,
    orders: Arc<Mapped<Orders>>,
    /// Of `Epoll`: watches this side's bells, which are never read.
    epoll: Option<(Epoll, Bells)>,
    abstain: u32,
    abstain_next: u32,
}

/// One side's eventfds, for `Wake::Epoll`. Their counters begin at one and every ring adds zero, so
/// that a ring never finds a full counter and blocks, whatever the other holder does to the flags. Who
/// reads one down to zero silences only itself: each has one who rings it.
#[derive(Debug)]
pub struct Bells {
    /// Rung by the peer.
    pub own: OwnedFd,
    /// The peer's, rung by us.
    pub peer: OwnedFd,
    /// Rung by the engine.
    pub engine: OwnedFd,
}

impl Waiter {
    /// `bells` are for `Wake::Epoll`.
    pub fn new(
        wake: Wake,
        peer: Arc<Mapped<Direction>>,
        orders: Arc<Mapped<Orders>>,
        bells: Option<Bells>,
    ) -> io::Result<Waiter> {
        let watch = |bells: Bells| -> io::Result<_> {
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            for bell in [&bells.own, &bells.engine] {
                epoll.add(bell, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))?;
            }
            Ok((epoll, bells))
        };
        let epoll = bells.map(watch).transpose()?;
        Ok(Waiter { wake, peer, orders, epoll, abstain: 0, abstain_next: ABSTAIN_FIRST })
    }

    /// Wakes the peer, which sleeps until `own` says something new.
    pub fn wake(&self, own: &Direction) {
        match &self.epoll {
            None => wake_word(&own.tail),
            Some((_, bells)) => ring(&bells.peer),
        }
    }

    /// Gives the peer a chance to speak without a sleep. True if it has, or the engine has.
    #[inline]
    pub fn linger(&mut self, tail: u32, order: u32) -> bool {
        match self.wake {
            Wake::Futex | Wake::Timed | Wake::Waitv | Wake::Epoll => false,
            Wake::Yield => (0..YIELDS_MAX).any(|_| {
                std::thread::yield_now();
                self.has_news(tail, order)
            }),
            Wake::Adaptive => self.yield_if_cheap(tail, order),
            Wake::Spin => (0..SPINS_MAX).any(|_| {
                hint::spin_loop();
                self.has_news(tail, order)
            }),
        }
    }

    /// Sleeps until woken; `Timed` until `deadline_ns` at most. May return for no reason.
    pub fn sleep(&mut self, tail: u32, order: u32, deadline_ns: u64) -> io::Result<Slept> {
        let slept = match (self.wake, &self.epoll) {
            (Wake::Waitv, _) => wait_both([&self.peer.tail, &self.orders.word], [tail, order]),
            (Wake::Timed, _) => wait_one(&self.peer.tail, tail, Some(deadline_ns)),
            (_, Some((epoll, _))) => wait_bell(epoll),
            _ => wait_one(&self.peer.tail, tail, None),
        };
        match slept {
            Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(Slept::Woken),
            Err(Errno::ETIMEDOUT) => Ok(Slept::Out),
            Err(error) => Err(error.into()),
        }
    }

    fn has_news(&self, tail: u32, order: u32) -> bool {
        self.peer.tail.load(Ordering::Relaxed) != tail
            || self.orders.word.load(Ordering::Relaxed) != order
    }

    fn yield_if_cheap(&mut self, tail: u32, order: u32) -> bool {
        if self.abstain > 0 {
            self.abstain -= 1;
            return false;
        }
        let start = Instant::now();
        for _ in 0..YIELDS_MAX {
            std::thread::yield_now();
            let has_news = self.has_news(tail, order);
            if start.elapsed() > YIELD_PATIENCE {
                self.abstain = self.abstain_next;
                self.abstain_next = (self.abstain_next * 2).min(ABSTAIN_MAX);
                return has_news;
            }
            if has_news {
                return true;
            }
        }
        false
    }
}

/// Wakes who watches this bell.
pub fn ring(bell: &OwnedFd) {
    // Adding zero cannot fail for lack of room; whoever broke the bell sleeps on.
    let _ = nix::unistd::write(bell, &0u64.to_ne_bytes());
}

/// Wakes who waits on `word`, which need not be writable for us.
pub fn wake_word(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE;
    // SAFETY: FUTEX_WAKE takes an address and a count, reads no memory and writes none.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 1) };
    debug_assert!(woken >= 0, "futex wake: {}", Errno::last());
}

/// Now, by the clock of deadlines.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX)
}

fn wait_one(word: &AtomicU32, seen: u32, deadline_ns: Option<u64>) -> nix::Result<()> {
    let until = deadline_ns.map(time_spec);
    // SAFETY: word and time live through the call; the kernel compares the word with `seen` by an
    // atomic load of its own and writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            seen,
            until.as_ref().map_or(core::ptr::null(), |until| core::ptr::from_ref(until.as_ref())),
            core::ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        )
    };
    Errno::result(result).map(drop)
}

fn wait_both(words: [&AtomicU32; 2], seen: [u32; 2]) -> nix::Result<()> {
    let waiters: [[u64; 3]; 2] = core::array::from_fn(|at| {
        let address = words[at].as_ptr().expose_provenance() as u64;
        [u64::from(seen[at]), address, FUTEX2_SIZE_U32]
    });
    // SAFETY: two `struct futex_waitv` of three words each, which live through the call as the
    // words do; the kernel only compares the words. No time is given, so the clock is not used.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            waiters.as_ptr(),
            waiters.len(),
            0,
            core::ptr::null::<libc::timespec>(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// `FUTEX2_SIZE_U32` in the flags of a `struct futex_waitv`, whose other half is reserved.
const FUTEX2_SIZE_U32: u64 = 2;

fn wait_bell(epoll: &Epoll) -> nix::Result<()> {
    epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE).map(drop)
}

fn time_spec(deadline_ns: u64) -> TimeSpec {
    TimeSpec::from_duration(Duration::from_nanos(deadline_ns.min(i64::MAX.unsigned_abs())))
}
