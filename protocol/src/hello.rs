//! The handshake's four messages, and the proof that both sides have the pre-shared key.
//!
//! ```text
//! engine                                  gateway
//!   HELLO versions, who, nonce   ─────────►
//!                                ◄───────── CHALLENGE version, shards, nonce
//!   PROOF  MAC(key, "engine",  both) ─────►
//!                                ◄───────── WELCOME MAC(key, "gateway", both)
//! ```
//! The key is never sent. Each proof covers both messages before it, with a fresh nonce of either side,
//! so a recorded handshake proves nothing; and the two proofs differ, so neither can be sent back. The
//! engine proves itself first: a stranger who dials learns nothing that depends on the key. Where TLS
//! has proved both sides already, or nothing is to be proved, the proofs are empty.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::error::ProtocolError;
use crate::message::{Fields, parse_name};

/// The protocol's version: the only one that this build speaks.
pub const VERSION: u16 = 1;
/// Bytes of a nonce.
pub const NONCE_SIZE: usize = 32;
/// Bytes of a proof by key.
pub const MAC_SIZE: usize = 32;
/// Bytes of a key at least.
pub const KEY_MIN: usize = 32;
/// Connections that an engine may have to one gateway.
pub const CONNECTIONS_MAX: u16 = 1024;

const MAGIC: [u8; 4] = *b"NCLK";

/// Who dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest version spoken.
    pub version_min: u16,
    /// Highest version spoken.
    pub version_max: u16,
    /// Name of the host.
    pub node: String,
    /// Made at random by each engine process.
    pub instance: u64,
    /// Counts the engine's attempts: of two links that are the same otherwise, the higher one is alive.
    pub epoch: u64,
    /// Which of the engine's connections to this gateway.
    pub connection: u16,
    /// Shards of the engine.
    pub shards: u16,
    /// Cores that the engine has.
    pub cores: u16,
    /// Fresh.
    pub nonce: [u8; NONCE_SIZE],
}

/// What the gateway says to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Spoken from now on.
    pub version: u16,
    /// Shards of the gateway.
    pub shards: u16,
    /// Made at random by each gateway process.
    pub instance: u64,
    /// Fresh.
    pub nonce: [u8; NONCE_SIZE],
}

/// What both sides must have, unless TLS proves them. Zeroed memory is not promised.
#[derive(Clone)]
pub struct Key(Vec<u8>);

/// Who proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prover {
    /// By PROOF.
    Engine,
    /// By WELCOME.
    Gateway,
}

impl Hello {
    /// The body of HELLO.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(&MAGIC);
        for word in [self.version_min, self.version_max] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for word in [self.instance, self.epoch] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for word in [self.connection, self.shards, self.cores] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(self.node.as_bytes());
        out
    }

    /// The inverse.
    ///
    /// # Errors
    /// For anything that `encode` does not write, and versions that are not spoken here.
    pub fn parse(bytes: &[u8]) -> Result<Hello, ProtocolError> {
        const WHAT: &str = "a hello";
        let mut fields = Fields { bytes, what: WHAT };
        if fields.array()? != MAGIC {
            return Err(ProtocolError::Malformed(WHAT));
        }
        let (version_min, version_max) = (fields.u16()?, fields.u16()?);
        if !(version_min..=version_max).contains(&VERSION) {
            return Err(ProtocolError::Version { min: version_min, max: version_max });
        }
        let (instance, epoch) = (fields.u64()?, fields.u64()?);
        let (connection, shards, cores) = (fields.u16()?, fields.u16()?, fields.u16()?);
        if connection >= CONNECTIONS_MAX || shards == 0 {
            return Err(ProtocolError::Malformed(WHAT));
        }
        let nonce = fields.array()?;
        let node = parse_name(fields.bytes).ok_or(ProtocolError::Malformed(WHAT))?;
        Ok(Hello {
            version_min,
            version_max,
            node,
            instance,
            epoch,
            connection,
            shards,
            cores,
            nonce,
        })
    }
}

impl Challenge {
    /// The body of CHALLENGE.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.shards.to_le_bytes());
        out.extend_from_slice(&self.instance.to_le_bytes());
        out.extend_from_slice(&self.nonce);
        out
    }

    /// The inverse.
    ///
    /// # Errors
    /// For anything that `encode` does not write, and a version that is not spoken here.
    pub fn parse(bytes: &[u8]) -> Result<Challenge, ProtocolError> {
        const WHAT: &str = "a challenge";
        let mut fields = Fields { bytes, what: WHAT };
        let (version, shards) = (fields.u16()?, fields.u16()?);
        if version != VERSION {
            return Err(ProtocolError::Version { min: version, max: version });
        }
        let (instance, nonce) = (fields.u64()?, fields.array()?);
        if shards == 0 || shards > CONNECTIONS_MAX || !fields.bytes.is_empty() {
            return Err(ProtocolError::Malformed(WHAT));
        }
        Ok(Challenge { version, shards, instance, nonce })
    }
}

impl Key {
    /// A key of these bytes.
    ///
    /// # Errors
    /// When they are fewer than [`KEY_MIN`].
    pub fn new(bytes: Vec<u8>) -> Result<Key, ProtocolError> {
        if bytes.len() < KEY_MIN {
            return Err(ProtocolError::Malformed("a key of fewer than 32 bytes"));
        }
        Ok(Key(bytes))
    }

    pub(crate) fn prove(&self, who: Prover, hello: &[u8], challenge: &[u8]) -> [u8; MAC_SIZE] {
        self.mac(who, hello, challenge).finalize().into_bytes().into()
    }

    /// In constant time.
    pub(crate) fn check(
        &self,
        who: Prover,
        hello: &[u8],
        challenge: &[u8],
        proof: &[u8],
    ) -> Result<(), ProtocolError> {
        let mac = self.mac(who, hello, challenge);
        mac.verify_slice(proof).map_err(|_| ProtocolError::Unproven)
    }

    fn mac(&self, who: Prover, hello: &[u8], challenge: &[u8]) -> Hmac<Sha256> {
        let label: &[u8] = match who {
            Prover::Engine => b"nightcore link 1 engine",
            Prover::Gateway => b"nightcore link 1 gateway",
        };
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0)
            .expect("HMAC takes keys of any size");
        for part in [label, hello, challenge] {
            // Lengths too, so that no two triples give the same bytes.
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}
