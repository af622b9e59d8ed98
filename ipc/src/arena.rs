//! Which bytes of one fixed range are taken. Bookkeeping is private to whoever allocates, so the
//! other side of the channel cannot confuse it.
//!
//! First fit over a short sorted list: a lane has at most a few tens of blocks alive, most often
//! one, which then always gets the same warm bytes at the start. Nothing allocates after `new`.

/// Blocks of one range at most: every outstanding call's, the running one's and its pipeline's, with some to
/// spare for what a worker prepares.
pub const BLOCKS_MAX: usize = 64;
const _: () = {
    use crate::layout::{CALLS_OUTSTANDING_MAX, PIPELINE_MAX};
    assert!(CALLS_OUTSTANDING_MAX as usize + 1 + (PIPELINE_MAX as usize) < BLOCKS_MAX);
};

/// Blocks begin at multiples of a cache line.
const ALIGN: usize = 64;

/// Hands out byte ranges below a fixed size.
#[derive(Debug)]
pub struct RangeAllocator {
    size: usize,
    /// Sorted by start, disjoint, never longer than `BLOCKS_MAX`.
    taken: Vec<Taken>,
    high_water: usize,
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    start: usize,
    end: usize,
}

impl RangeAllocator {
    /// Over `0..size`, all free.
    #[must_use]
    pub fn new(size: usize) -> Self {
        RangeAllocator { size, taken: Vec::with_capacity(BLOCKS_MAX), high_water: 0 }
    }

    /// The start of `size` free bytes, now taken; `None` if there is no such hole. `size` of zero
    /// takes nothing and must not be freed.
    #[must_use]
    pub fn allocate(&mut self, size: usize) -> Option<usize> {
        if size == 0 {
            return Some(0);
        }
        if self.taken.len() == BLOCKS_MAX {
            return None;
        }
        let size = size.checked_next_multiple_of(ALIGN)?;
        let mut start = 0;
        let mut place = 0;
        for taken in &self.taken {
            if taken.start - start >= size {
                break;
            }
            start = taken.end;
            place += 1;
        }
        let end = start.checked_add(size)?;
        if end > self.size {
            return None;
        }
        self.taken.insert(place, Taken { start, end });
        self.high_water = self.high_water.max(end);
        Some(start)
    }

    /// Frees what `allocate` returned. False if nothing taken begins there.
    pub fn free(&mut self, start: usize) -> bool {
        match self.taken.binary_search_by_key(&start, |taken| taken.start) {
            Ok(place) => {
                self.taken.remove(place);
                true
            }
            Err(_) => false,
        }
    }

    /// Blocks taken now.
    #[must_use]
    pub fn live(&self) -> usize {
        self.taken.len()
    }

    /// End of the highest block since `new` or the last `lower_high_water`.
    #[must_use]
    pub fn high_water(&self) -> usize {
        self.high_water
    }

    /// Forgets how high blocks once reached: the memory above those that live was given back.
    pub fn lower_high_water(&mut self) {
        self.high_water = self.taken.last().map_or(0, |taken| taken.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lone_block_always_gets_the_first_bytes() {
        let mut range = RangeAllocator::new(4096);
        for _ in 0..100 {
            assert_eq!(range.allocate(1000), Some(0));
            assert!(range.free(0));
        }
        assert_eq!((range.live(), range.high_water()), (0, 1024));
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let mut range = RangeAllocator::new(4096);
        assert_eq!(range.allocate(usize::MAX), None);
        assert_eq!(range.allocate(usize::MAX - 63), None);
        assert_eq!(range.allocate(4097), None);
        assert_eq!(range.allocate(4096), Some(0));
        assert_eq!(range.allocate(1), None);
        assert!(!range.free(64));
    }

    proptest! {
        #[test]
        fn blocks_never_overlap_and_a_freed_range_is_whole_again(
            steps in prop::collection::vec(
                (any::<bool>(), 1usize..3000, any::<prop::sample::Index>()), 1..300)
        ) {
            let mut range = RangeAllocator::new(16 << 10);
            let mut live: Vec<(usize, usize)> = Vec::new();
            for (allocates, size, which) in steps {
                if allocates {
                    match range.allocate(size) {
                        Some(start) => {
                            prop_assert!(start + size <= 16 << 10);
                            let apart = |&(s, n): &(usize, usize)| start + size <= s || s + n <= start;
                            prop_assert!(live.iter().all(apart));
                            live.push((start, size));
                        }
                        None => prop_assert!(!live.is_empty()),
                    }
                } else if !live.is_empty() {
                    let (start, _) = live.swap_remove(which.index(live.len()));
                    prop_assert!(range.free(start));
                }
                prop_assert_eq!(range.live(), live.len());
            }
            for (start, _) in live {
                prop_assert!(range.free(start));
            }
            prop_assert_eq!(range.allocate(16 << 10), Some(0));
        }
    }
}
