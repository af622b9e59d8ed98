//! The memories of one pair of workers: what caller and callee say to each other, and what the
//! engine orders.
//!
//! Each memory has one writer, whose mapping is the only writable one there will ever be: the
//! engine seals the size, lets the writer map it, seals it against any further writable mapping,
//! and only then passes it to the reader ([`Memory::seal`]). So nobody can change what another
//! wrote, and no access can fault. Whatever is read is a stranger's: copied once, then checked.
//!
//! ```text
//! Direction 0     tail       what its writer has said; the reader's futex word
//!           128   head       what its writer has heard
//!           256   sleeping   its writer sleeps
//!           384   busy_ns    time its writer spent on calls
//!           512   4 slots of 64 bytes
//!           4096  payload, 4 KiB: of the one call that is under way
//! Orders    0     what the engine says to one side: epoch and whether it is revoked
//! ```

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::mem::offset_of;
use core::num::NonZeroUsize;
use core::ops::Deref;
use core::ptr::NonNull;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ipc::doorbell::SleepFlag;
use ipc::spsc::Ring;
use ipc::sync::{AtomicU32, AtomicU64, Slot};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of a call's input or output at most; larger ones go through the engine.
pub const PAYLOAD_MAX: usize = 4096;
/// Slots of a ring. A side is owed an answer and a farewell of this lease and of the last one.
pub const DEPTH: u32 = 4;

/// What one side writes and the other, like the engine, only reads.
#[derive(Debug, Default)]
#[repr(C, align(4096))]
pub struct Direction {
    /// Cursor of what this side said.
    pub tail: Line<AtomicU32>,
    /// Cursor of what this side heard.
    pub head: Line<AtomicU32>,
    /// This side sleeps.
    pub sleeping: Line<SleepFlag>,
    /// Nanoseconds this side spent in functions.
    pub busy_ns: Line<AtomicU64>,
    slots: [Slot; DEPTH as usize],
    payload: Payload,
}

/// What the engine tells one side; that side only reads it, the other does not have it.
#[derive(Debug, Default)]
#[repr(C, align(4096))]
pub struct Orders {
    /// Encoded [`super::lease::Order`].
    pub word: AtomicU32,
}

/// A value alone on a pair of cache lines, which x86 fetches together.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Line<T>(T);

#[derive(Debug)]
#[repr(C, align(4096))]
struct Payload(UnsafeCell<[u8; PAYLOAD_MAX]>);

const _: () = assert!(offset_of!(Direction, head) == 128);
const _: () = assert!(offset_of!(Direction, slots) == 512);
const _: () = assert!(offset_of!(Direction, payload) == 4096);
const _: () = assert!(size_of::<Direction>() == 4096 + PAYLOAD_MAX);

/// What may lie in a memory.
///
/// # Safety
/// Any bits are a valid value and zero is its first; every access through a shared reference is
/// atomic, or a copy by pointers of bytes that mean nothing.
pub unsafe trait Shared {}

// SAFETY: atomics, and the payload, which is only copied by pointers.
unsafe impl Shared for Direction {}
// SAFETY: an atomic.
unsafe impl Shared for Orders {}
// SAFETY: the bytes are reached only through `Direction::write` and `read`, which copy them; two
// at once mix up bytes that the peer may mix up anyway.
unsafe impl Sync for Payload {}

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// The memory's one writer.
    Write,
}

/// A memfd for one `T`, on its way to be mapped.
#[derive(Debug)]
pub struct Memory(OwnedFd);

/// A mapped `T`, unmapped when dropped.
#[derive(Debug)]
pub struct Mapped<T>(NonNull<T>);

// SAFETY: an address; the memory it names belongs to no thread.
unsafe impl<T: Sync> Send for Mapped<T> {}
// SAFETY: gives `&T` only.
unsafe impl<T: Sync> Sync for Mapped<T> {}

