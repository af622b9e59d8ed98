//! Atomics and slots, from `core` in production and from loom under `--cfg loom`.
//!
//! A slot's words are relaxed atomics in production: the peer is another process that may write
//! at any moment, and an atomic access of garbage is garbage, where a plain one would be undefined
//! behaviour. Under loom a slot is a checked cell instead, so that the model proves the stronger
//! fact that honest sides never touch a slot at the same time.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// 64-bit words in a slot: one cache line.
pub const SLOT_WORDS: usize = 8;

/// One descriptor's place in a ring.
#[cfg(not(loom))]
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Slot([AtomicU64; SLOT_WORDS]);

#[cfg(not(loom))]
impl Slot {
    /// The words as they are now, each read once.
    // SYNC(slot): relaxed; the ring's tail orders a slot's store before its load.
    #[inline]
    pub fn load(&self) -> [u64; SLOT_WORDS] {
        core::array::from_fn(|word| self.0[word].load(Ordering::Relaxed))
    }

    /// Replaces the words.
    // SYNC(slot): relaxed; the ring's tail publishes the store, its head allows the next one.
    #[inline]
    pub fn store(&self, words: [u64; SLOT_WORDS]) {
        for (place, word) in self.0.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
    }
}

/// One descriptor's place in a ring.
#[cfg(loom)]
#[derive(Debug, Default)]
pub struct Slot(loom::cell::UnsafeCell<[u64; SLOT_WORDS]>);

// SAFETY: loom's cell checks on each access that no other thread accesses it without order, and
// fails the model where one does.
#[cfg(loom)]
unsafe impl Sync for Slot {}

#[cfg(loom)]
impl Slot {
    /// The words as they are now.
    pub fn load(&self) -> [u64; SLOT_WORDS] {
        // SAFETY: the pointer is the cell's own; loom has checked that nobody writes meanwhile.
        self.0.with(|words| unsafe { *words })
    }

    /// Replaces the words.
    pub fn store(&self, new: [u64; SLOT_WORDS]) {
        // SAFETY: the pointer is the cell's own; loom has checked that nobody else accesses it.
        self.0.with_mut(|words| unsafe { *words = new });
    }
}
