//! A pair of workers as the engine sees it: it owns the memories, gives the orders, reads the
//! counters, and trusts none of what it reads.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use ipc::sync::Ordering;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::lease::{Order, Reason};
use super::region::{Access, Direction, Mapped, Memory, Orders};
use super::wake::{self, Wake};

/// First pause before a wake-up is repeated; each doubles it.
const NUDGE_FIRST: Duration = Duration::from_micros(100);
/// The longest: a sleeper that lies about its sleep costs a wake-up that often.
const NUDGE_MAX: Duration = Duration::from_millis(100);
/// Who still sleeps then is where no wake-up finds it.
const NUDGE_IN_VAIN: Duration = Duration::from_millis(1);

/// Caller and callee.
pub const SIDES: [usize; 2] = [0, 1];

/// Memories of a caller's worker and a callee's worker, and their lease.
#[derive(Debug)]
pub struct Pair {
    /// Indices of the two workers: caller, callee.
    pub workers: [usize; 2],
    pub(super) mapped: [bool; 2],
    /// Written by the side, read by us.
    directions: [Mapped<Direction>; 2],
    orders: [Mapped<Orders>; 2],
    /// Of `directions`, then of `orders`; dropped once passed on.
    memories: Option<([Memory; 2], [Memory; 2])>,
    /// Of `Wake::Epoll`: rung by the sides, then those that we ring.
    bells: Option<([EventFd; 2], [EventFd; 2])>,
    wake: Wake,
    epoch: u32,
    pub(super) lease: Option<Lease>,
}

/// A lease that is not over on both sides.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) deadline_ns: u64,
    pub(super) revoked: Option<Reason>,
    /// Which sides are out.
    pub(super) out: [bool; 2],
    nudge_at: Instant,
    nudge_pause: Duration,
}

/// What the engine knows of a pair by looking: the sides' own words, of all their leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Calls that the caller says it has begun.
    pub started: u32,
    /// Calls that the callee says it has completed; its farewells are taken off.
    pub completed: u32,
    /// Time that the callee says it has spent on them.
    pub busy: Duration,
}

impl Pair {
    /// Memories for two workers, not yet passed to them.
    pub fn new(workers: [usize; 2], wake: Wake) -> io::Result<Pair> {
        let direction = || Memory::create::<Direction>(c"nightcore-lease");
        let orders = || Memory::create::<Orders>(c"nightcore-orders");
        let memories = ([direction()?, direction()?], [orders()?, orders()?]);
        let ([one, two], [first, second]) = &memories;
        let orders = [first.map::<Orders>(Access::Write)?, second.map::<Orders>(Access::Write)?];
        first.seal()?;
        second.seal()?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = || EventFd::from_value_and_flags(1, flags);
        let bells = match wake {
            Wake::Epoll => Some(([bell()?, bell()?], [bell()?, bell()?])),
            _ => None,
        };
        Ok(Pair {
            workers,
            mapped: [false; 2],
            directions: [one.map(Access::Read)?, two.map(Access::Read)?],
            orders,
            memories: Some(memories),
            bells,
            wake,
            epoch: 0,
            lease: None,
        })
    }

    /// What a side gets first: its memory, its orders, its bell and its peer's.
    pub(super) fn own(&self, side: usize) -> Vec<RawFd> {
        let Some((directions, orders)) = &self.memories else { return Vec::new() };
        let mut fds = vec![directions[side].as_fd().as_raw_fd(), orders[side].as_fd().as_raw_fd()];
        if let Some(bells) = &self.bells {
            let (sides, ours) = bells;
            fds.extend([&sides[side], &sides[1 - side], &ours[side]].map(AsRawFd::as_raw_fd));
        }
        fds
    }

    /// Both have mapped what they write: seals it, and gives what each may read.
    pub(super) fn seal(&mut self) -> io::Result<Option<[Memory; 2]>> {
        let Some((directions, _)) = self.memories.take() else { return Ok(None) };
        directions.iter().try_for_each(Memory::seal)?;
        Ok(Some(directions))
    }

