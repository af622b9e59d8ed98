//! What a handshake leaves to a shard: plain data, to be sent from one thread to another.

use std::os::fd::OwnedFd;

/// A connection whose two sides have proved themselves to each other.
#[derive(Debug)]
pub struct Established {
    /// Non-blocking, with nothing in flight on it.
    pub socket: OwnedFd,
    /// Where there is TLS.
    pub tls: Option<Box<rustls::Connection>>,
    /// Plain bytes that came behind the handshake.
    pub early: Vec<u8>,
}
