//! The control socket: by it a container says that its library is fit, and gets channels, lanes
//! and their descriptors from the engine.
//!
//! A unix socket of type `SOCK_SEQPACKET`, so a message is a packet: whole, in order, and sent by
//! any thread without a lock. One packet at a time, descriptors beside it by `SCM_RIGHTS`. The
//! engine never blocks on it and takes no descriptor from a container.

mod listener;
mod message;

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    connect, recvmsg, sendmsg, socket,
};

pub use listener::ControlListener;
pub use message::{FromLauncher, PACKET_MAX, PROTOCOL_VERSION, TEXT_MAX, ToLauncher};

/// Descriptors beside one message at most: a channel's.
const DESCRIPTORS_MAX: usize = 3;

/// Either end of a container's control socket.
#[derive(Debug)]
pub struct ControlSocket(OwnedFd);

/// Why there is no message, or no socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The other side has closed its end, most often by ending.
    #[error("the control socket is closed")]
    Closed,
    /// Someone else than the container just started has connected.
    #[error("process {got} connected where the container is process {expected}")]
    Peer {
        /// The container's.
        expected: u32,
        /// The peer's, by `SO_PEERCRED`.
        got: i32,
    },
    /// Another process with the container's pid has connected.
    #[error("what connected has the container's pid {pid} and is another process")]
    Impostor {
        /// Of both.
        pid: u32,
    },
    /// The peer speaks another version.
    #[error("the peer speaks version {got} of the control protocol, this side {PROTOCOL_VERSION}")]
    Version {
        /// The peer's.
        got: u16,
    },
    /// A packet that is no message, or whose fields are not of their form.
    #[error("a packet that is no message: {0}")]
    Malformed(&'static str),
    /// Not the descriptors that belong to the message.
    #[error("{got} descriptors came with a message that has {expected}")]
    Descriptors {
        /// By its kind.
        expected: usize,
        /// As received.
        got: usize,
    },
    /// The system refused.
    #[error("the control socket: {0}")]
    System(#[from] std::io::Error),
}

impl From<Errno> for ControlError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::EPIPE | Errno::ECONNRESET => ControlError::Closed,
            other => ControlError::System(other.into()),
        }
    }
}

impl ControlSocket {
    /// The launcher's end: connects to where `NIGHTCORE_SOCKET` says.
    pub fn connect(path: &Path) -> Result<ControlSocket, ControlError> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(ControlSocket(fd))
    }

    /// Engine: sends a message and the descriptors that belong to it, without blocking. A
    /// launcher that reads nothing costs `WouldBlock`.
    pub fn send_to_launcher(
        &self,
        message: &ToLauncher,
        descriptors: &[BorrowedFd<'_>],
    ) -> std::io::Result<()> {
        if descriptors.len() != message.descriptors() {
            let text = "a message must come with its descriptors";
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, text));
        }
        self.send(&message.encode()?, descriptors, MsgFlags::MSG_DONTWAIT)
    }

    /// Engine: the launcher's next message, `None` if there is none yet.
    pub fn receive_from_launcher(&self) -> Result<Option<FromLauncher>, ControlError> {
        let mut packet = [0; PACKET_MAX];
        let mut parts = [IoSliceMut::new(&mut packet)];
        // No room for descriptors: the kernel drops what a container sends and says so.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let received = match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, None, flags) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            other => other?,
        };
        let (size, flags) = (received.bytes, received.flags);
        if flags.contains(MsgFlags::MSG_CTRUNC) {
            return Err(ControlError::Descriptors { expected: 0, got: 1 });
        }
        FromLauncher::decode(whole_packet(&packet, size, flags)?).map(Some)
    }

    /// Launcher: sends a message; blocks while the engine is behind.
    pub fn send_to_engine(&self, message: &FromLauncher) -> std::io::Result<()> {
        self.send(&message.encode(), &[], MsgFlags::empty())
    }

    /// Launcher: the engine's next message and its descriptors; blocks until there is one.
    pub fn receive_from_engine(&self) -> Result<(ToLauncher, Vec<OwnedFd>), ControlError> {
        let mut packet = [0; PACKET_MAX];
        let mut parts = [IoSliceMut::new(&mut packet)];
        let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let received = loop {
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        let mut descriptors = Vec::new();
        for control in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                // SAFETY: the kernel has just installed these descriptors for this message, so
                // nothing else in the process owns them, and each is taken once.
                descriptors.extend(received.iter().map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let (size, flags) = (received.bytes, received.flags);
        let message = ToLauncher::decode(whole_packet(&packet, size, flags)?)?;
        let (expected, got) = (message.descriptors(), descriptors.len());
        if expected != got {
            return Err(ControlError::Descriptors { expected, got });
        }
        Ok((message, descriptors))
    }

    fn send(
        &self,
        packet: &[u8],
        descriptors: &[BorrowedFd<'_>],
        flags: MsgFlags,
    ) -> std::io::Result<()> {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let flags = flags | MsgFlags::MSG_NOSIGNAL;
        loop {
            match sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(packet)], control, flags, None) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for ControlSocket {
    /// From an end of a connected `SOCK_SEQPACKET` pair.
    fn from(fd: OwnedFd) -> Self {
        ControlSocket(fd)
    }
}

fn whole_packet(buffer: &[u8], size: usize, flags: MsgFlags) -> Result<&[u8], ControlError> {
    if size == 0 {
        return Err(ControlError::Closed);
    }
    if flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(ControlError::Malformed("longer than any message"));
    }
    Ok(&buffer[..size])
}
