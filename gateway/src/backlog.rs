//! Bytes of a connection that were received and not understood yet: the beginning of a head, or
//! requests sent ahead of the answer to the current one. Empty most of the time.

use crate::pool::Pool;

#[derive(Default)]
pub(crate) struct Backlog {
    bytes: Vec<u8>,
    /// Bytes at the front that have been taken.
    taken: usize,
}

impl Backlog {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    pub(crate) fn append(&mut self, bytes: &[u8], pool: &mut Pool) {
        if bytes.is_empty() {
            return;
        }
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take();
        }
        // Moving the rest to the front costs no more than appending what came.
        if self.taken >= self.len() {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn consume(&mut self, count: usize, pool: &mut Pool) {
        self.taken += count;
        if self.is_empty() {
            self.clear(pool);
        }
    }

    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.taken = 0;
        pool.put(std::mem::take(&mut self.bytes));
    }
}
