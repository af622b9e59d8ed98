//! Calls of gateways that the engine has and whose answers are owed: who asked, and under which number.

use ipc::CallId;
use slab::Slab;

use super::key::Key;
use crate::core::Caller;

/// A call that was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    key: Key,
    /// The link that it came by.
    pub(super) peer: Key,
    /// Its name there.
    pub(super) stream: u64,
    /// Its name here.
    pub(super) call: CallId,
}

/// All of them. Bounded by the calls that the core admits.
#[derive(Debug, Default)]
pub(super) struct Calls {
    slots: Slab<Pending>,
    generation: u32,
}

impl Calls {
    /// The key that the next call will have.
    pub(super) fn next_key(&self) -> Option<Key> {
        Key::new(self.slots.vacant_key(), self.generation)
    }

    /// Keeps a call that the engine has just taken under [`Self::next_key`].
    pub(super) fn insert(&mut self, key: Key, peer: Key, stream: u64, call: CallId) {
        let slot = self.slots.insert(Pending { key, peer, stream, call });
        debug_assert_eq!(slot, key.slot(), "nothing came in between");
        self.generation = self.generation.wrapping_add(1);
    }

    /// Takes the call that is answered, unless nobody waits for it any more.
    pub(super) fn answered(&mut self, caller: Caller) -> Option<Pending> {
        let (key, _) = Key::parse(caller.0)?;
        self.remove(key)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Pending> {
        let is_it = self.slots.get(key.slot()).is_some_and(|pending| pending.key == key);
        is_it.then(|| self.slots.remove(key.slot()))
    }

    pub(super) fn count(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_finds_its_call_once_and_never_a_successor() {
        let mut calls = Calls::default();
        let peer = Key::new(3, 1).unwrap();
        let first = calls.next_key().unwrap();
        calls.insert(first, peer, 70, CallId(7));
        let found = calls.answered(first.caller()).unwrap();
        assert_eq!((found.peer, found.stream, found.call), (peer, 70, CallId(7)));
        let second = calls.next_key().unwrap();
        assert_eq!(second.slot(), first.slot());
        calls.insert(second, peer, 71, CallId(8));
        assert!(calls.answered(first.caller()).is_none());
        assert!(calls.answered(Caller(0x47 << 56)).is_none());
        assert_eq!(calls.count(), 1);
        assert!(calls.remove(second).is_some());
        assert_eq!(calls.count(), 0);
    }
}