impl Memory {
    /// `T` of zeros, its size sealed.
    pub fn create<T: Shared>(name: &CStr) -> io::Result<Memory> {
        let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        nix::unistd::ftruncate(&fd, i64::try_from(size_of::<T>()).map_err(io::Error::other)?)?;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW))?;
        Ok(Memory(fd))
    }

    /// What another process passed: maps it if it is of the right size and that is sealed, since
    /// otherwise an access could fault.
    pub fn received<T: Shared>(fd: OwnedFd, access: Access) -> io::Result<Mapped<T>> {
        let needed = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        let is_sealed = fcntl(&fd, FcntlArg::F_GET_SEALS)? & needed.bits() == needed.bits();
        let size = nix::sys::stat::fstat(&fd)?.st_size;
        if !is_sealed || usize::try_from(size) != Ok(size_of::<T>()) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Memory(fd).map(access)
    }

    /// Maps it.
    pub fn map<T: Shared>(&self, access: Access) -> io::Result<Mapped<T>> {
        let size = NonZeroUsize::new(size_of::<T>()).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = match access {
            Access::Read => ProtFlags::PROT_READ,
            Access::Write => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        // SAFETY: no address is asked for, so no other mapping is touched; the result is reached
        // only through `Mapped`.
        let start = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, &self.0, 0) }?;
        Ok(Mapped(start.cast()))
    }

    /// From now on nobody can map it for writing, write to it or punch holes into it; the mappings
    /// that exist stay as they are.
    pub fn seal(&self) -> io::Result<()> {
        let seals = SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL;
        fcntl(&self.0, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(())
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Direction {
    /// Puts `bytes` where the peer will look for them. Only its writer may call this: for all
    /// others the memory is not writable. Panics if they are more than [`PAYLOAD_MAX`].
    #[inline]
    pub fn write(&self, bytes: &[u8]) {
        assert!(bytes.len() <= PAYLOAD_MAX, "{} bytes for {PAYLOAD_MAX}", bytes.len());
        let to = self.payload.0.get().cast::<u8>();
        // SAFETY: the destination has PAYLOAD_MAX bytes, mapped while `self` is borrowed, and the
        // source is private memory of that size, so they do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Copies the first `size` bytes that the peer put there into `out`. Panics if it asks for
    /// more than [`PAYLOAD_MAX`]: sizes have been checked when a message was decoded.
    #[inline]
    pub fn read(&self, size: usize, out: &mut Vec<u8>) {
        assert!(size <= PAYLOAD_MAX, "{size} bytes of {PAYLOAD_MAX}");
        out.clear();
        out.reserve(size);
        // SAFETY: the source has PAYLOAD_MAX bytes, mapped while `self` is borrowed; the
        // destination has room for `size` since the reserve and is no part of a mapping.
        unsafe {
            core::ptr::copy_nonoverlapping(self.payload.0.get().cast(), out.as_mut_ptr(), size)
        };
        // SAFETY: these bytes have just been written.
        unsafe { out.set_len(size) };
    }
}

impl<T: Shared> Deref for Mapped<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `Memory::map` mapped a whole page-aligned T whose size is sealed; it is unmapped
        // only on drop. `T: Shared` makes any contents valid and any concurrent write defined.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is our own, of that size, and no reference to it outlives `self`.
        let unmapped = unsafe { munmap(self.0.cast(), size_of::<T>()) };
        debug_assert!(unmapped.is_ok(), "munmap of a whole mapping: {unmapped:?}");
    }
}

impl<T> Deref for Line<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl Default for Payload {
    fn default() -> Self {
        Payload(UnsafeCell::new([0; PAYLOAD_MAX]))
    }
}

/// The ring from one side to the other: slots and tail in the speaker's memory, head in the
/// hearer's.
#[derive(Clone, Debug)]
pub struct LeaseRing {
    /// Where the producer writes.
    pub speaker: Arc<Mapped<Direction>>,
    /// Where the consumer writes.
    pub hearer: Arc<Mapped<Direction>>,
}

impl Ring for LeaseRing {
    const DEPTH: u32 = DEPTH;

    #[inline]
    fn tail(&self) -> &AtomicU32 {
        &self.speaker.tail
    }

    #[inline]
    fn head(&self) -> &AtomicU32 {
        &self.hearer.head
    }

    #[inline]
    fn slot(&self, index: u32) -> &Slot {
        &self.speaker.slots[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc;

    #[test]
    fn once_sealed_only_the_first_mapping_can_write() {
        let memory = Memory::create::<Direction>(c"test").unwrap();
        let writer = memory.map::<Direction>(Access::Write).unwrap();
        memory.seal().unwrap();
        assert!(memory.map::<Direction>(Access::Write).is_err());
        let reader = memory.map::<Direction>(Access::Read).unwrap();
        // SAFETY: changes the protection of our own mapping, or does not.
        let changed = unsafe {
            libc::mprotect(
                reader.0.as_ptr().cast(),
                size_of::<Direction>(),
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
        assert_eq!(changed, -1, "a reader made its mapping writable");
        assert!(nix::unistd::write(&memory, b"x").is_err());
        writer.write(b"hello");
        let mut heard = Vec::new();
        reader.read(5, &mut heard);
        assert_eq!(heard, b"hello");
    }

    #[test]
    fn a_memory_whose_size_may_change_is_not_mapped() {
        let fd = memfd_create(c"test", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        nix::unistd::ftruncate(&fd, 8192).unwrap();
        assert!(Memory::received::<Direction>(fd, Access::Read).is_err());
        let small = Memory::create::<Orders>(c"test").unwrap();
        assert!(Memory::received::<Direction>(small.0, Access::Read).is_err());
    }
}
