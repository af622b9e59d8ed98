//! TLS of a link, after its handshake: bytes of the connection to plain ones, and back.

use std::io::{self, Read, Write};

use crate::error::LinkError;
use crate::reader::Reader;

/// Plain bytes taken at once.
const PLAIN_CHUNK: usize = 16 * 1024;

/// Whether more can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Goes,
    /// The peer has said that it ends here. What comes behind that is not its own.
    Ended,
}

#[derive(Debug)]
pub(crate) struct Cipher {
    tls: Box<rustls::Connection>,
    /// What is encrypted next is the last.
    ends: bool,
}

impl Cipher {
    pub(crate) fn new(tls: Box<rustls::Connection>) -> Cipher {
        Cipher { tls, ends: false }
    }

    /// Passes on what these bytes, and those that came with the handshake, are in plain.
    ///
    /// # Errors
    /// When they are no TLS.
    pub(crate) fn decrypt(
        &mut self,
        mut bytes: &[u8],
        reader: &mut Reader,
    ) -> Result<Flow, LinkError> {
        loop {
            let state = self.tls.process_new_packets()?;
            self.take_plain(state.plaintext_bytes_to_read(), reader)?;
            if state.peer_has_closed() {
                return Ok(Flow::Ended);
            }
            if bytes.is_empty() {
                return Ok(Flow::Goes);
            }
            // It takes a part: as much as it has room for until that is processed.
            if self.tls.read_tls(&mut bytes)? == 0 {
                return Err(io::Error::from(io::ErrorKind::InvalidData).into());
            }
        }
    }

    /// Appends to `out` what these bytes become, and what TLS itself has to say.
    ///
    /// # Errors
    /// When the connection takes no more.
    pub(crate) fn encrypt(&mut self, mut plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        loop {
            // It holds 64 KiB at most, and is emptied each time.
            let count = self.tls.writer().write(plain)?;
            plain = &plain[count..];
            while self.tls.wants_write() {
                self.tls.write_tls(out)?;
            }
            if plain.is_empty() {
                return self.say_end(out);
            }
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
    }

    pub(crate) fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    /// Has it said, behind what is encrypted next, that nothing more comes.
    pub(crate) fn end(&mut self) {
        self.ends = true;
    }

    fn say_end(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if std::mem::take(&mut self.ends) {
            self.tls.send_close_notify();
            while self.tls.wants_write() {
                self.tls.write_tls(out)?;
            }
        }
        Ok(())
    }

    fn take_plain(&mut self, mut left: usize, reader: &mut Reader) -> io::Result<()> {
        let buffer = reader.make_room(left);
        while left > 0 {
            let from = buffer.len();
            buffer.resize(from + left.min(PLAIN_CHUNK), 0);
            let result = self.tls.reader().read(&mut buffer[from..]);
            let count = *result.as_ref().unwrap_or(&0);
            buffer.truncate(from + count);
            if result? == 0 {
                return Ok(());
            }
            left -= count.min(left);
        }
        Ok(())
    }
}
