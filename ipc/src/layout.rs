//! Sizes, limits and offsets of a channel's two memories, all computed from a [`Geometry`].
//!
//! **A** is written by the engine only: a header page, then for each lane two cursors, the slots
//! of the ring to the worker, and a small inbound arena. **B** is written by the container: a
//! header page, then for each lane two cursors and a sleep flag, the slots of the ring to the
//! engine, and two sparse extents. Words written by different threads never share a line pair
//! (128 bytes: x86 fetches lines in pairs).

/// Lanes of a channel at most: the width of the ready bitmap.
pub const LANES_MAX: u16 = 256;
/// Slots of a ring.
pub const RING_DEPTH: u32 = 64;
/// Internal calls of one lane that are not yet answered and released, at most.
pub const CALLS_OUTSTANDING_MAX: u32 = 48;
/// Calls that may wait in a lane behind the one that its worker runs, at most.
pub const PIPELINE_MAX: u16 = 10;
/// Bytes of an envelope at most.
pub const ENVELOPE_MAX: usize = 64 * 1024;
/// Bytes of a lane's small inbound arena, in A.
pub const INBOUND_SMALL: usize = 64 * 1024;
/// Largest `payload_max` there may be: keeps the largest channel below 2^43 bytes of addresses.
pub const PAYLOAD_LIMIT: u32 = 1 << 30;
/// Largest blocks that a large extent holds at once.
pub const BLOCKS_PER_EXTENT: usize = 4;
/// What of an idle extent stays resident; the rest is given back to the system. Larger calls pay
/// page faults each time, smaller ones never.
pub const RESIDENT_MAX: usize = 1 << 20;
/// Granularity of mappings and of punched holes.
pub const PAGE_SIZE: usize = 4096;
/// First word of A: "nightcor".
pub const MAGIC: u64 = u64::from_le_bytes(*b"nightcor");
/// Version of this layout and of the messages; a container of another version is refused.
pub const LAYOUT_VERSION: u32 = 3;

/// In A: the header.
pub const HEADER: usize = 0;
/// In A: the engine's sleep flag.
pub const ENGINE_ARMED: usize = LINE_PAIR;
/// In B: the ready bitmap.
pub const READY: usize = 0;

const LINE_PAIR: usize = 128;
const SLOTS_SIZE: usize = RING_DEPTH as usize * 64;

// In A, from the start of a lane.
const A_TAIL: usize = 0;
const A_HEAD: usize = LINE_PAIR;
const A_SLOTS: usize = 2 * LINE_PAIR;
const A_SMALL: usize = A_SLOTS + SLOTS_SIZE;
const A_LANE_SIZE: usize = (A_SMALL + INBOUND_SMALL).next_multiple_of(PAGE_SIZE);

// In B, from the start of a lane.
const B_TAIL: usize = 0;
const B_HEAD: usize = LINE_PAIR;
const B_SLEEPING: usize = 2 * LINE_PAIR;
const B_SLOTS: usize = 3 * LINE_PAIR;
const B_OUTBOUND: usize = (B_SLOTS + SLOTS_SIZE).next_multiple_of(PAGE_SIZE);

/// The engine never finds the ring to a worker full while that worker is honest: beside one answer
/// for each outstanding call there are at most a `Dispatch`, those of a full pipeline, two `Cancel`
/// (one that the worker left unread when it completed, one for the last call in the lane) and a
/// `Retire`.
const _: () = assert!(CALLS_OUTSTANDING_MAX + 4 + (PIPELINE_MAX as u32) < RING_DEPTH);
const _: () = assert!(RING_DEPTH.is_power_of_two());
const _: () = assert!(A_SMALL.is_multiple_of(64) && B_OUTBOUND.is_multiple_of(PAGE_SIZE));
const _: () = assert!(size_of::<usize>() == 8, "offsets are 64 bits wide");
#[cfg(not(loom))]
const _: () = assert!(size_of::<crate::sync::Slot>() == 64);

/// Index of a lane in its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneIndex(pub u16);

/// What a channel's two memories are sized by. Both sides must hold the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    lanes: u16,
    payload_max: u32,
}

/// A size no channel can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// No lane, or more than the ready bitmap has bits.
    #[error("{0} lanes where 1 to {LANES_MAX} are possible")]
    Lanes(u16),
    /// No payload, or one above the limit.
    #[error("a payload limit of {0} bytes where 1 to {PAYLOAD_LIMIT} are possible")]
    PayloadMax(u32),
}

impl Geometry {
    /// Checks the sizes.
    pub const fn new(lanes: u16, payload_max: u32) -> Result<Geometry, GeometryError> {
        if lanes == 0 || lanes > LANES_MAX {
            return Err(GeometryError::Lanes(lanes));
        }
        if payload_max == 0 || payload_max > PAYLOAD_LIMIT {
            return Err(GeometryError::PayloadMax(payload_max));
        }
        Ok(Geometry { lanes, payload_max })
    }

    /// Lanes of the channel.
    #[must_use]
    pub const fn lanes(self) -> u16 {
        self.lanes
    }

    /// Bytes of a payload at most, envelope not counted.
    #[must_use]
    pub const fn payload_max(self) -> u32 {
        self.payload_max
    }

