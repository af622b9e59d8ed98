//! Functions for the nightcore runtime: the SDK they are written with and, with the feature
//! `host`, the runtime library that runs them in a container.
//!
//! ```standalone_crate
//! use nightcore::{Context, Error};
//!
//! #[nightcore::function]
//! fn greet(context: &Context, name: &str) -> Result<String, Error> {
//!     let shout = context.call("upper", name.as_bytes())?;
//!     Ok(format!("Hello, {}", String::from_utf8_lossy(&shout)))
//! }
//! # fn main() {}
//! ```
//!
//! A function takes at most one `&Context` (or `&mut Context`) and at most one input, anything that
//! implements [`FromRequest`]: `&[u8]`, `&str`, `Vec<u8>`, `String`, [`Request`]. It returns anything
//! that implements [`Reply`]: `()`, bytes, text, a [`Response`], the [`Answer`] of another function,
//! or a `Result` of these. A panic is caught and fails that call alone.
//!
//! In the order a call meets them:
//! - [`abi`]: interface v2 as C sees it (`include/nightcore.h`)
//! - [`edge`]: where the runtime enters Rust: panics and errors end here
//! - `request`: what came in
//! - `context`: what a running function may ask of the runtime, other functions above all
//! - `response`: what goes out
//! - `error`: failures, ours and those of called functions
//! - [`host`]: the container's side: loads a library, runs workers

pub mod abi;
mod context;
pub mod edge;
mod error;
#[cfg(feature = "host")]
pub mod host;
mod request;
mod response;

pub use context::{Answer, Call, Context};
pub use error::{CallError, Error, ErrorKind};
pub use nightcore_macros::function;
pub use request::{FromRequest, Request};
pub use response::{Output, Reply, Response};

// The attribute's expansion says `::nightcore`, also in this crate's own tests.
#[cfg(test)]
extern crate self as nightcore;

/// The examples of the manual compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/functions.md")]
struct Manual;
