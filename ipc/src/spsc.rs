//! A ring for one producer and one consumer that do not trust each other.
//!
//! Two free-running cursors: `tail` counts what was pushed, `head` what was popped. Each lies where
//! only its writer can write. A side keeps its own cursor privately and never reads it back, so the
//! peer cannot move it; it reads the peer's cursor only when it runs out of what it knows, which
//! keeps that cache line still, and accepts no value that claims more than the ring can hold.
//!
//! Invariant of honest sides: `0 <= tail - head <= DEPTH` (wrapping). `docs/ring.md` has the proof
//! sketch; `tests/loom.rs` checks it.

use crate::sync::{AtomicU32, Ordering, SLOT_WORDS, Slot};

/// Where a ring's parts lie: on the heap in tests, in a mapping in production.
pub trait Ring {
    /// Slots in the ring: a power of two.
    const DEPTH: u32;
    /// Written by the producer, read by the consumer.
    fn tail(&self) -> &AtomicU32;
    /// Written by the consumer, read by the producer.
    fn head(&self) -> &AtomicU32;
    /// The slot of `index`, which is below `DEPTH`.
    fn slot(&self, index: u32) -> &Slot;
}

/// The pushing end. At most one per ring.
#[derive(Debug)]
pub struct Producer<R> {
    ring: R,
    /// Truth about `tail`; the shared one is a copy for the consumer.
    tail: u32,
    /// Latest known `head`: at or behind the real one.
    head_seen: u32,
}

/// The popping end. At most one per ring.
#[derive(Debug)]
pub struct Consumer<R> {
    ring: R,
    /// Truth about `head`; the shared one is a copy for the producer.
    head: u32,
    /// Latest known `tail`: at or behind the real one.
    tail_seen: u32,
}

/// The peer's cursor claims what cannot be: a jump backward, or past what the ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's ring cursor is {peer:#x} where ours is {own:#x} and the depth {depth}")]
pub struct CursorFault {
    /// This side's cursor.
    pub own: u32,
    /// The peer's, as read.
    pub peer: u32,
    /// Slots in the ring.
    pub depth: u32,
}

/// Why nothing was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The consumer has not popped for `DEPTH` messages.
    #[error("the ring is full")]
    Full,
    /// The consumer's cursor is impossible.
    #[error(transparent)]
    Cursor(#[from] CursorFault),
}

impl<R: Ring> Producer<R> {
    /// Over a ring whose cursors are both zero.
    pub fn new(ring: R) -> Self {
        const { assert!(R::DEPTH.is_power_of_two()) };
        Producer { ring, tail: 0, head_seen: 0 }
    }

    /// Publishes one message.
    #[inline]
    pub fn push(&mut self, words: [u64; SLOT_WORDS]) -> Result<(), PushError> {
        if self.tail.wrapping_sub(self.head_seen) == R::DEPTH {
            self.refresh()?;
        }
        self.ring.slot(self.tail & (R::DEPTH - 1)).store(words);
        self.tail = self.tail.wrapping_add(1);
        // SYNC(tail): release, pairs with the acquire in `Consumer::refresh`: whoever sees this
        // tail sees the slot's words.
        self.ring.tail().store(self.tail, Ordering::Release);
        Ok(())
    }

    #[cold]
    fn refresh(&mut self) -> Result<(), PushError> {
        // SYNC(head): acquire, pairs with the release in `Consumer::pop`: the consumer has read
        // the slots below this head, so they may be written again.
        let head = self.ring.head().load(Ordering::Acquire);
        let unread = self.tail.wrapping_sub(head);
        if unread > R::DEPTH {
            return Err(CursorFault { own: self.tail, peer: head, depth: R::DEPTH }.into());
        }
        self.head_seen = head;
        if unread == R::DEPTH { Err(PushError::Full) } else { Ok(()) }
    }
}

impl<R: Ring> Consumer<R> {
    /// Over a ring whose cursors are both zero.
    pub fn new(ring: R) -> Self {
        const { assert!(R::DEPTH.is_power_of_two()) };
        Consumer { ring, head: 0, tail_seen: 0 }
    }

    /// Takes the oldest message, copied once.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<[u64; SLOT_WORDS]>, CursorFault> {
        if self.is_empty()? {
            return Ok(None);
        }
        let words = self.ring.slot(self.head & (R::DEPTH - 1)).load();
        self.head = self.head.wrapping_add(1);
        // SYNC(head): release, pairs with the acquire in `Producer::refresh`: the load above is
        // done before the producer may write the slot again.
        self.ring.head().store(self.head, Ordering::Release);
        Ok(Some(words))
    }

    /// Whether nothing is there now: a sleeper's last look.
    #[inline]
    pub fn is_empty(&mut self) -> Result<bool, CursorFault> {
        if self.tail_seen == self.head {
            self.refresh()?;
        }
        Ok(self.tail_seen == self.head)
    }

    #[inline]
    fn refresh(&mut self) -> Result<(), CursorFault> {
        // SYNC(tail): acquire, pairs with the release in `Producer::push`.
        let tail = self.ring.tail().load(Ordering::Acquire);
        if tail.wrapping_sub(self.head) > R::DEPTH {
            return Err(CursorFault { own: self.head, peer: tail, depth: R::DEPTH });
        }
        self.tail_seen = tail;
        Ok(())
    }
}
