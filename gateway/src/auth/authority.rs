//! All that is known of keys and tokens, read from files and checked as a whole. It does not change: a
//! reload makes another one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use reactor::clock::Nanos;

use super::cache::{TokenCache, TokenName};
use super::client::{Client, Resource};
use super::credentials::{CREDENTIAL_MAX, Credentials};
use super::error::{AuthError, ContentError};
use super::jwks::{self, KeySet};
use super::key;
use super::keys_file::{self, ApiKeys};
use super::reject::AuthReject;
use super::source::{AuthSource, SigningKeys};
use super::token::TokenVerifier;

/// Of the next authority: tells caches whose findings they hold.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// See the module's description.
#[derive(Debug)]
pub struct Authority {
    number: u64,
    keys: ApiKeys,
    tokens: Option<TokenVerifier>,
}

/// A point in time by both clocks: limits run by one, tokens by the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Of the machine.
    pub monotonic: Nanos,
    /// Unix time in whole seconds.
    pub unix_s: u64,
}

impl Authority {
    /// Reads the files. Keys that are in `former` go on with what they have spent of their rates.
    ///
    /// # Errors
    /// A file cannot be used; its name and what is wrong, in one line.
    pub fn load(source: &AuthSource, former: Option<&Authority>) -> Result<Authority, AuthError> {
        let keys = match &source.keys_file {
            Some(file) => {
                let text = read(file, keys_file::FILE_MAX)?;
                let no_text = |_| ContentError::Whole("it is not UTF-8".to_owned());
                let text = String::from_utf8(text).map_err(no_text);
                let parse = |text: String| ApiKeys::parse(&text, former.map(|it| &it.keys));
                text.and_then(parse).map_err(AuthError::content(file))?
            }
            None => ApiKeys::default(),
        };
        let tokens = match &source.jwt {
            Some(jwt) => {
                let keys = match &jwt.keys {
                    SigningKeys::Secret(file) => KeySet::of_secret(&read(file, SECRET_FILE_MAX)?)
                        .map_err(AuthError::content(file))?,
                    SigningKeys::KeySet(file) => KeySet::parse(&read(file, jwks::FILE_MAX)?)
                        .map_err(AuthError::content(file))?,
                };
                Some(TokenVerifier::new(keys, jwt))
            }
            None => None,
        };
        // Unique is all that it has to be.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Authority { number, keys, tokens })
    }

    /// Who shows these credentials. `cache` is the calling thread's own.
    ///
    /// # Errors
    /// Nobody who is known: to be answered 401, or 400 if it is not clear what is shown.
    pub fn authenticate(
        &self,
        cache: &mut TokenCache,
        unix_s: u64,
        credentials: Credentials<'_>,
    ) -> Result<Client, AuthReject> {
        match credentials {
            Credentials::None => Err(AuthReject::Missing),
            Credentials::Ambiguous => Err(AuthReject::Ambiguous),
            Credentials::Key(shown) | Credentials::Bearer(shown)
                if shown.len() > CREDENTIAL_MAX =>
            {
                Err(AuthReject::Invalid)
            }
            Credentials::Bearer(token) if !key::looks_like_key(token) => {
                self.authenticate_token(cache, unix_s, token)
            }
            Credentials::Key(key) | Credentials::Bearer(key) => {
                let client = key::id_of(key).and_then(|id| self.keys.find(id, key));
                client.cloned().ok_or(AuthReject::Invalid)
            }
        }
    }

    fn authenticate_token(
        &self,
        cache: &mut TokenCache,
        unix_s: u64,
        token: &[u8],
    ) -> Result<Client, AuthReject> {
        let tokens = self.tokens.as_ref().ok_or(AuthReject::Invalid)?;
        let name = TokenName::of(token);
        if let Some(verified) = cache.get(self.number, name) {
            if unix_s < verified.expires_s {
                return Ok(verified.client.clone());
            }
            cache.remove(name);
            return Err(AuthReject::Expired);
        }
        let verified = tokens.verify(token, unix_s)?;
        let client = verified.client.clone();
        cache.insert(name, verified);
        Ok(client)
    }

    /// Lets a request in: authenticates, authorises, and counts it against the rate of its key. To be
    /// called once for each request; a look ahead takes [`Self::authenticate`] and
    /// [`Client::authorize`].
    ///
    /// # Errors
    /// Why it is turned away.
    pub fn admit(
        &self,
        cache: &mut TokenCache,
        now: Moment,
        credentials: Credentials<'_>,
        resource: Resource<'_>,
    ) -> Result<Client, AuthReject> {
        let client = self.authenticate(cache, now.unix_s, credentials)?;
        client.authorize(resource)?;
        client.spend(now.monotonic)?;
        Ok(client)
    }

    /// How many API keys it knows.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.keys.count()
    }
}

/// A secret with its line end.
const SECRET_FILE_MAX: u64 = jwks::SECRET_MAX as u64 + 2;

/// The bytes of a file of at most `size_max`.
fn read(file: &Path, size_max: u64) -> Result<Vec<u8>, AuthError> {
    let failed = |source| AuthError::Unreadable { file: file.to_owned(), source };
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(failed)?;
    opened.take(size_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > size_max {
        let message = format!("it is larger than {size_max} bytes");
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, message)));
    }
    Ok(bytes)
}
