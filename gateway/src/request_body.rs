//! A request whose body did not come together with its head: what has been read of it so far.

use crate::http::chunked::{ChunkFault, Decoder, Progress};
use crate::http::head::{Framing, Head};
use crate::pool::Pool;

/// Room made at once for a body that is announced; more only as it really comes, so that an
/// announcement alone costs no memory.
const RESERVE_MAX: u64 = 64 * 1024;
/// Bytes that count as progress of a body: a byte now and then is a slow sender.
const PROGRESS_MIN: usize = 1024;

/// Head and decoded body in one vector. The head is parsed again when the body is complete: that
/// costs a microsecond, and nothing has to point into a vector that still grows.
pub(crate) struct RequestBody {
    request: Vec<u8>,
    head_size: usize,
    rest: Rest,
    /// Size of `request` when the deadline was last moved.
    progress_at: usize,
}

enum Rest {
    Length(u64),
    Chunked(Decoder),
}

impl RequestBody {
    /// `bytes` begins with the head.
    pub(crate) fn new(head: &Head<'_>, bytes: &[u8], body_max: u32, pool: &mut Pool) -> Self {
        let mut request = pool.take();
        request.extend_from_slice(&bytes[..head.size]);
        let rest = match head.framing {
            Framing::Length(size) => {
                request.reserve(usize::try_from(size.min(RESERVE_MAX)).unwrap_or(0));
                Rest::Length(size)
            }
            Framing::Chunked => Rest::Chunked(Decoder::new(u64::from(body_max))),
        };
        RequestBody { progress_at: request.len(), head_size: head.size, request, rest }
    }

    /// Takes body bytes from the front of `bytes` and says how many.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(usize, Progress), ChunkFault> {
        match &mut self.rest {
            Rest::Length(left) => {
                let size = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                self.request.extend_from_slice(&bytes[..size]);
                *left -= size as u64;
                let done = *left == 0;
                Ok((size, if done { Progress::Done } else { Progress::More }))
            }
            Rest::Chunked(decoder) => decoder.decode(bytes, &mut self.request),
        }
    }

    /// Whether enough has come since the last time this said so.
    pub(crate) fn has_progressed(&mut self) -> bool {
        let progressed = self.request.len() - self.progress_at >= PROGRESS_MIN;
        if progressed {
            self.progress_at = self.request.len();
        }
        progressed
    }

    pub(crate) fn head(&self) -> &[u8] {
        &self.request[..self.head_size]
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.request[self.head_size..]
    }

    pub(crate) fn recycle(self, pool: &mut Pool) {
        pool.put(self.request);
    }
}
