//! The names of links and calls in tokens, timers and streams: slab index and generation, so that what
//! comes late for one that is gone finds nobody.
//!
//! ```text
//!          63      56 55      48 47                24 23                 0
//!         ┌──────────┬──────────┬────────────────────┬────────────────────┐
//!  token  │   0x52   │ purpose  │     generation     │     link index     │
//!         └──────────┴──────────┴────────────────────┴────────────────────┘
//!          63 62                        32 31                             0
//!         ┌──┬────────────────────────────┬───────────────────────────────┐
//!  call   │ 0│        generation          │          call index           │
//!         └──┴────────────────────────────┴───────────────────────────────┘
//! ```

use reactor::Token;

/// Top byte of every token of links to engines; the gateway's, the engine's and the shard's have
/// others.
const MARK: u64 = 0x52;
const PART_MASK: u64 = 0xff_ffff;
const GENERATION_MASK: u32 = 0x7fff_ffff;

/// Which operation of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Receive = 1,
    Send = 2,
}

/// One link, once. Generations wrap after 16 million links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkKey {
    index: u32,
    generation: u32,
}

/// One call, or one attempt at it, which is what a stream is: an answer to an attempt that is over
/// finds no call. The top bit stays clear, for owners that mark others by it. Generations wrap after
/// two thousand million attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallKey {
    index: u32,
    generation: u32,
}

/// Whether an event with this token is for [`super::Remote::on_event`].
#[must_use]
pub fn owns(token: Token) -> bool {
    token.0 >> 56 == MARK
}

impl LinkKey {
    /// `None` where the slot is beyond what a key can name.
    pub(super) fn new(slot: usize, generation: u32) -> Option<LinkKey> {
        let index = u32::try_from(slot).ok().filter(|index| u64::from(*index) <= PART_MASK)?;
        Some(LinkKey { index, generation: generation & 0xff_ffff })
    }

    pub(super) fn slot(self) -> usize {
        self.index as usize
    }

    pub(super) fn token(self, purpose: Purpose) -> Token {
        let (generation, index) = (u64::from(self.generation), u64::from(self.index));
        Token((MARK << 56) | ((purpose as u64) << 48) | (generation << 24) | index)
    }

    /// The inverse of `token`.
    pub(super) fn parse(token: Token) -> Option<(LinkKey, Purpose)> {
        let purpose = match (token.0 >> 48) & 0xff {
            1 => Purpose::Receive,
            2 => Purpose::Send,
            _ => return None,
        };
        let part = |word: u64| u32::try_from(word & PART_MASK).ok();
        let key = LinkKey { index: part(token.0)?, generation: part(token.0 >> 24)? };
        owns(token).then_some((key, purpose))
    }
}

impl CallKey {
    pub(super) fn new(slot: usize, generation: u32) -> Option<CallKey> {
        let index = u32::try_from(slot).ok()?;
        Some(CallKey { index, generation: generation & GENERATION_MASK })
    }

    pub(super) fn slot(self) -> usize {
        self.index as usize
    }

    pub(super) fn word(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The inverse of `word`, if there is one.
    pub(super) fn parse(word: u64) -> Option<CallKey> {
        let index = u32::try_from(word & u64::from(u32::MAX)).ok()?;
        let generation = u32::try_from(word >> 32).ok()?;
        (generation <= GENERATION_MASK).then_some(CallKey { index, generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_links_key_survives_its_token() {
        for purpose in [Purpose::Receive, Purpose::Send] {
            let key = LinkKey::new(0xab_cdef, 0x12_3456).unwrap();
            assert_eq!(LinkKey::parse(key.token(purpose)), Some((key, purpose)));
            assert!(owns(key.token(purpose)));
        }
        assert_eq!(LinkKey::new(1 << 24, 0), None);
        assert_eq!(LinkKey::parse(Token(0x47 << 56 | 1 << 48)), None);
        assert_eq!(LinkKey::parse(Token(0x52 << 56 | 9 << 48)), None);
    }

    #[test]
    fn a_calls_key_survives_its_word_and_leaves_the_top_bit_alone() {
        let key = CallKey::new(7, u32::MAX).unwrap();
        assert_eq!(CallKey::parse(key.word()), Some(key));
        assert_eq!(key.word() >> 63, 0);
        assert_eq!(CallKey::parse(u64::MAX), None);
        assert_eq!(CallKey::parse(1 << 63), None);
    }
}
