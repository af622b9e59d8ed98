//! What one would run instead of this runtime, each as its own documentation advises for latency.
//! README.md has every choice and why.
//!
//! - [`server`]: threads, readiness and the end of every server here;
//! - [`http`]: HTTP/1.1 by hyper: the serving side, `nop` and `echo`;
//! - [`front`]: a request that makes calls to a backend, whatever carries them;
//! - [`http_backend`]: calls by HTTP/1.1 over kept connections;
//! - [`grpc`]: calls by gRPC: tonic's server and channels;
//! - [`ping_pong`]: round trips between two processes by iceoryx2.

pub mod front;
pub mod grpc;
pub mod http;
pub mod http_backend;
pub mod ping_pong;
pub mod server;

// Both are compiled from where the runtime's own side has them, so that answers and records of the
// two sides cannot drift apart, and without the crates around them.
#[path = "../../../examples/measure/src/lib.rs"]
pub mod measure;
#[path = "../../src/sample.rs"]
pub mod sample;
