//! The listening socket, in two steps: the address is taken early, connections are let in late.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen,
    setsockopt, socket, sockopt,
};

/// How long an address may be in use before that is an error: the kernel takes the ring of an engine that
/// was killed apart in its own time, and keeps the listening socket as long.
const PREDECESSOR_TIME: Duration = Duration::from_secs(2);
const TRY_PAUSE: Duration = Duration::from_millis(5);

/// A bound socket that does not listen yet, unless it is a predecessor's: who connects now is refused
/// instead of left waiting.
pub(super) struct Listener {
    socket: OwnedFd,
    address: SocketAddr,
}

impl Listener {
    /// Takes `address`; port 0 takes a free one. An address that is in use is tried for a while.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let deadline = Instant::now() + PREDECESSOR_TIME;
        loop {
            match Self::try_bind(address) {
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline =>
                {
                    thread::sleep(TRY_PAUSE);
                }
                result => return result,
            }
        }
    }

    /// Of a predecessor: it listens already.
    pub(super) fn adopt(socket: OwnedFd, address: SocketAddr) -> Self {
        Self { socket, address }
    }

    fn try_bind(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, None)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        // Inherited by every accepted connection.
        setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        let address = local_address(&socket).unwrap_or(address);
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

/// Where a socket is bound.
///
/// # Errors
/// When it is no socket of the Internet's protocols.
pub(super) fn local_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let bound: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    bound
        .as_sockaddr_in()
        .map(|v4| SocketAddr::from(std::net::SocketAddrV4::from(*v4)))
        .or_else(|| bound.as_sockaddr_in6().map(|v6| std::net::SocketAddrV6::from(*v6).into()))
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
