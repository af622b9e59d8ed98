//! Authorities and what they sign.

use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use crate::{Trust, client_config};

pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn sign(&self, name: &str) -> (Certificate, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (certificate, key)
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        Arc::new(roots)
    }
}

/// An engine with a certificate that `signer` signed, which believes `authority`.
pub(super) fn engine_trust(
    signer: &Authority,
    authority: &Authority,
    server_name: Option<&str>,
) -> Trust {
    let (certificate, key) = signer.sign("engine.test");
    let chain = vec![certificate.der().clone()];
    let own = CertifiedKey::from_der(chain, key, &default_provider()).unwrap();
    let client = client_config(authority.roots(), Arc::new(own)).unwrap();
    let server_name = server_name.map(|name| ServerName::try_from(name.to_owned()).unwrap());
    Trust::Certificates { client, server_name }
}

/// A gateway with a certificate for `name` that `signer` signed, which believes `authority`.
pub(super) fn gateway_config(
    signer: &Authority,
    authority: &Authority,
    name: &str,
) -> Arc<ServerConfig> {
    let provider = Arc::new(default_provider());
    let (roots, shared) = (authority.roots(), Arc::clone(&provider));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, shared).build().unwrap();
    let (certificate, key) = signer.sign(name);
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Arc::new(config)
}
