//! An allocator that ends the try when one allocation is larger than any input can be worth: what a
//! stranger announces must cost no memory before it comes.

use std::alloc::{GlobalAlloc, Layout, System};

/// Bytes of one allocation at most: above every limit that the targets configure.
const SIZE_MAX: usize = 8 << 20;

/// The system's, with that bound.
pub struct Bounded;

// SAFETY: every call goes to `System` unchanged, which keeps the contract, or does not return.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > SIZE_MAX {
            // The fuzzer reports the signal with its input. Not a panic: that would allocate.
            std::process::abort();
        }
        // SAFETY: the caller keeps `alloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above with this layout, thus from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
