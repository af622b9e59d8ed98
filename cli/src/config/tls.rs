//! `[gateway.tls]`: HTTP/1.1 over TLS for clients.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::credentials::{CertificateFiles, CredentialError, certificates};
use super::error::{ConfigError, Place, Problem};
use super::table::{Table, Value};

/// `[gateway.tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What clients see.
    pub files: CertificateFiles,
}

/// The section, and where its address stands. The files are there and belong together.
pub(super) fn read_tls(section: &Value<'_>, directory: &Path) -> Result<(Tls, Place), ConfigError> {
    let table = section.table(&["listen", "certificate", "key"])?;
    let (listen, place) = listen(&table, "an address and port such as \"127.0.0.1:8443\"")?;
    let certificate = table.require("certificate", PEM_FILE)?;
    let key = table.require("key", PEM_FILE)?;
    let files = certificate_files(&certificate, &key, directory)?;
    Ok((Tls { listen, files }, place))
}

pub(super) const PEM_FILE: &str = "the path of a PEM file";

/// The address of a section that has no other use.
pub(super) fn listen(
    table: &Table<'_>,
    expected: &'static str,
) -> Result<(SocketAddr, Place), ConfigError> {
    let value = table.require("listen", expected)?;
    Ok((value.parsed(expected)?, value.place()))
}

/// Files that are there and belong together; the blame is that value's whose file it is.
pub(super) fn certificate_files(
    certificate: &Value<'_>,
    key: &Value<'_>,
    directory: &Path,
) -> Result<CertificateFiles, ConfigError> {
    let files = CertificateFiles {
        certificate: file(certificate, PEM_FILE, directory)?,
        key: file(key, PEM_FILE, directory)?,
    };
    if let Err(error) = certificates(&files.certificate) {
        return Err(certificate.refused(Problem::Credentials(error)));
    }
    match files.load() {
        Ok(_) => Ok(files),
        Err(error) => {
            let blamed = match &error {
                CredentialError::Certificate { .. } => certificate,
                _ => key,
            };
            Err(blamed.refused(Problem::Credentials(error)))
        }
    }
}

/// The path of a file, relative to the configuration's directory.
pub(super) fn file(
    value: &Value<'_>,
    expected: &str,
    directory: &Path,
) -> Result<PathBuf, ConfigError> {
    let text = value.text(expected)?;
    if text.is_empty() || text.contains('\0') {
        return Err(value.unexpected(expected));
    }
    let joined = directory.join(text);
    Ok(std::path::absolute(&joined).unwrap_or(joined))
}
