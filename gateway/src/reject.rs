//! Why the gateway itself turns a request away: the HTTP-level half of the error contract. The
//! other half, what becomes of a call, is [`ipc::Outcome`].

use ipc::Outcome;

use crate::upstream::Upstream;

use crate::auth::AuthReject;

/// A request the gateway answers without asking anybody. The blame is the client's, but for
/// `TooManyConnections` and `NotReady`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reject {
    /// Syntax or framing that two readers could understand differently.
    #[error("{0}")]
    Malformed(&'static str),
    /// Well framed, but a field of ours has a value that means nothing.
    #[error("{0}")]
    BadField(&'static str),
    /// No such path, or no function of that name.
    #[error("{0}")]
    NotFound(&'static str),
    /// The path exists; `allow` lists the methods it takes.
    #[error("this path takes {allow} only")]
    MethodNotAllowed {
        /// The value of the `Allow` header.
        allow: &'static str,
    },
    /// It may not come in.
    #[error("{0}")]
    Auth(AuthReject),
    /// The head or the body came too slowly.
    #[error("the request did not arrive in time")]
    TooSlow,
    /// The body is, or is announced to be, over the limit.
    #[error("the request body is over the limit of {limit} bytes")]
    BodyTooLarge {
        /// `Config::body_max`.
        limit: u32,
    },
    /// The request target is over the limit.
    #[error("the request target is too long")]
    UriTooLong,
    /// `Expect` with anything but `100-continue`.
    #[error("only the expectation 100-continue can be met")]
    UnknownExpectation,
    /// Too many header fields, or too many bytes of them.
    #[error("the request header is over the limit")]
    HeaderTooLarge,
    /// `Transfer-Encoding` with anything but a single `chunked`.
    #[error("only the transfer encoding chunked is understood")]
    UnknownEncoding,
    /// Not HTTP/1.1 or 1.0.
    #[error("only HTTP/1.1 and HTTP/1.0 are spoken here")]
    UnknownVersion,
    /// The time the client gave was over before the call could begin.
    #[error("the time given by the client was over before the call began")]
    NoTimeLeft,
    /// The shard serves as many connections as it may.
    #[error("too many connections; try again")]
    TooManyConnections,
    /// The host is starting or draining.
    #[error("{0}")]
    NotReady(&'static str),
}

impl Reject {
    /// There is no function of the name that a request has.
    pub(crate) fn no_function(upstream: &impl Upstream) -> Reject {
        if upstream.is_incomplete() {
            return Reject::NotReady("no engine has joined yet");
        }
        Reject::NotFound("no such function")
    }

    /// The status code of the answer.
    pub(crate) fn status(self) -> u16 {
        match self {
            Reject::Malformed(_) | Reject::BadField(_) => 400,
            Reject::Auth(reject) => reject.status(),
            Reject::NotFound(_) => 404,
            Reject::MethodNotAllowed { .. } => 405,
            Reject::TooSlow => 408,
            Reject::BodyTooLarge { .. } => 413,
            Reject::UriTooLong => 414,
            Reject::UnknownExpectation => 417,
            Reject::HeaderTooLarge => 431,
            Reject::UnknownEncoding => 501,
            Reject::TooManyConnections | Reject::NotReady(_) => 503,
            Reject::NoTimeLeft => 504,
            Reject::UnknownVersion => 505,
        }
    }

    /// The outcome that a call would have had for the same reason, for protocols that know no HTTP
    /// status.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Reject::Auth(AuthReject::TooMany { .. }) => Outcome::LimitReached,
            Reject::NotFound(_) => Outcome::NotFound,
            Reject::BodyTooLarge { .. } | Reject::UriTooLong | Reject::HeaderTooLarge => {
                Outcome::TooLarge
            }
            Reject::TooManyConnections | Reject::NotReady(_) => Outcome::Unavailable,
            Reject::NoTimeLeft | Reject::TooSlow => Outcome::DeadlineExceeded,
            // Who may not come in is told so by the status.
            Reject::Auth(_)
            | Reject::Malformed(_)
            | Reject::BadField(_)
            | Reject::MethodNotAllowed { .. }
            | Reject::UnknownExpectation
            | Reject::UnknownEncoding
            | Reject::UnknownVersion => Outcome::BadRequest,
        }
    }

    /// The `error` member of the JSON body.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Reject::Auth(reject) => reject.kind(),
            Reject::NotFound(_) => Outcome::NotFound.as_str(),
            Reject::MethodNotAllowed { .. } => "method_not_allowed",
            Reject::TooSlow => "request_timeout",
            Reject::BodyTooLarge { .. } => Outcome::TooLarge.as_str(),
            Reject::UriTooLong => "uri_too_long",
            Reject::HeaderTooLarge => "header_too_large",
            Reject::TooManyConnections => "too_many_connections",
            Reject::NotReady(_) => Outcome::Unavailable.as_str(),
            Reject::NoTimeLeft => Outcome::DeadlineExceeded.as_str(),
            Reject::Malformed(_)
            | Reject::BadField(_)
            | Reject::UnknownExpectation
            | Reject::UnknownEncoding
            | Reject::UnknownVersion => Outcome::BadRequest.as_str(),
        }
    }

    /// Whether the connection can go on behind this answer: only if it is certain where the next
    /// request begins and the whole body has been read.
    pub(crate) fn leaves_framing_intact(self) -> bool {
        matches!(
            self,
            Reject::BadField(_)
                | Reject::Auth(_)
                | Reject::NotFound(_)
                | Reject::MethodNotAllowed { .. }
                | Reject::NoTimeLeft
                | Reject::NotReady(_)
        )
    }

    pub(crate) fn allow(self) -> Option<&'static str> {
        match self {
            Reject::MethodNotAllowed { allow } => Some(allow),
            _ => None,
        }
    }

    pub(crate) fn retry_after_s(self) -> Option<u32> {
        match self {
            Reject::Auth(reject) => reject.retry_after_s(),
            Reject::TooManyConnections | Reject::NotReady(_) => Some(1),
            _ => None,
        }
    }

    /// The value of `WWW-Authenticate`.
    pub(crate) fn challenge(self) -> Option<&'static str> {
        match self {
            Reject::Auth(reject) => reject.challenge(),
            _ => None,
        }
    }
}
