//! One attempt to come to terms with a gateway.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use protocol::hello::{Challenge, Hello};
use protocol::{Established, VERSION, handshake};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::complaint::AttemptError;
use crate::name::Address;
use crate::resolve::Place;
use crate::shared::Shared;
use crate::{Settings, Trust};

/// How long a host may take to accept a connection.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// How long a gateway may take for the handshake, TLS included.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// Connects, proves both sides, and learns who answers.
pub(crate) async fn dial(
    shared: &Shared,
    place: &Place,
    connection: u16,
    epoch: u64,
) -> Result<(Established, Challenge), AttemptError> {
    let trust = &shared.settings.trust;
    if matches!(trust, Trust::Insecure) && !place.address.is_loopback() {
        return Err(AttemptError::Elsewhere);
    }
    let hello = hello(shared, connection, epoch);
    match &place.address {
        Address::Tcp(address) => {
            let stream = connected(TcpStream::connect(address)).await?;
            // The handshake is a few small messages, each of which the other side waits for.
            stream.set_nodelay(true).map_err(AttemptError::Unreachable)?;
            let socket = |stream: TcpStream| stream.into_std().map(Into::into);
            proved(prove(trust, place, stream, socket, &hello)).await
        }
        Address::Unix(path) => {
            let stream = connected(UnixStream::connect(path)).await?;
            let socket = |stream: UnixStream| stream.into_std().map(Into::into);
            proved(prove(trust, place, stream, socket, &hello)).await
        }
    }
}

async fn connected<S>(connect: impl Future<Output = io::Result<S>>) -> Result<S, AttemptError> {
    match timeout(CONNECT_TIME, connect).await {
        Ok(connected) => connected.map_err(AttemptError::Unreachable),
        Err(_) => Err(AttemptError::Unanswered(CONNECT_TIME.as_millis())),
    }
}

async fn proved<T>(
    prove: impl Future<Output = Result<T, AttemptError>>,
) -> Result<T, AttemptError> {
    match timeout(HANDSHAKE_TIME, prove).await {
        Ok(result) => result,
        Err(_) => Err(AttemptError::Silent(HANDSHAKE_TIME.as_millis())),
    }
}

fn hello(shared: &Shared, connection: u16, epoch: u64) -> Hello {
    let Settings { node, shards, cores, .. } = &shared.settings;
    Hello {
        version_min: VERSION,
        version_max: VERSION,
        node: node.clone(),
        instance: shared.instance,
        epoch,
        connection,
        shards: *shards,
        cores: *cores,
        nonce: shared.random(),
    }
}

async fn prove<S: AsyncRead + AsyncWrite + Unpin>(
    trust: &Trust,
    place: &Place,
    mut stream: S,
    into_socket: impl FnOnce(S) -> io::Result<OwnedFd>,
    hello: &Hello,
) -> Result<(Established, Challenge), AttemptError> {
    let (stream, tls, challenge) = match trust {
        Trust::SharedKey(key) => {
            let challenge = handshake::dial(&mut stream, hello, Some(key)).await?;
            (stream, None, challenge)
        }
        Trust::Insecure => {
            let challenge = handshake::dial(&mut stream, hello, None).await?;
            (stream, None, challenge)
        }
        Trust::Certificates { client, server_name } => {
            let name = server_name.clone().map_or_else(|| name_of(place), Ok)?;
            let connector = TlsConnector::from(client.clone());
            let mut stream = connector.connect(name, stream).await.map_err(AttemptError::Tls)?;
            let challenge = handshake::dial(&mut stream, hello, None).await?;
            // What was read beyond the handshake waits in the TLS connection.
            let (stream, tls) = stream.into_inner();
            (stream, Some(Box::new(rustls::Connection::from(tls))), challenge)
        }
    };
    let socket = into_socket(stream).map_err(AttemptError::Unreachable)?;
    Ok((Established { socket, tls, early: Vec::new() }, challenge))
}

fn name_of(place: &Place) -> Result<ServerName<'static>, AttemptError> {
    let host = place.host.to_string();
    ServerName::try_from(host.clone()).map_err(|_| AttemptError::ServerName(host))
}
