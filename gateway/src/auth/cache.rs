//! Tokens that were verified, of one thread: to verify a signature again for every request would cost
//! tens of microseconds each time.
//!
//! A token is kept by its SHA-256, so the cache holds nothing that could be used, until it expires or the
//! authority changes: what a reload took away is gone from here with it. Two generations bound it: when
//! the young one is full it becomes the old one, and what was in the old one is forgotten unless it was
//! used meanwhile.

use std::collections::HashMap;

use ring::digest::{SHA256, digest};

use super::client::Client;

/// Tokens of one generation: twice as many are kept, of about 200 bytes each.
const GENERATION_MAX: usize = 2048;

/// See the module's description.
#[derive(Debug, Default)]
pub struct TokenCache {
    /// The authority that verified what is in here.
    authority: Option<u64>,
    young: HashMap<[u8; 32], Verified>,
    old: HashMap<[u8; 32], Verified>,
}

/// A token that was verified.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    pub(super) client: Client,
    /// First second of Unix time at which it is not accepted any more.
    pub(super) expires_s: u64,
}

/// Names a token without being one.
#[derive(Clone, Copy)]
pub(super) struct TokenName([u8; 32]);

impl TokenName {
    pub(super) fn of(token: &[u8]) -> TokenName {
        let mut name = [0; 32];
        name.copy_from_slice(digest(&SHA256, token).as_ref());
        TokenName(name)
    }
}

impl TokenCache {
    /// What this authority found out about a token.
    pub(super) fn get(&mut self, authority: u64, name: TokenName) -> Option<&Verified> {
        if self.authority != Some(authority) {
            self.young.clear();
            self.old.clear();
            self.authority = Some(authority);
        }
        if !self.young.contains_key(&name.0) {
            let verified = self.old.remove(&name.0)?;
            self.insert(name, verified);
        }
        self.young.get(&name.0)
    }

    /// Keeps what [`Self::get`] did not find.
    pub(super) fn insert(&mut self, name: TokenName, verified: Verified) {
        if self.young.len() >= GENERATION_MAX {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(name.0, verified);
    }

    pub(super) fn remove(&mut self, name: TokenName) {
        self.young.remove(&name.0);
        self.old.remove(&name.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Identity;
    use super::super::scope::Scope;
    use super::*;

    fn verified(expires_s: u64) -> Verified {
        let client = Client::new(Identity::Token { subject: None }, Scope::All, None);
        Verified { client, expires_s }
    }

    fn name(number: usize) -> TokenName {
        TokenName::of(&number.to_le_bytes())
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let mut cache = TokenCache::default();
        for number in 0..10 * GENERATION_MAX {
            assert!(cache.get(1, name(number)).is_none());
            cache.insert(name(number), verified(7));
            assert!(cache.get(1, name(0)).is_some(), "used all the time");
            assert!(cache.young.len() + cache.old.len() <= 2 * GENERATION_MAX);
        }
        assert!(cache.get(1, name(1)).is_none(), "not used");
    }

    #[test]
    fn another_authority_finds_nothing() {
        let mut cache = TokenCache::default();
        assert!(cache.get(1, name(0)).is_none());
        cache.insert(name(0), verified(7));
        assert_eq!(cache.get(1, name(0)).map(|found| found.expires_s), Some(7));
        assert!(cache.get(2, name(0)).is_none());
        assert!(cache.get(1, name(0)).is_none(), "nor the former one later");
    }
}
