//! Calls by gRPC: tonic's server and, for the front, its channels, over TCP or unix sockets.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

use crate::front::{Backend, CallError};
use crate::server::{Address, Error, announce};

/// What tonic generates from proto/echo.proto.
#[allow(missing_docs, clippy::pedantic)]
mod proto {
    tonic::include_proto!("echo");
}

use proto::Payload;
use proto::echo_client::EchoClient;
use proto::echo_server::{Echo, EchoServer};

/// A payload at most: what the fronts' arguments allow, and a little for the encoding.
const MESSAGE_BYTES_MAX: usize = (16 << 20) + 64;

struct Service;

#[tonic::async_trait]
impl Echo for Service {
    async fn call(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

/// Echoes payloads until the listener fails.
///
/// # Errors
/// The address is taken, or the listener failed.
pub async fn serve(listen: Address) -> Result<(), Error> {
    let echo = EchoServer::new(Service).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let router = Server::builder().add_service(echo);
    match listen {
        Address::Tcp(address) => {
            let failed = |source| Error::Listen { address: address.to_string(), source };
            let incoming = TcpIncoming::bind(address).map_err(failed)?.with_nodelay(Some(true));
            announce(format_args!("tcp:{}", incoming.local_addr()?))?;
            Ok(router.serve_with_incoming(incoming).await?)
        }
        Address::Unix(path) => serve_unix(router, &path).await,
    }
}

async fn serve_unix(router: Router, path: &Path) -> Result<(), Error> {
    // A socket that an earlier server left there is nobody's.
    let _ = fs::remove_file(path);
    let failed = |source| Error::Listen { address: path.display().to_string(), source };
    let listener = UnixListener::bind(path).map_err(failed)?;
    announce(format_args!("unix:{}", path.display()))?;
    Ok(router.serve_with_incoming(UnixListenerStream::new(listener)).await?)
}

/// Channels to one backend, each a connection, taken in turns.
pub struct Channels {
    clients: Vec<EchoClient<Channel>>,
    next: AtomicUsize,
}

impl Channels {
    /// Opens `connections` to `address`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(address: &Address, connections: usize) -> Result<Channels, Error> {
        let endpoint = match address {
            Address::Tcp(address) => Endpoint::from_shared(format!("http://{address}"))?,
            Address::Unix(path) => Endpoint::from_shared(format!("unix:{}", path.display()))?,
        };
        let endpoint = endpoint.tcp_nodelay(true);
        let mut clients = Vec::new();
        for _ in 0..connections.max(1) {
            let client = EchoClient::new(endpoint.connect().await?);
            clients.push(client.max_decoding_message_size(MESSAGE_BYTES_MAX));
        }
        Ok(Channels { clients, next: AtomicUsize::new(0) })
    }
}

impl Backend for Channels {
    async fn call(&self, data: Bytes) -> Result<Bytes, CallError> {
        // Only the turns matter, so any order of the counter does.
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.clients.len();
        let mut client = self.clients[turn].clone();
        Ok(client.call(Payload { data }).await?.into_inner().data)
    }
}
