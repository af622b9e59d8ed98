//! A lane's memory as a liar writes it: every word of B, whoever is supposed to own it, and all
//! descriptors of the channel.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ipc::layout::READY;
use ipc::{Geometry, LaneIndex, RING_DEPTH};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

/// Memory B, mapped for good, and the channel's descriptors.
#[derive(Clone)]
pub struct Forger {
    pub geometry: Geometry,
    pub lane: LaneIndex,
    pub a: Arc<OwnedFd>,
    pub b: Arc<OwnedFd>,
    pub bell: Arc<OwnedFd>,
    start: NonNull<u8>,
}

// SAFETY: the pointer is to a mapping that is never unmapped, and is accessed by atomics, or by
// copies into a region of which this process does not care what it holds.
unsafe impl Send for Forger {}

impl Forger {
    pub fn new(
        geometry: Geometry,
        lane: LaneIndex,
        a: Arc<OwnedFd>,
        b: Arc<OwnedFd>,
        bell: Arc<OwnedFd>,
    ) -> nix::Result<Forger> {
        let size = NonZeroUsize::new(geometry.b_size()).expect("a channel has a size");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap(None, size, protection, flags, b.as_fd(), 0) }?.cast();
        Ok(Forger { geometry, lane, a, b, bell, start })
    }

    /// The cursor of what this lane said.
    pub fn tail(&self) -> &AtomicU32 {
        self.word(self.geometry.to_engine_tail(self.lane))
    }

    /// The cursor of what this lane heard.
    pub fn head(&self) -> &AtomicU32 {
        self.word(self.geometry.to_worker_head(self.lane))
    }

    /// Whether the worker of this lane sleeps.
    pub fn sleeping(&self) -> &AtomicU32 {
        self.word(self.geometry.sleeping(self.lane))
    }

    /// Says of every lane whose bit is set that it has spoken.
    pub fn set_ready(&self, bits: u64) {
        self.long_word(READY).fetch_or(bits, Ordering::Release);
    }

    /// Says so of this lane.
    pub fn set_own_ready(&self) {
        let lane = usize::from(self.lane.0);
        self.long_word(READY + lane / 64 * 8).fetch_or(1 << (lane % 64), Ordering::Release);
    }

    /// Stores one word of the slot of a cursor.
    pub fn store(&self, cursor: u32, index: usize, value: u64) {
        let slot = (cursor % RING_DEPTH) as usize * 64;
        let start = self.geometry.to_engine_slots(self.lane);
        self.long_word(start + slot + index * 8).store(value, Ordering::Relaxed);
    }

    /// Publishes these words behind what the lane has said, and wakes the engine.
    pub fn publish(&self, words: [u64; 8]) {
        let tail = self.tail().load(Ordering::Relaxed);
        for (index, word) in words.into_iter().enumerate() {
            self.store(tail, index, word);
        }
        self.move_tail(1);
    }

    /// Moves the cursor of what was said, and wakes the engine.
    pub fn move_tail(&self, by: u32) {
        self.tail().fetch_add(by, Ordering::Release);
        self.set_own_ready();
        self.ring();
    }

    /// Rings the engine's bell, asleep or not.
    pub fn ring(&self) {
        // A full counter has rung.
        let _ = nix::unistd::write(self.bell.as_fd(), &1u64.to_ne_bytes());
    }

    /// Writes into the outbound region.
    pub fn write_outbound(&self, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).expect("64 bits");
        assert!(offset + bytes.len() <= self.geometry.extent_size(), "not within the region");
        let place = self.place(self.geometry.outbound(self.lane) + offset);
        // SAFETY: within the region, which is mapped for good; a slice is no part of it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.as_ptr(), bytes.len()) };
    }

    /// Memory B itself.
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.b.as_fd()
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4));
        // SAFETY: `place` checked the offset, words are aligned, and the mapping stays.
        unsafe { self.place(offset).cast::<AtomicU32>().as_ref() }
    }

    fn long_word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8));
        // SAFETY: `place` checked the offset, words are aligned, and the mapping stays.
        unsafe { self.place(offset).cast::<AtomicU64>().as_ref() }
    }

    fn place(&self, offset: usize) -> NonNull<u8> {
        assert!(offset + 8 <= self.geometry.b_size(), "not within the memory");
        // SAFETY: within the mapping.
        unsafe { self.start.add(offset) }
    }
}
