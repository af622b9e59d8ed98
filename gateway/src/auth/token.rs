//! JSON Web Tokens (RFC 7519): a signature by one of our keys, a time in which it is valid, an issuer and
//! an audience. `jsonwebtoken` reads them and verifies the signature; the times are compared here, since
//! they are told, so that they can be tested and a strange clock is no panic.

use std::collections::HashMap;

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;

use super::cache::Verified;
use super::client::{Client, Identity};
use super::credentials::CREDENTIAL_MAX;
use super::crypto;
use super::jwks::KeySet;
use super::reject::AuthReject;
use super::scope::Scope;
use super::source::JwtSource;

/// Longest `sub` in bytes; it is written into every line of the access log.
const SUBJECT_MAX: usize = 256;

/// Verifies tokens.
#[derive(Debug)]
pub(super) struct TokenVerifier {
    keys: KeySet,
    validations: HashMap<Algorithm, Validation>,
    leeway_s: u64,
}

/// What is read of a token besides what `jsonwebtoken` compares. A claim that is there in a wrong form
/// makes the token none.
#[derive(Deserialize)]
struct Claims {
    exp: f64,
    nbf: Option<f64>,
    sub: Option<String>,
    /// Of our own: the functions that it is good for.
    functions: Option<Vec<String>>,
}

impl TokenVerifier {
    pub(super) fn new(keys: KeySet, source: &JwtSource) -> TokenVerifier {
        crypto::install();
        let validation = |algorithm| (algorithm, validation(algorithm, source));
        let algorithms = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256];
        let validations = algorithms.into_iter().map(validation).collect();
        TokenVerifier { keys, validations, leeway_s: source.leeway.as_secs() }
    }

    /// Who shows this token, at this second of Unix time, and until when that holds.
    ///
    /// # Errors
    /// It is no token of ours, or not at this time.
    pub(super) fn verify(&self, token: &[u8], unix_s: u64) -> Result<Verified, AuthReject> {
        let invalid = |_| AuthReject::Invalid;
        if token.len() > CREDENTIAL_MAX {
            return Err(AuthReject::Invalid);
        }
        let header = decode_header(token).map_err(invalid)?;
        // Extensions that must be understood (RFC 7515, 4.1.11): none is.
        if header.crit.is_some() {
            return Err(AuthReject::Invalid);
        }
        let key = self.keys.choose(&header).ok_or(AuthReject::Invalid)?;
        let validation = self.validations.get(&key.algorithm).ok_or(AuthReject::Invalid)?;
        let claims: Claims = decode(token, &key.key, validation).map_err(invalid)?.claims;
        let expires_s = seconds(claims.exp)?.saturating_add(self.leeway_s);
        if unix_s >= expires_s {
            return Err(AuthReject::Expired);
        }
        let begins_s = claims.nbf.map(seconds).transpose()?.unwrap_or(0);
        if unix_s.saturating_add(self.leeway_s) < begins_s {
            return Err(AuthReject::Early);
        }
        if claims.sub.as_ref().is_some_and(|subject| subject.len() > SUBJECT_MAX) {
            return Err(AuthReject::Invalid);
        }
        let scope = Scope::of(claims.functions.as_deref()).map_err(|_| AuthReject::Invalid)?;
        let identity = Identity::Token { subject: claims.sub.map(String::into_boxed_str) };
        Ok(Verified { client: Client::new(identity, scope, None), expires_s })
    }
}

fn validation(algorithm: Algorithm, source: &JwtSource) -> Validation {
    let mut validation = Validation::new(algorithm);
    // Compared above.
    (validation.validate_exp, validation.validate_nbf) = (false, false);
    let mut required = vec!["exp"];
    if let Some(issuer) = &source.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    if let Some(audience) = &source.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// A `NumericDate` (RFC 7519, 2), rounded down.
fn seconds(date: f64) -> Result<u64, AuthReject> {
    if !date.is_finite() || date < 0.0 {
        return Err(AuthReject::Invalid);
    }
    // Beyond the range it saturates, which is far in the future all the same.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
    let seconds = date as u64;
    Ok(seconds)
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
