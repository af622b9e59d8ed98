//! Two processes that pass 1 KiB through a stream socket, as a gRPC server on this host would.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::line::{self, Line};
use crate::case::{Case, Error};

/// Bytes of a message.
const SIZE: usize = 1024;

/// A connection for each direction: one for both costs the same.
struct Connection {
    from: UnixStream,
    to: UnixStream,
}

pub(super) fn cases() -> Vec<Case> {
    line::cases::<Connection>("unix_socket", "unix stream socket, 1 KiB")
}

impl Line for Connection {
    fn new() -> Result<Connection, Error> {
        let (from, to) = UnixStream::pair()?;
        Ok(Connection { from, to })
    }

    fn say(&mut self) -> Result<(), Error> {
        Ok(self.from.write_all(&[b'x'; SIZE])?)
    }

    fn hear(&mut self) -> Result<(), Error> {
        Ok(self.to.read_exact(&mut [0; SIZE])?)
    }
}
