//! The listening socket, in two steps: the address is taken early, connections are let in late.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen,
    setsockopt, socket, sockopt,
};

/// A bound socket that does not listen yet: who connects now is refused instead of left waiting.
pub(super) struct Listener {
    socket: OwnedFd,
    address: SocketAddr,
}

impl Listener {
    /// Takes `address`; port 0 takes a free one.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, None)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        // Inherited by every accepted connection.
        setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        let bound: SockaddrStorage = getsockname(socket.as_raw_fd())?;
        let address = bound
            .as_sockaddr_in()
            .map(|v4| SocketAddr::from(std::net::SocketAddrV4::from(*v4)))
            .or_else(|| bound.as_sockaddr_in6().map(|v6| std::net::SocketAddrV6::from(*v6).into()))
            .unwrap_or(address);
        Ok(Self { socket, address })
    }

    /// The address that was taken.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets connections in, as many waiting as the system permits.
    pub(super) fn listen(self) -> io::Result<OwnedFd> {
        listen(&self.socket, Backlog::MAXCONN)?;
        Ok(self.socket)
    }
}
