//! Failures: what a function answers instead of a result, and what a called function did.

use core::any::Any;
use core::ffi::c_int;
use core::fmt;

/// Why a call failed. The numbers are those of the wire and of `nightcore.h`.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The function returned an error.
    FunctionError = 1,
    /// The function panicked.
    FunctionPanic = 2,
    /// The input is not what the function takes.
    BadRequest = 3,
    /// There is no such function, or not what was asked of it.
    NotFound = 4,
    /// Input or answer exceeds the runtime's limit.
    TooLarge = 5,
    /// A limit on waiting calls is reached: try later.
    Overloaded = 6,
    /// No container can take the call.
    Unavailable = 7,
    /// The deadline passed first.
    DeadlineExceeded = 8,
    /// Functions called each other too deep.
    TooDeep = 9,
    /// The callee's container died during the call.
    ContainerDied = 10,
    /// Whoever asked does not want the answer any more.
    Cancelled = 11,
    /// No room in shared memory.
    NoSpace = 12,
    /// The callee takes no more calls than a limit of its own allows: try later.
    LimitReached = 13,
    /// Every worker that could run the call waits for a call that waits for this one.
    Deadlock = 14,
    /// The callee's containers keep dying, and none is started for a while: try later.
    BreakerOpen = 15,
    /// The host that ran the call was lost, and the call may not be made twice.
    HostLost = 16,
}

impl ErrorKind {
    const ALL: [ErrorKind; 16] = [
        ErrorKind::FunctionError,
        ErrorKind::FunctionPanic,
        ErrorKind::BadRequest,
        ErrorKind::NotFound,
        ErrorKind::TooLarge,
        ErrorKind::Overloaded,
        ErrorKind::Unavailable,
        ErrorKind::DeadlineExceeded,
        ErrorKind::TooDeep,
        ErrorKind::ContainerDied,
        ErrorKind::Cancelled,
        ErrorKind::NoSpace,
        ErrorKind::LimitReached,
        ErrorKind::Deadlock,
        ErrorKind::BreakerOpen,
        ErrorKind::HostLost,
    ];

    /// The name used in JSON errors and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::FunctionError => "function_error",
            ErrorKind::FunctionPanic => "function_panic",
            ErrorKind::BadRequest => "bad_request",
            ErrorKind::NotFound => "not_found",
            ErrorKind::TooLarge => "payload_too_large",
            ErrorKind::Overloaded => "overloaded",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::DeadlineExceeded => "deadline_exceeded",
            ErrorKind::TooDeep => "call_too_deep",
            ErrorKind::ContainerDied => "container_died",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::NoSpace => "no_space",
            ErrorKind::LimitReached => "limit_reached",
            ErrorKind::Deadlock => "deadlock",
            ErrorKind::BreakerOpen => "breaker_open",
            ErrorKind::HostLost => "host_lost",
        }
    }

    /// The kind with this number; one that is not known here counts as `FunctionError`.
    pub(crate) fn from_code(code: c_int) -> ErrorKind {
        let known = ErrorKind::ALL.into_iter().find(|kind| *kind as c_int == code);
        known.unwrap_or(ErrorKind::FunctionError)
    }
}

/// The failure of a function. Any error type converts into one with `?`: a [`CallError`] keeps
/// what concerns the whole chain of calls (deadline, depth, overload, deadlock), everything else counts as
/// a failure of the function.
///
/// It is no `std::error::Error` itself, or that conversion could not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// A failure of this kind with a message for people.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into() }
    }

    /// The function cannot do its work: answered with 500.
    pub fn failed(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::FunctionError, message)
    }

    /// The input makes no sense: answered with 400.
    pub fn bad_request(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::BadRequest, message)
    }

    /// What was asked for does not exist: answered with 404.
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::NotFound, message)
    }

    /// The function cannot work just now: answered with 503.
    pub fn unavailable(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unavailable, message)
    }

    /// Why.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// In words.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.message)
    }
}

impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Error {
        match (&error as &dyn Any).downcast_ref::<CallError>() {
            Some(call) => call.inherited(),
            None => Error::failed(error.to_string()),
        }
    }
}

/// The failure of a call to another function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    kind: ErrorKind,
    message: String,
}

impl CallError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> CallError {
        CallError { kind, message: message.into() }
    }

    /// What a function that gives up because of this has to answer: limits of the whole chain keep
    /// their name and words, the callee's own trouble becomes the caller's failure.
    fn inherited(&self) -> Error {
        match self.kind {
            ErrorKind::Overloaded
            | ErrorKind::Unavailable
            | ErrorKind::DeadlineExceeded
            | ErrorKind::TooDeep
            | ErrorKind::LimitReached
            | ErrorKind::Deadlock
            | ErrorKind::BreakerOpen
            | ErrorKind::Cancelled => Error::new(self.kind, self.message.clone()),
            _ => Error::failed(self.to_string()),
        }
    }

    /// Why the call failed.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the callee, or the runtime in its place, said. May be empty.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a called function failed: {}", self.kind.as_str())?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

impl std::error::Error for CallError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_becomes_a_failure_of_the_function() {
        let parse = "x".parse::<u8>().unwrap_err();
        let error = Error::from(parse.clone());
        assert_eq!(error.kind(), ErrorKind::FunctionError);
        assert_eq!(error.message(), parse.to_string());
    }

    #[test]
    fn limits_of_the_whole_chain_keep_their_name_on_the_way_up() {
        for kind in ErrorKind::ALL {
            let error = Error::from(CallError::new(kind, "why"));
            let kept = matches!(
                kind,
                ErrorKind::Overloaded
                    | ErrorKind::Unavailable
                    | ErrorKind::DeadlineExceeded
                    | ErrorKind::TooDeep
                    | ErrorKind::Cancelled
                    | ErrorKind::LimitReached
                    | ErrorKind::Deadlock
                    | ErrorKind::BreakerOpen
            );
            // The engine knows them by the same names.
            #[cfg(feature = "host")]
            assert_eq!(
                ipc::Outcome::try_from(kind as u8).map(ipc::Outcome::is_passed_on),
                Ok(kept)
            );
            if kept {
                assert_eq!(error, Error::new(kind, "why"));
            } else {
                assert_eq!(error.kind(), ErrorKind::FunctionError);
                assert!(error.message().ends_with("why") && error.message() != "why");
            }
        }
    }

    #[test]
    fn numbers_and_kinds_map_both_ways() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_code(kind as c_int), kind);
        }
        assert_eq!(ErrorKind::from_code(77), ErrorKind::FunctionError);
    }
}
