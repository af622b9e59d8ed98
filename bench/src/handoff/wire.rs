//! The control socket between the engine and each worker: `SOCK_SEQPACKET`, a JSON message a
//! packet, descriptors beside it. It is off the direct path, so it is plain; the engine's relay of
//! a payload goes over it too, which is right but slow: nothing here measures that.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::lease::Reason;
use super::wake::Wake;
use crate::sample::Sample;

/// Bytes of a packet: a payload as JSON numbers, with room.
const PACKET_MAX: usize = 64 << 10;
/// Descriptors beside a packet.
const FDS_MAX: usize = 5;

/// From the engine.
#[expect(missing_docs, reason = "each message says what its fields are")]
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// To a container: one more worker, on this core. Beside it the worker's socket.
    Spawn { core: usize },
    /// To a container: send a signal to its worker of that number, which sleeps where we cannot
    /// wake it.
    Interrupt { thread: usize },
    /// Run a call that makes `calls` calls of `size` bytes.
    Parent { calls: u32, size: usize, deadline_ns: u64 },
    /// A pair's memory that you write, and your orders; bells for `Wake::Epoll`, yours first. To
    /// be answered with `Mapped`.
    Own { wake: Wake },
    /// The memory that your peer writes.
    Peer,
    /// The pair's lease of this epoch begins.
    Lease { epoch: u32, deadline_ns: u64 },
    /// Run this.
    Call { input: Vec<u8> },
    /// The answer of your call, or why there is none.
    Answer(Result<Vec<u8>, Reason>),
}

/// From a worker.
#[expect(missing_docs, reason = "each message says what its fields are")]
#[derive(Debug, Serialize, Deserialize)]
pub enum ToEngine {
    /// `Own` is mapped.
    Mapped,
    /// The lease is over on this side.
    Released { epoch: u32 },
    /// The lease is over on this side, since the peer broke the protocol, it says.
    Accuse { epoch: u32, fault: String },
    /// Have `function` run this.
    Call { function: String, input: Vec<u8> },
    /// What `Call` gave.
    Complete { output: Vec<u8> },
    /// The parent call is over.
    Ended(Box<Ended>),
}

/// What a parent call did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Calls answered by the leased worker.
    pub direct: u32,
    /// Calls answered through the engine.
    pub relayed: u32,
    /// Answers that were not what was sent.
    pub wrong: u32,
    /// Why the calls ended early.
    pub failure: Option<Reason>,
    /// Times of direct calls.
    pub times: Option<Sample>,
}

/// One end.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Two ends.
    pub fn pair() -> io::Result<(Socket, Socket)> {
        let (one, other) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Socket(one), Socket(other)))
    }

    /// Over a descriptor that is one.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Socket {
        Socket(fd)
    }

    /// Its descriptor.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends one message.
    pub fn send(&self, message: &impl Serialize, fds: &[RawFd]) -> io::Result<()> {
        let packet = serde_json::to_vec(message)?;
        let rights = [ControlMessage::ScmRights(fds)];
        let rights = if fds.is_empty() { &rights[..0] } else { &rights[..] };
        let bytes = [IoSlice::new(&packet)];
        sendmsg::<()>(self.0.as_raw_fd(), &bytes, rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Waits for one message; `None` when the other end is gone.
    pub fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut packet = vec![0; PACKET_MAX];
        let mut rights = cmsg_space!([RawFd; FDS_MAX]);
        let mut bytes = [IoSliceMut::new(&mut packet)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = loop {
            match recvmsg::<()>(self.0.as_raw_fd(), &mut bytes, Some(&mut rights), flags) {
                Err(Errno::ECONNRESET) => return Ok(None),
                Err(Errno::EINTR) => {}
                received => break received?,
            }
        };
        let mut fds = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(passed) = message {
                // SAFETY: the kernel has just made these descriptors for us, and nobody else has
                // their numbers.
                fds.extend(passed.iter().map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let size = received.bytes;
        if size == 0 {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&packet[..size])?, fds)))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
