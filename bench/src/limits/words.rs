//! A page of words that a process and those it forks share.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::case::Error;

/// Words of a page.
const COUNT: usize = 32;
const SIZE: NonZeroUsize = NonZeroUsize::new(size_of::<[Line; COUNT]>()).expect("not empty");

/// A word of its own pair of cache lines: x86 fetches them in pairs.
#[repr(C, align(128))]
struct Line(AtomicU32);

/// Words, all zero at first; unmapped when dropped.
pub(super) struct SharedWords {
    lines: NonNull<[Line; COUNT]>,
}

impl SharedWords {
    pub(super) fn new() -> Result<SharedWords, Error> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: no address is asked for, so no other mapping is touched; the result is accessed
        // only through this type.
        let start = unsafe { mmap_anonymous(None, SIZE, protection, MapFlags::MAP_SHARED) }?;
        Ok(SharedWords { lines: start.cast() })
    }

    /// Panics if there is no such word.
    pub(super) fn word(&self, index: usize) -> &AtomicU32 {
        // SAFETY: `new` mapped a whole, page-aligned array of zeros, valid for atomics, which stays
        // while `self` lives; every access by any process is atomic.
        let lines = unsafe { self.lines.as_ref() };
        &lines[index].0
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: address and size are those of our own mapping; references into it borrow `self`.
        let unmapped = unsafe { munmap(self.lines.cast(), SIZE.get()) };
        debug_assert!(unmapped.is_ok(), "munmap of a whole mapping: {unmapped:?}");
    }
}
