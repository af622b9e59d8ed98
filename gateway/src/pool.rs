//! Byte vectors that are used again, so that a request in steady state allocates nothing and an
//! idle connection owns no buffer.

/// Spare vectors kept per shard: more than requests are in progress at a moment, and at most
/// 16 MiB altogether.
const SPARE_MAX: usize = 256;
/// A vector that grew beyond this for one large body goes back to the allocator.
const CAPACITY_MAX: usize = 64 * 1024;

#[derive(Default)]
pub(crate) struct Pool {
    spare: Vec<Vec<u8>>,
}

impl Pool {
    /// An empty vector.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub(crate) fn put(&mut self, mut bytes: Vec<u8>) {
        let worth_keeping = (1..=CAPACITY_MAX).contains(&bytes.capacity());
        if worth_keeping && self.spare.len() < SPARE_MAX {
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}
