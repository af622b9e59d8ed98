//! The gateway's side of TLS: what the doors and the engines' port prove themselves by, as it is now.
//! Files are read at the start and at every reload; what cannot be used leaves the old in force.
//! Connections keep the configuration that they began with.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};

use crate::admin::Report;
use crate::config::{CertificateFiles, Config, CredentialError, Trust, authorities};

/// What a client's protocols are called in its hello (RFC 7301).
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// Sections of the configuration, as reports name them.
const CLIENTS: &str = "[gateway.tls]";
const ENGINES: &str = "[gateway.engines]";

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error(transparent)]
    Files(#[from] CredentialError),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    #[error("the authorities cannot be used: {0}")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
}

/// All that this process proves itself by.
#[derive(Debug, Default)]
pub(super) struct Identities {
    /// Where there is a door with TLS.
    pub(super) clients: Option<Arc<Certificates>>,
    /// Where engines join by certificate.
    pub(super) engines: Option<Arc<LinkCertificates>>,
}

impl Identities {
    /// Reads what a process with a door has.
    ///
    /// # Errors
    /// When it cannot be used; with the section that named it.
    pub(super) fn load(config: &Config) -> Result<Identities, (&'static str, CertificateError)> {
        let mut identities = Identities::default();
        if !config.overrides.role.has_door() {
            return Ok(identities);
        }
        if let Some(tls) = &config.gateway.tls {
            let loaded = Certificates::load(&tls.files).map_err(|error| (CLIENTS, error))?;
            identities.clients = Some(Arc::new(loaded));
        }
        if let Some(Trust::Certificates { own, authorities }) =
            config.gateway.engines.as_ref().map(|port| &port.trust)
        {
            let loaded =
                LinkCertificates::load(own, authorities).map_err(|error| (ENGINES, error))?;
            identities.engines = Some(Arc::new(loaded));
        }
        Ok(identities)
    }

    /// Reads the files again, and reports what is new or cannot be used.
    pub(super) fn reload(&self) -> Vec<Report> {
        let clients = self.clients.as_ref().map(|held| (CLIENTS, held.reload()));
        let engines = self.engines.as_ref().map(|held| (ENGINES, held.reload()));
        let report = |(section, reloaded): (&str, Result<Reloaded, CertificateError>)| {
            let (done, message) = match reloaded {
                Ok(Reloaded::Same) => return None,
                Ok(Reloaded::Changed) => (true, "new connections see another certificate".into()),
                Err(error) => (false, format!("the former certificate is kept: {error}")),
            };
            Some(Report { function: section.to_owned(), done, message })
        };
        clients.into_iter().chain(engines).filter_map(report).collect()
    }
}

/// What a reload found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reloaded {
    Same,
    /// Another certificate is in force.
    Changed,
}

impl Reloaded {
    fn from(former: &CertifiedKey, next: &CertifiedKey) -> Reloaded {
        if former.cert == next.cert { Reloaded::Same } else { Reloaded::Changed }
    }
}

/// The certificate that clients see.
#[derive(Debug)]
pub(super) struct Certificates {
    files: CertificateFiles,
    /// Lives as long as the process: a session goes on over a reload.
    tickets: Arc<dyn ProducesTickets>,
    current: Mutex<Current>,
}

/// One configuration for each protocol.
#[derive(Clone, Debug)]
struct Current {
    own: Arc<CertifiedKey>,
    http1: Arc<ServerConfig>,
    h2: Arc<ServerConfig>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be used.
    pub(super) fn load(files: &CertificateFiles) -> Result<Certificates, CertificateError> {
        let tickets = Ticketer::new()?;
        let current = Mutex::new(Current::load(files, &tickets)?);
        Ok(Certificates { files: files.clone(), tickets, current })
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// When they cannot be used; nothing has changed then.
    pub(super) fn reload(&self) -> Result<Reloaded, CertificateError> {
        let next = Current::load(&self.files, &self.tickets)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let reloaded = Reloaded::from(&current.own, &next.own);
        *current = next;
        Ok(reloaded)
    }

    /// For clients that speak HTTP/1.1.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner).http1)
    }

    /// For clients that speak HTTP/2.
    pub(super) fn current_h2(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner).h2)
    }
}

