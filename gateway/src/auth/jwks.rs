//! The keys that tokens are verified with: a shared secret, or the public keys of a JSON Web Key Set
//! (RFC 7517). Each key is for one algorithm, which its own type decides: an attacker who could choose
//! it would have a public key taken for a shared secret.

use std::collections::HashSet;

use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Header};
use serde::Deserialize;

use super::error::{ContentError, one_line};

/// Largest key set in bytes.
pub(super) const FILE_MAX: u64 = 1 << 20;
/// Most keys of a set: an issuer that rolls its keys shows a few.
const KEYS_MAX: usize = 64;
/// Shortest shared secret in bytes: as long as the hash (RFC 7518, 3.2).
const SECRET_MIN: usize = 32;
/// Longest shared secret in bytes.
pub(super) const SECRET_MAX: usize = 4096;
/// Sizes of an RSA modulus in bytes that `ring` verifies with: 2048 to 8192 bits.
const MODULUS_MIN: usize = 256;
const MODULUS_MAX: usize = 1024;
/// Largest exponent in bytes that it does: 33 bits.
const EXPONENT_MAX: usize = 5;
/// A point of P-256, uncompressed.
const POINT_SIZE: usize = 65;

/// Keys that may have signed a token.
pub struct KeySet {
    keys: Vec<VerifyingKey>,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| (&key.id, key.algorithm))).finish()
    }
}

pub(super) struct VerifyingKey {
    /// `None`: whatever a token says.
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Jwk>,
}

/// The members that matter here; others are for others (RFC 7517, 4).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

impl KeySet {
    /// A shared secret, which verifies HS256. A line end behind it is none of it.
    ///
    /// # Errors
    /// It is too short or too long.
    pub fn of_secret(bytes: &[u8]) -> Result<KeySet, ContentError> {
        let secret = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        if !(SECRET_MIN..=SECRET_MAX).contains(&secret.len()) {
            let message = format!("a secret has {SECRET_MIN} to {SECRET_MAX} bytes");
            return Err(ContentError::Whole(message));
        }
        let key = DecodingKey::from_secret(secret);
        Ok(KeySet { keys: vec![VerifyingKey { id: None, algorithm: Algorithm::HS256, key }] })
    }

    /// The keys of a set that verify RS256 or ES256. Others are passed over.
    ///
    /// # Errors
    /// It is no key set, a key is broken, or none is left.
    pub fn parse(text: &[u8]) -> Result<KeySet, ContentError> {
        let document: Document = serde_json::from_slice(text).map_err(|error| {
            ContentError::Syntax { line: error.line(), message: one_line(&error.to_string()) }
        })?;
        if document.keys.len() > KEYS_MAX {
            return Err(ContentError::Whole(format!("there are more than {KEYS_MAX} keys")));
        }
        let mut keys = Vec::new();
        for (index, jwk) in document.keys.into_iter().enumerate() {
            let refused =
                |message: &str| ContentError::Key { index: index + 1, message: message.into() };
            keys.extend(jwk.check().map_err(refused)?);
        }
        let ids: HashSet<_> = keys.iter().map(|key| (&key.id, key.algorithm)).collect();
        if ids.len() < keys.len() {
            return Err(ContentError::Whole("two keys of one type have the same kid".to_owned()));
        }
        if keys.is_empty() {
            return Err(ContentError::Whole("no key is for RS256 or ES256".to_owned()));
        }
        Ok(KeySet { keys })
    }

    /// The one key that may have signed a token with this header.
    pub(super) fn choose(&self, header: &Header) -> Option<&VerifyingKey> {
        let fits = |key: &&VerifyingKey| {
            let named = match (&key.id, &header.kid) {
                (Some(own), Some(wanted)) => own == wanted,
                (None, _) | (_, None) => true,
            };
            named && key.algorithm == header.alg
        };
        let mut fitting = self.keys.iter().filter(fits);
        // Without a name it must be clear which one is meant.
        fitting.next().filter(|_| fitting.next().is_none())
    }
}

impl Jwk {
    /// `None` for a key that is not for signatures of ours.
    fn check(self) -> Result<Option<VerifyingKey>, &'static str> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Ok(None);
        }
        let (algorithm, name) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => (Algorithm::RS256, "RS256"),
            ("EC", Some("P-256")) => (Algorithm::ES256, "ES256"),
            _ => return Ok(None),
        };
        if self.alg.as_deref().is_some_and(|alg| alg != name) {
            return Ok(None);
        }
        if self.d.is_some() {
            return Err("this is a private key: the set must hold the public part only");
        }
        let key = match (algorithm, &self.n, &self.e, &self.x, &self.y) {
            (Algorithm::RS256, Some(n), Some(e), _, _) => rsa(n, e)?,
            (Algorithm::ES256, _, _, Some(x), Some(y)) => p256(x, y)?,
            _ => return Err("a member of the key is missing"),
        };
        Ok(Some(VerifyingKey { id: self.kid, algorithm, key }))
    }
}

fn rsa(n: &str, e: &str) -> Result<DecodingKey, &'static str> {
    let key = DecodingKey::from_rsa_components(n, e).map_err(|_| "n or e is not base64url")?;
    let DecodingKeyKind::RsaModulusExponent { n, e } = key.kind() else {
        return Err("n and e are no RSA key");
    };
    // RFC 7518, 6.3.1.1: without leading zeros.
    let minimal = |number: &[u8]| number.first().is_some_and(|first| *first != 0);
    if !minimal(n) || !minimal(e) || !(MODULUS_MIN..=MODULUS_MAX).contains(&n.len()) {
        return Err("an RSA key has 2048 to 8192 bits, without leading zeros");
    }
    if e.len() > EXPONENT_MAX {
        return Err("the exponent of the key is too large");
    }
    Ok(key)
}

fn p256(x: &str, y: &str) -> Result<DecodingKey, &'static str> {
    let key = DecodingKey::from_ec_components(x, y).map_err(|_| "x or y is not base64url")?;
    match key.kind() {
        DecodingKeyKind::SecretOrDer(point) if point.len() == POINT_SIZE => Ok(key),
        _ => Err("x and y of a P-256 key have 32 bytes each"),
    }
}
