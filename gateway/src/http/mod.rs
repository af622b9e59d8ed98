//! HTTP/1.x as bytes: heads and chunked bodies. Knows no sockets.

pub(crate) mod chunked;
pub(crate) mod head;
pub(crate) mod rules;
