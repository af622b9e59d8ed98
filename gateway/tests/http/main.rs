//! The gateway over real sockets and a real ring, with calls run by a worker of one function each
//! in this process (`server`). Clients are plain blocking sockets (`client`).

#![allow(missing_docs, clippy::unwrap_used)]

mod answers;
mod client;
mod connections;
mod departures;
mod doors;
mod framing;
mod requests;
mod secured;
mod server;
