//! A client that was recognised: who it is, what it may call, how often.

use std::sync::Arc;

use reactor::clock::Nanos;

use super::rate::Bucket;
use super::reject::AuthReject;
use super::scope::Scope;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A function, by its name.
    Function(&'a [u8]),
    /// What the gateway itself tells: metrics, and the list of functions or engines.
    Own,
}

/// How a client was recognised. Never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// By an API key.
    Key {
        /// Of the key.
        id: Box<str>,
        /// Whose it is.
        client: Box<str>,
    },
    /// By a token.
    Token {
        /// Its `sub`, if it has one.
        subject: Option<Box<str>>,
    },
}

/// A recognised client. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client(Arc<Grant>);

#[derive(Debug)]
struct Grant {
    identity: Identity,
    scope: Scope,
    bucket: Option<Arc<Bucket>>,
}

impl Client {
    pub(super) fn new(identity: Identity, scope: Scope, bucket: Option<Arc<Bucket>>) -> Client {
        Client(Arc::new(Grant { identity, scope, bucket }))
    }

    /// Who it is, for a log.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    pub(super) fn bucket(&self) -> Option<&Arc<Bucket>> {
        self.0.bucket.as_ref()
    }

    /// Whether it may use this.
    ///
    /// # Errors
    /// It may not. A client that is bound to functions gets nothing of the gateway's own, which names
    /// others' functions and tells their load.
    pub fn authorize(&self, resource: Resource<'_>) -> Result<(), AuthReject> {
        let permitted = match resource {
            Resource::Function(name) => self.0.scope.permits(name),
            Resource::Own => self.0.scope == Scope::All,
        };
        if permitted { Ok(()) } else { Err(AuthReject::Forbidden) }
    }

    /// Counts one request against the rate of its key, over all threads.
    ///
    /// # Errors
    /// The key is over its rate.
    pub fn spend(&self, now: Nanos) -> Result<(), AuthReject> {
        let Some(bucket) = &self.0.bucket else { return Ok(()) };
        bucket.take(now).map_err(|wait| {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            AuthReject::TooMany { retry_after_s: u32::try_from(seconds).unwrap_or(u32::MAX).max(1) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::rate::Rate;
    use super::*;

    fn client(scope: Scope, bucket: Option<Bucket>) -> Client {
        Client::new(Identity::Token { subject: None }, scope, bucket.map(Arc::new))
    }

    #[test]
    fn who_is_bound_to_functions_gets_nothing_of_the_gateways_own() {
        let bound = client(Scope::of(Some(&["*".to_owned()])).unwrap(), None);
        assert_eq!(bound.authorize(Resource::Function(b"f")), Ok(()));
        assert_eq!(bound.authorize(Resource::Own), Err(AuthReject::Forbidden));
        assert_eq!(client(Scope::All, None).authorize(Resource::Own), Ok(()));
    }

    #[test]
    fn who_is_over_the_rate_is_told_whole_seconds() {
        let limited = client(Scope::All, Some(Bucket::new(Rate::new(1, 1))));
        assert_eq!(limited.spend(Nanos(1 << 40)), Ok(()));
        let reject = Err(AuthReject::TooMany { retry_after_s: 1 });
        assert_eq!(limited.spend(Nanos((1 << 40) + 1)), reject);
    }
}
