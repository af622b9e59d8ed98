//! Copies of payloads between memories of a channel.
//!
//! The C library moves blocks above 2 KiB by `rep movsb`, which on the AMD processors measured writes
//! past the cache of the core: whoever reads the block next, on the same core a few microseconds
//! later, finds it cold. Plain vector loads and stores leave it warm, which halves a 64 KiB call
//! (`docs/adr/0008-copies-that-stay-warm.md`). Small copies stay the C library's.

/// Blocks of at least this size are copied here; below, the C library uses vectors as well.
const LARGE_MIN: usize = 2048;

/// Copies `size` bytes.
///
/// # Safety
/// As for [`core::ptr::copy_nonoverlapping`]: `from` is readable and `to` writable for `size` bytes,
/// and they do not overlap. Bytes that another process changes meanwhile arrive as one or the other.
#[inline]
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, size: usize) {
    #[cfg(target_arch = "x86_64")]
    if size >= LARGE_MIN && std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX; the rest is the caller's duty.
        return unsafe { copy_avx(from, to, size) };
    }
    // SAFETY: the caller's duty.
    unsafe { core::ptr::copy_nonoverlapping(from, to, size) };
}

/// Copies `from` over `to`. Panics if their lengths differ.
#[inline]
pub fn copy_slice(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "a copy fills its place");
    // SAFETY: both are slices of that length, and an exclusive one overlaps no other.
    unsafe { copy(from.as_ptr(), to.as_mut_ptr(), from.len()) };
}

/// Four vectors at a time; what is left is the C library's.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn copy_avx(from: *const u8, to: *mut u8, size: usize) {
    use core::arch::x86_64::{__m256i, _mm256_loadu_si256, _mm256_storeu_si256};

    const STEP: usize = 4 * size_of::<__m256i>();
    let steps = size / STEP;
    for step in 0..steps {
        // SAFETY: step < steps, so this step's bytes end within `size`.
        let source = unsafe { from.add(step * STEP) }.cast::<__m256i>();
        // SAFETY: the same.
        let target = unsafe { to.add(step * STEP) }.cast::<__m256i>();
        let load = |vector| {
            // SAFETY: one of the step's four vectors.
            let vector = unsafe { source.add(vector) };
            // SAFETY: readable by the caller's promise.
            unsafe { _mm256_loadu_si256(vector) }
        };
        let vectors = [load(0), load(1), load(2), load(3)];
        for (index, vector) in vectors.into_iter().enumerate() {
            // SAFETY: one of the step's four vectors.
            let place = unsafe { target.add(index) };
            // SAFETY: writable by the caller's promise.
            unsafe { _mm256_storeu_si256(place, vector) };
        }
    }
    let done = steps * STEP;
    // SAFETY: done <= size.
    let from = unsafe { from.add(done) };
    // SAFETY: done <= size.
    let to = unsafe { to.add(done) };
    // SAFETY: the last size - done bytes of ranges that the caller promises.
    unsafe { core::ptr::copy_nonoverlapping(from, to, size - done) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_every_size_and_alignment_are_exact() {
        let source: Vec<u8> = (0..20_000u32).map(|n| (n % 251) as u8).collect();
        for size in (0..300).chain(2_040..2_200).chain([4_096, 10_001, 19_000]) {
            for (from, to) in [(0, 0), (1, 0), (0, 31), (63, 17)] {
                let mut target = vec![0xff; size + 64];
                copy_slice(&source[from..from + size], &mut target[to..to + size]);
                assert_eq!(target[to..to + size], source[from..from + size]);
                assert!(target[..to].iter().chain(&target[to + size..]).all(|byte| *byte == 0xff));
            }
        }
    }
}