    /// A lease begins; returns its epoch. The last one is over on both sides.
    pub(super) fn grant(&mut self, deadline_ns: u64) -> u32 {
        debug_assert!(self.lease.is_none(), "a lease in a lease");
        self.epoch += 1;
        self.lease = Some(Lease {
            deadline_ns,
            revoked: None,
            out: [false; 2],
            nudge_at: Instant::now(),
            nudge_pause: NUDGE_FIRST,
        });
        self.order(None);
        self.epoch
    }

    /// Ends the lease; a reason that ends it at once overrules one that lets a call finish. False
    /// if it changed nothing.
    pub(super) fn revoke(&mut self, reason: Reason) -> bool {
        let Some(lease) = &mut self.lease else { return false };
        if !matches!(lease.revoked, None | Some(Reason::Queueing)) || lease.revoked == Some(reason)
        {
            return false;
        }
        lease.revoked = Some(reason);
        lease.nudge_at = Instant::now();
        lease.nudge_pause = NUDGE_FIRST;
        self.order(Some(reason));
        self.nudge();
        true
    }

    /// A side is out; when both are, the lease is over.
    pub(super) fn leave(&mut self, side: usize) {
        if let Some(lease) = &mut self.lease {
            lease.out[side] = true;
            if lease.out == [true; 2] {
                self.lease = None;
            }
        }
    }

    /// Whether `epoch` is the latest.
    pub(super) fn is_now(&self, epoch: u32) -> bool {
        self.epoch == epoch && self.lease.is_some()
    }

    /// When this pair next wants `nudge`.
    pub(super) fn nudge_at(&self) -> Option<Instant> {
        let lease = self.lease.as_ref()?;
        lease.revoked.map(|_| lease.nudge_at)
    }

    /// Wakes whichever side sleeps through a revocation. Repeated, since it changes no word that a
    /// sleeper waits for but `Waitv`'s, and could come just before the sleep. Returns the workers
    /// that must be interrupted instead.
    pub(super) fn nudge(&mut self) -> Vec<usize> {
        let mut stuck = Vec::new();
        let Some(lease) = &mut self.lease else { return stuck };
        lease.nudge_at = Instant::now() + lease.nudge_pause;
        lease.nudge_pause = (lease.nudge_pause * 2).min(NUDGE_MAX);
        for side in SIDES.into_iter().filter(|&side| !lease.out[side]) {
            if !self.directions[side].sleeping.must_ring() {
                continue;
            }
            match (self.wake, &self.bells) {
                (Wake::Waitv, _) => wake::wake_word(&self.orders[side].word),
                (_, Some((_, ours))) => {
                    // A prototype's liberty: the engine proper rings through its ring only.
                    let _ = ours[side].write(0);
                }
                (_, None) => wake::wake_word(&self.directions[1 - side].tail),
            }
            if lease.nudge_pause > NUDGE_IN_VAIN {
                stuck.push(self.workers[side]);
            }
        }
        stuck
    }

    /// Reads the counters.
    #[must_use]
    pub fn observe(&self) -> Observed {
        let [caller, callee] = &self.directions;
        let farewells = self.epoch - u32::from(self.lease.as_ref().is_some_and(|l| !l.out[1]));
        let load = |word: &ipc::sync::AtomicU32| word.load(Ordering::Relaxed);
        Observed {
            started: load(&caller.tail),
            completed: load(&callee.tail).wrapping_sub(farewells),
            busy: Duration::from_nanos(callee.busy_ns.load(Ordering::Relaxed)),
        }
    }

    fn order(&self, revoked: Option<Reason>) {
        let word = Order { epoch: self.epoch, revoked }.encode();
        for orders in &self.orders {
            // SYNC(order): release, pairs with the acquire in `End::glance`. `must_ring` fences
            // before it looks whether a side sleeps.
            orders.word.store(word, Ordering::Release);
        }
    }
}
