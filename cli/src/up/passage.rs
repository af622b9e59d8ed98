//! The way of connections from shard to shard: ring messages, and a count of those under way.
//!
//! The count is for the end. A shard that drains is done when it has no connection and none can come
//! any more: the passage is closed first, and then the count only falls.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use reactor::{Address, Reactor};

/// What one shard tells another, in the 64 bits of a ring message:
///
/// ```text
///  63    56 55          32 31                     0
/// ┌────────┬──────────────┬────────────────────────┐
/// │  0, 1  │              │       descriptor       │
/// │   2    │ to (16 bits) │         count          │
/// └────────┴──────────────┴────────────────────────┘
/// ```
/// The engine's own messages have a tag that is none of these. A connection is its descriptor's number: the process is the same.
#[derive(Debug)]
pub(super) enum Message {
    /// A connection that was accepted just now.
    Accepted(OwnedFd),
    /// A connection that was served by another shard.
    Moved(OwnedFd),
    /// Let that many connections go to that shard.
    SendAway { to: u16, count: u32 },
}

const ACCEPTED: u64 = 0;
const MOVED: u64 = 1;
const SEND_AWAY: u64 = 2;

impl Message {
    fn encode(self) -> u64 {
        let (tag, to, low) = match self {
            Self::Accepted(socket) => (ACCEPTED, 0, number(socket)),
            Self::Moved(socket) => (MOVED, 0, number(socket)),
            Self::SendAway { to, count } => (SEND_AWAY, to, count),
        };
        (tag << 56) | (u64::from(to) << 32) | u64::from(low)
    }

    /// The inverse, once for each message.
    pub(super) fn decode(value: u64) -> Option<Message> {
        let low = u32::try_from(value & u64::from(u32::MAX)).ok()?;
        let to = u16::try_from((value >> 32) & u64::from(u16::MAX)).ok()?;
        match value >> 56 {
            ACCEPTED => Some(Self::Accepted(socket(low)?)),
            MOVED => Some(Self::Moved(socket(low)?)),
            SEND_AWAY => Some(Self::SendAway { to, count: low }),
            _ => None,
        }
    }
}

#[expect(clippy::cast_sign_loss, reason = "descriptors are not negative")]
fn number(socket: OwnedFd) -> u32 {
    socket.into_raw_fd() as u32
}

fn socket(number: u32) -> Option<OwnedFd> {
    let fd = RawFd::try_from(number).ok()?;
    // SAFETY: only `encode` of this process makes such values, and it gave up the descriptor; a
    // message arrives, or comes back, once.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// See the module's description. Shared by all shards.
#[derive(Debug, Default)]
pub(super) struct Passage {
    /// The rings of all shards, by shard: set when all stand.
    rings: OnceLock<Box<[Address]>>,
    under_way: AtomicU32,
    closed: AtomicBool,
}

impl Passage {
    pub(super) fn open(&self, rings: &[Address]) {
        let _ = self.rings.set(rings.into());
    }

    /// Sends a connection to another shard.
    ///
    /// # Errors
    /// Returns it if the passage is closed or there is no such shard.
    pub(super) fn send(
        &self,
        reactor: &mut Reactor,
        to: u16,
        socket: OwnedFd,
        wrap: fn(OwnedFd) -> Message,
    ) -> Result<(), OwnedFd> {
        let Some(ring) = self.ring(to) else { return Err(socket) };
        // SYNC(passage): pairs with `close`. Either this sees it closed, or whoever closed it sees the
        // count; both are SeqCst, since a store must not pass the load behind it.
        self.under_way.fetch_add(1, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) {
            self.arrived();
            return Err(socket);
        }
        reactor.message(ring, wrap(socket).encode());
        Ok(())
    }

    /// Asks another shard to let connections go.
    pub(super) fn ask(&self, reactor: &mut Reactor, shard: u16, to: u16, count: u32) {
        if let Some(ring) = self.ring(shard) {
            reactor.message(ring, Message::SendAway { to, count }.encode());
        }
    }

    /// A connection is under way to a shard by its mail, or may come to be: whoever drains waits for it.
    pub(super) fn enter(&self) {
        self.under_way.fetch_add(1, Ordering::SeqCst);
    }

    /// A connection was taken in by the shard that got it, or came back.
    pub(super) fn arrived(&self) {
        self.under_way.fetch_sub(1, Ordering::SeqCst);
    }

    /// From now on connections stay where they are.
    pub(super) fn close(&self) {
        // SYNC(passage): pairs with `send`.
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Nothing is under way; behind `close` that is for good.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) == 0
    }

    fn ring(&self, shard: u16) -> Option<Address> {
        self.rings.get()?.get(usize::from(shard)).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn messages_survive_their_64_bits() {
        let value = Message::SendAway { to: 0xabcd, count: 0x1234_5678 }.encode();
        let decoded = Message::decode(value);
        assert!(matches!(decoded, Some(Message::SendAway { to: 0xabcd, count: 0x1234_5678 })));
        let file = || OwnedFd::from(File::open("/dev/null").unwrap());
        let value = Message::Accepted(file()).encode();
        assert!(matches!(Message::decode(value), Some(Message::Accepted(_))));
        let value = Message::Moved(file()).encode();
        assert!(matches!(Message::decode(value), Some(Message::Moved(_))));
        assert!(Message::decode(9 << 56).is_none());
    }
}
