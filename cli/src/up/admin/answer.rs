//! What becomes of each request.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use engine::logs::Logs;

use super::connection::write_line;
use super::logs::{self, Query};
use crate::admin::{About, Failure, Request};

/// What the requests are about.
#[derive(Debug)]
pub(in crate::up) struct Engine {
    /// Where it serves HTTP.
    pub(in crate::up) address: SocketAddr,
    /// What its functions print.
    pub(in crate::up) logs: Logs,
}

impl Engine {
    /// Does what is asked and writes the answer's lines.
    ///
    /// # Errors
    /// What is to be answered instead, before any line was written.
    pub(super) fn answer(&self, request: Request, stream: &UnixStream) -> Result<(), Failure> {
        match request {
            Request::About {} => {
                self.about(stream);
                Ok(())
            }
            Request::Logs { function, lines, follow } => {
                let query = Query { function: function.as_deref(), lines, follow };
                logs::answer(&self.logs, query, stream)
            }
        }
    }

    fn about(&self, stream: &UnixStream) {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let about = About { pid: std::process::id(), version, address: self.address };
        // Who does not stay for the answer does not need it.
        let _ = write_line(stream, &about);
    }
}
