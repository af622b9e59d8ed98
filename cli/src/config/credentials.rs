//! Certificates and keys in files: read, and checked against each other. Who listens and who dials
//! prove themselves by the same kinds of file.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::hello::{KEY_MIN, Key};
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Bytes of such a file at most: a few hundred certificates. What is larger is another file.
const FILE_MAX: u64 = 1 << 20;
/// Permission bits that let others read.
const OTHERS_READ: u32 = 0o004;

/// What is wrong with a file of certificates or a key.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The system does not let us.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// Absolute, or relative to the working directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Larger than any file of its kind.
    #[error("{}: expected at most {FILE_MAX} bytes", path.display())]
    TooLarge {
        /// The same.
        path: PathBuf,
    },
    /// A section of the PEM file is broken.
    #[error("{}: not valid PEM: {reason}", path.display())]
    Malformed {
        /// The same.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// No section of the kind that is wanted.
    #[error("{}: expected {expected} in PEM, found none", path.display())]
    Absent {
        /// The same.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// A certificate that the library cannot use.
    #[error("{}: {reason}", path.display())]
    Certificate {
        /// The same.
        path: PathBuf,
        /// What the library said.
        reason: String,
    },
    /// A key that the library cannot use.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// The same.
        path: PathBuf,
        /// What the library said.
        reason: String,
    },
    /// Key and certificate are not of each other.
    #[error("{}: expected the key of the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// A pre-shared key that everyone can read is none.
    #[error("{}: others can read it, so it is no secret: chmod o-r", path.display())]
    Exposed {
        /// The same.
        path: PathBuf,
    },
    /// A pre-shared key that could be guessed.
    #[error(
        "{}: expected at least {KEY_MIN} bytes, got {got} \
         (openssl rand -hex 32 makes a key)", path.display()
    )]
    Short {
        /// The same.
        path: PathBuf,
        /// Bytes without the line's end.
        got: usize,
    },
}

/// What a side of TLS proves itself by: a chain of certificates, the own one first, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM, the own certificate first.
    pub certificate: PathBuf,
    /// PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// Reads both and checks that they belong together.
    ///
    /// # Errors
    /// When a file cannot be read or used, or the key is another certificate's.
    pub fn load(&self) -> Result<Arc<CertifiedKey>, CredentialError> {
        let chain = certificates(&self.certificate)?;
        let bytes = read(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
            let path = self.key.clone();
            match error {
                pem::Error::NoItemsFound => {
                    CredentialError::Absent { path, expected: "a private key" }
                }
                error => CredentialError::Malformed { path, reason: error.to_string() },
            }
        })?;
        let signer = CertifiedKey::from_der(chain, key, &default_provider());
        signer.map(Arc::new).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CredentialError::Mismatch {
                key: self.key.clone(),
                certificate: self.certificate.clone(),
            },
            rustls::Error::InvalidCertificate(_) => CredentialError::Certificate {
                path: self.certificate.clone(),
                reason: error.to_string(),
            },
            error => {
                CredentialError::Unusable { path: self.key.clone(), reason: error.to_string() }
            }
        })
    }
}

/// The certificates of those whose signature is believed.
///
/// # Errors
/// When the file cannot be read, or holds no certificate that can be used.
pub fn authorities(path: &Path) -> Result<Arc<RootCertStore>, CredentialError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| CredentialError::Certificate {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(Arc::new(store))
}

/// The key that both ends of a link have: the bytes of the file without the line's end.
///
/// # Errors
/// When the file cannot be read, others can read it, or it is too short.
pub fn shared_key(path: &Path) -> Result<Key, CredentialError> {
    let unreadable = |source| CredentialError::Unreadable { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(unreadable)?.mode();
    if mode & OTHERS_READ != 0 {
        return Err(CredentialError::Exposed { path: path.to_owned() });
    }
    let mut bytes = read(path)?;
    while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    let got = bytes.len();
    Key::new(bytes).map_err(|_| CredentialError::Short { path: path.to_owned(), got })
}

/// A chain in PEM.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let bytes = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| CredentialError::Malformed {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    if chain.is_empty() {
        return Err(CredentialError::Absent { path: path.to_owned(), expected: "a certificate" });
    }
    Ok(chain)
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    match read {
        Err(source) => Err(CredentialError::Unreadable { path: path.to_owned(), source }),
        Ok(_) if bytes.len() as u64 > FILE_MAX => {
            Err(CredentialError::TooLarge { path: path.to_owned() })
        }
        Ok(_) => Ok(bytes),
    }
}
