//! A channel's memories: made and sealed by the engine, checked by the container, mapped by both.
//!
//! Everything unsafe about sharing is here or one step away: a [`Mapping`] hands out references
//! only to atomics ([`Shared`]), and pointers to payload bytes only within its bounds.

use core::ffi::CStr;
use core::mem::offset_of;
use core::num::NonZeroUsize;
use core::ops::Deref;
use core::ptr::NonNull;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};

use crate::arena::RangeAllocator;
use crate::descriptor::{Block, Region};
use crate::doorbell::{ReadyMap, SleepFlag};
use crate::fault::Fault;
use crate::layout::{
    ENVELOPE_MAX, Geometry, INBOUND_SMALL, LAYOUT_VERSION, LaneIndex, MAGIC, PAGE_SIZE,
    RESIDENT_MAX, RING_DEPTH,
};
use crate::spsc::Ring;
use crate::sync::{AtomicU32, AtomicU64, Ordering, Slot};

/// What a memory may be mapped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A mapped memfd; unmapped when dropped. The size of the file is sealed, so no access within the
/// bounds can fault.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    size: usize,
}

/// What a mapping may give references to.
///
/// # Safety
/// Any bits are a valid value, and every access through a shared reference is atomic: another
/// process may write at any time.
pub(crate) unsafe trait Shared {}

// SAFETY: integers behind atomic accesses.
unsafe impl Shared for AtomicU32 {}
// SAFETY: a transparent `AtomicU32`.
unsafe impl Shared for SleepFlag {}
// SAFETY: a transparent array of `AtomicU64`.
unsafe impl Shared for ReadyMap {}
// SAFETY: an array of `Slot`, which is an array of `AtomicU64`.
unsafe impl Shared for Slots {}
// SAFETY: a struct of atomics.
unsafe impl Shared for Header {}

/// What keeps a mapping mapped.
///
/// # Safety
/// While any clone lives, the mapping it derefs to lives and is the same.
pub(crate) unsafe trait Keeper: Clone + Deref<Target = Mapping> {}

// SAFETY: clones of an `Rc` own one immovable value together.
unsafe impl Keeper for Rc<Mapping> {}
// SAFETY: clones of an `Arc` own one immovable value together.
unsafe impl Keeper for Arc<Mapping> {}

/// A reference into a mapping that keeps it mapped.
#[derive(Debug)]
pub(crate) struct MappedRef<T, K> {
    pointer: NonNull<T>,
    _keeper: K,
}

/// Slots of one ring.
pub(crate) type Slots = [Slot; RING_DEPTH as usize];

/// One ring of a lane.
#[derive(Debug)]
pub(crate) struct MappedRing<K> {
    pub(crate) tail: MappedRef<AtomicU32, K>,
    pub(crate) head: MappedRef<AtomicU32, K>,
    pub(crate) slots: MappedRef<Slots, K>,
}

/// First words of A: written by the engine before anyone else maps it, then never.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    lanes: AtomicU32,
    payload_max: AtomicU32,
}

const _: () = assert!(offset_of!(Header, version) == 8);
const _: () = assert!(offset_of!(Header, lanes) == 12);
const _: () = assert!(offset_of!(Header, payload_max) == 16);

/// Memories that are no channel of ours.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Not the size that the geometry gives.
    #[error("memory {memory} has {got} bytes where {expected} are expected")]
    Size {
        /// "A" or "B".
        memory: &'static str,
        /// By the geometry.
        expected: usize,
        /// The file's.
        got: i64,
    },
    /// Not sealed as it must be.
    #[error("memory {memory} has the seals {got:#x} where {expected:#x} are expected")]
    Seals {
        /// "A" or "B".
        memory: &'static str,
        /// `F_SEAL_*`.
        expected: i32,
        /// `F_SEAL_*`.
        got: i32,
    },
    /// A header word that is not what this side writes.
    #[error("the channel's {field} is {got} where {expected} is expected")]
    Header {
        /// Which word.
        field: &'static str,
        /// Ours.
        expected: u64,
        /// As found.
        got: u64,
    },
    /// The system refused.
    #[error("mapping a channel: {0}")]
    System(#[from] io::Error),
}

/// Seals of A: nobody but who has mapped it already can ever write.
pub(crate) const SEALS_A: SealFlag = SealFlag::F_SEAL_SHRINK
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_FUTURE_WRITE)
    .union(SealFlag::F_SEAL_SEAL);
