//! The name of a connection in tokens, timers and calls: slab index and generation in one u64, so
//! that no table says which connection waits for which event or call, and a late one for a
//! connection that is gone finds nobody.
//!
//! ```text
//!  63      56 55      48 47                24 23                 0
//! ┌──────────┬──────────┬────────────────────┬────────────────────┐
//! │   0x47   │ purpose  │     generation     │       index        │
//! └──────────┴──────────┴────────────────────┴────────────────────┘
//! ```

use reactor::Token;

/// Top byte of every token of the gateway.
const MARK: u64 = 0x47;
const PART_MASK: u64 = 0xff_ffff;
/// Most connections an index of 24 bits can name; generations have as many bits.
pub(crate) const CONNECTIONS_LIMIT: u32 = 1 << 24;

/// What an event or an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Receive = 1,
    /// An answer.
    Send = 2,
    /// `100 Continue`.
    SendInterim = 3,
    /// The caller of a call, not a token.
    Call = 4,
}

/// One connection, once: an index is used again, but with another generation. Generations wrap
/// after 16 million connections, far beyond what can be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    pub(crate) fn new(slot: usize, generation: u32) -> Option<Key> {
        let index = u32::try_from(slot).ok().filter(|index| *index < CONNECTIONS_LIMIT)?;
        Some(Key { index, generation: generation % CONNECTIONS_LIMIT })
    }

    pub(crate) fn slot(self) -> usize {
        self.index as usize
    }

    pub(crate) fn token(self, purpose: Purpose) -> Token {
        Token(self.word(purpose))
    }

    /// The key the upstream gets as `caller`.
    pub(crate) fn caller(self) -> u64 {
        self.word(Purpose::Call)
    }

    fn word(self, purpose: Purpose) -> u64 {
        let (generation, index) = (u64::from(self.generation), u64::from(self.index));
        (MARK << 56) | ((purpose as u64) << 48) | (generation << 24) | index
    }

    /// The inverse of `token` and `caller`.
    pub(crate) fn parse(word: u64) -> Option<(Key, Purpose)> {
        if word >> 56 != MARK {
            return None;
        }
        let purpose = match (word >> 48) & 0xff {
            1 => Purpose::Receive,
            2 => Purpose::Send,
            3 => Purpose::SendInterim,
            4 => Purpose::Call,
            _ => return None,
        };
        let part = |word: u64| u32::try_from(word & PART_MASK).ok();
        Some((Key { index: part(word)?, generation: part(word >> 24)? }, purpose))
    }
}

pub(crate) fn is_ours(token: Token) -> bool {
    token.0 >> 56 == MARK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_word() {
        for purpose in [Purpose::Receive, Purpose::Send, Purpose::SendInterim, Purpose::Call] {
            let key = Key::new(0xab_cdef, 0x12_3456).unwrap();
            assert_eq!(Key::parse(key.token(purpose).0), Some((key, purpose)));
            assert!(is_ours(key.token(purpose)));
        }
        assert_eq!(Key::new(1 << 24, 0), None);
        assert_eq!(Key::parse(0x45 << 56), None);
        assert_eq!(Key::parse((MARK << 56) | (9 << 48)), None);
    }
}
