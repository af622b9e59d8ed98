//! A client connection as it comes to a shard's gateway.

use std::os::fd::OwnedFd;

/// What those may ask for who come in by a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Functions.
    Public,
    /// The state of the host.
    Admin,
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct Arrival {
    /// Non-blocking, with nothing in flight on it.
    pub socket: OwnedFd,
    /// By which listener it came.
    pub door: Door,
    /// Where there is TLS: the handshake is done, and plain bytes behind it may be there already.
    pub tls: Option<Box<rustls::ServerConnection>>,
}
