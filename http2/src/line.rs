//! The line of one request in the access log. It is written when the request is answered, or without
//! a status when nobody waits for the answer any more: its stream was reset, its connection closed.

use std::cell::RefCell;
use std::net::SocketAddr;

use gateway::RequestId;
use gateway::access_log::{Ending, Entry, Feed};
use http::{HeaderMap, Response};
use ipc::Times;

use crate::body::Body;
use crate::stats::Stats;

/// Where lines go.
pub struct Journal<'a> {
    /// `None`: there is no log.
    pub feed: &'a RefCell<Option<Feed>>,
    /// Counts what did not fit.
    pub stats: &'a Stats,
}

/// A line that is being filled in. Written when it is dropped, at the latest.
pub struct Line<'a> {
    journal: Journal<'a>,
    id: RequestId,
    peer: SocketAddr,
    /// `None`: it was written.
    entry: RefCell<Option<Entry>>,
}

impl<'a> Line<'a> {
    /// Of a request whose head was read.
    pub fn new(journal: Journal<'a>, id: RequestId, peer: SocketAddr, entry: Entry) -> Line<'a> {
        Line { journal, id, peer, entry: RefCell::new(Some(entry)) }
    }

    /// Shows what is known of the request to whoever learns more.
    pub fn fill<R>(&self, fill: impl FnOnce(&mut Entry) -> R) -> R {
        // What is learned behind the line is for nobody.
        let mut nobody = Entry::EMPTY;
        fill(self.entry.borrow_mut().as_mut().unwrap_or(&mut nobody))
    }

    /// The body is complete.
    pub fn count_body(&self, size: usize) {
        self.fill(|entry| entry.count_body(size));
    }

    /// The call came back.
    pub fn time(&self, times: Option<Times>) {
        self.fill(|entry| entry.time(times));
    }

    /// Nobody waits for an answer.
    pub fn abandon(&self) {
        self.write(None);
    }

    /// The answer goes out.
    pub fn answered(self, response: &Response<Body>) {
        let (headers, trailers) = (response.headers(), response.body().trailers());
        let heads = fields_size(headers) + trailers.map_or(0, fields_size);
        let grpc_status = trailers.unwrap_or(headers).get("grpc-status");
        let ending = Ending {
            status: response.status().as_u16(),
            grpc_status: grpc_status.and_then(|code| code.to_str().ok()?.parse().ok()),
            bytes_out: heads + response.body().size(),
        };
        self.write(Some(ending));
    }

    fn write(&self, ending: Option<Ending>) {
        let Some(entry) = self.entry.take() else { return };
        if let Some(feed) = self.journal.feed.borrow_mut().as_mut() {
            feed.push(entry.close(&self.id, Some(self.peer), ending));
            self.journal.stats.count_dropped_lines(feed.dropped());
        }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.write(None);
    }
}

/// Names and values, which are more than is sent: they are packed on the way.
fn fields_size(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum()
}
