//! Outcomes as gRPC says them.

use gateway::intake::Failure;
use ipc::Outcome;

use super::message::MessageFault;

/// Bytes of `grpc-message` at most, before they are encoded: a header block has to hold them.
const MESSAGE_MAX: usize = 1_024;

/// A status code of gRPC, of those that are said here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// It succeeded.
    Ok = 0,
    /// The caller went away.
    Cancelled = 1,
    /// The function says no more than that it failed.
    Unknown = 2,
    /// The request makes no sense.
    InvalidArgument = 3,
    /// The time is over.
    DeadlineExceeded = 4,
    /// What the function was asked for is not there.
    NotFound = 5,
    /// The client may not.
    PermissionDenied = 7,
    /// Something is too large, or a limit is reached.
    ResourceExhausted = 8,
    /// It cannot be so; to ask again does not help.
    FailedPrecondition = 9,
    /// Calls were in each other's way.
    Aborted = 10,
    /// No such service, method or feature.
    Unimplemented = 12,
    /// Something is broken here; the call may have had effects.
    Internal = 13,
    /// It did not begin. To ask again is safe.
    Unavailable = 14,
    /// Who is it?
    Unauthenticated = 16,
}

/// How a call ended, in the words of gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// `grpc-status`.
    pub code: Code,
    /// `grpc-message`, not encoded yet.
    pub message: String,
    /// `grpc-retry-pushback-ms`.
    pub retry_after_s: Option<u32>,
}

impl Status {
    /// A status with a message.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code, message: message.into(), retry_after_s: None }
    }

    /// A failure of the contract.
    #[must_use]
    pub fn of(failure: Failure) -> Status {
        let code = match (failure.outcome, failure.status) {
            // The function named a status of HTTP: that is more than the outcome says.
            (Outcome::FunctionError, status) if status != Outcome::FunctionError.http_status() => {
                of_http(status)
            }
            // Who may not is no matter of outcomes.
            (_, status @ (401 | 403)) => of_http(status),
            (outcome, _) => of_outcome(outcome),
        };
        Status { code, message: failure.message, retry_after_s: failure.retry_after_s }
    }
}

impl From<MessageFault> for Status {
    fn from(fault: MessageFault) -> Status {
        let code = match fault {
            MessageFault::Cut | MessageFault::Flags => Code::Internal,
            MessageFault::None | MessageFault::Several | MessageFault::Compressed => {
                Code::Unimplemented
            }
        };
        Status::new(code, fault.to_string())
    }
}

/// What an outcome is in gRPC. Clients repeat what is `Unavailable`, so only calls that never began
/// are.
#[must_use]
pub fn of_outcome(outcome: Outcome) -> Code {
    match outcome {
        Outcome::Ok => Code::Ok,
        Outcome::FunctionError => Code::Unknown,
        Outcome::FunctionPanic | Outcome::ContainerDied | Outcome::HostLost => Code::Internal,
        Outcome::BadRequest => Code::InvalidArgument,
        Outcome::NotFound => Code::Unimplemented,
        Outcome::TooLarge | Outcome::LimitReached => Code::ResourceExhausted,
        Outcome::Overloaded | Outcome::Unavailable | Outcome::NoSpace | Outcome::BreakerOpen => {
            Code::Unavailable
        }
        Outcome::DeadlineExceeded => Code::DeadlineExceeded,
        Outcome::TooDeep => Code::FailedPrecondition,
        Outcome::Cancelled => Code::Cancelled,
        Outcome::Deadlock => Code::Aborted,
    }
}

/// What a function meant by a status of HTTP (as `google/rpc/code.proto` pairs them).
#[must_use]
pub fn of_http(status: u16) -> Code {
    match status {
        200..=299 => Code::Ok,
        400 | 405 | 411 | 414 | 417 | 422 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 | 410 => Code::NotFound,
        408 | 504 => Code::DeadlineExceeded,
        409 => Code::Aborted,
        412 | 428 => Code::FailedPrecondition,
        413 | 429 | 431 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        500 | 502 => Code::Internal,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// `grpc-message` as it is sent: printable ASCII but "%" as it is, all else percent-encoded.
#[must_use]
pub fn encode_message(message: &str) -> String {
    let mut end = message.len().min(MESSAGE_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let mut encoded = String::with_capacity(end);
    for byte in message.as_bytes()[..end].iter().copied() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            encoded.push('%');
            encoded.push(char::from(DIGITS[usize::from(byte >> 4)]));
            encoded.push(char::from(DIGITS[usize::from(byte & 0xf)]));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(outcome: Outcome, status: u16) -> Failure {
        let kind = outcome.as_str();
        let message = "m".to_owned();
        Failure {
            status,
            outcome,
            kind,
            message,
            retry_after_s: None,
            allow: None,
            challenge: None,
        }
    }

    /// The table of docs/http2.md.
    #[test]
    fn every_outcome_has_the_status_that_the_documentation_promises() {
        let text = include_str!("../../../docs/http2.md");
        for outcome in Outcome::ALL {
            let code = of_outcome(outcome);
            let row = format!("| `{}` | {} ({})", outcome.as_str(), name(code), code as u8);
            assert!(text.contains(&row), "docs/http2.md lacks {row}");
        }
    }

    fn name(code: Code) -> &'static str {
        match code {
            Code::Ok => "OK",
            Code::Cancelled => "CANCELLED",
            Code::Unknown => "UNKNOWN",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Aborted => "ABORTED",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    #[test]
    fn only_success_is_ok() {
        for outcome in Outcome::ALL {
            assert_eq!(of_outcome(outcome) == Code::Ok, outcome == Outcome::Ok, "{outcome:?}");
        }
    }

    #[test]
    fn a_status_that_a_function_chose_says_more_than_that_it_failed() {
        let code = |outcome, status| Status::of(failure(outcome, status)).code;
        assert_eq!(code(Outcome::FunctionError, 500), Code::Unknown);
        assert_eq!(code(Outcome::FunctionError, 404), Code::NotFound);
        assert_eq!(code(Outcome::FunctionError, 409), Code::Aborted);
        assert_eq!(code(Outcome::FunctionError, 418), Code::Unknown);
        assert_eq!(code(Outcome::NotFound, 404), Code::Unimplemented);
        assert_eq!(code(Outcome::BadRequest, 401), Code::Unauthenticated);
        assert_eq!(code(Outcome::BadRequest, 403), Code::PermissionDenied);
    }

    #[test]
    fn messages_are_percent_encoded_and_bounded() {
        assert_eq!(encode_message("100% \"ok\"\né"), "100%25 \"ok\"%0A%C3%A9");
        assert_eq!(encode_message(&"é".repeat(MESSAGE_MAX)).len(), MESSAGE_MAX * 3);
        let odd = format!("x{}", "é".repeat(MESSAGE_MAX));
        assert_eq!(encode_message(&odd).len(), 1 + (MESSAGE_MAX - 2) * 3);
    }
}
