//! A shard's end of a channel. Everything read from B is a stranger's: copied once, then checked;
//! whatever is wrong is a [`Fault`], for which the caller closes that container.
//!
//! The engine makes no system call on a descriptor that the container holds: it hands out
//! [`EngineLane::doorbell`] for its reactor to ring.

use core::ptr::NonNull;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::arena::RangeAllocator;
use crate::copy::copy;
use crate::descriptor::{Block, Descriptor, Region, ToEngine, ToWorker};
use crate::doorbell::{READY_WORDS, ReadyMap, SleepFlag};
use crate::envelope::Sink;
use crate::fault::{Fault, NoSpace};
use crate::layout::{
    self, ENGINE_ARMED, ENVELOPE_MAX, Geometry, HEADER, INBOUND_SMALL, LaneIndex, READY,
};
use crate::memory::{
    Access, Header, MappedRef, MappedRing, Mapping, SEALS_A, SEALS_B, create, locate, seal,
};
pub use crate::shared_block::{DropList, SharedBlock, SharedSlice};
use crate::spsc::{Consumer, Producer};
use crate::sync::Ordering;

/// The engine's end of a channel between one shard and one container.
#[derive(Debug)]
pub struct EngineChannel {
    geometry: Geometry,
    /// Written by the engine alone.
    a: Rc<Mapping>,
    /// Written by the container.
    b: Rc<Mapping>,
    /// In A: the engine sleeps and wants to be rung.
    armed: MappedRef<SleepFlag, Rc<Mapping>>,
    /// In B: lanes that have spoken.
    ready: MappedRef<ReadyMap, Rc<Mapping>>,
    bell: OwnedFd,
    lanes: Vec<Option<Box<EngineLane>>>,
    /// A bit for each open lane.
    open: [u64; READY_WORDS],
}

/// What the container gets of a channel. The engine closes its copies when they are sent.
#[derive(Debug)]
pub struct ChannelFds {
    /// Memory A, which can only be mapped for reading.
    pub a: OwnedFd,
    /// Memory B.
    pub b: OwnedFd,
    /// The eventfd by which workers wake the engine.
    pub bell: OwnedFd,
}

/// The engine's end of one worker's lane.
#[derive(Debug)]
pub struct EngineLane {
    geometry: Geometry,
    index: LaneIndex,
    a: Rc<Mapping>,
    b: Rc<Mapping>,
    producer: Producer<MappedRing<Rc<Mapping>>>,
    consumer: Consumer<MappedRing<Rc<Mapping>>>,
    sleeping: MappedRef<SleepFlag, Rc<Mapping>>,
    doorbell: OwnedFd,
    small: RangeAllocator,
    large: RangeAllocator,
}

/// A reserved inbound block being filled: the envelope first, then the payload. Dropped
/// unfinished, it gives the memory back.
#[derive(Debug)]
pub struct BlockWriter<'a> {
    lane: &'a mut EngineLane,
    block: Block,
    /// Where `block` begins in this process.
    start: NonNull<u8>,
    filled: usize,
}

impl EngineChannel {
    /// Makes, maps and seals both memories, and the eventfd that the container rings.
    pub fn create(geometry: Geometry) -> io::Result<(EngineChannel, ChannelFds)> {
        let a_fd = create(c"nightcore-a", geometry.a_size())?;
        let b_fd = create(c"nightcore-b", geometry.b_size())?;
        let a = Rc::new(Mapping::new(&a_fd, geometry.a_size(), Access::Write)?);
        let b = Rc::new(Mapping::new(&b_fd, geometry.b_size(), Access::Write)?);
        Mapping::shared::<Header, _>(&a, HEADER).write(geometry);
        seal(a_fd.as_fd(), SEALS_A)?;
        seal(b_fd.as_fd(), SEALS_B)?;
        let bell = eventfd(0)?;
        let fds = ChannelFds { a: a_fd, b: b_fd, bell: bell.try_clone()? };
        let channel = EngineChannel {
            geometry,
            armed: Mapping::shared(&a, ENGINE_ARMED),
            ready: Mapping::shared(&b, READY),
            a,
            b,
            bell,
            lanes: (0..geometry.lanes()).map(|_| None).collect(),
            open: [0; READY_WORDS],
        };
        Ok((channel, fds))
    }

    /// The sizes it was made with.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Becomes readable, anew with each ring, when a worker rings the armed engine. Never read.
    #[must_use]
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Asks to be rung. The caller then looks at `has_ready` once more, and only then blocks.
    #[inline]
    pub fn arm(&self) {
        self.armed.announce();
    }

    /// Asks not to be rung: the caller is awake and will look before it sleeps.
    #[inline]
    pub fn disarm(&self) {
        self.armed.clear();
    }

