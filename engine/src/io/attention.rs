//! How much of a shard's time one container's channel gets: what it may have read in one turn, and how
//! often it may ask for a look that finds nothing.

use ipc::LaneIndex;
use ipc::doorbell::READY_WORDS;

/// Messages taken from one channel before the others get their turn: a millisecond's work or so.
const MESSAGES_MAX: u32 = 1024;
/// Bytes that one channel's messages may have copied before the others get their turn. One message
/// may go beyond it.
const COPIED_MAX: u64 = 1 << 20;
/// Looks in vain that a container may ask for, beyond those that come of two sides which do not wait
/// for each other: a bit or a ring that arrives when its message has been read. A look takes a
/// microsecond or some, so that this is a matter of milliseconds.
const VAIN_MAX: u32 = 4096;
/// How many of those a message makes good: it causes two at most.
const VAIN_PER_MESSAGE: u32 = 4;

/// A bit for each lane.
pub(super) type Lanes = [u64; READY_WORDS];

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Attention {
    /// Lanes that have spoken and were not read to their end.
    unread: Lanes,
    /// Whether the bell rang since the channel was last read.
    rung: bool,
    vain: u32,
}

/// What a channel may still make the shard do in one turn.
#[derive(Debug)]
pub(super) struct Budget {
    messages: u32,
    /// Where the shard's count of copied bytes ends it.
    copied: u64,
}

/// The container asks for looks and says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it rang again and again and said nothing")]
pub(super) struct SaysNothing;

impl Budget {
    /// Of one turn, which begins when so many bytes have been copied.
    pub(super) fn new(copied: u64) -> Self {
        Self { messages: MESSAGES_MAX, copied: copied + COPIED_MAX }
    }

    /// Whether another message may be read when so many bytes have been copied.
    pub(super) fn permits(&self, copied: u64) -> bool {
        self.messages > 0 && copied < self.copied
    }

    /// A message is read.
    pub(super) fn spend(&mut self) {
        self.messages -= 1;
    }

    /// Messages that were read.
    pub(super) fn spent(&self) -> u32 {
        MESSAGES_MAX - self.messages
    }
}

impl Attention {
    /// The bell rang.
    pub(super) fn ring(&mut self) {
        self.rung = true;
    }

    /// Whether a lane is left to be read on.
    pub(super) fn has_unread(&self) -> bool {
        self.unread != Lanes::default()
    }

    /// Takes what was left in the turn before; else `spoken`, those that have spoken since, so that
    /// every lane gets its turn.
    pub(super) fn take(&mut self, spoken: impl FnOnce() -> Lanes) -> Lanes {
        match std::mem::take(&mut self.unread) {
            unread if unread == Lanes::default() => spoken(),
            unread => unread,
        }
    }

    /// Leaves a lane for the next turn.
    pub(super) fn leave(&mut self, lane: LaneIndex) {
        self.unread[usize::from(lane.0) / 64] |= 1 << (lane.0 % 64);
    }

    /// A look at `lanes` has found so many messages.
    pub(super) fn looked(&mut self, lanes: Lanes, messages: u32) -> Result<(), SaysNothing> {
        let asked = std::mem::take(&mut self.rung) || lanes != Lanes::default();
        if messages > 0 {
            self.vain = self.vain.saturating_sub(messages.saturating_mul(VAIN_PER_MESSAGE));
        } else if asked {
            self.vain += 1;
        }
        if self.vain > VAIN_MAX { Err(SaysNothing) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Lanes = [0; READY_WORDS];
    const FIRST: Lanes = [1, 0, 0, 0];

    #[test]
    fn bells_and_bits_without_messages_have_an_end() {
        for (lanes, rings) in [(NONE, true), (FIRST, false), (FIRST, true)] {
            let mut attention = Attention::default();
            let mut look = || {
                if rings {
                    attention.ring();
                }
                attention.looked(lanes, 0)
            };
            assert!((0..VAIN_MAX).all(|_| look().is_ok()));
            assert_eq!(look(), Err(SaysNothing));
        }
    }

    #[test]
    fn looks_that_nobody_asked_for_and_those_that_messages_cause_are_free() {
        let mut attention = Attention::default();
        for _ in 0..3 * VAIN_MAX {
            assert_eq!(attention.looked(NONE, 0), Ok(()));
            assert_eq!(attention.looked(FIRST, 1), Ok(()));
            // The bit of a message that was read before the bit was seen, then its bell.
            assert_eq!(attention.looked(FIRST, 0), Ok(()));
            attention.ring();
            assert_eq!(attention.looked(NONE, 0), Ok(()));
        }
    }

    #[test]
    fn a_turn_ends_by_messages_or_bytes_and_goes_on_with_the_lanes_that_were_left() {
        let mut budget = Budget::new(7);
        assert!(budget.permits(7) && !budget.permits(7 + COPIED_MAX));
        (0..MESSAGES_MAX).for_each(|_| budget.spend());
        assert!(!budget.permits(7));
        assert_eq!(budget.spent(), MESSAGES_MAX);

        let mut attention = Attention::default();
        attention.leave(LaneIndex(255));
        assert!(attention.has_unread());
        assert_eq!(attention.take(|| FIRST), [0, 0, 0, 1 << 63]);
        assert!(!attention.has_unread());
        assert_eq!(attention.take(|| FIRST), FIRST);
    }
}
