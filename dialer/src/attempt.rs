//! One attempt to come to terms with a gateway.

use std::time::Duration;

use protocol::hello::{Challenge, Hello};
use protocol::{Established, VERSION, handshake};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::complaint::AttemptError;
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
    if matches!(trust, Trust::Insecure) && !place.address.ip().to_canonical().is_loopback() {
        return Err(AttemptError::Elsewhere);
    }
    let stream = match timeout(CONNECT_TIME, TcpStream::connect(place.address)).await {
        Ok(connected) => connected.map_err(AttemptError::Unreachable)?,
        Err(_) => return Err(AttemptError::Unanswered(CONNECT_TIME.as_millis())),
    };
    let hello = hello(shared, connection, epoch);
    match timeout(HANDSHAKE_TIME, prove(trust, place, stream, &hello)).await {
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

async fn prove(
    trust: &Trust,
    place: &Place,
    mut stream: TcpStream,
    hello: &Hello,
) -> Result<(Established, Challenge), AttemptError> {
    // The handshake is a few small messages, each of which the other side waits for.
    stream.set_nodelay(true).map_err(AttemptError::Unreachable)?;
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
    let socket = stream.into_std().map_err(AttemptError::Unreachable)?.into();
    Ok((Established { socket, tls, early: Vec::new() }, challenge))
}

fn name_of(place: &Place) -> Result<ServerName<'static>, AttemptError> {
    let host = place.host.to_string();
    ServerName::try_from(host.clone()).map_err(|_| AttemptError::ServerName(host))
}