impl Current {
    fn load(
        files: &CertificateFiles,
        tickets: &Arc<dyn ProducesTickets>,
    ) -> Result<Current, CertificateError> {
        let own = files.load()?;
        let config = |protocol: &[u8]| -> Result<_, CertificateError> {
            let mut config = builder()?.with_no_client_auth().with_cert_resolver(resolver(&own));
            config.alpn_protocols = vec![protocol.to_vec()];
            config.ticketer = Arc::clone(tickets);
            Ok(Arc::new(config))
        };
        let (http1, h2) = (config(HTTP1)?, config(HTTP2)?);
        Ok(Current { own, http1, h2 })
    }
}

/// The certificate that engines see, and those whose signature on theirs is believed.
#[derive(Debug)]
pub(super) struct LinkCertificates {
    own: CertificateFiles,
    authorities: PathBuf,
    current: Mutex<(Arc<CertifiedKey>, Arc<ServerConfig>)>,
}

impl LinkCertificates {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be used.
    pub(super) fn load(
        own: &CertificateFiles,
        authorities: &Path,
    ) -> Result<LinkCertificates, CertificateError> {
        let current = Mutex::new(link_config(own, authorities)?);
        Ok(LinkCertificates { own: own.clone(), authorities: authorities.to_owned(), current })
    }

    /// Reads the files again. Links that stand are kept.
    ///
    /// # Errors
    /// When they cannot be used; nothing has changed then.
    pub(super) fn reload(&self) -> Result<Reloaded, CertificateError> {
        let next = link_config(&self.own, &self.authorities)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let reloaded = Reloaded::from(&current.0, &next.0);
        *current = next;
        Ok(reloaded)
    }

    /// Demands a certificate of whoever dials.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner).1)
    }
}

fn link_config(
    own: &CertificateFiles,
    roots: &Path,
) -> Result<(Arc<CertifiedKey>, Arc<ServerConfig>), CertificateError> {
    let (own, roots) = (own.load()?, authorities(roots)?);
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
    let mut config =
        builder()?.with_client_cert_verifier(verifier).with_cert_resolver(resolver(&own));
    // Links live long, and a session that is resumed is not checked against the authorities again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((own, Arc::new(config)))
}

/// TLS 1.3 and nothing older: every client of today speaks it, and it has no weak choices to exclude.
fn builder() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
}

fn resolver(own: &Arc<CertifiedKey>) -> Arc<SingleCertAndKey> {
    Arc::new(SingleCertAndKey::from(CertifiedKey::clone(own)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Writes a certificate and its key.
    fn sign(files: &CertificateFiles) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    }

    fn files(directory: &tempfile::TempDir) -> CertificateFiles {
        let path = |name| directory.path().join(name);
        let files = CertificateFiles { certificate: path("cert.pem"), key: path("key.pem") };
        sign(&files);
        files
    }

    #[test]
    fn a_reload_takes_what_can_be_used_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(&directory);
        let certificates = Certificates::load(&files).unwrap();
        assert_eq!(certificates.reload().unwrap(), Reloaded::Same);
        sign(&files);
        assert_eq!(certificates.reload().unwrap(), Reloaded::Changed);
        let current = (certificates.current(), certificates.current_h2());
        fs::write(&files.key, "no key").unwrap();
        assert!(certificates.reload().is_err());
        assert!(Arc::ptr_eq(&current.0, &certificates.current()));
        assert!(Arc::ptr_eq(&current.1, &certificates.current_h2()));
    }

    #[test]
    fn each_protocol_is_named_where_it_is_spoken() {
        let directory = tempfile::tempdir().unwrap();
        let certificates = Certificates::load(&files(&directory)).unwrap();
        assert_eq!(certificates.current().alpn_protocols, [b"http/1.1"]);
        assert_eq!(certificates.current_h2().alpn_protocols, [b"h2"]);
        assert_eq!(certificates.current().max_early_data_size, 0, "it could be replayed");
    }

    #[test]
    fn links_are_not_resumed() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(&directory);
        let certificates = LinkCertificates::load(&files, &files.certificate).unwrap();
        assert_eq!(certificates.current().send_tls13_tickets, 0);
        assert!(!certificates.current().session_storage.can_cache());
        assert_eq!(certificates.reload().unwrap(), Reloaded::Same);
        sign(&files);
        assert_eq!(certificates.reload().unwrap(), Reloaded::Changed);
    }
}
