//! Request ids: taken from the client if they are harmless in a log, else made without a system
//! call, as one is needed for every request.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Longest id taken from a client.
const SIZE_MAX: usize = 64;
const MADE_SIZE: usize = 32;

/// The id of a request: `[A-Za-z0-9._:-]{1,64}`.
#[derive(Clone, Copy)]
pub struct RequestId {
    bytes: [u8; SIZE_MAX],
    size: u8,
}

impl RequestId {
    /// The client's id, if it is one.
    pub(crate) fn accept(value: &[u8]) -> Option<RequestId> {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:-".contains(byte);
        if value.is_empty() || !value.iter().all(allowed) {
            return None;
        }
        let mut bytes = [0; SIZE_MAX];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(RequestId { bytes, size: u8::try_from(value.len()).ok()? })
    }

    /// Its text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.size)]
    }
}

/// Makes ids of one shard: a counter, mixed with a seed of the process's random state so that
/// shards, hosts and restarts do not meet. Unique, not secret.
pub(crate) struct RequestIds {
    seed: [u64; 2],
    count: u64,
}

impl RequestIds {
    pub(crate) fn new(shard: u16) -> RequestIds {
        // The standard library seeds every RandomState from the operating system's entropy.
        let random = |salt: u16| {
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_u16(salt);
            hasher.finish()
        };
        RequestIds { seed: [random(shard), random(!shard)], count: 0 }
    }

    pub(crate) fn make(&mut self) -> RequestId {
        self.count = self.count.wrapping_add(1);
        let mut bytes = [0; SIZE_MAX];
        let words = self.seed.map(|seed| mix(seed.wrapping_add(self.count)));
        let (digits, _) = bytes.split_at_mut(MADE_SIZE);
        for (word, digits) in words.iter().zip(digits.chunks_exact_mut(16)) {
            for (position, digit) in digits.iter_mut().enumerate() {
                let nibble = (word >> (60 - 4 * position)) & 0xf;
                *digit = b"0123456789abcdef"[nibble as usize];
            }
        }
        RequestId { bytes, size: 32 }
    }
}

/// The finaliser of splitmix64: a bijection, so different counts give different words.
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_ids_are_taken_and_others_are_not() {
        for id in ["a", "trace.42:x_y-z", &"x".repeat(64)] {
            assert_eq!(RequestId::accept(id.as_bytes()).unwrap().as_bytes(), id.as_bytes());
        }
        for id in ["", "a b", "a\"b", "ä", "a\n", "a/b", &"x".repeat(65)] {
            assert!(RequestId::accept(id.as_bytes()).is_none(), "{id:?}");
        }
    }

    #[test]
    fn made_ids_are_32_hex_digits_and_differ() {
        let mut ids = RequestIds::new(3);
        let made: std::collections::HashSet<Vec<u8>> =
            (0..10_000).map(|_| ids.make().as_bytes().to_vec()).collect();
        assert_eq!(made.len(), 10_000);
        assert!(made.iter().all(|id| id.len() == 32 && id.iter().all(u8::is_ascii_hexdigit)));
        assert_ne!(RequestIds::new(3).make().as_bytes(), RequestIds::new(3).make().as_bytes());
    }
}
