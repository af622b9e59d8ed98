//! The names of links and calls in tokens of the reactor and in callers of the engine: slab index and
//! generation in one u64, so that a late event or answer finds nobody instead of a successor.
//!
//! ```text
//!  63      56 55      48 47                24 23                 0
//! ┌──────────┬──────────┬────────────────────┬────────────────────┐
//! │   0x55   │ purpose  │     generation     │       index        │
//! └──────────┴──────────┴────────────────────┴────────────────────┘
//! ```

use reactor::Token;

use crate::core::Caller;

/// Top byte of every token and caller of the links.
const OWNER: u64 = 0x55;
const PART_MASK: u64 = 0xff_ffff;
/// Bound of indices and generations. Generations wrap after 16 million uses, far beyond what can be
/// in flight.
const LIMIT: u32 = 1 << 24;

/// What an event or an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Receive = 1,
    Send = 2,
    /// A caller, not a token.
    Call = 3,
}

/// One link or one call, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

/// Whether an event with this token is for [`super::Uplinks::on_event`].
#[must_use]
pub fn owns(token: Token) -> bool {
    token.0 >> 56 == OWNER
}

/// Whether an answer to this caller is for [`super::Uplinks::on_answer`].
#[must_use]
pub fn owns_caller(caller: Caller) -> bool {
    caller.0 >> 56 == OWNER
}

impl Key {
    /// `None`: so many are not named.
    pub(super) fn new(slot: usize, generation: u32) -> Option<Key> {
        let index = u32::try_from(slot).ok().filter(|index| *index < LIMIT)?;
        Some(Key { index, generation: generation % LIMIT })
    }

    pub(super) fn slot(self) -> usize {
        self.index as usize
    }

    pub(super) fn tokens(self) -> [Token; 2] {
        [Purpose::Receive, Purpose::Send].map(|purpose| Token(self.word(purpose)))
    }

    pub(super) fn caller(self) -> Caller {
        Caller(self.word(Purpose::Call))
    }

    fn word(self, purpose: Purpose) -> u64 {
        let (generation, index) = (u64::from(self.generation), u64::from(self.index));
        OWNER << 56 | (purpose as u64) << 48 | generation << 24 | index
    }

    /// The inverse of `tokens` and `caller`.
    pub(super) fn parse(word: u64) -> Option<(Key, Purpose)> {
        if word >> 56 != OWNER {
            return None;
        }
        let purpose = match word >> 48 & 0xff {
            1 => Purpose::Receive,
            2 => Purpose::Send,
            3 => Purpose::Call,
            _ => return None,
        };
        let part = |word: u64| u32::try_from(word & PART_MASK).ok();
        Some((Key { index: part(word)?, generation: part(word >> 24)? }, purpose))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_words() {
        let key = Key::new(0xab_cdef, 0x12_3456).unwrap();
        let [receive, send] = key.tokens();
        assert_eq!(Key::parse(receive.0), Some((key, Purpose::Receive)));
        assert_eq!(Key::parse(send.0), Some((key, Purpose::Send)));
        assert_eq!(Key::parse(key.caller().0), Some((key, Purpose::Call)));
        assert!(owns(receive) && owns(send) && owns_caller(key.caller()));
        assert_eq!(Key::new(1 << 24, 0), None);
        assert_eq!(Key::parse(0x47 << 56 | 1 << 48), None);
        assert_eq!(Key::parse(OWNER << 56 | 9 << 48), None);
    }
}
