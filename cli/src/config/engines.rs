//! `[gateway.engines]`: where engines on other hosts may join, and what they have to prove.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::credentials::{CertificateFiles, authorities, shared_key};
use super::error::{ConfigError, Problem};
use super::table::{Table, Value};
use super::tls::{PEM_FILE, certificate_files, file, listen};

/// `[gateway.engines]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnginesPort {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What an engine and this gateway prove to each other.
    pub trust: Trust,
}

/// How the two ends of a link know each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Both have this key.
    SharedKey {
        /// Its file.
        file: PathBuf,
    },
    /// TLS 1.3 with certificates on both sides.
    Certificates {
        /// Our own.
        own: CertificateFiles,
        /// Whose signatures on the other side's are believed; PEM.
        authorities: PathBuf,
    },
    /// Not at all. On loopback only.
    Insecure,
}

const EXPECTED: &str = "key_file, or certificate, key and authorities, or insecure = true";

/// The section. Its files are there and can be used.
pub(super) fn read_engines(
    section: &Value<'_>,
    directory: &Path,
) -> Result<EnginesPort, ConfigError> {
    let known = &["listen", "key_file", "certificate", "key", "authorities", "insecure"];
    let table = section.table(known)?;
    let (listen, place) = listen(&table, "an address and port such as \"127.0.0.1:8090\"")?;
    let trust = read_trust(section, &table, directory)?;
    if trust == Trust::Insecure && !listen.ip().to_canonical().is_loopback() {
        return Err(ConfigError::Refused { place, problem: Problem::InsecureLink(listen) });
    }
    Ok(EnginesPort { listen, trust })
}

/// Exactly one of the three ways.
pub(super) fn read_trust(
    section: &Value<'_>,
    table: &Table<'_>,
    directory: &Path,
) -> Result<Trust, ConfigError> {
    let mut insecure = false;
    table.read("insecure", &mut insecure, |value| value.flag())?;
    let key_file = table.get("key_file");
    let by_certificate =
        ["certificate", "key", "authorities"].into_iter().find_map(|key| table.get(key));
    match (key_file, by_certificate, insecure) {
        (Some(value), None, false) => {
            let file = file(&value, "the path of a file with the key of the links", directory)?;
            match shared_key(&file) {
                Ok(_) => Ok(Trust::SharedKey { file }),
                Err(error) => Err(value.refused(Problem::Credentials(error))),
            }
        }
        (None, Some(_), false) => {
            let certificate = table.require("certificate", PEM_FILE)?;
            let key = table.require("key", PEM_FILE)?;
            let roots = table.require("authorities", PEM_FILE)?;
            let own = certificate_files(&certificate, &key, directory)?;
            let path = file(&roots, PEM_FILE, directory)?;
            match authorities(&path) {
                Ok(_) => Ok(Trust::Certificates { own, authorities: path }),
                Err(error) => Err(roots.refused(Problem::Credentials(error))),
            }
        }
        (None, None, true) => Ok(Trust::Insecure),
        (None, None, false) => Err(section.refused(Problem::Missing { expected: EXPECTED })),
        (Some(value), _, _) | (None, Some(value), _) => {
            Err(value.refused(Problem::TwoProofs { expected: EXPECTED }))
        }
    }
}
