//! Engines that join: the proof that is demanded of them, then the shard that the link is for.

use std::io;
use std::sync::Arc;

use protocol::handshake::answer;
use protocol::hello::{Challenge, Hello, Key, NONCE_SIZE};
use protocol::{Established, VERSION};
use rustls::crypto::ring::default_provider;
use tokio_rustls::TlsAcceptor;

use super::Shards;
use super::stranger::Stream;
use crate::up::mail::{NewLink, ShardMail};
use crate::up::tls::LinkCertificates;

/// What engines prove, and have proved to them.
#[derive(Debug)]
pub(super) enum Proof {
    /// By TLS, on both sides.
    Certificates(Arc<LinkCertificates>),
    /// That both have the key.
    Key(Key),
    /// Nothing; on loopback or by a path only.
    None,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Engines {
    proof: Proof,
    /// Shards of this process.
    shards: u16,
    /// Tells this process from its predecessor and its successor.
    instance: u64,
}

impl Engines {
    /// # Errors
    /// When the system has no random bytes.
    pub(super) fn new(proof: Proof, shards: u16) -> io::Result<Engines> {
        let instance = u64::from_le_bytes(random().map_err(io::Error::other)?);
        Ok(Engines { proof, shards, instance })
    }

    /// Shakes hands and passes the link on.
    ///
    /// # Errors
    /// Why that did not come to its end.
    pub(super) async fn meet(&self, stream: impl Stream, shards: &Shards) -> Result<(), String> {
        let link = self.shake(stream).await?;
        let shard = link.hello.connection % self.shards.max(1);
        shards.post(shard, ShardMail::Engine(Box::new(link)));
        Ok(())
    }

    async fn shake(&self, mut stream: impl Stream) -> Result<NewLink, String> {
        let nonce: [u8; NONCE_SIZE] = random()?;
        let challenge =
            Challenge { version: VERSION, shards: self.shards, instance: self.instance, nonce };
        let (socket, tls, hello) = match &self.proof {
            Proof::Certificates(certificates) => {
                let acceptor = TlsAcceptor::from(certificates.current());
                let mut stream =
                    acceptor.accept(stream).await.map_err(|error| error.to_string())?;
                let hello = hello(answer(&mut stream, &challenge, None).await)?;
                let (socket, session) = stream.into_inner();
                (socket, Some(Box::new(session.into())), hello)
            }
            Proof::Key(key) => {
                let hello = hello(answer(&mut stream, &challenge, Some(key)).await)?;
                (stream, None, hello)
            }
            Proof::None => {
                let hello = hello(answer(&mut stream, &challenge, None).await)?;
                (stream, None, hello)
            }
        };
        let socket = socket.into_socket().map_err(|error| error.to_string())?;
        // The handshake reads exactly its own messages, and what TLS has beyond stays in it.
        let established = Established { socket, tls, early: Vec::new() };
        Ok(NewLink { established, hello })
    }
}

fn hello(answered: Result<Hello, protocol::LinkError>) -> Result<Hello, String> {
    answered.map_err(|error| error.to_string())
}

fn random<const SIZE: usize>() -> Result<[u8; SIZE], String> {
    let mut bytes = [0; SIZE];
    let filled = default_provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| "the system has no random bytes".to_owned())?;
    Ok(bytes)
}
