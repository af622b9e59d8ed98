//! Whether the shards may use a container that is up, or are being asked to part with it.
//!
//! ```text
//!               ask
//!        +------------------> Asked --- all parted ---> Stop
//!      Held                     |
//!        ^------- GiveBack -----+ one keeps it, or a call wants it
//! ```

use std::time::Instant;

/// See the module's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    /// The shards use it.
    Held {
        /// When to look whether they still do; never for a function without `idle_timeout`.
        look_at: Option<Instant>,
    },
    /// Every shard was asked to part with it.
    Asked {
        /// Shards that have not answered.
        unanswered: usize,
        /// Whether one of those that have keeps it.
        kept: bool,
    },
}

/// What a shard says when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Its calls wait from here on.
    Parted,
    /// A call needs the container.
    Kept,
}

/// What becomes of the container once all shards have answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Stop,
    GiveBack,
}

impl Lease {
    pub(super) fn look_at(self) -> Option<Instant> {
        match self {
            Self::Held { look_at } => look_at,
            Self::Asked { .. } => None,
        }
    }

    /// Notes that `shards` shards are asked.
    pub(super) fn ask(&mut self, shards: usize) {
        *self = Self::Asked { unanswered: shards, kept: false };
    }

    /// A shard has answered. The last answer decides; `None` until then, and for an answer to
    /// nothing.
    #[must_use]
    pub(super) fn answer(&mut self, reply: Reply) -> Option<Verdict> {
        let Self::Asked { unanswered, kept } = self else { return None };
        *kept |= reply == Reply::Kept;
        *unanswered = unanswered.saturating_sub(1);
        match (*unanswered, *kept) {
            (0, true) => Some(Verdict::GiveBack),
            (0, false) => Some(Verdict::Stop),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(shards: usize) -> Lease {
        let mut lease = Lease::Held { look_at: Some(Instant::now()) };
        lease.ask(shards);
        lease
    }

    #[test]
    fn a_container_is_stopped_when_the_last_shard_has_parted_with_it() {
        let mut lease = asked(3);
        assert_eq!(lease.look_at(), None);
        assert_eq!(lease.answer(Reply::Parted), None);
        assert_eq!(lease.answer(Reply::Parted), None);
        assert_eq!(lease.answer(Reply::Parted), Some(Verdict::Stop));
    }

    #[test]
    fn one_shard_keeps_it_for_all_whenever_it_answers() {
        for keeps in 0..3 {
            let mut lease = asked(3);
            let replies =
                (0..3).map(|shard| if shard == keeps { Reply::Kept } else { Reply::Parted });
            let verdicts: Vec<_> = replies.map(|reply| lease.answer(reply)).collect();
            assert_eq!(verdicts, [None, None, Some(Verdict::GiveBack)]);
        }
    }

    #[test]
    fn an_answer_to_nothing_changes_nothing() {
        let mut lease = Lease::Held { look_at: None };
        assert_eq!(lease.answer(Reply::Parted), None);
        assert_eq!(lease, Lease::Held { look_at: None });
    }
}
