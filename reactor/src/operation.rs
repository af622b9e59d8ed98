//! The table of operations in flight. Each entry owns, by type, whatever the kernel may still
//! read, and is freed only with its final completion.
//!
//! ```text
//!            arm                 final completion: event, freed
//!  (new) ---------> Armed ------------------------------------> (gone)
//!                   |  ^ \                                         ^
//!      no buffers   |  |  \ cancel, close                          |
//!                   v  |   v                                       |
//!               Starved    Ending ------- final completion --------+
//!                   |                                              |
//!                   +------- cancel, close: event at once ---------+
//! ```
//! Armed and Ending are the kernel's; a Starved receive is ours, and waits for a buffer. An Ending
//! operation is never armed again, because its descriptor may by then mean another file.

use crate::buffers::{PARTS_MAX, StableBuffer};
use crate::event::Token;
use slab::Slab;
use std::os::fd::RawFd;
use std::{mem, ptr};

/// An operation in flight, for [`crate::Reactor::cancel`]. A handle to one that is over is
/// harmless.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Operation {
    index: u32,
    generation: u32,
}

impl Operation {
    /// Table indices stay below this; `user_data` values from it on are not operations.
    pub(crate) const INDEX_END: u32 = 0xffff_fff0;

    pub(crate) fn from_user_data(user_data: u64) -> Operation {
        let [low, high] = halves(user_data);
        Operation { index: low, generation: high }
    }

    pub(crate) fn user_data(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }
}

/// The low and the high half.
pub(crate) fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// Ranges of a `sendmsg`: a head, a body's first, and those behind it.
const RANGES_MAX: usize = 2 + PARTS_MAX;

/// The vector of a `sendmsg`. Boxed, because the kernel reads it at submission, which may be after
/// the table has grown and moved.
pub(crate) struct Vectored {
    pub(crate) header: libc::msghdr,
    ranges: [libc::iovec; RANGES_MAX],
    count: usize,
}

impl Vectored {
    /// Describes `head` and `body` in sequence, without their first `from` bytes.
    pub(crate) fn point_to(&mut self, head: &[u8], body: &dyn StableBuffer, from: usize) {
        self.count = 0;
        let mut skip = from;
        self.add(head.as_ptr(), head.len(), &mut skip);
        let (bytes, size) = body.bytes();
        self.add(bytes, size, &mut skip);
        for (bytes, size) in (0..PARTS_MAX).map_while(|index| body.part(index)) {
            self.add(bytes, size, &mut skip);
        }
        assert!(skip == 0, "send from {from}, {skip} past the end");
        self.header.msg_iov = self.ranges.as_mut_ptr();
        self.header.msg_iovlen = self.count as _;
    }

    /// Adds a range without its first `skip` bytes, and says how many are left to be skipped.
    fn add(&mut self, bytes: *const u8, size: usize, skip: &mut usize) {
        let skipped = size.min(*skip);
        *skip -= skipped;
        // SAFETY: `skipped` bytes into, or one past, a range of a slice or one that `StableBuffer`
        // promises.
        let start = unsafe { bytes.add(skipped) };
        // The kernel reads these; sendmsg has no use for a mutable pointer but asks for one.
        self.ranges[self.count] =
            libc::iovec { iov_base: start.cast_mut().cast(), iov_len: size - skipped };
        self.count += 1;
    }
}

impl Default for Vectored {
    fn default() -> Vectored {
        // SAFETY: msghdr is plain C data for which all zeroes is the empty message.
        let header = unsafe { mem::zeroed() };
        let empty = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Vectored { header, ranges: [empty; RANGES_MAX], count: 0 }
    }
}

/// What is asked of the kernel, with the memory that is the kernel's meanwhile.
pub(crate) enum Work {
    Accept,
    Receive,
    Poll,
    Send { data: Vec<u8>, from: usize },
    SendWithBody { head: Vec<u8>, body: Box<dyn StableBuffer>, vectored: Box<Vectored> },
    Message { value: u64 },
}

