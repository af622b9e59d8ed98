//! A worker's bytes as the engine sees them: never a Rust reference, always a copy or a pointer for
//! a system call, since the container may change them at any time. Bytes that were copied out of a
//! worker's memory before go the same way.

use core::cell::RefCell;
use core::ops::Range;
use core::ptr::NonNull;
use std::rc::Rc;

use crate::descriptor::Block;
use crate::memory::Mapping;

/// A worker's block as the engine sees it: memory that stays mapped while this lives, and that the
/// container may change at any time. Or a copy of one.
#[derive(Debug)]
pub struct SharedBlock {
    bytes: SharedSlice,
    envelope_size: usize,
    /// Kept for its drop.
    report: Option<DropReport>,
}

/// Tags of blocks that were dropped: how a shard learns that a worker's result has been read.
#[derive(Clone, Debug, Default)]
pub struct DropList(Rc<RefCell<Vec<u64>>>);

/// Puts its tag into the list when it is dropped.
#[derive(Debug)]
struct DropReport {
    list: DropList,
    tag: u64,
}

/// Some bytes of a [`SharedBlock`].
#[derive(Clone, Debug)]
pub struct SharedSlice {
    start: NonNull<u8>,
    size: usize,
    keeper: Keeper,
}

/// What the bytes of a slice lie in.
#[derive(Clone, Debug)]
enum Keeper {
    Mapping {
        _mapping: Rc<Mapping>,
    },
    /// Not written to any more.
    Heap {
        _bytes: Rc<Vec<u8>>,
    },
}

impl SharedBlock {
    /// A block that was located at `offset` of B. Panics if it is not within the mapping.
    pub(crate) fn new(b: &Rc<Mapping>, offset: usize, block: &Block) -> SharedBlock {
        let start = b.bytes(offset, block.size());
        let keeper = Keeper::Mapping { _mapping: Rc::clone(b) };
        let bytes = SharedSlice { start, size: block.size(), keeper };
        SharedBlock { bytes, envelope_size: block.envelope_size as usize, report: None }
    }

    /// A copy of a block, of which the first `envelope_size` bytes are the envelope. Panics if there
    /// are fewer.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>, envelope_size: usize) -> SharedBlock {
        let size = bytes.len();
        assert!(envelope_size <= size, "an envelope of {envelope_size} of {size} bytes");
        let bytes = Rc::new(bytes);
        let start = NonNull::from(bytes.as_slice()).cast();
        let bytes = SharedSlice { start, size, keeper: Keeper::Heap { _bytes: bytes } };
        SharedBlock { bytes, envelope_size, report: None }
    }

    /// Bytes of the envelope.
    #[must_use]
    pub fn envelope_size(&self) -> usize {
        self.envelope_size
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn payload_size(&self) -> usize {
        self.bytes.size - self.envelope_size
    }

    /// Replaces `out` with the envelope: to be parsed only from this copy.
    pub fn copy_envelope(&self, out: &mut Vec<u8>) {
        out.clear();
        self.bytes.slice(0..self.envelope_size).append_to(out);
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> SharedSlice {
        self.bytes.slice(self.envelope_size..self.bytes.size)
    }

    /// Has `tag` put into `list` when this is dropped.
    pub fn report_drop(&mut self, list: DropList, tag: u64) {
        self.report = Some(DropReport { list, tag });
    }

    /// Envelope and payload.
    #[must_use]
    pub fn whole(&self) -> SharedSlice {
        self.bytes.clone()
    }
}

impl SharedSlice {
    /// For system calls that read it: never for a Rust reference, the bytes may change.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.size
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Whether the bytes lie in memory that a container may write: they are then its worker's as
    /// soon as the [`SharedBlock`] is dropped. Else they do not change.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.keeper, Keeper::Mapping { .. })
    }

    /// A part of it. Panics if the range is not within it.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> SharedSlice {
        assert!(range.start <= range.end && range.end <= self.size, "{range:?} of {}", self.size);
        SharedSlice {
            // SAFETY: range.start <= size, so the result is within the slice or at its end.
            start: unsafe { self.start.add(range.start) },
            size: range.end - range.start,
            keeper: self.keeper.clone(),
        }
    }

    /// Copies it behind what `out` holds.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.reserve(self.size);
        let spare = out.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        // SAFETY: the source is there while `self` lives, the destination has `size` bytes spare
        // since the reserve, and a Vec's memory is not part of a mapping or of another Vec's. A container that
        // writes meanwhile makes the bytes arbitrary, which they are anyway.
        unsafe { crate::copy::copy(self.start.as_ptr(), spare, self.size) };
        let size = out.len() + self.size;
        // SAFETY: the bytes up to `size` are within the capacity and have just been written.
        unsafe { out.set_len(size) };
    }
}

impl DropList {
    /// Takes a tag, if there is one.
    #[must_use]
    pub fn take(&self) -> Option<u64> {
        self.0.borrow_mut().pop()
    }
}

impl Drop for DropReport {
    fn drop(&mut self) {
        self.list.0.borrow_mut().push(self.tag);
    }
}
