//! Where a container's launcher finds the engine: one socket per start, for one peer.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, getsockopt, listen,
    socket, sockopt::PeerCredentials,
};

use super::{ControlError, ControlSocket};

/// A bound socket; its path is unlinked when the container has connected, or when dropped.
#[derive(Debug)]
pub struct ControlListener {
    fd: OwnedFd,
    path: PathBuf,
}

impl ControlListener {
    /// Binds `dir/name`. The directory is the caller's and private (mode 0700).
    pub fn bind(dir: &Path, name: &str) -> Result<ControlListener, ControlError> {
        let path = dir.join(name);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        bind(fd.as_raw_fd(), &UnixAddr::new(&path)?)?;
        let listener = ControlListener { fd, path };
        listen(&listener.fd, Backlog::new(4)?)?;
        Ok(listener)
    }

    /// What the container gets as `NIGHTCORE_SOCKET`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The container's connection, `None` if there is none yet. Anyone else's is closed and an
    /// error; the listener goes on.
    pub fn accept(&self, expected_pid: u32) -> Result<Option<ControlSocket>, ControlError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = match accept4(self.fd.as_raw_fd(), flags) {
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => return Ok(None),
            other => other?,
        };
        // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let got = getsockopt(&fd, PeerCredentials)?.pid();
        if u32::try_from(got) != Ok(expected_pid) {
            return Err(ControlError::Peer { expected: expected_pid, got });
        }
        self.unlink();
        Ok(Some(ControlSocket::from(fd)))
    }

    fn unlink(&self) {
        // Gone already, or its whole directory: what is wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl AsFd for ControlListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for ControlListener {
    fn drop(&mut self) {
        self.unlink();
    }
}
