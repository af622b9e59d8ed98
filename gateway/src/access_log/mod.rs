//! One line of JSON for each answer: who called what, when, with what outcome. Never a key, a token, a
//! query or the value of a header field.
//!
//! ```text
//!  shard 0: Feed ──► bounded queue ──┐
//!  shard 1: Feed ──► bounded queue ──┼──► thread "access-log": JSON ──► file or standard output
//!  ...                               ┘
//! ```
//!
//! A shard never waits for the log: what does not fit into its queue is counted and lost.
//! - `record`: what is told of one request
//! - `feed`: the queue of one shard, and the bell of the thread
//! - `writer`: the thread

mod feed;
mod record;
mod writer;

pub use feed::Feed;
pub use record::{Label, Record};
pub use writer::{AccessLog, Destination};
