//! Which files the door's keys are read from, and what is demanded of tokens.

use std::path::PathBuf;
use std::time::Duration;

/// `[auth]` of a configuration, with absolute paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSource {
    /// The hashes of API keys; without it, none is accepted.
    pub keys_file: Option<PathBuf>,
    /// How tokens are verified; without it, none is accepted.
    pub jwt: Option<JwtSource>,
}

/// `[auth.jwt]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSource {
    /// Who signs tokens.
    pub keys: SigningKeys,
    /// The `iss` that is demanded.
    pub issuer: Option<String>,
    /// The `aud` that is demanded. Without it, a token that names an audience is meant for others.
    pub audience: Option<String>,
    /// How far the signer's clock may be off. In whole seconds, as tokens count.
    pub leeway: Duration,
}

/// What tokens are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SigningKeys {
    /// A file with a shared secret: HS256.
    Secret(PathBuf),
    /// A JSON Web Key Set with public keys: RS256 and ES256.
    KeySet(PathBuf),
}