/// Seals of B: its size is fixed, so no access of the engine can fault.
pub(crate) const SEALS_B: SealFlag =
    SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

/// A memory of `size` zero bytes that take no pages until written.
pub(crate) fn create(name: &CStr, size: usize) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let size = i64::try_from(size).map_err(io::Error::other)?;
    nix::unistd::ftruncate(&fd, size)?;
    Ok(fd)
}

pub(crate) fn seal(fd: BorrowedFd<'_>, seals: SealFlag) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

/// Whether `fd` is a memory of that size with those seals, or more.
pub(crate) fn check(
    memory: &'static str,
    fd: BorrowedFd<'_>,
    size: usize,
    seals: SealFlag,
) -> Result<(), MapError> {
    let got = fcntl(fd, FcntlArg::F_GET_SEALS).map_err(io::Error::from)?;
    if got & seals.bits() != seals.bits() {
        return Err(MapError::Seals { memory, expected: seals.bits(), got });
    }
    let got = nix::sys::stat::fstat(fd).map_err(io::Error::from)?.st_size;
    if i64::try_from(size) != Ok(got) {
        return Err(MapError::Size { memory, expected: size, got });
    }
    Ok(())
}

impl Mapping {
    /// Maps all of a memory that is, or will be before anyone else holds it, sealed to `size`.
    pub(crate) fn new(fd: impl AsFd, size: usize, access: Access) -> io::Result<Mapping> {
        let length = NonZeroUsize::new(size).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = match access {
            Access::Read => ProtFlags::PROT_READ,
            Access::Write => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: no address is asked for, so the kernel takes a free range and no other mapping
        // is touched; the result is accessed only through this type.
        let start = unsafe { mmap(None, length, protection, flags, fd, 0) }?;
        Ok(Mapping { start: start.cast(), size })
    }

    /// A pointer to `size` bytes at `offset`. Panics if they are not all within the mapping:
    /// offsets come from the layout, and blocks have been checked.
    #[inline]
    pub(crate) fn bytes(&self, offset: usize, size: usize) -> NonNull<u8> {
        assert!(
            offset <= self.size && size <= self.size - offset,
            "{size} bytes at {offset} in a mapping of {}",
            self.size
        );
        // SAFETY: offset <= size, so the result is within the mapping or one past its end, and
        // the mapping is one allocation that does not wrap.
        unsafe { self.start.add(offset) }
    }

    /// A reference to a `T` at `offset`, which must be aligned for it.
    pub(crate) fn shared<T: Shared, K: Keeper>(keeper: &K, offset: usize) -> MappedRef<T, K> {
        let pointer = keeper.bytes(offset, size_of::<T>()).cast::<T>();
        assert!(pointer.is_aligned(), "offset {offset} is not aligned for its field");
        MappedRef { pointer, _keeper: keeper.clone() }
    }

    /// Gives back what `range`, which begins at `start` of this mapping, keeps resident above
    /// `RESIDENT_MAX`, once it is idle.
    pub(crate) fn trim(&self, start: usize, range: &mut RangeAllocator) {
        if range.live() > 0 || range.high_water() <= RESIDENT_MAX {
            return;
        }
        let size = range.high_water().next_multiple_of(PAGE_SIZE) - RESIDENT_MAX;
        let hole = self.bytes(start + RESIDENT_MAX, size);
        // SAFETY: the hole is within this shared mapping (`bytes` checked), and no block is live
        // in it, so nobody relies on its contents; reading a hole gives zeros.
        let punched = unsafe { madvise(hole.cast(), size, MmapAdvise::MADV_REMOVE) };
        // Only an economy: where the system refuses, the pages stay and are used again.
        let _ = punched;
        range.lower_high_water();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `size` are those of our own mmap, and whatever points into it holds
        // a keeper, so nothing does any more.
        let unmapped = unsafe { munmap(self.start.cast(), self.size) };
        debug_assert!(unmapped.is_ok(), "munmap of a whole mapping: {unmapped:?}");
    }
}

// SAFETY: the value is an address and a size; the memory it names belongs to no thread.
unsafe impl Send for Mapping {}
// SAFETY: a shared `Mapping` gives only references to atomics, and raw pointers.
unsafe impl Sync for Mapping {}

impl<T, K> Deref for MappedRef<T, K> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `Mapping::shared` checked bounds and alignment; the keeper keeps the memory
        // mapped; `T: Shared` makes any contents valid and any concurrent write defined.
        unsafe { self.pointer.as_ref() }
    }
}

