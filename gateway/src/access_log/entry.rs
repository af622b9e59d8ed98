//! A request in progress, as the log will tell of it. Every door fills one in as it learns things, and
//! makes a record of it when the answer goes out or its client is gone.

use std::net::SocketAddr;
use std::time::SystemTime;

use ipc::Times;

use super::record::{Label, Record};
use crate::auth::Client;
use crate::request_id::RequestId;

/// What is known of a request so far. Of a fixed size, so that it costs no allocation.
#[derive(Debug)]
pub struct Entry {
    method: Label<16>,
    function: Option<Label<64>>,
    client: Option<Client>,
    bytes_in: u64,
    times: Option<Times>,
}

/// What a client was answered.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// Of HTTP.
    pub status: u16,
    /// Of gRPC, where that was spoken.
    pub grpc_status: Option<u16>,
    /// Of the answer, with its head.
    pub bytes_out: u64,
}

impl Entry {
    /// Of a request of which nothing could be read.
    pub const EMPTY: Entry =
        Entry { method: Label::EMPTY, function: None, client: None, bytes_in: 0, times: None };

    /// Of a head of so many bytes.
    #[must_use]
    pub fn new(method: &[u8], head_size: usize) -> Entry {
        Entry { method: Label::new(method), bytes_in: head_size as u64, ..Entry::EMPTY }
    }

    /// It names this function.
    pub fn name(&mut self, function: &[u8]) {
        self.function = Some(Label::new(function));
    }

    /// It comes from this client.
    pub fn recognise(&mut self, client: &Client) {
        self.client = Some(client.clone());
    }

    /// Its body is complete.
    pub fn count_body(&mut self, size: usize) {
        self.bytes_in += size as u64;
    }

    /// Its call came back.
    pub fn time(&mut self, times: Option<Times>) {
        self.times = times;
    }

    /// Its line, which is over now. Without an ending, its client has gone before.
    #[must_use]
    pub fn close(self, id: &RequestId, peer: Option<SocketAddr>, ending: Option<Ending>) -> Record {
        let Entry { method, function, client, bytes_in, times } = self;
        Record {
            time: SystemTime::now(),
            request_id: Label::new(id.as_bytes()),
            method,
            function,
            status: ending.map(|ending| ending.status),
            grpc_status: ending.and_then(|ending| ending.grpc_status),
            bytes_in,
            bytes_out: ending.map_or(0, |ending| ending.bytes_out),
            times,
            peer,
            client,
        }
    }
}
