//! What a connection keeps of its request for the access log. There only while the log is on; used
//! again for every request, so that a line costs no allocation.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::SystemTime;

use ipc::Times;
use nix::sys::socket::{SockaddrStorage, getpeername};

use crate::access_log::{Label, Record};
use crate::auth::Client;
use crate::http::head::Head;
use crate::request_id::RequestId;

/// See the module's description.
pub(crate) struct Access {
    peer: Option<SocketAddr>,
    request: Option<Request>,
}

/// Of the request in progress.
struct Request {
    method: Label<16>,
    function: Option<Label<64>>,
    client: Option<Client>,
    bytes_in: u64,
    times: Option<Times>,
}

impl Request {
    const EMPTY: Request =
        Request { method: Label::EMPTY, function: None, client: None, bytes_in: 0, times: None };
}

impl Access {
    pub(crate) fn of(socket: &OwnedFd) -> Box<Access> {
        Box::new(Access { peer: peer(socket), request: None })
    }

    /// A head was read.
    pub(crate) fn begin(&mut self, head: &Head<'_>) {
        let (method, bytes_in) = (Label::new(head.method_text), head.size as u64);
        self.request = Some(Request { method, bytes_in, ..Request::EMPTY });
    }

    /// It names this function.
    pub(crate) fn name(&mut self, function: &[u8]) {
        if let Some(request) = &mut self.request {
            request.function = Some(Label::new(function));
        }
    }

    /// It comes from this client.
    pub(crate) fn recognise(&mut self, client: &Client) {
        if let Some(request) = &mut self.request {
            request.client = Some(client.clone());
        }
    }

    /// Its body is complete.
    pub(crate) fn count_body(&mut self, size: usize) {
        if let Some(request) = &mut self.request {
            request.bytes_in += size as u64;
        }
    }

    /// Its call came back.
    pub(crate) fn time(&mut self, times: Option<Times>) {
        if let Some(request) = &mut self.request {
            request.times = times;
        }
    }

    /// The line of a request that is answered now, whether its head could be read or not.
    pub(crate) fn answered(&mut self, id: &RequestId, status: u16, bytes_out: usize) -> Record {
        let request = self.request.take().unwrap_or(Request::EMPTY);
        self.record(request, id, Some(status), bytes_out as u64)
    }

    /// The line of a request whose client has gone, if there is one.
    pub(crate) fn abandoned(mut self, id: &RequestId) -> Option<Record> {
        let request = self.request.take()?;
        Some(self.record(request, id, None, 0))
    }

    fn record(
        &self,
        request: Request,
        id: &RequestId,
        status: Option<u16>,
        bytes_out: u64,
    ) -> Record {
        let Request { method, function, client, bytes_in, times } = request;
        let (time, peer) = (SystemTime::now(), self.peer);
        let request_id = Label::new(id.as_bytes());
        Record {
            time,
            request_id,
            method,
            function,
            status,
            bytes_in,
            bytes_out,
            times,
            peer,
            client,
        }
    }
}

fn peer(socket: &OwnedFd) -> Option<SocketAddr> {
    // A socket that is broken already has none.
    let address: SockaddrStorage = getpeername(socket.as_raw_fd()).ok()?;
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}
