//! What a gateway and its successor say to each other on the admin socket, behind `hand_over`.
//!
//! ```text
//! successor                              predecessor
//!   hand_over  ------------------------>   lends its sockets, goes on as before
//!              <------------------------   Offer, with the descriptors
//!   starts, accepts nothing
//!   joining    ------------------------>   has the engines dial again, serves on by the links that it has
//!              <------------------------   Acknowledged, with the functions that clients have here
//!   accepts engines, waits for these functions
//!   taken      ------------------------>   what these sockets still hold is the successor's
//!              <------------------------   Acknowledged
//!   accepts
//!   serving    ------------------------>   drains, and ends
//! ```
//!
//! Whatever ends before `serving` leaves the predecessor as it was. Every word is a line of JSON; a
//! [`Failure`](super::Failure) may come instead of an answer.

use std::collections::BTreeSet;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Most sockets of an offer: a process has one for each purpose at most.
const LISTENERS_MAX: usize = 16;
/// Longest word, its newline included: the names of some thousands of functions.
const WORD_SIZE_MAX: usize = 256 << 10;
/// Read at once.
const PART_SIZE: usize = 4096;

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    /// HTTP/1.1 for clients.
    Public,
    /// The state of the host.
    Admin,
    /// HTTP/2 for clients.
    Http2,
    /// The same over TLS.
    Http2Tls,
    /// HTTP/1.1 over TLS for clients.
    Tls,
    /// Engines.
    Engines,
}

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handed {
    pub(crate) purpose: Purpose,
    pub(crate) address: SocketAddr,
}

/// The predecessor's answer. A descriptor for each comes with it, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub(crate) listeners: Vec<Handed>,
}

/// What the successor says next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Word {
    /// It stands, and waits for engines.
    Joining {},
    /// It stands, and would accept from these.
    Taken { listeners: Vec<SocketAddr> },
    /// It accepts.
    Serving {},
}

/// The predecessor's answer to [`Word::Joining`] and [`Word::Taken`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Acknowledged {
    /// Process of the predecessor.
    pub(crate) pid: u32,
    /// Functions of engines that it can send calls for.
    #[serde(default)]
    pub(crate) functions: BTreeSet<String>,
}

/// A connection on which words go to and fro, with descriptors beside them. Blocking, within the time
/// limits of its socket.
#[derive(Debug)]
pub(crate) struct Socket<'a> {
    stream: &'a UnixStream,
    /// Received behind the last word.
    ahead: Vec<u8>,
}

impl Socket<'_> {
    pub(crate) fn new(stream: &UnixStream) -> Socket<'_> {
        Socket { stream, ahead: Vec::new() }
    }

    /// Sends a word, and descriptors with it.
    ///
    /// # Errors
    /// What the system says; `InvalidInput` for a word that is too long.
    pub(crate) fn send(
        &mut self,
        word: &impl Serialize,
        sockets: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        if line.len() > WORD_SIZE_MAX || sockets.len() > LISTENERS_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let fds: Vec<_> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL;
        let parts = [IoSlice::new(&line)];
        let sent = sendmsg::<()>(self.stream.as_raw_fd(), &parts, control, flags, None)?;
        // The descriptors go with the first byte.
        self.stream.write_all(&line[sent..])
    }

    /// The next word and what came with it; `None` when the peer is gone.
    ///
    /// # Errors
    /// What the system says; `InvalidData` for what is no such word.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut sockets = Vec::new();
        loop {
            if let Some(end) = self.ahead.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.ahead.drain(..=end).collect();
                return Ok(Some((serde_json::from_slice(&line)?, sockets)));
            }
            if self.ahead.len() >= WORD_SIZE_MAX || sockets.len() > LISTENERS_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.fill(&mut sockets)? == 0 {
                return Ok(None);
            }
        }
    }

    fn fill(&mut self, sockets: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut bytes = [0; PART_SIZE];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; LISTENERS_MAX]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let fd = self.stream.as_raw_fd();
        let message = recvmsg::<()>(fd, &mut parts, Some(&mut space), flags)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                // SAFETY: the kernel has just made these descriptors for us, and nobody else knows them.
                sockets.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let size = message.bytes;
        self.ahead.extend_from_slice(&bytes[..size]);
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    fn offer(address: SocketAddr) -> Offer {
        Offer { listeners: vec![Handed { purpose: Purpose::Public, address }] }
    }

    #[test]
    fn a_socket_that_is_lent_accepts_at_its_address() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let lent = OwnedFd::from(listener);
        Socket::new(&ours).send(&offer(address), &[lent.as_fd()]).unwrap();
        drop(lent);
        let mut socket = Socket::new(&theirs);
        let (received, mut sockets) = socket.receive::<Offer>().unwrap().unwrap();
        assert_eq!((received, sockets.len()), (offer(address), 1));
        let listener = TcpListener::from(sockets.remove(0));
        let client = TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
    }

    #[test]
    fn words_that_come_together_are_read_one_by_one() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&ours)
            .write_all(b"{\"word\":\"taken\",\"listeners\":[]}\n{\"word\":\"serving\"}\n")
            .unwrap();
        drop(ours);
        let mut socket = Socket::new(&theirs);
        let mut next = || socket.receive::<Word>().unwrap().map(|(word, _)| word);
        assert_eq!(next(), Some(Word::Taken { listeners: vec![] }));
        assert_eq!(next(), Some(Word::Serving {}));
        assert_eq!(next(), None);
    }

    #[test]
    fn what_is_no_word_is_an_error_and_one_without_end_too() {
        let without_end = vec![b'x'; WORD_SIZE_MAX];
        for bytes in [&b"{}\n"[..], b"\xff\0\n", b"{\"word\":\"x\"}\n", &without_end] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let bytes = bytes.to_vec();
            // More than the socket's buffer may hold.
            std::thread::spawn(move || (&ours).write_all(&bytes));
            let error = Socket::new(&theirs).receive::<Word>().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
