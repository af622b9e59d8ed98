//! What a connection keeps of its request for the access log. There only while the log is on; used
//! again for every request, so that a line costs no allocation.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{SockaddrStorage, getpeername};

use crate::access_log::{Ending, Entry, Record};
use crate::http::head::Head;
use crate::request_id::RequestId;

/// See the module's description.
pub(crate) struct Access {
    peer: Option<SocketAddr>,
    request: Option<Entry>,
}

impl Access {
    pub(crate) fn of(socket: &OwnedFd) -> Box<Access> {
        Box::new(Access { peer: peer(socket), request: None })
    }

    /// A head was read.
    pub(crate) fn begin(&mut self, head: &Head<'_>) {
        self.request = Some(Entry::new(head.method_text, head.size));
    }

    /// The request in progress, if there is one.
    pub(crate) fn request(&mut self) -> Option<&mut Entry> {
        self.request.as_mut()
    }

    /// The line of a request that is answered now, whether its head could be read or not.
    pub(crate) fn answered(&mut self, id: &RequestId, status: u16, bytes_out: usize) -> Record {
        let ending = Ending { status, grpc_status: None, bytes_out: bytes_out as u64 };
        self.request.take().unwrap_or(Entry::EMPTY).close(id, self.peer, Some(ending))
    }

    /// The line of a request whose client has gone, if there is one.
    pub(crate) fn abandoned(mut self, id: &RequestId) -> Option<Record> {
        Some(self.request.take()?.close(id, self.peer, None))
    }
}

fn peer(socket: &OwnedFd) -> Option<SocketAddr> {
    // A socket that is broken already has none.
    let address: SockaddrStorage = getpeername(socket.as_raw_fd()).ok()?;
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}
