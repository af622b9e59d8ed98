//! A worker's end of its lane, in the container. The engine is trusted here; what it cannot have
//! said is still a [`Fault`], and ends the container.

use core::sync::atomic::{AtomicU64, Ordering};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::arena::RangeAllocator;
use crate::descriptor::{Block, Descriptor, Region, ToEngine, ToWorker};
use crate::doorbell::{READY_WORDS, ReadyMap, SleepFlag};
use crate::fault::{Fault, NoSpace};
use crate::layout::{ENGINE_ARMED, Geometry, HEADER, LaneIndex, READY};
use crate::memory::{
    Access, Header, MapError, MappedRef, MappedRing, Mapping, SEALS_A, SEALS_B, check, locate,
};
use crate::spsc::{Consumer, Producer, PushError};

/// The container's mapping of a channel, shared by its workers.
#[derive(Debug)]
pub struct WorkerChannel {
    geometry: Geometry,
    a: Arc<Mapping>,
    b: Arc<Mapping>,
    /// In A: the engine sleeps and wants to be rung.
    armed: MappedRef<SleepFlag, Arc<Mapping>>,
    /// In B: lanes that have spoken.
    ready: MappedRef<ReadyMap, Arc<Mapping>>,
    bell: OwnedFd,
    /// Lanes that have a [`WorkerLane`]: two would write the same ring.
    claimed: [AtomicU64; READY_WORDS],
}

/// One worker's end of its lane.
#[derive(Debug)]
pub struct WorkerLane {
    channel: Arc<WorkerChannel>,
    index: LaneIndex,
    producer: Producer<MappedRing<Arc<Mapping>>>,
    consumer: Consumer<MappedRing<Arc<Mapping>>>,
    sleeping: MappedRef<SleepFlag, Arc<Mapping>>,
    outbound: RangeAllocator,
    epoll: Epoll,
    /// Held only so that the epoll has something to watch.
    _doorbell: OwnedFd,
    state: LaneState,
}

/// Memory of the outbound arena, for one block.
#[derive(Debug, PartialEq, Eq)]
pub struct OutboundBuffer {
    offset: usize,
    size: usize,
}

/// What keeps a worker from its lane.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The channel has no such lane.
    #[error("lane {0} of a channel of {1} lanes")]
    NoSuchLane(u16, u16),
    /// The lane has a worker in this process.
    #[error("lane {0} has a worker already")]
    Claimed(u16),
    /// The system refused.
    #[error("waiting on a doorbell: {0}")]
    System(#[from] io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneState {
    Open,
    Retired,
}

impl WorkerChannel {
    /// Checks and maps what the engine passed, and closes the memory's descriptors.
    pub fn map(
        geometry: Geometry,
        a: OwnedFd,
        b: OwnedFd,
        bell: OwnedFd,
    ) -> Result<WorkerChannel, MapError> {
        check("A", a.as_fd(), geometry.a_size(), SEALS_A)?;
        check("B", b.as_fd(), geometry.b_size(), SEALS_B)?;
        let a = Arc::new(Mapping::new(a, geometry.a_size(), Access::Read)?);
        let b = Arc::new(Mapping::new(b, geometry.b_size(), Access::Write)?);
        Mapping::shared::<Header, _>(&a, HEADER).check(geometry)?;
        Ok(WorkerChannel {
            geometry,
            armed: Mapping::shared(&a, ENGINE_ARMED),
            ready: Mapping::shared(&b, READY),
            a,
            b,
            bell,
            claimed: Default::default(),
        })
    }

    /// The sizes it was mapped with.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// True if the lane was free and is now the caller's.
    // SYNC(claim): acquire here, release in `unclaim`: the next worker of a lane comes after the
    // last one is done with it.
    fn claim(&self, lane: LaneIndex) -> bool {
        let bit = 1 << (lane.0 % 64);
        self.claimed[lane.0 as usize / 64].fetch_or(bit, Ordering::Acquire) & bit == 0
    }

