//! Finds gateways on other hosts and keeps connections of this engine to them. One thread beside the
//! shards: names, slow handshakes and dead hosts are its business, and a shard gets nothing but
//! connections whose other side has proved itself.
//!
//! In the order a connection meets them:
//! - [`Dialer`] (`thread`): the thread, and how it is spoken to
//! - [`Name`] (`name`), `resolve`: what the configuration says, and the addresses that it means now
//! - `fleet`: the gateways that there are
//! - `keeper`: one connection to one gateway, again and again
//! - `attempt`: one time that: connect, TLS, handshake
//! - `backoff`: how long until the next one
//! - `complaint`: what went wrong, told once, with what to do
//!
//! A gateway tells how many shards it has; with E shards here and G there, there are max(E, G)
//! connections, k = 0.., of which k belongs to shard k % E. Every attempt has a higher epoch than all
//! before, so of two links that both seem alive the gateway knows the later one.

#![forbid(unsafe_code)]

mod attempt;
mod backoff;
mod complaint;
mod fleet;
mod keeper;
mod name;
mod resolve;
mod shared;
#[cfg(test)]
mod tests;
mod thread;

use std::net::SocketAddr;
use std::sync::Arc;

use engine::uplink::Identity;
use protocol::Established;
use protocol::hello::Key;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};

pub use name::Name;
pub use thread::{Dialer, Line};

/// Whom to dial, and as whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The gateways.
    pub gateways: Vec<Name>,
    /// Who is asked for names; `None`: whoever the system asks.
    pub resolver: Option<SocketAddr>,
    /// How both sides prove themselves.
    pub trust: Trust,
    /// The name of this host.
    pub node: String,
    /// Shards of this engine.
    pub shards: u16,
    /// Cores of this engine.
    pub cores: u16,
}

/// How an engine and a gateway prove themselves to each other.
#[derive(Clone, Debug)]
pub enum Trust {
    /// By a key that both have.
    SharedKey(Key),
    /// By certificates, in TLS 1.3.
    Certificates {
        /// What [`client_config`] made.
        client: Arc<ClientConfig>,
        /// The name in the gateways' certificates; `None`: the one by which each was configured.
        server_name: Option<ServerName<'static>>,
    },
    /// Not at all: only gateways on this host are dialled.
    Insecure,
}

/// A connection whose other side has proved itself.
#[derive(Debug)]
pub struct Dialled {
    /// The shard that it is for.
    pub shard: u16,
    /// The connection.
    pub established: Established,
    /// Which it is.
    pub identity: Identity,
}

/// TLS 1.3 with a certificate of our own. Every connection proves anew who both sides are: sessions
/// are not resumed.
///
/// # Errors
/// When the library has no TLS 1.3.
pub fn client_config(
    authorities: Arc<RootCertStore>,
    own: Arc<CertifiedKey>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
    let resolver = Arc::new(SingleCertAndKey::from(own));
    let builder = builder.with_root_certificates(authorities);
    let mut config = builder.with_client_cert_resolver(resolver);
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}
