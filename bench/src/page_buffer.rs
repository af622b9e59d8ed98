//! Private memory that begins at a page.
//!
//! What a copy costs can depend on where its ends lie within their pages: on some processors twenty
//! times as much where the destination lies a few bytes further into its page than the source. A
//! measurement must not leave that to the allocator. `limits` has a case of it.

use ipc::engine_side::SharedSlice;

const PAGE_SIZE: usize = 4096;

/// Bytes that begin at a page, never moved.
#[derive(Debug)]
pub struct PageBuffer {
    memory: Vec<u8>,
    /// Where the page begins; what is before it is not used.
    start: usize,
    capacity: usize,
}

impl PageBuffer {
    /// Empty, with room for `capacity` bytes, which take no memory before they are written.
    #[must_use]
    pub fn new(capacity: usize) -> PageBuffer {
        let mut memory: Vec<u8> = Vec::with_capacity(capacity + PAGE_SIZE);
        let start = memory.as_ptr().align_offset(PAGE_SIZE);
        memory.resize(start, 0);
        PageBuffer { memory, start, capacity }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..]
    }

    /// The bytes.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }

    /// Cuts or extends to `size` bytes. Panics, as the others, beyond the capacity.
    pub fn resize(&mut self, size: usize) {
        assert!(size <= self.capacity, "{size} bytes where there is room for {}", self.capacity);
        self.memory.resize(self.start + size, b'x');
    }

    /// Replaces the bytes.
    pub fn set(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.capacity, "no room for {} bytes", bytes.len());
        self.memory.truncate(self.start);
        self.memory.extend_from_slice(bytes);
    }

    /// Replaces the bytes by a worker's.
    pub fn set_shared(&mut self, bytes: &SharedSlice) {
        assert!(bytes.len() <= self.capacity, "no room for {} bytes", bytes.len());
        self.memory.truncate(self.start);
        bytes.append_to(&mut self.memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_begin_at_a_page_whatever_was_put_there() {
        let mut buffer = PageBuffer::new(100_000);
        for size in [0, 1, 100_000, 5] {
            buffer.resize(size);
            assert_eq!(buffer.bytes().len(), size);
            buffer.set(&vec![7; size]);
            assert_eq!(buffer.bytes(), vec![7; size]);
            assert!(buffer.bytes().as_ptr().addr().is_multiple_of(PAGE_SIZE));
        }
    }
}
