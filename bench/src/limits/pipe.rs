//! Two processes that pass 1 KiB through pipes, as the original runtime did.

use std::io::{PipeReader, PipeWriter, Read, Write};

use super::line::{self, Line};
use crate::case::{Case, Error};

/// Bytes of a message.
const SIZE: usize = 1024;

struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
}

pub(super) fn cases() -> Vec<Case> {
    line::cases::<Pipe>("pipe", "pipe, 1 KiB")
}

impl Line for Pipe {
    fn new() -> Result<Pipe, Error> {
        let (reader, writer) = std::io::pipe()?;
        Ok(Pipe { reader, writer })
    }

    fn say(&mut self) -> Result<(), Error> {
        Ok(self.writer.write_all(&[b'x'; SIZE])?)
    }

    fn hear(&mut self) -> Result<(), Error> {
        Ok(self.reader.read_exact(&mut [0; SIZE])?)
    }
}
