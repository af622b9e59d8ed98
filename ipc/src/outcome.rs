//! How a call ended: one byte on the ring, one word in JSON and metrics, one HTTP status. And how long
//! it took.

use core::time::Duration;

/// How a call ended. When not `Ok`, the payload is a UTF-8 message for people, possibly empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// The function answered.
    Ok = 0,
    /// The function returned an error.
    FunctionError = 1,
    /// The function panicked; its container lives on.
    FunctionPanic = 2,
    /// The caller's request makes no sense to the function.
    BadRequest = 3,
    /// No function of that name.
    NotFound = 4,
    /// A payload above the limit.
    TooLarge = 5,
    /// The function's queue is full.
    Overloaded = 6,
    /// No capacity, or draining.
    Unavailable = 7,
    /// The deadline passed first.
    DeadlineExceeded = 8,
    /// The chain of internal calls is too long.
    TooDeep = 9,
    /// The container died while the call ran.
    ContainerDied = 10,
    /// The caller went away.
    Cancelled = 11,
    /// The channel's memory has no room for the payload now.
    NoSpace = 12,
    /// The function takes no more calls than a limit of its own allows.
    LimitReached = 13,
    /// Every worker that could run the call waits for a call that waits for this one.
    Deadlock = 14,
    /// The function's containers keep dying, and none is started for a while.
    BreakerOpen = 15,
    /// The host that the call ran on was lost, and the call must not be made twice.
    HostLost = 16,
}

/// Where the time of a call went that an engine has answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Until a worker got it; all of it if none did.
    pub queued: Duration,
    /// From then on, what it waited in the worker's lane included.
    pub ran: Duration,
}

/// A byte that names no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no outcome")]
pub struct UnknownOutcome(pub u8);

impl Outcome {
    /// Every outcome; the position is the byte.
    pub const ALL: [Outcome; 17] = [
        Outcome::Ok,
        Outcome::FunctionError,
        Outcome::FunctionPanic,
        Outcome::BadRequest,
        Outcome::NotFound,
        Outcome::TooLarge,
        Outcome::Overloaded,
        Outcome::Unavailable,
        Outcome::DeadlineExceeded,
        Outcome::TooDeep,
        Outcome::ContainerDied,
        Outcome::Cancelled,
        Outcome::NoSpace,
        Outcome::LimitReached,
        Outcome::Deadlock,
        Outcome::BreakerOpen,
        Outcome::HostLost,
    ];

    /// Whether a function that gives up because a call of its own ended like this ends like it too: what
    /// concerns the whole chain of calls, not the callee alone.
    #[must_use]
    pub const fn is_passed_on(self) -> bool {
        matches!(
            self,
            Outcome::Overloaded
                | Outcome::Unavailable
                | Outcome::DeadlineExceeded
                | Outcome::TooDeep
                | Outcome::LimitReached
                | Outcome::Deadlock
                | Outcome::BreakerOpen
                | Outcome::Cancelled
        )
    }

    /// The `error` of the JSON answer, and the label in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::FunctionError => "function_error",
            Outcome::FunctionPanic => "function_panic",
            Outcome::BadRequest => "bad_request",
            Outcome::NotFound => "not_found",
            Outcome::TooLarge => "payload_too_large",
            Outcome::Overloaded => "overloaded",
            Outcome::Unavailable => "unavailable",
            Outcome::DeadlineExceeded => "deadline_exceeded",
            Outcome::TooDeep => "call_too_deep",
            Outcome::ContainerDied => "container_died",
            Outcome::Cancelled => "cancelled",
            Outcome::NoSpace => "no_space",
            Outcome::LimitReached => "limit_reached",
            Outcome::Deadlock => "deadlock",
            Outcome::BreakerOpen => "breaker_open",
            Outcome::HostLost => "host_lost",
        }
    }

    /// The status an HTTP caller is answered with. 499 is what nginx logs for a caller that left.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Outcome::Ok => 200,
            Outcome::FunctionError | Outcome::FunctionPanic => 500,
            Outcome::BadRequest => 400,
            Outcome::NotFound => 404,
            Outcome::TooLarge => 413,
            Outcome::LimitReached => 429,
            Outcome::Overloaded
            | Outcome::Unavailable
            | Outcome::NoSpace
            | Outcome::Deadlock
            | Outcome::BreakerOpen => 503,
            Outcome::DeadlineExceeded => 504,
            Outcome::TooDeep => 508,
            Outcome::ContainerDied | Outcome::HostLost => 502,
            Outcome::Cancelled => 499,
        }
    }
}

impl TryFrom<u8> for Outcome {
    type Error = UnknownOutcome;

    fn try_from(byte: u8) -> Result<Self, UnknownOutcome> {
        Outcome::ALL.get(byte as usize).copied().ok_or(UnknownOutcome(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_its_outcome_or_none() {
        for byte in 0..=u8::MAX {
            match Outcome::try_from(byte) {
                Ok(outcome) => assert_eq!(outcome as u8, byte),
                Err(error) => assert_eq!(error, UnknownOutcome(byte)),
            }
        }
        assert_eq!(Outcome::HostLost as usize + 1, Outcome::ALL.len());
    }
}
