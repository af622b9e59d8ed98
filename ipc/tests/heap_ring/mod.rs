//! A ring on the heap, for the model and for loom: real code, memory without a mapping.

use std::sync::Arc;

use ipc::spsc::Ring;
use ipc::sync::{AtomicU32, Slot};

/// A handle of one shared ring.
#[derive(Clone, Debug)]
pub struct HeapRing<const DEPTH: usize>(Arc<Parts<DEPTH>>);

#[derive(Debug)]
struct Parts<const DEPTH: usize> {
    tail: AtomicU32,
    head: AtomicU32,
    slots: [Slot; DEPTH],
}

impl<const DEPTH: usize> HeapRing<DEPTH> {
    pub fn new() -> Self {
        let slots = core::array::from_fn(|_| Slot::default());
        HeapRing(Arc::new(Parts { tail: AtomicU32::new(0), head: AtomicU32::new(0), slots }))
    }
}

impl<const DEPTH: usize> Ring for HeapRing<DEPTH> {
    const DEPTH: u32 = DEPTH as u32;

    fn tail(&self) -> &AtomicU32 {
        &self.0.tail
    }

    fn head(&self) -> &AtomicU32 {
        &self.0.head
    }

    fn slot(&self, index: u32) -> &Slot {
        &self.0.slots[index as usize]
    }
}
