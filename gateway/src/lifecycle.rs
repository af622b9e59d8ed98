//! What a connection owes when something other than a request or an answer happens to it: the
//! whole table, and nothing but the table. `connection` performs what is owed.
//!
//! ```text
//!           ┌──────────────────────────── keep-alive ─────────────────────────────┐
//!           ▼                                                                     │
//!  adopt ► Idle ──► Head ──► Body ──► Calling ──► Sending ◄──► Pinned ────────────┤
//!                    └─────────┴── refused ───────►┘                              │
//!                                                                                 ▼ close
//!                                                  (gone) ◄── EOF, limit ─── Draining
//! ```

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No byte of the next request has come.
    Idle,
    /// A part of a head has come.
    Head,
    /// A head and a part of its body have come.
    Body,
    /// A call is out.
    Calling,
    /// An answer is on its way out of our own memory.
    Sending,
    /// An answer is on its way straight out of a function's memory.
    Pinned,
    /// The last answer is out and our half is closed; what still comes is thrown away, so that
    /// the kernel does not reset the connection before the client has read the answer.
    Draining,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incident {
    /// The client closed its half, and everything it sent before has been looked at.
    Ended,
    /// The connection is broken.
    Reset,
    /// The time given to this phase is over.
    Timeout,
    /// The host goes down.
    Drain,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    Nothing,
    /// Close, without a word.
    Close,
    /// Withdraw the call, then close.
    CancelAndClose,
    /// Answer 408 and close politely.
    AnswerTooSlow,
    /// Answer 400 and close politely.
    AnswerIncomplete,
    /// Copy the rest of the answer out of the function's memory.
    CopyOut,
    /// Give the client a short time for one more request.
    Grace,
}

#[must_use]
pub(crate) const fn owed(phase: Phase, incident: Incident) -> Owed {
    match (phase, incident) {
        (Phase::Calling, Incident::Reset) => Owed::CancelAndClose,
        (_, Incident::Reset) => Owed::Close,

        (Phase::Idle | Phase::Draining, Incident::Ended) => Owed::Close,
        (Phase::Head | Phase::Body, Incident::Ended) => Owed::AnswerIncomplete,
        // A half-closed client still gets its answer.
        (Phase::Calling | Phase::Sending | Phase::Pinned, Incident::Ended) => Owed::Nothing,

        (Phase::Head | Phase::Body, Incident::Timeout) => Owed::AnswerTooSlow,
        (Phase::Idle | Phase::Sending | Phase::Draining, Incident::Timeout) => Owed::Close,
        (Phase::Pinned, Incident::Timeout) => Owed::CopyOut,
        // The deadline of a call is the engine's business.
        (Phase::Calling, Incident::Timeout) => Owed::Nothing,

        (Phase::Idle, Incident::Drain) => Owed::Grace,
        (
            Phase::Head
            | Phase::Body
            | Phase::Calling
            | Phase::Sending
            | Phase::Pinned
            | Phase::Draining,
            Incident::Drain,
        ) => Owed::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_owes_what_the_table_says_for_every_incident() {
        use Owed::*;
        //                  Ended             Reset           Timeout        Drain
        let table = [
            (Phase::Idle, [Close, Close, Close, Grace]),
            (Phase::Head, [AnswerIncomplete, Close, AnswerTooSlow, Nothing]),
            (Phase::Body, [AnswerIncomplete, Close, AnswerTooSlow, Nothing]),
            (Phase::Calling, [Nothing, CancelAndClose, Nothing, Nothing]),
            (Phase::Sending, [Nothing, Close, Close, Nothing]),
            (Phase::Pinned, [Nothing, Close, CopyOut, Nothing]),
            (Phase::Draining, [Close, Close, Close, Nothing]),
        ];
        let incidents = [Incident::Ended, Incident::Reset, Incident::Timeout, Incident::Drain];
        for (phase, expected) in table {
            for (incident, expected) in incidents.into_iter().zip(expected) {
                assert_eq!(owed(phase, incident), expected, "{phase:?} {incident:?}");
            }
        }
    }
}
