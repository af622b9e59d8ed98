//! The HTTP front end of a shard: reads requests from the shard's ring, turns those for functions
//! into calls of an [`Upstream`], and sends the answers. Speaks HTTP/1.1 and 1.0 on connections
//! that the shard accepted; owns no listener, no ring, and no thread but that of the access log.
//!
//! The modules, in the order a request meets them:
//! - `arrival`: a connection that comes, and what it may ask for
//! - `gateway`: the connections of a shard; routes events to them
//! - `key`: names a connection in tokens, timers and calls
//! - `connection`: one connection's state, and what is owed to it (`lifecycle`)
//! - `transport`: TLS between its socket and its HTTP, where there is any
//! - `departure`: how a connection leaves for another shard
//! - `backlog`, `pool`, `deadline`, `shared`: its bytes, vectors, time, and what all share
//! - `request`: from bytes to a call, with `request_body` for what comes in parts
//! - `http`: heads and chunked bodies as bytes
//! - `route`: which resource a request names
//! - `auth`: who may use it
//! - `request_id`: the id that follows a request everywhere
//! - `upstream`: what runs the calls, as seen from here
//! - `cors`: which web pages may read the answer
//! - `answer`: from what became of a call to an answer; `reject` where there was no call
//! - `respond`, `date`: answers as bytes
//! - `send`, `body`: answers on their way out
//! - `remote`: calls to engines on other hosts
//! - `portal`: calls that come from another thread, with `intake` for requests that were read there
//! - `access`, `access_log`: a line for each answer
//! - `metrics`, `config`: what an operator sees and sets
#![deny(unsafe_code)]

mod access;
pub mod access_log;
mod answer;
mod arrival;
pub mod auth;
mod backlog;
mod body;
mod config;
mod connection;
pub mod cors;
mod date;
mod deadline;
mod departure;
mod gateway;
mod http;
pub mod intake;
mod key;
mod lifecycle;
mod metrics;
mod pool;
pub mod portal;
mod reject;
pub mod remote;
mod request;
mod request_body;
mod request_id;
mod respond;
mod route;
mod send;
mod shared;
mod transport;
mod upstream;

pub use arrival::{Arrival, Door};
pub use config::{Config, Descriptors, Documents, HEAD_SIZE_LIMIT, HEADERS_LIMIT};
pub use cors::{Cors, ORIGINS_MAX, is_origin};
pub use departure::{Departed, Departure};
pub use gateway::Gateway;
pub use request_id::RequestId;
pub use upstream::{Answer, ForwardedHeaders, NewCall, Refusal, Upstream};
