//! One client's bytes, for `hyper`: a socket or what TLS makes of one, watched by a [`Census`], with
//! limits of time for what only the client can end.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::ReadBufCursor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::census::Census;

/// Bytes taken at once: as many as the largest frame that is accepted.
const READ_MAX: usize = 16 * 1024;

/// A connection's bytes.
pub struct Transport<S> {
    stream: S,
    census: Census,
    head_timeout: Duration,
    write_timeout: Duration,
    reading: Pin<Box<Sleep>>,
    writing: Pin<Box<Sleep>>,
    /// The last write found no room, since then.
    stalled_since: Option<Instant>,
}

impl<S> Transport<S> {
    /// A stream of which nothing has been read. The client has `head_timeout` for its preface and for
    /// each header block, and may let nothing be written for `write_timeout`.
    pub fn new(stream: S, head_timeout: Duration, write_timeout: Duration) -> Transport<S> {
        Transport {
            stream,
            census: Census::new(Instant::now()),
            head_timeout,
            write_timeout,
            reading: Box::pin(tokio::time::sleep(head_timeout)),
            writing: Box::pin(tokio::time::sleep(write_timeout)),
            stalled_since: None,
        }
    }

    /// Nothing came. Ready once the client has owed it for too long.
    fn poll_owed(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let Some(since) = self.census.owed_since() else { return Poll::Pending };
        ready!(poll_at(&mut self.reading, since + self.head_timeout, context));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client owes the end of a head"))
    }

    /// What came of a write.
    fn written(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(result) => {
                self.stalled_since = None;
                if let Ok(size) = &result {
                    self.census.sent(*size);
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                let since = *self.stalled_since.get_or_insert_with(Instant::now);
                ready!(poll_at(&mut self.writing, since + self.write_timeout, context));
                Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client takes nothing",
                )))
            }
        }
    }
}

fn poll_at(sleep: &mut Pin<Box<Sleep>>, at: Instant, context: &mut Context<'_>) -> Poll<()> {
    let at = tokio::time::Instant::from_std(at);
    if sleep.deadline() != at {
        sleep.as_mut().reset(at);
    }
    sleep.as_mut().poll(context)
}

impl<S: AsyncRead + Unpin> hyper::rt::Read for Transport<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // What is read has to be looked at, and a cursor shows nothing. This copy is the price.
        let mut space = [MaybeUninit::uninit(); READ_MAX];
        let room = buffer.remaining().min(READ_MAX);
        let mut read = ReadBuf::uninit(&mut space[..room]);
        match Pin::new(&mut self.stream).poll_read(context, &mut read) {
            Poll::Ready(Ok(())) => {
                let bytes = read.filled();
                self.census.received(bytes, Instant::now()).map_err(io::Error::other)?;
                buffer.put_slice(bytes);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_owed(context).map(Err),
        }
    }
}

impl<S: AsyncWrite + Unpin> hyper::rt::Write for Transport<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
