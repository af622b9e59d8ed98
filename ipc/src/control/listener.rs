//! Where a container's launcher finds the engine: one socket per start, for one peer.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, getsockopt, listen,
    socket, sockopt::PeerCredentials,
};
use nix::sys::stat::fstat;

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
    /// error; the listener goes on. A pid names one process as long as that is not waited for.
    pub fn accept(&self, expected_pid: u32) -> Result<Option<ControlSocket>, ControlError> {
        self.accept_if(expected_pid, |_| Ok(true))
    }

    /// The same, and where the kernel can say so the peer is the very process of `pidfd`.
    pub fn accept_process(
        &self,
        expected_pid: u32,
        pidfd: BorrowedFd<'_>,
    ) -> Result<Option<ControlSocket>, ControlError> {
        self.accept_if(expected_pid, |peer| is_process(peer, pidfd))
    }

    fn accept_if(
        &self,
        expected: u32,
        is_container: impl FnOnce(BorrowedFd<'_>) -> Result<bool, ControlError>,
    ) -> Result<Option<ControlSocket>, ControlError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = match accept4(self.fd.as_raw_fd(), flags) {
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => return Ok(None),
            other => other?,
        };
        // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let got = getsockopt(&fd, PeerCredentials)?.pid();
        if u32::try_from(got) != Ok(expected) {
            return Err(ControlError::Peer { expected, got });
        }
        if !is_container(fd.as_fd())? {
            return Err(ControlError::Impostor { pid: expected });
        }
        self.unlink();
        Ok(Some(ControlSocket::from(fd)))
    }

    fn unlink(&self) {
        // Gone already, or its whole directory: what is wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the peer that connected is this process; also where the kernel does not know.
fn is_process(socket: BorrowedFd<'_>, pidfd: BorrowedFd<'_>) -> Result<bool, ControlError> {
    // Since Linux 6.5; the same number wherever `SO_PEERCRED` is 17.
    const SO_PEERPIDFD: i32 = 77;
    let (mut fd, mut size): (RawFd, _) = (-1, 4);
    let (value, length) = ((&raw mut fd).cast(), &raw mut size);
    let socket = socket.as_raw_fd();
    // SAFETY: the kernel writes one descriptor's number, for which there is room, and its size.
    let got = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, SO_PEERPIDFD, value, length) };
    match Errno::result(got) {
        Err(Errno::ENOPROTOOPT) => return Ok(true),
        // It has been waited for, as the container's process has not.
        Err(_) => return Ok(false),
        Ok(_) => {}
    }
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    let peer = unsafe { OwnedFd::from_raw_fd(fd) };
    // An inode is a process since Linux 6.9; before, all descriptors of processes share one.
    let (peer, ours) = (fstat(peer)?, fstat(pidfd)?);
    Ok((peer.st_dev, peer.st_ino) == (ours.st_dev, ours.st_ino))
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
