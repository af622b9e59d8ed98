//! Memory shared with the kernel: the provided-buffer ring that multishot receives fill, and the
//! promise a caller's memory must keep while the kernel reads it.
//!
//! The ring and its buffers are one anonymous mapping, freed when the reactor and every
//! [`ReceiveBuffer`] are gone. A buffer is at any time either the kernel's (its entry is in the
//! ring, or a completion that names it is on its way) or lent out as one `ReceiveBuffer`.

use io_uring::types::BufRingEntry;
use std::cell::Cell;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::{fmt, io, ptr, slice};

/// The most buffers a ring can hold: the kernel's limit.
pub(crate) const BUFFERS_MAX: u16 = 1 << 15;
const PAGE_SIZE: usize = 4096;

/// Parts of a [`StableBuffer`] behind its first. A vector of the kernel's holds all of them.
pub const PARTS_MAX: usize = 16;

/// Memory that may be handed to the kernel for as long as its owner lives: one range, or several to
/// be read in sequence.
///
/// # Safety
/// [`StableBuffer::bytes`] and [`StableBuffer::part`] name memory that stays mapped and readable
/// while `self` lives, wherever the box that holds it moves, and return the same ranges every time.
/// Another process may change the contents.
pub unsafe trait StableBuffer {
    /// Where the bytes are, and how many.
    fn bytes(&self) -> (*const u8, usize);

    /// The same for what follows them: part `index`, from 0. `None` ends them; no more than
    /// [`PARTS_MAX`] are read.
    fn part(&self, index: usize) -> Option<(*const u8, usize)> {
        let _ = index;
        None
    }
}

impl fmt::Debug for dyn StableBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StableBuffer({} bytes)", self.bytes().1)
    }
}

// SAFETY: a vector's heap block stays where it is when the vector moves, and `&self` keeps it from
// growing; an operation in flight holds it by value.
unsafe impl StableBuffer for Vec<u8> {
    fn bytes(&self) -> (*const u8, usize) {
        (self.as_ptr(), self.len())
    }
}

/// Received bytes, in memory of the reactor. Dropping it gives the memory back to the kernel, so
/// hold few and briefly: when all are held, nothing is received.
pub struct ReceiveBuffer {
    ring: Rc<BufferRing>,
    id: u16,
    size: usize,
}

impl Deref for ReceiveBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.ring.buffer(self.id);
        // SAFETY: `lend` checked that `size` bytes lie within buffer `id`, whose mapping `ring`
        // keeps alive and which is initialised (zeroed by mmap, then written by the kernel). The
        // kernel took the buffer out of its ring and does not write it until `drop` provides it.
        unsafe { slice::from_raw_parts(start.as_ptr(), self.size) }
    }
}

impl fmt::Debug for ReceiveBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReceiveBuffer({} bytes)", self.size)
    }
}

impl Drop for ReceiveBuffer {
    fn drop(&mut self) {
        self.ring.lent.set(self.ring.lent.get() - 1);
        self.ring.provide(self.id);
    }
}

/// The ring of buffers the kernel may receive into.
pub(crate) struct BufferRing {
    /// `count` entries, padded to a page, then `count` buffers. Owned; unmapped on drop.
    mapping: NonNull<u8>,
    mapping_size: usize,
    count: u16,
    buffer_size: u32,
    /// Entries ever provided, modulo 2^16. Written here alone, published in the ring.
    tail: Cell<u16>,
    /// Buffers that are out as `ReceiveBuffer`s.
    lent: Cell<u16>,
}

impl BufferRing {
    /// Maps `count` buffers of `buffer_size` bytes and provides them all. The caller has checked
    /// that `count` is a power of two of at most `BUFFERS_MAX`.
    pub(crate) fn new(count: u16, buffer_size: u32) -> io::Result<Rc<BufferRing>> {
        assert!(count.is_power_of_two() && count <= BUFFERS_MAX);
        let mapping_size = usize::from(count)
            .checked_mul(buffer_size as usize)
            .and_then(|size| size.checked_add(Self::entries_size(count)))
            .ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a fresh private anonymous mapping touches no existing memory; the result is
        // checked before use.
        let mapping = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapping_size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let ring = BufferRing {
            mapping: NonNull::new(mapping.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            mapping_size,
            count,
            buffer_size,
            tail: Cell::new(0),
            lent: Cell::new(0),
        };
        // A fork must not make these pages copy-on-write, or our next write could go to a copy
        // while the kernel reads the original.
        // SAFETY: the range just mapped, and nobody forks in order to read it.
        let advised = unsafe { libc::madvise(mapping, mapping_size, libc::MADV_DONTFORK) };
        if advised != 0 {
            return Err(io::Error::last_os_error());
        }
        for id in 0..count {
            ring.provide(id);
        }
        Ok(Rc::new(ring))
    }

    /// The address to register with the kernel: page-aligned, `count` entries.
    pub(crate) fn address(&self) -> u64 {
        self.mapping.as_ptr() as u64
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// Buffers that are not lent out.
    pub(crate) fn available(&self) -> u16 {
        self.count - self.lent.get()
    }

    /// Turns a completion (`id` and `size` as the kernel reported them) into the bytes it means.
    pub(crate) fn lend(self: &Rc<Self>, id: u16, size: u32) -> ReceiveBuffer {
        assert!(id < self.count && size <= self.buffer_size, "not a buffer of this ring");
        self.lent.set(self.lent.get() + 1);
        ReceiveBuffer { ring: Rc::clone(self), id, size: size as usize }
    }

    /// Puts buffer `id` at the kernel's disposal.
    fn provide(&self, id: u16) {
        let tail = self.tail.get();
        let slot = usize::from(tail & (self.count - 1));
        let entries = self.mapping.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `slot < count`, and the mapping begins with `count` entries.
        let entry = unsafe { entries.add(slot) };
        // SAFETY: `entry` is aligned (16-byte entries from a page boundary) and initialised. The
        // kernel reads only entries between its head and the published tail; at most `count`
        // buffers are ever out, so this slot lies outside that range until the store below. Only
        // this thread writes (the ring is not Send).
        let entry = unsafe { &mut *entry };
        entry.set_addr(self.buffer(id).as_ptr() as u64);
        entry.set_len(self.buffer_size);
        entry.set_bid(id);
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        // SAFETY: `entries` is the base of the ring, so this names its tail (the reserved field of
        // entry 0, which no setter above touches).
        let published = unsafe { BufRingEntry::tail(entries) };
        // SAFETY: the field is a u16, aligned, alive as long as the mapping, and accessed by this
        // process only here.
        let published = unsafe { AtomicU16::from_ptr(published.cast_mut()) };
        // SYNC(buffer tail): pairs with the kernel's load-acquire of the tail before it reads
        // entries.
        published.store(tail, Ordering::Release);
    }

    fn buffer(&self, id: u16) -> NonNull<u8> {
        let offset = Self::entries_size(self.count) + usize::from(id) * self.buffer_size as usize;
        // SAFETY: `id < count` (`new` and `lend` see to it), so the offset is within the mapping.
        unsafe { self.mapping.add(offset) }
    }

    fn entries_size(count: u16) -> usize {
        (usize::from(count) * size_of::<BufRingEntry>()).next_multiple_of(PAGE_SIZE)
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this range, and it is dropped last: every ReceiveBuffer
        // holds an Rc, and the reactor lets go of its own only when no receive is in flight.
        let result = unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapping_size) };
        debug_assert_eq!(result, 0);
    }
}
