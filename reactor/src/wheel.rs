//! Timers: a hierarchical wheel (Varghese and Lauck, 1987) of 64 slots a level, one bitmap a level.
//!
//! A timer sits in the level of the highest six bits in which its tick differs from the wheel's
//! present, so it moves down at most once a level. Eleven levels cover every 64-bit tick: no range
//! to exceed. Slots are doubly linked lists through one vector, so a timer allocates only when
//! there are more at once than ever before.
//!
//! Invariant: no occupied slot of any level lies before the present one, so the first bit set in
//! the first non-empty level is the next slot due.

use crate::clock::Nanos;
use std::time::Duration;

const SLOT_BITS: u32 = 6;
const SLOTS: u32 = 1 << SLOT_BITS;
const LEVELS: u32 = 11;
const _: () = assert!(LEVELS * SLOT_BITS >= u64::BITS);
const _: () = assert!(SLOTS == u64::BITS);

/// A timer in a [`Wheel`]. A handle to one that is over is harmless.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Timer {
    index: u32,
    generation: u32,
}

/// Timers by deadline, each with a value that [`Wheel::expire`] hands out.
///
/// Never early, and late by at most one tick. Call `expire` every turn of the loop, due or not: it
/// is a few instructions, and keeps the wheel's present close to the real one.
pub struct Wheel<T: Copy> {
    tick_ns: u64,
    /// The tick up to which everything has expired.
    present: u64,
    levels: [Level; LEVELS as usize],
    entries: Vec<Entry<T>>,
    /// Head of the list of unused entries, through `next`.
    free: Option<u32>,
    count: usize,
}

#[derive(Clone, Copy)]
struct Level {
    /// Bit i: slot i is not empty.
    occupied: u64,
    slots: [Option<u32>; SLOTS as usize],
}

struct Entry<T> {
    value: T,
    tick: u64,
    generation: u32,
    /// Where it is; `None` while unused.
    place: Option<Place>,
    previous: Option<u32>,
    next: Option<u32>,
}

#[derive(Clone, Copy)]
struct Place {
    level: u32,
    slot: u32,
}

impl<T: Copy> Wheel<T> {
    /// A wheel of the given resolution.
    ///
    /// # Panics
    /// When `tick` is zero.
    #[must_use]
    pub fn new(tick: Duration) -> Wheel<T> {
        let tick_ns = u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX);
        assert!(tick_ns > 0, "a tick of no length");
        let level = Level { occupied: 0, slots: [None; SLOTS as usize] };
        Wheel {
            tick_ns,
            present: 0,
            levels: [level; LEVELS as usize],
            entries: Vec::new(),
            free: None,
            count: 0,
        }
    }

    /// Starts a timer that expires at `at`; one in the past expires next time.
    pub fn insert(&mut self, at: Nanos, value: T) -> Timer {
        // Rounded up: never early.
        let tick = at.0.div_ceil(self.tick_ns).max(self.present);
        let index = match self.free {
            Some(index) => {
                let entry = &mut self.entries[index as usize];
                self.free = entry.next;
                entry.value = value;
                entry.tick = tick;
                index
            }
            None => {
                let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 timers");
                self.entries.push(Entry {
                    value,
                    tick,
                    generation: 0,
                    place: None,
                    previous: None,
                    next: None,
                });
                index
            }
        };
        self.link(index);
        self.count += 1;
        Timer { index, generation: self.entries[index as usize].generation }
    }

    /// Stops a timer. False if it has expired or been stopped already.
    pub fn cancel(&mut self, timer: Timer) -> bool {
        let Some(entry) = self.entries.get(timer.index as usize) else { return false };
        let Some(place) = entry.place else { return false };
        if entry.generation != timer.generation {
            return false;
        }
        let (previous, next) = (entry.previous, entry.next);
        if let Some(next) = next {
            self.entries[next as usize].previous = previous;
        }
        match previous {
            Some(previous) => self.entries[previous as usize].next = next,
            None => {
                let level = &mut self.levels[place.level as usize];
                level.slots[place.slot as usize] = next;
                if next.is_none() {
                    level.occupied &= !(1 << place.slot);
                }
            }
        }
        self.release(timer.index);
        true
    }

    /// Hands the value of every timer due at `now` to `f`, tick by tick.
    pub fn expire(&mut self, now: Nanos, mut f: impl FnMut(T)) {
        let now = now.0 / self.tick_ns;
        while let Some((place, start)) = self.first() {
            if start > now {
                break;
            }
            self.present = start.max(self.present);
            let level = &mut self.levels[place.level as usize];
            level.occupied &= !(1 << place.slot);
            let mut next = level.slots[place.slot as usize].take();
            while let Some(index) = next {
                let entry = &self.entries[index as usize];
                next = entry.next;
                if entry.tick <= self.present {
                    f(entry.value);
                    self.release(index);
                } else {
                    // Moves at least one level down.
                    self.link(index);
                }
            }
        }
        self.present = now.max(self.present);
    }

    /// When [`Wheel::expire`] has something to do next: at the earliest deadline, or before it to
    /// move far timers closer.
    #[must_use]
    pub fn next(&self) -> Option<Nanos> {
        self.first().map(|(_, start)| Nanos(start.saturating_mul(self.tick_ns)))
    }

    /// True if no timer runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first occupied slot and the tick at which it begins.
    fn first(&self) -> Option<(Place, u64)> {
        let level = (0..LEVELS).find(|&level| self.levels[level as usize].occupied != 0)?;
        let slot = self.levels[level as usize].occupied.trailing_zeros();
        let shift = level * SLOT_BITS;
        // Above this level's six bits the slot agrees with the present.
        let above = self.present.checked_shr(shift + SLOT_BITS).unwrap_or(0);
        let base = above.checked_shl(shift + SLOT_BITS).unwrap_or(0);
        let start = base | (u64::from(slot) << shift);
        Some((Place { level, slot }, start))
    }

    /// Puts an entry in front of the slot that its tick belongs to.
    fn link(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let highest = (entry.tick ^ self.present).checked_ilog2().unwrap_or(0);
        let level = highest / SLOT_BITS;
        let [low, ..] = (entry.tick >> (level * SLOT_BITS)).to_le_bytes();
        let slot = u32::from(low) % SLOTS;
        entry.place = Some(Place { level, slot });
        let level = &mut self.levels[level as usize];
        level.occupied |= 1 << slot;
        let next = level.slots[slot as usize].replace(index);
        entry.previous = None;
        entry.next = next;
        if let Some(next) = next {
            self.entries[next as usize].previous = Some(index);
        }
    }

    /// Returns an unlinked entry to the free list.
    fn release(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.place = None;
        entry.next = self.free.replace(index);
        self.count -= 1;
    }
}
