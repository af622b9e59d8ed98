//! Clients of the door with TLS: the handshake, then a shard that has room.

use std::sync::Arc;

use gateway::{Arrival, Door};
use reactor::clock;
use tokio_rustls::TlsAcceptor;

use super::Shards;
use super::stranger::Stream;
use crate::up::mail::ShardMail;
use crate::up::tls::Certificates;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Clients {
    certificates: Arc<Certificates>,
}

impl Clients {
    pub(super) fn new(certificates: Arc<Certificates>) -> Clients {
        Clients { certificates }
    }

    /// Shakes hands and passes the connection on.
    ///
    /// # Errors
    /// Why that did not come to its end.
    pub(super) async fn meet(&self, stream: impl Stream, shards: &Shards) -> Result<(), String> {
        let acceptor = TlsAcceptor::from(self.certificates.current());
        let stream = acceptor.accept(stream).await.map_err(|error| error.to_string())?;
        let (socket, session) = stream.into_inner();
        let socket = socket.into_socket().map_err(|error| error.to_string())?;
        let tls = Some(Box::new(session));
        let arrival = Arrival { socket, door: Door::Public, tls };
        let shard = shards.balance.loads.choose(clock::now());
        shards.post(shard, ShardMail::Arrived(Box::new(arrival)));
        Ok(())
    }
}
