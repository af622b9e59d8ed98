//! What the other side of a channel can do wrong, and where memory runs out.

use crate::descriptor::{DescriptorError, Region};
use crate::layout::RING_DEPTH;
use crate::spsc::{CursorFault, PushError};

/// The peer broke the contract, or took away what it rests on. The engine closes that container;
/// a worker ends its own.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// An impossible cursor.
    #[error(transparent)]
    Cursor(#[from] CursorFault),
    /// The worker leaves more unread than it can be owed.
    #[error("all {RING_DEPTH} messages to the worker are unread")]
    Full,
    /// Words that are no message.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// A block in a region that its sender does not write.
    #[error("a block in the region {0:?}, which its sender does not write")]
    Region(Region),
    /// A block that does not lie within its region.
    #[error("a block of {size} bytes at {offset} in a region of {region_size} bytes")]
    OutOfRange {
        /// As claimed.
        offset: u64,
        /// As claimed, envelope and payload.
        size: usize,
        /// The region's.
        region_size: usize,
    },
    /// An envelope above the limit.
    #[error("an envelope of {size} bytes where {max} are allowed")]
    EnvelopeSize {
        /// As claimed.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// A payload above the limit.
    #[error("a payload of {size} bytes where {max} are allowed")]
    PayloadSize {
        /// As claimed.
        size: usize,
        /// The channel's limit.
        max: usize,
    },
    /// The lane was used after `Retired` was said in it.
    #[error("the lane is retired")]
    Retired,
    /// An eventfd or epoll failed: someone in this process closed it.
    #[error("a doorbell failed: {0}")]
    Doorbell(#[from] nix::errno::Errno),
}

/// The lane's memory has no hole of that size now, or the size is above the channel's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for {size} bytes in the lane's memory")]
pub struct NoSpace {
    /// Bytes asked for.
    pub size: usize,
}

impl From<PushError> for Fault {
    fn from(error: PushError) -> Fault {
        match error {
            PushError::Full => Fault::Full,
            PushError::Cursor(fault) => Fault::Cursor(fault),
        }
    }
}
