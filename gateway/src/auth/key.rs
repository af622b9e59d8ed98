//! API keys as text: `nck_<id>_<secret>`. The prefix lets scanners of leaked secrets find them, the id
//! names the key in logs and in the file of hashes, the secret is 256 bits from the system's generator.
//!
//! At rest there is the SHA-256 of the whole text, without salt and without stretching. Both defend
//! passwords, which people choose and use twice: they make guessing slow and tables useless. A key of
//! 256 random bits can neither be guessed nor be in a table, and a slow hash would only serve those who
//! send many wrong keys.

use std::fmt;

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

/// Begins every key.
const PREFIX: &[u8] = b"nck_";
/// Random bytes of a secret.
const SECRET_SIZE: usize = 32;
/// The secret as hexadecimal digits.
const SECRET_DIGITS: usize = 2 * SECRET_SIZE;
/// Longest id of a key.
const ID_MAX: usize = 32;
const HASH_PREFIX: &str = "sha256:";

/// Names a key: `[A-Za-z0-9-]{1,32}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(Box<str>);

/// A whole key, new or as a client sent it. Its `Debug` shows the id only.
pub struct ApiKey {
    id: KeyId,
    text: String,
}

/// The SHA-256 of a key.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

/// The generator of the system gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system's random generator failed")]
pub struct NoRandomness;

impl KeyId {
    /// The id, if the text is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<KeyId> {
        is_id(text.as_bytes()).then(|| KeyId(text.into()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_id(bytes: &[u8]) -> bool {
    (1..=ID_MAX).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

impl ApiKey {
    /// Makes a key that nobody has seen.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate(id: KeyId) -> Result<ApiKey, NoRandomness> {
        let mut secret = [0; SECRET_SIZE];
        SystemRandom::new().fill(&mut secret).map_err(|_| NoRandomness)?;
        let mut text = format!("nck_{}_", id.as_str());
        write_hex(&mut text, &secret);
        Ok(ApiKey { id, text })
    }

    /// The key, if the text is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<ApiKey> {
        let id = id_of(text.as_bytes())?;
        Some(ApiKey { id: KeyId(id.into()), text: text.to_owned() })
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The secret itself: to be shown once, to whom it is made for.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.text.as_bytes())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The id in a key, if the bytes have the form of one.
pub(super) fn id_of(key: &[u8]) -> Option<&str> {
    let rest = key.strip_prefix(PREFIX)?;
    let id_size = rest.len().checked_sub(SECRET_DIGITS + 1)?;
    let (id, secret) = rest.split_at(id_size);
    let (separator, digits) = secret.split_first()?;
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let well_formed = *separator == b'_' && is_id(id) && digits.iter().all(is_digit);
    well_formed.then(|| std::str::from_utf8(id).ok()).flatten()
}

/// Whether a bearer token is meant to be a key rather than a JSON Web Token, which has no underscore
/// before its first dot unless that is part of base64; no such token begins like this.
pub(super) fn looks_like_key(token: &[u8]) -> bool {
    token.starts_with(PREFIX)
}

impl KeyHash {
    /// Never equal to that of a key, which is text.
    pub(super) const NONE: KeyHash = KeyHash([0; 32]);

    pub(super) fn of(key: &[u8]) -> KeyHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, key).as_ref());
        KeyHash(hash)
    }

    /// Reads `sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<KeyHash> {
        let digits = text.strip_prefix(HASH_PREFIX)?.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            let value = digit(pair[0])? << 4 | digit(pair[1])?;
            *byte = u8::try_from(value).ok()?;
        }
        Some(KeyHash(hash))
    }

    /// In a time that does not depend on where they differ: else whoever sends many could find a hash
    /// byte by byte.
    pub(super) fn is_same(&self, other: &KeyHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::from(HASH_PREFIX);
        write_hex(&mut text, &self.0);
        f.write_str(&text)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

fn write_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 0xf] {
            out.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> KeyId {
        KeyId::parse(text).unwrap()
    }

    #[test]
    fn a_new_key_is_read_again_and_no_two_are_the_same() {
        let (first, second) =
            (ApiKey::generate(id("shop-1")).unwrap(), ApiKey::generate(id("shop-1")).unwrap());
        assert_ne!(first.reveal(), second.reveal());
        assert!(!first.hash().is_same(&second.hash()));
        let read = ApiKey::parse(first.reveal()).unwrap();
        assert_eq!(read.id(), &id("shop-1"));
        assert!(read.hash().is_same(&first.hash()));
    }

    #[test]
    fn a_hash_is_the_sha_256_of_the_whole_key() {
        let hash = KeyHash::of(b"abc").to_string();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash, format!("sha256:{expected}"));
        assert!(KeyHash::parse(&hash).unwrap().is_same(&KeyHash::of(b"abc")));
        assert!(KeyHash::parse(&hash.to_uppercase().replace("SHA", "sha")).is_some());
        for other in
            ["", "sha256:", expected, &hash[..70], &format!("{hash}0"), &hash.replace('b', "g")]
        {
            assert!(KeyHash::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn neither_key_nor_hash_shows_in_debug() {
        let key = ApiKey::generate(id("a")).unwrap();
        assert!(!format!("{key:?}").contains(&key.reveal()[6..]));
        assert!(!format!("{:?}", key.hash()).contains(&key.hash().to_string()[7..]));
    }

    #[test]
    fn what_is_not_exactly_a_key_is_none() {
        let secret = "0".repeat(64);
        assert_eq!(id_of(format!("nck_a_{secret}").as_bytes()), Some("a"));
        for other in [
            String::new(),
            "nck_".to_owned(),
            format!("nck__{secret}"),
            format!("nck_a_{secret}0"),
            format!("nck_a_{}", &secret[1..]),
            format!("nck_a_{}G", &secret[1..]),
            format!("nck_a_{}A", &secret[1..]),
            format!("NCK_a_{secret}"),
            format!("nck_a b_{secret}"),
            format!("nck_a_b_{secret}"),
            format!("nck_{}_{secret}", "a".repeat(33)),
            format!("nck_a-{secret}"),
        ] {
            assert_eq!(id_of(other.as_bytes()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_key_or_none(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Some(id) = id_of(&bytes) {
                prop_assert!(KeyId::parse(id).is_some());
            }
        }
    }
}
