//! From names to addresses.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

use crate::name::{Address, Name};

/// How long one server may take for one question.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// Addresses of one name at most: whoever answers for a name does not send this engine anywhere.
pub(crate) const PLACES_MAX: usize = 64;
/// What a certificate has for a host that is reached without the network.
const LOCAL_HOST: &str = "localhost";

/// One gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) address: Address,
    /// The name that led there, `localhost` for a socket: the one its certificate must have.
    pub(crate) host: Arc<str>,
}

/// A name could not be looked up; that says nothing of what it stands for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unresolved(String);

/// Who is asked.
#[derive(Clone, Debug)]
pub(crate) enum Resolver {
    /// Whoever the system asks.
    System,
    /// This server alone.
    Server(SocketAddr),
}

impl Resolver {
    /// The gateways that a name stands for now, each once; none if there are none.
    pub(crate) async fn resolve(&self, name: &Name) -> Result<Vec<Place>, Unresolved> {
        let mut places = match name {
            Name::Address(address) => {
                let host = address.ip().to_string().into();
                vec![Place { address: Address::Tcp(*address), host }]
            }
            Name::Unix(path) => {
                let address = Address::Unix(Arc::clone(path));
                vec![Place { address, host: LOCAL_HOST.into() }]
            }
            Name::Host { host, port } => self.host(host, *port).await?,
            Name::Service(service) => self.service(service).await?,
        };
        let mut seen = HashSet::new();
        places.retain(|place| seen.insert(place.address.clone()));
        if places.len() > PLACES_MAX {
            tracing::warn!("gateway {name} has {} addresses: {PLACES_MAX} are used", places.len());
            places.truncate(PLACES_MAX);
        }
        Ok(places)
    }

    async fn host(&self, host: &str, port: u16) -> Result<Vec<Place>, Unresolved> {
        let place = |address| {
            let host = host.trim_end_matches('.').into();
            Place { address: Address::Tcp(address), host }
        };
        match self {
            Resolver::System => {
                let found = tokio::net::lookup_host((host, port)).await;
                Ok(found.map_err(|error| Unresolved(error.to_string()))?.map(place).collect())
            }
            Resolver::Server(_) => match self.client()?.lookup_ip(host).await {
                Ok(found) => Ok(found.iter().map(|ip| place(SocketAddr::new(ip, port))).collect()),
                Err(error) => nothing_or(error),
            },
        }
    }

    async fn service(&self, service: &str) -> Result<Vec<Place>, Unresolved> {
        let records = match self.client()?.srv_lookup(service).await {
            Ok(found) => found,
            Err(error) => return nothing_or(error),
        };
        let targets = records.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => {
                Some((srv.target.to_utf8(), srv.port))
            }
            _ => None,
        });
        let mut places = Vec::new();
        for (host, port) in targets.take(PLACES_MAX) {
            // One that is not there takes nothing from the others.
            match self.host(&host, port).await {
                Ok(found) => places.extend(found),
                Err(error) => tracing::debug!("{host} of service {service}: {error}"),
            }
        }
        Ok(places)
    }

    /// Made anew each time, as the system's configuration may be another one.
    fn client(&self) -> Result<TokioResolver, Unresolved> {
        let builder = match self {
            Resolver::System => TokioResolver::builder_tokio().map_err(unresolved)?,
            Resolver::Server(address) => {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
                let connections = connections.map(|mut connection| {
                    connection.port = address.port();
                    connection
                });
                let server = NameServerConfig::new(address.ip(), true, connections.to_vec());
                let config = ResolverConfig::from_name_servers(vec![server]);
                let mut builder =
                    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
                *builder.options_mut() = ResolverOpts::default();
                builder
            }
        };
        let mut builder = builder;
        builder.options_mut().timeout = ANSWER_TIME;
        builder.build().map_err(unresolved)
    }
}

/// An answer that there is nothing is one.
fn nothing_or(error: NetError) -> Result<Vec<Place>, Unresolved> {
    if error.is_no_records_found() { Ok(Vec::new()) } else { Err(unresolved(error)) }
}

fn unresolved(error: NetError) -> Unresolved {
    Unresolved(error.to_string())
}