impl Work {
    /// Bytes that a send out of one vector still has to send.
    pub(crate) fn own_size(&self) -> usize {
        if let Work::Send { data, from } = self { data.len() - from } else { 0 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Queued or in the kernel.
    Armed,
    /// A receive the kernel ended for want of buffers; re-armed when there are some.
    Starved,
    /// Cancellation has been asked for.
    Ending,
}

/// One operation in flight.
pub(crate) struct InFlight {
    pub(crate) token: Token,
    pub(crate) work: Work,
    pub(crate) state: State,
    /// A send whose success makes no completion (`quiet`).
    pub(crate) is_quiet: bool,
    generation: u32,
    /// Its descriptor, until that is closed; links the operations of one descriptor.
    link: Option<Link>,
}

#[derive(Clone, Copy)]
struct Link {
    fd: RawFd,
    previous: Option<u32>,
    next: Option<u32>,
}

/// All operations in flight, also by descriptor.
#[derive(Default)]
pub(crate) struct Operations {
    slots: Slab<InFlight>,
    /// First operation of each descriptor, by its number.
    first: Vec<Option<u32>>,
    /// Counts insertions, so that a slot's next user has another generation.
    generation: u32,
}

impl Operations {
    pub(crate) fn with_capacity(capacity: usize) -> Operations {
        Operations { slots: Slab::with_capacity(capacity), ..Operations::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn insert(&mut self, fd: Option<RawFd>, token: Token, work: Work) -> Operation {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let state = State::Armed;
        let new = InFlight { token, work, state, is_quiet: false, generation, link: None };
        let index = self.slots.insert(new);
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        assert!(index < Operation::INDEX_END, "more operations than memory can hold");
        if let Some(fd) = fd {
            self.link(index, fd);
        }
        Operation { index, generation }
    }

    pub(crate) fn get_mut(&mut self, operation: Operation) -> Option<&mut InFlight> {
        self.slots
            .get_mut(operation.index as usize)
            .filter(|slot| slot.generation == operation.generation)
    }

    /// The descriptor an operation was made for, unless that has been closed.
    pub(crate) fn fd(&self, operation: Operation) -> Option<RawFd> {
        let slot = self.slots.get(operation.index as usize)?;
        if slot.generation == operation.generation { Some(slot.link?.fd) } else { None }
    }

    pub(crate) fn remove(&mut self, operation: Operation) -> Option<InFlight> {
        self.get_mut(operation)?;
        self.unlink(operation.index);
        Some(self.slots.remove(operation.index as usize))
    }

    /// Takes one operation off the list of `fd`. A caller that asks until `None` meets each once,
    /// and leaves none behind for the file that gets this number next.
    pub(crate) fn detach(&mut self, fd: RawFd) -> Option<Operation> {
        let index = self.first.get(usize::try_from(fd).ok()?).copied().flatten()?;
        self.unlink(index);
        Some(Operation { index, generation: self.slots[index as usize].generation })
    }

    /// Every operation: for the end of the reactor, not for its daily work.
    pub(crate) fn all(&self) -> Vec<Operation> {
        let handle = |(index, slot): (usize, &InFlight)| {
            Some(Operation { index: u32::try_from(index).ok()?, generation: slot.generation })
        };
        self.slots.iter().filter_map(handle).collect()
    }

    fn link(&mut self, index: u32, fd: RawFd) {
        let number = usize::try_from(fd).unwrap_or_else(|_| panic!("{fd} is no descriptor"));
        if self.first.len() <= number {
            self.first.resize(number + 1, None);
        }
        let next = self.first[number].replace(index);
        self.slots[index as usize].link = Some(Link { fd, previous: None, next });
        if let Some(next) = next {
            self.link_mut(next).previous = Some(index);
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some(Link { fd, previous, next }) = self.slots[index as usize].link.take() else {
            return;
        };
        if let Some(next) = next {
            self.link_mut(next).previous = previous;
        }
        match previous {
            Some(previous) => self.link_mut(previous).next = next,
            // `link` made room for this number.
            None => self.first[usize::try_from(fd).unwrap_or(0)] = next,
        }
    }

    /// The link of a neighbour, which by construction is linked itself.
    fn link_mut(&mut self, index: u32) -> &mut Link {
        self.slots[index as usize].link.as_mut().expect("a neighbour in the list is linked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_handle_finds_nothing_even_when_its_slot_is_used_again() {
        let mut table = Operations::default();
        let first = table.insert(Some(3), Token(1), Work::Receive);
        assert!(table.remove(first).is_some());
        let second = table.insert(Some(3), Token(2), Work::Receive);
        assert_eq!(first.index, second.index);
        assert!(table.get_mut(first).is_none());
        assert!(table.remove(first).is_none());
        assert_eq!(table.fd(first), None);
        assert_eq!(table.fd(second), Some(3));
    }

    #[test]
    fn the_list_of_a_descriptor_survives_removal_at_either_end_and_in_the_middle() {
        for removed in 0..3 {
            let mut table = Operations::default();
            let all: Vec<_> =
                (0..3).map(|token| table.insert(Some(7), Token(token), Work::Poll)).collect();
            table.insert(Some(8), Token(9), Work::Poll);
            table.remove(all[removed]).unwrap();
            let mut left: Vec<_> = std::iter::from_fn(|| table.detach(7)).collect();
            left.reverse();
            let expected: Vec<_> = all.iter().copied().filter(|op| *op != all[removed]).collect();
            assert_eq!(left, expected);
            assert_eq!(table.len(), 3);
            assert_eq!(table.fd(left[0]), None);
        }
    }

    #[test]
    fn user_data_names_the_same_operation_again() {
        let operation = Operation { index: 0x1234_5678, generation: 0x9abc_def0 };
        assert_eq!(Operation::from_user_data(operation.user_data()), operation);
    }
}
