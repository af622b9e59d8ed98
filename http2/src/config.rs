//! What an operator may set.

use std::time::Duration;

/// Limits of the door. Sizes are bytes.
#[derive(Clone, Debug)]
pub struct Config {
    /// Connections at once. Beyond it they are closed at once.
    pub connections_max: u32,
    /// Streams of a connection at once, as its client is told.
    pub streams_max: u32,
    /// Bytes of requests and answers that are held for all clients together; at least two bodies of
    /// the largest size.
    pub memory: usize,
    /// The limits that HTTP/1.1 has too, and the same.
    pub gateway: gateway::Config,
}

/// A TLS handshake has this long.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that says nothing is asked this often whether it is there.
pub const PING_INTERVAL: Duration = Duration::from_secs(20);
/// And has this long to answer.
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection may still send a request after the drain began.
pub const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// Bytes of a decoded header list, as the client is told: what HTTP/1.1 allows a head.
pub const HEADER_LIST_MAX: u32 = 16 * 1024;
/// Bytes that a client may send on a stream before any is taken. They are taken as they come, so this
/// bounds what a turn of the thread finds, not what a body may have.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// And on all of its streams.
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes that `h2` buffers for a stream to send: a piece of a body and what is around it.
pub const SEND_BUFFER: usize = 64 * 1024;
/// Streams that were reset before anybody looked at them: rapid reset (CVE-2023-44487).
pub const PENDING_RESETS_MAX: usize = 20;
/// Streams that were reset for the client's errors over the life of a connection (CVE-2025-8671).
pub const LOCAL_RESETS_MAX: usize = 1_024;

impl Config {
    /// Limits within which everything works.
    #[must_use]
    pub fn bounded(mut self) -> Config {
        self.memory = self.memory.max(2 * self.gateway.body_max as usize);
        self.streams_max = self.streams_max.max(1);
        self
    }
}