    /// Whether an open lane has spoken.
    #[inline]
    #[must_use]
    pub fn has_ready(&self) -> bool {
        self.ready.any(&self.open)
    }

    /// Takes the bits of the open lanes that have spoken. The caller must then receive from each
    /// until nothing is left, or remember the lane: its bit comes back only when it speaks again.
    #[inline]
    #[must_use]
    pub fn take_ready(&self) -> [u64; READY_WORDS] {
        self.ready.take(&self.open)
    }

    /// Opens a lane for a new worker, with empty rings and arenas, and returns the eventfd to
    /// pass to it. The lane must be closed: its last worker, if any, has said `Retired`.
    pub fn open_lane(&mut self, lane: LaneIndex) -> io::Result<OwnedFd> {
        let Some(place) = self.lanes.get_mut(lane.0 as usize) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such lane"));
        };
        if place.is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the lane is open"));
        }
        let opened = EngineLane::open(self.geometry, lane, &self.a, &self.b)?;
        let doorbell = opened.doorbell.try_clone()?;
        *place = Some(Box::new(opened));
        self.open[lane.0 as usize / 64] |= 1 << (lane.0 % 64);
        Ok(doorbell)
    }

    /// Closes a lane; nothing more is received from it. Blocks already taken from it stay mapped.
    pub fn close_lane(&mut self, lane: LaneIndex) {
        if let Some(place) = self.lanes.get_mut(lane.0 as usize) {
            *place = None;
            self.open[lane.0 as usize / 64] &= !(1 << (lane.0 % 64));
        }
    }

    /// An open lane.
    #[inline]
    #[must_use]
    pub fn lane(&mut self, lane: LaneIndex) -> Option<&mut EngineLane> {
        self.lanes.get_mut(lane.0 as usize)?.as_deref_mut()
    }
}

impl EngineLane {
    fn open(
        geometry: Geometry,
        index: LaneIndex,
        a: &Rc<Mapping>,
        b: &Rc<Mapping>,
    ) -> io::Result<EngineLane> {
        let to_worker = MappedRing::to_worker(geometry, index, a, b);
        let to_engine = MappedRing::to_engine(geometry, index, a, b);
        let sleeping = Mapping::shared::<SleepFlag, _>(b, geometry.sleeping(index));
        // SYNC(open): relaxed; the next worker starts after the socket has passed its eventfd.
        for cursor in [&to_worker.tail, &to_worker.head, &to_engine.tail, &to_engine.head] {
            cursor.store(0, Ordering::Relaxed);
        }
        sleeping.clear();
        Ok(EngineLane {
            geometry,
            index,
            a: Rc::clone(a),
            b: Rc::clone(b),
            producer: Producer::new(to_worker),
            consumer: Consumer::new(to_engine),
            sleeping,
            // Not zero, because the engine rings by adding zero: that has room whatever the
            // container did to the counter, so it never waits, but wakes nobody while it is zero.
            doorbell: eventfd(1)?,
            small: RangeAllocator::new(INBOUND_SMALL),
            large: RangeAllocator::new(geometry.extent_size()),
        })
    }

    /// The eventfd to ring when `must_ring`.
    #[must_use]
    pub fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    /// Publishes a message; `must_ring` comes after it. `Full` is the worker's fault: within
    /// `CALLS_OUTSTANDING_MAX` it is never owed more than the ring holds.
    #[inline]
    pub fn publish(&mut self, message: &ToWorker) -> Result<(), Fault> {
        Ok(self.producer.push(message.encode().0)?)
    }

    /// After publishing: does the worker sleep, so that its doorbell must be rung?
    #[inline]
    #[must_use]
    pub fn must_ring(&self) -> bool {
        self.sleeping.must_ring()
    }

    /// The worker's next message, copied and checked: a block in it may go to `outbound`. Call ids
    /// and tokens are for the caller to check in its tables.
    #[inline]
    pub fn receive(&mut self) -> Result<Option<ToEngine>, Fault> {
        let Some(words) = self.consumer.pop()? else { return Ok(None) };
        let message = ToEngine::decode(&Descriptor(words))?;
        if let ToEngine::Call { block, .. } | ToEngine::Complete { block, .. } = &message {
            locate(self.geometry, self.index, block)?;
        }
        Ok(Some(message))
    }

