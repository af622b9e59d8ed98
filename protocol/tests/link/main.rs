//! Two links that talk to each other over loopback, each on a reactor of its own, with and without TLS;
//! and links that talk to somebody who is no link.
#![allow(missing_docs, clippy::unwrap_used)]

mod ends;
mod hostile_tls;
mod peer;
mod talk;
mod tls;
mod workers;
