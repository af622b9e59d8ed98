//! Unary calls of gRPC over HTTP/2 (the protocol's `PROTOCOL-HTTP2.md`).
//!
//! - `path`: which function a method of a service is
//! - `timeout`: how long the client waits
//! - `message`: the frame of a message
//! - `exchange`: one call from its head to its trailers
//! - `status`: outcomes as gRPC says them

pub(crate) mod exchange;
pub(crate) mod message;
pub(crate) mod path;
mod status;
mod timeout;