    /// Room for a block to this worker: in the small arena, or else in the large extent.
    pub fn reserve(
        &mut self,
        envelope_size: usize,
        payload_size: usize,
    ) -> Result<BlockWriter<'_>, NoSpace> {
        let size = envelope_size.saturating_add(payload_size);
        let none = NoSpace { size };
        if envelope_size > ENVELOPE_MAX || payload_size > self.geometry.payload_max() as usize {
            return Err(none);
        }
        let (region, offset) = match self.small.allocate(size) {
            Some(offset) => (Region::Small, offset),
            None => (Region::Large, self.large.allocate(size).ok_or(none)?),
        };
        let block = Block {
            region,
            offset: offset as u64,
            envelope_size: u32::try_from(envelope_size).map_err(|_| none)?,
            payload_size: u32::try_from(payload_size).map_err(|_| none)?,
        };
        let start = match region {
            Region::Small => self.a.bytes(self.geometry.small(self.index) + offset, size),
            _ => self.b.bytes(self.geometry.large(self.index) + offset, size),
        };
        Ok(BlockWriter { lane: self, block, start, filled: 0 })
    }

    /// Frees a block that `reserve` gave and the worker no longer needs.
    pub fn release(&mut self, block: &Block) {
        if block.size() == 0 {
            return;
        }
        // Offsets of our own blocks came from a usize.
        let offset = usize::try_from(block.offset).unwrap_or(usize::MAX);
        let was_taken = match block.region {
            Region::Small => self.small.free(offset),
            Region::Large => {
                let was_taken = self.large.free(offset);
                self.b.trim(self.geometry.large(self.index), &mut self.large);
                was_taken
            }
            Region::Outbound => false,
        };
        debug_assert!(was_taken, "released a block that is not reserved: {block:?}");
    }

    /// Appends the bytes of a block that `reserve` gave and that is not released. Of the large extent
    /// they are what the container left there.
    pub fn copy_inbound(&self, block: &Block, out: &mut Vec<u8>) {
        // Offsets of our own blocks came from a usize.
        let offset = usize::try_from(block.offset).unwrap_or(usize::MAX);
        let (mapping, start) = match block.region {
            Region::Small => (&self.a, self.geometry.small(self.index)),
            _ => (&self.b, self.geometry.large(self.index)),
        };
        SharedBlock::new(mapping, start + offset, block).whole().append_to(out);
    }

    /// Inbound blocks that are not released yet.
    #[must_use]
    pub fn blocks_live(&self) -> usize {
        self.small.live() + self.large.live()
    }

    /// A worker's block, if it lies where and is as large as it may.
    pub fn outbound(&self, block: &Block) -> Result<SharedBlock, Fault> {
        if block.region != Region::Outbound {
            return Err(Fault::Region(block.region));
        }
        let offset = locate(self.geometry, self.index, block)?;
        Ok(SharedBlock::new(&self.b, offset, block))
    }
}

impl BlockWriter<'_> {
    /// Appends bytes. Panics if they exceed what was reserved: sizes are the engine's own.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) {
        let place = self.claim(bytes.len());
        // SAFETY: `bytes` is readable; `claim` checked that `place` has room for them within the
        // block, which is exclusively ours until `finish`; a slice of ours and a block of shared
        // memory do not overlap.
        unsafe { copy(bytes.as_ptr(), place.as_ptr(), bytes.len()) };
    }

    /// Appends a worker's bytes, or copied ones, from memory to memory. Panics as `write` does.
    #[inline]
    pub fn write_shared(&mut self, bytes: &SharedSlice) {
        let place = self.claim(bytes.len());
        // SAFETY: `bytes` is there while it lives and `claim` checked the room. One lies in an
        // outbound region or on the heap and the other in an inbound one, which never overlap. A container that
        // writes meanwhile makes the bytes arbitrary, which they are anyway.
        unsafe { copy(bytes.as_ptr(), place.as_ptr(), bytes.len()) };
    }

    /// The filled block, to be named in a message. Panics if it is not filled: the worker would
    /// read bytes of an earlier call.
    #[must_use]
    pub fn finish(mut self) -> Block {
        assert_eq!(self.filled, self.block.size(), "a block must be filled as it was reserved");
        // What `drop` gives back is empty now.
        core::mem::replace(&mut self.block, Block::empty(Region::Small))
    }

    #[inline]
    fn claim(&mut self, size: usize) -> NonNull<u8> {
        let room = self.block.size() - self.filled;
        assert!(size <= room, "{size} bytes written to a block with room for {room}");
        // SAFETY: filled <= the block's size, and `reserve` had that many bytes checked.
        let place = unsafe { self.start.add(self.filled) };
        self.filled += size;
        place
    }
}

impl Sink for BlockWriter<'_> {
    #[inline]
    fn append(&mut self, bytes: &[u8]) {
        self.write(bytes);
    }
}

impl Drop for BlockWriter<'_> {
    fn drop(&mut self) {
        self.lane.release(&self.block);
    }
}

/// Non-blocking, or each ring by the engine's reactor would be punted to a kernel thread: 107 us
/// a relay instead of 9 (`docs/ring.md`).
fn eventfd(count: u32) -> io::Result<OwnedFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    Ok(OwnedFd::from(EventFd::from_value_and_flags(count, flags)?))
}

const _: () = assert!(INBOUND_SMALL <= layout::RESIDENT_MAX, "the small arena is never trimmed");
