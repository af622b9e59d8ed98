//! Who has connected: by an address, or by a path on this host.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;

use nix::unistd::Uid;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::path::SocketFile;
use crate::up::listeners::Listening;

/// Where strangers come from. Dropped, it is closed.
pub(super) enum Source {
    /// An address.
    Port(Arc<Listening>),
    /// A path; the file goes first.
    Path(SocketFile, StdUnixListener),
}

/// Accepts them.
#[derive(Debug)]
pub(super) enum Acceptor {
    Port(TcpListener),
    Path(UnixListener),
}

/// One of them.
#[derive(Debug)]
pub(super) enum Stranger {
    Remote(TcpStream, SocketAddr),
    Neighbour(UnixStream),
}

/// Where one comes from, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Address(SocketAddr),
    /// A process of this host, as the kernel has it.
    Process {
        pid: Option<i32>,
        user: u32,
    },
    /// One of which even the kernel says nothing.
    Unknown,
}

/// A connection that can be left to a shard.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Its socket, non-blocking.
    ///
    /// # Errors
    /// What the system says.
    fn into_socket(self) -> io::Result<OwnedFd>;
}

impl Stream for TcpStream {
    fn into_socket(self) -> io::Result<OwnedFd> {
        self.into_std().map(Into::into)
    }
}

impl Stream for UnixStream {
    fn into_socket(self) -> io::Result<OwnedFd> {
        self.into_std().map(Into::into)
    }
}

impl Source {
    /// On the thread of a runtime.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn acceptor(&self) -> io::Result<Acceptor> {
        Ok(match self {
            Source::Port(listening) => {
                Acceptor::Port(TcpListener::from_std(listening.duplicate()?.into())?)
            }
            Source::Path(_, listener) => {
                Acceptor::Path(UnixListener::from_std(listener.try_clone()?)?)
            }
        })
    }

    /// This process serves, and nobody is taking over.
    ///
    /// # Errors
    /// As those of [`SocketFile::settle`].
    pub(super) fn settle(&mut self) -> io::Result<()> {
        match self {
            Source::Port(_) => Ok(()),
            Source::Path(file, _) => file.settle(),
        }
    }

    /// Whether those who wait when it closes are to be left to a successor. One that takes over a path
    /// has a socket of its own there.
    pub(super) fn is_successors(&self) -> bool {
        match self {
            Source::Port(listening) => listening.is_successors(),
            Source::Path(..) => false,
        }
    }

    /// What is left when a path leads here no more. The acceptor still has those who have connected.
    pub(super) fn hide(self) -> Option<Arc<Listening>> {
        match self {
            Source::Port(listening) => Some(listening),
            Source::Path(..) => None,
        }
    }
}

impl Acceptor {
    pub(super) async fn accept(&self) -> io::Result<Stranger> {
        match self {
            Acceptor::Port(listener) => {
                listener.accept().await.map(|(stream, peer)| Stranger::Remote(stream, peer))
            }
            Acceptor::Path(listener) => {
                listener.accept().await.map(|(stream, _)| Stranger::Neighbour(stream))
            }
        }
    }

    /// Those who have connected already, so many at most.
    pub(super) fn rest(self, max: usize) -> Vec<Stranger> {
        match self {
            Acceptor::Port(listener) => {
                let Ok(listener) = listener.into_std() else { return Vec::new() };
                let rest = std::iter::from_fn(|| listener.accept().ok()).take(max);
                let stranger = |(stream, peer): (std::net::TcpStream, _)| {
                    stream.set_nonblocking(true).ok()?;
                    Some(Stranger::Remote(TcpStream::from_std(stream).ok()?, peer))
                };
                rest.filter_map(stranger).collect()
            }
            Acceptor::Path(listener) => {
                let Ok(listener) = listener.into_std() else { return Vec::new() };
                let rest = std::iter::from_fn(|| listener.accept().ok()).take(max);
                let stranger = |(stream, _): (std::os::unix::net::UnixStream, _)| {
                    stream.set_nonblocking(true).ok()?;
                    Some(Stranger::Neighbour(UnixStream::from_std(stream).ok()?))
                };
                rest.filter_map(stranger).collect()
            }
        }
    }
}

impl Stranger {
    pub(super) fn origin(&self) -> Origin {
        match self {
            Stranger::Remote(_, peer) => Origin::Address(*peer),
            Stranger::Neighbour(stream) => stream.peer_cred().map_or(Origin::Unknown, |peer| {
                Origin::Process { pid: peer.pid(), user: peer.uid() }
            }),
        }
    }
}

impl Origin {
    /// Whether such a one may try to prove itself: a process of this host needs to be of our user or
    /// root's, whatever became of the mode of the path.
    pub(super) fn is_admitted(self) -> bool {
        match self {
            Origin::Address(_) => true,
            Origin::Process { user, .. } => user == 0 || user == Uid::effective().as_raw(),
            Origin::Unknown => false,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Address(address) => write!(f, "at {address}"),
            Origin::Process { pid: Some(pid), user } => {
                write!(f, "on this host (process {pid} of user {user})")
            }
            Origin::Process { pid: None, user } => write!(f, "on this host (of user {user})"),
            Origin::Unknown => f.write_str("on this host"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_this_host_only_our_user_and_root_may_prove_themselves() {
        let of = |user| Origin::Process { pid: Some(1), user };
        let own = Uid::effective().as_raw();
        assert!(of(0).is_admitted() && of(own).is_admitted());
        assert!(!of(own + 1).is_admitted() && !Origin::Unknown.is_admitted());
        assert!(Origin::Address(([192, 0, 2, 1], 1).into()).is_admitted());
    }
}
