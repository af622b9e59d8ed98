//! What the engine's numbers in other hands stand for: tokens of its operations in the reactor, tags of
//! results that are being read.

use ipc::LaneIndex;
use reactor::Token;

use crate::core::{FunctionId, WorkerId};

/// Top byte of every token of the engine and of every ring message for one; the gateway's tokens and
/// other messages have others.
const OWNER: u64 = 0x45;

/// What an operation of the engine is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The shard's mailbox has mail.
    Mailbox,
    /// A container rang the bell of its channel. The link's number tells a predecessor's bell apart.
    Bell { function: FunctionId, link: u16 },
    /// A worker's doorbell could not be rung.
    Doorbell { function: FunctionId, link: u16 },
    /// There are parcels for this shard; as the value of a ring message.
    Parcels { shard: u16 },
}

/// Whether an event with this token is for [`super::Engine::on_event`].
#[must_use]
pub fn owns(token: Token) -> bool {
    token.0 >> 56 == OWNER
}

impl Subject {
    pub(super) fn token(self) -> Token {
        let (kind, link, function) = match self {
            Self::Mailbox => (1, 0, 0),
            Self::Bell { function, link } => (2, link, function.0),
            Self::Doorbell { function, link } => (3, link, function.0),
            Self::Parcels { shard } => (4, shard, 0),
        };
        Token(OWNER << 56 | kind << 48 | u64::from(link) << 32 | u64::from(function))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "fields are cut out of the word on purpose"
    )]
    pub(super) fn of(token: Token) -> Option<Self> {
        let link = (token.0 >> 32) as u16;
        let function = FunctionId(token.0 as u32);
        match token.0 >> 48 & 0xff {
            1 => Some(Self::Mailbox),
            2 => Some(Self::Bell { function, link }),
            3 => Some(Self::Doorbell { function, link }),
            4 => Some(Self::Parcels { shard: link }),
            _ => None,
        }
    }
}

/// Whose memory a result lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeldBy {
    pub(super) worker: WorkerId,
    /// The link's number: a successor's workers owe nothing for it.
    pub(super) link: u16,
}

impl HeldBy {
    pub(super) fn tag(self) -> u64 {
        let Self { worker, link } = self;
        u64::from(worker.function.0) << 32 | u64::from(worker.lane.0) << 16 | u64::from(link)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "fields are cut out of the word on purpose"
    )]
    pub(super) fn of(tag: u64) -> Self {
        let worker = WorkerId {
            function: FunctionId((tag >> 32) as u32),
            lane: LaneIndex((tag >> 16) as u16),
        };
        Self { worker, link: tag as u16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_its_subject_and_its_owner() {
        let function = FunctionId(u32::MAX);
        for subject in [
            Subject::Mailbox,
            Subject::Bell { function, link: u16::MAX },
            Subject::Doorbell { function: FunctionId(7), link: 0 },
            Subject::Parcels { shard: u16::MAX },
        ] {
            assert!(owns(subject.token()));
            assert_eq!(Subject::of(subject.token()), Some(subject));
        }
        assert!(!owns(Token(0x47 << 56)));
    }

    #[test]
    fn a_tag_tells_whose_memory_it_is() {
        let worker = WorkerId { function: FunctionId(u32::MAX - 1), lane: LaneIndex(255) };
        let held = HeldBy { worker, link: 7 };
        assert_eq!(HeldBy::of(held.tag()), held);
    }
}