    fn unclaim(&self, lane: LaneIndex) {
        let bit = 1u64 << (lane.0 % 64);
        self.claimed[lane.0 as usize / 64].fetch_and(!bit, Ordering::Release);
    }
}

impl WorkerLane {
    /// For a lane that the engine has just opened: `doorbell` is the eventfd that came with it.
    pub fn new(
        channel: Arc<WorkerChannel>,
        lane: LaneIndex,
        doorbell: OwnedFd,
    ) -> Result<WorkerLane, LaneError> {
        let geometry = channel.geometry;
        if !geometry.has(lane) {
            return Err(LaneError::NoSuchLane(lane.0, geometry.lanes()));
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io::Error::from)?;
        let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&doorbell, EpollEvent::new(events, 0)).map_err(io::Error::from)?;
        if !channel.claim(lane) {
            return Err(LaneError::Claimed(lane.0));
        }
        let (a, b) = (&channel.a, &channel.b);
        Ok(WorkerLane {
            index: lane,
            producer: Producer::new(MappedRing::to_engine(geometry, lane, a, b)),
            consumer: Consumer::new(MappedRing::to_worker(geometry, lane, a, b)),
            sleeping: Mapping::shared(b, geometry.sleeping(lane)),
            outbound: RangeAllocator::new(geometry.extent_size()),
            epoll,
            _doorbell: doorbell,
            state: LaneState::Open,
            channel,
        })
    }

    /// Which lane it is.
    #[must_use]
    pub fn index(&self) -> LaneIndex {
        self.index
    }

    /// The engine's next message, if there is one.
    #[inline]
    pub fn receive(&mut self) -> Result<Option<ToWorker>, Fault> {
        self.check_open()?;
        let Some(words) = self.consumer.pop()? else { return Ok(None) };
        Ok(Some(ToWorker::decode(&Descriptor(words))?))
    }

    /// Whether the engine has said something that is not received yet.
    #[inline]
    pub fn has_next(&mut self) -> Result<bool, Fault> {
        Ok(!self.consumer.is_empty()?)
    }

    /// Publishes a message and says that this lane has spoken; `ring` comes after the last of a
    /// batch. While the ring is full it rings and yields: the engine reads on, or is gone and
    /// ends this process with it. After `Retired` the lane is no longer ours: anything is a fault.
    #[inline]
    pub fn publish(&mut self, message: &ToEngine) -> Result<(), Fault> {
        self.check_open()?;
        if *message == ToEngine::Retired {
            // Before the engine can see it: it may open the lane again at once.
            self.state = LaneState::Retired;
            self.channel.unclaim(self.index);
        }
        let words = message.encode().0;
        loop {
            match self.producer.push(words) {
                Ok(()) => break,
                Err(PushError::Full) => self.wait_for_room()?,
                Err(PushError::Cursor(fault)) => return Err(fault.into()),
            }
        }
        self.channel.ready.set(self.index);
        Ok(())
    }

    /// After publishing: wakes the engine if it sleeps. Not needed for a `Release` alone, which
    /// the engine may as well find later. Owed at last before `wait`.
    #[inline]
    pub fn ring(&self) -> Result<(), Fault> {
        if !self.channel.armed.must_ring() {
            return Ok(());
        }
        match nix::unistd::write(&self.channel.bell, &1u64.to_ne_bytes()) {
            // A full counter means that 2^64 - 2 rings are unread: the bell is not silent.
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sleeps until the engine may have said something. Returns at once if it has.
    ///
    /// The eventfd is watched edge-triggered and never read: each ring is an edge of its own, and
    /// a read would cost a system call a wake-up.
    pub fn wait(&mut self) -> Result<(), Fault> {
        self.check_open()?;
        self.sleeping.announce();
        let slept = match self.consumer.is_empty() {
            Ok(true) => self.sleep(),
            Ok(false) => Ok(()),
            Err(fault) => Err(fault.into()),
        };
        self.sleeping.clear();
        slept
    }

    /// Envelope and payload of a block that the engine sent. The bytes stay as they are until the
    /// block's token is released, or, for a `Dispatch`, until its call is completed: longer than
    /// the borrow, for who must keep a pointer.
    pub fn inbound(&self, block: &Block) -> Result<(&[u8], &[u8]), Fault> {
        let mapping = match block.region {
            Region::Small => &self.channel.a,
            Region::Large => &self.channel.b,
            Region::Outbound => return Err(Fault::Region(block.region)),
        };
        let offset = locate(self.channel.geometry, self.index, block)?;
        let start = mapping.bytes(offset, block.size());
        // SAFETY: `bytes` checked the range, mapped while `self.channel` lives. The engine does
        // not write a block that it has sent until it is given back, and no `&mut` to these
        // regions is ever made in this process.
        let bytes = unsafe { core::slice::from_raw_parts(start.as_ptr(), block.size()) };
        Ok(bytes.split_at(block.envelope_size as usize))
    }

    /// Room in the outbound arena for an envelope and a payload.
    pub fn allocate(&mut self, size: usize) -> Result<OutboundBuffer, NoSpace> {
        let offset = self.outbound.allocate(size).ok_or(NoSpace { size })?;
        Ok(OutboundBuffer { offset, size })
    }

    /// The bytes of a buffer, to be filled before its block is published. They are of earlier
    /// calls until then.
    pub fn outbound_mut(&mut self, buffer: &OutboundBuffer) -> &mut [u8] {
        let geometry = self.channel.geometry;
        let start = geometry.outbound(self.index) + buffer.offset;
        // A buffer of another channel's lane could lie past this lane's region.
        assert!(buffer.offset + buffer.size <= geometry.extent_size(), "a stranger's buffer");
        let start = self.channel.b.bytes(start, buffer.size);
        // SAFETY: the range is within this lane's outbound region (asserted), mapped for writing
        // while `self.channel` lives. Only this lane, mutably borrowed, makes references to that
        // region in this process, and the engine only reads it.
        unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), buffer.size) }
    }

    /// Gives a buffer back, once the engine is done with its block: a call's when it is answered,
    /// a completion's when a `Dispatch` counts it as read, or `Retire` arrives.
    pub fn free(&mut self, buffer: OutboundBuffer) {
        if buffer.size == 0 {
            return;
        }
        let was_taken = self.outbound.free(buffer.offset);
        debug_assert!(was_taken, "freed a buffer that is not allocated: {buffer:?}");
        self.channel.b.trim(self.channel.geometry.outbound(self.index), &mut self.outbound);
    }

    /// Names the first bytes of a buffer in a message. Panics if it has not that many.
    #[must_use]
    pub fn block(
        &self,
        buffer: &OutboundBuffer,
        envelope_size: usize,
        payload_size: usize,
    ) -> Block {
        let fits = envelope_size.checked_add(payload_size).is_some_and(|size| size <= buffer.size);
        assert!(fits, "{envelope_size} + {payload_size} bytes in a buffer of {}", buffer.size);
        let size = |size| u32::try_from(size).expect("an extent is smaller than 2^33, a part 2^32");
        Block {
            region: Region::Outbound,
            offset: buffer.offset as u64,
            envelope_size: size(envelope_size),
            payload_size: size(payload_size),
        }
    }

    #[inline]
    fn check_open(&self) -> Result<(), Fault> {
        match self.state {
            LaneState::Open => Ok(()),
            LaneState::Retired => Err(Fault::Retired),
        }
    }

    #[cold]
    fn wait_for_room(&self) -> Result<(), Fault> {
        self.ring()?;
        std::thread::yield_now();
        Ok(())
    }

    fn sleep(&self) -> Result<(), Fault> {
        loop {
            match self.epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl OutboundBuffer {
    /// Bytes of it.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
}

impl Drop for WorkerLane {
    fn drop(&mut self) {
        if self.state == LaneState::Open {
            self.channel.unclaim(self.index);
        }
    }
}
