//! One line of JSON for each answer: who called what, when, with what outcome. Never a key, a token, a
//! query or the value of a header field.
//!
//! ```text
//!  shard 0: Feed ──► bounded queue ──┐
//!  shard 1: Feed ──► bounded queue ──┼──► thread "access-log": JSON ──► file or standard output
//!  ...                               │
//!  http2:   Feed ──► bounded queue ──┘
//! ```
//!
//! Nobody waits for the log: what does not fit into a queue is counted and lost.
//! - `entry`: what a door knows of a request in progress
//! - `record`: what is told of one request
//! - `feed`: the queue of one thread, and the bell of the thread
//! - `writer`: the thread

mod entry;
mod feed;
mod record;
mod writer;

pub use entry::{Ending, Entry};
pub use feed::Feed;
pub use record::{Label, Record};
pub use writer::{AccessLog, Destination};