    /// Whether `lane` exists.
    #[must_use]
    pub const fn has(self, lane: LaneIndex) -> bool {
        lane.0 < self.lanes
    }

    /// Bytes of A.
    #[must_use]
    pub const fn a_size(self) -> usize {
        PAGE_SIZE + self.lanes as usize * A_LANE_SIZE
    }

    /// Bytes of B.
    #[must_use]
    pub const fn b_size(self) -> usize {
        PAGE_SIZE + self.lanes as usize * self.b_lane_size()
    }

    /// Bytes of a lane's outbound arena, and of its large inbound extent: a few of the largest
    /// blocks.
    #[must_use]
    pub const fn extent_size(self) -> usize {
        (BLOCKS_PER_EXTENT * (self.payload_max as usize + ENVELOPE_MAX)).next_multiple_of(PAGE_SIZE)
    }

    const fn b_lane_size(self) -> usize {
        B_OUTBOUND + 2 * self.extent_size()
    }

    const fn a_lane(self, lane: LaneIndex) -> usize {
        assert!(self.has(lane), "no such lane");
        PAGE_SIZE + lane.0 as usize * A_LANE_SIZE
    }

    const fn b_lane(self, lane: LaneIndex) -> usize {
        assert!(self.has(lane), "no such lane");
        PAGE_SIZE + lane.0 as usize * self.b_lane_size()
    }

    /// In A: cursor of what the engine pushed to the worker. Panics, as all of these, if there is
    /// no such lane.
    #[must_use]
    pub const fn to_worker_tail(self, lane: LaneIndex) -> usize {
        self.a_lane(lane) + A_TAIL
    }

    /// In A: cursor of what the engine popped.
    #[must_use]
    pub const fn to_engine_head(self, lane: LaneIndex) -> usize {
        self.a_lane(lane) + A_HEAD
    }

    /// In A: slots of the ring to the worker.
    #[must_use]
    pub const fn to_worker_slots(self, lane: LaneIndex) -> usize {
        self.a_lane(lane) + A_SLOTS
    }

    /// In A: the small inbound arena.
    #[must_use]
    pub const fn small(self, lane: LaneIndex) -> usize {
        self.a_lane(lane) + A_SMALL
    }

    /// In B: cursor of what the worker pushed to the engine.
    #[must_use]
    pub const fn to_engine_tail(self, lane: LaneIndex) -> usize {
        self.b_lane(lane) + B_TAIL
    }

    /// In B: cursor of what the worker popped.
    #[must_use]
    pub const fn to_worker_head(self, lane: LaneIndex) -> usize {
        self.b_lane(lane) + B_HEAD
    }

    /// In B: the worker's sleep flag.
    #[must_use]
    pub const fn sleeping(self, lane: LaneIndex) -> usize {
        self.b_lane(lane) + B_SLEEPING
    }

    /// In B: slots of the ring to the engine.
    #[must_use]
    pub const fn to_engine_slots(self, lane: LaneIndex) -> usize {
        self.b_lane(lane) + B_SLOTS
    }

    /// In B: the outbound arena.
    #[must_use]
    pub const fn outbound(self, lane: LaneIndex) -> usize {
        self.b_lane(lane) + B_OUTBOUND
    }

    /// In B: the large inbound extent.
    #[must_use]
    pub const fn large(self, lane: LaneIndex) -> usize {
        self.b_lane(lane) + B_OUTBOUND + self.extent_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_memory_follow_each_other_without_overlap() {
        for (lanes, payload_max) in [(1, 1), (3, 4095), (256, 16 << 20), (256, PAYLOAD_LIMIT)] {
            let geometry = Geometry::new(lanes, payload_max).unwrap();
            let (mut a_end, mut b_end) = (PAGE_SIZE, PAGE_SIZE);
            for lane in (0..lanes).map(LaneIndex) {
                let a = [
                    (geometry.to_worker_tail(lane), LINE_PAIR),
                    (geometry.to_engine_head(lane), LINE_PAIR),
                    (geometry.to_worker_slots(lane), SLOTS_SIZE),
                    (geometry.small(lane), INBOUND_SMALL),
                ];
                let b = [
                    (geometry.to_engine_tail(lane), LINE_PAIR),
                    (geometry.to_worker_head(lane), LINE_PAIR),
                    (geometry.sleeping(lane), LINE_PAIR),
                    (geometry.to_engine_slots(lane), SLOTS_SIZE),
                    (geometry.outbound(lane), geometry.extent_size()),
                    (geometry.large(lane), geometry.extent_size()),
                ];
                for (offset, size) in a {
                    assert!(offset >= a_end && offset.is_multiple_of(64));
                    a_end = offset + size;
                }
                for (offset, size) in b {
                    assert!(offset >= b_end && offset.is_multiple_of(64));
                    b_end = offset + size;
                }
            }
            assert!(a_end <= geometry.a_size() && b_end <= geometry.b_size());
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert_eq!(Geometry::new(0, 1), Err(GeometryError::Lanes(0)));
        assert_eq!(Geometry::new(257, 1), Err(GeometryError::Lanes(257)));
        assert_eq!(Geometry::new(1, 0), Err(GeometryError::PayloadMax(0)));
        assert!(Geometry::new(1, PAYLOAD_LIMIT + 1).is_err());
    }
}
