//! The body of an answer, sent straight out of the memory in which its function left it. The one
//! file of this crate with unsafe code: a promise to the reactor, nothing more.
#![allow(unsafe_code)]

use ipc::engine_side::{SharedBlock, SharedSlice};
use reactor::StableBuffer;

pub(crate) struct Body {
    payload: SharedSlice,
    /// The block counts as being read while this lives.
    _block: SharedBlock,
}

impl Body {
    pub(crate) fn new(block: SharedBlock) -> Body {
        Body { payload: block.payload(), _block: block }
    }

    pub(crate) fn payload(&self) -> SharedSlice {
        self.payload.clone()
    }
}

// SAFETY: `payload` names a range that `ipc` checked against the mapping or the heap bytes that it
// lies in, and holds a count of those; so the range stays readable while `self` lives, wherever it is
// moved. The function may change the bytes of a mapping meanwhile, which the trait allows.
unsafe impl StableBuffer for Body {
    fn bytes(&self) -> (*const u8, usize) {
        (self.payload.as_ptr(), self.payload.len())
    }
}