// SAFETY: a reference to a `T` that is `Sync`, and a keeper that may itself be sent.
unsafe impl<T: Sync, K: Send> Send for MappedRef<T, K> {}
// SAFETY: gives `&T` of a `Sync` T, and nothing of the keeper.
unsafe impl<T: Sync, K: Sync> Sync for MappedRef<T, K> {}

impl<K: Keeper> MappedRing<K> {
    /// The ring to a lane's worker.
    pub(crate) fn to_worker(geometry: Geometry, lane: LaneIndex, a: &K, b: &K) -> Self {
        MappedRing {
            tail: Mapping::shared(a, geometry.to_worker_tail(lane)),
            head: Mapping::shared(b, geometry.to_worker_head(lane)),
            slots: Mapping::shared(a, geometry.to_worker_slots(lane)),
        }
    }

    /// The ring from a lane's worker.
    pub(crate) fn to_engine(geometry: Geometry, lane: LaneIndex, a: &K, b: &K) -> Self {
        MappedRing {
            tail: Mapping::shared(b, geometry.to_engine_tail(lane)),
            head: Mapping::shared(a, geometry.to_engine_head(lane)),
            slots: Mapping::shared(b, geometry.to_engine_slots(lane)),
        }
    }
}

impl<K> Ring for MappedRing<K> {
    const DEPTH: u32 = RING_DEPTH;

    #[inline]
    fn tail(&self) -> &AtomicU32 {
        &self.tail
    }

    #[inline]
    fn head(&self) -> &AtomicU32 {
        &self.head
    }

    #[inline]
    fn slot(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }
}

impl Header {
    /// The engine's, before it passes the memory on.
    // SYNC(header): relaxed; the socket that passes the descriptors orders it.
    pub(crate) fn write(&self, geometry: Geometry) {
        self.magic.store(MAGIC, Ordering::Relaxed);
        self.version.store(LAYOUT_VERSION, Ordering::Relaxed);
        self.lanes.store(u32::from(geometry.lanes()), Ordering::Relaxed);
        self.payload_max.store(geometry.payload_max(), Ordering::Relaxed);
    }

    /// The container's, when it has mapped it.
    pub(crate) fn check(&self, geometry: Geometry) -> Result<(), MapError> {
        let words = [
            ("magic", MAGIC, self.magic.load(Ordering::Relaxed)),
            ("version", LAYOUT_VERSION.into(), self.version.load(Ordering::Relaxed).into()),
            ("lanes", geometry.lanes().into(), self.lanes.load(Ordering::Relaxed).into()),
            (
                "payload_max",
                geometry.payload_max().into(),
                self.payload_max.load(Ordering::Relaxed).into(),
            ),
        ];
        for (field, expected, got) in words {
            if got != expected {
                return Err(MapError::Header { field, expected, got });
            }
        }
        Ok(())
    }
}

/// Where a block lies in the memory of its region, if all of it lies within the lane's region and
/// within the channel's limits.
#[inline]
pub(crate) fn locate(geometry: Geometry, lane: LaneIndex, block: &Block) -> Result<usize, Fault> {
    let (start, region_size) = match block.region {
        Region::Small => (geometry.small(lane), INBOUND_SMALL),
        Region::Large => (geometry.large(lane), geometry.extent_size()),
        Region::Outbound => (geometry.outbound(lane), geometry.extent_size()),
    };
    if block.envelope_size as usize > ENVELOPE_MAX {
        return Err(Fault::EnvelopeSize { size: block.envelope_size as usize, max: ENVELOPE_MAX });
    }
    if block.payload_size > geometry.payload_max() {
        let (size, max) = (block.payload_size as usize, geometry.payload_max() as usize);
        return Err(Fault::PayloadSize { size, max });
    }
    match usize::try_from(block.offset) {
        // The size has just been bounded, so neither side of the comparison wraps.
        Ok(offset) if offset <= region_size && block.size() <= region_size - offset => {
            Ok(start + offset)
        }
        _ => Err(Fault::OutOfRange { offset: block.offset, size: block.size(), region_size }),
    }
}
