//! A channel's memory as the other side of it has it: mapped once more, to be written anywhere.

use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping of a whole memory. Both sides are one thread here: nothing is read while it is written.
pub struct Shared {
    start: NonNull<u8>,
    size: usize,
}

impl Shared {
    /// Maps a memory of `size` bytes.
    pub fn map(fd: impl AsFd, size: usize) -> Shared {
        let length = NonZeroUsize::new(size).expect("a channel has a size");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: no address is asked for, so no other mapping is touched.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, fd, 0) };
        Shared { start: start.expect("a memory of ours can be mapped").cast(), size }
    }

    /// Writes `bytes` at `offset`, both cut off at the end of the memory.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let offset = offset.min(self.size);
        let size = bytes.len().min(self.size - offset);
        // SAFETY: offset <= size of the mapping.
        let place = unsafe { self.start.add(offset) };
        // SAFETY: `size` bytes are left behind `place`, and a slice of ours is no part of the mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.as_ptr(), size) };
    }

    /// A copy of `size` bytes at `offset`. Panics if they are not within the memory.
    pub fn read(&self, offset: usize, size: usize) -> Vec<u8> {
        assert!(offset <= self.size && size <= self.size - offset, "outside of the memory");
        let mut bytes = vec![0; size];
        // SAFETY: offset <= size of the mapping.
        let place = unsafe { self.start.add(offset) };
        // SAFETY: checked above, and a vector of ours is no part of the mapping.
        unsafe { std::ptr::copy_nonoverlapping(place.as_ptr(), bytes.as_mut_ptr(), size) };
        bytes
    }

    /// The word at `offset`.
    pub fn word(&self, offset: usize) -> u32 {
        let bytes = self.read(offset, 4);
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: our own mapping, to which nothing of ours points any more.
        let unmapped = unsafe { munmap(self.start.cast(), self.size) };
        unmapped.expect("a whole mapping is unmapped");
    }
}
