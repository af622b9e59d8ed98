//! Who sleeps, and who has something to say: the words that decide whether an eventfd is rung.
//!
//! Both directions are one protocol. The sleeper announces its sleep, fences, and looks for work
//! once more; the speaker makes its work visible, fences, and looks whether the other sleeps. The
//! two sequentially consistent fences are ordered one way or the other, so either the sleeper sees
//! the work or the speaker sees the sleep: a wake-up may be superfluous, never lost.
//!
//! The eventfd itself is not here: the engine rings through its reactor, a worker by `write`.

use crate::layout::{LANES_MAX, LaneIndex};
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// 64-bit words of lane bits.
pub const READY_WORDS: usize = LANES_MAX as usize / 64;
const _: () = assert!(READY_WORDS * 64 == LANES_MAX as usize);

/// Says that its owner sleeps or is about to. Written by the sleeper, read by who may wake it.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct SleepFlag(AtomicU32);

/// A bit for each lane that has messages for the engine. Set by workers, taken by the engine.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct ReadyMap([AtomicU64; READY_WORDS]);

impl SleepFlag {
    /// The sleeper's first step; its next is to look for work once more, then to block.
    #[inline]
    pub fn announce(&self) {
        // SYNC(sleep): the fence pairs with the one in `must_ring`: it keeps the sleeper's coming
        // look for work behind this store.
        self.0.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The sleeper is awake and will look for work before it sleeps again.
    #[inline]
    pub fn clear(&self) {
        // SYNC(sleep): relaxed; a speaker that still reads 1 rings once too often.
        self.0.store(0, Ordering::Relaxed);
    }

    /// The speaker's last step, after its work is visible: must it ring?
    #[inline]
    #[must_use]
    pub fn must_ring(&self) -> bool {
        // SYNC(sleep): the fence pairs with the one in `announce`: it keeps this load behind the
        // store that made the work visible.
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) != 0
    }
}

impl ReadyMap {
    /// Says that `lane` has messages. The speaker's step before `must_ring`.
    #[inline]
    pub fn set(&self, lane: LaneIndex) {
        let lane = lane.0 as usize;
        // SYNC(ready): release, pairs with the acquire in `take`: whoever takes the bit sees the
        // tail stored before it. Unconditional: skipping a bit that reads as set would lose the
        // message when the engine takes the bit before the tail is visible.
        self.0[lane / 64].fetch_or(1 << (lane % 64), Ordering::Release);
    }

    /// Whether any lane of `mask` is ready. The engine's last look, after `announce`.
    #[inline]
    pub fn any(&self, mask: &[u64; READY_WORDS]) -> bool {
        // SYNC(ready): relaxed; only decides whether to sleep, and the fences order that.
        self.0.iter().zip(mask).any(|(word, mask)| word.load(Ordering::Relaxed) & mask != 0)
    }

    /// Takes all bits, those outside `mask` to throw them away.
    #[inline]
    pub fn take(&self, mask: &[u64; READY_WORDS]) -> [u64; READY_WORDS] {
        core::array::from_fn(|index| {
            let word = &self.0[index];
            // The load spares a quiet word the locked exchange.
            if word.load(Ordering::Relaxed) == 0 {
                return 0;
            }
            // SYNC(ready): acquire, pairs with the release in `set`.
            word.swap(0, Ordering::Acquire) & mask[index]
        })
    }
}
