//! `[gateway.engines]`: where engines on other hosts and on this one may join, and what they have to
//! prove.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::credentials::{CertificateFiles, authorities, shared_key};
use super::error::{ConfigError, Problem};
use super::table::{Table, Value};
use super::tls::{PEM_FILE, certificate_files, file};

/// `[gateway.engines]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnginesPort {
    /// Address and port; port 0 takes a free one. This or `path` is there.
    pub listen: Option<SocketAddr>,
    /// The socket for engines of this host, absolute.
    pub path: Option<PathBuf>,
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

const LISTEN: &str = "an address and port such as \"127.0.0.1:8090\", or path instead of it";
const PATH: &str = "an absolute path of at most 96 bytes";
/// `sun_path` has room for 107, of which some are for the name under which the socket is made.
const PATH_SIZE_MAX: usize = 96;
const EXPECTED: &str = "key_file, or certificate, key and authorities, or insecure = true";

/// The section. Its files are there and can be used.
pub(super) fn read_engines(
    section: &Value<'_>,
    directory: &Path,
) -> Result<EnginesPort, ConfigError> {
    let known = &["listen", "path", "key_file", "certificate", "key", "authorities", "insecure"];
    let table = section.table(known)?;
    let mut path = None;
    table.read("path", &mut path, |value| read_path(value).map(Some))?;
    let mut listen: Option<SocketAddr> = None;
    table.read("listen", &mut listen, |value| value.parsed(LISTEN).map(Some))?;
    let value =
        if path.is_none() { Some(table.require("listen", LISTEN)?) } else { table.get("listen") };
    let trust = read_trust(section, &table, directory)?;
    // Who reaches the path is this user or root, and needs no other proof.
    if let (Trust::Insecure, Some(listen), Some(value)) = (&trust, listen, value)
        && !listen.ip().to_canonical().is_loopback()
    {
        return Err(value.refused(Problem::InsecureLink(listen)));
    }
    Ok(EnginesPort { listen, path, trust })
}

fn read_path(value: &Value<'_>) -> Result<PathBuf, ConfigError> {
    let text = value.text(PATH)?;
    let fits = text.len() <= PATH_SIZE_MAX && !text.contains('\0') && !text.ends_with('/');
    if fits && text.starts_with('/') { Ok(text.into()) } else { Err(value.unexpected(PATH)) }
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
