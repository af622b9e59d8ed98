//! Why a request is turned away at the door: status, challenge and words as RFC 9110 (11.6, 15.5)
//! and RFC 6750 (3) have them. The words never say which part of a key or token was wrong.

/// A request that may not go on. [`Display`](std::fmt::Display) is the message for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthReject {
    /// It shows no key or token.
    #[error("this needs an API key or a bearer token")]
    Missing,
    /// It shows more than one, and two readers could choose differently.
    #[error("a request has one key or token, in Authorization or in X-Api-Key")]
    Ambiguous,
    /// It is none that is known here.
    #[error("the key or token is not valid")]
    Invalid,
    /// The token was valid once.
    #[error("the token has expired")]
    Expired,
    /// The token will be valid later.
    #[error("the token is not valid yet")]
    Early,
    /// It is known, but not for this.
    #[error("the key or token does not permit this")]
    Forbidden,
    /// It has made its calls of this second.
    #[error("the key is over its rate limit")]
    TooMany {
        /// Seconds until there is room again; at least 1.
        retry_after_s: u32,
    },
}

impl AuthReject {
    /// The status code of the answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            AuthReject::Ambiguous => 400,
            AuthReject::Missing | AuthReject::Invalid | AuthReject::Expired | AuthReject::Early => {
                401
            }
            AuthReject::Forbidden => 403,
            AuthReject::TooMany { .. } => 429,
        }
    }

    /// The `error` member of the JSON body.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            AuthReject::Ambiguous => ipc::Outcome::BadRequest.as_str(),
            AuthReject::Missing | AuthReject::Invalid | AuthReject::Expired | AuthReject::Early => {
                "unauthorized"
            }
            AuthReject::Forbidden => "forbidden",
            AuthReject::TooMany { .. } => ipc::Outcome::LimitReached.as_str(),
        }
    }

    /// The value of `WWW-Authenticate`, where the answer has one. One that showed nothing is told no
    /// error (RFC 6750, 3.1).
    #[must_use]
    pub fn challenge(self) -> Option<&'static str> {
        let value = match self {
            AuthReject::Missing => "Bearer realm=\"nightcore\"",
            AuthReject::Ambiguous => {
                "Bearer realm=\"nightcore\", error=\"invalid_request\", \
                 error_description=\"a request has one key or token\""
            }
            AuthReject::Invalid => {
                "Bearer realm=\"nightcore\", error=\"invalid_token\", \
                 error_description=\"the key or token is not valid\""
            }
            AuthReject::Expired => {
                "Bearer realm=\"nightcore\", error=\"invalid_token\", \
                 error_description=\"the token has expired\""
            }
            AuthReject::Early => {
                "Bearer realm=\"nightcore\", error=\"invalid_token\", \
                 error_description=\"the token is not valid yet\""
            }
            AuthReject::Forbidden => "Bearer realm=\"nightcore\", error=\"insufficient_scope\"",
            AuthReject::TooMany { .. } => return None,
        };
        Some(value)
    }

    /// For the `Retry-After` header.
    #[must_use]
    pub fn retry_after_s(self) -> Option<u32> {
        match self {
            AuthReject::TooMany { retry_after_s } => Some(retry_after_s),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_401_has_a_challenge_and_only_one_that_showed_something_is_told_an_error() {
        use AuthReject::*;
        let rejects = [
            (Missing, 401, None),
            (Ambiguous, 400, Some("invalid_request")),
            (Invalid, 401, Some("invalid_token")),
            (Expired, 401, Some("invalid_token")),
            (Early, 401, Some("invalid_token")),
            (Forbidden, 403, Some("insufficient_scope")),
        ];
        for (reject, status, error) in rejects {
            let challenge = reject.challenge().expect("a challenge");
            assert_eq!(reject.status(), status);
            assert!(challenge.starts_with("Bearer realm=\"nightcore\""));
            assert!(challenge.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{challenge:?}");
            match error {
                Some(error) => assert!(challenge.contains(&format!("error=\"{error}\""))),
                None => assert!(!challenge.contains("error")),
            }
            assert_eq!(reject.retry_after_s(), None);
        }
        let limited = TooMany { retry_after_s: 3 };
        assert_eq!((limited.status(), limited.challenge()), (429, None));
        assert_eq!(limited.retry_after_s(), Some(3));
    }
}
