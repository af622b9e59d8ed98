//! What an operator may set, with the defaults and the bounds that hold whatever is set.

use std::sync::Arc;
use std::time::Duration;

use crate::access_log::AccessLog;
use crate::auth::Authorities;
use crate::cors::Cors;

/// Largest head that can be configured: method, query, suffix and headers must fit the envelope
/// of a call (64 KiB) with room for its framing.
pub const HEAD_SIZE_LIMIT: u32 = 32 * 1024;
/// Most header fields that can be configured: the parser's table lives on the stack, and an
/// envelope has a bounded number of fields, of which 8 are left for what is no header.
pub const HEADERS_LIMIT: usize = 96;

/// Descriptors that are not for connections, where the process may have more than four times as many:
/// a worker takes one, the start of a container ten.
const DESCRIPTORS_LEFT: u64 = 1024;

const _: () = assert!(HEAD_SIZE_LIMIT as usize * 2 <= ipc::ENVELOPE_MAX);
const _: () = assert!(HEADERS_LIMIT + 8 <= ipc::envelope::FIELDS_MAX);

/// Limits of one shard's gateway. Sizes are bytes.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest request body, after chunked decoding. Beyond it: 413.
    pub body_max: u32,
    /// Largest request head; at most [`HEAD_SIZE_LIMIT`]. Beyond it: 431, or 414 if it is the URI.
    pub head_max: u32,
    /// Most header fields of a request; at most [`HEADERS_LIMIT`]. Beyond it: 431.
    pub headers_max: usize,
    /// Connections served at once. Beyond it: 503 and a polite close.
    pub connections_max: u32,
    /// Which descriptors connections may have.
    pub descriptors: Descriptors,
    /// From the first byte of a head to its last. Beyond it: 408.
    pub head_timeout: Duration,
    /// Without progress in a body. Beyond it: 408.
    pub body_timeout: Duration,
    /// Between two requests of a connection. Beyond it: closed without a word.
    pub idle_timeout: Duration,
    /// Without the client taking a byte of its answer. Beyond it: closed.
    pub write_timeout: Duration,
    /// Where the host's metrics and lists are.
    pub documents: Documents,
    /// Who may call what; `None`: everybody everything.
    pub auth: Option<Arc<Authorities>>,
    /// Which web pages may read answers; `None`: nothing is said about it.
    pub cors: Option<Arc<Cors>>,
    /// Where answers are logged.
    pub access_log: Option<AccessLog>,
}

/// By which door the host's metrics and lists are to be had. Health and readiness are by every door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Documents {
    /// By every one.
    Everywhere,
    /// By [`Door::Admin`](crate::Door::Admin) alone: to clients, the paths are none.
    Apart,
}

/// Which of the process's descriptors connections may have. The kernel gives out the lowest number that
/// is free, so a number tells how many are taken, by whomever. The highest ones are left to containers
/// and their workers, or a crowd of clients would keep them from being started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Connections of this number or above are not served, but answered 503.
    pub served_below: u64,
    /// Those of this number or above are closed without an answer.
    pub answered_below: u64,
}

impl Descriptors {
    /// A share of the numbers below `limit`, which the process has.
    #[must_use]
    pub fn within(limit: u64) -> Descriptors {
        let left = (limit / 4).min(DESCRIPTORS_LEFT);
        Descriptors { served_below: limit - left, answered_below: limit - left / 2 }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            body_max: 16 * 1024 * 1024,
            head_max: 16 * 1024,
            headers_max: 64,
            connections_max: 16 * 1024,
            descriptors: Descriptors::within(u64::MAX),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            documents: Documents::Everywhere,
            auth: None,
            cors: None,
            access_log: None,
        }
    }
}

impl Config {
    /// The same with every limit brought into the range the code relies on.
    pub(crate) fn bounded(mut self) -> Config {
        self.head_max = self.head_max.clamp(256, HEAD_SIZE_LIMIT);
        self.headers_max = self.headers_max.clamp(1, HEADERS_LIMIT);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_left_to_others_however_few_there_are() {
        let few = Descriptors { served_below: 96, answered_below: 112 };
        assert_eq!(Descriptors::within(128), few);
        let many = Descriptors { served_below: 18_976, answered_below: 19_488 };
        assert_eq!(Descriptors::within(20_000), many);
    }
}
